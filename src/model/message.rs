//! Every message between clients and servers, and between servers, as Rust values.
//!
//! `wire` turns them into Thrift and back. Keys in client messages are the client's own; keys in peer messages
//! are places in the cluster's order (see [`crate::ring::Partitioner`]).

use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    Cell, Checksum, Content, DiskState, Epoch, FolderId, Incarnation, Key, Level, Reached,
    ServerId, Stamp, Status, TopologyView, Version,
};

// ── Clients ─────────────────────────────────────────────────────────────────────────────────────────────

/// What a client may ask of any server.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientRequest {
    /// Store content under a key; a delete stores a tombstone.
    Put(PreparedPut),
    /// Round 1 of a write as a call of its own: a version to write under later, safe to send again.
    Prepare {
        /// The key that will be written.
        key: Key,
        /// How many replicas must say what they hold. ONE counts as QUORUM here.
        level: Level,
        /// Until the answer is given up.
        timeout: Option<Duration>,
        /// See [`PreparedPut::after`].
        after: Option<Version>,
    },
    /// Read a key.
    Get {
        /// The key.
        key: Key,
        /// How many replicas must hold what is answered.
        level: Level,
        /// Until the answer is given up.
        timeout: Option<Duration>,
    },
    /// Read keys in order.
    Scan {
        /// First key, inclusive; empty: from the beginning.
        from: Key,
        /// End, exclusive.
        to: Option<Key>,
        /// Entries at most.
        limit: usize,
        /// As for a get of each key.
        level: Level,
        /// Until the answer is given up.
        timeout: Option<Duration>,
        /// In whatever order the keys are kept: the bounds are places, as is the continuation of the answer.
        any_order: bool,
    },
    /// How this server is.
    Status,
    /// What this server holds of its own.
    Inspect {
        /// Cells, or the hints for one server.
        source: InspectSource,
        /// First key, inclusive.
        from: Key,
        /// Entries at most.
        limit: usize,
    },
    /// Which server keeps what.
    Topology,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub struct PreparedPut {
    /// The key.
    pub key: Key,
    /// What to store.
    pub content: Content,
    /// How many replicas must have it on disk.
    pub level: Level,
    /// Until the outcome is reported as unknown.
    pub timeout: Option<Duration>,
    /// The version to store under, from a former attempt of the very same write or from a prepare. Such a put
    /// ends in success or [`Failure::TimedOut`]: the former attempt may still take effect.
    pub ticket: Option<Version>,
    /// The newest version that the writer has seen: the write's own will be above it, and [weak](Version::is_weak) if it
    /// is. Without meaning beside a ticket.
    pub after: Option<Version>,
}

impl PreparedPut {
    /// A plain one.
    pub fn new(key: Key, content: Content, level: Level) -> PreparedPut {
        PreparedPut { key, content, level, timeout: None, ticket: None, after: None }
    }
}

/// What an inspection shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InspectSource {
    /// The cells this server holds as a replica.
    Cells,
    /// The hints it keeps for that server.
    HintsFor(ServerId),
}

/// What a client is answered on success.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientResponse {
    /// The write is on as many disks as the level requires.
    Put {
        /// Under which version.
        version: Version,
        /// A replica held something newer already.
        overtaken: bool,
        /// Of a write at AVAILABLE: what it has had.
        reached: Option<Reached>,
    },
    /// A version to write under.
    Prepared {
        /// Above every write of the key that had completed before.
        version: Version,
    },
    /// What the key holds.
    Get {
        /// The cell; `None`: never written. A tombstone is shown as one.
        cell: Option<Cell>,
        /// Of a read at AVAILABLE: what it has had.
        reached: Option<Reached>,
    },
    /// Keys in order.
    Scan {
        /// Live entries; tombstones are left out.
        entries: Vec<ScanEntry>,
        /// Where to go on; `None`: there is nothing more.
        next: Option<Key>,
    },
    /// How the server is.
    Status(Box<Status>),
    /// What the server holds.
    Inspected {
        /// Cells in key order, tombstones included.
        entries: Vec<(Key, Cell)>,
        /// Where to go on.
        next: Option<Key>,
    },
    /// Which server keeps what.
    Topology(Box<TopologyView>),
}

/// A live entry of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanEntry {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Bytes,
    /// The write that put it there.
    pub version: Version,
}

/// How a call ends that has not succeeded. All but the last are a definite *no*: nothing was stored, no hint was
/// kept, it will never take effect. [`Failure::TimedOut`] is *unknown*.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The request can never succeed as it is.
    #[error("invalid request: {0}")]
    Invalid(Invalid),
    /// Fewer replicas are alive than the level requires.
    #[error(
        "not enough replicas alive: {level} requires {required}, {alive} alive; nothing was stored"
    )]
    Unavailable {
        /// The level asked for.
        level: Level,
        /// Replicas it requires.
        required: usize,
        /// Replicas believed up and voting; after a failed first round, those that answered.
        alive: usize,
    },
    /// The server has a new data folder and may not issue versions before its peers have recorded it.
    #[error(
        "server {server} is joining the cluster and cannot coordinate writes yet; ask another server"
    )]
    Joining {
        /// The server that was asked.
        server: ServerId,
    },
    /// The server has as much to do as it may take on.
    #[error(
        "server {server} is overloaded; nothing was stored; try again later or at another server"
    )]
    Overloaded {
        /// The server that was asked.
        server: ServerId,
    },
    /// The server may issue no version before its disk has recorded up to where its clock may go, which the disk does not do.
    #[error("the disk of server {server} {state}; nothing was stored; ask another server")]
    Disk {
        /// The server that was asked.
        server: ServerId,
        /// What its disk does.
        state: DiskState,
    },
    /// Of a write under a ticket: every replica that was asked has refused it. A former attempt under that ticket may have been
    /// stored, of which its client knows more than this server.
    #[error(
        "no replica could store it: {level} requires {required}, and all that were asked have refused; \
         nothing was stored by this attempt"
    )]
    Refused {
        /// The level asked for.
        level: Level,
        /// Replicas it requires.
        required: usize,
        /// The ticket.
        version: Version,
    },
    /// It may or may not take effect, now or later.
    #[error("timed out: {level} requires {required} replicas, {received} answered in time; {}",
        if version.is_some() { "the outcome is unknown" } else { "nothing was read" })]
    TimedOut {
        /// The level asked for.
        level: Level,
        /// Replicas it requires.
        required: usize,
        /// Replicas that acknowledged in time.
        received: usize,
        /// Of a write: the ticket for a safe retry. Of a read: none.
        version: Option<Version>,
    },
}

/// Why a request can never succeed as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The key's length.
    #[error(transparent)]
    Key(#[from] super::KeyError),
    /// The value's length.
    #[error("the value has {length} bytes; it must have at most {}", super::MAX_VALUE_LENGTH)]
    ValueTooLong {
        /// In bytes.
        length: usize,
    },
    /// A level that there is not.
    #[error("level {number} is unknown; 1 is ONE, 2 is QUORUM, 3 is ALL, 4 is AVAILABLE")]
    Level {
        /// As it came.
        number: i32,
    },
    /// A scan at AVAILABLE.
    #[error("scans are not offered at level AVAILABLE; use one, quorum or all")]
    ScanLevel,
    /// A limit out of bounds.
    #[error("the limit is {limit}; it must be 1 to {most}")]
    Limit {
        /// As it came.
        limit: i64,
        /// The greatest allowed.
        most: usize,
    },
    /// A time-out out of bounds.
    #[error("the time-out is {milliseconds} ms; it must be 1 to {most}")]
    Timeout {
        /// As it came.
        milliseconds: i64,
        /// The longest allowed, in milliseconds.
        most: u64,
    },
    /// The end of a scan is not after its beginning.
    #[error("the scan ends before it begins: the end must be greater than the first key")]
    EmptyRange,
    /// A ticket that no server of this cluster can have issued.
    #[error(
        "the ticket's version is more than a day ahead of every clock of this cluster, or not above zero"
    )]
    Ticket,
    /// Another content was put under the ticket, and is there to stay.
    #[error(
        "this ticket was already used for another value of the key, which stays; take a new ticket for this one"
    )]
    TicketUsed,
    /// What the writer says that it has seen cannot have been written in this cluster.
    #[error(
        "the version to write after is more than a day ahead of every clock of this cluster, or below zero"
    )]
    After,
    /// Hashed partitioning has no order of keys to scan in.
    #[error(
        "this cluster places keys by hash, so they have no order to scan; use get, or read everything in \
         any order (export, order=any)"
    )]
    UnorderedScan,
    /// A server that is not in the topology.
    #[error("there is no server {0} in this cluster")]
    NoSuchServer(ServerId),
}

impl Failure {
    /// May the caller send the same request again without the risk that it takes effect twice? After
    /// [`Failure::TimedOut`] only under its ticket; a read always.
    pub fn may_retry(&self) -> bool {
        match self {
            Failure::Invalid(_) => false,
            Failure::Unavailable { .. }
            | Failure::Joining { .. }
            | Failure::Overloaded { .. }
            | Failure::Disk { .. } => true,
            Failure::Refused { .. } => false,
            Failure::TimedOut { version, .. } => version.is_none(),
        }
    }

    /// Is it certain that nothing was stored by this attempt and nothing will be?
    pub fn is_definite(&self) -> bool {
        match self {
            Failure::Invalid(_)
            | Failure::Unavailable { .. }
            | Failure::Joining { .. }
            | Failure::Overloaded { .. }
            | Failure::Refused { .. }
            | Failure::Disk { .. } => true,
            Failure::TimedOut { .. } => false,
        }
    }
}

// ── Servers among themselves ────────────────────────────────────────────────────────────────────────────

/// How servers introduce themselves when one connects to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The cluster's name.
    pub cluster: String,
    /// [`crate::ring::Topology::fingerprint`] of what the sender was started with.
    pub topology: u64,
    /// Who speaks.
    pub server: ServerId,
    /// In which life.
    pub incarnation: Incarnation,
    /// With which data folder.
    pub folder: FolderId,
    /// Whether it counts towards majorities.
    pub voting: bool,
    /// Highest log position that was durable when its process began.
    pub position: u64,
    /// Differs from process to process.
    pub session: u64,
    /// What the sender remembers of the receiver.
    pub remembers: Option<Remembered>,
    /// Shared by all servers of a cluster that is not on loopback alone. Told by and to servers of release 0.1 alone.
    pub secret: Option<String>,
    /// That the sender knows the secret.
    pub proof: Option<Proof>,
}

/// Shows that a server knows the cluster's secret, and does not tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// A number that the sender has never used before.
    pub nonce: [u8; 32],
    /// A message authentication code, under the secret, of this and other things.
    pub mac: [u8; 32],
}

/// Why a hello was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloRefusal {
    /// For people.
    pub message: String,
    /// What the caller has to prove to know the secret with, on the same connection.
    pub challenge: Option<[u8; 32]>,
}

/// What a server durably remembers of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Its latest incarnation.
    pub incarnation: Incarnation,
    /// The data folder of that incarnation.
    pub folder: FolderId,
    /// The peer had another folder before that one.
    pub replaced: bool,
    /// Highest log position it has reported as durable, in that session.
    pub position: u64,
    /// The process that has reported it.
    pub session: u64,
    /// Highest log position that former processes have reported.
    pub before: u64,
}

impl Remembered {
    /// The server has told its position.
    pub fn note(&mut self, session: u64, position: u64) {
        if self.session != session {
            self.before = self.highest();
            (self.session, self.position) = (session, 0);
        }
        self.position = self.position.max(position);
    }

    /// Highest log position ever reported.
    pub fn highest(&self) -> u64 {
        self.before.max(self.position)
    }

    /// Highest log position reported by processes other than this one: what it must have found when it began.
    pub fn before(&self, session: u64) -> u64 {
        if self.session == session { self.before } else { self.highest() }
    }
}

/// What a server may ask of another.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerRequest {
    /// Are you there?
    Ping,
    /// What do you hold?
    Read(Read),
    /// Hold this; answer once it, or something newer, is durable.
    Store {
        /// Place.
        key: Key,
        /// Of the key's range.
        epoch: Epoch,
        /// What to hold.
        cell: Cell,
    },
    /// What do you hold between these bounds, in order?
    Page {
        /// First key, inclusive.
        from: Key,
        /// End, exclusive. The whole interval lies in one range.
        to: Option<Key>,
        /// Of that range.
        epoch: Epoch,
        /// Entries at most.
        max_entries: usize,
        /// Bytes of keys and values at most; one entry is always given.
        max_bytes: usize,
        /// False: versions alone.
        with_values: bool,
    },
    /// What is the greatest version time that you have seen? The first round of writes, of as many as have begun before it
    /// was sent.
    Clock {
        /// [`crate::ring::Topology::state`] as the sender knows it.
        state: u64,
    },
    /// Do we hold the same in this range?
    Digest {
        /// Which range.
        start: Key,
        /// Its epoch.
        epoch: Epoch,
    },
    /// What do you remember of me; record my new incarnation.
    Join(Join),
}

/// The question of a read, or of a write's first round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Place.
    pub key: Key,
    /// Of the key's range.
    pub epoch: Epoch,
    /// False: the version alone is wanted.
    pub with_value: bool,
}

/// A server with a new data folder introduces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// To be recorded; [`Incarnation::NONE`] only asks.
    pub incarnation: Incarnation,
    /// The new folder.
    pub folder: FolderId,
}

/// An answer between servers.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerReply {
    /// Who answers, and what it knows of others' lives.
    pub sender: Sender,
    /// The answer itself.
    pub answer: PeerAnswer,
}

/// What every answer says of its sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// Its life.
    pub incarnation: Incarnation,
    /// Whether this answer counts towards majorities.
    pub voting: bool,
    /// Its highest durable log position.
    pub position: u64,
    /// As in its hello.
    pub session: u64,
    /// Incarnations it knows of the servers it shares ranges with; answers of older ones are to be discarded.
    pub known: SmallVec<[(ServerId, Incarnation); 4]>,
    /// What its disk does.
    pub disk: DiskState,
}

/// The answer itself.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerAnswer {
    /// To a ping.
    Pong {
        /// Its wall clock then, in microseconds since 1970. `None`: a server of release 0.1.
        wall: Option<i64>,
    },
    /// To a read: durable state only.
    Held {
        /// [`Version::ZERO`]: never written.
        version: Version,
        /// Of the content. `None`: there is none, or it is not known (see [`super::Stamp`]).
        checksum: Option<Checksum>,
        /// If it was asked for and there is any.
        content: Option<Content>,
    },
    /// To a store: what is durably held now, the cell sent or something newer.
    Stored {
        /// Its version.
        current: Version,
        /// It has the version that was sent and another content, with this greater checksum.
        other: Option<Checksum>,
    },
    /// To a page request.
    Page {
        /// In key order, tombstones included.
        entries: Vec<PageEntry>,
        /// Cut at a limit: there may be more behind the last key.
        truncated: bool,
    },
    /// To a question for the clock: nothing that this replica holds, or ever acknowledged, is above it.
    Clock {
        /// The greatest version time seen.
        time: i64,
    },
    /// To a digest request.
    Digest {
        /// Keys held in the range, tombstones included.
        count: u64,
        /// XOR over the hashes of key and version.
        hash: u64,
        /// XOR over the hashes of key, version and content. `None`: some content is not known here.
        contents: Option<u64>,
    },
    /// To a join.
    Joined {
        /// The incarnation asked for is durably recorded.
        recorded: bool,
        /// What is remembered now.
        remembered: Option<Remembered>,
    },
    /// None of these.
    Refused(Refusal),
}

/// One key of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageEntry {
    /// Place.
    pub key: Key,
    /// Held under it.
    pub version: Version,
    /// Of the content, if it is known.
    pub checksum: Option<Checksum>,
    /// If values were asked for.
    pub content: Option<Content>,
}

impl PageEntry {
    /// Which cell it is, as far as that is known.
    pub fn stamp(&self) -> Stamp {
        Stamp { version: self.version, checksum: self.checksum }
    }
}

/// Why a server does not do what another asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no replica of that key.
    NotReplica,
    /// The range has another epoch here.
    WrongEpoch,
    /// The record could not be written, and nothing of it remains.
    Storage,
    /// Too much to do.
    Overloaded,
}
