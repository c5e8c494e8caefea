//! The plain runner: every target, without libFuzzer and with any compiler.
//!
//! ```text
//! cargo run --release --no-default-features --example plain               # 5 s a target
//! cargo run ... --example plain -- --seconds 60 --seed 7 open ops
//! cargo run ... --example plain -- --replay artifacts/open-0123456789abcdef
//! ```
//!
//! It changes the seeds with the numbers of a seeded generator, without looking at coverage, and
//! prints executions a second. An input that fails is written to `artifacts/`. An execution may take
//! [`SECONDS_MAX`], and the whole process [`MEMORY_MAX`]. The canary comes first: if it is not found,
//! nothing else would be, and that is a failure.

use std::io::Write;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};
use stratalog_fuzz::{TARGETS, seeds, targets};

const SECONDS_MAX: u64 = 10;
const MEMORY_MAX: u64 = 512 << 20;
const INPUT_BYTES_MAX: usize = 4096;

type Target = (&'static str, fn(&[u8]));

fn main() -> ExitCode {
    let asked = Asked::from_args();
    if let Some(path) = &asked.replay {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let target = name.split('-').next().unwrap_or_default();
        let (_, run) = all().into_iter().find(|(name, _)| *name == target).expect("a target");
        run(&fs::read(path).expect("the input can be read"));
        println!("{}: nothing fails", path.display());
        return ExitCode::SUCCESS;
    }
    println!("seed {}, {} s a target", asked.seed, asked.seconds.as_secs());
    thread::spawn(watch);
    let canary: Target = ("canary", targets::canary);
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let found = fuzz(canary, &asked);
    panic::set_hook(hook);
    let Some(found) = found else {
        println!("canary: a planted bug was NOT found: this runner finds nothing");
        return ExitCode::FAILURE;
    };
    println!("canary: found, as it must be, by {} bytes", found.len());
    let mut failed = false;
    for target in TARGETS {
        if !asked.targets.is_empty() && !asked.targets.iter().any(|name| name == target.0) {
            continue;
        }
        if let Some(input) = fuzz(*target, &asked) {
            let path = save(target.0, &input);
            println!("{}: FAILED, see {}", target.0, path.display());
            failed = true;
        }
    }
    let peak = peak_memory();
    println!("at most {} MiB of memory", peak >> 20);
    if failed || peak > MEMORY_MAX { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn all() -> Vec<Target> {
    TARGETS.iter().copied().chain([("canary", targets::canary as fn(&[u8]))]).collect()
}

/// Runs a target until its time is over or it fails; gives the input that failed.
fn fuzz((name, run): Target, asked: &Asked) -> Option<Vec<u8>> {
    let seeds = load(name);
    let mut numbers = Numbers(asked.seed);
    let begin = Instant::now();
    let mut executions = 0_u64;
    let failed = loop {
        let input = match seeds.get(usize::try_from(executions).unwrap_or(usize::MAX)) {
            Some(seed) => seed.clone(),
            None => changed(&seeds, &mut numbers),
        };
        *RUNNING.lock().unwrap() = Some((name, Instant::now(), input.clone()));
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| run(&input)));
        *RUNNING.lock().unwrap() = None;
        executions += 1;
        if outcome.is_err() {
            break Some(input);
        }
        if executions > seeds.len() as u64 && begin.elapsed() >= asked.seconds {
            break None;
        }
    };
    let seconds = begin.elapsed().as_secs_f64();
    let rate = executions as f64 / seconds;
    println!("{name}: {executions} executions, {rate:.0} a second, {} seeds", seeds.len());
    std::io::stdout().flush().unwrap();
    failed
}

/// The seeds in the repository and, if somebody has let libFuzzer run, what it found.
fn load(target: &str) -> Vec<Vec<u8>> {
    let dirs = [seeds::dir(target), root().join("corpus").join(target)];
    let files = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten();
    let mut paths: Vec<_> = files.map(|entry| entry.expect("a seed").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{target} has no seeds");
    paths.iter().map(|path| fs::read(path).expect("a seed can be read")).collect()
}

/// One of the seeds with a few changes.
fn changed(seeds: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut input = numbers.pick(seeds).clone();
    for _ in 0..1 + numbers.below(8) {
        change(&mut input, seeds, numbers);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], numbers: &mut Numbers) {
    let at = numbers.below(input.len() + 1);
    let end = (at + 1 + numbers.below(16)).min(input.len());
    match numbers.below(9) {
        0 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (end % 8)),
        1 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte = numbers.byte()),
        2 => input.insert(at, numbers.byte()),
        3 => drop(input.drain(at..end.max(at))),
        4 => {
            let piece = input[at..end.max(at)].to_vec();
            let to = numbers.below(input.len() + 1);
            input.splice(to..to, piece);
        }
        5 => {
            let other = numbers.pick(seeds).clone();
            let from = numbers.below(other.len() + 1);
            input.truncate(at);
            input.extend(&other[from..]);
        }
        6 => {
            const ENDS: [u64; 8] = [0, 1, 0x7f, 0x80, 0xffff, u32::MAX as u64, 1 << 30, u64::MAX];
            let bytes = numbers.pick(&ENDS).to_le_bytes();
            let width = *numbers.pick(&[1, 2, 4, 8]);
            input.iter_mut().skip(at).zip(&bytes[..width]).for_each(|(old, new)| *old = *new);
        }
        7 => {
            let step = numbers.byte() % 16;
            let byte = input.iter_mut().skip(at).take(1);
            byte.for_each(|byte| *byte = byte.wrapping_add(step).wrapping_sub(8));
        }
        _ => {
            let more = 1 + numbers.below(12);
            input.extend((0..more).map(|_| numbers.byte()));
        }
    }
}

/// What runs, since when, with which input.
static RUNNING: LazyLock<Mutex<Option<(&'static str, Instant, Vec<u8>)>>> =
    LazyLock::new(Mutex::default);

/// Ends the process if an execution does not end.
fn watch() {
    loop {
        thread::sleep(Duration::from_millis(200));
        let running = RUNNING.lock().unwrap().clone();
        if let Some((name, since, input)) = running
            && since.elapsed() > Duration::from_secs(SECONDS_MAX)
        {
            let path = save(name, &input);
            println!("{name}: FAILED, more than {SECONDS_MAX} s, see {}", path.display());
            process::exit(1);
        }
    }
}

fn save(target: &str, input: &[u8]) -> PathBuf {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in input {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let path = root().join("artifacts").join(format!("{target}-{hash:016x}"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, input).unwrap();
    path
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The most memory the process ever had; 0 where the system does not tell.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).map(str::trim);
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// What the command line says.
struct Asked {
    seconds: Duration,
    seed: u64,
    targets: Vec<String>,
    replay: Option<PathBuf>,
}

impl Asked {
    fn from_args() -> Self {
        use std::hash::{BuildHasher, RandomState};
        let seed = RandomState::new().hash_one(0);
        let mut asked =
            Self { seconds: Duration::from_secs(5), seed, targets: Vec::new(), replay: None };
        let mut args = env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut number = || args.next().and_then(|arg| arg.parse().ok()).expect("a number");
            match arg.as_str() {
                "--seconds" => asked.seconds = Duration::from_secs(number()),
                "--seed" => asked.seed = number(),
                "--replay" => asked.replay = args.next().map(PathBuf::from),
                name => {
                    assert!(all().iter().any(|(target, _)| *target == name), "no target {name}");
                    asked.targets.push(arg);
                }
            }
        }
        asked
    }
}

/// The same numbers for the same seed (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
