//! Recovery: from what a crash left in the directory to a log that can be served.
//!
//! The crash argument, step by step. Nothing is served before the last step is done.
//!
//! 1. Look only: list the directory, scan the segments the manifest does not call sealed (the
//!    active one and those just ended), decide for each by the table in `segment/recover.rs`. A
//!    refusal ends here, with nothing touched.
//! 2. Write anew, byte for byte in place, every sound frame that no durable mark proves, and sync
//!    the files. The kernel tells of a lost write once, perhaps to a process that is dead, and
//!    shows the lost bytes in its cache all the same; only writing them again makes them durable.
//!    Before that the cache is made to forget them: it may also take blocks for initialized that
//!    are not, and bytes written there would be zeros after the next mount. A crash here leaves
//!    the same bytes as before, or fewer unproven ones.
//! 3. Give prepared segments that were begun their names, and replace the manifest: it now ends
//!    each segment where recovery found its end, so that bytes of a torn tail can never come back.
//!    A crash before the rename of the manifest repeats all; after it, there is nothing left to do.
//! 4. Remove what no manifest names. A crash here leaves garbage for the next time.

use crate::bugs::Bug;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Failure;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::manifest::Origin;
use crate::format::manifest::Prepared;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::format::segment::MAX_SEGMENT_LEN;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::manifest;
use crate::segment;
use crate::segment::Active;
use crate::segment::Bounds;
use crate::segment::Claim;
use crate::segment::Decision;
use crate::segment::FileState;
use crate::segment::Observed;
use crate::segment::Reading;
use crate::segment::Role;
use crate::segment::Tail;
use crate::segment::TailScan;
use crate::state::Proof;
use crate::state::anew;
use crate::state::chain;
use crate::state::chain::Chain;
use crate::state::leftovers::Leftovers;
use crate::state::report::Found;
use crate::state::report::Recovery;
use crate::storage::Dir;
use crate::storage::Handle;
use crate::storage::OpenMode;
use crate::units::Offset;
use crate::units::Timestamp;

/// A log that can be served.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) manifest: Manifest,
    pub(crate) active: Option<Active>,
    pub(crate) report: Recovery,
    pub(crate) proof: Proof,
    /// Segments that the manifest found calls prepared, if it could not be replaced.
    pub(crate) begun: Vec<Prepared>,
    /// Files to be removed once the manifest is durable.
    pub(crate) garbage: Vec<String>,
}

/// Brings the directory of a log into a state that is durable and whole.
pub(crate) fn recover(dir: &Dir, manifest: Manifest, reading: Reading) -> Result<Recovered> {
    let mut leftovers = Leftovers::find(dir, &manifest)?;
    // A rename that a crash left undecided is decided now, before anything depends on it.
    Bug::DirNotSyncedAtOpen.spares(|| dir.sync())?;
    let (report, proof) = (Recovery::default(), Proof::Durable);
    let mut recovery = Run { dir, manifest, reading, report, proof, chain: Chain::default() };
    let has_prepared = !recovery.manifest.prepared.is_empty();
    let active = if recovery.is_clean()? {
        recovery.report.found = Found::Clean;
        if !leftovers.is_empty() {
            // The manifest before may come back if a sync of the directory failed.
            recovery.replace_manifest(None)?;
        }
        recovery.resume_closed()?
    } else {
        recovery.run(&leftovers.prepared)?
    };
    if recovery.report.cut_at.is_some() || has_prepared {
        // Segments behind the cut have become leftovers too, and those that were not begun.
        leftovers = Leftovers::find(dir, &recovery.manifest)?;
    }
    let Run { manifest, mut report, proof, chain, .. } = recovery;
    let begun = if proof == Proof::None { chain.begun } else { Vec::new() };
    let mut garbage = Vec::new();
    match proof {
        Proof::Durable => report.removed_files = leftovers.remove(dir)?,
        // The manifest before may come back, which names some of them.
        Proof::None => garbage = leftovers.never_named_again(manifest.next_segment_id),
    }
    Ok(Recovered { manifest, active, report, proof, begun, garbage })
}

/// One recovery under way.
struct Run<'a> {
    dir: &'a Dir,
    manifest: Manifest,
    reading: Reading,
    report: Recovery,
    proof: Proof,
    chain: Chain,
}

/// A segment that was scanned.
struct Scanned {
    /// Its place among the rows.
    place: usize,
    role: Role,
    file: Handle,
    size: u64,
    scan: TailScan,
}

impl Run<'_> {
    /// Whether the log was closed and nothing has been written since.
    fn is_clean(&self) -> Result<bool> {
        if !self.manifest.closed {
            return Ok(false);
        }
        match self.manifest.rows.last() {
            Some(row) if row.state == RowState::Active => {
                let log_id = self.manifest.log_id;
                let (file, _) = segment::open_file(self.dir, row, log_id, OpenMode::Read)?;
                Ok(file.size()? == row.byte_len || Bug::ClosedBelieved.is_on())
            }
            Some(row) => Ok(row.state == RowState::Sealed),
            None => Ok(true),
        }
    }

    fn resume_closed(&self) -> Result<Option<Active>> {
        let Some(row) = self.active_row() else {
            return Ok(None);
        };
        let scan = TailScan::nothing((row.byte_len, row.end_offset));
        Active::resume(self.dir, row, self.manifest.log_id, self.reading, scan).map(Some)
    }

    fn active_row(&self) -> Option<&Row> {
        self.manifest.rows.last().filter(|row| row.state == RowState::Active)
    }

    fn run(&mut self, prepared: &[String]) -> Result<Option<Active>> {
        self.chain = chain::find(self.dir, &mut self.manifest, prepared)?;
        let (scanned, mark) = self.scan()?;
        let cut = self.decide(&scanned, mark)?;
        for seen in scanned.iter().filter(|seen| cut.is_none_or(|cut| seen.place <= cut)) {
            if seen.role == Role::Written && Bug::OnlyActiveRewritten.is_on() {
                continue;
            }
            self.make_durable(seen, mark)?;
        }
        let stay = self.manifest.rows.get(..=cut.unwrap_or(usize::MAX - 1));
        self.chain.name_files(self.dir, stay.unwrap_or(&self.manifest.rows))?;
        let active = self.edit_rows(scanned, cut)?;
        self.manifest.closed = false;
        self.manifest.origin = Origin::Log;
        if Bug::RemovedEarly.is_on() {
            Leftovers::find(self.dir, &self.manifest)?.remove(self.dir)?;
        }
        self.replace_manifest(cut)?;
        Ok(active)
    }

    /// Step 3, on disk.
    fn replace_manifest(&mut self, cut: Option<usize>) -> Result<()> {
        match manifest::replace(self.dir, &self.manifest) {
            // Nothing was cut, so the old manifest is still true; it only knows less.
            Err(Failure::Refused(error))
                if cut.is_none() && error.kind() == ErrorKind::StorageFull =>
            {
                self.proof = Proof::None;
            }
            replaced => replaced.map_err(Failure::into_error)?,
        }
        Ok(())
    }

    /// Scans the rows that nothing proves durable, the active one first, since its frames may prove
    /// the others; returns them in the order of the rows, with the highest durable mark.
    fn scan(&mut self) -> Result<(Vec<Scanned>, Offset)> {
        let rows = self.manifest.rows.clone();
        let first = rows.iter().position(|row| row.state != RowState::Sealed);
        let Some(first) = first else {
            return Ok((Vec::new(), self.manifest.end_offset()));
        };
        let mut mark = rows.get(first).map_or(Offset::ZERO, |row| row.base_offset);
        // A log is deleted up to a place only when that is durable.
        mark = mark.max(self.manifest.start_offset);
        let mut scanned = Vec::new();
        for (place, row) in rows.iter().enumerate().rev() {
            if row.state != RowState::Active {
                break;
            }
            if row.end_offset > row.base_offset {
                // The manifest says so itself.
                mark = mark.max(row.end_offset);
            }
            let until = rows.get(place + 1).map(|next| next.base_offset);
            let seen = self.scan_row(row, place, (mark, until))?;
            mark = mark.max(seen.scan.mark);
            scanned.insert(0, seen);
        }
        let mut written = Vec::new();
        for (place, row) in rows.iter().enumerate().skip(first) {
            let believed = row.end_offset <= mark || Bug::WrittenBelieved.is_on();
            if row.state == RowState::Written && !believed {
                let seen = self.scan_row(row, place, (mark, None))?;
                mark = mark.max(seen.scan.mark);
                written.push(seen);
            }
        }
        written.append(&mut scanned);
        Ok((written, mark))
    }

    /// Scans the segment of a row that ends at `until`, if that is known from the one behind it.
    fn scan_row(
        &mut self,
        row: &Row,
        place: usize,
        (proven, until): (Offset, Option<Offset>),
    ) -> Result<Scanned> {
        let log_id = self.manifest.log_id;
        let (file, header) = segment::open_file(self.dir, row, log_id, OpenMode::Write)?;
        let size = file.size()?;
        if size > 2 * MAX_SEGMENT_LEN {
            let what = format!("the segment is {size} bytes long, more than any can be");
            return Err(Error::new(ErrorKind::Corrupt, what).with_path(file.path()));
        }
        let first_frame = (SEGMENT_HEADER_LEN as u64, row.base_offset);
        let (role, from, end) = match row.state {
            RowState::Active => {
                let role = if until.is_some() { Role::Passed } else { Role::Active };
                (role, (row.byte_len, row.end_offset), size)
            }
            _ => (Role::Written, first_frame, size.min(row.byte_len)),
        };
        let going_on = role != Role::Written && row.record_count > 0;
        let since = if going_on { row.first_appended_at } else { Timestamp::MIN };
        let bounds = Bounds { seed: header.seed, base_offset: row.base_offset, since, until };
        let mut scan = segment::scan_tail(&file, bounds, from, end, proven)?;
        if role == Role::Written
            && scan.tail == Tail::End
            && (scan.end_position, scan.end_offset) != (row.byte_len, row.end_offset)
            && !Bug::ShortSegmentKept.is_on()
        {
            // Sound as far as it goes, but it does not go as far as was written.
            scan.tail = Tail::Damage;
        }
        if until.is_some_and(|until| scan.end_offset != until) {
            scan.tail = if Bug::PassedBelieved.is_on() { Tail::End } else { Tail::Damage };
        }
        self.report.scanned_segments += 1;
        self.report.scanned_bytes += scan.scanned_bytes;
        Ok(Scanned { place, role, file, size, scan })
    }

    /// Decides for each scanned segment; gives the place of the row that is to be cut, if one is.
    fn decide(&self, scanned: &[Scanned], mark: Offset) -> Result<Option<usize>> {
        // A mark behind damage says what is lost in this segment, and in those before it.
        let marks_behind = scanned.iter().filter_map(|seen| seen.scan.mark_behind);
        let marks_behind = marks_behind.chain(self.chain.mark);
        let mark = marks_behind.fold(mark, Offset::max);
        for seen in scanned {
            let row = self.row(seen.place);
            let beyond = mark > seen.scan.end_offset && !Bug::LaterMarkIgnored.is_on();
            let short = seen.role != Role::Written && seen.size < row.byte_len;
            let observed = Observed {
                role: seen.role,
                file: if short { FileState::Short } else { FileState::There },
                tail: seen.scan.tail,
                claim: if beyond { Claim::Beyond } else { Claim::None },
            };
            match segment::decide(observed) {
                Decision::Keep => {}
                Decision::Cut => return Ok(Some(seen.place)),
                Decision::Refuse if short => {
                    return Err(segment::too_short(&seen.file, seen.size, row));
                }
                Decision::Refuse => return Err(refused(seen)),
            }
        }
        let end = scanned.last().map_or(self.manifest.end_offset(), |seen| seen.scan.end_offset);
        self.chain.check_lost(end)?;
        Ok(None)
    }

    /// Step 2: writes the unproven frames anew and syncs them.
    fn make_durable(&mut self, seen: &Scanned, mark: Offset) -> Result<()> {
        let mut position = seen.scan.unproven_from(mark);
        let row = *self.row(seen.place);
        let is_begun = self.chain.has(&row) && mark <= row.base_offset;
        if is_begun && !Bug::BegunHeaderLeft.is_on() {
            // Its header was synced with its first record, or never.
            position = 0;
        }
        let end = seen.scan.end_position;
        self.report.rewritten_bytes += end - position;
        anew::write_anew(&seen.file, position, end)
    }

    /// Step 3, in memory: every segment ends where recovery found its end, and is durable.
    fn edit_rows(&mut self, scanned: Vec<Scanned>, cut: Option<usize>) -> Result<Option<Active>> {
        let log_id = self.manifest.log_id;
        let mut active = None;
        for seen in scanned {
            let Some(row) = self.manifest.rows.get_mut(seen.place) else {
                continue;
            };
            if cut.is_some_and(|cut| seen.place > cut) {
                self.report.cut_bytes += row.byte_len.max(seen.scan.end_position);
                continue;
            }
            let before = *row;
            if seen.role != Role::Written || cut == Some(seen.place) {
                extend(row, &seen.scan);
            }
            if cut == Some(seen.place) {
                self.report.cut_at = Some(seen.scan.end_offset);
                self.report.cut_bytes += seen.scan.torn_bytes;
            } else if seen.role == Role::Active {
                let scan = seen.scan;
                active = Some(Active::resume(self.dir, &before, log_id, self.reading, scan)?);
            }
        }
        if cut.is_none() && self.chain.lost.is_some() {
            self.report.cut_at = Some(self.manifest.end_offset());
            self.report.cut_bytes += self.chain.lost_bytes;
        }
        let active_id = active.as_ref().map(|active: &Active| active.segment().id());
        if let Some(cut) = cut {
            let later = if Bug::HoleLeft.is_on() { usize::MAX } else { cut + 1 };
            self.manifest.rows.truncate(later);
            let epoch = &mut self.manifest.truncation_epoch;
            *epoch = epoch.saturating_add(1);
        }
        for row in &mut self.manifest.rows {
            if row.state == RowState::Written || cut.is_some() || active_id != Some(row.segment_id)
            {
                row.state = RowState::Sealed;
            }
            if row.record_count > 0 && !Bug::LastTimeForgotten.is_on() {
                let last = self.manifest.last_append_time.max(row.last_appended_at);
                self.manifest.last_append_time = last;
            }
        }
        // A segment of which nothing is left is not worth a row.
        self.manifest
            .rows
            .retain(|row| row.state == RowState::Active || row.end_offset > row.base_offset);
        Ok(active)
    }

    fn row(&self, place: usize) -> &Row {
        self.manifest.rows.get(place).expect("a scanned row is one of the manifest's")
    }
}

/// Takes what a scan found into the row.
pub(crate) fn extend(row: &mut Row, scan: &TailScan) {
    if row.state == RowState::Written {
        // It was scanned from its first frame on.
        row.record_count = 0;
        row.last_appended_at = Timestamp::ZERO;
    }
    if row.record_count == 0 {
        row.first_appended_at = scan.first_at.unwrap_or_default();
    }
    row.last_appended_at = scan.last_at.unwrap_or(row.last_appended_at);
    row.end_offset = scan.end_offset;
    row.byte_len = scan.end_position;
    row.record_count += scan.record_count;
}

fn refused(seen: &Scanned) -> Error {
    let why = seen.scan.damage.map_or("the file ends".to_owned(), |damage| damage.why.to_string());
    let what = format!(
        "durable records are damaged ({why}); restore the file, or repair the log and lose them"
    );
    Error::new(ErrorKind::Corrupt, what)
        .with_path(seen.file.path())
        .with_position(seen.scan.end_position)
        .with_offset(seen.scan.end_offset)
}
