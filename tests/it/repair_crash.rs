//! A repair that is cut off, or whose calls fail: nothing is destroyed, and the next one finishes.

use crate::support::append_all;
use crate::support::at;
use crate::support::clock::ManualClock;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::read_rows;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use crate::support::records;
use crate::support::secs;
use std::io;
use std::sync::Arc;
use stratalog::{Log, RepairOptions, RepairReport, Result};

/// What is damaged.
#[derive(Clone, Copy, Debug)]
enum Hurt {
    Sealed,
    Active,
    Manifest,
    All,
}

const HURTS: [Hurt; 4] = [Hurt::Sealed, Hurt::Active, Hurt::Manifest, Hurt::All];

fn machine(hurt: Hurt) -> FaultyStorage {
    let machine = FaultyStorage::memory();
    let clock = Arc::new(ManualClock::at(secs(1000)));
    let log = tiny(machine.process()).clock(clock).open(DIR).unwrap();
    append_all(&log, &records(0..15));
    log.truncate_to(at(12)).unwrap();
    append_all(&log, &records(15..22));
    // The last rolls are stated by no manifest.
    log.maintain().unwrap();
    append_all(&log, &records(22..29));
    machine.kill();
    drop(log);
    let mut image = Image::of(&*machine.process());
    image.0.remove("MANIFEST.next");
    let names = image.segments();
    if matches!(hurt, Hurt::Sealed | Hurt::All) {
        image.bytes(&names[0])[115] ^= 1;
        image.bytes(&names[1])[20] ^= 1;
    }
    if matches!(hurt, Hurt::Active | Hurt::All) {
        image.bytes(names.last().unwrap())[115] ^= 1;
    }
    if matches!(hurt, Hurt::Manifest | Hurt::All) {
        image.bytes("MANIFEST")[50] ^= 1;
    }
    FaultyStorage::over(image.storage())
}

fn repair(machine: &FaultyStorage) -> Result<RepairReport> {
    stratalog::repair(DIR, &RepairOptions::new().storage(machine.process()))
}

fn open(machine: &FaultyStorage) -> Log {
    tiny(machine.process()).open(DIR).unwrap()
}

#[test]
fn a_crash_at_every_call_is_made_up_for_by_the_next_repair() {
    for hurt in HURTS {
        let whole = machine(hurt);
        let report = repair(&whole).unwrap();
        assert!(!report.found().is_sound());
        let calls = whole.effects();
        let all = read_rows(&open(&whole)).unwrap();
        assert!(all.len() > 20, "{hurt:?}: {} records, {report}", all.len());
        for call in 0..=calls {
            let machine = machine(hurt);
            machine.stop_after(call);
            drop(repair(&machine));
            machine.kill();
            for how in
                [Crash::KeepAll, Crash::DropUnsynced, Crash::Prefix(call), Crash::Random(call)]
            {
                let story = format!("{hurt:?}, stopped before call {call}, {how:?}");
                if matches!(hurt, Hurt::Sealed) {
                    // It opened before, and does so still.
                    drop(open(&machine.crash(how)));
                }
                let crashed = machine.crash(how);
                repair(&crashed).unwrap_or_else(|error| panic!("{story}: {error}"));
                let crashed = crashed.crash(Crash::DropUnsynced);
                let log = open(&crashed);
                assert!(read_rows(&log).unwrap() == all, "{story}");
                log.append("goes on").unwrap();
            }
        }
    }
}

#[test]
fn each_call_can_fail_and_the_next_repair_makes_up_for_it() {
    use Op::{
        Create, CreateDir, Link, List, Open, Read, Remove, Rename, SetLen, Size, Sync, SyncDir,
    };
    let ops =
        [Create, CreateDir, Link, List, Open, Read, Remove, Rename, SetLen, Size, Sync, SyncDir];
    let whole = machine(Hurt::All);
    repair(&whole).unwrap();
    let all = read_rows(&open(&whole)).unwrap();
    for op in ops.into_iter().chain([Op::Write, Op::Lock]) {
        for error in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
            for nth in 1.. {
                let machine = machine(Hurt::All);
                machine.inject(Fault::new(op, error).nth(nth));
                let told = repair(&machine);
                let was_reached = machine.count(|called, _| called == op) >= nth;
                machine.heal();
                let story = format!("{op:?} {nth}, {error}: {:?}", told.map(drop));
                for again in [Crash::KeepAll, Crash::DropUnsynced] {
                    let crashed = machine.crash(again);
                    repair(&crashed).unwrap_or_else(|error| panic!("{story}, then {error}"));
                    assert!(read_rows(&open(&crashed)).unwrap() == all, "{story}");
                }
                if !was_reached {
                    assert!(nth > 1, "{op:?} is never called");
                    break;
                }
            }
        }
    }
}
