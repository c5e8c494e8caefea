//! The one error type: what went wrong, where, and what the caller can do about it.

use crate::units::Offset;
use crate::units::Position;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and why.
///
/// One word wide and cheap to clone, since every waiter of a failed sync gets the same one.
/// [`kind`](Error::kind) tells what to do; the other accessors state the facts. The text is for
/// people and may change.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use stratalog::storage::MemoryStorage;
/// use stratalog::{ErrorKind, Offset, Options, Seek};
///
/// let log = Options::new().storage(Arc::new(MemoryStorage::new())).open("orders")?;
/// log.append("a")?;
/// let error = log.cursor(Seek::Offset(Offset::from(7))).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::OutOfRange);
/// assert_eq!(error.offset(), Some(Offset::from(1)));
/// # Ok::<(), stratalog::Error>(())
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

/// The kinds of [`Error`]: one for each thing a caller would do differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused: permissions, a missing directory, too many open files.
    /// Mend the cause and call again.
    Io,
    /// There is no space on the disk (or in the quota). Nothing of the call is in the log, unless
    /// [`Error::offset`] says where it is. Make room and call again; reading goes on meanwhile.
    StorageFull,
    /// Bytes on the disk are not what was written there. Nothing was changed. Restore the file, or
    /// read on behind the damage at [`Error::readable_from`].
    Corrupt,
    /// The log was written by a newer version of the format. Use a newer version of the crate.
    UnsupportedVersion,
    /// The offset is outside the log; [`Error::offset`] is the nearest one inside.
    OutOfRange,
    /// The log does not end where the caller said it does; [`Error::offset`] is its end.
    Conflict,
    /// The record or batch is larger than `max_batch_bytes`. The log is unharmed.
    TooLarge,
    /// An option or argument makes no sense; the text says which and why.
    InvalidInput,
    /// Another writer, in this process or another, has the log open.
    Locked,
    /// A write or sync failed earlier, so nothing can be appended until the log is opened anew.
    /// Reading goes on. The source is the first failure.
    Poisoned,
    /// The log was closed.
    Closed,
}

/// Building one, inside the crate.
impl Error {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            what: what.into(),
            path: None,
            position: None,
            offset: None,
            readable_from: None,
            source: None,
        }))
    }

    /// An I/O error with the operation and the file it failed on.
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::StorageFull,
            _ => ErrorKind::Io,
        };
        Self::new(kind, operation).with_path(path).with(|inner| {
            inner.source = Some(Arc::new(source));
        })
    }

    /// The error every call gets after `first` made the writer unusable.
    pub(crate) fn poisoned(first: Self) -> Self {
        Self::new(
            ErrorKind::Poisoned,
            "an earlier write or sync failed; close the log and open it again",
        )
        .with(|inner| {
            inner.path.clone_from(&first.0.path);
            inner.position = first.0.position;
            inner.source = Some(Arc::new(first));
        })
    }

    /// What happened, without the place.
    pub(crate) fn what(&self) -> &str {
        &self.0.what
    }

    pub(crate) fn with_path(self, path: &Path) -> Self {
        self.with(|inner| inner.path = Some(path.to_owned()))
    }

    pub(crate) fn with_position(self, position: u64) -> Self {
        self.with(|inner| inner.position = Some(Position::new(position)))
    }

    pub(crate) fn with_offset(self, offset: Offset) -> Self {
        self.with(|inner| inner.offset = Some(offset))
    }

    /// For a call that is about another record than the one the error is about.
    pub(crate) fn without_offset(self) -> Self {
        self.with(|inner| inner.offset = None)
    }

    pub(crate) fn with_readable_from(self, offset: Offset) -> Self {
        self.with(|inner| inner.readable_from = Some(offset))
    }

    /// With the error that it came of.
    pub(crate) fn caused_by(self, source: Self) -> Self {
        let path = source.0.path.clone();
        self.with(|inner| {
            inner.path = path;
            inner.source = Some(Arc::new(source));
        })
    }

    fn with(mut self, edit: impl FnOnce(&mut Inner)) -> Self {
        edit(Arc::make_mut(&mut self.0));
        self
    }
}

/// The facts.
impl Error {
    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file or directory it happened on.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The byte position in [`path`](Error::path) where the trouble begins.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.0.position
    }

    /// The offset the error is about; each [`ErrorKind`] says which one.
    #[must_use]
    pub fn offset(&self) -> Option<Offset> {
        self.0.offset
    }

    /// For damage met while reading: the first offset behind it that can be read.
    #[must_use]
    pub fn readable_from(&self) -> Option<Offset> {
        self.0.readable_from
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind: _, what, path, position, offset, readable_from, source } = &*self.0;
        f.write_str(what)?;
        if let Some(path) = path {
            write!(f, ", file {}", path.display())?;
        }
        if let Some(position) = position {
            write!(f, ", position {position}")?;
        }
        if let Some(offset) = offset {
            write!(f, ", offset {offset}")?;
        }
        if let Some(offset) = readable_from {
            write!(f, ", readable again from offset {offset}")?;
        }
        if let Some(source) = source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.kind())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source: &(dyn StdError + 'static) = self.0.source.as_deref()?;
        Some(source)
    }
}

/// How a change of the files failed: what the writer may do next depends on it.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing has changed; the same may be tried again.
    Refused(Error),
    /// Nobody knows what the disk holds now; only opening the log anew finds out.
    Broken(Error),
}

impl Failure {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Refused(error) | Self::Broken(error) => error,
        }
    }
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    /// What went wrong and what to do, lower case, no full stop.
    what: Cow<'static, str>,
    path: Option<PathBuf>,
    position: Option<Position>,
    offset: Option<Offset>,
    readable_from: Option<Offset>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

const _: () = assert!(size_of::<Error>() == size_of::<usize>());
