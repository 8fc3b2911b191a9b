//! One server's storage: an append-only log and an index of it, in the manner of Bitcask, in the order of keys.
//!
//! Every cell a server takes in is appended to a *segment*, a file that only grows; the *keydir* holds, for each key,
//! the version and the place of its newest record, and the value itself as far as the memory budget goes. A full
//! segment is sealed and gets a *key file*, so that the next start need not read its values. Overwritten records are
//! dead weight; compaction moves what is still alive out of a sealed segment and removes the file.
//!
//! # Two sides
//!
//! | side | type | thread | knows |
//! |---|---|---|---|
//! | the protocol's | [`Store`] | the node's | keydir, cached values, what is pending, what to compact |
//! | the medium's | [`Engine`] | one of its own | files; carries out [`Command`]s in batches |
//!
//! A [`Command`] goes one way, a [`Completion`] comes back. The engine takes whatever has gathered, writes it in one
//! go and syncs once: *group commit*. A folder has two logs with the same code, cells and hints, and an [`Identity`].
//!
//! # When is a write durable?
//!
//! When its completion has come: under [`SyncPolicy::Always`] that is after the sync that covers it. Only then the
//! store shows the cell. A failed write leaves nothing behind, or the engine breaks; a failed sync always breaks it,
//! for the kernel may have dropped the pages, and the next sync may succeed without them.
//!
//! # Recovery
//!
//! Opening tells a torn tail, which a crash leaves and which is cut, from damage in the middle, which is set aside and
//! makes the server be rebuilt from its peers. A sealed record whose value alone is damaged is neither: its key and version are
//! known, so the key is *lost* ([`Store::is_lost`]) until something as new is written, and nothing else is touched. A load that
//! fails, compaction and the scrub find the same while the server runs, and the segment is emptied. Every record names the position that was durable before it; a bad
//! record at or below the highest such position had been synced. What clients store is never taken for a record, whatever
//! bytes it is made of: each record's checksum holds in its own place alone. What this cannot tell: a flipped bit in the very
//! last batch looks torn. `recovery.rs` has the order of steps, `record.rs` and `segment.rs` the bytes, and
//! `docs/storage-format.md` both with what is assumed of the medium.
//!
//! # What is left out
//!
//! Tombstones are kept for ever, until all replicas can agree to forget them; there is no compression.

mod command;
mod compaction;
mod disk;
mod engine;
mod flaw;
mod identity;
mod keydir;
mod keyfile;
mod memory;
mod record;
mod recovery;
mod scrub;
mod segment;
mod store;
#[cfg(test)]
mod tests;

pub use command::{AppendError, Command, Completion, LoadError, Log, Place, Record, Ticket};
pub use disk::Disk;
pub use engine::{Engine, EngineOptions, OpenError, SyncPolicy};
pub(crate) use flaw::{StorageFlaw, forgery};
pub use identity::{Identity, IdentityError, ScrubMark};
pub use keydir::{Held, Holding, Keydir, Put};
pub use memory::MemoryDisk;
pub(crate) use recovery::synced_for_certain;
pub use scrub::Scrubbed;
pub use store::{Admission, Lost, News, Recovered, Store, StoreOptions, StoreStats, Whereabouts};

/// What opening a data folder found.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// Whose folder it is. Of a new folder: without an incarnation, not voting.
    pub identity: Identity,
    /// The cells.
    pub cells: Recovered,
    /// The hints.
    pub hints: Recovered,
    /// Segments that were damaged below what had been synced; they were set aside. Not empty: cells were lost,
    /// and the server must be rebuilt before it votes.
    pub damaged: Vec<String>,
}

/// A data folder at rest, looked at without changing anything.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Whose folder it is; `None`: it has no identity.
    pub identity: Option<Identity>,
    /// The cells.
    pub cells: Recovered,
    /// The hints.
    pub hints: Recovered,
    /// What is wrong, in words.
    pub remarks: Vec<String>,
}

/// Looks at a data folder without changing it: what opening it would find.
///
/// # Errors
/// The medium's, and an identity that cannot be understood.
pub fn look<D: Disk>(disk: &D) -> Result<Look, OpenError> {
    engine::look(disk)
}

/// Reads the content of a cell that [`look`] has found.
///
/// # Errors
/// The record is damaged, or cannot be read.
pub fn look_at<D: Disk>(
    disk: &D,
    log: Log,
    place: Place,
) -> Result<crate::model::Content, LoadError> {
    engine::load(disk, log, place, segment::read_format(disk, log, place.segment))
}
