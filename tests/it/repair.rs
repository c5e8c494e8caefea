//! Verifying and repairing: every kind of damage is reported, the log opens afterwards, and all
//! that is not damaged is read at its offset.

use crate::support::append_all;
use crate::support::at;
use crate::support::check;
use crate::support::clock::ManualClock;
use crate::support::compaction::Full;
use crate::support::compaction::pair;
use crate::support::faulty::FaultyStorage;
use crate::support::forge;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::tiny;
use crate::support::medium::Numbers;
use crate::support::model::Row;
use crate::support::records;
use crate::support::secs;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use stratalog::storage::{MemoryStorage, Storage};
use stratalog::{
    Compaction, ErrorKind, Keep, Log, Offset, RepairOptions, RepairReport, Seek, VerifyOptions,
    VerifyReport,
};

type Rows = BTreeMap<Offset, Row>;

fn verify(storage: &MemoryStorage) -> VerifyReport {
    stratalog::verify(DIR, &VerifyOptions::new().storage(Arc::new(storage.clone()))).unwrap()
}

fn repair(storage: &MemoryStorage, keep: Keep) -> RepairReport {
    let options = RepairOptions::new().storage(Arc::new(storage.clone())).keep(keep);
    stratalog::repair(DIR, &options).unwrap()
}

fn rows(log: &Log) -> Rows {
    let entries = log.iter(Seek::Start).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.offset(), Row::from(&entry))).collect()
}

/// What a log shows to who goes on behind damage; `None` if it does not open.
fn readable(image: &Image) -> Option<Rows> {
    let log = image.open().ok()?;
    let mut cursor = log.cursor(Seek::Start).unwrap();
    let mut found = Rows::new();
    loop {
        match cursor.next() {
            Ok(None) => return Some(found),
            Ok(Some(entry)) => drop(found.insert(entry.offset(), Row::from(entry))),
            Err(error) => cursor.seek(Seek::Offset(error.readable_from().unwrap())).unwrap(),
        }
    }
}

/// Of a log with a record a frame: the offsets of frames that a range of a file touches.
fn touched(image: &Image, name: &str, range: &Range<usize>) -> Vec<Offset> {
    let bytes = &image.0[name];
    let (mut position, mut found) = (72, Vec::new());
    while position + 40 <= bytes.len() && bytes[position + 36] == 1 {
        let len = u32::from_le_bytes(bytes[position + 4..position + 8].try_into().unwrap());
        let end = (position + 40 + usize::try_from(len).unwrap()).next_multiple_of(8);
        if range.start < end && position < range.end {
            let base = bytes[position + 8..position + 16].try_into().unwrap();
            found.push(at(u64::from_le_bytes(base)));
        }
        position = end;
    }
    found
}

/// Repairs the damaged files; nothing but what may be lost is.
#[track_caller]
fn check_repair(image: &Image, all: &Rows, may_be_lost: &[Offset], story: &str) -> VerifyReport {
    let before = readable(image);
    let storage = image.storage();
    let report = verify(&storage);
    assert!(Image::of(&storage) == *image, "{story}: verifying changed something");
    let repaired = repair(&storage, Keep::Readable);
    assert_eq!(*repaired.found(), report, "{story}: what is done is what was said");
    assert_eq!(report.is_sound(), report.plan().is_empty(), "{story}: {report}");
    assert_eq!(repaired.set_aside().is_none(), aside(&storage).is_empty(), "{story}: {report}");
    if report.is_sound() {
        assert!(Image::of(&storage) == *image, "{story}: changed without damage");
        let before = before.as_ref().unwrap();
        let is_gone = |offset: &&Offset| !before.contains_key(*offset);
        let gone: Vec<_> = all.keys().filter(is_gone).collect();
        // A torn tail is no damage: a crash could have left it.
        assert!(gone.is_empty() || gone == [&at(19)], "{story}: damage is not seen");
    }
    let log = tiny(Arc::new(storage.clone())).open(DIR);
    let log = log.unwrap_or_else(|error| panic!("{story}: {error}\n{report}"));
    let found = rows(&log);
    for (offset, row) in all {
        match found.get(offset) {
            Some(there) => assert_eq!(there, row, "{story}"),
            None => assert!(may_be_lost.contains(offset), "{story}: {offset} is lost\n{report}"),
        }
    }
    assert!(found.keys().all(|offset| all.contains_key(offset)), "{story}: {report}");
    let lost = |offset: &Offset| report.damage().iter().any(|one| one.offsets.contains(offset));
    for offset in all.keys().filter(|offset| !found.contains_key(*offset)) {
        assert!(lost(offset) || report.end_offset() <= *offset, "{story}: {offset} is not told");
    }
    for (offset, row) in before.iter().flatten() {
        assert_eq!(found.get(offset), Some(row), "{story}: it could be read before\n{report}");
    }
    log.append("goes on").unwrap();
    log.close().unwrap();
    drop(log);
    let again = verify(&storage);
    assert!(again.is_sound() && again.plan().is_empty(), "{story}: {again}");
    report
}

/// The files that were set aside.
fn aside(storage: &MemoryStorage) -> BTreeMap<String, Vec<u8>> {
    let dirs = storage.list(Path::new(DIR)).unwrap().into_iter();
    let dirs = dirs.filter(|entry| entry.name.to_str().unwrap().starts_with("damaged-"));
    let images = dirs.map(|dir| Image::of_dir(storage, &Path::new(DIR).join(dir.name)));
    images.flat_map(|image| image.0).collect()
}

/// How the process that wrote the log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Killed,
}

/// A log of several segments with a record a frame; closed, or killed.
fn world(end: End) -> (Image, Rows) {
    let machine = FaultyStorage::memory();
    let log = tiny(machine.process()).open(DIR).unwrap();
    append_all(&log, &records(0..20));
    let all = rows(&log);
    if end == End::Closed {
        log.close().unwrap();
    }
    let mut image = Image::of(&*machine.process());
    image.0.remove("MANIFEST.next");
    // Not all the zeros that were written ahead.
    let last = image.last();
    let bytes = image.bytes(&last);
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let end = bytes.len().min(end.next_multiple_of(8) + 64);
    bytes.truncate(end);
    (image, all)
}

/// What damage to a range may cost: the frames it touches, and of a log that was killed, what no
/// later mark proves: the last record.
fn cost(image: &Image, name: &str, range: &Range<usize>, end: End) -> Vec<Offset> {
    let mut lost = if name.ends_with(".log") { touched(image, name, range) } else { Vec::new() };
    if end == End::Killed {
        lost.push(at(19));
    }
    lost
}

#[test]
fn any_byte_and_any_sector() {
    for end in [End::Closed, End::Killed] {
        let (image, all) = world(end);
        let mut seen = 0;
        for name in image.0.keys() {
            let len = image.0[name].len();
            let bytes = (0..len).step_by(7).map(|from| (from..from + 1, 1));
            let sectors = (0..len).step_by(64).flat_map(|from| {
                let range = from..len.min(from + 64);
                [(range.clone(), 0), (range, 2 + from / 64 % 2)]
            });
            for (range, way) in bytes.chain(sectors) {
                let mut damaged = image.clone();
                let mut numbers = Numbers(range.start as u64);
                for byte in &mut damaged.bytes(name)[range.clone()] {
                    match way {
                        0 => *byte = 0,
                        1 => *byte ^= 1 << (range.start % 8),
                        2 => *byte = 0xff,
                        _ => *byte = u8::try_from(numbers.below(256)).unwrap(),
                    }
                }
                let lost = cost(&image, name, &range, end);
                let story = format!("{end:?}, {name}, {range:?}, way {way}");
                let report = check_repair(&damaged, &all, &lost, &story);
                seen += u32::from(!report.is_sound());
            }
        }
        assert!(seen > 300, "{seen}");
    }
}

#[test]
fn any_file_missing_cut_or_exchanged() {
    for end in [End::Closed, End::Killed] {
        let (image, all) = world(end);
        for name in image.0.keys() {
            let len = image.0[name].len();
            let whole = cost(&image, name, &(0..len), end);
            let mut missing = image.clone();
            missing.0.remove(name);
            let active_gone = end == End::Killed && *name == image.last();
            check_repair(&missing, &all, &whole, &format!("{name} is missing"));
            for cut in (0..len).step_by(if active_gone { 24 } else { 56 }) {
                let mut short = image.clone();
                short.bytes(name).truncate(cut);
                let mut lost = cost(&image, name, &(cut..len), end);
                if cut < 72 {
                    lost.extend(&whole);
                }
                check_repair(&short, &all, &lost, &format!("{name} is cut at {cut}"));
            }
            for other in image.0.keys().filter(|other| *other > name) {
                let mut exchanged = image.clone();
                exchanged.0.insert(name.clone(), image.0[other].clone());
                exchanged.0.insert(other.clone(), image.0[name].clone());
                let both = |end: &str| name.ends_with(end) && other.ends_with(end);
                let mut lost = Vec::new();
                if !both(".log") && !both(".index") {
                    lost.extend(&whole);
                    lost.extend(cost(&image, other, &(0..image.0[other].len()), end));
                }
                check_repair(&exchanged, &all, &lost, &format!("{name} and {other}"));
            }
        }
    }
}

#[test]
fn what_is_set_aside_is_what_was_there() {
    let (image, all) = world(End::Closed);
    let name = image.segments()[1].clone();
    let mut damaged = image.clone();
    damaged.bytes(&name)[130] ^= 4;
    damaged.bytes("MANIFEST")[20] ^= 4;
    let storage = damaged.storage();
    let found = repair(&storage, Keep::Readable).found().damage()[0].clone();
    assert!(found.what.starts_with("the manifest is damaged (the checksum"), "{found:?}");
    assert!(!found.what.contains("MANIFEST"), "the path is told twice: {found:?}");
    let aside = aside(&storage);
    assert_eq!(aside[&name], damaged.0[&name]);
    assert_eq!(aside["MANIFEST"], damaged.0["MANIFEST"]);
    assert_eq!(rows(&tiny(Arc::new(storage)).open(DIR).unwrap()).len(), all.len() - 1);
}

/// Every number is taken up to the highest.
#[test]
fn what_was_set_aside_before_is_never_replaced() {
    let (image, all) = world(End::Closed);
    let name = image.segments()[1].clone();
    let mut damaged = image.clone();
    damaged.bytes(&name)[130] ^= 4;
    let aside = |number: u64| Path::new(DIR).join(format!("damaged-{number}"));
    let before = Image(BTreeMap::from([(name, b"kept".to_vec())]));
    for last in [u64::MAX - 1, u64::MAX] {
        let storage = damaged.storage();
        before.put(&storage, &aside(last));
        let options = RepairOptions::new().storage(Arc::new(storage.clone()));
        let repaired = stratalog::repair(DIR, &options);
        assert!(Image::of_dir(&storage, &aside(last)) == before);
        if last < u64::MAX {
            assert_eq!(repaired.unwrap().set_aside(), Some(aside(last + 1).as_path()));
            let log = tiny(Arc::new(storage)).open(DIR).unwrap();
            assert_eq!(rows(&log).len(), all.len() - 1);
        } else {
            let error = repaired.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert_eq!(error.path(), Some(aside(last).as_path()), "{error}");
            assert!(Image::of(&storage) == damaged, "{error}");
        }
    }
}

#[test]
fn a_prefix_ends_in_front_of_the_first_loss() {
    let (image, all) = world(End::Closed);
    for name in image.segments() {
        for offset in touched(&image, &name, &(0..10_000)) {
            let mut damaged = image.clone();
            let place = (72..image.0[&name].len())
                .find(|from| touched(&image, &name, &(*from..from + 1)) == [offset]);
            damaged.bytes(&name)[place.unwrap() + 38] ^= 1;
            let storage = damaged.storage();
            let report = repair(&storage, Keep::Prefix);
            assert!(!report.found().is_sound());
            let log = tiny(Arc::new(storage.clone())).open(DIR).unwrap();
            assert_eq!(log.end_offset(), offset, "{report}");
            assert_eq!(report.found().end_offset(), offset, "{report}");
            assert_eq!(report.found().segments(), image.segments().len() as u64, "{report}");
            let prefix: Rows = all.clone().into_iter().filter(|(at, _)| *at < offset).collect();
            assert_eq!(rows(&log), prefix);
            assert_eq!(log.append("next").unwrap(), offset);
        }
    }
}

#[test]
fn a_log_that_is_open_or_missing_is_not_repaired() {
    let (image, _) = world(End::Closed);
    let storage = Arc::new(image.storage());
    let log = tiny(storage.clone()).open(DIR).unwrap();
    let options = RepairOptions::new().storage(storage.clone());
    assert_eq!(stratalog::repair(DIR, &options).unwrap_err().kind(), ErrorKind::Locked);
    assert!(verify(&storage).is_sound());
    drop(log);
    storage.create_dir(Path::new("/empty")).unwrap();
    for path in ["/empty", "/missing"] {
        let kind = stratalog::repair(path, &options).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::Io, "{path}");
    }
    assert!(storage.list(Path::new("/empty")).unwrap().is_empty());
}

#[test]
fn a_newer_version_is_not_damage() {
    let (image, _) = world(End::Closed);
    let manifest = forge::resealed({
        let mut bytes = image.0["MANIFEST"].clone();
        bytes[8] = 2;
        bytes
    });
    let mut newer = image.clone();
    *newer.bytes("MANIFEST") = manifest;
    let storage = newer.storage();
    let options = RepairOptions::new().storage(Arc::new(storage.clone()));
    let error = stratalog::repair(DIR, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
    assert!(Image::of(&storage) == newer);
}

/// Random histories, then the manifest goes: what can be told is told.
#[test]
fn a_manifest_is_made_from_the_segments() {
    let (mut ambiguous, mut exact) = (0, 0);
    for seed in 0..150 {
        let storage = MemoryStorage::new();
        let clock = Arc::new(ManualClock::at(secs(1000)));
        let compaction = Compaction::new().tombstone_retention(Duration::ZERO);
        let log = tiny(Arc::new(storage.clone())).clock(clock.clone()).compaction(compaction);
        let log = log.open(DIR).unwrap();
        let mut numbers = Numbers(seed);
        let mut may_return = false;
        for step in 0..30 {
            clock.advance(Duration::from_secs(1));
            let (start, end) = (log.start_offset().get(), log.end_offset().get());
            match numbers.below(12) {
                0 => {
                    log.truncate_to(at(start + numbers.below(end - start + 1))).unwrap();
                    may_return |= log.end_offset().get() < end;
                }
                1 => log.delete_before(at(start + numbers.below(end - start + 1))).unwrap(),
                2 => drop(log.compact().unwrap()),
                3 => log.roll().unwrap(),
                4 => log.delete_before(at(end + numbers.below(3))).unwrap(),
                _ => {
                    for number in 0..1 + numbers.below(6) {
                        let key = numbers.below(8);
                        log.append(pair(&format!("{key}"), step * 10 + number)).unwrap();
                    }
                    may_return = false;
                }
            }
        }
        let before = Full::of(&log);
        let (start, end) = (log.start_offset(), log.end_offset());
        log.close().unwrap();
        drop(log);
        storage.remove(&Path::new(DIR).join("MANIFEST")).unwrap();
        if Image::of(&storage).segments().is_empty() {
            continue;
        }
        let report = repair(&storage, Keep::Readable);
        let log = tiny(Arc::new(storage)).open(DIR).unwrap();
        let after = Full::of(&log);
        let story = format!("seed {seed}: {start} to {end}, {report}");
        assert_eq!(after.above(start).below(end), before, "{story}");
        if log.end_offset() != end || log.start_offset() > start {
            // A truncation, or a jump, that no segment tells of.
            assert!(may_return || before.len() == 0 || log.end_offset() < end, "{story}");
            let notes = report.found().notes();
            assert!(notes.iter().any(|note| note.contains("compaction left nothing")), "{story}");
            ambiguous += 1;
        } else {
            exact += 1;
        }
    }
    assert!(exact > 80, "{exact} exact, {ambiguous} not");
}

/// Damage in what compaction has left, with holes and records at a step.
#[test]
fn a_compacted_log_is_repaired_too() {
    let storage = MemoryStorage::new();
    let compaction = Compaction::new().tombstone_retention(Duration::ZERO);
    let log = tiny(Arc::new(storage.clone())).compaction(compaction).open(DIR).unwrap();
    crate::support::compaction::fill(&log, 120, 25);
    log.compact().unwrap();
    let all = rows(&log);
    log.close().unwrap();
    let image = Image::of(&storage);
    assert!(verify(&storage).is_sound());
    for name in image.segments() {
        for from in (0..image.0[&name].len()).step_by(40) {
            let mut damaged = image.clone();
            damaged.bytes(&name)[from] ^= 0x20;
            // Frames hold several records here: those of one frame may go.
            let lost: Vec<_> = all.keys().copied().collect();
            let report = check_repair(&damaged, &all, &lost, &format!("{name}, {from}"));
            let lost: u64 =
                report.damage().iter().map(|one| one.offsets.end - one.offsets.start).sum();
            assert!(lost < 120, "{report}");
        }
    }
}

#[test]
fn a_torn_tail_is_no_damage() {
    let (mut image, _) = world(End::Killed);
    let last = image.last();
    let (first, place) = (touched(&image, &last, &(0..10_000)), 72 + 42);
    assert_eq!(first, [at(19)]);
    image.bytes(&last)[place] ^= 1;
    let report = verify(&image.storage());
    assert!(report.is_sound() && report.plan().is_empty(), "{report}");
    assert!(report.notes()[0].contains("torn tail"), "{report}");
    assert_eq!(report.end_offset(), at(19));
}

#[test]
fn a_sound_log_is_sound_whatever_its_state() {
    for end in [End::Closed, End::Killed] {
        let (image, all) = world(end);
        let storage = image.storage();
        let report = verify(&storage);
        assert!(report.is_sound() && report.notes().is_empty(), "{report}");
        assert_eq!((report.records(), report.end_offset()), (20, at(20)));
        assert!(report.to_string().starts_with("20 sound records in "), "{report}");
        assert_eq!(report.segments(), image.segments().len() as u64);
        drop(check_repair(&image, &all, &[], "nothing"));
        check(&image.open().unwrap(), &records(0..20));
    }
}
