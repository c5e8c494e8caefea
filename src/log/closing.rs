//! The end of a log: one thread closes it, and the others wait for that unless it waits for them.
//!
//! Nothing is locked while a log is closed, since much of what is done then calls tasks and
//! callbacks of others, which may close the log as well.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::log::background::Background;
use crate::sync::Condvar;
use crate::sync::Mutex;
use crate::sync::thread;
use crate::sync::thread::ThreadId;

/// What runs while a log is open, and what came of closing it.
#[derive(Debug)]
pub(super) struct Running {
    state: Mutex<State>,
    /// Told when closing is over.
    over: Condvar,
}

#[derive(Debug)]
enum State {
    Open {
        background: Option<Background>,
    },
    /// With the thread that closes, and those it waits for.
    Closing {
        threads: Vec<ThreadId>,
    },
    Closed(Result<()>),
}

/// What becomes of a call to close.
#[derive(Debug)]
pub(super) enum Begun<'a> {
    /// It is the one that closes.
    First(Closing<'a>, Option<Background>),
    /// Another one did, or is about to and waits for this thread.
    Over(Result<()>),
}

/// Has to say how closing went; if it cannot, because something panicked, that is an error.
#[derive(Debug)]
pub(super) struct Closing<'a>(&'a Running);

impl Running {
    pub(super) fn new(background: Option<Background>) -> Self {
        Self { state: Mutex::new(State::Open { background }), over: Condvar::default() }
    }

    /// Begins to close, or waits for who has begun, unless that one waits for this thread: as it
    /// does for those of the log and for the `runner` of a compaction.
    pub(super) fn close(&self, runner: Option<ThreadId>) -> Begun<'_> {
        let current = thread::current().id();
        let mut state = self.state.lock();
        loop {
            match &mut *state {
                State::Open { background } => {
                    let background = background.take();
                    let mut threads = background.as_ref().map_or_else(Vec::new, Background::ids);
                    threads.push(current);
                    *state = State::Closing { threads };
                    return Begun::First(Closing(self), background);
                }
                State::Closing { threads }
                    if runner == Some(current) || threads.contains(&current) =>
                {
                    return Begun::Over(Ok(()));
                }
                State::Closing { .. } => self.over.wait(&mut state),
                State::Closed(result) => return Begun::Over(result.clone()),
            }
        }
    }
}

impl Closing<'_> {
    pub(super) fn end(self, result: Result<()>) {
        *self.0.state.lock() = State::Closed(result);
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if let State::Closing { .. } = *state {
            let what = "closing the log ended in a panic";
            *state = State::Closed(Err(Error::new(ErrorKind::Closed, what)));
        }
        drop(state);
        self.0.over.notify_all();
    }
}
