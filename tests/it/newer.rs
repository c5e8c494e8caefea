//! What a newer version of the crate may write and this one does not know: sound frames of another
//! kind or codec, with a flag, or with records that have one. It is told as what it is, nothing is
//! taken for damage, and nothing is touched.

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
use std::sync::Arc;
use stratalog::{ErrorKind, Position, Seek};

/// A crash may tear a frame; none leaves one whose checksum agrees.
#[test]
fn a_tail_of_a_newer_version_is_not_a_torn_one() {
    for (what, newer) in newer_frames() {
        let (image, _) = log_of(newer, OPEN, ACTIVE);
        let storage = image.storage();
        let refused = tiny(Arc::new(storage.clone())).open(DIR).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::UnsupportedVersion, "{what}: {refused}");
        assert!(refused.path().is_some() && refused.position().is_some(), "{what}: {refused}");
        assert_eq!(refused.offset(), Some(at(1)), "{what}");
        assert!(Image::of(&storage) == image, "{what}: refused and changed");
    }
}

#[test]
fn a_reader_tells_a_newer_frame_from_damage_and_can_go_on_behind_it() {
    for (what, newer) in newer_frames() {
        let (image, position) = log_of(newer, CLOSED, SEALED);
        let log = image.open().unwrap();
        let mut cursor = log.cursor(Seek::Start).unwrap();
        assert_eq!(cursor.next().unwrap().unwrap().value(), b"first");
        let refused = match cursor.next() {
            Err(error) => error,
            Ok(entry) => panic!("{what}: {entry:?}"),
        };
        assert_eq!(refused.kind(), ErrorKind::UnsupportedVersion, "{what}: {refused}");
        assert_eq!(refused.position(), Some(Position::new(position)), "{what}");
        assert_eq!(refused.readable_from(), Some(at(2)), "{what}");
        cursor.seek(Seek::Offset(at(2))).unwrap();
        assert_eq!(cursor.next().unwrap().unwrap().value(), b"third", "{what}");
        assert_kind(log.get(at(1)), ErrorKind::UnsupportedVersion);
    }
}

/// Without a lock it sees the files of a writer that is gone as recovery does.
#[test]
fn a_reader_elsewhere_tells_a_newer_frame_too() {
    for (what, newer) in newer_frames() {
        let (image, _) = log_of(newer, OPEN, ACTIVE);
        let options = tiny(Arc::new(image.storage()));
        let told = options.open_reader(DIR).and_then(|reader| {
            let mut cursor = reader.cursor(Seek::Start)?;
            while cursor.next()?.is_some() {}
            Ok(())
        });
        assert_eq!(
            told.map_err(|error| error.kind()),
            Err(ErrorKind::UnsupportedVersion),
            "{what}"
        );
    }
}

/// Frames for offset 1.
fn newer_frames() -> Vec<(&'static str, Vec<u8>)> {
    let with = |place: usize, byte: u8| {
        let mut newer = frame(1, b"newer");
        newer[place] = byte;
        let mut crc = crc32fast::Hasher::new_with_initial(forge::SEED);
        crc.update(&newer[4..40]);
        newer[..4].copy_from_slice(&crc.finalize().to_le_bytes());
        newer
    };
    vec![
        ("a kind", with(36, 3)),
        ("a codec", with(37, 1)),
        ("a flag", with(38, 1)),
        ("a flag of a record", forge::frame_of(1, 1, &[0x40, 1, b'a'])),
    ]
}

/// A log of three records, the one in the middle in that frame; gives its position, too.
fn log_of(newer: Vec<u8>, flags: u16, state: u32) -> (Image, u64) {
    let mut bytes = forge::segment(1, 0);
    bytes.extend(frame(0, b"first"));
    let position = bytes.len() as u64;
    bytes.extend(newer);
    bytes.extend(frame(2, b"third"));
    let (end, byte_len) = match state {
        ACTIVE => (0, HEADER_LEN),
        _ => (3, bytes.len() as u64),
    };
    let row = Row { id: 1, base: 0, end, byte_len, state };
    let mut image = Image::default();
    image.0.insert("MANIFEST".into(), forge::manifest(flags, 0, &[row]));
    image.0.insert(forge::segment_name(1, 0), bytes);
    (image, position)
}
