//! A row of the manifest: what it says about one segment.

use crate::format::bytes::DecodeError;
use crate::format::bytes::check_reserved;
use crate::format::bytes::wide;
use crate::format::frame::ALIGNMENT;
use crate::format::frame::FRAME_HEADER_LEN;
use crate::format::frame::MAX_BODY_LEN;
use crate::format::frame::padded;
use crate::format::segment::MAX_SEGMENT_LEN;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::units::Offset;
use crate::units::Timestamp;
use zerocopy::FromBytes;
use zerocopy::FromZeros;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::I64;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;

/// What the manifest says about one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) segment_id: u64,
    pub(crate) base_offset: Offset,
    pub(crate) end_offset: Offset,
    /// Position of the end of the last frame, header and padding included.
    pub(crate) byte_len: u64,
    /// Of the first record, 0 if there is none.
    pub(crate) first_appended_at: Timestamp,
    /// Of the last record, 0 if there is none.
    pub(crate) last_appended_at: Timestamp,
    /// Lower than the number of offsets where compaction removed records.
    pub(crate) record_count: u64,
    pub(crate) state: RowState,
    /// When compaction first covered the whole segment; `None` if it has not.
    pub(crate) compacted_at: Option<Timestamp>,
    /// No fewer than its tombstones; says nothing unless compaction has covered it.
    pub(crate) tombstone_count: u64,
}

/// A segment that is ready to be begun: its file is there, named by its id, and has no bytes yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub(crate) segment_id: u64,
    /// What its header will say, so that its frames can be told when that header is lost.
    pub(crate) seed: u32,
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Segment(Row),
    Prepared(Prepared),
}

/// How far what a row says can be relied on. Rows are in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RowState {
    /// The segment ends at the end stated, and all of it is durable.
    Sealed,
    /// The segment ends at the end stated, but may not be durable.
    Written,
    /// The segment goes on behind the end stated, up to which it is durable.
    Active,
}

impl Row {
    /// Whether the segment goes on.
    pub(crate) fn is_active(&self) -> bool {
        self.state == RowState::Active
    }

    /// Append time of the last record in these rows; the lowest there is without one.
    pub(crate) fn last_record_at(rows: &[Self]) -> Timestamp {
        let dated = rows.iter().rev().find(|row| row.record_count > 0);
        dated.map_or(Timestamp::MIN, |row| row.last_appended_at)
    }

    /// Checks what the row says about itself.
    pub(super) fn check(&self) -> Result<(), DecodeError> {
        let Some(end) = self.end_offset.get().checked_sub(self.base_offset.get()) else {
            return Err(DecodeError::Malformed("a segment ends before it begins"));
        };
        if end > u64::from(u32::MAX) {
            return Err(DecodeError::Malformed("a segment has 2^32 offsets or more"));
        }
        if self.record_count > end {
            return Err(DecodeError::Malformed("a segment has more records than offsets"));
        }
        if self.tombstone_count > self.record_count {
            return Err(DecodeError::Malformed("a segment has more tombstones than records"));
        }
        if self.first_appended_at > self.last_appended_at {
            return Err(DecodeError::Malformed("the times of a segment run backwards"));
        }
        let times = [self.first_appended_at, self.last_appended_at];
        if self.record_count == 0 && times != [Timestamp::ZERO; 2] {
            return Err(DecodeError::Malformed("a segment without records has times"));
        }
        if !self.byte_len.is_multiple_of(ALIGNMENT) {
            return Err(DecodeError::Malformed("a segment's length is not a multiple of 8"));
        }
        if self.byte_len < wide(SEGMENT_HEADER_LEN) {
            return Err(DecodeError::Malformed("a segment is shorter than its header"));
        }
        if self.byte_len >= MAX_SEGMENT_LEN + MAX_FRAME_LEN {
            return Err(DecodeError::Malformed("a segment is longer than a segment can be"));
        }
        Ok(())
    }

    /// Checks what the row says together with the one behind it.
    pub(super) fn check_next(&self, next: &Self) -> Result<(), DecodeError> {
        if next.base_offset != self.end_offset {
            return Err(DecodeError::Malformed("a segment does not begin where the last one ends"));
        }
        if self.state == RowState::Active {
            return Err(DecodeError::Malformed("the active segment is not the last one"));
        }
        if next.state < self.state {
            return Err(DecodeError::Malformed("a sealed segment comes after a written one"));
        }
        Ok(())
    }
}

/// A row as it is written.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawRow {
    segment_id: U64,
    base_offset: U64,
    end_offset: U64,
    byte_len: U64,
    first_appended_at: I64,
    last_appended_at: I64,
    record_count: U64,
    state: U32,
    seed: U32,
    compacted_at: I64,
    tombstone_count: U64,
    reserved_80: [u8; 16],
}

impl RawRow {
    pub(super) fn new(row: &Row) -> Self {
        let state = match row.state {
            RowState::Sealed => STATE_SEALED,
            RowState::Written => STATE_WRITTEN,
            RowState::Active => STATE_ACTIVE,
        };
        Self {
            segment_id: row.segment_id.into(),
            base_offset: row.base_offset.get().into(),
            end_offset: row.end_offset.get().into(),
            byte_len: row.byte_len.into(),
            first_appended_at: row.first_appended_at.as_micros().into(),
            last_appended_at: row.last_appended_at.as_micros().into(),
            record_count: row.record_count.into(),
            state: state.into(),
            seed: U32::ZERO,
            compacted_at: row.compacted_at.map_or(0, Timestamp::as_micros).into(),
            tombstone_count: row.tombstone_count.into(),
            reserved_80: [0; 16],
        }
    }

    pub(super) fn of_prepared(prepared: &Prepared) -> Self {
        Self {
            segment_id: prepared.segment_id.into(),
            state: STATE_PREPARED.into(),
            seed: prepared.seed.into(),
            ..Self::new_zeroed()
        }
    }

    pub(super) fn named(&self) -> Result<Named, DecodeError> {
        if self.state.get() != STATE_PREPARED {
            return self.row().map(Named::Segment);
        }
        let prepared = Prepared { segment_id: self.segment_id.get(), seed: self.seed.get() };
        if Self::of_prepared(&prepared).as_bytes() != self.as_bytes() {
            return Err(DecodeError::Unknown("what is said of a prepared segment"));
        }
        if prepared.seed == 0 {
            return Err(DecodeError::Malformed("the seed of a prepared segment is 0"));
        }
        Ok(Named::Prepared(prepared))
    }

    fn row(&self) -> Result<Row, DecodeError> {
        check_reserved(&self.seed.get().to_le_bytes())?;
        check_reserved(&self.reserved_80)?;
        let state = match self.state.get() {
            STATE_SEALED => RowState::Sealed,
            STATE_WRITTEN => RowState::Written,
            STATE_ACTIVE => RowState::Active,
            _ => return Err(DecodeError::Unknown("the state of a segment")),
        };
        Ok(Row {
            segment_id: self.segment_id.get(),
            base_offset: Offset::new(self.base_offset.get()),
            end_offset: Offset::new(self.end_offset.get()),
            byte_len: self.byte_len.get(),
            first_appended_at: Timestamp::from_micros(self.first_appended_at.get()),
            last_appended_at: Timestamp::from_micros(self.last_appended_at.get()),
            record_count: self.record_count.get(),
            state,
            compacted_at: Some(Timestamp::from_micros(self.compacted_at.get()))
                .filter(|at| *at != Timestamp::ZERO),
            tombstone_count: self.tombstone_count.get(),
        })
    }
}

const STATE_SEALED: u32 = 1;
const STATE_WRITTEN: u32 = 2;
const STATE_ACTIVE: u32 = 3;
const STATE_PREPARED: u32 = 4;

/// The last frame of a segment begins below [`MAX_SEGMENT_LEN`] and may reach this much farther.
const MAX_FRAME_LEN: u64 = padded(FRAME_HEADER_LEN as u64 + MAX_BODY_LEN as u64);

const _: () = assert!(size_of::<RawRow>() == 96);
