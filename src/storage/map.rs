//! A file's bytes as memory: [`Map`], the one place in the crate that needs `unsafe`.
//!
//! # Invariants
//!
//! The bytes of a map belong to the file, and a shared slice promises that they do not change while
//! it lives. No type can keep that promise for a file; these rules do:
//!
//! - *Looked at when published.* The log forms slices only below the end that it has published: the
//!   bytes were written before, and the file reaches there. Kept by the log's readers, the only
//!   callers of [`Map::bytes`].
//! - *Final when published.* Published bytes are never written again nor cut off. A file is
//!   unlinked when it is done with, never shortened below its published end. Kept by the log's
//!   writer. The one exception is harmless: recovery writes the same bytes anew, before anything
//!   is published.
//! - *Ours alone.* Nobody else writes or shortens the files of a log. Kept by its owner: to cut a
//!   file off behind the log's back is outside the contract, and so is a
//!   [`File`](crate::storage::File) that wraps another one, hands on its map and then rewrites it.
//!
//! A file that is shortened all the same, or a disk that fails under a map, ends the process with a
//! signal. Who cannot have that reads with `ReadMode::Pread`, where both are errors.

#![expect(unsafe_code, reason = "slices over a mapped file; nothing else in the crate needs it")]

use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::slice;

/// A read-only view of a file, shared with whoever writes to it.
///
/// Made by the [`File`](crate::storage::File) of [`FsStorage`](crate::storage::FsStorage). It keeps
/// showing the file after the file was closed or its name removed.
#[derive(Debug)]
pub struct Map {
    raw: MmapRaw,
}

impl Map {
    /// Maps the first `len` bytes of `file`, which may reach beyond its end: what is written there
    /// later appears. `len` is not 0.
    pub(crate) fn of(file: &File, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len)
            .map_err(|_| io::Error::new(io::ErrorKind::OutOfMemory, "larger than the memory"))?;
        let raw = MmapOptions::new().len(len).map_raw_read_only(file)?;
        Ok(Self { raw })
    }

    /// The length of the view in bytes; the file may be shorter or longer.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.raw.len() as u64
    }

    /// Whether the view has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes `start..end` of the file, or `None` if they are not all inside the view.
    ///
    /// `end` must not exceed the published end of the file. This cannot be checked here, for the
    /// view does not know that end, and yet the function is safe to call: the end of a file is a
    /// fact of the log, not of a call site, and an `unsafe` here would only repeat at each call the
    /// rules at the top of this file. They are kept in one place, the segment that owns both the
    /// map and the published end. That is also why this is private to the crate, and why a slice
    /// covers only the range asked for: unpublished bytes of the file may be changing right now.
    #[inline]
    pub(crate) fn bytes(&self, start: u64, end: u64) -> Option<&[u8]> {
        if end > self.len() {
            return None;
        }
        let len = usize::try_from(end.checked_sub(start)?).ok()?;
        let start = usize::try_from(start).ok()?;
        // SAFETY: `start <= end <= self.len()` was checked above, so the pointer stays inside the
        // one mapping or one past its end. `self.raw` keeps that mapping, without moving it, until
        // `self` is dropped, and the slice borrows `self`.
        let first = unsafe { self.raw.as_ptr().add(start) };
        // SAFETY: The `len` bytes at `first` are inside the mapping, which is no longer than
        // `isize::MAX` (`MmapOptions` checks it), initialised (the system gives zeros or the file's
        // bytes), and any byte is a valid `u8`. That they are backed by the file and do not change
        // while the slice lives is what the three invariants of this file say: the readers look
        // below the published end, the writer leaves it alone, the owner of the log keeps others
        // away.
        Some(unsafe { slice::from_raw_parts(first, len) })
    }
}

#[cfg(test)]
mod tests {
    use super::Map;
    use std::io::Write;

    #[test]
    fn bytes_are_those_of_the_file_and_end_with_the_view() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let map = Map::of(&file, 8).unwrap();
        assert_eq!(map.len(), 8);
        assert!(!map.is_empty());
        assert_eq!(map.bytes(0, 8), Some(&b"01234567"[..]));
        assert_eq!(map.bytes(3, 5), Some(&b"34"[..]));
        assert_eq!(map.bytes(8, 8), Some(&b""[..]));
        for (start, end) in [(0, 9), (9, 9), (5, 3), (u64::MAX, u64::MAX), (1, u64::MAX)] {
            assert_eq!(map.bytes(start, end), None, "{start}..{end}");
        }
    }

    #[test]
    fn a_view_longer_than_the_file_shows_what_is_written_later() {
        let mut file = tempfile::tempfile().unwrap();
        let map = Map::of(&file, 1 << 20).unwrap();
        file.write_all(b"early").unwrap();
        assert_eq!(map.bytes(0, 5), Some(&b"early"[..]));
        file.write_all(b", late").unwrap();
        assert_eq!(map.bytes(5, 11), Some(&b", late"[..]));
        drop(file);
        assert_eq!(map.bytes(0, 11), Some(&b"early, late"[..]));
    }

    #[test]
    fn a_view_goes_to_other_threads() {
        fn check<T: Send + Sync>() {}
        check::<Map>();
    }
}
