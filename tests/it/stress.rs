//! Everything at once, against a model: appends of every kind, readers, waits, structural changes.
//!
//! What is acknowledged is there once and where it was said to be, the order of each thread is
//! kept, batches are whole, what one reader saw all see, and the watermarks keep their order. Each
//! run has a seed, which a failure shows, though threads never meet twice in the same way.
//! `STRATALOG_STRESS_SECONDS` runs on for so long, with one seed after the other, from
//! `STRATALOG_STRESS_SEED`.

use crate::support::Site;
use crate::support::at;
use crate::support::medium::Numbers;
use crate::support::task::Alarm;
use std::collections::BTreeMap;
use std::env;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, RwLock};
use std::task::Poll;
use std::thread;
use std::time::Duration;
use stratalog::storage::{Clock, SystemClock};
use stratalog::{Cursor, Durability, Entry, Error, ErrorKind, Log, Maintenance, Offset};
use stratalog::{ReadMode, Record, Result, Seek};

const LEVELS: [Durability; 3] = [Durability::Buffered, Durability::Written, Durability::Synced];

/// What is done to the log, one after the other in no order, while everybody is at work.
const CHANGES: &[fn(&Stage<'_>)] = &[roll, roll, sync, reopen];

/// At least so many records are appended between two changes.
const CHANGE_RECORDS: u64 = 40;

/// Short enough to look again whether the end has come.
const MOMENT: Duration = Duration::from_millis(5);

#[test]
fn everything_at_once_in_memory() {
    repeat(|seed| run(&set(Site::memory(), seed), seed, 1000));
}

#[test]
fn everything_at_once_on_disk() {
    repeat(|seed| {
        let mode = if seed % 2 == 0 { ReadMode::Map } else { ReadMode::Pread };
        run(&set(Site::disk().options(|options| options.read_mode(mode)), seed), seed, 150);
    });
}

/// Another way to open the log for each of twelve seeds.
fn set(site: Site, seed: u64) -> Site {
    let nth = |count: u64| usize::try_from(seed % count).unwrap();
    let maintenance = [Maintenance::Manual, Maintenance::Background][nth(4) / 2];
    site.options(|options| {
        options
            .durability(LEVELS[nth(3)])
            .maintenance(maintenance)
            .sync_interval(Duration::from_millis(1))
            .segment_bytes([2 << 10, 16 << 10][nth(2)])
            .max_unsynced_bytes(20_000)
    })
}

fn repeat(run: impl Fn(u64)) {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("STRATALOG_STRESS_SEED").unwrap_or(0);
    let seconds = number("STRATALOG_STRESS_SECONDS");
    let clock = SystemClock::new();
    let end = clock.monotonic() + Duration::from_secs(seconds.unwrap_or(0));
    for seed in first.. {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed)));
        assert!(outcome.is_ok(), "STRATALOG_STRESS_SEED={seed} begins with this run");
        if clock.monotonic() >= end && (seconds.is_some() || seed >= first + 5) {
            return;
        }
    }
}

/// What all threads of a run share.
struct Stage<'a> {
    site: &'a Site,
    log: RwLock<Log>,
    /// Everything has been appended and may be seen, or a thread failed.
    done: AtomicBool,
    /// What stands at each offset, by whoever saw it first.
    seen: Mutex<BTreeMap<Offset, u64>>,
}

/// Ends the run for all when a thread fails, so that none waits for what never comes.
struct EndsOnPanic<'a>(&'a AtomicBool);

impl Drop for EndsOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

fn run(site: &Site, seed: u64, each: u64) {
    let stage = Stage {
        site,
        log: RwLock::new(site.open()),
        done: AtomicBool::new(false),
        seen: Mutex::default(),
    };
    let stage = &stage;
    let accounts: Vec<Account> = thread::scope(|scope| {
        let spawn = |work: Box<dyn FnOnce() + Send>| {
            scope.spawn(|| {
                let _ends = EndsOnPanic(&stage.done);
                work();
            });
        };
        spawn(Box::new(|| follow(stage, Seek::Start)));
        spawn(Box::new(|| follow(stage, Seek::Start)));
        spawn(Box::new(|| go_back(stage, seed)));
        spawn(Box::new(|| watch_marks(stage)));
        spawn(Box::new(|| change(stage, seed)));
        let appender = |thread| {
            scope.spawn(move || {
                let _ends = EndsOnPanic(&stage.done);
                Appender::new(stage, thread, seed).append(each)
            })
        };
        let appenders: Vec<_> = (0..6).map(appender).collect();
        let accounts: Vec<_> = appenders.into_iter().map(|thread| thread.join()).collect();
        // It may be closed just now.
        while stage.log().sync().is_err_and(|error| error.kind() == ErrorKind::Closed) {
            thread::yield_now();
        }
        stage.done.store(true, Ordering::SeqCst);
        accounts.into_iter().map(|account| account.expect("an appender failed")).collect()
    });
    stage.log().close().unwrap();
    check(stage, &site.open(), &accounts);
}

/// Everything acknowledged is there, and all that is there was appended.
fn check(stage: &Stage<'_>, log: &Log, accounts: &[Account]) {
    let mut there = BTreeMap::new();
    let mut order = Order::default();
    for entry in log.iter(Seek::Start).unwrap() {
        let entry = entry.unwrap();
        stage.see(entry.as_entry());
        let signature = order.see(entry.as_entry());
        assert!(there.insert((signature.thread, signature.nth), entry.offset()).is_none());
    }
    assert!(order.is_between_batches());
    let seen = stage.seen.lock().unwrap();
    assert_eq!(seen.len(), there.len(), "a reader saw what is not there");
    for (thread, account) in (0..).zip(accounts) {
        for (offset, nth) in &account.acknowledged {
            assert_eq!(there.remove(&(thread, *nth)), Some(*offset), "{nth} of {thread}");
        }
        for nth in &account.in_doubt {
            there.remove(&(thread, *nth));
        }
    }
    assert!(there.is_empty(), "never appended, or refused: {there:?}");
}

impl Stage<'_> {
    fn log(&self) -> Log {
        self.log.read().unwrap().clone()
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    fn see(&self, entry: Entry<'_>) {
        let mut hasher = DefaultHasher::new();
        (entry.key(), entry.value(), entry.appended_at()).hash(&mut hasher);
        let hash = hasher.finish();
        let first = *self.seen.lock().unwrap().entry(entry.offset()).or_insert(hash);
        assert_eq!(first, hash, "offset {} has changed", entry.offset());
    }
}

/// Who appended a record, as which of its own, and where in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signature {
    thread: u64,
    nth: u64,
    place: u64,
    batch: u64,
}

impl Signature {
    fn record(self) -> Record<'static> {
        let Self { thread, nth, place, batch } = self;
        let padding = "x".repeat(usize::try_from(nth * 7 % 90).unwrap());
        Record::new(format!("{nth} {place} {batch} {padding}")).key(thread.to_string())
    }

    fn of(entry: Entry<'_>) -> Self {
        let number = |text: &str| text.parse().unwrap();
        let mut numbers = std::str::from_utf8(entry.value()).unwrap().split(' ').map(number);
        let thread = number(std::str::from_utf8(entry.key().unwrap()).unwrap());
        let mut next = || numbers.next().unwrap();
        Self { thread, nth: next(), place: next(), batch: next() }
    }
}

/// What one reader checks of the order of records.
#[derive(Debug, Default)]
struct Order {
    end: u64,
    last: BTreeMap<u64, u64>,
    before: Option<Signature>,
}

impl Order {
    fn see(&mut self, entry: Entry<'_>) -> Signature {
        assert_eq!(entry.offset(), at(self.end));
        let now = Signature::of(entry);
        assert!(self.last.insert(now.thread, now.nth).is_none_or(|last| last < now.nth), "{now:?}");
        let whole = match self.before.filter(|_| !self.is_between_batches()) {
            Some(before) => Signature { nth: before.nth + 1, place: before.place + 1, ..before },
            None => Signature { place: 0, ..now },
        };
        assert_eq!(now, whole, "a batch is torn at offset {}", self.end);
        self.end += 1;
        self.before = Some(now);
        now
    }

    fn is_between_batches(&self) -> bool {
        self.before.is_none_or(|before| before.place + 1 == before.batch)
    }
}

/// What an appender was told.
#[derive(Debug, Default)]
struct Account {
    acknowledged: Vec<(Offset, u64)>,
    /// The log was closed meanwhile.
    in_doubt: Vec<u64>,
}

struct Appender<'a> {
    stage: &'a Stage<'a>,
    thread: u64,
    numbers: Numbers,
    account: Account,
}

impl<'a> Appender<'a> {
    fn new(stage: &'a Stage<'a>, thread: u64, seed: u64) -> Self {
        let numbers = Numbers(seed << 8 | thread);
        Self { stage, thread, numbers, account: Account::default() }
    }

    fn append(mut self, each: u64) -> Account {
        let mut nth = 0;
        while nth < each && !self.stage.is_done() {
            let count = [1, 1, 1, 2, 5][self.below(5)].min(each - nth);
            if self.append_some(nth..nth + count) {
                nth += count;
            }
        }
        self.account
    }

    /// Tells whether it is done with these, whatever came of it.
    fn append_some(&mut self, numbers: Range<u64>) -> bool {
        let log = self.stage.log();
        let level = LEVELS[self.below(3)];
        let batch = numbers.end - numbers.start;
        let (thread, start) = (self.thread, numbers.start);
        let signature = |nth| {
            let place = nth - start;
            Signature { thread, nth, place, batch }
        };
        let records = numbers.clone().map(|nth| signature(nth).record());
        let end = log.end_offset();
        let outcome = match (self.numbers.below(4), batch) {
            (0, _) => {
                let appended = log.append_at_with(level, end, records);
                appended.inspect(|range| assert_eq!(range.start, end))
            }
            (_, 1) => {
                let appended = log.append_with(level, signature(start).record());
                appended.map(|offset| offset..offset + 1)
            }
            _ => log.append_batch_with(level, records),
        };
        match outcome {
            Ok(range) => {
                assert_eq!(range.end - range.start, batch);
                assert!(has_reached(&log, range.end, level), "{range:?} {level:?}");
                let offsets = (range.start.get()..).map(at);
                self.account.acknowledged.extend(offsets.zip(numbers));
                self.wait(&log, range.start);
                true
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {
                assert!(error.offset().unwrap() > end);
                false
            }
            Err(error) => {
                assert_is_closed(&error);
                self.account.in_doubt.extend(numbers);
                true
            }
        }
    }

    /// Now and then waits for more than was asked for.
    fn wait(&mut self, log: &Log, offset: Offset) {
        let level = LEVELS[self.below(3)];
        let outcome = match self.below(12) {
            0 => log.wait(offset, level),
            1 => {
                let (alarm, mut wait) = (Alarm::new(), log.wait_async(offset, level));
                match alarm.poll(&mut wait) {
                    Poll::Ready(outcome) => outcome,
                    // It is dropped while it waits.
                    Poll::Pending => return,
                }
            }
            _ => return,
        };
        match outcome {
            Ok(()) => assert!(has_reached(log, offset + 1, level)),
            Err(error) => assert_is_closed(&error),
        }
    }

    fn below(&mut self, count: u64) -> usize {
        usize::try_from(self.numbers.below(count)).unwrap()
    }
}

fn has_reached(log: &Log, end: Offset, level: Durability) -> bool {
    let mark = match level {
        Durability::Synced => log.durable_offset(),
        Durability::Written => log.written_offset(),
        _ => log.end_offset(),
    };
    mark >= end
}

fn assert_is_closed(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
}

/// Reads forward to the end, over every reopening of the log.
fn follow(stage: &Stage<'_>, seek: Seek) {
    let mut order = Order::default();
    let mut log = stage.log();
    let mut cursor = log.cursor(seek).unwrap();
    loop {
        let done = stage.is_done();
        while let Some(entry) = cursor.next().unwrap() {
            assert!(entry.offset() < log.high_watermark());
            stage.see(entry);
            order.see(entry);
        }
        assert!(order.is_between_batches(), "part of a batch is visible");
        if done {
            return;
        }
        if let Err(error) = wait_a_moment(&mut cursor, order.end) {
            assert_is_closed(&error);
            log = stage.log();
            cursor = log.cursor(Seek::Offset(at(order.end))).unwrap();
        }
    }
}

/// As a thread, or as a future that is dropped if it has to wait.
fn wait_a_moment(cursor: &mut Cursor, end: u64) -> Result<()> {
    if end.is_multiple_of(2) {
        return cursor.wait(MOMENT).map(drop);
    }
    match Alarm::new().poll(&mut cursor.wait_async()) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => {
            thread::yield_now();
            Ok(())
        }
    }
}

/// Reads back from the end, and single records.
fn go_back(stage: &Stage<'_>, seed: u64) {
    let mut numbers = Numbers(seed << 8 | 0xff);
    while !stage.is_done() {
        let log = stage.log();
        let mut cursor = log.cursor(Seek::End).unwrap();
        let mut offset = cursor.offset();
        for _ in 0..numbers.below(300) {
            let Some(entry) = cursor.prev().unwrap() else { break };
            assert_eq!(entry.offset() + 1, offset);
            offset = entry.offset();
            stage.see(entry);
        }
        if offset > at(0) {
            let entry = log.get(at(numbers.below(offset.get()))).unwrap().unwrap();
            stage.see(entry.as_entry());
        }
    }
}

fn watch_marks(stage: &Stage<'_>) {
    let mut before = [at(0); 3];
    while !stage.is_done() {
        let log = stage.log();
        // Read from the strongest claim on: each may have moved on since.
        let (durable, written) = (log.durable_offset(), log.written_offset());
        let (visible, end) = (log.high_watermark(), log.end_offset());
        assert!(durable <= written.min(visible) && written.max(visible) <= end);
        let now = [durable, written, visible];
        assert!(before.iter().zip(&now).all(|(before, now)| before <= now), "{before:?} {now:?}");
        before = now;
    }
}

fn change(stage: &Stage<'_>, seed: u64) {
    let mut numbers = Numbers(seed << 8 | 0xfe);
    let mut end = at(0);
    while !stage.is_done() {
        if stage.log().end_offset() < end + CHANGE_RECORDS {
            thread::yield_now();
            continue;
        }
        end = stage.log().end_offset();
        let nth = numbers.below(CHANGES.len() as u64);
        CHANGES[usize::try_from(nth).unwrap()](stage);
    }
}

fn roll(stage: &Stage<'_>) {
    stage.log().roll().unwrap();
}

fn sync(stage: &Stage<'_>) {
    let log = stage.log();
    let end = log.end_offset();
    log.sync().unwrap();
    assert!(log.durable_offset() >= end);
}

/// Appenders and readers meet a closed log until there is the new one.
fn reopen(stage: &Stage<'_>) {
    stage.log().close().unwrap();
    let mut log = stage.log.write().unwrap();
    *log = stage.site.open();
    assert!(log.recovery().is_clean());
}
