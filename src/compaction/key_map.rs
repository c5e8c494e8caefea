//! The last place of each key, in bounded memory: which records of a run are dead.
//!
//! A table with open addressing, 16 bytes a slot: 96 bits of a keyed hash of 128, and the number of
//! the key's last record. The other 32 bits say where a search begins. Two keys are taken for one
//! if they agree in the 96 and are near each other in the table, which among ten million keys is as
//! likely as one in 2^70: less than that a disk hands out damage that passes its checksums. Nobody
//! who chooses keys can look for such a pair, for the hash's own key is random.
//!
//! A record that a later one replaces is marked at once, so that who rewrites it needs no look-up.
//!
//! # Invariants
//!
//! - At most four fifths of the slots are taken, so a key costs 20 bytes there, or a little more
//!   where fewer keys come than there are records; and each record a bit.
//! - Nothing is ever removed, so a search ends at the first empty slot.

use crate::storage::Room;
use siphasher::sip128::SipHasher13;
use std::hint::black_box;
use std::ops::Range;

/// How many keys are looked up at once, so that the machine waits for their slots together.
pub(super) const TOGETHER: usize = 32;

/// Of the second word of a slot: the number of the key's last record plus one. 0 is an empty slot.
const LAST: u64 = u32::MAX as u64;

#[derive(Debug)]
pub(super) struct KeyMap {
    hasher: SipHasher13,
    /// 64 bits of the hash; 32 more, and the number.
    slots: Room,
    slot_count: usize,
    len: usize,
    dead: Marks,
}

/// The hash of a key: where it belongs, with 32 bits that are kept, and 64 more.
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
        let marks = Marks::new((bytes / 16).min(records.div_ceil(8)).min(LAST / 64 * 8));
        let room = (bytes - bytes / 16) / SLOT_BYTES;
        let slots = records.saturating_add(records.div_ceil(3)).saturating_add(LINE).min(room);
        let slot_count = usize::try_from(slots.min(LAST) / LINE * LINE).unwrap_or(usize::MAX);
        let hasher = SipHasher13::new_with_keys(random.0, random.1);
        Self { hasher, slots: Room::zeroed(slot_count), slot_count, len: 0, dead: marks }
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
        let slots = self.slots.pairs();
        let firsts = hashes.filter_map(|hash| slots.get(place(hash, slots.len())));
        black_box(firsts.fold(0, |seen, slot| seen ^ slot[0]));
    }

    /// Makes a record the last one of its key; the one that was, is dead.
    pub(super) fn put(&mut self, hash: KeyHash, number: u64) -> Put {
        let is_full = self.len * 5 >= self.slot_count * 4;
        let slots = self.slots.pairs_mut();
        match find(slots, hash).and_then(|place| slots.get_mut(place)) {
            Some([_, word]) if *word & LAST != 0 => {
                self.dead.set((*word & LAST) - 1);
                *word = (*word & !LAST) | (number + 1);
            }
            Some(slot) if !is_full => {
                *slot = [hash.1, (hash.0 << 32) | (number + 1)];
                self.len += 1;
            }
            _ => return Put::Full,
        }
        Put::Done
    }

    /// Whether the key of a record that came before all in the map has a later one there.
    pub(super) fn has(&self, hash: KeyHash) -> bool {
        let slots = self.slots.pairs();
        find(slots, hash).and_then(|place| slots.get(place)).is_some_and(|slot| slot[1] != 0)
    }

    /// Whether the record has been replaced.
    pub(super) fn is_dead(&self, number: u64) -> bool {
        self.dead.has(number)
    }

    /// How many of these records have been replaced.
    pub(super) fn count_dead(&self, numbers: Range<u64>) -> u64 {
        self.dead.count(numbers)
    }
}

/// The slot of the key, or the empty one where it belongs.
#[inline]
fn find(slots: &[[u64; 2]], hash: KeyHash) -> Option<usize> {
    let first = place(hash, slots.len());
    let (before, from) = slots.split_at_checked(first)?;
    let is_it = |slot: &[u64; 2]| {
        let [bits, word] = *slot;
        word & LAST == 0 || (bits == hash.1 && word >> 32 == hash.0 & LAST)
    };
    let nth = from.iter().position(is_it).map(|nth| first + nth);
    nth.or_else(|| before.iter().position(is_it))
}

/// Where the search for a key begins, by the upper bits of the first word: at the first slot of a
/// line, so that nearly all searches end in the line that was fetched.
#[inline]
fn place(hash: KeyHash, slot_count: usize) -> usize {
    let line = (u128::from(hash.0) * (slot_count as u128 / u128::from(LINE))) >> 64;
    usize::try_from(line * u128::from(LINE)).unwrap_or_default()
}

/// How many slots a line of a cache has.
const LINE: u64 = 64 / SLOT_BYTES;

const SLOT_BYTES: u64 = size_of::<[u64; 2]>() as u64;

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
    use super::{KeyHash, KeyMap, LINE, Put, SLOT_BYTES};
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
                    let most = (map.slot_count * 4).div_ceil(5);
                    prop_assert_eq!((last.get(key), last.len()), (None, most));
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

    /// In all: slots, those that have to stay empty among them, and marks.
    fn bytes(map: &KeyMap) -> u64 {
        map.slot_count as u64 * SLOT_BYTES + map.records_max() / 8
    }

    #[test]
    fn a_key_takes_no_more_than_32_bytes() {
        // As many records as there are keys: the map is as large as they need.
        for records in [1000, 100_000, 10_000_000] {
            let map = KeyMap::new(1 << 30, records, (1, 2));
            assert!(bytes(&map) <= records * 22, "{} for {records} keys", bytes(&map));
        }
        // More records than there is room for.
        for given in [1 << 10, 1 << 20] {
            let mut map = KeyMap::new(given, u64::MAX, (1, 2));
            assert!(bytes(&map) <= given, "{} of {given}", bytes(&map));
            let mut keys = 0;
            while map.put(map.hash(&keys.to_string().into_bytes()), keys) == Put::Done {
                keys += 1;
            }
            assert!(given <= keys * 22, "{keys} keys in {given} bytes");
        }
    }

    /// Searches that go round the end of the table, and that end nowhere.
    #[test]
    fn a_search_goes_once_around() {
        let hash = |first| KeyHash(first, 7);
        let mut map = KeyMap::new(1 << 20, 4, (1, 2));
        assert_eq!(map.slot_count, 8);
        for number in 0..7 {
            assert_eq!(map.put(hash(u64::MAX - number), number), Put::Done);
        }
        assert_eq!(map.put(hash(0), 7), Put::Full);
        assert_eq!(map.put(hash(u64::MAX - 6), 8), Put::Done);
        assert!(map.is_dead(6) && !map.is_dead(5));
        assert!(map.has(hash(u64::MAX)) && !map.has(hash(0)));
    }

    #[test]
    fn a_few_records_need_little() {
        for records in 0..100 {
            let mut map = KeyMap::new(1 << 30, records, (1, 2));
            assert!(map.slot_count as u64 <= records * 4 / 3 + 2 * LINE);
            for number in 0..records {
                assert_eq!(map.put(map.hash(&number.to_le_bytes()), number), Put::Done);
            }
        }
    }
}
