//! A record in the log: borrowed from a cursor ([`Entry`]) or on its own ([`EntryBuf`]).

use crate::format::record::HeaderPairs;
use crate::format::record::RecordView;
use crate::record::Record;
use crate::units::Offset;
use crate::units::Timestamp;
use std::fmt;

/// A record in the log, with its offset and append time, borrowed from the cursor that read it.
///
/// # Examples
///
/// ```
/// # use std::sync::Arc;
/// # use stratalog::{storage::MemoryStorage, Options, Record, Seek};
/// # let log = Options::new().storage(Arc::new(MemoryStorage::new())).open("orders")?;
/// log.append(Record::new("41.2").key("sensor-7").header("unit", "C"))?;
/// let mut cursor = log.cursor(Seek::Start)?;
/// let entry = cursor.next()?.unwrap();
/// assert_eq!(entry.key(), Some(&b"sensor-7"[..]));
/// assert_eq!(entry.value(), b"41.2");
/// assert_eq!(entry.headers().next(), Some(("unit", &b"C"[..])));
/// # Ok::<(), stratalog::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    offset: Offset,
    appended_at: Timestamp,
    timestamp: Option<Timestamp>,
    key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    value: Option<&'a [u8]>,
    /// Encoded and validated.
    headers: &'a [u8],
}

impl<'a> Entry<'a> {
    #[inline]
    pub(super) fn new(offset: Offset, frame_at: Timestamp, record: RecordView<'a>) -> Self {
        let delta = i64::try_from(record.time_delta).unwrap_or(i64::MAX);
        let appended_at = Timestamp::from_micros(frame_at.as_micros().saturating_add(delta));
        let RecordView { timestamp, key, value, headers, .. } = record;
        Self { offset, appended_at, timestamp, key, value, headers }
    }

    /// Its place in the log.
    #[must_use]
    #[inline]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// When it was appended, by the log's clock; never before the record in front of it.
    #[must_use]
    #[inline]
    pub fn appended_at(&self) -> Timestamp {
        self.appended_at
    }

    /// The caller's own time, if it was given one.
    #[must_use]
    #[inline]
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.timestamp
    }

    /// Its key. A record without a key differs from one with an empty key.
    #[must_use]
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// Its value; empty for a tombstone.
    #[must_use]
    #[inline]
    pub fn value(&self) -> &'a [u8] {
        self.value.unwrap_or_default()
    }

    /// Whether it says that its key has no value any more.
    #[must_use]
    #[inline]
    pub fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }

    /// Its headers in the order they were given, duplicates and all.
    #[must_use]
    #[inline]
    pub fn headers(&self) -> Headers<'a> {
        Headers(HeaderPairs::new(self.headers))
    }

    /// A copy that borrows nothing.
    #[must_use]
    pub fn to_buf(&self) -> EntryBuf {
        let key = self.key().unwrap_or_default();
        let mut bytes = Vec::with_capacity(key.len() + self.value().len() + self.headers.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(self.value());
        bytes.extend_from_slice(self.headers);
        EntryBuf {
            offset: self.offset,
            appended_at: self.appended_at,
            timestamp: self.timestamp,
            key_len: self.key.map(<[u8]>::len),
            value_len: self.value.map(<[u8]>::len),
            bytes: bytes.into(),
        }
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Entry");
        out.field("offset", &self.offset.get()).field("appended_at", &self.appended_at);
        if let Some(timestamp) = self.timestamp() {
            out.field("timestamp", &timestamp);
        }
        if let Some(key) = self.key() {
            out.field("key", &Text(key));
        }
        if self.is_tombstone() {
            out.field("tombstone", &true);
        } else {
            out.field("value", &Text(self.value()));
        }
        out.finish_non_exhaustive()
    }
}

/// The headers of an entry: pairs of a name and a value.
#[derive(Clone, Debug)]
pub struct Headers<'a>(HeaderPairs<'a>);

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// As [`Entry`], with bytes of its own: what `get` and `iter` return.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryBuf {
    offset: Offset,
    appended_at: Timestamp,
    timestamp: Option<Timestamp>,
    key_len: Option<usize>,
    value_len: Option<usize>,
    /// Key, value and encoded headers, one behind the other.
    bytes: Box<[u8]>,
}

impl EntryBuf {
    /// Its place in the log.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// When it was appended, by the log's clock.
    #[must_use]
    pub fn appended_at(&self) -> Timestamp {
        self.appended_at
    }

    /// The caller's own time, if it was given one.
    #[must_use]
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.timestamp
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.key_len.map(|_| self.parts().0)
    }

    /// Its value; empty for a tombstone.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        self.parts().1
    }

    /// Whether it says that its key has no value any more.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.value_len.is_none()
    }

    /// Its headers in the order they were given, duplicates and all.
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        Headers(HeaderPairs::new(self.parts().2))
    }

    /// The same record, borrowed.
    #[must_use]
    pub fn as_entry(&self) -> Entry<'_> {
        let (key, value, headers) = self.parts();
        Entry {
            offset: self.offset,
            appended_at: self.appended_at,
            timestamp: self.timestamp,
            key: self.key_len.map(|_| key),
            value: self.value_len.map(|_| value),
            headers,
        }
    }

    fn parts(&self) -> (&[u8], &[u8], &[u8]) {
        let (key, rest) = self.bytes.split_at(self.key_len.unwrap_or_default());
        let (value, headers) = rest.split_at(self.value_len.unwrap_or_default());
        (key, value, headers)
    }
}

impl fmt::Debug for EntryBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_entry().fmt(f)
    }
}

impl<'a> From<Entry<'a>> for Record<'a> {
    /// A record like the one that was read; offset and append time are the log's.
    fn from(entry: Entry<'a>) -> Self {
        let mut record = match entry.value {
            Some(value) => Self::new(value),
            None => Self::tombstone(entry.key().unwrap_or_default()),
        };
        if let Some(key) = entry.key() {
            record = record.key(key);
        }
        if let Some(timestamp) = entry.timestamp() {
            record = record.timestamp(timestamp);
        }
        entry.headers().fold(record, |record, (name, value)| record.header(name, value))
    }
}

impl<'a> From<&'a EntryBuf> for Record<'a> {
    fn from(entry: &'a EntryBuf) -> Self {
        Self::from(entry.as_entry())
    }
}

/// Bytes for people: as text where they are text.
struct Text<'a>(&'a [u8]);

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}
