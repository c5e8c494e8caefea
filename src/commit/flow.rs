//! From the tail to the files: writing chunks, and what happens when that fails.

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
            match writer.write(&chunk, purpose, durable) {
                Ok(()) if early => {}
                Ok(()) => {
                    self.written(chunk, news);
                    if self.settings.shows != Mark::Durable {
                        self.post_soon();
                    }
                    if writer.calls_to_prepare() {
                        self.bell.call_to_prepare();
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

    /// A write was refused, and nothing of it happened: what no caller was told is in the log goes,
    /// and all who wait are told. Records that were accepted stay for the next try.
    fn take_back(&self, writer: &mut Writer, error: Error, news: &mut News) -> Error {
        let mut front = self.front.lock();
        let (written, durable) = (self.marks.written(), self.marks.durable());
        let first_changed = front.tail.take_back(written, durable, writer.place());
        let end = front.tail.end();
        self.marks.set_end(end);
        front.appended_bytes = front.written_bytes + front.tail.record_bytes();
        front.counters.refused_writes += 1;
        let waiters = front.waiters.take_refused(written);
        self.count_committing(&front);
        drop(front);
        let erases = first_changed && !Bug::ResidueStays.is_on();
        if erases && let Err(error) = self.erase_residue(writer, news) {
            news.failed(waiters, &error);
            return error;
        }
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

    /// Removes what a refused write left in the file, durably.
    fn erase_residue(&self, writer: &mut Writer, news: &mut News) -> Result<()> {
        // An error of this sync would be kept from the leader's, which runs on the same file: one
        // at a time, and the poison before the other goes on.
        let _syncing = self.syncing.lock();
        // The leader's may have failed, and then a sync of this file proves nothing.
        self.front.lock().life.check_writable()?;
        writer.erase_residue().map_err(|error| self.poison(error, news))
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
