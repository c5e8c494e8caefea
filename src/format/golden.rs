//! Tests of all codecs against the golden files, which `tests/data/v1/write.py` wrote.

use crate::format::bytes::DecodeError;
use crate::format::bytes::Reader;
use crate::format::bytes::crc;
use crate::format::frame::FRAME_HEADER_LEN;
use crate::format::frame::FrameHeader;
use crate::format::index;
use crate::format::index::INDEX_INTERVAL_BYTES;
use crate::format::index::IndexEntry;
use crate::format::index::IndexHeader;
use crate::format::manifest::Manifest;
use crate::format::manifest::RowState;
use crate::format::names;
use crate::format::record;
use crate::format::record::HeaderPairs;
use crate::format::record::RecordView;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::format::segment::SegmentHeader;
use crate::record::Record;
use crate::units::Offset;
use crate::units::Timestamp;
use std::fmt::Debug;

const MANIFEST: &[u8] = include_bytes!("../../tests/data/v1/log/MANIFEST");
const EXPECTED: &str = include_str!("../../tests/data/v1/expected.tsv");
const SEGMENTS: [Files; 2] = [
    Files {
        name: "00000000000000000000-00000001.log",
        log: include_bytes!("../../tests/data/v1/log/00000000000000000000-00000001.log"),
        index: include_bytes!("../../tests/data/v1/log/00000000000000000000-00000001.index"),
    },
    Files {
        name: "00000000000000000409-00000002.log",
        log: include_bytes!("../../tests/data/v1/log/00000000000000000409-00000002.log"),
        index: include_bytes!("../../tests/data/v1/log/00000000000000000409-00000002.index"),
    },
];

struct Files {
    name: &'static str,
    log: &'static [u8],
    index: &'static [u8],
}

impl Files {
    fn header(&self) -> SegmentHeader {
        SegmentHeader::decode(self.log).unwrap()
    }

    /// Position, header and body of each frame.
    fn frames(&self) -> Vec<(usize, FrameHeader, &'static [u8])> {
        let seed = self.header().seed;
        let mut frames = Vec::new();
        let mut position = SEGMENT_HEADER_LEN;
        while position < self.log.len() {
            let bytes = &self.log[position..];
            let header = FrameHeader::decode(bytes, seed).unwrap();
            let body_len = usize::try_from(header.body_len).unwrap();
            frames.push((position, header, &bytes[FRAME_HEADER_LEN..][..body_len]));
            position += usize::try_from(header.frame_len()).unwrap();
        }
        assert_eq!(position, self.log.len());
        frames
    }

    fn index_header(&self) -> IndexHeader {
        let SegmentHeader { segment_id, base_offset, seed, .. } = self.header();
        IndexHeader { segment_id, base_offset, segment_end: self.log.len() as u64, seed }
    }
}

fn records(body: &[u8]) -> Vec<RecordView<'_>> {
    let mut reader = Reader::new(body);
    let mut records = Vec::new();
    while !reader.is_empty() {
        records.push(record::decode(&mut reader).unwrap());
    }
    records
}

/// The record a caller would append to get `view`.
pub(super) fn to_record<'a>(view: &RecordView<'a>) -> Record<'a> {
    Record {
        key: view.key.map(Into::into),
        value: view.value.map(Into::into),
        headers: HeaderPairs::new(view.headers).map(|(n, v)| (n.into(), v.into())).collect(),
        timestamp: view.timestamp,
    }
}

#[test]
fn the_manifest_says_what_the_segments_say() {
    let manifest = Manifest::decode(MANIFEST).unwrap();
    assert_eq!(manifest.encode(), MANIFEST);
    assert_eq!(manifest.log_id, 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    assert!(manifest.closed);
    assert_eq!((manifest.next_segment_id, manifest.truncation_epoch), (3, 1));
    assert_eq!(manifest.last_append_time, Timestamp::from_micros(1_700_000_000_070_001));
    assert_eq!((manifest.start_offset, manifest.end_offset()), (Offset::ZERO, Offset::new(413)));
    assert_eq!(manifest.compacted_to, Offset::new(409));
    let compacted: Vec<_> =
        manifest.rows.iter().map(|row| (row.compacted_at, row.tombstone_count)).collect();
    let compacted_at = Timestamp::from_micros(1_700_000_000_090_000);
    assert_eq!(compacted, [(Some(compacted_at), 2), (None, 0)]);
    let states: Vec<_> = manifest.rows.iter().map(|row| row.state).collect();
    assert_eq!(states, [RowState::Sealed, RowState::Active]);
    for (row, files) in manifest.rows.iter().zip(&SEGMENTS) {
        let frames = files.frames();
        let record_count: usize = frames.iter().map(|(_, _, body)| records(body).len()).sum();
        assert_eq!(names::segment(row.base_offset, row.segment_id), files.name);
        assert_eq!(row.byte_len, files.log.len() as u64);
        assert_eq!(row.record_count, record_count as u64);
        assert_eq!(row.end_offset, frames.last().unwrap().1.end_offset());
        assert_eq!(row.first_appended_at, frames[0].1.appended_at);
    }
}

#[test]
fn the_segments_form_a_chain() {
    let [first, second] = SEGMENTS.map(|files| files.header());
    assert_eq!((first.previous_id, first.previous_end), (0, first.base_offset));
    assert_eq!((second.previous_id, second.previous_end), (1, second.base_offset));
    for files in SEGMENTS {
        assert_eq!(files.header().encode(), files.log[..SEGMENT_HEADER_LEN]);
    }
}

#[test]
fn frames_and_records_are_written_again_to_the_same_bytes() {
    for files in SEGMENTS {
        let mut end_offset = files.header().base_offset;
        for (position, header, body) in files.frames() {
            assert_eq!(header.base_offset, end_offset);
            assert!(FrameHeader::may_begin(&files.log[position..], end_offset));
            assert_eq!(
                header.encode(files.header().seed),
                files.log[position..][..FRAME_HEADER_LEN]
            );
            assert_eq!(header.body_crc, crc(0, body));
            end_offset = header.end_offset();

            let views = records(body);
            if views.iter().all(|view| view.offset_step == 0) {
                let mut again = Vec::new();
                for view in &views {
                    record::encode(&mut again, &to_record(view), view.time_delta);
                }
                assert_eq!(again, body);
            }
        }
    }
    let [_, (_, header, _), ..] = SEGMENTS[0].frames()[..] else { panic!("too few frames") };
    assert_eq!((header.durable_gap, header.durable_mark()), (1, Offset::ZERO));
}

#[test]
fn the_records_are_those_expected() {
    let mut lines = EXPECTED.lines().filter(|line| !line.starts_with('#'));
    for (_, header, body) in SEGMENTS.iter().flat_map(Files::frames) {
        let mut offset = header.base_offset;
        for view in records(body) {
            offset = offset + view.offset_step;
            assert!(offset < header.end_offset());
            let line = line(offset, header.appended_at, &view);
            assert_eq!(Some(&line[..]), lines.next());
            offset = offset + 1;
        }
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn the_indexes_say_where_the_frames_are() {
    for files in SEGMENTS {
        let mut expected: Vec<IndexEntry> = Vec::new();
        for (position, header, _) in files.frames() {
            let position = position as u64;
            if expected.last().is_none_or(|e| position - e.position >= INDEX_INTERVAL_BYTES) {
                let FrameHeader { base_offset, appended_at, .. } = header;
                expected.push(IndexEntry { base_offset, position, appended_at });
            }
        }
        let entries = index::decode(files.index, &files.index_header()).unwrap();
        assert_eq!(entries, expected);
        assert_eq!(index::encode(&files.index_header(), &entries), files.index);
    }
}

/// The worked example of `docs/FORMAT.md`, written out by hand.
#[test]
fn the_worked_example_is_what_is_written_and_read() {
    #[rustfmt::skip]
    let example: [u8; 48] = [
        0xee, 0xab, 0x9a, 0x0b,
        0x05, 0x00, 0x00, 0x00,
        0x05, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x40, 0x42, 0x0f, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x01, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00,
        0x41, 0x78, 0x01, 0xa7,
        0x01,
        0x00,
        0x00, 0x00,
        0x01,
        0x01,
        0x6b,
        0x01,
        0x76,
        0x00, 0x00, 0x00,
    ];
    let seed = 0x00c0_ffee;
    let record = Record::new("v").key("k");
    let mut body = Vec::new();
    record::encode(&mut body, &record, 0);
    let header = FrameHeader {
        body_len: 5,
        base_offset: Offset::new(5),
        appended_at: Timestamp::from_micros(1_000_000),
        count: 1,
        durable_gap: 0,
        body_crc: crc(0, &body),
    };
    assert_eq!([&header.encode(seed)[..], &body, &[0; 3]].concat(), example);
    assert_eq!(header.frame_len(), 48);
    assert_eq!(FrameHeader::decode(&example, seed), Ok(header));
    assert_eq!(to_record(&records(&example[40..45])[0]), record);
}

#[test]
fn each_flipped_bit_and_each_truncation_is_seen() {
    check_damage("manifest", MANIFEST, Manifest::decode);
    for files in SEGMENTS {
        check_damage("segment header", &files.log[..SEGMENT_HEADER_LEN], SegmentHeader::decode);
        let header = files.index_header();
        check_damage("index", files.index, |bytes| index::decode(bytes, &header));
        let seed = files.header().seed;
        for (position, _, _) in files.frames() {
            let bytes = &files.log[position..][..FRAME_HEADER_LEN];
            check_damage("frame header", bytes, |bytes| FrameHeader::decode(bytes, seed));
        }
    }
}

fn check_damage<T: Debug>(
    what: &str,
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) {
    decode(bytes).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let decoded = decode(&damaged);
        assert!(decoded.is_err(), "{what}, bit {bit}: {decoded:?}");
    }
    for len in 0..bytes.len() {
        let decoded = decode(&bytes[..len]);
        assert!(decoded.is_err(), "{what}, {len} bytes: {decoded:?}");
    }
    assert_eq!(decode(&[]).unwrap_err(), DecodeError::Short);
}

/// A record as `expected.tsv` writes it; `write.py` says how.
fn line(offset: Offset, frame_time: Timestamp, view: &RecordView<'_>) -> String {
    let time = frame_time.as_micros() + i64::try_from(view.time_delta).unwrap();
    let timestamp = view.timestamp.map(|time| time.as_micros().to_string());
    let headers: Vec<_> = HeaderPairs::new(view.headers)
        .map(|(name, value)| format!("{}={}", hexadecimal(name.as_bytes()), hexadecimal(value)))
        .collect();
    [
        offset.to_string(),
        time.to_string(),
        timestamp.unwrap_or_else(|| "-".to_owned()),
        view.key.map_or_else(|| "-".to_owned(), hexadecimal),
        view.value.map_or_else(|| "tombstone".to_owned(), hexadecimal),
        if headers.is_empty() { "-".to_owned() } else { headers.join(",") },
    ]
    .join("\t")
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}
