//! What becomes of the records of a segment that is rewritten, and how they get into an output.

use crate::compaction::collect::Collected;
use crate::compaction::output::Output;
use crate::error::Result;
use crate::format::bytes::DecodeError;
use crate::format::frame::FrameHeader;
use crate::format::manifest::Row;
use crate::segment::FRAME_BYTES;
use crate::segment::Placed;
use crate::segment::Records;
use crate::units::Offset;
use crate::units::Timestamp;

/// What happens to the records of one segment.
pub(super) struct Fate<'a> {
    pub(super) collected: &'a Collected,
    pub(super) row: &'a Row,
    /// The start of the log: records below are nobody's any more.
    pub(super) start: Offset,
    pub(super) drops_tombstones: bool,
    /// The number of the next record that has one.
    pub(super) number: u64,
    /// When the last record was appended that stays, or the frame that it is in, if that was taken
    /// as it is.
    pub(super) last_at: Timestamp,
}

impl Fate<'_> {
    /// Adds what stays of the next frame to an output.
    pub(super) fn feed(
        &mut self,
        header: &FrameHeader,
        body: &[u8],
        output: &mut Output,
    ) -> Result<Result<(), DecodeError>> {
        let may_be_whole = body.len() >= FRAME_BYTES / 2
            // No frame begins earlier than the record in front of it was appended.
            && header.appended_at >= self.last_at
            && output.takes_frame(header.base_offset);
        if may_be_whole && self.keeps_whole(header) {
            self.last_at = header.appended_at;
            return output.frame(header, body, header.count.into()).map(Ok);
        }
        if header.end_offset() <= self.row.end_offset && output.thins(body.len()) {
            return output.thinned(header, body, |placed| self.judge(placed));
        }
        for placed in Records::new(body, header) {
            let placed = match placed {
                Ok(placed) if placed.offset >= self.row.end_offset => break,
                Ok(placed) => placed,
                Err(why) => return Ok(Err(why)),
            };
            match self.judge(&placed) {
                Ok(true) => {
                    let bytes = body.get(placed.at..placed.end).unwrap_or_default();
                    output.record(&placed, bytes)?;
                }
                Ok(false) => {}
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(Ok(()))
    }

    /// Whether a record stays. Times of those that do must not fall, so that those of a row never
    /// do.
    fn judge(&mut self, placed: &Placed<'_>) -> Result<bool, DecodeError> {
        if placed.appended_at < self.last_at {
            let what = "it was appended before the record in front of it";
            return Err(DecodeError::Malformed(what));
        }
        let keeps = self.keeps(placed);
        if keeps {
            self.last_at = placed.appended_at;
        }
        Ok(keeps)
    }

    /// Whether a record stays. To be asked for every one, in order.
    pub(super) fn keeps(&mut self, placed: &Placed<'_>) -> bool {
        let is_collected =
            placed.offset >= self.collected.from && placed.offset < self.collected.limit;
        let number = self.number;
        self.number += u64::from(is_collected);
        if placed.offset < self.start {
            return false;
        }
        let Some(key) = placed.record.key else { return true };
        if placed.offset >= self.collected.limit {
            return true;
        }
        if self.drops_tombstones && placed.record.value.is_none() {
            return false;
        }
        let map = &self.collected.map;
        if is_collected { !map.is_dead(number) } else { map.is_empty() || !map.has(map.hash(key)) }
    }

    /// Whether all records of a frame stay, as far as that is known without looking at them. They
    /// have been numbered without a gap, so their numbers are known as well.
    fn keeps_whole(&mut self, header: &FrameHeader) -> bool {
        let Collected { from, limit, rows, map, .. } = self.collected;
        let (base, end) = (header.base_offset, header.end_offset());
        let row = self.row;
        let is_dense = row.record_count == row.end_offset - row.base_offset;
        if !is_dense || base < self.start || end > row.end_offset {
            return false;
        }
        if base >= *limit {
            return true;
        }
        let seen = rows.get(&row.segment_id);
        let has_no_tombstones = seen.is_some_and(|seen| seen.tombstones == 0);
        // Their numbers are taken from what was seen, not from what the row says of it.
        let covered = row.end_offset.min(*limit).saturating_since(row.base_offset.max(*from));
        let is_numbered = seen.is_some_and(|seen| seen.numbers.end - seen.numbers.start == covered);
        let numbers = self.number..self.number + (end - base);
        let keeps = is_numbered
            && base >= *from
            && end <= *limit
            && has_no_tombstones
            && map.count_dead(numbers.clone()) == 0;
        if keeps {
            self.number = numbers.end;
        }
        keeps
    }
}
