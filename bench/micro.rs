//! Micro-benchmarks: what single steps cost without sockets, disks and other threads. `cargo bench --bench micro` prints each with
//! its change since the last run, so that a regression is seen as a ratio; `cargo bench --bench micro -- codec` runs one group.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io;
use std::ops::Bound;

use bytes::{Bytes, BytesMut};
use chord::bench::keys::key;
use chord::model::{
    CallId, Cell, ClientRequest, ClientResponse, Content, Epoch, FolderId, Hello, Incarnation,
    Instant, Key, Level, Now, PeerAnswer, PeerReply, PeerRequest, PreparedPut, RequestId, Sender,
    ServerId, Version,
};
use chord::node::{Config, Effect, Event, Node, Roster, Tally};
use chord::ring::Placement;
use chord::storage::{
    Command, Completion, Disk, Engine, EngineOptions, Identity, Log, Opened, Place, Record,
    Recovered, Store, Ticket,
};
use chord::wire::{
    Answer, Call, Format, Framing, Protocol, Sequence, decode_call, decode_reply, encode_answer,
    encode_call,
};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn version(time: i64) -> Version {
    Version { time, server: ServerId(1), incarnation: Incarnation(1), step: 0 }
}

fn cell(time: i64) -> Cell {
    Cell { version: version(time), content: Content::Value(Bytes::from(vec![7; 100])) }
}

fn name(number: u64) -> Key {
    Key::bound(key(number).to_vec())
}

/// The commonest messages: binary, which is read and written by hand, and compact, which the generated code does.
fn codec(criterion: &mut Criterion) {
    let put = PreparedPut::new(name(1), cell(1).content, Level::Quorum);
    let store = PeerRequest::Store { key: name(1), epoch: Epoch(1), cell: cell(1) };
    let calls = [("put", Call::Client(ClientRequest::Put(put))), ("peerStore", Call::Peer(store))];
    let sender = Sender {
        disk: chord::model::DiskState::Healthy,
        incarnation: Incarnation(1),
        voting: true,
        position: 1000,
        session: 9,
        known: [(ServerId(1), Incarnation(1)), (ServerId(2), Incarnation(1))].into_iter().collect(),
    };
    let server = ServerId(1);
    let got = ClientResponse::Get { cell: Some(cell(1)), reached: None };
    let stored = PeerAnswer::Stored { current: version(1), other: None };
    let answers = [
        ("get", chord::wire::Method::Get, Answer::Client { server, result: Ok(got) }),
        (
            "peerStore",
            chord::wire::Method::PeerStore,
            Answer::Peer(Ok(PeerReply { sender, answer: stored })),
        ),
    ];
    let mut group = criterion.benchmark_group("codec");
    for protocol in [Protocol::Binary, Protocol::Compact] {
        let format = Format { framing: Framing::Unframed, protocol };
        for (name, call) in &calls {
            let mut out = BytesMut::new();
            let id = |what: &str| {
                BenchmarkId::new(format!("{what} call {name}"), format!("{protocol:?}"))
            };
            group.bench_function(id("encode"), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    encode_call(format, Sequence(1), black_box(call), &mut out)
                });
            });
            out.clear();
            if encode_call(format, Sequence(1), call, &mut out).is_ok() {
                let message = out.freeze();
                group.bench_function(id("decode"), |bencher| {
                    bencher.iter(|| decode_call(protocol, black_box(message.clone())));
                });
            }
        }
        for (name, method, answer) in &answers {
            let mut out = BytesMut::new();
            let id = |what: &str| {
                BenchmarkId::new(format!("{what} answer {name}"), format!("{protocol:?}"))
            };
            group.bench_function(id("encode"), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    encode_answer(format, method, Sequence(1), black_box(answer), &mut out)
                });
            });
            out.clear();
            if encode_answer(format, method, Sequence(1), answer, &mut out).is_ok() {
                let message = out.freeze();
                group.bench_function(id("decode"), |bencher| {
                    bencher.iter(|| decode_reply(protocol, black_box(message.clone())));
                });
            }
        }
    }
    group.finish();
}

/// A store of so many keys.
fn filled(keys: u64) -> Store {
    let mut store =
        Store::new(Log::Cells, config().cells, Recovered { active: 1, ..Recovered::default() });
    let mut commands = Vec::new();
    for number in 0..keys {
        store.put(&name(number), &cell(1), &mut commands);
        complete(&mut store, &mut commands);
    }
    store
}

fn config() -> Config {
    let servers = [0, 1, 2].map(ServerId);
    let starts = Placement::even_starts(3);
    match Placement::Ring.topology(&servers, &starts, 3) {
        Ok(topology) => Config::new(ServerId(0), "micro".to_owned(), topology),
        Err(error) => panic!("three servers make a ring: {error}"),
    }
}

/// A disk that has done at once whatever it is told.
fn done(command: Command, position: &mut u64) -> Option<Completion> {
    *position += 1;
    match command {
        Command::Append { log, ticket, .. } => {
            let offset = (*position % (1 << 20)) as u32 * 200;
            let place = Place { segment: 1, offset, length: 150 };
            let (position, active, syncs, value_crc) = (*position, 1, 0, 7);
            let result = Ok(place);
            Some(Completion::Appended { log, ticket, result, value_crc, position, active, syncs })
        }
        Command::SaveIdentity { ticket, .. } => Some(Completion::IdentitySaved { ticket }),
        _ => None,
    }
}

fn complete(store: &mut Store, commands: &mut Vec<Command>) {
    let mut position = store.position();
    for command in std::mem::take(commands) {
        if let Some(completion) = done(command, &mut position) {
            store.complete(completion, commands);
        }
    }
}

/// The keydir: taking in a cell, to the moment at which it is visible; finding one; going through some in order.
fn keydir(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("keydir");
    for keys in [10_000, 1_000_000] {
        let mut store = filled(keys);
        let (mut commands, mut time, mut number) = (Vec::new(), 1, 0);
        let mut next = move || {
            number = (number + 7_919) % keys;
            name(number)
        };
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("put", keys), |bencher| {
            bencher.iter(|| {
                time += 1;
                store.put(&next(), &cell(time), &mut commands);
                complete(&mut store, &mut commands);
            });
        });
        group.bench_function(BenchmarkId::new("get", keys), |bencher| {
            bencher.iter(|| store.find(black_box(&next())));
        });
        group.throughput(Throughput::Elements(100));
        group.bench_function(BenchmarkId::new("range of 100", keys), |bencher| {
            bencher.iter(|| {
                let from = next();
                store.range(Bound::Included(&from), Bound::Unbounded).take(100).count()
            });
        });
    }
    group.finish();
}

/// A disk that takes everything at once and keeps nothing.
struct Nothing;

impl Disk for Nothing {
    fn make_folder(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, _: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn length(&self, name: &str) -> io::Result<u64> {
        Err(io::Error::new(io::ErrorKind::NotFound, name))
    }
    fn read(&self, _: &str, _: u64, _: usize) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }
    fn write(&mut self, _: &str, _: u64, bytes: &[u8]) -> io::Result<()> {
        black_box(bytes);
        Ok(())
    }
    fn reserve(&mut self, _: &str, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn truncate(&mut self, _: &str, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn sync_folder(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn rename(&mut self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn remove(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }
}

/// The log without its disk: records with their checksums, the batch, the key file in the making, completions.
fn append(criterion: &mut Criterion) {
    let options = EngineOptions::new("micro".to_owned(), ServerId(0), FolderId(1), 1);
    let Ok((mut engine, _)) = Engine::open(Nothing, options) else { return };
    let mut group = criterion.benchmark_group("append");
    for records in [1, 64] {
        let batch: Vec<_> = (0..records)
            .map(|number| {
                let record = Record::Put { key: name(number), cell: cell(1) };
                Command::Append { log: Log::Cells, ticket: Ticket(number), record }
            })
            .collect();
        let mut completions = Vec::new();
        group.throughput(Throughput::Elements(records));
        group.bench_function(BenchmarkId::new("records a batch", records), |bencher| {
            bencher.iter(|| {
                completions.clear();
                engine.execute(batch.iter().cloned(), &mut completions);
            });
        });
    }
    group.finish();
}

/// Servers that are all well, in their first life.
struct Well;

impl Roster for Well {
    fn alive(&self, _: ServerId) -> bool {
        true
    }
    fn prompt(&self, _: ServerId) -> bool {
        true
    }
    fn disk(&self, _: chord::model::ServerId) -> chord::model::DiskState {
        chord::model::DiskState::Healthy
    }
    fn reachable(&self, _: ServerId) -> bool {
        true
    }
    fn incarnation(&self, _: ServerId) -> Incarnation {
        Incarnation(1)
    }
}

/// A round of a quorum of three.
fn tally(criterion: &mut Criterion) {
    let replicas = [0, 1, 2].map(ServerId);
    let sender = Sender {
        disk: chord::model::DiskState::Healthy,
        incarnation: Incarnation(1),
        voting: true,
        position: 1,
        session: 1,
        known: Default::default(),
    };
    criterion.bench_function("tally", |bencher| {
        bencher.iter(|| {
            let mut tally = Tally::new(black_box(&replicas), 2);
            for replica in [1, 2].map(ServerId) {
                tally.answer(replica, &sender, version(1));
                if tally.is_met(&Well) {
                    return true;
                }
            }
            false
        });
    });
}

fn merge(criterion: &mut Criterion) {
    let (older, newer) = (cell(1), cell(2));
    criterion.bench_function("merge", |bencher| {
        bencher.iter_batched(
            || (older.clone(), newer.clone()),
            |(older, newer)| older.merge(newer),
            BatchSize::SmallInput,
        );
    });
}

/// Three nodes whose messages arrive at once and whose disks have done whatever they are told: the protocol alone, tallies
/// included.
struct Nodes {
    nodes: BTreeMap<ServerId, (Node, u64)>,
    now: u64,
    answered: u64,
}

impl Nodes {
    fn new() -> Nodes {
        let mut nodes = Nodes { nodes: BTreeMap::new(), now: 1, answered: 0 };
        for id in [0, 1, 2].map(ServerId) {
            let mut config = config();
            config.server = id;
            config.first_request = u64::from(id.0 + 1) << 32;
            let identity = Identity {
                cluster: "micro".to_owned(),
                server: id,
                folder: FolderId(u64::from(id.0) + 1),
                incarnation: Incarnation(1),
                voting: true,
                ..Identity::default()
            };
            let recovered = || Recovered { active: 1, ..Recovered::default() };
            let opened =
                Opened { identity, cells: recovered(), hints: recovered(), damaged: Vec::new() };
            let node = Node::new(config, opened, nodes.moment(), 1);
            nodes.nodes.insert(id, (node, 0));
        }
        for a in [0, 1, 2].map(ServerId) {
            for b in [0, 1, 2].map(ServerId).into_iter().filter(|b| *b != a) {
                let hello: Hello = nodes.nodes[&b].0.hello(a);
                nodes.step(a, Event::LinkUp { hello });
            }
        }
        nodes
    }

    fn moment(&self) -> Now {
        Now { instant: Instant(self.now), wall: 1_000_000 + self.now as i64 }
    }

    fn call(&mut self, request: ClientRequest) {
        self.now += 10;
        let call = CallId(self.now);
        let before = self.answered;
        self.step(ServerId((self.now / 10 % 3) as u16), Event::Call { call, request });
        assert!(self.answered > before, "a call was not answered");
    }

    fn step(&mut self, id: ServerId, event: Event) {
        let mut events = vec![(id, event)];
        let mut effects = Vec::new();
        while let Some((id, event)) = events.pop() {
            let now = self.moment();
            let Some((node, position)) = self.nodes.get_mut(&id) else { return };
            node.step(now, event, &mut effects);
            if node.has_gathered() {
                node.step(now, Event::Flush, &mut effects);
            }
            for effect in effects.drain(..) {
                match effect {
                    Effect::Storage(command) => {
                        let done = done(command, position);
                        events.extend(done.map(|done| (id, Event::Completed(done))));
                    }
                    Effect::Send { to, id: request_id, request } => {
                        // The number carries the way back.
                        let (from, id) = (id, request_id);
                        events.push((to, Event::Request { from, id, request }));
                    }
                    Effect::Reply { to, id: RequestId(number), reply } => {
                        events.push((to, Event::Reply { from: id, id: RequestId(number), reply }));
                    }
                    Effect::Answer { result, .. } => {
                        assert!(result.is_ok(), "a call has failed: {result:?}");
                        self.answered += 1;
                    }
                    Effect::Notice(_) | Effect::Stop { .. } => {}
                }
            }
        }
    }
}

fn node(criterion: &mut Criterion) {
    let mut nodes = Nodes::new();
    let mut number = 0;
    let mut next = move || {
        number = (number + 7_919) % 10_000;
        name(number)
    };
    let mut group = criterion.benchmark_group("node");
    group.bench_function("put at QUORUM, three nodes", |bencher| {
        bencher.iter(|| {
            let put = PreparedPut::new(next(), cell(1).content, Level::Quorum);
            nodes.call(ClientRequest::Put(put));
        });
    });
    group.bench_function("get at QUORUM, three nodes", |bencher| {
        bencher.iter(|| {
            let get = ClientRequest::Get { key: next(), level: Level::Quorum, timeout: None };
            nodes.call(get);
        });
    });
    group.finish();
}

criterion_group!(benches, codec, append, keydir, merge, tally, node);
criterion_main!(benches);
