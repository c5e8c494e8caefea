//! The records in the body of a frame, each with its offset and its append time.

use crate::format::bytes::DecodeError;
use crate::format::bytes::Reader;
use crate::format::frame::FrameHeader;
use crate::format::record;
use crate::format::record::RecordView;
use crate::units::Offset;
use crate::units::Timestamp;

/// A walk over the records of a body. Ends after an error.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    reader: Reader<'a>,
    body_len: usize,
    frame_at: Timestamp,
    /// The offset of the next record without its offset step.
    next: u64,
    end: Offset,
}

/// Where a record is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed<'a> {
    pub(crate) offset: Offset,
    pub(crate) appended_at: Timestamp,
    /// Where in the body it begins and ends.
    pub(crate) at: usize,
    pub(crate) end: usize,
    pub(crate) record: RecordView<'a>,
}

impl<'a> Records<'a> {
    pub(crate) fn new(body: &'a [u8], header: &FrameHeader) -> Self {
        Self {
            reader: Reader::new(body),
            body_len: body.len(),
            frame_at: header.appended_at,
            next: header.base_offset.get(),
            end: header.end_offset(),
        }
    }

    #[inline]
    fn step(&mut self) -> Result<Placed<'a>, DecodeError> {
        let at = self.body_len - self.reader.remaining();
        let record = record::decode(&mut self.reader)?;
        let offset = self.next.checked_add(record.offset_step).map(Offset::new);
        let offset = offset
            .filter(|offset| *offset < self.end)
            .ok_or(DecodeError::Malformed("more records than the frame covers"))?;
        self.next = offset.get() + 1;
        let delta = i64::try_from(record.time_delta).ok();
        let appended_at = delta
            .and_then(|delta| self.frame_at.as_micros().checked_add(delta))
            .map(Timestamp::from_micros)
            .ok_or(DecodeError::Malformed("a time out of range"))?;
        let end = self.body_len - self.reader.remaining();
        Ok(Placed { offset, appended_at, at, end, record })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Placed<'a>, DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(step)
    }
}
