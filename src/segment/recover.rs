//! What recovery sees of a segment that was not known to be durable, and what it decides: a table.
//!
//! A crash leaves a prefix of the log, then anything: any subset of the unsynced sectors. A medium
//! that lost or changed bytes leaves damage anywhere. The durable mark in every frame tells the two
//! apart: bytes below a mark were synced before that frame was written, so no crash explains that
//! they are gone.
//!
//! | role    | file              | behind the last sound frame      | decision |
//! |---------|-------------------|----------------------------------|----------|
//! | any     | missing, not ours |                                  | refuse   |
//! | active  | below durable end |                                  | refuse   |
//! | any     | there             | damage, a later mark beyond it   | refuse   |
//! | written | there             | its end, as the manifest says    | keep     |
//! | written | there             | anything else, no mark beyond it | cut      |
//! | active  | there             | end of file                      | keep     |
//! | active  | there             | only zeros                       | keep     |
//! | active  | there             | damage, no mark beyond it        | cut      |
//!
//! A file that is missing, or whose header is damaged or that of another segment or log, is refused
//! where it is opened. A tail that goes on with a sound frame of a newer version of this crate is
//! refused as what it is. [`decide`] is the rest of the table.
//!
//! *Keep*: the frames are written anew where nothing proves them durable, and synced. *Cut*: the
//! same, and the segment ends there for good; what follows it is dropped. *Refuse*: `Corrupt`, and
//! nothing is touched.

use crate::bugs::Bug;
use crate::error::Result;
use crate::format::bytes::DecodeError;
use crate::format::frame::FrameHeader;
use crate::format::index::IndexEntry;
use crate::format::segment::MAX_SEGMENT_LEN;
use crate::segment::damage::refuse_newer;
use crate::segment::index::is_due;
use crate::segment::records::Records;
use crate::segment::scan::Damage;
use crate::segment::scan::Scan;
use crate::segment::scan::Step;
use crate::storage::Handle;
use crate::units::Offset;
use crate::units::Timestamp;
use std::collections::VecDeque;

/// What the manifest says a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Ended, but not known to be durable.
    Written,
    /// Going on.
    Active,
}

/// What became of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileState {
    /// Ends below what was durable.
    Short,
    /// As long as it was durable, or longer.
    There,
}

/// What follows the last sound frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// The end: of the file, or the one that the manifest states.
    End,
    /// Nothing but zeros, written ahead.
    Zeros,
    /// Bytes that are not the frame that belongs there.
    Damage,
}

/// The highest durable mark found behind the last sound frame, held against that frame's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// No mark says that anything behind the last sound frame was durable.
    None,
    /// A later frame says that something behind the last sound frame was durable.
    Beyond,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) role: Role,
    pub(crate) file: FileState,
    pub(crate) tail: Tail,
    pub(crate) claim: Claim,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// All is there: make it durable and go on.
    Keep,
    /// A torn tail: make durable what is sound, end the segment there, drop what follows.
    Cut,
    /// Damage that no crash explains: report it, touch nothing.
    Refuse,
}

/// The table above.
pub(crate) fn decide(observed: Observed) -> Decision {
    let Observed { role, file, tail, claim } = observed;
    match (role, file, tail, claim) {
        // A written segment may be short of its end after a crash: it was never synced.
        (Role::Active, FileState::Short, _, _) => Decision::Refuse,
        (Role::Written, _, Tail::End, _) => Decision::Keep,
        (_, _, _, Claim::Beyond) => Decision::Refuse,
        (Role::Written, _, Tail::Zeros | Tail::Damage, Claim::None) => Decision::Cut,
        (Role::Active, FileState::There, Tail::End | Tail::Zeros, Claim::None) => Decision::Keep,
        (Role::Active, _, Tail::Damage, _) if Bug::TornTailStays.is_on() => Decision::Keep,
        (Role::Active, FileState::There, Tail::Damage, Claim::None) => Decision::Cut,
    }
}

/// What a scan from a durable position to the end of the file found.
#[derive(Debug)]
pub(crate) struct TailScan {
    pub(crate) end_position: u64,
    pub(crate) end_offset: Offset,
    /// Append times of the first and the last record, and how many there are.
    pub(crate) first_at: Option<Timestamp>,
    pub(crate) last_at: Option<Timestamp>,
    pub(crate) record_count: u64,
    pub(crate) index: Vec<IndexEntry>,
    /// The highest durable mark of a sound frame; what lies below it is durable.
    pub(crate) mark: Offset,
    /// The highest durable mark of a frame behind the damage.
    pub(crate) mark_behind: Option<Offset>,
    pub(crate) tail: Tail,
    /// What is wrong behind the last sound frame, if something is.
    pub(crate) damage: Option<Damage>,
    pub(crate) scanned_bytes: u64,
    /// How far the damage reaches: up to the last byte that is not zero.
    pub(crate) torn_bytes: u64,
    /// End offset and position of each frame not below `mark` when the scan passed it.
    unproven: VecDeque<(Offset, u64)>,
}

impl TailScan {
    /// The scan of a segment that needs none: it ends where it is known to.
    pub(crate) fn nothing(from: (u64, Offset)) -> Self {
        Self {
            end_position: from.0,
            end_offset: from.1,
            first_at: None,
            last_at: None,
            record_count: 0,
            index: Vec::new(),
            mark: from.1,
            mark_behind: None,
            tail: Tail::End,
            damage: None,
            scanned_bytes: 0,
            torn_bytes: 0,
            unproven: VecDeque::new(),
        }
    }

    /// The position from which on nothing proves the frames durable, given the highest mark.
    pub(crate) fn unproven_from(&self, mark: Offset) -> u64 {
        let left = usize::from(Bug::FirstUnprovenLeft.is_on());
        let unproven = self.unproven.iter().skip(left).find(|(end, _)| *end > mark);
        unproven.map_or(self.end_position, |(_, position)| *position)
    }

    fn frame(&mut self, position: u64, header: &FrameHeader, inside: Inside) {
        self.end_position = position + header.frame_len();
        self.end_offset = header.end_offset();
        if let Some(last_at) = inside.last_at {
            self.first_at = self.first_at.or(Some(header.appended_at));
            self.last_at = Some(last_at);
        }
        self.record_count += inside.record_count;
        let base_offset = header.base_offset;
        let entry = IndexEntry { base_offset, position, appended_at: header.appended_at };
        if is_due(self.index.last(), &entry) {
            self.index.push(entry);
        }
        self.mark = self.mark.max(header.durable_mark());
        self.unproven.push_back((self.end_offset, position));
        while self.unproven.front().is_some_and(|(end, _)| *end <= self.mark) {
            self.unproven.pop_front();
        }
    }
}

/// What the format allows the frames of a segment, apart from what each says about itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) seed: u32,
    pub(crate) base_offset: Offset,
    /// No frame was closed before.
    pub(crate) since: Timestamp,
}

impl Bounds {
    /// Refuses a frame that no writer puts there; else the next one may not be older than it.
    ///
    /// What is let through goes into a row of the manifest, which has these limits too: without
    /// this a log would open once and write a manifest that cannot be read.
    pub(super) fn admit(&mut self, position: u64, header: &FrameHeader) -> Result<(), DecodeError> {
        if position >= MAX_SEGMENT_LEN {
            return Err(DecodeError::Malformed("a frame begins where none can"));
        }
        if header.end_offset().saturating_since(self.base_offset) > u64::from(u32::MAX) {
            return Err(DecodeError::Malformed("a segment has 2^32 offsets or more"));
        }
        if header.appended_at < self.since {
            return Err(DecodeError::Malformed("a frame is older than the one before"));
        }
        self.since = header.appended_at;
        Ok(())
    }
}

/// Scans the frames of `file` from a position, and the offset that begins there, to `end`, and
/// looks for later marks behind damage. What lies below `proven` is known to be durable.
pub(crate) fn scan_tail(
    file: &Handle,
    mut bounds: Bounds,
    from: (u64, Offset),
    end: u64,
    proven: Offset,
) -> Result<TailScan> {
    let scanned_bytes = end.saturating_sub(from.0);
    let mut found = TailScan { mark: proven, scanned_bytes, ..TailScan::nothing(from) };
    let mut scan = Scan::new(file, bounds.seed, end, from);
    let damage = loop {
        match scan.step()? {
            Step::End => return Ok(found),
            Step::Damage(damage) => break damage,
            Step::Frame { position, header } => {
                let body = match bounds.admit(position, &header) {
                    Ok(()) => scan.body(position, &header)?,
                    Err(why) => Err(why),
                };
                match body.and_then(|body| Inside::of(body, &header)) {
                    Ok(inside) => found.frame(position, &header, inside),
                    Err(_) if Bug::BadFrameSkipped.is_on() => {}
                    Err(why) => {
                        break Damage { position, offset: header.base_offset, why };
                    }
                }
            }
        }
    };
    refuse_newer(file, &damage)?;
    let Some(written_to) = scan.last_written_from(damage.position)? else {
        found.tail = Tail::Zeros;
        return Ok(found);
    };
    found.torn_bytes = written_to - damage.position;
    found.tail = Tail::Damage;
    found.damage = Some(damage);
    found.mark_behind = marks_behind(&mut scan, &damage)?;
    Ok(found)
}

/// The highest durable mark behind damage. A header is enough: it was written whole.
pub(crate) fn marks_behind(scan: &mut Scan<'_>, damage: &Damage) -> Result<Option<Offset>> {
    let mut highest = None;
    let mut damage = *damage;
    while let Some((position, header)) = scan.resume_behind(&damage)? {
        highest = highest.max(Some(header.durable_mark()));
        damage = Damage { position, ..damage };
    }
    Ok(highest)
}

/// What a scan needs to know of the records in a body.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inside {
    /// Append time of the last one.
    last_at: Option<Timestamp>,
    record_count: u64,
}

impl Inside {
    pub(super) fn of(body: &[u8], header: &FrameHeader) -> Result<Self, DecodeError> {
        Records::new(body, header).try_fold(Self::default(), |before, placed| {
            let record_count = before.record_count + 1;
            Ok(Self { last_at: Some(placed?.appended_at), record_count })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Claim, Decision, FileState, Observed, Role, Tail, decide};

    /// The whole product of what can be observed, against the table in words.
    #[test]
    fn every_row_of_the_table() {
        for role in [Role::Written, Role::Active] {
            for file in [FileState::Short, FileState::There] {
                for tail in [Tail::End, Tail::Zeros, Tail::Damage] {
                    for claim in [Claim::None, Claim::Beyond] {
                        let observed = Observed { role, file, tail, claim };
                        assert_eq!(decide(observed), expected(observed), "{observed:?}");
                    }
                }
            }
        }
    }

    fn expected(observed: Observed) -> Decision {
        let Observed { role, file, tail, claim } = observed;
        let lost = file == FileState::Short && role == Role::Active;
        let whole = role == Role::Written && tail == Tail::End;
        let durable_bytes_gone = !whole && claim == Claim::Beyond;
        if lost || durable_bytes_gone {
            Decision::Refuse
        } else if whole || (role == Role::Active && tail != Tail::Damage) {
            Decision::Keep
        } else {
            Decision::Cut
        }
    }
}
