//! What the benchmarks share: data, directories, and one round of each piece of work.
//!
//! A round prepares what it needs, measures its work alone, and removes its files. Rounds of the
//! log are here, those of the bare system are in [`limits`].

pub(crate) mod limits;

use std::env;
use std::fs;
use std::hint::black_box;
use std::iter::repeat_n;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};
use stratalog::{Cursor, Durability, Log, Offset, Options, Seek};
use tempfile::TempDir;

/// What a round appends, and how.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) record_bytes: usize,
    pub(crate) batch: usize,
    pub(crate) level: Durability,
    /// Records of the round.
    pub(crate) count: u64,
    pub(crate) finish: Finish,
}

/// Which syncs are part of the measurement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// None: the log was told to leave them to its user. To be held against a limit without any.
    NoSync,
    /// The log syncs by itself at its interval, as it does for its users.
    AsItIs,
    /// The round ends when all of it is durable.
    Sync,
}

/// Whether this run only shows that everything works: `cargo bench -- --test`.
pub(crate) fn is_smoke() -> bool {
    env::args().any(|argument| argument == "--test")
}

/// A count for a real run, or a small one.
pub(crate) fn scaled(count: u64) -> u64 {
    if is_smoke() { (count / 1000).max(64) } else { count }
}

/// A directory on the disk of the build, removed when it is dropped.
pub(crate) fn scratch() -> TempDir {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(parent).unwrap();
    TempDir::new_in(parent).unwrap()
}

/// Bytes that no disk compresses.
pub(crate) fn value(len: usize) -> Vec<u8> {
    let mut random = Random::default();
    repeat_n((), len).map(|()| random.next().to_le_bytes()[0]).collect()
}

/// xorshift64, always from the same seed.
pub(crate) struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }
}

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let started = Instant::now();
    black_box(work());
    started.elapsed()
}

/// A log in `dir` that has its first segment already: making it belongs to no round.
pub(crate) fn begun(dir: &Path, options: Options, value: &[u8]) -> Log {
    let log = options.open(dir).unwrap();
    log.append_with(Durability::Synced, value).unwrap();
    log
}

/// One thread appends to a new log. Also returns the bytes in files for each record, all told.
pub(crate) fn append(load: Load) -> (Duration, f64) {
    let (dir, value) = (scratch(), value(load.record_bytes));
    let options = Options::new().durability(load.level);
    let options = match load.finish {
        Finish::NoSync => {
            options.sync_interval(Duration::from_secs(3600)).max_unsynced_bytes(4 << 30)
        }
        Finish::AsItIs | Finish::Sync => options,
    };
    let log = begun(dir.path(), options, &value);
    let took = timed(|| {
        if load.batch == 1 {
            for _ in 0..load.count {
                log.append(&value).unwrap();
            }
        } else {
            for _ in 0..load.count / load.batch as u64 {
                log.append_batch(repeat_n(&value, load.batch)).unwrap();
            }
        }
        if load.finish == Finish::Sync {
            log.sync().unwrap();
        }
    });
    // Sealing cuts off what was filled with zeros for appends to come.
    log.roll().unwrap();
    let records = log.end_offset().get() as f64;
    let segments = files(dir.path()).into_iter().filter(|path| is_segment(path));
    let bytes: u64 = segments.map(|path| fs::metadata(path).unwrap().len()).sum();
    (took, bytes as f64 / records)
}

/// Many threads append to a new log, each waiting until its record is durable.
pub(crate) fn append_synced(threads: u64, count: u64) -> Duration {
    let (dir, value) = (scratch(), value(100));
    let log = begun(dir.path(), Options::new(), &value);
    let barrier = Barrier::new(usize::try_from(threads).unwrap() + 1);
    let started = thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..count / threads {
                    log.append(&value).unwrap();
                }
            });
        }
        barrier.wait();
        Instant::now()
    });
    started.elapsed()
}

/// Fills a log with records, buffered, and closes it.
pub(crate) fn fill(dir: &Path, record_bytes: usize, count: u64) {
    let value = value(record_bytes);
    let log = Options::new().durability(Durability::Buffered).open(dir).unwrap();
    for _ in 0..count {
        log.append(&value).unwrap();
    }
    log.close().unwrap();
}

/// Reads everything and returns how many records there were.
pub(crate) fn scan(log: &Log) -> u64 {
    let mut cursor = log.cursor(Seek::Start).unwrap();
    let mut count = 0;
    while let Some(entry) = cursor.next().unwrap() {
        black_box(entry.value());
        count += 1;
    }
    count
}

/// Reads one record by its offset.
pub(crate) fn read_at(cursor: &mut Cursor, offset: u64) {
    cursor.seek(Seek::Offset(Offset::from(offset))).unwrap();
    black_box(cursor.next().unwrap().unwrap().value());
}

/// How a log was appended to before its process died.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Killed {
    /// In batches of 64 KiB, each synced.
    Synced,
    /// As fast as it went, so that a good part was never synced.
    Buffered,
}

/// A log as its files were while it was open: what a kill leaves. It can be opened any number of
/// times.
pub(crate) struct Remains(TempDir);

impl Remains {
    /// `bytes` of records of 1 KiB.
    pub(crate) fn of(killed: Killed, bytes: u64) -> Self {
        let (dir, left, value) = (scratch(), scratch(), value(1024));
        let level = match killed {
            Killed::Synced => Durability::Synced,
            Killed::Buffered => Durability::Buffered,
        };
        let log = Options::new().durability(level).open(dir.path()).unwrap();
        for _ in 0..bytes / (64 << 10) {
            log.append_batch(repeat_n(&value, 64)).unwrap();
        }
        let last = log.append(&value).unwrap();
        log.wait(last, Durability::Written).unwrap();
        for path in files(dir.path()) {
            fs::copy(&path, left.path().join(path.file_name().unwrap())).unwrap();
        }
        // The copies are not what recovery is to wait for.
        rustix::fs::syncfs(fs::OpenOptions::new().read(true).open(left.path()).unwrap()).unwrap();
        Self(left)
    }

    /// Opens a copy and returns how long that took.
    pub(crate) fn open(&self) -> Duration {
        let dir = scratch();
        let files = files(self.0.path());
        let copied = files.len().saturating_sub(5);
        for (nth, path) in files.iter().enumerate() {
            let target = dir.path().join(path.file_name().unwrap());
            // Old segments are never written to again, so they need no copy.
            if is_segment(path) && nth < copied {
                fs::hard_link(path, target).unwrap();
            } else {
                fs::copy(path, &target).unwrap();
                let file = fs::OpenOptions::new().write(true).open(target).unwrap();
                file.sync_data().unwrap();
            }
        }
        let mut log = None;
        let took = timed(|| log = Some(Log::open(dir.path()).unwrap()));
        assert!(log.is_some_and(|log| !log.recovery().is_clean()), "it was not killed");
        took
    }
}

/// Opens a log that was closed and returns how long that took.
pub(crate) fn open_clean(dir: &Path) -> Duration {
    let mut log = None;
    let took = timed(|| log = Some(Log::open(dir).unwrap()));
    let log = log.unwrap();
    assert!(log.recovery().is_clean(), "{}", log.recovery());
    log.close().unwrap();
    took
}

/// In the order of their names.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}
