//! Processes with consumers are killed, again and again, on a real file system; those that follow
//! go on where they committed, and no record is lost to any of them.
//!
//! As in `kill.rs` the process is this test binary. It says what it is about to do and what it has
//! done: where each consumer begins, which record it has, what it has committed.

use crate::support::at;
use crate::support::medium::Numbers;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use stratalog::{Durability, Log, Options, Retention};

const DIR: &str = "STRATALOG_CONSUMER_KILL_DIR";
const KILLS: u64 = 200;

/// One that commits each record, and one that commits every fourth.
const CONSUMERS: [(&str, u64); 2] = [("each", 1), ("fourth", 4)];

fn open(path: &Path) -> Log {
    let retention = Retention::new().max_age(Duration::ZERO).keep_unread(true);
    let options = Options::new().segment_bytes(2048).retention(retention);
    options.durability(Durability::Written).open(path).unwrap()
}

/// What the parent knows of a consumer.
#[derive(Debug, Default)]
struct Known {
    /// All below it was handed to the consumer.
    seen: u64,
    /// The last commit that was acknowledged.
    committed: u64,
}

#[test]
fn consumers_that_are_killed_lose_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut numbers = Numbers(KILLS);
    let mut known = CONSUMERS.map(|_| Known::default());
    for _ in 0..KILLS {
        let lines = if numbers.below(5) == 0 { 0 } else { numbers.below(60) };
        run_and_kill(&path, lines, &mut known);
    }
    assert!(known.iter().all(|known| known.committed > KILLS), "they did too little: {known:?}");
    let log = open(&path);
    for ((name, _), known) in CONSUMERS.iter().zip(&known) {
        let consumer = log.consumer(name).unwrap();
        assert!(consumer.committed() >= at(known.committed), "{name}: {known:?}");
        assert!(consumer.committed() <= at(known.seen), "{name}: {known:?}");
    }
    assert!(log.start_offset() > at(0), "retention removed nothing");
}

/// Starts a process, kills it after so many lines, and checks all that it said.
fn run_and_kill(path: &Path, lines: u64, known: &mut [Known; 2]) {
    let program = env::current_exe().unwrap();
    let arguments = ["--exact", "consumer_kill::consumes_until_it_is_killed", "--nocapture"];
    let mut child = Command::new(program);
    child.args(arguments).env(DIR, path).stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut left = lines;
    if left == 0 {
        child.kill().unwrap();
    }
    for line in output.lines() {
        let line = line.unwrap();
        // The last one may have been cut short.
        let mut words = line.strip_suffix('.').unwrap_or_default().split(' ');
        let (Some("!"), Some(nth), Some(what), Some(offset)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let (known, offset) = (&mut known[nth.parse::<usize>().unwrap()], offset.parse().unwrap());
        match what {
            "begins" => {
                assert!(known.committed <= offset && offset <= known.seen, "{line}: {known:?}");
                // It may have committed what it did not live to tell.
                known.committed = offset;
            }
            "has" => {
                assert!(offset <= known.seen, "{line}, and a record was passed: {known:?}");
                known.seen = known.seen.max(offset + 1);
            }
            _ => known.committed = offset,
        }
        left = left.saturating_sub(1);
        if left == 0 {
            // What it has said by now is still read.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
}

/// The process. Does nothing unless it is told where the log is.
#[test]
fn consumes_until_it_is_killed() {
    let Ok(path) = env::var(DIR) else { return };
    let log = open(Path::new(&path));
    let say = |nth: usize, what: &str, offset: u64| {
        let mut output = std::io::stdout().lock();
        writeln!(output, "\n! {nth} {what} {offset}.").unwrap();
        output.flush().unwrap();
    };
    let mut consumers = CONSUMERS.map(|(name, _)| log.consumer(name).unwrap());
    for (nth, consumer) in consumers.iter().enumerate() {
        say(nth, "begins", consumer.position().get());
    }
    for number in 0_u64.. {
        log.append(format!("record {number}")).unwrap();
        for (nth, consumer) in consumers.iter_mut().enumerate() {
            while let Some(entry) = consumer.next().unwrap() {
                let offset = entry.offset().get();
                say(nth, "has", offset);
                if offset % CONSUMERS[nth].1 == 0 {
                    consumer.commit().unwrap();
                    say(nth, "committed", offset + 1);
                }
            }
        }
    }
}
