//! A disk that is full for one write, beside others who write, sync and roll.

use crate::support::after_close;
use crate::support::after_kill;
use crate::support::after_power_cut;
use crate::support::begun;
use crate::support::disk::Disk;
use crate::support::explore;
use crate::support::spawn;
use loom::thread::JoinHandle;
use stratalog::{Durability, ErrorKind, Log, Result};

/// Bytes that the refused write leaves: more than a whole frame of the records here.
const RESIDUE: usize = 60;

fn append(log: &Log, level: Durability, value: &'static str) -> JoinHandle<Result<()>> {
    let log = log.clone();
    spawn(move || log.append_with(level, value).map(drop))
}

/// What was told to be in the log is there, and what was told not to be is not.
fn check(values: &[String], outcomes: &[(&str, &Result<()>)]) {
    assert!(values.len() <= 1 + outcomes.len(), "{values:?}");
    for (value, outcome) in outcomes {
        let there = values.iter().filter(|there| there == value).count();
        let stays = outcome.as_ref().map_or_else(|error| error.offset().is_some(), |()| true);
        assert_eq!(there, usize::from(stays), "{value} of {values:?}, {outcome:?}");
    }
}

#[test]
fn a_refused_write_beside_a_committer() {
    explore("a refused write beside a committer", None, || {
        let disk = Disk::default();
        let log = begun(&disk, Durability::Synced);
        disk.refuse_write(0, RESIDUE);
        let other = append(&log, Durability::Synced, "a");
        let own = log.append("b").map(drop);
        let other = other.join().unwrap();
        for outcome in [&own, &other] {
            let refused = outcome.as_ref().err().map(|error| error.kind());
            assert!(refused.is_none_or(|kind| kind == ErrorKind::StorageFull), "{outcome:?}");
        }
        check(&after_power_cut(&disk), &[("a", &other), ("b", &own)]);
        log.append("c").unwrap();
        check(&after_close(&disk, log), &[("a", &other), ("b", &own), ("c", &Ok(()))]);
    });
}

/// What the refused write left is whole, and stays, or is a part and is gone; the next one finds
/// space to erase it.
#[test]
fn a_refused_write_that_cannot_be_erased_beside_a_committer() {
    explore("a refused write that cannot be erased beside a committer", Some(3), || {
        let disk = Disk::default();
        let log = begun(&disk, Durability::Synced);
        disk.refuse_write(0, RESIDUE);
        disk.refuse_erasure();
        let other = append(&log, Durability::Synced, "a");
        let own = log.append("b").map(drop);
        let other = other.join().unwrap();
        let found = after_kill(&disk);
        for (value, outcome) in [("a", &other), ("b", &own)] {
            if let Err(error) = outcome {
                assert_eq!(error.kind(), ErrorKind::StorageFull);
                let may_be_there = error.offset().is_some();
                assert!(may_be_there || found.iter().all(|there| there != value), "{value}");
            }
        }
        log.append("c").unwrap();
        check(&after_close(&disk, log), &[("a", &other), ("b", &own), ("c", &Ok(()))]);
    });
}

/// What a refused write leaves is erased and synced while a leader syncs the same file: whichever
/// of the two is told that bytes were lost, the leader's record must not be acknowledged.
#[test]
fn a_sync_fails_while_the_residue_is_erased() {
    explore("a sync fails while the residue is erased", Some(4), || {
        let disk = Disk::default();
        let log = begun(&disk, Durability::Synced);
        disk.refuse_write(1, RESIDUE);
        disk.lose_what_is_synced_next();
        let leader = append(&log, Durability::Synced, "a");
        let refused = append(&log, Durability::Written, "b");
        let (leader, refused) = (leader.join().unwrap(), refused.join().unwrap());
        let acknowledged = usize::from(leader.is_ok());
        assert!(after_power_cut(&disk).len() > acknowledged, "{leader:?} {refused:?}");
    });
}

/// A record that was accepted as buffered stays; the roll meets the full disk, or comes after.
#[test]
fn a_refused_write_beside_a_roll() {
    explore("a refused write beside a roll", Some(4), || {
        let disk = Disk::default();
        let log = begun(&disk, Durability::Synced);
        log.append_with(Durability::Buffered, "kept").unwrap();
        disk.refuse_write(0, RESIDUE);
        let other = append(&log, Durability::Written, "a");
        let rolled = log.roll();
        assert!(rolled.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::StorageFull));
        let other = other.join().unwrap();
        log.append("b").unwrap();
        let outcomes = [("kept", &Ok(())), ("a", &other), ("b", &Ok(()))];
        check(&after_power_cut(&disk), &outcomes);
        check(&after_close(&disk, log), &outcomes);
    });
}
