//! The records in the body of a frame.

use crate::format::bytes::DecodeError;
use crate::format::bytes::Reader;
use crate::format::bytes::put_varint;
use crate::format::bytes::varint_len;
use crate::format::bytes::wide;
use crate::record::Record;
use crate::units::Timestamp;

/// A record, borrowed from the body it was decoded from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordView<'a> {
    /// How many offsets before this record have none any more.
    pub(crate) offset_step: u64,
    /// Append time of the record minus that of the frame.
    pub(crate) time_delta: u64,
    /// The caller's own time.
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) key: Option<&'a [u8]>,
    /// `None` is a tombstone, which has a key.
    pub(crate) value: Option<&'a [u8]>,
    /// What [`HeaderPairs`] iterates over, already validated; empty if there are none.
    pub(crate) headers: &'a [u8],
}

/// Decodes the record that begins where `reader` stands.
///
/// The common record is flags, a length and a value, perhaps a key or a time delta; what is rarer
/// stays out of line, so that a scan has only that in its loop.
#[inline]
pub(crate) fn decode<'a>(reader: &mut Reader<'a>) -> Result<RecordView<'a>, DecodeError> {
    let flags = reader.u8()?;
    if flags & RESERVED != 0 {
        return Err(DecodeError::Unknown("a flag of a record"));
    }
    let has = |flag: u8| flags & flag != 0;
    let offset_step = if has(OFFSET_STEP) { decode_offset_step(reader)? } else { 0 };
    let time_delta = if has(TIME_DELTA) { decode_time_delta(reader)? } else { 0 };
    let timestamp = has(TIMESTAMP).then(|| reader.i64()).transpose()?;
    let key = has(KEY).then(|| reader.len_prefixed()).transpose()?;
    let value = (!has(TOMBSTONE)).then(|| reader.len_prefixed()).transpose()?;
    if key.is_none() && value.is_none() {
        return Err(DecodeError::Malformed("a tombstone has no key"));
    }
    let headers = if has(HEADERS) { decode_headers(reader)? } else { &[] };
    Ok(RecordView {
        offset_step,
        time_delta,
        timestamp: timestamp.map(Timestamp::from_micros),
        key,
        value,
        headers,
    })
}

/// The length of what [`encode`] appends for the same arguments.
#[inline]
pub(crate) fn encoded_len(record: &Record<'_>, time_delta: u64) -> u64 {
    let mut len = 1;
    if time_delta != 0 {
        len += wide(varint_len(time_delta));
    }
    if record.timestamp.is_some() {
        len += wide(size_of::<i64>());
    }
    if let Some(key) = &record.key {
        len += prefixed_len(key);
    }
    if let Some(value) = &record.value {
        len += prefixed_len(value);
    }
    if !record.headers.is_empty() {
        let headers_len = headers_len(record);
        len += wide(varint_len(headers_len)) + headers_len;
    }
    len
}

/// Appends a record whose append time is `time_delta` microseconds after that of its frame.
#[inline]
pub(crate) fn encode(out: &mut Vec<u8>, record: &Record<'_>, time_delta: u64) {
    out.push(flags(record, time_delta));
    if time_delta != 0 {
        put_varint(out, time_delta);
    }
    if let Some(timestamp) = record.timestamp {
        out.extend_from_slice(&timestamp.as_micros().to_le_bytes());
    }
    if let Some(key) = &record.key {
        put_prefixed(out, key);
    }
    if let Some(value) = &record.value {
        put_prefixed(out, value);
    }
    if !record.headers.is_empty() {
        put_headers(out, record);
    }
}

/// Appends the record that `bytes` are, moved to another place: with another offset step and
/// another time delta in front of what stays as it is. `None` if `bytes` are no record.
#[inline]
pub(crate) fn put_moved(
    out: &mut Vec<u8>,
    bytes: &[u8],
    offset_step: u64,
    time_delta: u64,
) -> Option<()> {
    let mut reader = Reader::new(bytes);
    let flags = reader.u8().ok()?;
    if flags & OFFSET_STEP != 0 {
        reader.varint().ok()?;
    }
    if flags & TIME_DELTA != 0 {
        reader.varint().ok()?;
    }
    let bit = |flag: u8, number: u64| if number != 0 { flag } else { 0 };
    let kept = flags & !(OFFSET_STEP | TIME_DELTA);
    out.push(kept | bit(OFFSET_STEP, offset_step) | bit(TIME_DELTA, time_delta));
    if offset_step != 0 {
        put_varint(out, offset_step);
    }
    if time_delta != 0 {
        put_varint(out, time_delta);
    }
    out.extend_from_slice(bytes.get(bytes.len() - reader.remaining()..)?);
    Some(())
}

/// The headers of a record, in their order.
///
/// Never panics and never fails: a [`RecordView`] has validated headers, and on other bytes the
/// iterator ends where it cannot read on.
#[derive(Clone, Debug)]
pub(crate) struct HeaderPairs<'a> {
    rest: Reader<'a>,
}

impl<'a> HeaderPairs<'a> {
    pub(crate) fn new(headers: &'a [u8]) -> Self {
        Self { rest: Reader::new(headers) }
    }
}

impl<'a> Iterator for HeaderPairs<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        // Also at the end, where there is no name.
        let Ok(pair) = decode_pair(&mut self.rest) else {
            self.rest = Reader::new(&[]);
            return None;
        };
        Some(pair)
    }
}

#[cold]
fn decode_offset_step(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    match reader.varint()? {
        0 => Err(DecodeError::Malformed("the offset step of a record is 0")),
        step => Ok(step),
    }
}

#[inline]
fn decode_time_delta(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    match reader.varint()? {
        0 => Err(DecodeError::Malformed("the time delta of a record is 0")),
        delta => Ok(delta),
    }
}

#[cold]
fn decode_headers<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let headers = reader.len_prefixed()?;
    if headers.is_empty() {
        return Err(DecodeError::Malformed("the headers of a record are empty"));
    }
    let mut pairs = Reader::new(headers);
    while !pairs.is_empty() {
        decode_pair(&mut pairs).map_err(|error| match error {
            // The body goes on: only the length of the headers is wrong.
            DecodeError::Short => DecodeError::Malformed("a header does not fit into the headers"),
            other => other,
        })?;
    }
    Ok(headers)
}

fn decode_pair<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, &'a [u8]), DecodeError> {
    let name = str::from_utf8(reader.len_prefixed()?)
        .map_err(|_| DecodeError::Malformed("the name of a header is not UTF-8"))?;
    Ok((name, reader.len_prefixed()?))
}

#[inline]
fn flags(record: &Record<'_>, time_delta: u64) -> u8 {
    let bit = |flag: u8, is_set: bool| if is_set { flag } else { 0 };
    bit(KEY, record.key.is_some())
        | bit(TOMBSTONE, record.value.is_none())
        | bit(HEADERS, !record.headers.is_empty())
        | bit(TIMESTAMP, record.timestamp.is_some())
        | bit(TIME_DELTA, time_delta != 0)
}

#[inline]
fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, wide(bytes.len()));
    out.extend_from_slice(bytes);
}

#[cold]
fn put_headers(out: &mut Vec<u8>, record: &Record<'_>) {
    put_varint(out, headers_len(record));
    for (name, value) in &record.headers {
        put_prefixed(out, name.as_bytes());
        put_prefixed(out, value);
    }
}

#[inline]
fn prefixed_len(bytes: &[u8]) -> u64 {
    let len = wide(bytes.len());
    wide(varint_len(len)) + len
}

#[cold]
fn headers_len(record: &Record<'_>) -> u64 {
    let pair_len = |name: &str, value: &[u8]| prefixed_len(name.as_bytes()) + prefixed_len(value);
    record.headers.iter().map(|(name, value)| pair_len(name, value)).sum()
}

const KEY: u8 = 1 << 0;
const TOMBSTONE: u8 = 1 << 1;
const HEADERS: u8 = 1 << 2;
const TIMESTAMP: u8 = 1 << 3;
const TIME_DELTA: u8 = 1 << 4;
const OFFSET_STEP: u8 = 1 << 5;
const RESERVED: u8 = 1 << 6 | 1 << 7;

#[cfg(test)]
mod tests {
    use super::{HeaderPairs, RecordView, decode, encode, encoded_len, put_moved};
    use crate::format::bytes::DecodeError;
    use crate::format::bytes::Reader;
    use crate::format::golden::to_record;
    use crate::record::Record;
    use crate::units::Timestamp;
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

    fn decode_all(bytes: &[u8]) -> Result<RecordView<'_>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let record = decode(&mut reader)?;
        if !reader.is_empty() {
            return Err(DecodeError::Malformed("bytes are left"));
        }
        Ok(record)
    }

    fn records() -> impl Strategy<Value = Record<'static>> {
        let bytes = || vec(any::<u8>(), 0..300);
        let headers = vec((".{0,20}", vec(any::<u8>(), 0..20)), 0..4);
        let key = proptest::option::of(bytes());
        let value = proptest::option::of(bytes());
        let timestamp = proptest::option::of(any::<i64>());
        (key, value, headers, timestamp).prop_map(|(key, value, headers, timestamp)| {
            let mut record = match (key, value) {
                (Some(key), Some(value)) => Record::new(value).key(key),
                (None, Some(value)) => Record::new(value),
                (key, None) => Record::tombstone(key.unwrap_or_default()),
            };
            record.timestamp = timestamp.map(Timestamp::from_micros);
            headers.into_iter().fold(record, |record, (name, value)| record.header(name, value))
        })
    }

    #[test]
    fn every_part_is_read_from_bytes_written_by_hand() {
        let bytes = [
            0b0011_1101, // All but tombstone.
            0xac,
            0x02, // Offset step 300.
            0x05, // Time delta 5.
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff,
            0xff, // Timestamp -1.
            0x01,
            b'k', // Key.
            0x02,
            b'v',
            b'w', // Value.
            0x06,
            0x01,
            b'n',
            0x00,
            0x00,
            0x01,
            0xfe, // Headers: "n" and "", "" and fe.
        ];
        let record = decode_all(&bytes).unwrap();
        assert_eq!((record.offset_step, record.time_delta), (300, 5));
        assert_eq!(record.timestamp, Some(Timestamp::from_micros(-1)));
        assert_eq!((record.key, record.value), (Some(&b"k"[..]), Some(&b"vw"[..])));
        let headers: Vec<_> = HeaderPairs::new(record.headers).collect();
        assert_eq!(headers, [("n", &b""[..]), ("", &[0xfe])]);
        for len in 0..bytes.len() {
            assert_eq!(decode_all(&bytes[..len]).unwrap_err(), DecodeError::Short, "{len} bytes");
        }
    }

    #[test]
    fn what_cannot_be_written_is_malformed() {
        let cases: [(&str, &[u8]); 9] = [
            ("tombstone without key", &[0b0000_0010]),
            ("offset step 0", &[0b0010_0000, 0x00, 0x00]),
            ("time delta 0", &[0b0001_0000, 0x00, 0x00]),
            ("no headers", &[0b0000_0100, 0x00, 0x00]),
            ("headers of one byte", &[0b0000_0100, 0x00, 0x01, 0x00]),
            ("header past the headers", &[0b0000_0100, 0x00, 0x02, 0x00, 0x01, b'v']),
            ("half a pair at the end", &[0b0000_0100, 0x00, 0x03, 0x00, 0x00, 0x00]),
            ("name not UTF-8", &[0b0000_0100, 0x00, 0x03, 0x01, 0xff, 0x00]),
            ("value length too long", &[0b0000_0000, 0x81, 0x00, b'v']),
        ];
        for (what, bytes) in cases {
            let decoded = decode_all(bytes);
            assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{what}: {decoded:?}");
        }
        for flags in [0b0100_0000, 0b1000_0000] {
            let bytes = [flags, 0x00];
            let decoded = decode_all(&bytes);
            assert!(matches!(decoded, Err(DecodeError::Unknown(_))), "{flags:#b}");
        }
    }

    #[test]
    fn header_pairs_end_where_they_cannot_read_on() {
        let pairs = HeaderPairs::new(&[0x01, b'a', 0x00, 0x01, 0xff, 0x00, 0x01, b'b', 0x00]);
        assert_eq!(pairs.collect::<Vec<_>>(), [("a", &b""[..])]);
    }

    proptest! {
        #[test]
        fn a_record_comes_back(record in records(), time_delta in any::<u64>(), bits in 0_u32..64) {
            let time_delta = time_delta >> bits;
            let mut bytes = Vec::new();
            encode(&mut bytes, &record, time_delta);
            prop_assert_eq!(u64::try_from(bytes.len()).unwrap(), encoded_len(&record, time_delta));
            let view = decode_all(&bytes).unwrap();
            prop_assert_eq!((view.offset_step, view.time_delta), (0, time_delta));
            prop_assert_eq!(to_record(&view), record);
        }

        /// Whatever its place was and will be, all but the place stays.
        #[test]
        fn a_moved_record_is_the_same_elsewhere(
            record in records(),
            places in proptest::array::uniform4(proptest::prop_oneof![0..2_u64, any::<u64>()]),
        ) {
            let [step, delta, new_step, new_delta] = places;
            let (mut dense, mut old, mut new) = (Vec::new(), Vec::new(), Vec::new());
            encode(&mut dense, &record, 0);
            put_moved(&mut old, &dense, step, delta).unwrap();
            let view = decode_all(&old).unwrap();
            prop_assert_eq!((view.offset_step, view.time_delta), (step, delta));
            put_moved(&mut new, &old, new_step, new_delta).unwrap();
            let view = decode_all(&new).unwrap();
            prop_assert_eq!((view.offset_step, view.time_delta), (new_step, new_delta));
            prop_assert_eq!(to_record(&view), record);
        }

        #[test]
        fn no_part_of_a_record_is_a_record(record in records()) {
            let mut bytes = Vec::new();
            encode(&mut bytes, &record, 1);
            for len in 0..bytes.len() {
                prop_assert!(decode_all(&bytes[..len]).is_err());
            }
        }

        /// Flags first, so that most cases come further than the reserved bits.
        #[test]
        fn random_bytes_are_refused_or_have_one_meaning(
            flags in 0_u8..64,
            rest in vec(proptest::prop_oneof![0_u8..6, any::<u8>()], 0..40),
        ) {
            let bytes = [&[flags][..], &rest].concat();
            if let Ok(view) = decode(&mut Reader::new(&bytes)) && view.offset_step == 0 {
                let mut again = Vec::new();
                encode(&mut again, &to_record(&view), view.time_delta);
                prop_assert_eq!(&bytes[..again.len()], &again);
            }
        }
    }
}
