//! Segments that are prepared: rolls without syncs, and what a crash leaves of them.

use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::at;
use crate::support::check;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::read;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use crate::support::ordered::OrderedStorage;
use std::io;
use std::sync::Arc;
use stratalog::Durability::{self, Synced, Written};
use stratalog::{ErrorKind, Log, Record};

#[test]
fn rolls_into_prepared_segments_take_no_sync() {
    let (machine, log, mut all) = prepared(Written);
    let syncs = || machine.count(|op, _| matches!(op, Op::Sync | Op::SyncDir));
    machine.forget_calls();
    for _ in 0..3 {
        append(&log, &mut all);
    }
    assert_eq!((log.segments().len(), syncs()), (4, 0));
    check(&log, &all);
    // None is left, and nobody prepares more.
    append(&log, &mut all);
    assert!(syncs() > 0);
    assert_eq!(log.segments().len(), 5);
    check(&log, &all);
    machine.kill();
    let log = tiny(machine.process()).open(DIR).unwrap();
    check(&log, &all);
    assert_eq!(log.recovery().cut_at(), None);
}

#[test]
fn what_was_synced_behind_rolls_outlives_a_power_cut() {
    for level in [Synced, Written] {
        for more in 0..9 {
            let (machine, log, mut all) = prepared(level);
            for _ in 0..more {
                append(&log, &mut all);
            }
            log.sync().unwrap();
            for how in [Crash::DropUnsynced, Crash::KeepAll, Crash::Random(more)] {
                let log = tiny(machine.crash(how).process()).open(DIR).unwrap();
                check(&log, &all);
                assert_eq!(log.segments().len() as u64, more + 1);
                assert_eq!(log.recovery().cut_at(), None);
            }
        }
    }
}

#[test]
fn a_log_that_is_closed_or_opened_has_no_prepared_segment_left() {
    for closes in [true, false] {
        let (machine, log, mut all) = prepared(Written);
        append(&log, &mut all);
        assert_eq!(prepared_files(&machine), 2);
        match closes {
            true => log.close().unwrap(),
            false => machine.kill(),
        }
        assert_eq!(prepared_files(&machine), if closes { 0 } else { 2 });
        let log = tiny(machine.process()).open(DIR).unwrap();
        assert_eq!(log.recovery().is_clean(), closes);
        assert_eq!(prepared_files(&machine), 0);
        check(&log, &all);
    }
}

/// The header is written with the first record, and no sync has covered the two.
#[test]
fn a_segment_whose_header_is_lost_is_a_torn_tail() {
    for from in 0..72 {
        let (mut image, name, all) = begun(1);
        image.bytes(&name)[from..72].fill(0);
        let log = image.open().unwrap();
        assert_eq!(log.recovery().cut_at(), Some(at(1)), "from byte {from}");
        check(&log, &all[..1]);
        log.append("goes on").unwrap();
    }
}

/// The second record behind the roll says that the first was synced, and so was the header.
#[test]
fn a_damaged_header_of_durable_records_is_an_error() {
    let (whole, name, _) = begun(2);
    for byte in 0..72 {
        let mut image = whole.clone();
        image.bytes(&name)[byte] ^= 0x10;
        assert_kind(image.open(), ErrorKind::Corrupt);
    }
    let mut image = whole.clone();
    image.0.remove(&name);
    assert_kind(image.open(), ErrorKind::Corrupt);
    let mut image = whole;
    let first = image.segments()[0].clone();
    image.bytes(&first).truncate(100);
    assert_kind(image.open(), ErrorKind::Corrupt);
}

#[test]
fn a_segment_that_ended_without_a_manifest_leaves_no_hole() {
    let (machine, log, mut all) = prepared(Written);
    for size in [20, 20, 300, 30, 300] {
        let record = Record::new(vec![b'v'; size]);
        log.append(record.clone()).unwrap();
        all.push(record);
    }
    assert_eq!(log.segments().len(), 3);
    machine.kill();
    let whole = Image::of(&*machine.process());
    for name in &whole.segments()[..2] {
        for len in 0..whole.0[name].len() {
            let mut image = whole.clone();
            image.bytes(name).truncate(len);
            let Ok(log) = image.open() else { continue };
            let kept = read(&log).unwrap();
            assert_eq!(log.recovery().cut_at(), Some(at(kept.len() as u64)), "length {len}");
            assert_eq!(kept, all[..kept.len()]);
        }
    }
}

/// What a sync that failed should have covered is written anew, the header too.
#[test]
fn a_header_whose_sync_failed_is_written_anew() {
    let (machine, log, _) = prepared(Synced);
    machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other).on(".log"));
    assert_kind(log.append(vec![b'v'; 300]), ErrorKind::Poisoned);
    machine.kill();
    let log = tiny(machine.process()).open(DIR).unwrap();
    let shown = read(&log).unwrap();
    assert_eq!(shown.len(), 2);
    let log = tiny(machine.crash(Crash::DropUnsynced).process()).open(DIR).unwrap();
    check(&log, &shown);
}

/// A manifest that is written for another reason does not rely on a header that may be lost.
#[test]
fn no_manifest_calls_a_segment_begun_before_a_record_in_it_is_durable() {
    for how in [None, Some(Crash::DropUnsynced), Some(Crash::KeepAll)] {
        let machine = FaultyStorage::memory();
        let ordered = OrderedStorage::over(machine.process());
        let log = tiny(Arc::new(ordered.clone())).durability(Written).open(DIR).unwrap();
        ordered.opened(&log);
        log.append(vec![b'v'; 200]).unwrap();
        log.maintain().unwrap();
        log.append(vec![b'w'; 300]).unwrap();
        log.delete_before(at(1)).unwrap();
        ordered.check();
        if let Some(how) = how {
            let log = tiny(machine.crash(how).process()).open(DIR).unwrap();
            assert_eq!(log.start_offset(), at(1));
            continue;
        }
        log.sync().unwrap();
        ordered.synced(at(2));
        log.maintain().unwrap();
        log.truncate_to(at(1)).unwrap();
        log.append("again").unwrap();
        log.close().unwrap();
        ordered.closed();
        let log = tiny(machine.process()).open(DIR).unwrap();
        assert_eq!(read(&log).unwrap(), [Record::new("again")]);
    }
}

#[test]
fn that_nothing_can_be_prepared_is_no_error() {
    for (op, on) in [(Op::Create, ".next"), (Op::Sync, "MANIFEST.next"), (Op::Rename, "MANIFEST")] {
        let machine = FaultyStorage::memory();
        let log = tiny(machine.process()).durability(Written).open(DIR).unwrap();
        let mut all = vec![Record::new(vec![b'v'; 200])];
        append_all(&log, &all);
        machine.inject(Fault::new(op, io::ErrorKind::StorageFull).on(on).forever());
        log.maintain().unwrap();
        assert_eq!(prepared_files(&machine), 0, "{op:?} {on}");
        machine.heal();
        append(&log, &mut all);
        log.maintain().unwrap();
        append(&log, &mut all);
        check(&log, &all);
        log.close().unwrap();
    }
}

/// A log with one record, and the next segments prepared.
fn prepared(level: Durability) -> (FaultyStorage, Log, Vec<Record<'static>>) {
    let machine = FaultyStorage::memory();
    let log = tiny(machine.process()).durability(level).open(DIR).unwrap();
    let all = vec![Record::new(vec![b'v'; 200])];
    append_all(&log, &all);
    log.maintain().unwrap();
    (machine, log, all)
}

/// What a killed process left that had appended so many records to a segment it began; the name
/// of that, and all records.
fn begun(count: usize) -> (Image, String, Vec<Record<'static>>) {
    let (machine, log, mut all) = prepared(Synced);
    for _ in 0..count {
        let record = Record::new(vec![b'w'; 170]);
        log.append(record.clone()).unwrap();
        all.push(record);
    }
    assert_eq!(log.segments().len(), 2);
    machine.kill();
    let image = Image::of(&*machine.process());
    let name = image.segments().into_iter().find(|name| name.contains("01-0")).unwrap();
    (image, name, all)
}

/// A record that gets a segment of its own.
fn append(log: &Log, all: &mut Vec<Record<'static>>) {
    let record = Record::new(vec![b'v'; 300]);
    log.append(record.clone()).unwrap();
    all.push(record);
}

fn prepared_files(machine: &FaultyStorage) -> usize {
    let image = Image::of(&*machine.process());
    image.0.keys().filter(|name| name.ends_with(".next") && !name.contains("MANIFEST")).count()
}
