//! Going back is going forward in reverse, over random logs: batches, rolls, what compaction left,
//! what was cut off at both ends, and a tail that is not written.

use crate::support::Site;
use crate::support::at;
use crate::support::compaction::compacting;
use crate::support::medium::Numbers;
use stratalog::{Cursor, Durability, EntryBuf, Log, Record, Seek};

/// Logs in memory, and on a disk in each read mode.
const LOGS: [u64; 3] = [60, 4, 4];

#[test]
fn backward_is_forward_in_reverse() {
    for seed in 0..LOGS[0] {
        for (kind, site) in Site::each().into_iter().enumerate() {
            if seed >= LOGS[kind] {
                continue;
            }
            let site = compacting(site)
                .options(|options| options.durability(Durability::Buffered).segment_bytes(2048));
            let log = site.open();
            let mut numbers = Numbers(seed + 1);
            for _ in 0..numbers.below(60) {
                change(&log, &mut numbers);
                if numbers.below(8) == 0 {
                    check(&log, &mut numbers, &format!("seed {seed}, site {kind}"));
                }
            }
            check(&log, &mut numbers, &format!("seed {seed}, site {kind}"));
            let log = site.reopen(log);
            check(&log, &mut numbers, &format!("seed {seed}, site {kind}, reopened"));
        }
    }
}

fn change(log: &Log, numbers: &mut Numbers) {
    let (start, end) = (log.start_offset().get(), log.end_offset().get());
    let length = end - start;
    match numbers.below(16) {
        0 => log.sync().unwrap(),
        1 => log.roll().unwrap(),
        2 | 3 => {
            log.roll().unwrap();
            log.compact().unwrap();
        }
        4 => log.truncate_to(at(end - numbers.below(length + 1) / 4)).unwrap(),
        5 => log.delete_before(at(start + numbers.below(length + 1) / 4)).unwrap(),
        6 => assert!(log.append_with(Durability::Written, record(numbers)).is_ok()),
        7..12 => {
            for _ in 0..numbers.below(30) {
                log.append(record(numbers)).unwrap();
            }
        }
        _ => {
            let count = numbers.below(50);
            let batch: Vec<_> = (0..count).map(|_| record(numbers)).collect();
            log.append_batch(batch).unwrap();
        }
    }
}

/// With few keys, so that compaction leaves holes, whole frames and segments wide.
fn record(numbers: &mut Numbers) -> Record<'static> {
    let value = vec![b'v'; usize::try_from(numbers.below(90)).unwrap()];
    match numbers.below(12) {
        0 => Record::new(value),
        1 => Record::tombstone(format!("{}", numbers.below(4))),
        2 => Record::new(value).key("h").header("n", "1"),
        _ => Record::new(value).key(format!("{}", numbers.below(4))),
    }
}

fn next(cursor: &mut Cursor) -> Option<EntryBuf> {
    cursor.next().unwrap().map(|entry| entry.to_buf())
}

fn prev(cursor: &mut Cursor) -> Option<EntryBuf> {
    cursor.prev().unwrap().map(|entry| entry.to_buf())
}

#[track_caller]
fn check(log: &Log, numbers: &mut Numbers, place: &str) {
    let forward: Vec<_> = log.iter(Seek::Start).unwrap().map(Result::unwrap).collect();
    let mut cursor = log.cursor(Seek::End).unwrap();
    for expected in forward.iter().rev() {
        assert_eq!(prev(&mut cursor).as_ref(), Some(expected), "{place}");
        assert_eq!(cursor.offset(), expected.offset(), "{place}");
    }
    assert_eq!(prev(&mut cursor), None, "{place}");
    // From anywhere, holes too, and to and fro.
    for _ in 0..5 {
        let (start, end) = (log.start_offset(), log.end_offset());
        let offset = start + numbers.below(end - start + 1);
        cursor.seek(Seek::Offset(offset)).unwrap();
        let mut stand = forward.partition_point(|entry| entry.offset() < offset);
        for _ in 0..30 {
            let goes_back = numbers.below(3) > 0;
            let expected = if goes_back {
                stand.checked_sub(1).map(|before| forward[before].clone())
            } else {
                forward.get(stand).cloned()
            };
            let found = if goes_back { prev(&mut cursor) } else { next(&mut cursor) };
            assert_eq!(found, expected, "{place}: from {offset}, at {stand}");
            match (found.is_some(), goes_back) {
                (true, true) => stand -= 1,
                (true, false) => stand += 1,
                (false, _) => {}
            }
        }
    }
}

/// The last ones, the newest first: what `Seek::End` and going back are for.
#[test]
fn the_last_records_are_a_few_steps_back() {
    let log = Site::memory().small_segments().open();
    log.append_batch((0..100).map(|number| number.to_string())).unwrap();
    let mut cursor = log.cursor(Seek::End).unwrap();
    let mut last = Vec::new();
    while last.len() < 3
        && let Some(entry) = cursor.prev().unwrap()
    {
        last.push(entry.offset().get());
    }
    assert_eq!(last, [99, 98, 97]);
}
