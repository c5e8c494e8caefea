//! Replication: frames of one log appended to another, offsets, times and bytes as they are.

use crate::compaction;
use crate::cursor::frames;
use crate::error::Result;
use crate::log::Log;
use crate::options::Durability;
use crate::segment::FRAME_BYTES;
use crate::segment::Shipment;
use crate::units::Offset;
use std::ops::Range;

/// A stretch of a log as bytes, to be appended to another one with
/// [`append_frames`](Log::append_frames).
///
/// The bytes are the same in memory and on the wire; docs/FORMAT.md describes them. They say by
/// themselves which offsets they cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    bytes: Vec<u8>,
    range: Range<Offset>,
}

impl Frames {
    /// The bytes to be sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes to be sent, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The offsets that the frames cover. Of a log that was compacted not each of them has a
    /// record, but nothing is missing between this range and that of the next call, which begins
    /// with its end.
    #[must_use]
    pub fn range(&self) -> Range<Offset> {
        self.range.clone()
    }

    /// Whether there was nothing to ship.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Log {
    /// Verified frames from `from` on, up to the high watermark, for a replica of this log.
    ///
    /// At most `max_bytes`, nor more than `max_batch_bytes`; but one frame, if there is one,
    /// whatever its length. They begin exactly with `from`: a frame that covers it in its middle is
    /// made anew from there. Where nothing is to be shipped yet they are empty; to wait for more,
    /// use [`Cursor::wait`](crate::Cursor::wait).
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) if `from` is below the start or above the end;
    /// [`Error::offset`](crate::Error::offset) is the nearest one that is not. Otherwise as
    /// [`Cursor::next`](crate::Cursor::next): nothing that is damaged is ever shipped.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use stratalog::{storage::MemoryStorage, Options};
    /// # let open = || Options::new().storage(Arc::new(MemoryStorage::new())).open("orders");
    /// let (leader, replica) = (open()?, open()?);
    /// leader.append_batch(["a", "b"])?;
    /// loop {
    ///     let frames = leader.frames(replica.end_offset(), 1 << 20)?;
    ///     if frames.is_empty() {
    ///         break;
    ///     }
    ///     assert_eq!(replica.append_frames(frames.as_bytes())?, frames.range());
    /// }
    /// assert_eq!(replica.end_offset(), leader.end_offset());
    /// # Ok::<(), stratalog::Error>(())
    /// ```
    pub fn frames(&self, from: Offset, max_bytes: usize) -> Result<Frames> {
        let max_bytes = self.0.max_batch_bytes.min(max_bytes as u64);
        let (bytes, range) = frames::ship(self.view(), from, max_bytes)?;
        Ok(Frames { bytes, range })
    }

    /// Appends frames of another log and returns the range of their offsets when they are as
    /// durable as this log was opened for. Offsets, append times and the bytes of the records stay
    /// as they are; what compaction removed there is not here either.
    ///
    /// Everything is checked before anything is appended: bytes of which one is wrong change
    /// nothing. Then they go into the log like appends one after the other, a frame each: a crash,
    /// or a disk that fills up, can leave a prefix of whole frames, and
    /// [`end_offset`](Log::end_offset) says where to go on.
    ///
    /// Frames say where they go, not what was there before. While one log leads, that is enough;
    /// after a change of leaders find out first whether what this log has is what the new leader
    /// has: see [`diverges_from`](Log::diverges_from).
    ///
    /// A log that takes frames may take records as well, when it is the leader; their append times
    /// go on from those of the frames.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::ErrorKind::Conflict) if the frames do not begin at the end of this log,
    /// which is [`Error::offset`](crate::Error::offset): ask for frames from there. If they do
    /// begin there, their first record is earlier than the last one here, and of another history:
    /// see [`diverges_from`](Log::diverges_from).
    /// [`Corrupt`](crate::ErrorKind::Corrupt) for bytes that are not what a log ships, with the
    /// position in them; [`UnsupportedVersion`](crate::ErrorKind::UnsupportedVersion) for those of
    /// a newer version; [`TooLarge`](crate::ErrorKind::TooLarge) for a frame that no log with the
    /// same `max_batch_bytes` ships. Otherwise as [`append`](Log::append).
    pub fn append_frames(&self, frames: &[u8]) -> Result<Range<Offset>> {
        self.append_frames_with(self.0.durability, frames)
    }

    /// As [`append_frames`](Log::append_frames), at a durability of its own.
    ///
    /// # Errors
    ///
    /// As [`append_frames`](Log::append_frames).
    pub fn append_frames_with(&self, level: Durability, frames: &[u8]) -> Result<Range<Offset>> {
        // Also a log that takes only small batches gathers small records into one frame.
        let frame_max = self.0.max_batch_bytes.max(2 * FRAME_BYTES as u64);
        // A record that was as large as can be may have lost all in front of it.
        let frame_max = frame_max.saturating_add(compaction::GROWTH_MAX as u64);
        let shipment = Shipment::check(frames, frame_max)?;
        self.commit().append_frames(&shipment, level)
    }

    /// The first offset at which a record of these frames, of another log, is not the one that this
    /// log has there; `None` if they agree in all that both have and this log shows.
    ///
    /// Two logs that were one agree up to some offset, and behind it in nothing: append times are
    /// compared as well. So a log that was the leader, and comes back when another one leads, finds
    /// out what of it was never replicated. It goes back in steps, to an offset where the new
    /// leader's frames begin alike, or to the last one that it knows to be replicated, and from
    /// there on to the first difference. That, or the end of the shorter log, is the end of what
    /// they have in common. What is behind goes with [`truncate_to`](Log::truncate_to), and
    /// `append_frames` fills up.
    ///
    /// Where one of the two has no record, since it was compacted, nothing can be compared, and
    /// nothing is said. To go by a stretch of which compaction has left nothing, go further back.
    ///
    /// # Errors
    ///
    /// As [`append_frames`](Log::append_frames) for the bytes, and as
    /// [`Cursor::next`](crate::Cursor::next) for the log.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use stratalog::{storage::MemoryStorage, Offset, Options};
    /// # let open = || Options::new().storage(Arc::new(MemoryStorage::new())).open("orders");
    /// let (old, new) = (open()?, open()?);
    /// old.append("replicated")?;
    /// new.append_frames(old.frames(Offset::ZERO, 1 << 20)?.as_bytes())?;
    /// old.append("never left the old leader")?;
    /// new.append("what the new leader went on with")?;
    ///
    /// let frames = new.frames(Offset::ZERO, 1 << 20)?;
    /// let diverges = old.diverges_from(frames.as_bytes())?;
    /// assert_eq!(diverges, Some(Offset::from(1)));
    /// old.truncate_to(Offset::from(1))?;
    /// old.append_frames(new.frames(old.end_offset(), 1 << 20)?.as_bytes())?;
    /// assert_eq!(old.diverges_from(frames.as_bytes())?, None);
    /// # Ok::<(), stratalog::Error>(())
    /// ```
    pub fn diverges_from(&self, frames: &[u8]) -> Result<Option<Offset>> {
        let shipment = Shipment::check(frames, u64::MAX)?;
        frames::first_difference(self.view(), &shipment)
    }
}
