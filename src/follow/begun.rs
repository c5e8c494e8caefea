//! The segments that were begun behind the last row of a manifest, as a reader finds them.
//!
//! A roll writes no manifest: the log goes on in one of the segments that the manifest calls
//! prepared. Found from the front: where the segment at hand ends, the next one says in its header
//! that it begins. So it is looked for only where what is to be shown lies behind that end, and
//! believed no sooner than it has a frame. Recovery looks at all headers first and compares the
//! ends then (`state/chain.rs`); both end the log where the next header or frame is missing.

use crate::bugs::Bug;
use crate::error::Result;
use crate::follow::Followed;
use crate::follow::READING;
use crate::follow::look::Session;
use crate::follow::look::end_of;
use crate::format::manifest::Manifest;
use crate::format::manifest::Prepared;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::format::names;
use crate::segment::Belief;
use crate::segment::Segment;
use crate::state::begun_row;
use crate::storage::OpenMode;
use crate::units::Offset;
use crate::units::Timestamp;
use std::sync::Arc;

/// How far to look for frames, and what they need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    pub(super) until: Offset,
    pub(super) belief: Belief,
    pub(super) life: Session,
}

impl Followed {
    /// Takes the segment of the active row to the end of what is there, and goes on in those that
    /// were begun since, which get rows; gives the last one.
    pub(super) fn go_on(
        &self,
        manifest: &mut Manifest,
        reach: Reach,
    ) -> Result<Option<Arc<Segment>>> {
        let row = manifest.rows.last().copied().filter(Row::is_active);
        let mut active = row.map(|row| self.growing(manifest, &row, reach.life)).transpose()?;
        if let Some(active) = &active {
            active.follow(reach.until, reach.belief)?;
        }
        while end_of(manifest, active.as_ref()) < reach.until
            && let Some((row, next)) = self.next(manifest, active.as_ref(), reach)?
        {
            if let (Some(row), Some(ended)) = (manifest.rows.last_mut(), &active) {
                end_row(row, ended, next.first_frame_at());
            }
            manifest.prepared.retain(|prepared| prepared.segment_id != row.segment_id);
            manifest.rows.push(row);
            active = Some(next);
        }
        Ok(active)
    }

    /// The segment that was begun where the log ends, with its first frames.
    fn next(
        &self,
        manifest: &Manifest,
        active: Option<&Arc<Segment>>,
        reach: Reach,
    ) -> Result<Option<(Row, Arc<Segment>)>> {
        let base = end_of(manifest, active);
        // One without records is not left for another.
        if active.is_some_and(|active| active.base_offset() == base) || Bug::BegunNotSeen.is_on() {
            return Ok(None);
        }
        for prepared in &manifest.prepared {
            let Some(row) = self.begun_at(base, prepared, manifest.log_id)? else { continue };
            let next = self.growing(manifest, &row, reach.life)?;
            next.follow(reach.until, reach.belief)?;
            if next.end_offset() > base {
                return Ok(Some((row, next)));
            }
        }
        Ok(None)
    }

    /// The row of a prepared segment, if it was begun at `base`.
    fn begun_at(&self, base: Offset, prepared: &Prepared, log_id: u128) -> Result<Option<Row>> {
        let dir = self.segments.dir();
        let named = names::segment(base, prepared.segment_id);
        let file = match dir.open_if_there(&named, OpenMode::Read)? {
            Some(file) => Some(file),
            // A crash may have taken the name back.
            None => dir.open_if_there(&names::prepared(prepared.segment_id), OpenMode::Read)?,
        };
        let Some(file) = file else { return Ok(None) };
        let row = begun_row(&file, log_id, prepared)?;
        Ok(row.filter(|row| row.base_offset == base))
    }

    /// The segment of a row that grows: the one at hand, or, in another life of the writer, opened
    /// anew.
    fn growing(&self, manifest: &Manifest, row: &Row, life: Session) -> Result<Arc<Segment>> {
        let state = self.segments.state();
        let at_hand = state.active.as_ref().filter(|active| active.id() == row.segment_id);
        if let Some(active) = at_hand.filter(|_| life == Session::Same) {
            return Ok(Arc::clone(active));
        }
        let dir = self.segments.dir();
        Segment::open_growing(dir, row, manifest.log_id, READING).map(Arc::new)
    }
}

/// Makes the row of an active segment say that it has ended. What it does not know of the records
/// hides none of them: the last one came no later than the first of the next segment.
fn end_row(row: &mut Row, ended: &Segment, next_at: Timestamp) {
    row.state = RowState::Written;
    (row.byte_len, row.end_offset) = (ended.end(), ended.end_offset());
    if row.record_count == 0 {
        row.first_appended_at = ended.first_frame_at();
    }
    row.record_count = row.record_count.max(1);
    row.last_appended_at = next_at.max(row.first_appended_at);
}
