//! The directory of a checkpoint: whether it may be one, and what it has already.

use crate::checkpoint::Means;
use crate::checkpoint::Need;
use crate::checkpoint::positions::Bound;
use crate::checkpoint::refused;
use crate::checkpoint::replace;
use crate::commit::Board;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::manifest::Origin;
use crate::format::manifest::Row;
use crate::format::names;
use crate::format::names::Name;
use crate::manifest;
use crate::segment;
use crate::storage::Dir;
use crate::storage::Handle;
use crate::storage::OpenMode;
use crate::units::Offset;
use crate::units::Timestamp;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;

/// The target of a checkpoint, locked.
#[derive(Debug)]
pub(super) struct Target {
    dir: Dir,
    /// What it is now, durable or not.
    manifest: Manifest,
    /// The rows of that, by id.
    rows: HashMap<u64, Row>,
    /// It keeps the lock, and has told readers elsewhere to look anew.
    _board: Board,
}

impl Target {
    /// Locks a directory that is missing, empty, or a checkpoint of the log that nobody changed.
    pub(super) fn lock(dir: &Dir, log_id: u128) -> Result<Self> {
        let created = dir.storage().create_dir(dir.path());
        created.map_err(|error| Error::io("cannot open the directory", dir.path(), error))?;
        // A directory of something else gets no file of ours.
        check_listed(dir)?;
        let path = dir.path_of(names::LOCK);
        let lock = dir.storage().lock(&path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                let what = "the checkpoint is open as a log, or another one is being taken there";
                Error::new(ErrorKind::Locked, what).with_path(&path)
            }
            _ => Error::io("cannot lock", &path, error),
        })?;
        check_listed(dir)?;
        // Names that were put there by who was cut off may not be durable, and are relied on.
        dir.sync()?;
        let manifest = manifest::read(dir)?.unwrap_or(Manifest {
            log_id,
            closed: false,
            origin: Origin::Unfinished,
            start_offset: Offset::ZERO,
            next_segment_id: 0,
            last_append_time: Timestamp::MIN,
            truncation_epoch: 0,
            compacted_to: Offset::ZERO,
            rows: Vec::new(),
        });
        if manifest.log_id != log_id {
            return Err(refused(dir, "the target of the checkpoint holds another log"));
        }
        if manifest.origin == Origin::Log {
            let what = "the target of the checkpoint is a log of its own: it has been written to";
            return Err(refused(dir, what));
        }
        let rows = manifest.rows.iter().map(|row| (row.segment_id, *row)).collect();
        let _board = Board::new(lock, Timestamp::ZERO);
        Ok(Self { dir: dir.clone(), manifest, rows, _board })
    }

    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// What may be said of positions before it becomes what `next` says.
    pub(super) fn bound(&self, next: &Manifest) -> Bound {
        let end = next.end_offset();
        match self.manifest.origin {
            Origin::Checkpoint if self.manifest.truncation_epoch != next.truncation_epoch => {
                Bound::Start(next.start_offset)
            }
            Origin::Checkpoint => Bound::End(end.min(self.manifest.end_offset())),
            Origin::Unfinished | Origin::Log => Bound::Anew(end),
        }
    }

    /// Makes sure that the manifest has given out all ids below `next`.
    pub(super) fn reserve_ids(&mut self, next: u64) -> Result<()> {
        if self.manifest.next_segment_id >= next {
            return Ok(());
        }
        self.manifest.next_segment_id = next;
        replace(&self.dir, &self.manifest)
    }

    /// What is to be done for it to have all of a segment, durably.
    ///
    /// It has what its manifest says, for that made the names durable. A file that says more is
    /// what a checkpoint left that was not finished: a link to it may never become durable, and a
    /// second link to the same file would not take its place, so it is copied.
    pub(super) fn needs(&self, source: &Dir, row: &Row) -> Result<Need> {
        let Some(old) = self.rows.get(&row.segment_id) else {
            return Ok(Need::Place(Means::Any));
        };
        let name = names::segment(row.base_offset, row.segment_id);
        let Some(file) = self.dir.open_if_there(&name, OpenMode::Read)? else {
            return if old.base_offset == row.base_offset {
                Ok(Need::Place(Means::Any))
            } else {
                Err(self.gone_apart())
            };
        };
        if identity(old) == identity(row) {
            return Ok(Need::Nothing);
        }
        let log_id = self.manifest.log_id;
        let (our_file, ours) = segment::open_file(source, row, log_id, OpenMode::Read)?;
        let (_, theirs) = segment::open_file(&self.dir, row, log_id, OpenMode::Read)?;
        // A log that was put back from a copy, or has lost its end, goes on in the same segment.
        // What it has lost is here only, so it is not replaced.
        let common = old.byte_len.min(row.byte_len);
        if ours != theirs
            || old.base_offset != row.base_offset
            || !begin_alike(&our_file, &file, common)?
        {
            return Err(self.gone_apart());
        }
        Ok(match file.size()? {
            _ if old.byte_len >= row.byte_len => Need::Nothing,
            size if size >= row.byte_len => Need::Replace(Means::Copy),
            _ => Need::Replace(Means::Any),
        })
    }

    /// Two logs that came of one directory have given the same id to different segments, or have
    /// put different records into one.
    fn gone_apart(&self) -> Error {
        let what = "the target of the checkpoint has other bytes in segments of the same names: \
                    its log and this one have gone different ways, or one of them is damaged";
        refused(&self.dir, what)
    }

    /// Makes it the checkpoint that the manifest says.
    pub(super) fn finish(&mut self, manifest: Manifest) -> Result<()> {
        let next_segment_id = manifest.next_segment_id.max(self.manifest.next_segment_id);
        let manifest = Manifest { next_segment_id, ..manifest };
        replace(&self.dir, &manifest)?;
        let rows: HashMap<_, _> =
            manifest.rows.iter().map(|row| (row.segment_id, row.base_offset)).collect();
        for entry in self.dir.list()? {
            let is_named = match names::parse(&entry.name) {
                Some(Name::Segment { base_offset, segment_id })
                | Some(Name::Index { base_offset, segment_id }) => {
                    rows.get(&segment_id) == Some(&base_offset)
                }
                Some(Name::SegmentNext) => false,
                _ => true,
            };
            if let Some(name) = entry.name.to_str().filter(|_| !is_named) {
                self.dir.remove(name)?;
            }
        }
        Ok(())
    }
}

/// Refuses a directory that is neither empty nor has a manifest.
fn check_listed(dir: &Dir) -> Result<()> {
    let listed = dir.list()?;
    let is_ours = |name: &OsStr| {
        // What the very first steps of a checkpoint leave.
        matches!(names::parse(name), Some(Name::Lock | Name::ManifestNext))
    };
    let has_manifest = listed.iter().any(|entry| names::parse(&entry.name) == Some(Name::Manifest));
    if has_manifest || listed.iter().all(|entry| is_ours(&entry.name)) {
        return Ok(());
    }
    Err(refused(dir, "the target of a checkpoint must be missing, empty, or an earlier one"))
}

/// What two rows of a segment have in common only if its bytes are the same.
fn identity(row: &Row) -> impl PartialEq + use<> {
    let times = (row.first_appended_at, row.last_appended_at);
    (row.base_offset, row.end_offset, row.byte_len, row.record_count, times)
}

/// Whether two files have the same first `len` bytes.
fn begin_alike(one: &Handle, other: &Handle, len: u64) -> Result<bool> {
    const PIECE_BYTES: u64 = 256 << 10;
    let room = usize::try_from(len.min(PIECE_BYTES)).unwrap_or_default();
    let (mut ours, mut theirs) = (vec![0; room], vec![0; room]);
    let mut position = 0;
    while position < len {
        let piece = usize::try_from((len - position).min(PIECE_BYTES)).unwrap_or_default();
        ours.truncate(piece);
        theirs.truncate(piece);
        let read = (one.read(&mut ours, position)?, other.read(&mut theirs, position)?);
        if read != (piece, piece) || ours != theirs {
            return Ok(false);
        }
        position += piece as u64;
    }
    Ok(true)
}
