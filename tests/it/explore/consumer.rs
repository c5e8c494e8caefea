//! What programs do with a consumer, and what a crash may leave of its position.
//!
//! The position is one that was committed: the last that was acknowledged, or one that was under
//! way since. A truncation takes it back, before or with the cut. It is never ahead of the log.

use crate::explore::oracle::World;
use crate::explore::program::Op;
use crate::explore::run::Broken;
use crate::explore::run::Run;
use crate::support::medium::Medium;
use std::iter;
use stratalog::{Consumer, Error, ErrorKind, Log, Seek};

const NAME: &str = "reader";

/// Where a consumer may stand; `None` is that there is no such consumer.
pub(super) type Places = Vec<Option<u64>>;

/// What is known of the names of consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    Sure,
    /// They cannot be relied on until the log is opened again; or longer, if a process was killed
    /// before it could take back a name whose sync had failed.
    Lost,
}

impl Names {
    pub(super) fn of(medium: &Medium) -> Self {
        if medium.has_lost_names("/log/consumers/reader") { Self::Lost } else { Self::Sure }
    }
}

impl World {
    fn stands_at(&mut self, place: Option<u64>, names: Names) {
        match names {
            Names::Sure => self.places = vec![place],
            Names::Lost => self.may_stand_at(place),
        }
    }

    /// From now on it may stand there, too.
    fn may_stand_at(&mut self, place: Option<u64>) {
        if !self.places.contains(&place) {
            self.places.push(place);
        }
    }

    /// It may have been taken back to an end, or will be.
    pub(super) fn may_be_taken_back_to(&mut self, end: u64) {
        for place in self.places.clone() {
            self.may_stand_at(place.map(|at| at.min(end)));
        }
    }
}

impl Run {
    /// What consumers do, they do to the log as it is, whichever of two that may be.
    fn may_stand_at(&mut self, place: Option<u64>) {
        for world in iter::once(&mut self.world).chain(&mut self.other) {
            world.may_stand_at(place);
        }
    }

    fn stands_at(&mut self, place: Option<u64>) {
        for world in iter::once(&mut self.world).chain(&mut self.other) {
            world.stands_at(place, self.names);
        }
    }

    /// Does an operation with the consumer.
    pub(super) fn consume(&mut self, log: &Log, op: Op) -> Result<(), Broken> {
        if op == Op::Remove {
            self.may_stand_at(None);
            self.note();
            let removed = log.remove_consumer(NAME).map(|_| None);
            return self.committed(log, removed);
        }
        self.may_stand_at(Some(self.world.start));
        self.note();
        match log.consumer(NAME) {
            Ok(mut consumer) => {
                let moved = move_it(&mut consumer, op);
                let place = u64::from(consumer.position());
                if let Err(error) = moved {
                    self.may_stand_at(Some(u64::from(consumer.committed())));
                    return self.committed(log, Err(error));
                }
                self.may_stand_at(Some(place));
                self.note();
                let committed = consumer.commit().map(|()| Some(place));
                if committed.is_ok() && u64::from(consumer.committed()) != place {
                    return Err(format!("committed {place}, states {}", consumer.committed()));
                }
                self.committed(log, committed)
            }
            Err(error) => self.committed(log, Err(error)),
        }
    }

    fn committed(&mut self, log: &Log, now: Result<Option<u64>, Error>) -> Result<(), Broken> {
        match now {
            Ok(place) => {
                self.stands_at(place);
                // Nobody commits what a power cut takes.
                let rows = place.map_or(0, |at| at.saturating_sub(self.world.start));
                let rows = usize::try_from(rows).unwrap();
                if rows > self.world.rows.len() {
                    return Err(format!("committed {place:?}, behind the end of the log"));
                }
                self.world.synced = self.world.synced.max(rows);
                self.world.written = self.world.written.max(rows);
            }
            Err(error) => self.failed_in(log, &error)?,
        }
        self.note();
        Ok(())
    }

    /// As [`failed`](Run::failed): that a position failed is not the end of the log.
    pub(super) fn failed_in(&mut self, log: &Log, error: &Error) -> Result<(), Broken> {
        let last = log.stats().last_error;
        let is_poisoned = last.is_some_and(|error| error.kind() == ErrorKind::Poisoned);
        if error.kind() == ErrorKind::Poisoned && !is_poisoned {
            if !self.may_fail() && self.names == Names::Sure {
                return Err(format!("nothing was wrong, and yet: {error}"));
            }
            self.names = Names::Lost;
            return Ok(());
        }
        // Positions of what is durable may be read and written whatever became of the log.
        if is_poisoned && self.may_fail() && is_of_the_system(error) {
            return Ok(());
        }
        self.failed(error)
    }

    /// The consumer stands where it may; from then on it stands there.
    pub(super) fn check_consumer(&mut self, log: &Log) -> Result<(), Broken> {
        if self.world.places == [None] {
            return Ok(());
        }
        let all = match log.consumers() {
            Ok(all) => all,
            Err(_) if self.may_fail() => {
                self.names = Names::Lost;
                return Ok(());
            }
            Err(error) => return Err(format!("consumers cannot be listed: {error}")),
        };
        let found = all.into_iter().find(|one| one.name == NAME);
        let place = match found {
            None => None,
            Some(one) if one.error.is_some() && self.may_fail() => return Ok(()),
            // It is written again before anybody relies on it, which takes space here.
            Some(one) if self.machine.copies_on_write() && is_full(&one.error) => return Ok(()),
            Some(one) => match one.committed {
                Some(committed) => Some(u64::from(committed)),
                None => return Err(format!("it cannot be read: {:?}", one.error)),
            },
        };
        if !self.world.places.contains(&place) {
            return Err(format!("it stands at {place:?}, not at any of {:?}", self.world.places));
        }
        if place.is_some_and(|at| at > self.world.end()) {
            return Err(format!("it stands at {place:?}, and the log ends before"));
        }
        self.stands_at(place);
        Ok(())
    }
}

fn move_it(consumer: &mut Consumer, op: Op) -> Result<(), Error> {
    if op == Op::Rewind {
        return consumer.seek(Seek::Start);
    }
    for _ in 0..2 {
        match consumer.next() {
            Ok(_) => {}
            // It was passed.
            Err(error) if error.kind() == ErrorKind::OutOfRange => {
                consumer.seek(Seek::Start)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_full(error: &Option<Error>) -> bool {
    error.as_ref().is_some_and(|error| error.kind() == ErrorKind::StorageFull)
}

fn is_of_the_system(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::StorageFull)
}
