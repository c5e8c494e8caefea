//! The logs that the targets damage: small, with all a record can have, the same in every run.

use crate::consumer::NAME;
use crate::support::append_all;
use crate::support::clock::ManualClock;
use crate::support::faulty::FaultyStorage;
use crate::support::forge;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::read_rows;
use crate::support::image::tiny;
use crate::support::model::Row;
use crate::support::records;
use crate::support::secs;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use stratalog::storage::{OpenMode, Storage};
use stratalog::{Durability, Log, Options, Record, Seek};

/// A log and what is in it.
pub(crate) struct World {
    pub(crate) image: Image,
    pub(crate) rows: Vec<Row>,
    /// An older copy of the same log.
    pub(crate) older: Image,
    /// Whether it was closed, so that all of it is known to be durable.
    pub(crate) closed: bool,
}

/// All of them, in a fixed order: an input names one by its place.
pub(crate) static WORLDS: LazyLock<Vec<World>> =
    LazyLock::new(|| vec![closed(), unclosed(), one_segment(), written(), forged()]);

/// Several segments, closed.
fn closed() -> World {
    let machine = machine(0);
    let log = open(&machine);
    append_all(&log, &records(0..12));
    let older = image(&machine);
    log.append_batch(records(12..18)).unwrap();
    log.append(Record::new("e".repeat(600)).key("larger than a segment")).unwrap();
    append_all(&log, &records(18..20));
    let rows = read_rows(&log).unwrap();
    log.close().unwrap();
    World { image: image(&machine), rows, older, closed: true }
}

/// The process was killed.
fn unclosed() -> World {
    let machine = machine(1);
    let log = open(&machine);
    append_all(&log, &records(0..8));
    let older = image(&machine);
    append_all(&log, &records(8..15));
    log.append_batch(records(15..18)).unwrap();
    let rows = read_rows(&log).unwrap();
    World { image: image(&machine), rows, older, closed: false }
}

/// All in one segment, killed.
fn one_segment() -> World {
    let machine = machine(2);
    let log = options(machine.process()).segment_bytes(1 << 14).open(DIR).unwrap();
    append_all(&log, &records(0..4));
    let older = image(&machine);
    append_all(&log, &records(4..12));
    let rows = read_rows(&log).unwrap();
    World { image: image(&machine), rows, older, closed: false }
}

/// Segments that were written and never synced, killed.
fn written() -> World {
    let machine = machine(3);
    let log = options(machine.process()).durability(Durability::Written).open(DIR).unwrap();
    append_all(&log, &records(0..3));
    let older = image(&machine);
    append_all(&log, &records(3..20));
    let rows = read_rows(&log).unwrap();
    World { image: image(&machine), rows, older, closed: false }
}

/// Written by hand: two segments, one of them active, with frames of one record.
fn forged() -> World {
    let mut bytes = forge::segment(1, 0);
    (0..4).for_each(|offset| bytes.extend(forge::frame(offset, b"sealed")));
    let mut active = forge::segment(2, 4);
    (4..8).for_each(|offset| active.extend(forge::frame(offset, b"active")));
    let rows = [
        forge::Row { id: 1, base: 0, end: 4, byte_len: bytes.len() as u64, state: forge::SEALED },
        forge::Row { id: 2, base: 4, end: 4, byte_len: 72, state: forge::ACTIVE },
    ];
    let mut image = Image::default();
    image.0.insert("MANIFEST".into(), forge::manifest(forge::OPEN, 0, &rows));
    image.0.insert(forge::segment_name(1, 0), bytes);
    image.0.insert(forge::segment_name(2, 4), active);
    let rows = read_rows(&image.open().unwrap()).unwrap();
    World { older: image.clone(), image, rows, closed: false }
}

/// An index with several entries.
pub(crate) fn long_index() -> Vec<u8> {
    let machine = machine(4);
    let log = options(machine.process()).segment_bytes(1 << 16).open(DIR).unwrap();
    (0..12).for_each(|nth| drop(log.append(format!("{nth:02000}"))));
    log.close().unwrap();
    let image = image(&machine);
    image.0[&image.indexes()[0]].clone()
}

/// The file of a position after each of some commits to the closed log.
pub(crate) fn position_files() -> Vec<Vec<u8>> {
    let storage = Arc::new(WORLDS[0].image.storage());
    let log = tiny(Arc::clone(&storage) as Arc<dyn Storage>).open(DIR).unwrap();
    let mut consumer = log.consumer(NAME).unwrap();
    let path = Path::new(DIR).join("consumers").join(NAME);
    let mut files = Vec::new();
    for offset in [0, 3, 7, 5] {
        consumer.seek(Seek::Offset(offset.into())).unwrap();
        consumer.commit().unwrap();
        let file = storage.open(&path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; 8192];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
        files.push(bytes);
    }
    files
}

/// A machine with dice of its own.
fn machine(identity: u64) -> FaultyStorage {
    let machine = FaultyStorage::memory();
    for _ in 0..identity * 100 {
        machine.process().random();
    }
    machine
}

fn open(machine: &FaultyStorage) -> Log {
    options(machine.process()).open(DIR).unwrap()
}

/// At a time that stands still, so that the bytes are the same in every run.
pub(crate) fn options(storage: Arc<dyn Storage>) -> Options {
    tiny(storage).clock(Arc::new(ManualClock::at(secs(1))))
}

/// Without the reserve for the manifest and most of the zeros written ahead: they say nothing.
fn image(machine: &FaultyStorage) -> Image {
    let mut image = Image::of(&*machine.process());
    image.0.retain(|name, _| name != "MANIFEST.next");
    let last = image.last();
    let bytes = image.bytes(&last);
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let end = (end.next_multiple_of(8) + 64).min(bytes.len());
    bytes.truncate(end);
    image
}
