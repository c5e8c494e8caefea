//! The second half of a run: writes what survives of the segments, and puts it in their place.

use crate::bugs::Bug;
use crate::compaction::Run;
use crate::compaction::collect::Collected;
use crate::compaction::fate::Fate;
use crate::compaction::freeing::HELD_MAX;
use crate::compaction::freeing::HELD_MIN_BYTES;
use crate::compaction::freeing::Held;
use crate::compaction::output;
use crate::compaction::output::Output;
use crate::compaction::pace::Halt;
use crate::compaction::plan;
use crate::compaction::plan::Part;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::format::manifest::Row;
use crate::segment::Frames;
use crate::segment::NewSegment;
use crate::segment::Placed;
use crate::segment::Records;
use crate::units::Offset;
use crate::units::Timestamp;
use std::time::Duration;

impl Run<'_> {
    /// Rewrites what is worth it, front to back, and swaps each output in as soon as it is whole.
    pub(super) fn rewrite(&mut self, collected: &Collected) -> Result<(), Halt> {
        let mut nth = 0;
        while let Some(row) = self.rows.get(nth).copied() {
            let in_reach = row.base_offset < collected.limit;
            if !in_reach {
                break;
            }
            if self.is_aside(&row) {
                self.previous = Some(row);
                nth += 1;
                continue;
            }
            match self.rewrite_from(nth, collected) {
                Ok(done) => nth += done,
                // It is left aside now; those beside it are looked at again without it.
                Err(Halt::Unreadable(_)) => {}
                Err(Halt::Failed(error))
                    if error.kind() == ErrorKind::StorageFull && self.freeing.wait() =>
                {
                    // What was replaced before has left its space.
                }
                Err(halt) => return Err(halt),
            }
        }
        Ok(())
    }

    /// Rewrites the row at `nth` and as many behind it as go with it; gives how many that are.
    fn rewrite_from(&mut self, nth: usize, collected: &Collected) -> Result<usize, Halt> {
        let Some(first) = self.rows.get(nth).copied() else { return Ok(1) };
        let changes = self.try_row(&first, |run| run.changes(&first, collected))?;
        let mut part = self.part(&first, collected);
        let next = self.next_part(nth + 1, collected);
        let merges = next.is_some_and(|(next, its)| {
            !falls(&next, &[first]) && part.takes(&its, self.segment_bytes)
        });
        if !(changes || merges && first.byte_len <= self.segment_bytes / 2) {
            self.keep(&first, collected);
            return Ok(1);
        }
        let id = self.next_id()?;
        let new = NewSegment::new(id, first.base_offset, self.segments.dir().storage().random());
        let mut group = vec![first];
        let written = self.write_output(new, &mut group, &mut part, collected);
        let row = written.map_err(|halt| Self::say_what_it_needs(halt, &group))?;
        if Bug::InputsRemovedFirst.is_on() {
            output::remove(self.segments.dir(), NewSegment { segment_id: first.segment_id, ..new });
        }
        let held = self.hold(&group);
        if self.swap(&group, row).map_err(|error| self.discard_unless_poisoned(new, error))? {
            self.count(&group, &row);
            self.report.segments_written += 1;
            self.previous = Some(row);
            if let Err(error) = self.segments.remove_garbage() {
                // The log is what it should be: the next open removes the file.
                self.not_removed = Some(error);
            }
            self.freeing.begin(held);
            return Ok(group.len());
        }
        // Some have been deleted meanwhile: the others are rewritten without them.
        output::remove(self.segments.dir(), new);
        self.pass_over_deleted(&group)?;
        Ok(0)
    }

    fn pass_over_deleted(&mut self, group: &[Row]) -> Result<(), Halt> {
        let before = self.aside.len();
        let state = self.segments.state();
        let is_there = |id| state.manifest.rows.iter().any(|row| row.segment_id == id);
        let gone = group.iter().map(|row| row.segment_id).filter(|id| !is_there(*id));
        self.aside.extend(gone);
        // Whatever else it is that has changed, another run will see it.
        if self.aside.len() > before { Ok(()) } else { Err(Halt::Stopped) }
    }

    /// Opens the files whose space is worth a thread. One that cannot be opened is removed at once.
    fn hold(&self, group: &[Row]) -> Held {
        let large = group.iter().filter(|row| row.byte_len >= HELD_MIN_BYTES).take(HELD_MAX);
        large.filter_map(|row| self.open(row).ok()).map(|(file, _)| file).collect()
    }

    /// Writes an output of the rows in `group`, which grows by those that go with them.
    fn write_output(
        &mut self,
        new: NewSegment,
        group: &mut Vec<Row>,
        part: &mut Part,
        collected: &Collected,
    ) -> Result<Row, Halt> {
        let dir = self.segments.dir().clone();
        let created = Output::create(&dir, new, self.previous.as_ref(), self.log_id);
        let mut output = created.map_err(Halt::Failed)?;
        let place = self.rows.iter().position(|row| group.first() == Some(row)).unwrap_or_default();
        let mut row = *group.first().expect("a group begins with a row");
        let mut last_at = Timestamp::MIN;
        loop {
            last_at = self.try_row(&row, |run| {
                let fate = Fate { last_at, ..run.fate(&row, collected) };
                run.feed(fate, &mut output)
            })?;
            *part = Part { bytes: output.len(), ..*part };
            let Some((next, its)) = self.next_part(place + group.len(), collected) else { break };
            if falls(&next, group) || !part.takes(&its, self.segment_bytes) {
                break;
            }
            *part = part.with(&its, output.len());
            group.push(next);
            row = next;
        }
        let written = output.finish(part.end).map_err(Halt::Failed)?;
        let ages = group.iter().filter_map(|row| self.age(row, collected));
        let compacted_at = part.tombstones_at.or(ages.max());
        Ok(match compacted_at {
            // By this run or, if it comes up to the middle of it, by one before.
            Some(_) => Row { compacted_at, ..written },
            // Its tombstones are counted when a run covers it whole.
            None => Row { tombstone_count: 0, ..written },
        })
    }

    /// The row at a place, as a part of an output.
    fn next_part(&self, nth: usize, collected: &Collected) -> Option<(Row, Part)> {
        let row = self.rows.get(nth).filter(|row| !self.is_aside(row) && collected.covers(row));
        row.map(|row| (*row, self.part(row, collected)))
    }

    fn part(&self, row: &Row, collected: &Collected) -> Part {
        let age = self.age(row, collected);
        let seen = collected.rows.get(&row.segment_id);
        let count = seen.map_or(row.tombstone_count, |seen| seen.tombstones);
        // What is dead goes, and takes its share of the bytes with it. A guess: an output may
        // become somewhat longer than a segment should be.
        let dead = seen.map_or(0, |seen| collected.map.count_dead(seen.numbers.clone()));
        let live = u128::from(row.record_count.saturating_sub(dead));
        let bytes = u128::from(row.byte_len) * live / u128::from(row.record_count.max(1));
        let keeps_tombstones = count > 0 && !self.drops_tombstones(row, collected);
        Part {
            base: row.base_offset,
            end: row.end_offset,
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
            tombstones_at: age.filter(|_| keeps_tombstones),
        }
    }

    /// Whether a rewrite leaves out any of the records.
    fn changes(&mut self, row: &Row, collected: &Collected) -> Result<bool, Halt> {
        let seen = collected.rows.get(&row.segment_id);
        let tombstones = seen.map_or(row.tombstone_count, |seen| seen.tombstones);
        if tombstones > 0 && self.drops_tombstones(row, collected) {
            return Ok(true);
        }
        if seen.is_some_and(|seen| collected.map.count_dead(seen.numbers.clone()) > 0) {
            return Ok(true);
        }
        if row.base_offset >= collected.from || collected.map.is_empty() {
            return Ok(false);
        }
        // Only the keys tell; up to the first that has a later record.
        self.report.segments_read += 1;
        let mut fate = self.fate(row, collected);
        // Deleting before an offset is nothing to rewrite a segment for.
        fate.start = Offset::ZERO;
        self.walk(row, |placed| fate.keeps(placed)).map(|all| !all)
    }

    /// Adds what stays of a segment to an output; gives when the last record of it was appended.
    fn feed(&mut self, mut fate: Fate<'_>, output: &mut Output) -> Result<Timestamp, Halt> {
        let row = fate.row;
        self.report.segments_read += 1;
        self.pace.will_read(row.byte_len);
        let (file, seed) = self.open(row)?;
        let mut frames = Frames::new(&file, seed, row);
        loop {
            let before = output.len();
            let Some((header, body)) = frames.next().map_err(Halt::Unreadable)? else { break };
            if let Err(why) = fate.feed(&header, body, output).map_err(refused)? {
                return Err(Halt::Unreadable(frames.malformed(why)));
            }
            self.pace.did_read(header.frame_len())?;
            self.pace.did_write(output.len() - before)?;
        }
        Ok(output.last_at().map_or(fate.last_at, |at| at.max(fate.last_at)))
    }

    /// Shows the records of a segment one by one, until one says no; tells whether none did.
    pub(super) fn walk(
        &mut self,
        row: &Row,
        mut each: impl FnMut(&Placed<'_>) -> bool,
    ) -> Result<bool, Halt> {
        self.pace.will_read(row.byte_len);
        let (file, seed) = self.open(row)?;
        let mut frames = Frames::new(&file, seed, row);
        loop {
            let Some((header, body)) = frames.next().map_err(Halt::Unreadable)? else {
                return Ok(true);
            };
            let mut malformed = None;
            for placed in Records::new(body, &header) {
                match placed {
                    Ok(placed) if placed.offset >= row.end_offset => break,
                    Ok(placed) if !each(&placed) => return Ok(false),
                    Ok(_) => {}
                    Err(why) => malformed = Some(why),
                }
            }
            if let Some(why) = malformed {
                return Err(Halt::Unreadable(frames.malformed(why)));
            }
            self.pace.did_read(header.frame_len())?;
        }
    }

    fn fate<'a>(&self, row: &'a Row, collected: &'a Collected) -> Fate<'a> {
        let number = collected.rows.get(&row.segment_id).map_or(0, |seen| seen.numbers.start);
        let drops_tombstones = self.drops_tombstones(row, collected);
        let last_at = Timestamp::MIN;
        Fate { collected, row, start: self.start, drops_tombstones, number, last_at }
    }

    /// When a run first covered the segment; `None` if this one does not either.
    fn age(&self, row: &Row, collected: &Collected) -> Option<Timestamp> {
        row.compacted_at.or(Some(self.now).filter(|_| collected.covers(row)))
    }

    /// Whether its tombstones have been seen for long enough, and nothing is left that they hide.
    fn drops_tombstones(&self, row: &Row, collected: &Collected) -> bool {
        let retention = match Bug::TombstoneGoesEarly.is_on() {
            true => Duration::ZERO,
            false => self.settings.tombstone_retention,
        };
        let is_due =
            self.age(row, collected).is_some_and(|at| plan::is_past(at, retention, self.now));
        let hides = !Bug::TombstoneGoesAboveAside.is_on()
            && self.report.left_aside.iter().any(|aside| aside.offsets.start < row.base_offset);
        is_due && collected.covers(row) && !hides
    }

    /// The error says what the output would have taken.
    fn say_what_it_needs(halt: Halt, group: &[Row]) -> Halt {
        match halt {
            Halt::Failed(error) if error.kind() == ErrorKind::StorageFull => {
                let bytes: u64 = group.iter().map(|row| row.byte_len).sum();
                let what = format!(
                    "compaction needs up to {bytes} bytes of free space for its next segment; \
                     what it has not done yet is as it was"
                );
                Halt::Failed(Error::new(ErrorKind::StorageFull, what).caused_by(error))
            }
            halt => halt,
        }
    }

    /// After a change that may have happened, nobody knows whether the manifest names the output.
    fn discard_unless_poisoned(&self, new: NewSegment, halt: Halt) -> Halt {
        match halt {
            Halt::Failed(error) if error.kind() == ErrorKind::Poisoned => Halt::Failed(error),
            halt => {
                output::remove(self.segments.dir(), new);
                halt
            }
        }
    }
}

/// A record that fits nowhere else stays where it is, with its segment.
fn refused(error: Error) -> Halt {
    match error.kind() {
        ErrorKind::TooLarge => Halt::Unreadable(error),
        _ => Halt::Failed(error),
    }
}

/// Whether the records of a row begin earlier than those in front of it end: one segment cannot
/// hold both.
fn falls(next: &Row, before: &[Row]) -> bool {
    next.record_count > 0 && next.first_appended_at < Row::last_record_at(before)
}
