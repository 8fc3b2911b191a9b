//! All that a node can ask for.

use crate::model::{CallId, ClientResponse, Failure, PeerReply, PeerRequest, RequestId, ServerId};
use crate::storage::Command;

/// One thing to be done. Effects are performed in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Have the storage carry out a command; its completion comes back as an event.
    Storage(Command),
    /// Ask a peer. May be lost.
    Send {
        /// Whom.
        to: ServerId,
        /// For the reply.
        id: RequestId,
        /// What.
        request: PeerRequest,
    },
    /// Answer a peer. May be lost.
    Reply {
        /// Whom.
        to: ServerId,
        /// As it came with the request.
        id: RequestId,
        /// The answer.
        reply: PeerReply,
    },
    /// Answer a client. Each call is answered once.
    Answer {
        /// As it came with the call.
        call: CallId,
        /// The answer.
        result: Result<ClientResponse, Failure>,
    },
    /// Tell the operator: a line for the log.
    Notice(Notice),
    /// Stop: the storage can no longer be trusted. Nothing is answered any more.
    Stop {
        /// Why.
        reason: String,
    },
}

/// Something an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How much it matters.
    pub urgency: Urgency,
    /// One sentence.
    pub text: String,
}

/// How much a notice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Good to know.
    Info,
    /// Something is not as it should be, and is being dealt with.
    Warning,
    /// Something needs a person.
    Error,
}
