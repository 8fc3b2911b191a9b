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
