//! Following the tail: iterators that block, thousands that wait, and what waiting costs.

use crate::support::LONG;
use crate::support::Site;
use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::assert_out_of_range;
use crate::support::assert_same;
use crate::support::at;
use crate::support::clock::ManualClock;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::record;
use crate::support::records;
use crate::support::secs;
use crate::support::tail;
use crate::support::task::Alarm;
use crate::support::until;
#[cfg(target_os = "linux")]
use std::env;
use std::io;
#[cfg(target_os = "linux")]
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;
use stratalog::storage::Clock;
use stratalog::{Cursor, Durability, ErrorKind, Maintenance, Options, Record, Seek};

const LEVELS: [Durability; 3] = [Durability::Buffered, Durability::Written, Durability::Synced];

fn at_level(level: Durability) -> impl Fn(Options) -> Options {
    move |options| options.durability(level)
}

/// What there is, what comes meanwhile, over many segments, and then the end.
#[test]
fn it_gives_every_record_and_ends_with_the_log() {
    for level in LEVELS {
        let log = Site::memory().small_segments().options(at_level(level)).open();
        append_all(&log, &tail(100));
        let follow = log.follow(Seek::Offset(at(10))).unwrap();
        let seen = AtomicU64::new(0);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                for (number, entry) in (10..).zip(follow) {
                    let entry = entry.unwrap();
                    assert_eq!(
                        (entry.offset(), Record::from(&entry)),
                        (at(number), record(number))
                    );
                    seen.store(number + 1, Ordering::SeqCst);
                }
            });
            for number in 100..400 {
                log.append(record(number)).unwrap();
                if number % 7 == 0 {
                    // Now and then it has nothing to do.
                    until(|| seen.load(Ordering::SeqCst) > number);
                }
            }
            log.close().unwrap();
            reader.join().unwrap();
        });
        assert_eq!(seen.load(Ordering::SeqCst), 400);
    }
}

/// The close makes them visible, and tells those who wait that it is one, in whatever order.
#[test]
fn what_a_close_makes_visible_is_not_missed() {
    for _ in 0..100 {
        let log = Site::memory().open();
        let follow = log.follow(Seek::Start).unwrap();
        thread::scope(|scope| {
            let reader = scope.spawn(|| follow.map(Result::unwrap).count());
            log.append_batch_with(Durability::Buffered, tail(3)).unwrap();
            log.close().unwrap();
            assert_eq!(reader.join().unwrap(), 3);
        });
        let mut again = log.follow(Seek::Start).unwrap();
        assert_eq!(again.by_ref().count(), 3);
        assert!(again.next().is_none());
    }
}

#[test]
fn it_ends_when_nothing_comes_for_so_long_and_goes_on() {
    let log = Site::memory().open();
    append_all(&log, &tail(5));
    let mut follow = log.follow(Seek::Start).unwrap().timeout(Duration::from_micros(10));
    assert_eq!(follow.by_ref().map(Result::unwrap).count(), 5);
    assert!(follow.next().is_none());
    append_all(&log, &records(5..7));
    assert_eq!(follow.by_ref().map(Result::unwrap).count(), 2);
    assert_eq!(follow.into_cursor().offset(), at(7));
}

#[test]
fn an_error_is_the_last_that_it_gives() {
    let log = Site::memory().open();
    append_all(&log, &tail(5));
    let mut follow = log.follow(Seek::End).unwrap();
    log.truncate_to(at(2)).unwrap();
    assert_out_of_range(follow.next().unwrap(), 2);
    assert!(follow.next().is_none());
}

#[test]
fn a_log_that_fails_ends_it_with_the_error() {
    let storage = FaultyStorage::memory();
    let log = Site::over(storage.process()).open();
    append_all(&log, &tail(3));
    let follow = log.follow(Seek::Start).unwrap();
    thread::scope(|scope| {
        let reader = scope.spawn(|| follow.collect::<Vec<_>>());
        storage.inject(Fault::new(Op::Sync, io::ErrorKind::Other).on(".log"));
        assert_kind(log.append("lost"), ErrorKind::Poisoned);
        let mut found = reader.join().unwrap();
        assert_kind(found.pop().unwrap(), ErrorKind::Poisoned);
        assert_eq!(found.into_iter().map(Result::unwrap).count(), 3);
    });
}

/// The one append that comes wakes each of them, once; who gave up is not woken.
#[test]
fn ten_thousand_that_wait_are_woken_once_each() {
    for level in LEVELS {
        let log = Site::memory().options(at_level(level)).open();
        append_all(&log, &tail(3));
        let mut cursors: Vec<_> = (0..10_000).map(|_| log.cursor(Seek::End).unwrap()).collect();
        let alarms: Vec<_> = cursors.iter().map(|_| Alarm::new()).collect();
        let mut waits: Vec<_> = cursors.iter_mut().map(Cursor::wait_async).collect();
        for (alarm, wait) in alarms.iter().zip(&mut waits) {
            assert!(alarm.poll(wait).is_pending());
        }
        let gone = waits.split_off(7_000);
        drop(gone);
        append_all(&log, &records(3..6));
        for (nth, alarm) in alarms.iter().enumerate() {
            assert_eq!(alarm.rings(), usize::from(nth < 7_000), "{level:?} {nth}");
        }
        for ((alarm, wait), cursor) in alarms.iter().zip(&mut waits).zip(&mut cursors) {
            assert!(matches!(alarm.poll(wait), Poll::Ready(Ok(()))));
            assert_same(cursor.next().unwrap().unwrap(), at(3), &record(3));
        }
    }
}

/// A thread whose waits were short looks for the next record without being woken; then none comes.
#[test]
fn a_reader_that_keeps_up_sleeps_when_nothing_comes() {
    let log = Site::memory().options(at_level(Durability::Buffered)).open();
    let mut cursor = log.cursor(Seek::End).unwrap();
    let is_dry = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for number in 0..5_000 {
                assert!(cursor.wait(LONG).unwrap());
                assert_same(cursor.next().unwrap().unwrap(), at(number), &record(number));
            }
            assert!(!cursor.wait(Duration::from_millis(1)).unwrap());
            is_dry.store(true, Ordering::SeqCst);
            assert_kind(cursor.wait(LONG), ErrorKind::Closed);
        });
        append_all(&log, &tail(5_000));
        until(|| is_dry.load(Ordering::SeqCst));
        log.close().unwrap();
        reader.join().unwrap();
    });
}

/// It waits for a file then; a record that goes to none is seen all the same, and so is the close.
#[test]
fn a_reader_of_an_appender_at_full_speed_sees_what_is_not_written() {
    let clock = ManualClock::at(secs(0));
    let site = Site::memory().clock(&clock).options(at_level(Durability::Buffered));
    let log = site.open();
    let mut cursor = log.cursor(Seek::Start).unwrap();
    assert!(!cursor.wait(Duration::ZERO).unwrap());
    append_all(&log, &tail(1000));
    clock.advance(Duration::from_micros(100));
    while cursor.next().unwrap().is_some() {}
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            assert!(cursor.wait(LONG).unwrap());
            assert_same(cursor.next().unwrap().unwrap(), at(1000), &record(1000));
            clock.advance(Duration::from_micros(400));
            assert_kind(cursor.wait(LONG), ErrorKind::Closed);
        });
        log.append(record(1000)).unwrap();
        until(|| clock.monotonic() >= Duration::from_micros(500));
        assert_eq!(log.written_offset(), at(0));
        log.close().unwrap();
        reader.join().unwrap();
    });
}

/// Set for the process in which nothing happens but waiting.
#[cfg(target_os = "linux")]
const IDLE: &str = "STRATALOG_IDLE";

/// Hundreds of threads, and thousands of futures, wait for a log with its own threads in which
/// nothing happens, after they have kept up with an appender. In a process of its own, which says
/// how much processor time that took: this test, run again.
#[test]
#[cfg(target_os = "linux")]
fn who_waits_for_an_idle_log_takes_no_time() {
    if env::var_os(IDLE).is_some() {
        return wait_idly();
    }
    let test = "following::who_waits_for_an_idle_log_takes_no_time";
    let program = env::current_exe().unwrap();
    let mut child = Command::new(program);
    let output = child.args([test, "--exact", "--nocapture"]).env(IDLE, "1").output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let spent = output.lines().find_map(|line| line.split_once("spent ")?.1.parse::<u64>().ok());
    // Of two seconds. One thread that looks every millisecond takes more.
    let spent = spent.expect(&output);
    assert!(spent < 10_000, "{spent} us");
}

#[cfg(target_os = "linux")]
#[expect(clippy::print_stdout, reason = "it is told to the parent")]
fn wait_idly() {
    let site = Site::disk().options(|options| {
        options.durability(Durability::Buffered).maintenance(Maintenance::Background)
    });
    let log = site.open();
    let cursors: Vec<_> = (0..200).map(|_| log.cursor(Seek::Start).unwrap()).collect();
    let mut tasks: Vec<_> = (0..5_000).map(|_| log.cursor(Seek::Start).unwrap()).collect();
    thread::scope(|scope| {
        for mut cursor in cursors {
            scope.spawn(move || {
                while cursor.wait(Duration::MAX).is_ok() {
                    while cursor.next().unwrap().is_some() {}
                }
            });
        }
        append_all(&log, &tail(2_000));
        log.sync().unwrap();
        let alarm = Alarm::new();
        let mut waits = Vec::new();
        for cursor in &mut tasks {
            cursor.seek(Seek::End).unwrap();
            let mut wait = cursor.wait_async();
            assert!(alarm.poll(&mut wait).is_pending());
            waits.push(wait);
        }
        // What is left to do is done in this time.
        let mut clock = log.cursor(Seek::End).unwrap();
        assert!(!clock.wait(Duration::from_millis(500)).unwrap());
        let before = cpu_time();
        assert!(!clock.wait(Duration::from_secs(2)).unwrap());
        println!("spent {}", (cpu_time() - before).as_micros());
        log.close().unwrap();
    });
}

#[cfg(target_os = "linux")]
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}
