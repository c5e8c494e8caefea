//! Bodies that come ready: large ones encoded before the lock, and those of another log.

use crate::commit::chunk::Accept;
use crate::commit::chunk::Chunk;
use crate::commit::tail::Arrival;
use crate::commit::tail::CHUNK_BYTES;
use crate::commit::tail::Tail;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::segment::Shipped;
use crate::units::Offset;
use crate::units::Timestamp;
use std::sync::Arc;

impl Tail {
    /// Takes a body with room for its header in front as a chunk of its own, without a copy.
    pub(crate) fn add_chunk(
        &mut self,
        arrival: Arrival,
        mut bytes: Vec<u8>,
        durable: Offset,
        body_crc: u32,
    ) -> Result<()> {
        self.close_frame(durable, None);
        self.begin(arrival, durable)?;
        // The frame just opened is empty: it makes place for the one that brings its own bytes.
        if let (Some(mut open), Some(mut chunk)) = (self.open.take(), self.chunk.take()) {
            chunk.bytes.truncate(open.start);
            let (segment, position) = (chunk.segment, chunk.end_position());
            if !chunk.frames.is_empty() {
                self.pending.push_back(Arc::new(chunk));
            }
            bytes.reserve(8);
            open.start = 0;
            self.open = Some(open);
            self.chunk = Some(Chunk::new(segment, position, bytes));
        }
        self.finish(arrival, durable, Some(body_crc));
        self.close_frame(durable, Some(body_crc));
        self.seal_chunk();
        Ok(())
    }

    /// Takes frames that begin at the end, all or none. Bodies stay as they are; where they are
    /// put, and what was durable then, is this log's own.
    pub(crate) fn add_frames(
        &mut self,
        frames: &[Shipped<'_>],
        accept: Accept,
        durable: Offset,
    ) -> Result<()> {
        // Each may begin a segment.
        if frames.len() as u64 >= u64::MAX - self.next_segment_id {
            let what = "the log has used up its segment ids";
            return Err(Error::new(ErrorKind::OutOfRange, what).with_offset(self.end));
        }
        self.close_frame(durable, None);
        for frame in frames {
            self.add_frame(frame, accept, durable);
        }
        Ok(())
    }

    fn add_frame(&mut self, frame: &Shipped<'_>, accept: Accept, durable: Offset) {
        let Shipped { header, body, record_count, last_at } = *frame;
        let at = if header.is_hole() { self.last_record_at() } else { header.appended_at };
        let last_at = last_at.unwrap_or(at);
        let arrival = Arrival { len: body.len(), count: header.count, at, accept, encoded: true };
        self.open_frame(&arrival, header.end_offset());
        if let (Some(open), Some(chunk)) = (self.open.as_mut(), self.chunk.as_mut()) {
            open.last_at = last_at;
            open.gone = header.count.saturating_sub(record_count);
            chunk.bytes.extend_from_slice(body);
        }
        self.end = header.end_offset();
        self.last_at = self.last_at.max(last_at);
        self.close_frame(durable, Some(header.body_crc));
        if self.chunk.as_ref().is_some_and(|chunk| chunk.bytes.len() >= CHUNK_BYTES) {
            self.seal_chunk();
        }
    }

    /// Closes the frame that covers `offset`, if it is open, so that it is from now on what it will
    /// be in the file.
    pub(crate) fn close_frame_of(&mut self, offset: Offset, durable: Offset) {
        if self.open.is_some_and(|open| (open.base..self.end).contains(&offset)) {
            self.close_frame(durable, None);
        }
    }

    /// Append time of the last record there is. Lower than [`last_at`](Tail::last_at) where later
    /// ones were cut off.
    pub(crate) fn last_record_at(&self) -> Timestamp {
        let last = |chunk: &Chunk| chunk.frames.last().map(|frame| frame.note.last_at);
        let open = self.open.map(|open| open.last_at);
        let closed = open.or_else(|| self.chunk.as_ref().and_then(last));
        let pending = closed.or_else(|| self.pending.back().and_then(|chunk| last(chunk)));
        pending.unwrap_or(self.written_at)
    }

    /// The log was cut: the last record that is left was appended then.
    pub(crate) fn cut_back_to(&mut self, last_record_at: Timestamp) {
        self.written_at = last_record_at;
    }
}
