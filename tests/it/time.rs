//! Time: append times that never fall, seeking by them, and the caller's own times beside them.

use crate::support::Site;
use crate::support::append_all;
use crate::support::assert_same;
use crate::support::at;
use crate::support::check;
use crate::support::clock::ManualClock;
use crate::support::record;
use crate::support::records;
use crate::support::secs;
use crate::support::tail;
use std::time::Duration;
use stratalog::{Durability, Log, Record, Seek, Timestamp};

const SECOND: Duration = Duration::from_secs(1);

fn times(log: &Log) -> Vec<Timestamp> {
    log.iter(Seek::Start).unwrap().map(|entry| entry.unwrap().appended_at()).collect()
}

fn seek(log: &Log, time: Timestamp) -> u64 {
    log.cursor(Seek::Time(time)).unwrap().offset().get()
}

/// Ten records at each of the seconds 100, 110, 120 .. 190, in a log of each kind.
fn tens(durability: Durability) -> [(Site, Log); 4] {
    let clock = ManualClock::at(secs(100));
    let [memory, disk, pread] = Site::each();
    let sites = [Site::memory(), memory.small_segments(), disk.small_segments(), pread];
    sites.map(|site| {
        clock.set(secs(100));
        let site = site.clock(&clock).options(|options| options.durability(durability));
        let log = site.open();
        for ten in 0..10 {
            append_all(&log, &records(ten * 10..ten * 10 + 10));
            clock.advance(SECOND * 10);
        }
        (site, log)
    })
}

#[test]
fn a_record_has_the_time_of_its_append() {
    for durability in [Durability::Buffered, Durability::Written, Durability::Synced] {
        for (_site, log) in tens(durability) {
            let expected = (0..100).map(|number| secs(100 + number / 10 * 10));
            assert!(times(&log).into_iter().eq(expected));
        }
    }
}

#[test]
fn seek_finds_the_first_record_at_or_after_a_time() {
    for durability in [Durability::Buffered, Durability::Written, Durability::Synced] {
        for (site, log) in tens(durability) {
            for log in [&log.clone(), &site.reopen(log)] {
                assert_eq!(seek(log, Timestamp::MIN), 0);
                assert_eq!(seek(log, secs(99)), 0);
                for ten in 0..10 {
                    let time = secs(100 + i64::try_from(ten).unwrap() * 10);
                    assert_eq!(seek(log, time), ten * 10);
                    assert_eq!(seek(log, time.checked_add(SECOND).unwrap()), ten * 10 + 10);
                    assert_eq!(seek(log, Timestamp::from_micros(time.as_micros() - 1)), ten * 10);
                }
                assert_eq!(seek(log, Timestamp::MAX), 100);
            }
        }
    }
}

/// The one record that is new in each second lies in the middle of a frame.
#[test]
fn seek_finds_a_time_within_a_frame() {
    let clock = ManualClock::at(secs(0));
    let site = Site::memory().clock(&clock);
    let log = site.options(|options| options.durability(Durability::Buffered)).open();
    for number in 0..1000 {
        clock.set(secs(number));
        log.append("x").unwrap();
    }
    for look in 0..2 {
        for number in (0..1000).step_by(7) {
            assert_eq!(seek(&log, secs(number)), u64::try_from(number).unwrap(), "look {look}");
        }
        log.sync().unwrap();
    }
}

#[test]
fn a_cursor_reads_on_from_a_time() {
    for (_site, log) in tens(Durability::Synced) {
        let mut cursor = log.cursor(Seek::Time(secs(150))).unwrap();
        assert_same(cursor.next().unwrap().unwrap(), at(50), &record(50));
        cursor.seek(Seek::Time(secs(105))).unwrap();
        assert_same(cursor.prev().unwrap().unwrap(), at(9), &record(9));
    }
}

#[test]
fn a_time_is_not_found_before_it_may_be_read() {
    let clock = ManualClock::at(secs(1));
    let log = Site::memory().clock(&clock).open();
    log.append("synced").unwrap();
    clock.advance(SECOND);
    append_all(&log, &[]);
    log.append_with(Durability::Buffered, "not yet").unwrap();
    log.append_with(Durability::Written, "not yet").unwrap();
    assert_eq!(seek(&log, secs(2)), 1);
    clock.advance(SECOND);
    log.append("now").unwrap();
    assert_eq!([seek(&log, secs(2)), seek(&log, secs(3)), seek(&log, secs(4))], [1, 3, 4]);
}

#[test]
fn a_clock_that_goes_back_stands_still() {
    let clock = ManualClock::at(secs(100));
    let log = Site::memory().clock(&clock).open();
    for time in [100, 50, -7, 99, 101, 100, 102] {
        clock.set(secs(time));
        log.append("one").unwrap();
        log.append_batch(["two", "three"]).unwrap();
    }
    let expected = [100, 100, 100, 100, 101, 101, 102].into_iter().flat_map(|time| [secs(time); 3]);
    assert!(times(&log).into_iter().eq(expected));
    assert_eq!([seek(&log, secs(50)), seek(&log, secs(101)), seek(&log, secs(102))], [0, 12, 18]);
}

#[test]
fn append_times_do_not_fall_from_open_to_open() {
    for killed in [false, true] {
        let clock = ManualClock::at(secs(100));
        let mut site = Site::memory().clock(&clock);
        let mut log = site.open();
        for time in [100, 90, 80] {
            clock.set(secs(time));
            log.append("x").unwrap();
            if killed {
                site = site.kill();
                log = site.open();
            } else {
                log = site.reopen(log);
            }
            let behind = u64::try_from(100 - time).unwrap();
            let ahead = log.recovery().clock_ahead();
            assert_eq!(ahead, Some(SECOND * u32::try_from(behind).unwrap()).filter(|_| behind > 0));
        }
        assert_eq!(times(&log), [secs(100); 3]);
        clock.set(secs(101));
        log.append("x").unwrap();
        assert_eq!(times(&log)[3], secs(101));
    }
}

#[test]
fn a_clock_that_is_right_is_not_reported() {
    let clock = ManualClock::at(secs(100));
    let site = Site::memory().clock(&clock);
    let log = site.open();
    assert_eq!(log.recovery().clock_ahead(), None);
    log.append("x").unwrap();
    assert_eq!(site.reopen(log).recovery().clock_ahead(), None);
}

/// Also over the whole range of the clock, where the difference of two times is no time any more.
#[test]
fn a_clock_may_jump_as_far_as_it_can() {
    for durability in [Durability::Buffered, Durability::Synced] {
        let clock = ManualClock::at(Timestamp::MIN);
        let site = Site::memory().clock(&clock);
        let site = site.options(|options| options.durability(durability));
        let log = site.open();
        let jumps = [Timestamp::MIN, secs(-1), secs(1), Timestamp::MAX, secs(0)];
        for time in jumps {
            clock.set(time);
            log.append("x").unwrap();
        }
        let expected = [Timestamp::MIN, secs(-1), secs(1), Timestamp::MAX, Timestamp::MAX];
        assert_eq!(times(&log), expected);
        assert_eq!(times(&site.reopen(log)), expected);
    }
}

#[test]
fn records_of_a_batch_share_a_time() {
    let clock = ManualClock::at(secs(5));
    let log = Site::memory().clock(&clock).open();
    log.append_batch(tail(500)).unwrap();
    assert_eq!(times(&log), [secs(5); 500]);
    assert_eq!([seek(&log, secs(5)), seek(&log, secs(6))], [0, 500]);
}

/// They neither order nor are sought by, and they may be anything or nothing.
#[test]
fn the_callers_times_are_kept_apart() {
    let clock = ManualClock::at(secs(100));
    let log = Site::memory().clock(&clock).open();
    let own = [Some(secs(7)), None, Some(Timestamp::MAX), Some(Timestamp::MIN), Some(secs(6))];
    let stamped = own.map(|time| match time {
        Some(time) => Record::new("x").timestamp(time),
        None => Record::new("x"),
    });
    append_all(&log, &stamped);
    check(&log, &stamped);
    let found = log.iter(Seek::Start).unwrap().map(|entry| entry.unwrap().timestamp());
    assert!(found.eq(own));
    assert_eq!(times(&log), [secs(100); 5]);
    assert_eq!([seek(&log, secs(7)), seek(&log, secs(101))], [0, 5]);
}
