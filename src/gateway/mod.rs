//! The HTTP door: other systems' words for the same store.
//!
//! A translator and nothing else. Every request becomes calls of the client library ([`crate::client`]), which go
//! over Thrift to a replica of the key like those of any other client; there is no second way to store anything. The
//! door runs on a thread of its own, so that parsing HTTP never holds up the server's one thread.
//!
//! | paths | whose words | where |
//! |---|---|---|
//! | `/v1/…`, `/health`, `/ready`, `/openapi.json` | our own: raw bodies, ETags, problems as JSON | `v1` |
//! | `/set`, `/fetch`, `/query` | the REST proxy store's: items of an encoding and data | `pairs` |
//! | `/kvs…` | the causal store's: form fields and causal payloads | `causal` |
//!
//! Bounds: connections, time for a request's head and body, items of a list, and bytes in hand over all connections, of
//! bodies as of answers that have not left (`shares`). Past one of them: a clear answer, or the end of the connection.
//!
//! # What is left out
//!
//! TLS, authentication, and conditional writes (refused in words, not ignored).

mod body;
mod causal;
mod pairs;
mod pieces;
mod problem;
mod serve;
mod shares;
mod stream;
mod v1;
mod words;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};

use self::problem::Problem;
use self::shares::Shares;
use crate::budget::Budget;
use crate::client::{Answered, Client, Options, Routing, Safety};
use crate::model::{
    Cell, ClientRequest, ClientResponse, Content, Key, Level, Reached, ServerId, Version,
};

pub use serve::{Door, DoorError};

/// For a call that does not say how long it may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What the door needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens: host and port.
    pub listen: String,
    /// The server that it belongs to.
    pub server: ServerId,
    /// Every server of the cluster.
    pub members: Vec<Member>,
    /// Connections at most.
    pub max_connections: usize,
    /// What the process may have in hand, over all its endpoints.
    pub budget: Budget,
}

/// A server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub server: ServerId,
    /// Where it speaks Thrift.
    pub address: String,
    /// Where its HTTP door is, if it has one.
    pub http: Option<String>,
}

/// What all requests share.
#[derive(Debug)]
struct Shared {
    /// Goes straight to a replica.
    client: Client,
    /// Goes to the door's own server, which knows who is within reach.
    near: Client,
    settings: Settings,
    shares: Shares,
}

type State = axum::extract::State<Arc<Shared>>;

impl Shared {
    fn new(settings: Settings) -> Arc<Shared> {
        let own = settings.server;
        // Its own server first: the nearest.
        let mut members: Vec<_> = settings.members.iter().collect();
        members.sort_by_key(|member| member.server != own);
        let servers = members.into_iter().map(|member| member.address.clone());
        let servers: Vec<String> = servers.collect();
        let client = |routing| {
            let (servers, timeout, safety) = (servers.clone(), TIMEOUT, Safety::Ticket);
            Client::new(Options { servers, timeout, safety, routing })
        };
        let near = client(Routing::Sticky);
        let client = client(Routing::Replica { prefer: Some(own) });
        let shares = Shares::of(settings.budget.clone());
        Arc::new(Shared { client, near, settings, shares })
    }
}

/// The answer to a read of one key.
#[derive(Debug)]
struct Got {
    server: Option<ServerId>,
    /// Of one at AVAILABLE.
    reached: Option<Reached>,
    found: Option<(Version, Bytes)>,
}

impl Shared {
    /// What there is of a key; the value, if any, holds its share of the budget.
    async fn value(
        &self,
        key: Key,
        level: Level,
        timeout: Option<Duration>,
    ) -> Result<Got, Problem> {
        let request = ClientRequest::Get { key, level, timeout };
        let Answered { server, response } =
            self.client.read(request).await.map_err(|error| Problem::of_read(&error))?;
        let ClientResponse::Get { cell, reached } = response else { return Err(v1::unexpected()) };
        let Some(Cell { version, content: Content::Value(value) }) = cell else {
            return Ok(Got { server, reached, found: None });
        };
        let share = self.shares.value(value.len()).ok_or_else(|| {
            Problem::busy("too many answers at a time wait for their readers".to_owned())
        })?;
        let found = Some((version, share.bind(value)));
        Ok(Got { server, reached, found })
    }
}

/// A path, the methods it takes, and who takes them.
type Route = (&'static str, &'static [&'static str], axum::routing::MethodRouter<Arc<Shared>>);

/// Everything there is.
fn routes() -> Vec<Route> {
    let mut routes = v1::routes();
    routes.extend(pairs::routes());
    routes.extend(causal::routes());
    routes
}

fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new();
    for (path, _, methods) in routes() {
        router = router.route(path, methods);
    }
    router.fallback(no_such_path).method_not_allowed_fallback(no_such_method).with_state(shared)
}

async fn no_such_path(request: Request) -> Response {
    Problem::not_found(
        "no-such-path",
        format!("there is nothing at {}; /openapi.json tells what there is", request.uri().path()),
    )
    .into_response()
}

async fn no_such_method(request: Request) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    Problem::method(format!("{path} does not take {method}; /openapi.json tells what it takes"))
        .into_response()
}

/// Binds the door's port; requests are taken from then on, and answered once [`Door::serve`] runs.
///
/// # Errors
/// The address cannot be had.
pub async fn open(settings: Settings) -> Result<Door, DoorError> {
    let failed = |source: io::Error| DoorError { address: settings.listen.clone(), source };
    let listener = tokio::net::TcpListener::bind(&settings.listen).await.map_err(failed)?;
    let max_connections = settings.max_connections;
    Ok(Door::new(listener, router(Shared::new(settings)), max_connections))
}

#[cfg(test)]
mod tests;
