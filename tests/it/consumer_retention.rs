//! Retention that waits for consumers, and passes those that are too slow.

use crate::support::Site;
use crate::support::append_all;
use crate::support::assert_out_of_range;
use crate::support::at;
use crate::support::full;
use crate::support::until;
use std::time::Duration;
use stratalog::{Consumer, Kept, Log, Maintenance, Retention, RetentionReport, Seek};

/// Gone as soon as all have read it.
fn outbox() -> Retention {
    Retention::new().max_age(Duration::ZERO).keep_unread(true)
}

/// Ten full segments and an active one that is empty.
fn ten(site: &Site) -> Log {
    let log = site.open();
    append_all(&log, &full(10));
    log.roll().unwrap();
    log
}

fn site(retention: Retention) -> Site {
    Site::memory().small_segments().options(|options| options.retention(retention))
}

fn take(consumer: &mut Consumer, count: u64) {
    for _ in 0..count {
        consumer.next().unwrap().unwrap();
    }
    consumer.commit().unwrap();
}

fn enforced(log: &Log) -> (u64, Option<Kept>, String, String) {
    let report: RetentionReport = log.enforce_retention().unwrap();
    let (blocked, passed) = (report.blocked_by.join(" "), report.passed.join(" "));
    assert_eq!(report.start_offset, log.start_offset());
    (log.start_offset().get(), report.kept, blocked, passed)
}

#[test]
fn what_all_have_committed_goes() {
    let log = ten(&site(outbox()));
    let mut fast = log.consumer("fast").unwrap();
    let mut slow = log.consumer("slow").unwrap();
    let unread = Some(Kept::Unread);
    assert_eq!(enforced(&log), (0, unread, "fast slow".into(), String::new()));
    take(&mut fast, 9);
    assert_eq!(enforced(&log), (0, unread, "slow".into(), String::new()));
    take(&mut slow, 4);
    assert_eq!(enforced(&log), (4, unread, "slow".into(), String::new()));
    // Read and not committed.
    for _ in 0..3 {
        slow.next().unwrap().unwrap();
    }
    assert_eq!(enforced(&log), (4, unread, "slow".into(), String::new()));
    drop(slow);
    assert_eq!(enforced(&log), (4, unread, "slow".into(), String::new()));
    assert!(log.remove_consumer("slow").unwrap());
    assert_eq!(enforced(&log), (9, unread, "fast".into(), String::new()));
    take(&mut fast, 1);
    assert_eq!(enforced(&log), (10, None, String::new(), String::new()));
}

/// A position that was left by an earlier life of the log counts as well.
#[test]
fn consumers_that_nobody_holds_are_waited_for() {
    let site = site(outbox());
    let log = ten(&site);
    take(&mut log.consumer("left").unwrap(), 6);
    let log = site.reopen(log);
    assert_eq!(enforced(&log).0, 6);
    let log = site.reopen(log);
    assert_eq!(enforced(&log), (6, Some(Kept::Unread), "left".into(), String::new()));
}

#[test]
fn who_is_too_slow_is_passed_and_told() {
    let log = ten(&site(outbox().unread_cap_bytes(4000)));
    let mut slow = log.consumer("slow").unwrap();
    take(&mut slow, 1);
    let mut fast = log.consumer("fast").unwrap();
    take(&mut fast, 10);
    let (start, kept, blocked, passed) = enforced(&log);
    assert_eq!((kept, &*blocked, &*passed), (Some(Kept::Unread), "slow", "slow"));
    assert!(log.stats().bytes <= 4000 && log.stats().bytes > 3000);
    assert!(start > 1);
    for _ in 0..2 {
        assert_out_of_range(slow.next(), start);
        assert_out_of_range(slow.commit(), start);
    }
    assert_eq!(slow.committed(), at(1));
    slow.seek(Seek::Start).unwrap();
    take(&mut slow, 10 - start);
    assert_eq!(enforced(&log).0, 10);
}

#[test]
fn without_being_asked_retention_waits_for_nobody() {
    let log = ten(&site(Retention::new().max_age(Duration::ZERO)));
    let mut slow = log.consumer("slow").unwrap();
    assert_eq!(enforced(&log), (10, None, String::new(), String::new()));
    assert_out_of_range(slow.next(), 10);
}

/// What is neither too old nor too much stays, whoever has read it.
#[test]
fn that_it_was_read_is_no_reason_to_go() {
    let log = ten(&site(Retention::new().max_bytes(1 << 20).keep_unread(true)));
    take(&mut log.consumer("fast").unwrap(), 10);
    assert_eq!(enforced(&log), (0, Some(Kept::Within(None)), String::new(), String::new()));
}

#[test]
fn in_the_background_a_commit_lets_retention_go_on() {
    for site in [Site::memory(), Site::disk()] {
        let site = site
            .small_segments()
            .options(|options| options.retention(outbox()).maintenance(Maintenance::Background));
        let log = site.open();
        let mut a = log.consumer("a").unwrap();
        let mut b = log.consumer("b").unwrap();
        append_all(&log, &full(10));
        log.roll().unwrap();
        take(&mut a, 10);
        for start in 1..=10 {
            assert_eq!(log.start_offset(), at(start - 1));
            take(&mut b, 1);
            // The bell calls: this is far sooner than the hour after which it looks again.
            until(|| log.start_offset() == at(start));
        }
        append_all(&log, &full(3));
        log.roll().unwrap();
        take(&mut a, 3);
        drop(b);
        log.remove_consumer("b").unwrap();
        until(|| log.start_offset() == at(13));
        log.close().unwrap();
        assert!(log.stats().last_error.is_none(), "{:?}", log.stats().last_error);
    }
}
