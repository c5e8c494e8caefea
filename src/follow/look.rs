//! One look at a log that is followed: what is there, what may be believed, what is shown.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::follow::Followed;
use crate::follow::begun::Reach;
use crate::follow::pace;
use crate::format::manifest::Manifest;
use crate::format::manifest::RowState;
use crate::format::names;
use crate::format::notice::NOTICES_LEN;
use crate::format::notice::Notice;
use crate::format::notice::NoticeState;
use crate::manifest;
use crate::segment::Belief;
use crate::segment::Segment;
use crate::state::State;
use crate::state::Takes;
use crate::storage::Handle;
use crate::storage::OpenMode;
use crate::sync::thread;
use crate::units::Offset;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Whether anything is new.
    News,
    /// At everything, for what was known has turned out wrong, or nothing was.
    Anew,
}

/// What the last look went by.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The file with the notice, until the writer is asked for again.
    lock_file: Option<Handle>,
    notice: Option<Notice>,
    /// The session and the count of changes that the manifest was read for.
    read_for: Option<(u64, u64)>,
    writer: Life,
    probed_at: Duration,
    /// When something was new.
    pub(super) news_at: Duration,
    /// What the writer says is there and is not.
    pub(super) missing: Option<Error>,
}

impl Seen {
    /// Whether it is of the life of the writer that this notice is of.
    pub(super) fn session(&self, notice: Option<Notice>) -> Session {
        let is_same =
            self.notice.map(|notice| notice.session) == notice.map(|notice| notice.session);
        if is_same { Session::Same } else { Session::Another }
    }

    /// The manifest is to be read before marks are believed.
    pub(super) fn forget_manifest(&mut self) {
        self.read_for = None;
    }

    /// Whether there is a writer is to be asked again.
    pub(super) fn forget_writer(&mut self) {
        self.writer = Life::Unknown;
    }
}

/// Whose life a notice is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// That of the writer that was seen last.
    Same,
    Another,
}

/// What is known of the writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Life {
    /// Nothing: it has not been asked for.
    #[default]
    Unknown,
    Alive,
    Gone,
}

/// What to go by.
enum Basis {
    /// All is as before.
    Before,
    /// The marks of a notice.
    Marks(Notice),
    /// Nobody says how far the log has got, and somebody writes to it.
    Stated,
    /// The frames themselves: nobody writes.
    Proof,
}

/// What a look has led to.
pub(super) enum Outcome {
    Seen,
    /// It was changed meanwhile, or is being changed; an error if that does not end.
    Moving(Option<Error>),
}

/// What is to be shown.
pub(super) struct Shown {
    pub(super) manifest: Manifest,
    pub(super) active: Option<Arc<Segment>>,
    pub(super) end: Offset,
    /// The lowest end the log had since the last look.
    pub(super) lowest_end: Option<Offset>,
}

/// How often to look when the log changes under one's eyes: a writer needs some microseconds from
/// one step to the next, if it is not kept from running.
const LOOKS_MAX: u32 = 24;

impl Followed {
    pub(crate) fn look(&self, look: Look) -> Result<()> {
        let mut seen = self.seen.lock();
        let looks = if seen.missing.is_some() { 1 } else { LOOKS_MAX };
        let mut nth = 0;
        loop {
            let outcome = self.look_once(&mut seen, look)?;
            nth += 1;
            match outcome {
                Outcome::Seen => break,
                Outcome::Moving(_) if nth < looks => wait_a_moment(nth),
                Outcome::Moving(missing) => {
                    self.settle_for_less(&mut seen)?;
                    seen.missing = missing;
                    break;
                }
            }
        }
        let now = u64::try_from(self.now().as_micros()).unwrap_or(u64::MAX);
        self.looked_at.store(now, Ordering::Relaxed);
        Ok(())
    }

    fn look_once(&self, seen: &mut Seen, look: Look) -> Result<Outcome> {
        let notice = self.notice(seen)?;
        let basis = self.basis(seen, notice, look)?;
        let is_news = !matches!(basis, Basis::Before);
        let outcome = match basis {
            Basis::Before => Outcome::Seen,
            Basis::Marks(notice) => self.by_marks(seen, &notice, look)?,
            Basis::Proof => self.by_proof(seen, notice)?,
            Basis::Stated if look == Look::Anew => self.by_manifest(seen, notice)?,
            Basis::Stated => {
                // Of another log, which may have taken the place of this one.
                self.manifest()?;
                Outcome::Seen
            }
        };
        if is_news && matches!(outcome, Outcome::Seen) {
            seen.notice = notice;
            seen.missing = None;
            seen.news_at = self.now();
        }
        Ok(outcome)
    }

    fn basis(&self, seen: &mut Seen, notice: Option<Notice>, look: Look) -> Result<Basis> {
        let is_new = notice != seen.notice || seen.missing.is_some();
        let now = self.now();
        if look == Look::Anew || (seen.writer == Life::Unknown) {
            self.probe(seen, now)?;
        } else if is_new {
            // Whoever wrote it was alive a moment ago; a look that finds no news asks again.
            let closed = notice.is_some_and(|notice| notice.state == NoticeState::Closed);
            seen.writer = if closed { Life::Gone } else { Life::Alive };
            if closed && let Some(notice) = notice {
                return Ok(Basis::Marks(notice));
            }
        } else {
            let before = seen.writer;
            if now.saturating_sub(seen.probed_at) >= pace::PROBE {
                self.probe(seen, now)?;
            }
            if (before, seen.writer) != (Life::Alive, Life::Gone) {
                return Ok(Basis::Before);
            }
        }
        Ok(match (seen.writer, notice) {
            (Life::Gone | Life::Unknown, _) => Basis::Proof,
            (Life::Alive, Some(notice))
                if notice.state == NoticeState::Open && notice.log_id == self.log_id() =>
            {
                Basis::Marks(notice)
            }
            (Life::Alive, _) => Basis::Stated,
        })
    }

    fn probe(&self, seen: &mut Seen, now: Duration) -> Result<()> {
        seen.writer = if self.has_writer()? { Life::Alive } else { Life::Gone };
        seen.probed_at = now;
        // Another one may have its name.
        seen.lock_file = None;
        Ok(())
    }

    /// Shows what the writer says may be shown.
    fn by_marks(&self, seen: &mut Seen, notice: &Notice, look: Look) -> Result<Outcome> {
        let state = self.segments.state();
        let end = notice.marks.shown;
        let of = (notice.session, notice.changes);
        if seen.read_for == Some(of) && look == Look::News && seen.missing.is_none() {
            if state.manifest.truncation_epoch != notice.points.epoch() {
                return Ok(Outcome::Moving(None));
            }
            if let Some(active) = &state.active {
                active.follow(end, Belief::Written)?;
            }
            let found = end_of(&state.manifest, state.active.as_ref());
            // A roll that no manifest states is no change.
            if found < end && state.manifest.prepared.is_empty() {
                return Ok(Outcome::Moving(Some(missing(&state, found))));
            }
            if found >= end && end >= self.shown() {
                self.shown.store(end.max(state.manifest.start_offset).get(), Ordering::Release);
                return Ok(Outcome::Seen);
            }
        }
        let mut manifest = self.manifest()?;
        if manifest.truncation_epoch != notice.points.epoch() {
            return Ok(Outcome::Moving(None));
        }
        let life = seen.session(Some(*notice));
        let reach = Reach { until: end, belief: Belief::Written, life };
        let active = self.go_on(&mut manifest, reach)?;
        self.end_before(&state, &manifest)?;
        let found = end_of(&manifest, active.as_ref());
        if found < end && manifest.start_offset < end {
            return Ok(Outcome::Moving(Some(missing(&state, found))));
        }
        let lowest_end = self.lowest_end(&manifest, Some(*notice));
        self.show(Shown { manifest, active, end, lowest_end });
        seen.read_for = Some(of);
        Ok(Outcome::Seen)
    }

    /// Shows what the manifest calls durable, or what was shown before if nothing was cut since.
    fn by_manifest(&self, seen: &mut Seen, notice: Option<Notice>) -> Result<Outcome> {
        let mut manifest = self.manifest()?;
        let mut end = stated_end(&manifest);
        let life = seen.session(notice);
        let until = if life == Session::Same { self.shown() } else { end };
        let active = self.go_on(&mut manifest, Reach { until, belief: Belief::Written, life })?;
        if manifest.truncation_epoch == self.segments.state().manifest.truncation_epoch {
            end = end.max(self.shown().min(end_of(&manifest, active.as_ref())));
        }
        let lowest_end = self.lowest_end(&manifest, notice);
        self.show(Shown { manifest, active, end, lowest_end });
        seen.read_for = None;
        Ok(Outcome::Seen)
    }

    /// The log does not come to rest, or does not have what its writer says: shows what there is.
    fn settle_for_less(&self, seen: &mut Seen) -> Result<()> {
        let notice = self.notice(seen)?;
        self.by_manifest(seen, notice)?;
        let state = self.segments.state();
        if let (Some(notice), Some(active)) = (notice, &state.active)
            && notice.points.epoch() == state.manifest.truncation_epoch
            && notice.state != NoticeState::Opening
            && notice.log_id == self.log_id()
        {
            active.follow(notice.marks.shown, Belief::Written)?;
            let end = active.end_offset().min(notice.marks.shown).max(self.shown());
            self.shown.store(end.get(), Ordering::Release);
        }
        Ok(())
    }

    /// Publishes it, and tells what was cut off.
    pub(super) fn show(&self, shown: Shown) {
        let Shown { manifest, active, end, mut lowest_end } = shown;
        let (before, start) = (self.shown(), self.segments.start_offset());
        let end = end.max(manifest.start_offset);
        if end < before {
            // Bytes that were there in the life of one writer are gone in that of another.
            lowest_end = Some(lowest_end.map_or(end, |lowest| lowest.min(end)));
        }
        let takes = match lowest_end {
            Some(lowest) => Takes::Back(lowest),
            None if manifest.start_offset != start => Takes::Front,
            None => Takes::Nothing,
        };
        let settle = || self.shown.store(end.get(), Ordering::Release);
        self.segments.follow(manifest, active, takes, settle);
    }

    /// Takes the segment that was active to the end that it has got, so that those who read it can
    /// go on in it.
    pub(super) fn end_before(&self, state: &State, manifest: &Manifest) -> Result<()> {
        let Some(before) = &state.active else { return Ok(()) };
        let row = manifest.rows.iter().rev().find(|row| row.segment_id == before.id());
        match row.filter(|row| row.state != RowState::Active) {
            Some(row) => before.follow(row.end_offset, Belief::Written),
            None => Ok(()),
        }
    }

    /// The manifest, which must be of the log that was opened.
    pub(super) fn manifest(&self) -> Result<Manifest> {
        let dir = self.segments.dir();
        let path = dir.path_of(names::MANIFEST);
        let Some(manifest) = manifest::read(dir)? else {
            let source = std::io::ErrorKind::NotFound.into();
            return Err(Error::io("the log is gone, there is no manifest", &path, source));
        };
        if manifest.log_id != self.log_id() {
            let what = "another log has taken the place of this one; open it anew";
            return Err(Error::new(ErrorKind::Corrupt, what).with_path(&path));
        }
        Ok(manifest)
    }

    /// What the writer says; `None` if it says nothing that makes sense.
    pub(super) fn notice(&self, seen: &mut Seen) -> Result<Option<Notice>> {
        if seen.lock_file.is_none() {
            seen.lock_file = self.segments.dir().open_if_there(names::LOCK, OpenMode::Read)?;
        }
        let Some(file) = &seen.lock_file else { return Ok(None) };
        let mut bytes = [0; NOTICES_LEN];
        let read = file.read(&mut bytes, 0)?;
        Ok(bytes.get(..read).and_then(Notice::latest))
    }

    fn log_id(&self) -> u128 {
        self.segments.state().manifest.log_id
    }
}

/// Where the log ends, as far as frames were found.
pub(super) fn end_of(manifest: &Manifest, active: Option<&Arc<Segment>>) -> Offset {
    active.map_or(manifest.end_offset(), |active| active.end_offset())
}

/// Where that which the manifest calls durable ends.
fn stated_end(manifest: &Manifest) -> Offset {
    let ended = manifest.rows.iter().find(|row| row.state == RowState::Written);
    ended.map_or(manifest.end_offset(), |row| row.base_offset)
}

/// The writer says that records are there which are not.
fn missing(state: &State, found: Offset) -> Error {
    let what = "the log is damaged (records that its writer has written are not there)";
    let error = Error::new(ErrorKind::Corrupt, what).with_offset(found);
    match &state.active {
        Some(active) => error.with_path(active.path()).with_position(active.end()),
        None => error,
    }
}

/// Lets the writer run; later longer, together some 20 ms.
fn wait_a_moment(nth: u32) {
    match nth {
        0..4 => thread::yield_now(),
        _ => thread::park_timeout(Duration::from_millis(1)),
    }
}
