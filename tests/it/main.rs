//! The tests of the public face: one binary, a file a theme.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

mod append;
mod async_wait;
mod concurrency;
mod copy_on_write;
mod corruption;
mod cursor;
mod cut;
mod damage;
mod environment;
#[cfg(feature = "tracing")]
mod events;
mod examples;
mod explore;
mod failure;
mod forged;
mod golden;
mod hostile;
mod kill;
mod meanwhile;
mod model;
mod options;
mod order;
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
