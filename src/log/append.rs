//! Appending: one record or many, at the end or at an expected one, at any durability.

use crate::bugs::Bug;
use crate::commit::Encoded;
use crate::error::Result;
use crate::log::Log;
use crate::options::Durability;
use crate::record::Record;
use crate::units::Offset;
use std::ops::Range;

impl Log {
    /// Appends a record and returns its offset when it is as durable as the log was opened for.
    ///
    /// # Errors
    ///
    /// [`TooLarge`](crate::ErrorKind::TooLarge) if it is over `max_batch_bytes`;
    /// [`StorageFull`](crate::ErrorKind::StorageFull) if there is no space: without
    /// [`Error::offset`](crate::Error::offset) it is not in the log, with it, it is there as a
    /// buffered record (others, accepted as buffered, were behind it already);
    /// [`Poisoned`](crate::ErrorKind::Poisoned) after a failed write or sync, and then, as after
    /// any failed sync, whether it is found after a crash is open;
    /// [`Closed`](crate::ErrorKind::Closed).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use stratalog::{storage::MemoryStorage, Options, Record};
    /// # let log = Options::new().storage(Arc::new(MemoryStorage::new())).open("orders")?;
    /// log.append("a value")?;
    /// log.append(vec![1, 2, 3])?;
    /// log.append(Record::new("v").key("k").header("trace", "7f3a"))?;
    /// log.append(Record::tombstone("k"))?;
    /// # Ok::<(), stratalog::Error>(())
    /// ```
    pub fn append<'a>(&self, record: impl Into<Record<'a>>) -> Result<Offset> {
        self.append_with(self.0.durability, record)
    }

    /// As [`append`](Log::append), at a durability of its own.
    ///
    /// # Errors
    ///
    /// As [`append`](Log::append).
    pub fn append_with<'a>(
        &self,
        level: Durability,
        record: impl Into<Record<'a>>,
    ) -> Result<Offset> {
        self.commit().append(&record.into(), level)
    }

    /// Appends records as one unit and returns the range of their offsets. After a crash all of
    /// them are there, or none is; no reader ever sees a part. No records are an empty range at the
    /// end of the log.
    ///
    /// # Errors
    ///
    /// As [`append`](Log::append), for all of them.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use stratalog::{storage::MemoryStorage, Offset, Options};
    /// # let log = Options::new().storage(Arc::new(MemoryStorage::new())).open("orders")?;
    /// let range = log.append_batch(["debit a", "credit b"])?;
    /// assert_eq!(range, Offset::from(0)..Offset::from(2));
    /// # Ok::<(), stratalog::Error>(())
    /// ```
    pub fn append_batch<'a, I>(&self, records: I) -> Result<Range<Offset>>
    where
        I: IntoIterator,
        I::Item: Into<Record<'a>>,
    {
        self.append_batch_with(self.0.durability, records)
    }

    /// As [`append_batch`](Log::append_batch), at a durability of its own.
    ///
    /// # Errors
    ///
    /// As [`append_batch`](Log::append_batch).
    pub fn append_batch_with<'a, I>(&self, level: Durability, records: I) -> Result<Range<Offset>>
    where
        I: IntoIterator,
        I::Item: Into<Record<'a>>,
    {
        if Bug::BatchInPieces.is_on() {
            let start = self.end_offset();
            let mut records = records.into_iter();
            records.try_for_each(|record| self.append_with(level, record).map(drop))?;
            return Ok(start..self.end_offset());
        }
        self.commit().append_encoded(self.encode(records)?, level, None)
    }

    /// As [`append_batch`](Log::append_batch), but only if the log ends at `expected_end`.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::ErrorKind::Conflict) if it ends elsewhere, also for no records; then
    /// nothing was appended, and [`Error::offset`](crate::Error::offset) is its end. Otherwise as
    /// [`append_batch`](Log::append_batch).
    pub fn append_at<'a, I>(&self, expected_end: Offset, records: I) -> Result<Range<Offset>>
    where
        I: IntoIterator,
        I::Item: Into<Record<'a>>,
    {
        self.append_at_with(self.0.durability, expected_end, records)
    }

    /// As [`append_at`](Log::append_at), at a durability of its own.
    ///
    /// # Errors
    ///
    /// As [`append_at`](Log::append_at).
    pub fn append_at_with<'a, I>(
        &self,
        level: Durability,
        expected_end: Offset,
        records: I,
    ) -> Result<Range<Offset>>
    where
        I: IntoIterator,
        I::Item: Into<Record<'a>>,
    {
        self.commit().append_encoded(self.encode(records)?, level, Some(expected_end))
    }

    /// Encodes a batch before any lock is taken, since the caller's iterator may take its time.
    fn encode<'a, I>(&self, records: I) -> Result<Encoded>
    where
        I: IntoIterator,
        I::Item: Into<Record<'a>>,
    {
        let mut encoded = Encoded::new();
        for record in records {
            encoded.push(&record.into(), self.0.max_batch_bytes)?;
        }
        Ok(encoded)
    }
}
