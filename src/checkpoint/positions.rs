//! The positions of consumers in a checkpoint.
//!
//! None leads behind the end of the log that the target is, whenever a crash comes: what is put
//! there before the new manifest fits the checkpoint before as well, and the rest follows behind
//! it. A crash in between leaves the new records with positions of before, which read some again.

use crate::consumers;
use crate::consumers::Consumers;
use crate::error::ErrorKind;
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

/// The consumers of a target.
#[derive(Debug)]
pub(super) struct Copies {
    all: Consumers,
    held: Vec<(Arc<consumers::Consumer>, Offset)>,
}

impl Copies {
    /// Puts the positions into a target, but none behind `bound`, where it ends until its manifest
    /// is replaced.
    pub(super) fn put(
        target: &Dir,
        log_id: u128,
        positions: &Positions,
        bound: Offset,
    ) -> Result<Self> {
        let all = Consumers::new(target, log_id);
        drop(all.take_back(bound)?);
        let mut held = Vec::new();
        for (name, position) in positions {
            let Some(position) = *position else { continue };
            let consumer = hold(&all, name, position.min(bound))?;
            all.commit(&consumer, position.min(bound), || Ok(()))?;
            held.push((consumer, position));
        }
        Ok(Self { all, held })
    }

    /// Puts them where they belong, now that the manifest says that there are records up to there,
    /// and removes those that the log has no more.
    pub(super) fn finish(self, positions: &Positions) -> Result<()> {
        for (consumer, position) in &self.held {
            self.all.commit(consumer, *position, || Ok(()))?;
            consumer.let_go();
        }
        for standing in self.all.list()? {
            if !positions.iter().any(|(name, _)| *name == standing.name) {
                self.all.remove(&standing.name)?;
            }
        }
        Ok(())
    }
}

/// Takes hold of one; what is damaged is made anew.
fn hold(all: &Consumers, name: &str, position: Offset) -> Result<Arc<consumers::Consumer>> {
    match all.hold(name, || position) {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            all.remove(name)?;
            all.hold(name, || position)
        }
        held => held,
    }
}
