//! One read in flight.

use std::time::Duration;

use super::super::Flaw;
use super::super::turn::{Known, OperationId, Origin, Roster, Turn, in_hand};
use super::tally::Tally;
use super::{LOOK, Place, majority};
use crate::model::{
    CallId, Cell, Checksum, ClientResponse, Content, Failure, Instant, Level, PeerAnswer,
    PeerReply, PeerRequest, Reached, Read as ReadRequest, ServerId, Stamp, Version,
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
    back: Option<(Cell, Stamp, Tally<Version>)>,
    /// At ONE: what this coordinator knows of the key, if it knows anything that matters.
    known: Option<Box<Known>>,
    /// Everyone was asked for the value, and from then on only who lives is looked at.
    looked: bool,
    /// A majority has said what it holds.
    by_majority: bool,
    over: bool,
}

#[derive(Clone, Debug)]
struct Held {
    stamp: Stamp,
    content: Option<Content>,
}

/// Whom to ask first: whoever votes, for the answer of others does not count; of them those that are not known to lack what this
/// server has written (`behind`); then those whose disks do not hang; then this server itself, whose own copy costs no message;
/// then those that do not hesitate.
pub(super) fn preference(
    turn: &Turn<'_>,
    server: ServerId,
    behind: bool,
) -> (bool, bool, bool, bool, bool) {
    let (alive, prompt) = (turn.roster.alive(server), turn.roster.prompt(server));
    let hangs = !turn.roster.disk(server).reads();
    (!alive, behind, hangs, server != turn.config.server, !prompt)
}

impl Read {
    #[expect(clippy::too_many_arguments, reason = "one read's parts, each of its own type")]
    pub(super) fn start(
        turn: &mut Turn<'_>,
        id: OperationId,
        call: CallId,
        place: Place,
        level: Level,
        deadline: Instant,
        patience: Duration,
        known: Option<Box<Known>>,
    ) -> Result<Read, Failure> {
        let mut required = level.required(place.replicas.len());
        if turn.config.flaw == Some(Flaw::SmallReadQuorum) && level == Level::Quorum {
            required -= 1;
        }
        let alive = place.alive(turn.roster);
        if alive < required {
            return Err(Failure::Unavailable { level, required, alive });
        }
        if level == Level::Available {
            required = majority(turn.config, place.replicas.len()).min(alive);
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
            known,
            looked: false,
            by_majority: false,
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
            PeerAnswer::Held { version, checksum, content } => {
                turn.clock.absorb(version.time);
                // Release 0.1 tells none.
                let checksum = checksum.or_else(|| content.as_ref().map(Checksum::of));
                let mut held =
                    Held { stamp: Stamp { version: *version, checksum }, content: content.clone() };
                // A version alone must not hide content that is known already.
                let known = self.held.answers().find(|(server, _)| *server == from);
                match known {
                    Some((_, known)) if held.stamp.is_below(&known.stamp) => return,
                    Some((_, known))
                        if held.stamp.agrees_with(&known.stamp) && content.is_none() =>
                    {
                        held = known.clone();
                    }
                    _ => {}
                }
                let stamp = held.stamp;
                // The same value from two replicas is kept once.
                let same = self.held.answers().find(|(_, other)| {
                    other.stamp == stamp && stamp.checksum.is_some() && other.content.is_some()
                });
                if let (Some(_), Some((_, same))) = (&held.content, same) {
                    held.content = same.content.clone();
                }
                if self.call.is_none() {
                    held.content = None;
                }
                self.held.answer(from, &reply.sender, held);
                self.repair_late(turn, from, stamp);
            }
            PeerAnswer::Stored { current, .. } => {
                if let Some((cell, _, tally)) = &mut self.back
                    && *current >= cell.version
                {
                    tally.answer(from, &reply.sender, *current);
                }
            }
            _ => {
                self.held.refuse(from);
                if let Some((_, _, tally)) = &mut self.back {
                    tally.refuse(from);
                }
                self.miss(turn, id, from);
            }
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
            let newest = self.newest(turn.roster);
            if self.level == Level::One
                && newest.is_some_and(|newest| !self.is_older(newest.version))
            {
                // A replica that lives has not answered. The others do not hold the key, and ONE answers while one lives.
                self.conclude(turn, id);
            }
            let received = match &self.back {
                Some((_, _, tally)) => tally.received(turn.roster),
                None => self.held.received(turn.roster),
            };
            self.time_out(turn, received);
            self.over = true;
        } else if self.impatient_at.is_some_and(|at| turn.now.instant >= at) {
            self.impatient_at = None;
            if self.asks_who_lives() {
                self.impatient_at = Some(turn.now.instant + LOOK);
                if self.looked {
                    self.advance(turn, id);
                    return;
                }
                self.looked = true;
            }
            if self.call.is_some() && self.back.is_none() {
                turn.out.count("reads_impatient");
            }
            self.asked_value.clear();
            self.ask_everyone(turn, id);
        }
    }

    /// Its end may hang on who lives, and nothing else says that somebody has died in silence.
    fn asks_who_lives(&self) -> bool {
        self.call.is_some() && matches!(self.level, Level::One | Level::Available)
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
        if let Some((_, _, tally)) = &mut self.back {
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
        // At AVAILABLE only those that live are waited for.
        let hopeful =
            |server: ServerId| self.level != Level::Available || turn.roster.alive(server);
        let awaited =
            self.held.waiting().filter(|server| asked(*server) && hopeful(*server)).count();
        let missing = self.required.saturating_sub(self.held.received(turn.roster) + awaited);
        if missing == 0 {
            return;
        }
        let count = self.place.replicas.len();
        let in_turn = (0..count).map(|step| self.place.replicas[(id.0 as usize + step) % count]);
        let mut others: Vec<_> =
            in_turn.filter(|server| !asked(*server) && turn.roster.reachable(*server)).collect();
        others.sort_by_key(|server| preference(turn, *server, self.is_behind(*server)));
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
        if self.level == Level::Available {
            self.fall_back(turn, id);
        }
        if let Some((cell, stamp, tally)) = &self.back {
            if tally.is_met(turn.roster) {
                let (cell, stamp) = (cell.clone(), *stamp);
                self.finish(turn, cell, stamp);
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
        if self.level == Level::One && self.wants_others(turn) {
            self.ask_living(turn, id);
            return;
        }
        self.conclude(turn, id);
    }

    /// At ONE: a replica that lives and was not heard yet may know better than those that have answered.
    fn wants_others(&self, turn: &Turn<'_>) -> bool {
        let newest = self.newest(turn.roster).unwrap_or_default().version;
        let missing = newest.is_zero() && turn.config.flaw != Some(Flaw::OneNotFoundAtOnce);
        let little = self.known.as_ref().is_some_and(|known| known.little);
        // What was missed may be known by a mark alone, which has no version.
        let doubtful = self.held.answers().all(|(server, _)| self.is_behind(server));
        self.held.waiting().filter(|server| turn.roster.alive(*server)).any(|server| {
            missing || little || self.is_older(newest) || doubtful && !self.is_behind(server)
        })
    }

    /// It lacks something of what this coordinator has acknowledged, perhaps of this key.
    fn is_behind(&self, server: ServerId) -> bool {
        self.known.as_ref().is_some_and(|known| known.behind.contains(&server))
    }

    /// Than what this coordinator has acknowledged.
    fn is_older(&self, version: Version) -> bool {
        self.known.as_ref().is_some_and(|known| version < known.version)
    }

    fn ask_living(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        for replica in self.place.replicas.clone() {
            if turn.roster.alive(replica) && !self.asked.contains(&replica) {
                self.ask(turn, id, replica, true);
            }
        }
    }

    /// At AVAILABLE: how many are required follows who lives, and whoever has come back is asked.
    fn fall_back(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        let majority = majority(turn.config, self.place.replicas.len());
        let roster = turn.roster;
        let may = |server: ServerId| roster.alive(server);
        if let Some((cell, _, tally)) = &mut self.back {
            tally.fall_back(majority, roster);
            self.required = tally.required();
            for replica in tally.resume(may) {
                let (key, epoch) = (self.place.key.clone(), self.place.epoch);
                let request = PeerRequest::Store { key, epoch, cell: cell.clone() };
                turn.out.ask(replica, Origin::Operation(id), request, self.deadline);
            }
            return;
        }
        self.held.fall_back(majority, roster);
        self.required = self.held.required();
        for replica in self.held.resume(may) {
            // As if it had not been asked: it will be, if it is needed.
            self.asked.retain(|server| *server != replica);
            self.asked_value.retain(|server| *server != replica);
        }
    }

    /// Enough have answered: the newest cell is the answer, once as many as required hold it.
    fn conclude(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        let Some(newest) = self.newest(turn.roster) else { return };
        let majority = Level::Quorum.required(self.place.replicas.len());
        self.by_majority = self.held.received(turn.roster) >= majority;
        let content = if newest.version.is_zero() {
            Some(Content::Tombstone)
        } else {
            self.held
                .answers()
                .filter(|(_, held)| held.stamp == newest)
                .find_map(|(_, held)| held.content.clone())
        };
        let holders: Vec<_> = self
            .held
            .votes(turn.roster)
            .filter(|(_, held)| held.stamp.agrees_with(&newest))
            .map(|(server, _)| server)
            .collect();
        let Some(content) = content else {
            if let Some(holder) = holders.iter().find(|holder| !self.asked_value.contains(holder)) {
                self.ask(turn, id, *holder, true);
            }
            return;
        };
        let cell = Cell { version: newest.version, content };
        let careless = match turn.config.flaw {
            Some(Flaw::NoWriteBack) => true,
            Some(Flaw::AvailableNoWriteBack) => self.level == Level::Available,
            _ => false,
        };
        if holders.len() >= self.required || careless {
            self.finish(turn, cell, newest);
        } else {
            self.write_back(turn, id, cell, newest);
        }
    }

    /// The newest cell among the answers that count.
    fn newest(&self, roster: &dyn Roster) -> Option<Stamp> {
        self.held.votes(roster).map(|(_, held)| held.stamp).max()
    }

    /// Has a majority hold the newest cell before anyone is told of it: otherwise the next read might ask two
    /// replicas that have never heard of it.
    fn write_back(&mut self, turn: &mut Turn<'_>, id: OperationId, cell: Cell, stamp: Stamp) {
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
        self.back = Some((cell, stamp, tally));
        self.advance(turn, id);
    }

    fn finish(&mut self, turn: &mut Turn<'_>, cell: Cell, stamp: Stamp) {
        let Some(call) = self.call.take() else { return };
        turn.out.count("reads_ok");
        let reached = self.reached(turn.roster, stamp);
        if self.back.is_none() {
            let stale: Vec<_> = self
                .held
                .answers()
                .filter(|(_, held)| held.stamp.is_below(&stamp))
                .map(|(server, _)| server)
                .collect();
            for replica in stale {
                self.repair(turn, replica, &cell);
            }
        }
        // Kept until the last that was asked has answered, which may turn out stale.
        let version = cell.version;
        if self.back.is_none() && !self.is_over() {
            self.back = Some((cell.clone(), stamp, Tally::new(&[], 0)));
        }
        self.held.answers_mut().for_each(|held| held.content = None);
        let cell = (!version.is_zero()).then_some(cell);
        turn.out.answer(call, Ok(ClientResponse::Get { cell, reached }));
    }

    /// Bytes of values that it keeps.
    pub(super) fn bytes(&self) -> usize {
        if let Some((cell, ..)) = &self.back {
            return in_hand(&self.place.key, cell);
        }
        let length = |held: &Held| held.content.as_ref().map_or(0, Content::len);
        self.held.answers().map(|(_, held)| length(held)).max().unwrap_or(0)
    }

    /// Too much has come for others: no value can be kept for this one.
    pub(super) fn overload(&mut self, turn: &mut Turn<'_>) {
        let Some(call) = self.call.take() else { return };
        turn.out.count("reads_overloaded");
        turn.out.answer(call, Err(Failure::Overloaded { server: turn.config.server }));
        self.over = true;
    }

    /// At AVAILABLE: how many hold what is answered, and whether that is a majority.
    fn reached(&self, roster: &dyn Roster, stamp: Stamp) -> Option<Reached> {
        if self.level != Level::Available {
            return None;
        }
        let holding = match &self.back {
            Some((_, _, tally)) => tally.received(roster),
            None => {
                let holds = |(_, held): &(_, &Held)| held.stamp.agrees_with(&stamp);
                self.held.votes(roster).filter(holds).count()
            }
        };
        let replicas = self.place.replicas.len();
        debug_assert!((1..=replicas).contains(&holding), "somebody has said what is answered");
        let is_quorum = self.by_majority && holding >= Level::Quorum.required(replicas);
        let level = if is_quorum { Level::Quorum } else { Level::Available };
        Some(Reached { level, holding, replicas })
    }

    /// A replica that answers after the call was answered, with something older.
    fn repair_late(&mut self, turn: &mut Turn<'_>, from: ServerId, stamp: Stamp) {
        if self.call.is_some() {
            return;
        }
        if let Some((cell, newest, tally)) = &self.back
            && stamp.is_below(newest)
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
