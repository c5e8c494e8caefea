//! What readers see of a log: its segments, its unwritten tail, and how far they may read.

use crate::bugs::Bug;
use crate::commit::Commit;
use crate::commit::Mark;
use crate::options::Durability;
use crate::state::Segments;
use crate::units::Offset;
use std::sync::Arc;

/// The read side of a log; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) segments: Arc<Segments>,
    pub(crate) commit: Arc<Commit>,
    /// The durability of the log, which decides what is shown.
    pub(crate) level: Durability,
}

impl View {
    /// The end of what may be read: nobody acts on a record that a power cut can take back, unless
    /// the log was opened for less.
    pub(crate) fn high_watermark(&self) -> Offset {
        match self.mark() {
            Mark::Durable => self.commit.marks().durable(),
            _ => self.commit.marks().visible(),
        }
    }

    /// The mark that the high watermark is.
    pub(crate) fn mark(&self) -> Mark {
        match self.level {
            _ if Bug::UndurableShown.is_on() => Mark::Visible,
            Durability::Synced => Mark::Durable,
            Durability::Buffered | Durability::Written => Mark::Visible,
        }
    }

    pub(crate) fn start(&self) -> Offset {
        self.segments.start_offset()
    }

    /// Goes up by one with each cut of the log.
    #[inline]
    pub(crate) fn cuts(&self) -> u64 {
        self.segments.cuts()
    }

    pub(crate) fn end(&self) -> Offset {
        self.commit.marks().end()
    }
}
