//! What the checker of the order reads in files and names, with a decoder of its own.

use std::path::Path;
use stratalog::storage::File;

/// Where frames begin.
pub(crate) const SEGMENT_HEADER: u64 = 72;

#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) start: u64,
    pub(crate) next_id: u64,
    pub(crate) rows: Vec<Row>,
    /// Ids of segments that may have been begun since.
    pub(crate) prepared: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) id: u64,
    pub(crate) base: u64,
    pub(crate) end: u64,
    pub(crate) state: u32,
    /// Up to where the manifest says that its bytes are durable.
    pub(crate) durable_len: u64,
}

const SEALED: u32 = 1;
pub(crate) const ACTIVE: u32 = 3;
const PREPARED: u32 = 4;

impl Manifest {
    /// The manifest in a file, if it is one.
    pub(crate) fn read(file: &dyn File) -> Option<Self> {
        let mut bytes = vec![0; usize::try_from(file.size().ok()?).ok()?];
        read(file, &mut bytes, 0);
        if !bytes.starts_with(b"STRATMAN") || bytes.len() < 84 {
            return None;
        }
        let closed = bytes[10] & 1 == 1;
        let rows = bytes[80..bytes.len() - 4].chunks_exact(96);
        let (prepared, rows): (Vec<_>, Vec<_>) = rows.partition(|row| small(row, 56) == PREPARED);
        let rows = rows.into_iter().map(|row| {
            let (base, end, state) = (number(row, 8), number(row, 16), small(row, 56));
            let durable = closed || state == SEALED || (state == ACTIVE && end > base);
            let durable_len = if durable { number(row, 24) } else { SEGMENT_HEADER };
            Row { id: number(row, 0), base, end, state, durable_len }
        });
        let prepared = prepared.into_iter().map(|row| number(row, 0)).collect();
        let (start, next_id) = (number(&bytes, 32), number(&bytes, 40));
        Some(Self { start, next_id, rows: rows.collect(), prepared })
    }

    /// Whether it names the file, as a segment or as a prepared one.
    pub(crate) fn names(&self, path: &Path) -> bool {
        let is_prepared = |id| self.prepared.contains(&id);
        self.row(path).is_some() || id_of(path).is_some_and(is_prepared)
    }

    /// Whether an output of compaction may get that name: its id is used up, and it begins where no
    /// records are appended to. Either a sealed segment begins there, or one did that was deleted
    /// or truncated a moment ago, which the run does not know yet.
    pub(crate) fn may_be_replaced_by(&self, path: &Path) -> bool {
        let name = name(path);
        let id =
            name.trim_end_matches(".log").split('-').nth(1).and_then(|id| id.parse::<u64>().ok());
        let base = name.split('-').next().and_then(|base| base.parse::<u64>().ok());
        let (Some(id), Some(base)) = (id, base) else { return false };
        let start = self.rows.first().map_or(self.start, |row| row.base);
        let is_deleted = base < start;
        let is_cut = self.rows.last().is_some_and(|row| row.state != ACTIVE && base > row.end);
        let replaced = self.rows.iter().find(|row| row.base == base);
        let is_sealed = replaced.is_some_and(|row| row.state == SEALED);
        id < self.next_id && (is_sealed || is_deleted || is_cut)
    }

    pub(crate) fn row(&self, path: &Path) -> Option<&Row> {
        let name = name(path);
        self.rows.iter().find(|row| row.name() == name)
    }
}

impl Row {
    pub(crate) fn name(&self) -> String {
        format!("{:020}-{:08}.log", self.base, self.id)
    }
}

/// The highest durable mark of frames that are written in one piece.
pub(crate) fn highest_mark(bytes: &[u8]) -> Option<u64> {
    let (mut at, mut highest) = (0, None);
    while let Some(header) = bytes.get(at..at + 40).filter(|header| header[36] == 1) {
        let mark = number(header, 8).saturating_sub(u64::from(small(header, 28)));
        highest = highest.max(Some(mark));
        at += (40 + usize::try_from(small(header, 4)).unwrap()).next_multiple_of(8);
    }
    highest
}

pub(crate) fn read(file: &dyn File, buf: &mut [u8], position: u64) -> usize {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], position + done as u64) {
            Ok(count) if count > 0 => done += count,
            _ => break,
        }
    }
    done
}

pub(crate) fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub(crate) fn small(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(crate) fn is_segment(path: &Path) -> bool {
    id_of(path).is_some()
}

/// The id in the name of a segment's file, prepared or not.
pub(crate) fn id_of(path: &Path) -> Option<u64> {
    let name = name(path);
    let digits =
        name.strip_suffix(".next").or_else(|| name.strip_suffix(".log")?.split('-').nth(1));
    digits?.parse().ok()
}

pub(crate) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
