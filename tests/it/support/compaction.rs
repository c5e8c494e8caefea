//! Words of tests about compaction: what a log holds, what of it has to stay, how it is read.

use crate::support::Site;
use crate::support::at;
use crate::support::model::Row;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use stratalog::{Compaction, Durability, Entry, Log, Offset, Record, Seek};

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

/// All that a log shows.
#[derive(Clone, Debug)]
pub(crate) struct Full {
    rows: BTreeMap<Offset, Row>,
    /// What no record tells.
    keys: BTreeMap<Offset, Vec<u8>>,
}

impl PartialEq for Full {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows
    }
}

impl From<BTreeMap<Offset, Row>> for Full {
    fn from(rows: BTreeMap<Offset, Row>) -> Self {
        Self { rows, keys: BTreeMap::new() }
    }
}

impl Full {
    pub(crate) fn of(log: &Log) -> Self {
        let mut full = Self::from(BTreeMap::new());
        for entry in log.iter(Seek::Start).unwrap() {
            let entry = entry.unwrap();
            full.rows.insert(entry.offset(), Row::from(&entry));
            if let Some(key) = entry.key() {
                full.keys.insert(entry.offset(), key.to_vec());
            }
        }
        full
    }

    /// What compaction of all below `end` leaves, with tombstones that go at once.
    pub(crate) fn compacted_to(&self, end: Offset) -> Self {
        let mut left = self.last_of_each_key(end);
        left.rows.retain(|offset, row| *offset >= end || !row.record.is_tombstone());
        left
    }

    /// Of the records below `end`, the last one of each key, and those without.
    pub(crate) fn last_of_each_key(&self, end: Offset) -> Self {
        let mut last = BTreeMap::new();
        for (offset, key) in self.keys.range(..end) {
            last.insert(key, *offset);
        }
        let is_last =
            |offset: &Offset| self.keys.get(offset).is_none_or(|key| last[key] == *offset);
        let mut left = self.clone();
        left.rows.retain(|offset, _| *offset >= end || is_last(offset));
        left
    }

    pub(crate) fn without_tombstones(&self) -> Self {
        let mut left = self.clone();
        left.rows.retain(|_, row| !row.record.is_tombstone());
        left
    }

    pub(crate) fn below(&self, end: Offset) -> Self {
        let mut left = self.clone();
        left.rows.retain(|offset, _| *offset < end);
        left
    }

    pub(crate) fn above(&self, start: Offset) -> Self {
        let mut left = self.clone();
        left.rows.retain(|offset, _| *offset >= start);
        left.keys.retain(|offset, _| *offset >= start);
        left
    }

    pub(crate) fn extend(&mut self, later: Self) {
        self.rows.extend(later.rows);
        self.keys.extend(later.keys);
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The offset of the value that each key has.
    pub(crate) fn table(&self) -> BTreeMap<&[u8], Offset> {
        let mut table = BTreeMap::new();
        for (offset, key) in &self.keys {
            let Some(row) = self.rows.get(offset) else { continue };
            if row.record.is_tombstone() {
                table.remove(key.as_slice());
            } else {
                table.insert(key.as_slice(), *offset);
            }
        }
        table
    }

    pub(crate) fn get(&self, offset: Offset) -> Option<&Row> {
        self.rows.get(&offset)
    }

    pub(crate) fn offsets(&self) -> impl Iterator<Item = Offset> {
        self.rows.keys().copied()
    }

    /// Whether this is what a run that was cut off may leave: all that a whole one leaves, and
    /// nothing that was not there before.
    pub(crate) fn is_between(&self, least: &Self, most: &Self) -> bool {
        let has = |some: &Self, offset: &Offset, row: &Row| some.rows.get(offset) == Some(row);
        least.rows.iter().all(|(offset, row)| has(self, offset, row))
            && self.rows.iter().all(|(offset, row)| has(most, offset, row))
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
        let before = expected.rows.range(..offset).next_back().map(|(offset, _)| *offset);
        assert_eq!(cursor.prev().unwrap().map(|entry| entry.offset()), before, "prev {offset}");
        cursor.seek(Seek::Offset(offset)).unwrap();
        let after = expected.rows.range(offset..).next().map(|(offset, _)| *offset);
        assert_eq!(cursor.next().unwrap().map(|entry| entry.offset()), after, "next {offset}");
    }
    for (offset, row) in &expected.rows {
        cursor.seek(Seek::Time(row.appended_at)).unwrap();
        let entry = cursor.next().unwrap().unwrap();
        let first = expected.rows.iter().find(|(_, first)| first.appended_at >= row.appended_at);
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
