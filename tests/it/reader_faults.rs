//! A `LogReader` whose reads fail, whose process has no files left, or whose writer's notice lies.

use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::assert_out_of_range;
use crate::support::at;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::fault::Strike;
use crate::support::faulty::FaultyStorage;
use crate::support::full;
use crate::support::gate::GateStorage;
use crate::support::hook::HookStorage;
use crate::support::image::DIR;
use crate::support::medium::Crash;
use crate::support::medium::Numbers;
use crate::support::records;
use crate::support::site::Site;
use crate::support::task::Alarm;
use crate::support::until;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use stratalog::storage::{Clock, MemoryStorage, OpenMode, Storage};
use stratalog::{
    Durability, EntryBuf, ErrorKind, Log, LogReader, Maintenance, Options, Record, Result, Seek,
    Timestamp,
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
                0 => Durability::Synced,
                1..4 => Durability::Written,
                _ => Durability::Buffered,
            };
            log.append_with(level, record).unwrap();
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

/// The thread that posts late is the one that syncs, and a sync may take long: it posts before. The
/// clock stands still, so that the second append follows closely upon the first.
#[test]
fn what_was_to_be_posted_does_not_wait_for_a_sync() {
    let storage = GateStorage::default();
    let site = Site::over(Arc::new(storage.clone())).options(|options| {
        let options = options.maintenance(Maintenance::Background).clock(Arc::new(Still));
        options.durability(Durability::Written).sync_interval(Duration::from_secs(3600))
    });
    let log = site.open();
    let reader = site.open_reader().unwrap();
    append_all(&log, &records(0..2));
    let held = storage.hold();
    let mut synced = log.wait_async(at(1), Durability::Synced);
    assert!(Alarm::new().poll(&mut synced).is_pending());
    storage.wait_for_sync();
    reader.refresh().unwrap();
    assert_eq!((log.durable_offset(), reader.high_watermark()), (at(0), at(2)));
    drop(held);
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

/// A writer that was killed, and a write-back that failed: what was shown is gone, and nothing but
/// zeros, or the end of the file, is where it was. It is told as a truncation, though the next
/// writer had nothing to cut and has appended more since.
#[test]
fn bytes_that_were_shown_and_lost_are_told_as_truncated() {
    let storage = HookStorage::default();
    let site = Site::over(Arc::new(storage.clone()));
    let site = site.options(|options| options.durability(Durability::Written));
    let log = site.open();
    append_all(&log, &records(0..10));
    let reader = site.open_reader().unwrap();
    let mut cursors = [7, 8, 10].map(|at| reader.cursor(Seek::Offset(self::at(at))).unwrap());
    lose_the_last_three(&site, &storage, log);
    let log = site.open();
    assert_eq!((log.recovery().cut_at(), log.end_offset()), (None, at(7)));
    append_all(&log, &records(23..43));
    reader.refresh().unwrap();
    assert_eq!(Record::from(cursors[0].next().unwrap().unwrap()), records(23..24)[0]);
    assert_out_of_range(cursors[1].next().map(drop), 7);
    assert_out_of_range(cursors[2].next().map(drop), 7);
    assert!(are(&read(&reader).unwrap()[7..], &records(23..43)));
}

/// As above, and the reader has looked while that writer was opening the log.
#[test]
fn what_was_believed_of_one_writer_is_looked_at_anew_in_the_next() {
    let storage = HookStorage::default();
    let site = Site::over(Arc::new(storage.clone()));
    let site = site.options(|options| options.durability(Durability::Written));
    let log = site.open();
    append_all(&log, &records(0..10));
    let reader = site.open_reader().unwrap();
    let mut cursor = reader.cursor(Seek::End).unwrap();
    lose_the_last_three(&site, &storage, log);
    let looking = reader.clone();
    storage.before(Op::Open, ".log", move || looking.refresh().unwrap());
    let log = site.open();
    assert!(storage.has_acted());
    append_all(&log, &records(23..43));
    reader.refresh().unwrap();
    assert_eq!(reader.high_watermark(), log.high_watermark());
    assert_out_of_range(cursor.next().map(drop), 7);
    assert!(are(&read(&reader).unwrap()[7..], &records(23..43)));
}

/// As above, and it has looked at everything, when what is lost could still be seen.
#[test]
fn what_was_believed_while_a_log_was_opened_is_looked_at_anew_when_it_is_open() {
    let storage = HookStorage::default();
    let site = Site::over(Arc::new(storage.clone()));
    let site = site.options(|options| options.durability(Durability::Written));
    let log = site.open();
    append_all(&log, &full(1));
    log.roll().unwrap();
    let log = site.reopen(log);
    append_all(&log, &records(0..10));
    let reader = site.open_reader().unwrap();
    let mut cursor = reader.cursor(Seek::End).unwrap();
    let mut left = files(&site, &storage);
    let first = left.iter_mut().find(|(name, _)| name.ends_with("-00000001.log")).unwrap();
    first.1[200] ^= 1;
    log.close().unwrap();
    put_back(&site, &storage, &left);
    let (stumbling, lossy, path) = (reader.clone(), storage.clone(), site.path().to_owned());
    storage.before(Op::Open, ".log", move || {
        let mut cursor = stumbling.cursor(Seek::Start).unwrap();
        assert_kind(cursor.next().map(drop), ErrorKind::Corrupt);
        assert_eq!(stumbling.high_watermark(), at(11));
        let (name, bytes) = left.iter().rfind(|(name, _)| name.ends_with(".log")).unwrap();
        let kept = behind(bytes, 7);
        let file = lossy.open(&path.join(name), OpenMode::Write).unwrap();
        file.write_at(&vec![0; bytes.len() - kept], kept as u64).unwrap();
    });
    let log = site.open();
    assert!(storage.has_acted());
    assert_eq!(log.end_offset(), at(8));
    append_all(&log, &records(23..43));
    reader.refresh().unwrap();
    assert_eq!(reader.high_watermark(), log.high_watermark());
    assert_out_of_range(cursor.next().map(drop), 8);
    cursor.seek(Seek::Offset(at(8))).unwrap();
    for record in records(23..43) {
        assert_eq!(Record::from(cursor.next().unwrap().unwrap()), record);
    }
}

/// While a writer is opening the log all that was shown still is, though the manifest states less:
/// also for who stumbles over damage then and makes the reader look at everything.
#[test]
fn a_writer_that_opens_the_log_takes_nothing_back() {
    let storage = HookStorage::default();
    let site = Site::over(Arc::new(storage.clone())).small_segments();
    let site = site.options(|options| options.durability(Durability::Written));
    let log = site.open();
    append_all(&log, &full(3));
    let log = site.reopen(log);
    append_all(&log, &records(0..5));
    let reader = site.open_reader().unwrap();
    let mut at_end = reader.cursor(Seek::End).unwrap();
    let mut left = files(&site, &storage);
    let first = left.iter_mut().find(|(name, _)| name.ends_with("-00000001.log")).unwrap();
    first.1[200] ^= 1;
    log.close().unwrap();
    put_back(&site, &storage, &left);
    let stumbling = reader.clone();
    storage.before(Op::Open, ".log", move || {
        let mut cursor = stumbling.cursor(Seek::Start).unwrap();
        assert_kind(cursor.next().map(drop), ErrorKind::Corrupt);
        assert_eq!(stumbling.high_watermark(), at(8));
    });
    let log = site.open();
    assert!(storage.has_acted());
    assert!(at_end.next().unwrap().is_none());
    append_all(&log, &records(5..6));
    assert_eq!(Record::from(at_end.next().unwrap().unwrap()), records(5..6)[0]);
}

/// A writer that was killed right after it had said what it has written, and a write-back that
/// failed: who hears of those records only now is shown what the next writer will find.
#[test]
fn what_a_dead_writer_said_and_is_not_there_is_not_waited_for() {
    let storage = HookStorage::default();
    let site = Site::over(Arc::new(storage.clone()));
    let site = site.options(|options| options.durability(Durability::Written));
    let log = site.open();
    append_all(&log, &records(0..7));
    let reader = site.open_reader().unwrap();
    let mut cursor = reader.cursor(Seek::End).unwrap();
    append_all(&log, &records(7..10));
    lose_the_last_three(&site, &storage, log);
    assert!(cursor.next().unwrap().is_none());
    assert!(!cursor.wait(Duration::from_millis(300)).unwrap());
    assert!(cursor.next().unwrap().is_none());
    assert_eq!(reader.high_watermark(), at(7));
    let log = site.open();
    append_all(&log, &records(23..24));
    assert_eq!(Record::from(cursor.next().unwrap().unwrap()), records(23..24)[0]);
}

/// As above, and the notice is not that of the manifest: the writer died between the two.
#[test]
fn what_a_dead_writer_cut_and_did_not_say_is_seen() {
    let storage = HookStorage::default();
    let site = Site::over(Arc::new(storage.clone()));
    let site = site.options(|options| options.durability(Durability::Written));
    let log = site.open();
    append_all(&log, &records(0..7));
    let reader = site.open_reader().unwrap();
    let mut cursor = reader.cursor(Seek::Offset(at(5))).unwrap();
    append_all(&log, &records(7..10));
    // A change of the manifest, so that the notice makes the reader look at it.
    log.roll().unwrap();
    let said = files(&site, &storage).into_iter().find(|(name, _)| name == "LOCK").unwrap();
    log.truncate_to(at(3)).unwrap();
    append_all(&log, &records(23..26));
    let left = files(&site, &storage);
    log.close().unwrap();
    put_back(&site, &storage, &left);
    put_back(&site, &storage, &[said]);
    until(|| reader.refresh().is_ok() && reader.high_watermark() == at(6));
    assert_out_of_range(cursor.next().map(drop), 0);
    cursor.seek(Seek::Offset(at(3))).unwrap();
    assert_eq!(Record::from(cursor.next().unwrap().unwrap()), records(23..24)[0]);
}

/// Leaves of a log of ten records what a kill leaves, but of its segment only seven.
fn lose_the_last_three(site: &Site, storage: &dyn Storage, log: Log) {
    let mut left = files(site, storage);
    let segment = &mut left.iter_mut().find(|(name, _)| name.ends_with(".log")).unwrap().1;
    let kept = behind(segment, 7);
    segment[kept..].fill(0);
    log.close().unwrap();
    put_back(site, storage, &left);
}

/// The position behind so many frames.
fn behind(segment: &[u8], frames: usize) -> usize {
    (0..frames).fold(72, |position, _| {
        let len = u32::from_le_bytes(segment[position + 4..][..4].try_into().unwrap());
        position + (40 + usize::try_from(len).unwrap()).next_multiple_of(8)
    })
}

/// The files of a log, with their names.
fn files(site: &Site, storage: &dyn Storage) -> Vec<(String, Vec<u8>)> {
    let read = |(name, size): (String, u64)| {
        let mut bytes = vec![0; usize::try_from(size).unwrap()];
        let file = storage.open(&site.path().join(&name), OpenMode::Read).unwrap();
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
        (name, bytes)
    };
    site.files().into_iter().map(read).collect()
}

/// Gives the files the bytes that they had.
fn put_back(site: &Site, storage: &dyn Storage, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        let file = storage.open(&site.path().join(name), OpenMode::Write).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        assert_eq!(file.write_at(bytes, 0).unwrap(), bytes.len());
    }
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
