//! Repairing where the segments alone have to tell what the log was, or the frames what a segment
//! was whose header is damaged.

use crate::repair_review::flip_value;
use crate::repair_review::forged;
use crate::repair_review::place;
use crate::repair_review::rebuilt;
use crate::repair_review::repair;
use crate::support::append_all;
use crate::support::at;
use crate::support::compaction::pair;
use crate::support::forge;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::read_rows;
use crate::support::image::tiny;
use crate::support::records;
use crate::support::replica::Wire;
use std::sync::Arc;
use std::time::Duration;
use stratalog::storage::MemoryStorage;
use stratalog::{Compaction, Keep, Log, Offset, Options, Record, RepairReport, Seek};

/// The files of a log, without its manifest.
fn left_of(storage: &MemoryStorage, log: Log) -> Image {
    log.close().unwrap();
    drop(log);
    let mut image = Image::of(storage);
    image.0.remove("MANIFEST");
    image
}

fn tells(report: &RepairReport, offset: u64) -> bool {
    report.found().damage().iter().any(|one| one.offsets.contains(&at(offset)))
}

/// The frames behind the truncation are no part of the log any more, and the one before is lost.
#[test]
fn a_loss_in_front_of_a_truncation_is_told() {
    let storage = MemoryStorage::new();
    let options = tiny(Arc::new(storage.clone())).segment_bytes(1 << 20);
    let log = options.open(DIR).unwrap();
    append_all(&log, &records(0..20));
    log.truncate_to(at(10)).unwrap();
    append_all(&log, &records(20..23));
    let mut image = left_of(&storage, log);
    assert!(flip_value(&mut image, 9));
    for (keep, end, left) in [(Keep::Readable, 13, 12), (Keep::Prefix, 9, 9)] {
        let storage = place(&image);
        let report = repair(&storage, keep);
        assert!(tells(&report, 9) && !tells(&report, 10), "{report}");
        let log = tiny(storage).open(DIR).unwrap();
        assert_eq!(log.end_offset(), at(end), "{report}");
        assert_eq!(read_rows(&log).unwrap().len(), left, "{report}");
    }
}

/// The header of the frame behind it says that it was durable.
#[test]
fn a_durable_record_that_is_lost_at_the_end_is_told() {
    let storage = Arc::new(MemoryStorage::new());
    let log = tiny(storage.clone()).segment_bytes(1 << 20).open(DIR).unwrap();
    append_all(&log, &records(0..20));
    // The process was killed.
    let mut image = Image::of(&*storage);
    image.0.remove("MANIFEST");
    assert!(flip_value(&mut image, 18) && flip_value(&mut image, 19));
    let storage = place(&image);
    let report = repair(&storage, Keep::Readable);
    assert!(tells(&report, 18), "{report}");
    let next = tiny(storage).open(DIR).unwrap().append("next").unwrap();
    assert!(next >= at(19), "{next}: {report}");
}

/// No segment goes that far, whatever the header of a frame says.
#[test]
fn a_mark_that_lies_ends_no_segment_behind_where_one_can_end() {
    let (name, mut bytes) = forged(1, 0, 2);
    bytes[72 + 48 + 41] ^= 1;
    bytes.extend(forge::frame(1 << 40, b"x"));
    let (offsets, next, report) = rebuilt([(name, bytes)]);
    assert_eq!((offsets, next), (vec![0], u32::MAX.into()), "{report}");
    assert!(tells(&report, 1), "{report}");
}

/// A log of some records in one segment, closed, with these bytes of it changed.
fn segment_of(all: &[Record<'_>], change: impl FnOnce(&mut [u8])) -> Image {
    let storage = MemoryStorage::new();
    let log = Options::new().storage(Arc::new(storage.clone())).open(DIR).unwrap();
    append_all(&log, all);
    log.close().unwrap();
    drop(log);
    let mut image = Image::of(&storage);
    let name = image.last();
    change(image.bytes(&name));
    image
}

/// The offsets that a repair leaves, and the values.
fn repaired(image: &Image) -> (Vec<(Offset, Vec<u8>)>, RepairReport) {
    let storage = place(image);
    let report = repair(&storage, Keep::Readable);
    let log = Options::new().storage(storage).open(DIR).unwrap();
    let entries = log.iter(Seek::Start).unwrap().map(Result::unwrap);
    let left = entries.map(|entry| (entry.offset(), entry.value().to_vec())).collect();
    (left, report)
}

/// With and without the index, which has the seed too.
fn each_way(image: &Image) -> [Image; 2] {
    let mut without = image.clone();
    without.0.retain(|name, _| !name.ends_with(".index"));
    assert!(without.0.len() < image.0.len(), "there was an index");
    [image.clone(), without]
}

/// The first record is longer than what is read of bodies to find a seed.
#[test]
fn a_damaged_seed_in_front_of_a_large_record_costs_nothing() {
    let mut all = vec![Record::new(vec![b'x'; 17 << 20])];
    all.extend(records(1..20));
    let image = segment_of(&all, |bytes| bytes[12] ^= 1);
    for image in each_way(&image) {
        let (left, report) = repaired(&image);
        assert_eq!(left.len(), 20, "{report}");
    }
}

/// One sector takes the header and the begin of the first record, and others are far away, or one
/// is longer than what is read of bodies in vain.
#[test]
fn a_bad_first_sector_costs_the_first_record_alone() {
    for lens in [[2 << 20, 1, 1], [1 << 10, 17 << 20, 1]] {
        let all = lens.map(|len| Record::new(vec![b'x'; len]));
        let image = segment_of(&all, |bytes| bytes[..512].fill(0xee));
        for image in each_way(&image) {
            let (left, report) = repaired(&image);
            let offsets: Vec<_> = left.into_iter().map(|(offset, _)| offset).collect();
            assert_eq!(offsets, [at(1), at(2)], "{report}");
        }
    }
}

/// A value with frames of another segment, and with some on their way to another log.
fn nested() -> Record<'static> {
    // In front of it there are the header of a frame, flags, a length: the next 5 bytes align it.
    let mut value = vec![b'v'; 5];
    value.extend(forge::frame(1, b"evil"));
    value.extend(forge::frame(2, b"evil"));
    let wire = [Wire::values(1, 0, &[b"evil"]), Wire::values(2, 0, &[b"evil"])];
    value.extend(wire.iter().flat_map(Wire::bytes));
    Record::new(value)
}

#[test]
fn frames_in_a_value_do_not_become_records() {
    let mut all = vec![nested()];
    all.extend(records(1..20));
    let whole = segment_of(&all, |_| ());
    let expected = repaired(&whole).0;
    assert_eq!(expected.len(), 20);
    let seed = segment_of(&all, |bytes| bytes[12] ^= 1);
    let header = segment_of(&all, |bytes| bytes[..72].fill(0));
    // And what says that they are a value.
    let frame = segment_of(&all, |bytes| bytes[..112].fill(0));
    for (image, from) in [(&whole, 0), (&seed, 0), (&header, 0), (&frame, 1)] {
        for image in each_way(image) {
            let (left, report) = repaired(&image);
            assert!(left == expected[from..], "{from}: {} are left, {report}", left.len());
        }
    }
}

/// Where the frames of a segment begin.
fn places(bytes: &[u8]) -> Vec<usize> {
    let (mut place, mut places) = (72, Vec::new());
    while place + 40 <= bytes.len() && bytes[place + 36] == 1 {
        let len = u32::from_le_bytes(bytes[place + 4..place + 8].try_into().unwrap());
        places.push(place);
        place = (place + 40 + usize::try_from(len).unwrap()).next_multiple_of(8);
    }
    places
}

/// The seed and one frame of a segment without an index are damaged.
#[test]
fn frames_tell_the_seed_of_their_own_segment_alone() {
    const BASE: usize = 8;
    const TIME: usize = 16;
    const BODY: usize = 40;
    let plain = || Record::new("plain");
    let cases = [
        ("there is but one", vec![plain()], None),
        ("the first lies about its time", vec![plain(), plain(), plain()], Some((0, TIME))),
        ("the last holds others", vec![plain(), plain(), plain(), nested()], Some((0, BASE))),
        ("it is damaged", vec![plain(), plain(), plain(), nested()], Some((3, BODY))),
    ];
    for (what, all, damaged) in cases {
        let mut image = segment_of(&all, |bytes| {
            bytes[12] ^= 1;
            if let Some((nth, at)) = damaged {
                bytes[places(bytes)[nth] + at] ^= 1;
            }
        });
        image.0.retain(|name, _| !name.ends_with(".index"));
        let (left, report) = repaired(&image);
        let lost = damaged.map(|(nth, _)| nth as u64);
        let expected: Vec<_> = (0..all.len() as u64).filter(|nth| Some(*nth) != lost).collect();
        let left: Vec<_> = left.into_iter().map(|(offset, _)| offset.get()).collect();
        assert_eq!(left, expected, "{what}: {report}");
    }
}

/// A run was writing, and the power cut took a page of what it had written.
#[test]
fn a_torn_output_does_not_take_the_place_of_what_it_was_made_of() {
    let (name, mut output) = forged(4, 0, 20);
    output[72 + 6 * 48 + 41] ^= 1;
    let files = [forged(1, 0, 10), forged(2, 10, 10), (name, output)];
    let (offsets, next, report) = rebuilt(files);
    assert_eq!((offsets, next), ((0..20).collect(), 20), "{report}");
}

fn has_note(report: &RepairReport, what: &str) -> bool {
    report.found().notes().iter().any(|note| note.contains(what))
}

/// Nothing says how far it went.
#[test]
fn a_last_segment_of_which_compaction_left_nothing_is_in_the_notes() {
    let storage = MemoryStorage::new();
    let compaction = Compaction::new().tombstone_retention(Duration::ZERO);
    let log = tiny(Arc::new(storage.clone())).compaction(compaction).open(DIR).unwrap();
    for number in 0..5 {
        log.append(pair("key", number)).unwrap();
    }
    log.append(Record::tombstone("key")).unwrap();
    log.roll().unwrap();
    log.compact().unwrap();
    assert_eq!(log.iter(Seek::Start).unwrap().count(), 0);
    let image = left_of(&storage, log);
    let report = repair(&place(&image), Keep::Readable);
    assert!(has_note(&report, "of which compaction left nothing"), "{report}");
}

/// A segment of which compaction left nothing does not say where it ends, so it may hide a file
/// that is missing.
#[test]
fn what_may_be_missing_behind_a_hole_is_in_the_notes() {
    let (offsets, next, report) = rebuilt([forged(1, 0, 10), forged(5, 10, 0), forged(4, 30, 10)]);
    assert_eq!((offsets, next), ((0..10).chain(30..40).collect(), 40), "{report}");
    assert!(has_note(&report, "from 10 to 30"), "{report}");
    // It was begun before the one that is named, so it is not what went up to there.
    let (offsets, next, report) = rebuilt([forged(1, 0, 10), forged(2, 10, 0), forged(4, 30, 10)]);
    assert_eq!((offsets, next), ((0..10).chain(30..40).collect(), 40), "{report}");
    assert!(tells(&report, 10) && tells(&report, 29), "{report}");
}

/// And if there had been something in it, it is lost.
#[test]
fn a_segment_whose_frames_are_all_damaged_is_no_hole() {
    let (name, mut bytes) = forged(5, 10, 1);
    bytes[72 + 41] ^= 1;
    let (offsets, next, report) = rebuilt([forged(1, 0, 10), (name, bytes), forged(4, 30, 10)]);
    assert_eq!((offsets, next), ((0..10).chain(30..40).collect(), 40), "{report}");
    assert!(tells(&report, 10) && tells(&report, 29), "{report}");
}

/// The segment behind it says where it ended.
#[test]
fn a_segment_of_which_compaction_left_nothing_is_no_loss() {
    let storage = MemoryStorage::new();
    let compaction = Compaction::new().tombstone_retention(Duration::ZERO);
    let log = tiny(Arc::new(storage.clone())).compaction(compaction).open(DIR).unwrap();
    // So large that compaction leaves it alone.
    log.append(vec![b'x'; 600]).unwrap();
    log.roll().unwrap();
    for number in 0..5 {
        log.append(pair("key", number)).unwrap();
    }
    log.append(Record::tombstone("key")).unwrap();
    log.roll().unwrap();
    log.compact().unwrap();
    append_all(&log, &records(7..10));
    let rows = read_rows(&log).unwrap();
    assert_eq!(rows.len(), 4);
    let image = left_of(&storage, log);
    let holes = image.segments().into_iter().filter(|name| image.0[name].len() == 72);
    let holes: Vec<_> = holes.collect();
    assert_eq!(holes.len(), 1, "{image:?}");
    for keep in [Keep::Readable, Keep::Prefix] {
        let storage = place(&image);
        let report = repair(&storage, keep);
        assert!(!tells(&report, 5) && has_note(&report, "from 1 to 7"), "{report}");
        let log = tiny(storage).open(DIR).unwrap();
        assert_eq!(read_rows(&log).unwrap(), rows, "{report}");
        assert_eq!(log.end_offset(), at(10), "{report}");
    }
    // A file of which the disk has kept the length alone was none.
    let mut zeros = image.clone();
    zeros.bytes(&holes[0]).resize(500, 0);
    let report = repair(&place(&zeros), Keep::Readable);
    assert!(tells(&report, 5), "{report}");
}

/// No segment has so many offsets, with or without records.
#[test]
fn a_segment_without_records_goes_no_farther_than_one_can() {
    let far = 3 << 32;
    for (hole, next) in [(5, 4), (3, 4)] {
        let files = [forged(1, 0, 10), forged(hole, 10, 0), forged(next, far, 2)];
        let (offsets, next, report) = rebuilt(files);
        assert_eq!((offsets, next), ((0..10).chain([far, far + 1]).collect(), far + 2), "{report}");
        assert!(tells(&report, far - 1), "{report}");
    }
}
