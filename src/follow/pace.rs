//! How often a reader looks for news: pure.

use std::time::Duration;

/// How often a reader looks at least; so much later it may learn of a record.
pub(super) const PAUSE_MAX: Duration = Duration::from_millis(5);

/// The shortest pause: the system takes about as long to wake a thread.
pub(super) const PAUSE_MIN: Duration = Duration::from_micros(50);

/// How long what was seen is good enough for a cursor that is not at the end.
pub(super) const FRESH: Duration = Duration::from_millis(1);

/// How long a writer that says nothing new is taken for alive.
pub(super) const PROBE: Duration = Duration::from_millis(100);

/// How long a writer that is opening the log is waited for: it reads and writes anew what no sync
/// covered, 256 MiB by default, which takes less on most disks.
pub(super) const RECOVERY: Duration = Duration::from_secs(1);

/// How long to wait before the next look, when the last news is so old: the quieter the log, the
/// seldomer.
pub(super) fn pause(quiet_for: Duration) -> Duration {
    (quiet_for / 16).clamp(PAUSE_MIN, PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::{PAUSE_MAX, PAUSE_MIN, pause};
    use std::time::Duration;

    #[test]
    fn a_quiet_log_is_looked_at_seldom_but_never_less_than_promised() {
        let millis = Duration::from_millis;
        assert_eq!(pause(Duration::ZERO), PAUSE_MIN);
        assert_eq!(pause(millis(16)), millis(1));
        assert_eq!(pause(millis(80)), PAUSE_MAX);
        assert_eq!(pause(Duration::MAX), PAUSE_MAX);
    }
}
