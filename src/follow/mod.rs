//! A log that another process writes to, as it is followed from here: by looking.
//!
//! What a look goes by, from the strongest to the weakest:
//!
//! | lock | notice | shown |
//! |---|---|---|
//! | held | sound, of a log that is open | what the notice says, as far as there are frames |
//! | held | none, or of a log being opened | what was before; first, what the manifest states |
//! | free | anything | all frames that are sound: no more than the next recovery keeps |
//!
//! # Invariants
//!
//! - Nothing is written, created, locked or removed.
//! - What is shown lies below the end of frames that were found here: a notice that lies can hide
//!   records, or be an error, but shows none that is not there.
//! - The manifest, the marks and the truncations that are published together belong together: the
//!   manifest has the epoch of the notice. A cut that was seen is told to every cursor.
//! - What was believed in one life of a writer is looked at anew in the next.

mod basis;
mod cuts;
mod look;
mod pace;
mod proof;
mod watch;

pub(crate) use look::Look;
pub(crate) use look::may_pass;

use crate::error::Error;
use crate::error::Result;
use crate::follow::basis::Seen;
use crate::follow::watch::Room;
use crate::format::manifest::Manifest;
use crate::format::names;
use crate::options::ReadMode;
use crate::segment::Reading;
use crate::state::Proof;
use crate::state::Segments;
use crate::state::State;
use crate::storage::Clock;
use crate::storage::Dir;
use crate::sync::AtomicU64;
use crate::sync::Mutex;
use crate::sync::thread;
use crate::units::Offset;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A followed log.
#[derive(Debug)]
pub(crate) struct Followed {
    segments: Arc<Segments>,
    clock: Arc<dyn Clock>,
    /// The end of what may be read.
    shown: AtomicU64,
    /// When it was looked at last, in microseconds of the monotonic clock.
    looked_at: AtomicU64,
    seen: Mutex<Seen>,
    room: Arc<Room>,
}

impl Followed {
    /// Begins to follow the log of a manifest, as far as can be seen now.
    pub(crate) fn open(dir: Dir, clock: Arc<dyn Clock>, manifest: Manifest) -> Result<Arc<Self>> {
        let start = manifest.start_offset;
        // Nothing is shown before the first look.
        let manifest = Manifest { rows: Vec::new(), compacted_to: Offset::ZERO, ..manifest };
        let state = State { manifest, active: None, proof: Proof::None, changes: 0 };
        let follow = Arc::new(Self {
            segments: Arc::new(Segments::new(dir, READING.mode, state)),
            clock,
            shown: AtomicU64::new(start.get()),
            looked_at: AtomicU64::new(0),
            seen: Mutex::new(Seen::default()),
            room: Arc::default(),
        });
        follow.look(Look::Anew)?;
        Ok(follow)
    }

    pub(crate) fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    /// The end of what may be read, as it was seen last.
    pub(crate) fn shown(&self) -> Offset {
        Offset::new(self.shown.load(Ordering::Acquire))
    }

    /// Looks, unless it has looked a moment ago.
    pub(crate) fn keep_up(&self) -> Result<()> {
        let looked_at = Duration::from_micros(self.looked_at.load(Ordering::Relaxed));
        match self.clock.monotonic().saturating_sub(looked_at) {
            age if age < pace::FRESH => Ok(()),
            _ => self.look(Look::News),
        }
    }

    /// Whether there is a record at or above `offset` by now. An error if the writer says that
    /// there is, and it cannot be found.
    pub(crate) fn reaches(&self, offset: Offset) -> Result<bool> {
        self.look(Look::News)?;
        match &self.seen.lock().missing {
            _ if self.shown() > offset => Ok(true),
            Some(error) => Err(error.clone()),
            None => Ok(false),
        }
    }

    /// Returns when no writer is opening the log, or after a second.
    pub(crate) fn await_recovery(&self) -> Result<()> {
        let until = self.now().saturating_add(pace::RECOVERY);
        while self.seen.lock().is_opened_now() && self.now() < until {
            thread::park_timeout(pace::FRESH);
            self.look(Look::News)?;
        }
        Ok(())
    }

    /// Whether a writer has the log open, as far as can be told.
    pub(crate) fn has_writer(&self) -> Result<bool> {
        let path = self.segments.dir().path_of(names::LOCK);
        let held = self.segments.dir().storage().is_locked(&path);
        held.map_err(|error| match error.kind() {
            io::ErrorKind::Unsupported => {
                Error::io("this storage cannot tell who holds the lock", &path, error)
            }
            _ => Error::io("cannot ask for the lock", &path, error),
        })
    }

    /// How long to wait before the next look, for who waits for a record.
    pub(crate) fn pause(&self) -> Duration {
        let news_at = self.seen.lock().news_at;
        pace::pause(self.now().saturating_sub(news_at))
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.room.close();
    }
}

/// Never by maps: what another process does to a file is not in this one's hands, and a file that
/// is cut short under a map is a signal. What is read by calls is a copy whose checksum is that of
/// what is shown.
const READING: Reading = Reading { mode: ReadMode::Pread, map_len: 0 };
