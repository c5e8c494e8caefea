//! The way of a record into the log: into the tail, to its file, onto the device.
//!
//! Appenders put records into the [`tail`] under one short lock. Whoever needs them written takes
//! the [`writer`]; whoever needs them durable joins the [`group`], one of which syncs for all.
//!
//! # Invariants
//!
//! - No I/O while the front is locked. Locks are taken in the order writer, front.
//! - An append returns success only when its level is reached; a sync that failed is never tried
//!   again, and after it nothing is ever acknowledged.

mod bell;
mod chunk;
mod front;
mod group;
mod tail;
mod waiters;
mod watermarks;
mod writer;

pub(crate) use bell::Bell;
pub(crate) use bell::Urgency;
pub(crate) use front::Settings;
pub(crate) use tail::Start;
pub(crate) use tail::TailSettings;
pub(crate) use tail::TailSpan;
pub(crate) use waiters::Mark;
pub(crate) use waiters::Role;
pub(crate) use waiters::Told;
pub(crate) use waiters::Waiter;
pub(crate) use watermarks::Watermarks;
pub(crate) use writer::Writer;

use crate::commit::chunk::Chunk;
use crate::commit::front::Front;
use crate::commit::tail::Arrival;
use crate::commit::tail::Tail;
use crate::commit::waiters::fail;
use crate::commit::writer::Purpose;
use crate::commit::writer::SyncTarget;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Failure;
use crate::error::Result;
use crate::format::record;
use crate::options::Durability;
use crate::record::Record;
use crate::storage::Clock;
use crate::units::Offset;
use crate::units::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Records of this encoded length or more are encoded before the lock is taken.
const ENCODE_OUTSIDE_BYTES: u64 = 16 << 10;

/// More than the varint of a time delta can take.
const DELTA_MAX_LEN: usize = 10;

/// The write side of a log.
#[derive(Debug)]
pub(crate) struct Commit {
    settings: Settings,
    clock: Arc<dyn Clock>,
    bell: Arc<Bell>,
    marks: Watermarks,
    front: Mutex<Front>,
    writer: Mutex<Writer>,
    /// How many commits wait for the next sync; a copy for the leader, who looks without the lock.
    committing: AtomicUsize,
}

/// Records encoded before the lock was taken, as the body of a frame with room for its header.
#[derive(Debug)]
pub(crate) struct Encoded {
    bytes: Vec<u8>,
    count: u32,
}

impl Encoded {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; HEADER_ROOM], count: 0 }
    }

    /// Adds a record, unless the whole becomes more than `max_bytes`.
    pub(crate) fn push(&mut self, record: &Record<'_>, max_bytes: u64) -> Result<()> {
        let added = record::encoded_len(record, 0);
        let len = (self.body().len() as u64).saturating_add(added);
        if len > max_bytes {
            return Err(too_large(len, max_bytes));
        }
        record::encode(&mut self.bytes, record, 0);
        self.count += 1;
        Ok(())
    }

    fn body(&self) -> &[u8] {
        self.bytes.get(HEADER_ROOM..).unwrap_or_default()
    }
}

const HEADER_ROOM: usize = crate::format::frame::FRAME_HEADER_LEN;

impl Commit {
    pub(crate) fn new(
        settings: Settings,
        clock: Arc<dyn Clock>,
        bell: Arc<Bell>,
        start: Start,
        writer: Writer,
    ) -> Self {
        let marks = Watermarks::new(start.end);
        let tail = Tail::new(settings.tail, start, writer.place());
        Self {
            settings,
            clock,
            bell,
            marks,
            front: Mutex::new(Front::new(tail)),
            writer: Mutex::new(writer),
            committing: AtomicUsize::new(0),
        }
    }

    pub(crate) fn marks(&self) -> &Watermarks {
        &self.marks
    }

    /// Blocks until everything appended so far is durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.wait_for(self.marks.end(), Mark::Durable)
    }

    /// Appends one record; returns its offset when it has reached `level`.
    pub(crate) fn append(&self, record: &Record<'_>, level: Durability) -> Result<Offset> {
        let len = record::encoded_len(record, 0);
        if len >= ENCODE_OUTSIDE_BYTES {
            let mut encoded = Encoded::new();
            encoded.push(record, self.settings.max_batch_bytes)?;
            return self.append_encoded(encoded, level, None).map(|range| range.start);
        }
        if len > self.settings.max_batch_bytes {
            return Err(too_large(len, self.settings.max_batch_bytes));
        }
        let now = self.clock.now();
        let mut front = self.front_with_room()?;
        let at = front.tail.stamp(now);
        let len = usize::try_from(len).unwrap_or(usize::MAX) + DELTA_MAX_LEN;
        let accepted = level == Durability::Buffered;
        let arrival = Arrival { len, count: 1, at, accepted, encoded: false };
        let offset = front.tail.end();
        let added = match front.tail.push(record, &arrival) {
            Some(added) => {
                if accepted && front.is_calm(self.settings.sync_early_bytes()) {
                    front.appended_bytes += added as u64;
                    let end = front.tail.end();
                    self.marks.set_end(end);
                    self.marks.set_visible(end);
                    return Ok(offset);
                }
                added
            }
            None => {
                let durable = self.marks.durable();
                let (bytes, frame_at) = front.tail.begin(arrival, durable)?;
                let before = bytes.len();
                record::encode(bytes, record, tail::delta(frame_at, at));
                let added = bytes.len() - before;
                front.tail.finish(arrival, durable, None);
                added
            }
        };
        self.added(front, added as u64, level)?;
        Ok(offset)
    }

    /// Appends encoded records as one unit, if `expected` is the end of the log or `None`.
    pub(crate) fn append_encoded(
        &self,
        encoded: Encoded,
        level: Durability,
        expected: Option<Offset>,
    ) -> Result<Range<Offset>> {
        let now = self.clock.now();
        let len = encoded.body().len();
        let large = len as u64 >= ENCODE_OUTSIDE_BYTES;
        let body_crc = large.then(|| crate::format::bytes::crc(0, encoded.body()));
        let mut front = self.front_with_room()?;
        let start = front.tail.end();
        if let Some(expected) = expected.filter(|expected| *expected != start) {
            let what = format!("the log ends at {start}, not at {expected}");
            return Err(Error::new(ErrorKind::Conflict, what).with_offset(start));
        }
        if encoded.count == 0 {
            return Ok(start..start);
        }
        let at = front.tail.stamp(now);
        let accepted = level == Durability::Buffered;
        let arrival = Arrival { len, count: encoded.count, at, accepted, encoded: true };
        let durable = self.marks.durable();
        match body_crc.filter(|_| len >= tail::CHUNK_BYTES) {
            Some(body_crc) => front.tail.add_chunk(arrival, encoded.bytes, durable, body_crc)?,
            None => {
                let (bytes, _) = front.tail.begin(arrival, durable)?;
                bytes.extend_from_slice(encoded.body());
                front.tail.finish(arrival, durable, body_crc);
            }
        }
        let end = front.tail.end();
        self.added(front, len as u64, level)?;
        Ok(start..end)
    }

    /// Reaches `level` for records that were just put into the tail.
    fn added(
        &self,
        mut front: MutexGuard<'_, Front>,
        len: u64,
        level: Durability,
    ) -> Result<()> {
        let end = front.tail.end();
        self.marks.set_end(end);
        front.appended_bytes += len;
        if level == Durability::Buffered {
            self.marks.set_visible(end);
            let seen = front.take_seen(end);
            let full = front.tail.full_until().is_some();
            let writes = front.call_to_write();
            let rung = front.ring(self.settings.sync_early_bytes());
            drop(front);
            seen.into_iter().for_each(waiters::Reached::tell);
            rung.into_iter().for_each(|rung| self.bell.call_to_sync(rung));
            if writes {
                self.bell.call_to_write();
            }
            return if full { self.relieve() } else { Ok(()) };
        }
        let waiter = Waiter::new(end, Role::Committer);
        let mark = if level == Durability::Synced { Mark::Durable } else { Mark::Written };
        let rung = match mark {
            // It syncs itself.
            Mark::Durable => None,
            _ => front.ring(self.settings.sync_early_bytes()),
        };
        let leads = self.enlist(&mut front, mark, &waiter);
        drop(front);
        rung.into_iter().for_each(|rung| self.bell.call_to_sync(rung));
        self.see_through(&waiter, mark, leads)
    }

    /// Writes what fills the memory. A full disk is no concern of records that are accepted: the
    /// next append meets it.
    fn relieve(&self) -> Result<()> {
        let until = self.front.lock().tail.full_until();
        match until.map(|until| self.write_out(until, Purpose::Write)) {
            Some(Err(error)) if error.kind() != ErrorKind::StorageFull => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes the chunks that are full, for the background thread.
    pub(crate) fn write_in_background(&self) {
        let until = {
            let mut front = self.front.lock();
            front.called_to_write = false;
            front.tail.pending_until()
        };
        if let Some(until) = until {
            // Whoever is concerned by an error has been told, or meets it at the next append.
            drop(self.write_out(until, Purpose::Write));
        }
    }

    /// Time since some fixed point, by the log's clock.
    pub(crate) fn monotonic(&self) -> std::time::Duration {
        self.clock.monotonic()
    }

    /// The front, with room for records.
    #[inline]
    fn front_with_room(&self) -> Result<MutexGuard<'_, Front>> {
        let front = self.front.lock();
        if front.has_room(self.settings.max_unsynced_bytes) {
            return Ok(front);
        }
        self.make_room(front)
    }

    #[cold]
    fn make_room<'a>(&'a self, mut front: MutexGuard<'a, Front>) -> Result<MutexGuard<'a, Front>> {
        while !front.has_room(self.settings.max_unsynced_bytes) {
            front.life.check()?;
            let full_until = front.tail.full_until();
            drop(front);
            match full_until {
                Some(until) => drop(self.write_out(until, Purpose::Write)?),
                None => self.wait_for(self.marks.end(), Mark::Durable)?,
            }
            front = self.front.lock();
        }
        Ok(front)
    }

    /// Writes everything below `until` to its files; returns what a sync has to cover.
    fn write_out(&self, until: Offset, purpose: Purpose) -> Result<SyncTarget> {
        let mut writer = self.writer.lock();
        loop {
            let durable = self.marks.durable();
            if self.marks.written() >= until {
                return Ok(writer.sync_target(durable));
            }
            let chunk = {
                let mut front = self.front.lock();
                front.life.check_writable()?;
                front.tail.next_chunk(durable)
            };
            // What was to be written has been taken back.
            let Some(chunk) = chunk else { return Ok(writer.sync_target(durable)) };
            match writer.write(&chunk, purpose, durable) {
                Ok(()) => self.written(chunk),
                Err(Failure::Refused(error)) => {
                    drop(chunk);
                    return Err(self.take_back(&mut writer, error));
                }
                Err(Failure::Broken(error)) => return Err(self.poison(error)),
            }
        }
    }

    /// A chunk has been written.
    fn written(&self, chunk: Arc<Chunk>) {
        let Some(end) = chunk.end_offset() else { return };
        let mut front = self.front.lock();
        front.written_bytes += chunk.record_bytes();
        front.tail.written(chunk);
        self.marks.set_written(end);
        let visible = self.marks.visible().max(end);
        self.marks.set_visible(visible);
        let seen = front.take_seen(visible);
        let written = front.waiters.take_reached(Mark::Written, end);
        drop(front);
        seen.into_iter().for_each(waiters::Reached::tell);
        written.tell();
    }

    /// A write was refused, and nothing of it happened: what no caller was told is in the log goes,
    /// and all who wait are told. Records that were accepted stay for the next try.
    fn take_back(&self, writer: &mut Writer, error: Error) -> Error {
        let mut front = self.front.lock();
        let (written, durable) = (self.marks.written(), self.marks.durable());
        let first_changed = front.tail.take_back(written, durable, writer.place());
        let end = front.tail.end();
        self.marks.set_end(end);
        front.appended_bytes = front.written_bytes + front.tail.record_bytes();
        let waiters = front.waiters.take_committers(written);
        self.count_committing(&front);
        drop(front);
        if first_changed && let Err(error) = writer.erase_residue() {
            let error = self.poison(error);
            fail(waiters, &error);
            return error;
        }
        for waiter in waiters {
            // What stays in the log says where it is.
            let stays = waiter.target() <= end;
            let error = error.clone();
            waiter.tell(Told::Failed(match waiter.target().checked_sub(1) {
                Some(offset) if stays => error.with_offset(offset),
                _ => error,
            }));
        }
        error
    }

    /// A write or sync failed, and nobody knows what the disk holds: nothing is ever acknowledged
    /// again.
    fn poison(&self, error: Error) -> Error {
        let mut front = self.front.lock();
        let error = front.life.poison(error);
        let waiters = front.waiters.take_all();
        self.count_committing(&front);
        drop(front);
        fail(waiters, &error);
        error
    }

    /// Ends the active segment; the next record begins another.
    pub(crate) fn roll(&self) -> Result<()> {
        self.wait_for(self.marks.end(), Mark::Durable)?;
        let mut writer = self.writer.lock();
        let until = {
            let mut front = self.front.lock();
            front.life.check()?;
            if writer.place().is_none_or(|place| place.first_at.is_none())
                && front.tail.end() == self.marks.written()
            {
                return Ok(());
            }
            front.tail.end_segment(self.marks.durable());
            front.tail.end()
        };
        drop(writer);
        self.write_out(until, Purpose::Write)?;
        writer = self.writer.lock();
        if self.marks.written() > until {
            // Records that came meanwhile have begun the next segment.
            return Ok(());
        }
        match writer.seal(self.marks.durable()) {
            Ok(()) => Ok(()),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Broken(error)) => Err(self.poison(error)),
        }
    }

    /// Refuses further appends, makes all that was accepted durable and marks the log as closed.
    pub(crate) fn close(&self) -> Result<()> {
        let refused = self.front.lock().life.begin_close();
        let closed = refused.and_then(|()| self.wait_for(self.marks.end(), Mark::Durable));
        let closed = closed.and_then(|()| {
            let mut writer = self.writer.lock();
            writer.close(self.marks.durable()).map_err(Failure::into_error)
        });
        let mut front = self.front.lock();
        front.life.end_close();
        let waiters = front.waiters.take_all();
        drop(front);
        fail(waiters, &front::closed());
        closed
    }

    /// Copies records that are not written yet, from `offset` to the end of their frame; `None` if
    /// it has been written meanwhile, or is not there.
    pub(crate) fn copy_tail(
        &self,
        offset: Offset,
        hint: Option<(Offset, usize)>,
        out: &mut Vec<u8>,
    ) -> Option<(TailSpan, usize)> {
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

fn too_large(len: u64, max: u64) -> Error {
    let what = format!("the record or batch takes {len} bytes or more, max_batch_bytes is {max}");
    Error::new(ErrorKind::TooLarge, what)
}
