//! Clients: each does one operation after the other and notes what it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::history::{Kind, Operation, Outcome, Value};
use super::profile::{Activity, Numbers};
use super::seed::Random;
use super::shape::Shape;
use crate::model::{
    ClientRequest, ClientResponse, Content, Failure, Invalid, Key, Level, PreparedPut, ServerId,
    Version,
};
use crate::ring::Partitioner;
use crate::storage::forgery;

/// How often a client sends an unknown write again under its ticket.
const MAX_RETRIES: u32 = 3;

/// What a client does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Send this to this server.
    Send(ServerId, ClientRequest),
    /// The same after that many microseconds.
    SendLater(u64, ServerId, ClientRequest),
    /// Think for that many microseconds.
    Think(u64),
}

/// What has come of a request, for the client.
#[derive(Debug)]
pub(super) enum Told {
    Answer(Result<ClientResponse, Failure>),
    /// The server died, or never answered.
    Nothing,
}

/// What clients do, in numbers. Rates are in a thousand.
#[derive(Clone, Copy, Debug)]
struct Mix {
    keys: usize,
    reads: u64,
    deletes: u64,
    /// Of the reads.
    scans: u64,
    /// Of all operations, on keys of their own.
    ones: u64,
    /// Of the reads of other keys: at ONE, although they are written at QUORUM.
    reads_at_one: u64,
    /// The same at AVAILABLE.
    availables: u64,
    /// Tickets are kept for up to so many milliseconds before they are used.
    keeps: u64,
    /// Of the writes at QUORUM or ALL: under a ticket that the client has used for another value.
    reuses: u64,
}

impl Mix {
    fn of(activity: Activity, numbers: Numbers, random: &mut Random) -> Mix {
        let hot = Mix {
            keys: numbers.keys,
            reads: 450,
            deletes: 120,
            scans: 150,
            ones: 0,
            reads_at_one: 80,
            availables: 0,
            keeps: numbers.keeps,
            reuses: 40,
        };
        match activity {
            Activity::Any => {
                let others = [
                    Activity::Many,
                    Activity::Deletes,
                    Activity::Scans,
                    Activity::One,
                    Activity::Available,
                ];
                let hot = random.chance(500);
                let other = random.pick(&others).copied().filter(|_| !hot);
                Mix::of(other.unwrap_or(Activity::Hot), numbers, random)
            }
            Activity::Hot => hot,
            Activity::Many => Mix { keys: 8, ..hot },
            Activity::Deletes => Mix { deletes: 350, ..hot },
            Activity::Scans => Mix { keys: 6, scans: 700, ..hot },
            Activity::One => Mix { ones: 500, ..hot },
            Activity::Available => Mix { availables: 700, ..hot },
            Activity::Tickets => Mix { reuses: 400, ..hot },
        }
    }
}

/// Keys that are written at ONE begin with this letter: nothing is promised of them but that nobody reads what nobody wrote,
/// and that replicas agree in the end. The same holds for every read at ONE.
pub(super) const AT_ONE: u8 = b'o';

/// Whether a key is written at ONE.
pub(super) fn is_at_one(key: &Key) -> bool {
    key.as_bytes().first() == Some(&AT_ONE)
}

/// Keys that are read and written at AVAILABLE begin with this letter.
const AT_AVAILABLE: u8 = b'v';

/// Whether a key is read and written at AVAILABLE.
pub(super) fn is_at_available(key: &Key) -> bool {
    key.as_bytes().first() == Some(&AT_AVAILABLE)
}

/// Whether a key is never promised to behave as one copy.
pub(super) fn is_apart(key: &Key) -> bool {
    is_at_one(key) || is_at_available(key)
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    number: usize,
    random: Random,
    current: Option<Current>,
    /// Whether it uses a ticket once more.
    reuses: Random,
    /// The last ticket it has used of each key, and when the write began that it was for.
    used: BTreeMap<Key, (Version, u64)>,
    /// The newest version that it has been told of.
    seen: Version,
}

#[derive(Clone, Debug)]
struct Current {
    key: Key,
    kind: Kind,
    start: u64,
    /// Who was asked last.
    server: ServerId,
    level: Level,
    /// It is a scan over all keys, from this place on.
    scan: Option<Key>,
    /// What it has seen, if it says so.
    after: Option<Version>,
    retries: u32,
    /// A first round of its own has been asked for.
    preparing: bool,
    /// The version under which it is written, once that is known.
    ticket: Option<Version>,
    /// Something was sent that may take effect.
    sent: bool,
}

/// All clients, and what they have noted.
#[derive(Debug)]
pub(super) struct Workload {
    clients: Vec<Client>,
    keys: Vec<Key>,
    mix: Mix,
    servers: Vec<ServerId>,
    partitioner: Partitioner,
    left: usize,
    next_value: Value,
    /// Unknown writes are sent again as new ones: a flaw.
    forgets_tickets: bool,
    pub(super) operations: Vec<Operation>,
    pub(super) retries: u64,
    /// Writes under a ticket that was used for another value.
    pub(super) reused: u64,
    /// Of them refused for that.
    pub(super) reuses_refused: u64,
    pub(super) scanned: u64,
    /// Of them at ONE.
    pub(super) scanned_at_one: u64,
    /// Writes whose version is not above what their writer had seen.
    pub(super) out_of_order: Vec<String>,
    /// Writes that were refused as invalid, although all that they brought was this cluster's.
    pub(super) disowned: Vec<String>,
    /// Versions that were issued for two writes.
    pub(super) doubled: Vec<String>,
    issued: BTreeSet<Version>,
}

impl Workload {
    pub(super) fn new(
        seed: u64,
        numbers: Numbers,
        activity: Activity,
        shape: Shape,
        forgets_tickets: bool,
        reuses_tickets: bool,
    ) -> Workload {
        let mut random = Random::stream(seed, "keys");
        let mut mix = Mix::of(activity, numbers, &mut random);
        if !reuses_tickets {
            mix.reuses = 0;
        }
        let mut keys: Vec<_> = (0..mix.keys)
            .map(|i| Key::bound(format!("{}{i}", random.pick(shape.letters()).unwrap_or(&""))))
            .collect();
        if mix.ones > 0 {
            keys.extend((0..6).map(|i| Key::bound(format!("{}{i}", char::from(AT_ONE)))));
        }
        if mix.availables > 0 {
            keys.extend((0..2).map(|i| Key::bound(format!("{}{i}", char::from(AT_AVAILABLE)))));
        }
        let client = |number: usize| Client {
            number,
            random: Random::stream(seed, &format!("client {number}")),
            current: None,
            reuses: Random::stream(seed, &format!("tickets of client {number}")),
            used: BTreeMap::new(),
            seen: Version::ZERO,
        };
        Workload {
            clients: (0..numbers.clients).map(client).collect(),
            keys,
            mix,
            servers: shape.ids(),
            partitioner: shape.partitioner,
            left: numbers.operations,
            next_value: 1,
            forgets_tickets,
            operations: Vec::new(),
            retries: 0,
            reused: 0,
            reuses_refused: 0,
            scanned: 0,
            scanned_at_one: 0,
            out_of_order: Vec::new(),
            disowned: Vec::new(),
            doubled: Vec::new(),
            issued: BTreeSet::new(),
        }
    }

    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }

    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// A write that must succeed, at the end.
    pub(super) fn last_put(&mut self, key: &Key) -> (Value, ClientRequest) {
        self.next_value += 1;
        (self.next_value, put(key, self.next_value, Level::Quorum, None, None, None))
    }

    /// All operations are done.
    pub(super) fn is_over(&self) -> bool {
        self.left == 0 && self.clients.iter().all(|client| client.current.is_none())
    }

    /// The client is free: what does it begin? `None`: it is done.
    pub(super) fn begin(&mut self, client: usize, now: u64) -> Option<Next> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let Client { random, current, seen, reuses, used, .. } = &mut self.clients[client];
        let one = random.chance(self.mix.ones);
        let available = !one && self.mix.availables > 0 && random.chance(self.mix.availables);
        let fits = |key: &&Key| (is_at_one(key), is_at_available(key)) == (one, available);
        let fitting: Vec<&Key> = self.keys.iter().filter(fits).collect();
        let key = (*random.pick(&fitting)?).clone();
        let server = *random.pick(&self.servers)?;
        let level = match one {
            // What a coordinator acknowledges at whatever level it reads at ONE.
            true if random.chance(200) => Level::Quorum,
            true => Level::One,
            false if available => Level::Available,
            false if random.chance(50) => Level::All,
            false => Level::Quorum,
        };
        let timeout = Some(Duration::from_millis(random.between(100, 1_500)));
        let dice = random.below(1_000);
        let kind = if dice < self.mix.reads {
            Kind::Read
        } else if dice < self.mix.reads + self.mix.deletes {
            Kind::Write(0)
        } else {
            self.next_value += 1;
            Kind::Write(self.next_value)
        };
        let at_one = kind == Kind::Read && random.chance(self.mix.reads_at_one);
        let level = if at_one { Level::One } else { level };
        let mut preparing = kind != Kind::Read && !one && random.chance(150);
        let mut after = (kind != Kind::Read && random.chance(250)).then_some(*seen);
        let may_reuse = kind != Kind::Read && !one && !available;
        let reused =
            used.get(&key).copied().filter(|_| may_reuse && reuses.chance(self.mix.reuses));
        if reused.is_some() {
            (preparing, after) = (false, None);
            self.reused += 1;
        }
        let mut scan = None;
        let request = match kind {
            Kind::Read if !one && !available && random.chance(self.mix.scans) => {
                // One key alone, or all from somewhere on, a few at a time.
                let whole = random.chance(500);
                let place = self.partitioner.place(&key);
                let from = if random.chance(500) { place.clone() } else { Key::bound("") };
                let (from, to, limit) = match whole {
                    true => (from, None, random.between(1, 8) as usize),
                    false => (place.clone(), Some(place.successor()), 10),
                };
                let any_order = random.chance(500) || !self.partitioner.keeps_order();
                scan = whole.then(|| from.clone());
                ClientRequest::Scan { from, to, limit, level, timeout, any_order }
            }
            Kind::Read => ClientRequest::Get { key: key.clone(), level, timeout },
            Kind::Write(_) if preparing => {
                ClientRequest::Prepare { key: key.clone(), level, timeout, after }
            }
            Kind::Write(value) => {
                let ticket = reused.map(|(version, _)| version);
                put(&key, value, level, timeout, ticket, after)
            }
        };
        let sent = kind != Kind::Read && !preparing;
        // Under a ticket it has its place among the others from when that was used first.
        let start = reused.map_or(now, |(_, began)| began);
        let (retries, ticket) = (0, reused.map(|(version, _)| version));
        *current = Some(Current {
            key,
            kind,
            start,
            server,
            level,
            scan,
            after,
            retries,
            preparing,
            ticket,
            sent,
        });
        Some(Next::Send(server, request))
    }

    /// The client was told something, or nothing.
    pub(super) fn told(&mut self, client: usize, now: u64, told: Told) -> Next {
        let Client { number, random, current, seen, used, .. } = &mut self.clients[client];
        // One that was refused does not come back at once.
        let went_well = matches!(told, Told::Answer(Ok(_)));
        let think = Next::Think(random.below(if went_well { 20_000 } else { 400_000 }));
        let Some(mut operation) = current.take() else { return think };
        let outcome = match (operation.kind, told) {
            (Kind::Read, Told::Answer(Ok(ClientResponse::Get { cell, .. }))) => {
                *seen = (*seen).max(cell.as_ref().map_or(Version::ZERO, |cell| cell.version));
                Outcome::Found(cell.map_or(0, |cell| value_of(&cell.content)))
            }
            (Kind::Read, Told::Answer(Ok(ClientResponse::Scan { entries, next }))) => {
                let found = |key: &Key| {
                    let entry = entries.iter().find(|entry| entry.key == *key);
                    let value = |value: &bytes::Bytes| value_of(&Content::Value(value.clone()));
                    Outcome::Found(entry.map_or(0, |entry| value(&entry.value)))
                };
                let covered = |key: &Key| match &operation.scan {
                    None => *key == operation.key,
                    Some(from) => {
                        let place = self.partitioner.place(key);
                        place >= *from
                            && next.as_ref().is_none_or(|next| place < *next)
                            && !is_apart(key)
                    }
                };
                // Each key that it went over is a read of that key.
                for key in self.keys.iter().filter(|key| covered(key)) {
                    self.scanned += 1;
                    self.scanned_at_one += u64::from(operation.level == Level::One);
                    let (client, kind, start, end) = (*number, Kind::Read, operation.start, now);
                    let (server, level, outcome) = (operation.server, operation.level, found(key));
                    let key = key.clone();
                    let operation =
                        Operation { client, server, level, key, kind, start, end, outcome };
                    self.operations.push(operation);
                }
                return think;
            }
            (Kind::Read, _) => Outcome::Unknown,
            (Kind::Write(value), Told::Answer(Ok(ClientResponse::Prepared { version }))) => {
                note_issued(&mut self.issued, &mut self.doubled, version);
                operation.ticket = Some(version);
                operation.preparing = false;
                operation.sent = true;
                let (key, level) = (operation.key.clone(), operation.level);
                let request = put(&key, value, level, None, Some(version), None);
                let server = random.pick(&self.servers).copied().unwrap_or_default();
                operation.server = server;
                *current = Some(operation);
                return match self.mix.keeps {
                    0 => Next::Send(server, request),
                    most => Next::SendLater(random.below(most * 1_000), server, request),
                };
            }
            (Kind::Write(_), Told::Answer(Ok(ClientResponse::Put { version, .. }))) => {
                if let Some(after) = operation.after.filter(|after| version <= *after) {
                    self.out_of_order.push(format!("a write after {after} became {version}"));
                }
                if operation.ticket.is_none() {
                    note_issued(&mut self.issued, &mut self.doubled, version);
                }
                *seen = (*seen).max(version);
                Outcome::Done(version)
            }
            (Kind::Write(_), Told::Answer(Err(failure))) if failure.is_definite() => {
                // A version to write after is refused as well where its issuer cannot be asked: nothing was sent under it.
                if matches!(&failure, Failure::Invalid(invalid) if !matches!(invalid, Invalid::After | Invalid::TicketUsed))
                {
                    let Current { server, ticket, .. } = &operation;
                    self.disowned.push(format!(
                        "server {server} refuses a write under {ticket:?}: {failure}"
                    ));
                }
                self.reuses_refused += u64::from(failure == Failure::Invalid(Invalid::TicketUsed));
                // Nothing was stored by this attempt; an earlier one may still.
                if operation.retries > 0 { Outcome::Unknown } else { Outcome::Refused }
            }
            (Kind::Write(value), told) => {
                if let Told::Answer(Err(Failure::TimedOut { version: Some(version), .. })) = told {
                    if operation.ticket.is_none() {
                        note_issued(&mut self.issued, &mut self.doubled, version);
                    }
                    operation.ticket = Some(version);
                }
                let may_retry = operation.ticket.is_some() || self.forgets_tickets;
                if operation.preparing {
                    Outcome::Refused
                } else if may_retry && operation.retries < MAX_RETRIES && random.chance(700) {
                    operation.retries += 1;
                    self.retries += 1;
                    let ticket = if self.forgets_tickets { None } else { operation.ticket };
                    let timeout = Some(Duration::from_millis(random.between(100, 1_500)));
                    let request = put(
                        &operation.key,
                        value,
                        operation.level,
                        timeout,
                        ticket,
                        operation.after,
                    );
                    let server = random.pick(&self.servers).copied().unwrap_or_default();
                    *current = Some(operation);
                    return Next::Send(server, request);
                } else {
                    Outcome::Unknown
                }
            }
        };
        let Current { key, kind, start, server, level, ticket, .. } = operation;
        let version = match outcome {
            Outcome::Done(version) => Some(version),
            _ => ticket,
        };
        if let (Kind::Write(_), Some(version)) = (kind, version) {
            used.insert(key.clone(), (version, start));
        }
        let (client, end) = (*number, now);
        self.operations.push(Operation { client, server, level, key, kind, start, end, outcome });
        think
    }
}

/// Bytes before the records in a hostile value: more than what reaches a disk as a whole or not at all, so that a torn write
/// can leave them without the head of the record that they are in.
const PADDING: usize = 520;

/// The content that stands for a value: its number, and something to fill a segment; now and then records such as a segment
/// holds, at positions that its log may have got to, under salts that it may have.
fn content(key: &Key, value: Value) -> Content {
    match value {
        0 => Content::Tombstone,
        value if value % 8 == 3 => {
            let mut bytes = format!("{value}:{}", "x".repeat(PADDING)).into_bytes();
            for number in 0..8 {
                let salt = (number % 4 == 3).then_some(number.into());
                bytes.extend(forgery(key, u64::from(value + number * 10), salt));
            }
            Content::Value(bytes.into())
        }
        value => Content::Value(format!("{value}:{}", "x".repeat(40 + value as usize % 60)).into()),
    }
}

/// The value that a content stands for.
pub(super) fn value_of(content: &Content) -> Value {
    let text = content.value().map(|value| String::from_utf8_lossy(value).into_owned());
    let number = text.as_deref().and_then(|text| text.split(':').next()?.parse().ok());
    match content {
        Content::Tombstone => 0,
        // What nobody can have written is found out as thin air.
        Content::Value(_) => number.unwrap_or(Value::MAX),
    }
}

/// A server has issued this version for a write that had none.
fn note_issued(issued: &mut BTreeSet<Version>, doubled: &mut Vec<String>, version: Version) {
    if !issued.insert(version) {
        doubled.push(format!("{version} was issued for two writes"));
    }
}

fn put(
    key: &Key,
    value: Value,
    level: Level,
    timeout: Option<Duration>,
    ticket: Option<Version>,
    after: Option<Version>,
) -> ClientRequest {
    let content = content(key, value);
    ClientRequest::Put(PreparedPut { key: key.clone(), content, level, timeout, ticket, after })
}
