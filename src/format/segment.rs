//! The header of a segment: which log and which place in it the frames behind it belong to.

use crate::format::bytes::DecodeError;
use crate::format::bytes::Preamble;
use crate::format::bytes::check_reserved;
use crate::format::bytes::crc;
use crate::format::frame::ALIGNMENT;
use crate::units::Offset;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;
use zerocopy::little_endian::U128;

/// The length of a header; the first frame begins behind it.
pub(crate) const SEGMENT_HEADER_LEN: usize = 72;

/// Frames begin below this position, so that an index can state positions in 32 bits.
pub(crate) const MAX_SEGMENT_LEN: u64 = 1 << 32;

/// What the header of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Begins the checksum of each frame's header; random and not 0.
    pub(crate) seed: u32,
    pub(crate) log_id: u128,
    /// As in the name; not 0.
    pub(crate) segment_id: u64,
    /// As in the name.
    pub(crate) base_offset: Offset,
    /// Of the segment before, 0 if there is none.
    pub(crate) previous_id: u64,
    /// End offset of the segment before, or the base offset if there is none.
    pub(crate) previous_end: Offset,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        let covered = RawCovered {
            preamble: Preamble::new(MAGIC),
            reserved_10: [0; 2],
            seed: self.seed.into(),
            log_id: self.log_id.into(),
            segment_id: self.segment_id.into(),
            base_offset: self.base_offset.get().into(),
            previous_id: self.previous_id.into(),
            previous_end: self.previous_end.get().into(),
            reserved_64: [0; 4],
        };
        let crc = crc(0, covered.as_bytes());
        zerocopy::transmute!(RawSegmentHeader { covered, crc: crc.into() })
    }

    /// The seed that the header states which `bytes` begin with, sound or not.
    pub(crate) fn stated_seed(bytes: &[u8]) -> Option<u32> {
        let (raw, _) = RawSegmentHeader::ref_from_prefix(bytes).ok()?;
        Some(raw.covered.seed.get())
    }

    /// Decodes the header that `bytes` begin with.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Preamble::check(bytes, MAGIC)?;
        let (raw, _) = RawSegmentHeader::ref_from_prefix(bytes).map_err(|_| DecodeError::Short)?;
        let covered = &raw.covered;
        if raw.crc != crc(0, covered.as_bytes()) {
            return Err(DecodeError::BadChecksum);
        }
        check_reserved(&covered.reserved_10)?;
        check_reserved(&covered.reserved_64)?;
        if covered.segment_id == 0 {
            return Err(DecodeError::Malformed("the segment id is 0"));
        }
        if covered.seed == 0 {
            return Err(DecodeError::Malformed("the seed of the segment is 0"));
        }
        Ok(Self {
            seed: covered.seed.get(),
            log_id: covered.log_id.get(),
            segment_id: covered.segment_id.get(),
            base_offset: Offset::new(covered.base_offset.get()),
            previous_id: covered.previous_id.get(),
            previous_end: Offset::new(covered.previous_end.get()),
        })
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawSegmentHeader {
    covered: RawCovered,
    crc: U32,
}

/// What the checksum covers.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawCovered {
    preamble: Preamble,
    reserved_10: [u8; 2],
    seed: U32,
    log_id: U128,
    segment_id: U64,
    base_offset: U64,
    previous_id: U64,
    previous_end: U64,
    reserved_64: [u8; 4],
}

const MAGIC: &[u8; 8] = b"STRATSEG";

const _: () = assert!(size_of::<RawSegmentHeader>() == SEGMENT_HEADER_LEN);
const _: () = assert!((SEGMENT_HEADER_LEN as u64).is_multiple_of(ALIGNMENT));

#[cfg(test)]
mod tests {
    use super::{SEGMENT_HEADER_LEN, SegmentHeader};
    use crate::format::bytes::DecodeError;
    use crate::format::bytes::crc;
    use crate::units::Offset;

    fn header() -> SegmentHeader {
        SegmentHeader {
            seed: 0xc0ffee,
            log_id: u128::MAX - 1,
            segment_id: 7,
            base_offset: Offset::new(40),
            previous_id: 6,
            previous_end: Offset::new(40),
        }
    }

    /// The header with one byte changed and a checksum that fits.
    fn changed(at: usize, value: u8) -> [u8; SEGMENT_HEADER_LEN] {
        let mut bytes = header().encode();
        bytes[at] = value;
        let crc = crc(0, &bytes[..68]);
        bytes[68..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn a_header_comes_back() {
        assert_eq!(SegmentHeader::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn each_contradiction_is_named() {
        assert_eq!(SegmentHeader::decode(&changed(7, b'X')), Err(DecodeError::BadMagic));
        assert_eq!(SegmentHeader::decode(&changed(8, 2)), Err(DecodeError::Version(2)));
        for at in [10, 11, 64, 67] {
            let decoded = SegmentHeader::decode(&changed(at, 1));
            assert!(matches!(decoded, Err(DecodeError::Unknown(_))), "byte {at}: {decoded:?}");
        }
        let no_id = SegmentHeader { segment_id: 0, ..header() };
        let no_seed = SegmentHeader { seed: 0, ..header() };
        for case in [no_id, no_seed] {
            let decoded = SegmentHeader::decode(&case.encode());
            assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{case:?}");
        }
    }

    #[test]
    fn another_version_is_named_even_if_the_rest_is_damaged_or_missing() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        assert_eq!(SegmentHeader::decode(&bytes), Err(DecodeError::Version(2)));
        assert_eq!(SegmentHeader::decode(&bytes[..20]), Err(DecodeError::Version(2)));
    }
}
