//! Compaction beside those who append, read, cut and close: the last record of a key stays, and
//! whoever waits for a run is not forgotten.

use crate::support::after_close;
use crate::support::after_power_cut;
use crate::support::at;
use crate::support::disk::Disk;
use crate::support::explore;
use crate::support::open_with;
use crate::support::spawn;
use crate::support::values;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stratalog::{Compaction, ErrorKind, Log, Record, Seek};

/// Two sealed segments, each with a record of the one key there is.
fn dirty(disk: &Disk) -> Log {
    dirty_with(disk, |compaction| compaction)
}

fn dirty_with(disk: &Disk, set: impl FnOnce(Compaction) -> Compaction) -> Log {
    let compaction = Compaction::new().tombstone_retention(Duration::ZERO).map_bytes(1 << 10);
    let compaction = set(compaction);
    let log = open_with(disk, |options| options.compaction(compaction));
    for value in ["0", "1"] {
        log.append(Record::new(value).key("k")).unwrap();
        log.roll().unwrap();
    }
    log
}

#[test]
fn a_run_beside_an_append() {
    explore("a run beside an append", Some(2), || {
        let disk = Disk::default();
        let log = dirty(&disk);
        let other = {
            let log = log.clone();
            spawn(move || log.append(Record::new("2").key("k")).unwrap())
        };
        assert_eq!(log.compact().unwrap().records_removed(), 1);
        assert_eq!(other.join().unwrap(), at(2));
        assert_eq!(after_power_cut(&disk), ["1", "2"]);
        assert_eq!(values(&log), ["1", "2"]);
    });
}

#[test]
fn a_run_beside_close() {
    explore("a run beside close", Some(2), || {
        let disk = Disk::default();
        let log = dirty(&disk);
        let other = {
            let log = log.clone();
            spawn(move || match log.compact() {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
            })
        };
        log.close().unwrap();
        other.join().unwrap();
        let there = after_close(&disk, log);
        assert!(there == ["0", "1"] || there == ["1"], "{there:?}");
    });
}

/// The callback is asked while somebody else may wait for the run to end.
#[test]
fn a_run_whose_callback_closes_beside_close() {
    explore("a run whose callback closes, beside close", Some(2), || {
        let disk = Disk::default();
        // Of the standard library: it is no part of the model, and nobody waits for it.
        let cell: Arc<Mutex<Option<Log>>> = Arc::default();
        let inner = Arc::clone(&cell);
        let log = dirty_with(&disk, |compaction| {
            compaction.progress(move |_| {
                let log = inner.lock().unwrap().take();
                if let Some(log) = log {
                    log.close().unwrap();
                }
                ControlFlow::Continue(())
            })
        });
        *cell.lock().unwrap() = Some(log.clone());
        let other = {
            let log = log.clone();
            spawn(move || match log.compact() {
                Ok(report) => assert!(report.is_stopped()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
            })
        };
        log.close().unwrap();
        other.join().unwrap();
        // Nobody may have asked.
        drop(cell.lock().unwrap().take());
        assert_eq!(after_close(&disk, log), ["0", "1"]);
    });
}

/// The run may have come first: then what it removed is gone. It never removes anything for the
/// sake of a record that is cut off.
#[test]
fn a_run_beside_a_truncation() {
    explore("a run beside a truncation", Some(2), || {
        let disk = Disk::default();
        let log = dirty(&disk);
        let other = {
            let log = log.clone();
            spawn(move || log.compact().unwrap())
        };
        log.truncate_to(at(1)).unwrap();
        let report = other.join().unwrap();
        let there = values(&log);
        let is_first = report.records_removed() == 1;
        let expected: &[&str] = if is_first { &[] } else { &["0"] };
        assert_eq!(there, expected, "{report}");
        assert_eq!(after_power_cut(&disk), there);
    });
}

/// One of them does it, and the other finds it done.
#[test]
fn two_runs_at_once() {
    explore("two runs at once", Some(2), || {
        let log = dirty(&Disk::default());
        let other = {
            let log = log.clone();
            spawn(move || log.compact().unwrap().records_removed())
        };
        let removed = log.compact().unwrap().records_removed();
        assert_eq!(removed + other.join().unwrap(), 1);
        assert_eq!(values(&log), ["1"]);
    });
}

#[test]
fn a_run_beside_a_reader() {
    explore("a run beside a reader", Some(2), || {
        let log = dirty(&Disk::default());
        let mut cursor = log.cursor(Seek::Start).unwrap();
        let other = spawn(move || {
            let mut seen = Vec::new();
            while let Some(entry) = cursor.next().unwrap() {
                seen.push(entry.value().to_vec());
            }
            seen
        });
        log.compact().unwrap();
        let seen = other.join().unwrap();
        assert!(seen == [b"0", b"1"] || seen == [b"1"], "{seen:?}");
    });
}
