//! Replication by frames beside a plain copy of the files.

use crate::support::scratch;
use crate::support::timed;
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;
use stratalog::{Durability, Log, Options};

/// How much is asked for at a time.
const SHIPPED_BYTES: usize = 1 << 20;

/// Ships a whole log to a new replica, which syncs once, at the end.
pub(crate) fn ship(leader: &Log) -> Duration {
    let dir = scratch();
    let replica = Options::new().durability(Durability::Buffered).open(dir.path()).unwrap();
    let took = timed(|| {
        catch_up(leader, &replica);
        replica.sync().unwrap();
    });
    assert_eq!(replica.durable_offset(), leader.end_offset(), "not all of it was shipped");
    // Alike to the byte: frames are compared with those of the leader, piece by piece.
    let mut from = leader.start_offset();
    while from < leader.end_offset() {
        let [theirs, ours] = [leader, &replica].map(|log| log.frames(from, SHIPPED_BYTES).unwrap());
        assert!(theirs == ours, "the replica differs behind {from}");
        from = theirs.range().end;
    }
    took
}

fn catch_up(leader: &Log, replica: &Log) {
    loop {
        let frames = leader.frames(replica.end_offset(), SHIPPED_BYTES).unwrap();
        if frames.is_empty() {
            return;
        }
        replica.append_frames(frames.as_bytes()).unwrap();
    }
}

/// Copies all files of a log and syncs the copies.
pub(crate) fn copy(dir: &Path) -> Duration {
    let target = scratch();
    timed(|| {
        for file in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let copy = target.path().join(file.file_name());
            fs::copy(file.path(), &copy).unwrap();
            OpenOptions::new().write(true).open(copy).unwrap().sync_data().unwrap();
        }
    })
}
