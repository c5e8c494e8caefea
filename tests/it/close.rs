//! Who may close a log, and from where: a second thread, tasks that are woken, callbacks of a run.

use crate::support::LONG;
use crate::support::Site;
use crate::support::assert_kind;
use crate::support::at;
use crate::support::ends;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::gate::GateStorage;
use crate::support::task::Alarm;
use crate::support::until;
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;
use stratalog::{
    Compaction, Durability, ErrorKind, Log, Maintenance, Options, Retention, Seek, Wait,
};

/// A task that is run where it is woken.
struct Run<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Run<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

/// Runs `task` when the future is ready.
fn when_ready(wait: &mut Wait, task: impl Fn() + Send + Sync + 'static) {
    let waker = Waker::from(Arc::new(Run(task)));
    assert!(Pin::new(wait).poll(&mut Context::from_waker(&waker)).is_pending());
}

fn buffered(log: &Log) -> Wait {
    let offset = log.append_with(Durability::Buffered, "x").unwrap();
    log.wait_async(offset, Durability::Synced)
}

fn background(options: Options) -> Options {
    options.maintenance(Maintenance::Background)
}

#[test]
fn a_task_that_close_wakes_may_close_and_open_the_log() {
    ends(|| {
        let site = Arc::new(Site::memory());
        let log = site.open();
        let mut more = log.cursor(Seek::End).unwrap().wait_async();
        let (opened, closed) = (Arc::new(Mutex::new(None)), log.clone());
        let (into, place) = (Arc::clone(&opened), Arc::clone(&site));
        when_ready(&mut more, move || {
            closed.close().unwrap();
            *into.lock().unwrap() = Some(place.open());
        });
        log.close().unwrap();
        opened.lock().unwrap().take().unwrap().append("x").unwrap();
    });
}

/// It waits for what the sync that is a part of closing makes durable.
#[test]
fn a_task_that_the_sync_of_close_wakes_may_close_the_log() {
    ends(|| {
        let site = Site::memory();
        let log = site.open();
        let mut wait = buffered(&log);
        let closed = log.clone();
        when_ready(&mut wait, move || closed.close().unwrap());
        log.close().unwrap();
        assert_eq!(site.open().end_offset(), at(1));
    });
}

/// Looks until some thread closes the log.
fn until_closing(log: &Log) {
    until(|| {
        let appended = log.append_with(Durability::Buffered, "x");
        appended.is_err_and(|error| error.kind() == ErrorKind::Closed)
    });
}

/// A log with threads in a storage with a gate, and its first segment.
fn gated(options: impl FnOnce(Options) -> Options) -> (GateStorage, Site, Log) {
    let storage = GateStorage::default();
    let site = Site::over(Arc::new(storage.clone())).options(background).options(options);
    let log = site.open();
    log.append("begin the segment").unwrap();
    (storage, site, log)
}

/// Runs `task` on a thread of the log, unless the future is dropped.
fn run_there(storage: &GateStorage, log: &Log, task: impl Fn() + Send + Sync + 'static) -> Wait {
    let held = storage.hold();
    let mut wait = buffered(log);
    when_ready(&mut wait, task);
    drop(held);
    wait
}

/// The one that closes waits for the thread that wakes the task.
#[test]
fn a_task_on_a_thread_of_the_log_may_close_it_while_another_thread_does() {
    ends(|| {
        let (storage, site, log) = gated(|options| options);
        let (woken, is_woken) = mpsc::channel();
        let closed = Arc::new(AtomicBool::new(false));
        let (other, is_closed) = (log.clone(), Arc::clone(&closed));
        let _wait = run_there(&storage, &log, move || {
            woken.send(()).unwrap();
            until_closing(&other);
            other.close().unwrap();
            is_closed.store(true, Ordering::Release);
        });
        is_woken.recv().unwrap();
        log.close().unwrap();
        assert!(closed.load(Ordering::Acquire), "the thread of the log has ended");
        assert!(site.try_open().is_ok());
    });
}

/// The task waits for the end of the run, whose thread must not wait for that of the task.
#[test]
fn a_task_and_a_callback_of_a_run_may_close_the_log_at_once() {
    a_task_waits_for_a_run_that_closes(|log| log.close().unwrap());
}

#[test]
fn a_task_may_compact_while_a_callback_of_a_run_closes_the_log() {
    a_task_waits_for_a_run_that_closes(|log| assert_kind(log.compact(), ErrorKind::Closed));
}

fn a_task_waits_for_a_run_that_closes(task: fn(&Log)) {
    ends(move || {
        let cell: Arc<Mutex<Option<(GateStorage, Log)>>> = Arc::default();
        let inner = Arc::clone(&cell);
        let compaction = Compaction::new().min_lag(Duration::from_secs(3600)).progress(move |_| {
            let Some((storage, log)) = inner.lock().unwrap().take() else {
                return ControlFlow::Continue(());
            };
            let (woken, is_woken) = mpsc::channel();
            let other = log.clone();
            let _wait = run_there(&storage, &log, move || {
                woken.send(()).unwrap();
                task(&other);
            });
            is_woken.recv_timeout(LONG).unwrap();
            // Until it waits for this run.
            thread::park_timeout(Duration::from_millis(100));
            log.close().unwrap();
            ControlFlow::Continue(())
        });
        let (storage, site, log) = gated(|options| options.compaction(compaction));
        log.roll().unwrap();
        *cell.lock().unwrap() = Some((storage, log.clone()));
        assert!(log.compact().unwrap().is_stopped());
        log.close().unwrap();
        assert!(site.try_open().is_ok());
    });
}

#[test]
fn who_closes_second_waits_for_the_first() {
    let storage = GateStorage::default();
    let site = Site::over(Arc::new(storage.clone()));
    let log = site.open();
    log.append("begin the segment").unwrap();
    log.append_with(Durability::Buffered, "x").unwrap();
    thread::scope(|scope| {
        let held = storage.hold();
        let first = scope.spawn(|| log.close());
        storage.wait_for_sync();
        let second = scope.spawn(|| log.close().map(|()| site.open().end_offset()));
        thread::park_timeout(Duration::from_millis(100));
        let has_returned = second.is_finished();
        drop(held);
        assert!(!has_returned, "the log was open");
        assert_eq!(second.join().unwrap().unwrap(), at(2));
        first.join().unwrap().unwrap();
    });
}

#[test]
fn a_task_that_panics_does_not_keep_the_log_open() {
    for is_synced in [false, true] {
        let site = Site::memory().options(background);
        let site = site.options(|options| options.sync_interval(Duration::MAX));
        let log = site.open();
        let mut waits = [(); 2].map(|()| log.cursor(Seek::End).unwrap().wait_async());
        if is_synced {
            log.append_with(Durability::Buffered, "x").unwrap();
        }
        let alarm = Alarm::new();
        when_ready(&mut waits[0], || panic!("as it is meant"));
        assert!(alarm.poll(&mut waits[1]).is_pending());
        let closed = catch_unwind(AssertUnwindSafe(|| log.close()));
        assert!(closed.is_err(), "the panic is told");
        assert_eq!(alarm.rings(), 1);
        log.close().unwrap();
        assert_eq!(site.open().end_offset(), at(u64::from(is_synced)));
    }
}

/// Each is woken by an attempt of close to write what does not fit on the disk.
#[test]
fn tasks_that_panic_one_after_the_other_do_not_keep_the_log_open() {
    let machine = FaultyStorage::memory();
    let site = Site::over(machine.process());
    let log = site.open();
    log.append("begin the segment").unwrap();
    machine.inject(Fault::new(Op::Write, io::ErrorKind::StorageFull).on(".log").forever());
    let mut wait = buffered(&log);
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (other, keep) = (log.clone(), Arc::clone(&kept));
    when_ready(&mut wait, move || {
        let mut again = other.wait_async(at(1), Durability::Synced);
        let waker = Waker::from(Arc::new(Run(|| panic!("as it is meant"))));
        drop(Pin::new(&mut again).poll(&mut Context::from_waker(&waker)));
        keep.lock().unwrap().push(again);
        panic!("as it is meant");
    });
    assert!(catch_unwind(AssertUnwindSafe(|| log.close())).is_err());
    assert_kind(log.close(), ErrorKind::StorageFull);
    machine.heal();
    assert_eq!(site.try_open().unwrap().end_offset(), at(1));
}

/// A handle that goes while a thread panics must not panic as well, which would end the process.
#[test]
fn letting_go_of_a_log_does_not_panic_for_a_task() {
    let site = Site::memory();
    let log = site.open();
    let mut wait = log.cursor(Seek::End).unwrap().wait_async();
    when_ready(&mut wait, || panic!("as it is meant"));
    drop(log);
    site.open();
}

#[test]
fn the_callback_for_errors_may_close_the_log_while_another_thread_does() {
    ends(|| {
        let machine = FaultyStorage::memory();
        let cell: Arc<Mutex<Option<Log>>> = Arc::default();
        let inner = Arc::clone(&cell);
        let (told, is_told) = mpsc::channel();
        let closed = Arc::new(AtomicBool::new(false));
        let is_closed = Arc::clone(&closed);
        let site = Site::over(machine.process()).options(background).options(|options| {
            options.retention(Retention::new().max_bytes(0)).on_background_error(move |_| {
                if let Some(log) = inner.lock().unwrap().take() {
                    told.send(()).unwrap();
                    until_closing(&log);
                    log.close().unwrap();
                    is_closed.store(true, Ordering::Release);
                }
            })
        });
        let log = site.open();
        log.append("x").unwrap();
        *cell.lock().unwrap() = Some(log.clone());
        machine.inject(Fault::new(Op::Remove, io::ErrorKind::Other).on("-00000001.log"));
        log.roll().unwrap();
        log.append("x").unwrap();
        is_told.recv_timeout(LONG).unwrap();
        log.close().unwrap();
        assert!(closed.load(Ordering::Acquire), "the thread of the log has ended");
        assert!(site.try_open().is_ok());
    });
}
