//! The bytes of a file of which most may never have been written, so that a disk of 300 MiB costs
//! what is on it, and a copy of it next to nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE: u64 = 4096;

type Page = [u8; 4096];

#[derive(Clone, Debug, Default)]
pub(crate) struct Bytes {
    len: u64,
    /// What is not there is zeros; so is what lies in a page beyond the length.
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Bytes {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Up to `size` bytes, fewer at the end.
    pub(crate) fn read(&self, at: u64, size: u64) -> Vec<u8> {
        let end = self.len.min(at.saturating_add(size));
        let mut read = Vec::new();
        for (page, from, to) in pieces(at, end) {
            match self.pages.get(&page) {
                Some(bytes) => read.extend_from_slice(&bytes[from..to]),
                None => read.resize(read.len() + to - from, 0),
            }
        }
        read
    }

    pub(crate) fn write(&mut self, at: u64, data: &[u8]) {
        let end = at + data.len() as u64;
        let mut left = data;
        for (page, from, to) in pieces(at, end) {
            let (piece, rest) = left.split_at(to - from);
            let bytes = self.pages.entry(page).or_insert_with(|| Arc::new([0; 4096]));
            Arc::make_mut(bytes)[from..to].copy_from_slice(piece);
            left = rest;
        }
        self.len = self.len.max(end);
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (page, within) = (len / PAGE, len % PAGE);
            drop(self.pages.split_off(&(page + 1)));
            if let Some(bytes) = self.pages.get_mut(&page) {
                Arc::make_mut(bytes)[usize::try_from(within).unwrap()..].fill(0);
            }
        }
        self.len = len;
    }
}

/// The pages of a range: number, and from where to where in it.
fn pieces(at: u64, end: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let first = at / PAGE;
    let pages = if at < end { first..end.div_ceil(PAGE) } else { first..first };
    pages.map(move |page| {
        let from = at.saturating_sub(page * PAGE);
        let to = PAGE.min(end - page * PAGE);
        (page, usize::try_from(from).unwrap(), usize::try_from(to).unwrap())
    })
}
