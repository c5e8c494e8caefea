//! The first half of a run: reads the segments that are new to compaction, and finds out which of
//! their records are dead.

use crate::bugs::Bug;
use crate::compaction::Run;
use crate::compaction::key_map::KeyHash;
use crate::compaction::key_map::KeyMap;
use crate::compaction::key_map::Put;
use crate::compaction::key_map::TOGETHER;
use crate::compaction::pace::Halt;
use crate::format::manifest::Row;
use crate::segment::Frames;
use crate::segment::Records;
use crate::units::Offset;
use std::collections::HashMap;
use std::ops::Range;

/// What is known of the keys between two offsets.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) map: KeyMap,
    /// Records below are not in the map.
    pub(super) from: Offset,
    /// Nor are records from here on.
    pub(super) limit: Offset,
    /// By the ids of their segments.
    pub(super) rows: HashMap<u64, Seen>,
    /// Whether the map had no room for the record at the limit.
    pub(super) is_full: bool,
    numbered: u64,
    batch: Vec<(KeyHash, u64, Offset)>,
}

/// What was seen in a segment.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The numbers of its records that lie between the two offsets.
    pub(super) numbers: Range<u64>,
    /// How many tombstones it has, dead ones among them.
    pub(super) tombstones: u64,
}

impl Collected {
    pub(super) fn new(map: KeyMap, from: Offset) -> Self {
        Self {
            map,
            from,
            limit: from,
            rows: HashMap::new(),
            is_full: false,
            numbered: 0,
            batch: Vec::with_capacity(TOGETHER),
        }
    }

    /// Whether all of a segment lies below the limit.
    pub(super) fn covers(&self, row: &Row) -> bool {
        row.end_offset <= self.limit
    }

    /// Takes in the records of a segment, as far as there is room.
    fn row(&mut self, run: &mut Run<'_>, row: &Row) -> Result<(), Halt> {
        let (file, seed) = run.open(row)?;
        let mut frames = Frames::new(&file, seed, row);
        let first = self.numbered;
        let mut tombstones = 0;
        loop {
            let Some((header, body)) = frames.next().map_err(Halt::Unreadable)? else { break };
            let mut malformed = None;
            for placed in Records::new(body, &header) {
                let placed = match placed {
                    Ok(placed) if placed.offset < row.end_offset => placed,
                    Ok(_) => break,
                    Err(why) => {
                        malformed = Some(why);
                        break;
                    }
                };
                tombstones += u64::from(placed.record.value.is_none());
                if placed.offset >= self.from && !self.record(placed.offset, placed.record.key) {
                    break;
                }
            }
            if let Some(why) = malformed {
                return Err(Halt::Unreadable(frames.malformed(why)));
            }
            run.pace.did_read(header.frame_len())?;
            if self.is_full {
                break;
            }
        }
        self.put_batch();
        self.rows.insert(row.segment_id, Seen { numbers: first..self.numbered, tombstones });
        if !self.is_full {
            self.limit = row.end_offset;
        }
        Ok(())
    }

    /// Numbers a record and puts its key into the map; tells whether there is room for more.
    fn record(&mut self, offset: Offset, key: Option<&[u8]>) -> bool {
        if self.numbered >= self.map.records_max() {
            // Those before it first: one of them may find no room, and then it is the limit.
            self.put_batch();
            if !self.is_full {
                (self.is_full, self.limit) = (true, offset);
            }
            return false;
        }
        if let Some(key) = key {
            self.batch.push((self.map.hash(key), self.numbered, offset));
        }
        self.numbered += 1;
        if self.batch.len() == TOGETHER {
            self.put_batch();
        }
        !self.is_full
    }

    fn put_batch(&mut self) {
        self.map.fetch(self.batch.iter().map(|(hash, _, _)| *hash));
        for (hash, number, offset) in self.batch.drain(..) {
            if self.map.put(hash, number) == Put::Full && !Bug::FullMapIgnored.is_on() {
                // Numbers from here on are of records that are kept as they are.
                (self.is_full, self.limit) = (true, offset);
                break;
            }
        }
    }
}

impl Run<'_> {
    /// Collects the keys from `from` on. Segments that cannot be read are left aside.
    pub(super) fn collect(&mut self, from: Offset) -> Result<Collected, Halt> {
        let rows: Vec<Row> =
            self.rows.iter().filter(|row| row.end_offset > from).copied().collect();
        // A row may say that it has none and be wrong: with room for one key a run comes further.
        let records: u64 = rows.iter().map(|row| row.record_count).sum();
        let records = records.max(1);
        let storage = self.segments.dir().storage();
        let random = (storage.random(), storage.random());
        let map = KeyMap::new(self.settings.map_bytes, records, random);
        let mut collected = Collected::new(map, from);
        self.pace.will_read(rows.iter().map(|row| row.byte_len).sum());
        for row in &rows {
            if self.is_aside(row) {
                collected.limit = row.end_offset;
                continue;
            }
            self.report.segments_read += 1;
            match collected.row(self, row) {
                Err(Halt::Unreadable(error)) => {
                    // What was read of it stays in the map: those records are there.
                    collected.put_batch();
                    self.leave_aside(row, error);
                    if !collected.is_full {
                        collected.limit = row.end_offset;
                    }
                }
                done => done?,
            }
            if collected.is_full {
                break;
            }
        }
        Ok(collected)
    }
}
