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

    /// The entries of what lies below a position.
    pub(crate) fn below(&self, position: u64) -> Self {
        let stays = self.entries.partition_point(|entry| entry.position < position);
        Self { entries: self.entries.get(..stays).unwrap_or_default().to_vec() }
    }

    pub(crate) fn extend(&mut self, entries: &[IndexEntry]) {
        self.entries.extend_from_slice(entries);
    }

    /// The last entry at or before `offset`.
    pub(crate) fn before_offset(&self, offset: Offset) -> Option<IndexEntry> {
        let after = count_up_to(&self.entries, offset);
        self.entries.get(after.checked_sub(1)?).copied()
    }

    /// The last entry of a frame closed before `time`.
    pub(crate) fn before_time(&self, time: Timestamp) -> Option<IndexEntry> {
        let after = self.entries.partition_point(|entry| entry.appended_at < time);
        self.entries.get(after.checked_sub(1)?).copied()
    }
}

/// How many entries are at or before `offset`.
///
/// Offsets grow evenly, so the place is guessed first, and then a bracket around the guess doubled
/// until it holds: a few steps close by, where halving the whole would miss the cache at each.
fn count_up_to(entries: &[IndexEntry], offset: Offset) -> usize {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return 0 };
    let reach = u128::from(last.base_offset.saturating_since(first.base_offset)).max(1);
    let share = u128::from(offset.saturating_since(first.base_offset)).min(reach);
    let guess = share * (entries.len() as u128 - 1) / reach;
    let guess = usize::try_from(guess).unwrap_or_default();
    let is_up_to =
        |place: usize| entries.get(place).is_some_and(|entry| entry.base_offset <= offset);
    let (mut low, mut high, mut step) = (guess, guess, 1);
    while is_up_to(high) {
        low = high + 1;
        high = (high + step).min(entries.len());
        step *= 2;
    }
    while low > 0 && !is_up_to(low - 1) {
        high = low - 1;
        low = low.saturating_sub(step);
        step *= 2;
    }
    let bracket = entries.get(low..high).unwrap_or_default();
    low + bracket.partition_point(|entry| entry.base_offset <= offset)
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
    match load(dir, header, end) {
        Some(index) => Ok(index),
        None => build(file, header, end),
    }
}

/// Whether the file with the index is missing or fits.
pub(crate) fn is_usable(dir: &Dir, header: &SegmentHeader, end: u64) -> Result<bool> {
    let name = names::index(header.base_offset, header.segment_id);
    let is_there = dir.open_if_there(&name, OpenMode::Read)?.is_some();
    Ok(!is_there || load(dir, header, end).is_some())
}

/// The index from its file. Whatever is wrong with the file, also that it cannot be read, makes it
/// no index, not an error.
fn load(dir: &Dir, header: &SegmentHeader, end: u64) -> Option<SparseIndex> {
    let name = names::index(header.base_offset, header.segment_id);
    let file = dir.open_if_there(&name, OpenMode::Read).ok()??;
    // No index of this segment is longer than one entry an interval and the header.
    let limit = 64 + 16 * (end / INDEX_INTERVAL_BYTES + 1);
    let size = file.size().ok().filter(|size| *size <= limit)?;
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    let read = file.read(&mut bytes, 0).ok()?;
    bytes.truncate(read);
    let entries = index::decode(&bytes, &expected(header, end)).ok()?;
    Some(SparseIndex { entries })
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

#[cfg(test)]
mod tests {
    use super::count_up_to;
    use crate::format::index::IndexEntry;
    use crate::units::Offset;
    use crate::units::Timestamp;
    use proptest::collection::btree_set;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    proptest! {
        /// Whatever the offsets, even or not, the guess ends where halving does.
        #[test]
        fn a_guess_finds_what_halving_finds(
            offsets in btree_set(any::<u64>(), 0..200),
            even in btree_set(0_u64..1000, 0..200),
            sought in any::<u64>(),
        ) {
            for (offsets, sought) in [(offsets, sought), (even, sought % 1100)] {
                let entry = |offset| IndexEntry {
                    base_offset: Offset::new(offset),
                    position: 72,
                    appended_at: Timestamp::ZERO,
                };
                let entries: Vec<_> = offsets.into_iter().map(entry).collect();
                let sought = Offset::new(sought);
                let halving = entries.partition_point(|entry| entry.base_offset <= sought);
                prop_assert_eq!(count_up_to(&entries, sought), halving);
            }
        }
    }
}
