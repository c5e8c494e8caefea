//! Frames of another log: taken on the way that records take, but as they are.
//!
//! All are in memory or none is. From there they go as appends do, frame by frame and chunk by
//! chunk: what a crash leaves, or a full disk, is a prefix of whole frames, as of appends one after
//! the other.

use crate::commit::Commit;
use crate::commit::append::accept;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::options::Durability;
use crate::segment::Shipment;
use crate::units::Offset;
use std::ops::Range;

impl Commit {
    /// Appends shipped frames, if they go on where the log ends.
    pub(crate) fn append_frames(
        &self,
        shipment: &Shipment<'_>,
        level: Durability,
    ) -> Result<Range<Offset>> {
        let mut front = self.front_with_room()?;
        let end = front.tail.end();
        let Some(range) = shipment.range() else { return Ok(end..end) };
        if range.start != end {
            let what = format!("the log ends at {end}, and the frames begin at {}", range.start);
            return Err(Error::new(ErrorKind::Conflict, what).with_offset(end));
        }
        if shipment.first_at().is_some_and(|first| first < front.tail.last_record_at()) {
            let what = format!(
                "the log ends at {end} with a record that is later than the first of the frames: \
                 they are of another history"
            );
            return Err(Error::new(ErrorKind::Conflict, what).with_offset(end));
        }
        front.tail.add_frames(&shipment.frames, accept(level), self.marks.durable())?;
        let whole = |error: Error| match error.offset() {
            Some(_) if error.kind() != ErrorKind::OutOfRange => error.with_offset(range.start),
            _ => error,
        };
        self.added(front, shipment.record_bytes(), level).map_err(whole)?;
        Ok(range)
    }

    /// Closes the frame that covers `offset` if it still takes records, since it is to be shipped.
    pub(crate) fn close_frame_of(&self, offset: Offset) {
        let mut front = self.front.lock();
        let durable = self.marks.durable();
        front.tail.close_frame_of(offset, durable);
    }
}
