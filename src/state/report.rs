//! What opening a log found, for people and programs.

use crate::units::Offset;
use std::fmt;
use std::time::Duration;

/// What [`Log::open`](crate::Log::open) found and did. Its `Display` is a line for a log file.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use stratalog::storage::MemoryStorage;
/// use stratalog::Options;
///
/// let log = Options::new().storage(Arc::new(MemoryStorage::new())).open("orders")?;
/// assert!(log.recovery().is_new());
/// assert_eq!(log.recovery().to_string(), "a new log");
/// # Ok::<(), stratalog::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    pub(crate) found: Found,
    pub(crate) scanned_segments: u64,
    pub(crate) scanned_bytes: u64,
    pub(crate) rewritten_bytes: u64,
    pub(crate) cut_at: Option<Offset>,
    pub(crate) cut_bytes: u64,
    pub(crate) removed_files: u64,
    pub(crate) clock_ahead: Option<Duration>,
}

/// In which state a log was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Found {
    New,
    Clean,
    #[default]
    Unclean,
}

impl Recovery {
    /// Whether there was no log and one was made.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.found == Found::New
    }

    /// Whether the log had been closed, so that there was nothing to recover.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.found != Found::Unclean
    }

    /// How many segments were scanned because nothing proved them complete.
    #[must_use]
    pub fn scanned_segments(&self) -> u64 {
        self.scanned_segments
    }

    /// How many bytes were scanned.
    #[must_use]
    pub fn scanned_bytes(&self) -> u64 {
        self.scanned_bytes
    }

    /// How many bytes of sound records nothing proved durable: they were written anew and synced
    /// before the log was opened.
    #[must_use]
    pub fn rewritten_bytes(&self) -> u64 {
        self.rewritten_bytes
    }

    /// Where a torn tail was cut off: the end of the log afterwards. `None` if nothing was cut.
    #[must_use]
    pub fn cut_at(&self) -> Option<Offset> {
        self.cut_at
    }

    /// How many bytes of a torn tail were cut off.
    #[must_use]
    pub fn cut_bytes(&self) -> u64 {
        self.cut_bytes
    }

    /// How many files of changes that never took effect were removed.
    #[must_use]
    pub fn removed_files(&self) -> u64 {
        self.removed_files
    }

    /// How far the clock is behind the last append: so long, append times stand still.
    #[must_use]
    pub fn clock_ahead(&self) -> Option<Duration> {
        self.clock_ahead
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.found {
            Found::New => f.write_str("a new log")?,
            Found::Clean => f.write_str("closed cleanly")?,
            Found::Unclean => {
                let segments = if self.scanned_segments == 1 { "segment" } else { "segments" };
                write!(
                    f,
                    "not closed: {} bytes in {} {segments} scanned, {} bytes written anew",
                    self.scanned_bytes, self.scanned_segments, self.rewritten_bytes
                )?;
            }
        }
        if let Some(offset) = self.cut_at {
            write!(f, ", a torn tail of {} bytes cut at offset {offset}", self.cut_bytes)?;
        }
        if self.removed_files > 0 {
            write!(f, ", {} leftover files removed", self.removed_files)?;
        }
        if let Some(ahead) = self.clock_ahead {
            write!(f, ", the clock is {} ms behind the last append", ahead.as_millis())?;
        }
        Ok(())
    }
}
