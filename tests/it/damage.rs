//! Damage by the piece: sectors, files, tails and sizes, with a bound on what looking at it costs.
//!
//! Everything that can happen to the files of a log, and where it is tried: *byte* is
//! `corruption.rs`, *env* is `environment.rs`, *here* this file, and the others are called as they
//! are. All that concerns bytes goes through `fuzz/` too, in any combination.
//!
//! | what | where |
//! |---|---|
//! | each bit and byte changed, each file cut at each length | byte |
//! | sectors (64 B, 512 B, 4 KiB) zeroed, 0xFF, garbage, twice, exchanged | byte, here |
//! | sectors of an earlier time, of another segment, of another log | byte, here |
//! | files empty, garbage, older, exchanged, of another log | hostile, here |
//! | files missing: first, middle, last, the manifest | recovery |
//! | 1 to 1024 bytes of garbage behind the end | here |
//! | zeros, 0xFF and ones up to a GiB behind the end | here |
//! | false headers, frames of an earlier life behind the end | hostile, forged |
//! | lengths of frames: 0, 1, largest, to the end, beside it, into the next, over | forged |
//! | frames twice, exchanged, moved, inside a value, behind 4 GiB | byte, forged, hostile |
//! | offsets, counts, times, gaps: again, skipped, back, over | forged, hostile |
//! | records: long varints, unknown flags, lengths past the body, no UTF-8 | hostile, `format/` |
//! | headers: magic, version, reserved bytes, another identity | recovery, hostile, `format/` |
//! | sizes that are not true: TiB, 8 EiB, `u64::MAX` | hostile, here |
//! | names nearly ours, highest numbers, no UTF-8, two for one file | hostile, here |
//! | links, pipes, sockets, devices, directories in the place of a file | hostile, here |
//! | manifest older, newer, of another log, lying, ids used up | recovery, hostile, forged |
//! | segments that overlap, leave a gap of one, thousands of them | here, recovery |
//! | index missing, garbage, of another segment, lying | byte |
//! | index unreadable, or of TiB of zeros | here, hostile |
//! | disk full, quota, read-only; file size, descriptors, address space | failure, env |
//! | files cut, replaced or removed under a live log; a child in between | env |
//! | two opens, in one process and in two; kill; a clock that goes back | options, kill, time |
//!
//! What remains: damage to the last frames that were synced, with no later mark behind them, is
//! taken for a torn tail; a whole directory restored from an older copy is a log like any other.

use crate::support::append_all;
use crate::support::at;
use crate::support::check;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::forge;
use crate::support::forge::ACTIVE;
use crate::support::forge::CLOSED;
use crate::support::forge::SEALED;
use crate::support::gauge::Gauge;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::read_rows;
use crate::support::image::tiny;
use crate::support::medium::Numbers;
use crate::support::model::Row;
use crate::support::records;
use crate::support::tail;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use stratalog::storage::{FsStorage, Storage};
use stratalog::{ErrorKind, Log, Maintenance, Options, Record};

#[test]
fn no_sector_can_be_lost_misdirected_or_garbled_unseen() {
    let logs = [sized(0), sized(1)];
    let (whole, older, rows) = &logs[0];
    let mut noticed = 0;
    for (name, sector) in whole.0.keys().flat_map(|name| [512, 4096].map(|sector| (name, sector))) {
        let len = whole.0[name].len();
        for from in (0..len).step_by(sector) {
            let range = from..len.min(from + sector);
            let there = |image: &Image, name: &str, from: usize| {
                let bytes = image.0.get(name)?.get(from..from + range.len())?;
                Some(bytes.to_vec())
            };
            let other = whole.0.keys().find(|other| *other != name && other.ends_with("log"));
            let put = [
                Some(vec![0; range.len()]),
                Some(vec![0xff; range.len()]),
                Some(garbage(from as u64, range.len())),
                // Another sector of the file, this one of another segment, of an earlier time, of
                // another log.
                there(whole, name, if from == 0 { sector } else { from - sector }),
                there(whole, other.unwrap(), from),
                there(older, name, from),
                there(&logs[1].0, name, from),
            ];
            for (nth, bytes) in put.into_iter().enumerate() {
                let Some(bytes) = bytes else { continue };
                let mut image = whole.clone();
                image.bytes(name)[range.clone()].copy_from_slice(&bytes);
                let what = format!("{name}, {range:?}, way {nth}");
                noticed += u32::from(!is_all_there(&image, rows, &what));
            }
        }
    }
    assert!(noticed > 200, "{noticed} were noticed");
}

#[test]
fn no_file_can_be_exchanged_unseen() {
    let logs = [sized(0), sized(1)];
    let (whole, older, rows) = &logs[0];
    for name in whole.0.keys() {
        let len = whole.0[name].len();
        let mut files = vec![vec![0; len], vec![0xff; len], garbage(7, len), Vec::new()];
        files.extend(whole.0.values().cloned());
        files.extend(older.0.get(name).cloned());
        files.extend(logs[1].0.0.values().cloned());
        for (nth, bytes) in files.into_iter().enumerate() {
            let mut image = whole.clone();
            *image.bytes(name) = bytes;
            is_all_there(&image, rows, &format!("{name}, file {nth}"));
        }
    }
}

#[test]
fn garbage_behind_the_end_is_cut_or_not_looked_at_whatever_its_length() {
    let (whole, _, rows) = sized(0);
    let mut unclosed = killed(&tail(5));
    let active = unclosed.last();
    let end = end_of_frames(unclosed.bytes(&active));
    unclosed.bytes(&active).truncate(end);
    for len in (1..=64).chain((65..=1024).step_by(7)) {
        let more = garbage(len as u64, len);
        let mut image = unclosed.clone();
        image.bytes(&active).extend(&more);
        let log = image.open().unwrap();
        check(&log, &tail(5));
        assert_eq!(log.recovery().cut_at(), Some(at(5)));
        // Zeros at its end are not known to be garbage.
        assert!((1..=len as u64).contains(&log.recovery().cut_bytes()));
        if len % 16 == 1 {
            for name in whole.0.keys().filter(|name| name.ends_with(".log")) {
                let mut image = whole.clone();
                image.bytes(name).extend(&more);
                let log = image.open().unwrap();
                assert_eq!(read_rows(&log).unwrap(), rows, "{name}");
            }
        }
    }
}

/// A gigabyte in builds that are fast, in the others what they get through in the same time.
const LONG: u64 = if cfg!(debug_assertions) { 32 << 20 } else { 1 << 30 };

/// Zeros are space for what comes next, anything else is torn off. Either way each byte is looked
/// at a few times at most, and never many at once.
#[test]
fn a_tail_of_any_length_is_looked_at_once_or_twice() {
    let image = {
        let mut image = killed(&tail(5));
        let name = image.last();
        let end = end_of_frames(image.bytes(&name));
        image.bytes(&name).truncate(end);
        image
    };
    let path = Path::new(DIR).join(image.last());
    let len = image.0[&image.last()].len() as u64;
    let lengths = [1, 7, 8, 39, 40, 41, 511, 512, 4096, 1 << 20, LONG];
    for (byte, more) in [0, 0xff, 1].iter().flat_map(|byte| lengths.map(|more| (*byte, more))) {
        let gauge = Gauge::over(image.storage()).lengthen(path.clone(), len + more, byte);
        let log = tiny(Arc::new(gauge.clone())).open(DIR).unwrap();
        assert_eq!(log.recovery().cut_at(), (byte != 0).then_some(at(5)), "{more} of {byte}");
        assert_eq!(log.recovery().cut_bytes(), if byte == 0 { 0 } else { more });
        assert!(gauge.read_bytes() < 4 * (len + more) + 10_000, "{}", gauge.read_bytes());
        assert!(gauge.largest_read() <= 256 << 10, "{}", gauge.largest_read());
        check(&log, &tail(5));
    }
}

/// An index, manifest or segment that seems larger than any disk costs nothing.
#[test]
fn sizes_that_no_file_can_have_are_refused_or_not_believed() {
    for (image, flags) in [(closed(&records(0..30)), CLOSED), (killed(&records(0..30)), 0)] {
        for name in image.0.keys() {
            for size in [(1 << 33) + 1, 2 << 40, i64::MAX.cast_unsigned(), u64::MAX - 7, u64::MAX] {
                let path = Path::new(DIR).join(name);
                let gauge = Gauge::over(image.storage()).lengthen(path.clone(), size, 0);
                let what = format!("{name} of {size}");
                match tiny(Arc::new(gauge.clone())).open(DIR) {
                    Ok(log) => check(&log, &records(0..30)),
                    // A segment of 8 GiB would be looked at.
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
                        assert_eq!(error.path(), Some(path.as_path()), "{what}");
                    }
                }
                let (read, largest) = (gauge.read_bytes(), gauge.largest_read());
                assert!(read < 1_000_000 && largest <= 1 << 20, "{what}, {flags}: {read}");
            }
        }
    }
}

#[test]
fn an_index_that_cannot_be_read_makes_no_difference() {
    let all = records(0..30);
    for op in [Op::Open, Op::Read, Op::Size] {
        let machine = FaultyStorage::memory();
        let log = tiny(machine.process()).open(DIR).unwrap();
        append_all(&log, &all);
        log.close().unwrap();
        drop(log);
        machine.inject(Fault::new(op, std::io::ErrorKind::Other).on(".index").forever());
        check(&tiny(machine.process()).open(DIR).unwrap(), &all);
    }
}

/// The second segment begins one before or one behind the end of the first.
#[test]
fn segments_that_overlap_or_leave_a_gap_are_refused() {
    for (base, flags) in [(3, CLOSED), (5, CLOSED), (3, 0), (5, 0)] {
        let mut first = forge::segment(1, 0);
        (0..4).for_each(|at| first.extend(forge::frame(at, b"first")));
        let mut second = forge::segment(2, base);
        (base..base + 4).for_each(|at| second.extend(forge::frame(at, b"second")));
        let row = |id, base, bytes: &[u8], state| {
            let byte_len = bytes.len() as u64;
            forge::Row { id, base, end: base + 4, byte_len, state }
        };
        let rows = [row(1, 0, &first, SEALED), row(2, base, &second, ACTIVE)];
        let mut image = Image::default();
        image.0.insert("MANIFEST".into(), forge::manifest(flags, 0, &rows));
        // And with a manifest that hides it.
        let mut hidden = image.clone();
        let rows = [rows[0], forge::Row { base: 4, end: 8, ..rows[1] }];
        *hidden.bytes("MANIFEST") = forge::manifest(flags, 0, &rows);
        for (mut image, named) in [(image, base), (hidden, 4)] {
            image.0.insert(forge::segment_name(1, 0), first.clone());
            image.0.insert(forge::segment_name(2, named), second.clone());
            let error = image.open().and_then(|log| read_rows(&log)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{base}: {error}");
            assert!(error.path().is_some() && error.position().is_some(), "{error}");
        }
    }
}

// On the file system, for what only it has.

#[test]
fn names_that_are_no_unicode_or_of_the_last_segment_there_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    closed(&records(0..30)).put(&FsStorage::new(), &path);
    let odd = [
        &b"00000000000000000000-00000001.log\xff"[..],
        b"\xff\xfe.log",
        b"MANIFEST\x80",
        b"00000000000000000000\x80-00000001.log",
    ];
    for name in odd {
        fs::write(path.join(OsStr::from_bytes(name)), "not ours").unwrap();
    }
    let last = path.join(forge::segment_name(u64::MAX, u64::MAX));
    fs::write(&last, [0; 72]).unwrap();
    let open = || on_disk().open(&path);
    check(&open().unwrap(), &records(0..30));
    for name in odd {
        assert!(path.join(OsStr::from_bytes(name)).exists());
    }
    assert!(!last.exists(), "a segment that was only begun is garbage");
    fs::write(&last, [0; 73]).unwrap();
    let error = open().unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Corrupt, Some(last.as_path())));
}

/// Two names for one file: the one that is not in the manifest goes, the other one stays.
#[test]
fn a_second_name_of_a_segment_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let image = closed(&records(0..30));
    image.put(&FsStorage::new(), &path);
    for (nth, name) in image.segments().iter().enumerate() {
        let outside = dir.path().join(format!("backup {nth}"));
        fs::hard_link(path.join(name), &outside).unwrap();
        let again = path.join(forge::segment_name(1, 1000 + nth as u64));
        fs::hard_link(path.join(name), &again).unwrap();
        let log = on_disk().open(&path).unwrap();
        check(&log, &records(0..30));
        log.close().unwrap();
        assert!(!again.exists() && outside.exists());
        // In the place of another segment it is that one's damage.
        let next = &image.segments()[(nth + 1) % image.segments().len()];
        let aside = dir.path().join("aside");
        move_file(&path.join(next), &aside);
        fs::hard_link(path.join(name), path.join(next)).unwrap();
        let error = on_disk().open(&path).and_then(|log| read_rows(&log)).unwrap_err();
        assert_eq!(error.path(), Some(path.join(next).as_path()));
        move_file(&aside, &path.join(next));
    }
}

/// Says so where devices cannot be made.
#[test]
fn a_socket_or_device_in_the_place_of_a_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let image = closed(&records(0..30));
    image.put(&FsStorage::new(), &path);
    let aside = dir.path().join("aside");
    let null = rustix::fs::makedev(1, 3);
    for name in image.0.keys().chain([&"LOCK".to_owned()]).filter(|name| !name.ends_with("next")) {
        let file = path.join(name);
        drop(FsStorage::new().lock(&path.join("LOCK")).unwrap());
        move_file(&file, &aside);
        for kind in ["socket", "device"] {
            if kind == "socket" {
                drop(UnixListener::bind(&file).unwrap());
            } else {
                let mode = rustix::fs::Mode::RWXU;
                let device = rustix::fs::FileType::CharacterDevice;
                let made = rustix::fs::mknodat(rustix::fs::CWD, &file, device, mode, null);
                if made.is_err() {
                    writeln!(std::io::stderr(), "not tested: no device can be made").unwrap();
                    continue;
                }
            }
            match on_disk().open(&path).and_then(|log| read_rows(&log)) {
                Ok(rows) => assert!(name.ends_with(".index") && rows.len() == 30, "{name}: {kind}"),
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Corrupt), "{error}");
                    assert_eq!(error.path(), Some(file.as_path()), "{name}: {kind}");
                }
            }
            FsStorage::new().remove(&file).unwrap();
        }
        move_file(&aside, &file);
    }
    check(&on_disk().open(&path).unwrap(), &records(0..30));
}

// Words of this file.

fn on_disk() -> Options {
    Options::new().maintenance(Maintenance::Manual).segment_bytes(512)
}

fn move_file(from: &Path, to: &Path) {
    FsStorage::new().rename(from, to).unwrap();
}

/// Whether all is there; if it is not, an error says where the damage is.
#[track_caller]
fn is_all_there(image: &Image, rows: &[Row], what: &str) -> bool {
    match open(image).and_then(|log| read_rows(&log)) {
        Ok(found) => {
            assert_eq!(found, rows, "{what}");
            true
        }
        Err(error) => {
            let kinds = [ErrorKind::Corrupt, ErrorKind::UnsupportedVersion];
            assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
            assert!(error.path().is_some(), "{what}: {error}");
            false
        }
    }
}

fn open(image: &Image) -> stratalog::Result<Log> {
    tiny(Arc::new(image.storage())).segment_bytes(6000).open(DIR)
}

/// A closed log of three segments of some sectors, with an identity of its own, as it was halfway,
/// and what is in it.
fn sized(identity: u64) -> (Image, Image, Vec<Row>) {
    let machine = FaultyStorage::memory();
    for _ in 0..identity * 50 {
        machine.process().random();
    }
    let log = tiny(machine.process()).segment_bytes(6000).open(DIR).unwrap();
    let all: Vec<_> = (0..28).map(|nth| Record::new(format!("{identity}, {nth:0500}"))).collect();
    append_all(&log, &all[..18]);
    let older = Image::of(&*machine.process());
    append_all(&log, &all[18..]);
    let rows = read_rows(&log).unwrap();
    log.close().unwrap();
    let mut image = Image::of(&*machine.process());
    image.0.remove("MANIFEST.next");
    assert_eq!(image.segments().len(), 3);
    (image, older, rows)
}

fn closed(records: &[Record<'_>]) -> Image {
    let machine = FaultyStorage::memory();
    let log = tiny(machine.process()).open(DIR).unwrap();
    append_all(&log, records);
    log.close().unwrap();
    Image::of(&*machine.process())
}

fn killed(records: &[Record<'_>]) -> Image {
    let machine = FaultyStorage::memory();
    let log = tiny(machine.process()).open(DIR).unwrap();
    append_all(&log, records);
    machine.kill();
    Image::of(&*machine.process())
}

fn garbage(seed: u64, len: usize) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    (0..len).map(|_| u8::try_from(1 + numbers.below(255)).unwrap()).collect()
}

/// Where the last frame of a segment ends.
fn end_of_frames(bytes: &[u8]) -> usize {
    let mut at = 72;
    while at + 40 <= bytes.len() && bytes[at + 36] == 1 {
        let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
        at += (40 + usize::try_from(len).unwrap()).next_multiple_of(8);
    }
    at
}
