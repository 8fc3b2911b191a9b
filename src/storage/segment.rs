//! A segment's file: its name, its header, and what a scan finds in it.

use byteorder::{BigEndian, ByteOrder};

use super::record::{MAX_POSITION, RecordFormat, Seed};
use super::{Disk, Log, StorageFlaw, record};
use crate::model::ServerId;

const MAGIC: [u8; 7] = *b"CHRDLOG";
/// Of release 0.1: read, never written.
const FORMAT_ONE: u8 = 1;
const FORMAT_TWO: u8 = 2;

/// Bytes of a header.
pub(super) const HEADER: usize = HEADER_ONE + 8 + 8;
/// Bytes of a header of format 1.
pub(super) const HEADER_ONE: usize = 8 + 8 + 2 + 4 + 8 + 4 + 4 + 4;
/// A header's checksum.
const CRC: usize = 4;

impl Log {
    /// The folder it lies in.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Log::Cells => "cells",
            Log::Hints => "hints",
        }
    }

    /// The file of one of its segments.
    pub(crate) fn segment_file(self, segment: u32) -> String {
        format!("{}/{segment:010}.log", self.folder())
    }

    /// The key file of one of its sealed segments.
    pub(super) fn key_file(self, segment: u32) -> String {
        format!("{}/{segment:010}.keys", self.folder())
    }
}

/// The segment that a file name stands for, if it ends so.
pub(super) fn segment_number(name: &str, ending: &str) -> Option<u32> {
    name.strip_suffix(ending)?.parse().ok()
}

/// The salts of a log's segments, from a seed: SplitMix64. Whoever knows one can make records that pass for the server's own.
#[derive(Debug)]
pub(super) struct Salts(u64, Option<StorageFlaw>);

impl Salts {
    pub(super) fn new(seed: u64, flaw: Option<StorageFlaw>) -> Salts {
        Salts(seed, flaw)
    }

    /// The next one; neither 0 nor 1, which stand for none.
    pub(super) fn next(&mut self) -> u64 {
        if self.1 == Some(StorageFlaw::Unsalted) {
            return record::UNSALTED;
        }
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).max(record::UNSALTED + 1)
    }
}

/// What every segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// XXH3 of the cluster's name.
    pub(super) cluster: u64,
    pub(super) server: ServerId,
    pub(super) segment: u32,
    /// The log position of its first record.
    pub(super) first: u64,
    /// The segment before it, and that one's length when it was sealed.
    pub(super) previous: u32,
    pub(super) previous_length: u32,
    /// Makes the checksums of its records its own. 0 in format 1, which has none.
    pub(super) salt: u64,
    /// That of the segment before it: should that one's header rot, its records can still be told.
    pub(super) previous_salt: u64,
}

impl Header {
    /// In format 2.
    pub(super) fn encode(&self) -> Vec<u8> {
        debug_assert!(self.salt != 0, "a segment without a salt");
        let mut out = vec![0; HEADER];
        out[..7].copy_from_slice(&MAGIC);
        out[7] = FORMAT_TWO;
        BigEndian::write_u64(&mut out[8..16], self.cluster);
        BigEndian::write_u16(&mut out[16..18], self.server.0);
        BigEndian::write_u32(&mut out[18..22], self.segment);
        BigEndian::write_u64(&mut out[22..30], self.first);
        BigEndian::write_u32(&mut out[30..34], self.previous);
        BigEndian::write_u32(&mut out[34..38], self.previous_length);
        BigEndian::write_u64(&mut out[38..46], self.salt);
        BigEndian::write_u64(&mut out[46..54], self.previous_salt);
        let crc = crc32c::crc32c(&out[..HEADER - CRC]);
        BigEndian::write_u32(&mut out[HEADER - CRC..], crc);
        out
    }

    /// From the first [`HEADER`] bytes of a segment, or all if it is shorter. `None` if it is not whole or not true.
    pub(super) fn parse(bytes: &[u8]) -> Option<Header> {
        let length = match *bytes.get(7)? {
            FORMAT_ONE => HEADER_ONE,
            FORMAT_TWO => HEADER,
            _ => return None,
        };
        let (bytes, crc) = bytes.get(..length)?.split_at(length - CRC);
        let is_true = bytes[..7] == MAGIC && crc32c::crc32c(bytes) == BigEndian::read_u32(crc);
        let salt = |at| bytes.get(at..at + 8).map_or(0, BigEndian::read_u64);
        let header = Header {
            cluster: BigEndian::read_u64(&bytes[8..16]),
            server: ServerId(BigEndian::read_u16(&bytes[16..18])),
            segment: BigEndian::read_u32(&bytes[18..22]),
            first: BigEndian::read_u64(&bytes[22..30]),
            previous: BigEndian::read_u32(&bytes[30..34]),
            previous_length: BigEndian::read_u32(&bytes[34..38]),
            salt: salt(38),
            previous_salt: salt(46),
        };
        let can_be = (1..=2 * MAX_POSITION).contains(&header.first)
            && (length == HEADER_ONE || header.salt != 0);
        (is_true && can_be).then_some(header)
    }

    /// Bytes it takes.
    pub(super) fn length(&self) -> usize {
        match self.salt {
            0 => HEADER_ONE,
            _ => HEADER,
        }
    }

    /// How the segment's records are written.
    pub(super) fn format(&self) -> RecordFormat {
        match self.salt {
            0 => RecordFormat::One,
            salt => RecordFormat::Two(Seed::new(salt, self.segment)),
        }
    }

    /// How the records of the segment before it are written, if this header says so.
    pub(super) fn previous_format(&self) -> Option<RecordFormat> {
        match self.previous_salt {
            _ if self.previous == 0 => None,
            0 => Some(RecordFormat::One),
            salt => Some(RecordFormat::Two(Seed::new(salt, self.previous))),
        }
    }
}

/// How the records of this segment are written, by its file.
pub(super) fn read_format<D: Disk>(disk: &D, log: Log, segment: u32) -> Option<RecordFormat> {
    let bytes = disk.read(&log.segment_file(segment), 0, HEADER).ok()?;
    let header = Header::parse(&bytes).filter(|header| header.segment == segment);
    header.map(|header| header.format())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            cluster: 1,
            server: ServerId(2),
            segment: 3,
            first: 4,
            previous: 5,
            previous_length: 6,
            salt: 7,
            previous_salt: 8,
        }
    }

    /// What release 0.1 wrote.
    fn encoded_one(header: &Header) -> Vec<u8> {
        let mut bytes = header.encode();
        bytes[7] = FORMAT_ONE;
        bytes.truncate(HEADER_ONE);
        let crc = crc32c::crc32c(&bytes[..HEADER_ONE - CRC]);
        BigEndian::write_u32(&mut bytes[HEADER_ONE - CRC..], crc);
        bytes
    }

    #[test]
    fn a_header_comes_back_and_every_flipped_bit_is_noticed() {
        let one = Header { salt: 0, previous_salt: 0, ..header() };
        for (header, bytes) in [(header(), header().encode()), (one, encoded_one(&header()))] {
            assert_eq!(header.length(), bytes.len());
            assert_eq!(Header::parse(&bytes), Some(header));
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Header::parse(&flipped), None, "bit {bit}");
            }
            assert_eq!(Header::parse(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn salts_differ_and_none_stands_for_none() {
        let mut salts = Salts::new(0, None);
        let mut drawn: Vec<_> = (0..1000).map(|_| salts.next()).collect();
        assert!(!drawn.contains(&0) && !drawn.contains(&record::UNSALTED));
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 1000);
    }
}
