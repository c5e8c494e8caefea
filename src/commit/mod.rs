//! The way of a record into the log: into the tail, to its file, onto the device.
//!
//! Appenders put records into the [`tail`] under one short lock. Whoever needs them written takes
//! the [`writer`]; whoever needs them durable joins the [`group`], one of which syncs for all.
//!
//! # Invariants
//!
//! - No I/O while the front is locked. Locks are taken in the order writer, syncing, front.
//! - An append returns success only when its level is reached; a sync that failed is never tried
//!   again, and after it nothing is ever acknowledged.

mod append;
mod bell;
mod board;
mod chunk;
mod counters;
mod cut;
mod flow;
mod frames;
mod front;
mod group;
#[cfg(all(test, loom))]
mod models;
mod snapshot;
mod swap;
mod tail;
mod turn;
mod waiters;
mod watermarks;
mod writer;

pub(crate) use append::Encoded;
pub(crate) use bell::Bell;
pub(crate) use bell::Post;
pub(crate) use bell::Urgency;
pub(crate) use board::Board;
pub(crate) use board::LATE_MAX;
pub(crate) use counters::Counters;
pub(crate) use front::Settings;
pub(crate) use group::Watched;
pub(crate) use snapshot::Snapshot;
pub(crate) use tail::Start;
pub(crate) use tail::TailSettings;
pub(crate) use tail::TailSpan;
pub(crate) use turn::Taken;
pub(crate) use waiters::Mark;
pub(crate) use waiters::News;
pub(crate) use waiters::Role;
pub(crate) use waiters::Told;
pub(crate) use waiters::Waiter;
pub(crate) use watermarks::Watermarks;
pub(crate) use writer::Writer;

use crate::bugs::Bug;
use crate::commit::front::Front;
use crate::commit::front::Life;
use crate::commit::tail::Tail;
use crate::commit::turn::Turn;
use crate::commit::writer::Purpose;
use crate::error::Error;
use crate::error::Failure;
use crate::error::Result;
use crate::format::manifest::Row;
use crate::format::notice::NoticeState;
use crate::format::notice::Points;
use crate::state::Segments;
use crate::storage::Clock;
use crate::sync::AtomicUsize;
use crate::sync::Mutex;
use crate::units::Offset;
use crate::units::Timestamp;
use std::sync::Arc;

/// The write side of a log.
#[derive(Debug)]
pub(crate) struct Commit {
    settings: Settings,
    clock: Arc<dyn Clock>,
    bell: Arc<Bell>,
    board: Board,
    segments: Arc<Segments>,
    marks: Watermarks,
    front: Mutex<Front>,
    writer: Mutex<Writer>,
    /// A copy of what the writer knows of the active segment.
    noted: Arc<Mutex<Option<Row>>>,
    /// Held while a segment is synced, until what came of it is known to all: the system tells of
    /// a failure once.
    syncing: Mutex<()>,
    /// How many commits wait for the next sync; a copy for the leader, who looks without the lock.
    committing: AtomicUsize,
    looking: Turn,
}

/// What the write side works with.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) board: Board,
    /// The truncations that the board tells of.
    pub(crate) points: Points,
}

impl Commit {
    pub(crate) fn new(settings: Settings, tools: Tools, start: Start, writer: Writer) -> Self {
        let Tools { clock, bell, board, points } = tools;
        let marks = Watermarks::new(start.end);
        let tail = Tail::new(settings.tail, start, writer.place());
        Self {
            settings,
            clock,
            bell,
            board,
            segments: Arc::clone(writer.segments()),
            marks,
            noted: writer.noted(),
            front: Mutex::new(Front::new(tail, points)),
            writer: Mutex::new(writer),
            syncing: Mutex::new(()),
            committing: AtomicUsize::new(0),
            looking: Turn::new(),
        }
    }

    /// The turn to look at the marks again and again; `None` if another thread does.
    pub(crate) fn turn_to_look(&self) -> Option<Taken<'_>> {
        self.looking.take()
    }

    pub(crate) fn marks(&self) -> &Watermarks {
        &self.marks
    }

    /// What was done, how many bytes of records are not durable yet, and the append time of the
    /// last record.
    pub(crate) fn doings(&self) -> (Counters, u64, Timestamp) {
        let front = self.front.lock();
        (front.counters, front.unsynced_bytes(), front.tail.last_at())
    }

    /// Whether records may be appended.
    pub(crate) fn takes_records(&self) -> bool {
        self.front.lock().life.check().is_ok()
    }

    /// The error that ended appending, if one did.
    pub(crate) fn poison_error(&self) -> Option<Error> {
        match &self.front.lock().life {
            Life::Poisoned(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// The rows of the segments, the active one as it was after a write that came last or is
    /// under way. Waits for no write, sync or roll.
    pub(crate) fn noted_rows(&self, segments: &Segments) -> Vec<Row> {
        // Before the list: of a segment that has ended meanwhile the list knows all.
        let noted = *self.noted.lock();
        let mut rows = segments.state().manifest.rows.clone();
        if let (Some(row), Some(noted)) = (rows.last_mut(), noted)
            && row.is_active()
            && row.segment_id == noted.segment_id
        {
            *row = noted;
        }
        rows
    }

    /// The rows of the segments, the active one as it is now.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.writer.lock().rows()
    }

    /// Ends the active segment; the next record begins another.
    pub(crate) fn roll(&self) -> Result<()> {
        self.sync()?;
        let mut news = News::default();
        let rolled = self.roll_with(&mut self.writer.lock(), &mut news);
        self.post();
        news.tell();
        rolled
    }

    /// The writer is held from the end of the segment in memory to the one on disk: a write that is
    /// refused in between would send later records back to the segment that is being sealed.
    fn roll_with(&self, writer: &mut Writer, news: &mut News) -> Result<()> {
        let until = {
            let mut front = self.front.lock();
            front.life.check()?;
            let no_records = writer.place().is_none_or(|place| place.first_at.is_none());
            if no_records && front.tail.end() == self.marks.written() {
                return Ok(());
            }
            front.tail.end_segment(self.marks.durable());
            front.tail.end()
        };
        self.write_with(writer, until, Purpose::Write, news)?;
        match writer.seal(self.marks.durable()) {
            Ok(()) => Ok(()),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Broken(error)) => Err(self.poison(error, news)),
        }
    }

    /// Refuses further appends, makes all that was accepted durable and marks the log as closed.
    ///
    /// Whatever it returns, no file of the log is changed any more when it does, so that its lock
    /// may go to somebody else. The news are for those who wait for what does not come any more.
    pub(crate) fn close(&self) -> (Result<()>, News) {
        let mut news = News::default();
        let refused = {
            // Not while the log is being cut.
            let _writer = self.writer.lock();
            self.front.lock().life.begin_close()
        };
        let synced = refused.and_then(|()| match Bug::CloseWithoutSync.is_on() {
            true => self.write_out(self.marks.end(), Purpose::Write).map(drop),
            false => self.sync_to_close(&mut news),
        });
        let mut writer = self.writer.lock();
        // Nor synced: a leader looks whether it may once it holds this.
        let syncing = self.syncing.lock();
        // A leader that came before may have failed.
        let synced = synced.and_then(|()| self.front.lock().life.check_writable());
        let synced = Bug::ClosedAfterFailure.forgives(synced);
        let closed =
            synced.and_then(|()| writer.close(self.marks.durable()).map_err(Failure::into_error));
        let mut front = self.front.lock();
        front.life.end_close();
        news.failed(front.waiters.take_all(), &front::closed());
        drop(front);
        drop(syncing);
        drop(writer);
        if closed.is_ok() {
            self.post_as(NoticeState::Closed);
        }
        (closed, news)
    }

    /// Makes durable what was accepted. It does not lead: a leader tells tasks at once, and what
    /// they do, panic for one, is not to come between the steps of closing.
    fn sync_to_close(&self, news: &mut News) -> Result<()> {
        let end = self.marks.end();
        if self.marks.durable() >= end {
            return Ok(());
        }
        let mut writer = self.writer.lock();
        let written = self.write_with(&mut writer, end, Purpose::Sync, news);
        // What was written before is synced, also if the rest is refused.
        let target = writer.sync_target(self.marks.durable());
        drop(writer);
        self.sync_files(&target, news)?;
        written.map(drop)
    }

    /// Copies records that are not written yet, from `offset` to the end of their frame; `None` if
    /// it has been written meanwhile, or is not there.
    pub(crate) fn copy_tail(
        &self,
        offset: Offset,
        hint: Option<(Offset, usize)>,
        out: &mut Vec<u8>,
    ) -> Option<TailSpan> {
        self.front.lock().tail.copy(offset, hint, out)
    }

    /// The base offset of the unwritten frame that covers `offset`.
    pub(crate) fn tail_frame(&self, offset: Offset) -> Option<Offset> {
        self.front.lock().tail.frame_base(offset)
    }

    /// The first unwritten record appended at or after `time`.
    pub(crate) fn tail_since(&self, time: Timestamp) -> Option<Offset> {
        self.front.lock().tail.since(time)
    }
}
