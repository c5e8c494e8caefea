//! What goes wrong on a disk, and when: failing calls, short writes, little space, a power cut.

use crate::dice::Dice;
use fuser::Errno;
use std::collections::BTreeMap;

/// A call that changes something. Reading never fails but by a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Create,
    Remove,
    Rename,
    SetLen,
    Sync,
    SyncDir,
    Write,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    counts: BTreeMap<Call, u64>,
    failures: Vec<Failure>,
    /// After so many more calls, with this seed.
    cut: Option<(u64, u64)>,
    /// Some writes take only a part of what they are given.
    short_writes: Option<Dice>,
    /// Bytes by which files may grow; `None` is no limit.
    space: Option<u64>,
}

#[derive(Clone, Debug)]
struct Failure {
    call: Call,
    /// How many more such calls get through.
    after: u64,
    errno: Errno,
}

impl Rules {
    /// The call of that kind after the next `after` ones fails, once.
    pub(crate) fn fail(&mut self, call: Call, after: u64, errno: Errno) {
        self.failures.push(Failure { call, after, errno });
    }

    /// The power is cut at the call after the next `after` ones, of whatever kind.
    pub(crate) fn cut_after(&mut self, after: u64, seed: u64) {
        self.cut = Some((after, seed));
    }

    pub(crate) fn write_short(&mut self, seed: u64) {
        self.short_writes = Some(Dice(seed));
    }

    pub(crate) fn limit_space(&mut self, bytes: u64) {
        self.space = Some(bytes);
    }

    pub(crate) fn space(&self) -> Option<u64> {
        self.space
    }

    pub(crate) fn count(&self, call: Call) -> u64 {
        self.counts.get(&call).copied().unwrap_or(0)
    }

    /// The seed of the power cut, if it is due.
    pub(crate) fn cuts_now(&mut self) -> Option<u64> {
        let (after, seed) = self.cut?;
        self.cut = after.checked_sub(1).map(|after| (after, seed));
        self.cut.is_none().then_some(seed)
    }

    pub(crate) fn call(&mut self, call: Call) -> Result<(), Errno> {
        *self.counts.entry(call).or_default() += 1;
        let mut result = Ok(());
        self.failures.retain_mut(|failure| {
            if failure.call != call {
                return true;
            }
            let Some(after) = failure.after.checked_sub(1) else {
                result = Err(failure.errno);
                return false;
            };
            failure.after = after;
            true
        });
        result
    }

    /// How many bytes of a write get through.
    pub(crate) fn room(&mut self, len: u64, at: u64, size: usize) -> usize {
        let space = self.space.map_or(u64::MAX, |space| (len + space).saturating_sub(at));
        let room = size.min(usize::try_from(space).unwrap_or(usize::MAX));
        let Some(dice) = self.short_writes.as_mut().filter(|_| room > 1) else { return room };
        if dice.once_in(3) {
            1 + usize::try_from(dice.below(room as u64 - 1)).unwrap()
        } else {
            room
        }
    }

    pub(crate) fn take_space(&mut self, bytes: u64) {
        self.space = self.space.map(|space| space.saturating_sub(bytes));
    }

    pub(crate) fn give_space(&mut self, bytes: u64) {
        self.space = self.space.map(|space| space + bytes);
    }
}
