//! What a disk holds, apart from what the processes see: the part that a power cut leaves.
//!
//! As mean as the contract of [`Storage`](stratalog::storage::Storage) allows. A write, a cut or a
//! change of names is *pending* until its file or directory is synced; then the pending list is
//! applied to what is durable. What is seen is never copied, so that a sync which failed, and
//! dropped the list, has lost the bytes for good although they are still seen.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::path::{Path, PathBuf};

/// What of the pending changes gets through when the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    KeepAll,
    DropUnsynced,
    /// Of each file and of the names a first part, as long as the die says.
    Prefix(u64),
    /// Each sector of 512 bytes, each length and each name by the throw of a die.
    Random(u64),
}

#[derive(Debug, Default)]
pub(crate) struct Medium {
    nodes: Vec<Node>,
    seen: BTreeMap<PathBuf, NodeId>,
    durable: BTreeMap<PathBuf, NodeId>,
    pending: Vec<Naming>,
    /// Bytes that files may grow by; `None` is no limit.
    pub(crate) free: Option<u64>,
}

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(usize);

#[derive(Debug, Default)]
struct Node {
    len: u64,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

#[derive(Debug)]
enum Naming {
    Link(PathBuf, NodeId),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, NodeId),
}

impl Medium {
    /// Takes in a file that was there before.
    pub(crate) fn adopt(&mut self, path: &Path, durable: Vec<u8>) {
        let node = NodeId(self.nodes.len());
        self.nodes.push(Node { len: durable.len() as u64, durable, pending: Vec::new() });
        self.seen.insert(path.to_owned(), node);
        self.durable.insert(path.to_owned(), node);
    }

    pub(crate) fn node(&self, path: &Path) -> NodeId {
        self.seen[path]
    }

    pub(crate) fn create(&mut self, path: &Path) {
        let node = NodeId(self.nodes.len());
        self.nodes.push(Node::default());
        self.change_names(Naming::Link(path.to_owned(), node));
    }

    pub(crate) fn remove(&mut self, path: &Path) {
        self.change_names(Naming::Unlink(path.to_owned()));
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) {
        let node = self.node(from);
        self.change_names(Naming::Rename(from.to_owned(), to.to_owned(), node));
    }

    pub(crate) fn sync_dir(&mut self, dir: &Path) {
        for naming in self.take_pending(dir) {
            naming.apply(&mut self.durable);
        }
    }

    /// A sync of the directory failed: what it should have made durable never will be.
    pub(crate) fn lose_names(&mut self, dir: &Path) {
        drop(self.take_pending(dir));
    }

    /// How many bytes of a write there is space for.
    pub(crate) fn room(&self, node: NodeId, position: u64) -> usize {
        let end_max = self.free.map_or(u64::MAX, |free| self.nodes[node.0].len + free);
        usize::try_from(end_max.saturating_sub(position)).unwrap_or(usize::MAX)
    }

    pub(crate) fn write(&mut self, node: NodeId, position: u64, data: &[u8]) {
        let at = usize::try_from(position).unwrap();
        self.nodes[node.0].pending.push(Change::Write(at, data.to_vec()));
        self.resize(node, self.nodes[node.0].len.max(position + data.len() as u64));
    }

    pub(crate) fn set_len(&mut self, node: NodeId, len: u64) {
        self.nodes[node.0].pending.push(Change::SetLen(usize::try_from(len).unwrap()));
        self.resize(node, len);
    }

    pub(crate) fn sync(&mut self, node: NodeId) {
        let Node { durable, pending, .. } = &mut self.nodes[node.0];
        for change in mem::take(pending) {
            match change {
                Change::Write(at, data) => put(durable, at, &data),
                Change::SetLen(len) => durable.resize(len, 0),
            }
        }
    }

    /// A sync of the file failed: its bytes are seen, and lost.
    pub(crate) fn lose_bytes(&mut self, node: NodeId) {
        self.nodes[node.0].pending.clear();
    }

    /// The files as the power cut leaves them.
    pub(crate) fn survivors(&self, how: Crash) -> Vec<(PathBuf, Vec<u8>)> {
        let mut die = Die::new(how);
        let mut names = self.durable.clone();
        die.begin(self.pending.len());
        for naming in self.pending.iter().filter(|_| die.keeps()) {
            naming.apply(&mut names);
        }
        let survive =
            |(path, node): (PathBuf, NodeId)| (path, self.nodes[node.0].survive(&mut die));
        names.into_iter().map(survive).collect()
    }

    /// Bytes in use and free, if there is a limit.
    pub(crate) fn capacity(&self) -> Option<u64> {
        let used: u64 = self.seen.values().map(|node| self.nodes[node.0].len).sum();
        self.free.map(|free| free + used)
    }

    fn take_pending(&mut self, dir: &Path) -> Vec<Naming> {
        let all = mem::take(&mut self.pending);
        let (taken, left) = all.into_iter().partition(|naming| naming.dir() == Some(dir));
        self.pending = left;
        taken
    }

    /// What loses its last name is free again.
    fn change_names(&mut self, naming: Naming) {
        let before: BTreeSet<NodeId> = self.seen.values().copied().collect();
        naming.apply(&mut self.seen);
        self.pending.push(naming);
        let after: BTreeSet<NodeId> = self.seen.values().copied().collect();
        let freed: u64 = before.difference(&after).map(|node| self.nodes[node.0].len).sum();
        self.free = self.free.map(|free| free + freed);
    }

    fn resize(&mut self, node: NodeId, len: u64) {
        let before = mem::replace(&mut self.nodes[node.0].len, len);
        self.free = self.free.map(|free| (free + before).saturating_sub(len));
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<PathBuf, NodeId>) {
        match self {
            Self::Link(path, node) => drop(names.insert(path.clone(), *node)),
            Self::Unlink(path) => drop(names.remove(path)),
            Self::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }

    fn dir(&self) -> Option<&Path> {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(_, path, _) => path.parent(),
        }
    }
}

impl Node {
    fn survive(&self, die: &mut Die) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let (mut len, mut lens) = (bytes.len(), vec![bytes.len()]);
        die.begin(self.pending.len());
        for change in &self.pending {
            match change {
                Change::Write(at, data) => {
                    len = len.max(at + data.len());
                    let (mut from, end) = (*at, at + data.len());
                    while from < end {
                        let to = end.min(die.piece_end(from));
                        if die.keeps() {
                            put(&mut bytes, from, &data[from - at..to - at]);
                        }
                        from = to;
                    }
                }
                Change::SetLen(to) => {
                    len = *to;
                    if die.keeps() {
                        bytes.resize(len, 0);
                    }
                }
            }
            lens.push(len);
        }
        if let Some(len) = die.picks(&lens) {
            bytes.resize(len, 0);
        }
        bytes
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

const SECTOR: usize = 512;

/// Decides what gets through.
#[derive(Debug)]
struct Die {
    how: Crash,
    numbers: Numbers,
    /// Of eight.
    odds: u64,
    /// How many more changes get through in order.
    first: u64,
}

impl Die {
    fn new(how: Crash) -> Self {
        let seed = match how {
            Crash::Random(seed) | Crash::Prefix(seed) => seed,
            Crash::KeepAll | Crash::DropUnsynced => 0,
        };
        let mut numbers = Numbers(seed);
        let odds = *numbers.pick(&[1, 4, 7]);
        Self { how, numbers, odds, first: 0 }
    }

    /// Another list of so many changes.
    fn begin(&mut self, changes: usize) {
        self.first = self.numbers.below(changes as u64 + 1);
    }

    fn keeps(&mut self) -> bool {
        match self.how {
            Crash::KeepAll => true,
            Crash::DropUnsynced => false,
            Crash::Prefix(_) => {
                let keeps = self.first > 0;
                self.first = self.first.saturating_sub(1);
                keeps
            }
            Crash::Random(_) => self.numbers.below(8) < self.odds,
        }
    }

    /// The end of the piece of a write that gets through or does not.
    fn piece_end(&self, from: usize) -> usize {
        match self.how {
            Crash::Random(_) => (from / SECTOR + 1) * SECTOR,
            _ => usize::MAX,
        }
    }

    /// One of the lengths that the file had, or `None` to leave it to the bytes.
    fn picks(&mut self, lens: &[usize]) -> Option<usize> {
        let random = matches!(self.how, Crash::Random(_)) && self.numbers.next().is_multiple_of(2);
        random.then(|| *self.numbers.pick(lens))
    }
}

/// The same numbers for the same seed (SplitMix64).
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let place = self.below(from.len() as u64);
        &from[usize::try_from(place).unwrap()]
    }
}
