//! Words of tests about replication: catching up, frames in files and on the wire by hand.

use crate::support::Site;
use crate::support::forge::HEADER_LEN;
use crate::support::image::Image;
use stratalog::storage::{FsStorage, Storage};
use stratalog::{Log, Offset};

/// A frame as docs/FORMAT.md has it, but for what is the segment's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) base: u64,
    pub(crate) at: i64,
    pub(crate) count: u32,
    pub(crate) gap: u32,
    pub(crate) kind: u8,
    pub(crate) codec: u8,
    pub(crate) flags: u16,
    pub(crate) body: Vec<u8>,
}

impl Wire {
    /// Records with these values, at this time.
    pub(crate) fn values(base: u64, at: i64, values: &[&[u8]]) -> Self {
        let mut body = Vec::new();
        for value in values {
            body.extend([0, u8::try_from(value.len()).unwrap()]);
            body.extend(*value);
        }
        Self::of(base, at, u32::try_from(values.len()).unwrap(), body)
    }

    pub(crate) fn of(base: u64, at: i64, count: u32, body: impl Into<Vec<u8>>) -> Self {
        Self { base, at, count, gap: 0, kind: 1, codec: 0, flags: 0, body: body.into() }
    }

    pub(crate) fn hole(base: u64, count: u32) -> Self {
        Self { kind: 2, ..Self::of(base, 0, count, []) }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let crc = if self.body.is_empty() { 0 } else { crc32fast::hash(&self.body) };
        self.sealed(u32::try_from(self.body.len()).unwrap(), crc)
    }

    /// With a length and a body CRC of their own, and a header CRC that fits.
    pub(crate) fn sealed(&self, body_len: u32, body_crc: u32) -> Vec<u8> {
        let mut covered = body_len.to_le_bytes().to_vec();
        covered.extend(self.base.to_le_bytes());
        covered.extend(self.at.to_le_bytes());
        covered.extend(self.count.to_le_bytes());
        covered.extend(self.gap.to_le_bytes());
        covered.extend(body_crc.to_le_bytes());
        covered.extend([self.kind, self.codec]);
        covered.extend(self.flags.to_le_bytes());
        let mut out = crc32fast::hash(&covered).to_le_bytes().to_vec();
        out.extend(covered);
        out.extend(&self.body);
        out.resize(out.len().next_multiple_of(8), 0);
        out
    }

    /// The frame that bytes begin with, and what is behind it.
    fn parse(bytes: &[u8]) -> (Self, &[u8]) {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let len = usize::try_from(u32_at(4)).unwrap();
        let frame = Self {
            base: u64_at(8),
            at: u64_at(16).cast_signed(),
            count: u32_at(24),
            gap: 0,
            kind: bytes[36],
            codec: bytes[37],
            flags: u16::from_le_bytes([bytes[38], bytes[39]]),
            body: bytes[40..40 + len].to_vec(),
        };
        (frame, &bytes[(40 + len).next_multiple_of(8)..])
    }
}

/// The frames in bytes that are known to be frames.
pub(crate) fn parse(mut bytes: &[u8]) -> Vec<Wire> {
    let mut frames = Vec::new();
    while !bytes.is_empty() && bytes[36] != 0 {
        let (frame, rest) = Wire::parse(bytes);
        frames.push(frame);
        bytes = rest;
    }
    frames
}

/// All frames in the segments of a log that is on a disk, without what is each segment's own.
pub(crate) fn frames_in(site: &Site) -> Vec<Wire> {
    let storage = FsStorage::new();
    frames_of(&Image::of_dir(&storage as &dyn Storage, site.path()))
}

pub(crate) fn frames_of(image: &Image) -> Vec<Wire> {
    let header = usize::try_from(HEADER_LEN).unwrap();
    let segments = image.segments();
    segments.iter().flat_map(|name| parse(&image.0[name][header..])).collect()
}

/// Ships frames until there are no more.
#[track_caller]
pub(crate) fn catch_up(leader: &Log, replica: &Log, max_bytes: usize) {
    loop {
        let from = replica.end_offset();
        let frames = leader.frames(from, max_bytes).unwrap();
        assert_eq!(frames.range().start, from);
        if frames.is_empty() {
            assert_eq!(frames.range(), from..from);
            return;
        }
        assert_eq!(replica.append_frames(frames.as_bytes()).unwrap(), frames.range());
        assert_eq!(replica.end_offset(), frames.range().end);
    }
}

/// All that a log ships from an offset on, in one piece.
pub(crate) fn shipped(log: &Log, from: Offset) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut from = from;
    loop {
        let frames = log.frames(from, 1 << 16).unwrap();
        if frames.is_empty() {
            return bytes;
        }
        from = frames.range().end;
        bytes.extend(frames.into_bytes());
    }
}
