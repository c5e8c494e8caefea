//! Waiting as a future: ready when some call syncs, woken once, tied to no executor.

use crate::support::LONG;
use crate::support::Site;
use crate::support::append_all;
use crate::support::at;
use crate::support::ends;
use crate::support::gate::GateStorage;
use crate::support::tail;
use crate::support::task::Alarm;
use crate::support::task::block_on;
use crate::support::task::poll_to_panic;
use crate::support::until;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;
use stratalog::{Durability, ErrorKind, Log, Maintenance, Options, Seek, Wait};

#[track_caller]
fn assert_ready(poll: &Poll<stratalog::Result<()>>) {
    assert!(matches!(poll, Poll::Ready(Ok(()))), "{poll:?}");
}

#[track_caller]
fn assert_failed(poll: Poll<stratalog::Result<()>>, kind: ErrorKind) {
    let Poll::Ready(Err(error)) = poll else { panic!("{poll:?}") };
    assert_eq!(error.kind(), kind);
}

fn buffered(log: &Log) -> Wait {
    let offset = log.append_with(Durability::Buffered, "x").unwrap();
    log.wait_async(offset, Durability::Synced)
}

#[test]
fn what_is_reached_is_ready_at_once() {
    let log = Site::memory().open();
    append_all(&log, &tail(3));
    for level in [Durability::Buffered, Durability::Written, Durability::Synced] {
        block_on(log.wait_async(at(2), level)).unwrap();
    }
    log.append_with(Durability::Buffered, "x").unwrap();
    block_on(log.wait_async(at(3), Durability::Buffered)).unwrap();
    block_on(log.cursor(Seek::Start).unwrap().wait_async()).unwrap();
}

#[test]
fn what_is_not_there_is_out_of_range() {
    let log = Site::memory().open();
    append_all(&log, &tail(3));
    let error = block_on(log.wait_async(at(3), Durability::Synced)).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::OutOfRange, Some(at(3))));
}

#[test]
fn without_a_thread_it_is_ready_when_some_call_syncs() {
    let calls: [fn(&Log); 5] = [
        |log| log.sync().unwrap(),
        |log| assert!(log.append("synced").is_ok()),
        |log| log.wait(at(0), Durability::Synced).unwrap(),
        |log| log.roll().unwrap(),
        |log| log.close().unwrap(),
    ];
    for call in calls {
        let log = Site::memory().open();
        let (alarm, mut wait) = (Alarm::new(), buffered(&log));
        for _ in 0..3 {
            assert!(alarm.poll(&mut wait).is_pending());
        }
        log.append_with(Durability::Written, "does not sync").unwrap();
        assert_eq!((alarm.rings(), log.durable_offset()), (0, at(0)));
        call(&log);
        assert_eq!(alarm.rings(), 1);
        assert_ready(&alarm.poll(&mut wait));
    }
}

#[test]
fn each_level_is_waited_for_by_itself() {
    let log = Site::memory().open();
    let alarm = Alarm::new();
    let mut synced = buffered(&log);
    let mut written = log.wait_async(at(0), Durability::Written);
    assert!(alarm.poll(&mut written).is_pending());
    assert!(alarm.poll(&mut synced).is_pending());
    log.append_with(Durability::Written, "x").unwrap();
    assert_ready(&alarm.poll(&mut written));
    assert!(alarm.poll(&mut synced).is_pending());
    log.sync().unwrap();
    assert_ready(&alarm.poll(&mut synced));
}

#[test]
fn the_last_task_that_looked_is_woken() {
    let log = Site::memory().open();
    let (before, now, mut wait) = (Alarm::new(), Alarm::new(), buffered(&log));
    assert!(before.poll(&mut wait).is_pending());
    assert!(now.poll(&mut wait).is_pending());
    log.sync().unwrap();
    assert_eq!(now.rings(), 1);
    assert_ready(&now.poll(&mut wait));
}

#[test]
fn it_need_not_be_polled_before() {
    let log = Site::memory().open();
    let wait = buffered(&log);
    log.sync().unwrap();
    block_on(wait).unwrap();
}

#[test]
fn dropping_one_leaves_the_others() {
    let log = Site::memory().open();
    let alarm = Alarm::new();
    let mut waits: Vec<_> = (0..10).map(|_| buffered(&log)).collect();
    for wait in &mut waits {
        assert!(alarm.poll(wait).is_pending());
    }
    waits.drain(2..7);
    log.sync().unwrap();
    assert!(waits.into_iter().all(|wait| block_on(wait).is_ok()));
}

/// Else a task that gives up again and again, in a log where nothing happens, fills the memory.
#[test]
fn a_dropped_future_lets_go_of_its_task() {
    let log = Site::memory().open();
    let mut cursor = log.cursor(Seek::Start).unwrap();
    for mut wait in [cursor.wait_async(), buffered(&log)] {
        let alarm = Alarm::new();
        assert!(alarm.poll(&mut wait).is_pending());
        drop(wait);
        assert_eq!(Arc::strong_count(&alarm), 1);
    }
}

#[test]
fn one_sync_is_enough_for_a_thousand() {
    let storage = GateStorage::default();
    let log = Site::over(Arc::new(storage.clone())).open();
    log.append("begin the segment").unwrap();
    let waits: Vec<_> = (0..1000).map(|_| buffered(&log)).collect();
    let before = storage.syncs();
    log.sync().unwrap();
    assert_eq!(storage.syncs() - before, 1);
    assert!(waits.into_iter().all(|wait| block_on(wait).is_ok()));
}

#[test]
fn a_future_outlives_the_handles() {
    let log = Site::memory().open();
    let wait = buffered(&log);
    let mut cursor = log.cursor(Seek::Offset(at(1))).unwrap();
    let more = cursor.wait_async();
    drop(log);
    block_on(wait).unwrap();
    assert_eq!(block_on(more).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn the_background_thread_syncs_for_those_who_wait() {
    let site = Site::disk().options(|options| {
        options.maintenance(Maintenance::Background).sync_interval(Duration::MAX)
    });
    let log = site.open();
    for _ in 0..20 {
        block_on(buffered(&log)).unwrap();
    }
    assert_eq!(log.durable_offset(), at(20));
}

#[test]
fn a_cursor_waits_without_being_borrowed() {
    let log = Site::memory().open();
    let mut cursor = log.cursor(Seek::Start).unwrap();
    let (alarm, mut wait) = (Alarm::new(), cursor.wait_async());
    assert!(alarm.poll(&mut wait).is_pending());
    assert!(cursor.next().unwrap().is_none());
    log.append_with(Durability::Buffered, "not synced").unwrap();
    assert!(alarm.poll(&mut wait).is_pending());
    log.sync().unwrap();
    assert_eq!(alarm.rings(), 1);
    assert_ready(&alarm.poll(&mut wait));
    assert_eq!(cursor.next().unwrap().unwrap().value(), b"not synced");
}

#[test]
fn a_cursor_of_a_buffered_log_is_woken_by_the_append() {
    let log = Site::memory().options(|options| options.durability(Durability::Buffered)).open();
    let mut cursor = log.cursor(Seek::Start).unwrap();
    let (alarm, mut wait) = (Alarm::new(), cursor.wait_async());
    assert!(alarm.poll(&mut wait).is_pending());
    log.append("seen").unwrap();
    assert_eq!(alarm.rings(), 1);
    assert_ready(&alarm.poll(&mut wait));
    assert_eq!(log.durable_offset(), at(0));
}

#[test]
fn closing_ends_the_futures_of_cursors() {
    let log = Site::memory().open();
    let mut cursor = log.cursor(Seek::End).unwrap();
    let (alarm, mut wait) = (Alarm::new(), cursor.wait_async());
    assert!(alarm.poll(&mut wait).is_pending());
    log.close().unwrap();
    assert_eq!(alarm.rings(), 1);
    assert_failed(alarm.poll(&mut wait), ErrorKind::Closed);
    assert_failed(alarm.poll(&mut cursor.wait_async()), ErrorKind::Closed);
}

#[test]
fn a_future_is_ready_when_a_sync_of_another_thread_ends() {
    let storage = GateStorage::default();
    let log = Site::over(Arc::new(storage.clone())).open();
    log.append("begin the segment").unwrap();
    let (alarm, mut wait) = (Alarm::new(), buffered(&log));
    thread::scope(|scope| {
        let held = storage.hold();
        scope.spawn(|| log.sync().unwrap());
        storage.wait_for_sync();
        assert!(alarm.poll(&mut wait).is_pending());
        drop(held);
        until(|| alarm.rings() == 1);
    });
    assert_ready(&alarm.poll(&mut wait));
}

/// The background thread is called while another one leads, and can do nothing then.
#[test]
fn a_future_that_asks_during_a_sync_of_another_thread_is_not_left_waiting() {
    for level in [Durability::Written, Durability::Synced] {
        let storage = GateStorage::default();
        let site = Site::over(Arc::new(storage.clone())).options(|options| {
            options.maintenance(Maintenance::Background).sync_interval(Duration::MAX)
        });
        let log = site.open();
        log.append("begin the segment").unwrap();
        let alarm = Alarm::new();
        let mut wait = thread::scope(|scope| {
            let held = storage.hold();
            scope.spawn(|| log.append("leads").unwrap());
            storage.wait_for_sync();
            let offset = log.append_with(Durability::Buffered, "x").unwrap();
            let mut wait = log.wait_async(offset, level);
            assert!(alarm.poll(&mut wait).is_pending());
            // Until the thread has looked.
            thread::park_timeout(Duration::from_millis(50));
            drop(held);
            wait
        });
        until(|| alarm.rings() == 1);
        assert_ready(&alarm.poll(&mut wait));
    }
}

/// The background thread wakes a task, and the task lets go of the log, on that thread.
#[test]
fn a_task_may_let_go_of_the_last_handle_when_it_is_woken() {
    struct LetGo(Mutex<Option<Log>>, mpsc::Sender<()>);
    impl Wake for LetGo {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
            self.1.send(()).unwrap();
        }
    }
    let storage = GateStorage::default();
    let background = |options: Options| options.maintenance(Maintenance::Background);
    let site = Site::over(Arc::new(storage.clone())).options(background);
    let log = site.open();
    log.append("begin the segment").unwrap();
    let held = storage.hold();
    let mut wait = buffered(&log);
    let (gone, is_gone) = mpsc::channel();
    let waker = Waker::from(Arc::new(LetGo(Mutex::new(Some(log)), gone)));
    assert!(Pin::new(&mut wait).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(held);
    is_gone.recv_timeout(LONG).unwrap();
    assert_eq!(site.open().end_offset(), at(2));
}

/// The waker of before goes when another takes its place, and with it the last handle.
#[test]
fn a_task_may_let_go_of_the_last_handle_when_another_takes_its_place() {
    struct Owns(#[expect(dead_code, reason = "it is held, not used")] Log);
    impl Wake for Owns {
        fn wake(self: Arc<Self>) {}
    }
    ends(|| {
        let site = Site::memory();
        let log = site.open();
        let mut wait = buffered(&log);
        let waker = Waker::from(Arc::new(Owns(log)));
        assert!(Pin::new(&mut wait).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut wait).poll(&mut context).is_pending());
        assert_ready(&Pin::new(&mut wait).poll(&mut context));
        assert_eq!(site.open().end_offset(), at(1));
    });
}

/// A leader's write is told of before its sync, and a task that hears of it may need a leader.
#[test]
fn a_task_may_close_the_log_when_a_leader_wakes_it() {
    struct Close(Log);
    impl Wake for Close {
        fn wake(self: Arc<Self>) {
            self.0.close().unwrap();
        }
    }
    let (done, is_done) = mpsc::channel();
    let work = move || {
        let log = Site::memory().open();
        let offset = log.append_with(Durability::Buffered, "x").unwrap();
        let mut wait = log.wait_async(offset, Durability::Written);
        let waker = Waker::from(Arc::new(Close(log.clone())));
        assert!(Pin::new(&mut wait).poll(&mut Context::from_waker(&waker)).is_pending());
        log.append("leads").unwrap();
        block_on(wait).unwrap();
        done.send(()).unwrap();
    };
    let thread = thread::Builder::new().spawn(work).unwrap();
    is_done.recv_timeout(LONG).unwrap();
    thread.join().unwrap();
}

/// The panic is told to whoever woke the task, when all the others have been told.
#[test]
fn a_task_that_panics_when_it_is_woken_leaves_no_other_untold() {
    let log = Site::memory().open();
    let (alarm, mut waits) = (Alarm::new(), [(); 3].map(|()| buffered(&log)));
    let [before, panics, behind] = &mut waits;
    assert!(alarm.poll(before).is_pending() && alarm.poll(behind).is_pending());
    poll_to_panic(panics);
    let mut cursor = log.cursor(Seek::Offset(at(2))).unwrap();
    let (waited, has_waited) = mpsc::channel();
    let wait = move || waited.send(cursor.wait(Duration::MAX)).unwrap();
    let thread = thread::Builder::new().spawn(wait).unwrap();
    // Until it waits.
    thread::park_timeout(Duration::from_millis(50));
    assert!(catch_unwind(AssertUnwindSafe(|| log.sync())).is_err());
    assert_eq!(alarm.rings(), 2);
    has_waited.recv_timeout(LONG).unwrap().unwrap();
    thread.join().unwrap();
    log.append("the log goes on").unwrap();
}

#[test]
fn a_task_that_panics_does_not_end_the_background_thread() {
    let storage = GateStorage::default();
    let site = Site::over(Arc::new(storage.clone()));
    let log = site.options(|options| options.maintenance(Maintenance::Background)).open();
    log.append("begin the segment").unwrap();
    for round in 2..5 {
        let held = storage.hold();
        let mut wait = buffered(&log);
        poll_to_panic(&mut wait);
        drop(held);
        until(|| log.durable_offset() == at(round));
    }
    until(|| log.stats().last_error.is_some());
    let error = log.stats().last_error.unwrap();
    assert!(error.to_string().contains("panicked"), "{error}");
}

#[test]
fn a_task_that_panics_in_an_append_does_not_keep_the_record_from_being_synced() {
    let site = Site::memory().options(|options| {
        options.maintenance(Maintenance::Background).durability(Durability::Buffered)
    });
    let log = site.open();
    let mut more = log.cursor(Seek::End).unwrap().wait_async();
    poll_to_panic(&mut more);
    assert!(catch_unwind(AssertUnwindSafe(|| log.append("x"))).is_err());
    until(|| log.durable_offset() == at(1));
}
