//! The segments that were begun behind the last row of a manifest, as recovery finds them.
//!
//! They get rows, as long as one looks: a manifest gives a segment a row of its own only when its
//! header and its name are durable, of which nobody knows here. So a repair that writes a manifest
//! writes what is in them into new segments.

use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::manifest::Prepared;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::format::names;
use crate::segment;
use crate::state::begun_row;
use crate::state::follows;
use crate::state::row_at;
use crate::storage::Dir;
use crate::storage::Handle;
use crate::storage::OpenMode;
use crate::tools::assess::correct;
use crate::tools::plan::Fate;
use crate::tools::plan::Part;
use crate::tools::survey;
use crate::tools::survey::Content;
use crate::tools::survey::SegmentFile;
use crate::units::Offset;
use std::mem;

/// What became of the segments that a manifest calls prepared, besides those that got rows.
#[derive(Debug, Default)]
pub(super) struct Begun {
    /// The rows of the manifest, and theirs.
    pub(super) rows: Vec<Row>,
    /// Those whose files are not there.
    pub(super) missing: Vec<u64>,
    /// The highest durable mark in files that have no place behind the others.
    pub(super) stray_mark: Offset,
}

/// Gives rows to those that were begun, and the segment before them its end.
pub(super) fn find(dir: &Dir, manifest: &Manifest, files: &mut Vec<SegmentFile>) -> Result<Begun> {
    let mut manifest = manifest.clone();
    let mut begun = Begun::default();
    let mut found = Vec::new();
    let mut highest = Offset::ZERO;
    for prepared in mem::take(&mut manifest.prepared) {
        let id = prepared.segment_id;
        let Some(file) = open(dir, files, manifest.log_id, &prepared)? else {
            begun.missing.push(id);
            continue;
        };
        let known = files.iter().find(|file| file.id == id);
        let (mark, has_bytes) = segment::highest_mark(&file, prepared.seed, file.size()?)?;
        let mark = mark.unwrap_or(Offset::ZERO);
        highest = highest.max(mark);
        match (begun_row(&file, manifest.log_id, &prepared)?, known) {
            (Some(row), _) => found.push((row, mark, true)),
            (None, Some(known)) if has_bytes => found.push((row_at(id, known.base), mark, false)),
            (None, _) => begun.stray_mark = begun.stray_mark.max(mark),
        }
    }
    found.sort_by_key(|(row, ..)| row.base_offset);
    for (row, mark, is_sound) in found {
        // A header that no sync covered may be lost, and all behind it with it.
        let was_durable = is_sound || highest > row.base_offset;
        if !was_durable || !follows(&manifest, row.base_offset) {
            begun.stray_mark = begun.stray_mark.max(mark);
            continue;
        }
        end_last(dir, &mut manifest, files, row.base_offset)?;
        manifest.rows.push(row);
    }
    Ok(Begun { rows: manifest.rows, ..begun })
}

/// The file of a prepared segment. It gets its name and header when it is begun, perhaps since the
/// directory was listed, or so that neither name was seen.
fn open(
    dir: &Dir,
    files: &mut Vec<SegmentFile>,
    log_id: u128,
    prepared: &Prepared,
) -> Result<Option<Handle>> {
    let id = prepared.segment_id;
    let mut file = None;
    for _ in 0..2 {
        let own = |file: &&SegmentFile| {
            let own = (log_id, id, prepared.seed);
            let header = file.header.as_ref();
            header.is_some_and(|header| (header.log_id, header.segment_id, header.seed) == own)
        };
        let known = files.iter().find(own);
        let is_begun = known.is_some();
        let known = known.or_else(|| files.iter().find(|file| file.id == id));
        let name = known.map_or_else(|| names::prepared(id), |file| file.name.clone());
        file = dir.open_if_there(&name, OpenMode::Read)?;
        if let Some(there) = &file
            && (is_begun || begun_row(there, log_id, prepared)?.is_none())
        {
            break;
        }
        files.retain(|file| file.id != id);
        files.extend(survey::list(dir)?.0.into_iter().filter(|file| file.id == id));
    }
    Ok(file)
}

/// Ends the active row where the next one begins, wherever that is in its file, which does not grow
/// any more and may have grown since it was listed.
fn end_last(
    dir: &Dir,
    manifest: &mut Manifest,
    files: &mut [SegmentFile],
    end: Offset,
) -> Result<()> {
    let Some(row) = manifest.rows.last_mut().filter(|row| row.is_active()) else { return Ok(()) };
    (row.state, row.end_offset, row.byte_len) = (RowState::Written, end, u64::MAX);
    let is_its = |file: &&mut SegmentFile| {
        let header_id = file.header.map(|header| header.segment_id);
        file.id == row.segment_id || header_id == Some(row.segment_id)
    };
    for file in files.iter_mut().filter(is_its) {
        if let Some(there) = dir.open_if_there(&file.name, OpenMode::Read)? {
            file.size = there.size()?;
        }
    }
    Ok(())
}

/// For a repair that writes a manifest: what is not known to be durable is written anew, up to the
/// first place where a crash has left off.
pub(super) fn copy_unproven<'a>(
    parts: &mut Vec<Part>,
    contents: impl Iterator<Item = &'a Content>,
) {
    let mut left_off = None;
    for (place, (part, content)) in parts.iter_mut().zip(contents).enumerate() {
        if part.fate != Fate::Keep || part.row.state == RowState::Sealed {
            continue;
        }
        let ends_early = !part.row.is_active() && content.end < part.row.end_offset;
        part.fate = Fate::Copy;
        part.grows_to = None;
        part.row.end_offset = content.end;
        part.row.byte_len = content.end_position;
        part.row.state = RowState::Sealed;
        correct(&mut part.row, content);
        if ends_early {
            left_off = Some(place + 1);
            break;
        }
    }
    parts.truncate(left_off.unwrap_or(usize::MAX));
}
