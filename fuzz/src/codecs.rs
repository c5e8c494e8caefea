//! Single structures: decoding never panics, and what is decoded is encoded to the same bytes.
//!
//! The first byte of an input is a set of switches; bit 0 asks for checksums that fit, so that what
//! lies behind them is reached.

use crate::input::Input;
use crate::support::image::DIR;
use crate::support::image::tiny;
use crate::support::replica::shipped;
use std::sync::Arc;
use stratalog::fuzzing;
use stratalog::storage::MemoryStorage;
use stratalog::{ErrorKind, Offset, Seek};

/// Seed, then a frame: its header and the records in its body.
pub fn frame(data: &[u8]) {
    let mut input = Input(data);
    let (switches, seed) = (input.byte(), u32::from_le_bytes(input.array()));
    let mut bytes = input.0.to_vec();
    if switches & 1 != 0 && bytes.len() >= 40 {
        let crc = crc(seed, &bytes[4..40]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
    }
    if let Some(again) = fuzzing::frame(&bytes, seed) {
        assert_eq!(again, bytes[..40], "a frame header has two encodings");
    }
    let body = bytes.get(40..).unwrap_or_default();
    if let Some(again) = fuzzing::records(body) {
        assert_eq!(again, body[..again.len()], "a record has two encodings");
    }
}

/// The header of a segment, and a name of a file.
pub fn segment(data: &[u8]) {
    let mut input = Input(data);
    let switches = input.byte();
    let mut bytes = input.0.to_vec();
    if switches & 1 != 0 && bytes.len() >= 72 {
        let crc = crc(0, &bytes[..68]);
        bytes[68..72].copy_from_slice(&crc.to_le_bytes());
    }
    if let Some(again) = fuzzing::segment(&bytes) {
        assert_eq!(again, bytes[..72], "a segment header has two encodings");
    }
    let name = std::ffi::OsStr::new(std::str::from_utf8(input.0).unwrap_or("LOCK"));
    if let Some(again) = fuzzing::name(name) {
        assert_eq!(name, again.as_str(), "a file has two names");
    }
}

/// An index, read as that of the segment it claims (bit 1) or of another one.
pub fn index(data: &[u8]) {
    let mut input = Input(data);
    let switches = input.byte();
    let mut bytes = input.0.to_vec();
    if switches & 1 != 0 && bytes.len() >= 16 {
        let crc = crc(0, &bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    }
    let mut claim = Input(bytes.get(16..).unwrap_or_default());
    let [id, base, end] = [(); 3].map(|()| u64::from_le_bytes(claim.array()));
    let seed = u32::from_le_bytes(claim.array());
    let of = if switches & 2 != 0 { (id, base, end, seed) } else { (1, 0, 72, 1) };
    if let Some(again) = fuzzing::index(&bytes, of) {
        assert_eq!(again, bytes, "an index has two encodings");
    }
}

/// A manifest.
pub fn manifest(data: &[u8]) {
    let mut input = Input(data);
    let switches = input.byte();
    let mut bytes = input.0.to_vec();
    if switches & 1 != 0 && bytes.len() >= 4 {
        let end = bytes.len() - 4;
        let crc = crc(0, &bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
    }
    if let Some(again) = fuzzing::manifest(&bytes) {
        assert_eq!(again, bytes, "a manifest has two encodings");
    }
}

/// Frames as another log ships them, taken by a replica: all or nothing, and what is taken is read
/// without an error and shipped on as it came.
pub fn wire(data: &[u8]) {
    let mut input = Input(data);
    let switches = input.byte();
    let mut bytes = input.0.to_vec();
    if switches & 1 != 0 {
        seal_frames(&mut bytes);
    }
    let storage = Arc::new(MemoryStorage::new());
    let replica = tiny(storage).max_batch_bytes(1 << 16).open(DIR).expect("it is empty");
    let base = bytes.get(8..16).and_then(|base| base.try_into().ok()).map_or(0, u64::from_le_bytes);
    let base = Offset::from(base);
    replica.delete_before(base).expect("a log can jump");
    assert_eq!(replica.diverges_from(&bytes).unwrap_or_default(), None);
    match replica.append_frames(&bytes) {
        Ok(range) => {
            assert_eq!(range, base..replica.end_offset());
            assert_eq!(shipped(&replica, base), bytes, "two ways to ship the same");
            let records = replica.iter(Seek::Start).expect("it is there");
            let read = records.map(|entry| entry.expect("it is sound").offset());
            assert!(read.is_sorted_by(|one, next| one < next));
        }
        Err(error) => {
            let kinds = [ErrorKind::Corrupt, ErrorKind::TooLarge, ErrorKind::UnsupportedVersion];
            assert!(kinds.contains(&error.kind()), "{error}");
            assert!(error.position().is_some_and(|place| place.get() <= bytes.len() as u64));
            assert_eq!(replica.end_offset(), base, "a part of it was taken");
        }
    }
}

/// Makes all checksums fit, as far as lengths lead from one frame to the next.
fn seal_frames(bytes: &mut [u8]) {
    let mut rest = bytes;
    while rest.len() >= 40 {
        let len = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
        if let Some(body) = rest.get(40..40 + len) {
            let body_crc = if len == 0 { 0 } else { crc(0, body) };
            rest[32..36].copy_from_slice(&body_crc.to_le_bytes());
        }
        let header_crc = crc(0, &rest[4..40]);
        rest[..4].copy_from_slice(&header_crc.to_le_bytes());
        let next = (40 + len).next_multiple_of(8).min(rest.len());
        rest = &mut rest[next..];
    }
}

/// The notices in a lock file, both slots.
pub fn notice(data: &[u8]) {
    let mut input = Input(data);
    let switches = input.byte();
    let mut bytes = input.0.to_vec();
    for slot in [0, 256] {
        if let Some(slot) = bytes.get_mut(slot..slot + 192).filter(|_| switches & 1 != 0) {
            let crc = crc(crc(0, &slot[..12]), &slot[16..]);
            slot[12..16].copy_from_slice(&crc.to_le_bytes());
        }
    }
    if let Some(again) = fuzzing::notice(&bytes) {
        let is_found = |slot: usize| bytes.get(slot..slot + 192) == Some(&again[..]);
        assert!(is_found(0) || is_found(256), "a notice has two encodings");
    }
}

/// A decoder with the classic mistake: it trusts a length. Whoever does not find it finds nothing.
pub fn canary(data: &[u8]) {
    let mut input = Input(data);
    if input.array() == *b"CAN" {
        let len = usize::from(input.byte());
        let value = &input.0[..len];
        assert_eq!(value.len(), len);
    }
}

/// CRC-32 continued from `init`, as the format has it.
pub(crate) fn crc(init: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(init);
    hasher.update(bytes);
    hasher.finalize()
}
