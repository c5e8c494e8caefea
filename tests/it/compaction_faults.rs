//! Compaction when things go wrong: a crash or an error at every call, and a full disk.

use crate::support::at;
use crate::support::clock::ManualClock;
use crate::support::compaction::Full;
use crate::support::compaction::check_compacted;
use crate::support::compaction::fill;
use crate::support::compaction::pair;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::fault::is_injected;
use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use crate::support::secs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stratalog::{Compaction, Durability, Error, ErrorKind, Log, Options, Record, Result};

const COUNT: u64 = 120;

fn options(machine: &FaultyStorage) -> Options {
    let compaction = Compaction::new().tombstone_retention(Duration::ZERO).map_bytes(2 << 10);
    let clock = Arc::new(ManualClock::at(secs(1000)));
    tiny(machine.process()).compaction(compaction).clock(clock)
}

fn open(machine: &FaultyStorage) -> Log {
    options(machine).open(DIR).unwrap()
}

/// A log with something to compact, a part of which has been compacted before.
fn machine() -> (FaultyStorage, Log, Full) {
    let machine = FaultyStorage::memory();
    let log = open(&machine);
    fill(&log, COUNT / 2, 25);
    log.compact().unwrap();
    fill(&log, COUNT / 2, 35);
    let full = Full::of(&log);
    machine.forget_calls();
    (machine, log, full)
}

fn compact_all(log: &Log) -> Result<()> {
    while log.compact()?.more() {}
    Ok(())
}

/// Only files that the manifest names, so that nothing is left over.
#[track_caller]
fn check_files(log: &Log, machine: &FaultyStorage) {
    log.close().unwrap();
    let log = open(machine);
    assert_eq!(log.recovery().removed_files(), 0);
    assert!(log.recovery().is_clean());
}

#[test]
fn a_crash_at_every_call_leaves_the_log_before_or_after_a_swap() {
    let (whole, log, full) = machine();
    compact_all(&log).unwrap();
    let calls = whole.effects();
    let expected = full.compacted_to(at(COUNT));
    check_compacted(&log, &expected);
    assert!(calls > 30 && expected.len() + 30 < full.len(), "{calls} calls do too little");
    for call in 0..=calls {
        let (machine, log, full) = machine();
        machine.stop_after(call);
        drop(compact_all(&log));
        machine.kill();
        drop(log);
        let crashes = [
            Crash::KeepAll,
            Crash::DropUnsynced,
            Crash::Prefix(call),
            Crash::Random(call),
            Crash::Random(call + 1000),
        ];
        for how in crashes {
            let crashed = machine.crash(how);
            let log = open(&crashed);
            let left = Full::of(&log);
            let story = format!("stopped before call {call}, {how:?}");
            assert!(left.is_between(&expected, &full), "{story}: {left:?}");
            check_compacted(&log, &left);
            let offset = log.append(pair("more", call)).unwrap();
            assert_eq!(offset, at(COUNT), "{story}");
            compact_all(&log).unwrap();
            assert_eq!(Full::of(&log).below(at(COUNT)), expected, "{story}");
            check_files(&log, &crashed);
        }
    }
}

/// And again while what the crash left is recovered and compacted.
#[test]
fn a_crash_in_the_run_after_a_crash_is_no_different() {
    let (_, log, full) = machine();
    compact_all(&log).unwrap();
    let expected = Full::of(&log);
    for call in 0..40 {
        let (machine, log, _) = machine();
        machine.stop_after(call * 2);
        drop(compact_all(&log));
        machine.kill();
        drop(log);
        let mut machine = machine.crash(Crash::Random(call));
        for round in 0..3 {
            machine.stop_after(call + round * 7);
            if let Ok(log) = options(&machine).open(DIR) {
                drop(compact_all(&log));
                machine.kill();
            }
            machine = machine.crash(Crash::Random(call * 10 + round));
        }
        let log = open(&machine);
        assert!(Full::of(&log).is_between(&expected, &full), "call {call}");
        compact_all(&log).unwrap();
        check_compacted(&log, &expected);
        check_files(&log, &machine);
    }
}

/// A segment that could not be read can be again, and the run that goes back to it does so in
/// several steps, the first of which is cut off anywhere: nothing that was deleted comes back.
#[test]
fn a_run_that_goes_back_is_cut_off_at_every_call() {
    let machine = || {
        let machine = FaultyStorage::memory();
        let log = open(&machine);
        // It is rewritten in the first of the steps, for the sake of its other record.
        log.append(pair("hidden", 1)).unwrap();
        log.append(pair("0", 0)).unwrap();
        log.roll().unwrap();
        for number in 0..150 {
            log.append_with(Durability::Buffered, pair(&format!("{number}"), 1)).unwrap();
        }
        log.append(Record::tombstone("hidden")).unwrap();
        log.roll().unwrap();
        let full = Full::of(&log);
        let name = "00000000000000000000-00000001.log";
        machine.inject(Fault::new(Op::Read, io::ErrorKind::Other).on(name).forever());
        compact_all(&log).unwrap();
        machine.heal();
        assert_eq!(Full::of(&log), full);
        machine.forget_calls();
        (machine, log, full)
    };
    let (whole, log, full) = machine();
    let expected = full.compacted_to(at(153));
    compact_all(&log).unwrap();
    assert_eq!(Full::of(&log), expected);
    for call in 0..whole.effects() {
        let (machine, log, _) = machine();
        machine.stop_after(call);
        drop(compact_all(&log));
        machine.kill();
        drop(log);
        let log = open(&machine.crash(Crash::KeepAll));
        compact_all(&log).unwrap();
        assert_eq!(Full::of(&log), expected, "stopped before call {call}");
    }
}

/// The memory for keys is full in the middle of a segment that cannot be read any more when it is
/// to be rewritten: what was not compared then is later, so nothing that was deleted comes back.
#[test]
fn a_segment_that_is_lost_between_the_halves_of_a_run_is_compared_later() {
    for nth in 1.. {
        let machine = FaultyStorage::memory();
        let compaction = Compaction::new().tombstone_retention(Duration::ZERO).map_bytes(1 << 10);
        let options = options(&machine).segment_bytes(1 << 20).compaction(compaction);
        let log = options.open(DIR).unwrap();
        log.append(pair("hidden", 1)).unwrap();
        log.append(Record::tombstone("hidden")).unwrap();
        for number in 2..100 {
            log.append(pair(&number.to_string(), number)).unwrap();
        }
        log.roll().unwrap();
        let full = Full::of(&log);
        machine.inject(Fault::new(Op::Read, io::ErrorKind::Other).nth(nth));
        let report = log.compact().unwrap();
        let was_reached = machine.strikes() > 0;
        machine.heal();
        assert_eq!(report.left_aside().len(), usize::from(was_reached));
        if was_reached {
            assert_eq!(report.compacted_to(), at(100));
        }
        assert_eq!(log.stats().compacted_to, report.compacted_to());
        compact_all(&log).unwrap();
        assert_eq!(Full::of(&log), full.compacted_to(at(100)), "read {nth}");
        if !was_reached {
            assert!(nth > 4, "only {nth} reads");
            break;
        }
    }
}

/// Once each: the run says so, or leaves a segment aside, and a later one does what is left.
#[test]
fn each_call_can_fail_once() {
    use Op::{Create, Open, Read, Remove, Rename, SetLen, Size, Sync, SyncDir, Write};
    let ops = [Create, Open, Read, Remove, Rename, SetLen, Size, Sync, SyncDir, Write];
    for op in ops {
        for error in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
            for nth in 1.. {
                let (machine, log, full) = machine();
                machine.inject(Fault::new(op, error).nth(nth));
                let told = compact_all(&log);
                let was_reached = machine.count(|called, _| called == op) >= nth;
                machine.heal();
                check_failed(log, &machine, &full, &told);
                if !was_reached {
                    assert!(nth > 1 || op == Size, "{op:?} is never called");
                    break;
                }
            }
        }
    }
}

fn check_failed(mut log: Log, machine: &FaultyStorage, full: &Full, told: &Result<()>) {
    let expected = full.compacted_to(at(COUNT));
    if let Err(error) = told {
        assert!(is_injected(error), "{error}");
    }
    let left = Full::of(&log);
    assert!(left.is_between(&expected, full), "{told:?}: {left:?}");
    let is_poisoned = told.as_ref().is_err_and(|error: &Error| error.kind() == ErrorKind::Poisoned);
    match log.append(pair("more", 1)) {
        Ok(offset) => assert_eq!((offset, is_poisoned), (at(COUNT), false)),
        Err(error) => {
            assert_eq!((error.kind(), is_poisoned), (ErrorKind::Poisoned, true), "{told:?}");
            drop(log.close());
            log = open(machine);
        }
    }
    // A segment that was left aside is readable now, and what hides older records goes then.
    compact_all(&log).unwrap();
    assert_eq!(Full::of(&log).below(at(COUNT)), expected, "{told:?}");
    assert_eq!(Full::of(&open_copy(&log, machine)).below(at(COUNT)), expected, "{told:?}");
}

/// What replaces it is there by then: the file is garbage, and the one who runs is not concerned.
#[test]
fn a_file_that_cannot_be_removed_is_told_of_and_does_not_end_the_run() {
    let told = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&told);
    let machine = FaultyStorage::memory();
    let options = options(&machine).on_background_error(move |error| {
        assert!(is_injected(error), "{error}");
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let log = options.open(DIR).unwrap();
    fill(&log, COUNT, 35);
    let full = Full::of(&log);
    machine.inject(Fault::new(Op::Remove, io::ErrorKind::Other).on("-00000001.log"));
    compact_all(&log).unwrap();
    assert_eq!(Full::of(&log), full.compacted_to(at(COUNT)));
    assert_eq!(told.load(Ordering::Relaxed), 1);
    assert!(log.stats().last_error.is_some_and(|error| is_injected(&error)));
    machine.heal();
    log.close().unwrap();
    assert_eq!(open(&machine).recovery().removed_files(), 1);
}

fn open_copy(log: &Log, machine: &FaultyStorage) -> Log {
    log.close().unwrap();
    open(machine)
}

/// However little is free, the run says what it needs, or gets by.
#[test]
fn a_full_disk_is_told_of_and_changes_nothing() {
    let mut refused = 0;
    for free in (0..2000).step_by(40) {
        let (machine, log, full) = machine();
        let expected = full.compacted_to(at(COUNT));
        machine.set_free(Some(free));
        if let Err(error) = compact_all(&log) {
            refused += 1;
            assert_eq!(error.kind(), ErrorKind::StorageFull);
            let left = Full::of(&log);
            assert!(left.is_between(&expected, &full));
            assert!(free > 0 || left == full);
            machine.set_free(None);
            log.append(pair("more", 1)).unwrap();
            compact_all(&log).unwrap();
        }
        assert_eq!(Full::of(&log).below(at(COUNT)), expected, "{free} bytes free");
        check_files(&log, &machine);
    }
    assert!(refused > 3, "only {refused} runs were refused");
}

/// A disk with room for one segment is enough for any log: old ones go as new ones come.
#[test]
fn no_more_space_is_needed_than_one_output() {
    let machine = FaultyStorage::memory();
    let log = open(&machine);
    fill(&log, 3000, 2000);
    let expected = Full::of(&log).compacted_to(at(3000));
    // A segment and its index, the manifest and its reserve.
    machine.set_free(Some(2 * 512 + 200 + 64 + 16));
    compact_all(&log).unwrap();
    check_compacted(&log, &expected);
}

/// What is printed of a refusal has the number of bytes in it.
#[test]
fn the_refusal_names_the_bytes_that_are_needed() {
    let (machine, log, _) = machine();
    machine.inject(Fault::new(Op::Write, io::ErrorKind::StorageFull).on(".log").nth(2));
    let text = log.compact().unwrap_err().to_string();
    assert!(text.contains(" bytes of free space"), "{text}");
}
