//! Trouble from around the log: limits of the system, full and read-only disks, other programs that
//! touch its files. Clear errors or nothing noticed; never a wrong record, a panic or a hang.
//!
//! Limits hold for a whole process, so most of this happens in a child: this test binary, started
//! by a shell that sets the limit, running [`child`] with the name of a scenario.
//!
//! What another program does to the files of a live log is outside the contract, and this is what
//! comes of it: a removed or replaced file is read on, as it was, by those who have it open, and is
//! missing or damaged at the next opening. A file that is cut short is an error with
//! [`ReadMode::Pread`]; with [`ReadMode::Map`] the system may end the process with `SIGBUS`. A
//! `LOCK` that is removed no longer keeps a second writer out.

use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::check;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::forge;
use crate::support::full;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::read;
use crate::support::image::tiny;
use crate::support::records;
use crate::support::tail;
use crate::support::until;
use std::env;
use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use stratalog::storage::{FsStorage, Storage};
use stratalog::{Durability, ErrorKind, Log, Maintenance, Options, ReadMode, Record, Seek};

const SCENARIO: &str = "STRATALOG_SCENARIO";
const PLACE: &str = "STRATALOG_PLACE";

const SIGBUS: i32 = 7;
const SIGXFSZ: i32 = 25;

// Limits.

#[test]
fn a_file_that_may_not_grow_poisons_the_log_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (status, output) = run("append", "trap '' XFSZ; ulimit -f 64;", dir.path());
    assert!(status.success(), "{output}");
    assert!(output.contains("refused") && output.contains("acknowledged 100"), "{output}");
    check_acknowledged(dir.path(), &output);
}

#[test]
fn a_process_that_dies_of_a_file_that_may_not_grow_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (status, output) = run("append", "ulimit -f 64;", dir.path());
    assert_eq!(status.signal(), Some(SIGXFSZ), "{output}");
    check_acknowledged(dir.path(), &output);
}

#[test]
fn too_many_open_files_are_an_error_until_there_are_fewer() {
    let dir = tempfile::tempdir().unwrap();
    let (status, output) = run("descriptors", "ulimit -n 48;", dir.path());
    assert!(status.success(), "{output}");
    check_acknowledged(dir.path(), &output);
}

/// Neither a map that does not fit nor a number in a file takes more memory than there is.
#[test]
fn a_process_with_little_memory_reads_every_log_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let limit = "export MALLOC_ARENA_MAX=1; ulimit -v 400000;";
    let (status, output) = run("memory", limit, dir.path());
    assert!(status.success(), "{output}");
}

/// On a disk of its own; says so where none can be had.
#[test]
fn a_disk_that_is_full_or_read_only_is_an_error_and_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let disk = "mount -t tmpfs -o size=512k none \"$STRATALOG_PLACE\" || exit 77;";
    let there = |command: &[&str]| {
        let done = Command::new(command[0]).args(&command[1..]).stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success())
    };
    let probe = "mount -t tmpfs none /mnt";
    let way = [&["unshare", "-m"][..], &["unshare", "-rm"]]
        .into_iter()
        .find(|way| there(&[*way, &["sh", "-c", probe]].concat()));
    let Some(way) = way else {
        writeln!(io::stderr(), "not tested: no disk can be made here").unwrap();
        return;
    };
    let (status, output) = run_under(way, "disk", disk, dir.path());
    assert!(status.success(), "{output}");
}

#[test]
fn a_quota_is_a_full_disk_and_a_disk_that_became_read_only_is_not() {
    for (error, kind) in [
        (io::ErrorKind::QuotaExceeded, ErrorKind::StorageFull),
        (io::ErrorKind::ReadOnlyFilesystem, ErrorKind::Poisoned),
    ] {
        let machine = FaultyStorage::memory();
        let log = tiny(machine.process()).open(DIR).unwrap();
        append_all(&log, &tail(2));
        machine.inject(Fault::new(Op::Write, error).forever());
        let failed = log.append("no").unwrap_err();
        assert_eq!(failed.kind(), kind);
        assert!(failed.path().is_some());
        machine.heal();
        check(&log, &tail(2));
        if kind == ErrorKind::StorageFull {
            append_all(&log, &records(2..9));
            check(&log, &records(0..9));
        } else {
            assert_kind(log.append("no"), ErrorKind::Poisoned);
            machine.kill();
            let log = tiny(machine.process()).open(DIR).unwrap();
            check(&log, &tail(2));
            append_all(&log, &records(2..9));
        }
    }
}

// Other programs.

#[test]
fn a_file_that_is_cut_under_a_reader_is_an_error_with_positional_reads() {
    for cut in [0, 10, 72, 100, 800] {
        let (dir, log) = live(ReadMode::Pread);
        let mut cursor = log.cursor(Seek::Start).unwrap();
        cursor.next().unwrap();
        let segments = segments(dir.path());
        for segment in &segments {
            OpenOptions::new().write(true).open(segment).unwrap().set_len(cut).unwrap();
        }
        let error = loop {
            match cursor.next() {
                Ok(Some(entry)) => {
                    let nth = usize::try_from(entry.offset().get()).unwrap();
                    assert_eq!(Record::from(entry), full(4)[nth]);
                }
                Ok(None) => panic!("a cursor came to the end of a log that is cut"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(segments.iter().any(|path| Some(path.as_path()) == error.path()), "{error}");
        // Closing may give the file its length again, but not its bytes.
        drop(log.close());
        drop(log);
        let again = options().open(dir.path().join("log")).and_then(|log| read(&log));
        assert_kind(again, ErrorKind::Corrupt);
    }
}

/// Whatever a map shows is what was written, or the process ends.
#[test]
fn a_file_that_is_cut_under_a_map_is_an_error_or_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let (status, output) = run("cut", "", dir.path());
    assert!(status.success() || status.signal() == Some(SIGBUS), "{status}: {output}");
    assert!(!output.contains("panicked"), "{output}");
}

#[test]
fn files_that_are_removed_or_replaced_are_read_on_by_whoever_has_them_open() {
    for mode in [ReadMode::Map, ReadMode::Pread] {
        for replaces in [false, true] {
            let (dir, log) = live(mode);
            check(&log, &full(4));
            let files = segments(dir.path());
            for file in &files {
                let bytes = vec![0xee; fs::read(file).unwrap().len()];
                FsStorage::new().remove(file).unwrap();
                if replaces {
                    fs::write(file, bytes).unwrap();
                }
            }
            check(&log, &full(4));
            log.append("goes to a file that has no name").unwrap();
            log.close().unwrap();
            drop(log);
            let error = options().open(dir.path().join("log")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(files.iter().any(|path| Some(path.as_path()) == error.path()), "{error}");
        }
    }
}

/// A child inherits nothing that would keep the lock.
#[test]
fn a_log_opens_again_while_a_child_started_in_between_lives() {
    let (dir, log) = live(ReadMode::Map);
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    assert_kind(options().open(dir.path().join("log")), ErrorKind::Locked);
    log.close().unwrap();
    drop(log);
    check(&options().open(dir.path().join("log")).unwrap(), &full(4));
    child.kill().unwrap();
    child.wait().unwrap();
}

// The child.

/// Not a test unless it is started as a child.
#[test]
fn child() {
    let Ok(scenario) = env::var(SCENARIO) else { return };
    let place = PathBuf::from(env::var(PLACE).unwrap());
    match scenario.as_str() {
        "append" => append_until_refused(&place),
        "descriptors" => run_out_of_descriptors(&place),
        "memory" => read_with_little_memory(&place),
        "disk" => fill_a_disk(&place),
        "cut" => cut_under_a_map(),
        other => panic!("no scenario {other}"),
    }
}

fn append_until_refused(place: &Path) {
    let log = options().segment_bytes(1 << 20).open(place.join("log")).unwrap();
    for nth in 0..2000 {
        match log.append(value(nth)) {
            Ok(offset) => say(&format!("acknowledged {}", offset + 1)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
                assert!(error.path().is_some(), "{error}");
                assert_kind(log.append("more"), ErrorKind::Poisoned);
                let read = read(&log).unwrap();
                assert_eq!(read.len() as u64, nth, "what was acknowledged is still read");
                assert!(log.close().is_err());
                return say("refused");
            }
        }
    }
}

fn run_out_of_descriptors(place: &Path) {
    let place = place.join("log");
    let options = || Options::new().maintenance(Maintenance::Manual).segment_bytes(512);
    drop(options().open(&place).unwrap());
    let hoard = || -> Vec<_> {
        std::iter::from_fn(|| OpenOptions::new().read(true).open("/dev/null").ok()).collect()
    };
    for spare in 0..8 {
        let mut hoard = hoard();
        hoard.truncate(hoard.len() - spare);
        if let Err(error) = options().open(&place) {
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert!(error.path().is_some(), "{error}");
        }
    }
    let log = options().open(&place).unwrap();
    let (mut count, mut refused) = (log.end_offset().get(), 0);
    for spare in (0..8).chain(0..4) {
        let mut hoard = hoard();
        hoard.truncate(hoard.len() - spare);
        for level in [Durability::Synced, Durability::Written, Durability::Synced] {
            match log.append_with(level, value(count)) {
                Ok(_) => count += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                    refused += 1;
                }
            }
        }
        drop(hoard);
        // Nothing happened, so nothing is poisoned.
        log.append(value(count)).unwrap();
        count += 1;
        assert_eq!(read(&log).unwrap().len() as u64, count);
    }
    assert!(refused > 3, "{refused} appends met the limit");
    log.close().unwrap();
    say(&format!("acknowledged {count}"));
}

fn read_with_little_memory(place: &Path) {
    let much = Vec::<u8>::new().try_reserve_exact(1 << 30);
    assert!(much.is_err(), "the limit does not hold");
    let log = options().segment_bytes(2 << 30).open(place.join("large map")).unwrap();
    append_all(&log, &full(4));
    check(&log, &full(4));
    log.close().unwrap();
    // Numbers that ask for a gigabyte or more, with checksums that fit.
    let whole = forged();
    for (name, field) in whole.0.keys().flat_map(|name| (0..40).map(move |field| (name, field))) {
        for number in [1 << 30, u32::MAX - 8, u32::MAX] {
            let mut image = whole.clone();
            let bytes = image.bytes(name);
            let at = if name == "MANIFEST" { 4 * field } else { 72 + 4 * (field % 24) };
            let Some(place) = bytes.get_mut(at..at + 4) else { continue };
            place.copy_from_slice(&number.to_le_bytes());
            if name == "MANIFEST" {
                *bytes = forge::resealed(bytes.clone());
            } else {
                let crc = header_crc(&bytes[76..112]);
                bytes[72..76].copy_from_slice(&crc.to_le_bytes());
            }
            drop(image.open().and_then(|log| read(&log)));
        }
    }
    // And files that have nothing in them, but much of it.
    let path = place.join("sparse");
    for name in whole.0.keys() {
        whole.put(&FsStorage::new(), &path);
        OpenOptions::new().write(true).open(path.join(name)).unwrap().set_len(1 << 40).unwrap();
        drop(options().open(&path).and_then(|log| read(&log)));
        fs::remove_dir_all(&path).unwrap();
    }
}

fn fill_a_disk(place: &Path) {
    let path = place.join("log");
    let options = || Options::new().maintenance(Maintenance::Manual).segment_bytes(16 << 10);
    let ballast = place.join("ballast");
    fs::write(&ballast, vec![1; 100 << 10]).unwrap();
    let log = options().open(&path).unwrap();
    let mut count = 0;
    let fill = |log: &Log, count: &mut u64| loop {
        match log.append(value(*count)) {
            Ok(_) => *count += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
                assert!(error.path().is_some(), "{error}");
                break;
            }
        }
    };
    fill(&log, &mut count);
    assert_eq!(read(&log).unwrap().len() as u64, count);
    FsStorage::new().remove(&ballast).unwrap();
    let before = count;
    fill(&log, &mut count);
    assert!(count > before, "space came back, and it was not used");
    drop(log);
    // On the full disk.
    let log = options().open(&path).unwrap();
    assert_eq!(read(&log).unwrap().len() as u64, count);
    drop(log);
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(place).status().unwrap();
    assert!(remounted.success());
    for create in [true, false] {
        let error = options().create(create).open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.path().is_some_and(|at| at.starts_with(&path)), "{error}");
    }
}

fn cut_under_a_map() {
    let (dir, log) = live(ReadMode::Map);
    let mut cursor = log.cursor(Seek::Start).unwrap();
    cursor.next().unwrap();
    for segment in segments(dir.path()) {
        OpenOptions::new().write(true).open(segment).unwrap().set_len(0).unwrap();
    }
    while let Ok(Some(entry)) = cursor.next() {
        let nth = usize::try_from(entry.offset().get()).unwrap();
        assert_eq!(Record::from(entry), full(4)[nth]);
    }
    // Its files are gone, so it cannot be closed as if nothing had happened.
    std::process::exit(0);
}

// Words of this file.

fn options() -> Options {
    Options::new().maintenance(Maintenance::Manual).segment_bytes(1024)
}

/// A log on disk that is open, a record a segment.
fn live(mode: ReadMode) -> (tempfile::TempDir, Log) {
    let dir = tempfile::tempdir().unwrap();
    let log = options().read_mode(mode).open(dir.path().join("log")).unwrap();
    append_all(&log, &full(4));
    (dir, log)
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|name| name.extension().is_some_and(|kind| kind == "log")).collect()
}

fn value(nth: u64) -> String {
    format!("{nth:0200}")
}

/// A line for the parent.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{line}").unwrap();
}

/// A closed log of one segment with a record.
fn forged() -> Image {
    let mut bytes = forge::segment(1, 0);
    bytes.extend(forge::frame(0, b"a value"));
    let byte_len = bytes.len() as u64;
    let row = forge::Row { id: 1, base: 0, end: 1, byte_len, state: forge::ACTIVE };
    let mut image = Image::default();
    image.0.insert("MANIFEST".into(), forge::manifest(forge::OPEN, 0, &[row]));
    image.0.insert(forge::segment_name(1, 0), bytes);
    image
}

fn header_crc(covered: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(forge::SEED);
    hasher.update(covered);
    hasher.finalize()
}

fn run(scenario: &str, limit: &str, place: &Path) -> (ExitStatus, String) {
    run_under(&[], scenario, limit, place)
}

/// Runs a scenario in a child that begins with some lines of shell; gives what it printed.
fn run_under(way: &[&str], scenario: &str, shell: &str, place: &Path) -> (ExitStatus, String) {
    let script = format!("{shell} exec \"$0\" \"$@\"");
    let words = [way, &["sh", "-c", &script]].concat();
    let child = Command::new(words[0])
        .args(&words[1..])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "environment::child", "--nocapture", "--test-threads=1"])
        .env(SCENARIO, scenario)
        .env(PLACE, place)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait(child)
}

/// Waits for a child, but not for ever.
fn wait(mut child: Child) -> (ExitStatus, String) {
    let mut pipes = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let child = Mutex::new(child);
    std::thread::scope(|scope| {
        let errors = scope.spawn(|| {
            let mut text = String::new();
            pipes.1.read_to_string(&mut text).map(|_| text)
        });
        let output = scope.spawn(|| {
            let mut text = String::new();
            pipes.0.read_to_string(&mut text).map(|_| text)
        });
        let ended = std::panic::catch_unwind(|| {
            until(|| child.lock().unwrap().try_wait().unwrap().is_some());
        });
        let mut child = child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if ended.is_err() {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        let output = output.join().unwrap().unwrap() + &errors.join().unwrap().unwrap();
        assert!(ended.is_ok(), "the child did not end: {output}");
        (status, output)
    })
}

/// The log has all that a child acknowledged, and goes on.
fn check_acknowledged(dir: &Path, output: &str) {
    let numbers = output.lines().filter_map(|line| line.strip_prefix("acknowledged "));
    let acknowledged = numbers.map(|number| number.parse::<u64>().unwrap()).max().unwrap_or(0);
    let log = options().open(dir.join("log")).unwrap();
    let found = read(&log).unwrap();
    assert!(found.len() as u64 >= acknowledged, "{} of {acknowledged}", found.len());
    for (nth, record) in (0..).zip(found) {
        assert_eq!(record, Record::new(value(nth)));
    }
    log.append("next").unwrap();
    log.close().unwrap();
}
