//! One record to bytes and back.
//!
//! ```text
//! length u32 │ crc32c u32 │ kind u8 │ sequence u64 │ synced u64 │ time i64 │ server u16 │ incarnation u32 │ step u32
//!            │            │ key length u32 │ key │ value …
//! ```
//!
//! All numbers are big-endian. `length` counts the bytes behind the checksum, which covers the length and all that
//! follows it. `sequence` is the record's log position. `synced` is the highest position that was durable when the
//! record was written: that is how recovery tells a torn tail from damage.

use std::io::{self, Read};

use byteorder::{BigEndian, ByteOrder, ReadBytesExt, WriteBytesExt};
use bytes::Bytes;

use super::Record;
use crate::model::{
    Cell, Content, Incarnation, Key, MAX_PLACE_LENGTH, MAX_VALUE_LENGTH, ServerId, Version,
};

/// Length and checksum.
const PREFIX: usize = 8;
/// What is behind the checksum, without key and value.
const FIXED: usize = 1 + 8 + 8 + 8 + 2 + 4 + 4 + 4;
/// A hint's key is a place with three bytes before it.
const MAX_KEY: usize = MAX_PLACE_LENGTH + 3;
/// The shortest record.
pub(super) const MIN_LENGTH: u32 = (PREFIX + FIXED) as u32;
const MAX_BODY: usize = FIXED + MAX_KEY + MAX_VALUE_LENGTH;

/// No log gets here: at a million records a second it would take 146,000 years. A record that is found among damage at
/// a higher position is not believed, so that positions can be counted on from whatever a file names.
pub(super) const MAX_POSITION: u64 = 1 << 62;

const VALUE: u8 = 1;
const TOMBSTONE: u8 = 2;
const ERASE: u8 = 3;

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
}

/// What stands at some offset of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Record(Written),
    /// Nothing, or zeros that were reserved.
    End,
    /// No whole, true record.
    Bad,
}

/// Appends a record's bytes to `out`, and returns how many.
pub(super) fn encode(record: &Record, sequence: u64, synced: u64, out: &mut Vec<u8>) -> usize {
    let (kind, key, version, value): (u8, &Key, Version, &[u8]) = match record {
        Record::Put { key, cell } => match &cell.content {
            Content::Value(value) => (VALUE, key, cell.version, value),
            Content::Tombstone => (TOMBSTONE, key, cell.version, &[]),
        },
        Record::Erase { key, up_to } => (ERASE, key, *up_to, &[]),
    };
    let body = FIXED + key.as_bytes().len() + value.len();
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
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(value);
    let crc = checksum(&out[start..]);
    BigEndian::write_u32(&mut out[start + 4..start + PREFIX], crc);
    out.len() - start
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

/// Over the length and everything behind the checksum.
fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..4]), &record[PREFIX..])
}

/// What stands at the beginning of `bytes`, the rest of a segment.
pub(super) fn parse(bytes: &Bytes) -> Parsed {
    if bytes.iter().take(PREFIX + 1).all(|byte| *byte == 0) {
        // A kind is never 0, so nine zeros are no record.
        return if bytes.iter().all(|byte| *byte == 0) { Parsed::End } else { Parsed::Bad };
    }
    if bytes.len() < PREFIX + FIXED {
        return Parsed::Bad;
    }
    let body = BigEndian::read_u32(&bytes[..4]) as usize;
    if !(FIXED..=MAX_BODY).contains(&body) || bytes.len() < PREFIX + body {
        return Parsed::Bad;
    }
    let length = PREFIX + body;
    if checksum(&bytes[..length]) != BigEndian::read_u32(&bytes[4..PREFIX]) {
        return Parsed::Bad;
    }
    decode(&bytes.slice(PREFIX..length), length).unwrap_or(Parsed::Bad)
}

fn decode(body: &Bytes, length: usize) -> io::Result<Parsed> {
    let mut input = &body[..];
    let kind = input.read_u8()?;
    let sequence = input.read_u64::<BigEndian>()?;
    let synced = input.read_u64::<BigEndian>()?;
    let version = read_version(&mut input)?;
    if synced >= sequence {
        return Ok(Parsed::Bad);
    }
    let key_length = input.read_u32::<BigEndian>()? as usize;
    if key_length > MAX_KEY || FIXED + key_length > body.len() {
        return Ok(Parsed::Bad);
    }
    let key = Key::bound(body.slice(FIXED..FIXED + key_length));
    let value = body.slice(FIXED + key_length..);
    if kind != ERASE && version.is_zero() {
        // That is the version of what was never written.
        return Ok(Parsed::Bad);
    }
    let record = match kind {
        VALUE => Record::Put { key, cell: Cell { version, content: Content::Value(value) } },
        TOMBSTONE if value.is_empty() => {
            Record::Put { key, cell: Cell { version, content: Content::Tombstone } }
        }
        ERASE if value.is_empty() => Record::Erase { key, up_to: version },
        _ => return Ok(Parsed::Bad),
    };
    Ok(Parsed::Record(Written { sequence, synced, record, length }))
}

/// The first offset at or after `from` at which a true record stands whose position is above `after` and can be.
pub(super) fn find_next(bytes: &Bytes, from: usize, after: u64) -> Option<(usize, Written)> {
    (from..bytes.len().saturating_sub(PREFIX + FIXED - 1)).find_map(|offset| {
        let kind = bytes[offset + PREFIX];
        let sequence = BigEndian::read_u64(&bytes[offset + PREFIX + 1..]);
        if !(VALUE..=ERASE).contains(&kind) || sequence <= after || sequence > MAX_POSITION {
            return None;
        }
        match parse(&bytes.slice(offset..)) {
            Parsed::Record(written) => Some((offset, written)),
            Parsed::End | Parsed::Bad => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version() -> Version {
        Version { time: 0x0102_0304, server: ServerId(5), incarnation: Incarnation(6), step: 7 }
    }

    /// The format is fixed: these bytes must be readable for ever.
    #[test]
    fn bytes_of_a_record_are_fixed() {
        let cell = Cell { version: version(), content: Content::Value("v".into()) };
        let record = Record::Put { key: Key::bound("k"), cell };
        let mut out = Vec::new();
        encode(&record, 9, 8, &mut out);
        let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        let crc = &hex[8..16];
        let expected = format!(
            "00000029{crc}01{:016x}{:016x}{:016x}{:04x}{:08x}{:08x}{:08x}6b76",
            9, 8, 0x0102_0304, 5, 6, 7, 1
        );
        assert_eq!(hex, expected);
        assert_eq!(crc, "0c8de16c");
    }

    proptest! {
        #[test]
        fn a_record_comes_back_from_its_bytes(
            key in proptest::collection::vec(any::<u8>(), 0..20),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            erase: bool,
            (synced, sequence) in (0..MAX_POSITION).prop_flat_map(|synced| (Just(synced), synced + 1..=MAX_POSITION)),
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
            let mut out = Vec::new();
            let length = encode(&record, sequence, synced, &mut out);
            prop_assert_eq!(length, out.len());
            out.extend_from_slice(b"what follows");
            let parsed = parse(&out.into());
            prop_assert_eq!(parsed, Parsed::Record(Written { sequence, synced, record, length }));
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes.clone().into());
            find_next(&bytes.into(), 0, 0);
        }
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
            let mut out = Vec::new();
            encode(&record, sequence, synced, &mut out);
            assert_eq!(parse(&out.into()), Parsed::Bad, "{what}");
        }
        let mut out = Vec::new();
        encode(&put(version()), MAX_POSITION + 1, 1, &mut out);
        assert_eq!(find_next(&out.into(), 0, 0), None, "a position that no log has");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let cell = Cell { version: version(), content: Content::Value("value".into()) };
        let mut out = Vec::new();
        encode(&Record::Put { key: Key::bound("key"), cell }, 1, 0, &mut out);
        for bit in 0..out.len() * 8 {
            let mut flipped = out.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&flipped.into()), Parsed::Bad, "bit {bit}");
        }
        for cut in 1..out.len() {
            // Of the length's first bytes, which are zeros, nothing can be said; they are no record.
            let expected = if cut < 4 { Parsed::End } else { Parsed::Bad };
            assert_eq!(parse(&out[..cut].to_vec().into()), expected, "cut at {cut}");
        }
        assert_eq!(parse(&Bytes::new()), Parsed::End);
        assert_eq!(parse(&vec![0; 100].into()), Parsed::End);
    }
}
