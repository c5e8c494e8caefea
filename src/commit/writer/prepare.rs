//! Preparing the next segments, and beginning one of them.
//!
//! What takes syncs is done ahead, while no append waits for it: files are made, empty, and one
//! manifest names them and states what has become of those it named before. Nothing depends on
//! it: where it cannot be done, a roll takes its syncs itself.

use crate::commit::writer::Writer;
use crate::commit::writer::end_active;
use crate::commit::writer::seal_durable;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Failure;
use crate::format::manifest::Manifest;
use crate::format::manifest::Prepared;
use crate::format::manifest::RowState;
use crate::format::names;
use crate::segment::Active;
use crate::segment::NewSegment;
use crate::units::Offset;
use std::sync::Arc;

/// How many segments are ready at a time: appends can fill more than one while a large sync keeps
/// all small ones waiting.
const AHEAD: usize = 3;

impl Writer {
    /// Whether to call somebody to prepare segments; once for each of them.
    pub(crate) fn calls_to_prepare(&mut self) -> bool {
        let active = self.active.as_ref().map(|active| active.segment().id());
        let calls = self.called_at != active && (self.is_half_full() || self.has_begun());
        if calls {
            self.called_at = active;
        }
        calls
    }

    /// How many segments to prepare, if there is anything to write down at all.
    pub(crate) fn to_prepare(&self, durable: Offset) -> Option<usize> {
        let state = self.segments.state();
        let mut count = 0;
        if self.has_tried && (self.is_half_full() || self.has_begun()) {
            let id = self.active.as_ref().map_or(0, |active| active.segment().id());
            let ready = state.manifest.prepared.iter().filter(|ready| ready.segment_id > id);
            count = AHEAD.saturating_sub(ready.count());
        }
        (count > 0 || state.has_news(durable)).then_some(count)
    }

    /// Makes the files of `new` and a manifest that names them. If it is refused, nothing of it
    /// has happened.
    pub(crate) fn prepare(&mut self, new: &[Prepared], durable: Offset) -> Result<(), Failure> {
        self.segments.prove(durable)?;
        let prepared = self.try_to_prepare(new, durable);
        if let Err(Failure::Refused(_)) = prepared {
            for segment in new {
                // A file that cannot be removed is garbage that the next open removes.
                drop(self.segments.dir().remove(&names::prepared(segment.segment_id)));
            }
        }
        prepared
    }

    fn try_to_prepare(&self, new: &[Prepared], durable: Offset) -> Result<(), Failure> {
        for segment in new {
            let made = self.segments.dir().create_anew(&names::prepared(segment.segment_id));
            made.map_err(Failure::Refused)?;
        }
        let active = self.segments.state().active.clone();
        self.segments.change(active, durable, |manifest: &mut Manifest| {
            manifest.closed = false;
            seal_durable(manifest, durable);
            for segment in new {
                manifest.next_segment_id = manifest.next_segment_id.max(segment.segment_id + 1);
            }
            manifest.prepared.extend(new);
        })
    }

    /// Whether a segment is prepared. If those before it are not durable it is now: a manifest
    /// cannot give it a row before them.
    pub(super) fn is_prepared(
        &mut self,
        new: NewSegment,
        durable: Offset,
    ) -> Result<bool, Failure> {
        if !self.is_named(new) && self.segments.state().has_unproven(durable) {
            let NewSegment { segment_id, seed, .. } = new;
            self.prepare(&[Prepared { segment_id, seed }], durable)?;
            if !self.is_named(new) {
                let what = "a bug: the segment to be begun was passed over";
                let path = self.segments.dir().path();
                return Err(Failure::Broken(Error::new(ErrorKind::Io, what).with_path(path)));
            }
        }
        Ok(self.is_named(new))
    }

    /// Whether a durable manifest calls it prepared.
    fn is_named(&self, new: NewSegment) -> bool {
        let state = self.segments.state();
        state.manifest.prepared.iter().any(|ready| ready.segment_id == new.segment_id)
    }

    /// Begins a prepared segment. Takes no sync.
    pub(super) fn begin(&mut self, new: NewSegment, durable: Offset) -> Result<(), Failure> {
        let ended = self.end_row(durable)?;
        let state = self.segments.state();
        let previous = ended.as_ref().or(state.manifest.rows.last());
        let dir = self.segments.dir();
        let next = Active::begin(dir, new, previous, state.manifest.log_id, self.reading);
        let next = next.map_err(|error| match error.kind() {
            ErrorKind::StorageFull => Failure::Refused(error),
            _ => Failure::Broken(error),
        })?;
        self.segments.begin(Arc::clone(next.segment()), |manifest| {
            end_active(manifest, ended, durable);
            manifest.rows.push(next.row(RowState::Active));
        });
        self.end();
        self.active = Some(next);
        Ok(())
    }

    fn is_half_full(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.position() >= self.segment_bytes / 2)
    }

    fn has_begun(&self) -> bool {
        !self.segments.state().begun.is_empty()
    }
}
