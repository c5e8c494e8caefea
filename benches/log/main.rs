//! The benchmarks: what the log does, each beside what the machine does without a log.
//!
//! Names carry their axes. The rows of one group are only comparable within a run; on a shared
//! machine use `benches/ratios.rs`, which alternates between the two sides.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails stops")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time and owns its files")]

#[path = "../support/mod.rs"]
mod support;

mod append;
mod open;
mod read;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};
use std::time::Duration;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .nresamples(5_000)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
        .configure_from_args();
    append::rows(&mut criterion);
    read::rows(&mut criterion);
    open::rows(&mut criterion);
    criterion.final_summary();
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat);
    group
}

/// Adds a row: an iteration is a whole round, which measures itself.
fn row(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    throughput: Throughput,
    round: impl Fn() -> Duration,
) {
    group.throughput(throughput);
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|rounds| (0..rounds).map(|_| round()).sum());
    });
}
