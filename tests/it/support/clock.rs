//! A clock that a test sets by hand, forward and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use stratalog::Timestamp;
use stratalog::storage::{Clock, SystemClock};

/// Stands still until it is set. A clone is the same clock.
///
/// Its monotonic time is the machine's, for a wait must end.
#[derive(Clone, Debug)]
pub(crate) struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    pub(crate) fn at(time: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(time.as_micros())))
    }

    pub(crate) fn set(&self, time: Timestamp) {
        self.0.store(time.as_micros(), Ordering::SeqCst);
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.set(self.now().checked_add(by).unwrap());
    }

    pub(crate) fn go_back(&self, by: Duration) {
        self.set(self.now().checked_sub(by).unwrap());
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        SystemClock::new().monotonic()
    }
}
