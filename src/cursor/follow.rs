//! The records there are and those to come, as an iterator that blocks.

use crate::cursor::Cursor;
use crate::cursor::EntryBuf;
use crate::error::ErrorKind;
use crate::error::Result;
use std::time::Duration;

/// All records from a place on, each with bytes of its own; at the end of the log it blocks until
/// another comes. From [`Log::follow`](crate::Log::follow) or
/// [`Cursor::follow`](crate::Cursor::follow).
///
/// It ends when the log is closed and everything that may be read was: a loop over it needs no
/// other way out, and what was accepted before the close is not missed. With
/// [`timeout`](Follow::timeout) it also ends when nothing comes for so long, and goes on when it is
/// asked again. An error (damage, a place that was truncated or deleted, a log that has failed) is
/// its last item. Of a cursor of a [`LogReader`](crate::LogReader) it does not end with the writer,
/// for another one may come.
///
/// It does not keep the log open. Of several that follow one log, each sees every record.
///
/// # Examples
///
/// ```
/// # use std::sync::Arc;
/// # use stratalog::{storage::MemoryStorage, Options, Seek};
/// # let log = Options::new().storage(Arc::new(MemoryStorage::new())).open("orders")?;
/// log.append("one")?;
/// let follow = log.follow(Seek::Start)?;
/// let reader = std::thread::spawn(move || {
///     follow.map(|entry| entry.map(|entry| entry.offset().get())).collect::<Result<Vec<_>, _>>()
/// });
/// log.append("two")?;
/// log.close()?;
/// assert_eq!(reader.join().unwrap()?, [0, 1]);
/// # Ok::<(), stratalog::Error>(())
/// ```
#[derive(Debug)]
pub struct Follow {
    cursor: Cursor,
    timeout: Duration,
    ended: bool,
}

impl Follow {
    pub(super) fn new(cursor: Cursor) -> Self {
        Self { cursor, timeout: Duration::MAX, ended: false }
    }

    /// Makes it end when no record has come for so long. Asked again, it waits again: that is how a
    /// thread looks now and then whether it is to stop.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # use stratalog::{storage::MemoryStorage, Options, Seek};
    /// # let log = Options::new().storage(Arc::new(MemoryStorage::new())).open("orders")?;
    /// log.append_batch(["one", "two"])?;
    /// let mut follow = log.follow(Seek::Start)?.timeout(Duration::from_millis(1));
    /// assert_eq!(follow.by_ref().count(), 2);
    /// log.append("three")?;
    /// assert_eq!(follow.next().unwrap()?.value(), b"three");
    /// # Ok::<(), stratalog::Error>(())
    /// ```
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The cursor, which stands behind the last record it gave.
    #[must_use]
    pub fn into_cursor(self) -> Cursor {
        self.cursor
    }

    /// The next record, when there is one; `None` when the time is up or the log is closed.
    fn step(&mut self) -> Result<Option<EntryBuf>> {
        loop {
            if let Some(entry) = self.cursor.next_buf()? {
                return Ok(Some(entry));
            }
            match self.cursor.wait(self.timeout) {
                // A truncation may have taken it since.
                Ok(true) => {}
                Ok(false) => return Ok(None),
                // Who waits is told of what a close makes visible, not of the close.
                Err(error) if error.kind() == ErrorKind::Closed => {
                    self.ended = true;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Iterator for Follow {
    type Item = Result<EntryBuf>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step();
        self.ended |= step.is_err();
        step.transpose()
    }
}
