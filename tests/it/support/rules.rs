//! The rules of order that keep a log's promises, and the state that it takes to check them.
//!
//! | call | rule |
//! |---|---|
//! | *told: synced* | All below the end lies in segments that the durable manifest names, |
//! | | with durable names, in bytes that a sync covers which began behind their write. |
//! | rename to `MANIFEST` | Its bytes are synced, and no sync of them failed. |
//! | | Each segment it names has a durable name, and a synced header unless it is prepared. |
//! | | What it calls sealed is synced; so is what lies below the end of what it calls active. |
//! | write of frames | A durable manifest names the segment, perhaps as prepared; or it is to |
//! | | replace sealed ones, and has an id that a durable manifest has given out: then it is |
//! | | garbage until it is named. |
//! | | A frame's durable mark claims no more than is durable. |
//! | | Nothing is written below what is synced, nor into one that ended; |
//! | | while opening, whatever is written is what is there. |
//! | remove of a segment | Neither the manifest seen nor the durable one names it. |
//! | `set_len` of a segment | Never below its frames' end: somebody may have mapped them. |
//! | sync | Never of a file for which it failed, but of one that could not be removed then. |
//! | any with an effect | None after a failure that poisons; none after closing has returned. |
//!
//! What a sync that failed should have covered is lost until it is written again. A lock that is
//! taken begins a new life: failures of the one before do not count, their lost bytes do. Bytes of
//! a file are looked at where the format must be asked; the checker has its own decoder.

use crate::support::facts::ACTIVE;
use crate::support::facts::Manifest;
use crate::support::facts::Row;
use crate::support::facts::SEGMENT_HEADER;
use crate::support::facts::highest_mark;
use crate::support::facts::id_of;
use crate::support::facts::is_segment;
use crate::support::facts::name;
use crate::support::facts::number;
use crate::support::facts::read;
use crate::support::facts::small;
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Result};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stratalog::storage::{File, OpenMode};

/// How many calls are shown with a rule that was broken.
const CALLS_SHOWN: usize = 24;

/// A file, whatever its name.
pub(crate) type NodeId = usize;

#[derive(Debug, Default)]
pub(crate) struct Rules {
    nodes: Vec<Node>,
    seen: BTreeMap<PathBuf, NodeId>,
    durable: BTreeMap<PathBuf, NodeId>,
    /// Changes of names that no sync covers, and when they were made.
    namings: Vec<(u64, Naming)>,
    life: Life,
    process: u64,
    /// What failed so that nothing may be written any more.
    poison: Option<String>,
    time: u64,
    calls: VecDeque<String>,
    broken: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Life {
    #[default]
    Opening,
    Serving,
    Closed,
}

#[derive(Debug)]
struct Node {
    file: Arc<dyn File>,
    /// What no sync covers, and when it was written.
    unsynced: Vec<(u64, Range<u64>)>,
    /// What a sync that failed should have covered.
    lost: Vec<Range<u64>>,
    failed: bool,
    origin: Origin,
    /// Frames up to this position, and end offset, are synced.
    synced_to: (u64, Option<u64>),
    manifest: Option<Manifest>,
}

/// Who may have begun a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Any,
    /// It may be put in the place of segments that were sealed when it was begun.
    Compaction,
}

#[derive(Debug)]
enum Naming {
    Link(PathBuf, NodeId),
    Unlink(PathBuf),
}

impl Rules {
    pub(crate) fn broken(&self) -> Option<String> {
        self.broken.clone()
    }

    pub(crate) fn process(&self) -> u64 {
        self.process
    }

    pub(crate) fn next_process(&mut self) -> u64 {
        self.process += 1;
        self.process
    }

    pub(crate) fn is_there(&self, path: &Path) -> bool {
        self.seen.contains_key(path)
    }

    /// A lock was taken: a log is being opened.
    pub(crate) fn start(&mut self) {
        self.life = Life::Opening;
        self.poison = None;
        self.nodes.iter_mut().for_each(|node| node.failed = false);
        self.note("lock".into());
    }

    pub(crate) fn serve(&mut self) {
        self.life = Life::Serving;
        self.note("the log is open".into());
    }

    pub(crate) fn close(&mut self) {
        self.life = Life::Closed;
        self.note("the log is closed".into());
    }

    pub(crate) fn acknowledged(&mut self, end: u64) {
        self.note(format!("synced up to {end}"));
        if let Some(why) = self.not_durable(end) {
            self.break_rule(format!("{end} was acknowledged as synced, but {why}"));
        }
    }

    /// Gives the time of the call.
    pub(crate) fn begin(&mut self, what: &str, path: &Path) -> u64 {
        let name = name(path);
        self.note(format!("{what} {name}"));
        if self.life == Life::Closed {
            self.break_rule(format!("{what} {name} after closing has returned"));
        }
        if let Some(poison) = &self.poison {
            self.break_rule(format!("{what} {name} after {poison}"));
        }
        self.time
    }

    pub(crate) fn opened(&mut self, path: &Path, mode: OpenMode, file: &Arc<dyn File>) -> NodeId {
        let is_new = mode == OpenMode::Create;
        if let Some(node) = self.seen.get(path).filter(|_| !is_new) {
            self.nodes[*node].file = Arc::clone(file);
            return *node;
        }
        let node = self.nodes.len();
        let manifest = self.manifest(&self.durable, path);
        let is_output = manifest.is_some_and(|manifest| manifest.may_be_replaced_by(path));
        self.nodes.push(Node {
            file: Arc::clone(file),
            unsynced: Vec::new(),
            lost: Vec::new(),
            failed: false,
            origin: if is_new && is_output { Origin::Compaction } else { Origin::Any },
            synced_to: (SEGMENT_HEADER, None),
            manifest: (name(path) == "MANIFEST").then(|| Manifest::read(&**file)).flatten(),
        });
        self.seen.insert(path.to_owned(), node);
        if is_new {
            self.namings.push((self.time, Naming::Link(path.to_owned(), node)));
        } else {
            self.durable.insert(path.to_owned(), node);
        }
        node
    }

    pub(crate) fn before_rename(&mut self, from: &Path, to: &Path) {
        let Some(node) = self.seen.get(from).copied().filter(|_| name(to) == "MANIFEST") else {
            return;
        };
        let unsynced = &self.nodes[node];
        if !unsynced.unsynced.is_empty() || !unsynced.lost.is_empty() || unsynced.failed {
            self.break_rule("the manifest is renamed before its bytes are synced".into());
        }
        let Some(manifest) = Manifest::read(&*self.nodes[node].file) else {
            return self.break_rule("what is renamed is not a manifest".into());
        };
        for row in &manifest.rows {
            let why = self.not_sound(row, to);
            if let Some(why) = why {
                self.break_rule(format!("the new manifest names segment {}, but {why}", row.id));
            }
        }
        let unnamed = manifest.prepared.iter().find(|id| {
            // One that was there before it was watched is not looked at until it is opened.
            self.seen.keys().any(|path| id_of(path) == Some(**id))
                && self.durable_prepared(**id, to).is_none()
        });
        if let Some(id) = unnamed {
            let what = format!("segment {id} is prepared, but its name is not durable");
            self.break_rule(what);
        }
        self.nodes[node].manifest = Some(manifest);
    }

    /// The file of a prepared segment, under any name that is durable.
    fn durable_prepared(&self, id: u64, manifest: &Path) -> Option<(&Path, NodeId)> {
        let mut files = self.durable.iter();
        let found =
            files.find(|(path, _)| path.parent() == manifest.parent() && id_of(path) == Some(id));
        found.map(|(path, node)| (path.as_path(), *node))
    }

    /// Why a manifest must not say that.
    fn not_sound(&self, row: &Row, manifest: &Path) -> Option<String> {
        let path = manifest.with_file_name(row.name());
        let Some(node) = self.durable.get(&path) else {
            // One that was there before it was watched is not looked at until it is opened.
            let unknown = !self.seen.contains_key(&path);
            return (!unknown).then(|| "its name is not durable".to_owned());
        };
        let node = &self.nodes[*node];
        if node.is_unsynced(SEGMENT_HEADER) {
            return Some("its header is not synced".into());
        }
        if node.is_unsynced(row.durable_len) {
            return Some("what it says is durable is not synced".into());
        }
        None
    }

    pub(crate) fn renamed(&mut self, from: &Path, to: &Path, result: &Result<()>) {
        match result {
            Ok(()) => {
                let Some(node) = self.seen.remove(from) else { return };
                self.seen.insert(to.to_owned(), node);
                self.namings.push((self.time, Naming::Unlink(from.to_owned())));
                self.namings.push((self.time, Naming::Link(to.to_owned(), node)));
            }
            Err(error) if error.kind() == ErrorKind::StorageFull => {}
            Err(_) => self.poison = Some("a rename failed".into()),
        }
    }

    pub(crate) fn before_remove(&mut self, path: &Path) {
        let named = |names: &BTreeMap<PathBuf, NodeId>| {
            let manifest = names.get(&path.with_file_name("MANIFEST"));
            let manifest = manifest.and_then(|node| self.nodes[*node].manifest.as_ref());
            manifest.is_some_and(|manifest| manifest.names(path))
        };
        if named(&self.seen) || named(&self.durable) {
            self.break_rule(format!("{} is removed, and a manifest names it", name(path)));
        }
    }

    pub(crate) fn removed(&mut self, path: &Path, result: &Result<()>) {
        match (result, self.seen.get(path)) {
            (Ok(()), _) => {
                self.seen.remove(path);
                self.namings.push((self.time, Naming::Unlink(path.to_owned())));
            }
            // Who wanted to begin another file cannot: it is written anew as a whole.
            (Err(_), Some(node)) => self.nodes[*node].failed = false,
            (Err(_), None) => {}
        }
    }

    pub(crate) fn synced_dir(&mut self, start: u64, result: &Result<()>) {
        let namings = std::mem::take(&mut self.namings);
        if result.is_err() {
            self.poison = Some("a sync of the directory failed".into());
            return;
        }
        for (time, naming) in namings {
            match naming {
                naming if time >= start => self.namings.push((time, naming)),
                Naming::Link(path, node) => drop(self.durable.insert(path, node)),
                Naming::Unlink(path) => drop(self.durable.remove(&path)),
            }
        }
    }

    pub(crate) fn before_write(&mut self, path: &Path, node: NodeId, bytes: &[u8], at: u64) {
        let end = at + bytes.len() as u64;
        if !is_segment(path) || end <= SEGMENT_HEADER {
            return;
        }
        let manifest = self.manifest(&self.durable, path);
        let is_named = manifest.is_some_and(|manifest| manifest.names(path));
        let is_lasting = self.durable.get(path) == Some(&node)
            || id_of(path)
                .and_then(|id| self.durable_prepared(id, path))
                .is_some_and(|it| it.1 == node);
        let is_known = is_named && is_lasting;
        if !is_known && (self.nodes[node].origin == Origin::Any || self.is_named(path)) {
            self.break_rule(format!("no durable manifest names {} yet", name(path)));
        }
        if self.life == Life::Opening {
            let mut there = vec![0; bytes.len()];
            if read(&*self.nodes[node].file, &mut there, at) < bytes.len() || there != bytes {
                self.break_rule("opening writes other bytes than there are".into());
            }
            return;
        }
        let seen = self.manifest(&self.seen, path).and_then(|manifest| manifest.row(path)).copied();
        if at < self.nodes[node].synced_to.0 {
            self.break_rule(format!("write at {at}, below what is synced in {}", name(path)));
        }
        if seen.is_some_and(|row| row.state != ACTIVE) {
            self.break_rule(format!("write to {}, which ended", name(path)));
        }
        if let Some(mark) = highest_mark(bytes)
            && let Some(why) = self.not_durable(mark)
        {
            self.break_rule(format!("a frame claims that {mark} is durable, but {why}"));
        }
    }

    pub(crate) fn written(
        &mut self,
        path: &Path,
        node: NodeId,
        bytes: &[u8],
        result: std::result::Result<Range<u64>, &std::io::Error>,
    ) {
        self.time += 1;
        match result {
            Ok(range) => {
                self.nodes[node].change(self.time, range);
            }
            Err(error) => {
                // Zeros for writes to come are no matter.
                let is_zeros = bytes.iter().all(|byte| *byte == 0);
                let passes = matches!(
                    error.kind(),
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::Interrupted
                );
                if !passes && !is_zeros && is_segment(path) && self.is_named(path) {
                    self.poison = Some(format!("a write to {} failed", name(path)));
                }
            }
        }
    }

    pub(crate) fn before_sync(&mut self, path: &Path, node: NodeId) {
        if self.nodes[node].failed {
            self.break_rule(format!("{} is synced again after a sync of it failed", name(path)));
        }
    }

    pub(crate) fn synced(&mut self, path: &Path, node: NodeId, start: u64, result: &Result<()>) {
        let base = self.base(path, node);
        let is_named = self.is_named(path);
        let node = &mut self.nodes[node];
        match result {
            Ok(()) => {
                node.unsynced.retain(|(time, _)| *time > start);
                if is_segment(path) && node.lost.is_empty() {
                    let all = node.walk(base, u64::MAX);
                    let first = node.unsynced.iter().map(|(_, range)| range.start).min();
                    if first.is_none_or(|first| first >= all.0) {
                        node.synced_to = (all.0, Some(all.1));
                    }
                }
            }
            Err(_) => {
                let unsynced = std::mem::take(&mut node.unsynced);
                node.lost.extend(unsynced.into_iter().map(|(_, range)| range));
                node.failed = true;
                if is_segment(path) && is_named {
                    self.poison = Some(format!("a sync of {} failed", name(path)));
                }
            }
        }
    }

    pub(crate) fn before_set_len(&mut self, path: &Path, node: NodeId, len: u64) {
        if is_segment(path) && len < self.nodes[node].walk(self.base(path, node), u64::MAX).0 {
            self.break_rule(format!("{} is cut to {len}, below its end", name(path)));
        }
    }

    pub(crate) fn length_set(&mut self, node: NodeId, len: u64) {
        self.time += 1;
        self.nodes[node].change(self.time, len..u64::MAX);
    }

    /// Why not all below an offset is durable.
    pub(crate) fn not_durable(&self, end: u64) -> Option<String> {
        let manifest = self.durable.iter().find(|(path, _)| name(path) == "MANIFEST");
        let found =
            manifest.and_then(|(path, node)| Some((path, self.nodes[*node].manifest.as_ref()?)));
        let Some((path, manifest)) = found else {
            return Some("no manifest is durable".into());
        };
        let mut covered = manifest.start;
        let begun = self.begun(manifest, path);
        let next = |base: u64| begun.iter().map(|(begun, _)| *begun).find(|begun| *begun > base);
        for row in manifest.rows.iter().filter(|row| row.base < end) {
            let path = path.with_file_name(row.name());
            let end =
                next(row.base).filter(|_| row.state == ACTIVE).map_or(end, |next| end.min(next));
            covered = if row.state == ACTIVE { end } else { row.end };
            let Some(node) = self.durable.get(&path).map(|node| &self.nodes[*node]) else {
                match self.seen.contains_key(&path) {
                    true => return Some(format!("the name of {} is not durable", name(&path))),
                    false => continue,
                }
            };
            if node.is_unsynced(SEGMENT_HEADER) {
                return Some(format!("the header of {} is not synced", name(&path)));
            }
            if node.unsynced.is_empty() && node.lost.is_empty() {
                continue;
            }
            // What a truncation cut off need not be synced.
            let end = if row.state == ACTIVE { end } else { end.min(row.end) };
            let (position, reached) = node.walk(row.base, end);
            if reached < end && row.state == ACTIVE {
                return Some(format!("{} ends at {reached}", name(&path)));
            }
            if node.is_unsynced(position) {
                return Some(format!("{} is not synced up to {position}", name(&path)));
            }
        }
        for (base, id) in begun.iter().copied().filter(|(base, _)| *base < end) {
            if base != covered {
                return Some(format!("the segment at {base} was begun behind {covered}"));
            }
            let end = next(base).map_or(end, |next| end.min(next));
            let node = &self.nodes[id];
            let (position, reached) = node.walk(base, end);
            if node.is_unsynced(position) {
                return Some(format!("the segment at {base} is not synced up to {position}"));
            }
            covered = reached;
        }
        (covered < end).then(|| format!("the durable manifest ends at {covered}"))
    }

    /// The segments with a header among those that a manifest calls prepared, by their bases.
    fn begun(&self, manifest: &Manifest, path: &Path) -> Vec<(u64, NodeId)> {
        let files = manifest.prepared.iter().filter_map(|id| self.durable_prepared(*id, path));
        let mut begun: Vec<_> =
            files.filter_map(|(_, node)| Some((self.nodes[node].header_base()?, node))).collect();
        begun.sort_unstable();
        begun
    }

    fn manifest(&self, names: &BTreeMap<PathBuf, NodeId>, path: &Path) -> Option<&Manifest> {
        let node = names.get(&path.with_file_name("MANIFEST"))?;
        self.nodes[*node].manifest.as_ref()
    }

    /// Whether the manifest that is seen names the segment.
    fn is_named(&self, path: &Path) -> bool {
        self.manifest(&self.seen, path).is_some_and(|manifest| manifest.names(path))
    }

    fn base(&self, path: &Path, node: NodeId) -> u64 {
        let named = name(path).split_once('-').and_then(|(digits, _)| digits.parse().ok());
        named.or_else(|| self.nodes[node].header_base()).unwrap_or_default()
    }

    fn note(&mut self, call: String) {
        self.time += 1;
        if self.calls.len() == CALLS_SHOWN {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    fn break_rule(&mut self, what: String) {
        let calls = self.calls.iter().map(|call| format!("\n    {call}")).collect::<String>();
        self.broken.get_or_insert(format!("out of order: {what}; the last calls:{calls}"));
    }
}

impl Node {
    /// Bytes are written, or cut or added behind a length.
    fn change(&mut self, time: u64, range: Range<u64>) {
        self.lost = self.lost.iter().flat_map(|lost| without(lost, &range)).collect();
        self.unsynced.push((time, range));
    }

    /// Where the segment begins, if it has a header.
    fn header_base(&self) -> Option<u64> {
        let mut header = [0; 72];
        read(&*self.file, &mut header, 0);
        header.starts_with(b"STRATSEG").then(|| number(&header, 40))
    }

    /// Whether some byte before `end` is not known to be durable.
    fn is_unsynced(&self, end: u64) -> bool {
        let unsynced = self.unsynced.iter().map(|(_, range)| range);
        unsynced.chain(&self.lost).any(|range| range.start < end)
    }

    /// The end, and end offset, of the first frame that reaches `end`, or of the last one.
    fn walk(&self, base: u64, end: u64) -> (u64, u64) {
        let (mut position, mut offset) = match self.synced_to {
            (position, Some(offset)) if offset <= end => (position, offset),
            _ => (SEGMENT_HEADER, base),
        };
        let mut header = [0; 40];
        while offset < end && read(&*self.file, &mut header, position) == 40 && header[36] == 1 {
            if number(&header, 8) != offset {
                break;
            }
            position += (40 + u64::from(small(&header, 4))).next_multiple_of(8);
            offset += u64::from(small(&header, 24));
        }
        (position, offset)
    }
}

/// What is left of a range when another is taken out of it.
fn without(range: &Range<u64>, taken: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let before = range.start..range.end.min(taken.start);
    let behind = range.start.max(taken.end)..range.end;
    [before, behind].into_iter().filter(|rest| !rest.is_empty())
}
