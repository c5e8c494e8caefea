//! What a power cut leaves: every way in which it can, as a value that can be written down.
//!
//! The pending changes of a disk are *units*: a change of names, a cut of a file, a piece of a
//! write. Any set of them may get through; the lengths of files are chosen apart from that, out of
//! those that the files had; and bytes that nobody wrote are zeros or garbage.

use crate::support::medium::Change;
use crate::support::medium::Crash;
use crate::support::medium::Medium;
use crate::support::medium::NodeId;
use crate::support::medium::Numbers;
use crate::support::medium::put;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The sizes of the pieces that a write is torn into.
pub(crate) const GRAINS: [usize; 3] = [4096, 512, 64];

/// Whole writes, whatever their length.
pub(crate) const WHOLE: usize = usize::MAX;

/// So many pieces one write is torn into at most: else they are made larger.
const PIECES_MAX: usize = 24;

/// All sets of so few units are tried.
const EXHAUSTIVE_MAX: usize = 6;

/// What gets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) grain: usize,
    pub(crate) fill: Fill,
    /// Of files with pending changes, by their place among them: which of their lengths, counted
    /// from the durable one on. The others are as long as what got through needs.
    pub(crate) sizes: Vec<(usize, usize)>,
    /// For each unit, in the order of time.
    pub(crate) kept: Vec<bool>,
}

/// What bytes are that belong to a file and were never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    Zeros,
    Garbage,
}

/// The units of a disk at one grain, in the order of time.
#[derive(Debug)]
pub(crate) struct Units {
    grain: usize,
    units: Vec<Unit>,
    /// The files with pending changes, and the lengths they had.
    files: Vec<(NodeId, Vec<usize>)>,
}

#[derive(Debug)]
struct Unit {
    order: (u64, usize),
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Name(usize),
    Len(NodeId, usize),
    Piece(NodeId, usize, (usize, usize)),
}

impl Units {
    pub(crate) fn of(medium: &Medium, grain: usize) -> Self {
        let mut units = Vec::new();
        for (nth, (stamp, _)) in medium.namings().iter().enumerate() {
            units.push(Unit { order: (*stamp, 0), what: What::Name(nth) });
        }
        let mut files = Vec::new();
        for id in medium.reachable() {
            let node = medium.contents(id);
            if node.pending.is_empty() {
                continue;
            }
            let mut sizes = vec![node.durable.len()];
            for (nth, (stamp, change)) in node.pending.iter().enumerate() {
                let last = *sizes.last().unwrap_or(&0);
                let size = match change {
                    Change::SetLen(len) => {
                        units.push(Unit { order: (*stamp, 0), what: What::Len(id, nth) });
                        *len
                    }
                    Change::Write { at, data, len_before } => {
                        let pieces = pieces(*at, data, *len_before, grain);
                        units.extend(pieces.into_iter().map(|(from, to)| Unit {
                            order: (*stamp, from),
                            what: What::Piece(id, nth, (from, to)),
                        }));
                        last.max(at + data.len())
                    }
                };
                if !sizes.contains(&size) {
                    sizes.push(size);
                }
            }
            files.push((id, sizes));
        }
        units.sort_by_key(|unit| unit.order);
        Self { grain, units, files }
    }

    pub(crate) fn len(&self) -> usize {
        self.units.len()
    }

    /// The disk after the power cut.
    pub(crate) fn image(&self, medium: &Medium, choice: &Choice) -> Medium {
        let fill = choice.fill;
        let mut names = medium.names().clone();
        let durable = |(id, _): &(NodeId, _)| (*id, medium.contents(*id).durable.to_vec());
        let mut torn: Vec<(NodeId, Vec<u8>)> = self.files.iter().map(durable).collect();
        let kept = self.units.iter().zip(&choice.kept).filter(|(_, kept)| **kept);
        for (unit, _) in kept {
            match unit.what {
                What::Name(nth) => medium.namings()[nth].1.apply(&mut names),
                What::Len(id, nth) => {
                    let Change::SetLen(len) = medium.contents(id).pending[nth].1 else { continue };
                    resize(contents(&mut torn, id), len, fill);
                }
                What::Piece(id, nth, (from, to)) => {
                    let pending = &medium.contents(id).pending[nth].1;
                    let Change::Write { at, data, .. } = pending else { continue };
                    let bytes = contents(&mut torn, id);
                    put(bytes, from, &data[from - at..to - at], |at| fill.byte(at));
                }
            }
        }
        for (place, nth) in &choice.sizes {
            resize(&mut torn[*place].1, self.files[*place].1[*nth], fill);
        }
        let mut torn: Vec<_> = torn.into_iter().map(|(id, bytes)| (id, Arc::new(bytes))).collect();
        let mut bytes = |id: NodeId| match torn.iter_mut().find(|(other, _)| *other == id) {
            Some((_, bytes)) => Arc::clone(bytes),
            None => Arc::clone(&medium.contents(id).durable),
        };
        let files = names.into_iter().map(|(path, id)| (path, bytes(id))).collect();
        Medium::of_files(medium, files)
    }

    pub(crate) fn choice(&self, kept: impl Fn(usize) -> bool) -> Choice {
        let kept = (0..self.units.len()).map(kept).collect();
        Choice { grain: self.grain, fill: Fill::Zeros, sizes: Vec::new(), kept }
    }

    /// Different choices, as many as asked for if there are so many: all of them if they are few,
    /// else the telling ones first and then others by the throw of a die.
    pub(crate) fn choices(&self, count: usize, numbers: &mut Numbers) -> Vec<Choice> {
        let sets = self.sets(count, numbers);
        let tails = self.tails();
        let all = sets.len() * tails.len();
        let one = |nth: usize| {
            let (sizes, fill) = tails[nth / sets.len()].clone();
            Choice { fill, sizes, ..self.choice(|unit| sets[nth % sets.len()][unit]) }
        };
        if all <= count {
            return (0..all).map(one).collect();
        }
        // Half of them in order, which are those with the lengths that follow from the sets.
        let first = (count / 2).min(sets.len());
        let mut die = || usize::try_from(numbers.below(all as u64)).unwrap();
        (0..count).map(|nth| one(if nth < first { nth } else { die() })).collect()
    }

    /// Sets of units: nothing and everything first.
    fn sets(&self, count: usize, numbers: &mut Numbers) -> Vec<Vec<bool>> {
        let len = self.units.len();
        let set = |keeps: &dyn Fn(usize) -> bool| (0..len).map(keeps).collect::<Vec<_>>();
        let mut sets = vec![set(&|_| false), set(&|_| true)];
        if len <= EXHAUSTIVE_MAX {
            let others = 1..(1_usize << len).saturating_sub(1);
            sets.extend(others.map(|mask| set(&|nth| mask >> nth & 1 == 1)));
            return sets;
        }
        let mut telling = Vec::new();
        for nth in 0..len {
            telling.push(set(&|other| other == nth));
            telling.push(set(&|other| other != nth));
            telling.push(set(&|other| other < nth));
        }
        // In another order each time, so that a small count does not always mean the same.
        while !telling.is_empty() {
            let nth = usize::try_from(numbers.below(telling.len() as u64)).unwrap();
            sets.push(telling.swap_remove(nth));
        }
        for _ in 0..count {
            let odds = *numbers.pick(&[1, 2, 4, 6, 7]);
            sets.push((0..len).map(|_| numbers.below(8) < odds).collect());
        }
        sets
    }

    /// Lengths and fillings that go with every set.
    fn tails(&self) -> Vec<(Vec<(usize, usize)>, Fill)> {
        let mut lens = vec![Vec::new()];
        let each = |nth: &dyn Fn(&[usize]) -> usize| {
            let files = self.files.iter().enumerate();
            files.map(|(place, (_, sizes))| (place, nth(sizes))).collect::<Vec<_>>()
        };
        lens.push(each(&|sizes| sizes.len() - 1));
        lens.push(each(&|_| 0));
        for (place, (_, sizes)) in self.files.iter().enumerate() {
            lens.extend((0..sizes.len()).map(|nth| vec![(place, nth)]));
        }
        let fills = [Fill::Zeros, Fill::Garbage];
        let tails = lens.into_iter().flat_map(|len| fills.map(|fill| (len.clone(), fill)));
        tails.collect()
    }
}

impl Medium {
    /// The disk after a power cut, as a test that does not look for all of them wants it.
    pub(crate) fn after(&self, how: Crash) -> Self {
        let units = Units::of(self, if matches!(how, Crash::Random(_)) { 512 } else { WHOLE });
        let choice = match how {
            Crash::KeepAll => units.choice(|_| true),
            Crash::DropUnsynced => units.choice(|_| false),
            Crash::Prefix(seed) => units.prefixes(&mut Numbers(seed)),
            Crash::Random(seed) => units.random(&mut Numbers(seed)),
        };
        units.image(self, &choice)
    }
}

impl Units {
    /// Of the names and of each file a first part.
    fn prefixes(&self, numbers: &mut Numbers) -> Choice {
        let list = |unit: &Unit| match unit.what {
            What::Name(_) => None,
            What::Len(id, _) | What::Piece(id, ..) => Some(id),
        };
        let mut lists: Vec<_> = self.units.iter().map(list).collect();
        lists.sort();
        lists.dedup();
        let mut first = Vec::new();
        for of in lists {
            let len = self.units.iter().filter(|unit| list(unit) == of).count() as u64;
            first.push((of, numbers.below(len + 1)));
        }
        let kept = self.units.iter().map(|unit| {
            let left = first.iter_mut().find(|(of, _)| *of == list(unit));
            let (_, left) = left.expect("every unit is of a list");
            let keeps = *left > 0;
            *left = left.saturating_sub(1);
            keeps
        });
        let kept = kept.collect();
        Choice { kept, ..self.choice(|_| false) }
    }

    /// One of all, each time in another way.
    pub(crate) fn any(&self, numbers: &mut Numbers) -> Choice {
        let telling = numbers.below(2) == 0;
        let choice = telling.then(|| self.choices(1, numbers).pop()).flatten();
        choice.unwrap_or_else(|| self.random(numbers))
    }

    /// By the throw of a die, lengths of several files among it.
    fn random(&self, numbers: &mut Numbers) -> Choice {
        let odds = *numbers.pick(&[1, 4, 7]);
        let kept = self.units.iter().map(|_| numbers.below(8) < odds).collect();
        let mut sizes = Vec::new();
        for (place, (_, lens)) in self.files.iter().enumerate() {
            if numbers.next().is_multiple_of(2) {
                sizes.push((place, usize::try_from(numbers.below(lens.len() as u64)).unwrap()));
            }
        }
        Choice { kept, sizes, ..self.choice(|_| false) }
    }
}

fn contents(torn: &mut [(NodeId, Vec<u8>)], id: NodeId) -> &mut Vec<u8> {
    let found = torn.iter_mut().find(|(other, _)| *other == id);
    &mut found.expect("a file with units").1
}

fn resize(bytes: &mut Vec<u8>, len: usize, fill: Fill) {
    bytes.truncate(len);
    bytes.extend((bytes.len()..len).map(|at| fill.byte(at)));
}

/// Cuts a write at multiples of the grain. Zeros that make a file longer are one piece: without
/// them it is as if they were there, but for the length.
fn pieces(at: usize, data: &[u8], len_before: usize, grain: usize) -> Vec<(usize, usize)> {
    let end = at + data.len();
    if grain == WHOLE || (at >= len_before && data.iter().all(|byte| *byte == 0)) {
        return vec![(at, end)];
    }
    let mut grain = grain;
    while data.len() / grain >= PIECES_MAX {
        grain *= 2;
    }
    let mut pieces = Vec::new();
    let mut from = at;
    while from < end {
        let to = end.min((from / grain + 1) * grain);
        pieces.push((from, to));
        from = to;
    }
    pieces
}

impl Fill {
    fn byte(self, at: usize) -> u8 {
        match self {
            Self::Zeros => 0,
            Self::Garbage => u8::try_from((at * 131 + (at >> 6) + 7) % 255).unwrap() | 1,
        }
    }
}

/// `grain:fill:sizes:units`, such as `64:z:0.2+1.0:10110`.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fill = if self.fill == Fill::Zeros { 'z' } else { 'g' };
        let sizes: Vec<_> = self.sizes.iter().map(|(file, nth)| format!("{file}.{nth}")).collect();
        let kept: String = self.kept.iter().map(|kept| if *kept { '1' } else { '0' }).collect();
        write!(f, "{}:{fill}:{}:{kept}", self.grain, sizes.join("+"))
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("not a choice: {text}");
        let parts: Vec<_> = text.split(':').collect();
        let [grain, fill, sizes, kept] = parts[..] else { return Err(wrong()) };
        let pair = |size: &str| {
            let (file, nth) = size.split_once('.').ok_or_else(wrong)?;
            Ok((file.parse().map_err(|_| wrong())?, nth.parse().map_err(|_| wrong())?))
        };
        let sizes = sizes.split('+').filter(|size| !size.is_empty()).map(pair);
        Ok(Self {
            grain: grain.parse().map_err(|_| wrong())?,
            fill: if fill == "z" { Fill::Zeros } else { Fill::Garbage },
            sizes: sizes.collect::<Result<_, String>>()?,
            kept: kept.chars().map(|kept| kept == '1').collect(),
        })
    }
}
