//! The pace of a run: who is told of its progress, how fast it may go, and when it has to stop.

use crate::error::Error;
use crate::options::Compaction;
use crate::options::Progress;
use crate::storage::Clock;
use std::ops::ControlFlow;
use std::time::Duration;

/// How much is read or written between two looks at the world.
const STRIDE_BYTES: u64 = 256 << 10;

/// Why a run does not go on as it was.
#[derive(Debug)]
pub(super) enum Halt {
    /// It was asked to stop, or what it knows is no longer true. Nothing is wrong.
    Stopped,
    /// A segment that it reads, which can be left aside.
    Unreadable(Error),
    /// Something else, which ends the run.
    Failed(Error),
}

/// Pauses, and tells whether to go on. Called every now and then, mostly with no time to pause.
pub(crate) type Pause<'a> = &'a mut (dyn FnMut(Duration) -> ControlFlow<()> + 'a);

pub(super) struct Pace<'a> {
    settings: &'a Compaction,
    clock: &'a dyn Clock,
    pause: Pause<'a>,
    /// Whether somebody waits for the run, which then is not slowed down.
    is_urgent: &'a dyn Fn() -> bool,
    done: Progress,
    /// Bytes since the last look, and the time by which they should have been done.
    stride: u64,
    due: Duration,
}

impl<'a> Pace<'a> {
    pub(super) fn new(
        settings: &'a Compaction,
        clock: &'a dyn Clock,
        pause: Pause<'a>,
        is_urgent: &'a dyn Fn() -> bool,
    ) -> Self {
        let due = clock.monotonic();
        Self { settings, clock, pause, is_urgent, done: Progress::default(), stride: 0, due }
    }

    pub(super) fn will_read(&mut self, bytes: u64) {
        self.done.bytes_to_read += bytes;
    }

    pub(super) fn did_read(&mut self, bytes: u64) -> Result<(), Halt> {
        self.done.bytes_read += bytes;
        self.step(bytes)
    }

    pub(super) fn did_write(&mut self, bytes: u64) -> Result<(), Halt> {
        self.done.bytes_written += bytes;
        self.step(bytes)
    }

    fn step(&mut self, bytes: u64) -> Result<(), Halt> {
        self.stride += bytes;
        if self.stride < STRIDE_BYTES {
            return Ok(());
        }
        self.look()
    }

    /// Tells of the progress, pauses if it went too fast, and ends the run if it has to stop.
    pub(super) fn look(&mut self) -> Result<(), Halt> {
        let micros =
            u128::from(self.stride) * 1_000_000 / u128::from(self.settings.bytes_per_second);
        let took = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        self.stride = 0;
        let now = self.clock.monotonic();
        // Time that was lost is not made up for: that would be a burst.
        self.due = self.due.max(now.saturating_sub(took)).saturating_add(took);
        let ahead = if (self.is_urgent)() { Duration::ZERO } else { self.due.saturating_sub(now) };
        let told = self.settings.progress.as_ref().map(|progress| progress(&self.done));
        if told.is_some_and(|told| told.is_break()) || (self.pause)(ahead).is_break() {
            return Err(Halt::Stopped);
        }
        Ok(())
    }
}
