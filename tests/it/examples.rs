//! The examples, run as programs: each must succeed and say what it is there to show.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each example, and the words its output has in this order.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "backup",
        &[
            "the backup opens and has all records up to the end it was taken at\n",
            "open: Corrupt\n",
            "verify: ",
            "repaired: all but a few records are read, at their offsets\n",
            "the backup has every record that was lost\n",
        ],
    ),
    (
        "causality",
        &[
            "1 shop [order-17] may 17 pay 30?\n\
             2 bank [order-17] it may\n3 shop [order-17] thank you",
            "4 shop [order-18] may 18 pay 5?\n\
             5 bank [order-18] it may\n6 shop [order-18] thank you",
            "after a restart the shop goes on at 7",
        ],
    ),
    (
        "changelog_table",
        &[
            "appended 4933 changes, compacted ",
            "compacted up to offset 4933: ",
            "the log holds 122 records, and replays to the same table\n",
        ],
    ),
    (
        "consumers",
        &[
            "the ledger crashed after 120 orders: true",
            "the ledger crashed after 70 orders: true",
            "it goes on at 500, 2617257 cents of 523 orders",
            "cents of 1000 orders, as it should: true",
            "mail is slow: removed 4 segments with 400 records ",
            ", unread by mail\n",
            "  ledger has committed Some(Offset(1000)), lag Some(0)",
            "  mail has committed Some(Offset(400)), lag Some(600)",
            "mail has caught up: removed 6 segments with 600 records ",
            "the log starts at 1000 and is empty\n",
        ],
    ),
    (
        "partitions",
        &[
            "20000 records in 4 partitions",
            "customer-17 is in partition 3, here and everywhere",
            "read in parallel: 1000 keys, each in its order",
            "so there are not 6 partitions",
            "copied to 6: 1000 keys, each in its order",
        ],
    ),
    (
        "follow",
        &[
            "synced, every 1 ms: 300 records seen, half of them within ",
            "the writer is gone: true",
            "written, every 1 ms: 300 records seen, half of them within ",
            "written, every 20 ms: 100 records seen, ",
            "written, every 120 ms: 16 records seen, ",
            "the writer is gone: true",
        ],
    ),
    (
        "quickstart",
        &[
            "a child process was killed when ",
            "recovery: not closed: ",
            " records are there, all that were acknowledged\n",
            "read 4933 records of 312561 bytes, ",
            "the last values of 122 paths are those of the repository\n",
            "backwards: 4932 tests/basic_tests.rs\n",
            "reopened: closed cleanly\n",
            "everything is as it should be\n",
        ],
    ),
    (
        "replication",
        &[
            "primary-backup: the log holds results\n",
            "  bert takes offsets 2 to 3 (",
            "  anna ends at 5, lamport 5: ",
            "  bert ends at 6, lamport 6: ",
            "  recovery: not closed: ",
            "have all below 3 in common; anna is cut there\n  anna takes offsets 3 to 6 (",
            "  anna ends at 6, lamport 6: ",
            "what caused what: r1@1 r2@2 r3@3 r6@4 r4@5 r7@6\n",
            "refused: the log ends at 6, and the frames begin at 0",
            "state machine replication: the log holds inputs\n",
            "have all below 3 in common; anna is cut there\n",
            "both ended with replicas that are alike\n",
        ],
    ),
    (
        "retention",
        &[
            "hour 24: removed 0 segments",
            "hour 36: removed 12 segments with 720 records",
            "after three days: offsets 2160 to 4320 in 36 segments",
            "the sleeper is told: offset 1 is outside the log",
            "and goes on with Some(Offset(2160))",
            "the active segment ended: true",
            "the log starts at 4320 and is empty",
            "the next reading gets offset 4320",
        ],
    ),
];

#[test]
fn each_example_shows_what_it_says() {
    for (name, words) in EXAMPLES {
        let output = Command::new(program(name)).output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{name}: {stdout}\n{stderr}");
        let mut rest = stdout.as_str();
        for word in *words {
            let Some((_, behind)) = rest.split_once(word) else {
                panic!("{name} does not say {word:?} where it should:\n{stdout}");
            };
            rest = behind;
        }
    }
}

#[test]
fn each_example_is_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = fs::read_dir(folder).unwrap();
    let found: BTreeSet<String> = files
        .map(|file| file.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let run = EXAMPLES.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(found, run.collect());
}

/// `cargo test` builds the examples and puts them beside the folder of this program; if it is asked
/// for tests by name, it does not.
fn program(name: &str) -> PathBuf {
    let tests = env::current_exe().unwrap();
    let profile = tests.parent().unwrap().parent().unwrap();
    let file = format!("{name}{}", env::consts::EXE_SUFFIX);
    let program = profile.join("examples").join(file);
    if !program.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--example", name]);
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().unwrap().success(), "{name} does not build");
    }
    program
}
