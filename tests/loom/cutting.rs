//! The log is cut beside appends, waits and readers: each is told the truth.

use crate::support::after_power_cut;
use crate::support::at;
use crate::support::begun;
use crate::support::disk::Disk;
use crate::support::explore;
use crate::support::spawn;
use crate::support::values;
use std::time::Duration;
use stratalog::{Cursor, Durability, ErrorKind, Log, Offset, Result, Seek};

/// Two records, the second of which is to go.
fn two(disk: &Disk, level: Durability) -> Log {
    let log = begun(disk, level);
    log.append("1").unwrap();
    log
}

/// Either way it is known which records there are: those of the appends that came after the cut.
#[test]
fn an_append_beside_a_truncation() {
    explore("an append beside a truncation", Some(3), || {
        let disk = Disk::default();
        let log = two(&disk, Durability::Synced);
        let appender = {
            let log = log.clone();
            spawn(move || log.append("new"))
        };
        log.truncate_to(at(1)).unwrap();
        let expected = match appender.join().unwrap() {
            Ok(offset) if offset == at(1) => vec!["0", "new"],
            Ok(offset) => {
                assert_eq!(offset, at(2));
                vec!["0"]
            }
            Err(error) => {
                assert_eq!((error.kind(), error.offset()), (ErrorKind::OutOfRange, Some(at(1))));
                vec!["0"]
            }
        };
        assert_eq!(values(&log), expected);
        assert_eq!(after_power_cut(&disk), expected);
    });
}

#[test]
fn a_wait_beside_a_truncation() {
    explore("a wait beside a truncation", Some(3), || {
        let disk = Disk::default();
        let log = two(&disk, Durability::Buffered);
        let waiter = {
            let log = log.clone();
            spawn(move || log.wait(at(1), Durability::Synced))
        };
        log.truncate_to(at(1)).unwrap();
        if let Err(error) = waiter.join().unwrap() {
            assert_eq!((error.kind(), error.offset()), (ErrorKind::OutOfRange, Some(at(1))));
        }
        assert_eq!((log.durable_offset(), log.end_offset()), (at(1), at(1)));
        assert_eq!(after_power_cut(&disk), ["0"]);
    });
}

/// What a cursor gives next, as the models check it.
fn next(cursor: &mut Cursor) -> Result<Option<(Offset, String)>> {
    let entry = cursor.next()?;
    Ok(entry.map(|entry| (entry.offset(), String::from_utf8(entry.value().to_vec()).unwrap())))
}

/// It reads the old record or the new one; behind the old one it is told, whatever was appended.
#[test]
fn a_reader_beside_a_truncation() {
    explore("a reader beside a truncation", Some(2), || {
        let log = two(&Disk::default(), Durability::Written);
        let mut cursor = log.cursor(Seek::Offset(at(1))).unwrap();
        let cutter = {
            let log = log.clone();
            spawn(move || {
                log.truncate_to(at(1)).unwrap();
                log.append("a").unwrap();
                log.append("b").unwrap();
            })
        };
        let mut found = next(&mut cursor).unwrap();
        cutter.join().unwrap();
        if found.is_none() {
            found = next(&mut cursor).unwrap();
        }
        let behind = next(&mut cursor);
        match found.unwrap().1.as_str() {
            "1" => {
                let error = behind.unwrap_err();
                assert_eq!((error.kind(), error.offset()), (ErrorKind::OutOfRange, Some(at(1))));
            }
            first => {
                assert_eq!(first, "a");
                assert_eq!(behind.unwrap(), Some((at(2), "b".to_owned())));
            }
        }
    });
}

/// It waits in front of the record that goes, and sees the one that comes.
#[test]
fn a_reader_that_waits_beside_a_truncation() {
    explore("a reader that waits beside a truncation", Some(3), || {
        let log = two(&Disk::default(), Durability::Written);
        let mut cursor = log.cursor(Seek::End).unwrap();
        let waiter = spawn(move || match cursor.wait(Duration::MAX) {
            Ok(_) => panic!("its place has gone"),
            Err(error) => {
                assert_eq!((error.kind(), error.offset()), (ErrorKind::OutOfRange, Some(at(1))));
            }
        });
        log.truncate_to(at(1)).unwrap();
        log.append("a").unwrap();
        waiter.join().unwrap();
    });
}

/// The record is in front of the jump, and gone, or behind it, and there.
#[test]
fn an_append_beside_a_jump() {
    explore("an append beside a jump", Some(3), || {
        let disk = Disk::default();
        let log = begun(&disk, Durability::Synced);
        let appender = {
            let log = log.clone();
            spawn(move || log.append("new"))
        };
        log.delete_before(at(5)).unwrap();
        let appended = appender.join().unwrap().unwrap();
        assert!([at(1), at(5)].contains(&appended), "{appended}");
        let expected = if appended == at(5) { vec!["new"] } else { Vec::new() };
        assert_eq!(log.start_offset(), at(5));
        assert_eq!(values(&log), expected);
        assert_eq!(after_power_cut(&disk), expected);
    });
}

/// All there is goes; what is appended meanwhile stays.
#[test]
fn an_append_while_the_log_is_emptied() {
    explore("an append while the log is emptied", Some(3), || {
        let log = begun(&Disk::default(), Durability::Buffered);
        let appender = {
            let log = log.clone();
            spawn(move || log.append("new"))
        };
        log.delete_before(at(1)).unwrap();
        assert_eq!(appender.join().unwrap().unwrap(), at(1));
        assert_eq!(values(&log), ["new"]);
    });
}
