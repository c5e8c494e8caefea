//! What a machine's disk holds: what the processes see, and the part that a power cut leaves.
//!
//! As mean as the contract of [`storage`](stratalog::storage) allows. A write, a cut or a change of
//! names is *pending* until its file or directory is synced; then the pending list is applied to
//! what is durable. What is seen is never copied, so that a sync which failed, and dropped the
//! list, has lost the bytes for good although they are still seen. What of the pending list gets
//! through a power cut is a [`Choice`](crate::support::choice::Choice).
//!
//! A clone is a snapshot: it costs a few counters, and contents are copied when they are changed.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

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

#[derive(Clone, Debug, Default)]
pub(crate) struct Medium {
    nodes: Vec<Arc<Node>>,
    dirs: Arc<BTreeSet<Arc<str>>>,
    seen: Arc<Names>,
    durable: Arc<Names>,
    pending: Arc<Vec<(Stamp, Naming)>>,
    stamps: Stamp,
    /// Bytes that files may grow by; `None` is no limit.
    pub(crate) free: Option<u64>,
    /// Whatever is written takes space, also over what is there, which is free when the file has
    /// been synced.
    pub(crate) copies_on_write: bool,
}

/// Files by their paths.
pub(super) type Names = BTreeMap<Arc<str>, NodeId>;

/// Which change came first.
pub(super) type Stamp = u64;

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(usize);

#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    seen: Arc<Vec<u8>>,
    pub(super) durable: Arc<Vec<u8>>,
    pub(super) pending: Arc<Vec<(Stamp, Change)>>,
    /// Bytes that are free when the file has been synced.
    replaced: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Bytes at a position, and how long the file was before.
    Write {
        at: usize,
        data: Arc<[u8]>,
        len_before: usize,
    },
    SetLen(usize),
}

#[derive(Clone, Debug)]
pub(super) enum Naming {
    Link(Arc<str>, NodeId),
    Unlink(Arc<str>),
    Rename(Arc<str>, Arc<str>, NodeId),
}

impl Medium {
    /// A disk with just these files, all durable, in the directories of `like`.
    pub(super) fn of_files(like: &Self, files: Vec<(Arc<str>, Arc<Vec<u8>>)>) -> Self {
        let mut medium = Self {
            dirs: Arc::clone(&like.dirs),
            copies_on_write: like.copies_on_write,
            ..Self::default()
        };
        let mut names = Names::new();
        for (path, bytes) in files {
            names.insert(path, NodeId(medium.nodes.len()));
            let node = Node { seen: Arc::clone(&bytes), durable: bytes, ..Node::default() };
            medium.nodes.push(Arc::new(node));
        }
        medium.seen = Arc::new(names);
        medium.durable = Arc::clone(&medium.seen);
        if let Some(free) = like.free {
            let used = medium.used();
            medium.free = Some((free + like.used()).saturating_sub(used));
        }
        medium
    }

    /// Takes in a file that was there before.
    pub(crate) fn adopt(&mut self, path: &str, bytes: Vec<u8>) {
        let id = NodeId(self.nodes.len());
        let bytes = Arc::new(bytes);
        let node = Node { seen: Arc::clone(&bytes), durable: bytes, ..Node::default() };
        self.nodes.push(Arc::new(node));
        Arc::make_mut(&mut self.seen).insert(path.into(), id);
        Arc::make_mut(&mut self.durable).insert(path.into(), id);
    }

    /// Makes a directory and its parents, durably.
    pub(crate) fn create_dir(&mut self, path: &str) {
        let mut path = path;
        while !path.is_empty() && !self.dirs.contains(path) {
            Arc::make_mut(&mut self.dirs).insert(path.into());
            path = dir_of(path);
        }
    }

    pub(crate) fn is_dir(&self, path: &str) -> bool {
        self.dirs.contains(path)
    }

    pub(crate) fn node(&self, path: &str) -> Option<NodeId> {
        self.seen.get(path).copied()
    }

    /// The names in a directory: those of files, and those of directories.
    pub(crate) fn list<'a>(&'a self, dir: &str) -> (Vec<&'a str>, Vec<&'a str>) {
        let inside = |path: &'a str| (dir_of(path) == dir).then(|| &path[dir.len() + 1..]);
        let files = self.seen.keys().filter_map(|path| inside(path)).collect();
        (files, self.dirs.iter().filter_map(|path| inside(path)).collect())
    }

    pub(crate) fn create(&mut self, path: &str) -> NodeId {
        let id = NodeId(self.nodes.len());
        self.nodes.push(Arc::default());
        self.change_names(Naming::Link(path.into(), id));
        id
    }

    /// A second name for a file.
    pub(crate) fn link(&mut self, from: &str, to: &str) {
        let id = self.seen[from];
        self.change_names(Naming::Link(to.into(), id));
    }

    pub(crate) fn remove(&mut self, path: &str) {
        self.change_names(Naming::Unlink(path.into()));
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        let id = self.seen[from];
        self.change_names(Naming::Rename(from.into(), to.into(), id));
    }

    pub(crate) fn sync_dir(&mut self, dir: &str) {
        for (_, naming) in self.take_pending(dir) {
            naming.apply(Arc::make_mut(&mut self.durable));
        }
    }

    /// A sync of the directory failed: what it should have made durable never will be.
    pub(crate) fn lose_names(&mut self, dir: &str) {
        drop(self.take_pending(dir));
    }

    /// Whether names below that path are not what a power cut leaves, and no sync changes that.
    pub(crate) fn has_lost_names(&self, below: &str) -> bool {
        let below = |names: &Names| -> Names {
            names
                .iter()
                .filter(|(path, _)| path.starts_with(below))
                .map(|(p, id)| (p.clone(), *id))
                .collect()
        };
        let is_pending = self.pending.iter().any(|(_, naming)| match naming {
            Naming::Link(path, _) | Naming::Unlink(path) | Naming::Rename(_, path, _) => {
                below(&self.seen).contains_key(path) || below(&self.durable).contains_key(path)
            }
        });
        !is_pending && below(&self.seen) != below(&self.durable)
    }

    pub(crate) fn bytes(&self, id: NodeId) -> &[u8] {
        &self.nodes[id.0].seen
    }

    /// How many bytes of a write there is space for.
    pub(crate) fn room(&self, id: NodeId, position: u64) -> usize {
        let there = if self.copies_on_write { position } else { self.bytes(id).len() as u64 };
        let end_max = self.free.map_or(u64::MAX, |free| there + free);
        usize::try_from(end_max.saturating_sub(position)).unwrap_or(usize::MAX)
    }

    pub(crate) fn write(&mut self, id: NodeId, position: u64, data: &[u8]) {
        let at = usize::try_from(position).unwrap();
        let len_before = self.bytes(id).len();
        let change = Change::Write { at, data: data.into(), len_before };
        let seen = self.change(id, change);
        put(seen, at, data, |_| 0);
        let len = seen.len();
        self.resized(len_before, len);
        if self.copies_on_write {
            let replaced = (data.len() - (len - len_before)) as u64;
            self.free = self.free.map(|free| free.saturating_sub(replaced));
            Arc::make_mut(&mut self.nodes[id.0]).replaced += replaced;
        }
    }

    pub(crate) fn set_len(&mut self, id: NodeId, len: u64) {
        let len = usize::try_from(len).unwrap();
        let len_before = self.bytes(id).len();
        self.change(id, Change::SetLen(len)).resize(len, 0);
        self.resized(len_before, len);
    }

    pub(crate) fn sync(&mut self, id: NodeId) {
        if self.nodes[id.0].pending.is_empty() {
            return;
        }
        let node = Arc::make_mut(&mut self.nodes[id.0]);
        let replaced = mem::take(&mut node.replaced);
        self.free = self.free.map(|free| free + replaced);
        let pending = mem::take(&mut node.pending);
        let durable = Arc::make_mut(&mut node.durable);
        for (_, change) in pending.iter() {
            match change {
                Change::Write { at, data, .. } => put(durable, *at, data, |_| 0),
                Change::SetLen(len) => durable.resize(*len, 0),
            }
        }
    }

    /// A sync of the file failed: its bytes are seen, and lost.
    pub(crate) fn lose_bytes(&mut self, id: NodeId) {
        Arc::make_mut(&mut self.nodes[id.0]).pending = Arc::default();
    }

    /// A line for each file and each change of names that is pending.
    pub(crate) fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, id) in self.seen.iter() {
            let Node { seen, durable, pending, .. } = &*self.nodes[id.0];
            let (seen, durable, pending) = (seen.len(), durable.len(), pending.len());
            lines.push(format!(
                "{path}: {seen} bytes, {durable} durable, {pending} changes pending"
            ));
        }
        lines.extend(self.pending.iter().map(|(_, naming)| format!("pending: {naming:?}")));
        lines
    }

    /// A number that differs, but for a stroke of luck, for another disk.
    pub(crate) fn hash(&self) -> u64 {
        let mut hash = Hash::default();
        for (names, mark) in [(&self.seen, 1), (&self.durable, 2)] {
            hash.number(mark);
            for (path, id) in names.iter() {
                hash.bytes(path.as_bytes());
                let node = &self.nodes[id.0];
                hash.bytes(&node.durable);
                if !Arc::ptr_eq(&node.seen, &node.durable) {
                    hash.bytes(&node.seen);
                }
                for (_, change) in node.pending.iter() {
                    match change {
                        Change::Write { at, data, .. } => {
                            hash.number(*at as u64);
                            hash.bytes(data);
                        }
                        Change::SetLen(len) => hash.number(!(*len as u64)),
                    }
                }
            }
            if Arc::ptr_eq(&self.seen, &self.durable) {
                break;
            }
        }
        for (_, naming) in self.pending.iter() {
            let (Naming::Link(path, id) | Naming::Rename(_, path, id)) = naming else { continue };
            hash.bytes(path.as_bytes());
            hash.bytes(&self.nodes[id.0].durable);
        }
        hash.0
    }

    pub(super) fn names(&self) -> &Names {
        &self.durable
    }

    pub(super) fn namings(&self) -> &[(Stamp, Naming)] {
        &self.pending
    }

    pub(super) fn contents(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The files that have a name, or can get one in a power cut, or could keep it.
    pub(super) fn reachable(&self) -> BTreeSet<NodeId> {
        let named = self.seen.values().chain(self.durable.values()).copied();
        let pending = self.pending.iter().filter_map(|(_, naming)| match naming {
            Naming::Link(_, id) | Naming::Rename(_, _, id) => Some(*id),
            Naming::Unlink(_) => None,
        });
        named.chain(pending).collect()
    }

    /// Bytes in files that have a name.
    fn used(&self) -> u64 {
        let files: BTreeSet<_> = self.seen.values().collect();
        files.into_iter().map(|id| self.bytes(*id).len() as u64).sum()
    }

    fn stamp(&mut self) -> Stamp {
        self.stamps += 1;
        self.stamps
    }

    /// Notes a change as pending and gives the bytes that are seen, for it to be made there.
    fn change(&mut self, id: NodeId, change: Change) -> &mut Vec<u8> {
        let stamp = self.stamp();
        let node = Arc::make_mut(&mut self.nodes[id.0]);
        Arc::make_mut(&mut node.pending).push((stamp, change));
        Arc::make_mut(&mut node.seen)
    }

    fn take_pending(&mut self, dir: &str) -> Vec<(Stamp, Naming)> {
        if self.pending.is_empty() {
            return Vec::new();
        }
        let all = mem::take(Arc::make_mut(&mut self.pending));
        let (taken, left) = all.into_iter().partition(|(_, naming)| naming.dir() == dir);
        self.pending = Arc::new(left);
        taken
    }

    /// What loses its last name is free again.
    fn change_names(&mut self, naming: Naming) {
        let stamp = self.stamp();
        let used = self.free.map(|_| self.used());
        naming.apply(Arc::make_mut(&mut self.seen));
        Arc::make_mut(&mut self.pending).push((stamp, naming));
        if let (Some(free), Some(used)) = (self.free, used) {
            self.free = Some((free + used).saturating_sub(self.used()));
        }
    }

    fn resized(&mut self, before: usize, len: usize) {
        self.free = self.free.map(|free| (free + before as u64).saturating_sub(len as u64));
    }
}

impl Naming {
    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            Self::Link(path, id) => drop(names.insert(Arc::clone(path), *id)),
            Self::Unlink(path) => drop(names.remove(path)),
            Self::Rename(from, to, id) => {
                names.remove(from);
                names.insert(Arc::clone(to), *id);
            }
        }
    }

    fn dir(&self) -> &str {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(_, path, _) => dir_of(path),
        }
    }
}

pub(super) fn dir_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// Puts `data` at a position; what lies between the end and it is filled.
pub(super) fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8], fill: impl Fn(usize) -> u8) {
    let end = at + data.len();
    if bytes.len() < end {
        bytes.extend((bytes.len()..end).map(fill));
    }
    bytes[at..end].copy_from_slice(data);
}

/// A quick hash of many bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hash(pub(crate) u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Hash {
    pub(crate) fn number(&mut self, number: u64) {
        let mixed = (self.0.rotate_left(29) ^ number).wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.0 = mixed ^ (mixed >> 32);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.number(u64::from_le_bytes(word.try_into().unwrap()));
        }
        for byte in words.remainder() {
            self.number(u64::from(*byte));
        }
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
