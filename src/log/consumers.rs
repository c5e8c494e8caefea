//! Named consumers, as the log gives them out.

use crate::cursor::Consumer;
use crate::cursor::ConsumerParts;
use crate::error::Error;
use crate::error::Result;
use crate::log::Log;
use crate::units::Offset;
use std::sync::Arc;

/// A consumer of the log, as [`Log::consumers`] finds it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsumerInfo {
    /// Its name.
    pub name: String,
    /// The position it has committed; `None` if that cannot be read.
    pub committed: Option<Offset>,
    /// How many offsets there are from there to the high watermark.
    pub lag: Option<u64>,
    /// Whether a handle holds it.
    pub is_held: bool,
    /// Why its position cannot be read, or not be written any more.
    pub error: Option<Error>,
}

impl Log {
    /// Takes hold of the consumer with this name, at the position that it has committed. If there
    /// is none it is made, durably, at the start of the log.
    ///
    /// Names are 1 to 128 of `A-Z a-z 0-9 . _ -`, and do not begin with a dot.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for another name;
    /// [`Locked`](crate::ErrorKind::Locked) if another handle holds it;
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if its position is damaged, with the file, which may
    /// be restored; if it is lost, [`remove_consumer`](Log::remove_consumer) is the way out, and
    /// the consumer begins at the start again. [`Closed`](crate::ErrorKind::Closed);
    /// [`Io`](crate::ErrorKind::Io) and [`StorageFull`](crate::ErrorKind::StorageFull) as the
    /// system reports; [`Poisoned`](crate::ErrorKind::Poisoned) after a failed sync of the
    /// directory of consumers, until the log is opened again, and for the first consumer of a log
    /// that takes no more records.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use stratalog::{storage::MemoryStorage, Options};
    /// # let log = Options::new().storage(Arc::new(MemoryStorage::new())).open("orders")?;
    /// log.append("order 1")?;
    /// let mut billing = log.consumer("billing")?;
    /// while let Some(order) = billing.next()? {
    ///     println!("a bill for {}", order.value().escape_ascii());
    ///     billing.commit()?;
    /// }
    /// # Ok::<(), stratalog::Error>(())
    /// ```
    pub fn consumer(&self, name: &str) -> Result<Consumer> {
        let parts = ConsumerParts {
            view: self.view().clone(),
            commit: Arc::clone(&self.0.commit),
            consumers: Arc::clone(&self.0.keeper.consumers),
            keeper: self.0.keeper.bell.clone(),
        };
        Consumer::hold(parts, name)
    }

    /// All consumers, by name, held or not.
    ///
    /// # Errors
    ///
    /// As [`consumer`](Log::consumer), for the directory. That a position cannot be read is no
    /// error of this call: it is told with the consumer.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use stratalog::{storage::MemoryStorage, Options};
    /// # let log = Options::new().storage(Arc::new(MemoryStorage::new())).open("orders")?;
    /// log.append("order 1")?;
    /// log.consumer("billing")?;
    /// let consumers = log.consumers()?;
    /// assert_eq!((&*consumers[0].name, consumers[0].lag), ("billing", Some(1)));
    /// # Ok::<(), stratalog::Error>(())
    /// ```
    pub fn consumers(&self) -> Result<Vec<ConsumerInfo>> {
        let standings = self.0.keeper.consumers.list()?.into_iter();
        let end = self.high_watermark();
        let info = standings.map(|standing| ConsumerInfo {
            lag: standing.committed.map(|committed| end.saturating_since(committed)),
            name: standing.name,
            committed: standing.committed,
            is_held: standing.is_held,
            error: standing.error,
        });
        Ok(info.collect())
    }

    /// Removes a consumer and its position, durably, also one that is damaged; tells whether there
    /// was one.
    ///
    /// # Errors
    ///
    /// [`Locked`](crate::ErrorKind::Locked) if a handle holds it; otherwise as
    /// [`consumer`](Log::consumer). After an error of the system it may be there or not.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use stratalog::{storage::MemoryStorage, Options};
    /// # let log = Options::new().storage(Arc::new(MemoryStorage::new())).open("orders")?;
    /// drop(log.consumer("billing")?);
    /// assert!(log.remove_consumer("billing")?);
    /// assert!(!log.remove_consumer("billing")?);
    /// # Ok::<(), stratalog::Error>(())
    /// ```
    pub fn remove_consumer(&self, name: &str) -> Result<bool> {
        let removed = self.0.keeper.consumers.remove(name)?;
        if let (true, Some(keeper)) = (removed, &self.0.keeper.bell) {
            // Retention may have waited for it.
            keeper.call(crate::commit::Urgency::Soon);
        }
        Ok(removed)
    }
}
