//! Power cuts under the library as it is, on a disk of our own that the kernel mounts.
//!
//! A process appends; at some call, or after some acknowledgement, the power is cut. What the disk
//! has then is mounted twice, and opened by one process through maps and by another by reads: both
//! find the same, everything that was acknowledged among it. One of them goes on, to the next cut.

use crate::dice::Dice;
use crate::disk::Disk;
use crate::ledger::Ledger;
use crate::ledger::Tally;
use crate::mount::DiskMount;
use crate::orders::Orders;
use crate::orders::Task;
use crate::rig;
use crate::rig::Context;
use crate::rules::Call;
use crate::survival::DROPS_ALL;
use crate::writer::PANIC;
use crate::writer::Writer;
use fuser::Errno;
use stratalog::Durability::{Buffered, Synced, Written};
use stratalog::ReadMode;

/// Power cuts of one log, before another one is begun.
const CUTS_A_LOG: u64 = 12;

#[test]
fn power_cuts() {
    const TEST: &str = "power cuts";
    if rig::has(TEST, &["fuse"]) {
        let totals = run(rig::amount(96, 600), Trouble::Cuts);
        tell(TEST, &totals);
    }
}

/// With failing syncs and writes, short writes and a full disk before.
#[test]
fn failures_before_power_cuts() {
    const TEST: &str = "power cuts after failures";
    if rig::has(TEST, &["fuse"]) {
        let totals = run(rig::amount(48, 300), Trouble::FailuresToo);
        assert!(totals.tally.failures > 0, "nothing failed");
        tell(TEST, &totals);
    }
}

/// The first call of each kind fails, or the second, or the third ...; the log is opened again, by
/// that process or the next; then the power is cut.
#[test]
fn each_call_may_fail() {
    const TEST: &str = "each call fails once";
    if !rig::has(TEST, &["fuse"]) {
        return;
    }
    let most = rig::amount(5, 25);
    let mut all = Tally::default();
    for (call, nth) in CALLS.iter().flat_map(|call| (0..most).map(move |nth| (*call, nth))) {
        let _context = Context::new(format!("{call:?} {nth}"));
        let mut site = Site::new(nth, Trouble::FailuresToo);
        site.orders.level = Synced;
        site.orders.segment_bytes = 1024;
        let mount = DiskMount::new(site.disk.clone());
        for _ in 0..2 {
            mount.disk().rules.fail(call, nth, Errno::EIO);
            let mut writer = site.start(&mount);
            writer.hear_some(20 + 2 * nth, &mut site.ledger);
            writer.kill(&mut site.ledger);
        }
        let mut writer = site.start(&mount);
        writer.hear_some(20, &mut site.ledger);
        mount.disk().cut(DROPS_ALL);
        writer.kill_after_failure(&mut site.ledger);
        site.power_is_back(&mount);
        site.check();
        all.add(&site.ledger.tally);
    }
    let Tally { acknowledged, failures, openings, .. } = all;
    rig::report(&format!(
        "{TEST}: {most} of each of {} kinds, {failures} failures told, {openings} openings; \
         {acknowledged} records acknowledged, nobody lost one",
        CALLS.len()
    ));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Cuts,
    FailuresToo,
}

fn tell(test: &str, totals: &Totals) {
    let Totals { cuts, kills, logs, calls, tally } = totals;
    let Tally { acknowledged, openings, torn_tails, failures, .. } = tally;
    rig::report(&format!(
        "{test}: {cuts} cuts and {kills} kills of {logs} logs, {openings} openings, \
         {torn_tails} torn tails, {failures} failures told, {calls} changing calls; \
         {acknowledged} records acknowledged, nobody lost one"
    ));
}

#[derive(Debug, Default)]
struct Totals {
    cuts: u64,
    kills: u64,
    logs: u64,
    calls: u64,
    tally: Tally,
}

fn run(cuts: u64, trouble: Trouble) -> Totals {
    let mut totals = Totals::default();
    for log in 0..cuts.div_ceil(CUTS_A_LOG) {
        let seed = rig::seed() * 1_000_000 + log;
        let mut site = Site::new(seed, trouble);
        for cut in 0..CUTS_A_LOG {
            // What the panic of a check does not say.
            let context = Context::new(format!("seed {seed}, cut {cut}, {:?}", site.orders));
            site.live_until_cut();
            drop(context);
        }
        site.check();
        totals.logs += 1;
        totals.cuts += CUTS_A_LOG;
        totals.kills += site.kills;
        totals.calls += site.calls;
        totals.tally.add(&site.ledger.tally);
    }
    totals
}

/// A log and the disk that it is on.
struct Site {
    disk: Disk,
    ledger: Ledger,
    orders: Orders,
    dice: Dice,
    trouble: Trouble,
    kills: u64,
    calls: u64,
}

impl Site {
    fn new(seed: u64, trouble: Trouble) -> Self {
        let mut dice = Dice(seed);
        let orders = Orders {
            path: "".into(),
            life: 0,
            level: dice.pick(&[Synced, Synced, Written, Buffered]),
            mode: ReadMode::Map,
            threads: dice.pick(&[1, 1, 4]),
            segment_bytes: dice.pick(&[1024, 4096, 64 << 10]),
            task: if trouble == Trouble::Cuts { Task::Append } else { Task::Persist },
        };
        let (disk, ledger) = (Disk::new(), Ledger::default());
        Self { disk, ledger, orders, dice, trouble, kills: 0, calls: 0 }
    }

    /// Processes open the log and append, are killed perhaps, until the power is cut.
    fn live_until_cut(&mut self) {
        self.check();
        let mount = DiskMount::new(self.disk.clone());
        for _ in 0..self.dice.pick(&[0, 0, 1, 2]) {
            let mut writer = self.start(&mount);
            self.make_trouble(&mount);
            writer.hear_some(self.dice.below(30), &mut self.ledger);
            writer.kill(&mut self.ledger);
            self.kills += 1;
        }
        let cut_seed = self.dice.next();
        if self.trouble == Trouble::Cuts && self.dice.once_in(2) {
            // In the middle of anything; opening and recovering are the first of its calls.
            let after = self.dice.pick(&[10, 40, 400]);
            mount.disk().rules.cut_after(self.dice.below(after), cut_seed);
            let writer = self.start(&mount);
            let status = writer.finish(&mut self.ledger);
            // Whoever maps files of a medium that is gone gets a signal, but never a wrong byte.
            assert_ne!(status.code(), Some(PANIC), "a panic");
        } else {
            let mut writer = self.start(&mount);
            self.make_trouble(&mount);
            writer.hear_some(self.dice.below(60), &mut self.ledger);
            mount.disk().cut(cut_seed);
            writer.kill_after_failure(&mut self.ledger);
        }
        // It may have come to its end before that call.
        mount.disk().cut(cut_seed);
        self.power_is_back(&mount);
    }

    fn power_is_back(&mut self, mount: &DiskMount) {
        let disk = mount.disk();
        self.ledger.power_was_cut();
        self.calls += CALLS.iter().map(|call| disk.rules.count(*call)).sum::<u64>();
        self.disk = disk.survivor();
    }

    fn start(&mut self, mount: &DiskMount) -> Writer {
        self.orders.life += 1;
        self.orders.path = mount.path().join("logs/orders");
        self.orders.mode = other(self.orders.mode);
        Writer::start(&self.orders)
    }

    fn make_trouble(&mut self, mount: &DiskMount) {
        if self.trouble == Trouble::Cuts {
            return;
        }
        let dice = &mut self.dice;
        let mut disk = mount.disk();
        let rules = &mut disk.rules;
        match dice.below(6) {
            0 | 1 => {
                rules.fail(Call::Sync, dice.below(30), dice.pick(&[Errno::EIO, Errno::ENOSPC]));
            }
            2 => rules.fail(Call::SyncDir, dice.below(6), Errno::EIO),
            3 => rules.fail(Call::Write, dice.below(30), dice.pick(&[Errno::EIO, Errno::ENOSPC])),
            4 => rules.write_short(dice.next()),
            _ => rules.limit_space(dice.below(20_000)),
        }
    }

    /// On a copy of the disk, so that what is found is found once more by whoever goes on.
    fn check(&mut self) {
        let mount = DiskMount::new(self.disk.clone());
        let mut ledger = self.ledger.clone();
        let orders = Orders {
            path: mount.path().join("logs/orders"),
            life: self.orders.life + 500_000,
            mode: other(self.orders.mode),
            task: Task::Check,
            ..self.orders.clone()
        };
        let status = Writer::start(&orders).finish(&mut ledger);
        assert!(status.success(), "checking: {status}");
        // Whoever goes on finds as much as this one did.
        self.ledger.expect_as(&ledger);
    }
}

pub(crate) fn other(mode: ReadMode) -> ReadMode {
    if mode == ReadMode::Map { ReadMode::Pread } else { ReadMode::Map }
}

const CALLS: [Call; 7] = [
    Call::Create,
    Call::Remove,
    Call::Rename,
    Call::SetLen,
    Call::Sync,
    Call::SyncDir,
    Call::Write,
];
