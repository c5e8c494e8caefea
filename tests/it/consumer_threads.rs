//! Consumers on threads of their own, beside appends, retention, truncation and each other.

use crate::support::LONG;
use crate::support::Site;
use crate::support::append_all;
use crate::support::at;
use crate::support::full;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;
use stratalog::{Consumer, Durability, ErrorKind, Log, Maintenance, Offset, Retention, Seek};

const RECORDS: u64 = 2000;

fn outbox(site: Site) -> Site {
    let retention = Retention::new().max_age(Duration::ZERO).keep_unread(true);
    site.small_segments().options(|options| {
        let options = options.durability(Durability::Written);
        options.retention(retention).maintenance(Maintenance::Background)
    })
}

/// Reads to the end with a commit after each `every` records; each one is there.
fn consume(log: &Log, name: &str, every: u64) {
    let mut consumer = log.consumer(name).unwrap();
    let mut expected = consumer.position();
    while expected < at(RECORDS) {
        match consumer.next().unwrap().map(|entry| entry.offset()) {
            Some(offset) => {
                assert_eq!(offset, expected, "{name} missed a record");
                expected = offset + 1;
                if offset.get() % every == 0 {
                    consumer.commit().unwrap();
                }
                // Now and then it is somebody else's turn.
                if offset.get() % 97 == 0 {
                    consumer.commit().unwrap();
                    drop(consumer);
                    consumer = log.consumer(name).unwrap();
                    assert_eq!(consumer.position(), expected);
                }
            }
            None => drop(consumer.wait(LONG).unwrap()),
        }
    }
    consumer.commit().unwrap();
}

#[test]
fn consumers_beside_appends_and_retention_miss_nothing() {
    for site in [Site::memory(), Site::disk()].map(outbox) {
        let log = site.open();
        // They have to be there before something is removed.
        for name in ["a", "b", "c"] {
            log.consumer(name).unwrap();
        }
        thread::scope(|scope| {
            for (name, every) in [("a", 1), ("b", 7), ("c", 50)] {
                let log = &log;
                scope.spawn(move || consume(log, name, every));
            }
            for number in 0..RECORDS {
                log.append(format!("{number:0100}")).unwrap();
            }
        });
        assert!(log.start_offset() > at(0), "nothing was removed");
        log.roll().unwrap();
        log.maintain().unwrap();
        assert_eq!(log.start_offset(), at(RECORDS));
    }
}

/// A consumer that is created while retention decides what goes begins before that, and is waited
/// for, or behind it: it never finds its place gone.
#[test]
fn a_new_consumer_never_loses_its_start() {
    for site in [Site::memory(), Site::disk()].map(outbox) {
        let site = site.options(|options| options.maintenance(Maintenance::Manual));
        let log = site.open();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..300 {
                    append_all(&log, &full(2));
                    log.enforce_retention().unwrap();
                }
                done.store(true, Ordering::SeqCst);
            });
            let mut begun = 0;
            while !done.load(Ordering::SeqCst) || begun == 0 {
                let mut consumer = log.consumer("new").unwrap();
                let begin = consumer.position();
                // Here it is the turn of retention, which may not pass it.
                thread::yield_now();
                match consumer.next() {
                    Ok(entry) => assert!(entry.is_none_or(|entry| entry.offset() == begin)),
                    Err(error) => panic!("begun at {begin}, and then: {error}"),
                }
                assert!(log.start_offset() <= begin);
                drop(consumer);
                assert!(log.remove_consumer("new").unwrap());
                begun += 1;
            }
        });
    }
}

/// Commits and truncations at once: no position is ever behind the end, and who is cut is told.
#[test]
fn consumers_beside_truncation_stay_within_the_log() {
    for site in [Site::memory(), Site::disk()] {
        let site = site.options(|options| options.durability(Durability::Written));
        let log = site.open();
        thread::scope(|scope| {
            let readers = ["a", "b"].map(|name| {
                let mut consumer = log.consumer(name).unwrap();
                consumer.commit().unwrap();
                scope.spawn(move || commit_until_closed(consumer))
            });
            for number in 0..200_u64 {
                log.append_batch(["x", "y", "z"]).unwrap();
                if number % 5 == 4 {
                    let end = log.end_offset();
                    let back = end.checked_sub(11).unwrap_or(end);
                    log.truncate_to(back).unwrap();
                    for consumer in log.consumers().unwrap() {
                        assert!(consumer.committed.unwrap() <= back, "{consumer:?}");
                    }
                }
            }
            let end = log.end_offset();
            log.close().unwrap();
            for reader in readers {
                assert!(reader.join().unwrap() <= end);
            }
        });
        let (log, mut found) = (site.open(), 0);
        for consumer in log.consumers().unwrap() {
            assert!(consumer.committed.unwrap() <= log.end_offset());
            found += 1;
        }
        assert_eq!(found, 2);
    }
}

fn commit_until_closed(mut consumer: Consumer) -> Offset {
    loop {
        let error = match consumer.next() {
            Ok(Some(_)) => consumer.commit().err(),
            Ok(None) => consumer.wait(LONG).err(),
            Err(error) => Some(error),
        };
        match error {
            None => {}
            Some(error) if error.kind() == ErrorKind::OutOfRange => {
                // That place may be gone by now as well.
                drop(consumer.seek(Seek::Offset(consumer.committed())));
            }
            Some(error) => {
                assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                return consumer.committed();
            }
        }
    }
}

/// Whoever is woken by a cut may use consumers there and then: no lock is held.
#[test]
fn who_is_told_may_use_consumers() {
    let log = Site::memory().small_segments().open();
    append_all(&log, &full(3));
    let mut consumer = log.consumer("a").unwrap();
    consumer.seek(Seek::End).unwrap();
    for cuts in [true, false] {
        log.append_with(Durability::Buffered, "x").unwrap();
        let last = log.end_offset() - 1;
        let mut wait = log.wait_async(last, Durability::Synced);
        let told = Arc::new(Told { log: log.clone(), count: AtomicUsize::new(0) });
        let waker = Waker::from(Arc::clone(&told));
        let polled = Pin::new(&mut wait).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        if cuts {
            log.truncate_to(last).unwrap();
        } else {
            log.delete_before(last + 5).unwrap();
        }
        assert_eq!(told.count.load(Ordering::SeqCst), 1);
    }
}

/// Looks at the consumers as soon as it is woken, on the thread that wakes it.
struct Told {
    log: Log,
    count: AtomicUsize,
}

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        assert_eq!(self.log.consumers().unwrap().len(), 1);
        self.log.consumer("b").unwrap();
        assert!(self.log.remove_consumer("b").unwrap());
        self.count.fetch_add(1, Ordering::SeqCst);
    }
}
