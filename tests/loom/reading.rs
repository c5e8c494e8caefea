//! Readers beside an appender: no record is missed, read twice, out of order or torn.

use crate::support::LEVELS;
use crate::support::at;
use crate::support::begun;
use crate::support::disk::Disk;
use crate::support::explore;
use crate::support::spawn;
use stratalog::{Cursor, Durability, Log, Seek};

/// Looks so many times, and then, when the appender is done, until the end.
fn read_beside(log: &Log, looks: usize, append: impl FnOnce(&Log) + Send + 'static, count: u64) {
    let mut cursor = log.cursor(Seek::Start).unwrap();
    let appender = {
        let log = log.clone();
        spawn(move || append(&log))
    };
    let mut end = 0;
    for _ in 0..looks {
        end += u64::from(sees_next(&mut cursor, end));
    }
    appender.join().unwrap();
    while sees_next(&mut cursor, end) {
        end += 1;
    }
    assert_eq!(end, count);
}

/// The records hold their own offsets.
fn sees_next(cursor: &mut Cursor, end: u64) -> bool {
    let entry = cursor.next().unwrap();
    if let Some(entry) = entry {
        assert_eq!((entry.offset(), entry.value()), (at(end), end.to_string().as_bytes()));
    }
    entry.is_some()
}

/// The records go from memory to the file while the reader looks for them there.
#[test]
fn a_reader_while_the_tail_is_written() {
    explore("a reader while the tail is written", Some(2), || {
        let log = begun(&Disk::default(), Durability::Buffered);
        let append = |log: &Log| {
            log.append("1").unwrap();
            log.append_with(Durability::Written, "2").unwrap();
            log.append("3").unwrap();
        };
        read_beside(&log, 3, append, 4);
    });
}

#[test]
fn a_reader_while_the_log_rolls() {
    explore("a reader while the log rolls", Some(2), || {
        let log = begun(&Disk::default(), Durability::Buffered);
        let append = |log: &Log| {
            log.append("1").unwrap();
            log.roll().unwrap();
            log.append_with(Durability::Written, "2").unwrap();
        };
        read_beside(&log, 3, append, 3);
    });
}

#[test]
fn a_reader_of_what_is_durable() {
    explore("a reader of what is durable", Some(3), || {
        let log = begun(&Disk::default(), Durability::Synced);
        let append = |log: &Log| {
            log.append("1").unwrap();
            log.append("2").unwrap();
        };
        read_beside(&log, 3, append, 3);
    });
}

#[test]
fn a_reader_that_goes_back() {
    explore("a reader that goes back", Some(4), || {
        let log = begun(&Disk::default(), Durability::Written);
        let appender = {
            let log = log.clone();
            spawn(move || {
                log.append("1").unwrap();
                log.append("2").unwrap();
            })
        };
        let mut cursor = log.cursor(Seek::End).unwrap();
        let mut end = cursor.offset().get();
        while let Some(entry) = cursor.prev().unwrap() {
            end -= 1;
            assert_eq!((entry.offset(), entry.value()), (at(end), end.to_string().as_bytes()));
        }
        assert_eq!(end, 0);
        appender.join().unwrap();
    });
}

/// In the order in which each is read, what it covers has been covered by those read before.
#[test]
fn the_marks_of_a_log_keep_their_order() {
    explore("the marks of a log keep their order", Some(3), || {
        let log = begun(&Disk::default(), Durability::Written);
        let appender = {
            let log = log.clone();
            spawn(move || LEVELS.map(|level| log.append_with(level, "x").unwrap()))
        };
        let mut before = [at(0); 4];
        for _ in 0..2 {
            let (durable, written) = (log.durable_offset(), log.written_offset());
            let now = [durable, written, log.high_watermark(), log.end_offset()];
            assert!(durable <= now[1].min(now[2]) && now[1].max(now[2]) <= now[3], "{now:?}");
            assert!(before.iter().zip(&now).all(|(before, now)| before <= now), "{before:?}");
            before = now;
        }
        appender.join().unwrap();
    });
}

/// If nobody woke it, it would wait for ever, which loom reports.
#[test]
fn a_reader_that_waits() {
    explore("a reader that waits", None, || {
        let log = begun(&Disk::default(), Durability::Written);
        let mut cursor = log.cursor(Seek::End).unwrap();
        let reader = spawn(move || {
            assert!(cursor.wait(std::time::Duration::MAX).unwrap());
            assert!(sees_next(&mut cursor, 1));
        });
        log.append("1").unwrap();
        reader.join().unwrap();
    });
}
