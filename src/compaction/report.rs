//! What a run of compaction did, for people and programs.

use crate::error::Error;
use crate::units::Offset;
use std::fmt;
use std::ops::Range;

/// What [`Log::compact`](crate::Log::compact) did. Its `Display` is a line for a log file.
#[derive(Clone, Debug, Default)]
pub struct CompactionReport {
    pub(super) compacted_to: Offset,
    pub(super) records_removed: u64,
    pub(super) records_kept: u64,
    pub(super) bytes_removed: u64,
    pub(super) bytes_kept: u64,
    pub(super) segments_read: u64,
    pub(super) segments_written: u64,
    pub(super) left_aside: Vec<LeftAside>,
    pub(super) end: End,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    #[default]
    Done,
    /// The memory for keys was full.
    Full,
    /// It was broken off, or the log was truncated.
    Stopped,
}

/// A segment that a run could not read, and left as it is.
#[derive(Clone, Debug)]
pub struct LeftAside {
    pub(super) offsets: Range<Offset>,
    pub(super) error: Error,
}

impl CompactionReport {
    /// Below this offset no two records that the run could read have the same key.
    #[must_use]
    pub fn compacted_to(&self) -> Offset {
        self.compacted_to
    }

    /// How many records it removed.
    #[must_use]
    pub fn records_removed(&self) -> u64 {
        self.records_removed
    }

    /// How many records are left in the segments it looked at.
    #[must_use]
    pub fn records_kept(&self) -> u64 {
        self.records_kept
    }

    /// By how many bytes the log's files are smaller.
    #[must_use]
    pub fn bytes_removed(&self) -> u64 {
        self.bytes_removed
    }

    /// How many bytes are left in the segments it looked at.
    #[must_use]
    pub fn bytes_kept(&self) -> u64 {
        self.bytes_kept
    }

    /// How many times it read a segment: most twice, for their keys and to be rewritten.
    #[must_use]
    pub fn segments_read(&self) -> u64 {
        self.segments_read
    }

    /// How many segments it wrote.
    #[must_use]
    pub fn segments_written(&self) -> u64 {
        self.segments_written
    }

    /// The segments it could not read. They stay as they are, and so do tombstones above them,
    /// for a segment that is restored may hold older records of their keys. The next run tries
    /// again.
    #[must_use]
    pub fn left_aside(&self) -> &[LeftAside] {
        &self.left_aside
    }

    /// Whether it ended before it was done: the progress callback broke it off, or the log was
    /// truncated meanwhile. What it had done by then stands.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.end == End::Stopped
    }

    /// Whether another run has something to do at once: the memory for keys was full, or the run
    /// was stopped.
    #[must_use]
    pub fn more(&self) -> bool {
        self.end != End::Done
    }
}

impl LeftAside {
    /// The offsets of the segment.
    #[must_use]
    pub fn offsets(&self) -> Range<Offset> {
        self.offsets.clone()
    }

    /// Why it could not be read.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }
}

impl fmt::Display for CompactionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compacted_to, records_removed, records_kept, bytes_removed, .. } = self;
        write!(f, "compacted up to offset {compacted_to}: {records_removed} records of ")?;
        write!(f, "{bytes_removed} bytes removed, {records_kept} kept")?;
        for LeftAside { offsets, error } in &self.left_aside {
            write!(f, ", offsets {} to {} left aside ({error})", offsets.start, offsets.end)?;
        }
        match self.end {
            End::Done => Ok(()),
            End::Full => f.write_str(", the memory for keys was full, there is more to do"),
            End::Stopped => f.write_str(", stopped before the end"),
        }
    }
}
