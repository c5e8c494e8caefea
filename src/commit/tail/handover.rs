//! Handing chunks to the writer, and taking records back when it cannot write them.

use crate::bugs::Bug;
use crate::commit::chunk::Accept;
use crate::commit::chunk::Chunk;
use crate::commit::tail::CHUNK_BYTES;
use crate::commit::tail::PENDING_MAX;
use crate::commit::tail::Place;
use crate::commit::tail::Tail;
use crate::units::Offset;
use crate::units::Timestamp;
use std::sync::Arc;

impl Tail {
    /// The next chunk for the writer, which stays here until it is written.
    pub(crate) fn next_chunk(&mut self, durable: Offset) -> Option<Arc<Chunk>> {
        if self.pending.is_empty() {
            self.close_frame(durable, None);
            self.seal_chunk();
        }
        self.pending.front().cloned()
    }

    /// Lets go of the chunk that was written.
    pub(crate) fn written(&mut self, chunk: Arc<Chunk>) {
        self.pending.pop_front();
        let last = chunk.frames.last();
        self.written_at = last.map_or(self.written_at, |frame| frame.note.last_at);
        if let Ok(mut chunk) = Arc::try_unwrap(chunk)
            && self.spare.len() < PENDING_MAX + 1
            && chunk.bytes.capacity() <= 2 * CHUNK_BYTES
        {
            chunk.bytes.clear();
            self.spare.push(chunk.bytes);
        }
    }

    /// Makes the next frame begin a segment.
    pub(crate) fn end_segment(&mut self, durable: Offset) {
        self.close_frame(durable, None);
        self.seal_chunk();
        self.place = None;
    }

    /// Takes back what no caller was told is in the log: every frame behind the last accepted one.
    /// What is left goes on behind it, or at `written` and `place` if nothing is. Tells whether
    /// anything of the first pending chunk went.
    pub(crate) fn take_back(
        &mut self,
        written: Offset,
        durable: Offset,
        place: Option<Place>,
    ) -> bool {
        let before = self.pending.front().map_or(0, |chunk| chunk.bytes.len());
        if self.open.is_some_and(|open| open.accept == Accept::AtOnce) {
            return false;
        }
        self.close_frame(durable, None);
        self.seal_chunk();
        while let Some(last) = self.pending.pop_back() {
            let mut last =
                Arc::try_unwrap(last).expect("only the writer holds chunks, and it is here");
            last.keep_accepted();
            if let Some(end) = last.end_offset() {
                self.end = end;
                let position = last.end_position();
                let same = |place: &Place| place.segment.segment_id == last.segment.segment_id;
                let first_at = self.place.filter(same).or(place.filter(same)).map_or_else(
                    || last.frames.first().map(|frame| frame.note.appended_at),
                    |place| place.first_at,
                );
                self.place = Some(Place { segment: last.segment, position, first_at });
                self.pending.push_back(Arc::new(last));
                break;
            }
        }
        if self.pending.is_empty() {
            self.end = written;
            self.place = place;
        }
        self.pending.front().map_or(0, |chunk| chunk.bytes.len()) < before
    }

    /// Forgets all that is not written: the log ends at `end`, and the next frame begins a segment.
    pub(crate) fn end_at(&mut self, end: Offset) {
        self.pending.clear();
        self.chunk = None;
        self.open = None;
        self.place = None;
        // The next segment gets an id of its own: higher than those of outputs that compaction has
        // written of what is cut now, so that the order of ids tells what came last.
        if !Bug::PreparedOutlivesCut.is_on() {
            self.ready.clear();
        }
        self.end = end;
    }

    /// No later record gets a lower append time.
    pub(crate) fn last_at(&self) -> Timestamp {
        self.last_at
    }

    /// Bytes of records that are not written yet.
    pub(crate) fn record_bytes(&self) -> u64 {
        let pending: u64 = self.pending.iter().map(|chunk| chunk.record_bytes()).sum();
        pending + self.chunk.as_ref().map_or(0, Chunk::record_bytes) + self.open_len() as u64
    }
}
