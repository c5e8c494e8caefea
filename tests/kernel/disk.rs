//! A disk with files and directories: what is seen, what is durable, and what is pending between.
//!
//! As mean as the contract of the library's storage allows. A write or a change of names is pending
//! until its file or directory is synced; then the pending list is applied to what is durable. What
//! is seen is never copied there: a sync that failed, and dropped the list, has lost the bytes for
//! good although they are still seen.

use crate::bytes::Bytes;
use crate::rules::Call;
use crate::rules::Rules;
use crate::survival::Survival;
use fuser::Errno;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::mem;

/// The number of a file or directory, as the kernel knows it.
pub(crate) type Ino = u64;

pub(crate) const ROOT: Ino = 1;

type Result<T> = std::result::Result<T, Errno>;

#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// The first is the root.
    nodes: Vec<Node>,
    /// What fails, and when the power is cut.
    pub(crate) rules: Rules,
    /// The disk as the power cut left it. From then on every call fails.
    after: Option<Box<Self>>,
}

#[derive(Clone, Debug)]
enum Node {
    File(File),
    Dir(Dir),
}

#[derive(Clone, Debug, Default)]
struct File {
    seen: Bytes,
    durable: Bytes,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

#[derive(Clone, Debug, Default)]
struct Dir {
    seen: BTreeMap<OsString, Ino>,
    durable: BTreeMap<OsString, Ino>,
    pending: Vec<Naming>,
}

#[derive(Clone, Debug)]
enum Naming {
    Link(OsString, Ino),
    Unlink(OsString),
    Rename(OsString, OsString, Ino),
}

/// What there is to know about a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File(u64),
    Dir,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self { nodes: vec![Node::Dir(Dir::default())], rules: Rules::default(), after: None }
    }

    /// Cuts the power: what survives is decided now, and every later call fails. Once is enough.
    pub(crate) fn cut(&mut self, seed: u64) {
        if self.after.is_none() {
            self.after = Some(Box::new(self.after_cut(Survival::new(seed))));
        }
    }

    /// The disk as a power cut would leave it now.
    pub(crate) fn after_cut(&self, mut survival: Survival) -> Self {
        let mut nodes: Vec<Node> =
            self.nodes.iter().map(|node| node.survive(&mut survival)).collect();
        forget_nameless(&mut nodes);
        Self { nodes, rules: Rules::default(), after: None }
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.after.is_some()
    }

    /// The disk as it is when the power is back.
    pub(crate) fn survivor(&self) -> Self {
        self.after.as_deref().expect("the power was not cut").clone()
    }

    pub(crate) fn kind(&self, ino: Ino) -> Result<Kind> {
        match self.node(ino)? {
            Node::File(file) => Ok(Kind::File(file.seen.len())),
            Node::Dir(_) => Ok(Kind::Dir),
        }
    }

    pub(crate) fn lookup(&self, dir: Ino, name: &OsStr) -> Result<Ino> {
        self.dir(dir)?.seen.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub(crate) fn names(&self, dir: Ino) -> Result<Vec<(OsString, Ino)>> {
        Ok(self.dir(dir)?.seen.iter().map(|(name, ino)| (name.clone(), *ino)).collect())
    }

    pub(crate) fn read(&self, ino: Ino, at: u64, size: u64) -> Result<Vec<u8>> {
        if self.is_cut() {
            return Err(Errno::EIO);
        }
        match self.node(ino)? {
            Node::File(file) => Ok(file.seen.read(at, size)),
            Node::Dir(_) => Err(Errno::EISDIR),
        }
    }

    pub(crate) fn create(&mut self, dir: Ino, name: &OsStr) -> Result<Ino> {
        self.add(dir, name, Node::File(File::default()))
    }

    pub(crate) fn create_dir(&mut self, dir: Ino, name: &OsStr) -> Result<Ino> {
        self.add(dir, name, Node::Dir(Dir::default()))
    }

    pub(crate) fn remove(&mut self, dir: Ino, name: &OsStr) -> Result<()> {
        self.call(Call::Remove)?;
        let ino = self.lookup(dir, name)?;
        if self.dir(ino).is_ok_and(|dir| !dir.seen.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        self.dir_mut(dir)?.change(Naming::Unlink(name.to_owned()));
        self.give_back(ino);
        Ok(())
    }

    /// Within one directory, which is all that a log needs.
    pub(crate) fn rename(&mut self, dir: Ino, from: &OsStr, to: &OsStr) -> Result<()> {
        self.call(Call::Rename)?;
        let ino = self.lookup(dir, from)?;
        let replaced = self.lookup(dir, to).ok();
        self.dir_mut(dir)?.change(Naming::Rename(from.to_owned(), to.to_owned(), ino));
        if let Some(replaced) = replaced {
            self.give_back(replaced);
        }
        Ok(())
    }

    /// How many bytes were written.
    pub(crate) fn write(&mut self, ino: Ino, at: u64, data: &[u8]) -> Result<usize> {
        self.call(Call::Write)?;
        let len = self.file(ino)?.seen.len();
        let room = self.rules.room(len, at, data.len());
        if room == 0 && !data.is_empty() {
            return Err(Errno::ENOSPC);
        }
        let file = self.file_mut(ino)?;
        file.seen.write(at, &data[..room]);
        file.pending.push(Change::Write(at, data[..room].to_vec()));
        let grown = file.seen.len() - len;
        self.rules.take_space(grown);
        Ok(room)
    }

    pub(crate) fn set_len(&mut self, ino: Ino, len: u64) -> Result<()> {
        self.call(Call::SetLen)?;
        let file = self.file_mut(ino)?;
        let before = file.seen.len();
        file.seen.set_len(len);
        file.pending.push(Change::SetLen(len));
        self.rules.give_space(before.saturating_sub(len));
        self.rules.take_space(len.saturating_sub(before));
        Ok(())
    }

    pub(crate) fn sync(&mut self, ino: Ino) -> Result<()> {
        let result = self.call(Call::Sync);
        let File { durable, pending, .. } = self.file_mut(ino)?;
        let pending = mem::take(pending);
        result?;
        for change in pending {
            change.apply(durable);
        }
        Ok(())
    }

    pub(crate) fn sync_dir(&mut self, ino: Ino) -> Result<()> {
        let result = self.call(Call::SyncDir);
        let Dir { durable, pending, .. } = self.dir_mut(ino)?;
        let pending = mem::take(pending);
        result?;
        for naming in pending {
            naming.apply(durable);
        }
        Ok(())
    }

    fn add(&mut self, dir: Ino, name: &OsStr, node: Node) -> Result<Ino> {
        self.call(Call::Create)?;
        if self.lookup(dir, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        self.nodes.push(node);
        let ino = self.nodes.len() as Ino;
        self.dir_mut(dir)?.change(Naming::Link(name.to_owned(), ino));
        Ok(ino)
    }

    /// Counts a call, and says whether it gets through.
    fn call(&mut self, call: Call) -> Result<()> {
        if let Some(seed) = self.rules.cuts_now() {
            self.cut(seed);
        }
        if self.is_cut() { Err(Errno::EIO) } else { self.rules.call(call) }
    }

    /// The file lost its only name.
    fn give_back(&mut self, ino: Ino) {
        if let Ok(Kind::File(len)) = self.kind(ino) {
            self.rules.give_space(len);
        }
    }

    fn node(&self, ino: Ino) -> Result<&Node> {
        self.nodes.get(place(ino)).ok_or(Errno::ENOENT)
    }

    fn dir(&self, ino: Ino) -> Result<&Dir> {
        match self.node(ino)? {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn file(&self, ino: Ino) -> Result<&File> {
        match self.node(ino)? {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(Errno::EISDIR),
        }
    }

    fn dir_mut(&mut self, ino: Ino) -> Result<&mut Dir> {
        match self.nodes.get_mut(place(ino)) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn file_mut(&mut self, ino: Ino) -> Result<&mut File> {
        match self.nodes.get_mut(place(ino)) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(Errno::EISDIR),
        }
    }
}

impl Node {
    fn survive(&self, survival: &mut Survival) -> Self {
        match self {
            Self::File(file) => Self::File(file.survive(survival)),
            Self::Dir(dir) => Self::Dir(dir.survive(survival)),
        }
    }
}

impl File {
    fn survive(&self, survival: &mut Survival) -> Self {
        let mut bytes = self.durable.clone();
        let (mut len, mut lens) = (bytes.len(), vec![bytes.len()]);
        survival.begin(self.pending.len());
        for change in &self.pending {
            match change {
                Change::Write(at, data) => {
                    len = len.max(at + data.len() as u64);
                    write_some(&mut bytes, *at, data, survival);
                }
                Change::SetLen(to) => {
                    len = *to;
                    if survival.keeps() {
                        bytes.set_len(len);
                    }
                }
            }
            lens.push(len);
        }
        if let Some(len) = survival.picks_len(&lens) {
            bytes.set_len(len);
        }
        Self { seen: bytes.clone(), durable: bytes, pending: Vec::new() }
    }
}

fn write_some(bytes: &mut Bytes, at: u64, data: &[u8], survival: &mut Survival) {
    let (mut from, mut left) = (at, data);
    while !left.is_empty() {
        let piece = survival.piece_end(from) - from;
        let (piece, rest) = left.split_at(left.len().min(usize::try_from(piece).unwrap()));
        // A whole write is one throw, so that a prefix is one of whole writes.
        if survival.keeps() {
            bytes.write(from, piece);
        }
        from += piece.len() as u64;
        left = rest;
    }
}

impl Change {
    fn apply(self, bytes: &mut Bytes) {
        match self {
            Self::Write(at, data) => bytes.write(at, &data),
            Self::SetLen(len) => bytes.set_len(len),
        }
    }
}

impl Dir {
    fn change(&mut self, naming: Naming) {
        naming.apply(&mut self.seen);
        self.pending.push(naming);
    }

    fn survive(&self, survival: &mut Survival) -> Self {
        let mut names = self.durable.clone();
        survival.begin(self.pending.len());
        for naming in self.pending.iter().filter(|_| survival.keeps()) {
            naming.apply(&mut names);
        }
        Self { seen: names.clone(), durable: names, pending: Vec::new() }
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<OsString, Ino>) {
        match self {
            Self::Link(name, ino) => drop(names.insert(name.clone(), *ino)),
            Self::Unlink(name) => drop(names.remove(name)),
            Self::Rename(from, to, ino) => {
                names.remove(from);
                names.insert(to.clone(), *ino);
            }
        }
    }
}

/// Nobody can open a file any more that no directory names.
fn forget_nameless(nodes: &mut [Node]) {
    let mut named = vec![false; nodes.len()];
    for node in &*nodes {
        if let Node::Dir(dir) = node {
            dir.durable.values().for_each(|ino| named[place(*ino)] = true);
        }
    }
    for (node, named) in nodes.iter_mut().zip(named) {
        if let (Node::File(file), false) = (node, named) {
            *file = File::default();
        }
    }
}

fn place(ino: Ino) -> usize {
    usize::try_from(ino - ROOT).unwrap()
}
