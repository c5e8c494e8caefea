//! Futures and the background thread: woken once and under no lock, cancelled, stopped.

use crate::support::after_close;
use crate::support::begun;
use crate::support::disk::Disk;
use crate::support::explore;
use crate::support::open_with;
use crate::support::spawn;
use loom::sync::Notify;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use stratalog::{Durability, ErrorKind, Log, Maintenance, Result, Wait};

/// Wakes a thread that looks for itself, and counts.
#[derive(Debug, Default)]
struct Alarm {
    token: Notify,
    rings: AtomicUsize,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.rings.fetch_add(1, Ordering::Relaxed);
        self.token.notify();
    }
}

fn poll(wait: &mut Wait, waker: &Waker) -> Poll<Result<()>> {
    Pin::new(wait).poll(&mut Context::from_waker(waker))
}

/// Waits for a future, which wakes its task once at most.
fn block_on(mut wait: Wait) -> Result<()> {
    let alarm = Arc::new(Alarm::default());
    let waker = Waker::from(Arc::clone(&alarm));
    loop {
        match poll(&mut wait, &waker) {
            Poll::Ready(outcome) => {
                assert!(alarm.rings.load(Ordering::Relaxed) <= 1);
                return outcome;
            }
            Poll::Pending => alarm.token.wait(),
        }
    }
}

#[test]
fn a_future_beside_a_sync() {
    explore("a future beside a sync", None, || {
        let log = begun(&Disk::default(), Durability::Synced);
        let offset = log.append_with(Durability::Buffered, "1").unwrap();
        let wait = log.wait_async(offset, Durability::Synced);
        let task = spawn(move || block_on(wait));
        log.sync().unwrap();
        task.join().unwrap().unwrap();
    });
}

#[test]
fn a_future_that_is_dropped_beside_a_sync() {
    explore("a future that is dropped beside a sync", None, || {
        let log = begun(&Disk::default(), Durability::Synced);
        let offset = log.append_with(Durability::Buffered, "1").unwrap();
        let mut dropped = log.wait_async(offset, Durability::Synced);
        let kept = log.wait_async(offset, Durability::Synced);
        let task = spawn(move || {
            let alarm = Arc::new(Alarm::default());
            let before = poll(&mut dropped, &Waker::from(Arc::clone(&alarm)));
            drop(dropped);
            // Whoever wakes it may hold it still, but nobody else does.
            assert!(before.is_ready() || Arc::strong_count(&alarm) <= 2);
        });
        log.sync().unwrap();
        task.join().unwrap();
        block_on(kept).unwrap();
    });
}

/// What a task does when it is woken: anything, on the thread that wakes it.
struct Then<F>(Mutex<Option<F>>);

impl<F: FnOnce() + Send + 'static> Then<F> {
    fn waker(run: F) -> Waker {
        Waker::from(Arc::new(Self(Mutex::new(Some(run)))))
    }
}

impl<F: FnOnce() + Send + 'static> Wake for Then<F> {
    fn wake(self: Arc<Self>) {
        let run = self.0.lock().unwrap().take();
        run.into_iter().for_each(|run| run());
    }
}

type Use = fn(&Log);

/// A task that is woken uses the log; under a lock of the log that would wait for itself.
#[test]
fn a_task_that_uses_the_log_when_it_is_woken() {
    let uses: [(&str, Use); 3] = [
        ("a task that appends when it is woken", |log| {
            log.append("then").unwrap();
        }),
        ("a task that rolls when it is woken", |log| log.roll().unwrap()),
        ("a task that closes when it is woken", |log| log.close().unwrap()),
    ];
    for (name, call) in uses {
        explore(name, None, move || {
            let log = begun(&Disk::default(), Durability::Synced);
            let offset = log.append_with(Durability::Buffered, "1").unwrap();
            let mut wait = log.wait_async(offset, Durability::Synced);
            let used = log.clone();
            let waker = Then::waker(move || call(&used));
            let task = spawn(move || poll(&mut wait, &waker).is_ready().then_some(()).ok_or(wait));
            log.sync().unwrap();
            if let Err(wait) = task.join().unwrap() {
                block_on(wait).unwrap();
            }
        });
    }
}

/// A task that waits for a level, and what tells it: each from another place.
struct Telling {
    name: &'static str,
    level: Durability,
    cause: fn(&Disk),
    call: fn(&Log) -> Result<()>,
}

const TELLINGS: [Telling; 5] = [
    Telling {
        name: "a task that is told of a failed sync",
        level: Durability::Synced,
        cause: Disk::lose_what_is_synced_next,
        call: Log::sync,
    },
    Telling {
        name: "a task that is told of a refused write",
        level: Durability::Synced,
        cause: |disk| disk.refuse_write(0, 0),
        call: Log::sync,
    },
    Telling {
        name: "a task that is told of a leader's write",
        level: Durability::Written,
        cause: |_| {},
        call: Log::sync,
    },
    Telling {
        name: "a task that is told of a write",
        level: Durability::Written,
        cause: |_| {},
        call: |log| log.append_with(Durability::Written, "2").map(drop),
    },
    Telling {
        name: "a task that is told of a write refused to another",
        level: Durability::Written,
        cause: |disk| disk.refuse_write(0, 0),
        call: |log| log.append_with(Durability::Written, "2").map(drop),
    },
];

#[test]
fn a_task_that_uses_the_log_whoever_tells_it() {
    for Telling { name, level, cause, call } in TELLINGS {
        explore(name, None, move || {
            let disk = Disk::default();
            let log = begun(&disk, Durability::Synced);
            let offset = log.append_with(Durability::Buffered, "1").unwrap();
            let mut wait = log.wait_async(offset, level);
            let used = log.clone();
            let waker = Then::waker(move || drop((used.append("then"), used.close())));
            assert!(poll(&mut wait, &waker).is_pending());
            cause(&disk);
            drop(call(&log));
            assert!(poll(&mut wait, Waker::noop()).is_ready());
        });
    }
}

fn with_thread(disk: &Disk) -> Log {
    let log = open_with(disk, |options| {
        options.maintenance(Maintenance::Background).sync_interval(Duration::from_secs(3600))
    });
    log.append("0").unwrap();
    log
}

#[test]
fn the_background_thread_syncs_for_a_future() {
    explore("the background thread syncs for a future", Some(5), || {
        let disk = Disk::default();
        let log = with_thread(&disk);
        let offset = log.append_with(Durability::Buffered, "1").unwrap();
        block_on(log.wait_async(offset, Durability::Synced)).unwrap();
        log.close().unwrap();
        assert_eq!(after_close(&disk, log), ["0", "1"]);
    });
}

#[test]
fn the_background_thread_stops_among_calls() {
    explore("the background thread stops among calls", Some(3), || {
        let disk = Disk::default();
        let log = with_thread(&disk);
        let offset = log.append_with(Durability::Buffered, "1").unwrap();
        let wait = log.wait_async(offset, Durability::Synced);
        let task = spawn(move || block_on(wait));
        log.close().unwrap();
        let outcome = task.join().unwrap();
        assert!(outcome.is_ok_and(|()| true));
        assert_eq!(after_close(&disk, log), ["0", "1"]);
    });
}

/// The background thread tells a task, and the task lets go of the last handle.
#[test]
fn a_task_lets_go_of_the_last_handle() {
    explore("a task lets go of the last handle", Some(3), || {
        let disk = Disk::default();
        let log = with_thread(&disk);
        let offset = log.append_with(Durability::Buffered, "1").unwrap();
        let mut wait = log.wait_async(offset, Durability::Synced);
        let gone = Arc::new(Alarm::default());
        let tells = Arc::clone(&gone);
        let last = Mutex::new(Some(log.clone()));
        let waker = Then::waker(move || {
            drop(last.lock().unwrap().take());
            tells.token.notify();
        });
        drop(log);
        match poll(&mut wait, &waker) {
            Poll::Pending => gone.token.wait(),
            Poll::Ready(outcome) => {
                outcome.unwrap();
                waker.wake();
            }
        }
    });
}

#[test]
fn a_future_of_a_closed_log() {
    explore("a future beside close", None, || {
        let log = begun(&Disk::default(), Durability::Synced);
        let cursor = log.cursor(stratalog::Seek::End).unwrap();
        let task = spawn(move || {
            let mut cursor = cursor;
            block_on(cursor.wait_async())
        });
        log.close().unwrap();
        assert_eq!(task.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
}
