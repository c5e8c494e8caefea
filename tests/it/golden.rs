//! A log of format version 1, written by hand, opens and holds what its author says.

use crate::support::at;
use crate::support::clock::ManualClock;
use crate::support::image::Image;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use stratalog::storage::FsStorage;
use stratalog::{Compaction, EntryBuf, Log, Maintenance, Options, Record, Seek, Timestamp};
use tempfile::TempDir;

#[test]
fn a_log_of_version_1_opens_and_holds_what_was_put_into_it() {
    let (_dir, path) = copy();
    let log = Options::new().create(false).open(path).unwrap();
    assert!(log.recovery().is_clean());
    assert_eq!(shown(&log), expected());
}

#[test]
fn a_log_of_version_1_goes_on_where_it_ended() {
    let (_dir, path) = copy();
    let mut expected = expected();
    for round in 0..2 {
        let log = Log::open(&path).unwrap();
        let end = log.end_offset();
        assert_eq!(end, at(413 + round));
        assert_eq!(log.append(Record::new("more").key("k")).unwrap(), end);
        let entry = log.get(end).unwrap().unwrap();
        expected.push(line(&entry));
        assert_eq!(shown(&log), expected);
        log.close().unwrap();
    }
}

/// What it says of compaction is believed, and compaction goes on from there.
#[test]
fn a_log_of_version_1_is_compacted_where_it_has_not_been() {
    let (_dir, path) = copy();
    let clock = ManualClock::at(COMPACTED_AT);
    let hour = Duration::from_secs(3600);
    let options = Options::new()
        .maintenance(Maintenance::Manual)
        .clock(Arc::new(clock.clone()))
        .compaction(Compaction::new().tombstone_retention(hour));
    let log = options.open(&path).unwrap();
    let (stats, segments) = (log.stats(), log.segments());
    assert_eq!((stats.compacted_to, stats.tombstones, stats.dirty_bytes), (at(409), 2, 0));
    let compacted: Vec<_> =
        segments.iter().map(|segment| (segment.compacted_at, segment.tombstones)).collect();
    assert_eq!(compacted, [(Some(COMPACTED_AT), 2), (None, 0)]);

    log.append(Record::new("newer").key("sensor-7")).unwrap();
    log.roll().unwrap();
    clock.advance(hour - Duration::from_micros(1));
    let mut expected = expected();
    expected.retain(|line| !line.starts_with("5\t"));
    assert_eq!(log.compact().unwrap().records_removed(), 1);
    expected.push(line(&log.get(at(413)).unwrap().unwrap()));
    assert_eq!(shown(&log), expected);

    // Their time began when the manifest says, not with this run.
    clock.advance(Duration::from_micros(1));
    assert_eq!(log.compact().unwrap().records_removed(), 2);
    expected.retain(|line| !line.contains("tombstone"));
    assert_eq!(shown(&log), expected);
}

/// When the manifest says that the first segment was compacted.
const COMPACTED_AT: Timestamp = Timestamp::from_micros(1_700_000_000_090_000);

#[test]
fn opening_and_reading_a_closed_log_changes_no_file() {
    let (_dir, path) = copy();
    let before = Image::of_dir(&FsStorage::new(), &path);
    let log = Log::open(&path).unwrap();
    assert_eq!(shown(&log), expected());
    log.close().unwrap();
    assert_eq!(Image::of_dir(&FsStorage::new(), &path), before);
}

fn copy() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::create_dir(&path).unwrap();
    for entry in fs::read_dir(data().join("log")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
    }
    (dir, path)
}

fn expected() -> Vec<String> {
    let text = fs::read_to_string(data().join("expected.tsv")).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1")
}

fn shown(log: &Log) -> Vec<String> {
    log.iter(Seek::Start).unwrap().map(|entry| line(&entry.unwrap())).collect()
}

/// Offset, append time, timestamp, key, value and headers, as in `expected.tsv`.
fn line(entry: &EntryBuf) -> String {
    let none = || "-".to_owned();
    let value = if entry.is_tombstone() { "tombstone".to_owned() } else { hex(entry.value()) };
    let headers: Vec<String> = entry
        .headers()
        .map(|(name, value)| format!("{}={}", hex(name.as_bytes()), hex(value)))
        .collect();
    [
        entry.offset().to_string(),
        entry.appended_at().as_micros().to_string(),
        entry.timestamp().map_or_else(none, |time| time.as_micros().to_string()),
        entry.key().map_or_else(none, hex),
        value,
        if headers.is_empty() { none() } else { headers.join(",") },
    ]
    .join("\t")
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}
