//! Opening: the options, their limits and defaults, the lock, and what `open` reports.

use crate::support::Site;
use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::at;
use crate::support::check;
use crate::support::clock::ManualClock;
use crate::support::secs;
use crate::support::tail;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;
use stratalog::{Durability, ErrorKind, Log, Maintenance, Options, ReadMode, Seek};

/// The setters are given the constants and the values that their docs name.
#[test]
fn the_defaults_are_what_the_docs_say() {
    assert_eq!(Options::SEGMENT_BYTES, 64 << 20);
    assert_eq!(Options::MAX_BATCH_BYTES, 64 << 20);
    assert_eq!(Options::MAX_UNSYNCED_BYTES, 256 << 20);
    assert_eq!(Options::SYNC_INTERVAL, Duration::from_millis(100));
    assert_eq!(Durability::default(), Durability::Synced);
    assert_eq!(ReadMode::default(), ReadMode::Map);
    assert_eq!(Maintenance::default(), Maintenance::Background);
    let stated = Options::new()
        .create(true)
        .segment_bytes(Options::SEGMENT_BYTES)
        .max_batch_bytes(Options::MAX_BATCH_BYTES)
        .max_unsynced_bytes(Options::MAX_UNSYNCED_BYTES)
        .durability(Durability::Synced)
        .sync_interval(Options::SYNC_INTERVAL)
        .read_mode(ReadMode::Map)
        .maintenance(Maintenance::Background);
    assert_eq!(format!("{stated:?}"), format!("{:?}", Options::new()));
    assert_eq!(format!("{stated:?}"), format!("{:?}", Options::default()));
}

#[test]
fn durability_is_ordered() {
    assert!(Durability::Buffered < Durability::Written);
    assert!(Durability::Written < Durability::Synced);
}

#[test]
fn all_defaults_make_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("with").join("parents");
    let log = Log::open(&path).unwrap();
    log.append("a").unwrap();
    assert_eq!(log.durable_offset(), at(1));
    log.close().unwrap();
    assert_eq!(Log::open(&path).unwrap().end_offset(), at(1));
}

#[test]
fn numbers_out_of_their_limits_are_refused() {
    let refused: [fn(Options) -> Options; 10] = [
        |options| options.segment_bytes(0),
        |options| options.segment_bytes(255),
        |options| options.segment_bytes((2 << 30) + 1),
        |options| options.segment_bytes(u64::MAX),
        |options| options.max_batch_bytes(63),
        |options| options.max_batch_bytes((1 << 30) - 15),
        |options| options.max_batch_bytes(u64::MAX),
        |options| options.max_unsynced_bytes(0),
        |options| options.max_unsynced_bytes((4 << 30) + 1),
        |options| options.sync_interval(Duration::ZERO),
    ];
    for change in refused {
        let site = Site::memory().options(change);
        assert_kind(site.try_open(), ErrorKind::InvalidInput);
        assert_eq!(site.files(), []);
    }
}

#[test]
fn numbers_at_their_limits_work() {
    let accepted: [fn(Options) -> Options; 8] = [
        |options| options.segment_bytes(256),
        |options| options.segment_bytes(2 << 30),
        |options| options.max_batch_bytes(64),
        |options| options.max_batch_bytes((1 << 30) - 16),
        |options| options.max_unsynced_bytes(1),
        |options| options.max_unsynced_bytes(4 << 30),
        |options| options.segment_age(Duration::ZERO),
        |options| options.segment_age(Duration::MAX).sync_interval(Duration::MAX),
    ];
    for change in accepted {
        for maintenance in [Maintenance::Manual, Maintenance::Background] {
            let site = Site::disk().options(change).options(|o| o.maintenance(maintenance));
            let log = site.open();
            for number in 0..4 {
                log.append(format!("{number}")).unwrap();
                log.append_with(Durability::Buffered, format!("{number}")).unwrap();
            }
            assert_eq!(site.reopen(log).iter(Seek::Start).unwrap().count(), 8);
        }
    }
}

#[test]
fn without_create_a_log_must_be_there() {
    for site in Site::each() {
        let site = site.options(|options| options.create(false));
        assert_kind(site.try_open(), ErrorKind::Io);
        assert_eq!(site.files(), []);
        let site = site.options(|options| options.create(true));
        site.open().append("a").unwrap();
        let log = site.options(|options| options.create(false)).open();
        assert_eq!(log.end_offset(), at(1));
    }
}

#[test]
fn without_create_a_directory_alone_is_not_a_log() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), "hello").unwrap();
    assert_kind(Options::new().create(false).open(dir.path()), ErrorKind::Io);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_is_no_place_for_a_log() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert_kind(Log::open(file.path()), ErrorKind::InvalidInput);
    assert_kind(Log::open(file.path().join("below")), ErrorKind::InvalidInput);
    let missing = Options::new().create(false).open(file.path());
    assert_kind(missing, ErrorKind::InvalidInput);
}

#[test]
fn errors_name_an_absolute_path() {
    let error = Options::new().create(false).open("no/such/log").unwrap_err();
    assert!(error.path().is_some_and(Path::is_absolute));
}

#[test]
fn errors_name_the_file() {
    let site = Site::disk();
    let _log = site.open();
    let error = site.try_open().unwrap_err();
    assert!(error.path().unwrap().starts_with(site.path()));
}

#[test]
fn files_of_others_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), "hello").unwrap();
    fs::write(dir.path().join("0-1.log"), "not ours").unwrap();
    let log = Log::open(dir.path()).unwrap();
    append_all(&log, &tail(3));
    log.roll().unwrap();
    drop(log);
    check(&Log::open(dir.path()).unwrap(), &tail(3));
    assert_eq!(fs::read(dir.path().join("notes.txt")).unwrap(), b"hello");
    assert_eq!(fs::read(dir.path().join("0-1.log")).unwrap(), b"not ours");
}

#[test]
fn one_writer_a_directory() {
    for site in Site::each() {
        let log = site.open();
        assert_kind(site.try_open(), ErrorKind::Locked);
        let other = log.clone();
        drop(log);
        assert_kind(site.try_open(), ErrorKind::Locked);
        other.append("still open").unwrap();
        drop(other);
        assert_eq!(site.open().end_offset(), at(1));
    }
}

#[test]
fn closing_frees_the_lock_under_living_handles_and_cursors() {
    for site in Site::each() {
        let log = site.open();
        append_all(&log, &tail(3));
        let mut cursor = log.cursor(Seek::Start).unwrap();
        assert!(cursor.next().unwrap().is_some());
        log.close().unwrap();
        let next = site.open();
        next.append("more").unwrap();
        check(&log, &tail(3));
        assert_eq!(next.end_offset(), at(4));
    }
}

#[test]
fn dropping_frees_the_lock_under_living_cursors_and_futures() {
    for site in Site::each() {
        let log = site.open();
        append_all(&log, &tail(3));
        let mut cursor = log.cursor(Seek::End).unwrap();
        let wait = cursor.wait_async();
        let iter = log.iter(Seek::Start).unwrap();
        drop(log);
        assert_eq!(site.open().end_offset(), at(3));
        assert_eq!(iter.count(), 3);
        drop((cursor, wait));
    }
}

#[test]
fn an_open_that_fails_frees_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("MANIFEST"), "not a manifest").unwrap();
    assert_kind(Log::open(dir.path()), ErrorKind::Corrupt);
    assert_kind(Log::open(dir.path()), ErrorKind::Corrupt);
}

#[test]
fn of_many_openers_one_gets_the_log() {
    let site = Site::memory();
    let logs: Vec<_> = thread::scope(|scope| {
        let opener = |_| scope.spawn(|| site.try_open());
        let openers: Vec<_> = (0..8).map(opener).collect();
        openers.into_iter().map(|opener| opener.join().unwrap()).collect()
    });
    assert_eq!(logs.iter().filter(|log| log.is_ok()).count(), 1);
    for error in logs.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::Locked);
    }
}

#[test]
fn closing_again_gives_the_same() {
    let log = Site::memory().open();
    append_all(&log, &tail(3));
    let other = log.clone();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| log.close().unwrap());
        }
    });
    other.close().unwrap();
    check(&other, &tail(3));
}

#[test]
fn closing_and_dropping_sync_what_was_buffered() {
    let close: fn(Log) = |log| log.close().unwrap();
    for end in [close, drop] {
        for maintenance in [Maintenance::Manual, Maintenance::Background] {
            let site = Site::disk().options(|options| options.maintenance(maintenance));
            let log = site.open();
            log.append_batch_with(Durability::Buffered, tail(9)).unwrap();
            end(log);
            let log = site.open();
            assert!(log.recovery().is_clean());
            assert_eq!([log.written_offset(), log.durable_offset()], [at(9); 2]);
            check(&log, &tail(9));
        }
    }
}

#[test]
fn a_close_without_news_leaves_the_files_as_they_were() {
    let site = Site::memory();
    let log = site.open();
    append_all(&log, &tail(3));
    log.close().unwrap();
    let before = site.files();
    for _ in 0..3 {
        site.open().close().unwrap();
    }
    assert_eq!(site.files(), before);
}

#[test]
fn open_reports_what_it_found() {
    for site in Site::each() {
        let log = site.open();
        assert!(log.recovery().is_new() && log.recovery().is_clean());
        append_all(&log, &tail(3));
        let log = site.reopen(log);
        assert!(!log.recovery().is_new() && log.recovery().is_clean());
        assert_eq!(log.recovery().scanned_segments(), 0);
        append_all(&log, &tail(1));
        let site = site.kill();
        let killed = site.open();
        assert!(!killed.recovery().is_new() && !killed.recovery().is_clean());
        assert_eq!(killed.recovery().scanned_segments(), 1);
        assert!(killed.recovery().scanned_bytes() > 0);
        assert_eq!(killed.recovery().cut_at(), None);
        assert_eq!(killed.end_offset(), at(4));
    }
}

#[test]
fn a_killed_process_loses_only_what_was_not_written() {
    for site in Site::each().map(Site::small_segments) {
        let log = site.open();
        append_all(&log, &tail(40));
        log.append_batch_with(Durability::Written, tail(10)).unwrap();
        log.append_batch_with(Durability::Buffered, tail(5)).unwrap();
        let killed = site.kill();
        check(&killed.open(), &[tail(40), tail(10)].concat());
        log.close().unwrap();
        site.check(&[tail(40), tail(10), tail(5)].concat());
    }
}

#[test]
fn a_killed_process_leaves_what_a_cursor_saw() {
    let site = Site::memory().options(|options| options.durability(Durability::Written));
    let log = site.open();
    append_all(&log, &tail(10));
    assert_eq!(log.iter(Seek::Start).unwrap().count(), 10);
    check(&site.kill().open(), &tail(10));
}

#[test]
fn the_options_may_differ_from_open_to_open() {
    let clock = ManualClock::at(secs(1000));
    let mut site = Site::memory().clock(&clock);
    let mut expected = Vec::new();
    for (nth, bytes) in (0_u64..).zip([1 << 20, 256, 4096, 256, 2 << 30]) {
        let mode = if nth % 2 == 0 { ReadMode::Map } else { ReadMode::Pread };
        site = site.options(|options| options.segment_bytes(bytes).read_mode(mode));
        let log = site.open();
        append_all(&log, &tail(30));
        expected.extend(tail(30));
        check(&log, &expected);
        log.close().unwrap();
    }
    site.check(&expected);
}

#[test]
fn a_log_is_shown_in_short() {
    let log = Site::memory().open();
    append_all(&log, &tail(5));
    log.delete_before(at(2)).unwrap();
    let expected = "Log { path: \"/log\", start_offset: Offset(2), end_offset: Offset(5), .. }";
    assert_eq!(format!("{log:?}"), expected);
}
