//! Follows a log that another process writes to, and measures how much later it sees each record.
//!
//! The program starts itself as the writer, which puts the time into every record. The reader waits
//! for each with a [`LogReader`], until the writer has closed the log.

#![expect(clippy::indexing_slicing, reason = "the places are below the lengths")]
#![expect(clippy::print_stdout, reason = "an example shows what it does")]
#![expect(clippy::disallowed_methods, reason = "two processes have only the time of day in common")]

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use stratalog::{Durability, Log, LogReader, Options, Seek};

const RECORDS: u64 = 300;

/// The pauses of the writer, and what its records go through before `append` returns.
const RUNS: [(&str, Durability, Duration); 4] = [
    ("synced, every 1 ms", Durability::Synced, Duration::from_millis(1)),
    ("written, every 1 ms", Durability::Written, Duration::from_millis(1)),
    ("written, every 20 ms", Durability::Written, Duration::from_millis(20)),
    ("written, every 120 ms", Durability::Written, Duration::from_millis(120)),
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [path, run] => write(Path::new(path), run.parse()?),
        [] => read_all(),
        _ => Err("no arguments are needed".into()),
    }
}

fn read_all() -> Result<(), Box<dyn Error>> {
    let dir = env::temp_dir().join(format!("stratalog-follow-{}", std::process::id()));
    for (run, (name, ..)) in RUNS.iter().enumerate() {
        let path = dir.join(run.to_string());
        Log::open(&path)?.close()?;
        let reader = LogReader::open(&path)?;
        let mut writer =
            Command::new(env::current_exe()?).arg(&path).arg(run.to_string()).spawn()?;
        let mut late = read(&reader)?;
        if !writer.wait()?.success() {
            return Err("the writer failed".into());
        }
        late.sort_unstable();
        let share = |percent: usize| late[(late.len() - 1) * percent / 100];
        println!(
            "{name}: {} records seen, half of them within {} us, 99 of 100 within {} us",
            late.len(),
            share(50),
            share(99)
        );
        println!("the writer is gone: {}", !reader.has_writer()?);
    }
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

/// How many microseconds after its `append` began each record was seen: for one that is synced, the
/// sync is among them.
fn read(reader: &LogReader) -> Result<Vec<u64>, Box<dyn Error>> {
    let mut cursor = reader.cursor(Seek::Start)?;
    let mut late = Vec::new();
    while cursor.wait(Duration::from_secs(10))? {
        while let Some(entry) = cursor.next()? {
            let seen = now()?;
            let sent = u64::from_le_bytes(entry.value().try_into()?);
            if sent == 0 {
                return Ok(late);
            }
            late.push(seen.saturating_sub(sent));
        }
    }
    Err("the writer has stopped".into())
}

fn write(path: &Path, run: usize) -> Result<(), Box<dyn Error>> {
    let (_, level, pause) = RUNS[run];
    let log = Options::new().durability(level).open(path)?;
    for _ in 0..RECORDS.min(2_000_000 / u64::try_from(pause.as_micros())?.max(1)) {
        thread::sleep(pause);
        log.append(&now()?.to_le_bytes())?;
    }
    log.append(&0_u64.to_le_bytes())?;
    log.close()?;
    Ok(())
}

fn now() -> Result<u64, Box<dyn Error>> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?)
}
