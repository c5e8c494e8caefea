//! A backup of a log that is written to, damage to the log, and two ways back: repair and restore.
//!
//! Run it with `cargo run --example backup`.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use stratalog::storage::{FsStorage, Storage};
use stratalog::{Log, Options, RepairOptions, Seek, VerifyOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    let dir = tempfile::tempdir()?;
    let (orders, backup) = (dir.path().join("orders"), dir.path().join("backup"));
    let log = open(&orders)?;
    for number in 0..2000 {
        log.append_batch([format!("order {number}"), format!("paid {number}")])?;
    }

    // The log goes on while it is saved; the second time only what is new is brought.
    let is_over = AtomicBool::new(false);
    let end = thread::scope(|scope| {
        let appender = scope.spawn(|| -> stratalog::Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                log.append("an order meanwhile")?;
            }
            Ok(())
        });
        let mut taken = Ok(log.end_offset());
        for _ in 0..3 {
            let durable = log.durable_offset();
            taken = log.checkpoint(&backup);
            assert!(taken.as_ref().is_ok_and(|end| *end >= durable));
        }
        is_over.store(true, Ordering::Relaxed);
        appender.join().expect("the appender does not panic")?;
        taken
    })?;
    let all = count(&log)?;
    log.close()?;
    drop(log);
    let copy = open(&backup)?;
    assert_eq!((copy.end_offset(), count(&copy)?), (end, end.get()));
    copy.close()?;
    writeln!(out, "the backup opens and has all records up to the end it was taken at")?;

    // A disk garbles a sector in the middle of the log, and loses the manifest.
    let segment = oldest_segment(&orders)?;
    let mut bytes = fs::read(&segment)?;
    bytes.iter_mut().skip(4096).take(512).for_each(|byte| *byte = 0xff);
    // The backup has the same file, by another name: a disk that fails would hurt both. Here the
    // log gets a file of its own first, as if the backup were on another disk.
    FsStorage::new().remove(&segment)?;
    fs::write(&segment, bytes)?;
    fs::write(orders.join("MANIFEST"), "not what it was")?;
    let error = open(&orders).expect_err("nothing is guessed by opening");
    writeln!(out, "open: {:?}", error.kind())?;
    let report = stratalog::verify(&orders, &VerifyOptions::new())?;
    assert!(!report.is_sound());
    writeln!(out, "verify: {} places are damaged", report.damage().len())?;

    let repaired = stratalog::repair(&orders, &RepairOptions::new())?;
    let log = open(&orders)?;
    let left = count(&log)?;
    assert!(left < all && left + 300 > all && repaired.set_aside().is_some());
    assert!(stratalog::verify(&orders, &VerifyOptions::new())?.is_sound());
    writeln!(out, "repaired: all but a few records are read, at their offsets")?;

    // What was lost is in the backup.
    let copy = open(&backup)?;
    let lost: u64 =
        repaired.found().damage().iter().map(|one| one.offsets.end - one.offsets.start).sum();
    let mut found = 0;
    for damage in repaired.found().damage().iter().filter(|one| !one.offsets.is_empty()) {
        let mut cursor = copy.cursor(Seek::Offset(damage.offsets.start))?;
        while let Some(entry) =
            cursor.next()?.filter(|entry| damage.offsets.contains(&entry.offset()))
        {
            found += u64::from(!entry.value().is_empty());
        }
    }
    assert_eq!((found, all - left), (lost, lost));
    writeln!(out, "the backup has every record that was lost")?;
    Ok(())
}

fn open(path: &Path) -> stratalog::Result<Log> {
    Options::new().segment_bytes(64 << 10).open(path)
}

fn count(log: &Log) -> stratalog::Result<u64> {
    let mut count = 0;
    for entry in log.iter(Seek::Start)? {
        entry?;
        count += 1;
    }
    Ok(count)
}

/// The oldest one, which the backup has too.
fn oldest_segment(path: &Path) -> io::Result<std::path::PathBuf> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "log") {
            segments.push(path);
        }
    }
    segments.sort();
    segments.into_iter().next().ok_or(io::ErrorKind::NotFound.into())
}
