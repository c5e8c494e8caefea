//! Real changelogs become their tables: the histories of two public repositories, compacted while
//! they are written and read.

use crate::support::Site;
use crate::support::at;
use crate::support::changelog;
use crate::support::changelog::Change;
use crate::support::compaction::compacting_with;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use stratalog::{Durability, Log, Offset, Record, Seek};

type Table = BTreeMap<String, String>;

/// 4,933 changes of 122 paths, whatever the segments and however small the map.
#[test]
fn the_changelog_of_redb_becomes_its_table() {
    let changelog = Changelog::named("redb");
    assert_eq!((changelog.changes.len(), changelog.table.len()), (4933, 122));
    for (segment_bytes, map_bytes) in [(4 << 10, 1 << 20), (4 << 10, 4 << 10), (1 << 20, 8 << 10)] {
        changelog.is_kept(segment_bytes, map_bytes);
    }
}

/// 98,257 changes of 6,519 paths that are left in the end, in segments of 64 KiB.
#[test]
fn the_changelog_of_kafka_becomes_its_table() {
    let changelog = Changelog::named("kafka");
    assert_eq!((changelog.changes.len(), changelog.table.len()), (98_257, 6519));
    changelog.is_kept(64 << 10, 1 << 20);
}

/// And with a map for a tenth of the paths, which ends many runs in the middle of a segment.
#[test]
fn the_changelog_of_kafka_becomes_its_table_with_a_small_map() {
    Changelog::named("kafka").is_kept(256 << 10, 32 << 10);
}

struct Changelog {
    changes: Vec<Change>,
    table: Table,
}

impl Changelog {
    fn named(name: &str) -> Self {
        let changes = changelog::changes(&format!("{name}.changelog.tsv.gz"));
        let table = changelog::table(&format!("{name}.table.tsv.gz"));
        Self { changes, table }
    }

    /// One thread appends, one reads, one compacts: then the log is exactly the table, and so it
    /// is after a kill and after a close.
    fn is_kept(&self, segment_bytes: u64, map_bytes: u64) {
        let site = compacting_with(Site::disk(), |compaction| compaction.map_bytes(map_bytes));
        let site = site.options(|options| {
            options.segment_bytes(segment_bytes).durability(Durability::Written)
        });
        let log = site.open();
        let is_done = AtomicBool::new(false);
        let runs = thread::scope(|scope| {
            scope.spawn(|| {
                for change in &self.changes {
                    log.append(change.record()).unwrap();
                }
                is_done.store(true, Ordering::Release);
            });
            scope.spawn(|| self.replay(&log));
            let mut runs = 0;
            while !is_done.load(Ordering::Acquire) {
                log.compact().unwrap();
                runs += 1;
            }
            runs
        });
        assert!(runs > 1, "it was not compacted meanwhile");
        log.roll().unwrap();
        while log.compact().unwrap().more() {}
        self.check(&log);
        self.check(&site.kill().open());
        self.check(&site.reopen(log));
    }

    /// Reads to the last change, which has a value and so stays, while the log is compacted
    /// underneath. A reader who is slow may miss that a path was deleted, since tombstones go at
    /// once here, and nothing else.
    fn replay(&self, log: &Log) {
        let mut cursor = log.cursor(Seek::Start).unwrap();
        let (mut table, mut last) = (Table::new(), None);
        while last < Some(at(self.changes.len() as u64 - 1)) {
            let Some(entry) = cursor.next().unwrap() else {
                cursor.wait(Duration::from_millis(10)).unwrap();
                continue;
            };
            assert!(last < Some(entry.offset()), "offsets go back");
            last = Some(entry.offset());
            assert_eq!(Record::from(entry), self.at(entry.offset()).record());
            changelog::apply(&mut table, entry);
        }
        table.retain(|path, _| self.table.contains_key(path));
        assert_eq!(table, self.table);
    }

    /// The last change of each path that is there, at the offset where it was appended, and
    /// nothing else.
    fn check(&self, log: &Log) {
        let mut last = BTreeMap::new();
        for (offset, change) in (0..).zip(&self.changes) {
            last.insert(&change.path, offset);
        }
        let stays = |offset: &u64| self.at(at(*offset)).blob.is_some();
        let mut expected = last.into_values().filter(stays).map(at).collect::<Vec<_>>();
        expected.sort_unstable();
        let mut left = Vec::new();
        let mut table = Table::new();
        let mut cursor = log.cursor(Seek::Start).unwrap();
        while let Some(entry) = cursor.next().unwrap() {
            assert_eq!(Record::from(entry), self.at(entry.offset()).record());
            left.push(entry.offset());
            changelog::apply(&mut table, entry);
        }
        assert!(left == expected, "{} records instead of {}", left.len(), expected.len());
        assert_eq!(table, self.table);
    }

    fn at(&self, offset: Offset) -> &Change {
        &self.changes[usize::try_from(offset.get()).unwrap()]
    }
}
