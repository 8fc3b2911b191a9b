//! How a server with a new data folder comes to vote, without anything being lost.
//!
//! A server that lost its disk has forgotten cells that it had acknowledged. If it voted at once, a write held by
//! it and one other would be held by one, and two such losses in turn would erase it with no error anywhere. So it
//! proceeds in this order, for every range it keeps, with *r* replicas of which *q* are a majority:
//!
//! 1. **Ask** r − q + 1 of the other replicas which life of this server they remember. The new incarnation is
//!    above all of them.
//! 2. **Record**: r − q + 1 others durably record it. From then on every answer of theirs makes coordinators
//!    discard what the former life said; and r − q + 1 is one more than can be missing from any majority.
//! 3. If none of them has known this server under another folder, it is new, and so are the others, or they have
//!    not stored anything that it had a part in: it **votes**.
//! 4. Else r − q + 1 of those who recorded it, voting themselves, are **copied** from, range by range. A write
//!    acknowledged by the former life was also on q − 1 others, of which at least one is among them. Then it votes.
//!
//! Copying from one source, or before the record, loses writes; the simulator shows it. With one replica there are
//! no others: only `--accept-loss` lets such a server vote, as it lets one whose peers are gone for good.
//!
//! The same way goes a server that finds itself in an *older copy* of its folder (a peer remembers a higher log
//! position, told by another process of it, than this one found when it began), or whose log was damaged: it keeps its cells, takes a new folder number, and is rebuilt.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::Flaw;
use super::super::turn::{JoinStep, Origin, Turn};
use crate::model::{
    Cell, Incarnation, Instant, Join as JoinRequest, Key, PageEntry, PeerAnswer, PeerReply,
    PeerRequest, Remembered, ServerId,
};
use crate::storage::Identity;

/// Peers that have not answered are asked again this often.
const RETRY: Duration = Duration::from_millis(500);
/// With `--accept-loss`, how long each step waits for more answers.
const ACCEPT_LOSS_AFTER: Duration = Duration::from_secs(3);
/// Cells of a page.
const PAGE_ENTRIES: usize = 512;
/// Bytes of a page.
const PAGE_BYTES: usize = 1 << 20;
/// A copy step without an answer for so long is begun again.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server that does not vote yet.
#[derive(Debug)]
pub(in super::super) struct Join {
    step: Step,
    /// The present step began then.
    since: Instant,
    retry_at: Instant,
    next_number: u64,
}

#[derive(Debug)]
enum Step {
    /// 1: what do they remember?
    Asking(BTreeMap<ServerId, Option<Remembered>>),
    /// The new incarnation is being saved here.
    Choosing,
    /// 2: who has recorded it?
    Recording(BTreeMap<ServerId, Recorder>),
    /// 4: from whom, which range.
    Copying(Copying),
    /// The right to vote is being saved here.
    Finishing,
}

/// A peer that has durably recorded the new incarnation.
#[derive(Clone, Copy, Debug)]
struct Recorder {
    /// It votes itself, so its cells are worth copying.
    voting: bool,
    /// In this life: a later one would not know of the record.
    incarnation: Incarnation,
}

#[derive(Debug)]
struct Copying {
    number: u64,
    /// Range starts and sources still to do; the last is under way.
    tasks: Vec<(Key, ServerId)>,
    recorders: BTreeMap<ServerId, Recorder>,
    /// First key of the present page.
    cursor: Key,
    /// Where the next page begins; `None`: this was the range's last.
    next: Option<Key>,
    /// Cells of the page that are not durable here yet.
    open: usize,
    deadline: Instant,
    /// Cells copied so far.
    cells: u64,
}

/// What `node.rs` is to save, and then to tell with [`Join::on_saved`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Decision {
    /// This incarnation, not voting; cells of a former life may be missing here.
    Choose { incarnation: Incarnation, forgetful: bool },
    /// It votes.
    Vote,
}

impl Join {
    /// For an identity that does not vote.
    pub(in super::super) fn new(identity: &Identity, now: Instant) -> Join {
        let step = if identity.incarnation == Incarnation::NONE {
            Step::Asking(BTreeMap::new())
        } else {
            Step::Recording(BTreeMap::new())
        };
        Join { step, since: now, retry_at: now, next_number: 0 }
    }

    /// For a server that has lost cells: from the very beginning.
    pub(in super::super) fn anew(now: Instant) -> Join {
        let step = Step::Asking(BTreeMap::new());
        Join { step, since: now, retry_at: now, next_number: 0 }
    }

    /// Whether the incarnation is recorded, so that versions may be issued under it.
    pub(in super::super) fn is_recorded(&self) -> bool {
        match self.step {
            Step::Asking(_) | Step::Choosing | Step::Recording(_) => false,
            Step::Copying(_) | Step::Finishing => true,
        }
    }

    /// In words, for people.
    pub(in super::super) fn describe(&self) -> String {
        match &self.step {
            Step::Asking(_) | Step::Choosing => {
                "not voting: asking the other replicas of its ranges what they remember of this server"
                    .to_owned()
            }
            Step::Recording(recorders) => format!(
                "not voting: {} other servers have recorded its new data folder, more are needed \
                 (start the other replicas of its ranges, or use --accept-loss if they are gone)",
                recorders.len()
            ),
            Step::Copying(copying) => format!(
                "not voting: being rebuilt from the other replicas, {} cells copied, {} copies to go",
                copying.cells,
                copying.tasks.len()
            ),
            Step::Finishing => "about to vote".to_owned(),
        }
    }

    pub(in super::super) fn next_deadline(&self) -> Instant {
        match &self.step {
            Step::Copying(copying) => copying.deadline,
            Step::Asking(_) | Step::Choosing | Step::Recording(_) | Step::Finishing => {
                self.retry_at
            }
        }
    }

    pub(in super::super) fn on_time(
        &mut self,
        turn: &mut Turn<'_>,
        identity: &Identity,
    ) -> Option<Decision> {
        match &self.step {
            Step::Copying(copying) => {
                if copying.deadline <= turn.now.instant {
                    self.record_again(turn);
                }
            }
            Step::Asking(_) | Step::Choosing | Step::Recording(_) | Step::Finishing => {}
        }
        if self.retry_at > turn.now.instant {
            return None;
        }
        self.ask(turn, identity);
        self.advance(turn, identity)
    }

    /// A peer can be reached: ask it at once.
    pub(in super::super) fn on_link_up(&mut self, now: Instant) {
        self.retry_at = now;
    }

    fn ask(&mut self, turn: &mut Turn<'_>, identity: &Identity) {
        let (request, step, done): (_, _, BTreeSet<ServerId>) = match &self.step {
            Step::Asking(answers) => {
                (Incarnation::NONE, JoinStep::Ask, answers.keys().copied().collect())
            }
            Step::Recording(recorders) => (
                identity.incarnation,
                JoinStep::Record(identity.incarnation),
                // Those that do not vote yet are asked again: they may by now.
                recorders.iter().filter(|(_, r)| r.voting).map(|(server, _)| *server).collect(),
            ),
            Step::Choosing | Step::Copying(_) | Step::Finishing => {
                self.retry_at = turn.now.instant + RETRY;
                return;
            }
        };
        self.retry_at = turn.now.instant + RETRY;
        for peer in turn.config.topology.neighbours(turn.config.server) {
            if turn.roster.reachable(peer) && !done.contains(&peer) {
                let join = JoinRequest { incarnation: request, folder: identity.folder };
                let expires = turn.now.instant + PATIENCE;
                turn.out.ask(peer, Origin::Join(step.clone()), PeerRequest::Join(join), expires);
            }
        }
    }

    pub(in super::super) fn on_reply(
        &mut self,
        turn: &mut Turn<'_>,
        identity: &Identity,
        from: ServerId,
        step: &JoinStep,
        reply: PeerReply,
    ) -> Option<Decision> {
        match (&mut self.step, step, reply.answer) {
            (Step::Asking(answers), JoinStep::Ask, PeerAnswer::Joined { remembered, .. }) => {
                answers.insert(from, remembered);
            }
            (
                Step::Recording(recorders),
                JoinStep::Record(incarnation),
                PeerAnswer::Joined { recorded, remembered },
            ) if *incarnation == identity.incarnation => {
                if recorded {
                    let (voting, incarnation) = (reply.sender.voting, reply.sender.incarnation);
                    recorders.insert(from, Recorder { voting, incarnation });
                    let replaced = remembered.is_some_and(|remembered| remembered.replaced);
                    if replaced && !identity.forgetful {
                        // Known before under another folder: nothing may be taken for a first start.
                        let incarnation = identity.incarnation;
                        return Some(Decision::Choose { incarnation, forgetful: true });
                    }
                } else {
                    // Another life of this server has come further than this one.
                    self.enter(turn, Step::Asking(BTreeMap::new()));
                    self.ask(turn, identity);
                    return None;
                }
            }
            (
                Step::Copying(copying),
                JoinStep::Page(number),
                PeerAnswer::Page { entries, truncated },
            ) if copying.number == *number => {
                let known = copying.recorders.get(&from).map(|recorder| recorder.incarnation);
                if !reply.sender.voting || known != Some(reply.sender.incarnation) {
                    self.record_again(turn);
                    return None;
                }
                copying.take(turn, entries, truncated);
            }
            (Step::Copying(copying), JoinStep::Store(number), PeerAnswer::Stored { .. })
                if copying.number == *number =>
            {
                copying.open = copying.open.saturating_sub(1);
                copying.cells += 1;
                copying.deadline = turn.now.instant + PATIENCE;
            }
            // A refusal, or an answer to a former step: the deadline or the next try will see to it.
            (_, _, _) => return None,
        }
        self.advance(turn, identity)
    }

    /// What was decided is durable.
    pub(in super::super) fn on_saved(
        &mut self,
        turn: &mut Turn<'_>,
        identity: &Identity,
    ) -> Option<Decision> {
        match &mut self.step {
            Step::Choosing => {
                self.enter(turn, Step::Recording(BTreeMap::new()));
                self.ask(turn, identity);
                None
            }
            Step::Recording(_) => self.advance(turn, identity),
            Step::Asking(_) | Step::Copying(_) | Step::Finishing => None,
        }
    }

    /// The right to vote is saved: this is over.
    pub(in super::super) fn is_finishing(&self) -> bool {
        matches!(self.step, Step::Finishing)
    }

    fn advance(&mut self, turn: &mut Turn<'_>, identity: &Identity) -> Option<Decision> {
        let patience_over =
            turn.config.accept_loss && turn.now.instant - self.since >= ACCEPT_LOSS_AFTER;
        match &mut self.step {
            Step::Asking(answers) => {
                let answered = |server: &ServerId| answers.contains_key(server);
                if !covers(turn, answered) && !patience_over {
                    return None;
                }
                let remembered = || answers.values().flatten();
                let forgetful = identity.forgetful
                    || remembered().any(|remembered| remembered.folder != identity.folder);
                let latest = remembered().map(|remembered| remembered.incarnation).max();
                let incarnation = latest.max(Some(identity.incarnation)).unwrap_or_default().next();
                self.enter(turn, Step::Choosing);
                Some(Decision::Choose { incarnation, forgetful })
            }
            Step::Recording(_) if turn.config.flaw == Some(Flaw::VoteEmpty) => {
                self.enter(turn, Step::Finishing);
                Some(Decision::Vote)
            }
            Step::Recording(recorders) => {
                let recorded = |server: &ServerId| recorders.contains_key(server);
                if !covers(turn, recorded) && !patience_over {
                    return None;
                }
                if !identity.forgetful {
                    self.enter(turn, Step::Finishing);
                    return Some(Decision::Vote);
                }
                let votes = |server: &ServerId| {
                    recorders.get(server).is_some_and(|recorder| recorder.voting)
                };
                if !covers(turn, votes) && !patience_over {
                    return None;
                }
                let tasks = sources(turn, votes);
                let recorders = recorders.clone();
                self.next_number += 1;
                let copying = Copying {
                    number: self.next_number,
                    tasks,
                    recorders,
                    cursor: Key::bound(""),
                    next: None,
                    open: 0,
                    deadline: turn.now.instant + PATIENCE,
                    cells: 0,
                };
                self.enter(turn, Step::Copying(copying));
                if let Step::Copying(copying) = &mut self.step
                    && copying.begin_range(turn)
                {
                    return None;
                }
                self.enter(turn, Step::Finishing);
                Some(Decision::Vote)
            }
            Step::Copying(copying) => {
                if copying.go_on(turn) {
                    return None;
                }
                self.enter(turn, Step::Finishing);
                Some(Decision::Vote)
            }
            Step::Choosing | Step::Finishing => None,
        }
    }

    /// A source has gone or has had a loss of its own: begin again with the record.
    fn record_again(&mut self, turn: &Turn<'_>) {
        self.enter(turn, Step::Recording(BTreeMap::new()));
    }

    fn enter(&mut self, turn: &Turn<'_>, step: Step) {
        self.step = step;
        self.since = turn.now.instant;
        self.retry_at = turn.now.instant;
    }
}

impl Copying {
    /// Asks for the first page of the task at the end of the list; false if there is none.
    fn begin_range(&mut self, turn: &mut Turn<'_>) -> bool {
        let Some((start, _)) = self.tasks.last() else { return false };
        self.cursor = start.clone();
        self.ask(turn);
        true
    }

    fn ask(&mut self, turn: &mut Turn<'_>) {
        let Some((start, source)) = self.tasks.last() else { return };
        let range = turn.config.topology.range_of(start);
        let request = PeerRequest::Page {
            from: self.cursor.clone(),
            to: range.end.clone(),
            epoch: range.epoch,
            max_entries: PAGE_ENTRIES,
            max_bytes: PAGE_BYTES,
            with_values: true,
        };
        self.deadline = turn.now.instant + PATIENCE;
        self.open = 1;
        turn.out.ask(*source, Origin::Join(JoinStep::Page(self.number)), request, self.deadline);
    }

    /// Stores a page's cells here, through the ordinary door.
    fn take(&mut self, turn: &mut Turn<'_>, entries: Vec<PageEntry>, truncated: bool) {
        self.deadline = turn.now.instant + PATIENCE;
        self.next =
            if truncated { entries.last().map(|entry| entry.key.successor()) } else { None };
        self.open = entries.len();
        for PageEntry { key, version, content } in entries {
            // An entry without content was not asked for; the page then never completes, and is asked for again.
            let Some(content) = content else { continue };
            let epoch = turn.config.topology.range_of(&key).epoch;
            let cell = Cell { version, content };
            let origin = Origin::Join(JoinStep::Store(self.number));
            let request = PeerRequest::Store { key, epoch, cell };
            turn.out.ask(turn.config.server, origin, request, self.deadline);
        }
    }

    /// Goes on once the page is durable here; false when everything is copied.
    fn go_on(&mut self, turn: &mut Turn<'_>) -> bool {
        if self.open > 0 {
            return true;
        }
        if let Some(next) = self.next.take() {
            self.cursor = next;
            self.ask(turn);
            return true;
        }
        self.tasks.pop();
        self.begin_range(turn)
    }
}

/// How many others must know of a new life before it counts: one more than a majority can do without.
fn needed(replicas: usize) -> usize {
    replicas - (replicas / 2 + 1) + 1
}

/// Whether enough other replicas of every range of this server satisfy the condition.
fn covers(turn: &Turn<'_>, satisfies: impl Fn(&ServerId) -> bool) -> bool {
    let me = turn.config.server;
    turn.config.topology.ranges_of(me).all(|range| {
        let count =
            range.replicas.iter().filter(|server| **server != me && satisfies(server)).count();
        count >= needed(range.replicas.len())
    })
}

/// Which range to copy from whom: of each range, as many as are needed.
fn sources(turn: &Turn<'_>, may: impl Fn(&ServerId) -> bool) -> Vec<(Key, ServerId)> {
    let me = turn.config.server;
    let mut tasks = Vec::new();
    for range in turn.config.topology.ranges_of(me) {
        let others = range.replicas.iter().filter(|server| **server != me && may(server));
        let one = turn.config.flaw == Some(Flaw::CopyFromOne);
        let chosen = others.take(if one { 1 } else { needed(range.replicas.len()) });
        tasks.extend(chosen.map(|server| (range.start.clone(), *server)));
    }
    tasks
}
