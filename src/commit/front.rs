//! What the front lock guards: the tail, those who wait, and whether the log still takes records.

use crate::commit::bell::Urgency;
use crate::commit::counters::Counters;
use crate::commit::tail::Tail;
use crate::commit::tail::TailSettings;
use crate::commit::waiters::Mark;
use crate::commit::waiters::Waiters;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::notice::Points;
use std::mem;

/// What was set about the write side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) tail: TailSettings,
    pub(crate) max_batch_bytes: u64,
    pub(crate) max_unsynced_bytes: u64,
    /// What readers in other processes read up to: what is durable, or all that is written.
    pub(crate) shows: Mark,
    /// Whether there is a background thread to call.
    pub(crate) has_background: bool,
}

impl Settings {
    /// With so much unsynced the background thread does not wait for its interval.
    pub(crate) fn sync_early_bytes(&self) -> u64 {
        self.max_unsynced_bytes / 4
    }
}

#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) tail: Tail,
    pub(crate) waiters: Waiters,
    pub(crate) life: Life,
    pub(crate) lead: Lead,
    /// How many commits the next leader can expect to come together.
    pub(crate) company: usize,
    /// Bytes of records: appended, written, durable.
    pub(crate) appended_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) durable_bytes: u64,
    /// How often the log was cut back or emptied.
    pub(crate) cuts: u64,
    /// Where it was cut back, for readers in other processes.
    pub(crate) points: Points,
    pub(crate) counters: Counters,
    /// How the background thread has been called since it last looked.
    pub(crate) rung: Urgency,
    /// It has been called to write since it last looked.
    pub(crate) called_to_write: bool,
}

impl Front {
    pub(crate) fn new(tail: Tail, points: Points) -> Self {
        Self {
            tail,
            waiters: Waiters::default(),
            life: Life::Open,
            lead: Lead::Free,
            company: 0,
            appended_bytes: 0,
            written_bytes: 0,
            durable_bytes: 0,
            cuts: 0,
            points,
            counters: Counters::default(),
            rung: Urgency::Never,
            called_to_write: false,
        }
    }

    /// Whether a record may come.
    #[inline]
    pub(crate) fn has_room(&self, max_unsynced_bytes: u64) -> bool {
        matches!(self.life, Life::Open)
            && self.unsynced_bytes() <= max_unsynced_bytes
            && self.tail.full_until().is_none()
    }

    /// Whether a record that was accepted concerns nobody: no one waits to see it, and the
    /// background thread knows that there is something to do.
    #[inline]
    pub(crate) fn is_calm(&self, early_bytes: u64) -> bool {
        self.rung != Urgency::Never
            && self.waiters.is_empty(Mark::Visible)
            && (self.unsynced_bytes() < early_bytes || self.rung == Urgency::Now)
    }

    #[inline]
    pub(crate) fn unsynced_bytes(&self) -> u64 {
        self.appended_bytes.saturating_sub(self.durable_bytes)
    }

    /// Whether to call the background thread to write, because a chunk is full.
    pub(crate) fn call_to_write(&mut self) -> bool {
        let call = !self.called_to_write && self.tail.pending_until().is_some();
        self.called_to_write |= call;
        call
    }

    /// How to call the background thread for what is unsynced, if it has not been called so.
    pub(crate) fn ring(&mut self, early_bytes: u64) -> Option<Urgency> {
        let due = if self.unsynced_bytes() >= early_bytes { Urgency::Now } else { Urgency::Soon };
        (due > self.rung).then(|| {
            self.rung = due;
            due
        })
    }
}

/// Whether somebody leads a sync, or has been told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lead {
    Free,
    Taken,
}

/// Whether the log takes records.
#[derive(Debug)]
pub(crate) enum Life {
    Open,
    /// Is being cut: who appends waits for the writer first.
    Held,
    /// Takes no more, but writes and syncs what it has.
    Closing,
    Closed,
    /// The error that every caller gets.
    Poisoned(Error),
}

impl Life {
    /// Whether records may be appended.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Open | Self::Held => Ok(()),
            Self::Closing | Self::Closed => Err(closed()),
            Self::Poisoned(error) => Err(error.clone()),
        }
    }

    /// Whether files may be written and synced.
    pub(crate) fn check_writable(&self) -> Result<()> {
        match self {
            Self::Open | Self::Held | Self::Closing => Ok(()),
            Self::Closed => Err(closed()),
            Self::Poisoned(error) => Err(error.clone()),
        }
    }

    /// The first failure stays; gives the error that everybody gets.
    pub(crate) fn poison(&mut self, first: Error) -> Error {
        match self {
            Self::Poisoned(error) => error.clone(),
            Self::Open | Self::Held | Self::Closing | Self::Closed => {
                let error = Error::poisoned(first);
                *self = Self::Poisoned(error.clone());
                error
            }
        }
    }

    /// Keeps appends off, until it is released by the same thread, which has the writer.
    pub(crate) fn hold(&mut self) -> Result<()> {
        self.check()?;
        *self = Self::Held;
        Ok(())
    }

    pub(crate) fn release(&mut self) {
        if let Self::Held = self {
            *self = Self::Open;
        }
    }

    pub(crate) fn begin_close(&mut self) -> Result<()> {
        self.check()?;
        *self = Self::Closing;
        Ok(())
    }

    pub(crate) fn end_close(&mut self) {
        let life = mem::replace(self, Self::Closed);
        if let Self::Poisoned(_) = life {
            *self = life;
        }
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the log is closed")
}
