//! Whether recovery finds less than readers elsewhere were shown: pure.

use crate::format::manifest::Manifest;
use crate::format::notice::Notice;
use crate::units::Offset;
use std::cmp::Ordering;

/// Whether a log that ends at `end` has lost what its writer had `said` to have written, or may
/// have.
///
/// Not only what was to be shown: when a writer is dead, readers show all that it had written.
pub(super) fn has_lost(said: &Notice, manifest: &Manifest, end: Offset) -> bool {
    said.log_id == manifest.log_id
        && match said.points.epoch().cmp(&manifest.truncation_epoch) {
            // The log was cut since, which readers are told of by itself.
            Ordering::Less => false,
            Ordering::Equal => said.marks.written > end,
            // It found such a loss itself, and a full disk kept it from replacing the manifest.
            Ordering::Greater => true,
        }
}

#[cfg(test)]
mod tests {
    use super::has_lost;
    use crate::format::manifest::Manifest;
    use crate::format::manifest::Origin;
    use crate::format::notice::Notice;
    use crate::format::notice::NoticeMarks;
    use crate::format::notice::Points;
    use crate::units::Offset;
    use crate::units::Timestamp;

    const MANIFEST: Manifest = Manifest {
        log_id: 7,
        closed: false,
        origin: Origin::Log,
        start_offset: Offset::ZERO,
        next_segment_id: 1,
        last_append_time: Timestamp::MIN,
        truncation_epoch: 3,
        compacted_to: Offset::ZERO,
        rows: Vec::new(),
    };

    #[test]
    fn only_what_was_said_of_this_log_in_this_epoch_or_a_later_one_counts() {
        let said = |log_id, epoch, written| {
            let written = Offset::new(written);
            let marks = NoticeMarks { written, end: written, ..NoticeMarks::default() };
            Notice { log_id, marks, points: Points::unknown(epoch), ..Notice::default() }
        };
        let cases = [
            (said(7, 3, 10), false),
            (said(7, 3, 11), true),
            (said(7, 2, 11), false),
            (said(7, 4, 0), true),
            (said(8, 3, 11), false),
            (Notice::default(), false),
        ];
        for (said, expected) in cases {
            assert_eq!(has_lost(&said, &MANIFEST, Offset::new(10)), expected, "{said:?}");
        }
    }
}
