//! Words of tests about compaction: what a log holds, what of it has to stay, how it is read.

use crate::support::Site;
use crate::support::at;
use crate::support::model::Row;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use stratalog::{Compaction, Durability, Entry, EntryBuf, Log, Offset, Record, Seek};

/// With compaction that drops tombstones at once.
pub(crate) fn compacting(site: Site) -> Site {
    compacting_with(site, |compaction| compaction)
}

pub(crate) fn compacting_with(site: Site, set: impl FnOnce(Compaction) -> Compaction) -> Site {
    let compaction = set(Compaction::new().tombstone_retention(Duration::ZERO));
    site.options(|options| options.compaction(compaction))
}

pub(crate) fn pair(key: &str, number: u64) -> Record<'static> {
    Record::new(number.to_string()).key(key.to_owned())
}

/// So many records, with so many keys, of every kind; all in sealed segments.
pub(crate) fn fill(log: &Log, count: u64, keys: u64) {
    let record = |number: u64| {
        let key = format!("key {}", number * 7919 % keys);
        match number % 11 {
            3 => Record::new(format!("no key {number}")),
            5 => Record::tombstone(key),
            7 => Record::new("").key(key).header("n", number.to_string()),
            8 => Record::new(vec![b'v'; 300]).key(key),
            _ => Record::new(format!("value {number}")).key(key),
        }
    };
    let mut number = 0;
    while number < count {
        // Alone, and in batches that fill a frame.
        let stop = (number + 1 + number % 13 * (number % 3)).min(count);
        log.append_batch_with(Durability::Buffered, (number..stop).map(record)).unwrap();
        number = stop;
    }
    log.roll().unwrap();
}

/// The offsets of all records.
pub(crate) fn rows(log: &Log) -> Vec<u64> {
    log.iter(Seek::Start).unwrap().map(|entry| entry.unwrap().offset().get()).collect()
}

/// What becomes of tombstones that are the last of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tombstones {
    Stay,
    Gone,
}

/// All that a log shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Full(BTreeMap<Offset, Held>);

/// A record, with its key, which no record tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    row: Row,
    key: Option<Vec<u8>>,
}

impl From<&EntryBuf> for Held {
    fn from(entry: &EntryBuf) -> Self {
        Self { row: Row::from(entry), key: entry.key().map(<[u8]>::to_vec) }
    }
}

impl Full {
    pub(crate) fn of(log: &Log) -> Self {
        let entries = log.iter(Seek::Start).unwrap().map(|entry| entry.unwrap());
        Self(entries.map(|entry| (entry.offset(), Held::from(&entry))).collect())
    }

    /// What compaction of all below `end` leaves.
    pub(crate) fn compacted_to(&self, end: Offset, tombstones: Tombstones) -> Self {
        let mut last = BTreeMap::new();
        for (offset, held) in self.0.range(..end) {
            last.insert(held.key.clone(), *offset);
        }
        let stays = |offset: Offset, held: &Held| {
            let is_last = held.key.is_none() || last[&held.key] == offset;
            let is_hidden = held.row.record.is_tombstone() && tombstones == Tombstones::Gone;
            offset >= end || is_last && !is_hidden
        };
        let mut left = self.0.clone();
        left.retain(|offset, held| stays(*offset, held));
        Self(left)
    }

    pub(crate) fn below(&self, end: Offset) -> Self {
        Self(self.0.range(..end).map(|(offset, row)| (*offset, row.clone())).collect())
    }

    pub(crate) fn from(&self, start: Offset) -> Self {
        Self(self.0.range(start..).map(|(offset, row)| (*offset, row.clone())).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, offset: Offset) -> Option<&Row> {
        self.0.get(&offset).map(|held| &held.row)
    }

    pub(crate) fn offsets(&self) -> impl Iterator<Item = Offset> {
        self.0.keys().copied()
    }

    pub(crate) fn assert_has(&self, entry: Entry<'_>) {
        assert_eq!(self.get(entry.offset()), Some(&Row::from(entry)));
    }
}

/// The log shows just these records, whichever way it is read, and from every offset.
#[track_caller]
pub(crate) fn check_compacted(log: &Log, expected: &Full) {
    let (start, end) = (log.start_offset(), log.high_watermark());
    assert_eq!(Full::of(log), *expected);

    let mut cursor = log.cursor(Seek::End).unwrap();
    let mut back = Vec::new();
    while let Some(entry) = cursor.prev().unwrap() {
        back.push(entry.offset());
    }
    assert!(expected.offsets().eq(back.into_iter().rev()), "backwards");

    for offset in (start.get()..=end.get()).map(at) {
        let found = log.get(offset).unwrap();
        assert_eq!(found.as_ref().map(Row::from).as_ref(), expected.get(offset), "get {offset}");
        cursor.seek(Seek::Offset(offset)).unwrap();
        let before = expected.0.range(..offset).next_back().map(|(offset, _)| *offset);
        assert_eq!(cursor.prev().unwrap().map(|entry| entry.offset()), before, "prev {offset}");
        cursor.seek(Seek::Offset(offset)).unwrap();
        let after = expected.0.range(offset..).next().map(|(offset, _)| *offset);
        assert_eq!(cursor.next().unwrap().map(|entry| entry.offset()), after, "next {offset}");
    }
    for (offset, Held { row, .. }) in &expected.0 {
        cursor.seek(Seek::Time(row.appended_at)).unwrap();
        let entry = cursor.next().unwrap().unwrap();
        let first = expected.0.iter().find(|(_, first)| first.row.appended_at >= row.appended_at);
        assert_eq!(entry.offset(), *first.unwrap().0, "the time of {offset}");
    }
}

/// The bytes of a file before it was damaged.
#[derive(Debug)]
pub(crate) struct Healthy(PathBuf, Vec<u8>);

impl Healthy {
    pub(crate) fn restore(self) {
        fs::write(self.0, self.1).unwrap();
    }
}

/// Flips a bit in the last byte of the record of the segment that begins at an offset.
pub(crate) fn damage(site: &Site, base: u64) -> Healthy {
    let begins = format!("{base:020}-");
    let files = site.files().into_iter().map(|(name, _)| name);
    let name = files.into_iter().find(|name| name.starts_with(&begins) && name.ends_with(".log"));
    let path = site.path().join(name.unwrap());
    let bytes = fs::read(&path).unwrap();
    let mut damaged = bytes.clone();
    damaged[72 + 40] ^= 1;
    fs::write(&path, damaged).unwrap();
    Healthy(path, bytes)
}
