//! How much is tested, and with what: what the machine has, and what to do if it has not.
//!
//! `STRATALOG_KERNEL=ci` makes the runs as long as CI wants them, `soak` much longer. What a
//! machine does not have (the device, the right, the kernel's part, the program) is named on
//! standard error and not tested. With `CI=true` what it has and what does not work is a failure,
//! for a rig that is lost in silence proves nothing. `STRATALOG_KERNEL_WITHOUT=xfs,btrfs` excuses
//! such parts: `fuse`, `loop`, and any kind of file system.

use crate::disk::Disk;
use crate::mount;
use crate::mount::DiskMount;
use std::env;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::panic;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;

/// So many in plain `cargo test`, so many in CI.
pub(crate) fn amount(plain: u64, ci: u64) -> u64 {
    match env::var("STRATALOG_KERNEL").as_deref() {
        Err(_) | Ok("") => plain,
        Ok("ci") => ci,
        Ok("soak") => ci * 20,
        Ok(other) => panic!("STRATALOG_KERNEL is {other}, not ci or soak"),
    }
}

/// Another seed by `STRATALOG_KERNEL_SEED`.
pub(crate) fn seed() -> u64 {
    env::var("STRATALOG_KERNEL_SEED").map_or(1, |seed| seed.parse().unwrap())
}

/// Says something whether the test fails or not.
pub(crate) fn report(line: &str) {
    // Not `eprintln`, which the harness keeps to itself.
    let said = io::stderr().lock().write_all(format!("kernel: {line}\n").as_bytes());
    said.unwrap();
}

/// Whether the machine has all these parts; if not, says what is missing.
pub(crate) fn has(test: &str, parts: &[&str]) -> bool {
    let missing: Vec<(&str, Lack)> =
        parts.iter().filter_map(|part| missing(part).err().map(|why| (*part, why))).collect();
    if missing.is_empty() {
        return true;
    }
    let without = env::var("STRATALOG_KERNEL_WITHOUT").unwrap_or_default();
    let is_excused = |part: &str| without.split(',').any(|excused| excused == part);
    let excused = |(part, lack): &(&str, Lack)| is_excused(part) || matches!(lack, Lack::Absent(_));
    let all_excused = missing.iter().all(excused);
    let in_ci = env::var("CI").as_deref() == Ok("true");
    let missing: Vec<_> = missing.iter().map(|(part, lack)| format!("{part} is {lack}")).collect();
    let missing = missing.join("; ");
    assert!(!in_ci || all_excused, "{test}: this machine has what does not work: {missing}");
    report(&format!("NOT TESTED: {test}: {missing}"));
    false
}

/// Why a part cannot be used.
#[derive(Clone)]
enum Lack {
    /// The machine does not have it.
    Absent(String),
    /// It does not work.
    Broken(String),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(why) => write!(f, "absent: {why}"),
            Self::Broken(why) => write!(f, "broken: {why}"),
        }
    }
}

fn missing(part: &str) -> Result<(), Lack> {
    match part {
        "fuse" => fuse(),
        "loop" => loop_devices(),
        "tmpfs" => known_to_the_kernel("tmpfs").and_then(|()| root()),
        kind => {
            known_to_the_kernel(kind)?;
            succeeds(&format!("mkfs.{kind}"), &["-V"])
        }
    }
}

fn fuse() -> Result<(), Lack> {
    static FUSE: OnceLock<Result<(), Lack>> = OnceLock::new();
    FUSE.get_or_init(|| {
        root()?;
        is_there("/dev/fuse")?;
        mount::sweep();
        let mounted = panic::catch_unwind(|| drop(DiskMount::new(Disk::new())));
        mounted.map_err(|_| Lack::Broken("a file system of our own cannot be mounted".into()))
    })
    .clone()
}

fn loop_devices() -> Result<(), Lack> {
    root()?;
    is_there("/dev/loop-control")?;
    succeeds("losetup", &["--find"])
}

fn is_there(device: &str) -> Result<(), Lack> {
    fs::metadata(device).map(drop).map_err(|error| Lack::Absent(format!("{device}: {error}")))
}

fn root() -> Result<(), Lack> {
    use std::os::unix::fs::MetadataExt;
    match fs::metadata("/proc/self") {
        Ok(metadata) if metadata.uid() == 0 => Ok(()),
        _ => Err(Lack::Absent("mounting needs root".into())),
    }
}

fn known_to_the_kernel(kind: &str) -> Result<(), Lack> {
    let kinds = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let known = kinds.split_whitespace().any(|known| known == kind);
    known.then_some(()).ok_or_else(|| Lack::Absent(format!("the kernel does not know {kind}")))
}

fn succeeds(program: &str, arguments: &[&str]) -> Result<(), Lack> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Lack::Broken(format!("{program}: {status}"))),
        Err(error) => Err(Lack::Absent(format!("{program}: {error}"))),
    }
}

/// Says on standard error where a test was when it panicked.
pub(crate) struct Context(String);

impl Context {
    pub(crate) fn new(place: String) -> Self {
        Self(place)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if thread::panicking() {
            report(&self.0);
        }
    }
}
