//! Files of positions that are damaged, foreign or no files; and calls that fail.

use crate::support::Site;
use crate::support::append_all;
use crate::support::assert_kind;
use crate::support::at;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::full;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use crate::support::tail;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use stratalog::storage::OpenMode;
use stratalog::{ErrorKind, Keep, Kept, Log, Offset, RepairOptions, Retention, Seek};

const SLOTS: [usize; 2] = [0, 4096];

/// Commits up to a position.
#[track_caller]
fn commit(log: &Log, name: &str, position: u64) {
    let mut consumer = log.consumer(name).unwrap();
    consumer.seek(Seek::Offset(at(position))).unwrap();
    consumer.commit().unwrap();
}

fn committed(log: &Log, name: &str) -> Option<Offset> {
    let all = log.consumers().unwrap();
    all.into_iter().find(|consumer| consumer.name == name).unwrap().committed
}

/// A closed log on disk with 10 records and a consumer that committed 3, 5 and 7.
fn seven() -> (Site, PathBuf) {
    let site = Site::disk();
    let log = site.open();
    append_all(&log, &tail(10));
    for position in [3, 5, 7] {
        commit(&log, "billing", position);
    }
    log.close().unwrap();
    let path = site.path().join("consumers/billing");
    (site, path)
}

/// Any damage of the slot that was written last leaves the position before; never more, never
/// another one.
#[test]
fn a_slot_that_is_damaged_leaves_the_one_before() {
    let (site, path) = seven();
    let sound = fs::read(&path).unwrap();
    assert_eq!(sound.len(), 8192);
    let mut found = Vec::new();
    for slot in SLOTS {
        for byte in (slot..slot + 64).filter(|byte| byte % 64 != 8 && byte % 64 != 9) {
            let mut bytes = sound.clone();
            bytes[byte] ^= 0x10;
            fs::write(&path, bytes).unwrap();
            let log = site.open();
            // Reserved bytes that the checksum does not cover say "a newer version".
            match log.consumer("billing") {
                Ok(consumer) => found.push((slot, consumer.committed().get())),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion, "byte {byte}");
                    assert!(matches!(byte % 64, 10 | 11), "byte {byte}");
                }
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 2, "{found:?}");
    let mut positions: Vec<_> = found.iter().map(|(_, position)| *position).collect();
    positions.sort_unstable();
    assert_eq!(positions, [5, 7]);
}

/// Once a position was taken back, no damage leads further again.
#[test]
fn a_position_that_went_back_never_leads_further_again() {
    for cuts in [true, false] {
        let (site, path) = seven();
        let log = site.open();
        if cuts {
            log.truncate_to(at(4)).unwrap();
            append_all(&log, &tail(6));
        } else {
            commit(&log, "billing", 4);
        }
        log.close().unwrap();
        let sound = fs::read(&path).unwrap();
        for slot in SLOTS {
            let mut bytes = sound.clone();
            bytes[slot + 40] ^= 1;
            fs::write(&path, bytes).unwrap();
            assert_eq!(site.open().consumer("billing").unwrap().committed(), at(4));
        }
    }
}

#[test]
fn a_position_that_is_damaged_is_an_error_with_a_way_out() {
    let (site, path) = seven();
    let sound = fs::read(&path).unwrap();
    let zeroed = |mut bytes: Vec<u8>| {
        for slot in SLOTS {
            bytes[slot..slot + 8].fill(b'x');
        }
        bytes
    };
    let longer = [&sound[..], b"x"].concat();
    for bad in [zeroed(sound.clone()), vec![0; 8192], sound[..4160].to_vec(), longer, vec![]] {
        fs::write(&path, &bad).unwrap();
        let log = site.open();
        for _ in 0..2 {
            let error = log.consumer("billing").unwrap_err();
            assert_eq!((error.kind(), error.path()), (ErrorKind::Corrupt, Some(&*path)));
            assert!(error.to_string().contains("remove the consumer"), "{error}");
        }
        let listed = log.consumers().unwrap();
        assert_eq!((listed[0].committed, listed[0].lag), (None, None));
        assert_eq!(listed[0].error.as_ref().unwrap().kind(), ErrorKind::Corrupt);
        assert_eq!(fs::read(&path).unwrap(), bad, "it was changed");
        // The log can be used, and cut: such a position never counts again.
        log.append("x").unwrap();
        log.truncate_to(at(10)).unwrap();
        // Restored while the log is open.
        fs::write(&path, &sound).unwrap();
        assert_eq!(log.consumer("billing").unwrap().committed(), at(7));
        log.close().unwrap();
        fs::write(&path, &bad).unwrap();
        let log = site.open();
        assert!(log.remove_consumer("billing").unwrap());
        assert_eq!(log.consumer("billing").unwrap().committed(), at(0));
        log.close().unwrap();
    }
}

#[test]
fn a_position_of_another_log_or_consumer_is_refused() {
    let (site, path) = seven();
    let (other_site, _) = seven();
    let log = other_site.open();
    fs::copy(&path, other_site.path().join("consumers/billing")).unwrap();
    assert!(log.consumer("billing").unwrap_err().to_string().contains("another log"));
    let log = site.open();
    fs::copy(&path, path.with_file_name("Billing")).unwrap();
    let error = log.consumer("Billing").unwrap_err();
    assert!(error.to_string().contains("another consumer"), "{error}");
    assert_eq!(log.consumer("billing").unwrap().committed(), at(7));
}

#[test]
fn a_position_of_a_newer_version_is_not_touched_nor_is_the_log_cut() {
    let (site, path) = seven();
    let mut newer = fs::read(&path).unwrap();
    newer[8] = 2;
    fs::write(&path, &newer).unwrap();
    let log = site.open();
    assert_kind(log.consumer("billing"), ErrorKind::UnsupportedVersion);
    // The newer version would find a position of before the cut.
    assert_kind(log.truncate_to(at(4)), ErrorKind::UnsupportedVersion);
    assert_eq!(log.end_offset(), at(10));
    assert_eq!(fs::read(&path).unwrap(), newer);
    assert!(log.remove_consumer("billing").unwrap());
    log.truncate_to(at(4)).unwrap();
}

/// What has no name of ours, or is no plain file, is left alone.
#[test]
fn what_is_not_ours_is_left_alone() {
    let (site, path) = seven();
    let consumers = path.parent().unwrap();
    fs::create_dir(consumers.join("folder")).unwrap();
    fs::write(consumers.join("not ours"), "x").unwrap();
    fs::write(consumers.join(".hidden"), "x").unwrap();
    let log = site.open();
    assert_eq!(log.consumers().unwrap().len(), 1);
    let error = log.consumer("folder").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.path().unwrap().ends_with("consumers/folder"), "{error}");
    assert_kind(log.remove_consumer("folder"), ErrorKind::Io);
    log.truncate_to(at(2)).unwrap();
    assert_eq!(committed(&log, "billing"), Some(at(2)));
    log.close().unwrap();
    assert!(consumers.join("folder").is_dir());
    assert_eq!(fs::read(consumers.join("not ours")).unwrap(), b"x");

    // Not even the directory is: it was there before this crate knew consumers.
    let site = Site::disk();
    fs::create_dir(site.path()).unwrap();
    fs::write(site.path().join("consumers"), "a file").unwrap();
    let log = site.open();
    append_all(&log, &tail(5));
    assert!(log.consumer("billing").is_err());
    assert!(log.consumers().unwrap().is_empty());
    log.truncate_to(at(2)).unwrap();
    assert_eq!(site.reopen(log).end_offset(), at(2));
}

#[test]
fn consumers_keep_nobody_waiting_at_open() {
    let machine = FaultyStorage::memory();
    let site = Site::over(machine.process());
    let log = site.open();
    append_all(&log, &tail(5));
    for number in 0..300 {
        log.consumer(&format!("consumer-{number}")).unwrap();
    }
    log.close().unwrap();
    drop(log);
    machine.forget_calls();
    let log = site.open();
    assert_eq!(machine.count(|_, path| path.starts_with("/log/consumers")), 0);
    commit(&log, "consumer-77", 3);
    assert!(machine.count(|_, path| path.starts_with("/log/consumers")) < 20);
    assert_eq!(log.consumers().unwrap().len(), 300);
    assert_eq!(committed(&log, "consumer-77"), Some(at(3)));
    log.truncate_to(at(1)).unwrap();
    assert_eq!(committed(&log, "consumer-77"), Some(at(1)));
}

#[test]
fn there_may_be_ten_thousand_consumers() {
    let site = Site::memory();
    let log = site.open();
    append_all(&log, &tail(5));
    for number in 0..10_000 {
        log.consumer(&format!("consumer-{number}")).unwrap();
    }
    let log = site.reopen(log);
    commit(&log, "consumer-77", 3);
    assert_eq!(log.consumers().unwrap().len(), 10_000);
    log.truncate_to(at(1)).unwrap();
    assert_eq!(committed(&log, "consumer-77"), Some(at(1)));
    assert_eq!(committed(&log, "consumer-78"), Some(at(0)));
}

/// Retention waits for a consumer of which it cannot know where it stands.
#[test]
fn a_damaged_position_keeps_what_is_unread() {
    let site = Site::disk().small_segments();
    let retention = Retention::new().max_age(Duration::ZERO).keep_unread(true);
    let site = site.options(|options| options.retention(retention));
    let log = site.open();
    append_all(&log, &full(6));
    log.roll().unwrap();
    commit(&log, "billing", 6);
    log.close().unwrap();
    fs::write(site.path().join("consumers/billing"), "damaged").unwrap();
    let log = site.open();
    let report = log.enforce_retention().unwrap();
    assert_eq!((report.removed_segments, report.kept), (0, Some(Kept::Unread)));
    assert_eq!(report.blocked_by, ["billing"]);
    assert!(log.remove_consumer("billing").unwrap());
    assert_eq!(log.enforce_retention().unwrap().removed_segments, 6);
}

/// A sync that failed is not tried again by the same handle; who opens the consumer anew finds out.
#[test]
fn a_position_that_failed_is_found_out_by_the_next_handle() {
    let machine = FaultyStorage::memory();
    let log = Site::over(machine.process()).open();
    append_all(&log, &tail(10));
    commit(&log, "billing", 3);
    let mut billing = log.consumer("billing").unwrap();
    billing.seek(Seek::Offset(at(6))).unwrap();
    machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other).on("billing"));
    machine.forget_calls();
    assert_kind(billing.commit(), ErrorKind::Poisoned);
    assert_kind(billing.commit(), ErrorKind::Poisoned);
    billing.reset().unwrap();
    assert_kind(billing.commit(), ErrorKind::Poisoned);
    assert_eq!(machine.count(|op, path| op == Op::Sync && path.ends_with("billing")), 1);
    assert_eq!(billing.committed(), at(3));
    // The power goes now: what the sync lost is lost.
    let after = machine_after(&machine);
    assert_eq!(committed(&Site::over(after.process()).open(), "billing"), Some(at(3)));
    // The log itself is well, and the next handle writes what it found anew.
    let machine = after;
    let log = Site::over(machine.process()).open();
    log.append("x").unwrap();
    let mut billing = log.consumer("billing").unwrap();
    billing.seek(Seek::End).unwrap();
    billing.commit().unwrap();
    assert_eq!(committed(&Site::over(machine_after(&machine).process()).open(), "billing"), {
        Some(at(11))
    });
}

/// In the same process: what is seen may not be what the disk has, until it is written anew.
#[test]
fn what_a_failed_sync_left_in_memory_is_made_durable_before_it_is_shown() {
    let machine = FaultyStorage::memory();
    let log = Site::over(machine.process()).open();
    append_all(&log, &tail(10));
    let mut billing = log.consumer("billing").unwrap();
    billing.seek(Seek::Offset(at(6))).unwrap();
    machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other).on("billing"));
    assert_kind(billing.commit(), ErrorKind::Poisoned);
    drop(billing);
    let shown = log.consumer("billing").unwrap().committed();
    assert_eq!(shown, at(6));
    let after = machine_after(&machine);
    assert_eq!(committed(&Site::over(after.process()).open(), "billing"), Some(shown));
}

#[test]
fn a_full_disk_refuses_a_new_consumer_and_no_commit() {
    let machine = FaultyStorage::memory();
    let log = Site::over(machine.process()).open();
    append_all(&log, &tail(10));
    let mut billing = log.consumer("billing").unwrap();
    machine.set_free(Some(100));
    assert_kind(log.consumer("other"), ErrorKind::StorageFull);
    billing.seek(Seek::Offset(at(6))).unwrap();
    billing.commit().unwrap();
    assert_eq!(log.consumers().unwrap().len(), 1);
    log.truncate_to(at(4)).unwrap();
    assert_eq!(billing.committed(), at(4));
    machine.set_free(None);
    assert_eq!(log.consumer("other").unwrap().committed(), at(0));
}

/// After a failed sync of the directory names are not relied on, until the log is opened again.
#[test]
fn names_that_may_be_lost_are_not_relied_on() {
    for removes in [false, true] {
        let machine = FaultyStorage::memory();
        let log = Site::over(machine.process()).open();
        append_all(&log, &tail(10));
        commit(&log, "billing", 7);
        machine.inject(Fault::new(Op::SyncDir, io::ErrorKind::Other).on("consumers"));
        if removes {
            assert_kind(log.remove_consumer("billing"), ErrorKind::Poisoned);
        } else {
            assert_kind(log.consumer("other"), ErrorKind::Poisoned);
        }
        assert_kind(log.consumer("third"), ErrorKind::Poisoned);
        // A removed one may come back, with a position behind the cut.
        assert_kind(log.truncate_to(at(5)), ErrorKind::Poisoned);
        assert_eq!(log.append("x").unwrap(), at(10));
        log.close().unwrap();
        let log = Site::over(machine.process()).open();
        log.truncate_to(at(5)).unwrap();
        assert_eq!(log.consumer("other").unwrap().committed(), at(0));
    }
}

/// The sync of the log's own directory failed, and no later one would say so, as a roll needs it.
#[test]
fn a_directory_that_may_be_lost_ends_the_log() {
    let machine = FaultyStorage::memory();
    let log = Site::over(machine.process()).open();
    append_all(&log, &tail(3));
    machine.inject(Fault::new(Op::CreateDir, io::ErrorKind::Other).on("consumers"));
    assert_kind(log.consumer("billing"), ErrorKind::Poisoned);
    assert_kind(log.append("x"), ErrorKind::Poisoned);
    drop(log);
    let log = Site::over(machine.process()).open();
    assert_eq!(log.consumer("billing").unwrap().committed(), at(0));
    // What is refused is not.
    let machine = FaultyStorage::memory();
    let log = Site::over(machine.process()).open();
    machine.inject(Fault::new(Op::CreateDir, io::ErrorKind::StorageFull).on("consumers"));
    assert_kind(log.consumer("billing"), ErrorKind::StorageFull);
    log.append("x").unwrap();
    log.consumer("billing").unwrap();
}

/// Nobody knows where the log ends after a truncation that failed, and who opens it next may find
/// that it did not: what is read of the rest is not done.
#[test]
fn nothing_is_committed_behind_a_truncation_that_failed() {
    let machine = FaultyStorage::memory();
    let log = Site::over(machine.process()).open();
    append_all(&log, &tail(6));
    commit(&log, "billing", 6);
    machine.inject(Fault::new(Op::SyncDir, io::ErrorKind::Other).on("log").nth(2));
    assert_kind(log.truncate_to(at(3)), ErrorKind::Poisoned);
    let mut billing = log.consumer("billing").unwrap();
    assert_eq!(billing.committed(), at(3));
    billing.next().unwrap().unwrap();
    assert_kind(billing.commit(), ErrorKind::Poisoned);
    drop((billing, log));
    let log = Site::over(machine.process()).open();
    assert_eq!(log.end_offset(), at(3));
    assert_eq!(committed(&log, "billing"), Some(at(3)));

    // One that did not fail is no obstacle, whatever becomes of the log.
    log.truncate_to(at(2)).unwrap();
    append_all(&log, &tail(4));
    machine.inject(Fault::new(Op::Sync, io::ErrorKind::Other).on(".log"));
    assert!(log.append("x").is_err());
    commit(&log, "billing", 5);
}

/// It may be gone from sight only, and come back with a position behind a truncation.
#[test]
fn a_removal_that_failed_is_not_relied_on() {
    let machine = FaultyStorage::memory();
    let log = Site::over(machine.process()).open();
    append_all(&log, &tail(10));
    commit(&log, "billing", 7);
    machine.inject(Fault::new(Op::Remove, io::ErrorKind::Other).on("billing"));
    assert_kind(log.remove_consumer("billing"), ErrorKind::Poisoned);
    assert_kind(log.remove_consumer("billing"), ErrorKind::Poisoned);
    assert_kind(log.truncate_to(at(5)), ErrorKind::Poisoned);
}

/// Damage took records that were durable, and that a consumer was through with. Whatever has their
/// offsets next is not passed over.
#[test]
fn positions_go_back_with_what_is_damaged() {
    for is_repaired in [false, true] {
        let site = Site::disk();
        let log = site.open();
        append_all(&log, &tail(10));
        commit(&log, "billing", 10);
        commit(&log, "mail", 4);
        let site = if is_repaired {
            log.close().unwrap();
            site
        } else {
            site.kill()
        };
        let segment = fs::read_dir(site.path()).unwrap().map(|entry| entry.unwrap().path());
        let segment = segment.filter(|path| path.extension().is_some_and(|end| end == "log"));
        let segment = segment.max().unwrap();
        let mut bytes = fs::read(&segment).unwrap();
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[last] ^= 1;
        fs::write(&segment, bytes).unwrap();
        if is_repaired {
            let options = RepairOptions::new().keep(Keep::Prefix);
            stratalog::repair(site.path(), &options).unwrap();
        }
        let log = site.open();
        let end = log.end_offset();
        assert!(end < at(10));
        assert_eq!([committed(&log, "billing"), committed(&log, "mail")], [Some(end), Some(at(4))]);
        append_all(&log, &tail(20));
        let mut billing = log.consumer("billing").unwrap();
        assert_eq!(billing.next().unwrap().unwrap().offset(), end);
    }
}

fn machine_after(machine: &FaultyStorage) -> FaultyStorage {
    machine.crash(Crash::DropUnsynced)
}

/// Another consumer that cannot be read is no obstacle to who takes one back.
#[test]
fn recovery_takes_back_who_leads_and_leaves_who_cannot_be_read() {
    for (leads, other) in [("a", "b"), ("b", "a")] {
        let machine = FaultyStorage::memory();
        let log = tiny(machine.process()).segment_bytes(1 << 20).open(DIR).unwrap();
        append_all(&log, &tail(10));
        commit(&log, leads, 10);
        drop(log.consumer(other).unwrap());
        machine.kill();
        drop(log);
        // The last frame goes bad.
        let storage = machine.process();
        let mut image = Image::of(&*storage);
        let name = image.last();
        let end = image.bytes(&name).iter().rposition(|byte| *byte != 0).unwrap();
        let path = Path::new(DIR).join(&name);
        let file = storage.open(&path, OpenMode::Write).unwrap();
        file.write_at(&[0xff], end as u64).unwrap();
        let fault = Fault::new(Op::Open, io::ErrorKind::PermissionDenied);
        machine
            .inject(fault.on(if other == "a" { "consumers/a" } else { "consumers/b" }).forever());
        let log = tiny(machine.process()).segment_bytes(1 << 20).open(DIR).unwrap();
        assert_eq!(log.end_offset(), at(9));
        assert_eq!(committed(&log, leads), Some(at(9)));
        assert_eq!(committed(&log, other), None);
    }
}

/// A file says that it has been written nearly 2^63 times.
#[test]
fn a_position_that_cannot_be_written_again_is_refused_and_stays() {
    let (site, path) = seven();
    let mut bytes = fs::read(&path).unwrap();
    let latest = SLOTS.into_iter().max_by_key(|slot| bytes[slot + 32..slot + 40].to_vec()).unwrap();
    let slot = &mut bytes[latest..latest + 64];
    slot[32..40].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
    let crc = crc32fast::hash(&slot[16..]);
    slot[12..16].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let log = site.open();
    let mut consumer = log.consumer("billing").unwrap();
    consumer.next().unwrap().unwrap();
    assert_kind(consumer.commit(), ErrorKind::Corrupt);
    drop(consumer);
    assert_eq!(log.consumer("billing").unwrap().position(), at(7));
}
