//! Appending: what comes back, where it is put, how far it gets, and what is refused.

use crate::support::Site;
use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::assert_out_of_range;
use crate::support::assert_same;
use crate::support::at;
use crate::support::check;
use crate::support::full;
use crate::support::record;
use crate::support::records;
use crate::support::tail;
use std::borrow::Cow;
use stratalog::{Durability, Entry, Error, ErrorKind, Log, Options, Record, Seek, Timestamp, Wait};

#[test]
fn offsets_count_from_zero() {
    for site in Site::each() {
        let log = site.open();
        for number in 0..10 {
            assert_eq!(log.end_offset(), at(number));
            assert_eq!(log.append(record(number)).unwrap(), at(number));
        }
        assert_eq!(log.append_batch(tail(5)).unwrap(), at(10)..at(15));
        assert_eq!(log.append("after the batch").unwrap(), at(15));
    }
}

#[test]
fn what_is_appended_is_what_is_read() {
    for site in Site::each() {
        let log = site.open();
        let strange = [
            Record::new(""),
            Record::new("").key(""),
            Record::tombstone(""),
            Record::new("no key"),
            Record::new("an empty key").key(""),
            Record::tombstone("k").header("why", "gone").timestamp(Timestamp::MIN),
            Record::new("v").header("n", "2").header("m", "").header("n", "1").header("", "é"),
            Record::new(vec![0, 255, 10]).key(vec![0; 300]).timestamp(Timestamp::MAX),
            Record::new("v").header("größe", vec![0; 300]).timestamp(Timestamp::ZERO),
        ];
        append_all(&log, &strange);
        check(&log, &strange);
        log.append_batch(strange.clone()).unwrap();
        log.close().unwrap();
        site.check(&[&strange[..], &strange[..]].concat());
    }
}

#[test]
fn missing_and_empty_are_different() {
    let log = Site::memory().open();
    append_all(&log, &[Record::new(""), Record::new("").key(""), Record::tombstone("")]);
    let facts = |offset| {
        let entry = log.get(at(offset)).unwrap().unwrap();
        (entry.key().map(<[u8]>::len), entry.value().len(), entry.is_tombstone())
    };
    assert_eq!(facts(0), (None, 0, false));
    assert_eq!(facts(1), (Some(0), 0, false));
    assert_eq!(facts(2), (Some(0), 0, true));
}

#[test]
fn whatever_holds_bytes_can_be_appended() {
    let log = Site::memory().open();
    let string = String::from("x");
    let bytes = vec![b'x'];
    log.append("x").unwrap();
    log.append(b"x").unwrap();
    log.append(&string).unwrap();
    log.append(&bytes).unwrap();
    log.append(bytes.as_slice()).unwrap();
    log.append(bytes).unwrap();
    log.append(Cow::Borrowed(&b"x"[..])).unwrap();
    log.append(string).unwrap();
    log.append_batch((0..2).map(|_| "x".to_string())).unwrap();
    log.append_batch(["x"; 2]).unwrap();
    log.append_batch(vec![vec![b'x']; 2]).unwrap();
    log.append_batch(&["x"; 2]).unwrap();
    check(&log, &vec![Record::new("x"); 16]);
}

#[test]
fn entries_can_be_appended_to_another_log() {
    let (source, target) = (Site::memory().open(), Site::memory().open());
    append_all(&source, &tail(12));
    let mut cursor = source.cursor(Seek::Start).unwrap();
    while let Some(entry) = cursor.next().unwrap() {
        target.append(entry).unwrap();
    }
    check(&target, &tail(12));
    let entries: Vec<_> = source.iter(Seek::Start).unwrap().map(Result::unwrap).collect();
    target.append_batch(&entries).unwrap();
    check(&target, &[tail(12), tail(12)].concat());
}

#[test]
fn handles_go_where_they_are_needed() {
    fn shared<T: Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    fn cloned<T: Clone>() {}
    fn copied<T: Copy>() {}
    fn moved<T: Unpin>() {}
    shared::<Log>();
    cloned::<Log>();
    sent::<stratalog::Cursor>();
    sent::<stratalog::Iter>();
    sent::<Wait>();
    moved::<Wait>();
    shared::<Error>();
    cloned::<Error>();
    copied::<Entry<'_>>();
    shared::<stratalog::EntryBuf>();
}

#[test]
fn each_durability_reaches_its_watermark() {
    for site in Site::each() {
        let log = site.open();
        let marks =
            || [log.end_offset(), log.written_offset(), log.durable_offset()].map(u64::from);
        log.append_with(Durability::Buffered, "a").unwrap();
        assert_eq!(marks(), [1, 0, 0]);
        log.append_with(Durability::Written, "b").unwrap();
        assert_eq!(marks(), [2, 2, 0]);
        log.append_with(Durability::Synced, "c").unwrap();
        assert_eq!(marks(), [3, 3, 3]);
        log.append_batch_with(Durability::Buffered, ["d", "e"]).unwrap();
        assert_eq!(marks(), [5, 3, 3]);
        log.append_at_with(Durability::Written, at(5), ["f"]).unwrap();
        assert_eq!(marks(), [6, 6, 3]);
        log.sync().unwrap();
        assert_eq!(marks(), [6, 6, 6]);
    }
}

#[test]
fn the_durability_of_the_log_is_that_of_its_appends() {
    for (durability, expected) in [
        (Durability::Buffered, [2, 0, 0]),
        (Durability::Written, [2, 2, 0]),
        (Durability::Synced, [2, 2, 2]),
    ] {
        let log = Site::memory().options(|options| options.durability(durability)).open();
        log.append("a").unwrap();
        log.append_at(at(1), ["b"]).unwrap();
        let marks = [log.end_offset(), log.written_offset(), log.durable_offset()];
        assert_eq!(marks.map(u64::from), expected, "{durability:?}");
    }
}

#[test]
fn wait_makes_any_append_stronger() {
    for site in Site::each() {
        let log = site.open();
        log.append_batch_with(Durability::Buffered, tail(3)).unwrap();
        log.wait(at(1), Durability::Buffered).unwrap();
        assert_eq!(log.written_offset(), at(0));
        log.wait(at(1), Durability::Written).unwrap();
        assert!(log.written_offset() >= at(2));
        assert_eq!(log.durable_offset(), at(0));
        log.wait(at(1), Durability::Synced).unwrap();
        assert!(log.durable_offset() >= at(2));
    }
}

#[test]
fn waiting_for_what_is_not_there_is_out_of_range() {
    let log = Site::memory().open();
    assert_out_of_range(log.wait(at(0), Durability::Synced), 0);
    append_all(&log, &tail(3));
    for level in [Durability::Buffered, Durability::Written, Durability::Synced] {
        assert_out_of_range(log.wait(at(3), level), 3);
        assert_out_of_range(log.wait(stratalog::Offset::MAX, level), 3);
        log.wait(at(2), level).unwrap();
    }
}

#[test]
fn weaker_appends_to_a_synced_log_are_seen_with_the_next_sync() {
    for level in [Durability::Buffered, Durability::Written] {
        let log = Site::memory().open();
        log.append("synced").unwrap();
        log.append_with(level, "not yet").unwrap();
        assert_eq!((log.high_watermark(), log.end_offset()), (at(1), at(2)));
        check(&log, &[Record::new("synced")]);
        assert_eq!(log.get(at(1)).unwrap(), None);
        assert_eq!(log.cursor(Seek::End).unwrap().offset(), at(1));
        log.sync().unwrap();
        check(&log, &[Record::new("synced"), Record::new("not yet")]);
    }
}

#[test]
fn a_log_below_synced_shows_what_is_accepted() {
    for level in [Durability::Buffered, Durability::Written] {
        let log = Site::memory().options(|options| options.durability(level)).open();
        append_all(&log, &tail(3));
        assert_eq!((log.high_watermark(), log.durable_offset()), (at(3), at(0)));
        check(&log, &tail(3));
    }
}

#[test]
fn a_sync_of_nothing_is_fine() {
    let log = Site::memory().open();
    log.sync().unwrap();
    log.append("a").unwrap();
    log.sync().unwrap();
    assert_eq!(log.durable_offset(), at(1));
}

#[test]
fn an_empty_batch_is_an_empty_range_at_the_end() {
    let log = Site::memory().open();
    let nothing: [&str; 0] = [];
    assert_eq!(log.append_batch(nothing).unwrap(), at(0)..at(0));
    append_all(&log, &tail(3));
    assert_eq!(log.append_batch(nothing).unwrap(), at(3)..at(3));
    assert_eq!(log.append_at(at(3), nothing).unwrap(), at(3)..at(3));
    check(&log, &tail(3));
}

#[test]
fn append_at_wants_the_end() {
    let log = Site::memory().open();
    append_all(&log, &tail(3));
    for elsewhere in [0, 2, 4, u64::MAX] {
        for batch in [vec![], tail(2)] {
            let error = log.append_at(at(elsewhere), batch).unwrap_err();
            assert_eq!((error.kind(), error.offset()), (ErrorKind::Conflict, Some(at(3))));
        }
    }
    check(&log, &tail(3));
    assert_eq!(log.append_at(at(3), records(3..5)).unwrap(), at(3)..at(5));
    check(&log, &tail(5));
}

/// The flags take one byte, the length of a value as long as these two.
#[test]
fn the_limit_of_a_batch_is_exact() {
    for (limit, room) in [(64, 62), (1024, 1021), (60_000, 59_996), (1 << 20, (1 << 20) - 4)] {
        let log = Site::memory().options(|options| options.max_batch_bytes(limit)).open();
        let [largest, over] = [room, room + 1].map(|len| vec![b'v'; len]);
        assert_kind(log.append(&over), ErrorKind::TooLarge);
        assert_kind(log.append_batch([&over]), ErrorKind::TooLarge);
        assert_kind(log.append_at(at(0), [&over]), ErrorKind::TooLarge);
        assert_kind(log.append_batch([&largest[..], b""]), ErrorKind::TooLarge);
        assert_eq!(log.end_offset(), at(0));
        assert_eq!(log.append(&largest).unwrap(), at(0));
        assert_eq!(log.append_batch([&largest]).unwrap(), at(1)..at(2));
        check(&log, &[Record::new(&largest), Record::new(&largest)]);
    }
}

#[test]
fn the_default_limit_of_a_batch_is_its_constant() {
    let log = Site::memory().open();
    let over = vec![0; usize::try_from(Options::MAX_BATCH_BYTES).unwrap()];
    assert_kind(log.append(&over), ErrorKind::TooLarge);
    log.append_with(Durability::Buffered, &over[..over.len() - 5]).unwrap();
}

#[test]
fn keys_and_headers_count_too() {
    let log = Site::memory().options(|options| options.max_batch_bytes(1024)).open();
    let long = vec![b'x'; 1024];
    assert_kind(log.append(Record::new("v").key(&long)), ErrorKind::TooLarge);
    assert_kind(log.append(Record::tombstone(&long)), ErrorKind::TooLarge);
    assert_kind(log.append(Record::new("v").header("h", &long)), ErrorKind::TooLarge);
    assert_eq!(log.append("v").unwrap(), at(0));
}

#[test]
fn what_is_larger_than_a_segment_gets_one_of_its_own() {
    for site in Site::each().map(Site::small_segments) {
        let log = site.open();
        let large = Record::new(vec![b'x'; 5000]).key("large");
        log.append("before").unwrap();
        log.append(large.clone()).unwrap();
        log.append_batch(full(4)).unwrap();
        log.append("after").unwrap();
        log.close().unwrap();
        assert_eq!(site.segments().len(), 4);
        let expected = [vec![Record::new("before"), large], full(4), vec![Record::new("after")]];
        site.check(&expected.concat());
    }
}

/// Around the sizes at which frames are closed and buffers are handed on.
#[test]
fn sizes_of_every_order_keep_their_bytes() {
    for level in [Durability::Buffered, Durability::Written, Durability::Synced] {
        let site = Site::memory().options(|options| options.durability(level));
        let log = site.open();
        let sizes = [8 << 10, 16 << 10, 64 << 10, 256 << 10, 700_000];
        let mut expected = Vec::new();
        for (nth, size) in (0..).zip(sizes.iter().flat_map(|size| size - 60..size + 6).step_by(11))
        {
            let large = Record::new(vec![u8::try_from(size % 251).unwrap(); size]);
            append_all(&log, &[record(nth), large.clone()]);
            log.append_batch([large.clone(), record(nth)]).unwrap();
            expected.extend([record(nth), large.clone(), large, record(nth)]);
        }
        if level == Durability::Buffered {
            check(&log, &expected);
        }
        log.close().unwrap();
        site.check(&expected);
    }
}

#[test]
fn a_batch_of_very_many_records_is_one_range() {
    let log = Site::memory().small_segments().open();
    assert_eq!(log.append_batch(tail(10_000)).unwrap(), at(0)..at(10_000));
    let found = log.iter(Seek::Start).unwrap().map(Result::unwrap);
    assert!(found.map(|entry| entry.offset().get()).eq(0..10_000));
    let mut cursor = log.cursor(Seek::End).unwrap();
    for number in (0..10_000).rev() {
        assert_same(cursor.prev().unwrap().unwrap(), at(number), &record(number));
    }
}

#[test]
fn a_closed_log_takes_nothing() {
    let log = Site::memory().open();
    append_all(&log, &tail(3));
    log.close().unwrap();
    assert_kind(log.append("a"), ErrorKind::Closed);
    assert_kind(log.append_with(Durability::Buffered, "a"), ErrorKind::Closed);
    assert_kind(log.append_batch(["a"]), ErrorKind::Closed);
    assert_kind(log.append_at(at(3), ["a"]), ErrorKind::Closed);
    assert_kind(log.roll(), ErrorKind::Closed);
    check(&log, &tail(3));
}

#[test]
fn what_is_unsynced_is_bounded_without_a_thread() {
    let site = Site::memory().options(|options| options.max_unsynced_bytes(10_000));
    let log = site.options(|options| options.durability(Durability::Buffered)).open();
    for _ in 0..1000 {
        log.append(vec![b'x'; 98]).unwrap();
        assert!(log.end_offset() - log.durable_offset() <= 101);
    }
    assert!(log.durable_offset() > at(0));
}
