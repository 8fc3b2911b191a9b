//! What a server says of itself, for people and tools.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Epoch, Incarnation, ServerId};

/// How one server is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Which server.
    pub server: ServerId,
    /// In which life.
    pub incarnation: Incarnation,
    /// Whether it counts towards majorities.
    pub voting: bool,
    /// If not voting: what it is doing about it, in words.
    pub state: String,
    /// All others of the topology.
    pub peers: Vec<PeerStatus>,
    /// Keys held, tombstones included.
    pub keys: u64,
    /// Tombstones among them.
    pub tombstones: u64,
    /// Bytes of all data segments.
    pub log_bytes: u64,
    /// Bytes of all hint segments.
    pub hint_log_bytes: u64,
    /// Bytes of values held in memory.
    pub memory_bytes: u64,
    /// The most there may be.
    pub memory_budget: u64,
    /// What was done so often.
    pub counters: BTreeMap<String, u64>,
    /// What its disk does that it should not, and since when: a sentence.
    pub disk: Option<String>,
    /// What has rotted on its disk, and how far the search for more is. `None`: a server of a release that does not tell.
    pub scrub: Option<ScrubStatus>,
    /// Whose wall clock is wrong, as far as this server can tell: a sentence.
    pub clock: Option<String>,
}

/// What has rotted on a server's disk, and how far the search for more is. Times are in microseconds, UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Bytes a second; 0: it does not search.
    pub rate: u64,
    /// When the pass began that is under way, or else the last one; 0: there was none.
    pub began: i64,
    /// When a pass was complete last; 0: never.
    pub ended: i64,
    /// Bytes to be read until the pass under way is complete; 0: none is.
    pub left: u64,
    /// Records that cannot be read at present: the server does not answer for their keys.
    pub waiting: u64,
    /// Records that were found damaged since it started, the newest last: 32 at most.
    pub recent: Vec<DamagedRecord>,
}

/// A record that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DamagedRecord {
    /// In the data folder.
    pub file: String,
    /// The record's first byte in it.
    pub offset: u64,
    /// Its key, as clients know it; the first 256 bytes of a longer one.
    pub key: Bytes,
    /// When that was noticed.
    pub found: i64,
    /// When the key could be read again; `None`: not yet.
    pub healed: Option<i64>,
}

/// Another server as this one sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// Which.
    pub server: ServerId,
    /// Where it listens.
    pub address: String,
    /// The link is up and was heard in the last second.
    pub alive: bool,
    /// It says that it counts towards majorities.
    pub voting: bool,
    /// Its latest life known here.
    pub incarnation: Incarnation,
    /// Hints that wait here for it.
    pub hints: u64,
    /// What its disk does that it should not, by its own word, and since when that is known here: a sentence.
    pub disk: Option<String>,
    /// By so many milliseconds its wall clock is ahead of the answering server's, if that is known.
    pub clock_offset_ms: Option<i64>,
}

/// Which server keeps what, as clients are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopologyView {
    /// The cluster's name.
    pub cluster: String,
    /// All servers.
    pub servers: Vec<ViewServer>,
    /// All ranges, by start.
    pub ranges: Vec<ViewRange>,
    /// `byte-ordered` or `hashed`.
    pub partitioner: String,
}

/// A server of a [`TopologyView`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewServer {
    /// Which.
    pub server: ServerId,
    /// Host and port.
    pub address: String,
}

/// A range of a [`TopologyView`]: from its start to the next one's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewRange {
    /// First place, inclusive.
    pub start: Bytes,
    /// Changes of its replica set so far.
    pub epoch: Epoch,
    /// In preference order.
    pub replicas: Vec<ServerId>,
}
