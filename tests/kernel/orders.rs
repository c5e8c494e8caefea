//! What a process of these tests is told to do, as one line of text in its environment.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::str::FromStr;
use stratalog::Durability;
use stratalog::Options;
use stratalog::ReadMode;

#[derive(Clone, Debug)]
pub(crate) struct Orders {
    pub(crate) path: PathBuf,
    /// Each process that appends has another one.
    pub(crate) life: u64,
    pub(crate) level: Durability,
    pub(crate) mode: ReadMode,
    pub(crate) threads: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) task: Task,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Say what is there, append for ever, close and open now and then; end at the first failure.
    Append,
    /// The same without saying what is there.
    AppendUnseen,
    /// As `Append`, but after a failure see that reading goes on, open again and go on.
    Persist,
    /// Say what is there, append a little, close.
    Check,
    /// Append until the disk is full, and see what is left of the log.
    Fill,
}

const LEVELS: [(&str, Durability); 3] = [
    ("buffered", Durability::Buffered),
    ("written", Durability::Written),
    ("synced", Durability::Synced),
];
const MODES: [(&str, ReadMode); 2] = [("map", ReadMode::Map), ("pread", ReadMode::Pread)];
const TASKS: [(&str, Task); 5] = [
    ("append", Task::Append),
    ("append-unseen", Task::AppendUnseen),
    ("persist", Task::Persist),
    ("check", Task::Check),
    ("fill", Task::Fill),
];

impl Orders {
    pub(crate) fn options(&self) -> Options {
        Options::new().segment_bytes(self.segment_bytes).durability(self.level).read_mode(self.mode)
    }
}

impl Display for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (level, mode) = (name(&LEVELS, self.level), name(&MODES, self.mode));
        let (task, path) = (name(&TASKS, self.task), self.path.display());
        let Self { life, threads, segment_bytes, .. } = self;
        write!(f, "{life} {level} {mode} {threads} {segment_bytes} {task} {path}")
    }
}

impl FromStr for Orders {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let parts: Vec<&str> = text.splitn(7, ' ').collect();
        let [life, level, mode, threads, segment_bytes, task, path] = parts[..] else {
            return Err("not orders");
        };
        let number = |text: &str| text.parse().map_err(|_| "not a number");
        Ok(Self {
            path: path.into(),
            life: number(life)?,
            level: value(&LEVELS, level).ok_or("no such level")?,
            mode: value(&MODES, mode).ok_or("no such mode")?,
            threads: number(threads)?,
            segment_bytes: number(segment_bytes)?,
            task: value(&TASKS, task).ok_or("no such task")?,
        })
    }
}

fn name<T: PartialEq>(names: &[(&'static str, T)], value: T) -> &'static str {
    names.iter().find(|(_, other)| *other == value).expect("it has a name").0
}

fn value<T: Copy>(names: &[(&str, T)], name: &str) -> Option<T> {
    names.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
}
