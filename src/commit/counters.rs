//! What the write side has done since the log was opened, counted where I/O is done anyway.

/// Counters that only grow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) writes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) refused_writes: u64,
    pub(crate) syncs: u64,
    /// Commits that a sync covered, all together.
    pub(crate) group_commits: u64,
    /// The most that one sync covered.
    pub(crate) largest_group: u64,
}

impl Counters {
    pub(super) fn written(&mut self, bytes: usize) {
        self.writes += 1;
        self.written_bytes += bytes as u64;
    }

    pub(super) fn synced(&mut self, commits: usize) {
        self.syncs += 1;
        self.group_commits += commits as u64;
        self.largest_group = self.largest_group.max(commits as u64);
    }
}
