//! Walking the frames of a segment file from front to back, by positional reads.
//!
//! The sequential reader: used where a whole stretch is looked at (recovery, building an index,
//! looking for life behind damage). An I/O error is an error, bad bytes are [`Damage`], and the end
//! is neither.

use crate::bugs::Bug;
use crate::error::Result;
use crate::format::bytes;
use crate::format::bytes::DecodeError;
use crate::format::frame::ALIGNMENT;
use crate::format::frame::FRAME_HEADER_LEN;
use crate::format::frame::FrameHeader;
use crate::segment::blocks::Blocks;
use crate::storage::Handle;
use crate::units::Offset;

/// How much is read at a time.
const BLOCK_BYTES: usize = 256 << 10;

/// The first read where little is expected; later ones are larger.
const SHORT_BLOCK_BYTES: usize = 4 << 10;

const STEP: usize = 8;
const _: () = assert!(STEP as u64 == ALIGNMENT);

/// A walk over frames.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    file: &'a Handle,
    blocks: Blocks,
    seed: u32,
    /// Nothing at or behind this position is looked at.
    end: u64,
    position: u64,
    expected: Offset,
}

/// What stands at a position.
#[derive(Debug)]
pub(crate) enum Step {
    /// A frame with a sound header, in its place.
    Frame { position: u64, header: FrameHeader },
    /// Something else than the frame that belongs there.
    Damage(Damage),
    /// Exactly the end.
    End,
}

/// A place where the frame that belongs there is not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Damage {
    pub(crate) position: u64,
    /// The offset that should begin there.
    pub(crate) offset: Offset,
    pub(crate) why: DecodeError,
}

impl<'a> Scan<'a> {
    /// A walk over the frames of `file` from a position and the offset that begins there to `end`.
    pub(crate) fn new(file: &'a Handle, seed: u32, end: u64, from: (u64, Offset)) -> Self {
        let (position, expected) = from;
        Self { file, blocks: Blocks::new(BLOCK_BYTES), seed, end, position, expected }
    }

    /// As [`new`](Scan::new), for what is likely to be a few frames only.
    pub(crate) fn short(file: &'a Handle, seed: u32, end: u64, from: (u64, Offset)) -> Self {
        Self { blocks: Blocks::new(SHORT_BLOCK_BYTES), ..Self::new(file, seed, end, from) }
    }

    /// The next frame, by its header; its body is not looked at.
    pub(crate) fn step(&mut self) -> Result<Step> {
        let position = self.position;
        if position >= self.end {
            return Ok(Step::End);
        }
        match self.header_at(position)? {
            Ok(header) if header.base_offset == self.expected => {
                self.position = position + header.frame_len();
                self.expected = header.end_offset();
                Ok(Step::Frame { position, header })
            }
            Ok(_) => Ok(self.damage(position, DecodeError::Malformed("a frame of another offset"))),
            Err(why) => Ok(self.damage(position, why)),
        }
    }

    /// The body of a frame that [`step`](Scan::step) gave, if its checksum agrees.
    pub(crate) fn body(
        &mut self,
        position: u64,
        header: &FrameHeader,
    ) -> Result<Result<&[u8], DecodeError>> {
        let start = position + FRAME_HEADER_LEN as u64;
        let body = self.blocks.bytes(self.file, start, header.body_len as usize, self.end)?;
        Ok(match body {
            Some(body) if bytes::crc(0, body) == header.body_crc => Ok(body),
            Some(body) if Bug::BodyUnchecked.is_on() => Ok(body),
            Some(_) => Err(DecodeError::BadChecksum),
            None => Err(DecodeError::Short),
        })
    }

    /// As [`resume_behind`](Scan::resume_behind), but the frame that stands where the damage is may
    /// be sound and only belong farther on.
    pub(crate) fn resume_at(&mut self, damage: &Damage) -> Result<Option<(u64, FrameHeader)>> {
        let position = damage.position;
        match self.header_at(position)? {
            Ok(header) if header.base_offset >= damage.offset => {
                self.position = position;
                self.expected = header.base_offset;
                Ok(Some((position, header)))
            }
            _ => self.resume_behind(damage),
        }
    }

    /// Goes on at the first sound frame header behind `damage`, which is returned with its
    /// position; `None` if there is none.
    ///
    /// The seed makes it impossible to take a payload, or an earlier life of the file, for one.
    pub(crate) fn resume_behind(&mut self, damage: &Damage) -> Result<Option<(u64, FrameHeader)>> {
        let mut position = damage.position + ALIGNMENT;
        while position + FRAME_HEADER_LEN as u64 <= self.end {
            let skipped = self.skip_unlikely(position, damage.offset)?;
            if skipped > 0 {
                position += skipped;
                continue;
            }
            if let Ok(header) = self.header_at(position)?
                && header.base_offset >= damage.offset
            {
                self.position = position;
                self.expected = header.base_offset;
                return Ok(Some((position, header)));
            }
            position += ALIGNMENT;
        }
        self.position = self.end;
        Ok(None)
    }

    /// The position behind the last byte from `position` on that is not zero, if there is one.
    pub(crate) fn last_written_from(&mut self, mut position: u64) -> Result<Option<u64>> {
        let mut last = None;
        while position < self.end {
            let block = self.blocks.block(self.file, position, self.end)?;
            if block.is_empty() {
                break;
            }
            if let Some(place) = block.iter().rposition(|byte| *byte != 0) {
                last = Some(position + place as u64 + 1);
            }
            position += block.len() as u64;
        }
        Ok(last)
    }

    /// How many bytes from `position` on cannot begin a frame header, as far as one block tells.
    fn skip_unlikely(&mut self, position: u64, from: Offset) -> Result<u64> {
        let block = self.blocks.block(self.file, position, self.end)?;
        let mut skipped = 0;
        for candidate in block.windows(FRAME_HEADER_LEN).step_by(STEP) {
            if FrameHeader::may_begin(candidate, from) {
                break;
            }
            skipped += ALIGNMENT;
        }
        Ok(skipped)
    }

    fn header_at(&mut self, position: u64) -> Result<Result<FrameHeader, DecodeError>> {
        let Some(bytes) = self.blocks.bytes(self.file, position, FRAME_HEADER_LEN, self.end)?
        else {
            return Ok(Err(DecodeError::Short));
        };
        let header = FrameHeader::decode(bytes, self.seed);
        Ok(header.and_then(|header| {
            if position.saturating_add(header.frame_len()) <= self.end {
                Ok(header)
            } else {
                Err(DecodeError::Short)
            }
        }))
    }

    fn damage(&self, position: u64, why: DecodeError) -> Step {
        Step::Damage(Damage { position, offset: self.expected, why })
    }
}
