//! Chord's own door, as any Thrift client would use it: a connection, calls, answers in order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::target::{self, Answer, Call, Connection, Found, Order, Target};
use crate::client::Table;
use crate::model::{
    ClientRequest, ClientResponse, Content, Key, Level, PreparedPut, Status, Version,
};
use crate::wire::{self, Format, MessageReader, Reply, Sequence};

/// Room made for each read.
const READ_BYTES: usize = 16 * 1024;

/// Between looks at a cluster that is to settle.
const POLL: Duration = Duration::from_millis(10);

/// A cluster of Chord servers.
#[derive(Clone, Debug)]
pub struct Chord {
    /// Host and port of each server.
    pub addresses: Vec<String>,
    /// Of reads.
    pub read_level: Level,
    /// Of writes.
    pub write_level: Level,
    /// With it, each call goes to a replica of its key; without it, all calls of a client go to one server.
    pub table: Option<Table>,
}

impl Target for Chord {
    type Connection = ChordConnection;

    async fn connect(&self, client: usize) -> Result<ChordConnection, String> {
        let mut links = Vec::new();
        if self.table.is_some() {
            for address in &self.addresses {
                links.push(Link::open(address).await?);
            }
        } else {
            links.push(Link::open(&self.addresses[client % self.addresses.len()]).await?);
        }
        Ok(ChordConnection {
            links,
            addresses: self.addresses.clone(),
            read_level: self.read_level,
            write_level: self.write_level,
            table: self.table.clone(),
            turn: client,
            asked: VecDeque::new(),
        })
    }
}

/// One client's connection, or one to each server.
#[derive(Debug)]
pub struct ChordConnection {
    links: Vec<Link>,
    addresses: Vec<String>,
    read_level: Level,
    write_level: Level,
    table: Option<Table>,
    /// Which replica is next; each client begins with another.
    turn: usize,
    /// The links that owe answers, in the order of their calls.
    asked: VecDeque<usize>,
}

#[derive(Debug)]
struct Link {
    stream: TcpStream,
    input: BytesMut,
    output: BytesMut,
    reader: MessageReader,
    sequence: i32,
    expected: i32,
}

impl Link {
    async fn open(address: &str) -> Result<Link, String> {
        let failed = |error: std::io::Error| format!("{address}: {error}");
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Link {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
            reader: MessageReader::new(Format::NATIVE),
            sequence: 0,
            expected: 0,
        })
    }

    fn send(&mut self, call: ClientRequest) -> Result<(), String> {
        self.sequence = self.sequence.wrapping_add(1);
        let call = wire::Call::Client(call);
        wire::encode_call(Format::NATIVE, Sequence(self.sequence), &call, &mut self.output)
            .map(drop)
            .map_err(|error| error.to_string())
    }

    async fn flush(&mut self) -> Result<(), String> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await.map_err(|error| error.to_string())?;
            self.output.clear();
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<Reply, String> {
        loop {
            if let Some(message) =
                self.reader.next(&mut self.input).map_err(|error| error.to_string())?
            {
                let (sequence, reply) = wire::decode_reply(Format::NATIVE.protocol, message)
                    .map_err(|error| error.to_string())?;
                self.expected = self.expected.wrapping_add(1);
                if sequence.0 != self.expected {
                    return Err("an answer out of its turn".to_owned());
                }
                return Ok(reply);
            }
            self.input.reserve(READ_BYTES);
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => return Err("the connection is closed".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

impl ChordConnection {
    /// The link for a call, by its key's place.
    fn route(&mut self, call: &ClientRequest) -> usize {
        let Some(table) = &self.table else { return 0 };
        let replicas = table.concerned(call);
        self.turn = self.turn.wrapping_add(1);
        let Some(replica) = replicas.get(self.turn % replicas.len().max(1)) else { return 0 };
        let address = table.address(*replica);
        self.addresses.iter().position(|known| Some(known.as_str()) == address).unwrap_or(0)
    }
}

impl Connection for ChordConnection {
    fn send(&mut self, call: &Call<'_>) -> Result<(), String> {
        let key = |bytes: &[u8]| Key::bound(Bytes::copy_from_slice(bytes));
        let request = match call {
            Call::Get { key: bytes } => {
                ClientRequest::Get { key: key(bytes), level: self.read_level, timeout: None }
            }
            Call::Put { key: bytes, value } => {
                let content = Content::Value(Bytes::copy_from_slice(value));
                ClientRequest::Put(PreparedPut::new(key(bytes), content, self.write_level))
            }
            Call::Scan { from, limit } => ClientRequest::Scan {
                from: key(from),
                to: None,
                limit: *limit,
                level: self.read_level,
                timeout: None,
                any_order: false,
            },
        };
        let link = self.route(&request);
        self.links[link].send(request)?;
        self.asked.push_back(link);
        Ok(())
    }

    async fn receive(&mut self) -> Result<Answer, String> {
        for link in &mut self.links {
            link.flush().await?;
        }
        let link = self.asked.pop_front().ok_or("nothing was asked")?;
        let Reply::Client { result, .. } = self.links[link].receive().await? else {
            return Err("an answer of another kind".to_owned());
        };
        Ok(match result {
            Ok(ClientResponse::Put { version, .. }) => Answer::Put(Some(order(version))),
            Ok(ClientResponse::Get { cell, .. }) => {
                Answer::Got(cell.and_then(|cell| match cell.content {
                    Content::Value(value) => {
                        Some(Found { value, order: Some(order(cell.version)) })
                    }
                    Content::Tombstone => None,
                }))
            }
            Ok(ClientResponse::Scan { entries, .. }) => {
                let found = |entry: crate::model::ScanEntry| {
                    let order = Some(order(entry.version));
                    (entry.key.to_bytes(), Found { value: entry.value, order })
                };
                Answer::Scanned(entries.into_iter().map(found).collect())
            }
            Ok(_) => return Err("an answer of another kind".to_owned()),
            Err(failure) => Answer::Failed(failure.message),
        })
    }
}

/// Versions are compared field by field; their fields side by side are a number.
fn order(version: Version) -> Order {
    let Version { time, server, incarnation, step } = version;
    // Steps and incarnations are small: what is cut off of them here decides nothing in a benchmark.
    let low = u64::from(server.0) << 48
        | u64::from(incarnation.0 & 0xff_ffff) << 24
        | u64::from(step & 0xff_ffff);
    target::Order(u128::from(time as u64) << 64 | u128::from(low))
}

/// Asks one server how it is.
///
/// # Errors
/// It does not answer.
pub async fn status(address: &str) -> Result<Status, String> {
    match ask(address, ClientRequest::Status).await? {
        ClientResponse::Status(status) => Ok(*status),
        other => Err(format!("{address}: an answer of another kind: {other:?}")),
    }
}

/// Asks one server who keeps what.
///
/// # Errors
/// It does not answer.
pub async fn table(address: &str) -> Result<Table, String> {
    match ask(address, ClientRequest::Topology).await? {
        ClientResponse::Topology(view) => Ok(Table::new(*view)),
        other => Err(format!("{address}: an answer of another kind: {other:?}")),
    }
}

async fn ask(address: &str, request: ClientRequest) -> Result<ClientResponse, String> {
    let mut link = Link::open(address).await?;
    link.send(request)?;
    link.flush().await?;
    match link.receive().await? {
        Reply::Client { result: Ok(response), .. } => Ok(response),
        other => Err(format!("{address}: an answer of another kind: {other:?}")),
    }
}

/// Waits until every server votes and knows all others to be alive.
///
/// # Errors
/// They do not come to that in time.
#[expect(clippy::disallowed_methods, reason = "it gives up at some time")]
pub async fn settled(addresses: &[String], patience: Duration) -> Result<(), String> {
    let began = Instant::now();
    for address in addresses {
        loop {
            let seen = status(address).await;
            let is_well = |status: &Status| {
                status.voting && status.peers.iter().all(|peer| peer.alive && peer.voting)
            };
            if seen.as_ref().is_ok_and(is_well) {
                break;
            }
            if began.elapsed() > patience {
                return Err(match seen {
                    Ok(_) => format!("{address}: the cluster is not complete yet"),
                    Err(why) => why,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}
