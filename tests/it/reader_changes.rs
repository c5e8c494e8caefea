//! A `LogReader` that looks while the writer changes the log: between what the manifest names and
//! the files that are opened.

use crate::support::append_all;
use crate::support::at;
use crate::support::fault::Op;
use crate::support::full;
use crate::support::hook::HookStorage;
use crate::support::records;
use crate::support::site::Site;
use crate::support::until;
use std::path::PathBuf;
use std::sync::Arc;
use stratalog::storage::{OpenMode, Storage};
use stratalog::{ErrorKind, LogReader, Record, Result, Seek, Timestamp};

fn shown(reader: &LogReader) -> usize {
    reader.iter(Seek::Start).unwrap().collect::<Result<Vec<_>>>().unwrap().len()
}

/// The files of the segments, in order.
fn segments(site: &Site) -> Vec<PathBuf> {
    let files = site.files().into_iter().filter(|(name, _)| name.ends_with(".log"));
    files.map(|(name, _)| site.path().join(name)).collect()
}

/// Its file goes between the two.
#[test]
fn an_active_segment_that_is_cut_off_while_it_is_opened_is_no_damage() {
    let storage = HookStorage::default();
    let site = Site::over(Arc::new(storage.clone()));
    let log = site.open();
    append_all(&log, &records(0..3));
    let reader = site.open_reader().unwrap();
    let mut cursor = reader.cursor(Seek::Start).unwrap();
    cursor.next().unwrap().unwrap();
    log.roll().unwrap();
    append_all(&log, &records(3..6));
    let cut = log.clone();
    storage.before(Op::Open, ".log", move || cut.truncate_to(at(2)).unwrap());
    reader.refresh().unwrap();
    assert!(storage.has_acted());
    assert_eq!(Record::from(cursor.next().unwrap().unwrap()), records(1..2)[0]);
    assert!(cursor.next().unwrap().is_none());
}

/// The same, for who opens the reader: it goes by the notice, or, of a log that is closed when it
/// begins, by what the files prove.
#[test]
fn a_reader_is_opened_while_the_log_is_cut() {
    for is_closed in [false, true] {
        let storage = HookStorage::default();
        let site = Site::over(Arc::new(storage.clone()));
        let log = site.open();
        append_all(&log, &records(0..3));
        log.roll().unwrap();
        append_all(&log, &records(3..6));
        let there = Site::over(Arc::new(storage.clone()));
        let held = (!is_closed).then(|| log.clone());
        if is_closed {
            log.close().unwrap();
        }
        storage.before(Op::Open, ".log", move || {
            held.unwrap_or_else(|| there.open()).truncate_to(at(2)).unwrap();
        });
        let reader = site.open_reader().unwrap();
        assert!(storage.has_acted());
        assert_eq!(shown(&reader), 2);
    }
}

/// An error does end it: a file that is gone for good.
#[test]
fn a_segment_that_stays_away_is_an_error_until_it_is_back() {
    let storage = HookStorage::default();
    let site = Site::over(Arc::new(storage.clone()));
    let log = site.open();
    append_all(&log, &records(0..3));
    let reader = site.open_reader().unwrap();
    log.roll().unwrap();
    append_all(&log, &records(3..6));
    let last = segments(&site).pop().unwrap();
    let aside = site.path().join("aside");
    storage.rename(&last, &aside).unwrap();
    for _ in 0..3 {
        assert_eq!(reader.refresh().unwrap_err().kind(), ErrorKind::Corrupt);
    }
    assert!(site.open_reader().is_err());
    storage.rename(&aside, &last).unwrap();
    reader.refresh().unwrap();
    assert_eq!(shown(&reader), 6);
}

/// As above, when the writer is gone and has said nothing new: the look that fails is not the last.
#[test]
fn a_segment_that_stays_away_is_an_error_without_a_writer_too() {
    let storage = HookStorage::default();
    let site = Site::over(Arc::new(storage.clone()));
    let log = site.open();
    append_all(&log, &records(0..3));
    let reader = site.open_reader().unwrap();
    let lock = storage.open(&site.path().join("LOCK"), OpenMode::Write).unwrap();
    let mut said = [0; 448];
    assert_eq!(lock.read_at(&mut said, 0).unwrap(), 448);
    log.roll().unwrap();
    append_all(&log, &records(3..6));
    log.close().unwrap();
    lock.write_at(&said, 0).unwrap();
    let last = segments(&site).pop().unwrap();
    let aside = site.path().join("aside");
    storage.rename(&last, &aside).unwrap();
    until(|| reader.refresh().is_err());
    assert_eq!(reader.refresh().unwrap_err().kind(), ErrorKind::Corrupt);
    storage.rename(&aside, &last).unwrap();
    reader.refresh().unwrap();
    assert_eq!(shown(&reader), 6);
}

#[test]
fn a_time_is_sought_while_the_log_is_deleted_there() {
    let storage = HookStorage::default();
    let site = Site::over(Arc::new(storage.clone())).small_segments();
    let log = site.open();
    append_all(&log, &full(6));
    let reader = site.open_reader().unwrap();
    let deleted = log.clone();
    storage.before(Op::Open, ".log", move || deleted.delete_before(at(4)).unwrap());
    let cursor = reader.cursor(Seek::Time(Timestamp::from_micros(1))).unwrap();
    assert!(storage.has_acted());
    assert_eq!(cursor.offset(), at(4));
}

/// An error does end this, too.
#[test]
fn a_time_in_a_segment_that_stays_away_is_an_error() {
    let storage = HookStorage::default();
    let site = Site::over(Arc::new(storage.clone())).small_segments();
    let log = site.open();
    append_all(&log, &full(6));
    let reader = site.open_reader().unwrap();
    let first = &segments(&site)[0];
    storage.open(first, OpenMode::Write).unwrap().set_len(0).unwrap();
    let sought = reader.cursor(Seek::Time(Timestamp::from_micros(1)));
    assert_eq!(sought.unwrap_err().kind(), ErrorKind::Corrupt);
}
