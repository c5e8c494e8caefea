//! The bytes on disk: pure codecs over slices, as `docs/FORMAT.md` lays them down.
//!
//! # Invariants
//!
//! - Nothing here does I/O, and nothing here panics, whatever the bytes are.
//! - No number from a slice is used before it is checked, and no allocation is larger than the
//!   slice justifies.
//! - Decoding is strict: there is one way to write each structure, and only that way is read.
//! - A [`DecodeError`](bytes::DecodeError) knows no file and no position. Who calls adds the place.
//!
//! ```text
//! names     file names
//! manifest  MANIFEST: the segments and where the log starts
//!   row       what it says about one segment
//! segment   the header of a .log file
//! frame       the header of each frame in it
//! record        the records in the body of a frame
//! wire      frames on their way from one log to another
//! index     a whole .index file
//! position  the file of a consumer's position
//! notice    what a writer says in LOCK to readers in other processes
//! bytes     the cursor, varints, checksums and the error they all share
//! ```

pub(crate) mod bytes;
pub(crate) mod frame;
pub(crate) mod index;
pub(crate) mod manifest;
pub(crate) mod names;
pub(crate) mod notice;
pub(crate) mod position;
pub(crate) mod record;
pub(crate) mod segment;
pub(crate) mod wire;

mod row;

#[cfg(test)]
mod golden;
