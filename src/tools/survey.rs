//! What is in the directory: the manifest, the files of segments, and what each of them holds.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::bytes;
use crate::format::manifest::Manifest;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::format::names;
use crate::format::names::Name;
use crate::format::segment::MAX_SEGMENT_LEN;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::format::segment::SegmentHeader;
use crate::manifest;
use crate::segment::Records;
use crate::storage::Dir;
use crate::storage::EntryKind;
use crate::storage::OpenMode;
use crate::tools::seed;
use crate::tools::walk::Found;
use crate::tools::walk::Stretch;
use crate::tools::walk::walk;
use crate::units::Offset;
use crate::units::Timestamp;
use std::ops::Range;

/// So many flaws of one segment are told one by one.
pub(super) const FLAWS_MAX: usize = 64;

/// The manifest as it was found.
#[derive(Debug)]
pub(super) enum Listed {
    Sound(Manifest),
    Missing,
    Damaged(Error),
}

/// A file with the name of a segment.
#[derive(Clone, Debug)]
pub(super) struct SegmentFile {
    pub(super) name: String,
    pub(super) base: Offset,
    pub(super) id: u64,
    pub(super) header: Option<SegmentHeader>,
    pub(super) size: u64,
}

#[derive(Debug)]
pub(super) struct Survey {
    pub(super) manifest: Listed,
    pub(super) files: Vec<SegmentFile>,
    /// The highest id in a name.
    pub(super) highest_id: u64,
}

/// Reads the manifest and the header of every segment there is.
pub(super) fn survey(dir: &Dir) -> Result<Survey> {
    let manifest = match manifest::read(dir) {
        Ok(Some(manifest)) => Listed::Sound(manifest),
        Ok(None) => Listed::Missing,
        Err(error) if error.kind() == ErrorKind::Corrupt => Listed::Damaged(error),
        Err(error) if error.kind() == ErrorKind::UnsupportedVersion && !is_whole(dir)? => {
            Listed::Damaged(error)
        }
        Err(error) => return Err(error),
    };
    let (mut files, mut highest_id) = (Vec::new(), 0);
    for entry in dir.list()?.into_iter().filter(|entry| entry.kind == EntryKind::File) {
        let parsed = names::parse(&entry.name);
        if let Some(Name::Segment { segment_id, .. } | Name::Index { segment_id, .. }) = parsed {
            highest_id = highest_id.max(segment_id);
        }
        if let Some(Name::Segment { base_offset, segment_id }) = parsed {
            files.extend(look_at(dir, base_offset, segment_id)?);
        }
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Survey { manifest, files, highest_id })
}

/// Whether the checksum of the manifest agrees, so that it is what somebody wrote.
fn is_whole(dir: &Dir) -> Result<bool> {
    let Some(file) = dir.open_if_there(names::MANIFEST, OpenMode::Read)? else { return Ok(false) };
    let mut content = vec![0; usize::try_from(file.size()?.min(64 << 20)).unwrap_or_default()];
    file.read(&mut content, 0)?;
    let parts = content.split_last_chunk::<4>();
    Ok(parts.is_some_and(|(covered, crc)| bytes::crc(0, covered) == u32::from_le_bytes(*crc)))
}

/// `None` if it has gone meanwhile.
fn look_at(dir: &Dir, base: Offset, id: u64) -> Result<Option<SegmentFile>> {
    let name = names::segment(base, id);
    let Some(file) = dir.open_if_there(&name, OpenMode::Read)? else { return Ok(None) };
    let mut content = [0; SEGMENT_HEADER_LEN];
    let len = file.read(&mut content, 0)?;
    let header = match SegmentHeader::decode(content.get(..len).unwrap_or_default()) {
        Ok(header) => Some(header),
        Err(why) if why.is_newer() && is_sealed(&content) => {
            let what = "the segment needs a newer version of this crate";
            return Err(Error::new(ErrorKind::UnsupportedVersion, what).with_path(file.path()));
        }
        Err(_) => None,
    };
    Ok(Some(SegmentFile { name, base, id, header, size: file.size()? }))
}

fn is_sealed(header: &[u8; SEGMENT_HEADER_LEN]) -> bool {
    let parts = header.split_last_chunk::<4>();
    parts.is_some_and(|(covered, crc)| bytes::crc(0, covered) == u32::from_le_bytes(*crc))
}

/// A place where offsets are missing.
#[derive(Clone, Debug)]
pub(super) struct Flaw {
    pub(super) position: u64,
    pub(super) offsets: Range<Offset>,
    pub(super) what: String,
}

/// What a segment holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// Where its last sound frame ends.
    pub(super) end_position: u64,
    pub(super) end: Offset,
    pub(super) records: u64,
    pub(super) times: Option<(Timestamp, Timestamp)>,
    pub(super) has_holes: bool,
    /// The highest durable mark of a sound frame, or behind damage.
    pub(super) mark: Offset,
    /// The first of them; the last one stands for the rest.
    pub(super) flaws: Vec<Flaw>,
    /// What is behind the last sound frame, if it is not zeros.
    pub(super) rest: Option<Flaw>,
}

/// The seed of a file, from its header or, for a file whose header is damaged, its index or frames.
pub(super) fn seed_of(dir: &Dir, file: &SegmentFile) -> Result<Option<u32>> {
    match &file.header {
        Some(header) => Ok(Some(header.seed)),
        None => seed::find(dir, file.base, file.id),
    }
}

/// How much of a segment belongs to the log.
pub(super) fn stretch(seed: u32, row: &Row, size: u64) -> Stretch {
    let is_active = row.state == RowState::Active;
    let longest = MAX_SEGMENT_LEN + (2 << 30);
    Stretch {
        seed,
        base: row.base_offset,
        end_position: if is_active { size.min(longest) } else { size.min(row.byte_len) },
        end: (!is_active).then_some(row.end_offset),
    }
}

/// Reads all of a stretch.
pub(super) fn examine(dir: &Dir, name: &str, stretch: Stretch) -> Result<Content> {
    let mut content = Content {
        end_position: SEGMENT_HEADER_LEN as u64,
        end: stretch.base,
        ..Content::default()
    };
    let file = dir.open(name, OpenMode::Read)?;
    walk(&file, stretch, |found| {
        content.take(found, &stretch);
        Ok(())
    })?;
    Ok(content)
}

impl Content {
    fn take(&mut self, found: Found<'_>, stretch: &Stretch) {
        match found {
            Found::Frame { position, header, body } => {
                let mut next = header.base_offset;
                for placed in Records::new(body, &header).flatten() {
                    if stretch.end.is_some_and(|end| placed.offset >= end) {
                        break;
                    }
                    self.has_holes |= placed.offset != next;
                    next = placed.offset + 1;
                    self.records += 1;
                    let (first, last) =
                        self.times.unwrap_or((placed.appended_at, placed.appended_at));
                    self.times = Some((first, last.max(placed.appended_at)));
                }
                self.has_holes |= next < header.end_offset();
                self.mark = self.mark.max(header.durable_mark());
                self.end_position = position + header.frame_len();
                self.end = header.end_offset().min(stretch.end.unwrap_or(Offset::MAX));
            }
            Found::Mark(mark) => self.mark = self.mark.max(mark),
            Found::Flaw { position, offsets, why } => {
                let what = format!("records are damaged ({why})");
                if self.flaws.len() < FLAWS_MAX {
                    self.flaws.push(Flaw { position, offsets, what });
                } else if let Some(last) = self.flaws.last_mut() {
                    last.offsets.end = offsets.end;
                    last.what = "records are damaged in many places".to_owned();
                }
            }
            Found::Rest { position, offset, len, why } => {
                if len > 0 {
                    let what = format!("{len} bytes are damaged ({why})");
                    self.rest = Some(Flaw { position, offsets: offset..offset, what });
                }
            }
        }
    }
}
