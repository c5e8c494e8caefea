//! Where a cursor's records come from: frames of a segment, or copies of the unwritten tail.

use crate::cursor::view::View;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::bytes::DecodeError;
use crate::format::frame::FrameHeader;
use crate::segment;
use crate::segment::Frame;
use crate::segment::Records;
use crate::segment::Window;
use crate::sync::hint;
use crate::units::Offset;
use crate::units::Timestamp;
use std::sync::Arc;

/// How often a reader looks for a record that moves from memory to a file before it concludes that
/// it is in neither.
const LOOKS_MAX: usize = 16;

/// A reader that is as fast as the appender finds each record as it comes, and would take the lock
/// of the tail for each. It gives this many the time to come, if they do within some microseconds.
const COMPANY: u64 = 40;
const COMPANY_LOOKS: u32 = 4;
const COMPANY_PAUSES: u32 = 8;

/// Bytes of records, and where more of them are.
#[derive(Debug, Default)]
pub(crate) struct Source {
    window: Option<Window>,
    /// Where the frame behind the current one begins in the window's segment.
    next_frame: Option<u64>,
    tail: Vec<u8>,
    /// Base of the tail's frame, and where in its body the copy ended.
    tail_hint: Option<(Offset, usize)>,
    /// Whether there has been something to read ever since it read from the tail.
    keeps_pace: bool,
}

/// A run of records that are read from one body; by default an empty one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    /// The offset the first record would have without an offset step.
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) appended_at: Timestamp,
    /// Length of the body.
    pub(crate) len: usize,
    /// The frame it is, or `None` for a copy of the tail.
    frame: Option<Frame>,
}

impl Source {
    /// The records of a span that came from here last.
    #[inline]
    pub(crate) fn body(&self, span: &Span) -> &[u8] {
        match (span.frame, &self.window) {
            (Some(frame), Some(window)) => window.body(&frame),
            _ => &self.tail,
        }
    }

    /// What the frame of a span says, if it is not a copy of the tail.
    pub(crate) fn header(&self, span: &Span) -> Option<FrameHeader> {
        span.frame.map(|frame| frame.header)
    }

    /// Forgets where it is, before a jump.
    pub(crate) fn jump(&mut self) {
        self.next_frame = None;
        self.tail_hint = None;
    }

    /// There is nothing more to read.
    pub(crate) fn run_dry(&mut self) {
        self.keeps_pace = false;
    }

    /// The span that holds `offset`, which is below the high watermark, or goes on there.
    pub(crate) fn load(&mut self, view: &View, offset: Offset) -> Result<Option<Span>> {
        match self.find(view, offset) {
            Err(error) => view.try_again(error, || {
                *self = Self::default();
                self.find(view, offset)
            }),
            found => found,
        }
    }

    #[inline]
    fn find(&mut self, view: &View, offset: Offset) -> Result<Option<Span>> {
        for _ in 0..LOOKS_MAX {
            if offset < view.written() {
                if let Some(frame) = self.load_frame(view, offset)? {
                    self.next_frame = Some(frame.end());
                    return self.span(frame).map(Some);
                }
                if let Some(hole) = self.hole(offset) {
                    return Ok(Some(hole));
                }
            }
            if let Some(span) = self.load_tail(view, offset) {
                return Ok(Some(span).filter(|span| span.end <= view.high_watermark()));
            }
        }
        Err(self.missing(offset))
    }

    /// The span whose frame holds `offset`, from the frame's first record on.
    pub(crate) fn load_whole(&mut self, view: &View, offset: Offset) -> Result<Option<Span>> {
        self.jump();
        if offset < view.written() {
            return self.load(view, offset);
        }
        match view.tail_frame(offset) {
            Some(base) => self.load(view, base),
            None => self.load(view, offset),
        }
    }

    fn load_frame(&mut self, view: &View, offset: Offset) -> Result<Option<Frame>> {
        if let (Some(window), Some(position)) = (self.window.as_mut(), self.next_frame)
            && let Some(frame) = window.frame_at(position, offset)?
        {
            return Ok(Some(frame));
        }
        // From here on the place is looked up, perhaps in another segment.
        self.next_frame = None;
        let Some(segment) = view.segments.find(offset)? else {
            return Ok(None);
        };
        let window = match self.window.take() {
            // Not by its id: a segment that was cut back is another one.
            Some(window) if Arc::ptr_eq(window.segment(), &segment) => window,
            _ => Window::new(segment)?,
        };
        self.window.insert(window).locate(offset)
    }

    /// The segment that was looked into, if it covers `offset` and compaction left nothing in it.
    fn hole(&self, offset: Offset) -> Option<Span> {
        let segment = self.window.as_ref()?.segment();
        let (base, end) = (segment.base_offset(), segment.end_offset());
        let is_hole = segment.is_hole() && (base..end).contains(&offset);
        is_hole.then(|| Span { base, end, ..Span::default() })
    }

    /// The records of a frame, without those that were cut off.
    fn span(&self, frame: Frame) -> Result<Span> {
        let header = &frame.header;
        let mut span = Span {
            base: header.base_offset,
            end: header.end_offset(),
            appended_at: header.appended_at,
            len: header.body_len as usize,
            frame: Some(frame),
        };
        let Some(window) = self.window.as_ref().filter(|window| window.end_offset() < span.end)
        else {
            return Ok(span);
        };
        let end = window.end_offset();
        // Before the records are looked at: an error leads no further, whatever the frame claims.
        span.end = end;
        for placed in Records::new(window.body(&frame), header) {
            let placed = placed.map_err(|why| self.malformed(&span, span.base, why))?;
            if placed.offset >= end {
                span.len = placed.at;
                break;
            }
        }
        Ok(span)
    }

    fn load_tail(&mut self, view: &View, offset: Offset) -> Option<Span> {
        if std::mem::replace(&mut self.keeps_pace, true) {
            await_company(view, offset);
        }
        let span = view.copy_tail(offset, self.tail_hint, &mut self.tail)?;
        self.tail_hint = Some(span.behind);
        self.next_frame = None;
        Some(Span {
            base: span.base_offset,
            end: span.end_offset,
            appended_at: span.appended_at,
            len: self.tail.len(),
            frame: None,
        })
    }

    /// The error for a body that does not decode.
    #[cold]
    pub(crate) fn malformed(&self, span: &Span, offset: Offset, why: DecodeError) -> Error {
        let error = segment::unreadable(why).with_offset(offset).with_readable_from(span.end);
        match (span.frame, &self.window) {
            (Some(frame), Some(window)) => {
                error.with_path(window.segment().path()).with_position(frame.position)
            }
            _ => error,
        }
    }

    fn missing(&self, offset: Offset) -> Error {
        let what = "the log is damaged (a segment ends before its records do)";
        let error = Error::new(ErrorKind::Corrupt, what).with_offset(offset);
        match &self.window {
            Some(window) => {
                let segment = window.segment();
                let error = error.with_path(segment.path()).with_position(segment.end());
                error.with_readable_from(segment.end_offset().max(offset + 1))
            }
            None => error,
        }
    }
}

/// Waits a moment for records behind the one at `offset`.
fn await_company(view: &View, offset: Offset) {
    for _ in 0..COMPANY_LOOKS {
        if view.high_watermark().saturating_since(offset) >= COMPANY {
            return;
        }
        (0..COMPANY_PAUSES).for_each(|_| hint::spin_loop());
    }
}
