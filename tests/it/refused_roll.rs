//! A roll that fails before anything of it took effect.

use crate::support::append_all;
use crate::support::at;
use crate::support::check;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::image::tiny;
use crate::support::records;
use std::io;
use stratalog::Durability::Buffered;
use stratalog::{ErrorKind, Log, Options, Record};

#[test]
fn a_roll_that_cannot_make_a_file_leaves_the_log_as_it_was() {
    let (other, full) = (io::ErrorKind::Other, io::ErrorKind::StorageFull);
    for (op, on, kind, expected) in [
        (Op::Create, ".log", other, ErrorKind::Io),
        (Op::Sync, ".next", other, ErrorKind::Io),
        (Op::Rename, "MANIFEST", full, ErrorKind::StorageFull),
    ] {
        let machine = FaultyStorage::memory();
        let log = open(&machine);
        let mut all = records(0..4);
        append_all(&log, &all);
        machine.inject(Fault::new(op, kind).on(on).forever());
        let large = Record::new(vec![7; 500]);
        for _ in 0..3 {
            let error = log.append(large.clone()).unwrap_err();
            assert_eq!((error.kind(), error.offset()), (expected, None), "{op:?}: {error}");
            assert!(error.path().is_some());
            check(&log, &all);
        }
        machine.heal();
        log.append(large.clone()).unwrap();
        all.push(large);
        check(&log, &all);
        log.close().unwrap();
        check(&open(&machine), &all);
    }
}

/// `Ok` and an offset mean that the record is in the log, `Err` that it is not, unless it says so.
#[test]
fn buffered_appends_whose_segments_cannot_be_made_are_accounted_for() {
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        let machine = FaultyStorage::memory();
        let log = buffered(&machine).open(DIR).unwrap();
        machine.inject(Fault::new(Op::Create, kind).on(".log").forever());
        let mut all = Vec::new();
        for nth in 0..40 {
            let record = Record::new(format!("{nth:0300}"));
            let taken = log.append(record.clone()).or_else(|error| error.offset().ok_or(error));
            if let Ok(offset) = taken {
                assert_eq!(offset, at(all.len() as u64));
                all.push(record);
            }
            assert_eq!(log.end_offset(), at(all.len() as u64), "after {nth} with {kind}");
        }
        machine.heal();
        log.sync().unwrap();
        check(&log, &all);
    }
}

fn open(machine: &FaultyStorage) -> Log {
    tiny(machine.process()).open(DIR).unwrap()
}

fn buffered(machine: &FaultyStorage) -> Options {
    tiny(machine.process()).durability(Buffered)
}
