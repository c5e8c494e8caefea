//! An embeddable, append-only log.

mod commit;
mod cursor;
mod error;
mod format;
mod log;
mod manifest;
mod options;
mod record;
mod segment;
mod state;
pub mod storage;
mod units;

pub use cursor::Cursor;
pub use cursor::Entry;
pub use cursor::EntryBuf;
pub use cursor::Headers;
pub use cursor::Iter;
pub use cursor::Seek;
pub use cursor::Wait;
pub use error::Error;
pub use error::ErrorKind;
pub use error::Result;
pub use log::Log;
pub use options::Durability;
pub use options::Maintenance;
pub use options::Options;
pub use options::ReadMode;
pub use record::IntoBytes;
pub use record::Record;
pub use state::Recovery;
pub use units::Offset;
pub use units::Position;
pub use units::Timestamp;
