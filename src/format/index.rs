//! A segment's sparse index as a whole file: where some of its frames begin.

use crate::format::bytes::DecodeError;
use crate::format::bytes::Preamble;
use crate::format::bytes::check_reserved;
use crate::format::bytes::crc;
use crate::format::bytes::wide;
use crate::format::frame::ALIGNMENT;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::units::Offset;
use crate::units::Timestamp;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::I64;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;

/// A frame has an entry if it begins this far or farther behind the last one that has.
pub(crate) const INDEX_INTERVAL_BYTES: u64 = 4096;

/// What an index says about itself: the segment, and the state of it, that it was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexHeader {
    pub(crate) segment_id: u64,
    pub(crate) base_offset: Offset,
    /// Position of the end of the last frame.
    pub(crate) segment_end: u64,
    /// Of the segment, so that an index from an earlier life of the file does not fit.
    pub(crate) seed: u32,
}

/// Where a frame begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Of the frame, counted from the start of the log.
    pub(crate) base_offset: Offset,
    pub(crate) position: u64,
    pub(crate) appended_at: Timestamp,
}

/// The bytes of an index file.
///
/// An entry that the segment cannot have is written in such a way that [`decode`] refuses it: a
/// segment keeps within 32 bits, so this costs a rebuild where it must not happen anyway.
pub(crate) fn encode(header: &IndexHeader, entries: &[IndexEntry]) -> Vec<u8> {
    let covered = RawCovered {
        segment_id: header.segment_id.into(),
        base_offset: header.base_offset.get().into(),
        segment_end: header.segment_end.into(),
        seed: header.seed.into(),
        entry_count: narrow(wide(entries.len())).into(),
    };
    let mut body = Vec::with_capacity(size_of::<RawCovered>() + size_of_val(entries));
    body.extend_from_slice(covered.as_bytes());
    for entry in entries {
        body.extend_from_slice(RawEntry::new(entry, header).as_bytes());
    }
    let lead =
        RawLead { preamble: Preamble::new(MAGIC), reserved: [0; 2], crc: crc(0, &body).into() };
    body.splice(..0, lead.as_bytes().iter().copied());
    body
}

/// What an index file says about itself, if it is whole.
pub(crate) fn decode_header(bytes: &[u8]) -> Result<IndexHeader, DecodeError> {
    check(bytes).map(|(covered, _)| covered.header())
}

/// The entries of an index file, if it is whole and was made from what `expected` says.
pub(crate) fn decode(bytes: &[u8], expected: &IndexHeader) -> Result<Vec<IndexEntry>, DecodeError> {
    let (covered, entries) = check(bytes)?;
    if covered.header() != *expected {
        return Err(DecodeError::Malformed("the index is of another state of the segment"));
    }
    let entries = <[RawEntry]>::ref_from_bytes(entries)
        .ok()
        .filter(|entries| wide(entries.len()) == u64::from(covered.entry_count.get()))
        .ok_or(DecodeError::Malformed("the index does not end with its last entry"))?;
    decode_entries(entries, expected)
}

/// What the checksum of an index covers: the rest of its header, and its entries.
fn check(bytes: &[u8]) -> Result<(&RawCovered, &[u8]), DecodeError> {
    Preamble::check(bytes, MAGIC)?;
    let (lead, rest) = RawLead::ref_from_prefix(bytes).map_err(|_| DecodeError::Short)?;
    let (covered, entries) = RawCovered::ref_from_prefix(rest).map_err(|_| DecodeError::Short)?;
    if lead.crc != crc(0, rest) {
        return Err(DecodeError::BadChecksum);
    }
    check_reserved(&lead.reserved)?;
    Ok((covered, entries))
}

fn decode_entries(
    raw_entries: &[RawEntry],
    header: &IndexHeader,
) -> Result<Vec<IndexEntry>, DecodeError> {
    let mut entries: Vec<IndexEntry> = Vec::with_capacity(raw_entries.len());
    for raw in raw_entries {
        let entry = raw.entry(header)?;
        match entries.last() {
            Some(last) => check_follows(last, &entry)?,
            None => check_first(&entry, header)?,
        }
        entries.push(entry);
    }
    if entries.is_empty() && header.segment_end != wide(SEGMENT_HEADER_LEN) {
        return Err(DecodeError::Malformed("the first frame has no index entry"));
    }
    Ok(entries)
}

fn check_first(entry: &IndexEntry, header: &IndexHeader) -> Result<(), DecodeError> {
    if entry.base_offset != header.base_offset || entry.position != wide(SEGMENT_HEADER_LEN) {
        return Err(DecodeError::Malformed("the first index entry is not of the first frame"));
    }
    Ok(())
}

fn check_follows(last: &IndexEntry, entry: &IndexEntry) -> Result<(), DecodeError> {
    if entry.base_offset <= last.base_offset || entry.position <= last.position {
        return Err(DecodeError::Malformed("the index entries do not rise"));
    }
    if entry.appended_at < last.appended_at {
        return Err(DecodeError::Malformed("the index entries fall in time"));
    }
    Ok(())
}

/// What comes before the bytes the checksum covers.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawLead {
    preamble: Preamble,
    reserved: [u8; 2],
    crc: U32,
}

/// The rest of the header, which the checksum covers together with the entries.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawCovered {
    segment_id: U64,
    base_offset: U64,
    segment_end: U64,
    seed: U32,
    entry_count: U32,
}

impl RawCovered {
    fn header(&self) -> IndexHeader {
        IndexHeader {
            segment_id: self.segment_id.get(),
            base_offset: Offset::new(self.base_offset.get()),
            segment_end: self.segment_end.get(),
            seed: self.seed.get(),
        }
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawEntry {
    relative_offset: U32,
    position: U32,
    appended_at: I64,
}

impl RawEntry {
    fn new(entry: &IndexEntry, header: &IndexHeader) -> Self {
        let relative = entry.base_offset.get().checked_sub(header.base_offset.get());
        Self {
            relative_offset: relative.map_or(NEVER, narrow).into(),
            position: narrow(entry.position).into(),
            appended_at: entry.appended_at.as_micros().into(),
        }
    }

    fn entry(&self, header: &IndexHeader) -> Result<IndexEntry, DecodeError> {
        let position = u64::from(self.position.get());
        if !position.is_multiple_of(ALIGNMENT) || position >= header.segment_end {
            return Err(DecodeError::Malformed(
                "no frame begins at the position of an index entry",
            ));
        }
        let relative = self.relative_offset.get();
        let base_offset = header
            .base_offset
            .checked_add(relative.into())
            .filter(|_| relative != NEVER)
            .ok_or(DecodeError::Malformed("no frame has the offset of an index entry"))?;
        let appended_at = Timestamp::from_micros(self.appended_at.get());
        Ok(IndexEntry { base_offset, position, appended_at })
    }
}

fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(NEVER)
}

/// Stands for what does not fit into 32 bits. It is no position, since those are multiples of 8;
/// no relative offset, since a segment has fewer offsets; and no number of entries.
const NEVER: u32 = u32::MAX;

const MAGIC: &[u8; 8] = b"STRATIDX";

const _: () = assert!(size_of::<RawLead>() + size_of::<RawCovered>() == 48);
const _: () = assert!(size_of::<RawEntry>() == 16);

#[cfg(test)]
mod tests {
    use super::{IndexEntry, IndexHeader, decode, encode};
    use crate::format::bytes::DecodeError;
    use crate::format::bytes::crc;
    use crate::units::Offset;
    use crate::units::Timestamp;
    use proptest::prelude::{any, proptest};

    fn header() -> IndexHeader {
        IndexHeader {
            segment_id: 3,
            base_offset: Offset::new(1000),
            segment_end: 16_384,
            seed: 0x5eed,
        }
    }

    fn entry(relative: u64, position: u64, time: i64) -> IndexEntry {
        IndexEntry {
            base_offset: Offset::new(1000 + relative),
            position,
            appended_at: Timestamp::from_micros(time),
        }
    }

    fn entries() -> [IndexEntry; 3] {
        [entry(0, 72, -5), entry(7, 4168, 10), entry(8, 9000, 10)]
    }

    #[test]
    fn an_index_comes_back() {
        let bytes = encode(&header(), &entries());
        assert_eq!(bytes.len(), 48 + 3 * 16);
        assert_eq!(decode(&bytes, &header()).unwrap(), entries());
        let empty = IndexHeader { segment_end: 72, ..header() };
        assert_eq!(decode(&encode(&empty, &[]), &empty), Ok(Vec::new()));
    }

    #[test]
    fn an_index_of_something_else_does_not_fit() {
        let bytes = encode(&header(), &entries());
        let others = [
            IndexHeader { segment_id: 4, ..header() },
            IndexHeader { base_offset: Offset::new(999), ..header() },
            IndexHeader { segment_end: 16_392, ..header() },
            IndexHeader { seed: 1, ..header() },
        ];
        for other in others {
            assert!(matches!(decode(&bytes, &other), Err(DecodeError::Malformed(_))), "{other:?}");
        }
    }

    #[test]
    fn entries_that_contradict_the_format_are_malformed() {
        let first = entry(0, 72, 0);
        let below = IndexEntry { base_offset: Offset::new(999), ..entry(0, 80, 0) };
        let cases: [(&str, &[IndexEntry]); 12] = [
            ("none, but there is a frame", &[]),
            ("first not at the base offset", &[entry(1, 72, 0)]),
            ("first not behind the header", &[entry(0, 80, 0)]),
            ("position not a multiple of 8", &[first, entry(1, 100, 0)]),
            ("position at the end", &[first, entry(1, 16_384, 0)]),
            ("position past 32 bits", &[first, entry(1, (1 << 32) + 80, 0)]),
            ("offset past 32 bits", &[first, entry(1 << 32, 80, 0)]),
            ("last relative offset", &[first, entry(u64::from(u32::MAX), 80, 0)]),
            ("offset below the base", &[first, below]),
            ("offset not rising", &[first, entry(0, 80, 0)]),
            ("position not rising", &[first, entry(1, 72, 0)]),
            ("time falling", &[first, entry(1, 80, -1)]),
        ];
        for (what, entries) in cases {
            let decoded = decode(&encode(&header(), entries), &header());
            assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{what}: {decoded:?}");
        }
    }

    #[test]
    fn an_offset_past_the_highest_is_malformed() {
        let header = IndexHeader { base_offset: Offset::MAX, ..header() };
        let mut bytes =
            encode(&header, &[IndexEntry { base_offset: Offset::MAX, ..entry(0, 72, 0) }]);
        bytes[48] = 1;
        let crc = crc(0, &bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(decode(&bytes, &header), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn the_file_ends_with_the_last_entry() {
        let whole = encode(&header(), &entries());
        for len in [48, 48 + 16, 48 + 2 * 16 + 8, 48 + 4 * 16] {
            let mut bytes = whole.clone();
            bytes.resize(len, 0);
            let crc = crc(0, &bytes[16..]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            let decoded = decode(&bytes, &header());
            assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{len}: {decoded:?}");
        }
    }

    proptest! {
        #[test]
        fn random_entries_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = encode(&header(), &[]);
            bytes.extend_from_slice(&body);
            bytes[44] = u8::try_from(body.len() / 16).unwrap();
            let crc = crc(0, &bytes[16..]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            assert!(decode(&bytes, &header()).is_err());
        }
    }
}
