//! The driver of a real server: sockets, disk, clock and chance around a [`crate::node::Node`].
//!
//! The node decides everything and touches nothing. This module brings it what happens, as events, and does what
//! it asks for, as effects, in order. It knows no protocol: whether a write may be acknowledged is never a
//! question here, only where the acknowledgement goes.
//!
//! Everything runs on **one** thread, apart from what waits for the disk. Handing a message to another core costs
//! more than all the work on it, and several servers share a machine's cores anyway. What makes it fast is
//! gathering: the node's task takes in what has come meanwhile as one turn, and what a turn causes leaves in one
//! write for each connection and in one batch, with one sync, for the disk.
//!
//! | task | owns | starts | ends |
//! |---|---|---|---|
//! | main ([`run`]) | folder lock, port, all others | with the process | after all others |
//! | node (`runtime`) | the node, the list of connections, the near ends of links | with the log replayed | on `End`; when the node stops or the storage thread has ended, and then so does the process |
//! | listener | the listening socket, the connections' permits | when everything else stands | when the server is being stopped |
//! | connection, one each | its socket, its calls in flight | when accepted | when the other side closes, breaks the rules or stalls; when the server is being stopped and its calls are answered |
//! | link, one a peer (`peer`) | the connection to that peer, its queue, the requests without an answer | with the node, or with the first request to that peer | with the node's task |
//! | storage, a thread | the engine, so all files | before the node | when the node's task has dropped its queue, after a last sync |
//!
//! | from → to | channel | full means |
//! |---|---|---|
//! | connections, links → node | bounded (`MAX_INPUTS`) | the sender waits and reads no more from its socket |
//! | node → connection | unbounded, but one answer for each of a bounded number of calls | – |
//! | node → link | bounded in requests and bytes | the request is dropped, as a network may |
//! | node → storage, and back | unbounded, but the node has a bounded number of commands in flight | – |
//!
//! What a stranger can do is bounded: connections by permits (the one that has been silent for longest makes room),
//! calls by connection, bytes on the way in and out by [`crate::budget`], half messages and untaken answers by time, log lines by
//! `throttle`.
//!
//! The end of a process. *Asked to stop* (SIGINT, SIGTERM): no new connections or calls; calls in flight get two
//! seconds; a last sync; exit code 0. *The node stops* (a failed sync): nothing more is answered; exit code 1.
//! *Killed*: that must always be right too, and is what recovery is for.
//!
//! Left out: TLS and more than one shard of the data in a process. Fairness is by memory, not by work: who stores or reads
//! long values without end keeps disks and links busy, and short calls wait in the same queues.

mod clock;
mod cluster;
mod config;
mod connection;
mod disk;
mod error;
mod gate;
mod listener;
mod lock;
mod mail;
mod original;
mod peer;
mod probe;
mod random;
mod runtime;
mod secret;
mod stall;
mod start;
mod storage;
mod throttle;
mod units;
mod unsent;
mod view;

pub use cluster::{Cluster, ClusterError, LocalCluster, MAX_SERVERS};
pub use config::{Config, ConfigError, Flags};
pub use error::Error;
pub use lock::LockError;
pub use probe::{ProbeError, probe};
pub use start::{Ready, run};
pub use units::{UnitError, size, sync_policy};
pub use view::ViewError;
