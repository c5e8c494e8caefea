//! Compaction beside readers, appenders, cuts, callbacks and `close`: nobody is disturbed by it.

use crate::support::Site;
use crate::support::assert_kind;
use crate::support::at;
use crate::support::compaction::Full;
use crate::support::compaction::check_compacted;
use crate::support::compaction::compacting;
use crate::support::compaction::compacting_with;
use crate::support::compaction::fill;
use crate::support::until;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;
use stratalog::{Durability, ErrorKind, Log, Record, Seek};

/// A cursor in the middle of a segment that is replaced reads it to its end, both ways.
#[test]
fn cursors_stay_valid_when_their_segment_is_replaced() {
    for site in Site::each() {
        let site = compacting(site).small_segments();
        let log = site.open();
        fill(&log, 200, 10);
        let full = Full::of(&log);
        let mut cursors: Vec<_> =
            (0..200).map(|offset| log.cursor(Seek::Offset(at(offset))).unwrap()).collect();
        for (offset, cursor) in (0..).zip(&mut cursors) {
            assert_eq!(cursor.next().unwrap().unwrap().offset(), at(offset));
        }
        log.compact().unwrap();
        let left = Full::of(&log);
        for (offset, cursor) in (0..).zip(&mut cursors) {
            let before = cursor.prev().unwrap().map(|entry| entry.offset());
            assert_eq!(before, Some(at(offset)), "in the span it has in memory");
            cursor.next().unwrap();
            let mut last = at(offset);
            while let Some(entry) = cursor.next().unwrap() {
                assert!(entry.offset() > last);
                full.assert_has(entry);
                last = entry.offset();
            }
            let mut back = Vec::new();
            while let Some(entry) = cursor.prev().unwrap() {
                back.push(entry.offset());
            }
            assert!(back.is_sorted_by(|one, next| one > next));
            assert!(left.offsets().all(|offset| back.contains(&offset)));
        }
    }
}

/// The log is cut, rolled and deleted from while a run is under way: what the run knew may no
/// longer hold, and nothing that is left may be lost by it.
#[test]
fn a_run_beside_truncations_deletions_and_rolls_loses_nothing() {
    for round in 0..18_u64 {
        let (sender, receiver) = sync_channel::<()>(0);
        let sender = Mutex::new(sender);
        let site = compacting_with(Site::memory(), |compaction| {
            compaction.progress(move |_| {
                // The other side does something between two looks, or has gone.
                match sender.lock().unwrap().send(()) {
                    Ok(()) | Err(_) => ControlFlow::Continue(()),
                }
            })
        });
        let log = site.options(|options| options.segment_bytes(600 << 10)).open();
        let value = vec![b'v'; 1000];
        for number in 0..3000_u64 {
            if number == 1500 {
                // Where the log is truncated no segment is cut, so none looks different.
                log.roll().unwrap();
            }
            let key = (number % 7).to_string();
            log.append_with(Durability::Buffered, Record::new(&value).key(key)).unwrap();
        }
        log.append("no key").unwrap();
        log.roll().unwrap();
        let full = Full::of(&log);
        let looks = AtomicU64::new(0);
        thread::scope(|scope| {
            let run = scope.spawn(|| log.compact().unwrap());
            while !run.is_finished() {
                if receiver.recv_timeout(Duration::from_millis(20)).is_err() {
                    continue;
                }
                if looks.fetch_add(1, Ordering::Relaxed) == round {
                    match round % 3 {
                        0 => log.truncate_to(at(1500)).unwrap(),
                        1 => log.delete_before(at(1500)).unwrap(),
                        _ => log.roll().unwrap(),
                    }
                    log.append("meanwhile").unwrap();
                }
            }
            drop(receiver);
            let report = run.join().unwrap();
            assert_eq!(
                report.is_stopped(),
                round % 3 == 0 && looks.load(Ordering::Relaxed) > round
            );
        });
        match round % 3 {
            // No output was in its place by then, so nothing may be gone.
            0 if log.end_offset() < at(3000) => {
                assert_eq!(Full::of(&log).below(at(1500)), full.below(at(1500)));
            }
            _ => {
                let expected = full.compacted_to(at(3001));
                let expected = expected.above(log.start_offset());
                let left = Full::of(&log).below(at(3001));
                assert_eq!(left, expected);
            }
        }
    }
}

#[test]
fn a_run_is_cancelled_by_its_progress_and_another_does_the_rest() {
    let calls = Arc::new(AtomicU64::new(0));
    for stop in 0.. {
        let counted = Arc::clone(&calls);
        calls.store(0, Ordering::Relaxed);
        let site = compacting_with(Site::memory(), |compaction| {
            compaction.progress(move |progress| {
                assert!(progress.bytes_read() <= progress.bytes_to_read().max(1));
                let call = counted.fetch_add(1, Ordering::Relaxed);
                if call == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        });
        let log = site.options(|options| options.segment_bytes(300 << 10)).open();
        let value = vec![b'v'; 1000];
        for number in 0..2000_u64 {
            let key = (number % 300).to_string();
            log.append_with(Durability::Buffered, Record::new(&value).key(key)).unwrap();
        }
        log.roll().unwrap();
        let expected = Full::of(&log).compacted_to(at(2000));
        let report = log.compact().unwrap();
        if !report.is_stopped() {
            assert!(stop > 5, "only {stop} calls");
            return check_compacted(&log, &expected);
        }
        assert!(report.more());
        assert!(!log.compact().unwrap().is_stopped());
        check_compacted(&log, &expected);
    }
}

#[test]
fn a_progress_callback_that_compacts_or_closes_does_not_hang() {
    let cell: Arc<OnceLock<Log>> = Arc::default();
    let inner = Arc::clone(&cell);
    let site = compacting_with(Site::memory(), |compaction| {
        compaction.progress(move |_| {
            let log = inner.get().unwrap();
            assert_kind(log.compact(), ErrorKind::InvalidInput);
            log.close().unwrap();
            ControlFlow::Continue(())
        })
    });
    let log = site.open();
    fill(&log, 100, 5);
    let before = Full::of(&log);
    cell.set(log.clone()).unwrap();
    assert!(log.compact().unwrap().is_stopped());
    check_compacted(&log, &before);
}

/// Whoever has closed a log can count on nothing being done in its directory any more.
#[test]
fn closing_waits_for_the_run() {
    let [began, is_free] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (told, goes_on) = (Arc::clone(&began), Arc::clone(&is_free));
    let site = compacting_with(Site::memory(), |compaction| {
        compaction.progress(move |_| {
            told.store(true, Ordering::Release);
            until(|| goes_on.load(Ordering::Acquire));
            ControlFlow::Continue(())
        })
    });
    let log = site.open();
    fill(&log, 100, 5);
    thread::scope(|scope| {
        let run = scope.spawn(|| log.compact());
        until(|| began.load(Ordering::Acquire));
        let closing = scope.spawn(|| log.close());
        thread::park_timeout(Duration::from_millis(100));
        let has_returned = closing.is_finished();
        is_free.store(true, Ordering::Release);
        assert!(!has_returned, "it closed the log beside a run");
        closing.join().unwrap().unwrap();
        drop(run.join().unwrap());
    });
}

/// The panic is the caller's, and so is the log, which has no file more than it needs.
#[test]
fn a_progress_callback_that_panics_leaves_nothing_behind() {
    for last in 0.. {
        let calls = AtomicU64::new(0);
        let site = compacting_with(Site::memory(), |compaction| {
            compaction.progress(move |_| {
                assert!(calls.fetch_add(1, Ordering::Relaxed) != last, "as it is meant");
                ControlFlow::Continue(())
            })
        });
        let site = site.options(|options| options.segment_bytes(600 << 10));
        let log = site.open();
        let value = vec![b'v'; 1000];
        for number in 0..2000_u64 {
            let key = (number % 700).to_string();
            log.append_with(Durability::Buffered, Record::new(&value).key(key)).unwrap();
        }
        log.roll().unwrap();
        let expected = Full::of(&log).compacted_to(at(2000));
        let panicked = catch_unwind(AssertUnwindSafe(|| log.compact().unwrap())).is_err();
        assert_eq!(site.segments().len(), log.segments().len(), "call {last}");
        if !panicked {
            return assert!(last > 5, "only {last} calls");
        }
        log.compact().unwrap();
        check_compacted(&log, &expected);
    }
}

/// `close` ends a run that is under way, and nothing is written behind it.
#[test]
fn closing_ends_a_run() {
    let began = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&began);
    let site = compacting_with(Site::memory(), |compaction| {
        compaction.progress(move |_| {
            told.store(true, Ordering::Release);
            thread::yield_now();
            ControlFlow::Continue(())
        })
    });
    let log = site.open();
    fill(&log, 3000, 1000);
    thread::scope(|scope| {
        let run = scope.spawn(|| log.compact());
        until(|| began.load(Ordering::Acquire));
        log.close().unwrap();
        let files = site.files();
        match run.join().unwrap() {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
        }
        assert_eq!(site.files(), files);
    });
    let left = Full::of(&site.kill().open());
    check_compacted(&site.open(), &left);
}
