//! Whose turn it is to look for records without sleeping: one thread's at a time.

use crate::sync::AtomicBool;
use crate::sync::thread;
use std::sync::atomic::Ordering;

/// A turn that one at a time can have. On a cache line of its own, which appenders do not touch.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Turn {
    taken: AtomicBool,
    /// With one core, who looks keeps others from appending what it looks for.
    has_cores: bool,
}

/// Ends the turn when it is dropped.
#[derive(Debug)]
pub(crate) struct Taken<'a>(&'a Turn);

impl Turn {
    pub(super) fn new() -> Self {
        let has_cores = thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
        Self { taken: AtomicBool::new(false), has_cores }
    }

    pub(super) fn take(&self) -> Option<Taken<'_>> {
        // Who does not get it changes nothing.
        let free = self.has_cores
            && self
                .taken
                .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        free.then(|| Taken(self))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
    }
}
