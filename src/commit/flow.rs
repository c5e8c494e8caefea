//! From the tail to the files: writing chunks, and what happens when that fails.
//!
//! A full disk may take a part of a chunk and refuse the rest. What it took is the *residue*: whole
//! frames perhaps, then the begin of one. Why a crash does not bring back what a caller was told is
//! not there:
//!
//! - The residue is erased, and that is synced, before anybody is told.
//! - A file system that never writes in place may refuse the zeros too. Then the frames that are
//!   whole in the file, or would be with zeros behind the residue, stay in the log, and the errors
//!   of their callers say where they are. Of the next frame a byte that is not zero is missing, so
//!   no crash makes it one, and recovery looks at nothing behind it. It is taken back.
//! - Nothing else goes into the file before the residue is erased. Otherwise the begin of a frame
//!   that was refused and the end of the same records, appended again, could make a frame. Until
//!   then every write is refused, and tries to erase first. If the segment ends meanwhile, the
//!   residue lies behind the end that the manifest states, where nobody looks.
//! - A residue that is the begin of what stays in the log is not erased: the next try writes the
//!   same bytes.

use crate::bugs::Bug;
use crate::commit::Commit;
use crate::commit::chunk::Chunk;
use crate::commit::front::Life;
use crate::commit::waiters::Mark;
use crate::commit::waiters::News;
use crate::commit::writer::Purpose;
use crate::commit::writer::SyncTarget;
use crate::commit::writer::Writer;
use crate::error::Error;
use crate::error::Failure;
use crate::error::Result;
use crate::units::Offset;
use std::sync::Arc;

impl Commit {
    /// Writes what fills the memory. That it is refused is no concern of records that are accepted:
    /// the next append meets it.
    pub(super) fn relieve(&self) -> Result<()> {
        let until = self.front.lock().tail.full_until();
        let Some(until) = until else { return Ok(()) };
        match self.write_out(until, Purpose::Write) {
            Ok(_) => Ok(()),
            Err(_) => self.front.lock().life.check_writable(),
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

    /// Writes everything below `until` to its files; returns what a sync has to cover.
    pub(super) fn write_out(&self, until: Offset, purpose: Purpose) -> Result<SyncTarget> {
        let mut news = News::default();
        let written = self.write_with(&mut self.writer.lock(), until, purpose, &mut news);
        news.tell();
        written
    }

    /// As [`write_out`](Commit::write_out), for who holds the writer and tells the news afterwards.
    pub(super) fn write_with(
        &self,
        writer: &mut Writer,
        until: Offset,
        purpose: Purpose,
        news: &mut News,
    ) -> Result<SyncTarget> {
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
            let early = Bug::PublishedBeforeWritten.is_on();
            early.then(|| self.written(Arc::clone(&chunk), news));
            match self.write_chunk(writer, &chunk, purpose, news) {
                Ok(()) if early => {}
                Ok(()) => {
                    self.written(chunk, news);
                    if self.settings.shows != Mark::Durable {
                        self.post_soon();
                    }
                }
                Err(Failure::Refused(error)) => {
                    drop(chunk);
                    return Err(self.take_back(writer, error, news));
                }
                Err(Failure::Broken(error)) => return Err(self.poison(error, news)),
            }
        }
    }

    /// Writes the first pending chunk. If that is refused, a crash finds nothing of it but what
    /// [`take_back`](Commit::take_back) leaves in the log.
    fn write_chunk(
        &self,
        writer: &mut Writer,
        chunk: &Chunk,
        purpose: Purpose,
        news: &mut News,
    ) -> Result<(), Failure> {
        self.erase_residue(writer, news)?;
        let written = writer.write(chunk, purpose, self.marks.durable());
        let Err(Failure::Refused(refused)) = written else { return written };
        if self.front.lock().tail.keeps_first() {
            // The same bytes are written again.
            writer.forget_residue();
        } else if let Err(Failure::Broken(error)) = self.erase_residue(writer, news) {
            return Err(Failure::Broken(error));
        }
        Err(Failure::Refused(refused))
    }

    /// A chunk has been written.
    fn written(&self, chunk: Arc<Chunk>, news: &mut News) {
        let Some(end) = chunk.end_offset() else { return };
        let mut front = self.front.lock();
        front.written_bytes += chunk.record_bytes();
        front.counters.written(chunk.bytes.len());
        front.tail.written(chunk);
        self.marks.set_written(end);
        let visible = self.marks.visible().max(end);
        self.marks.set_visible(visible);
        news.reached(front.waiters.take_reached(Mark::Visible, visible));
        news.reached(front.waiters.take_reached(Mark::Written, end));
    }

    /// A write was refused: what no caller was told is in the log goes, and all who wait are told.
    /// Records that were accepted stay for the next try.
    fn take_back(&self, writer: &mut Writer, error: Error, news: &mut News) -> Error {
        let mut front = self.front.lock();
        let (written, durable) = (self.marks.written(), self.marks.durable());
        if let Some(end) = writer.residue_end() {
            // They could not be erased, and a crash may bring them back.
            front.tail.accept_below(end);
        }
        front.tail.take_back(written, durable, writer.place());
        let end = front.tail.end();
        self.marks.set_end(end);
        front.appended_bytes = front.written_bytes + front.tail.record_bytes();
        front.counters.refused_writes += 1;
        let waiters = front.waiters.take_refused(written);
        self.count_committing(&front);
        // Nobody else may be left who writes and syncs what stays. However much that is, it is not
        // to be tried again at once.
        let stays = end > durable;
        let rung = if stays { front.ring(u64::MAX) } else { None };
        drop(front);
        rung.into_iter().for_each(|rung| self.bell.call(rung));
        for waiter in waiters {
            // What stays in the log says where it is.
            let stays = waiter.target() <= end;
            let offset = waiter.target().checked_sub(1).filter(|_| stays);
            let error = error.clone();
            let error = offset.map_or(error.clone(), |offset| error.with_offset(offset));
            news.failed(vec![waiter], &error);
        }
        error
    }

    /// Removes what a refused write left in the file, durably. That may be refused too.
    fn erase_residue(&self, writer: &mut Writer, news: &mut News) -> Result<(), Failure> {
        if !writer.has_residue() {
            return Ok(());
        }
        // An error of this sync would be kept from the leader's, which runs on the same file: one
        // at a time, and the poison before the other goes on.
        let _syncing = self.syncing.lock();
        // The leader's may have failed, and then a sync of this file proves nothing.
        self.front.lock().life.check_writable().map_err(Failure::Broken)?;
        writer.erase_residue().map_err(|failure| match failure {
            Failure::Refused(error) => Failure::Refused(error),
            Failure::Broken(error) => Failure::Broken(self.poison(error, news)),
        })
    }

    /// Changes the directory of the log while nobody else does. The system tells of a sync that
    /// failed once: if that was another one nothing is changed, and if it is this one the log is
    /// poisoned before anybody syncs the directory again.
    pub(crate) fn change_directory(
        &self,
        change: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<()> {
        let mut news = News::default();
        let writer = self.writer.lock();
        self.front.lock().life.check()?;
        let changed = change().map_err(|failure| match failure {
            Failure::Refused(error) => error,
            Failure::Broken(error) => self.poison(error, &mut news),
        });
        drop(writer);
        news.tell();
        changed
    }

    /// A write or sync failed, and nobody knows what the disk holds: nothing is ever acknowledged
    /// again.
    pub(super) fn poison(&self, error: Error, news: &mut News) -> Error {
        let mut front = self.front.lock();
        let forgets = Bug::PoisonForgotten.is_on();
        let is_first = !matches!(front.life, Life::Poisoned(_));
        let error = if forgets { error } else { front.life.poison(error) };
        let waiters = front.waiters.take_all();
        self.count_committing(&front);
        drop(front);
        if is_first {
            news.poisoned(&error);
        }
        match Bug::WaitersToldSuccess.is_on() {
            true => news.reached(waiters),
            false => news.failed(waiters, &error),
        }
        error
    }
}
