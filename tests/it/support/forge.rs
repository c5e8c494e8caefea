//! Files of a log written by hand, from docs/FORMAT.md and from nothing in the crate.

/// A row of a manifest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) id: u64,
    pub(crate) base: u64,
    pub(crate) end: u64,
    pub(crate) byte_len: u64,
    pub(crate) state: u32,
}

/// The flag of a manifest that was written by a clean close, and none.
pub(crate) const CLOSED: u16 = 1;
pub(crate) const OPEN: u16 = 0;

pub(crate) const SEALED: u32 = 1;
pub(crate) const ACTIVE: u32 = 3;

pub(crate) const LOG_ID: u128 = 0x0123_4567_89ab_cdef;
pub(crate) const SEED: u32 = 0x5eed;
pub(crate) const HEADER_LEN: u64 = 72;

/// A manifest with all append times at 1 s, or without records if a row has none.
pub(crate) fn manifest(flags: u16, start: u64, rows: &[Row]) -> Vec<u8> {
    let next_id = rows.iter().map(|row| row.id).max().unwrap_or(0) + 1;
    let mut out = b"STRATMAN".to_vec();
    out.extend(1_u16.to_le_bytes());
    out.extend(flags.to_le_bytes());
    out.extend(u32::try_from(rows.len()).unwrap().to_le_bytes());
    out.extend(LOG_ID.to_le_bytes());
    for number in [start, next_id, AT.cast_unsigned(), 0] {
        out.extend(number.to_le_bytes());
    }
    out.extend([0; 16]);
    for row in rows {
        let count = row.end - row.base;
        let at = if count > 0 { AT.cast_unsigned() } else { 0 };
        for number in [row.id, row.base, row.end, row.byte_len, at, at, count] {
            out.extend(number.to_le_bytes());
        }
        out.extend(row.state.to_le_bytes());
        out.extend([0; 36]);
    }
    sealed(out)
}

/// The header of a segment whose predecessor ends where it begins.
pub(crate) fn segment(id: u64, base: u64) -> Vec<u8> {
    let mut out = b"STRATSEG".to_vec();
    out.extend([1, 0, 0, 0]);
    out.extend(SEED.to_le_bytes());
    out.extend(LOG_ID.to_le_bytes());
    for number in [id, base, id - 1, base] {
        out.extend(number.to_le_bytes());
    }
    out.extend([0; 4]);
    sealed(out)
}

/// A frame of one record with a value shorter than 128 bytes; all below it was durable.
pub(crate) fn frame(base: u64, value: &[u8]) -> Vec<u8> {
    let mut body = vec![0, u8::try_from(value.len()).unwrap()];
    body.extend(value);
    frame_of(base, 1, &body)
}

/// A frame around any body.
pub(crate) fn frame_of(base: u64, count: u32, body: &[u8]) -> Vec<u8> {
    frame_at(AT, base, count, body)
}

/// A frame of some append time, in microseconds.
pub(crate) fn frame_at(at: i64, base: u64, count: u32, body: &[u8]) -> Vec<u8> {
    let mut covered = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    covered.extend(base.to_le_bytes());
    covered.extend(at.to_le_bytes());
    covered.extend(count.to_le_bytes());
    covered.extend(0_u32.to_le_bytes());
    covered.extend(crc32fast::hash(body).to_le_bytes());
    covered.extend([1, 0, 0, 0]);
    let mut crc = crc32fast::Hasher::new_with_initial(SEED);
    crc.update(&covered);
    let mut out = crc.finalize().to_le_bytes().to_vec();
    out.extend(covered);
    out.extend(body);
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

pub(crate) fn segment_name(id: u64, base: u64) -> String {
    format!("{base:020}-{id:08}.log")
}

/// With the checksum of all bytes behind them.
pub(crate) fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// The bytes of a manifest with its checksum made to fit again.
pub(crate) fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - 4);
    sealed(bytes)
}

/// Append time, in microseconds.
const AT: i64 = 1_000_000;
