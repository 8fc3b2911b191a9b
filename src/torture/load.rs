//! Many clients that write down what they did and what they were told.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::client::{Answered, Client, Error, Options, Routing, Safety};
use crate::judge::{Entry, Op, Outcome};
use crate::model::{
    Cell, ClientRequest, ClientResponse, Content, Key, Level, PreparedPut, ServerId,
};
use crate::sim::Random;

use super::now;

/// Everything that happened, in memory and as a file.
#[derive(Debug)]
pub(super) struct Recorder {
    entries: Mutex<(Vec<Entry>, BufWriter<File>)>,
}

impl Recorder {
    pub(super) fn create(path: &Path) -> Result<Recorder, String> {
        let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Recorder { entries: Mutex::new((Vec::new(), BufWriter::new(file))) })
    }

    pub(super) fn record(&self, entry: Entry) {
        let mut guard = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (entries, file) = &mut *guard;
        // The judgement is on what is in memory; the file is for whoever looks afterwards.
        let _ = writeln!(file, "{}", entry.to_json());
        entries.push(entry);
    }

    /// All entries; the file is complete.
    pub(super) fn finish(&self) -> Vec<Entry> {
        let mut guard = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = guard.1.flush();
        std::mem::take(&mut guard.0)
    }
}

/// What all clients of a run share.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) recorder: Recorder,
    pub(super) stop: AtomicBool,
    /// Successes so far, for whoever watches.
    pub(super) succeeded: AtomicU64,
    pub(super) seed: u64,
    /// Ranges of keys can be read in order.
    pub(super) scans: bool,
    pub(super) addresses: Vec<String>,
}

/// What is stored for a value of the history: its name, and bytes after it that follow from the name.
fn content(name: &str) -> Vec<u8> {
    let length = xxhash_rust::xxh3::xxh3_64(name.as_bytes()) % 8;
    // Most are small; of eight, one takes some blocks of the disk.
    let padding = if length == 7 { 3000 } else { length as usize * 9 };
    let mut bytes = name.as_bytes().to_vec();
    bytes.extend(std::iter::repeat_n(b'.', padding));
    bytes
}

/// The name of what is stored. Anything but what was stored whole gets a name that nobody wrote.
pub(super) fn name(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let name = text.trim_end_matches('.').to_owned();
    if content(&name) == bytes { name } else { format!("{} bytes: {text}", bytes.len()) }
}

/// One client.
pub(super) struct Worker {
    name: String,
    number: usize,
    client: Client,
    random: Random,
    load: Arc<Load>,
    written: u64,
}

impl Worker {
    pub(super) fn new(number: usize, load: Arc<Load>) -> Worker {
        let mut servers = load.addresses.clone();
        let first = number % servers.len();
        servers.rotate_left(first);
        let options = Options {
            servers,
            timeout: Duration::from_secs(3),
            safety: if number.is_multiple_of(2) { Safety::Ticket } else { Safety::OneCall },
            routing: match number % 4 {
                3 => Routing::Replica { prefer: None },
                _ => Routing::Sticky,
            },
        };
        let random = Random::stream(load.seed, &format!("client {number}"));
        let (name, client) = (format!("c{number}"), Client::new(options));
        Worker { name, number, client, random, load, written: 0 }
    }

    /// Works until it is told to stop.
    pub(super) async fn run(mut self) {
        while !self.load.stop.load(Ordering::Relaxed) {
            let pause = self.random.below(12);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            match self.random.below(100) {
                0..42 => self.put().await,
                42..50 => self.delete().await,
                50..94 => self.get().await,
                _ if self.load.scans => self.scan().await,
                _ => self.get().await,
            }
        }
    }

    /// A key, and how it is used: few that all want, many that few want, and some at ONE or AVAILABLE.
    fn key(&mut self) -> (String, Level) {
        match self.random.below(10) {
            0..6 => (format!("k{:02}", self.random.below(8)), self.level()),
            6..9 => (format!("m{:02}", self.random.below(20)), self.level()),
            _ if self.random.chance(500) => {
                (format!("v{:02}", self.random.below(4)), Level::Available)
            }
            _ => (format!("o{:02}", self.random.below(4)), Level::One),
        }
    }

    fn level(&mut self) -> Level {
        if self.random.chance(50) { Level::All } else { Level::Quorum }
    }

    async fn put(&mut self) {
        self.written += 1;
        let value = format!("{}-{:05}", self.name, self.written);
        self.write(Op::Put, Some(value)).await;
    }

    async fn delete(&mut self) {
        self.write(Op::Delete, None).await;
    }

    async fn write(&mut self, op: Op, value: Option<String>) {
        let (key, level) = self.key();
        let stored = value
            .as_ref()
            .map_or(Content::Tombstone, |value| Content::Value(content(value).into()));
        let put = PreparedPut::new(Key::bound(key.clone()), stored, level);
        let start = now();
        let result = self.client.write(put).await;
        let (outcome, node, ts) = match &result {
            Ok(Answered { server, response: ClientResponse::Put { version, .. } }) => {
                (Outcome::Ok, *server, Some(version.time))
            }
            Ok(_) => (Outcome::Unknown, None, None),
            Err(error) if error.is_definite() => (Outcome::Fail, None, None),
            Err(_) => (Outcome::Unknown, None, None),
        };
        self.record(op, key, value, start, outcome, level, node, ts);
    }

    /// Now and then at ONE, although the key is written at QUORUM: what is found may be old, and was written.
    fn read_level(&mut self, level: Level) -> Level {
        if self.random.chance(80) { Level::One } else { level }
    }

    async fn get(&mut self) {
        let (name, level) = self.key();
        let level = self.read_level(level);
        let request = ClientRequest::Get { key: Key::bound(name.clone()), level, timeout: None };
        let start = now();
        match self.client.read(request).await {
            Ok(Answered { server, response: ClientResponse::Get { cell, .. } }) => {
                let ts = cell.as_ref().map(|cell| cell.version.time);
                let found = cell.as_ref().and_then(value_of);
                self.record(Op::Get, name, found, start, Outcome::Ok, level, server, ts);
            }
            Ok(_) => {}
            Err(error) => {
                let outcome = unread(&error);
                self.record(Op::Get, name, None, start, outcome, level, None, None);
            }
        }
    }

    /// A scan is a get of every key that it goes over, those included that it does not find.
    async fn scan(&mut self) {
        let first = self.random.below(12);
        let level = self.read_level(Level::Quorum);
        let (from, to) = (format!("m{first:02}"), format!("m{:02}", first + 8));
        let request = ClientRequest::Scan {
            from: Key::bound(from),
            to: Some(Key::bound(to)),
            limit: 4 + self.random.below(8) as usize,
            level,
            timeout: None,
            any_order: false,
        };
        let start = now();
        let Ok(Answered { server, response: ClientResponse::Scan { entries, next } }) =
            self.client.read(request).await
        else {
            return;
        };
        let found: BTreeMap<_, _> =
            entries.iter().map(|entry| (entry.key.clone(), entry)).collect();
        for number in first..first + 8 {
            let key = Key::bound(format!("m{number:02}"));
            if next.as_ref().is_some_and(|next| key >= *next) {
                break;
            }
            let (value, ts) = match found.get(&key) {
                Some(entry) => (Some(name(&entry.value)), Some(entry.version.time)),
                None => (None, None),
            };
            let key = key.to_string();
            self.record(Op::Get, key, value, start, Outcome::Ok, level, server, ts);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a line of the history says")]
    fn record(
        &self,
        op: Op,
        key: String,
        value: Option<String>,
        start: u64,
        outcome: Outcome,
        level: Level,
        node: Option<ServerId>,
        ts: Option<i64>,
    ) {
        if outcome == Outcome::Ok {
            self.load.succeeded.fetch_add(1, Ordering::Relaxed);
        }
        self.load.recorder.record(Entry {
            client: format!("c{}", self.number),
            op,
            key,
            value,
            start,
            end: now(),
            outcome,
            level: level.name().to_owned(),
            node: node.map(|server| server.0),
            ts,
            is_final: false,
        });
    }
}

fn unread(error: &Error) -> Outcome {
    match error {
        Error::Refused(_) | Error::Unreachable { .. } => Outcome::Fail,
        Error::Unanswered { .. } | Error::Unknown { .. } => Outcome::Unknown,
    }
}

fn value_of(cell: &Cell) -> Option<String> {
    match &cell.content {
        Content::Tombstone => None,
        Content::Value(value) => Some(name(value)),
    }
}

// ── Afterwards ──────────────────────────────────────────────────────────────────────────────────────────

/// What one server holds of its own.
pub(super) async fn contents(
    address: String,
) -> Result<BTreeMap<String, (Option<String>, i64)>, Error> {
    let client = direct(address);
    let mut held = BTreeMap::new();
    let mut from = Key::bound("");
    loop {
        let source = crate::model::InspectSource::Cells;
        let request = ClientRequest::Inspect { source, from, limit: 1000 };
        let ClientResponse::Inspected { entries, next } = client.read(request).await?.response
        else {
            return Err(Error::Unanswered { why: "an unexpected answer".to_owned() });
        };
        held.extend(
            entries
                .iter()
                .map(|(key, cell)| (key.to_string(), (value_of(cell), cell.version.time))),
        );
        match next {
            Some(next) => from = next,
            None => return Ok(held),
        }
    }
}

/// Asks this server and no other.
pub(super) fn direct(address: String) -> Client {
    Client::new(Options {
        servers: vec![address],
        timeout: Duration::from_secs(3),
        safety: Safety::OneCall,
        routing: Routing::Sticky,
    })
}
