//! Memory for a large table: zeroed, and in large pages where the system has them.
//!
//! A table that is larger than the caches is looked up at random. In pages of 4 KiB each look-up
//! costs a second miss, for the page, and each first touch of a page a call to the system.

use memmap2::MmapMut;
use zerocopy::FromBytes;

/// From here on large pages are asked for: the size of one on most machines.
const LARGE_BYTES: usize = 2 << 20;

/// A table of pairs of words, all zero at first.
#[derive(Debug)]
pub(crate) enum Room {
    Heap(Vec<[u64; 2]>),
    /// More bytes than the heap is good for; so many pairs.
    Pages(MmapMut, usize),
}

impl Room {
    pub(crate) fn zeroed(pairs: usize) -> Self {
        match pairs.checked_mul(size_of::<[u64; 2]>()) {
            Some(bytes) if bytes >= LARGE_BYTES => match MmapMut::map_anon(bytes) {
                Ok(map) => {
                    advise(&map);
                    Self::Pages(map, pairs)
                }
                // Without maps, the heap says whether there is memory.
                Err(_) => Self::Heap(vec![[0; 2]; pairs]),
            },
            _ => Self::Heap(vec![[0; 2]; pairs]),
        }
    }

    #[inline]
    pub(crate) fn pairs(&self) -> &[[u64; 2]] {
        match self {
            Self::Heap(pairs) => pairs,
            Self::Pages(map, pairs) => {
                let (cast, _) = <[[u64; 2]]>::ref_from_prefix_with_elems(map, *pairs).expect(FITS);
                cast
            }
        }
    }

    #[inline]
    pub(crate) fn pairs_mut(&mut self) -> &mut [[u64; 2]] {
        match self {
            Self::Heap(pairs) => pairs,
            Self::Pages(map, pairs) => {
                let (cast, _) = <[[u64; 2]]>::mut_from_prefix_with_elems(map, *pairs).expect(FITS);
                cast
            }
        }
    }
}

const FITS: &str = "a map begins at a page and is as long as it was asked for";

/// A system that does not take the advice gives small pages.
#[cfg(target_os = "linux")]
fn advise(map: &MmapMut) {
    drop(map.advise(memmap2::Advice::HugePage));
}

#[cfg(not(target_os = "linux"))]
fn advise(_map: &MmapMut) {}

#[cfg(test)]
mod tests {
    use super::{LARGE_BYTES, Room};

    #[test]
    fn small_and_large_are_zeroed_and_keep_what_is_written() {
        for pairs in [0, 1, LARGE_BYTES / 16 - 1, LARGE_BYTES / 16, LARGE_BYTES / 16 + 1] {
            let mut room = Room::zeroed(pairs);
            assert_eq!(matches!(room, Room::Pages(..)), pairs * 16 >= LARGE_BYTES);
            assert_eq!(room.pairs().len(), pairs);
            assert!(room.pairs().iter().all(|pair| *pair == [0, 0]));
            if let Some(last) = room.pairs_mut().last_mut() {
                *last = [1, 2];
            }
            assert_eq!(room.pairs().last(), Some(&[1, 2]).filter(|_| pairs > 0));
        }
    }
}
