//! The world: one queue of things to come, and the servers they happen to.

mod ending;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::invariants::Observer;
use super::network::Network;
use super::profile::Numbers;
use super::seed::Random;
use super::workload::{Next, Told, Workload};
use super::{Options, Report, Summary};
use crate::model::{
    CallId, ClientRequest, ClientResponse, FolderId, Hello, Instant, Key, Now, PeerAnswer,
    PeerReply, PeerRequest, Read, RequestId, ServerId,
};
use crate::node::{Config, Effect, Event, Flaw, Node};
use crate::ring::{Placement, Topology};
use crate::storage::{Command, Engine, EngineOptions, MemoryDisk, StoreOptions, SyncPolicy};
use crate::wire::{
    Answer, Call, Format, MessageReader, Method, Reply, Sequence, decode_call, decode_reply,
    encode_answer, encode_call,
};

/// Servers of a simulated cluster.
const SERVERS: u16 = 4;
const REPLICAS: usize = 3;
/// Where virtual wall clocks begin, in microseconds.
const EPOCH: i64 = 1_700_000_000_000_000;
/// A client gives an answer up after this long, in microseconds.
const CLIENT_PATIENCE: u64 = 4_000_000;
/// How long a cluster may take to settle once faults have stopped.
const SETTLING: u64 = 90_000_000;
/// For so long it must stay settled: writes that were answered go on for a while, and may end in a hint.
const QUIET: u64 = 2_500_000;
/// Faults and operations are over by then, whatever happens.
const MAX_WORK: u64 = 120_000_000;
const NOBODY: usize = usize::MAX;

/// Something that will happen.
#[derive(Debug)]
enum Coming {
    Request {
        from: ServerId,
        to: ServerId,
        id: RequestId,
        frame: Bytes,
    },
    Reply {
        from: ServerId,
        to: ServerId,
        id: RequestId,
        frame: Bytes,
    },
    LinkUp {
        at: ServerId,
        to: ServerId,
    },
    /// That life of the peer is over.
    LinkDown {
        at: ServerId,
        peer: ServerId,
        life: u64,
    },
    /// The disk of a server, in this life of it, has carried out its batch.
    Worked {
        server: ServerId,
        life: u64,
    },
    Deadline {
        server: ServerId,
        life: u64,
    },
    /// A client is free.
    Free {
        client: usize,
    },
    /// A client has waited long enough for this call.
    GiveUp {
        call: u64,
    },
    Fault,
    Restart {
        server: ServerId,
    },
    Heal,
}

/// One server.
struct Server {
    life: u64,
    born: u64,
    node: Option<Node>,
    engine: Option<Engine<MemoryDisk>>,
    /// Between two lives.
    disk: Option<MemoryDisk>,
    /// How far its wall clock is off.
    skew: i64,
    commands: Vec<Command>,
    /// What the disk is working on.
    batch: Vec<Command>,
    working: bool,
    /// The moment for which a deadline is in the queue.
    deadline: u64,
}

/// See the module.
pub(super) struct World {
    options: Options,
    numbers: Numbers,
    topology: Topology,
    now: u64,
    next_order: u64,
    coming: BTreeMap<(u64, u64), Coming>,
    servers: BTreeMap<ServerId, Server>,
    network: Network,
    workload: Workload,
    faults: Random,
    disks: Random,
    /// Calls without an answer: whose, and where.
    calls: BTreeMap<u64, (usize, ServerId)>,
    next_call: u64,
    lives: u64,
    /// What a request was about, for the answer.
    about: BTreeMap<(ServerId, ServerId, RequestId), (Method, Option<Key>)>,
    observer: Observer,
    summary: Summary,
    /// At most one disk is lost in a run: two at a time are more than three replicas survive.
    wiped: bool,
    calm: bool,
    /// Answers to inspections and to the last reads.
    answers: BTreeMap<u64, Result<ClientResponse, crate::model::Failure>>,
    trace: String,
    broken: Vec<String>,
}

impl World {
    pub(super) fn new(options: Options) -> World {
        let seed = options.seed;
        let numbers = options.profile.numbers();
        let ids: Vec<_> = (0..SERVERS).map(ServerId).collect();
        let starts = ["", "a", "b", "c"].map(Key::bound);
        // Four starts for four servers, ascending: there is nothing to refuse.
        let topology = Placement::Ring.topology(&ids, &starts, REPLICAS);
        let topology = topology.unwrap_or_else(|error| unreachable!("{error}"));
        let mut faults = Random::stream(seed, "faults");
        let servers = ids
            .iter()
            .map(|id| {
                let most = numbers.skew as i64 * 1_000_000;
                let skew = faults.below(2 * most as u64 + 1) as i64 - most;
                (*id, Server::new(skew))
            })
            .collect();
        let forgets = options.flaw == Some(Flaw::RetryUnderNewVersion);
        World {
            options,
            numbers,
            topology,
            now: 0,
            next_order: 0,
            coming: BTreeMap::new(),
            servers,
            network: Network::new(seed, numbers),
            workload: Workload::new(seed, numbers, ids, forgets),
            faults,
            disks: Random::stream(seed, "disks"),
            calls: BTreeMap::new(),
            next_call: 0,
            lives: 0,
            about: BTreeMap::new(),
            observer: Observer::default(),
            summary: Summary { runs: 1, ..Summary::default() },
            wiped: false,
            calm: false,
            answers: BTreeMap::new(),
            trace: String::new(),
            broken: Vec::new(),
        }
    }

    /// From the first start to the verdict.
    pub(super) fn run(mut self) -> Report {
        let ids: Vec<_> = self.servers.keys().copied().collect();
        for id in &ids {
            self.start(*id);
        }
        for client in 0..self.workload.clients() {
            self.plan(1_500_000 + client as u64 * 1_000, Coming::Free { client });
        }
        self.plan_fault();
        while !self.workload.is_over() && self.now < MAX_WORK && self.broken.is_empty() {
            self.turn();
        }
        self.calm_down(&ids);
        self.settle();
        self.write_everything(&ids);
        self.read_everything(&ids);
        self.settle();
        self.judge()
    }

    // ── Time ────────────────────────────────────────────────────────────────────────────────────────────

    fn plan(&mut self, after: u64, what: Coming) {
        self.next_order += 1;
        self.coming.insert((self.now + after, self.next_order), what);
    }

    /// The next thing happens.
    fn turn(&mut self) {
        let Some(((at, _), what)) = self.coming.pop_first() else {
            // Servers always have a deadline, unless all are down and none is to come back.
            self.now += 1_000_000;
            return;
        };
        self.now = self.now.max(at);
        match what {
            Coming::Request { from, to, id, frame } => self.receive(from, to, id, &frame),
            Coming::Reply { from, to, id, frame } => self.receive_reply(from, to, id, &frame),
            Coming::LinkUp { at, to } => self.link_up(at, to),
            Coming::LinkDown { at, peer, life } => {
                // A new link has taken the place of the old one already.
                if self.servers[&peer].life == life {
                    self.note(|| format!("{at} loses its link to {peer}"));
                    self.step(at, Event::LinkDown { peer });
                }
            }
            Coming::Worked { server, life } => self.worked(server, life),
            Coming::Deadline { server, life } => {
                let state = &mut self.servers.get_mut(&server).filter(|state| state.life == life);
                if let Some(state) = state {
                    state.deadline = u64::MAX;
                    self.step(server, Event::Deadline);
                }
            }
            Coming::Free { client } => {
                if let Some(next) = self.workload.begin(client, self.now) {
                    self.client_does(client, next);
                }
            }
            Coming::GiveUp { call } => {
                if let Some((client, _)) = self.calls.remove(&call) {
                    self.tell(client, Told::Nothing);
                }
            }
            Coming::Fault => {
                self.fault();
                self.plan_fault();
            }
            Coming::Restart { server } => {
                if self.servers[&server].node.is_none() {
                    self.start(server);
                }
            }
            Coming::Heal => {
                self.note(|| "all cuts heal".to_owned());
                self.network.heal();
            }
        }
    }

    fn moment(&self, server: &Server) -> Now {
        Now {
            instant: Instant(self.now - server.born),
            wall: EPOCH + self.now as i64 + server.skew,
        }
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.options.trace {
            let _ = writeln!(self.trace, "{:>11} {}", self.now, text());
        }
    }

    // ── Servers ─────────────────────────────────────────────────────────────────────────────────────────

    fn start(&mut self, id: ServerId) {
        self.lives += 1;
        let life = self.lives;
        let random = self.disks.next();
        let mut config = Config::new(id, "simulated".to_owned(), self.topology.clone());
        config.addresses = self.servers.keys().map(|id| (*id, format!("n{id}"))).collect();
        config.repair_interval = Duration::from_secs(1);
        config.cells = StoreOptions { memory: 200, dead_percent: 50 };
        config.hints = StoreOptions { memory: 200, dead_percent: 50 };
        config.first_request = life << 32;
        config.flaw = self.options.flaw;
        let options = EngineOptions {
            cluster: "simulated".to_owned(),
            server: id,
            fresh_folder: FolderId(random),
            segment_bytes: 1_500,
            sync: SyncPolicy::Always,
        };
        let Some(server) = self.servers.get_mut(&id) else { return };
        let Some(disk) = server.disk.take() else { return };
        server.life = life;
        server.born = self.now;
        let opened = match Engine::open(disk, options) {
            Ok((engine, opened)) => {
                server.engine = Some(engine);
                opened
            }
            Err(error) => {
                self.broken.push(format!("server {id} cannot open its folder: {error}"));
                return;
            }
        };
        if !opened.damaged.is_empty() {
            self.broken.push(format!("server {id} takes a crash for damage: {:?}", opened.damaged));
        }
        let position = opened.cells.position;
        let now = self.moment(&self.servers[&id]);
        let node = Node::new(config, opened, now, random);
        if let Some(server) = self.servers.get_mut(&id) {
            server.node = Some(node);
            server.deadline = u64::MAX;
        }
        self.note(|| format!("{id} starts, life {life}, log position {position}"));
        self.step(id, Event::Deadline);
        let others: Vec<_> = self.servers.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            let (there, back) = (self.disks.between(500, 5_000), self.disks.between(500, 5_000));
            self.plan(there, Coming::LinkUp { at: id, to: other });
            self.plan(back, Coming::LinkUp { at: other, to: id });
        }
    }

    /// A link comes up if both ends are there and nothing is between them; else it is tried again.
    fn link_up(&mut self, at: ServerId, to: ServerId) {
        if self.servers[&at].node.is_none() {
            return;
        }
        let cut = self.network.is_cut(at, to) || self.network.is_cut(to, at);
        let hello: Option<Hello> = self.servers[&to].node.as_ref().map(|node| node.hello(at));
        match hello.filter(|_| !cut) {
            Some(hello) => {
                // Through the wire like everything else.
                let mut out = BytesMut::new();
                let sent = encode_call(Format::NATIVE, Sequence(0), &Call::Hello(hello), &mut out);
                let message = sent.ok().and_then(|_| whole(&out.freeze()));
                let request =
                    message.and_then(|message| decode_call(Format::NATIVE.protocol, message).ok());
                if let Some(Ok(Call::Hello(hello))) = request.map(|request| request.call) {
                    self.note(|| format!("{at} has a link to {to}"));
                    self.step(at, Event::LinkUp { hello });
                } else {
                    self.broken.push("a hello does not come back from its bytes".to_owned());
                }
            }
            None if cut => self.plan(200_000, Coming::LinkUp { at, to }),
            // It will link by itself when it starts.
            None => {}
        }
    }

    fn crash(&mut self, id: ServerId, wipe: bool) {
        let Some(server) = self.servers.get_mut(&id).filter(|server| server.node.is_some()) else {
            return;
        };
        server.node = None;
        let life = server.life;
        let Some(mut engine) = server.engine.take() else { return };
        if server.working {
            // The power goes out somewhere in the middle of the batch.
            let operations = self.disks.below(8);
            engine.disk_mut().cut_power_after(operations);
            engine.execute(server.batch.drain(..), &mut Vec::new());
        }
        server.commands.clear();
        server.batch.clear();
        server.working = false;
        let mut disk = engine.into_disk();
        let disks = &mut self.disks;
        disk.crash(|bound| disks.below(bound));
        server.disk = Some(if wipe { MemoryDisk::new() } else { disk });
        self.summary.crashes += 1;
        self.summary.wipes += u64::from(wipe);
        self.note(|| format!("{id} crashes{}", if wipe { " and loses its disk" } else { "" }));
        let others: Vec<_> = self.servers.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            let after = self.disks.between(100, 20_000);
            self.plan(after, Coming::LinkDown { at: other, peer: id, life });
        }
        let lost: Vec<_> = self
            .calls
            .iter()
            .filter(|(_, (_, server))| *server == id)
            .map(|(call, (client, _))| (*call, *client))
            .collect();
        for (call, client) in lost {
            self.calls.remove(&call);
            if client != NOBODY {
                self.tell(client, Told::Nothing);
            }
        }
        let after = self.disks.between(20_000, 3_000_000);
        self.plan(after, Coming::Restart { server: id });
    }

    fn step(&mut self, id: ServerId, event: Event) {
        let Some(server) = self.servers.get(&id) else { return };
        let now = self.moment(server);
        let Some(node) = self.servers.get_mut(&id).and_then(|server| server.node.as_mut()) else {
            return;
        };
        let mut effects = Vec::new();
        node.step(now, event, &mut effects);
        let deadline = node.next_deadline();
        for effect in effects {
            self.perform(id, effect);
        }
        let Some(server) = self.servers.get_mut(&id) else { return };
        let (life, born) = (server.life, server.born);
        if let Some(at) = deadline.map(|at| (born + at.0).max(self.now))
            && at < server.deadline
        {
            server.deadline = at;
            self.plan(at - self.now, Coming::Deadline { server: id, life });
        }
    }

    fn perform(&mut self, id: ServerId, effect: Effect) {
        match effect {
            Effect::Storage(command) => {
                let Some(server) = self.servers.get_mut(&id) else { return };
                server.commands.push(command);
                self.work(id);
            }
            Effect::Send { to, id: request_id, request } => self.send(id, to, request_id, request),
            Effect::Reply { to, id: request_id, reply } => self.reply(id, to, request_id, reply),
            Effect::Answer { call, result } => {
                self.note(|| format!("{id} answers call {}: {result:?}", call.0));
                match self.calls.remove(&call.0) {
                    Some((NOBODY, _)) => {
                        self.answers.insert(call.0, result);
                    }
                    Some((client, _)) => self.tell(client, Told::Answer(result)),
                    None => {}
                }
            }
            Effect::Notice(notice) => self.note(|| format!("{id} notes: {}", notice.text)),
            Effect::Stop { reason } => {
                self.broken.push(format!("server {id} stops: {reason}"));
            }
        }
    }

    // ── Disks ───────────────────────────────────────────────────────────────────────────────────────────

    /// The disk takes up all that has been ordered, if it is idle.
    fn work(&mut self, id: ServerId) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        if server.working || server.commands.is_empty() {
            return;
        }
        server.working = true;
        server.batch = std::mem::take(&mut server.commands);
        let life = server.life;
        let usual = self.disks.between(80, 400);
        let slow = if self.disks.chance(50) { self.disks.below(30_000) } else { 0 };
        self.plan(usual + slow, Coming::Worked { server: id, life });
    }

    fn worked(&mut self, id: ServerId, life: u64) {
        let Some(server) = self.servers.get_mut(&id).filter(|server| server.life == life) else {
            return;
        };
        let Some(engine) = &mut server.engine else { return };
        let mut completions = Vec::new();
        engine.execute(server.batch.drain(..), &mut completions);
        server.working = false;
        self.summary.batches += 1;
        for completion in completions {
            self.step(id, Event::Completed(completion));
        }
        self.work(id);
    }

    // ── Messages ────────────────────────────────────────────────────────────────────────────────────────

    fn send(&mut self, from: ServerId, to: ServerId, id: RequestId, request: PeerRequest) {
        let key = match &request {
            PeerRequest::Read(Read { key, .. }) | PeerRequest::Store { key, .. } => {
                Some(key.clone())
            }
            PeerRequest::Ping
            | PeerRequest::Page { .. }
            | PeerRequest::Digest { .. }
            | PeerRequest::Join(_) => None,
        };
        if !matches!(request, PeerRequest::Ping) {
            self.note(|| format!("{from} → {to} {request:?}"));
        }
        let mut out = BytesMut::new();
        match encode_call(Format::NATIVE, Sequence(1), &Call::Peer(request), &mut out) {
            Ok(method) => {
                self.about.insert((to, from, id), (method, key));
                let frame = out.freeze();
                for after in self.deliver(from, to) {
                    let frame = frame.clone();
                    self.plan(after, Coming::Request { from, to, id, frame });
                }
            }
            Err(error) => self.broken.push(format!("a request cannot be encoded: {error}")),
        }
    }

    fn reply(&mut self, from: ServerId, to: ServerId, id: RequestId, reply: PeerReply) {
        let Some((method, key)) = self.about.get(&(from, to, id)).cloned() else { return };
        let said = match &reply.answer {
            PeerAnswer::Held { version, .. } => Some(*version),
            PeerAnswer::Stored { current } => Some(*current),
            _ => None,
        };
        if let (Some(version), Some(key)) = (said, &key) {
            self.observer.hear(from, reply.sender.incarnation, key, version);
        }
        if method != Method::PeerPing {
            self.note(|| format!("{from} → {to} {reply:?}"));
        }
        let mut out = BytesMut::new();
        let answer = Answer::Peer(Ok(reply));
        match encode_answer(Format::NATIVE, &method, Sequence(1), &answer, &mut out) {
            Ok(()) => {
                let frame = out.freeze();
                for after in self.deliver(from, to) {
                    let frame = frame.clone();
                    self.plan(after, Coming::Reply { from, to, id, frame });
                }
            }
            Err(error) => self.broken.push(format!("a reply cannot be encoded: {error}")),
        }
    }

    fn deliver(&mut self, from: ServerId, to: ServerId) -> Vec<u64> {
        let deliveries = self.network.deliveries(from, to);
        self.summary.messages += 1;
        self.summary.lost += u64::from(deliveries.is_empty());
        self.summary.twice += u64::from(deliveries.len() > 1);
        deliveries
    }

    fn receive(&mut self, from: ServerId, to: ServerId, id: RequestId, frame: &Bytes) {
        let request = whole(frame)
            .and_then(|message| decode_call(Format::NATIVE.protocol, message).ok())
            .map(|request| request.call);
        match request {
            Some(Ok(Call::Peer(request))) => self.step(to, Event::Request { from, id, request }),
            other => self.broken.push(format!("a request does not come back: {other:?}")),
        }
    }

    fn receive_reply(&mut self, from: ServerId, to: ServerId, id: RequestId, frame: &Bytes) {
        let reply =
            whole(frame).and_then(|message| decode_reply(Format::NATIVE.protocol, message).ok());
        match reply {
            Some((_, Reply::Peer(Ok(reply)))) => self.step(to, Event::Reply { from, id, reply }),
            other => self.broken.push(format!("a reply does not come back: {other:?}")),
        }
    }

    // ── Clients ─────────────────────────────────────────────────────────────────────────────────────────

    fn client_does(&mut self, client: usize, next: Next) {
        match next {
            Next::Think(micros) => self.plan(micros, Coming::Free { client }),
            Next::Send(server, request) => {
                let call = self.call(client, server, request);
                self.plan(CLIENT_PATIENCE, Coming::GiveUp { call });
            }
        }
    }

    fn call(&mut self, client: usize, server: ServerId, request: ClientRequest) -> u64 {
        self.next_call += 1;
        let call = self.next_call;
        self.calls.insert(call, (client, server));
        self.note(|| format!("client {client} asks {server}, call {call}: {request:?}"));
        if self.servers[&server].node.is_some() {
            self.step(server, Event::Call { call: CallId(call), request });
        } else {
            // Nobody listens: the client knows that at once, and does not know more than that.
            self.calls.remove(&call);
            if client != NOBODY {
                self.tell(client, Told::Nothing);
            }
        }
        call
    }

    fn tell(&mut self, client: usize, told: Told) {
        if client == NOBODY {
            return;
        }
        let next = self.workload.told(client, self.now, told);
        self.client_does(client, next);
    }

    // ── Faults ──────────────────────────────────────────────────────────────────────────────────────────

    fn plan_fault(&mut self) {
        if self.numbers.fault_every > 0 && !self.calm {
            let after = self.faults.below(2 * self.numbers.fault_every * 1_000);
            self.plan(after, Coming::Fault);
        }
    }

    fn fault(&mut self) {
        // Let the cluster come to life first.
        if self.calm || self.now < 1_200_000 {
            return;
        }
        let ids: Vec<_> = self.servers.keys().copied().collect();
        let Some(id) = self.faults.pick(&ids).copied() else { return };
        let Numbers { crash, cut, jump, wipe, .. } = self.numbers;
        let dice = self.faults.below(crash + cut + jump + wipe);
        if dice < crash {
            self.crash(id, false);
            // Now and then everyone at once, as when the power fails.
            if self.faults.chance(60) {
                ids.into_iter().for_each(|id| self.crash(id, false));
            }
        } else if dice < crash + cut {
            let shape = self.network.cut(&ids);
            self.summary.cuts += 1;
            self.note(|| shape);
            let after = self.faults.between(50_000, 3_000_000);
            self.plan(after, Coming::Heal);
        } else if dice < crash + cut + jump {
            let most = self.numbers.skew as i64 * 1_000_000;
            let skew = self.faults.below(2 * most as u64 + 1) as i64 - most;
            self.summary.jumps += 1;
            self.note(|| format!("the clock of {id} jumps to {skew} µs off"));
            if let Some(server) = self.servers.get_mut(&id) {
                server.skew = skew;
            }
        } else if !self.wiped {
            // One that votes, so that what it held counts; and no one else may be missing what it held.
            let votes = |server: &Server| server.node.as_ref().is_some_and(Node::is_voting);
            if self.servers.values().all(votes) {
                self.wiped = true;
                self.crash(id, true);
            }
        }
    }

    fn calm_down(&mut self, ids: &[ServerId]) {
        self.note(|| "faults stop".to_owned());
        self.calm = true;
        self.network.calm();
        for id in ids {
            if self.servers[id].node.is_none() {
                self.start(*id);
            }
        }
    }
}

impl Server {
    fn new(skew: i64) -> Server {
        Server {
            life: 0,
            born: 0,
            node: None,
            engine: None,
            disk: Some(MemoryDisk::new()),
            skew,
            commands: Vec::new(),
            batch: Vec::new(),
            working: false,
            deadline: u64::MAX,
        }
    }
}

/// The one message of a frame.
fn whole(frame: &Bytes) -> Option<Bytes> {
    MessageReader::new(Format::NATIVE).next(&mut BytesMut::from(&frame[..])).ok().flatten()
}
