//! What compaction makes of frames that are large enough to be rewritten as they are: they lose
//! records at their begin, in the middle and at their end, and may have lost some before.

use crate::support::Site;
use crate::support::at;
use crate::support::clock::ManualClock;
use crate::support::compaction::Full;
use crate::support::compaction::check_compacted;
use crate::support::compaction::compacting;
use crate::support::compaction::compacting_with;
use crate::support::medium::Numbers;
use crate::support::replica::catch_up;
use crate::support::secs;
use std::ops::Range;
use std::time::Duration;
use stratalog::{Durability, Log, Offset, Record, Timestamp};

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
        let time = |offset: Option<Offset>| Some(its.get(offset.unwrap()).unwrap().appended_at);
        let tombstones =
            its.offsets().filter(|offset| its.get(*offset).unwrap().record.is_tombstone());
        assert_eq!(segment.records, its.len() as u64);
        assert_eq!(segment.tombstones, tombstones.count() as u64);
        assert_eq!(segment.first_appended_at, time(its.offsets().next()));
        assert_eq!(segment.last_appended_at, time(its.offsets().last()));
    }
}

#[test]
fn large_frames_keep_what_stays_of_them() {
    let mut numbers = Numbers(1);
    for round in 0..24 {
        let clock = ManualClock::at(secs(1000));
        let kept = if round % 2 == 0 { Duration::ZERO } else { Duration::from_secs(3600) };
        let site = compacting_with(Site::memory().clock(&clock), |compaction| {
            compaction.tombstone_retention(kept)
        });
        let log = site.open();
        let keys = [30, 300, 3000][round % 3];
        for _ in 0..3 {
            append(&log, &clock, &mut numbers, keys);
            let full = Full::of(&log);
            log.compact().unwrap();
            let left = Full::of(&log);
            let last = full.last_of_each_key(log.end_offset());
            match kept {
                Duration::ZERO => check_compacted(&log, &last.without_tombstones()),
                _ => assert_eq!(left, last, "round {round}"),
            }
            check_segments(&log, &left);
        }
    }
}

/// Records of some 110 bytes, one by one at times of their own, in frames of 4 KiB.
fn append_alone(log: &Log, clock: &ManualClock, numbers: Range<u64>) {
    for number in numbers {
        clock.advance(Duration::from_micros(10));
        let record = Record::new(vec![b'v'; 100]).key(format!("key {number:02}"));
        log.append_with(Durability::Buffered, record).unwrap();
    }
    log.roll().unwrap();
}

/// It ends inside a frame, of which the leader loses what comes next.
#[test]
fn a_replica_goes_on_wherever_it_ends() {
    for (from, end) in (30..46).flat_map(|from| (30..80).step_by(7).map(move |end| (from, end))) {
        let clock = ManualClock::at(secs(1000));
        let log = compacting(Site::memory().clock(&clock)).open();
        append_alone(&log, &clock, 0..120);
        let replica = Site::memory().open();
        catch_up(&log, &replica, 1 << 20);
        replica.truncate_to(at(end)).unwrap();
        append_alone(&log, &clock, from..60);
        log.compact().unwrap();
        catch_up(&log, &replica, 1 << 20);
        let all = Full::of(&log).above(at(end));
        assert_eq!(Full::of(&replica).above(at(end)), all, "from {from} on, to {end}");
    }
}

/// It is as large as a replica takes, behind records that are gone.
#[test]
fn what_is_left_of_a_frame_is_not_too_large_for_a_replica() {
    for (max_bytes, frame_bytes) in [(1 << 10, 8 << 10), (20_000, 20_000)] {
        for records in [1, 32] {
            let log = compacting(Site::memory()).open();
            for _ in 0..30 {
                log.append(Record::new(vec![b'v'; 100]).key("first")).unwrap();
            }
            // Flags, key and value, with their lengths.
            let len = frame_bytes / records;
            let value = vec![b'v'; len - if len > 16 << 10 { 8 } else { 7 }];
            let large = |number| Record::new(&value).key(format!("{number:03}"));
            let batch = (0..records).map(large).collect::<Vec<_>>();
            log.append_batch_with(Durability::Written, batch).unwrap();
            log.append(Record::new("v").key("first")).unwrap();
            log.roll().unwrap();
            let small = |site: Site| site.options(|options| options.max_batch_bytes(max_bytes));
            catch_up(&log, &small(Site::memory()).open(), 1 << 20);
            log.compact().unwrap();
            let replica = small(Site::memory()).open();
            catch_up(&log, &replica, 1 << 20);
            assert_eq!(Full::of(&replica), Full::of(&log));
        }
    }
}
