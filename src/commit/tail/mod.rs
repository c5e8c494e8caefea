//! The tail of the log in memory: the frame being filled, and what waits to be written.
//!
//! Pure: it decides where each record goes (frame, chunk, segment) and does no I/O. A segment is
//! begun here by choosing its id and seed; its file follows when the writer meets its first chunk.
//!
//! ```text
//!  written      pending (sealed chunks)          chunk                    end
//!     |----------|------------------|------------|[frame][frame][open fr..|
//! ```
//!
//! # Invariants
//!
//! - Frames are closed in the order of their offsets, and each lies in one chunk, each chunk in one
//!   segment.
//! - A frame's records were all accepted as buffered, or all have callers that still wait.
//! - Append times never go back.

mod handover;
mod next;
mod read;
mod ready;

pub(crate) use read::TailSpan;

use crate::bugs::Bug;
use crate::commit::chunk::Accept;
use crate::commit::chunk::Chunk;
use crate::commit::chunk::ChunkFrame;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::bytes;
use crate::format::frame::FRAME_HEADER_LEN;
use crate::format::frame::FrameHeader;
use crate::format::manifest::Prepared;
use crate::format::record;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::record::Record;
use crate::segment::FRAME_BYTES;
use crate::segment::FrameNote;
use crate::segment::NewSegment;
use crate::storage::Storage;
use crate::units::Offset;
use crate::units::Timestamp;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// A chunk is handed to the writer when it reaches this.
pub(super) const CHUNK_BYTES: usize = 512 << 10;

/// How many chunks may wait for the writer before appends wait too.
const PENDING_MAX: usize = 4;

/// What decides where records go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TailSettings {
    pub(crate) segment_bytes: u64,
    pub(crate) segment_age: Option<Duration>,
}

/// Where the log ends when it is opened.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) end: Offset,
    /// No append time is lower.
    pub(crate) last_at: Timestamp,
    /// Append time of the last record there is, which may be lower.
    pub(crate) last_record_at: Timestamp,
    pub(crate) next_segment_id: u64,
    pub(crate) storage: Arc<dyn Storage>,
}

/// Where the next frame goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) segment: NewSegment,
    pub(crate) position: u64,
    /// Append time of the segment's first record.
    pub(crate) first_at: Option<Timestamp>,
}

/// Records that are about to be added.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// No less than their encoded length.
    pub(crate) len: usize,
    pub(crate) count: u32,
    pub(crate) at: Timestamp,
    pub(crate) accept: Accept,
    /// They were encoded without time deltas, so the frame must have their time.
    pub(crate) encoded: bool,
}

#[derive(Debug)]
pub(crate) struct Tail {
    settings: TailSettings,
    end: Offset,
    last_at: Timestamp,
    /// Append time of the last record that is written.
    written_at: Timestamp,
    next_segment_id: u64,
    /// For the seeds of segments.
    storage: Arc<dyn Storage>,
    /// Segments whose files are there, to be begun in this order: that of their ids.
    ready: VecDeque<Prepared>,
    /// The id of the segment that was begun last. Those begun later have higher ones.
    last_id: u64,
    /// `None`: the next frame begins a segment.
    place: Option<Place>,
    chunk: Option<Chunk>,
    open: Option<OpenFrame>,
    pending: VecDeque<Arc<Chunk>>,
    /// Buffers of chunks that were written, to be filled again.
    spare: Vec<Vec<u8>>,
}

/// A frame that takes records.
#[derive(Clone, Copy, Debug)]
struct OpenFrame {
    /// Where its header begins in the chunk's bytes.
    start: usize,
    base: Offset,
    at: Timestamp,
    /// Append time of the last record.
    last_at: Timestamp,
    accept: Accept,
    /// Of its offsets, how many have no record.
    gone: u32,
    /// While the chunk's bytes and the end offset stay below these, records need no decision.
    calm_len: usize,
    calm_end: Offset,
    /// And while they arrive before this.
    calm_at: Timestamp,
}

impl Tail {
    pub(crate) fn new(settings: TailSettings, start: Start, place: Option<Place>) -> Self {
        let Start { end, last_at, last_record_at, next_segment_id, storage } = start;
        Self {
            settings,
            end,
            last_at,
            written_at: last_record_at,
            next_segment_id,
            storage,
            ready: VecDeque::new(),
            last_id: 0,
            place,
            chunk: None,
            open: None,
            pending: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    pub(crate) fn end(&self) -> Offset {
        self.end
    }

    /// The append time for a record that arrives at `now` by a clock that may go back.
    pub(crate) fn stamp(&mut self, now: Timestamp) -> Timestamp {
        self.last_at = self.last_at.max(now);
        self.last_at
    }

    /// The end of what the writer has to write before there is room again; `None` if there is room.
    pub(crate) fn full_until(&self) -> Option<Offset> {
        if self.pending.len() < PENDING_MAX { None } else { self.pending_until() }
    }

    /// The end of the chunks that wait for the writer.
    pub(crate) fn pending_until(&self) -> Option<Offset> {
        self.pending.back()?.end_offset()
    }

    /// Adds a record to the open frame if that takes no decision, as is the case for nearly all
    /// small records; gives its encoded length if it did.
    #[inline]
    pub(crate) fn push(&mut self, record: &Record<'_>, arrival: &Arrival) -> Option<usize> {
        let (open, chunk) = (self.open.as_mut()?, self.chunk.as_mut()?);
        let before = chunk.bytes.len();
        if open.accept != arrival.accept
            || before + arrival.len >= open.calm_len
            || self.end >= open.calm_end
            || arrival.at >= open.calm_at
        {
            return None;
        }
        open.last_at = arrival.at;
        record::encode(&mut chunk.bytes, record, delta(open.at, arrival.at));
        self.end = self.end + 1;
        Some(chunk.bytes.len() - before)
    }

    /// Opens a frame that takes the records and gives its buffer and time. To be followed by
    /// [`finish`](Tail::finish).
    pub(crate) fn begin(
        &mut self,
        arrival: Arrival,
        durable: Offset,
    ) -> Result<(&mut Vec<u8>, Timestamp)> {
        let end = self.end.checked_add(u64::from(arrival.count)).ok_or_else(|| {
            Error::new(ErrorKind::OutOfRange, "the log has used up its offsets")
                .with_offset(self.end)
        })?;
        // The id behind the last one could not be written down. No log gets there but a forged one.
        if self.next_segment_id == u64::MAX {
            let what = "the log has used up its segment ids";
            return Err(Error::new(ErrorKind::OutOfRange, what).with_offset(self.end));
        }
        if self.open.is_some_and(|open| !self.takes(open, &arrival, end)) {
            self.close_frame(durable, None);
        }
        let at = match self.open {
            Some(open) => open.at,
            None => self.open_frame(&arrival, end),
        };
        let chunk = self.chunk.as_mut().expect("an open frame lies in a chunk");
        Ok((&mut chunk.bytes, at))
    }

    /// Counts records that were put into the buffer; `body_crc` if they make up a body alone.
    pub(crate) fn finish(&mut self, arrival: Arrival, durable: Offset, body_crc: Option<u32>) {
        let alone = self.open.is_some_and(|open| open.base == self.end);
        if let Some(open) = self.open.as_mut() {
            open.last_at = arrival.at;
        }
        self.end = self.end + u64::from(arrival.count);
        if self.open_len() >= FRAME_BYTES {
            self.close_frame(durable, body_crc.filter(|_| alone));
        }
        if self.chunk.as_ref().is_some_and(|chunk| chunk.bytes.len() >= CHUNK_BYTES) {
            self.close_frame(durable, None);
            self.seal_chunk();
        }
    }

    /// Whether the open frame takes the records.
    fn takes(&self, open: OpenFrame, arrival: &Arrival, end: Offset) -> bool {
        let len = self.open_len() + arrival.len;
        let fits = self.chunk.as_ref().is_some_and(|chunk| {
            let frame_end = chunk.position + (open.start + FRAME_HEADER_LEN + len) as u64;
            frame_end <= self.settings.segment_bytes
                && end.saturating_since(chunk.segment.base_offset) <= u64::from(u32::MAX)
        });
        fits && open.accept == arrival.accept
            && len <= 2 * FRAME_BYTES
            && (arrival.at < open.calm_at || arrival.at == open.at)
            && (!arrival.encoded || open.at == arrival.at)
    }

    fn open_frame(&mut self, arrival: &Arrival, end: Offset) -> Timestamp {
        let place = match self.place.filter(|place| !self.is_full(place, arrival, end)) {
            Some(place) => place,
            None => self.begin_segment(),
        };
        // Behind nothing but holes nobody knows how old the segment is.
        let first_at = place.first_at.filter(|at| *at > Timestamp::MIN).or(Some(arrival.at));
        self.place = Some(Place { first_at, ..place });
        let spare = &mut self.spare;
        let chunk = self.chunk.get_or_insert_with(|| {
            Chunk::new(place.segment, place.position, spare.pop().unwrap_or_default())
        });
        let start = chunk.bytes.len();
        chunk.bytes.resize(start + FRAME_HEADER_LEN, 0);
        let (base, at) = (self.end, arrival.at);
        let segment_room = self.settings.segment_bytes.saturating_sub(chunk.position);
        let calm_len = usize::try_from(segment_room)
            .unwrap_or(usize::MAX)
            .min(CHUNK_BYTES)
            .min(start + FRAME_HEADER_LEN + FRAME_BYTES);
        let segment_end = chunk.segment.base_offset.checked_add(u64::from(u32::MAX));
        self.open = Some(OpenFrame {
            start,
            base,
            at,
            last_at: at,
            accept: arrival.accept,
            gone: 0,
            calm_len,
            calm_end: segment_end.unwrap_or(Offset::MAX),
            calm_at: self.calm_at(at),
        });
        at
    }

    /// The time from which on a record does not go into a frame of `at`: the segment is due for
    /// its age, or the difference to the frame's time has no number.
    fn calm_at(&self, at: Timestamp) -> Timestamp {
        let first_at = self.place.and_then(|place| place.first_at);
        let aged = match (first_at, self.settings.segment_age) {
            (Some(first_at), Some(age)) => first_at.checked_add(age),
            _ => None,
        };
        let far = Timestamp::from_micros(at.as_micros().saturating_add(i64::MAX));
        aged.unwrap_or(Timestamp::MAX).min(far)
    }

    /// Whether the records belong into a segment after the one of `place`. One without records
    /// takes whatever comes.
    fn is_full(&self, place: &Place, arrival: &Arrival, end: Offset) -> bool {
        if place.position <= SEGMENT_HEADER_LEN as u64 {
            return false;
        }
        let frame_end = place.position + (FRAME_HEADER_LEN + arrival.len) as u64;
        let aged = self.settings.segment_age.is_some_and(|limit| {
            let age = place.first_at.and_then(|first| arrival.at.since(first));
            age.is_some_and(|age| age >= limit)
        });
        aged || frame_end > self.settings.segment_bytes
            || end.saturating_since(place.segment.base_offset) > u64::from(u32::MAX)
    }

    fn open_len(&self) -> usize {
        match (self.open, self.chunk.as_ref()) {
            (Some(open), Some(chunk)) => {
                chunk.bytes.len().saturating_sub(open.start + FRAME_HEADER_LEN)
            }
            _ => 0,
        }
    }

    /// Closes the open frame. Its durable gap tells recovery what was durable before it.
    fn close_frame(&mut self, durable: Offset, body_crc: Option<u32>) {
        let body_len = self.open_len();
        let (Some(open), Some(chunk)) = (self.open.take(), self.chunk.as_mut()) else {
            return;
        };
        let position = chunk.position + open.start as u64;
        let count = u32::try_from(self.end - open.base).expect("a record takes two bytes");
        let note = FrameNote {
            base_offset: open.base,
            end_offset: self.end,
            position,
            appended_at: open.at,
            last_at: open.last_at,
            record_count: count.saturating_sub(open.gone),
        };
        let frame = ChunkFrame { note, start: open.start, body_len, accept: open.accept };
        let body_crc = body_crc.unwrap_or_else(|| {
            let body = chunk.bytes.get(open.start + FRAME_HEADER_LEN..).unwrap_or_default();
            bytes::crc(0, body)
        });
        let durable = if Bug::GapTooSmall.is_on() { open.base } else { durable };
        let gap = open.base.saturating_since(durable);
        let header = FrameHeader {
            body_len: u32::try_from(body_len).expect("a batch is limited to 1 GiB"),
            base_offset: open.base,
            appended_at: open.at,
            count,
            durable_gap: u32::try_from(gap).unwrap_or(u32::MAX),
            body_crc,
        };
        chunk.close(frame, &header);
        if let Some(place) = self.place.as_mut() {
            place.position = chunk.end_position();
        }
    }

    fn seal_chunk(&mut self) {
        if let Some(chunk) = self.chunk.take().filter(|chunk| !chunk.frames.is_empty()) {
            self.pending.push_back(Arc::new(chunk));
        }
    }
}

/// How long after its frame a record was appended.
#[inline]
pub(super) fn delta(frame_at: Timestamp, at: Timestamp) -> u64 {
    let micros = at.as_micros().saturating_sub(frame_at.as_micros());
    u64::try_from(micros).unwrap_or_default()
}
