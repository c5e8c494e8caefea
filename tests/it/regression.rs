//! The bugs of the past: the story, then the test.

use crate::support::at;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use stratalog::Durability::{Buffered, Written};
use stratalog::{ErrorKind, Log, Offset};

/// A roll let go of the writer between ending the segment in memory and sealing it on disk. A write
/// that was refused in between sent later records back to that segment, whose file was then made
/// anew, without its records. And a sync that had read the end before a refused write took records
/// back waited for it for ever, at full speed.
#[test]
fn rolls_and_syncs_amid_refused_writes_lose_no_record() {
    for every in [2, 3, 5] {
        let machine = FaultyStorage::memory();
        let log = tiny(machine.process()).durability(Written).open(DIR).unwrap();
        machine.inject(Fault::new(Op::Write, io::ErrorKind::StorageFull).on(".log").every(every));
        let acknowledged = append_amid_rolls(&log);
        machine.heal();
        assert!(acknowledged.len() > 100, "too little was appended");
        check(&log, &acknowledged);
        log.close().unwrap();
        check(&tiny(machine.process()).open(DIR).unwrap(), &acknowledged);
    }
}

/// A truncation or a deletion that had taken place returned an error when a file of what was cut
/// could not be removed, as if nothing had happened.
#[test]
fn a_cut_whose_files_cannot_be_removed_has_taken_place() {
    let machine = FaultyStorage::memory();
    let errors = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&errors);
    let tell = move |_: &_| {
        count.fetch_add(1, Ordering::SeqCst);
    };
    let log = tiny(machine.process()).on_background_error(tell).open(DIR).unwrap();
    for _ in 0..4 {
        log.append("one").unwrap();
        log.roll().unwrap();
    }
    machine.inject(Fault::new(Op::Remove, io::ErrorKind::Other).forever());
    log.truncate_to(at(3)).unwrap();
    assert_eq!(log.end_offset(), at(3));
    log.delete_before(at(2)).unwrap();
    assert_eq!(log.start_offset(), at(2));
    assert_eq!(errors.load(Ordering::SeqCst), 2);
    machine.heal();
    drop(log);
    let log = tiny(machine.process()).open(DIR).unwrap();
    assert_eq!((log.start_offset(), log.end_offset()), (at(2), at(3)));
}

/// A file that a removal had left behind, for whatever reason, made a log that had been closed one
/// that had to be recovered.
#[test]
fn a_log_that_was_closed_needs_no_recovery_because_of_a_leftover_file() {
    let machine = FaultyStorage::memory();
    let log = tiny(machine.process()).open(DIR).unwrap();
    log.append("one").unwrap();
    log.roll().unwrap();
    log.append("two").unwrap();
    machine.inject(Fault::new(Op::Remove, io::ErrorKind::Other).forever());
    log.delete_before(at(1)).unwrap();
    log.close().unwrap();
    machine.heal();
    for leftovers in [2, 0] {
        let log = tiny(machine.process()).open(DIR).unwrap();
        assert!(log.recovery().is_clean(), "{}", log.recovery());
        assert_eq!(log.recovery().removed_files(), leftovers);
        assert_eq!((log.start_offset(), log.end_offset()), (at(1), at(2)));
        log.close().unwrap();
    }
}

/// Closing cut off the zeros that had been written ahead, and did not sync the new length. A power
/// cut behind it brought the zeros back, and with them a recovery of a log that was closed.
#[test]
fn a_log_that_was_closed_needs_no_recovery_after_a_power_cut() {
    let machine = FaultyStorage::memory();
    let log = tiny(machine.process()).open(DIR).unwrap();
    log.append("synced, and so with zeros behind it").unwrap();
    log.close().unwrap();
    let log = tiny(machine.crash(Crash::DropUnsynced).process()).open(DIR).unwrap();
    assert!(log.recovery().is_clean(), "{}", log.recovery());
    assert_eq!(log.end_offset(), at(1));
}

/// A log that was closed, opened and closed again without a record in between was not looked at. An
/// append that a full disk had refused left zeros in the file all the same, and a recovery to do.
#[test]
fn a_log_that_was_closed_needs_no_recovery_after_a_refused_append() {
    let machine = FaultyStorage::memory();
    let log = tiny(machine.process()).open(DIR).unwrap();
    log.append("one").unwrap();
    log.close().unwrap();
    let log = tiny(machine.process()).open(DIR).unwrap();
    machine.set_free(Some(20));
    assert_eq!(log.append("a second one").unwrap_err().kind(), ErrorKind::StorageFull);
    log.close().unwrap();
    machine.set_free(None);
    let log = tiny(machine.process()).open(DIR).unwrap();
    assert!(log.recovery().is_clean(), "{}", log.recovery());
    assert_eq!(log.end_offset(), at(1));
}

/// An append that waits for the sync of those before it got that sync's error as it was: with the
/// offset of a record that stays in the log, as if its own were there.
#[test]
fn an_append_refused_before_it_began_does_not_say_where_it_is() {
    let machine = FaultyStorage::memory();
    let options = tiny(machine.process()).durability(Buffered).max_unsynced_bytes(1);
    let log = options.open(DIR).unwrap();
    assert_eq!(log.append("accepted").unwrap(), at(0));
    machine.set_free(Some(0));
    let error = log.append("refused").unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::StorageFull, None));
    assert_eq!(log.end_offset(), at(1));
    machine.set_free(None);
    assert_eq!(log.append("next").unwrap(), at(1));
}

fn append_amid_rolls(log: &Log) -> Vec<(Offset, String)> {
    let done = AtomicBool::new(false);
    let append = |thread: usize| {
        let values = (0..400).map(|nth| format!("{thread} {nth}"));
        let appended = values.filter_map(|value| Some((log.append(&value).ok()?, value)));
        appended.collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let appenders = [0, 1].map(|thread| scope.spawn(move || append(thread)));
        for call in [Log::roll, Log::sync] {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    // It may be refused, too.
                    drop(call(log));
                }
            });
        }
        let acknowledged = appenders.into_iter().flat_map(|thread| thread.join().unwrap());
        let acknowledged = acknowledged.collect();
        done.store(true, Ordering::Relaxed);
        acknowledged
    })
}

fn check(log: &Log, acknowledged: &[(Offset, String)]) {
    assert!(log.start_offset() == at(0));
    for (offset, value) in acknowledged {
        let entry = log.get(*offset).unwrap();
        assert_eq!(entry.unwrap().value(), value.as_bytes(), "offset {offset}");
    }
}

/// The directory's sync behind the rename of the manifest failed, and the process ended. The next
/// one found the new manifest, could not replace it because the disk was full, and relied on it:
/// a power cut brought the old one back, which did not name the segment that had been written to.
#[test]
fn a_manifest_that_may_not_be_durable_is_replaced_before_records_are() {
    let mut tried = 0;
    for nth in 1..16 {
        let machine = FaultyStorage::memory();
        machine.inject(Fault::new(Op::SyncDir, io::ErrorKind::Other).nth(nth));
        if rolls_once(&machine).is_ok() {
            break;
        }
        machine.kill();
        machine.heal();
        machine.set_free(Some(0));
        // On a full disk a log that has no file yet cannot be made.
        let Ok(log) = tiny(machine.process()).open(DIR) else { continue };
        let end = log.end_offset();
        let refused = log.append("while it is full").map(drop);
        machine.set_free(None);
        let end = if refused.is_ok() { end + 1 } else { end };
        assert_eq!(log.append("afterwards").unwrap(), end);
        let after = tiny(machine.crash(Crash::DropUnsynced).process()).open(DIR).unwrap();
        assert_eq!(after.end_offset(), end + 1, "call {nth}");
        tried += 1;
    }
    assert!(tried > 1, "{tried}");
}

fn rolls_once(machine: &FaultyStorage) -> stratalog::Result<()> {
    let log = tiny(machine.process()).open(DIR)?;
    log.append_batch(["a", "b", "c"])?;
    log.roll()?;
    log.append_with(Written, "begins a segment").map(drop)
}
