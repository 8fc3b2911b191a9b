//! The keys of one sealed segment, for a quick start: what a scan of the segment would find, without its values.
//!
//! A key file is an aid. It is written after its segment is sealed, not synced, and checked as a whole when it is
//! read; one that is missing, cut or wrong means that the segment is scanned.
//!
//! ```text
//! magic 7 │ format u8 │ segment u32 │ segment length u32 │ last position u64 │ count u32
//!   per record: offset u32 │ length u32 │ kind u8 │ version (time, server, incarnation, step) │ value crc u32 │ key length u32
//!               │ key
//! crc32c u32 over all before it
//! ```
//!
//! Format 1, of release 0.1, has no checksums of values; it is only read.

use std::io::{self, Read};

use byteorder::{BigEndian, ReadBytesExt, WriteBytesExt};
use bytes::Bytes;

use super::record::{MAX_POSITION, MIN_LENGTH, read_version, write_version};
use super::segment::HEADER_ONE;
use super::{Disk, Log, Place, Record};
use crate::model::{Checksum, Content, Key, Stamp, Version};

const MAGIC: [u8; 7] = *b"CHRDKEY";
/// Of release 0.1.
const FORMAT_ONE: u8 = 1;
const FORMAT: u8 = 2;
/// Bytes before the first record.
const FIXED: usize = 28;
/// Bytes of a piece, about.
const PIECE: usize = 1 << 20;

/// What is known of a record without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyEntry {
    pub(super) key: Key,
    pub(super) version: Version,
    pub(super) kind: EntryKind,
    pub(super) place: Place,
    /// CRC32C of the value, if it is known: a key file of format 1 does not say.
    pub(super) value_crc: Option<u32>,
}

/// What kind of record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    Value,
    Tombstone,
    Erase,
}

impl KeyEntry {
    /// Which cell it is, as far as that is known.
    pub(super) fn stamp(&self) -> Stamp {
        let checksum = match self.kind {
            EntryKind::Value => self.value_crc.map(Checksum::of_value),
            EntryKind::Tombstone | EntryKind::Erase => Some(Checksum::TOMBSTONE),
        };
        Stamp { version: self.version, checksum }
    }

    pub(super) fn of(record: &Record, place: Place, value_crc: u32) -> KeyEntry {
        let value_crc = Some(value_crc);
        match record {
            Record::Put { key, cell } => {
                let kind = match cell.content {
                    Content::Value(_) => EntryKind::Value,
                    Content::Tombstone => EntryKind::Tombstone,
                };
                KeyEntry { key: key.clone(), version: cell.version, kind, place, value_crc }
            }
            Record::Erase { key, up_to } => {
                let kind = EntryKind::Erase;
                KeyEntry { key: key.clone(), version: *up_to, kind, place, value_crc }
            }
        }
    }
}

/// A key file's contents; its keys are slices of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyFile {
    pub(super) segment: u32,
    /// Bytes of the segment it was made from.
    pub(super) length: u32,
    /// Position of the segment's last record.
    pub(super) last: u64,
    pub(super) entries: Vec<KeyEntry>,
}

/// A key file in the making, as it will be written: it grows with the segment that is written to.
#[derive(Debug)]
pub(super) struct KeyFileWriter {
    /// The file's bytes in pieces, so that growing copies nothing.
    pieces: Vec<Vec<u8>>,
    count: u32,
}

impl Default for KeyFileWriter {
    fn default() -> KeyFileWriter {
        KeyFileWriter::new()
    }
}

impl KeyFileWriter {
    pub(super) fn new() -> KeyFileWriter {
        KeyFileWriter { pieces: vec![vec![0; FIXED]], count: 0 }
    }

    /// Its value's checksum must be known.
    pub(super) fn push(&mut self, entry: &KeyEntry) {
        let KeyEntry { key, version, kind, place, value_crc } = entry;
        debug_assert!(value_crc.is_some(), "an entry whose record was not read");
        if self.pieces.last().is_none_or(|last| last.len() >= PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE + 1024));
        }
        let Some(out) = self.pieces.last_mut() else { return };
        // Writing to a vector cannot fail.
        let _ = out.write_u32::<BigEndian>(place.offset);
        let _ = out.write_u32::<BigEndian>(place.length);
        out.push(match kind {
            EntryKind::Value => 1,
            EntryKind::Tombstone => 2,
            EntryKind::Erase => 3,
        });
        write_version(*version, out);
        let _ = out.write_u32::<BigEndian>(value_crc.unwrap_or_default());
        let _ = out.write_u32::<BigEndian>(key.as_bytes().len() as u32);
        out.extend_from_slice(key.as_bytes());
        self.count += 1;
    }

    /// Writes the file, now that the segment is this long and its last record has this position. Not synced; one that cannot
    /// be written is removed: it is an aid only.
    pub(super) fn write<D: Disk>(
        self,
        disk: &mut D,
        log: Log,
        segment: u32,
        length: u32,
        last: u64,
    ) {
        let file = log.key_file(segment);
        let mut offset = 0;
        for piece in self.finish(segment, length, last) {
            if disk.write(&file, offset, &piece).is_err() {
                let _ = disk.remove(&file);
                return;
            }
            offset += piece.len() as u64;
        }
    }

    fn finish(self, segment: u32, length: u32, last: u64) -> Vec<Vec<u8>> {
        let KeyFileWriter { mut pieces, count } = self;
        let mut fixed = Vec::with_capacity(FIXED);
        fixed.extend_from_slice(&MAGIC);
        fixed.push(FORMAT);
        let _ = fixed.write_u32::<BigEndian>(segment);
        let _ = fixed.write_u32::<BigEndian>(length);
        let _ = fixed.write_u64::<BigEndian>(last);
        let _ = fixed.write_u32::<BigEndian>(count);
        pieces[0][..FIXED].copy_from_slice(&fixed);
        let crc = pieces.iter().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece));
        if let Some(out) = pieces.last_mut() {
            let _ = out.write_u32::<BigEndian>(crc);
        }
        pieces
    }
}

impl KeyFile {
    /// `None` if it is not whole, or not true.
    pub(super) fn parse(bytes: &Bytes) -> Option<KeyFile> {
        let covered = bytes.len().checked_sub(4)?;
        let mut crc = &bytes[covered..];
        if crc.read_u32::<BigEndian>().ok()? != crc32c::crc32c(&bytes[..covered]) {
            return None;
        }
        Self::decode(&bytes.slice(..covered)).ok().flatten()
    }

    fn decode(bytes: &Bytes) -> io::Result<Option<KeyFile>> {
        let mut input = &bytes[..];
        let mut magic = [0; 8];
        input.read_exact(&mut magic)?;
        if magic[..7] != MAGIC || !(FORMAT_ONE..=FORMAT).contains(&magic[7]) {
            return Ok(None);
        }
        let segment = input.read_u32::<BigEndian>()?;
        let length = input.read_u32::<BigEndian>()?;
        let last = input.read_u64::<BigEndian>()?;
        let count = input.read_u32::<BigEndian>()?;
        // No more entries than bytes: nothing is reserved on a number's word alone.
        let mut entries = Vec::with_capacity((count as usize).min(bytes.len() / 31));
        let mut before = HEADER_ONE as u32;
        for _ in 0..count {
            let offset = input.read_u32::<BigEndian>()?;
            let record_length = input.read_u32::<BigEndian>()?;
            let kind = match input.read_u8()? {
                1 => EntryKind::Value,
                2 => EntryKind::Tombstone,
                3 => EntryKind::Erase,
                _ => return Ok(None),
            };
            let version = read_version(&mut input)?;
            let value_crc = match magic[7] {
                FORMAT_ONE => None,
                _ => Some(input.read_u32::<BigEndian>()?),
            };
            let key_length = input.read_u32::<BigEndian>()? as usize;
            if key_length > input.len() {
                return Ok(None);
            }
            let (key, rest) = input.split_at(key_length);
            let key = Key::bound(bytes.slice_ref(key));
            input = rest;
            // Records follow each other: together they are no longer than the segment.
            let end = offset.checked_add(record_length).filter(|end| *end <= length);
            let Some(end) = end.filter(|_| offset >= before && record_length >= MIN_LENGTH) else {
                return Ok(None);
            };
            before = end;
            if kind != EntryKind::Erase && version.is_zero() {
                return Ok(None);
            }
            let place = Place { segment, offset, length: record_length };
            entries.push(KeyEntry { key, version, kind, place, value_crc });
        }
        let is_true = input.is_empty() && last <= MAX_POSITION;
        Ok(is_true.then_some(KeyFile { segment, length, last, entries }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_comes_back_and_every_flipped_bit_is_noticed() {
        let entry = |key: &'static str, kind, offset| KeyEntry {
            key: Key::bound(key),
            version: Version { time: 7, ..Version::ZERO },
            kind,
            place: Place { segment: 3, offset, length: 50 },
            value_crc: Some(0x0102_0304),
        };
        let entries = vec![
            entry("a", EntryKind::Value, 42),
            entry("", EntryKind::Tombstone, 92),
            entry("long key", EntryKind::Erase, 150),
        ];
        let mut writer = KeyFileWriter::new();
        entries.iter().for_each(|entry| writer.push(entry));
        let bytes = writer.finish(3, 1000, 77).concat();
        let file = KeyFile { segment: 3, length: 1000, last: 77, entries };
        assert_eq!(KeyFile::parse(&bytes.clone().into()), Some(file));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(KeyFile::parse(&flipped.into()), None, "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(KeyFile::parse(&bytes[..cut].to_vec().into()), None, "cut at {cut}");
        }
    }
}
