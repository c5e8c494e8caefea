//! The background thread of a log: syncs what nobody waits for, at an interval.

use crate::commit::Bell;
use crate::commit::Commit;
use crate::commit::Rung;
use crate::error::Error;
use crate::error::Result;
use std::path::Path;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
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

    /// Stops it and waits for it. It must not be called by the thread itself.
    pub(super) fn stop(self) {
        self.bell.ring(Rung::Stop);
        // A panic of the thread is a bug that has been reported on its own; closing goes on.
        drop(self.thread.join());
    }
}

fn run(commit: &Commit, bell: &Bell, interval: Duration) {
    loop {
        if bell.wait(interval) == Rung::Stop {
            return;
        }
        if commit.sync_in_background() {
            bell.ring(Rung::Soon);
        }
    }
}
