//! What the write side has done since the log was opened, counted where I/O is done anyway.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that only grow. Each is read on its own, so two of them may be from different moments.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) writes: Counter,
    pub(crate) written_bytes: Counter,
    pub(crate) refused_writes: Counter,
    pub(crate) syncs: Counter,
    /// Commits that a sync covered, all together.
    pub(crate) group_commits: Counter,
    /// The most that one sync covered.
    pub(crate) largest_group: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn raise(&self, to: u64) {
        self.0.fetch_max(to, Ordering::Relaxed);
    }
}
