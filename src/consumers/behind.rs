//! Positions behind the end of a log: where a truncation, or damage, or the repair of it, takes
//! records that were durable, and that somebody had read.

use crate::consumers::Consumer;
use crate::consumers::Consumers;
use crate::consumers::Life;
use crate::consumers::Shelf;
use crate::consumers::Still;
use crate::consumers::file::PositionFile;
use crate::error::Error;
use crate::error::Result;
use crate::format::names;
use crate::format::position::Owner;
use crate::storage::Dir;
use crate::units::Offset;
use std::io::ErrorKind::{NotADirectory, NotFound};

/// For a log that nobody has open, and that will end at `end`: what leads further is taken back,
/// durably.
pub(crate) fn take_back_to(log: &Dir, log_id: u128, end: Offset) -> Result<()> {
    let consumers = Consumers::new(log, log_id);
    for name in consumers.leading_behind(end)? {
        consumers.take_one_back(&name, end)?;
    }
    Ok(())
}

impl Consumers {
    /// Takes back to `end` what lies behind it. Until what this gives is dropped, which is when the
    /// log has been cut, no commit comes in between.
    ///
    /// A position that cannot be read does not stop it if it is damaged, since it is of no use any
    /// more; if it may be readable another time, it does.
    pub(crate) fn take_back(&self, end: Offset) -> Result<Still<'_>> {
        let mut shelf = self.shelf.write();
        if shelf.life == Life::Open {
            let before = shelf.cut_to.replace(end);
            if let Err(error) = self.take_all_back(&mut shelf, end) {
                // The log is not cut.
                shelf.cut_to = before;
                return Err(error);
            }
        }
        Ok(Still(shelf))
    }

    fn take_all_back(&self, shelf: &mut Shelf, end: Offset) -> Result<()> {
        self.look_at_all(shelf)?;
        let mut known = shelf.known.iter();
        known.try_for_each(|(name, consumer)| consumer.take_back(&self.dir, name, end))
    }

    fn take_one_back(&self, name: &str, end: Offset) -> Result<()> {
        let consumer = Consumer::look_at(&self.dir, name, self.log_id);
        consumer.take_back(&self.dir, name, end)
    }

    /// Those that seem to lead behind `end`. One that cannot be read does not.
    fn leading_behind(&self, end: Offset) -> Result<Vec<String>> {
        let storage = self.dir.storage();
        let listed = match storage.list(self.dir.path()) {
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => return Ok(Vec::new()),
            listed => listed,
        };
        let listed = listed
            .map_err(|error| Error::io("cannot list the directory", self.dir.path(), error))?;
        let names = listed.iter().filter_map(|entry| entry.name.to_str());
        let leads = |name: &&str| {
            let position = PositionFile::peek(&self.dir, name, Owner::new(self.log_id, name));
            position.is_ok_and(|position| position > end)
        };
        let leading = names.filter(|name| names::is_consumer(name)).filter(leads);
        Ok(leading.map(str::to_owned).collect())
    }
}
