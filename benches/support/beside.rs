//! Appends beside a run of compaction that keeps to the default rate.

use crate::rewriting::fill;
use crate::rewriting::open;
use crate::support::scratch;
use crate::support::timed;
use crate::support::value;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use stratalog::{Compaction, Durability, Log, Maintenance, Progress};

/// What appends took alone and beside a run, one time for each.
#[derive(Default)]
pub(crate) struct Beside {
    pub(crate) alone: Vec<Duration>,
    pub(crate) beside: Vec<Duration>,
}

/// A run that goes on while it is let, at the default rate.
#[derive(Default)]
struct Pace {
    is_on: AtomicBool,
    is_over: AtomicBool,
    is_writing: AtomicBool,
    done: AtomicU64,
}

impl Pace {
    /// As the log paces a run of its own; one that is asked for would go at full speed, and does so
    /// here until it begins to write.
    fn pause(&self, progress: &Progress) -> ControlFlow<()> {
        let done = progress.bytes_read() + progress.bytes_written();
        let step = done - self.done.swap(done, Ordering::Relaxed);
        if progress.bytes_written() == 0 {
            return ControlFlow::Continue(());
        }
        self.is_writing.store(true, Ordering::Relaxed);
        thread::sleep(Duration::from_secs_f64(step as f64 / Compaction::BYTES_PER_SECOND as f64));
        while !self.is_on.load(Ordering::Relaxed) && !self.is_over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        match self.is_over.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// `round` appends and tells what that took; alone and beside the run by turns.
pub(crate) fn measure(
    keys: u64,
    rounds: usize,
    mut round: impl FnMut(&Log) -> Vec<Duration>,
) -> Beside {
    let (dir, pace) = (scratch(), Arc::new(Pace::default()));
    let told = Arc::clone(&pace);
    let compaction = Compaction::new().progress(move |progress| told.pause(progress));
    let log = open(dir.path(), compaction, Maintenance::Background);
    fill(&log, keys);
    let mut found = Beside::default();
    // A round that counts for nothing.
    round(&log);
    thread::scope(|scope| {
        let run = scope.spawn(|| log.compact().unwrap());
        while !pace.is_writing.load(Ordering::Relaxed) && !run.is_finished() {
            thread::yield_now();
        }
        for _ in 0..rounds {
            pace.is_on.store(false, Ordering::Relaxed);
            found.alone.extend(round(&log));
            pace.is_on.store(true, Ordering::Relaxed);
            found.beside.extend(round(&log));
        }
        pace.is_over.store(true, Ordering::Relaxed);
        let report = run.join().unwrap();
        assert!(report.is_stopped() || keys < 10_000, "the run ended before the appends did");
    });
    found
}

/// So many appends of 100 bytes, buffered, as one time.
pub(crate) fn buffered(log: &Log, count: u64) -> Vec<Duration> {
    let value = value(100);
    let append = || log.append_with(Durability::Buffered, &value).map(drop);
    vec![timed(|| (0..count).try_for_each(|_| append()).unwrap())]
}

/// So many, synced, each with its time.
pub(crate) fn synced(log: &Log, count: u64) -> Vec<Duration> {
    let value = value(100);
    let append = || timed(|| log.append_with(Durability::Synced, &value).unwrap());
    (0..count).map(|_| append()).collect()
}
