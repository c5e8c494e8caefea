//! Retention: which segments a log no longer needs. Pure; `log/maintain.rs` carries it out.

use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::units::Offset;
use crate::units::Timestamp;
use std::fmt;
use std::slice;
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
    pub(crate) keep_unread: bool,
    pub(crate) unread_cap_bytes: Option<u64>,
}

impl Retention {
    /// Nothing is forgotten.
    pub fn new() -> Self {
        Self::default()
    }

    /// A segment goes when its last record was appended so long ago, by the log's clock. A log to
    /// which nothing is appended ends its active segment for that, so that it empties too. One that
    /// compaction has left without records goes with the next that has some.
    ///
    /// A clock that jumps ahead makes records old: what it removes does not come back when the
    /// clock does.
    ///
    /// Compaction puts what is left of old segments together with younger records, as long as a
    /// segment has room. So the value of a key that is not written any more may stay while others
    /// are written; a tombstone removes it.
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

    /// Whether a segment that is to go for its age or the log's size stays until each named
    /// [consumer](crate::Consumer) has committed all of it. It goes with the commit of the last of
    /// them. A consumer whose position cannot be read has committed nothing; if there are no
    /// consumers, none is waited for. Default: `false`.
    ///
    /// With [`max_age`](Retention::max_age) of zero a segment goes as soon as all have read it, as
    /// an outbox wants it.
    #[expect(clippy::fn_params_excessive_bools, reason = "the name says what the bool means")]
    pub fn keep_unread(mut self, keep: bool) -> Self {
        self.keep_unread = keep;
        self
    }

    /// How much may stay only because it is unread: when the segments from the oldest unread one on
    /// are more than that, [`keep_unread`](Retention::keep_unread) holds for the oldest no longer,
    /// and the consumers that have not read it are passed. They are told by an error, and the
    /// report names them. Default: no limit.
    pub fn unread_cap_bytes(mut self, bytes: u64) -> Self {
        self.unread_cap_bytes = Some(bytes);
        self
    }
}

/// A consumer, as far as retention minds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    pub(crate) name: String,
    /// Below it all is read; `None` if nobody knows.
    pub(crate) committed: Option<Offset>,
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
    /// The consumers for which it stays: they have not committed all of it.
    pub blocked_by: Vec<String>,
    /// The consumers that had not committed all of what was removed.
    pub passed: Vec<String>,
}

/// Why a segment stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// It is the active one.
    Active,
    /// A consumer has not committed all of it;
    /// [`blocked_by`](RetentionReport::blocked_by) says which.
    Unread,
    /// Neither its age nor the size of the log asks for it to go. It is too old from this time on,
    /// if there is a maximal age.
    Within(Option<Timestamp>),
}

impl fmt::Display for RetentionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { removed_segments, removed_records, removed_bytes, start_offset, .. } = self;
        write!(f, "removed {removed_segments} segments with {removed_records} records and ")?;
        write!(f, "{removed_bytes} bytes; the log starts at {start_offset}")?;
        if !self.passed.is_empty() {
            write!(f, "; passed: {}", self.passed.join(", "))?;
        }
        match self.kept {
            Some(Kept::Unread) => write!(f, ", unread by {}", self.blocked_by.join(", ")),
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
    readers: &[Reader],
    now: Timestamp,
) -> RetentionReport {
    let mut bytes: u64 = rows.iter().map(|row| row.byte_len).sum();
    let mut report = RetentionReport { start_offset: start, ..RetentionReport::default() };
    let expiring = rows.chunk_by(is_hole_before).flat_map(|rows| {
        let expires_at = expires_at(rows, retention);
        rows.iter().map(move |row| (row, expires_at))
    });
    for (row, expires_at) in expiring {
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
        if retention.keep_unread {
            let slow = unread_by(readers, row);
            let capped = retention.unread_cap_bytes.is_some_and(|cap| bytes > cap);
            if !slow.is_empty() && !capped {
                report.kept = Some(Kept::Unread);
                report.blocked_by = slow;
                break;
            }
            // Who has not read this one has not read those behind it: there are more each time.
            report.passed = slow;
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

/// The readers that are not through with a segment.
fn unread_by(readers: &[Reader], row: &Row) -> Vec<String> {
    let is_slow = |reader: &&Reader| reader.committed.is_none_or(|at| at < row.end_offset);
    readers.iter().filter(is_slow).map(|reader| reader.name.clone()).collect()
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
    let expiry = oldest.and_then(|_| expires_at(rows, retention));
    let active = rows.last().filter(|row| row.state == RowState::Active);
    let idle = active.and_then(|row| idle_end(row, retention, segment_age));
    expiry.into_iter().chain(idle).min()
}

/// When the first of these segments is too old. One that compaction has left without records has no
/// age of its own, and leads readers to the next that has some: it goes when that does.
fn expires_at(rows: &[Row], retention: &Retention) -> Option<Timestamp> {
    let aged = rows.iter().find(|row| row.record_count > 0)?;
    aged.last_appended_at.checked_add(retention.max_age?)
}

fn is_hole_before(row: &Row, _next: &Row) -> bool {
    row.record_count == 0
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
    aged.into_iter().chain(expires_at(slice::from_ref(active), retention)).min()
}

#[cfg(test)]
mod tests {
    use super::{Kept, Reader, Retention, RetentionReport, ends_idle, next_due, plan};
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
        let report = plan(&rows(5), Offset::ZERO, &retention, &[], secs(now));
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

    /// Segments of which compaction has left these without records.
    fn rows_without(emptied: &[usize]) -> Vec<Row> {
        let mut rows = rows(5);
        for nth in emptied {
            let row = &mut rows[*nth];
            *row = Row {
                first_appended_at: Timestamp::ZERO,
                last_appended_at: Timestamp::ZERO,
                record_count: 0,
                ..*row
            };
        }
        rows
    }

    #[test]
    fn a_segment_without_records_goes_with_the_next_that_has_some() {
        let retention = Retention::new().max_age(100 * SECOND);
        let planned = |emptied: &[usize], now| {
            let rows = rows_without(emptied);
            let report = plan(&rows, Offset::ZERO, &retention, &[], secs(now));
            (report.removed_segments, report.kept)
        };
        let within = |time| Some(Kept::Within(Some(secs(time))));
        for emptied in [&[0][..], &[0, 1]] {
            let due = 109 + 10 * emptied.len() as u64;
            assert_eq!(planned(emptied, due - 1), (0, within(due)));
            assert_eq!(planned(emptied, due), (emptied.len() as u64 + 1, within(due + 10)));
            assert_eq!(next_due(&rows_without(emptied), &retention, None), Some(secs(due)));
        }
        assert_eq!(planned(&[1], 109), (1, within(129)));
        // Nothing behind it has sealed records: it goes when those of the active segment are old.
        assert_eq!(planned(&[0, 1, 2, 3], 148), (0, within(149)));
        assert_eq!(planned(&[0, 1, 2, 3], 149), (4, Some(Kept::Active)));
        let no_records = [0, 1, 2, 3, 4];
        assert_eq!(planned(&no_records, 1_000_000), (0, Some(Kept::Within(None))));
        assert_eq!(next_due(&rows_without(&no_records), &retention, None), None);
        // The size of the log is another reason.
        let by_size = Retention::new().max_bytes(4000);
        let report = plan(&rows_without(&[0]), Offset::ZERO, &by_size, &[], secs(0));
        assert_eq!(report.removed_segments, 1);
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

    /// All but the active segment of five is to go; consumers stand at these places.
    fn planned_for(retention: Retention, committed: &[Option<u64>]) -> RetentionReport {
        let readers: Vec<_> = committed
            .iter()
            .zip(["a", "b", "c"])
            .map(|(at, name)| Reader { name: name.into(), committed: at.map(Offset::new) })
            .collect();
        plan(&rows(5), Offset::ZERO, &retention.max_bytes(0), &readers, secs(0))
    }

    #[test]
    fn what_a_consumer_has_not_committed_stays_if_that_is_asked() {
        let planned = |retention, committed: &[Option<u64>]| {
            let report = planned_for(retention, committed);
            assert!(report.passed.is_empty());
            (report.removed_segments, report.kept, report.blocked_by.join(""))
        };
        let keep = Retention::new().keep_unread(true);
        let (active, unread) = (Some(Kept::Active), Some(Kept::Unread));
        assert_eq!(planned(Retention::new(), &[Some(0)]), (4, active, String::new()));
        assert_eq!(planned(keep, &[]), (4, active, String::new()));
        assert_eq!(planned(keep, &[Some(40)]), (4, active, String::new()));
        assert_eq!(planned(keep, &[Some(39), Some(40)]), (3, unread, "a".into()));
        assert_eq!(planned(keep, &[Some(50), Some(10), Some(19)]), (1, unread, "bc".into()));
        assert_eq!(planned(keep, &[Some(9)]), (0, unread, "a".into()));
        // Nobody knows where it stands.
        assert_eq!(planned(keep, &[Some(50), None]), (0, unread, "b".into()));
        // Less than all is to go, and has been read.
        let report = plan(&rows(5), Offset::ZERO, &keep.max_bytes(4000), &[], secs(0));
        assert_eq!((report.removed_segments, report.kept), (1, Some(Kept::Within(None))));
    }

    #[test]
    fn over_the_cap_the_slow_are_passed() {
        let planned = |cap, committed: &[Option<u64>]| {
            let retention = Retention::new().keep_unread(true).unread_cap_bytes(cap);
            let report = planned_for(retention, committed);
            (report.removed_segments, report.blocked_by.join(""), report.passed.join(""))
        };
        assert_eq!(planned(5000, &[Some(0)]), (0, "a".into(), String::new()));
        assert_eq!(planned(4999, &[Some(0)]), (1, "a".into(), "a".into()));
        assert_eq!(planned(3000, &[Some(0), Some(50)]), (2, "a".into(), "a".into()));
        assert_eq!(planned(0, &[Some(0), Some(50), None]), (4, String::new(), "ac".into()));
        // What was read goes first, and does not count.
        assert_eq!(planned(3000, &[Some(20), Some(25)]), (2, "ab".into(), String::new()));
        assert_eq!(planned(2999, &[Some(20), Some(35)]), (3, "ab".into(), "a".into()));
    }

    #[test]
    fn deleted_records_are_not_counted_again() {
        let retention = Retention::new().max_bytes(4000);
        let report = plan(&rows(5), Offset::new(7), &retention, &[], secs(0));
        assert_eq!((report.removed_records, report.start_offset), (3, Offset::new(10)));
        let report = plan(&[], Offset::new(7), &retention, &[], secs(0));
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
