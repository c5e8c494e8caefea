//! What several searches share: the states that were entered, the counts, and what was broken.

use crate::explore::oracle::Expected;
use crate::explore::trail::Trail;
use crate::support::medium::Hash;
use crate::support::medium::Medium;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::thread::ThreadId;

/// So many broken promises end an exploration: one is enough to look at.
const BROKEN_MAX: usize = 5;

/// How thorough an exploration is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Crashes by the throw of a die in each state's recovery and what goes on behind it.
    pub(super) children: u64,
    /// Crashes that follow each other.
    pub(super) depth: u8,
    /// The begin of all dice.
    pub(super) seed: u64,
}

/// What has been explored.
#[derive(Debug)]
pub(super) struct Explorer {
    /// The states that were entered, and how many more crashes followed.
    entered: Vec<Mutex<HashMap<u64, u8>>>,
    broken: Mutex<Vec<String>>,
    /// Where the threads are.
    places: Mutex<HashMap<ThreadId, String>>,
    pub(super) programs: AtomicU64,
    pub(super) cuts: AtomicU64,
    pub(super) states: AtomicU64,
    pub(super) distinct: AtomicU64,
}

impl Explorer {
    pub(super) fn new() -> Self {
        Self {
            entered: (0..64).map(|_| Mutex::default()).collect(),
            broken: Mutex::default(),
            places: Mutex::default(),
            programs: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            states: AtomicU64::new(0),
            distinct: AtomicU64::new(0),
        }
    }

    /// Whether so many promises were found broken that there is no need to go on.
    pub(super) fn is_done(&self) -> bool {
        self.broken.lock().len() >= BROKEN_MAX
    }

    pub(super) fn count_program(&self) {
        self.programs.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }

    /// Where the threads are, for when one of them never comes back.
    pub(super) fn places(&self) -> Vec<String> {
        self.places.lock().values().cloned().collect()
    }

    pub(super) fn is_at(&self, trail: &Trail) {
        self.places.lock().insert(thread::current().id(), trail.to_string());
    }

    pub(super) fn broken(&self) -> Vec<String> {
        self.broken.lock().clone()
    }

    /// Whether the state has not been explored as far as this yet.
    pub(super) fn enter(&self, medium: &Medium, expected: &Expected, left: u8) -> bool {
        self.states.fetch_add(1, Ordering::Relaxed);
        let mut hash = Hash(medium.hash());
        expected.hash(&mut hash);
        let shard = usize::try_from(hash.0 >> 58).unwrap();
        let mut entered = self.entered[shard].lock();
        match entered.get_mut(&hash.0) {
            Some(before) if *before >= left => false,
            Some(before) => {
                *before = left;
                true
            }
            None => {
                entered.insert(hash.0, left);
                self.distinct.fetch_add(1, Ordering::Relaxed);
                true
            }
        }
    }

    pub(super) fn report(&self, trail: &Trail, why: &str) {
        let mut broken = self.broken.lock();
        if broken.len() < BROKEN_MAX {
            let states = self.states.load(Ordering::Relaxed);
            broken.push(format!("after {states} states: {why}\n    STRATALOG_REPLAY='{trail}'"));
        }
    }
}

/// Which crashes of a program are explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cuts {
    All,
    /// Those in its last operation: what comes before is another program.
    OfTheLast,
    /// The first few behind a call that was made to fail, and some of those that follow.
    BehindTrouble,
}
