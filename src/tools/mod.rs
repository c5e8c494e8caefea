//! Looking at a log without opening it, and repairing one that does not open or cannot be read.
//!
//! [`verify`] reads everything: each frame's checksums and place, what the manifest says of each
//! segment, which files are missing or too many. The same look makes the plan of [`repair`], which
//! is carried out by `apply.rs` (with the crash argument). What becomes of a segment is decided in
//! `assess.rs` where the manifest is sound, else in `rebuild.rs` and `chain.rs`.

mod apply;
mod assess;
mod chain;
mod plan;
mod rebuild;
mod report;
mod seed;
mod survey;
mod walk;

pub use plan::Keep;
pub use report::Damage;
pub use report::RepairReport;
pub use report::VerifyReport;

use crate::commit::Board;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::manifest::Origin;
use crate::format::names;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::storage::Dir;
use crate::storage::FsStorage;
use crate::storage::LockGuard;
use crate::storage::Storage;
use crate::tools::plan::Plan;
use crate::tools::survey::Listed;
use crate::tools::survey::survey;
use crate::units::Position;
use crate::units::Timestamp;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How often a log that is written to is looked at again before damage is believed.
const LOOKS_MAX: usize = 20;

/// How [`verify`] looks.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    storage: Arc<dyn Storage>,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { storage: Arc::new(FsStorage::new()) }
    }
}

impl VerifyOptions {
    /// All defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the files are; the file system by default.
    #[must_use]
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = storage;
        self
    }
}

/// How [`repair`] repairs.
#[derive(Clone, Debug)]
pub struct RepairOptions {
    storage: Arc<dyn Storage>,
    keep: Keep,
}

impl Default for RepairOptions {
    fn default() -> Self {
        Self { storage: Arc::new(FsStorage::new()), keep: Keep::default() }
    }
}

impl RepairOptions {
    /// All defaults: everything that can be read stays.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the files are; the file system by default.
    #[must_use]
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = storage;
        self
    }

    /// What stays.
    #[must_use]
    pub fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }
}

/// Reads all of the log in the directory `path` and tells what is damaged, what is left, and what
/// [`repair`] would do. Changes nothing and takes no lock: the log may be open and written to.
/// Takes time for all of it, and memory for one frame and some numbers a segment.
///
/// # Errors
///
/// [`Io`](ErrorKind::Io) if there is no log, or if anything of a segment or of the manifest cannot
/// be read: the error names the file, and says nothing about its bytes, so that is no damage.
/// What to do then is in `docs/RECOVERY.md`. [`UnsupportedVersion`](ErrorKind::UnsupportedVersion).
/// Damage is no error, but in the report.
///
/// # Examples
///
/// ```
/// # use std::sync::Arc;
/// # use stratalog::{storage::MemoryStorage, Options, VerifyOptions};
/// # let storage = Arc::new(MemoryStorage::new());
/// # let log = Options::new().storage(storage.clone()).open("orders")?;
/// # log.append("a")?;
/// # let options = VerifyOptions::new().storage(storage);
/// let report = stratalog::verify("orders", &options)?;
/// assert!(report.is_sound(), "{report}");
/// # Ok::<(), stratalog::Error>(())
/// ```
pub fn verify(path: impl AsRef<Path>, options: &VerifyOptions) -> Result<VerifyReport> {
    let dir = directory(path.as_ref(), &options.storage)?;
    let mut looks = 0;
    loop {
        let before = manifest_now(&dir);
        let looked = look(&dir);
        looks += 1;
        let is_settled = match &looked {
            Ok(look) => look.report.is_sound() || !look.has_changed(&dir),
            // A segment was removed between two looks at it; what cannot be read stays so.
            Err(error) => !is_missing(error) && manifest_now(&dir) == before,
        };
        if is_settled || looks == LOOKS_MAX {
            return looked.map(|look| look.report);
        }
    }
}

/// Repairs the log in the directory `path`, which nobody may have open: afterwards it opens, and
/// everything that could be read is read without an error, at its offset. What is lost leaves
/// holes, as compaction does, or ends the log, if [`Keep::Prefix`] is asked for. Damaged files are
/// kept in a directory `damaged-...` beside the segments; nothing is destroyed. A manifest that is
/// missing or damaged is made from the segments; the report says what they do not tell.
///
/// A log without damage is not touched. A repair that was cut off is finished by the next. Needs
/// space for one copy of each damaged segment. [`verify`] tells beforehand what will be done.
///
/// # Errors
///
/// [`Locked`](ErrorKind::Locked) if the log is open;
/// [`Corrupt`](ErrorKind::Corrupt) if nothing that makes a log is left, or no number for what is to
/// be written; otherwise as [`verify`], and [`StorageFull`](ErrorKind::StorageFull).
///
/// # Examples
///
/// ```
/// # use std::sync::Arc;
/// # use stratalog::{storage::MemoryStorage, Options, RepairOptions};
/// # let storage = Arc::new(MemoryStorage::new());
/// # Options::new().storage(storage.clone()).open("orders")?.close()?;
/// # let options = RepairOptions::new().storage(storage);
/// let report = stratalog::repair("orders", &options)?;
/// assert!(report.found().is_sound());
/// # Ok::<(), stratalog::Error>(())
/// ```
pub fn repair(path: impl AsRef<Path>, options: &RepairOptions) -> Result<RepairReport> {
    let dir = directory(path.as_ref(), &options.storage)?;
    // Locking makes a file, which has no place where there is no log.
    look(&dir)?;
    let lock = lock(&dir)?;
    // A rename that a crash left undecided is decided now, before anything depends on it.
    dir.sync()?;
    let mut look = look(&dir)?;
    if options.keep == Keep::Prefix {
        look.plan.keep_prefix();
        look.report.end = look.plan.end();
        look.report.plan = look.plan.steps();
    }
    let set_aside = match look.plan.is_empty() {
        true => None,
        false => {
            // It keeps the lock, and readers elsewhere look anew.
            let _board = Board::new(lock, Timestamp::ZERO);
            apply::apply(&dir, &look.plan)?
        }
    };
    Ok(RepairReport { found: look.report, set_aside })
}

fn manifest_now(dir: &Dir) -> Option<Manifest> {
    crate::manifest::read(dir).ok().flatten()
}

fn is_missing(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::NotFound)
}

/// One look at everything.
struct Look {
    report: VerifyReport,
    plan: Plan,
    manifest: Listed,
}

impl Look {
    /// Whether the log is another one by now.
    fn has_changed(&self, dir: &Dir) -> bool {
        match (&self.manifest, crate::manifest::read(dir)) {
            (Listed::Sound(before), Ok(Some(now))) => *before != now,
            (Listed::Sound(_), _) | (_, Ok(Some(_))) => true,
            _ => false,
        }
    }
}

fn look(dir: &Dir) -> Result<Look> {
    let survey = survey(dir)?;
    if survey.files.is_empty() && matches!(survey.manifest, Listed::Missing) {
        let source = io::ErrorKind::NotFound.into();
        return Err(Error::io("there is no log here", dir.path(), source));
    }
    let mut report = VerifyReport::default();
    let mut tell = |what: String| {
        let (path, position) = (dir.path_of(names::MANIFEST), Some(Position::new(0)));
        let offsets = crate::units::Offset::ZERO..crate::units::Offset::ZERO;
        report.damage.push(Damage { path, position, offsets, what });
    };
    let old = match &survey.manifest {
        Listed::Sound(manifest) if manifest.origin == Origin::Unfinished => {
            let what = "the checkpoint was not finished, so there is no log yet; take it again";
            return Err(Error::new(ErrorKind::Corrupt, what).with_path(dir.path()));
        }
        Listed::Sound(manifest) => Some(manifest),
        Listed::Missing => {
            tell("the manifest is missing".to_owned());
            None
        }
        Listed::Damaged(error) => {
            tell(error.what().to_owned());
            None
        }
    };
    // A segment that was never named holds no record.
    let is_newer = |manifest: &Manifest| {
        let long = survey.files.iter().filter(|file| file.size > SEGMENT_HEADER_LEN as u64);
        long.into_iter().any(|file| file.id >= manifest.next_segment_id)
    };
    let keeps_manifest = old.is_some_and(|manifest| !is_newer(manifest));
    let plan = match old {
        Some(manifest) if keeps_manifest => {
            assess::by_manifest(dir, manifest.clone(), &survey.files, &mut report)?
        }
        old => {
            if old.is_some() {
                tell("the manifest is older than a segment".to_owned());
            }
            rebuild::by_segments(dir, &survey, old, &mut report)?
        }
    };
    report.start = plan.manifest.start_offset;
    report.end = plan.end();
    report.segments = plan.parts.len() as u64;
    report.plan = plan.steps();
    Ok(Look { report, plan, manifest: survey.manifest })
}

fn directory(path: &Path, storage: &Arc<dyn Storage>) -> Result<Dir> {
    let path = std::path::absolute(path)
        .map_err(|error| Error::io("cannot make absolute", path, error))?;
    Ok(Dir::new(Arc::clone(storage), path))
}

fn lock(dir: &Dir) -> Result<Box<dyn LockGuard>> {
    let path = dir.path_of(names::LOCK);
    dir.storage().lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let what = "the log is open; close it before it is repaired";
            Error::new(ErrorKind::Locked, what).with_path(&path)
        }
        _ => Error::io("cannot lock", &path, error),
    })
}
