//! One record to bytes and back.
//!
//! Format 2, which is written:
//!
//! ```text
//! length u32 │ head crc u32 │ kind u8 │ sequence u64 │ synced u64 │ time i64 │ server u16 │ incarnation u32 │ step u32
//!            │              │ key length u32 │ value crc u32 │ key │ value …
//! ```
//!
//! Format 1, of release 0.1, which is only read:
//!
//! ```text
//! length u32 │ crc u32 │ kind u8 │ sequence u64 │ synced u64 │ time i64 │ server u16 │ incarnation u32 │ step u32
//!            │         │ key length u32 │ key │ value …
//! ```
//!
//! All numbers are big-endian. `length` counts the bytes behind the first checksum. `sequence` is the record's log position.
//! `synced` is the highest position that was durable when the record was written: that is how recovery tells a torn tail
//! from damage.
//!
//! **Whose record is it?** Behind a bad record recovery looks for true ones at every byte, inside values too, and a client
//! chooses what is in a value: perhaps the bytes of a record, of its own making or out of a copy of some log. In format 1 a
//! record's checksum vouches for its bytes alone, so such a value could pass for what this server has written. In format 2
//! the checksum of the *head*, which is all but the value, continues from a [`Seed`] that is the segment's own and from the
//! record's offset in it: no bytes make a true record anywhere else. The value's checksum stands in the head; where only the
//! value is wrong, key and version are still known.

use std::io::{self, Read};

use byteorder::{BigEndian, ByteOrder, ReadBytesExt, WriteBytesExt};
use bytes::Bytes;

use super::Record;
use crate::model::{
    Cell, Content, Incarnation, Key, MAX_PLACE_LENGTH, MAX_VALUE_LENGTH, ServerId, Version,
};

/// Length and first checksum.
const PREFIX: usize = 8;
/// Kind, positions, version, length of the key: what both formats have in common behind it.
const COMMON: usize = 1 + 8 + 8 + 8 + 2 + 4 + 4 + 4;
/// The value's checksum.
const CRC: usize = 4;
/// A hint's key is a place with three bytes before it.
const MAX_KEY: usize = MAX_PLACE_LENGTH + 3;
/// The shortest record.
pub(super) const MIN_LENGTH: u32 = (PREFIX + COMMON) as u32;

/// Bytes that tell how long a record claims to be, and whether there is any.
pub(super) const HEAD: usize = PREFIX + 1;

/// How long the record that begins here says it is; `None`: it says nothing that can be.
pub(super) fn claimed_length(bytes: &[u8]) -> Option<usize> {
    let length = PREFIX + BigEndian::read_u32(bytes.get(..4)?) as usize;
    let longest = PREFIX + COMMON + CRC + MAX_KEY + MAX_VALUE_LENGTH;
    (PREFIX + COMMON..=longest).contains(&length).then_some(length)
}

/// Whether zeros stand where a record would begin, which can begin no record: its kind is never 0.
pub(super) fn is_reserved(bytes: &[u8]) -> bool {
    bytes.iter().take(HEAD).all(|byte| *byte == 0)
}

/// No log gets here: at a million records a second it would take 146,000 years. A record that is found among damage at
/// a higher position is not believed, so that positions can be counted on from whatever a file names.
pub(super) const MAX_POSITION: u64 = 1 << 62;

const VALUE: u8 = 1;
const TOMBSTONE: u8 = 2;
const ERASE: u8 = 3;

/// A salt that is none, for the deliberate fault of that name.
pub(super) const UNSALTED: u64 = 1;

/// Where the checksums of a segment's records begin: drawn from its salt, which nobody outside knows, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seed(Option<u32>);

impl Seed {
    pub(super) fn new(salt: u64, segment: u32) -> Seed {
        let salted =
            crc32c::crc32c_append(crc32c::crc32c(&salt.to_be_bytes()), &segment.to_be_bytes());
        Seed((salt != UNSALTED).then_some(salted))
    }

    fn at(self, offset: u32) -> u32 {
        self.0.map_or(0, |seed| crc32c::crc32c_append(seed, &offset.to_be_bytes()))
    }
}

/// How the records of a segment are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordFormat {
    /// By release 0.1.
    One,
    Two(Seed),
}

/// A record as it lies in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Its log position.
    pub(super) sequence: u64,
    /// The highest position that was durable when it was written.
    pub(super) synced: u64,
    pub(super) record: Record,
    /// Bytes it takes in all.
    pub(super) length: usize,
    /// CRC32C of the value.
    pub(super) value_crc: u32,
}

/// A record of which the value alone is wrong, or cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Headed {
    pub(super) sequence: u64,
    pub(super) synced: u64,
    pub(super) key: Key,
    pub(super) version: Version,
    /// Bytes it should take in all.
    pub(super) length: usize,
    /// CRC32C of the value that should stand there.
    pub(super) value_crc: u32,
}

impl Headed {
    /// The same in memory of its own: a slice would keep the piece of the file that it is of.
    pub(super) fn detached(self) -> Headed {
        Headed { key: self.key.detached(), ..self }
    }
}

/// What stands at some offset of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Record(Written),
    /// A true head before a value that is not the one it was written for. Never in format 1.
    DamagedValue(Headed),
    /// Nothing, or zeros that were reserved.
    End,
    /// Nothing that can be relied on.
    Bad,
}

/// Appends a record's bytes to `out`, for this offset of the segment of that seed; returns how many, and the value's checksum.
pub(super) fn encode(
    seed: Seed,
    offset: u32,
    record: &Record,
    (sequence, synced): (u64, u64),
    out: &mut Vec<u8>,
) -> (u32, u32) {
    let (kind, key, version, value): (u8, &Key, Version, &[u8]) = match record {
        Record::Put { key, cell } => match &cell.content {
            Content::Value(value) => (VALUE, key, cell.version, value),
            Content::Tombstone => (TOMBSTONE, key, cell.version, &[]),
        },
        Record::Erase { key, up_to } => (ERASE, key, *up_to, &[]),
    };
    debug_assert!(synced < sequence, "durable before it was written");
    let body = COMMON + CRC + key.as_bytes().len() + value.len();
    let value_crc = crc32c::crc32c(value);
    let start = out.len();
    out.reserve(PREFIX + body);
    out.extend_from_slice(&(body as u32).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.push(kind);
    // Writing to a vector cannot fail.
    let _ = out.write_u64::<BigEndian>(sequence);
    let _ = out.write_u64::<BigEndian>(synced);
    write_version(version, out);
    let _ = out.write_u32::<BigEndian>(key.as_bytes().len() as u32);
    let _ = out.write_u32::<BigEndian>(value_crc);
    out.extend_from_slice(key.as_bytes());
    let crc = checksum(seed.at(offset), &out[start..]);
    BigEndian::write_u32(&mut out[start + 4..start + PREFIX], crc);
    out.extend_from_slice(value);
    ((out.len() - start) as u32, value_crc)
}

pub(super) fn write_version(version: Version, out: &mut Vec<u8>) {
    let _ = out.write_i64::<BigEndian>(version.time);
    let _ = out.write_u16::<BigEndian>(version.server.0);
    let _ = out.write_u32::<BigEndian>(version.incarnation.0);
    let _ = out.write_u32::<BigEndian>(version.step);
}

pub(super) fn read_version(input: &mut impl Read) -> io::Result<Version> {
    Ok(Version {
        time: input.read_i64::<BigEndian>()?,
        server: ServerId(input.read_u16::<BigEndian>()?),
        incarnation: Incarnation(input.read_u32::<BigEndian>()?),
        step: input.read_u32::<BigEndian>()?,
    })
}

/// Of the length and of what is behind the checksum.
fn checksum(seed: u32, covered: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &covered[..4]), &covered[PREFIX..])
}

/// The part of a record that both formats have.
struct Head {
    kind: u8,
    sequence: u64,
    synced: u64,
    version: Version,
    key_length: usize,
}

impl Head {
    fn read(mut input: &[u8]) -> io::Result<Head> {
        Ok(Head {
            kind: input.read_u8()?,
            sequence: input.read_u64::<BigEndian>()?,
            synced: input.read_u64::<BigEndian>()?,
            version: read_version(&mut input)?,
            key_length: input.read_u32::<BigEndian>()? as usize,
        })
    }

    /// Whether there can be such a record, whatever its checksum says.
    fn can_be(&self, value_length: usize) -> bool {
        (VALUE..=ERASE).contains(&self.kind)
            && self.synced < self.sequence
            && (self.kind == VALUE || value_length == 0)
            // That is the version of what was never written.
            && (self.kind == ERASE || !self.version.is_zero())
    }

    fn record(&self, key: Key, value: Bytes) -> Record {
        let version = self.version;
        match self.kind {
            VALUE => Record::Put { key, cell: Cell { version, content: Content::Value(value) } },
            TOMBSTONE => Record::Put { key, cell: Cell { version, content: Content::Tombstone } },
            _ => Record::Erase { key, up_to: version },
        }
    }
}

impl RecordFormat {
    /// What is between the first checksum and the key.
    fn fixed(self) -> usize {
        match self {
            RecordFormat::One => COMMON,
            RecordFormat::Two(_) => COMMON + CRC,
        }
    }

    /// What stands at the beginning of `bytes`, the rest of a segment from this offset on.
    pub(super) fn parse(self, bytes: &Bytes, offset: u32) -> Parsed {
        if is_reserved(bytes) {
            return if bytes.iter().all(|byte| *byte == 0) { Parsed::End } else { Parsed::Bad };
        }
        self.parse_record(bytes, offset).unwrap_or(Parsed::Bad)
    }

    fn parse_record(self, bytes: &Bytes, offset: u32) -> Option<Parsed> {
        let key_at = PREFIX + self.fixed();
        let length = PREFIX + BigEndian::read_u32(bytes.get(..4)?) as usize;
        let crc = BigEndian::read_u32(bytes.get(4..PREFIX)?);
        let head = Head::read(bytes.get(PREFIX..key_at)?).ok()?;
        let value_at = key_at + head.key_length;
        if head.key_length > MAX_KEY || !(value_at..=value_at + MAX_VALUE_LENGTH).contains(&length)
        {
            return None;
        }
        // What the first checksum covers: a head, or all.
        let covered = match self {
            RecordFormat::One => bytes.get(..length)?,
            RecordFormat::Two(_) => bytes.get(..value_at)?,
        };
        let seed = match self {
            RecordFormat::One => 0,
            RecordFormat::Two(seed) => seed.at(offset),
        };
        if checksum(seed, covered) != crc || !head.can_be(length - value_at) {
            return None;
        }
        let key = Key::bound(bytes.slice(key_at..value_at));
        let value = bytes.slice(value_at.min(bytes.len())..length.min(bytes.len()));
        let found_crc = crc32c::crc32c(&value);
        let value_crc = match self {
            RecordFormat::One => found_crc,
            RecordFormat::Two(_) => BigEndian::read_u32(&bytes[key_at - CRC..]),
        };
        let Head { sequence, synced, version, .. } = head;
        if bytes.len() < length || value_crc != found_crc {
            let headed = Headed { sequence, synced, key, version, length, value_crc };
            return Some(Parsed::DamagedValue(headed));
        }
        let record = head.record(key, value);
        Some(Parsed::Record(Written { sequence, synced, record, length, value_crc }))
    }

    /// The first offset at or after `from` at which something true stands, in the bytes of a segment from offset `base` on. `can_be`
    /// says whether a record at that offset can have that position.
    pub(super) fn find_next(
        self,
        (bytes, base): (&Bytes, usize),
        from: usize,
        can_be: impl Fn(usize, u64) -> bool,
    ) -> Option<(usize, Parsed)> {
        let end = base + bytes.len().saturating_sub(PREFIX + COMMON - 1);
        (from..end).find_map(|offset| {
            let at = offset - base;
            let kind = bytes[at + PREFIX];
            let sequence = BigEndian::read_u64(&bytes[at + PREFIX + 1..]);
            if !(VALUE..=ERASE).contains(&kind)
                || sequence > MAX_POSITION
                || !can_be(offset, sequence)
            {
                return None;
            }
            match self.parse(&bytes.slice(at..), offset as u32) {
                Parsed::End | Parsed::Bad => None,
                found => Some((offset, found)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version() -> Version {
        Version { time: 0x0102_0304, server: ServerId(5), incarnation: Incarnation(6), step: 7 }
    }

    fn seed() -> Seed {
        Seed::new(0x1122_3344_5566_7788, 3)
    }

    fn two() -> RecordFormat {
        RecordFormat::Two(seed())
    }

    fn put(value: &'static str) -> Record {
        let cell = Cell { version: version(), content: Content::Value(value.into()) };
        Record::Put { key: Key::bound("k"), cell }
    }

    fn encoded(record: &Record, offset: u32) -> Vec<u8> {
        let mut out = Vec::new();
        encode(seed(), offset, record, (9, 8), &mut out);
        out
    }

    /// What release 0.1 wrote.
    fn encoded_one(record: &Record, sequence: u64, synced: u64) -> Vec<u8> {
        let mut out = Vec::new();
        encode(seed(), 0, record, (sequence.max(synced + 1), synced), &mut out);
        let value_crc = PREFIX + COMMON;
        out.drain(value_crc..value_crc + CRC);
        let body = (out.len() - PREFIX) as u32;
        BigEndian::write_u32(&mut out[..4], body);
        BigEndian::write_u64(&mut out[PREFIX + 1..], sequence);
        let crc = checksum(0, &out);
        BigEndian::write_u32(&mut out[4..PREFIX], crc);
        out
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The formats are fixed: these bytes must be readable for ever.
    #[test]
    fn bytes_of_a_record_are_fixed() {
        let fixed = format!(
            "01{:016x}{:016x}{:016x}{:04x}{:08x}{:08x}{:08x}",
            9, 8, 0x0102_0304, 5, 6, 7, 1
        );
        assert_eq!(hex(&encoded(&put("v"), 42)), format!("0000002d7f57b2dd{fixed}0544e0b46b76"));
        assert_eq!(hex(&encoded_one(&put("v"), 9, 8)), format!("000000290c8de16c{fixed}6b76"));
    }

    proptest! {
        #[test]
        fn a_record_comes_back_from_its_bytes(
            key in proptest::collection::vec(any::<u8>(), 0..20),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            erase: bool,
            (synced, sequence) in (0..MAX_POSITION).prop_flat_map(|synced| (Just(synced), synced + 1..=MAX_POSITION)),
            (salt, segment, offset) in any::<(u64, u32, u32)>(),
        ) {
            let key = Key::bound(key);
            let record = match (erase, value) {
                (true, _) => Record::Erase { key, up_to: version() },
                (false, None) => {
                    Record::Put { key, cell: Cell { version: version(), content: Content::Tombstone } }
                }
                (false, Some(value)) => {
                    let content = Content::Value(value.into());
                    Record::Put { key, cell: Cell { version: version(), content } }
                }
            };
            let (seed, mut out) = (Seed::new(salt, segment), Vec::new());
            let (length, value_crc) = encode(seed, offset, &record, (sequence, synced), &mut out);
            prop_assert_eq!(length as usize, out.len());
            let mut one = encoded_one(&record, sequence, synced);
            let length_one = one.len();
            out.extend_from_slice(b"what follows");
            one.extend_from_slice(b"what follows");
            let written = |record, length| {
                Parsed::Record(Written { sequence, synced, record, length, value_crc })
            };
            let parsed = RecordFormat::Two(seed).parse(&out.into(), offset);
            prop_assert_eq!(parsed, written(record.clone(), length as usize));
            prop_assert_eq!(RecordFormat::One.parse(&one.into(), 5), written(record, length_one));
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for format in [RecordFormat::One, two()] {
                format.parse(&bytes.clone().into(), 0);
                format.find_next((&bytes.clone().into(), 0), 0, |_, _| true);
            }
        }
    }

    /// The same bytes anywhere else, in another segment, or under another salt are no record.
    #[test]
    fn a_record_is_true_in_its_place_alone() {
        let bytes = Bytes::from(encoded(&put("v"), 42));
        assert!(matches!(two().parse(&bytes, 42), Parsed::Record(_)));
        assert_eq!(RecordFormat::One.parse(&bytes, 42), Parsed::Bad);
        for offset in (0..200).filter(|offset| *offset != 42) {
            assert_eq!(two().parse(&bytes, offset), Parsed::Bad, "at {offset}");
        }
        for seed in [Seed::new(0x1122_3344_5566_7788, 4), Seed::new(0x1122_3344_5566_7789, 3)] {
            assert_eq!(RecordFormat::Two(seed).parse(&bytes, 42), Parsed::Bad);
        }
        let one = encoded_one(&put("v"), 9, 8);
        assert_eq!(two().parse(&one.into(), 42), Parsed::Bad);
    }

    /// Numbers that a log cannot have got to would be counted on from there.
    #[test]
    fn a_true_checksum_does_not_vouch_for_what_cannot_be() {
        let cell = |version| Cell { version, content: Content::Tombstone };
        let put = |version| Record::Put { key: Key::bound("k"), cell: cell(version) };
        for (what, record, sequence, synced) in [
            ("a position that is above itself", put(version()), 5, 5),
            ("a version of what was never written", put(Version::ZERO), 5, 4),
        ] {
            let bytes = encoded_one(&record, sequence, synced);
            assert_eq!(RecordFormat::One.parse(&bytes.into(), 0), Parsed::Bad, "{what}");
        }
        let found = |sequence| {
            let bytes = encoded_one(&put(version()), sequence, 1).into();
            RecordFormat::One.find_next((&bytes, 0), 0, |_, _| true).is_some()
        };
        assert!(found(MAX_POSITION));
        assert!(!found(MAX_POSITION + 1), "a position that no log has");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let record = put("value");
        let value = "value".len();
        for (format, bytes) in
            [(two(), encoded(&record, 42)), (RecordFormat::One, encoded_one(&record, 9, 8))]
        {
            let is_bad = |bytes: Vec<u8>, in_value: bool, what: &str| {
                let parsed = format.parse(&bytes.into(), 42);
                match (format, in_value, parsed) {
                    (RecordFormat::Two(_), true, Parsed::DamagedValue(head)) => {
                        assert_eq!((head.key, head.version), (Key::bound("k"), version()));
                    }
                    (RecordFormat::One, _, Parsed::Bad) | (_, false, Parsed::Bad) => {}
                    other => panic!("{what}: {other:?}"),
                }
            };
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                is_bad(flipped, bit / 8 >= bytes.len() - value, &format!("bit {bit}"));
            }
            for cut in 1..bytes.len() {
                // Of the length's first bytes, which are zeros, nothing can be said; they are no record.
                if cut < 4 {
                    let cut = bytes[..cut].to_vec().into();
                    assert_eq!(format.parse(&cut, 42), Parsed::End);
                } else {
                    let in_value = cut >= bytes.len() - value;
                    is_bad(bytes[..cut].to_vec(), in_value, &format!("cut at {cut}"));
                }
            }
            assert_eq!(format.parse(&Bytes::new(), 42), Parsed::End);
            assert_eq!(format.parse(&vec![0; 100].into(), 42), Parsed::End);
        }
    }
}
