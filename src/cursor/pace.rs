//! How a thread waits for the next record: it looks for a while before it sleeps, if the last waits
//! say that this is worth it.
//!
//! To wake a thread takes 5 to 50 us, and the appender pays a part of that. Where records come more
//! often, looking is faster for both. Where they do not, a thread sleeps at once, so that who waits
//! for a quiet log costs nothing.
//!
//! # Invariants
//!
//! - At most one thread a log looks on so, and none on a machine with one core.
//! - It never does for longer than [`LOOK_MAX`], nor more than [`LOOKS_MAX`] times, whatever the
//!   clock says.

use crate::commit::Commit;
use crate::cursor::view::View;
use crate::sync::hint;
use crate::sync::thread;
use crate::units::Offset;
use std::time::Duration;

/// With longer waits than this, a thread sleeps at once.
const USUAL_MAX: Duration = Duration::from_micros(50);

/// The longest that a thread looks before it sleeps: longer than what a tick of the system's clock,
/// or of the host's, keeps an appender from its core. Who sleeps then is woken late for all records
/// that come in a rush behind it, which are one of a hundred.
const LOOK_MAX: Duration = Duration::from_micros(300);

/// From then on it offers its core to others.
const YIELD_AFTER: Duration = Duration::from_micros(150);

/// How often it looks at most: a clock may stand still.
const LOOKS_MAX: u32 = 4000;

/// Between two looks. A look takes the line of the marks from the appender's core.
const PAUSES: u32 = 8;

/// Added to what is compared, so that nothing stays at zero.
const LEAST: Duration = Duration::from_micros(2);

/// Longer waits count as this one, so that a break of minutes is forgotten soon.
const NOTED_MAX: Duration = Duration::from_micros(400);

/// Where so many records come in each microsecond, the appender is about as fast as it can be.
const RUSH: u64 = 2;

/// The least time over which records are counted.
const COUNTED_MIN: Duration = Duration::from_micros(20);

/// How long a reader waits then for records to be written, before it looks for others.
pub(super) const REST: Duration = Duration::from_micros(300);

/// What a reader knows of its waits.
#[derive(Debug)]
pub(super) struct Pace {
    /// When records were last counted, and up to which offset.
    counted: Option<(Duration, Offset)>,
    is_rushed: bool,
    /// The usual length of a wait, the last ones counting most.
    usual: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { counted: None, is_rushed: false, usual: NOTED_MAX }
    }
}

impl Pace {
    /// Takes note of how long a wait took.
    pub(super) fn note(&mut self, wait: Duration) {
        // A single long one says little.
        let most = self.usual * 2 + LEAST;
        self.usual = (self.usual * 3 + wait.min(most).min(NOTED_MAX)) / 4;
    }

    /// Whether a reader that has come to `offset` has an appender at full speed before it. It does
    /// best not to take each record as it comes, which keeps the appender from its lock, but to
    /// wait until a chunk of them is in a file, where reading them concerns nobody.
    pub(super) fn is_rushed(&mut self, now: Duration, offset: Offset) -> bool {
        let (since, from) = *self.counted.get_or_insert((now, offset));
        let time = now.saturating_sub(since);
        if time >= COUNTED_MIN {
            let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            self.is_rushed = offset.saturating_since(from) / micros >= RUSH;
            self.counted = Some((now, offset));
        }
        self.is_rushed
    }

    /// Looks for a record at `offset` for as long as is worth it, and not longer than `timeout`;
    /// tells whether it may be read.
    pub(super) fn look(
        &mut self,
        commit: &Commit,
        view: &View,
        offset: Offset,
        timeout: Duration,
    ) -> bool {
        if self.usual > USUAL_MAX {
            return false;
        }
        let Some(_turn) = commit.turn_to_look() else { return false };
        let start = commit.monotonic();
        let limit = LOOK_MAX.min(timeout);
        for _ in 0..LOOKS_MAX {
            (0..PAUSES).for_each(|_| hint::spin_loop());
            let took = commit.monotonic().saturating_sub(start);
            if view.high_watermark() > offset {
                self.note(took);
                return true;
            }
            if took >= limit {
                return false;
            }
            if took > YIELD_AFTER {
                // The appender may be waiting for this core.
                thread::yield_now();
            }
        }
        false
    }
}
