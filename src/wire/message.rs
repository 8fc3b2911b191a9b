//! Calls and answers as the rest of the crate sees them.

use bytes::Bytes;

use crate::model::{
    ClientRequest, ClientResponse, Failure, Hello, HelloRefusal, Invalid, Key, Level, PeerReply,
    PeerRequest, ServerId, Version,
};

/// Longest frame and longest message, in bytes: what Thrift's own framed transports take.
pub const MAX_FRAME_LENGTH: usize = 16_384_000;

/// A message's number on its connection; the answer carries the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence(pub i32);

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Thrift's strict binary protocol.
    Binary,
    /// Thrift's compact protocol.
    Compact,
}

/// How messages follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Each behind its length.
    Framed,
    /// One after the other.
    Unframed,
}

/// How one connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// How messages follow each other.
    pub framing: Framing,
    /// How values are written.
    pub protocol: Protocol,
}

impl Format {
    /// What servers speak among themselves, and our own client with them.
    pub const NATIVE: Format = Format { framing: Framing::Framed, protocol: Protocol::Binary };

    /// All that are served.
    pub const ALL: [Format; 4] = [
        Format::NATIVE,
        Format { framing: Framing::Framed, protocol: Protocol::Compact },
        Format { framing: Framing::Unframed, protocol: Protocol::Binary },
        Format { framing: Framing::Unframed, protocol: Protocol::Compact },
    ];
}

/// Which call an answer belongs to: a method of one of the three services, or none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// `Chord.put`
    Put,
    /// `Chord.remove`
    Remove,
    /// `Chord.prepare`
    Prepare,
    /// `Chord.get`
    Get,
    /// `Chord.scan`
    Scan,
    /// `Chord.status`
    Status,
    /// `Chord.inspect`
    Inspect,
    /// `Chord.topology`
    Topology,
    /// `Chord.session`
    Session,
    /// `ChordPeer.peerHello`
    PeerHello,
    /// `ChordPeer.peerPing`
    PeerPing,
    /// `ChordPeer.peerRead`
    PeerRead,
    /// `ChordPeer.peerStore`
    PeerStore,
    /// `ChordPeer.peerPage`
    PeerPage,
    /// `ChordPeer.peerDigest`
    PeerDigest,
    /// `ChordPeer.peerJoin`
    PeerJoin,
    /// `ChordPeer.peerClock`
    PeerClock,
    /// `KVStore.clientGet`
    OriginalGet,
    /// `KVStore.clientPut`
    OriginalPut,
    /// `KVStore.hello`
    OriginalHello,
    /// `KVStore.getServerID`
    OriginalServerId,
    /// `KVStore.getInfo`
    OriginalInfo,
    /// A name that no service has; it can only be answered by [`Answer::Application`].
    Unknown(String),
}

/// Which service a method is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// For clients.
    Chord,
    /// For servers among themselves.
    Peer,
    /// The original program's.
    Original,
}

impl Method {
    const ALL: [Method; 22] = [
        Method::Put,
        Method::Remove,
        Method::Prepare,
        Method::Get,
        Method::Scan,
        Method::Status,
        Method::Inspect,
        Method::Topology,
        Method::Session,
        Method::PeerHello,
        Method::PeerPing,
        Method::PeerRead,
        Method::PeerStore,
        Method::PeerPage,
        Method::PeerDigest,
        Method::PeerJoin,
        Method::PeerClock,
        Method::OriginalGet,
        Method::OriginalPut,
        Method::OriginalHello,
        Method::OriginalServerId,
        Method::OriginalInfo,
    ];

    /// By its name in `chord.thrift`; a prefix up to a colon, as multiplexing clients write it, is left out.
    pub fn of(name: &str) -> Method {
        let bare = name.rsplit(':').next().unwrap_or(name);
        Method::ALL
            .into_iter()
            .find(|method| method.name() == bare)
            .unwrap_or_else(|| Method::Unknown(bare.to_owned()))
    }

    /// Its name in `chord.thrift`.
    pub fn name(&self) -> &str {
        match self {
            Method::Put => "put",
            Method::Remove => "remove",
            Method::Prepare => "prepare",
            Method::Get => "get",
            Method::Scan => "scan",
            Method::Status => "status",
            Method::Inspect => "inspect",
            Method::Topology => "topology",
            Method::Session => "session",
            Method::PeerHello => "peerHello",
            Method::PeerPing => "peerPing",
            Method::PeerRead => "peerRead",
            Method::PeerStore => "peerStore",
            Method::PeerPage => "peerPage",
            Method::PeerDigest => "peerDigest",
            Method::PeerJoin => "peerJoin",
            Method::PeerClock => "peerClock",
            Method::OriginalGet => "clientGet",
            Method::OriginalPut => "clientPut",
            Method::OriginalHello => "hello",
            Method::OriginalServerId => "getServerID",
            Method::OriginalInfo => "getInfo",
            Method::Unknown(name) => name,
        }
    }

    /// Its service; `None` for an unknown one.
    pub fn service(&self) -> Option<Service> {
        match self {
            Method::Put
            | Method::Remove
            | Method::Prepare
            | Method::Get
            | Method::Scan
            | Method::Status
            | Method::Inspect
            | Method::Topology
            | Method::Session => Some(Service::Chord),
            Method::PeerHello
            | Method::PeerPing
            | Method::PeerRead
            | Method::PeerStore
            | Method::PeerPage
            | Method::PeerDigest
            | Method::PeerJoin
            | Method::PeerClock => Some(Service::Peer),
            Method::OriginalGet
            | Method::OriginalPut
            | Method::OriginalHello
            | Method::OriginalServerId
            | Method::OriginalInfo => Some(Service::Original),
            Method::Unknown(_) => None,
        }
    }
}

/// A call, understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Of a client.
    Client(ClientRequest),
    /// Of a client, about the connection.
    Session {
        /// Answers are to come as they are ready, not in the order of the calls.
        answers_as_ready: bool,
    },
    /// A server introduces itself.
    Hello(Hello),
    /// Of a server.
    Peer(PeerRequest),
    /// Of a client of the original program.
    Original(OriginalCall),
}

/// A call of the original program's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginalCall {
    /// `clientGet`
    Get {
        /// The key.
        number: u8,
        /// ONE or QUORUM.
        level: Level,
    },
    /// `clientPut`
    Put {
        /// The key.
        number: u8,
        /// Text.
        value: Bytes,
        /// ONE or QUORUM.
        level: Level,
    },
    /// `hello`
    Hello,
    /// `getServerID`
    ServerId,
    /// `getInfo`
    Info,
}

/// What a call of the original program's interface is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginalAnswer {
    /// `SUCCESS` with key, value and time: of a get that found something, and of a put.
    Held {
        /// The key.
        number: u8,
        /// Its value, as text.
        value: Bytes,
        /// Microseconds since 1970.
        time: i64,
    },
    /// `FAIL` with the key alone: never written, or deleted.
    NotFound {
        /// The key.
        number: u8,
    },
    /// Of `hello` and `getInfo`.
    Text(String),
    /// Of `getServerID`.
    Number(i32),
}

/// Messages of the original program's exceptions.
pub mod original {
    use super::{Failure, Key};

    /// What cannot be understood.
    pub const BAD_REQUEST: &str = "Bad request format";
    /// Too few replicas; nothing was stored.
    pub const UNAVAILABLE: &str = "Not enough replicas alive";
    /// It may have been stored.
    pub const UNKNOWN: &str = "Timed out, outcome unknown";

    /// The text of a failure. An overloaded server's refusal is told as too few replicas: nothing was stored.
    pub fn text(failure: &Failure) -> &'static str {
        match failure {
            Failure::Invalid(_) => BAD_REQUEST,
            Failure::Unavailable { .. }
            | Failure::Joining { .. }
            | Failure::Overloaded { .. }
            | Failure::Disk { .. } => UNAVAILABLE,
            Failure::TimedOut { .. } | Failure::Refused { .. } => UNKNOWN,
        }
    }

    /// The key that stands for a number: its three decimal digits.
    pub fn key(number: u8) -> Key {
        Key::bound(format!("{number:03}"))
    }
}

/// A call as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its number, for the answer.
    pub sequence: Sequence,
    /// Its method, for the answer.
    pub method: Method,
    /// No answer is expected.
    pub oneway: bool,
    /// What it asks.
    pub call: Result<Call, CallError>,
}

/// Well-formed Thrift, but no call that can be carried out: it is answered, and the connection goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Answered as [`Failure::Invalid`], or by the original's exception.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Answered by [`Answer::Application`]: no such method, a missing field.
    #[error("{0}")]
    Application(String),
}

/// What is answered to a [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To a client's call; also to an invalid one.
    Client {
        /// Who coordinated.
        server: ServerId,
        /// How it ended.
        result: Result<ClientResponse, Failure>,
    },
    /// To a word about the connection.
    Session {
        /// Who answers.
        server: ServerId,
    },
    /// To a hello: our own, or why not.
    Hello(Result<Hello, HelloRefusal>),
    /// To a peer's call, or why not.
    Peer(Result<PeerReply, String>),
    /// To a call of the original program's, or the message of its exception.
    Original(Result<OriginalAnswer, String>),
    /// What Thrift itself can say: no such method, a missing field.
    Application(String),
}

/// What kind of failure a client was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCode {
    /// The request can never succeed as it is.
    InvalidRequest,
    /// Too few replicas alive.
    Unavailable,
    /// The server has too much to do.
    Overloaded,
    /// Of a write: unknown. Of a read: no answer.
    TimedOut,
    /// One that this program does not know: to be taken for unknown.
    Other(i32),
}

/// A failure as a client was told of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RemoteFailure {
    /// What kind.
    pub code: FailureCode,
    /// A sentence.
    pub message: String,
    /// The level asked for.
    pub level: Option<Level>,
    /// Replicas it requires.
    pub required: Option<usize>,
    /// Replicas that answered in time.
    pub received: Option<usize>,
    /// Replicas alive.
    pub alive: Option<usize>,
    /// The ticket for a safe retry.
    pub version: Option<Version>,
    /// Of a time-out: this attempt has stored nothing.
    pub not_stored: bool,
}

impl RemoteFailure {
    /// Is it certain that nothing was stored by this attempt and nothing will be?
    pub fn is_definite(&self) -> bool {
        match self.code {
            FailureCode::InvalidRequest | FailureCode::Unavailable | FailureCode::Overloaded => {
                true
            }
            FailureCode::TimedOut => self.not_stored,
            FailureCode::Other(_) => false,
        }
    }

    /// May the same request be sent again, as it is, without the risk that it takes effect twice? An unknown write
    /// only under its ticket.
    pub fn may_retry(&self) -> bool {
        match self.code {
            FailureCode::Unavailable | FailureCode::Overloaded => true,
            FailureCode::TimedOut => self.version.is_none(),
            FailureCode::InvalidRequest | FailureCode::Other(_) => false,
        }
    }
}

/// An answer, understood by whoever called.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To a client's call.
    Client {
        /// Who coordinated, where the answer says so.
        server: Option<ServerId>,
        /// How it ended.
        result: Result<ClientResponse, RemoteFailure>,
    },
    /// To a word about the connection.
    Session {
        /// Who answers.
        server: ServerId,
    },
    /// To a hello.
    Hello(Result<Hello, HelloRefusal>),
    /// To a peer's call.
    Peer(Result<PeerReply, String>),
    /// To a call of the original program's.
    Original(Result<OriginalAnswer, String>),
    /// What Thrift itself said.
    Application(String),
}
