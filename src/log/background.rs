//! The background thread of a log: writes and syncs what nobody waits for.

use crate::commit::Bell;
use crate::commit::Commit;
use crate::commit::Urgency;
use crate::error::Error;
use crate::error::Result;
use crate::sync::thread;
use crate::sync::thread::Builder;
use crate::sync::thread::JoinHandle;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The thread, until it is stopped.
#[derive(Debug)]
pub(super) struct Background {
    bell: Arc<Bell>,
    thread: JoinHandle<()>,
}

impl Background {
    /// Starts it. It holds the write side alone, so that it keeps no log open.
    pub(super) fn start(
        commit: Arc<Commit>,
        bell: Arc<Bell>,
        interval: Duration,
        path: &Path,
    ) -> Result<Self> {
        let heard = Arc::clone(&bell);
        let thread = Builder::new()
            .name("stratalog".into())
            .spawn(move || run(&commit, &heard, interval))
            .map_err(|error| Error::io("cannot start the background thread for", path, error))?;
        Ok(Self { bell, thread })
    }

    /// Stops it and waits for it.
    pub(super) fn stop(self) {
        self.bell.call(Urgency::Stop);
        if self.thread.thread().id() == thread::current().id() {
            // A task that it woke let go of the last handle: it ends by itself.
            return;
        }
        // A panic of the thread is a bug that has been reported on its own; closing goes on.
        drop(self.thread.join());
    }
}

/// Writes when it is called to, and syncs when it is called to or the interval has passed.
fn run(commit: &Commit, bell: &Bell, interval: Duration) {
    let mut due: Option<Duration> = None;
    loop {
        let timeout = due.map(|due| due.saturating_sub(commit.monotonic()));
        match bell.wait(timeout) {
            Some(calls) if calls.due == Urgency::Stop => return,
            Some(calls) => {
                if calls.write {
                    commit.write_in_background();
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
        let more = commit.sync_in_background();
        due = more.then(|| commit.monotonic().saturating_add(interval));
    }
}
