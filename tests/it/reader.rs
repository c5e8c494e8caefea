//! A log read by a `LogReader` beside its writer, in this process: what it shows, step by step.

#![expect(clippy::disallowed_methods, reason = "a test owns its files and threads")]

use crate::support::LONG;
use crate::support::assert_kind;
use crate::support::assert_out_of_range;
use crate::support::at;
use crate::support::check;
use crate::support::full;
use crate::support::record;
use crate::support::records;
use crate::support::site::Site;
use crate::support::task::Alarm;
use crate::support::task::poll_to_panic;
use crate::support::until;
use std::fs;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::Duration;
use stratalog::storage::MemoryStorage;
use stratalog::{
    Cursor, Durability, ErrorKind, Log, LogReader, Maintenance, Options, Record, Result, Seek,
};

fn reader(site: &Site) -> LogReader {
    site.open_reader().unwrap()
}

/// Values of all that a cursor still has to give.
#[track_caller]
fn rest(cursor: &mut Cursor) -> Vec<String> {
    let mut values = Vec::new();
    while let Some(entry) = cursor.next().unwrap() {
        values.push(String::from_utf8(entry.value().to_vec()).unwrap());
    }
    values
}

fn appended(log: &Log, values: &[&str]) {
    for value in values {
        log.append(*value).unwrap();
    }
}

/// The reader shows just what the log does, whichever way it is read.
#[track_caller]
fn same(log: &Log, reader: &LogReader) {
    reader.refresh().unwrap();
    assert_eq!(reader.start_offset(), log.start_offset());
    assert_eq!(reader.high_watermark(), log.high_watermark().min(log.written_offset()));
    let all = |iter: stratalog::Iter| iter.map(Result::unwrap).collect::<Vec<_>>();
    let (expected, found) = (log.iter(Seek::Start).unwrap(), reader.iter(Seek::Start).unwrap());
    let (expected, found) = (all(expected), all(found));
    assert_eq!(found, expected);
    for entry in &expected {
        assert_eq!(reader.get(entry.offset()).unwrap().as_ref(), Some(entry));
    }
    let mut cursor = reader.cursor(Seek::End).unwrap();
    for entry in expected.iter().rev() {
        assert_eq!(cursor.prev().unwrap().map(|entry| entry.to_buf()).as_ref(), Some(entry));
    }
    assert!(cursor.prev().unwrap().is_none());
    if let (Some(first), Some(last)) = (expected.first(), expected.last()) {
        for time in [first.appended_at(), last.appended_at()] {
            let sought = |cursor: Cursor| cursor.offset();
            let expected = sought(log.cursor(Seek::Time(time)).unwrap());
            assert_eq!(sought(reader.cursor(Seek::Time(time)).unwrap()), expected);
        }
    }
}

#[test]
fn what_is_appended_is_seen_by_the_next_call() {
    for level in [Durability::Synced, Durability::Written] {
        for site in Site::each() {
            let site = site.options(|options| options.durability(level)).small_segments();
            let log = site.open();
            let reader = reader(&site);
            let mut cursor = reader.cursor(Seek::Start).unwrap();
            for number in 0..60 {
                assert!(cursor.next().unwrap().is_none());
                let offset = log.append(record(number)).unwrap();
                let entry = cursor.next().unwrap().unwrap();
                assert_eq!((entry.offset(), Record::from(entry)), (offset, record(number)));
            }
            assert!(reader.has_writer().unwrap());
            assert!(log.segments().len() > 2);
            same(&log, &reader);
        }
    }
}

/// Under load not every append that is only written posts; what the last one did not is posted by
/// the background thread, long before it syncs.
#[test]
fn the_last_of_a_burst_is_seen_soon() {
    let hour = Duration::from_secs(3600);
    let site = Site::disk().options(|options| {
        let options = options.maintenance(Maintenance::Background).sync_interval(hour);
        options.durability(Durability::Written)
    });
    let log = site.open();
    let reader = reader(&site);
    let mut cursor = reader.cursor(Seek::Start).unwrap();
    for burst in 0..20 {
        let start = log.end_offset().get();
        for number in start..start + 1 + 50 * burst {
            log.append(record(number)).unwrap();
        }
        while cursor.offset() < log.end_offset() {
            assert!(cursor.wait(LONG).unwrap(), "{} of {}", cursor.offset(), log.end_offset());
            while let Some(entry) = cursor.next().unwrap() {
                assert_eq!(Record::from(entry), record(entry.offset().get()));
            }
        }
    }
    assert_eq!(log.durable_offset(), at(0));
}

#[test]
fn it_shows_what_the_writer_shows_and_not_what_is_only_in_its_memory() {
    let site = Site::disk();
    let log = site.open();
    log.append_with(Durability::Written, "written").unwrap();
    let reader = reader(&site);
    // In a log that is synced, what is written may not be read yet.
    assert_eq!((log.high_watermark(), reader.high_watermark()), (at(0), at(0)));
    assert!(reader.cursor(Seek::Start).unwrap().next().unwrap().is_none());
    assert!(reader.get(at(0)).unwrap().is_none());
    log.sync().unwrap();
    same(&log, &reader);
    log.close().unwrap();

    let site = site.options(|options| options.durability(Durability::Buffered));
    let log = site.open();
    let mut cursor = reader.cursor(Seek::End).unwrap();
    log.append("buffered").unwrap();
    assert_eq!(log.high_watermark(), at(2));
    assert!(cursor.next().unwrap().is_none());
    log.wait(at(1), Durability::Written).unwrap();
    assert_eq!(rest(&mut cursor), ["buffered"]);
}

#[test]
fn a_log_is_read_without_a_writer_and_from_one_to_the_next() {
    for site in Site::each() {
        let site = site.small_segments();
        let log = site.open();
        appended(&log, &["a", "b"]);
        let reader = reader(&site);
        let mut cursor = reader.cursor(Seek::Start).unwrap();
        assert_eq!(rest(&mut cursor), ["a", "b"]);
        log.close().unwrap();
        drop(log);
        assert!(!reader.has_writer().unwrap());
        assert!(cursor.next().unwrap().is_none());
        let again = self::reader(&site);
        assert_eq!(rest(&mut again.cursor(Seek::Start).unwrap()), ["a", "b"]);
        let log = site.open();
        appended(&log, &["c"]);
        for record in full(3) {
            log.append(record).unwrap();
        }
        assert_eq!(rest(&mut cursor)[0], "c");
        same(&log, &reader);
        same(&log, &again);
    }
}

#[test]
fn cuts_are_told_and_nothing_that_was_cut_is_shown() {
    for site in Site::each() {
        let site = site.small_segments();
        let log = site.open();
        for number in 0..30 {
            log.append(record(number)).unwrap();
        }
        let reader = reader(&site);
        let mut behind = reader.cursor(Seek::Offset(at(25))).unwrap();
        let mut before = reader.cursor(Seek::Offset(at(5))).unwrap();
        before.next().unwrap().unwrap();
        behind.next().unwrap().unwrap();
        log.truncate_to(at(20)).unwrap();
        appended(&log, &["other"; 10]);
        assert_out_of_range(reader.refresh().and_then(|()| behind.next().map(drop)), 20);
        assert_out_of_range(behind.next().map(drop), 20);
        behind.seek(Seek::Offset(at(20))).unwrap();
        assert_eq!(rest(&mut behind), ["other"; 10]);
        assert_eq!(before.next().unwrap().unwrap().offset(), at(6));
        same(&log, &reader);

        log.delete_before(at(13)).unwrap();
        reader.refresh().unwrap();
        assert_out_of_range(before.next().map(drop), 13);
        assert_out_of_range(reader.get(at(12)), 13);
        same(&log, &reader);
        // Beyond the end: the log jumps.
        log.delete_before(at(100)).unwrap();
        reader.refresh().unwrap();
        assert_out_of_range(behind.next().map(drop), 100);
        same(&log, &reader);
        appended(&log, &["jumped"]);
        same(&log, &reader);
    }
}

/// Two truncations and what is appended between them: the lower one counts, whichever came first,
/// also if the writer was another one.
#[test]
fn of_truncations_that_were_not_seen_the_lowest_end_is_told() {
    for (first, second) in [(10, 15), (15, 10)] {
        for restarts in [false, true] {
            let site = Site::memory();
            let mut log = site.open();
            appended(&log, &["x"; 20]);
            let reader = reader(&site);
            let mut cursors: Vec<_> =
                (0..=20).map(|offset| reader.cursor(Seek::Offset(at(offset))).unwrap()).collect();
            for end in [first, second] {
                log.truncate_to(at(end)).unwrap();
                appended(&log, &["y"; 20]);
                if restarts {
                    drop(log);
                    log = site.open();
                }
            }
            reader.refresh().unwrap();
            for (offset, cursor) in (0..).zip(&mut cursors) {
                if offset <= 10 {
                    let entry = cursor.next().unwrap().unwrap();
                    assert_eq!(entry.offset(), at(offset));
                } else {
                    assert_out_of_range(cursor.next().map(drop), 10);
                }
            }
        }
    }
}

#[test]
fn what_compaction_leaves_is_read_on() {
    let site = Site::disk().small_segments();
    let site = site.options(|options| options.compaction(stratalog::Compaction::new()));
    let log = site.open();
    for number in 0..200 {
        log.append(Record::new(format!("{number:100}")).key(format!("{}", number % 7))).unwrap();
    }
    let reader = reader(&site);
    let mut old = reader.cursor(Seek::Start).unwrap();
    old.next().unwrap().unwrap();
    log.roll().unwrap();
    log.compact().unwrap();
    let kept = log.iter(Seek::Start).unwrap().count();
    assert!(kept < 20);
    same(&log, &reader);
    let mut last = 0;
    while let Some(entry) = old.next().unwrap() {
        assert!(entry.offset().get() > last);
        last = entry.offset().get();
    }
    assert_eq!(last, 199);
}

#[test]
fn a_log_that_is_not_there_is_an_error_and_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let error = LogReader::open(&path).unwrap_err();
    assert_eq!((error.kind(), path.exists()), (ErrorKind::Io, false));
    fs::create_dir(&path).unwrap();
    fs::write(path.join("LOCK"), "").unwrap();
    let error = LogReader::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("being made"), "{error}");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1);

    let log = Log::open(&path).unwrap();
    appended(&log, &["a"]);
    log.close().unwrap();
    fs::remove_file(path.join("MANIFEST")).unwrap();
    assert_kind(LogReader::open(&path), ErrorKind::Corrupt);
    fs::write(path.join("MANIFEST"), "something else").unwrap();
    assert_kind(LogReader::open(&path), ErrorKind::Corrupt);
}

#[test]
fn another_log_in_the_same_place_is_an_error() {
    let site = Site::disk();
    let log = site.open();
    appended(&log, &["a"]);
    let reader = reader(&site);
    drop(log);
    fs::remove_dir_all(site.path()).unwrap();
    let log = site.open();
    appended(&log, &["b", "c"]);
    let mut cursor = reader.cursor(Seek::Start);
    // It sees the new lock when it asks for the writer again.
    until(|| reader.refresh().is_err());
    let again = cursor.as_mut().map(|cursor| cursor.next().map(drop));
    assert!(!matches!(again, Ok(Ok(()))) || reader.end_offset() == at(1));
    assert_kind(reader.refresh(), ErrorKind::Corrupt);
}

#[test]
fn nothing_is_written_or_made() {
    let site = Site::disk();
    let log = site.open();
    appended(&log, &["a"]);
    log.close().unwrap();
    let list = || {
        let entries = fs::read_dir(site.path()).unwrap().map(|entry| entry.unwrap());
        let mut all: Vec<_> = entries
            .map(|entry| {
                let path = entry.path();
                let modified = entry.metadata().unwrap().modified().unwrap();
                (fs::read(&path).unwrap(), modified, path)
            })
            .collect();
        all.sort();
        all
    };
    let before = list();
    let reader = reader(&site);
    assert_eq!(rest(&mut reader.cursor(Seek::Start).unwrap()), ["a"]);
    assert!(!reader.has_writer().unwrap());
    assert_eq!(list(), before);
    // Without a lock file there is no writer.
    fs::remove_file(site.path().join("LOCK")).unwrap();
    let reader = self::reader(&site);
    assert_eq!(rest(&mut reader.cursor(Seek::Start).unwrap()), ["a"]);
    assert!(!site.path().join("LOCK").exists());
}

#[test]
fn who_waits_is_told() {
    let site = Site::disk();
    let log = site.open();
    let reader = reader(&site);
    let mut cursor = reader.cursor(Seek::Start).unwrap();
    assert!(!cursor.wait(Duration::from_millis(20)).unwrap());
    let waiting = thread::spawn(move || {
        assert!(cursor.wait(Duration::from_secs(30)).unwrap());
        rest(&mut cursor)
    });
    appended(&log, &["a"]);
    assert_eq!(waiting.join().unwrap()[0], "a");
    // The writer ends, and nobody is woken for it; another one comes.
    let mut cursor = reader.cursor(Seek::End).unwrap();
    log.close().unwrap();
    assert!(!cursor.wait(Duration::from_millis(20)).unwrap());
    let log = site.reopen(log);
    appended(&log, &["b"]);
    assert!(cursor.wait(Duration::from_secs(30)).unwrap());
    assert_eq!(rest(&mut cursor), ["b"]);
    // Or the place is cut off.
    log.truncate_to(at(0)).unwrap();
    assert_out_of_range(cursor.wait(Duration::from_secs(30)), 0);
}

#[test]
fn tasks_that_wait_are_told() {
    let site = Site::disk();
    let log = site.open();
    appended(&log, &["a"]);
    let reader = reader(&site);
    let mut at_end = reader.cursor(Seek::End).unwrap();
    let mut at_start = reader.cursor(Seek::Start).unwrap();
    assert!(Alarm::new().poll(&mut at_start.wait_async()).is_ready());
    let (flag, mut wait) = (Alarm::new(), at_end.wait_async());
    assert!(flag.poll(&mut wait).is_pending());
    drop(at_end.wait_async());
    appended(&log, &["b"]);
    until(|| flag.rings() > 0);
    assert!(matches!(flag.poll(&mut wait), Poll::Ready(Ok(()))));
    drop(wait);
    assert_eq!(rest(&mut at_end), ["b"]);

    let (flag, mut wait) = (Alarm::new(), at_end.wait_async());
    assert!(flag.poll(&mut wait).is_pending());
    log.truncate_to(at(1)).unwrap();
    until(|| flag.rings() > 0);
    let Poll::Ready(told) = flag.poll(&mut wait) else { panic!("it was told") };
    assert_out_of_range(told, 1);
    drop(wait);
    // The thread holds nothing: it ends with the last who does.
    let (flag, mut wait) = (Alarm::new(), reader.cursor(Seek::End).unwrap().wait_async());
    assert!(flag.poll(&mut wait).is_pending());
    drop((reader, at_end, at_start, wait));
    until(|| !names_of_threads().contains(&"stratalog-follo".to_owned()));
}

/// Nobody else looks for those who wait: the others now, and who comes later.
#[test]
fn a_task_that_panics_when_it_is_woken_does_not_end_the_looking() {
    let site = Site::memory();
    let log = site.open();
    let reader = reader(&site);
    let mut cursor = reader.cursor(Seek::Start).unwrap();
    let mut later = reader.cursor(Seek::Start).unwrap();
    let (alarm, mut waits) = (Alarm::new(), [(); 3].map(|()| cursor.wait_async()));
    let [before, panics, behind] = &mut waits;
    assert!(alarm.poll(before).is_pending());
    poll_to_panic(panics);
    assert!(alarm.poll(behind).is_pending());
    appended(&log, &["a"]);
    until(|| alarm.rings() == 2);
    assert_eq!(rest(&mut later), ["a"]);
    let (alarm, mut wait) = (Alarm::new(), later.wait_async());
    assert!(alarm.poll(&mut wait).is_pending());
    appended(&log, &["b"]);
    until(|| alarm.rings() == 1);
    assert_eq!(rest(&mut later), ["b"]);
}

fn names_of_threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    // One that has ended meanwhile has no name.
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    tasks.filter_map(|task| name(task.ok()?)).map(|name| name.trim().to_owned()).collect()
}

/// While a writer that posts nothing has the log, what the manifest calls durable is all that is
/// certain.
#[test]
fn under_a_writer_that_says_nothing_only_what_the_manifest_says_is_shown() {
    let site = Site::disk().small_segments();
    let log = site.open();
    for record in full(3) {
        log.append(record).unwrap();
    }
    log.close().unwrap();
    let log = site.reopen(log);
    appended(&log, &["unsaid"]);
    for garbage in [vec![], vec![0xff; 4096], vec![0; 100]] {
        fs::write(site.path().join("LOCK"), garbage).unwrap();
        let reader = reader(&site);
        assert_eq!(reader.high_watermark(), at(3));
        check_prefix(&reader, &full(3));
    }
    appended(&log, &["said"]);
    assert_eq!(reader(&site).high_watermark(), at(5));
    check(&log, &[&full(3)[..], &["unsaid", "said"].map(Record::new)].concat());
}

#[track_caller]
fn check_prefix(reader: &LogReader, expected: &[Record<'_>]) {
    for (entry, (offset, record)) in reader.iter(Seek::Start).unwrap().zip((0..).zip(expected)) {
        let entry = entry.unwrap();
        assert_eq!((entry.offset(), &Record::from(&entry)), (at(offset), record));
    }
}

#[test]
fn many_readers_in_many_threads() {
    let storage = Arc::new(MemoryStorage::new());
    let options = || Options::new().storage(storage.clone()).maintenance(Maintenance::Manual);
    let log = options().segment_bytes(2048).open("log").unwrap();
    let reader = options().open_reader("log").unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            let reader = reader.clone();
            scope.spawn(move || {
                let mut cursor = reader.cursor(Seek::Start).unwrap();
                for expected in records(0..500) {
                    assert!(cursor.wait(Duration::from_secs(30)).unwrap());
                    let entry = cursor.next().unwrap().unwrap();
                    assert_eq!(Record::from(entry), expected);
                }
            });
        }
        for record in records(0..500) {
            log.append(record).unwrap();
        }
    });
    fn is_shared<T: Clone + Send + Sync>() {}
    is_shared::<LogReader>();
}
