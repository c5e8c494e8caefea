//! Processes killed at scale: in opening, recovering, appending, rolling and closing.
//!
//! The disk is not in question here, so the logs are in memory where that is possible: it makes for
//! a hundred times as many moments in a second.

use crate::dice::Dice;
use crate::ledger::Ledger;
use crate::ledger::Tally;
use crate::orders::Orders;
use crate::orders::Task;
use crate::power::other;
use crate::rig;
use crate::rig::Context;
use crate::writer::Writer;
use std::path::Path;
use std::thread;
use std::time::Duration;
use stratalog::Durability::{self, Buffered, Synced, Written};
use stratalog::ReadMode;
use tempfile::TempDir;

const KILLS_A_LOG: u64 = 50;

#[test]
fn kills_of_synced_logs() {
    kills("kills of synced logs", &[Synced]);
}

#[test]
fn kills_of_written_logs() {
    kills("kills of written logs", &[Written, Written, Buffered]);
}

fn kills(test: &str, levels: &[Durability]) {
    let kills = rig::amount(200, 3000);
    let mut all = Tally::default();
    for log in 0..kills.div_ceil(KILLS_A_LOG) {
        let mut dice = Dice(rig::seed() * 1_000_000 + log);
        let dir = in_memory();
        let mut orders = Orders {
            path: dir.path().join("log"),
            life: 0,
            level: dice.pick(levels),
            mode: ReadMode::Map,
            threads: dice.pick(&[1, 1, 3]),
            segment_bytes: dice.pick(&[512, 4096, 64 << 10]),
            task: Task::Check,
        };
        let mut ledger = Ledger::default();
        for kill in 0..KILLS_A_LOG {
            let _context = Context::new(format!("{test}: log {log}, kill {kill}, {orders:?}"));
            orders.life += 1;
            orders.mode = other(orders.mode);
            // Mostly without looking, so that the first thing it does is to append.
            orders.task = dice.pick(&[Task::Append, Task::AppendUnseen, Task::AppendUnseen]);
            live_until_killed(&orders, &mut dice, &mut ledger);
        }
        orders.task = Task::Check;
        orders.life += 1;
        assert!(Writer::start(&orders).finish(&mut ledger).success());
        all.add(&ledger.tally);
    }
    let Tally { acknowledged, torn_tails, closes, openings, .. } = all;
    rig::report(&format!(
        "{test}: {kills} kills, {closes} closes, {torn_tails} torn tails, {openings} openings \
         looked at; {acknowledged} records acknowledged, nobody lost one"
    ));
}

#[expect(clippy::disallowed_methods, reason = "a kill at a moment, not after an event")]
fn live_until_killed(orders: &Orders, dice: &mut Dice, ledger: &mut Ledger) {
    let mut writer = Writer::start(orders);
    if dice.once_in(2) {
        // It has hardly begun.
        thread::sleep(Duration::from_micros(dice.below(5000)));
    } else {
        writer.hear_some(dice.below(60), ledger);
    }
    writer.kill(ledger);
}

pub(crate) fn in_memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}
