//! The positions of consumers in a checkpoint.
//!
//! None leads behind the end of the log that the target is, or over records of it that nobody has
//! read, whenever a crash comes: what is put there before the new manifest fits the checkpoint
//! before as well, and the rest follows behind it. A crash in between leaves the new records with
//! positions of before, which read some again.
//!
//! Where the log has been truncated since the checkpoint before, its positions say nothing of the
//! records that are there now: they go back to the start first.

use crate::consumers;
use crate::consumers::Consumers;
use crate::error::ErrorKind;
use crate::error::Failure;
use crate::error::Result;
use crate::storage::Dir;
use crate::units::Offset;
use std::sync::Arc;

/// Where the consumers of the log stood when its records were looked at; of one whose position
/// cannot be read nothing is said.
pub(super) type Positions = Vec<(String, Option<Offset>)>;

pub(super) fn of(consumers: &Consumers) -> Result<Positions> {
    let standings = consumers.list()?.into_iter();
    Ok(standings.map(|standing| (standing.name, standing.committed)).collect())
}

/// What may be said of positions before the manifest of a target is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// Nobody relies on what is there; the new one ends here.
    Anew(Offset),
    /// They are of the same history, as far as the checkpoint before and the new one both go.
    End(Offset),
    /// Of another one: only how far they may stay.
    Start(Offset),
}

/// Puts the positions into a target as far as they fit what it is.
pub(super) fn put(target: &Dir, log_id: u128, positions: &Positions, bound: Bound) -> Result<()> {
    let all = Consumers::new(target, log_id);
    let (stay, end) = match bound {
        Bound::Anew(end) => (Offset::ZERO, end),
        Bound::End(end) => (end, end),
        Bound::Start(start) => return all.take_back(start).map(drop),
    };
    drop(all.take_back(stay)?);
    for (name, position) in positions {
        if let Some(position) = *position {
            commit(&all, name, position.min(end))?;
        }
    }
    Ok(())
}

/// Puts them where they belong, now that the manifest says that there are records up to there, and
/// removes those that the log has no more.
pub(super) fn finish(target: &Dir, log_id: u128, positions: &Positions) -> Result<()> {
    let all = Consumers::new(target, log_id);
    for (name, position) in positions {
        if let Some(position) = *position {
            commit(&all, name, position)?;
        }
    }
    for standing in all.list()? {
        if !positions.iter().any(|(name, _)| *name == standing.name) {
            all.remove(&standing.name)?;
        }
    }
    Ok(())
}

fn commit(all: &Consumers, name: &str, position: Offset) -> Result<()> {
    let consumer = hold(all, name, position)?;
    let committed = all.commit(&consumer, position, |_| Ok(()));
    consumer.let_go();
    committed.map(drop)
}

/// Takes hold of one; what is damaged is made anew.
fn hold(all: &Consumers, name: &str, position: Offset) -> Result<Arc<consumers::Consumer>> {
    // Nobody else changes a target.
    all.make_dir().map_err(Failure::into_error)?;
    match all.hold(name, || position) {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            all.remove(name)?;
            all.hold(name, || position)
        }
        held => held,
    }
}
