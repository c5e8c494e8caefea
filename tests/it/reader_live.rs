//! A log read by one process while another one appends to it, rolls, truncates, deletes, compacts,
//! closes it, opens it and is killed in the middle of all that.
//!
//! The writer is this test binary, as in `kill.rs`. The reader keeps what it was given, takes back
//! what it was told is truncated and notes what it was told is deleted. In the end that must be the
//! log, record by record: a record that was shown and is not there, was skipped or came twice, or a
//! truncation that was not told, would all be seen.

use crate::support::at;
use crate::support::medium::Numbers;
use std::collections::BTreeMap;
use std::env;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;
use stratalog::storage::{Clock, SystemClock};
use stratalog::{Compaction, Cursor, Durability, ErrorKind, Log, LogReader, Options, Record, Seek};

const DIR: &str = "STRATALOG_READER_DIR";
const LEVEL: &str = "STRATALOG_READER_LEVEL";
const SEED: &str = "STRATALOG_READER_SEED";

/// How long, for each durability; `STRATALOG_READER=minute` asks for that.
fn duration() -> Duration {
    let asked = env::var("STRATALOG_READER").is_ok_and(|asked| asked == "minute");
    Duration::from_secs(if asked { 60 } else { 2 })
}

#[test]
fn a_reader_follows_writers_that_sync_and_are_killed() {
    follow(Durability::Synced);
}

#[test]
fn a_reader_follows_writers_that_write_and_are_killed() {
    follow(Durability::Written);
}

#[test]
fn a_reader_follows_writers_that_buffer_and_are_killed() {
    follow(Durability::Buffered);
}

fn follow(level: Durability) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    open(&path, level).close().unwrap();
    let reader = LogReader::open(&path).unwrap();
    let alone = || LogReader::open(&path).unwrap();
    let (fast, slow) = thread::scope(|scope| {
        let clock = SystemClock::new();
        let deadline = clock.monotonic() + duration();
        let pauses = [Duration::from_millis(20), Duration::from_millis(3)];
        let [fast, slow] = pauses.map(|pause| {
            // One shares the view of this process, one has a view of its own.
            let reader = if pause.as_millis() > 10 { reader.clone() } else { alone() };
            let lazy = pause < Duration::from_millis(10);
            scope.spawn(move || {
                let mut copy = Copy::new(&reader);
                while SystemClock::new().monotonic() < deadline {
                    copy.read(usize::MAX);
                    if lazy {
                        // At the end, and blind: much is cut and appended meanwhile.
                        thread::park_timeout(pause);
                    } else {
                        copy.wait(pause);
                    }
                }
                copy
            })
        });
        let mut numbers = Numbers(7);
        let mut kills = 0;
        while clock.monotonic() < deadline {
            let mut child = start(&path, level, kills);
            thread::park_timeout(Duration::from_micros(2_000 + numbers.below(120_000)));
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
        }
        assert!(kills > 5);
        (fast.join().unwrap(), slow.join().unwrap())
    });
    let log = open(&path, level);
    for mut copy in [fast, slow] {
        copy.read(usize::MAX);
        copy.check(&log);
        assert!(copy.told > 0, "nothing was cut in {} records", copy.given);
    }
    // One that comes late, and one that finds no writer.
    let late = || {
        let mut copy = Copy::new(&LogReader::open(&path).unwrap());
        copy.read(usize::MAX);
        copy
    };
    late().check(&log);
    log.close().unwrap();
    late().check(&log);
}

/// What a reader was given and not told to forget.
struct Copy {
    cursor: Cursor,
    records: BTreeMap<u64, String>,
    /// What it was told was deleted before it came there.
    passed: Vec<(u64, u64)>,
    /// Where the record behind the last one must be, unless compaction removed it.
    next: u64,
    /// How much it was given, and how often it was told of a cut.
    given: u64,
    told: u64,
}

impl Copy {
    fn new(reader: &LogReader) -> Self {
        let cursor = reader.cursor(Seek::Start).unwrap();
        let next = cursor.offset().get();
        let (records, passed) = (BTreeMap::new(), vec![(0, next)]);
        Self { cursor, records, passed, next, given: 0, told: 0 }
    }

    /// Reads as far as there is something, or so many records.
    fn read(&mut self, count: usize) {
        for _ in 0..count {
            match self.cursor.next() {
                Ok(None) => return,
                Ok(Some(entry)) => {
                    let offset = entry.offset().get();
                    let value = std::str::from_utf8(entry.value()).unwrap().to_owned();
                    self.take(offset, value);
                }
                Err(error) => self.told(&error),
            }
        }
    }

    fn wait(&mut self, timeout: Duration) {
        if let Err(error) = self.cursor.wait(timeout) {
            self.told(&error);
        }
    }

    fn take(&mut self, offset: u64, value: String) {
        assert!(offset >= self.next, "{offset} came after {}", self.next);
        for skipped in self.next..offset {
            assert!(is_keyed(skipped), "{skipped} was skipped, {offset} came");
        }
        assert!(value.starts_with(&format!("{offset} ")), "{value} at {offset}");
        self.records.insert(offset, value);
        self.next = offset + 1;
        self.given += 1;
    }

    fn told(&mut self, error: &stratalog::Error) {
        assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}: {error:?}");
        self.told += 1;
        let to = error.offset().unwrap().get();
        if to >= self.next {
            self.passed.push((self.next, to));
        } else {
            self.records.split_off(&to);
        }
        // It may have been deleted since it was told, and then it is told again.
        match self.cursor.seek(Seek::Offset(at(to))) {
            Ok(()) => self.next = to,
            Err(error) => assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}"),
        }
    }

    #[track_caller]
    fn check(&self, log: &Log) {
        let start = log.start_offset().get();
        let mut there = BTreeMap::new();
        for entry in log.iter(Seek::Start).unwrap() {
            let entry = entry.unwrap();
            let value = String::from_utf8(entry.value().to_vec()).unwrap();
            there.insert(entry.offset().get(), value);
        }
        assert_eq!(at(self.next), log.end_offset());
        let was_passed =
            |offset| self.passed.iter().any(|(from, to)| (*from..*to).contains(&offset));
        for (offset, value) in &there {
            match self.records.get(offset) {
                Some(read) => assert_eq!(read, value, "{offset}"),
                // What compaction removes is gone from the files before it is for the log's own
                // cursors.
                None => assert!(
                    was_passed(*offset) || is_keyed(*offset),
                    "{offset} was not read: {value}; passed {:?}",
                    self.passed
                ),
            }
        }
        for (offset, value) in self.records.range(start..) {
            let is_there = there.contains_key(offset) || is_keyed(*offset);
            assert!(is_there, "{offset} was never there: {value}");
        }
        // The last writer may have left nothing.
        assert!(self.given > 0 || there.is_empty());
    }
}

/// Compaction may remove these.
fn is_keyed(offset: u64) -> bool {
    offset.is_multiple_of(5)
}

fn start(path: &Path, level: Durability, seed: u64) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "reader_live::child", "--nocapture", "--test-threads=1"])
        .env(DIR, path)
        .env(LEVEL, format!("{level:?}"))
        .env(SEED, seed.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

fn open(path: &Path, level: Durability) -> Log {
    let options = Options::new().segment_bytes(4096).durability(level);
    let options = options.sync_interval(Duration::from_millis(3));
    options.compaction(Compaction::new()).open(path).unwrap()
}

/// The process that writes; not a test unless it is started as one.
#[test]
fn child() {
    let Ok(path) = env::var(DIR) else { return };
    let level = match env::var(LEVEL).unwrap().as_str() {
        "Synced" => Durability::Synced,
        "Written" => Durability::Written,
        _ => Durability::Buffered,
    };
    let seed: u64 = env::var(SEED).unwrap().parse().unwrap();
    let mut numbers = Numbers(seed);
    let mut log = open(Path::new(&path), level);
    // So many that the parent has long since killed it.
    for step in 0..1_000_000 {
        // No two records ever have the same value.
        let value = |offset: u64| {
            let len = usize::try_from(offset * 7 % 150).unwrap();
            let value = format!("{offset} {seed} {step} {}", "x".repeat(len));
            let record = Record::new(value);
            if is_keyed(offset) { record.key((offset % 40).to_string()) } else { record }
        };
        let (start, end) = (log.start_offset().get(), log.end_offset().get());
        match numbers.below(100) {
            0 => log.roll().unwrap(),
            1..4 => {
                let back = numbers.below(30).min(end - start);
                log.truncate_to(at(end - back)).unwrap();
            }
            4 => {
                let kept = numbers.below(200).min(end - start);
                log.delete_before(at(end - kept)).unwrap();
            }
            // The log jumps.
            5 if numbers.below(10) == 0 => log.delete_before(at(end + 10)).unwrap(),
            6 => drop(log.compact().unwrap()),
            7 if numbers.below(4) == 0 => {
                log.close().unwrap();
                log = open(Path::new(&path), level);
            }
            8..20 => drop(log.append_batch((end..end + 20).map(value)).unwrap()),
            _ => drop(log.append(value(end)).unwrap()),
        }
        if level == Durability::Buffered && numbers.below(20) == 0 {
            thread::park_timeout(Duration::from_millis(1));
        }
    }
}
