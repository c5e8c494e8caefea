//! The names of a log's files: the only place that builds or reads them.

use crate::units::Offset;
use std::ffi::OsStr;

/// Held by the writer while it lives.
pub(crate) const LOCK: &str = "LOCK";
/// The list of segments.
pub(crate) const MANIFEST: &str = "MANIFEST";
/// Space for the next manifest.
pub(crate) const MANIFEST_NEXT: &str = "MANIFEST.next";

/// A segment on its way into a checkpoint, in the place of a shorter copy of it.
pub(crate) const SEGMENT_NEXT: &str = "SEGMENT.next";
/// The directory of the consumers' positions.
pub(crate) const CONSUMERS: &str = "consumers";
/// A position that is being made, in that directory: no consumer has this name.
pub(crate) const CONSUMER_NEXT: &str = ".next";

const CONSUMER_NAME_LEN_MAX: usize = 128;

const BASE_OFFSET_DIGITS: usize = 20;
const SEGMENT_ID_DIGITS: usize = 8;

/// The name of a segment's file.
pub(crate) fn segment(base_offset: Offset, segment_id: u64) -> String {
    format!("{}.log", stem(base_offset, segment_id))
}

/// The name of the file with a segment's index.
pub(crate) fn index(base_offset: Offset, segment_id: u64) -> String {
    format!("{}.index", stem(base_offset, segment_id))
}

/// The name of the file of a segment that was prepared and may have been begun.
pub(crate) fn prepared(segment_id: u64) -> String {
    format!("{segment_id:0SEGMENT_ID_DIGITS$}.next")
}

fn stem(base_offset: Offset, segment_id: u64) -> String {
    let base_offset = base_offset.get();
    format!("{base_offset:0BASE_OFFSET_DIGITS$}-{segment_id:0SEGMENT_ID_DIGITS$}")
}

/// The name of a directory with files that a repair has set aside.
pub(crate) fn damaged(number: u64) -> String {
    format!("{DAMAGED}{number:0SEGMENT_ID_DIGITS$}")
}

/// The number in such a name.
pub(crate) fn damaged_number(name: &OsStr) -> Option<u64> {
    number(name.to_str()?.strip_prefix(DAMAGED)?, SEGMENT_ID_DIGITS)
}

const DAMAGED: &str = "damaged-";

/// Whether a consumer, and the file of its position, may have this name.
pub(crate) fn is_consumer(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=CONSUMER_NAME_LEN_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(allowed)
}

/// A file of ours, as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Lock,
    Manifest,
    ManifestNext,
    SegmentNext,
    Segment { base_offset: Offset, segment_id: u64 },
    Index { base_offset: Offset, segment_id: u64 },
    Prepared { segment_id: u64 },
}

/// What a name stands for, or `None` if the file is not ours and is to be left alone.
pub(crate) fn parse(name: &OsStr) -> Option<Name> {
    let name = name.to_str()?;
    match name {
        LOCK => return Some(Name::Lock),
        MANIFEST => return Some(Name::Manifest),
        MANIFEST_NEXT => return Some(Name::ManifestNext),
        SEGMENT_NEXT => return Some(Name::SegmentNext),
        _ => {}
    }
    let (stem, kind) = name.split_once('.')?;
    let segment_id = |digits| number(digits, SEGMENT_ID_DIGITS).filter(|id| *id != 0);
    if kind == "next" {
        return Some(Name::Prepared { segment_id: segment_id(stem)? });
    }
    let (base_offset, id) = stem.split_once('-')?;
    let base_offset = Offset::new(number(base_offset, BASE_OFFSET_DIGITS)?);
    let segment_id = segment_id(id)?;
    match kind {
        "log" => Some(Name::Segment { base_offset, segment_id }),
        "index" => Some(Name::Index { base_offset, segment_id }),
        _ => None,
    }
}

/// A number as `{:0width$}` prints it, and written no other way.
fn number(text: &str, width: usize) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text.len() == width || (text.len() > width && !text.starts_with('0'));
    if digits && canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::{Name, index, is_consumer, parse, prepared, segment};
    use crate::units::Offset;
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use std::ffi::OsStr;

    #[test]
    fn names_are_those_of_the_format() {
        assert_eq!(segment(Offset::ZERO, 1), "00000000000000000000-00000001.log");
        assert_eq!(index(Offset::new(407), 12), "00000000000000000407-00000012.index");
        assert_eq!(segment(Offset::MAX, u64::MAX), "18446744073709551615-18446744073709551615.log");
        assert_eq!(parse(OsStr::new("LOCK")), Some(Name::Lock));
        assert_eq!(parse(OsStr::new("MANIFEST")), Some(Name::Manifest));
        assert_eq!(parse(OsStr::new("MANIFEST.next")), Some(Name::ManifestNext));
    }

    #[test]
    fn other_names_are_not_ours() {
        let names = [
            "",
            "lock",
            "LOCK ",
            "MANIFEST.tmp",
            "0000000000000000000-00000001.log",
            "000000000000000000000-00000001.log",
            "00000000000000000000-0000001.log",
            "00000000000000000000-000000001.log",
            "00000000000000000000-00000000.log",
            "+0000000000000000000-00000001.log",
            "00000000000000000000-+0000001.log",
            "-0000000000000000000-00000001.log",
            " 0000000000000000000-00000001.log",
            "0000000000000000000a-00000001.log",
            "18446744073709551616-00000001.log",
            "00000000000000000000-18446744073709551616.log",
            "00000000000000000000-00000001",
            "00000000000000000000-00000001.LOG",
            "00000000000000000000-00000001.log.bak",
            "00000000000000000000-00000001.indexes",
            "00000000000000000000_00000001.log",
            "00000000000000000000.log",
            "0000001.next",
            "000000001.next",
            "00000000.next",
            "00000001.NEXT",
            "00000000000000000000-00000001.next",
        ];
        for name in names {
            assert_eq!(parse(OsStr::new(name)), None, "{name:?}");
        }
    }

    #[test]
    fn consumers_have_names_that_every_file_system_takes() {
        let long = "x".repeat(128);
        for name in ["a", "billing", "A-1_b.c", "-", "_", "a.", "a..b", &long] {
            assert!(is_consumer(name), "{name:?}");
        }
        let longer = "x".repeat(129);
        for name in ["", ".", "..", ".next", "a/b", "/", "a b", "a\\b", "\u{e9}", "a\0", &longer] {
            assert!(!is_consumer(name), "{name:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_name_that_is_not_unicode_is_not_ours() {
        use std::os::unix::ffi::OsStrExt;
        assert_eq!(parse(OsStr::from_bytes(b"LOCK\xff")), None);
    }

    proptest! {
        #[test]
        fn what_is_built_is_read(base in any::<u64>(), segment_id in 1_u64..) {
            let base_offset = Offset::new(base);
            let name = segment(base_offset, segment_id);
            let expected = Some(Name::Segment { base_offset, segment_id });
            prop_assert_eq!(parse(OsStr::new(&name)), expected);
            let name = index(base_offset, segment_id);
            let expected = Some(Name::Index { base_offset, segment_id });
            prop_assert_eq!(parse(OsStr::new(&name)), expected);
            let name = prepared(segment_id);
            prop_assert_eq!(parse(OsStr::new(&name)), Some(Name::Prepared { segment_id }));
        }
    }
}
