//! Two passes: a scripted program runs once to count the calls that have an effect, then the
//! machine stops at each of them, and what the medium then holds must be a log that keeps its
//! promises.

use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::image::read_rows;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use crate::support::model::Row;
use std::cell::Cell;
use std::fmt;
use stratalog::Durability::{self, Buffered, Synced, Written};
use stratalog::{Log, Record, Result};

/// A line of the script.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A record with a value of so many bytes.
    Append(Durability, usize),
    /// So many records with small values, as one unit.
    Batch(Durability, usize),
    Roll,
    Sync,
    Close,
}

use Step::{Append, Batch, Close, Roll, Sync};

/// Levels one by one and mixed, batches within and larger than a segment, rolls by size and by
/// hand, and logs closed and opened again.
const MIXED: &[Step] = &[
    Append(Synced, 10),
    Append(Buffered, 10),
    Append(Buffered, 90),
    Append(Written, 30),
    Batch(Synced, 5),
    Append(Buffered, 200),
    Batch(Buffered, 3),
    Append(Written, 300),
    Batch(Written, 20),
    Sync,
    Append(Synced, 450),
    Roll,
    Append(Buffered, 10),
    Close,
    Append(Written, 10),
    Append(Synced, 10),
    Batch(Buffered, 90),
    Close,
    Append(Buffered, 700),
    Append(Buffered, 10),
    Append(Synced, 20),
    Close,
];

/// What a write-ahead log does.
const SYNCED: &[Step] = &[
    Append(Synced, 100),
    Batch(Synced, 8),
    Append(Synced, 200),
    Append(Synced, 1),
    Append(Synced, 600),
    Close,
    Append(Synced, 100),
    Append(Synced, 400),
];

/// Several segments that ended before anything was synced, so that the manifest calls them written.
const UNSYNCED: &[Step] = &[
    Append(Written, 300),
    Append(Written, 300),
    Append(Written, 100),
    Append(Written, 300),
    Append(Buffered, 300),
    Batch(Written, 12),
    Append(Written, 50),
    Sync,
    Append(Written, 50),
    Append(Written, 300),
];

#[test]
fn a_log_of_all_levels_survives_a_crash_at_every_call() {
    crash_everywhere(MIXED);
}

#[test]
fn a_synced_log_survives_a_crash_at_every_call() {
    crash_everywhere(SYNCED);
}

#[test]
fn segments_that_were_never_synced_survive_a_crash_at_every_call() {
    crash_everywhere(UNSYNCED);
}

fn crash_everywhere(script: &[Step]) {
    let whole = FaultyStorage::memory();
    run(&whole, script).1.unwrap();
    let calls = whole.effects();
    assert!(calls > 50, "the script does too little: {calls} calls");
    for call in 0..=calls {
        let machine = FaultyStorage::memory();
        machine.stop_after(call);
        let (history, _) = run(&machine, script);
        let story = Story { call, history: &history, crashes: Cell::new(Crash::KeepAll) };
        story.kill_and_cut(&machine);
        for seed in 0..4 {
            story.cut(&machine, Crash::Random(call * 4 + seed));
        }
        story.cut(&machine, Crash::Prefix(call));
        story.cut(&machine, Crash::Prefix(call + 1000));
        story.cut(&machine, Crash::KeepAll);
        story.cut(&machine, Crash::DropUnsynced);
        if call % 4 == 0 {
            story.cut_while_recovering(&machine, Crash::Random(call));
            story.cut_while_recovering(&machine, Crash::KeepAll);
        }
    }
}

/// What the program did until the machine stopped.
#[derive(Debug, Default)]
struct History {
    /// Every record that it began to append.
    records: Vec<Record<'static>>,
    /// The ends of what must be whole.
    units: Vec<usize>,
    /// How many records were acknowledged as synced, and as written.
    synced: usize,
    written: usize,
}

impl History {
    fn begin(&mut self, step: &Step) -> Vec<Record<'static>> {
        let first = self.records.len();
        let added: Vec<_> = match *step {
            Append(_, bytes) => vec![record(first, bytes)],
            Batch(_, count) => (first..first + count).map(|nth| record(nth, nth % 9)).collect(),
            _ => Vec::new(),
        };
        if !added.is_empty() {
            self.records.extend(added.iter().cloned());
            self.units.push(self.records.len());
        }
        added
    }

    fn reached(&mut self, level: Durability) {
        if level >= Written {
            self.written = self.records.len();
        }
        if level >= Synced {
            self.synced = self.records.len();
        }
    }
}

fn record(nth: usize, bytes: usize) -> Record<'static> {
    let value = Record::new(vec![b'a' + u8::try_from(nth % 26).unwrap(); bytes]);
    if nth.is_multiple_of(3) { value } else { value.key(nth.to_string()) }
}

fn run(machine: &FaultyStorage, script: &[Step]) -> (History, Result<()>) {
    let mut history = History::default();
    let result = run_until_it_stops(machine, script, &mut history);
    // The program is dead, and what it still does while it is dropped has no effect.
    machine.kill();
    (history, result)
}

fn run_until_it_stops(
    machine: &FaultyStorage,
    script: &[Step],
    history: &mut History,
) -> Result<()> {
    let mut log = open(machine)?;
    for step in script {
        let added = history.begin(step);
        match *step {
            Append(level, _) => {
                log.append_with(level, added[0].clone())?;
                history.reached(level);
            }
            Batch(level, _) => {
                log.append_batch_with(level, added)?;
                history.reached(level);
            }
            Roll => {
                log.roll()?;
                history.reached(Synced);
            }
            Sync => {
                log.sync()?;
                history.reached(Synced);
            }
            Close => {
                log.close()?;
                history.reached(Synced);
                log = open(machine)?;
            }
        }
    }
    // Whatever is dropped behind this must not close the log.
    machine.kill();
    Ok(())
}

fn open(machine: &FaultyStorage) -> Result<Log> {
    tiny(machine.process()).open(DIR)
}

/// A program that was stopped before a call.
struct Story<'a> {
    call: u64,
    history: &'a History,
    crashes: Cell<Crash>,
}

impl fmt::Debug for Story<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let History { records, synced, written, .. } = self.history;
        let (call, crash, count) = (self.call, self.crashes.get(), records.len());
        write!(f, "stopped before call {call}, {crash:?}: of {count} records {written} were ")?;
        write!(f, "written and {synced} synced")
    }
}

impl Story<'_> {
    /// The power is cut; then the log keeps its promises, and so it does after the next time.
    fn cut(&self, machine: &FaultyStorage, how: Crash) {
        self.crashes.set(how);
        let acknowledged = match how {
            Crash::KeepAll => self.history.written,
            _ => self.history.synced,
        };
        self.go_on(&machine.crash(how), acknowledged);
    }

    /// Only the process dies; what the next one serves survives the power cut that follows.
    fn kill_and_cut(&self, machine: &FaultyStorage) {
        let copy = machine.crash(Crash::KeepAll);
        let log = open(&copy).unwrap();
        let served = self.check(&log, self.history.written);
        let after = copy.crash(Crash::DropUnsynced);
        drop(log);
        assert_eq!(self.shown(&after), served, "{self:?}: not durable when it was served");
    }

    /// The power is cut again at each call of the recovery.
    fn cut_while_recovering(&self, machine: &FaultyStorage, how: Crash) {
        self.crashes.set(how);
        let crashed = machine.crash(how);
        let counted = crashed.crash(Crash::KeepAll);
        let log = open(&counted).unwrap();
        counted.kill();
        drop(log);
        for stop in 0..counted.effects() {
            let again = crashed.crash(Crash::KeepAll);
            again.stop_after(stop);
            drop(open(&again));
            for how in [Crash::DropUnsynced, Crash::KeepAll, Crash::Random(stop)] {
                let log = open(&again.crash(how)).unwrap();
                self.check(&log, self.history.synced);
            }
        }
    }

    /// Opens the log, checks it, appends as many records of the sizes of those that were lost, cuts
    /// the power again, and wants them all and nothing else.
    fn go_on(&self, machine: &FaultyStorage, acknowledged: usize) {
        let log = open(machine).unwrap();
        let mut expected = self.check(&log, acknowledged);
        for lost in &self.history.records[expected.len()..] {
            log.append(lost.clone().header("again", "")).unwrap();
        }
        expected = read_rows(&log).unwrap();
        let after = machine.crash(Crash::DropUnsynced);
        drop(log);
        assert_eq!(self.shown(&after), expected, "{self:?}: acknowledged and lost");
        let after = machine.crash(Crash::Random(self.call));
        assert_eq!(self.shown(&after), expected, "{self:?}: acknowledged and lost");
    }

    fn shown(&self, machine: &FaultyStorage) -> Vec<Row> {
        let log = open(machine).unwrap_or_else(|error| panic!("{self:?}: {error}"));
        read_rows(&log).unwrap()
    }

    /// A prefix of what was appended, bit by bit, no shorter than what was acknowledged, of whole
    /// units.
    fn check(&self, log: &Log, acknowledged: usize) -> Vec<Row> {
        let rows = read_rows(log).unwrap();
        let whole = rows.is_empty() || self.history.units.contains(&rows.len());
        assert!(whole, "{self:?}: {} records, a part of a batch", rows.len());
        assert!(rows.len() >= acknowledged, "{self:?}: {} records left", rows.len());
        for (row, record) in rows.iter().zip(&self.history.records) {
            assert_eq!(&row.record, record, "{self:?}");
        }
        assert!(rows.is_sorted_by_key(|row| row.appended_at), "{self:?}: time goes back");
        rows
    }
}
