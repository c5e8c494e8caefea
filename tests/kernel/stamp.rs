//! What the records of these tests say: who wrote them, and which place they have in what he wrote.

use std::fmt::{self, Display};
use std::num::ParseIntError;
use std::str::FromStr;
use stratalog::EntryBuf;
use stratalog::Record;

/// One record: the `index`-th of a batch of `count`, which is the `seq`-th of a thread of a life
/// (from the opening of a log to its end).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) life: u64,
    pub(crate) thread: u64,
    pub(crate) seq: u64,
    pub(crate) index: u64,
    pub(crate) count: u64,
}

impl Stamp {
    /// The record follows from the stamp to the last byte.
    pub(crate) fn record(&self) -> Record<'static> {
        let mixed = self.life * 31 + self.seq * 7 + self.index * 3;
        // Now and then one that takes several sectors.
        let size = if mixed.is_multiple_of(13) { mixed * 11 % 4000 } else { mixed % 180 };
        let padding = "x".repeat(usize::try_from(size).unwrap());
        let record = Record::new(format!("{self} {padding}"));
        match self.seq % 3 {
            0 => record,
            1 => record.key(format!("key {}", self.thread)),
            _ => record.key(self.to_string()).header("index", self.index.to_string()),
        }
    }

    /// The stamp of a record, which is exactly as it was appended.
    pub(crate) fn of(entry: &EntryBuf) -> Self {
        let text = std::str::from_utf8(entry.value()).unwrap();
        let stamp: Self = text.split(' ').next().unwrap().parse().unwrap();
        let expected = stamp.record();
        assert_eq!(Record::from(entry), expected, "the record at {}", entry.offset());
        stamp
    }

    pub(crate) fn batch(&self) -> impl Iterator<Item = Self> + use<> {
        let first = *self;
        (0..self.count).map(move |index| Self { index, ..first })
    }
}

impl Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { life, thread, seq, index, count } = self;
        write!(f, "{life}.{thread}.{seq}.{index}.{count}")
    }
}

impl FromStr for Stamp {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let mut parts = text.split('.').map(str::parse);
        let mut part = || parts.next().unwrap_or_else(|| "".parse());
        let (life, thread, seq) = (part()?, part()?, part()?);
        Ok(Self { life, thread, seq, index: part()?, count: part()? })
    }
}
