//! The segment that grows, as a reader sees it who is not in the writer's process: it finds the
//! frames itself.

use crate::error::Result;
use crate::format::frame::FrameHeader;
use crate::format::index::IndexEntry;
use crate::format::manifest::Row;
use crate::segment::Kind;
use crate::segment::Reading;
use crate::segment::Segment;
use crate::segment::damage::refuse_newer;
use crate::segment::index;
use crate::segment::open_file;
use crate::segment::recover::Bounds;
use crate::segment::recover::Inside;
use crate::segment::scan::Damage;
use crate::segment::scan::Scan;
use crate::segment::scan::Step;
use crate::segment::too_short;
use crate::storage::Dir;
use crate::storage::OpenMode;
use crate::sync::AtomicU64;
use crate::sync::RwLock;
use crate::units::Offset;
use crate::units::Timestamp;

/// What a reader may believe of frames that it has not seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Belief {
    /// The writer says that they are written: a sound header is enough here, and the body is
    /// checked when it is read.
    Written,
    /// Nobody says anything: a frame is there if all of it is sound, as recovery has it.
    Nothing,
}

impl Segment {
    /// Opens the segment of the manifest's active row, as far as the row says.
    pub(crate) fn open_growing(
        dir: &Dir,
        row: &Row,
        log_id: u128,
        reading: Reading,
    ) -> Result<Self> {
        let (file, header) = open_file(dir, row, log_id, OpenMode::Read)?;
        let size = file.size()?;
        if size < row.byte_len {
            return Err(too_short(&file, size, row));
        }
        let index = index::load_or_build(dir, &file, &header, row.byte_len)?;
        Ok(Self {
            header,
            file,
            kind: Kind::Growing,
            read_mode: reading.mode,
            map_len: reading.map_len,
            end_offset: AtomicU64::new(row.end_offset.get()),
            end: AtomicU64::new(row.byte_len),
            map: RwLock::new(None),
            index: RwLock::new(index),
        })
    }

    /// Publishes the frames behind the end that lie below `until`; whether there are all of them,
    /// the end tells. Not by two threads at once.
    ///
    /// # Errors
    ///
    /// An I/O error; a frame of a newer version of this crate, behind those that are published.
    pub(crate) fn follow(&self, until: Offset, belief: Belief) -> Result<()> {
        let from = (self.end(), self.end_offset());
        if from.1 >= until {
            return Ok(());
        }
        let last = self.index.read().entries().last().copied();
        let since = last.map_or(Timestamp::MIN, |entry| entry.appended_at);
        let mut bounds = Bounds { seed: self.seed(), base_offset: self.base_offset(), since };
        let mut scan = Scan::short(&self.file, self.seed(), self.file.size()?, from);
        let mut found = Found { last, entries: Vec::new(), end: from };
        let mut behind = None;
        while found.end.1 < until {
            let (position, header) = match scan.step()? {
                Step::Frame { position, header } => (position, header),
                Step::Damage(damage) => {
                    behind = Some(damage);
                    break;
                }
                Step::End => break,
            };
            if belief == Belief::Nothing {
                let sound = scan.body(position, &header)?;
                let sound = sound.and_then(|body| Inside::of(body, &header));
                if let Err(why) = sound.and_then(|_| bounds.admit(position, &header)) {
                    behind = Some(Damage { position, offset: header.base_offset, why });
                    break;
                }
            }
            if header.end_offset() > until {
                break;
            }
            found.frame(position, &header);
        }
        let Found { entries, end, .. } = found;
        self.publish(&entries, end.1, end.0);
        // What is not a frame, or not yet, is no error here: it is where the segment ends.
        behind.map_or(Ok(()), |behind| refuse_newer(&self.file, &behind))
    }
}

/// The frames of one walk.
struct Found {
    last: Option<IndexEntry>,
    entries: Vec<IndexEntry>,
    /// Position and offset.
    end: (u64, Offset),
}

impl Found {
    fn frame(&mut self, position: u64, header: &FrameHeader) {
        let (base_offset, appended_at) = (header.base_offset, header.appended_at);
        let entry = IndexEntry { base_offset, position, appended_at };
        if index::is_due(self.last.as_ref(), &entry) {
            self.last = Some(entry);
            self.entries.push(entry);
        }
        self.end = (position + header.frame_len(), header.end_offset());
    }
}
