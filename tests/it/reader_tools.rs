//! A `LogReader` of a log that a repair or a checkpoint changes: neither is a writer, and both may
//! be over before the reader looks again.

use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::assert_out_of_range;
use crate::support::at;
use crate::support::forge;
use crate::support::full;
use crate::support::site::Site;
use crate::support::until;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stratalog::storage::{MemoryStorage, OpenMode, Storage};
use stratalog::{ErrorKind, Keep, LogReader, Record, RepairOptions, Seek};

/// The flags of the manifest of a checkpoint that is not finished.
const UNFINISHED: u16 = 6;

fn all(reader: &LogReader) -> Vec<stratalog::EntryBuf> {
    reader.iter(Seek::Start).unwrap().map(Result::unwrap).collect()
}

#[track_caller]
fn shows(reader: &LogReader, expected: &[Record<'_>]) {
    let end = at(expected.len() as u64);
    until(|| reader.refresh().is_ok() && reader.high_watermark() == end);
    assert!(all(reader).iter().map(Record::from).eq(expected.iter().cloned()));
}

#[test]
fn a_repair_between_two_looks_is_seen() {
    let storage = Arc::new(MemoryStorage::new());
    let site = Site::over(storage.clone()).small_segments();
    let log = site.open();
    append_all(&log, &full(4));
    log.close().unwrap();
    let reader = site.open_reader().unwrap();
    let mut cursor = reader.cursor(Seek::End).unwrap();
    shows(&reader, &full(4));
    let third = site.files().into_iter().filter(|(name, _)| name.ends_with(".log")).nth(2);
    let third = storage.open(&site.path().join(third.unwrap().0), OpenMode::Write).unwrap();
    third.write_at(&[0xff; 8], 200).unwrap();
    let options = RepairOptions::new().storage(storage).keep(Keep::Prefix);
    stratalog::repair(site.path(), &options).unwrap();
    shows(&reader, &full(2));
    assert_out_of_range(cursor.next().map(drop), 2);
}

#[test]
fn a_checkpoint_that_is_taken_again_between_two_looks_is_seen() {
    let site = Site::memory().small_segments();
    let log = site.open();
    append_all(&log, &full(2));
    let target = Path::new("/backup");
    log.checkpoint(target).unwrap();
    let reader = site.open_reader_at(target).unwrap();
    shows(&reader, &full(2));
    append_all(&log, &full(4)[2..]);
    log.checkpoint(target).unwrap();
    shows(&reader, &full(4));
    // Also what was cut off the log since.
    let mut cursor = reader.cursor(Seek::Offset(at(3))).unwrap();
    log.truncate_to(at(2)).unwrap();
    append_all(&log, &full(6)[2..]);
    log.checkpoint(target).unwrap();
    shows(&reader, &full(6));
    assert_out_of_range(cursor.next().map(drop), 0);
}

/// A checkpoint that was begun in an empty directory has a manifest without segments: no log yet.
#[test]
fn a_checkpoint_that_was_not_finished_is_no_log_to_read() {
    let storage = Arc::new(MemoryStorage::new());
    let site = Site::over(storage.clone());
    storage.create_dir(site.path()).unwrap();
    let put = |bytes: &[u8]| {
        let path = site.path().join("MANIFEST");
        drop(storage.remove(&path));
        let file = storage.open(&path, OpenMode::Create).unwrap();
        assert_eq!(file.write_at(bytes, 0).unwrap(), bytes.len());
    };
    put(&forge::manifest(UNFINISHED, 0, &[]));
    assert_kind(site.open_reader(), ErrorKind::Corrupt);
    assert_kind(site.try_open(), ErrorKind::Corrupt);
    // Nor is it one for a reader of what was there before.
    put(&forge::manifest(forge::CLOSED, 0, &[]));
    let reader = site.open_reader().unwrap();
    let lock = storage.lock(&site.path().join("LOCK")).unwrap();
    let mut cursor = reader.cursor(Seek::End).unwrap();
    // Long enough for it to ask for the writer, and to find one.
    assert!(!cursor.wait(Duration::from_millis(300)).unwrap());
    put(&forge::manifest(UNFINISHED, 0, &[]));
    drop(lock);
    until(|| reader.refresh().is_err());
    // What could not be seen is looked for again, though nothing is new.
    assert_kind(reader.refresh(), ErrorKind::Corrupt);
    put(&forge::manifest(forge::CLOSED, 0, &[]));
    reader.refresh().unwrap();
}
