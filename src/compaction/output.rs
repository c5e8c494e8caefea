//! A segment that compaction writes: survivors put into frames that cover their offsets without a
//! gap.
//!
//! # Invariants
//!
//! - Each frame begins where the one before ends: a frame is closed only when it is known where the
//!   next one begins, and holes belong to the frame in front of them.
//! - The file is not in the log before the manifest names it, and is synced before that.

use crate::bugs::Bug;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::bytes;
use crate::format::bytes::DecodeError;
use crate::format::frame::ALIGNMENT;
use crate::format::frame::FRAME_HEADER_LEN;
use crate::format::frame::FrameHeader;
use crate::format::frame::MAX_BODY_LEN;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::format::names;
use crate::format::record;
use crate::format::segment::MAX_SEGMENT_LEN;
use crate::options::ReadMode;
use crate::segment::Active;
use crate::segment::FRAME_BYTES;
use crate::segment::FrameNote;
use crate::segment::NewSegment;
use crate::segment::Placed;
use crate::segment::Reading;
use crate::segment::Records;
use crate::storage::Dir;
use crate::units::Offset;
use crate::units::Timestamp;

const STEP: usize = 8;
const _: () = assert!(STEP as u64 == ALIGNMENT);

/// How much is written at a time.
const WRITE_BYTES: usize = 512 << 10;

/// By how much what stays of a frame may be larger than it was, or than a frame gets otherwise: by
/// the step of a record to its offset in the segment, and by its time. A record that is gone took
/// more than the step over it.
pub(crate) const GROWTH_MAX: usize = 5 + 9;

/// If it is dropped before it is finished, by a callback that panics for one, the file goes.
#[derive(Debug)]
pub(crate) struct Output {
    dir: Dir,
    new: NewSegment,
    is_finished: bool,
    active: Active,
    /// Frames that are not written yet; the open one is the last.
    bytes: Vec<u8>,
    notes: Vec<FrameNote>,
    open: Option<OpenFrame>,
    /// Where the closed frames end.
    end: Offset,
    record_count: u64,
    tombstone_count: u64,
}

/// The frame whose end is not known yet.
#[derive(Clone, Copy, Debug)]
struct OpenFrame {
    /// Where its header begins in the bytes.
    start: usize,
    base: Offset,
    at: Timestamp,
    last_at: Timestamp,
    /// The offset of the next record without an offset step.
    next: Offset,
    /// Of a body that was taken as it is, and takes no more records.
    body_crc: Option<u32>,
    record_count: u32,
}

impl Output {
    /// Makes the file. One that cannot be made whole is removed.
    pub(crate) fn create(
        dir: &Dir,
        new: NewSegment,
        previous: Option<&Row>,
        log_id: u128,
    ) -> Result<Self> {
        // Nobody reads it by this handle.
        let reading = Reading { mode: ReadMode::Pread, map_len: 0 };
        let active = Active::create(dir, new, previous, log_id, reading)
            .inspect_err(|_| remove(dir, new))?;
        Ok(Self {
            dir: dir.clone(),
            new,
            is_finished: false,
            active,
            bytes: Vec::with_capacity(WRITE_BYTES + WRITE_BYTES / 4),
            notes: Vec::new(),
            open: None,
            end: new.base_offset,
            record_count: 0,
            tombstone_count: 0,
        })
    }

    /// The length of the file so far, with what is not written yet.
    pub(crate) fn len(&self) -> u64 {
        self.active.position() + self.bytes.len() as u64
    }

    /// Adds a record: `bytes` are what it is in the body it comes from.
    pub(crate) fn record(&mut self, placed: &Placed<'_>, bytes: &[u8]) -> Result<()> {
        let Placed { offset, appended_at, record, .. } = placed;
        if self.open.is_some_and(|open| !self.takes(open, *appended_at, bytes.len())) {
            self.close_frame(*offset)?;
        }
        let open = match self.open {
            Some(open) => open,
            None => self.open_frame(self.end, *appended_at)?,
        };
        let step = offset.saturating_since(open.next);
        let delta = delta(open.at, *appended_at).unwrap_or_default();
        if (step, delta) == (record.offset_step, record.time_delta) {
            self.bytes.extend_from_slice(bytes);
        } else if record::put_moved(&mut self.bytes, bytes, step, delta).is_none() {
            return Err(misplaced());
        }
        check_body_len(self.body_len(open)).map_err(|error| error.with_offset(*offset))?;
        let next = *offset + 1;
        let record_count = open.record_count + 1;
        self.open = Some(OpenFrame { last_at: *appended_at, next, record_count, ..open });
        self.record_count += 1;
        self.tombstone_count += u64::from(record.value.is_none());
        Ok(())
    }

    /// Whether the records of a frame of so many bytes can be [`thinned`](Output::thinned): then
    /// they make a frame of their own.
    pub(crate) fn thins(&self, body_len: usize) -> bool {
        let is_done = |open: OpenFrame| self.body_len(open) >= FRAME_BYTES / 2;
        (FRAME_BYTES / 2..=2 * FRAME_BYTES).contains(&body_len) && self.open.is_none_or(is_done)
    }

    /// Adds those records of a frame that stay, in a frame of their own, which begins when the
    /// first of them was appended. What lies together and need not change is copied together.
    pub(crate) fn thinned(
        &mut self,
        header: &FrameHeader,
        body: &[u8],
        mut keeps: impl FnMut(&Placed<'_>) -> Result<bool, DecodeError>,
    ) -> Result<Result<(), DecodeError>> {
        let bytes_of = |range| body.get(range).unwrap_or_default();
        let mut frame: Option<OpenFrame> = None;
        // What of the body is to be copied next.
        let mut run = 0..0;
        for placed in Records::new(body, header) {
            let placed = match placed {
                Ok(placed) => placed,
                Err(why) => return Ok(Err(why)),
            };
            match keeps(&placed) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(why) => return Ok(Err(why)),
            }
            let open = match &mut frame {
                Some(open) => open,
                None => {
                    self.close_frame(placed.offset)?;
                    frame.insert(self.open_frame(self.end, placed.appended_at)?)
                }
            };
            let Placed { offset, appended_at, record, .. } = placed;
            let step = offset.saturating_since(open.next);
            let delta = delta(open.at, appended_at).unwrap_or_default();
            let moves = (step, delta) != (record.offset_step, record.time_delta);
            if moves || placed.at != run.end {
                self.bytes.extend_from_slice(bytes_of(run));
                run = placed.at..placed.at;
            }
            if moves {
                let bytes = bytes_of(placed.at..placed.end);
                record::put_moved(&mut self.bytes, bytes, step, delta).ok_or_else(misplaced)?;
                run = placed.end..placed.end;
            }
            run.end = placed.end;
            open.next = offset + 1;
            open.last_at = appended_at;
            open.record_count += 1;
            self.tombstone_count += u64::from(record.value.is_none());
        }
        self.bytes.extend_from_slice(bytes_of(run));
        if let Some(open) = frame {
            self.record_count += u64::from(open.record_count);
            self.open = Some(open);
        }
        Ok(Ok(()))
    }

    /// Whether a whole frame from `base` on can be taken as it is.
    pub(crate) fn takes_frame(&self, base: Offset) -> bool {
        self.open.is_some() || self.end == base
    }

    /// Takes a frame as it is, with a body that has been verified, of so many records and no
    /// tombstones.
    pub(crate) fn frame(&mut self, header: &FrameHeader, body: &[u8], records: u64) -> Result<()> {
        if self.open.is_some() {
            self.close_frame(header.base_offset)?;
        }
        let open = self.open_frame(header.base_offset, header.appended_at)?;
        self.bytes.extend_from_slice(body);
        let next = header.end_offset();
        let record_count = header.count;
        self.open = Some(OpenFrame { next, body_crc: Some(header.body_crc), record_count, ..open });
        self.record_count += records;
        Ok(())
    }

    /// Ends the segment at `end`, durably but for its name, and gives its row.
    pub(crate) fn finish(mut self, end: Offset) -> Result<Row> {
        self.date_last_frame();
        self.close_frame(end)?;
        self.write()?;
        self.active.seal()?;
        Bug::OutputNotSynced.spares(|| self.active.segment().handle().sync())?;
        self.is_finished = true;
        let row = self.active.row(RowState::Sealed);
        Ok(Row {
            end_offset: end,
            record_count: self.record_count,
            tombstone_count: self.tombstone_count,
            // Whatever the frames say that went into it: else nobody could read the manifest.
            last_appended_at: row.last_appended_at.max(row.first_appended_at),
            ..row
        })
    }

    /// When the last record was appended, of those that are not in a closed frame.
    pub(crate) fn last_at(&mut self) -> Option<Timestamp> {
        self.date_last_frame();
        self.open.map(|open| open.last_at)
    }

    /// Finds the time of the last record there is, if it is in a frame that was taken as it is.
    fn date_last_frame(&mut self) {
        let Some(open) = self.open.as_mut().filter(|open| open.body_crc.is_some()) else { return };
        let body = self.bytes.get(open.start + FRAME_HEADER_LEN..).unwrap_or_default();
        let header = FrameHeader {
            body_len: 0,
            base_offset: open.base,
            appended_at: open.at,
            count: u32::MAX,
            durable_gap: 0,
            body_crc: 0,
        };
        let last = Records::new(body, &header).filter_map(std::result::Result::ok).last();
        open.last_at = last.map_or(open.at, |placed| placed.appended_at);
    }

    fn body_len(&self, open: OpenFrame) -> usize {
        self.bytes.len() - open.start - FRAME_HEADER_LEN
    }

    fn takes(&self, open: OpenFrame, at: Timestamp, len: usize) -> bool {
        let body_len = self.body_len(open);
        open.body_crc.is_none()
            && body_len < FRAME_BYTES
            && body_len + len <= 2 * FRAME_BYTES
            && delta(open.at, at).is_some()
    }

    fn open_frame(&mut self, base: Offset, at: Timestamp) -> Result<OpenFrame> {
        if self.len() >= MAX_SEGMENT_LEN {
            let what = "the segment would be longer than a segment can be";
            return Err(Error::new(ErrorKind::TooLarge, what).with_offset(base));
        }
        let start = self.bytes.len();
        self.bytes.resize(start + FRAME_HEADER_LEN, 0);
        Ok(OpenFrame { start, base, at, last_at: at, next: base, body_crc: None, record_count: 0 })
    }

    /// Closes the open frame, which covers all offsets up to `end`.
    fn close_frame(&mut self, end: Offset) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let body = self.bytes.get(open.start + FRAME_HEADER_LEN..).unwrap_or_default();
        let end = if Bug::HoleForgotten.is_on() { open.next } else { end };
        let header = FrameHeader {
            body_len: u32::try_from(body.len()).expect("a frame that was read fits into one"),
            base_offset: open.base,
            appended_at: open.at,
            count: u32::try_from(end - open.base).expect("a group has fewer offsets"),
            // All of it was durable before it was rewritten.
            durable_gap: 0,
            body_crc: open.body_crc.unwrap_or_else(|| bytes::crc(0, body)),
        };
        let encoded = header.encode(self.new.seed);
        if let Some(place) = self.bytes.get_mut(open.start..open.start + FRAME_HEADER_LEN) {
            place.copy_from_slice(&encoded);
        }
        self.notes.push(FrameNote {
            base_offset: open.base,
            end_offset: end,
            position: self.active.position() + open.start as u64,
            appended_at: open.at,
            last_at: open.last_at,
            record_count: open.record_count,
        });
        self.bytes.resize(self.bytes.len().next_multiple_of(STEP), 0);
        self.end = end;
        if self.bytes.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        let notes = self.notes.drain(..);
        let position = self.active.position();
        self.active.write(&self.bytes, notes).map_err(|partial| partial.error)?;
        // Has the system begin to write them to the disk, where they are not in the way of whoever
        // syncs meanwhile, and not all left to the sync at the end.
        self.active.segment().handle().forget_cached(position, self.bytes.len() as u64);
        self.bytes.clear();
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.is_finished {
            remove(&self.dir, self.new);
        }
    }
}

/// Removes what there is of a segment that will not be in the log. What cannot be removed is
/// garbage that the next open removes.
pub(crate) fn remove(dir: &Dir, new: NewSegment) {
    drop(dir.remove(&names::segment(new.base_offset, new.segment_id)));
    drop(dir.remove(&names::index(new.base_offset, new.segment_id)));
}

fn misplaced() -> Error {
    Error::new(ErrorKind::Io, "a bug: a record was not where it was found")
}

/// A record that is as large as a frame can be may grow by an offset step, which nobody could read.
fn check_body_len(len: usize) -> Result<()> {
    if len as u64 > u64::from(MAX_BODY_LEN) {
        let what = "a record would be longer, with the step to its offset, than a frame can be";
        return Err(Error::new(ErrorKind::TooLarge, what));
    }
    Ok(())
}

/// How long after its frame a record was appended, if that can be said.
fn delta(frame_at: Timestamp, at: Timestamp) -> Option<u64> {
    let micros = at.as_micros().checked_sub(frame_at.as_micros())?;
    u64::try_from(micros).ok()
}

#[cfg(test)]
mod tests {
    use super::{MAX_BODY_LEN, check_body_len};
    use crate::error::ErrorKind;

    #[test]
    fn no_body_is_longer_than_a_body_can_be() {
        let max = MAX_BODY_LEN as usize;
        assert!(check_body_len(max).is_ok());
        assert_eq!(check_body_len(max + 1).unwrap_err().kind(), ErrorKind::TooLarge);
    }
}
