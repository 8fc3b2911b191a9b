//! What a node is told once, when it is made.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Flaw;
use crate::model::ServerId;
use crate::ring::{Partitioner, Topology};
use crate::storage::StoreOptions;

/// Immutable for the node's life. [`Config::new`] gives every number its default.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which server this is.
    pub server: ServerId,
    /// The cluster's name.
    pub cluster: String,
    /// Which server keeps what.
    pub topology: Topology,
    /// Where keys lie.
    pub partitioner: Partitioner,
    /// Where servers listen, for clients and people; the node itself knows no sockets.
    pub addresses: BTreeMap<ServerId, String>,
    /// Vote after a bounded wait although fewer peers than needed could be asked for what was lost.
    pub accept_loss: bool,
    /// The first request's number; different in every process life.
    pub first_request: u64,
    /// For calls that name no time-out.
    pub timeout: Duration,
    /// A peer is asked for a sign of life after this long.
    pub ping_interval: Duration,
    /// A peer not heard for this long is not alive.
    pub silence: Duration,
    /// Replicas of a range are compared this often.
    pub repair_interval: Duration,
    /// Calls of clients in flight at most; beyond it [`crate::model::Failure::Overloaded`].
    pub max_calls: usize,
    /// Bytes of values that are being fetched from the disk at a time, roughly; reads beyond it wait. Values that wait for
    /// nothing are memory too, and a few calls can ask for many of them.
    pub max_loading: usize,
    /// Bytes of cells to be stored that wait for the disk at a time; a store beyond it is refused, and nothing of it is kept.
    /// A single one is always taken in. The same again is allowed for hints; one beyond it becomes a mark.
    pub max_storing: usize,
    /// Bytes of operations that were answered and still wait for a replica; beyond it those that wait for longest end, and
    /// writes leave hints.
    pub max_lingering: usize,
    /// Bytes of values and pages that replicas have sent for calls without an answer yet; a call for which more would come is
    /// answered as overloaded.
    pub max_gathering: usize,
    /// Hints kept for one server at most; beyond it a mark takes their place.
    pub max_hints: usize,
    /// Bytes of the records of hints kept for one server at most, without those delivered or replaced.
    pub max_hint_bytes: usize,
    /// The same for all servers together. The log on disk may take twice that until it is compacted.
    pub max_all_hint_bytes: usize,
    /// Cells of a page when this server is rebuilt from others, at most.
    pub rebuild_page: usize,
    /// Bytes of sealed segments read through in a second, to find what has rotted; 0: none.
    pub scrub_rate: u64,
    /// They are read through once in this time.
    pub scrub_interval: Duration,
    /// How cells are kept.
    pub cells: StoreOptions,
    /// How hints are kept.
    pub hints: StoreOptions,
    /// A deliberate fault, for the simulator alone to prove that it would notice.
    pub(crate) flaw: Option<Flaw>,
}

impl Config {
    /// The defaults.
    pub fn new(server: ServerId, cluster: String, topology: Topology) -> Config {
        Config {
            server,
            cluster,
            topology,
            partitioner: Partitioner::ByteOrdered,
            addresses: BTreeMap::new(),
            accept_loss: false,
            first_request: 0,
            timeout: Duration::from_secs(2),
            ping_interval: Duration::from_millis(250),
            // With the time until the next question, less than a second.
            silence: Duration::from_millis(700),
            repair_interval: Duration::from_secs(10),
            max_calls: 10_000,
            max_loading: 32 << 20,
            max_storing: 64 << 20,
            max_lingering: 48 << 20,
            max_gathering: 64 << 20,
            max_hints: 1_000_000,
            max_hint_bytes: 256 << 20,
            max_all_hint_bytes: 1 << 30,
            rebuild_page: 512,
            // 64 GiB in four and a half hours; a few thousandths of what a disk can read, and less than one piece in 60 ms.
            scrub_rate: 4 << 20,
            scrub_interval: Duration::from_secs(24 * 3600),
            cells: StoreOptions { memory: 256 << 20, dead_percent: 50, flaw: None },
            hints: StoreOptions { memory: 16 << 20, dead_percent: 50, flaw: None },
            flaw: None,
        }
    }
}
