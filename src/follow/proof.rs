//! What a log shows that nobody writes to: what its files prove, as recovery would find it.
//!
//! Recovery keeps every frame up to the first that is not sound; so does this, with the same
//! checks, and so it shows no record that the next writer does not serve. It needs to look only at
//! what was not shown while the writer lived: a process that dies takes nothing back that it has
//! written.

use crate::error::Result;
use crate::follow::Followed;
use crate::follow::basis::Seen;
use crate::follow::look::Outcome;
use crate::follow::look::Shown;
use crate::follow::look::end_of;
use crate::format::manifest::Manifest;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::format::notice::Notice;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::segment;
use crate::segment::Belief;
use crate::segment::Bounds;
use crate::segment::Tail;
use crate::segment::TailScan;
use crate::state::extend;
use crate::storage::OpenMode;
use crate::units::Offset;
use crate::units::Timestamp;

impl Followed {
    /// Shows all that is there.
    pub(super) fn by_proof(&self, seen: &mut Seen, notice: Option<Notice>) -> Result<Outcome> {
        let mut manifest = self.manifest()?;
        let lowest_end = self.lowest_end(&manifest, notice);
        let is_whole = self.prove_ended(&mut manifest, lowest_end)?;
        let state = self.segments.state();
        let active = if is_whole { self.active(&manifest, seen.session(notice))? } else { None };
        if let Some(active) = &active {
            active.follow(Offset::MAX, Belief::Nothing)?;
        }
        self.end_before(&state, &manifest)?;
        // Whoever came meanwhile may have written what may not be shown yet.
        if self.has_writer()? || self.notice(seen)? != notice {
            seen.forget_writer();
            return Ok(Outcome::Moving(None));
        }
        let end = end_of(&manifest, active.as_ref());
        self.show(Shown { manifest, active, end, lowest_end });
        seen.settle(notice);
        seen.forget_manifest();
        Ok(Outcome::Seen)
    }

    /// Ends the log where one of the segments that are not known to be durable is not whole; tells
    /// whether all are.
    fn prove_ended(&self, manifest: &mut Manifest, lowest_end: Option<Offset>) -> Result<bool> {
        let was_shown = lowest_end.unwrap_or(Offset::MAX).min(self.shown());
        let log_id = manifest.log_id;
        let unproven = |row: &Row| row.state == RowState::Written && row.end_offset > was_shown;
        for place in 0..manifest.rows.len() {
            let Some(row) = manifest.rows.get_mut(place).filter(|row| unproven(row)) else {
                continue;
            };
            let scan = self.scan(row, log_id)?;
            let found = (scan.end_position, scan.end_offset);
            if scan.tail == Tail::End && found == (row.byte_len, row.end_offset) {
                continue;
            }
            extend(row, &scan);
            let is_empty = row.end_offset <= row.base_offset;
            manifest.rows.truncate(place + usize::from(!is_empty));
            return Ok(false);
        }
        Ok(true)
    }

    fn scan(&self, row: &Row, log_id: u128) -> Result<TailScan> {
        let dir = self.segments.dir();
        let (file, header) = segment::open_file(dir, row, log_id, OpenMode::Read)?;
        let (seed, base_offset) = (header.seed, row.base_offset);
        let bounds = Bounds { seed, base_offset, since: Timestamp::MIN };
        let end = file.size()?.min(row.byte_len);
        let from = (SEGMENT_HEADER_LEN as u64, base_offset);
        segment::scan_tail(&file, bounds, from, end, base_offset)
    }
}
