//! What is mounted, and unmounted again whatever happens: guards.

use crate::disk::Disk;
use crate::glue::Glue;
use crate::rig;
use fuser::BackgroundSession;
use fuser::Config;
use fuser::MountOption;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// A [`Disk`], mounted.
pub(crate) struct DiskMount {
    session: Option<BackgroundSession>,
    disk: Arc<Mutex<Disk>>,
    dir: TempDir,
}

impl DiskMount {
    pub(crate) fn new(disk: Disk) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Mutex::new(disk));
        let mut config = Config::default();
        config.mount_options.push(MountOption::FSName(NAME.to_owned()));
        let session = fuser::spawn_mount(Glue(Arc::clone(&disk)), dir.path(), &config);
        Self { session: Some(session.unwrap()), disk, dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }
}

/// What the kernel calls a disk of ours.
const NAME: &str = "stratalog-kernel-test";

/// Unmounts the disks of a test process that was killed: nobody answers for them any more.
pub(crate) fn sweep() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let ours = mounts.lines().filter_map(|line| line.strip_prefix(NAME));
    for dir in ours.filter_map(|line| line.split_whitespace().next()) {
        let gone = fs::metadata(dir).err().and_then(|error| Errno::from_io_error(&error));
        if gone == Some(Errno::NOTCONN) {
            rig::report(&format!("unmounting {dir}, which a test left behind"));
            unmount(Path::new(dir));
        }
    }
}

impl Drop for DiskMount {
    fn drop(&mut self) {
        let unmounted = unmount(self.dir.path());
        let Some(session) = self.session.take() else { return };
        if unmounted {
            drop(session.join());
        }
    }
}

/// A loop device over a file.
pub(crate) struct Loop {
    device: PathBuf,
}

impl Loop {
    pub(crate) fn new(file: &Path) -> Self {
        let device = run("losetup", &["--find".as_ref(), "--show".as_ref(), file]);
        Self { device: PathBuf::from(device.trim_end()) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.device
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        drop(Command::new("losetup").arg("--detach").arg(&self.device).status());
    }
}

/// A file system of the kernel.
pub(crate) struct Mount {
    dir: TempDir,
}

impl Mount {
    /// `source` is a device, or what the kind of file system makes of it.
    pub(crate) fn new(kind: &str, source: &Path, options: &str) -> Self {
        Self::attempt(kind, source, options).unwrap_or_else(|error| panic!("{kind}: {error}"))
    }

    /// Gives what the kernel says if it does not take the file system any more.
    pub(crate) fn attempt(kind: &str, source: &Path, options: &str) -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let arguments = ["-t".as_ref(), kind.as_ref(), "-o".as_ref(), options.as_ref(), source];
        let made = Command::new("mount").args(arguments).arg(dir.path()).output().unwrap();
        if made.status.success() {
            Ok(Self { dir })
        } else {
            Err(String::from_utf8_lossy(&made.stderr).into_owned())
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount(self.dir.path());
    }
}

/// Runs a program that must succeed, and gives what it says.
pub(crate) fn run(program: &str, arguments: &[&Path]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Unmounts, and says whether nothing is left of it. A process that is being made by another test
/// can hold a file of ours for a moment; if it takes longer, the mount goes with its last file.
#[expect(clippy::disallowed_methods, reason = "there is nothing to be woken by")]
fn unmount(dir: &Path) -> bool {
    for _ in 0..500 {
        match rustix::mount::unmount(dir, UnmountFlags::empty()) {
            Err(Errno::BUSY) => thread::sleep(Duration::from_millis(4)),
            result => return result.is_ok(),
        }
    }
    if let Err(error) = rustix::mount::unmount(dir, UnmountFlags::DETACH) {
        rig::report(&format!("{} stays mounted: {error}", dir.display()));
    }
    false
}

/// An empty file of that many bytes.
pub(crate) fn make_file(path: &Path, bytes: u64) {
    fs::File::create_new(path).unwrap().set_len(bytes).unwrap();
}
