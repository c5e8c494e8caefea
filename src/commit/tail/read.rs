//! Reading what is in the tail: copies for cursors, since buffers are filled again.

use crate::commit::chunk::Chunk;
use crate::commit::tail::Tail;
use crate::format::bytes::Reader;
use crate::format::frame::FRAME_HEADER_LEN;
use crate::format::frame::FrameHeader;
use crate::format::record;
use crate::segment;
use crate::segment::FrameNote;
use crate::units::Offset;
use crate::units::Timestamp;

/// A copy of records that are not written yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TailSpan {
    pub(crate) base_offset: Offset,
    pub(crate) end_offset: Offset,
    pub(crate) appended_at: Timestamp,
    /// Where the copy ended: the frame's base, and the place in its body.
    pub(crate) behind: (Offset, usize),
}

impl Tail {
    /// Copies the records from `offset` to the end of its frame; `None` if it is not here. In a
    /// frame with holes the span may begin below it, behind the record before.
    ///
    /// `hint` is a place in the body where the record of that offset begins, given the frame's
    /// base: where an earlier copy of the same frame ended.
    pub(crate) fn copy(
        &self,
        offset: Offset,
        hint: Option<(Offset, usize)>,
        out: &mut Vec<u8>,
    ) -> Option<TailSpan> {
        let (body, base, end, at) = self.frame_for(offset)?;
        let (skip, base_offset) = match hint {
            Some((frame, place)) if frame == base => (place, offset),
            _ => skip_records(body, base, offset)?,
        };
        out.clear();
        out.extend_from_slice(body.get(skip..)?);
        let behind = (base, body.len());
        Some(TailSpan { base_offset, end_offset: end, appended_at: at, behind })
    }

    /// The base offset of the frame that covers `offset`.
    pub(crate) fn frame_base(&self, offset: Offset) -> Option<Offset> {
        self.frame_for(offset).map(|(_, base, _, _)| base)
    }

    /// The first record here that was appended at or after `time`.
    pub(crate) fn since(&self, time: Timestamp) -> Option<Offset> {
        let closed = self.chunks().find_map(|chunk| chunk.frames.first());
        let mut offset =
            closed.map(|frame| frame.note.base_offset).or(self.open.map(|open| open.base))?;
        while offset < self.end {
            let (body, base, end, at) = self.frame_for(offset)?;
            let header = FrameHeader {
                body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
                base_offset: base,
                appended_at: at,
                count: u32::try_from(end - base).unwrap_or(u32::MAX),
                durable_gap: 0,
                body_crc: 0,
            };
            if let Ok(Some(found)) = segment::first_since(body, &header, time) {
                return Some(found);
            }
            offset = end;
        }
        None
    }

    /// Body, base offset, end offset and time of the frame that covers `offset`.
    fn frame_for(&self, offset: Offset) -> Option<(&[u8], Offset, Offset, Timestamp)> {
        if let (Some(open), Some(chunk)) = (self.open, self.chunk.as_ref())
            && (open.base..self.end).contains(&offset)
        {
            let body = chunk.bytes.get(open.start + FRAME_HEADER_LEN..)?;
            return Some((body, open.base, self.end, open.at));
        }
        self.chunks().find_map(|chunk| {
            let frame = chunk.frame_for(offset)?;
            let FrameNote { base_offset, end_offset, appended_at, .. } = frame.note;
            Some((chunk.body(frame), base_offset, end_offset, appended_at))
        })
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.pending.iter().map(|chunk| &**chunk).chain(self.chunk.as_ref())
    }
}

/// The place in a body behind the records below `offset`, and the offset that the next one has
/// without an offset step.
fn skip_records(body: &[u8], base: Offset, offset: Offset) -> Option<(usize, Offset)> {
    let mut reader = Reader::new(body);
    let (mut place, mut next) = (0, base);
    while next < offset && !reader.is_empty() {
        let record = record::decode(&mut reader).ok()?;
        let found = next.checked_add(record.offset_step)?;
        if found >= offset {
            break;
        }
        next = found.checked_add(1)?;
        place = body.len() - reader.remaining();
    }
    Some((place, next))
}
