//! Positions behind the end of a log: where damage, or the repair of it, takes records that were
//! durable, and that somebody had read.

use crate::consumers::Consumers;
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
    if consumers.lead_behind(end)? {
        drop(consumers.take_back(end)?);
    }
    Ok(())
}

impl Consumers {
    /// Whether one seems to lead behind `end`. One that cannot be read does not.
    fn lead_behind(&self, end: Offset) -> Result<bool> {
        let storage = self.dir.storage();
        let listed = match storage.list(self.dir.path()) {
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => return Ok(false),
            listed => listed,
        };
        let listed = listed
            .map_err(|error| Error::io("cannot list the directory", self.dir.path(), error))?;
        let names = listed.iter().filter_map(|entry| entry.name.to_str());
        Ok(names.filter(|name| names::is_consumer(name)).any(|name| {
            let position = PositionFile::peek(&self.dir, name, Owner::new(self.log_id, name));
            position.is_ok_and(|position| position > end)
        }))
    }
}
