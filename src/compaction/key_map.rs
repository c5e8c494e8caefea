//! The last place of each key, in bounded memory: which records of a run are dead.
//!
//! A table with open addressing, three words a slot: 128 bits of a keyed hash of the key, and the
//! number of its last record. Two keys of one hash are as likely as a broken disk that passes its
//! checksums, and nobody who chooses keys can look for them, for the hash's own key is random. A
//! record that a later one replaces is marked at once, so that who rewrites it needs no look-up.
//!
//! # Invariants
//!
//! - At most three quarters of the slots are taken, so a key costs 32 bytes.
//! - Nothing is ever removed, so a search ends at the first empty slot.

use siphasher::sip128::SipHasher13;
use std::hint::black_box;
use std::ops::Range;

/// How many keys are looked up at once, so that the machine waits for their slots together.
pub(super) const TOGETHER: usize = 32;

#[derive(Debug)]
pub(super) struct KeyMap {
    hasher: SipHasher13,
    /// Hash, and the number of the key's last record plus one; 0 is an empty slot.
    slots: Vec<[u64; 3]>,
    len: usize,
    dead: Marks,
}

/// The hash of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyHash(u64, u64);

/// What became of a record that was put into the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Done,
    /// The key is new, and there is no room for it.
    Full,
}

impl KeyMap {
    /// A map for so many records, in no more bytes than that.
    pub(super) fn new(bytes: u64, records: u64, random: (u64, u64)) -> Self {
        let marks = Marks::new((bytes / 16).min(records.div_ceil(8)));
        let room = (bytes - bytes / 16) / SLOT_BYTES;
        let slots = records.saturating_add(records.div_ceil(3)).saturating_add(1).min(room);
        let slots = usize::try_from(slots).unwrap_or(usize::MAX);
        Self {
            hasher: SipHasher13::new_with_keys(random.0, random.1),
            slots: vec![[0; 3]; slots],
            len: 0,
            dead: marks,
        }
    }

    pub(super) fn hash(&self, key: &[u8]) -> KeyHash {
        let hash = self.hasher.hash(key);
        KeyHash(hash.h1, hash.h2)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many records can be numbered.
    pub(super) fn records_max(&self) -> u64 {
        self.dead.len()
    }

    /// Has the slots of these keys fetched, all at the same time.
    pub(super) fn fetch(&self, hashes: impl Iterator<Item = KeyHash>) {
        let slots = hashes.filter_map(|hash| self.slots.get(self.place(hash)));
        black_box(slots.fold(0, |seen, slot| seen ^ slot[0]));
    }

    /// Makes a record the last one of its key; the one that was, is dead.
    pub(super) fn put(&mut self, hash: KeyHash, number: u64) -> Put {
        let place = self.find(hash);
        let is_full = self.len >= self.slots.len() * 3 / 4;
        match self.slots.get_mut(place) {
            Some([_, _, last]) if *last != 0 => {
                self.dead.set(*last - 1);
                *last = number + 1;
            }
            Some(slot) if !is_full => {
                *slot = [hash.0, hash.1, number + 1];
                self.len += 1;
            }
            _ => return Put::Full,
        }
        Put::Done
    }

    /// Whether the key of a record that came before all in the map has a later one there.
    pub(super) fn has(&self, hash: KeyHash) -> bool {
        self.slots.get(self.find(hash)).is_some_and(|slot| slot[2] != 0)
    }

    /// Whether the record has been replaced.
    pub(super) fn is_dead(&self, number: u64) -> bool {
        self.dead.has(number)
    }

    /// How many of these records have been replaced.
    pub(super) fn count_dead(&self, numbers: Range<u64>) -> u64 {
        self.dead.count(numbers)
    }

    /// The slot of the key, or the empty one where it belongs.
    fn find(&self, hash: KeyHash) -> usize {
        let mut place = self.place(hash);
        while let Some(slot) = self.slots.get(place) {
            if slot[2] == 0 || (slot[0], slot[1]) == (hash.0, hash.1) {
                return place;
            }
            place += 1;
            if place == self.slots.len() {
                place = 0;
            }
        }
        place
    }

    fn place(&self, hash: KeyHash) -> usize {
        let place = (u128::from(hash.0) * self.slots.len() as u128) >> 64;
        usize::try_from(place).unwrap_or_default()
    }
}

const SLOT_BYTES: u64 = size_of::<[u64; 3]>() as u64;

/// A bit for each number.
#[derive(Debug)]
struct Marks(Vec<u64>);

impl Marks {
    fn new(bytes: u64) -> Self {
        Self(vec![0; usize::try_from(bytes.div_ceil(8)).unwrap_or(usize::MAX)])
    }

    fn len(&self) -> u64 {
        self.0.len() as u64 * 64
    }

    fn set(&mut self, number: u64) {
        let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << (number % 64);
        }
    }

    fn has(&self, number: u64) -> bool {
        let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
        self.0.get(word).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    fn count(&self, numbers: Range<u64>) -> u64 {
        let mut count = 0;
        let mut number = numbers.start;
        while number < numbers.end {
            let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
            let stop = (number / 64 * 64).saturating_add(64).min(numbers.end);
            let wanted = u64::MAX >> (64 - (stop - number)) << (number % 64);
            count += self.0.get(word).map_or(0, |word| u64::from((word & wanted).count_ones()));
            number = stop;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyMap, Put, SLOT_BYTES};
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use std::collections::BTreeMap;

    proptest! {
        /// Beside a map of the standard library, with few keys and a table that gets full.
        #[test]
        fn who_is_replaced_is_dead(
            keys in vec(0_u8..40, 0..300),
            random in any::<(u64, u64)>(),
            bytes in 1024_u64..1400,
        ) {
            let mut map = KeyMap::new(bytes, 300, random);
            let mut last = BTreeMap::new();
            let mut taken = 0;
            for (number, key) in (0_u64..).zip(&keys) {
                if map.put(map.hash(&[*key]), number) == Put::Full {
                    prop_assert_eq!((last.get(key), last.len()), (None, map.slots.len() * 3 / 4));
                    break;
                }
                last.insert(*key, number);
                taken += 1;
            }
            for (number, key) in (0..taken).zip(&keys) {
                prop_assert_eq!(map.is_dead(number), last[key] != number);

            }
            for key in 0..50 {
                prop_assert_eq!(map.has(map.hash(&[key])), last.contains_key(&key));
            }
            let dead = (0..taken).filter(|number| map.is_dead(*number)).collect::<Vec<_>>();
            for (from, to) in (0..taken).flat_map(|from| (from..taken).map(move |to| (from, to))) {
                let count = dead.iter().filter(|number| (from..to).contains(number)).count();
                prop_assert_eq!(map.count_dead(from..to), count as u64, "{} to {}", from, to);
            }
        }
    }

    #[test]
    fn a_key_takes_no_more_than_32_bytes() {
        for bytes in [1 << 10, 1 << 20] {
            let mut map = KeyMap::new(bytes, u64::MAX, (1, 2));
            let taken = map.slots.len() as u64 * SLOT_BYTES + map.records_max() / 8;
            assert!(taken <= bytes, "{taken} of {bytes}");
            let mut keys = 0;
            while map.put(map.hash(&keys.to_string().into_bytes()), keys) == Put::Done {
                keys += 1;
            }
            // And the marks of 8 records for each.
            assert!(bytes <= keys * 35, "{keys} keys in {bytes} bytes");
        }
    }

    #[test]
    fn a_few_records_need_little() {
        for records in 0..100 {
            let mut map = KeyMap::new(1 << 30, records, (1, 2));
            assert!(map.slots.len() as u64 <= records * 4 / 3 + 5);
            for number in 0..records {
                assert_eq!(map.put(map.hash(&number.to_le_bytes()), number), Put::Done);
            }
        }
    }
}
