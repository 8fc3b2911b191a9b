//! A client of a cluster.

use std::time::Duration;

use tokio::time::Instant;

use super::{Broken, Connection, Error};
use crate::model::{
    ClientRequest, ClientResponse, Content, Key, Level, PreparedPut, ServerId, Version,
};
use crate::wire::{FailureCode, RemoteFailure, Reply};

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// A server that has not answered for so long is left for another one, if there is time: it answers within its own
/// time-out of two seconds when it can.
const SILENCE: Duration = Duration::from_millis(2_500);
/// Between two tries under a ticket.
const PAUSE: Duration = Duration::from_millis(50);

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses, `host:port`, in the order in which they are tried.
    pub servers: Vec<String>,
    /// Until a call is given up, retries included.
    pub timeout: Duration,
    /// What happens to writes that a server dies over.
    pub safety: Safety,
}

/// What a write costs, and what can be done if its server dies over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// One call; if its server dies, the outcome is unknown.
    OneCall,
    /// A ticket first; then the write can be sent again through another server.
    Ticket,
}

/// A success.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// Who coordinated, if the answer says so.
    pub server: Option<ServerId>,
    /// The answer.
    pub response: ClientResponse,
}

/// One connection to one of several servers.
#[derive(Debug)]
pub struct Client {
    options: Options,
    /// Which of the addresses, and the connection to it.
    current: Option<(usize, Connection)>,
    /// Where the next search for a server begins.
    first: usize,
}

impl Client {
    /// A client that connects when it is first used.
    pub fn new(options: Options) -> Client {
        Client { options, current: None, first: 0 }
    }

    /// The address that it is connected to, if it is.
    pub fn address(&self) -> Option<&str> {
        let (index, connection) = self.current.as_ref()?;
        (!connection.is_closed()).then(|| self.options.servers[*index].as_str())
    }

    /// Uses these servers from now on.
    pub fn set_servers(&mut self, servers: Vec<String>) {
        self.options.servers = servers;
        (self.current, self.first) = (None, 0);
    }

    /// The connection, made anew if need be.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn connection(&mut self) -> Result<Connection, Error> {
        if let Some((_, connection)) = &self.current
            && !connection.is_closed()
        {
            return Ok(connection.clone());
        }
        let count = self.options.servers.len();
        let mut tried = Vec::new();
        for step in 0..count {
            let index = (self.first + step) % count;
            let address = &self.options.servers[index];
            match tokio::time::timeout(CONNECT, Connection::open(address)).await {
                Ok(Ok(connection)) => {
                    self.current = Some((index, connection.clone()));
                    self.first = index;
                    return Ok(connection);
                }
                Ok(Err(error)) => tried.push(format!("{address}: {error}")),
                Err(_) => tried.push(format!("{address}: no answer within {CONNECT:?}")),
            }
        }
        Err(Error::Unreachable { tried: tried.join(", ") })
    }

    /// Leaves the present server; the next call goes to the one after it.
    pub fn move_on(&mut self) {
        if let Some((index, _)) = self.current.take() {
            self.first = (index + 1) % self.options.servers.len().max(1);
        }
    }

    /// Reads: anything but a write. Goes to the next server when one dies over it.
    ///
    /// # Errors
    /// See [`Error`]; never [`Error::Unknown`].
    pub async fn read(&mut self, request: ClientRequest) -> Result<Answered, Error> {
        let deadline = Instant::now() + self.options.timeout;
        let mut last = None;
        for _ in 0..=self.options.servers.len() {
            match self.attempt(request.clone(), deadline).await? {
                Attempt::Answered(answered) => return Ok(answered),
                Attempt::Failed(failure) => return Err(failed_read(failure)),
                Attempt::Broken(broken) => {
                    last = Some(broken.why);
                    self.move_on();
                }
                Attempt::Late if Instant::now() < deadline => last = Some(self.too_late()),
                Attempt::Late => break,
            }
        }
        let why = last.unwrap_or_else(|| self.too_late());
        Err(Error::Unanswered { why })
    }

    /// Writes: stores content under a key.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn write(
        &mut self,
        key: Key,
        content: Content,
        level: Level,
    ) -> Result<Answered, Error> {
        let deadline = Instant::now() + self.options.timeout;
        let mut ticket = match (self.options.safety, level) {
            // A ticket takes a majority, and ONE is for when there is none.
            (Safety::OneCall, _) | (_, Level::One) => None,
            (Safety::Ticket, _) => Some(self.prepare(key.clone(), level).await?),
        };
        let mut why = None;
        let mut may_have_arrived = false;
        while Instant::now() < deadline {
            let (key, content) = (key.clone(), content.clone());
            let put = PreparedPut { key, content, level, timeout: None, ticket };
            let attempt = match self.attempt(ClientRequest::Put(put), deadline).await {
                Ok(attempt) => attempt,
                Err(error) if may_have_arrived => {
                    return Err(Error::Unknown { why: error.to_string(), ticket });
                }
                Err(error) => return Err(error),
            };
            match attempt {
                Attempt::Answered(answered) => return Ok(answered),
                Attempt::Failed(failure) if failure.is_definite() && !may_have_arrived => {
                    return Err(Error::Refused(failure));
                }
                Attempt::Failed(failure) => {
                    may_have_arrived = true;
                    ticket = ticket.or(failure.version);
                    why = Some(failure.message);
                }
                Attempt::Broken(broken) => {
                    may_have_arrived |= !broken.unsent;
                    why = Some(broken.why);
                    self.move_on();
                }
                Attempt::Late => {
                    may_have_arrived = true;
                    why = Some(self.too_late());
                }
            }
            if may_have_arrived && ticket.is_none() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let why = why.unwrap_or_else(|| self.too_late());
        if may_have_arrived {
            Err(Error::Unknown { why, ticket })
        } else {
            Err(Error::Unreachable { tried: why })
        }
    }

    /// A version to write under: the first round of a write as a call of its own.
    async fn prepare(&mut self, key: Key, level: Level) -> Result<Version, Error> {
        let request = ClientRequest::Prepare { key, level, timeout: None };
        match self.read(request).await?.response {
            ClientResponse::Prepared { version } => Ok(version),
            other => Err(Error::Unanswered { why: format!("an unexpected answer: {other:?}") }),
        }
    }

    fn too_late(&self) -> String {
        format!("no answer within {:?}", self.options.timeout.min(SILENCE))
    }

    async fn attempt(
        &mut self,
        request: ClientRequest,
        deadline: Instant,
    ) -> Result<Attempt, Error> {
        let pending = self.connection().await?.send(request);
        let patience = deadline.min(Instant::now() + SILENCE);
        let Ok(answer) = tokio::time::timeout_at(patience, pending).await else {
            // The connection answers in order: what comes next would wait behind the one that is late.
            self.move_on();
            return Ok(Attempt::Late);
        };
        let gone = || Broken { why: "the connection is closed".to_owned(), unsent: false };
        Ok(match answer.unwrap_or_else(|_| Err(gone())) {
            Ok(Reply::Client { server, result: Ok(response) }) => {
                Attempt::Answered(Answered { server, response })
            }
            Ok(Reply::Client { result: Err(failure), .. }) => Attempt::Failed(failure),
            Ok(other) => Attempt::Failed(odd(&other)),
            Err(broken) => Attempt::Broken(broken),
        })
    }
}

/// What has come of one try.
enum Attempt {
    Answered(Answered),
    Failed(RemoteFailure),
    Broken(Broken),
    Late,
}

/// A failure of a read: its time-outs are no riddle.
pub(super) fn failed_read(failure: RemoteFailure) -> Error {
    match failure.code {
        FailureCode::TimedOut | FailureCode::Other(_) => Error::Unanswered { why: failure.message },
        FailureCode::InvalidRequest | FailureCode::Unavailable | FailureCode::Overloaded => {
            Error::Refused(failure)
        }
    }
}

/// An answer that no server of this version gives.
pub(super) fn odd(reply: &Reply) -> RemoteFailure {
    let message = match reply {
        Reply::Application(text) => text.clone(),
        other => format!("an unexpected answer: {other:?}"),
    };
    RemoteFailure {
        code: FailureCode::Other(0),
        message,
        level: None,
        required: None,
        received: None,
        alive: None,
        version: None,
    }
}
