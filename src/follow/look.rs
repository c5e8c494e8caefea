//! One look at a log that is followed: what is there, what may be believed, what is shown.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::follow::Followed;
use crate::follow::READING;
use crate::follow::basis::Basis;
use crate::follow::basis::Seen;
use crate::follow::basis::Session;
use crate::format::manifest::Manifest;
use crate::format::manifest::RowState;
use crate::format::names;
use crate::format::notice::Notice;
use crate::format::notice::NoticeState;
use crate::manifest;
use crate::segment::Belief;
use crate::segment::Segment;
use crate::state::State;
use crate::state::Takes;
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

/// Whether what failed so can succeed if it is tried again: files that another process has removed,
/// or uses for something else, may not be needed any more.
pub(crate) fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion)
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
        let (mut nth, mut failed) = (0, 0);
        loop {
            nth += 1;
            let looked = match self.look_once(&mut seen, look) {
                Ok(Outcome::Moving(missing)) if nth >= looks => {
                    self.settle_for_less(&mut seen, missing)
                }
                looked => looked,
            };
            match looked {
                Ok(Outcome::Seen) => break,
                // Before it is told, whether the writer lives is asked.
                Ok(Outcome::Moving(Some(_))) if nth + 1 == looks => seen.forget_writer(),
                Ok(Outcome::Moving(_)) => {}
                Err(error) => {
                    failed += 1;
                    if failed >= LOOKS_MAX || !may_pass(&error) {
                        seen.forget_writer();
                        return Err(error);
                    }
                }
            }
            wait_a_moment(nth);
        }
        let now = u64::try_from(self.now().as_micros()).unwrap_or(u64::MAX);
        self.looked_at.store(now, Ordering::Relaxed);
        Ok(())
    }

    fn look_once(&self, seen: &mut Seen, look: Look) -> Result<Outcome> {
        let notice = self.notice(seen)?;
        let basis = self.basis(seen, notice, look)?;
        if matches!(basis, Basis::Before) {
            return Ok(Outcome::Seen);
        }
        seen.fall_behind();
        let outcome = match basis {
            Basis::Before => Outcome::Seen,
            Basis::Marks(notice) => self.by_marks(seen, &notice, look)?,
            Basis::Proof => self.by_proof(seen, notice)?,
            Basis::Stated if look == Look::Anew || self.has_another_manifest()? => {
                self.by_manifest(seen, notice)?
            }
            Basis::Stated => Outcome::Seen,
        };
        if matches!(outcome, Outcome::Seen) {
            seen.catch_up(notice, self.now());
        }
        Ok(outcome)
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
            if found < end {
                return Ok(Outcome::Moving(Some(missing(&state, found))));
            }
            if end >= self.shown() {
                self.shown.store(end.max(state.manifest.start_offset).get(), Ordering::Release);
                return Ok(Outcome::Seen);
            }
        }
        let manifest = self.manifest()?;
        if manifest.truncation_epoch != notice.points.epoch() {
            return Ok(Outcome::Moving(None));
        }
        let active = self.active(&manifest, seen.session(Some(*notice)))?;
        if let Some(active) = &active {
            active.follow(end, Belief::Written)?;
        }
        self.end_before(&state, &manifest)?;
        let found = end_of(&manifest, active.as_ref());
        if found < end && manifest.start_offset < end {
            return Ok(Outcome::Moving(Some(missing(&state, found))));
        }
        let lowest_end = self.lowest_end(&manifest, Some(*notice));
        self.show(Shown { manifest, active, end, lowest_end });
        seen.settle(Some(*notice));
        seen.read_for = Some(of);
        Ok(Outcome::Seen)
    }

    /// Shows what the manifest calls durable, or what was shown before if nothing was cut since.
    fn by_manifest(&self, seen: &mut Seen, notice: Option<Notice>) -> Result<Outcome> {
        let manifest = self.manifest()?;
        let active = self.active(&manifest, seen.session(notice))?;
        let mut end = stated_end(&manifest);
        if manifest.truncation_epoch == self.segments.state().manifest.truncation_epoch {
            // One that was opened anew goes as far as the manifest says.
            if let Some(active) = &active {
                active.follow(self.shown(), Belief::Written)?;
            }
            end = end.max(self.shown().min(end_of(&manifest, active.as_ref())));
        }
        let lowest_end = self.lowest_end(&manifest, notice);
        self.show(Shown { manifest, active, end, lowest_end });
        seen.settle(notice);
        seen.read_for = None;
        Ok(Outcome::Seen)
    }

    /// The log does not come to rest, or does not have what its writer says: shows what there is.
    fn settle_for_less(&self, seen: &mut Seen, missing: Option<Error>) -> Result<Outcome> {
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
        seen.missing = missing;
        Ok(Outcome::Seen)
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

    /// The segment of the active row: the one at hand, or, in another life of the writer, opened
    /// anew.
    pub(super) fn active(
        &self,
        manifest: &Manifest,
        life: Session,
    ) -> Result<Option<Arc<Segment>>> {
        let row = manifest.rows.last().filter(|row| row.state == RowState::Active);
        let Some(row) = row else { return Ok(None) };
        let state = self.segments.state();
        let at_hand = state.active.as_ref().filter(|active| active.id() == row.segment_id);
        if let Some(active) = at_hand.filter(|_| life == Session::Same) {
            return Ok(Some(Arc::clone(active)));
        }
        let dir = self.segments.dir();
        Segment::open_growing(dir, row, manifest.log_id, READING).map(|new| Some(Arc::new(new)))
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
        manifest::check_finished(dir, &manifest)?;
        if manifest.log_id != self.log_id() {
            let what = "another log has taken the place of this one; open it anew";
            return Err(Error::new(ErrorKind::Corrupt, what).with_path(&path));
        }
        Ok(manifest)
    }

    /// Whether it is not the one that is shown; an error if it is of another log.
    pub(super) fn has_another_manifest(&self) -> Result<bool> {
        Ok(self.manifest()? != self.segments.state().manifest)
    }

    pub(super) fn log_id(&self) -> u128 {
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
