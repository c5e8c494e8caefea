//! Named consumers: where they begin, what they commit, and what becomes of their places when the
//! log is cut.

use crate::support::LONG;
use crate::support::Site;
use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::assert_out_of_range;
use crate::support::at;
use crate::support::full;
use crate::support::tail;
use crate::support::task::block_on;
use std::thread;
use std::time::Duration;
use stratalog::{Consumer, Durability, ErrorKind, Log, Offset, Record, Seek};

/// Reads so many records and commits them.
#[track_caller]
fn take(consumer: &mut Consumer, count: u64) {
    let offsets = offsets(consumer, count);
    assert_eq!(offsets.len() as u64, count);
    consumer.commit().unwrap();
}

/// The offsets of the next records, at most so many.
#[track_caller]
fn offsets(consumer: &mut Consumer, max: u64) -> Vec<u64> {
    let mut offsets = Vec::new();
    while (offsets.len() as u64) < max
        && let Some(entry) = consumer.next().unwrap()
    {
        offsets.push(u64::from(entry.offset()));
    }
    offsets
}

fn committed(log: &Log, name: &str) -> Offset {
    let all = log.consumers().unwrap();
    all.iter().find(|consumer| consumer.name == name).unwrap().committed.unwrap()
}

#[test]
fn a_consumer_goes_on_behind_what_it_committed() {
    for site in Site::each() {
        let log = site.open();
        append_all(&log, &tail(10));
        let mut billing = log.consumer("billing").unwrap();
        assert_eq!((billing.name(), billing.committed(), billing.lag()), ("billing", at(0), 10));
        take(&mut billing, 3);
        assert_eq!((billing.committed(), billing.position(), billing.lag()), (at(3), at(3), 7));
        // Read, and not committed.
        assert_eq!(offsets(&mut billing, 2), [3, 4]);
        assert_eq!((billing.committed(), billing.position(), billing.lag()), (at(3), at(5), 7));
        drop(billing);
        for log in [site.kill().open(), site.reopen(log)] {
            let mut billing = log.consumer("billing").unwrap();
            assert_eq!((billing.committed(), billing.position()), (at(3), at(3)));
            assert_eq!(offsets(&mut billing, 100), (3..10).collect::<Vec<_>>());
        }
    }
}

#[test]
fn commits_go_on_for_ever_in_two_places() {
    let site = Site::disk();
    let mut log = site.open();
    append_all(&log, &tail(20));
    for position in 1..=20 {
        let mut billing = log.consumer("billing").unwrap();
        take(&mut billing, 1);
        drop(billing);
        if position % 3 == 0 {
            assert_eq!(committed(&site.kill().open(), "billing"), at(position));
            log = site.reopen(log);
        }
        assert_eq!(committed(&log, "billing"), at(position));
    }
}

#[test]
fn a_commit_without_news_costs_nothing_and_says_so() {
    let log = Site::memory().open();
    append_all(&log, &tail(3));
    let mut billing = log.consumer("billing").unwrap();
    billing.commit().unwrap();
    take(&mut billing, 3);
    billing.commit().unwrap();
    assert!(billing.next().unwrap().is_none());
    billing.commit().unwrap();
    assert_eq!((billing.committed(), billing.lag()), (at(3), 0));
}

#[test]
fn a_new_consumer_begins_at_the_start() {
    let log = Site::memory().small_segments().open();
    append_all(&log, &full(6));
    log.delete_before(at(4)).unwrap();
    let mut late = log.consumer("late").unwrap();
    assert_eq!(late.committed(), at(4));
    assert_eq!(offsets(&mut late, 9), [4, 5]);
}

#[test]
fn a_place_that_is_moved_is_committed_backwards_too() {
    let site = Site::memory();
    let log = site.open();
    append_all(&log, &tail(10));
    let mut billing = log.consumer("billing").unwrap();
    take(&mut billing, 8);
    billing.seek(Seek::Offset(at(2))).unwrap();
    assert_eq!((billing.committed(), billing.position()), (at(8), at(2)));
    billing.commit().unwrap();
    assert_eq!(site.kill().open().consumer("billing").unwrap().committed(), at(2));
    assert_eq!(offsets(&mut billing, 1), [2]);
    assert_eq!(billing.prev().unwrap().unwrap().offset(), at(2));
    billing.seek(Seek::End).unwrap();
    billing.commit().unwrap();
    assert_eq!(billing.lag(), 0);
    assert_out_of_range(billing.seek(Seek::Offset(at(11))), 10);
    assert_eq!(billing.position(), at(10));
}

#[test]
fn reset_reads_again_what_was_not_committed() {
    let log = Site::memory().open();
    append_all(&log, &tail(5));
    let mut billing = log.consumer("billing").unwrap();
    take(&mut billing, 2);
    assert_eq!(offsets(&mut billing, 9), [2, 3, 4]);
    billing.reset().unwrap();
    assert_eq!(offsets(&mut billing, 9), [2, 3, 4]);
    log.delete_before(at(4)).unwrap();
    assert_out_of_range(billing.reset(), 4);
    assert_eq!(billing.position(), at(5));
}

#[test]
fn a_consumer_waits() {
    let log = Site::memory().open();
    let mut billing = log.consumer("billing").unwrap();
    assert!(!billing.wait(Duration::from_millis(1)).unwrap());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            assert!(billing.wait(LONG).unwrap());
            take(&mut billing, 1);
            block_on(billing.wait_async())
        });
        log.append("first").unwrap();
        while log.consumers().unwrap()[0].committed != Some(at(1)) {
            thread::yield_now();
        }
        log.append("second").unwrap();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn names_are_checked() {
    let log = Site::memory().open();
    let long = "x".repeat(129);
    for name in ["", ".", "..", ".next", "a/b", "../x", "a b", "\u{e9}", "a\0b", &long] {
        assert_kind(log.consumer(name), ErrorKind::InvalidInput);
        assert_kind(log.remove_consumer(name), ErrorKind::InvalidInput);
    }
    assert!(log.consumers().unwrap().is_empty());
    for name in ["a", "A-1_b.c", &"x".repeat(128)] {
        assert_eq!(log.consumer(name).unwrap().name(), name);
    }
}

#[test]
fn a_consumer_has_one_handle() {
    let log = Site::memory().open();
    let held = log.consumer("billing").unwrap();
    let error = log.clone().consumer("billing").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.path().unwrap().ends_with("consumers/billing"));
    assert_kind(log.remove_consumer("billing"), ErrorKind::Locked);
    let other = log.consumer("other").unwrap();
    assert!(log.consumers().unwrap().iter().all(|consumer| consumer.is_held));
    drop(held);
    log.consumer("billing").unwrap();
    drop(other);
    assert!(log.consumers().unwrap().iter().all(|consumer| !consumer.is_held));
}

#[test]
fn consumers_are_listed_by_name() {
    let site = Site::disk();
    let log = site.open();
    append_all(&log, &tail(10));
    assert!(log.consumers().unwrap().is_empty());
    for (name, count) in [("b", 4), ("c", 10), ("a", 0)] {
        take(&mut log.consumer(name).unwrap(), count);
    }
    for round in 0..2 {
        let log = if round == 0 { log.clone() } else { site.reopen(log.clone()) };
        let all = log.consumers().unwrap();
        let stated: Vec<_> =
            all.iter().map(|one| (&*one.name, one.committed.unwrap(), one.lag.unwrap())).collect();
        assert_eq!(stated, [("a", at(0), 10), ("b", at(4), 6), ("c", at(10), 0)]);
        assert!(all.iter().all(|one| one.error.is_none()));
    }
}

#[test]
fn a_removed_consumer_begins_again() {
    let site = Site::disk();
    let mut log = site.open();
    append_all(&log, &tail(5));
    take(&mut log.consumer("billing").unwrap(), 5);
    assert!(!log.remove_consumer("nobody").unwrap());
    assert!(log.remove_consumer("billing").unwrap());
    assert!(!log.remove_consumer("billing").unwrap());
    assert!(log.consumers().unwrap().is_empty());
    log = site.reopen(log);
    assert!(log.consumers().unwrap().is_empty());
    assert_eq!(log.consumer("billing").unwrap().committed(), at(0));
    // Also one that was not looked at yet.
    log = site.reopen(log);
    assert!(log.remove_consumer("billing").unwrap());
    assert!(log.consumers().unwrap().is_empty());
}

#[test]
fn a_place_that_was_deleted_is_an_error_and_stays() {
    let log = Site::memory().small_segments().open();
    append_all(&log, &full(8));
    let mut billing = log.consumer("billing").unwrap();
    take(&mut billing, 2);
    log.delete_before(at(5)).unwrap();
    for _ in 0..2 {
        assert_out_of_range(billing.next(), 5);
        assert_out_of_range(billing.commit(), 5);
        assert_eq!((billing.position(), billing.committed()), (at(2), at(2)));
    }
    drop(billing);
    let mut billing = log.consumer("billing").unwrap();
    for _ in 0..2 {
        assert_out_of_range(billing.next(), 5);
    }
    billing.seek(Seek::Start).unwrap();
    assert_eq!(offsets(&mut billing, 1), [5]);
    billing.commit().unwrap();
    // The log jumps.
    log.delete_before(at(100)).unwrap();
    assert_out_of_range(billing.next(), 100);
}

#[test]
fn truncation_takes_places_back() {
    for site in Site::each() {
        let log = site.open();
        append_all(&log, &tail(100));
        let mut held = log.consumer("held").unwrap();
        take(&mut held, 90);
        take(&mut log.consumer("left").unwrap(), 80);
        take(&mut log.consumer("below").unwrap(), 10);
        log.truncate_to(at(50)).unwrap();
        assert_eq!(held.committed(), at(50));
        // It has grown to where the handle stands: that is another record.
        append_all(&log, &tail(70));
        for _ in 0..2 {
            assert_out_of_range(held.next(), 50);
            assert_out_of_range(held.commit(), 50);
        }
        assert_eq!(held.committed(), at(50));
        for log in [log.clone(), site.kill().open()] {
            let places = ["held", "left", "below"].map(|name| committed(&log, name));
            assert_eq!(places, [50, 50, 10].map(at));
        }
        held.reset().unwrap();
        take(&mut held, 70);
        // Those who were not looked at before.
        drop(held);
        let log = site.reopen(log);
        log.truncate_to(at(20)).unwrap();
        let places = ["held", "left", "below"].map(|name| committed(&log, name));
        assert_eq!(places, [20, 20, 10].map(at));
        assert_out_of_range(log.truncate_to(at(21)), 20);
        let mut left = log.consumer("left").unwrap();
        log.append("new").unwrap();
        assert_eq!(Record::from(left.next().unwrap().unwrap()), Record::new("new"));
    }
}

#[test]
fn a_truncation_that_is_refused_takes_nobody_back() {
    let log = Site::memory().small_segments().open();
    append_all(&log, &full(8));
    let mut billing = log.consumer("billing").unwrap();
    take(&mut billing, 8);
    log.delete_before(at(4)).unwrap();
    assert_out_of_range(log.truncate_to(at(3)), 4);
    assert_out_of_range(log.truncate_to(at(9)), 8);
    log.truncate_to(at(8)).unwrap();
    assert_eq!(billing.committed(), at(8));
}

#[test]
fn a_commit_makes_the_log_durable_first() {
    for level in [Durability::Buffered, Durability::Written] {
        let site = Site::memory().options(|options| options.durability(level));
        let log = site.open();
        append_all(&log, &tail(5));
        let mut billing = log.consumer("billing").unwrap();
        assert_eq!(offsets(&mut billing, 3), [0, 1, 2]);
        assert_eq!(log.durable_offset(), at(0));
        billing.commit().unwrap();
        assert!(log.durable_offset() >= at(3));
    }
}

#[test]
fn a_closed_log_takes_no_commits() {
    let log = Site::memory().open();
    append_all(&log, &tail(5));
    let mut billing = log.consumer("billing").unwrap();
    take(&mut billing, 2);
    assert_eq!(offsets(&mut billing, 1), [2]);
    log.close().unwrap();
    assert_kind(billing.commit(), ErrorKind::Closed);
    assert_eq!(offsets(&mut billing, 9), [3, 4]);
    assert_kind(billing.wait(LONG), ErrorKind::Closed);
    assert_eq!(billing.committed(), at(2));
    for error in [
        log.consumer("billing").map(drop),
        log.consumer("other").map(drop),
        log.consumers().map(drop),
        log.remove_consumer("other").map(drop),
    ] {
        assert_kind(error, ErrorKind::Closed);
    }
}

/// The handle keeps no log open, and what is held in one life of the log is free in the next.
#[test]
fn a_handle_that_is_left_over_holds_nothing() {
    let site = Site::memory();
    let log = site.open();
    append_all(&log, &tail(5));
    let mut old = log.consumer("billing").unwrap();
    take(&mut old, 1);
    drop(log);
    let log = site.open();
    let mut new = log.consumer("billing").unwrap();
    take(&mut new, 2);
    assert_eq!(offsets(&mut old, 4), [1, 2, 3, 4]);
    assert_kind(old.commit(), ErrorKind::Closed);
    drop(old);
    assert_kind(log.consumer("billing"), ErrorKind::Locked);
    assert_eq!(new.committed(), at(3));
}

/// Whoever has no consumers pays nothing for them.
#[test]
fn a_log_without_consumers_has_no_directory_for_them() {
    let site = Site::disk();
    let log = site.open();
    append_all(&log, &tail(5));
    log.truncate_to(at(3)).unwrap();
    assert!(log.consumers().unwrap().is_empty());
    assert!(!log.remove_consumer("billing").unwrap());
    let log = site.reopen(log);
    assert!(!site.path().join("consumers").exists());
    log.consumer("billing").unwrap();
    assert!(site.path().join("consumers/billing").is_file());
}
