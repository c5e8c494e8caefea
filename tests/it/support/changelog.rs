//! The histories of public repositories as changelogs, and the tables they must end in.

use flate2::read::GzDecoder;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use stratalog::{Entry, Record};

/// A line of a history.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) path: String,
    /// `None`: the file was deleted.
    pub(crate) blob: Option<String>,
}

impl Change {
    pub(crate) fn record(&self) -> Record<'_> {
        match &self.blob {
            Some(blob) => Record::new(blob).key(&self.path),
            None => Record::tombstone(&self.path),
        }
    }
}

pub(crate) fn changes(name: &str) -> Vec<Change> {
    let parse = |line: &str| {
        let mut parts = line.split('\t').skip(1);
        let path = parts.next().unwrap().to_owned();
        let blob = parts.next().filter(|blob| !blob.is_empty()).map(str::to_owned);
        Change { path, blob }
    };
    unpacked(name).lines().map(parse).collect()
}

pub(crate) fn table(name: &str) -> BTreeMap<String, String> {
    let parse = |line: &str| {
        let (path, blob) = line.split_once('\t').unwrap();
        (path.to_owned(), blob.to_owned())
    };
    unpacked(name).lines().map(parse).collect()
}

/// What a reader of a changelog does with each entry.
pub(crate) fn apply(table: &mut BTreeMap<String, String>, entry: Entry<'_>) {
    let path = str::from_utf8(entry.key().unwrap()).unwrap();
    if entry.is_tombstone() {
        table.remove(path);
    } else {
        table.insert(path.to_owned(), str::from_utf8(entry.value()).unwrap().to_owned());
    }
}

fn unpacked(name: &str) -> String {
    let packed = fs::read(format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut text = String::new();
    GzDecoder::new(packed.as_slice()).read_to_string(&mut text).unwrap();
    text
}
