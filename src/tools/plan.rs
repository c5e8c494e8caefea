//! What is to become of each segment: pure, given what the segments hold.

use crate::format::manifest::Manifest;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::units::Offset;
use std::ops::Range;

/// A segment of the log, as it is and as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// What the manifest is to say of it; of one that is written anew, before that.
    pub(super) row: Row,
    /// The file with its records and their seed.
    pub(super) source: Option<(String, u32)>,
    pub(super) fate: Fate,
    /// What of it cannot be read, in order.
    pub(super) lost: Vec<Range<Offset>>,
    /// Where its sound records end, if it goes on behind the end that the row states.
    pub(super) grows_to: Option<Offset>,
}

impl Part {
    /// Where it ends, as far as it is sound.
    pub(super) fn end(&self) -> Offset {
        self.grows_to.unwrap_or(self.row.end_offset)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Keep,
    /// What can be read of it goes into a new segment; the file is set aside.
    Rewrite,
    /// It stays, but nothing proves it durable: its bytes are written anew in their place.
    Confirm,
}

/// What a repair of a log is to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keep {
    /// Everything that can be read, at its offset; what is lost leaves holes, as compaction does.
    #[default]
    Readable,
    /// What comes before the first record that is lost, for a log that must be replayed without a
    /// gap.
    Prefix,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) manifest: Manifest,
    pub(super) parts: Vec<Part>,
    /// Files that are of no use, damaged or ambiguous, besides the sources of parts.
    pub(super) aside: Vec<String>,
    /// What the manifest that is there is good for.
    pub(super) standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It stays, unless a segment is written anew.
    Right,
    /// It says something else than the segments.
    Wrong,
    /// It is missing, damaged or old: what there is of it is set aside.
    Useless,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        let keeps = self.parts.iter().all(|part| part.fate == Fate::Keep);
        keeps && self.aside.is_empty() && self.standing == Standing::Right
    }

    /// Where the log ends then.
    pub(super) fn end(&self) -> Offset {
        self.parts.last().map_or(self.manifest.start_offset, Part::end)
    }

    /// Ends the log in front of the first record that is lost. What lies below its start was
    /// deleted: it cannot be lost.
    pub(super) fn keep_prefix(&mut self) {
        let start = self.manifest.start_offset;
        let first = |part: &Part| {
            let lost = part.lost.iter().map(|lost| lost.start.max(start)..lost.end);
            lost.filter(|lost| !lost.is_empty()).map(|lost| lost.start).next()
        };
        let mut losses = self.parts.iter().enumerate();
        let found = losses.find_map(|(nth, part)| Some((nth, first(part)?)));
        let Some((nth, lost)) = found else { return };
        let behind = self.parts.split_off(nth + 1);
        self.aside.extend(behind.into_iter().filter_map(|part| Some(part.source?.0)));
        let Some(part) = self.parts.last_mut() else { return };
        let end = lost.max(part.row.base_offset);
        part.row.end_offset = end;
        part.row.state = RowState::Sealed;
        if end == part.row.base_offset
            && let Some(part) = self.parts.pop()
        {
            self.aside.extend(part.source.map(|(name, _)| name));
        }
        self.standing = self.standing.max(Standing::Wrong);
        self.manifest.truncation_epoch = self.manifest.truncation_epoch.saturating_add(1);
        self.manifest.compacted_to = self.manifest.compacted_to.min(end);
    }

    /// The steps in words.
    pub(super) fn steps(&self) -> Vec<String> {
        let mut steps = Vec::new();
        for name in &self.aside {
            steps.push(format!("set {name} aside"));
        }
        for Part { row, source, fate, lost, .. } in &self.parts {
            let range = format!("offsets {} to {}", row.base_offset, row.end_offset);
            match (fate, source) {
                (Fate::Keep, _) => {}
                (_, None) => steps.push(format!("begin a segment without records for {range}")),
                (Fate::Confirm, Some((name, _))) => {
                    steps.push(format!("write {range} of {name} anew in their place"));
                }
                (Fate::Rewrite, Some((name, _))) => steps.push(format!(
                    "set {name} aside, and write what can be read of {range} into a new segment; \
                     {} places are lost",
                    lost.len()
                )),
            }
        }
        if !self.is_empty() {
            steps.push("write the manifest".to_owned());
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::{Fate, Part, Plan, Standing};
    use crate::format::manifest::Manifest;
    use crate::format::manifest::Origin;
    use crate::format::manifest::Row;
    use crate::format::manifest::RowState;
    use crate::units::Offset;
    use crate::units::Timestamp;

    fn part(id: u64, base: u64, lost: &[(u64, u64)]) -> Part {
        let range = |(from, to): &(u64, u64)| Offset::new(*from)..Offset::new(*to);
        Part {
            row: Row {
                segment_id: id,
                base_offset: Offset::new(base),
                end_offset: Offset::new(base + 10),
                byte_len: 4096,
                first_appended_at: Timestamp::ZERO,
                last_appended_at: Timestamp::ZERO,
                record_count: 10,
                state: RowState::Sealed,
                compacted_at: None,
                tombstone_count: 0,
            },
            source: Some((format!("file {id}"), 1)),
            fate: if lost.is_empty() { Fate::Keep } else { Fate::Rewrite },
            lost: lost.iter().map(range).collect(),
            grows_to: None,
        }
    }

    fn plan(parts: Vec<Part>) -> Plan {
        let manifest = Manifest {
            log_id: 1,
            closed: false,
            origin: Origin::Log,
            start_offset: Offset::new(3),
            next_segment_id: 9,
            last_append_time: Timestamp::ZERO,
            truncation_epoch: 0,
            compacted_to: Offset::new(30),
            rows: Vec::new(),
        };
        Plan { manifest, parts, aside: Vec::new(), standing: Standing::Right }
    }

    type Ranges = &'static [(u64, u64)];

    #[test]
    fn a_prefix_ends_in_front_of_the_first_loss() {
        let cases: [(Ranges, Ranges); 3] = [
            (&[(14, 16), (18, 19)], &[(0, 10), (10, 14)]),
            (&[(10, 12)], &[(0, 10)]),
            (&[(19, 20)], &[(0, 10), (10, 19)]),
        ];
        for (lost, left) in cases {
            let mut plan = plan(vec![part(1, 0, &[]), part(2, 10, lost), part(3, 20, &[])]);
            plan.keep_prefix();
            let rows = plan.parts.iter().map(|part| &part.row);
            let found: Vec<_> =
                rows.map(|row| (row.base_offset.get(), row.end_offset.get())).collect();
            assert_eq!(found, left);
            assert!(plan.aside.contains(&"file 3".to_owned()));
            let end = left.last().unwrap().1;
            assert_eq!(plan.manifest.compacted_to, Offset::new(end));
            assert_eq!(plan.manifest.truncation_epoch, 1);
        }
    }

    #[test]
    fn nothing_to_do_is_no_step() {
        let mut sound = plan(vec![part(1, 0, &[]), part(2, 10, &[])]);
        sound.keep_prefix();
        assert!(sound.is_empty() && sound.steps().is_empty());
        let lossy = plan(vec![part(1, 0, &[(2, 3)])]);
        assert_eq!(lossy.steps().len(), 2);
        assert!(!lossy.is_empty());
    }
}
