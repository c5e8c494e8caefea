//! What compaction makes of frames that are large enough to be rewritten as they are: they lose
//! records at their begin, in the middle and at their end, and may have lost some before.

use crate::support::Site;
use crate::support::clock::ManualClock;
use crate::support::compaction::Full;
use crate::support::compaction::check_compacted;
use crate::support::compaction::compacting_with;
use crate::support::medium::Numbers;
use crate::support::secs;
use std::time::Duration;
use stratalog::{Durability, Log, Record, Timestamp};

/// Of any kind and size, with one of so many keys.
fn record(numbers: &mut Numbers, number: u64, keys: u64) -> Record<'static> {
    let key = format!("key {}", numbers.below(keys));
    let value = vec![b'v'; *numbers.pick(&[0, 20, 100, 300])];
    match numbers.below(12) {
        0 => Record::new(value),
        1 => Record::tombstone(key),
        2 => Record::new(value).key(key).header("n", number.to_string()),
        3 => Record::new(value).key(key).timestamp(Timestamp::from_micros(7)),
        4 => Record::new(number.to_string()).key(key),
        _ => Record::new(value).key(key),
    }
}

/// In batches of up to some 9 KiB, and one by one at times of their own.
fn append(log: &Log, clock: &ManualClock, numbers: &mut Numbers, keys: u64) {
    for _ in 0..12 {
        let count = 1 + numbers.below(80);
        clock.advance(Duration::from_micros(numbers.below(300)));
        let records = (0..count).map(|number| record(numbers, number, keys)).collect::<Vec<_>>();
        if count.is_multiple_of(2) {
            log.append_batch_with(Durability::Buffered, records).unwrap();
        } else {
            for record in records {
                clock.advance(Duration::from_micros(count % 3));
                log.append_with(Durability::Buffered, record).unwrap();
            }
        }
    }
    // In the middle of a frame, as a rule.
    log.truncate_to(log.end_offset().checked_sub(numbers.below(30)).unwrap()).unwrap();
    log.roll().unwrap();
}

/// The figures of the segments are those of their records.
fn check_segments(log: &Log, full: &Full) {
    for segment in log.segments().iter().filter(|segment| segment.records > 0) {
        let its = full.above(segment.base_offset).below(segment.end_offset);
        let last = its.offsets().last().and_then(|offset| its.get(offset)).unwrap();
        let tombstones =
            its.offsets().filter(|offset| its.get(*offset).unwrap().record.is_tombstone());
        assert_eq!(segment.records, its.len() as u64);
        assert_eq!(segment.tombstones, tombstones.count() as u64);
        assert_eq!(segment.last_appended_at, Some(last.appended_at));
    }
}

#[test]
fn large_frames_keep_what_stays_of_them() {
    let mut numbers = Numbers(1);
    for round in 0..24 {
        let clock = ManualClock::at(secs(1000));
        let site = compacting_with(Site::memory().clock(&clock), |compaction| {
            let kept = if round % 2 == 0 { Duration::ZERO } else { Duration::from_secs(3600) };
            compaction.tombstone_retention(kept)
        });
        let log = site.open();
        let keys = [30, 300, 3000][round % 3];
        for _ in 0..3 {
            append(&log, &clock, &mut numbers, keys);
            let full = Full::of(&log);
            log.compact().unwrap();
            let left = Full::of(&log);
            let expected = full.compacted_to(log.end_offset());
            assert_eq!(left.without_tombstones(), expected, "round {round}");
            check_segments(&log, &left);
            if round % 2 == 0 {
                check_compacted(&log, &expected);
            }
        }
    }
}
