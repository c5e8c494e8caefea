//! Verifying and repairing where a review found more lost than was damaged, or less said.

use crate::support::append_all;
use crate::support::at;
use crate::support::image::DIR;
use crate::support::image::Image;
use crate::support::image::read_rows;
use crate::support::image::tiny;
use crate::support::records;
use std::sync::Arc;
use stratalog::storage::{MemoryStorage, Storage};
use stratalog::{Keep, RepairOptions, RepairReport};

fn repair(storage: &Arc<dyn Storage>, keep: Keep) -> RepairReport {
    let options = RepairOptions::new().storage(Arc::clone(storage)).keep(keep);
    stratalog::repair(DIR, &options).unwrap()
}

/// The storage of an image, to be repaired and opened.
fn place(image: &Image) -> Arc<dyn Storage> {
    Arc::new(image.storage())
}

/// What was deleted is not missed.
#[test]
fn damage_below_the_start_does_not_end_a_prefix() {
    for (deleted, damaged, left) in [(2, 0, 18), (2, 1, 18), (2, 2, 0), (9, 0, 11), (9, 12, 3)] {
        let storage = MemoryStorage::new();
        let log = tiny(Arc::new(storage.clone())).open(DIR).unwrap();
        append_all(&log, &records(0..20));
        log.delete_before(at(deleted)).unwrap();
        let before = read_rows(&log).unwrap();
        log.close().unwrap();
        drop(log);
        let mut image = Image::of(&storage);
        if !flip_value(&mut image, damaged) {
            assert!(damaged < deleted, "the file is still there");
        }
        let storage = place(&image);
        let report = repair(&storage, Keep::Prefix);
        let log = tiny(storage).open(DIR).unwrap();
        let story = format!("{deleted} deleted, {damaged} damaged: {report}");
        assert_eq!(log.start_offset(), at(deleted), "{story}");
        assert_eq!(log.end_offset(), at(deleted + left), "{story}");
        let expected = &before[..usize::try_from(left).unwrap()];
        assert_eq!(read_rows(&log).unwrap(), expected, "{story}");
        assert_eq!(log.append("goes on").unwrap().get(), deleted + left, "{story}");
    }
}

/// Damages the frame of one record; `false` if its file has gone.
fn flip_value(image: &mut Image, offset: u64) -> bool {
    for bytes in image.0.iter_mut().filter(|(name, _)| name.ends_with(".log")).map(|(_, b)| b) {
        let mut position = 72;
        while position + 40 <= bytes.len() && bytes[position + 36] == 1 {
            let len = u32::from_le_bytes(bytes[position + 4..position + 8].try_into().unwrap());
            let base = bytes[position + 8..position + 16].try_into().unwrap();
            if u64::from_le_bytes(base) == offset {
                bytes[position + 41] ^= 1;
                return true;
            }
            position = (position + 40 + usize::try_from(len).unwrap()).next_multiple_of(8);
        }
    }
    false
}
