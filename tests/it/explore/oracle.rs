//! What a log may be: the worlds that agree with all that was done, acknowledged and seen.
//!
//! A world is a log in the plainest way: where it starts, its records in order, and how many of
//! them were acknowledged. What a crash leaves of a world is any prefix of whole units that is no
//! shorter than what was acknowledged at the level that the crash leaves alone. An operation that
//! is under way and changes more than the end (one that deletes, say) makes two worlds, with and
//! without it; when it returns, one of them is left. What was seen after a crash is the one world
//! from then on.
//!
//! Compaction makes one world, in which records *may be gone*: those with a later one of their key,
//! and tombstones, if they go. Whichever of them are missed, the rest must make sense: a value is
//! missed only if a later record of its key is there to have taken its place, and a tombstone only
//! if nothing is left that it hides.

use crate::explore::consumer::Places;
use crate::support::medium::Hash;
use std::fmt;
use std::sync::Arc;
use stratalog::{Entry, Record, Timestamp};

/// A record, and when it can have been appended.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) item: Arc<Item>,
    pub(super) at: (i64, i64),
    /// Whether a unit of records ends with it.
    pub(super) ends_unit: bool,
    pub(super) fate: Fate,
}

/// What compaction has done to a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    #[default]
    There,
    /// It may be gone, if what is left makes sense without it.
    MayBeGone,
    /// It may have gone for the sake of one that was cut off since, or may have gone itself.
    Unknown,
    Gone,
}

/// What is in a record. Each number gives another one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) number: u64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    header: Option<Vec<u8>>,
    timestamp: Option<i64>,
}

impl Item {
    pub(super) fn new(number: u64, len: usize) -> Self {
        let mut value = format!("{number}.").into_bytes();
        let digit = u8::try_from(number % 26).unwrap();
        value.resize(len.max(value.len()), b'a' + digit);
        let is_tombstone = number % 6 == 2 && len < 50;
        Self {
            number,
            // Two keys, with every kind of record behind every other.
            key: (!number.is_multiple_of(3)).then(|| vec![b'k' + u8::from(number % 12 >= 6)]),
            value: (!is_tombstone).then_some(value),
            // One tombstone of a key is not another.
            header: (number % 7 == 3 || is_tombstone).then(|| number.to_string().into_bytes()),
            timestamp: (number % 5 == 4).then_some(-i64::try_from(number).unwrap()),
        }
    }

    pub(super) fn record(&self) -> Record<'_> {
        let mut record = match (&self.value, &self.key) {
            (None, Some(key)) => Record::tombstone(key.as_slice()),
            (value, None) => Record::new(value.as_deref().unwrap_or_default()),
            (Some(value), Some(key)) => Record::new(value.as_slice()).key(key.as_slice()),
        };
        if let Some(header) = &self.header {
            record = record.header("name", header.as_slice());
        }
        if let Some(timestamp) = self.timestamp {
            record = record.timestamp(Timestamp::from_micros(timestamp));
        }
        record
    }

    fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }

    fn is(&self, entry: &Entry<'_>) -> bool {
        let mut headers = entry.headers();
        let header = headers.next().map(|(name, value)| (name, value.to_vec()));
        let expected = self.header.clone().map(|value| ("name", value));
        entry.key() == self.key.as_deref()
            && entry.value() == self.value.as_deref().unwrap_or_default()
            && entry.is_tombstone() == self.value.is_none()
            && entry.timestamp().map(Timestamp::as_micros) == self.timestamp
            && header == expected
            && headers.next().is_none()
    }
}

/// A log that may be.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) start: u64,
    pub(super) rows: Arc<Vec<Row>>,
    /// How many rows were acknowledged as written, or seen: they survive the death of a process.
    pub(super) written: usize,
    /// How many rows were acknowledged as synced, or served by an open: they survive a power cut.
    pub(super) synced: usize,
    /// The latest append time of what was cut off for good: times do not go back over it.
    pub(super) cut_at: i64,
    /// It was closed, and nothing was begun since: opening it has nothing to do.
    pub(super) is_closed: bool,
    /// Where the consumer may stand.
    pub(super) places: Places,
}

impl Default for World {
    fn default() -> Self {
        Self {
            start: 0,
            rows: Arc::default(),
            written: 0,
            synced: 0,
            cut_at: 0,
            is_closed: false,
            places: vec![None],
        }
    }
}

impl World {
    pub(super) fn end(&self) -> u64 {
        self.start + self.rows.len() as u64
    }

    /// No record is appended at an earlier time.
    pub(super) fn last_at(&self) -> i64 {
        self.rows.last().map_or(self.cut_at, |row| row.at.0.max(self.cut_at))
    }

    /// The log when all from `end` on is removed: what stays is durable.
    pub(super) fn truncated(&self, end: u64) -> Self {
        let len = self.nth(end);
        if len == self.rows.len() {
            return self.clone();
        }
        let mut rows = self.rows[..len].to_vec();
        if let Some(last) = rows.last_mut() {
            last.ends_unit = true;
        }
        // The record for whose sake it has gone may be among those that are cut off.
        let gone = rows.iter_mut().filter(|row| row.fate == Fate::MayBeGone);
        gone.for_each(|row| row.fate = Fate::Unknown);
        let (rows, cut_at) = (Arc::new(rows), self.last_at());
        let places = self.places.iter().map(|place| place.map(|at| at.min(end))).collect();
        let mut cut = Self { rows, cut_at, is_closed: false, places, ..self.clone() };
        cut.reached_synced();
        cut
    }

    /// The log when all below `start` is removed. All units that began below it are durable.
    pub(super) fn deleted(&self, start: u64) -> Self {
        if start == self.start {
            return self.clone();
        }
        let len = self.nth(start.min(self.end()));
        let rows = self.rows[len..].to_vec();
        let mut durable = 0;
        if len > 0 && !self.rows[len - 1].ends_unit {
            durable = rows.iter().position(|row| row.ends_unit).map_or(rows.len(), |nth| nth + 1);
        }
        let gone = self.rows[..len].last().map_or(self.cut_at, |row| row.at.0.max(self.cut_at));
        Self {
            start,
            rows: Arc::new(rows),
            written: self.written.saturating_sub(len).max(durable),
            synced: self.synced.saturating_sub(len).max(durable),
            cut_at: gone,
            is_closed: false,
            places: self.places.clone(),
        }
    }

    fn nth(&self, offset: u64) -> usize {
        usize::try_from(offset - self.start).unwrap()
    }

    pub(super) fn push(&mut self, rows: impl IntoIterator<Item = Row>) {
        self.is_closed = false;
        Arc::make_mut(&mut self.rows).extend(rows);
    }

    /// The log while it is compacted, or when that ended early.
    pub(super) fn compacting(&self, tombstones: Tombstones) -> Self {
        self.without_dead(tombstones, Fate::MayBeGone)
    }

    /// The log when all of it has been compacted.
    pub(super) fn compacted(&self, tombstones: Tombstones) -> Self {
        self.without_dead(tombstones, Fate::Gone)
    }

    fn without_dead(&self, tombstones: Tombstones, fate: Fate) -> Self {
        let mut left = self.clone();
        left.is_closed = false;
        // The keys of later records, of those that are there and of those that may be.
        let (mut later, mut perhaps) = (Vec::new(), Vec::new());
        for row in Arc::make_mut(&mut left.rows).iter_mut().rev() {
            let Some(key) = row.item.key.clone().filter(|_| row.fate != Fate::Gone) else {
                continue;
            };
            let goes = tombstones == Tombstones::Go && row.item.is_tombstone();
            let before = row.fate;
            if goes || later.contains(&key) {
                row.fate = fate;
            } else if perhaps.contains(&key) {
                row.fate = Fate::Unknown;
            }
            if before == Fate::There { later.push(key) } else { perhaps.push(key) }
        }
        left
    }

    /// An append was refused: nothing of it is there.
    pub(super) fn take_back(&mut self, len: usize) {
        Arc::make_mut(&mut self.rows).truncate(len);
    }

    pub(super) fn reached_written(&mut self) {
        self.written = self.rows.len();
    }

    pub(super) fn reached_synced(&mut self) {
        self.written = self.rows.len();
        self.synced = self.rows.len();
    }

    /// Whether this can be what is left of the world, and if not, why.
    fn allows(&self, seen: &Seen, floor: usize) -> Result<(), String> {
        let len = seen.len();
        if seen.start != self.start {
            return Err(format!("it starts at {}, not at {}", seen.start, self.start));
        }
        if len < floor {
            return Err(format!("{len} records are left, {floor} were acknowledged"));
        }
        if len > self.rows.len() {
            return Err(format!("{len} records, more than the {} appended", self.rows.len()));
        }
        if len > 0 && !self.rows[len - 1].ends_unit {
            return Err(format!("{len} records, the last of which are a part of a batch"));
        }
        for (nth, (row, spot)) in self.rows.iter().zip(&seen.spots).enumerate() {
            match (spot, row.fate) {
                (None, Fate::Gone | Fate::Unknown) => {}
                (None, Fate::MayBeGone) => self.may_be_missed(nth, seen)?,
                (None, Fate::There) => return Err(format!("record {nth} is gone")),
                (Some(_), Fate::Gone) => return Err(format!("record {nth} is back")),
                (Some((number, at)), _) => {
                    if *number != Some(row.item.number) {
                        return Err(format!("record {nth} is {number:?}, not {}", row.item.number));
                    }
                    if *at < row.at.0 || *at > row.at.1 {
                        return Err(format!("record {nth} is of {at}, not of {:?}", row.at));
                    }
                }
            }
        }
        if !seen.times().is_sorted() {
            return Err(format!("append times go back: {seen:?}"));
        }
        Ok(())
    }

    /// Whether compaction can have removed a record, given what else is seen.
    fn may_be_missed(&self, nth: usize, seen: &Seen) -> Result<(), String> {
        let item = &self.rows[nth].item;
        let mut others = self.rows[..seen.len()].iter().zip(&seen.spots).enumerate();
        let same = |row: &Row| row.item.key == item.key;
        if others.clone().any(|(other, (row, _))| other > nth && same(row)) {
            return Ok(());
        }
        if !item.is_tombstone() {
            return Err(format!("record {nth} is gone, and was the last one of its key"));
        }
        match others.find(|(other, (row, spot))| *other < nth && same(row) && spot.is_some()) {
            Some((other, _)) => Err(format!("record {other} is left, and what deleted it is gone")),
            None => Ok(()),
        }
    }
}

/// What becomes of tombstones that are compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tombstones {
    Go,
    Stay,
}

/// What a log shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) start: u64,
    /// For each offset, if a record is there, the number of the one that was appended, if it is
    /// that bit by bit, and when it was.
    spots: Vec<Option<(Option<u64>, i64)>>,
}

impl Seen {
    pub(super) fn from(start: u64) -> Self {
        Self { start, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.spots.len()
    }

    pub(super) fn push(&mut self, entry: &Entry<'_>, expected: &Expected) {
        let (_, number, at) = Self::at(self.len(), entry, expected);
        self.spots.push(Some((number, at)));
    }

    /// There is nothing up to an offset.
    pub(super) fn skip_to(&mut self, offset: u64) {
        let len = usize::try_from(offset.saturating_sub(self.start)).unwrap();
        self.spots.resize(len.max(self.len()), None);
    }

    pub(super) fn has(&self, nth: usize) -> bool {
        self.spots.get(nth).is_some_and(Option::is_some)
    }

    fn times(&self) -> impl Iterator<Item = i64> {
        self.spots.iter().flatten().map(|(_, at)| *at)
    }

    /// What is seen in one place.
    pub(super) fn at(nth: usize, entry: &Entry<'_>, expected: &Expected) -> Spot {
        let mut rows = expected.0.iter().filter_map(|world| world.rows.get(nth));
        let row = rows.find(|row| row.item.is(entry));
        (nth, row.map(|row| row.item.number), entry.appended_at().as_micros())
    }

    pub(super) fn is_at(&self, (nth, number, at): &Spot) -> bool {
        self.spots.get(*nth) == Some(&Some((*number, *at)))
    }
}

/// A place, the number of the record that is there, and when it was appended.
pub(super) type Spot = (usize, Option<u64>, i64);

/// What survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The process dies: what was written stays.
    Kill,
    /// The power is cut: what was synced stays.
    Power,
}

/// The worlds that may be, at least one.
#[derive(Clone, Debug)]
pub(super) struct Expected(Vec<World>);

impl Expected {
    pub(super) fn new(world: World) -> Self {
        Self(vec![world])
    }

    /// With and without an operation of which nobody knows whether it took place. The world
    /// without it, which promises less, comes first.
    pub(super) fn either(without: World, with: Option<World>) -> Self {
        Self([without].into_iter().chain(with).collect())
    }

    /// What a crash of that kind may leave.
    pub(super) fn after(mut self, kind: Kind) -> Self {
        for world in &mut self.0 {
            if kind == Kind::Power {
                world.written = world.synced;
            }
        }
        self
    }

    /// Whether a log was closed in every world.
    pub(super) fn is_closed(&self) -> bool {
        self.0.iter().all(|world| world.is_closed)
    }

    /// Checks what an open shows, and gives the one world that it leaves.
    pub(super) fn check(&self, seen: &Seen) -> Result<World, String> {
        let mut why = String::new();
        for world in &self.0 {
            // What is written is in the operating system's hands, and was not taken from them yet.
            match world.allows(seen, world.written) {
                Ok(()) => return Ok(settle(world, seen)),
                Err(wrong) => why = wrong,
            }
        }
        Err(format!("{why}; expected {self}"))
    }

    /// A number that differs for other expectations.
    pub(super) fn hash(&self, hash: &mut Hash) {
        for world in &self.0 {
            hash.number(world.start);
            hash.number(world.written as u64);
            hash.number(world.synced as u64);
            hash.number(world.cut_at.cast_unsigned());
            hash.number(u64::from(world.is_closed));
            for place in &world.places {
                hash.number(place.map_or(u64::MAX, |at| at));
            }
            for row in world.rows.iter() {
                hash.number(row.item.number * 2 + u64::from(row.ends_unit));
                hash.number(row.fate as u64);
            }
        }
    }
}

/// What is left is all there is, and it is durable.
fn settle(world: &World, seen: &Seen) -> World {
    let mut rows = world.rows[..seen.len()].to_vec();
    for (row, spot) in rows.iter_mut().zip(&seen.spots) {
        match spot {
            Some((_, at)) => (row.at, row.fate) = ((*at, *at), Fate::There),
            None => row.fate = Fate::Gone,
        }
    }
    let is_closed = world.is_closed && rows.len() == world.rows.len();
    let mut settled = World { rows: Arc::new(rows), is_closed, ..world.clone() };
    settled.reached_synced();
    settled
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, world) in self.0.iter().enumerate() {
            let or = if nth == 0 { "" } else { ", or " };
            let number = |row: &Row| match row.fate {
                Fate::There => row.item.number.to_string(),
                Fate::MayBeGone | Fate::Unknown => format!("{}?", row.item.number),
                Fate::Gone => "-".to_owned(),
            };
            let numbers = world.rows.iter().map(number).collect::<Vec<_>>().join(" ");
            let (written, synced, start) = (world.written, world.synced, world.start);
            write!(f, "{or}from {start} on [{numbers}], {written} written, {synced} synced")?;
        }
        Ok(())
    }
}
