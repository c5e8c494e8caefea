//! Waiting for a watermark, as a thread or as a future.

use crate::commit::Commit;
use crate::commit::Mark;
use crate::commit::Told;
use crate::commit::Waiter;
use crate::commit::Watched;
use crate::cursor::Cursor;
use crate::cursor::pace::REST;
use crate::cursor::view::View;
use crate::error::Result;
use crate::options::Durability;
use crate::units::Offset;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

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
    Waiting { waiter: Arc<Waiter>, mark: Mark, commit: Arc<Commit> },
}

impl Wait {
    /// Until the record at `offset` has reached `level`.
    pub(crate) fn for_level(view: &View, offset: Offset, level: Durability) -> Self {
        Self::from(view, view.commit.watch_record(offset, level))
    }

    /// Until the record that is watched may be read.
    pub(super) fn for_watched(view: &View, watched: Result<Option<Arc<Waiter>>>) -> Self {
        Self::from(view, watched.map(|waiter| waiter.map(|waiter| (waiter, view.mark()))))
    }

    fn from(view: &View, watched: Result<Option<(Arc<Waiter>, Mark)>>) -> Self {
        Self(match watched {
            Ok(Some((waiter, mark))) => {
                State::Waiting { waiter, mark, commit: Arc::clone(&view.commit) }
            }
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
        if let State::Waiting { waiter, mark, commit } = &self.0
            && waiter.is_waiting()
        {
            commit.unwatch(waiter, *mark);
        }
    }
}

impl Cursor {
    /// As [`wait`](Cursor::wait), where no hole is in front of the cursor.
    pub(super) fn wait_here(&mut self, timeout: Duration) -> Result<bool> {
        let start = self.view.commit.monotonic();
        if self.has_next() || self.look(start, timeout)? {
            return Ok(true);
        }
        let Some(waiter) = self.watch(self.view.mark())? else { return Ok(true) };
        let before = self.view.commit.monotonic();
        let left = timeout.saturating_sub(before.saturating_sub(start));
        let told = wait(&self.view, &waiter, self.view.mark(), left);
        self.pace.note(self.view.commit.monotonic().saturating_sub(before));
        told
    }

    /// Whether a record may be read in front of the cursor, where no compaction was.
    fn has_next(&self) -> bool {
        self.cuts == self.view.cuts() && self.stand.offset < self.view.high_watermark()
    }

    /// Looks for a record without being woken for it, if that is worth it; tells whether there is
    /// one.
    fn look(&mut self, now: Duration, timeout: Duration) -> Result<bool> {
        let offset = self.stand.offset;
        if self.pace.is_rushed(now, offset) && self.view.mark() == Mark::Visible {
            let rested = self.rest(REST.min(timeout));
            // What cannot be written may be there to be read all the same.
            return if self.has_next() { Ok(true) } else { rested.map(|()| false) };
        }
        Ok(self.pace.look(&self.view, offset, timeout))
    }

    /// Waits until the next record is written, but not for long, whatever the clock says.
    fn rest(&mut self, timeout: Duration) -> Result<()> {
        let Some(waiter) = self.watch(Mark::Written)? else { return Ok(()) };
        match waiter.wait_once(timeout) {
            Some(Told::Failed(error)) => Err(error),
            Some(_) => Ok(()),
            None => {
                self.view.commit.unwatch(&waiter, Mark::Written);
                Ok(())
            }
        }
    }

    /// A waiter for the next record; `None` if it may be read. An error if its place was cut off,
    /// also while nobody waited.
    pub(super) fn watch(&mut self, mark: Mark) -> Result<Option<Arc<Waiter>>> {
        let target = self.stand.offset.checked_add(1).unwrap_or(Offset::MAX);
        loop {
            if self.cuts != self.view.cuts() {
                self.catch_up()?;
            }
            let (view, cuts) = (&self.view, self.cuts);
            match view.commit.watch(target, mark, || view.cuts() == cuts)? {
                Watched::Reached => return Ok(None),
                Watched::Waiting(waiter) => return Ok(Some(waiter)),
                Watched::Changed => {}
            }
        }
    }
}

/// Blocks until the waiter is told that its record may be read; `false` if `timeout` passes first.
fn wait(view: &View, waiter: &Arc<Waiter>, mark: Mark, timeout: Duration) -> Result<bool> {
    match view.commit.wait_at_most(waiter, timeout) {
        Some(Told::Failed(error)) => Err(error),
        Some(_) => Ok(true),
        None => {
            view.commit.unwatch(waiter, mark);
            Ok(false)
        }
    }
}
