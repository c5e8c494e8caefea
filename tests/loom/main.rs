//! Models of the whole log, run through every order of its threads: `.ci/run` says how.
//!
//! Each model is a program of two to four threads, and what must hold whichever way they meet. All
//! of the log is real but its locks, atomics and threads (`src/sync/`), the disk and the clock.
//! A model with too many orders has a bound on how often a thread is interrupted, which few bugs of
//! concurrency need more than two of.

#![cfg(loom)]
#![expect(clippy::print_stdout, reason = "shown by --nocapture")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

mod close;
mod compaction;
mod cutting;
mod group;
mod reading;
mod refused;
mod support;
mod task;
