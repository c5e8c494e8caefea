//! A `LogReader` whose reads fail, whose process has no files left, or whose writer's notice lies.

use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::assert_out_of_range;
use crate::support::at;
use crate::support::fault::Fault;
use crate::support::fault::Strike;
use crate::support::faulty::FaultyStorage;
use crate::support::full;
use crate::support::image::DIR;
use crate::support::medium::Crash;
use crate::support::medium::Numbers;
use crate::support::records;
use crate::support::site::Site;
use crate::support::until;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use stratalog::storage::{Clock, MemoryStorage, OpenMode, Storage};
use stratalog::{
    EntryBuf, ErrorKind, LogReader, Maintenance, Options, Record, Result, Seek, Timestamp,
};

/// All that a reader shows; every error but those that are meant is a failure.
fn read(reader: &LogReader) -> Result<Vec<EntryBuf>> {
    reader.iter(Seek::Start)?.collect()
}

fn are(found: &[EntryBuf], expected: &[Record<'_>]) -> bool {
    found.iter().map(Record::from).eq(expected.iter().cloned())
}

/// Whatever call fails, and however, a reader gets the error or the right records, and at the next
/// call, when nothing fails, all of them.
#[test]
fn any_call_may_fail_once() {
    let machine = FaultyStorage::memory();
    let options = || Options::new().storage(machine.process()).maintenance(Maintenance::Manual);
    let mut expected = records(0..5);
    expected.extend(full(4));
    let log = options().segment_bytes(1024).open(DIR).unwrap();
    append_all(&log, &expected);
    drop(log);
    let strikes = [
        Strike::Error(io::ErrorKind::Other),
        Strike::Error(io::ErrorKind::OutOfMemory),
        Strike::Error(io::ErrorKind::Interrupted),
        Strike::Short,
    ];
    let mut struck = 0;
    for strike in strikes {
        for nth in 1.. {
            machine.inject(Fault::on_call(strike).nth(nth));
            let opened = options().open_reader(DIR);
            if let Ok(reader) = &opened {
                let mut cursor = reader.cursor(Seek::Start);
                let mut found = Vec::new();
                let mut failed = None;
                while let Ok(cursor) = &mut cursor {
                    match cursor.next() {
                        Ok(Some(entry)) => found.push(entry.to_buf()),
                        Ok(None) => break,
                        // It stays where it is, and goes on.
                        Err(error) => assert!(failed.replace(error).is_none()),
                    }
                }
                assert!(are(&found, &expected) || cursor.is_err(), "{strike:?} {nth}: {failed:?}");
            }
            let strikes = machine.strikes();
            machine.heal();
            if strikes == struck {
                assert!(nth > 10);
                break;
            }
            struck = strikes;
            let reader = options().open_reader(DIR).unwrap();
            assert!(are(&read(&reader).unwrap(), &expected));
        }
    }
    assert!(struck > 60, "{struck}");
}

/// What a crash leaves is shown as the next writer finds it, or less.
#[test]
fn what_is_shown_after_a_crash_is_confirmed_by_recovery() {
    let mut shown_in_all = 0;
    for seed in 0..150 {
        let machine = FaultyStorage::memory();
        let options = || Options::new().storage(machine.process()).maintenance(Maintenance::Manual);
        let mut numbers = Numbers(seed);
        let log = options().segment_bytes(1024).open(DIR).unwrap();
        for record in records(0..numbers.below(120)) {
            let level = match numbers.below(8) {
                0 => stratalog::Durability::Synced,
                1..4 => stratalog::Durability::Written,
                _ => stratalog::Durability::Buffered,
            };
            log.append_with(level, record).unwrap();
            if numbers.below(12) == 0 {
                // Rolls that no manifest states follow.
                log.maintain().unwrap();
            }
            if numbers.below(40) == 0 {
                log.truncate_to(at(log.end_offset().get() / 2)).unwrap();
            }
        }
        let machine = machine.crash(match seed % 3 {
            0 => Crash::KeepAll,
            1 => Crash::Prefix(seed),
            _ => Crash::Random(seed),
        });
        drop(log);
        let options = || Options::new().storage(machine.process()).maintenance(Maintenance::Manual);
        let Ok(reader) = options().open_reader(DIR) else {
            assert!(options().open(DIR).unwrap().end_offset() == at(0));
            continue;
        };
        let shown = read(&reader).unwrap();
        let mut cursor = reader.cursor(Seek::End).unwrap();
        let log = options().open(DIR).unwrap();
        let kept: Vec<_> = log.iter(Seek::Start).unwrap().map(Result::unwrap).collect();
        assert!(kept.starts_with(&shown), "{seed}: {} shown, {} kept", shown.len(), kept.len());
        shown_in_all += shown.len();
        // This machine keeps no notice. What was shown is there all the same.
        assert!(cursor.next().unwrap().is_none());
        assert_eq!(reader.end_offset(), at(shown.len() as u64));
    }
    assert!(shown_in_all > 1000, "{shown_in_all}");
}

/// Notices that lie: what is shown is right as far as it goes, an error says so, and it ends.
#[test]
fn a_notice_that_lies_shows_nothing_that_is_not_there() {
    let storage = Arc::new(MemoryStorage::new());
    let options = || Options::new().storage(storage.clone()).maintenance(Maintenance::Manual);
    let log = options().segment_bytes(1024).open("/log").unwrap();
    let expected = records(0..60);
    append_all(&log, &expected);
    let lock = storage.open("/log/LOCK".as_ref(), OpenMode::Write).unwrap();
    let mut sound = vec![0; 448];
    assert_eq!(lock.read_at(&mut sound, 0).unwrap(), 448);
    let at_slot = if u64_at(&sound, 40) > u64_at(&sound, 296) { 0 } else { 256 };
    let mut numbers = Numbers(3);
    let fields = [16, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112];
    let huge = [u64::MAX, u64::MAX / 2, 1 << 40, 61, 59, 1, 0];
    for _ in 0..400 {
        let mut bytes = sound.clone();
        for _ in 0..=numbers.below(3) {
            let field = fields[usize::try_from(numbers.below(12)).unwrap()];
            let value = huge[usize::try_from(numbers.below(7)).unwrap()];
            bytes[at_slot + field..][..8].copy_from_slice(&value.to_le_bytes());
            if (72..=88).contains(&field) {
                // All marks, so that they agree.
                for field in [64, 72, 88] {
                    bytes[at_slot + field..][..8].copy_from_slice(&value.to_le_bytes());
                }
            }
        }
        bytes[at_slot + 10] = 1 + u8::try_from(numbers.below(3)).unwrap();
        seal(&mut bytes[at_slot..at_slot + 192]);
        lock.write_at(&bytes, 0).unwrap();
        let reader = options().open_reader("/log").unwrap();
        let mut found = 0;
        for (entry, expected) in reader.iter(Seek::Start).unwrap().zip(&expected) {
            match entry {
                Ok(entry) => assert_eq!(Record::from(&entry), *expected),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                    break;
                }
            }
            found += 1;
        }
        assert!(reader.high_watermark() <= at(60), "{}", reader.high_watermark());
        assert_eq!(at(found), reader.high_watermark());
    }
    // The next true one is believed again.
    log.append("true").unwrap();
    assert_eq!(read(&options().open_reader("/log").unwrap()).unwrap().len(), 61);
}

/// A reader that follows when the notice begins to lie, and when it says the truth again.
#[test]
fn records_that_a_writer_says_are_there_and_are_not_are_an_error() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let site = Site::over(Arc::clone(&storage));
    let log = site.open();
    append_all(&log, &records(0..10));
    let reader = site.open_reader().unwrap();
    let mut cursor = reader.cursor(Seek::Offset(at(5))).unwrap();
    let lock = storage.open(&site.path().join("LOCK"), OpenMode::Write).unwrap();
    let mut bytes = vec![0; 448];
    lock.read_at(&mut bytes, 0).unwrap();
    let sound = bytes.clone();
    for slot in [0, 256] {
        for field in [64, 72, 80, 88] {
            bytes[slot + field..][..8].copy_from_slice(&20_u64.to_le_bytes());
        }
        seal(&mut bytes[slot..slot + 192]);
    }
    lock.write_at(&bytes, 0).unwrap();
    reader.refresh().unwrap();
    for offset in 5..10 {
        assert_eq!(cursor.next().unwrap().unwrap().offset(), at(offset));
    }
    let error = cursor.next().unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::Corrupt, Some(at(10))));
    assert_kind(cursor.wait(Duration::from_secs(30)), ErrorKind::Corrupt);
    assert_eq!(reader.high_watermark(), at(10));
    lock.write_at(&sound, 0).unwrap();
    assert!(cursor.next().unwrap().is_none());
    log.append("true").unwrap();
    assert_eq!(cursor.next().unwrap().unwrap().value(), b"true");
}

/// A sealed segment whose bytes change under a reader, as when its file is used for another one.
#[test]
fn a_file_that_is_used_for_something_else_is_looked_up_anew() {
    let site = Site::disk().small_segments();
    let log = site.open();
    append_all(&log, &full(6));
    let reader = site.open_reader().unwrap();
    let mut cursor = reader.cursor(Seek::Start).unwrap();
    cursor.next().unwrap().unwrap();
    let name = site.files().into_iter().find(|(name, _)| name.ends_with(".log")).unwrap().0;
    let held = std::fs::OpenOptions::new().write(true).open(site.path().join(name)).unwrap();
    log.delete_before(at(4)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&held, &[0xaa; 4096], 0).unwrap();
    let error = loop {
        match cursor.next() {
            Ok(Some(entry)) => assert_eq!(Record::from(entry), full(6)[1]),
            Ok(None) => panic!("it was not told"),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), error.offset()), (ErrorKind::OutOfRange, Some(at(4))));
}

/// As above, when nothing else makes the reader look: its clock stands still.
#[test]
fn an_error_makes_a_reader_look_again() {
    let site = Site::disk().small_segments();
    let log = site.open();
    append_all(&log, &full(6));
    let reader = Options::new().clock(Arc::new(Still)).open_reader(site.path()).unwrap();
    let mut cursor = reader.cursor(Seek::Start).unwrap();
    cursor.next().unwrap().unwrap();
    log.delete_before(at(4)).unwrap();
    assert_out_of_range(cursor.next().map(drop), 4);
}

#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::ZERO
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// A writer that died before it posted what it had written.
#[test]
fn what_a_writer_has_not_said_is_found_when_it_is_gone() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let site = Site::over(Arc::clone(&storage));
    let log = site.open();
    append_all(&log, &records(0..5));
    let reader = site.open_reader().unwrap();
    let lock = storage.open(&site.path().join("LOCK"), OpenMode::Write).unwrap();
    let mut bytes = vec![0; 448];
    lock.read_at(&mut bytes, 0).unwrap();
    append_all(&log, &records(5..10));
    log.close().unwrap();
    lock.write_at(&bytes, 0).unwrap();
    reader.refresh().unwrap();
    until(|| reader.refresh().is_ok() && reader.high_watermark() == at(10));
    assert!(are(&read(&reader).unwrap(), &records(0..10)));
}

/// A writer that is between the manifest of a truncation and the notice of it.
#[test]
fn marks_of_another_epoch_than_the_manifest_are_not_believed() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let site = Site::over(Arc::clone(&storage));
    let log = site.open();
    append_all(&log, &records(0..10));
    let following = site.open_reader().unwrap();
    let mut behind = following.cursor(Seek::End).unwrap();
    let lock = storage.open(&site.path().join("LOCK"), OpenMode::Write).unwrap();
    let mut bytes = vec![0; 448];
    lock.read_at(&mut bytes, 0).unwrap();
    log.truncate_to(at(5)).unwrap();
    lock.write_at(&bytes, 0).unwrap();
    let reader = site.open_reader().unwrap();
    let mut cursor = reader.cursor(Seek::Start).unwrap();
    for record in records(0..5) {
        assert_eq!(Record::from(cursor.next().unwrap().unwrap()), record);
    }
    assert!(cursor.next().unwrap().is_none());
    assert!(behind.next().is_ok());
    log.append("said").unwrap();
    assert_eq!(cursor.next().unwrap().unwrap().value(), b"said");
    assert_out_of_range(behind.next().map(drop), 5);
}

/// A truncation that no notice tells of: who may have been cut off is told so.
#[test]
fn what_nobody_knows_of_a_truncation_is_taken_for_the_worst() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let site = Site::over(Arc::clone(&storage));
    let log = site.open();
    append_all(&log, &records(0..10));
    let reader = site.open_reader().unwrap();
    let mut cursor = reader.cursor(Seek::Offset(at(8))).unwrap();
    log.truncate_to(at(3)).unwrap();
    append_all(&log, &records(0..10));
    log.close().unwrap();
    let lock = storage.open(&site.path().join("LOCK"), OpenMode::Write).unwrap();
    lock.set_len(0).unwrap();
    let log = site.open();
    assert_out_of_range(reader.refresh().and_then(|()| cursor.next().map(drop)), 0);
    cursor.seek(Seek::Start).unwrap();
    assert_eq!(reader.high_watermark(), log.high_watermark());
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Gives the bytes of a notice the checksum that fits.
fn seal(notice: &mut [u8]) {
    let covered = [&notice[..12], &notice[16..]].concat();
    let crc = crc32fast::hash(&covered);
    notice[12..16].copy_from_slice(&crc.to_le_bytes());
}
