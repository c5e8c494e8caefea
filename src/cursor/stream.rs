//! The records there are and those to come, as a stream.

use crate::cursor::Cursor;
use crate::cursor::EntryBuf;
use crate::cursor::Wait;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::units::Offset;
use futures_core::Stream;
use std::pin::Pin;
use std::task::{Context, Poll};

/// All records from a place on, each with bytes of its own, as a stream for any executor. From
/// [`Log::stream`](crate::Log::stream) or [`Cursor::stream`](crate::Cursor::stream), with the
/// feature `stream`.
///
/// It ends as [`Follow`](crate::Follow) does: when the log is closed and everything that may be
/// read was, or behind an error. It is `Send` and `Unpin`. Dropping the future of one item loses no
/// record, so it may be one of several that are waited for; dropping the stream forgets its wait.
///
/// A record that is not in memory is read from its file by the thread that polls.
///
/// # Examples
///
/// ```
/// # use std::sync::Arc;
/// # use stratalog::{storage::MemoryStorage, Options, Seek};
/// use futures_lite::StreamExt;
///
/// # let log = Options::new().storage(Arc::new(MemoryStorage::new())).open("orders")?;
/// log.append_batch(["one", "two"])?;
/// let mut stream = log.stream(Seek::Start)?;
/// # futures_lite::future::block_on(async {
/// while let Some(entry) = stream.next().await {
///     let entry = entry?;
///     println!("{}: {}", entry.offset(), entry.value().escape_ascii());
/// #   if entry.offset().get() == 1 { log.close()?; }
/// }
/// # Ok::<(), stratalog::Error>(())
/// # })?;
/// # Ok::<(), stratalog::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is polled"]
pub struct EntryStream {
    cursor: Cursor,
    wait: Option<Wait>,
    ended: bool,
}

impl EntryStream {
    pub(super) fn new(cursor: Cursor) -> Self {
        Self { cursor, wait: None, ended: false }
    }

    /// The cursor, which stands behind the last record it gave.
    #[must_use]
    pub fn into_cursor(self) -> Cursor {
        self.cursor
    }

    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<EntryBuf>>> {
        loop {
            if let Some(wait) = &mut self.wait {
                let Poll::Ready(told) = Pin::new(wait).poll(context) else {
                    return Poll::Pending;
                };
                self.wait = None;
                match told {
                    // Who waits is told of what a close makes visible, not of the close.
                    Err(error) if error.kind() == ErrorKind::Closed => {
                        self.ended = true;
                        return Poll::Ready(Ok(None));
                    }
                    told => told?,
                }
            }
            let next = self.cursor.next_buf()?;
            if next.is_some() {
                return Poll::Ready(Ok(next));
            }
            if self.cursor.offset() == Offset::MAX {
                // No record ever comes there.
                self.ended = true;
                return Poll::Ready(Ok(None));
            }
            self.wait = Some(self.cursor.wait_async());
        }
    }
}

impl Stream for EntryStream {
    type Item = Result<EntryBuf>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let step = self.poll_step(context);
        self.ended |= matches!(step, Poll::Ready(Err(_)));
        step.map(Result::transpose)
    }
}
