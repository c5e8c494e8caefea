//! Writing bytes anew that a process which is gone may not have got to the disk.

use crate::bugs::Bug;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::storage::Handle;

/// How much is written anew at a time; whole pages of any machine.
const PIECE_BYTES: u64 = 256 << 10;

/// Writes what stands from `position` to `end` anew, byte for byte in its place, and syncs it.
pub(crate) fn write_anew(file: &Handle, mut position: u64, end: u64) -> Result<()> {
    // The zeros behind the end may be lost as well, and the blocks under them be taken for what
    // they are not.
    file.forget_cached(end.next_multiple_of(PIECE_BYTES), u64::MAX);
    if position == end {
        file.forget_cached(end, 0);
        return Ok(());
    }
    let mut buffer = vec![0; usize::try_from(PIECE_BYTES).unwrap_or(usize::MAX)];
    while position < end {
        // To the end of a page, so that nothing is forgotten before it was read.
        let piece_end = (position + 1).next_multiple_of(PIECE_BYTES).min(end);
        let len = usize::try_from(piece_end - position).unwrap_or(usize::MAX);
        let piece = buffer.get_mut(..len).unwrap_or_default();
        if file.read(piece, position)? < len {
            let what = "the segment became shorter while it was read";
            return Err(Error::new(ErrorKind::Corrupt, what).with_path(file.path()));
        }
        file.forget_cached(position, len as u64);
        let write = || file.write(piece, position).map_err(|partial| partial.error);
        Bug::CacheTrusted.spares(write)?;
        position += len as u64;
    }
    Bug::ServedUnsynced.spares(|| file.sync())
}
