//! How much is tested, and with what: what the machine has, and what to do if it has not.
//!
//! `STRATALOG_KERNEL=ci` makes the runs as long as CI wants them, `soak` much longer. What a
//! machine does not have is named on standard error and not tested, unless `CI=true`: then it is a
//! failure, for a rig that is lost in silence proves nothing. `STRATALOG_KERNEL_WITHOUT=xfs,btrfs`
//! says that the machine cannot have these parts: `fuse`, `loop`, and any kind of file system.

use crate::disk::Disk;
use crate::mount;
use crate::mount::DiskMount;
use std::env;
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
    let missing: Vec<(&str, String)> =
        parts.iter().filter_map(|part| missing(part).err().map(|why| (*part, why))).collect();
    if missing.is_empty() {
        return true;
    }
    let without = env::var("STRATALOG_KERNEL_WITHOUT").unwrap_or_default();
    let is_excused = |part: &str| without.split(',').any(|excused| excused == part);
    let all_excused = missing.iter().all(|(part, _)| is_excused(part));
    let in_ci = env::var("CI").as_deref() == Ok("true");
    assert!(!in_ci || all_excused, "{test}: CI must have what is missing: {missing:?}");
    report(&format!("NOT TESTED: {test}: {missing:?}"));
    false
}

fn missing(part: &str) -> Result<(), String> {
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

fn fuse() -> Result<(), String> {
    static FUSE: OnceLock<Result<(), String>> = OnceLock::new();
    FUSE.get_or_init(|| {
        root()?;
        fs::metadata("/dev/fuse").map_err(|error| format!("/dev/fuse: {error}"))?;
        mount::sweep();
        let mounted = panic::catch_unwind(|| drop(DiskMount::new(Disk::new())));
        mounted.map_err(|_| "a file system of our own cannot be mounted".to_owned())
    })
    .clone()
}

fn loop_devices() -> Result<(), String> {
    root()?;
    succeeds("losetup", &["--find"])
}

fn root() -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    match fs::metadata("/proc/self") {
        Ok(metadata) if metadata.uid() == 0 => Ok(()),
        _ => Err("mounting needs root".to_owned()),
    }
}

fn known_to_the_kernel(kind: &str) -> Result<(), String> {
    let kinds = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let known = kinds.split_whitespace().any(|known| known == kind);
    known.then_some(()).ok_or_else(|| format!("the kernel does not know {kind}"))
}

fn succeeds(program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program}: {status}")),
        Err(error) => Err(format!("{program}: {error}")),
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
