//! The order of calls: the rules of `support/rules.rs` hold, whatever is done to a log, with one
//! thread or many, and when calls fail.

use crate::support::at;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::forge;
use crate::support::image::DIR;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use crate::support::medium::Numbers;
use crate::support::ordered::OrderedStorage;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use stratalog::Durability::{self, Buffered, Synced, Written};
use stratalog::storage::{File, FsStorage, MemoryStorage, OpenMode, Storage};
use stratalog::{Compaction, ErrorKind, Log, Maintenance, Options, Record, Result};

const LEVELS: [Durability; 3] = [Buffered, Written, Synced];

#[test]
fn a_long_program_keeps_the_order() {
    for seed in 0..60 {
        let mut program = Program::new(FaultyStorage::memory(), seed);
        program.run(80).unwrap();
    }
}

/// Each call of a program that has an effect fails, once or from then on; what follows is in order
/// too.
#[test]
fn programs_whose_calls_fail_keep_the_order() {
    let once: fn(Fault) -> Fault = |fault| fault;
    for (seed, again) in [(0, once), (1, Fault::forever)] {
        let mut whole = Program::new(FaultyStorage::memory(), seed);
        whole.run(20).unwrap();
        for op in [Op::Create, Op::Rename, Op::Remove, Op::SyncDir, Op::Write, Op::Sync, Op::SetLen]
        {
            for nth in 1..=whole.machine.count(|other, _| other == op) {
                for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
                    let machine = FaultyStorage::memory();
                    machine.inject(again(Fault::new(op, kind).nth(nth)));
                    fail_and_go_on(Program::new(machine, seed));
                }
            }
        }
    }
}

fn fail_and_go_on(mut program: Program) {
    // Where it ends is no matter, for the rules are asked on the way.
    drop(program.run(20));
    program.machine.heal();
    program.open_again().unwrap();
    program.run(8).unwrap();
}

/// What is written while a sync runs is not what it covers.
#[test]
fn a_sync_covers_what_was_written_before_it() {
    let machine = FaultyStorage::memory();
    let log = tiny(machine.process()).segment_bytes(1 << 20).open(DIR).unwrap();
    let marks = thread::scope(|scope| {
        log.append("begins the segment").unwrap();
        machine.hold(Op::Sync);
        let syncing = scope.spawn(|| log.append("covered").unwrap());
        machine.wait_until_held();
        let written = log.append_with(Written, "meanwhile");
        machine.release();
        syncing.join().unwrap();
        written.map(|_| [log.durable_offset(), log.written_offset()])
    });
    assert_eq!(marks.unwrap(), [at(2), at(3)]);
}

#[test]
fn many_threads_keep_the_order() {
    for maintenance in [Maintenance::Manual, Maintenance::Background] {
        let dir = tempfile::tempdir().unwrap();
        let storages: [Arc<dyn Storage>; 2] =
            [Arc::new(MemoryStorage::new()), Arc::new(FsStorage::new())];
        for storage in storages {
            let ordered = OrderedStorage::over(storage);
            let options = Options::new()
                .storage(Arc::new(ordered.clone()))
                .maintenance(maintenance)
                .sync_interval(Duration::from_millis(1))
                .segment_bytes(4096);
            for _ in 0..2 {
                let log = options.clone().open(dir.path().join("log")).unwrap();
                ordered.opened(&log);
                crowd(&log, &ordered);
                let end = log.end_offset();
                log.close().unwrap();
                ordered.synced(end);
                ordered.closed();
            }
        }
    }
}

fn crowd(log: &Log, ordered: &OrderedStorage) {
    let append = |seed: u64| {
        let mut numbers = Numbers(seed);
        for nth in 0..150 {
            let level = *numbers.pick(&LEVELS);
            let values = vec![vec![b'v'; size(&mut numbers)]; 1 + usize::from(nth % 10 == 0)];
            let range = log.append_batch_with(level, values).unwrap();
            if level == Synced {
                ordered.synced(range.end);
            }
            if nth % 50 == 49 {
                log.roll().unwrap();
            }
            // Whatever it says at any time counts as told.
            ordered.synced(log.durable_offset());
        }
    };
    thread::scope(|scope| {
        for seed in 0..4 {
            scope.spawn(move || append(seed));
        }
    });
}

/// A log, and what is done to it by the throw of a die.
#[derive(Debug)]
struct Program {
    machine: FaultyStorage,
    ordered: OrderedStorage,
    numbers: Numbers,
    log: Option<Log>,
}

impl Program {
    fn new(machine: FaultyStorage, seed: u64) -> Self {
        let ordered = OrderedStorage::over(machine.process());
        Self { machine, ordered, numbers: Numbers(seed), log: None }
    }

    /// Does so many things, or fewer if the log can no longer be opened.
    fn run(&mut self, count: u64) -> Result<()> {
        for _ in 0..count {
            let Some(log) = self.log.clone() else {
                self.open()?;
                continue;
            };
            match self.step(&log) {
                Err(error) if error.kind() == ErrorKind::Poisoned => self.close(&log),
                // It was refused: nothing happened.
                Err(_) | Ok(()) => {}
            }
            self.ordered.check();
        }
        Ok(())
    }

    fn open(&mut self) -> Result<()> {
        let storage = Arc::new(self.ordered.clone());
        let compaction = Compaction::new().tombstone_retention(Duration::ZERO);
        let level = *self.numbers.pick(&LEVELS);
        let log = tiny(storage).compaction(compaction).durability(level).open(DIR)?;
        self.ordered.opened(&log);
        self.log = Some(log);
        Ok(())
    }

    /// Whatever became of the log, it is opened now.
    fn open_again(&mut self) -> Result<()> {
        if let Some(log) = self.log.take() {
            self.close(&log);
        }
        self.open()
    }

    fn close(&mut self, log: &Log) {
        let end = log.end_offset();
        if log.close().is_ok() {
            self.ordered.synced(end);
        }
        self.ordered.closed();
        self.log = None;
    }

    fn kill(&mut self) {
        self.machine.kill();
        self.ordered = self.ordered.next_process(self.machine.process());
        self.log = None;
    }

    /// Another life on what is left; what is there is durable.
    fn cut_power(&mut self) {
        self.machine = self.machine.crash(Crash::Random(self.numbers.next()));
        self.ordered = OrderedStorage::over(self.machine.process());
        self.log = None;
    }

    fn step(&mut self, log: &Log) -> Result<()> {
        let level = *self.numbers.pick(&LEVELS);
        match self.numbers.below(29) {
            0..12 => {
                let value = vec![b'v'; size(&mut self.numbers)];
                let key = self.numbers.below(5).to_string();
                let offset = log.append_with(level, Record::new(value).key(key))?;
                self.told(level, offset.get() + 1);
            }
            12..15 => {
                let count = 1 + self.numbers.below(30);
                let values = (0..count).map(|nth| nth.to_string());
                let range = log.append_batch_with(level, values)?;
                self.told(level, range.end.get());
            }
            15 => {
                let end = log.end_offset();
                log.append_at_with(level, end, ["at"])?;
                self.told(level, end.get() + 1);
            }
            16 => {
                let Some(last) = log.end_offset().checked_sub(1) else { return Ok(()) };
                log.wait(last, level)?;
                self.told(level, last.get() + 1);
            }
            17 | 18 => {
                let end = log.end_offset();
                log.sync()?;
                self.told(Synced, end.get());
            }
            19 | 20 => log.roll()?,
            21 => self.close(log),
            22 => self.log = None,
            23 => self.kill(),
            24 | 25 => drop(log.compact()?),
            26 | 27 => drop(log.maintain()?),
            _ => self.cut_power(),
        }
        Ok(())
    }

    fn told(&self, level: Durability, end: u64) {
        if level == Synced {
            self.ordered.synced(end.into());
        }
    }
}

/// Mostly small, at times larger than a segment.
fn size(numbers: &mut Numbers) -> usize {
    usize::try_from(match numbers.below(20) {
        0 => 70_000,
        1 | 2 => 600,
        _ => numbers.below(200),
    })
    .unwrap()
}

// The rules themselves.

/// What breaks a rule, and what is said of it then.
type Sample = (&'static str, fn(&Hand));

const SAMPLES: &[Sample] = &[
    ("renamed before its bytes", |hand| {
        hand.create("MANIFEST.next", &manifest(&[]));
        hand.rename();
    }),
    ("its name is not durable", |hand| {
        hand.create(&segment(), &forge::segment(1, 0));
        hand.sync(&segment());
        hand.manifest(&[row(forge::ACTIVE, 0)]);
        hand.rename();
    }),
    ("its header is not synced", |hand| {
        hand.create(&segment(), &forge::segment(1, 0));
        hand.names();
        hand.manifest(&[row(forge::ACTIVE, 0)]);
        hand.rename();
    }),
    ("says is durable is not synced", |hand| {
        hand.begin();
        hand.write(&segment(), 72, &frame(0));
        hand.manifest(&[row(forge::SEALED, 1)]);
        hand.rename();
    }),
    ("no durable manifest names", |hand| {
        hand.create(&segment(), &forge::segment(1, 0));
        hand.sync(&segment());
        hand.names();
        hand.manifest(&[row(forge::ACTIVE, 0)]);
        hand.rename();
        hand.ordered.serves();
        hand.write(&segment(), 72, &frame(0));
    }),
    // Compaction: an output is written before it is named, and named when it is durable.
    ("no durable manifest names 00000000000000000000-00000002.log", |hand| {
        hand.seal();
        // Its id is not used up: after a crash it would be taken for a segment with records.
        hand.output();
    }),
    ("no durable manifest names 00000000000000000001-00000002.log", |hand| {
        hand.seal();
        hand.use_up_ids(3);
        // Records are appended there, and nothing is to be replaced.
        hand.segment_with_frame(2, 1);
    }),
    ("names segment 2, but what it says is durable is not synced", |hand| {
        hand.seal();
        hand.use_up_ids(3);
        hand.output();
        hand.names();
        hand.replace_by_output();
    }),
    ("names segment 2, but its name is not durable", |hand| {
        hand.seal();
        hand.use_up_ids(3);
        hand.output();
        hand.sync(&output());
        hand.replace_by_output();
    }),
    ("00000000000000000000-00000001.log is removed, and a manifest names it", |hand| {
        hand.seal();
        hand.use_up_ids(3);
        hand.output();
        hand.sync(&output());
        hand.names();
        hand.ordered.remove(&hand.path(&segment())).unwrap();
        hand.replace_by_output();
    }),
    ("00000000000000000000-00000001.log is removed, and a manifest names it", |hand| {
        hand.seal();
        hand.use_up_ids(3);
        hand.output();
        hand.sync(&output());
        hand.names();
        hand.replace_by_output();
        // The manifest without it is not durable yet.
        hand.ordered.remove(&hand.path(&segment())).unwrap();
    }),
    ("1 was acknowledged as synced, but the durable manifest ends at 0", |hand| {
        hand.seal();
        hand.use_up_ids(3);
        // What is forgotten is not covered by anything.
        hand.manifest(&[]);
        hand.rename();
        hand.names();
        hand.ordered.acknowledges(at(1));
    }),
    ("is not synced up to 120", |hand| {
        hand.begin();
        hand.write(&segment(), 72, &frame(0));
        hand.ordered.acknowledges(at(1));
    }),
    ("the durable manifest ends at 0", |hand| {
        hand.manifest(&[]);
        hand.rename();
        hand.names();
        hand.ordered.acknowledges(at(1));
    }),
    ("below what is synced", |hand| {
        hand.begin();
        hand.write(&segment(), 72, &frame(0));
        hand.sync(&segment());
        hand.write(&segment(), 72, &frame(0));
    }),
    ("which ended", |hand| {
        hand.begin();
        hand.manifest(&[row(WRITTEN, 0)]);
        hand.rename();
        hand.names();
        hand.write(&segment(), 72, &frame(0));
    }),
    ("claims that 1 is durable", |hand| {
        hand.begin();
        hand.write(&segment(), 72, &frame(0));
        hand.write(&segment(), 120, &frame(1));
    }),
    ("other bytes than there are", |hand| {
        hand.begin();
        hand.ordered.lock(&hand.path("LOCK")).unwrap();
        hand.write(&segment(), 72, &frame(0));
    }),
    ("a manifest names it", |hand| {
        hand.begin();
        hand.manifest(&[]);
        hand.rename();
        hand.ordered.remove(&hand.path(&segment())).unwrap();
    }),
    ("below its end", |hand| {
        hand.begin();
        hand.write(&segment(), 72, &frame(0));
        hand.file(&segment()).set_len(119).unwrap();
    }),
    ("MANIFEST.next is synced again", |hand| {
        hand.machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other));
        hand.manifest(&[]);
        hand.sync("MANIFEST.next");
    }),
    ("after a sync of the directory", |hand| {
        hand.machine.inject(Fault::new(Op::SyncDir, io::ErrorKind::Other));
        hand.names();
        hand.names();
    }),
    ("log after a sync of 0", |hand| {
        hand.begin();
        hand.machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other));
        hand.sync(&segment());
        hand.write(&segment(), 72, &frame(0));
    }),
    ("after a write to", |hand| {
        hand.begin();
        hand.machine.inject(Fault::new(Op::Write, io::ErrorKind::Other));
        hand.write(&segment(), 72, &frame(0));
        hand.create("more", &[]);
    }),
    ("after a rename failed", |hand| {
        hand.machine.inject(Fault::new(Op::Rename, io::ErrorKind::Other));
        hand.manifest(&[]);
        hand.rename();
        hand.names();
    }),
    ("after closing has returned", |hand| {
        hand.begin();
        hand.ordered.closed();
        hand.names();
    }),
    ("is not synced up to 120", |hand| {
        hand.begin();
        hand.write(&segment(), 72, &frame(0));
        hand.machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other));
        hand.sync(&segment());
        // Lost bytes are not had back by a sync that succeeds.
        hand.ordered.lock(&hand.path("LOCK")).unwrap();
        hand.sync(&segment());
        hand.ordered.acknowledges(at(1));
    }),
];

#[test]
fn each_rule_bites_and_only_that_one() {
    for (expected, breaks) in SAMPLES {
        let hand = Hand::new();
        breaks(&hand);
        let found = hand.ordered.broken().unwrap_or_default();
        assert!(found.lines().next().unwrap_or_default().contains(expected), "{expected}: {found}");
    }
    let hand = Hand::new();
    hand.begin();
    hand.write(&segment(), 72, &frame(0));
    hand.sync(&segment());
    hand.ordered.acknowledges(at(1));
    hand.write(&segment(), 120, &frame(1));
    hand.file(&segment()).set_len(168).unwrap();
    hand.sync(&segment());
    hand.manifest(&[row(forge::SEALED, 2)]);
    hand.rename();
    hand.names();
    hand.ordered.acknowledges(at(2));
    assert_eq!(hand.ordered.broken(), None);

    let hand = Hand::new();
    hand.seal();
    hand.use_up_ids(3);
    hand.output();
    hand.sync(&output());
    hand.names();
    hand.replace_by_output();
    hand.names();
    hand.ordered.remove(&hand.path(&segment())).unwrap();
    hand.ordered.acknowledges(at(1));
    assert_eq!(hand.ordered.broken(), None);
}

/// The only segment of a log that is made by hand.
fn segment() -> String {
    forge::segment_name(1, 0)
}

/// The segment that compaction puts in its place.
fn output() -> String {
    forge::segment_name(2, 0)
}

/// A frame of 48 bytes.
fn frame(base: u64) -> Vec<u8> {
    forge::frame(base, b"value")
}

fn row(state: u32, end: u64) -> forge::Row {
    forge::Row { id: 1, base: 0, end, byte_len: 72 + 48 * end, state }
}

fn manifest(rows: &[forge::Row]) -> Vec<u8> {
    forge::manifest(forge::OPEN, 0, rows)
}

const WRITTEN: u32 = 2;

/// Makes calls one by one; what they give is no matter.
struct Hand {
    machine: FaultyStorage,
    ordered: OrderedStorage,
}

impl Hand {
    fn new() -> Self {
        let machine = FaultyStorage::memory();
        let ordered = OrderedStorage::over(machine.process());
        ordered.create_dir(Path::new(DIR)).unwrap();
        Self { machine, ordered }
    }

    /// A log with an empty segment, open.
    fn begin(&self) {
        self.create(&segment(), &forge::segment(1, 0));
        self.sync(&segment());
        self.manifest(&[row(forge::ACTIVE, 0)]);
        self.names();
        self.rename();
        self.names();
        self.ordered.serves();
    }

    /// The same, with a record, sealed.
    fn seal(&self) {
        self.begin();
        self.write(&segment(), 72, &frame(0));
        self.sync(&segment());
        self.manifest(&[row(forge::SEALED, 1)]);
        self.rename();
        self.names();
    }

    /// The sealed segment stays, and the next id is that.
    fn use_up_ids(&self, next: u64) {
        let mut bytes = manifest(&[row(forge::SEALED, 1)]);
        bytes[40..48].copy_from_slice(&next.to_le_bytes());
        self.create("MANIFEST.next", &forge::resealed(bytes));
        self.sync("MANIFEST.next");
        self.rename();
        self.names();
    }

    /// A frame in the segment that is to replace the sealed one.
    fn output(&self) {
        self.segment_with_frame(2, 0);
    }

    fn segment_with_frame(&self, id: u64, base: u64) {
        let name = forge::segment_name(id, base);
        self.create(&name, &forge::segment(id, base));
        self.sync(&name);
        self.write(&name, 72, &frame(base));
    }

    fn replace_by_output(&self) {
        self.manifest(&[forge::Row { id: 2, ..row(forge::SEALED, 1) }]);
        self.rename();
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(DIR).join(name)
    }

    fn file(&self, name: &str) -> Arc<dyn File> {
        self.ordered.open(&self.path(name), OpenMode::Write).unwrap()
    }

    fn create(&self, name: &str, bytes: &[u8]) {
        let file = self.ordered.open(&self.path(name), OpenMode::Create).unwrap();
        file.write_at(bytes, 0).unwrap();
    }

    fn write(&self, name: &str, position: u64, bytes: &[u8]) {
        drop(self.file(name).write_at(bytes, position));
    }

    fn sync(&self, name: &str) {
        drop(self.file(name).sync_data());
    }

    fn manifest(&self, rows: &[forge::Row]) {
        self.create("MANIFEST.next", &manifest(rows));
        self.sync("MANIFEST.next");
    }

    fn rename(&self) {
        drop(self.ordered.rename(&self.path("MANIFEST.next"), &self.path("MANIFEST")));
    }

    fn names(&self) {
        drop(self.ordered.sync_dir(Path::new(DIR)));
    }
}
