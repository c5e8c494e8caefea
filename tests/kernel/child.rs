//! The process that uses the library, and is killed or has its power cut: this test binary, which
//! runs the one test of this file. It says what it finds and what is acknowledged, a line each.

use crate::dice::Dice;
use crate::full;
use crate::orders::Orders;
use crate::orders::Task;
use crate::stamp::Stamp;
use std::env;
use std::fmt::Display;
use std::io::Write;
use std::process;
use std::thread;
use std::time::Duration;
use stratalog::Durability::{self, Buffered, Synced, Written};
use stratalog::{Error, ErrorKind, Log, Result, Seek};

pub(crate) const ORDERS: &str = "STRATALOG_KERNEL_ORDERS";

/// What the process says begins with this; the rest is of the test harness.
pub(crate) const MARK: &str = "::";

/// Not a test unless the process is started with orders.
#[test]
fn child() {
    let Ok(orders) = env::var(ORDERS) else { return };
    let orders: Orders = orders.parse().unwrap();
    end_if_stuck();
    // The harness has not ended its line.
    writeln!(std::io::stdout()).unwrap();
    match orders.task {
        Task::Append | Task::AppendUnseen | Task::Persist => live(&orders),
        Task::Check => check(&orders),
        Task::Fill => full::fill(&orders),
    }
}

pub(crate) fn say(what: impl Display) {
    // One write, so that threads do not mix; if nobody listens any more, the end is near.
    if writeln!(std::io::stdout().lock(), "{MARK}{what}").is_err() {
        process::exit(0);
    }
}

pub(crate) fn say_list(word: &str, stamps: &[Stamp]) {
    let list: Vec<String> = stamps.iter().map(|stamp| format!(" {stamp}")).collect();
    say(format_args!("{word}{}", list.concat()));
}

/// Opens, appends, closes, again and again.
fn live(orders: &Orders) {
    for part in 0..PARTS_MAX {
        let log = match orders.options().open(&orders.path) {
            Ok(log) => log,
            Err(error) => return say_failed("open", &error),
        };
        say(format_args!("recovered {}", log.recovery().cut_bytes()));
        if orders.task != Task::AppendUnseen {
            match read(&log) {
                Ok(stamps) => say_list("found", &stamps),
                Err(error) => return say_failed("read", &error),
            }
        }
        let life = orders.life * PARTS_MAX + part;
        match append(&log, orders, life) {
            Ok(()) => match log.close() {
                Ok(()) => say("closed"),
                Err(error) => return say_failed("close", &error),
            },
            Err(error) => {
                say_failed("append", &error);
                see_what_is_left(&log, orders, &error);
            }
        }
    }
}

fn check(orders: &Orders) {
    let log = orders.options().open(&orders.path).unwrap();
    say_list("found", &read(&log).unwrap());
    let worker = Worker { life: orders.life * PARTS_MAX, thread: 0, level: orders.level };
    append_some(&log, &worker, 3).unwrap();
    log.close().unwrap();
    say("closed");
}

/// After a failure nothing succeeds but reading, and opening anew. A refusal is none: then nothing
/// happened.
fn see_what_is_left(log: &Log, orders: &Orders, error: &Error) {
    if orders.task == Task::Persist {
        let word = if orders.level == Synced { "still-synced" } else { "still-written" };
        match read(log) {
            Ok(stamps) => say_list(word, &stamps),
            // A file system may give up altogether.
            Err(error) => say_failed("read", &error),
        }
    }
    if error.kind() == ErrorKind::Poisoned {
        let kind = |result: Result<()>| result.map_err(|error| error.kind());
        let poisoned = Err(ErrorKind::Poisoned);
        assert_eq!(kind(log.append("after a failure").map(drop)), poisoned, "append");
        if log.durable_offset() < log.end_offset() {
            assert_eq!(kind(log.sync()), poisoned, "sync");
        }
        assert_eq!(kind(log.close()), poisoned, "close");
    }
    if orders.task != Task::Persist {
        process::exit(0);
    }
}

fn say_failed(what: &str, error: &Error) {
    say(format_args!("failed {what} {:?}: {error}", error.kind()));
}

pub(crate) fn read(log: &Log) -> Result<Vec<Stamp>> {
    let mut stamps = Vec::new();
    for entry in log.iter(Seek::Start)? {
        let entry = entry?;
        assert_eq!(entry.offset().get(), stamps.len() as u64);
        stamps.push(Stamp::of(&entry));
    }
    assert_eq!(stamps.len() as u64, log.high_watermark().get());
    Ok(stamps)
}

/// All threads append some.
fn append(log: &Log, orders: &Orders, life: u64) -> Result<()> {
    let rounds = 5 + Dice(life).below(60);
    thread::scope(|scope| {
        let worker = |thread| Worker { life, thread, level: orders.level };
        let work = |thread| move || append_some(log, &worker(thread), rounds);
        let threads: Vec<_> = (0..orders.threads).map(|n| scope.spawn(work(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).fold(Ok(()), Result::and)
    })
}

struct Worker {
    life: u64,
    thread: u64,
    level: Durability,
}

fn append_some(log: &Log, worker: &Worker, rounds: u64) -> Result<()> {
    let Worker { life, thread, level } = *worker;
    let mut dice = Dice(life << 8 | thread);
    for seq in 0..rounds {
        let count = if dice.once_in(3) { 1 + dice.below(12) } else { 1 };
        let stamp = Stamp { life, thread, seq, index: 0, count };
        let level = if dice.once_in(6) { dice.pick(&[Buffered, Written, Synced]) } else { level };
        append_one(log, &stamp, level, &mut dice)?;
        if dice.once_in(40) {
            log.roll()?;
        }
    }
    Ok(())
}

/// One record or batch; says what its level means for it.
fn append_one(log: &Log, stamp: &Stamp, level: Durability, dice: &mut Dice) -> Result<()> {
    let append = || {
        if stamp.count == 1 {
            log.append_with(level, stamp.record()).map(|offset| offset..offset + 1)
        } else {
            log.append_batch_with(level, stamp.batch().map(|stamp| stamp.record()))
        }
    };
    let range = match append() {
        // It failed, and yet it is in the log, before a record that was accepted.
        Err(error) if error.kind() != ErrorKind::Poisoned && error.offset().is_some() => {
            return Ok(());
        }
        // It is not there, and may go better the next time.
        Err(error) if error.kind() != ErrorKind::Poisoned => append()?,
        result => result?,
    };
    match level {
        Buffered => {}
        Written => say(format_args!("written {} {stamp}", range.start)),
        _ => say(format_args!("synced {} {stamp}", range.start)),
    }
    if level != Synced && dice.once_in(5) {
        log.wait(range.end - 1, Synced)?;
        say(format_args!("durable {}", range.end));
    }
    Ok(())
}

/// A process that waits for ever is a failure like any other.
#[expect(clippy::disallowed_methods, reason = "a watch over the whole process")]
fn end_if_stuck() {
    thread::spawn(|| {
        thread::sleep(Duration::from_secs(120));
        process::abort();
    });
}

const PARTS_MAX: u64 = 1000;
