//! Rolling: when a segment ends, by size, by age and by hand, and that nobody notices.

use crate::support::LONG;
use crate::support::Site;
use crate::support::append_all;
use crate::support::assert_same;
use crate::support::at;
use crate::support::check;
use crate::support::clock::ManualClock;
use crate::support::full;
use crate::support::gate::GateStorage;
use crate::support::record;
use crate::support::records;
use crate::support::secs;
use crate::support::tail;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use stratalog::{Durability, Record, Seek};

const HOUR: Duration = Duration::from_secs(3600);
const TICK: Duration = Duration::from_micros(1);

#[test]
fn an_empty_segment_is_not_rolled() {
    let site = Site::memory();
    let log = site.open();
    log.roll().unwrap();
    assert_eq!(site.segments().len(), 0);
    append_all(&log, &tail(3));
    for _ in 0..3 {
        log.roll().unwrap();
        assert_eq!(site.segments().len(), 1);
    }
    let log = site.reopen(log);
    log.roll().unwrap();
    log.append("next").unwrap();
    assert_eq!(site.segments().len(), 2);
}

#[test]
fn the_next_append_begins_a_segment() {
    for site in Site::each() {
        let log = site.open();
        for number in 0..20 {
            log.append(record(number)).unwrap();
            log.roll().unwrap();
            log.roll().unwrap();
        }
        assert_eq!(site.segments().len(), 20);
        check(&log, &tail(20));
        log.close().unwrap();
        site.check(&tail(20));
    }
}

#[test]
fn a_roll_takes_what_is_buffered_along() {
    for site in Site::each() {
        let site = site.options(|options| options.durability(Durability::Buffered));
        let log = site.open();
        append_all(&log, &tail(10));
        log.roll().unwrap();
        append_all(&log, &records(10..20));
        check(&log, &tail(20));
        log.sync().unwrap();
        assert_eq!(site.segments().len(), 2);
        check(&site.kill().open(), &tail(20));
    }
}

#[test]
fn full_segments_end_by_themselves() {
    for site in Site::each().map(Site::small_segments) {
        let log = site.open();
        append_all(&log, &full(10));
        log.close().unwrap();
        assert_eq!(site.segments().len(), 10);
        assert!(site.segments().iter().all(|bytes| *bytes <= 1024));
        site.check(&full(10));
    }
}

/// However records arrive: a segment is over its size only if one batch is.
#[test]
fn segments_keep_to_their_size() {
    for level in [Durability::Buffered, Durability::Written, Durability::Synced] {
        let site = Site::memory().options(|options| options.segment_bytes(700).durability(level));
        let log = site.open();
        for number in 0..60 {
            log.append(record(number)).unwrap();
            log.append_batch(records(number..number + number % 4)).unwrap();
        }
        log.close().unwrap();
        let segments = site.segments();
        assert!(segments.len() > 3, "{segments:?}");
        assert!(segments.iter().all(|bytes| *bytes <= 700), "{segments:?}");
    }
}

#[test]
fn a_segment_is_named_after_its_first_record() {
    let site = Site::memory();
    let log = site.open();
    for count in [1, 5, 100] {
        log.append_batch(tail(count)).unwrap();
        log.roll().unwrap();
    }
    let bases = site.files().into_iter().filter_map(|(name, _)| {
        let (base, _) = name.strip_suffix(".log")?.split_once('-')?;
        Some(base.parse::<u64>().unwrap())
    });
    assert!(bases.eq([0, 1, 6]));
}

#[test]
fn an_old_segment_ends_with_the_next_append() {
    for batched in [false, true] {
        let clock = ManualClock::at(secs(1000));
        let site = Site::memory().clock(&clock).options(|options| options.segment_age(HOUR));
        let log = site.open();
        let append = |number| {
            if batched {
                log.append_batch([record(number)]).unwrap();
            } else {
                log.append(record(number)).unwrap();
            }
            site.segments().len()
        };
        assert_eq!(append(0), 1);
        clock.advance(HOUR - TICK);
        assert_eq!(append(1), 1);
        clock.advance(TICK);
        assert_eq!(append(2), 2);
        clock.advance(HOUR - TICK);
        assert_eq!(append(3), 2);
        clock.advance(TICK);
        assert_eq!(append(4), 3);
        check(&log, &tail(5));
    }
}

/// The age counts from the first record, not from the opening of the log.
#[test]
fn age_outlives_the_process() {
    let clock = ManualClock::at(secs(1000));
    let site = Site::memory().clock(&clock).options(|options| options.segment_age(HOUR));
    let log = site.open();
    log.append("a").unwrap();
    clock.advance(HOUR / 2);
    let log = site.reopen(log);
    log.append("b").unwrap();
    assert_eq!(site.segments().len(), 1);
    clock.advance(HOUR / 2);
    let killed = site.kill();
    for (site, log) in [(&site, site.reopen(log)), (&killed, killed.open())] {
        log.append("c").unwrap();
        assert_eq!(site.segments().len(), 2);
    }
}

#[test]
fn buffered_records_age_too() {
    let clock = ManualClock::at(secs(1000));
    let site = Site::memory().clock(&clock).options(|options| options.segment_age(HOUR));
    let log = site.open();
    for number in 0..5 {
        log.append_with(Durability::Buffered, record(number)).unwrap();
        clock.advance(HOUR);
    }
    log.sync().unwrap();
    check(&log, &tail(5));
    // Records of one frame share a segment; a frame that is open takes no record of another age.
    assert_eq!(site.segments().len(), 5);
}

#[test]
fn a_clock_that_goes_back_ages_nothing() {
    let clock = ManualClock::at(secs(1_000_000));
    let site = Site::memory().clock(&clock).options(|options| options.segment_age(HOUR));
    let log = site.open();
    for number in 0..5 {
        log.append(record(number)).unwrap();
        clock.go_back(HOUR * 2);
    }
    assert_eq!(site.segments().len(), 1);
}

#[test]
fn cursors_do_not_notice_a_roll() {
    for site in Site::each() {
        let log = site.open();
        append_all(&log, &tail(20));
        let mut cursor = log.cursor(Seek::Offset(at(10))).unwrap();
        for number in 10..20 {
            log.roll().unwrap();
            log.append(Record::new("more")).unwrap();
            assert_same(cursor.next().unwrap().unwrap(), at(number), &record(number));
        }
        for number in (0..20).rev() {
            assert_same(cursor.prev().unwrap().unwrap(), at(number), &record(number));
            log.roll().unwrap();
        }
    }
}

/// Whoever watches a log asks while it rolls too, which takes as long as its disk likes.
#[test]
fn stats_wait_for_no_roll_and_no_sync() {
    let storage = GateStorage::default();
    let log = Site::over(Arc::new(storage.clone())).open();
    append_all(&log, &tail(3));
    log.append_with(Durability::Buffered, "not written").unwrap();
    let before = log.segments();
    assert_eq!((before.len(), before[0].records, log.stats().records), (1, 3, 3));
    thread::scope(|scope| {
        let held = storage.hold();
        scope.spawn(|| log.roll().unwrap());
        storage.wait_for_sync();
        // Written, and the sync of it under way.
        assert_eq!(log.stats().records, 4);
        assert_eq!(log.segments()[0].end_offset, at(4));
        drop(held);
    });
    let held = storage.hold();
    thread::scope(|scope| {
        scope.spawn(|| log.append_with(Durability::Written, "begins a segment").unwrap());
        storage.wait_for_sync();
        let (asked, is_asked) = mpsc::channel();
        let log = log.clone();
        scope.spawn(move || asked.send(log.stats()).unwrap());
        let stats = is_asked.recv_timeout(LONG);
        drop(held);
        let stats = stats.unwrap();
        assert_eq!((stats.records, stats.end_offset), (4, at(5)));
    });
    assert_eq!((log.segments().len(), log.stats().records), (2, 5));
}
