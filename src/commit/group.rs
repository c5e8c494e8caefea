//! Group commit: of all who wait for durability one, the leader, syncs for everybody.
//!
//! The first to wait leads. It may wait a moment for company, writes what there is, syncs, wakes
//! exactly those who are covered, and hands the lead to one who is not. While it syncs, others
//! append, and their records are the next group.
//!
//! # Invariants
//!
//! - At most one thread leads, so at most one sync runs; `Front::lead` says whether.
//! - Every committer that waits has a leader, or was told to be one.

use crate::bugs::Bug;
use crate::commit::Commit;
use crate::commit::bell::Urgency;
use crate::commit::front::Front;
use crate::commit::front::Lead;
use crate::commit::waiters::Mark;
use crate::commit::waiters::News;
use crate::commit::waiters::Role;
use crate::commit::waiters::Told;
use crate::commit::waiters::Waiter;
use crate::commit::writer::Purpose;
use crate::commit::writer::SyncTarget;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::options::Durability;
use crate::sync::MutexGuard;
use crate::sync::thread;
use crate::units::Offset;
use std::mem;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a leader waits for company at most. Groups that arrive while a sync runs tend to split
/// in two that take turns; waiting this long joins them again.
const GATHER: Duration = Duration::from_micros(25);

/// What becomes of one who looks on.
#[derive(Debug)]
pub(crate) enum Watched {
    /// The mark is there.
    Reached,
    Waiting(Arc<Waiter>),
    /// The log has been cut.
    Changed,
}

/// What a committer does in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Leads,
    Follows,
}

impl Commit {
    /// Blocks until everything appended so far is durable.
    pub(crate) fn sync(&self) -> Result<()> {
        let front = self.front.lock();
        let end = front.tail.end();
        self.wait_in(front, end, Mark::Durable, Role::Syncer)
    }

    /// Blocks until the record at `offset` has reached `level`.
    pub(crate) fn wait_for_record(&self, offset: Offset, level: Durability) -> Result<()> {
        let front = self.front.lock();
        let (target, mark) = target(&front, offset, level)?;
        self.wait_in(front, target, mark, Role::Committer)
    }

    /// Blocks until the mark is at or beyond `target`, which is not beyond the end.
    fn wait_in(
        &self,
        mut front: MutexGuard<'_, Front>,
        target: Offset,
        mark: Mark,
        role: Role,
    ) -> Result<()> {
        if self.reached(mark) >= target {
            return Ok(());
        }
        front.life.check_writable()?;
        let waiter = Waiter::new(target, role);
        let part = self.enlist(&mut front, mark, &waiter);
        drop(front);
        self.see_through(&waiter, mark, part)
    }

    /// A waiter for the record at `offset` that does no work itself; `None` if it is there.
    pub(crate) fn watch_record(
        &self,
        offset: Offset,
        level: Durability,
    ) -> Result<Option<(Arc<Waiter>, Mark)>> {
        let front = self.front.lock();
        let (target, mark) = target(&front, offset, level)?;
        let watched = self.watch_in(front, target, mark, Role::Future)?;
        if watched.is_some() {
            self.bell.call(Urgency::Now);
        }
        Ok(watched.map(|waiter| (waiter, mark)))
    }

    /// An onlooker for `mark` to be at or beyond `target`, unless what it knows of the log's cuts
    /// has changed. A cut that comes later tells it.
    pub(crate) fn watch(
        &self,
        target: Offset,
        mark: Mark,
        is_unchanged: impl FnOnce() -> bool,
    ) -> Result<Watched> {
        let front = self.front.lock();
        if !is_unchanged() {
            return Ok(Watched::Changed);
        }
        let waiter = self.watch_in(front, target, mark, Role::Onlooker)?;
        Ok(waiter.map_or(Watched::Reached, Watched::Waiting))
    }

    fn watch_in(
        &self,
        mut front: MutexGuard<'_, Front>,
        target: Offset,
        mark: Mark,
        role: Role,
    ) -> Result<Option<Arc<Waiter>>> {
        if self.reached(mark) >= target {
            return Ok(None);
        }
        front.life.check_writable()?;
        let waiter = Waiter::new(target, role);
        front.waiters.add(mark, Arc::clone(&waiter));
        Ok(Some(waiter))
    }

    /// Blocks until a waiter that does no work is told its outcome, or until `timeout` has passed.
    pub(crate) fn wait_at_most(&self, waiter: &Waiter, timeout: Duration) -> Option<Told> {
        waiter.wait_for(timeout, || self.clock.monotonic())
    }

    /// Forgets a waiter that gave up.
    pub(crate) fn unwatch(&self, waiter: &Arc<Waiter>, mark: Mark) {
        self.front.lock().waiters.remove(mark, waiter);
    }

    /// Syncs once for everything appended, unless somebody is at it; for the background thread.
    /// Tells whether there is more to sync by now.
    pub(crate) fn sync_in_background(&self) -> bool {
        let mut front = self.front.lock();
        front.rung = Urgency::Never;
        let idle = front.lead == Lead::Free && front.life.check_writable().is_ok();
        if idle && self.marks.durable() < self.marks.end() {
            front.lead = Lead::Taken;
            drop(front);
            self.lead(None);
        } else {
            drop(front);
        }
        let mut front = self.front.lock();
        let more = self.marks.durable() < self.marks.end() && front.life.check().is_ok();
        if more {
            front.rung = front.rung.max(Urgency::Soon);
        }
        more
    }

    /// Queues a waiter and gives the part it plays.
    pub(super) fn enlist(&self, front: &mut Front, mark: Mark, waiter: &Arc<Waiter>) -> Part {
        front.waiters.add(mark, Arc::clone(waiter));
        if mark != Mark::Durable {
            return Part::Follows;
        }
        self.count_committing(front);
        match mem::replace(&mut front.lead, Lead::Taken) {
            Lead::Free => Part::Leads,
            Lead::Taken => Part::Follows,
        }
    }

    pub(super) fn count_committing(&self, front: &Front) {
        self.committing.store(front.waiters.durable_count(), Ordering::Relaxed);
    }

    /// Does what it takes until a waiter is told its outcome.
    pub(super) fn see_through(&self, waiter: &Waiter, mark: Mark, mut part: Part) -> Result<()> {
        if mark == Mark::Written {
            // Whoever writes, or fails to, tells everybody it concerns, this waiter too.
            drop(self.write_out(waiter.target(), Purpose::Write));
        }
        loop {
            if part == Part::Leads {
                self.lead(Some(waiter));
            }
            match waiter.wait() {
                Told::Reached => return Ok(()),
                Told::Failed(error) => return Err(error),
                Told::Lead => part = Part::Leads,
            }
        }
    }

    /// Syncs once for all and hands the lead on. `own` is that of the thread, if it waits itself.
    fn lead(&self, own: Option<&Waiter>) {
        self.gather();
        let mut news = News::default();
        // An error is among the news of everybody who waits for what it keeps from being durable,
        // this thread's too.
        drop(self.sync_once(&mut news));
        self.hand_on_lead(own);
        // Not before: a task may sync when it is woken, and that takes a leader.
        news.tell();
    }

    fn hand_on_lead(&self, own: Option<&Waiter>) {
        loop {
            let mut front = self.front.lock();
            let successor = front.waiters.next_leader();
            // It has its outcome, whatever that is, and would lead for ever if it had none.
            let is_own = |next: &Arc<Waiter>| own.is_some_and(|own| ptr::eq(own, &**next));
            debug_assert!(!successor.as_ref().is_some_and(is_own), "a leader was not told");
            front.lead = if successor.is_some() { Lead::Taken } else { Lead::Free };
            let rings = front.waiters.wants_sync(self.marks.end());
            drop(front);
            match successor {
                Some(successor) if successor.offer_lead() => return,
                // It was told that it failed, and left: on to the next.
                Some(_) => {}
                None if rings => return self.bell.call(Urgency::Now),
                None => return,
            }
        }
    }

    /// Waits until as many have come as there were last time, but not for long.
    fn gather(&self) {
        let company = self.front.lock().company;
        if company < 2 {
            return;
        }
        let start = self.clock.monotonic();
        while self.committing.load(Ordering::Relaxed) < company {
            if self.clock.monotonic().saturating_sub(start) >= GATHER {
                break;
            }
            thread::yield_now();
        }
    }

    /// Writes and syncs what there is; those it covers are among the news.
    fn sync_once(&self, news: &mut News) -> Result<()> {
        let until = self.marks.end();
        let written = self.write_with(&mut self.writer.lock(), until, Purpose::Sync, news);
        // A thread need not wait for the sync to hear of a write. A task may sync when it is woken,
        // and that takes a leader.
        news.tell_threads();
        let target = match written {
            Ok(target) => target,
            Err(_) => {
                self.front.lock().life.check_writable()?;
                // That a write is refused does not keep from syncing what was written before.
                self.writer.lock().sync_target(self.marks.durable())
            }
        };
        self.sync_files(&target, news)
    }

    /// Syncs what a target has to cover; those it covers are among the news.
    pub(super) fn sync_files(&self, target: &SyncTarget, news: &mut News) -> Result<()> {
        let syncing = self.syncing.lock();
        let written_bytes = {
            let front = self.front.lock();
            // The one who synced before may have failed.
            front.life.check_writable()?;
            front.written_bytes
        };
        for file in &target.files {
            let synced = Bug::AckBeforeSync.spares(|| file.sync());
            let synced = Bug::SyncErrorIgnored.forgives(synced);
            synced.map_err(|error| self.poison(error, news))?;
        }
        let mut front = self.front.lock();
        front.life.check_writable()?;
        if front.cuts != target.cuts {
            // What the target covered was cut since, and what was not is durable.
            return Ok(());
        }
        front.durable_bytes = front.durable_bytes.max(written_bytes);
        let end = if Bug::SyncCoversMore.is_on() { self.marks.written() } else { target.end };
        let durable = self.marks.durable().max(end);
        self.marks.set_durable(durable);
        let reached = front.waiters.take_reached(Mark::Durable, durable);
        let released = reached.len();
        news.reached(reached);
        front.counters.synced(released);
        front.company = released + front.waiters.durable_count();
        self.count_committing(&front);
        drop(front);
        drop(syncing);
        // Before anybody is told.
        self.post();
        Ok(())
    }

    fn reached(&self, mark: Mark) -> Offset {
        match mark {
            Mark::Visible => self.marks.visible(),
            Mark::Written => self.marks.written(),
            Mark::Durable => self.marks.durable(),
        }
    }
}

/// The mark and target of a level for a record that was appended.
fn target(front: &Front, offset: Offset, level: Durability) -> Result<(Offset, Mark)> {
    let end = front.tail.end();
    let target = offset.checked_add(1).filter(|target| *target <= end);
    let Some(target) = target else {
        let what = format!("no record has offset {offset}, the log ends at {end}");
        return Err(Error::new(ErrorKind::OutOfRange, what).with_offset(end));
    };
    Ok(match level {
        // Appended is all that is asked for.
        Durability::Buffered => (Offset::ZERO, Mark::Visible),
        Durability::Written => (target, Mark::Written),
        Durability::Synced => (target, Mark::Durable),
    })
}
