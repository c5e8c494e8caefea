//! Single structures: decoding never panics, and what is decoded is encoded to the same bytes.
//!
//! The first byte of an input is a set of switches; bit 0 asks for checksums that fit, so that what
//! lies behind them is reached.

use crate::input::Input;
use stratalog::fuzzing;

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
