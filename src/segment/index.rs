//! The sparse index of a segment: some frames' offsets, times and positions, as a place to begin.
//!
//! # Invariants
//!
//! - A cache: whoever uses an entry checks the frame it points to, and builds the index anew if
//!   that is another one. No answer depends on it, only how long it takes.
//! - At most one entry every [`INDEX_INTERVAL_BYTES`], so its size is bounded by the segment's.

use crate::error::Result;
use crate::format::index;
use crate::format::index::INDEX_INTERVAL_BYTES;
use crate::format::index::IndexEntry;
use crate::format::index::IndexHeader;
use crate::format::names;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::format::segment::SegmentHeader;
use crate::segment::scan::Scan;
use crate::segment::scan::Step;
use crate::storage::Dir;
use crate::storage::Handle;
use crate::storage::OpenMode;
use crate::units::Offset;
use crate::units::Timestamp;

/// Entries in the order of their offsets, positions and times.
#[derive(Debug, Default)]
pub(crate) struct SparseIndex {
    entries: Vec<IndexEntry>,
}

impl SparseIndex {
    pub(crate) fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// Adds the frame of `entry` if the last entry is far enough behind.
    pub(crate) fn offer(&mut self, entry: IndexEntry) {
        if is_due(self.entries.last(), &entry) {
            self.entries.push(entry);
        }
    }

    pub(crate) fn extend(&mut self, entries: &[IndexEntry]) {
        self.entries.extend_from_slice(entries);
    }

    /// The last entry at or before `offset`.
    pub(crate) fn before_offset(&self, offset: Offset) -> Option<IndexEntry> {
        let after = self.entries.partition_point(|entry| entry.base_offset <= offset);
        self.entries.get(after.checked_sub(1)?).copied()
    }

    /// The last entry of a frame closed before `time`.
    pub(crate) fn before_time(&self, time: Timestamp) -> Option<IndexEntry> {
        let after = self.entries.partition_point(|entry| entry.appended_at < time);
        self.entries.get(after.checked_sub(1)?).copied()
    }
}

/// Whether a frame gets an entry, given the last one.
pub(crate) fn is_due(last: Option<&IndexEntry>, entry: &IndexEntry) -> bool {
    last.is_none_or(|last| entry.position >= last.position + INDEX_INTERVAL_BYTES)
}

/// The index from its file, or from the segment if the file is missing or does not fit.
pub(crate) fn load_or_build(
    dir: &Dir,
    file: &Handle,
    header: &SegmentHeader,
    end: u64,
) -> Result<SparseIndex> {
    match load(dir, header, end)? {
        Some(index) => Ok(index),
        None => build(file, header, end),
    }
}

/// The index from its file. Whatever is wrong with the file makes it no index, not an error.
fn load(dir: &Dir, header: &SegmentHeader, end: u64) -> Result<Option<SparseIndex>> {
    let name = names::index(header.base_offset, header.segment_id);
    let Ok(Some(file)) = dir.open_if_there(&name, OpenMode::Read) else {
        return Ok(None);
    };
    // No index of this segment is longer than one entry an interval and the header.
    let limit = 64 + 16 * (end / INDEX_INTERVAL_BYTES + 1);
    let size = file.size()?;
    let Some(len) = usize::try_from(size).ok().filter(|_| size <= limit) else {
        return Ok(None);
    };
    let mut bytes = vec![0; len];
    let read = file.read(&mut bytes, 0)?;
    bytes.truncate(read);
    let entries = index::decode(&bytes, &expected(header, end)).ok();
    Ok(entries.map(|entries| SparseIndex { entries }))
}

/// The index from the frame headers of the segment, over damage where there is some.
pub(crate) fn build(file: &Handle, header: &SegmentHeader, end: u64) -> Result<SparseIndex> {
    let mut index = SparseIndex::default();
    let mut scan = Scan::new(file, header.seed, end, first_frame(header));
    loop {
        match scan.step()? {
            Step::Frame { position, header } => index.offer(IndexEntry {
                base_offset: header.base_offset,
                position,
                appended_at: header.appended_at,
            }),
            Step::Damage(damage) => {
                if scan.resume_behind(&damage)?.is_none() {
                    return Ok(index);
                }
            }
            Step::End => return Ok(index),
        }
    }
}

/// Writes the index beside its segment. It is not synced: a file that a crash leaves half written
/// fails its checksum and is built anew.
pub(crate) fn store(
    dir: &Dir,
    header: &SegmentHeader,
    end: u64,
    index: &SparseIndex,
) -> Result<()> {
    let bytes = index::encode(&expected(header, end), index.entries());
    let file = dir.create_anew(&names::index(header.base_offset, header.segment_id))?;
    file.write(&bytes, 0).map_err(|partial| partial.error)
}

/// Where the first frame of a segment begins and which offset it has.
pub(crate) fn first_frame(header: &SegmentHeader) -> (u64, Offset) {
    (SEGMENT_HEADER_LEN as u64, header.base_offset)
}

fn expected(header: &SegmentHeader, end: u64) -> IndexHeader {
    IndexHeader {
        segment_id: header.segment_id,
        base_offset: header.base_offset,
        segment_end: end,
        seed: header.seed,
    }
}
