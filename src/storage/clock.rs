//! Time: the [`Clock`] a log reads, [`SystemClock`] being the real one.

use crate::units::Timestamp;
use std::fmt::Debug;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Where a log gets the time from.
///
/// Both methods may be called from several threads at once, on the path of every append: they must
/// be cheap and must not block.
pub trait Clock: Debug + Send + Sync {
    /// The time of day, for the append times of records and for retention by age.
    ///
    /// It may jump, also back: the log never lets append times fall, and lets them stand still
    /// until the clock has caught up. It may be coarse; a few milliseconds do no harm.
    fn now(&self) -> Timestamp;

    /// The time since some fixed point, for waits and intervals.
    ///
    /// It never goes back, whichever thread asks, and is fine enough to bound waits of
    /// microseconds.
    fn monotonic(&self) -> Duration;
}

/// The clock of the operating system.
///
/// On Linux [`now`](Clock::now) is the time of the last timer tick (`CLOCK_REALTIME_COARSE`), read
/// without asking the hardware; elsewhere it is [`SystemTime::now`](std::time::SystemTime::now).
/// [`monotonic`](Clock::monotonic) starts at zero with the first call in the process.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SystemClock;

impl SystemClock {
    /// The clock.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        wall_clock()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn monotonic(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        // Take the start first: the other way round the first call would subtract a later time.
        let start = *START;
        Instant::now().saturating_duration_since(start)
    }
}

#[cfg(target_os = "linux")]
fn wall_clock() -> Timestamp {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let micros = time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1_000);
    Timestamp::from_micros(micros)
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "this is the seam")]
fn wall_clock() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::{Clock, SystemClock};
    use crate::units::Timestamp;
    use std::time::{Duration, SystemTime};

    /// Catches a wrong unit or a wrong clock id; the tolerance covers a coarse tick and a slow
    /// machine.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "compares with the standard library's clock")]
    fn now_is_the_time_of_day() {
        let tolerance = Duration::from_secs(10);
        let expected = Timestamp::from(SystemTime::now());
        let found = SystemClock::new().now();
        assert!(found > expected.checked_sub(tolerance).unwrap(), "{found}, not {expected}");
        assert!(found < expected.checked_add(tolerance).unwrap(), "{found}, not {expected}");
    }

    #[test]
    fn monotonic_time_advances_and_never_goes_back() {
        let clock = SystemClock::new();
        let start = clock.monotonic();
        let mut last = start;
        while last < start + Duration::from_micros(200) {
            let now = clock.monotonic();
            assert!(now >= last);
            last = now;
        }
    }
}
