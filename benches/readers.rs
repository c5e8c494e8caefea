//! Measures readers: how soon they see what is appended, what that and waking many of them costs
//! the writer, and what it costs to read backwards. Prints a table in Markdown.
//!
//! Where a ratio counts, both sides alternate in one run, and the medians are compared.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails stops")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time and owns its files")]
#![expect(dead_code, reason = "another benchmark uses what this one does not")]

#[path = "support/following.rs"]
mod following;
mod support;

use crate::following::Reader;
use crate::following::Way;
use crate::support::is_smoke;
use crate::support::scaled;
use crate::support::scratch;
use std::env;
use std::time::Duration;
use stratalog::Log;

const ROUNDS: usize = 5;
const RACE_COUNT: u64 = 4_000_000;
const DELAY_COUNT: u64 = 100_000;
/// As long as the delays are measured, and as short as what is asked of them.
const LOST_FOR: Duration = Duration::from_secs(2);
const LOST_MIN: Duration = Duration::from_micros(10);
const DELAY_RATES: [u64; 3] = [1_000, 50_000, 500_000];
const SCAN_COUNT: u64 = 4_000_000;
const WAITERS: usize = 200;

fn main() {
    let words: Vec<_> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let parts: [(&str, fn()); 5] = [
        ("readers/delays", delays),
        ("readers/races", races),
        ("readers/backward", backward),
        ("readers/idle", idle),
        ("readers/wake", wake),
    ];
    let wanted = parts.iter().filter(|(name, _)| words.iter().all(|word| name.contains(word)));
    let wanted: Vec<_> = wanted.collect();
    // `cargo bench -- append` is meant for the other benchmarks.
    if !wanted.is_empty() {
        println!("| workload | found | goal | |");
        println!("|---|---|---|---|");
    }
    wanted.into_iter().for_each(|(_, part)| part());
}

fn delays() {
    let lost = (0..rounds()).map(|_| following::lost(LOST_FOR, LOST_MIN) * 100.0).collect();
    row(
        "limit: time in which two threads that spin lose their core for over 10 us",
        "%",
        middle(lost),
        None,
    );
    for rate in DELAY_RATES {
        let count = scaled(DELAY_COUNT.min(2 * rate));
        let sides = [following::delays, following::limit_delays];
        let rounds: Vec<_> =
            (0..rounds()).map(|_| sides.map(|delays| delays(rate, count))).collect();
        for (name, goal) in
            [("p50", Some(2.0)), ("p99", Some(10.0)), ("p99 of the median 20 ms", Some(10.0))]
        {
            let of = |delays: &[Duration]| match name {
                "p50" => following::percentile(delays, 50),
                "p99" => following::percentile(delays, 99),
                _ => following::percentile_of_median(delays, rate, 99),
            };
            let [found, limit] = [0, 1].map(|side| {
                let sides = rounds.iter().map(|round| round.get(side).unwrap());
                middle(sides.map(|delays| micros(of(delays))).collect())
            });
            let goal = goal.filter(|_| rate == 50_000);
            let goal = goal.map(|goal| (format!("<= {goal} us"), found <= goal));
            row(&format!("append to seen, {rate}/s, one reader waits, {name}"), "us", found, goal);
            row("limit: a word in memory", "us", limit, None);
        }
    }
}

fn races() {
    let count = scaled(RACE_COUNT);
    let readers = [Reader::None, Reader::Waits, Reader::Polls];
    let rounds: Vec<_> = (0..=rounds())
        .map(|_| readers.map(|reader| following::race(reader, count)))
        .skip(1)
        .collect();
    let rate = |nth: usize| {
        let rates = rounds.iter().map(|round| {
            let race = round.get(nth).unwrap();
            count as f64 / race.wrote.as_secs_f64() / 1e6
        });
        middle(rates.collect())
    };
    row("append, buffered, 100 B, no reader", "M/s", rate(0), None);
    for (nth, reader) in readers.iter().enumerate().skip(1) {
        let ratio = rate(nth) / rate(0);
        let goal = matches!(reader, Reader::Waits).then(|| (">= 0.7".to_owned(), ratio >= 0.7));
        row(&format!("the same beside a reader that {reader:?}"), "of it", ratio, goal);
        let behind = rounds.iter().map(|round| {
            let race = round.get(nth).unwrap();
            race.read.as_secs_f64() / race.wrote.as_secs_f64()
        });
        let behind = middle(behind.collect());
        let goal = Some(("<= 1.1".to_owned(), behind <= 1.1));
        row("its time, of the writer's", "", behind, goal);
    }
}

fn backward() {
    let count = scaled(SCAN_COUNT);
    for (name, bytes) in [("100 B", 100), ("1 KiB", 1 << 10)] {
        let count = if bytes > 100 { count / 8 } else { count };
        let dir = scratch();
        support::fill(dir.path(), bytes, count);
        let log = Log::open(dir.path()).unwrap();
        let rounds: Vec<_> = (0..=rounds())
            .map(|_| {
                [Way::Forward, Way::Backward].map(|way| {
                    support::timed(|| assert_eq!(following::read_through(&log, way), count))
                })
            })
            .skip(1)
            .collect();
        let time = |nth: usize| {
            middle(rounds.iter().map(|round| micros(*round.get(nth).unwrap())).collect())
        };
        let forward = (count * bytes as u64) as f64 / time(0) / 1e3;
        row(&format!("forward, {name}, verified, warm"), "GB/s", forward, None);
        row("backward", "of it", time(0) / time(1), None);
    }
}

fn idle() {
    let time = Duration::from_secs(if is_smoke() { 1 } else { 5 });
    let spent = following::idle(WAITERS, time);
    let share = spent.as_secs_f64() / time.as_secs_f64() * 100.0;
    let goal = Some(("<= 0.1 %".to_owned(), share <= 0.1));
    row(&format!("CPU of an idle log, {WAITERS} threads wait"), "%", share, goal);
}

fn wake() {
    for tasks in [1_000, 10_000] {
        let tasks = if is_smoke() { tasks / 100 } else { tasks };
        let rounds: Vec<_> = (0..rounds()).map(|_| following::wake(tasks)).collect();
        let woke = middle(rounds.iter().map(|(woke, _)| micros(*woke)).collect());
        let alone = middle(rounds.iter().map(|(_, alone)| micros(*alone)).collect());
        row(&format!("append that wakes {tasks} tasks"), "us", woke, None);
        row("the next one, which wakes nobody", "us", alone, None);
    }
}

fn row(name: &str, unit: &str, found: f64, goal: Option<(String, bool)>) {
    let (goal, verdict) = match goal {
        Some((goal, _)) if is_smoke() => (goal, "too small a run to say"),
        Some((goal, true)) => (goal, "held"),
        Some((goal, false)) => (goal, "MISSED"),
        None => (String::new(), ""),
    };
    println!("| {name} | {found:.2} {unit} | {goal} | {verdict} |");
}

fn rounds() -> usize {
    if is_smoke() { 1 } else { ROUNDS }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap()
}

fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}
