//! The manifest as a whole file: the segments of a log and where it starts.

use crate::bugs::Bug;
use crate::format::bytes::DecodeError;
use crate::format::bytes::Preamble;
use crate::format::bytes::check_reserved;
use crate::format::bytes::crc;
use crate::format::bytes::wide;
use crate::format::row::Named;
use crate::format::row::RawRow;
use crate::units::Offset;
use crate::units::Timestamp;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::I64;
use zerocopy::little_endian::U16;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;
use zerocopy::little_endian::U128;

pub(crate) use crate::format::row::Prepared;
pub(crate) use crate::format::row::Row;
pub(crate) use crate::format::row::RowState;

/// What the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) log_id: u128,
    /// Whether the log was closed cleanly when this was written.
    pub(crate) closed: bool,
    pub(crate) origin: Origin,
    /// Of the first readable record.
    pub(crate) start_offset: Offset,
    /// Higher than any that was used.
    pub(crate) next_segment_id: u64,
    /// No later append gets a lower time.
    pub(crate) last_append_time: Timestamp,
    /// How often the end was cut back.
    pub(crate) truncation_epoch: u64,
    /// Below it, compaction has seen every key that it could read.
    pub(crate) compacted_to: Offset,
    /// In the order of their offsets, without gaps.
    pub(crate) rows: Vec<Row>,
    /// Segments that may have been begun behind the last row since this was written.
    pub(crate) prepared: Vec<Prepared>,
}

/// Who wrote the manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A log, for itself.
    #[default]
    Log,
    /// A log, for a checkpoint of it, which nobody has changed since.
    Checkpoint,
    /// The same, before the first checkpoint in its directory was whole: there is no log yet.
    Unfinished,
}

impl Manifest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let row_count = self.rows.len() + self.prepared.len();
        let header = RawHeader {
            preamble: Preamble::new(MAGIC),
            flags: flags(if self.closed { FLAG_CLOSED } else { 0 }, self.origin),
            // More rows than that would be refused when the manifest is read.
            row_count: u32::try_from(row_count).unwrap_or(u32::MAX).into(),
            log_id: self.log_id.into(),
            start_offset: self.start_offset.get().into(),
            next_segment_id: self.next_segment_id.into(),
            last_append_time: self.last_append_time.as_micros().into(),
            truncation_epoch: self.truncation_epoch.into(),
            compacted_to: self.compacted_to.get().into(),
            reserved: [0; 8],
        };
        let rows_len = row_count * size_of::<RawRow>();
        let mut out = Vec::with_capacity(size_of::<RawHeader>() + rows_len + size_of::<U32>());
        out.extend_from_slice(header.as_bytes());
        for row in &self.rows {
            out.extend_from_slice(RawRow::new(row).as_bytes());
        }
        for prepared in &self.prepared {
            out.extend_from_slice(RawRow::of_prepared(prepared).as_bytes());
        }
        let crc = crc(0, &out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Decodes the bytes of a whole file.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Preamble::check(bytes, MAGIC)?;
        let (covered, stated) = bytes.split_last_chunk().ok_or(DecodeError::Short)?;
        let (header, rows) = RawHeader::ref_from_prefix(covered).map_err(|_| DecodeError::Short)?;
        let agrees = u32::from_le_bytes(*stated) == crc(0, covered);
        if !agrees && !Bug::ManifestUnchecked.is_on() {
            return Err(DecodeError::BadChecksum);
        }
        header.check_known()?;
        let raw_rows = <[RawRow]>::ref_from_bytes(rows)
            .ok()
            .filter(|rows| wide(rows.len()) == u64::from(header.row_count.get()))
            .ok_or(DecodeError::Malformed("the manifest does not end with its last row"))?;
        let mut rows = Vec::with_capacity(raw_rows.len());
        let mut prepared = Vec::new();
        for raw in raw_rows {
            match raw.named()? {
                Named::Segment(row) if prepared.is_empty() => rows.push(row),
                Named::Segment(_) => {
                    return Err(DecodeError::Malformed("a segment comes after a prepared one"));
                }
                Named::Prepared(segment) => prepared.push(segment),
            }
        }
        let manifest = Self {
            log_id: header.log_id.get(),
            closed: header.flags.get() & FLAG_CLOSED != 0,
            origin: header.origin(),
            start_offset: Offset::new(header.start_offset.get()),
            next_segment_id: header.next_segment_id.get(),
            last_append_time: Timestamp::from_micros(header.last_append_time.get()),
            truncation_epoch: header.truncation_epoch.get(),
            compacted_to: Offset::new(header.compacted_to.get()),
            rows,
            prepared,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// Where the log ends, as far as the manifest knows: an active segment may go on.
    pub(crate) fn end_offset(&self) -> Offset {
        self.rows.last().map_or(self.start_offset, |row| row.end_offset)
    }

    fn check(&self) -> Result<(), DecodeError> {
        self.rows.iter().try_for_each(Row::check)?;
        for (row, next) in self.rows.iter().zip(self.rows.iter().skip(1)) {
            row.check_next(next)?;
        }
        self.check_ids()?;
        let base_offset = self.rows.first().map_or(self.start_offset, |row| row.base_offset);
        if !(base_offset..=self.end_offset()).contains(&self.start_offset) {
            return Err(DecodeError::Malformed("the start offset is outside the segments"));
        }
        if self.closed && !self.prepared.is_empty() {
            return Err(DecodeError::Malformed("a log that was closed has prepared a segment"));
        }
        if self.compacted_to > self.end_offset() {
            return Err(DecodeError::Malformed("the log ends below what was compacted"));
        }
        Ok(())
    }

    fn check_ids(&self) -> Result<(), DecodeError> {
        // Nearly always in order already, since ids rise: the sort is for what compaction left.
        let mut ids: Vec<u64> = self.rows.iter().map(|row| row.segment_id).collect();
        ids.extend(self.prepared.iter().map(|segment| segment.segment_id));
        ids.sort_unstable();
        if ids.iter().zip(ids.iter().skip(1)).any(|(id, next)| id == next) {
            return Err(DecodeError::Malformed("two segments have the same id"));
        }
        if ids.first() == Some(&0) {
            return Err(DecodeError::Malformed("a segment has the id 0"));
        }
        let highest = ids.last().copied().unwrap_or(0);
        if self.next_segment_id <= highest {
            return Err(DecodeError::Malformed("the next segment id is used already"));
        }
        Ok(())
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    preamble: Preamble,
    flags: U16,
    row_count: U32,
    log_id: U128,
    start_offset: U64,
    next_segment_id: U64,
    last_append_time: I64,
    truncation_epoch: U64,
    compacted_to: U64,
    reserved: [u8; 8],
}

impl RawHeader {
    fn check_known(&self) -> Result<(), DecodeError> {
        let known = FLAG_CLOSED | FLAG_CHECKPOINT | FLAG_UNFINISHED;
        if self.flags.get() & !known != 0 {
            return Err(DecodeError::Unknown("a flag of the manifest"));
        }
        if self.flags != flags(self.flags.get() & FLAG_CLOSED, self.origin()) {
            return Err(DecodeError::Malformed("unfinished, and no checkpoint"));
        }
        check_reserved(&self.reserved)
    }

    fn origin(&self) -> Origin {
        let has = |flag| self.flags.get() & flag != 0;
        match (has(FLAG_CHECKPOINT), has(FLAG_UNFINISHED)) {
            (true, true) => Origin::Unfinished,
            (true, false) => Origin::Checkpoint,
            (false, _) => Origin::Log,
        }
    }
}

const MAGIC: &[u8; 8] = b"STRATMAN";

const FLAG_CLOSED: u16 = 1;
const FLAG_CHECKPOINT: u16 = 2;
const FLAG_UNFINISHED: u16 = 4;

fn flags(closed: u16, origin: Origin) -> U16 {
    let origin = match origin {
        Origin::Log => 0,
        Origin::Checkpoint => FLAG_CHECKPOINT,
        Origin::Unfinished => FLAG_CHECKPOINT | FLAG_UNFINISHED,
    };
    U16::new(origin | closed)
}

const _: () = assert!(size_of::<RawHeader>() == 80);

#[cfg(test)]
mod tests {
    use super::{Manifest, Origin, Prepared, Row, RowState};
    use crate::format::bytes::DecodeError;
    use crate::format::bytes::crc;
    use crate::units::Offset;
    use crate::units::Timestamp;
    use proptest::prelude::{any, proptest};

    fn row(segment_id: u64, base: u64, end: u64, state: RowState) -> Row {
        Row {
            segment_id,
            base_offset: Offset::new(base),
            end_offset: Offset::new(end),
            byte_len: 4096,
            first_appended_at: Timestamp::from_micros(-3),
            last_appended_at: Timestamp::from_micros(9),
            record_count: 5,
            state,
            compacted_at: None,
            tombstone_count: 0,
        }
    }

    fn manifest() -> Manifest {
        Manifest {
            log_id: 1 << 127 | 5,
            closed: false,
            origin: Origin::Log,
            start_offset: Offset::new(12),
            next_segment_id: 9,
            last_append_time: Timestamp::from_micros(9),
            truncation_epoch: 2,
            compacted_to: Offset::new(11),
            rows: vec![
                row(8, 10, 20, RowState::Sealed),
                row(2, 20, 30, RowState::Written),
                row(5, 30, 35, RowState::Active),
            ],
            prepared: Vec::new(),
        }
    }

    fn check_malformed(what: &str, change: impl FnOnce(&mut Manifest)) {
        let mut manifest = manifest();
        change(&mut manifest);
        let decoded = Manifest::decode(&manifest.encode());
        assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{what}: {decoded:?}");
    }

    /// `bytes` with a checksum that fits.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let end = bytes.len() - 4;
        let crc = crc(0, &bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn a_manifest_comes_back() {
        let empty = Manifest { rows: Vec::new(), closed: true, ..manifest() };
        assert_eq!(empty.encode().len(), 84);
        assert_eq!(empty.end_offset(), Offset::new(12));
        assert_eq!(manifest().end_offset(), Offset::new(35));
        let taken = Manifest { origin: Origin::Checkpoint, closed: true, ..manifest() };
        let begun = Manifest { origin: Origin::Unfinished, ..manifest() };
        assert_eq!((taken.encode()[10], begun.encode()[10]), (3, 6));
        for manifest in [manifest(), empty, taken, begun] {
            assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }
    }

    #[test]
    fn rows_follow_each_other_in_the_order_of_states() {
        check_malformed("gap", |m| m.rows[1].base_offset = Offset::new(21));
        check_malformed("overlap", |m| m.rows[0].end_offset = Offset::new(21));
        check_malformed("sealed behind written", |m| m.rows[2].state = RowState::Sealed);
        check_malformed("active before the end", |m| m.rows[1].state = RowState::Active);
        check_malformed("active first", |m| m.rows[0].state = RowState::Active);
    }

    #[test]
    fn ids_are_unique_and_below_the_next() {
        check_malformed("twice", |m| m.rows[2].segment_id = 8);
        check_malformed("zero", |m| m.rows[0].segment_id = 0);
        check_malformed("next is used", |m| m.next_segment_id = 8);
        check_malformed("next is zero", |m| {
            m.rows.clear();
            m.next_segment_id = 0;
        });
    }

    #[test]
    fn the_start_offset_lies_within_the_rows() {
        check_malformed("below", |m| m.start_offset = Offset::new(9));
        check_malformed("above", |m| m.start_offset = Offset::new(36));
        let at_end = Manifest { start_offset: Offset::new(35), ..manifest() };
        assert!(Manifest::decode(&at_end.encode()).is_ok());
    }

    #[test]
    fn nothing_behind_the_end_is_compacted() {
        check_malformed("behind the end", |m| m.compacted_to = Offset::new(36));
        let at_end = Manifest { compacted_to: Offset::new(35), ..manifest() };
        assert_eq!(Manifest::decode(&at_end.encode()), Ok(at_end));
    }

    /// Offsets as in docs/FORMAT.md.
    #[test]
    fn what_compaction_knows_has_its_place() {
        let mut bytes = manifest().encode();
        bytes[64..72].copy_from_slice(&35_u64.to_le_bytes());
        bytes[80 + 64..80 + 72].copy_from_slice(&(-7_i64).to_le_bytes());
        bytes[80 + 72..80 + 80].copy_from_slice(&4_u64.to_le_bytes());
        let decoded = Manifest::decode(&sealed(bytes)).unwrap();
        assert_eq!(decoded.compacted_to, Offset::new(35));
        let row = decoded.rows[0];
        assert_eq!(row.compacted_at, Some(Timestamp::from_micros(-7)));
        assert_eq!(row.tombstone_count, 4);
        assert_eq!(decoded.rows[1].compacted_at, None);
    }

    #[test]
    fn a_row_does_not_contradict_itself() {
        check_malformed("ends before it begins", |m| m.rows[2].end_offset = Offset::new(29));
        check_malformed("more records than offsets", |m| m.rows[2].record_count = 6);
        check_malformed("more tombstones than records", |m| m.rows[2].tombstone_count = 6);
        check_malformed("2^32 offsets", |m| {
            m.rows[2].end_offset = Offset::new(30 + (1 << 32));
        });
        check_malformed("times fall", |m| m.rows[0].first_appended_at = Timestamp::MAX);
        check_malformed("times of no record", |m| m.rows[0].record_count = 0);
        check_malformed("shorter than a header", |m| m.rows[0].byte_len = 64);
        check_malformed("not a multiple of 8", |m| m.rows[0].byte_len = 4097);
        check_malformed("longer than possible", |m| {
            m.rows[0].byte_len = (1 << 32) + (1 << 30) + 40;
        });
    }

    #[test]
    fn what_must_be_understood_is_unknown() {
        for at in [10, 11, 72, 79, 80 + 56, 80 + 60, 80 + 80, 80 + 95] {
            let mut bytes = manifest().encode();
            bytes[at] = 0x10;
            let decoded = Manifest::decode(&sealed(bytes));
            assert!(matches!(decoded, Err(DecodeError::Unknown(_))), "byte {at}: {decoded:?}");
        }
    }

    #[test]
    fn the_file_ends_with_the_last_row() {
        let whole = manifest().encode();
        for len in [84, 84 + 96, 84 + 2 * 96 + 1, 84 + 4 * 96] {
            let mut bytes = whole.clone();
            bytes.resize(len, 0);
            let decoded = Manifest::decode(&sealed(bytes));
            assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{len}: {decoded:?}");
        }
    }

    /// Offsets as in docs/FORMAT.md.
    #[test]
    fn prepared_segments_come_last_and_say_nothing_else() {
        let prepared =
            vec![Prepared { segment_id: 6, seed: 7 }, Prepared { segment_id: 3, seed: 1 }];
        let manifest = Manifest { prepared, ..manifest() };
        let bytes = manifest.encode();
        let first = 80 + 3 * 96;
        assert_eq!(bytes.len(), first + 2 * 96 + 4);
        assert_eq!(bytes[first..first + 8], 6_u64.to_le_bytes());
        assert_eq!(bytes[first + 56..first + 64], [4, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(Manifest::decode(&bytes), Ok(manifest.clone()));
        for at in (8..56).chain(64..96) {
            let mut bytes = bytes.clone();
            bytes[first + at] = 1;
            let decoded = Manifest::decode(&sealed(bytes));
            assert!(matches!(decoded, Err(DecodeError::Unknown(_))), "byte {at}: {decoded:?}");
        }
        let mut swapped = bytes;
        swapped[first - 96..first + 96].rotate_left(96);
        let decoded = Manifest::decode(&sealed(swapped));
        assert!(matches!(decoded, Err(DecodeError::Malformed(_))), "{decoded:?}");
        let prepared = |segment_id, seed| vec![Prepared { segment_id, seed }];
        check_malformed("seed 0", |m| m.prepared = prepared(6, 0));
        check_malformed("id 0", |m| m.prepared = prepared(0, 1));
        check_malformed("id of a segment", |m| m.prepared = prepared(5, 1));
        check_malformed("id not given out", |m| m.prepared = prepared(9, 1));
        check_malformed("closed", |m| (m.closed, m.prepared) = (true, prepared(6, 1)));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(rest in proptest::collection::vec(any::<u8>(), 0..500)) {
            let bytes = [&b"STRATMAN\x01\x00\x00\x00"[..], &rest, &[0; 4]].concat();
            assert!(Manifest::decode(&sealed(bytes)).is_err());
        }
    }
}
