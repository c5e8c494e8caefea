//! Having the next segments ready before a roll needs them.

use crate::commit::Commit;
use crate::commit::waiters::News;
use crate::commit::writer::Writer;
use crate::error::Failure;

impl Commit {
    /// Prepares segments if it is time, and writes down which have been begun. That it cannot be
    /// done is no error of anything: rolls take longer then.
    pub(crate) fn prepare(&self) {
        let mut news = News::default();
        self.prepare_with(&mut self.writer.lock(), &mut news);
        news.tell();
    }

    fn prepare_with(&self, writer: &mut Writer, news: &mut News) {
        let durable = self.marks.durable();
        let Some(count) = writer.to_prepare(durable) else { return };
        let new = {
            let mut front = self.front.lock();
            if front.life.check().is_err() {
                return;
            }
            front.tail.choose_segments(count)
        };
        match writer.prepare(&new, durable) {
            Ok(()) => self.front.lock().tail.have_ready(new),
            Err(Failure::Refused(_)) => {}
            Err(Failure::Broken(error)) => drop(self.poison(error, news)),
        }
    }
}
