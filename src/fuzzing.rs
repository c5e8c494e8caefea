//! A door to the private codecs for `fuzz/`, compiled only with `--cfg fuzzing`.
//!
//! Each function decodes bytes and encodes what it found again: `None` if the bytes are refused,
//! and otherwise the one way to write what they mean, which must be the bytes themselves.

use crate::format::bytes::Reader;
use crate::format::frame::FrameHeader;
use crate::format::index;
use crate::format::index::IndexHeader;
use crate::format::manifest::Manifest;
use crate::format::names;
use crate::format::names::Name;
use crate::format::notice::Notice;
use crate::format::notice::NoticeMarks;
use crate::format::position::Slot;
use crate::format::record;
use crate::format::record::HeaderPairs;
use crate::format::segment::SegmentHeader;
use crate::record::Record;
use crate::units::Offset;
use std::ffi::OsStr;

/// The header of a frame in a segment with this seed.
#[must_use]
pub fn frame(bytes: &[u8], seed: u32) -> Option<Vec<u8>> {
    let header = FrameHeader::decode(bytes, seed).ok()?;
    // What a reader asks of it, whatever it says.
    let frame_len = header.frame_len();
    assert!(
        header.durable_mark() <= header.base_offset && header.base_offset < header.end_offset()
    );
    assert!(frame_len > u64::from(header.body_len) && frame_len.is_multiple_of(8));
    assert!(FrameHeader::may_begin(bytes, header.base_offset));
    Some(header.encode(seed).to_vec())
}

/// The records of a body. One that compaction put at a step cannot be encoded: it ends the list.
#[must_use]
pub fn records(body: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(body);
    let mut again = Vec::new();
    while !reader.is_empty() {
        let view = record::decode(&mut reader).ok()?;
        if view.offset_step > 0 {
            break;
        }
        let mut found = match view.value {
            Some(value) => Record::new(value),
            None => Record::tombstone(view.key?),
        };
        if let Some(key) = view.key {
            found = found.key(key);
        }
        found.timestamp = view.timestamp;
        let pairs = HeaderPairs::new(view.headers);
        let found = pairs.fold(found, |found, (name, value)| found.header(name, value));
        let len = again.len() as u64 + record::encoded_len(&found, view.time_delta);
        record::encode(&mut again, &found, view.time_delta);
        assert_eq!(again.len() as u64, len, "the length that was foretold");
    }
    Some(again)
}

/// The header of a segment.
#[must_use]
pub fn segment(bytes: &[u8]) -> Option<Vec<u8>> {
    SegmentHeader::decode(bytes).ok().map(|header| header.encode().to_vec())
}

/// An index of a segment that has this id, base offset, end and seed.
#[must_use]
pub fn index(bytes: &[u8], of: (u64, u64, u64, u32)) -> Option<Vec<u8>> {
    let (segment_id, base_offset, segment_end, seed) = of;
    let base_offset = Offset::new(base_offset);
    let header = IndexHeader { segment_id, base_offset, segment_end, seed };
    let entries = index::decode(bytes, &header).ok()?;
    for (entry, next) in entries.iter().zip(entries.iter().skip(1)) {
        assert!(entry.base_offset < next.base_offset && entry.position < next.position);
        assert!(entry.appended_at <= next.appended_at && next.position < segment_end);
    }
    Some(index::encode(&header, &entries))
}

/// A manifest.
#[must_use]
pub fn manifest(bytes: &[u8]) -> Option<Vec<u8>> {
    let manifest = Manifest::decode(bytes).ok()?;
    assert!(manifest.start_offset <= manifest.end_offset());
    Some(manifest.encode())
}

/// A slot of a consumer's position, if one was written.
#[must_use]
pub fn position(bytes: &[u8; 64]) -> Option<Vec<u8>> {
    let slot = Slot::decode(bytes).ok()??;
    Some(slot.encode().to_vec())
}

/// The name of a segment or an index.
#[must_use]
pub fn name(name: &OsStr) -> Option<String> {
    match names::parse(name)? {
        Name::Segment { base_offset, segment_id } => Some(names::segment(base_offset, segment_id)),
        Name::Index { base_offset, segment_id } => Some(names::index(base_offset, segment_id)),
        Name::Prepared { segment_id } => Some(names::prepared(segment_id)),
        Name::Lock | Name::Manifest | Name::ManifestNext | Name::SegmentNext => {
            name.to_str().map(str::to_owned)
        }
    }
}

/// The notices of a lock file: the latest of them.
#[must_use]
pub fn notice(bytes: &[u8]) -> Option<Vec<u8>> {
    let notice = Notice::latest(bytes)?;
    let NoticeMarks { end, written, durable, shown } = notice.marks;
    assert!(durable <= written && written <= end && shown <= written);
    // What a reader and the next writer ask of it.
    let mut lowest = notice.points.lowest_end_since(0);
    for seen in [1, notice.points.epoch().saturating_sub(1), notice.points.epoch()] {
        let later = notice.points.lowest_end_since(seen);
        assert!(later.is_none() || lowest <= later);
        lowest = later;
    }
    assert_eq!(lowest, None, "no truncation is later than the last");
    let mut points = notice.points;
    points.cut(points.epoch().saturating_add(1), shown);
    Some(notice.encode().to_vec())
}
