//! What programs append, and what becomes of it.

use crate::explore::oracle::Fate;
use crate::explore::oracle::Item;
use crate::explore::oracle::Row;
use crate::explore::run::Broken;
use crate::explore::run::Run;
use crate::explore::run::SimClock;
use crate::support::image::DIR;
use crate::support::image::tiny;
use std::ops::Range;
use std::sync::Arc;
use stratalog::Durability::{self, Synced, Written};
use stratalog::storage::MemoryStorage;
use stratalog::{Error, Log, Offset};

impl Run {
    pub(super) fn append(
        &mut self,
        log: &Log,
        level: Durability,
        lens: &[usize],
    ) -> Result<(), Broken> {
        let rows = self.rows(lens);
        let result = log.append_with(level, rows[0].item.record());
        self.appended(level, &rows, result.map(|offset| offset..offset + 1))
    }

    pub(super) fn append_batch(
        &mut self,
        log: &Log,
        level: Durability,
        lens: &[usize],
    ) -> Result<(), Broken> {
        let rows = self.rows(lens);
        let result = log.append_batch_with(level, rows.iter().map(|row| row.item.record()));
        self.appended(level, &rows, result)
    }

    pub(super) fn append_at(
        &mut self,
        log: &Log,
        level: Durability,
        lens: &[usize],
    ) -> Result<(), Broken> {
        let end = Offset::from(self.world.end());
        let rows = self.rows(lens);
        let result = log.append_at_with(level, end, rows.iter().map(|row| row.item.record()));
        self.appended(level, &rows, result)
    }

    /// Each unit comes as a frame. What is refused may leave whole ones.
    pub(super) fn append_frames(
        &mut self,
        log: &Log,
        level: Durability,
        units: &[&[usize]],
    ) -> Result<(), Broken> {
        let before = self.world.rows.len();
        let end = Offset::from(self.world.end());
        let rows = self.rows_of(units);
        let bytes = frames(&rows, end, self.past.latest);
        let was_poisoned = self.is_poisoned;
        let result = log.append_frames_with(level, &bytes);
        let is_refused = result.as_ref().is_err_and(|error| error.offset().is_none());
        self.appended(level, &rows, result)?;
        if is_refused && self.is_poisoned == was_poisoned && log.end_offset() > end {
            let kept = usize::try_from(log.end_offset() - end).unwrap();
            self.world.push(rows.into_iter().take(kept));
            self.note();
            if !self.world.rows.last().is_some_and(|row| row.ends_unit) {
                return Err(format!("{kept} records behind {before} are a part of a frame"));
            }
        }
        Ok(())
    }

    /// New rows, which may be in the log from now on.
    fn rows(&mut self, lens: &[usize]) -> Vec<Row> {
        self.rows_of(&[lens])
    }

    fn rows_of(&mut self, units: &[&[usize]]) -> Vec<Row> {
        let now = self.clock.tick(self.past.next);
        let latest = self.past.latest.max(now);
        self.past.latest = latest;
        let last = self.world.last_at();
        let mut rows = Vec::new();
        for lens in units {
            for (nth, len) in lens.iter().enumerate() {
                let item = Arc::new(Item::new(self.past.next, *len));
                self.past.next += 1;
                let (at, ends_unit) = ((now.max(last), latest), nth + 1 == lens.len());
                rows.push(Row { item, at, ends_unit, fate: Fate::There });
            }
        }
        self.world.push(rows.iter().cloned());
        self.note();
        rows
    }

    /// What became of an append.
    fn appended(
        &mut self,
        level: Durability,
        rows: &[Row],
        result: Result<Range<Offset>, Error>,
    ) -> Result<(), Broken> {
        let before = self.world.rows.len() - rows.len();
        let was_poisoned = self.is_poisoned;
        match result {
            Ok(_) if was_poisoned => return Err("a poisoned log takes a record".into()),
            Ok(range) => {
                let expected = self.world.start + before as u64..self.world.end();
                if range != (Offset::from(expected.start)..Offset::from(expected.end)) {
                    return Err(format!("appended at {range:?}, not at {expected:?}"));
                }
                if level >= Written {
                    self.world.reached_written();
                }
                if level >= Synced {
                    self.world.reached_synced();
                }
            }
            Err(error) => {
                self.failed(&error)?;
                let is_open = self.is_poisoned && !was_poisoned;
                if !is_open && error.offset().is_none() {
                    self.world.take_back(before);
                }
            }
        }
        self.note();
        Ok(())
    }
}

/// The rows as another log ships them that is at offset `end` and at the time `now`.
fn frames(rows: &[Row], end: Offset, now: i64) -> Vec<u8> {
    let clock = SimClock::at(now);
    let options = tiny(Arc::new(MemoryStorage::new())).segment_bytes(4096);
    let leader = options.clock(Arc::new(clock)).open(DIR).unwrap();
    leader.delete_before(end).unwrap();
    for unit in rows.split_inclusive(|row| row.ends_unit) {
        leader.append_batch(unit.iter().map(|row| row.item.record())).unwrap();
    }
    leader.frames(end, 1 << 20).unwrap().into_bytes()
}
