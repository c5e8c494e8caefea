//! The space that compaction takes where giving it back takes long.

use crate::support::Site;
use crate::support::compaction::Full;
use crate::support::compaction::compacting;
use crate::support::space::SpaceStorage;
use std::sync::Arc;
use std::time::Duration;
use stratalog::{Durability, Log, Record};

/// Large enough for a thread to be worth it.
const SEGMENT_BYTES: u64 = 9 << 20;

/// Sealed segments of 9 MiB of which each loses some records, and none so many that it would go
/// with another.
fn log_on(disk: &SpaceStorage) -> (Log, Full) {
    let site = compacting(Site::over(Arc::new(disk.clone())));
    let log = site.options(|options| options.segment_bytes(SEGMENT_BYTES)).open();
    let value = vec![b'v'; 64 << 10];
    for number in 0..600 {
        let key = if number % 20 == 0 { "often".to_owned() } else { number.to_string() };
        log.append_with(Durability::Written, Record::new(&value).key(key)).unwrap();
    }
    log.roll().unwrap();
    let full = Full::of(&log);
    (log, full)
}

#[test]
fn when_a_run_is_over_the_space_of_what_it_replaced_is_free() {
    let disk = SpaceStorage::new(Duration::from_millis(200));
    let (log, full) = log_on(&disk);
    let before = disk.used();
    let report = log.compact().unwrap();
    assert_eq!((disk.used(), disk.named()), (disk.named(), disk.used()));
    assert!(report.segments_written() >= 4, "{report}");
    assert_eq!(Full::of(&log), full.compacted_to(log.end_offset()));
    // An output, and what the one before it has replaced.
    let limit = before + 2 * SEGMENT_BYTES + (1 << 20);
    assert!(disk.most() <= limit, "{} bytes, {before} before", disk.most());
}

/// There is room for one output and not for two: the run waits for what it replaced.
#[test]
fn a_run_on_a_full_disk_waits_for_the_space_that_it_gives_back() {
    let disk = SpaceStorage::new(Duration::from_millis(500));
    let (log, full) = log_on(&disk);
    disk.set_free(SEGMENT_BYTES + (1 << 20));
    log.compact().unwrap();
    assert!(disk.refused() > 0, "no output was in the way of another");
    assert_eq!(disk.used(), disk.named());
    assert_eq!(Full::of(&log), full.compacted_to(log.end_offset()));
}
