//! The first consumer of a log makes a name in the log's own directory, beside appends that do: a
//! sync of it that failed is told to one of them.

use crate::support::at;
use crate::support::fault::Fault;
use crate::support::fault::Op;
use crate::support::faulty::FaultyStorage;
use crate::support::image::DIR;
use crate::support::image::tiny;
use crate::support::medium::Crash;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;
use stratalog::storage::{DirEntry, File, LockGuard, OpenMode, Storage};
use stratalog::{Durability, ErrorKind, Offset};

/// How long a call waits for another thread, which may have to wait for its end.
const WAIT: Duration = Duration::from_millis(200);

type Act = Box<dyn Fn(Op, &Path) + Send + Sync>;

/// Acts when a call that changes names has done what it does, and before its caller hears of it.
struct Meeting {
    inner: Arc<dyn Storage>,
    act: Act,
}

impl fmt::Debug for Meeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meeting").finish_non_exhaustive()
    }
}

impl Storage for Meeting {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let made = self.inner.create_dir(path);
        (self.act)(Op::CreateDir, path);
        made
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let opened = self.inner.open(path, mode);
        if mode == OpenMode::Create {
            (self.act)(Op::Create, path);
        }
        opened
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let synced = self.inner.sync_dir(path);
        (self.act)(Op::SyncDir, path);
        synced
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        self.inner.lock(path)
    }
}

/// A thread that waits for another, which says so once.
fn signal() -> (impl Fn() + Send + Sync, impl Fn() + Send + Sync) {
    let (say, hear) = mpsc::channel();
    let hear = Mutex::new(hear);
    (
        move || say.send(()).unwrap(),
        move || hear.lock().unwrap().recv_timeout(WAIT).unwrap_or_default(),
    )
}

/// The directory of consumers is made while a roll has made a file whose name is not durable yet;
/// the sync loses that name, and says so to the one who makes the directory.
#[test]
fn an_append_does_not_rely_on_a_name_that_the_first_consumer_has_lost() {
    let machine = FaultyStorage::memory();
    let ((begins, has_begun), (loses, has_lost), (appends, has_appended)) =
        (signal(), signal(), signal());
    let (disk, inner) = (machine.clone(), machine.process());
    let act = move |op, path: &Path| match op {
        Op::Create if path.ends_with("00000000000000000001-00000002.log") => {
            begins();
            has_lost();
        }
        Op::CreateDir if path.ends_with("consumers") => {
            disk.inject(Fault::new(Op::SyncDir, io::ErrorKind::Other).on(DIR));
            disk.process().sync_dir(Path::new(DIR)).unwrap_err();
            loses();
            has_appended();
        }
        _ => {}
    };
    let storage = Meeting { inner, act: Box::new(act) };
    let log = tiny(Arc::new(storage)).open(DIR).unwrap();
    log.append("0").unwrap();
    log.roll().unwrap();
    machine.inject(Fault::new(Op::CreateDir, io::ErrorKind::Other).on("consumers"));
    let appended = thread::scope(|scope| {
        let appending = scope.spawn(|| {
            let appended = log.append("1");
            appends();
            appended
        });
        has_begun();
        let error = log.consumer("billing").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Poisoned);
        appending.join().unwrap()
    });
    drop(log);
    let after = tiny(machine.crash(Crash::DropUnsynced).process()).open(DIR).unwrap();
    assert!(after.end_offset() >= appended.map_or(at(1), |offset: Offset| offset + 1));
}

/// The other way round: a sync for a roll loses the name of the directory, and nobody but the
/// roll hears of it.
#[test]
fn a_consumer_does_not_rely_on_a_name_that_a_roll_has_lost() {
    let machine = FaultyStorage::memory();
    let ((loses, has_lost), (holds, has_held)) = (signal(), signal());
    let disk = machine.clone();
    let act = move |op, path: &Path| {
        if op == Op::SyncDir && path.ends_with("log") && disk.strikes() == 1 {
            loses();
            has_held();
        }
    };
    let storage = Meeting { inner: machine.process(), act: Box::new(act) };
    let log = tiny(Arc::new(storage)).open(DIR).unwrap();
    log.append("0").unwrap();
    log.roll().unwrap();
    thread::scope(|scope| {
        machine.inject(Fault::new(Op::SyncDir, io::ErrorKind::Other).on(DIR));
        let appending = scope.spawn(|| log.append_with(Durability::Written, "1"));
        has_lost();
        let held = log.consumer("billing");
        holds();
        assert_eq!(appending.join().unwrap().unwrap_err().kind(), ErrorKind::Poisoned);
        assert_eq!(held.unwrap_err().kind(), ErrorKind::Poisoned);
    });
}
