//! Repairing what no medium does and fuzzing finds: files whose checksums fit and that contradict
//! each other. Verifying agrees with opening on what is damage, and what is repaired opens.

use crate::support::at;
use crate::support::forge;
use crate::support::forge::ACTIVE;
use crate::support::forge::CLOSED;
use crate::support::forge::HEADER_LEN;
use crate::support::forge::OPEN;
use crate::support::forge::Row;
use crate::support::forge::SEALED;
use crate::support::forge::frame;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::tiny;
use std::collections::BTreeMap;
use std::sync::Arc;
use stratalog::storage::MemoryStorage;
use stratalog::{ErrorKind, RepairOptions, Seek, VerifyOptions, VerifyReport};

const WRITTEN: u32 = 2;
const FRAME_LEN: u64 = 48;

/// Each fills a frame of `FRAME_LEN` bytes.
const VALUES: [&[u8]; 4] = [b"zeroth", b"first", b"second", b"third"];

/// A segment with frames from `base` on, a record each.
fn segment(id: u64, base: u64, values: &[&[u8]]) -> (String, Vec<u8>) {
    let mut bytes = forge::segment(id, base);
    for (offset, value) in (base..).zip(values) {
        let frame = frame(offset, value);
        assert_eq!(frame.len() as u64, FRAME_LEN);
        bytes.extend(frame);
    }
    (forge::segment_name(id, base), bytes)
}

/// The bytes of a segment up to the frame `nth`.
fn position(nth: u64) -> u64 {
    HEADER_LEN + nth * FRAME_LEN
}

fn image(flags: u16, rows: &[Row], segments: &[(String, Vec<u8>)]) -> Image {
    let mut files: BTreeMap<_, _> = segments.iter().cloned().collect();
    files.insert("MANIFEST".to_owned(), forge::manifest(flags, 0, rows));
    Image(files)
}

fn flip(bytes: &mut [u8], position: u64) {
    bytes[usize::try_from(position).unwrap()] ^= 1;
}

/// Opening refuses the log; verifying says why, and once repaired it opens with these records.
#[track_caller]
fn check_refused(image: &Image, values: &[&[u8]]) -> VerifyReport {
    assert_eq!(image.open().unwrap_err().kind(), ErrorKind::Corrupt, "opening has to refuse");
    check_repair(image, values)
}

#[track_caller]
fn check_repair(image: &Image, values: &[&[u8]]) -> VerifyReport {
    let storage = image.storage();
    let report = verify(&storage);
    assert!(!report.is_sound(), "{report}");
    let options = RepairOptions::new().storage(Arc::new(storage.clone()));
    stratalog::repair(DIR, &options).unwrap();
    let log = tiny(Arc::new(storage.clone())).open(DIR).unwrap();
    let entries = log.iter(Seek::Start).unwrap();
    let read: Vec<_> = entries.map(|entry| entry.unwrap().value().to_vec()).collect();
    assert_eq!(read, values, "{report}");
    log.close().unwrap();
    drop(log);
    let again = verify(&storage);
    assert!(again.is_sound(), "{again}");
    report
}

fn verify(storage: &MemoryStorage) -> VerifyReport {
    stratalog::verify(DIR, &VerifyOptions::new().storage(Arc::new(storage.clone()))).unwrap()
}

/// The frame that says what was durable lost its body, and its header is whole.
#[test]
fn a_mark_in_a_frame_without_its_body_makes_what_is_before_it_damage() {
    let (name, mut bytes) = segment(1, 0, &VALUES[..3]);
    flip(&mut bytes, position(1) + 42);
    flip(&mut bytes, position(2) + 42);
    let row = Row { id: 1, base: 0, end: 0, byte_len: HEADER_LEN, state: ACTIVE };
    let image = image(OPEN, &[row], &[(name, bytes)]);
    let report = check_refused(&image, &VALUES[..1]);
    assert_eq!(report.damage()[0].offsets.start, at(1), "{report}");
}

/// The only frame that says what was durable covers more than its segment does.
#[test]
fn a_mark_in_a_frame_that_reaches_too_far_makes_what_is_before_it_damage() {
    let (one, mut damaged) = segment(1, 0, &VALUES[..3]);
    flip(&mut damaged, position(2) + 42);
    let mut far = forge::segment(2, 3);
    far.extend(forge::frame_of(3, 5, b"\0\x05third"));
    far.extend([0; 8]);
    let rows = [
        Row { id: 1, base: 0, end: 3, byte_len: position(3), state: WRITTEN },
        Row { id: 2, base: 3, end: 4, byte_len: far.len() as u64, state: WRITTEN },
    ];
    let image = image(OPEN, &rows, &[(one, damaged), (forge::segment_name(2, 3), far)]);
    let report = check_refused(&image, &["zeroth", "first", "third"].map(str::as_bytes));
    assert_eq!(report.damage()[0].offsets, at(2)..at(3), "{report}");
}

/// A torn tail behind it changes nothing about that.
#[test]
fn a_manifest_that_goes_on_inside_a_frame_is_damage() {
    let (name, mut bytes) = segment(1, 0, &VALUES);
    flip(&mut bytes, position(3) + 42);
    let row = Row { id: 1, base: 0, end: 0, byte_len: position(1) + 8, state: ACTIVE };
    let image = image(OPEN, &[row], &[(name, bytes)]);
    let report = check_refused(&image, &VALUES[..3]);
    assert!(report.damage()[0].what.contains("another offset"), "{report}");
}

/// Beside damage nothing is recovered, so what would have been a torn tail is missing too.
#[test]
fn beside_damage_all_that_the_manifest_names_is_looked_for() {
    let (one, mut damaged) = segment(1, 0, &VALUES[..2]);
    flip(&mut damaged, position(0) + 42);
    let (two, mut torn) = segment(2, 2, &VALUES[2..]);
    flip(&mut torn, position(1) + 42);
    let byte_len = position(2);
    let rows = [
        Row { id: 1, base: 0, end: 2, byte_len, state: SEALED },
        Row { id: 2, base: 2, end: 4, byte_len, state: WRITTEN },
    ];
    let image = image(OPEN, &rows, &[(one, damaged), (two, torn)]);
    let storage = image.storage();
    let report = verify(&storage);
    let offsets: Vec<_> = report.damage().iter().map(|one| one.offsets.clone()).collect();
    assert_eq!(offsets, [at(0)..at(1), at(3)..at(4)], "{report}");
    let options = RepairOptions::new().storage(Arc::new(storage.clone()));
    stratalog::repair(DIR, &options).unwrap();
    let log = tiny(Arc::new(storage)).open(DIR).unwrap();
    assert_eq!(log.end_offset(), at(4), "no offset is given away twice");
}

#[test]
fn an_active_segment_shorter_than_the_manifest_says_is_damaged() {
    let files = [segment(1, 0, &VALUES[..1])];
    let row = Row { id: 1, base: 0, end: 1, byte_len: position(2), state: ACTIVE };
    let report = check_refused(&image(CLOSED, &[row], &files), &VALUES[..1]);
    assert!(report.damage()[0].what.contains("shorter"), "{report}");
}

#[test]
fn a_manifest_that_goes_on_at_another_offset_is_damage() {
    let files = [segment(1, 0, &VALUES)];
    let row = Row { id: 1, base: 0, end: 2, byte_len: position(1), state: ACTIVE };
    let report = check_refused(&image(OPEN, &[row], &files), &VALUES);
    assert!(report.damage()[0].what.contains("another offset"), "{report}");
}

/// Without its header the seed of a segment follows from its frames, the first of which lies.
#[test]
fn two_frames_that_agree_tell_the_seed() {
    let (name, mut bytes) = segment(1, 0, &VALUES);
    flip(&mut bytes, 30);
    flip(&mut bytes, position(0) + 16);
    let row = Row { id: 1, base: 0, end: 4, byte_len: position(4), state: SEALED };
    let report = check_repair(&image(CLOSED, &[row], &[(name, bytes)]), &VALUES[1..]);
    assert_eq!(report.damage().last().unwrap().offsets, at(0)..at(1), "{report}");
}

/// A frame alone follows from any seed. What vouches for it is the seed that a damaged header still
/// has, or its place.
#[test]
fn a_lone_frame_needs_a_witness() {
    const SEED_AT: u64 = 12;
    const CRC_AT: u64 = 70;
    let cases: [(&str, u64, &[u64], usize); 5] = [
        ("the header has the seed", CRC_AT, &[], 2),
        ("so the second frame may stand alone", CRC_AT, &[position(0) + 42], 1),
        ("two frames agree", SEED_AT, &[], 2),
        ("the second has no witness", SEED_AT, &[position(0) + 42], 0),
        ("the first has its place", SEED_AT, &[position(1) + 42], 1),
    ];
    for (what, header, others, survive) in cases {
        let (name, mut bytes) = segment(1, 0, &VALUES[..2]);
        flip(&mut bytes, header);
        others.iter().for_each(|place| flip(&mut bytes, *place));
        let row = Row { id: 1, base: 0, end: 2, byte_len: position(2), state: SEALED };
        let report = verify(&image(CLOSED, &[row], &[(name, bytes)]).storage());
        assert_eq!(report.records(), survive as u64, "{what}: {report}");
    }
    // And then the place is not its own.
    let (name, mut bytes) = segment(1, 0, &VALUES[..1]);
    flip(&mut bytes, SEED_AT);
    flip(&mut bytes, position(0) + 8);
    let row = Row { id: 1, base: 0, end: 1, byte_len: position(1), state: SEALED };
    let report = verify(&image(CLOSED, &[row], &[(name, bytes)]).storage());
    assert_eq!(report.records(), 0, "{report}");
}

#[test]
fn a_log_without_numbers_for_segments_is_not_repaired() {
    let id = u64::MAX - 1;
    let (name, mut bytes) = segment(id, 0, &VALUES[..2]);
    flip(&mut bytes, position(0) + 42);
    let row = Row { id, base: 0, end: 2, byte_len: position(2), state: SEALED };
    let image = image(CLOSED, &[row], &[(name, bytes)]);
    let storage = image.storage();
    let options = RepairOptions::new().storage(Arc::new(storage.clone()));
    let error = stratalog::repair(DIR, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("no number left"), "{error}");
    assert!(Image::of(&storage) == image, "nothing was replaced");
}
