//! What can happen to the files of a log: a small language of damage, read from an input.

use crate::codecs::crc;
use crate::input::Input;
use crate::support::forge;
use crate::support::image::Image;
use crate::world::World;

/// What the damage leaves to be expected.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Damage {
    /// Checksums were made to fit: the bytes may say anything.
    pub(crate) forged: bool,
    /// Whole files came, went or changed places.
    pub(crate) exchanged: bool,
}

/// Does to the files what the rest of the input says.
pub(crate) fn apply(
    image: &mut Image,
    world: &World,
    other: &World,
    input: &mut Input<'_>,
) -> Damage {
    let mut damage = Damage::default();
    // More than a few hundred changes make no new kind of log.
    for _ in 0..200 {
        if input.is_empty() {
            break;
        }
        let kind = input.byte() % 24;
        let names: Vec<_> = image.0.keys().cloned().collect();
        let Some(name) = names.get(usize::from(input.byte()) % names.len().max(1)) else { break };
        let second = &names[usize::from(input.byte()) % names.len()];
        match kind {
            0..8 => bytes(image.bytes(name), kind, input),
            8 => {
                let from = image.0[second].clone();
                copy(image.bytes(name), &from, input);
            }
            9 => copy_aligned(image, world, name, input),
            10..16 => {
                damage.exchanged = true;
                files(image, (world, other), (name, second), kind, input);
            }
            _ => {
                damage.forged = true;
                let seed = seed_of(image, name);
                forge_one(image.bytes(name), name, seed, kind, input);
            }
        }
    }
    damage
}

/// Bits, bytes, sectors and ends.
fn bytes(bytes: &mut Vec<u8>, kind: u8, input: &mut Input<'_>) {
    let at = input.below(bytes.len());
    let end = (at + 1 + input.below(600)).min(bytes.len());
    match kind {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (end % 8)),
        1 => {
            let new = input.bytes(8).to_vec();
            bytes.iter_mut().skip(at).zip(new).for_each(|(byte, new)| *byte = new);
        }
        2 => bytes[at..end].fill(0),
        3 => bytes[at..end].fill(input.byte()),
        4 => bytes.truncate(at),
        5 => bytes.resize(bytes.len() + input.below(2000), input.byte()),
        6 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => drop(bytes.drain(at..end)),
    }
}

/// A misdirected write: bytes of one file in the place of another's.
fn copy(to: &mut [u8], from: &[u8], input: &mut Input<'_>) {
    let (at, source) = (input.below(to.len()), input.below(from.len()));
    let len = input.below(600).min(to.len() - at).min(from.len() - source);
    to[at..at + len].copy_from_slice(&from[source..source + len]);
}

/// A lost write: the same place as it was earlier.
fn copy_aligned(image: &mut Image, world: &World, name: &str, input: &mut Input<'_>) {
    let Some(older) = world.older.0.get(name) else { return };
    let to = image.bytes(name);
    let at = input.below(to.len().min(older.len())) / 64 * 64;
    let end = (at + 64 * (1 + input.below(16))).min(to.len()).min(older.len());
    if at < end {
        to[at..end].copy_from_slice(&older[at..end]);
    }
}

/// Files that are missing, older, foreign, exchanged, new.
fn files(
    image: &mut Image,
    (world, other): (&World, &World),
    (name, second): (&str, &str),
    kind: u8,
    input: &mut Input<'_>,
) {
    match kind {
        10 => drop(image.0.remove(name)),
        11 => {
            let from = image.0[second].clone();
            let to = std::mem::replace(image.bytes(name), from);
            *image.bytes(second) = to;
        }
        12 => drop(world.older.0.get(name).map(|older| *image.bytes(name) = older.clone())),
        13 => {
            let theirs = other.image.0.values().nth(input.below(other.image.0.len()));
            *image.bytes(name) = theirs.cloned().unwrap_or_default();
        }
        14 => {
            let (id, base) = (u64::from(input.byte()), number(input));
            let copy = image.0[second].clone();
            image.0.insert(forge::segment_name(id, base), copy);
        }
        _ => *image.bytes(name) = input.bytes(600).to_vec(),
    }
}

/// Makes a structure say something else, with checksums that fit.
fn forge_one(bytes: &mut Vec<u8>, name: &str, seed: u32, kind: u8, input: &mut Input<'_>) {
    if name == "MANIFEST" {
        if kind < 23 && bytes.len() >= 84 {
            let rows = (bytes.len() - 84) / 96;
            let row = 80 + 96 * input.below(rows);
            let fields = [10, 12, 32, 40, 48, 56];
            let at = match kind % 2 {
                0 if rows > 0 => row + 8 * (input.below(8)),
                _ => fields[input.below(fields.len())],
            };
            put(bytes, at, if at == 10 { 2 } else { 8 }, input);
        }
        if bytes.len() >= 4 {
            let end = bytes.len() - 4;
            let crc = crc(0, &bytes[..end]);
            bytes[end..].copy_from_slice(&crc.to_le_bytes());
        }
    } else if name.ends_with(".index") {
        if bytes.len() >= 48 {
            let entries = (bytes.len() - 48) / 16;
            let at = [16, 24, 32, 40, 44][input.below(5)];
            let entry = 48 + 16 * input.below(entries) + 4 * input.below(3);
            put(bytes, if kind % 2 == 0 && entries > 0 { entry } else { at }, 4, input);
            let crc = crc(0, &bytes[16..]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        }
    } else if kind == 23 {
        if bytes.len() >= 72 {
            put(bytes, [8, 10, 12, 16, 32, 40, 48, 56, 64][input.below(9)], 8, input);
            let crc = crc(0, &bytes[..68]);
            bytes[68..72].copy_from_slice(&crc.to_le_bytes());
        }
    } else {
        forge_frame(bytes, seed, kind, input);
    }
}

/// One field of a frame's header, its body, or the place of a whole frame.
fn forge_frame(bytes: &mut Vec<u8>, seed: u32, kind: u8, input: &mut Input<'_>) {
    let frames = frames(bytes);
    let Some(&(at, end)) = frames.get(input.below(frames.len())) else { return };
    match kind {
        16 => put(bytes, at + 4, 4, input),
        17 => put(bytes, at + 8, 8, input),
        18 => put(bytes, at + 16, 8, input),
        19 => put(bytes, at + 24, 4, input),
        20 => put(bytes, at + 28, 4, input),
        21 => {
            let body = at + 40 + input.below(end - at - 40);
            put(bytes, body, 1, input);
        }
        _ => {
            let mut frame = bytes[at..end].to_vec();
            let base = u64::from_le_bytes(frame[8..16].try_into().unwrap());
            let base = base.wrapping_add(u64::from(input.byte())).wrapping_sub(2);
            frame[8..16].copy_from_slice(&base.to_le_bytes());
            seal_frame(&mut frame, seed);
            let place = frames[input.below(frames.len())].0;
            bytes.splice(place..place, frame);
        }
    }
    if let Some(rest) = bytes.get_mut(at..) {
        seal_frame(rest, seed);
    }
}

/// Both checksums of the frame that the bytes begin with.
fn seal_frame(frame: &mut [u8], seed: u32) {
    if frame.len() < 40 {
        return;
    }
    let len = u32::from_le_bytes(frame[4..8].try_into().unwrap());
    let body = usize::try_from(len).ok().and_then(|len| frame.get(40..40_usize.checked_add(len)?));
    if let Some(body) = body {
        let crc = crc(0, body);
        frame[32..36].copy_from_slice(&crc.to_le_bytes());
    }
    let crc = crc(seed, &frame[4..40]);
    frame[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Where the frames seem to begin and end.
fn frames(bytes: &[u8]) -> Vec<(usize, usize)> {
    let (mut frames, mut at) = (Vec::new(), 72);
    while at + 41 <= bytes.len() {
        let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
        let end = at + (40 + usize::try_from(len).unwrap()).next_multiple_of(8);
        if len == 0 || end > bytes.len() {
            break;
        }
        frames.push((at, end));
        at = end;
    }
    frames
}

fn seed_of(image: &Image, name: &str) -> u32 {
    let seed = image.0[name].get(12..16).and_then(|seed| seed.try_into().ok());
    u32::from_le_bytes(seed.unwrap_or_default())
}

/// Another number, of so many bytes, in the place of the one at `at`.
fn put(bytes: &mut [u8], at: usize, width: usize, input: &mut Input<'_>) {
    let Some(field) = bytes.get_mut(at..at + width) else { return };
    let mut old = [0; 8];
    old[..width].copy_from_slice(field);
    let old = u64::from_le_bytes(old);
    let new = match input.byte() % 8 {
        0..4 => old.wrapping_add(u64::from(input.byte())).wrapping_sub(128),
        4 => u64::from_le_bytes(input.array()),
        _ => number(input),
    };
    field.copy_from_slice(&new.to_le_bytes()[..width]);
}

/// A number at which something may go over.
fn number(input: &mut Input<'_>) -> u64 {
    const ENDS: [u64; 14] = [
        0,
        1,
        7,
        8,
        72,
        1 << 16,
        1 << 30,
        (1 << 30) + 1,
        1 << 31,
        0xffff_ffff,
        1 << 32,
        1 << 63,
        (1 << 63) - 1,
        u64::MAX,
    ];
    let number = ENDS[usize::from(input.byte()) % ENDS.len()];
    match input.byte() % 4 {
        0 => number.wrapping_add(1),
        1 => number.wrapping_sub(1),
        _ => number,
    }
}
