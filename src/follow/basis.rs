//! Whom to believe: what a look goes by.

use crate::error::Error;
use crate::error::Result;
use crate::follow::Followed;
use crate::follow::look::Look;
use crate::follow::pace;
use crate::format::names;
use crate::format::notice::NOTICES_LEN;
use crate::format::notice::Notice;
use crate::format::notice::NoticeState;
use crate::storage::Handle;
use crate::storage::OpenMode;
use std::time::Duration;

/// What the last look went by.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The file with the notice, until the writer is asked for again.
    lock_file: Option<Handle>,
    /// That which what is shown goes by.
    notice: Option<Notice>,
    /// That of the last look, whatever came of it.
    heard: Option<Notice>,
    /// The last look saw that there is something to see, and has not come to its end.
    is_behind: bool,
    /// The life of the writer in which the active segment was opened, and had been recovered.
    opened_in: Option<u64>,
    /// The session and the count of changes that the manifest was read for.
    pub(super) read_for: Option<(u64, u64)>,
    writer: Life,
    probed_at: Duration,
    /// Since when the manifest is another one than that which is shown, and no notice says so.
    unsaid_since: Option<Duration>,
    /// When something was new.
    pub(super) news_at: Duration,
    /// What the writer says is there and is not.
    pub(super) missing: Option<Error>,
}

impl Seen {
    /// Whether the active segment was opened in the life of the writer that this notice is of.
    pub(super) fn session(&self, notice: Option<Notice>) -> Session {
        let is_same = notice.is_some_and(|notice| self.opened_in == Some(notice.session));
        if is_same { Session::Same } else { Session::Another }
    }

    /// What is shown now is of the life of the writer that this notice is of. What was there before
    /// that one had recovered the log may have gone.
    pub(super) fn settle(&mut self, notice: Option<Notice>) {
        let recovered = notice.filter(|notice| notice.state != NoticeState::Opening);
        self.opened_in = recovered.map(|notice| notice.session);
    }

    /// Whether a writer has said that it is opening the log, and was alive when it was last asked
    /// for.
    pub(super) fn is_opened_now(&self) -> bool {
        let is_opening = |notice: Notice| notice.state == NoticeState::Opening;
        self.writer == Life::Alive && self.heard.is_some_and(is_opening)
    }

    /// The manifest is to be read before marks are believed.
    pub(super) fn forget_manifest(&mut self) {
        self.read_for = None;
    }

    /// Whether there is a writer is to be asked again.
    pub(super) fn forget_writer(&mut self) {
        self.writer = Life::Unknown;
    }

    /// There is something to see. Until it has been seen, no look takes it for known.
    pub(super) fn fall_behind(&mut self) {
        self.is_behind = true;
    }

    /// What is shown goes by this notice.
    pub(super) fn catch_up(&mut self, notice: Option<Notice>, now: Duration) {
        self.is_behind = false;
        self.notice = notice;
        self.missing = None;
        self.unsaid_since = None;
        self.news_at = now;
    }
}

/// Whose life what was seen is of.
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
pub(super) enum Basis {
    /// All is as before.
    Before,
    /// The marks of a notice.
    Marks(Notice),
    /// The manifest: nobody says how far the log has got, and somebody writes to it.
    Stated,
    /// The frames themselves: nobody writes.
    Proof,
}

impl Followed {
    pub(super) fn basis(
        &self,
        seen: &mut Seen,
        notice: Option<Notice>,
        look: Look,
    ) -> Result<Basis> {
        let is_new = notice != seen.notice || seen.is_behind;
        let is_heard = std::mem::replace(&mut seen.heard, notice) == notice;
        let now = self.now();
        if look == Look::Anew || (seen.writer == Life::Unknown) {
            self.probe(seen, now)?;
        } else if is_new && !is_heard {
            // Whoever wrote it was alive a moment ago; a look that finds the same asks again.
            let closed = notice.is_some_and(|notice| notice.state == NoticeState::Closed);
            seen.writer = if closed { Life::Gone } else { Life::Alive };
            if closed && let Some(notice) = notice {
                return Ok(Basis::Marks(notice));
            }
        } else {
            let before = seen.writer;
            if now.saturating_sub(seen.probed_at) >= pace::PROBE {
                self.probe(seen, now)?;
                if !is_new && seen.writer == Life::Alive && self.is_unsaid(seen, now)? {
                    return Ok(Basis::Stated);
                }
            }
            if !is_new && (before, seen.writer) != (Life::Alive, Life::Gone) {
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

    /// Whether the manifest has been another one for a while, and no notice says so: the writer
    /// keeps none, or could not write it, and is quiet. One that has only not come so far does not
    /// count, for it knows more.
    fn is_unsaid(&self, seen: &mut Seen, now: Duration) -> Result<bool> {
        if !self.has_another_manifest()? {
            seen.unsaid_since = None;
            return Ok(false);
        }
        let since = *seen.unsaid_since.get_or_insert(now);
        Ok(now.saturating_sub(since) >= pace::PROBE)
    }

    fn probe(&self, seen: &mut Seen, now: Duration) -> Result<()> {
        seen.writer = if self.has_writer()? { Life::Alive } else { Life::Gone };
        seen.probed_at = now;
        // Another one may have its name.
        seen.lock_file = None;
        Ok(())
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
}
