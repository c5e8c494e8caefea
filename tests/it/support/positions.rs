//! The rules of order for the positions of consumers, beside those of `support/rules.rs`.
//!
//! | call | rule |
//! |---|---|
//! | write of a slot | The other slot is synced. |
//! | | It is not the one that counts, unless the same bytes are there. |
//! | | All below its position is durable in the log. |
//! | sync | Never again through an open file for which it failed. |
//! | rename to a name | The whole file is synced. |
//! | create, rename | Not after a sync of the directory failed. |
//! | rename to `MANIFEST` | With a truncation in it: no slot leads behind its end. |
//! | *told: committed* | The slot that counts says so and is synced, under a durable name. |

use std::collections::BTreeMap;
use std::io::Result;
use std::path::{Path, PathBuf};
use stratalog::storage::{File, OpenMode};

const SLOT: usize = 64;
const SLOTS: [u64; 2] = [0, 4096];

#[derive(Debug, Default)]
pub(crate) struct Positions {
    files: BTreeMap<PathBuf, Position>,
    names: Names,
    broken: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Names {
    #[default]
    Sound,
    Failed,
}

#[derive(Clone, Copy, Debug)]
struct Position {
    slots: [Slot; 2],
    sync: Sync,
    name: Name,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sync {
    Works,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Durable,
    Pending,
}

/// What is durable in a slot; `None` if nobody knows.
type Slot = Option<[u8; SLOT]>;

/// Whether a path is that of a position.
pub(crate) fn is_position(path: &Path) -> bool {
    path.parent().is_some_and(is_directory)
}

/// Whether a path is that of the directory of positions.
pub(crate) fn is_directory(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "consumers")
}

impl Positions {
    pub(crate) fn broken(&self) -> Option<String> {
        self.broken.clone()
    }

    /// A log is being opened.
    pub(crate) fn start(&mut self) {
        self.names = Names::Sound;
    }

    pub(crate) fn opened(&mut self, path: &Path, mode: OpenMode, file: &dyn File) {
        if mode == OpenMode::Create {
            self.named(path);
            let (slots, sync, name) = ([Some([0; SLOT]); 2], Sync::Works, Name::Pending);
            self.files.insert(path.to_owned(), Position { slots, sync, name });
            return;
        }
        let adopted = || Position {
            slots: SLOTS.map(|at| Some(read(file, at))),
            sync: Sync::Works,
            name: Name::Durable,
        };
        self.files.entry(path.to_owned()).or_insert_with(adopted).sync = Sync::Works;
    }

    /// `why_not` says why not all below an offset is durable in the log.
    pub(crate) fn before_write(
        &mut self,
        path: &Path,
        bytes: &[u8],
        at: u64,
        why_not: impl FnOnce(u64) -> Option<String>,
    ) {
        let Some(position) = self.files.get_mut(path) else { return };
        if path.ends_with(".next") {
            position.slots = [None; 2];
            return;
        }
        let nth = usize::from(at >= SLOTS[1]);
        let [this, other] = [position.slots[nth], position.slots[1 - nth]];
        position.slots[nth] = None;
        let mut broken = Vec::new();
        if at != SLOTS[nth] || bytes.len() != SLOT {
            broken.push(format!("{} bytes are written at {at}", bytes.len()));
        }
        if other.is_none() {
            broken.push("the other slot is not synced".to_owned());
        }
        let counts = this.is_some_and(|this| {
            this != bytes && other.is_some_and(|other| number(&this, 32) > number(&other, 32))
        });
        if counts {
            broken.push("the slot that counts is overwritten".to_owned());
        }
        if let Some(why) = why_not(number(bytes, 40)) {
            broken.push(format!("it is ahead of the log: {why}"));
        }
        if let Some(what) = broken.first() {
            self.break_rule(format!("{}: {what}", path.display()));
        }
    }

    pub(crate) fn before_sync(&mut self, path: &Path) {
        if self.files.get(path).is_some_and(|position| position.sync == Sync::Failed) {
            self.break_rule(format!("{} is synced after its sync failed", path.display()));
        }
    }

    pub(crate) fn synced(&mut self, path: &Path, file: &dyn File, result: &Result<()>) {
        let Some(position) = self.files.get_mut(path) else { return };
        if result.is_ok() {
            position.slots = SLOTS.map(|at| Some(read(file, at)));
        } else {
            position.sync = Sync::Failed;
        }
    }

    pub(crate) fn renamed(&mut self, from: &Path, to: &Path) {
        self.named(to);
        let Some(position) = self.files.remove(from) else { return };
        if position.slots.contains(&None) || position.sync == Sync::Failed {
            self.break_rule(format!("{} gets its name before it is synced", to.display()));
        }
        self.files.insert(to.to_owned(), Position { name: Name::Pending, ..position });
    }

    pub(crate) fn removed(&mut self, path: &Path) {
        self.files.remove(path);
    }

    pub(crate) fn synced_dir(&mut self, result: &Result<()>) {
        if result.is_err() {
            self.names = Names::Failed;
            return;
        }
        self.files.values_mut().for_each(|position| position.name = Name::Durable);
    }

    /// The log is about to end there, if the manifest gets its name.
    pub(crate) fn before_cut(&mut self, end: u64) {
        let mut ahead = None;
        for (path, position) in &self.files {
            let leads = |slot: &Slot| slot.is_none_or(|slot| number(&slot, 40) > end);
            if !path.ends_with(".next") && position.slots.iter().any(leads) {
                ahead = Some(format!("{} leads behind a cut at {end}", path.display()));
            }
        }
        ahead.into_iter().for_each(|what| self.break_rule(what));
    }

    /// The consumer said that it has committed that.
    pub(crate) fn committed(&mut self, path: &Path, to: u64) {
        let found = self.files.get(path).map(|position| {
            let slots = position.slots.iter().flatten();
            let counts = slots.max_by_key(|slot| number(*slot, 32));
            (counts.map(|slot| number(slot, 40)), position.name)
        });
        if found != Some((Some(to), Name::Durable)) {
            self.break_rule(format!("{} committed {to}, durable is {found:?}", path.display()));
        }
    }

    fn named(&mut self, path: &Path) {
        if self.names == Names::Failed {
            self.break_rule(format!("{} gets a name after names failed", path.display()));
        }
    }

    fn break_rule(&mut self, what: String) {
        self.broken.get_or_insert(format!("out of order: {what}"));
    }
}

fn read(file: &dyn File, at: u64) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    let mut done = 0;
    while let Ok(count) = file.read_at(&mut slot[done..], at + done as u64)
        && count > 0
    {
        done += count;
    }
    slot
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
}
