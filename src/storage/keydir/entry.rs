//! What the keydir holds of one key.

use std::fmt;

use bytes::Bytes;

use super::sorted::Keyed;
use crate::model::{Checksum, Content, Incarnation, Key, ServerId, Stamp, Version};
use crate::storage::{Place, Whereabouts};

/// Values up to this many bytes lie beside their key and are copied when they are read; longer ones are shared.
pub(super) const BESIDE_KEY: usize = 1024;
/// What a value takes of the memory budget beside its bytes, roughly.
const VALUE_OVERHEAD: u64 = 32;

/// What is held of a key. The fields of version and place lie flat, for the sake of size.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) block: Block,
    time: i64,
    incarnation: u32,
    step: u32,
    segment: u32,
    offset: u32,
    length: u32,
    key_length: u32,
    /// CRC32C of the value. Without meaning for a tombstone, and where it was not read.
    value_crc: u32,
    server: u16,
    pub(super) state: State,
    /// Used since it was last considered for leaving memory.
    pub(super) used: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Tombstone,
    OnDisk,
    /// On disk, and its checksum is not known: a key file of release 0.1 was read.
    Unread,
    Cached,
}

/// A key, and the value if it is in memory.
#[derive(Clone)]
pub(super) enum Block {
    /// The value, if any, follows the key.
    Beside(Box<[u8]>),
    Apart(Box<(Box<[u8]>, Bytes)>),
}

/// What a record holds, as far as it is known without reading it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding<'a> {
    /// A tombstone.
    Tombstone,
    /// This value; it is copied.
    Value(&'a [u8]),
    /// A value that stays on disk until it is used.
    OnDisk,
}

impl<'a> From<&'a Content> for Holding<'a> {
    fn from(content: &'a Content) -> Holding<'a> {
        match content {
            Content::Tombstone => Holding::Tombstone,
            Content::Value(value) => Holding::Value(value),
        }
    }
}

/// One key's newest record.
#[derive(Clone, Copy)]
pub struct Held<'a>(pub(super) &'a Entry);

impl<'a> Held<'a> {
    /// The key's bytes.
    pub fn key(&self) -> &'a [u8] {
        self.0.key()
    }

    /// The key, in memory of its own.
    pub fn to_key(&self) -> Key {
        Key::bound(self.key().to_vec())
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.0.version()
    }

    /// Which cell it is, as far as that is known.
    pub fn stamp(&self) -> Stamp {
        self.0.stamp()
    }

    /// Where the record lies.
    pub fn place(&self) -> Place {
        self.0.place()
    }

    /// Whether it is a tombstone.
    pub fn is_tombstone(&self) -> bool {
        self.0.state == State::Tombstone
    }

    /// Where the content is.
    pub fn whereabouts(&self) -> Whereabouts {
        match (self.0.state, &self.0.block) {
            (State::Tombstone, _) => Whereabouts::Memory(Content::Tombstone),
            (State::OnDisk | State::Unread, _) => Whereabouts::Disk(self.place()),
            (State::Cached, Block::Beside(block)) => {
                let value = Bytes::copy_from_slice(&block[self.0.key_length as usize..]);
                Whereabouts::Memory(Content::Value(value))
            }
            (State::Cached, Block::Apart(apart)) => {
                Whereabouts::Memory(Content::Value(apart.1.clone()))
            }
        }
    }
}

impl fmt::Debug for Held<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tombstone = if self.is_tombstone() { ", a tombstone" } else { "" };
        write!(f, "{} {}{tombstone} {:?}", self.key().escape_ascii(), self.version(), self.place())
    }
}

impl Keyed for Entry {
    fn key(&self) -> &[u8] {
        match &self.block {
            Block::Beside(block) => &block[..self.key_length as usize],
            Block::Apart(apart) => &apart.0,
        }
    }
}

impl Entry {
    pub(super) fn new(key: &[u8], stamp: Stamp, place: Place, holding: Holding<'_>) -> Entry {
        let (state, block) = match holding {
            Holding::Tombstone => (State::Tombstone, Block::new(key, Bytes::new())),
            Holding::OnDisk if stamp.checksum.is_none() => {
                (State::Unread, Block::new(key, Bytes::new()))
            }
            Holding::OnDisk => (State::OnDisk, Block::new(key, Bytes::new())),
            Holding::Value(value) if value.len() <= BESIDE_KEY => {
                (State::Cached, Block::Beside([key, value].concat().into()))
            }
            Holding::Value(value) => {
                (State::Cached, Block::new(key, Bytes::copy_from_slice(value)))
            }
        };
        let mut entry = Entry {
            block,
            time: 0,
            incarnation: 0,
            step: 0,
            segment: 0,
            offset: 0,
            length: 0,
            key_length: key.len() as u32,
            value_crc: 0,
            server: 0,
            state,
            used: state == State::Cached,
        };
        entry.set_stamp(stamp);
        entry.set_place(place);
        entry
    }

    /// Another record of the same key.
    pub(super) fn replace(&mut self, stamp: Stamp, place: Place, holding: Holding<'_>) {
        if let (Block::Beside(block), Holding::Value(value)) = (&mut self.block, holding)
            && block.len() == self.key_length as usize + value.len()
        {
            block[self.key_length as usize..].copy_from_slice(value);
            (self.state, self.used) = (State::Cached, true);
            self.set_stamp(stamp);
            self.set_place(place);
        } else {
            *self = Entry::new(self.key(), stamp, place, holding);
        }
    }

    /// The value was read from the disk.
    pub(super) fn fill(&mut self, value: Bytes) {
        self.block = Block::new(self.key(), value);
        (self.state, self.used) = (State::Cached, true);
    }

    /// The value leaves memory.
    pub(super) fn put_out(&mut self) {
        self.block = Block::new(self.key(), Bytes::new());
        self.state = State::OnDisk;
    }

    pub(super) fn version(&self) -> Version {
        Version {
            time: self.time,
            server: ServerId(self.server),
            incarnation: Incarnation(self.incarnation),
            step: self.step,
        }
    }

    pub(super) fn stamp(&self) -> Stamp {
        let checksum = match self.state {
            State::Tombstone => Some(Checksum::TOMBSTONE),
            State::OnDisk | State::Cached => Some(Checksum::of_value(self.value_crc)),
            State::Unread => None,
        };
        Stamp { version: self.version(), checksum }
    }

    fn set_stamp(&mut self, stamp: Stamp) {
        let Version { time, server, incarnation, step } = stamp.version;
        (self.time, self.server) = (time, server.0);
        (self.incarnation, self.step) = (incarnation.0, step);
        debug_assert_eq!(stamp.checksum.is_none(), self.state == State::Unread, "read or not");
        self.value_crc = stamp.checksum.and_then(Checksum::value_crc).unwrap_or_default();
    }

    /// The value was read, wherever from. Whether that was news.
    pub(super) fn learn(&mut self, checksum: Checksum) -> bool {
        let is_news = self.state == State::Unread;
        if let (true, Some(crc)) = (is_news, checksum.value_crc()) {
            (self.state, self.value_crc) = (State::OnDisk, crc);
        }
        is_news
    }

    pub(super) fn place(&self) -> Place {
        Place { segment: self.segment, offset: self.offset, length: self.length }
    }

    pub(super) fn set_place(&mut self, place: Place) {
        let Place { segment, offset, length } = place;
        (self.segment, self.offset, self.length) = (segment, offset, length);
    }

    /// What the value takes of the budget.
    pub(super) fn memory(&self) -> u64 {
        match (self.state, &self.block) {
            (State::Tombstone | State::OnDisk | State::Unread, _) => 0,
            (State::Cached, Block::Beside(block)) => {
                VALUE_OVERHEAD + block.len() as u64 - u64::from(self.key_length)
            }
            (State::Cached, Block::Apart(apart)) => VALUE_OVERHEAD + apart.1.len() as u64,
        }
    }
}

impl Block {
    /// A long value is shared, not copied.
    pub(super) fn new(key: &[u8], value: Bytes) -> Block {
        if value.len() <= BESIDE_KEY {
            Block::Beside([key, &value].concat().into())
        } else {
            Block::Apart(Box::new((key.into(), value)))
        }
    }
}
