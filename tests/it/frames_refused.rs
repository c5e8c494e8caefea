//! Frames that are not what a log ships: each is refused, as a whole, with the place.

use crate::support::Site;
use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::at;
use crate::support::compaction::compacting;
use crate::support::compaction::damage;
use crate::support::compaction::fill;
use crate::support::records;
use crate::support::replica::Wire;
use crate::support::replica::shipped;
use stratalog::Durability::Buffered;
use stratalog::{Error, ErrorKind, Log, Position, Seek};

/// Frames of every kind: many records, one, tombstones, headers, steps, holes.
fn sample() -> Vec<u8> {
    let leader = compacting(Site::memory()).small_segments().open();
    fill(&leader, 60, 9);
    leader.compact().unwrap();
    append_all(&leader, &records(0..6));
    let mut bytes = shipped(&leader, at(0));
    bytes.extend(Wire::hole(leader.end_offset().get(), 4).bytes());
    bytes
}

#[track_caller]
fn refuse(replica: &Log, bytes: &[u8]) -> Error {
    let before = (replica.start_offset(), replica.end_offset());
    let error = replica.append_frames_with(Buffered, bytes).unwrap_err();
    assert_eq!((replica.start_offset(), replica.end_offset()), before, "something was appended");
    error
}

#[test]
fn each_flipped_bit_is_seen_where_it_is() {
    let bytes = sample();
    let replica = Site::memory().open();
    for nth in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[nth / 8] ^= 1 << (nth % 8);
        let error = refuse(&replica, &damaged);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "bit {nth}: {error}");
        let position = error.position().unwrap();
        let byte = Position::from(nth as u64 / 8);
        assert!(position <= byte, "bit {nth} of byte {byte}: {error}");
        assert_kind(replica.diverges_from(&damaged), ErrorKind::Corrupt);
    }
    replica.append_frames(&bytes).unwrap();
}

#[test]
fn each_shorter_piece_is_whole_frames_or_refused() {
    let bytes = sample();
    let mut whole = 0;
    for len in 1..bytes.len() {
        let replica = Site::memory().open();
        match replica.append_frames_with(Buffered, &bytes[..len]) {
            Ok(range) => {
                assert_eq!(range, at(0)..replica.end_offset());
                whole += 1;
            }
            Err(error) => {
                assert_eq!((error.kind(), replica.end_offset()), (ErrorKind::Corrupt, at(0)));
            }
        }
    }
    assert!(whole > 3, "{whole} pieces were whole");
}

#[test]
fn garbage_behind_frames_is_seen() {
    let bytes = sample();
    let replica = Site::memory().open();
    for len in (1..100).chain([1024]) {
        for byte in [0, 0xff, 1] {
            let garbage = [&bytes[..], &vec![byte; len]].concat();
            let error = refuse(&replica, &garbage);
            let place = (error.kind(), error.position());
            let expected = Position::from(bytes.len() as u64);
            assert_eq!(place, (ErrorKind::Corrupt, Some(expected)), "{len} of {byte}");
        }
    }
    refuse(&replica, &[&bytes[..], &bytes].concat());
}

/// Checksums that fit around what no log ships.
#[test]
fn headers_that_lie_are_refused() {
    let good = Wire::values(0, 1000, &[b"a", b"b"]);
    let edit = |edit: fn(&mut Wire)| {
        let mut wire = good.clone();
        edit(&mut wire);
        wire.bytes()
    };
    let after = |wire: &Wire| [good.bytes(), wire.bytes()].concat();
    let len = |len| good.sealed(len, crc32fast::hash(&good.body));
    let cases: &[(&str, Vec<u8>)] = &[
        ("no offset", edit(|wire| wire.count = 0)),
        ("more offsets than there are", edit(|wire| wire.base = u64::MAX - 1)),
        ("a gap", edit(|wire| (wire.base, wire.gap) = (3, 1))),
        ("a gap beyond the start", edit(|wire| wire.gap = 1)),
        ("fewer offsets than records", edit(|wire| wire.count = 1)),
        ("data without a body", edit(|wire| wire.body.clear())),
        ("a hole with a body", edit(|wire| wire.kind = 2)),
        ("no kind", edit(|wire| wire.kind = 0)),
        ("a dated hole", Wire { at: 1, ..Wire::hole(0, 3) }.bytes()),
        ("a hole of nothing", Wire::hole(0, 0).bytes()),
        ("a hole with a checksum", Wire::hole(0, 3).sealed(0, 1)),
        ("a body longer by one", len(7)),
        ("a body to the end and a bit", len(9)),
        ("a body of 1 GiB", len(1 << 30)),
        ("a body of 1 GiB and one", len((1 << 30) + 1)),
        ("a body of 4 GiB", len(u32::MAX)),
        ("a body that is shorter", len(5)),
        ("another body CRC", good.sealed(6, 0)),
        ("an offset skipped", after(&Wire::values(3, 1000, &[b"c"]))),
        ("an offset twice", after(&Wire::values(1, 1000, &[b"c"]))),
        ("the same frame twice", after(&good)),
        ("the same hole twice", [Wire::hole(0, 1).bytes(), Wire::hole(0, 1).bytes()].concat()),
        ("a frame back in time", after(&Wire::values(2, 999, &[b"c"]))),
        ("a frame at the lowest time", after(&Wire::values(2, i64::MIN, &[b"c"]))),
    ];
    refuse_each(cases);
}

#[test]
fn bodies_that_lie_are_refused() {
    let body = |count, body: &[u8]| Wire::of(0, 1000, count, body).bytes();
    let cases: &[(&str, Vec<u8>)] = &[
        ("a frame before the last record", {
            let late = Wire::of(0, 1000, 1, [0x10, 50, 1, b'a']);
            [late.bytes(), Wire::values(1, 1049, &[b"b"]).bytes()].concat()
        }),
        // Its record is late enough, but whoever looks for a time goes by the frame.
        ("a frame begun before the last record", {
            let late = Wire::of(0, 1000, 1, [0x10, 50, 1, b'a']);
            let early = Wire::of(1, 1040, 1, [0x10, 20, 1, b'b']);
            [late.bytes(), early.bytes()].concat()
        }),
        ("a record back in time", body(2, &[0x10, 5, 1, b'a', 0x10, 4, 1, b'b'])),
        ("a time behind the last", {
            let body = [0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, b'a'];
            Wire::of(0, i64::MAX, 1, body).bytes()
        }),
        ("a step of 0", body(2, &[0x20, 0, 1, b'a'])),
        ("a step beyond the frame", body(2, &[0x20, 2, 1, b'a'])),
        ("a step beyond all offsets", {
            let step = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
            body(2, &[&[0x20][..], &step, &[1, b'a']].concat())
        }),
        ("a value longer than the body", body(1, &[0, 200, 1])),
        ("a key longer than all memory", {
            let len = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
            body(1, &[&[1][..], &len].concat())
        }),
        ("a length of eleven bytes", body(1, &[&[1][..], &[0xff; 11]].concat())),
        ("a length that is too long", body(1, &[0, 0x81, 0, b'a'])),
        ("a tombstone without a key", body(1, &[2])),
        ("headers that are none", body(1, &[4, 0, 0])),
        ("a name that is no text", body(1, &[4, 0, 3, 1, 0xff, 0])),
        ("half a record", body(2, &[0, 1, b'a', 0])),
        ("padding that says something", {
            let mut bytes = body(1, &[0, 1, b'a']);
            *bytes.last_mut().unwrap() = 1;
            bytes
        }),
    ];
    refuse_each(cases);
}

#[track_caller]
fn refuse_each(cases: &[(&str, Vec<u8>)]) {
    let replica = Site::memory().options(|options| options.max_batch_bytes((1 << 30) - 16)).open();
    for (what, bytes) in cases {
        let error = refuse(&replica, bytes);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        assert!(error.position().is_some(), "{what}: {error}");
    }
    replica.append_frames(&Wire::values(0, 1000, &[b"a", b"b"]).bytes()).unwrap();
}

/// What a newer version ships is told from damage.
#[test]
fn what_must_be_understood_and_is_not_is_of_a_newer_version() {
    let good = Wire::values(0, 1000, &[b"a"]);
    let replica = Site::memory().open();
    let newer = [
        Wire { kind: 3, ..good.clone() },
        Wire { codec: 1, ..good.clone() },
        Wire { flags: 1, ..good.clone() },
        Wire::of(0, 1000, 1, [0x40, 1, b'a']),
    ];
    for wire in newer {
        let error = refuse(&replica, &wire.bytes());
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion, "{wire:?}: {error}");
    }
}

#[test]
fn a_frame_over_the_limit_is_too_large_and_one_of_small_records_never_is() {
    let replica = Site::memory().options(|options| options.max_batch_bytes(64)).open();
    let small: Vec<&[u8]> = vec![b"0123456789"; 500];
    replica.append_frames(&Wire::values(0, 1, &small).bytes()).unwrap();
    let body = [&[0, 0x80, 0x7d][..], &[7; 16000]].concat();
    let large = Wire::of(500, 1, 1, body).bytes();
    assert_eq!(refuse(&replica, &large).kind(), ErrorKind::TooLarge);
    let other = Site::memory().options(|options| options.max_batch_bytes(16003)).open();
    other.delete_before(at(500)).unwrap();
    other.append_frames(&large).unwrap();
}

/// The last offsets there are can be shipped, and none behind them.
#[test]
fn the_highest_offsets_are_no_exception() {
    let replica = Site::memory().open();
    let last = u64::MAX - 1;
    replica.delete_before(at(last)).unwrap();
    replica.append_frames(&Wire::values(last, 1, &[b"last"]).bytes()).unwrap();
    assert_eq!(replica.end_offset(), at(u64::MAX));
    assert_eq!(shipped(&replica, at(last)), Wire::values(last, 1, &[b"last"]).bytes());
    assert_kind(replica.append("more"), ErrorKind::OutOfRange);
    // And holes as large as a frame can say: each needs a segment of its own.
    let site = Site::memory();
    let replica = site.open();
    let holes = [0, 1, 2].map(|nth| Wire::hole(nth * u64::from(u32::MAX), u32::MAX).bytes());
    replica.append_frames(&holes.concat()).unwrap();
    replica.append("behind").unwrap();
    let replica = site.reopen(replica);
    check_compacted_at(&replica, 3 * u64::from(u32::MAX));
}

fn check_compacted_at(log: &Log, offset: u64) {
    let mut cursor = log.cursor(Seek::Start).unwrap();
    assert_eq!(cursor.next().unwrap().unwrap().offset(), at(offset));
    assert!(cursor.next().unwrap().is_none());
    assert_eq!(cursor.prev().unwrap().unwrap().offset(), at(offset));
    assert!(cursor.prev().unwrap().is_none());
}

/// A leader ships nothing that is damaged.
#[test]
fn a_damaged_frame_is_not_shipped() {
    let site = Site::disk().small_segments();
    let leader = site.open();
    append_all(&leader, &records(0..40));
    leader.close().unwrap();
    drop(leader);
    damage(&site, 0);
    let leader = site.open();
    let error = leader.frames(at(0), 1 << 20).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::Corrupt, Some(at(0))));
    let next = error.readable_from().unwrap();
    assert_eq!(leader.frames(next, 1 << 20).unwrap().range().start, next);
}

#[test]
fn a_closed_replica_takes_nothing_and_a_closed_leader_ships_on() {
    let leader = Site::memory().open();
    append_all(&leader, &records(0..10));
    leader.close().unwrap();
    let bytes = shipped(&leader, at(0));
    let replica = Site::memory().open();
    replica.append_frames(&bytes).unwrap();
    replica.close().unwrap();
    assert_kind(replica.append_frames(&bytes), ErrorKind::Closed);
}

/// A few bytes of holes would make a thousand segments.
#[test]
fn a_shipment_covers_so_many_offsets_and_no_more() {
    const SPAN_MAX: u64 = 1 << 36;
    let far = u64::from(u32::MAX);
    let holes = |count| (0..count).flat_map(move |nth| Wire::hole(nth * far, u32::MAX).bytes());
    let replica = Site::memory().open();
    let most = SPAN_MAX / far;
    let error = refuse(&replica, &holes(most + 1).collect::<Vec<_>>());
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    replica.append_frames(&holes(most).collect::<Vec<_>>()).unwrap();
    assert_eq!(replica.end_offset(), at(most * far));
    replica.append_frames(&Wire::hole(most * far, u32::MAX).bytes()).unwrap();
    let shipped = replica.frames(at(0), usize::MAX).unwrap();
    assert_eq!(shipped.range().end, at(most * far));
}
