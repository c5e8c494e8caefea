//! Full disks: appending until there is no byte left, and what a log can still do then.

#![expect(clippy::disallowed_methods, reason = "a disk is filled and freed behind a log's back")]

use crate::block::make_image;
use crate::child::read;
use crate::child::say;
use crate::disk::Disk;
use crate::kill::in_memory;
use crate::mount::DiskMount;
use crate::mount::Mount;
use crate::orders::Orders;
use crate::orders::Task;
use crate::rig;
use crate::rig::Context;
use crate::stamp::Stamp;
use crate::writer::Writer;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{ErrorKind as IoErrorKind, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;
use stratalog::Durability::{Buffered, Synced, Written};
use stratalog::{ErrorKind, Log, Options, ReadMode};

#[test]
fn full_ext4() {
    full_device("ext4");
}

#[test]
fn full_xfs() {
    full_device("xfs");
}

#[test]
fn full_btrfs() {
    full_device("btrfs");
}

#[test]
fn full_tmpfs() {
    const TEST: &str = "full tmpfs";
    if rig::has(TEST, &["tmpfs"]) {
        let mount = Mount::new("tmpfs", Path::new("tmpfs"), "size=16m");
        fill_at_each_level(TEST, mount.path());
    }
}

/// Our own disk writes a part and then refuses, byte by byte.
#[test]
fn full_disk_of_our_own() {
    const TEST: &str = "full disk of our own";
    if rig::has(TEST, &["fuse"]) {
        let mount = DiskMount::new(Disk::new());
        mount.disk().rules.limit_space(2 << 20);
        fill_at_each_level(TEST, mount.path());
    }
}

fn full_device(kind: &str) {
    let test = format!("full {kind}");
    if rig::has(&test, &["loop", kind]) {
        let dir = in_memory();
        let image = dir.path().join("image");
        make_image(kind, &image);
        let mount = Mount::new(kind, &image, "loop");
        fill_at_each_level(&test, mount.path());
    }
}

/// In a process of its own each, so that a signal is seen.
fn fill_at_each_level(test: &str, dir: &Path) {
    let mut said = Vec::new();
    for level in [Buffered, Written, Synced] {
        for mode in [ReadMode::Map, ReadMode::Pread] {
            let orders = Orders {
                path: dir.join(format!("{level:?}-{mode:?}")),
                life: 1,
                level,
                mode,
                threads: 1,
                segment_bytes: 64 << 10,
                task: Task::Fill,
            };
            let context = Context::new(format!("{test}: {orders:?}"));
            let mut writer = Writer::start(&orders);
            while let Some(line) = writer.hear() {
                said.push(format!("{level:?} {line}"));
            }
            let status = writer.status();
            assert!(status.success(), "{test}: {status}, after {said:?}");
            drop(context);
            fs::remove_dir_all(&orders.path).unwrap();
        }
    }
    rig::report(&format!("{test}: no signal, nothing lost; {}", said.join(", ")));
}

/// How much of the disk the log gets.
const SPARE: u64 = 1 << 20;

/// What the process does.
pub(crate) fn fill(orders: &Orders) {
    let dir = orders.path.parent().unwrap();
    let (most, rest) = (dir.join("ballast"), dir.join("ballast-to-the-last-byte"));
    // While there is space for a name.
    take_space(&rest, 0);
    let free = free_bytes(dir);
    reserve_space(&most, free.saturating_sub(SPARE));
    let log = options(orders).open(&orders.path).unwrap();
    let mut book = Book::new();
    while book.refused < 10 {
        book.append(&log);
    }
    book.check(&log);
    take_space(&rest, u64::MAX);
    for _ in 0..30 {
        book.append(&log);
    }
    book.check(&log);
    let at_full = book.appended.len();

    let written = log.written_offset().get();
    let closed = log.close();
    drop(log);
    let log = open_full(orders, [&rest, &most]);
    match closed {
        Ok(()) => {}
        // Nobody was promised that all would outlive the process.
        Err(error) if error.kind() == ErrorKind::StorageFull && orders.level == Buffered => {
            book.keep(log.end_offset().get(), written);
        }
        // Not marked as closed, but all is there.
        Err(error) if error.kind() == ErrorKind::StorageFull && never_writes_in_place(dir) => {
            say(format_args!("not closed when full"));
        }
        Err(error) => panic!("closing on a full disk: {error}"),
    }
    book.check(&log);
    for _ in 0..30 {
        book.append(&log);
    }
    book.check(&log);

    fs::remove_file(&rest).unwrap();
    fs::remove_file(&most).unwrap();
    let until_it_goes = append_when_there_is_space(&log, &orders.path, &mut book);
    for _ in 0..50 {
        book.append(&log);
    }
    log.sync().unwrap();
    book.check(&log);
    log.close().unwrap();
    let log = options(orders).open(&orders.path).unwrap();
    book.check(&log);
    log.close().unwrap();
    let Book { refused, .. } = book;
    say(format_args!("{at_full} records, {refused} refused, {until_it_goes} tries with space"));
}

/// Opening needs no space, but where writing over what is there does: then it is refused, until
/// there is space.
fn open_full(orders: &Orders, ballast: [&Path; 2]) -> Log {
    match options(orders).open(&orders.path) {
        Err(error)
            if error.kind() == ErrorKind::StorageFull && never_writes_in_place(ballast[0]) =>
        {
            say(format_args!("not opened when full"));
            for path in ballast {
                fs::remove_file(path).unwrap();
            }
            let opened = (0..500).find_map(|_| {
                wait_for_space(&orders.path);
                options(orders).open(&orders.path).ok()
            });
            for path in ballast {
                take_space(path, 0);
            }
            opened.expect("no opening succeeds although there is space")
        }
        result => result.unwrap(),
    }
}

/// So that no file holds space for its next bytes.
fn never_writes_in_place(path: &Path) -> bool {
    const BTRFS: i64 = 0x9123_683e;
    rustix::fs::statfs(path).unwrap().f_type == BTRFS
}

fn options(orders: &Orders) -> Options {
    orders.options().max_unsynced_bytes(128 << 10)
}

/// What a log must hold: what it said it has, and nothing else.
struct Book {
    appended: Vec<Stamp>,
    refused: u64,
}

impl Book {
    fn new() -> Self {
        Self { appended: Vec::new(), refused: 0 }
    }

    fn append(&mut self, log: &Log) {
        let seq = self.appended.len() as u64 + self.refused;
        let stamp = Stamp { life: 1, thread: 0, seq, index: 0, count: 1 + seq % 5 };
        match log.append_batch(stamp.batch().map(|stamp| stamp.record())) {
            Ok(range) => {
                assert_eq!(range.start.get(), self.appended.len() as u64);
                self.appended.extend(stamp.batch());
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
                self.refused += 1;
            }
        }
    }

    /// A first part of what was buffered is there, in whole batches, and all that was written.
    fn keep(&mut self, end: u64, written: u64) {
        assert!(end >= written, "{end} records are there, {written} were written");
        self.appended.truncate(usize::try_from(end).unwrap());
        assert!(self.appended.last().is_none_or(|last| last.index + 1 == last.count));
    }

    fn check(&self, log: &Log) {
        let found = read(log).unwrap();
        let (there, expected) = (found.len(), self.appended.len());
        assert!(found == self.appended, "{there} records are there, {expected} were appended");
        assert_eq!(log.end_offset().get(), self.appended.len() as u64);
    }
}

/// Some file systems give space back a moment after a file is gone; gives how often it was tried.
fn append_when_there_is_space(log: &Log, path: &Path, book: &mut Book) -> u64 {
    for tries in 1..=500 {
        let before = book.appended.len();
        book.append(log);
        if book.appended.len() > before {
            return tries;
        }
        wait_for_space(path);
    }
    panic!("no append succeeds although there is space");
}

fn wait_for_space(path: &Path) {
    rustix::fs::syncfs(File::open(path).unwrap()).unwrap();
    thread::sleep(Duration::from_millis(10));
}

/// Takes so many bytes without writing them, where that can be done.
fn reserve_space(path: &Path, bytes: u64) {
    let file = File::create(path).unwrap();
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes.max(1)) {
        Err(Errno::OPNOTSUPP) => take_space(path, bytes),
        result => result.unwrap(),
    }
}

/// Writes a file of so many bytes, or as many as there are.
fn take_space(path: &Path, bytes: u64) {
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    let mut left = bytes;
    let mut piece: &[u8] = &[b'x'; 64 << 10];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        match file.write(&piece[..most]) {
            Ok(written) => left -= written as u64,
            Err(error) if error.kind() != IoErrorKind::StorageFull => panic!("{error}"),
            // To the last byte, if there is space for less.
            Err(_) if piece.len() > 1 => piece = &piece[..piece.len() / 2],
            Err(_) => return,
        }
    }
}

fn free_bytes(dir: &Path) -> u64 {
    let stat = rustix::fs::statvfs(dir).unwrap();
    stat.f_bavail * stat.f_frsize
}
