//! What happens to the log in the middle of a call that looks at it.

use crate::support::Site;
use crate::support::append_all;
use crate::support::at;
use crate::support::check;
use crate::support::clock::ManualClock;
use crate::support::fault::Op;
use crate::support::full;
use crate::support::hook::HookStorage;
use crate::support::image::Image;
use crate::support::records;
use crate::support::secs;
use crate::support::tail;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stratalog::storage::{Clock, MemoryStorage};
use stratalog::{Durability, ErrorKind, ReadMode, Retention, Seek, Timestamp};

/// A clock that stands still; who asks it for the time next does something first.
#[derive(Clone)]
struct HookClock(ManualClock, Arc<Mutex<Option<Act>>>);

type Act = Box<dyn FnOnce() + Send>;

impl fmt::Debug for HookClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookClock").finish_non_exhaustive()
    }
}

impl Clock for HookClock {
    fn now(&self) -> Timestamp {
        let act = self.1.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

/// Retention has seen ten segments and wants five of them gone; when it comes to that, there are
/// only three.
#[test]
fn retention_goes_by_what_a_truncation_has_left() {
    let clock = HookClock(ManualClock::at(secs(0)), Arc::default());
    let site = Site::memory().small_segments().clock(&clock);
    let site = site.options(|options| options.retention(Retention::new().max_bytes(6000)));
    let log = site.open();
    append_all(&log, &full(10));
    let cut = log.clone();
    *clock.1.lock().unwrap() = Some(Box::new(move || cut.truncate_to(at(3)).unwrap()));
    let report = log.enforce_retention().unwrap();
    assert!(clock.1.lock().unwrap().is_none());
    assert_eq!((report.removed_segments, report.start_offset), (0, at(0)));
    check(&log, &full(3));
    check(&site.reopen(log), &full(3));
}

/// A reader has opened a segment's file when the log is cut inside that segment.
#[test]
fn a_segment_that_is_cut_while_a_reader_opens_it_is_not_kept_for_others() {
    let storage = HookStorage::default();
    let site = Site::over(Arc::new(storage.clone())).small_segments();
    let log = site.open();
    append_all(&log, &tail(8));
    log.roll().unwrap();
    append_all(&log, &tail(3));
    let log = site.reopen(log);
    let cut = log.clone();
    storage.after_open(".log", move || cut.truncate_to(at(5)).unwrap());
    let found = log.get(at(2)).unwrap().unwrap();
    assert!(storage.has_acted());
    assert_eq!(found.offset(), at(2));
    let later = records(50..58);
    append_all(&log, &later);
    check(&log, &[&tail(8)[..5], &later].concat());
}

/// The record is in memory when the search begins, and in the file before it ends.
#[test]
fn a_time_is_found_while_its_record_goes_from_memory_to_the_file() {
    let storage = HookStorage::default();
    let clock = ManualClock::at(secs(10));
    let site = Site::over(Arc::new(storage.clone())).clock(&clock);
    let site =
        site.options(|options| options.durability(Durability::Buffered).read_mode(ReadMode::Pread));
    let log = site.open();
    append_all(&log, &tail(4));
    log.sync().unwrap();
    clock.set(secs(20));
    append_all(&log, &tail(2));
    let writer = log.clone();
    storage.before(Op::Read, ".log", move || writer.sync().unwrap());
    let cursor = log.cursor(Seek::Time(secs(20))).unwrap();
    assert!(storage.has_acted());
    assert_eq!(cursor.offset(), at(4));
}

/// What a log was deleted up to was durable then: damage below that is no torn tail, though no
/// frame behind it says so.
#[test]
fn the_start_of_a_log_says_that_what_is_below_was_durable() {
    let storage = MemoryStorage::new();
    let site = Site::over(Arc::new(storage.clone())).small_segments();
    let log = site.options(|options| options.durability(Durability::Written)).open();
    append_all(&log, &tail(6));
    log.sync().unwrap();
    append_all(&log, &records(6..8));
    append_all(&log, &full(1));
    log.delete_before(at(5)).unwrap();
    // The power is cut: what was not synced is lost, the second segment with it.
    let mut image = Image::of(&storage);
    let [first, second] = [0, 1].map(|nth| image.segments().remove(nth));
    let lost = place(image.bytes(&first), b"value 6") - 42;
    image.bytes(&first).truncate(lost);
    image.bytes(&second)[72..].fill(0);
    assert_eq!(image.open().unwrap().end_offset(), at(6));
    let damaged = place(image.bytes(&first), b"value 3");
    image.bytes(&first)[damaged] ^= 1;
    let error = image.open().map(drop).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::Corrupt, Some(at(3))), "{error}");
}

fn place(bytes: &[u8], value: &[u8]) -> usize {
    bytes.windows(value.len()).position(|found| found == value).unwrap()
}
