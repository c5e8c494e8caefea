//! Numbers for whoever runs a log.

use crate::compaction::CompactionReport;
use crate::compaction::Compactor;
use crate::error::Error;
use crate::format::manifest::Row;
use crate::log::Log;
use crate::units::Offset;
use crate::units::Timestamp;

/// A log at one moment, and what has been done to it since it was opened. Meant for people and for
/// graphs: numbers that belong together may be some microseconds apart.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// The offset of the first record there is.
    pub start_offset: Offset,
    /// The offset of the next record.
    pub end_offset: Offset,
    /// Records below it are with the operating system.
    pub written_offset: Offset,
    /// Records below it are on the device.
    pub durable_offset: Offset,
    /// Cursors read up to here.
    pub high_watermark: Offset,
    /// How many segments there are.
    pub segments: u64,
    /// Bytes of all segments, without what is still in memory.
    pub bytes: u64,
    /// Records in all segments, those below the start in the first of them included.
    pub records: u64,
    /// When the first record of the first segment was appended.
    pub oldest: Option<Timestamp>,
    /// When the last record was appended.
    pub newest: Option<Timestamp>,
    /// Bytes of records that a power cut would take.
    pub unsynced_bytes: u64,
    /// Writes of records to files.
    pub writes: u64,
    /// Bytes of these writes.
    pub written_bytes: u64,
    /// Writes that a full disk refused.
    pub refused_writes: u64,
    /// Syncs of records.
    pub syncs: u64,
    /// Callers that waited for these syncs: divided by their number, the size of a group.
    pub group_commits: u64,
    /// The most callers that shared one sync.
    pub largest_group: u64,
    /// Below it, compaction has compared the keys of all segments that it could read.
    pub compacted_to: Offset,
    /// Bytes of the segments that the next run of compaction would see for the first time. Zero if
    /// the log was opened without [`Options::compaction`](crate::Options::compaction).
    pub dirty_bytes: u64,
    /// Their part in the bytes of all segments that it may compact, 0 to 1: a run in the background
    /// is due when it reaches [`Compaction::dirty_ratio`](crate::Compaction::dirty_ratio).
    pub dirty_ratio: f64,
    /// Tombstones in segments that have been compacted: they go when their retention is over.
    pub tombstones: u64,
    /// What the last run of compaction did that came to an end, whoever asked for it.
    pub last_compaction: Option<CompactionReport>,
    /// When maintenance ran last.
    pub maintained_at: Option<Timestamp>,
    /// The last error that no call returned, or the one that ended appending.
    pub last_error: Option<Error>,
}

/// A segment of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its number, which no other segment of the log ever has.
    pub id: u64,
    /// Its first offset.
    pub base_offset: Offset,
    /// The offset behind its last one.
    pub end_offset: Offset,
    /// Length in bytes.
    pub bytes: u64,
    /// How many records it has.
    pub records: u64,
    /// When its first record was appended; `None` if it has no records.
    pub first_appended_at: Option<Timestamp>,
    /// When its last record was appended.
    pub last_appended_at: Option<Timestamp>,
    /// When a run of compaction first covered all of it; `None` if none has, or it could not be
    /// read.
    pub compacted_at: Option<Timestamp>,
    /// How many tombstones it has at most, if it has been compacted; 0 before.
    pub tombstones: u64,
    /// Whether it is the one that is written to.
    pub is_active: bool,
}

impl SegmentInfo {
    pub(super) fn new(row: &Row) -> Self {
        let has_records = row.record_count > 0;
        Self {
            id: row.segment_id,
            base_offset: row.base_offset,
            end_offset: row.end_offset,
            bytes: row.byte_len,
            records: row.record_count,
            first_appended_at: has_records.then_some(row.first_appended_at),
            last_appended_at: has_records.then_some(row.last_appended_at),
            compacted_at: row.compacted_at,
            tombstones: row.tombstone_count,
            is_active: row.is_active(),
        }
    }
}

impl Log {
    /// The segments that have been begun, the oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let rows = self.commit().noted_rows(&self.view().segments);
        rows.iter().map(SegmentInfo::new).collect()
    }

    /// What an operator asks for. Takes time for each segment, and waits for no write or sync.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let segments = self.segments();
        let (counters, unsynced_bytes, last_at) = self.commit().doings();
        let last = self.0.keeper.last.lock().clone();
        let compactor = self.0.keeper.compactor.as_deref();
        let outlook = compactor.map(Compactor::outlook).unwrap_or_default();
        Stats {
            start_offset: self.start_offset(),
            end_offset: self.end_offset(),
            written_offset: self.written_offset(),
            durable_offset: self.durable_offset(),
            high_watermark: self.high_watermark(),
            segments: segments.len() as u64,
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            records: segments.iter().map(|segment| segment.records).sum(),
            oldest: segments.iter().find_map(|segment| segment.first_appended_at),
            newest: Some(last_at).filter(|at| *at > Timestamp::MIN),
            unsynced_bytes,
            writes: counters.writes,
            written_bytes: counters.written_bytes,
            refused_writes: counters.refused_writes,
            syncs: counters.syncs,
            group_commits: counters.group_commits,
            largest_group: counters.largest_group,
            compacted_to: self.view().segments.state().manifest.compacted_to,
            dirty_bytes: outlook.dirty_bytes,
            dirty_ratio: outlook.dirty_ratio,
            tombstones: segments.iter().map(|segment| segment.tombstones).sum(),
            last_compaction: compactor.and_then(Compactor::last),
            maintained_at: last.run_at,
            last_error: self.commit().poison_error().or(last.error),
        }
    }
}
