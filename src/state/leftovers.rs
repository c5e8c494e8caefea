//! Files in the directory that the manifest does not name, and those that it names and that are gone.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::manifest::Row;
use crate::format::names;
use crate::format::names::Name;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::storage::Dir;
use crate::storage::EntryKind;
use crate::storage::OpenMode;
use std::collections::HashSet;

/// Files with names of ours that the manifest does not name.
pub(super) struct Leftovers {
    names: Vec<String>,
}

impl Leftovers {
    /// Finds them, and checks on the way that every segment the manifest names is there, and that
    /// no segment is there that only a later manifest can have named.
    pub(super) fn find(dir: &Dir, manifest: &Manifest) -> Result<Self> {
        let key = |row: &Row| (row.base_offset, row.segment_id);
        let mut named: HashSet<_> = manifest.rows.iter().map(key).collect();
        let all = named.clone();
        let mut names = Vec::new();
        for entry in dir.list()? {
            match names::parse(&entry.name) {
                Some(Name::Segment { base_offset, segment_id }) => {
                    if named.remove(&(base_offset, segment_id)) {
                        continue;
                    }
                    let name = names::segment(base_offset, segment_id);
                    if entry.kind == EntryKind::File {
                        refuse_newer(dir, &name, segment_id, manifest)?;
                        names.push(name);
                    }
                }
                Some(Name::Index { base_offset, segment_id })
                    if entry.kind == EntryKind::File
                        && !all.contains(&(base_offset, segment_id)) =>
                {
                    names.push(names::index(base_offset, segment_id));
                }
                _ => {}
            }
        }
        match named.into_iter().min() {
            None => Ok(Self { names }),
            Some((base_offset, segment_id)) => {
                let what = "the manifest names a segment that is not there; restore the file";
                Err(Error::new(ErrorKind::Corrupt, what)
                    .with_path(&dir.path_of(&names::segment(base_offset, segment_id)))
                    .with_offset(base_offset))
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn remove(&self, dir: &Dir) -> Result<u64> {
        for name in &self.names {
            dir.remove(name)?;
        }
        Ok(self.names.len() as u64)
    }
}

/// A segment with an id that this manifest has not given out holds records only if a later manifest
/// named it: then this manifest is an old one, and following it would lose them.
fn refuse_newer(dir: &Dir, name: &str, segment_id: u64, manifest: &Manifest) -> Result<()> {
    if segment_id < manifest.next_segment_id {
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
