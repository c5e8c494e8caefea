//! Replication by frames: what a replica is like, holes, where logs part, and who leads next.

use crate::support::Site;
use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::assert_out_of_range;
use crate::support::at;
use crate::support::clock::ManualClock;
use crate::support::compaction::Full;
use crate::support::compaction::check_compacted;
use crate::support::compaction::compacting;
use crate::support::compaction::fill;
use crate::support::compaction::pair;
use crate::support::records;
use crate::support::replica::Wire;
use crate::support::replica::catch_up;
use crate::support::replica::frames_in;
use crate::support::replica::parse;
use crate::support::replica::shipped;
use crate::support::secs;
use std::time::Duration;
use stratalog::Durability::{Buffered, Synced, Written};
use stratalog::{ErrorKind, Log, Record, Seek};

#[test]
fn a_replica_is_the_same_to_the_byte_and_reads_alike() {
    for max_bytes in [0, 100, 5000, 1 << 20] {
        for (leads, follows) in Site::each().into_iter().zip(Site::each()).skip(1) {
            let (leads, follows) = (leads.small_segments(), follows.small_segments());
            let (leader, replica) = (leads.open(), follows.open());
            fill(&leader, 200, 20);
            append_all(&leader, &records(0..30));
            catch_up(&leader, &replica, max_bytes);
            assert_eq!(frames_in(&follows), frames_in(&leads));
            let expected = Full::of(&leader);
            check_compacted(&replica, &expected);
            check_compacted(&follows.kill().open(), &expected);
            check_compacted(&follows.reopen(replica), &expected);
        }
    }
}

/// What is shipped before it is in a file is what the file holds later.
#[test]
fn frames_that_are_not_written_yet_are_shipped_as_they_will_be() {
    let buffered = |site: Site| site.options(|options| options.durability(Buffered));
    let (leads, follows) = (buffered(Site::disk()), buffered(Site::disk()));
    let (leader, replica) = (leads.open(), follows.open());
    for number in 0..50 {
        append_all(&leader, &records(number..number + number % 5));
        leader.append_batch(records(0..number % 7)).unwrap();
        catch_up(&leader, &replica, 1 << 20);
        check_compacted(&replica, &Full::of(&leader));
    }
    leader.sync().unwrap();
    replica.sync().unwrap();
    assert_eq!(frames_in(&follows), frames_in(&leads));
}

#[test]
fn a_record_that_is_not_visible_is_not_shipped() {
    let leader = Site::memory().open();
    leader.append("synced").unwrap();
    leader.append_with(Buffered, "not yet").unwrap();
    let frames = leader.frames(at(0), 1 << 20).unwrap();
    assert_eq!(frames.range(), at(0)..at(1));
    assert!(leader.frames(at(1), 1 << 20).unwrap().is_empty());
    leader.sync().unwrap();
    assert_eq!(leader.frames(at(1), 1 << 20).unwrap().range(), at(1)..at(2));
}

#[test]
fn at_least_one_frame_and_no_more_bytes_than_asked_for() {
    let leader = Site::memory().options(|options| options.max_batch_bytes(3000)).open();
    for number in 0..20 {
        leader.append_batch([vec![number; 400]]).unwrap();
    }
    let len = |max_bytes| leader.frames(at(0), max_bytes).unwrap().into_bytes().len();
    assert_eq!([0, 1, 447, 448, 895, 896].map(len), [448, 448, 448, 448, 448, 896]);
    assert_eq!(len(usize::MAX), 3000 / 448 * 448);
}

#[test]
fn an_offset_outside_the_log_is_out_of_range() {
    let leader = Site::memory().open();
    append_all(&leader, &records(0..10));
    leader.delete_before(at(4)).unwrap();
    assert_out_of_range(leader.frames(at(3), 1 << 20), 4);
    assert_out_of_range(leader.frames(at(11), 1 << 20), 10);
    assert_eq!(leader.frames(at(10), 1 << 20).unwrap().range(), at(10)..at(10));
    assert_eq!(leader.frames(at(4), 1 << 20).unwrap().range().start, at(4));
}

/// The times of records in a frame that is begun in its middle are what they were.
#[test]
fn from_each_offset_the_frames_begin_with_it() {
    let clock = ManualClock::at(secs(1));
    for site in Site::each() {
        let site = compacting(site).clock(&clock).small_segments();
        let leader = site.open();
        fill(&leader, 150, 10);
        leader.compact().unwrap();
        // One frame, its records at many times.
        for record in records(0..20) {
            clock.advance(Duration::from_millis(7));
            leader.append_with(Buffered, record).unwrap();
        }
        leader.sync().unwrap();
        let full = Full::of(&leader);
        for from in (0..=leader.end_offset().get()).map(at) {
            let replica = Site::memory().open();
            replica.delete_before(from).unwrap();
            catch_up(&leader, &replica, 300);
            assert_eq!(replica.end_offset(), leader.end_offset());
            check_compacted(&replica, &full.above(from));
        }
    }
}

/// What is left of a log after truncations and deletions is what is shipped.
#[test]
fn what_was_cut_off_in_the_middle_of_a_frame_is_not_shipped() {
    let leader = Site::memory().open();
    leader.append_batch(records(0..20)).unwrap();
    leader.truncate_to(at(15)).unwrap();
    append_all(&leader, &records(20..25));
    leader.delete_before(at(7)).unwrap();
    let replica = Site::memory().open();
    replica.delete_before(at(7)).unwrap();
    catch_up(&leader, &replica, 1);
    check_compacted(&replica, &Full::of(&leader));
    assert_eq!(replica.end_offset(), at(20));
}

/// A log of which compaction left two records, and nothing at all of its last segments.
fn with_holes(site: Site) -> (Site, Log) {
    let site = compacting(site).small_segments();
    let log = site.open();
    // All gone, with the tombstone; nothing in front of it.
    log.append_batch([pair("a", 0), Record::tombstone("a")]).unwrap();
    log.roll().unwrap();
    log.append_batch([Record::new(vec![1; 900]), pair("b", 0)]).unwrap();
    log.roll().unwrap();
    log.append_batch((0..60).map(|number| pair("c", number)).collect::<Vec<_>>()).unwrap();
    log.append(Record::new(vec![2; 600])).unwrap();
    log.roll().unwrap();
    log.append_batch([pair("b", 1), pair("d", 1), Record::tombstone("c")]).unwrap();
    log.roll().unwrap();
    log.append_batch([Record::tombstone("b"), Record::tombstone("d")]).unwrap();
    log.roll().unwrap();
    log.compact().unwrap();
    (site, log)
}

#[test]
fn holes_are_where_they_were() {
    for (leads, follows) in Site::each().into_iter().zip(Site::each()) {
        let (_leads, leader) = with_holes(leads);
        let full = Full::of(&leader);
        assert_eq!(full.len(), 2);
        let last = parse(&shipped(&leader, at(0))).pop().unwrap();
        assert_eq!((last.kind, last.body.len()), (2, 0), "no segment is a hole");
        for from in (0..=leader.end_offset().get()).map(at) {
            let replica = Site::memory().open();
            replica.delete_before(from).unwrap();
            catch_up(&leader, &replica, 0);
            assert_eq!(replica.end_offset(), leader.end_offset());
            check_compacted(&replica, &full.above(from));
        }
        let follows = compacting(follows).small_segments();
        let replica = follows.open();
        catch_up(&leader, &replica, 1 << 20);
        check_compacted(&replica, &full);
        assert_eq!(shipped(&replica, at(0)), shipped(&leader, at(0)), "and it leads as well");
        check_compacted(&follows.kill().open(), &full);
        let replica = follows.reopen(replica);
        check_compacted(&replica, &full);
        assert_eq!(replica.append("next").unwrap(), leader.append("next").unwrap());
        let records = replica.segments().iter().map(|segment| segment.records).sum::<u64>();
        assert_eq!(records, 3, "holes are no records");
    }
}

/// A log that is nothing but holes is closed, killed, cut and opened, and its offsets stay.
#[test]
fn nothing_but_a_hole_is_a_log_too() {
    for site in Site::each() {
        let replica = site.open();
        replica.append_frames(&Wire::hole(0, 5).bytes()).unwrap();
        replica.append_frames_with(Buffered, &Wire::hole(5, 3).bytes()).unwrap();
        replica.sync().unwrap();
        assert_eq!(site.kill().open().end_offset(), at(8));
        let replica = site.reopen(replica);
        assert_eq!(replica.end_offset(), at(8));
        replica.roll().unwrap();
        let replica = site.reopen(replica);
        assert_eq!(replica.end_offset(), at(8));
        assert_eq!(replica.append("first").unwrap(), at(8));
        assert!(replica.get(at(3)).unwrap().is_none());
        assert_eq!(replica.cursor(Seek::Start).unwrap().next().unwrap().unwrap().offset(), at(8));
        for end in [7, 5, 2] {
            replica.truncate_to(at(end)).unwrap();
            assert_eq!(site.kill().open().end_offset(), at(end));
        }
        let replica = site.reopen(replica);
        replica.append_frames(&Wire::values(2, 1, &[b"x"]).bytes()).unwrap();
        check_compacted(&replica, &Full::of(&replica));
        assert_eq!(replica.get(at(2)).unwrap().unwrap().value(), b"x");
    }
}

/// A replica of a compacted log that is compacted itself loses nothing: its segments do not take
/// offsets for records.
#[test]
fn a_replica_with_holes_can_be_compacted() {
    for site in Site::each() {
        let leader = compacting(Site::memory()).small_segments().open();
        fill(&leader, 400, 30);
        leader.compact().unwrap();
        let follows = compacting(site).small_segments();
        let replica = follows.open();
        catch_up(&leader, &replica, 1 << 20);
        fill(&replica, 300, 25);
        let expected = Full::of(&replica).compacted_to(replica.end_offset());
        let replica = follows.reopen(replica);
        replica.compact().unwrap();
        check_compacted(&replica, &expected);
        replica.compact().unwrap();
        check_compacted(&follows.reopen(replica), &expected);
    }
}

#[test]
fn a_hole_that_no_cursor_can_be_in_twice_is_passed_in_memory_too() {
    let site = Site::memory().options(|options| options.durability(Buffered));
    let replica = site.open();
    // Offsets 2 and 4 have a record; behind 4 there are two without one.
    let body = [&[0x20, 2, 1, b'a'][..], &[0x20, 1, 1, b'b']].concat();
    replica.append_frames(&Wire::of(0, 5, 7, body).bytes()).unwrap();
    replica.append_frames(&Wire::hole(7, 4).bytes()).unwrap();
    replica.append_frames(&Wire::values(11, 6, &[b"c", b"d"]).bytes()).unwrap();
    assert_eq!(replica.written_offset(), at(0), "it is in memory");
    let full = Full::of(&replica);
    assert!(full.offsets().eq([2, 4, 11, 12].map(at)));
    check_compacted(&replica, &full);
    let before = shipped(&replica, at(0));
    replica.sync().unwrap();
    check_compacted(&replica, &full);
    assert_eq!(shipped(&replica, at(0)), before);
}

#[test]
fn a_replica_that_leads_goes_on_from_the_times_of_the_old_leader() {
    let clock = ManualClock::at(secs(100));
    let leader = Site::memory().clock(&clock).open();
    leader.append("one").unwrap();
    clock.go_back(Duration::from_secs(50));
    let follows = Site::disk().clock(&clock);
    let replica = follows.open();
    catch_up(&leader, &replica, 1 << 20);
    replica.append("two").unwrap();
    let replica = follows.reopen(replica);
    replica.append("three").unwrap();
    for offset in 0..3 {
        assert_eq!(replica.get(at(offset)).unwrap().unwrap().appended_at(), secs(100));
    }
}

#[test]
fn each_durability_is_that_of_an_append() {
    let leader = Site::memory().open();
    append_all(&leader, &records(0..5));
    let bytes = shipped(&leader, at(0));
    for level in [Buffered, Written, Synced] {
        let replica = Site::memory().open();
        assert_eq!(replica.append_frames_with(level, &bytes).unwrap(), at(0)..at(5));
        assert_eq!(replica.written_offset() == at(5), level >= Written);
        assert_eq!(replica.durable_offset() == at(5), level == Synced);
    }
    let replica = Site::memory().options(|options| options.durability(Written)).open();
    replica.append_frames(&bytes).unwrap();
    assert_eq!((replica.written_offset(), replica.durable_offset()), (at(5), at(0)));
}

#[test]
fn frames_for_another_end_are_a_conflict_that_says_where_to_go_on() {
    let leader = Site::memory().open();
    append_all(&leader, &records(0..10));
    let replica = Site::memory().open();
    catch_up(&leader, &replica, 1 << 20);
    for from in [0, 9] {
        let error = replica.append_frames(leader.frames(at(from), 9999).unwrap().as_bytes());
        let error = error.unwrap_err();
        assert_eq!((error.kind(), error.offset()), (ErrorKind::Conflict, Some(at(10))));
    }
    let beyond = Wire::values(11, 0, &[b"x"]).bytes();
    assert_eq!(replica.append_frames(&beyond).unwrap_err().offset(), Some(at(10)));
    assert_eq!(replica.append_frames(&[]).unwrap(), at(10)..at(10));
    check_compacted(&replica, &Full::of(&leader));
}

/// The times of two logs that were never one: they cannot be sewn together.
#[test]
fn frames_that_are_earlier_than_the_last_record_are_of_another_history() {
    let replica = Site::memory().clock(&ManualClock::at(secs(9))).open();
    replica.append("later").unwrap();
    let error = replica.append_frames(&Wire::values(1, 8_999_999, &[b"x"]).bytes()).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::Conflict, Some(at(1))));
    assert_eq!(replica.end_offset(), at(1));
    replica.append_frames(&Wire::values(1, 9_000_000, &[b"x"]).bytes()).unwrap();
    // It is the last record of a frame that counts.
    let late = Wire::of(2, 9_000_000, 1, [0x10, 50, 1, b'a']).bytes();
    replica.append_frames_with(Buffered, &late).unwrap();
    let early = Wire::values(3, 9_000_049, &[b"x"]).bytes();
    assert_kind(replica.append_frames(&early), ErrorKind::Conflict);
    replica.sync().unwrap();
    assert_kind(replica.append_frames(&early), ErrorKind::Conflict);
}

/// Leader and replica part, and the one that comes back is told where, is cut and filled again,
/// although what is cut off was later than what takes its place.
#[test]
fn a_leader_that_comes_back_finds_where_it_parted_and_follows() {
    for site in Site::each() {
        let clock = ManualClock::at(secs(100));
        let site = compacting(site).clock(&clock).small_segments();
        let old = site.open();
        fill(&old, 100, 20);
        let new = compacting(Site::memory()).clock(&clock).open();
        catch_up(&old, &new, 1 << 20);
        // What the old one appends is never shipped.
        clock.set(secs(300));
        append_all(&old, &records(0..20));
        clock.set(secs(200));
        append_all(&new, &records(100..140));
        assert_eq!(old.diverges_from(&shipped(&new, at(0))).unwrap(), Some(at(100)));
        assert_eq!(old.diverges_from(&shipped(&new, at(90))).unwrap(), Some(at(100)));
        assert_eq!(new.diverges_from(&shipped(&old, at(0))).unwrap(), Some(at(100)));
        assert_kind(old.append_frames(&shipped(&new, at(100))), ErrorKind::Conflict);

        old.truncate_to(at(100)).unwrap();
        // The same at once, and when it has been opened again.
        old.append_frames(new.frames(at(100), 1).unwrap().as_bytes()).unwrap();
        assert!(old.end_offset() < new.end_offset());
        let old = site.reopen(old);
        catch_up(&new, &old, 1 << 20);
        assert_eq!(old.diverges_from(&shipped(&new, at(0))).unwrap(), None);
        check_compacted(&old, &Full::of(&new));
        // It leads again, and its times do not go back: not even over what was cut off.
        clock.set(secs(250));
        let offset = old.append("again").unwrap();
        assert_eq!(old.get(offset).unwrap().unwrap().appended_at(), secs(300));
    }
}

/// A difference is one of records: what compaction removed here or there is none.
#[test]
fn each_part_of_a_record_makes_a_difference_and_a_hole_does_not() {
    let clock = ManualClock::at(secs(5));
    let one = |record: Record<'static>| {
        let log = Site::memory().clock(&clock).open();
        log.append("same").unwrap();
        log.append(record).unwrap();
        log
    };
    let log = one(Record::new("v").key("k").header("h", "1"));
    let others = [
        Record::new("w").key("k").header("h", "1"),
        Record::new("v").key("j").header("h", "1"),
        Record::new("v").header("h", "1"),
        Record::new("v").key("k").header("g", "1"),
        Record::new("v").key("k").header("h", "2"),
        Record::new("v").key("k"),
        Record::new("v").key("k").header("h", "1").timestamp(secs(5)),
        Record::tombstone("k").header("h", "1"),
    ];
    for other in others {
        let bytes = shipped(&one(other.clone()), at(0));
        assert_eq!(log.diverges_from(&bytes).unwrap(), Some(at(1)), "{other:?}");
    }
    let bytes = shipped(&log, at(0));
    assert_eq!(log.diverges_from(&bytes).unwrap(), None);
    clock.set(secs(6));
    let later = one(Record::new("v").key("k").header("h", "1"));
    assert_eq!(later.diverges_from(&bytes).unwrap(), Some(at(0)));
    assert_eq!(later.diverges_from(&Wire::hole(0, 9).bytes()).unwrap(), None);
    assert_eq!(later.diverges_from(&shipped(&log, at(2))).unwrap(), None);
    assert_kind(later.diverges_from(&bytes[1..]), ErrorKind::Corrupt);
    // Only the second of these has a record at an offset of the log.
    let body = [0x20, 1, 1, b'x'];
    let compacted = Wire::of(0, 0, 9, body).bytes();
    assert_eq!(later.diverges_from(&compacted).unwrap(), Some(at(1)));
}

/// Too far behind, it jumps to where the leader starts.
#[test]
fn a_replica_too_far_behind_jumps_to_the_start_of_the_leader() {
    let leader = Site::memory().small_segments().open();
    append_all(&leader, &records(0..50));
    let follows = Site::disk();
    let replica = follows.open();
    catch_up(&leader, &replica, 1 << 20);
    append_all(&leader, &records(50..100));
    leader.delete_before(at(70)).unwrap();
    let error = leader.frames(replica.end_offset(), 1 << 20).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::OutOfRange, Some(at(70))));
    replica.delete_before(error.offset().unwrap()).unwrap();
    catch_up(&leader, &replica, 1 << 20);
    check_compacted(&replica, &Full::of(&leader));
    check_compacted(&follows.reopen(replica), &Full::of(&leader));
}
