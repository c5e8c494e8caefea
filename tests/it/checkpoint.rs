//! Checkpoints: what is in them, what they cost, what may be in their place, and what a crash or an
//! error leaves.

use crate::support::append_all;
use crate::support::at;
use crate::support::check;
use crate::support::clock::ManualClock;
use crate::support::compaction::Full;
use crate::support::compaction::compacting;
use crate::support::compaction::fill;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::fault::is_injected;
use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::read_rows;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use crate::support::model::Row;
use crate::support::record;
use crate::support::records;
use crate::support::replica::Wire;
use crate::support::secs;
use crate::support::site::Site;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use stratalog::storage::{FsStorage, MemoryStorage, OpenMode, Storage};
use stratalog::{Compaction, Durability, ErrorKind, Log, Maintenance, Options, Result, Seek};

const TARGET: &str = "/backup/log";

fn memory() -> (Arc<MemoryStorage>, Log) {
    let storage = Arc::new(MemoryStorage::new());
    let log = tiny(storage.clone()).open(DIR).unwrap();
    (storage, log)
}

fn open_at(storage: &Arc<MemoryStorage>, path: &str) -> Result<Log> {
    tiny(storage.clone()).create(false).open(path)
}

/// The copy shows what the log shows, is closed, and has no file that its manifest does not name.
#[track_caller]
fn check_copy(storage: &Arc<MemoryStorage>, log: &Log) {
    let copy = open_at(storage, TARGET).unwrap();
    assert!(copy.recovery().is_clean());
    assert_eq!(copy.recovery().removed_files(), 0);
    assert_eq!(copy.start_offset(), log.start_offset());
    assert_eq!(copy.end_offset(), log.end_offset());
    assert_eq!(Full::of(&copy), Full::of(log));
    copy.close().unwrap();
}

#[test]
fn it_follows_the_log_through_whatever_happens_to_it() {
    let (storage, log) = memory();
    drop(log);
    let compaction = Compaction::new().tombstone_retention(std::time::Duration::ZERO);
    let log = tiny(storage.clone()).compaction(compaction).open(DIR).unwrap();
    let step = |what: &str| {
        let end = log.checkpoint(TARGET).unwrap();
        assert_eq!(end, log.end_offset(), "{what}");
        check_copy(&storage, &log);
    };
    step("an empty log");
    log.append(record(0)).unwrap();
    step("one record");
    step("again");
    append_all(&log, &records(1..40));
    step("segments");
    log.roll().unwrap();
    step("all of them sealed");
    append_all(&log, &records(40..42));
    step("one more, partly");
    append_all(&log, &records(42..43));
    step("the same, longer");
    log.truncate_to(at(42)).unwrap();
    step("truncated in the last segment");
    append_all(&log, &records(50..52));
    step("other records in the place of those that were cut");
    log.truncate_to(at(20)).unwrap();
    step("truncated far back");
    append_all(&log, &records(60..90));
    step("and gone on");
    log.delete_before(at(13)).unwrap();
    step("deleted before an offset inside a segment");
    fill(&log, 100, 10);
    log.compact().unwrap();
    step("compacted");
    log.delete_before(log.end_offset()).unwrap();
    step("empty again");
    log.delete_before(log.end_offset() + 1000).unwrap();
    step("jumped");
    append_all(&log, &records(0..10));
    step("and gone on");
}

#[test]
fn only_what_is_durable_is_in_it() {
    let (storage, log) = memory();
    append_all(&log, &records(0..5));
    log.append_with(Durability::Written, record(5)).unwrap();
    log.append_with(Durability::Buffered, record(6)).unwrap();
    assert_eq!(log.checkpoint(TARGET).unwrap(), at(5));
    check(&open_at(&storage, TARGET).unwrap(), &records(0..5));
    log.sync().unwrap();
    assert_eq!(log.checkpoint(TARGET).unwrap(), at(7));
    check(&open_at(&storage, TARGET).unwrap(), &records(0..7));
}

/// Of the segment that grows, no record is durable yet, but a hole that was shipped is.
#[test]
fn a_hole_without_records_behind_it_is_a_log() {
    let (storage, log) = memory();
    log.append_frames(&Wire::hole(0, 3).bytes()).unwrap();
    let frames = Wire::values(3, 1_000_000, &[b"a", b"b"]).bytes();
    log.append_frames_with(Durability::Written, &frames).unwrap();
    assert_eq!(log.checkpoint(TARGET).unwrap(), at(3));
    let copy = open_at(&storage, TARGET).unwrap();
    assert_eq!((copy.end_offset(), copy.iter(Seek::Start).unwrap().count()), (at(3), 0));
}

/// Segments that ended and that no sync has covered yet are not linked.
#[test]
fn segments_that_are_only_written_are_not_in_it() {
    let machine = FaultyStorage::memory();
    let log = tiny(machine.process()).durability(Durability::Written).open(DIR).unwrap();
    append_all(&log, &records(0..4));
    log.sync().unwrap();
    append_all(&log, &records(4..60));
    assert!(log.segments().len() > 3);
    assert_eq!(log.checkpoint(TARGET).unwrap(), at(4));
    let copy = tiny(machine.process()).open(TARGET).unwrap();
    check(&copy, &records(0..4));
}

#[test]
fn what_is_no_checkpoint_of_the_log_is_left_alone() {
    let (storage, log) = memory();
    append_all(&log, &records(0..30));
    let refused = |path: &str, kind| {
        let before = Image::of_dir(&*storage, Path::new(path));
        let error = log.checkpoint(path).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.path().is_some_and(|named| named.starts_with(path)), "{error}");
        assert_eq!(Image::of_dir(&*storage, Path::new(path)), before);
    };
    refused(DIR, ErrorKind::Locked);
    storage.create_dir(Path::new("/full")).unwrap();
    storage.open(Path::new("/full/of something else"), OpenMode::Create).unwrap();
    refused("/full", ErrorKind::InvalidInput);
    assert!(storage.open(Path::new("/full/LOCK"), OpenMode::Read).is_err());
    let other = tiny(storage.clone()).open("/other").unwrap();
    append_all(&other, &records(0..3));
    refused("/other", ErrorKind::Locked);
    other.checkpoint("/other backup").unwrap();
    drop(other);
    refused("/other", ErrorKind::InvalidInput);
    refused("/other backup", ErrorKind::InvalidInput);
    // A checkpoint that was only read stays one; one that was written to is a log of its own.
    log.checkpoint(TARGET).unwrap();
    check_copy(&storage, &log);
    log.checkpoint(TARGET).unwrap();
    let copy = open_at(&storage, TARGET).unwrap();
    refused(TARGET, ErrorKind::Locked);
    copy.append("another way").unwrap();
    drop(copy);
    refused(TARGET, ErrorKind::InvalidInput);
    log.close().unwrap();
    assert_eq!(log.checkpoint("/late").unwrap_err().kind(), ErrorKind::Closed);
}

/// Two logs that came of one directory are not mixed.
#[test]
fn a_checkpoint_of_a_twin_is_told_apart() {
    let (storage, log) = memory();
    append_all(&log, &records(0..30));
    log.checkpoint("/twin").unwrap();
    let twin = open_at(&storage, "/twin").unwrap();
    append_all(&log, &records(30..60));
    append_all(&twin, &records(100..140));
    log.checkpoint(TARGET).unwrap();
    let segments = || {
        let mut image = Image::of_dir(&*storage, Path::new(TARGET));
        image.0.retain(|name, _| name.ends_with(".log"));
        image
    };
    let before = segments();
    let error = twin.checkpoint(TARGET).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(segments(), before);
    check_copy(&storage, &log);
}

/// A log in one large segment.
fn large(storage: &Arc<MemoryStorage>, now: i64) -> Log {
    let clock = Arc::new(ManualClock::at(secs(now)));
    tiny(storage.clone()).segment_bytes(1 << 20).clock(clock).open(DIR).unwrap()
}

/// The files of a log with ten records of one length, behind a longer one than is read at once, and
/// of a checkpoint of it with twenty.
fn ten_and_a_checkpoint_of_twenty() -> (Image, Image) {
    let storage = Arc::new(MemoryStorage::new());
    let log = large(&storage, 1000);
    log.append(vec![b'x'; 300 << 10]).unwrap();
    append_all(&log, &records(10..20));
    let ten = Image::of(&*storage);
    append_all(&log, &records(20..30));
    log.checkpoint(TARGET).unwrap();
    (ten, Image::of_dir(&*storage, Path::new(TARGET)))
}

/// It goes on in the same segment, with other bytes where the checkpoint has its last ten.
#[test]
fn a_log_that_was_put_back_does_not_take_the_place_of_what_it_has_lost() {
    for count in [0, 5, 10, 15] {
        let (ten, twenty) = ten_and_a_checkpoint_of_twenty();
        let storage = Arc::new(ten.storage());
        twenty.put(&*storage, Path::new(TARGET));
        let log = large(&storage, 2000);
        append_all(&log, &records(50..50 + count));
        if count == 0 {
            log.checkpoint(TARGET).unwrap();
            check_copy(&storage, &log);
            continue;
        }
        let error = log.checkpoint(TARGET).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{count}: {error}");
        assert!(error.to_string().contains("different ways"), "{count}: {error}");
        assert!(Image::of_dir(&*storage, Path::new(TARGET)) == twenty, "{count}");
        assert_eq!(open_at(&storage, TARGET).unwrap().end_offset(), at(21));
        let elsewhere = log.checkpoint("/elsewhere").unwrap();
        assert_eq!(elsewhere, log.end_offset());
    }
}

/// A log that has nothing of its own yet, and then grows, is followed.
#[test]
fn a_log_that_was_put_back_is_followed_from_there() {
    let (ten, twenty) = ten_and_a_checkpoint_of_twenty();
    let storage = Arc::new(ten.storage());
    twenty.put(&*storage, Path::new(TARGET));
    let log = large(&storage, 2000);
    for round in 0..4 {
        log.checkpoint(TARGET).unwrap();
        check_copy(&storage, &log);
        append_all(&log, &records(50 + 7 * round..57 + 7 * round));
    }
}

/// Nothing done to the copy changes the log, although they share files.
#[test]
fn the_copy_and_the_log_go_their_own_ways() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("log"), dir.path().join("backup"));
    let options = || Options::new().maintenance(Maintenance::Manual).segment_bytes(512);
    let log = options().open(&source).unwrap();
    append_all(&log, &records(0..40));
    log.checkpoint(&target).unwrap();
    let links = |name: &str| std::fs::metadata(source.join(name)).unwrap().nlink();
    let shared = Image::of_dir(&FsStorage::new(), &source).segments();
    assert!(shared.iter().filter(|name| links(name) == 2).count() == shared.len() - 1);
    let copy = options().open(&target).unwrap();
    append_all(&copy, &records(40..80));
    copy.truncate_to(at(17)).unwrap();
    append_all(&copy, &records(90..95));
    copy.delete_before(at(3)).unwrap();
    drop(copy);
    append_all(&log, &records(40..50));
    check(&log, &records(0..50));
    log.close().unwrap();
    check(&options().open(&source).unwrap(), &records(0..50));
    let copy = options().open(&target).unwrap();
    assert_eq!((copy.start_offset(), copy.end_offset()), (at(3), at(22)));
    assert_eq!(Image::of_dir(&FsStorage::new(), &source).segments()[..4], shared[..4]);
}

/// Only what is new, and by copying where nothing can be linked.
#[test]
fn a_repeated_checkpoint_brings_what_is_new() {
    for links in [true, false] {
        let machine = FaultyStorage::memory();
        if !links {
            machine.inject(Fault::new(Op::Link, io::ErrorKind::CrossesDevices).forever());
        }
        let log = tiny(machine.process()).open(DIR).unwrap();
        append_all(&log, &records(0..200));
        log.checkpoint(TARGET).unwrap();
        let segments = log.segments().len() as u64;
        assert!(segments > 15);
        for round in 0..3 {
            append_all(&log, &records(200 + 8 * round..208 + 8 * round));
            machine.forget_calls();
            log.checkpoint(TARGET).unwrap();
            let segment = |path: &Path| path.extension().is_some_and(|end| end == "log");
            let brought = machine.count(|op, path| {
                matches!(op, Op::Link | Op::Create) && path.starts_with(TARGET) && segment(path)
            });
            let most = if links { 4 } else { 8 };
            assert!((1..=most).contains(&brought), "{links}: {brought} of {segments}");
        }
        let copy = tiny(machine.process()).open(TARGET).unwrap();
        check(&copy, &records(0..224));
    }
}

/// A copy of a part of a segment is replaced by a link once the segment is sealed.
#[test]
fn a_segment_that_is_sealed_takes_no_space_of_its_own() {
    let site = compacting(Site::disk()).small_segments();
    let log = site.open();
    let target = site.path().join("../backup");
    log.append(record(1)).unwrap();
    log.checkpoint(&target).unwrap();
    log.append(record(2)).unwrap();
    log.roll().unwrap();
    log.checkpoint(&target).unwrap();
    let name = Image::of_dir(&FsStorage::new(), &target).last();
    let inode = |dir: &Path| std::fs::metadata(dir.join(&name)).unwrap().ino();
    assert_eq!(inode(&target), inode(site.path()));
}

// Crashes and errors.

/// At a time that stands still, so that the records are the same in every run.
fn source(machine: &FaultyStorage) -> Log {
    let clock = Arc::new(ManualClock::at(secs(1000)));
    tiny(machine.process()).clock(clock).open(DIR).unwrap()
}

/// What there is before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Missing,
    Earlier,
}

/// A log with a checkpoint of what it was earlier, if there is to be one.
fn machine(target: Target) -> (FaultyStorage, Log, Vec<Row>) {
    let machine = FaultyStorage::memory();
    let log = source(&machine);
    append_all(&log, &records(0..30));
    let mut old = Vec::new();
    if target == Target::Earlier {
        log.checkpoint(TARGET).unwrap();
        old = read_rows(&log).unwrap();
        append_all(&log, &records(30..44));
        log.truncate_to(at(40)).unwrap();
        append_all(&log, &records(70..75));
        log.delete_before(at(9)).unwrap();
    }
    machine.forget_calls();
    (machine, log, old)
}

/// The target is the checkpoint before, or the new one, or there is none; tells whether there is.
#[track_caller]
fn check_target(machine: &FaultyStorage, old: &[Row], new: &[Row], story: &str) -> bool {
    match tiny(machine.process()).create(false).open(TARGET) {
        Ok(copy) => {
            assert!(copy.recovery().is_clean(), "{story}");
            let rows = read_rows(&copy).unwrap();
            let is_old = !old.is_empty() && rows == old;
            assert!(is_old || rows == new, "{story}: {} records", rows.len());
            copy.close().unwrap();
            true
        }
        Err(error) => {
            assert!(old.is_empty(), "{story}: {error}");
            let kinds = [ErrorKind::Corrupt, ErrorKind::Io];
            assert!(kinds.contains(&error.kind()), "{story}: {error}");
            false
        }
    }
}

#[test]
fn a_crash_at_every_call_leaves_the_checkpoint_before_or_the_new_one() {
    for target in [Target::Missing, Target::Earlier] {
        let (whole, log, _) = machine(target);
        let before = whole.effects();
        log.checkpoint(TARGET).unwrap();
        let calls = whole.effects() - before;
        let new = read_rows(&log).unwrap();
        assert!(calls > 15, "{calls}");
        let mut opened = 0;
        for call in 0..=calls {
            let (machine, log, old) = machine(target);
            machine.stop_after(call);
            drop(log.checkpoint(TARGET));
            machine.kill();
            drop(log);
            for how in [
                Crash::KeepAll,
                Crash::DropUnsynced,
                Crash::Prefix(call),
                Crash::Random(call),
                Crash::Random(call + 1000),
            ] {
                let story = format!("{target:?}, stopped before call {call}, {how:?}");
                let crashed = machine.crash(how);
                opened += u32::from(check_target(&crashed, &old, &new, &story));
                let log = tiny(crashed.process()).open(DIR).unwrap();
                assert!(read_rows(&log).unwrap() == new, "{story}");
                log.checkpoint(TARGET).unwrap_or_else(|error| panic!("{story}: {error}"));
                drop(log);
                let again = crashed.crash(Crash::DropUnsynced);
                let copy = tiny(again.process()).open(TARGET).unwrap();
                assert!(read_rows(&copy).unwrap() == new, "{story}");
            }
        }
        assert!(opened > 0);
    }
}

#[test]
fn each_call_can_fail_and_the_next_checkpoint_makes_up_for_it() {
    use Op::{Create, CreateDir, Link, List, Lock, Map, Open};
    use Op::{Read, Remove, Rename, SetLen, Size, Sync, SyncDir, Write};
    let first = [Create, CreateDir, Link, List, Lock, Map, Open];
    let second = [Read, Remove, Rename, SetLen, Size, Sync, SyncDir, Write];
    for op in first.into_iter().chain(second) {
        for error in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
            for nth in 1.. {
                let (machine, log, old) = machine(Target::Earlier);
                let new = read_rows(&log).unwrap();
                machine.forget_calls();
                machine.inject(Fault::new(op, error).nth(nth));
                let told = log.checkpoint(TARGET);
                let was_reached = machine.count(|called, _| called == op) >= nth;
                machine.heal();
                let story = format!("{op:?} {nth}, {error}: {told:?}");
                if let Err(error) = &told {
                    assert!(is_injected(error), "{story}");
                }
                let crashed = machine.crash(Crash::Random(nth));
                check_target(&crashed, &old, &new, &story);
                let (machine, log, _) = self::machine(Target::Earlier);
                machine.inject(Fault::new(op, error).nth(nth));
                drop(log.checkpoint(TARGET));
                machine.heal();
                log.append("goes on").unwrap();
                log.checkpoint(TARGET).unwrap_or_else(|error| panic!("{story}, then {error}"));
                let rows = read_rows(&log).unwrap();
                let crashed = machine.crash(Crash::DropUnsynced);
                let copy = tiny(crashed.process()).open(TARGET).unwrap();
                assert!(read_rows(&copy).unwrap() == rows, "{story}");
                if !was_reached {
                    assert!(nth > 1, "{op:?} is never called");
                    break;
                }
            }
        }
    }
}

#[test]
fn a_disk_that_is_full_is_told_and_leaves_the_checkpoint_before() {
    for free in (0..6000).step_by(171) {
        let (machine, log, old) = machine(Target::Earlier);
        let new = read_rows(&log).unwrap();
        machine.inject(Fault::new(Op::Link, io::ErrorKind::CrossesDevices).forever());
        machine.set_free(Some(free));
        if let Err(error) = log.checkpoint(TARGET) {
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{free}: {error}");
        }
        check_target(&machine, &old, &new, &format!("{free} bytes free"));
        machine.set_free(None);
        log.checkpoint(TARGET).unwrap();
        check_target(&machine, &[], &new, "with space again");
    }
}

#[test]
fn a_poisoned_log_can_be_saved() {
    let machine = FaultyStorage::memory();
    let log = tiny(machine.process()).open(DIR).unwrap();
    append_all(&log, &records(0..20));
    machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other));
    log.append("lost").unwrap_err();
    assert_eq!(log.checkpoint(TARGET).unwrap(), at(20));
    check(&tiny(machine.process()).open(TARGET).unwrap(), &records(0..20));
}

/// What a process left that was killed may not be durable, whatever the next one sees.
#[test]
fn a_power_cut_behind_the_checkpoint_after_one_that_was_killed_leaves_one_of_them() {
    let (whole, log, _) = machine(Target::Earlier);
    let before = whole.effects();
    log.checkpoint(TARGET).unwrap();
    let calls = whole.effects() - before;
    let new = read_rows(&log).unwrap();
    drop(log);
    for (call, second) in (0..=calls).flat_map(|call| (0..=calls + 5).map(move |s| (call, s))) {
        let (machine, log, old) = machine(Target::Earlier);
        let mut log = Some(log);
        for stop in [call, second] {
            let log = log.take().unwrap_or_else(|| source(&machine));
            machine.stop_after(stop);
            drop(log.checkpoint(TARGET));
            machine.kill();
        }
        for crash in [Crash::Prefix(second), Crash::Random(call * 100 + second)] {
            let story = format!("{call} calls, then {second}, then {crash:?}");
            check_target(&machine.crash(crash), &old, &new, &story);
        }
    }
}
