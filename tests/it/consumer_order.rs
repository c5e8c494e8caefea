//! The order of calls for the positions of consumers: the rules of `support/positions.rs` hold
//! whatever is done, and when calls fail; and each rule is broken by a sample.

use crate::support::at;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use crate::support::medium::Numbers;
use crate::support::ordered::OrderedStorage;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stratalog::Durability::{self, Buffered, Synced, Written};
use stratalog::storage::{File, OpenMode, Storage};
use stratalog::{Log, Result, Seek};

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join("consumers").join(name)
}

fn open(order: &OrderedStorage, level: Durability) -> Result<Log> {
    let log = tiny(Arc::new(order.clone())).durability(level).open(DIR)?;
    order.opened(&log);
    Ok(log)
}

/// Some operation with the log or one of two consumers.
fn step(order: &OrderedStorage, log: &Log, numbers: &mut Numbers) -> Result<()> {
    let name = *numbers.pick(&["a", "b"]);
    let commit = |seek: Option<Seek>| -> Result<()> {
        let mut consumer = log.consumer(name)?;
        for _ in 0..3 {
            if consumer.next().is_err() {
                consumer.seek(Seek::Start)?;
            }
        }
        seek.map_or(Ok(()), |seek| consumer.seek(seek))?;
        consumer.commit()?;
        order.committed(&path(name), consumer.position());
        Ok(())
    };
    match numbers.below(12) {
        0..4 => {
            log.append_batch_with(*numbers.pick(&[Buffered, Written, Synced]), ["x"; 3])?;
        }
        4..7 => commit(None)?,
        7 => commit(Some(Seek::Start))?,
        8 => commit(Some(Seek::End))?,
        9 => drop(log.remove_consumer(name)?),
        10 => {
            let (start, end) = (log.start_offset(), log.end_offset());
            log.truncate_to(start + (end - start) / 2)?;
        }
        _ => log.delete_before(log.start_offset() + 1)?,
    }
    order.check();
    Ok(())
}

#[test]
fn programs_with_consumers_keep_the_order() {
    for seed in 0..40 {
        let mut machine = FaultyStorage::memory();
        let mut order = OrderedStorage::over(machine.process());
        let mut numbers = Numbers(seed);
        for life in 0..5 {
            let level = *numbers.pick(&[Buffered, Written, Synced]);
            let log = open(&order, level).unwrap();
            for _ in 0..25 {
                step(&order, &log, &mut numbers).unwrap();
            }
            if life % 2 == 0 {
                // What the next process finds was not all durable.
                machine = machine.crash(Crash::Random(seed));
                drop(log);
                order = OrderedStorage::over(machine.process());
            } else {
                log.close().unwrap();
                order.closed();
            }
        }
    }
}

#[test]
fn programs_with_consumers_whose_calls_fail_keep_the_order() {
    let ops = [Op::Create, Op::Rename, Op::Remove, Op::SyncDir, Op::Write, Op::Sync];
    for (nth, op) in (1..12).flat_map(|nth| ops.map(|op| (nth, op))) {
        let machine = FaultyStorage::memory();
        let order = OrderedStorage::over(machine.process());
        machine.inject(Fault::new(op, io::ErrorKind::Other).on("consumers").nth(nth));
        let mut numbers = Numbers(nth);
        for _ in 0..2 {
            let log = open(&order, Written).unwrap();
            for _ in 0..30 {
                // Where it fails is no matter, for the rules are asked on the way.
                drop(step(&order, &log, &mut numbers));
                order.check();
            }
            log.close().unwrap();
            machine.heal();
        }
    }
}

/// A slot as the format has it, as far as the rules look.
fn slot(sequence: u64, position: u64) -> Vec<u8> {
    let mut slot = vec![7; 64];
    slot[32..40].copy_from_slice(&sequence.to_le_bytes());
    slot[40..48].copy_from_slice(&position.to_le_bytes());
    slot
}

type Sample = fn(&OrderedStorage, &dyn File, &FaultyStorage);

/// Each breaks a rule; how the report goes on.
const BAD: &[(&str, Sample)] = &[
    ("the other slot is not synced", |_, file, _| {
        file.write_at(&slot(1, 0), 0).unwrap();
        file.write_at(&slot(2, 0), 4096).unwrap();
    }),
    ("the slot that counts is overwritten", |_, file, _| {
        for sequence in 1..3 {
            file.write_at(&slot(sequence, 0), 0).unwrap();
            file.sync_data().unwrap();
        }
    }),
    ("64 bytes are written at 8", |_, file, _| drop(file.write_at(&slot(1, 0), 8))),
    ("it is ahead of the log", |_, file, _| drop(file.write_at(&slot(1, 4), 0))),
    ("is synced after its sync failed", |_, file, machine| {
        machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other));
        file.write_at(&slot(1, 0), 0).unwrap();
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
    }),
    ("gets its name before it is synced", |order, _, _| {
        let file = order.open(&path(".next"), OpenMode::Create).unwrap();
        file.write_at(&[0; 8192], 0).unwrap();
        order.rename(&path(".next"), &path("other")).unwrap();
    }),
    ("gets a name after names failed", |order, _, machine| {
        machine.inject(Fault::new(Op::SyncDir, io::ErrorKind::Other));
        order.sync_dir(&Path::new(DIR).join("consumers")).unwrap_err();
        order.open(&path("other"), OpenMode::Create).unwrap();
    }),
];

#[test]
fn each_rule_of_positions_is_broken_by_a_sample() {
    for (what, sample) in BAD {
        let machine = FaultyStorage::memory();
        let order = OrderedStorage::over(machine.process());
        let log = open(&order, Synced).unwrap();
        log.append_batch(["x"; 3]).unwrap();
        log.append_with(Written, "not synced").unwrap();
        order.create_dir(&Path::new(DIR).join("consumers")).unwrap();
        let file = order.open(&path("a"), OpenMode::Create).unwrap();
        order.check();
        sample(&order, &*file, &machine);
        let broken = order.broken().unwrap_or_default();
        assert!(broken.contains(what), "{what}: {broken:?}");
    }
}

/// A commit that was told, and is not durable.
#[test]
fn what_is_told_too_early_is_seen() {
    let machine = FaultyStorage::memory();
    let order = OrderedStorage::over(machine.process());
    let log = open(&order, Synced).unwrap();
    log.append_batch(["x"; 3]).unwrap();
    let mut consumer = log.consumer("a").unwrap();
    consumer.next().unwrap();
    consumer.commit().unwrap();
    order.committed(&path("a"), at(1));
    order.states(&path("a"), at(2));
    assert!(order.broken().unwrap().contains("committed 2, durable is"));
}
