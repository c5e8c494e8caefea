//! How far the log has got: the end offsets that every thread may read at any time.
//!
//! # Invariants
//!
//! - `durable <= written <= end` and `durable <= visible <= end`, whenever the tail is not locked.
//! - Only written while the tail is locked, `Release`; read anywhere, `Acquire`: who sees a mark
//!   sees the bytes below it.
//! - `written` and `durable` go back only when the log is truncated. `end` also goes back over
//!   records whose callers got an error; `visible` never covers those.

use crate::sync::AtomicU64;
use crate::units::Offset;
use std::sync::atomic::Ordering;

/// The watermarks, each an exclusive end offset. On a cache line of their own: readers look at them
/// while appenders take the locks beside them.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Watermarks {
    /// The offset the next record gets.
    end: AtomicU64,
    /// Below it, records cannot be taken back any more: accepted as buffered, or written.
    visible: AtomicU64,
    /// Below it, records are with the operating system.
    written: AtomicU64,
    /// Below it, records are on the device.
    durable: AtomicU64,
}

impl Watermarks {
    /// All at `end`: what recovery serves is durable.
    pub(crate) fn new(end: Offset) -> Self {
        let mark = || AtomicU64::new(end.get());
        Self { end: mark(), visible: mark(), written: mark(), durable: mark() }
    }

    pub(crate) fn end(&self) -> Offset {
        load(&self.end)
    }

    pub(crate) fn visible(&self) -> Offset {
        load(&self.visible)
    }

    pub(crate) fn written(&self) -> Offset {
        load(&self.written)
    }

    pub(crate) fn durable(&self) -> Offset {
        load(&self.durable)
    }

    /// The log was cut, or emptied: what there is is durable.
    pub(super) fn set_all(&self, end: Offset) {
        for mark in [&self.visible, &self.durable, &self.written, &self.end] {
            mark.store(end.get(), Ordering::Release);
        }
    }

    pub(super) fn set_end(&self, end: Offset) {
        self.end.store(end.get(), Ordering::Release);
    }

    pub(super) fn set_visible(&self, visible: Offset) {
        self.visible.store(visible.get(), Ordering::Release);
    }

    pub(super) fn set_written(&self, written: Offset) {
        self.written.store(written.get(), Ordering::Release);
    }

    pub(super) fn set_durable(&self, durable: Offset) {
        self.durable.store(durable.get(), Ordering::Release);
    }
}

fn load(mark: &AtomicU64) -> Offset {
    Offset::new(mark.load(Ordering::Acquire))
}
