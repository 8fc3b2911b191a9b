//! All that can happen to a node.

use crate::model::{CallId, ClientRequest, Hello, PeerReply, PeerRequest, RequestId, ServerId};
use crate::storage::Completion;

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client asks.
    Call {
        /// Where the answer goes.
        call: CallId,
        /// What is asked.
        request: ClientRequest,
    },
    /// A peer asks.
    Request {
        /// Who.
        from: ServerId,
        /// For the reply.
        id: RequestId,
        /// What is asked.
        request: PeerRequest,
    },
    /// A peer has answered. May come twice, late, or never.
    Reply {
        /// Who.
        from: ServerId,
        /// Which request of this node.
        id: RequestId,
        /// The answer.
        reply: PeerReply,
    },
    /// Requests can be sent to this peer from now on; it has introduced itself.
    LinkUp {
        /// What it said.
        hello: Hello,
    },
    /// Requests can no longer be sent to this peer; those without an answer will get none.
    LinkDown {
        /// To whom.
        peer: ServerId,
    },
    /// The storage has carried out a command.
    Completed(Completion),
    /// The driver has handed over all that had come in: what was gathered leaves. Needed whenever
    /// [`super::Node::has_gathered`] says so; sooner or later is a matter of speed alone.
    Flush,
    /// Time has passed: [`super::Node::next_deadline`] is reached.
    Deadline,
}
