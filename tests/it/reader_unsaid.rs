//! A `LogReader` beside a writer that says nothing of what it does, or nothing yet.

use crate::support::append_all;
use crate::support::assert_out_of_range;
use crate::support::at;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::hook::HookStorage;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::tiny;
use crate::support::records;
use crate::support::site::Site;
use crate::support::until;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::thread::Builder;
use std::time::Duration;
use stratalog::storage::{MemoryStorage, OpenMode, Storage};
use stratalog::{Error, Maintenance, Options, Record, Seek};

/// Where no notice tells of a truncation, since it could not be written, the manifest does.
#[test]
fn a_truncation_whose_notice_was_not_written_is_found_all_the_same() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let site = Site::over(Arc::clone(&storage));
    let log = site.open();
    append_all(&log, &records(0..10));
    let reader = site.open_reader().unwrap();
    let mut cursor = reader.cursor(Seek::Offset(at(7))).unwrap();
    assert!(cursor.next().unwrap().is_some());
    let lock = storage.open(&site.path().join("LOCK"), OpenMode::Write).unwrap();
    let mut bytes = vec![0; 448];
    lock.read_at(&mut bytes, 0).unwrap();
    log.truncate_to(at(5)).unwrap();
    lock.write_at(&bytes, 0).unwrap();
    until(|| reader.refresh().is_ok() && reader.high_watermark() == at(5));
    assert_out_of_range(cursor.next().map(drop), 5);
}

/// The same on a storage that keeps no notices.
#[test]
fn a_truncation_is_found_where_nobody_tells_of_anything() {
    let machine = FaultyStorage::memory();
    let options = || Options::new().storage(machine.process()).maintenance(Maintenance::Manual);
    let log = options().open(DIR).unwrap();
    append_all(&log, &records(0..10));
    log.roll().unwrap();
    let reader = options().open_reader(DIR).unwrap();
    let mut cursor = reader.cursor(Seek::Offset(at(10))).unwrap();
    assert!(cursor.next().unwrap().is_none());
    log.truncate_to(at(5)).unwrap();
    append_all(&log, &records(20..23));
    log.roll().unwrap();
    until(|| reader.refresh().is_ok() && reader.high_watermark() != at(10));
    assert_out_of_range(cursor.next(), 0);
    cursor.seek(Seek::Offset(at(5))).unwrap();
    let found = cursor.next().unwrap().map(|entry| entry.to_buf());
    assert_eq!(found.as_ref().map(Record::from).as_ref(), records(20..21).first());
}

/// How far the log goes is not known before the writer has recovered it: until then a place that
/// the reader of an earlier process kept is not one that was cut off.
#[test]
fn a_place_is_looked_for_when_a_writer_has_opened_the_log() {
    let storage = HookStorage::default();
    let written = MemoryStorage::new();
    let log = tiny(Arc::new(written.clone())).open(DIR).unwrap();
    append_all(&log, &records(0..10));
    Image::of(&written).put(&storage, Path::new(DIR));
    let options = tiny(Arc::new(storage.clone()));
    let (reading, read) = (options.clone(), Arc::new(Mutex::new(None)));
    let handed = Arc::clone(&read);
    storage.before(Op::Open, ".log", move || {
        let (is_open, opened) = mpsc::channel();
        let reader = Builder::new().spawn(move || {
            let reader = reading.open_reader(DIR).unwrap();
            let known = reader.high_watermark();
            is_open.send(()).unwrap();
            let mut cursor = reader.cursor(Seek::Offset(at(7)))?;
            let found = cursor.next()?.map(|entry| entry.to_buf());
            Ok::<_, Error>((known, found))
        });
        opened.recv().unwrap();
        thread::park_timeout(Duration::from_millis(20));
        *handed.lock() = Some(reader.unwrap());
    });
    let recovered = options.open(DIR).unwrap();
    assert_eq!(recovered.end_offset(), at(10));
    let (known, found) = read.lock().take().unwrap().join().unwrap().unwrap();
    assert!(known < at(7));
    assert_eq!(found.as_ref().map(Record::from).as_ref(), records(7..8).first());
}
