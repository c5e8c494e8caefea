//! Compaction by itself: when it is due, what it does not hold up, what ends it, who is told.

use crate::support::Site;
use crate::support::at;
use crate::support::clock::ManualClock;
use crate::support::compaction::Full;
use crate::support::compaction::check_compacted;
use crate::support::compaction::compacting_with;
use crate::support::compaction::fill;
use crate::support::compaction::pair;
use crate::support::compaction::rows;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::fault::is_injected;
use crate::support::faulty::FaultyStorage;
use crate::support::secs;
use crate::support::until;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use stratalog::storage::{Clock, SystemClock};
use stratalog::{
    Compaction, Durability, Error, Log, Maintenance, Options, Record, Retention, Timestamp,
};

fn background(site: Site, set: impl FnOnce(Compaction) -> Compaction) -> Site {
    let site = compacting_with(site, set);
    site.options(|options| options.maintenance(Maintenance::Background))
}

/// Large enough for several looks at the world.
fn fill_large(log: &Log, count: u64) {
    let value = vec![b'v'; 1000];
    for number in 0..count {
        let key = (number % 300).to_string();
        log.append_with(Durability::Buffered, Record::new(&value).key(key)).unwrap();
    }
    log.roll().unwrap();
}

#[test]
fn in_the_background_a_log_is_compacted_when_it_is_dirty() {
    let site = background(Site::memory(), |compaction| compaction.dirty_ratio(0.4));
    let log = site.open();
    assert_eq!(log.stats().dirty_ratio, 0.0);
    fill(&log, 400, 40);
    let end = log.end_offset();
    until(|| log.stats().compacted_to == end);
    until(|| log.stats().last_compaction.is_some());
    let stats = log.stats();
    let report = stats.last_compaction.unwrap();
    assert!(report.records_removed() > 100, "{report}");
    assert_eq!((stats.dirty_bytes, stats.dirty_ratio, stats.tombstones), (0, 0.0, 0));
    assert!(log.segments().iter().all(|segment| segment.compacted_at.is_some()));
}

/// Keys beyond the memory for them are the business of the next run, which comes by itself.
#[test]
fn in_the_background_runs_follow_each_other_until_all_is_done() {
    let site = background(Site::memory(), |compaction| compaction.map_bytes(1 << 10));
    let log = site.open();
    for number in 0..600 {
        log.append_with(Durability::Buffered, pair(&(number % 200).to_string(), number)).unwrap();
    }
    log.roll().unwrap();
    until(|| log.stats().compacted_to == at(600));
    assert_eq!(rows(&log), (400..600).collect::<Vec<_>>());
}

/// Also a run by hand that nothing else would follow. It holds on until the keeper, which another
/// segment wakes, has seen that there is nothing to do.
#[test]
fn in_the_background_a_run_by_hand_that_was_full_is_gone_on_with() {
    let clock = ManualClock::at(secs(1000));
    let cell: Arc<Mutex<Option<Log>>> = Arc::default();
    let (inner, now) = (Arc::clone(&cell), clock.clone());
    let site = background(Site::memory().clock(&clock), |compaction| {
        compaction.map_bytes(1 << 10).dirty_ratio(1.0).progress(move |_| {
            if let Some(log) = inner.lock().unwrap().take() {
                now.set(secs(2000));
                log.append(pair("meanwhile", 600)).unwrap();
                log.roll().unwrap();
                until(|| log.stats().maintained_at == Some(secs(2000)));
                now.set(secs(3000));
            }
            ControlFlow::Continue(())
        })
    });
    let log = site.open();
    log.append(pair("first", 0)).unwrap();
    log.roll().unwrap();
    until(|| log.stats().compacted_to == at(1));
    for number in 1..600 {
        log.append_with(Durability::Buffered, pair(&(number % 200).to_string(), number)).unwrap();
    }
    log.roll().unwrap();
    *cell.lock().unwrap() = Some(log.clone());
    assert!(log.compact().unwrap().more());
    until(|| log.stats().compacted_to >= at(600));
}

/// What is appended while a run is under way calls for nobody who listens.
#[test]
fn in_the_background_what_came_during_a_run_is_compacted_by_the_next() {
    let cell: Arc<Mutex<Option<Log>>> = Arc::default();
    let inner = Arc::clone(&cell);
    let site = background(Site::memory(), |compaction| {
        compaction.dirty_ratio(0.5).progress(move |_| {
            if let Some(log) = inner.lock().unwrap().take() {
                (0..200).for_each(|number| drop(log.append(pair("often", number))));
                log.roll().unwrap();
            }
            ControlFlow::Continue(())
        })
    });
    let log = site.open();
    *cell.lock().unwrap() = Some(log.clone());
    (0..100).for_each(|number| drop(log.append(pair("often", number))));
    log.roll().unwrap();
    until(|| log.stats().compacted_to == at(300));
}

/// Who opens the log sees by its segments that a run has stopped in the middle of one.
#[test]
fn a_run_that_was_full_is_gone_on_with_after_an_open() {
    let site = compacting_with(Site::memory(), |compaction| {
        compaction.map_bytes(1 << 10).dirty_ratio(1.0)
    });
    let log = site.open();
    log.append(pair("first", 0)).unwrap();
    log.roll().unwrap();
    log.compact().unwrap();
    for number in 1..600 {
        log.append_with(Durability::Buffered, pair(&(number % 200).to_string(), number)).unwrap();
    }
    log.roll().unwrap();
    assert!(log.maintain().unwrap().compaction.is_none(), "not dirty enough");
    assert!(log.compact().unwrap().more());
    let log = site.reopen(log);
    while log.maintain().unwrap().compaction.is_some() {}
    assert_eq!(log.stats().compacted_to, at(600));
}

#[test]
fn maintenance_by_hand_compacts_what_is_due() {
    let clock = ManualClock::at(secs(1000));
    let hour = Duration::from_secs(3600);
    let site = compacting_with(Site::memory().clock(&clock), |compaction| {
        compaction.dirty_ratio(0.6).tombstone_retention(hour)
    });
    let log = site.open();
    assert!(log.maintain().unwrap().compaction.is_none(), "there is nothing");
    fill(&log, 300, 30);
    let mut full = Full::of(&log);
    assert_eq!(log.stats().dirty_ratio, 1.0);
    let report = log.maintain().unwrap().compaction.unwrap();
    assert_eq!(report.compacted_to(), log.end_offset());
    let tombstones = log.stats().tombstones;
    assert!(tombstones > 0 && report.records_removed() > 0);
    let counted: u64 = log.segments().iter().map(|segment| segment.tombstones).sum();
    assert_eq!(counted, tombstones);

    // Not dirty enough.
    fill(&log, 20, 30);
    full.extend(Full::of(&log).above(at(300)));
    let stats = log.stats();
    assert!(stats.dirty_ratio > 0.0 && stats.dirty_ratio < 0.6, "{}", stats.dirty_ratio);
    let dirty: u64 = log
        .segments()
        .iter()
        .filter(|segment| segment.compacted_at.is_none())
        .map(|segment| segment.bytes)
        .sum();
    assert_eq!(stats.dirty_bytes, dirty);
    assert!(log.maintain().unwrap().compaction.is_none());

    // Tombstones go when their time is up, although nothing else has happened.
    clock.advance(hour);
    let report = log.maintain().unwrap().compaction.unwrap();
    assert!(report.records_removed() >= tombstones);
    // Those of the young segments have an hour from now.
    assert!(log.stats().tombstones > 0 && log.maintain().unwrap().compaction.is_none());
    clock.advance(hour);
    assert!(log.maintain().unwrap().compaction.is_some());
    assert_eq!(log.stats().tombstones, 0);
    assert!(log.maintain().unwrap().compaction.is_none());
    check_compacted(&log, &full.compacted_to(log.end_offset()));
}

/// Lags are of time alone: nothing happens to the log meanwhile.
#[test]
fn what_is_too_young_waits_and_what_is_too_old_does_not() {
    let clock = ManualClock::at(secs(1000));
    let site = compacting_with(Site::memory().clock(&clock), |compaction| {
        let lags = compaction.min_lag(Duration::from_secs(60)).max_lag(Duration::from_secs(600));
        lags.dirty_ratio(0.9)
    });
    let log = site.open();
    fill(&log, 300, 30);
    assert_eq!((log.stats().dirty_bytes, log.stats().dirty_ratio), (0, 0.0));
    assert!(log.maintain().unwrap().compaction.is_none(), "too young");
    clock.advance(Duration::from_secs(60));
    assert!(log.maintain().unwrap().compaction.is_some());
    fill(&log, 20, 30);
    clock.advance(Duration::from_secs(599));
    assert!(log.maintain().unwrap().compaction.is_none(), "a little dirt");
    clock.advance(Duration::from_secs(1));
    assert!(log.maintain().unwrap().compaction.is_some(), "too old");
}

/// A log whose run in the background takes days; it has begun.
fn slow(site: Site, looks: &Arc<AtomicU64>) -> Log {
    let counted = Arc::clone(looks);
    let site = background(site, |compaction| {
        compaction.bytes_per_second(1).progress(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            ControlFlow::Continue(())
        })
    });
    let log = site.options(|options| options.segment_bytes(100 << 10)).open();
    fill_large(&log, 1000);
    // The first look is before anything is read.
    until(|| looks.load(Ordering::SeqCst) > 1);
    log
}

#[test]
fn retention_and_idle_segments_do_not_wait_for_a_run() {
    let looks = Arc::new(AtomicU64::new(0));
    let site = Site::memory().options(|options| {
        let retention = Retention::new().max_bytes(1_500_000);
        options.retention(retention).segment_age(Duration::from_millis(1200))
    });
    let log = slow(site, &looks);
    let before = looks.load(Ordering::SeqCst);
    log.append("idle").unwrap();
    until(|| log.segments().iter().all(|segment| !segment.is_active));
    fill_large(&log, 1000);
    until(|| log.start_offset() > at(500));
    let stats = log.stats();
    assert!(stats.bytes <= 1_500_000, "{}", stats.bytes);
    assert!(stats.last_compaction.is_none() && looks.load(Ordering::SeqCst) == before);
    assert!(stats.last_error.is_none());
    log.close().unwrap();
}

/// By `close` and by letting go of the last handle; here the run pauses for three days.
#[test]
fn a_run_in_the_background_ends_with_the_log() {
    for drops in [false, true] {
        let looks = Arc::new(AtomicU64::new(0));
        let site = Site::memory();
        let log = slow(site, &looks);
        let before = Full::of(&log);
        if drops {
            drop(log);
        } else {
            log.close().unwrap();
            assert_eq!(Full::of(&log), before);
        }
    }
}

/// Another may have the log as soon as it is closed, although the run was not waited for.
#[test]
fn a_run_does_nothing_more_when_the_log_is_closed_during_its_pause() {
    let machine = FaultyStorage::memory();
    let cell: Arc<Mutex<Option<Log>>> = Arc::default();
    let closed_at = Arc::new(AtomicU64::new(0));
    let (inner, steps, counted) = (Arc::clone(&cell), Arc::clone(&closed_at), machine.clone());
    let site = Site::over(machine.process()).options(|options| {
        options.on_background_error(move |_| {
            if let Some(log) = inner.lock().unwrap().take() {
                log.close().unwrap();
                steps.store(counted.steps(), Ordering::SeqCst);
            }
        })
    });
    let log = slow(site, &Arc::default());
    *cell.lock().unwrap() = Some(log.clone());
    machine.inject(Fault::new(Op::Remove, io::ErrorKind::Other).on("-00000001.log"));
    // The thread of the run removes the file.
    log.delete_before(at(500)).unwrap();
    drop(log);
    // The thread has the callback until it ends.
    until(|| Arc::strong_count(&closed_at) == 1);
    assert_eq!(closed_at.load(Ordering::SeqCst), machine.steps());
}

/// Whoever compacts by hand does not wait for the slow run, which hurries.
#[test]
fn a_run_in_the_background_hurries_when_somebody_waits() {
    let looks = Arc::new(AtomicU64::new(0));
    let log = slow(Site::memory(), &looks);
    let end = log.end_offset();
    let expected = Full::of(&log).compacted_to(end);
    log.compact().unwrap();
    check_compacted(&log, &expected);
    assert!(log.stats().last_error.is_none());
}

#[test]
fn failures_in_the_background_are_told_and_the_log_goes_on() {
    let told: Arc<Mutex<Vec<Error>>> = Arc::default();
    let machine = FaultyStorage::memory();
    let open = || {
        let told = Arc::clone(&told);
        let compaction = Compaction::new().tombstone_retention(Duration::ZERO);
        let options = Options::new().storage(machine.process()).segment_bytes(512);
        options
            .compaction(compaction)
            .maintenance(Maintenance::Background)
            .on_background_error(move |error| told.lock().unwrap().push(error.clone()))
            .open("/log")
            .unwrap()
    };
    let count = || told.lock().unwrap().len();
    // The second segment is read, and cannot be; the run goes on without it.
    let log = open();
    machine.inject(Fault::new(Op::Read, io::ErrorKind::Other).on("-00000002.log").forever());
    fill(&log, 200, 20);
    until(|| log.stats().last_compaction.is_some());
    until(|| count() > 0);
    assert!(is_injected(&told.lock().unwrap()[0]));
    assert!(log.stats().last_error.is_some_and(|error| is_injected(&error)));
    machine.heal();
    log.close().unwrap();

    // An output cannot be written: nothing has changed, and it is not tried again at once.
    told.lock().unwrap().clear();
    let log = open();
    machine.inject(Fault::new(Op::Create, io::ErrorKind::StorageFull).on(".log").nth(20).forever());
    let before = log.stats().last_compaction.is_none();
    assert!(before);
    while count() == 0 {
        // Until there is no room for a segment any more, whosever it is.
        drop(log.append(pair("key", 1)).and_then(|_| log.roll()));
    }
    assert_eq!(told.lock().unwrap()[0].kind(), stratalog::ErrorKind::StorageFull);
    machine.heal();
    log.append("more").unwrap();
    log.compact().unwrap();
    log.close().unwrap();
}

/// The machine's, and farther by some seconds.
#[derive(Clone, Debug, Default)]
struct AheadClock(Arc<AtomicU64>);

impl Clock for AheadClock {
    fn now(&self) -> Timestamp {
        SystemClock::new().now()
    }

    fn monotonic(&self) -> Duration {
        SystemClock::new().monotonic() + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// It began when the machine did, or so it says, and counts who asks.
#[derive(Clone, Debug, Default)]
struct FirstClock(Arc<AtomicU64>);

impl Clock for FirstClock {
    fn now(&self) -> Timestamp {
        SystemClock::new().now()
    }

    fn monotonic(&self) -> Duration {
        self.0.fetch_add(1, Ordering::SeqCst);
        Duration::ZERO
    }
}

#[test]
fn the_first_moment_of_a_clock_keeps_nobody_busy() {
    let clock = FirstClock::default();
    let site = Site::memory().options(|options| options.clock(Arc::new(clock.clone())));
    let log = background(site, |compaction| compaction).open();
    log.append("x").unwrap();
    log.roll().unwrap();
    until(|| log.stats().maintained_at.is_some());
    thread::park_timeout(Duration::from_millis(100));
    assert!(clock.0.load(Ordering::SeqCst) < 1000);
}

/// A minute later, although nothing happens to the log and nothing becomes due by time.
#[test]
fn a_run_in_the_background_that_failed_is_tried_again() {
    let machine = FaultyStorage::memory();
    let clock = AheadClock::default();
    let compaction = Compaction::new().tombstone_retention(Duration::ZERO);
    let options = Options::new().segment_bytes(512).compaction(compaction);
    let options = options.clock(Arc::new(clock.clone()));
    let by_hand = options.clone().storage(machine.process()).maintenance(Maintenance::Manual);
    let log = by_hand.open("/log").unwrap();
    fill(&log, 200, 20);
    log.close().unwrap();
    machine.inject(Fault::new(Op::Create, io::ErrorKind::StorageFull).on(".log"));
    let count = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&count);
    let options = options.storage(machine.process()).on_background_error(move |_| {
        told.fetch_add(1, Ordering::SeqCst);
        clock.0.store(59, Ordering::SeqCst);
    });
    let log = options.maintenance(Maintenance::Background).open("/log").unwrap();
    until(|| log.stats().compacted_to == at(200));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

/// The run is over, and is tried again a minute later; what else the thread does goes on.
#[test]
fn a_progress_callback_that_panics_in_the_background_ends_its_run_alone() {
    let clock = AheadClock::default();
    let [calls, told] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let (counted, count) = (Arc::clone(&calls), Arc::clone(&told));
    let site = background(Site::memory().clock(&clock), |compaction| {
        compaction.progress(move |_| {
            assert!(counted.fetch_add(1, Ordering::SeqCst) > 0, "as it is meant");
            ControlFlow::Continue(())
        })
    });
    let site = site.options(|options| {
        let retention = Retention::new().max_bytes(2000);
        options.segment_bytes(1024).retention(retention).on_background_error(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        })
    });
    let log = site.open();
    log.append(pair("k", 1)).unwrap();
    log.roll().unwrap();
    until(|| log.stats().last_error.is_some());
    let error = log.stats().last_error.unwrap().to_string();
    assert!(error.contains("panicked") && error.contains("as it is meant"), "{error}");
    let value = vec![b'v'; 1000];
    let fill = || {
        let before = log.end_offset();
        for _ in 0..20 {
            log.append(Record::new(&value).key("k")).unwrap();
        }
        log.roll().unwrap();
        until(|| log.start_offset() > before);
    };
    fill();
    assert_eq!((calls.load(Ordering::SeqCst), told.load(Ordering::SeqCst)), (1, 0));
    clock.0.store(60, Ordering::SeqCst);
    fill();
    until(|| log.stats().last_compaction.is_some());
}

#[test]
fn a_callback_for_errors_that_panics_does_not_end_the_thread() {
    let machine = FaultyStorage::memory();
    let calls = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&calls);
    let site = Site::over(machine.process()).options(|options| {
        let options = options.segment_bytes(1024).maintenance(Maintenance::Background);
        options.retention(Retention::new().max_bytes(2000)).on_background_error(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            panic!("as it is meant");
        })
    });
    let log = site.open();
    let value = vec![b'v'; 1000];
    log.append(&value).unwrap();
    machine.inject(Fault::new(Op::Remove, io::ErrorKind::Other).on("-00000001.log"));
    for round in 0..3 {
        for _ in 0..10 {
            log.append(&value).unwrap();
        }
        until(|| log.start_offset() >= at(round * 10 + 6));
    }
    until(|| calls.load(Ordering::SeqCst) == 1);
    until(|| log.stats().last_error.is_some_and(|error| error.to_string().contains("panicked")));
    // What could not be removed is tried again by the next open.
    until(|| site.segments().len() == log.segments().len() + 1);
}
