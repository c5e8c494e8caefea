//! The active segment as its writer sees it: created, written at its end, sealed.
//!
//! # Invariants
//!
//! - Bytes go to the file by positional writes at [`Active::position`], never below it.
//! - What readers may see is published after it was written, never before.

use crate::bugs::Bug;
use crate::error::Result;
use crate::format::index::IndexEntry;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::format::names;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::format::segment::SegmentHeader;
use crate::options::ReadMode;
use crate::segment::Kind;
use crate::segment::Segment;
use crate::segment::index;
use crate::segment::index::SparseIndex;
use crate::segment::recover::TailScan;
use crate::storage::Dir;
use crate::storage::Handle;
use crate::storage::OpenMode;
use crate::storage::PartialWrite;
use crate::sync::AtomicU64;
use crate::sync::RwLock;
use crate::units::Offset;
use crate::units::Timestamp;
use std::sync::Arc;

/// How far ahead of small synced writes the file is filled with zeros: overwriting blocks that are
/// there already spares the sync a change of the file's metadata.
const ZERO_AHEAD_BYTES: u64 = 1 << 20;

/// Zeros are written in pieces of this size: larger ones make page cache folios so large that
/// small writes into them become slow.
const ZERO_PIECE_BYTES: usize = 64 << 10;

/// A frame is closed when its body reaches this: large enough to make the header cheap, small
/// enough that a point read, which verifies one whole frame, stays cheap too.
pub(crate) const FRAME_BYTES: usize = 4 << 10;

/// A segment that is to be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewSegment {
    pub(crate) segment_id: u64,
    pub(crate) seed: u32,
    pub(crate) base_offset: Offset,
}

impl NewSegment {
    pub(crate) fn new(segment_id: u64, base_offset: Offset, random: u64) -> Self {
        Self { segment_id, seed: seed(random), base_offset }
    }

    fn header(&self, previous: Option<&Row>, log_id: u128) -> SegmentHeader {
        SegmentHeader {
            seed: self.seed,
            log_id,
            segment_id: self.segment_id,
            base_offset: self.base_offset,
            previous_id: previous.map_or(0, |row| row.segment_id),
            previous_end: self.base_offset,
        }
    }
}

/// What the writer knows of a frame in the bytes it writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameNote {
    pub(crate) base_offset: Offset,
    pub(crate) end_offset: Offset,
    /// In the segment's file.
    pub(crate) position: u64,
    pub(crate) appended_at: Timestamp,
    /// Append time of the frame's last record.
    pub(crate) last_at: Timestamp,
    /// Fewer than its offsets where compaction has removed some.
    pub(crate) record_count: u32,
}

/// How readers of a segment get at its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) mode: ReadMode,
    /// How far a map of a file that grows should reach.
    pub(crate) map_len: u64,
}

/// The one segment that grows.
#[derive(Debug)]
pub(crate) struct Active {
    dir: Dir,
    segment: Arc<Segment>,
    end_offset: Offset,
    /// Position of the end of the last frame.
    position: u64,
    /// Append time of the first record, or of the first frame while there is no record.
    first_at: Option<Timestamp>,
    last_at: Timestamp,
    record_count: u64,
    /// The file is filled with zeros from `position` up to here.
    zeroed_to: u64,
    last_indexed: Option<IndexEntry>,
    /// The header is written with the first frames.
    lacks_header: bool,
}

impl Active {
    /// Makes the file with its header, durable in its bytes; its name becomes durable when the
    /// manifest that names it does.
    pub(crate) fn create(
        dir: &Dir,
        new: NewSegment,
        previous: Option<&Row>,
        log_id: u128,
        reading: Reading,
    ) -> Result<Self> {
        let header = new.header(previous, log_id);
        let file = dir.create_anew(&names::segment(new.base_offset, new.segment_id))?;
        file.write(&header.encode(), 0).map_err(|partial| partial.error)?;
        let synced = Bug::HeaderNotSynced.spares(|| file.sync());
        Bug::RollIgnoresFailedSync.forgives(synced)?;
        Ok(Self::at_start(dir, file, header, reading))
    }

    /// Begins a prepared segment: its file gets the name of a segment. Nothing is written before
    /// its first frames are.
    pub(crate) fn begin(
        dir: &Dir,
        new: NewSegment,
        previous: Option<&Row>,
        log_id: u128,
        reading: Reading,
    ) -> Result<Self> {
        let name = names::segment(new.base_offset, new.segment_id);
        let file = match dir.open_if_there(&name, OpenMode::Write)? {
            // An earlier try got so far.
            Some(file) => file,
            None => {
                dir.rename(&names::prepared(new.segment_id), &name)?;
                dir.open(&name, OpenMode::Write)?
            }
        };
        let begun = Self::at_start(dir, file, new.header(previous, log_id), reading);
        Ok(Self { lacks_header: true, ..begun })
    }

    fn at_start(dir: &Dir, file: Handle, header: SegmentHeader, reading: Reading) -> Self {
        let (position, base_offset) = (SEGMENT_HEADER_LEN as u64, header.base_offset);
        Self {
            dir: dir.clone(),
            segment: segment(
                file,
                header,
                reading,
                SparseIndex::default(),
                (position, base_offset),
            ),
            end_offset: base_offset,
            position,
            first_at: None,
            last_at: Timestamp::ZERO,
            record_count: 0,
            zeroed_to: position,
            last_indexed: None,
            lacks_header: false,
        }
    }

    /// Goes on with the active segment of a manifest, which recovery has scanned to its end.
    pub(crate) fn resume(
        dir: &Dir,
        row: &Row,
        log_id: u128,
        reading: Reading,
        scan: TailScan,
    ) -> Result<Self> {
        let (file, header) = super::open_file(dir, row, log_id, OpenMode::Write)?;
        let size = file.size()?;
        let mut index = index::load_or_build(dir, &file, &header, row.byte_len)?;
        for entry in &scan.index {
            index.offer(*entry);
        }
        let last_indexed = index.entries().last().copied();
        Ok(Self {
            dir: dir.clone(),
            segment: segment(file, header, reading, index, (scan.end_position, scan.end_offset)),
            end_offset: scan.end_offset,
            position: scan.end_position,
            first_at: (row.record_count > 0)
                .then_some(row.first_appended_at)
                .or(scan.first_at)
                .or((scan.end_offset > row.base_offset).then_some(Timestamp::MIN)),
            last_at: scan.last_at.unwrap_or(row.last_appended_at),
            record_count: row.record_count + scan.record_count,
            zeroed_to: size.max(scan.end_position),
            last_indexed,
            lacks_header: false,
        })
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub(crate) fn end_offset(&self) -> Offset {
        self.end_offset
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// `None` if there is no frame yet.
    pub(crate) fn first_at(&self) -> Option<Timestamp> {
        self.first_at
    }

    /// Writes frames at the end and shows them to readers.
    pub(crate) fn write(
        &mut self,
        bytes: &[u8],
        frames: impl Iterator<Item = FrameNote>,
    ) -> Result<(), PartialWrite> {
        if self.lacks_header {
            let written = self.segment.file.write(&self.segment.header.encode(), 0);
            // It says what is true, so it may stay.
            written.map_err(|partial| PartialWrite { written: 0, ..partial })?;
            self.lacks_header = false;
        }
        self.segment.file.write(bytes, self.position)?;
        let mut entries = Vec::new();
        for frame in frames {
            let entry = IndexEntry {
                base_offset: frame.base_offset,
                position: frame.position,
                appended_at: frame.appended_at,
            };
            if index::is_due(self.last_indexed.as_ref(), &entry) {
                self.last_indexed = Some(entry);
                entries.push(entry);
            }
            let dates = frame.record_count > 0 && self.record_count == 0;
            self.first_at = self.first_at.filter(|_| !dates).or(Some(frame.appended_at));
            self.last_at = frame.last_at;
            self.record_count += u64::from(frame.record_count);
            self.end_offset = frame.end_offset;
        }
        self.position += bytes.len() as u64;
        self.segment.publish(&entries, self.end_offset, self.position);
        Ok(())
    }

    /// Prepares the file for small synced writes of which `len` bytes come next.
    ///
    /// Deliberately reports nothing: it is not needed for the write to come, which meets the same
    /// obstacle itself and reports it.
    pub(crate) fn zero_ahead(&mut self, len: u64, segment_bytes: u64) {
        let needed = self.position + len;
        if needed <= self.zeroed_to {
            return;
        }
        let piece = [0; ZERO_PIECE_BYTES];
        let goal = (needed + ZERO_AHEAD_BYTES).min(segment_bytes.max(needed));
        let least = if Bug::ZerosOverFrames.is_on() { 0 } else { self.position };
        let mut position = self.zeroed_to.max(least);
        while position < goal {
            // Up to the next multiple of the piece, so that folios are aligned.
            let stop = (position + 1).next_multiple_of(ZERO_PIECE_BYTES as u64).min(goal);
            let len = usize::try_from(stop - position).unwrap_or(usize::MAX);
            if self.segment.file.write(piece.get(..len).unwrap_or_default(), position).is_err() {
                return;
            }
            position += len as u64;
            self.zeroed_to = position;
        }
    }

    /// Overwrites what a write that failed may have left behind the end, durably, so that no
    /// recovery can take it for something that was appended.
    pub(crate) fn erase(&self, written: usize) -> Result<()> {
        let erased = self.segment.file.write(&vec![0; written], self.position);
        erased.map_err(|partial| partial.error)?;
        // Whole frames may be among it, and the zeros over them may be lost in a power cut.
        Bug::ErasureNotSynced.spares(|| self.segment.file.sync())
    }

    /// Ends the file where its frames end and stores the index.
    pub(crate) fn seal(&mut self) -> Result<()> {
        self.segment.file.set_len(self.position)?;
        self.zeroed_to = self.position;
        let stored = index::store(
            &self.dir,
            &self.segment.header,
            self.position,
            &self.segment.index.read(),
        );
        // The index is a cache: without its file it is built anew, so a full disk is no obstacle.
        drop(stored);
        Ok(())
    }

    /// The manifest row of the segment as it is now.
    pub(crate) fn row(&self, state: RowState) -> Row {
        // Without records there are no times.
        let dated = self.first_at.filter(|_| self.record_count > 0);
        Row {
            segment_id: self.segment.id(),
            base_offset: self.segment.base_offset(),
            end_offset: self.end_offset,
            byte_len: self.position,
            first_appended_at: dated.unwrap_or_default(),
            last_appended_at: dated.map_or(Timestamp::ZERO, |_| self.last_at),
            record_count: self.record_count,
            state,
            compacted_at: None,
            tombstone_count: 0,
        }
    }
}

/// The seed of a segment.
pub(crate) fn seed(random: u64) -> u32 {
    // 0 is the seed of frames that are not in a segment.
    u32::try_from(random >> 32).unwrap_or_default().max(1)
}

fn segment(
    file: Handle,
    header: SegmentHeader,
    reading: Reading,
    index: SparseIndex,
    end: (u64, Offset),
) -> Arc<Segment> {
    Arc::new(Segment {
        header,
        file,
        kind: Kind::Growing,
        read_mode: reading.mode,
        map_len: reading.map_len,
        end_offset: AtomicU64::new(end.1.get()),
        end: AtomicU64::new(end.0),
        map: RwLock::new(None),
        index: RwLock::new(index),
    })
}
