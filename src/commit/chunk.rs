//! A stretch of frames in memory, on its way to one segment file.

use crate::bugs::Bug;
use crate::format::frame::FRAME_HEADER_LEN;
use crate::format::frame::FrameHeader;
use crate::segment::FrameNote;
use crate::segment::NewSegment;
use crate::units::Offset;

/// Frames that follow each other in one segment. Immutable once it is handed to the writer.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) segment: NewSegment,
    /// Where in the segment the first frame goes.
    pub(crate) position: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) frames: Vec<ChunkFrame>,
}

/// A closed frame of a chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkFrame {
    pub(crate) note: FrameNote,
    /// Where its header begins in the chunk's bytes.
    pub(crate) start: usize,
    pub(crate) body_len: usize,
    pub(crate) accept: Accept,
}

/// When the callers of records are told that these are in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accept {
    /// Now that they are in memory: a full disk does not take them back any more.
    AtOnce,
    /// When they are written or synced: until then they can be taken back.
    Later,
}

impl ChunkFrame {
    fn end(&self) -> usize {
        (self.start + FRAME_HEADER_LEN + self.body_len).next_multiple_of(8)
    }
}

impl Chunk {
    pub(crate) fn new(segment: NewSegment, position: u64, bytes: Vec<u8>) -> Self {
        Self { segment, position, bytes, frames: Vec::new() }
    }

    /// Position in the segment where its bytes end.
    pub(crate) fn end_position(&self) -> u64 {
        self.position + self.bytes.len() as u64
    }

    /// End offset of its closed frames.
    pub(crate) fn end_offset(&self) -> Option<Offset> {
        self.frames.last().map(|frame| frame.note.end_offset)
    }

    /// What the writer needs to know of the frames.
    pub(crate) fn notes(&self) -> impl Iterator<Item = FrameNote> {
        self.frames.iter().map(|frame| frame.note)
    }

    /// The bytes of its records, which is what counts as appended.
    pub(crate) fn record_bytes(&self) -> u64 {
        self.frames.iter().map(|frame| frame.body_len as u64).sum()
    }

    /// The frame that covers `offset`.
    pub(crate) fn frame_for(&self, offset: Offset) -> Option<&ChunkFrame> {
        let after = self.frames.partition_point(|frame| frame.note.end_offset <= offset);
        self.frames.get(after).filter(|frame| frame.note.base_offset <= offset)
    }

    pub(crate) fn body(&self, frame: &ChunkFrame) -> &[u8] {
        let start = frame.start + FRAME_HEADER_LEN;
        self.bytes.get(start..start + frame.body_len).unwrap_or_default()
    }

    /// Puts the header before a body that is complete, and pads it.
    pub(crate) fn close(&mut self, frame: ChunkFrame, header: &FrameHeader) {
        let place = frame.start..frame.start + FRAME_HEADER_LEN;
        if let Some(space) = self.bytes.get_mut(place) {
            space.copy_from_slice(&header.encode(self.segment.seed));
        }
        self.bytes.resize(frame.end(), 0);
        self.frames.push(frame);
    }

    /// The end of the frames that are whole in a file that holds so many of the bytes, and zeros
    /// behind them.
    pub(crate) fn whole_to(&self, len: usize) -> Option<Offset> {
        let is_whole = |frame: &&ChunkFrame| {
            let missing = self.bytes.get(len..frame.end()).unwrap_or_default();
            missing.iter().all(|byte| *byte == 0)
        };
        self.frames.iter().take_while(is_whole).last().map(|frame| frame.note.end_offset)
    }

    /// Whether a full disk takes its last record back.
    pub(crate) fn ends_refusable(&self) -> bool {
        self.frames.last().is_some_and(|frame| frame.accept == Accept::Later)
    }

    /// Whether a full disk leaves any of its records.
    pub(crate) fn has_accepted(&self) -> bool {
        self.frames.iter().any(|frame| frame.accept == Accept::AtOnce)
    }

    /// Accepts the frames below `end`.
    pub(crate) fn accept_below(&mut self, end: Offset) {
        for frame in self.frames.iter_mut().filter(|frame| frame.note.end_offset <= end) {
            frame.accept = Accept::AtOnce;
        }
    }

    /// Drops all frames behind the last accepted one.
    pub(crate) fn keep_accepted(&mut self) {
        let kept = self
            .frames
            .iter()
            .rposition(|frame| frame.accept == Accept::AtOnce && !Bug::AcceptedTakenBack.is_on())
            .map_or(0, |last| last + 1);
        self.frames.truncate(kept);
        self.bytes.truncate(self.frames.last().map_or(0, ChunkFrame::end));
    }
}
