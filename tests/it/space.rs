//! Space: how many bytes a record takes on the disk.

use crate::support::Site;
use crate::support::clock::ManualClock;
use crate::support::secs;
use std::time::Duration;
use stratalog::{Durability, Log};

/// Files end where their records do once the log is closed.
fn bytes_a_record(durability: Durability, append: fn(&Log, &ManualClock)) -> u64 {
    const COUNT: u64 = 5000;
    let clock = ManualClock::at(secs(1_700_000_000));
    let site = Site::disk().clock(&clock).options(|options| options.durability(durability));
    let log = site.open();
    for _ in 0..COUNT {
        append(&log, &clock);
    }
    log.close().unwrap();
    site.segments().iter().sum::<u64>().div_ceil(COUNT)
}

fn hundred_bytes(log: &Log, _clock: &ManualClock) {
    log.append(&[b'x'; 100]).unwrap();
}

#[test]
fn many_small_records_share_a_frame() {
    assert!(bytes_a_record(Durability::Buffered, hundred_bytes) <= 104);
}

#[test]
fn records_of_different_times_share_a_frame_too() {
    let bytes = bytes_a_record(Durability::Buffered, |log, clock| {
        clock.advance(Duration::from_micros(1234));
        log.append(&[b'x'; 100]).unwrap();
    });
    assert!(bytes <= 106, "{bytes}");
}

#[test]
fn batches_of_one_share_a_frame_too() {
    let bytes = bytes_a_record(Durability::Buffered, |log, _| {
        log.append_batch(&[[b'x'; 100]]).unwrap();
    });
    assert!(bytes <= 106, "{bytes}");
}

#[test]
fn a_record_that_is_synced_alone_pays_for_its_frame() {
    assert!(bytes_a_record(Durability::Synced, hundred_bytes) <= 150);
}

#[test]
fn an_open_log_holds_at_most_a_segment_in_reserve() {
    let site = Site::disk().options(|options| options.segment_bytes(64 << 10));
    let log = site.open();
    for _ in 0..1000 {
        log.append(&[b'x'; 100]).unwrap();
    }
    let bytes = site.segments();
    assert!(bytes.iter().all(|bytes| *bytes <= 64 << 10), "{bytes:?}");
}

#[test]
fn an_index_is_small() {
    let site = Site::disk().options(|options| options.durability(Durability::Buffered));
    let log = site.open();
    for _ in 0..10_000 {
        log.append(&[b'x'; 100]).unwrap();
    }
    log.close().unwrap();
    let index = site.files().into_iter().filter(|(name, _)| name.ends_with(".index"));
    let index: u64 = index.map(|(_, size)| size).sum();
    assert!(index * 200 <= site.segments().iter().sum());
}
