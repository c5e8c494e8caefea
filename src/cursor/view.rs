//! What readers see of a log: its segments, its unwritten tail, and how far they may read.
//!
//! The log is open in this process, and then everything is at hand; or another one writes to it,
//! and it is followed, which has no tail and has to be looked at.

use crate::bugs::Bug;
use crate::commit::Commit;
use crate::commit::Mark;
use crate::commit::TailSpan;
use crate::error::Error;
use crate::error::Result;
use crate::follow::Followed;
use crate::follow::Look;
use crate::follow::may_pass;
use crate::options::Durability;
use crate::state::Segments;
use crate::units::Offset;
use crate::units::Timestamp;
use std::sync::Arc;

/// How often a reader looks at the log anew, where another process may have changed it, before it
/// believes that it is damaged.
const LOOKS_ANEW_MAX: usize = 8;

/// The read side of a log; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) segments: Arc<Segments>,
    pub(super) side: Side,
}

/// Who writes to the log.
#[derive(Clone, Debug)]
pub(super) enum Side {
    /// This process; the mark is the high watermark.
    Here { commit: Arc<Commit>, mark: Mark },
    /// Another process, or none.
    Elsewhere(Arc<Followed>),
}

impl View {
    /// Of a log that is open here with this durability, which decides what is shown: nobody acts on
    /// a record that a power cut can take back, unless the log was opened for less.
    pub(crate) fn here(
        segments: Arc<Segments>,
        commit: Arc<Commit>,
        durability: Durability,
    ) -> Self {
        let mark = match durability {
            _ if Bug::UndurableShown.is_on() => Mark::Visible,
            Durability::Synced => Mark::Durable,
            Durability::Buffered | Durability::Written => Mark::Visible,
        };
        Self { segments, side: Side::Here { commit, mark } }
    }

    pub(crate) fn elsewhere(follow: Arc<Followed>) -> Self {
        Self { segments: Arc::clone(follow.segments()), side: Side::Elsewhere(follow) }
    }

    /// The end of what may be read, as it is known now.
    #[inline]
    pub(crate) fn high_watermark(&self) -> Offset {
        match &self.side {
            Side::Here { commit, mark: Mark::Durable } => commit.marks().durable(),
            Side::Here { commit, .. } => commit.marks().visible(),
            Side::Elsewhere(follow) => follow.shown(),
        }
    }

    /// Whether there may be a record to read at or above `offset`, which is not below what is known
    /// as the high watermark.
    pub(super) fn reaches(&self, offset: Offset) -> Result<bool> {
        match &self.side {
            Side::Here { .. } => Ok(false),
            Side::Elsewhere(follow) => follow.reaches(offset),
        }
    }

    /// Gets to know what has become of the log, if that is not known by itself.
    pub(crate) fn look(&self) -> Result<()> {
        match &self.side {
            Side::Here { .. } => Ok(()),
            Side::Elsewhere(follow) => follow.look(Look::News),
        }
    }

    /// As [`look`](View::look), if it is some time ago.
    #[inline]
    pub(super) fn keep_up(&self) -> Result<()> {
        match &self.side {
            Side::Here { .. } => Ok(()),
            Side::Elsewhere(follow) => follow.keep_up(),
        }
    }

    /// Waits a while for another process that is opening the log, and may find that it goes farther
    /// than is known.
    pub(super) fn await_recovery(&self) -> Result<()> {
        match &self.side {
            Side::Here { .. } => Ok(()),
            Side::Elsewhere(follow) => follow.await_recovery(),
        }
    }

    /// After an error: does it again, once the log has been looked at anew, if another process may
    /// have changed the files meanwhile. They may change again before it is done.
    #[cold]
    pub(super) fn try_again<T>(
        &self,
        mut error: Error,
        mut again: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let Side::Elsewhere(follow) = &self.side else { return Err(error) };
        for _ in 0..LOOKS_ANEW_MAX {
            if !may_pass(&error) {
                break;
            }
            follow.look(Look::Anew)?;
            match again() {
                Err(another) => error = another,
                done => return done,
            }
        }
        Err(error)
    }

    /// The end of what is in files.
    #[inline]
    pub(super) fn written(&self) -> Offset {
        match &self.side {
            Side::Here { commit, .. } => commit.marks().written(),
            Side::Elsewhere(follow) => follow.shown(),
        }
    }

    #[inline]
    pub(crate) fn start(&self) -> Offset {
        self.segments.start_offset()
    }

    /// Goes up by one with each cut of the log.
    #[inline]
    pub(crate) fn cuts(&self) -> u64 {
        self.segments.cuts()
    }

    #[inline]
    pub(crate) fn end(&self) -> Offset {
        match &self.side {
            Side::Here { commit, .. } => commit.marks().end(),
            Side::Elsewhere(follow) => follow.shown(),
        }
    }

    /// See [`Commit::copy_tail`].
    pub(super) fn copy_tail(
        &self,
        offset: Offset,
        hint: Option<(Offset, usize)>,
        out: &mut Vec<u8>,
    ) -> Option<TailSpan> {
        match &self.side {
            Side::Here { commit, .. } => commit.copy_tail(offset, hint, out),
            Side::Elsewhere(_) => None,
        }
    }

    /// The base offset of the unwritten frame that covers `offset`.
    pub(super) fn tail_frame(&self, offset: Offset) -> Option<Offset> {
        match &self.side {
            Side::Here { commit, .. } => commit.tail_frame(offset),
            Side::Elsewhere(_) => None,
        }
    }

    /// See [`Commit::close_frame_of`].
    pub(super) fn close_frame_of(&self, offset: Offset) {
        if let Side::Here { commit, .. } = &self.side {
            commit.close_frame_of(offset);
        }
    }

    /// The first unwritten record appended at or after `time`.
    pub(super) fn tail_since(&self, time: Timestamp) -> Option<Offset> {
        match &self.side {
            Side::Here { commit, .. } => commit.tail_since(time),
            Side::Elsewhere(_) => None,
        }
    }
}
