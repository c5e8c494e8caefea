//! A process that appends is killed, again and again, on a real file system; whoever opens the log
//! next finds everything that was acknowledged, and no part of a batch.
//!
//! The process is this test binary: it runs one test of this file, which does nothing unless it
//! finds the variable that says where the log is. What it acknowledges it prints, and the parent
//! kills it after a number of lines, in the middle of whatever it does then.

use crate::support::at;
use crate::support::medium::Numbers;
use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use stratalog::Durability::{self, Synced, Written};
use stratalog::{ErrorKind, Log, Options, Seek};

const DIR: &str = "STRATALOG_KILL_DIR";
const LEVEL: &str = "STRATALOG_KILL_LEVEL";

/// Small, so that processes are killed in rolls too.
const SEGMENT_BYTES: u64 = 4096;

#[test]
fn a_process_that_syncs_may_be_killed_at_any_moment() {
    kill_often(Synced, 300);
}

#[test]
fn a_process_that_writes_may_be_killed_at_any_moment() {
    kill_often(Written, 150);
}

#[test]
fn a_log_that_another_process_has_open_is_locked_until_it_dies() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start(dir.path(), Synced);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while acknowledgement(&line).is_none() {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the process ended");
    }
    let error = Log::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert_eq!(error.path(), Some(&*dir.path().join("LOCK")));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(open(dir.path(), Synced).end_offset() > at(0));
}

fn kill_often(level: Durability, kills: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut numbers = Numbers(kills);
    let mut acknowledged = 0;
    let mut checked = 0;
    for kill in 0..kills {
        // Mostly in the middle of appends, at times before the first, in the opening.
        let lines = if numbers.below(4) == 0 { 0 } else { numbers.below(30) };
        acknowledged = acknowledged.max(run_and_kill(&path, level, lines));
        // Now and then the next process finds what this one left, and is killed while it does.
        if kill % 3 != 0 || kill + 1 == kills {
            let log = open(&path, level);
            assert!(log.end_offset() >= at(acknowledged), "kill {kill}: {acknowledged} were there");
            checked = check_from(&log, checked);
            log.close().unwrap();
        }
    }
    assert!(acknowledged > kills, "the processes did too little");
    let log = open(&path, level);
    assert_eq!(check_from(&log, 0), log.end_offset().get());
}

/// Starts a process, kills it after it printed so many lines, and gives the highest end that it
/// acknowledged.
fn run_and_kill(path: &Path, level: Durability, lines: u64) -> u64 {
    let mut child = start(path, level);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = 0;
    let mut line = String::new();
    let mut left = lines;
    while left > 0 && output.read_line(&mut line).unwrap() > 0 {
        if let Some(end) = acknowledgement(&line) {
            acknowledged = end;
            left -= 1;
        }
        line.clear();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it printed before it died counts too.
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let whole = rest.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(acknowledgement).fold(acknowledged, u64::max)
}

fn start(path: &Path, level: Durability) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "kill::child", "--nocapture", "--test-threads=1"])
        .env(DIR, path)
        .env(LEVEL, if level == Synced { "synced" } else { "written" })
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn acknowledgement(line: &str) -> Option<u64> {
    line.trim_end().strip_prefix("acknowledged ")?.parse().ok()
}

/// The process that is killed; not a test unless it is started as one.
#[test]
fn child() {
    let Ok(path) = env::var(DIR) else { return };
    let level = if env::var(LEVEL).unwrap() == "synced" { Synced } else { Written };
    let log = open(Path::new(&path), level);
    // The harness has not ended its line.
    let mut out = std::io::stdout().lock();
    writeln!(out).unwrap();
    loop {
        let first = log.end_offset().get();
        // So many that the parent has long since killed it.
        assert!(first < 10_000_000);
        let count = if first.is_multiple_of(3) { 1 + first % 40 } else { 1 };
        if count == 1 {
            log.append(value(first, first, 1)).unwrap();
        } else {
            let batch = (first..first + count).map(|offset| value(offset, first, count));
            log.append_batch(batch).unwrap();
        }
        writeln!(out, "acknowledged {}", first + count).unwrap();
    }
}

fn open(path: &Path, level: Durability) -> Log {
    Options::new().segment_bytes(SEGMENT_BYTES).durability(level).open(path).unwrap()
}

/// A value that says where it belongs and which batch it is of.
fn value(offset: u64, first: u64, count: u64) -> String {
    let len = usize::try_from(offset % 200).unwrap();
    format!("{offset} {first} {count} {}", "x".repeat(len))
}

/// The records from an offset on are what the processes appended, in whole batches; gives the end.
fn check_from(log: &Log, from: u64) -> u64 {
    let mut batch_end = from;
    let mut next = from;
    for entry in log.iter(Seek::Offset(at(from))).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.offset(), at(next));
        let text = std::str::from_utf8(entry.value()).unwrap();
        let mut parts = text.split(' ').map(|part| part.parse::<u64>());
        let mut number = || parts.next().unwrap().unwrap();
        let (offset, first, count) = (number(), number(), number());
        assert_eq!(text, value(next, first, count));
        assert!(offset == next && first <= next && next < first + count);
        assert!(next < batch_end || (next == batch_end && first == next), "{text}: {batch_end}");
        batch_end = first + count;
        next += 1;
    }
    assert_eq!(next, batch_end, "a part of a batch");
    assert_eq!(at(next), log.end_offset());
    next
}
