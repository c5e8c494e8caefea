//! The writer: takes chunks to their segment files, and begins the next segment where one is full.
//!
//! The crash argument of a roll. Nearly always the next segment was prepared (`prepare.rs`), and a
//! roll waits for no sync; `state/begun.rs` says why that is safe. Else, in this order: the new
//! file gets its header and is synced; the directory is synced; the manifest that names it, and
//! states the end of the old segment, is replaced durably; only then frames go into it. So a crash
//! finds the old manifest, and an unnamed file without frames, which is garbage; or the new one,
//! and a file with a sound header. The old segment need not be durable by then: the manifest calls
//! it "written", and recovery looks at it again.
//!
//! # Invariants
//!
//! - One thread at a time is here, and no other writes to segment files.
//! - A failed write leaves nothing behind the end that could be taken for frames, or nobody ever
//!   writes again.

mod cut;
mod prepare;

use crate::bugs::Bug;
use crate::commit::bell::Bell;
use crate::commit::bell::Urgency;
use crate::commit::chunk::Chunk;
use crate::commit::tail::Place;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Failure;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::format::names;
use crate::segment::Active;
use crate::segment::NewSegment;
use crate::segment::Reading;
use crate::state::Segments;
use crate::storage::Handle;
use crate::sync::Mutex;
use crate::units::Offset;
use std::sync::Arc;

/// Writes of fewer bytes than this, on behalf of a sync, are small: the file is zeroed ahead.
const SMALL_WRITE_BYTES: usize = 64 << 10;

/// Why a chunk is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To make room in memory, or to hand it to the operating system.
    Write,
    /// To be synced at once.
    Sync,
}

#[derive(Debug)]
pub(crate) struct Writer {
    segments: Arc<Segments>,
    reading: Reading,
    segment_bytes: u64,
    active: Option<Active>,
    /// Segments that ended and are not known to be durable, oldest first, with their ends.
    unsynced: Vec<(Handle, Offset)>,
    /// Bytes that the write that failed last may have left behind the end.
    residue: usize,
    /// How often the log was cut back or emptied.
    cuts: u64,
    /// Called when segments have come or gone.
    keeper: Arc<Bell>,
    /// Whether anything was to be written. Also what is refused leaves its traces: zeros ahead of
    /// it, or a new length that is not synced.
    has_tried: bool,
    /// The row of the active segment after the last write, for those who must not wait for a write.
    noted: Arc<Mutex<Option<Row>>>,
    /// The active segment when somebody was called last to prepare the next ones.
    called_at: Option<u64>,
}

/// What a sync has to cover so that everything below `end` is durable.
#[derive(Debug)]
pub(crate) struct SyncTarget {
    pub(crate) files: Vec<Handle>,
    pub(crate) end: Offset,
    /// How often the log had been cut.
    pub(crate) cuts: u64,
}

impl Writer {
    pub(crate) fn new(
        segments: Arc<Segments>,
        reading: Reading,
        segment_bytes: u64,
        active: Option<Active>,
    ) -> Self {
        let noted = active.as_ref().map(|active| active.row(RowState::Active));
        Self {
            segments,
            reading,
            segment_bytes,
            active,
            noted: Arc::new(Mutex::new(noted)),
            unsynced: Vec::new(),
            residue: 0,
            has_tried: false,
            called_at: None,
            cuts: 0,
            keeper: Arc::default(),
        }
    }

    /// Calls `keeper` when segments have come or gone.
    pub(crate) fn with_keeper(self, keeper: Arc<Bell>) -> Self {
        Self { keeper, ..self }
    }

    pub(crate) fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    /// Where the next frame goes if nothing is pending.
    pub(crate) fn place(&self) -> Option<Place> {
        self.active.as_ref().map(|active| Place {
            segment: NewSegment {
                segment_id: active.segment().id(),
                seed: active.segment().seed(),
                base_offset: active.segment().base_offset(),
            },
            position: active.position(),
            first_at: active.first_at(),
        })
    }

    /// Writes a chunk to its segment, which is begun if the chunk is its first.
    pub(crate) fn write(
        &mut self,
        chunk: &Chunk,
        purpose: Purpose,
        durable: Offset,
    ) -> Result<(), Failure> {
        self.residue = 0;
        self.has_tried = true;
        self.segments.prove(durable)?;
        let begins = self
            .active
            .as_ref()
            .is_none_or(|active| active.segment().id() != chunk.segment.segment_id);
        if begins {
            self.roll(chunk.segment, durable)?;
        }
        let Some(active) = self.active.as_mut() else {
            return Err(Failure::Broken(Error::new(ErrorKind::Io, "no segment to write to")));
        };
        if purpose == Purpose::Sync && chunk.bytes.len() < SMALL_WRITE_BYTES {
            active.zero_ahead(chunk.bytes.len() as u64, self.segment_bytes);
        }
        match active.write(&chunk.bytes, chunk.notes()) {
            Ok(()) => {
                *self.noted.lock() = Some(active.row(RowState::Active));
                Ok(())
            }
            Err(partial) if partial.error.kind() == ErrorKind::StorageFull => {
                self.residue = partial.written;
                Err(Failure::Refused(partial.error))
            }
            Err(partial) => Err(Failure::Broken(partial.error)),
        }
    }

    /// Removes what the write that failed last may have left in the file.
    pub(crate) fn erase_residue(&mut self) -> Result<()> {
        let residue = std::mem::take(&mut self.residue);
        match &self.active {
            Some(active) if residue > 0 => active.erase(residue),
            _ => Ok(()),
        }
    }

    /// What to sync for everything that is written to be durable.
    pub(crate) fn sync_target(&mut self, durable: Offset) -> SyncTarget {
        self.unsynced.retain(|(_, end)| *end > durable);
        let ended = self.unsynced.iter().filter(|_| !Bug::OldSegmentLeftOut.is_on());
        let mut files: Vec<_> = ended.map(|(file, _)| file.clone()).collect();
        let mut end = self.unsynced.last().map_or(durable, |(_, end)| *end);
        if let Some(active) = self.active.as_ref().filter(|active| active.end_offset() > durable) {
            files.push(active.segment().handle().clone());
            end = active.end_offset();
        }
        SyncTarget { files, end, cuts: self.cuts }
    }

    /// Ends the active segment, if it has records; the next chunk begins one.
    pub(crate) fn seal(&mut self, durable: Offset) -> Result<(), Failure> {
        let Some(active) = self.active.as_mut().filter(|active| active.first_at().is_some()) else {
            return Ok(());
        };
        active.seal().map_err(Failure::Refused)?;
        let ended = ended_row(active, durable);
        let edit = |manifest: &mut Manifest| end_active(manifest, Some(ended), durable);
        self.segments.change(None, durable, edit)?;
        self.end();
        Ok(())
    }

    /// Marks the log as closed: all is durable, and nothing needs to be scanned next time.
    pub(crate) fn close(&mut self, durable: Offset) -> Result<(), Failure> {
        let state = self.segments.state();
        if state.manifest.closed && !self.has_tried {
            return Ok(());
        }
        // One that was begun and got no record has no header, and needs none.
        let is_begun = |id| state.begun.iter().any(|begun| begun.segment_id == id);
        self.active
            .take_if(|active| active.first_at().is_none() && is_begun(active.segment().id()));
        let row = self.active.as_ref().map(|active| active.row(RowState::Active));
        if let Some(active) = &mut self.active {
            active.seal().map_err(Failure::Refused)?;
            // A power cut that took back the new length would leave a log that was closed and has
            // to be recovered all the same.
            active.segment().handle().sync().map_err(Failure::Broken)?;
        }
        let segment = self.active.as_ref().map(|active| Arc::clone(active.segment()));
        self.segments.change(segment, durable, |manifest| {
            end_active(manifest, row, durable);
            manifest.closed = true;
            manifest.prepared.clear();
        })
    }

    fn roll(&mut self, new: NewSegment, durable: Offset) -> Result<(), Failure> {
        let state = self.segments.state();
        if state.manifest.rows.iter().any(|row| row.segment_id == new.segment_id) {
            // Making it anew would remove a file with records.
            let what = "a bug: the segment to be begun is there already";
            let path = self.segments.dir().path();
            return Err(Failure::Broken(Error::new(ErrorKind::Io, what).with_path(path)));
        }
        let is_empty = self.active.as_ref().is_some_and(|active| active.first_at().is_none());
        // The row of an empty one goes, and that takes a manifest.
        if !is_empty && self.is_prepared(new, durable)? {
            return self.begin(new, durable);
        }
        let ended = self.end_row(durable)?;
        let state = self.segments.state();
        let previous = ended.as_ref().or(state.manifest.rows.last());
        let (dir, log_id) = (self.segments.dir(), state.manifest.log_id);
        let name = names::segment(new.base_offset, new.segment_id);
        // A file that cannot be removed is garbage that the next open removes.
        let discard = |error| {
            drop(dir.remove(&name));
            Failure::Refused(error)
        };
        let next = Active::create(dir, new, previous, log_id, self.reading).map_err(discard)?;
        let segment = Arc::clone(next.segment());
        let changed = self.segments.change(Some(segment), durable, |manifest| {
            end_active(manifest, ended, durable);
            manifest.rows.push(next.row(RowState::Active));
            manifest.prepared.retain(|prepared| prepared.segment_id != new.segment_id);
            let next_id = new.segment_id + u64::from(!Bug::IdReused.is_on());
            manifest.next_segment_id = manifest.next_segment_id.max(next_id);
        });
        if let Err(Failure::Refused(error)) = changed {
            return Err(discard(error));
        }
        Bug::ManifestFailureIgnored.forgives(changed)?;
        self.end();
        self.active = Some(next);
        Ok(())
    }

    /// The row of the active segment when the next one begins; none if it has no records.
    fn end_row(&mut self, durable: Offset) -> Result<Option<Row>, Failure> {
        let active = self.active.as_mut().filter(|active| active.first_at().is_some());
        let Some(active) = active else { return Ok(None) };
        active.seal().map_err(Failure::Refused)?;
        Ok(Some(ended_row(active, durable)))
    }

    /// Lets go of the active segment, whose bytes may not be durable yet.
    fn end(&mut self) {
        self.keeper.call(Urgency::Soon);
        if let Some(active) = self.active.take() {
            self.unsynced.retain(|_| !Bug::OneOldSegment.is_on());
            self.unsynced.push((active.segment().handle().clone(), active.end_offset()));
        }
    }
}

fn ended_row(active: &Active, durable: Offset) -> Row {
    let durable = active.end_offset() <= durable || Bug::EndedIsSealed.is_on();
    active.row(if durable { RowState::Sealed } else { RowState::Written })
}

/// Puts `ended` in the place of the active row (without one an active row had no records and goes),
/// and calls sealed what has become durable.
fn end_active(manifest: &mut Manifest, ended: Option<Row>, durable: Offset) {
    manifest.closed = false;
    if let Some(row) = &ended {
        manifest.last_append_time = manifest.last_append_time.max(row.last_appended_at);
    }
    if manifest.rows.last().is_some_and(|row| row.state == RowState::Active) {
        manifest.rows.pop();
        manifest.rows.extend(ended);
    }
    seal_durable(manifest, durable);
}

/// Calls sealed what has become durable.
fn seal_durable(manifest: &mut Manifest, durable: Offset) {
    for row in &mut manifest.rows {
        if row.state == RowState::Written && row.end_offset <= durable {
            row.state = RowState::Sealed;
        }
    }
}
