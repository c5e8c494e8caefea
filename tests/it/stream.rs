//! The log as a stream, and its futures, under executors that have nothing in common.

use crate::support::Site;
use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::assert_out_of_range;
use crate::support::at;
use crate::support::record;
use crate::support::records;
use crate::support::tail;
use crate::support::task::Alarm;
use crate::support::task::block_on;
use async_executor::Executor;
use futures_lite::StreamExt;
use futures_lite::future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use stratalog::{Durability, EntryStream, ErrorKind, Log, Maintenance, Offset, Record, Seek};

const READERS: usize = 50;
const COUNT: u64 = 300;

/// On a disk, with the log's own threads.
fn site(level: Durability) -> Site {
    Site::disk()
        .small_segments()
        .options(|options| options.durability(level).maintenance(Maintenance::Background))
}

/// Reads a stream to its end.
async fn read(mut stream: EntryStream) -> u64 {
    let mut number = 0;
    while let Some(entry) = stream.next().await {
        let entry = entry.unwrap();
        assert_eq!((entry.offset(), Record::from(&entry)), (at(number), record(number)));
        number += 1;
    }
    number
}

/// Reads with a cursor and its futures, until the log is closed.
async fn read_by_cursor(log: Log) -> u64 {
    let mut cursor = log.cursor(Seek::Start).unwrap();
    drop(log);
    loop {
        while cursor.next().unwrap().is_some() {}
        if let Err(error) = cursor.wait_async().await {
            assert_eq!(error.kind(), ErrorKind::Closed);
            while cursor.next().unwrap().is_some() {}
            return cursor.offset().get();
        }
    }
}

/// Appends beside the readers, gives them the time to run dry now and then, and closes the log.
fn append(log: &Log) {
    for number in 0..COUNT {
        log.append(record(number)).unwrap();
        if number % 10 == 0 {
            thread::yield_now();
        }
    }
    log.close().unwrap();
}

#[test]
fn under_tokio() {
    for level in [Durability::Buffered, Durability::Synced] {
        let site = site(level);
        let log = site.open();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let streams: Vec<_> =
            (0..READERS).map(|_| runtime.spawn(read(log.stream(Seek::Start).unwrap()))).collect();
        let cursors: Vec<_> =
            (0..READERS).map(|_| runtime.spawn(read_by_cursor(log.clone()))).collect();
        append(&log);
        for reader in streams.into_iter().chain(cursors) {
            assert_eq!(runtime.block_on(reader).unwrap(), COUNT);
        }
    }
}

#[test]
fn under_the_executor_of_smol() {
    for level in [Durability::Buffered, Durability::Synced] {
        let site = site(level);
        let log = site.open();
        let executor = Executor::new();
        let streams: Vec<_> =
            (0..READERS).map(|_| executor.spawn(read(log.stream(Seek::Start).unwrap()))).collect();
        let cursors: Vec<_> =
            (0..READERS).map(|_| executor.spawn(read_by_cursor(log.clone()))).collect();
        thread::scope(|scope| {
            scope.spawn(|| append(&log));
            future::block_on(executor.run(async {
                for reader in streams.into_iter().chain(cursors) {
                    assert_eq!(reader.await, COUNT);
                }
            }));
        });
    }
}

#[test]
fn under_an_executor_of_one_thread_and_one_task() {
    let site = site(Durability::Buffered);
    let log = site.open();
    let readers: Vec<_> = (0..4).map(|_| (log.stream(Seek::Start).unwrap(), log.clone())).collect();
    thread::scope(|scope| {
        for (stream, log) in readers {
            scope.spawn(|| assert_eq!(block_on(pin!(read(stream))), COUNT));
            scope.spawn(|| assert_eq!(block_on(pin!(read_by_cursor(log))), COUNT));
        }
        append(&log);
    });
}

#[test]
fn it_is_send_and_unpin_and_static() {
    fn check<T: Send + Unpin + 'static>(_: &T) {}
    let log = Site::memory().open();
    check(&log.stream(Seek::Start).unwrap());
    check(&log.cursor(Seek::Start).unwrap().wait_async());
}

/// The future of an item is dropped before it is ready, again and again.
#[test]
fn no_item_is_lost_with_the_future_of_it() {
    let log = Site::memory().options(|options| options.durability(Durability::Buffered)).open();
    let mut stream = log.stream(Seek::Start).unwrap();
    let alarm = Alarm::new();
    for number in 0..100 {
        for _ in 0..3 {
            assert!(alarm.poll(&mut stream.next()).is_pending());
        }
        log.append(record(number)).unwrap();
        // Each wait has one task, the last that looked.
        assert_eq!(alarm.rings() as u64, number + 1);
        let Poll::Ready(Some(Ok(entry))) = alarm.poll(&mut stream.next()) else { panic!("none") };
        assert_eq!((entry.offset(), Record::from(&entry)), (at(number), record(number)));
    }
    assert_eq!(stream.into_cursor().offset(), at(100));
}

#[test]
fn a_stream_that_is_dropped_lets_go_of_its_task() {
    let log = Site::memory().open();
    let mut stream = log.stream(Seek::Start).unwrap();
    let alarm = Alarm::new();
    assert!(alarm.poll(&mut stream.next()).is_pending());
    drop(stream);
    assert_eq!(Arc::strong_count(&alarm), 1);
}

#[test]
fn what_a_close_makes_visible_is_not_missed() {
    let log = Site::memory().open();
    let mut stream = log.stream(Seek::Start).unwrap();
    let alarm = Alarm::new();
    assert!(alarm.poll(&mut stream.next()).is_pending());
    log.append_batch_with(Durability::Buffered, tail(3)).unwrap();
    log.close().unwrap();
    assert_eq!(alarm.rings(), 1);
    for _ in 0..2 {
        assert_eq!(block_on(pin!(read(log.stream(Seek::Start).unwrap()))), 3);
    }
    assert_eq!(block_on(pin!(read(stream))), 3);
}

#[test]
fn an_error_is_its_last_item() {
    let log = Site::memory().open();
    append_all(&log, &records(0..5));
    let mut stream = log.stream(Seek::End).unwrap();
    let alarm = Alarm::new();
    assert!(alarm.poll(&mut stream.next()).is_pending());
    log.truncate_to(at(2)).unwrap();
    let Poll::Ready(Some(item)) = alarm.poll(&mut stream.next()) else { panic!("no item") };
    assert_out_of_range(item, 2);
    assert!(matches!(alarm.poll(&mut stream.next()), Poll::Ready(None)));
    log.close().unwrap();
    assert_kind(block_on(log.cursor(Seek::End).unwrap().wait_async()), ErrorKind::Closed);
}

#[test]
fn it_ends_where_no_record_ever_comes() {
    let log = Site::memory().open();
    log.delete_before(Offset::MAX).unwrap();
    let mut cursor = log.cursor(Seek::End).unwrap();
    let told = future::block_on(cursor.wait_async());
    assert_eq!(told.unwrap_err().kind(), ErrorKind::OutOfRange);
    let mut stream = log.stream(Seek::End).unwrap();
    assert!(future::block_on(stream.next()).is_none());
}
