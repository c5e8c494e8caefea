//! A consumer whose file of a position is anything.

use crate::codecs::crc;
use crate::input::Input;
use crate::support::at;
use crate::support::image::DIR;
use crate::support::image::tiny;
use crate::world::WORLDS;
use std::path::Path;
use std::sync::Arc;
use stratalog::storage::{MemoryStorage, OpenMode, Storage};
use stratalog::{ErrorKind, Seek, fuzzing};

const SLOT_LEN: usize = 64;
const FILE_LEN: usize = 8192;

/// The name of the consumer.
pub(crate) const NAME: &str = "billing";

/// One byte of switches, two slots, and what is behind the file if bit 5 says so. For each slot one
/// bit says that its checksum fits (1, 2), and one that it is that of this log (3, 4).
pub fn consumer(data: &[u8]) {
    let mut input = Input(data);
    let switches = input.byte();
    let world = &WORLDS[0];
    let mut file = vec![0; FILE_LEN];
    for nth in 0..2_usize {
        let mut slot: [u8; SLOT_LEN] = input.array();
        if switches & (4 << nth) != 0 {
            slot[16..32].copy_from_slice(&world.image.0["MANIFEST"][16..32]);
            slot[48..52].copy_from_slice(&crc(0, NAME.as_bytes()).to_le_bytes());
        }
        if switches & (1 << nth) != 0 {
            let crc = crc(0, &slot[16..]);
            slot[12..16].copy_from_slice(&crc.to_le_bytes());
        }
        if let Some(again) = fuzzing::position(&slot) {
            assert_eq!(again, slot, "a position has two encodings");
        }
        file[nth * 4096..][..SLOT_LEN].copy_from_slice(&slot);
    }
    if switches & 16 != 0 {
        file.extend_from_slice(input.0);
        file.drain(..input.0.len().min(FILE_LEN));
    }
    live(&world.image.storage(), &file);
}

/// The file in a log: an error, or a position that goes on from what one of the slots says.
fn live(storage: &MemoryStorage, bytes: &[u8]) {
    let path = Path::new(DIR).join("consumers").join(NAME);
    storage.create_dir(path.parent().expect("it has one")).expect("it can be made");
    let file = storage.open(&path, OpenMode::Create).expect("it is new");
    file.write_at(bytes, 0).expect("it is in memory");
    let log = tiny(Arc::new(storage.clone())).open(DIR).expect("consumers are not looked at");
    let mut consumer = match log.consumer(NAME) {
        Ok(consumer) => consumer,
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion));
            assert_eq!(error.path(), Some(&*path));
            let mut left = vec![0; bytes.len() + 1];
            let len = file.read_at(&mut left, 0).expect("it is in memory");
            assert_eq!(&left[..len], bytes, "it was changed");
            assert!(log.remove_consumer(NAME).expect("it can be removed"));
            assert_eq!(log.consumer(NAME).expect("it is new").committed(), log.start_offset());
            return;
        }
    };
    let begin = consumer.committed();
    let stated = [0, 4096].map(|slot: usize| bytes[slot + 40..slot + 48].try_into());
    let stated = stated.map(|number| u64::from_le_bytes(number.expect("8 bytes")));
    assert!(stated.map(at).contains(&begin), "{begin} is in no slot");
    match consumer.next() {
        Ok(entry) => assert!(entry.is_none_or(|entry| entry.offset() >= begin)),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::OutOfRange);
            consumer.seek(Seek::Start).expect("there is a start");
        }
    }
    consumer.commit().expect("it stands in the log");
    let committed = consumer.committed();
    drop(consumer);
    log.truncate_to(log.end_offset() - 1).expect("it is not empty");
    let expected = committed.min(log.end_offset());
    drop(log);
    let log = tiny(Arc::new(storage.clone())).open(DIR).expect("it was closed");
    assert_eq!(log.consumer(NAME).expect("it was committed").committed(), expected);
}
