//! Repairing where the segments alone have to tell what the log was, or the frames what a segment
//! was whose header is damaged.

use crate::repair_review::flip_value;
use crate::repair_review::forged;
use crate::repair_review::place;
use crate::repair_review::rebuilt;
use crate::repair_review::repair;
use crate::support::append_all;
use crate::support::at;
use crate::support::forge;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::read_rows;
use crate::support::image::tiny;
use crate::support::records;
use std::sync::Arc;
use stratalog::storage::MemoryStorage;
use stratalog::{Keep, Log, Offset, Options, Record, RepairReport, Seek};

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

/// One sector takes the header and the begin of the first record, and the next is far away.
#[test]
fn a_bad_first_sector_costs_the_first_record_alone() {
    let all = vec![Record::new(vec![b'x'; 2 << 20]); 5];
    let image = segment_of(&all, |bytes| bytes[..512].fill(0xee));
    let (left, report) = repaired(&image);
    let offsets: Vec<_> = left.into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(offsets, [at(1), at(2), at(3), at(4)], "{report}");
}
