//! Tasks that wait for a record of a log that is followed: somebody has to look for them, a thread
//! that is started when the first one waits and ends when nobody holds the log any more.

use crate::commit::News;
use crate::commit::Role;
use crate::commit::Waiter;
use crate::commit::Watched;
use crate::error::Error;
use crate::error::Result;
use crate::follow::Followed;
use crate::follow::Look;
use crate::state::out_of_range;
use crate::sync::Condvar;
use crate::sync::Mutex;
use crate::sync::thread::Builder;
use crate::units::Offset;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

/// Where those who wait meet the thread that looks for them.
#[derive(Debug, Default)]
pub(super) struct Room {
    waiting: Mutex<Waiting>,
    condvar: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    watchers: Vec<Watcher>,
    thread: Thread,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Thread {
    #[default]
    None,
    Runs,
    /// Nobody holds the log any more.
    Ends,
}

#[derive(Debug)]
struct Watcher {
    waiter: Arc<Waiter>,
    /// The count of the log's cuts that it knows of.
    cuts: u64,
}

impl Followed {
    /// A waiter for the log to show what lies below `target`, unless what it knows of the log's
    /// cuts has changed.
    pub(crate) fn watch(self: &Arc<Self>, target: Offset, cuts: u64) -> Result<Watched> {
        let reached = target.checked_sub(1).map_or(Ok(true), |offset| self.reaches(offset))?;
        if self.segments.cuts() != cuts {
            return Ok(Watched::Changed);
        }
        if reached {
            return Ok(Watched::Reached);
        }
        let waiter = Waiter::new(target, Role::Onlooker);
        let mut waiting = self.room.waiting.lock();
        if waiting.thread == Thread::None {
            self.start()?;
            waiting.thread = Thread::Runs;
        }
        waiting.watchers.push(Watcher { waiter: Arc::clone(&waiter), cuts });
        drop(waiting);
        self.room.condvar.notify_one();
        Ok(Watched::Waiting(waiter))
    }

    /// Forgets a waiter that gave up.
    pub(crate) fn unwatch(&self, waiter: &Arc<Waiter>) {
        let mut waiting = self.room.waiting.lock();
        waiting.watchers.retain(|watcher| !Arc::ptr_eq(&watcher.waiter, waiter));
    }

    fn start(self: &Arc<Self>) -> Result<()> {
        let (room, follow) = (Arc::clone(&self.room), Arc::downgrade(self));
        let thread = Builder::new().name("stratalog-follow".into());
        let started = thread.spawn(move || run(&room, &follow));
        let path = self.segments.dir().path();
        started.map(drop).map_err(|error| Error::io("cannot start a thread to follow", path, error))
    }

    /// Looks once for all who wait. What a task panics with when it is woken comes last.
    fn tell_news(&self) {
        let looked = self.look(Look::News);
        let mut news = News::default();
        let mut waiting = self.room.waiting.lock();
        waiting.watchers.retain_mut(|watcher| {
            let outcome = match &looked {
                Ok(()) => self.outcome(watcher),
                Err(error) => Err(error.clone()),
            };
            let waiter = Arc::clone(&watcher.waiter);
            match outcome {
                Ok(None) => return true,
                Ok(Some(())) => news.reached([waiter]),
                Err(error) => news.failed(vec![waiter], &error),
            }
            false
        });
        drop(waiting);
        news.tell();
    }

    /// What a watcher is to be told, if anything.
    fn outcome(&self, watcher: &mut Watcher) -> Result<Option<()>> {
        let target = watcher.waiter.target();
        if self.segments.cuts() != watcher.cuts {
            let (cuts, lowest_end) = self.segments.cuts_since(watcher.cuts);
            let stand = target.checked_sub(1).unwrap_or_default();
            if let Some(point) = lowest_end.filter(|point| *point < stand) {
                let start = self.segments.start_offset();
                return Err(out_of_range(stand, point.max(start), (start, self.shown())));
            }
            watcher.cuts = cuts;
        }
        if self.shown() >= target {
            return Ok(Some(()));
        }
        match &self.seen.lock().missing {
            Some(error) => Err(error.clone()),
            None => Ok(None),
        }
    }
}

impl Room {
    pub(super) fn close(&self) {
        self.waiting.lock().thread = Thread::Ends;
        // Nobody but the thread waits there.
        self.condvar.notify_one();
    }

    /// Blocks until somebody waits; `false` if nobody ever will.
    fn wait_for_somebody(&self) -> bool {
        let mut waiting = self.waiting.lock();
        while waiting.watchers.is_empty() && waiting.thread != Thread::Ends {
            self.condvar.wait(&mut waiting);
        }
        waiting.thread != Thread::Ends
    }

    fn pause(&self, pause: Duration) {
        let mut waiting = self.waiting.lock();
        if waiting.thread != Thread::Ends {
            // Who comes meanwhile has looked itself.
            self.condvar.wait_for(&mut waiting, pause);
        }
    }
}

/// Holds the log only while it looks, so as not to keep itself going.
fn run(room: &Room, follow: &Weak<Followed>) {
    while room.wait_for_somebody() {
        let Some(follow) = follow.upgrade() else { return };
        // A panic has been reported on its own. Nobody else looks for those who wait, and for who
        // comes later.
        drop(catch_unwind(AssertUnwindSafe(|| follow.tell_news())));
        let pause = follow.pause();
        drop(follow);
        room.pause(pause);
    }
}
