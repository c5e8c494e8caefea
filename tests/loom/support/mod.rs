//! What the models are written in: a log on a disk of the models, threads, and what must hold.

pub(crate) mod disk;

use crate::support::disk::Disk;
use loom::model::Builder;
use loom::thread;
use loom::thread::JoinHandle;
use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stratalog::storage::{Clock, SystemClock};
use stratalog::{Durability, Log, Maintenance, Offset, Options, ReadMode, Seek, Timestamp};

pub(crate) const LEVELS: [Durability; 3] =
    [Durability::Buffered, Durability::Written, Durability::Synced];

/// In words: what loom gives is less than a write takes.
const STACK_SIZE: usize = 0x8000;

/// Runs a model in every order, or every one in which at most so many times a thread is interrupted
/// that could have gone on; `LOOM_MAX_PREEMPTIONS` says another number.
pub(crate) fn explore<F>(name: &str, preemptions: Option<usize>, model: F)
where
    F: Fn() + Send + Sync + 'static,
{
    let orders = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&orders);
    let model = Arc::new(model);
    let mut builder = Builder::new();
    builder.max_branches = 100_000;
    if env::var_os("LOOM_MAX_PREEMPTIONS").is_none() {
        builder.preemption_bound = preemptions;
    }
    let clock = SystemClock::new();
    let start = clock.monotonic();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let model = Arc::clone(&model);
        spawn(move || model()).join().unwrap();
    });
    let took = clock.monotonic() - start;
    println!("{name}: {} orders in {:.1} s", orders.load(Ordering::Relaxed), took.as_secs_f64());
}

pub(crate) fn spawn<T>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T>
where
    T: Send + 'static,
{
    thread::Builder::new().stack_size(STACK_SIZE).spawn(run).unwrap()
}

pub(crate) fn at(offset: u64) -> Offset {
    Offset::from(offset)
}

/// A log for models: no thread, one segment, unless the options say otherwise.
pub(crate) fn open_with(disk: &Disk, set: impl FnOnce(Options) -> Options) -> Log {
    let options = Options::new()
        .storage(Arc::new(disk.clone()))
        .clock(Arc::new(Ticks::default()))
        .maintenance(Maintenance::Manual)
        .read_mode(ReadMode::Pread)
        .segment_bytes(4096);
    set(options).open("log").unwrap()
}

pub(crate) fn open(disk: &Disk) -> Log {
    open_with(disk, |options| options)
}

/// A log with a segment that has a record, so that the models need not begin one.
pub(crate) fn begun(disk: &Disk, level: Durability) -> Log {
    let log = open_with(disk, |options| options.durability(level));
    log.append_with(Durability::Synced, "0").unwrap();
    log
}

pub(crate) fn values(log: &Log) -> Vec<String> {
    let values = log.iter(Seek::Start).unwrap();
    values.map(|entry| String::from_utf8(entry.unwrap().value().to_vec()).unwrap()).collect()
}

/// What is found when the power is cut now.
pub(crate) fn after_power_cut(disk: &Disk) -> Vec<String> {
    values(&open(&disk.cut_power()))
}

/// What is found when the process is killed now.
pub(crate) fn after_kill(disk: &Disk) -> Vec<String> {
    values(&open(&disk.kill()))
}

/// What is found by the one who opens the log after it was closed.
pub(crate) fn after_close(disk: &Disk, log: Log) -> Vec<String> {
    drop(log);
    values(&open(disk))
}

/// A clock that goes on whenever it is looked at: the same in each run of the same order.
#[derive(Debug, Default)]
struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(10 * self.0.fetch_add(1, Ordering::Relaxed))
    }
}
