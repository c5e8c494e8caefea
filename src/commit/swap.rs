//! Replacing sealed segments by others that say the same in less space.
//!
//! The writer is locked, as for every change of the list of segments, so that what is compared is
//! what is replaced: a roll, a truncation or a deletion comes before or after, never in between.

use crate::commit::Commit;
use crate::commit::waiters::News;
use crate::error::Failure;
use crate::error::Result;
use crate::format::manifest::Manifest;

impl Commit {
    /// The first of `count` segment ids that nobody else gets; `None` if there are not so many.
    /// To be made durable with [`edit_sealed`](Commit::edit_sealed) before a file with records has
    /// one of them.
    pub(crate) fn take_segment_ids(&self, count: u64) -> Option<u64> {
        self.front.lock().tail.take_segment_ids(count)
    }

    /// Changes what the manifest says of sealed segments; `edit` tells whether there is anything to
    /// change, and so does this. Segments that have become durable are sealed before.
    pub(crate) fn edit_sealed(&self, edit: impl FnOnce(&mut Manifest) -> bool) -> Result<bool> {
        let mut news = News::default();
        let mut writer = self.writer.lock();
        self.front.lock().life.check()?;
        let edited = match writer.edit_sealed(self.marks.durable(), edit) {
            Ok(edited) => Ok(edited),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Broken(error)) => Err(self.poison(error, &mut news)),
        };
        drop(writer);
        self.post();
        news.tell();
        edited
    }
}
