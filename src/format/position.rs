//! The position of a consumer: two slots, of which the one with the higher sequence counts.

use crate::format::bytes::DecodeError;
use crate::format::bytes::Preamble;
use crate::format::bytes::check_reserved;
use crate::format::bytes::crc;
use crate::units::Offset;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::Unaligned;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;
use zerocopy::little_endian::U128;

pub(crate) const SLOT_LEN: usize = 64;

/// How long a file of a position is: always that.
pub(crate) const FILE_LEN: usize = 8192;

/// One of the two slots of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    First,
    Second,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::First, Self::Second];

    /// Where the slot begins in the file.
    pub(crate) fn at(self) -> u64 {
        match self {
            Self::First => 0,
            Self::Second => 4096,
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// Whose position it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) log_id: u128,
    pub(crate) name_crc: u32,
}

impl Owner {
    pub(crate) fn new(log_id: u128, name: &str) -> Self {
        Self { log_id, name_crc: crc(0, name.as_bytes()) }
    }
}

/// What a slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) owner: Owner,
    /// Higher with each write.
    pub(crate) sequence: u64,
    /// The first record that is not committed.
    pub(crate) position: Offset,
}

impl Slot {
    /// What is written behind this one; `None` where the numbers end.
    pub(crate) fn next(self, position: Offset) -> Option<Self> {
        let sequence = Some(self.sequence + 1).filter(|sequence| *sequence < SEQUENCE_END)?;
        Some(Self { sequence, position, ..self })
    }

    pub(crate) fn encode(&self) -> [u8; SLOT_LEN] {
        let mut raw = RawSlot {
            preamble: Preamble::new(MAGIC),
            reserved: [0; 2],
            crc: U32::ZERO,
            log_id: self.owner.log_id.into(),
            sequence: self.sequence.into(),
            position: self.position.get().into(),
            name_crc: self.owner.name_crc.into(),
            padding: [0; 12],
        };
        raw.crc = crc(0, raw.covered()).into();
        zerocopy::transmute!(raw)
    }

    /// `None` for zeros, where no slot was ever written.
    pub(crate) fn decode(bytes: &[u8; SLOT_LEN]) -> Result<Option<Self>, DecodeError> {
        if *bytes == [0; SLOT_LEN] {
            return Ok(None);
        }
        Preamble::check(bytes, MAGIC)?;
        let raw = RawSlot::ref_from_bytes(bytes).map_err(|_| DecodeError::Short)?;
        if raw.crc != crc(0, raw.covered()) {
            return Err(DecodeError::BadChecksum);
        }
        check_reserved(&raw.reserved)?;
        check_reserved(&raw.padding)?;
        if raw.sequence.get() >= SEQUENCE_END {
            return Err(DecodeError::Malformed("the sequence is higher than any can be"));
        }
        Ok(Some(Self {
            owner: Owner { log_id: raw.log_id.get(), name_crc: raw.name_crc.get() },
            sequence: raw.sequence.get(),
            position: Offset::new(raw.position.get()),
        }))
    }
}

/// The two slots of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// Which of them counts, and what it says.
    pub(crate) side: Side,
    pub(crate) slot: Slot,
    /// What the other one says, if it is one.
    pub(crate) other: Option<Offset>,
}

/// Which of the two slots of a file counts.
pub(crate) fn choose(slots: [&[u8; SLOT_LEN]; 2], owner: Owner) -> Result<Chosen, DecodeError> {
    let mut chosen: Option<Chosen> = None;
    let mut wrong = DecodeError::Malformed("no position was ever written");
    for (side, bytes) in Side::BOTH.into_iter().zip(slots) {
        let slot = match Slot::decode(bytes) {
            Ok(Some(slot)) => slot,
            Ok(None) => continue,
            // What a crash left of a write, if the other one is sound.
            Err(error @ (DecodeError::BadMagic | DecodeError::BadChecksum)) => {
                wrong = error;
                continue;
            }
            Err(error) => return Err(error),
        };
        if slot.owner.log_id != owner.log_id {
            return Err(DecodeError::Malformed("the position is that of another log"));
        }
        if slot.owner.name_crc != owner.name_crc {
            return Err(DecodeError::Malformed("the position is that of another consumer"));
        }
        chosen = Some(match chosen {
            None => Chosen { side, slot, other: None },
            Some(first) if first.slot.sequence == slot.sequence => {
                return Err(DecodeError::Malformed("both slots have the same sequence"));
            }
            Some(first) if first.slot.sequence > slot.sequence => {
                Chosen { other: Some(slot.position), ..first }
            }
            Some(first) => Chosen { side, slot, other: Some(first.slot.position) },
        });
    }
    chosen.ok_or(wrong)
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawSlot {
    preamble: Preamble,
    reserved: [u8; 2],
    crc: U32,
    log_id: U128,
    sequence: U64,
    position: U64,
    name_crc: U32,
    padding: [u8; 12],
}

impl RawSlot {
    /// All that the checksum covers.
    fn covered(&self) -> &[u8] {
        self.as_bytes().get(16..).unwrap_or_default()
    }
}

const MAGIC: &[u8; 8] = b"STRATPOS";

/// Never reached by counting, but a file may say so.
const SEQUENCE_END: u64 = 1 << 63;

const _: () = assert!(size_of::<RawSlot>() == SLOT_LEN);

#[cfg(test)]
mod tests {
    use super::{Owner, SLOT_LEN, Side, Slot, choose};
    use crate::format::bytes::DecodeError;
    use crate::format::bytes::crc;
    use crate::units::Offset;
    use proptest::prelude::{any, proptest};

    const ZEROS: [u8; SLOT_LEN] = [0; SLOT_LEN];

    fn owner() -> Owner {
        Owner::new(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff, "billing")
    }

    fn slot(sequence: u64, position: u64) -> [u8; SLOT_LEN] {
        Slot { owner: owner(), sequence, position: Offset::new(position) }.encode()
    }

    /// `bytes` with a checksum that fits.
    fn sealed(mut bytes: [u8; SLOT_LEN]) -> [u8; SLOT_LEN] {
        let crc = crc(0, &bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn chosen(first: &[u8; SLOT_LEN], second: &[u8; SLOT_LEN]) -> Result<(Side, u64), DecodeError> {
        choose([first, second], owner()).map(|chosen| (chosen.side, chosen.slot.position.get()))
    }

    fn torn(mut bytes: [u8; SLOT_LEN]) -> [u8; SLOT_LEN] {
        bytes[40] ^= 1;
        bytes
    }

    /// By hand, from docs/FORMAT.md; the checksums are those of zlib.
    #[test]
    fn a_slot_has_the_bytes_of_the_format() {
        let by_hand: [u8; SLOT_LEN] = [
            b'S', b'T', b'R', b'A', b'T', b'P', b'O', b'S', 1, 0, 0, 0, 0x40, 0xcf, 0x95, 0xe9,
            0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22,
            0x11, 0x00, 7, 0, 0, 0, 0, 0, 0, 0, 0x9d, 1, 0, 0, 0, 0, 0, 0, 0xaa, 0x4c, 0x22, 0xec,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(slot(7, 413), by_hand);
        let expected = Slot { owner: owner(), sequence: 7, position: Offset::new(413) };
        assert_eq!(Slot::decode(&by_hand), Ok(Some(expected)));
        assert_eq!(Slot::decode(&ZEROS), Ok(None));
    }

    #[test]
    fn the_higher_sequence_counts() {
        assert_eq!(chosen(&slot(1, 10), &ZEROS), Ok((Side::First, 10)));
        assert_eq!(chosen(&slot(1, 10), &slot(2, 20)), Ok((Side::Second, 20)));
        assert_eq!(chosen(&slot(3, 5), &slot(2, 20)), Ok((Side::First, 5)));
        assert_eq!(chosen(&ZEROS, &slot(2, 20)), Ok((Side::Second, 20)));
    }

    #[test]
    fn the_other_slot_is_known_too() {
        let other = |first: [u8; SLOT_LEN], second: [u8; SLOT_LEN]| {
            choose([&first, &second], owner()).unwrap().other.map(Offset::get)
        };
        assert_eq!(other(slot(1, 10), ZEROS), None);
        assert_eq!(other(slot(1, 10), torn(slot(2, 20))), None);
        assert_eq!(other(slot(1, 10), slot(2, 20)), Some(10));
        assert_eq!(other(slot(3, 5), slot(2, 20)), Some(20));
    }

    #[test]
    fn what_a_crash_tore_leaves_the_other() {
        assert_eq!(chosen(&slot(1, 10), &torn(slot(2, 20))), Ok((Side::First, 10)));
        assert_eq!(chosen(&torn(slot(3, 30)), &slot(2, 20)), Ok((Side::Second, 20)));
        assert_eq!(chosen(&[0xa5; SLOT_LEN], &slot(2, 20)), Ok((Side::Second, 20)));
    }

    #[test]
    fn what_no_crash_leaves_is_an_error() {
        let malformed = |result: Result<_, DecodeError>| {
            assert!(matches!(result, Err(DecodeError::Malformed(_))));
        };
        malformed(chosen(&ZEROS, &ZEROS));
        malformed(chosen(&slot(2, 10), &slot(2, 20)));
        malformed(chosen(&slot(1 << 63, 10), &ZEROS));
        assert_eq!(chosen(&torn(slot(1, 1)), &ZEROS), Err(DecodeError::BadChecksum));
        assert_eq!(chosen(&[7; SLOT_LEN], &ZEROS), Err(DecodeError::BadMagic));
        let slot = Slot { owner: owner(), sequence: 1, position: Offset::new(3) };
        let elsewhere = Slot { owner: Owner { log_id: 1, ..owner() }, ..slot };
        malformed(chosen(&elsewhere.encode(), &ZEROS));
        let otherwise = Slot { owner: Owner::new(owner().log_id, "Billing"), ..slot };
        malformed(chosen(&otherwise.encode(), &ZEROS));
    }

    #[test]
    fn what_must_be_understood_is_unknown() {
        for at in [10, 11, 52, 63] {
            let mut bytes = slot(1, 10);
            bytes[at] = 1;
            let decoded = Slot::decode(&sealed(bytes));
            assert!(matches!(decoded, Err(DecodeError::Unknown(_))), "byte {at}: {decoded:?}");
        }
        let mut newer = slot(2, 20);
        newer[8] = 2;
        // Not passed over for the older one: a newer version may have committed more.
        assert_eq!(chosen(&slot(1, 10), &newer), Err(DecodeError::Version(2)));
    }

    proptest! {
        #[test]
        fn random_bytes_are_refused_or_have_one_encoding(
            rest in proptest::array::uniform32(any::<u8>()), at in 16..32_usize,
        ) {
            let mut bytes = slot(1, 10);
            bytes[at..at + 32].copy_from_slice(&rest);
            let bytes = sealed(bytes);
            if let Ok(Some(slot)) = Slot::decode(&bytes) {
                assert_eq!(slot.encode(), bytes);
            }
        }
    }
}
