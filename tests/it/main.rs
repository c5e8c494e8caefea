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
mod cursor;
mod cut;
mod damage;
mod environment;
mod examples;
mod explore;
mod failure;
mod forged;
mod golden;
mod hostile;
mod kill;
mod model;
mod options;
mod order;
mod prepare;
mod recovery;
mod refused_roll;
mod regression;
mod retention;
mod roll;
#[cfg(stratalog_bugs)]
mod seeded;
mod space;
mod stress;
mod support;
mod tidy;
mod time;
mod unnoticed;
