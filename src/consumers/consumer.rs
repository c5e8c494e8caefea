//! One consumer: where it stands, who holds it, and what went wrong with it.

use crate::consumers::file::PositionFile;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Failure;
use crate::error::Result;
use crate::format::position::Owner;
use crate::storage::Dir;
use crate::sync::Mutex;
use crate::units::Offset;
use std::io;

/// A consumer, held or not.
#[derive(Debug)]
pub(crate) struct Consumer {
    owner: Owner,
    place: Mutex<Place>,
}

#[derive(Debug)]
struct Place {
    is_held: bool,
    /// No further than what any crash leaves.
    committed: Offset,
    /// Open while it is held and well.
    file: Option<PositionFile>,
    /// Why it cannot be read, or not be written any more.
    error: Option<Error>,
}

/// A consumer as others see it.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) name: String,
    pub(crate) committed: Option<Offset>,
    pub(crate) is_held: bool,
    pub(crate) error: Option<Error>,
}

impl Consumer {
    /// One that nobody has looked at.
    pub(super) fn unknown(owner: Owner) -> Self {
        let place = Place { is_held: false, committed: Offset::ZERO, file: None, error: None };
        Self { owner, place: Mutex::new(place) }
    }

    /// One that is there, and that nobody holds.
    pub(super) fn look_at(dir: &Dir, name: &str, log_id: u128) -> Self {
        let consumer = Self::unknown(Owner::new(log_id, name));
        let mut place = consumer.place.lock();
        match PositionFile::open(dir, name, consumer.owner) {
            Ok(Some(file)) => place.committed = file.position(),
            Ok(None) => place.error = Some(missing(dir, name)),
            Err(error) => place.error = Some(error),
        }
        drop(place);
        consumer
    }

    pub(super) fn is_held_with(&self, file: PositionFile) {
        let committed = file.position();
        *self.place.lock() = Place { is_held: true, committed, file: Some(file), error: None };
    }

    pub(super) fn is_held(&self) -> bool {
        self.place.lock().is_held
    }

    /// Nobody holds it any more.
    pub(crate) fn let_go(&self) {
        let mut place = self.place.lock();
        place.is_held = false;
        let file = place.file.take();
        drop(place);
        // A file is closed outside the lock.
        drop(file);
    }

    pub(crate) fn committed(&self) -> Offset {
        self.place.lock().committed
    }

    pub(super) fn standing(&self, name: &str) -> Standing {
        let place = self.place.lock();
        // One that failed while it was held stands where it stood, or farther back.
        let is_known = place.error.is_none() || place.is_held;
        Standing {
            name: name.to_owned(),
            committed: Some(place.committed).filter(|_| is_known),
            is_held: place.is_held,
            error: place.error.clone(),
        }
    }

    /// Makes a position durable; gives the one before.
    pub(super) fn put(&self, position: Offset) -> Result<Offset> {
        let mut place = self.place.lock();
        if let Some(error) = &place.error {
            return Err(error.clone());
        }
        let before = place.committed;
        if position != before {
            place.put(position)?;
        }
        Ok(before)
    }

    /// Makes sure that it stands no further than `end`.
    pub(super) fn take_back(&self, dir: &Dir, name: &str, end: Offset) -> Result<()> {
        let mut place = self.place.lock();
        if place.error.is_none() && place.committed <= end {
            return Ok(());
        }
        if place.file.is_some() {
            return place.put(end);
        }
        // Nobody holds it, or it failed: what the disk has is found out here.
        let mut file = match PositionFile::open(dir, name, self.owner) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(()),
            Err(error) => return Err(error),
        };
        if file.position() > end {
            file.put(end).map_err(Failure::into_error)?;
        }
        place.committed = file.position();
        Ok(())
    }
}

impl Place {
    /// Makes a position durable in the file, which is open.
    fn put(&mut self, position: Offset) -> Result<()> {
        let Some(file) = &mut self.file else {
            return Err(Error::new(ErrorKind::Closed, "the consumer is not held"));
        };
        match file.put(position) {
            Ok(()) => {
                self.committed = position;
                Ok(())
            }
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Broken(error)) => {
                let error = Error::poisoned(error);
                self.error = Some(error.clone());
                self.file = None;
                // The disk has the one or the other.
                self.committed = self.committed.min(position);
                Err(error)
            }
        }
    }
}

/// It was there a moment ago.
pub(super) fn missing(dir: &Dir, name: &str) -> Error {
    let source = io::ErrorKind::NotFound.into();
    Error::io("cannot open the position of a consumer", &dir.path_of(name), source)
}
