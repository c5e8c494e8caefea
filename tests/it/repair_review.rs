//! Verifying and repairing where a review found more lost than was damaged, or less said.

use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::at;
use crate::support::clock::ManualClock;
use crate::support::compaction::pair;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::forge;
use crate::support::gauge::Gauge;
use crate::support::hook::HookStorage;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::read_rows;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use crate::support::model::Row;
use crate::support::records;
use crate::support::replica::Wire;
use crate::support::secs;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stratalog::storage::{MemoryStorage, OpenMode, Storage};
use stratalog::{
    Compaction, Durability, ErrorKind, Keep, Log, Options, Record, RepairOptions, RepairReport,
    Seek, VerifyOptions, VerifyReport,
};

pub(crate) fn repair(storage: &Arc<dyn Storage>, keep: Keep) -> RepairReport {
    let options = RepairOptions::new().storage(Arc::clone(storage)).keep(keep);
    stratalog::repair(DIR, &options).unwrap()
}

/// The storage of an image, to be repaired and opened.
pub(crate) fn place(image: &Image) -> Arc<dyn Storage> {
    Arc::new(image.storage())
}

/// What was deleted is not missed.
#[test]
fn damage_below_the_start_does_not_end_a_prefix() {
    for (deleted, damaged, left) in [(2, 0, 18), (2, 1, 18), (2, 2, 0), (9, 0, 11), (9, 12, 3)] {
        let storage = MemoryStorage::new();
        let log = tiny(Arc::new(storage.clone())).open(DIR).unwrap();
        append_all(&log, &records(0..20));
        log.delete_before(at(deleted)).unwrap();
        let before = read_rows(&log).unwrap();
        log.close().unwrap();
        drop(log);
        let mut image = Image::of(&storage);
        if !flip_value(&mut image, damaged) {
            assert!(damaged < deleted, "the file is still there");
        }
        let storage = place(&image);
        let report = repair(&storage, Keep::Prefix);
        let log = tiny(storage).open(DIR).unwrap();
        let story = format!("{deleted} deleted, {damaged} damaged: {report}");
        assert_eq!(log.start_offset(), at(deleted), "{story}");
        assert_eq!(log.end_offset(), at(deleted + left), "{story}");
        let expected = &before[..usize::try_from(left).unwrap()];
        assert_eq!(read_rows(&log).unwrap(), expected, "{story}");
        assert_eq!(log.append("goes on").unwrap().get(), deleted + left, "{story}");
    }
}

/// Damages the frame of one record; `false` if its file has gone.
pub(crate) fn flip_value(image: &mut Image, offset: u64) -> bool {
    for bytes in image.0.iter_mut().filter(|(name, _)| name.ends_with(".log")).map(|(_, b)| b) {
        let mut position = 72;
        while position + 40 <= bytes.len() && bytes[position + 36] == 1 {
            let len = u32::from_le_bytes(bytes[position + 4..position + 8].try_into().unwrap());
            let base = bytes[position + 8..position + 16].try_into().unwrap();
            if u64::from_le_bytes(base) == offset {
                bytes[position + 41] ^= 1;
                return true;
            }
            position = (position + 40 + usize::try_from(len).unwrap()).next_multiple_of(8);
        }
    }
    false
}

/// A log whose records are only written, of a process that was killed.
fn killed() -> FaultyStorage {
    let machine = FaultyStorage::memory();
    let clock = Arc::new(ManualClock::at(secs(1000)));
    let options = tiny(machine.process()).durability(Durability::Written).clock(clock);
    let log = options.open(DIR).unwrap();
    for record in records(0..25) {
        log.append(record).unwrap();
    }
    machine.kill();
    drop(log);
    machine
}

/// Whoever opens the log now is shown what the next power cut leaves; gives the number of records.
#[track_caller]
fn check_shown_stays(machine: &FaultyStorage, story: &str) -> Option<usize> {
    let log = tiny(machine.process()).open(DIR).ok()?;
    // Of what is damaged nothing is shown; the rest is.
    let shown = readable(&log);
    for how in [Crash::DropUnsynced, Crash::Prefix(3), Crash::Random(7)] {
        let after = tiny(machine.crash(how).process()).open(DIR);
        let after = after.unwrap_or_else(|error| panic!("{story}, {how:?}: {error}"));
        assert!(readable(&after) == shown, "{story}, {how:?}: {} were shown", shown.len());
    }
    Some(shown.len())
}

/// What can be read of a log by who goes on behind damage.
fn readable(log: &Log) -> Vec<Row> {
    let mut cursor = log.cursor(Seek::Start).unwrap();
    let mut rows = Vec::new();
    loop {
        match cursor.next() {
            Ok(None) => return rows,
            Ok(Some(entry)) => rows.push(Row::from(entry)),
            Err(error) => cursor.seek(Seek::Offset(error.readable_from().unwrap())).unwrap(),
        }
    }
}

fn damage(machine: &FaultyStorage, name: &str, position: u64) {
    let path = Path::new(DIR).join(name);
    let file = machine.process().open(&path, OpenMode::Write).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, position).unwrap();
    file.write_at(&[!byte[0]], position).unwrap();
}

fn repair_machine(machine: &FaultyStorage) -> stratalog::Result<RepairReport> {
    stratalog::repair(DIR, &RepairOptions::new().storage(machine.process()))
}

#[test]
fn what_a_repair_calls_sealed_is_durable() {
    for call in 0.. {
        let machine = killed();
        let last = Image::of(&*machine.process()).last();
        damage(&machine, &last, 20);
        machine.stop_after(call);
        let repaired = repair_machine(&machine);
        machine.kill();
        let shown = check_shown_stays(&machine, &format!("stopped before call {call}"));
        if repaired.is_ok() {
            assert_eq!(shown, Some(25));
            break;
        }
    }
}

#[test]
fn what_a_repair_without_a_manifest_leaves_half_done_is_durable() {
    let mut opened = 0;
    for damaged in [None, Some(20), Some(115)] {
        for call in 0.. {
            let machine = killed();
            let last = Image::of(&*machine.process()).last();
            if let Some(position) = damaged {
                damage(&machine, &last, position);
            }
            machine.process().remove(&Path::new(DIR).join("MANIFEST")).unwrap();
            machine.stop_after(call);
            let repaired = repair_machine(&machine);
            machine.kill();
            let story = format!("{damaged:?} damaged, stopped before call {call}");
            let shown = check_shown_stays(&machine, &story);
            opened += usize::from(shown.is_some());
            if repaired.is_ok() {
                assert!(shown >= Some(24), "{story}: {shown:?}");
                break;
            }
        }
    }
    assert!(opened > 3, "{opened}");
}

/// The durable marks of what was truncated are still in the file.
#[test]
fn a_mark_of_what_was_truncated_proves_nothing() {
    let machine = FaultyStorage::memory();
    let clock = Arc::new(ManualClock::at(secs(1000)));
    let options = tiny(machine.process()).segment_bytes(1 << 20).clock(clock.clone());
    let log = options.open(DIR).unwrap();
    append_all(&log, &records(0..20));
    log.truncate_to(at(5)).unwrap();
    drop(log);
    let options = tiny(machine.process()).durability(Durability::Written).clock(clock);
    let log = options.open(DIR).unwrap();
    append_all(&log, &records(20..23));
    machine.kill();
    drop(log);
    machine.process().remove(&Path::new(DIR).join("MANIFEST")).unwrap();
    let report = repair_machine(&machine).unwrap();
    assert_eq!(check_shown_stays(&machine, &report.to_string()), Some(8), "{report}");
}

/// Times before those of what was truncated, and holes: a replica takes both.
#[test]
fn what_a_replica_truncated_does_not_come_back() {
    let values: [&[u8]; 5] = [b"0", b"1", b"2", b"3", b"4"];
    let earlier = [Wire::values(5, 2000, &values[..3]), Wire::hole(8, 1)];
    let holes = [Wire::values(5, 4000, &values[..2]), Wire::hole(7, 2)];
    for after in [earlier, holes] {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let log = tiny(Arc::clone(&storage)).segment_bytes(1 << 20).open(DIR).unwrap();
        log.append_frames(&Wire::values(0, 1000, &values).bytes()).unwrap();
        log.append_frames(&Wire::values(5, 3000, &values).bytes()).unwrap();
        log.truncate_to(at(5)).unwrap();
        for frame in after {
            log.append_frames(&frame.bytes()).unwrap();
        }
        let (before, end) = (readable(&log), log.end_offset());
        log.close().unwrap();
        drop(log);
        storage.remove(&Path::new(DIR).join("MANIFEST")).unwrap();
        let report = repair(&storage, Keep::Readable);
        let log = tiny(storage).open(DIR).unwrap();
        assert_eq!(readable(&log), before, "{report}");
        assert_eq!(log.end_offset(), end, "{report}");
    }
}

/// Of a segment that grows each bad frame is looked at twice: the second look is a short one.
#[test]
fn much_damage_is_not_much_to_read() {
    const FRAMES: u64 = 4000;
    let mut bytes = forge::segment(1, 0);
    for offset in 0..FRAMES {
        let mut frame = forge::frame(offset, b"x");
        frame[41] ^= 7;
        bytes.extend(frame);
    }
    let len = bytes.len() as u64;
    let row =
        forge::Row { id: 1, base: 0, end: 0, byte_len: forge::HEADER_LEN, state: forge::ACTIVE };
    let image = Image(BTreeMap::from([
        (forge::segment_name(1, 0), bytes),
        ("MANIFEST".to_owned(), forge::manifest(forge::OPEN, 0, &[row])),
    ]));
    let gauge = Gauge::over(image.storage());
    let options = VerifyOptions::new().storage(Arc::new(gauge.clone()));
    let report = stratalog::verify(DIR, &options).unwrap();
    assert!(!report.is_sound(), "{report}");
    let looks = gauge.read_bytes() - gauge.read_bytes().min(16 * len);
    assert!(looks <= FRAMES * (4 << 10), "{} bytes are read", gauge.read_bytes());
}

/// A first record longer than what is read of bodies to find a seed.
#[test]
fn a_damaged_header_in_front_of_a_large_record_costs_nothing() {
    let storage = MemoryStorage::new();
    let options = Options::new().storage(Arc::new(storage.clone()));
    let log = options.open(DIR).unwrap();
    log.append(vec![b'x'; 17 << 20]).unwrap();
    append_all(&log, &records(0..20));
    log.close().unwrap();
    drop(log);
    let mut image = Image::of(&storage);
    let name = image.last();
    image.bytes(&name)[70] ^= 1;
    let storage = place(&image);
    let report = repair(&storage, Keep::Readable);
    let log = tiny(storage).open(DIR).unwrap();
    assert_eq!(read_rows(&log).unwrap().len(), 21, "{report}");
}

/// A segment with a record in each frame.
pub(crate) fn forged(id: u64, base: u64, count: u64) -> (String, Vec<u8>) {
    let mut bytes = forge::segment(id, base);
    for offset in base..base + count {
        bytes.extend(forge::frame(offset, b"x"));
    }
    (forge::segment_name(id, base), bytes)
}

/// Repairs these segments, which have no manifest; gives the offsets that are there and the next.
pub(crate) fn rebuilt<const N: usize>(
    files: [(String, Vec<u8>); N],
) -> (Vec<u64>, u64, RepairReport) {
    let storage = place(&Image(BTreeMap::from(files)));
    let report = repair(&storage, Keep::Readable);
    let log = tiny(storage).open(DIR).unwrap();
    let entries = log.iter(Seek::Start).unwrap();
    let offsets = entries.map(|entry| entry.unwrap().offset().get()).collect();
    (offsets, log.append("next").unwrap().get(), report)
}

/// The last segment has a header and no record: its base was given out up to there.
#[test]
fn no_offset_below_an_empty_last_segment_is_given_out_again() {
    let (offsets, next, report) = rebuilt([forged(1, 0, 3), forged(3, 9, 0)]);
    assert_eq!((offsets, next), (vec![0, 1, 2], 9), "{report}");
    let lost = report.found().damage().iter().any(|one| one.offsets == (at(3)..at(9)));
    assert!(lost, "{report}");
    let (offsets, next, report) = rebuilt([forged(3, 9, 0)]);
    assert_eq!((offsets, next), (vec![], 9), "{report}");
    let (offsets, next, report) = rebuilt([forged(1, 0, 3), forged(2, 3, 0)]);
    assert_eq!((offsets, next), (vec![0, 1, 2], 3), "{report}");
}

/// So many offsets as no segment has: it was more than one.
#[test]
fn a_gap_of_many_segments_costs_only_what_is_missing() {
    let far = 3 << 32;
    let (offsets, next, report) = rebuilt([forged(1, 0, 2), forged(9, far, 2)]);
    assert_eq!((offsets, next), (vec![0, 1, far, far + 1], far + 2), "{report}");
    let lost = report.found().damage().iter().any(|one| one.offsets == (at(2)..at(far)));
    assert!(lost, "{report}");
    // No log is so long: of what is left out the report tells.
    let nowhere = 1 << 60;
    let (offsets, next, report) = rebuilt([forged(1, 0, 2), forged(9, nowhere, 2)]);
    assert_eq!((offsets, next), (vec![nowhere, nowhere + 1], nowhere + 2), "{report}");
    let told = |offset| report.found().damage().iter().any(|one| one.offsets.contains(&at(offset)));
    assert!(told(0) && told(1) && told(2) && !told(nowhere), "{report}");
    assert_eq!(report.found().records(), 2, "{report}");
}

/// The manifest says that the first record came later than those that follow it.
#[test]
fn verifying_holds_frames_against_the_time_that_the_manifest_states() {
    let early = |mark: bool| {
        let mut bytes = forge::segment(1, 0);
        bytes.extend(forge::frame_at(500, 0, 1, &[0, 1, b'x']));
        let byte_len = bytes.len() as u64;
        bytes.extend(forge::frame_at(500, 1, 1, &[0, 1, b'x']));
        if mark {
            bytes.extend(forge::frame_at(500, 2, 1, &[0, 1, b'x']));
        }
        let row = forge::Row { id: 1, base: 0, end: 1, byte_len, state: forge::ACTIVE };
        Image(BTreeMap::from([
            (forge::segment_name(1, 0), bytes),
            ("MANIFEST".to_owned(), forge::manifest(forge::OPEN, 0, &[row])),
        ]))
    };
    let refused = early(true);
    assert_kind(refused.open(), ErrorKind::Corrupt);
    let storage = place(&refused);
    let report = repair(&storage, Keep::Readable);
    assert!(!report.found().is_sound(), "{report}");
    assert_eq!(read_rows(&tiny(storage).open(DIR).unwrap()).unwrap().len(), 3, "{report}");
    // Without a durable mark behind it opening takes it for a torn tail.
    let cut = early(false);
    assert_eq!(read_rows(&cut.open().unwrap()).unwrap().len(), 1);
    let options = VerifyOptions::new().storage(place(&cut));
    let report = stratalog::verify(DIR, &options).unwrap();
    assert!(report.is_sound(), "{report}");
}

/// Compaction leaves a segment without records in front.
#[test]
fn what_holds_no_record_is_no_loss() {
    let storage = MemoryStorage::new();
    let compaction = Compaction::new().tombstone_retention(Duration::ZERO);
    let log = tiny(Arc::new(storage.clone())).compaction(compaction).open(DIR).unwrap();
    for key in ["a", "b", "c"] {
        log.append(pair(key, 1)).unwrap();
        log.append(Record::tombstone(key)).unwrap();
    }
    log.roll().unwrap();
    for key in ["d", "e", "f"] {
        log.append(Record::new(vec![b'v'; 480]).key(key)).unwrap();
    }
    log.roll().unwrap();
    log.compact().unwrap();
    let (before, end) = (read_rows(&log).unwrap(), log.end_offset());
    log.close().unwrap();
    drop(log);
    let image = Image::of(&storage);
    let hole = image.segments()[0].clone();
    assert_eq!((image.0[&hole].len(), before.len()), (72, 3));
    let mut flipped = image.clone();
    flipped.bytes(&hole)[70] ^= 1;
    let mut missing = image.clone();
    missing.0.remove(&hole);
    for damaged in [flipped, missing] {
        for keep in [Keep::Prefix, Keep::Readable] {
            let storage = place(&damaged);
            let report = repair(&storage, keep);
            assert_eq!(report.found().damage().len(), 1, "{report}");
            assert!(report.found().damage()[0].offsets.is_empty(), "{report}");
            let log = tiny(storage).open(DIR).unwrap();
            assert_eq!(read_rows(&log).unwrap(), before, "{report}");
            assert_eq!((log.start_offset(), log.end_offset()), (at(0), end), "{report}");
        }
    }
}

/// The last frame says that the one before was durable, and is torn itself; that one is damaged.
#[test]
fn no_offset_that_a_mark_proves_durable_is_given_out_again() {
    let machine = FaultyStorage::memory();
    let log = tiny(machine.process()).segment_bytes(1 << 20).open(DIR).unwrap();
    append_all(&log, &records(0..20));
    let before = read_rows(&log).unwrap();
    machine.kill();
    drop(log);
    let mut image = Image::of(&*machine.process());
    assert!(flip_value(&mut image, 18) && flip_value(&mut image, 19));
    assert_kind(image.open(), ErrorKind::Corrupt);
    let storage = place(&image);
    let report = repair(&storage, Keep::Readable);
    let lost: Vec<_> = report.found().damage().iter().map(|one| one.offsets.clone()).collect();
    assert_eq!((lost, report.found().end_offset()), (vec![at(18)..at(19)], at(19)), "{report}");
    let log = tiny(storage).open(DIR).unwrap();
    assert_eq!(read_rows(&log).unwrap(), before[..18], "{report}");
    assert_eq!(log.append("next").unwrap(), at(19), "{report}");
    // Who asks for a prefix wants no hole.
    let storage = place(&image);
    repair(&storage, Keep::Prefix);
    assert_eq!(tiny(storage).open(DIR).unwrap().append("next").unwrap(), at(18));
}

/// Of the frame with the mark the header is left, of what is before it nothing.
#[test]
fn what_a_mark_proves_is_lost_though_no_frame_is_left_in_between() {
    let mark = |mark: u64| {
        let mut bytes = forge::segment(1, 0);
        bytes.extend(forge::frame(0, b"x"));
        bytes.extend([0xff; 64]);
        bytes.extend(&forge::frame_at(500, mark, 1, &[0, 1, b'x'])[..40]);
        bytes.extend([0xff; 8]);
        let row = forge::Row {
            id: 1,
            base: 0,
            end: 0,
            byte_len: forge::HEADER_LEN,
            state: forge::ACTIVE,
        };
        Image(BTreeMap::from([
            (forge::segment_name(1, 0), bytes),
            ("MANIFEST".to_owned(), forge::manifest(forge::OPEN, 0, &[row])),
        ]))
    };
    // No segment has more offsets than the last of these.
    for (stated, end) in
        [(5, 5), (u64::from(u32::MAX), u32::MAX.into()), (1 << 40, u32::MAX.into())]
    {
        assert_kind(mark(stated).open(), ErrorKind::Corrupt);
        let storage = place(&mark(stated));
        let report = repair(&storage, Keep::Readable);
        let lost: Vec<_> = report.found().damage().iter().map(|one| one.offsets.clone()).collect();
        assert_eq!(lost, [at(1)..at(end)], "{report}");
        assert_eq!(tiny(storage).open(DIR).unwrap().append("next").unwrap(), at(end), "{report}");
    }
}

/// A look at everything lists the directory once.
fn looks(machine: &FaultyStorage) -> (u64, stratalog::Result<VerifyReport>) {
    machine.forget_calls();
    let report = stratalog::verify(DIR, &VerifyOptions::new().storage(machine.process()));
    (machine.count(|op, _| op == Op::List), report)
}

#[test]
fn what_cannot_be_read_is_read_once() {
    let storage = MemoryStorage::new();
    let log = tiny(Arc::new(storage.clone())).open(DIR).unwrap();
    append_all(&log, &records(0..20));
    let count = Image::of(&storage).segments().len() as u64;
    let machine = FaultyStorage::over(storage);
    machine.inject(Fault::new(Op::Read, io::ErrorKind::Other).on(".log").nth(3).forever());
    let (looks_taken, report) = looks(&machine);
    assert_eq!((looks_taken, report.unwrap_err().kind()), (1, ErrorKind::Io));
    machine.heal();
    // A file that has gone since it was listed is another matter.
    machine.inject(Fault::new(Op::Open, io::ErrorKind::NotFound).on(".log").nth(count + 1));
    let (looks_taken, report) = looks(&machine);
    assert_eq!((looks_taken, report.unwrap().is_sound()), (2, true));
}

/// A copy with zeros in the place of what cannot be read is what a repair takes.
#[test]
fn what_cannot_be_read_is_no_damage_until_it_is_copied() {
    let storage = MemoryStorage::new();
    let log = tiny(Arc::new(storage.clone())).segment_bytes(8 << 10).open(DIR).unwrap();
    append_all(&log, &records(0..300));
    let before = read_rows(&log).unwrap();
    log.close().unwrap();
    drop(log);
    let mut image = Image::of(&storage);
    let name = image.segments()[1].clone();
    let machine = FaultyStorage::over(storage);
    for name in [&*name, "MANIFEST"] {
        machine.inject(Fault::new(Op::Read, io::ErrorKind::Other).on(name).forever());
        let path = Path::new(DIR).join(name);
        let (_, verified) = looks(&machine);
        for error in [verified.unwrap_err(), repair_machine(&machine).unwrap_err()] {
            assert_eq!((error.kind(), error.path()), (ErrorKind::Io, Some(&*path)), "{error}");
        }
        machine.heal();
        assert!(Image::of(&*machine.process()) == image, "{name}");
    }
    image.bytes(&name)[4096..].fill(0);
    let storage = place(&image);
    let report = repair(&storage, Keep::Readable);
    let left = read_rows(&tiny(storage).open(DIR).unwrap()).unwrap();
    let is_told = |offset| report.found().damage().iter().any(|one| one.offsets.contains(&offset));
    let expected = (0..).zip(before).filter(|(offset, _)| !is_told(at(*offset)));
    assert_eq!(left, expected.map(|(_, row)| row).collect::<Vec<_>>(), "{report}");
    assert!((200..300).contains(&left.len()), "{report}");
}

/// The file that could not be read was removed meanwhile, while it was open here.
#[test]
fn what_cannot_be_read_of_a_log_that_changes_is_looked_at_again() {
    let storage = HookStorage::default();
    let log = tiny(Arc::new(storage.clone())).open(DIR).unwrap();
    append_all(&log, &records(0..20));
    let first = Path::new(DIR).join(&Image::of(&storage).segments()[0]);
    let file = storage.open(&first, OpenMode::Write).unwrap();
    storage.before(Op::Read, ".log", move || {
        let mut header = [0; 72];
        file.read_at(&mut header, 0).unwrap();
        header[8] = 2;
        file.write_at(&forge::resealed(header.to_vec()), 0).unwrap();
        log.delete_before(at(15)).unwrap();
    });
    let options = VerifyOptions::new().storage(Arc::new(storage.clone()));
    let report = stratalog::verify(DIR, &options).unwrap();
    assert!(storage.has_acted() && report.is_sound(), "{report}");
    assert_eq!(report.start_offset(), at(15), "{report}");
}

/// The kernel shows a write that is under way in pieces.
#[test]
fn a_frame_that_is_being_written_is_no_damage() {
    let row =
        forge::Row { id: 1, base: 0, end: 0, byte_len: forge::HEADER_LEN, state: forge::ACTIVE };
    // The file is opened for its header, for all that is in it, and for what is behind the end
    // that the manifest states, if something is.
    for (count, opens) in [(0, 2), (2, 3)] {
        let (name, bytes) = forged(1, 0, count);
        let end = bytes.len() as u64;
        let image = Image(BTreeMap::from([
            (name, bytes),
            ("MANIFEST".to_owned(), forge::manifest(forge::OPEN, 0, &[row])),
        ]));
        let frame = forge::frame(count, &[b'x'; 100]);
        for (opened, len) in
            (0..opens).flat_map(|opened| (1..=frame.len()).map(move |n| (opened, n)))
        {
            let storage = HookStorage::default();
            image.put(&storage, Path::new(DIR));
            let (writer, part) = (storage.clone(), frame[..len].to_vec());
            on_open(storage.clone(), opened, move || {
                let path = Path::new(DIR).join(forge::segment_name(1, 0));
                let file = writer.open(&path, OpenMode::Write).unwrap();
                file.write_at(&part, end).unwrap();
            });
            let options = VerifyOptions::new().storage(Arc::new(storage.clone()));
            let report = stratalog::verify(DIR, &options).unwrap();
            assert!(storage.has_acted(), "{opened}");
            assert!(report.is_sound(), "{len} bytes, open {opened}: {report}");
        }
    }
}

/// Acts before a segment is opened, when that has been done so often.
fn on_open(storage: HookStorage, times: usize, act: impl FnOnce() + Send + 'static) {
    let next = storage.clone();
    storage.before(Op::Open, ".log", move || match times {
        0 => act(),
        _ => on_open(next, times - 1, act),
    });
}
