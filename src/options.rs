//! What can be set about a log: numbers with their limits, and the two seams.

mod compaction;

pub use compaction::Compaction;
pub use compaction::Progress;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::retention::Retention;
use crate::storage::Clock;
use crate::storage::FsStorage;
use crate::storage::Storage;
use crate::storage::SystemClock;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// How to open a log. [`Log::open`](crate::Log::open) is all defaults.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use stratalog::{Durability, Options};
///
/// let log = Options::new()
///     .segment_bytes(16 << 20)
///     .durability(Durability::Written)
///     .sync_interval(Duration::from_millis(20))
///     .open("orders")?;
/// # Ok::<(), stratalog::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    pub(crate) create: bool,
    pub(crate) segment_bytes: u64,
    pub(crate) segment_age: Option<Duration>,
    pub(crate) max_batch_bytes: u64,
    pub(crate) max_unsynced_bytes: u64,
    pub(crate) durability: Durability,
    pub(crate) sync_interval: Duration,
    pub(crate) read_mode: ReadMode,
    pub(crate) maintenance: Maintenance,
    pub(crate) compaction: Option<Compaction>,
    pub(crate) retention: Retention,
    pub(crate) on_background_error: OnError,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// How far a record has got before `append` returns. Each level implies the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// In the memory of this process; lost if the process dies.
    Buffered,
    /// With the operating system: survives the death of the process, not a power cut.
    Written,
    /// On the device: `fdatasync` returned; survives a power cut.
    #[default]
    Synced,
}

/// How cursors read the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadMode {
    /// Through a memory map, without a copy. If the medium fails under a read, or another program
    /// cuts a file short, the process gets a signal (`SIGBUS`), as with any mapped file.
    #[default]
    Map,
    /// By positional reads into a buffer: a failing medium is an `Err`. The results are the same.
    Pread,
}

/// Who does the work that no call waits for: the syncs at an interval, the end of idle segments,
/// retention, the removal of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Maintenance {
    /// A thread `stratalog`, which writes and syncs, and for a log with a retention, a segment age
    /// or compaction another, `stratalog-keep`, which does the rest and may take its time. They are
    /// joined by `close` and by dropping the last handle.
    #[default]
    Background,
    /// Nobody: the log starts no thread that outlives a call, syncs only when a call asks for it,
    /// and does the rest in [`Log::maintain`](crate::Log::maintain).
    Manual,
}

/// Whom to tell of an error that no call returns.
#[derive(Clone, Default)]
pub(crate) struct OnError(Option<Arc<Callback>>);

type Callback = dyn Fn(&Error) + Send + Sync;

impl OnError {
    pub(crate) fn tell(&self, error: &Error) {
        if let Some(call) = &self.0 {
            call(error);
        }
    }
}

impl fmt::Debug for OnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "set" } else { "not set" })
    }
}

impl Options {
    /// The default of [`segment_bytes`](Options::segment_bytes): 64 MiB.
    pub const SEGMENT_BYTES: u64 = 64 << 20;
    /// The default of [`max_batch_bytes`](Options::max_batch_bytes): 64 MiB.
    pub const MAX_BATCH_BYTES: u64 = 64 << 20;
    /// The default of [`max_unsynced_bytes`](Options::max_unsynced_bytes): 256 MiB.
    pub const MAX_UNSYNCED_BYTES: u64 = 256 << 20;
    /// The default of [`sync_interval`](Options::sync_interval): 100 ms.
    pub const SYNC_INTERVAL: Duration = Duration::from_millis(100);

    /// All defaults.
    pub fn new() -> Self {
        Self {
            create: true,
            segment_bytes: Self::SEGMENT_BYTES,
            segment_age: None,
            max_batch_bytes: Self::MAX_BATCH_BYTES,
            max_unsynced_bytes: Self::MAX_UNSYNCED_BYTES,
            durability: Durability::default(),
            sync_interval: Self::SYNC_INTERVAL,
            read_mode: ReadMode::default(),
            maintenance: Maintenance::default(),
            compaction: None,
            retention: Retention::new(),
            on_background_error: OnError::default(),
            storage: Arc::new(FsStorage::new()),
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// Whether to make the log if there is none. With `false` a missing log is an error of kind
    /// [`Io`](ErrorKind::Io). Default: `true`.
    #[expect(clippy::fn_params_excessive_bools, reason = "the name says what the bool means")]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// The size at which a segment is sealed and the next one begun: 256 bytes to 2 GiB. A record
    /// or batch that is larger gets a segment of its own.
    /// Default: [`SEGMENT_BYTES`](Options::SEGMENT_BYTES).
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// The age, from its first record on, at which the next append begins a new segment.
    /// Default: no limit.
    pub fn segment_age(mut self, age: Duration) -> Self {
        self.segment_age = Some(age);
        self
    }

    /// The largest batch, or single record, in encoded bytes: 64 bytes to 1 GiB less 16 bytes.
    /// What is larger is [`TooLarge`](ErrorKind::TooLarge).
    /// Default: [`MAX_BATCH_BYTES`](Options::MAX_BATCH_BYTES).
    pub fn max_batch_bytes(mut self, bytes: u64) -> Self {
        self.max_batch_bytes = bytes;
        self
    }

    /// How many bytes may be appended and not yet synced before an append waits for a sync: what
    /// a power cut can take from a log that is not `Synced`, and what a recovery has to write
    /// anew: 1 byte to 4 GiB. Default: [`MAX_UNSYNCED_BYTES`](Options::MAX_UNSYNCED_BYTES).
    pub fn max_unsynced_bytes(mut self, bytes: u64) -> Self {
        self.max_unsynced_bytes = bytes;
        self
    }

    /// What `append` waits for. Default: [`Durability::Synced`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long the background thread leaves appended records unsynced at most.
    /// Default: [`SYNC_INTERVAL`](Options::SYNC_INTERVAL).
    pub fn sync_interval(mut self, interval: Duration) -> Self {
        self.sync_interval = interval;
        self
    }

    /// How cursors read. Default: [`ReadMode::Map`].
    pub fn read_mode(mut self, mode: ReadMode) -> Self {
        self.read_mode = mode;
        self
    }

    /// Who does the work that no call waits for. Default: [`Maintenance::Background`].
    pub fn maintenance(mut self, maintenance: Maintenance) -> Self {
        self.maintenance = maintenance;
        self
    }

    /// Whether and how the log is compacted: of the records with the same key, the last one stays.
    /// With [`Maintenance::Background`] by itself, when [it is due](Compaction::dirty_ratio); else
    /// by [`Log::maintain`](crate::Log::maintain), and by [`Log::compact`](crate::Log::compact) at
    /// any time. Default: it is not.
    pub fn compaction(mut self, compaction: Compaction) -> Self {
        self.compaction = Some(compaction);
        self
    }

    /// What the log may forget. Default: nothing.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Is called, on a thread of the log or of a caller, with each error that no call returns;
    /// [`Stats::last_error`](crate::Stats::last_error) has the last one. It must not block, but
    /// may close the log.
    ///
    /// If it panics on a thread of a caller, it is the call that does. On a thread of the log, what
    /// was being done ends, the log goes on, and `last_error` says that something panicked; for
    /// that, it is not called.
    pub fn on_background_error(mut self, call: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        self.on_background_error = OnError(Some(Arc::new(call)));
        self
    }

    /// Where the files are. Default: the file system.
    pub fn storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = storage;
        self
    }

    /// What the time is. Default: the system's clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Checks every number against its limits.
    pub(crate) fn validate(&self) -> Result<()> {
        check("segment_bytes", self.segment_bytes, 256..=2 << 30)?;
        // Compaction may put a step in front of a record, which has to fit into a frame then too.
        check("max_batch_bytes", self.max_batch_bytes, 64..=(1 << 30) - 16)?;
        // Not more records than a frame's durable gap can count: one takes two bytes or more.
        check("max_unsynced_bytes", self.max_unsynced_bytes, 1..=4 << 30)?;
        if self.sync_interval.is_zero() {
            return Err(Error::new(ErrorKind::InvalidInput, "sync_interval is zero"));
        }
        self.compaction.as_ref().map_or(Ok(()), Compaction::validate)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

fn check(name: &'static str, value: u64, limits: RangeInclusive<u64>) -> Result<()> {
    if limits.contains(&value) {
        return Ok(());
    }
    let (low, high) = limits.into_inner();
    let what = format!("{name} is {value}, which is not within {low} to {high}");
    Err(Error::new(ErrorKind::InvalidInput, what))
}
