//! Files that the manifest does not name, and those that it names and that are gone.

use crate::bugs::Bug;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::names;
use crate::format::names::Name;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::segment;
use crate::storage::Dir;
use crate::storage::EntryKind;
use crate::storage::OpenMode;
use crate::units::Offset;
use std::ffi::OsStr;

/// Files with names of ours that the manifest does not name.
pub(super) struct Leftovers {
    names: Vec<String>,
    /// The files of the segments that the manifest calls prepared, in its order. One that was begun
    /// has the name of a segment, unless that was lost.
    pub(super) prepared: Vec<String>,
}

impl Leftovers {
    /// Finds them, and checks on the way that every segment the manifest names is there, and that
    /// no segment is there that only a later manifest can have named.
    pub(super) fn find(dir: &Dir, manifest: &Manifest) -> Result<Self> {
        let mut missing: Vec<_> = manifest.rows.iter().map(Some).collect();
        let mut names = Vec::new();
        let mut prepared = vec![None; manifest.prepared.len()];
        let place_of = |id| manifest.prepared.iter().position(|ready| ready.segment_id == id);
        for entry in dir.list()?.into_iter().filter(|entry| entry.kind == EntryKind::File) {
            match names::parse(&entry.name) {
                Some(Name::Prepared { segment_id }) => {
                    let name = names::prepared(segment_id);
                    if let Some(place) = place_of(segment_id) {
                        prepared.get_mut(place).map(|found| found.replace(name));
                        continue;
                    }
                    refuse_newer(dir, &name, segment_id, manifest)?;
                    names.push(name);
                }
                Some(Name::Segment { base_offset, segment_id }) => {
                    if let Some(place) = named(manifest, base_offset, segment_id) {
                        missing.get_mut(place).map(Option::take);
                        continue;
                    }
                    let name = names::segment(base_offset, segment_id);
                    if let Some(place) = place_of(segment_id) {
                        prepared.get_mut(place).map(|found| found.replace(name));
                        continue;
                    }
                    refuse_newer(dir, &name, segment_id, manifest)?;
                    names.push(name);
                }
                Some(Name::Index { base_offset, segment_id })
                    if named(manifest, base_offset, segment_id).is_none() =>
                {
                    names.push(names::index(base_offset, segment_id));
                }
                Some(Name::SegmentNext) => names.push(names::SEGMENT_NEXT.to_owned()),
                _ => {}
            }
        }
        if let Some(row) = missing.into_iter().flatten().next() {
            return Err(segment::missing(dir, row));
        }
        for (found, ready) in prepared.iter().zip(&manifest.prepared) {
            if found.is_none() {
                return Err(segment::missing_prepared(dir, ready.segment_id));
            }
        }
        Ok(Self { names, prepared: prepared.into_iter().flatten().collect() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Those whose names no segment gets again: the file of one that was begun and never named is
    /// made anew by the next that is begun, with its id.
    pub(super) fn never_named_again(self, next_segment_id: u64) -> Vec<String> {
        let is_over = |name: &String| match names::parse(OsStr::new(name)) {
            Some(
                Name::Segment { segment_id, .. }
                | Name::Index { segment_id, .. }
                | Name::Prepared { segment_id },
            ) => segment_id < next_segment_id,
            _ => false,
        };
        self.names.into_iter().filter(is_over).collect()
    }

    pub(super) fn remove(&self, dir: &Dir) -> Result<u64> {
        for name in &self.names {
            dir.remove(name)?;
        }
        Ok(self.names.len() as u64)
    }
}

/// The place of the row of a segment.
fn named(manifest: &Manifest, base_offset: Offset, segment_id: u64) -> Option<usize> {
    let place = manifest.rows.binary_search_by_key(&base_offset, |row| row.base_offset).ok()?;
    manifest.rows.get(place).filter(|row| row.segment_id == segment_id).map(|_| place)
}

/// A segment with an id that this manifest has not given out holds records only if a later manifest
/// named it: then this manifest is an old one, and following it would lose them.
fn refuse_newer(dir: &Dir, name: &str, segment_id: u64, manifest: &Manifest) -> Result<()> {
    if segment_id < manifest.next_segment_id || Bug::NewerSegmentRemoved.is_on() {
        return Ok(());
    }
    let Some(file) = dir.open_if_there(name, OpenMode::Read)? else {
        return Ok(());
    };
    if file.size()? <= SEGMENT_HEADER_LEN as u64 {
        return Ok(());
    }
    let what = "the manifest is older than this segment; restore the manifest, or repair the log";
    Err(Error::new(ErrorKind::Corrupt, what).with_path(file.path()))
}
