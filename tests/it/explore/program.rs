//! Programs: what is done to a log. Each operation is a letter, so that a program is a word.
//!
//! This is the one list of operations. To add one: a variant and its letter here, what it does to
//! the log in `run.rs`, and what the log may be then in `oracle.rs`.

use crate::explore::oracle::Tombstones;
use crate::explore::oracle::World;
use crate::support::image::tiny;
use crate::support::medium::Numbers;
use std::sync::Arc;
use std::time::Duration;
use stratalog::Durability::{self, Buffered, Synced, Written};
use stratalog::storage::{Clock, Storage};
use stratalog::{Compaction, Options};

/// An operation on a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    /// A record that fits into a segment with others.
    Small(Durability),
    /// A record that is larger than a segment.
    Large(Durability),
    /// Some small records as one unit.
    Batch(Durability),
    /// More records than a segment holds as one unit.
    LargeBatch(Durability),
    /// Two records, if the log ends where it should.
    At(Durability),
    /// Two frames of another log, one with a batch.
    Frames(Durability),
    /// The same with an end that is wrong: nothing happens.
    Conflict,
    Sync,
    /// The last record has to become durable.
    Wait,
    Roll,
    /// All from there on is removed.
    Truncate(Place),
    /// All below that is removed.
    Delete(Place),
    /// All sealed segments are compacted, the active one among them.
    Compact,
    /// A consumer reads two records and commits; it is made if there is none.
    Commit,
    /// The consumer goes to the start of the log and commits.
    Rewind,
    /// The consumer is removed.
    Remove,
    /// All that the log does to itself from time to time.
    Maintain,
    /// The log is closed and opened again.
    Close,
    /// The last handle is dropped and the log opened again.
    Drop,
    /// The process is killed and the log opened again.
    Kill,
    /// The next sync of a segment fails; then the process is killed and the log opened again.
    FailSync,
    /// The next sync of a segment fails; then the log is closed and opened again.
    FailSyncClose,
}

/// Where a log is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Start,
    /// The second record.
    Second,
    Middle,
    Last,
    End,
    /// Where no record is yet.
    Beyond,
}

/// Every operation and its letter.
pub(super) const OPS: &[(char, Op)] = &[
    ('a', Op::Small(Synced)),
    ('w', Op::Small(Written)),
    ('b', Op::Small(Buffered)),
    ('A', Op::Large(Synced)),
    ('W', Op::Large(Written)),
    ('B', Op::Large(Buffered)),
    ('m', Op::Batch(Synced)),
    ('n', Op::Batch(Written)),
    ('o', Op::Batch(Buffered)),
    ('N', Op::LargeBatch(Written)),
    ('M', Op::LargeBatch(Synced)),
    ('t', Op::At(Synced)),
    ('u', Op::At(Buffered)),
    ('F', Op::Frames(Synced)),
    ('G', Op::Frames(Buffered)),
    ('x', Op::Conflict),
    ('s', Op::Sync),
    ('i', Op::Wait),
    ('r', Op::Roll),
    ('z', Op::Truncate(Place::Start)),
    ('h', Op::Truncate(Place::Middle)),
    ('l', Op::Truncate(Place::Last)),
    ('p', Op::Delete(Place::Second)),
    ('q', Op::Delete(Place::Middle)),
    ('e', Op::Delete(Place::End)),
    ('j', Op::Delete(Place::Beyond)),
    ('C', Op::Compact),
    ('v', Op::Commit),
    ('S', Op::Rewind),
    ('V', Op::Remove),
    ('y', Op::Maintain),
    ('c', Op::Close),
    ('d', Op::Drop),
    ('k', Op::Kill),
    ('f', Op::FailSync),
    ('g', Op::FailSyncClose),
];

/// The letters of which every short program is tried.
pub(super) const ALPHABET: &str = "awbAWmoNtsrckdfy";

/// The letters that are added to them where programs have at most two.
pub(super) const ALSO: &str = "zhlpqejCF";

/// The letters that the third operation has, too.
pub(super) const THIRD: &str = "hleC";

/// The letters that the last operation of the longest of them has: the others have been seen there.
pub(super) const LAST: &str = "awAmNsrckfC";

/// What programs do behind a crash, before the next one.
pub(super) const GO_ON: &[&str] =
    &["a", "ws", "Aa", "nr", "bWs", "wAk", "mc", "t", "lw", "ebr", "C", "aCk", "mhC", "wyWA"];

/// Programs that are not short: what the three kinds of users do, and what has gone wrong before.
pub(super) const SCRIPTS: &[&str] = &[
    "abBwmBoWNsArbcwaMcBbac",
    "amAaBcAW",
    "WWwWBnwswW",
    "wwwkwwwkwww",
    "wWnkWwkNw",
    "awfawfaWfa",
    "bbrobrwkrar",
    "gagwg",
    "ABABsABABk",
    "tutxtic",
    "wrwrwrkwr",
    "WfNfWfw",
    "mrNqw",
    "WmlwAhbrNqakmpNchW",
    "oNlkMebwrjwhzbqAck",
    "nwrolbkANhrfpaeWgjo",
    "abmrArnCaoCk",
    "MCMChaCqmCc",
    "aaCaabCkCmyd",
    "NbfCmgCrCwWC",
    "aFwGrFkGAFlFhGcF",
    "FfGgFjFdqF",
    "ayAWbBkwyNbyWsBc",
    "wyWWWWWkWyrWlWkyWeWk",
    "byBfwyWWgoyNhWjyWwd",
];

/// Longer programs with a consumer.
pub(super) const CONSUMER_SCRIPTS: &[&str] =
    &["wwwwvvkaavc", "nnvvhnnvkV", "mmvvlavSvzav", "nrnrvvqvjnvVv", "bbvobvkvSkv", "NvwvfvgvVkv"];

/// Every word of at most so many letters in which something is done with a consumer last.
pub(super) fn consumer_words(len: usize) -> Vec<String> {
    let mut all = Vec::new();
    let mut words = vec!["m".to_owned(), "n".to_owned(), "bo".to_owned()];
    for _ in 0..len {
        let longer = |word: &String| {
            "vSVhzkcaw".chars().map(|letter| format!("{word}{letter}")).collect::<Vec<_>>()
        };
        words = words.iter().flat_map(longer).collect();
        let with_one = words.iter().filter(|word| word.contains(['v', 'S']));
        all.extend(with_one.cloned());
    }
    all
}

impl Place {
    pub(super) fn of(self, world: &World) -> u64 {
        let (start, end) = (world.start, world.end());
        match self {
            Self::Start => start,
            Self::Second => end.min(start + 1),
            Self::Middle => start.midpoint(end),
            Self::Last => start.max(end.saturating_sub(1)),
            Self::End => end,
            Self::Beyond => end + 5,
        }
    }
}

impl Op {
    pub(super) fn of(letter: char) -> Result<Self, String> {
        let found = OPS.iter().find(|(other, _)| *other == letter);
        found.map(|(_, op)| *op).ok_or_else(|| format!("no operation has the letter {letter}"))
    }
}

/// Every word of so many letters.
pub(super) fn words(len: usize) -> Vec<String> {
    let mut words = vec![String::new()];
    for nth in 0..len {
        let letters = match (nth, len) {
            (_, 1 | 2) | (1, 3) => [ALPHABET, ALSO].concat(),
            (2, 3) => [ALPHABET, THIRD].concat(),
            (3, _) => LAST.to_owned(),
            _ => ALPHABET.to_owned(),
        };
        let longer = |word: &String| {
            letters.chars().map(|letter| format!("{word}{letter}")).collect::<Vec<_>>()
        };
        words = words.iter().flat_map(longer).collect();
    }
    words
}

/// A word by the throw of a die.
pub(super) fn random_word(numbers: &mut Numbers) -> String {
    let len = 5 + numbers.below(14);
    (0..len).map(|_| numbers.pick(OPS).0).collect()
}

/// How a log is opened: one of these, by number, or any other number for options by the throw of a
/// die.
pub(super) fn options(number: u64, storage: Arc<dyn Storage>, clock: Arc<dyn Clock>) -> Options {
    let retention = match tombstones(number) {
        Tombstones::Go => Duration::ZERO,
        Tombstones::Stay => Duration::MAX,
    };
    let compaction = Compaction::new().tombstone_retention(retention).map_bytes(4 << 10);
    let options = tiny(storage).clock(clock).compaction(compaction);
    match number {
        0 => options.segment_bytes(256),
        1 => options.segment_bytes(256).durability(Buffered),
        2 => options.segment_bytes(512).durability(Written),
        3 => options,
        _ => {
            let mut numbers = Numbers(number);
            let level = *numbers.pick(&[Synced, Written, Buffered]);
            let segment_bytes = *numbers.pick(&[256, 300, 512, 1000, 4096]);
            let unsynced = *numbers.pick(&[1, 100, 500, 1 << 20]);
            options.segment_bytes(segment_bytes).durability(level).max_unsynced_bytes(unsynced)
        }
    }
}

/// What becomes of tombstones with the options of that number.
pub(super) fn tombstones(options: u64) -> Tombstones {
    if options % 4 == 2 { Tombstones::Stay } else { Tombstones::Go }
}
