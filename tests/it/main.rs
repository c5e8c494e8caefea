//! The tests of the public face: one binary, a file a theme.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::indexing_slicing, reason = "a test may panic")]

mod append;
mod async_wait;
mod backward;
mod checkpoint;
mod checkpoint_consumers;
mod checkpoint_load;
mod close;
mod compaction;
mod compaction_beside;
mod compaction_faults;
mod compaction_forged;
mod compaction_frames;
mod compaction_keeper;
mod compaction_space;
mod compaction_steps;
mod compaction_tables;
mod concurrency;
mod consumer;
mod consumer_dir;
mod consumer_faults;
mod consumer_kill;
mod consumer_order;
mod consumer_retention;
mod consumer_threads;
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
mod following;
mod forged;
mod frames;
mod frames_faults;
mod frames_random;
mod frames_refused;
mod golden;
mod hostile;
mod kill;
mod meanwhile;
mod model;
mod newer;
mod options;
mod order;
mod reader;
mod reader_changes;
mod reader_faults;
mod reader_live;
mod reader_tools;
mod reader_unsaid;
mod recovery;
mod refused_roll;
mod regression;
mod repair;
mod repair_crash;
mod repair_forged;
mod repair_review;
mod repair_segments;
mod retention;
mod roll;
#[cfg(stratalog_bugs)]
mod seeded;
mod space;
#[cfg(feature = "stream")]
mod stream;
mod stress;
mod support;
mod tidy;
mod time;
mod unnoticed;
