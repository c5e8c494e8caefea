//! stratalog.
pub mod storage;
mod error;
mod format;
mod record;
mod units;
