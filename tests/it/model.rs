//! Random operations on a log beside the model of one: after each, the two are alike.
//!
//! A failure prints the operations, made as few as possible, and the seed.

use crate::support::Site;
use crate::support::assert_out_of_range;
use crate::support::at;
use crate::support::clock::ManualClock;
use crate::support::compaction::Full;
use crate::support::compaction::check_compacted;
use crate::support::compaction::compacting_with;
use crate::support::model::Model;
use crate::support::model::Row;
use crate::support::ordered::OrderedStorage;
use crate::support::record;
use crate::support::secs;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use std::env;
use std::ops::Range;
use std::slice;
use std::time::Duration;
use stratalog::storage::{Clock, FsStorage, Storage};
use stratalog::{Cursor, Durability, ErrorKind, Log, Offset, ReadMode, Record, Seek, Timestamp};

#[derive(Clone, Copy, Debug)]
enum Op {
    Append {
        seed: u16,
        level: Durability,
    },
    Batch {
        seed: u16,
        count: u8,
        level: Durability,
    },
    AppendAt {
        error: i8,
        seed: u16,
        count: u8,
        level: Durability,
    },
    Wait {
        back: u8,
        level: Durability,
    },
    Sync,
    Roll,
    /// After a roll, or of what happens to be sealed.
    Compact {
        roll: bool,
    },
    /// To a place so many thousandths into the log.
    Truncate {
        mille: u16,
    },
    Delete {
        mille: u16,
    },
    /// Sets the clock so many seconds forward or back.
    Clock {
        seconds: i16,
    },
    SeekStart,
    SeekEnd,
    /// To a place so many thousandths into the log, 1200 being beyond its end.
    SeekOffset {
        mille: u16,
    },
    SeekTime {
        seconds: i16,
    },
    Next {
        count: u8,
    },
    Prev {
        count: u8,
    },
    Get {
        mille: u16,
    },
    Close,
    Drop,
    Kill,
    CheckAll,
}

fn level() -> impl Strategy<Value = Durability> {
    use Durability::{Buffered, Synced, Written};
    prop_oneof![3 => Just(Buffered), 1 => Just(Written), 1 => Just(Synced)]
}

fn op() -> impl Strategy<Value = Op> {
    let seed = any::<u16>;
    let batch = (seed(), 0..40_u8, level());
    let batch = batch.prop_map(|(seed, count, level)| Op::Batch { seed, count, level });
    let error = prop_oneof![2 => Just(0_i8), 1 => -3..4_i8];
    let append_at = (error, seed(), 0..4_u8, level());
    let append_at = append_at.prop_map(|(error, seed, count, level)| Op::AppendAt {
        error,
        seed,
        count,
        level,
    });
    let wait = (0..20_u8, level()).prop_map(|(back, level)| Op::Wait { back, level });
    prop_oneof![
        12 => (seed(), level()).prop_map(|(seed, level)| Op::Append { seed, level }),
        4 => batch,
        3 => append_at,
        2 => wait,
        1 => Just(Op::Sync),
        1 => Just(Op::Roll),
        1 => any::<bool>().prop_map(|roll| Op::Compact { roll }),
        1 => (0..1100_u16).prop_map(|mille| Op::Truncate { mille }),
        1 => (0..1100_u16).prop_map(|mille| Op::Delete { mille }),
        4 => (-300..600_i16).prop_map(|seconds| Op::Clock { seconds }),
        1 => Just(Op::SeekStart),
        1 => Just(Op::SeekEnd),
        4 => (0..1200_u16).prop_map(|mille| Op::SeekOffset { mille }),
        4 => (-500..5000_i16).prop_map(|seconds| Op::SeekTime { seconds }),
        8 => (1..30_u8).prop_map(|count| Op::Next { count }),
        8 => (1..30_u8).prop_map(|count| Op::Prev { count }),
        4 => (0..1200_u16).prop_map(|mille| Op::Get { mille }),
        1 => Just(Op::Close),
        1 => Just(Op::Drop),
        1 => Just(Op::Kill),
        1 => Just(Op::CheckAll),
    ]
}

/// How the log is opened first.
#[derive(Clone, Copy, Debug)]
struct Setup {
    on_disk: bool,
    durability: Durability,
    read_mode: ReadMode,
    segment_bytes: u64,
    segment_age: Duration,
    map_bytes: u64,
}

fn setup() -> impl Strategy<Value = Setup> {
    let modes = prop_oneof![Just(ReadMode::Map), Just(ReadMode::Pread)];
    let bytes = prop_oneof![Just(256), 256..4096_u64, Just(1 << 20)];
    let ages = prop_oneof![2 => Just(Duration::MAX), 1 => Just(Duration::from_secs(400))];
    let maps = prop_oneof![Just(1 << 10), Just(1 << 20)];
    (any::<bool>(), level(), modes, bytes, ages, maps).prop_map(
        |(on_disk, durability, read_mode, segment_bytes, segment_age, map_bytes)| Setup {
            on_disk,
            durability,
            read_mode,
            segment_bytes,
            segment_age,
            map_bytes,
        },
    )
}

#[test]
fn a_log_is_what_the_model_says() {
    let run = |(setup, ops): (Setup, Vec<Op>)| {
        let mut pair = Pair::new(setup);
        for op in ops {
            pair.run(op);
        }
        pair.check_all();
        Ok(())
    };
    let (config, seed) = config();
    if let Err(failure) = TestRunner::new(config).run(&(setup(), vec(op(), 1..120)), run) {
        panic!("{failure}\nPROPTEST_RNG_SEED={seed} runs it again");
    }
}

/// `PROPTEST_CASES` and `PROPTEST_RNG_SEED` are heeded.
fn config() -> (Config, u64) {
    let given = Config::default();
    let cases = env::var_os("PROPTEST_CASES").map_or(CASES, |_| given.cases);
    let seed = match given.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => FsStorage::new().random(),
    };
    let rng_seed = RngSeed::Fixed(seed);
    (Config { cases, rng_seed, failure_persistence: None, ..given }, seed)
}

const CASES: u32 = 192;

/// A log and its model.
#[derive(Debug)]
struct Pair {
    clock: ManualClock,
    site: Site,
    /// Watches the order of the calls.
    order: OrderedStorage,
    /// `None` only while it is being opened again.
    log: Option<Log>,
    cursor: Cursor,
    model: Model,
    /// Where the cursor has to stand.
    place: Offset,
    durable: Offset,
}

impl Pair {
    fn new(setup: Setup) -> Self {
        let clock = ManualClock::at(secs(1000));
        let site = if setup.on_disk { Site::disk() } else { Site::memory() };
        let (site, order) = site.watched();
        let site = site.clock(&clock).options(|options| {
            options
                .durability(setup.durability)
                .read_mode(setup.read_mode)
                .segment_bytes(setup.segment_bytes)
                .segment_age(setup.segment_age)
                .max_unsynced_bytes(20_000)
        });
        let site = compacting_with(site, |compaction| compaction.map_bytes(setup.map_bytes));
        let log = site.open();
        order.opened(&log);
        let cursor = log.cursor(Seek::Start).unwrap();
        let model = Model::default();
        Self { clock, site, order, log: Some(log), cursor, model, place: at(0), durable: at(0) }
    }

    fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Append { seed, level } => {
                let record = sized(seed);
                let range = self.append(slice::from_ref(&record));
                assert_eq!(self.log().append_with(level, record).unwrap(), range.start);
                self.assert_reached(&range, level);
            }
            Op::Batch { seed, count, level } => {
                let records = batch(seed, count);
                let range = self.append(&records);
                assert_eq!(self.log().append_batch_with(level, records).unwrap(), range);
                self.assert_reached(&range, level);
            }
            Op::AppendAt { error, seed, count, level } => {
                self.append_at(error, &batch(seed, count), level);
            }
            Op::Wait { back, level } => self.wait(u64::from(back), level),
            Op::Sync => {
                self.log().sync().unwrap();
                self.assert_reached(&(at(0)..self.model.end()), Durability::Synced);
            }
            Op::Roll => self.log().roll().unwrap(),
            Op::Compact { roll: false } => drop(self.compact()),
            Op::Compact { roll: true } => {
                self.log().roll().unwrap();
                let is_empty = self.model.start() == self.model.end();
                assert!(self.compact() == self.model.end() || is_empty);
            }
            Op::Truncate { mille } => self.truncate(self.some_offset(mille)),
            Op::Delete { mille } => self.delete(self.some_offset(mille)),
            Op::Clock { seconds } => {
                let now = self.clock.now().as_micros();
                let now = now + i64::from(seconds) * 1_000_000;
                self.clock.set(Timestamp::from_micros(now));
            }
            Op::Close | Op::Drop | Op::Kill => self.open_again(op),
            Op::CheckAll => self.check_all(),
            _ => self.read(op),
        }
        self.assert_watermarks();
    }

    fn read(&mut self, op: Op) {
        match op {
            Op::SeekStart => self.seek(Seek::Start, self.model.start()),
            Op::SeekEnd => self.seek(Seek::End, self.log().high_watermark()),
            Op::SeekTime { seconds } => {
                let time = secs(1000 + i64::from(seconds));
                let found = self.model.since(time, self.log().high_watermark());
                self.seek(Seek::Time(time), found);
            }
            Op::SeekOffset { mille } => {
                let offset = self.some_offset(mille);
                let nearest = offset.clamp(self.model.start(), self.model.end());
                if offset == nearest {
                    self.seek(Seek::Offset(offset), offset);
                } else {
                    assert_out_of_range(self.cursor.seek(Seek::Offset(offset)), nearest.get());
                }
            }
            Op::Next { count } => (0..count).for_each(|_| self.next()),
            Op::Prev { count } => (0..count).for_each(|_| self.prev()),
            Op::Get { mille } => {
                let offset = self.some_offset(mille);
                if offset < self.model.start() {
                    let start = self.model.start().get();
                    return assert_out_of_range(self.log().get(offset), start);
                }
                let found = self.log().get(offset).unwrap().map(|entry| Row::from(&entry));
                assert_eq!(found.as_ref(), self.visible(offset), "get {offset}");
            }
            _ => unreachable!("{op:?}"),
        }
        self.settle();
    }

    /// Where no record is between them, two places are the same one.
    fn settle(&mut self) {
        let found = self.cursor.offset();
        let (low, high) = (found.min(self.place), found.max(self.place));
        assert_eq!(self.model.next_from(low, high), None, "{found} for {}", self.place);
        self.place = found;
    }

    /// What the log shows is what the model says, so it can tell which records are to go.
    fn compact(&mut self) -> Offset {
        let before = Full::of(self.log());
        let end = loop {
            let report = self.log().compact().unwrap();
            assert!(report.left_aside().is_empty() && !report.is_stopped());
            if !report.more() {
                break report.compacted_to();
            }
        };
        let left = before.compacted_to(end);
        self.model.retain(|offset| offset >= end || left.get(offset).is_some());
        // It would read on in the segment that it holds.
        self.cursor.seek(Seek::Offset(self.place)).unwrap();
        end
    }

    /// Into the model.
    fn append(&mut self, records: &[Record<'static>]) -> Range<Offset> {
        self.model.append(self.clock.now(), records)
    }

    fn append_at(&mut self, error: i8, records: &[Record<'static>], level: Durability) {
        let end = self.model.end();
        let expected = at(end.get().saturating_add_signed(i64::from(error)));
        let appended = self.log().append_at_with(level, expected, records.iter().cloned());
        if expected == end {
            let range = appended.unwrap();
            assert_eq!(range, self.append(records));
            self.assert_reached(&range, level);
        } else {
            let error = appended.unwrap_err();
            assert_eq!((error.kind(), error.offset()), (ErrorKind::Conflict, Some(end)));
        }
    }

    fn truncate(&mut self, end: Offset) {
        let range = self.model.start()..=self.model.end();
        if !range.contains(&end) {
            let nearest = end.clamp(*range.start(), *range.end());
            return assert_out_of_range(self.log().truncate_to(end), nearest.get());
        }
        self.log().truncate_to(end).unwrap();
        self.model.truncate_to(end);
        self.durable = self.durable.min(end);
        assert!(self.log().durable_offset() >= end || end == self.model.end());
        if self.place > end {
            self.assert_passed(end);
        }
    }

    fn delete(&mut self, start: Offset) {
        self.log().delete_before(start).unwrap();
        self.model.delete_before(start);
        if self.place < self.model.start() {
            self.assert_passed(start);
        }
    }

    /// The cursor stands where nothing is any more, and goes on at `nearest`.
    fn assert_passed(&mut self, nearest: Offset) {
        assert_out_of_range(self.cursor.next(), nearest.get());
        assert_out_of_range(self.cursor.prev(), nearest.get());
        assert_eq!(self.cursor.offset(), self.place);
        self.seek(Seek::Offset(nearest), nearest);
    }

    fn wait(&mut self, back: u64, level: Durability) {
        let end = self.model.end();
        match end.checked_sub(back) {
            Some(offset) if offset < end => {
                self.log().wait(offset, level).unwrap();
                self.assert_reached(&(offset..offset + 1), level);
            }
            _ => assert_out_of_range(self.log().wait(end, level), end.get()),
        }
    }

    fn seek(&mut self, seek: Seek, place: Offset) {
        self.cursor.seek(seek).unwrap();
        self.place = place;
    }

    fn next(&mut self) {
        let expected = self.model.next_from(self.place, self.log().high_watermark());
        let found = self.cursor.next().unwrap().map(|entry| (entry.offset(), Row::from(entry)));
        assert_eq!(found, expected);
        if let Some((offset, _)) = found {
            self.place = offset + 1;
        }
        self.settle();
    }

    /// The record before is one that may be read, wherever the cursor stands.
    fn prev(&mut self) {
        let expected = self.model.last_below(self.place.min(self.log().high_watermark()));
        let found = self.cursor.prev().unwrap().map(|entry| (entry.offset(), Row::from(entry)));
        assert_eq!(found, expected);
        self.place = found.map_or(self.place, |(offset, _)| offset);
        self.settle();
    }

    fn visible(&self, offset: Offset) -> Option<&Row> {
        self.model.get(offset).filter(|_| offset < self.log().high_watermark())
    }

    fn some_offset(&self, mille: u16) -> Offset {
        at((self.model.end().get() + 1) * u64::from(mille) / 1000)
    }

    /// Closes, drops or kills the log, and opens what is left.
    fn open_again(&mut self, op: Op) {
        let log = self.log.take().unwrap();
        let (written, end) = (log.written_offset(), log.end_offset());
        match op {
            Op::Close => {
                log.close().unwrap();
                self.order.closed();
            }
            Op::Kill => (self.site, self.order) = self.site.kill().watched(),
            _ => {}
        }
        drop(log);
        let log = self.site.open();
        self.order.opened(&log);
        let found = log.end_offset();
        if let Op::Kill = op {
            assert!((written..=end).contains(&found), "{written} <= {found} <= {end}");
            self.model.crash(found);
        }
        assert_eq!(found, self.model.end());
        assert_eq!([log.written_offset(), log.durable_offset()], [found; 2]);
        self.place = self.place.min(found);
        self.durable = found;
        self.cursor = log.cursor(Seek::Offset(self.place)).unwrap();
        self.log = Some(log);
    }

    /// No records reach nothing.
    fn assert_reached(&self, range: &Range<Offset>, level: Durability) {
        let log = self.log();
        let reached = |mark: Offset| range.is_empty() || mark >= range.end;
        assert!(level < Durability::Written || reached(log.written_offset()));
        assert!(level < Durability::Synced || reached(log.durable_offset()));
        // Whatever it says is durable counts as told.
        self.order.synced(log.durable_offset());
    }

    fn assert_watermarks(&mut self) {
        let log = self.log();
        let (durable, written) = (log.durable_offset(), log.written_offset());
        assert_eq!(log.end_offset(), self.model.end());
        assert!(self.durable <= durable && durable <= written && written <= log.end_offset());
        assert!(durable <= log.high_watermark() && log.high_watermark() <= log.end_offset());
        self.durable = durable;
    }

    fn check_all(&self) {
        let expected = self.model.rows(self.log().high_watermark());
        check_compacted(self.log(), &Full::from(expected));
    }
}

/// Mostly small, sometimes larger than a frame.
fn sized(seed: u16) -> Record<'static> {
    match seed % 50 {
        0 => Record::new(vec![b'x'; usize::from(seed)]).key("large"),
        1..10 => Record::new(vec![b'm'; usize::from(seed % 1000)]),
        _ => record(u64::from(seed)),
    }
}

fn batch(seed: u16, count: u8) -> Vec<Record<'static>> {
    let seeds = (seed..=u16::MAX).step_by(17).take(usize::from(count));
    seeds.map(sized).collect()
}
