//! A client of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Broken, Connection, Error, Table};
use crate::model::{ClientRequest, ClientResponse, Key, Level, PreparedPut, ServerId, Version};
use crate::wire::{FailureCode, RemoteFailure, Reply};

/// How long a server takes at most for a call that does not say.
const USUAL: Duration = Duration::from_secs(2);
/// A server that has not answered so long after it should have is left for another one, if there is time.
const GRACE: Duration = Duration::from_millis(500);
/// Between two tries under a ticket.
const PAUSE: Duration = Duration::from_millis(50);
/// For how long a server is tried last, after its connection broke; after it kept silent.
const AVOID: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// The table is asked for at most so often, however many calls fail.
const REFRESH: Duration = Duration::from_secs(1);
/// For the table to come.
const TABLE: Duration = Duration::from_millis(500);

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses, `host:port`, in the order in which they are tried.
    pub servers: Vec<String>,
    /// Until a call is given up, retries included.
    pub timeout: Duration,
    /// What happens to writes that a server dies over.
    pub safety: Safety,
    /// Which server is asked.
    pub routing: Routing,
}

/// What a write costs, and what can be done if its server dies over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// One call; if its server dies, the outcome is unknown.
    OneCall,
    /// A ticket first; then the write can be sent again through another server.
    Ticket,
}

/// Which server is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// One and the same, until it fails: then the next of the list.
    Sticky,
    /// A replica of the key, as the cluster's own table has it: that saves a hop.
    Replica {
        /// The replica to take if it is one; else the key's owner.
        prefer: Option<ServerId>,
    },
}

/// A success.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// Who coordinated, if the answer says so.
    pub server: Option<ServerId>,
    /// The answer.
    pub response: ClientResponse,
}

/// A cluster, seen from outside. Clones share their connections and what they have learnt.
#[derive(Clone, Debug)]
pub struct Client {
    options: Arc<Options>,
    state: Arc<Mutex<State>>,
    /// Held by whoever asks for the table, so that the others wait for it instead of asking too.
    refreshing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    servers: Vec<String>,
    /// Which of them is asked, or where the search for one begins.
    first: usize,
    connections: BTreeMap<String, Connection>,
    /// Servers to be tried last, until then.
    avoided: BTreeMap<String, Instant>,
    table: Option<Arc<Table>>,
    /// When the table was last asked for.
    asked: Option<Instant>,
    /// Something has happened that the table may not know.
    stale: bool,
}

impl Client {
    /// A client that connects when it is first used.
    pub fn new(options: Options) -> Client {
        let state = State { servers: options.servers.clone(), ..State::default() };
        let refreshing = Arc::new(tokio::sync::Mutex::new(()));
        Client { options: Arc::new(options), state: Arc::new(Mutex::new(state)), refreshing }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nobody panics while holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of the list that is asked now, if there is a connection to it.
    pub fn address(&self) -> Option<String> {
        let state = self.state();
        let address = state.servers.get(state.first)?;
        let connection = state.connections.get(address)?;
        (!connection.is_closed()).then(|| address.clone())
    }

    /// Uses these servers from now on.
    pub fn set_servers(&self, servers: Vec<String>) {
        *self.state() = State { servers, ..State::default() };
    }

    /// Makes sure that some server can be reached.
    ///
    /// # Errors
    /// [`Error::Unreachable`], and [`Error::Unanswered`].
    pub async fn connect(&self) -> Result<(), Error> {
        self.read(ClientRequest::Topology).await.map(|_| ())
    }

    /// What the cluster's servers and ranges are, as last told.
    ///
    /// # Errors
    /// As of a read: nobody has told them yet.
    pub async fn table(&self) -> Result<Arc<Table>, Error> {
        if let Some(table) = self.fresh_table().await {
            return Ok(table);
        }
        match self.read(ClientRequest::Topology).await?.response {
            ClientResponse::Topology(view) => Ok(self.learn(Table::new(*view))),
            other => Err(Error::Unanswered { why: format!("an unexpected answer: {other:?}") }),
        }
    }

    /// Reads: anything but a write. Goes to the next server when one dies over it.
    ///
    /// # Errors
    /// See [`Error`]; never [`Error::Unknown`].
    pub async fn read(&self, request: ClientRequest) -> Result<Answered, Error> {
        let deadline = self.deadline(timeout_of(&request));
        let (mut tried, mut failures) = (BTreeSet::new(), Failures::default());
        while let Some(address) = self.target(&request, &tried).await {
            match self.attempt(&address, request.clone(), deadline).await {
                Attempt::Answered(answered) => return Ok(answered),
                Attempt::Failed(failure) if failures.asks_another(&failure) => {
                    failures.refused = Some(failure);
                }
                Attempt::Failed(failure) => return Err(failed_read(failure)),
                Attempt::Broken(broken) => failures.broken(broken),
                Attempt::Late(why) => failures.late(why),
            }
            tried.insert(address);
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(failures.of_read())
    }

    /// Asks one server and no other.
    ///
    /// # Errors
    /// As of a read.
    pub async fn read_at(
        &self,
        server: ServerId,
        request: ClientRequest,
    ) -> Result<Answered, Error> {
        let table = self.table().await?;
        let Some(address) = table.address(server) else {
            return Err(Error::Unanswered { why: format!("there is no server {server}") });
        };
        let deadline = self.deadline(timeout_of(&request));
        let mut failures = Failures::default();
        match self.attempt(address, request, deadline).await {
            Attempt::Answered(answered) => return Ok(answered),
            Attempt::Failed(failure) => return Err(failed_read(failure)),
            Attempt::Broken(broken) => failures.broken(broken),
            Attempt::Late(why) => failures.late(why),
        }
        Err(failures.of_read())
    }

    /// Writes: stores content under a key.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn write(&self, put: PreparedPut) -> Result<Answered, Error> {
        let PreparedPut { key, content, level, timeout, ticket, after } = put;
        let deadline = self.deadline(timeout);
        // Beyond it, a server that is asked anew might not answer in time: a certain no would become an unknown outcome.
        let half_time = Instant::now() + (deadline - Instant::now()) / 2;
        // With a ticket from before, a former attempt may have arrived.
        let mut may_have_arrived = ticket.is_some();
        let mut ticket = match (ticket, self.options.safety, level) {
            (Some(ticket), _, _) => Some(ticket),
            // A ticket takes a majority, and ONE is for when there is none.
            (None, Safety::OneCall, _) | (None, _, Level::One) => None,
            (None, Safety::Ticket, _) => {
                Some(self.prepare(key.clone(), level, timeout, after).await?)
            }
        };
        let (mut tried, mut failures) = (BTreeSet::new(), Failures::default());
        // Of those tried, the servers that hold the request itself for invalid.
        let mut invalid = 0;
        while Instant::now() < deadline {
            let (key, content) = (key.clone(), content.clone());
            let put = PreparedPut { key, content, level, timeout, ticket, after };
            let request = ClientRequest::Put(put);
            let Some(address) = self.target(&request, &tried).await else {
                // Nobody is left to ask. What may have arrived is worth another round, unless all say that it can never succeed.
                if !may_have_arrived || invalid == tried.len() {
                    break;
                }
                tried.clear();
                invalid = 0;
                tokio::time::sleep_until(deadline.min(Instant::now() + PAUSE)).await;
                continue;
            };
            match self.attempt(&address, request, deadline).await {
                Attempt::Answered(answered) => return Ok(answered),
                // A server speaks for this attempt only: a former one may have arrived, whatever it says of the ticket.
                Attempt::Failed(failure) if failure.is_definite() => {
                    let another = failures.asks_another(&failure) && Instant::now() < half_time;
                    if !may_have_arrived && !another {
                        return Err(Error::Refused(failure));
                    }
                    invalid += usize::from(failure.code == FailureCode::InvalidRequest);
                    failures.refused = Some(failure);
                }
                Attempt::Failed(failure) => {
                    may_have_arrived = true;
                    ticket = ticket.or(failure.version);
                    failures.why = Some(failure.message);
                }
                Attempt::Broken(broken) => {
                    may_have_arrived |= !broken.unsent;
                    failures.broken(broken);
                }
                Attempt::Late(why) => {
                    may_have_arrived = true;
                    failures.late(why);
                }
            }
            tried.insert(address);
            if may_have_arrived && ticket.is_none() {
                break;
            }
        }
        Err(failures.of_write(may_have_arrived, ticket))
    }

    /// A version to write under: the first round of a write as a call of its own.
    async fn prepare(
        &self,
        key: Key,
        level: Level,
        timeout: Option<Duration>,
        after: Option<Version>,
    ) -> Result<Version, Error> {
        match self.read(ClientRequest::Prepare { key, level, timeout, after }).await?.response {
            ClientResponse::Prepared { version } => Ok(version),
            other => Err(Error::Unanswered { why: format!("an unexpected answer: {other:?}") }),
        }
    }

    // ── Whom to ask ─────────────────────────────────────────────────────────────────────────────────────

    /// The best server for a request that was not tried yet; `None`: all were.
    async fn target(&self, request: &ClientRequest, tried: &BTreeSet<String>) -> Option<String> {
        let table = match self.options.routing {
            Routing::Sticky => None,
            Routing::Replica { .. } => self.fresh_table().await,
        };
        let now = Instant::now();
        let state = self.state();
        let count = state.servers.len();
        let listed = (0..count).map(|step| (state.first + step) % count);
        let listed = listed.map(|index| state.servers[index].as_str());
        let mut candidates = Vec::new();
        if let (Routing::Replica { prefer }, Some(table)) = (self.options.routing, &table) {
            let mut replicas = table.concerned(request).to_vec();
            // Stable: the others stay in order of preference.
            replicas.sort_by_key(|replica| Some(*replica) != prefer);
            let own = prefer.filter(|_| replicas.is_empty());
            candidates.extend(own.into_iter().chain(replicas).filter_map(|id| table.address(id)));
            candidates.extend(table.addresses());
        }
        candidates.extend(listed);
        let avoided = |address: &str| state.avoided.get(address).is_some_and(|until| *until > now);
        let mut left = candidates.into_iter().filter(|address| !tried.contains(*address));
        let first = left.next()?;
        let best = if avoided(first) { left.find(|address| !avoided(address)) } else { None };
        Some(best.unwrap_or(first).to_owned())
    }

    /// The table, asked for anew if it may be out of date. `None`: nobody tells it.
    async fn fresh_table(&self) -> Option<Arc<Table>> {
        if let Known::Well(table) = self.known_table() {
            return table;
        }
        let _alone = self.refreshing.lock().await;
        // Somebody else may have asked meanwhile.
        if let Known::Well(table) = self.known_table() {
            return table;
        }
        let candidates: Vec<String> = {
            let mut state = self.state();
            state.stale = false;
            let known = state.table.iter().flat_map(|table| table.addresses().map(str::to_owned));
            let mut all: Vec<_> = state.servers.iter().cloned().chain(known).collect();
            all.sort_by_key(|address| state.avoided.contains_key(address));
            all
        };
        let mut asked = BTreeSet::new();
        for address in candidates {
            if !asked.insert(address.clone()) {
                continue;
            }
            let deadline = Instant::now() + TABLE;
            let attempt = self.attempt(&address, ClientRequest::Topology, deadline).await;
            if let Attempt::Answered(Answered {
                response: ClientResponse::Topology(view), ..
            }) = attempt
            {
                return Some(self.learn(Table::new(*view)));
            }
        }
        let mut state = self.state();
        state.asked = Some(Instant::now());
        state.table.clone()
    }

    fn known_table(&self) -> Known {
        let state = self.state();
        let recently = state.asked.is_some_and(|asked| asked.elapsed() < REFRESH);
        let good = state.table.is_some() && !state.stale;
        if good || recently { Known::Well(state.table.clone()) } else { Known::Badly }
    }

    fn learn(&self, table: Table) -> Arc<Table> {
        let table = Arc::new(table);
        let mut state = self.state();
        (state.table, state.asked) = (Some(Arc::clone(&table)), Some(Instant::now()));
        table
    }

    fn connection(&self, address: &str) -> Connection {
        let mut state = self.state();
        match state.connections.get(address) {
            Some(connection) if !connection.is_closed() => connection.clone(),
            Some(_) | None => {
                let connection = Connection::open(address.to_owned());
                state.connections.insert(address.to_owned(), connection.clone());
                connection
            }
        }
    }

    /// Has others tried before this one; `connection`: this very one is of no use any more.
    fn avoid(&self, address: &str, connection: Option<&Connection>, how_long: Duration) {
        let mut state = self.state();
        state.avoided.insert(address.to_owned(), Instant::now() + how_long);
        state.stale = true;
        if let Some(connection) = connection
            && state.connections.get(address).is_some_and(|kept| kept.is(connection))
        {
            state.connections.remove(address);
        }
        let count = state.servers.len();
        if state.servers.get(state.first).is_some_and(|first| first == address) {
            state.first = (state.first + 1) % count;
        }
    }

    fn reached(&self, address: &str, server: Option<ServerId>) {
        let mut state = self.state();
        state.avoided.remove(address);
        if self.options.routing == Routing::Sticky
            && let Some(index) = state.servers.iter().position(|listed| listed == address)
        {
            state.first = index;
        }
        // Somebody else lives there now.
        if let (Some(server), Some(table)) = (server, &state.table)
            && table.address(server) != Some(address)
        {
            state.stale = true;
        }
    }

    // ── One try ─────────────────────────────────────────────────────────────────────────────────────────

    /// When a call is given up.
    fn deadline(&self, timeout: Option<Duration>) -> Instant {
        Instant::now() + timeout.map_or(self.options.timeout, |timeout| timeout + GRACE)
    }

    async fn attempt(&self, address: &str, request: ClientRequest, deadline: Instant) -> Attempt {
        let began = Instant::now();
        let patience = deadline.min(began + timeout_of(&request).unwrap_or(USUAL) + GRACE);
        let connection = self.connection(address);
        let level = level_of(&request);
        let Ok(answer) = tokio::time::timeout_at(patience, connection.send(request)).await else {
            self.avoid(address, Some(&connection), AVOID.1);
            let waited = began.elapsed().as_millis();
            return Attempt::Late(format!("{address}: no answer within {waited} ms"));
        };
        let gone = || Broken { why: format!("{address}: the connection is closed"), unsent: false };
        match answer.unwrap_or_else(|_| Err(gone())) {
            Ok(Reply::Client { server, result }) => {
                self.reached(address, server);
                match result {
                    Ok(response) => Attempt::Answered(Answered { server, response }),
                    Err(failure) => Attempt::Failed(explained(failure, level, address)),
                }
            }
            Ok(other) => Attempt::Failed(odd(&other)),
            Err(broken) => {
                self.avoid(address, Some(&connection), AVOID.0);
                Attempt::Broken(broken)
            }
        }
    }
}

fn level_of(request: &ClientRequest) -> Option<Level> {
    match request {
        ClientRequest::Put(PreparedPut { level, .. })
        | ClientRequest::Prepare { level, .. }
        | ClientRequest::Get { level, .. }
        | ClientRequest::Scan { level, .. } => Some(*level),
        ClientRequest::Status | ClientRequest::Inspect { .. } | ClientRequest::Topology => None,
    }
}

/// A server that is older than a level refuses it by its number, which says nothing to anyone.
fn explained(mut failure: RemoteFailure, level: Option<Level>, address: &str) -> RemoteFailure {
    if failure.code == FailureCode::InvalidRequest
        && level == Some(Level::Available)
        && failure.message.contains("level 4 is unknown")
    {
        failure.message = format!(
            "the server at {address} is older than level AVAILABLE; upgrade it, or use one, quorum or all"
        );
    }
    failure
}

/// How long the request itself lets the server take.
fn timeout_of(request: &ClientRequest) -> Option<Duration> {
    match request {
        ClientRequest::Put(PreparedPut { timeout, .. })
        | ClientRequest::Prepare { timeout, .. }
        | ClientRequest::Get { timeout, .. }
        | ClientRequest::Scan { timeout, .. } => *timeout,
        ClientRequest::Status | ClientRequest::Inspect { .. } | ClientRequest::Topology => None,
    }
}

/// Whether the table should be asked for.
enum Known {
    /// No: it is good, or nobody could tell a better one a moment ago.
    Well(Option<Arc<Table>>),
    Badly,
}

/// What has come of one try.
enum Attempt {
    Answered(Answered),
    Failed(RemoteFailure),
    Broken(Broken),
    Late(String),
}

/// Why tries have failed so far.
#[derive(Debug, Default)]
struct Failures {
    /// Servers that could not be reached, each with the reason.
    unreached: Vec<String>,
    /// The last reason of another kind.
    why: Option<String>,
    /// The last refusal.
    refused: Option<RemoteFailure>,
    /// Servers that see too few replicas.
    unavailable: usize,
}

impl Failures {
    fn broken(&mut self, broken: Broken) {
        if broken.unsent {
            self.unreached.push(broken.why);
        } else {
            self.why = Some(broken.why);
        }
    }

    /// Whether what this server refuses another one might do: one that has no room, or a new data folder, speaks for itself.
    /// That too few replicas live one other server confirms, for the first may be the one that is cut off; asking all of them
    /// would only take time.
    fn asks_another(&mut self, failure: &RemoteFailure) -> bool {
        match failure.code {
            FailureCode::Overloaded => true,
            FailureCode::Unavailable if is_joining(failure) => true,
            FailureCode::Unavailable => {
                self.unavailable += 1;
                self.unavailable == 1
            }
            // It was asked for replicas that it does not see, and another one may.
            FailureCode::TimedOut if failure.not_stored => {
                self.unavailable += 1;
                self.unavailable == 1
            }
            FailureCode::InvalidRequest | FailureCode::TimedOut | FailureCode::Other(_) => false,
        }
    }

    fn late(&mut self, why: String) {
        self.why = Some(why);
    }

    fn of_read(self) -> Error {
        match (self.refused, self.why) {
            (Some(failure), _) => failed_read(failure),
            (None, Some(why)) => Error::Unanswered { why },
            (None, None) => Error::Unreachable { tried: self.unreached.join(", ") },
        }
    }

    fn of_write(self, may_have_arrived: bool, ticket: Option<Version>) -> Error {
        let unreached = self.unreached.join(", ");
        if may_have_arrived {
            let why = self.why.or(self.refused.map(|failure| failure.message));
            return Error::Unknown { why: why.unwrap_or(unreached), ticket };
        }
        match (self.refused, self.why) {
            (Some(failure), _) => Error::Refused(failure),
            (None, why) => Error::Unreachable { tried: why.unwrap_or(unreached) },
        }
    }
}

/// The server has a new data folder: others can do what it cannot yet.
fn is_joining(failure: &RemoteFailure) -> bool {
    failure.code == FailureCode::Unavailable && failure.level.is_none()
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
        not_stored: false,
    }
}
