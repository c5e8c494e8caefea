//! A segment read from front to back over damage: every sound frame, and every place where one is
//! missing.

use crate::error::Result;
use crate::format::bytes::DecodeError;
use crate::format::frame::FrameHeader;
use crate::format::segment::MAX_SEGMENT_LEN;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::segment;
use crate::segment::Damage;
use crate::segment::Records;
use crate::segment::Scan;
use crate::segment::Step;
use crate::storage::Handle;
use crate::units::Offset;
use crate::units::Timestamp;
use std::ops::Range;

/// What is to be walked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) seed: u32,
    pub(super) base: Offset,
    /// Where the bytes end that are looked at.
    pub(super) end_position: u64,
    /// Where the offsets end, if that is known: the last frame may cover more.
    pub(super) end: Option<Offset>,
}

/// What is found.
#[derive(Debug)]
pub(super) enum Found<'a> {
    Frame {
        position: u64,
        header: FrameHeader,
        body: &'a [u8],
    },
    /// What a frame behind the first damage says was durable, wherever it lies, or one that covers
    /// more than belongs there: opening goes by it.
    Mark(Offset),
    /// The offsets that are missing at a position.
    Flaw {
        position: u64,
        offsets: Range<Offset>,
        why: DecodeError,
    },
    /// Behind this position no sound frame is; how many bytes are there that are not zero.
    Rest {
        position: u64,
        offset: Offset,
        len: u64,
        why: DecodeError,
    },
}

/// Shows all that is in a stretch, in order.
///
/// Damage in a file that is still written to is looked at a second time: a write was under way.
pub(super) fn walk(
    file: &Handle,
    stretch: Stretch,
    mut show: impl FnMut(Found<'_>) -> Result<()>,
) -> Result<()> {
    let first = (SEGMENT_HEADER_LEN as u64, stretch.base);
    let mut scan = Scan::new(file, stretch.seed, stretch.end_position, first);
    let mut since = Timestamp::MIN;
    let mut expected = stretch.base;
    let mut looked_twice_at = 0;
    let mut has_looked_behind = false;
    loop {
        let (damage, resumed) = match scan.step()? {
            Step::End => return Ok(()),
            Step::Frame { position, header } => {
                let sound = match admit(&stretch, position, &header, since) {
                    Ok(()) => scan.body(position, &header)?,
                    Err(why) => Err(why),
                };
                let sound = sound.and_then(|body| check_records(body, &header).map(|()| body));
                let why = match sound {
                    Ok(body) if stays_inside(&stretch, position, &header) => {
                        show(Found::Frame { position, header, body })?;
                        (since, expected) = (header.appended_at, header.end_offset());
                        continue;
                    }
                    Ok(_) => {
                        show(Found::Mark(header.durable_mark()))?;
                        DecodeError::Malformed("a frame reaches past the end of its segment")
                    }
                    Err(why) => why,
                };
                (Damage { position, offset: header.base_offset, why }, None)
            }
            Step::Damage(damage) => (damage, Some(())),
        };
        segment::refuse_newer(file, &damage)?;
        if stretch.end.is_none() && looked_twice_at != damage.position {
            looked_twice_at = damage.position;
            if has_come(file, &stretch, &damage, since)? {
                let again = (damage.position, damage.offset);
                scan = Scan::new(file, stretch.seed, stretch.end_position, again);
                continue;
            }
        }
        let (position, why) = (damage.position, damage.why);
        if !has_looked_behind {
            has_looked_behind = true;
            let mut behind =
                Scan::new(file, stretch.seed, stretch.end_position, (position, damage.offset));
            if let Some(mark) = segment::marks_behind(&mut behind, &damage)? {
                show(Found::Mark(mark))?;
            }
        }
        let next = match resumed {
            Some(()) => scan.resume_at(&damage)?,
            None => scan.resume_behind(&damage)?,
        };
        let Some((_, next)) = next else {
            let mut rest =
                Scan::new(file, stretch.seed, stretch.end_position, (position, expected));
            let written = rest.last_written_from(position)?;
            let len = written.map_or(0, |end| end - position);
            return show(Found::Rest { position, offset: expected, len, why });
        };
        show(Found::Flaw { position, offsets: expected..next.base_offset.max(expected), why })?;
        expected = expected.max(next.base_offset);
    }
}

/// Whether the frame that was not there is there by now. Reads little: there may be much damage.
fn has_come(file: &Handle, stretch: &Stretch, damage: &Damage, since: Timestamp) -> Result<bool> {
    let from = (damage.position, damage.offset);
    let mut scan = Scan::short(file, stretch.seed, stretch.end_position, from);
    let Step::Frame { position, header } = scan.step()? else { return Ok(false) };
    if admit(stretch, position, &header, since).is_err() {
        return Ok(false);
    }
    let body = scan.body(position, &header)?;
    Ok(body.is_ok_and(|body| check_records(body, &header).is_ok()))
}

/// What the format allows the frames of a segment, apart from what each says about itself.
fn admit(
    stretch: &Stretch,
    position: u64,
    header: &FrameHeader,
    since: Timestamp,
) -> Result<(), DecodeError> {
    if position >= MAX_SEGMENT_LEN {
        return Err(DecodeError::Malformed("a frame begins where none can"));
    }
    if header.end_offset().saturating_since(stretch.base) > u64::from(u32::MAX) {
        return Err(DecodeError::Malformed("a segment has 2^32 offsets or more"));
    }
    if header.appended_at < since {
        return Err(DecodeError::Malformed("a frame is older than the one before"));
    }
    Ok(())
}

/// Whether a frame covers no offsets behind the end, unless it is the last.
fn stays_inside(stretch: &Stretch, position: u64, header: &FrameHeader) -> bool {
    let is_last = position.saturating_add(header.frame_len()) == stretch.end_position;
    match stretch.end {
        Some(end) => header.base_offset < end && (header.end_offset() <= end || is_last),
        None => true,
    }
}

fn check_records(body: &[u8], header: &FrameHeader) -> Result<(), DecodeError> {
    Records::new(body, header).try_for_each(|placed| placed.map(drop))
}
