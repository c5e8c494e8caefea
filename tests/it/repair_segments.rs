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
use stratalog::{Keep, Log, RepairReport};

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
