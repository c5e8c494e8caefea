//! Changes of the list of segments that no record causes: which rows stay, and how they end.

use crate::bugs::Bug;
use crate::commit::writer::Writer;
use crate::commit::writer::seal_durable;
use crate::error::Failure;
use crate::format::manifest::Manifest;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::segment;
use crate::segment::Cut;
use crate::state::Takes;
use crate::sync::Mutex;
use crate::units::Offset;
use crate::units::Timestamp;
use std::sync::Arc;

impl Writer {
    /// The offset of the first record there is.
    pub(crate) fn start_offset(&self) -> Offset {
        self.segments.start_offset()
    }

    /// Ends the log at `end`, below which all is durable. `last_at` is the append time of its last
    /// record; later ones get none that is lower, also after a restart.
    pub(crate) fn truncate(
        &mut self,
        end: Offset,
        last_at: Timestamp,
        settle: impl FnOnce(),
    ) -> Result<(), Failure> {
        let mut rows = self.rows();
        let start = self.start_offset();
        rows.retain(|row| row.base_offset < end && row.end_offset > start && end > start);
        let cut = rows.last().copied().filter(|row| end < row.end_offset);
        let cut = cut.map(|row| self.cut_at(&row, end)).transpose()?;
        if let (Some(row), Some(cut)) = (rows.last_mut(), cut) {
            row.end_offset = end;
            row.byte_len = cut.byte_len;
            row.record_count = cut.record_count;
            row.tombstone_count = row.tombstone_count.min(cut.record_count);
            row.last_appended_at = cut.last_at;
            if cut.record_count == 0 {
                (row.first_appended_at, row.last_appended_at) = Default::default();
            }
        }
        for row in &mut rows {
            row.state = RowState::Sealed;
        }
        let edit = |manifest: &mut Manifest| {
            manifest.closed = false;
            manifest.rows = rows;
            give_up_prepared(manifest);
            manifest.truncation_epoch = manifest.truncation_epoch.saturating_add(1);
            // What comes there next has not been compacted.
            manifest.compacted_to = manifest.compacted_to.min(end);
            manifest.last_append_time = manifest.last_append_time.max(last_at);
        };
        // What stays is durable.
        self.segments.change_and(None, (Takes::Back(end), end), edit, settle)?;
        self.forget_active();
        Ok(())
    }

    /// Starts the log at `start`, which lies in it.
    pub(crate) fn delete_before(&mut self, start: Offset, durable: Offset) -> Result<(), Failure> {
        let mut rows = self.rows();
        rows.retain(|row| row.end_offset > start || row.state == RowState::Active);
        let before = self.segments.state();
        let edit = |manifest: &mut Manifest| {
            if let (Some(row), Some(stated)) = (rows.last_mut(), before.manifest.rows.last())
                && row.state == RowState::Active
                && row.end_offset > durable
            {
                // Only what is durable may be stated.
                *row = *stated;
            }
            manifest.closed = false;
            manifest.rows = rows;
            manifest.start_offset = start;
        };
        self.segments.change_and(before.active.clone(), (Takes::Front, durable), edit, || {})
    }

    /// Empties the log; it goes on at `start`.
    pub(crate) fn begin_at(
        &mut self,
        start: Offset,
        last_at: Timestamp,
        settle: impl FnOnce(),
    ) -> Result<(), Failure> {
        let edit = |manifest: &mut Manifest| {
            manifest.closed = false;
            manifest.rows.clear();
            give_up_prepared(manifest);
            manifest.start_offset = start;
            manifest.last_append_time = manifest.last_append_time.max(last_at);
        };
        self.segments.change_and(None, (Takes::Front, start), edit, settle)?;
        self.forget_active();
        Ok(())
    }

    /// Changes the rows of sealed segments, those below `durable` among them.
    pub(crate) fn edit_sealed(
        &mut self,
        durable: Offset,
        edit: impl FnOnce(&mut Manifest) -> bool,
    ) -> Result<bool, Failure> {
        let state = self.segments.state();
        let mut manifest = state.manifest.clone();
        manifest.closed = false;
        seal_durable(&mut manifest, durable);
        if !edit(&mut manifest) {
            return Ok(false);
        }
        self.segments.change(state.active.clone(), durable, |current| *current = manifest)?;
        Ok(true)
    }

    /// The rows of all segments as they are now.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = self.segments.state().manifest.rows.clone();
        if let (Some(row), Some(active)) = (rows.last_mut(), &self.active) {
            *row = active.row(RowState::Active);
        }
        rows
    }

    /// Where the row of the active segment is noted after each write.
    pub(crate) fn noted(&self) -> Arc<Mutex<Option<Row>>> {
        Arc::clone(&self.noted)
    }

    /// Append time of the last record that is written.
    pub(crate) fn last_record_at(&self) -> Timestamp {
        Row::last_record_at(&self.rows())
    }

    fn cut_at(&self, row: &Row, end: Offset) -> Result<Cut, Failure> {
        let segment = self.segments.open(&self.segments.state(), row).map_err(Failure::Refused)?;
        segment::cut_at(&segment, row, end).map_err(Failure::Refused)
    }

    fn forget_active(&mut self) {
        self.active = None;
        self.unsynced.clear();
        self.residue = 0;
        self.cuts += 1;
    }
}

/// What comes behind a cut gets ids above those of all that was there.
fn give_up_prepared(manifest: &mut Manifest) {
    if !Bug::PreparedOutlivesCut.is_on() {
        manifest.prepared.clear();
    }
}
