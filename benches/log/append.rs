//! Appending, by record size, batch, durability and threads.
//!
//! `buffered` rows are as a user sees them: the background thread syncs at its interval meanwhile,
//! and what it has not reached when the round ends is not waited for; in `buffered_no_sync` it does
//! not sync meanwhile, as the limit does not; `buffered_then_sync` ends when everything is durable.
//! A round of the log begins with a segment that is there.

use crate::group;
use crate::row;
use crate::support;
use crate::support::Finish;
use crate::support::Load;
use crate::support::limits;
use crate::support::scaled;
use criterion::{Criterion, Throughput};
use stratalog::Durability;

const SIZES: [(&str, usize); 3] = [("100", 100), ("1k", 1 << 10), ("16k", 16 << 10)];

const LEVELS: [(&str, Durability); 3] = [
    ("buffered", Durability::Buffered),
    ("written", Durability::Written),
    ("synced", Durability::Synced),
];

/// Records of a round in which each append waits for the disk.
const SYNCED_COUNT: u64 = 500;

/// Bytes of records of any other round.
const ROUND_BYTES: u64 = 32 << 20;

pub(crate) fn rows(criterion: &mut Criterion) {
    one_thread(criterion);
    threads(criterion);
    limits(criterion);
}

fn one_thread(criterion: &mut Criterion) {
    let mut group = group(criterion, "append");
    for (size, record_bytes) in SIZES {
        for batch in [1, 64] {
            for (durability, level) in LEVELS {
                let bytes = match level {
                    Durability::Synced => SYNCED_COUNT * (record_bytes * batch) as u64,
                    _ => ROUND_BYTES,
                };
                let count = scaled(bytes.min(ROUND_BYTES) / record_bytes as u64);
                let finish = Finish::AsItIs;
                let load = Load { record_bytes, batch, level, count, finish };
                let name = format!("record_{size}/batch_{batch}/{durability}/threads_1");
                row(&mut group, &name, Throughput::Elements(count), || support::append(load).0);
            }
        }
    }
    let ends = [(Finish::NoSync, "buffered_no_sync"), (Finish::Sync, "buffered_then_sync")];
    for (finish, durability) in ends {
        let count = scaled(ROUND_BYTES / 100);
        let level = Durability::Buffered;
        let load = Load { record_bytes: 100, batch: 1, level, count, finish };
        let name = format!("record_100/batch_1/{durability}/threads_1");
        row(&mut group, &name, Throughput::Elements(count), || support::append(load).0);
    }
    group.finish();
}

fn threads(criterion: &mut Criterion) {
    let mut group = group(criterion, "append");
    for threads in [8, 64] {
        let count = scaled(100 * threads);
        let name = format!("record_100/batch_1/synced/threads_{threads}");
        let round = || support::append_synced(threads, count);
        row(&mut group, &name, Throughput::Elements(count), round);
    }
    group.finish();
}

fn limits(criterion: &mut Criterion) {
    let mut group = group(criterion, "append/limit");
    for (size, bytes) in SIZES {
        let count = scaled(ROUND_BYTES / bytes as u64);
        let elements = || Throughput::Elements(count);
        let name = format!("write_64k_crc/record_{size}");
        let round = || limits::write_64k_crc(bytes, count, limits::leave);
        row(&mut group, &name, elements(), round);
        let name = format!("memcpy_crc/record_{size}");
        row(&mut group, &name, elements(), || limits::memcpy_crc(bytes, count));
    }
    let count = scaled(ROUND_BYTES / 100);
    let round = || limits::write_64k_crc(100, count, limits::sync);
    row(&mut group, "write_64k_crc_then_sync/record_100", Throughput::Elements(count), round);
    let count = scaled(SYNCED_COUNT);
    let elements = || Throughput::Elements(count);
    let round = || limits::pwrite_fdatasync_prefilled(count);
    row(&mut group, "pwrite_fdatasync_prefilled", elements(), round);
    let round = || limits::fdatasync_growing(count);
    row(&mut group, "fdatasync_growing", elements(), round);
    let round = || limits::overwrite_fdatasync(count);
    row(&mut group, "overwrite_fdatasync", elements(), round);
    group.finish();
}
