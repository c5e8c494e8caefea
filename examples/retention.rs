//! A log that forgets: sensor readings of three days, kept for one, in segments of an hour.
//!
//! The time is set by hand, so that three days pass in a moment. `cargo run --example retention`.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use stratalog::storage::{Clock, MemoryStorage, SystemClock};
use stratalog::{ErrorKind, Log, Maintenance, Options, Record, Result, Retention, Seek, Timestamp};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn main() -> Result<()> {
    let clock = HandClock::default();
    let log = Options::new()
        .storage(Arc::new(MemoryStorage::new()))
        .clock(Arc::new(clock.clone()))
        // Here maintain() does what a thread of the log does otherwise.
        .maintenance(Maintenance::Manual)
        .segment_age(HOUR)
        .retention(Retention::new().max_age(DAY).max_bytes(1 << 20))
        .open("readings")?;

    // A reader that read one reading and then slept for three days.
    log.append(reading(0))?;
    let mut sleeper = log.cursor(Seek::Start)?;
    sleeper.next()?;

    for minute in 1..3 * 24 * 60 {
        clock.advance(MINUTE);
        log.append(reading(minute))?;
        if minute % (12 * 60) == 0 {
            let report = log.maintain()?;
            println!("hour {:2}: {}", minute / 60, report.retention);
        }
    }
    show("after three days", &log);

    match sleeper.next() {
        Err(error) if error.kind() == ErrorKind::OutOfRange => {
            println!("the sleeper is told: {error}");
            sleeper.seek(Seek::Start)?;
            let entry = sleeper.next()?.map(|entry| entry.offset());
            println!("and goes on with {entry:?}");
        }
        other => println!("the sleeper was not passed: {other:?}"),
    }

    // Nothing more comes. The log ends its last segment, and a day later it is empty.
    clock.advance(HOUR);
    let report = log.maintain()?;
    println!("an hour of silence: the active segment ended: {}", report.rolled);
    clock.advance(DAY);
    println!("a day of silence: {}", log.maintain()?.retention);
    show("at the end", &log);
    println!("the next reading gets offset {}", log.append(reading(0))?);
    log.close()
}

fn reading(minute: i64) -> Record<'static> {
    Record::new(format!("{}.{} C", 18 + minute % 7, minute % 10)).key("sensor-7")
}

fn show(when: &str, log: &Log) {
    let stats = log.stats();
    let (start, end, segments, bytes) =
        (stats.start_offset, stats.end_offset, stats.segments, stats.bytes);
    println!("{when}: offsets {start} to {end} in {segments} segments, {bytes} bytes");
}

/// Time of day that is set by hand.
#[derive(Clone, Debug, Default)]
struct HandClock(Arc<AtomicI64>);

impl HandClock {
    fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).expect("a few days");
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        SystemClock::new().monotonic()
    }
}
