//! Cursors: back and forth from any place, over frames, segments and what is not written yet.

use crate::support::LONG;
use crate::support::Site;
use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::assert_out_of_range;
use crate::support::assert_same;
use crate::support::at;
use crate::support::check;
use crate::support::full;
use crate::support::record;
use crate::support::records;
use crate::support::secs;
use crate::support::tail;
use crate::support::until;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use stratalog::{Durability, ErrorKind, Log, Maintenance, Offset, Record, Seek};

#[test]
fn an_empty_log_has_a_place_and_nothing_there() {
    for site in Site::each() {
        let log = site.open();
        check(&log, &[]);
        for seek in [Seek::Start, Seek::End, Seek::Offset(at(0)), Seek::Time(secs(0))] {
            let mut cursor = log.cursor(seek).unwrap();
            assert_eq!(cursor.offset(), at(0));
            assert!(cursor.next().unwrap().is_none());
            assert!(cursor.prev().unwrap().is_none());
        }
        assert_out_of_range(log.cursor(Seek::Offset(at(1))), 0);
        assert_eq!(log.get(at(0)).unwrap(), None);
        site.reopen(log).close().unwrap();
        site.check(&[]);
    }
}

#[test]
fn a_cursor_stands_between_two_records() {
    let log = Site::memory().open();
    log.append("one").unwrap();
    let mut cursor = log.cursor(Seek::Start).unwrap();
    for _ in 0..3 {
        assert_eq!(cursor.offset(), at(0));
        assert_eq!(cursor.next().unwrap().unwrap().value(), b"one");
        assert_eq!(cursor.offset(), at(1));
        assert!(cursor.next().unwrap().is_none());
        assert_eq!(cursor.prev().unwrap().unwrap().value(), b"one");
        assert!(cursor.prev().unwrap().is_none());
    }
}

/// Over frames and segments, and from the files into memory.
#[test]
fn next_then_prev_gives_the_same_record_everywhere() {
    let buffered = |site: Site| site.options(|options| options.durability(Durability::Buffered));
    for site in Site::each().map(Site::small_segments).map(buffered) {
        let log = site.open();
        append_all(&log, &tail(200));
        log.sync().unwrap();
        append_all(&log, &records(200..250));
        let mut cursor = log.cursor(Seek::Start).unwrap();
        for number in 0..250 {
            assert_same(cursor.next().unwrap().unwrap(), at(number), &record(number));
            assert_same(cursor.prev().unwrap().unwrap(), at(number), &record(number));
            assert_eq!(cursor.offset(), at(number));
            assert_same(cursor.next().unwrap().unwrap(), at(number), &record(number));
        }
    }
}

#[test]
fn a_cursor_at_the_end_sees_what_comes() {
    for site in Site::each().map(Site::small_segments) {
        let log = site.open();
        let mut cursor = log.cursor(Seek::End).unwrap();
        for number in 0..100 {
            assert!(cursor.next().unwrap().is_none());
            log.append(record(number)).unwrap();
            assert_same(cursor.next().unwrap().unwrap(), at(number), &record(number));
        }
    }
}

/// A reader in the middle of a frame in memory, while the frame grows and then goes to its file.
#[test]
fn records_may_move_under_a_cursor() {
    let site = Site::disk().options(|options| options.durability(Durability::Buffered));
    let log = site.open();
    let mut cursor = log.cursor(Seek::Start).unwrap();
    for number in 0..300 {
        append_all(&log, &[record(2 * number), record(2 * number + 1)]);
        if number % 50 == 49 {
            log.wait(at(number), Durability::Written).unwrap();
        }
        assert_same(cursor.next().unwrap().unwrap(), at(number), &record(number));
    }
    log.roll().unwrap();
    assert_same(cursor.next().unwrap().unwrap(), at(300), &record(300));
    assert_same(cursor.prev().unwrap().unwrap(), at(300), &record(300));
    assert_same(cursor.prev().unwrap().unwrap(), at(299), &record(299));
}

#[test]
fn seek_goes_to_every_place() {
    for site in Site::each().map(Site::small_segments) {
        let log = site.open();
        append_all(&log, &tail(100));
        let mut cursor = log.cursor(Seek::Start).unwrap();
        for number in (0..100).map(|nth| nth * 37 % 100) {
            cursor.seek(Seek::Offset(at(number))).unwrap();
            assert_eq!(cursor.offset(), at(number));
            assert_same(cursor.next().unwrap().unwrap(), at(number), &record(number));
        }
        cursor.seek(Seek::Offset(at(100))).unwrap();
        assert!(cursor.next().unwrap().is_none());
        assert_same(cursor.prev().unwrap().unwrap(), at(99), &record(99));
        cursor.seek(Seek::Start).unwrap();
        assert!(cursor.prev().unwrap().is_none());
        cursor.seek(Seek::End).unwrap();
        assert_eq!(cursor.offset(), at(100));
    }
}

#[test]
fn a_failed_seek_moves_nothing() {
    let log = Site::memory().open();
    append_all(&log, &tail(10));
    let mut cursor = log.cursor(Seek::Offset(at(4))).unwrap();
    assert_same(cursor.next().unwrap().unwrap(), at(4), &record(4));
    for offset in [at(11), Offset::MAX] {
        assert_out_of_range(cursor.seek(Seek::Offset(offset)), 10);
        assert_eq!(cursor.offset(), at(5));
    }
    assert_same(cursor.next().unwrap().unwrap(), at(5), &record(5));
    assert_same(cursor.prev().unwrap().unwrap(), at(5), &record(5));
}

/// Also going back from a place beyond what may be read: the record before is the last visible one.
#[test]
fn no_direction_shows_what_is_not_synced() {
    for level in [Durability::Buffered, Durability::Written] {
        let log = Site::memory().open();
        append_all(&log, &tail(3));
        log.append_batch_with(level, records(3..6)).unwrap();
        for offset in 3..=6 {
            let mut cursor = log.cursor(Seek::Offset(at(offset))).unwrap();
            assert!(cursor.next().unwrap().is_none(), "{level:?} {offset}");
            let entry = cursor.prev().unwrap().map(|entry| entry.offset());
            assert_eq!(entry, Some(at(2)), "{level:?} {offset}");
        }
    }
}

#[test]
fn a_place_beyond_what_is_synced_is_kept() {
    let log = Site::memory().open();
    log.append_batch_with(Durability::Buffered, tail(6)).unwrap();
    let mut cursor = log.cursor(Seek::Offset(at(4))).unwrap();
    assert!(cursor.next().unwrap().is_none());
    assert_eq!(cursor.offset(), at(4));
    log.sync().unwrap();
    assert_same(cursor.next().unwrap().unwrap(), at(4), &record(4));
}

#[test]
fn get_finds_each_and_nothing_else() {
    for site in Site::each().map(Site::small_segments) {
        let log = site.open();
        append_all(&log, &tail(60));
        for number in (0..60).rev() {
            let entry = log.get(at(number)).unwrap().unwrap();
            assert_eq!((entry.offset(), Record::from(&entry)), (at(number), record(number)));
        }
        assert_eq!(log.get(at(60)).unwrap(), None);
        assert_eq!(log.get(Offset::MAX).unwrap(), None);
    }
}

#[test]
fn iter_goes_from_a_place_to_the_end() {
    let log = Site::memory().small_segments().open();
    append_all(&log, &tail(50));
    let from = |seek| log.iter(seek).unwrap().map(|entry| entry.unwrap().offset().get());
    assert!(from(Seek::Start).eq(0..50));
    assert!(from(Seek::Offset(at(20))).eq(20..50));
    assert!(from(Seek::End).eq(0..0));
    assert_out_of_range(log.iter(Seek::Offset(at(51))), 50);
}

#[test]
fn an_entry_and_its_copy_are_alike() {
    let log = Site::memory().open();
    append_all(&log, &tail(12));
    let mut cursor = log.cursor(Seek::Start).unwrap();
    while let Some(entry) = cursor.next().unwrap() {
        let copy = entry.to_buf();
        assert_eq!(copy.offset(), entry.offset());
        assert_eq!(copy.appended_at(), entry.appended_at());
        assert_eq!(copy.timestamp(), entry.timestamp());
        assert_eq!((copy.key(), copy.value()), (entry.key(), entry.value()));
        assert_eq!(copy.is_tombstone(), entry.is_tombstone());
        assert!(copy.headers().eq(entry.headers()));
        assert_eq!(format!("{copy:?}"), format!("{entry:?}"));
        assert_eq!(log.get(copy.offset()).unwrap(), Some(copy));
    }
}

#[test]
fn thousands_of_segments_read_like_one() {
    let site = Site::memory()
        .options(|options| options.segment_bytes(256).durability(Durability::Buffered));
    let log = site.open();
    let value = |number: u64| Record::new(format!("{number:0100}"));
    let expected: Vec<_> = (0..2000).map(value).collect();
    append_all(&log, &expected);
    log.close().unwrap();
    assert_eq!(site.segments().len(), 2000);
    site.check(&expected);
}

#[test]
fn cursors_do_not_disturb_each_other() {
    let site = Site::disk().small_segments();
    let log = site.open();
    append_all(&log, &full(20));
    let mut cursors: Vec<_> =
        (0..20).map(|number| log.cursor(Seek::Offset(at(number))).unwrap()).collect();
    for step in 0..20 {
        for (number, cursor) in (0..20).zip(&mut cursors) {
            let entry = cursor.next().unwrap().map(|entry| entry.offset());
            assert_eq!(entry, Some(at(number + step)).filter(|offset| *offset < at(20)));
        }
    }
}

#[test]
fn cursors_read_on_after_close() {
    for site in Site::each().map(Site::small_segments) {
        let log = site.open();
        append_all(&log, &tail(100));
        let mut cursor = log.cursor(Seek::Offset(at(50))).unwrap();
        log.close().unwrap();
        for number in 50..100 {
            assert_same(cursor.next().unwrap().unwrap(), at(number), &record(number));
        }
        assert!(cursor.next().unwrap().is_none());
        check(&log, &tail(100));
        drop(log);
        cursor.seek(Seek::Start).unwrap();
        assert_same(cursor.next().unwrap().unwrap(), at(0), &record(0));
    }
}

/// What was accepted as buffered is synced by the close, so a cursor from before shows it.
#[test]
fn cursors_read_on_to_the_last_watermark() {
    let log = Site::memory().open();
    log.append_with(Durability::Buffered, "late").unwrap();
    let mut cursor = log.cursor(Seek::Start).unwrap();
    assert!(cursor.next().unwrap().is_none());
    drop(log);
    assert_eq!(cursor.next().unwrap().unwrap().value(), b"late");
}

#[test]
fn another_writer_does_not_show_in_an_old_cursor() {
    let site = Site::disk();
    let log = site.open();
    append_all(&log, &tail(3));
    let mut cursor = log.cursor(Seek::Start).unwrap();
    let log = site.reopen(log);
    append_all(&log, &records(3..6));
    for number in 0..3 {
        assert_same(cursor.next().unwrap().unwrap(), at(number), &record(number));
    }
    assert!(cursor.next().unwrap().is_none());
    check(&log, &tail(6));
}

#[test]
fn wait_tells_whether_there_is_a_record() {
    let log = Site::memory().open();
    let mut cursor = log.cursor(Seek::Start).unwrap();
    assert!(!cursor.wait(Duration::ZERO).unwrap());
    log.append_with(Durability::Buffered, "not synced").unwrap();
    assert!(!cursor.wait(Duration::from_micros(50)).unwrap());
    log.sync().unwrap();
    assert!(cursor.wait(Duration::ZERO).unwrap());
    assert!(cursor.wait(Duration::MAX).unwrap());
    assert!(cursor.next().unwrap().is_some());
    assert!(!cursor.wait(Duration::ZERO).unwrap());
}

/// Waits at the end in another thread while `act` happens, perhaps after the wait has begun.
fn wait_while(log: Log, act: impl FnOnce(Log)) -> stratalog::Result<bool> {
    let mut cursor = log.cursor(Seek::End).unwrap();
    let waits = AtomicBool::new(false);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            waits.store(true, Ordering::SeqCst);
            cursor.wait(LONG)
        });
        until(|| waits.load(Ordering::SeqCst));
        (0..100).for_each(|_| thread::yield_now());
        act(log);
        waiter.join().unwrap()
    })
}

#[test]
fn an_append_wakes_a_cursor_that_waits() {
    for level in [Durability::Buffered, Durability::Written, Durability::Synced] {
        for _ in 0..20 {
            let log = Site::memory().options(|options| options.durability(level)).open();
            assert!(wait_while(log.clone(), |log| assert!(log.append("wake").is_ok())).unwrap());
        }
    }
}

#[test]
fn closing_ends_the_waits_of_cursors() {
    for _ in 0..20 {
        let log = Site::memory().open();
        assert_kind(wait_while(log, |log| log.close().unwrap()), ErrorKind::Closed);
        assert_kind(wait_while(Site::memory().open(), drop), ErrorKind::Closed);
    }
}

#[test]
fn a_wait_that_begins_after_close_is_closed_or_true() {
    let log = Site::memory().open();
    append_all(&log, &tail(3));
    let mut cursor = log.cursor(Seek::Offset(at(2))).unwrap();
    log.close().unwrap();
    assert!(cursor.wait(LONG).unwrap());
    cursor.seek(Seek::End).unwrap();
    assert_kind(cursor.wait(LONG), ErrorKind::Closed);
}

#[test]
fn the_background_thread_shows_what_was_buffered() {
    let site = Site::disk().options(|options| {
        options.maintenance(Maintenance::Background).sync_interval(Duration::from_millis(1))
    });
    let log = site.open();
    let mut cursor = log.cursor(Seek::Start).unwrap();
    for number in 0..5 {
        log.append_with(Durability::Buffered, record(number)).unwrap();
        assert!(cursor.wait(LONG).unwrap());
        assert_same(cursor.next().unwrap().unwrap(), at(number), &record(number));
    }
}
