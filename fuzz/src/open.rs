//! The files of a log after something happened to them: opened, read to the end, appended to,
//! opened again.

use crate::input::Input;
use crate::mutation;
use crate::mutation::Damage;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::model::Row;
use crate::world::WORLDS;
use crate::world::World;
use crate::world::options;
use std::sync::Arc;
use stratalog::storage::MemoryStorage;
use stratalog::{Error, ErrorKind, Log, Offset, Record, Seek};

/// The first byte chooses a log, the second another one, the rest is what happens to the first.
pub fn open(data: &[u8]) {
    let mut input = Input(data);
    let [world, other] = [(); 2].map(|()| &WORLDS[usize::from(input.byte()) % WORLDS.len()]);
    let closes = input.byte() % 2 == 0;
    let mut image = world.image.clone();
    let damage = mutation::apply(&mut image, world, other, &mut input);
    let storage = image.storage();
    match log(&storage) {
        Ok(log) => {
            let found = read_all(&log);
            check_truth(&log, &found, world, damage);
            // A forged length may reach over frames that are still to be written: they are appended,
            // and cannot be read.
            let murky = damage.forged && found.damaged > 0;
            go_on(&storage, log, found, closes, murky);
        }
        Err(error) => {
            check_error(&error);
            assert!(Image::of(&storage) == image, "refused, and changed: {error}");
        }
    }
}

fn log(storage: &MemoryStorage) -> Result<Log, Error> {
    options(Arc::new(storage.clone())).open(DIR)
}

/// What there is to read, and how often it did not go on.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    rows: Vec<(Offset, Row)>,
    damaged: usize,
}

/// Reads from the front, over damage, and looks at the same records in other ways.
fn read_all(log: &Log) -> Found {
    let mut found = Found { rows: Vec::new(), damaged: 0 };
    let mut cursor = log.cursor(Seek::Start).unwrap();
    let mut last_damage = None;
    loop {
        let place = cursor.offset();
        match cursor.next() {
            Ok(None) => break,
            Ok(Some(entry)) => {
                assert!(entry.offset() >= place, "a cursor went back");
                found.rows.push((entry.offset(), Row::from(entry)));
            }
            Err(error) => {
                check_error(&error);
                found.damaged += 1;
                let behind = error.readable_from().expect("damage has an end");
                // The same place again is the end of a frame with more records than it covers.
                assert!(place <= behind && behind <= log.end_offset(), "{place}: {error:?}");
                assert!(last_damage.is_none_or(|last| last < behind), "no way on: {error:?}");
                last_damage = Some(behind);
                cursor.seek(Seek::Offset(behind)).unwrap();
            }
        }
    }
    assert_eq!(cursor.offset().max(log.end_offset()), log.end_offset());
    for (offset, row) in found.rows.iter().step_by(1 + found.rows.len() / 50) {
        match log.get(*offset) {
            Ok(entry) => assert_eq!(Row::from(&entry.expect("it was read")), *row),
            Err(error) => assert!(found.damaged > 0, "it was read: {error}"),
        }
        if let Err(error) = log.cursor(Seek::Time(row.appended_at)) {
            check_error(&error);
        }
    }
    let mut backwards = log.cursor(Seek::End).unwrap();
    for (offset, row) in found.rows.iter().rev() {
        match backwards.prev() {
            Ok(entry) => {
                let entry = entry.expect("it was read forwards");
                assert!(
                    found.damaged > 0
                        || (entry.offset(), Row::from(entry)) == (*offset, row.clone())
                );
            }
            Err(error) => {
                check_error(&error);
                assert!(found.damaged > 0, "it was read forwards: {error}");
                break;
            }
        }
    }
    found
}

/// Unless checksums were made to fit, what is read is what was written.
fn check_truth(log: &Log, found: &Found, world: &World, damage: Damage) {
    if damage.forged {
        return;
    }
    for (offset, row) in &found.rows {
        let truth = usize::try_from(offset.get()).ok().and_then(|nth| world.rows.get(nth));
        // Files of another log, all of them together, are a log too.
        assert!(truth == Some(row) || damage.exchanged, "wrong record at {offset}: {row:?}");
    }
    if !damage.exchanged && world.closed && found.damaged == 0 {
        assert_eq!(found.rows.len(), world.rows.len(), "records are missing, and nobody says so");
        let cut_at = log.recovery().cut_at().unwrap_or(log.end_offset());
        assert_eq!(cut_at.get(), world.rows.len() as u64, "records were cut that were durable");
    }
}

/// Appends, and finds all again.
fn go_on(storage: &MemoryStorage, log: Log, mut found: Found, closes: bool, murky: bool) {
    for nth in 0..4 {
        let record = Record::new(format!("{nth} appended").repeat(1 + nth * 20));
        match log.append(record.clone()) {
            Ok(offset) if murky => log.get(offset).map_or_else(|error| check_error(&error), drop),
            Ok(offset) => {
                let entry = log.get(offset).unwrap().expect("it was appended");
                assert_eq!(Record::from(&entry), record);
                found.rows.push((offset, Row::from(&entry)));
            }
            // No offsets or no segment ids are left, for who makes checksums fit.
            Err(error) => assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error:?}"),
        }
    }
    if closes {
        log.close().unwrap();
    }
    drop(log);
    let log = self::log(storage).expect("it was open before");
    let again = read_all(&log);
    if again != found && !murky {
        let offsets = |found: &Found| found.rows.iter().map(|row| row.0.get()).collect::<Vec<_>>();
        let (before, after) = (offsets(&found), offsets(&again));
        let damaged = (found.damaged, again.damaged);
        panic!("another log than before: {before:?}, {after:?}, {damaged:?} times damaged");
    }
}

#[track_caller]
fn check_error(error: &Error) {
    let kinds = [ErrorKind::Corrupt, ErrorKind::UnsupportedVersion];
    assert!(kinds.contains(&error.kind()), "{error:?}");
    assert!(error.path().is_some_and(|path| path.starts_with(DIR)), "without a place: {error:?}");
    assert!(!error.to_string().is_empty());
}
