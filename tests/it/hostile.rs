//! What nobody wrote with this crate: wrong paths, wrong files, wrong names, wrong numbers. None of
//! it panics, hangs, takes memory for what it claims, or is changed.

use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::assert_out_of_range;
use crate::support::at;
use crate::support::check;
use crate::support::forge;
use crate::support::forge::ACTIVE;
use crate::support::forge::CLOSED;
use crate::support::forge::HEADER_LEN;
use crate::support::forge::Row;
use crate::support::forge::SEALED;
use crate::support::full;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::read;
use crate::support::image::tiny;
use crate::support::records;
use crate::support::tail;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stratalog::storage::{FsStorage, MemoryStorage};
use stratalog::{Durability, Error, ErrorKind, Log, Maintenance, Offset, Options, Position};
use stratalog::{ReadMode, Record, Result, Seek};
use tempfile::TempDir;

// The path.

#[test]
fn a_path_that_is_a_file_is_invalid() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "mine").unwrap();
    for create in [true, false] {
        let error = on_disk().create(create).open(&path).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::InvalidInput, Some(path.as_path())));
        assert_kind(on_disk().create(create).open(path.join("log")), ErrorKind::InvalidInput);
    }
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}

#[test]
fn a_missing_log_that_is_not_to_be_made_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/log");
    let error = on_disk().create(false).open(&path).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Io, Some(path.as_path())));
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}

/// Says so and does nothing where permissions do not bind, as for root.
#[test]
fn a_directory_without_permission_is_an_io_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    drop(on_disk().open(&path).unwrap());
    let allow = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    allow(0o000);
    if fs::read_dir(&path).is_ok() {
        writeln!(std::io::stderr(), "not tested: permissions do not bind this user").unwrap();
    } else {
        assert_kind(on_disk().open(&path), ErrorKind::Io);
        allow(0o500);
        assert_kind(on_disk().open(&path), ErrorKind::Io);
    }
    allow(0o700);
    drop(on_disk().open(&path).unwrap());
}

// Files that are none, or not ours.

#[test]
fn a_link_or_pipe_or_directory_in_the_place_of_a_file_is_an_error_and_is_not_followed() {
    let (_dir, path) = log_on_disk(&full(4));
    let mut image = Image::of_dir(&FsStorage::new(), &path);
    image.0.retain(|name, _| !name.ends_with(".next"));
    for name in image.0.keys() {
        let file = path.join(name);
        let aside = path.join("aside");
        for put in [link, dangle, pipe, directory] {
            fs::copy(&file, &aside).unwrap();
            remove(&file);
            put(&file, &aside);
            let outcome = on_disk().open(&path).and_then(|log| read(&log));
            if name.ends_with(".index") {
                assert_eq!(outcome.unwrap(), full(4));
            } else {
                assert!(matches!(outcome.unwrap_err().kind(), ErrorKind::Io | ErrorKind::Corrupt));
            }
            if file.is_dir() && !file.is_symlink() {
                fs::remove_dir(&file).unwrap();
            } else {
                remove(&file);
            }
            fs::copy(&aside, &file).unwrap();
            remove(&aside);
        }
    }
    check(&on_disk().open(&path).unwrap(), &full(4));
}

fn link(file: &Path, aside: &Path) {
    symlink(aside, file).unwrap();
}

fn dangle(file: &Path, _: &Path) {
    symlink("nowhere", file).unwrap();
}

fn pipe(file: &Path, _: &Path) {
    let mode = rustix::fs::Mode::RWXU;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, file, kind, mode, 0).unwrap();
}

fn directory(file: &Path, _: &Path) {
    fs::create_dir(file).unwrap();
}

/// Links and the like with names of ours that no manifest names are nobody's business.
#[test]
fn links_and_pipes_and_directories_that_nothing_names_are_left_alone() {
    let (_dir, path) = log_on_disk(&tail(3));
    let names = [(900, 7), (901, 8), (902, 9)].map(|(id, base)| forge::segment_name(id, base));
    symlink("nowhere", path.join(&names[0])).unwrap();
    pipe(&path.join(&names[1]), &path);
    directory(&path.join(&names[2]), &path);
    for _ in 0..2 {
        let log = on_disk().open(&path).unwrap();
        check(&log, &tail(3));
        log.close().unwrap();
    }
    for name in names {
        assert!(fs::symlink_metadata(path.join(name)).is_ok());
    }
}

#[test]
fn files_whose_names_are_nearly_ours_are_left_alone() {
    let storage = MemoryStorage::new();
    let log = tiny(Arc::new(storage.clone())).open(DIR).unwrap();
    append_all(&log, &records(0..30));
    log.close().unwrap();
    let mut image = Image::of(&storage);
    for name in NEARLY_OURS {
        image.0.insert((*name).to_owned(), b"STRATSEG, or nearly".to_vec());
    }
    let storage = image.storage();
    for _ in 0..2 {
        let log = tiny(Arc::new(storage.clone())).open(DIR).unwrap();
        assert!(log.recovery().is_clean());
        check(&log, &records(0..30));
        log.close().unwrap();
    }
    let after = Image::of(&storage);
    for name in NEARLY_OURS {
        assert_eq!(after.0.get(*name), image.0.get(*name), "{name}");
    }
}

const NEARLY_OURS: &[&str] = &[
    "0.log",
    "1.log",
    "01.log",
    "00000000000000000000.log",
    "00000000000000000000-1.log",
    "00000000000000000000-00000000.log",
    "00000000000000000000-000000001.log",
    "0000000000000000000-00000001.log",
    "000000000000000000000-00000001.log",
    "+0000000000000000000-00000001.log",
    "-0000000000000000001-00000001.log",
    "00000000000000000000-+0000001.log",
    "0x000000000000000000-00000001.log",
    "18446744073709551616-00000001.log",
    "99999999999999999999-00000001.log",
    "00000000000000000000-18446744073709551616.log",
    "00000000000000000000-00000001.LOG",
    "00000000000000000000-00000001.Log",
    "00000000000000000000-00000001.log.tmp",
    "00000000000000000000-00000001.log~",
    "00000000000000000000-00000001.log ",
    " 00000000000000000000-00000001.log",
    "._00000000000000000000-00000001.log",
    "00000000000000000000-00000001",
    "00000000000000000000-00000001.indexes",
    "00000000000000000000_00000001.log",
    "00000000000000000000-00000001.log.log",
    "٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠٠-٠٠٠٠٠٠٠١.log",
    "manifest",
    "MANIFEST.",
    "MANIFEST.next.next",
    "MANIFEST~",
    "lock",
    "LOCK.pid",
    ".DS_Store",
    ".log",
    "-.log",
];

#[test]
fn a_segment_of_another_log_or_another_segment_of_this_one_is_refused() {
    let whole = closed(&records(0..30));
    let other = closed_as(5, &records(0..30));
    let names = whole.segments();
    for (nth, name) in names.iter().enumerate() {
        let swapped = &whole.0[&names[(nth + 1) % names.len()]];
        for bytes in [&other.0[name], swapped] {
            let mut image = whole.clone();
            *image.bytes(name) = bytes.clone();
            let error = open_and_read(&image).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert_eq!(error.path(), Some(Path::new(DIR).join(name).as_path()));
            // By its header, not by what happens to be behind it.
            assert_eq!(error.position(), Some(Position::new(0)));
        }
    }
}

#[test]
fn an_older_segment_of_the_same_name_is_refused() {
    let storage = MemoryStorage::new();
    let log = tiny(Arc::new(storage.clone())).open(DIR).unwrap();
    append_all(&log, &tail(2));
    let backup = Image::of(&storage);
    append_all(&log, &tail(2));
    log.close().unwrap();
    let mut image = Image::of(&storage);
    let name = image.last();
    let ends = image.bytes(&name).len();
    let mut old = backup.0[&name].clone();
    old.truncate(ends);
    old[ends - 90..].fill(0);
    *image.bytes(&name) = old;
    assert_eq!(open_and_read(&image).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn empty_files_are_errors_or_nothing() {
    let whole = closed(&records(0..30));
    for name in whole.0.keys().cloned().collect::<Vec<_>>() {
        let mut image = whole.clone();
        image.bytes(&name).clear();
        let cache = name.ends_with(".index") || name == "MANIFEST.next";
        match open_and_read(&image) {
            Ok(found) => assert!(cache && found == records(0..30), "{name}"),
            Err(error) => assert!(!cache && error.kind() == ErrorKind::Corrupt, "{name}: {error}"),
        }
    }
}

// Sizes that are not true.

#[test]
fn a_manifest_of_a_tebibyte_is_refused_at_once() {
    let (_dir, path) = log_on_disk(&tail(3));
    grow(&path.join("MANIFEST"), 1 << 40);
    let error = on_disk().open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(error.path(), Some(path.join("MANIFEST").as_path()));
}

#[test]
fn an_active_segment_of_a_tebibyte_is_refused_at_once() {
    let (_dir, path) = log_on_disk(&tail(3));
    let segment = last_segment(&path);
    grow(&segment, 1 << 40);
    let error = on_disk().open(&path).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Corrupt, Some(segment.as_path())));
}

#[test]
fn a_sealed_segment_and_an_index_of_a_tebibyte_are_not_read_behind_their_ends() {
    for mode in [ReadMode::Map, ReadMode::Pread] {
        let (_dir, path) = log_on_disk(&full(3));
        for entry in fs::read_dir(&path).unwrap() {
            let file = entry.unwrap().path();
            let sealed = file != last_segment(&path) && file.extension().is_some();
            if sealed && !file.ends_with("MANIFEST.next") {
                grow(&file, 1 << 40);
            }
        }
        let log = on_disk().read_mode(mode).open(&path).unwrap();
        check(&log, &full(3));
    }
}

#[test]
fn an_active_segment_with_many_zeros_behind_it_opens() {
    let (_dir, path) = log_on_disk(&tail(3));
    grow(&last_segment(&path), 16 << 20);
    check(&on_disk().open(&path).unwrap(), &tail(3));
}

/// A tail that looks like a frame header at every place where one can begin.
#[test]
fn a_tail_full_of_false_headers_is_cut_in_time() {
    let mut image = closed(&tail(3));
    let name = image.last();
    let mut false_header = [0xee; 40];
    false_header[36..40].copy_from_slice(&[1, 0, 0, 0]);
    for _ in 0..50_000 {
        image.bytes(&name).extend(false_header);
    }
    let log = image.open().unwrap();
    assert_eq!(log.recovery().cut_at(), Some(at(3)));
    check(&log, &tail(3));
}

// Frames inside records, and records that are none.

#[test]
fn frames_inside_a_value_are_never_taken_for_frames() {
    let storage = MemoryStorage::new();
    let log = tiny(Arc::new(storage.clone())).segment_bytes(64 << 10).open(DIR).unwrap();
    append_all(&log, &tail(2));
    let mut image = Image::of(&storage);
    let frames = image.bytes(&image.last())[72..400].to_vec();
    drop(log);
    // The segment itself, as a value, in all eight alignments.
    let values: Vec<_> = (0..8).map(|pad| [vec![b' '; pad], frames.clone()].concat()).collect();
    let log = tiny(Arc::new(storage.clone())).segment_bytes(64 << 10).open(DIR).unwrap();
    log.append(Record::new(values.concat())).unwrap();
    log.append("behind it").unwrap();
    let mut image = Image::of(&storage);
    let name = image.last();
    let begin = image.0[&name].windows(3).position(|three| three == b"   ").unwrap();
    image.bytes(&name)[begin] ^= 1;
    drop(log);
    let error = image.open().unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::Corrupt, Some(at(2))));
}

#[test]
fn bodies_that_are_no_records_are_corrupt_though_their_checksums_fit() {
    let bodies: &[(u32, &[u8])] = &[
        (1, &[0]),
        (1, &[0, 5, b'a']),
        (2, &[0, 1, b'a', 0, 1]),
        (1, &[0x40, 1, b'a']),
        (1, &[0x80, 1, b'a']),
        (1, &[0, 0x81, 0, b'a']),
        (1, &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        (1, &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        (1, &[2, 1, b'k']),
        (1, &[4, 1, b'v', 0xff, 0xff, 3]),
        (1, &[4, 1, b'v', 4, 2, 0xff, 0xfe, 0]),
        (1, &[0x20, 0, 1, b'a']),
        (1, &[0x20, 9, 1, b'a']),
        (1, &[0, 1, b'a', 0, 1, b'b']),
        (1, &[0x10, 0, 1, b'a']),
    ];
    for (count, body) in bodies {
        for state in [SEALED, ACTIVE] {
            let mut bytes = forge::segment(1, 0);
            bytes.extend(forge::frame_of(0, *count, body));
            let byte_len = bytes.len() as u64;
            let row = Row { id: 1, base: 0, end: u64::from(*count), byte_len, state };
            let image = forged(&[row], vec![(1, 0, bytes)]);
            let error = open_and_read(&image).unwrap_err();
            let kinds = [ErrorKind::Corrupt, ErrorKind::UnsupportedVersion];
            assert!(kinds.contains(&error.kind()), "{body:?}: {error}");
            assert!(error.path().is_some() && error.position().is_some(), "{body:?}: {error}");
        }
    }
}

// Numbers at their ends.

#[test]
fn the_last_offsets_are_used_up_and_then_refused() {
    for end in [u64::MAX - 3, u64::MAX - 1, u64::MAX] {
        let row = Row { id: 1, base: end, end, byte_len: HEADER_LEN, state: ACTIVE };
        for image in [forged(&[row], vec![(1, end, forge::segment(1, end))]), forged_empty(end)] {
            let log = image.open().unwrap();
            assert_eq!((log.start_offset(), log.end_offset()), (at(end), at(end)));
            let mut next = end;
            while next < u64::MAX {
                assert_eq!(log.append("one more").unwrap(), at(next));
                next += 1;
            }
            for level in [Durability::Buffered, Durability::Written, Durability::Synced] {
                assert_out_of_range(log.append_with(level, "too many"), u64::MAX);
                assert_out_of_range(log.append_batch_with(level, ["too", "many"]), u64::MAX);
                assert_out_of_range(log.append_with(level, vec![0; 100_000]), u64::MAX);
            }
            let none: [&str; 0] = [];
            assert_eq!(log.append_batch(none).unwrap(), Offset::MAX..Offset::MAX);
            assert_eq!(read(&log).unwrap().len() as u64, u64::MAX - end);
            assert!(log.get(Offset::MAX).unwrap().is_none());
            assert_kind(log.wait(Offset::MAX, Durability::Synced), ErrorKind::OutOfRange);
            let mut cursor = log.cursor(Seek::End).unwrap();
            assert!(cursor.next().unwrap().is_none());
            assert!(!cursor.wait(std::time::Duration::ZERO).unwrap());
            log.close().unwrap();
        }
    }
}

#[test]
fn a_batch_that_does_not_fit_below_the_last_offset_is_refused_whole() {
    let log = forged_empty(u64::MAX - 2).open().unwrap();
    assert_out_of_range(log.append_batch(["a", "b", "c"]), u64::MAX - 2);
    log.append_batch(["a", "b"]).unwrap();
    assert_eq!(log.end_offset(), Offset::MAX);
    assert_eq!(read(&log).unwrap().len(), 2);
}

#[test]
fn rows_with_numbers_at_their_ends_are_refused_or_opened() {
    let rows = [
        Row { id: u64::MAX - 1, base: 0, end: 0, byte_len: HEADER_LEN, state: ACTIVE },
        Row { id: 1, base: 0, end: u64::from(u32::MAX), byte_len: 80, state: ACTIVE },
        Row { id: 1, base: 0, end: 1, byte_len: (1 << 32) + (1 << 30), state: SEALED },
        Row { id: 1, base: 0, end: 1, byte_len: u64::MAX - 7, state: SEALED },
        Row { id: 1, base: 0, end: 1, byte_len: u64::MAX - 7, state: ACTIVE },
        Row { id: 1, base: 0, end: 1 << 32, byte_len: 80, state: SEALED },
        Row { id: 1, base: 5, end: 4, byte_len: 80, state: SEALED },
        Row { id: 0, base: 0, end: 1, byte_len: 80, state: SEALED },
        Row { id: 1, base: 0, end: 1, byte_len: 0, state: SEALED },
        Row { id: 1, base: 0, end: 1, byte_len: 80, state: 0 },
        Row { id: 1, base: 0, end: 1, byte_len: 80, state: u32::MAX },
    ];
    for row in rows {
        let header = forge::segment(row.id.max(1), row.base);
        let mut image = forged(&[], vec![(row.id, row.base, header)]);
        let end = Row { end: row.end.max(row.base), ..row };
        let mut manifest = forge::manifest(CLOSED, row.base, &[end]);
        manifest[80 + 16..80 + 24].copy_from_slice(&row.end.to_le_bytes());
        *image.bytes("MANIFEST") = forge::resealed(manifest);
        if let Ok(log) = image.open() {
            // It promised records that are not there.
            let found = read(&log);
            assert!(found.is_err() || found.unwrap().is_empty());
            drop(log.append("next"));
        }
    }
}

#[test]
fn a_manifest_that_claims_more_rows_than_it_has_is_refused() {
    for count in [1, 1000, u32::MAX] {
        let mut manifest = forge::manifest(CLOSED, 0, &[]);
        manifest[12..16].copy_from_slice(&count.to_le_bytes());
        let mut image = forged_empty(0);
        *image.bytes("MANIFEST") = forge::resealed(manifest);
        assert_eq!(image.open().unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn garbage_in_any_file_is_an_error_or_nothing() {
    let whole = closed(&records(0..30));
    for (seed, name) in whole.0.keys().cycle().take(200).enumerate() {
        let mut numbers = crate::support::medium::Numbers(seed as u64);
        let mut image = whole.clone();
        let len = numbers.below(3000);
        let garbage = (0..len).map(|_| u8::try_from(numbers.below(256)).unwrap());
        *image.bytes(name) = garbage.collect();
        let cache = name.ends_with(".index") || name == "MANIFEST.next";
        match open_and_read(&image) {
            Ok(found) => assert!(cache && found == records(0..30), "{name}"),
            Err(error) => assert!(!cache && error.kind() == ErrorKind::Corrupt, "{name}: {error}"),
        }
    }
}

#[test]
fn an_empty_batch_appends_nothing_at_any_level() {
    let log = forged_empty(7).open().unwrap();
    let none: [Record<'_>; 0] = [];
    for level in [Durability::Buffered, Durability::Written, Durability::Synced] {
        assert_eq!(log.append_batch_with(level, none.clone()).unwrap(), at(7)..at(7));
        assert_eq!(log.append_at_with(level, at(7), none.clone()).unwrap(), at(7)..at(7));
        assert_kind(log.append_at_with(level, at(8), none.clone()), ErrorKind::Conflict);
    }
    assert_eq!(log.end_offset(), at(7));
}

// Words of this file.

fn on_disk() -> Options {
    Options::new().maintenance(Maintenance::Manual).segment_bytes(1024)
}

fn log_on_disk(records: &[Record<'_>]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = on_disk().open(&path).unwrap();
    append_all(&log, records);
    log.close().unwrap();
    (dir, path)
}

fn last_segment(path: &Path) -> PathBuf {
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|name| name.extension().is_some_and(|kind| kind == "log")).max().unwrap()
}

fn grow(path: &Path, len: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "a test takes the files away behind the log's back")]
fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

fn open_and_read(image: &Image) -> Result<Vec<Record<'static>>, Error> {
    image.open().and_then(|log| read(&log))
}

fn closed(records: &[Record<'_>]) -> Image {
    closed_as(0, records)
}

/// A closed log with an identity of its own for each number.
fn closed_as(identity: u64, records: &[Record<'_>]) -> Image {
    let machine = crate::support::faulty::FaultyStorage::memory();
    for _ in 0..identity {
        machine.process().random();
    }
    let log: Log = tiny(machine.process()).open(DIR).unwrap();
    append_all(&log, records);
    log.close().unwrap();
    Image::of(&*machine.process())
}

/// A log that was closed, of these rows and segments (id, base offset, bytes).
fn forged(rows: &[Row], segments: Vec<(u64, u64, Vec<u8>)>) -> Image {
    let mut image = Image::default();
    let start = rows.first().map_or(0, |row| row.base);
    image.0.insert("MANIFEST".into(), forge::manifest(CLOSED, start, rows));
    for (id, base, bytes) in segments {
        image.0.insert(forge::segment_name(id, base), bytes);
    }
    image
}

/// A closed log without segments that starts and ends there.
fn forged_empty(start: u64) -> Image {
    let mut image = Image::default();
    image.0.insert("MANIFEST".into(), forge::manifest(CLOSED, start, &[]));
    image
}
