//! The tests are tested: each of the mistakes in `src/bugs.rs` is switched on, and a test finds it.
//!
//! Only a build with `--cfg stratalog_bugs` has this file. A bug is for a whole process, so each
//! runs in one of its own: this test binary, with the variable that names the bug and a filter that
//! names the tests. They have to fail in time, and to pass with no bug. To add one: the switch
//! in `src/bugs.rs`, and here the test that finds it soonest; if none does, that is the news.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use stratalog::SEEDED_BUGS;
use stratalog::storage::{Clock, SystemClock};

/// A bug, and the tests that find it soonest: the begin of their names. A bug that is listed twice
/// has to be found twice.
const FOUND_BY: &[(&str, &str)] = &[
    ("AckBeforeSync", "order::a_long"),
    ("SyncErrorIgnored", "failure::a_failed_sync_poisons"),
    ("SyncRetried", "order::programs"),
    ("SyncCoversMore", "order::a_sync_covers"),
    ("OldSegmentLeftOut", "order::a_long"),
    ("OneOldSegment", "order::a_long"),
    ("PoisonForgotten", "failure::a_failed_sync_is_never"),
    ("WaitersToldSuccess", "failure::a_failed_sync_poisons"),
    ("PublishedBeforeWritten", "unnoticed::what_is_being"),
    ("ShortWriteTaken", "failure::interrupted"),
    ("ZerosOverFrames", "order::a_long"),
    ("BatchInPieces", "recovery::a_batch_is_whole"),
    ("GapTooSmall", "order::a_long"),
    ("TimeGoesBack", "time::append_times_do_not_fall"),
    ("ResidueStays", "failure::what_was_refused"),
    ("ErasureNotSynced", "failure::what_was_refused"),
    ("AcceptedTakenBack", "failure::records_accepted"),
    ("RefusableShown", "unnoticed::what_is_being"),
    ("NoReserve", "failure::a_log_that_has_nothing"),
    ("NamesNotSynced", "order::a_long"),
    ("ManifestNotSynced", "order::a_long"),
    ("RenameNotSynced", "order::a_long"),
    ("DirFailureRefused", "order::programs"),
    ("FailedManifestKept", "order::programs"),
    ("ManifestFailureIgnored", "order::programs"),
    ("HeaderNotSynced", "order::a_long"),
    ("RollIgnoresFailedSync", "order::programs"),
    ("EndedIsSealed", "order::a_long"),
    ("BegunTooSoon", "prepare::no_manifest_calls"),
    ("PreparedOutlivesCut", "repair::a_manifest_is_made"),
    ("IdReused", "order::a_long"),
    ("OneSeed", "corruption::frames_of_another"),
    ("CloseWithoutSync", "order::a_long"),
    ("ClosedAfterFailure", "failure::a_failed_sync_is_never"),
    ("LockFreedEarly", "unnoticed::a_log_is_locked"),
    ("DirNotSyncedAtOpen", "unnoticed::a_rename_left"),
    ("ClosedBelieved", "order::a_long"),
    ("PreparedLeftOut", "prepare::what_was_synced"),
    ("BegunNotSeen", "prepare_seen::a_reader_goes_on"),
    ("PassedBelieved", "prepare::a_segment_that_ended"),
    ("BegunHeaderLeft", "prepare::a_header_whose"),
    ("BegunMarksIgnored", "prepare::a_damaged_header"),
    ("WrittenBelieved", "order::a_long"),
    ("ServedUnsynced", "order::a_long"),
    ("CacheTrusted", "order::programs"),
    ("FirstUnprovenLeft", "order::a_long"),
    ("OnlyActiveRewritten", "order::a_long"),
    ("TornTailStays", "recovery::what_was_cut"),
    ("LaterMarkIgnored", "recovery::damage_below"),
    ("ShortSegmentKept", "unnoticed::a_written_segment"),
    ("HoleLeft", "recovery::a_clean_close_after"),
    ("LastTimeForgotten", "time::append_times_do_not_fall"),
    ("BadFrameSkipped", "recovery::damage_below"),
    ("RemovedEarly", "order::a_long"),
    ("NewerSegmentRemoved", "recovery::a_manifest_older"),
    ("OutputNotSynced", "order::a_long"),
    ("OutputNotSynced", "compaction_faults::a_crash_at_every"),
    ("InputsRemovedFirst", "order::a_long"),
    ("OutputIdNotUsedUp", "order::a_long"),
    ("OutputIdNotUsedUp", "compaction_faults::a_crash_at_every"),
    ("TombstoneGoesEarly", "compaction_keeper::maintenance_by_hand"),
    ("TombstoneGoesAboveAside", "compaction_faults::each_call"),
    ("FullMapIgnored", "compaction::a_run_that_is_full"),
    ("CompactedTooFar", "compaction_keeper::in_the_background_runs"),
    ("CompactedNotTakenBack", "compaction_faults::a_run_that_goes_back"),
    ("HoleForgotten", "compaction::holes_are"),
    ("TruncationUnseen", "compaction_beside::a_run_beside"),
    ("RunOutlivesClose", "compaction_beside::closing_ends"),
    ("ManifestUnchecked", "recovery::a_damaged_manifest"),
    ("BodyUnchecked", "unnoticed::a_frame_with"),
    ("ReadUnchecked", "corruption::each_changed"),
    ("HeaderUnchecked", "corruption::frames_of_another"),
    ("IndexBelieved", "corruption::an_index_that_lies"),
    ("UndurableShown", "append::weaker"),
];

/// A test that takes longer has not found anything.
const BUDGET: Duration = Duration::from_secs(60);

#[test]
fn every_bug_has_a_test_that_is_said_to_find_it() {
    let mut listed: Vec<&str> = FOUND_BY.iter().map(|(bug, _)| *bug).collect();
    listed.dedup();
    assert_eq!(listed, SEEDED_BUGS);
}

#[test]
fn each_bug_is_found_and_no_bug_is_clean() {
    let filters: BTreeSet<&str> = FOUND_BY.iter().map(|(_, filter)| *filter).collect();
    let chosen = env::var("STRATALOG_SEEDED").unwrap_or_default();
    let clean = filters.into_iter().map(|filter| ("", filter));
    let jobs: Vec<_> = clean.chain(FOUND_BY.iter().copied()).collect();
    let jobs = Mutex::new(jobs.into_iter().filter(|(bug, _)| bug.contains(&chosen)));
    let reports = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some((bug, filter)) = jobs.lock().unwrap().next() else { return };
            let report = run(bug, filter);
            reports.lock().unwrap().push(report);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut reports = reports.into_inner().unwrap();
    reports.sort_by_key(|report| SEEDED_BUGS.iter().position(|bug| *bug == report.bug));
    let wrong = reports.iter().filter(|report| !report.is_right());
    let wrong: Vec<_> = wrong.map(|report| format!("{}: {}", report.bug, report.filter)).collect();
    writeln!(std::io::stderr(), "{}", table(&reports)).unwrap();
    assert!(wrong.is_empty(), "not found, or found where no bug is:\n{}", wrong.join("\n"));
}

/// What came of the tests with a bug, or with none.
#[derive(Debug)]
struct Report {
    bug: &'static str,
    filter: &'static str,
    outcome: Outcome,
    /// The first test that failed.
    test: String,
    /// How many states the explorer saw before.
    states: Option<String>,
    secs: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    OutOfTime,
    /// It ended in another way, or there is no such test.
    Strange,
}

impl Report {
    fn is_right(&self) -> bool {
        let expected = if self.bug.is_empty() { Outcome::Passed } else { Outcome::Failed };
        self.outcome == expected
    }
}

fn table(reports: &[Report]) -> String {
    let mut out = format!("{:<24} {:<58} after", "bug", "found by");
    for report in reports {
        let bug = if report.bug.is_empty() { "(none)" } else { report.bug };
        let test = match report.outcome {
            Outcome::Failed => report.test.clone(),
            other => format!("{} {other:?}", report.filter),
        };
        write!(out, "\n{bug:<24} {test:<58} {:.1} s", report.secs).unwrap();
        if let Some(states) = &report.states {
            write!(out, ", {states} states").unwrap();
        }
    }
    out
}

fn run(bug: &'static str, filter: &'static str) -> Report {
    let clock = SystemClock::new();
    let start = clock.monotonic();
    let mut child = Command::new(env::current_exe().unwrap())
        .args([filter, "--test-threads=1"])
        .env("STRATALOG_BUG", bug)
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        });
        while child.try_wait().unwrap().is_none() {
            if clock.monotonic() - start > BUDGET {
                child.kill().unwrap();
            }
            thread::park_timeout(Duration::from_millis(5));
        }
        reader.join().unwrap().unwrap_or_default()
    });
    let secs = (clock.monotonic() - start).as_secs_f64();
    let status = child.wait().unwrap();
    let mut failed = reader.lines().filter(|line| line.ends_with("... FAILED"));
    let test = failed.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let found = reader.lines().find_map(|line| line.trim().strip_prefix("after "));
    let states = found.and_then(|rest| rest.split(' ').next()).map(str::to_owned);
    let outcome = match status.code() {
        _ if secs > BUDGET.as_secs_f64() => Outcome::OutOfTime,
        Some(0) if !reader.contains("running 0 tests") => Outcome::Passed,
        Some(101) if !test.is_empty() => Outcome::Failed,
        _ => Outcome::Strange,
    };
    Report { bug, filter, outcome, test: test.to_owned(), states, secs }
}
