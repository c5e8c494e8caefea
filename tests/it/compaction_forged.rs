//! Compaction of logs whose manifest lies about what compaction knows, with a checksum that fits:
//! it is refused, or the last record of each key stays, whatever is believed.

use crate::support::at;
use crate::support::clock::ManualClock;
use crate::support::compaction::Full;
use crate::support::compaction::fill;
use crate::support::compaction::pair;
use crate::support::forge;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::tiny;
use crate::support::secs;
use std::ops::ControlFlow;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stratalog::storage::MemoryStorage;
use stratalog::{Compaction, Durability, ErrorKind, Log, Options, Record, Result};

const HEADER_LEN: usize = 80;
const ROW_LEN: usize = 96;

/// Where the fields are, in the manifest or in a row.
const NEXT_ID: usize = 40;
const EPOCH: usize = 56;
const COMPACTED_TO: usize = 64;
const FIRST_AT: usize = 32;
const RECORD_COUNT: usize = 48;
const COMPACTED_AT: usize = 64;
const TOMBSTONE_COUNT: usize = 72;

fn options(storage: MemoryStorage) -> Options {
    let compaction = Compaction::new().tombstone_retention(Duration::ZERO);
    tiny(Arc::new(storage)).compaction(compaction)
}

/// A closed log, a part of which has been compacted.
fn log() -> (Image, Full, usize) {
    let storage = MemoryStorage::new();
    let log = options(storage.clone()).open(DIR).unwrap();
    fill(&log, 60, 25);
    log.compact().unwrap();
    fill(&log, 60, 25);
    let full = Full::of(&log);
    log.close().unwrap();
    (Image::of(&storage), full, log.segments().len())
}

/// Opens the log with another number in its manifest, and has it compacted twice.
fn compact(image: &Image, place: usize, number: u64) -> Result<Full> {
    let mut image = image.clone();
    let manifest = image.bytes("MANIFEST");
    manifest[place..place + 8].copy_from_slice(&number.to_le_bytes());
    *manifest = forge::resealed(manifest.clone());
    let log = options(image.storage()).open(DIR)?;
    drop((log.stats(), log.segments()));
    log.maintain()?;
    log.compact()?;
    log.append("more")?;
    log.close()?;
    Ok(Full::of(&log).below(at(120)))
}

/// What is shown was there before, and what a key has, it still has.
#[track_caller]
fn check(story: &str, before: &Full, after: &Result<Full>) {
    let after = match after {
        Ok(after) => after,
        Err(error) => {
            let kinds = [ErrorKind::Corrupt, ErrorKind::UnsupportedVersion, ErrorKind::OutOfRange];
            return assert!(kinds.contains(&error.kind()), "{story}: {error}");
        }
    };
    for offset in after.offsets() {
        assert_eq!(after.get(offset), before.get(offset), "{story}");
    }
    for (key, offset) in before.table() {
        assert!(after.get(offset).is_some(), "{story}: {key:?} of {offset} is gone");
    }
}

#[test]
fn a_manifest_that_lies_about_the_whole_is_refused_or_does_no_harm() {
    let (image, before, _) = log();
    for number in [0, 1, 30, 59, 60, 61, 119, 120, 121, u64::MAX] {
        let after = compact(&image, COMPACTED_TO, number);
        assert_eq!(after.is_ok(), number <= 120, "{number}");
        check(&format!("compacted to {number}"), &before, &after);
    }
    for number in [0, 1, 1 << 40, u64::MAX - 1, u64::MAX] {
        check(&format!("next id {number}"), &before, &compact(&image, NEXT_ID, number));
    }
}

#[test]
fn rows_that_lie_are_refused_or_do_no_harm() {
    let (image, before, rows) = log();
    let numbers = [0, 1, 2, 3, 5, 10, 60, 120, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX];
    for row in 0..rows {
        for field in [COMPACTED_AT, TOMBSTONE_COUNT, RECORD_COUNT] {
            for number in numbers {
                let place = HEADER_LEN + row * ROW_LEN + field;
                let after = compact(&image, place, number);
                check(&format!("row {row}, field {field}, {number}"), &before, &after);
            }
        }
    }
}

/// A segment whose records were appended, by what their frames say, one before the other. A row for
/// what is left of it would contradict itself, and the log could not be opened any more.
#[test]
fn a_segment_whose_times_fall_is_left_aside() {
    /// A record with a key, later than its frame by some microseconds.
    fn keyed(key: u8, later: u8) -> Vec<u8> {
        vec![1 | 1 << 4, later, 1, key, 1, b'v']
    }
    // The time of each frame, and how much later its record is.
    let times = [[(90, 1), (80, 1), (70, 1), (60, 1)], [(50, 90), (60, 1), (70, 1), (80, 1)]];
    for times in times {
        let mut bytes = forge::segment(1, 0);
        for (base, ((at, later), key)) in (0..).zip(times.into_iter().zip(*b"abcc")) {
            bytes.extend(forge::frame_at(at, base, 1, &keyed(key, later)));
        }
        let byte_len = bytes.len() as u64;
        let row = forge::Row { id: 1, base: 0, end: 4, byte_len, state: forge::SEALED };
        let mut image = Image::default();
        image.0.insert("MANIFEST".into(), forge::manifest(forge::CLOSED, 0, &[row]));
        image.0.insert(forge::segment_name(1, 0), bytes);
        let storage = image.storage();
        let log = options(storage.clone()).open(DIR).unwrap();
        let before = Full::of(&log);
        let report = log.compact().unwrap();
        log.close().unwrap();
        let log = options(storage).open(DIR).unwrap();
        assert_eq!(Full::of(&log), before, "{times:?}");
        let aside = report.left_aside();
        assert_eq!((aside.len(), aside[0].error().kind()), (1, ErrorKind::Corrupt), "{times:?}");
    }
}

/// A frame that says it was appended before the records in front of it is not taken over as it is:
/// the next run could not read the output.
#[test]
fn a_large_frame_that_begins_too_early_does_no_harm() {
    const LATER: u8 = 90;
    let keyed = |key: u8| [&[1 | 1 << 4, LATER, 1, key, 200, 1][..], &[b'v'; 200]].concat();
    let frame = |at, base, keys: Range<u8>| {
        let body: Vec<u8> = keys.clone().flat_map(keyed).collect();
        forge::frame_at(at, base, u32::from(keys.end - keys.start), &body)
    };
    for loses in [true, false] {
        // The first is too large to be taken over, and loses a record; the others are put into
        // frames that begin when they were appended.
        let mut bytes = forge::segment(1, 0);
        bytes.extend(frame(50, 0, 0..55));
        bytes.extend(frame(60, 55, 55..75));
        bytes.extend(frame(70, 75, if loses { 60..61 } else { 80..81 }));
        bytes.extend(frame(80, 76, 0..1));
        let byte_len = bytes.len() as u64;
        let row = forge::Row { id: 1, base: 0, end: 77, byte_len, state: forge::SEALED };
        let mut image = Image::default();
        image.0.insert("MANIFEST".into(), forge::manifest(forge::CLOSED, 0, &[row]));
        image.0.insert(forge::segment_name(1, 0), bytes);
        let log = options(image.storage()).open(DIR).unwrap();
        let full = Full::of(&log);
        assert!(log.compact().unwrap().left_aside().is_empty());
        assert_eq!(Full::of(&log), full.compacted_to(at(77)));
        // A run that reads the output, and takes one more record from it.
        log.append(Record::new("v").key(&[1])).unwrap();
        log.roll().unwrap();
        let full = Full::of(&log);
        let report = log.compact().unwrap();
        assert_eq!((report.records_removed(), report.left_aside().len()), (1, 0));
        assert_eq!(Full::of(&log), full.compacted_to(at(78)));
    }
}

/// The same in two segments whose times, as the manifest has them, let them be merged.
#[test]
fn a_segment_that_begins_too_early_is_not_merged() {
    const LATER: u8 = 90;
    let frame = |at, base, keys: Range<u8>| {
        let keyed = |key| [&[1 | 1 << 4, LATER, 1, key, 200, 1][..], &[b'v'; 200]].concat();
        let body: Vec<u8> = keys.clone().flat_map(keyed).collect();
        forge::frame_at(at, base, u32::from(keys.end - keys.start), &body)
    };
    let first = [forge::segment(1, 0), frame(70, 0, 0..20)].concat();
    let second = [forge::segment(2, 20), frame(60, 20, 20..40), frame(80, 40, 0..1)].concat();
    let row = |id, base, end, bytes: &[u8]| forge::Row {
        id,
        base,
        end,
        byte_len: bytes.len() as u64,
        state: forge::SEALED,
    };
    let rows = [row(1, 0, 20, &first), row(2, 20, 41, &second)];
    let mut image = Image::default();
    image.0.insert("MANIFEST".into(), forge::manifest(forge::CLOSED, 0, &rows));
    image.0.insert(forge::segment_name(1, 0), first);
    image.0.insert(forge::segment_name(2, 20), second);
    let log = options(image.storage()).segment_bytes(1 << 20).open(DIR).unwrap();
    // A run that reads what the one before has written.
    for number in [1, 2] {
        let full = Full::of(&log);
        let report = log.compact().unwrap();
        let aside: Vec<_> = report.left_aside().iter().map(|aside| aside.offsets()).collect();
        assert_eq!(aside, [at(20)..at(41)], "{report}");
        assert_eq!((report.records_removed(), Full::of(&log).table()), (1, full.table()));
        log.append(Record::new("v").key(&[number])).unwrap();
        log.roll().unwrap();
    }
}

/// What a crash cut off was compacted, and had tombstones, if the manifest is to be believed: what
/// is left of that has to be a manifest that can be read.
#[test]
fn what_is_said_of_records_that_are_cut_off_is_cut_as_well() {
    const WRITTEN: u32 = 2;
    let frames = [0, 1, 2].map(|base| forge::frame(base, b"v"));
    let mut bytes = forge::segment(1, 0);
    bytes.extend(frames.concat());
    let byte_len = bytes.len() as u64;
    bytes.truncate(bytes.len() - frames[2].len());
    let row = forge::Row { id: 1, base: 0, end: 3, byte_len, state: WRITTEN };
    let mut manifest = forge::manifest(forge::OPEN, 0, &[row]);
    for place in [COMPACTED_TO, HEADER_LEN + COMPACTED_AT, HEADER_LEN + TOMBSTONE_COUNT] {
        manifest[place] = 3;
    }
    let mut image = Image::default();
    image.0.insert("MANIFEST".into(), forge::resealed(manifest));
    image.0.insert(forge::segment_name(1, 0), bytes);
    let storage = image.storage();
    for nth in 0..2 {
        let log = options(storage.clone()).open(DIR).unwrap();
        assert_eq!((log.end_offset(), log.stats().compacted_to), (at(2), at(2)));
        assert_eq!(log.recovery().cut_at(), Some(at(2)).filter(|_| nth == 0));
        log.close().unwrap();
    }
}

/// Every run comes further, although it gets no memory for records that are not said to be there.
#[test]
fn a_row_without_records_that_has_some_is_compacted_in_the_end() {
    let keyed = |number: u8| vec![1, 1, number, 1, b'v'];
    let mut bytes = forge::segment(1, 0);
    for base in 0..100 {
        bytes.extend(forge::frame_of(base, 1, &keyed(u8::try_from(base % 50).unwrap())));
    }
    let byte_len = bytes.len() as u64;
    let row = forge::Row { id: 1, base: 0, end: 100, byte_len, state: forge::SEALED };
    let mut manifest = forge::manifest(forge::CLOSED, 0, &[row]);
    manifest[HEADER_LEN + FIRST_AT..HEADER_LEN + RECORD_COUNT + 8].fill(0);
    let mut image = Image::default();
    image.0.insert("MANIFEST".into(), forge::resealed(manifest));
    image.0.insert(forge::segment_name(1, 0), bytes);
    let log = options(image.storage()).open(DIR).unwrap();
    let expected = Full::of(&log).compacted_to(at(100));
    let mut last = at(0);
    while log.stats().compacted_to < at(100) {
        let report = log.compact().unwrap();
        assert!(report.compacted_to() > last, "{report}");
        last = report.compacted_to();
    }
    // In runs that had room for a few keys each.
    assert!(expected.is_between(&expected, &Full::of(&log)));
}

/// A segment that was covered once, and is rewritten in part, is no younger for that.
#[test]
fn the_time_of_tombstones_goes_on_when_their_segment_is_rewritten_in_part() {
    let hour = Duration::from_secs(3600);
    let clock = ManualClock::at(secs(1000));
    let storage = MemoryStorage::new();
    let compaction = Compaction::new().tombstone_retention(hour).map_bytes(1 << 10);
    let options = |storage| {
        let options = tiny(Arc::new(storage)).segment_bytes(1 << 20);
        options.compaction(compaction.clone()).clock(Arc::new(clock.clone()))
    };
    let log = options(storage.clone()).open(DIR).unwrap();
    log.append(Record::tombstone("gone")).unwrap();
    for number in 1..100 {
        // The first keys again and again.
        log.append(pair(&(number % 3 * number / 2).to_string(), number)).unwrap();
    }
    log.roll().unwrap();
    log.close().unwrap();
    let mut image = Image::of(&storage);
    let manifest = image.bytes("MANIFEST");
    for (field, number) in [(COMPACTED_AT, 1_000_000_000_u64), (TOMBSTONE_COUNT, 1)] {
        let place = HEADER_LEN + field;
        manifest[place..place + 8].copy_from_slice(&number.to_le_bytes());
    }
    *manifest = forge::resealed(manifest.clone());
    let log = options(image.storage()).open(DIR).unwrap();
    clock.advance(hour / 2);
    let mut runs = 1;
    while log.compact().unwrap().more() {
        runs += 1;
    }
    assert!(runs > 1 && log.get(at(0)).unwrap().is_some());
    clock.advance(hour / 2);
    log.compact().unwrap();
    assert!(log.get(at(0)).unwrap().is_none());
}

/// As often as can be counted. The next truncation is seen by a run all the same, which removes
/// nothing for the sake of records that are cut off.
#[test]
fn a_truncation_of_a_log_that_was_truncated_very_often_ends_a_run() {
    let cell: Arc<Mutex<Option<Log>>> = Arc::default();
    let inner = Arc::clone(&cell);
    let compaction = Compaction::new().progress(move |done| {
        let mut log = inner.lock().unwrap();
        if done.bytes_read() > 700_000
            && let Some(log) = log.take()
        {
            log.truncate_to(at(500)).unwrap();
        }
        ControlFlow::Continue(())
    });
    let storage = MemoryStorage::new();
    let options = |storage| {
        let options = tiny(Arc::new(storage)).segment_bytes(1 << 20);
        options.compaction(compaction.clone())
    };
    let log = options(storage.clone()).open(DIR).unwrap();
    for number in 0..1000_u64 {
        let record = Record::new(vec![b'v'; 1000]).key((number % 500).to_string());
        log.append_with(Durability::Buffered, record).unwrap();
        if number % 500 == 499 {
            log.roll().unwrap();
        }
    }
    log.close().unwrap();
    let mut image = Image::of(&storage);
    let manifest = image.bytes("MANIFEST");
    manifest[EPOCH..EPOCH + 8].fill(0xff);
    *manifest = forge::resealed(manifest.clone());
    let log = options(image.storage()).open(DIR).unwrap();
    *cell.lock().unwrap() = Some(log.clone());
    let report = log.compact().unwrap();
    assert_eq!(Full::of(&log).len(), 500);
    assert!(report.is_stopped() && cell.lock().unwrap().is_none());
}
