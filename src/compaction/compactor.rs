//! Who compacts, and when: one run at a time, which hurries when somebody waits for it, and ends
//! soon when the log does.

use crate::bugs::Bug;
use crate::commit::Bell;
use crate::commit::Commit;
use crate::commit::Urgency;
use crate::compaction::CompactionReport;
use crate::compaction::Pause;
use crate::compaction::Run;
use crate::compaction::freeing::Freeing;
use crate::compaction::pace::Halt;
use crate::compaction::pace::Pace;
use crate::compaction::pace::Wanted;
use crate::compaction::plan;
use crate::compaction::plan::Outlook;
use crate::compaction::report::End;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::events::event;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::options::Compaction;
use crate::state::Segments;
use crate::storage::Clock;
use crate::sync::AtomicBool;
use crate::sync::AtomicUsize;
use crate::sync::Condvar;
use crate::sync::Mutex;
use crate::sync::thread;
use crate::sync::thread::ThreadId;
use crate::units::Offset;
use crate::units::Timestamp;
use std::collections::HashMap;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What compacts a log.
#[derive(Debug)]
pub(crate) struct Compactor {
    segments: Arc<Segments>,
    commit: Arc<Commit>,
    clock: Arc<dyn Clock>,
    settings: Compaction,
    segment_bytes: u64,
    /// Wakes whoever pauses during a run.
    bell: Arc<Bell>,
    /// The thread that does a run.
    runner: Mutex<Option<ThreadId>>,
    /// Told when a run is over, and when no other begins.
    over: Condvar,
    /// How many wait for a run, the one that they are doing included.
    urgent: AtomicUsize,
    is_stopped: AtomicBool,
    /// Whether the last run had no room for all keys: then another is due. The segments tell only
    /// if it ended within one.
    was_full: AtomicBool,
    last: Mutex<Option<CompactionReport>>,
    /// Why a run could not remove a file, which is no error of the run.
    not_removed: Mutex<Option<Error>>,
}

impl Compactor {
    pub(crate) fn new(
        segments: Arc<Segments>,
        commit: Arc<Commit>,
        clock: Arc<dyn Clock>,
        (settings, segment_bytes): (Compaction, u64),
        bell: Arc<Bell>,
    ) -> Self {
        Self {
            segments,
            commit,
            clock,
            settings,
            segment_bytes,
            bell,
            runner: Mutex::new(None),
            over: Condvar::default(),
            urgent: AtomicUsize::new(0),
            is_stopped: AtomicBool::new(false),
            was_full: AtomicBool::new(false),
            last: Mutex::new(None),
            not_removed: Mutex::new(None),
        }
    }

    /// Does one run, at full speed, behind one that is under way, which then hurries as well.
    pub(crate) fn run(&self) -> Result<CompactionReport> {
        if self.is_runner() {
            let what = "compaction was asked for by a callback of its own";
            return Err(Error::new(ErrorKind::InvalidInput, what));
        }
        let urgent = Urgent::begin(self);
        let turn = Turn::begin(self)?;
        let ran = self.run_over(&mut |_| ControlFlow::Continue(()));
        drop((turn, urgent));
        // Whoever compacts in the background goes on, and may have been called while this one ran.
        self.bell.call(Urgency::Soon);
        ran
    }

    /// Does a run if one is due and none is under way. `pause` is called every now and then with
    /// how long to pause, often not at all, and tells whether to go on.
    pub(crate) fn run_if_due(&self, pause: Pause<'_>) -> Result<Option<CompactionReport>> {
        let Some(_turn) = Turn::try_begin(self) else { return Ok(None) };
        if !self.has_ended() && self.is_due() { self.run_over(pause).map(Some) } else { Ok(None) }
    }

    fn is_due(&self) -> bool {
        let (rows, compacted_to) = self.rows();
        self.has_more(&rows, compacted_to)
            || plan::was_full(&rows, compacted_to)
            || plan::is_due(&rows, compacted_to, &self.settings, self.now())
    }

    /// Whether the last run left something to do for want of memory that is still there.
    fn has_more(&self, rows: &[Row], compacted_to: Offset) -> bool {
        self.was_full.load(Ordering::Relaxed)
            && rows.iter().any(|row| row.end_offset > compacted_to)
    }

    /// When a run can become due although nothing is done to the log; `None`: never.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        let (rows, compacted_to) = self.rows();
        if self.has_more(&rows, compacted_to) {
            return Some(self.now());
        }
        let (rows, compacted_to) = self.all_rows();
        plan::next_due(&rows, compacted_to, &self.settings, self.now())
    }

    /// What the next run would find.
    pub(crate) fn outlook(&self) -> Outlook {
        let (rows, compacted_to) = self.rows();
        Outlook::of(&rows, compacted_to)
    }

    /// What the last run did that came to an end.
    pub(crate) fn last(&self) -> Option<CompactionReport> {
        self.last.lock().clone()
    }

    /// Why a file could not be removed since this was asked last: for somebody to be told.
    pub(crate) fn take_not_removed(&self) -> Option<Error> {
        self.not_removed.lock().take()
    }

    /// Lets no other run begin, and makes the one under way end.
    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        // Whoever has looked before waits by now.
        drop(self.runner.lock());
        self.over.notify_all();
        self.bell.call(Urgency::Soon);
    }

    /// Waits for the end of the run under way.
    pub(crate) fn wait_for_end(&self) {
        // From within a run nobody can wait for its end: it changes nothing any more.
        let current = thread::current().id();
        let mut runner = self.runner.lock();
        while runner.is_some_and(|runner| runner != current) && !Bug::RunOutlivesClose.is_on() {
            self.over.wait(&mut runner);
        }
    }

    /// Whether nobody who pauses should go on doing so.
    pub(crate) fn is_hurried(&self) -> bool {
        self.urgent.load(Ordering::Relaxed) > 0 || self.has_ended()
    }

    fn has_ended(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// The thread that does a run, whose callbacks are called there.
    pub(crate) fn runner(&self) -> Option<ThreadId> {
        *self.runner.lock()
    }

    fn is_runner(&self) -> bool {
        self.runner() == Some(thread::current().id())
    }

    /// The time. Zero is how a row says that there is none.
    fn now(&self) -> Timestamp {
        match self.clock.now() {
            Timestamp::ZERO => Timestamp::from_micros(1),
            now => now,
        }
    }

    /// The segments that may be compacted now, and how far they have been.
    fn rows(&self) -> (Vec<Row>, Offset) {
        let (mut rows, compacted_to) = self.all_rows();
        let eligible = plan::eligible(&rows, compacted_to, &self.settings, self.now()).len();
        rows.truncate(eligible);
        (rows, compacted_to)
    }

    /// The segments, those that are durable as what they will be called in the next manifest.
    fn all_rows(&self) -> (Vec<Row>, Offset) {
        let durable = self.commit.marks().durable();
        let state = self.segments.state();
        let compacted_to = state.manifest.compacted_to;
        let mut rows = state.manifest.rows.clone();
        for row in rows.iter_mut().filter(|row| row.end_offset <= durable) {
            if row.state == RowState::Written {
                row.state = RowState::Sealed;
            }
        }
        (rows, compacted_to)
    }

    fn run_over(&self, pause: Pause<'_>) -> Result<CompactionReport> {
        // Changes nothing, but is an error if the log is closed.
        self.commit.edit_sealed(|_| false)?;
        let wanted = || match self.urgent.load(Ordering::Relaxed) {
            _ if self.has_ended() => Wanted::Nothing,
            0 => Wanted::Slow,
            _ => Wanted::Fast,
        };
        let mut pause = |time: Duration| {
            // What is done during a pause may close the log, and then nothing more is done to it.
            match self.has_ended() || pause(time).is_break() || self.has_ended() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let pace = Pace::new(&self.settings, &*self.clock, &mut pause, &wanted);
        let mut run = self.begin(pace);
        // Who is told may use the log as the progress callback may.
        event!(
            DEBUG,
            path = %self.segments.dir().path().display(),
            from = run.from.get(),
            segments = run.rows.len(),
            "compacting"
        );
        let ran = run.run();
        if let Some(error) = run.not_removed.take() {
            *self.not_removed.lock() = Some(error);
        }
        match ran {
            Ok(()) => {}
            Err(Halt::Stopped) => {
                run.report.end = End::Stopped;
                run.report.compacted_to = self.segments.state().manifest.compacted_to;
            }
            Err(Halt::Unreadable(error) | Halt::Failed(error)) => return Err(error),
        }
        self.was_full.store(run.report.end == End::Full, Ordering::Relaxed);
        *self.last.lock() = Some(run.report.clone());
        Ok(run.report)
    }

    fn begin<'a>(&'a self, pace: Pace<'a>) -> Run<'a> {
        // Before the rows: a log that is truncated in between has another epoch.
        let state = self.segments.state();
        let manifest = &state.manifest;
        let (rows, _) = self.rows();
        Run {
            segments: &self.segments,
            commit: &self.commit,
            settings: &self.settings,
            segment_bytes: self.segment_bytes,
            pace,
            now: self.now(),
            start: manifest.start_offset,
            log_id: manifest.log_id,
            truncations: manifest.truncation_epoch,
            compacted_to: manifest.compacted_to,
            from: manifest.compacted_to,
            rows,
            aside: HashSet::new(),
            previous: None,
            ids: 0..0,
            kept: HashMap::new(),
            not_removed: None,
            freeing: Freeing::default(),
            report: CompactionReport::default(),
        }
    }
}

/// While it lives, runs hurry, those of others too.
struct Urgent<'a>(&'a Compactor);

impl<'a> Urgent<'a> {
    fn begin(compactor: &'a Compactor) -> Self {
        compactor.urgent.fetch_add(1, Ordering::Relaxed);
        compactor.bell.call(Urgency::Soon);
        Self(compactor)
    }
}

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        self.0.urgent.fetch_sub(1, Ordering::Relaxed);
    }
}

/// While it lives, this thread is the one that does a run, also if a callback panics.
struct Turn<'a>(&'a Compactor);

impl<'a> Turn<'a> {
    /// Waits for the run under way. Not if the log is being closed: who closes it may be a callback
    /// of that run, and wait for this thread.
    fn begin(compactor: &'a Compactor) -> Result<Self> {
        let mut runner = compactor.runner.lock();
        while runner.is_some() {
            if compactor.has_ended() {
                return Err(Error::new(ErrorKind::Closed, "the log is closed"));
            }
            compactor.over.wait(&mut runner);
        }
        Ok(Self::taken(compactor, &mut runner))
    }

    /// `None` if another one does.
    fn try_begin(compactor: &'a Compactor) -> Option<Self> {
        let mut runner = compactor.runner.lock();
        runner.is_none().then(|| Self::taken(compactor, &mut runner))
    }

    fn taken(compactor: &'a Compactor, runner: &mut Option<ThreadId>) -> Self {
        *runner = Some(thread::current().id());
        Self(compactor)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.runner.lock() = None;
        self.0.over.notify_all();
    }
}
