//! Damage, everywhere: each byte of a small log is changed, each file cut off at each length, and
//! whatever is read then is what was written, or an error that says where the damage is.

use crate::support::append_all;
use crate::support::at;
use crate::support::forge;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::TINY;
use crate::support::image::read_rows;
use crate::support::image::tiny;
use crate::support::medium::Numbers;
use crate::support::model::Row;
use crate::support::records;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use stratalog::storage::{FsStorage, MemoryStorage};
use stratalog::{Error, ErrorKind, Log, Maintenance, Options, Position, ReadMode, Record};
use stratalog::{Offset, Seek, Timestamp};

#[test]
fn each_changed_byte_of_a_closed_log_is_an_error_or_makes_no_difference() {
    let (whole, rows) = closed();
    let mut seen = 0;
    change_each_byte(&whole, |image, name, position| {
        // What is not covered by a checksum is not read either.
        if !check_found(image, &rows, rows.len(), name, position) {
            seen += 1;
        }
    });
    assert!(seen > 1000, "only {seen} changes were noticed");
}

/// Here the last records that were synced may be taken for a torn tail: nothing written behind them
/// says that they were durable. All the others may not.
#[test]
fn each_changed_byte_of_a_log_that_was_not_closed_is_an_error_or_cuts_the_last_frame() {
    let (whole, rows) = unclosed();
    change_each_byte(&whole, |image, name, position| {
        check_found(image, &rows, rows.len() - 1, name, position);
    });
}

#[test]
fn each_file_cut_off_at_each_length_is_an_error_or_makes_no_difference() {
    let (whole, rows) = closed();
    cut_off_each_file(&whole, |image, name, len| {
        check_found(image, &rows, rows.len(), name, len);
    });
    let (whole, rows) = unclosed();
    let (last, sizes) = (whole.last(), frame_ends(&whole));
    cut_off_each_file(&whole, |image, name, len| {
        // A file that ends between two frames does not tell that there were more.
        let lost = if name == last { sizes.iter().filter(|end| len < **end).count() } else { 0 };
        check_found(image, &rows, rows.len() - lost, name, len);
    });
}

#[test]
fn bytes_behind_the_end_of_a_sealed_segment_make_no_difference() {
    let (whole, rows) = closed();
    for name in whole.segments() {
        let mut image = whole.clone();
        let again = image.bytes(&name)[72..].to_vec();
        image.bytes(&name).extend(again);
        assert_eq!(read_rows(&image.open().unwrap()).unwrap(), rows);
    }
}

#[test]
fn sectors_that_became_zeros_or_another_ones_are_an_error() {
    let (whole, rows) = closed();
    for name in whole.segments() {
        let len = whole.0[&name].len();
        for from in (0..len).step_by(64) {
            let sector = from..len.min(from + 64);
            let mut image = whole.clone();
            image.bytes(&name)[sector.clone()].fill(0);
            check_found(&image, &rows, rows.len(), &name, from);
            let mut image = whole.clone();
            let other = image.bytes(&whole.segments()[0])[..sector.len()].to_vec();
            image.bytes(&name)[sector].copy_from_slice(&other);
            check_found(&image, &rows, rows.len(), &name, from);
        }
    }
}

#[test]
fn frames_that_changed_places_or_came_twice_are_an_error() {
    let mut frames = Vec::new();
    for offset in 0..4 {
        frames.push(forge::frame(offset, format!("value {offset}").as_bytes()));
    }
    let image = |order: [usize; 4]| {
        let mut bytes = forge::segment(1, 0);
        order.iter().for_each(|nth| bytes.extend(&frames[*nth]));
        let byte_len = bytes.len() as u64;
        let row = forge::Row { id: 1, base: 0, end: 4, byte_len, state: forge::SEALED };
        let mut image = Image::default();
        image.0.insert(forge::segment_name(1, 0), bytes);
        image.0.insert("MANIFEST".into(), forge::manifest(forge::CLOSED, 0, &[row]));
        image
    };
    let rows = read_rows(&image([0, 1, 2, 3]).open().unwrap()).unwrap();
    assert_eq!(rows.len(), 4);
    for order in [[0, 2, 1, 3], [0, 1, 1, 3], [3, 2, 1, 0], [0, 0, 0, 0], [1, 2, 3, 3]] {
        let error = read_rows(&image(order).open().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{order:?}");
        assert!(error.position().is_some() && error.offset().is_some(), "{order:?}");
    }
}

// The index.

#[test]
fn indexes_that_are_missing_or_damaged_or_exchanged_make_no_difference() {
    let (whole, rows) = large();
    let indexes = whole.indexes();
    assert!(indexes.len() > 3);
    let check = |image: &Image, what: &str| {
        let log = image.open().unwrap();
        assert_eq!(read_rows(&log).unwrap(), rows, "{what}");
        check_seeks(&log, &rows, what);
        log.close().unwrap();
    };
    let mut image = whole.clone();
    image.0.retain(|name, _| !name.ends_with(".index"));
    check(&image, "missing");
    let mut numbers = Numbers(7);
    let mut garbage = |bytes: &mut Vec<u8>| {
        bytes.iter_mut().for_each(|byte| *byte = u8::try_from(numbers.below(256)).unwrap());
    };
    for (nth, name) in indexes.iter().enumerate() {
        let mut image = whole.clone();
        garbage(image.bytes(name));
        check(&image, "garbage");
        let mut image = whole.clone();
        image.bytes(name).clear();
        check(&image, "empty");
        let mut image = whole.clone();
        image.bytes(name).resize(1 << 20, 0);
        check(&image, "zeros behind it");
        let mut image = whole.clone();
        let other = whole.0[&indexes[(nth + 1) % indexes.len()]].clone();
        *image.bytes(name) = other;
        check(&image, "of another segment");
    }
}

/// A checksum that fits does not make an index true.
#[test]
fn an_index_that_lies_makes_no_difference() {
    let (whole, rows) = large();
    for name in whole.indexes() {
        for entry in (48..whole.0[&name].len()).step_by(16) {
            let changes = [(0, 1), (0, 200), (4, 8), (4, 4000), (8, 1), (8, 255)];
            for (field, change) in changes.into_iter().chain([(0, MINUS_1), (8, MINUS_1)]) {
                let mut image = whole.clone();
                let bytes = image.bytes(&name);
                let at = entry + field;
                let old = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
                bytes[at..at + 4].copy_from_slice(&old.wrapping_add(change).to_le_bytes());
                let crc = crc32fast::hash(&bytes[16..]);
                bytes[12..16].copy_from_slice(&crc.to_le_bytes());
                let log = image.open().unwrap();
                let what = format!("{name}, byte {at} plus {change}");
                check_seeks(&log, &rows, &what);
                assert_eq!(read_rows(&log).unwrap(), rows, "{what}");
            }
        }
    }
}

const MINUS_1: u32 = u32::MAX;

fn check_seeks(log: &Log, rows: &[Row], what: &str) {
    for (offset, row) in rows.iter().enumerate().step_by(3) {
        let offset = at(offset as u64);
        let entry = log.get(offset).unwrap().unwrap();
        assert_eq!(Row::from(&entry), *row, "{what}: offset {offset}");
        let first = rows.partition_point(|other| other.appended_at < row.appended_at);
        let cursor = log.cursor(Seek::Time(row.appended_at)).unwrap();
        assert_eq!(cursor.offset(), at(first as u64), "{what}: time {}", row.appended_at);
    }
    let late = log.cursor(Seek::Time(Timestamp::MAX)).unwrap();
    assert_eq!(late.offset(), log.end_offset());
}

// A cursor at damage.

#[test]
fn a_cursor_stays_at_damage_and_goes_on_where_the_error_says() {
    let (whole, rows) = closed();
    let mut met = 0;
    for name in whole.segments() {
        for position in (72..whole.0[&name].len()).step_by(8) {
            let mut image = whole.clone();
            image.bytes(&name)[position] ^= 0x10;
            let Ok(log) = image.open() else { continue };
            met += u32::from(read_around(&log, &rows));
        }
    }
    assert!(met > 100, "{met} cursors met damage");
}

/// A write that went to the wrong place; the seed of its segment gives it away.
#[test]
fn frames_of_another_segment_are_not_taken_for_life_behind_damage() {
    let (whole, rows) = closed();
    let segments = whole.segments();
    let mut pasted = 0;
    for (name, other) in segments.iter().zip(&segments[1..]) {
        for position in (72..whole.0[name].len()).step_by(8) {
            let frame = &whole.0[other][72..];
            let len = frame.len().min(whole.0[name].len() - position).min(120);
            let mut image = whole.clone();
            image.bytes(name)[position..position + len].copy_from_slice(&frame[..len]);
            pasted += u32::from(read_around(&image.open().unwrap(), &rows));
        }
    }
    assert!(pasted > 100, "{pasted} frames were noticed");
}

/// Reads everything that can be read, from the front and from the back; tells whether there was
/// damage.
fn read_around(log: &Log, rows: &[Row]) -> bool {
    let mut cursor = log.cursor(Seek::Start).unwrap();
    let (mut expected, mut lost, mut since) = (0, Vec::new(), 0);
    loop {
        let place = cursor.offset();
        match cursor.next() {
            Ok(None) => break,
            Ok(Some(entry)) => {
                assert_eq!(entry.offset(), at(expected));
                assert_eq!(Row::from(entry), rows[usize::try_from(expected).unwrap()]);
                expected += 1;
            }
            Err(error) => {
                let again = cursor.next().unwrap_err();
                assert_eq!(facts(&again), facts(&error));
                assert_eq!(cursor.offset(), place, "an error moved the cursor");
                // What it read last is still what is before it.
                if place.get() > since {
                    let before = cursor.prev().unwrap().unwrap();
                    assert_eq!(before.offset() + 1, place);
                    assert_eq!(Row::from(before), rows[usize::try_from(expected - 1).unwrap()]);
                }
                let behind = error.readable_from().unwrap();
                assert!(behind > place && behind <= log.end_offset());
                cursor.seek(Seek::Offset(behind)).unwrap();
                lost.extend(place.get()..behind.get());
                (expected, since) = (behind.get(), behind.get());
            }
        }
    }
    assert_eq!(expected, rows.len() as u64, "the end was not reached");
    for (offset, row) in (0..).zip(rows) {
        match log.get(at(offset)) {
            Ok(entry) => {
                assert_eq!(Row::from(&entry.unwrap()), *row);
                assert!(!lost.contains(&offset), "{offset} was skipped");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                assert!(lost.contains(&offset), "{offset} was read before: {error}");
            }
        }
    }
    !lost.is_empty()
}

// The two ways of reading.

#[test]
fn both_read_modes_give_the_same_records_and_errors() {
    let (whole, _) = closed();
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("log");
    whole.put(&FsStorage::new(), &place);
    for name in whole.segments() {
        let path = place.join(&name);
        let len = whole.0[&name].len();
        for position in (0..len).step_by(5) {
            let mut bytes = whole.0[&name].clone();
            bytes[position] ^= 0x41;
            check_both_modes(&place, &path, &bytes);
        }
        for len in (0..len).step_by(29) {
            check_both_modes(&place, &path, &whole.0[&name][..len]);
        }
        fs::write(&path, &whole.0[&name]).unwrap();
    }
}

fn check_both_modes(place: &Path, path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    let outcomes = [ReadMode::Map, ReadMode::Pread].map(|mode| {
        let options = Options::new().maintenance(Maintenance::Manual).segment_bytes(TINY);
        let log = options.read_mode(mode).open(place).map_err(|error| facts(&error))?;
        let read: Vec<_> = (0..log.end_offset().get())
            .map(|offset| match log.get(at(offset)) {
                Ok(entry) => Ok(Row::from(&entry.unwrap())),
                Err(error) => Err(facts(&error)),
            })
            .collect();
        let all = read_rows(&log).map_err(|error| facts(&error));
        Ok::<_, Facts>((read, all))
    });
    assert_eq!(outcomes[0], outcomes[1]);
}

// Words of this file.

type Facts = (ErrorKind, Option<String>, Option<Position>, Option<Offset>, Option<Offset>);

fn facts(error: &Error) -> Facts {
    let path = error.path().map(|path| path.display().to_string());
    (error.kind(), path, error.position(), error.offset(), error.readable_from())
}

fn change_each_byte(whole: &Image, mut check: impl FnMut(&Image, &str, usize)) {
    for (name, bytes) in &whole.0 {
        if name == "MANIFEST.next" {
            continue;
        }
        for position in 0..bytes.len() {
            let one_bit = 1 << (position % 8);
            for mask in [one_bit, 0xff] {
                let mut image = whole.clone();
                image.bytes(name)[position] ^= mask;
                check(&image, name, position);
            }
        }
    }
}

fn cut_off_each_file(whole: &Image, mut check: impl FnMut(&Image, &str, usize)) {
    for (name, bytes) in &whole.0 {
        let step = if name == "MANIFEST.next" { 512 } else { 1 };
        for len in (0..bytes.len()).step_by(step) {
            let mut image = whole.clone();
            image.bytes(name).truncate(len);
            check(&image, name, len);
        }
    }
}

/// Opening and reading gives an error that says where, or the records, of which those from `sure`
/// on may be cut; tells whether all is there.
#[track_caller]
fn check_found(image: &Image, rows: &[Row], sure: usize, name: &str, position: usize) -> bool {
    match image.open().and_then(|log| read_rows(&log)) {
        Ok(found) => {
            assert!(found.len() >= sure, "{name}, {position}: {} records", found.len());
            assert_eq!(found, rows[..found.len()], "{name}, byte {position}");
            found.len() == rows.len()
        }
        Err(error) => {
            let kinds = [ErrorKind::Corrupt, ErrorKind::UnsupportedVersion];
            assert!(kinds.contains(&error.kind()), "{name}, {position}: {error:?}");
            assert_eq!(error.path(), Some(Path::new(DIR).join(name).as_path()), "{error}");
            assert!(error.position().is_some(), "{error}");
            false
        }
    }
}

/// A log of several segments with all that a record can have, closed.
fn closed() -> (Image, Vec<Row>) {
    let storage = MemoryStorage::new();
    let log = filled(&storage);
    let rows = read_rows(&log).unwrap();
    log.close().unwrap();
    let image = Image::of(&storage);
    assert!(image.segments().len() > 3 && image.indexes().len() > 3);
    (image, rows)
}

/// The same, of a process that was killed, with a frame for each record in the last segment.
fn unclosed() -> (Image, Vec<Row>) {
    let storage = MemoryStorage::new();
    let log = filled(&storage);
    log.roll().unwrap();
    append_all(&log, &records(20..24));
    let rows = read_rows(&log).unwrap();
    let mut image = Image::of(&storage);
    // The zeros written ahead say nothing.
    let last = image.last();
    let ends = frame_ends(&image);
    image.bytes(&last).truncate(*ends.last().unwrap());
    (image, rows)
}

fn filled(storage: &MemoryStorage) -> Log {
    let log = tiny(Arc::new(storage.clone())).open(DIR).unwrap();
    append_all(&log, &records(0..12));
    log.append_batch(records(12..18)).unwrap();
    log.append(Record::new("e".repeat(600)).key("larger than a segment")).unwrap();
    append_all(&log, &records(18..20));
    log
}

/// Segments with several index entries each.
fn large() -> (Image, Vec<Row>) {
    let storage = MemoryStorage::new();
    let clock = crate::support::clock::ManualClock::at(Timestamp::from_secs(1));
    let options = tiny(Arc::new(storage.clone())).segment_bytes(30_000);
    let log = options.clock(Arc::new(clock.clone())).open(DIR).unwrap();
    for nth in 0..60 {
        clock.advance(std::time::Duration::from_micros(nth % 3));
        log.append(format!("{nth:02000}")).unwrap();
    }
    let rows = read_rows(&log).unwrap();
    log.close().unwrap();
    (Image::of(&storage), rows)
}

/// Where the frames of the last segment end.
fn frame_ends(image: &Image) -> Vec<usize> {
    let bytes = &image.0[&image.last()];
    let (mut ends, mut at) = (Vec::new(), 72);
    while at + 40 <= bytes.len() && bytes[at + 36] == 1 {
        let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
        at += (40 + usize::try_from(len).unwrap()).next_multiple_of(8);
        ends.push(at);
    }
    ends
}
