//! What was cut off a log that is followed, between two looks.

use crate::follow::Followed;
use crate::format::manifest::Manifest;
use crate::format::manifest::RowState;
use crate::format::notice::Notice;
use crate::units::Offset;

impl Followed {
    /// The lowest end the log had since the last look, if it was cut back.
    pub(super) fn lowest_end(&self, manifest: &Manifest, notice: Option<Notice>) -> Option<Offset> {
        lowest_end_since(self.segments.state().manifest.truncation_epoch, manifest, notice)
    }
}

/// The lowest end the log had since the epoch `seen`, if it was cut back.
fn lowest_end_since(seen: u64, manifest: &Manifest, notice: Option<Notice>) -> Option<Offset> {
    let epoch = manifest.truncation_epoch;
    if epoch == seen {
        return None;
    }
    let points = notice.filter(|notice| notice.log_id == manifest.log_id);
    let points = points.map(|notice| notice.points);
    let told = points.filter(|points| points.epoch() <= epoch && epoch > seen);
    let lowest = told.and_then(|points| points.lowest_end_since(seen));
    // The writer that cut the log died before it said so: the manifest says where, as long as
    // nothing has been appended.
    let unsaid = told.is_some_and(|points| points.epoch().checked_add(1) == Some(epoch));
    let has_active = manifest.rows.last().is_some_and(|row| row.state == RowState::Active);
    let unsaid = (unsaid && !has_active).then(|| manifest.end_offset());
    match (told.is_some_and(|points| points.epoch() == epoch), lowest, unsaid) {
        (true, Some(lowest), _) => Some(lowest),
        (false, lowest, Some(end)) => Some(lowest.map_or(end, |lowest| lowest.min(end))),
        // Nobody knows: perhaps all of it was.
        _ => Some(Offset::ZERO),
    }
}

#[cfg(test)]
mod tests {
    use super::lowest_end_since;
    use crate::format::manifest::Manifest;
    use crate::format::manifest::Origin;
    use crate::format::notice::Notice;
    use crate::format::notice::Points;
    use crate::units::Offset;
    use crate::units::Timestamp;

    fn manifest(truncation_epoch: u64) -> Manifest {
        Manifest {
            log_id: 7,
            closed: false,
            origin: Origin::Log,
            start_offset: Offset::ZERO,
            next_segment_id: 1,
            last_append_time: Timestamp::MIN,
            truncation_epoch,
            compacted_to: Offset::ZERO,
            rows: Vec::new(),
        }
    }

    fn notice(epoch: u64, end: u64) -> Option<Notice> {
        let mut points = Points::default();
        points.cut(epoch, Offset::new(end));
        Some(Notice { log_id: 7, points, ..Notice::default() })
    }

    #[test]
    fn the_highest_epoch_is_one_like_any_other() {
        for epoch in [9, u64::MAX - 1, u64::MAX] {
            let since = |seen| lowest_end_since(seen, &manifest(epoch), notice(epoch, 5));
            assert_eq!(since(epoch), None);
            assert_eq!(since(epoch - 1), Some(Offset::new(5)));
            // The last one is unsaid; here the manifest has no record left.
            let unsaid = lowest_end_since(epoch - 2, &manifest(epoch), notice(epoch - 1, 5));
            assert_eq!(unsaid, Some(Offset::ZERO));
        }
    }
}
