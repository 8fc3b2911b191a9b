//! What the protocol asks of the storage thread, and what it is told when that is done.

use std::io;
use std::sync::Arc;

use super::Identity;
use crate::model::{Cell, Content, Key, Version};

/// One of a data folder's two logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Log {
    /// The cells this server keeps as a replica.
    Cells,
    /// The cells it keeps for replicas that were away.
    Hints,
}

/// Names one command until its completion. Each [`super::Store`] counts its own; so does the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The segment's number.
    pub segment: u32,
    /// First byte of the record in the segment's file.
    pub offset: u32,
    /// Bytes of the whole record.
    pub length: u32,
}

/// What a log keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A cell. Of several for one key the greatest version counts.
    Put {
        /// Its key.
        key: Key,
        /// What it holds.
        cell: Cell,
    },
    /// Hints only: cells of this key up to this version are no longer wanted.
    Erase {
        /// Of which key.
        key: Key,
        /// Up to which version, inclusive.
        up_to: Version,
    },
}

impl Record {
    /// Of the cell; or up to which cells are no longer wanted.
    pub(super) fn version(&self) -> Version {
        match self {
            Record::Put { cell, .. } => cell.version,
            Record::Erase { up_to, .. } => *up_to,
        }
    }
}

/// An order to the storage thread. Orders are carried out in turn; many appends share one write and one sync.
#[derive(Clone, Debug)]
pub enum Command {
    /// Append a record and complete once it is durable under the sync policy.
    Append {
        /// To which log.
        log: Log,
        /// For the completion.
        ticket: Ticket,
        /// What to append.
        record: Record,
    },
    /// Read the content of the cell recorded at `place`.
    Load {
        /// From which log.
        log: Log,
        /// For the completion.
        ticket: Ticket,
        /// Where it lies.
        place: Place,
    },
    /// Read the next records of a sealed segment, for compaction or the scrub.
    Survey {
        /// Of which log.
        log: Log,
        /// For the completion.
        ticket: Ticket,
        /// The segment.
        segment: u32,
        /// Where to go on; 0: at the first record.
        offset: u32,
        /// A record of which the value alone is damaged fails it, and so does a damaged header; else the one is left out, and the
        /// other is not looked at.
        strict: bool,
    },
    /// Delete a sealed segment: nothing in it is wanted any more.
    Remove {
        /// Of which log.
        log: Log,
        /// The segment.
        segment: u32,
    },
    /// Replace the identity file, durably under every sync policy.
    SaveIdentity {
        /// For the completion.
        ticket: Ticket,
        /// What to save.
        identity: Box<Identity>,
    },
}

impl Command {
    /// Bytes that the medium has to move for it, roughly: those of keys and values.
    pub fn bytes(&self) -> u64 {
        match self {
            Command::Append { record: Record::Put { key, cell }, .. } => {
                (key.as_bytes().len() + cell.content.len()) as u64
            }
            Command::Load { place, .. } => u64::from(place.length),
            // Short, or bounded.
            Command::Append { record: Record::Erase { .. }, .. }
            | Command::Survey { .. }
            | Command::Remove { .. }
            | Command::SaveIdentity { .. } => 0,
        }
    }
}

/// A command was carried out, well or badly.
#[derive(Clone, Debug)]
pub enum Completion {
    /// An append is durable, or has left nothing behind.
    Appended {
        /// To which log.
        log: Log,
        /// Of which command.
        ticket: Ticket,
        /// Where it lies.
        result: Result<Place, AppendError>,
        /// CRC32C of the value; of no bytes where there is none.
        value_crc: u32,
        /// The log's highest durable position now.
        position: u64,
        /// The segment that is written to now: all below it are sealed and may be compacted.
        active: u32,
        /// Syncs of the log's segments since it was opened.
        syncs: u64,
    },
    /// A cell's content was read.
    Loaded {
        /// From which log.
        log: Log,
        /// Of which command.
        ticket: Ticket,
        /// What it is.
        result: Result<Content, LoadError>,
    },
    /// Records of a sealed segment were read.
    Surveyed {
        /// Of which log.
        log: Log,
        /// Of which command.
        ticket: Ticket,
        /// The records with their places, in the order of the file.
        result: Result<Vec<(Place, Record)>, LoadError>,
        /// Where to go on; `None`: that was the end.
        next: Option<u32>,
    },
    /// A segment is gone.
    Removed {
        /// From which log.
        log: Log,
        /// The segment.
        segment: u32,
    },
    /// The identity is durable.
    IdentitySaved {
        /// Of which command.
        ticket: Ticket,
    },
    /// The identity found no space: what is there is the former one. To be saved again later.
    IdentityUnsaved {
        /// Of which command.
        ticket: Ticket,
        /// Why.
        error: AppendError,
    },
    /// The storage can no longer be trusted: a sync failed, or what a failed write left behind could not be cut
    /// away for good. The server must stop; opening the folder again recovers what is durable.
    Broken {
        /// What failed.
        error: Arc<io::Error>,
        /// At which file.
        file: String,
    },
}

/// An append that has left nothing behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No space left on the medium, or none for this server (a quota, or a bound on the length of files).
    #[error("the disk is full")]
    Full,
    /// The medium takes no changes.
    #[error("the disk is read-only")]
    ReadOnly,
    /// Any other failed write; its remains were cut away.
    #[error("the record could not be written")]
    Write,
}

/// A record that could not be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Its checksum is wrong, or it is not where it was.
    #[error("the record is damaged")]
    Damaged,
    /// The medium gave an error.
    #[error("the record could not be read")]
    Read,
}
