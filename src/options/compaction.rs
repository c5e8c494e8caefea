//! What can be set about compaction, and what its progress callback is told.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::options::check;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// How to compact a log: keep, of the records with the same key, the last one.
///
/// Last is who has the highest offset. That is all the order there is: a log that is compacted must
/// replay to the same table as the whole one, so there is no function that compares versions.
/// Records without a key are kept. What survives keeps its offset, its times and its headers.
///
/// # Examples
///
/// ```
/// # use std::sync::Arc;
/// # use std::time::Duration;
/// # use stratalog::{storage::MemoryStorage, Compaction, Options, Record, Seek};
/// let compaction = Compaction::new().tombstone_retention(Duration::ZERO);
/// let options = Options::new().compaction(compaction);
/// # let options = options.storage(Arc::new(MemoryStorage::new()));
/// let log = options.open("table")?;
/// log.append(Record::new("1").key("a"))?;
/// log.append(Record::new("2").key("a"))?;
/// log.append(Record::new("1").key("b"))?;
/// log.append(Record::tombstone("b"))?;
/// log.roll()?;
/// log.compact()?;
/// let left: Vec<_> = log.iter(Seek::Start)?.collect::<Result<_, _>>()?;
/// assert_eq!((left.len(), left[0].value()), (1, &b"2"[..]));
/// # Ok::<(), stratalog::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Compaction {
    pub(crate) dirty_ratio: f64,
    pub(crate) tombstone_retention: Duration,
    pub(crate) min_lag: Duration,
    pub(crate) max_lag: Duration,
    pub(crate) map_bytes: u64,
    pub(crate) bytes_per_second: u64,
    pub(crate) progress: Option<ProgressFn>,
}

/// Who is told how far a run has got, and may cancel it.
type ProgressFn = Arc<dyn Fn(&Progress) -> ControlFlow<()> + Send + Sync>;

impl Compaction {
    /// The default of [`dirty_ratio`](Compaction::dirty_ratio): 0.5.
    pub const DIRTY_RATIO: f64 = 0.5;
    /// The default of [`tombstone_retention`](Compaction::tombstone_retention): a day.
    pub const TOMBSTONE_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
    /// The default of [`map_bytes`](Compaction::map_bytes): 128 MiB, for 6 million keys a run.
    pub const MAP_BYTES: u64 = 128 << 20;
    /// The default of [`bytes_per_second`](Compaction::bytes_per_second): 32 MiB.
    pub const BYTES_PER_SECOND: u64 = 32 << 20;

    /// All defaults.
    pub fn new() -> Self {
        Self {
            dirty_ratio: Self::DIRTY_RATIO,
            tombstone_retention: Self::TOMBSTONE_RETENTION,
            min_lag: Duration::ZERO,
            max_lag: Duration::MAX,
            map_bytes: Self::MAP_BYTES,
            bytes_per_second: Self::BYTES_PER_SECOND,
            progress: None,
        }
    }

    /// A run in the background is due when so large a part of the bytes in sealed segments has not
    /// been compacted: 0 to 1. Default: [`DIRTY_RATIO`](Compaction::DIRTY_RATIO).
    pub fn dirty_ratio(mut self, ratio: f64) -> Self {
        self.dirty_ratio = ratio;
        self
    }

    /// How long a tombstone stays after a run has first covered its segment, so that readers that
    /// are slow get to know that the key has no value any more. Later runs do not prolong it, and
    /// on a log that is idle it ends as well.
    /// Default: [`TOMBSTONE_RETENTION`](Compaction::TOMBSTONE_RETENTION).
    pub fn tombstone_retention(mut self, retention: Duration) -> Self {
        self.tombstone_retention = retention;
        self
    }

    /// Segments whose last record is younger than this are left alone, so that readers who keep up
    /// see every record. Default: zero.
    pub fn min_lag(mut self, lag: Duration) -> Self {
        self.min_lag = lag;
        self
    }

    /// A run in the background is due when a sealed segment with a record that old has not been
    /// compacted, whatever the dirty ratio. Default: never.
    pub fn max_lag(mut self, lag: Duration) -> Self {
        self.max_lag = lag;
        self
    }

    /// The memory for keys: 1 KiB to 64 GiB. A key takes 32 bytes at most, whatever its length, and
    /// no more is taken than the records of a run can need. A run for which it is too small
    /// compacts up to where it was full, and the next one goes on there.
    /// Default: [`MAP_BYTES`](Compaction::MAP_BYTES).
    pub fn map_bytes(mut self, bytes: u64) -> Self {
        self.map_bytes = bytes;
        self
    }

    /// How many bytes a run in the background reads and writes in a second, so that appends and
    /// readers have most of the disk. [`Log::compact`](crate::Log::compact) is not slowed down.
    /// Default: [`BYTES_PER_SECOND`](Compaction::BYTES_PER_SECOND).
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = bytes;
        self
    }

    /// A function that is told every now and then how far a run has got. Where it breaks off, the
    /// run ends; what it has done so far stands, and in the background the next one begins a minute
    /// later at the earliest. It is called by the thread that compacts, and cannot compact the log
    /// itself.
    ///
    /// If it panics, so does the call that compacts. In the background the run ends as if it had
    /// been broken off, [`Stats::last_error`](crate::Stats::last_error) says so, and
    /// [`Options::on_background_error`](crate::Options::on_background_error) is not called.
    pub fn progress(
        mut self,
        progress: impl Fn(&Progress) -> ControlFlow<()> + Send + Sync + 'static,
    ) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Checks every number against its limits.
    pub(super) fn validate(&self) -> Result<()> {
        check("map_bytes", self.map_bytes, 1 << 10..=64 << 30)?;
        check("bytes_per_second", self.bytes_per_second, 1..=u64::MAX)?;
        if !(0.0..=1.0).contains(&self.dirty_ratio) {
            let what = format!("dirty_ratio is {}, which is not within 0 to 1", self.dirty_ratio);
            return Err(Error::new(ErrorKind::InvalidInput, what));
        }
        if self.min_lag > self.max_lag {
            return Err(Error::new(ErrorKind::InvalidInput, "min_lag is longer than max_lag"));
        }
        Ok(())
    }
}

impl Default for Compaction {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Compaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compaction")
            .field("dirty_ratio", &self.dirty_ratio)
            .field("tombstone_retention", &self.tombstone_retention)
            .field("min_lag", &self.min_lag)
            .field("max_lag", &self.max_lag)
            .field("map_bytes", &self.map_bytes)
            .field("bytes_per_second", &self.bytes_per_second)
            .finish_non_exhaustive()
    }
}

/// How far a run of compaction has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
    pub(crate) bytes_to_read: u64,
}

impl Progress {
    /// How many bytes of segments it has read.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// How many bytes of segments it has written.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// How many bytes it is going to read in all, as far as it knows by now.
    #[must_use]
    pub fn bytes_to_read(&self) -> u64 {
        self.bytes_to_read
    }
}
