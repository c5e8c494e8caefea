//! Opening: after a close, after a kill, and when there are many segments.
//!
//! A killed log is a copy of the files that were there while a log was open.

use crate::group;
use crate::row;
use crate::support;
use crate::support::Killed;
use crate::support::Remains;
use crate::support::is_smoke;
use crate::support::scratch;
use criterion::{Criterion, Throughput};
use std::cell::LazyCell;
use std::path::Path;
use stratalog::{Durability, Options};

const SEGMENTS: u64 = 2_000;

pub(crate) fn rows(criterion: &mut Criterion) {
    let bytes = if is_smoke() { 1 << 20 } else { 256 << 20 };
    let mut group = group(criterion, "open");
    let closed = LazyCell::new(|| {
        let dir = scratch();
        support::fill(dir.path(), 1 << 10, bytes >> 10);
        dir
    });
    let round = || support::open_clean(closed.path());
    row(&mut group, "closed/256_mib", Throughput::Elements(1), round);
    for (name, killed) in [("synced", Killed::Synced), ("buffered", Killed::Buffered)] {
        let remains = LazyCell::new(|| Remains::of(killed, bytes));
        let name = format!("killed/256_mib/{name}");
        row(&mut group, &name, Throughput::Elements(1), || remains.open());
    }
    let many = LazyCell::new(|| {
        let dir = scratch();
        fill_segments(dir.path(), if is_smoke() { 20 } else { SEGMENTS });
        dir
    });
    let round = || support::open_clean(many.path());
    row(&mut group, "closed/2000_segments", Throughput::Elements(1), round);
    group.finish();
}

fn fill_segments(dir: &Path, segments: u64) {
    let options = Options::new().durability(Durability::Buffered).segment_bytes(1 << 10);
    let log = options.open(dir).unwrap();
    let value = support::value(1 << 10);
    for _ in 0..segments {
        // Each is larger than a segment should be, so it gets one of its own.
        log.append(&value).unwrap();
    }
    log.close().unwrap();
}
