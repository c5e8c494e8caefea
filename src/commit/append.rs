//! From a record to the tail: encoding, room, and seeing it through to its level.

use crate::bugs::Bug;
use crate::commit::Commit;
use crate::commit::chunk::Accept;
use crate::commit::front::Front;
use crate::commit::front::Life;
use crate::commit::tail;
use crate::commit::tail::Arrival;
use crate::commit::waiters::Mark;
use crate::commit::waiters::News;
use crate::commit::waiters::Role;
use crate::commit::waiters::Waiter;
use crate::commit::writer::Purpose;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::bytes;
use crate::format::frame::FRAME_HEADER_LEN;
use crate::format::record;
use crate::options::Durability;
use crate::record::Record;
use crate::sync::MutexGuard;
use crate::units::Offset;
use std::ops::Range;

/// Records of this encoded length or more are encoded before the lock is taken.
const ENCODE_OUTSIDE_BYTES: u64 = 16 << 10;

/// More than the varint of a time delta can take.
const DELTA_MAX_LEN: usize = 10;

/// Records encoded before the lock was taken, as the body of a frame with room for its header.
#[derive(Debug)]
pub(crate) struct Encoded {
    bytes: Vec<u8>,
    count: u32,
}

impl Encoded {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; FRAME_HEADER_LEN], count: 0 }
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
        self.bytes.get(FRAME_HEADER_LEN..).unwrap_or_default()
    }
}

impl Commit {
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
        let accept = accept(level);
        let arrival = Arrival { len, count: 1, at, accept, encoded: false };
        let offset = front.tail.end();
        let added = match front.tail.push(record, &arrival) {
            Some(added) => {
                if accept == Accept::AtOnce && front.is_calm(self.settings.sync_early_bytes()) {
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
        let body_crc = large.then(|| bytes::crc(0, encoded.body()));
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
        let accept = accept(level);
        let arrival = Arrival { len, count: encoded.count, at, accept, encoded: true };
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
        // If it failed and yet is in the log, it is there from its first record on.
        let whole = |error: Error| match error.offset() {
            Some(_) if error.kind() != ErrorKind::OutOfRange => error.with_offset(start),
            _ => error,
        };
        self.added(front, len as u64, level).map_err(whole)?;
        Ok(start..end)
    }

    /// Reaches `level` for records that were just put into the tail.
    pub(super) fn added(
        &self,
        mut front: MutexGuard<'_, Front>,
        len: u64,
        level: Durability,
    ) -> Result<()> {
        let end = front.tail.end();
        self.marks.set_end(end);
        front.appended_bytes += len;
        if level == Durability::Buffered || Bug::RefusableShown.is_on() {
            self.marks.set_visible(end);
        }
        if level == Durability::Buffered {
            let mut news = News::default();
            news.reached(front.waiters.take_reached(Mark::Visible, end));
            let full = front.tail.full_until().is_some();
            let writes = front.call_to_write();
            let rung = front.ring(self.settings.sync_early_bytes());
            drop(front);
            rung.into_iter().for_each(|rung| self.bell.call(rung));
            if writes {
                self.bell.call_to_write();
            }
            // Not before: a task may panic when it is woken, and then nobody would call.
            news.tell();
            return if full { self.relieve() } else { Ok(()) };
        }
        let waiter = Waiter::new(end, Role::Committer);
        let mark = if level == Durability::Synced { Mark::Durable } else { Mark::Written };
        let rung = match mark {
            // It syncs itself.
            Mark::Durable => None,
            _ => front.ring(self.settings.sync_early_bytes()),
        };
        let part = self.enlist(&mut front, mark, &waiter);
        drop(front);
        rung.into_iter().for_each(|rung| self.bell.call(rung));
        self.see_through(&waiter, mark, part)
    }

    /// The front, with room for records.
    #[inline]
    pub(super) fn front_with_room(&self) -> Result<MutexGuard<'_, Front>> {
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
            if let Life::Held = front.life {
                drop(front);
                drop(self.writer.lock());
                front = self.front.lock();
                continue;
            }
            let full_until = front.tail.full_until();
            drop(front);
            match full_until {
                Some(until) => drop(self.write_out(until, Purpose::Write)?),
                // An offset would say that the record to come is there; it is that of another one.
                None => self.sync().map_err(Error::without_offset)?,
            }
            front = self.front.lock();
        }
        Ok(front)
    }
}

pub(super) fn accept(level: Durability) -> Accept {
    match level {
        Durability::Buffered => Accept::AtOnce,
        Durability::Written | Durability::Synced => Accept::Later,
    }
}

fn too_large(len: u64, max: u64) -> Error {
    let what = format!("the record or batch takes {len} bytes or more, max_batch_bytes is {max}");
    Error::new(ErrorKind::TooLarge, what)
}
