//! What an operator's subscriber is told, with the feature `tracing`.

use crate::support::Site;
use crate::support::append_all;
use crate::support::at;
use crate::support::clock::ManualClock;
use crate::support::compaction::compacting;
use crate::support::compaction::fill;
use crate::support::ends;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::full;
use crate::support::secs;
use crate::support::task::Alarm;
use std::fmt::{Debug, Write};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::Duration;
use stratalog::{Durability, Log, Maintenance, Retention};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

/// Keeps every event as a line: the level, the message, the names of the other fields. Uses the log
/// meanwhile, as a subscriber may: it would wait for ever for a lock that the sender holds.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>, Arc<Mutex<Option<Log>>>, Manners);

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Manners {
    #[default]
    Good,
    Panics,
}

/// A line that is being written.
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => write!(self.fields, " {name}").unwrap(),
        }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "stratalog"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line { message: String::new(), fields: String::new() };
        event.record(&mut line);
        assert!(self.2 == Manners::Good, "as it is meant");
        let log = self.1.lock().unwrap().clone();
        if let Some(log) = log {
            drop((log.sync(), log.stats(), log.close()));
        }
        let level = event.metadata().level();
        self.0.lock().unwrap().push(format!("{level} {}:{}", line.message, line.fields));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// What is said while it runs.
fn said(run: impl FnOnce()) -> Vec<String> {
    said_to(&Lines::default(), run)
}

fn said_to(lines: &Lines, run: impl FnOnce()) -> Vec<String> {
    // Whether anybody listens is remembered for each place that tells something. Other tests open
    // logs to which nobody listens, at the same time; so somebody always does.
    static SOMEBODY: Once = Once::new();
    SOMEBODY.call_once(|| tracing::subscriber::set_global_default(Lines::default()).unwrap());
    tracing::callsite::rebuild_interest_cache();
    tracing::subscriber::with_default(lines.clone(), run);
    std::mem::take(&mut *lines.0.lock().unwrap())
}

#[test]
fn what_changes_a_log_is_told_once() {
    let site = Site::memory().small_segments();
    let site = site.options(|options| options.retention(Retention::new().max_bytes(3000)));
    let lines = said(|| {
        let log = site.open();
        append_all(&log, &full(10));
        log.sync().unwrap();
        log.iter(stratalog::Seek::Start).unwrap().for_each(drop);
        log.truncate_to(at(8)).unwrap();
        log.delete_before(at(2)).unwrap();
        log.maintain().unwrap();
        log.maintain().unwrap();
        log.close().unwrap();
        log.close().unwrap();
    });
    let expected = [
        "INFO opened: path recovery",
        "INFO truncated: path end",
        "INFO deleted: path start",
        "INFO retention: path report",
        "INFO closed: path",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_run_of_compaction_is_told_when_it_begins_and_when_it_ends() {
    for closes in [false, true] {
        let log = compacting(Site::memory()).small_segments().open();
        fill(&log, 100, 10);
        let lines = Lines::default();
        *lines.1.lock().unwrap() = Some(log.clone()).filter(|_| closes);
        let said = said_to(&lines, || {
            assert_eq!(log.compact().unwrap().is_stopped(), closes);
            assert!(closes || log.maintain().unwrap().compaction.is_none());
        });
        lines.1.lock().unwrap().take();
        let numbers = "compacted_to records_removed records_kept bytes_removed segments_written";
        let ended = format!("INFO compacted: path {numbers} left_aside more");
        let begun = "DEBUG compacting: path from segments".to_owned();
        assert_eq!(said, [begun, ended]);
    }
}

#[test]
fn a_log_that_fails_says_so() {
    let machine = FaultyStorage::memory();
    let site = Site::over(machine.process());
    let lines = said(|| {
        let log: Log = site.open();
        append_all(&log, &full(1));
        machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other));
        log.append("a").unwrap_err();
        log.append("b").unwrap_err();
        log.close().unwrap_err();
    });
    let expected = [
        "INFO opened: path recovery",
        "ERROR takes no more records: path error",
        "ERROR closed: path error",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_subscriber_may_use_the_log() {
    let machine = FaultyStorage::memory();
    for fails in [false, true] {
        let log = Site::over(machine.process()).small_segments().open();
        append_all(&log, &full(3));
        let lines = Lines::default();
        *lines.1.lock().unwrap() = Some(log.clone());
        let said = said_to(&lines, || {
            if fails {
                machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other));
                log.append("a").unwrap_err();
            } else {
                log.delete_before(at(1)).unwrap();
            }
        });
        lines.1.lock().unwrap().take();
        // What is sent meanwhile does not reach the same subscriber.
        assert_eq!(said.len(), 1, "{said:?}");
    }
}

/// A thread of the log waits for the sync that fails, and whoever closes the log waits for it.
#[test]
fn a_subscriber_may_close_the_log_that_fails_under_its_threads() {
    ends(|| {
        let (machine, clock) = (FaultyStorage::memory(), ManualClock::at(secs(1000)));
        let site = Site::over(machine.process()).clock(&clock).options(|options| {
            options.maintenance(Maintenance::Background).segment_age(Duration::from_secs(60))
        });
        let log = site.open();
        log.append("a").unwrap();
        drop(log.consumer("billing").unwrap());
        let lines = Lines::default();
        *lines.1.lock().unwrap() = Some(log.clone());
        machine.hold(Op::Sync);
        thread::scope(|scope| {
            scope.spawn(|| {
                machine.wait_until_held();
                clock.advance(Duration::from_secs(60));
                // That calls the keeper, which ends the segment.
                assert!(log.remove_consumer("billing").unwrap());
                // Until it waits for the sync.
                thread::park_timeout(Duration::from_millis(100));
                machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other));
                machine.release();
            });
            let said = said_to(&lines, || drop(log.append("b").unwrap_err()));
            assert_eq!(said, ["ERROR takes no more records: path error"]);
        });
        lines.1.lock().unwrap().take();
        assert!(site.try_open().is_ok());
    });
}

#[test]
fn a_subscriber_that_panics_leaves_nobody_untold() {
    let machine = FaultyStorage::memory();
    let log = Site::over(machine.process()).open();
    log.append("begin the segment").unwrap();
    let offset = log.append_with(Durability::Buffered, "a").unwrap();
    let (alarm, mut wait) = (Alarm::new(), log.wait_async(offset, Durability::Synced));
    assert!(alarm.poll(&mut wait).is_pending());
    machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other));
    let lines = Lines(Arc::default(), Arc::default(), Manners::Panics);
    said_to(&lines, || {
        assert!(catch_unwind(AssertUnwindSafe(|| log.sync())).is_err(), "the panic is told");
    });
    assert_eq!(alarm.rings(), 1);
}
