//! Frames for another log: whole ones as they are, and one made to fit where they begin inside it.

use crate::cursor::Cursor;
use crate::cursor::Seek;
use crate::cursor::entry::Entry;
use crate::cursor::source::Source;
use crate::cursor::source::Span;
use crate::cursor::view::View;
use crate::error::Result;
use crate::format::bytes;
use crate::format::bytes::DecodeError;
use crate::format::frame::FrameHeader;
use crate::format::record;
use crate::format::wire;
use crate::segment::Records;
use crate::segment::Shipment;
use crate::state::nearest;
use crate::state::out_of_range;
use crate::units::Offset;
use std::ops::Range;

/// Verified frames from `from` on, up to the high watermark, and the offsets they cover. Ends
/// before `max_bytes` are passed, but not before the first frame.
pub(crate) fn ship(view: &View, from: Offset, max_bytes: u64) -> Result<(Vec<u8>, Range<Offset>)> {
    let mut cuts = view.cuts();
    loop {
        let shipped = ship_once(view, from, max_bytes);
        let settled = view.segments.settled_cuts();
        if settled == cuts {
            return shipped;
        }
        // It may have looked while the log was cut.
        cuts = settled;
    }
}

fn ship_once(view: &View, from: Offset, max_bytes: u64) -> Result<(Vec<u8>, Range<Offset>)> {
    let log = (view.start(), view.end());
    if from < log.0 || from > log.1 {
        return Err(out_of_range(from, nearest(from, log), log));
    }
    let high_watermark = view.high_watermark();
    let mut source = Source::default();
    let mut out = Vec::new();
    let mut end = from;
    while end < high_watermark {
        if end >= view.written() {
            // What is shipped is what the file will hold.
            view.close_frame_of(end);
        }
        let loaded = match end == from {
            true => source.load_whole(view, end)?,
            false => source.load(view, end)?,
        };
        let Some(span) = loaded else { break };
        let before = out.len();
        put(&mut out, &source, &span, end)?;
        if before > 0 && (out.len() as u64 > max_bytes || span.end - from > wire::SPAN_MAX) {
            out.truncate(before);
            break;
        }
        end = span.end;
    }
    Ok((out, from..end))
}

/// Appends the frame that a span is, from offset `from` on.
fn put(out: &mut Vec<u8>, source: &Source, span: &Span, from: Offset) -> Result<()> {
    let body = source.body(span).get(..span.len).unwrap_or_default();
    let header = match source.header(span) {
        Some(header) if is_whole(&header, span) => header,
        _ => header_of(body, span),
    };
    if span.base >= from || header.is_hole() {
        let header = FrameHeader {
            base_offset: from,
            count: u32::try_from(span.end - from).unwrap_or(u32::MAX),
            ..header
        };
        wire::put(out, &header, body);
        return Ok(());
    }
    let rest = rest(body, &header, from).map_err(|why| source.malformed(span, from, why))?;
    wire::put(out, &rest.0, &rest.1);
    Ok(())
}

/// Whether a span is all of its frame: a truncation may have cut off the last records.
fn is_whole(header: &FrameHeader, span: &Span) -> bool {
    header.end_offset() == span.end && header.body_len as usize == span.len
}

fn header_of(body: &[u8], span: &Span) -> FrameHeader {
    FrameHeader {
        body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
        base_offset: span.base,
        appended_at: span.appended_at,
        count: u32::try_from(span.end - span.base).unwrap_or(u32::MAX),
        durable_gap: 0,
        body_crc: bytes::crc(0, body),
    }
}

/// A frame without its records below `from`, which is what it begins with.
fn rest(
    body: &[u8],
    header: &FrameHeader,
    from: Offset,
) -> Result<(FrameHeader, Vec<u8>), DecodeError> {
    let mut out = Vec::new();
    let (mut at, mut next) = (None, from);
    for placed in Records::new(body, header) {
        let placed = placed?;
        if placed.offset < from {
            continue;
        }
        let first = *at.get_or_insert(placed.appended_at);
        let delta = placed.appended_at.as_micros().saturating_sub(first.as_micros());
        let delta = u64::try_from(delta).unwrap_or_default();
        let record = body.get(placed.at..placed.end).unwrap_or_default();
        record::put_moved(&mut out, record, placed.offset - next, delta)
            .ok_or(DecodeError::Malformed("a record is not where it was found"))?;
        next = placed.offset + 1;
    }
    let header = FrameHeader {
        body_len: u32::try_from(out.len()).unwrap_or(u32::MAX),
        base_offset: from,
        appended_at: at.unwrap_or_default(),
        count: u32::try_from(header.end_offset() - from).unwrap_or(u32::MAX),
        durable_gap: 0,
        body_crc: bytes::crc(0, &out),
    };
    Ok((header, out))
}

/// The first offset at which a record of the shipment differs from that of the log. Where one of
/// the two has none, nothing is said.
pub(crate) fn first_difference(view: &View, shipment: &Shipment<'_>) -> Result<Option<Offset>> {
    let Some(range) = shipment.range() else { return Ok(None) };
    let from = range.start.max(view.start());
    if from >= view.high_watermark() {
        return Ok(None);
    }
    let mut cursor = Cursor::new(view.clone(), from);
    cursor.seek(Seek::Offset(from))?;
    let mut own = cursor.next()?;
    for frame in &shipment.frames {
        for placed in Records::new(frame.body, &frame.header).flatten() {
            while own.is_some_and(|own| own.offset() < placed.offset) {
                own = cursor.next()?;
            }
            let Some(entry) = own else { return Ok(None) };
            let shipped = Entry::new(placed.offset, frame.header.appended_at, placed.record);
            if entry.offset() == placed.offset && !is_same(&entry, &shipped) {
                return Ok(Some(placed.offset));
            }
        }
    }
    Ok(None)
}

fn is_same(one: &Entry<'_>, other: &Entry<'_>) -> bool {
    one.appended_at() == other.appended_at()
        && one.timestamp() == other.timestamp()
        && one.key() == other.key()
        && one.is_tombstone() == other.is_tombstone()
        && one.value() == other.value()
        && one.headers().eq(other.headers())
}
