//! What a log is, in the plainest way: a map from offsets to records with their append times.

use std::collections::BTreeMap;
use std::ops::Range;
use stratalog::{Entry, EntryBuf, Offset, Record, Timestamp};

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    rows: BTreeMap<Offset, Row>,
    start: Offset,
    end: Offset,
    /// No record is appended at an earlier time.
    last_at: Option<Timestamp>,
    /// Nor after the process was killed.
    durable_last_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) appended_at: Timestamp,
    pub(crate) record: Record<'static>,
}

impl Model {
    pub(crate) fn start(&self) -> Offset {
        self.start
    }

    pub(crate) fn end(&self) -> Offset {
        self.end
    }

    /// Appends records at the time `now`, or at that of the last record if it is later.
    pub(crate) fn append(&mut self, now: Timestamp, records: &[Record<'static>]) -> Range<Offset> {
        let start = self.end;
        let appended_at = self.last_at.map_or(now, |last_at| last_at.max(now));
        for record in records {
            self.rows.insert(self.end, Row { appended_at, record: record.clone() });
            self.end = self.end + 1;
            self.last_at = Some(appended_at);
        }
        start..self.end
    }

    /// Forgets what a crash took.
    pub(crate) fn crash(&mut self, end: Offset) {
        self.rows.split_off(&end);
        self.end = end;
        let last_at = self.rows.last_key_value().map(|(_, row)| row.appended_at);
        self.last_at = last_at.max(self.durable_last_at);
    }

    pub(crate) fn truncate_to(&mut self, end: Offset) {
        if end < self.end {
            self.rows.split_off(&end);
            self.end = end;
            self.durable_last_at = self.last_at;
        }
    }

    pub(crate) fn delete_before(&mut self, start: Offset) {
        if start > self.start {
            self.rows = self.rows.split_off(&start);
            self.start = start;
        }
        if start >= self.end {
            self.end = start;
            self.durable_last_at = self.last_at;
        }
    }

    pub(crate) fn get(&self, offset: Offset) -> Option<&Row> {
        self.rows.get(&offset)
    }

    /// The first record from `offset` on that lies below `end`.
    pub(crate) fn next_from(&self, offset: Offset, end: Offset) -> Option<(Offset, Row)> {
        let (found, row) = self.rows.range(offset..offset.max(end)).next()?;
        Some((*found, row.clone()))
    }

    /// The last record below `end`.
    pub(crate) fn last_below(&self, end: Offset) -> Option<(Offset, Row)> {
        let (found, row) = self.rows.range(..end).next_back()?;
        Some((*found, row.clone()))
    }

    /// Removes the records that do not stay, without a change of offsets.
    pub(crate) fn retain(&mut self, stays: impl Fn(Offset) -> bool) {
        self.rows.retain(|offset, _| stays(*offset));
    }

    /// The first record below `end` that was appended at or after `time`, else `end`.
    pub(crate) fn since(&self, time: Timestamp, end: Offset) -> Offset {
        let mut rows = self.rows.range(..end);
        rows.find(|(_, row)| row.appended_at >= time).map_or(end, |(offset, _)| *offset)
    }

    /// The records below `end`.
    pub(crate) fn rows(&self, end: Offset) -> BTreeMap<Offset, Row> {
        self.rows.range(..end).map(|(offset, row)| (*offset, row.clone())).collect()
    }
}

impl From<Entry<'_>> for Row {
    fn from(entry: Entry<'_>) -> Self {
        Self::from(&entry.to_buf())
    }
}

impl From<&EntryBuf> for Row {
    /// By the accessors of an entry, not by its conversion into a record.
    fn from(entry: &EntryBuf) -> Self {
        let mut record = if entry.is_tombstone() {
            Record::tombstone(entry.key().unwrap().to_vec())
        } else {
            Record::new(entry.value().to_vec())
        };
        if let Some(key) = entry.key() {
            record = record.key(key.to_vec());
        }
        if let Some(timestamp) = entry.timestamp() {
            record = record.timestamp(timestamp);
        }
        for (name, value) in entry.headers() {
            record = record.header(name.to_owned(), value.to_vec());
        }
        Self { appended_at: entry.appended_at(), record }
    }
}
