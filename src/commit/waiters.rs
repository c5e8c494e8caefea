//! Who waits for which watermark, and how each is woken: by itself, thread or future alike.
//!
//! # Invariants
//!
//! - A waiter is told its outcome once, and nobody is left untold: reaching the mark, failing, and
//!   closing each empty the queues they concern.
//! - The queues are ordered by target, so that reaching a mark takes from the front.

use crate::error::Error;
use crate::error::Result;
use crate::events::event;
use crate::sync::Mutex;
use crate::sync::MutexGuard;
use crate::sync::thread;
use crate::sync::thread::Thread;
use crate::units::Offset;
use std::any::Any;
use std::collections::VecDeque;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// The mark a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Visible,
    Written,
    Durable,
}

/// What a waiter is to the group: only a thread that waits for its own commit can lead a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A thread inside `append` or `wait`.
    Committer,
    /// A thread inside `sync`: it wants all that there is to be durable.
    Syncer,
    /// A future: it wants a sync and cannot do it.
    Future,
    /// A cursor: it wants nothing done on its behalf.
    Onlooker,
}

/// One who waits until a mark is at or beyond a target.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// An exclusive end offset.
    target: Offset,
    role: Role,
    place: Mutex<Place>,
}

#[derive(Debug)]
struct Place {
    /// Set once.
    outcome: Option<Result<()>>,
    duty: Duty,
    wake: Option<Wake>,
}

/// Whether a waiter leads. Apart from its outcome, so that a waiter that is told both, in whatever
/// order, leads before it leaves: otherwise the lead would be lost, and all who wait with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    None,
    Lead,
    /// It has its outcome and looks no more.
    Gone,
}

/// What a waiter is told.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// The mark is there.
    Reached,
    /// It never will be.
    Failed(Error),
    /// Not yet; lead the next sync.
    Lead,
}

#[derive(Debug)]
enum Wake {
    Thread(Thread),
    Task(Waker),
}

impl Waiter {
    pub(crate) fn new(target: Offset, role: Role) -> Arc<Self> {
        let place = Place { outcome: None, duty: Duty::None, wake: None };
        Arc::new(Self { target, role, place: Mutex::new(place) })
    }

    pub(crate) fn target(&self) -> Offset {
        self.target
    }

    /// Blocks until told. After [`Told::Lead`] it waits again.
    pub(crate) fn wait(&self) -> Told {
        loop {
            if let Some(told) = self.look(|| Wake::Thread(thread::current())) {
                return told;
            }
            thread::park();
        }
    }

    /// As [`wait`](Waiter::wait), but gives up after `timeout`; `now` is a monotonic clock.
    pub(crate) fn wait_for(&self, timeout: Duration, now: impl Fn() -> Duration) -> Option<Told> {
        let deadline = now().checked_add(timeout);
        loop {
            if let Some(told) = self.look(|| Wake::Thread(thread::current())) {
                return Some(told);
            }
            let left = deadline.map(|deadline| deadline.saturating_sub(now()));
            match left {
                Some(Duration::ZERO) => return None,
                Some(left) => thread::park_timeout(left),
                None => thread::park(),
            }
        }
    }

    /// As [`wait_for`](Waiter::wait_for), but gives up when it is woken for whatever reason.
    pub(crate) fn wait_once(&self, timeout: Duration) -> Option<Told> {
        let wake = || Wake::Thread(thread::current());
        self.look(wake).or_else(|| {
            thread::park_timeout(timeout);
            self.look(wake)
        })
    }

    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Result<()>> {
        let wake = Wake::Task(waker.clone());
        match self.look(|| wake) {
            Some(Told::Failed(error)) => Poll::Ready(Err(error)),
            Some(_) => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }

    /// What it is told, or nothing, and then `wake` is how to tell it.
    fn look(&self, wake: impl FnOnce() -> Wake) -> Option<Told> {
        let mut place = self.place.lock();
        if place.duty == Duty::Lead {
            place.duty = Duty::None;
            return Some(Told::Lead);
        }
        let told = match &place.outcome {
            Some(Ok(())) => Told::Reached,
            Some(Err(error)) => Told::Failed(error.clone()),
            None => {
                let before = place.wake.replace(wake());
                drop(place);
                // It may let go of the last handle of the log, which tells this waiter.
                drop(before);
                return None;
            }
        };
        place.duty = Duty::Gone;
        Some(told)
    }

    /// Whether it has no outcome yet.
    pub(crate) fn is_waiting(&self) -> bool {
        self.place.lock().outcome.is_none()
    }

    /// Gives it its outcome and wakes it. Not while the front is locked: waking takes time.
    pub(crate) fn tell(&self, outcome: Result<()>) {
        let mut place = self.place.lock();
        if place.outcome.is_none() {
            place.outcome = Some(outcome);
        }
        wake(place);
    }

    /// As [`tell`](Waiter::tell), unless that would wake a task; `false` if it would.
    fn tell_thread(&self, outcome: &Result<()>) -> bool {
        let mut place = self.place.lock();
        if let Some(Wake::Task(_)) = place.wake {
            return false;
        }
        if place.outcome.is_none() {
            place.outcome = Some(outcome.clone());
        }
        wake(place);
        true
    }

    /// Makes it lead the next sync; `false` if it has gone already.
    pub(crate) fn offer_lead(&self) -> bool {
        let mut place = self.place.lock();
        let takes = place.duty != Duty::Gone;
        if takes {
            place.duty = Duty::Lead;
        }
        wake(place);
        takes
    }
}

fn wake(mut place: MutexGuard<'_, Place>) {
    let wake = place.wake.take();
    drop(place);
    match wake {
        Some(Wake::Thread(thread)) => thread.unpark(),
        Some(Wake::Task(waker)) => waker.wake(),
        None => {}
    }
}

/// The waiters of a log, a queue for each mark.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    visible: VecDeque<Arc<Waiter>>,
    written: VecDeque<Arc<Waiter>>,
    durable: VecDeque<Arc<Waiter>>,
}

impl Waiters {
    /// Queues a waiter: nearly always at the back, since offsets grow.
    pub(crate) fn add(&mut self, mark: Mark, waiter: Arc<Waiter>) {
        let queue = self.queue(mark);
        let mut place = queue.len();
        while place > 0 && queue.get(place - 1).is_some_and(|other| other.target > waiter.target) {
            place -= 1;
        }
        queue.insert(place, waiter);
    }

    /// Takes out those whose target `reached` covers.
    pub(crate) fn take_reached(
        &mut self,
        mark: Mark,
        reached: Offset,
    ) -> impl ExactSizeIterator<Item = Arc<Waiter>> {
        let queue = self.queue(mark);
        let count = queue.partition_point(|waiter| waiter.target <= reached);
        queue.drain(..count)
    }

    /// Whether anybody waits for the mark.
    #[inline]
    pub(crate) fn is_empty(&self, mark: Mark) -> bool {
        match mark {
            Mark::Visible => self.visible.is_empty(),
            Mark::Written => self.written.is_empty(),
            Mark::Durable => self.durable.is_empty(),
        }
    }

    /// Whether a future waits for a record below `end` to be written or durable.
    pub(crate) fn wants_sync(&self, end: Offset) -> bool {
        [&self.written, &self.durable].into_iter().any(|queue| {
            let below = queue.iter().take_while(|waiter| waiter.target <= end);
            below.into_iter().any(|waiter| waiter.role == Role::Future)
        })
    }

    /// How many wait for durability.
    pub(crate) fn durable_count(&self) -> usize {
        self.durable.len()
    }

    /// The first waiter that can lead the next sync.
    pub(crate) fn next_leader(&self) -> Option<Arc<Waiter>> {
        let leads = |role| matches!(role, Role::Committer | Role::Syncer);
        self.durable.iter().find(|waiter| leads(waiter.role)).cloned()
    }

    /// Takes out those who want more than `written` now; those who look on stay.
    pub(crate) fn take_refused(&mut self, written: Offset) -> Vec<Arc<Waiter>> {
        self.take_if(|waiter| waiter.role != Role::Onlooker && waiter.target > written)
    }

    /// Takes out those whose record was removed when the log was cut back to `end`. Who waits for
    /// the record to come there waits on.
    pub(crate) fn take_beyond(&mut self, end: Offset) -> Vec<Arc<Waiter>> {
        let next = end.checked_add(1).unwrap_or(Offset::MAX);
        self.take_if(|waiter| match waiter.role {
            Role::Onlooker => waiter.target > next,
            Role::Committer | Role::Syncer | Role::Future => waiter.target > end,
        })
    }

    /// Takes out those who want all to be durable, since the log was cut and is.
    pub(crate) fn take_syncers(&mut self) -> Vec<Arc<Waiter>> {
        self.take_if(|waiter| waiter.role == Role::Syncer)
    }

    /// Takes out those whose target is at or below `start`.
    pub(crate) fn take_passed(&mut self, start: Offset) -> Vec<Arc<Waiter>> {
        self.take_if(|waiter| waiter.target <= start)
    }

    /// Takes out all who wait for more than can be had any more.
    pub(crate) fn take_all(&mut self) -> Vec<Arc<Waiter>> {
        let queues = [&mut self.visible, &mut self.written, &mut self.durable];
        queues.into_iter().flat_map(mem::take).collect()
    }

    fn take_if(&mut self, goes: impl Fn(&Waiter) -> bool) -> Vec<Arc<Waiter>> {
        let mut taken = Vec::new();
        for queue in [&mut self.visible, &mut self.written, &mut self.durable] {
            queue.retain(|waiter| {
                let goes = goes(waiter);
                if goes {
                    taken.push(Arc::clone(waiter));
                }
                !goes
            });
        }
        taken
    }

    /// Forgets a waiter that gave up.
    pub(crate) fn remove(&mut self, mark: Mark, waiter: &Arc<Waiter>) {
        let queue = self.queue(mark);
        // Thousands may wait for the same record, and give up one after the other.
        let start = queue.partition_point(|other| other.target < waiter.target);
        let end = queue.partition_point(|other| other.target <= waiter.target);
        let found = queue.range(start..end).position(|other| Arc::ptr_eq(other, waiter));
        if let Some(place) = found {
            // In their order, of which those with one target have none among themselves.
            queue.swap(start + place, end - 1);
            queue.remove(end - 1);
        }
    }

    fn queue(&mut self, mark: Mark) -> &mut VecDeque<Arc<Waiter>> {
        match mark {
            Mark::Visible => &mut self.visible,
            Mark::Written => &mut self.written,
            Mark::Durable => &mut self.durable,
        }
    }
}

/// Waiters with their outcomes, to be told once no lock is held: waking takes time, and what a task
/// does when it is woken, such as letting go of the last handle of the log, may need the locks.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct News {
    outcomes: Vec<(Arc<Waiter>, Result<()>)>,
    /// The error that ended appending, if it did so now.
    poisoned: Option<Error>,
    /// What a task that was woken before panicked with.
    panicked: Option<Panic>,
}

type Panic = Box<dyn Any + Send>;

impl News {
    pub(crate) fn reached(&mut self, waiters: impl IntoIterator<Item = Arc<Waiter>>) {
        self.outcomes.extend(waiters.into_iter().map(|waiter| (waiter, Ok(()))));
    }

    pub(crate) fn failed(&mut self, waiters: Vec<Arc<Waiter>>, error: &Error) {
        self.outcomes.extend(waiters.into_iter().map(|waiter| (waiter, Err(error.clone()))));
    }

    pub(crate) fn poisoned(&mut self, error: &Error) {
        self.poisoned = Some(error.clone());
    }

    /// Tells threads; tasks, which do what they like when they are woken, stay among the news.
    pub(crate) fn tell_threads(&mut self) {
        self.outcomes.retain(|(waiter, outcome)| !waiter.tell_thread(outcome));
    }

    /// Tells all of them, threads first, who may be needed for what others do when they are told;
    /// what any of those panics with comes last.
    pub(crate) fn tell(mut self) {
        self.tell_threads();
        if let Some(_error) = self.poisoned.take() {
            let told = catch_unwind(AssertUnwindSafe(|| {
                event!(ERROR, path = ?_error.path(), error = %_error, "takes no more records");
            }));
            told.unwrap_or_else(|panic| self.panicked(panic));
        }
        for (waiter, outcome) in mem::take(&mut self.outcomes) {
            let told = catch_unwind(AssertUnwindSafe(|| waiter.tell(outcome)));
            told.unwrap_or_else(|panic| self.panicked(panic));
        }
        if let Some(panic) = self.panicked {
            resume_unwind(panic);
        }
    }

    /// Keeps what somebody who was told panicked with, if it is the first.
    fn panicked(&mut self, panic: Panic) {
        self.panicked.get_or_insert(panic);
    }
}
