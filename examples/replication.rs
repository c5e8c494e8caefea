//! Replication without a network: a leader ships its log, is killed, a follower takes over, and the
//! old leader comes back, finds out where the two parted, and follows.
//!
//! Told twice, since there are two things to put into the log. *Primary-backup*: the leader does
//! the work and logs its results; followers take them over. *State machine replication*: the leader
//! logs what it was asked, and everybody does the same work. The first allows work that comes out
//! differently each time (here: drawing lots), the second work whose results are large.
//!
//! Each record carries in its headers the id of the request it came of, and a Lamport timestamp,
//! which goes on over a change of leaders. `cargo run --example replication`.

#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use stratalog::{Durability, Entry, ErrorKind, Log, Offset, Options, Record, Seek};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How much is shipped at a time; a frame at least.
const SHIPPED_BYTES: usize = 64 << 10;

/// What somebody asks for: a number of points for a name, or lots to be drawn for them.
struct Request {
    id: &'static str,
    name: &'static str,
    points: Option<u64>,
}

const fn asks(id: &'static str, name: &'static str, points: Option<u64>) -> Request {
    Request { id, name, points }
}

/// What the log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Results,
    Inputs,
}

/// The state that is replicated, made of nothing but the log.
#[derive(Debug, Default, PartialEq, Eq)]
struct Table {
    points: BTreeMap<String, u64>,
    /// The highest Lamport timestamp that was seen.
    lamport: u64,
}

impl Table {
    /// Takes over a record: a result as it is, an input by doing what it says.
    fn apply(&mut self, style: Style, entry: &Entry<'_>) -> Result<()> {
        let name = String::from_utf8(entry.key().ok_or("no name")?.to_vec())?;
        let number: u64 = std::str::from_utf8(entry.value())?.parse()?;
        let before = self.points.get(&name).copied().unwrap_or_default();
        let after = if style == Style::Results { number } else { before + number };
        self.points.insert(name, after);
        self.lamport = self.lamport.max(header(entry, "lamport")?.parse()?);
        Ok(())
    }

    /// The record for a request.
    fn record(&self, style: Style, request: &Request, lots: u64) -> Record<'static> {
        let points = request.points.unwrap_or(lots);
        let before = self.points.get(request.name).copied().unwrap_or_default();
        let number = match style {
            Style::Results => before + points,
            Style::Inputs => points,
        };
        Record::new(number.to_string())
            .key(request.name)
            .header("request", request.id)
            .header("lamport", (self.lamport + 1).to_string())
    }
}

/// A replica: its log, and the table that it has made of it so far.
struct Node {
    name: &'static str,
    dir: PathBuf,
    style: Style,
    log: Log,
    table: Table,
    applied: Offset,
}

impl Node {
    fn open(name: &'static str, dir: PathBuf, style: Style) -> Result<Self> {
        // A record is safe when the follower has it, too; the disk may take its time.
        let log = Options::new().durability(Durability::Written).open(&dir)?;
        let applied = log.start_offset();
        let mut node = Self { name, dir, style, log, table: Table::default(), applied };
        node.catch_up()?;
        Ok(node)
    }

    /// Brings the table up to the log.
    fn catch_up(&mut self) -> Result<()> {
        let mut cursor = self.log.cursor(Seek::Offset(self.applied))?;
        while let Some(entry) = cursor.next()? {
            self.table.apply(self.style, &entry)?;
            self.applied = entry.offset() + 1;
        }
        Ok(())
    }

    /// The leader's part: into the log first, then into the table.
    fn serve(&mut self, request: &Request) -> Result<Offset> {
        // Drawn before it is logged, since no two of them would draw the same.
        let lots = 1 + self.dir.as_os_str().len() as u64 % 6;
        let offset = self.log.append(self.table.record(self.style, request, lots))?;
        self.catch_up()?;
        Ok(offset)
    }

    /// Takes what the leader has and this one has not.
    fn follow(&mut self, leader: &Self) -> Result<()> {
        loop {
            // Over a network: ask for `from`, and get these bytes.
            let from = self.log.end_offset();
            let bytes = leader.log.frames(from, SHIPPED_BYTES)?.into_bytes();
            if bytes.is_empty() {
                return self.catch_up();
            }
            let range = self.log.append_frames(&bytes)?;
            let (name, len) = (self.name, bytes.len());
            println!("  {name} takes offsets {} to {} ({len} bytes)", range.start, range.end);
        }
    }

    /// What is left when its process is killed: the files as they are, nothing closed.
    fn kill(self, to: PathBuf) -> Result<PathBuf> {
        copy_files(&self.dir, &to)?;
        Ok(to)
    }

    /// The end of what this log and the leader's have in common: back, in steps that double, to a
    /// frame that begins alike, and from there on to the first difference.
    fn common_end(&self, leader: &Self) -> Result<Offset> {
        let start = self.log.start_offset().max(leader.log.start_offset());
        let end = self.log.end_offset().min(leader.log.end_offset());
        let (mut from, mut step) = (end, 1);
        while from > start {
            from = end.checked_sub(step).unwrap_or(start).max(start);
            let frame = leader.log.frames(from, 0)?;
            if self.log.diverges_from(frame.as_bytes())? != Some(from) {
                break;
            }
            step *= 2;
        }
        while from < end {
            let frames = leader.log.frames(from, SHIPPED_BYTES)?;
            if let Some(parted) = self.log.diverges_from(frames.as_bytes())? {
                return Ok(parted);
            }
            from = frames.range().end;
        }
        Ok(end)
    }

    fn show(&self) {
        let Self { name, table, log, .. } = self;
        println!(
            "  {name} ends at {}, lamport {}: {:?}",
            log.end_offset(),
            table.lamport,
            table.points
        );
    }
}

fn main() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    println!("primary-backup: the log holds results");
    fail_over(&scratch.path().join("results"), Style::Results)?;
    println!("state machine replication: the log holds inputs");
    fail_over(&scratch.path().join("inputs"), Style::Inputs)?;
    println!("both ended with replicas that are alike");
    Ok(())
}

fn fail_over(scratch: &Path, style: Style) -> Result<()> {
    fs::create_dir(scratch)?;
    let mut anna = Node::open("anna", scratch.join("anna"), style)?;
    let mut bert = Node::open("bert", scratch.join("bert"), style)?;

    println!(" anna leads");
    for request in [asks("r1", "x", Some(5)), asks("r2", "y", Some(7)), asks("r3", "x", None)] {
        anna.serve(&request)?;
        bert.follow(&anna)?;
    }

    println!(" anna takes two more, and is killed before they are shipped");
    anna.serve(&asks("r4", "y", Some(100)))?;
    anna.serve(&asks("r5", "x", Some(100)))?;
    anna.show();
    let remains = anna.kill(scratch.join("anna-again"))?;

    println!(" bert takes over; who asked for r4 was never answered, and asks again");
    for request in [asks("r6", "z", None), asks("r4", "y", Some(100)), asks("r7", "x", Some(1))] {
        bert.serve(&request)?;
    }
    bert.show();

    println!(" anna is back");
    let anna = Node::open("anna", remains, style)?;
    println!("  recovery: {}", anna.log.recovery());
    anna.show();
    let common = anna.common_end(&bert)?;
    println!("  anna and bert have all below {common} in common; anna is cut there");
    anna.log.truncate_to(common)?;
    let mut anna = Node::open("anna", close(anna)?, style)?;
    anna.follow(&bert)?;
    anna.show();

    if anna.table != bert.table {
        return Err(format!("{:?} is not {:?}", anna.table, bert.table).into());
    }
    check_causes(&anna.log)?;
    match anna.log.append_frames(bert.log.frames(Offset::ZERO, SHIPPED_BYTES)?.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::Conflict => {
            println!("  frames that anna has are refused: {error}");
        }
        other => return Err(format!("taken twice: {other:?}").into()),
    }
    Ok(())
}

/// Each request is there once, and timestamps rise with the offsets, also where the leader changed.
fn check_causes(log: &Log) -> Result<()> {
    let (mut requests, mut last) = (Vec::new(), 0);
    for entry in log.iter(Seek::Start)? {
        let entry = entry?;
        let lamport: u64 = header(&entry.as_entry(), "lamport")?.parse()?;
        if lamport <= last {
            return Err(format!("timestamp {lamport} behind {last}").into());
        }
        last = lamport;
        requests.push(format!("{}@{lamport}", header(&entry.as_entry(), "request")?));
    }
    println!("  what caused what: {}", requests.join(" "));
    Ok(())
}

fn header(entry: &Entry<'_>, name: &str) -> Result<String> {
    let found = entry.headers().find(|(found, _)| *found == name);
    let (_, value) = found.ok_or_else(|| format!("no header {name}"))?;
    Ok(String::from_utf8(value.to_vec())?)
}

/// Closes the log of a node, whose table holds what is no longer in it.
fn close(node: Node) -> Result<PathBuf> {
    node.log.close()?;
    Ok(node.dir)
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}
