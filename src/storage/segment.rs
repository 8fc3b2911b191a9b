//! A segment's file: its name, its header, and what a scan finds in it.

use byteorder::{BigEndian, ByteOrder};
use bytes::Bytes;

use super::record::{MAX_POSITION, Parsed, Written, find_next, parse};
use super::{Log, Place};
use crate::model::ServerId;

const MAGIC: [u8; 7] = *b"CHRDLOG";
const FORMAT: u8 = 1;

/// Bytes of a header.
pub(super) const HEADER: usize = 8 + 8 + 2 + 4 + 8 + 4 + 4 + 4;

impl Log {
    /// The folder it lies in.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Log::Cells => "cells",
            Log::Hints => "hints",
        }
    }

    /// The file of one of its segments.
    pub(super) fn segment_file(self, segment: u32) -> String {
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
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; HEADER];
        out[..7].copy_from_slice(&MAGIC);
        out[7] = FORMAT;
        BigEndian::write_u64(&mut out[8..16], self.cluster);
        BigEndian::write_u16(&mut out[16..18], self.server.0);
        BigEndian::write_u32(&mut out[18..22], self.segment);
        BigEndian::write_u64(&mut out[22..30], self.first);
        BigEndian::write_u32(&mut out[30..34], self.previous);
        BigEndian::write_u32(&mut out[34..38], self.previous_length);
        let crc = crc32c::crc32c(&out[..38]);
        BigEndian::write_u32(&mut out[38..42], crc);
        out
    }

    /// `None` if it is not whole or not true.
    pub(super) fn parse(bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.get(..HEADER)?;
        let is_true = bytes[..7] == MAGIC
            && bytes[7] == FORMAT
            && crc32c::crc32c(&bytes[..38]) == BigEndian::read_u32(&bytes[38..42]);
        let header = Header {
            cluster: BigEndian::read_u64(&bytes[8..16]),
            server: ServerId(BigEndian::read_u16(&bytes[16..18])),
            segment: BigEndian::read_u32(&bytes[18..22]),
            first: BigEndian::read_u64(&bytes[22..30]),
            previous: BigEndian::read_u32(&bytes[30..34]),
            previous_length: BigEndian::read_u32(&bytes[34..38]),
        };
        (is_true && (1..=2 * MAX_POSITION).contains(&header.first)).then_some(header)
    }
}

/// The records of one segment, as far as they can be read in a row, and what comes then.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    pub(super) records: Vec<(Place, Written)>,
    /// Where reading in a row ended.
    pub(super) end: u32,
    /// What stands there.
    pub(super) ending: Ending,
}

/// How a segment ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing more, or reserved zeros.
    Clean,
    /// No whole record at this log position; behind it the true records that could still be found.
    Bad { sequence: u64, rest: Vec<(Place, Written)> },
}

/// Reads a segment's bytes from its first record on. Positions ascend by one within a segment, so a true record out
/// of turn, left over from something else, ends the row as well.
pub(super) fn scan(header: &Header, bytes: &Bytes) -> Scan {
    let (mut offset, mut sequence) = (HEADER, header.first);
    let mut records = Vec::new();
    let ending = loop {
        match parse(&bytes.slice(offset.min(bytes.len())..)) {
            Parsed::Record(written) if written.sequence == sequence => {
                let length = written.length;
                records.push((place(header.segment, offset, length), written));
                (offset, sequence) = (offset + length, sequence + 1);
            }
            Parsed::End => break Ending::Clean,
            Parsed::Record(_) | Parsed::Bad => {
                let mut rest = Vec::new();
                let (mut from, mut after) = (offset, sequence - 1);
                while let Some((offset, written)) = find_next(bytes, from, after) {
                    (from, after) = (offset + written.length, written.sequence);
                    rest.push((place(header.segment, offset, written.length), written));
                }
                break Ending::Bad { sequence, rest };
            }
        }
    };
    Scan { records, end: offset as u32, ending }
}

fn place(segment: u32, offset: usize, length: usize) -> Place {
    Place { segment, offset: offset as u32, length: length as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_every_flipped_bit_is_noticed() {
        let header = Header {
            cluster: 1,
            server: ServerId(2),
            segment: 3,
            first: 4,
            previous: 5,
            previous_length: 6,
        };
        let bytes = header.encode();
        assert_eq!(Header::parse(&bytes), Some(header));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::parse(&flipped), None, "bit {bit}");
        }
        assert_eq!(Header::parse(&bytes[..HEADER - 1]), None);
    }
}
