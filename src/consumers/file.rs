//! The file of one position: making it, reading it, writing it.
//!
//! The crash argument. A file is made whole under another name, synced, renamed, and its name
//! synced: who finds the name finds a position. From then on its length never changes, and it is
//! written a slot at a time: the one that does not count, while the one that counts is durable.
//! So a crash finds the old position, or the new one, in slots that lie in blocks of their own.
//!
//! What is read may be in the memory of the system only, written by a process that was killed or
//! whose sync failed. So the slot that counts is written again, the same bytes in the same place,
//! and synced before anybody relies on it; the other slot is durable by the rule above. A sync that
//! failed is never tried again on the same open file: who opens it anew finds out.
//!
//! Whoever falls back to the other slot because the one that counts was damaged reads some records
//! again and skips none: a position that goes back is written to both.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Failure;
use crate::error::Result;
use crate::format::bytes::DecodeError;
use crate::format::names;
use crate::format::position;
use crate::format::position::FILE_LEN;
use crate::format::position::Owner;
use crate::format::position::SLOT_LEN;
use crate::format::position::Side;
use crate::format::position::Slot;
use crate::storage::Dir;
use crate::storage::Handle;
use crate::storage::OpenMode;
use crate::units::Offset;

/// A position and the open file it is in.
#[derive(Debug)]
pub(super) struct PositionFile {
    file: Handle,
    /// The slot that counts, which is durable. The other one leads no further.
    counts: Side,
    slot: Slot,
}

impl PositionFile {
    /// Reads a position and makes durable what it read; `None` if there is no such file.
    pub(super) fn open(dir: &Dir, name: &str, owner: Owner) -> Result<Option<Self>> {
        let Some(file) = dir.open_if_there(name, OpenMode::Write)? else {
            return Ok(None);
        };
        // What the system keeps may differ from what the disk has, after a sync that failed.
        file.forget_cached(0, u64::MAX);
        let (first, second) = (read_slot(&file, Side::First)?, read_slot(&file, Side::Second)?);
        let len = file.size()?;
        let chosen = match len == FILE_LEN as u64 {
            true => position::choose([&first, &second], owner),
            false => Err(DecodeError::Malformed("the file does not have the length it always has")),
        };
        let chosen = chosen.map_err(|error| unreadable(&file, error))?;
        let mut opened = Self { file, counts: chosen.side, slot: chosen.slot };
        opened.write(chosen.side, &chosen.slot).map_err(Failure::into_error)?;
        if chosen.other.is_some_and(|other| other > chosen.slot.position) {
            // It was put back, and a crash came between the two writes.
            opened.put_once(chosen.slot.position).map_err(Failure::into_error)?;
        }
        Ok(Some(opened))
    }

    /// The position that the file seems to have, without a promise that it is durable.
    pub(super) fn peek(dir: &Dir, name: &str, owner: Owner) -> Result<Offset> {
        let file = dir.open(name, OpenMode::Read)?;
        let (first, second) = (read_slot(&file, Side::First)?, read_slot(&file, Side::Second)?);
        let chosen = position::choose([&first, &second], owner);
        Ok(chosen.map_err(|error| unreadable(&file, error))?.slot.position)
    }

    /// Makes the file of a position, durably but for its name, which is still to be given to it.
    pub(super) fn create(dir: &Dir, position: Offset, owner: Owner) -> Result<()> {
        let slot = Slot { owner, sequence: 1, position };
        let mut bytes = vec![0; FILE_LEN];
        for (to, from) in bytes.iter_mut().zip(slot.encode()) {
            *to = from;
        }
        let file = dir.create_anew(names::CONSUMER_NEXT)?;
        file.write(&bytes, 0).map_err(|partial| partial.error)?;
        file.sync()
    }

    pub(super) fn position(&self) -> Offset {
        self.slot.position
    }

    /// Puts another position in the place of this one, durably. If it is refused this one stays; if
    /// it breaks, nobody knows which of the two is there.
    pub(super) fn put(&mut self, position: Offset) -> Result<(), Failure> {
        let goes_back = position < self.slot.position;
        self.put_once(position)?;
        if !goes_back {
            return Ok(());
        }
        // Half of it must not pass for nothing.
        self.put_once(position).map_err(|failure| Failure::Broken(failure.into_error()))
    }

    fn put_once(&mut self, position: Offset) -> Result<(), Failure> {
        let Some(slot) = self.slot.next(position) else {
            let what = "the consumer's position has been written as often as it can be; remove it";
            let error = Error::new(ErrorKind::Corrupt, what).with_path(self.file.path());
            return Err(Failure::Refused(error));
        };
        let side = self.counts.other();
        self.write(side, &slot)?;
        (self.counts, self.slot) = (side, slot);
        Ok(())
    }

    fn write(&self, side: Side, slot: &Slot) -> Result<(), Failure> {
        match self.file.write(&slot.encode(), side.at()) {
            Ok(()) => self.file.sync().map_err(Failure::Broken),
            // The slot that counts has not been touched.
            Err(partial) if partial.error.kind() == ErrorKind::StorageFull => {
                Err(Failure::Refused(partial.error))
            }
            Err(partial) => Err(Failure::Broken(partial.error)),
        }
    }
}

fn read_slot(file: &Handle, side: Side) -> Result<[u8; SLOT_LEN]> {
    let mut bytes = [0; SLOT_LEN];
    file.read(&mut bytes, side.at())?;
    Ok(bytes)
}

fn unreadable(file: &Handle, error: DecodeError) -> Error {
    let (kind, what) = match error {
        why if why.is_newer() => (
            ErrorKind::UnsupportedVersion,
            format!("the consumer's position needs a newer version of this crate ({error})"),
        ),
        _ => (
            ErrorKind::Corrupt,
            format!(
                "the consumer's position is damaged ({error}); restore the file, or remove the \
                 consumer, which then begins at the start of the log"
            ),
        ),
    };
    Error::new(kind, what).with_path(file.path())
}
