//! When the system refuses: failed writes and syncs, a full disk, too many open files, and calls
//! that do a part of what they were asked to. What follows when any one call of a program fails is
//! explored in `explore/`.

use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::at;
use crate::support::check;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::fault::is_injected;
use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::image::TINY;
use crate::support::image::read;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use crate::support::model::Row;
use crate::support::record;
use crate::support::records;
use crate::support::tail;
use crate::support::task::block_on;
use crate::support::until;
use std::io;
use std::thread;
use stratalog::Durability::{self, Buffered, Synced, Written};
use stratalog::{Error, ErrorKind, Log, Offset, Options, Record, Seek};

// A failed write or sync.

#[test]
fn a_failed_sync_poisons_the_log_and_tells_every_waiter() {
    check_poison(1 << 20, Fault::new(Op::Sync, io::ErrorKind::Other).on(".log").nth(10));
}

#[test]
fn a_sync_that_fails_for_want_of_space_poisons_all_the_same() {
    check_poison(1 << 20, Fault::new(Op::Sync, io::ErrorKind::StorageFull).on(".log").nth(10));
}

#[test]
fn a_failed_write_poisons_the_log_and_tells_every_waiter() {
    check_poison(1 << 20, Fault::new(Op::Write, io::ErrorKind::Other).on(".log").nth(10));
}

#[test]
fn a_directory_whose_sync_fails_before_the_rename_poisons_the_log() {
    check_poison(TINY, Fault::new(Op::SyncDir, io::ErrorKind::Other).nth(9));
}

#[test]
fn a_directory_whose_sync_fails_after_the_rename_poisons_the_log() {
    check_poison(TINY, Fault::new(Op::SyncDir, io::ErrorKind::Other).nth(10));
}

#[test]
fn a_rename_that_fails_may_have_happened_and_poisons_the_log() {
    check_poison(TINY, Fault::new(Op::Rename, io::ErrorKind::Other).nth(5));
}

/// Threads append until the log fails, once; nothing is acknowledged behind the failure, cursors
/// read on, and the log opens again in the same process with all that was acknowledged.
fn check_poison(segment_bytes: u64, fault: Fault) {
    let machine = FaultyStorage::memory();
    let log = tiny(machine.process()).segment_bytes(segment_bytes).open(DIR).unwrap();
    append_all(&log, &tail(5));
    machine.inject(fault);
    let run = || {
        let mut acknowledged = Vec::new();
        for nth in 0..MANY {
            match log.append(format!("{:?} {nth}", thread::current().id())) {
                Ok(offset) => acknowledged.push(offset),
                Err(error) => return (acknowledged, error),
            }
        }
        panic!("the log does not fail");
    };
    let told = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for (_, error) in &told {
        check_poisoned(error);
    }
    let acknowledged: Vec<Offset> = told.into_iter().flat_map(|(offsets, _)| offsets).collect();
    let before = read(&log).unwrap();
    assert!(before.len() >= 5 + acknowledged.len());

    check_poisoned(&log.append("more").unwrap_err());
    check_poisoned(&log.append_with(Buffered, "more").unwrap_err());
    check_poisoned(&log.sync().unwrap_err());
    check_poisoned(&log.roll().unwrap_err());
    assert!(log.durable_offset() <= at(before.len() as u64));
    assert_eq!(read(&log).unwrap(), before);
    let mut cursor = log.cursor(Seek::Start).unwrap();

    check_poisoned(&log.close().unwrap_err());
    check_poisoned(&log.close().unwrap_err());
    let again = open(&machine);
    assert_eq!(read(&again).unwrap()[..before.len()], before);
    again.append("goes on").unwrap();
    for offset in acknowledged {
        let value = log.get(offset).unwrap().unwrap().value().to_vec();
        assert_eq!(again.get(offset).unwrap().unwrap().value(), value);
    }
    // A cursor of the log that failed reads on to where it could.
    for record in &before {
        assert_eq!(&Record::from(cursor.next().unwrap().unwrap()), record);
    }
}

fn check_poisoned(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
    assert!(is_injected(error), "{error}");
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    let machine = FaultyStorage::memory();
    let log = open(&machine);
    log.append("one").unwrap();
    machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other).on(".log"));
    assert_kind(log.append("two"), ErrorKind::Poisoned);
    machine.forget_calls();
    assert_kind(log.sync(), ErrorKind::Poisoned);
    assert_kind(log.wait(at(1), Synced), ErrorKind::Poisoned);
    assert_kind(log.close(), ErrorKind::Poisoned);
    assert_eq!(machine.count(|op, _| matches!(op, Op::Sync | Op::Write)), 0);
}

#[test]
fn a_waiting_future_and_cursor_are_told_of_the_failure() {
    let machine = FaultyStorage::memory();
    let log = buffered(&machine).open(DIR).unwrap();
    log.append("zero").unwrap();
    log.sync().unwrap();
    let offset = log.append("one").unwrap();
    let waits = log.wait_async(offset, Synced);
    let mut cursor = log.cursor(Seek::End).unwrap();
    let unseen = cursor.wait_async();
    machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other).on(".log"));
    assert_kind(log.sync(), ErrorKind::Poisoned);
    assert_kind(block_on(waits), ErrorKind::Poisoned);
    assert_kind(block_on(unseen), ErrorKind::Poisoned);
}

#[test]
fn a_read_that_fails_is_an_error_and_does_not_move_the_cursor() {
    let machine = FaultyStorage::memory();
    let log = open(&machine);
    append_all(&log, &tail(5));
    let mut cursor = log.cursor(Seek::Start).unwrap();
    machine.inject(Fault::new(Op::Read, io::ErrorKind::Other).forever());
    for _ in 0..2 {
        let error = cursor.next().unwrap_err();
        assert!(error.kind() == ErrorKind::Io && is_injected(&error), "{error}");
        assert_eq!(cursor.offset(), at(0));
    }
    machine.heal();
    check(&log, &tail(5));
    assert_eq!(cursor.next().unwrap().unwrap().offset(), at(0));
}

/// Whichever call it is: of a segment, of its index, at the begin or in the middle.
#[test]
fn a_cursor_goes_on_behind_any_call_that_failed_once() {
    let machine = FaultyStorage::memory();
    let log = open(&machine);
    append_all(&log, &records(0..60));
    log.close().unwrap();
    for op in [Op::Open, Op::Read, Op::Size] {
        for nth in 1..MANY {
            let log = open(&machine);
            machine.inject(Fault::new(op, io::ErrorKind::Other).nth(nth));
            let mut cursor = log.cursor(Seek::Start).unwrap();
            let (mut found, mut errors) = (Vec::new(), 0);
            loop {
                match cursor.next() {
                    Ok(Some(entry)) => found.push(Row::from(entry).record),
                    Ok(None) => break,
                    Err(error) => {
                        assert!(error.kind() == ErrorKind::Io && is_injected(&error), "{error}");
                        errors += 1;
                    }
                }
            }
            assert_eq!(found, records(0..60), "{op:?} {nth}");
            machine.heal();
            log.close().unwrap();
            if errors == 0 && nth > 30 {
                break;
            }
        }
    }
}

// A full disk.

#[test]
fn a_synced_append_on_a_full_disk_fails_and_nothing_of_it_is_seen() {
    for kind in [None, Some(io::ErrorKind::QuotaExceeded)] {
        let machine = FaultyStorage::memory();
        let log = open(&machine);
        append_all(&log, &records(0..10));
        match kind {
            None => machine.set_free(Some(0)),
            Some(kind) => machine.inject(Fault::new(Op::Write, kind).forever()),
        }
        let mut all = records(0..10);
        let error = append_until_full(&log, Synced, &mut all);
        assert_eq!(error.offset(), None);
        for _ in 0..3 {
            assert_kind(log.append(record(5)), ErrorKind::StorageFull);
            assert_kind(log.append_batch(records(0..3)), ErrorKind::StorageFull);
            check(&log, &all);
            assert_eq!(log.end_offset(), at(all.len() as u64));
        }
        machine.set_free(None);
        machine.heal();
        append_all(&log, &records(0..30));
        all.extend(records(0..30));
        check(&log, &all);
        check(&open(&machine.crash(Crash::DropUnsynced)), &all);
    }
}

/// A part of what was refused got into the file, in whole frames, and is not found after a crash.
#[test]
fn what_was_refused_is_not_found_after_a_power_cut() {
    let mut partial = 0;
    for free in (0..80_000).step_by(4000) {
        let machine = FaultyStorage::memory();
        let log = tiny(machine.process()).segment_bytes(1 << 20).open(DIR).unwrap();
        log.append_with(Written, "kept").unwrap();
        log.sync().unwrap();
        machine.set_free(Some(free));
        // Each fills a frame; they are written together, behind the one that is held up.
        let values = ["first", "second", "third", "fourth"].map(|value| value.repeat(3000));
        let append = |value: &String| log.append_with(Written, value).is_err();
        let refused = thread::scope(|scope| {
            machine.hold(Op::Write);
            let first = scope.spawn(|| append(&values[0]));
            machine.wait_until_held();
            let others = values[1..].iter().map(|value| scope.spawn(move || append(value)));
            let others: Vec<_> = others.collect();
            until(|| log.end_offset() == at(5));
            machine.release();
            let others = others.into_iter().map(|other| other.join().unwrap());
            others.fold(first.join().unwrap(), |any, refused| any | refused)
        });
        partial += u32::from(refused && log.end_offset() > at(1));
        let end = log.end_offset();
        machine.kill();
        for seed in 0..16 {
            let found = open(&machine.crash(Crash::Prefix(seed))).end_offset();
            assert!(found <= end, "{free} bytes free: {found} records, {end} were taken");
        }
    }
    assert!(partial > 2, "the disk was never full in the middle");
}

#[test]
fn records_accepted_as_buffered_stay_readable_on_a_full_disk_and_are_written_later() {
    let machine = FaultyStorage::memory();
    let log = buffered(&machine).open(DIR).unwrap();
    append_all(&log, &tail(3));
    log.sync().unwrap();
    machine.set_free(Some(0));
    let mut all = tail(3);
    for record in records(0..12) {
        log.append(record.clone()).unwrap();
        all.push(record);
    }
    for _ in 0..2 {
        assert_kind(log.sync(), ErrorKind::StorageFull);
        assert_kind(log.wait(at(14), Written), ErrorKind::StorageFull);
        check(&log, &all);
    }
    machine.set_free(None);
    log.sync().unwrap();
    check(&log, &all);
    check(&open(&machine.crash(Crash::DropUnsynced)), &all);
}

/// What a try left is the begin of the next one: to erase it would cost each of them a sync.
#[test]
fn what_stays_in_the_log_is_not_erased() {
    let machine = FaultyStorage::memory();
    let log = buffered(&machine).segment_bytes(1 << 20).open(DIR).unwrap();
    append_all(&log, &tail(3));
    log.wait(at(2), Written).unwrap();
    machine.set_free(Some(400));
    log.append("x".repeat(700)).unwrap();
    machine.forget_calls();
    for _ in 0..3 {
        assert_kind(log.wait(at(3), Written), ErrorKind::StorageFull);
    }
    assert_eq!(machine.count(|op, _| op == Op::Sync), 0);
    machine.set_free(None);
    log.wait(at(3), Written).unwrap();
}

#[test]
fn a_log_opens_and_reads_on_a_full_disk() {
    let machine = FaultyStorage::memory();
    let log = open(&machine);
    append_all(&log, &records(0..30));
    for record in records(30..60) {
        log.append_with(Written, record).unwrap();
    }
    let machine = machine.crash(Crash::KeepAll);
    machine.set_free(Some(0));
    for _ in 0..3 {
        let log = open(&machine);
        check(&log, &records(0..60));
        machine.kill();
    }
    open(&machine).close().unwrap();
    let log = open(&machine);
    assert!(log.recovery().is_clean());
    check(&log, &records(0..60));
}

#[test]
fn a_log_that_has_nothing_to_write_closes_on_a_full_disk() {
    let machine = FaultyStorage::memory();
    let log = open(&machine);
    append_all(&log, &records(0..30));
    machine.set_free(Some(0));
    log.close().unwrap();
    assert!(open(&machine).recovery().is_clean());
}

#[test]
fn a_close_that_cannot_write_says_so_and_frees_the_lock() {
    let machine = FaultyStorage::memory();
    let log = buffered(&machine).open(DIR).unwrap();
    append_all(&log, &tail(3));
    log.sync().unwrap();
    machine.set_free(Some(0));
    append_all(&log, &records(0..12));
    assert_kind(log.close(), ErrorKind::StorageFull);
    assert_kind(log.close(), ErrorKind::StorageFull);
    assert_kind(log.append("more"), ErrorKind::Closed);
    let again = open(&machine);
    assert_eq!(read(&again).unwrap()[..3], tail(3));
    let left = again.end_offset();
    machine.set_free(None);
    assert_eq!(again.append("more").unwrap(), left);
}

/// A record whose caller waits has an accepted one behind it, which cannot be taken back: both
/// stay, and the error says so.
#[test]
fn a_refused_record_before_an_accepted_one_stays_and_its_error_says_where() {
    for level in [Written, Synced] {
        let machine = FaultyStorage::memory();
        let log = open(&machine);
        log.append("before").unwrap();
        log.roll().unwrap();
        machine.set_free(Some(0));
        let error = thread::scope(|scope| {
            machine.hold(Op::Create);
            let waiting = scope.spawn(|| log.append_with(level, "waiting"));
            machine.wait_until_held();
            assert_eq!(log.append_with(Buffered, "accepted").unwrap(), at(2));
            machine.release();
            waiting.join().unwrap().unwrap_err()
        });
        assert_eq!((error.kind(), error.offset()), (ErrorKind::StorageFull, Some(at(1))));
        assert_eq!(log.end_offset(), at(3));
        machine.set_free(None);
        log.sync().unwrap();
        check(&log, &["before", "waiting", "accepted"].map(Record::new));
    }
}

#[test]
fn a_log_is_made_on_a_disk_that_fills_up_at_any_byte_or_not_at_all() {
    for free in (0..10_000).step_by(61) {
        let machine = FaultyStorage::memory();
        machine.set_free(Some(free));
        let opened = tiny(machine.process()).open(DIR);
        if let Err(error) = &opened {
            assert_eq!(error.kind(), ErrorKind::StorageFull);
        }
        drop(opened);
        machine.set_free(None);
        let log = open(&machine);
        append_all(&log, &tail(3));
        check(&log, &tail(3));
    }
}

/// Whatever the number of bytes at which the disk fills up.
#[test]
fn a_disk_that_fills_up_at_any_byte_loses_nothing_that_was_acknowledged() {
    for free in (4096..16_384).step_by(37) {
        let machine = FaultyStorage::memory();
        machine.set_free(Some(free));
        let Ok(log) = tiny(machine.process()).open(DIR) else { continue };
        let mut all = Vec::new();
        append_until_full(&log, Synced, &mut all);
        check(&log, &all);
        drop(log);
        let log = open(&machine);
        check(&log, &all);
        machine.set_free(None);
        append_all(&log, &tail(2));
        all.extend(tail(2));
        check(&open(&machine.crash(Crash::DropUnsynced)), &all);
    }
}

// Calls that are interrupted, or do less than they were asked to.

#[test]
fn interrupted_and_short_calls_are_completed() {
    let machine = FaultyStorage::memory();
    machine.limit_io(7);
    machine.inject(Fault::new(Op::Read, io::ErrorKind::Interrupted).every(2));
    machine.inject(Fault::new(Op::Write, io::ErrorKind::Interrupted).every(2));
    let all = records(0..40);
    let log = open(&machine);
    append_all(&log, &all[..20]);
    log.append_batch(all[20..30].to_vec()).unwrap();
    check(&log, &all[..30]);
    machine.kill();
    let log = open(&machine);
    check(&log, &all[..30]);
    append_all(&log, &all[30..]);
    log.close().unwrap();
    let log = open(&machine);
    assert!(log.recovery().is_clean());
    check(&log, &all);
}

// Words of this file.

/// More appends than it takes to meet an obstacle.
const MANY: u64 = 10_000;

fn open(machine: &FaultyStorage) -> Log {
    tiny(machine.process()).open(DIR).unwrap()
}

fn buffered(machine: &FaultyStorage) -> Options {
    tiny(machine.process()).durability(Buffered)
}

/// Appends records until the disk is full, and adds to `all` those that got in.
fn append_until_full(log: &Log, level: Durability, all: &mut Vec<Record<'static>>) -> Error {
    for number in 0..MANY {
        let record = record(number);
        match log.append_with(level, record.clone()) {
            Ok(offset) => {
                assert_eq!(offset, at(all.len() as u64));
                all.push(record);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
                return error;
            }
        }
    }
    panic!("a full disk takes records for ever")
}
