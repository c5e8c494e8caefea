//! One stream over several logs: a record goes to the log that its key says, so that those of one
//! key stay in their order, and writers and readers of different keys do not wait for each other.
//!
//! Why this is an example and not a type: what is easy to get wrong fits into two functions, and
//! the rest (what of a record is its key, which options each log has, who reads which) is the
//! application's. The two:
//!
//! - [`partition`], the hash, must give the same number for ever, on every machine and in every
//!   version. `std`'s hasher promises none of that, so the few lines of FNV-1a are written out.
//! - [`open`] must not open three logs of what was written as four. The count is in the names of
//!   the directories, `2-of-4`: another count finds other names, and is refused.
//!
//! How many? A log takes millions of records a second from one thread; partitions are for several
//! writers that wait for a disk each, for readers in parallel, or for retention by tenant. The
//! count is changed as any format is: into another directory, a key's records in their order (all
//! of them are in one of the old logs), then the old one goes. Doing that in place goes wrong.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::thread;
use stratalog::{Durability, Log, Options, Record, Seek};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const KEYS: u64 = 1_000;
const CHANGES: u64 = 20;

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let four = dir.path().join("four");
    let logs = open(&four, 4)?;
    for change in 0..CHANGES {
        for key in 0..KEYS {
            append(&logs, &format!("customer-{key}"), &change.to_string())?;
        }
    }
    println!("{} records in 4 partitions", KEYS * CHANGES);
    println!("customer-17 is in partition {}, here and everywhere", partition(b"customer-17", 4));
    println!("read in parallel: {} keys, each in its order", read_in_parallel(&logs)?);
    close(logs)?;

    if let Err(error) = open(&four, 6) {
        println!("not with another count: {error}");
    }
    let old = open(&four, 4)?;
    let new = open(&dir.path().join("six"), 6)?;
    for log in &old {
        for entry in log.iter(Seek::Start)? {
            let entry = entry?;
            let place = partition(entry.key().unwrap_or_default(), new.len());
            new.get(place).ok_or("no such partition")?.append(Record::from(&entry))?;
        }
    }
    println!("copied to 6: {} keys, each in its order", read_in_parallel(&new)?);
    // Only when it is on the disk may the old one go.
    close(new)
}

/// The partition of a key: FNV-1a, and its upper bits scaled to the count. Never to be changed.
fn partition(key: &[u8], count: usize) -> usize {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // Its upper bits say little of short keys until they are mixed.
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let place = (u128::from(mixed) * count as u128) >> 64;
    usize::try_from(place).unwrap_or_default()
}

/// Opens the partitions of a stream, which are made with the first call.
fn open(dir: &Path, count: usize) -> Result<Vec<Log>> {
    fs::create_dir_all(dir)?;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        if !name.ends_with(&format!("-of-{count}")) {
            return Err(format!("{name} is there, so there are not {count} partitions").into());
        }
    }
    let open = |nth| {
        let path = dir.join(format!("{nth}-of-{count}"));
        Ok(Options::new().durability(Durability::Buffered).open(path)?)
    };
    (0..count).map(open).collect()
}

fn append(logs: &[Log], key: &str, value: &str) -> Result<()> {
    let log = logs.get(partition(key.as_bytes(), logs.len())).ok_or("no such partition")?;
    log.append(Record::new(value).key(key))?;
    Ok(())
}

/// A log that is only dropped has nobody to tell that it could not be written.
fn close(logs: Vec<Log>) -> Result<()> {
    logs.into_iter().try_for_each(|log| Ok(log.close()?))
}

/// A thread a partition; each checks that the changes of each of its keys are in order.
fn read_in_parallel(logs: &[Log]) -> Result<usize> {
    let read = |log: &Log| -> Result<usize> {
        let mut seen = HashMap::new();
        for entry in log.iter(Seek::Start)? {
            let entry = entry?;
            let changes: &mut u64 = seen.entry(entry.key().map(<[u8]>::to_vec)).or_default();
            if entry.value() != changes.to_string().as_bytes() {
                return Err(format!("out of order: {entry:?}").into());
            }
            *changes += 1;
        }
        Ok(seen.len())
    };
    thread::scope(|scope| {
        let readers: Vec<_> = logs.iter().map(|log| scope.spawn(move || read(log))).collect();
        let counts = readers.into_iter().map(|reader| reader.join().map_err(|_| "it failed")?);
        counts.sum()
    })
}
