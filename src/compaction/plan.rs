//! What to compact, and when: pure functions of the manifest's rows, the options and the time.

use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::options::Compaction;
use crate::units::Offset;
use crate::units::Timestamp;
use std::time::Duration;

/// The segments that may be compacted: sealed, and old enough, or compacted before.
pub(super) fn eligible<'a>(
    rows: &'a [Row],
    compacted_to: Offset,
    settings: &Compaction,
    now: Timestamp,
) -> &'a [Row] {
    let is_old =
        |row: &Row| row.record_count == 0 || is_past(row.last_appended_at, settings.min_lag, now);
    let count = rows.iter().take_while(|row| {
        row.state == RowState::Sealed && (row.end_offset <= compacted_to || is_old(row))
    });
    rows.get(..count.count()).unwrap_or_default()
}

/// What a run would find.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Outlook {
    /// Bytes of segments whose keys have not all been compared.
    pub(crate) dirty_bytes: u64,
    /// Their part in the bytes of all segments that may be compacted, 0 to 1.
    pub(crate) dirty_ratio: f64,
}

impl Outlook {
    /// For segments that are eligible.
    pub(super) fn of(rows: &[Row], compacted_to: Offset) -> Self {
        let bytes = |row: &Row| row.byte_len;
        let dirty = rows.iter().filter(|row| row.end_offset > compacted_to);
        let dirty_bytes: u64 = dirty.map(bytes).sum();
        let all_bytes: u64 = rows.iter().map(bytes).sum();
        // Sizes far below 2^53 are exact, and the ratio is the caller's guess anyway.
        let dirty_ratio = dirty_bytes as f64 / all_bytes.max(1) as f64;
        Self { dirty_bytes, dirty_ratio }
    }
}

/// Whether a run passed over the segment because it could not be read: its keys have not been
/// compared with those behind it.
pub(super) fn was_left_aside(row: &Row, compacted_to: Offset) -> bool {
    row.end_offset <= compacted_to && row.compacted_at.is_none()
}

/// Whether the last run had no room for all keys, as far as the segments tell: it ended in the
/// middle of one.
pub(super) fn was_full(rows: &[Row], compacted_to: Offset) -> bool {
    rows.iter().any(|row| row.base_offset < compacted_to && compacted_to < row.end_offset)
}

/// Whether a run is due, given the segments that are eligible.
pub(super) fn is_due(
    rows: &[Row],
    compacted_to: Offset,
    settings: &Compaction,
    now: Timestamp,
) -> bool {
    let outlook = Outlook::of(rows, compacted_to);
    let mut dirty = rows.iter().filter(|row| row.end_offset > compacted_to);
    (outlook.dirty_bytes > 0 && outlook.dirty_ratio >= settings.dirty_ratio)
        || dirty.any(|row| {
            row.record_count > 0 && is_past(row.first_appended_at, settings.max_lag, now)
        })
        || has_due_tombstones(rows, compacted_to, settings, now)
}

/// When a run may become due by the passing of time: the next moment at which one of the segments,
/// whatever its state, gets old enough for something. `None` if that never comes.
pub(super) fn next_due(
    rows: &[Row],
    compacted_to: Offset,
    settings: &Compaction,
    now: Timestamp,
) -> Option<Timestamp> {
    let times = rows.iter().filter(|row| row.state != RowState::Active).flat_map(|row| {
        let is_dirty = row.end_offset > compacted_to && row.record_count > 0;
        // It becomes eligible when it is durable, which nobody tells.
        let synced = Some(now).filter(|_| is_dirty && row.state == RowState::Written);
        let since = |at: Option<Timestamp>, time| at?.checked_add(time).filter(|then| *then > now);
        let (first, last) = (row.first_appended_at, row.last_appended_at);
        let compacted_at = row.compacted_at.filter(|_| row.tombstone_count > 0);
        [
            synced,
            since(Some(last).filter(|_| is_dirty), settings.min_lag),
            since(Some(first).filter(|_| is_dirty), settings.max_lag),
            since(compacted_at, settings.tombstone_retention),
        ]
    });
    times.flatten().min()
}

/// Tombstones above a segment that was left aside have to stay, so nothing is due for them.
fn has_due_tombstones(
    rows: &[Row],
    compacted_to: Offset,
    settings: &Compaction,
    now: Timestamp,
) -> bool {
    let readable = rows.iter().take_while(|row| !was_left_aside(row, compacted_to));
    readable.filter(|row| row.tombstone_count > 0).any(|row| {
        row.compacted_at.is_some_and(|at| is_past(at, settings.tombstone_retention, now))
    })
}

/// Whether so long a time has passed since. None always has, even by a clock that went back.
pub(super) fn is_past(since: Timestamp, time: Duration, now: Timestamp) -> bool {
    time.is_zero() || since.checked_add(time).is_some_and(|then| then <= now)
}

/// A segment on its way into an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) base: Offset,
    pub(super) end: Offset,
    pub(super) bytes: u64,
    /// When its tombstones were first compacted over, if it may keep any.
    pub(super) tombstones_at: Option<Timestamp>,
}

impl Part {
    /// Whether the segment behind this part of an output goes into the same one. Tombstones of
    /// different ages are kept apart: one time is all that a row has for them, and the later one
    /// would let the others live on, run after run.
    pub(super) fn takes(&self, next: &Self, segment_bytes: u64) -> bool {
        let is_one_age = match (self.tombstones_at, next.tombstones_at) {
            (Some(at), Some(next_at)) => at == next_at,
            _ => true,
        };
        is_one_age
            && next.base == self.end
            && self.bytes.saturating_add(next.bytes) <= segment_bytes
            && next.end.saturating_since(self.base) <= u64::from(u32::MAX)
    }

    /// The two as one, of `bytes` in all.
    pub(super) fn with(&self, next: &Self, bytes: u64) -> Self {
        let tombstones_at = self.tombstones_at.or(next.tombstones_at);
        Self { base: self.base, end: next.end, bytes, tombstones_at }
    }
}

#[cfg(test)]
mod tests {
    use super::{Part, eligible, is_due, next_due, was_left_aside};
    use crate::format::manifest::Row;
    use crate::format::manifest::RowState;
    use crate::options::Compaction;
    use crate::units::Offset;
    use crate::units::Timestamp;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::from_secs(1000);

    /// Ten offsets of a hundred bytes each, appended in the ten seconds of their tens.
    fn row(nth: u64) -> Row {
        let secs = i64::try_from(nth * 10).unwrap();
        Row {
            segment_id: nth + 1,
            base_offset: Offset::new(nth * 10),
            end_offset: Offset::new(nth * 10 + 10),
            byte_len: 1000,
            first_appended_at: Timestamp::from_secs(secs),
            last_appended_at: Timestamp::from_secs(secs + 9),
            record_count: 10,
            state: RowState::Sealed,
            compacted_at: None,
            tombstone_count: 0,
        }
    }

    fn compacted(nth: u64, at: i64, tombstone_count: u64) -> Row {
        Row { compacted_at: Some(Timestamp::from_secs(at)), tombstone_count, ..row(nth) }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn only_what_is_sealed_and_old_enough_is_eligible() {
        let rows =
            [row(95), row(96), row(97), Row { state: RowState::Written, ..row(98) }, row(99)];
        let empty = Row { record_count: 0, ..row(97) };
        let with_empty = [row(96), empty, row(99)];
        let future = [row(101)];
        let cases: [(&[Row], u64, u64, usize); 11] = [
            (&rows, 0, 0, 3),
            (&rows, 0, 21, 3),
            (&rows, 0, 22, 2),
            (&rows, 0, 31, 2),
            (&rows, 0, 42, 0),
            (&rows, 980, 42, 3),
            (&rows[4..], 0, 0, 1),
            (&with_empty, 0, 20, 2),
            (&[], 0, 0, 0),
            // Appended in the future, by a clock that went back.
            (&future, 0, 0, 1),
            (&future, 0, 1, 0),
        ];
        for (nth, (rows, compacted_to, lag, count)) in cases.into_iter().enumerate() {
            let settings = Compaction::new().min_lag(secs(lag));
            let found = eligible(rows, Offset::new(compacted_to), &settings, NOW);
            assert_eq!(found.len(), count, "case {nth}");
        }
    }

    #[test]
    fn a_run_is_due_for_dirt_and_lag_and_tombstones() {
        let never = || Compaction::new().dirty_ratio(1.0).tombstone_retention(secs(100));
        let clean = |count| (0..count).map(|nth| compacted(nth, 950, 0)).collect::<Vec<_>>();
        let cases = [
            ("nothing", vec![], 0, never(), false),
            ("all dirty", vec![row(0)], 0, never(), true),
            ("all clean", clean(2), 20, never().dirty_ratio(0.0), false),
            ("half dirty", [clean(1), vec![row(1)]].concat(), 10, never().dirty_ratio(0.5), true),
            ("less", [clean(2), vec![row(2)]].concat(), 20, never().dirty_ratio(0.5), false),
            ("in part", [clean(1), vec![row(1)]].concat(), 15, never().dirty_ratio(0.5), true),
            ("lag", [clean(3), vec![row(3)]].concat(), 30, never().max_lag(secs(970)), true),
            ("less lag", [clean(3), vec![row(3)]].concat(), 30, never().max_lag(secs(971)), false),
            ("lag of the clean", clean(3), 30, never().max_lag(secs(1)), false),
            ("tombstones", vec![compacted(0, 900, 1)], 10, never(), true),
            ("young ones", vec![compacted(0, 901, 1)], 10, never(), false),
            ("none", vec![compacted(0, 900, 0)], 10, never(), false),
            ("above one left aside", vec![row(0), compacted(1, 900, 1)], 20, never(), false),
            ("below one left aside", vec![compacted(0, 900, 1), row(1)], 20, never(), true),
            (
                "for ever",
                vec![compacted(0, 0, 1)],
                10,
                never().tombstone_retention(Duration::MAX),
                false,
            ),
        ];
        for (name, rows, compacted_to, settings, due) in cases {
            assert_eq!(is_due(&rows, Offset::new(compacted_to), &settings, NOW), due, "{name}");
        }
    }

    #[test]
    fn a_run_becomes_due_when_something_gets_old_enough() {
        let lags = || {
            let lags = Compaction::new().min_lag(secs(40)).max_lag(secs(100));
            lags.tombstone_retention(secs(80))
        };
        let written = Row { state: RowState::Written, ..row(97) };
        let active = Row { state: RowState::Active, ..row(97) };
        let cases = [
            ("nothing", vec![], 0, lags(), None),
            ("an active one", vec![active], 0, lags(), None),
            ("one that is not durable yet", vec![written], 0, lags(), Some(1000)),
            ("old enough for a reader", vec![row(97)], 0, lags(), Some(1019)),
            ("too old", vec![row(95)], 0, lags(), Some(1050)),
            ("long too old", vec![row(80)], 0, lags(), None),
            ("compacted", vec![compacted(97, 950, 0)], 980, lags(), None),
            ("tombstones", vec![compacted(97, 950, 1)], 980, lags(), Some(1030)),
            ("tombstones of long ago", vec![compacted(97, 920, 1)], 980, lags(), None),
            ("the first of several", vec![row(95), row(97)], 0, lags(), Some(1019)),
            ("never", vec![row(97)], 0, Compaction::new(), None),
        ];
        for (name, rows, compacted_to, settings, due) in cases {
            let due = due.map(Timestamp::from_secs);
            assert_eq!(next_due(&rows, Offset::new(compacted_to), &settings, NOW), due, "{name}");
        }
    }

    #[test]
    fn left_aside_is_what_was_passed_over() {
        assert!(was_left_aside(&row(1), Offset::new(20)));
        assert!(!was_left_aside(&row(1), Offset::new(19)));
        assert!(!was_left_aside(&compacted(1, 5, 0), Offset::new(20)));
    }

    #[test]
    fn what_fits_is_merged_but_not_over_the_ages_of_tombstones() {
        let part = |base, end, bytes, at: Option<i64>| Part {
            base: Offset::new(base),
            end: Offset::new(end),
            bytes,
            tombstones_at: at.map(Timestamp::from_secs),
        };
        let far = u64::from(u32::MAX);
        let cases = [
            ("fits", part(0, 10, 500, None), part(10, 20, 500, None), true),
            ("too large", part(0, 10, 501, None), part(10, 20, 500, None), false),
            ("of one age", part(0, 10, 5, Some(3)), part(10, 20, 5, Some(3)), true),
            ("of two", part(0, 10, 5, Some(3)), part(10, 20, 5, Some(4)), false),
            ("of one and none", part(0, 10, 5, Some(3)), part(10, 20, 5, None), true),
            ("a gap", part(0, 10, 5, None), part(11, 20, 5, None), false),
            ("2^32 - 1 offsets", part(1, 10, 5, None), part(10, far + 1, 5, None), true),
            ("2^32 offsets", part(0, 10, 5, None), part(10, far + 1, 5, None), false),
        ];
        for (name, first, next, takes) in cases {
            assert_eq!(first.takes(&next, 1000), takes, "{name}");
        }
        let both = part(0, 10, 5, None).with(&part(10, 20, 5, Some(4)), 8);
        assert_eq!(both, part(0, 20, 8, Some(4)));
    }
}
