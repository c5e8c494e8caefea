//! A log that another process writes to: [`LogReader`], which only reads.

use crate::cursor::Cursor;
use crate::cursor::EntryBuf;
use crate::cursor::Iter;
use crate::cursor::Seek;
use crate::cursor::View;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::follow::Followed;
use crate::format::names;
use crate::format::names::Name;
use crate::log::SegmentInfo;
use crate::manifest;
use crate::options::Options;
use crate::storage::Dir;
use crate::units::Offset;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A log read from any process, while another one, or this one, writes to it.
///
/// It takes no lock, writes nothing and needs no more than permission to read; any number of them
/// may be open. It follows a live writer through everything that one does, and goes on when a
/// writer ends and another one comes. Cheap to clone; all clones look at the log together.
///
/// # What it shows
///
/// - While a writer has the log open: what a cursor of that writer shows, except what is only in
///   its memory. That is [`durable_offset`](crate::Log::durable_offset) for a log opened as
///   [`Durability::Synced`](crate::Durability::Synced), else
///   [`written_offset`](crate::Log::written_offset). A record that is synced when its append
///   returns is seen by the next call here, one that is written a millisecond later at most.
/// - While nobody has: all that is whole, which is no more than the next writer finds.
/// - While a writer is opening the log: what was shown before, or, in a new reader, what the
///   manifest calls durable.
///
/// A cursor that is not at the end may be a millisecond behind. What is truncated or deleted is
/// told to it as to any other, with [`OutOfRange`](ErrorKind::OutOfRange). After many truncations
/// that it did not see, and when a writer died during one, it may be told of one that missed it,
/// with a place before its own; it is never left to skip a record.
///
/// # What it costs
///
/// A look is a read of a few hundred bytes. Cursors that wait look every 50 us while the log is
/// busy and every 5 ms when it is quiet. Everything is read by calls, never by maps: the files are
/// another process's to use again. It keeps up to 64 segments open, as a [`Log`](crate::Log) does,
/// and so keeps their space from being freed after they were removed.
///
/// # Examples
///
/// ```
/// use stratalog::{Log, LogReader, Seek};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("orders");
/// let log = Log::open(&path)?;
/// log.append("paid")?;
///
/// // In another process, or here.
/// let reader = LogReader::open(&path)?;
/// let mut cursor = reader.cursor(Seek::Start)?;
/// assert_eq!(cursor.next()?.unwrap().value(), b"paid");
/// assert!(cursor.next()?.is_none());
/// log.append("sent")?;
/// assert_eq!(cursor.next()?.unwrap().value(), b"sent");
/// # Ok::<(), stratalog::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LogReader {
    view: View,
    follow: Arc<Followed>,
}

impl LogReader {
    /// Opens the log in the directory `path` to read it.
    ///
    /// # Errors
    ///
    /// As [`Options::open_reader`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_reader(path)
    }

    /// A cursor at a place.
    ///
    /// # Errors
    ///
    /// As [`Cursor::seek`].
    pub fn cursor(&self, seek: Seek) -> Result<Cursor> {
        Cursor::at(&self.view, seek)
    }

    /// The record at `offset`; `None` if compaction removed it or it may not be read yet.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](ErrorKind::OutOfRange) below the start; otherwise as [`Cursor::next`].
    pub fn get(&self, offset: Offset) -> Result<Option<EntryBuf>> {
        Cursor::get(&self.view, offset)
    }

    /// All records from a place to the high watermark.
    ///
    /// # Errors
    ///
    /// As [`Cursor::seek`].
    pub fn iter(&self, seek: Seek) -> Result<Iter> {
        self.cursor(seek).map(Iter::new)
    }

    /// Looks at the log, so that the offsets below are those of now. Cursors do so by themselves.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](ErrorKind::Corrupt) if the manifest is damaged or of another log, and
    /// [`Io`](ErrorKind::Io) if a file cannot be read. What was known before still is.
    pub fn refresh(&self) -> Result<()> {
        self.view.look()
    }

    /// The offset of the first record there is, as it was seen last.
    #[must_use]
    pub fn start_offset(&self) -> Offset {
        self.view.start()
    }

    /// The offset behind the last record that may be read, as it was seen last: the same as
    /// [`high_watermark`](LogReader::high_watermark), for what only the writer sees has no offset
    /// here.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.view.end()
    }

    /// Cursors read up to here, as it was seen last.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.view.high_watermark()
    }

    /// Whether a writer has the log open now: one that is quiet is told from one that is dead. The
    /// answer may be out of date when it is given.
    ///
    /// # Errors
    ///
    /// [`Io`](ErrorKind::Io) if it cannot be told.
    pub fn has_writer(&self) -> Result<bool> {
        self.follow.has_writer()
    }

    /// The segments, the oldest first, as they were seen last. The active one is as the manifest
    /// says, which may be less than there is to read.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.view.segments.state().manifest.rows.iter().map(SegmentInfo::new).collect()
    }
}

impl Options {
    /// Opens the log in the directory `path` to read it; see [`LogReader`]. Of the options only
    /// [`storage`](Options::storage) and [`clock`](Options::clock) matter. A log that is not there
    /// is not made.
    ///
    /// # Errors
    ///
    /// [`Io`](ErrorKind::Io), not found, if there is no log, or one that is being made and has no
    /// manifest yet; [`Corrupt`](ErrorKind::Corrupt) and
    /// [`UnsupportedVersion`](ErrorKind::UnsupportedVersion) for a manifest that cannot be read, or
    /// segments without one.
    pub fn open_reader(self, path: impl AsRef<Path>) -> Result<LogReader> {
        let path = path.as_ref();
        let path = std::path::absolute(path)
            .map_err(|error| Error::io("cannot make absolute", path, error))?;
        let dir = Dir::new(Arc::clone(&self.storage), path);
        let Some(manifest) = manifest::read(&dir)? else { return Err(no_log(&dir)) };
        let follow = Followed::open(dir, self.clock, manifest)?;
        Ok(LogReader { view: View::elsewhere(Arc::clone(&follow)), follow })
    }
}

fn no_log(dir: &Dir) -> Error {
    let listed = match dir.list() {
        Ok(listed) => listed,
        Err(error) => return error,
    };
    let is_segment = |name| matches!(name, Name::Segment { .. } | Name::Prepared { .. });
    let path = dir.path_of(names::MANIFEST);
    if listed.iter().any(|entry| names::parse(&entry.name).is_some_and(is_segment)) {
        let what = "the manifest is missing, but there are segments; restore the manifest, or \
                    repair the log";
        return Error::new(ErrorKind::Corrupt, what).with_path(&path);
    }
    let source = io::ErrorKind::NotFound.into();
    Error::io("there is no log here, or it is just being made: no manifest", &path, source)
}
