//! The units of a log: [`Offset`] counts records, [`Position`] bytes, [`Timestamp`] time.
//!
//! Each is a type of its own so that the three cannot be mixed up: taking a byte position for a
//! record's offset is the classic mistake in a log.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The place of a record in the log: 0 for the first, growing by one with each append.
///
/// An offset is the log's clock: of two records the one with the higher offset was appended later.
/// Ranges of offsets are half-open, `start..end`, and an "end offset" is one past the last record.
///
/// # Examples
///
/// ```
/// use stratalog::Offset;
///
/// let first = Offset::from(40);
/// assert_eq!(first + 2, Offset::from(42));
/// assert_eq!((first + 2) - first, 2);
/// assert_eq!(Offset::MAX.checked_add(1), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// The first offset there can be.
    pub const ZERO: Self = Self(0);
    /// The highest offset there can be; an end offset, never a record's.
    pub const MAX: Self = Self(u64::MAX);

    /// An offset from its number.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number behind the offset.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset `count` records later, or `None` past [`Offset::MAX`].
    #[must_use]
    pub const fn checked_add(self, count: u64) -> Option<Self> {
        match self.0.checked_add(count) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The offset `count` records earlier, or `None` below [`Offset::ZERO`].
    #[must_use]
    pub const fn checked_sub(self, count: u64) -> Option<Self> {
        match self.0.checked_sub(count) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The number of records from `earlier` to here, or 0 if `earlier` is later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<u64> for Offset {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

impl From<Offset> for u64 {
    fn from(offset: Offset) -> Self {
        offset.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The offset so many records later.
///
/// # Panics
///
/// Past [`Offset::MAX`], as integer arithmetic does; [`Offset::checked_add`] does not.
impl Add<u64> for Offset {
    type Output = Self;

    #[track_caller]
    fn add(self, count: u64) -> Self {
        self.checked_add(count).expect("an offset past Offset::MAX")
    }
}

/// The offset so many records earlier.
///
/// # Panics
///
/// Below [`Offset::ZERO`]; [`Offset::checked_sub`] does not.
impl Sub<u64> for Offset {
    type Output = Self;

    #[track_caller]
    fn sub(self, count: u64) -> Self {
        self.checked_sub(count).expect("an offset below Offset::ZERO")
    }
}

/// The number of records between two offsets.
///
/// # Panics
///
/// If the right one is later; [`Offset::saturating_since`] does not.
impl Sub for Offset {
    type Output = u64;

    #[track_caller]
    fn sub(self, earlier: Self) -> u64 {
        self.0.checked_sub(earlier.0).expect("the offset to subtract is the later one")
    }
}

/// A byte position in one file, counted from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    /// A position from its number of bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes from the start of the file.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for Position {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in time: microseconds since the Unix epoch, negative before it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use stratalog::Timestamp;
///
/// let start = Timestamp::from_secs(1_537_727_414);
/// let later = start.checked_add(Duration::from_millis(5)).unwrap();
/// assert_eq!(later.since(start), Some(Duration::from_millis(5)));
/// assert_eq!(start.to_string(), "1537727414.000000");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch.
    pub const ZERO: Self = Self(0);
    /// The earliest time there can be.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest time there can be.
    pub const MAX: Self = Self(i64::MAX);

    /// A time from microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// A time from seconds since the Unix epoch, saturating at [`Timestamp::MIN`] and
    /// [`Timestamp::MAX`].
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The time so much later, or `None` past [`Timestamp::MAX`].
    #[must_use]
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        let micros = i64::try_from(duration.as_micros()).ok()?;
        self.0.checked_add(micros).map(Self)
    }

    /// The time so much earlier, or `None` below [`Timestamp::MIN`].
    #[must_use]
    pub fn checked_sub(self, duration: Duration) -> Option<Self> {
        let micros = i64::try_from(duration.as_micros()).ok()?;
        self.0.checked_sub(micros).map(Self)
    }

    /// The time from `earlier` to here, or `None` if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<Duration> {
        let micros = i128::from(self.0) - i128::from(earlier.0);
        u64::try_from(micros).ok().map(Duration::from_micros)
    }
}

impl From<SystemTime> for Timestamp {
    /// Saturates at [`Timestamp::MIN`] and [`Timestamp::MAX`].
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(i64::try_from(after.as_micros()).unwrap_or(i64::MAX)),
            Err(before) => {
                Self(i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |m| -m))
            }
        }
    }
}

impl fmt::Display for Timestamp {
    /// Seconds since the Unix epoch with six decimals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let micros = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::{Offset, Timestamp};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn offsets_stop_at_their_ends() {
        assert_eq!(Offset::MAX.checked_add(1), None);
        assert_eq!(Offset::ZERO.checked_sub(1), None);
        assert_eq!(Offset::ZERO.saturating_since(Offset::MAX), 0);
    }

    #[test]
    fn timestamps_saturate_and_span_the_whole_range() {
        assert_eq!(Timestamp::from_secs(i64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.since(Timestamp::MIN), Some(Duration::from_micros(u64::MAX)));
        assert_eq!(Timestamp::MIN.since(Timestamp::MAX), None);
        let before = UNIX_EPOCH - Duration::from_micros(1_500_000);
        assert_eq!(Timestamp::from(before).to_string(), "-1.500000");
    }
}
