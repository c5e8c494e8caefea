//! The table that a benchmark prints: its rows, their medians, and whether a goal was reached.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use crate::support::is_smoke;
use std::time::Duration;

const ROUNDS: usize = 5;

pub(crate) fn heading() {
    println!("| workload | stratalog | limit on this machine | ratio | goal | |");
    println!("|---|---|---|---|---|---|");
}

/// The two sides of a row, in its unit.
pub(crate) struct Pair {
    pub(crate) ours: f64,
    pub(crate) limit: f64,
}

/// Medians of rounds that alternate.
pub(crate) fn alternate(mut ours: impl FnMut() -> f64, mut limit: impl FnMut() -> f64) -> Pair {
    let rounds = (0..rounds()).map(|_| (ours(), limit())).collect::<Vec<_>>();
    let (ours, limit): (Vec<f64>, Vec<f64>) = rounds.into_iter().unzip();
    Pair { ours: middle(ours), limit: middle(limit) }
}

pub(crate) fn median(round: impl FnMut() -> f64) -> f64 {
    middle(std::iter::repeat_with(round).take(rounds()).collect())
}

pub(crate) fn rounds() -> usize {
    if is_smoke() { 1 } else { ROUNDS }
}

pub(crate) fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap()
}

pub(crate) fn ratio(pair: &Pair) -> f64 {
    pair.ours / pair.limit
}

/// What was to be reached, and whether it was.
pub(crate) type Goal = Option<(String, &'static str)>;

pub(crate) fn at_least(unit: &str, found: f64, goal: f64) -> Goal {
    Some((format!(">= {goal} {unit}"), verdict(found / goal)))
}

pub(crate) fn at_most(unit: &str, found: f64, goal: f64) -> Goal {
    Some((format!("<= {goal} {unit}"), verdict(goal / found)))
}

fn verdict(reached: f64) -> &'static str {
    match reached {
        _ if is_smoke() => "too small a run to say",
        1.0.. => "held",
        _ => "MISSED",
    }
}

pub(crate) fn row(name: &str, unit: &str, pair: &Pair, goal: Goal) {
    let (goal, held) = goal.unwrap_or_default();
    let Pair { ours, limit } = pair;
    let ratio = ratio(pair);
    println!("| {name} | {ours:.2} {unit} | {limit:.2} {unit} | {ratio:.2} | {goal} | {held} |");
}

pub(crate) fn alone(name: &str, unit: &str, ours: f64, goal: Goal) {
    let (goal, held) = goal.unwrap_or_default();
    println!("| {name} | {ours:.2} {unit} | - | - | {goal} | {held} |");
}

pub(crate) fn millions(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64() / 1e6
}

pub(crate) fn thousands(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64() / 1e3
}

pub(crate) fn gigabytes(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64() / 1e9
}

pub(crate) fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}
