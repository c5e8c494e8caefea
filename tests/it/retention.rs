//! Retention and maintenance: what a log forgets by itself, and what it tells of itself.

use crate::support::Site;
use crate::support::append_all;
use crate::support::at;
use crate::support::check;
use crate::support::clock::ManualClock;
use crate::support::compaction::compacting;
use crate::support::compaction::pair;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::full;
use crate::support::secs;
use crate::support::tail;
use crate::support::until;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use stratalog::{Durability, ErrorKind, Kept, Log, Maintenance, Record, Retention, Seek};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Ten full segments, a minute apart.
fn minutes(site: &Site, clock: &ManualClock) -> Log {
    let log = site.open();
    for record in full(10) {
        log.append(record).unwrap();
        clock.advance(MINUTE);
    }
    log
}

#[test]
fn segments_go_by_age() {
    let clock = ManualClock::at(secs(0));
    let site = Site::memory().small_segments().clock(&clock);
    let site = site.options(|options| options.retention(Retention::new().max_age(12 * MINUTE)));
    let log = minutes(&site, &clock);
    assert_eq!(log.maintain().unwrap().retention.removed_segments, 0);
    clock.set(secs(15 * 60));
    let report = log.enforce_retention().unwrap();
    assert_eq!((report.removed_segments, report.removed_records), (4, 4));
    assert_eq!((report.start_offset, log.start_offset()), (at(4), at(4)));
    assert_eq!(report.kept, Some(Kept::Within(Some(secs(16 * 60)))));
    assert_eq!(site.segments().len(), 6);
    check(&log, &full(10)[4..]);
    check(&site.reopen(log), &full(10)[4..]);
}

/// A segment that compaction has left without records leads readers to those that are young.
#[test]
fn a_segment_without_records_is_as_old_as_the_next() {
    let clock = ManualClock::at(secs(1_000_000));
    let site = compacting(Site::memory()).small_segments().clock(&clock);
    let site = site.options(|options| options.retention(Retention::new().max_age(60 * MINUTE)));
    let log = site.open();
    for number in 0..100 {
        log.append(pair("k", number)).unwrap();
    }
    // So large that nothing is put together with it.
    log.append(Record::new(vec![b'v'; 2000])).unwrap();
    log.append(pair("k", 101)).unwrap();
    log.roll().unwrap();
    clock.advance(MINUTE);
    log.compact().unwrap();
    assert_eq!(log.segments()[0].records, 0);
    assert_eq!(log.maintain().unwrap().retention.removed_segments, 0);
    assert_eq!(log.frames(at(50), 1).unwrap().range().start, at(50));
    assert_eq!(
        log.cursor(Seek::Offset(at(50))).unwrap().next().unwrap().unwrap().offset(),
        at(100)
    );
    // With the first record there is.
    let kept = log.enforce_retention().unwrap().kept;
    assert_eq!(kept, Some(Kept::Within(Some(secs(1_003_600)))));
    clock.advance(60 * MINUTE);
    assert_eq!(log.maintain().unwrap().retention.start_offset, log.end_offset());
}

#[test]
fn segments_go_by_size() {
    let clock = ManualClock::at(secs(0));
    let site = Site::memory().small_segments().clock(&clock);
    let site = site.options(|options| options.retention(Retention::new().max_bytes(4000)));
    let log = minutes(&site, &clock);
    log.enforce_retention().unwrap();
    assert!(log.stats().bytes <= 4000 && log.stats().bytes > 3000);
    assert_eq!(log.enforce_retention().unwrap().removed_segments, 0);
    let left = usize::try_from(log.stats().records).unwrap();
    check(&log, &full(10)[10 - left..]);
}

/// Nothing is appended, and yet the log ends its active segment, and forgets it in time.
#[test]
fn an_idle_log_empties() {
    let clock = ManualClock::at(secs(0));
    let site = Site::memory().clock(&clock);
    let site = site.options(|options| options.retention(Retention::new().max_age(MINUTE)));
    let log = site.open();
    append_all(&log, &tail(5));
    clock.set(secs(59));
    assert!(!log.maintain().unwrap().rolled);
    check(&log, &tail(5));
    clock.set(secs(60));
    let report = log.maintain().unwrap();
    assert!(report.rolled);
    assert_eq!((report.retention.removed_records, report.retention.kept), (5, None));
    assert_eq!((log.start_offset(), log.end_offset(), log.segments()), (at(5), at(5), vec![]));
    let log = site.reopen(log);
    assert_eq!(log.append("next").unwrap(), at(5));
}

#[test]
fn an_idle_segment_ends_at_its_age() {
    let clock = ManualClock::at(secs(0));
    let site = Site::memory().clock(&clock).options(|options| options.segment_age(MINUTE));
    let log = site.open();
    append_all(&log, &tail(5));
    clock.set(secs(60));
    assert!(log.maintain().unwrap().rolled);
    assert!(!log.maintain().unwrap().rolled);
    assert!(!log.segments()[0].is_active);
    check(&log, &tail(5));
}

#[test]
fn in_the_background_all_of_it_happens_by_itself() {
    for site in [Site::memory(), Site::disk()] {
        let site = site.small_segments().options(|options| {
            let retention = Retention::new().max_age(2 * SECOND).max_bytes(5000);
            options.retention(retention).maintenance(Maintenance::Background)
        });
        let log = site.open();
        append_all(&log, &full(20));
        until(|| log.stats().bytes <= 5000);
        until(|| log.start_offset() == log.end_offset() && log.segments().is_empty());
        assert!(log.stats().maintained_at.is_some() && log.stats().last_error.is_none());
        log.close().unwrap();
        assert!(site.segments().is_empty());
        assert_eq!(site.open().end_offset(), at(20));
    }
}

#[test]
fn an_error_in_the_background_is_told_and_not_the_end() {
    let machine = FaultyStorage::memory();
    let site = Site::over(machine.process()).small_segments();
    let log = site.open();
    append_all(&log, &full(10));
    log.close().unwrap();
    drop(log);

    let told = Arc::new(AtomicUsize::new(0));
    let in_background = site.options(|options| {
        let told = Arc::clone(&told);
        options
            .retention(Retention::new().max_bytes(3000))
            .maintenance(Maintenance::Background)
            .on_background_error(move |error| {
                assert_eq!(error.kind(), ErrorKind::Io);
                told.fetch_add(1, Ordering::SeqCst);
            })
    });
    machine.inject(Fault::new(Op::Remove, io::ErrorKind::PermissionDenied).on(".index").forever());
    let log = in_background.open();
    until(|| told.load(Ordering::SeqCst) > 0);
    until(|| log.stats().last_error.is_some());
    machine.heal();
    append_all(&log, &full(2));
    assert!(log.end_offset() - log.start_offset() >= 2);
    // What could not be removed is garbage that the next open removes.
    assert!(in_background.reopen(log).recovery().removed_files() > 0);
}

#[test]
fn stats_and_segments_say_what_there_is() {
    let clock = ManualClock::at(secs(0));
    let site = Site::memory().small_segments().clock(&clock);
    let log = minutes(&site, &clock);
    let stats = log.stats();
    assert_eq!((stats.segments, stats.records, stats.end_offset), (10, 10, at(10)));
    assert_eq!((stats.oldest, stats.newest), (Some(secs(0)), Some(secs(540))));
    assert_eq!(stats.bytes, log.segments().iter().map(|segment| segment.bytes).sum::<u64>());
    assert_eq!((stats.writes, stats.syncs, stats.group_commits, stats.largest_group), {
        (10, 10, 10, 1)
    });
    assert_eq!((stats.unsynced_bytes, stats.refused_writes), (0, 0));
    log.append_with(Durability::Buffered, "x").unwrap();
    assert!(log.stats().unsynced_bytes > 0);
    log.delete_before(at(3)).unwrap();
    let segments = log.segments();
    assert_eq!(segments.iter().map(|segment| segment.base_offset).collect::<Vec<_>>(), {
        (3..10).map(at).collect::<Vec<_>>()
    });
    assert!(segments[6].is_active && !segments[5].is_active);
    assert_eq!(segments[2].first_appended_at, Some(secs(300)));
    log.close().unwrap();
    assert_eq!(log.stats().durable_offset, at(11));
}

#[test]
fn a_failed_log_says_so_in_its_stats() {
    let machine = FaultyStorage::memory();
    let log = Site::over(machine.process()).open();
    append_all(&log, &tail(3));
    machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other));
    log.append("x").unwrap_err();
    assert_eq!(log.stats().last_error.unwrap().kind(), ErrorKind::Poisoned);
}

/// Records that wait for space are no reason not to make any.
#[test]
fn maintenance_makes_room_on_a_full_disk() {
    let machine = FaultyStorage::memory();
    let site = Site::over(machine.process()).small_segments();
    let site = site.options(|options| options.retention(Retention::new().max_bytes(2000)));
    let log = site.open();
    append_all(&log, &full(10));
    assert_eq!(log.start_offset(), at(0));
    log.append_with(Durability::Buffered, "waits").unwrap();
    machine.inject(Fault::new(Op::Write, io::ErrorKind::StorageFull).on(".log").forever());
    assert_eq!(log.maintain().unwrap_err().kind(), ErrorKind::StorageFull);
    assert!(log.start_offset() > at(5), "{}", log.start_offset());
}
