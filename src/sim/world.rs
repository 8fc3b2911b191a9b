//! The world: one queue of things to come, and the servers they happen to.

mod clocks;
mod ending;
mod faults;
mod hangs;
mod rebuilds;
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};

use super::invariants::{Kept, Moment, Observer, Sides, key_of};
use super::network::Network;
use super::profile::{Fault, Numbers};
use super::seed::Random;
use super::shape::Shape;
use super::workload::{Next, Told, Workload};
use super::{Options, Report, Summary};
use crate::model::{
    CallId, ClientRequest, ClientResponse, FolderId, Incarnation, Instant, Key, Now, PeerAnswer,
    PeerReply, PeerRequest, Read, Refusal, RequestId, ServerId, Stamp, Version,
};
use crate::node::{Event, Flaw, Node};
use crate::ring::Topology;
use crate::storage::{Command, Engine, MemoryDisk};
use crate::wire::{
    Answer, Call, Format, MessageReader, Method, Reply, Sequence, decode_call, decode_reply,
    encode_answer, encode_call,
};

/// Where virtual wall clocks begin, in microseconds.
const EPOCH: i64 = 1_700_000_000_000_000;
/// A client gives an answer up after this long, in microseconds.
const CLIENT_PATIENCE: u64 = 4_000_000;
/// How long a cluster may take to settle once faults have stopped.
const SETTLING: u64 = 90_000_000;
/// For so long it must stay settled: writes that were answered go on for a while, and may end in a hint.
const QUIET: u64 = 2_500_000;
/// What a server mends again so long after it was told that it is mended, it mends twice. Sooner, the two may have been under
/// way at once.
const TWICE: u64 = 3_000_000;
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
    /// The power of a server goes out, in the middle of a batch.
    Dies {
        server: ServerId,
        life: u64,
    },
    /// What a server has gathered leaves.
    Flush {
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
    /// A full disk takes bytes again.
    Room {
        server: ServerId,
    },
    /// The disk of a server has hung for a while, in this life of it: who knows?
    Named {
        server: ServerId,
        life: u64,
        batch: u64,
    },
    /// A client's call reaches a server that stood still.
    Call {
        call: u64,
        server: ServerId,
        request: ClientRequest,
    },
}

/// A copy of a folder.
struct Snapshot {
    disk: MemoryDisk,
    position: u64,
    folder: FolderId,
    incarnation: Incarnation,
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
    /// Batches so far.
    batches: u64,
    /// When it took this one up.
    working_since: u64,
    /// Its power goes out when it has the next batch in hand.
    dies_at_work: bool,
    /// It carries out nothing until then.
    hangs_until: u64,
    /// The moment for which a deadline is in the queue.
    deadline: u64,
    /// A flush is in the queue.
    flushing: bool,
    /// It stands still until then.
    paused_until: u64,
}

/// A read at ONE.
struct AtOne {
    began: u64,
    deadline: u64,
    /// Replicas of the range that it goes over, which its coordinator believed alive when it was asked.
    alive: Vec<ServerId>,
}

/// See the module.
pub(super) struct World {
    options: Options,
    numbers: Numbers,
    shape: Shape,
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
    /// Of these the stores that were refused: who asked is told so once it is certain, and no link brings them again after that.
    refused: BTreeSet<(ServerId, ServerId, RequestId)>,
    observer: Observer,
    sides: Sides,
    /// How often anything has changed in who lives and who reaches whom.
    weather: u64,
    summary: Summary,
    /// How often each fault occurs, in relation to the others.
    weights: [u64; Fault::ALL.len()],
    /// Servers of whose logs a bit was turned; one at most.
    flipped: BTreeSet<ServerId>,
    /// Servers read their sealed segments through: half of the clusters in which bits turn.
    scrubs: bool,
    /// The server whose folder is an older copy, and that copy's number, until it has noticed.
    older: Option<(ServerId, FolderId)>,
    /// Older copies, of the folders that there are.
    copies: BTreeMap<ServerId, Snapshot>,
    keeps_copies: bool,
    /// What each server was told that another one durably holds.
    stored: BTreeMap<(ServerId, ServerId, Key), Version>,
    /// Stores that were sent since faults have stopped, and are no hints: from whom, to whom, under which number.
    mending: BTreeMap<(ServerId, ServerId, RequestId), Stamp>,
    /// What whom has told whom in answer to one of these, of which key, and when.
    mended: BTreeMap<(ServerId, ServerId, Key), (Stamp, u64)>,
    /// Cells that were sent to mend something while there were faults.
    sent_early: BTreeSet<(ServerId, ServerId, Key, Stamp)>,
    /// Marks in the place of hints: whose, of whom, from which start on, and when something was missed last.
    marks: BTreeMap<(ServerId, ServerId, Key), u64>,
    /// When whom has begun to compare whom, from which start on.
    compared: BTreeMap<(ServerId, ServerId, Key), u64>,
    /// The last page that was asked for of each copy.
    copied: BTreeMap<rebuilds::Copy, Key>,
    /// Hints that were durable, on disks that there still are.
    hints: Vec<Kept>,
    /// To which life of the other each link leads.
    links: BTreeMap<(ServerId, ServerId), u64>,
    /// The server whose next sync fails.
    sync_failed: Option<ServerId>,
    calm: bool,
    /// Answers to inspections and to the last reads.
    answers: BTreeMap<u64, Result<ClientResponse, crate::model::Failure>>,
    trace: String,
    /// What stops a run: no sense can be made of the rest.
    broken: Vec<String>,
    /// What did not hold when faults had stopped.
    unsettled: Vec<String>,
    /// Reads at ONE under way: what each server's fellows were when it was asked.
    reads_at_one: BTreeMap<u64, AtOne>,
    /// When a link came up or went down last.
    relinked: BTreeMap<(ServerId, ServerId), u64>,
    /// When a cut was made or healed last.
    recut: u64,
    /// When everyone must know whose clock is bad.
    known_at: u64,
    /// Servers that do not know of a neighbour's disk, or of a bad clock.
    unnamed: Vec<String>,
    /// Reads at ONE that failed without need.
    unavailable: Vec<String>,
}

impl World {
    pub(super) fn new(options: Options) -> World {
        let seed = options.seed;
        let shape = Shape::draw(seed, options.fixed);
        let mut numbers = options.profile.numbers();
        numbers.operations *= shape.length();
        let (ids, topology) = (shape.ids(), shape.topology());
        let mut faults = Random::stream(seed, "faults");
        let servers = ids
            .iter()
            .map(|id| {
                let most = numbers.skew as i64 * 1_000_000;
                let skew = faults.below(2 * most as u64 + 1) as i64 - most;
                (*id, Server::new(skew))
            })
            .collect();
        let wanted = |fault: Fault| options.only.is_none_or(|only| only == fault);
        let mut weights = numbers.weights;
        for (fault, weight) in Fault::ALL.into_iter().zip(&mut weights) {
            *weight = if !wanted(fault) {
                0
            } else if options.only.is_some() {
                1
            } else {
                *weight
            };
        }
        let forgets = options.flaw == Some(Flaw::RetryUnderNewVersion);
        // Any other rule left out is to be met without it.
        let reuses = options.flaw.is_none_or(Flaw::is_of_contents);
        World {
            options,
            numbers,
            shape,
            topology,
            now: 0,
            next_order: 0,
            coming: BTreeMap::new(),
            servers,
            network: Network::new(seed, numbers),
            workload: Workload::new(seed, numbers, options.activity, shape, forgets, reuses),
            faults,
            disks: Random::stream(seed, "disks"),
            calls: BTreeMap::new(),
            next_call: 0,
            lives: 0,
            about: BTreeMap::new(),
            refused: BTreeSet::new(),
            observer: Observer::default(),
            sides: Sides::default(),
            weather: 0,
            summary: Summary { runs: 1, ..Summary::default() },
            weights,
            flipped: BTreeSet::new(),
            scrubs: options.seed.is_multiple_of(2)
                && options.profile.faults().contains(&Fault::Flip),
            older: None,
            copies: BTreeMap::new(),
            keeps_copies: weights[Fault::Old as usize] > 0,
            sync_failed: None,
            links: BTreeMap::new(),
            stored: BTreeMap::new(),
            mending: BTreeMap::new(),
            mended: BTreeMap::new(),
            sent_early: BTreeSet::new(),
            marks: BTreeMap::new(),
            compared: BTreeMap::new(),
            hints: Vec::new(),
            calm: false,
            answers: BTreeMap::new(),
            trace: String::new(),
            broken: Vec::new(),
            copied: BTreeMap::new(),
            unsettled: Vec::new(),
            reads_at_one: BTreeMap::new(),
            relinked: BTreeMap::new(),
            recut: 0,
            known_at: 0,
            unnamed: Vec::new(),
            unavailable: Vec::new(),
        }
    }

    /// From the first start to the verdict.
    pub(super) fn run(mut self) -> Report {
        let ids: Vec<_> = self.servers.keys().copied().collect();
        for id in &ids {
            self.start(*id);
        }
        for client in 0..self.workload.clients() {
            self.plan(self.comes_to_life() + client as u64 * 1_000, Coming::Free { client });
        }
        self.plan_fault();
        let most = MAX_WORK * self.shape.length() as u64;
        while !self.workload.is_over() && self.now < most && self.broken.is_empty() {
            self.turn();
        }
        self.calm_down(&ids);
        self.settle_alone();
        self.write_everything(&ids);
        self.read_everything(&ids);
        if let Err(why) = self.settle()
            && self.broken.is_empty()
        {
            self.unsettled.push(format!("settled: not at the end: {why}"));
        }
        self.look_at_clocks(&ids);
        self.judge()
    }

    /// Until when servers have come to vote for the first time: with one copy there is nobody to ask, and they wait a while.
    fn comes_to_life(&self) -> u64 {
        let alone = self.topology.ranges().iter().any(|range| range.replicas.len() == 1);
        if alone { 8_000_000 } else { 1_500_000 }
    }

    /// Copies of the smallest range that the server keeps.
    fn fewest_copies(&self, server: ServerId) -> usize {
        let ranges = self.topology.ranges_of(server);
        ranges.map(|range| range.replicas.len()).min().unwrap_or(0)
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
        if let Some(until) = self.stands_still(&what) {
            // Behind what else waits for it, as it came.
            self.plan(until - self.now, what);
            return;
        }
        match what {
            Coming::Request { from, to, id, frame } => self.receive(from, to, id, &frame),
            Coming::Reply { from, to, id, frame } => self.receive_reply(from, to, id, &frame),
            Coming::LinkUp { at, to } => self.link_up(at, to),
            Coming::LinkDown { at, peer, life } => {
                // Unless a new link has taken the place of that one already.
                if self.links.get(&(at, peer)).is_none_or(|linked| *linked == life) {
                    self.links.remove(&(at, peer));
                    self.relinked.insert((at, peer), self.now);
                    self.weather += 1;
                    self.note(|| format!("{at} loses its link to {peer}"));
                    self.step(at, Event::LinkDown { peer });
                }
            }
            Coming::Worked { server, life } => self.worked(server, life),
            Coming::Flush { server, life } => {
                let state = &mut self.servers.get_mut(&server).filter(|state| state.life == life);
                if let Some(state) = state {
                    state.flushing = false;
                    self.step(server, Event::Flush);
                }
            }
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
            Coming::Dies { server, life } => self.die(server, life),
            Coming::Room { server } => self.make_room(server),
            Coming::Named { server, life, batch } => self.is_named(server, life, batch),
            Coming::Call { call, server, request } => self.reach(call, server, request),
            Coming::Heal => {
                self.note(|| "all cuts heal".to_owned());
                self.network.heal();
                self.weather += 1;
                self.recut = self.now;
            }
        }
    }

    /// Until when the server stands still to which this would happen.
    fn stands_still(&self, what: &Coming) -> Option<u64> {
        let server = match what {
            Coming::Request { to, .. } | Coming::Reply { to, .. } => to,
            Coming::LinkUp { at, .. } | Coming::LinkDown { at, .. } => at,
            Coming::Worked { server, .. }
            | Coming::Deadline { server, .. }
            | Coming::Flush { server, .. }
            | Coming::Call { server, .. } => server,
            Coming::Free { .. }
            | Coming::GiveUp { .. }
            | Coming::Fault
            | Coming::Restart { .. }
            | Coming::Dies { .. }
            | Coming::Heal
            | Coming::Named { .. }
            | Coming::Room { .. } => return None,
        };
        let until = self.servers.get(server)?.paused_until;
        (until > self.now).then_some(until)
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

    // ── Messages ────────────────────────────────────────────────────────────────────────────────────────

    fn send(&mut self, from: ServerId, to: ServerId, id: RequestId, request: PeerRequest) {
        let key = match &request {
            PeerRequest::Read(Read { key, .. }) | PeerRequest::Store { key, .. } => {
                Some(key.clone())
            }
            PeerRequest::Ping
            | PeerRequest::Page { .. }
            | PeerRequest::Digest { .. }
            | PeerRequest::Clock { .. }
            | PeerRequest::Join(_) => None,
        };
        if !matches!(request, PeerRequest::Ping) {
            self.note(|| format!("{from} → {to} {request:?}"));
        }
        if let PeerRequest::Digest { start, .. } = &request {
            self.compared.insert((from, to, start.clone()), self.now);
        }
        if let PeerRequest::Page { .. } = request {
            self.watch_rebuild(from, to);
        }
        if let PeerRequest::Store { key, cell, .. } = &request {
            self.watch_mending(from, to, id, key, Stamp::of(cell));
        }
        let mut out = BytesMut::new();
        match encode_call(Format::NATIVE, Sequence(1), &Call::Peer(request), &mut out) {
            Ok(method) => {
                self.about.insert((to, from, id), (method.clone(), key));
                self.refused.remove(&(to, from, id));
                let frame = out.freeze();
                let late = if method == Method::PeerStore { self.numbers.late_stores } else { 0 };
                for after in self.deliver(from, to, late) {
                    let frame = frame.clone();
                    self.plan(after, Coming::Request { from, to, id, frame });
                }
            }
            Err(error) => self.broken.push(format!("a request cannot be encoded: {error}")),
        }
    }

    fn reply(&mut self, from: ServerId, to: ServerId, id: RequestId, reply: PeerReply) {
        let Some((method, key)) = self.about.get(&(from, to, id)).cloned() else { return };
        if reply.answer == PeerAnswer::Refused(Refusal::Storage) {
            self.refused.insert((from, to, id));
        }
        let said = match &reply.answer {
            PeerAnswer::Held { version, checksum, .. } => {
                Some(Stamp { version: *version, checksum: *checksum })
            }
            PeerAnswer::Stored { current, other } => {
                Some(Stamp { version: *current, checksum: *other })
            }
            _ => None,
        };
        if let (Some(stamp), Some(key), true) = (said, &key, reply.sender.voting) {
            self.observer.hear(from, reply.sender.incarnation, key, stamp);
        }
        if method != Method::PeerPing {
            self.note(|| format!("{from} → {to} {reply:?}"));
        }
        let mut out = BytesMut::new();
        let answer = Answer::Peer(Ok(reply));
        match encode_answer(Format::NATIVE, &method, Sequence(1), &answer, &mut out) {
            Ok(()) => {
                let frame = out.freeze();
                // An answer that is late is one of before.
                let late = if method == Method::PeerClock { self.numbers.late_clocks } else { 0 };
                for after in self.deliver(from, to, late) {
                    let frame = frame.clone();
                    self.plan(after, Coming::Reply { from, to, id, frame });
                }
            }
            Err(error) => self.broken.push(format!("a reply cannot be encoded: {error}")),
        }
    }

    /// Once faults have stopped, nobody mends what it has mended already. Hints, and what was sent before that, may be sent again: the
    /// answer may have been lost.
    fn watch_mending(
        &mut self,
        from: ServerId,
        to: ServerId,
        id: RequestId,
        key: &Key,
        stamp: Stamp,
    ) {
        let version = stamp.version;
        let is_this = |hint: &Kept| {
            (hint.holder, hint.target, hint.version) == (from, to, version) && hint.place == *key
        };
        let sent = (from, to, key.clone(), stamp);
        if !self.calm {
            self.sent_early.insert(sent);
            return;
        }
        if self.hints.iter().any(is_this) || self.sent_early.contains(&sent) {
            return;
        }
        self.mending.insert((from, to, id), stamp);
        if let Some((held, at)) = self.mended.get(&(to, from, key.clone())).copied()
            && held >= stamp
            && self.now > at + TWICE
            && self.unsettled.is_empty()
        {
            self.unsettled.push(format!(
                "settled: server {from} mends {stamp:?} of key {key} at server {to}, which said {} ms ago \
                 that it held {held:?}",
                (self.now - at) / 1_000
            ));
        }
    }

    fn deliver(&mut self, from: ServerId, to: ServerId, late: u64) -> Vec<u64> {
        let deliveries = self.network.deliveries(from, to, late);
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
            Some(Ok(Call::Peer(_))) if self.refused.contains(&(to, from, id)) => {}
            Some(Ok(Call::Peer(request))) => self.step(to, Event::Request { from, id, request }),
            other => self.broken.push(format!("a request does not come back: {other:?}")),
        }
    }

    fn receive_reply(&mut self, from: ServerId, to: ServerId, id: RequestId, frame: &Bytes) {
        let reply =
            whole(frame).and_then(|message| decode_reply(Format::NATIVE.protocol, message).ok());
        match reply {
            Some((_, Reply::Peer(Ok(reply)))) => {
                if let (PeerAnswer::Stored { current, other }, Some((_, Some(key)))) =
                    (&reply.answer, self.about.get(&(from, to, id)))
                {
                    let told = self.stored.entry((to, from, key.clone())).or_default();
                    *told = (*told).max(*current);
                    if let Some(sent) = self.mending.remove(&(to, from, id)) {
                        let is_sent = *current == sent.version && other.is_none();
                        let held = Stamp { version: *current, checksum: *other };
                        let told = (if is_sent { sent } else { held }, self.now);
                        let mended = self.mended.entry((from, to, key.clone())).or_insert(told);
                        *mended = if told.0 > mended.0 { told } else { *mended };
                    }
                }
                self.step(to, Event::Reply { from, id, reply });
            }
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
            Next::SendLater(after, server, request) => {
                self.next_call += 1;
                let call = self.next_call;
                self.calls.insert(call, (client, server));
                self.note(|| {
                    format!("client {client} will ask {server}, call {call}: {request:?}")
                });
                self.plan(after, Coming::Call { call, server, request });
                self.plan(after + CLIENT_PATIENCE, Coming::GiveUp { call });
            }
        }
    }

    fn call(&mut self, client: usize, server: ServerId, request: ClientRequest) -> u64 {
        self.next_call += 1;
        let call = self.next_call;
        self.calls.insert(call, (client, server));
        self.note(|| format!("client {client} asks {server}, call {call}: {request:?}"));
        let standing = self.servers[&server].paused_until.saturating_sub(self.now);
        if standing > 0 && self.servers[&server].node.is_some() {
            self.plan(standing, Coming::Call { call, server, request });
        } else {
            self.reach(call, server, request);
        }
        call
    }

    fn reach(&mut self, call: u64, server: ServerId, request: ClientRequest) {
        let Some((client, _)) = self.calls.get(&call).copied() else { return };
        if self.servers[&server].node.is_some() {
            self.watch_read(call, server, &request);
            if let Some(key) = key_of(&request).filter(|_| client != NOBODY) {
                let coordinator = (server, self.servers[&server].life);
                let before = self.stands(server, key);
                self.sides.begin(call, &request, coordinator, self.now, before);
            }
            self.step(server, Event::Call { call: CallId(call), request });
        } else {
            // Nobody listens: the client knows that at once, and does not know more than that.
            self.calls.remove(&call);
            if client != NOBODY {
                self.tell(client, Told::Nothing);
            }
        }
    }

    /// How things stand around a coordinator and a key.
    pub(super) fn stands(&self, coordinator: ServerId, key: &Key) -> Moment {
        let is_there = |server: &ServerId| {
            let state = &self.servers[server];
            let votes = state.node.as_ref().is_some_and(Node::is_voting);
            let cut = self.network.is_cut(coordinator, *server)
                || self.network.is_cut(*server, coordinator);
            votes && state.paused_until <= self.now && !cut
        };
        let replicas = self.replicas(key);
        let side: BTreeSet<_> = replicas.iter().copied().filter(is_there).collect();
        let state = &self.servers[&coordinator];
        let now = self.clock_of(coordinator);
        let is_known = state.node.as_ref().is_some_and(|node| {
            replicas.iter().all(|server| node.counts_on(*server, now) == side.contains(server))
        });
        Moment { weather: self.weather, side, is_known }
    }

    /// What a server's monotonic clock says: it began with its process.
    fn clock_of(&self, server: ServerId) -> Instant {
        Instant(self.now - self.servers[&server].born)
    }

    fn tell(&mut self, client: usize, told: Told) {
        if client == NOBODY {
            return;
        }
        let next = self.workload.told(client, self.now, told);
        self.client_does(client, next);
    }
}

/// The one message of a frame.
fn whole(frame: &Bytes) -> Option<Bytes> {
    MessageReader::new(Format::NATIVE).next(&mut BytesMut::from(&frame[..])).ok().flatten()
}
