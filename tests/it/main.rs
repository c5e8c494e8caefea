//! The tests of the public face: one binary, a file a theme.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

mod append;
mod async_wait;
mod compaction;
mod compaction_beside;
mod compaction_faults;
mod concurrency;
mod corruption;
mod crash;
mod cursor;
mod cut;
mod examples;
mod failure;
mod golden;
mod hostile;
mod kill;
mod model;
mod options;
mod recovery;
mod refused_roll;
mod regression;
mod roll;
mod space;
mod support;
mod tidy;
mod time;
