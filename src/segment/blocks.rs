//! A file read in blocks: the buffer behind every sequential or positional read of a segment.

use crate::error::Result;
use crate::format::frame::FRAME_HEADER_LEN;
use crate::storage::Handle;

/// The largest block that is read unless a frame is larger.
const MAX_BLOCK_BYTES: usize = 256 << 10;

/// One stretch of a file in memory.
#[derive(Debug)]
pub(crate) struct Blocks {
    start: u64,
    buffer: Vec<u8>,
    /// How much the next read asks for; grows while the reads follow each other.
    block_bytes: usize,
}

impl Blocks {
    pub(crate) fn new(block_bytes: usize) -> Self {
        Self { start: 0, buffer: Vec::new(), block_bytes }
    }

    /// `len` bytes at `position`, or `None` if they reach behind `end` or the file.
    pub(crate) fn bytes(
        &mut self,
        file: &Handle,
        position: u64,
        len: usize,
        end: u64,
    ) -> Result<Option<&[u8]>> {
        if position.checked_add(len as u64).is_none_or(|stop| stop > end) {
            return Ok(None);
        }
        if self.held(position).len() < len {
            self.fill(file, position, len, end)?;
        }
        Ok(self.held(position).get(..len))
    }

    /// What is held, or one read gives, from `position` on, up to `end`; empty at the end of the
    /// file. Before that end never so few bytes that a frame header would not fit.
    pub(crate) fn block(&mut self, file: &Handle, position: u64, end: u64) -> Result<&[u8]> {
        if self.held(position).len() < FRAME_HEADER_LEN {
            self.fill(file, position, 0, end)?;
        }
        Ok(self.held(position))
    }

    /// What is in memory from `position` on.
    #[inline]
    pub(crate) fn held(&self, position: u64) -> &[u8] {
        let skip = position.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        skip.and_then(|skip| self.buffer.get(skip..)).unwrap_or_default()
    }

    fn fill(&mut self, file: &Handle, position: u64, len: usize, end: u64) -> Result<()> {
        let room = usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX);
        self.buffer.resize(len.max(self.block_bytes).min(room), 0);
        self.start = position;
        self.block_bytes = (self.block_bytes * 2).min(MAX_BLOCK_BYTES);
        let filled = file.read(&mut self.buffer, position);
        // After an error nothing in the buffer is what the file holds.
        self.buffer.truncate(*filled.as_ref().unwrap_or(&0));
        filled.map(drop)
    }
}
