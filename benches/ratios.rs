//! Measures each promise about speed beside the machine's own limit, and prints the ratios.
//!
//! The two sides of a row alternate, five rounds each, and the medians are compared: on a machine
//! that others use, only that means anything. The output is a table in Markdown.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails stops")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time and owns its files")]

#[path = "support/beside.rs"]
mod beside;
#[path = "support/replication.rs"]
mod replication;
#[path = "support/rewriting.rs"]
mod rewriting;
#[path = "support/rolls.rs"]
mod rolls;
#[path = "support/rows.rs"]
mod rows;
mod support;
#[path = "support/table.rs"]
mod table;

use crate::support::Finish;
use crate::support::Killed;
use crate::support::Load;
use crate::support::Random;
use crate::support::Remains;
use crate::support::is_smoke;
use crate::support::limits;
use crate::support::limits::Frames;
use crate::support::limits::Records;
use crate::support::scaled;
use crate::support::scratch;
use crate::table::alone;
use crate::table::alternate;
use crate::table::at_least;
use crate::table::at_most;
use crate::table::gigabytes;
use crate::table::median;
use crate::table::micros;
use crate::table::millions;
use crate::table::ratio;
use crate::table::row;
use crate::table::thousands;
use std::env;
use std::time::Duration;
use stratalog::{Durability, Log, Seek};

const BUFFERED_COUNT: u64 = 2_000_000;
const SYNCED_COUNT: u64 = 2_000;
const THREADS_COUNT: u64 = 64 * 300;
const SCAN_COUNT: u64 = 4_000_000;
const POINT_COUNT: u64 = 1_000_000;
const POINT_READS: u64 = 100_000;
const SHIPPED_COUNT: u64 = 2_500_000;

fn main() {
    let words = env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let words = words.collect::<Vec<_>>();
    // `cargo bench -- append` is meant for the other benchmarks.
    let is_wanted = |name: &'static str| words.iter().all(|word| name.contains(word.as_str()));
    if !["ratios", "compaction", "beside", "cuts", "rolls"].into_iter().any(is_wanted) {
        return;
    }
    table::heading();
    if is_wanted("ratios") {
        buffered();
        synced();
        commits();
        scan();
        point_read_and_open();
        replicate();
    }
    // Those of `rows` have names of their own, and belong to the whole.
    for (name, rows) in rows::ALL {
        if is_wanted(name) || is_wanted("ratios") {
            rows();
        }
    }
}

fn buffered() {
    let mut space = 0.0;
    let count = scaled(BUFFERED_COUNT);
    let load = Load {
        record_bytes: 100,
        batch: 1,
        level: Durability::Buffered,
        count,
        finish: Finish::NoSync,
    };
    let pair = alternate(
        || {
            let (took, bytes) = support::append(load);
            space = bytes;
            millions(count, took)
        },
        || millions(count, limits::write_64k_crc(100, count, limits::leave)),
    );
    let goal = at_least("ratio", ratio(&pair), 0.8);
    row("append, buffered, 100 B, 1 thread, neither side syncs", "M/s", &pair, goal);

    let load = Load { finish: Finish::AsItIs, ..load };
    let pair = alternate(
        || millions(count, support::append(load).0),
        || millions(count, limits::write_64k_crc(100, count, limits::leave)),
    );
    let goal = at_least("ratio", ratio(&pair), 0.8);
    row("the same, the log syncs meanwhile by its defaults, the limit never", "M/s", &pair, goal);
    let memory = median(|| millions(count, limits::memcpy_crc(100, count)));
    alone("limit: the same without writing", "M/s", memory, None);

    let load = Load { finish: Finish::Sync, ..load };
    let pair = alternate(
        || millions(count, support::append(load).0),
        || millions(count, limits::write_64k_crc(100, count, limits::sync)),
    );
    row("the same, and both end with a sync", "M/s", &pair, None);
    alone("bytes in files, 100 B buffered", "B", space, at_most("bytes", space, 106.0));
}

fn synced() {
    let mut space = 0.0;
    let count = scaled(SYNCED_COUNT);
    let load = Load {
        record_bytes: 100,
        batch: 1,
        level: Durability::Synced,
        count,
        finish: Finish::AsItIs,
    };
    let pair = alternate(
        || {
            let (took, bytes) = support::append(load);
            space = bytes;
            thousands(count, took)
        },
        || thousands(count, limits::pwrite_fdatasync_prefilled(count)),
    );
    row("append, synced, 100 B, 1 thread", "k/s", &pair, at_least("ratio", ratio(&pair), 0.9));
    let growing = median(|| thousands(count, limits::fdatasync_growing(count)));
    alone("limit: into a file that grows", "k/s", growing, None);
    alone("bytes in files, 100 B synced alone", "B", space, at_most("bytes", space, 150.0));

    let many = scaled(THREADS_COUNT);
    let pair = alternate(
        || thousands(many, support::append_synced(64, many)),
        || thousands(count, support::append_synced(1, count)),
    );
    let goal = at_least("ratio", ratio(&pair), 8.0);
    row("append, synced, 64 threads (limit: 1 thread)", "k/s", &pair, goal);
}

/// What a consumer pays for each of its commits.
fn commits() {
    let count = scaled(SYNCED_COUNT);
    let dir = scratch();
    support::fill(dir.path(), 100, count);
    let log = Log::open(dir.path()).unwrap();
    let mut consumer = log.consumer("reader").unwrap();
    let ours = || {
        consumer.seek(Seek::Start).unwrap();
        consumer.commit().unwrap();
        let took = support::timed(|| {
            for _ in 0..count {
                consumer.next().unwrap();
                consumer.commit().unwrap();
            }
        });
        micros(took) / count as f64
    };
    let pair = alternate(ours, || micros(limits::overwrite_fdatasync(count)) / count as f64);
    let goal = at_most("ratio", ratio(&pair), 1.2);
    row("commit of a consumer (limit: 64 B overwritten, fdatasync)", "us", &pair, goal);
    log.close().unwrap();
}

fn scan() {
    let count = scaled(SCAN_COUNT);
    let dir = scratch();
    support::fill(dir.path(), 100, count);
    let log = Log::open(dir.path()).unwrap();
    let frames = Frames::new(100, count);
    let pair = alternate(
        || gigabytes(100 * count, support::timed(|| support::scan(&log))),
        || gigabytes(100 * count, support::timed(|| frames.map_crc())),
    );
    let goal = if pair.ours >= 2.5 {
        at_least("GB/s", pair.ours, 2.5)
    } else {
        at_least("ratio", ratio(&pair), 0.5)
    };
    row("scan, 100 B, verified", "GB/s", &pair, goal);
}

fn point_read_and_open() {
    let (count, reads) = (scaled(POINT_COUNT), scaled(POINT_READS));
    let dir = scratch();
    support::fill(dir.path(), 1 << 10, count);
    let log = Log::open(dir.path()).unwrap();
    let records = Records::new(1 << 10, count);
    let ours = || micros(read_points(&log, count, reads)) / reads as f64;
    let pair = alternate(ours, || micros(records.map_known_position(reads)) / reads as f64);
    let goal = at_most("us", pair.ours, 0.7);
    row("point read, 1 KiB of 1 GiB (limit: position known, map)", "us", &pair, goal);
    let pair = alternate(ours, || micros(records.pread_known_position(reads)) / reads as f64);
    row("the same (limit: position known, pread)", "us", &pair, None);
    log.close().unwrap();

    let clean = median(|| micros(support::open_clean(dir.path())) / 1000.0);
    alone("open after a close, 1 GiB", "ms", clean, at_most("ms", clean, 1.0));
    drop(dir);
    let bytes = if is_smoke() { 1 << 20 } else { 256 << 20 };
    for (name, killed) in [("synced", Killed::Synced), ("buffered", Killed::Buffered)] {
        let remains = Remains::of(killed, bytes);
        let took = median(|| micros(remains.open()) / 1000.0);
        let goal = match killed {
            Killed::Synced => at_most("ms", took, 30.0),
            Killed::Buffered => None,
        };
        alone(&format!("open after a kill, 256 MiB, {name}"), "ms", took, goal);
    }
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

fn replicate() {
    let count = scaled(SHIPPED_COUNT);
    let dir = scratch();
    support::fill(dir.path(), 100, count);
    let leader = Log::open(dir.path()).unwrap();
    let bytes: u64 = leader.segments().iter().map(|segment| segment.bytes).sum();
    // One round before, so that no side meets memory that was never touched.
    replication::ship(&leader);
    replication::copy(dir.path());
    let pair = alternate(
        || gigabytes(bytes, replication::ship(&leader)),
        || gigabytes(bytes, replication::copy(dir.path())),
    );
    let goal = at_least("ratio", ratio(&pair), 0.5);
    row(
        "a replica, 100 B, 1 MiB at a time, one sync (limit: copying the files)",
        "GB/s",
        &pair,
        goal,
    );
}
