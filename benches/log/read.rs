//! Reading: everything in order, and single records by offset. All checksums are verified.

use crate::group;
use crate::row;
use crate::support;
use crate::support::Random;
use crate::support::limits::Frames;
use crate::support::limits::Records;
use crate::support::scaled;
use crate::support::scratch;
use criterion::{Criterion, Throughput};
use std::cell::LazyCell;
use std::time::Duration;
use stratalog::{Log, Options, ReadMode, Seek};
use tempfile::TempDir;

const MODES: [(&str, ReadMode); 2] = [("map", ReadMode::Map), ("pread", ReadMode::Pread)];

const SCAN_BYTES: u64 = 256 << 20;
const POINT_RECORDS: u64 = 1_000_000;
const POINT_READS: u64 = 20_000;

pub(crate) fn rows(criterion: &mut Criterion) {
    for (size, record_bytes) in [("100", 100), ("1k", 1 << 10)] {
        scan(criterion, size, record_bytes);
    }
    point(criterion);
}

fn scan(criterion: &mut Criterion, size: &str, record_bytes: usize) {
    let count = scaled(SCAN_BYTES / record_bytes as u64);
    let bytes = || Throughput::Bytes(count * record_bytes as u64);
    let mut group = group(criterion, "scan");
    let dir = LazyCell::new(|| filled(record_bytes, count));
    for (name, mode) in MODES {
        let log = LazyCell::new(|| open(&dir, mode));
        let round = || support::timed(|| assert_eq!(support::scan(&log), count));
        row(&mut group, &format!("record_{size}/{name}"), bytes(), round);
    }
    let frames = LazyCell::new(|| Frames::new(record_bytes, count));
    let round = || support::timed(|| assert!(frames.map_crc() <= count));
    row(&mut group, &format!("limit/map_crc/record_{size}"), bytes(), round);
    group.finish();
}

fn point(criterion: &mut Criterion) {
    let (count, reads) = (scaled(POINT_RECORDS), scaled(POINT_READS));
    let elements = || Throughput::Elements(reads);
    let mut group = group(criterion, "point_read/record_1k/of_1m");
    let dir = LazyCell::new(|| filled(1 << 10, count));
    for (name, mode) in MODES {
        let log = LazyCell::new(|| open(&dir, mode));
        row(&mut group, name, elements(), || read_points(&log, count, reads));
    }
    let records = LazyCell::new(|| Records::new(1 << 10, count));
    let round = || records.pread_known_position(reads);
    row(&mut group, "limit/pread_known_position", elements(), round);
    let round = || records.map_known_position(reads);
    row(&mut group, "limit/map_known_position", elements(), round);
    group.finish();
}

fn read_points(log: &Log, count: u64, reads: u64) -> Duration {
    let mut random = Random::default();
    let mut cursor = log.cursor(Seek::Start).unwrap();
    support::timed(|| {
        for _ in 0..reads {
            support::read_at(&mut cursor, random.below(count));
        }
    })
}

fn filled(record_bytes: usize, count: u64) -> TempDir {
    let dir = scratch();
    support::fill(dir.path(), record_bytes, count);
    dir
}

fn open(dir: &TempDir, mode: ReadMode) -> Log {
    Options::new().read_mode(mode).open(dir.path()).unwrap()
}
