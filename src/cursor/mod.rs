//! Cursors: reading the log forwards and backwards from any place, at a pace of their own.
//!
//! # Invariants
//!
//! - A cursor stands between two records: `next` then `prev` gives the same record twice.
//! - It never shows a record at or above the high watermark, and never skips one in silence: what
//!   it cannot read is an error, at which it stays.

mod back;
mod consumer;
mod entry;
mod follow;
pub(crate) mod frames;
mod iter;
mod pace;
mod seek;
mod source;
#[cfg(feature = "stream")]
mod stream;
mod view;
mod wait;

pub use consumer::Consumer;
pub(crate) use consumer::ConsumerParts;
pub use entry::Entry;
pub use entry::EntryBuf;
pub use entry::Headers;
pub use follow::Follow;
pub use iter::Iter;
pub use seek::Seek;
#[cfg(feature = "stream")]
pub use stream::EntryStream;
pub(crate) use view::View;
pub use wait::Wait;

use crate::cursor::back::Marks;
use crate::cursor::pace::Pace;
use crate::cursor::source::Source;
use crate::cursor::source::Span;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::format::bytes::DecodeError;
use crate::format::bytes::Reader;
use crate::format::record;
use crate::state::nearest;
use crate::state::out_of_range;
use crate::units::Offset;
use std::time::Duration;

/// A place in the log, from which records are read in either direction.
///
/// Independent of all other cursors and of appends; keeps what it reads alive. It stays valid when
/// the log is closed and reads on up to what was there.
///
/// # Examples
///
/// ```
/// # use std::sync::Arc;
/// # use stratalog::{storage::MemoryStorage, Options, Seek};
/// # let log = Options::new().storage(Arc::new(MemoryStorage::new())).open("orders")?;
/// log.append_batch(["a", "b", "c"])?;
/// let mut cursor = log.cursor(Seek::Start)?;
/// while let Some(entry) = cursor.next()? {
///     println!("{}: {}", entry.offset(), entry.value().escape_ascii());
/// }
/// assert_eq!(cursor.prev()?.unwrap().value(), b"c");
/// # Ok::<(), stratalog::Error>(())
/// ```
#[derive(Debug)]
pub struct Cursor {
    view: View,
    source: Source,
    span: Span,
    stand: Stand,
    /// The count of the log's cuts when it last looked.
    cuts: u64,
    marks: Marks,
    pace: Pace,
}

/// A place in front of a record.
#[derive(Clone, Copy, Debug)]
struct Stand {
    /// The cursor's offset: the record in front of it has this or a higher one.
    offset: Offset,
    /// The offset that record has without its offset step.
    floor: Offset,
    /// Where it begins in the span's body.
    at: usize,
}

impl Cursor {
    pub(crate) fn new(view: View, offset: Offset) -> Self {
        let stand = Stand { offset, floor: offset, at: 0 };
        let (source, span, cuts) = (Source::default(), Span::default(), view.cuts());
        Self { view, source, span, stand, cuts, marks: Marks::default(), pace: Pace::default() }
    }

    /// A cursor at a place.
    pub(crate) fn at(view: &View, seek: Seek) -> Result<Self> {
        let mut cursor = Self::new(view.clone(), view.start());
        cursor.seek(seek)?;
        Ok(cursor)
    }

    /// The record at `offset`; `None` if it is not there, or may not be read yet.
    pub(crate) fn get(view: &View, offset: Offset) -> Result<Option<EntryBuf>> {
        view.look()?;
        let start = view.start();
        if offset < start {
            return Err(out_of_range(offset, start, (start, view.end())));
        }
        if offset >= view.high_watermark() {
            return Ok(None);
        }
        let mut cursor = Self::new(view.clone(), offset);
        let entry = cursor.record_here()?;
        Ok(entry.map(|entry| entry.to_buf()))
    }

    /// The next record, or `None` at the high watermark; later calls find what was appended since.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for damage, at every call until the cursor is moved;
    /// [`Error::readable_from`](crate::Error::readable_from) says where to seek to go on.
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) if the place has been deleted or truncated.
    /// [`Io`](crate::ErrorKind::Io) if a file cannot be read. No error moves the cursor.
    #[expect(clippy::should_implement_trait, reason = "the entry borrows from the cursor")]
    #[inline]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>> {
        if self.cuts != self.view.cuts() {
            self.catch_up()?;
        }
        if self.stand.at >= self.span.len && !self.load()? {
            return Ok(None);
        }
        let (entry, behind) = decode(&self.source, &self.span, self.stand)?;
        self.stand = behind;
        Ok(Some(entry))
    }

    /// As [`next`](Cursor::next), with bytes of its own.
    fn next_buf(&mut self) -> Result<Option<EntryBuf>> {
        Ok(self.next()?.map(|entry| entry.to_buf()))
    }

    /// The record whose offset is that of the place, if there is one. Does not look at what
    /// follows, as [`next`](Cursor::next) does where compaction removed it.
    pub(crate) fn record_here(&mut self) -> Result<Option<Entry<'_>>> {
        let offset = self.stand.offset;
        let span = loop {
            if offset >= self.view.high_watermark() {
                return Ok(None);
            }
            let loaded = self.source.load(&self.view, offset);
            if self.cuts == self.view.cuts() {
                let Some(span) = loaded? else { return Ok(None) };
                break span;
            }
            self.catch_up()?;
        };
        self.enter(span);
        self.skip_to(&span, offset)?;
        if self.stand.at >= span.len {
            return Ok(None);
        }
        let (entry, _) = decode(&self.source, &self.span, self.stand)?;
        Ok(Some(entry).filter(|entry| entry.offset() == offset))
    }

    /// The record before, or `None` at the start of the log.
    ///
    /// # Errors
    ///
    /// As [`next`](Cursor::next).
    pub fn prev(&mut self) -> Result<Option<Entry<'_>>> {
        self.view.keep_up()?;
        let found = loop {
            if self.cuts != self.view.cuts() {
                self.catch_up()?;
            }
            if let Some(before) = self.marks.at_hand(self.stand.offset) {
                break Ok(Some(before));
            }
            let found = self.load_before();
            if self.cuts == self.view.cuts() {
                break found;
            }
        };
        let Ok(Some(stand)) = found else {
            // It has looked elsewhere, so what is at hand is not what it stands in.
            self.stand_at(self.stand.offset);
            return found.map(|_| None);
        };
        self.stand = stand;
        decode(&self.source, &self.span, stand).map(|(entry, _)| Some(entry))
    }

    /// The offset of the place: the next record has this offset, or the first higher one there is.
    /// Where compaction has removed the last records, looking for the next one moves it over them.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.stand.offset
    }

    /// Moves to another place.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) for an offset outside the log; for
    /// [`Seek::Time`] as [`next`](Cursor::next). Then the cursor has not moved.
    pub fn seek(&mut self, seek: Seek) -> Result<()> {
        self.view.look()?;
        let mut cuts = self.view.cuts();
        loop {
            let resolved = seek::resolve(&self.view, seek);
            let settled = self.view.segments.settled_cuts();
            if settled == cuts {
                self.stand_at(resolved?);
                self.cuts = cuts;
                return Ok(());
            }
            // It may have looked while the log was cut.
            cuts = settled;
        }
    }

    /// Blocks until there is a record to read, or until `timeout` has passed; tells whether there
    /// is one.
    ///
    /// A cursor of a [`LogReader`](crate::LogReader) looks for news again and again, the seldomer
    /// the longer there was none, but every 5 ms at least. It does not end when the writer does,
    /// for another one may come.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::ErrorKind::Closed) when the log is closed, and
    /// [`Poisoned`](crate::ErrorKind::Poisoned) when it fails: no record will come.
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) if the place has been truncated.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool> {
        self.pass_holes();
        if self.stand.offset == Offset::MAX {
            // No record ever comes there.
            return Ok(false);
        }
        self.wait_for_record(timeout)
    }

    /// As [`wait`](Cursor::wait) without a timeout, as a future for any executor. It borrows
    /// nothing from the cursor.
    ///
    /// The first such wait for a [`LogReader`](crate::LogReader) starts a thread that looks for
    /// all of them, and ends when the reader and its cursors are gone.
    ///
    /// Its errors are those of [`wait`](Cursor::wait), and
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) behind the last offset that a record can have.
    pub fn wait_async(&mut self) -> Wait {
        self.pass_holes();
        Wait::new(self.watch_place())
    }

    /// All records from here on, those to come too: an iterator that blocks at the end of the log.
    #[must_use]
    pub fn follow(self) -> Follow {
        Follow::new(self)
    }

    /// As [`follow`](Cursor::follow), as a stream for any executor.
    #[cfg(feature = "stream")]
    pub fn stream(self) -> EntryStream {
        EntryStream::new(self)
    }

    /// Where compaction has removed all that was in front of the cursor, waiting for that offset
    /// would end at once, and for nothing.
    fn pass_holes(&mut self) {
        if self.cuts == self.view.cuts() {
            // An error is met again, and told, by who reads.
            drop(self.load());
        }
    }

    /// Loads the records in front of the cursor, behind the span it is through with; tells whether
    /// there are any.
    fn load(&mut self) -> Result<bool> {
        loop {
            let loaded = self.load_once();
            if self.cuts == self.view.cuts() {
                if loaded.is_err() {
                    // It has looked elsewhere, so what is at hand is not what it stands in.
                    self.stand_at(self.stand.offset);
                }
                return loaded;
            }
            // The log was cut while it was looking.
            self.catch_up()?;
        }
    }

    fn load_once(&mut self) -> Result<bool> {
        while self.stand.at >= self.span.len {
            // Compaction may have removed the last records of the frame.
            let offset = self.stand.offset.max(self.span.end);
            self.view.keep_up()?;
            let (start, end) = (self.view.start(), self.view.end());
            if offset < start || offset > end {
                let nearest = nearest(offset, (start, end));
                return Err(out_of_range(offset, nearest, (start, end)));
            }
            if offset >= self.view.high_watermark() && !self.view.reaches(offset)? {
                self.source.run_dry();
                // Behind the hole at the end, if there is one, so that a wait is for a record.
                self.stand.offset = offset;
                return Ok(false);
            }
            let Some(span) = self.source.load(&self.view, offset)? else {
                return Ok(false);
            };
            self.enter(span);
            self.skip_to(&span, offset)?;
        }
        Ok(true)
    }

    /// Gets to know the cuts of the log since it last looked; an error if one of them took the
    /// place where it stands, until it is moved.
    #[cold]
    fn catch_up(&mut self) -> Result<()> {
        let (cuts, lowest_end) = self.view.segments.cuts_since(self.cuts);
        let (start, end) = (self.view.start(), self.view.end());
        let stand = self.stand.offset;
        if let Some(point) = lowest_end.filter(|point| *point < stand) {
            let what = format!("the records from offset {point} to {stand} have been truncated");
            // Where it can go on: the log may have been deleted up to behind that point since.
            let nearest = point.max(start);
            return Err(Error::new(ErrorKind::OutOfRange, what).with_offset(nearest));
        }
        if stand < start {
            return Err(out_of_range(stand, start, (start, end)));
        }
        // What it has at hand may have been replaced.
        self.source = Source::default();
        self.stand_at(stand);
        self.cuts = cuts;
        Ok(())
    }

    fn stand_at(&mut self, offset: Offset) {
        self.source.jump();
        self.enter(Span::default());
        self.stand = Stand { offset, floor: offset, at: 0 };
    }

    fn enter(&mut self, span: Span) {
        self.span = span;
        self.marks.clear();
    }

    /// Stands in front of the first record of the span at or above `offset`.
    fn skip_to(&mut self, span: &Span, offset: Offset) -> Result<()> {
        let mut stand = Stand { offset, floor: span.base, at: 0 };
        while stand.floor < offset && stand.at < span.len {
            let (entry, behind) = decode(&self.source, span, stand)?;
            if entry.offset() >= offset {
                break;
            }
            stand = behind;
        }
        self.stand = Stand { offset, ..stand };
        Ok(())
    }
}

/// The record at a place in a span, and the place behind it.
#[inline]
fn decode<'a>(source: &'a Source, span: &Span, stand: Stand) -> Result<(Entry<'a>, Stand)> {
    let body = source.body(span);
    let mut reader = Reader::new(body.get(stand.at..).unwrap_or_default());
    let record = match record::decode(&mut reader) {
        Ok(record) => record,
        Err(why) => return Err(source.malformed(span, stand.floor, why)),
    };
    let offset = placed(source, span, stand.floor, record.offset_step)?;
    let behind = offset.checked_add(1).unwrap_or(Offset::MAX);
    let at = body.len() - reader.remaining();
    let stand = Stand { offset: behind, floor: behind, at };
    Ok((Entry::new(offset, span.appended_at, record), stand))
}

/// The offset of a record of a span.
#[inline]
fn placed(source: &Source, span: &Span, floor: Offset, step: u64) -> Result<Offset> {
    let offset = floor.checked_add(step).filter(|offset| *offset < span.end);
    offset.ok_or_else(|| {
        let why = DecodeError::Malformed("more records than the frame covers");
        source.malformed(span, floor, why)
    })
}
