//! Measures each promise about speed beside the machine's own limit, and prints the ratios.
//!
//! The two sides of a row alternate, five rounds each, and the medians are compared: on a machine
//! that others use, only that means anything. The output is a table in Markdown.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails stops")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time and owns its files")]

#[path = "support/replication.rs"]
mod replication;
#[path = "support/compaction.rs"]
mod rewriting;
mod support;

use crate::rewriting::Compacted;
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
use std::env;
use std::time::Duration;
use stratalog::{Durability, Log, Seek};

const ROUNDS: usize = 5;
const BUFFERED_COUNT: u64 = 2_000_000;
const SYNCED_COUNT: u64 = 2_000;
const THREADS_COUNT: u64 = 64 * 300;
const SCAN_COUNT: u64 = 4_000_000;
const POINT_COUNT: u64 = 1_000_000;
const POINT_READS: u64 = 100_000;
const KEYS: u64 = 2_000_000;
const SHIPPED_COUNT: u64 = 2_500_000;

fn main() {
    // `cargo bench -- append` is meant for the other benchmarks.
    let wanted = |argument: String| argument.starts_with('-') || "ratios".contains(&argument);
    if !env::args().skip(1).all(wanted) {
        return;
    }
    println!("| workload | stratalog | limit on this machine | ratio | goal | |");
    println!("|---|---|---|---|---|---|");
    buffered();
    synced();
    commits();
    scan();
    point_read_and_open();
    compaction();
    replicate();
}

/// The two sides of a row, in its unit.
struct Pair {
    ours: f64,
    limit: f64,
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

/// One round before, so that no side meets memory that was never touched.
fn compaction() {
    let keys = scaled(KEYS);
    for (name, map_bytes) in [("128 MiB", 128 << 20), ("32 MiB", 32 << 20)] {
        let map_bytes = if is_smoke() { map_bytes >> 10 } else { map_bytes };
        let rounds = (0..=rounds()).map(|_| rewriting::compact(keys, map_bytes));
        let rounds = rounds.skip(1).collect::<Vec<_>>();
        assert!(rounds.iter().all(|round| round.records_left == keys), "a wrong result");
        let rates = |took: fn(&Compacted) -> Duration| {
            middle(rounds.iter().map(|round| gigabytes(round.bytes, took(round))).collect())
        };
        let pair = Pair { ours: rates(|round| round.took), limit: rates(|round| round.limit) };
        let runs = rounds.first().map_or(0, |round| round.runs);
        let goal = at_least("ratio", ratio(&pair), 0.5);
        let goal = if runs == 1 { goal } else { None };
        let name = format!("compaction, {keys} keys of 16 B, 100 B, {name} map, {runs} runs");
        row(&format!("{name} (limit: scan and write)"), "GB/s", &pair, goal);
    }
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

fn read_points(log: &Log, count: u64, reads: u64) -> Duration {
    let mut random = Random::default();
    let mut cursor = log.cursor(Seek::Start).unwrap();
    support::timed(|| {
        for _ in 0..reads {
            support::read_at(&mut cursor, random.below(count));
        }
    })
}

/// Medians of rounds that alternate.
fn alternate(mut ours: impl FnMut() -> f64, mut limit: impl FnMut() -> f64) -> Pair {
    let rounds = (0..rounds()).map(|_| (ours(), limit())).collect::<Vec<_>>();
    let (ours, limit): (Vec<f64>, Vec<f64>) = rounds.into_iter().unzip();
    Pair { ours: middle(ours), limit: middle(limit) }
}

fn median(round: impl FnMut() -> f64) -> f64 {
    middle(std::iter::repeat_with(round).take(rounds()).collect())
}

fn rounds() -> usize {
    if is_smoke() { 1 } else { ROUNDS }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap()
}

fn ratio(pair: &Pair) -> f64 {
    pair.ours / pair.limit
}

/// What was to be reached, and whether it was.
type Goal = Option<(String, &'static str)>;

fn at_least(unit: &str, found: f64, goal: f64) -> Goal {
    Some((format!(">= {goal} {unit}"), verdict(found / goal)))
}

fn at_most(unit: &str, found: f64, goal: f64) -> Goal {
    Some((format!("<= {goal} {unit}"), verdict(goal / found)))
}

fn verdict(reached: f64) -> &'static str {
    match reached {
        _ if is_smoke() => "too small a run to say",
        1.0.. => "held",
        _ => "MISSED",
    }
}

fn row(name: &str, unit: &str, pair: &Pair, goal: Goal) {
    let (goal, held) = goal.unwrap_or_default();
    let Pair { ours, limit } = pair;
    let ratio = ratio(pair);
    println!("| {name} | {ours:.2} {unit} | {limit:.2} {unit} | {ratio:.2} | {goal} | {held} |");
}

fn alone(name: &str, unit: &str, ours: f64, goal: Goal) {
    let (goal, held) = goal.unwrap_or_default();
    println!("| {name} | {ours:.2} {unit} | - | - | {goal} | {held} |");
}

fn millions(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64() / 1e6
}

fn thousands(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64() / 1e3
}

fn gigabytes(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64() / 1e9
}

fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}
