//! What was cut off a log that is followed, between two looks.

use crate::follow::Followed;
use crate::format::manifest::Manifest;
use crate::format::manifest::RowState;
use crate::format::notice::Notice;
use crate::units::Offset;

impl Followed {
    /// The lowest end the log had since the last look, if it was cut back.
    pub(super) fn lowest_end(&self, manifest: &Manifest, notice: Option<Notice>) -> Option<Offset> {
        let seen = self.segments.state().manifest.truncation_epoch;
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
        let unsaid = told.is_some_and(|points| points.epoch() + 1 == epoch);
        let has_active = manifest.rows.last().is_some_and(|row| row.state == RowState::Active);
        let unsaid = (unsaid && !has_active).then(|| manifest.end_offset());
        match (told.is_some_and(|points| points.epoch() == epoch), lowest, unsaid) {
            (true, Some(lowest), _) => Some(lowest),
            (false, lowest, Some(end)) => Some(lowest.map_or(end, |lowest| lowest.min(end))),
            // Nobody knows: perhaps all of it was.
            _ => Some(Offset::ZERO),
        }
    }
}
