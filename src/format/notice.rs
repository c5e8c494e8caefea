//! The notice in the LOCK file: what a writer tells readers in other processes.
//!
//! # Invariants
//!
//! - A reader that looks while a notice is written finds that one or the one before, never a
//!   mixture: there are two slots, and each has a checksum.

use crate::format::bytes::DecodeError;
use crate::format::bytes::Preamble;
use crate::format::bytes::check_reserved;
use crate::format::bytes::crc;
use crate::format::bytes::wide;
use crate::units::Offset;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;
use zerocopy::little_endian::U128;

/// The length of a slot, and of all of the file that is read.
pub(crate) const NOTICE_LEN: usize = 192;
pub(crate) const NOTICES_LEN: usize = SLOT_STEP + NOTICE_LEN;

/// From the beginning of one slot to that of the other.
const SLOT_STEP: usize = 256;

/// How many truncations a notice names.
const POINTS: usize = 6;

/// What a writer says of its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) state: NoticeState,
    pub(crate) log_id: u128,
    /// Another one for each life of a writer.
    pub(crate) session: u64,
    pub(crate) sequence: u64,
    /// How often this writer has replaced the manifest.
    pub(crate) changes: u64,
    pub(crate) marks: NoticeMarks,
    pub(crate) points: Points,
}

/// How far a log has got, each an exclusive end offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NoticeMarks {
    pub(crate) end: Offset,
    pub(crate) written: Offset,
    pub(crate) durable: Offset,
    /// Readers elsewhere read up to here.
    pub(crate) shown: Offset,
}

/// What a writer is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum NoticeState {
    /// It recovers the log; the marks say nothing.
    #[default]
    Opening,
    Open,
    /// The marks are final.
    Closed,
}

/// The truncations of a log, as far as a reader has to know of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Points {
    /// How often the log had been cut back.
    epoch: u64,
    /// The epoch each began and the end it left; both rise. Unused ones are 0.
    points: [(u64, Offset); POINTS],
}

impl Points {
    /// Those of a log of which nothing is known before this epoch.
    pub(crate) fn unknown(epoch: u64) -> Self {
        let mut points = Self::default();
        if epoch > 0 {
            points.cut(epoch, Offset::ZERO);
        }
        points
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The log was cut back to `end`, which began `epoch`.
    pub(crate) fn cut(&mut self, epoch: u64, end: Offset) {
        let mut kept: Vec<_> = self.used().filter(|(_, point)| *point < end).collect();
        kept.push((epoch, end));
        if kept.len() > POINTS {
            // The lower end stands for both: a reader may be told of a cut that missed it.
            let (_, lowest) = kept.remove(0);
            if let Some((_, point)) = kept.first_mut() {
                *point = lowest;
            }
        }
        self.epoch = epoch;
        self.points = Default::default();
        for (place, point) in self.points.iter_mut().zip(kept) {
            *place = point;
        }
    }

    /// The lowest end the log had since the epoch `seen`.
    pub(crate) fn lowest_end_since(&self, seen: u64) -> Option<Offset> {
        self.used().find(|(epoch, _)| *epoch > seen).map(|(_, end)| end)
    }

    fn used(&self) -> impl Iterator<Item = (u64, Offset)> {
        self.points.into_iter().take_while(|(epoch, _)| *epoch > 0)
    }

    fn check(&self) -> Result<(), DecodeError> {
        let used = self.used().count();
        if self.points.iter().skip(used).any(|point| *point != (0, Offset::ZERO)) {
            return Err(DecodeError::Malformed("a truncation behind the last one"));
        }
        let pairs = self.used().zip(self.used().skip(1));
        if pairs.into_iter().any(|(point, next)| point.0 >= next.0 || point.1 >= next.1) {
            return Err(DecodeError::Malformed("the truncations do not rise"));
        }
        if self.used().any(|(epoch, _)| epoch > self.epoch) {
            return Err(DecodeError::Malformed("a truncation of a later epoch"));
        }
        Ok(())
    }
}

impl Notice {
    /// Where in the file it goes.
    pub(crate) fn position(&self) -> u64 {
        self.sequence % 2 * wide(SLOT_STEP)
    }

    pub(crate) fn encode(&self) -> [u8; NOTICE_LEN] {
        let covered = RawCovered {
            log_id: self.log_id.into(),
            session: self.session.into(),
            sequence: self.sequence.into(),
            changes: self.changes.into(),
            epoch: self.points.epoch.into(),
            end: self.marks.end.get().into(),
            written: self.marks.written.get().into(),
            durable: self.marks.durable.get().into(),
            shown: self.marks.shown.get().into(),
            points: self
                .points
                .points
                .map(|(epoch, end)| RawPoint { epoch: epoch.into(), end: end.get().into() }),
        };
        let lead = RawLead {
            preamble: Preamble::new(MAGIC),
            state: match self.state {
                NoticeState::Opening => 1,
                NoticeState::Open => 2,
                NoticeState::Closed => 3,
            },
            reserved: [0],
        };
        let crc = checksum(&lead, &covered).into();
        zerocopy::transmute!(RawNotice { lead, crc, covered })
    }

    /// Decodes the notice that `bytes` begin with.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Preamble::check(bytes, MAGIC)?;
        let (raw, _) = RawNotice::ref_from_prefix(bytes).map_err(|_| DecodeError::Short)?;
        let covered = &raw.covered;
        if raw.crc != checksum(&raw.lead, covered) {
            return Err(DecodeError::BadChecksum);
        }
        check_reserved(&raw.lead.reserved)?;
        let offset = |raw: U64| Offset::new(raw.get());
        let notice = Self {
            state: match raw.lead.state {
                1 => NoticeState::Opening,
                2 => NoticeState::Open,
                3 => NoticeState::Closed,
                _ => return Err(DecodeError::Unknown("the state of a notice")),
            },
            log_id: covered.log_id.get(),
            session: covered.session.get(),
            sequence: covered.sequence.get(),
            changes: covered.changes.get(),
            marks: NoticeMarks {
                end: offset(covered.end),
                written: offset(covered.written),
                durable: offset(covered.durable),
                shown: offset(covered.shown),
            },
            points: Points {
                epoch: covered.epoch.get(),
                points: covered.points.map(|point| (point.epoch.get(), offset(point.end))),
            },
        };
        notice.check()?;
        Ok(notice)
    }

    /// The latest of the notices in the bytes of a file, if there is one.
    pub(crate) fn latest(bytes: &[u8]) -> Option<Self> {
        let second = bytes.get(SLOT_STEP..).unwrap_or_default();
        let slots = [bytes, second].into_iter().zip(0_u64..);
        let sound = slots.filter_map(|(slot, place)| {
            let notice = Self::decode(slot).ok()?;
            (notice.position() == place * wide(SLOT_STEP)).then_some(notice)
        });
        sound.max_by_key(|notice| notice.sequence)
    }

    fn check(&self) -> Result<(), DecodeError> {
        let NoticeMarks { end, written, durable, shown } = self.marks;
        if durable > written || written > end || shown > written {
            return Err(DecodeError::Malformed("the marks of a notice contradict each other"));
        }
        self.points.check()
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawNotice {
    lead: RawLead,
    crc: U32,
    covered: RawCovered,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawLead {
    preamble: Preamble,
    state: u8,
    reserved: [u8; 1],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawCovered {
    log_id: U128,
    session: U64,
    sequence: U64,
    changes: U64,
    epoch: U64,
    end: U64,
    written: U64,
    durable: U64,
    shown: U64,
    points: [RawPoint; POINTS],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawPoint {
    epoch: U64,
    end: U64,
}

/// Of all but itself.
fn checksum(lead: &RawLead, covered: &RawCovered) -> u32 {
    crc(crc(0, lead.as_bytes()), covered.as_bytes())
}

const MAGIC: &[u8; 8] = b"STRATNOW";

const _: () = assert!(size_of::<RawNotice>() == NOTICE_LEN);
const _: () = assert!(NOTICE_LEN <= SLOT_STEP);

#[cfg(test)]
mod tests {
    use super::{NOTICE_LEN, NOTICES_LEN, Notice, NoticeMarks, NoticeState, POINTS, Points};
    use crate::format::bytes::DecodeError;
    use crate::units::Offset;

    fn notice(sequence: u64) -> Notice {
        let mut points = Points::default();
        points.cut(3, Offset::new(5));
        points.cut(4, Offset::new(9));
        let [end, written, durable, shown] = [40, 30, 20, 25].map(Offset::new);
        Notice {
            state: NoticeState::Open,
            log_id: 7,
            session: 8,
            sequence,
            changes: 2,
            marks: NoticeMarks { end, written, durable, shown },
            points,
        }
    }

    /// The file after the notices were written to it in this order.
    fn file(notices: &[Notice]) -> Vec<u8> {
        let mut bytes = vec![0; NOTICES_LEN];
        for notice in notices {
            let at = usize::try_from(notice.position()).unwrap();
            bytes[at..at + NOTICE_LEN].copy_from_slice(&notice.encode());
        }
        bytes
    }

    #[test]
    fn a_notice_has_the_bytes_of_the_format() {
        let bytes = notice(6).encode();
        assert_eq!(&bytes[..12], b"STRATNOW\x01\x00\x02\x00");
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let numbers: Vec<_> = (16..NOTICE_LEN).step_by(8).map(number).collect();
        let zeros = [0; 8];
        let expected = [&[7, 0, 8, 6, 2, 4, 40, 30, 20, 25, 3, 5, 4, 9][..], &zeros].concat();
        assert_eq!(numbers, expected);
        assert_eq!(Notice::decode(&bytes), Ok(notice(6)));
        assert_eq!((notice(6).position(), notice(7).position()), (0, 256));
    }

    #[test]
    fn the_latest_whole_notice_counts_wherever_a_write_stops() {
        let bytes = file(&[notice(6), notice(7)]);
        assert_eq!(Notice::latest(&bytes), Some(notice(7)));
        assert_eq!(Notice::latest(&bytes[..NOTICE_LEN]), Some(notice(6)));
        let next = notice(8).encode();
        for torn in 0..NOTICE_LEN {
            let mut bytes = bytes.clone();
            bytes[..torn].copy_from_slice(&next[..torn]);
            // The last bytes are those of points that are not used, and the same in both.
            let found = Notice::latest(&bytes).unwrap();
            assert!(found == notice(7) || (found == notice(8) && torn > 40), "{torn}: {found:?}");
        }
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let sound = notice(6).encode();
        for at in 0..NOTICE_LEN {
            let mut bytes = sound;
            bytes[at] ^= 1;
            assert!(Notice::decode(&bytes).is_err(), "{at}");
        }
        for len in 0..NOTICE_LEN {
            assert!(Notice::decode(&sound[..len]).is_err());
        }
        // In the wrong slot it is not one of this file.
        let mut bytes = vec![0; 256];
        bytes.extend_from_slice(&sound);
        assert_eq!(Notice::latest(&bytes), None);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let malformed = |change: fn(&mut Notice)| {
            let mut notice = notice(6);
            change(&mut notice);
            matches!(Notice::decode(&notice.encode()), Err(DecodeError::Malformed(_)))
        };
        assert!(malformed(|notice| notice.marks.durable = Offset::new(31)));
        assert!(malformed(|notice| notice.marks.written = Offset::new(41)));
        assert!(malformed(|notice| notice.marks.shown = Offset::new(31)));
        assert!(malformed(|notice| notice.points.epoch = 3));
        assert!(malformed(|notice| notice.points.points[1] = (3, Offset::new(9))));
        assert!(malformed(|notice| notice.points.points[1] = (4, Offset::new(5))));
        assert!(malformed(|notice| notice.points.points[3] = (4, Offset::new(10))));
    }

    #[test]
    fn the_lowest_end_is_that_of_the_cuts_not_seen() {
        let mut points = Points::default();
        assert_eq!(points.lowest_end_since(0), None);
        for (epoch, end) in [(1, 50), (2, 30), (3, 40)] {
            points.cut(epoch, Offset::new(end));
        }
        let lowest = [0, 1, 2, 3].map(|seen| points.lowest_end_since(seen).map(Offset::get));
        assert_eq!(lowest, [Some(30), Some(30), Some(40), None]);
        assert_eq!(Points::unknown(0), Points::default());
        assert_eq!(Points::unknown(9).lowest_end_since(8), Some(Offset::ZERO));
        assert_eq!(Points::unknown(9).lowest_end_since(9), None);
    }

    #[test]
    fn no_cut_is_forgotten_when_there_are_many() {
        let mut points = Points::default();
        let cuts = 3 * POINTS as u64;
        for epoch in 1..=cuts {
            points.cut(epoch, Offset::new(10 * epoch));
        }
        for seen in 0..cuts {
            let lowest = points.lowest_end_since(seen).unwrap();
            assert!(lowest <= Offset::new(10 * (seen + 1)), "{seen}: {lowest}");
        }
        assert_eq!(
            Notice::decode(&Notice { points, ..notice(1) }.encode()).unwrap().points,
            points
        );
    }
}
