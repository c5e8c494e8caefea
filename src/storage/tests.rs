//! The contract of a storage: one table of checks for both, then what only real files can do.

use crate::storage::DirEntry;
use crate::storage::EntryKind;
use crate::storage::File;
use crate::storage::FsStorage;
use crate::storage::MemoryStorage;
use crate::storage::OpenMode;
use crate::storage::Storage;
use std::io;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

#[test]
fn fs_keeps_the_contract() {
    check_all(&FsStorage::new());
}

#[test]
fn memory_keeps_the_contract() {
    check_all(&MemoryStorage::new());
}

/// Each check gets an empty directory.
fn check_all(storage: &dyn Storage) {
    for (name, check) in CHECKS {
        let place = tempfile::tempdir().unwrap();
        storage.create_dir(place.path()).unwrap();
        if let Err(error) = check(storage, place.path()) {
            panic!("{name}: {error}");
        }
    }
}

type Check = fn(&dyn Storage, &Path) -> io::Result<()>;

const CHECKS: &[(&str, Check)] = &[
    ("create_dir", check_create_dir),
    ("create_dir through a file", check_create_dir_through_a_file),
    ("open modes", check_open_modes),
    ("open what is not there", check_open_errors),
    ("read past the end", check_read_past_the_end),
    ("write behind a gap", check_gap),
    ("write to a file opened to read", check_read_only),
    ("set_len", check_set_len),
    ("handles share the bytes", check_shared_bytes),
    ("list", check_list),
    ("rename over an open file", check_rename),
    ("rename errors", check_rename_errors),
    ("link", check_link),
    ("remove an open file", check_remove),
    ("sync_dir", check_sync_dir),
    ("lock", check_lock),
    ("lock what is no file", check_lock_errors),
    ("map of nothing", check_empty_map),
];

fn check_link(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    let (from, to) = (place.join("from"), place.join("to"));
    assert_fails(storage.link(&from, &to), ErrorKind::NotFound);
    create(storage, &from, b"one")?;
    storage.link(&from, &to)?;
    assert_fails(storage.link(&from, &to), ErrorKind::AlreadyExists);
    storage.open(&to, OpenMode::Write)?.write_at(b"two", 0)?;
    assert_eq!(read(storage, &from)?, b"two");
    storage.remove(&from)?;
    assert_eq!(read(storage, &to)?, b"two");
    Ok(())
}

fn check_create_dir(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    let path = place.join("a/b/../c");
    storage.create_dir(&place.join("a/b"))?;
    storage.create_dir(&path)?;
    storage.create_dir(&path)?;
    create(storage, &path.join("file"), b"x")?;
    storage.create_dir(&path)?;
    assert_eq!(read(storage, &place.join("a/c/file"))?, b"x");
    Ok(())
}

fn check_create_dir_through_a_file(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    let path = place.join("file");
    create(storage, &path, b"x")?;
    let found = storage.create_dir(&path).unwrap_err().kind();
    assert!(matches!(found, ErrorKind::AlreadyExists | ErrorKind::NotADirectory), "{found}");
    let found = storage.create_dir(&path.join("below")).unwrap_err().kind();
    assert!(matches!(found, ErrorKind::AlreadyExists | ErrorKind::NotADirectory), "{found}");
    assert_eq!(read(storage, &path)?, b"x");
    Ok(())
}

fn check_open_modes(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    let path = place.join("file");
    let created = storage.open(&path, OpenMode::Create)?;
    assert_eq!(created.size()?, 0);
    assert_eq!(created.write_at(b"one", 0)?, 3);
    assert_eq!(read_at(&*created, 0)?, b"one");
    assert_eq!(storage.open(&path, OpenMode::Write)?.write_at(b"T", 0)?, 1);
    assert_eq!(read(storage, &path)?, b"Tne");
    assert_fails(storage.open(&path, OpenMode::Create), ErrorKind::AlreadyExists);
    assert_eq!(read(storage, &path)?, b"Tne");
    created.sync_data()
}

fn check_open_errors(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    create(storage, &place.join("file"), b"")?;
    storage.create_dir(&place.join("dir"))?;
    for mode in [OpenMode::Read, OpenMode::Write] {
        assert_fails(storage.open(&place.join("none"), mode), ErrorKind::NotFound);
        assert_fails(storage.open(&place.join("dir"), mode), ErrorKind::IsADirectory);
    }
    assert_fails(storage.open(&place.join("dir"), OpenMode::Create), ErrorKind::AlreadyExists);
    for mode in [OpenMode::Read, OpenMode::Write, OpenMode::Create] {
        assert_fails(storage.open(&place.join("none/file"), mode), ErrorKind::NotFound);
        assert_fails(storage.open(&place.join("file/file"), mode), ErrorKind::NotADirectory);
    }
    Ok(())
}

fn check_read_past_the_end(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    let file = create(storage, &place.join("file"), b"0123456789")?;
    let mut buf = [b'-'; 4];
    assert_eq!(file.read_at(&mut buf, 8)?, 2);
    assert_eq!(&buf, b"89--");
    for position in [10, 11, 1 << 40] {
        assert_eq!(file.read_at(&mut buf, position)?, 0, "at {position}");
    }
    assert_eq!(&buf, b"89--");
    Ok(())
}

fn check_gap(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    let file = create(storage, &place.join("file"), b"ab")?;
    assert_eq!(file.write_at(b"", 100)?, 0);
    assert_eq!(file.size()?, 2);
    assert_eq!(file.write_at(b"z", 5)?, 1);
    assert_eq!(read_at(&*file, 0)?, b"ab\0\0\0z");
    assert_eq!(file.write_at(b"cd", 1)?, 2);
    assert_eq!(read_at(&*file, 0)?, b"acd\0\0z");
    // More than any machine has; must neither panic nor end the process.
    assert!(file.write_at(b"far", u64::MAX).is_err());
    assert_eq!(file.size()?, 6);
    Ok(())
}

fn check_read_only(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    let path = place.join("file");
    create(storage, &path, b"same")?;
    let file = storage.open(&path, OpenMode::Read)?;
    assert!(file.write_at(b"x", 0).is_err());
    assert!(file.set_len(1).is_err());
    assert_eq!(read(storage, &path)?, b"same");
    Ok(())
}

fn check_set_len(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    let file = create(storage, &place.join("file"), b"0123456789")?;
    file.set_len(4)?;
    file.set_len(6)?;
    assert_eq!(file.size()?, 6);
    assert_eq!(read_at(&*file, 0)?, b"0123\0\0");
    assert!(file.set_len(u64::MAX).is_err());
    assert_eq!(file.size()?, 6);
    Ok(())
}

fn check_shared_bytes(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    let path = place.join("file");
    let writer = create(storage, &path, b"")?;
    let reader = storage.open(&path, OpenMode::Read)?;
    writer.write_at(b"later", 0)?;
    assert_eq!(read_at(&*reader, 0)?, b"later");
    Ok(())
}

fn check_list(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    assert_eq!(storage.list(place)?, []);
    create(storage, &place.join("b"), b"")?;
    storage.create_dir(&place.join("a/below"))?;
    let mut found = storage.list(place)?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let expected = [
        DirEntry::new("a".into(), EntryKind::Directory),
        DirEntry::new("b".into(), EntryKind::File),
    ];
    assert_eq!(found, expected);
    assert_fails(storage.list(&place.join("none")), ErrorKind::NotFound);
    assert_fails(storage.list(&place.join("b")), ErrorKind::NotADirectory);
    Ok(())
}

fn check_rename(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    let (source, target) = (place.join("source"), place.join("target"));
    let old = create(storage, &target, b"old")?;
    let new = create(storage, &source, b"new")?;
    storage.rename(&source, &target)?;
    assert_eq!(read(storage, &target)?, b"new");
    assert_fails(storage.open(&source, OpenMode::Read), ErrorKind::NotFound);
    assert_eq!(read_at(&*old, 0)?, b"old");
    new.write_at(b"N", 0)?;
    storage.rename(&target, &target)?;
    assert_eq!(read(storage, &target)?, b"New");
    storage.create_dir(&place.join("dir"))?;
    storage.rename(&target, &place.join("dir/moved"))?;
    assert_eq!(read(storage, &place.join("dir/moved"))?, b"New");
    Ok(())
}

fn check_rename_errors(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    let file = place.join("file");
    create(storage, &file, b"same")?;
    storage.create_dir(&place.join("dir"))?;
    assert_fails(storage.rename(&place.join("none"), &file), ErrorKind::NotFound);
    assert_fails(storage.rename(&file, &place.join("none/file")), ErrorKind::NotFound);
    assert_fails(storage.rename(&file, &place.join("dir")), ErrorKind::IsADirectory);
    assert_eq!(read(storage, &file)?, b"same");
    Ok(())
}

fn check_remove(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    let path = place.join("file");
    let file = create(storage, &path, b"open")?;
    storage.remove(&path)?;
    assert_eq!(storage.list(place)?, []);
    assert_eq!(read_at(&*file, 0)?, b"open");
    assert_fails(storage.remove(&path), ErrorKind::NotFound);
    create(storage, &path, b"another")?;
    assert_eq!(read_at(&*file, 0)?, b"open");
    storage.create_dir(&place.join("dir"))?;
    assert!(storage.remove(&place.join("dir")).is_err());
    storage.list(&place.join("dir")).map(drop)
}

fn check_sync_dir(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    storage.sync_dir(place)?;
    assert_fails(storage.sync_dir(&place.join("none")), ErrorKind::NotFound);
    create(storage, &place.join("file"), b"")?;
    assert_fails(storage.sync_dir(&place.join("file")), ErrorKind::NotADirectory);
    Ok(())
}

fn check_lock(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    let path = place.join("LOCK");
    let guard = storage.lock(&path)?;
    assert_fails(storage.lock(&path), ErrorKind::WouldBlock);
    let other = storage.lock(&place.join("OTHER"))?;
    drop(guard);
    let again = storage.lock(&path)?;
    drop(other);
    assert_fails(storage.lock(&path), ErrorKind::WouldBlock);
    drop(again);
    assert_eq!(read(storage, &path)?, b"");
    Ok(())
}

fn check_lock_errors(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    storage.create_dir(&place.join("dir"))?;
    assert_fails(storage.lock(&place.join("dir")), ErrorKind::IsADirectory);
    assert_fails(storage.lock(&place.join("none/LOCK")), ErrorKind::NotFound);
    Ok(())
}

fn check_empty_map(storage: &dyn Storage, place: &Path) -> io::Result<()> {
    let file = create(storage, &place.join("file"), b"x")?;
    assert!(file.map(0)?.is_none());
    Ok(())
}

fn create(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> io::Result<Arc<dyn File>> {
    let file = storage.open(path, OpenMode::Create)?;
    assert_eq!(file.write_at(bytes, 0)?, bytes.len());
    Ok(file)
}

fn read(storage: &dyn Storage, path: &Path) -> io::Result<Vec<u8>> {
    read_at(&*storage.open(path, OpenMode::Read)?, 0)
}

fn read_at(file: &dyn File, position: u64) -> io::Result<Vec<u8>> {
    let mut buf = vec![0; 64];
    let len = file.read_at(&mut buf, position)?;
    buf.truncate(len);
    Ok(buf)
}

#[track_caller]
fn assert_fails<T>(result: io::Result<T>, expected: ErrorKind) {
    match result {
        Ok(_) => panic!("succeeds instead of {expected}"),
        Err(error) => assert_eq!(error.kind(), expected, "{error}"),
    }
}

/// What memory cannot have: other kinds of files, maps, other processes.
#[cfg(unix)]
mod real {
    use super::{assert_fails, create, read};
    use crate::storage::Clock;
    use crate::storage::DirEntry;
    use crate::storage::EntryKind;
    use crate::storage::FsStorage;
    use crate::storage::OpenMode;
    use crate::storage::Storage;
    use crate::storage::SystemClock;
    use std::io::ErrorKind;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    /// A pipe that nobody writes to blocks a plain `open` for ever.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_pipe_is_refused_and_does_not_block() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("pipe");
        let kind = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();

        let (sender, receiver) = mpsc::channel();
        let storage = FsStorage::new();
        let refused = path.clone();
        thread::Builder::new()
            .spawn(move || {
                assert_refused(&refused);
                assert_fails(storage.sync_dir(&refused), ErrorKind::NotADirectory);
                assert_fails(storage.list(&refused), ErrorKind::NotADirectory);
                sender.send(()).unwrap();
            })
            .unwrap();
        receiver.recv_timeout(Duration::from_secs(30)).expect("refused at once");
        let found = storage.list(place.path()).unwrap();
        assert_eq!(found, [DirEntry::new("pipe".into(), EntryKind::Other)]);
    }

    #[test]
    fn a_link_is_refused_wherever_it_leads() {
        let place = tempfile::tempdir().unwrap();
        let storage = FsStorage::new();
        let target = place.path().join("target");
        create(&storage, &target, b"same").unwrap();
        for (name, leads_to) in [("file", &*target), ("dir", place.path()), ("no", "none".as_ref())]
        {
            let link = place.path().join(name);
            symlink(leads_to, &link).unwrap();
            assert_refused(&link);
        }
        assert_eq!(read(&storage, &target).unwrap(), b"same");
        assert!(!place.path().join("none").exists());
        let found = storage.list(place.path()).unwrap();
        assert!(found.contains(&DirEntry::new("no".into(), EntryKind::Other)));
    }

    /// Only the last part of a path is refused: where the log lies is for its owner to say.
    #[test]
    fn a_link_to_the_directory_is_followed() {
        let place = tempfile::tempdir().unwrap();
        let storage = FsStorage::new();
        let (real, link) = (place.path().join("real"), place.path().join("link"));
        storage.create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        storage.create_dir(&link).unwrap();
        storage.create_dir(&link.join("below")).unwrap();
        create(&storage, &link.join("below/file"), b"x").unwrap();
        storage.sync_dir(&link).unwrap();
        assert_eq!(read(&storage, &real.join("below/file")).unwrap(), b"x");
    }

    #[test]
    fn devices_and_sockets_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_refused(&socket);
        assert_refused(Path::new("/dev/null"));
    }

    #[test]
    fn relative_paths_start_at_the_working_directory() {
        let storage = FsStorage::new();
        storage.sync_dir(Path::new("")).unwrap();
        assert!(!storage.list(Path::new("")).unwrap().is_empty());
        storage.create_dir(Path::new("")).unwrap();
        storage.create_dir(Path::new("src/..")).unwrap();
    }

    /// A holder that goes away in time does not count; one that stays is waited for, not for ever.
    #[test]
    fn a_lock_is_waited_for_about_100_ms() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("LOCK");
        let storage = FsStorage::new();
        let clock = SystemClock::new();

        let guard = storage.lock(&path).unwrap();
        let start = clock.monotonic();
        assert_fails(storage.lock(&path), ErrorKind::WouldBlock);
        assert!(clock.monotonic() - start >= Duration::from_millis(90));

        thread::scope(|scope| {
            let waiter = scope.spawn(|| storage.lock(&path).map(drop));
            drop(guard);
            waiter.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_map_sees_later_writes_and_outlives_the_name() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        let storage = FsStorage::new();
        let file = create(&storage, &path, b"early").unwrap();
        let map = file.map(1 << 20).unwrap().unwrap();
        assert_eq!((map.len(), map.bytes(0, 5)), (1 << 20, Some(&b"early"[..])));
        file.write_at(b"late", 100_000).unwrap();
        assert_eq!(map.bytes(100_000, 100_004), Some(&b"late"[..]));
        storage.remove(&path).unwrap();
        drop(file);
        assert_eq!(map.bytes(0, 5), Some(&b"early"[..]));

        create(&storage, &path, b"to read").unwrap();
        let file = storage.open(&path, OpenMode::Read).unwrap();
        assert_eq!(file.map(7).unwrap().unwrap().bytes(3, 7), Some(&b"read"[..]));
    }

    /// Larger than any address space: the caller can still read, so this is not an error.
    #[test]
    fn what_cannot_be_mapped_can_still_be_read() {
        let place = tempfile::tempdir().unwrap();
        let file = create(&FsStorage::new(), &place.path().join("file"), b"x").unwrap();
        assert!(file.map(1 << 62).unwrap().is_none());
    }

    #[track_caller]
    fn assert_refused(path: &Path) {
        let storage = FsStorage::new();
        for mode in [OpenMode::Read, OpenMode::Write] {
            assert!(storage.open(path, mode).is_err(), "{mode:?} {}", path.display());
        }
        assert_fails(storage.open(path, OpenMode::Create), ErrorKind::AlreadyExists);
        assert!(storage.lock(path).is_err(), "lock {}", path.display());
    }
}
