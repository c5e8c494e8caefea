//! A reader beside a writer: how soon it sees what is appended, and what that costs the writer.

use crate::support::begun;
use crate::support::scratch;
use crate::support::timed;
use crate::support::value;
use std::future::Future;
use std::hint;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};
use stratalog::{Cursor, Durability, Log, Options, Seek};

const RECORD_BYTES: usize = 100;

/// How a reader waits for what comes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reader {
    /// There is none.
    None,
    /// Blocks in `wait` when there is nothing to read.
    Waits,
    /// Asks `next` again and again.
    Polls,
}

/// What a round at full speed came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Race {
    /// Until the last record was appended.
    pub(crate) wrote: Duration,
    /// Until it was read.
    pub(crate) read: Duration,
}

/// Appends `count` records as fast as it goes, beside a reader of all of them.
pub(crate) fn race(reader: Reader, count: u64) -> Race {
    let (dir, value) = (scratch(), value(RECORD_BYTES));
    let log = begun(dir.path(), Options::new().durability(Durability::Buffered), &value);
    let barrier = Barrier::new(2);
    let cursor = log.cursor(Seek::End).unwrap();
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            barrier.wait();
            read_all(cursor, reader, count);
        });
        barrier.wait();
        let started = Instant::now();
        for _ in 0..count {
            log.append(&value).unwrap();
        }
        let wrote = started.elapsed();
        reading.join().unwrap();
        Race { wrote, read: started.elapsed() }
    })
}

fn read_all(mut cursor: Cursor, reader: Reader, count: u64) {
    let mut seen = 0;
    while seen < count {
        match reader {
            Reader::None => return,
            Reader::Waits => assert!(cursor.wait(Duration::MAX).unwrap()),
            Reader::Polls => hint::spin_loop(),
        }
        while let Some(entry) = cursor.next().unwrap() {
            hint::black_box(entry.value());
            seen += 1;
        }
    }
}

/// How long after its append began each record was seen by a reader that waits.
pub(crate) fn delays(per_second: u64, count: u64) -> Vec<Duration> {
    let dir = scratch();
    let options = Options::new().durability(Durability::Buffered);
    let log = begun(dir.path(), options, &value(RECORD_BYTES));
    let mut cursor = log.cursor(Seek::End).unwrap();
    let started = Instant::now();
    let reader = thread::spawn(move || {
        let mut delays = room(count);
        while u64::try_from(delays.len()).unwrap() < count {
            assert!(cursor.wait(Duration::MAX).unwrap());
            while let Some(entry) = cursor.next().unwrap() {
                let (sent, _) = entry.value().split_first_chunk().unwrap();
                let sent = Duration::from_nanos(u64::from_le_bytes(*sent));
                delays.push(started.elapsed() - sent);
            }
        }
        delays
    });
    let mut value = value(RECORD_BYTES);
    paced(started, per_second, count, |now| {
        value.get_mut(..8).unwrap().copy_from_slice(&now.to_le_bytes());
        log.append(&value).unwrap();
    });
    reader.join().unwrap()
}

/// The same without a log: one thread puts the time into memory, and another looks all the time.
pub(crate) fn limit_delays(per_second: u64, count: u64) -> Vec<Duration> {
    let times: Vec<_> = (0..count).map(|_| AtomicU64::new(0)).collect();
    let started = Instant::now();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut delays = room(count);
            delays.extend(times.iter().map(|time| {
                loop {
                    match time.load(Ordering::Acquire) {
                        0 => hint::spin_loop(),
                        time => return started.elapsed() - Duration::from_nanos(time),
                    }
                }
            }));
            delays
        });
        let mut unset = times.iter();
        paced(started, per_second, count, |now| {
            unset.next().unwrap().store(now, Ordering::Release);
        });
        reader.join().unwrap()
    })
}

/// The share of the time in which two threads that only look at the clock do not run, for longer
/// than `shortest` at a time: whatever comes then is seen late by any reader.
pub(crate) fn lost(time: Duration, shortest: Duration) -> f64 {
    let lost_by_one = || {
        let started = Instant::now();
        let (mut last, mut lost) = (started, Duration::ZERO);
        while last - started < time {
            let now = Instant::now();
            lost += if now - last > shortest { now - last } else { Duration::ZERO };
            last = now;
        }
        lost.as_secs_f64() / time.as_secs_f64()
    };
    thread::scope(|scope| {
        let threads = [scope.spawn(lost_by_one), scope.spawn(lost_by_one)];
        threads.map(|thread| thread.join().unwrap()).iter().sum::<f64>() / 2.0
    })
}

/// Room for so many delays, in memory that was touched: on a virtual machine the first touch of a
/// page takes 40 us, and a page has 256 of them.
fn room(count: u64) -> Vec<Duration> {
    let mut delays = vec![Duration::MAX; usize::try_from(count).unwrap()];
    delays.clear();
    delays
}

/// Sends the time at a rate.
fn paced(started: Instant, per_second: u64, count: u64, mut send: impl FnMut(u64)) {
    let begin = started.elapsed();
    for nth in 0..count {
        let due = begin + Duration::from_nanos(nth * 1_000_000_000 / per_second);
        while started.elapsed() < due {
            hint::spin_loop();
        }
        send(u64::try_from(started.elapsed().as_nanos()).unwrap());
    }
}

/// The value below which so many of a hundred are.
pub(crate) fn percentile(delays: &[Duration], percent: usize) -> Duration {
    let mut sorted = delays.to_vec();
    sorted.sort();
    let place = sorted.len() * percent / 100;
    sorted.get(place.min(sorted.len() - 1)).copied().unwrap()
}

/// The same of the median 20 ms: without the stretches in which something else had the processor,
/// which on a machine that others use are more than a hundredth of the time.
pub(crate) fn percentile_of_median(
    delays: &[Duration],
    per_second: u64,
    percent: usize,
) -> Duration {
    let len = usize::try_from(per_second / 50).unwrap().max(1);
    let mut found: Vec<_> =
        delays.chunks(len).map(|stretch| percentile(stretch, percent)).collect();
    found.sort();
    found.get(found.len() / 2).copied().unwrap()
}

/// Reads all of a log forwards, or backwards, and returns how many records there were.
pub(crate) fn read_through(log: &Log, way: Way) -> u64 {
    let mut count = 0;
    match way {
        Way::Forward => {
            let mut cursor = log.cursor(Seek::Start).unwrap();
            while let Some(entry) = cursor.next().unwrap() {
                hint::black_box(entry.value());
                count += 1;
            }
        }
        Way::Backward => {
            let mut cursor = log.cursor(Seek::End).unwrap();
            while let Some(entry) = cursor.prev().unwrap() {
                hint::black_box(entry.value());
                count += 1;
            }
        }
    }
    count
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Forward,
    Backward,
}

/// CPU time of this process while many threads wait for a log in which nothing happens.
pub(crate) fn idle(waiters: usize, time: Duration) -> Duration {
    let dir = scratch();
    let log = begun(dir.path(), Options::new(), &value(RECORD_BYTES));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..waiters {
            scope.spawn(|| {
                let mut cursor = log.cursor(Seek::End).unwrap();
                while !stop.load(Ordering::Relaxed) && cursor.wait(Duration::MAX).is_ok() {
                    while cursor.next().unwrap().is_some() {}
                }
            });
        }
        thread::sleep(Duration::from_millis(300));
        let before = cpu_time();
        thread::sleep(time);
        let spent = cpu_time() - before;
        stop.store(true, Ordering::Relaxed);
        log.append("wakes them").unwrap();
        spent
    })
}

/// How long an append takes that wakes so many tasks, each with a cursor of its own, and how long
/// one that wakes nobody.
pub(crate) fn wake(tasks: usize) -> (Duration, Duration) {
    let (dir, value) = (scratch(), value(RECORD_BYTES));
    let log = begun(dir.path(), Options::new().durability(Durability::Buffered), &value);
    let mut cursors: Vec<_> = (0..tasks).map(|_| log.cursor(Seek::End).unwrap()).collect();
    let mut context = Context::from_waker(Waker::noop());
    let waits = cursors.iter_mut().map(|cursor| Box::pin(cursor.wait_async()));
    let mut waits: Vec<_> = waits.collect();
    for wait in &mut waits {
        assert!(wait.as_mut().poll(&mut context).is_pending());
    }
    let append = || timed(|| log.append(&value).unwrap());
    let (woke, alone) = (append(), append());
    assert!(waits.iter_mut().all(|wait| wait.as_mut().poll(&mut context).is_ready()));
    (woke, alone)
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}
