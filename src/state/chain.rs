//! The segments that were begun behind the last row of a manifest, of those it calls prepared.
//!
//! Found by their headers and put in a chain: each begins where the one before ends. What is in the
//! file of one that is not in the chain was written, and something before it was lost: its frames
//! still tell what was durable, by the seed that the manifest knows.

use crate::bugs::Bug;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::manifest::Prepared;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::format::names;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::format::segment::SegmentHeader;
use crate::segment;
use crate::storage::Dir;
use crate::storage::Handle;
use crate::storage::OpenMode;
use crate::units::Offset;
use crate::units::Timestamp;

/// What became of the segments that a manifest calls prepared.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Those that were begun where they can have been, in the order of their offsets.
    pub(super) begun: Vec<Prepared>,
    /// The first file with bytes that is not in the chain.
    pub(super) lost: Option<Handle>,
    /// How many bytes such files have.
    pub(super) lost_bytes: u64,
    /// The highest durable mark in such files.
    pub(super) mark: Option<Offset>,
}

/// A file of a prepared segment.
struct Found {
    prepared: Prepared,
    file: Handle,
    /// Its header, if it is sound and its own.
    header: Option<SegmentHeader>,
}

/// Looks at the prepared segments of `manifest`, whose files have these names; those that were
/// begun get a row behind the others. Changes nothing on the disk.
pub(super) fn find(dir: &Dir, manifest: &mut Manifest, files: &[String]) -> Result<Chain> {
    let prepared = std::mem::take(&mut manifest.prepared);
    let mut found = Vec::new();
    for (prepared, name) in prepared.into_iter().zip(files) {
        if Bug::PreparedLeftOut.is_on() {
            break;
        }
        let file = dir.open(name, OpenMode::Write)?;
        let header = own_header(&file, manifest.log_id, &prepared)?;
        found.push(Found { prepared, file, header });
    }
    found.sort_by_key(|found| found.header.map(|header| header.base_offset));
    let mut chain = Chain::default();
    for found in found {
        match found.header.filter(|header| follows(manifest, header.base_offset)) {
            Some(header) => {
                manifest.rows.push(row_at(header.segment_id, header.base_offset));
                chain.begun.push(found.prepared);
            }
            None => chain.lose(found)?,
        }
    }
    Ok(chain)
}

impl Chain {
    fn lose(&mut self, found: Found) -> Result<()> {
        let size = found.file.size()?;
        let (mark, has_bytes) = segment::highest_mark(&found.file, found.prepared.seed, size)?;
        if has_bytes {
            self.lost_bytes += size;
            self.mark = self.mark.max(mark.filter(|_| !Bug::BegunMarksIgnored.is_on()));
            self.lost.get_or_insert(found.file);
        }
        Ok(())
    }

    /// Whether the segment of a row was begun behind the rows of the manifest.
    pub(super) fn has(&self, row: &Row) -> bool {
        self.begun.iter().any(|begun| begun.segment_id == row.segment_id)
    }

    /// Refuses damage in what is not in the chain if that was durable: the log ends at `end`.
    pub(super) fn check_lost(&self, end: Offset) -> Result<()> {
        match &self.lost {
            Some(file) if self.mark > Some(end) => {
                let what = "durable records are damaged (the segment's header, or what comes \
                            before it); restore the file, or repair the log and lose them";
                let error = Error::new(ErrorKind::Corrupt, what).with_path(file.path());
                Err(error.with_position(0).with_offset(end))
            }
            _ => Ok(()),
        }
    }

    /// Gives the files of those that were begun, and stay, the names of segments. The next sync of
    /// the directory makes them last.
    pub(super) fn name_files(&self, dir: &Dir, rows: &[Row]) -> Result<()> {
        for row in rows.iter().filter(|row| self.has(row)) {
            let before = names::prepared(row.segment_id);
            let after = names::segment(row.base_offset, row.segment_id);
            if dir.open_if_there(&before, OpenMode::Read)?.is_none() {
                // A sync that failed may have lost the name that is seen: it is given anew.
                dir.rename(&after, &before)?;
            }
            dir.rename(&before, &after)?;
        }
        Ok(())
    }
}

/// The header of a prepared segment, if it was begun and the header is sound.
fn own_header(file: &Handle, log_id: u128, prepared: &Prepared) -> Result<Option<SegmentHeader>> {
    let mut bytes = [0; SEGMENT_HEADER_LEN];
    let len = file.read(&mut bytes, 0)?;
    let header = SegmentHeader::decode(bytes.get(..len).unwrap_or_default()).ok();
    let own = (log_id, prepared.segment_id, prepared.seed);
    Ok(header.filter(|header| (header.log_id, header.segment_id, header.seed) == own))
}

/// Whether a segment that begins at `base` can be the next one. Where the active one ends is not
/// known yet; behind its beginning, since it had records.
pub(crate) fn follows(manifest: &Manifest, base: Offset) -> bool {
    match manifest.rows.last() {
        Some(row) if row.state == RowState::Active => {
            base >= row.end_offset && base > row.base_offset
        }
        _ => base == manifest.end_offset(),
    }
}

/// The row that a manifest would have had when a prepared segment was begun, if it was and its
/// header is sound.
pub(crate) fn begun_row(file: &Handle, log_id: u128, prepared: &Prepared) -> Result<Option<Row>> {
    let header = own_header(file, log_id, prepared)?;
    Ok(header.map(|header| row_at(header.segment_id, header.base_offset)))
}

/// The row of a segment that was begun, and of which no more is known.
pub(crate) fn row_at(segment_id: u64, base_offset: Offset) -> Row {
    Row {
        segment_id,
        base_offset,
        end_offset: base_offset,
        byte_len: SEGMENT_HEADER_LEN as u64,
        first_appended_at: Timestamp::ZERO,
        last_appended_at: Timestamp::ZERO,
        record_count: 0,
        state: RowState::Active,
        compacted_at: None,
        tombstone_count: 0,
    }
}
