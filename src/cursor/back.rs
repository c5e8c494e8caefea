//! Going back: records only say where the next one begins, so those of a span are marked once.

use crate::cursor::Cursor;
use crate::cursor::Stand;
use crate::cursor::placed;
use crate::cursor::source::Source;
use crate::cursor::source::Span;
use crate::error::Result;
use crate::format::bytes::Reader;
use crate::format::record;
use crate::state::out_of_range;
use crate::units::Offset;

/// Where the records of a span begin; filled when the cursor first goes back in it.
#[derive(Debug, Default)]
pub(super) struct Marks {
    stands: Vec<Stand>,
    /// How many of them were before the cursor when it last went back.
    before: usize,
    /// The start of the log when they were filled: another start is a cut, and then they go.
    start: Offset,
}

impl Marks {
    pub(super) fn clear(&mut self) {
        self.stands.clear();
        self.before = 0;
    }

    /// The record before a cursor that goes back one by one; `None` if that has to be looked up.
    #[inline]
    pub(super) fn at_hand(&mut self, stand: Offset) -> Option<Stand> {
        let last = self.before.checked_sub(1)?;
        let is_there = self.stands.get(self.before).is_some_and(|behind| behind.offset == stand);
        let mark = self.stands.get(last).filter(|mark| is_there && mark.offset >= self.start)?;
        self.before = last;
        Some(*mark)
    }

    fn is_empty(&self) -> bool {
        self.stands.is_empty()
    }

    /// The last record below `offset`.
    fn last_below(&mut self, offset: Offset) -> Option<Stand> {
        let after = self.stands.partition_point(|mark| mark.offset < offset);
        self.before = after.checked_sub(1)?;
        self.stands.get(self.before).copied()
    }

    fn fill(&mut self, source: &Source, span: &Span, start: Offset) -> Result<()> {
        let body = source.body(span).get(..span.len).unwrap_or_default();
        let (mut reader, mut floor) = (Reader::new(body), span.base);
        self.start = start;
        while !reader.is_empty() {
            let at = body.len() - reader.remaining();
            let record = record::decode(&mut reader);
            let record = record.map_err(|why| source.malformed(span, floor, why))?;
            let offset = placed(source, span, floor, record.offset_step)?;
            self.stands.push(Stand { offset, floor, at });
            floor = offset.checked_add(1).unwrap_or(Offset::MAX);
        }
        Ok(())
    }
}

impl Cursor {
    /// The place in front of the record before, whose span is loaded; `None` at the start.
    pub(super) fn load_before(&mut self) -> Result<Option<Stand>> {
        let start = self.view.start();
        loop {
            let stand = self.stand.offset;
            if stand < start {
                return Err(out_of_range(stand, start, (start, self.view.end())));
            }
            let span = self.span;
            if span.base < stand {
                if self.marks.is_empty() {
                    self.marks.fill(&self.source, &span, start)?;
                }
                match self.marks.last_below(stand) {
                    Some(before) if before.offset >= start => return Ok(Some(before)),
                    Some(_) => return Ok(None),
                    None => {}
                }
            }
            // Nothing before it in this span: on to the span in front. One without records counts
            // as well, or it would be loaded again and again.
            let limit = if span.base < span.end { span.base.min(stand) } else { stand };
            // Nor does it go back to what may not be read yet.
            let limit = limit.min(self.view.high_watermark());
            let Some(last) = limit.checked_sub(1).filter(|last| *last >= start) else {
                return Ok(None);
            };
            let Some(span) = self.source.load_whole(&self.view, last)? else {
                return Ok(None);
            };
            self.enter(span);
        }
    }
}
