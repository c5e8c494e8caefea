//! Compaction: of the records with the same key, the last one stays.
//!
//! A run reads the segments that are new to it and finds out which of their records are dead
//! (`collect.rs`, `key_map.rs`), then writes what survives of those and of older ones into new
//! segments (`rewrite.rs`, `fate.rs`, `output.rs`), one after the other; the space of what they
//! replace is given back meanwhile (`freeing.rs`). What it covers and when it is due is decided in
//! `plan.rs`; who runs it, and who may end it, is in `compactor.rs`.
//!
//! The crash argument. Ids for the new segments are durably used up before a file with records has
//! one of them, so that such a file is garbage wherever the run is cut off. A new segment is
//! written and synced; then one manifest names it in the place of the old ones, and makes its name
//! durable. A crash finds the old ones named or the new one, never both, and removes the files of
//! the other. How far keys have been compared is stated when the last of them is in its place; so
//! a run that was cut off is done again, over what is left.
//!
//! # Invariants
//!
//! - One run at a time. No sealed segment is changed; files of old ones go when the manifest
//!   without them is durable, and readers that hold one read on in it.
//! - A record is removed only if a later one with its key is in the log, or if it is a tombstone
//!   that has been there for long enough and hides nothing. A run ends when the log is truncated,
//!   since that may take the later one away.
//! - Beyond what the log needs there is one output at most on the disk, and the space that is being
//!   given back of what the one before it has replaced. A run that finds no space waits for that.

mod collect;
mod compactor;
mod fate;
mod freeing;
mod key_map;
pub(crate) mod output;
mod pace;
mod plan;
mod report;
mod rewrite;

pub(crate) use compactor::Compactor;
pub(crate) use output::GROWTH_MAX;
pub(crate) use pace::Pause;
pub use report::CompactionReport;
pub use report::LeftAside;

use crate::bugs::Bug;
use crate::commit::Commit;
use crate::compaction::collect::Collected;
use crate::compaction::freeing::Freeing;
use crate::compaction::pace::Halt;
use crate::compaction::pace::Pace;
use crate::compaction::report::End;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::manifest::Row;
use crate::options::Compaction;
use crate::segment;
use crate::state::Segments;
use crate::storage::Handle;
use crate::storage::OpenMode;
use crate::units::Offset;
use crate::units::Timestamp;
use std::collections::HashMap;
use std::collections::HashSet;
use std::ops::Range;

/// One run under way.
struct Run<'a> {
    segments: &'a Segments,
    commit: &'a Commit,
    settings: &'a Compaction,
    segment_bytes: u64,
    pace: Pace<'a>,
    now: Timestamp,
    /// Start of the log, its id and how often it had been truncated when the run began.
    start: Offset,
    log_id: u128,
    truncations: u64,
    /// Where the last run came to.
    compacted_to: Offset,
    /// Where the keys of this one begin.
    from: Offset,
    /// The segments that it may replace, as the manifest had them when it began.
    rows: Vec<Row>,
    /// Those of them that cannot be read, or are gone, by their ids.
    aside: HashSet<u64>,
    /// The segment in front of the next output.
    previous: Option<Row>,
    /// Ids that are used up as far as the manifest knows.
    ids: Range<u64>,
    /// Segments that stay as they are: when they were covered first, and their tombstones.
    kept: HashMap<u64, (Timestamp, u64)>,
    /// Why a file could not be removed that is not part of the log any more.
    not_removed: Option<Error>,
    freeing: Freeing,
    report: CompactionReport,
}

impl Run<'_> {
    fn run(&mut self) -> Result<(), Halt> {
        self.pace.look()?;
        self.look_at_those_left_aside()?;
        let collected = self.collect(self.from)?;
        self.rewrite(&collected)?;
        self.freeing.wait();
        self.finish(&collected)
    }

    /// Segments that an earlier run could not read may be readable by now: then their keys have to
    /// be compared with all behind them, so the run begins there.
    fn look_at_those_left_aside(&mut self) -> Result<(), Halt> {
        let rows = self.rows.clone();
        let compacted_to = self.compacted_to;
        for row in rows.iter().filter(|row| plan::was_left_aside(row, compacted_to)) {
            self.report.segments_read += 1;
            match self.try_row(row, |run| run.walk(row, |_| true)) {
                Ok(_) => self.from = self.from.min(row.base_offset),
                Err(Halt::Unreadable(_)) => {}
                Err(halt) => return Err(halt),
            }
        }
        Ok(())
    }

    /// States how far the run has come, and what it knows of the segments that stay.
    fn finish(&mut self, collected: &Collected) -> Result<(), Halt> {
        let mut was_cut = false;
        let mut compacted_to = collected.limit;
        let edit = |manifest: &mut Manifest| {
            was_cut = self.is_cut(manifest);
            let before = (manifest.rows.clone(), manifest.compacted_to);
            for row in &mut manifest.rows {
                if self.aside.contains(&row.segment_id) {
                    // Not compared with the keys of this run, whatever it was before.
                    (row.compacted_at, row.tombstone_count) = (None, 0);
                    if row.base_offset < collected.limit {
                        // All of it, or the next run would go on in the middle of it.
                        compacted_to = compacted_to.max(row.end_offset);
                    }
                } else if let Some((at, tombstones)) = self.kept.get(&row.segment_id) {
                    (row.compacted_at, row.tombstone_count) = (Some(*at), *tombstones);
                }
            }
            manifest.compacted_to = match Bug::CompactedTooFar.is_on() {
                true => manifest.end_offset(),
                false => compacted_to,
            };
            !was_cut && before != (manifest.rows.clone(), manifest.compacted_to)
        };
        self.commit.edit_sealed(edit).map_err(Halt::Failed)?;
        if was_cut {
            return Err(Halt::Stopped);
        }
        self.report.compacted_to = compacted_to;
        self.report.end = if collected.is_full { End::Full } else { End::Done };
        Ok(())
    }

    /// Puts `row` in the place of `group`; tells whether they were still there.
    fn swap(&mut self, group: &[Row], row: Row) -> Result<bool, Halt> {
        let mut was_cut = false;
        let edit = |manifest: &mut Manifest| {
            was_cut = self.is_cut(manifest);
            let first = group.first().map(|row| row.segment_id);
            let place = manifest.rows.iter().position(|row| Some(row.segment_id) == first);
            let Some(place) = place.filter(|_| !was_cut) else { return false };
            if manifest.rows.get(place..place + group.len()) != Some(group) {
                return false;
            }
            manifest.rows.splice(place..place + group.len(), [row]);
            // Until the run is done, its keys have not been compared with all below them.
            if !Bug::CompactedNotTakenBack.is_on() {
                manifest.compacted_to = manifest.compacted_to.min(self.from);
            }
            true
        };
        let swapped = self.commit.edit_sealed(edit).map_err(Halt::Failed)?;
        if was_cut { Err(Halt::Stopped) } else { Ok(swapped) }
    }

    fn is_cut(&self, manifest: &Manifest) -> bool {
        manifest.truncation_epoch != self.truncations && !Bug::TruncationUnseen.is_on()
    }

    /// A segment stays as it is.
    fn keep(&mut self, row: &Row, collected: &Collected) {
        self.count(std::slice::from_ref(row), row);
        self.previous = Some(*row);
        if collected.covers(row) {
            let seen = collected.rows.get(&row.segment_id);
            let tombstones = seen.map_or(row.tombstone_count, |seen| seen.tombstones);
            let at = row.compacted_at.unwrap_or(self.now);
            self.kept.insert(row.segment_id, (at, tombstones.min(row.record_count)));
        }
    }

    fn count(&mut self, before: &[Row], after: &Row) {
        let report = &mut self.report;
        let records: u64 = before.iter().map(|row| row.record_count).sum();
        let bytes: u64 = before.iter().map(|row| row.byte_len).sum();
        report.records_kept += after.record_count;
        report.bytes_kept += after.byte_len;
        report.records_removed += records.saturating_sub(after.record_count);
        report.bytes_removed += bytes.saturating_sub(after.byte_len);
    }

    fn next_id(&mut self) -> Result<u64, Halt> {
        if let Some(id) = self.ids.next() {
            return Ok(id);
        }
        let count = self.rows.len().max(1) as u64;
        let taken = self.commit.take_segment_ids(count);
        let first = taken.ok_or_else(|| Halt::Failed(no_ids()))?;
        let edit = |manifest: &mut Manifest| {
            manifest.next_segment_id = manifest.next_segment_id.max(first + count);
            true
        };
        if !Bug::OutputIdNotUsedUp.is_on() {
            self.commit.edit_sealed(edit).map_err(Halt::Failed)?;
        }
        // Not before: the run may go on behind an edit that was refused.
        self.ids = first + 1..first + count;
        Ok(first)
    }

    /// Opens the file of a row; gives the seed of its frames as well.
    fn open(&self, row: &Row) -> Result<(Handle, u32), Halt> {
        let opened = segment::open_file(self.segments.dir(), row, self.log_id, OpenMode::Read);
        opened.map(|(file, header)| (file, header.seed)).map_err(Halt::Unreadable)
    }

    fn is_aside(&self, row: &Row) -> bool {
        self.aside.contains(&row.segment_id)
    }

    /// Does something with a segment; if it cannot be read, it is left aside.
    fn try_row<T>(
        &mut self,
        row: &Row,
        attempt: impl FnOnce(&mut Self) -> Result<T, Halt>,
    ) -> Result<T, Halt> {
        attempt(self).inspect_err(|halt| {
            if let Halt::Unreadable(error) = halt {
                self.leave_aside(row, error.clone());
            }
        })
    }

    fn leave_aside(&mut self, row: &Row, error: Error) {
        let rows = &self.segments.state().manifest.rows;
        let is_there = rows.iter().any(|there| there.segment_id == row.segment_id);
        self.aside.insert(row.segment_id);
        if is_there {
            let offsets = row.base_offset..row.end_offset;
            self.report.left_aside.push(LeftAside { offsets, error });
        }
    }
}

fn no_ids() -> Error {
    Error::new(ErrorKind::OutOfRange, "the log has used up its segment ids")
}

/// A log that was not opened to be compacted.
pub(crate) fn not_wanted() -> Error {
    let what = "the log was opened without compaction; see Options::compaction";
    Error::new(ErrorKind::InvalidInput, what)
}
