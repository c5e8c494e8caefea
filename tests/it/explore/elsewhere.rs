//! What a reader in another process is shown of a disk that a crash left, before any writer comes:
//! it must be what that writer then finds, or the beginning of it.

use crate::explore::run::Broken;
use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::medium::Medium;
use stratalog::{EntryBuf, Log, Options, Seek};

/// What is shown; nothing if it cannot be read.
pub(super) fn shown(medium: Medium) -> Vec<EntryBuf> {
    let machine = FaultyStorage::with(medium);
    let Ok(reader) = Options::new().storage(machine.process()).open_reader(DIR) else {
        return Vec::new();
    };
    let Ok(entries) = reader.iter(Seek::Start) else { return Vec::new() };
    let shown = entries.map_while(Result::ok).collect();
    assert_eq!(machine.effects(), 0, "a reader has changed something");
    shown
}

/// The writer has found the log after that.
pub(super) fn confirm(shown: &[EntryBuf], log: &Log) -> Result<(), Broken> {
    let wrong = |error| format!("it cannot be read: {error}");
    let mut kept = log.iter(Seek::Start).map_err(wrong)?;
    for entry in shown {
        match kept.next() {
            Some(Ok(kept)) if kept == *entry => {}
            other => return Err(format!("a reader was shown {entry:?}, and then: {other:?}")),
        }
    }
    Ok(())
}
