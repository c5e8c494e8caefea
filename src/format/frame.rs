//! The header of a frame: what is written, checksummed and lost as one.

use crate::bugs::Bug;
use crate::format::bytes::DecodeError;
use crate::format::bytes::crc;
use crate::units::Offset;
use crate::units::Timestamp;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::I64;
use zerocopy::little_endian::U16;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;

/// The length of a header; the body begins behind it.
pub(crate) const FRAME_HEADER_LEN: usize = 40;

/// Frames begin at multiples of this.
pub(crate) const ALIGNMENT: u64 = 8;

/// The longest body there is: 1 GiB.
///
/// Far above any batch that makes sense, so that it never limits one. It bounds what a reader
/// allocates for a frame, and how far a segment reaches past the last place where a frame begins.
pub(crate) const MAX_BODY_LEN: u32 = 1 << 30;

/// What the header of a frame says: of one with records, or of a hole, which has no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// In bytes, without the padding; 0 in a hole.
    pub(crate) body_len: u32,
    /// Of the first record there was; compaction may have removed it.
    pub(crate) base_offset: Offset,
    pub(crate) appended_at: Timestamp,
    /// How many offsets the frame covers; at least 1.
    pub(crate) count: u32,
    /// How far the durable offset lay below the base offset when the frame was closed.
    pub(crate) durable_gap: u32,
    pub(crate) body_crc: u32,
}

impl FrameHeader {
    pub(crate) fn encode(&self, seed: u32) -> [u8; FRAME_HEADER_LEN] {
        let covered = RawCovered {
            body_len: self.body_len.into(),
            base_offset: self.base_offset.get().into(),
            appended_at: self.appended_at.as_micros().into(),
            count: self.count.into(),
            durable_gap: self.durable_gap.into(),
            body_crc: self.body_crc.into(),
            kind: if self.is_hole() { KIND_HOLE } else { KIND_DATA },
            codec: CODEC_NONE,
            flags: U16::ZERO,
        };
        let crc = crc(seed, covered.as_bytes());
        zerocopy::transmute!(RawFrameHeader { crc: crc.into(), covered })
    }

    /// Decodes the header that `bytes` begin with.
    ///
    /// Anything that is not a header, zeros among it, is [`DecodeError::BadChecksum`]; what comes
    /// after the checksum can only be the work of a writer.
    pub(crate) fn decode(bytes: &[u8], seed: u32) -> Result<Self, DecodeError> {
        let (raw, _) = RawFrameHeader::ref_from_prefix(bytes).map_err(|_| DecodeError::Short)?;
        let covered = &raw.covered;
        // One seed in 2^32 gives zeros the checksum zero; the kind keeps them from being a frame.
        let agrees = raw.crc == crc(seed, covered.as_bytes()) || Bug::HeaderUnchecked.is_on();
        if !agrees || covered.kind == KIND_NEVER {
            return Err(DecodeError::BadChecksum);
        }
        covered.check_known()?;
        let kind = covered.kind;
        let header = Self {
            body_len: covered.body_len.get(),
            base_offset: Offset::new(covered.base_offset.get()),
            appended_at: Timestamp::from_micros(covered.appended_at.get()),
            count: covered.count.get(),
            durable_gap: covered.durable_gap.get(),
            body_crc: covered.body_crc.get(),
        };
        header.check(kind)?;
        Ok(header)
    }

    /// Whether a frame from offset `from` on may begin here: a cheap filter for the search behind
    /// damage, which tries every multiple of 8 and cannot afford a checksum for each.
    #[inline]
    pub(crate) fn may_begin(bytes: &[u8], from: Offset) -> bool {
        RawFrameHeader::ref_from_prefix(bytes).is_ok_and(|(raw, _)| {
            matches!(raw.covered.kind, KIND_DATA | KIND_HOLE)
                && raw.covered.codec == CODEC_NONE
                && raw.covered.flags == U16::ZERO
                && raw.covered.base_offset.get() >= from.get()
        })
    }

    /// One past the last offset the frame covers.
    #[inline]
    pub(crate) fn end_offset(&self) -> Offset {
        Offset::new(self.base_offset.get().saturating_add(self.count.into()))
    }

    /// Everything below had been synced when the frame was closed. A gap that was too large to be
    /// stated says nothing.
    #[inline]
    pub(crate) fn durable_mark(&self) -> Offset {
        match self.durable_gap {
            u32::MAX => Offset::ZERO,
            gap => Offset::new(self.base_offset.get().saturating_sub(gap.into())),
        }
    }

    /// The bytes from here to where the next frame begins: header, body, padding.
    #[inline]
    pub(crate) fn frame_len(&self) -> u64 {
        padded(FRAME_HEADER_LEN as u64 + u64::from(self.body_len))
    }

    /// Whether the offsets it covers have no record any more.
    #[inline]
    pub(crate) fn is_hole(&self) -> bool {
        self.body_len == 0
    }

    fn check(&self, kind: u8) -> Result<(), DecodeError> {
        if self.count == 0 {
            return Err(DecodeError::Malformed("a frame covers no offset"));
        }
        if self.base_offset.checked_add(self.count.into()).is_none() {
            return Err(DecodeError::Malformed("a frame reaches past the highest offset"));
        }
        if self.base_offset.checked_sub(self.durable_gap.into()).is_none() {
            return Err(DecodeError::Malformed("the durable mark of a frame is below offset 0"));
        }
        match self.body_len {
            0 if kind != KIND_HOLE => Err(DecodeError::Malformed("a frame has no body")),
            0 if self.body_crc != 0 => {
                Err(DecodeError::Malformed("a hole has a checksum of what it does not have"))
            }
            1.. if kind == KIND_HOLE => Err(DecodeError::Malformed("a hole has a body")),
            0..=MAX_BODY_LEN => Ok(()),
            _ => Err(DecodeError::Malformed("the body of a frame is longer than a body can be")),
        }
    }
}

/// The length of a frame of `len` bytes with its padding.
#[inline]
pub(crate) const fn padded(len: u64) -> u64 {
    len.saturating_add(ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawFrameHeader {
    crc: U32,
    covered: RawCovered,
}

/// What the header's checksum covers.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawCovered {
    body_len: U32,
    base_offset: U64,
    appended_at: I64,
    count: U32,
    durable_gap: U32,
    body_crc: U32,
    kind: u8,
    codec: u8,
    flags: U16,
}

impl RawCovered {
    fn check_known(&self) -> Result<(), DecodeError> {
        if !matches!(self.kind, KIND_DATA | KIND_HOLE) {
            return Err(DecodeError::Unknown("the kind of a frame"));
        }
        if self.codec != CODEC_NONE {
            return Err(DecodeError::Unknown("the codec of a frame"));
        }
        if self.flags != U16::ZERO {
            return Err(DecodeError::Unknown("a flag of a frame"));
        }
        Ok(())
    }
}

const KIND_NEVER: u8 = 0;
const KIND_DATA: u8 = 1;
const KIND_HOLE: u8 = 2;
const CODEC_NONE: u8 = 0;

const _: () = assert!(size_of::<RawFrameHeader>() == FRAME_HEADER_LEN);
const _: () = assert!((FRAME_HEADER_LEN as u64).is_multiple_of(ALIGNMENT));

#[cfg(test)]
mod tests {
    use super::{FRAME_HEADER_LEN, FrameHeader, MAX_BODY_LEN, padded};
    use crate::format::bytes::DecodeError;
    use crate::format::bytes::crc;
    use crate::units::Offset;
    use crate::units::Timestamp;

    const SEED: u32 = 0x5eed;

    fn header() -> FrameHeader {
        FrameHeader {
            body_len: 100,
            base_offset: Offset::new(1000),
            appended_at: Timestamp::from_micros(-7),
            count: 3,
            durable_gap: 10,
            body_crc: 0xdead_beef,
        }
    }

    /// `bytes` with a checksum that fits.
    fn sealed(mut bytes: [u8; FRAME_HEADER_LEN], seed: u32) -> [u8; FRAME_HEADER_LEN] {
        let crc = crc(seed, &bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn a_header_comes_back_and_says_what_follows_from_it() {
        let bytes = header().encode(SEED);
        assert_eq!(FrameHeader::decode(&bytes, SEED), Ok(header()));
        assert_eq!(header().end_offset(), Offset::new(1003));
        assert_eq!(header().durable_mark(), Offset::new(990));
        assert_eq!(header().frame_len(), 144);
        assert_eq!([0, 1, 7, 8, 9].map(padded), [0, 8, 8, 8, 16]);
    }

    #[test]
    fn a_header_of_another_segment_is_none() {
        let bytes = header().encode(SEED);
        assert_eq!(FrameHeader::decode(&bytes, SEED + 1), Err(DecodeError::BadChecksum));
    }

    #[test]
    fn zeros_are_never_a_frame_even_if_the_checksum_fits() {
        let zeros = [0; FRAME_HEADER_LEN];
        assert_eq!(FrameHeader::decode(&zeros, SEED), Err(DecodeError::BadChecksum));
        let kind_zero = sealed(zeros, SEED);
        assert_eq!(FrameHeader::decode(&kind_zero, SEED), Err(DecodeError::BadChecksum));
    }

    #[test]
    fn what_must_be_understood_is_unknown() {
        for (at, value) in [(36, 3), (37, 1), (38, 1), (39, 0x80)] {
            let mut bytes = header().encode(SEED);
            bytes[at] = value;
            assert!(!FrameHeader::may_begin(&bytes, Offset::ZERO), "byte {at}");
            let decoded = FrameHeader::decode(&sealed(bytes, SEED), SEED);
            assert!(matches!(decoded, Err(DecodeError::Unknown(_))), "byte {at}: {decoded:?}");
        }
    }

    #[test]
    fn a_header_that_contradicts_itself_is_malformed() {
        let cases = [
            FrameHeader { count: 0, ..header() },
            FrameHeader { body_len: 0, ..header() },
            FrameHeader { body_len: MAX_BODY_LEN + 1, ..header() },
            FrameHeader { base_offset: Offset::MAX, ..header() },
            FrameHeader { durable_gap: 1001, ..header() },
        ];
        for case in cases {
            let decoded = FrameHeader::decode(&case.encode(SEED), SEED);
            assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{case:?}: {decoded:?}");
        }
    }

    #[test]
    fn a_hole_has_no_body_and_what_has_no_body_is_a_hole() {
        let hole = FrameHeader { body_len: 0, body_crc: 0, ..header() };
        let bytes = hole.encode(SEED);
        assert_eq!(bytes[36], 2);
        assert_eq!(FrameHeader::decode(&bytes, SEED), Ok(hole));
        assert!(FrameHeader::may_begin(&bytes, Offset::new(1000)));
        assert_eq!(hole.frame_len(), 40);
        for (header, kind) in [(header(), 2), (hole, 1)] {
            let mut bytes = header.encode(SEED);
            bytes[36] = kind;
            let decoded = FrameHeader::decode(&sealed(bytes, SEED), SEED);
            assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{decoded:?}");
        }
    }

    #[test]
    fn the_limits_themselves_are_valid() {
        let cases = [
            FrameHeader { body_len: 1, ..header() },
            FrameHeader { body_len: MAX_BODY_LEN, ..header() },
            FrameHeader { base_offset: Offset::MAX - 3, ..header() },
            FrameHeader { durable_gap: 1000, ..header() },
            FrameHeader { appended_at: Timestamp::MIN, ..header() },
        ];
        for case in cases {
            assert_eq!(FrameHeader::decode(&case.encode(SEED), SEED), Ok(case));
        }
    }

    #[test]
    fn the_filter_lets_every_frame_through_from_the_offset_on() {
        let bytes = header().encode(SEED);
        assert!(FrameHeader::may_begin(&bytes, Offset::new(1000)));
        assert!(!FrameHeader::may_begin(&bytes, Offset::new(1001)));
        assert!(!FrameHeader::may_begin(&bytes[..39], Offset::ZERO));
        assert!(!FrameHeader::may_begin(&[0; FRAME_HEADER_LEN], Offset::ZERO));
    }
}
