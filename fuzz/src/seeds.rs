//! The inputs that fuzzing begins with, made from real structures.

use crate::support::image::Image;
use crate::support::replica::Wire;
use crate::support::replica::shipped;
use crate::world::WORLDS;
use crate::world::long_index;
use crate::world::position_files;
use std::path::PathBuf;
use std::sync::Arc;
use stratalog::storage::{MemoryStorage, OpenMode, Storage};
use stratalog::{Offset, Options};

/// Where the seeds of a target are.
#[must_use]
pub fn dir(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target)
}

/// The seeds of a target: names and bytes, the same at every call.
#[must_use]
pub fn of(target: &str) -> Vec<(String, Vec<u8>)> {
    match target {
        "frame" => frames(),
        "index" => indexes(),
        "manifest" => files("MANIFEST", 1),
        "notice" => notices(),
        "segment" => segments(),
        "consumer" => positions(),
        "wire" => shipments(),
        "open" | "repair" => damages(),
        "ops" => histories(),
        _ => vec![("whole".into(), b"CAN\x03abc".to_vec())],
    }
}

/// One byte of switches, the seed, a frame.
fn frames() -> Vec<(String, Vec<u8>)> {
    let mut frames = Vec::new();
    for (nth, world) in WORLDS.iter().enumerate() {
        let bytes = &world.image.0[&world.image.segments()[0]];
        let frame = &bytes[72..bytes.len().min(72 + 300)];
        let input = [&[1], &bytes[12..16], frame].concat();
        frames.push((format!("world-{nth}"), input));
    }
    frames
}

/// One byte of switches, then what a log ships: of each world all, and some holes.
fn shipments() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for (nth, world) in WORLDS.iter().enumerate() {
        let log = world.image.open().expect("it is sound");
        let bytes = shipped(&log, log.start_offset());
        let head = &bytes[..bytes.len().min(1500)];
        all.push((format!("world-{nth}"), [&[1], head].concat()));
    }
    let holes = [Wire::hole(0, 3), Wire::values(3, 7, &[b"a", b"bc"]), Wire::hole(5, u32::MAX)];
    let holes = holes.iter().flat_map(Wire::bytes);
    all.push(("holes".into(), [1].into_iter().chain(holes).collect()));
    all
}

/// One byte of switches, then a lock file: none, one that a log has left, and others made of it by
/// hand.
fn notices() -> Vec<(String, Vec<u8>)> {
    let storage = Arc::new(MemoryStorage::new());
    let log = Options::new().storage(storage.clone()).open("/log").unwrap();
    let read = || {
        let lock = storage.open("/log/LOCK".as_ref(), OpenMode::Read).unwrap();
        let mut bytes = vec![0; 448];
        assert_eq!(lock.read_at(&mut bytes, 0).unwrap(), bytes.len());
        // Another one in each life.
        for session in [32, 288] {
            bytes[session..session + 8].copy_from_slice(&7_u64.to_le_bytes());
            bytes[session - 16..session].fill(1);
            // The switch has the checksum made anew.
            bytes[session - 20..session - 16].fill(0);
        }
        [&[1], &bytes[..]].concat()
    };
    let mut all = vec![("none".into(), vec![0]), ("new".into(), read())];
    for nth in 0..9 {
        log.append_batch(["a", "b"]).unwrap();
        log.truncate_to(Offset::from(nth)).unwrap();
        if nth % 4 == 0 {
            all.push((format!("cut-{nth}"), read()));
        }
    }
    log.close().unwrap();
    all.push(("closed".into(), read()));
    all
}

fn indexes() -> Vec<(String, Vec<u8>)> {
    let mut all = files(".index", 3);
    all.push(("long".into(), [&[3][..], &long_index()].concat()));
    all
}

fn files(suffix: &str, switches: u8) -> Vec<(String, Vec<u8>)> {
    let all = WORLDS.iter().enumerate().flat_map(|(nth, world)| {
        let named = world.image.0.iter().filter(|(name, _)| name.ends_with(suffix));
        named.take(2).enumerate().map(move |(file, (_, bytes))| {
            (format!("world-{nth}-{file}"), [&[switches], &bytes[..]].concat())
        })
    });
    all.collect()
}

/// Two slots: one was never written, the second counts, the first counts, one is damaged.
fn positions() -> Vec<(String, Vec<u8>)> {
    let files = position_files().into_iter().enumerate();
    let slots = |file: &[u8]| [&file[..64], &file[4096..4160]].concat();
    let mut all: Vec<_> = files
        .map(|(nth, file)| (format!("committed-{nth}"), [&[12][..], &slots(&file)].concat()))
        .collect();
    let (_, last) = all.last().expect("there are some").clone();
    all.push(("sealed".into(), [&[15][..], &last[1..]].concat()));
    all.push(("foreign".into(), [&[3][..], &last[1..]].concat()));
    all.push(("longer".into(), [&[31][..], &last[1..], b"x"].concat()));
    all
}

fn segments() -> Vec<(String, Vec<u8>)> {
    let header = |image: &Image| [&[1], &image.0[&image.last()][..72]].concat();
    let headers = WORLDS.iter().enumerate();
    let mut all: Vec<_> =
        headers.map(|(nth, world)| (format!("world-{nth}"), header(&world.image))).collect();
    let name = b"\x0000000000000000000000-00000001.log";
    all.push(("name".into(), name.to_vec()));
    all
}

/// Each kind of damage once, to each log; and none.
fn damages() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for world in 0..u8::try_from(WORLDS.len()).expect("a handful") {
        all.push((format!("world-{world}"), vec![world, 0, 0]));
    }
    for kind in 0..24_u8 {
        let world = kind % 5;
        let damage = [kind, kind, kind + 1, kind * 5, 0, 200, 0, 3, 4, 5, 6];
        let input = [&[world, world + 1, kind][..], &damage, &damage].concat();
        all.push((format!("damage-{kind:02}"), input));
    }
    all
}

/// Each operation among appends.
fn histories() -> Vec<(String, Vec<u8>)> {
    let history = |op: u8| {
        let appends = [2, 5, 1, 1, 0, 2, 4, 3, 5, 8];
        [&appends[..], &[op, 7], &appends, &[op, 9]].concat()
    };
    (0..16).map(|op| (format!("op-{op:02}"), history(op))).collect()
}
