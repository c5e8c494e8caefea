//! The records there are, as an iterator.

use crate::cursor::Cursor;
use crate::cursor::EntryBuf;
use crate::error::Result;

/// All records from a place to the high watermark, each with bytes of its own.
///
/// Ends at the high watermark, and after an error.
#[derive(Debug)]
pub struct Iter {
    cursor: Cursor,
    failed: bool,
}

impl Iter {
    pub(crate) fn new(cursor: Cursor) -> Self {
        Self { cursor, failed: false }
    }
}

impl Iterator for Iter {
    type Item = Result<EntryBuf>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.cursor.next_buf().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}
