//! Compaction beside reading and writing the same bytes once.

use crate::support::Random;
use crate::support::scan;
use crate::support::scratch;
use crate::support::timed;
use crate::support::value;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use stratalog::{Compaction, Durability, Log, Options, Record};

const WRITE_BYTES: usize = 512 << 10;

/// What a round took, and what it did.
pub(crate) struct Compacted {
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    /// Reading what there was, by a cursor, and writing as much as is left, synced.
    pub(crate) limit: Duration,
    pub(crate) runs: u64,
    pub(crate) records_left: u64,
}

/// Compacts a log of so many keys of 16 bytes with values of 100, of which one in 20 has two
/// records.
pub(crate) fn compact(keys: u64, map_bytes: u64) -> Compacted {
    let dir = scratch();
    let compaction = Compaction::new().map_bytes(map_bytes);
    let options = Options::new().durability(Durability::Written).compaction(compaction);
    let log = options.open(dir.path()).unwrap();
    fill(&log, keys);
    let bytes = segment_bytes(dir.path());
    let scanned = timed(|| scan(&log));
    let mut runs = 0;
    let took = timed(|| {
        loop {
            runs += 1;
            if !log.compact().unwrap().more() {
                break;
            }
        }
    });
    let left = segment_bytes(dir.path());
    let limit = scanned + timed(|| write(dir.path(), left));
    Compacted { bytes, took, limit, runs, records_left: scan(&log) }
}

fn fill(log: &Log, keys: u64) {
    let value = value(100);
    let mut random = Random::default();
    let again = (0..keys / 20).map(|_| random.below(keys)).collect::<Vec<_>>();
    let numbers = (0..keys).chain(again).collect::<Vec<_>>();
    for batch in numbers.chunks(1000) {
        let record = |number: &u64| Record::new(&value).key(format!("{number:016}"));
        log.append_batch(batch.iter().map(record)).unwrap();
    }
    log.roll().unwrap();
}

fn segment_bytes(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let segments = files.filter(|file| file.path().extension().is_some_and(|end| end == "log"));
    segments.map(|file| file.metadata().unwrap().len()).sum()
}

fn write(dir: &Path, bytes: u64) {
    let mut file = File::create(dir.join("limit")).unwrap();
    let piece = vec![0x5a; WRITE_BYTES];
    for _ in 0..bytes.div_ceil(WRITE_BYTES as u64) {
        file.write_all(&piece).unwrap();
    }
    file.sync_data().unwrap();
}
