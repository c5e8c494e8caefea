//! Consumers in checkpoints: what of them comes along, and what a crash or an error leaves.

use crate::support::append_all;
use crate::support::at;
use crate::support::clock::ManualClock;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use crate::support::records;
use crate::support::secs;
use std::io;
use std::sync::Arc;
use stratalog::storage::{MemoryStorage, OpenMode, Storage};
use stratalog::{Log, Seek};

const TARGET: &str = "/backup/log";

/// Where the consumers of a log are, by name.
fn positions(log: &Log) -> Vec<(String, Option<u64>)> {
    let infos = log.consumers().unwrap().into_iter();
    infos.map(|info| (info.name, info.committed.map(|place| place.get()))).collect()
}

fn named(positions: &[(&str, u64)]) -> Vec<(String, Option<u64>)> {
    positions.iter().map(|(name, place)| ((*name).to_owned(), Some(*place))).collect()
}

fn commit(log: &Log, name: &str, place: u64) {
    let mut consumer = log.consumer(name).unwrap();
    consumer.seek(Seek::Offset(at(place))).unwrap();
    consumer.commit().unwrap();
}

fn of_target(storage: &Arc<MemoryStorage>) -> Vec<(String, Option<u64>)> {
    let copy = tiny(storage.clone()).create(false).open(TARGET).unwrap();
    let found = positions(&copy);
    copy.close().unwrap();
    found
}

#[test]
fn consumers_come_along_and_go_along() {
    let storage = Arc::new(MemoryStorage::new());
    let log = tiny(storage.clone()).open(DIR).unwrap();
    append_all(&log, &records(0..30));
    log.checkpoint(TARGET).unwrap();
    assert_eq!(of_target(&storage), []);
    commit(&log, "billing", 12);
    commit(&log, "mail", 30);
    log.checkpoint(TARGET).unwrap();
    assert_eq!(of_target(&storage), named(&[("billing", 12), ("mail", 30)]));

    // Ahead, behind the checkpoint before; back; gone; new.
    append_all(&log, &records(30..50));
    commit(&log, "billing", 44);
    commit(&log, "mail", 7);
    commit(&log, "search", 1);
    log.checkpoint(TARGET).unwrap();
    assert_eq!(of_target(&storage), named(&[("billing", 44), ("mail", 7), ("search", 1)]));
    assert!(log.remove_consumer("search").unwrap());
    log.truncate_to(at(20)).unwrap();
    log.checkpoint(TARGET).unwrap();
    assert_eq!(of_target(&storage), named(&[("billing", 20), ("mail", 7)]));
}

#[test]
fn a_position_that_cannot_be_read_there_is_made_anew_and_one_here_is_left_as_it_was_there() {
    let storage = Arc::new(MemoryStorage::new());
    let log = tiny(storage.clone()).open(DIR).unwrap();
    append_all(&log, &records(0..30));
    commit(&log, "billing", 12);
    commit(&log, "mail", 13);
    log.checkpoint(TARGET).unwrap();
    log.close().unwrap();
    let damage = |dir: &str, name: &str| {
        let path = format!("{dir}/consumers/{name}");
        let file = storage.open(path.as_ref(), OpenMode::Write).unwrap();
        for slot in [0, 4096] {
            file.write_at(b"damage", slot).unwrap();
        }
    };
    damage(TARGET, "billing");
    damage(DIR, "mail");
    let log = tiny(storage.clone()).open(DIR).unwrap();
    log.checkpoint(TARGET).unwrap();
    assert_eq!(of_target(&storage), named(&[("billing", 12), ("mail", 13)]));
    // But not over records that have taken the place of those it was about.
    log.truncate_to(at(6)).unwrap();
    append_all(&log, &records(40..80));
    log.checkpoint(TARGET).unwrap();
    assert_eq!(of_target(&storage), named(&[("billing", 6), ("mail", 0)]));
}

/// A log with consumers, and a checkpoint of what it was earlier.
fn machine() -> (FaultyStorage, Log) {
    let machine = FaultyStorage::memory();
    let log = source(&machine);
    append_all(&log, &records(0..30));
    commit(&log, "ahead", 12);
    commit(&log, "back", 25);
    commit(&log, "gone", 5);
    log.checkpoint(TARGET).unwrap();
    append_all(&log, &records(30..44));
    commit(&log, "ahead", 41);
    commit(&log, "back", 3);
    commit(&log, "new", 44);
    assert!(log.remove_consumer("gone").unwrap());
    machine.forget_calls();
    (machine, log)
}

fn source(machine: &FaultyStorage) -> Log {
    let clock = Arc::new(ManualClock::at(secs(1000)));
    tiny(machine.process()).clock(clock).open(DIR).unwrap()
}

const NEW: [(&str, u64); 3] = [("ahead", 41), ("back", 3), ("new", 44)];

/// Of the checkpoint before no position is farther than it was when its records were the log's; of
/// the new one none passes over what has taken their place.
#[test]
fn a_crash_at_every_call_leaves_no_position_over_another_history() {
    let machine = || {
        let (machine, log) = machine();
        log.truncate_to(at(10)).unwrap();
        append_all(&log, &records(50..90));
        commit(&log, "ahead", 41);
        commit(&log, "back", 28);
        assert!(log.remove_consumer("new").unwrap());
        machine.forget_calls();
        (machine, log)
    };
    let (whole, log) = machine();
    let before = whole.effects();
    log.checkpoint(TARGET).unwrap();
    for call in 0..=whole.effects() - before {
        let (machine, log) = machine();
        machine.stop_after(call);
        drop(log.checkpoint(TARGET));
        machine.kill();
        drop(log);
        for how in [Crash::KeepAll, Crash::DropUnsynced, Crash::Prefix(call), Crash::Random(call)] {
            let story = format!("stopped before call {call}, {how:?}");
            let crashed = machine.crash(how);
            let copy = tiny(crashed.process()).create(false).open(TARGET).unwrap();
            let is_new = copy.end_offset() == at(50);
            assert!(is_new || copy.end_offset() == at(30), "{story}");
            for (name, place) in positions(&copy) {
                let (old, new) = match name.as_str() {
                    "ahead" => (12, 41),
                    "back" => (25, 28),
                    _ => (5, 0),
                };
                let place = place.unwrap();
                let is_right = if is_new { place == new || place == 0 } else { place <= old };
                assert!(is_right, "{story}: {name} at {place} of {}", copy.end_offset());
            }
        }
    }
}

/// None is behind the end of what is there, nor farther than it ever was in the log.
#[track_caller]
fn check_target(machine: &FaultyStorage, story: &str) {
    let copy = tiny(machine.process()).create(false).open(TARGET).unwrap();
    let end = copy.end_offset().get();
    assert!([30, 44].contains(&end), "{story}: {end}");
    for (name, place) in positions(&copy) {
        let place = place.unwrap_or_else(|| panic!("{story}: {name} cannot be read"));
        let may_be: &[u64] = match name.as_str() {
            "ahead" => &[12, 30, 41],
            "back" => &[25, 3],
            "gone" => &[5],
            _ => &[30, 44],
        };
        assert!(place <= end && may_be.contains(&place), "{story}: {name} at {place} of {end}");
    }
    copy.close().unwrap();
}

#[test]
fn a_crash_at_every_call_leaves_no_position_behind_the_end() {
    let (whole, log) = machine();
    let before = whole.effects();
    log.checkpoint(TARGET).unwrap();
    let calls = whole.effects() - before;
    assert!(calls > 30, "{calls}");
    for call in 0..=calls {
        let (machine, log) = machine();
        machine.stop_after(call);
        drop(log.checkpoint(TARGET));
        machine.kill();
        drop(log);
        let crashes = [Crash::KeepAll, Crash::DropUnsynced, Crash::Prefix(call)];
        for how in crashes.into_iter().chain([Crash::Random(call), Crash::Random(call + 1000)]) {
            let story = format!("stopped before call {call}, {how:?}");
            let crashed = machine.crash(how);
            check_target(&crashed, &story);
            let log = source(&crashed);
            log.checkpoint(TARGET).unwrap_or_else(|error| panic!("{story}: {error}"));
            drop(log);
            let again = crashed.crash(Crash::DropUnsynced);
            let copy = tiny(again.process()).open(TARGET).unwrap();
            assert_eq!(positions(&copy), named(&NEW), "{story}");
        }
    }
}

#[test]
fn each_call_can_fail_and_who_opens_the_log_again_makes_up_for_it() {
    for op in [Op::Create, Op::List, Op::Open, Op::Read, Op::Remove, Op::Rename, Op::Sync]
        .into_iter()
        .chain([Op::SyncDir, Op::Write, Op::Size])
    {
        for nth in 1.. {
            let (machine, log) = machine();
            machine.inject(Fault::new(op, io::ErrorKind::Other).nth(nth));
            let told = log.checkpoint(TARGET);
            let was_reached = machine.count(|called, _| called == op) >= nth;
            machine.heal();
            let story = format!("{op:?} {nth}: {told:?}");
            check_target(&machine.crash(Crash::Random(nth)), &story);
            drop(log);
            source(&machine).checkpoint(TARGET).unwrap_or_else(|e| panic!("{story}, then {e}"));
            let copy = tiny(machine.process()).open(TARGET).unwrap();
            assert_eq!(positions(&copy), named(&NEW), "{story}");
            if !was_reached {
                assert!(nth > 1, "{op:?} is never called");
                break;
            }
        }
    }
}
