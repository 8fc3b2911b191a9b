//! One read in flight.

use std::time::Duration;

use super::super::Flaw;
use super::super::turn::{OperationId, Origin, Roster, Turn};
use super::Place;
use super::tally::Tally;
use crate::model::{
    CallId, Cell, ClientResponse, Content, Failure, Instant, Level, PeerAnswer, PeerReply,
    PeerRequest, Read as ReadRequest, ServerId, Version,
};

/// After this long without an end, at least and at most, every replica is asked for its value: those that were asked
/// first may be slow, or a message lost.
pub(super) const PATIENCE: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_millis(100));

/// See the module of the coordinator for its life.
#[derive(Debug)]
pub(super) struct Read {
    /// `None` once it has been answered.
    call: Option<CallId>,
    place: Place,
    level: Level,
    required: usize,
    deadline: Instant,
    /// When everyone is asked again; `None` once that has happened.
    impatient_at: Option<Instant>,
    /// What the replicas hold, as far as they have said.
    held: Tally<Held>,
    /// Replicas asked for the value or for the version alone.
    asked: Vec<ServerId>,
    /// Replicas asked for the value, and not only the version.
    asked_value: Vec<ServerId>,
    began: Instant,
    /// The newest cell is being written back.
    back: Option<(Cell, Tally<Version>)>,
    over: bool,
}

#[derive(Clone, Debug)]
struct Held {
    version: Version,
    content: Option<Content>,
}

/// Whom to ask first: this server itself, whose own copy costs no message; then those that answer; then those that seem to
/// hesitate. Whoever does not vote comes last, for its answer does not count.
pub(super) fn preference(turn: &Turn<'_>, server: ServerId) -> (bool, bool, bool) {
    let (alive, prompt) = (turn.roster.alive(server), turn.roster.prompt(server));
    (server != turn.config.server || !alive, !alive, !prompt)
}

impl Read {
    pub(super) fn start(
        turn: &mut Turn<'_>,
        id: OperationId,
        call: CallId,
        place: Place,
        level: Level,
        deadline: Instant,
        patience: Duration,
    ) -> Result<Read, Failure> {
        let mut required = level.required(place.replicas.len());
        if turn.config.flaw == Some(Flaw::SmallReadQuorum) && level == Level::Quorum {
            required -= 1;
        }
        let alive = place.alive(turn.roster);
        if alive < required {
            return Err(Failure::Unavailable { level, required, alive });
        }
        let held = Tally::new(&place.replicas, required);
        let mut read = Read {
            call: Some(call),
            place,
            level,
            required,
            deadline,
            impatient_at: Some(turn.now.instant + patience),
            held,
            asked: Vec::new(),
            asked_value: Vec::new(),
            began: turn.now.instant,
            back: None,
            over: false,
        };
        for replica in read.place.replicas.clone() {
            if !turn.roster.reachable(replica) {
                read.held.miss(replica);
            }
        }
        read.ask_more(turn, id);
        Ok(read)
    }

    pub(super) fn on_reply(
        &mut self,
        turn: &mut Turn<'_>,
        id: OperationId,
        from: ServerId,
        reply: &PeerReply,
    ) {
        match &reply.answer {
            PeerAnswer::Held { version, content } => {
                turn.clock.absorb(version.time);
                // A version alone must not hide content that is known already.
                let known = self.held.answers().find(|(server, _)| *server == from);
                let content = match known {
                    Some((_, held)) if held.version > *version => return,
                    Some((_, held)) if held.version == *version && content.is_none() => {
                        held.content.clone()
                    }
                    _ => content.clone(),
                };
                self.held.answer(from, &reply.sender, Held { version: *version, content });
                self.repair_late(turn, from, *version);
            }
            PeerAnswer::Stored { current } => {
                if let Some((cell, tally)) = &mut self.back
                    && *current >= cell.version
                {
                    tally.answer(from, &reply.sender, *current);
                }
            }
            _ => self.miss(turn, id, from),
        }
        self.advance(turn, id);
    }

    pub(super) fn on_missed(&mut self, turn: &mut Turn<'_>, id: OperationId, replica: ServerId) {
        self.miss(turn, id, replica);
        self.advance(turn, id);
    }

    /// The next moment at which [`Read::on_time`] has something to do.
    pub(super) fn next_deadline(&self) -> Instant {
        self.impatient_at.map_or(self.deadline, |at| at.min(self.deadline))
    }

    pub(super) fn on_time(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        if turn.now.instant >= self.deadline {
            let received = match &self.back {
                Some((_, tally)) => tally.received(turn.roster),
                None => self.held.received(turn.roster),
            };
            self.time_out(turn, received);
            self.over = true;
        } else if self.impatient_at.is_some_and(|at| turn.now.instant >= at) {
            self.impatient_at = None;
            if self.call.is_some() && self.back.is_none() {
                turn.out.count("reads_impatient");
            }
            self.asked_value.clear();
            self.ask_everyone(turn, id);
        }
    }

    /// How long it took, if it was answered.
    pub(super) fn took(&self, now: Instant) -> Option<Duration> {
        self.call.is_none().then(|| now - self.began)
    }

    pub(super) fn is_answered(&self) -> bool {
        self.call.is_none()
    }

    /// Nothing more is waited for: neither an answer nor a stale replica that may still show itself.
    pub(super) fn is_over(&self) -> bool {
        let awaited = |server: ServerId| self.asked.contains(&server);
        self.over || self.call.is_none() && !self.held.waiting().any(awaited)
    }

    fn miss(&mut self, turn: &mut Turn<'_>, id: OperationId, replica: ServerId) {
        self.held.miss(replica);
        if let Some((_, tally)) = &mut self.back {
            tally.miss(replica);
        }
        // Whoever was to give the value will not: ask the others without waiting.
        if self.call.is_some() && self.asked_value.contains(&replica) && self.back.is_none() {
            self.ask_everyone(turn, id);
        }
    }

    /// Asks as many replicas as are still required, so that no more work than needed is done: this server first, whose own copy costs
    /// no message; then those that answer, in turn; then those that seem to hesitate. The first is asked for the value.
    fn ask_more(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        let asked = |server: ServerId| self.asked.contains(&server);
        let awaited = self.held.waiting().filter(|server| asked(*server)).count();
        let missing = self.required.saturating_sub(self.held.received(turn.roster) + awaited);
        if missing == 0 {
            return;
        }
        let count = self.place.replicas.len();
        let in_turn = (0..count).map(|step| self.place.replicas[(id.0 as usize + step) % count]);
        let mut others: Vec<_> =
            in_turn.filter(|server| !asked(*server) && turn.roster.reachable(*server)).collect();
        others.sort_by_key(|server| preference(turn, *server));
        for server in others.into_iter().take(missing) {
            let with_value = self.asked_value.is_empty();
            self.ask(turn, id, server, with_value);
        }
    }

    fn ask_everyone(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        if self.call.is_none() || self.back.is_some() {
            return;
        }
        for replica in self.place.replicas.clone() {
            if turn.roster.reachable(replica) && !self.asked_value.contains(&replica) {
                self.ask(turn, id, replica, true);
            }
        }
    }

    fn ask(&mut self, turn: &mut Turn<'_>, id: OperationId, replica: ServerId, with_value: bool) {
        if !self.asked.contains(&replica) {
            self.asked.push(replica);
        }
        if with_value {
            self.asked_value.push(replica);
        }
        let (key, epoch) = (self.place.key.clone(), self.place.epoch);
        let request = PeerRequest::Read(ReadRequest { key, epoch, with_value });
        turn.out.ask(replica, Origin::Operation(id), request, self.deadline);
    }

    fn advance(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        if self.call.is_none() {
            return;
        }
        if let Some((cell, tally)) = &self.back {
            if tally.is_met(turn.roster) {
                let cell = cell.clone();
                self.finish(turn, cell);
            } else if tally.is_hopeless(turn.roster) {
                let received = tally.received(turn.roster);
                self.time_out(turn, received);
            }
            return;
        }
        if !self.held.is_met(turn.roster) {
            if self.held.is_hopeless(turn.roster) {
                let received = self.held.received(turn.roster);
                self.time_out(turn, received);
            } else {
                self.ask_more(turn, id);
            }
            return;
        }
        let Some(newest) = self.newest(turn.roster) else { return };
        let content = if newest.is_zero() {
            Some(Content::Tombstone)
        } else {
            self.held
                .answers()
                .filter(|(_, held)| held.version == newest)
                .find_map(|(_, held)| held.content.clone())
        };
        let holders: Vec<_> = self
            .held
            .votes(turn.roster)
            .filter(|(_, held)| held.version == newest)
            .map(|(server, _)| server)
            .collect();
        let Some(content) = content else {
            if let Some(holder) = holders.iter().find(|holder| !self.asked_value.contains(holder)) {
                self.ask(turn, id, *holder, true);
            }
            return;
        };
        let cell = Cell { version: newest, content };
        if holders.len() >= self.required || turn.config.flaw == Some(Flaw::NoWriteBack) {
            self.finish(turn, cell);
        } else {
            self.write_back(turn, id, cell);
        }
    }

    /// The newest version among the answers that count.
    fn newest(&self, roster: &dyn Roster) -> Option<Version> {
        self.held.votes(roster).map(|(_, held)| held.version).max()
    }

    /// Has a majority hold the newest cell before anyone is told of it: otherwise the next read might ask two
    /// replicas that have never heard of it.
    fn write_back(&mut self, turn: &mut Turn<'_>, id: OperationId, cell: Cell) {
        turn.out.count("reads_written_back");
        let mut tally = Tally::new(&self.place.replicas, self.required);
        for replica in self.place.replicas.clone() {
            let (key, epoch) = (self.place.key.clone(), self.place.epoch);
            let request = PeerRequest::Store { key, epoch, cell: cell.clone() };
            if turn.roster.reachable(replica) {
                // Those that hold it answer at once, in their present life: simpler than to carry over what
                // they said before.
                turn.out.ask(replica, Origin::Operation(id), request, self.deadline);
            } else {
                tally.miss(replica);
            }
        }
        self.back = Some((cell, tally));
        self.advance(turn, id);
    }

    fn finish(&mut self, turn: &mut Turn<'_>, cell: Cell) {
        let Some(call) = self.call.take() else { return };
        turn.out.count("reads_ok");
        if self.back.is_none() {
            let stale: Vec<_> = self
                .held
                .answers()
                .filter(|(_, held)| held.version < cell.version)
                .map(|(server, _)| server)
                .collect();
            for replica in stale {
                self.repair(turn, replica, &cell);
            }
        }
        // Kept until the last that was asked has answered, which may turn out stale.
        let version = cell.version;
        if self.back.is_none() && !self.is_over() {
            self.back = Some((cell.clone(), Tally::new(&[], 0)));
        }
        let cell = (!version.is_zero()).then_some(cell);
        turn.out.answer(call, Ok(ClientResponse::Get { cell }));
    }

    /// A replica that answers after the call was answered, with something older.
    fn repair_late(&mut self, turn: &mut Turn<'_>, from: ServerId, version: Version) {
        if self.call.is_some() {
            return;
        }
        if let Some((cell, tally)) = &self.back
            && version < cell.version
            && tally.required() == 0
        {
            let cell = cell.clone();
            self.repair(turn, from, &cell);
        }
    }

    fn repair(&self, turn: &mut Turn<'_>, replica: ServerId, cell: &Cell) {
        turn.out.count("read_repairs");
        let (key, epoch) = (self.place.key.clone(), self.place.epoch);
        let request = PeerRequest::Store { key, epoch, cell: cell.clone() };
        turn.out.ask(replica, Origin::Nobody, request, self.deadline);
    }

    fn time_out(&mut self, turn: &mut Turn<'_>, received: usize) {
        let Some(call) = self.call.take() else { return };
        turn.out.count("reads_timed_out");
        let failure = Failure::TimedOut {
            level: self.level,
            required: self.required,
            received,
            version: None,
        };
        turn.out.answer(call, Err(failure));
        self.over = true;
    }
}
