//! A checkpoint: the durable part of a log, as another directory that opens as a log.
//!
//! Segments that are sealed never change again, so they get a second name in the target, or are
//! copied where there can be none. Of the segment that grows, what is durable is copied. In the
//! target every segment is sealed and the manifest says "closed", so nothing that is linked is ever
//! written to when the checkpoint is opened as a log: its next record begins a segment.
//!
//! The crash argument. Files come before the manifest that names them, and that goes last:
//!
//! 1. A manifest says of the target what it is: the checkpoint it was, or one that is not finished
//!    and does not open. It has given out all ids that are to come, so that files which a crash
//!    leaves behind are garbage to whoever opens the target.
//! 2. Segments come in. One that the manifest names is replaced only by a longer one with the same
//!    beginning, by a rename: the checkpoint before stays as good as it was. That the bytes are the
//!    same is seen before the first change: a log that was put back from a copy goes on in the same
//!    segment. Whether a name that the manifest does not name is durable nobody knows: it is made
//!    anew.
//! 3. The new manifest is put in its place. It makes the names durable before it does.
//! 4. Files that it does not name are removed.
//!
//! The positions of consumers come before and behind the third: see [`positions`].
//!
//! Wherever that ends, the target is the checkpoint before or the new one, and the same call goes
//! on from there.
//!
//! # Invariants
//!
//! - The target is a checkpoint of this log that nobody has changed: the manifest says so, and
//!   every other change of a manifest takes that back.
//! - The target is locked, and the files of the log are pinned, from before the look at the log.
//! - A file with more than one name is never written to again: no file of a segment that has gone
//!   is ever used for another one.

mod positions;
mod target;

use crate::checkpoint::positions::Positions;
use crate::checkpoint::target::Target;
use crate::commit::Commit;
use crate::commit::Snapshot;
use crate::consumers::Consumers;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Failure;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::manifest::Origin;
use crate::format::manifest::Row;
use crate::format::names;
use crate::manifest;
use crate::state::Segments;
use crate::storage::Dir;
use crate::storage::OpenMode;
use crate::units::Offset;

/// Makes `target` a checkpoint of the log; gives where it ends.
pub(crate) fn take(
    segments: &Segments,
    commit: &Commit,
    consumers: &Consumers,
    target: &Dir,
) -> Result<Offset> {
    let mut target = Target::lock(target, segments.state().manifest.log_id)?;
    let _pin = segments.pin();
    let (taken, positions) = look(segments, commit, consumers)?;
    let done = fill(segments.dir(), &mut target, &taken, &positions);
    // Somebody else may have opened the log and removed what had been pinned.
    commit.check_not_closed()?;
    done.map(|()| taken.manifest.end_offset())
}

/// The log at one moment, and positions of the same moment or before: of the same history, so that
/// what was truncated is not passed over.
fn look(
    segments: &Segments,
    commit: &Commit,
    consumers: &Consumers,
) -> Result<(Snapshot, Positions)> {
    loop {
        let epoch = segments.state().manifest.truncation_epoch;
        let positions = positions::of(consumers)?;
        let taken = commit.snapshot(segments)?;
        if taken.manifest.truncation_epoch == epoch {
            return Ok((taken, positions));
        }
    }
}

fn fill(source: &Dir, target: &mut Target, taken: &Snapshot, positions: &Positions) -> Result<()> {
    let rows = taken.manifest.rows.iter();
    // All are looked at before the first change: another log's target stays as it is.
    let needed = rows.map(|row| target.needs(source, row).map(|need| (row, need)));
    let needed: Vec<_> = needed.collect::<Result<_>>()?;
    target.reserve_ids(taken.manifest.next_segment_id)?;
    for (row, need) in needed {
        let grows = taken.growing.as_ref().is_some_and(|segment| segment.id() == row.segment_id);
        put(source, target.dir(), row, if grows { need.by_copying() } else { need })?;
    }
    let log_id = taken.manifest.log_id;
    positions::put(target.dir(), log_id, positions, target.bound(&taken.manifest))?;
    target.finish(Manifest { origin: Origin::Checkpoint, ..taken.manifest.clone() })?;
    positions::finish(target.dir(), log_id, positions)
}

/// What is to be done for the target to have a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    /// It comes under its name, which no manifest vouches for.
    Place(Means),
    /// It takes the place of a shorter one that the manifest names.
    Replace(Means),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// By a link if that is possible.
    Any,
    Copy,
}

impl Need {
    fn by_copying(self) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Place(_) => Self::Place(Means::Copy),
            Self::Replace(_) => Self::Replace(Means::Copy),
        }
    }
}

/// Brings the segment of a row into the target.
fn put(source: &Dir, target: &Dir, row: &Row, need: Need) -> Result<()> {
    let name = names::segment(row.base_offset, row.segment_id);
    let (means, new_name) = match need {
        Need::Nothing => return Ok(()),
        Need::Place(means) => (means, name.as_str()),
        Need::Replace(means) => (means, names::SEGMENT_NEXT),
    };
    match means {
        Means::Copy => {
            let file = source.open(&name, OpenMode::Read)?;
            target.copy(&file, row.byte_len, new_name)?;
        }
        Means::Any => {
            source.share(&name, target, new_name)?;
            let index = names::index(row.base_offset, row.segment_id);
            // A cache: without it the index is built anew.
            drop(source.share(&index, target, &index));
        }
    }
    if new_name == name { Ok(()) } else { target.rename(new_name, &name) }
}

/// Puts a manifest into a target, unless no log could read it.
fn replace(dir: &Dir, manifest: &Manifest) -> Result<()> {
    if let Err(error) = Manifest::decode(&manifest.encode()) {
        let what = format!("a bug: the manifest of the checkpoint makes no log ({error})");
        return Err(Error::new(ErrorKind::Io, what).with_path(dir.path()));
    }
    manifest::replace(dir, manifest).map_err(Failure::into_error)
}

fn refused(dir: &Dir, what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, what).with_path(dir.path())
}
