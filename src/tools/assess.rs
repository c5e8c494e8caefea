//! From what is in the directory to what is wrong with it, by the manifest that is there.

use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::format::names;
use crate::format::segment::MAX_SEGMENT_LEN;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::segment;
use crate::segment::Scan;
use crate::segment::Step;
use crate::storage::Dir;
use crate::storage::OpenMode;
use crate::tools::plan::Fate;
use crate::tools::plan::Part;
use crate::tools::plan::Plan;
use crate::tools::plan::Standing;
use crate::tools::report::Damage;
use crate::tools::report::VerifyReport;
use crate::tools::survey::Content;
use crate::tools::survey::Flaw;
use crate::tools::survey::SegmentFile;
use crate::tools::survey::examine;
use crate::tools::survey::seed_of;
use crate::tools::survey::stretch;
use crate::units::Offset;
use crate::units::Position;
use std::ops::Range;

/// The file of a row, if it is there and anything of it can be read.
struct Seen<'a> {
    row: Row,
    file: Option<(&'a SegmentFile, u32)>,
    content: Content,
    /// Whether opening finds what is behind the end that the manifest states.
    goes_on: bool,
}

/// Holds the segments against a sound manifest.
pub(super) fn by_manifest(
    dir: &Dir,
    manifest: Manifest,
    files: &[SegmentFile],
    report: &mut VerifyReport,
) -> Result<Plan> {
    let mut seen = Vec::new();
    for row in &manifest.rows {
        let file = find_file(dir, files, manifest.log_id, row)?;
        let mut content = match &file {
            Some((file, seed)) => examine(dir, &file.name, stretch(*seed, row, file.size))?,
            None => Content { end: row.base_offset, ..Content::default() },
        };
        if is_hole(row) && file.is_some() {
            content.end = row.end_offset;
        }
        let goes_on = match &file {
            Some((file, seed)) => goes_on(dir, row, file, *seed, &content)?,
            None => true,
        };
        seen.push(Seen { row: *row, file, content, goes_on });
    }
    let (before, durable) = (report.clone(), mark(&manifest, &seen));
    let (mut parts, mut is_wrong) = judge_all(dir, &seen, durable, report)?;
    if report.damage != before.damage {
        // It is not recovered, so no torn tail is cut off: all that the manifest names stays.
        *report = before;
        (parts, is_wrong) = judge_all(dir, &seen, durable.max(manifest.end_offset()), report)?;
    }
    seal_what_is_ended(&mut parts, durable);
    parts.retain(|part| part.fate != Fate::Rewrite || part.row.end_offset > part.row.base_offset);
    is_wrong |= parts.len() < manifest.rows.len();
    let mut aside = Vec::new();
    for file in files {
        let is_named = manifest
            .rows
            .iter()
            .any(|row| (row.segment_id, row.base_offset) == (file.id, file.base));
        let is_source = parts
            .iter()
            .any(|part| part.source.as_ref().is_some_and(|(name, _)| *name == file.name));
        match (is_named, is_source) {
            (_, true) => {}
            (true, false) => aside.push(file.name.clone()),
            (false, false) => {
                report.notes.push(format!("{} is left over; opening removes it", file.name));
            }
        }
    }
    let standing = if is_wrong { Standing::Wrong } else { Standing::Right };
    Ok(Plan { manifest, parts, aside, standing })
}

/// The file that says it is the segment of a row, or one whose header says nothing any more.
fn find_file<'a>(
    dir: &Dir,
    files: &'a [SegmentFile],
    log_id: u128,
    row: &Row,
) -> Result<Option<(&'a SegmentFile, u32)>> {
    let has_name = |file: &&SegmentFile| (file.id, file.base) == (row.segment_id, row.base_offset);
    let is_it = |file: &&SegmentFile| {
        file.header.as_ref().is_some_and(|header| {
            (header.log_id, header.segment_id, header.base_offset)
                == (log_id, row.segment_id, row.base_offset)
        })
    };
    let named = files.iter().find(has_name);
    let found = named.filter(is_it).or_else(|| files.iter().find(is_it));
    let found = found.or(named.filter(|file| file.header.is_none()));
    let Some(file) = found else { return Ok(None) };
    Ok(seed_of(dir, file)?.map(|seed| (file, seed)))
}

/// Whether an active segment, as far as it is sound, is sound for who begins to read at the end
/// that the manifest states, too, as opening does.
fn goes_on(dir: &Dir, row: &Row, file: &SegmentFile, seed: u32, content: &Content) -> Result<bool> {
    let damaged_from = content.flaws.first().map(|flaw| flaw.position);
    let sound_to = damaged_from.unwrap_or(content.end_position);
    // What is there otherwise is damage already, a torn tail, or a write that is under way.
    if row.state != RowState::Active || sound_to <= row.byte_len {
        return Ok(true);
    }
    let file = dir.open(&file.name, OpenMode::Read)?;
    let mut scan = Scan::new(&file, seed, file.size()?, (row.byte_len, row.end_offset));
    Ok(match scan.step()? {
        // Zeros behind the last frame are no damage.
        Step::Damage(_) => scan.last_written_from(row.byte_len)?.is_none(),
        // Opening takes a frame that is too old for damage, and cuts it off if no mark is behind.
        Step::Frame { header, .. } => {
            let is_too_old = row.record_count > 0 && header.appended_at < row.first_appended_at;
            !is_too_old || content.mark <= header.base_offset
        }
        Step::End => true,
    })
}

/// Whether nothing of it is left, on purpose.
fn is_hole(row: &Row) -> bool {
    let is_empty = row.byte_len == SEGMENT_HEADER_LEN as u64 && row.record_count == 0;
    is_empty && row.state == RowState::Sealed
}

/// Where a segment ends at the latest, whatever its frames say.
fn furthest_end(row: &Row) -> Offset {
    match row.state {
        RowState::Sealed => row.end_offset,
        RowState::Written | RowState::Active => {
            row.base_offset.checked_add(u32::MAX.into()).unwrap_or(Offset::MAX)
        }
    }
}

/// Everything below was durable.
fn mark(manifest: &Manifest, seen: &[Seen<'_>]) -> Offset {
    let mut mark = manifest.start_offset;
    for Seen { row, content, .. } in seen {
        match row.state {
            RowState::Sealed => mark = mark.max(row.end_offset),
            RowState::Written => mark = mark.max(content.mark),
            // The manifest states of an active segment only what is durable; of one without
            // records it states no more than where it begins.
            RowState::Active if row.end_offset > row.base_offset => {
                mark = mark.max(content.mark).max(row.end_offset);
            }
            RowState::Active => mark = mark.max(content.mark),
        }
    }
    mark
}

/// What becomes of the segments, and whether the manifest says something else of one that stays.
fn judge_all(
    dir: &Dir,
    seen: &[Seen<'_>],
    mark: Offset,
    report: &mut VerifyReport,
) -> Result<(Vec<Part>, bool)> {
    let mut parts = Vec::new();
    let mut is_wrong = false;
    for one in seen {
        let part = judge(dir, one, mark, report);
        is_wrong |= part.fate == Fate::Keep && part.row != one.row;
        check_index(dir, one, report)?;
        parts.push(part);
    }
    Ok((parts, is_wrong))
}

/// What becomes of one segment.
fn judge(dir: &Dir, seen: &Seen<'_>, mark: Offset, report: &mut VerifyReport) -> Part {
    let Seen { row, file, content, .. } = seen;
    let path = dir.path_of(&names::segment(row.base_offset, row.segment_id));
    let is_sealed = row.state == RowState::Sealed;
    let furthest = furthest_end(row);
    let known_end = match row.state {
        RowState::Sealed => row.end_offset,
        RowState::Written => row.end_offset.min(mark),
        // Whatever of it can be read: an offset that was durable is not given out again.
        RowState::Active => mark.min(furthest),
    };
    let mut tell = |position: Option<u64>, offsets: Range<Offset>, what: String| {
        let position = position.map(Position::new);
        report.damage.push(Damage { path: path.clone(), position, offsets, what });
    };
    let misfit = seen.misfit(mark);
    let nothing = row.base_offset..row.base_offset;
    // What is damaged held no record: compaction had removed them.
    let has_all = is_sealed && content.records == row.record_count;
    let of_records = |offsets: Range<Offset>| match has_all {
        true => offsets.start..offsets.start,
        false => offsets,
    };
    let whole = of_records(row.base_offset..known_end);
    let mut lost = Vec::new();
    if let Some(what) = &misfit {
        let offsets = if file.is_none() { whole.clone() } else { nothing.clone() };
        tell(file.as_ref().map(|_| 0), offsets, what.clone());
    }
    if file.is_none() {
        lost.push(whole);
    }
    for flaw in seen.flaws(mark, known_end) {
        let offsets = of_records(flaw.offsets.start..flaw.offsets.end.min(furthest));
        tell(Some(flaw.position), offsets.clone(), flaw.what);
        lost.push(offsets);
    }
    let is_damaged = misfit.is_some() || !lost.is_empty();
    lost.retain(|offsets| !offsets.is_empty());
    let source = file.as_ref().map(|(file, seed)| (file.name.clone(), *seed));
    let mut part = Part { row: *row, source, fate: Fate::Keep, lost, grows_to: None };
    if is_damaged {
        part.fate = Fate::Rewrite;
        if row.state == RowState::Active {
            part.row.end_offset = content.end.max(known_end);
            part.row.byte_len = content.end_position;
        }
        part.row.state = RowState::Sealed;
    } else if is_sealed && content.records != row.record_count {
        let (said, found) = (row.record_count, content.records);
        tell(None, nothing, format!("the manifest says {said} records, and there are {found}"));
        correct(&mut part.row, content);
    } else if row.state == RowState::Active {
        let end = content.flaws.first().map_or(content.end, |flaw| flaw.offsets.start);
        part.grows_to = Some(end);
    }
    report.records += content.records;
    let torn = content.flaws.first().or(content.rest.as_ref());
    if let Some(torn) = torn.filter(|_| !is_sealed && part.fate == Fate::Keep) {
        let (name, at) = (path.display(), torn.position);
        report.notes.push(format!("{name} has a torn tail at {at}; opening cuts it off"));
    }
    part
}

impl Seen<'_> {
    /// What is wrong with the file as a whole.
    fn misfit(&self, mark: Offset) -> Option<String> {
        let row = &self.row;
        let Some((file, _)) = self.file else {
            return Some("the segment is missing, or nothing in it can be read".to_owned());
        };
        if file.header.is_none() {
            return Some("the header of the segment is damaged".to_owned());
        }
        if row.state == RowState::Active && file.size < row.byte_len {
            return Some("the file is shorter than the manifest says".to_owned());
        }
        let is_scanned = row.state == RowState::Active
            || (row.state == RowState::Written && row.end_offset > mark);
        if is_scanned && file.size > 2 * MAX_SEGMENT_LEN {
            return Some("the file is longer than any segment can be".to_owned());
        }
        if !self.goes_on {
            return Some(
                "the manifest says that another offset or time stands at its end".to_owned(),
            );
        }
        let has_name = (file.id, file.base) == (row.segment_id, row.base_offset);
        (!has_name).then(|| format!("the segment is in the file {}", file.name))
    }

    /// What is missing of a segment that is there, and that no crash explains.
    fn flaws(&self, mark: Offset, known_end: Offset) -> Vec<Flaw> {
        let Self { row, file, content, .. } = self;
        let is_sealed = row.state == RowState::Sealed;
        let limit = if is_sealed { row.end_offset } else { mark };
        let is_lost = |flaw: &&Flaw| flaw.offsets.start < limit;
        let mut flaws: Vec<Flaw> = content.flaws.iter().filter(is_lost).cloned().collect();
        if !flaws.is_empty() && !is_sealed {
            // What lies behind the last durable record is lost with it, but it was there.
            flaws.clone_from(&content.flaws);
        }
        let told = flaws.last().map_or(content.end, |flaw| flaw.offsets.end.max(content.end));
        if told < known_end && file.is_some() {
            let what = match &content.rest {
                Some(rest) => rest.what.clone(),
                None => "the segment is shorter than it was".to_owned(),
            };
            let rest = content.rest.as_ref().map(|rest| rest.position);
            let position = rest.unwrap_or(content.end_position);
            flaws.push(Flaw { position, offsets: told..known_end, what });
        }
        flaws
    }
}

/// Makes a row say what its segment holds.
pub(super) fn correct(row: &mut Row, content: &Content) {
    row.record_count = content.records.min(row.end_offset.saturating_since(row.base_offset));
    row.tombstone_count = row.tombstone_count.min(row.record_count);
    let times = content.times.filter(|_| row.record_count > 0).unwrap_or_default();
    (row.first_appended_at, row.last_appended_at) = times;
}

/// Segments in front of one that ends here for good have to be durable.
fn seal_what_is_ended(parts: &mut [Part], durable: Offset) {
    let Some(last) = parts.iter().rposition(|part| part.fate == Fate::Rewrite) else { return };
    for part in parts.iter_mut().take(last) {
        if part.row.state == RowState::Written {
            part.row.state = RowState::Sealed;
            if part.fate == Fate::Keep && part.row.end_offset > durable {
                part.fate = Fate::Confirm;
            }
        }
    }
}

fn check_index(dir: &Dir, seen: &Seen<'_>, report: &mut VerifyReport) -> Result<()> {
    let header = seen.file.as_ref().and_then(|(file, _)| file.header);
    let Some(header) = header.filter(|_| seen.row.state == RowState::Sealed) else { return Ok(()) };
    // A segment that was cut back keeps the index of before.
    let fits = segment::index_is_usable(dir, &header, seen.row.byte_len);
    if !is_hole(&seen.row) && !fits.unwrap_or(false) {
        let name = names::index(header.base_offset, header.segment_id);
        report.notes.push(format!("{name} does not fit; it is built anew when it is needed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Seen;
    use crate::format::manifest::Row;
    use crate::format::manifest::RowState;
    use crate::format::segment::MAX_SEGMENT_LEN;
    use crate::format::segment::SegmentHeader;
    use crate::tools::survey::Content;
    use crate::tools::survey::SegmentFile;
    use crate::units::Offset;
    use crate::units::Timestamp;

    /// Opening reads all of a file that is not sealed, and refuses one that is too long for that.
    #[test]
    fn a_file_longer_than_opening_reads_is_damage() {
        let (base, end) = (Offset::ZERO, Offset::new(5));
        let header = SegmentHeader {
            seed: 1,
            log_id: 1,
            segment_id: 1,
            base_offset: base,
            previous_id: 0,
            previous_end: base,
        };
        let row = Row {
            segment_id: 1,
            base_offset: base,
            end_offset: end,
            byte_len: 4096,
            first_appended_at: Timestamp::ZERO,
            last_appended_at: Timestamp::ZERO,
            record_count: 5,
            state: RowState::Active,
            compacted_at: None,
            tombstone_count: 0,
        };
        let misfit = |state, over, mark| {
            let size = 2 * MAX_SEGMENT_LEN + over;
            let file = SegmentFile { name: String::new(), base, id: 1, header: Some(header), size };
            let (row, content) = (Row { state, ..row }, Content::default());
            Seen { row, file: Some((&file, 1)), content, goes_on: true }.misfit(mark)
        };
        assert!(misfit(RowState::Active, 1, end).is_some_and(|what| what.contains("longer")));
        assert!(misfit(RowState::Written, 1, base).is_some());
        assert_eq!(misfit(RowState::Active, 0, end), None);
        assert_eq!(misfit(RowState::Written, 1, end), None, "it is known to be durable");
        assert_eq!(misfit(RowState::Sealed, 1, base), None);
    }
}
