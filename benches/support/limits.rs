//! What the machine does without a log: the bare system calls, copies and checksums.

use crate::support::Random;
use crate::support::scratch;
use crate::support::timed;
use crate::support::value;
use memmap2::Mmap;
use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const BUFFER_BYTES: usize = 64 << 10;
const FRAME_BYTES: usize = 8 << 10;

/// Header of a record or frame here: length and CRC.
const HEADER_BYTES: usize = 8;

/// What a lone synced record takes in a file of the log.
pub(crate) const LONE_BYTES: usize = 144;

/// Records with a header of 8 bytes and a CRC each, copied to a buffer that is written to a growing
/// file by `write(2)` whenever it has 64 KiB. `end` is done with the file at the end.
pub(crate) fn write_64k_crc(record_bytes: usize, count: u64, end: fn(&File)) -> Duration {
    let (dir, value) = (scratch(), value(record_bytes));
    let mut file = File::create(dir.path().join("limit")).unwrap();
    let mut buffer = Vec::with_capacity(BUFFER_BYTES + HEADER_BYTES + value.len());
    timed(|| {
        for _ in 0..count {
            push(&mut buffer, black_box(&value));
            if buffer.len() >= BUFFER_BYTES {
                file.write_all(&buffer).unwrap();
                buffer.clear();
            }
        }
        file.write_all(&buffer).unwrap();
        end(&file);
    })
}

/// For [`write_64k_crc`]: leaves the data with the operating system.
pub(crate) fn leave(_: &File) {}

/// For [`write_64k_crc`]: makes the data durable.
pub(crate) fn sync(file: &File) {
    file.sync_data().unwrap();
}

/// As [`write_64k_crc`], but nothing is written.
pub(crate) fn memcpy_crc(record_bytes: usize, count: u64) -> Duration {
    let value = value(record_bytes);
    let mut buffer = Vec::with_capacity(BUFFER_BYTES + HEADER_BYTES + value.len());
    timed(|| {
        for _ in 0..count {
            push(&mut buffer, black_box(&value));
            if buffer.len() >= BUFFER_BYTES {
                black_box(&buffer);
                buffer.clear();
            }
        }
    })
}

/// One small write and one `fdatasync` each, into a file that was filled with zeros before.
pub(crate) fn pwrite_fdatasync_prefilled(count: u64) -> Duration {
    let (dir, lone) = (scratch(), value(LONE_BYTES));
    let file = File::create(dir.path().join("limit")).unwrap();
    let end = count * LONE_BYTES as u64;
    for position in (0..end).step_by(BUFFER_BYTES) {
        file.write_all_at(&[0; BUFFER_BYTES], position).unwrap();
    }
    file.sync_data().unwrap();
    timed(|| write_and_sync(&file, &lone, count))
}

/// As [`pwrite_fdatasync_prefilled`], into a file that grows.
pub(crate) fn fdatasync_growing(count: u64) -> Duration {
    let (dir, lone) = (scratch(), value(LONE_BYTES));
    let file = File::create(dir.path().join("limit")).unwrap();
    timed(|| write_and_sync(&file, &lone, count))
}

/// One overwrite of 64 bytes and one `fdatasync` each, always in the same place.
pub(crate) fn overwrite_fdatasync(count: u64) -> Duration {
    let (dir, bytes) = (scratch(), [7; 64]);
    let file = File::create(dir.path().join("limit")).unwrap();
    file.write_all_at(&[0; 4096], 0).unwrap();
    file.sync_data().unwrap();
    timed(|| {
        for _ in 0..count {
            file.write_all_at(&bytes, 0).unwrap();
            file.sync_data().unwrap();
        }
    })
}

fn write_and_sync(file: &File, bytes: &[u8], count: u64) {
    for nth in 0..count {
        file.write_all_at(bytes, nth * bytes.len() as u64).unwrap();
        file.sync_data().unwrap();
    }
}

/// A file of frames of about 8 KiB with a CRC each, whose records have a length and nothing else.
pub(crate) struct Frames {
    _dir: TempDir,
    map: Mmap,
}

impl Frames {
    pub(crate) fn new(record_bytes: usize, count: u64) -> Self {
        let (dir, value) = (scratch(), value(record_bytes));
        let path = dir.path().join("limit");
        let mut file = File::create(&path).unwrap();
        let len = u16::try_from(record_bytes).unwrap().to_le_bytes();
        let per_frame = (FRAME_BYTES / (record_bytes + len.len())) as u64;
        let body = [&len, value.as_slice()].concat().repeat(per_frame.try_into().unwrap());
        let mut frame = Vec::new();
        push(&mut frame, &body);
        let frames = count / per_frame;
        for _ in 0..frames {
            file.write_all(&frame).unwrap();
        }
        Self { _dir: dir, map: map(&path) }
    }

    /// Checks and reads everything; returns how many records there were.
    pub(crate) fn map_crc(&self) -> u64 {
        let mut rest: &[u8] = &self.map;
        let mut count = 0;
        while let Some((mut body, behind)) = checked(rest) {
            while let Some((len, after)) = body.split_first_chunk() {
                let (record, after) = after.split_at(u16::from_le_bytes(*len).into());
                black_box(record);
                body = after;
                count += 1;
            }
            rest = behind;
        }
        count
    }
}

/// A file of records with a CRC each, all of one size, so that each one's position is known.
pub(crate) struct Records {
    _dir: TempDir,
    file: File,
    map: Mmap,
    count: u64,
    record_bytes: usize,
}

impl Records {
    pub(crate) fn new(record_bytes: usize, count: u64) -> Self {
        let (dir, value) = (scratch(), value(record_bytes));
        let path = dir.path().join("limit");
        let mut file = OpenOptions::new().create_new(true).append(true).read(true).open(&path);
        let file = file.as_mut().unwrap();
        let mut buffer = Vec::new();
        for _ in 0..count {
            push(&mut buffer, &value);
            if buffer.len() >= BUFFER_BYTES {
                file.write_all(&buffer).unwrap();
                buffer.clear();
            }
        }
        file.write_all(&buffer).unwrap();
        let file = file.try_clone().unwrap();
        let record_bytes = record_bytes + HEADER_BYTES;
        Self { map: map(&path), _dir: dir, file, count, record_bytes }
    }

    /// Random reads by `pread`, checked.
    pub(crate) fn pread_known_position(&self, reads: u64) -> Duration {
        let mut random = Random::default();
        let mut buffer = vec![0; self.record_bytes];
        timed(|| {
            for _ in 0..reads {
                let position = random.below(self.count) * self.record_bytes as u64;
                self.file.read_exact_at(&mut buffer, position).unwrap();
                black_box(checked(&buffer).unwrap());
            }
        })
    }

    /// Random reads through a map, checked.
    pub(crate) fn map_known_position(&self, reads: u64) -> Duration {
        let mut random = Random::default();
        timed(|| {
            for _ in 0..reads {
                let nth = usize::try_from(random.below(self.count)).unwrap();
                let record = self.map.get(nth * self.record_bytes..).unwrap();
                black_box(checked(record).unwrap());
            }
        })
    }
}

#[inline]
fn push(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
    buffer.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    buffer.extend_from_slice(bytes);
}

/// The bytes behind a header, and what follows.
#[inline]
fn checked(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (crc, rest) = rest.split_first_chunk()?;
    let (body, rest) = rest.split_at(usize::try_from(u32::from_le_bytes(*len)).unwrap());
    assert_eq!(crc32fast::hash(body), u32::from_le_bytes(*crc));
    Some((body, rest))
}

#[expect(unsafe_code, reason = "a map is what the log reads through")]
fn map(path: &Path) -> Mmap {
    let file = OpenOptions::new().read(true).open(path).unwrap();
    // SAFETY: the file is in a directory of this process's own, and nobody changes it any more.
    unsafe { Mmap::map(&file) }.unwrap()
}
