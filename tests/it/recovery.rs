//! Recovery, row by row: what a crash or a bad disk left, and what opening the log makes of it.

use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::at;
use crate::support::check;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::forge;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::TINY;
use crate::support::image::read;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use crate::support::records;
use crate::support::tail;
use std::io;
use std::path::Path;
use std::sync::Arc;
use stratalog::Durability::{Buffered, Written};
use stratalog::{Error, ErrorKind, Log, Position, Record};

// The directory, by its manifest.

#[test]
fn nothing_there_is_a_new_log() {
    let log = Image::default().open().unwrap();
    assert!(log.recovery().is_new());
    check(&log, &[]);
}

#[test]
fn nothing_there_and_not_to_be_created_is_an_error() {
    let storage = Image::default().storage();
    let error = tiny(Arc::new(storage.clone())).create(false).open(DIR).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Io, Some(Path::new(DIR))));
    assert_eq!(Image::of(&storage), Image::default());
}

#[test]
fn a_reserved_manifest_alone_is_a_new_log() {
    let mut image = Image::default();
    image.0.insert("MANIFEST.next".into(), vec![0; 4096]);
    assert!(image.open().unwrap().recovery().is_new());
}

#[test]
fn foreign_files_alone_are_a_new_log_and_are_left_alone() {
    let mut image = Image::default();
    image.0.insert("README".into(), b"mine".to_vec());
    image.0.insert("00000000000000000000-1.log".into(), b"mine too".to_vec());
    let storage = image.storage();
    assert!(tiny(Arc::new(storage.clone())).open(DIR).unwrap().recovery().is_new());
    let after = Image::of(&storage);
    assert!(image.0.iter().all(|(name, bytes)| after.0.get(name) == Some(bytes)));
}

#[test]
fn a_missing_manifest_with_segments_is_refused() {
    let mut image = killed(&tail(3));
    image.0.remove("MANIFEST");
    check_refused(&image, "MANIFEST");
    let error = tiny(Arc::new(image.storage())).create(false).open(DIR).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn a_damaged_manifest_is_refused() {
    let mut image = killed(&tail(3));
    image.bytes("MANIFEST")[20] ^= 1;
    check_refused(&image, "MANIFEST");
    image.bytes("MANIFEST").clear();
    check_refused(&image, "MANIFEST");
}

#[test]
fn a_foreign_manifest_is_refused() {
    let mut image = Image::default();
    image.0.insert("MANIFEST".into(), b"Manifest-Version: 1.0\r\n".to_vec());
    check_refused(&image, "MANIFEST");
}

#[test]
fn a_manifest_of_a_newer_version_is_unsupported() {
    let mut image = killed(&tail(3));
    let manifest = image.bytes("MANIFEST");
    manifest[8] = 2;
    *manifest = forge::resealed(manifest.clone());
    let error = check_untouched(&image);
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
    assert_eq!(error.path(), Some(path("MANIFEST").as_path()));
}

#[test]
fn a_segment_that_the_manifest_names_and_that_is_missing_is_refused() {
    let whole = killed(&records(0..30));
    assert!(whole.segments().len() > 3);
    for name in whole.segments() {
        let mut image = whole.clone();
        image.0.remove(&name);
        let error = check_refused(&image, &name);
        let base: u64 = name.split('-').next().unwrap().parse().unwrap();
        assert_eq!(error.offset(), Some(at(base)));
    }
}

#[test]
fn a_manifest_older_than_a_segment_with_records_is_refused() {
    let mut image = killed(&tail(3));
    let old = image.bytes("MANIFEST").clone();
    let mut image = killed(&records(0..30));
    *image.bytes("MANIFEST") = old;
    let second = image.segments()[1].clone();
    image.0.retain(|name, _| !name.ends_with(".log") || *name <= second);
    check_refused(&image, &second);
}

#[test]
fn files_of_changes_that_did_not_happen_are_removed() {
    let mut image = killed(&records(0..30));
    let header = forge::segment(99, 7);
    let begun = forge::segment_name(99, 7);
    let ended = forge::segment_name(1, 3);
    image.0.insert(begun.clone(), header);
    image.0.insert(ended.clone(), b"records of a segment that was dropped".to_vec());
    image.0.insert(ended.replace(".log", ".index"), vec![1]);
    let storage = image.storage();
    let log = tiny(Arc::new(storage.clone())).open(DIR).unwrap();
    assert_eq!(log.recovery().removed_files(), 3);
    check(&log, &records(0..30));
    let left = Image::of(&storage);
    assert!(!left.0.contains_key(&begun) && !left.0.contains_key(&ended));
}

// A segment that was not known to be durable, by what follows its last sound frame.

#[test]
fn an_active_segment_of_another_log_is_refused() {
    let mut image = killed(&tail(3));
    let name = image.last();
    let other = killed_with(7, &tail(3)).bytes(&name).clone();
    *image.bytes(&name) = other;
    check_refused(&image, &name);
}

#[test]
fn an_active_segment_below_its_durable_end_is_refused() {
    let mut image = closed(&tail(3));
    let name = image.last();
    for missing in 1..100 {
        let bytes = image.bytes(&name);
        bytes.truncate(bytes.len() - 1);
        let error = check_refused(&image, &name);
        assert!(error.position().is_some(), "{missing} bytes missing");
    }
}

#[test]
fn damage_below_a_later_mark_is_refused_where_it_begins() {
    let mut image = killed(&tail(4));
    let (name, frames) = (image.last(), frames(&image));
    for (offset, position) in frames.iter().enumerate().take(3) {
        image.bytes(&name)[*position + 41] ^= 4;
        let error = check_refused(&image, &name);
        let place = error.position().map(Position::get);
        assert_eq!(place, Some(*position as u64));
        assert_eq!(error.offset(), Some(at(offset as u64)));
        image.bytes(&name)[*position + 41] ^= 4;
    }
}

#[test]
fn damage_without_a_later_mark_is_cut_and_reported() {
    let mut image = killed(&tail(4));
    let (name, frames) = (image.last(), frames(&image));
    image.bytes(&name)[frames[3] + 41] ^= 4;
    let log = image.open().unwrap();
    assert_eq!(log.recovery().cut_at(), Some(at(3)));
    assert!(log.recovery().cut_bytes() > 0 && !log.recovery().is_clean());
    check(&log, &tail(3));
    assert_eq!(log.append("next").unwrap(), at(3));
}

#[test]
fn an_active_segment_that_ends_with_its_file_is_kept() {
    let machine = FaultyStorage::memory();
    let log = open(&machine);
    log.append_with(Written, "one").unwrap();
    machine.kill();
    let log = open(&machine);
    assert_eq!((log.recovery().cut_at(), log.end_offset()), (None, at(1)));
    assert!(log.recovery().rewritten_bytes() > 0);
}

#[test]
fn an_active_segment_that_ends_with_zeros_is_kept() {
    let mut image = killed(&tail(3));
    let name = image.last();
    image.bytes(&name).resize(100_000, 0);
    let log = image.open().unwrap();
    assert_eq!(log.recovery().cut_at(), None);
    check(&log, &tail(3));
}

#[test]
fn a_written_segment_that_is_whole_is_kept() {
    let machine = FaultyStorage::memory();
    let all = written(&machine);
    machine.kill();
    let log = open(&machine);
    assert!(log.recovery().scanned_segments() > 3);
    assert_eq!(log.recovery().cut_at(), None);
    check(&log, &all);
}

#[test]
fn a_written_segment_that_is_torn_is_cut_and_what_follows_is_dropped() {
    let machine = FaultyStorage::memory();
    let all = written(&machine);
    machine.kill();
    let whole = Image::of(&*machine.process());
    for (nth, name) in whole.segments().iter().enumerate() {
        let mut image = whole.clone();
        let len = image.bytes(name).len();
        image.bytes(name).truncate(len - 20);
        let log = image.open().unwrap();
        let cut_at = log.recovery().cut_at().unwrap();
        assert_eq!(cut_at, log.end_offset());
        assert!(cut_at >= at(nth as u64) && cut_at < at(all.len() as u64));
        let kept = usize::try_from(u64::from(cut_at)).unwrap();
        check(&log, &all[..kept]);
    }
}

#[test]
fn damage_in_a_written_segment_below_a_mark_in_it_is_refused() {
    let machine = FaultyStorage::memory();
    let log = open(&machine);
    for part in ["one", "two", "three"] {
        log.append(part).unwrap();
    }
    log.append_with(Written, "not synced when its segment ends").unwrap();
    log.append_with(Written, "x".repeat(350)).unwrap();
    machine.kill();
    let mut image = Image::of(&*machine.process());
    let first = image.segments()[0].clone();
    image.bytes(&first)[72 + 41] ^= 1;
    let error = check_refused(&image, &first);
    assert_eq!((error.position().map(Position::get), error.offset()), (Some(72), Some(at(0))));
}

/// The mark that tells the damage in the first segment from a torn tail stands behind other damage,
/// in the second.
#[test]
fn damage_in_two_segments_below_a_mark_behind_both_is_refused() {
    let machine = FaultyStorage::memory();
    let log = open(&machine);
    for value in ["x".repeat(350), "y".repeat(200), "z".into()] {
        log.append_with(Written, value).unwrap();
    }
    log.sync().unwrap();
    log.append_with(Written, "marks").unwrap();
    machine.kill();
    let mut image = Image::of(&*machine.process());
    let segments = image.segments();
    assert_eq!(segments.len(), 2);
    for name in &segments {
        image.bytes(name)[72 + 41] ^= 1;
    }
    check_refused(&image, &segments[0]);
}

// What recovery makes sure of.

#[test]
fn a_clean_close_leaves_nothing_to_scan_or_write() {
    let machine = FaultyStorage::memory();
    let log = open(&machine);
    append_all(&log, &records(0..30));
    log.close().unwrap();
    machine.forget_calls();
    let log = open(&machine);
    assert!(log.recovery().is_clean());
    assert_eq!((log.recovery().scanned_segments(), log.recovery().scanned_bytes()), (0, 0));
    let writes = |op, _: &Path| matches!(op, Op::Write | Op::Rename | Op::Create | Op::Remove);
    assert_eq!(machine.count(writes), 0);
    check(&log, &records(0..30));
}

#[test]
fn a_clean_close_after_a_cut_leaves_nothing_to_scan() {
    let machine = FaultyStorage::memory();
    written(&machine);
    machine.kill();
    let mut image = Image::of(&*machine.process());
    let first = image.segments()[0].clone();
    image.bytes(&first).truncate(100);
    let storage = image.storage();
    let log = tiny(Arc::new(storage.clone())).open(DIR).unwrap();
    assert!(log.recovery().cut_at().is_some());
    log.append("more").unwrap();
    log.close().unwrap();
    assert!(tiny(Arc::new(storage)).open(DIR).unwrap().recovery().is_clean());
}

#[test]
fn recovering_what_was_recovered_changes_nothing() {
    let machine = FaultyStorage::memory();
    written(&machine);
    for seed in 0..50 {
        let crashed = machine.crash(Crash::Random(seed));
        drop(killed_at_once(&crashed));
        let once = Image::of(&*crashed.process());
        drop(killed_at_once(&crashed));
        assert_eq!(Image::of(&*crashed.process()), once, "seed {seed}");
    }
}

#[test]
fn what_was_served_after_a_kill_survives_the_power_cut() {
    let machine = FaultyStorage::memory();
    let all = written(&machine);
    machine.kill();
    let log = open(&machine);
    check(&log, &all);
    check(&open(&machine.crash(Crash::DropUnsynced)), &all);
}

/// The kernel tells of a lost write once; the page cache shows the bytes all the same.
#[test]
fn what_was_served_after_a_failed_sync_and_a_kill_survives_the_power_cut() {
    for again in [1, 2] {
        let machine = FaultyStorage::memory();
        let log = open(&machine);
        append_all(&log, &tail(3));
        machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other).on(".log"));
        assert_kind(log.append("lost"), ErrorKind::Poisoned);
        for _ in 0..again {
            machine.kill();
            drop(open(&machine));
        }
        let log = open(&machine);
        let served = read(&log).unwrap();
        assert!(served.len() >= 3);
        check(&open(&machine.crash(Crash::DropUnsynced)), &served);
    }
}

#[test]
fn what_was_served_after_a_failed_sync_in_the_same_process_survives_the_power_cut() {
    let machine = FaultyStorage::memory();
    let log = open(&machine);
    append_all(&log, &tail(3));
    machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other).on(".log"));
    assert_kind(log.append("lost"), ErrorKind::Poisoned);
    assert_kind(log.close(), ErrorKind::Poisoned);
    let again = open(&machine);
    let served = read(&again).unwrap();
    drop(log);
    check(&open(&machine.crash(Crash::DropUnsynced)), &served);
}

/// A recovery whose own sync fails serves nothing; the next one starts over.
#[test]
fn a_recovery_that_fails_is_done_again() {
    for op in [Op::Sync, Op::SyncDir, Op::Write, Op::Rename, Op::Read, Op::List] {
        let machine = FaultyStorage::memory();
        let all = written(&machine);
        machine.kill();
        machine.inject(Fault::new(op, io::ErrorKind::Other));
        assert_kind(tiny(machine.process()).open(DIR), ErrorKind::Io);
        let log = open(&machine);
        check(&log, &all);
        check(&open(&machine.crash(Crash::DropUnsynced)), &all);
    }
}

/// As many records of the same sizes as were lost, so that the old frames would fit behind them.
#[test]
fn what_was_cut_does_not_come_back_behind_new_records() {
    let machine = FaultyStorage::memory();
    let log = open(&machine);
    for value in ["kept", "old1", "old2", "old3"] {
        log.append_with(Written, value).unwrap();
    }
    machine.kill();
    let mut image = Image::of(&*machine.process());
    let (name, frames) = (image.last(), frames(&image));
    image.bytes(&name)[frames[1]..frames[2]].fill(0);
    let machine = FaultyStorage::over(image.storage());
    let log = open(&machine);
    assert_eq!(log.recovery().cut_at(), Some(at(1)));
    let news = ["new1", "new2"];
    append_all(&log, &news.map(Record::new));
    for how in [Crash::KeepAll, Crash::DropUnsynced] {
        check(&open(&machine.crash(how)), &["kept", "new1", "new2"].map(Record::new));
    }
}

#[test]
fn a_batch_is_whole_or_gone_wherever_its_file_ends() {
    let machine = FaultyStorage::memory();
    let log = open(&machine);
    log.append_batch_with(Written, records(0..3)).unwrap();
    log.append_batch_with(Written, records(3..9)).unwrap();
    machine.kill();
    let mut image = Image::of(&*machine.process());
    let name = image.last();
    while image.bytes(&name).len() > 72 {
        image.bytes(&name).pop();
        let left = read(&image.open().unwrap()).unwrap();
        assert!([0, 3].contains(&left.len()), "{} records", left.len());
        assert_eq!(left, records(0..left.len() as u64));
    }
}

#[test]
fn buffered_records_that_were_never_written_are_gone_and_the_rest_is_there() {
    let machine = FaultyStorage::memory();
    let log = open(&machine);
    log.append("synced").unwrap();
    log.append_with(Buffered, "buffered").unwrap();
    machine.kill();
    check(&open(&machine), &[Record::new("synced")]);
}

/// Opening reads the manifest and the active segment, however long the log is.
#[test]
fn a_log_of_2000_segments_opens_without_a_look_at_the_sealed_ones() {
    for flags in [forge::CLOSED, forge::OPEN] {
        let machine = FaultyStorage::over(long_log(flags).storage());
        let closed = flags == forge::CLOSED;
        let log = open(&machine);
        assert_eq!(log.recovery().is_clean(), closed);
        let active = forge::segment_name(2000, 1999);
        let index = active.replace(".log", ".index");
        let others = |_, path: &Path| {
            let of_a_segment =
                path.extension().is_some_and(|kind| kind == "log" || kind == "index");
            of_a_segment && !path.ends_with(&active) && !path.ends_with(&index)
        };
        assert_eq!(machine.count(others), 0, "closed: {closed}");
        let reads = machine.count(|op, _| op == Op::Read);
        assert!(reads < 20, "{reads} reads");

        machine.forget_calls();
        assert_eq!(log.get(at(700)).unwrap().unwrap().value(), b"700");
        let opened = machine
            .count(|op, path| op == Op::Open && path.extension().is_some_and(|kind| kind == "log"));
        assert!(opened <= 1, "{opened} segments opened for one record");
        assert_eq!(read(&log).unwrap().len(), 2000 + usize::from(!closed));
    }
}

/// Segments of one record each; after the crash the last one has one more.
fn long_log(flags: u16) -> Image {
    let mut image = Image::default();
    let mut rows = Vec::new();
    for nth in 0..2000 {
        let mut bytes = forge::segment(nth + 1, nth);
        bytes.extend(forge::frame(nth, nth.to_string().as_bytes()));
        let byte_len = bytes.len() as u64;
        let last = nth == 1999;
        if last && flags == forge::OPEN {
            bytes.extend(forge::frame(nth + 1, b"unclosed"));
        }
        image.0.insert(forge::segment_name(nth + 1, nth), bytes);
        let state = if last { forge::ACTIVE } else { forge::SEALED };
        rows.push(forge::Row { id: nth + 1, base: nth, end: nth + 1, byte_len, state });
    }
    image.0.insert("MANIFEST".into(), forge::manifest(flags, 0, &rows));
    image
}

// Words of this file.

fn open(machine: &FaultyStorage) -> Log {
    tiny(machine.process()).open(DIR).unwrap()
}

/// A log that was opened and whose process died then.
fn killed_at_once(machine: &FaultyStorage) -> Log {
    let log = open(machine);
    machine.kill();
    log
}

/// Written and never synced records, over several segments; the process still lives.
fn written(machine: &FaultyStorage) -> Vec<Record<'static>> {
    let log = open(machine);
    let all = records(0..30);
    for record in &all {
        log.append_with(Written, record.clone()).unwrap();
    }
    assert!(Image::of(&*machine.process()).segments().len() > 3);
    // Dropping the last handle would close the log.
    machine.kill();
    all
}

/// The files of a process that was killed after it had appended the records, each synced.
fn killed(records: &[Record<'_>]) -> Image {
    killed_with(0, records)
}

/// The same with another identity of the log.
fn killed_with(identity: u64, records: &[Record<'_>]) -> Image {
    let machine = FaultyStorage::memory();
    for _ in 0..identity {
        machine.process().random();
    }
    let log = tiny(machine.process()).open(DIR).unwrap();
    append_all(&log, records);
    machine.kill();
    Image::of(&*machine.process())
}

fn closed(records: &[Record<'_>]) -> Image {
    let machine = FaultyStorage::memory();
    let log = open(&machine);
    append_all(&log, records);
    log.close().unwrap();
    Image::of(&*machine.process())
}

/// Where the frames of the last segment begin, each with one record.
fn frames(image: &Image) -> Vec<usize> {
    let bytes = &image.0[&image.last()];
    let mut frames = Vec::new();
    let mut at = 72;
    while at + 40 <= bytes.len() && bytes[at + 36] == 1 {
        frames.push(at);
        let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
        at += (40 + usize::try_from(len).unwrap()).next_multiple_of(8);
    }
    frames
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(DIR).join(name)
}

/// Opening the log is `Corrupt`, names the file, and touches nothing.
#[track_caller]
fn check_refused(image: &Image, name: &str) -> Error {
    let error = check_untouched(image);
    assert_eq!((error.kind(), error.path()), (ErrorKind::Corrupt, Some(path(name).as_path())));
    error
}

#[track_caller]
fn check_untouched(image: &Image) -> Error {
    let storage = image.storage();
    let error = tiny(Arc::new(storage.clone())).open(DIR).unwrap_err();
    assert_eq!(&Image::of(&storage), image, "the files changed");
    error
}

const _: () = assert!(TINY > 350 + 72 + 48);
