//! Which segment comes next: its id and seed, of one that is prepared or chosen now.

use crate::bugs::Bug;
use crate::commit::tail::Place;
use crate::commit::tail::Tail;
use crate::format::manifest::Prepared;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::segment;
use crate::segment::NewSegment;

impl Tail {
    /// The first of `count` ids for segments that are not begun by records that arrive; `None` if
    /// there are not so many left.
    pub(crate) fn take_segment_ids(&mut self, count: u64) -> Option<u64> {
        let first = self.next_segment_id;
        self.next_segment_id = first.checked_add(count)?;
        Some(first)
    }

    /// Ids and seeds for segments to be prepared; none if there are hardly any ids left.
    pub(crate) fn choose_segments(&mut self, count: usize) -> Vec<Prepared> {
        let has_ids = self.next_segment_id < u64::MAX / 2;
        (0..count).filter(|_| has_ids).map(|_| self.choose_segment()).collect()
    }

    fn choose_segment(&mut self) -> Prepared {
        let segment_id = self.next_segment_id;
        self.next_segment_id += 1;
        let random = if Bug::OneSeed.is_on() { 1 } else { self.storage.random() };
        Prepared { segment_id, seed: segment::seed(random) }
    }

    /// The files of these segments are there, and a durable manifest names them. If another was
    /// begun meanwhile they are too late.
    pub(crate) fn have_ready(&mut self, prepared: Vec<Prepared>) {
        let last_id = self.last_id;
        self.ready.extend(prepared.into_iter().filter(|ready| ready.segment_id > last_id));
    }

    pub(super) fn begin_segment(&mut self) -> Place {
        self.seal_chunk();
        let ready = self.ready.pop_front();
        let Prepared { segment_id, seed } = ready.unwrap_or_else(|| self.choose_segment());
        self.last_id = segment_id;
        let segment = NewSegment { segment_id, seed, base_offset: self.end };
        Place { segment, position: SEGMENT_HEADER_LEN as u64, first_at: None }
    }
}
