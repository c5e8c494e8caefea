//! The bugs of the past: the story, then the test.

use crate::support::Site;
use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::assert_same;
use crate::support::at;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::full;
use crate::support::image::DIR;
use crate::support::image::tiny;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use stratalog::Durability::Written;
use stratalog::{ErrorKind, Log, Offset, ReadMode, Seek};

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

/// A cursor that met damage had the next segment at hand, but took it for the one it stood in: going
/// back, it gave the records of another place, or called them damaged as well.
#[test]
fn a_cursor_turns_back_at_damage() {
    for read_mode in [ReadMode::Map, ReadMode::Pread] {
        let site = Site::disk().small_segments().options(|options| options.read_mode(read_mode));
        let log = site.open();
        append_all(&log, &full(3));
        let names = site.files().into_iter().map(|(name, _)| name);
        let middle = names.filter(|name| name.ends_with(".log")).nth(1).unwrap();
        let path = site.path().join(middle);
        let mut bytes = fs::read(&path).unwrap();
        bytes[72 + 40 + 9] ^= 1;
        fs::write(&path, bytes).unwrap();
        let mut cursor = log.cursor(Seek::Start).unwrap();
        cursor.next().unwrap();
        for _ in 0..2 {
            assert_kind(cursor.next(), ErrorKind::Corrupt);
            assert_same(cursor.prev().unwrap().unwrap(), at(0), &full(1)[0]);
            assert_same(cursor.next().unwrap().unwrap(), at(0), &full(1)[0]);
        }
        cursor.seek(Seek::Offset(at(2))).unwrap();
        let expected = full(3);
        for _ in 0..2 {
            assert_same(cursor.next().unwrap().unwrap(), at(2), &expected[2]);
            assert_same(cursor.prev().unwrap().unwrap(), at(2), &expected[2]);
            assert_kind(cursor.prev(), ErrorKind::Corrupt);
            assert_eq!(cursor.offset(), at(2));
        }
    }
}
