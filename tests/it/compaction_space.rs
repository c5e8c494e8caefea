//! The space that compaction takes where giving it back takes long.

use crate::support::Site;
use crate::support::at;
use crate::support::compaction::Full;
use crate::support::compaction::compacting;
use crate::support::compaction::compacting_with;
use crate::support::space::SpaceStorage;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use stratalog::{Durability, ErrorKind, Log, Record};

/// Large enough for a thread to be worth it.
const SEGMENT_BYTES: u64 = 9 << 20;

/// Sealed segments of 9 MiB of which each loses some records, and none so many that it would go
/// with another.
fn log_on(disk: &SpaceStorage) -> (Log, Full) {
    filled(&site_on(disk))
}

fn site_on(disk: &SpaceStorage) -> Site {
    let site = compacting(Site::over(Arc::new(disk.clone())));
    site.options(|options| options.segment_bytes(SEGMENT_BYTES))
}

fn filled(site: &Site) -> (Log, Full) {
    let log = site.open();
    let value = vec![b'v'; 64 << 10];
    for number in 0..600 {
        let key = if number % 20 == 0 { "often".to_owned() } else { number.to_string() };
        log.append_with(Durability::Written, Record::new(&value).key(key)).unwrap();
    }
    log.roll().unwrap();
    let full = Full::of(&log);
    (log, full)
}

#[test]
fn when_a_run_is_over_the_space_of_what_it_replaced_is_free() {
    let disk = SpaceStorage::new(Duration::from_millis(200));
    let (log, full) = log_on(&disk);
    let before = disk.used();
    let report = log.compact().unwrap();
    assert_eq!((disk.used(), disk.named()), (disk.named(), disk.used()));
    assert!(report.segments_written() >= 4, "{report}");
    assert_eq!(Full::of(&log), full.compacted_to(log.end_offset()));
    // An output, and what the one before it has replaced.
    let limit = before + 2 * SEGMENT_BYTES + (1 << 20);
    assert!(disk.most() <= limit, "{} bytes, {before} before", disk.most());
}

/// There is room for one output and not for two: the run waits for what it replaced.
#[test]
fn a_run_on_a_full_disk_waits_for_the_space_that_it_gives_back() {
    let disk = SpaceStorage::new(Duration::from_secs(1));
    let (log, full) = log_on(&disk);
    disk.set_free(SEGMENT_BYTES + (1 << 20));
    log.compact().unwrap();
    assert!(disk.refused() > 0, "no output was in the way of another");
    assert_eq!(disk.used(), disk.named());
    assert_eq!(Full::of(&log), full.compacted_to(log.end_offset()));
}

/// Two outputs and a manifest are refused once, each as often as not with something to wait for. No
/// id is used that the manifest does not know to be used.
#[test]
fn a_run_that_was_refused_space_goes_on_in_order() {
    let mut went_on = 0;
    for nth in 6..13 {
        let disk = SpaceStorage::new(Duration::ZERO);
        let site = site_on(&disk);
        let (log, full) = filled(&site);
        let expected = full.compacted_to(log.end_offset());
        let last = log.segments().len() as u64;
        // So the ids that were taken for the run are used up before it is done.
        for id in [last + 2, last + 4] {
            disk.refuse(&format!("-{id:08}.log"), 1);
        }
        disk.refuse("MANIFEST", nth);
        match log.compact() {
            Ok(_) => went_on += u64::from(disk.refused() == 3),
            Err(error) => assert_eq!(error.kind(), ErrorKind::StorageFull, "{nth}"),
        }
        disk.heal();
        // As a process that is killed leaves it: a close would state all ids that were given out.
        let killed = site.kill();
        let log = killed.open();
        log.compact().unwrap();
        assert_eq!(Full::of(&log), expected, "{nth}");
    }
    assert!(went_on > 2, "only {went_on} runs went on behind all");
}

/// Inputs that are deleted while the output that they go into is written.
#[test]
fn what_is_deleted_during_a_run_is_free_at_once() {
    let disk = SpaceStorage::new(Duration::ZERO);
    let (cell, most) = (Arc::new(OnceLock::<Log>::new()), Arc::new(AtomicU64::new(0)));
    let (log, unnamed, space) = (Arc::clone(&cell), Arc::clone(&most), disk.clone());
    let site = compacting_with(Site::over(Arc::new(disk)), |compaction| {
        compaction.progress(move |progress| {
            let log = log.get().unwrap();
            // All five have been read once, and most of them again.
            if progress.bytes_read() > 9 * SEGMENT_BYTES && log.start_offset() == at(0) {
                log.delete_before(log.segments()[4].base_offset).unwrap();
                log.maintain().unwrap();
                unnamed.store(space.used() - space.named(), Ordering::Relaxed);
            }
            ControlFlow::Continue(())
        })
    });
    let log = site.options(|options| options.segment_bytes(SEGMENT_BYTES)).open();
    cell.set(log.clone()).unwrap();
    let value = vec![b'v'; 64 << 10];
    for number in 0..700 {
        let key = if number % 14 == 0 { number.to_string() } else { "often".to_owned() };
        log.append_with(Durability::Written, Record::new(&value).key(key)).unwrap();
    }
    log.roll().unwrap();
    log.compact().unwrap();
    let most = most.load(Ordering::Relaxed);
    assert!(log.start_offset() > at(0), "nothing was deleted");
    assert!(most <= SEGMENT_BYTES, "{most} bytes");
}
