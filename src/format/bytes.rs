//! What all codecs share: the cursor that cannot overrun, varints, checksums, the version check.

use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U16;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// The bytes end before the structure does.
    #[error("the bytes end too early")]
    Short,
    /// It is not a file of this kind at all.
    #[error("the file does not begin with the magic bytes of its kind")]
    BadMagic,
    /// The bytes are not those that were written, or were never written.
    #[error("the checksum does not match")]
    BadChecksum,
    /// The file states another version than [`VERSION`].
    #[error("the file has format version {0}, this crate reads version {known}", known = VERSION)]
    Version(u16),
    /// A codec, kind, flag or reserved byte that must be understood to go on.
    #[error("{0} is not known to format version {known}", known = VERSION)]
    Unknown(&'static str),
    /// The checksum is right, but what it protects contradicts the format.
    #[error("{0}")]
    Malformed(&'static str),
}

impl DecodeError {
    /// Whether a newer version of this crate wrote the bytes: they are sound, and not damage.
    pub(crate) fn is_newer(self) -> bool {
        matches!(self, Self::Version(_) | Self::Unknown(_))
    }
}

/// The version of the format that is written, and the only one that is read.
pub(crate) const VERSION: u16 = 1;

/// A cursor over bytes that cannot overrun them.
///
/// After an error the place of the cursor is not defined.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.rest.split_first().ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(*first)
    }

    #[inline]
    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(i64::from_le_bytes(*bytes))
    }

    /// A varint, refused unless it is as short as possible.
    ///
    /// One and two bytes are read in line: they are the lengths of nearly all keys and values.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        match *self.rest {
            [low, ref rest @ ..] if low < MORE => {
                self.rest = rest;
                Ok(u64::from(low))
            }
            [low, high @ 1..MORE, ref rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(low & !MORE) | u64::from(high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    #[cold]
    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & !MORE);
            // The tenth byte has room for the one bit that is left.
            if bits << shift >> shift != bits {
                return Err(DecodeError::Malformed("a varint does not fit into 64 bits"));
            }
            value |= bits << shift;
            if byte < MORE {
                if byte == 0 && shift > 0 {
                    return Err(DecodeError::Malformed("a varint is longer than it has to be"));
                }
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed("a varint has more than 10 bytes"))
    }

    /// A varint and then as many bytes as it says.
    #[inline]
    pub(crate) fn len_prefixed(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.varint()?;
        // A length that no slice can have is longer than the rest, too.
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    #[inline]
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Appends `value` as a varint.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, value: u64) {
    let mut rest = value;
    while rest >= u64::from(MORE) {
        out.push(low_byte(rest) | MORE);
        rest >>= 7;
    }
    out.push(low_byte(rest));
}

/// How many bytes [`put_varint`] appends.
#[inline]
pub(crate) fn varint_len(value: u64) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        // Seven bits a byte, and every number here has at least one bit.
        _ => value.ilog2() as usize / 7 + 1,
    }
}

/// CRC-32 of `bytes`, continued from `init`; 0 begins a new one.
#[inline]
pub(crate) fn crc(init: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(init);
    hasher.update(bytes);
    hasher.finalize()
}

/// The length of a slice as the format counts it.
#[inline]
pub(crate) const fn wide(len: usize) -> u64 {
    const { assert!(size_of::<usize>() <= size_of::<u64>()) };
    len as u64
}

/// What segments, indexes and manifests begin with.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Preamble {
    magic: [u8; 8],
    version: U16,
}

impl Preamble {
    pub(crate) fn new(magic: &[u8; 8]) -> Self {
        Self { magic: *magic, version: U16::new(VERSION) }
    }

    /// Checks how a file begins: the magic, then the version, before anything else is looked at,
    /// even the length. Another version may have a shorter header.
    pub(crate) fn check(bytes: &[u8], magic: &[u8; 8]) -> Result<(), DecodeError> {
        let (preamble, _) = Self::ref_from_prefix(bytes).map_err(|_| DecodeError::Short)?;
        if preamble.magic != *magic {
            return Err(DecodeError::BadMagic);
        }
        match preamble.version.get() {
            VERSION => Ok(()),
            version => Err(DecodeError::Version(version)),
        }
    }
}

/// Refuses reserved bytes that say something.
#[inline]
pub(crate) fn check_reserved<const N: usize>(bytes: &[u8; N]) -> Result<(), DecodeError> {
    if *bytes == [0; N] {
        Ok(())
    } else {
        Err(DecodeError::Unknown("a reserved byte that is not zero"))
    }
}

#[inline]
fn low_byte(value: u64) -> u8 {
    let [low, ..] = value.to_le_bytes();
    low
}

/// The bit of a varint's byte that says that another one follows.
const MORE: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::{DecodeError, Preamble, Reader, crc, put_varint, varint_len};
    use proptest::prelude::{any, prop_assert_eq, proptest};

    fn varint(bytes: &[u8]) -> Result<u64, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = reader.varint()?;
        if !reader.is_empty() {
            return Err(DecodeError::Malformed("bytes are left"));
        }
        Ok(value)
    }

    #[test]
    fn varints_have_the_bytes_of_the_format() {
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let cases: [(u64, &[u8]); 8] = [
            (0, &[0]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (300, &[0xac, 0x02]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 0x01]),
            (1 << 63, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]),
            (u64::MAX, &max),
        ];
        for (value, bytes) in cases {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes);
            assert_eq!(varint_len(value), bytes.len());
            assert_eq!(varint(bytes), Ok(value));
        }
    }

    #[test]
    fn varints_longer_than_needed_or_possible_are_malformed() {
        let cases: [&[u8]; 6] = [
            &[0x80, 0x00],
            &[0xff, 0x80, 0x00],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x81, 0x00],
        ];
        for bytes in cases {
            assert!(matches!(varint(bytes), Err(DecodeError::Malformed(_))), "{bytes:x?}");
        }
    }

    #[test]
    fn a_reader_does_not_overrun() {
        for bytes in [&[][..], &[0x80], &[0xff, 0xff]] {
            assert_eq!(varint(bytes), Err(DecodeError::Short));
        }
        assert_eq!(Reader::new(&[0; 7]).i64(), Err(DecodeError::Short));
        assert_eq!(Reader::new(&[]).u8(), Err(DecodeError::Short));
        assert_eq!(Reader::new(&[1]).take(2), Err(DecodeError::Short));
        assert_eq!(Reader::new(&[2, 0]).len_prefixed(), Err(DecodeError::Short));
        let mut longest = Vec::new();
        put_varint(&mut longest, u64::MAX);
        assert_eq!(Reader::new(&longest).len_prefixed(), Err(DecodeError::Short));
        assert!(!Reader::new(&[0]).is_empty());
    }

    #[test]
    fn a_reader_moves_on() {
        let mut reader = Reader::new(&[7, 2, b'a', b'b', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(reader.u8(), Ok(7));
        assert_eq!(reader.len_prefixed(), Ok(&b"ab"[..]));
        assert_eq!(reader.remaining(), 7);
        let mut reader = Reader::new(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(reader.i64(), Ok(-2));
        assert!(reader.is_empty());
    }

    #[test]
    fn a_checksum_is_continued_as_by_zlib() {
        assert_eq!(crc(0, b"123456789"), 0xcbf4_3926);
        assert_eq!(crc(crc(0, b"1234"), b"56789"), 0xcbf4_3926);
    }

    #[test]
    fn the_version_is_checked_before_the_length() {
        let check = |bytes: &[u8]| Preamble::check(bytes, b"STRATSEG");
        assert_eq!(check(b"STRATSEG\x01\x00"), Ok(()));
        assert_eq!(check(b"STRATSEG\x02\x01"), Err(DecodeError::Version(0x102)));
        assert_eq!(check(b"STRATIDX\x02\x00"), Err(DecodeError::BadMagic));
        assert_eq!(check(b"STRATSEG\x01"), Err(DecodeError::Short));
    }

    proptest! {
        #[test]
        fn each_number_has_one_varint(value in any::<u64>(), bits in 0_u32..64) {
            let value = value >> bits;
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(varint(&out), Ok(value));
        }

        #[test]
        fn each_varint_has_one_number(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok(value) = varint(&bytes) {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                prop_assert_eq!(out, bytes);
            }
        }
    }
}
