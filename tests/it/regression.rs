//! The bugs of the past: the story, then the test.

use crate::support::at;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::image::tiny;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use stratalog::Durability::Written;
use stratalog::{Log, Offset};

/// A roll let go of the writer between ending the segment in memory and sealing it on disk. A write
/// that was refused in between sent later records back to that segment, whose file was then made
/// anew, without its records. And a sync that had read the end before a refused write took records
/// back waited for it for ever, at full speed.
#[test]
fn rolls_and_syncs_amid_refused_writes_lose_no_record() {
    for every in [2, 3, 5] {
        let machine = FaultyStorage::memory();
        let log = tiny(machine.process()).durability(Written).open(DIR).unwrap();
        machine.inject(Fault::new(Op::Write, io::ErrorKind::StorageFull).on(".log").every(every));
        let acknowledged = append_amid_rolls(&log);
        machine.heal();
        assert!(acknowledged.len() > 100, "too little was appended");
        check(&log, &acknowledged);
        log.close().unwrap();
        check(&tiny(machine.process()).open(DIR).unwrap(), &acknowledged);
    }
}

fn append_amid_rolls(log: &Log) -> Vec<(Offset, String)> {
    let done = AtomicBool::new(false);
    let append = |thread: usize| {
        let values = (0..400).map(|nth| format!("{thread} {nth}"));
        let appended = values.filter_map(|value| Some((log.append(&value).ok()?, value)));
        appended.collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let appenders = [0, 1].map(|thread| scope.spawn(move || append(thread)));
        for call in [Log::roll, Log::sync] {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    // It may be refused, too.
                    drop(call(log));
                }
            });
        }
        let acknowledged = appenders.into_iter().flat_map(|thread| thread.join().unwrap());
        let acknowledged = acknowledged.collect();
        done.store(true, Ordering::Relaxed);
        acknowledged
    })
}

fn check(log: &Log, acknowledged: &[(Offset, String)]) {
    assert!(log.start_offset() == at(0));
    for (offset, value) in acknowledged {
        let entry = log.get(*offset).unwrap();
        assert_eq!(entry.unwrap().value(), value.as_bytes(), "offset {offset}");
    }
}
