//! Having the next segments ready before a roll needs them.
//!
//! The writer is locked meanwhile, since the list of segments must not change. So who writes just
//! then waits for these syncs, as for those of a roll; who only fills memory does not.

use crate::commit::Commit;
use crate::commit::waiters::News;
use crate::commit::writer::Writer;
use crate::error::Failure;
use crate::error::Result;

impl Commit {
    /// Prepares segments if it is time, and writes down which have been begun. That it is refused
    /// is no error of anything: rolls take longer then.
    pub(crate) fn prepare(&self) -> Result<()> {
        let mut news = News::default();
        let prepared = self.prepare_with(&mut self.writer.lock(), &mut news);
        news.tell();
        prepared
    }

    fn prepare_with(&self, writer: &mut Writer, news: &mut News) -> Result<()> {
        let durable = self.marks.durable();
        let Some(count) = writer.to_prepare(durable) else { return Ok(()) };
        let new = {
            let mut front = self.front.lock();
            front.life.check()?;
            front.tail.choose_segments(count)
        };
        match writer.prepare(&new, durable) {
            Ok(()) => self.front.lock().tail.have_ready(new),
            Err(Failure::Refused(_)) => {}
            Err(Failure::Broken(error)) => return Err(self.poison(error, news)),
        }
        Ok(())
    }
}
