//! The seed of a segment whose header is damaged, found from its frames.
//!
//! The checksum of a frame's header begins with the seed, and a CRC can be run backwards: from the
//! checksum and the bytes it covers follows the seed. That there is a frame at all is told by the
//! checksum of its body, which does not depend on the seed.
//!
//! A damaged header leads to some seed as well. So two have to agree: two frames, or one and what
//! is left of the segment's header; of the first frame its header and its place are enough then,
//! since its body may be long. Of a lone frame its place has to vouch for its offset, at which
//! the segment begins; its append time may be wrong.

use crate::error::Result;
use crate::format::bytes;
use crate::format::frame::ALIGNMENT;
use crate::format::frame::FRAME_HEADER_LEN;
use crate::format::frame::FrameHeader;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::format::segment::SegmentHeader;
use crate::storage::Handle;
use crate::units::Offset;

/// How far into the file a frame is looked for; many frames fit into that.
const LOOK_BYTES: u64 = 1 << 20;

/// How many bytes of bodies are checked at most.
const CHECK_BYTES: u64 = 16 << 20;

/// The seed of the frames of a file, the first of which is at or behind `base`.
pub(super) fn find(file: &Handle, base: Offset) -> Result<Option<u32>> {
    let len = file.size()?.min(LOOK_BYTES);
    let mut block = vec![0; usize::try_from(len).unwrap_or_default()];
    let read = file.read(&mut block, 0)?;
    block.truncate(read);
    let mut left = CHECK_BYTES;
    // What the damaged header says may be right.
    let stated = SegmentHeader::stated_seed(&block);
    if let Some(seed) = stated.filter(|seed| begins_with(&block, *seed, base)) {
        return Ok(Some(seed));
    }
    let mut seeds: Vec<u32> = stated.into_iter().collect();
    let mut lone = None;
    let step = usize::try_from(ALIGNMENT).unwrap_or(8);
    for (nth, bytes) in block.windows(FRAME_HEADER_LEN).step_by(step).enumerate() {
        if !FrameHeader::may_begin(bytes, base) {
            continue;
        }
        let Some(seed) = seed_of(bytes) else { continue };
        let Ok(header) = FrameHeader::decode(bytes, seed) else { continue };
        let body_len = u64::from(header.body_len);
        if body_len > left {
            continue;
        }
        left -= body_len;
        let start = (nth * step + FRAME_HEADER_LEN) as u64;
        let mut body = vec![0; usize::try_from(body_len).unwrap_or_default()];
        if file.read(&mut body, start)? == body.len() && bytes::crc(0, &body) == header.body_crc {
            if seeds.contains(&seed) {
                return Ok(Some(seed));
            }
            seeds.push(seed);
            if nth * step == SEGMENT_HEADER_LEN && header.base_offset == base {
                lone = Some(seed);
            }
        }
    }
    Ok(lone)
}

/// Whether the header of a frame with that seed stands where the first one does.
fn begins_with(block: &[u8], seed: u32, base: Offset) -> bool {
    let first = block.get(SEGMENT_HEADER_LEN..).unwrap_or_default();
    FrameHeader::decode(first, seed).is_ok_and(|header| header.base_offset == base)
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
