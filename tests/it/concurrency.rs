//! Many threads: appends, cursors, rolls, syncs and closes at once.

use crate::support::LONG;
use crate::support::Site;
use crate::support::at;
use crate::support::check;
use crate::support::gate::GateStorage;
use crate::support::until;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::thread::ScopedJoinHandle;
use std::time::Duration;
use stratalog::{Cursor, Durability, ErrorKind, Log, Maintenance, Offset, Record, Seek};

const LEVELS: [Durability; 3] = [Durability::Buffered, Durability::Written, Durability::Synced];

/// A record that says who appended it, and as which of its own.
fn signed(thread: u64, nth: u64) -> Record<'static> {
    let padding = "x".repeat(usize::try_from(nth * 7 % 90).unwrap());
    Record::new(format!("{nth} {padding}")).key(format!("{thread}"))
}

/// Checks that offsets are dense and that each thread's records come in its order.
#[derive(Debug, Default)]
struct Reader {
    end: u64,
    next: BTreeMap<Vec<u8>, u64>,
}

impl Reader {
    fn see(&mut self, offset: Offset, key: Option<&[u8]>, value: &[u8]) {
        assert_eq!(offset, at(self.end));
        self.end += 1;
        let next = self.next.entry(key.unwrap().to_vec()).or_default();
        let text = std::str::from_utf8(value).unwrap();
        assert_eq!(text.split(' ').next().unwrap().parse(), Ok(*next), "offset {offset}");
        *next += 1;
    }

    /// Reads and waits until there are `count` records.
    fn follow(&mut self, cursor: &mut Cursor, count: u64) {
        while self.end < count {
            assert!(cursor.wait(LONG).unwrap());
            while let Some(entry) = cursor.next().unwrap() {
                self.see(entry.offset(), entry.key(), entry.value());
            }
        }
    }
}

/// Four writers at a mix of durabilities, three cursors that follow, one that goes back again and
/// again, and a thread that rolls.
fn crowd(site: &Site, each: u64) {
    let log = site.open();
    let count = 4 * each;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = |thread| {
            let log = log.clone();
            scope.spawn(move || write(&log, thread, each))
        };
        let writers: Vec<_> = (0..4).map(writer).collect();
        for _ in 0..3 {
            let mut cursor = log.cursor(Seek::Start).unwrap();
            scope.spawn(move || Reader::default().follow(&mut cursor, count));
        }
        scope.spawn(|| go_back(&log, &done));
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                log.roll().unwrap();
                thread::yield_now();
            }
        });
        let written: Vec<_> = writers.into_iter().map(ScopedJoinHandle::join).collect();
        done.store(true, Ordering::SeqCst);
        assert!(written.iter().all(Result::is_ok), "a writer failed");
    });
    log.close().unwrap();
    let log = site.open();
    let mut reader = Reader::default();
    for entry in log.iter(Seek::Start).unwrap() {
        let entry = entry.unwrap();
        reader.see(entry.offset(), entry.key(), entry.value());
    }
    assert_eq!((reader.end, reader.next.len()), (count, 4));
}

/// Ends with a sync, so that those who follow a synced log get everything.
fn write(log: &Log, thread: u64, each: u64) {
    let mut nth = 0;
    while nth < each {
        let level = LEVELS[usize::try_from(nth % 3).unwrap()];
        let batch = (nth % 5).min(each - nth);
        if batch > 1 {
            let records = (nth..nth + batch).map(|nth| signed(thread, nth));
            let range = log.append_batch_with(level, records).unwrap();
            assert_eq!(range.end - range.start, batch);
            nth += batch;
        } else {
            log.append_with(level, signed(thread, nth)).unwrap();
            nth += 1;
        }
    }
    log.sync().unwrap();
}

fn go_back(log: &Log, done: &AtomicBool) {
    let mut high_watermark = at(0);
    while !done.load(Ordering::SeqCst) {
        let mut cursor = log.cursor(Seek::End).unwrap();
        let mut offset = cursor.offset();
        assert!(offset >= high_watermark);
        high_watermark = offset;
        for _ in 0..200 {
            let Some(entry) = cursor.prev().unwrap() else {
                break;
            };
            offset = offset - 1;
            assert_eq!(entry.offset(), offset);
        }
    }
}

#[test]
fn a_crowd_in_a_synced_log() {
    for site in Site::each() {
        crowd(&site.options(|options| options.segment_bytes(16 << 10)), 1500);
    }
}

#[test]
fn a_crowd_in_a_buffered_log() {
    for site in Site::each() {
        let site = site.options(|options| options.durability(Durability::Buffered));
        crowd(&site.options(|options| options.segment_bytes(16 << 10)), 1500);
    }
}

#[test]
fn a_crowd_with_the_background_thread_in_tiny_segments() {
    let site = Site::disk().options(|options| {
        options
            .durability(Durability::Written)
            .maintenance(Maintenance::Background)
            .sync_interval(Duration::from_millis(1))
            .segment_bytes(2048)
            .max_unsynced_bytes(50_000)
    });
    crowd(&site, 1000);
}

#[test]
fn what_append_returns_for_is_durable() {
    for site in [Site::memory(), Site::disk()] {
        let log = site.open();
        thread::scope(|scope| {
            for thread in 0..16 {
                let log = &log;
                scope.spawn(move || {
                    for nth in 0..50 {
                        let offset = log.append(signed(thread, nth)).unwrap();
                        assert!(log.durable_offset() > offset);
                        assert_eq!(log.get(offset).unwrap().unwrap().offset(), offset);
                    }
                });
            }
        });
        assert_eq!(log.end_offset(), at(16 * 50));
    }
}

/// A sync covers what was appended before it began, so those who come meanwhile share the next.
#[test]
fn sixteen_threads_share_two_syncs() {
    let storage = GateStorage::default();
    let log = Site::over(Arc::new(storage.clone())).open();
    log.append("begin the segment").unwrap();
    let before = storage.syncs();
    thread::scope(|scope| {
        let held = storage.hold();
        scope.spawn(|| log.append("the leader").unwrap());
        storage.wait_for_sync();
        for _ in 0..15 {
            scope.spawn(|| log.append("a follower").unwrap());
        }
        until(|| log.end_offset() == at(17));
        assert_eq!((log.durable_offset(), log.high_watermark()), (at(1), at(1)));
        drop(held);
    });
    assert_eq!(storage.syncs() - before, 2);
    assert_eq!(log.durable_offset(), at(17));
}

#[test]
fn a_sync_holds_up_neither_appends_nor_readers() {
    let storage = GateStorage::default();
    let log = Site::over(Arc::new(storage.clone())).open();
    log.append("begin the segment").unwrap();
    thread::scope(|scope| {
        let held = storage.hold();
        scope.spawn(|| log.append("waits").unwrap());
        storage.wait_for_sync();
        log.append_with(Durability::Buffered, "does not").unwrap();
        log.append_with(Durability::Written, "nor this").unwrap();
        log.wait(at(2), Durability::Written).unwrap();
        check(&log, &[Record::new("begin the segment")]);
        drop(held);
    });
}

/// Readers may look at any moment: they see all of a batch or nothing of it.
#[test]
fn no_reader_sees_part_of_a_batch() {
    for level in LEVELS {
        let site = Site::memory().options(|options| options.durability(level).segment_bytes(8192));
        let log = site.open();
        thread::scope(|scope| {
            for thread in 0..3 {
                let log = &log;
                scope.spawn(move || {
                    for _ in 0..100 {
                        log.append_batch((0..10).map(|nth| signed(thread, nth))).unwrap();
                    }
                });
            }
            let mut cursor = log.cursor(Seek::Start).unwrap();
            while cursor.offset() < at(3000) {
                assert!(cursor.wait(LONG).unwrap());
                while cursor.next().unwrap().is_some() {}
                assert_eq!(cursor.offset().get() % 10, 0);
                assert_eq!(log.high_watermark().get() % 10, 0);
            }
        });
    }
}

#[test]
fn of_those_who_race_for_an_offset_one_wins() {
    let log = Site::memory().open();
    thread::scope(|scope| {
        for thread in 0..4 {
            let log = &log;
            scope.spawn(move || {
                let mut nth = 0;
                while nth < 50 {
                    let end = log.end_offset();
                    match log.append_at(end, [signed(thread, nth), signed(thread, nth + 1)]) {
                        Ok(range) => assert_eq!(range, end..end + 2),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Conflict);
                            assert!(error.offset().unwrap() > end);
                            continue;
                        }
                    }
                    nth += 2;
                }
            });
        }
    });
    let mut reader = Reader::default();
    reader.follow(&mut log.cursor(Seek::Start).unwrap(), 200);
}

#[test]
fn every_level_is_waited_for_by_many() {
    let site = Site::disk();
    let log = site.open();
    thread::scope(|scope| {
        for thread in 0..8 {
            let log = &log;
            scope.spawn(move || {
                for nth in 0..100 {
                    let offset = log.append_with(Durability::Buffered, signed(thread, nth));
                    let level = LEVELS[usize::try_from((thread + nth) % 3).unwrap()];
                    let offset = offset.unwrap();
                    log.wait(offset, level).unwrap();
                    assert!(level < Durability::Written || log.written_offset() > offset);
                    assert!(level < Durability::Synced || log.durable_offset() > offset);
                }
            });
        }
    });
}

#[test]
fn watermarks_never_fall_and_keep_their_order() {
    let log = Site::memory().small_segments().open();
    thread::scope(|scope| {
        let writer = scope.spawn(|| write(&log, 0, 2000));
        let mut before = [at(0); 3];
        while !writer.is_finished() {
            // Read from the weakest claim up: each may have moved on since.
            let now = [log.durable_offset(), log.written_offset(), log.end_offset()];
            assert!(now[0] <= now[1] && now[1] <= now[2], "{now:?}");
            assert!(
                now.iter().zip(&before).all(|(now, before)| now >= before),
                "{before:?} {now:?}"
            );
            before = now;
        }
    });
}

#[test]
fn closing_among_appends_keeps_what_was_acknowledged() {
    for site in Site::each() {
        let log = site.open();
        let ends: Vec<u64> = thread::scope(|scope| {
            let writer = |thread| {
                let log = log.clone();
                scope.spawn(move || append_until_closed(&log, thread))
            };
            let writers: Vec<_> = (0..4).map(writer).collect();
            until(|| log.end_offset() > at(40));
            log.close().unwrap();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        drop(log);
        let log = site.open();
        assert!(log.recovery().is_clean());
        let mut reader = Reader::default();
        reader.follow(&mut log.cursor(Seek::Start).unwrap(), log.end_offset().get());
        for (thread, end) in (0..).zip(ends) {
            let there = reader.next.get(format!("{thread}").as_bytes()).copied();
            assert!(there.unwrap_or_default() >= end);
        }
    }
}

/// How many were acknowledged.
fn append_until_closed(log: &Log, thread: u64) -> u64 {
    for nth in 0.. {
        let level = LEVELS[usize::try_from(nth % 3).unwrap()];
        if let Err(error) = log.append_with(level, signed(thread, nth)) {
            assert_eq!(error.kind(), ErrorKind::Closed);
            return nth;
        }
    }
    unreachable!()
}

#[test]
fn all_cursors_that_wait_are_woken() {
    let log = Site::memory().open();
    thread::scope(|scope| {
        for _ in 0..16 {
            let mut cursor = log.cursor(Seek::Start).unwrap();
            scope.spawn(move || Reader::default().follow(&mut cursor, 100));
        }
        for nth in 0..100 {
            log.append(signed(0, nth)).unwrap();
        }
    });
}

#[test]
fn rolls_of_many_threads_lose_nothing() {
    let site = Site::memory();
    let log = site.open();
    thread::scope(|scope| {
        for thread in 0..4 {
            let log = &log;
            scope.spawn(move || {
                for nth in 0..50 {
                    log.append_with(Durability::Buffered, signed(thread, nth)).unwrap();
                    log.roll().unwrap();
                }
            });
        }
    });
    log.close().unwrap();
    assert!(site.segments().len() <= 200);
    let log = site.open();
    Reader::default().follow(&mut log.cursor(Seek::Start).unwrap(), 200);
}
