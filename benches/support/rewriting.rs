//! Compaction beside reading, verifying, writing and syncing the same bytes once.

use crate::support::Random;
use crate::support::scan;
use crate::support::scratch;
use crate::support::timed;
use crate::support::value;
use memmap2::{Advice, MmapMut};
use rustix::fs::syncfs;
use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};
use stratalog::{Compaction, Durability, Log, Maintenance, Options, Record};

/// The best size on this disk, of those from 64 KiB to 1 MiB.
const WRITE_BYTES: usize = 256 << 10;

/// What a round took, and what it did.
pub(crate) struct Compacted {
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    /// Reading and verifying what there was, by a cursor, and writing what is left, into files of
    /// the same lengths, each synced.
    pub(crate) limit: Duration,
    pub(crate) runs: u64,
    pub(crate) records_left: u64,
}

/// Compacts a log of so many keys of 16 bytes with values of 100, of which one in 20 has two
/// records. Nothing is left to be written when either side begins, and memory is at hand.
pub(crate) fn compact(keys: u64, map_bytes: u64) -> Compacted {
    let dir = scratch();
    // No run of the log's own begins while it is filled.
    let log = open(dir.path(), Compaction::new().map_bytes(map_bytes), Maintenance::Manual);
    fill(&log, keys);
    let bytes = segments(dir.path()).iter().sum::<u64>();
    sync(dir.path());
    let scanned = timed(|| scan(&log));
    warm(bytes / 10 + map_bytes);
    let mut runs = 0;
    let took = timed(|| {
        loop {
            runs += 1;
            if !log.compact().unwrap().more() {
                break;
            }
        }
    });
    let left = segments(dir.path());
    sync(dir.path());
    let limit = scanned + write(dir.path(), &left);
    Compacted { bytes, took, limit, runs, records_left: scan(&log) }
}

pub(crate) fn open(dir: &Path, compaction: Compaction, maintenance: Maintenance) -> Log {
    let options = Options::new().durability(Durability::Written).maintenance(maintenance);
    options.compaction(compaction).open(dir).unwrap()
}

/// In batches of a frame each; all of it in sealed segments.
pub(crate) fn fill(log: &Log, keys: u64) {
    let value = value(100);
    let mut random = Random::default();
    let again = (0..keys / 20).map(|_| random.below(keys)).collect::<Vec<_>>();
    let mut numbers = (0..keys).chain(again).peekable();
    while numbers.peek().is_some() {
        let record = |number: u64| Record::new(&value).key(format!("{number:016}"));
        let batch = numbers.by_ref().take(30).map(record);
        log.append_batch_with(Durability::Buffered, batch).unwrap();
    }
    log.roll().unwrap();
}

/// The lengths of the segments.
fn segments(dir: &Path) -> Vec<u64> {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap());
    let segments = files.filter(|file| file.path().extension().is_some_and(|end| end == "log"));
    segments.map(|file| file.metadata().unwrap().len()).collect()
}

/// Has so much memory ready, in large pages: on a virtual machine, what its guest has not used for
/// a while is slow to get.
fn warm(bytes: u64) {
    let mut memory = MmapMut::map_anon(usize::try_from(bytes.max(1)).unwrap()).unwrap();
    drop(memory.advise(Advice::HugePage));
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    black_box(memory);
}

/// What was written before is not for the next one to pay for, as far as that goes.
pub(crate) fn sync(dir: &Path) {
    syncfs(File::open(dir).unwrap()).unwrap();
}

/// The time of writing and syncing alone. Each file takes the memory of one that was there just
/// before, as the outputs of compaction take that of the segments which they replace.
fn write(dir: &Path, lengths: &[u64]) -> Duration {
    let (piece, path) = (vec![0x5a; WRITE_BYTES], dir.join("before"));
    let fill = |file: &File, len: u64| {
        for position in (0..len).step_by(WRITE_BYTES) {
            file.write_all_at(&piece, position).unwrap();
        }
    };
    let mut took = Duration::ZERO;
    for (nth, len) in lengths.iter().enumerate() {
        fill(&File::create(&path).unwrap(), *len);
        fs::remove_file(&path).unwrap();
        let started = Instant::now();
        let file = File::create(dir.join(format!("limit-{nth}"))).unwrap();
        fill(&file, *len);
        file.sync_data().unwrap();
        took += started.elapsed();
    }
    took
}
