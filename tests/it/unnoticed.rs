//! Mistakes that no other test noticed when they were made on purpose, and tests that do.

use crate::support::append_all;
use crate::support::at;
use crate::support::check;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::faulty::Wanted;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::read;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use crate::support::records;
use crate::support::tail;
use std::path::Path;
use std::thread;
use stratalog::Durability::{Buffered, Written};
use stratalog::{Record, Result};

/// The lock went back while the last bytes were on their way.
#[test]
fn a_log_is_locked_until_its_close_has_returned() {
    for op in [Op::Write, Op::Sync, Op::Rename] {
        let machine = FaultyStorage::memory();
        let log = tiny(machine.process()).open(DIR).unwrap();
        log.append_with(Buffered, "the last").unwrap();
        let is_locked = thread::scope(|scope| {
            machine.hold(op);
            let closing = scope.spawn(|| log.close().unwrap());
            machine.wait_until_held();
            let lock = machine.process().lock(&Path::new(DIR).join("LOCK"));
            machine.release();
            closing.join().unwrap();
            lock.is_err()
        });
        assert!(is_locked, "{op:?}");
        assert!(machine.process().lock(&Path::new(DIR).join("LOCK")).is_ok());
    }
}

/// A record was shown, or called written, when its write had not begun: a full disk could still
/// refuse it.
#[test]
fn what_is_being_written_is_neither_shown_nor_called_written() {
    let machine = FaultyStorage::memory();
    let log = tiny(machine.process()).durability(Written).open(DIR).unwrap();
    log.append("before").unwrap();
    let (marks, entry) = thread::scope(|scope| {
        machine.hold(Op::Write);
        let appending = scope.spawn(|| log.append("now").unwrap());
        machine.wait_until_held();
        let marks = [log.high_watermark(), log.written_offset(), log.durable_offset()];
        let entry = log.get(at(1));
        machine.release();
        appending.join().unwrap();
        (marks, entry)
    });
    assert_eq!(marks, [at(1), at(1), at(0)]);
    assert!(entry.unwrap().is_none());
    check(&log, &["before", "now"].map(Record::new));
}

/// A process dies between the rename of the manifest and the sync of the directory; the next one
/// finds the disk full and cannot write a manifest of its own, so that nothing else makes the
/// rename durable. What it acknowledges is in a segment that only the new manifest names.
#[test]
fn a_rename_left_undecided_is_decided_though_the_disk_is_full() {
    let program = |machine: &FaultyStorage| -> Result<()> {
        let log = tiny(machine.process()).open(DIR)?;
        append_all_or_stop(&log, &tail(3))?;
        log.roll()?;
        log.append_with(Written, "begins the segment").map(drop)
    };
    let whole = FaultyStorage::memory();
    whole.record(Wanted::All, 10_000);
    program(&whole).unwrap();
    let mut full = 0;
    for (_, medium) in whole.take_tape() {
        let machine = FaultyStorage::with(medium);
        machine.set_free(Some(0));
        // Without space there may be no log yet.
        let Ok(log) = tiny(machine.process()).open(DIR) else { continue };
        full += u32::from(log.append(vec![b'x'; 600]).is_err());
        machine.set_free(None);
        let mut all = read(&log).unwrap();
        append_all(&log, &tail(1));
        all.extend(tail(1));
        check(&tiny(machine.crash(Crash::DropUnsynced).process()).open(DIR).unwrap(), &all);
    }
    assert!(full > 5, "the disk was full {full} times");
}

fn append_all_or_stop(log: &stratalog::Log, records: &[Record<'_>]) -> Result<()> {
    records.iter().try_for_each(|record| log.append(record.clone()).map(drop))
}

/// The last frame of a process that was killed has a sound header and a body that is torn.
#[test]
fn a_frame_with_a_torn_body_is_cut() {
    let machine = FaultyStorage::memory();
    let log = tiny(machine.process()).open(DIR).unwrap();
    let value = "v".repeat(100);
    append_all(&log, &[&value, &value].map(Record::new));
    machine.kill();
    let whole = Image::of(&*machine.process());
    let name = whole.last();
    let end = whole.0[&name].iter().rposition(|byte| *byte == b'v').unwrap();
    for torn in end - 99..=end {
        let mut image = whole.clone();
        image.bytes(&name)[torn] = 0;
        let log = image.open().unwrap();
        assert_eq!(log.recovery().cut_at(), Some(at(1)), "byte {torn}");
        check(&log, &[Record::new(&value)]);
    }
}

/// A segment that ended lost its last frames, and ends exactly behind one that is sound.
#[test]
fn a_written_segment_cut_off_at_any_length_leaves_no_hole() {
    let machine = FaultyStorage::memory();
    let log = tiny(machine.process()).open(DIR).unwrap();
    let all = records(0..12);
    for record in &all {
        log.append_with(Written, record.clone()).unwrap();
    }
    machine.kill();
    let whole = Image::of(&*machine.process());
    let name = &whole.segments()[0];
    for len in 72..whole.0[name].len() {
        let mut image = whole.clone();
        image.bytes(name).truncate(len);
        let log = image.open().unwrap();
        let kept = read(&log).unwrap();
        assert_eq!(log.recovery().cut_at(), Some(at(kept.len() as u64)), "length {len}");
        assert_eq!(kept, all[..kept.len()]);
    }
}
