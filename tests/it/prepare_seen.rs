//! What others see of segments that no manifest states yet: readers elsewhere, checkpoints, and who
//! verifies the log.

use crate::support::append_all;
use crate::support::assert_out_of_range;
use crate::support::at;
use crate::support::check;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::hook::HookStorage;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::read;
use crate::support::image::read_rows;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use crate::support::model::Row;
use crate::support::site::SMALL_SEGMENT_BYTES;
use crate::support::site::Site;
use std::path::Path;
use std::sync::Arc;
use stratalog::storage::{MemoryStorage, Storage};
use stratalog::{
    Cursor, Durability, EntryBuf, Log, LogReader, Maintenance, Options, Record, RepairOptions,
    Seek, VerifyOptions,
};

const LEVELS: [Durability; 2] = [Durability::Synced, Durability::Written];

/// A record that gets a segment of its own where segments are small.
fn large(number: u64) -> Record<'static> {
    Record::new(vec![b'a' + u8::try_from(number % 26).unwrap(); SMALL_SEGMENT_BYTES - 300])
}

/// A log whose next segments are prepared, and what is in it.
fn prepared(site: &Site) -> (Log, Vec<Record<'static>>) {
    let log = site.open();
    let all = vec![large(0)];
    append_all(&log, &all);
    log.maintain().unwrap();
    (log, all)
}

fn append(log: &Log, all: &mut Vec<Record<'static>>) {
    let record = large(all.len() as u64);
    log.append(record.clone()).unwrap();
    all.push(record);
}

fn shown(reader: &LogReader) -> Vec<EntryBuf> {
    reader.iter(Seek::Start).unwrap().map(Result::unwrap).collect()
}

fn next(cursor: &mut Cursor) -> Option<Record<'static>> {
    cursor.next().unwrap().map(|entry| Row::from(entry).record)
}

#[track_caller]
fn is_sound(storage: Arc<dyn Storage>, path: &Path, all: &[Record<'_>]) {
    let report = stratalog::verify(path, &VerifyOptions::new().storage(storage)).unwrap();
    assert!(report.is_sound() && report.plan().is_empty(), "{report}");
    assert_eq!((report.records(), report.end_offset()), (all.len() as u64, at(all.len() as u64)));
}

#[test]
fn a_reader_goes_on_over_rolls_that_no_manifest_states() {
    for level in LEVELS {
        for site in Site::each() {
            let site = site.small_segments().options(|options| options.durability(level));
            let (log, mut all) = prepared(&site);
            let reader = site.open_reader().unwrap();
            let mut cursor = reader.cursor(Seek::End).unwrap();
            let stated = site.manifest();
            for _ in 0..3 {
                append(&log, &mut all);
                assert_eq!(next(&mut cursor).as_ref(), all.last());
            }
            // One that comes now, and one that looks at three rolls at once.
            let late = site.open_reader().unwrap();
            assert_eq!((site.manifest(), log.segments().len()), (stated, 4));
            for reader in [&reader, &late] {
                let expected: Vec<_> = log.iter(Seek::Start).unwrap().map(Result::unwrap).collect();
                assert_eq!(shown(reader), expected);
                for entry in &expected {
                    let sought = reader.cursor(Seek::Time(entry.appended_at())).unwrap();
                    let cursor = log.cursor(Seek::Time(entry.appended_at())).unwrap();
                    assert_eq!(sought.offset(), cursor.offset());
                    assert_eq!(reader.get(entry.offset()).unwrap().as_ref(), Some(entry));
                }
            }
            log.maintain().unwrap();
            append(&log, &mut all);
            assert_eq!(next(&mut cursor).as_ref(), all.last());
            assert_eq!(shown(&late).len(), all.len());
        }
    }
}

#[test]
fn what_a_killed_writer_left_is_shown_and_stays() {
    for site in Site::each() {
        let site = site.small_segments().options(|options| options.durability(Durability::Written));
        let (log, mut all) = prepared(&site);
        for _ in 0..3 {
            append(&log, &mut all);
        }
        let left = site.kill();
        drop(log);
        let reader = left.open_reader().unwrap();
        let mut cursor = reader.cursor(Seek::Start).unwrap();
        for record in &all {
            assert_eq!(next(&mut cursor).as_ref(), Some(record));
        }
        // The next writer takes nothing back.
        let log = left.open();
        append(&log, &mut all);
        assert_eq!(next(&mut cursor).as_ref(), all.last());
        check(&log, &all);
    }
}

#[test]
fn a_reader_is_told_of_a_cut_in_what_no_manifest_states() {
    for level in LEVELS {
        let site = Site::disk().small_segments().options(|options| options.durability(level));
        let (log, mut all) = prepared(&site);
        let reader = site.open_reader().unwrap();
        for _ in 0..3 {
            append(&log, &mut all);
        }
        let mut cursor = reader.cursor(Seek::End).unwrap();
        log.truncate_to(at(2)).unwrap();
        assert_out_of_range(cursor.next(), 2);
        all.truncate(2);
        append(&log, &mut all);
        cursor.seek(Seek::Offset(at(2))).unwrap();
        assert_eq!(next(&mut cursor).as_ref(), all.last());
        assert_eq!(shown(&reader).len(), 3);
    }
}

/// A crash may take back the name that a segment got when it was begun.
#[test]
fn a_segment_whose_name_was_lost_is_found() {
    let site = Site::memory().small_segments();
    let (log, mut all) = prepared(&site);
    for _ in 0..3 {
        append(&log, &mut all);
    }
    drop(log);
    let whole = {
        let machine = FaultyStorage::memory();
        let log = tiny(machine.process()).segment_bytes(SMALL_SEGMENT_BYTES as u64);
        let log = log.open(DIR).unwrap();
        append_all(&log, &all[..1]);
        log.maintain().unwrap();
        append_all(&log, &all[1..]);
        machine.kill();
        Image::of(&*machine.process())
    };
    let names = whole.segments();
    assert_eq!(names.len(), 4);
    for lost in 0..8_u32 {
        let mut image = whole.clone();
        for (nth, name) in names[1..].iter().enumerate().filter(|(nth, _)| lost >> nth & 1 == 1) {
            let bytes = image.0.remove(name).unwrap();
            let id = name.trim_end_matches(".log").split('-').nth(1).unwrap();
            assert!(image.0.insert(format!("{id}.next"), bytes).is_none(), "{nth}");
        }
        let storage: Arc<dyn Storage> = Arc::new(image.storage());
        let options = || Options::new().storage(storage.clone()).maintenance(Maintenance::Manual);
        let reader = options().open_reader(DIR).unwrap();
        assert_eq!(shown(&reader).len(), all.len(), "{lost}");
        is_sound(storage.clone(), Path::new(DIR), &all);
        let log = options().open(DIR).unwrap();
        check(&log, &all);
        assert_eq!(shown(&reader).len(), all.len(), "{lost}");
    }
}

#[test]
fn a_checkpoint_has_what_is_durable_and_nothing_prepared() {
    for level in LEVELS {
        let storage = MemoryStorage::new();
        let options = || {
            let options = Options::new().storage(Arc::new(storage.clone())).durability(level);
            options.maintenance(Maintenance::Manual).segment_bytes(SMALL_SEGMENT_BYTES as u64)
        };
        let log = options().open("/log").unwrap();
        let mut all = vec![large(0)];
        append_all(&log, &all);
        log.maintain().unwrap();
        for rolls in 0..4 {
            if rolls > 0 {
                append(&log, &mut all);
            }
            let durable = log.durable_offset();
            let end = log.checkpoint("/backup").unwrap();
            assert_eq!(end, durable);
            is_sound(Arc::new(storage.clone()), Path::new("/log"), &all);
            let len = usize::try_from(end.get()).unwrap();
            is_sound(Arc::new(storage.clone()), Path::new("/backup"), &all[..len]);
            let files = Image::of_dir(&storage, Path::new("/backup")).0;
            let next = files.keys().filter(|name| name.ends_with(".next"));
            assert!(next.eq(["MANIFEST.next"]), "{:?}", files.keys());
            let copy = options().open_reader("/backup").unwrap();
            assert_eq!(shown(&copy).len(), len);
        }
        log.sync().unwrap();
        assert_eq!(log.checkpoint("/backup").unwrap(), at(4));
        let copy = options().open("/backup").unwrap();
        assert!(copy.recovery().is_clean());
        check(&copy, &all);
    }
}

#[test]
fn what_a_crash_leaves_behind_rolls_is_no_damage() {
    for level in LEVELS {
        for rolls in 0..6 {
            for how in 0..12 {
                let machine = FaultyStorage::memory();
                let log = tiny(machine.process()).durability(level);
                let log = log.segment_bytes(SMALL_SEGMENT_BYTES as u64).open(DIR).unwrap();
                let mut all = vec![large(0)];
                append_all(&log, &all);
                log.maintain().unwrap();
                for _ in 0..rolls {
                    append(&log, &mut all);
                }
                let machine = match how {
                    0 => machine.crash(Crash::DropUnsynced),
                    1 => machine.crash(Crash::KeepAll),
                    _ => machine.crash(Crash::Random(how)),
                };
                let story = format!("{level:?}, {rolls} rolls, {how}");
                let storage = Arc::new(Image::of(&*machine.process()).storage());
                let reader = tiny(storage.clone()).open_reader(DIR).unwrap();
                let seen = shown(&reader).len();
                let options = VerifyOptions::new().storage(storage.clone());
                let report = stratalog::verify(DIR, &options).unwrap();
                assert!(report.is_sound() && report.plan().is_empty(), "{story}: {report}");
                let log = tiny(storage).open(DIR).unwrap();
                let kept = read(&log).unwrap();
                assert_eq!((kept.len(), &kept[..]), (seen, &all[..seen]), "{story}");
            }
        }
    }
}

/// Its file gets another name, and the one before is longer than when it was listed.
#[test]
fn a_roll_while_the_log_is_verified_is_no_damage() {
    let storage = HookStorage::default();
    let log = tiny(Arc::new(storage.clone())).segment_bytes(SMALL_SEGMENT_BYTES as u64);
    let log = log.durability(Durability::Written).open(DIR).unwrap();
    append_all(&log, &[large(0)]);
    log.maintain().unwrap();
    let writer = log.clone();
    storage.before(Op::Open, "00000002.next", move || {
        append_all(&writer, &[Record::new("at the end"), large(1)]);
        writer.sync().unwrap();
        append_all(&writer, &[large(2)]);
    });
    let options = VerifyOptions::new().storage(Arc::new(storage.clone()));
    let report = stratalog::verify(DIR, &options).unwrap();
    assert!(storage.has_acted());
    assert!(report.is_sound() && report.plan().is_empty(), "{report}");
    assert!(report.end_offset() >= at(2), "{report}");
    is_sound(Arc::new(storage), Path::new(DIR), &vec![Record::new("any"); 4]);
    log.close().unwrap();
}

/// What lies behind a segment that is gone is kept, at its offset.
#[test]
fn a_begun_segment_that_is_missing_costs_its_records_only() {
    let machine = FaultyStorage::memory();
    let log = tiny(machine.process()).segment_bytes(SMALL_SEGMENT_BYTES as u64);
    let log = log.open(DIR).unwrap();
    let all: Vec<_> = (0..4).map(large).collect();
    append_all(&log, &all[..1]);
    log.maintain().unwrap();
    // The manifest states where the first one ends; the others are behind the rows.
    log.roll().unwrap();
    append_all(&log, &all[1..]);
    machine.kill();
    let mut image = Image::of(&*machine.process());
    let lost = image.segments()[1].clone();
    image.0.remove(&lost);
    let storage: Arc<dyn Storage> = Arc::new(image.storage());
    let options = RepairOptions::new().storage(Arc::clone(&storage));
    let report = stratalog::repair(DIR, &options).unwrap();
    assert!(!report.found().is_sound());
    let log = tiny(storage).open(DIR).unwrap();
    let kept = read_rows(&log).unwrap();
    let kept: Vec<_> = kept.into_iter().map(|row| row.record).collect();
    assert_eq!(kept, [&all[..1], &all[2..]].concat());
    assert!(log.get(at(1)).unwrap().is_none() && log.get(at(3)).unwrap().is_some());
}
