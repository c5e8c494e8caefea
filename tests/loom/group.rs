//! Group commit: each who waits gets its own outcome, one syncs for many, nobody is forgotten.

use crate::support::after_power_cut;
use crate::support::begun;
use crate::support::disk::Disk;
use crate::support::explore;
use crate::support::spawn;
use loom::thread;
use loom::thread::JoinHandle;
use stratalog::{Durability, ErrorKind, Log, Result};

/// Appends and, if that succeeds, looks whether the mark is there.
fn append_here(log: &Log, level: Durability) -> Result<()> {
    let offset = log.append_with(level, "x")?;
    let mark = match level {
        Durability::Synced => log.durable_offset(),
        _ => log.written_offset(),
    };
    assert!(mark > offset, "{mark} {offset}");
    Ok(())
}

fn append(log: &Log, level: Durability) -> JoinHandle<Result<()>> {
    let log = log.clone();
    spawn(move || append_here(&log, level))
}

#[test]
fn two_commit() {
    explore("two commit", None, || {
        let disk = Disk::default();
        let log = begun(&disk, Durability::Synced);
        let before = disk.syncs();
        let other = append(&log, Durability::Synced);
        append_here(&log, Durability::Synced).unwrap();
        other.join().unwrap().unwrap();
        assert!(disk.syncs() - before <= 2);
        assert_eq!(after_power_cut(&disk).len(), 3);
    });
}

/// One leads, one is handed the lead, or is covered.
#[test]
fn three_commit() {
    explore("three commit", Some(2), || {
        let disk = Disk::default();
        let log = begun(&disk, Durability::Synced);
        let others = [(); 2].map(|()| append(&log, Durability::Synced));
        append_here(&log, Durability::Synced).unwrap();
        others.into_iter().for_each(|other| other.join().unwrap().unwrap());
        assert_eq!(after_power_cut(&disk).len(), 4);
    });
}

/// A sync covers what was appended before it began, and the next what came meanwhile: a third would
/// be that of a second leader.
#[test]
fn those_who_come_during_a_sync_share_the_next() {
    explore("those who come during a sync share the next", Some(2), || {
        let disk = Disk::default();
        let log = begun(&disk, Durability::Synced);
        let before = disk.syncs();
        let looks = log.clone();
        disk.hold_next_sync(move || looks.end_offset().get() < 4);
        let others = [(); 2].map(|()| append(&log, Durability::Synced));
        append_here(&log, Durability::Synced).unwrap();
        others.into_iter().for_each(|other| other.join().unwrap().unwrap());
        assert!(disk.syncs() - before <= 2);
    });
}

/// Nobody gets a success that a power cut takes back, and after the failure nobody gets one.
#[test]
fn a_sync_that_fails() {
    explore("a sync that fails", None, || {
        let disk = Disk::default();
        let log = begun(&disk, Durability::Synced);
        disk.lose_what_is_synced_next();
        let other = append(&log, Durability::Synced);
        for outcome in [append_here(&log, Durability::Synced), log.sync(), other.join().unwrap()] {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Poisoned);
        }
        assert_eq!(after_power_cut(&disk).len(), 1);
    });
}

/// Of two syncs the first succeeds or fails, by who comes first.
#[test]
fn a_sync_that_fails_beside_one_that_does_not() {
    explore("a sync that fails beside one that does not", None, || {
        let disk = Disk::default();
        let log = begun(&disk, Durability::Synced);
        let other = append(&log, Durability::Synced);
        disk.lose_what_is_synced_next();
        let outcomes = [append_here(&log, Durability::Synced), other.join().unwrap()];
        let acknowledged = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert!(after_power_cut(&disk).len() > acknowledged);
        assert!(log.append("x").is_err());
    });
}

#[test]
fn a_writer_beside_a_committer() {
    explore("a writer beside a committer", Some(5), || {
        let disk = Disk::default();
        let log = begun(&disk, Durability::Synced);
        let other = append(&log, Durability::Written);
        append_here(&log, Durability::Synced).unwrap();
        other.join().unwrap().unwrap();
        assert_eq!(log.written_offset().get(), 3);
        thread::yield_now();
        log.sync().unwrap();
        assert_eq!(after_power_cut(&disk).len(), 3);
    });
}

#[test]
fn a_roll_beside_a_committer() {
    explore("a roll beside a committer", None, || {
        let disk = Disk::default();
        let log = begun(&disk, Durability::Synced);
        let other = append(&log, Durability::Synced);
        log.roll().unwrap();
        other.join().unwrap().unwrap();
        assert_eq!(after_power_cut(&disk).len(), 2);
    });
}
