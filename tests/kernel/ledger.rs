//! What a log must hold, by what its processes said; and whether it does.

use crate::stamp::Stamp;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// What was acknowledged, by the offset of its first record.
    acknowledged: BTreeMap<u64, Stamp>,
    /// Below it everything outlives a process.
    written_end: u64,
    /// Below it everything outlives a power cut.
    synced_end: u64,
    /// What was found the last time, and made durable before it was shown.
    found: Vec<Stamp>,
    /// Whether closing it was the last that was heard of it.
    is_closed: bool,
    /// What must be found the next time, to the last record.
    expected: Option<Vec<Stamp>>,
    pub(crate) tally: Tally,
}

/// What happened, for the report.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) acknowledged: u64,
    pub(crate) openings: u64,
    pub(crate) closes: u64,
    pub(crate) torn_tails: u64,
    pub(crate) failures: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.openings += other.openings;
        self.closes += other.closes;
        self.torn_tails += other.torn_tails;
        self.failures += other.failures;
    }
}

impl Ledger {
    /// The same log from now on, but without the power since the last word.
    pub(crate) fn power_was_cut(&mut self) {
        self.written_end = self.synced_end;
    }

    /// Somebody opened a copy of the log, and put it down in `copy`: there is just that to find.
    pub(crate) fn expect_as(&mut self, copy: &Self) {
        self.expected = Some(copy.found.clone());
        self.tally = copy.tally;
    }

    pub(crate) fn put_down(&mut self, said: &str) {
        let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
        match word {
            "written" | "synced" => self.acknowledge(word, rest),
            "durable" => self.synced_end = self.synced_end.max(rest.parse().unwrap()),
            "found" => self.check(&stamps(rest), Sight::Opened),
            "still-synced" => self.check(&stamps(rest), Sight::Durable),
            "still-written" => self.check(&stamps(rest), Sight::Written),
            "recovered" => {
                assert!(!self.is_closed || rest == "0", "{rest} bytes cut of a closed log");
                self.tally.torn_tails += u64::from(rest != "0");
            }
            "closed" => {
                // Closing makes durable whatever was appended.
                self.synced_end = self.synced_end.max(self.written_end);
                self.tally.closes += 1;
            }
            "failed" => {
                assert!(!rest.contains("Corrupt"), "{said}");
                self.tally.failures += 1;
            }
            other => panic!("a process said {other}"),
        }
        self.is_closed = word == "closed";
    }

    fn acknowledge(&mut self, word: &str, rest: &str) {
        let (first, stamp) = rest.split_once(' ').unwrap();
        let (first, stamp): (u64, Stamp) = (first.parse().unwrap(), stamp.parse().unwrap());
        let end = first + stamp.count;
        self.acknowledged.insert(first, stamp);
        self.written_end = self.written_end.max(end);
        if word == "synced" {
            self.synced_end = self.synced_end.max(end);
        }
        self.tally.acknowledged += stamp.count;
    }

    fn check(&mut self, found: &[Stamp], sight: Sight) {
        let end = found.len() as u64;
        let least = match sight {
            Sight::Opened | Sight::Written => self.written_end.max(self.synced_end),
            Sight::Durable => self.synced_end,
        };
        assert!(end >= least, "lost: {end} records are there, {least} were acknowledged");
        self.check_order(found);
        for (first, stamp) in &self.acknowledged {
            let there = found.iter().skip(usize::try_from(*first).unwrap()).copied();
            let expected: Vec<Stamp> = stamp.batch().collect();
            let there: Vec<Stamp> = there.take(expected.len()).collect();
            assert!(there.is_empty() || there == expected, "at {first}: {there:?} for {stamp}");
        }
        if sight == Sight::Durable {
            self.synced_end = end;
        }
        if sight == Sight::Opened {
            if let Some(expected) = self.expected.take() {
                assert!(found == expected, "found another time: {found:?}, not {expected:?}");
            }
            // What is not there was not promised, and its offsets are free.
            drop(self.acknowledged.split_off(&end));
            self.written_end = end;
            self.synced_end = end;
            self.found = found.to_vec();
            self.tally.openings += 1;
        }
    }

    /// The records are in whole batches, and each thread's in its order without a gap.
    fn check_order(&self, found: &[Stamp]) {
        let known = self.found.len().min(found.len());
        assert!(found[..known] == self.found[..known], "records that were there have changed");
        let mut next: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        let mut rest = found;
        while let [first, ..] = rest {
            let batch: Vec<Stamp> = Stamp { index: 0, ..*first }.batch().collect();
            assert!(rest.starts_with(&batch), "not the whole batch of {first}");
            let seq = next.entry((first.life, first.thread)).or_default();
            assert_eq!(first.seq, *seq, "out of order: {first}");
            *seq += 1;
            rest = &rest[batch.len()..];
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// All that there is, made durable by opening the log.
    Opened,
    /// What a log shows that shows what is durable.
    Durable,
    /// What a log shows that shows what is written.
    Written,
}

fn stamps(list: &str) -> Vec<Stamp> {
    list.split_whitespace().map(|stamp| stamp.parse().unwrap()).collect()
}
