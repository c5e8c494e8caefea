//! Cutting the log: truncation from the back, deletion from the front, at any offset, for good.

use crate::support::LONG;
use crate::support::Site;
use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::assert_out_of_range;
use crate::support::assert_same;
use crate::support::at;
use crate::support::check;
use crate::support::clock::ManualClock;
use crate::support::faulty::FaultyStorage;
use crate::support::full;
use crate::support::records;
use crate::support::secs;
use crate::support::tail;
use crate::support::task::block_on;
use std::thread;
use stratalog::{Durability, ErrorKind, Log, Record, Seek};

/// Frames of one and of many records, in several segments and in memory.
fn history() -> Vec<Record<'static>> {
    [tail(4), full(3), records(7..27), full(1), records(28..33)].concat()
}

fn fill(log: &Log) {
    let all = history();
    append_all(log, &all[..7]);
    log.append_batch(all[7..27].iter().cloned()).unwrap();
    append_all(log, &all[27..30]);
    for record in &all[30..] {
        log.append_with(Durability::Buffered, record.clone()).unwrap();
    }
}

#[test]
fn a_log_is_truncated_at_any_offset() {
    let all = history();
    for end in 0..=all.len() {
        for site in Site::each().map(Site::small_segments) {
            let log = site.open();
            fill(&log);
            log.truncate_to(at(end as u64)).unwrap();
            if end < all.len() {
                check(&log, &all[..end]);
                assert_eq!(log.durable_offset(), at(end as u64));
            }
            log.append_batch(tail(3)).unwrap();
            let expected = [&all[..end], &tail(3)].concat();
            check(&log, &expected);
            check(&site.kill().open(), &expected);
            check(&site.reopen(log), &expected);
        }
    }
}

#[test]
fn a_log_is_deleted_before_any_offset() {
    let all = history();
    for start in 0..=all.len() {
        for site in Site::each().map(Site::small_segments) {
            let log = site.open();
            fill(&log);
            log.delete_before(at(start as u64)).unwrap();
            assert_eq!(log.start_offset(), at(start as u64));
            assert_eq!(log.end_offset(), at(all.len() as u64));
            log.append_batch(tail(3)).unwrap();
            let expected = [&all[start..], &tail(3)].concat();
            check(&log, &expected);
            check(&site.kill().open(), &expected);
            let log = site.reopen(log);
            assert_eq!(log.start_offset(), at(start as u64));
            check(&log, &expected);
        }
    }
}

#[test]
fn what_was_cut_is_gone_after_a_kill_even_if_nothing_followed() {
    let all = history();
    for site in Site::each().map(Site::small_segments) {
        let log = site.open();
        fill(&log);
        log.truncate_to(at(13)).unwrap();
        log.delete_before(at(5)).unwrap();
        check(&site.kill().open(), &all[5..13]);
        log.truncate_to(at(5)).unwrap();
        check(&site.kill().open(), &[]);
        assert_eq!(site.kill().open().end_offset(), at(5));
    }
}

#[test]
fn a_log_can_be_cut_again_and_again() {
    let site = Site::memory().small_segments();
    let mut log = site.open();
    let mut expected = Vec::new();
    for round in 0..60 {
        append_all(&log, &records(round..round + 7));
        expected.extend(records(round..round + 7));
        expected.truncate(expected.len() - 5);
        log.truncate_to(log.end_offset().checked_sub(5).unwrap()).unwrap();
        if round % 3 == 0 {
            log.delete_before(log.start_offset() + 1).unwrap();
            expected.remove(0);
        }
        check(&log, &expected);
        if round % 7 == 0 {
            log = site.reopen(log);
        }
    }
}

#[test]
fn beyond_its_end_a_log_jumps() {
    for site in Site::each().map(Site::small_segments) {
        let log = site.open();
        fill(&log);
        for start in [at(33), at(1_000_000)] {
            log.delete_before(start).unwrap();
            assert_eq!([log.start_offset(), log.end_offset(), log.durable_offset()], [start; 3]);
            check(&log, &[]);
            assert_eq!(site.kill().open().end_offset(), start);
            assert_eq!(log.append("next").unwrap(), start);
        }
        check(&site.reopen(log), &[Record::new("next")]);
    }
}

#[test]
fn offsets_outside_the_log_change_nothing() {
    let site = Site::memory().small_segments();
    let log = site.open();
    fill(&log);
    log.delete_before(at(3)).unwrap();
    assert_out_of_range(log.truncate_to(at(2)), 3);
    assert_out_of_range(log.truncate_to(at(34)), 33);
    log.delete_before(at(2)).unwrap();
    log.truncate_to(at(33)).unwrap();
    assert_eq!([log.start_offset(), log.end_offset()], [at(3), at(33)]);
    log.sync().unwrap();
    check(&log, &history()[3..]);
}

#[test]
fn a_closed_log_is_not_cut() {
    let log = Site::memory().open();
    append_all(&log, &tail(5));
    log.close().unwrap();
    assert_kind(log.truncate_to(at(1)), ErrorKind::Closed);
    assert_kind(log.delete_before(at(1)), ErrorKind::Closed);
    check(&log, &tail(5));
}

#[test]
fn the_files_of_what_was_cut_are_given_back() {
    for site in Site::each().map(Site::small_segments) {
        let log = site.open();
        append_all(&log, &full(10));
        assert_eq!(site.segments().len(), 10);
        log.delete_before(at(3)).unwrap();
        assert_eq!(site.segments().len(), 7);
        log.truncate_to(at(8)).unwrap();
        assert_eq!(site.segments().len(), 5);
        log.delete_before(at(8)).unwrap();
        assert_eq!(site.files().iter().filter(|(name, _)| name.starts_with("00")).count(), 0);
    }
}

/// A cursor reads on in what it holds, and is told when its place has gone: at every call, until it
/// is moved.
#[test]
fn a_cursor_that_was_passed_is_told_where_the_log_starts() {
    for site in Site::each().map(Site::small_segments) {
        let log = site.open();
        append_all(&log, &full(6));
        let mut cursor = log.cursor(Seek::Start).unwrap();
        let mut far = log.cursor(Seek::Offset(at(5))).unwrap();
        cursor.next().unwrap();
        log.delete_before(at(4)).unwrap();
        for _ in 0..2 {
            assert_out_of_range(cursor.next(), 4);
            assert_out_of_range(cursor.prev(), 4);
            assert_eq!(cursor.offset(), at(1));
        }
        cursor.seek(Seek::Offset(at(4))).unwrap();
        assert_eq!(cursor.next().unwrap().unwrap().offset(), at(4));
        assert_eq!(far.next().unwrap().unwrap().offset(), at(5));
        assert_eq!(far.prev().unwrap().unwrap().offset(), at(5));
        assert_eq!(far.prev().unwrap().unwrap().offset(), at(4));
        assert!(far.prev().unwrap().is_none());
        assert_out_of_range(log.get(at(3)), 4);
    }
}

#[test]
fn a_cursor_behind_a_truncation_is_told_even_if_the_log_has_grown_past_it() {
    for site in Site::each().map(Site::small_segments) {
        let log = site.open();
        fill(&log);
        let mut behind = log.cursor(Seek::Offset(at(20))).unwrap();
        let mut before = log.cursor(Seek::Offset(at(8))).unwrap();
        for cursor in [&mut behind, &mut before] {
            cursor.next().unwrap();
        }
        log.truncate_to(at(12)).unwrap();
        append_all(&log, &full(20));
        log.truncate_to(at(15)).unwrap();
        append_all(&log, &full(20));
        for _ in 0..2 {
            assert_out_of_range(behind.next(), 12);
            assert_out_of_range(behind.prev(), 12);
        }
        for (nth, record) in (9..).zip(&history()[9..12]) {
            assert_same(before.next().unwrap().unwrap(), at(nth), record);
        }
        assert_eq!(Record::from(before.next().unwrap().unwrap()), full(1)[0]);
        log.delete_before(at(13)).unwrap();
        assert_out_of_range(behind.next(), 13);
        behind.seek(Seek::Offset(at(13))).unwrap();
        assert_eq!(Record::from(behind.next().unwrap().unwrap()), full(2)[1]);
    }
}

#[test]
fn who_waits_for_what_is_removed_is_told() {
    let log = Site::memory().open();
    append_all(&log, &tail(3));
    for record in tail(3) {
        log.append_with(Durability::Buffered, record).unwrap();
    }
    let mut removed = log.wait_async(at(5), Durability::Synced);
    let mut first = log.wait_async(at(3), Durability::Synced);
    let mut cursor = log.cursor(Seek::End).unwrap();
    thread::scope(|scope| {
        // The place in front of the first record that is removed stays.
        let waiting = scope.spawn(|| cursor.wait(LONG));
        log.truncate_to(at(3)).unwrap();
        assert_out_of_range(block_on(&mut removed), 3);
        assert_out_of_range(block_on(&mut first), 3);
        assert_out_of_range(log.wait(at(3), Durability::Synced), 3);
        log.append("again").unwrap();
        assert!(waiting.join().unwrap().unwrap());
    });
}

/// The log has grown to where the cursor stood before it was cut: it is told all the same.
#[test]
fn a_wait_at_a_place_that_was_cut_off_says_so() {
    let log = Site::memory().open();
    append_all(&log, &tail(6));
    let mut cursor = log.cursor(Seek::End).unwrap();
    assert!(cursor.next().unwrap().is_none());
    log.truncate_to(at(5)).unwrap();
    append_all(&log, &tail(1));
    assert_out_of_range(cursor.wait(LONG), 5);
    assert_out_of_range(block_on(cursor.wait_async()), 5);
    cursor.seek(Seek::Offset(at(5))).unwrap();
    assert!(cursor.wait(LONG).unwrap());
}

/// Looking for an offset while the log jumps: the end is never taken to be below the start.
#[test]
fn cursors_are_put_down_while_the_log_jumps() {
    let log = Site::memory().open();
    thread::scope(|scope| {
        let jumps = scope.spawn(|| {
            for _ in 0..2000 {
                log.append_with(Durability::Buffered, "x").unwrap();
                log.delete_before(log.end_offset() + 10).unwrap();
            }
        });
        while !jumps.is_finished() {
            if let Err(error) = log.cursor(Seek::Offset(at(3))) {
                assert_eq!(error.kind(), ErrorKind::OutOfRange);
            }
        }
    });
}

#[test]
fn times_never_go_back_over_a_cut() {
    let clock = ManualClock::at(secs(1000));
    let site = Site::memory().clock(&clock).small_segments();
    let mut log = site.open();
    log.append("early").unwrap();
    clock.set(secs(2000));
    append_all(&log, &tail(3));
    log.truncate_to(at(1)).unwrap();
    for site in [site.kill(), site.kill()] {
        log = site.open();
        clock.set(secs(1500));
        log.append("late").unwrap();
        let entry = log.get(at(1)).unwrap().unwrap();
        assert_eq!(entry.appended_at(), secs(2000));
        assert_eq!(log.cursor(Seek::Time(secs(1001))).unwrap().offset(), at(1));
        log.delete_before(at(10)).unwrap();
        log = site.reopen(log);
        log.append("later").unwrap();
        assert_eq!(log.get(at(10)).unwrap().unwrap().appended_at(), secs(2000));
        drop(log);
    }
}

/// The records that a cut has left are found by their times; those behind it are not.
#[test]
fn times_are_found_on_both_sides_of_a_cut() {
    let clock = ManualClock::at(secs(0));
    let log = Site::memory().clock(&clock).open();
    for second in 0..10 {
        clock.set(secs(second));
        log.append_with(Durability::Buffered, "x").unwrap();
    }
    log.truncate_to(at(5)).unwrap();
    let found = |second| log.cursor(Seek::Time(secs(second))).unwrap().offset();
    assert_eq!([found(4), found(5), found(9)], [at(4), at(5), at(5)]);
    clock.set(secs(20));
    log.append("y").unwrap();
    assert_eq!([found(4), found(5), found(9), found(20), found(21)], [4, 5, 5, 5, 6].map(at));
}

/// Nothing that is cut needs space, and what it frees can be used.
#[test]
fn a_full_disk_can_be_cut() {
    for truncate in [true, false] {
        let machine = FaultyStorage::memory();
        let site = Site::over(machine.process()).small_segments();
        let log = site.open();
        append_all(&log, &full(10));
        machine.set_free(Some(0));
        assert_kind(log.append(vec![b'x'; 3000]), ErrorKind::StorageFull);
        if truncate {
            log.truncate_to(at(3)).unwrap();
            check(&log, &full(3));
        } else {
            log.delete_before(at(7)).unwrap();
            check(&log, &full(10)[7..]);
        }
        log.append(vec![b'x'; 3000]).unwrap();
        let end = log.end_offset();
        let log = site.reopen(log);
        assert_eq!(log.end_offset(), end);
    }
}

/// Readers, appenders and cuts at once: whoever reads sees records in order, or is told of a cut.
#[test]
fn readers_and_appenders_live_with_cuts() {
    for site in Site::each().map(Site::small_segments) {
        let site = site.options(|options| options.durability(Durability::Written));
        let log = site.open();
        thread::scope(|scope| {
            let readers: Vec<_> = (0..2).map(|_| scope.spawn(|| read_until_closed(&log))).collect();
            let appender = scope.spawn(|| {
                for number in 0..2000_u64 {
                    match log.append(number.to_string()) {
                        Ok(_) => {}
                        // It was cut before it was acknowledged.
                        Err(error) => assert_eq!(error.kind(), ErrorKind::OutOfRange),
                    }
                }
            });
            while !appender.is_finished() {
                let (start, end) = (log.start_offset(), log.end_offset());
                let back = end.checked_sub(7).unwrap_or(start).max(start);
                log.truncate_to(back).unwrap();
                log.delete_before((start + 3).min(back)).unwrap();
                thread::yield_now();
            }
            appender.join().unwrap();
            log.close().unwrap();
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
    }
}

/// Reads on, and where it is told that its place has gone, from there.
fn read_until_closed(log: &Log) {
    let mut cursor = log.cursor(Seek::Start).unwrap();
    let mut expected = None;
    loop {
        match cursor.next() {
            Ok(Some(entry)) => {
                assert_eq!(*expected.get_or_insert(entry.offset()), entry.offset());
                expected = Some(entry.offset() + 1);
            }
            Ok(None) => match cursor.wait(LONG) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::OutOfRange => {}
                Err(error) => return assert_eq!(error.kind(), ErrorKind::Closed),
            },
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
                expected = None;
                // That place may be gone by now as well.
                drop(cursor.seek(Seek::Offset(error.offset().unwrap())));
            }
        }
    }
}
