//! Bytes whose checksums fit and that lie all the same: what no medium does, but a buggy or hostile
//! writer can. Nothing panics, hangs or shows a record that was not there; what opens once opens
//! again; and whoever reads on where an error says gets to the end.

use crate::support::assert_kind;
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
use std::path::Path;
use std::sync::Arc;
use stratalog::{ErrorKind, Log, Offset, Position, Seek, Timestamp};

/// Every length a header can state, right or wrong, in every frame, with and without a checksum of
/// the body that fits.
#[test]
fn no_length_of_a_frame_shows_a_record_that_was_not_there() {
    let mut cut = 0;
    for (flags, state) in KINDS {
        for nth in 0..FRAMES.len() {
            let (whole, begins) = log_of(&FRAMES, flags, state);
            let (begin, file_len) = (begins[nth], whole.0[&whole.last()].len());
            let to_end = u32::try_from(file_len - begin - 40).unwrap();
            let next = begins.get(nth + 1).copied().unwrap_or(file_len);
            let to_next = u32::try_from(next - begin).unwrap();
            let stated = whole.0[&whole.last()][begin + 4..begin + 8].try_into().unwrap();
            let stated = u32::from_le_bytes(stated);
            let mut lens = vec![0, 1, 1 << 30, (1 << 30) + 1, 1 << 31, u32::MAX - 40, u32::MAX];
            for len in [stated, to_end, to_next, to_next - 40, to_next + 20] {
                lens.extend([len - 1, len + 1, len + 8, len]);
            }
            for (len, fits) in
                lens.iter().flat_map(|len| [(*len, Checksums::Header), (*len, Checksums::Both)])
            {
                let mut image = whole.clone();
                let name = image.last();
                put(image.bytes(&name), begin + 4, &len.to_le_bytes());
                seal(&mut image.bytes(&name)[begin..], fits);
                let what = format!("{state}, frame {nth} of {len} bytes, {fits:?}");
                let Some(log) = opened(&image, &what) else { continue };
                cut += u32::from(log.recovery().cut_at().is_some());
                for (offset, value) in read_over_damage(&log, &what) {
                    // A length that only takes in padding, or not all of it, says nothing new.
                    let nth_value = FRAMES.get(usize::try_from(offset.get()).unwrap());
                    assert!(nth_value.is_some_and(|there| value == *there), "{what}: {offset}");
                }
                go_on(&image, log, &what);
            }
        }
    }
    assert!(cut > 50, "{cut} lengths were a torn tail");
}

/// Offsets, counts, times and gaps that repeat, skip, go back, and go over.
#[test]
fn no_number_in_a_frame_is_believed_that_makes_no_sense() {
    const FIELDS: [(usize, usize); 4] = [(8, 8), (16, 8), (24, 4), (28, 4)];
    let mut opened_all = 0;
    for (flags, state) in KINDS {
        let (whole, begins) = log_of(&FRAMES, flags, state);
        for (begin, (field, width)) in begins.iter().flat_map(|begin| FIELDS.map(|f| (*begin, f))) {
            let name = whole.last();
            let old = number(&whole.0[&name][begin + field..], width);
            let near = [1, 2, 3, u64::MAX, u64::MAX - 1].map(|by| old.wrapping_add(by));
            for new in near.into_iter().chain(ENDS) {
                let mut image = whole.clone();
                let bytes = image.bytes(&name);
                put(bytes, begin + field, &new.to_le_bytes()[..width]);
                seal(&mut bytes[begin..], Checksums::Both);
                let what = format!("{state}, frame at {begin}, field {field} is {new}");
                let Some(log) = opened(&image, &what) else { continue };
                opened_all += 1;
                read_over_damage(&log, &what);
                go_on(&image, log, &what);
            }
        }
    }
    assert!(opened_all > 100, "{opened_all} opened");
}

/// Found by the fuzz target `open`: recovery wrote a manifest that the next open refused.
#[test]
fn frames_that_no_row_of_a_manifest_can_describe_are_cut() {
    let older = forge_at(1, 500_000);
    let mut many = frame(1, b"many");
    put(&mut many, 24, &u32::MAX.to_le_bytes());
    for (what, second) in [("older", older), ("2^32 offsets", many)] {
        let mut second = second;
        seal(&mut second, Checksums::Both);
        let mut bytes = forge::segment(1, 0);
        bytes.extend(frame(0, b"first"));
        let end = bytes.len();
        bytes.extend(second);
        let row = Row { id: 1, base: 0, end: 0, byte_len: HEADER_LEN, state: ACTIVE };
        let image = image_of(OPEN, row, bytes);
        let log = image.open().unwrap();
        assert_eq!(log.recovery().cut_at(), Some(at(1)), "{what}");
        assert!(log.recovery().cut_bytes() > 0 && end > 72);
        go_on(&image, log, what);
    }
}

/// A frame begins below 2^32. The file has no blocks but the last ones.
#[test]
fn a_frame_behind_4_gib_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let begin = (1_u64 << 32) - 48;
    let row = Row { id: 1, base: 0, end: 1, byte_len: begin, state: ACTIVE };
    let mut image = image_of(OPEN, row, forge::segment(1, 0));
    // With an index, so that nothing looks for frames in the gap.
    let index = index_of(&[(0, 72)], (1, 0, begin));
    image.0.insert(forge::segment_name(1, 0).replace(".log", ".index"), index);
    image.put(&stratalog::storage::FsStorage::new(), &path);
    let file = path.join(forge::segment_name(1, 0));
    let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    let frames = [frame(1, b"below"), frame(2, b"behind")].concat();
    assert_eq!(frame(1, b"below").len(), 48);
    std::os::unix::fs::FileExt::write_all_at(&file, &frames, begin).unwrap();
    let log = tiny(Arc::new(stratalog::storage::FsStorage::new())).open(&path).unwrap();
    assert_eq!(log.recovery().cut_at(), Some(at(2)));
    assert_eq!(log.append("next").unwrap(), at(2));
}

#[test]
fn numbers_of_a_manifest_at_their_ends_do_not_go_over() {
    const NEXT_ID: usize = 40;
    const EPOCH: usize = 56;
    for (field, number) in [NEXT_ID, EPOCH].into_iter().flat_map(|f| ENDS.map(|end| (f, end))) {
        let mut bytes = forge::segment(1, 0);
        bytes.extend(frame(0, b"first"));
        bytes.extend([0xee; 40]);
        let row = Row { id: 1, base: 0, end: 0, byte_len: HEADER_LEN, state: ACTIVE };
        let mut image = image_of(OPEN, row, bytes);
        let mut manifest = image.0["MANIFEST"].clone();
        put(&mut manifest, field, &number.to_le_bytes());
        *image.bytes("MANIFEST") = forge::resealed(manifest);
        let what = format!("field {field} is {number}");
        let Some(log) = opened(&image, &what) else { continue };
        assert_eq!(log.recovery().cut_at(), Some(at(1)));
        go_on(&image, log, &what);
    }
}

/// The id u64::MAX could not be written down.
#[test]
fn a_log_without_a_segment_id_left_refuses_to_append() {
    let mut image = Image::default();
    let mut manifest = forge::manifest(CLOSED, 0, &[]);
    put(&mut manifest, 40, &u64::MAX.to_le_bytes());
    image.0.insert("MANIFEST".into(), forge::resealed(manifest));
    let log = image.open().unwrap();
    assert_kind(log.append("too many"), ErrorKind::OutOfRange);
    assert_kind(log.append_batch(["too", "many"]), ErrorKind::OutOfRange);
    assert_kind(log.append(vec![0; 100_000]), ErrorKind::OutOfRange);
    log.close().unwrap();
}

/// Found by the fuzz target `open`: the cursor stood behind the end of the log and stayed there.
#[test]
fn a_frame_that_reaches_past_its_segment_is_damage() {
    let mut second = frame(1, b"second");
    put(&mut second, 24, &1000_u32.to_le_bytes());
    seal(&mut second, Checksums::Both);
    let mut bytes = forge::segment(1, 0);
    bytes.extend(frame(0, b"first"));
    let position = bytes.len() as u64;
    bytes.extend(second);
    bytes.extend(frame(2, b"third"));
    let byte_len = bytes.len() as u64;
    let row = Row { id: 1, base: 0, end: 3, byte_len, state: SEALED };
    let log = image_of(CLOSED, row, bytes).open().unwrap();
    let mut cursor = log.cursor(Seek::Offset(at(1))).unwrap();
    let error = cursor.next().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(error.position(), Some(Position::new(position)));
    assert_eq!((error.offset(), error.readable_from()), (Some(at(1)), Some(at(2))));
    assert_kind(log.get(at(1)), ErrorKind::Corrupt);
    cursor.seek(Seek::Offset(at(2))).unwrap();
    assert_eq!(cursor.next().unwrap().unwrap().value(), b"third");
}

/// Found by the fuzz target `open`: where reading could go on was the place where it had stopped,
/// for ever. This a medium can do, for frames of one segment have one seed.
#[test]
fn a_cursor_gets_past_frames_that_changed_places() {
    let values: Vec<_> = (0..6).map(|nth| format!("value {nth}")).collect();
    let frames: Vec<_> = (0..).zip(&values).map(|(at, v)| frame(at, v.as_bytes())).collect();
    let orders = [
        [0, 2, 1, 3, 4, 5],
        [1, 0, 2, 3, 4, 5],
        [0, 1, 1, 3, 4, 5],
        [0, 5, 2, 3, 4, 1],
        [5, 4, 3, 2, 1, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 1, 2, 3, 5, 4],
        [4, 1, 2, 3, 0, 5],
    ];
    for order in orders {
        let mut bytes = forge::segment(1, 0);
        order.iter().for_each(|nth: &usize| bytes.extend(&frames[*nth]));
        let byte_len = bytes.len() as u64;
        let row = Row { id: 1, base: 0, end: 6, byte_len, state: SEALED };
        let log = image_of(CLOSED, row, bytes).open().unwrap();
        let what = format!("{order:?}");
        let read = read_over_damage(&log, &what);
        assert!(read.len() < 6, "{what}");
        for (offset, value) in &read {
            assert_eq!(*value, values[usize::try_from(offset.get()).unwrap()], "{what}");
            assert_eq!(log.get(*offset).unwrap().unwrap().value(), value.as_bytes(), "{what}");
        }
        let lost = (0..6).filter(|nth| read.iter().all(|(offset, _)| *offset != at(*nth)));
        for offset in lost {
            // A frame that took another's place may hide those behind it from a cursor alone.
            match log.get(at(offset)) {
                Ok(entry) => {
                    assert_eq!(entry.unwrap().value(), format!("value {offset}").as_bytes())
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}"),
            }
        }
    }
}

/// Found by the fuzz target `open`: a record that had just been appended could not be read. The
/// frames before it had moved by 8 bytes, and the last one seemed to reach over it.
#[test]
fn frames_that_moved_do_not_hide_what_is_appended_behind_them() {
    let mut bytes = forge::segment(1, 0);
    (0..3).for_each(|offset| bytes.extend(frame(offset, b"a value")));
    let byte_len = bytes.len() as u64;
    let row = Row { id: 1, base: 0, end: 3, byte_len, state: ACTIVE };
    for by in (8..200).step_by(8) {
        let mut moved = bytes.clone();
        let to = bytes.len().min(72 + by);
        moved.copy_within(72..bytes.len() - (to - 72), to);
        moved[72..to].fill(0xee);
        let log = image_of(CLOSED, row, moved).open().unwrap();
        for (offset, value) in [(3, "next"), (4, "and one more")] {
            assert_eq!(log.append(value).unwrap(), at(offset));
            assert_eq!(log.get(at(3)).unwrap().unwrap().value(), b"next", "moved by {by}");
            let read = read_over_damage(&log, "moved");
            assert_eq!(read.last(), Some(&(at(offset), value.to_owned())), "moved by {by}");
        }
    }
}

/// Found by the fuzz target `open`: nothing said where reading could go on.
#[test]
fn a_cursor_gets_past_a_segment_that_cannot_be_opened() {
    let mut image = Image::default();
    let mut rows = Vec::new();
    for nth in 0..3 {
        let mut bytes = forge::segment(nth + 1, nth);
        bytes.extend(frame(nth, b"value"));
        let byte_len = bytes.len() as u64;
        rows.push(Row { id: nth + 1, base: nth, end: nth + 1, byte_len, state: SEALED });
        image.0.insert(forge::segment_name(nth + 1, nth), bytes);
    }
    image.0.insert("MANIFEST".into(), forge::manifest(CLOSED, 0, &rows));
    let name = forge::segment_name(2, 1);
    let changes: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes[20] ^= 1,
        |bytes| bytes[8] = 2,
        |bytes| bytes.truncate(80),
        |bytes| bytes.truncate(10),
    ];
    for change in changes {
        let mut damaged = image.clone();
        change(damaged.bytes(&name));
        let log = damaged.open().unwrap();
        let error = log.get(at(1)).unwrap_err();
        assert_eq!(error.path(), Some(Path::new(DIR).join(&name).as_path()));
        assert_eq!((error.offset(), error.readable_from()), (Some(at(1)), Some(at(2))));
        let read = read_over_damage(&log, "a header");
        assert_eq!(read.iter().map(|(at, _)| at.get()).collect::<Vec<_>>(), [0, 2]);
    }
}

/// Frames of an earlier life of the file fit in every way but for the seed.
#[test]
fn frames_of_an_earlier_life_behind_the_tail_are_no_records_and_no_marks() {
    let mut bytes = forge::segment(1, 0);
    bytes.extend(frame(0, b"of this life"));
    let mut old: Vec<_> = (1..50).flat_map(|at| frame(at, b"of another")).collect();
    let mut begin = 0;
    while begin < old.len() {
        let frame_len = frame(1, b"of another").len();
        let crc = crc(forge::SEED + 1, &old[begin + 4..begin + 40]);
        put(&mut old, begin, &crc.to_le_bytes());
        begin += frame_len;
    }
    bytes.extend(&old);
    let row = Row { id: 1, base: 0, end: 0, byte_len: HEADER_LEN, state: ACTIVE };
    let image = image_of(OPEN, row, bytes);
    let log = image.open().unwrap();
    assert_eq!(log.recovery().cut_at(), Some(at(1)));
    // All but the zeros at the end of the last frame.
    let cut = log.recovery().cut_bytes();
    assert!(cut > old.len() as u64 - 8 && cut <= old.len() as u64);
    go_on(&image, log, "an earlier life");
}

// Words of this file.

const FRAMES: [&str; 5] = ["first", "the second one", "3", "number four", "last"];

const KINDS: [(u16, u32); 3] = [(CLOSED, SEALED), (OPEN, ACTIVE), (CLOSED, ACTIVE)];

const ENDS: [u64; 12] = [
    0,
    1,
    5,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    (1 << 63) + 1,
    u64::MAX - 2,
    u64::MAX - 1,
    u64::MAX,
];

/// A log of one segment with a frame for each value, and where the frames begin.
fn log_of(values: &[&str], flags: u16, state: u32) -> (Image, Vec<usize>) {
    let mut bytes = forge::segment(1, 0);
    let mut begins = Vec::new();
    for (offset, value) in (0..).zip(values) {
        begins.push(bytes.len());
        bytes.extend(frame(offset, value.as_bytes()));
    }
    let known = flags == CLOSED;
    let byte_len = if known { bytes.len() as u64 } else { HEADER_LEN };
    let end = if known { values.len() as u64 } else { 0 };
    (image_of(flags, Row { id: 1, base: 0, end, byte_len, state }, bytes), begins)
}

fn image_of(flags: u16, row: Row, bytes: Vec<u8>) -> Image {
    let mut image = Image::default();
    image.0.insert("MANIFEST".into(), forge::manifest(flags, row.base, &[row]));
    image.0.insert(forge::segment_name(row.id, row.base), bytes);
    image
}

/// A frame of another time than all others have.
fn forge_at(offset: u64, micros: i64) -> Vec<u8> {
    let mut frame = frame(offset, b"of another time");
    put(&mut frame, 16, &micros.to_le_bytes());
    frame
}

/// An index of segment (id, base offset, end) with these entries (relative offset, position).
fn index_of(entries: &[(u32, u32)], (id, base, end): (u64, u64, u64)) -> Vec<u8> {
    let mut covered = Vec::new();
    [id, base, end].iter().for_each(|number| covered.extend(number.to_le_bytes()));
    covered.extend(forge::SEED.to_le_bytes());
    covered.extend(u32::try_from(entries.len()).unwrap().to_le_bytes());
    for (offset, position) in entries {
        covered.extend(offset.to_le_bytes());
        covered.extend(position.to_le_bytes());
        covered.extend(1_000_000_i64.to_le_bytes());
    }
    let crc = crc(0, &covered).to_le_bytes();
    [&b"STRATIDX\x01\0\0\0"[..], &crc, &covered].concat()
}

fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..at + new.len()].copy_from_slice(new);
}

fn number(bytes: &[u8], width: usize) -> u64 {
    bytes[..width].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Which checksums of a frame fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checksums {
    Header,
    Both,
}

/// Makes the checksums fit, that of the body if there is one.
fn seal(frame: &mut [u8], checksums: Checksums) {
    let len = usize::try_from(number(&frame[4..], 4)).unwrap();
    if let Some(body) = frame.get(40..40 + len).filter(|_| checksums == Checksums::Both) {
        let crc = crc(0, body);
        put(frame, 32, &crc.to_le_bytes());
    }
    let crc = crc(forge::SEED, &frame[4..40]);
    put(frame, 0, &crc.to_le_bytes());
}

fn crc(init: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(init);
    hasher.update(bytes);
    hasher.finalize()
}

/// The log, or `None` if it is refused as it should be: with a place, and nothing touched.
fn opened(image: &Image, what: &str) -> Option<Log> {
    let storage = image.storage();
    match tiny(Arc::new(storage.clone())).open(DIR) {
        Ok(log) => Some(log),
        Err(error) => {
            // What a forged flag makes of a frame may be the work of a newer version.
            let kinds = [ErrorKind::Corrupt, ErrorKind::UnsupportedVersion];
            assert!(kinds.contains(&error.kind()), "{what}: {error}");
            assert!(error.path().is_some(), "{what}: {error}");
            assert!(Image::of(&storage) == *image, "{what}: refused and changed");
            None
        }
    }
}

/// All that can be read by a reader who goes on where each error says.
fn read_over_damage(log: &Log, what: &str) -> Vec<(Offset, String)> {
    let mut cursor = log.cursor(Seek::Start).unwrap();
    let (mut read, mut errors) = (Vec::new(), 0);
    loop {
        match cursor.next() {
            Ok(None) => return read,
            Ok(Some(entry)) => {
                let value = String::from_utf8_lossy(entry.value()).into_owned();
                read.push((entry.offset(), value));
            }
            Err(error) => {
                errors += 1;
                assert!(errors < 100, "{what}: no end: {error}");
                let kinds = [ErrorKind::Corrupt, ErrorKind::UnsupportedVersion];
                assert!(kinds.contains(&error.kind()), "{what}: {error}");
                assert!(error.path().is_some() && error.position().is_some(), "{what}: {error}");
                let behind = error.readable_from().unwrap();
                assert!(behind >= cursor.offset(), "{what}: back from {error}");
                cursor.seek(Seek::Offset(behind)).unwrap();
            }
        }
    }
}

/// The log takes a record, unless its numbers are used up, and opens again with all it showed. If
/// it showed damage, then what is behind it may come to mean something else as the log grows.
fn go_on(image: &Image, log: Log, what: &str) {
    drop(log);
    let storage = image.storage();
    let log = tiny(Arc::new(storage.clone())).open(DIR).unwrap();
    let before = read_over_damage(&log, what);
    match log.append("next") {
        Ok(offset) => assert_eq!(log.end_offset(), offset + 1, "{what}"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::OutOfRange, "{what}: {error}"),
    }
    drop(log);
    let log = tiny(Arc::new(storage)).open(DIR);
    let log = log.unwrap_or_else(|error| panic!("{what}: not a second time: {error}"));
    let after = read_over_damage(&log, what);
    if before.len() as u64 == log.end_offset() - log.start_offset() - 1 {
        assert_eq!(after[..before.len()], before, "{what}");
        assert_eq!(after.len(), before.len() + 1, "{what}");
    }
    drop(log.cursor(Seek::Time(Timestamp::ZERO)));
}
