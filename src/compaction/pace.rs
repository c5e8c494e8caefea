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

/// What is wanted of a run while it is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// To keep to its rate.
    Slow,
    /// To be done soon: somebody waits for it.
    Fast,
    /// To end: the log does.
    Nothing,
}

/// Pauses, and tells whether to go on. Called every now and then, mostly with no time to pause.
pub(crate) type Pause<'a> = &'a mut (dyn FnMut(Duration) -> ControlFlow<()> + 'a);

pub(super) struct Pace<'a> {
    settings: &'a Compaction,
    clock: &'a dyn Clock,
    pause: Pause<'a>,
    wanted: &'a dyn Fn() -> Wanted,
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
        wanted: &'a dyn Fn() -> Wanted,
    ) -> Self {
        let due = clock.monotonic();
        Self { settings, clock, pause, wanted, done: Progress::default(), stride: 0, due }
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
        let ahead = match (self.wanted)() {
            Wanted::Slow => self.due.saturating_sub(now),
            Wanted::Fast => Duration::ZERO,
            // Who is told of the progress may count on a log that goes on.
            Wanted::Nothing => return Err(Halt::Stopped),
        };
        let told = self.settings.progress.as_ref().map(|progress| progress(&self.done));
        if told.is_some_and(|told| told.is_break()) || (self.pause)(ahead).is_break() {
            return Err(Halt::Stopped);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Halt, Pace, STRIDE_BYTES, Wanted};
    use crate::options::Compaction;
    use crate::storage::Clock;
    use crate::units::Timestamp;
    use std::ops::ControlFlow;
    use std::time::Duration;

    /// Stands still.
    #[derive(Debug)]
    struct Still;

    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp::ZERO
        }

        fn monotonic(&self) -> Duration {
            Duration::from_secs(100)
        }
    }

    /// Reads some strides; gives the pauses, and whether the one that is the `last` stopped it.
    fn pauses(settings: &Compaction, wanted: Wanted, last: usize) -> (Vec<Duration>, bool) {
        let mut pauses = Vec::new();
        let mut pause = |time| {
            pauses.push(time);
            if pauses.len() == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let wanted = || wanted;
        let mut pace = Pace::new(settings, &Still, &mut pause, &wanted);
        let mut ran = (0..3).map(|_| pace.did_read(STRIDE_BYTES));
        let is_stopped = ran.any(|ran| matches!(ran, Err(Halt::Stopped)));
        (pauses, is_stopped)
    }

    #[test]
    fn a_run_keeps_to_its_rate_unless_somebody_waits_for_it() {
        let settings = Compaction::new().bytes_per_second(4 * STRIDE_BYTES);
        let steps = [250, 500, 750].map(Duration::from_millis);
        assert_eq!(pauses(&settings, Wanted::Slow, 9), (steps.to_vec(), false));
        assert_eq!(pauses(&settings, Wanted::Fast, 9), (vec![Duration::ZERO; 3], false));
    }

    #[test]
    fn a_run_ends_where_it_is_told_to() {
        let settings = Compaction::new().bytes_per_second(u64::MAX);
        let (told, is_stopped) = pauses(&settings, Wanted::Slow, 2);
        assert_eq!((told.len(), is_stopped), (2, true));
        let settings = settings.progress(|done| match done.bytes_read() {
            STRIDE_BYTES => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        });
        let (told, is_stopped) = pauses(&settings, Wanted::Slow, 9);
        assert_eq!((told.len(), is_stopped), (1, true));
    }

    #[test]
    fn nobody_is_told_of_the_progress_of_a_run_that_has_to_end() {
        let settings = Compaction::new().progress(|_| panic!("somebody is told"));
        let (told, is_stopped) = pauses(&settings, Wanted::Nothing, 9);
        assert_eq!((told.len(), is_stopped), (0, true));
    }
}
