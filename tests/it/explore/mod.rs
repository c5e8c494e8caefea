//! Crash safety, explored: programs on the real code over a mean model of a disk, and every crash
//! they can meet.
//!
//! A program is a word of operations (`program.rs`). It runs once on a simulated machine, which
//! keeps the disk as it was behind each call with an effect, inside opening, rolling and closing
//! too. From each of these moments follow the *states* that a crash leaves: only the process dies,
//! or the power is cut and some set of the unsynced changes gets through, torn at three sizes, with
//! any length a file had, with zeros or garbage where nobody wrote (`support/choice.rs`). In each
//! state the log is opened, what it shows is held against what may be there (`oracle.rs`), the log
//! is used, and it crashes again: inside that recovery, right behind it, inside and behind what was
//! done then. The same goes for programs one call of which fails, once or from then on.
//!
//! States are counted once: distinct are the images, together with what must be found in them. The
//! summary goes to the error stream.
//!
//! How much, by `STRATALOG_EXPLORE`:
//!
//! - not set (`cargo test`): a slice: short programs, scripts, some calls that fail.
//! - `whole`, for `cargo test --release --test it explore`: all programs of up to four operations
//!   (records are removed in those of up to three), 400 random ones, and every call of every script
//!   failing.
//! - `soak`, with `STRATALOG_EXPLORE_MINUTES`: random programs with fresh seeds, three crashes
//!   deep, for as long as that.
//!
//! `STRATALOG_REPLAY='...' cargo test --test it explore::replays -- --nocapture` goes to the one
//! state that a failure printed, and tells the way. `STRATALOG_EXPLORE_SEED` sets the seed that a
//! summary printed.

mod append;
mod consumer;
mod elsewhere;
mod explorer;
mod oracle;
mod play;
mod program;
mod replay;
mod run;
mod search;
mod trail;

use crate::support::LONG;
use crate::support::medium::Numbers;
use explorer::Cuts;
use explorer::Effort;
use explorer::Explorer;
use parking_lot::{Condvar, Mutex};
use program::SCRIPTS;
use search::Search;
use std::env;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use stratalog::storage::{Clock, SystemClock};
use trail::Root;
use trail::TROUBLES;
use trail::Trail;
use trail::Trouble;

#[test]
fn explores_short_programs() {
    // For each length how many choices a cut gets at each grain: fewer where there are more cuts.
    let (choices, least): (&[usize], _) = match Amount::asked() {
        Amount::Slice => (&[64, 32, 6], 10_000),
        Amount::Whole => (&[1024, 512, 128, 20, 3], 1_800_000),
        Amount::Soak(_) => return,
    };
    let mut jobs = Vec::new();
    for (len, choices) in choices.iter().enumerate() {
        let words = program::words(len).into_iter();
        jobs.extend(words.map(|word| job(word, 0, Cuts::OfTheLast, *choices)));
    }
    explore("short programs", &jobs, Effort { children: 2, depth: 2, seed: 1 }, least);
}

#[test]
fn explores_long_programs() {
    let (count, choices, least) = match Amount::asked() {
        Amount::Slice => (4, 2, 10_000),
        Amount::Whole => (340, 6, 400_000),
        Amount::Soak(_) => return,
    };
    let mut jobs = Vec::new();
    for (nth, script) in SCRIPTS.iter().enumerate() {
        // In the slice each with two of the four.
        let options =
            (0..4).filter(|options| count > 4 || (options + nth as u64).is_multiple_of(2));
        jobs.extend(options.map(|options| job((*script).to_owned(), options, Cuts::All, choices)));
    }
    let seed = fresh_seed();
    let mut numbers = Numbers(seed);
    for nth in 0..count {
        // Half of them the same in every run.
        let mut same = Numbers(nth);
        let numbers = if nth % 2 == 0 { &mut same } else { &mut numbers };
        let (word, options) = (program::random_word(numbers), numbers.next());
        jobs.push(job(word, options, Cuts::All, choices));
    }
    let effort = Effort { children: 2, depth: 2, seed };
    explore("long programs", &jobs, effort, least);
}

#[test]
fn explores_programs_whose_calls_fail() {
    let (every, least) = match Amount::asked() {
        Amount::Slice => (149, 1_000),
        Amount::Whole => (1, 450_000),
        Amount::Soak(_) => return,
    };
    let mut jobs = Vec::new();
    // Those that make a sync fail by themselves have trouble enough.
    let scripts = SCRIPTS.iter().filter(|script| !script.contains(['f', 'g']));
    for (nth, script) in scripts.enumerate() {
        let root = Root { word: (*script).to_owned(), options: nth as u64 % 4, trouble: None };
        let jobs_before = jobs.len() as u64;
        jobs.extend(failing(&root, every, jobs_before));
    }
    let effort = Effort { children: 1, depth: 2, seed: 1 };
    explore("programs whose calls fail", &jobs, effort, least);
}

/// What is done with a consumer, with its records coming and going.
#[test]
fn explores_consumers() {
    let (len, choices, every, least) = match Amount::asked() {
        Amount::Slice => (2, 4, 149, 5_000),
        Amount::Whole => (3, 24, 1, 100_000),
        Amount::Soak(_) => return,
    };
    let mut jobs = Vec::new();
    for (nth, word) in program::consumer_words(len).into_iter().enumerate() {
        jobs.push(job(word, nth as u64 % 3, Cuts::OfTheLast, choices));
    }
    for (nth, script) in program::CONSUMER_SCRIPTS.iter().enumerate() {
        let root = Root { word: (*script).to_owned(), options: nth as u64 % 4, trouble: None };
        jobs.push(Job { root: root.clone(), cuts: Cuts::All, choices });
        if !script.contains(['f', 'g']) {
            let jobs_before = jobs.len() as u64;
            jobs.extend(failing(&root, every, jobs_before));
        }
    }
    explore("consumers", &jobs, Effort { children: 2, depth: 2, seed: 1 }, least);
}

/// Fresh programs until the time is up.
#[test]
fn explores_for_as_long_as_is_asked() {
    let Amount::Soak(time) = Amount::asked() else { return };
    let clock = SystemClock::new();
    let (start, mut rounds) = (clock.monotonic(), 0);
    while clock.monotonic() - start < time {
        let seed = fresh_seed();
        let mut numbers = Numbers(seed);
        let mut jobs = Vec::new();
        for _ in 0..200 {
            let (word, options) = (program::random_word(&mut numbers), numbers.next());
            let mut root = Root { word, options, trouble: None };
            // Those that make a sync fail by themselves have trouble enough.
            if numbers.below(3) == 0 && !root.word.contains(['f', 'g']) {
                let (kind, is_sticky) = *numbers.pick(&troubles());
                root.trouble = Some(Trouble { nth: 1 + numbers.below(300), kind, is_sticky });
            }
            let cuts = if root.trouble.is_some() { Cuts::BehindTrouble } else { Cuts::All };
            jobs.push(Job { root, cuts, choices: 8 });
        }
        let effort = Effort { children: 3, depth: 3, seed };
        explore("soak", &jobs, effort, 1_000);
        rounds += 1;
    }
    assert!(rounds > 0, "no time to explore anything");
}

/// Does nothing unless a line to replay is given.
#[test]
fn replays() {
    let Ok(line) = env::var("STRATALOG_REPLAY") else { return };
    let trail: Trail = line.parse().unwrap();
    let (story, result) = replay::replay(&trail);
    say(&story);
    assert_eq!(result, Ok(()), "{trail}");
}

/// The lines of bugs of the past.
#[test]
fn what_was_found_is_repaired() {
    for line in [
        // A file that was left behind was removed when its name had been given to another.
        "program=WmlwAhbrNqakmpNchW;options=2;trouble=p134+;cut=97;crash=kill;go=mc",
        "program=oNlkMebwrjwhzbqAck;options=2;trouble=p217+;cut=164;\
         crash=64:g:0.1+1.1+2.1:1110000;go=mc",
        "program=WmlwAhbrNqakmpNchW;options=1;trouble=e417",
    ] {
        let (story, result) = replay::replay(&line.parse().unwrap());
        assert_eq!(result, Ok(()), "{line}\n{story}");
    }
}

/// Any state's line leads back to it.
#[test]
fn a_trail_is_read_as_it_was_printed() {
    for line in [
        "program=acr;options=0;cut=52;crash=kill;go=bWs",
        "program=a;options=3;trouble=e17+;cut=12;crash=64:g:0.2+1.0:10;go=mc;cut=4;crash=kill;go=a",
    ] {
        let trail: Trail = line.parse().unwrap();
        assert_eq!(trail.to_string(), line);
    }
    let trail: Trail =
        "program=aA;options=0;cut=40;crash=kill;go=bWs;cut=20;crash=kill;go=a".parse().unwrap();
    let (story, result) = replay::replay(&trail);
    assert_eq!(result, Ok(()), "{story}");
    assert!(story.contains("Kill behind call 20"), "{story}");
}

/// A program to be explored.
struct Job {
    root: Root,
    cuts: Cuts,
    /// For each cut and grain.
    choices: usize,
}

fn job(word: String, options: u64, cuts: Cuts, choices: usize) -> Job {
    Job { root: Root { word, options, trouble: None }, cuts, choices }
}

/// The program with every so manyth of its calls failing.
fn failing(root: &Root, every: u64, jobs_before: u64) -> Vec<Job> {
    let mut run = play::start(root);
    play::play(&mut run, root).unwrap();
    let calls = run.machine.steps();
    let mut jobs = Vec::new();
    for (kind, is_sticky) in troubles() {
        let shift = jobs_before + jobs.len() as u64;
        for nth in (1..=calls).filter(|nth| (nth + shift).is_multiple_of(every)) {
            let trouble = Some(Trouble { nth, kind, is_sticky });
            let root = Root { trouble, ..root.clone() };
            jobs.push(Job { root, cuts: Cuts::BehindTrouble, choices: 2 });
        }
    }
    jobs
}

fn troubles() -> Vec<(char, bool)> {
    let both = TROUBLES.iter().flat_map(|(kind, _)| [(*kind, false), (*kind, true)]);
    // Whoever is interrupted each time tries for ever, and that is in order; and a disk that is
    // full stays full.
    both.filter(|trouble| !matches!(trouble, ('i', true) | ('p' | 'q' | 'c' | 'd', false)))
        .collect()
}

/// Explores the jobs on all cores, says what came of it, and fails if a promise was broken.
#[track_caller]
fn explore(what: &str, jobs: &[Job], effort: Effort, least: u64) {
    let clock = SystemClock::new();
    let start = clock.monotonic();
    let explorer = Explorer::new();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(Job { root, cuts, choices }) = jobs.get(next.fetch_add(1, Ordering::Relaxed))
        {
            if explorer.is_done() {
                return;
            }
            explorer.count_program();
            Search::new(&explorer, root, effort).run(*cuts, *choices);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (left, done) = (Mutex::new(threads), Condvar::new());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                work();
                *left.lock() -= 1;
                done.notify_all();
            });
        }
        let mut left = left.lock();
        while *left > 0 {
            let before = explorer.states.load(Ordering::Relaxed);
            let waited = done.wait_for(&mut left, LONG * 4);
            if waited.timed_out() && before == explorer.states.load(Ordering::Relaxed) {
                say(&format!("it hangs: {:?}", explorer.places()));
                std::process::exit(1);
            }
        }
    });
    let secs = (clock.monotonic() - start).as_secs_f64();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let [programs, cuts] = [&explorer.programs, &explorer.cuts].map(count);
    let [states, distinct] = [&explorer.states, &explorer.distinct].map(count);
    let seed = effort.seed;
    let counts = format!("{cuts} cuts, {states} states, {distinct} distinct");
    say(&format!("{what}, seed {seed}: {programs} programs, {counts}, {secs:.1} s"));
    let broken = explorer.broken();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(distinct >= least, "{distinct} distinct states, {least} were promised");
}

/// How much is explored.
enum Amount {
    Slice,
    Whole,
    Soak(Duration),
}

impl Amount {
    fn asked() -> Self {
        match env::var("STRATALOG_EXPLORE").as_deref() {
            Err(_) => Self::Slice,
            Ok("whole") => Self::Whole,
            Ok("soak") => {
                let minutes = env::var("STRATALOG_EXPLORE_MINUTES");
                let minutes: u64 = minutes.as_deref().unwrap_or("10").parse().unwrap();
                Self::Soak(Duration::from_secs(60 * minutes))
            }
            Ok(other) => panic!("STRATALOG_EXPLORE is whole or soak, not {other}"),
        }
    }
}

fn fresh_seed() -> u64 {
    let given = env::var("STRATALOG_EXPLORE_SEED");
    given.map_or_else(|_| RandomState::new().hash_one(0), |seed| seed.parse().unwrap())
}

fn say(what: &str) {
    // Not captured, so that a run that is green says what it did, too.
    std::io::stderr().write_all(format!("{what}\n").as_bytes()).unwrap();
}
