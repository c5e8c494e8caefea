//! What [`verify`](crate::verify) and [`repair`](crate::repair) tell.

use crate::units::Offset;
use crate::units::Position;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A place where a log is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file; one that is missing, too.
    pub path: PathBuf,
    /// Where in the file it begins.
    pub position: Option<Position>,
    /// The offsets that cannot be read. Empty if all records are there.
    pub offsets: Range<Offset>,
    /// What is wrong, for people.
    pub what: String,
}

/// What is in the directory of a log, and what a repair would do. Its `Display` has a line for each
/// damage, note and step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    pub(super) start: Offset,
    pub(super) end: Offset,
    pub(super) segments: u64,
    pub(super) records: u64,
    pub(super) damage: Vec<Damage>,
    pub(super) notes: Vec<String>,
    pub(super) plan: Vec<String>,
}

impl VerifyReport {
    /// Whether nothing is damaged. A torn tail, leftover files and indexes that do not fit are no
    /// damage: opening the log takes care of them.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }

    /// What is damaged, in the order of files. Of a segment with very much damage, the first
    /// places are there, and one for the rest.
    #[must_use]
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// The offset of the first record, as far as that can be told.
    #[must_use]
    pub fn start_offset(&self) -> Offset {
        self.start
    }

    /// Where the log ends, or would after a repair; with [`Keep::Prefix`](crate::Keep::Prefix) in
    /// front of the first loss.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.end
    }

    /// How many segments there are, those that are missing included.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// How many records are sound. Those below the start in its segment are among them.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// What is no damage, but somebody may want to know: what opening will cut off or remove, and
    /// what cannot be told.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What [`repair`](crate::repair) does, step by step. Empty if there is nothing to repair.
    #[must_use]
    pub fn plan(&self) -> &[String] {
        &self.plan
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end, segments, records, damage, notes, plan } = self;
        write!(f, "{records} sound records in {segments} segments, offsets {start} to {end}")?;
        for Damage { path, position, offsets, what } in damage {
            write!(f, "\ndamage: {what}, file {}", path.display())?;
            if let Some(position) = position {
                write!(f, ", position {position}")?;
            }
            if !offsets.is_empty() {
                write!(f, ", offsets {} to {} are lost", offsets.start, offsets.end)?;
            }
        }
        notes.iter().try_for_each(|note| write!(f, "\nnote: {note}"))?;
        plan.iter().try_for_each(|step| write!(f, "\nrepair: {step}"))
    }
}

/// What a repair found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    pub(super) found: VerifyReport,
    pub(super) set_aside: Option<PathBuf>,
}

impl RepairReport {
    /// What was found before anything was done, and the steps that were taken.
    #[must_use]
    pub fn found(&self) -> &VerifyReport {
        &self.found
    }

    /// The directory with the damaged files as they were; `None` if none had to be set aside.
    #[must_use]
    pub fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }
}

impl fmt::Display for RepairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.found.fmt(f)?;
        match &self.set_aside {
            Some(path) => write!(f, "\nset aside: {}", path.display()),
            None => Ok(()),
        }
    }
}
