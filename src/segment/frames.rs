//! A sealed segment read from front to back, every frame verified.

use crate::error::Error;
use crate::error::Result;
use crate::format::bytes::DecodeError;
use crate::format::frame::FrameHeader;
use crate::format::manifest::Row;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::segment::damage::damaged;
use crate::segment::scan::Damage;
use crate::segment::scan::Scan;
use crate::segment::scan::Step;
use crate::segment::too_short;
use crate::storage::Handle;
use crate::units::Offset;
use crate::units::Timestamp;

/// A walk over the frames of the segment of a row. Reads with a buffer of its own, so that it takes
/// no place of a reader's.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    file: &'a Handle,
    row: Row,
    scan: Scan<'a>,
    /// Where the frames seen so far end.
    end: Offset,
    last: Option<(u64, FrameHeader)>,
    /// The append time of the last frame with records.
    last_at: Timestamp,
}

impl<'a> Frames<'a> {
    /// Of the open file of a row, whose header has that seed.
    pub(crate) fn new(file: &'a Handle, seed: u32, row: &Row) -> Self {
        let first = (SEGMENT_HEADER_LEN as u64, row.base_offset);
        let scan = Scan::new(file, seed, row.byte_len, first);
        Self { file, row: *row, scan, end: row.base_offset, last: None, last_at: Timestamp::MIN }
    }

    /// The next frame and its body; `None` behind the last one.
    pub(crate) fn next(&mut self) -> Result<Option<(FrameHeader, &[u8])>> {
        let (position, header) = match self.scan.step()? {
            Step::Frame { position, header } => (position, header),
            Step::Damage(damage) => return Err(damaged(self.file, &damage)),
            Step::End => return self.check_end().map(|()| None),
        };
        if !header.is_hole() {
            if header.appended_at < self.last_at {
                let why = DecodeError::Malformed("it was appended before the frame in front of it");
                let offset = header.base_offset;
                return Err(damaged(self.file, &Damage { position, offset, why }));
            }
            self.last_at = header.appended_at;
        }
        self.end = header.end_offset();
        self.last = Some((position, header));
        match self.scan.body(position, &header)? {
            Ok(body) => Ok(Some((header, body))),
            Err(why) => {
                let offset = header.base_offset;
                Err(damaged(self.file, &Damage { position, offset, why }))
            }
        }
    }

    /// The error for a body that does not decode, of the frame that came last.
    pub(crate) fn malformed(&self, why: DecodeError) -> Error {
        let (position, offset) = self
            .last
            .map_or((0, self.row.base_offset), |(position, header)| (position, header.base_offset));
        damaged(self.file, &Damage { position, offset, why })
    }

    /// Whether the frames went as far as the row says.
    fn check_end(&self) -> Result<()> {
        let is_empty = self.last.is_none() && self.row.record_count == 0;
        if is_empty || self.end >= self.row.end_offset {
            return Ok(());
        }
        Err(too_short(self.file, self.row.byte_len, &self.row))
    }
}
