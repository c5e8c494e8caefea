//! Shipped frames, checked as a whole before any of them is taken.
//!
//! # Invariants
//!
//! - What is in a [`Shipment`] can be stored: checksums agree, records decode, offsets follow each
//!   other, times do not go back.
//! - It takes no more memory than the bytes it was made from justify.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::bytes::DecodeError;
use crate::format::frame::FrameHeader;
use crate::format::wire::Fault;
use crate::format::wire::SPAN_MAX;
use crate::format::wire::WireFrame;
use crate::format::wire::WireFrames;
use crate::segment::records::Records;
use crate::units::Offset;
use crate::units::Timestamp;
use std::ops::Range;

/// Frames that were shipped, all of them sound.
#[derive(Debug)]
pub(crate) struct Shipment<'a> {
    pub(crate) frames: Vec<Shipped<'a>>,
}

/// A frame of a shipment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shipped<'a> {
    pub(crate) header: FrameHeader,
    pub(crate) body: &'a [u8],
    pub(crate) record_count: u32,
    /// Append time of its last record; `None` if it has none.
    pub(crate) last_at: Option<Timestamp>,
}

impl<'a> Shipment<'a> {
    /// Checks the bytes from the first to the last.
    pub(crate) fn check(bytes: &'a [u8], body_max: u64) -> Result<Self> {
        let mut frames = Vec::new();
        let mut since = Timestamp::MIN;
        for frame in WireFrames::new(bytes) {
            let frame = frame.map_err(|fault| refused(&fault))?;
            if u64::from(frame.header.body_len) > body_max {
                return Err(too_large(&frame, body_max));
            }
            let first = frames.first().map_or(frame.header, |first: &Shipped<'_>| first.header);
            let is_far = frame.header.end_offset() - first.base_offset > SPAN_MAX;
            let why = DecodeError::Malformed("they cover more offsets than a shipment can");
            let checked = if is_far { Err(why) } else { Shipped::check(&frame, since) };
            let shipped = checked.map_err(|why| {
                let offset = Some(frame.header.base_offset);
                refused(&Fault { why, position: frame.position, offset })
            })?;
            since = shipped.last_at.unwrap_or(since);
            frames.push(shipped);
        }
        Ok(Self { frames })
    }

    /// The offsets it covers; `None` if there are none.
    pub(crate) fn range(&self) -> Option<Range<Offset>> {
        let (first, last) = (self.frames.first()?, self.frames.last()?);
        Some(first.header.base_offset..last.header.end_offset())
    }

    /// Append time of the first record.
    pub(crate) fn first_at(&self) -> Option<Timestamp> {
        let dated = self.frames.iter().find(|frame| frame.last_at.is_some());
        dated.map(|frame| frame.header.appended_at)
    }

    /// The bytes of its records.
    pub(crate) fn record_bytes(&self) -> u64 {
        self.frames.iter().map(|frame| frame.body.len() as u64).sum()
    }
}

impl<'a> Shipped<'a> {
    fn check(frame: &WireFrame<'a>, since: Timestamp) -> Result<Self, DecodeError> {
        let WireFrame { header, body, .. } = *frame;
        let mut shipped = Self { header, body, record_count: 0, last_at: None };
        let mut since = since;
        if !header.is_hole() && header.appended_at < since {
            return Err(DecodeError::Malformed("a frame is older than the one before"));
        }
        for placed in Records::new(body, &header) {
            let placed = placed?;
            if placed.appended_at < since {
                return Err(DecodeError::Malformed("a record is older than the one before"));
            }
            since = placed.appended_at;
            shipped.record_count += 1;
            shipped.last_at = Some(since);
        }
        Ok(shipped)
    }
}

/// The error for bytes that are not what a log ships.
fn refused(fault: &Fault) -> Error {
    let (kind, what) = match fault.why {
        why if why.is_newer() => (
            ErrorKind::UnsupportedVersion,
            format!("the frames need a newer version of this crate ({})", fault.why),
        ),
        why => (ErrorKind::Corrupt, format!("the frames are damaged ({why}); ask for them again")),
    };
    let error = Error::new(kind, what).with_position(fault.position);
    fault.offset.map_or(error.clone(), |offset| error.with_offset(offset))
}

fn too_large(frame: &WireFrame<'_>, body_max: u64) -> Error {
    let len = frame.header.body_len;
    let what =
        format!("a frame of {len} bytes was shipped, {body_max} are taken: see max_batch_bytes");
    Error::new(ErrorKind::TooLarge, what)
        .with_position(frame.position)
        .with_offset(frame.header.base_offset)
}
