//! Histories: appends at all levels, rolls, cuts, crashes and reopenings on a mean disk, against a
//! list.

use crate::input::Input;
use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::image::read;
use crate::support::medium::Crash;
use crate::support::record;
use crate::world::options;
use stratalog::{Durability, Log, Offset, Record, Result};

/// Two bytes an operation.
pub fn ops(data: &[u8]) {
    let mut input = Input(data);
    let mut run = Run::new();
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        run.step(input.byte(), input.byte());
    }
    run.restart(Some(Crash::DropUnsynced));
}

/// A log, and what may be in it.
struct Run {
    machine: FaultyStorage,
    log: Log,
    /// Each with whether the log may end behind it.
    appended: Vec<(Record<'static>, bool)>,
    written: usize,
    synced: usize,
    /// The offset of the first one.
    start: u64,
    /// Where the log may start as well: a deletion up to there did not return.
    perhaps: Option<u64>,
    /// How many records were ever appended.
    number: u64,
}

impl Run {
    fn new() -> Self {
        let machine = FaultyStorage::memory();
        let log = options(machine.process()).open(DIR).unwrap();
        let (written, synced, start, number) = (0, 0, 0, 0);
        Self { machine, log, appended: Vec::new(), written, synced, start, perhaps: None, number }
    }

    fn step(&mut self, op: u8, number: u8) {
        let seed = u64::from(number);
        let done = match op % 20 {
            0..3 => self.append(level(op), 1, number),
            3..6 => self.append(level(op), 1 + usize::from(number) % 9, number),
            6 => self.log.sync().map(|()| self.reached(Durability::Synced)),
            7 => self.log.roll().map(drop),
            8 => self.close(),
            9 => return self.restart(None),
            10 => return self.restart(Some(Crash::DropUnsynced)),
            11 => return self.restart(Some(Crash::Prefix(seed))),
            12..14 => return self.restart(Some(Crash::Random(seed))),
            14..16 => self.truncate(number),
            16 => self.delete(number, 0),
            // Perhaps behind the end.
            17 => self.delete(number, 4),
            // The machine stops in the middle of what comes, and then the power is cut.
            _ => return self.machine.stop_after(seed % 40),
        };
        if done.is_err() {
            self.restart(Some(Crash::Random(seed)));
        }
    }

    fn append(&mut self, level: Durability, count: usize, number: u8) -> Result<()> {
        let begin = self.end();
        let first = self.number;
        self.number += count as u64;
        let unit = (first..self.number).map(|nth| record(nth * 256 + u64::from(number)));
        let unit: Vec<_> = unit.collect();
        self.appended.extend(unit.iter().cloned().map(|record| (record, false)));
        self.appended.last_mut().expect("a record was added").1 = true;
        let range = self.log.append_batch_with(level, unit)?;
        assert_eq!(range.start.get(), begin);
        self.reached(level);
        Ok(())
    }

    fn end(&self) -> u64 {
        self.start + self.appended.len() as u64
    }

    /// Removes the records behind one of them.
    fn truncate(&mut self, number: u8) -> Result<()> {
        let stay = usize::from(number) * self.appended.len() / 256;
        if let Some(last) = stay.checked_sub(1) {
            self.appended[last].1 = true;
        }
        (self.written, self.synced) = (self.written.min(stay), self.synced.min(stay));
        self.log.truncate_to(Offset::from(self.start + stay as u64))?;
        if stay < self.appended.len() {
            self.appended.truncate(stay);
            self.reached(Durability::Synced);
        }
        Ok(())
    }

    /// Removes the records before one of them, or before one that may come.
    fn delete(&mut self, number: u8, beyond: u64) -> Result<()> {
        let to = self.start + u64::from(number) * (self.appended.len() as u64 + beyond) / 256;
        self.perhaps = Some(to);
        self.log.delete_before(Offset::from(to))?;
        self.starts_at(to);
        Ok(())
    }

    /// The list is of what lies behind there.
    fn starts_at(&mut self, start: u64) {
        let gone = usize::try_from(start - self.start).unwrap().min(self.appended.len());
        self.appended.drain(..gone);
        self.written = self.written.saturating_sub(gone);
        self.synced = self.synced.saturating_sub(gone);
        (self.start, self.perhaps) = (start, None);
    }

    fn close(&mut self) -> Result<()> {
        self.log.close()?;
        self.reached(Durability::Synced);
        self.log = options(self.machine.process()).open(DIR)?;
        self.found()
    }

    fn reached(&mut self, level: Durability) {
        let all = self.appended.len();
        if level >= Durability::Written {
            self.written = all;
        }
        if level >= Durability::Synced {
            self.synced = all;
        }
    }

    /// Kills the process, cuts the power if told to, and opens what is left.
    fn restart(&mut self, power: Option<Crash>) {
        match power {
            None => self.machine.kill(),
            Some(how) => self.machine = self.machine.crash(how),
        }
        self.log = options(self.machine.process()).open(DIR).expect("a crash explains it all");
        let start = self.log.start_offset().get();
        assert!(start == self.start || Some(start) == self.perhaps, "it starts at {start}");
        self.starts_at(start);
        let sure = if power.is_some() { self.synced } else { self.written };
        let end = usize::try_from(self.log.end_offset().get() - start).unwrap();
        assert!((sure..=self.appended.len()).contains(&end), "{end} records, {sure} were sure");
        assert!(end == 0 || self.appended[end - 1].1, "a part of a unit");
        self.appended.truncate(end);
        self.found().expect("a log that was just opened is readable");
    }

    /// What an open log shows is durable, and what was appended.
    fn found(&mut self) -> Result<()> {
        self.reached(Durability::Synced);
        let found = read(&self.log)?;
        assert!(found.iter().eq(self.appended.iter().map(|(record, _)| record)), "other records");
        Ok(())
    }
}

fn level(op: u8) -> Durability {
    [Durability::Buffered, Durability::Written, Durability::Synced][usize::from(op) % 3]
}
