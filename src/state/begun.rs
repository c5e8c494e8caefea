//! Segments that were prepared, from the manifest that names them ahead to the one that calls them
//! begun.
//!
//! A roll takes no sync: the next segment's file is there, has a durable name, and a durable
//! manifest calls it prepared. Beginning it changes what is in memory; the next manifest that is
//! written for any reason states what has become of it.
//!
//! The crash argument. A durable manifest that calls a segment prepared was written before that was
//! begun, since every later one states it as it is then. So what may lie behind the last row of a
//! manifest are the segments that it calls prepared, and recovery looks at all of them: one that
//! was begun has a header that says where, and all that was acknowledged in it was synced with that
//! header. A manifest that gives a begun segment a row of its own relies on its header: it says so
//! only when a record of the segment is durable, which the same sync made its header.
//!
//! Who looks from outside finds begun segments by the same headers: readers in other processes in
//! `follow/begun.rs`, who verifies or repairs the log in `tools/begun.rs`.

use crate::bugs::Bug;
use crate::format::manifest::Manifest;
use crate::format::manifest::Prepared;
use crate::format::manifest::RowState;
use crate::format::names;
use crate::segment::Segment;
use crate::state::Proof;
use crate::state::Segments;
use crate::state::State;
use crate::units::Offset;
use std::sync::Arc;

impl State {
    /// Whether a segment was begun of which no record is durable.
    pub(crate) fn has_unproven(&self, durable: Offset) -> bool {
        !stated(&self.manifest, &self.begun, durable).1.is_empty()
    }

    /// Whether the next manifest can give a begun segment a row.
    pub(crate) fn has_news(&self, durable: Offset) -> bool {
        stated(&self.manifest, &self.begun, durable).1.len() < self.begun.len()
    }
}

impl Segments {
    /// Begins a prepared segment, in memory: `edit` gives it a row, and the one before its end.
    pub(crate) fn begin(&self, active: Arc<Segment>, edit: impl FnOnce(&mut Manifest)) {
        let _changing = self.changing.lock();
        let before = self.state();
        let mut manifest = before.manifest.clone();
        edit(&mut manifest);
        let mut begun = before.begun.clone();
        let is_it = |prepared: &Prepared| prepared.segment_id == active.id();
        begun.extend(manifest.prepared.iter().copied().find(is_it));
        manifest.prepared.retain(|prepared| !is_it(prepared));
        let (proof, changes) = (Proof::Durable, before.changes);
        let after = Arc::new(State { manifest, active: Some(active), proof, begun, changes });
        *self.state.write() = Arc::clone(&after);
        self.let_go(&before, &after);
    }
}

/// The manifest as it may be written, and the segments it calls prepared although they were begun:
/// those of which no record is durable.
pub(super) fn stated(
    manifest: &Manifest,
    begun: &[Prepared],
    durable: Offset,
) -> (Manifest, Vec<Prepared>) {
    let mut stated = manifest.clone();
    let mut left = Vec::new();
    while let Some(row) = stated.rows.last().filter(|row| row.base_offset >= durable)
        && let Some(prepared) = begun.iter().find(|begun| begun.segment_id == row.segment_id)
        && !Bug::BegunTooSoon.is_on()
    {
        left.insert(0, *prepared);
        stated.rows.pop();
    }
    stated.prepared.splice(0..0, left.iter().copied());
    (stated, left)
}

/// Prepared segments are begun in the order of their ids: what lies before one that was is never
/// begun any more.
pub(super) fn forget_passed(manifest: &mut Manifest) {
    if let Some(active) = manifest.rows.last().filter(|row| row.state == RowState::Active) {
        manifest.prepared.retain(|prepared| prepared.segment_id > active.segment_id);
    }
}

/// The files of segments that were prepared, are not any more, and were not begun.
pub(super) fn given_up(before: &State, after: &State) -> Vec<String> {
    let prepared = before.manifest.prepared.iter();
    let is_given_up = |prepared: &&Prepared| {
        let stays = after.manifest.prepared.iter().chain(&after.begun);
        let rows = after.manifest.rows.iter().map(|row| row.segment_id);
        let mut ids = stays.map(|stays| stays.segment_id).chain(rows);
        !ids.any(|id| id == prepared.segment_id)
    };
    prepared.filter(is_given_up).map(|prepared| names::prepared(prepared.segment_id)).collect()
}
