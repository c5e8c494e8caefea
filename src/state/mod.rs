//! The list of segments: one immutable value at a time, and the one function that replaces it.
//!
//! # Invariants
//!
//! - Readers hold a [`State`] and never see half a change.
//! - Every structural change goes through [`Segments::change`]: copy the manifest, edit the copy,
//!   persist it, publish it. What is published is durable.
//! - At most [`OPEN_MAX`] sealed segments are kept open for readers to come; those that readers
//!   hold stay open until they let go.

mod leftovers;
mod recover;
mod report;

pub(crate) use recover::Recovered;
pub(crate) use recover::recover;
pub(crate) use report::Found;
pub use report::Recovery;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Failure;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::manifest;
use crate::options::ReadMode;
use crate::segment::Segment;
use crate::storage::Dir;
use crate::units::Offset;
use crate::units::Timestamp;
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::Arc;

/// How many sealed segments stay open after their readers have gone: each is a file, a map and an
/// index of up to a 256th of its size.
const OPEN_MAX: usize = 64;

/// What the log consists of, at one moment.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) manifest: Manifest,
    /// The segment of the manifest's active row.
    pub(crate) active: Option<Arc<Segment>>,
}

impl State {
    /// The last row that begins at or before `offset`.
    fn row_for(&self, offset: Offset) -> Option<&Row> {
        let rows = &self.manifest.rows;
        let after = rows.partition_point(|row| row.base_offset <= offset);
        rows.get(after.checked_sub(1)?)
    }

    /// The rows that can have records appended at or after `time`.
    pub(crate) fn rows_since(&self, time: Timestamp) -> &[Row] {
        let rows = &self.manifest.rows;
        let before = rows
            .partition_point(|row| row.state != RowState::Active && row.last_appended_at < time);
        rows.get(before..).unwrap_or_default()
    }
}

/// The segments of a log.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: Dir,
    read_mode: ReadMode,
    state: RwLock<Arc<State>>,
    /// Held while a change is made, so that changes come one after the other.
    changing: Mutex<()>,
    /// Sealed segments that were read lately, the latest first.
    open: Mutex<VecDeque<Arc<Segment>>>,
}

impl Segments {
    pub(crate) fn new(dir: Dir, read_mode: ReadMode, state: State) -> Self {
        Self {
            dir,
            read_mode,
            state: RwLock::new(Arc::new(state)),
            changing: Mutex::new(()),
            open: Mutex::new(VecDeque::new()),
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
        let changing = self.changing.lock();
        let before = self.state();
        let mut manifest = before.manifest.clone();
        edit(&mut manifest);
        manifest::replace(&self.dir, &manifest)?;
        if let Some(ended) = before.active.as_ref()
            && active.as_ref().is_none_or(|active| active.id() != ended.id())
        {
            self.keep_open(Arc::clone(ended));
        }
        *self.state.write() = Arc::new(State { manifest, active });
        drop(changing);
        Ok(())
    }

    /// The segment that holds `offset`, or will: the last one that begins at or before it. `None`
    /// if the log has no segment there.
    pub(crate) fn find(&self, offset: Offset) -> Result<Option<Arc<Segment>>> {
        let state = self.state();
        match state.row_for(offset) {
            Some(row) => self.open(&state, row).map(Some),
            None => Ok(None),
        }
    }

    /// The segment of a row.
    pub(crate) fn open(&self, state: &State, row: &Row) -> Result<Arc<Segment>> {
        let id = row.segment_id;
        if let Some(active) = state.active.as_ref().filter(|active| active.id() == id) {
            return Ok(Arc::clone(active));
        }
        if let Some(segment) = self.kept_open(id) {
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

    fn kept_open(&self, id: u64) -> Option<Arc<Segment>> {
        let mut open = self.open.lock();
        let place = open.iter().position(|segment| segment.id() == id)?;
        if place > 0 {
            let segment = open.remove(place)?;
            open.push_front(segment);
        }
        open.front().cloned()
    }

    fn keep_open(&self, segment: Arc<Segment>) {
        let mut open = self.open.lock();
        open.push_front(segment);
        let dropped = if open.len() > OPEN_MAX { open.pop_back() } else { None };
        // A file is closed outside the lock.
        drop(open);
        drop(dropped);
    }
}

/// The error for an offset outside the log; `nearest` is the one inside.
pub(crate) fn out_of_range(offset: Offset, nearest: Offset, log: (Offset, Offset)) -> Error {
    let (start, end) = log;
    let what = format!("offset {offset} is outside the log, which goes from {start} to {end}");
    Error::new(ErrorKind::OutOfRange, what).with_offset(nearest)
}
