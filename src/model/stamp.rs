//! The one order of the cells of a key.

use std::num::NonZeroU64;

use super::{Cell, Content, Version};

/// A content in short: whether it is a tombstone, and the CRC32C of its value.
///
/// It tells apart the contents that a client puts under one ticket by mistake: of two such, one in four thousand million pairs
/// is taken for the same. Who wants to can make such a pair. It takes two puts of one key under one ticket, so it is a key that
/// this client may write anyhow, and that key alone may then be held with either content, until its next write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Checksum(NonZeroU64);

impl Checksum {
    /// Below that of every value.
    pub const TOMBSTONE: Checksum = Checksum(NonZeroU64::MIN);

    /// Goes through the whole value.
    pub fn of(content: &Content) -> Checksum {
        match content {
            Content::Tombstone => Checksum::TOMBSTONE,
            Content::Value(value) => Checksum::of_value(crc32c::crc32c(value)),
        }
    }

    /// Of a value with this CRC32C.
    pub fn of_value(crc: u32) -> Checksum {
        Checksum(NonZeroU64::MIN.saturating_add(u64::from(crc) + 1))
    }

    /// The CRC32C, unless it is a tombstone's.
    pub fn value_crc(self) -> Option<u32> {
        u32::try_from(self.0.get().checked_sub(2)?).ok()
    }

    /// As servers tell it each other: 1 for a tombstone, the CRC32C of a value and 2 more.
    pub fn number(self) -> i64 {
        self.0.get() as i64
    }

    /// Of [`Checksum::number`]; `None` if no content has this one.
    pub fn from_number(number: i64) -> Option<Checksum> {
        let number = u64::try_from(number).ok().filter(|number| *number <= u64::from(u32::MAX) + 2);
        number.and_then(NonZeroU64::new).map(Checksum)
    }
}

/// Which cell of a key: of two the one with the greater stamp wins, wherever they meet.
///
/// A version belongs to one write, but a client may put two contents under one ticket. Then the greater checksum decides, so that
/// all replicas come to hold the same. The checksum is not known where a peer of release 0.1 has told the version alone, or
/// where a key file of 0.1 was read and the value has not been since. Such a stamp comes below those of the same version, and
/// [agrees](Stamp::agrees_with) with all of them: nothing is sent or fetched on a mere guess.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// The write.
    pub version: Version,
    /// What it wrote, if that is known.
    pub checksum: Option<Checksum>,
}

impl Stamp {
    /// Of this very cell; goes through its value.
    pub fn of(cell: &Cell) -> Stamp {
        Stamp { version: cell.version, checksum: Some(Checksum::of(&cell.content)) }
    }

    /// Whether both can be of one cell, as far as is known.
    pub fn agrees_with(&self, other: &Stamp) -> bool {
        self.version == other.version
            && (self.checksum == other.checksum
                || self.checksum.is_none()
                || other.checksum.is_none())
    }

    /// Whether the other is of a cell that takes the place of this one's, as far as is known.
    pub fn is_below(&self, other: &Stamp) -> bool {
        self < other && !self.agrees_with(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_comes_back_from_its_number() {
        for checksum in [Checksum::TOMBSTONE, Checksum::of_value(0), Checksum::of_value(u32::MAX)] {
            assert_eq!(Checksum::from_number(checksum.number()), Some(checksum));
        }
        assert!(Checksum::TOMBSTONE < Checksum::of(&Content::Value("".into())));
        for number in [i64::MIN, -1, 0, i64::from(u32::MAX) + 3, i64::MAX] {
            assert_eq!(Checksum::from_number(number), None, "{number}");
        }
    }

    #[test]
    fn what_is_not_known_agrees_with_all_of_its_version() {
        let stamp = |time, crc: Option<u32>| Stamp {
            version: Version { time, ..Version::ZERO },
            checksum: crc.map(Checksum::of_value),
        };
        assert!(stamp(1, Some(5)).is_below(&stamp(1, Some(6))));
        assert!(stamp(1, Some(6)).is_below(&stamp(2, None)));
        assert!(!stamp(1, None).is_below(&stamp(1, Some(6))));
        assert!(stamp(1, None) < stamp(1, Some(6)));
        assert!(stamp(1, None).agrees_with(&stamp(1, Some(6))));
        assert!(!stamp(1, None).agrees_with(&stamp(2, None)));
    }
}
