//! The records of a segment in a row, about a mebibyte of its file in memory at a time: a start takes no more memory than what it
//! finds, however long its segments are. Only what stands behind a bad record is read whole, and searched.
//!
//! Positions ascend by one within a segment, so a true record out of turn, left over from something else, ends the row as well.
//! So does a damaged value, unless it is passed over: its head says where the next record stands.

use bytes::Bytes;

use super::super::record::{self, Headed, Parsed, RecordFormat, Written};
use super::super::segment::Header;
use super::{Disk, KeyEntry, LogError, Place, on, read_from};
use crate::storage::keyfile::EntryKind;

/// Bytes of the file in memory, if no record takes more.
const PIECE: usize = 1 << 20;

/// What stands next in a segment.
pub(super) enum Next {
    Item(Item),
    /// Nothing more, or reserved zeros.
    Clean,
    /// No whole record.
    Bad,
}

/// A record, or the true head of one whose value is damaged.
pub(super) enum Item {
    Record(Place, Written),
    Damaged(Place, Headed),
}

impl Item {
    pub(super) fn sequence(&self) -> u64 {
        match self {
            Item::Record(_, written) => written.sequence,
            Item::Damaged(_, head) => head.sequence,
        }
    }

    pub(super) fn synced(&self) -> u64 {
        match self {
            Item::Record(_, written) => written.synced,
            Item::Damaged(_, head) => head.synced,
        }
    }

    /// As it stands in a key file.
    pub(super) fn entry(&self) -> KeyEntry {
        match self {
            Item::Record(place, written) => {
                KeyEntry::of(&written.record, *place, written.value_crc)
            }
            Item::Damaged(place, head) => KeyEntry {
                key: head.key.clone(),
                version: head.version,
                kind: EntryKind::Value,
                place: *place,
                value_crc: Some(head.value_crc),
            },
        }
    }
}

/// Reads a segment from its first record on.
pub(super) struct Pieces<'a, D> {
    disk: &'a D,
    file: &'a str,
    header: Header,
    /// Damaged values do not end the row.
    passes_over: bool,
    /// The file counts up to here.
    end: u64,
    /// A piece of it, and where that begins.
    piece: Bytes,
    from: u64,
    /// The next record: where it stands, and its position.
    offset: u64,
    sequence: u64,
}

impl<'a, D: Disk> Pieces<'a, D> {
    pub(super) fn new(
        disk: &'a D,
        file: &'a str,
        header: Header,
        end: u64,
        passes_over: bool,
    ) -> Pieces<'a, D> {
        let (offset, sequence) = (header.length() as u64, header.first);
        Pieces {
            disk,
            file,
            header,
            passes_over,
            end,
            piece: Bytes::new(),
            from: offset,
            offset,
            sequence,
        }
    }

    /// Where reading has got to.
    pub(super) fn offset(&self) -> u32 {
        self.offset as u32
    }

    /// The position that a record there would have.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The file's bytes from the next record on: all of them, or so many at least.
    fn window(&mut self, least: usize) -> Result<Bytes, LogError> {
        let at = ((self.offset - self.from) as usize).min(self.piece.len());
        // A segment may end within its header, if the one behind it says so.
        let left = self.end.saturating_sub(self.offset);
        let has = self.piece.len() - at;
        if (has as u64) < left.min(least as u64) {
            let length = left.min(least.max(PIECE) as u64) as usize;
            let piece = on(self.file, self.disk.read(self.file, self.offset, length))?;
            // A file that has become shorter meanwhile ends there.
            if piece.len() < length {
                self.end = self.offset + piece.len() as u64;
            }
            (self.piece, self.from) = (piece.into(), self.offset);
            return Ok(self.piece.clone());
        }
        Ok(self.piece.slice(at..))
    }

    /// The next record.
    pub(super) fn next(&mut self) -> Result<Next, LogError> {
        let format = self.header.format();
        let mut window = self.window(record::HEAD)?;
        if let Some(length) = record::claimed_length(&window)
            && length > window.len()
        {
            window = self.window(length)?;
        }
        if record::is_reserved(&window) {
            return Ok(if self.is_zero_from_here()? { Next::Clean } else { Next::Bad });
        }
        let left = self.end.saturating_sub(self.offset) as usize;
        let place = |length: usize| Place {
            segment: self.header.segment,
            offset: self.offset as u32,
            length: length as u32,
        };
        let (item, length) = match format.parse(&window, self.offset as u32) {
            Parsed::Record(written) if written.sequence == self.sequence => {
                let length = written.length;
                (Item::Record(place(length), written), length)
            }
            Parsed::DamagedValue(head)
                if self.passes_over && head.sequence == self.sequence && head.length <= left =>
            {
                let length = head.length;
                (Item::Damaged(place(length), head), length)
            }
            Parsed::End => return Ok(Next::Clean),
            Parsed::Record(_) | Parsed::DamagedValue(_) | Parsed::Bad => return Ok(Next::Bad),
        };
        (self.offset, self.sequence) = (self.offset + length as u64, self.sequence + 1);
        Ok(Next::Item(item))
    }

    fn is_zero_from_here(&self) -> Result<bool, LogError> {
        let mut at = self.offset;
        while at < self.end {
            let length = (self.end - at).min(PIECE as u64) as usize;
            let piece = on(self.file, self.disk.read(self.file, at, length))?;
            if piece.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            if piece.is_empty() {
                break;
            }
            at += piece.len() as u64;
        }
        Ok(true)
    }

    /// After [`Next::Bad`]: what is true behind it.
    pub(super) fn rest(&self) -> Result<Rest, LogError> {
        let bytes = read_from(self.disk, self.file, self.offset, self.end)?;
        let (offset, sequence) = (self.offset as usize, self.sequence);
        // Each position takes a record, and each record takes bytes.
        let most = |at: usize| sequence + (at - offset) as u64 / u64::from(record::MIN_LENGTH);
        let format = self.header.format();
        Ok(search(format, self.header.segment, (&bytes, offset), sequence, most))
    }
}

/// What could still be found behind a bad record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rest {
    /// True records.
    pub(super) records: Vec<(Place, Written)>,
    /// True heads whose values are wrong, the bad record itself perhaps among them.
    pub(super) heads: Vec<(Place, Headed)>,
}

/// What is true in the bytes of a segment from offset `base` on. Positions ascend, from `least` on; `most` says how far they can have got
/// at an offset.
pub(super) fn search(
    format: RecordFormat,
    segment: u32,
    (bytes, base): (&Bytes, usize),
    mut least: u64,
    most: impl Fn(usize) -> u64,
) -> Rest {
    let mut rest = Rest::default();
    let mut offset = base;
    let place =
        |at: usize, length: usize| Place { segment, offset: at as u32, length: length as u32 };
    loop {
        let can_be = |at: usize, sequence: u64| (least..=most(at)).contains(&sequence);
        match format.find_next((bytes, base), offset, can_be) {
            Some((at, Parsed::Record(written))) => {
                (offset, least) = (at + written.length, written.sequence + 1);
                rest.records.push((place(at, written.length), written));
            }
            Some((at, Parsed::DamagedValue(head))) => {
                // A true head: what it says of its length holds.
                (offset, least) = (at + head.length, head.sequence + 1);
                rest.heads.push((place(at, head.length), head));
            }
            Some((_, Parsed::End | Parsed::Bad)) | None => return rest,
        }
    }
}
