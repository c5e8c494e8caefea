//! Retention: which segments a log no longer needs. Pure; `log/maintain.rs` carries it out.

use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::units::Offset;
use crate::units::Timestamp;
use std::fmt;
use std::time::Duration;

/// What a log may forget: whole sealed segments, the oldest first. By default nothing.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use stratalog::storage::MemoryStorage;
/// use stratalog::{Options, Retention};
///
/// let week = Duration::from_secs(7 * 24 * 3600);
/// let log = Options::new()
///     .storage(Arc::new(MemoryStorage::new()))
///     .retention(Retention::new().max_age(week).max_bytes(10 << 30))
///     .open("orders")?;
/// assert_eq!(log.enforce_retention()?.removed_segments, 0);
/// # Ok::<(), stratalog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Retention {
    pub(crate) max_age: Option<Duration>,
    pub(crate) max_bytes: Option<u64>,
}

impl Retention {
    /// Nothing is forgotten.
    pub fn new() -> Self {
        Self::default()
    }

    /// A segment goes when its last record was appended so long ago, by the log's clock. A log to
    /// which nothing is appended ends its active segment for that, so that it empties too.
    ///
    /// A clock that jumps ahead makes records old: what it removes does not come back when the
    /// clock does.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// The oldest segments go while all files of records together are larger than that. The
    /// active segment stays, whatever its size.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }
}

/// What retention removed, and why it stopped where it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetentionReport {
    /// Segments that were removed.
    pub removed_segments: u64,
    /// Records that were in them, without those that had been deleted before.
    pub removed_records: u64,
    /// Bytes of their files.
    pub removed_bytes: u64,
    /// Where the log starts now.
    pub start_offset: Offset,
    /// Why the oldest segment that is left stays; `None` if none is left.
    pub kept: Option<Kept>,
}

/// Why a segment stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// It is the active one.
    Active,
    /// Neither its age nor the size of the log asks for it to go. It is too old from this time on,
    /// if there is a maximal age.
    Within(Option<Timestamp>),
}

impl fmt::Display for RetentionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { removed_segments, removed_records, removed_bytes, start_offset, .. } = self;
        write!(f, "removed {removed_segments} segments with {removed_records} records and ")?;
        write!(f, "{removed_bytes} bytes; the log starts at {start_offset}")?;
        match self.kept {
            None => f.write_str(" and is empty"),
            Some(Kept::Active) => f.write_str(" with its active segment"),
            Some(Kept::Within(None)) => f.write_str(", within its size"),
            Some(Kept::Within(Some(time))) => write!(f, ", nothing is too old before {time}"),
        }
    }
}

/// What is to go: everything below the report's start offset.
pub(crate) fn plan(
    rows: &[Row],
    start: Offset,
    retention: &Retention,
    now: Timestamp,
) -> RetentionReport {
    let mut bytes: u64 = rows.iter().map(|row| row.byte_len).sum();
    let mut report = RetentionReport { start_offset: start, ..RetentionReport::default() };
    for row in rows {
        let expires_at = expires_at(row, retention);
        let too_old = expires_at.is_some_and(|time| time <= now);
        let too_large = retention.max_bytes.is_some_and(|max| bytes > max);
        if row.state == RowState::Active {
            report.kept = Some(Kept::Active);
            break;
        }
        if !too_old && !too_large {
            report.kept = Some(Kept::Within(expires_at));
            break;
        }
        bytes -= row.byte_len;
        report.removed_segments += 1;
        report.removed_bytes += row.byte_len;
        let hidden = start.saturating_since(row.base_offset);
        report.removed_records += row.record_count.saturating_sub(hidden);
        report.start_offset = row.end_offset.max(start);
    }
    report
}

/// Whether the active segment is to end although nothing is appended: for its own age, or because
/// all of it is too old.
pub(crate) fn ends_idle(
    active: &Row,
    retention: &Retention,
    segment_age: Option<Duration>,
    now: Timestamp,
) -> bool {
    idle_end(active, retention, segment_age).is_some_and(|time| time <= now)
}

/// When there is something to do next, if nothing is appended.
pub(crate) fn next_due(
    rows: &[Row],
    retention: &Retention,
    segment_age: Option<Duration>,
) -> Option<Timestamp> {
    let oldest = rows.first().filter(|row| row.state != RowState::Active);
    let expiry = oldest.and_then(|row| expires_at(row, retention));
    let active = rows.last().filter(|row| row.state == RowState::Active);
    let idle = active.and_then(|row| idle_end(row, retention, segment_age));
    expiry.into_iter().chain(idle).min()
}

fn expires_at(row: &Row, retention: &Retention) -> Option<Timestamp> {
    row.last_appended_at.checked_add(retention.max_age?)
}

fn idle_end(
    active: &Row,
    retention: &Retention,
    segment_age: Option<Duration>,
) -> Option<Timestamp> {
    if active.record_count == 0 {
        return None;
    }
    let aged = segment_age.and_then(|age| active.first_appended_at.checked_add(age));
    aged.into_iter().chain(expires_at(active, retention)).min()
}

#[cfg(test)]
mod tests {
    use super::{Kept, Retention, ends_idle, next_due, plan};
    use crate::format::manifest::Row;
    use crate::format::manifest::RowState;
    use crate::units::Offset;
    use crate::units::Timestamp;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    /// Segments of 10 records and 1,000 bytes, one every 10 seconds; the last is active.
    fn rows(count: u64) -> Vec<Row> {
        let row = |nth: u64| Row {
            segment_id: nth + 1,
            base_offset: Offset::new(nth * 10),
            end_offset: Offset::new(nth * 10 + 10),
            byte_len: 1000,
            first_appended_at: secs(nth * 10),
            last_appended_at: secs(nth * 10 + 9),
            record_count: 10,
            compacted_at: None,
            tombstone_count: 0,
            state: if nth + 1 == count { RowState::Active } else { RowState::Sealed },
        };
        (0..count).map(row).collect()
    }

    fn secs(secs: u64) -> Timestamp {
        Timestamp::from_secs(i64::try_from(secs).unwrap())
    }

    /// How many segments go at a time, and what is said of the first that stays.
    fn planned(retention: Retention, now: u64) -> (u64, Option<Kept>) {
        let report = plan(&rows(5), Offset::ZERO, &retention, secs(now));
        assert_eq!(report.removed_bytes, 1000 * report.removed_segments);
        assert_eq!(report.removed_records, 10 * report.removed_segments);
        assert_eq!(report.start_offset, Offset::new(10 * report.removed_segments));
        (report.removed_segments, report.kept)
    }

    #[test]
    fn by_default_everything_stays() {
        assert_eq!(planned(Retention::new(), 1_000_000), (0, Some(Kept::Within(None))));
    }

    #[test]
    fn a_segment_goes_with_the_age_of_its_last_record() {
        let retention = Retention::new().max_age(100 * SECOND);
        let within = |time| Some(Kept::Within(Some(secs(time))));
        assert_eq!(planned(retention, 108), (0, within(109)));
        assert_eq!(planned(retention, 109), (1, within(119)));
        assert_eq!(planned(retention, 138), (3, within(139)));
        assert_eq!(planned(retention, 1_000), (4, Some(Kept::Active)));
        // The clock has gone back.
        assert_eq!(planned(retention, 0), (0, within(109)));
    }

    #[test]
    fn the_oldest_go_while_all_are_too_large() {
        let planned = |bytes| planned(Retention::new().max_bytes(bytes), 0);
        assert_eq!(planned(5000), (0, Some(Kept::Within(None))));
        assert_eq!(planned(4999), (1, Some(Kept::Within(None))));
        assert_eq!(planned(2000), (3, Some(Kept::Within(None))));
        assert_eq!(planned(0), (4, Some(Kept::Active)));
    }

    #[test]
    fn either_reason_is_enough() {
        let retention = Retention::new().max_age(100 * SECOND).max_bytes(3000);
        assert_eq!(planned(retention, 0).0, 2);
        assert_eq!(planned(retention, 135).0, 3);
    }

    #[test]
    fn deleted_records_are_not_counted_again() {
        let retention = Retention::new().max_bytes(4000);
        let report = plan(&rows(5), Offset::new(7), &retention, secs(0));
        assert_eq!((report.removed_records, report.start_offset), (3, Offset::new(10)));
        let report = plan(&[], Offset::new(7), &retention, secs(0));
        assert_eq!((report.removed_segments, report.start_offset, report.kept), {
            (0, Offset::new(7), None)
        });
    }

    #[test]
    fn an_idle_segment_ends_for_its_own_age_or_when_all_of_it_is_too_old() {
        let active = rows(1)[0];
        let ends = |retention, age: Option<u32>, now| {
            ends_idle(&active, &retention, age.map(|age| age * SECOND), secs(now))
        };
        assert!(!ends(Retention::new(), None, 1_000_000));
        assert!(!ends(Retention::new(), Some(30), 29));
        assert!(ends(Retention::new(), Some(30), 30));
        assert!(!ends(Retention::new().max_age(30 * SECOND), None, 38));
        assert!(ends(Retention::new().max_age(30 * SECOND), None, 39));
        let empty = Row { record_count: 0, ..active };
        assert!(!ends_idle(&empty, &Retention::new(), Some(SECOND), secs(100)));
    }

    #[test]
    fn the_next_thing_to_do_is_the_first_to_expire_or_to_end() {
        let due = |count, retention, age: Option<u32>| {
            next_due(&rows(count), &retention, age.map(|age| age * SECOND))
        };
        assert_eq!(due(5, Retention::new(), None), None);
        assert_eq!(due(0, Retention::new().max_age(SECOND), None), None);
        assert_eq!(due(5, Retention::new().max_age(100 * SECOND), None), Some(secs(109)));
        assert_eq!(due(1, Retention::new().max_age(100 * SECOND), None), Some(secs(109)));
        assert_eq!(due(5, Retention::new().max_age(100 * SECOND), Some(5)), Some(secs(45)));
    }
}
