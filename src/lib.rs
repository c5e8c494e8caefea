//! An embeddable, append-only log: records in one order, each with an offset, in a directory of
//! segment files.
//!
//! For whoever writes a database and needs a write-ahead log; an application that needs an event
//! log or an outbox with many readers, each at its own pace; a table that is restored from its
//! changelog; the log of a replicated state machine. One process links the crate and opens a
//! directory: no server, no network, no runtime.
//!
//! ```
//! use stratalog::{Log, Record, Seek};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # std::env::set_current_dir(&dir).unwrap();
//! let log = Log::open("orders")?;
//!
//! // On the device when it returns; many threads that append share one sync.
//! let paid = log.append(Record::new("paid").key("order-17"))?;
//! // After a crash both are there, or neither is.
//! log.append_batch(["debit 17", "credit shop"])?;
//! // The key has no value any more.
//! log.append(Record::tombstone("order-17"))?;
//!
//! let mut cursor = log.cursor(Seek::Offset(paid))?;
//! while let Some(entry) = cursor.next()? {
//!     println!("{} {}", entry.offset(), entry.value().escape_ascii());
//! }
//! log.close()?;
//! # Ok::<(), stratalog::Error>(())
//! ```
//!
//! # What is promised
//!
//! A record passes three marks, and a caller chooses, for the log or for one append, which one it
//! waits for ([`Durability`]):
//!
//! | state | mark | survives |
//! |---|---|---|
//! | appended | [`Log::end_offset`] | nothing yet |
//! | written | [`Log::written_offset`] | the death of the process |
//! | synced, the default | [`Log::durable_offset`] | a power cut |
//!
//! - What a log shows after a crash is a gapless, bit-exact prefix of what was appended, at least
//!   as long as what was acknowledged. A batch is there whole or not at all.
//! - A tail that a crash tore is cut off and reported by [`Log::recovery`]. Damage that no crash
//!   explains is an error with file, position and offset, and nothing is dropped.
//! - Cursors of a log opened as [`Durability::Synced`] show nothing that a power cut can take back.
//! - A failed write or sync ends appending for good, tells everybody who waits, and leaves reading
//!   as it was; opening again finds out what the disk really holds. A full disk ends nothing.
//! - [Compaction], if it is asked for, keeps the last record of each key, at its own offset, while
//!   appends and readers go on; by itself when enough has changed, or by [`Log::compact`].
//! - Opening takes time for what was not known to be synced, however long the log is.
//! - A [`Consumer`] keeps its place in the log's directory. After a crash it goes on where it
//!   committed last, and [retention](Retention::keep_unread) can wait for it.
//!
//! [`LogReader`] reads a log from any process and follows whoever writes to it.
//!
//! What is assumed of the medium is written down at [`storage`].
//!
//! # Features
//!
//! - `tracing`: what happens to a log (opened, closed, cut, compacted, kept in shape, failed) as
//!   events of the crate `tracing`, with the target `stratalog`. Appends and reads send none.
//! - `stream`: `Log::stream` and `Cursor::stream`, a `futures_core::Stream` of records.
//!
//! # Where to begin
//!
//! [`Log::open`], or [`Options`] for anything but the defaults; [`Log::append`]; [`Cursor`].
//! The bytes on disk are specified in `docs/FORMAT.md` of the repository.

mod bugs;
mod checkpoint;
mod commit;
mod compaction;
mod consumers;
mod cursor;
mod error;
mod events;
mod follow;
mod format;
#[cfg(fuzzing)]
pub mod fuzzing;
mod log;
mod manifest;
mod options;
mod record;
mod retention;
mod segment;
mod state;
pub mod storage;
mod sync;
mod tools;
mod units;

#[cfg(stratalog_bugs)]
pub use bugs::SEEDED_BUGS;
pub use compaction::CompactionReport;
pub use compaction::LeftAside;
pub use cursor::Consumer;
pub use cursor::Cursor;
pub use cursor::Entry;
pub use cursor::EntryBuf;
#[cfg(feature = "stream")]
pub use cursor::EntryStream;
pub use cursor::Follow;
pub use cursor::Headers;
pub use cursor::Iter;
pub use cursor::Seek;
pub use cursor::Wait;
pub use error::Error;
pub use error::ErrorKind;
pub use error::Result;
pub use log::ConsumerInfo;
pub use log::Frames;
pub use log::Log;
pub use log::LogReader;
pub use log::MaintenanceReport;
pub use log::SegmentInfo;
pub use log::Stats;
pub use options::Compaction;
pub use options::Durability;
pub use options::Maintenance;
pub use options::Options;
pub use options::Progress;
pub use options::ReadMode;
pub use record::IntoBytes;
pub use record::Record;
pub use retention::Kept;
pub use retention::Retention;
pub use retention::RetentionReport;
pub use state::Recovery;
pub use tools::Damage;
pub use tools::Keep;
pub use tools::RepairOptions;
pub use tools::RepairReport;
pub use tools::VerifyOptions;
pub use tools::VerifyReport;
pub use tools::repair;
pub use tools::verify;
pub use units::Offset;
pub use units::Position;
pub use units::Timestamp;
