//! What was cut off the log while readers were reading it, so that none of them skips in silence.

use crate::units::Offset;

/// How many points of truncations are kept apart.
const POINTS_MAX: usize = 256;

/// The cuts since the log was opened: records removed from its front or from its back.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    /// Goes up when a cut begins to show, to an odd number, and again when it has settled.
    count: u64,
    /// Truncations that are lower than all later ones, with the count of each; lowest first.
    truncations: Vec<(u64, Offset)>,
}

impl Cuts {
    /// A cut begins to show; gives the count by now.
    pub(super) fn begin(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// The cut that began has settled: of the front, or of the back to an end.
    pub(super) fn settle(&mut self, truncated_to: Option<Offset>) -> u64 {
        self.count += 1;
        if let Some(end) = truncated_to {
            self.truncations.retain(|(_, point)| *point < end);
            self.truncations.push((self.count, end));
        }
        if self.truncations.len() > POINTS_MAX {
            // The lower point stands for both: a reader may be told of a cut that missed it.
            let (_, lowest) = self.truncations.remove(0);
            if let Some((_, point)) = self.truncations.first_mut() {
                *point = lowest;
            }
        }
        self.count
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The lowest end the log had since the count was `seen`.
    pub(super) fn lowest_end_since(&self, seen: u64) -> Option<Offset> {
        let later = self.truncations.iter().find(|(count, _)| *count > seen);
        later.map(|(_, point)| *point)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cuts, POINTS_MAX};
    use crate::units::Offset;

    fn cut(cuts: &mut Cuts, end: Option<u64>) {
        cuts.begin();
        cuts.settle(end.map(Offset::new));
    }

    #[test]
    fn the_lowest_end_is_that_of_the_cuts_not_seen() {
        let mut cuts = Cuts::default();
        assert_eq!(cuts.lowest_end_since(0), None);
        for end in [Some(50), Some(30), None, Some(40)] {
            cut(&mut cuts, end);
        }
        let lowest = [0, 2, 4, 6, 7, 8].map(|seen| cuts.lowest_end_since(seen).map(Offset::get));
        assert_eq!(lowest, [Some(30), Some(30), Some(40), Some(40), Some(40), None]);
    }

    #[test]
    fn their_number_is_bounded_and_no_cut_is_forgotten() {
        let mut cuts = Cuts::default();
        let ends = 2 * POINTS_MAX as u64;
        for end in 0..ends {
            cut(&mut cuts, Some(end));
        }
        assert_eq!(cuts.truncations.len(), POINTS_MAX);
        for seen in 0..ends {
            let lowest = cuts.lowest_end_since(2 * seen);
            assert!(lowest.is_some_and(|end| end <= Offset::new(seen)));
        }
    }
}
