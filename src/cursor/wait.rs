//! Waiting for a watermark, as a thread or as a future.

use crate::commit::Commit;
use crate::commit::Mark;
use crate::commit::Told;
use crate::commit::Waiter;
use crate::commit::Watched;
use crate::cursor::Cursor;
use crate::cursor::pace::REST;
use crate::cursor::view::Side;
use crate::cursor::view::View;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::follow::Followed;
use crate::options::Durability;
use crate::sync::thread;
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
    Waiting { waiter: Arc<Waiter>, queue: Queue },
}

/// Where a waiter waits.
#[derive(Debug)]
pub(super) enum Queue {
    Here(Arc<Commit>, Mark),
    Elsewhere(Arc<Followed>),
}

/// A waiter for a record, and where it waits; `None` if the record may be read.
pub(super) type Queued = Option<(Arc<Waiter>, Queue)>;

impl Wait {
    /// Until the record at `offset` has reached `level`.
    pub(crate) fn for_level(commit: &Arc<Commit>, offset: Offset, level: Durability) -> Self {
        let watched = commit.watch_record(offset, level);
        let queued = |(waiter, mark)| (waiter, Queue::Here(Arc::clone(commit), mark));
        Self::new(watched.map(|watched| watched.map(queued)))
    }

    pub(super) fn new(queued: Result<Queued>) -> Self {
        Self(match queued {
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
            match queue {
                Queue::Here(commit, mark) => commit.unwatch(waiter, *mark),
                Queue::Elsewhere(followed) => followed.unwatch(waiter),
            }
        }
    }
}

impl Cursor {
    /// As [`wait`](Cursor::wait), where no hole is in front of the cursor.
    pub(super) fn wait_for_record(&mut self, timeout: Duration) -> Result<bool> {
        match &self.view.side {
            Side::Here { .. } if self.has_next() => Ok(true),
            Side::Here { commit, mark } => {
                let (commit, mark) = (Arc::clone(commit), *mark);
                self.wait_here(&commit, mark, timeout)
            }
            Side::Elsewhere(followed) => {
                let followed = Arc::clone(followed);
                self.wait_elsewhere(&followed, timeout)
            }
        }
    }

    fn wait_here(&mut self, commit: &Commit, mark: Mark, timeout: Duration) -> Result<bool> {
        let start = commit.monotonic();
        if self.look(commit, mark, start, timeout)? {
            return Ok(true);
        }
        let Some(waiter) = self.watch(commit, mark)? else { return Ok(true) };
        let before = commit.monotonic();
        let left = timeout.saturating_sub(before.saturating_sub(start));
        let told = wait(commit, &waiter, mark, left);
        self.pace.note(commit.monotonic().saturating_sub(before));
        told
    }

    fn wait_elsewhere(&mut self, followed: &Followed, timeout: Duration) -> Result<bool> {
        let deadline = followed.now().checked_add(timeout);
        loop {
            let reached = followed.reaches(self.stand.offset);
            // What was cut says more than what is missing.
            self.know_cuts()?;
            if reached? {
                return Ok(true);
            }
            let left = deadline.map(|deadline| deadline.saturating_sub(followed.now()));
            match left.unwrap_or(Duration::MAX) {
                Duration::ZERO => return Ok(false),
                left => thread::park_timeout(followed.pause().min(left)),
            }
        }
    }

    /// Whether a record may be read in front of the cursor, where no compaction was.
    fn has_next(&self) -> bool {
        self.cuts == self.view.cuts() && self.stand.offset < self.view.high_watermark()
    }

    /// Looks for a record without being woken for it, if that is worth it; tells whether there is
    /// one.
    fn look(
        &mut self,
        commit: &Commit,
        mark: Mark,
        now: Duration,
        timeout: Duration,
    ) -> Result<bool> {
        let offset = self.stand.offset;
        if self.pace.is_rushed(now, offset) && mark == Mark::Visible {
            let rested = self.rest(commit, REST.min(timeout));
            // What cannot be written may be there to be read all the same.
            return if self.has_next() { Ok(true) } else { rested.map(|()| false) };
        }
        Ok(self.pace.look(commit, &self.view, offset, timeout))
    }

    /// Waits until the next record is written, but not for long, whatever the clock says.
    fn rest(&mut self, commit: &Commit, timeout: Duration) -> Result<()> {
        let Some(waiter) = self.watch(commit, Mark::Written)? else { return Ok(()) };
        match waiter.wait_once(timeout) {
            Some(Told::Failed(error)) => Err(error),
            Some(_) => Ok(()),
            None => {
                commit.unwatch(&waiter, Mark::Written);
                Ok(())
            }
        }
    }

    /// A waiter for the next record, in the queue of whoever learns of it.
    pub(super) fn watch_place(&mut self) -> Result<Queued> {
        if self.stand.offset == Offset::MAX {
            let what = "no record ever comes behind the last offset there can be";
            return Err(Error::new(ErrorKind::OutOfRange, what).with_offset(Offset::MAX));
        }
        match &self.view.side {
            Side::Here { commit, mark } => {
                let (commit, mark) = (Arc::clone(commit), *mark);
                let waiter = self.watch(&commit, mark)?;
                Ok(waiter.map(|waiter| (waiter, Queue::Here(commit, mark))))
            }
            Side::Elsewhere(followed) => {
                let followed = Arc::clone(followed);
                let waiter = self.watch_by(|target, _, cuts| followed.watch(target, cuts))?;
                Ok(waiter.map(|waiter| (waiter, Queue::Elsewhere(followed))))
            }
        }
    }

    /// A waiter for the next record; `None` if it has reached the mark.
    fn watch(&mut self, commit: &Commit, mark: Mark) -> Result<Option<Arc<Waiter>>> {
        self.watch_by(|target, view, cuts| commit.watch(target, mark, || view.cuts() == cuts))
    }

    /// An error if the place was cut off, also while nobody waited.
    fn watch_by(
        &mut self,
        watch: impl Fn(Offset, &View, u64) -> Result<Watched>,
    ) -> Result<Option<Arc<Waiter>>> {
        let target = self.stand.offset.checked_add(1).unwrap_or(Offset::MAX);
        loop {
            self.know_cuts()?;
            match watch(target, &self.view, self.cuts)? {
                Watched::Reached => return Ok(None),
                Watched::Waiting(waiter) => return Ok(Some(waiter)),
                Watched::Changed => {}
            }
        }
    }

    fn know_cuts(&mut self) -> Result<()> {
        if self.cuts != self.view.cuts() { self.catch_up() } else { Ok(()) }
    }
}

/// Blocks until the waiter is told that its record may be read; `false` if `timeout` passes first.
fn wait(commit: &Commit, waiter: &Arc<Waiter>, mark: Mark, timeout: Duration) -> Result<bool> {
    match commit.wait_at_most(waiter, timeout) {
        Some(Told::Failed(error)) => Err(error),
        Some(_) => Ok(true),
        None => {
            commit.unwatch(waiter, mark);
            Ok(false)
        }
    }
}
