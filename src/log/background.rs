//! The background threads of a log: one writes and syncs what nobody waits for, and posts what
//! readers elsewhere were not told; another keeps the log in shape, if there is something to keep,
//! and may take its time.

use crate::commit::Bell;
use crate::commit::LATE_MAX;
use crate::commit::Post;
use crate::commit::Urgency;
use crate::error::Error;
use crate::error::Result;
use crate::log::keeper::Keeper;
use crate::sync::thread;
use crate::sync::thread::Builder;
use crate::sync::thread::JoinHandle;
use crate::sync::thread::ThreadId;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The threads, until they are stopped.
#[derive(Debug, Default)]
pub(super) struct Background {
    threads: Vec<(Arc<Bell>, JoinHandle<()>)>,
}

impl Background {
    /// Starts them, the keeper's if it has a bell. They hold no log, so that they keep none open.
    pub(super) fn start(
        keeper: &Arc<Keeper>,
        bells: (Arc<Bell>, Option<Arc<Bell>>),
        interval: Duration,
    ) -> Result<Self> {
        let mut background = Self::default();
        let (bell, keeper_bell) = bells;
        let told = Arc::clone(keeper);
        let mut spawned =
            background.spawn("stratalog", bell, move |bell| run(&told, bell, interval));
        if let Some(bell) = keeper_bell.filter(|_| spawned.is_ok()) {
            let keeper = Arc::clone(keeper);
            spawned = background.spawn("stratalog-keep", bell, move |bell| keeper.keep(bell));
        }
        if let Err(error) = spawned {
            background.stop();
            let path = keeper.segments.dir().path();
            return Err(Error::io("cannot start a background thread for", path, error));
        }
        Ok(background)
    }

    fn spawn(
        &mut self,
        name: &str,
        bell: Arc<Bell>,
        work: impl FnOnce(&Bell) + Send + 'static,
    ) -> io::Result<()> {
        let heard = Arc::clone(&bell);
        let thread = Builder::new().name(name.into()).spawn(move || work(&heard))?;
        self.threads.push((bell, thread));
        Ok(())
    }

    pub(super) fn ids(&self) -> Vec<ThreadId> {
        self.threads.iter().map(|(_, thread)| thread.thread().id()).collect()
    }

    /// Stops them and waits for them.
    pub(super) fn stop(self) {
        drop(self);
    }
}

/// Also if closing panics: they hold what holds the lock of the log.
impl Drop for Background {
    fn drop(&mut self) {
        for (bell, _) in &self.threads {
            bell.call(Urgency::Stop);
        }
        for (_, joined) in self.threads.drain(..) {
            // A task that one of them woke may let go of the last handle: that one ends by itself.
            if joined.thread().id() != thread::current().id() {
                // A panic of the thread is a bug that has been reported on its own; closing goes
                // on.
                drop(joined.join());
            }
        }
    }
}

/// Writes when it is called to, and syncs when it is called to or the interval has passed.
fn run(keeper: &Keeper, bell: &Bell, interval: Duration) {
    let commit = &keeper.commit;
    let mut due: Option<Duration> = None;
    let mut post_due: Option<Duration> = None;
    loop {
        let posts_first = post_due.is_some_and(|post| due.is_none_or(|due| post <= due));
        let first = if posts_first { post_due } else { due };
        let timeout = first.map(|first| first.saturating_sub(commit.monotonic()));
        match bell.wait(timeout) {
            Some(calls) if calls.due == Urgency::Stop => return,
            None if posts_first => {
                post_due = None;
                commit.post_late();
                continue;
            }
            Some(calls) => {
                if calls.post == Post::Late {
                    post_due = post_due.or(Some(commit.monotonic().saturating_add(LATE_MAX)));
                }
                if calls.write {
                    keeper.survive(|| commit.write_in_background());
                }
                due = match calls.due {
                    Urgency::Never => due,
                    Urgency::Soon => due.or(Some(commit.monotonic().saturating_add(interval))),
                    Urgency::Now | Urgency::Stop => Some(Duration::ZERO),
                };
                if due.is_none_or(|due| due > commit.monotonic()) {
                    continue;
                }
            }
            // The interval has passed.
            None => {}
        }
        if post_due.take().is_some() {
            // A sync may take long.
            commit.post_late();
        }
        // If that is not known, a look does no harm.
        let mut more = true;
        keeper.survive(|| more = commit.sync_in_background());
        due = more.then(|| commit.monotonic().saturating_add(interval));
    }
}
