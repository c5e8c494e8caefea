//! A segment file as readers see it: its identity, its bytes, its index and how far it goes.
//!
//! # Invariants
//!
//! - Below [`Segment::end`] every frame is complete and never changes again.
//! - The file is never cut off below that end; a removed file stays readable to those who hold it.
//! - The index is a hint: it only says where to begin looking.

mod active;
mod blocks;
mod cut;
mod damage;
mod follow;
mod frames;
mod index;
mod records;
mod recover;
mod scan;
mod shipment;
mod window;

pub(crate) use active::Active;
pub(crate) use active::FRAME_BYTES;
pub(crate) use active::FrameNote;
pub(crate) use active::NewSegment;
pub(crate) use active::Reading;
pub(crate) use cut::Cut;
pub(crate) use cut::cut_at;
pub(crate) use damage::refuse_newer;
pub(crate) use damage::unreadable;
pub(crate) use follow::Belief;
pub(crate) use frames::Frames;
pub(crate) use index::is_usable as index_is_usable;
pub(crate) use records::Placed;
pub(crate) use records::Records;
pub(crate) use recover::Bounds;
pub(crate) use recover::Claim;
pub(crate) use recover::Decision;
pub(crate) use recover::FileState;
pub(crate) use recover::Observed;
pub(crate) use recover::Role;
pub(crate) use recover::Tail;
pub(crate) use recover::TailScan;
pub(crate) use recover::decide;
pub(crate) use recover::marks_behind;
pub(crate) use recover::scan_tail;
pub(crate) use scan::Damage;
pub(crate) use scan::Scan;
pub(crate) use scan::Step;
pub(crate) use shipment::Shipment;
pub(crate) use shipment::Shipped;
pub(crate) use window::Frame;
pub(crate) use window::Window;
pub(crate) use window::first_since;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::bytes::DecodeError;
use crate::format::index::IndexEntry;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::format::names;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::format::segment::SegmentHeader;
use crate::options::ReadMode;
use crate::segment::index::SparseIndex;
use crate::storage::Dir;
use crate::storage::Handle;
use crate::storage::Map;
use crate::storage::OpenMode;
use crate::sync::AtomicU64;
use crate::sync::RwLock;
use crate::units::Offset;
use crate::units::Timestamp;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What readers may conclude from where a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It grows: its two ends change one after the other.
    Growing,
    /// A truncation may have ended it inside its last frame.
    Ended,
    /// It is sealed, and compaction has left no frame in it.
    Hole,
}

/// A segment that can be read: sealed, or the active one up to what is written.
#[derive(Debug)]
pub(crate) struct Segment {
    header: SegmentHeader,
    file: Handle,
    kind: Kind,
    read_mode: ReadMode,
    /// How far a map of the file should reach, so that a growing file is mapped once.
    map_len: u64,
    /// End offset of the last frame that readers may look at; never behind `end`.
    end_offset: AtomicU64,
    /// Position of the end of that frame.
    end: AtomicU64,
    map: RwLock<Option<Arc<Map>>>,
    index: RwLock<SparseIndex>,
}

impl Segment {
    /// Opens the segment of a manifest row, which must be there and as long as the row says.
    pub(crate) fn open(dir: &Dir, row: &Row, log_id: u128, read_mode: ReadMode) -> Result<Self> {
        let (file, header) = open_file(dir, row, log_id, OpenMode::Read)?;
        let size = file.size()?;
        if size < row.byte_len {
            return Err(too_short(&file, size, row));
        }
        let index = index::load_or_build(dir, &file, &header, row.byte_len)?;
        Ok(Self::ended(header, file, row, read_mode, index))
    }

    /// The same segment as it ends after it was cut back to `row`. Takes no look at the file.
    pub(crate) fn cut_back(&self, row: &Row) -> Self {
        let index = self.index.read().below(row.byte_len);
        Self::ended(self.header, self.file.clone(), row, self.read_mode, index)
    }

    fn ended(
        header: SegmentHeader,
        file: Handle,
        row: &Row,
        read_mode: ReadMode,
        index: SparseIndex,
    ) -> Self {
        let is_hole = row.state == RowState::Sealed && row.byte_len == SEGMENT_HEADER_LEN as u64;
        Self {
            header,
            file,
            read_mode,
            kind: if is_hole { Kind::Hole } else { Kind::Ended },
            map_len: row.byte_len,
            end_offset: AtomicU64::new(row.end_offset.get()),
            end: AtomicU64::new(row.byte_len),
            map: RwLock::new(None),
            index: RwLock::new(index),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.header.segment_id
    }

    pub(crate) fn seed(&self) -> u32 {
        self.header.seed
    }

    pub(crate) fn base_offset(&self) -> Offset {
        self.header.base_offset
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.file
    }

    /// Whether a frame may reach past the end offset, if it is the last.
    fn may_be_cut(&self) -> bool {
        self.kind != Kind::Growing
    }

    /// Position of the end of the last frame that may be read.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Whether compaction has removed every record.
    pub(crate) fn is_hole(&self) -> bool {
        self.kind == Kind::Hole
    }

    /// End offset of the last frame that may be read, or of a later one.
    pub(crate) fn end_offset(&self) -> Offset {
        Offset::new(self.end_offset.load(Ordering::Acquire))
    }

    /// Shows readers what was written up to `end`, index entries first.
    fn publish(&self, entries: &[IndexEntry], end_offset: Offset, end: u64) {
        if !entries.is_empty() {
            self.index.write().extend(entries);
        }
        self.end_offset.store(end_offset.get(), Ordering::Release);
        self.end.store(end, Ordering::Release);
    }

    /// Where to begin looking for `offset`.
    pub(crate) fn hint_for_offset(&self, offset: Offset) -> Option<IndexEntry> {
        self.index.read().before_offset(offset)
    }

    /// Where to begin looking for the first record appended at or after `time`.
    pub(crate) fn hint_for_time(&self, time: Timestamp) -> Option<IndexEntry> {
        self.index.read().before_time(time)
    }

    /// Builds the index anew, after it led nowhere.
    pub(crate) fn rebuild_index(&self) -> Result<()> {
        let rebuilt = index::build(&self.file, &self.header, self.end())?;
        *self.index.write() = rebuilt;
        Ok(())
    }

    /// A map that covers `end`, or `None` if this segment is read by positional reads.
    fn map(&self, end: u64) -> Result<Option<Arc<Map>>> {
        if self.read_mode == ReadMode::Pread {
            return Ok(None);
        }
        if let Some(map) = self.map.read().as_ref().filter(|map| map.len() >= end) {
            return Ok(Some(Arc::clone(map)));
        }
        let Some(map) = self.file.map(self.map_len.max(end))? else {
            return Ok(None);
        };
        let map = Arc::new(map);
        *self.map.write() = Some(Arc::clone(&map));
        Ok(Some(map))
    }
}

/// Opens the file of a row and checks that it is the one the row means.
pub(crate) fn open_file(
    dir: &Dir,
    row: &Row,
    log_id: u128,
    mode: OpenMode,
) -> Result<(Handle, SegmentHeader)> {
    let name = names::segment(row.base_offset, row.segment_id);
    let Some(file) = dir.open_if_there(&name, mode)? else {
        return Err(missing(dir, row));
    };
    let mut bytes = [0; SEGMENT_HEADER_LEN];
    let len = file.read(&mut bytes, 0)?;
    let header = SegmentHeader::decode(bytes.get(..len).unwrap_or_default())
        .map_err(|error| bad_header(&file, row, error))?;
    if header.log_id != log_id {
        return Err(foreign(&file, row, "the segment belongs to another log"));
    }
    if (header.segment_id, header.base_offset) != (row.segment_id, row.base_offset) {
        return Err(foreign(&file, row, "the file holds another segment of this log"));
    }
    Ok((file, header))
}

/// The file of a row is not there.
pub(crate) fn missing(dir: &Dir, row: &Row) -> Error {
    let what = "the manifest names a segment that is not there; restore the file";
    Error::new(ErrorKind::Corrupt, what)
        .with_path(&dir.path_of(&names::segment(row.base_offset, row.segment_id)))
        .with_offset(row.base_offset)
}

fn bad_header(file: &Handle, row: &Row, error: DecodeError) -> Error {
    let (kind, what) = match error {
        why if why.is_newer() => (
            ErrorKind::UnsupportedVersion,
            format!("the segment needs a newer version of this crate ({error})"),
        ),
        _ => (ErrorKind::Corrupt, format!("the segment's header is damaged ({error})")),
    };
    Error::new(kind, what).with_path(file.path()).with_position(0).with_offset(row.base_offset)
}

fn foreign(file: &Handle, row: &Row, what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, what)
        .with_path(file.path())
        .with_position(0)
        .with_offset(row.base_offset)
}

/// The file lost bytes that were durable.
pub(crate) fn too_short(file: &Handle, size: u64, row: &Row) -> Error {
    let what = format!("the segment is {size} bytes long, but {} were durable", row.byte_len);
    Error::new(ErrorKind::Corrupt, what)
        .with_path(file.path())
        .with_position(size)
        .with_offset(row.base_offset)
}
