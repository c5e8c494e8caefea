//! Faults: which call to a storage goes wrong, when, and how to know such an error again.

use std::error::Error as StdError;
use std::fmt;
use std::io;

/// A call to the storage or to one of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    CreateDir,
    Open,
    Create,
    List,
    Rename,
    Link,
    Remove,
    SyncDir,
    Lock,
    Read,
    Write,
    Sync,
    SetLen,
    Size,
    Map,
}

impl Op {
    /// Whether a crash behind it can leave something else than a crash before it.
    pub(crate) fn has_effect(self) -> bool {
        use Op::{Create, CreateDir, Link, Remove, Rename, SetLen, Sync, SyncDir, Write};
        matches!(
            self,
            CreateDir | Create | Link | Rename | Remove | SyncDir | Write | Sync | SetLen
        )
    }
}

/// What goes wrong, and when: unless told otherwise the next call of the kind, once.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    meant: Meant,
    strike: Strike,
    on: String,
    nth: u64,
    again: Again,
    seen: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meant {
    Op(Op),
    /// Any call whatever.
    Any,
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strike {
    /// It does nothing; a sync loses what it should have made durable.
    Error(io::ErrorKind),
    /// It does what it should, or a part of it, and says that it failed. A sync does all of it.
    ErrorAfter(io::ErrorKind),
    /// A read or write does half of what it was asked to.
    Short,
    /// From now on files may grow by so many bytes.
    Fills(u64),
    /// The same, and from now on nothing is written in place.
    FillsCopying(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    Never,
    Always,
    EveryNth,
}

impl Fault {
    pub(crate) fn new(op: Op, error: io::ErrorKind) -> Self {
        Self::of(Meant::Op(op), Strike::Error(error))
    }

    /// On any call, also those that only look.
    pub(crate) fn on_call(strike: Strike) -> Self {
        Self::of(Meant::Any, strike)
    }

    fn of(meant: Meant, strike: Strike) -> Self {
        Self { meant, strike, on: String::new(), nth: 1, again: Again::Never, seen: 0 }
    }

    /// Only calls on paths that end so count.
    pub(crate) fn on(self, suffix: &str) -> Self {
        Self { on: suffix.to_owned(), ..self }
    }

    pub(crate) fn nth(self, nth: u64) -> Self {
        Self { nth, ..self }
    }

    /// The n-th call and all behind it.
    pub(crate) fn forever(self) -> Self {
        Self { again: Again::Always, ..self }
    }

    pub(crate) fn every(self, nth: u64) -> Self {
        Self { nth, again: Again::EveryNth, ..self }
    }

    /// Whether the call goes wrong, and how.
    pub(super) fn strikes(&mut self, op: Op, path: &str) -> Option<Strike> {
        let meant = match self.meant {
            Meant::Op(meant) => meant == op,
            Meant::Any => true,
        };
        if !meant || !path.ends_with(&self.on) {
            return None;
        }
        self.seen += 1;
        let strikes = match self.again {
            Again::Never => self.seen == self.nth,
            Again::Always => self.seen >= self.nth,
            Again::EveryNth => self.seen.is_multiple_of(self.nth),
        };
        strikes.then_some(self.strike)
    }
}

/// The mark of an error that was made here.
#[derive(Debug)]
struct Injected;

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("injected")
    }
}

impl StdError for Injected {}

pub(super) fn injected(kind: io::ErrorKind) -> io::Error {
    io::Error::new(kind, Injected)
}

/// Whether the error, or what it says was its cause, was made here.
pub(crate) fn is_injected(error: &stratalog::Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if inner.is_some_and(|inner| inner.is::<Injected>()) {
            return true;
        }
        cause = error.source();
    }
    false
}
