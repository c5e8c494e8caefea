//! Checkpoints of a log that is written to, rolled, cut from the front and compacted meanwhile.

use crate::support::at;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use stratalog::{Compaction, Durability, Log, Offset, Options, Record, Retention, Seek};

const ROUNDS: u64 = 150;
const KEYS: u64 = 40;

/// Keys and values.
type Rows = BTreeMap<Offset, (Vec<u8>, Vec<u8>)>;

/// What a checkpoint held, and what it had to hold.
struct Taken {
    durable: Offset,
    start: Offset,
    end: Offset,
    rows: Rows,
}

/// Lets the threads end, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn options() -> Options {
    let compaction = Compaction::new().tombstone_retention(std::time::Duration::ZERO);
    Options::new()
        .segment_bytes(8 << 10)
        .compaction(compaction)
        .retention(Retention::new().max_bytes(30 << 10))
        .durability(Durability::Written)
}

fn rows(log: &Log) -> Rows {
    let entries = log.iter(Seek::Start).unwrap().map(Result::unwrap);
    let pair = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
    entries.map(|entry| (entry.offset(), (pair(entry.key()), entry.value().to_vec()))).collect()
}

/// Each opens, and is a prefix of the log at least as long as what was durable when it began, but
/// for what retention and compaction took.
#[test]
fn a_checkpoint_under_load_is_a_prefix_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path().join("log")).unwrap();
    let all = Mutex::new(BTreeMap::new());
    let is_over = AtomicBool::new(false);
    let mut taken = Vec::new();
    thread::scope(|scope| {
        for writer in 0..2_u64 {
            let (log, all, is_over) = (&log, &all, &is_over);
            scope.spawn(move || append(log, writer, all, is_over));
        }
        let (shaper, over) = (log.clone(), &is_over);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                shaper.compact().unwrap();
                shaper.enforce_retention().unwrap();
                shaper.roll().unwrap();
            }
        });
        let _stop = Stop(&is_over);
        for round in 0..ROUNDS {
            let target = dir.path().join(format!("backup {}", round % 3));
            if round % 17 == 0 {
                drop(std::fs::remove_dir_all(&target));
            }
            let durable = log.durable_offset();
            let end = log.checkpoint(&target).unwrap();
            let copy = Log::open(&target).unwrap();
            assert!(copy.recovery().is_clean() && copy.recovery().removed_files() == 0);
            assert_eq!(copy.end_offset(), end);
            let look = |path: &std::path::Path| {
                let report = stratalog::verify(path, &stratalog::VerifyOptions::new()).unwrap();
                assert!(report.is_sound(), "{report}");
                report
            };
            assert_eq!(look(&target).end_offset(), end);
            // And the log itself, while it is written to.
            look(&dir.path().join("log"));

            taken.push(Taken { durable, start: copy.start_offset(), end, rows: rows(&copy) });
            // It was only read.
            copy.close().unwrap();
        }
    });
    check(&taken, &all.into_inner().unwrap());
}

/// Appends records of all durabilities, with keys and without.
fn append(log: &Log, writer: u64, all: &Mutex<Rows>, is_over: &AtomicBool) {
    let mut number = writer;
    while !is_over.load(Ordering::Relaxed) {
        number += 2;
        let key = format!("{}", number % KEYS).into_bytes();
        let key = if number.is_multiple_of(3) { Vec::new() } else { key };
        let times = usize::try_from(1 + number % 40).unwrap();
        let value = format!("{number} ").repeat(times).into_bytes();
        let mut record = Record::new(value.clone());
        if !key.is_empty() {
            record = record.key(key.clone());
        }
        let level = match number / 7 % 3 {
            0 => Durability::Buffered,
            1 => Durability::Written,
            _ => Durability::Synced,
        };
        let offset = log.append_with(level, record).unwrap();
        all.lock().unwrap().insert(offset, (key, value));
    }
}

fn check(taken: &[Taken], all: &Rows) {
    assert!(taken.iter().any(|one| one.start > at(0)), "retention took nothing");
    let mut holes = 0;
    for one in taken {
        assert!(one.end >= one.durable);
        let mut later = std::collections::BTreeSet::new();
        for offset in (one.start.get()..one.end.get()).rev().map(at) {
            let (key, value) = &all[&offset];
            match one.rows.get(&offset) {
                Some(row) => assert_eq!(row, &(key.clone(), value.clone())),
                None => {
                    holes += 1;
                    assert!(later.contains(key), "{offset} is missing, and has no later one");
                }
            }
            if !key.is_empty() {
                later.insert(key.clone());
            }
        }
        assert!(one.rows.keys().all(|offset| (one.start..one.end).contains(offset)));
    }
    assert!(holes > 0, "compaction took nothing");
}
