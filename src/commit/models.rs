//! The parts that threads meet at, each alone, run through every order: watermarks, waiters, bell.
//!
//! What the log makes of them is modelled from outside, in `tests/loom/`.

use crate::commit::bell::Bell;
use crate::commit::bell::Calls;
use crate::commit::bell::Urgency;
use crate::commit::turn::Turn;
use crate::commit::waiters::Role;
use crate::commit::waiters::Told;
use crate::commit::waiters::Waiter;
use crate::commit::watermarks::Watermarks;
use crate::sync::AtomicUsize;
use crate::units::Offset;
use loom::thread;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Runs a model in every order there is.
fn explore(name: &str, model: impl Fn() + Send + Sync + 'static) {
    let orders = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = Arc::clone(&orders);
    loom::model(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    #[expect(clippy::print_stdout, reason = "shown by --nocapture")]
    {
        println!("{name}: {} orders", orders.load(Ordering::Relaxed));
    }
}

type Set = fn(&Watermarks, Offset);
type Get = fn(&Watermarks) -> Offset;

#[test]
fn who_sees_a_mark_sees_what_it_covers() {
    let marks: [(&str, Set, Get); 4] = [
        ("end", Watermarks::set_end, Watermarks::end),
        ("visible", Watermarks::set_visible, Watermarks::visible),
        ("written", Watermarks::set_written, Watermarks::written),
        ("durable", Watermarks::set_durable, Watermarks::durable),
    ];
    for (name, set, get) in marks {
        explore(name, move || {
            let shared = Arc::new((Watermarks::new(Offset::ZERO), AtomicUsize::new(0)));
            let setter = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.1.store(1, Ordering::Relaxed);
                    set(&shared.0, Offset::new(1));
                })
            };
            if get(&shared.0) > Offset::ZERO {
                assert_eq!(shared.1.load(Ordering::Relaxed), 1);
            }
            setter.join().unwrap();
        });
    }
}

#[test]
fn marks_keep_their_order() {
    explore("marks keep their order", || {
        let marks = Arc::new(Watermarks::new(Offset::ZERO));
        let setter = {
            let marks = Arc::clone(&marks);
            thread::spawn(move || {
                marks.set_end(Offset::new(1));
                marks.set_visible(Offset::new(1));
                marks.set_written(Offset::new(1));
                marks.set_durable(Offset::new(1));
            })
        };
        let seen = [marks.durable(), marks.written(), marks.visible(), marks.end()];
        assert!(seen.is_sorted(), "{seen:?}");
        setter.join().unwrap();
    });
}

/// It is told once, and a lead it was offered and took is a lead it had before it left.
#[test]
fn a_thread_is_told_and_leads() {
    explore("a thread is told and leads", || {
        let waiter = Waiter::new(Offset::new(1), Role::Committer);
        let teller = {
            let waiter = Arc::clone(&waiter);
            thread::spawn(move || waiter.tell(Ok(())))
        };
        let leader = {
            let waiter = Arc::clone(&waiter);
            thread::spawn(move || waiter.offer_lead())
        };
        let mut led = false;
        loop {
            match waiter.wait() {
                Told::Lead => assert!(!std::mem::replace(&mut led, true)),
                Told::Reached => break,
                Told::Failed(error) => panic!("{error}"),
            }
        }
        teller.join().unwrap();
        assert_eq!(leader.join().unwrap(), led);
    });
}

/// Two never have the turn, and it comes back.
#[test]
fn one_at_a_time_looks() {
    explore("one at a time looks", || {
        let shared = Arc::new((Turn::new(), AtomicUsize::new(0)));
        let look = |shared: &(Turn, AtomicUsize)| {
            let taken = shared.0.take();
            if taken.is_some() {
                assert_eq!(shared.1.fetch_add(1, Ordering::Relaxed), 0);
                shared.1.fetch_sub(1, Ordering::Relaxed);
            }
            taken.is_some()
        };
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || look(&shared))
        };
        let looked = look(&shared);
        assert!(other.join().unwrap() || looked);
        assert!(look(&shared));
    });
}

#[test]
fn the_first_outcome_stays() {
    explore("the first outcome stays", || {
        let waiter = Waiter::new(Offset::new(1), Role::Committer);
        let teller = {
            let waiter = Arc::clone(&waiter);
            thread::spawn(move || waiter.tell(Ok(())))
        };
        let first = waiter.is_waiting().then(|| waiter.tell(Err(crate::commit::front::closed())));
        let told = waiter.wait();
        teller.join().unwrap();
        assert_eq!(format!("{:?}", waiter.wait()), format!("{told:?}"));
        assert!(first.is_some() || matches!(told, Told::Reached));
    });
}

#[test]
fn a_thread_gives_up() {
    explore("a thread gives up", || {
        let waiter = Waiter::new(Offset::new(1), Role::Onlooker);
        let teller = {
            let waiter = Arc::clone(&waiter);
            thread::spawn(move || waiter.tell(Ok(())))
        };
        let ticks = Cell::new(0);
        let now = || Duration::from_secs(ticks.replace(ticks.get() + 1));
        let told = waiter.wait_for(Duration::from_secs(2), now);
        assert!(matches!(told, None | Some(Told::Reached)));
        teller.join().unwrap();
        assert!(!waiter.is_waiting());
    });
}

/// A task that found nothing is woken, once.
#[test]
fn a_task_is_told() {
    #[derive(Debug)]
    struct Alarm(AtomicUsize);
    impl Wake for Alarm {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    explore("a task is told", || {
        let waiter = Waiter::new(Offset::new(1), Role::Future);
        let alarm = Arc::new(Alarm(AtomicUsize::new(0)));
        let teller = {
            let waiter = Arc::clone(&waiter);
            thread::spawn(move || waiter.tell(Ok(())))
        };
        let waker = Waker::from(Arc::clone(&alarm));
        let looks = [(); 2].map(|()| waiter.poll(Context::from_waker(&waker).waker()));
        teller.join().unwrap();
        let rings = alarm.0.load(Ordering::Relaxed);
        match looks {
            [Poll::Pending, Poll::Pending] => assert_eq!(rings, 1),
            [Poll::Pending, Poll::Ready(_)] => assert!(rings <= 1),
            _ => assert_eq!(rings, 0),
        }
        assert!(matches!(waiter.poll(&waker), Poll::Ready(Ok(()))));
    });
}

/// Whatever it is called for, it hears of, with or without a time after which it looks up.
#[test]
fn no_call_is_lost() {
    for timeout in [None, Some(Duration::from_secs(1))] {
        explore("no call is lost", move || {
            let bell = Arc::new(Bell::default());
            let writer = {
                let bell = Arc::clone(&bell);
                thread::spawn(move || bell.call_to_write())
            };
            let caller = {
                let bell = Arc::clone(&bell);
                thread::spawn(move || bell.call(Urgency::Now))
            };
            let mut heard = Calls::default();
            while !heard.write || heard.due < Urgency::Now {
                if let Some(calls) = bell.wait(timeout) {
                    assert_ne!(calls, Calls::default());
                    heard.write |= calls.write;
                    heard.due = heard.due.max(calls.due);
                }
            }
            writer.join().unwrap();
            caller.join().unwrap();
        });
    }
}

#[test]
fn a_stop_is_heard_among_calls() {
    explore("a stop is heard among calls", || {
        let bell = Arc::new(Bell::default());
        let thread = {
            let bell = Arc::clone(&bell);
            thread::spawn(move || while bell.wait(None).unwrap().due != Urgency::Stop {})
        };
        bell.call(Urgency::Soon);
        bell.call(Urgency::Stop);
        bell.call(Urgency::Now);
        thread.join().unwrap();
    });
}
