//! Gives back the space of segments that were replaced, beside the run that goes on.
//!
//! A file that was removed keeps its space until it is closed, and some file systems have whoever
//! closes it wait until the space is free: ext4 without a journal, if it discards at once, 16 ms
//! for 64 MiB. So a run has its large inputs open when their names go, and a thread closes them
//! while it writes the next output.
//!
//! # Invariants
//!
//! - Only what one output has replaced is given back at a time, and nothing when a run is over.

use crate::storage::Handle;
use crate::sync::thread::Builder;
use crate::sync::thread::JoinHandle;

/// Smaller files go at once, which takes less time than to start a thread.
pub(super) const HELD_MIN_BYTES: u64 = 8 << 20;

/// So many files of one output are kept open, whatever little is left of each.
pub(super) const HELD_MAX: usize = 16;

/// Inputs of an output, which keep their space.
pub(super) type Held = Vec<Handle>;

#[derive(Debug, Default)]
pub(super) struct Freeing(Option<JoinHandle<()>>);

impl Freeing {
    /// Closes files whose names are gone, behind those before.
    pub(super) fn begin(&mut self, held: Held) {
        self.wait();
        if !held.is_empty() {
            let thread = Builder::new().name("stratalog-free".into());
            // Without a thread they have been closed here.
            self.0 = thread.spawn(move || drop(held)).ok();
        }
    }

    /// Waits until the space is free; tells whether there was any to wait for.
    pub(super) fn wait(&mut self) -> bool {
        let Some(thread) = self.0.take() else { return false };
        // A panic of the storage has been reported on its own; nothing in the log depends on it.
        drop(thread.join());
        true
    }
}

impl Drop for Freeing {
    fn drop(&mut self) {
        self.wait();
    }
}
