//! Which segments make up a log, when only the segments are there to tell: a pure decision.
//!
//! Ids rise in the order in which segments were begun, so the history is played again in the order
//! of ids. A segment that begins where the log ends is the next one. One that begins below that is
//! one of two things, and they leave different logs:
//!
//! - *appended* after a truncation: all that is older and lies at or behind its base is cut off;
//! - *written by compaction*: it says the same as what it covers, and what lies behind stays. It
//!   takes the place of what it was made of only if it was finished.
//!
//! What tells them apart: a segment that names one as its predecessor, inside which it begins, was
//! appended after a truncation of that one, since compaction begins at boundaries; unless more lies
//! behind it that came after another segment: then it may have been compacted later. Where the
//! clock is the log's own, compaction alone leaves holes, and append times never go back, over a
//! truncation neither: a segment with a time before that of an older one behind its base was not
//! appended after it; and one with a later time than an older one behind its end was. A replica's
//! times and holes are those of another log, and both may come behind a truncation. So they decide
//! only where nothing else is to be had, and the report says so if the files of both lives are
//! there. What is left is ambiguous: nothing is cut then but what it begins inside of, which had
//! ended there either way, and the report says so.
//!
//! What no segment tells: a truncation after which nothing was appended, a start inside the first
//! segment, and where one ended of which compaction left nothing. It is taken to go on to the next
//! one; the last one ends where it begins.

use crate::units::Offset;
use crate::units::Timestamp;
use std::ops::Range;

/// So many offsets a segment has at most.
pub(super) const SEGMENT_OFFSETS_MAX: u64 = u32::MAX as u64;

/// What is known of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) id: u64,
    pub(super) base: Offset,
    pub(super) end: Offset,
    /// The segment before, 0 if there was none; `None` if its header is damaged.
    pub(super) previous: Option<u64>,
    /// Append times of the first and the last record.
    pub(super) times: Option<(Timestamp, Timestamp)>,
    pub(super) condition: Condition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Whole,
    /// Records were left out by compaction.
    Holes,
    /// Whatever else it is: holes where something is damaged say nothing.
    Damaged,
}

/// The segments of the log, in the order of their offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// Ids, with where each one ends in the log.
    pub(super) live: Vec<(u64, Range<Offset>)>,
    /// Where the log ends: a segment without records says so too.
    pub(super) end: Option<Offset>,
    /// Offsets that may have been truncated.
    pub(super) ambiguous: Vec<Range<Offset>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Appended,
    Compacted,
    /// Either: it is taken for the latter.
    Unknown,
}

/// Plays the history of these segments again.
pub(super) fn chain(mut links: Vec<Link>) -> Chain {
    links.sort_by_key(|link| link.id);
    let mut live: Vec<Link> = Vec::new();
    let mut ambiguous = Vec::new();
    for link in links {
        let overlaps = live.iter().any(|old| old.end > link.base);
        let kind = if overlaps { kind(&link, &live) } else { Kind::Appended };
        if kind == Kind::Appended {
            // Without a segment before it the log had been emptied.
            let stays = link.previous != Some(0);
            live.retain(|old| stays && old.base < link.base);
            cut(&mut live, link.base);
            if let Some(last) = live.last_mut().filter(|last| link.previous == Some(last.id)) {
                last.end = end_before(last, Some(link.base));
            }
            live.push(link);
            continue;
        }
        let bases = live.iter().map(|old| old.base).filter(|base| *base > link.base);
        let end = end_before(&link, bases.min());
        if kind == Kind::Unknown {
            let log_end = live.last().map_or(end, |last| last.end);
            ambiguous.push(link.base..log_end.max(end));
        }
        // What it begins inside of had ended there, and says nothing of how far it was to go.
        let mut inputs = live.iter().filter(|old| old.base >= link.base);
        let is_part = inputs.any(|old| old.base < end && old.end > end);
        let is_nothing = end == link.base || (link.times.is_none() && has(&live, link.base));
        let is_torn = link.condition == Condition::Damaged && covers(&live, link.base..end);
        if is_part || is_nothing || is_torn {
            // It was not finished, and what it is made of is there.
            continue;
        }
        live.retain(|old| old.base < link.base || old.base >= end);
        cut(&mut live, link.base);
        let place = live.partition_point(|old| old.base < link.base);
        live.insert(place, Link { end, ..link });
    }
    let end = live.last().map(|last| last.end);
    live.retain(|link| link.end > link.base);
    let live = live.into_iter().map(|link| (link.id, link.base..link.end)).collect();
    Chain { live, end, ambiguous }
}

fn has(live: &[Link], base: Offset) -> bool {
    live.iter().any(|old| old.base == base && old.end > old.base)
}

/// Whether segments that begin in this range are there for all of it.
fn covers(live: &[Link], range: Range<Offset>) -> bool {
    let behind = live.iter().filter(|old| old.base >= range.start);
    let mut covered = range.start;
    for old in behind.take_while(|old| old.base < range.end) {
        if old.base > covered {
            return false;
        }
        covered = covered.max(old.end);
    }
    covered >= range.end
}

/// Where a segment ends in front of where the next one begins: if all its records are gone, there.
fn end_before(link: &Link, next: Option<Offset>) -> Offset {
    let reaches = |next: &Offset| next.saturating_since(link.base) <= SEGMENT_OFFSETS_MAX;
    match link.end > link.base {
        true => link.end,
        false => next.filter(reaches).unwrap_or(link.end),
    }
}

/// Ends the segment that goes on behind `end` there.
fn cut(live: &mut [Link], end: Offset) {
    for old in live.iter_mut().filter(|old| old.base < end && old.end > end) {
        old.end = end;
    }
}

fn kind(link: &Link, live: &[Link]) -> Kind {
    let behind = || live.iter().filter(|old| old.end > link.base);
    let is_inside = behind().any(|old| old.base < link.base && Some(old.id) == link.previous);
    let later = live.iter().filter(|old| old.base > link.base).min_by_key(|old| old.base);
    if is_inside && later.is_none_or(|later| later.previous == link.previous) {
        return Kind::Appended;
    }
    let Some((first, last)) = link.times else { return Kind::Unknown };
    let newest = behind().filter_map(|old| old.times).map(|times| times.1).max();
    if link.condition == Condition::Holes || newest.is_some_and(|newest| first < newest) {
        let has_both = behind().any(|old| old.base < link.end);
        return if has_both { Kind::Unknown } else { Kind::Compacted };
    }
    let follows = live.iter().filter(|old| old.base >= link.end.max(link.base + 1));
    let next = follows.filter_map(|old| old.times).map(|times| times.0).min();
    let is_later = next.or(newest).is_some_and(|next| last > next);
    if is_later { Kind::Appended } else { Kind::Unknown }
}

#[cfg(test)]
mod tests {
    use super::{Condition, Link, chain};
    use crate::units::Offset;
    use crate::units::Timestamp;

    /// Id, base, end, previous, first and last time.
    fn link(id: u64, offsets: (u64, u64), previous: u64, times: (i64, i64)) -> Link {
        Link {
            id,
            base: Offset::new(offsets.0),
            end: Offset::new(offsets.1),
            previous: Some(previous),
            times: (offsets.1 > offsets.0)
                .then(|| (Timestamp::from_micros(times.0), Timestamp::from_micros(times.1))),
            condition: Condition::Whole,
        }
    }

    #[track_caller]
    fn check(links: &[Link], live: &[(u64, u64, u64)], ambiguous: &[(u64, u64)]) {
        let found = chain(links.to_vec());
        let of = |found: &[(u64, std::ops::Range<Offset>)]| -> Vec<_> {
            found.iter().map(|(id, range)| (*id, range.start.get(), range.end.get())).collect()
        };
        assert_eq!(of(&found.live), live);
        let found: Vec<_> =
            found.ambiguous.iter().map(|range| (range.start.get(), range.end.get())).collect();
        assert_eq!(found, ambiguous);
    }

    #[test]
    fn each_history_has_its_chain() {
        let [a, b, c] = [
            link(1, (0, 10), 0, (1, 5)),
            link(2, (10, 20), 1, (5, 7)),
            link(3, (20, 30), 2, (8, 9)),
        ];
        check(&[c, a, b], &[(1, 0, 10), (2, 10, 20), (3, 20, 30)], &[]);
        // Truncated inside a segment, and at a boundary, and gone on.
        let inside = link(4, (15, 18), 2, (9, 9));
        check(&[a, b, c, inside], &[(1, 0, 10), (2, 10, 15), (4, 15, 18)], &[]);
        let boundary = link(4, (10, 20), 1, (10, 12));
        check(&[a, b, c, boundary], &[(1, 0, 10), (4, 10, 20)], &[]);
        check(&[a, c, boundary], &[(1, 0, 10), (4, 10, 20)], &[]);
        // Compacted: with what it was made of, without, in part, and not finished.
        let output = link(4, (0, 20), 0, (1, 7));
        check(&[a, b, c, output], &[(4, 0, 20), (3, 20, 30)], &[(0, 30)]);
        check(&[c, output], &[(4, 0, 20), (3, 20, 30)], &[]);
        check(&[b, c, output], &[(4, 0, 20), (3, 20, 30)], &[(0, 30)]);
        let part = Link { end: Offset::new(15), ..output };
        check(&[a, b, c, part], &[(1, 0, 10), (2, 10, 20), (3, 20, 30)], &[(0, 30)]);
        // Emptied, and gone on where it ended and behind.
        check(&[a, link(4, (10, 12), 0, (9, 9))], &[(4, 10, 12)], &[]);
        check(&[a, link(4, (50, 52), 0, (9, 9))], &[(4, 50, 52)], &[]);
        // A file is missing, also behind the last record.
        check(&[a, c], &[(1, 0, 10), (3, 20, 30)], &[]);
        let empty = link(4, (40, 40), 3, (0, 0));
        check(&[a, b, c, empty], &[(1, 0, 10), (2, 10, 20), (3, 20, 30)], &[]);
        assert_eq!(chain(vec![a, b, c, empty]).end, Some(empty.base));
        assert_eq!(chain(vec![a, b, c]).end, Some(c.end));
    }

    #[test]
    fn what_a_clock_that_stands_still_hides_is_said() {
        let at = (5, 5);
        let [a, b, c] =
            [link(1, (0, 10), 0, at), link(2, (10, 20), 1, at), link(3, (20, 30), 2, at)];
        let inside = link(4, (15, 18), 2, at);
        check(&[a, b, c, inside], &[(1, 0, 10), (2, 10, 15), (4, 15, 18)], &[]);
        let either = link(4, (10, 20), 1, at);
        check(&[a, b, c, either], &[(1, 0, 10), (4, 10, 20), (3, 20, 30)], &[(10, 30)]);
        let holes = Link { condition: Condition::Holes, ..either };
        check(&[a, b, c, holes], &[(1, 0, 10), (4, 10, 20), (3, 20, 30)], &[(10, 30)]);
        check(&[a, c, holes], &[(1, 0, 10), (4, 10, 20), (3, 20, 30)], &[]);
    }

    /// Times and holes are those of the log that was shipped.
    #[test]
    fn a_replica_goes_on_behind_a_truncation_as_it_is_told() {
        let [a, b] = [link(1, (0, 10), 0, (1, 5)), link(2, (10, 20), 1, (5, 9))];
        let earlier = link(3, (15, 18), 2, (6, 7));
        let holes = Link { condition: Condition::Holes, ..link(3, (15, 18), 2, (10, 10)) };
        for inside in [earlier, holes] {
            check(&[a, b, inside], &[(1, 0, 10), (2, 10, 15), (3, 15, 18)], &[]);
        }
        // What was truncated is compacted, and its times are later than those behind it.
        let behind = link(4, (18, 25), 3, (7, 8));
        let output = link(5, (10, 15), 1, (5, 9));
        let live = [(1, 0, 10), (5, 10, 15), (3, 15, 18), (4, 18, 25)];
        check(&[a, b, earlier, behind, output], &live, &[(10, 25)]);
    }

    /// The segment that was appended is gone, and the one it was truncated from is whole.
    #[test]
    fn what_was_appended_behind_a_truncation_and_compacted_keeps_what_is_behind_it() {
        let [a, behind] = [link(1, (0, 20), 0, (1, 5)), link(3, (18, 25), 2, (6, 9))];
        let output = Link { condition: Condition::Holes, ..link(4, (15, 18), 1, (5, 6)) };
        let live = [(1, 0, 15), (4, 15, 18), (3, 18, 25)];
        check(&[a, behind, output], &live, &[(15, 25)]);
    }

    /// Compaction begins at boundaries: one that begins inside another and ends in front of its end
    /// was not left unfinished.
    #[test]
    fn what_begins_inside_a_truncated_segment_stays() {
        let live = [(1, 0, 15), (4, 15, 18), (3, 18, 25)];
        let a = link(1, (0, 30), 0, (1, 9));
        let c = Link { condition: Condition::Holes, ..link(3, (18, 25), 2, (10, 12)) };
        let output = link(4, (15, 18), 1, (9, 10));
        check(&[a, c, output], &live, &[(18, 30), (15, 25)]);
        let earlier = [link(3, (18, 25), 2, (3, 4)), link(4, (15, 18), 1, (2, 3))];
        check(&[a, earlier[0], earlier[1]], &live, &[(18, 30), (15, 25)]);
        let [a, c, output] =
            [a, c, output].map(|link| Link { times: a.times, condition: Condition::Whole, ..link });
        check(&[a, c, output], &live, &[(18, 30), (15, 25)]);
    }
    /// A power cut kept some of an output that was not synced yet: its inputs are all there.
    #[test]
    fn a_damaged_output_takes_the_place_of_what_is_missing_alone() {
        let [a, b, c] = [
            link(1, (0, 10), 0, (1, 5)),
            link(2, (10, 20), 1, (5, 7)),
            link(3, (20, 30), 2, (8, 9)),
        ];
        let torn = Link { condition: Condition::Damaged, ..link(4, (0, 20), 0, (1, 7)) };
        check(&[a, b, c, torn], &[(1, 0, 10), (2, 10, 20), (3, 20, 30)], &[(0, 30)]);
        for left in [[a, c, torn], [b, c, torn]] {
            check(&left, &[(4, 0, 20), (3, 20, 30)], &[(0, 30)]);
        }
        check(&[c, torn], &[(4, 0, 20), (3, 20, 30)], &[]);
        // What it begins inside of had been truncated.
        let inside = Link { base: Offset::new(5), ..torn };
        check(&[a, b, c, inside], &[(1, 0, 5), (4, 5, 20), (3, 20, 30)], &[(5, 30)]);
    }
}
