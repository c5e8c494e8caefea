//! Compaction: what stays, what goes and when tombstones do, and how what is left is read.

use crate::support::Site;
use crate::support::assert_kind;
use crate::support::assert_out_of_range;
use crate::support::at;
use crate::support::clock::ManualClock;
use crate::support::compaction::Full;
use crate::support::compaction::check_compacted;
use crate::support::compaction::compacting;
use crate::support::compaction::compacting_with;
use crate::support::compaction::damage;
use crate::support::compaction::fill;
use crate::support::compaction::pair;
use crate::support::compaction::rows;
use crate::support::image::Image;
use crate::support::secs;
use std::sync::Arc;
use std::time::Duration;
use stratalog::storage::Clock;
use stratalog::{Compaction, Durability, ErrorKind, Offset, Record, Seek, Timestamp};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn without_options_it_is_invalid() {
    let log = Site::memory().open();
    assert_kind(log.compact(), ErrorKind::InvalidInput);
}

#[test]
fn options_out_of_their_limits_are_invalid() {
    let refused = [
        Compaction::new().map_bytes(1023),
        Compaction::new().map_bytes((64 << 30) + 1),
        Compaction::new().bytes_per_second(0),
        Compaction::new().dirty_ratio(-0.1),
        Compaction::new().dirty_ratio(1.1),
        Compaction::new().dirty_ratio(f64::NAN),
        Compaction::new().min_lag(HOUR).max_lag(HOUR / 2),
    ];
    for compaction in refused {
        let site = Site::memory().options(|options| options.compaction(compaction));
        assert_kind(site.try_open(), ErrorKind::InvalidInput);
    }
}

#[test]
fn an_empty_log_and_one_without_sealed_segments_stay_as_they_are() {
    let site = compacting(Site::memory());
    let log = site.open();
    assert!(!log.compact().unwrap().more());
    log.append(pair("a", 1)).unwrap();
    log.append(pair("a", 2)).unwrap();
    let report = log.compact().unwrap();
    assert_eq!((report.records_removed(), report.segments_read()), (0, 0));
    check_compacted(&log, &Full::of(&log));
}

#[test]
fn a_closed_log_is_not_compacted() {
    let log = compacting(Site::memory()).open();
    fill(&log, 100, 5);
    log.close().unwrap();
    assert_kind(log.compact(), ErrorKind::Closed);
}

/// Offsets, times, headers and all; keyless records; and again after a kill and a close.
#[test]
fn the_last_of_each_key_stays_as_it_was() {
    for site in Site::each() {
        let site = compacting(site).small_segments();
        let log = site.open();
        fill(&log, 300, 20);
        let before = Full::of(&log);
        let expected = before.compacted_to(at(300));
        let report = log.compact().unwrap();
        check_compacted(&log, &expected);
        assert_eq!(report.records_removed(), (before.len() - expected.len()) as u64);
        assert_eq!(report.compacted_to(), at(300));
        assert!(report.left_aside().is_empty() && !report.more() && !report.is_stopped());
        check_compacted(&site.kill().open(), &expected);
        check_compacted(&site.reopen(log), &expected);
    }
}

/// Nothing to remove, and soon nothing to merge: no file is written.
#[test]
fn later_runs_change_nothing() {
    let site = compacting(Site::memory()).small_segments();
    let log = site.open();
    fill(&log, 300, 20);
    log.compact().unwrap();
    let merged = log.compact().unwrap();
    assert_eq!(merged.records_removed(), 0);
    let files = site.files();
    let report = log.compact().unwrap();
    assert_eq!((report.records_removed(), report.segments_written()), (0, 0));
    assert_eq!(site.files(), files);
}

/// Many small outputs become few.
#[test]
fn small_outputs_are_merged() {
    let site = compacting(Site::memory()).small_segments();
    let log = site.open();
    fill(&log, 2000, 5);
    let before = site.segments().len();
    log.compact().unwrap();
    let after = site.segments();
    assert!(before > 30 && after.len() <= 4, "{before} segments became {}", after.len());
    assert!(after.iter().all(|bytes| *bytes <= 1100), "{after:?}");
}

/// A run goes on where the map of the one before was full, in the middle of a segment.
#[test]
fn a_tiny_map_takes_several_runs_to_the_same_result() {
    for keys in [29, 30, 31, 200, 1000] {
        let site = compacting_with(Site::memory(), |compaction| compaction.map_bytes(1 << 10));
        let log = site.small_segments().open();
        fill(&log, 3000, keys);
        let expected = Full::of(&log).compacted_to(at(3000));
        let (mut runs, mut last) = (0, at(0));
        loop {
            let report = log.compact().unwrap();
            runs += 1;
            assert!(report.compacted_to() > last, "run {runs} came no further");
            last = report.compacted_to();
            if !report.more() {
                break;
            }
        }
        assert!(runs > 1, "{keys} keys in one run");
        assert_eq!(last, at(3000));
        check_compacted(&log, &expected);
    }
}

/// Above it nothing is touched, although keys there are in the map: what follows may be truncated.
#[test]
fn a_run_that_is_full_compacts_exactly_up_to_its_limit() {
    for keys in [35, 40, 90] {
        let site = compacting_with(Site::memory(), |compaction| compaction.map_bytes(1 << 10));
        let log = site.small_segments().open();
        for number in 0..600_u64 {
            // Some keys again and again, so that they are on both sides of a limit.
            let key = if number % 3 == 0 { number % 4 } else { number % keys };
            log.append_with(Durability::Buffered, pair(&key.to_string(), number)).unwrap();
        }
        log.roll().unwrap();
        loop {
            let before = Full::of(&log);
            let report = log.compact().unwrap();
            let after = Full::of(&log);
            assert_eq!(after, before.compacted_to(report.compacted_to()));
            if !report.more() {
                break;
            }
        }
    }
}

// Tombstones.

#[test]
fn a_tombstone_lives_for_its_time_after_it_was_first_compacted_over() {
    let clock = ManualClock::at(secs(1_000_000));
    let site = compacting_with(Site::memory(), |compaction| compaction.tombstone_retention(HOUR));
    let site = site.clock(&clock).small_segments();
    let mut log = site.open();
    log.append(pair("a", 1)).unwrap();
    log.append(Record::tombstone("a")).unwrap();
    log.roll().unwrap();
    // It is old, but nobody has compacted over it.
    clock.advance(HOUR * 10);
    log.compact().unwrap();
    assert_eq!(rows(&log), [1]);
    // Frequent runs do not prolong its life, nor does what they have to do beside it.
    for minutes in [20, 40, 59] {
        clock.advance(HOUR / 60 * if minutes == 59 { 19 } else { 20 });
        log.append(pair("b", minutes)).unwrap();
        log.roll().unwrap();
        log.compact().unwrap();
        log = site.reopen(log);
        assert_eq!(rows(&log).len(), 2, "after {minutes} minutes");
    }
    clock.advance(HOUR / 60);
    let report = log.compact().unwrap();
    assert_eq!(report.records_removed(), 1);
    assert_eq!(rows(&log), [4]);
    assert!(log.get(at(1)).unwrap().is_none());
}

/// Nothing is appended, and its turn comes all the same.
#[test]
fn tombstones_go_from_an_idle_log() {
    let clock = ManualClock::at(secs(1000));
    let site = compacting_with(Site::memory(), |compaction| compaction.tombstone_retention(HOUR));
    let log = site.clock(&clock).small_segments().open();
    for number in 0..200_u64 {
        log.append(Record::tombstone(number.to_string())).unwrap();
    }
    log.roll().unwrap();
    log.compact().unwrap();
    assert_eq!(rows(&log).len(), 200);
    clock.advance(HOUR);
    log.compact().unwrap();
    assert_eq!(rows(&log), [0; 0]);
    assert_eq!([log.start_offset(), log.end_offset()], [at(0), at(200)]);
}

/// What hides older records in a segment that cannot be read now has to stay.
#[test]
fn tombstones_above_a_segment_left_aside_stay_until_it_is_readable_again() {
    let clock = ManualClock::at(secs(1000));
    let site = compacting(Site::disk()).clock(&clock).small_segments();
    let log = site.open();
    let append = |record| {
        log.append(record).unwrap();
        log.roll().unwrap();
    };
    append(pair("before", 1));
    append(pair("a", 1));
    append(pair("before", 2));
    append(Record::tombstone("a"));
    append(Record::tombstone("before"));
    let healthy = damage(&site, 1);
    let report = log.compact().unwrap();
    let aside = report.left_aside();
    assert_eq!((aside.len(), aside[0].offsets()), (1, at(1)..at(2)));
    assert_eq!(aside[0].error().kind(), ErrorKind::Corrupt);
    assert_eq!(report.compacted_to(), at(5));
    // The older values below and above it have gone, the tombstones have not.
    for (offset, is_there) in [(0, false), (2, false), (3, true), (4, true)] {
        assert_eq!(log.get(at(offset)).unwrap().is_some(), is_there, "offset {offset}");
    }
    for _ in 0..2 {
        append(pair("c", 1));
        clock.advance(HOUR);
        let report = log.compact().unwrap();
        assert_eq!(report.left_aside().len(), 1);
        assert!(log.get(at(3)).unwrap().is_some());
    }
    healthy.restore();
    let log = site.reopen(log);
    let report = log.compact().unwrap();
    assert_eq!((report.left_aside().len(), report.more()), (0, false));
    assert_eq!(rows(&log), [6]);
}

#[test]
fn young_segments_are_left_alone() {
    let clock = ManualClock::at(secs(0));
    let site = compacting_with(Site::memory(), |compaction| compaction.min_lag(HOUR));
    let log = site.clock(&clock).open();
    for _ in 0..2 {
        log.append(pair("a", 1)).unwrap();
        log.append(pair("a", 2)).unwrap();
        log.roll().unwrap();
        clock.advance(HOUR / 2);
    }
    log.compact().unwrap();
    assert_eq!(rows(&log), [1, 2, 3]);
    clock.advance(HOUR / 2);
    log.compact().unwrap();
    assert_eq!(rows(&log), [3]);
}

// Holes.

/// Every way to read, over every kind of hole: in a frame, at its ends, whole frames, segments
/// without a record at the front, in the middle and at the end.
#[test]
fn holes_are_passed_over_in_both_directions() {
    for hole in [0..100, 0..1, 40..60, 99..100, 90..100, 3..97] {
        for site in Site::each() {
            let clock = ManualClock::at(secs(0));
            let site = compacting(site).clock(&clock);
            let log = site.open();
            for number in 0..100_u64 {
                clock.set(secs(i64::try_from(number).unwrap()));
                let key = number.to_string();
                let is_gone = hole.contains(&number);
                let record = Record::new(vec![b'x'; 90]).key(key.clone());
                log.append(if is_gone { Record::tombstone(key) } else { record }).unwrap();
                if number % 10 == 9 {
                    log.roll().unwrap();
                }
            }
            let expected = Full::of(&log).compacted_to(at(100));
            log.compact().unwrap();
            check_compacted(&log, &expected);
            check_compacted(&site.kill().open(), &expected);
            let log = site.reopen(log);
            // And with something behind them.
            log.append("more").unwrap();
            let mut more = Full::of(&log);
            check_compacted(&log, &more);
            for end in [97, 95, 60, 50, 41, 40, 7, 2, 0] {
                log.truncate_to(at(end)).unwrap();
                more = more.below(at(end));
                check_compacted(&log, &more);
                check_compacted(&site.kill().open(), &more);
            }
        }
    }
}

#[test]
fn the_front_of_a_log_with_holes_is_deleted_at_any_offset() {
    let site = compacting(Site::memory()).small_segments();
    let log = site.open();
    fill(&log, 300, 40);
    log.compact().unwrap();
    let mut expected = Full::of(&log);
    for start in (0..300).step_by(7) {
        log.delete_before(at(start)).unwrap();
        expected = expected.above(at(start));
        check_compacted(&log, &expected);
        if start % 3 == 0 {
            log.compact().unwrap();
            check_compacted(&log, &expected);
        }
    }
    check_compacted(&site.kill().open(), &expected);
}

/// A wait at a hole at the end is for a record, not for the end of the hole.
#[test]
fn a_wait_in_a_hole_at_the_end_does_not_end_at_once() {
    let log = compacting(Site::memory()).open();
    log.append(pair("a", 1)).unwrap();
    log.append(Record::tombstone("b")).unwrap();
    log.roll().unwrap();
    log.compact().unwrap();
    for offset in [1, 2] {
        let mut cursor = log.cursor(Seek::Offset(at(offset))).unwrap();
        assert!(!cursor.wait(Duration::ZERO).unwrap());
        assert!(cursor.next().unwrap().is_none());
        assert!(!cursor.wait(Duration::ZERO).unwrap());
        assert_eq!(cursor.prev().unwrap().unwrap().offset(), at(0));
    }
}

/// Records that were cut off no longer hide older ones of their keys that come back to be last.
#[test]
fn what_is_appended_below_the_last_run_is_compacted_as_well() {
    let log = compacting(Site::memory()).open();
    fill(&log, 50, 5);
    log.compact().unwrap();
    log.truncate_to(at(10)).unwrap();
    for number in 0..10 {
        log.append(pair("new", number)).unwrap();
    }
    log.roll().unwrap();
    let expected = Full::of(&log).compacted_to(at(20));
    log.compact().unwrap();
    check_compacted(&log, &expected);
    assert_eq!(rows(&log).last(), Some(&19));
}

/// A run over everything at once uses no file of an old segment afterwards, and gives them back.
#[test]
fn old_files_are_given_back() {
    let site = compacting(Site::disk()).small_segments();
    let log = site.open();
    fill(&log, 1000, 5);
    let before: u64 = site.segments().iter().sum();
    let report = log.compact().unwrap();
    let after: u64 = site.segments().iter().sum();
    assert_eq!(before - after, report.bytes_removed());
    let kept: u64 = site.segments().iter().sum();
    assert_eq!(kept, report.bytes_kept());
    assert!(after < before / 20);
}

/// Counts in the manifest are exact: a hole in a segment that is cut is not counted.
#[test]
fn counts_of_records_are_exact() {
    let storage = stratalog::storage::MemoryStorage::new();
    let site = compacting(Site::over(Arc::new(storage.clone()))).small_segments();
    let log = site.open();
    fill(&log, 500, 60);
    log.compact().unwrap();
    for end in [500, 480, 477, 460, 455] {
        log.truncate_to(at(end)).unwrap();
        let manifest = Image::of_dir(&storage, site.path()).0.remove("MANIFEST").unwrap();
        let number = |at: usize| u64::from_le_bytes(manifest[at..at + 8].try_into().unwrap());
        let rows = usize::try_from(number(8) >> 32).unwrap();
        let offsets: Vec<Offset> = Full::of(&log).offsets().collect();
        for row in (0..rows).map(|row| 80 + 96 * row) {
            let (base, end) = (at(number(row + 8)), at(number(row + 16)));
            let count = offsets.iter().filter(|offset| (base..end).contains(offset)).count();
            assert_eq!(number(row + 48), count as u64, "records from {base} to {end}");
        }
    }
}

/// Its append times are exactly what they were, over merged frames of times far apart.
#[test]
fn times_stay_exactly() {
    let clock = ManualClock::at(Timestamp::from_micros(i64::MIN + 1));
    let log = compacting(Site::memory()).clock(&clock).small_segments().open();
    for (number, time) in (0..).zip([i64::MIN + 1, -5, -4, 0, 3, i64::MAX - 1, i64::MAX]) {
        clock.set(Timestamp::from_micros(time));
        log.append(pair("old", number)).unwrap();
        log.append(pair(&number.to_string(), number)).unwrap();
        log.roll().unwrap();
    }
    let expected = Full::of(&log).compacted_to(at(14));
    log.compact().unwrap();
    check_compacted(&log, &expected);
    assert_eq!(clock.now(), Timestamp::MAX);
}

#[test]
fn offsets_outside_stay_outside() {
    let log = compacting(Site::memory()).open();
    fill(&log, 100, 5);
    log.compact().unwrap();
    assert_out_of_range(log.cursor(Seek::Offset(at(101))), 100);
    assert!(log.get(at(0)).unwrap().is_none());
    let mut cursor = log.cursor(Seek::Offset(at(1))).unwrap();
    assert!(cursor.next().unwrap().unwrap().offset() > at(1));
}
