//! A table that is kept as a changelog: compaction makes the log as small as the table, and whoever
//! replays it gets the same table as before.
//!
//! The input is the history of a public repository, or the files that the arguments name: a
//! changelog of `unix time, path, blob id` (nothing for a deletion), and the table it ends in,
//! both packed with gzip. A thread appends the changes while another compacts the log again and
//! again; at the end nothing is left but the last change of each path that is still there, each
//! at the offset that it was given when it was appended.

#![expect(clippy::print_stdout, reason = "an example reports to whoever runs it")]

use flate2::read::GzDecoder;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, fs, thread};
use stratalog::{Compaction, CompactionReport, Durability, Log, Options, Record, Seek};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Path and blob.
type Table = BTreeMap<String, String>;

macro_rules! ensure {
    ($holds:expr, $what:literal) => {
        if !$holds {
            return Err(format!($what).into());
        }
    };
}

fn main() -> Result<()> {
    let mut files = env::args().skip(1);
    let data = format!("{}/tests/data", env!("CARGO_MANIFEST_DIR"));
    let changes = files.next().unwrap_or(format!("{data}/redb.changelog.tsv.gz"));
    let table = files.next().unwrap_or(format!("{data}/redb.table.tsv.gz"));
    let changes = unpacked(&changes)?;
    let changes = changes.lines().map(parse).collect::<Result<Vec<_>>>()?;
    let expected = unpacked(&table)?;
    let expected: Table = expected.lines().map(split).collect::<Result<_>>()?;

    let scratch = tempfile::tempdir()?;
    let options = options();
    let log = options.clone().open(scratch.path())?;
    let runs = append_and_compact(&log, &changes)?;
    println!("appended {} changes, compacted {runs} times meanwhile", changes.len());

    log.roll()?;
    let report = compact_all(&log)?;
    println!("{report}");
    check(&log, &changes, &expected)?;
    log.close()?;

    let log = options.open(scratch.path())?;
    check(&log, &changes, &expected)?;
    println!("the log holds {} records, and replays to the same table", expected.len());
    Ok(())
}

/// Deleted paths go at once. With readers that are sometimes slow, tombstones should live for
/// longer than those may stay away.
fn options() -> Options {
    let compaction = Compaction::new().tombstone_retention(Duration::ZERO);
    let options = Options::new().durability(Durability::Written).segment_bytes(64 << 10);
    options.compaction(compaction)
}

/// One thread appends, another compacts until that one is done; gives how often it did.
fn append_and_compact(log: &Log, changes: &[Change<'_>]) -> Result<u64> {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let compactor = scope.spawn(|| {
            let mut runs = 0;
            while !is_done.load(Ordering::Acquire) {
                log.compact()?;
                runs += 1;
            }
            Ok::<_, stratalog::Error>(runs)
        });
        let appended = changes.iter().try_for_each(|change| log.append(change.record()).map(drop));
        is_done.store(true, Ordering::Release);
        let runs = compactor.join().map_err(|_| "the thread that compacts panicked")??;
        appended?;
        Ok(runs)
    })
}

/// A run whose memory for keys was full says that there is more to do.
fn compact_all(log: &Log) -> Result<CompactionReport> {
    loop {
        let report = log.compact()?;
        if !report.more() {
            return Ok(report);
        }
    }
}

/// Replays the log: every record is the change that was appended at its offset, all of them
/// together are the table, and none is superfluous.
fn check(log: &Log, changes: &[Change<'_>], expected: &Table) -> Result<()> {
    let (mut table, mut count) = (Table::new(), 0);
    let mut cursor = log.cursor(Seek::Start)?;
    while let Some(entry) = cursor.next()? {
        let offset = entry.offset();
        let change = changes.get(usize::try_from(offset.get())?).ok_or("an offset too high")?;
        ensure!(Record::from(entry) == change.record(), "offset {offset} has another record");
        let path = str::from_utf8(entry.key().unwrap_or_default())?.to_owned();
        if entry.is_tombstone() {
            table.remove(&path);
        } else {
            table.insert(path, str::from_utf8(entry.value())?.to_owned());
        }
        count += 1;
    }
    ensure!(table == *expected, "it is not the table of the repository");
    ensure!(count == table.len(), "{count} records are more than the table needs");
    Ok(())
}

/// A line of the changelog.
struct Change<'a> {
    path: &'a str,
    /// Empty: the file was deleted.
    blob: &'a str,
}

impl Change<'_> {
    fn record(&self) -> Record<'_> {
        match self.blob {
            "" => Record::tombstone(self.path),
            blob => Record::new(blob).key(self.path),
        }
    }
}

fn parse(line: &str) -> Result<Change<'_>> {
    let (_, rest) = line.split_once('\t').ok_or("a line without a time")?;
    let (path, blob) = rest.split_once('\t').ok_or("a line without a path")?;
    Ok(Change { path, blob })
}

fn split(line: &str) -> Result<(String, String)> {
    let (path, blob) = line.split_once('\t').ok_or("a line without a path")?;
    Ok((path.to_owned(), blob.to_owned()))
}

fn unpacked(path: &str) -> Result<String> {
    let packed = fs::read(path)?;
    let mut text = String::new();
    GzDecoder::new(packed.as_slice()).read_to_string(&mut text)?;
    Ok(text)
}
