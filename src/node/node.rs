//! The node: routes, owns the parts, and carries news from one to the next. Nothing clever.

mod healing;
mod standing;
mod views;

use std::time::Duration;

use super::clocks::Clocks;
use super::coordinator::{Coordinator, Missed, ScanPart};
use super::handoff::Handoff;
use super::heal::Heal;
use super::health::Health;
use super::identity::{IdentityKeeper, OnSaved};
use super::membership::join::{Decision, Join};
use super::membership::{Membership, NO_SESSION, RosterAt, ping, remember};
use super::repair::{Pair, Repair};
use super::replica::{Replica, Report, cell_of};
use super::scrub::Scrub;
use super::turn::{Internal, Origin, Outbox, ReplyTo, Turn};
use super::{Config, Effect, Event, Flaw, Urgency};
use crate::model::{
    CallId, ClientRequest, ClientResponse, FAR_FUTURE, Failure, FolderId, Hello, HybridClock,
    InspectSource, Instant, Invalid, Join as JoinRequest, Key, Now, PeerAnswer, PeerReply,
    PeerRequest, RequestId, ServerId,
};
use crate::storage::{Completion, Log, Opened, Store};

/// Log positions of peers are saved this often, if they have changed: an older copy of a folder is noticed by
/// them.
const SAVE_POSITIONS: Duration = Duration::from_secs(5);

/// The protocol of one server: events in, effects out.
///
/// The driver's part of the contract:
/// - `now.instant` never goes back within a node's life ([`Node::step`] asserts it); `now.wall` may do anything;
/// - effects are performed in order; every [`Effect::Storage`] is completed by an event, unless the storage has
///   broken; sends, replies and answers may be lost;
/// - where [`Node::has_gathered`] says so, an [`Event::Flush`] follows once everything that came in is handed over;
/// - after [`Effect::Stop`] the node is not stepped again.
#[derive(Debug)]
pub struct Node {
    config: Config,
    now: Now,
    random: u64,
    clock: HybridClock,
    keeper: IdentityKeeper,
    health: Health,
    clocks: Clocks,
    /// While this server does not vote.
    join: Option<Join>,
    membership: Membership,
    replica: Replica,
    coordinator: Coordinator,
    handoff: Handoff,
    repair: Repair,
    heal: Heal,
    scrub: Scrub,
    out: Outbox,
    /// The log's highest durable position when this process began.
    began_at: u64,
    /// Peers' positions have changed since they were saved; look again then.
    positions_changed: bool,
    save_positions_at: Instant,
    stopped: bool,
}

/// Lends the parts what they may see for one turn. A macro, since a method would borrow the whole node.
macro_rules! turn {
    ($node:ident, |$turn:ident| $body:expr) => {{
        let roster = RosterAt { membership: &$node.membership, now: $node.now.instant };
        let recorded = $node.join.as_ref().is_none_or(Join::is_recorded);
        let $turn = &mut Turn {
            now: $node.now,
            config: &$node.config,
            roster: &roster,
            clock: &mut $node.clock,
            life: recorded.then_some($node.keeper.identity.incarnation),
            out: &mut $node.out,
        };
        $body
    }};
}

impl Node {
    /// A node over what its data folder held. `seed` feeds every random choice it makes. Effects of the start come
    /// with the first [`Node::step`].
    pub fn new(config: Config, opened: Opened, now: Now, seed: u64) -> Node {
        let Opened { identity, cells, hints, damaged } = opened;
        let membership = Membership::new(&config, &identity, now.instant);
        let mut clock = HybridClock::new(if config.flaw == Some(Flaw::ForgetCeiling) {
            0
        } else {
            identity.ceiling
        });
        if config.flaw != Some(Flaw::IssuerVouchesBySeen) {
            // What it has issued may be in no log. It vouches for all up to its ceiling, and no more, for it vouches for what is at
            // most that far ahead of what it has seen; and nobody's clock is hurried on to the ceiling.
            clock.absorb(identity.ceiling.saturating_sub(FAR_FUTURE.as_micros() as i64));
        }
        let mut out = Outbox::new(config.server, config.first_request);
        let cells = Store::new(Log::Cells, config.cells, cells);
        let hints = Store::new(Log::Hints, config.hints, hints);
        let replica = {
            let roster = RosterAt { membership: &membership, now: now.instant };
            let (config, clock, out) = (&config, &mut clock, &mut out);
            let turn = &mut Turn { now, config, roster: &roster, clock, life: None, out };
            Replica::new(cells, turn)
        };
        let join = (!identity.voting).then(|| Join::new(&identity, now.instant));
        // Servers that start together do not compare together.
        let first_round = now.instant + config.repair_interval.mul_f64(fraction(seed));
        let began_at = replica.position();
        let scrub = Scrub::new(&config, identity.scrub, now.instant);
        let mut node = Node {
            now,
            random: seed,
            clock,
            keeper: IdentityKeeper::new(identity),
            health: Health::new(now),
            clocks: Clocks::new(config.server),
            join,
            membership,
            replica,
            coordinator: Coordinator::default(),
            handoff: Handoff::new(hints),
            repair: Repair::new(first_round),
            heal: Heal::default(),
            scrub,
            out,
            began_at,
            positions_changed: false,
            save_positions_at: now.instant + SAVE_POSITIONS,
            stopped: false,
            config,
        };
        let lost: Vec<_> = damaged.iter().filter(|name| name.starts_with("cells")).collect();
        if !lost.is_empty() {
            node.rebuild(&format!("its log was damaged ({lost:?} set aside)"));
        }
        node.begin_healing();
        node
    }

    /// Takes in one thing that happened; appends what is to be done, in order.
    pub fn step(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        assert!(now.instant >= self.now.instant, "time does not go back within a node's life");
        if self.stopped {
            return;
        }
        self.now = now;
        if self.health.on_step(now) {
            self.membership.on_standstill(now.instant);
        }
        match event {
            Event::Call { call, request } => self.on_call(call, request),
            Event::Request { from, id, request } => {
                self.on_request(ReplyTo::Peer(from, id), from, request);
            }
            Event::Reply { from, id, reply } => {
                self.membership.on_heard(from, now.instant);
                self.on_reply(from, id, reply);
            }
            Event::LinkUp { hello } => self.on_link_up(&hello),
            Event::LinkDown { peer } => self.on_link_down(peer),
            Event::Completed(completion) => self.on_completion(completion),
            Event::Flush => self.out.ask_clocks(now.instant, &self.config),
            Event::Deadline => {}
        }
        self.run_internal();
        if self.next_deadline().is_some_and(|at| at <= now.instant) {
            self.on_time();
            self.run_internal();
        }
        self.look_at_disk();
        let first = effects.len();
        self.out.take_effects(effects);
        for effect in &effects[first..] {
            match effect {
                Effect::Send { to, .. } => self.membership.on_asked(*to, now.instant),
                Effect::Storage(command) => self.health.on_ordered(now, command.bytes()),
                _ => {}
            }
        }
    }

    /// When to call `step` with [`Event::Deadline`] if nothing else happens first.
    pub fn next_deadline(&self) -> Option<Instant> {
        [
            Some(self.membership.next_deadline()),
            self.coordinator.next_deadline(&self.config),
            self.handoff.next_deadline(),
            self.repair.next_deadline(),
            self.heal.next_deadline(),
            self.scrub.next_deadline(),
            self.join.as_ref().map(Join::next_deadline),
            self.keeper.next_deadline(),
            self.health.next_deadline(),
            Some(self.save_positions_at),
            self.out.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Something was gathered that [`Event::Flush`] would let leave.
    pub fn has_gathered(&self) -> bool {
        self.out.has_gathered()
    }

    /// How this node introduces itself to `peer`; the driver adds the secret.
    pub fn hello(&self, peer: ServerId) -> Hello {
        let identity = &self.keeper.identity;
        Hello {
            cluster: self.config.cluster.clone(),
            topology: self.config.topology.fingerprint(),
            server: self.config.server,
            incarnation: identity.incarnation,
            folder: identity.folder,
            voting: self.is_voting(),
            position: self.began_at,
            session: self.config.first_request,
            remembers: identity.peers.get(&peer).copied(),
            secret: None,
            proof: None,
        }
    }

    /// The servers it wants links to, always.
    pub fn peers(&self) -> Vec<ServerId> {
        self.membership.servers().collect()
    }

    /// Whether it counts towards majorities.
    pub fn is_voting(&self) -> bool {
        self.join.is_none()
    }

    /// What a server without a vote copies: see [`Join::copying`].
    pub(crate) fn copying(&self) -> Option<(Key, ServerId, Key)> {
        self.join.as_ref()?.copying()
    }

    /// Its data folder; another one once it has noticed that it lost cells.
    pub fn folder(&self) -> FolderId {
        self.keeper.identity.folder
    }

    /// Operations, requests and disk reads that are not over: next to nothing when all is quiet.
    pub fn in_hand(&self) -> usize {
        self.coordinator.in_hand() + self.out.in_hand() + self.replica.in_hand()
    }

    /// Servers that are to be compared with others, the ranges' starts, and when a hint did not fit last.
    pub(crate) fn marks(&self) -> Vec<(ServerId, Key, Instant)> {
        self.handoff
            .all_marks()
            .map(|(target, start, missed)| (target, start.clone(), missed))
            .collect()
    }

    /// Whether it would count on that server now: it believes it up, and voting.
    pub(crate) fn counts_on(&self, server: ServerId, now: Instant) -> bool {
        super::turn::Roster::alive(&RosterAt { membership: &self.membership, now }, server)
    }

    /// Whether this segment of cells counts.
    pub(crate) fn has_segment(&self, segment: u32) -> bool {
        self.replica.has_segment(segment)
    }

    /// What was done so often since it started, by the name that it has in the status.
    pub(crate) fn counted(&self, what: &str) -> u64 {
        self.out.counters().get(what).copied().unwrap_or(0)
    }

    /// What it was told once.
    pub fn config(&self) -> &Config {
        &self.config
    }

    // ── Clients ─────────────────────────────────────────────────────────────────────────────────────────

    fn on_call(&mut self, call: CallId, request: ClientRequest) {
        let server = self.config.server;
        let is_work = match &request {
            ClientRequest::Put(_)
            | ClientRequest::Prepare { .. }
            | ClientRequest::Get { .. }
            | ClientRequest::Scan { .. } => true,
            ClientRequest::Status | ClientRequest::Inspect { .. } | ClientRequest::Topology => {
                false
            }
        };
        if is_work && self.coordinator.calls() >= self.config.max_calls {
            self.out.count("calls_overloaded");
            self.out.answer(call, Err(Failure::Overloaded { server }));
            return;
        }
        let deadline =
            |timeout: Option<Duration>| self.now.instant + timeout.unwrap_or(self.config.timeout);
        match request {
            ClientRequest::Put(put) => {
                self.extend_ceiling();
                let missed = turn!(self, |turn| self.coordinator.put(turn, call, put));
                self.keep_hints(missed);
                self.extend_ceiling_for_waiting();
            }
            ClientRequest::Prepare { key, level, timeout, after } => {
                let deadline = deadline(timeout);
                self.extend_ceiling();
                turn!(self, |turn| {
                    self.coordinator.prepare(turn, call, key, level, deadline, after);
                });
                self.extend_ceiling_for_waiting();
            }
            ClientRequest::Get { key, level, timeout } => {
                let deadline = deadline(timeout);
                turn!(self, |turn| {
                    let topology = &turn.config.topology;
                    let owed =
                        |place: &_, replicas: &[_]| self.handoff.owed(topology, place, replicas);
                    self.coordinator.get(turn, call, key, level, deadline, owed);
                });
            }
            ClientRequest::Scan { from, to, limit, level, timeout, any_order } => {
                let deadline = deadline(timeout);
                turn!(self, |turn| {
                    let coordinator = &mut self.coordinator;
                    coordinator.scan(turn, call, from, to, limit, level, deadline, any_order);
                });
            }
            ClientRequest::Status => {
                let status = Box::new(self.status());
                self.out.answer(call, Ok(ClientResponse::Status(status)));
            }
            ClientRequest::Inspect { source: InspectSource::Cells, from, limit } => {
                let report = turn!(self, |turn| self.replica.inspect(turn, call.0, from, limit));
                if let Some(report) = report {
                    self.on_report(report);
                }
            }
            ClientRequest::Inspect { source: InspectSource::HintsFor(target), from, limit } => {
                // For itself a server keeps none.
                let mut servers = self.membership.servers().chain([self.config.server]);
                let result = if servers.any(|server| server == target) {
                    let (entries, truncated) = self.handoff.inspect(target, &from, limit);
                    Ok(self.inspected(entries, truncated))
                } else {
                    Err(Failure::Invalid(Invalid::NoSuchServer(target)))
                };
                self.out.answer(call, result);
            }
            ClientRequest::Topology => {
                let view = Box::new(self.topology());
                self.out.answer(call, Ok(ClientResponse::Topology(view)));
            }
        }
    }

    // ── Peers ───────────────────────────────────────────────────────────────────────────────────────────

    fn on_request(&mut self, to: ReplyTo, from: ServerId, request: PeerRequest) {
        if let PeerRequest::Join(join) = request {
            self.on_join_request(to, from, join);
            return;
        }
        let sender = self.membership.sender(self.replica.position());
        turn!(self, |turn| self.replica.on_request(turn, &sender, to, request));
    }

    /// A peer with a new folder asks what is remembered of it, or has its new incarnation recorded.
    fn on_join_request(&mut self, to: ReplyTo, from: ServerId, join: JoinRequest) {
        let peers = &mut self.keeper.identity.peers;
        let JoinRequest { incarnation, folder } = join;
        remember(peers, from, incarnation, folder, NO_SESSION, 0);
        let remembered = peers.get(&from).copied();
        let is_recorded = remembered.is_some_and(|remembered| {
            (remembered.incarnation, remembered.folder) == (incarnation, folder)
        });
        if is_recorded {
            self.membership.learn(from, incarnation);
            self.keeper.save(OnSaved::Recorded(from, to), &mut self.out);
            return;
        }
        let sender = self.membership.sender(self.replica.position());
        let answer = PeerAnswer::Joined { recorded: false, remembered };
        self.out.reply(to, PeerReply { sender, answer });
    }

    fn on_reply(&mut self, from: ServerId, id: RequestId, reply: PeerReply) {
        if from != self.config.server {
            self.membership.on_sender(from, &reply.sender, self.now);
            self.note_position(from, &reply);
            self.check_own_life(from, &reply);
        }
        let Some(origin) = self.out.close(from, id) else { return };
        match origin {
            Origin::Operation(operation) => {
                let missed = turn!(self, |turn| {
                    self.coordinator.on_reply(turn, operation, from, &reply)
                });
                self.keep_hints(missed);
                self.extend_ceiling_for_waiting();
            }
            Origin::Clock(operations) => {
                for operation in operations {
                    let missed = turn!(self, |turn| {
                        self.coordinator.on_reply(turn, operation, from, &reply)
                    });
                    self.keep_hints(missed);
                }
                self.extend_ceiling_for_waiting();
            }
            Origin::ScanPage(operation, page) => {
                let part = ScanPart::Page(page);
                turn!(self, |turn| {
                    self.coordinator.on_scan_reply(turn, operation, from, &part, &reply);
                });
            }
            Origin::ScanBack(operation, key) => {
                let part = ScanPart::Back(key);
                turn!(self, |turn| {
                    self.coordinator.on_scan_reply(turn, operation, from, &part, &reply);
                });
            }
            Origin::Handoff(place) => {
                turn!(self, |turn| self.handoff.on_reply(turn, from, &place, &reply));
            }
            Origin::Repair(step) => {
                let done = turn!(self, |turn| self.repair.on_reply(turn, from, &step, reply));
                if let Some((pair, began)) = done {
                    self.on_compared(&pair, began);
                }
            }
            Origin::Heal(place) => self.on_heal_reply(from, &place, reply),
            Origin::Join(step) => {
                let Some(join) = &mut self.join else { return };
                let identity = &self.keeper.identity;
                // Not the macro: it would borrow `join` twice.
                let roster = RosterAt { membership: &self.membership, now: self.now.instant };
                let life = None;
                let (now, config, clock, out) =
                    (self.now, &self.config, &mut self.clock, &mut self.out);
                let turn = &mut Turn { now, config, roster: &roster, clock, life, out };
                let decision = join.on_reply(turn, identity, from, &step, reply);
                self.decide(decision);
            }
            Origin::Ping(sent) => {
                if let PeerAnswer::Pong { wall: Some(wall) } = reply.answer {
                    self.clocks.on_pong(from, sent, wall, self.now.instant);
                }
            }
            Origin::Nobody => {}
        }
    }

    /// Does a peer know of a later life of this server? Then this one's answers count nowhere.
    fn check_own_life(&mut self, from: ServerId, reply: &PeerReply) {
        let (me, own) = (self.config.server, self.keeper.identity.incarnation);
        let later = reply.sender.known.iter().any(|(server, life)| *server == me && *life > own);
        if later && self.join.is_none() {
            self.rebuild(&format!("server {from} knows of a later life of this server"));
        }
    }

    /// A peer's highest durable log position, by its own word: should it come back with less, it has lost cells.
    fn note_position(&mut self, from: ServerId, reply: &PeerReply) {
        if let Some(remembered) = self.keeper.identity.peers.get_mut(&from)
            && remembered.incarnation == reply.sender.incarnation
            // Answers of its former processes may be late. In a life that was only just recorded there are none.
            && [NO_SESSION, reply.sender.session].contains(&remembered.session)
            && remembered.position < reply.sender.position
        {
            remembered.note(reply.sender.session, reply.sender.position);
            self.positions_changed = true;
        }
    }

    fn on_link_up(&mut self, hello: &Hello) {
        let peer = hello.server;
        self.membership.on_link_up(hello, self.now.instant);
        let peers = &mut self.keeper.identity.peers;
        let Hello { incarnation, folder, session, position, .. } = *hello;
        if remember(peers, peer, incarnation, folder, session, position) {
            self.keeper.save(OnSaved::Nothing, &mut self.out);
        }
        let is_older = self.keeper.identity.peers.get(&peer).is_some_and(|remembered| {
            (remembered.incarnation, remembered.folder) == (incarnation, folder)
                && remembered.before(session) > position
        });
        if is_older && hello.voting {
            // Its folder is an older copy. It will find out by our own hello, and come back in another life; until
            // then nothing that it says counts.
            self.membership.learn(peer, incarnation.next());
        }
        self.check_own_past(hello);
        turn!(self, |turn| {
            self.handoff.on_link_up(turn, peer);
            self.repair.on_link_up(turn, peer);
        });
        self.heal.on_link_up(self.now.instant);
        self.request_marked(peer);
        if let Some(join) = &mut self.join {
            join.on_link_up(self.now.instant);
        }
    }

    /// Does a peer remember more of this server than it does itself?
    fn check_own_past(&mut self, hello: &Hello) {
        let Some(remembered) = hello.remembers else { return };
        if self.join.is_some() {
            return;
        }
        let identity = &self.keeper.identity;
        let peer = hello.server;
        let own = (identity.incarnation, identity.folder);
        let theirs = (remembered.incarnation, remembered.folder);
        if theirs.0 > own.0 || theirs.0 == own.0 && theirs.1 != own.1 {
            self.rebuild(&format!("server {peer} knows a later data folder of this server"));
        } else if theirs == own && remembered.before(self.config.first_request) > self.began_at {
            let (now, before) = (self.began_at, remembered.before(self.config.first_request));
            self.rebuild(&format!(
                "its data folder is an older copy: it ended at log position {now}, but server {peer} \
                 was told {before}"
            ));
        }
    }

    fn on_link_down(&mut self, peer: ServerId) {
        self.membership.on_link_down(peer);
        for origin in self.out.close_all(peer) {
            match origin {
                Origin::Operation(operation)
                | Origin::ScanPage(operation, _)
                | Origin::ScanBack(operation, _) => {
                    let missed =
                        turn!(self, |turn| self.coordinator.on_missed(turn, operation, peer));
                    self.keep_hints(missed);
                }
                Origin::Clock(operations) => {
                    for operation in operations {
                        let missed =
                            turn!(self, |turn| self.coordinator.on_missed(turn, operation, peer));
                        self.keep_hints(missed);
                    }
                }
                Origin::Handoff(place) => {
                    turn!(self, |turn| self.handoff.on_missed(turn, peer, &place));
                }
                Origin::Repair(step) => {
                    turn!(self, |turn| self.repair.on_missed(turn, &step));
                }
                Origin::Heal(place) => self.heal.on_missed(peer, &place),
                // A joining server asks again by itself.
                Origin::Join(_) | Origin::Ping(_) | Origin::Nobody => {}
            }
        }
    }

    /// What the parts have asked of this very server, and what it has answered them.
    fn run_internal(&mut self) {
        while let Some(internal) = self.out.next_internal() {
            let me = self.config.server;
            match internal {
                Internal::Request(id, request) => self.on_request(ReplyTo::Local(id), me, request),
                Internal::Reply(id, reply) => self.on_reply(me, id, reply),
            }
        }
    }

    // ── Storage ─────────────────────────────────────────────────────────────────────────────────────────

    fn on_completion(&mut self, completion: Completion) {
        self.health.on_completed(self.now, &completion);
        match completion {
            Completion::Broken { error, file } => {
                self.stopped = true;
                self.out.stop(format!("the storage can no longer be trusted: {file}: {error}"));
            }
            Completion::IdentityUnsaved { ticket, .. } => {
                self.keeper.on_unsaved(ticket, self.now.instant);
            }
            Completion::IdentitySaved { ticket } => {
                for then in self.keeper.on_saved(ticket, &mut self.out) {
                    self.on_saved(then);
                }
            }
            Completion::Appended { log: Log::Hints, .. }
            | Completion::Loaded { log: Log::Hints, .. }
            | Completion::Surveyed { log: Log::Hints, .. }
            | Completion::Removed { log: Log::Hints, .. } => {
                turn!(self, |turn| self.handoff.on_completion(turn, completion));
            }
            Completion::Appended { log: Log::Cells, .. }
            | Completion::Loaded { log: Log::Cells, .. }
            | Completion::Surveyed { log: Log::Cells, .. }
            | Completion::Removed { log: Log::Cells, .. } => {
                let membership = &self.membership;
                let sender = |position| membership.sender(position);
                let reports =
                    turn!(self, |turn| self.replica.on_completion(turn, &sender, completion));
                reports.into_iter().for_each(|report| self.on_report(report));
            }
        }
    }

    fn on_saved(&mut self, then: OnSaved) {
        match then {
            OnSaved::Ceiling(ceiling) => {
                self.clock.raise(ceiling);
                let missed = turn!(self, |turn| self.coordinator.on_clock(turn));
                self.keep_hints(missed);
                self.extend_ceiling_for_waiting();
            }
            OnSaved::Recorded(peer, to) => {
                let sender = self.membership.sender(self.replica.position());
                let remembered = self.keeper.identity.peers.get(&peer).copied();
                let answer = PeerAnswer::Joined { recorded: true, remembered };
                self.out.reply(to, PeerReply { sender, answer });
            }
            OnSaved::Joining => self.on_join_saved(),
            OnSaved::Nothing => {}
        }
    }

    // ── Hints ───────────────────────────────────────────────────────────────────────────────────────────

    fn keep_hints(&mut self, missed: impl IntoIterator<Item = Missed>) {
        for Missed { key, cell, replicas } in missed {
            for replica in replicas {
                turn!(self, |turn| self.handoff.add(turn, replica, &key, &cell));
            }
        }
    }

    // ── Time ────────────────────────────────────────────────────────────────────────────────────────────

    fn on_time(&mut self) {
        let now = self.now.instant;
        self.out.expire(now);
        self.out.ask_clocks(now, &self.config);
        self.probe_disk();
        self.keeper.on_time(now, &mut self.out);
        let missed = turn!(self, |turn| self.coordinator.on_time(turn));
        self.keep_hints(missed);
        turn!(self, |turn| self.handoff.on_time(turn));
        turn!(self, |turn| self.repair.on_time(turn));
        turn!(self, |turn| self.heal.on_time(turn));
        self.go_on_scrubbing();
        let wanted = |peer| self.clocks.wants(peer, now);
        if let Some(quiet) = self.membership.on_time(&self.config, now, wanted) {
            for peer in quiet {
                self.clocks.on_asked(peer, now);
                turn!(self, |turn| ping(turn, peer));
            }
            self.look_at_clocks();
            // Also of servers with which this one shares no range, and which it does not ask for a sign of life.
            for target in self.handoff.marked().collect::<Vec<_>>() {
                self.request_marked(target);
            }
        }
        if let Some(join) = &mut self.join {
            let identity = &self.keeper.identity;
            let roster = RosterAt { membership: &self.membership, now };
            let (now, config, clock, out) =
                (self.now, &self.config, &mut self.clock, &mut self.out);
            let turn = &mut Turn { now, config, roster: &roster, clock, life: None, out };
            let decision = join.on_time(turn, identity);
            self.decide(decision);
        }
        if now >= self.save_positions_at {
            self.save_positions_at = now + SAVE_POSITIONS;
            if std::mem::take(&mut self.positions_changed) {
                self.keeper.save(OnSaved::Nothing, &mut self.out);
            }
        }
    }

    /// Has the ranges compared that marks name, with another replica that can be asked: one to which nothing is owed, if there
    /// is one, since the others may lack the same.
    fn request_marked(&mut self, target: ServerId) {
        for start in self.handoff.marks(target) {
            let range = self.config.topology.range_of(&start);
            if range.replicas.len() == 1 {
                turn!(self, |turn| self.handoff.unmark(turn, target, &start, Instant(u64::MAX)));
                continue;
            }
            let roster = RosterAt { membership: &self.membership, now: self.now.instant };
            let alive = |replica: &ServerId| super::turn::Roster::alive(&roster, *replica);
            let others = range.replicas.iter().copied().filter(|replica| *replica != target);
            let other = others.filter(alive).min_by_key(|other| self.handoff.owes(*other, &start));
            if let Some(other) = other.filter(|_| alive(&target)) {
                self.repair.request(Pair { start, a: other, b: target });
            }
        }
    }

    /// Two replicas of a range are the same, as of when that comparison began. That ends a mark of the one if nothing was owed
    /// to the other, or there is nobody left to whom nothing is.
    fn on_compared(&mut self, Pair { start, a, b }: &Pair, began: Instant) {
        let replicas = &self.config.topology.range_of(start).replicas;
        let owes = |server: &ServerId| self.handoff.owes(*server, start);
        let all_owed =
            |target: ServerId| replicas.iter().all(|other| *other == target || owes(other));
        let ends =
            [(*a, *b), (*b, *a)].map(|(target, other)| (target, !owes(&other) || all_owed(target)));
        for (target, _) in ends.into_iter().filter(|(_, ends)| *ends) {
            turn!(self, |turn| self.handoff.unmark(turn, target, start, began));
        }
    }
}

/// SplitMix64: enough for a folder number, and the same for the same seed.
fn next_random(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// From 0 to 1, by seed.
fn fraction(seed: u64) -> f64 {
    (next_random(seed) >> 11) as f64 / (1u64 << 53) as f64
}
