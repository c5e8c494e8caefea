//! Where a cursor may be put, and which offset that is.

use crate::cursor::view::View;
use crate::error::Result;
use crate::segment::Window;
use crate::state::State;
use crate::state::nearest;
use crate::state::out_of_range;
use crate::units::Offset;
use crate::units::Timestamp;
use std::sync::Arc;

/// A place to put a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seek {
    /// In front of the first record there is.
    Start,
    /// Behind the last record that may be read now.
    End,
    /// In front of the record with this offset or, if compaction removed it, the next there is. May
    /// be anything from the start offset to the end offset. A [`LogReader`](crate::LogReader) waits
    /// for a writer that is opening the log, up to a second, before it calls a place too high.
    Offset(Offset),
    /// In front of the first record appended at or after this time; else as
    /// [`End`](Seek::End).
    Time(Timestamp),
}

/// The offset of a place.
pub(super) fn resolve(view: &View, seek: Seek) -> Result<Offset> {
    match seek {
        Seek::Start => Ok(view.start()),
        Seek::End => Ok(view.high_watermark().max(view.start())),
        Seek::Offset(offset) => {
            if offset > view.end() {
                view.await_recovery()?;
            }
            let (start, end) = (view.start(), view.end());
            match (start..=end).contains(&offset) {
                true => Ok(offset),
                false => Err(out_of_range(offset, nearest(offset, (start, end)), (start, end))),
            }
        }
        Seek::Time(time) => match resolve_time(view, time) {
            Err(error) => view.try_again(error, || resolve_time(view, time)),
            found => found,
        },
    }
}

fn resolve_time(view: &View, time: Timestamp) -> Result<Offset> {
    let (start, high_watermark) = (view.start(), view.high_watermark());
    let found = first_since(view, time)?.unwrap_or(high_watermark);
    Ok(found.min(high_watermark).max(start))
}

/// The first record appended at or after `time`, in the files or in the tail.
fn first_since(view: &View, time: Timestamp) -> Result<Option<Offset>> {
    // The tail first: what goes from there into a file meanwhile is found in the file.
    let in_tail = view.tail_since(time);
    loop {
        let state = view.segments.state();
        match first_in_files(view, &state, time) {
            // A segment was removed between the two.
            Err(_) if !Arc::ptr_eq(&state, &view.segments.state()) => {}
            found => return Ok(found?.or(in_tail)),
        }
    }
}

fn first_in_files(view: &View, state: &State, time: Timestamp) -> Result<Option<Offset>> {
    for row in state.rows_since(time) {
        let mut window = Window::new(view.segments.open(state, row)?)?;
        if let Some(offset) = window.locate_time(time)? {
            return Ok(Some(offset));
        }
    }
    Ok(None)
}
