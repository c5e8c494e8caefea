//! Writes the seeds: `cargo run --release --no-default-features --example seeds`. With `--check` it
//! only says whether those in the repository are these.

use std::{env, fs, process};
use stratalog_fuzz::{TARGETS, seeds};

fn main() {
    let checks = env::args().any(|arg| arg == "--check");
    let mut other = 0;
    let names = TARGETS.iter().map(|(name, _)| *name).chain(["canary"]);
    for target in names {
        let dir = seeds::dir(target);
        for (name, bytes) in seeds::of(target) {
            let path = dir.join(name);
            if fs::read(&path).is_ok_and(|there| there == bytes) {
                continue;
            }
            other += 1;
            if checks {
                println!("{}: not what the generator makes", path.display());
            } else {
                fs::create_dir_all(&dir).unwrap();
                fs::write(&path, bytes).unwrap();
            }
        }
    }
    println!("{other} seeds {}", if checks { "differ" } else { "written" });
    if checks && other > 0 {
        process::exit(1);
    }
}
