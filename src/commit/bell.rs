//! The bell that calls the background thread, and how that thread waits for it.

use crate::sync::Condvar;
use crate::sync::Mutex;
use std::mem;
use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Bell {
    calls: Mutex<Calls>,
    condvar: Condvar,
}

/// What the thread is called for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    /// Memory is waiting to be written.
    pub(crate) write: bool,
    pub(crate) post: Post,
    /// The next segments are wanted soon.
    pub(crate) prepare: Urgency,
    pub(crate) due: Urgency,
}

/// What readers elsewhere have not been told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Post {
    #[default]
    Nothing,
    /// Something that was written.
    Late,
}

/// How soon a sync is wanted, if the log goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    #[default]
    Never,
    /// Within the interval.
    Soon,
    /// Somebody waits for it, or a lot is unsynced.
    Now,
    /// The log closes.
    Stop,
}

impl Bell {
    pub(crate) fn call_to_write(&self) {
        self.calls.lock().write = true;
        self.condvar.notify_one();
    }

    pub(crate) fn call_to_post(&self) {
        self.calls.lock().post = Post::Late;
        self.condvar.notify_one();
    }

    pub(crate) fn call_to_prepare(&self) {
        self.calls.lock().prepare = Urgency::Soon;
        self.condvar.notify_one();
    }

    pub(crate) fn call(&self, urgency: Urgency) {
        let mut calls = self.calls.lock();
        calls.due = calls.due.max(urgency);
        drop(calls);
        self.condvar.notify_one();
    }

    /// Waits until it is rung; `None` if `timeout` passes first.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Option<Calls> {
        let mut calls = self.calls.lock();
        while *calls == Calls::default() {
            match timeout {
                None => self.condvar.wait(&mut calls),
                Some(timeout) if self.condvar.wait_for(&mut calls, timeout).timed_out() => {
                    return None;
                }
                Some(_) => {}
            }
        }
        Some(mem::take(&mut *calls))
    }
}
