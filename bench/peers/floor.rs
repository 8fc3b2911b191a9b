//! The floor: what moving the same bytes costs on this machine, and nothing else.
//!
//! Coordinator and replica in one thread, fixed frames, a hash map, a log thread that writes and syncs whatever has gathered
//! into a file with its space taken ahead, one write a connection and turn. One round, no versions, no ranges, no Thrift, no
//! checks, no hints, no way back from a crash: no store, but what no store here can be faster than.
//!
//! A frame: length u32, kind u8, number u64, key 16 bytes, value. All numbers are little-endian.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use chord::bench::keys::{KEY_LENGTH, number};
use chord::bench::target::{Answer, Call, Connection, Found, Target};
use fs2::FileExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_local;

const GET: u8 = 1;
const PUT: u8 = 2;
const READ: u8 = 3;
const STORE: u8 = 4;
const ANSWER: u8 = 5;
const REPLY: u8 = 6;

/// Length, kind, number, key.
const HEAD: usize = 4 + 1 + 8 + KEY_LENGTH;

type Key = [u8; KEY_LENGTH];

fn frame(out: &mut BytesMut, kind: u8, number: u64, key: &Key, value: &[u8]) {
    out.reserve(HEAD + value.len());
    out.extend_from_slice(&((HEAD - 4 + value.len()) as u32).to_le_bytes());
    out.extend_from_slice(&[kind]);
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

/// The next whole frame, taken off the front.
fn next(input: &mut BytesMut) -> Option<(u8, u64, Key, Bytes)> {
    let length = u32::from_le_bytes(*input.first_chunk::<4>()?) as usize;
    if input.len() < 4 + length {
        return None;
    }
    let mut frame = input.split_to(4 + length);
    let kind = frame[4];
    let number = u64::from_le_bytes(*frame[5..].first_chunk::<8>()?);
    let key = *frame[13..].first_chunk::<KEY_LENGTH>()?;
    // A copy, so that the buffer can be used again.
    frame.advance(HEAD);
    Some((kind, number, key, Bytes::copy_from_slice(&frame)))
}

// ── Server ──────────────────────────────────────────────────────────────────────────────────────────────

/// How one server is started.
#[derive(clap::Args, Debug)]
pub(crate) struct Flags {
    #[arg(long)]
    id: usize,
    #[arg(long, value_delimiter = ',')]
    addresses: Vec<String>,
    #[arg(long)]
    replicas: usize,
    /// Sync before a write counts.
    #[arg(long)]
    durable: bool,
    #[arg(long)]
    file: PathBuf,
}

/// Bytes that wait to be written to a connection.
#[derive(Default)]
struct Outlet {
    output: RefCell<BytesMut>,
    wake: Notify,
}

/// An operation of a client.
struct Operation {
    client: Rc<Outlet>,
    number: u64,
    missing: usize,
    /// Of a get: what was found.
    value: Option<Bytes>,
}

/// Who waits for a record to be in the log.
enum Waiter {
    Own(u64),
    Peer(Rc<Outlet>, u64),
}

struct Server {
    id: usize,
    count: usize,
    replicas: usize,
    data: BTreeMap<Key, Bytes>,
    peers: Vec<Option<Rc<Outlet>>>,
    operations: BTreeMap<u64, Operation>,
    next: u64,
    /// Records of this turn.
    records: Vec<u8>,
    gathered: Vec<Waiter>,
    /// In the order in which their batches were sent to the log.
    logging: VecDeque<Vec<Waiter>>,
    /// Batches are taken together: how many bytes, how many batches.
    log: std::sync::mpsc::Sender<Vec<u8>>,
    ready: Rc<Notify>,
}

impl Server {
    fn write(outlet: &Rc<Outlet>, kind: u8, number: u64, key: &Key, value: &[u8]) {
        frame(&mut outlet.output.borrow_mut(), kind, number, key, value);
        outlet.wake.notify_one();
    }

    fn keep(&mut self, key: Key, value: Bytes, waiter: Waiter) {
        self.records.extend_from_slice(&key);
        self.records.extend_from_slice(&value);
        self.data.insert(key, value);
        self.gathered.push(waiter);
        self.ready.notify_one();
    }

    fn on_client(&mut self, client: &Rc<Outlet>, kind: u8, number_: u64, key: Key, value: Bytes) {
        let first = (number(&key).unwrap_or(0) % self.count as u64) as usize;
        let replicas: Vec<_> = (0..self.replicas).map(|step| (first + step) % self.count).collect();
        let quorum = self.replicas / 2 + 1;
        self.next += 1;
        let id = self.next;
        let operation =
            Operation { client: Rc::clone(client), number: number_, missing: quorum, value: None };
        self.operations.insert(id, operation);
        if kind == PUT {
            for replica in replicas {
                match self.peers[replica].clone() {
                    Some(peer) => Server::write(&peer, STORE, id, &key, &value),
                    None => self.keep(key, value.clone(), Waiter::Own(id)),
                }
            }
        } else {
            // Itself first, then as many others as it takes.
            let own = replicas.contains(&self.id);
            if own {
                let found = self.data.get(&key).cloned();
                self.on_answer(id, &key, found);
            }
            let others = replicas.into_iter().filter(|replica| *replica != self.id);
            for replica in others.take(quorum - usize::from(own)) {
                if let Some(peer) = self.peers[replica].clone() {
                    Server::write(&peer, READ, id, &key, b"");
                }
            }
        }
    }

    fn on_answer(&mut self, id: u64, key: &Key, value: Option<Bytes>) {
        let Some(operation) = self.operations.get_mut(&id) else { return };
        operation.missing -= 1;
        operation.value = value.or(operation.value.take());
        if operation.missing == 0
            && let Some(operation) = self.operations.remove(&id)
        {
            let value = operation.value.unwrap_or_default();
            Server::write(&operation.client, REPLY, operation.number, key, &value);
        }
    }

    fn on_frame(&mut self, from: &Rc<Outlet>, kind: u8, number: u64, key: Key, value: Bytes) {
        match kind {
            GET | PUT => self.on_client(from, kind, number, key, value),
            STORE => self.keep(key, value, Waiter::Peer(Rc::clone(from), number)),
            READ => {
                let found = self.data.get(&key).cloned().unwrap_or_default();
                Server::write(from, ANSWER, number, &key, &found);
            }
            _ => self.on_answer(number, &key, (!value.is_empty()).then_some(value)),
        }
    }

    fn flush_log(&mut self) {
        if !self.gathered.is_empty() {
            self.logging.push_back(std::mem::take(&mut self.gathered));
            // The log ends with the process.
            let _ = self.log.send(std::mem::take(&mut self.records));
        }
    }

    fn on_logged(&mut self, batches: usize) {
        for _ in 0..batches {
            for waiter in self.logging.pop_front().unwrap_or_default() {
                match waiter {
                    Waiter::Own(id) => self.on_answer(id, &[0; KEY_LENGTH], None),
                    Waiter::Peer(peer, number) => {
                        Server::write(&peer, ANSWER, number, &[0; KEY_LENGTH], b"");
                    }
                }
            }
        }
    }
}

/// Writes whatever has gathered, syncs it, and says how many batches that were.
fn log(
    file: &File,
    durable: bool,
    batches: &std::sync::mpsc::Receiver<Vec<u8>>,
    done: &mpsc::UnboundedSender<usize>,
) -> std::io::Result<()> {
    let (mut at, mut reserved) = (0u64, 0u64);
    while let Ok(mut bytes) = batches.recv() {
        let mut count = 1;
        while let Ok(more) = batches.try_recv() {
            bytes.extend_from_slice(&more);
            count += 1;
        }
        if at + bytes.len() as u64 > reserved {
            reserved = at + bytes.len() as u64 + (64 << 20);
            file.allocate(reserved)?;
        }
        file.write_all_at(&bytes, at)?;
        at += bytes.len() as u64;
        if durable {
            file.sync_data()?;
        }
        if done.send(count).is_err() {
            break;
        }
    }
    Ok(())
}

/// Reads frames, and writes what is to be written, until the other side closes.
async fn serve(server: Rc<RefCell<Server>>, stream: TcpStream, outlet: Rc<Outlet>) {
    // Without it, a floor would be a ceiling.
    let _ = stream.set_nodelay(true);
    let (mut from, mut to) = stream.into_split();
    let writing = Rc::clone(&outlet);
    let writer = spawn_local(async move {
        loop {
            writing.wake.notified().await;
            // All that this turn brings leaves together.
            tokio::task::yield_now().await;
            let output = writing.output.borrow_mut().split();
            if to.write_all(&output).await.is_err() {
                return;
            }
        }
    });
    let mut input = BytesMut::new();
    loop {
        input.reserve(32 * 1024);
        match from.read_buf(&mut input).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                let mut server = server.borrow_mut();
                while let Some((kind, number, key, value)) = next(&mut input) {
                    server.on_frame(&outlet, kind, number, key, value);
                }
            }
        }
    }
    writer.abort();
}

pub(crate) async fn run(flags: Flags) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let listener = TcpListener::bind(&flags.addresses[flags.id]).await.map_err(failed)?;
    let file = File::options().create(true).write(true).truncate(true).open(&flags.file);
    let file = file.map_err(failed)?;
    let (batches, queue) = std::sync::mpsc::channel();
    let (done, mut logged) = mpsc::unbounded_channel();
    let durable = flags.durable;
    std::thread::spawn(move || log(&file, durable, &queue, &done));
    let ready = Rc::new(Notify::new());
    let server = Rc::new(RefCell::new(Server {
        id: flags.id,
        count: flags.addresses.len(),
        replicas: flags.replicas,
        data: BTreeMap::new(),
        peers: flags.addresses.iter().map(|_| None).collect(),
        operations: BTreeMap::new(),
        next: 0,
        records: Vec::new(),
        gathered: Vec::new(),
        logging: VecDeque::new(),
        log: batches,
        ready: Rc::clone(&ready),
    }));
    for (id, address) in flags.addresses.iter().enumerate().filter(|(id, _)| *id != flags.id) {
        let stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        };
        let outlet = Rc::new(Outlet::default());
        server.borrow_mut().peers[id] = Some(Rc::clone(&outlet));
        spawn_local(serve(Rc::clone(&server), stream, outlet));
    }
    let logger = Rc::clone(&server);
    spawn_local(async move {
        loop {
            ready.notified().await;
            tokio::task::yield_now().await;
            logger.borrow_mut().flush_log();
        }
    });
    let completer = Rc::clone(&server);
    spawn_local(async move {
        while let Some(count) = logged.recv().await {
            completer.borrow_mut().on_logged(count);
        }
    });
    println!("ready");
    loop {
        let (stream, _) = listener.accept().await.map_err(failed)?;
        spawn_local(serve(Rc::clone(&server), stream, Rc::new(Outlet::default())));
    }
}

// ── Client ──────────────────────────────────────────────────────────────────────────────────────────────

/// A cluster of such servers.
#[derive(Clone, Debug)]
pub(crate) struct Floor {
    pub(crate) addresses: Arc<Vec<String>>,
}

#[derive(Debug)]
pub(crate) struct FloorConnection {
    stream: TcpStream,
    input: BytesMut,
    output: BytesMut,
    asked: VecDeque<u8>,
}

impl Target for Floor {
    type Connection = FloorConnection;

    async fn connect(&self, client: usize) -> Result<FloorConnection, String> {
        let failed = |error: std::io::Error| error.to_string();
        let address = &self.addresses[client % self.addresses.len()];
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (input, output, asked) = (BytesMut::new(), BytesMut::new(), VecDeque::new());
        Ok(FloorConnection { stream, input, output, asked })
    }
}

impl Connection for FloorConnection {
    fn send(&mut self, call: &Call<'_>) -> Result<(), String> {
        let (kind, key, value) = match call {
            Call::Get { key } => (GET, key, &b""[..]),
            Call::Put { key, value } => (PUT, key, *value),
            Call::Scan { .. } => return Err("the floor has no scans".to_owned()),
        };
        let key = key.first_chunk::<KEY_LENGTH>().ok_or("a key of another length")?;
        frame(&mut self.output, kind, 0, key, value);
        self.asked.push_back(kind);
        Ok(())
    }

    async fn receive(&mut self) -> Result<Answer, String> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await.map_err(|error| error.to_string())?;
            self.output.clear();
        }
        let asked = self.asked.pop_front().ok_or("nothing was asked")?;
        loop {
            if let Some((_, _, _, value)) = next(&mut self.input) {
                let found = (!value.is_empty()).then_some(Found { value, order: None });
                return Ok(if asked == PUT { Answer::Put(None) } else { Answer::Got(found) });
            }
            self.input.reserve(16 * 1024);
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => return Err("the floor has closed the connection".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}
