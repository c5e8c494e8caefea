//! Verified frames of a segment for readers, through a map or by positional reads.
//!
//! # Invariants
//!
//! - No record leaves here from a frame whose header and body checksums do not agree.
//! - Nothing at or behind the segment's published end is looked at.
//! - Both ways of reading give the same frames and the same errors.

use crate::bugs::Bug;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::bytes;
use crate::format::bytes::DecodeError;
use crate::format::frame::FRAME_HEADER_LEN;
use crate::format::frame::FrameHeader;
use crate::format::index::IndexEntry;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::segment::Segment;
use crate::segment::blocks::Blocks;
use crate::segment::damage::damaged;
use crate::segment::records::Records;
use crate::segment::scan::Damage;
use crate::segment::scan::Scan;
use crate::storage::Map;
use crate::units::Offset;
use crate::units::Timestamp;
use std::sync::Arc;

/// The first positional read; later ones that follow it are larger.
const FIRST_BLOCK_BYTES: usize = 16 << 10;

/// A reader's view of one segment.
#[derive(Debug)]
pub(crate) struct Window {
    segment: Arc<Segment>,
    source: Source,
}

/// A frame whose checksums agreed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) position: u64,
}

impl Frame {
    /// Where the next frame begins.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.header.frame_len()
    }
}

/// What tells how far a frame reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Its header: enough where nothing is damaged.
    Headers,
    /// Its body, too.
    Bodies,
}

#[derive(Debug)]
enum Source {
    Map(Arc<Map>),
    Blocks(Blocks),
}

impl Window {
    pub(crate) fn new(segment: Arc<Segment>) -> Result<Self> {
        let source = match segment.map(segment.end())? {
            Some(map) => Source::Map(map),
            None => Source::Blocks(Blocks::new(FIRST_BLOCK_BYTES)),
        };
        Ok(Self { segment, source })
    }

    /// End offset of the last record that may be read, or of a later one: a segment that was cut
    /// back can end inside its last frame.
    #[inline]
    pub(crate) fn end_offset(&self) -> Offset {
        self.segment.end_offset()
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// The frame at `position` if it begins with `offset`. `None` at the published end, and where
    /// something else stands: [`locate`](Window::locate) then says what that means, so that reading
    /// on and looking up find the same.
    pub(crate) fn frame_at(&mut self, position: u64, offset: Offset) -> Result<Option<Frame>> {
        let end = self.segment.end();
        if position >= end {
            return Ok(None);
        }
        match self.header_at(position, end)? {
            Ok(header) if header.base_offset == offset => {
                self.verified(position, header, end).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The body of a frame that this window gave last.
    #[inline]
    pub(crate) fn body(&self, frame: &Frame) -> &[u8] {
        let start = frame.position + FRAME_HEADER_LEN as u64;
        let len = u64::from(frame.header.body_len);
        let bytes = match &self.source {
            Source::Map(map) => map.bytes(start, start + len),
            Source::Blocks(blocks) => blocks.held(start).get(..frame.header.body_len as usize),
        };
        bytes.unwrap_or_default()
    }

    /// The frame that covers `offset`; `None` if it is not published yet.
    pub(crate) fn locate(&mut self, offset: Offset) -> Result<Option<Frame>> {
        match self.walk(offset, Trust::Headers) {
            // What stands in a wrong place may have a sound header, and a length that leads past
            // the frame that is looked for.
            Err(error) if error.kind() == ErrorKind::Corrupt => self.walk(offset, Trust::Bodies),
            found => found,
        }
    }

    /// Walks from where the index says to the frame that covers `offset`.
    fn walk(&mut self, offset: Offset, trust: Trust) -> Result<Option<Frame>> {
        let mut hint = self.segment.hint_for_offset(offset);
        let mut position = place(hint);
        let end = self.segment.end();
        let mut damage: Option<Damage> = None;
        while position < end {
            let header = self.header_at(position, end)?;
            if hint.take().is_some_and(|entry| !is_frame_of(&entry, &header)) {
                self.segment.rebuild_index()?;
                position = place(self.segment.hint_for_offset(offset));
                continue;
            }
            match (header, damage) {
                (Ok(header), _) if header.end_offset() <= offset => {
                    position = match trust {
                        Trust::Headers => position + header.frame_len(),
                        Trust::Bodies => self.behind(position, header, end, &mut damage)?,
                    };
                }
                (Ok(header), _) if header.base_offset <= offset => {
                    return self.verified(position, header, end).map(Some);
                }
                (Ok(header), damage) => {
                    let why = DecodeError::Malformed("a frame of another offset");
                    let damage = damage.unwrap_or(Damage { position, offset, why });
                    return Err(self.unreadable(&damage, header.base_offset));
                }
                (Err(why), _) => {
                    let found = Damage { position, offset, why };
                    damage = damage.or(Some(found));
                    position = self.next_position(&found, end)?;
                }
            }
        }
        match damage {
            Some(damage) => Err(self.unreadable(&damage, self.segment.end_offset())),
            None => Ok(None),
        }
    }

    /// Where to go on behind a frame that is not the one: where it ends, unless its body says that
    /// it may not end there.
    fn behind(
        &mut self,
        position: u64,
        header: FrameHeader,
        end: u64,
        damage: &mut Option<Damage>,
    ) -> Result<u64> {
        let behind = position + header.frame_len();
        if self.verified(position, header, end).is_ok() {
            return Ok(behind);
        }
        let why = DecodeError::BadChecksum;
        let found = Damage { position, offset: header.base_offset, why };
        let next = self.next_position(&found, end)?;
        if next != behind {
            *damage = damage.or(Some(found));
        }
        Ok(next)
    }

    /// Where the first sound header behind damage is, of whatever offset, or the end.
    fn next_position(&self, damage: &Damage, end: u64) -> Result<u64> {
        let behind = Damage { offset: Offset::ZERO, ..*damage };
        Ok(self.next_header(&behind, end)?.map_or(end, |(next, _)| next))
    }

    /// The offset of the first record appended at or after `time`; `None` if there is none.
    pub(crate) fn locate_time(&mut self, time: Timestamp) -> Result<Option<Offset>> {
        let mut hint = self.segment.hint_for_time(time);
        let mut position = place(hint);
        let end = self.segment.end();
        // The last frame closed before `time`: later records in it may have been appended after.
        let mut before: Option<Frame> = None;
        while position < end {
            let header = self.header_at(position, end)?;
            if hint.take().is_some_and(|entry| !is_frame_of(&entry, &header)) {
                self.segment.rebuild_index()?;
                position = place(self.segment.hint_for_time(time));
                continue;
            }
            let header = match header {
                Ok(header) => header,
                Err(why) => {
                    let offset = before
                        .map_or(self.segment.base_offset(), |frame| frame.header.end_offset());
                    return Err(self.corrupt(&Damage { position, offset, why })?);
                }
            };
            if header.is_hole() {
                // It has no record to be found.
                position += header.frame_len();
                continue;
            }
            if header.appended_at >= time {
                let inside = self.first_since(before, time)?;
                return Ok(self.inside(inside.or(Some(header.base_offset))));
            }
            before = Some(Frame { header, position });
            position += header.frame_len();
        }
        let inside = self.first_since(before, time)?;
        Ok(self.inside(inside))
    }

    /// `offset` if it lies below the end: what was cut off is not there.
    fn inside(&self, offset: Option<Offset>) -> Option<Offset> {
        offset.filter(|offset| *offset < self.end_offset())
    }

    fn first_since(&mut self, frame: Option<Frame>, time: Timestamp) -> Result<Option<Offset>> {
        let Some(frame) = frame else { return Ok(None) };
        let frame = self.verified(frame.position, frame.header, self.segment.end())?;
        let found = first_since(self.body(&frame), &frame.header, time);
        found.map_err(|why| {
            let Frame { header, position } = frame;
            let damage = Damage { position, offset: header.base_offset, why };
            self.unreadable(&damage, header.end_offset())
        })
    }

    fn header_at(&mut self, position: u64, end: u64) -> Result<Result<FrameHeader, DecodeError>> {
        let seed = self.segment.seed();
        let Some(bytes) = self.bytes(position, FRAME_HEADER_LEN, end)? else {
            return Ok(Err(DecodeError::Short));
        };
        let header = FrameHeader::decode(bytes, seed);
        Ok(header.and_then(|header| {
            let behind = position.saturating_add(header.frame_len());
            if behind > end {
                Err(DecodeError::Short)
            } else if header.end_offset() > self.segment.end_offset()
                && !(behind == end && self.segment.may_be_cut())
            {
                Err(DecodeError::Malformed("a frame reaches past the end of its segment"))
            } else {
                Ok(header)
            }
        }))
    }

    /// The frame, after its body has been checked.
    fn verified(&mut self, position: u64, header: FrameHeader, end: u64) -> Result<Frame> {
        // Header and body in one piece, so that a buffer holds the body when it is asked for.
        let len = FRAME_HEADER_LEN + header.body_len as usize;
        let body = self.bytes(position, len, end)?.and_then(|frame| frame.get(FRAME_HEADER_LEN..));
        let why = match body {
            Some(body) if bytes::crc(0, body) == header.body_crc || Bug::ReadUnchecked.is_on() => {
                return Ok(Frame { header, position });
            }
            Some(_) => DecodeError::BadChecksum,
            None => DecodeError::Short,
        };
        let damage = Damage { position, offset: header.base_offset, why };
        Err(self.unreadable(&damage, header.end_offset()))
    }

    fn bytes(&mut self, position: u64, len: usize, end: u64) -> Result<Option<&[u8]>> {
        let Some(stop) = position.checked_add(len as u64).filter(|stop| *stop <= end) else {
            return Ok(None);
        };
        match &mut self.source {
            Source::Map(map) => {
                if map.len() < stop
                    && let Some(longer) = self.segment.map(end)?
                {
                    *map = longer;
                }
                Ok(map.bytes(position, stop))
            }
            Source::Blocks(blocks) => blocks.bytes(self.segment.handle(), position, len, end),
        }
    }

    /// The error for damage, with the offset behind it that can be read again.
    fn corrupt(&self, damage: &Damage) -> Result<Error> {
        let next = self.next_header(damage, self.segment.end())?;
        let resume = next.map_or(self.segment.end_offset(), |(_, header)| header.base_offset);
        Ok(self.unreadable(damage, resume))
    }

    fn next_header(&self, damage: &Damage, end: u64) -> Result<Option<(u64, FrameHeader)>> {
        let from = (damage.position, damage.offset);
        Scan::new(self.segment.handle(), self.segment.seed(), end, from).resume_behind(damage)
    }

    fn unreadable(&self, damage: &Damage, readable_from: Offset) -> Error {
        damaged(self.segment.handle(), damage)
            .with_readable_from(readable_from.min(self.segment.end_offset()))
    }
}

/// Where an index entry says to begin; without one, at the first frame.
fn place(hint: Option<IndexEntry>) -> u64 {
    hint.map_or(SEGMENT_HEADER_LEN as u64, |entry| entry.position)
}

/// Whether an index entry leads to the frame it means.
fn is_frame_of(entry: &IndexEntry, header: &Result<FrameHeader, DecodeError>) -> bool {
    header.as_ref().is_ok_and(|header| {
        (header.base_offset, header.appended_at) == (entry.base_offset, entry.appended_at)
            || Bug::IndexBelieved.is_on()
    })
}

/// The first record in a body appended at or after `time`.
pub(crate) fn first_since(
    body: &[u8],
    header: &FrameHeader,
    time: Timestamp,
) -> Result<Option<Offset>, DecodeError> {
    for placed in Records::new(body, header) {
        let placed = placed?;
        if placed.appended_at >= time {
            return Ok(Some(placed.offset));
        }
    }
    Ok(None)
}
