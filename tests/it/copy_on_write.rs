//! Full disks that never write in place: what a refused write left cannot be erased, for want of
//! space, until there is some.

use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::at;
use crate::support::check;
use crate::support::clock::ManualClock;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::image::read;
use crate::support::image::read_rows;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use crate::support::secs;
use crate::support::tail;
use crate::support::until;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use stratalog::Durability::{self, Buffered, Synced, Written};
use stratalog::{Error, ErrorKind, Log, Maintenance, Offset, Record};

/// Of so many bytes a part gets into the file. Too many for zeros to be written ahead of it.
const LARGE: usize = 80_000;

/// Such a record is refused, again and again, and the log is none the worse for it.
#[test]
fn an_append_is_refused_while_what_it_left_cannot_be_erased() {
    for level in [Written, Synced] {
        for free in (1..LARGE as u64).step_by(19_001) {
            let machine = FaultyStorage::copy_on_write();
            let log = open(&machine, level);
            let mut all = tail(3);
            append_all(&log, &all);
            log.sync().unwrap();
            machine.set_free(Some(free));
            for value in ["x".repeat(LARGE), "small".to_owned(), "y".repeat(LARGE)] {
                let error = log.append(value).unwrap_err();
                assert_eq!((error.kind(), error.offset()), (ErrorKind::StorageFull, None));
                check(&log, &all);
                assert_eq!(log.end_offset(), at(3));
            }
            check_crashes(&machine, &all, 3);
            // What is there can still be synced, read, and closed later.
            log.sync().unwrap();
            machine.set_free(None);
            append_all(&log, &tail(5));
            all.extend(tail(5));
            check(&log, &all);
            log.sync().unwrap();
            check_crashes(&machine, &all, 8);
            log.close().unwrap();
            let again = open(&machine, level);
            assert!(again.recovery().is_clean());
            check(&again, &all);
        }
    }
}

/// A record whose end is zeros is in a file that had been filled with zeros as soon as its begin
/// is. It cannot be said not to be in the log, and so it is.
#[test]
fn a_record_that_a_crash_could_bring_back_stays_and_its_error_says_where() {
    let machine = FaultyStorage::copy_on_write();
    let log = open(&machine, Synced);
    append_all(&log, &tail(3));
    let value = refused(&machine, &log);
    assert_eq!(log.end_offset(), at(4));
    let mut all = tail(3);
    check(&log, &all);
    all.push(Record::new(value));
    check_crashes(&machine, &all, 3);
    assert_kind(log.append("another"), ErrorKind::StorageFull);
    check_crashes(&machine, &all, 3);
    machine.set_free(None);
    log.append("another").unwrap();
    all.push(Record::new("another"));
    check(&log, &all);
    check_crashes(&machine, &all, 5);
}

/// Nobody waits for it any more, and yet it is synced as everything is that is in the log.
#[test]
fn a_record_that_stays_is_synced_when_there_is_space() {
    let machine = FaultyStorage::copy_on_write();
    let log = tiny(machine.process())
        .segment_bytes(1 << 20)
        .maintenance(Maintenance::Background)
        .sync_interval(Duration::from_millis(10))
        .open(DIR)
        .unwrap();
    append_all(&log, &tail(3));
    refused(&machine, &log);
    // Until it has been tried in vain.
    thread::park_timeout(Duration::from_millis(50));
    assert_eq!(log.durable_offset(), at(3));
    machine.set_free(None);
    until(|| log.durable_offset() == at(4));
}

/// Several frames were written together, and some got whole into the file.
#[test]
fn each_of_several_refused_records_is_where_its_error_says_or_nowhere() {
    let [in_place, copied] = [FaultyStorage::memory, FaultyStorage::copy_on_write]
        .map(|machine| (0..64_000).step_by(3500).map(|free| stay(&machine(), free)).sum::<u32>());
    assert_eq!(in_place, 0, "what could be erased stayed");
    assert!(copied > 2, "no frame got whole into the file");
}

/// Appends several records together, and gives how many were refused and are there.
fn stay(machine: &FaultyStorage, free: u64) -> u32 {
    let mut stayed = 0;
    let log = open(machine, Written);
    log.append("kept").unwrap();
    log.sync().unwrap();
    machine.set_free(Some(free));
    let values = ["first", "second", "third", "fourth"].map(|value| value.repeat(3000));
    let outcomes = append_together(machine, &log, &values);
    let mut there = vec![(at(0), "kept")];
    for (value, outcome) in values.iter().zip(&outcomes) {
        let offset = outcome.as_ref().map_or_else(Error::offset, |offset| Some(*offset));
        there.extend(offset.map(|offset| (offset, value.as_str())));
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::StorageFull);
            stayed += u32::from(offset.is_some());
        }
    }
    there.sort_unstable();
    let all: Vec<_> = there.iter().map(|(_, value)| Record::new((*value).to_owned())).collect();
    assert_eq!(log.end_offset(), at(all.len() as u64), "{free} bytes free: {outcomes:?}");
    check_crashes(machine, &all, 1);
    let mut more = all.clone();
    match log.append("more") {
        Ok(_) => more.push(Record::new("more")),
        Err(error) => assert_eq!((error.kind(), error.offset()), (ErrorKind::StorageFull, None)),
    }
    check_crashes(machine, &more, 1);
    machine.set_free(None);
    log.sync().unwrap();
    check(&log, &more);
    log.append("afterwards").unwrap();
    more.push(Record::new("afterwards"));
    check_crashes(machine, &more, more.len() - 1);
    stayed
}

/// What was refused was appended again, with the same bytes at a later time. No power cut may put
/// the begin of the one and the end of the other together.
#[test]
fn what_was_refused_does_not_mix_with_what_is_written_in_its_place() {
    for level in [Written, Buffered] {
        let machine = FaultyStorage::copy_on_write();
        let clock = ManualClock::at(secs(1_700_000_000));
        let options = tiny(machine.process()).segment_bytes(1 << 20).clock(Arc::new(clock.clone()));
        let log = options.durability(Written).open(DIR).unwrap();
        log.append("kept").unwrap();
        log.sync().unwrap();
        let value = "x".repeat(700);
        machine.set_free(Some(400));
        assert_kind(log.append(&value), ErrorKind::StorageFull);
        clock.advance(Duration::from_secs(1));
        if level == Buffered {
            log.append_with(level, &value).unwrap();
            assert_kind(log.wait(at(1), Written), ErrorKind::StorageFull);
        }
        machine.set_free(None);
        match level {
            Buffered => log.wait(at(1), Written).unwrap(),
            _ => assert_eq!(log.append(&value).unwrap(), at(1)),
        }
        let mut there = 0;
        for seed in 0..100 {
            let after = FaultyStorage::with(machine.medium()).crash(Crash::Random(seed));
            after.set_free(None);
            let rows = read_rows(&open(&after, Written)).unwrap();
            there += rows.len() - 1;
            assert!(rows.iter().skip(1).all(|row| row.appended_at == secs(1_700_000_001)));
        }
        assert!(there > 0, "no power cut leaves it");
    }
}

/// The end of a segment leaves what a refused write left behind it, for ever.
#[test]
fn a_log_is_cut_rolled_and_closed_while_something_cannot_be_erased() {
    let roll: fn(&Log) = |log| log.roll().unwrap();
    let truncate: fn(&Log) = |log| log.truncate_to(at(2)).unwrap();
    let delete: fn(&Log) = |log| log.delete_before(at(1)).unwrap();
    let close: fn(&Log) = |log| log.close().unwrap();
    for (change, start, end) in [(roll, 0, 3), (truncate, 0, 2), (delete, 1, 3), (close, 0, 3)] {
        let machine = FaultyStorage::copy_on_write();
        let log = open(&machine, Written);
        append_all(&log, &tail(3));
        log.sync().unwrap();
        // Less than what is left in the file, and enough for a manifest.
        machine.set_free(Some(50_000));
        assert_kind(log.append("x".repeat(LARGE)), ErrorKind::StorageFull);
        machine.set_free(Some(5000));
        change(&log);
        let mut all = tail(3)[start..end].to_vec();
        check(&log, &all);
        check_crashes(&machine, &all, all.len());
        machine.set_free(None);
        log.close().unwrap();
        let log = open(&machine, Written);
        append_all(&log, &tail(2));
        all.extend(tail(2));
        check(&log, &all);
        log.sync().unwrap();
        check_crashes(&machine, &all, all.len());
    }
}

fn open(machine: &FaultyStorage, level: Durability) -> Log {
    tiny(machine.process()).segment_bytes(1 << 20).durability(level).open(DIR).unwrap()
}

/// The first is written alone, the others with each other.
fn append_together(
    machine: &FaultyStorage,
    log: &Log,
    values: &[String],
) -> Vec<Result<Offset, Error>> {
    let append = |value: &String| log.append(value);
    thread::scope(|scope| {
        machine.hold(Op::Write);
        let first = scope.spawn(|| append(&values[0]));
        machine.wait_until_held();
        let mut all = vec![first];
        for (nth, value) in values.iter().enumerate().skip(1) {
            all.push(scope.spawn(move || append(value)));
            until(|| log.end_offset() == at(nth as u64 + 2));
        }
        machine.release();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Whatever a crash leaves shows a first part of `all`, and no less than is `durable` of it.
#[track_caller]
fn check_crashes(machine: &FaultyStorage, all: &[Record<'_>], durable: usize) {
    let seeds = 0..3;
    let random = seeds.clone().map(Crash::Random);
    let crashes = [Crash::KeepAll, Crash::DropUnsynced].into_iter();
    for how in crashes.chain(random).chain(seeds.map(Crash::Prefix)) {
        let after = FaultyStorage::with(machine.medium()).crash(how);
        after.set_free(None);
        let log = open(&after, Written);
        let found = read(&log).unwrap();
        assert!(found.len() >= durable, "{how:?}: {} of {durable}", found.len());
        assert!(all.starts_with(&found), "{how:?}: {} of {} records", found.len(), all.len());
    }
}

/// Fills the disk, and appends a fourth record that is refused and stays.
fn refused(machine: &FaultyStorage, log: &Log) -> Vec<u8> {
    machine.set_free(Some(4000));
    let mut value = vec![0; LARGE];
    value[0] = 1;
    let error = log.append(&value).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::StorageFull, Some(at(3))));
    value
}
