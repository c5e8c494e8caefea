//! Histories: appends at all levels, rolls, crashes and reopenings on a mean disk, against a list.

use crate::input::Input;
use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::image::read;
use crate::support::medium::Crash;
use crate::support::record;
use crate::world::options;
use stratalog::{Durability, Log, Record, Result};

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
    /// Each with whether a unit ends with it.
    appended: Vec<(Record<'static>, bool)>,
    written: usize,
    synced: usize,
}

impl Run {
    fn new() -> Self {
        let machine = FaultyStorage::memory();
        let log = options(machine.process()).open(DIR).unwrap();
        Self { machine, log, appended: Vec::new(), written: 0, synced: 0 }
    }

    fn step(&mut self, op: u8, number: u8) {
        let seed = u64::from(number);
        let done = match op % 16 {
            0..3 => self.append(level(op), 1, number),
            3..6 => self.append(level(op), 1 + usize::from(number) % 9, number),
            6 => self.log.sync().map(|()| self.reached(Durability::Synced)),
            7 => self.log.roll().map(drop),
            8 => self.close(),
            9 => return self.restart(None),
            10 => return self.restart(Some(Crash::DropUnsynced)),
            11 => return self.restart(Some(Crash::Prefix(seed))),
            12..14 => return self.restart(Some(Crash::Random(seed))),
            // The machine stops in the middle of what comes, and then the power is cut.
            _ => return self.machine.stop_after(seed % 40),
        };
        if done.is_err() {
            self.restart(Some(Crash::Random(seed)));
        }
    }

    fn append(&mut self, level: Durability, count: usize, number: u8) -> Result<()> {
        let begin = self.appended.len();
        let unit = (0..count).map(|nth| record((begin + nth) as u64 * 256 + u64::from(number)));
        let unit: Vec<_> = unit.collect();
        self.appended.extend(unit.iter().cloned().map(|record| (record, false)));
        self.appended.last_mut().expect("a record was added").1 = true;
        let range = self.log.append_batch_with(level, unit)?;
        assert_eq!(range.start.get(), begin as u64);
        self.reached(level);
        Ok(())
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
        let sure = if power.is_some() { self.synced } else { self.written };
        self.log = options(self.machine.process()).open(DIR).expect("a crash explains it all");
        let end = usize::try_from(self.log.end_offset().get()).unwrap();
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
