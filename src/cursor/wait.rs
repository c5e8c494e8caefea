//! Waiting for a record, as a thread or as a future.

use crate::commit::Commit;
use crate::commit::Mark;
use crate::commit::Told;
use crate::commit::Waiter;
use crate::commit::Watched;
use crate::cursor::Cursor;
use crate::cursor::view::Side;
use crate::error::Result;
use crate::follow::Follow;
use crate::options::Durability;
use crate::sync::thread;
use crate::units::Offset;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

impl Cursor {
    /// Blocks until there is a record to read, or until `timeout` has passed; tells whether there
    /// is one.
    ///
    /// A cursor of a [`LogReader`](crate::LogReader) looks for news again and again, the seldomer
    /// the longer there was none, but every 5 ms at least. It does not end when the writer does,
    /// for another one may come.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::ErrorKind::Closed) when the log is closed, and
    /// [`Poisoned`](crate::ErrorKind::Poisoned) when it fails: no record will come.
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) if the place has been truncated.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool> {
        self.pass_holes();
        if self.offset() == Offset::MAX {
            // No record ever comes there.
            return Ok(false);
        }
        if let Side::Elsewhere(follow) = self.side() {
            let follow = Arc::clone(follow);
            return self.wait_elsewhere(&follow, timeout);
        }
        match self.watch()? {
            Some((waiter, queue)) => wait(&waiter, &queue, timeout),
            None => Ok(true),
        }
    }

    /// As [`wait`](Cursor::wait) without a timeout, as a future for any executor. It borrows
    /// nothing from the cursor.
    ///
    /// The first such wait for a [`LogReader`](crate::LogReader) starts a thread that looks for
    /// all of them, and ends when the reader and its cursors are gone.
    pub fn wait_async(&mut self) -> Wait {
        self.pass_holes();
        Wait::new(self.watch())
    }

    /// A waiter for the next record; `None` if it may be read. An error if its place was cut off,
    /// also while nobody waited.
    fn watch(&mut self) -> Result<Option<(Arc<Waiter>, Queue)>> {
        let target = self.offset().checked_add(1).unwrap_or(Offset::MAX);
        loop {
            let (view, cuts) = self.caught_up()?;
            let (watched, queue) = match &view.side {
                Side::Here { commit, mark } => (
                    commit.watch(target, *mark, || view.cuts() == cuts)?,
                    Queue::Here(Arc::clone(commit), *mark),
                ),
                Side::Elsewhere(follow) => {
                    (follow.watch(target, cuts)?, Queue::Elsewhere(Arc::clone(follow)))
                }
            };
            match watched {
                Watched::Reached => return Ok(None),
                Watched::Waiting(waiter) => return Ok(Some((waiter, queue))),
                Watched::Changed => {}
            }
        }
    }

    fn wait_elsewhere(&mut self, follow: &Follow, timeout: Duration) -> Result<bool> {
        let deadline = follow.now().checked_add(timeout);
        loop {
            let reached = follow.reaches(self.offset());
            // What was cut says more than what is missing.
            self.caught_up()?;
            if reached? {
                return Ok(true);
            }
            let left = deadline.map(|deadline| deadline.saturating_sub(follow.now()));
            match left.unwrap_or(Duration::MAX) {
                Duration::ZERO => return Ok(false),
                left => thread::park_timeout(follow.pause().min(left)),
            }
        }
    }
}

/// A future that is ready when a watermark has got far enough; see
/// [`Log::wait_async`](crate::Log::wait_async) and
/// [`Cursor::wait_async`](crate::Cursor::wait_async).
///
/// Needs no particular executor. Dropping it forgets the wait.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Wait(State);

#[derive(Debug)]
enum State {
    Ready(Option<Result<()>>),
    Waiting { waiter: Arc<Waiter>, queue: Queue },
}

/// Where a waiter waits.
#[derive(Debug)]
enum Queue {
    Here(Arc<Commit>, Mark),
    Elsewhere(Arc<Follow>),
}

impl Queue {
    fn forget(&self, waiter: &Arc<Waiter>) {
        match self {
            Self::Here(commit, mark) => commit.unwatch(waiter, *mark),
            Self::Elsewhere(follow) => follow.unwatch(waiter),
        }
    }
}

impl Wait {
    /// Until the record at `offset` has reached `level`.
    pub(crate) fn for_level(commit: &Arc<Commit>, offset: Offset, level: Durability) -> Self {
        let watched = commit.watch_record(offset, level);
        let queued = |(waiter, mark)| (waiter, Queue::Here(Arc::clone(commit), mark));
        Self::new(watched.map(|watched| watched.map(queued)))
    }

    fn new(watched: Result<Option<(Arc<Waiter>, Queue)>>) -> Self {
        Self(match watched {
            Ok(Some((waiter, queue))) => State::Waiting { waiter, queue },
            Ok(None) => State::Ready(Some(Ok(()))),
            Err(error) => State::Ready(Some(Err(error))),
        })
    }
}

impl Future for Wait {
    type Output = Result<()>;

    /// # Panics
    ///
    /// If it is polled after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Ready(result) => {
                Poll::Ready(result.take().expect("a future is not polled after it was ready"))
            }
            State::Waiting { waiter, .. } => waiter.poll(context.waker()),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let State::Waiting { waiter, queue } = &self.0
            && waiter.is_waiting()
        {
            queue.forget(waiter);
        }
    }
}

/// Blocks until the waiter is told that its record may be read; `false` if `timeout` passes first.
fn wait(waiter: &Arc<Waiter>, queue: &Queue, timeout: Duration) -> Result<bool> {
    let told = match queue {
        Queue::Here(commit, _) => commit.wait_at_most(waiter, timeout),
        Queue::Elsewhere(follow) => waiter.wait_for(timeout, || follow.now()),
    };
    match told {
        Some(Told::Failed(error)) => Err(error),
        Some(_) => Ok(true),
        None => {
            queue.forget(waiter);
            Ok(false)
        }
    }
}
