//! Random logs and their replicas: each reads like its leader, and each ships what it was shipped.
//!
//! A failure prints the operations, made as few as possible, and the seed.

use crate::support::Site;
use crate::support::at;
use crate::support::clock::ManualClock;
use crate::support::compaction::Full;
use crate::support::compaction::check_compacted;
use crate::support::compaction::compacting;
use crate::support::compaction::pair;
use crate::support::record;
use crate::support::replica::catch_up;
use crate::support::replica::shipped;
use crate::support::secs;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use std::env;
use std::time::Duration;
use stratalog::{Durability, Log, Offset, Record};

#[derive(Clone, Copy, Debug)]
enum Op {
    /// So many records as one unit or one by one, at once durable or not.
    Append {
        seed: u16,
        count: u8,
        as_batch: bool,
        level: Durability,
    },
    /// Records with one of a few keys, of which compaction keeps the last.
    Keyed {
        seed: u16,
        count: u8,
    },
    Roll,
    Compact,
    /// To a place so many thousandths into the log.
    Truncate {
        mille: u16,
    },
    Delete {
        mille: u16,
    },
    Clock {
        millis: i16,
    },
    /// The replica takes all there is, so many bytes at a time.
    Ship {
        max_bytes: u16,
    },
    /// It is closed, or killed, and opened.
    Reopen {
        killed: bool,
    },
    CompactReplica,
    /// The two change places: the old leader is cut to where they part, and follows.
    TakeOver,
}

fn op() -> impl Strategy<Value = Op> {
    use Durability::{Buffered, Synced, Written};
    let level = prop_oneof![2 => Just(Buffered), 1 => Just(Written), 1 => Just(Synced)];
    let append = (any::<u16>(), 0..30_u8, any::<bool>(), level);
    let append = append.prop_map(|(seed, count, as_batch, level)| Op::Append {
        seed,
        count,
        as_batch,
        level,
    });
    prop_oneof![
        6 => append,
        6 => (any::<u16>(), 1..40_u8).prop_map(|(seed, count)| Op::Keyed { seed, count }),
        2 => Just(Op::Roll),
        3 => Just(Op::Compact),
        1 => (0..1100_u16).prop_map(|mille| Op::Truncate { mille }),
        1 => (0..1100_u16).prop_map(|mille| Op::Delete { mille }),
        3 => (-300..600_i16).prop_map(|millis| Op::Clock { millis }),
        6 => (0..9000_u16).prop_map(|max_bytes| Op::Ship { max_bytes }),
        1 => any::<bool>().prop_map(|killed| Op::Reopen { killed }),
        1 => Just(Op::CompactReplica),
        2 => Just(Op::TakeOver),
    ]
}

/// Two logs, of which the first leads.
struct Pair {
    sites: [Site; 2],
    logs: [Log; 2],
    clock: ManualClock,
}

impl Pair {
    fn new(level: Durability, place: fn() -> Site) -> Self {
        let clock = ManualClock::at(secs(1000));
        let site = || {
            let site = compacting(place()).small_segments().clock(&clock);
            site.options(|options| options.durability(level))
        };
        let sites = [site(), site()];
        let logs = [sites[0].open(), sites[1].open()];
        Self { sites, logs, clock }
    }

    fn place(&self, mille: u16) -> Offset {
        let (start, end) = (self.logs[0].start_offset().get(), self.logs[0].end_offset().get());
        at((start + (end - start) * u64::from(mille) / 1000).min(end))
    }

    fn run(&mut self, op: Op) {
        let [leader, replica] = &self.logs;
        match op {
            Op::Append { seed, count, as_batch, level } => {
                let records = (0..count).map(|nth| record(u64::from(seed) + u64::from(nth)));
                if as_batch {
                    leader.append_batch_with(level, records).unwrap();
                } else {
                    for record in records {
                        self.clock.advance(Duration::from_micros(3));
                        leader.append_with(level, record).unwrap();
                    }
                }
            }
            Op::Keyed { seed, count } => {
                for nth in 0..u64::from(count) {
                    let key = format!("key {}", (u64::from(seed) + nth * nth) % 7);
                    let record = match (u64::from(seed) + nth) % 5 {
                        0 => Record::tombstone(key),
                        _ => pair(&key, nth),
                    };
                    leader.append_with(Durability::Buffered, record).unwrap();
                }
            }
            Op::Roll => leader.roll().unwrap(),
            Op::Compact => drop(leader.compact().unwrap()),
            Op::Truncate { mille } => {
                let end = self.place(mille);
                // A replica that is ahead of its leader has to be cut itself.
                if replica.start_offset() <= end && end < replica.end_offset() {
                    replica.truncate_to(end).unwrap();
                } else if end < replica.end_offset() {
                    return;
                }
                leader.truncate_to(end).unwrap();
            }
            Op::Delete { mille } => leader.delete_before(self.place(mille)).unwrap(),
            Op::Clock { millis } => {
                let by = Duration::from_millis(u64::from(millis.unsigned_abs()));
                if millis < 0 { self.clock.go_back(by) } else { self.clock.advance(by) }
            }
            Op::Ship { max_bytes } => self.ship(usize::from(max_bytes)),
            Op::Reopen { killed } => {
                replica.sync().unwrap();
                if killed {
                    self.sites[1] = self.sites[1].kill();
                } else {
                    replica.close().unwrap();
                }
                self.logs[1] = self.sites[1].open();
            }
            Op::CompactReplica => drop(replica.compact().unwrap()),
            Op::TakeOver => self.take_over(),
        }
    }

    fn ship(&self, max_bytes: usize) {
        let [leader, replica] = &self.logs;
        if replica.end_offset() < leader.start_offset() {
            replica.delete_before(leader.start_offset()).unwrap();
        }
        catch_up(leader, replica, max_bytes);
        assert_eq!(replica.end_offset(), leader.high_watermark());
    }

    /// The replica leads from where it is.
    fn take_over(&mut self) {
        self.logs[0].sync().unwrap();
        self.logs[1].sync().unwrap();
        let [old, new] = &self.logs;
        if new.end_offset() < old.start_offset() || old.end_offset() < new.start_offset() {
            return;
        }
        self.clock.advance(Duration::from_millis(1));
        let parted = new.end_offset();
        new.append("a new leader").unwrap();
        let is_ahead = old.end_offset() > parted;
        let from = new.start_offset().max(old.start_offset());
        let found = old.diverges_from(&shipped(new, from)).unwrap();
        // Unless compaction has removed just that record.
        if is_ahead && old.get(parted).unwrap().is_some() {
            assert_eq!(found, Some(parted));
        } else {
            assert!(found.is_none_or(|found| is_ahead && found == parted), "{found:?}");
        }
        old.truncate_to(parted.min(old.end_offset())).unwrap();
        self.sites.swap(0, 1);
        self.logs.swap(0, 1);
        self.ship(1000);
    }

    /// Where both have records, and neither has been compacted since, they are alike.
    fn check(&self) {
        self.logs[0].sync().unwrap();
        self.logs[1].sync().unwrap();
        self.ship(1 << 20);
        let [leader, replica] = &self.logs;
        replica.sync().unwrap();
        assert_eq!(replica.end_offset(), leader.end_offset());
        check_compacted(replica, &Full::of(replica));
        let start = leader.start_offset().max(replica.start_offset());
        assert_eq!(leader.diverges_from(&shipped(replica, start)).unwrap(), None);

        let third = Site::memory().open();
        third.delete_before(leader.start_offset()).unwrap();
        catch_up(leader, &third, 500);
        check_compacted(&third, &Full::of(leader));
        // What was taken whole is shipped on as it came.
        let again = Site::memory().open();
        again.delete_before(third.start_offset()).unwrap();
        catch_up(&third, &again, 1 << 20);
        assert_eq!(shipped(&again, again.start_offset()), shipped(&third, third.start_offset()));
        let middle = at(start.get().midpoint(leader.end_offset().get()));
        let late = Site::memory().open();
        late.delete_before(middle).unwrap();
        catch_up(leader, &late, 0);
        check_compacted(&late, &Full::of(leader).above(middle));
    }
}

fn check(cases: u32, place: fn() -> Site) {
    let asked = env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let config =
        Config { cases: asked.unwrap_or(cases), rng_seed: RngSeed::Fixed(7), ..Config::default() };
    let level = prop_oneof![Just(Durability::Buffered), Just(Durability::Synced)];
    TestRunner::new(config)
        .run(&(level, vec(op(), 1..40)), |(level, ops)| {
            let mut pair = Pair::new(level, place);
            ops.into_iter().for_each(|op| pair.run(op));
            pair.check();
            Ok(())
        })
        .unwrap();
}

#[test]
fn random_replicas_in_memory() {
    check(48, Site::memory);
}

#[test]
fn random_replicas_on_disk() {
    check(8, Site::disk);
}
