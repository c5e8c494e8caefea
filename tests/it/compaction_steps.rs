//! A run of compaction is stopped before each of its calls to the storage, and meanwhile something
//! is done to the log: cut at either end, appended to, rolled, read, closed.
//!
//! What is done may have to wait for the run where both change the list of segments; then the run
//! goes on first. The order of all calls is watched.

use crate::support::at;
use crate::support::clock::ManualClock;
use crate::support::compaction::Full;
use crate::support::compaction::check_compacted;
use crate::support::compaction::fill;
use crate::support::compaction::pair;
use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use crate::support::ordered::OrderedStorage;
use crate::support::secs;
use crate::support::steps::SteppedStorage;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use stratalog::storage::{Clock, Storage, SystemClock};
use stratalog::{
    Compaction, CompactionReport, Cursor, ErrorKind, Log, Options, Result, Retention, Seek,
};

const COUNT: u64 = 60;

/// How long the run is kept waiting for something that waits for it.
const PATIENCE: Duration = Duration::from_millis(3);

fn options(storage: Arc<dyn Storage>) -> Options {
    let compaction = Compaction::new().tombstone_retention(Duration::ZERO).map_bytes(2 << 10);
    tiny(storage).compaction(compaction).retention(Retention::new().max_bytes(2000))
}

/// What came of a run and of what was done while it was stopped.
struct Met<T> {
    machine: FaultyStorage,
    log: Log,
    /// The log before.
    full: Full,
    run: Result<CompactionReport>,
    done: T,
}

/// Stops a run before every one of its calls, does something, lets it go on, and has both checked.
fn at_every_step<T: Send>(
    does: impl Fn(&Log, &OrderedStorage) -> T + Sync,
    check: impl Fn(Met<T>),
) {
    let mut steps = 0;
    for nth in 1.. {
        let machine = FaultyStorage::memory();
        let ordered = OrderedStorage::over(machine.process());
        let stepped = SteppedStorage::over(Arc::new(ordered.clone()));
        let log = options(Arc::new(stepped.clone())).open(DIR).unwrap();
        ordered.opened(&log);
        fill(&log, COUNT, 9);
        let full = Full::of(&log);
        let (run, done, was_stopped) = thread::scope(|scope| {
            let run = scope.spawn(|| stepped.run(nth, || log.compact()));
            let was_stopped = stepped.wait_until_stopped();
            let doer = scope.spawn(|| does(&log, &ordered));
            let clock = SystemClock::new();
            let start = clock.monotonic();
            while !doer.is_finished() && clock.monotonic() - start < PATIENCE {
                thread::yield_now();
            }
            stepped.go_on();
            (run.join().unwrap(), doer.join().unwrap(), was_stopped)
        });
        ordered.check();
        check(Met { machine, log, full, run, done });
        if !was_stopped {
            break;
        }
        steps = nth;
    }
    assert!(steps > 40, "only {steps} steps");
}

/// What is shown is what a power cut leaves, and what other runs do to it in the end is `expected`.
fn check_end(met: &Met<impl Sized>, expected: &Full) {
    let shown = Full::of(&met.log);
    let crashed = met.machine.crash(Crash::DropUnsynced);
    let log = options(crashed.process()).open(DIR).unwrap();
    assert_eq!(Full::of(&log), shown);
    while log.compact().unwrap().more() {}
    check_compacted(&log, expected);
}

#[test]
fn a_truncation_at_every_step() {
    for end in [at(20), at(47)] {
        let truncate = |log: &Log, _: &OrderedStorage| log.truncate_to(end).unwrap();
        at_every_step(truncate, |met| {
            let shown = Full::of(&met.log);
            let whole = met.full.compacted_to(at(COUNT)).below(end);
            assert!(shown.is_between(&whole, &met.full.below(end)), "{:?}", met.run);
            if !met.run.as_ref().unwrap().more() {
                assert_eq!(shown, whole);
            }
            // What is left of a key is what it was at that end, or nothing.
            let kept = met.full.below(end);
            let (before, after) = (kept.table(), shown.table());
            assert!(after.iter().all(|(key, offset)| before.get(key) == Some(offset)));
            check_end(&met, &shown.compacted_to(end));
        });
    }
}

#[test]
fn a_deletion_at_every_step() {
    for start in [at(20), at(47)] {
        at_every_step(
            |log, _| log.delete_before(start).unwrap(),
            |met| {
                let whole = met.full.compacted_to(at(COUNT)).above(start);
                let shown = Full::of(&met.log);
                assert!(shown.is_between(&whole, &met.full.above(start)), "{:?}", met.run);
                check_end(&met, &whole);
            },
        );
    }
}

#[test]
fn a_jump_beyond_the_end_at_every_step() {
    let jump = |log: &Log, _: &OrderedStorage| {
        log.delete_before(at(COUNT + 7)).unwrap();
        log.append_at(at(COUNT + 7), [pair("later", 1)]).unwrap();
    };
    at_every_step(jump, |met| {
        let shown = Full::of(&met.log);
        assert_eq!(shown.offsets().collect::<Vec<_>>(), [at(COUNT + 7)]);
        check_end(&met, &shown);
    });
}

#[test]
fn retention_at_every_step() {
    at_every_step(
        |log, _| log.enforce_retention().unwrap(),
        |met| {
            let start = met.log.start_offset();
            let whole = met.full.compacted_to(at(COUNT)).above(start);
            let shown = Full::of(&met.log);
            assert!(shown.is_between(&whole, &met.full.above(start)), "{:?}", met.run);
            check_end(&met, &whole);
        },
    );
}

#[test]
fn appends_and_a_roll_at_every_step() {
    let append = |log: &Log, _: &OrderedStorage| {
        for number in 0..3 {
            log.append(pair("key 1", number)).unwrap();
        }
        log.roll().unwrap();
    };
    at_every_step(append, |met| {
        let mut full = met.full.clone();
        full.extend(Full::of(&met.log).above(at(COUNT)));
        let whole = met.full.compacted_to(at(COUNT));
        assert_eq!(Full::of(&met.log).below(at(COUNT)), whole, "{:?}", met.run);
        check_end(&met, &full.compacted_to(at(COUNT + 3)));
    });
}

#[test]
fn closing_at_every_step() {
    let close = |log: &Log, ordered: &OrderedStorage| {
        log.close().unwrap();
        ordered.closed();
    };
    at_every_step(close, |met| {
        match &met.run {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
        }
        let whole = met.full.compacted_to(at(COUNT));
        let shown = Full::of(&met.log);
        assert!(shown.is_between(&whole, &met.full), "{:?}", met.run);
        drop(met.log);
        let log = options(met.machine.process()).open(DIR).unwrap();
        assert!(log.recovery().is_clean());
        assert_eq!((Full::of(&log), log.recovery().removed_files()), (shown, 0));
        while log.compact().unwrap().more() {}
        check_compacted(&log, &whole);
    });
}

/// Every way of reading, from cursors that were there before and from new ones.
#[test]
fn readers_at_every_step() {
    let read = |log: &Log, _: &OrderedStorage| {
        let full = Full::of(log);
        let mut cursor = log.cursor(Seek::End).unwrap();
        let mut back = Vec::new();
        while let Some(entry) = cursor.prev().unwrap() {
            back.push(entry.offset());
        }
        for offset in (0..COUNT).map(at) {
            drop(log.get(offset).unwrap());
            cursor.seek(Seek::Offset(offset)).unwrap();
            let entry = cursor.next().unwrap();
            assert!(entry.is_none_or(|entry| entry.offset() >= offset));
        }
        (full, back)
    };
    at_every_step(read, |met| {
        let whole = met.full.compacted_to(at(COUNT));
        let (seen, back) = &met.done;
        assert!(seen.is_between(&whole, &met.full));
        assert!(back.is_sorted_by(|later, earlier| later > earlier) && back.len() >= whole.len());
        check_end(&met, &whole);
    });
}

/// Here the reader is stopped before each of its calls, and the log is compacted or cut meanwhile.
#[test]
fn a_search_by_time_is_stopped_at_every_step() {
    let compact = |log: &Log| {
        log.compact().unwrap();
    };
    search_while(compact, |cursor| {
        // The last of each of nine keys is left; the cursor may be in front of what has gone.
        let offset = cursor.next().unwrap().unwrap().offset();
        assert!((30..=51).contains(&offset.get()), "{offset}");
    });
    search_while(
        |log| log.delete_before(at(40)).unwrap(),
        |cursor| assert!((30..=40).contains(&cursor.offset().get())),
    );
    let truncate = |log: &Log| log.truncate_to(at(35)).unwrap();
    search_while(truncate, |cursor| assert_eq!(cursor.offset(), at(30)));
}

fn search_while(does: impl Fn(&Log), check: impl Fn(&mut Cursor)) {
    for nth in 1.. {
        let machine = FaultyStorage::memory();
        let stepped = SteppedStorage::over(machine.process());
        let clock = ManualClock::at(secs(0));
        let options = options(Arc::new(stepped.clone())).clock(Arc::new(clock.clone()));
        let log = options.clone().open(DIR).unwrap();
        for number in 0..60 {
            clock.set(secs(i64::try_from(number).unwrap()));
            log.append(pair(&(number % 9).to_string(), number)).unwrap();
        }
        log.roll().unwrap();
        log.close().unwrap();
        // No segment is open in this one.
        let log = options.open(DIR).unwrap();
        let (mut cursor, was_stopped) = thread::scope(|scope| {
            let (log, stepped) = (&log, &stepped);
            let search = move || log.cursor(Seek::Time(secs(30))).unwrap();
            let reader = scope.spawn(move || stepped.run(nth, search));
            let was_stopped = stepped.wait_until_stopped();
            does(log);
            stepped.go_on();
            (reader.join().unwrap(), was_stopped)
        });
        check(&mut cursor);
        if !was_stopped {
            assert!(nth > 3, "only {nth} steps");
            break;
        }
    }
}
