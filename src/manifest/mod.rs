//! The manifest file: reading it, and replacing it as a whole.
//!
//! # Invariants
//!
//! - `MANIFEST` is always a whole manifest: it only ever changes by a rename of a file that was
//!   synced before.
//! - `MANIFEST.next` holds at least as much space as the next manifest needs, so that a change
//!   gets through on a full disk. Its bytes mean nothing until they are renamed.

use crate::bugs::Bug;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Failure;
use crate::error::Result;
use crate::format::bytes::DecodeError;
use crate::format::manifest::Manifest;
use crate::format::manifest::Origin;
use crate::format::names;
use crate::storage::Dir;
use crate::storage::Handle;
use crate::storage::OpenMode;

/// The manifest in `dir`, or `None` if there is none.
pub(crate) fn read(dir: &Dir) -> Result<Option<Manifest>> {
    let Some(file) = dir.open_if_there(names::MANIFEST, OpenMode::Read)? else {
        return Ok(None);
    };
    let bytes = read_whole(&file)?;
    match Manifest::decode(&bytes) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) => Err(unreadable(&file, error)),
    }
}

/// Refuses that of a checkpoint that is not finished: there is no log yet.
pub(crate) fn check_finished(dir: &Dir, manifest: &Manifest) -> Result<()> {
    if manifest.origin != Origin::Unfinished {
        return Ok(());
    }
    let what = "the checkpoint was not finished, so there is no log yet; take it again";
    Err(Error::new(ErrorKind::Corrupt, what).with_path(&dir.path_of(names::MANIFEST)))
}

/// Puts `manifest` in the place of the one in `dir`, durably.
///
/// Crash by crash: before the rename the old manifest stands; between the rename and the sync of
/// the directory either may be found, and both are whole; after it the new one stands.
pub(crate) fn replace(dir: &Dir, manifest: &Manifest) -> Result<(), Failure> {
    let bytes = manifest.encode();
    write_next(dir, &bytes).map_err(Failure::Refused)?;
    // Whatever the new manifest names must be found when it is. A sync of the directory that failed
    // is not tried again, no more than one of a segment: its names may be lost all the same.
    let failure = if Bug::DirFailureRefused.is_on() { Failure::Refused } else { Failure::Broken };
    Bug::NamesNotSynced.spares(|| dir.sync()).map_err(failure)?;
    dir.rename(names::MANIFEST_NEXT, names::MANIFEST).map_err(rename_failed)?;
    // Acting on the new manifest before this would act on names that a power cut takes back.
    Bug::RenameNotSynced.spares(|| dir.sync()).map_err(Failure::Broken)?;
    reserve(dir, bytes.len());
    Ok(())
}

/// A disk that is full refuses a rename; after any other error it may have happened all the same.
fn rename_failed(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::StorageFull => Failure::Refused(error),
        _ => Failure::Broken(error),
    }
}

/// Writes the bytes over the reserved space, cut to their length, and syncs them.
fn write_next(dir: &Dir, bytes: &[u8]) -> Result<()> {
    let next = match dir.open_if_there(names::MANIFEST_NEXT, OpenMode::Write)? {
        Some(file) => file,
        None => dir.open(names::MANIFEST_NEXT, OpenMode::Create)?,
    };
    next.write(bytes, 0).map_err(|partial| partial.error)?;
    next.set_len(bytes.len() as u64)?;
    if let Err(error) = Bug::ManifestNotSynced.spares(|| next.sync()) {
        // After a failed sync the file's pages cannot be trusted: the next try gets a new file.
        Bug::FailedManifestKept.spares(|| dir.remove(names::MANIFEST_NEXT))?;
        return Err(error);
    }
    Ok(())
}

/// Takes space for the next manifest, with room to grow by some rows.
///
/// Deliberately reports nothing: on a disk that is full now there is no reserve until a later
/// change finds space for one, and the change that has just been made stands.
fn reserve(dir: &Dir, len: usize) {
    const STEP: usize = 4096;
    let zeros = vec![0; (len + STEP / 2).next_multiple_of(STEP)];
    if Bug::NoReserve.is_on() {
        return;
    }
    let next = dir.create_anew(names::MANIFEST_NEXT);
    drop(next.map(|next| next.write(&zeros, 0)));
}

/// All bytes of a file that is read once. Longer than any manifest can be is an error before it is
/// an allocation.
fn read_whole(file: &Handle) -> Result<Vec<u8>> {
    const LIMIT: u64 = 64 << 20;
    let size = file.size()?;
    let len = usize::try_from(size).ok().filter(|_| size <= LIMIT);
    let Some(len) = len else {
        let what = format!("not a manifest: it is {size} bytes long");
        return Err(Error::new(ErrorKind::Corrupt, what).with_path(file.path()));
    };
    let mut bytes = vec![0; len];
    let read = file.read(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

fn unreadable(file: &Handle, error: DecodeError) -> Error {
    let (kind, what) = match error {
        why if why.is_newer() => (
            ErrorKind::UnsupportedVersion,
            format!("the manifest needs a newer version of this crate ({error})"),
        ),
        DecodeError::BadMagic => {
            (ErrorKind::Corrupt, "not the manifest of a log; is this the directory of one?".into())
        }
        _ => (
            ErrorKind::Corrupt,
            format!("the manifest is damaged ({error}); restore it, nothing was changed"),
        ),
    };
    Error::new(kind, what).with_path(file.path()).with_position(0)
}
