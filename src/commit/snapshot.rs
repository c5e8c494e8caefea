//! The part of the log that is durable at one moment, for who copies it while the log goes on.

use crate::commit::Commit;
use crate::commit::front::Life;
use crate::commit::front::closed;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::segment;
use crate::segment::Segment;
use crate::state::Segments;
use crate::units::Offset;
use std::sync::Arc;

/// What of a log is durable.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// All rows are sealed, and the last one ends where what is durable ended.
    pub(crate) manifest: Manifest,
    /// The segment of the last row, if it goes on behind the end that the row states.
    pub(crate) growing: Option<Arc<Segment>>,
}

impl Commit {
    /// Looks at the log as it is now, also if it was poisoned: what is durable stays so.
    pub(crate) fn snapshot(&self, segments: &Segments) -> Result<Snapshot> {
        let (state, rows, durable) = {
            let writer = self.writer.lock();
            self.check_not_closed()?;
            (segments.state(), writer.rows(), self.marks.durable())
        };
        let mut manifest = state.manifest.clone();
        manifest.closed = true;
        manifest.prepared.clear();
        manifest.compacted_to = manifest.compacted_to.min(durable);
        manifest.rows = rows;
        manifest.rows.retain(|row| row.base_offset < durable && row.base_offset < row.end_offset);
        for row in &mut manifest.rows {
            if row.end_offset <= durable && row.state == RowState::Written {
                row.state = RowState::Sealed;
            }
        }
        let growing = match manifest.rows.last_mut() {
            Some(row) if row.state != RowState::Sealed => {
                let stated =
                    state.manifest.rows.iter().find(|old| old.segment_id == row.segment_id);
                let segment = segments.open(&state, stated.unwrap_or(row))?;
                end_at(row, &segment, durable)?;
                Some(segment)
            }
            _ => None,
        };
        for row in manifest.rows.iter().filter(|row| row.record_count > 0) {
            manifest.last_append_time = manifest.last_append_time.max(row.last_appended_at);
        }
        Ok(Snapshot { manifest, growing })
    }

    /// Whoever opens the log after it was closed may remove what this handle has in its list.
    pub(crate) fn check_not_closed(&self) -> Result<()> {
        match self.front.lock().life {
            Life::Closed => Err(closed()),
            _ => Ok(()),
        }
    }
}

/// Ends a row at a place up to which its segment is durable.
fn end_at(row: &mut Row, segment: &Arc<Segment>, end: Offset) -> Result<()> {
    let cut = segment::cut_at(segment, row, end)?;
    row.end_offset = end;
    row.byte_len = cut.byte_len;
    row.record_count = cut.record_count;
    row.last_appended_at = cut.last_at;
    row.state = RowState::Sealed;
    Ok(())
}
