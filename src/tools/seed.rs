//! The seed of a segment whose header is damaged, found from its frames.
//!
//! The checksum of a frame's header begins with the seed, and a CRC can be run backwards: from the
//! checksum and the bytes it covers follows the seed. That there is a frame at all is told by the
//! checksum of its body, which does not depend on the seed.
//!
//! What the index of the segment states, or its damaged header, is tried first: one header of a
//! frame that agrees is enough for those. What the header of a frame leads to, which may be damaged
//! too, is less: then two frames have to agree. Of a lone frame its place has to vouch for its
//! offset, at which the segment begins; its append time may be wrong.
//!
//! A record may hold frames of other segments. So nothing is looked for inside a frame that is
//! sound, and what agrees with the frame in the first place is right. Where that one is damaged,
//! which may be what held them, the last frames that agree are: they lie outside of it.

use crate::error::Result;
use crate::format::bytes;
use crate::format::frame::ALIGNMENT;
use crate::format::frame::FRAME_HEADER_LEN;
use crate::format::frame::FrameHeader;
use crate::format::index;
use crate::format::index::INDEX_INTERVAL_BYTES;
use crate::format::names;
use crate::format::segment::MAX_SEGMENT_LEN;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::format::segment::SegmentHeader;
use crate::segment::Scan;
use crate::segment::Step;
use crate::storage::Dir;
use crate::storage::Handle;
use crate::storage::OpenMode;
use crate::units::Offset;
use std::collections::BTreeSet;

const STEP: usize = 8;
const _: () = assert!(STEP as u64 == ALIGNMENT);

/// How many places are tried that may begin a frame.
const TRIES: u32 = 1 << 17;

/// No more bodies are checked when this many bytes have been in vain.
const VAIN_BYTES: u64 = 16 << 20;

/// How much is read at a time.
const PIECE_BYTES: u64 = 256 << 10;

/// No index is longer: the header, and an entry an interval.
const INDEX_BYTES: u64 = 64 + 16 * (MAX_SEGMENT_LEN / INDEX_INTERVAL_BYTES + 1);

/// The seed of the frames in the file of a segment.
pub(super) fn find(dir: &Dir, base: Offset, id: u64) -> Result<Option<u32>> {
    let file = dir.open(&names::segment(base, id), OpenMode::Read)?;
    let mut header = [0; SEGMENT_HEADER_LEN];
    let read = file.read(&mut header, 0)?;
    let stated = SegmentHeader::stated_seed(header.get(..read).unwrap_or_default());
    // A header of zeros states 0, which is the seed of frames on their way to another log.
    let stated = stated.filter(|seed| *seed != 0);
    for seed in of_index(dir, base, id).into_iter().chain(stated) {
        if has_frame(&file, seed, base)? {
            return Ok(Some(seed));
        }
    }
    search(&file, base)
}

/// The seed that an index states. One that cannot be read is none.
fn of_index(dir: &Dir, base: Offset, id: u64) -> Option<u32> {
    let file = dir.open_if_there(&names::index(base, id), OpenMode::Read).ok()??;
    let size = file.size().ok().filter(|size| *size <= INDEX_BYTES)?;
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    file.read(&mut bytes, 0).ok()?;
    let header = index::decode_header(&bytes).ok()?;
    (header.segment_id == id && header.base_offset == base).then_some(header.seed)
}

/// Whether there is the header of a frame with that seed.
fn has_frame(file: &Handle, seed: u32, base: Offset) -> Result<bool> {
    let end = file.size()?.min(2 * MAX_SEGMENT_LEN);
    let mut scan = Scan::new(file, seed, end, (SEGMENT_HEADER_LEN as u64, base));
    Ok(match scan.step()? {
        Step::Frame { .. } => true,
        Step::Damage(damage) => scan.resume_at(&damage)?.is_some(),
        Step::End => false,
    })
}

/// The seed that the frames lead to.
fn search(file: &Handle, base: Offset) -> Result<Option<u32>> {
    let mut headers = Headers { file, base, block: Vec::new(), start: 0, tries: TRIES };
    let mut position = SEGMENT_HEADER_LEN as u64;
    let mut left = VAIN_BYTES;
    let (mut first, mut agreed, mut seeds) = (None, None, BTreeSet::new());
    while let Some((found, header, seed)) = headers.next_from(position)? {
        if first == Some(seed) {
            return Ok(first);
        }
        if seeds.contains(&seed) {
            agreed = Some(seed);
        }
        position = found + ALIGNMENT;
        if left == 0 {
            continue;
        }
        if has_body(file, found, &header)? {
            position = found + header.frame_len();
            seeds.insert(seed);
            if found == SEGMENT_HEADER_LEN as u64 && header.base_offset == base {
                first = Some(seed);
            }
        } else {
            left = left.saturating_sub(header.body_len.into());
        }
    }
    Ok(agreed.or(first))
}

/// What may be the headers of frames, in the order of a file.
struct Headers<'a> {
    file: &'a Handle,
    /// No frame has a lower offset.
    base: Offset,
    /// What was read last, and from where.
    block: Vec<u8>,
    start: u64,
    tries: u32,
}

impl Headers<'_> {
    /// The next one from a position on, and the seed it leads to.
    fn next_from(&mut self, mut position: u64) -> Result<Option<(u64, FrameHeader, u32)>> {
        loop {
            let place = usize::try_from(position - self.start).unwrap_or(usize::MAX);
            let read = self.block.get(place..).filter(|read| read.len() >= FRAME_HEADER_LEN);
            let Some(read) = read else {
                if !self.read(position)? {
                    return Ok(None);
                }
                continue;
            };
            for bytes in read.windows(FRAME_HEADER_LEN).step_by(STEP) {
                if FrameHeader::may_begin(bytes, self.base) {
                    if self.tries == 0 {
                        return Ok(None);
                    }
                    self.tries -= 1;
                    if let Some((header, seed)) = led_to(bytes) {
                        return Ok(Some((position, header, seed)));
                    }
                }
                position += ALIGNMENT;
            }
        }
    }

    /// Reads from a position on. Gives whether there is enough for a header.
    fn read(&mut self, position: u64) -> Result<bool> {
        self.block.resize(usize::try_from(PIECE_BYTES).unwrap_or_default(), 0);
        let read = self.file.read(&mut self.block, position)?;
        self.block.truncate(read);
        self.start = position;
        Ok(read >= FRAME_HEADER_LEN)
    }
}

/// The header that these bytes are if they are one, and its seed.
fn led_to(bytes: &[u8]) -> Option<(FrameHeader, u32)> {
    let seed = seed_of(bytes)?;
    Some((FrameHeader::decode(bytes, seed).ok()?, seed))
}

/// Whether the body of a frame is what its header says. It may be long: it is read in pieces.
fn has_body(file: &Handle, position: u64, header: &FrameHeader) -> Result<bool> {
    let mut position = position + FRAME_HEADER_LEN as u64;
    let end = position + u64::from(header.body_len);
    let mut crc = 0;
    while position < end {
        let len = (end - position).min(PIECE_BYTES);
        let mut piece = vec![0; usize::try_from(len).unwrap_or_default()];
        if file.read(&mut piece, position)? < piece.len() {
            return Ok(false);
        }
        crc = bytes::crc(crc, &piece);
        position += len;
    }
    Ok(crc == header.body_crc)
}

/// The seed that makes the checksum of a header agree.
fn seed_of(header: &[u8]) -> Option<u32> {
    let (stated, covered) = header.split_first_chunk::<4>()?;
    let mut state = !u32::from_le_bytes(*stated);
    for byte in covered.iter().rev() {
        for _ in 0..8 {
            state = match state >> 31 {
                0 => state << 1,
                _ => (state ^ POLYNOMIAL) << 1 | 1,
            };
        }
        state ^= u32::from(*byte);
    }
    Some(!state).filter(|seed| *seed != 0)
}

/// Of CRC-32, reflected.
const POLYNOMIAL: u32 = 0xedb8_8320;

#[cfg(test)]
mod tests {
    use super::seed_of;
    use crate::format::frame::FrameHeader;
    use crate::units::Offset;
    use crate::units::Timestamp;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn a_header_tells_its_seed(seed in 1_u32.., base in any::<u32>(), at in any::<i64>()) {
            let header = FrameHeader {
                body_len: 7,
                base_offset: Offset::new(base.into()),
                appended_at: Timestamp::from_micros(at),
                count: 3,
                durable_gap: 0,
                body_crc: 0x1234_5678,
            };
            prop_assert_eq!(seed_of(&header.encode(seed)), Some(seed));
        }
    }
}
