//! The manifest from the segments, where it is missing, damaged or older than they are.

use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::format::manifest::Origin;
use crate::format::manifest::Row;
use crate::format::manifest::RowState;
use crate::format::names;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::storage::Dir;
use crate::storage::OpenMode;
use crate::tools::assess::correct;
use crate::tools::chain::Chain;
use crate::tools::chain::Condition;
use crate::tools::chain::Link;
use crate::tools::chain::SEGMENT_OFFSETS_MAX;
use crate::tools::chain::chain;
use crate::tools::plan::Fate;
use crate::tools::plan::Part;
use crate::tools::plan::Plan;
use crate::tools::plan::Standing;
use crate::tools::report::Damage;
use crate::tools::report::VerifyReport;
use crate::tools::survey::Content;
use crate::tools::survey::Flaw;
use crate::tools::survey::SegmentFile;
use crate::tools::survey::Survey;
use crate::tools::survey::examine;
use crate::tools::survey::seed_of;
use crate::tools::survey::stretch;
use crate::tools::walk::Found;
use crate::tools::walk::Stretch;
use crate::tools::walk::walk;
use crate::units::Offset;
use crate::units::Position;
use crate::units::Timestamp;
use std::collections::BTreeMap;
use std::ops::Range;

/// How many ids are left out, since the segments that had the last ones may be gone.
const ID_MARGIN: u64 = 1 << 20;

/// A gap that needs more segments than that was never one of a log.
const GAP_SEGMENTS_MAX: u64 = 1 << 10;

/// A segment, by its id.
struct Seen<'a> {
    file: &'a SegmentFile,
    seed: u32,
    base: Offset,
    content: Content,
    is_cut: bool,
}

impl Seen<'_> {
    /// Where it ended at least: what a durable mark behind damage covers was there.
    fn end(&self) -> Offset {
        let Content { end, mark, flaws, .. } = &self.content;
        let told = flaws.last().map_or(*end, |flaw| flaw.offsets.end);
        let most = Offset::new(self.base.get().saturating_add(SEGMENT_OFFSETS_MAX));
        told.min(*mark).min(most).max(*end)
    }

    /// Leaves out what does not belong to the log any more.
    fn end_at(&mut self, dir: &Dir, end: Offset) -> Result<()> {
        if end >= self.content.end {
            return Ok(());
        }
        self.is_cut = true;
        let whole = Stretch {
            seed: self.seed,
            base: self.base,
            end_position: self.content.end_position,
            end: None,
        };
        let mut end_position = SEGMENT_HEADER_LEN as u64;
        walk(&dir.open(&self.file.name, OpenMode::Read)?, whole, |found| {
            if let Found::Frame { position, header, .. } = found
                && header.base_offset < end
            {
                end_position = position + header.frame_len();
            }
            Ok(())
        })?;
        let stretch = Stretch { end_position, end: Some(end), ..whole };
        self.content = examine(dir, &self.file.name, stretch)?;
        // Behind the last sound frame that is left, there was more up to there.
        let Content { end_position: position, end: from, .. } = self.content;
        if from < end {
            let what = "records are damaged in front of where the log was truncated".to_owned();
            self.content.flaws.push(Flaw { position, offsets: from..end, what });
        }
        Ok(())
    }

    /// Where no frame tells how far it went, it was taken to go up to the next one.
    fn stretch_to(&mut self, end: Offset, report: &mut VerifyReport) {
        let Content { end: told, flaws, rest, .. } = &mut self.content;
        let offsets = self.base..end;
        if *told > offsets.start || !flaws.is_empty() {
            return;
        }
        if let Some(rest) = rest.take() {
            flaws.push(Flaw { offsets, ..rest });
            return;
        }
        if self.file.size > SEGMENT_HEADER_LEN as u64 {
            let what = "zeros are where the records were".to_owned();
            flaws.push(Flaw { position: SEGMENT_HEADER_LEN as u64, offsets, what });
            return;
        }
        let Range { start, end } = offsets;
        let why = "compaction left none, or a segment is missing";
        report.notes.push(format!("there are no records from {start} to {end}: {why}"));
    }
}

/// Makes a plan from the segments alone; `old` is a manifest that says too little.
pub(super) fn by_segments(
    dir: &Dir,
    survey: &Survey,
    old: Option<&Manifest>,
    report: &mut VerifyReport,
) -> Result<Plan> {
    let log_id = old.map(|old| old.log_id).or_else(|| common_log_id(&survey.files));
    let log_id = log_id.unwrap_or_else(|| dir.storage().random().into());
    let mut all: BTreeMap<u64, Seen<'_>> = BTreeMap::new();
    let mut useless = Vec::new();
    for file in &survey.files {
        match look_into(dir, file, log_id)? {
            Some((id, _)) if all.contains_key(&id) && file.id != id => {}
            Some((id, seen)) => drop(all.insert(id, seen)),
            None => useless.push(file),
        }
    }
    let chain = chain(all.iter().map(|(id, seen)| link(*id, seen)).collect());
    for range in &chain.ambiguous {
        let Range { start, end } = range;
        report.notes.push(format!("records from {start} to {end} may have been truncated"));
    }
    let note = "what only the manifest told is lost: a start inside the first segment, a \
                truncation after which nothing was appended, and the end of a last segment of \
                which compaction left nothing";
    report.notes.push(note.to_owned());
    let next = survey.highest_id.saturating_add(ID_MARGIN).saturating_add(1);
    let mut manifest = Manifest {
        log_id,
        closed: false,
        origin: Origin::Log,
        start_offset: Offset::ZERO,
        next_segment_id: old.map_or(next, |old| old.next_segment_id.max(next)),
        last_append_time: old.map_or(Timestamp::MIN, |old| old.last_append_time),
        truncation_epoch: old.map_or_else(
            || dir.storage().random() >> 32,
            |old| old.truncation_epoch.saturating_add(1),
        ),
        compacted_to: Offset::ZERO,
        rows: Vec::new(),
    };
    let nowhere = chain.end.unwrap_or(Offset::ZERO);
    let parts = lay_out(dir, chain, all, &mut manifest, report)?;
    for file in useless {
        tell_useless(dir, file, &parts, report);
    }
    let start = parts.first().map_or(nowhere, |part| part.row.base_offset);
    let end = parts.last().map_or(start, |part| part.row.end_offset);
    manifest.start_offset = old.map_or(start, |old| old.start_offset.clamp(start, end));
    manifest.rows = parts.iter().map(|part| part.row).collect();
    let is_used = |file: &&SegmentFile| {
        parts.iter().any(|part| part.source.as_ref().is_some_and(|(name, _)| *name == file.name))
    };
    let aside = survey.files.iter().filter(|file| !is_used(file));
    let aside = aside.map(|file| file.name.clone()).collect();
    Ok(Plan { manifest, parts, aside, standing: Standing::Useless })
}

/// The segments of the log one behind the other, with others where some are missing.
fn lay_out(
    dir: &Dir,
    chain: Chain,
    mut all: BTreeMap<u64, Seen<'_>>,
    manifest: &mut Manifest,
    report: &mut VerifyReport,
) -> Result<Vec<Part>> {
    // What was durable of a segment and truncated says nothing of what came in its place.
    let marks = chain.live.iter().filter_map(|(id, range)| {
        let seen = all.get(id)?;
        Some(seen.content.mark.min(range.end))
    });
    let mark = marks.max().unwrap_or(Offset::ZERO);
    let mut parts: Vec<Part> = Vec::new();
    for (id, range) in chain.live {
        let Some(seen) = all.get_mut(&id) else { continue };
        seen.end_at(dir, range.end)?;
        seen.stretch_to(range.end, report);
        let end = parts.last().map_or(range.start, |part| part.row.end_offset);
        if end < range.start && !fill_gap(dir, &mut parts, manifest, end..range.start, report) {
            let first = parts.first().map_or(end, |part| part.row.base_offset);
            let what = "what lies before so large a gap belongs to no log that can be told";
            tell_gap(dir, first..end, what, report);
            report.records = 0;
            parts.clear();
        }
        parts.push(part(dir, (id, range), seen, mark, report));
        report.records += seen.content.records;
        if let Some((_, last)) = seen.content.times {
            manifest.last_append_time = manifest.last_append_time.max(last);
        }
    }
    let last = parts.last().map(|part| part.row.end_offset);
    if let (Some(last), Some(end)) = (last, chain.end)
        && last < end
    {
        // One that is too large says nothing: the records stay, and the log ends behind them.
        fill_gap(dir, &mut parts, manifest, last..end, report);
    }
    Ok(parts)
}

/// The identity that most headers have.
fn common_log_id(files: &[SegmentFile]) -> Option<u128> {
    let mut counts: BTreeMap<u128, u64> = BTreeMap::new();
    for header in files.iter().filter_map(|file| file.header.as_ref()) {
        *counts.entry(header.log_id).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(log_id, _)| log_id)
}

/// All that a file holds, and the id of its segment; `None` if it is of no use.
fn look_into<'a>(
    dir: &Dir,
    file: &'a SegmentFile,
    log_id: u128,
) -> Result<Option<(u64, Seen<'a>)>> {
    let (id, base) = match &file.header {
        Some(header) if header.log_id != log_id => return Ok(None),
        Some(header) => (header.segment_id, header.base_offset),
        None => (file.id, file.base),
    };
    let Some(seed) = seed_of(dir, file)? else { return Ok(None) };
    let row = Row { state: RowState::Active, ..row(id, base..base) };
    let content = examine(dir, &file.name, stretch(seed, &row, file.size))?;
    Ok(Some((id, Seen { file, seed, base, content, is_cut: false })))
}

fn link(id: u64, seen: &Seen<'_>) -> Link {
    Link {
        id,
        base: seen.base,
        end: seen.end(),
        previous: seen.file.header.map(|header| header.previous_id),
        times: seen.content.times,
        condition: match (seen.content.flaws.is_empty(), seen.content.has_holes) {
            (false, _) => Condition::Damaged,
            (true, true) => Condition::Holes,
            (true, false) => Condition::Whole,
        },
    }
}

fn row(segment_id: u64, offsets: Range<Offset>) -> Row {
    Row {
        segment_id,
        base_offset: offsets.start,
        end_offset: offsets.end,
        byte_len: SEGMENT_HEADER_LEN as u64,
        first_appended_at: Timestamp::ZERO,
        last_appended_at: Timestamp::ZERO,
        record_count: 0,
        state: RowState::Sealed,
        compacted_at: None,
        tombstone_count: 0,
    }
}

fn part(
    dir: &Dir,
    (id, range): (u64, Range<Offset>),
    seen: &Seen<'_>,
    mark: Offset,
    report: &mut VerifyReport,
) -> Part {
    let Seen { file, seed, base, content, is_cut } = seen;
    let mut row = row(id, range.clone());
    row.byte_len = content.end_position;
    correct(&mut row, content);
    let mut lost = Vec::new();
    let mut tell = |position: u64, offsets: Range<Offset>, what: &str| {
        let (path, position) = (dir.path_of(&file.name), Some(Position::new(position)));
        report.damage.push(Damage { path, position, offsets, what: what.to_owned() });
    };
    if file.header.is_none() {
        tell(0, range.start..range.start, "the header of the segment is damaged");
    }
    for flaw in content.flaws.iter().filter(|flaw| flaw.offsets.start < range.end) {
        let offsets = flaw.offsets.start..flaw.offsets.end.min(range.end);
        tell(flaw.position, offsets.clone(), &flaw.what);
        lost.push(offsets);
    }
    let is_itself = file.header.is_some() && (file.id, file.base) == (id, *base);
    let fate = if !is_itself || !lost.is_empty() || *is_cut {
        Fate::Rewrite
    } else if range.end > mark {
        // Nothing proves that it is durable.
        Fate::Confirm
    } else {
        Fate::Keep
    };
    Part { row, source: Some((file.name.clone(), *seed)), fate, lost, grows_to: None }
}

/// Only the name of a file says which offsets were in it.
fn tell_useless(dir: &Dir, file: &SegmentFile, parts: &[Part], report: &mut VerifyReport) {
    let bases = parts.iter().map(|part| part.row.base_offset);
    let end = bases.filter(|base| *base > file.base).min().unwrap_or(file.base);
    let is_there = |part: &Part| (part.row.base_offset..part.row.end_offset).contains(&file.base);
    let end = if parts.iter().any(is_there) { file.base } else { end };
    report.damage.push(Damage {
        path: dir.path_of(&file.name),
        position: Some(Position::new(0)),
        offsets: file.base..end,
        what: "nothing in it can be read as a segment of this log".to_owned(),
    });
}

/// Segments are missing: others without records stand for them. Gives whether those are not too
/// many.
fn fill_gap(
    dir: &Dir,
    parts: &mut Vec<Part>,
    manifest: &mut Manifest,
    gap: Range<Offset>,
    report: &mut VerifyReport,
) -> bool {
    tell_gap(dir, gap.clone(), "segments are missing", report);
    let len = gap.end.saturating_since(gap.start);
    if len.div_ceil(SEGMENT_OFFSETS_MAX) > GAP_SEGMENTS_MAX {
        return false;
    }
    let mut from = gap.start;
    while from < gap.end {
        let len = gap.end.saturating_since(from).min(SEGMENT_OFFSETS_MAX);
        let lost = from..from + len;
        let row = row(manifest.next_segment_id, lost.clone());
        manifest.next_segment_id = manifest.next_segment_id.saturating_add(1);
        from = lost.end;
        let (fate, lost) = (Fate::Rewrite, vec![lost]);
        parts.push(Part { row, source: None, fate, lost, grows_to: None });
    }
    true
}

fn tell_gap(dir: &Dir, offsets: Range<Offset>, what: &str, report: &mut VerifyReport) {
    let (path, what) = (dir.path_of(names::MANIFEST), what.to_owned());
    report.damage.push(Damage { path, position: None, offsets, what });
}
