//! What of the pending changes gets through when the power is cut.

use crate::dice::Dice;

/// Decides for one cut; each cut has its own way, by its seed.
#[derive(Debug)]
pub(crate) struct Survival {
    way: Way,
    dice: Dice,
    /// The unit that gets through or does not.
    sector: u64,
    /// How many more changes of the list get through in order.
    first: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Everything,
    Nothing,
    /// Of each list of changes a first part.
    Prefix,
    /// Each sector, each length and each name by itself, so many of eight.
    Some(u64),
}

impl Survival {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let way = match dice.below(8) {
            0 => Way::Everything,
            1 => Way::Nothing,
            2 => Way::Prefix,
            _ => Way::Some(dice.pick(&[1, 4, 7])),
        };
        let sector = dice.pick(&[64, 512, 512, 4096]);
        Self { way, dice, sector, first: 0 }
    }

    /// As a block device does it, which never tears a sector.
    pub(crate) fn of_sectors(seed: u64) -> Self {
        let survival = Self::new(seed);
        Self { sector: survival.sector.max(512), ..survival }
    }

    /// Another list of so many changes.
    pub(crate) fn begin(&mut self, changes: usize) {
        self.first = self.dice.below(changes as u64 + 1);
    }

    /// Whether the next change of the list gets through.
    pub(crate) fn keeps(&mut self) -> bool {
        match self.way {
            Way::Everything => true,
            Way::Nothing => false,
            Way::Prefix => {
                let keeps = self.first > 0;
                self.first = self.first.saturating_sub(1);
                keeps
            }
            Way::Some(odds) => self.dice.below(8) < odds,
        }
    }

    /// The end of the piece of a write, beginning at `from`, that gets through or does not.
    pub(crate) fn piece_end(&self, from: u64) -> u64 {
        match self.way {
            Way::Some(_) => (from / self.sector + 1) * self.sector,
            _ => u64::MAX,
        }
    }

    /// One of the lengths that the file had, or `None` to leave it to the bytes.
    pub(crate) fn picks_len(&mut self, lens: &[u64]) -> Option<u64> {
        let apart = matches!(self.way, Way::Some(_)) && self.dice.once_in(2);
        apart.then(|| self.dice.pick(lens))
    }
}

/// The seed of a power cut that takes all that is pending.
pub(crate) const DROPS_ALL: u64 = 1;

#[test]
fn the_seed_that_drops_all_does() {
    assert_eq!(Survival::new(DROPS_ALL).way, Way::Nothing);
}
