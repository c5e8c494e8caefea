//! The bell that calls the background thread, and how that thread waits for it.

use parking_lot::{Condvar, Mutex};
use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<Rung>,
    condvar: Condvar,
}

/// How it was rung.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rung {
    #[default]
    Not,
    /// There is something to sync within the interval.
    Soon,
    /// Somebody waits for a sync, or a lot is unsynced.
    Now,
    /// The log closes.
    Stop,
}

impl Bell {
    pub(crate) fn ring(&self, rung: Rung) {
        let mut now = self.rung.lock();
        if rung > *now {
            *now = rung;
            self.condvar.notify_one();
        }
    }

    /// Waits until it is rung, then, if there is time, `interval` or until it is rung again.
    pub(crate) fn wait(&self, interval: Duration) -> Rung {
        let mut rung = self.rung.lock();
        while *rung == Rung::Not {
            self.condvar.wait(&mut rung);
        }
        while *rung == Rung::Soon {
            if self.condvar.wait_for(&mut rung, interval).timed_out() {
                break;
            }
        }
        let heard = *rung;
        if heard != Rung::Stop {
            *rung = Rung::Not;
        }
        heard
    }
}
