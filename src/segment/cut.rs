//! Cutting a segment back: where it would end.
//!
//! The file stays as it is, since readers may have it mapped: the frame that holds the last record
//! that stays stays whole, and what follows in it is hidden by the end that the manifest states.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::bytes::DecodeError;
use crate::format::frame::FrameHeader;
use crate::format::manifest::Row;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::segment::Segment;
use crate::segment::damage::damaged;
use crate::segment::index;
use crate::segment::records::Records;
use crate::segment::scan::Damage;
use crate::segment::scan::Scan;
use crate::segment::scan::Step;
use crate::segment::window::Frame;
use crate::segment::window::Window;
use crate::units::Offset;
use crate::units::Timestamp;
use std::sync::Arc;

/// The end of a segment that is cut back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Position of the end of the last frame that stays.
    pub(crate) byte_len: u64,
    /// No record that stays was appended later.
    pub(crate) last_at: Timestamp,
    pub(crate) record_count: u64,
}

impl Cut {
    /// Makes the row of a segment that of the segment as it ends at `end`.
    pub(crate) fn apply(&self, row: &mut Row, end: Offset) {
        row.end_offset = end;
        row.byte_len = self.byte_len;
        row.record_count = self.record_count;
        row.tombstone_count = row.tombstone_count.min(self.record_count);
        row.last_appended_at = self.last_at;
        if self.record_count == 0 {
            (row.first_appended_at, row.last_appended_at) = Default::default();
        }
    }
}

/// Where the segment of `row` ends if `end`, an offset inside it, becomes its end.
pub(crate) fn cut_at(segment: &Arc<Segment>, row: &Row, end: Offset) -> Result<Cut> {
    if row.byte_len == SEGMENT_HEADER_LEN as u64 {
        // Compaction left nothing, not even a frame.
        return Ok(Cut { byte_len: row.byte_len, last_at: Timestamp::ZERO, record_count: 0 });
    }
    let mut window = Window::new(Arc::clone(segment))?;
    let Some(frame) = end.checked_sub(1).map(|last| window.locate(last)).transpose()?.flatten()
    else {
        let what = format!("a bug: no frame ends at or behind {end}");
        return Err(Error::new(ErrorKind::Io, what).with_path(segment.path()));
    };
    let last_at = last_below(&mut window, frame, end)?;
    let is_dense = row.record_count == row.end_offset - row.base_offset;
    let record_count =
        if is_dense { end - row.base_offset } else { count_below(segment, frame.end(), end)? };
    Ok(Cut { byte_len: frame.end(), last_at, record_count })
}

/// Append time of the last record below `end`, in a frame or in those before it: compaction may
/// have left no record in front of `end` there. Zero if there is none.
fn last_below(window: &mut Window, mut frame: Frame, end: Offset) -> Result<Timestamp> {
    loop {
        match last_in(window.body(&frame), &frame.header, end) {
            Ok(Some(last_at)) => return Ok(last_at),
            Ok(None) => {}
            Err(why) => {
                let offset = frame.header.base_offset;
                let damage = Damage { position: frame.position, offset, why };
                return Err(damaged(window.segment().handle(), &damage));
            }
        }
        let before = frame.header.base_offset.checked_sub(1);
        let Some(before) = before.filter(|before| *before >= window.segment().base_offset()) else {
            return Ok(Timestamp::ZERO);
        };
        match window.locate(before)? {
            Some(earlier) => frame = earlier,
            None => return Ok(Timestamp::ZERO),
        }
    }
}

fn last_in(
    body: &[u8],
    header: &FrameHeader,
    end: Offset,
) -> Result<Option<Timestamp>, DecodeError> {
    let mut last_at = None;
    for placed in Records::new(body, header) {
        let placed = placed?;
        if placed.offset >= end {
            break;
        }
        last_at = Some(placed.appended_at);
    }
    Ok(last_at)
}

/// How many records compaction has left below `end`, in the frames up to a position.
fn count_below(segment: &Segment, position: u64, end: Offset) -> Result<u64> {
    let first = index::first_frame(&segment.header);
    let mut scan = Scan::new(segment.handle(), segment.seed(), position, first);
    let mut count = 0;
    loop {
        let (position, header) = match scan.step()? {
            Step::Frame { position, header } => (position, header),
            Step::Damage(damage) => return Err(damaged(segment.handle(), &damage)),
            Step::End => return Ok(count),
        };
        let counted = scan.body(position, &header)?;
        let counted = counted.and_then(|body| count_in(body, &header, end));
        let offset = header.base_offset;
        count +=
            counted.map_err(|why| damaged(segment.handle(), &Damage { position, offset, why }))?;
    }
}

fn count_in(body: &[u8], header: &FrameHeader, end: Offset) -> Result<u64, DecodeError> {
    let mut count = 0;
    for placed in Records::new(body, header) {
        if placed?.offset < end {
            count += 1;
        }
    }
    Ok(count)
}
