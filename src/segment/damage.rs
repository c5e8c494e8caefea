//! The errors for bytes of a segment that are not the frame which belongs there.
//!
//! A checksum that agrees with contents that are not known is nothing that a crash or a bad medium
//! leaves: a newer version of this crate wrote them. Who took that for damage would cut off records
//! that were promised, or have the reader skip them.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::bytes::DecodeError;
use crate::segment::scan::Damage;
use crate::storage::Handle;

/// What is wrong, without the place.
pub(crate) fn unreadable(why: DecodeError) -> Error {
    if why.is_newer() {
        let what = format!("a frame needs a newer version of this crate ({why})");
        return Error::new(ErrorKind::UnsupportedVersion, what);
    }
    Error::new(ErrorKind::Corrupt, format!("the log is damaged ({why})"))
}

pub(super) fn damaged(file: &Handle, damage: &Damage) -> Error {
    unreadable(damage.why)
        .with_path(file.path())
        .with_position(damage.position)
        .with_offset(damage.offset)
}

/// An error if what stands there is the work of a newer version.
pub(crate) fn refuse_newer(file: &Handle, damage: &Damage) -> Result<()> {
    if damage.why.is_newer() { Err(damaged(file, damage)) } else { Ok(()) }
}
