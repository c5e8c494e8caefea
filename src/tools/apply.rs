//! Carrying out a plan.
//!
//! The crash argument. Nothing that was there is destroyed, and wherever it ends, the next repair
//! finishes it:
//!
//! 1. Every file that is to go gets a second name, or a copy, in a directory of its own, durably.
//! 2. What a manifest will call sealed, and nothing proves durable, is written anew, byte for byte
//!    in its place, and synced, as recovery does: the process that wrote it may be gone, and the
//!    disk may not have it. A crash leaves the same bytes, or fewer that nothing proves.
//!    Positions of consumers go back to where the log will end.
//! 3. A manifest gives out the ids of the segments that are to be written, so that what a crash
//!    leaves of them is garbage. It is the one that was there; if there was none, it says what the
//!    segments told, and the next repair goes by it. Then every segment is sealed in it, also
//!    those that are to go, so those have been written anew in step 2 too: whoever opens what a
//!    repair has left half done is shown what stays.
//! 4. What can be read is written into new segments, and they are synced.
//! 5. One manifest names them in the place of the others.
//! 6. The files that were set aside go from the directory of the log.

use crate::compaction::output::Output;
use crate::consumers;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Failure;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::manifest::Origin;
use crate::format::manifest::Row;
use crate::format::names;
use crate::format::names::Name;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::manifest;
use crate::segment::NewSegment;
use crate::segment::Records;
use crate::state::write_anew;
use crate::storage::Dir;
use crate::storage::OpenMode;
use crate::tools::plan::Fate;
use crate::tools::plan::Part;
use crate::tools::plan::Plan;
use crate::tools::plan::Standing;
use crate::tools::walk::Found;
use crate::tools::walk::Stretch;
use crate::tools::walk::walk;
use std::ffi::OsStr;
use std::path::PathBuf;

/// Does what the plan says; gives the directory with what was set aside.
pub(super) fn apply(dir: &Dir, plan: &Plan) -> Result<Option<PathBuf>> {
    let mut going: Vec<&str> = plan.aside.iter().map(String::as_str).collect();
    let rewritten = plan.parts.iter().filter(|part| part.fate == Fate::Rewrite);
    going.extend(rewritten.filter_map(|part| Some(part.source.as_ref()?.0.as_str())));
    let set_aside = set_aside(dir, &going, plan.standing)?;

    confirm(dir, plan)?;
    // Before any manifest says that the log ends there.
    consumers::take_back_to(dir, plan.manifest.log_id, plan.end())?;
    let first_id = plan.manifest.next_segment_id;
    let count = plan.parts.iter().filter(|part| part.fate == Fate::Rewrite).count() as u64;
    let Some(next_segment_id) = first_id.checked_add(count) else {
        let what = "no segment can be written anew, for there is no number left for one";
        return Err(Error::new(ErrorKind::Corrupt, what).with_path(dir.path()));
    };
    let before = Manifest { next_segment_id, closed: false, ..plan.manifest.clone() };
    replace(dir, &before)?;

    let mut rows: Vec<Row> = Vec::new();
    let mut id = first_id;
    for part in &plan.parts {
        let row = match part.fate {
            Fate::Keep | Fate::Confirm => part.row,
            Fate::Rewrite => {
                id += 1;
                rewrite(dir, part, id - 1, rows.last(), plan.manifest.log_id)?
            }
        };
        rows.push(row);
    }
    replace(dir, &Manifest { rows, ..before })?;

    for name in going {
        dir.remove(name)?;
        if let Some(Name::Segment { base_offset, segment_id }) = names::parse(OsStr::new(name)) {
            dir.remove(&names::index(base_offset, segment_id))?;
        }
    }
    dir.sync()?;
    Ok(set_aside)
}

/// Makes durable what the next manifest calls sealed without a proof.
fn confirm(dir: &Dir, plan: &Plan) -> Result<()> {
    let is_made = plan.standing == Standing::Useless;
    let is_unproven = |part: &&Part| match part.fate {
        Fate::Keep => false,
        Fate::Confirm => true,
        // A manifest that was there still says of it what it said.
        Fate::Rewrite => is_made,
    };
    for Part { row, source, .. } in plan.parts.iter().filter(is_unproven) {
        let Some((name, _)) = source else { continue };
        let file = dir.open(name, OpenMode::Write)?;
        let end = file.size()?.min(row.byte_len);
        write_anew(&file, (SEGMENT_HEADER_LEN as u64).min(end), end)?;
    }
    Ok(())
}

/// Keeps what is to go, durably.
fn set_aside(dir: &Dir, going: &[&str], manifest: Standing) -> Result<Option<PathBuf>> {
    let has_manifest = dir.open_if_there(names::MANIFEST, OpenMode::Read)?.is_some();
    let is_useless = has_manifest && manifest == Standing::Useless;
    let old_manifest = is_useless.then_some(names::MANIFEST);
    if going.is_empty() && old_manifest.is_none() {
        return Ok(None);
    }
    let listed = dir.list()?;
    let numbers = listed.iter().filter_map(|entry| names::damaged_number(&entry.name));
    let last = numbers.max().unwrap_or(0);
    let Some(number) = last.checked_add(1) else {
        let what = "the damaged files need a directory with a higher number than that; rename it";
        return Err(
            Error::new(ErrorKind::Corrupt, what).with_path(&dir.path_of(&names::damaged(last)))
        );
    };
    let aside = Dir::new(dir.storage().clone(), dir.path_of(&names::damaged(number)));
    let made = dir.storage().create_dir(aside.path());
    made.map_err(|error| Error::io("cannot make the directory", aside.path(), error))?;
    for name in going.iter().copied().chain(old_manifest) {
        dir.share(name, &aside, name)?;
    }
    aside.sync()?;
    Ok(Some(aside.path().to_owned()))
}

/// Writes what can be read of a segment into a new one.
fn rewrite(dir: &Dir, part: &Part, id: u64, previous: Option<&Row>, log_id: u128) -> Result<Row> {
    let Part { row, source, .. } = part;
    let new = NewSegment::new(id, row.base_offset, dir.storage().random());
    let mut output = Output::create(dir, new, previous, log_id)?;
    if let Some((name, seed)) = source {
        let file = dir.open(name, OpenMode::Read)?;
        // A segment that was cut back ends inside a frame: the records tell what belongs to it.
        let (base, end) = (row.base_offset, None);
        let end_position = file.size()?.min(row.byte_len);
        let stretch = Stretch { seed: *seed, base, end_position, end };
        walk(&file, stretch, |found| {
            let Found::Frame { header, body, .. } = found else { return Ok(()) };
            for placed in Records::new(body, &header).flatten() {
                if placed.offset < row.end_offset {
                    output.record(&placed, body.get(placed.at..placed.end).unwrap_or_default())?;
                }
            }
            Ok(())
        })?;
    }
    let written = output.finish(row.end_offset)?;
    let last_appended_at = written.last_appended_at.max(written.first_appended_at);
    let tombstone_count = match row.compacted_at {
        Some(_) => row.tombstone_count.min(written.record_count),
        None => 0,
    };
    Ok(Row { last_appended_at, tombstone_count, compacted_at: row.compacted_at, ..written })
}

/// Puts a manifest in its place, unless no log could read it.
fn replace(dir: &Dir, next: &Manifest) -> Result<()> {
    let next = Manifest { origin: Origin::Log, ..next.clone() };
    if let Err(error) = Manifest::decode(&next.encode()) {
        let what = format!("what the segments say makes no log ({error}); nothing was replaced");
        return Err(Error::new(ErrorKind::Corrupt, what).with_path(dir.path()));
    }
    manifest::replace(dir, &next).map_err(Failure::into_error)
}
