//! One write in flight: put, delete, or the first round alone.

use super::super::turn::{OperationId, Origin, Turn};
use super::super::{Flaw, Urgency};
use super::tally::Tally;
use super::{Missed, Place};
use crate::model::{
    CallId, Cell, ClientResponse, Content, Failure, Instant, Level, PeerAnswer, PeerReply,
    PeerRequest, Sender, ServerId, Version,
};

/// See the module of the coordinator for its life.
#[derive(Debug)]
pub(super) struct Write {
    /// `None` once it has been answered.
    call: Option<CallId>,
    place: Place,
    level: Level,
    required: usize,
    deadline: Instant,
    /// `None`: only a version is wanted.
    content: Option<Content>,
    /// The version will be weak.
    weak: bool,
    phase: Phase,
}

/// The version to write under.
#[derive(Clone, Copy, Debug)]
pub(super) enum Under {
    /// A new one; above what the writer says that it has seen, if it says so.
    New { after: Option<Version> },
    /// That of a former attempt.
    Ticket(Version),
}

#[derive(Debug)]
enum Phase {
    /// Round 1: the greatest version times that the replicas have seen.
    Clocks(Tally<i64>),
    /// Waiting until a greater clock ceiling is durable.
    Clock,
    /// Round 2: hold this. The answers are what the replicas durably hold now.
    Stores { cell: Cell, tally: Tally<Version> },
    /// Nothing more will happen.
    Done,
}

impl Write {
    /// Begins a write. `content: None` asks for a version only; under a ticket, round 1 was done before.
    #[expect(clippy::too_many_arguments, reason = "one write's parts, each of its own type")]
    pub(super) fn start(
        turn: &mut Turn<'_>,
        id: OperationId,
        call: CallId,
        place: Place,
        level: Level,
        deadline: Instant,
        content: Option<Content>,
        under: Under,
    ) -> Result<Write, Failure> {
        let replicas = place.replicas.len();
        let required = match content {
            Some(_) => level.required(replicas),
            // A version below one that a majority holds would be no use at any level.
            None => level.required(replicas).max(Level::Quorum.required(replicas)),
        };
        let one_round = level == Level::One && content.is_some();
        let mut write = Write {
            call: Some(call),
            place,
            level,
            required,
            deadline,
            content,
            weak: false,
            phase: Phase::Clock,
        };
        match under {
            Under::Ticket(version) => {
                // The first attempt may still take effect, so this one never answers with a definite no.
                turn.clock.absorb(version.time);
                write.store(turn, id, version);
                return Ok(write);
            }
            Under::New { after: Some(version) } => {
                turn.clock.absorb(version.time);
                write.weak = version.is_weak();
            }
            Under::New { after: None } => {}
        }
        if turn.life.is_none() {
            return Err(Failure::Joining { server: turn.config.server });
        }
        let alive = write.place.alive(turn.roster);
        if alive < required {
            return Err(Failure::Unavailable { level, required, alive });
        }
        if one_round || turn.config.flaw == Some(Flaw::ClockVersions) {
            write.issue(turn, id);
        } else {
            let mut tally = Tally::new(&write.place.replicas, required);
            for replica in write.place.replicas.clone() {
                if turn.roster.reachable(replica) {
                    turn.out.ask_clock(replica, id, turn.config);
                } else {
                    tally.miss(replica);
                }
            }
            write.phase = Phase::Clocks(tally);
            write.advance(turn, id);
        }
        Ok(write)
    }

    pub(super) fn on_reply(
        &mut self,
        turn: &mut Turn<'_>,
        id: OperationId,
        from: ServerId,
        reply: &PeerReply,
    ) {
        let sender: &Sender = &reply.sender;
        match (&mut self.phase, &reply.answer) {
            (Phase::Clocks(tally), PeerAnswer::Clock { time }) => {
                tally.answer(from, sender, *time);
            }
            (Phase::Stores { cell, tally }, PeerAnswer::Stored { current })
                if *current >= cell.version =>
            {
                tally.answer(from, sender, *current);
            }
            // A late reply of round 1.
            (Phase::Stores { .. }, PeerAnswer::Clock { .. }) => return,
            (Phase::Clocks(tally), _) => tally.miss(from),
            (Phase::Stores { tally, .. }, _) => tally.miss(from),
            (Phase::Clock | Phase::Done, _) => return,
        }
        self.advance(turn, id);
    }

    pub(super) fn on_missed(&mut self, turn: &mut Turn<'_>, id: OperationId, replica: ServerId) {
        match &mut self.phase {
            Phase::Clocks(tally) => tally.miss(replica),
            Phase::Stores { tally, .. } => tally.miss(replica),
            Phase::Clock | Phase::Done => return,
        }
        self.advance(turn, id);
    }

    /// A greater ceiling is durable.
    pub(super) fn on_clock(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        if matches!(self.phase, Phase::Clock) {
            self.issue(turn, id);
        }
    }

    pub(super) fn on_deadline(&mut self, turn: &mut Turn<'_>) {
        match &self.phase {
            Phase::Clocks(tally) => {
                let alive = tally.received(turn.roster);
                self.finish(turn, Err(self.unavailable(alive)));
            }
            Phase::Clock => {
                self.finish(turn, Err(Failure::Overloaded { server: turn.config.server }));
            }
            Phase::Stores { cell, tally } => {
                if turn.config.flaw == Some(Flaw::UndoUnknown) && self.call.is_some() {
                    self.undo(turn, cell.version);
                }
                let failure = self.timed_out(cell, tally.received(turn.roster));
                self.finish(turn, Err(failure));
                return;
            }
            Phase::Done => {}
        }
        self.phase = Phase::Done;
    }

    /// Waits for the clock, with nothing sent yet.
    pub(super) fn awaits_clock(&self) -> bool {
        matches!(self.phase, Phase::Clock)
    }

    pub(super) fn is_answered(&self) -> bool {
        self.call.is_none()
    }

    /// The replicas that may still answer; once there are none, or the deadline has passed, [`Write::end`].
    pub(super) fn is_over(&self) -> bool {
        match &self.phase {
            Phase::Clocks(_) | Phase::Clock => false,
            Phase::Stores { tally, .. } => self.call.is_none() && tally.waiting().next().is_none(),
            Phase::Done => true,
        }
    }

    /// Whom the cell has not reached, as far as is known.
    pub(super) fn end(self, me: ServerId) -> Option<Missed> {
        let Phase::Stores { cell, tally } = self.phase else { return None };
        let replicas: Vec<_> = tally.silent().filter(|replica| *replica != me).collect();
        (!replicas.is_empty()).then_some(Missed { key: self.place.key, cell, replicas })
    }

    fn advance(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        match &self.phase {
            Phase::Clocks(tally) if tally.is_met(turn.roster) => {
                for (_, time) in tally.votes(turn.roster) {
                    turn.clock.absorb(*time);
                }
                self.issue(turn, id);
            }
            Phase::Clocks(tally) if tally.is_hopeless(turn.roster) => {
                let alive = tally.received(turn.roster);
                self.finish(turn, Err(self.unavailable(alive)));
                self.phase = Phase::Done;
            }
            Phase::Stores { cell, tally } if tally.is_met(turn.roster) => {
                let version = cell.version;
                let overtaken = tally.votes(turn.roster).any(|(_, current)| *current > version);
                self.finish(turn, Ok(ClientResponse::Put { version, overtaken }));
            }
            Phase::Stores { cell, tally } if tally.is_hopeless(turn.roster) => {
                let failure = self.timed_out(cell, tally.received(turn.roster));
                self.finish(turn, Err(failure));
            }
            Phase::Clocks(_) | Phase::Clock | Phase::Stores { .. } | Phase::Done => {}
        }
    }

    /// Takes a tick, and with it the version; waits if the clock may not issue one yet.
    fn issue(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        self.phase = Phase::Clock;
        let Some(incarnation) = turn.life else { return };
        let Some(time) = turn.clock.tick(turn.now.wall) else { return };
        let step = if self.weak { Version::WEAK } else { 0 };
        let version = Version { time, server: turn.config.server, incarnation, step };
        self.store(turn, id, version);
    }

    fn store(&mut self, turn: &mut Turn<'_>, id: OperationId, version: Version) {
        let Some(content) = self.content.clone() else {
            self.finish(turn, Ok(ClientResponse::Prepared { version }));
            self.phase = Phase::Done;
            return;
        };
        let cell = Cell { version, content };
        let mut tally = Tally::new(&self.place.replicas, self.required);
        for replica in self.place.replicas.clone() {
            if turn.roster.reachable(replica) {
                let (key, epoch) = (self.place.key.clone(), self.place.epoch);
                let request = PeerRequest::Store { key, epoch, cell: cell.clone() };
                turn.out.ask(replica, Origin::Operation(id), request, self.deadline);
            } else if turn.config.flaw == Some(Flaw::HintCounts) {
                let incarnation = turn.roster.incarnation(replica);
                let sender = Sender { incarnation, voting: true, ..Sender::default() };
                tally.answer(replica, &sender, version);
            } else {
                tally.miss(replica);
            }
        }
        self.phase = Phase::Stores { cell, tally };
        self.advance(turn, id);
    }

    /// Takes a write back that nobody was told of: a deliberate fault, for somebody may have read it.
    fn undo(&self, turn: &mut Turn<'_>, version: Version) {
        let version = Version { step: version.step + 1, ..version };
        for replica in &self.place.replicas {
            let (key, epoch) = (self.place.key.clone(), self.place.epoch);
            let cell = Cell { version, content: Content::Tombstone };
            let request = PeerRequest::Store { key, epoch, cell };
            turn.out.ask(*replica, Origin::Nobody, request, self.deadline);
        }
    }

    fn finish(&mut self, turn: &mut Turn<'_>, result: Result<ClientResponse, Failure>) {
        let Some(call) = self.call.take() else { return };
        match &result {
            Ok(ClientResponse::Put { overtaken: true, .. }) => turn.out.count("writes_overtaken"),
            Ok(_) => turn.out.count("writes_ok"),
            Err(Failure::TimedOut { .. }) => turn.out.count("writes_unknown"),
            Err(_) => turn.out.count("writes_refused"),
        }
        if let Err(Failure::TimedOut { received, required, .. }) = &result {
            let text = format!(
                "a write was answered as unknown: {received} of {required} required replicas had \
                 acknowledged it in time"
            );
            turn.out.notice(Urgency::Info, text);
        }
        turn.out.answer(call, result);
    }

    fn unavailable(&self, alive: usize) -> Failure {
        Failure::Unavailable { level: self.level, required: self.required, alive }
    }

    fn timed_out(&self, cell: &Cell, received: usize) -> Failure {
        let version = Some(cell.version);
        Failure::TimedOut { level: self.level, required: self.required, received, version }
    }
}
