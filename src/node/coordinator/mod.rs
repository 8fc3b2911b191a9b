//! What a server does for the clients that ask it: it coordinates.
//!
//! # A write
//!
//! | step | at QUORUM and ALL | at ONE |
//! |---|---|---|
//! | 0 | fewer alive than required: *unavailable*, nothing is sent | the same |
//! | 1 | ask the replicas for the greatest version time they have seen; as many as required must answer, else *unavailable* | – |
//! | 2 | absorb the newest answer into the clock, take one tick: that is the version | take a tick |
//! | 3 | send the cell to all replicas; as many as required hold it durably: *success* | one suffices |
//! | 4 | the deadline passes, or no more can answer: *unknown*, with the version as ticket | the same |
//!
//! A replica whose disk is full or read-only is not counted on in step 0, and the cell is sent to it all the same: it refuses at
//! once, unless it has room again. To one whose disk hangs the cell is sent only if the others are too few, or have not answered after a
//! tenth of a second, for it would wait there in memory: it gets a hint. The clock of step 1 needs no disk, so both are asked for that. A coordinator whose
//! own disk takes no writes answers with a definite no once it may issue no more versions, which is after two seconds at most.
//!
//! After the answer the write goes on until every replica has answered or the deadline has passed; whom it has
//! not reached gets a hint. What goes on so is bounded in bytes: beyond [`Config::max_lingering`] the writes that wait for longest end
//! early, and leave hints. A replica that holds something newer, durably, counts: this write was overtaken by a
//! concurrent one. A write that failed is never undone, for a reader may have seen it, and never sent again
//! under another version, for it might then be seen twice.
//!
//! A version that a client brings, as a ticket or as one to write after, is absorbed only once it is known that a server of this
//! cluster can have issued it; [`doubt`] says how, and what is refused.
//!
//! At AVAILABLE the steps are those of QUORUM, but a majority is required only while it lives; else all that live are, and one at
//! least. Who lives is looked at whenever something is heard and every [`LOOK`], so a majority may be lost in the middle. A replica that
//! lives and refuses, or whose disk hangs, is no dead one: a later read might ask that one alone. What the answer says it has had is QUORUM only if
//! the version was taken from a majority, or a majority holds nothing newer.
//!
//! # A read
//!
//! As many replicas as required are asked, one for its cell, the others for their versions; the rest when one of these is lost or
//! late. A page of a scan is asked of all at once, and at ONE as a get is. Once as many as required have answered, the
//! newest version among them is the answer, if as many as required hold it; else it is first written back to
//! them. That a majority holds what is answered is what makes two reads in a row never go back in time. Whoever
//! answers later with something older is repaired behind the scenes.
//!
//! At AVAILABLE, likewise, a majority or all that live; in either case those hold what is answered. At ONE the first answer is enough,
//! unless it is *not found*, or older than what this server has acknowledged: then all that live are asked. Whom it asks
//! first it knows from its own writes, those under way and those that have left hints.
//!
//! This is the register of Attiya, Bar-Noy and Dolev (1995) with the second round of Lynch and Shvartsman (1997)
//! for many writers. What counts as an answer is in [`tally`].
//!
//! # What is left out
//!
//! Compare-and-set, which comes later. One-round writes, on purpose: `docs/decisions/0008`.

mod doubt;
mod read;
mod scan;
mod tally;
mod write;

pub use tally::Tally;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use smallvec::SmallVec;

use self::read::Read;
use self::scan::Scan;
pub(super) use self::scan::ScanPart;
use self::write::{Under, Write};
use super::turn::{Known, OperationId, Roster, Turn};
use super::{Config, Flaw};
use crate::model::{
    CallId, Cell, Content, Epoch, Failure, Instant, Invalid, Key, Level, PageEntry, PeerAnswer,
    PeerReply, Pending, PreparedPut, ServerId, Version,
};

/// An operation whose end hangs on who lives looks at that so often: a server that dies in silence is noticed by time alone.
const LOOK: Duration = Duration::from_millis(50);

/// Writes that succeeded while this server's own disk did not take them; beyond so many it is asked last for every key.
const OWN_MISSES: usize = 1_024;

/// What a call at AVAILABLE requires while that many live.
fn majority(config: &Config, replicas: usize) -> usize {
    match config.flaw {
        Some(Flaw::AvailableAsksOne) => 1,
        _ => Level::Quorum.required(replicas),
    }
}

/// Where a key lies and who keeps it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The key's place in the order.
    pub(super) key: Key,
    /// Of its range.
    pub(super) epoch: Epoch,
    /// In order of preference.
    pub(super) replicas: SmallVec<[ServerId; 8]>,
    /// Where its range ends, exclusive.
    pub(super) end: Option<Key>,
}

impl Place {
    fn of(config: &Config, key: Key) -> Place {
        let range = config.topology.range_of(&key);
        let (epoch, replicas, end) =
            (range.epoch, SmallVec::from_slice(&range.replicas), range.end.clone());
        Place { key, epoch, replicas, end }
    }

    /// Replicas that may be counted on.
    fn alive(&self, roster: &dyn Roster) -> usize {
        self.replicas.iter().filter(|replica| roster.alive(**replica)).count()
    }

    /// Of those, the ones that can be expected to store.
    fn storing(&self, roster: &dyn Roster) -> usize {
        let stores =
            |replica: &&ServerId| roster.alive(**replica) && roster.disk(**replica).takes_writes();
        self.replicas.iter().filter(stores).count()
    }
}

/// A write has ended without these replicas.
#[derive(Clone, Debug)]
pub(super) struct Missed {
    pub(super) key: Key,
    pub(super) cell: Cell,
    pub(super) replicas: Vec<ServerId>,
}

#[derive(Debug)]
enum Operation {
    Write(Write),
    Read(Read),
    Scan(Scan),
}

#[derive(Debug)]
struct InFlight {
    /// When it wants to be looked at.
    at: Instant,
    operation: Operation,
    /// Bytes that are counted for it.
    bytes: usize,
    /// They are counted as lingering.
    lingers: bool,
}

/// All operations of clients in flight.
#[derive(Debug, Default)]
pub(super) struct Coordinator {
    operations: Pending<InFlight>,
    /// The moments at which operations want to be looked at; the same as in `operations`.
    deadlines: BTreeSet<(Instant, OperationId)>,
    /// Operations whose client still waits.
    unanswered: usize,
    /// Bytes that operations keep whose clients were answered.
    lingering: usize,
    /// Bytes of values and pages that have come for the others.
    gathered: usize,
    /// Of each key, the greatest write that has succeeded and goes on: some replicas may not hold it yet.
    unsettled: BTreeMap<Key, OperationId>,
    /// Writes that have ended without this server's own replica.
    own_misses: BTreeMap<Key, Version>,
    /// There were too many of them.
    own_misses_full: bool,
    /// Writes that wait for a greater clock ceiling.
    clock_waiters: BTreeSet<OperationId>,
    next_operation: u64,
    /// How long reads take, in microseconds: an average that forgets.
    usual_read: u64,
}

impl Coordinator {
    /// Calls that clients wait for.
    pub(super) fn calls(&self) -> usize {
        self.unanswered
    }

    /// Operations that are not over.
    pub(super) fn in_hand(&self) -> usize {
        self.operations.len()
    }

    pub(super) fn put(
        &mut self,
        turn: &mut Turn<'_>,
        call: CallId,
        put: PreparedPut,
    ) -> Option<Missed> {
        let PreparedPut { key, content, level, timeout, ticket, after } = put;
        let deadline = turn.now.instant + timeout.unwrap_or(turn.config.timeout);
        let under = ticket.map_or(Under::New { after }, Under::Ticket);
        self.write(turn, call, key, level, deadline, Some(content), under)
    }

    pub(super) fn prepare(
        &mut self,
        turn: &mut Turn<'_>,
        call: CallId,
        key: Key,
        level: Level,
        deadline: Instant,
        after: Option<Version>,
    ) {
        self.write(turn, call, key, level, deadline, None, Under::New { after });
    }

    #[expect(clippy::too_many_arguments, reason = "one write's parts, each of its own type")]
    fn write(
        &mut self,
        turn: &mut Turn<'_>,
        call: CallId,
        key: Key,
        level: Level,
        deadline: Instant,
        content: Option<Content>,
        under: Under,
    ) -> Option<Missed> {
        let id = self.allot();
        let place = Place::of(turn.config, turn.config.partitioner.place(&key));
        match Write::start(turn, id, call, place, level, deadline, content, under) {
            Ok(write) => self.admit(turn, id, write.next_deadline(), Operation::Write(write)),
            Err(failure) => {
                turn.out.count("writes_refused");
                turn.out.answer(call, Err(failure));
                None
            }
        }
    }

    pub(super) fn get(
        &mut self,
        turn: &mut Turn<'_>,
        call: CallId,
        key: Key,
        level: Level,
        deadline: Instant,
        owed: impl FnOnce(&Key, &[ServerId]) -> Known,
    ) {
        let id = self.allot();
        let place = Place::of(turn.config, turn.config.partitioner.place(&key));
        let known = match level {
            Level::One if turn.config.flaw != Some(Flaw::OneForgetsWrites) => {
                self.known(turn, &place, owed(&place.key, &place.replicas))
            }
            _ => None,
        };
        let patience = self.patience();
        match Read::start(turn, id, call, place, level, deadline, patience, known) {
            Ok(read) => {
                self.admit(turn, id, read.next_deadline(), Operation::Read(read));
            }
            Err(failure) => {
                turn.out.count("reads_refused");
                turn.out.answer(call, Err(failure));
            }
        }
    }

    /// How long a read waits for those that it has asked first: several times as long as usual is late.
    fn patience(&self) -> Duration {
        let patience = Duration::from_micros(self.usual_read.saturating_mul(8));
        patience.clamp(read::PATIENCE.0, read::PATIENCE.1)
    }

    /// What this server knows of a key that it has written: of writes that have ended, from the hints they left (`owed`); of
    /// those that go on, from themselves.
    fn known(&self, turn: &Turn<'_>, place: &Place, owed: Known) -> Option<Box<Known>> {
        let mut known = owed;
        let me = turn.config.server;
        if let Some(version) = self.own_misses.get(&place.key) {
            known.version = known.version.max(*version);
            known.behind.push(me);
        } else if self.own_misses_full {
            known.behind.push(me);
        }
        if let Some(id) = self.unsettled.get(&place.key)
            && let Some(InFlight { operation: Operation::Write(write), .. }) =
                self.operations.get(id.0)
            && let Some((_, version, tally)) = write.held()
        {
            known.version = known.version.max(version);
            known.behind.extend(tally.silent());
        }
        if known.behind.is_empty() {
            return None;
        }
        let living = |server: &&ServerId| turn.roster.alive(**server);
        let is_behind = |server: &ServerId| known.behind.contains(server);
        let says_little = known.version.is_zero() || known.by_mark;
        if says_little && place.replicas.iter().filter(living).all(is_behind) {
            // Too much was missed to say what: all that live are asked.
            known.little = true;
        }
        Some(Box::new(known))
    }

    #[expect(clippy::too_many_arguments, reason = "one scan's parts, each of its own type")]
    pub(super) fn scan(
        &mut self,
        turn: &mut Turn<'_>,
        call: CallId,
        from: Key,
        to: Option<Key>,
        limit: usize,
        level: Level,
        deadline: Instant,
        any_order: bool,
    ) {
        let id = self.allot();
        let invalid = if !any_order && !turn.config.partitioner.keeps_order() {
            Some(Invalid::UnorderedScan)
        } else if to.as_ref().is_some_and(|to| *to <= from) {
            Some(Invalid::EmptyRange)
        } else if level == Level::Available {
            Some(Invalid::ScanLevel)
        } else {
            None
        };
        let started = match invalid {
            Some(invalid) => Err(Failure::Invalid(invalid)),
            None => {
                let patience = self.patience();
                Scan::start(turn, id, call, from, to, limit, level, deadline, patience)
            }
        };
        match started {
            Ok(scan) => {
                self.admit(turn, id, scan.next_deadline(), Operation::Scan(scan));
            }
            Err(failure) => {
                turn.out.count("reads_refused");
                turn.out.answer(call, Err(failure));
            }
        }
    }

    /// A replica has answered a scan.
    pub(super) fn on_scan_reply(
        &mut self,
        turn: &mut Turn<'_>,
        id: OperationId,
        from: ServerId,
        part: &ScanPart,
        reply: &PeerReply,
    ) {
        let too_much = self.is_too_much(turn.config, id, reply);
        self.with(turn, id, |operation, turn| match operation {
            Operation::Scan(scan) if too_much => scan.overload(turn),
            Operation::Scan(scan) => scan.on_reply(turn, id, from, part, reply),
            Operation::Write(_) | Operation::Read(_) => {}
        });
    }

    /// A replica has answered a write or a read.
    pub(super) fn on_reply(
        &mut self,
        turn: &mut Turn<'_>,
        id: OperationId,
        from: ServerId,
        reply: &PeerReply,
    ) -> Option<Missed> {
        let too_much = self.is_too_much(turn.config, id, reply);
        self.with(turn, id, |operation, turn| match operation {
            Operation::Write(write) => write.on_reply(turn, id, from, reply),
            Operation::Read(read) if too_much => read.overload(turn),
            Operation::Read(read) => read.on_reply(turn, id, from, reply),
            Operation::Scan(_) => {}
        })
    }

    /// What has come is more than can be kept beside what has come for others.
    fn is_too_much(&self, config: &Config, id: OperationId, reply: &PeerReply) -> bool {
        let bytes = match &reply.answer {
            PeerAnswer::Held { content: Some(content), .. } => content.len(),
            PeerAnswer::Page { entries, .. } => bytes_of(entries),
            _ => 0,
        };
        if bytes == 0 || self.gathered + bytes <= config.max_gathering {
            return false;
        }
        let own = self.operations.get(id.0).filter(|of| !of.lingers).map_or(0, |of| of.bytes);
        self.gathered > own
    }

    /// A replica will not answer.
    pub(super) fn on_missed(
        &mut self,
        turn: &mut Turn<'_>,
        id: OperationId,
        replica: ServerId,
    ) -> Option<Missed> {
        self.with(turn, id, |operation, turn| match operation {
            Operation::Write(write) => write.on_missed(turn, id, replica),
            Operation::Read(read) => read.on_missed(turn, id, replica),
            Operation::Scan(scan) => scan.on_missed(turn, id, replica),
        })
    }

    /// A greater clock ceiling is durable: writes that waited for it go on.
    pub(super) fn on_clock(&mut self, turn: &mut Turn<'_>) -> Vec<Missed> {
        let ids: Vec<_> = self.clock_waiters.iter().copied().collect();
        ids.into_iter()
            .filter_map(|id| {
                self.with(turn, id, |operation, turn| {
                    if let Operation::Write(write) = operation {
                        write.on_clock(turn, id);
                    }
                })
            })
            .collect()
    }

    /// This server's own disk takes no writes: no greater clock ceiling is to be expected. Nothing was sent of what waits for
    /// one.
    pub(super) fn on_ill_disk(&mut self, turn: &mut Turn<'_>) {
        let ids: Vec<_> = self.clock_waiters.iter().copied().collect();
        for id in ids {
            let missed = self.with(turn, id, |operation, turn| {
                if let Operation::Write(write) = operation {
                    write.on_ill_disk(turn);
                }
            });
            debug_assert!(missed.is_none(), "what was sent nowhere is missing nowhere");
        }
    }

    /// Some write waits for a greater clock ceiling.
    pub(super) fn awaits_clock(&self) -> bool {
        !self.clock_waiters.is_empty()
    }

    /// At once, while more lingers than may.
    pub(super) fn next_deadline(&self, config: &Config) -> Option<Instant> {
        let first = self.deadlines.first().map(|(at, _)| *at);
        if self.lingering > config.max_lingering { Some(Instant(0)) } else { first }
    }

    pub(super) fn on_time(&mut self, turn: &mut Turn<'_>) -> Vec<Missed> {
        let mut missed = self.let_go(turn);
        while let Some((at, id)) = self.deadlines.first().copied()
            && at <= turn.now.instant
        {
            missed.extend(self.with(turn, id, |operation, turn| match operation {
                Operation::Write(write) => write.on_time(turn, id),
                Operation::Read(read) => read.on_time(turn, id),
                Operation::Scan(scan) => scan.on_time(turn, id),
            }));
            if self.deadlines.first() == Some(&(at, id)) {
                // Its moment has come and nothing else is planned for it.
                missed.extend(self.end(turn.config.server, id));
            }
        }
        missed
    }

    /// Ends answered operations, those that began first, until an eighth of what may linger is free again.
    fn let_go(&mut self, turn: &mut Turn<'_>) -> Vec<Missed> {
        let most = turn.config.max_lingering;
        if self.lingering <= most {
            return Vec::new();
        }
        let mut excess = self.lingering - (most - most / 8);
        let mut ids = Vec::new();
        for (id, in_flight) in self.operations.iter() {
            if in_flight.lingers && in_flight.bytes > 0 {
                ids.push(OperationId(id));
                excess = excess.saturating_sub(in_flight.bytes);
            }
            if excess == 0 {
                break;
            }
        }
        debug_assert_eq!(excess, 0, "what lingers is in hand");
        turn.out.count_many("operations_let_go", ids.len());
        let missed: Vec<_> =
            ids.into_iter().filter_map(|id| self.end(turn.config.server, id)).collect();
        debug_assert!(self.lingering <= most, "enough was let go");
        if turn.config.flaw == Some(Flaw::LetGoWithoutHint) { Vec::new() } else { missed }
    }

    fn allot(&mut self) -> OperationId {
        self.next_operation += 1;
        OperationId(self.next_operation)
    }

    fn admit(
        &mut self,
        turn: &mut Turn<'_>,
        id: OperationId,
        at: Instant,
        operation: Operation,
    ) -> Option<Missed> {
        self.unanswered += 1;
        self.operations.insert(id.0, InFlight { at, operation, bytes: 0, lingers: false });
        self.deadlines.insert((at, id));
        self.settle(turn, id, false)
    }

    /// Lets one operation take something in, and sees to what has become of it.
    fn with(
        &mut self,
        turn: &mut Turn<'_>,
        id: OperationId,
        act: impl FnOnce(&mut Operation, &mut Turn<'_>),
    ) -> Option<Missed> {
        let InFlight { operation, .. } = self.operations.get_mut(id.0)?;
        let was_answered = operation.is_answered();
        act(operation, turn);
        self.settle(turn, id, was_answered)
    }

    fn settle(
        &mut self,
        turn: &mut Turn<'_>,
        id: OperationId,
        was_answered: bool,
    ) -> Option<Missed> {
        let in_flight = self.operations.get_mut(id.0)?;
        in_flight.count(&mut self.lingering, &mut self.gathered);
        let InFlight { at, operation, .. } = in_flight;
        let mut succeeded = None;
        if operation.is_answered() && !was_answered {
            self.unanswered -= 1;
            if let Operation::Read(read) = operation
                && let Some(took) = read.took(turn.now.instant)
            {
                let took = took.as_micros() as u64;
                self.usual_read = self.usual_read - self.usual_read / 16 + took / 16;
            }
            if let Operation::Write(write) = operation {
                succeeded = write.held().map(|(key, version, _)| (key.clone(), version));
            }
        }
        if operation.is_over() {
            return self.end(turn.config.server, id);
        }
        if let Operation::Write(write) = operation {
            if write.awaits_clock() {
                self.clock_waiters.insert(id);
            } else if !self.clock_waiters.is_empty() {
                self.clock_waiters.remove(&id);
            }
        }
        let next = match operation {
            Operation::Read(read) => read.next_deadline(),
            Operation::Scan(scan) => scan.next_deadline(),
            Operation::Write(write) => write.next_deadline(),
        };
        if next != *at {
            self.deadlines.remove(&(*at, id));
            self.deadlines.insert((next, id));
            *at = next;
        }
        if let Some((key, version)) = succeeded {
            self.note_unsettled(id, key, version);
        }
        None
    }

    /// A write has succeeded and goes on.
    fn note_unsettled(&mut self, id: OperationId, key: Key, version: Version) {
        let former = self.unsettled.get(&key).and_then(|id| self.operations.get(id.0));
        let is_greater = match former {
            Some(InFlight { operation: Operation::Write(write), .. }) => {
                write.held().is_some_and(|(_, former, _)| former > version)
            }
            _ => false,
        };
        if !is_greater {
            self.unsettled.insert(key, id);
        }
    }

    /// A write is over that has succeeded: the hints it leaves say whom it has not reached, but for this server itself.
    fn settle_write(&mut self, me: ServerId, id: OperationId, write: &Write) {
        let Some((key, version, tally)) = write.held() else { return };
        if self.unsettled.get(key) == Some(&id) {
            self.unsettled.remove(key);
        }
        if tally.silent().any(|server| server == me) {
            if self.own_misses.len() >= OWN_MISSES {
                self.own_misses_full = true;
                return;
            }
            let missed = self.own_misses.entry(key.detached()).or_default();
            *missed = (*missed).max(version);
        } else if let Some(missed) = self.own_misses.get(key)
            && tally.answers().any(|(server, held)| server == me && held >= missed)
        {
            self.own_misses.remove(key);
        }
    }

    fn end(&mut self, me: ServerId, id: OperationId) -> Option<Missed> {
        let mut in_flight = self.operations.remove(id.0)?;
        in_flight.uncount(&mut self.lingering, &mut self.gathered);
        let InFlight { at, operation, .. } = in_flight;
        self.deadlines.remove(&(at, id));
        if !self.clock_waiters.is_empty() {
            self.clock_waiters.remove(&id);
        }
        let none = self.operations.is_empty();
        debug_assert!(!none || self.lingering + self.gathered == 0, "bytes of what is not there");
        match operation {
            Operation::Write(write) => {
                self.settle_write(me, id, &write);
                write.end(me)
            }
            Operation::Read(_) | Operation::Scan(_) => None,
        }
    }
}

impl InFlight {
    fn uncount(&mut self, lingering: &mut usize, gathered: &mut usize) {
        let of = if self.lingers { lingering } else { gathered };
        debug_assert!(*of >= self.bytes, "bytes are counted once");
        *of -= std::mem::take(&mut self.bytes);
    }

    /// Counts what it keeps now, and no longer what it kept.
    fn count(&mut self, lingering: &mut usize, gathered: &mut usize) {
        self.uncount(lingering, gathered);
        (self.bytes, self.lingers) = (self.operation.bytes(), self.operation.is_answered());
        *(if self.lingers { lingering } else { gathered }) += self.bytes;
    }
}

/// Bytes of a page's keys and values.
fn bytes_of(entries: &[PageEntry]) -> usize {
    let bytes = |entry: &PageEntry| {
        entry.key.as_bytes().len() + entry.content.as_ref().map_or(0, Content::len)
    };
    entries.iter().map(bytes).sum()
}

impl Operation {
    fn is_answered(&self) -> bool {
        match self {
            Operation::Write(write) => write.is_answered(),
            Operation::Read(read) => read.is_answered(),
            Operation::Scan(scan) => scan.is_over(),
        }
    }

    /// Bytes that it keeps, beside those of a call that waits for its answer.
    fn bytes(&self) -> usize {
        match self {
            Operation::Write(write) => write.bytes(),
            Operation::Read(read) => read.bytes(),
            Operation::Scan(scan) => scan.bytes(),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Operation::Write(write) => write.is_over(),
            Operation::Read(read) => read.is_over(),
            Operation::Scan(scan) => scan.is_over(),
        }
    }
}
