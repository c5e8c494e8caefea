//! Closing beside those who append, wait and roll: nobody is forgotten, and no file changes after.

use crate::support::after_close;
use crate::support::at;
use crate::support::begun;
use crate::support::disk::Disk;
use crate::support::explore;
use crate::support::spawn;
use std::time::Duration;
use stratalog::{Durability, ErrorKind, Log, Result, Seek};

/// Ok, or told that the log is closed.
fn succeeded(outcome: Result<()>) -> bool {
    match outcome {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Closed);
            false
        }
    }
}

/// Closes beside a call; tells whether the call succeeded, and what is there afterwards.
fn close_beside(
    disk: &Disk,
    level: Durability,
    call: impl FnOnce(Log) -> Result<()> + Send + 'static,
) -> (bool, Vec<String>) {
    let log = begun(disk, level);
    let other = {
        let log = log.clone();
        spawn(move || call(log))
    };
    log.close().unwrap();
    let succeeded = succeeded(other.join().unwrap());
    (succeeded, after_close(disk, log))
}

#[test]
fn an_append_beside_close() {
    for (name, level) in [
        ("a buffered append beside close", Durability::Buffered),
        ("a written append beside close", Durability::Written),
        ("a synced append beside close", Durability::Synced),
    ] {
        explore(name, None, move || {
            let append = |log: Log| log.append("1").map(drop);
            let (succeeded, there) = close_beside(&Disk::default(), level, append);
            assert!(there.len() == 2 || !succeeded && there.len() == 1, "{there:?}");
        });
    }
}

#[test]
fn a_roll_beside_close() {
    explore("a roll beside close", None, || {
        let (_, there) = close_beside(&Disk::default(), Durability::Synced, |log| log.roll());
        assert_eq!(there, ["0"]);
    });
}

#[test]
fn a_sync_beside_close() {
    explore("a sync beside close", Some(8), || {
        let call = |log: Log| {
            log.append_with(Durability::Buffered, "1")?;
            log.sync()
        };
        let (succeeded, there) = close_beside(&Disk::default(), Durability::Synced, call);
        assert!(there.len() == 2 || !succeeded, "{there:?}");
    });
}

/// A cursor that waits for a record that never comes is told.
#[test]
fn a_reader_that_waits_beside_close() {
    explore("a reader that waits beside close", None, || {
        let wait = |log: Log| log.cursor(Seek::End)?.wait(Duration::MAX).map(drop);
        let (succeeded, there) = close_beside(&Disk::default(), Durability::Synced, wait);
        assert_eq!((succeeded, there.len()), (false, 1));
    });
}

#[test]
fn two_close() {
    explore("two close", None, || {
        let close = |log: Log| log.close();
        let (succeeded, there) = close_beside(&Disk::default(), Durability::Synced, close);
        assert_eq!((succeeded, there.len()), (true, 1));
    });
}

/// A close that fails frees the lock all the same, and then nobody tries again what it could not.
#[test]
fn a_refused_close_beside_a_sync() {
    explore("a refused close beside a sync", Some(3), || {
        let disk = Disk::default();
        let log = begun(&disk, Durability::Synced);
        log.append_with(Durability::Buffered, "1").unwrap();
        disk.refuse_write(0, 0);
        let other = {
            let log = log.clone();
            spawn(move || (log.wait(at(1), Durability::Synced), log.sync(), log.sync()))
        };
        let closed = log.close();
        let (waited, ..) = other.join().unwrap();
        for outcome in [&closed, &waited] {
            let kind = outcome.as_ref().err().map(|error| error.kind());
            let known = [ErrorKind::StorageFull, ErrorKind::Closed];
            assert!(kind.is_none_or(|kind| known.contains(&kind)), "{outcome:?}");
        }
        assert!(after_close(&disk, log).len() == 2 || waited.and(closed).is_err());
    });
}
