//! A replica on a disk that fails, fills up or loses power: what it keeps is a prefix of whole
//! frames, and it can be filled up again.

use crate::support::Site;
use crate::support::assert_kind;
use crate::support::at;
use crate::support::compaction::Full;
use crate::support::compaction::check_compacted;
use crate::support::compaction::compacting;
use crate::support::compaction::fill;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::fault::is_injected;
use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use crate::support::records;
use crate::support::replica::Wire;
use crate::support::replica::catch_up;
use crate::support::replica::parse;
use crate::support::replica::shipped;
use std::io;
use stratalog::Durability::{Buffered, Synced, Written};
use stratalog::{ErrorKind, Log, Offset, Result};

/// A leader with frames of every kind, a hole at its end, what it shows, and where frames end.
struct Leader {
    log: Log,
    full: Full,
    ends: Vec<Offset>,
}

fn leader() -> Leader {
    let log = compacting(Site::memory()).small_segments().open();
    fill(&log, 60, 9);
    log.append_batch(records(0..8)).unwrap();
    log.roll().unwrap();
    log.compact().unwrap();
    log.append_frames(&Wire::hole(log.end_offset().get(), 30).bytes()).unwrap();
    log.append_batch(records(0..3)).unwrap();
    log.append_frames(&Wire::hole(log.end_offset().get(), 9).bytes()).unwrap();
    let frames = parse(&shipped(&log, at(0)));
    assert_eq!(frames.last().unwrap().kind, 2);
    let ends = frames.iter().map(|frame| at(frame.base + u64::from(frame.count)));
    Leader { full: Full::of(&log), ends: [at(0)].into_iter().chain(ends).collect(), log }
}

impl Leader {
    /// Ships what the replica does not have; gives the end that was acknowledged.
    fn ship(&self, replica: &Log, max_bytes: usize) -> (Offset, Result<()>) {
        loop {
            let end = replica.end_offset();
            let frames = self.log.frames(end, max_bytes).unwrap();
            if frames.is_empty() {
                return (end, Ok(()));
            }
            if let Err(error) = replica.append_frames(frames.as_bytes()) {
                return (end, Err(error));
            }
        }
    }

    #[track_caller]
    fn check(&self, replica: &Log, least: Offset, story: &str) {
        let end = replica.end_offset();
        assert!(end >= least && self.ends.contains(&end), "{story}: {end}, not {least} or more");
        check_compacted(replica, &self.full.below(end));
        catch_up(&self.log, replica, 1 << 20);
        check_compacted(replica, &self.full);
    }
}

fn open(machine: &FaultyStorage) -> Log {
    tiny(machine.process()).open(DIR).unwrap()
}

#[test]
fn a_crash_at_every_call_leaves_a_prefix_of_whole_frames() {
    let leader = leader();
    for max_bytes in [400, 1 << 20] {
        let whole = FaultyStorage::memory();
        leader.ship(&open(&whole), max_bytes).1.unwrap();
        let calls = whole.effects();
        assert!(calls > 20, "{calls} calls do too little");
        for call in 0..=calls {
            let machine = FaultyStorage::memory();
            machine.stop_after(call);
            let opened = tiny(machine.process()).open(DIR);
            let acknowledged = opened.map_or(at(0), |replica| leader.ship(&replica, max_bytes).0);
            machine.kill();
            let crashes = [
                Crash::KeepAll,
                Crash::DropUnsynced,
                Crash::Prefix(call),
                Crash::Random(call),
                Crash::Random(call + 1000),
            ];
            for how in crashes {
                let story = format!("stopped before call {call}, {how:?}");
                let crashed = machine.crash(how);
                leader.check(&open(&crashed), acknowledged, &story);
                // And once more, closed: what was opened is what is opened.
                check_compacted(&open(&crashed.crash(Crash::KeepAll)), &leader.full);
            }
        }
    }
}

/// Nothing is acknowledged that is not there, whatever fails, and a later try goes on.
#[test]
fn each_call_can_fail_once() {
    use Op::{Create, Rename, SetLen, Sync, SyncDir, Write};
    let leader = leader();
    let (mut poisoned, mut refused) = (0, 0);
    for op in [Create, Rename, SetLen, Sync, SyncDir, Write] {
        for error in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
            for nth in 1.. {
                let machine = FaultyStorage::memory();
                let replica = open(&machine);
                machine.forget_calls();
                machine.inject(Fault::new(op, error).nth(nth));
                let (least, told) = leader.ship(&replica, 700);
                let was_reached = machine.count(|called, _| called == op) >= nth;
                machine.heal();
                let story = format!("{op:?} {nth} {error}: {told:?}");
                match told {
                    Err(error) if error.kind() == ErrorKind::Poisoned => {
                        assert!(is_injected(&error), "{story}");
                        poisoned += 1;
                        assert_kind(replica.append_frames(&[]), ErrorKind::Poisoned);
                        assert!(replica.durable_offset() >= least, "{story}");
                        drop(replica);
                        let replica = open(&machine.crash(Crash::DropUnsynced));
                        leader.check(&replica, least, &story);
                    }
                    Err(error) => {
                        assert!(is_injected(&error) && error.offset().is_none(), "{story}");
                        refused += 1;
                        leader.check(&replica, least, &story);
                    }
                    Ok(()) => leader.check(&replica, least, &story),
                }
                if !was_reached {
                    break;
                }
            }
        }
    }
    assert!(poisoned > 10 && refused > 10, "{poisoned} poisoned, {refused} refused");
}

/// However little is free: whole frames or nothing, and on it goes when there is room.
#[test]
fn a_full_disk_refuses_and_goes_on() {
    let leader = leader();
    let mut refused = 0;
    for level in [Synced, Buffered] {
        for free in (0..4000).step_by(90) {
            let machine = FaultyStorage::memory();
            let replica = open(&machine);
            machine.set_free(Some(free));
            let bytes = shipped(&leader.log, at(0));
            let told = replica.append_frames_with(level, &bytes);
            let synced = told.clone().map(drop).and_then(|()| replica.sync());
            if let Err(error) = synced {
                assert_eq!(error.kind(), ErrorKind::StorageFull);
                refused += 1;
            }
            assert!(told.is_err() || replica.end_offset() == leader.log.end_offset());
            machine.set_free(None);
            replica.sync().unwrap();
            let story = format!("{free} bytes free, {level:?}");
            leader.check(&replica, at(0), &story);
            leader.check(&open(&machine.crash(Crash::DropUnsynced)), at(0), &story);
        }
    }
    assert!(refused > 20, "only {refused} were refused");
}

/// What was refused is not there, also for who looks at the times: others may take its place.
#[test]
fn refused_frames_leave_no_time_behind() {
    let machine = FaultyStorage::memory();
    let replica = open(&machine);
    replica.append_frames(&Wire::values(0, 10, &[b"a"]).bytes()).unwrap();
    machine.inject(Fault::new(Op::Write, io::ErrorKind::StorageFull).on(".log"));
    let late = Wire::values(1, 500, &[b"late"]).bytes();
    assert_kind(replica.append_frames(&late), ErrorKind::StorageFull);
    assert_eq!(replica.end_offset(), at(1));
    replica.append_frames(&Wire::values(1, 20, &[b"b"]).bytes()).unwrap();
    assert_kind(replica.append_frames(&Wire::values(2, 19, &[b"c"]).bytes()), ErrorKind::Conflict);
    let replica = open(&machine.crash(Crash::DropUnsynced));
    assert_eq!(replica.end_offset(), at(2));
    assert_kind(replica.append_frames(&Wire::values(2, 19, &[b"c"]).bytes()), ErrorKind::Conflict);
}

/// The gap between a frame and what is durable can be longer than a frame can state.
#[test]
fn a_gap_that_has_no_number_says_nothing() {
    let far = u64::from(u32::MAX);
    let holes = (0..5).flat_map(|nth| Wire::hole(nth * far, u32::MAX).bytes());
    let shipment: Vec<_> = holes.chain(Wire::values(5 * far, 1, &[b"value"]).bytes()).collect();
    for seed in 0..100 {
        let machine = FaultyStorage::memory();
        let log = open(&machine);
        log.append_frames_with(Written, &shipment).unwrap();
        assert_eq!(log.durable_offset(), at(0));
        let machine = machine.crash(Crash::Random(seed));
        let log = open(&machine);
        let (end, all) = (log.end_offset(), Full::of(&log));
        drop(log);
        // What it shows is durable.
        let machine = machine.crash(Crash::Random(seed + 1000));
        let log = open(&machine);
        assert_eq!((log.end_offset(), Full::of(&log)), (end, all), "seed {seed}");
    }
}
