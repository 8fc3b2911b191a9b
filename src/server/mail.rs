//! What the tasks tell each other, and how an answer finds its way back.

use tokio::sync::{mpsc, oneshot};

use crate::model::{CallId, ClientResponse, Failure, Hello, PeerReply, RequestId, ServerId};
use crate::node::Event;

/// Turns waiting for the node's task at most, over all connections and links. Enough for two full batches of
/// the node; a connection that finds it full waits, and so stops reading its socket.
pub(crate) const MAX_INPUTS: usize = 1024;

/// To the node's task.
#[derive(Debug)]
pub(crate) enum Input {
    /// Something that happened, for the node itself.
    Event(Event),
    /// A connection is there; its answers go into `outgoing`.
    Opened {
        /// Its number.
        connection: u32,
        /// Bounded by the calls in flight on that connection: each is answered at most once.
        outgoing: mpsc::UnboundedSender<Outgoing>,
    },
    /// The connection is gone; answers to it are dropped.
    Closed {
        /// Its number.
        connection: u32,
    },
    /// A server has introduced itself on a connection, and wants the same in return.
    Introduced {
        /// Where the answer goes.
        route: Route,
        /// To whom.
        to: ServerId,
    },
    /// A link is about to introduce this server to `to`.
    Introduce {
        /// To whom.
        to: ServerId,
        /// Takes what to say.
        hello: oneshot::Sender<Hello>,
    },
    /// The server is being stopped: every connection finishes what it has begun.
    Finish,
    /// All of that is done: the node's task ends.
    End,
}

/// From the node's task to a connection.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// The answer to a client's call.
    Answer {
        /// Which call of the connection.
        slot: u32,
        /// The answer.
        result: Result<ClientResponse, Failure>,
    },
    /// How this server introduces itself.
    Hello {
        /// Which call of the connection.
        slot: u32,
        /// What to say.
        hello: Hello,
    },
    /// The answer to a peer's request.
    Reply {
        /// Which request of the connection.
        slot: u32,
        /// The answer.
        reply: PeerReply,
    },
    /// Read nothing more; end once everything is answered.
    Finish,
}

/// A call's way back: its connection, and its number there. Both wrap around after 2³², so a route is unique
/// among everything in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The connection's number.
    pub(crate) connection: u32,
    /// The call's number on it.
    pub(crate) slot: u32,
}

impl Route {
    fn pack(self) -> u64 {
        u64::from(self.connection) << 32 | u64::from(self.slot)
    }

    fn unpack(number: u64) -> Route {
        Route { connection: (number >> 32) as u32, slot: number as u32 }
    }
}

impl From<Route> for CallId {
    fn from(route: Route) -> CallId {
        CallId(route.pack())
    }
}

impl From<CallId> for Route {
    fn from(id: CallId) -> Route {
        Route::unpack(id.0)
    }
}

impl From<Route> for RequestId {
    fn from(route: Route) -> RequestId {
        RequestId(route.pack())
    }
}

impl From<RequestId> for Route {
    fn from(id: RequestId) -> Route {
        Route::unpack(id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_comes_back_from_its_id() {
        let route = Route { connection: u32::MAX, slot: 7 };
        assert_eq!(Route::from(CallId::from(route)), route);
        assert_eq!(Route::from(RequestId::from(route)), route);
    }
}
