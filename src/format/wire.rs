//! Frames on the wire: what one log ships to another.
//!
//! Strict to the last byte: what is taken is what some log shipped, and nothing that differs from
//! it.

use crate::format::bytes::DecodeError;
use crate::format::bytes::crc;
use crate::format::bytes::wide;
use crate::format::frame::FRAME_HEADER_LEN;
use crate::format::frame::FrameHeader;
use crate::format::frame::padded;
use crate::units::Offset;
use crate::units::Timestamp;

/// How many offsets a shipment covers at most. A hole of 40 bytes can fill a segment: without this,
/// a few kilobytes would make thousands.
pub(crate) const SPAN_MAX: u64 = 1 << 36;

/// The seed of headers that are in no segment.
const SEED: u32 = 0;

/// The most padding there is behind a body.
const PADDING: [u8; 8] = [0; 8];

/// Appends a frame.
pub(crate) fn put(out: &mut Vec<u8>, header: &FrameHeader, body: &[u8]) {
    let appended_at = if header.is_hole() { Timestamp::ZERO } else { header.appended_at };
    let header = FrameHeader { durable_gap: 0, appended_at, ..*header };
    out.extend_from_slice(&header.encode(SEED));
    out.extend_from_slice(body);
    let len = FRAME_HEADER_LEN + body.len();
    let padding = padded(wide(len)) - wide(len);
    out.extend(PADDING.iter().zip(0..padding).map(|(zero, _)| zero));
}

/// A walk over shipped frames. Ends after an error.
#[derive(Debug)]
pub(crate) struct WireFrames<'a> {
    rest: &'a [u8],
    position: u64,
    /// Where the next frame begins; the first one may begin anywhere.
    next: Option<Offset>,
}

/// A frame whose checksums agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WireFrame<'a> {
    pub(crate) header: FrameHeader,
    pub(crate) body: &'a [u8],
    /// Where it begins in the bytes.
    pub(crate) position: u64,
}

/// What is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) why: DecodeError,
    pub(crate) position: u64,
    /// The offset that should begin there, if that is known.
    pub(crate) offset: Option<Offset>,
}

impl<'a> WireFrames<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, position: 0, next: None }
    }

    fn step(&mut self) -> Result<WireFrame<'a>, DecodeError> {
        let header = FrameHeader::decode(self.rest, SEED)?;
        if self.next.is_some_and(|next| next != header.base_offset) {
            return Err(DecodeError::Malformed("a frame does not begin where the last one ends"));
        }
        if header.durable_gap != 0 {
            return Err(DecodeError::Malformed("a shipped frame states what is durable"));
        }
        if header.is_hole() && header.appended_at != Timestamp::ZERO {
            return Err(DecodeError::Malformed("a shipped hole has a time"));
        }
        let len = usize::try_from(header.frame_len()).map_err(|_| DecodeError::Short)?;
        let (frame, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Short)?;
        let behind = frame.get(FRAME_HEADER_LEN..).unwrap_or_default();
        let (body, padding) =
            behind.split_at_checked(header.body_len as usize).ok_or(DecodeError::Short)?;
        if crc(0, body) != header.body_crc {
            return Err(DecodeError::BadChecksum);
        }
        if padding.iter().any(|byte| *byte != 0) {
            return Err(DecodeError::Malformed("the padding of a shipped frame is not zero"));
        }
        let frame = WireFrame { header, body, position: self.position };
        self.rest = rest;
        self.position += wide(len);
        self.next = Some(header.end_offset());
        Ok(frame)
    }
}

impl<'a> Iterator for WireFrames<'a> {
    type Item = Result<WireFrame<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        Some(match self.step() {
            Ok(frame) => Ok(frame),
            Err(why) => {
                self.rest = &[];
                Err(Fault { why, position: self.position, offset: self.next })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, PADDING, WireFrames, put};
    use crate::format::bytes::DecodeError;
    use crate::format::bytes::crc;
    use crate::format::frame::FrameHeader;
    use crate::units::Offset;
    use crate::units::Timestamp;

    /// From docs/FORMAT.md, by hand.
    const EXAMPLE: &[u8] = &[
        0x93, 0x33, 0xe3, 0x70, 5, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x42, 0x0f, 0, 0, 0, 0,
        0, 1, 0, 0, 0, 0, 0, 0, 0, 0x41, 0x78, 0x01, 0xa7, 1, 0, 0, 0, 1, 1, 0x6b, 1, 0x76, 0, 0,
        0, 0x93, 0xd9, 0x38, 0xa0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0,
    ];

    fn example() -> [(FrameHeader, &'static [u8]); 2] {
        let body: &[u8] = b"\x01\x01k\x01v";
        let data = FrameHeader {
            body_len: 5,
            base_offset: Offset::new(5),
            appended_at: Timestamp::from_micros(1_000_000),
            count: 1,
            durable_gap: 0,
            body_crc: crc(0, body),
        };
        let hole = FrameHeader {
            body_len: 0,
            base_offset: Offset::new(6),
            appended_at: Timestamp::ZERO,
            count: 3,
            durable_gap: 0,
            body_crc: 0,
        };
        [(data, body), (hole, &[])]
    }

    fn decode(bytes: &[u8]) -> Result<Vec<(FrameHeader, &[u8])>, Fault> {
        let frame = |frame: Result<super::WireFrame<'_>, Fault>| frame.map(|f| f.header);
        let headers = WireFrames::new(bytes).map(frame).collect::<Result<Vec<_>, _>>()?;
        let bodies = WireFrames::new(bytes).map(|frame| frame.map(|frame| frame.body));
        Ok(headers.into_iter().zip(bodies.map(Result::unwrap_or_default)).collect())
    }

    fn encode(frames: &[(FrameHeader, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frames.iter().for_each(|(header, body)| put(&mut bytes, header, body));
        bytes
    }

    #[test]
    fn the_example_of_the_format() {
        assert_eq!(encode(&example()), EXAMPLE);
        assert_eq!(decode(EXAMPLE), Ok(example().to_vec()));
        assert_eq!(decode(&[]), Ok(Vec::new()));
    }

    #[test]
    fn what_is_the_sender_s_own_is_not_shipped() {
        let [(data, body), (hole, _)] = example();
        let own = FrameHeader { durable_gap: 3, ..data };
        let dated = FrameHeader { durable_gap: 6, appended_at: Timestamp::MAX, ..hole };
        assert_eq!(encode(&[(own, body), (dated, &[])]), EXAMPLE);
    }

    #[test]
    fn each_flipped_bit_and_each_truncation_is_seen() {
        for nth in 0..EXAMPLE.len() * 8 {
            let mut bytes = EXAMPLE.to_vec();
            bytes[nth / 8] ^= 1 << (nth % 8);
            let fault = decode(&bytes).unwrap_err();
            let frame = if nth / 8 < 48 { 0 } else { 48 };
            assert_eq!(fault.position, frame, "bit {nth}: {fault:?}");
        }
        for len in (1..EXAMPLE.len()).filter(|len| *len != 48) {
            assert_eq!(decode(&EXAMPLE[..len]).unwrap_err().why, DecodeError::Short, "{len}");
        }
    }

    #[test]
    fn frames_that_lie_with_checksums_that_fit_are_refused() {
        let [(data, body), (hole, _)] = example();
        let at = |base| FrameHeader { base_offset: Offset::new(base), ..hole };
        let gap = FrameHeader { durable_gap: 1, ..data };
        let dated = FrameHeader { appended_at: Timestamp::MAX, ..hole };
        let sealed = |header: &FrameHeader, body: &[u8]| {
            let mut bytes = header.encode(0).to_vec();
            bytes.extend_from_slice(body);
            bytes.resize(bytes.len().next_multiple_of(PADDING.len()), 0);
            bytes
        };
        let cases = [
            ("a gap", sealed(&gap, body)),
            ("a dated hole", sealed(&dated, &[])),
            ("offsets missing", encode(&[(data, body), (at(7), &[])])),
            ("offsets twice", encode(&[(data, body), (at(5), &[])])),
            ("the same again", encode(&[(data, body), (data, body)])),
        ];
        for (what, bytes) in cases {
            let fault = decode(&bytes).unwrap_err();
            assert!(matches!(fault.why, DecodeError::Malformed(_)), "{what}: {fault:?}");
        }
    }
}
