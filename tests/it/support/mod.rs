//! Words that the tests are written in: where a log is, what goes into it, what must be there.

pub(crate) mod changelog;
pub(crate) mod choice;
pub(crate) mod clock;
pub(crate) mod compaction;
pub(crate) mod fault;
pub(crate) mod faulty;
pub(crate) mod forge;
pub(crate) mod gate;
pub(crate) mod gauge;
pub(crate) mod hook;
pub(crate) mod image;
pub(crate) mod medium;
pub(crate) mod model;
pub(crate) mod ordered;
pub(crate) mod positions;
pub(crate) mod replica;
pub(crate) mod rules;
pub(crate) mod site;
pub(crate) mod space;
pub(crate) mod steps;
pub(crate) mod task;

pub(crate) use site::Site;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use stratalog::storage::{Clock, SystemClock};
use stratalog::{Entry, ErrorKind, Log, Offset, Record, Result, Seek, Timestamp};

/// Longer than any wait of a test that passes.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) fn at(offset: u64) -> Offset {
    Offset::from(offset)
}

pub(crate) fn secs(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

/// A small record, another one for each number: with and without key, value, headers, timestamp.
pub(crate) fn record(number: u64) -> Record<'static> {
    let value = format!("value {number}");
    match number % 6 {
        0 => Record::new(value),
        1 => Record::new(value).key(format!("key {number}")),
        2 => tombstone(number),
        3 => Record::new(value).header("n", number.to_string()).header("n", "").key(""),
        4 => Record::new("").timestamp(Timestamp::from_micros(-i64::try_from(number).unwrap())),
        _ => Record::new(value.repeat(20)),
    }
}

pub(crate) fn tombstone(key: u64) -> Record<'static> {
    Record::tombstone(format!("key {key}"))
}

pub(crate) fn records(numbers: Range<u64>) -> Vec<Record<'static>> {
    numbers.map(record).collect()
}

/// Small records, as many as asked for.
pub(crate) fn tail(count: u64) -> Vec<Record<'static>> {
    records(0..count)
}

/// Records each of which fills one of the [`small segments`](Site::small_segments).
pub(crate) fn full(count: u64) -> Vec<Record<'static>> {
    let value = |number| format!("{number:0len$}", len = site::SMALL_SEGMENT_BYTES * 3 / 4);
    (0..count).map(|number| Record::new(value(number))).collect()
}

/// Appends them one by one, at the durability of the log.
pub(crate) fn append_all(log: &Log, records: &[Record<'_>]) {
    for record in records {
        log.append(record.clone()).unwrap();
    }
}

/// The log shows just these records, whichever way it is read.
#[track_caller]
pub(crate) fn check(log: &Log, expected: &[Record<'_>]) {
    let start = log.start_offset();
    assert_eq!(log.high_watermark() - start, expected.len() as u64, "high watermark");
    let expected = || expected.iter().enumerate().map(|(nth, record)| (start + nth as u64, record));

    let mut cursor = log.cursor(Seek::Start).unwrap();
    for (offset, record) in expected() {
        assert_same(cursor.next().unwrap().unwrap(), offset, record);
    }
    assert!(cursor.next().unwrap().is_none(), "more than expected");
    for (offset, record) in expected().collect::<Vec<_>>().into_iter().rev() {
        assert_same(cursor.prev().unwrap().unwrap(), offset, record);
    }
    assert!(cursor.prev().unwrap().is_none(), "something before the start");

    for (offset, record) in expected() {
        let entry = log.get(offset).unwrap().unwrap();
        assert_eq!((entry.offset(), &Record::from(&entry)), (offset, record), "get");
    }
    let mut iter = log.iter(Seek::Start).unwrap();
    for (offset, record) in expected() {
        let entry = iter.next().unwrap().unwrap();
        assert_eq!((entry.offset(), &Record::from(&entry)), (offset, record), "iter");
    }
    assert!(iter.next().is_none(), "iter gives more than expected");
}

#[track_caller]
pub(crate) fn assert_same(entry: Entry<'_>, offset: Offset, record: &Record<'_>) {
    assert_eq!((entry.offset(), &Record::from(entry)), (offset, record));
}

#[track_caller]
pub(crate) fn assert_kind<T: Debug>(result: Result<T>, kind: ErrorKind) {
    assert_eq!(result.unwrap_err().kind(), kind);
}

/// An offset outside the log, the nearest one inside being `nearest`.
#[track_caller]
pub(crate) fn assert_out_of_range<T: Debug>(result: Result<T>, nearest: u64) {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::OutOfRange, Some(at(nearest))));
}

/// Fails if the work does not end, and does not hang.
#[track_caller]
pub(crate) fn ends(work: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let work = move || {
        work();
        done.send(()).unwrap();
    };
    let thread = thread::Builder::new().spawn(work).unwrap();
    match is_done.recv_timeout(LONG) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread.join().unwrap(),
    }
}

/// Looks until it is so; what never comes true fails the test and does not hang it.
#[track_caller]
pub(crate) fn until(is_so: impl Fn() -> bool) {
    let clock = SystemClock::new();
    let deadline = clock.monotonic() + LONG;
    while !is_so() {
        assert!(clock.monotonic() < deadline, "it never came true");
        thread::yield_now();
    }
}
