//! The main job, on real input: write a changelog, be killed, recover, go on, read it all back.
//!
//! The input is the history of a public repository: the time, the path of a file, and the id of its
//! new content, or nothing if it was deleted. Each change becomes a record whose key is the path; a
//! deletion is a tombstone. The changes of one commit are a batch: after a crash it is there whole
//! or not at all. A child process writes and is killed half-way; this process goes on from there.

#![expect(clippy::print_stdout, reason = "an example reports to whoever runs it")]
#![expect(clippy::disallowed_methods, reason = "time is only measured here")]

use flate2::read::GzDecoder;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use std::{env, fs};
use stratalog::{EntryBuf, Log, Offset, Record, Seek, Timestamp};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A line of the input.
struct Change {
    at: Timestamp,
    path: String,
    /// `None`: the file was deleted.
    blob: Option<String>,
}

macro_rules! ensure {
    ($holds:expr, $what:literal) => {
        if !$holds {
            return Err(format!($what).into());
        }
    };
}

fn main() -> Result<()> {
    let text = unpacked("redb.changelog.tsv.gz")?;
    let changes = text.lines().map(parse).collect::<Result<Vec<_>>>()?;
    match env::args_os().nth(1) {
        Some(dir) => write_until_killed(Path::new(&dir), &changes),
        None => run(&changes),
    }
}

fn run(changes: &[Change]) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let dir = scratch.path().join("changes");
    let acknowledged = write_in_a_child(&dir, changes)?;
    println!("a child process was killed when {acknowledged} records were acknowledged");

    let log = Log::open(&dir)?;
    println!("recovery: {}", log.recovery());
    check_survivors(&log, changes, acknowledged)?;
    append_the_rest(&log, changes)?;
    let table = read_back(&log, changes)?;
    check_table(&table)?;
    check_seeks(&log)?;
    print_last_three(&log)?;
    log.close()?;

    let log = Log::open(&dir)?;
    let recovery = log.recovery();
    ensure!(recovery.is_clean(), "it was closed, but: {recovery}");
    println!("reopened: {recovery}");

    println!("everything is as it should be");
    Ok(())
}

/// What the child does: appends commit after commit, and says so when each of them is safe.
fn write_until_killed(dir: &Path, changes: &[Change]) -> Result<()> {
    let log = Log::open(dir)?;
    let mut stdout = io::stdout();
    for commit in commits(changes) {
        let end = append(&log, commit)?;
        writeln!(stdout, "{end}")?;
    }
    // Killed before, as a rule; if not, it waits here, so that nobody closes the log.
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Runs this program again as the writer, kills it half-way, and returns the last end that it
/// acknowledged: all records below it are safe.
fn write_in_a_child(dir: &Path, changes: &[Change]) -> Result<Offset> {
    let mut child = Command::new(env::current_exe()?)
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or("the child has no output")?;
    let half = changes.len() as u64 / 2;
    let mut acknowledged = 0;
    for line in BufReader::new(stdout).lines() {
        acknowledged = line?.parse()?;
        if acknowledged >= half {
            // SIGKILL: it cannot clean up. The lines it got out before still come.
            child.kill()?;
        }
    }
    child.wait()?;
    ensure!(acknowledged >= half, "the child ended by itself");
    Ok(Offset::from(acknowledged))
}

/// The changes of one commit have one time and follow each other.
fn commits(changes: &[Change]) -> impl Iterator<Item = &[Change]> {
    changes.chunk_by(|one, next| one.at == next.at)
}

/// Appends a commit and returns the end of the log, when it is on the disk: that is the default.
fn append(log: &Log, commit: &[Change]) -> Result<Offset> {
    Ok(match commit {
        [change] => log.append(record(change))? + 1,
        several => log.append_batch(several.iter().map(record))?.end,
    })
}

fn record(change: &Change) -> Record<'_> {
    let record = match &change.blob {
        Some(blob) => Record::new(blob).key(&change.path),
        None => Record::tombstone(&change.path),
    };
    // The log orders by append; the time of the change, which may go back, is the caller's own.
    record.timestamp(change.at)
}

/// What was acknowledged must be there, and nothing else than what was appended.
fn check_survivors(log: &Log, changes: &[Change], acknowledged: Offset) -> Result<()> {
    let mut found = Offset::ZERO;
    for (entry, change) in log.iter(Seek::Start)?.zip(changes) {
        check_entry(&entry?, change)?;
        found = found + 1;
    }
    ensure!(found >= acknowledged, "only {found} records are there");
    println!("{found} records are there, all that were acknowledged");
    Ok(())
}

fn check_entry(entry: &EntryBuf, change: &Change) -> Result<()> {
    let blob = change.blob.as_deref();
    let same = entry.key() == Some(change.path.as_bytes())
        && entry.value() == blob.unwrap_or_default().as_bytes()
        && entry.is_tombstone() == blob.is_none()
        && entry.timestamp() == Some(change.at);
    ensure!(same, "not what was appended: {entry:?}");
    Ok(())
}

/// The log itself says how far the child got: an offset is the number of a line of the input.
fn append_the_rest(log: &Log, changes: &[Change]) -> Result<()> {
    let found = log.end_offset();
    let started = Instant::now();
    let (mut next, mut appends) = (Offset::ZERO, 0_u32);
    for commit in commits(changes) {
        let end = next + commit.len() as u64;
        if next >= found {
            append(log, commit)?;
            appends += 1;
        } else {
            ensure!(end <= found, "a part of a batch is there: {found}");
        }
        next = end;
    }
    let rate = f64::from(appends) / started.elapsed().as_secs_f64();
    let rest = next - found;
    println!("appended the other {rest} in {appends} synced appends, {rate:.0} a second");
    Ok(())
}

/// Compares record by record, and builds what a reader of a changelog is after: the table of the
/// last blob of each path.
fn read_back(log: &Log, changes: &[Change]) -> Result<BTreeMap<String, String>> {
    let (mut table, mut bytes) = (BTreeMap::new(), 0);
    let started = Instant::now();
    let mut cursor = log.cursor(Seek::Start)?;
    for change in changes {
        let entry = cursor.next()?.ok_or("the log ends too soon")?;
        check_entry(&entry.to_buf(), change)?;
        let path = str::from_utf8(entry.key().unwrap_or_default())?;
        bytes += path.len() + entry.value().len();
        if entry.is_tombstone() {
            table.remove(path);
        } else {
            table.insert(path.into(), str::from_utf8(entry.value())?.into());
        }
    }
    ensure!(cursor.next()?.is_none(), "there are records too many");
    let end = cursor.offset();
    let rate = end.get() as f64 / started.elapsed().as_secs_f64();
    println!("read {end} records of {bytes} bytes, {rate:.0} a second");
    Ok(table)
}

fn check_table(table: &BTreeMap<String, String>) -> Result<()> {
    let text = unpacked("redb.table.tsv.gz")?;
    let lines = table.iter().map(|(path, blob)| format!("{path}\t{blob}"));
    ensure!(lines.eq(text.lines()), "it is not the repository's table");
    let paths = table.len();
    println!("the last values of {paths} paths are those of the repository");
    Ok(())
}

/// By offset: exactly that record. By time: the first one appended then or later.
fn check_seeks(log: &Log) -> Result<()> {
    let middle = Offset::from(log.end_offset().get() / 2);
    let mut cursor = log.cursor(Seek::Offset(middle))?;
    let entry = cursor.next()?.ok_or("nothing is in the middle")?;
    ensure!(entry.offset() == middle, "offset {middle} is another");

    let time = entry.appended_at();
    cursor.seek(Seek::Time(time))?;
    let first = cursor.offset();
    let at = cursor.next()?.map(|entry| entry.appended_at());
    ensure!(at == Some(time), "{first} is not of the time {time}");
    cursor.seek(Seek::Offset(first))?;
    let before = cursor.prev()?.map(|entry| entry.appended_at());
    ensure!(before < Some(time), "{first} is not the first of {time}");
    println!("sought offset {middle}, and its time: {first} was the first appended then");
    Ok(())
}

fn print_last_three(log: &Log) -> Result<()> {
    let mut cursor = log.cursor(Seek::End)?;
    for _ in 0..3 {
        let entry = cursor.prev()?.ok_or("there are no three")?;
        let key = entry.key().unwrap_or_default().escape_ascii();
        println!("backwards: {} {key}", entry.offset());
    }
    Ok(())
}

fn parse(line: &str) -> Result<Change> {
    let (at, rest) = line.split_once('\t').ok_or("a line without a time")?;
    let (path, blob) = rest.split_once('\t').ok_or("a line without a path")?;
    Ok(Change {
        at: Timestamp::from_secs(at.parse()?),
        path: path.into(),
        blob: (!blob.is_empty()).then(|| blob.into()),
    })
}

fn unpacked(name: &str) -> Result<String> {
    let packed = fs::read(format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR")))?;
    let mut text = String::new();
    GzDecoder::new(packed.as_slice()).read_to_string(&mut text)?;
    Ok(text)
}
