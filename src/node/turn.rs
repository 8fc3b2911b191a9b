//! What every part of the node is handed for one turn: the time, who stands how, and where to put effects.
//!
//! The parts never call each other. They put requests, answers and commands into the [`Outbox`], and return
//! reports; `node.rs` carries the news from one to the next.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::rounds::ClockRounds;
use super::{Config, Effect, Flaw, Notice, Urgency};
use crate::model::{
    CallId, Cell, ClientResponse, DiskState, Failure, HybridClock, Incarnation, Instant, Key, Now,
    PeerReply, PeerRequest, Pending, RequestId, ServerId, Version,
};
use crate::storage::Command;

/// What the other parts may know of servers.
pub trait Roster {
    /// Believed to be up and voting: it may be counted on for a majority.
    fn alive(&self, server: ServerId) -> bool;
    /// It owes no answer for longer than usual: worth asking before others.
    fn prompt(&self, server: ServerId) -> bool;
    /// Requests can be sent to it.
    fn reachable(&self, server: ServerId) -> bool;
    /// What its disk does, by its own word.
    fn disk(&self, server: ServerId) -> DiskState;
    /// Its latest known life: answers of an older one do not count.
    fn incarnation(&self, server: ServerId) -> Incarnation;
}

/// What a cell takes in memory while something is to be done with it, about: beside its bytes, its place in the queues and
/// in the notes of who waits for it.
pub(super) fn in_hand(key: &Key, cell: &Cell) -> usize {
    const NOTES: usize = 256;
    key.as_bytes().len() + cell.content.len() + NOTES
}

/// One turn of the node.
pub(super) struct Turn<'a> {
    pub(super) now: Now,
    pub(super) config: &'a Config,
    pub(super) roster: &'a dyn Roster,
    /// Issues the times of versions.
    pub(super) clock: &'a mut HybridClock,
    /// This server's life; `None` while no version may be issued, as its peers have not recorded it yet.
    pub(super) life: Option<Incarnation>,
    pub(super) out: &'a mut Outbox,
}

/// What this server knows of a key from its own writes.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// It has acknowledged this.
    pub(super) version: Version,
    /// Replicas that may not hold it.
    pub(super) behind: Vec<ServerId>,
    /// Some of them are known by a mark alone, so that they may lack something newer than `version`.
    pub(super) by_mark: bool,
    /// Not even which replica holds it: too much was missed.
    pub(super) little: bool,
}

/// Which part asked, and on whose behalf: where the reply goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client's operation.
    Operation(OperationId),
    /// The first rounds of these.
    Clock(Vec<OperationId>),
    /// A page of a scan, by its number within the scan: a late one of a former page must not count for the next.
    ScanPage(OperationId, usize),
    /// A key that a scan writes back.
    ScanBack(OperationId, Key),
    /// A hint on its way to the server asked.
    Handoff(Key),
    /// The comparison that is under way.
    Repair(RepairStep),
    /// A cell that this server holds and cannot read.
    Heal(Key),
    /// This server's own joining.
    Join(JoinStep),
    /// A sign of life, asked for at that moment.
    Ping(Instant),
    /// Read repair: whatever the reply, nothing follows.
    Nobody,
}

/// A client's operation in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OperationId(pub(super) u64);

/// What a comparison asked for. The number tells its session from former ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RepairStep {
    Digest(u64),
    Page(u64),
    /// The newer cell of this key, for the other replica.
    Fetch(u64, Key),
    Store(u64),
}

/// What a joining server asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JoinStep {
    Ask,
    Record(Incarnation),
    /// The page that starts here, of the copy with this number.
    Page(u64),
    /// A copied cell, stored by this server itself.
    Store(u64),
}

/// Who waits for a replica's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyTo {
    /// A part of this very node.
    Local(RequestId),
    /// A peer.
    Peer(ServerId, RequestId),
}

/// A request without an answer yet.
#[derive(Clone, Debug)]
struct Open {
    to: ServerId,
    origin: Origin,
    /// Afterwards nobody is interested in the reply.
    expires: Instant,
}

/// Something one part of this node asks of, or answers, another through the replica's ordinary door.
#[derive(Debug)]
pub(super) enum Internal {
    Request(RequestId, PeerRequest),
    Reply(RequestId, PeerReply),
}

/// Between two looks at every request without an answer.
const SWEEP: Duration = Duration::from_secs(1);

/// Effects of a turn, and the memory of which request was whose.
#[derive(Debug)]
pub(super) struct Outbox {
    me: ServerId,
    effects: Vec<Effect>,
    internal: VecDeque<Internal>,
    open: Pending<Open>,
    next_request: u64,
    /// When expired requests behind one that is not are looked for next.
    sweep_at: Instant,
    counters: BTreeMap<&'static str, u64>,
    rounds: ClockRounds,
}

impl Outbox {
    pub(super) fn new(me: ServerId, first_request: u64) -> Outbox {
        Outbox {
            me,
            effects: Vec::new(),
            internal: VecDeque::new(),
            open: Pending::default(),
            next_request: first_request,
            sweep_at: Instant::default(),
            counters: BTreeMap::new(),
            rounds: ClockRounds::default(),
        }
    }

    /// Asks a server, this one included: its own replica goes through the same door as everyone's, so its disk
    /// is neither skipped nor counted early.
    pub(super) fn ask(
        &mut self,
        to: ServerId,
        origin: Origin,
        request: PeerRequest,
        expires: Instant,
    ) {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        if origin != Origin::Nobody {
            self.open.insert(id.0, Open { to, origin, expires });
        }
        if to == self.me {
            self.internal.push_back(Internal::Request(id, request));
        } else {
            self.effects.push(Effect::Send { to, id, request });
        }
    }

    /// Wants a server's clock, for a write that has begun; see [`ClockRounds`].
    pub(super) fn ask_clock(&mut self, to: ServerId, operation: OperationId, config: &Config) {
        if config.flaw == Some(Flaw::ClockFromBefore) {
            let asked = self.open.values_mut().filter(|open| open.to == to);
            let under_way = asked.filter_map(|open| match &mut open.origin {
                Origin::Clock(operations) => Some(operations),
                _ => None,
            });
            if let Some(operations) = under_way.last() {
                operations.push(operation);
            }
        }
        self.rounds.want(to, operation);
    }

    /// Asks for the clocks that are wanted, as far as they may be asked for now.
    pub(super) fn ask_clocks(&mut self, now: Instant, config: &Config) {
        for (to, operations) in self.rounds.take(now) {
            let request = PeerRequest::Clock { state: config.topology.state() };
            self.ask(to, Origin::Clock(operations), request, now + config.timeout);
        }
    }

    /// Clocks are wanted that can be asked for.
    pub(super) fn has_gathered(&self) -> bool {
        self.rounds.is_ready()
    }

    /// Answers whoever asked this replica.
    pub(super) fn reply(&mut self, to: ReplyTo, reply: PeerReply) {
        match to {
            ReplyTo::Local(id) => self.internal.push_back(Internal::Reply(id, reply)),
            ReplyTo::Peer(to, id) => self.effects.push(Effect::Reply { to, id, reply }),
        }
    }

    /// Answers a client.
    pub(super) fn answer(&mut self, call: CallId, result: Result<ClientResponse, Failure>) {
        self.effects.push(Effect::Answer { call, result });
    }

    pub(super) fn storage(&mut self, commands: impl IntoIterator<Item = Command>) {
        self.effects.extend(commands.into_iter().map(Effect::Storage));
    }

    pub(super) fn notice(&mut self, urgency: Urgency, text: String) {
        self.effects.push(Effect::Notice(Notice { urgency, text }));
    }

    pub(super) fn stop(&mut self, reason: String) {
        self.effects.push(Effect::Stop { reason });
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counters.entry(what).or_insert(0) += 1;
    }

    pub(super) fn count_many(&mut self, what: &'static str, many: usize) {
        *self.counters.entry(what).or_insert(0) += many as u64;
    }

    pub(super) fn counters(&self) -> &BTreeMap<&'static str, u64> {
        &self.counters
    }

    /// Requests without an answer.
    pub(super) fn in_hand(&self) -> usize {
        self.open.len()
    }

    /// Whose request `id` was, if it was sent to `from` and is still waited for. A second reply finds nothing.
    pub(super) fn close(&mut self, from: ServerId, id: RequestId) -> Option<Origin> {
        if self.open.get(id.0).is_none_or(|open| open.to != from) {
            return None;
        }
        let origin = self.open.remove(id.0).map(|open| open.origin);
        if let Some(Origin::Clock(_)) = origin {
            self.rounds.on_answer(from);
        }
        origin
    }

    /// The requests to `peer` that will get no answer any more.
    pub(super) fn close_all(&mut self, peer: ServerId) -> Vec<Origin> {
        let ids: Vec<_> =
            self.open.iter().filter(|(_, open)| open.to == peer).map(|(id, _)| id).collect();
        let gathered = Origin::Clock(self.rounds.on_link_down(peer));
        let open = ids.into_iter().filter_map(|id| self.open.remove(id)).map(|open| open.origin);
        open.chain([gathered]).collect()
    }

    /// Forgets requests that nobody is interested in any more. Their numbers ascend with time, so the oldest
    /// come first; those behind one that waits longer are looked for once in [`SWEEP`].
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((id, open)) = self.open.first()
            && open.expires <= now
        {
            self.open.remove(id);
        }
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now + SWEEP;
        let expired = self.open.iter().filter(|(_, open)| open.expires <= now);
        let expired: Vec<_> = expired.map(|(id, _)| id).collect();
        for id in expired {
            self.open.remove(id);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.rounds.next_deadline()
    }

    pub(super) fn next_internal(&mut self) -> Option<Internal> {
        self.internal.pop_front()
    }

    pub(super) fn take_effects(&mut self, into: &mut Vec<Effect>) {
        into.append(&mut self.effects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_waits_for_long_keeps_no_expired_one_behind_it() {
        let mut out = Outbox::new(ServerId(0), 0);
        let at = |seconds| Instant::default() + Duration::from_secs(seconds);
        let mut ask =
            |seconds| out.ask(ServerId(1), Origin::Ping(at(0)), PeerRequest::Ping, at(seconds));
        ask(60);
        (0..100).for_each(|_| ask(2));
        ask(30);
        out.expire(at(3));
        assert_eq!(out.in_hand(), 2);
        out.expire(at(60));
        assert_eq!(out.in_hand(), 0);
    }
}
