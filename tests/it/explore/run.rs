//! A program under way: what it does to a log, and what the log may be at each moment.

use crate::explore::consumer::Names;
use crate::explore::elsewhere;
use crate::explore::oracle::Expected;
use crate::explore::oracle::Kind;
use crate::explore::oracle::Seen;
use crate::explore::oracle::Spot;
use crate::explore::oracle::World;
use crate::explore::program;
use crate::explore::program::Op;
use crate::support::fault::Fault;
use crate::support::fault::Op as Call;
use crate::support::faulty::FaultyStorage;
use crate::support::faulty::Wanted;
use crate::support::image::DIR;
use crate::support::medium::Medium;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use stratalog::Durability::Synced;
use stratalog::storage::Clock;
use stratalog::{Error, ErrorKind, Log, Offset, Seek, Timestamp};

/// More calls to the storage than any operation on these small logs makes.
const STEPS_MAX: u64 = 50_000;

/// A promise was broken: which, and how.
pub(super) type Broken = String;

/// What a later run has to know of those before it, on the same disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    /// The number of the next item: none is used twice.
    pub(super) next: u64,
    /// The time, and the latest there has been.
    now: i64,
    pub(super) latest: i64,
}

impl Past {
    pub(super) const NONE: Self = Self { next: 0, now: 1_000_000, latest: 1_000_000 };
}

/// What is wrong with the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    Fair,
    /// A call fails, once.
    Once,
    /// A call fails, and those behind it.
    Sticky,
    /// The disk may be full, and that is all: nothing is ever poisoned.
    Full,
}

/// How a log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Along,
    /// Forward, back, and record by record.
    EveryWay,
}

/// A program under way on a machine.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) machine: FaultyStorage,
    log: Option<Log>,
    options: u64,
    pub(super) clock: Arc<SimClock>,
    pub(super) past: Past,
    pub(super) world: World,
    /// What the log may be, too: it was poisoned by an operation that would have made it that.
    pub(super) other: Option<World>,
    /// What may be found when the next process opens the log; `None` while it is open.
    expected: Option<Expected>,
    /// What a crash may leave, from when on, counted in calls with an effect.
    events: Vec<(u64, Expected)>,
    pub(super) is_poisoned: bool,
    pub(super) names: Names,
    /// How often a fault had struck when the operation began.
    strikes: u64,
    pub(super) weather: Weather,
    pub(super) reading: Reading,
}

impl Run {
    /// On this disk, which may hold what is expected. The log is not open yet.
    pub(super) fn on(medium: Medium, expected: Expected, options: u64, past: Past) -> Self {
        let weather = if medium.free.is_some() { Weather::Full } else { Weather::Fair };
        let machine = FaultyStorage::with(medium);
        machine.seed(past.next + 1);
        Self {
            machine,
            log: None,
            options,
            clock: Arc::new(SimClock { now: AtomicI64::new(past.now), ..SimClock::default() }),
            past,
            world: World::default(),
            other: None,
            events: vec![(0, expected.clone())],
            expected: Some(expected),
            is_poisoned: false,
            names: Names::Sure,
            strikes: 0,
            weather,
            reading: Reading::Along,
        }
    }

    pub(super) fn record(&self, wanted: Wanted) {
        self.machine.record(wanted, STEPS_MAX);
    }

    pub(super) fn past(&self) -> Past {
        Past { now: self.clock.now.load(Ordering::Relaxed), ..self.past }
    }

    /// What a crash may leave behind so many calls with an effect.
    pub(super) fn expected_at(&self, effects: u64) -> &Expected {
        let before = self.events.iter().rev().find(|(from, _)| *from <= effects);
        &before.expect("the first event is at 0").1
    }

    /// Opens the log, unless it is open, and checks what it shows.
    pub(super) fn open(&mut self) -> Result<(), Broken> {
        let Some(expected) = self.expected.take() else { return Ok(()) };
        let elsewhere = match self.reading {
            Reading::EveryWay if !self.may_fail() => elsewhere::shown(self.machine.medium()),
            _ => Vec::new(),
        };
        let clock = Arc::clone(&self.clock);
        let options = program::options(self.options, self.machine.process(), clock);
        let log = match options.open(DIR) {
            Ok(log) => log,
            Err(error) if self.may_fail() && error.kind() != ErrorKind::Corrupt => {
                self.expected = Some(expected);
                return Ok(());
            }
            // On a disk that was full when it crashed, with what was reserved lost.
            Err(error)
                if self.weather == Weather::Full && error.kind() == ErrorKind::StorageFull =>
            {
                self.clear_up();
                self.expected = Some(expected);
                return self.open();
            }
            Err(error) => return Err(format!("it does not open: {error}; expected {expected}")),
        };
        elsewhere::confirm(&elsewhere, &log)?;
        let seen = self.read(&log, &expected);
        let seen = match seen {
            Err(_) if self.may_fail() => {
                self.expected = Some(expected);
                return Ok(());
            }
            seen => seen?,
        };
        (self.world, self.other) = (expected.check(&seen)?, None);
        self.is_poisoned = false;
        self.names = Names::of(&self.machine.medium());
        self.check_consumer(&log)?;
        if expected.is_closed() && !self.may_fail() && !log.recovery().is_clean() {
            return Err(format!("it was closed, and yet: {}", log.recovery()));
        }
        self.log = Some(log);
        self.note();
        Ok(())
    }

    /// Kills the process.
    pub(super) fn kill(&mut self) {
        self.machine.kill();
        self.log = None;
        if self.expected.is_none() {
            self.expected = Some(self.leave().after(Kind::Kill));
        }
    }

    /// Does an operation and checks what comes of it.
    pub(super) fn step(&mut self, op: Op) -> Result<(), Broken> {
        self.strikes = self.machine.strikes();
        self.open()?;
        let Some(log) = self.log.take() else { return Ok(()) };
        if !matches!(op, Op::Sync | Op::Wait | Op::Conflict) {
            self.world.is_closed = false;
            self.note();
        }
        let small = 10 + usize::try_from(self.past.next % 5).unwrap();
        match op {
            Op::Small(level) => self.append(&log, level, &[small])?,
            Op::Large(level) => self.append(&log, level, &[300])?,
            Op::Batch(level) => self.append_batch(&log, level, &[small, 0, 30])?,
            Op::LargeBatch(level) => self.append_batch(&log, level, &[90; 4])?,
            Op::At(level) => self.append_at(&log, level, &[small, 5])?,
            Op::Frames(level) => self.append_frames(&log, level, &[&[small, 5], &[30]])?,
            Op::Conflict => {
                let wrong = Offset::from(self.world.end() + 1);
                match log.append_at(wrong, ["never"]) {
                    Err(error) if error.kind() == ErrorKind::Conflict => {}
                    Err(error) => self.failed(&error)?,
                    Ok(_) => return Err("an append at the wrong end was taken".into()),
                }
            }
            Op::Sync => self.acknowledge(log.sync())?,
            Op::Wait => {
                if let Some(last) = self.world.end().checked_sub(1) {
                    match log.wait(Offset::from(last), Synced) {
                        // It was refused before the log was given up, and is not there.
                        Err(error) if self.is_poisoned && error.kind() == ErrorKind::OutOfRange => {
                        }
                        result => self.acknowledge(result)?,
                    }
                }
            }
            Op::Roll => self.acknowledge(log.roll())?,
            Op::Truncate(_) | Op::Delete(_) => self.cut(&log, op)?,
            Op::Commit | Op::Rewind | Op::Remove => self.consume(&log, op)?,
            Op::Compact => self.compact(&log)?,
            Op::Maintain => {
                // Which compacts if it thinks that it should.
                self.world = self.world.compacting(program::tombstones(self.options));
                self.note();
                self.acknowledge(log.maintain().map(drop))?;
            }
            Op::Close => return self.close(log),
            Op::Drop => return self.drop(log),
            Op::Kill => {
                self.log = Some(log);
                self.kill();
                return self.open();
            }
            Op::FailSync | Op::FailSyncClose => {
                self.log = Some(log);
                return self.fail_sync(op);
            }
        }
        // Its caller was told that its write was refused before the sync of others' records failed.
        if self.may_fail() && !self.is_poisoned {
            let last_error = log.stats().last_error;
            self.is_poisoned = last_error.is_some_and(|it| it.kind() == ErrorKind::Poisoned);
        }
        self.check_open(&log)?;
        self.log = Some(log);
        Ok(())
    }

    /// What became of a call that makes all that there is durable.
    fn acknowledge(&mut self, result: Result<(), Error>) -> Result<(), Broken> {
        match result {
            // There may have been nothing to do.
            Ok(()) if self.is_poisoned => {}
            Ok(()) => self.world.reached_synced(),
            Err(error) => self.failed(&error)?,
        }
        self.note();
        Ok(())
    }

    /// Removes records; while that is under way, they may be there or not.
    fn cut(&mut self, log: &Log, op: Op) -> Result<(), Broken> {
        let was_poisoned = self.is_poisoned;
        let (result, cut) = match op {
            Op::Truncate(place) => {
                let end = place.of(&self.world);
                self.world.may_be_taken_back_to(end);
                let cut = self.note_both(self.world.truncated(end));
                (log.truncate_to(Offset::from(end)), cut)
            }
            Op::Delete(place) => {
                let start = place.of(&self.world);
                let cut = self.note_both(self.world.deleted(start));
                (log.delete_before(Offset::from(start)), cut)
            }
            _ => return Err(format!("{op:?} removes nothing")),
        };
        match result {
            Ok(()) if was_poisoned => return Err("a poisoned log is cut".into()),
            Ok(()) => self.world = cut,
            Err(error) => {
                self.failed_in(log, &error)?;
                // Only where it is poisoned by that nobody knows whether it took place.
                if self.is_poisoned && !was_poisoned {
                    self.other = Some(cut);
                }
            }
        }
        self.note();
        Ok(())
    }

    /// Seals all there is, and compacts it; meanwhile each record that goes may have gone.
    fn compact(&mut self, log: &Log) -> Result<(), Broken> {
        let rolled = log.roll();
        let goes_on = rolled.is_ok() && !self.is_poisoned;
        self.acknowledge(rolled)?;
        if !goes_on {
            return Ok(());
        }
        let tombstones = program::tombstones(self.options);
        let compacted = self.world.compacted(tombstones);
        self.world = self.world.compacting(tombstones);
        self.note();
        match log.compact() {
            Ok(report) if report.left_aside().is_empty() && !report.more() => {
                self.world = compacted;
            }
            // A segment could not be read.
            Ok(_) if self.may_fail() => {}
            Ok(report) => return Err(format!("nothing was wrong, and yet: {report}")),
            Err(error) => self.failed(&error)?,
        }
        self.note();
        Ok(())
    }

    fn close(&mut self, log: Log) -> Result<(), Broken> {
        let closed = log.close();
        match closed {
            Ok(()) if self.is_poisoned => return Err("a poisoned log closes well".into()),
            Ok(()) => {
                self.world.reached_synced();
                self.world.is_closed = true;
            }
            Err(error) => self.failed(&error)?,
        }
        self.note();
        self.reopen(log)
    }

    fn drop(&mut self, log: Log) -> Result<(), Broken> {
        drop(log);
        if !self.may_fail() && !self.is_poisoned {
            self.world.reached_synced();
            self.world.is_closed = true;
        }
        self.note();
        self.expected = Some(self.leave());
        self.open()
    }

    fn fail_sync(&mut self, op: Op) -> Result<(), Broken> {
        self.machine.inject(Fault::new(Call::Sync, io::ErrorKind::Other).on(".log"));
        let (struck, synced) = (self.machine.strikes(), self.world.synced);
        self.step(Op::Small(Synced))?;
        if self.machine.strikes() == struck && self.world.synced > synced {
            return Err("a synced append syncs no segment".into());
        }
        match (op, self.log.take()) {
            (Op::FailSyncClose, Some(log)) => {
                let closed = log.close();
                if closed.is_ok() && self.is_poisoned {
                    return Err("a poisoned log closes well".into());
                }
                drop(log);
                self.expected = Some(self.leave());
            }
            (_, log) => {
                self.log = log;
                self.kill();
            }
        }
        self.machine.heal();
        self.strikes = self.machine.strikes();
        self.open()
    }

    /// An error is in order only when something was made to fail.
    pub(super) fn failed(&mut self, error: &Error) -> Result<(), Broken> {
        if !self.may_fail() && !self.is_poisoned {
            return Err(format!("nothing was wrong, and yet: {error}"));
        }
        match error.kind() {
            ErrorKind::Poisoned | ErrorKind::Io if self.weather == Weather::Full => {
                return Err(format!("the disk was full, and yet: {error}"));
            }
            ErrorKind::Poisoned => self.is_poisoned = true,
            _ if self.is_poisoned => {
                return Err(format!("a poisoned log says something else: {error}"));
            }
            ErrorKind::Io | ErrorKind::StorageFull => {}
            _ => return Err(format!("an error of the wrong kind: {error:?}")),
        }
        Ok(())
    }

    /// Whether a call of this operation was made to fail.
    pub(super) fn may_fail(&self) -> bool {
        let strikes = self.machine.strikes();
        let goes_on = matches!(self.weather, Weather::Sticky | Weather::Full);
        strikes > self.strikes || (goes_on && strikes > 0)
    }

    /// Nothing fails any more.
    pub(super) fn clear_up(&mut self) {
        self.machine.heal();
        self.machine.set_free(None);
        self.weather = Weather::Fair;
    }

    /// Nothing fails any more; what is poisoned is dropped and opened again in the same process.
    pub(super) fn heal(&mut self) -> Result<(), Broken> {
        self.clear_up();
        self.strikes = self.machine.strikes();
        match self.log.take() {
            Some(log) if self.is_poisoned => self.reopen(log),
            log => {
                self.log = log;
                self.open()
            }
        }
    }

    /// Lets go of a log that closes with an error, or told it before, and opens it again.
    fn reopen(&mut self, log: Log) -> Result<(), Broken> {
        drop(log);
        self.expected = Some(self.leave());
        self.open()
    }

    /// What the log shows while it is open, and the marks it states.
    fn check_open(&self, log: &Log) -> Result<(), Broken> {
        let world = &self.world;
        let marks = (log.durable_offset(), log.written_offset(), log.end_offset());
        let at = |rows: usize| Offset::from(world.start + rows as u64);
        if marks.0 < at(world.synced) || marks.1 < at(world.written) || marks.1 < marks.0 {
            return Err(format!("marks {marks:?}; expected {}", Expected::new(world.clone())));
        }
        if !self.is_poisoned && marks.2 != Offset::from(world.end()) {
            return Err(format!("it ends at {}, not at {}", marks.2, world.end()));
        }
        let expected = Expected::new(World { written: 0, ..world.clone() });
        let seen = match self.read(log, &expected) {
            // A read may be made to fail, and the next one is as good as ever.
            Err(_) if self.may_fail() => return Ok(()),
            seen => seen?,
        };
        if log.start_offset() + seen.len() as u64 != log.high_watermark() {
            return Err(format!("{} records below {}", seen.len(), log.high_watermark()));
        }
        expected.check(&seen).map(drop)
    }

    /// All that a cursor shows.
    fn read(&self, log: &Log, expected: &Expected) -> Result<Seen, Broken> {
        let wrong = |error| format!("it cannot be read: {error}");
        let mut seen = Seen::from(u64::from(log.start_offset()));
        let mut cursor = log.cursor(Seek::Start).map_err(wrong)?;
        while let Some(entry) = cursor.next().map_err(wrong)? {
            if u64::from(entry.offset()) < seen.start + seen.len() as u64 {
                return Err(format!("offset {} behind {} offsets", entry.offset(), seen.len()));
            }
            seen.skip_to(entry.offset().into());
            seen.push(&entry, expected);
        }
        seen.skip_to(log.high_watermark().into());
        if self.reading == Reading::EveryWay {
            for nth in (0..seen.len()).rev() {
                let offset = Offset::from(seen.start + nth as u64);
                if !seen.has(nth) {
                    if log.get(offset).map_err(wrong)?.is_some() {
                        return Err(format!("a record is got at {offset}, where none is read"));
                    }
                    continue;
                }
                let entry = cursor.prev().map_err(wrong)?.ok_or("it ends before its start")?;
                same(&seen, &Seen::at(nth, &entry, expected))?;
                if entry.offset() != offset {
                    return Err(format!("{} is read backwards, not {offset}", entry.offset()));
                }
                let entry = log.get(offset).map_err(wrong)?.ok_or("a record is not got")?;
                same(&seen, &Seen::at(nth, &entry.as_entry(), expected))?;
            }
        }
        Ok(seen)
    }

    pub(super) fn note(&mut self) {
        let expected = Expected::either(self.world.clone(), self.other.clone());
        self.events.push((self.machine.effects(), expected));
    }

    /// From now on the log may be another one, too, unless it is poisoned.
    fn note_both(&mut self, other: World) -> World {
        if !self.is_poisoned {
            let expected = Expected::either(self.world.clone(), Some(other.clone()));
            self.events.push((self.machine.effects(), expected));
        }
        other
    }

    /// What the log may be that is let go of.
    fn leave(&mut self) -> Expected {
        Expected::either(mem::take(&mut self.world), self.other.take())
    }
}

fn same(seen: &Seen, other: &Spot) -> Result<(), Broken> {
    if seen.is_at(other) { Ok(()) } else { Err(format!("{other:?} is not in {seen:?}")) }
}

/// A clock that stands still but for the ticks it is given, now and then backwards.
#[derive(Debug, Default)]
pub(super) struct SimClock {
    now: AtomicI64,
    monotonic: AtomicU64,
}

impl SimClock {
    pub(super) fn at(now: i64) -> Self {
        Self { now: AtomicI64::new(now), ..Self::default() }
    }

    pub(super) fn tick(&self, nth: u64) -> i64 {
        let by = if nth % 4 == 3 { -7 } else { 10 };
        self.now.fetch_add(by, Ordering::Relaxed) + by
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.monotonic.fetch_add(1, Ordering::Relaxed))
    }
}
