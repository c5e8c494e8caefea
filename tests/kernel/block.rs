//! Power cuts and failing blocks under real file systems: each lies on a loop device, which lies on
//! a file of the disk of our own, so that what the kernel has not synced there is lost.

use crate::dice::Dice;
use crate::disk::Disk;
use crate::ledger::Ledger;
use crate::ledger::Tally;
use crate::mount::DiskMount;
use crate::mount::Loop;
use crate::mount::Mount;
use crate::mount::make_file;
use crate::mount::run;
use crate::orders::Orders;
use crate::orders::Task;
use crate::power::other;
use crate::rig;
use crate::rig::Context;
use crate::rules::Call;
use crate::survival::Survival;
use crate::writer::Writer;
use fuser::Errno;
use std::path::{Path, PathBuf};
use stratalog::Durability::{Synced, Written};
use stratalog::ReadMode;

#[test]
fn power_cuts_under_ext4() {
    power_cuts("ext4");
}

#[test]
fn power_cuts_under_xfs() {
    power_cuts("xfs");
}

#[test]
fn power_cuts_under_btrfs() {
    power_cuts("btrfs");
}

#[test]
fn failed_write_back_under_ext4() {
    failed_write_back("ext4");
}

#[test]
fn failed_write_back_under_xfs() {
    failed_write_back("xfs");
}

#[test]
fn failed_write_back_under_btrfs() {
    failed_write_back("btrfs");
}

fn power_cuts(kind: &str) {
    let test = format!("power cuts under {kind}");
    if !rig::has(&test, &["fuse", "loop", kind]) {
        return;
    }
    let cuts = rig::amount(3, 30);
    let mut site = Site::new(kind, Task::Append);
    for cut in 0..cuts {
        let _context = Context::new(format!("{kind}, cut {cut}, {:?}", site.orders));
        site.live_until_cut();
    }
    site.tell(&test, cuts);
}

/// A block is not written, once; the process goes on as well as it can; then the power is cut.
fn failed_write_back(kind: &str) {
    let test = format!("failed write-back under {kind}");
    if !rig::has(&test, &["fuse", "loop", kind]) {
        return;
    }
    let wanted = rig::amount(4, 20);
    let (mut cuts, mut told, mut lost) = (0, 0, 0);
    let mut all = Tally::default();
    // Not every block that fails is one that somebody waits for.
    while cuts < wanted || (told == 0 && cuts < 20) {
        // The file system may not be what it was after this, so each one is new.
        let mut site = Site::new(kind, Task::Persist);
        site.orders.level = Synced;
        let _context = Context::new(format!("{kind}, failed write-back {cuts}, {:?}", site.orders));
        site.dice = Dice(rig::seed() * 1000 + cuts);
        site.fails_after = Some(4 + cuts * 60 / wanted);
        site.live_until_cut();
        cuts += 1;
        // A block of its journal may be the one, and no log is to blame for what becomes of it.
        if Stack::attempt(kind, site.disk.clone()).is_err() {
            lost += 1;
            continue;
        }
        site.live_until_cut();
        told += u64::from(site.ledger.tally.failures > 0);
        all.add(&site.ledger.tally);
    }
    assert!(told > 0, "no failure was told");
    assert!(2 * lost <= cuts, "{lost} of {cuts} file systems cannot be mounted any more");
    let Tally { acknowledged, failures, openings, .. } = all;
    rig::report(&format!(
        "{test}: {cuts} blocks failed, {lost} file systems with them, {failures} failures told, \
         {openings} openings; {acknowledged} records acknowledged, nobody lost one"
    ));
}

/// A log on a file system on a loop device on a disk of our own.
struct Site {
    kind: String,
    disk: Disk,
    ledger: Ledger,
    orders: Orders,
    dice: Dice,
    /// The write after the next so many fails.
    fails_after: Option<u64>,
}

impl Site {
    fn new(kind: &str, task: Task) -> Self {
        let orders = Orders {
            path: "".into(),
            life: 0,
            level: Synced,
            mode: ReadMode::Map,
            threads: 1,
            segment_bytes: 4096,
            task,
        };
        let (disk, ledger) = (formatted(kind), Ledger::default());
        Self {
            kind: kind.to_owned(),
            disk,
            ledger,
            orders,
            dice: Dice(rig::seed()),
            fails_after: None,
        }
    }

    /// What the file system does when it is mounted is cut off like anything else; what it does
    /// when it is unmounted after the cut is of no account.
    fn live_until_cut(&mut self) {
        let stack = Stack::new(&self.kind, self.disk.clone());
        if self.orders.task == Task::Append {
            self.orders.level = self.dice.pick(&[Synced, Synced, Written]);
            self.orders.threads = self.dice.pick(&[1, 3]);
        }
        if let Some(after) = self.fails_after.take() {
            stack.disk.disk().rules.fail(Call::Write, after, Errno::EIO);
        }
        self.orders.life += 1;
        self.orders.mode = other(self.orders.mode);
        self.orders.path = stack.mount.path().join("log");
        let mut writer = Writer::start(&self.orders);
        // A log that is new is not yet what is found here.
        let least = if self.dice.once_in(4) { 0 } else { 3 };
        writer.hear_some(least + self.dice.below(80), &mut self.ledger);
        let survival = Survival::of_sectors(self.dice.next());
        self.disk = stack.disk.disk().after_cut(survival);
        self.ledger.power_was_cut();
        // What it says from now on is of a time that was not.
        let afterwards = &mut self.ledger.clone();
        match self.orders.task {
            Task::Persist => writer.kill_after_failure(afterwards),
            _ => writer.kill(afterwards),
        }
    }

    fn tell(mut self, test: &str, cuts: u64) {
        let stack = Stack::new(&self.kind, self.disk);
        self.orders.life += 1;
        self.orders.mode = other(self.orders.mode);
        self.orders.path = stack.mount.path().join("log");
        self.orders.task = Task::Check;
        let status = Writer::start(&self.orders).finish(&mut self.ledger);
        assert!(status.success(), "checking: {status}");
        let Tally { acknowledged, torn_tails, openings, .. } = self.ledger.tally;
        rig::report(&format!(
            "{test}: {cuts} cuts, {openings} openings, {torn_tails} torn tails; \
             {acknowledged} records acknowledged, nobody lost one"
        ));
    }
}

/// The parts, unmounted from the first to the last.
struct Stack {
    mount: Mount,
    _device: Loop,
    disk: DiskMount,
}

impl Stack {
    fn new(kind: &str, disk: Disk) -> Self {
        Self::attempt(kind, disk).unwrap_or_else(|error| panic!("{kind}: {error}"))
    }

    /// Gives what the kernel says if it does not take the file system any more.
    fn attempt(kind: &str, disk: Disk) -> Result<Self, String> {
        let disk = DiskMount::new(disk);
        let device = Loop::new(&image(disk.path()));
        let mount = Mount::attempt(kind, device.path(), "noatime")?;
        Ok(Self { mount, _device: device, disk })
    }
}

/// A disk with an empty file system in a file, all of it durable.
fn formatted(kind: &str) -> Disk {
    let mount = DiskMount::new(Disk::new());
    let image = image(mount.path());
    make_image(kind, &image);
    run("sync", &[&image, mount.path()]);
    mount.disk().after_cut(Survival::of_sectors(0))
}

fn image(dir: &Path) -> PathBuf {
    dir.join("image")
}

/// As small as each kind can be.
pub(crate) fn make_image(kind: &str, image: &Path) {
    let (bytes, options): (u64, &[&str]) = match kind {
        "ext4" => (16 << 20, &["-F", "-q", "-m", "0"]),
        "xfs" => (300 << 20, &["-f", "-q"]),
        "btrfs" => (128 << 20, &["-f", "-q"]),
        other => panic!("no {other} here"),
    };
    make_file(image, bytes);
    let options = options.iter().map(Path::new).chain([image]);
    run(&format!("mkfs.{kind}"), &options.collect::<Vec<&Path>>());
}
