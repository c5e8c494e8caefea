//! Rows about compaction, appends beside it, cuts of small and large logs, and rolls. Each can be
//! asked for alone: `cargo bench --bench ratios -- compaction`, or `beside`, `cuts`, `rolls`.
//!
//! `STRATALOG_CUT_GIB=10` makes the large log as large as that; the default is 1.

use crate::beside;
use crate::rewriting;
use crate::rewriting::Compacted;
use crate::rolls;
use crate::rolls::Rolls;
use crate::support::is_smoke;
use crate::support::scaled;
use crate::support::scratch;
use crate::support::timed;
use crate::support::value;
use crate::table::Pair;
use crate::table::alternate;
use crate::table::at_least;
use crate::table::at_most;
use crate::table::gigabytes;
use crate::table::micros;
use crate::table::middle;
use crate::table::millions;
use crate::table::ratio;
use crate::table::rounds;
use crate::table::row;
use std::env;
use std::iter::repeat_n;
use std::time::Duration;
use stratalog::{Durability, Log, Offset};

/// Fewer than elsewhere, for each writes gigabytes.
const ROUNDS: usize = 3;
const KEYS: u64 = 10_000_000;
const BESIDE_KEYS: u64 = 2_000_000;
const BUFFERED_COUNT: u64 = 1_000_000;
const SYNCED_COUNT: u64 = 2_000;
const SMALL_BYTES: u64 = 1 << 20;
const ROLLED_COUNT: u64 = 20_000_000;

/// What can be asked for by name.
pub(crate) const ALL: [(&str, fn()); 4] =
    [("compaction", compaction), ("beside", appends), ("cuts", cuts), ("rolls", rolls)];

/// One round before, so that no side meets memory that was never touched.
fn compaction() {
    let keys = scaled(KEYS);
    for mebibytes in [256_u64, 128, 64] {
        let map_bytes = if is_smoke() { mebibytes << 10 } else { mebibytes << 20 };
        let rounds = (0..=rounds().min(ROUNDS)).map(|_| rewriting::compact(keys, map_bytes));
        let rounds = rounds.skip(1).collect::<Vec<_>>();
        assert!(rounds.iter().all(|round| round.records_left == keys), "a wrong result");
        let rates = |took: fn(&Compacted) -> Duration| {
            middle(rounds.iter().map(|round| gigabytes(round.bytes, took(round))).collect())
        };
        let pair = Pair { ours: rates(|round| round.took), limit: rates(|round| round.limit) };
        let runs = rounds.first().map_or(0, |round| round.runs);
        let goal = at_least("ratio", ratio(&pair), 0.5);
        let goal = if runs == 1 { goal } else { None };
        let name = format!("{keys} keys of 16 B, 100 B, {mebibytes} MiB, {runs} runs");
        row(&format!("compaction, {name} (limit: scan and write)"), "GB/s", &pair, goal);
    }
}

/// The limit is the same without a run beside it.
fn appends() {
    let (keys, count) = (scaled(BESIDE_KEYS), scaled(BUFFERED_COUNT));
    let found = beside::measure(keys, rounds(), |log| beside::buffered(log, count));
    let rate = |took: &[Duration]| middle(took.iter().map(|took| millions(count, *took)).collect());
    let pair = Pair { ours: rate(&found.beside), limit: rate(&found.alone) };
    let goal = at_least("ratio", ratio(&pair), 0.8);
    row("append, buffered, beside compaction (limit: without)", "M/s", &pair, goal);

    let count = scaled(SYNCED_COUNT);
    let found = beside::measure(keys, rounds(), |log| beside::synced(log, count));
    for (name, share) in [("median", 0.5), ("p99", 0.99)] {
        let time = |took: &[Duration]| percentile(took, share);
        let pair = Pair { ours: time(&found.beside), limit: time(&found.alone) };
        let goal = at_most("ratio", ratio(&pair), 2.0);
        let name = format!("append, synced, beside compaction, {name} (limit: without)");
        row(&name, "us", &pair, goal.filter(|_| share > 0.9));
    }
}

fn percentile(took: &[Duration], share: f64) -> f64 {
    let mut micros = took.iter().map(|took| micros(*took)).collect::<Vec<_>>();
    micros.sort_by(f64::total_cmp);
    let nth = Duration::from_secs_f64(micros.len() as f64 * share).as_secs();
    micros.get(usize::try_from(nth).unwrap()).copied().unwrap()
}

/// The limit is the same in a log of 1 MiB.
fn cuts() {
    let gibibytes = env::var("STRATALOG_CUT_GIB").map_or(1, |text| text.parse().unwrap());
    let large = if is_smoke() { 8 << 20 } else { gibibytes << 30 };
    let (large, small) = (Cuts::of(large), Cuts::of(SMALL_BYTES));
    let name = format!("of {} MiB (limit: of 1 MiB)", large.bytes >> 20);
    let pair = alternate(|| micros(large.truncate()), || micros(small.truncate()));
    row(&format!("truncate_to, ten records, of a log {name}"), "us", &pair, None);
    let pair = alternate(|| micros(large.delete(1)), || micros(small.delete(1)));
    row(&format!("delete_before, a record, of a log {name}"), "us", &pair, None);
    let (half, its) = (large.records() / 2, small.records() / 2);
    let pair = Pair { ours: micros(large.delete(half)), limit: micros(small.delete(its)) };
    row(&format!("delete_before, half, its files too, of a log {name}"), "us", &pair, None);
}

/// What other ways to begin a segment would be worth; the limit is the log as it is.
fn rolls() {
    let segment_bytes = if is_smoke() { 64 << 10 } else { 64 << 20 };
    let count = scaled(ROLLED_COUNT);
    let ways = [Rolls::AsTheyAre, Rolls::NoSyncs, Rolls::Reuse, Rolls::Both];
    for batch in [1, 64] {
        let round = |rolls| millions(count, rolls::append(rolls, batch, count, segment_bytes));
        let rounds = (0..rounds()).map(|_| ways.map(round)).collect::<Vec<_>>();
        let rate = |way| middle(rounds.iter().map(|round| *round.get(way).unwrap()).collect());
        for (nth, way) in ways.iter().enumerate().skip(1) {
            let pair = Pair { ours: rate(nth), limit: rate(0) };
            let name = format!("append, buffered, batches of {batch}, retention, rolls: {way:?}");
            row(&format!("{name} (limit: as they are)"), "M/s", &pair, None);
        }
    }
}

/// A log that is cut at both ends.
struct Cuts {
    log: Log,
    bytes: u64,
    _dir: tempfile::TempDir,
}

impl Cuts {
    fn of(bytes: u64) -> Self {
        let (dir, value) = (scratch(), value(1000));
        let log = Log::open(dir.path()).unwrap();
        for _ in 0..bytes >> 16 {
            log.append_batch_with(Durability::Buffered, repeat_n(&value, 64)).unwrap();
        }
        log.sync().unwrap();
        rewriting::sync(dir.path());
        Self { log, bytes, _dir: dir }
    }

    fn records(&self) -> u64 {
        self.log.end_offset() - self.log.start_offset()
    }

    /// Takes ten records away, and appends one.
    fn truncate(&self) -> Duration {
        let end = self.log.start_offset() + (self.records() - 10);
        let took = timed(|| self.log.truncate_to(end).unwrap());
        self.log.append("and on").unwrap();
        took
    }

    fn delete(&self, count: u64) -> Duration {
        let start: Offset = self.log.start_offset() + count;
        timed(|| self.log.delete_before(start).unwrap())
    }
}
