//! What a caller appends: a [`Record`], a value or a tombstone with what belongs to it.

use crate::units::Timestamp;
use std::borrow::Cow;

/// A record to append: a value (or a tombstone), and if wanted a key, headers and a time of the
/// caller's own.
///
/// Borrows or owns its parts, so that whatever holds bytes can be appended as it is: `&str`,
/// `&[u8]`, `&Vec<u8>`, `Vec<u8>`, `String`.
///
/// # Examples
///
/// ```
/// use stratalog::{Record, Timestamp};
///
/// let record = Record::new("41.2").key("sensor-7").header("unit", "C");
/// assert!(!record.is_tombstone());
/// let owned: Record<'static> = Record::from(format!("{}", 41.3)).timestamp(Timestamp::ZERO);
/// let deleted = Record::tombstone("sensor-7");
/// assert!(deleted.is_tombstone());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub(crate) key: Option<Cow<'a, [u8]>>,
    /// `None` is a tombstone, which has a key.
    pub(crate) value: Option<Cow<'a, [u8]>>,
    pub(crate) headers: Vec<(Cow<'a, str>, Cow<'a, [u8]>)>,
    pub(crate) timestamp: Option<Timestamp>,
}

impl<'a> Record<'a> {
    /// A record with a value, which may be empty.
    #[must_use]
    pub fn new(value: impl IntoBytes<'a>) -> Self {
        Self { key: None, value: Some(value.into_bytes()), headers: Vec::new(), timestamp: None }
    }

    /// A record that says that `key` has no value any more.
    #[must_use]
    pub fn tombstone(key: impl IntoBytes<'a>) -> Self {
        Self { key: Some(key.into_bytes()), value: None, headers: Vec::new(), timestamp: None }
    }

    /// Gives it a key. An empty key is a key; no key is something else.
    #[must_use]
    pub fn key(mut self, key: impl IntoBytes<'a>) -> Self {
        self.key = Some(key.into_bytes());
        self
    }

    /// Adds a header behind those it has. The same name may occur again.
    #[must_use]
    pub fn header(mut self, name: impl Into<Cow<'a, str>>, value: impl IntoBytes<'a>) -> Self {
        self.headers.push((name.into(), value.into_bytes()));
        self
    }

    /// Gives it a time of the caller's own, which the log keeps and never looks at: it orders,
    /// seeks and expires by the time of the append.
    #[must_use]
    pub fn timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// Whether it says that its key has no value any more.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for Record<'a> {
    fn from(value: &'a T) -> Self {
        Self::new(value)
    }
}

impl From<Vec<u8>> for Record<'_> {
    fn from(value: Vec<u8>) -> Self {
        Self::new(value)
    }
}

impl From<String> for Record<'_> {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

impl<'a> From<Cow<'a, [u8]>> for Record<'a> {
    fn from(value: Cow<'a, [u8]>) -> Self {
        Self::new(value)
    }
}

/// What can be the key, the value or a header's value of a [`Record`]: anything that refers to
/// bytes or owns them.
pub trait IntoBytes<'a> {
    /// The bytes, borrowed where possible.
    fn into_bytes(self) -> Cow<'a, [u8]>;
}

impl<'a, T: AsRef<[u8]> + ?Sized> IntoBytes<'a> for &'a T {
    fn into_bytes(self) -> Cow<'a, [u8]> {
        Cow::Borrowed(self.as_ref())
    }
}

impl<'a> IntoBytes<'a> for Vec<u8> {
    fn into_bytes(self) -> Cow<'a, [u8]> {
        Cow::Owned(self)
    }
}

impl<'a> IntoBytes<'a> for String {
    fn into_bytes(self) -> Cow<'a, [u8]> {
        Cow::Owned(Self::into_bytes(self))
    }
}

impl<'a> IntoBytes<'a> for Cow<'a, [u8]> {
    fn into_bytes(self) -> Self {
        self
    }
}
