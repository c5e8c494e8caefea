//! The list of segments: one immutable value at a time, and the one function that replaces it.
//!
//! # Invariants
//!
//! - Readers hold a [`State`] and never see half a change.
//! - Every structural change goes through [`Segments::change`]: copy the manifest, edit the copy,
//!   persist it, publish it. What is published is durable.
//! - At most [`OPEN_MAX`] sealed segments are kept open for readers to come; those that readers
//!   hold stay open until they let go.

mod anew;
mod cuts;
mod leftovers;
mod recover;
mod report;
mod shown;

pub(crate) use anew::write_anew;
pub(crate) use recover::Recovered;
pub(crate) use recover::extend;
pub(crate) use recover::recover;
pub(crate) use report::Found;
pub use report::Recovery;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Failure;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::manifest::Origin;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::format::names;
use crate::manifest;
use crate::options::ReadMode;
use crate::segment::Segment;
use crate::state::cuts::Cuts;
use crate::storage::Dir;
use crate::sync::AtomicU64;
use crate::sync::Mutex;
use crate::sync::RwLock;
use crate::units::Offset;
use crate::units::Timestamp;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How many sealed segments stay open after their readers have gone: each is a file, a map and an
/// index of up to a 256th of its size.
const OPEN_MAX: usize = 64;

/// Whether the manifest is known to be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    Durable,
    /// It was found, and could not be replaced for want of space. The sync that should have made it
    /// durable may have failed in a process that is gone: it must be replaced before anything
    /// that it names is relied on.
    None,
}

/// What the log consists of, at one moment.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) manifest: Manifest,
    /// The segment of the manifest's active row.
    pub(crate) active: Option<Arc<Segment>>,
    pub(crate) proof: Proof,
    /// How often the manifest has been replaced since the log was opened.
    pub(crate) changes: u64,
}

impl State {
    /// The last row that begins at or before `offset`.
    fn row_for(&self, offset: Offset) -> Option<&Row> {
        let rows = &self.manifest.rows;
        let after = rows.partition_point(|row| row.base_offset <= offset);
        rows.get(after.checked_sub(1)?)
    }

    fn is_active(&self, id: u64) -> bool {
        self.active.as_ref().is_some_and(|active| active.id() == id)
    }

    /// The rows that can have records appended at or after `time`. One by one: rows that compaction
    /// has left without records have no times to be in order.
    pub(crate) fn rows_since(&self, time: Timestamp) -> impl Iterator<Item = &Row> {
        self.manifest.rows.iter().filter(move |row| {
            row.state == RowState::Active || (row.record_count > 0 && row.last_appended_at >= time)
        })
    }
}

/// The segments of a log.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: Dir,
    read_mode: ReadMode,
    state: RwLock<Arc<State>>,
    /// Held while a change is made, so that changes come one after the other.
    changing: Mutex<Cuts>,
    /// The count of cuts: a copy for readers, who look at every record.
    cuts: AtomicU64,
    /// Sealed segments that were read lately, the latest first.
    open: Mutex<VecDeque<Arc<Segment>>>,
    /// Files that no manifest names any more.
    garbage: Mutex<Garbage>,
}

/// Files that no manifest names any more, and how many need that they stay.
#[derive(Debug, Default)]
struct Garbage {
    names: Vec<String>,
    pins: usize,
}

/// While it is there no file goes that [`Segments::state`] names afterwards.
#[derive(Debug)]
pub(crate) struct Pin<'a>(&'a Segments);

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.0.garbage.lock().pins -= 1;
    }
}

/// What a structural change takes away from readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Nothing,
    /// Records at the front.
    Front,
    /// All records from this offset on.
    Back(Offset),
}

impl Segments {
    pub(crate) fn new(dir: Dir, read_mode: ReadMode, state: State) -> Self {
        Self {
            dir,
            read_mode,
            state: RwLock::new(Arc::new(state)),
            changing: Mutex::default(),
            cuts: AtomicU64::new(0),
            open: Mutex::default(),
            garbage: Mutex::default(),
        }
    }

    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read())
    }

    pub(crate) fn start_offset(&self) -> Offset {
        self.state.read().manifest.start_offset
    }

    /// Makes a structural change: persists the edited manifest, then publishes it with `active`.
    pub(crate) fn change(
        &self,
        active: Option<Arc<Segment>>,
        edit: impl FnOnce(&mut Manifest),
    ) -> Result<(), Failure> {
        self.change_and(active, Takes::Nothing, edit, || {})
    }

    /// As [`change`](Segments::change); `settle` does what belongs to it, before readers who find
    /// nothing where they look conclude anything from that.
    pub(crate) fn change_and(
        &self,
        active: Option<Arc<Segment>>,
        takes: Takes,
        edit: impl FnOnce(&mut Manifest),
        settle: impl FnOnce(),
    ) -> Result<(), Failure> {
        let mut changing = self.changing.lock();
        let before = self.state();
        let mut manifest = before.manifest.clone();
        edit(&mut manifest);
        // A checkpoint that is changed is one no longer.
        manifest.origin = Origin::Log;
        manifest::replace(&self.dir, &manifest)?;
        let changes = before.changes + 1;
        let after = Arc::new(State { manifest, active, proof: Proof::Durable, changes });
        self.publish(&mut changing, (&before, &after), takes, settle);
        Ok(())
    }

    /// Takes over what a writer in another process has made of the log; nothing is persisted.
    pub(crate) fn follow(
        &self,
        manifest: Manifest,
        active: Option<Arc<Segment>>,
        takes: Takes,
        settle: impl FnOnce(),
    ) {
        let mut changing = self.changing.lock();
        let before = self.state();
        let changes = before.changes + 1;
        let after = Arc::new(State { manifest, active, proof: Proof::None, changes });
        self.publish(&mut changing, (&before, &after), takes, settle);
        // The files are the writer's.
        self.garbage.lock().names.clear();
    }

    fn publish(
        &self,
        changing: &mut Cuts,
        (before, after): (&State, &Arc<State>),
        takes: Takes,
        settle: impl FnOnce(),
    ) {
        if takes != Takes::Nothing {
            self.cuts.store(changing.begin(), Ordering::Release);
        }
        *self.state.write() = Arc::clone(after);
        self.let_go(before, after);
        settle();
        let truncated_to = match takes {
            Takes::Nothing => return,
            Takes::Front => None,
            Takes::Back(end) => Some(end),
        };
        self.cuts.store(changing.settle(truncated_to), Ordering::Release);
    }

    /// Makes sure that the manifest is durable.
    pub(crate) fn prove(&self) -> Result<(), Failure> {
        let state = self.state();
        match state.proof {
            Proof::Durable => Ok(()),
            Proof::None => self.change(state.active.clone(), |_| {}),
        }
    }

    /// Keeps open what readers will look for, and lets go of what has gone.
    fn let_go(&self, before: &State, after: &State) {
        if let Some(ended) = before.active.as_ref().filter(|ended| !after.is_active(ended.id())) {
            self.keep_open(Arc::clone(ended));
        }
        let rows = after.manifest.rows.iter();
        let ends: HashMap<_, _> = rows.map(|row| (row.segment_id, row.end_offset)).collect();
        let stays = |kept: &Arc<Segment>| ends.get(&kept.id()) == Some(&kept.end_offset());
        let mut open = self.open.lock();
        let (kept, gone) = std::mem::take(&mut *open).into_iter().partition(stays);
        *open = kept;
        drop(open);
        // Files are closed outside the lock.
        drop::<VecDeque<_>>(gone);
        let gone = before.manifest.rows.iter().filter(|row| !ends.contains_key(&row.segment_id));
        self.garbage.lock().names.extend(gone.flat_map(|row| {
            let (base_offset, id) = (row.base_offset, row.segment_id);
            [names::segment(base_offset, id), names::index(base_offset, id)]
        }));
    }

    /// Files to be removed as soon as the manifest is durable.
    pub(crate) fn with_garbage(self, garbage: Vec<String>) -> Self {
        Self { garbage: Mutex::new(Garbage { names: garbage, pins: 0 }), ..self }
    }

    /// Removes the files of segments that are gone. What cannot be removed is garbage for the next
    /// open.
    pub(crate) fn remove_garbage(&self) -> Result<()> {
        if self.state().proof == Proof::None {
            return Ok(());
        }
        let garbage = {
            let mut garbage = self.garbage.lock();
            if garbage.pins > 0 {
                return Ok(());
            }
            std::mem::take(&mut garbage.names)
        };
        let removed = garbage.iter().map(|name| self.dir.remove(name));
        removed.fold(Ok(()), Result::and)
    }

    /// Keeps the files of all segments that the state names from now on, until it is dropped.
    pub(crate) fn pin(&self) -> Pin<'_> {
        self.garbage.lock().pins += 1;
        Pin(self)
    }

    /// A count that goes up with each cut; who finds another than when it last looked asks what
    /// was taken.
    #[inline]
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    /// The count of cuts when none is under way, which is even.
    pub(crate) fn settled_cuts(&self) -> u64 {
        match self.cuts() {
            cuts if cuts.is_multiple_of(2) => cuts,
            _ => self.changing.lock().count(),
        }
    }

    /// Waits until a change that is under way has settled; gives the count of cuts, and the lowest
    /// end the log had since it was `seen`.
    pub(crate) fn cuts_since(&self, seen: u64) -> (u64, Option<Offset>) {
        let changing = self.changing.lock();
        (changing.count(), changing.lowest_end_since(seen))
    }

    /// The segment that holds `offset`, or will: the last one that begins at or before it. `None`
    /// if the log has no segment there.
    pub(crate) fn find(&self, offset: Offset) -> Result<Option<Arc<Segment>>> {
        loop {
            let state = self.state();
            let Some(row) = state.row_for(offset) else { return Ok(None) };
            match self.open(&state, row) {
                // It was removed between the two.
                Err(_) if !Arc::ptr_eq(&state, &self.state()) => {}
                opened => return opened.map(Some),
            }
        }
    }

    /// The segment of a row.
    pub(crate) fn open(&self, state: &State, row: &Row) -> Result<Arc<Segment>> {
        let id = row.segment_id;
        if let Some(active) = state.active.as_ref().filter(|active| active.id() == id) {
            return Ok(Arc::clone(active));
        }
        if let Some(segment) = self.kept_open(row) {
            return Ok(segment);
        }
        let segment = Segment::open(&self.dir, row, state.manifest.log_id, self.read_mode);
        // None of its records can be read, whatever is behind a header that is not its own.
        let segment = segment.map_err(|error| match error.kind() {
            ErrorKind::Corrupt | ErrorKind::UnsupportedVersion => {
                error.with_readable_from(row.end_offset)
            }
            _ => error,
        })?;
        let segment = Arc::new(segment);
        self.keep_open(Arc::clone(&segment));
        Ok(segment)
    }

    /// Not one of the same id that ends elsewhere: a reader may have kept it open while the log was
    /// cut.
    fn kept_open(&self, row: &Row) -> Option<Arc<Segment>> {
        let mut open = self.open.lock();
        let is_meant = |segment: &Arc<Segment>| {
            (segment.id(), segment.end_offset()) == (row.segment_id, row.end_offset)
        };
        let place = open.iter().position(is_meant)?;
        if place > 0 {
            let segment = open.remove(place)?;
            open.push_front(segment);
        }
        open.front().cloned()
    }

    /// Keeps a segment open for those who look for it.
    pub(crate) fn keep_open(&self, segment: Arc<Segment>) {
        let mut open = self.open.lock();
        open.push_front(segment);
        let dropped = if open.len() > OPEN_MAX { open.pop_back() } else { None };
        // A file is closed outside the lock.
        drop(open);
        drop(dropped);
    }
}

/// The offset inside a log that is nearest to another. While a log jumps its end is seen before
/// its start for a moment.
pub(crate) fn nearest(offset: Offset, log: (Offset, Offset)) -> Offset {
    let (start, end) = log;
    offset.clamp(start, end.max(start))
}

/// The error for an offset outside the log; `nearest` is the one inside.
pub(crate) fn out_of_range(offset: Offset, nearest: Offset, log: (Offset, Offset)) -> Error {
    let (start, end) = log;
    let what = format!("offset {offset} is outside the log, which goes from {start} to {end}");
    Error::new(ErrorKind::OutOfRange, what).with_offset(nearest)
}
