//! One write in flight: put, delete, or the first round alone.
//!
//! Once something was sent under its version, a write that falls short is answered as unknown: it may take effect yet. There is
//! one exception. A replica that refuses with [`Refusal::Storage`] has nothing of it left, not even after a power cut, and a
//! link delivers a request once. So where every replica that was asked to store has refused so, nobody holds it and nobody
//! will: it was not stored, and no hint is kept either. Under a ticket that is said of this attempt alone ([`Failure::Refused`]): a former
//! one may have arrived.
//!
//! A client may put another content under a ticket that it has used already. Both contents have one version, and of the two the one
//! with the greater checksum wins on every replica (see [`crate::model::Stamp`]). If that is the later one, it supersedes like any
//! newer write. If it is the lesser, a replica that holds the greater one says so and does not take it. Such an answer is no
//! acknowledgement; where enough others have taken the lesser content, the write has succeeded and was overtaken at once. It is
//! [refused](Invalid::TicketUsed) once two things are certain. A majority that votes holds the greater content or what replaces it: each
//! majority that a read asks shares a replica with it, so no read at QUORUM ever finds the lesser one. And every replica that was asked
//! has answered, and none has taken it: no read at ONE finds it either, and no hint is kept, so that this attempt has stored nothing.
//! In all other cases the outcome is unknown. The same content put again is never another one: whoever holds it acknowledges it.

use std::time::Duration;

use super::super::turn::{OperationId, Origin, Turn, in_hand};
use super::super::{Flaw, Urgency};
use super::doubt::{Doubt, Verdict, is_near};
use super::tally::Tally;
use super::{LOOK, Missed, Place, majority};
use crate::model::{
    CallId, Cell, ClientResponse, Content, DiskState, Failure, Instant, Invalid, Key, Level,
    PeerAnswer, PeerReply, PeerRequest, Reached, Refusal, Sender, ServerId, Version,
};

/// A replica whose disk hangs is left out of a write for so long, if the others are enough.
const SPARED: Duration = Duration::from_millis(100);

/// Where all that have answered have refused, and too few are left: so long it is waited for the others, which may make it a
/// definite no.
const LAST_WORD: Duration = Duration::from_millis(500);

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
    /// A majority has told its clocks, so that the version is above all that was written before.
    by_majority: bool,
    /// At AVAILABLE, while it is not answered: when to look again who lives.
    look_at: Option<Instant>,
    /// Someone was left out whose disk hangs: asked after all then, or when the others cannot do it.
    spared_until: Option<Instant>,
    /// While it waits for the last word of replicas that cannot make it succeed any more: until when.
    last_word_until: Option<Instant>,
    /// It has succeeded.
    acknowledged: bool,
    /// A former attempt may have arrived.
    is_ticket: bool,
    phase: Phase,
    /// A version that the client has brought and that no clock has vouched for yet.
    doubt: Option<Box<Doubt>>,
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
    /// How often a replica was asked, and how many of these requests were refused for certain.
    /// And which have another content under this version.
    Stores { cell: Cell, tally: Tally<Version>, asked: usize, refused: usize, others: Others },
    /// Nothing more will happen.
    Done,
}

/// Replicas that hold a greater content under the version of a write.
#[derive(Clone, Copy, Debug, Default)]
struct Others {
    all: usize,
    /// Those that count.
    votes: usize,
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
        let alive = match content {
            Some(_) if level != Level::Available => place.storing(turn.roster),
            // A version needs nobody's disk; at AVAILABLE who lives and refuses lives all the same.
            _ => place.alive(turn.roster),
        };
        let required = match content {
            _ if level == Level::Available => majority(turn.config, replicas).min(alive.max(1)),
            Some(_) => level.required(replicas),
            // A version below one that a majority holds would be no use at any other level.
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
            by_majority: false,
            look_at: (level == Level::Available).then(|| turn.now.instant + LOOK),
            spared_until: None,
            last_word_until: None,
            acknowledged: false,
            is_ticket: matches!(under, Under::Ticket(_)),
            phase: Phase::Clock,
            doubt: None,
        };
        let mut doubted = None;
        match under {
            Under::Ticket(version) if version.time <= 0 => {
                return Err(Failure::Invalid(Invalid::Ticket));
            }
            Under::Ticket(version) if judges_by_own_clock(turn, version) => {
                return Err(Failure::Invalid(Invalid::Ticket));
            }
            Under::Ticket(version) if may_be_issued(turn, version) => {
                // The first attempt may still take effect, so this one never answers with a definite no.
                turn.clock.absorb(version.time);
                write.store(turn, id, version);
                return Ok(write);
            }
            Under::Ticket(version) => {
                write.ask(turn, id, Some((version, true)));
                return Ok(write);
            }
            Under::New { after: Some(version) } => {
                if version.time <= 0 && !version.is_zero() {
                    return Err(Failure::Invalid(Invalid::After));
                }
                write.weak = version.is_weak();
                if may_be_issued(turn, version) {
                    turn.clock.absorb(version.time);
                } else {
                    doubted = Some((version, false));
                }
            }
            Under::New { after: None } => {}
        }
        if turn.life.is_none() {
            return Err(Failure::Joining { server: turn.config.server });
        }
        if alive < required {
            return Err(Failure::Unavailable { level, required, alive });
        }
        let one_round = one_round || turn.config.flaw == Some(Flaw::ClockVersions);
        if one_round && doubted.is_none() {
            write.issue(turn, id);
        } else {
            write.ask(turn, id, doubted);
        }
        Ok(write)
    }

    /// Begins round 1. `doubted`: a version that the clocks are to vouch for, and whether it is a ticket.
    fn ask(&mut self, turn: &mut Turn<'_>, id: OperationId, doubted: Option<(Version, bool)>) {
        let replicas = self.place.replicas.clone();
        let required = match doubted {
            // Fewer than a majority cannot say that a version was invented.
            Some(_) if self.level != Level::Available => {
                self.required.max(Level::Quorum.required(replicas.len()))
            }
            _ => self.required,
        };
        let mut tally = Tally::new(&replicas, required);
        for replica in &replicas {
            if turn.roster.reachable(*replica) {
                turn.out.ask_clock(*replica, id, turn.config);
            } else {
                tally.miss(*replica);
            }
        }
        self.doubt = doubted.map(|(version, is_ticket)| {
            Box::new(Doubt::start(turn, id, version, is_ticket, &replicas))
        });
        self.phase = Phase::Clocks(tally);
        self.advance(turn, id);
    }

    /// Round 1 has shown what becomes of a version in doubt.
    fn judge(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        let (Some(doubt), Phase::Clocks(tally)) = (&self.doubt, &self.phase) else { return };
        let (version, is_ticket, verdict) = (doubt.version, doubt.is_ticket, doubt.verdict());
        let all_have_answered = tally.waiting().next().is_none();
        let enough = tally.is_met(turn.roster);
        match verdict {
            // A ticket needs no more than to be one of this cluster's; another write needs its round 1 as well.
            Verdict::Issued => {
                self.doubt = None;
                turn.clock.absorb(version.time);
                if is_ticket {
                    self.store(turn, id, version);
                }
            }
            Verdict::Invented if enough && all_have_answered => {
                let invalid = if is_ticket { Invalid::Ticket } else { Invalid::After };
                self.finish(turn, Err(Failure::Invalid(invalid)));
                self.phase = Phase::Done;
            }
            Verdict::Open if enough && all_have_answered && !is_ticket => {
                self.finish(turn, Err(Failure::Invalid(Invalid::After)));
                self.phase = Phase::Done;
            }
            Verdict::Open if enough && all_have_answered => {
                let failure = self.unknown(version);
                self.finish(turn, Err(failure));
                self.phase = Phase::Done;
            }
            Verdict::Open | Verdict::Invented | Verdict::Waits => {}
        }
    }

    /// Nothing was sent under a ticket, but by a former attempt.
    fn unknown(&self, version: Version) -> Failure {
        let (level, required) = (self.level, self.required);
        Failure::TimedOut { level, required, received: 0, version: Some(version) }
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
                if let Some(doubt) = &mut self.doubt {
                    doubt.heard(from, sender.incarnation, *time);
                }
            }
            (Phase::Stores { tally, others, .. }, PeerAnswer::Stored { other: Some(_), .. }) => {
                tally.refuse(from);
                others.all += 1;
                let counts = sender.voting && sender.incarnation >= turn.roster.incarnation(from);
                others.votes += usize::from(counts);
                if turn.config.flaw == Some(Flaw::OtherContentOfOne) {
                    self.refuse_ticket(turn);
                    return;
                }
            }
            (Phase::Stores { cell, tally, .. }, PeerAnswer::Stored { current, other: None })
                if *current >= cell.version =>
            {
                tally.answer(from, sender, *current);
            }
            // A late reply of round 1.
            (Phase::Stores { .. }, PeerAnswer::Clock { .. }) => return,
            (Phase::Clocks(tally), _) => {
                tally.refuse(from);
                if let Some(doubt) = &mut self.doubt {
                    doubt.missed(from);
                }
            }
            (Phase::Stores { tally, refused, .. }, answer) => {
                tally.refuse(from);
                // Any other refusal may be a late one of round 1.
                *refused += usize::from(*answer == PeerAnswer::Refused(Refusal::Storage));
            }
            (Phase::Clock | Phase::Done, _) => return,
        }
        self.advance(turn, id);
    }

    pub(super) fn on_missed(&mut self, turn: &mut Turn<'_>, id: OperationId, replica: ServerId) {
        match &mut self.phase {
            Phase::Clocks(tally) => {
                tally.miss(replica);
                if let Some(doubt) = &mut self.doubt {
                    doubt.missed(replica);
                }
            }
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

    /// What waits for a greater ceiling need not, while this server's own disk takes no writes: nothing was sent, and another
    /// server can be asked.
    pub(super) fn on_ill_disk(&mut self, turn: &mut Turn<'_>) {
        let server = turn.config.server;
        let state = turn.roster.disk(server);
        if matches!(self.phase, Phase::Clock) && !state.takes_writes() {
            self.finish(turn, Err(Failure::Disk { server, state }));
            self.phase = Phase::Done;
        }
    }

    /// The next moment at which [`Write::on_time`] has something to do.
    pub(super) fn next_deadline(&self) -> Instant {
        let looks = [self.look_at, self.spared_until, self.last_word_until].into_iter().flatten();
        let look_at = looks.filter(|_| self.call.is_some()).min();
        look_at.map_or(self.deadline, |at| at.min(self.deadline))
    }

    pub(super) fn on_time(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        let now = turn.now.instant;
        if now >= self.deadline {
            self.on_deadline(turn);
            return;
        }
        if self.spared_until.is_some_and(|at| at <= now) {
            self.ask_spared(turn, id);
        }
        let is_looked = self.look_at.is_some_and(|at| at <= now);
        if is_looked {
            self.look_at = Some(now + LOOK);
        }
        let is_last_word = self.last_word_until.is_some_and(|at| at <= now);
        if is_looked || is_last_word {
            self.advance(turn, id);
        }
        if is_last_word {
            // At AVAILABLE fewer may be required by now, so that it can succeed after all.
            self.last_word_until = Some(self.deadline);
        }
    }

    fn on_deadline(&mut self, turn: &mut Turn<'_>) {
        match &self.phase {
            Phase::Clocks(tally) => {
                let failure = self.too_few_clocks(tally.received(turn.roster));
                self.finish(turn, Err(failure));
            }
            Phase::Clock => {
                self.finish(turn, Err(Failure::Overloaded { server: turn.config.server }));
            }
            Phase::Stores { cell, tally, .. } => {
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

    /// What it keeps though it was answered. Before that the bytes are those of its call.
    pub(super) fn bytes(&self) -> usize {
        match &self.phase {
            Phase::Stores { cell, .. } if self.call.is_none() => in_hand(&self.place.key, cell),
            Phase::Stores { .. } | Phase::Clocks(_) | Phase::Clock | Phase::Done => 0,
        }
    }

    /// The replicas that may still answer; once there are none, or the deadline has passed, [`Write::end`].
    pub(super) fn is_over(&self) -> bool {
        match &self.phase {
            Phase::Clocks(_) | Phase::Clock => false,
            Phase::Stores { tally, .. } => self.call.is_none() && tally.waiting().next().is_none(),
            Phase::Done => true,
        }
    }

    /// Of a write that has succeeded: its key, its version, and who holds it.
    pub(super) fn held(&self) -> Option<(&Key, Version, &Tally<Version>)> {
        match &self.phase {
            Phase::Stores { cell, tally, .. } if self.acknowledged => {
                Some((&self.place.key, cell.version, tally))
            }
            _ => None,
        }
    }

    /// Whom the cell has not reached, as far as is known.
    pub(super) fn end(self, me: ServerId) -> Option<Missed> {
        let Phase::Stores { cell, tally, .. } = self.phase else { return None };
        let replicas: Vec<_> = tally.silent().filter(|replica| *replica != me).collect();
        (!replicas.is_empty()).then_some(Missed { key: self.place.key, cell, replicas })
    }

    fn advance(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        if self.level == Level::Available {
            self.fall_back(turn, id);
        }
        if let Phase::Stores { tally, .. } = &self.phase
            && tally.is_hopeless(turn.roster)
        {
            self.ask_spared(turn, id);
        }
        self.judge(turn, id);
        match &self.phase {
            Phase::Clocks(tally) if self.doubt.is_none() && tally.is_met(turn.roster) => {
                for (_, time) in tally.votes(turn.roster) {
                    turn.clock.absorb(*time);
                }
                let majority = Level::Quorum.required(self.place.replicas.len());
                self.by_majority = tally.received(turn.roster) >= majority;
                self.issue(turn, id);
            }
            Phase::Clocks(tally) if tally.is_hopeless(turn.roster) => {
                let failure = self.too_few_clocks(tally.received(turn.roster));
                self.finish(turn, Err(failure));
                self.phase = Phase::Done;
            }
            Phase::Stores { cell, tally, others, .. } if tally.is_met(turn.roster) => {
                let version = cell.version;
                let is_newer = |(_, current): (_, &Version)| *current > version;
                let overtaken = others.all > 0 || tally.votes(turn.roster).any(is_newer);
                let reached = self.reached(tally.received(turn.roster), overtaken);
                self.acknowledged = true;
                self.finish(turn, Ok(ClientResponse::Put { version, overtaken, reached }));
            }
            Phase::Stores { tally, .. } if tally.is_hopeless(turn.roster) => self.fall_short(turn),
            Phase::Clocks(_) | Phase::Clock | Phase::Stores { .. } | Phase::Done => {}
        }
    }

    /// Too few replicas can store it.
    fn fall_short(&mut self, turn: &mut Turn<'_>) {
        let Phase::Stores { cell, tally, asked, refused, others } = &self.phase else { return };
        if self.call.is_none() {
            return;
        }
        debug_assert!(refused + others.all <= *asked, "a replica refused what it was not asked");
        let majority = Level::Quorum.required(self.place.replicas.len());
        if others.votes >= majority && refused + others.all == *asked {
            self.refuse_ticket(turn);
            return;
        }
        let is_certain =
            refused == asked || turn.config.flaw == Some(Flaw::RefusedThoughStored) && *refused > 0;
        if is_certain {
            let (level, required, version) = (self.level, self.required, cell.version);
            let refused = Failure::Refused { level, required, version };
            let failure = if self.is_ticket { refused } else { self.unavailable(0) };
            self.finish(turn, Err(failure));
            self.phase = Phase::Done;
            return;
        }
        let waiting = tally.waiting().count();
        let none_has_taken_it = refused + others.all + waiting == *asked;
        let may_be_certain = others.all == 0 || others.votes + waiting >= majority;
        if none_has_taken_it && may_be_certain {
            let now = turn.now.instant;
            let until = *self.last_word_until.get_or_insert((now + LAST_WORD).min(self.deadline));
            if now < until {
                return;
            }
        }
        let failure = self.timed_out(cell, tally.received(turn.roster));
        self.finish(turn, Err(failure));
    }

    /// What was put under this ticket before stays, and nobody has taken this.
    fn refuse_ticket(&mut self, turn: &mut Turn<'_>) {
        self.finish(turn, Err(Failure::Invalid(Invalid::TicketUsed)));
        self.phase = Phase::Done;
    }

    /// At AVAILABLE: how many are required follows who lives, and whoever has come back is asked.
    fn fall_back(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        if self.call.is_none() {
            return;
        }
        let majority = majority(turn.config, self.place.replicas.len());
        let roster = turn.roster;
        let spares = self.spares(turn);
        let may = |server: ServerId| roster.alive(server) && !(spares && hangs(turn, server));
        match &mut self.phase {
            Phase::Clocks(tally) => {
                tally.fall_back(majority, roster);
                self.required = tally.required();
                for replica in tally.resume(may) {
                    turn.out.ask_clock(replica, id, turn.config);
                }
            }
            Phase::Stores { cell, tally, asked, .. } => {
                tally.fall_back(majority, roster);
                self.required = tally.required();
                for replica in tally.resume(may) {
                    *asked += 1;
                    let (key, epoch) = (self.place.key.clone(), self.place.epoch);
                    let request = PeerRequest::Store { key, epoch, cell: cell.clone() };
                    turn.out.ask(replica, Origin::Operation(id), request, self.deadline);
                }
            }
            Phase::Clock | Phase::Done => {}
        }
    }

    /// At AVAILABLE: what the write has had. Where its version was not taken from a majority, it may be below one that was
    /// written before; a majority that holds nothing newer shows that it is not.
    fn reached(&self, holding: usize, overtaken: bool) -> Option<Reached> {
        if self.level != Level::Available {
            return None;
        }
        let replicas = self.place.replicas.len();
        debug_assert!((1..=replicas).contains(&holding), "somebody holds what was stored");
        let sound = self.by_majority || !overtaken;
        let is_quorum = sound && holding >= Level::Quorum.required(replicas);
        let level = if is_quorum { Level::Quorum } else { Level::Available };
        Some(Reached { level, holding, replicas })
    }

    /// Takes a tick, and with it the version; waits if the clock may not issue one yet.
    fn issue(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        self.phase = Phase::Clock;
        let Some(incarnation) = turn.life else { return };
        let Some(time) = turn.clock.tick(turn.now.wall) else {
            self.on_ill_disk(turn);
            return;
        };
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
        let mut asked = 0;
        let spares = self.spares(turn);
        self.spared_until = spares.then(|| turn.now.instant + SPARED);
        for replica in self.place.replicas.clone() {
            if turn.roster.reachable(replica) && !(spares && hangs(turn, replica)) {
                let (key, epoch) = (self.place.key.clone(), self.place.epoch);
                let request = PeerRequest::Store { key, epoch, cell: cell.clone() };
                turn.out.ask(replica, Origin::Operation(id), request, self.deadline);
                asked += 1;
            } else if turn.config.flaw == Some(Flaw::HintCounts)
                || spares && turn.config.flaw == Some(Flaw::SparedCounts)
            {
                let incarnation = turn.roster.incarnation(replica);
                let sender = Sender { incarnation, voting: true, ..Sender::default() };
                tally.answer(replica, &sender, version);
            } else {
                tally.miss(replica);
            }
        }
        let others = Others::default();
        self.phase = Phase::Stores { cell, tally, asked, refused: 0, others };
        self.advance(turn, id);
    }

    /// Whether some replica's disk hangs, and enough can store without those.
    fn spares(&self, turn: &Turn<'_>) -> bool {
        let can = |replica: &&ServerId| {
            turn.roster.reachable(**replica) && turn.roster.disk(**replica) != DiskState::Hanging
        };
        let replicas = &self.place.replicas;
        replicas.iter().any(|replica| hangs(turn, *replica))
            && replicas.iter().filter(can).count() >= self.required
    }

    /// Those that were left out are needed: their disks may be well again, or in a moment.
    fn ask_spared(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        let Phase::Stores { cell, tally, asked, .. } = &mut self.phase else { return };
        if self.spared_until.take().is_none() || self.call.is_none() {
            return;
        }
        for replica in tally.resume(|replica| turn.roster.reachable(replica)) {
            *asked += 1;
            let (key, epoch) = (self.place.key.clone(), self.place.epoch);
            let request = PeerRequest::Store { key, epoch, cell: cell.clone() };
            turn.out.ask(replica, Origin::Operation(id), request, self.deadline);
        }
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

    /// Round 1 has not come to its end: nothing was sent, but by a former attempt under a ticket.
    fn too_few_clocks(&self, alive: usize) -> Failure {
        match &self.doubt {
            Some(doubt) if doubt.is_ticket => self.unknown(doubt.version),
            _ => self.unavailable(alive),
        }
    }

    fn unavailable(&self, alive: usize) -> Failure {
        Failure::Unavailable { level: self.level, required: self.required, alive }
    }

    fn timed_out(&self, cell: &Cell, received: usize) -> Failure {
        let version = Some(cell.version);
        Failure::TimedOut { level: self.level, required: self.required, received, version }
    }
}

/// A cell that is sent there would wait for the disk. This server's own memory holds it in any case, and nobody would bring
/// it the cell later: it gets no hint from itself.
fn hangs(turn: &Turn<'_>, replica: ServerId) -> bool {
    replica != turn.config.server && turn.roster.disk(replica) == DiskState::Hanging
}

/// Whether this server can tell by itself that the version may be one of this cluster's.
fn may_be_issued(turn: &Turn<'_>, version: Version) -> bool {
    is_near(version, turn.now.wall.max(turn.clock.seen()))
}

/// A deliberate fault.
fn judges_by_own_clock(turn: &Turn<'_>, version: Version) -> bool {
    turn.config.flaw == Some(Flaw::RefuseByOwnClock) && !is_near(version, turn.now.wall)
}
