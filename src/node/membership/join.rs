//! How a server with a new data folder comes to vote, without anything being lost.
//!
//! A server that lost its disk has forgotten cells that it had acknowledged. If it voted at once, a write held by
//! it and one other would be held by one, and two such losses in turn would erase it with no error anywhere. So it
//! proceeds in this order, for every range it keeps, with *r* replicas of which *q* are a majority:
//!
//! 1. **Ask** r − q + 1 of the other replicas which life of this server they remember. The new incarnation is
//!    above all of them, and above any of which they have only heard: what was recorded of it may have gone with the disks
//!    that recorded it, one after the other, and a server of which anybody has heard is not new.
//! 2. **Record**: r − q + 1 others durably record it. From then on every answer of theirs makes coordinators
//!    discard what the former life said; and r − q + 1 is one more than can be missing from any majority.
//! 3. If none of them has known this server under another folder, it is new, and so are the others, or they have
//!    not stored anything that it had a part in: it **votes**.
//! 4. Else r − q + 1 of those who recorded it, voting themselves, are **copied** from, range by range. A write
//!    acknowledged by the former life was also on q − 1 others, of which at least one is among them. Then it votes.
//!
//! A page that is late, a source that goes, a process that stands still: the record is asked for again, and copying goes
//! on where it was, for every range and source whose life is still the one that was copied from. What was copied from a
//! source in one life of it stays copied: it had this life's record before the first page. A page that came too late is
//! asked for again at half its size, and of the sources those come first that were not late, so that a rebuild ends
//! however slow a disk is. Progress is in memory: a restart of this process begins at the first key.
//!
//! Copying from one source, or before the record, loses writes; the simulator shows it. With one replica there are
//! no others: only `--accept-loss` lets such a server vote, as it lets one whose peers are gone for good.
//!
//! The same way goes a server that finds itself in an *older copy* of its folder (a peer remembers a higher log
//! position, told by another process of it, than this one found when it began), or whose log was damaged: it keeps its cells, takes a new folder number, and is rebuilt.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::turn::{JoinStep, Origin, Roster, Turn};
use super::super::{Config, Flaw, Urgency};
use crate::model::{
    Cell, Incarnation, Instant, Join as JoinRequest, Key, PageEntry, PeerAnswer, PeerReply,
    PeerRequest, Remembered, ServerId,
};
use crate::storage::Identity;

/// Peers that have not answered are asked again this often.
const RETRY: Duration = Duration::from_millis(500);
/// With `--accept-loss`, how long each step waits for more answers.
const ACCEPT_LOSS_AFTER: Duration = Duration::from_secs(3);
/// Bytes of a page.
const PAGE_BYTES: usize = 1 << 20;
/// A page without an answer for so long is asked for again.
const PATIENCE: Duration = Duration::from_secs(5);
/// A wait for others that lasts so long is worth a line in the log, once for each reason.
const WORTH_TELLING: Duration = Duration::from_secs(5);
/// A page that was late is halved so many times at most: then it is one cell.
const MOST_HALVINGS: u32 = usize::BITS - 1;

/// A server that does not vote yet.
#[derive(Debug)]
pub(in super::super) struct Join {
    step: Step,
    /// The present step began then.
    since: Instant,
    retry_at: Instant,
    next_number: u64,
    /// The greatest incarnation of this server that peers speak of, recorded or not.
    heard_of: Incarnation,
    progress: Progress,
    /// What was last said in the log that this server waits for.
    told: String,
}

/// What has been copied under the present incarnation.
#[derive(Debug, Default)]
struct Progress {
    /// Of a range, by start, from a source, in a life of it: the key before which all is durable here.
    reached: BTreeMap<(Key, ServerId, Incarnation), Reached>,
    /// Cells stored, for people.
    cells: u64,
    /// Pages that each source has been late with, one after the other.
    late: BTreeMap<ServerId, u32>,
    /// How often the next page is halved.
    halvings: u32,
    /// What went wrong last, for people.
    trouble: Option<String>,
}

#[derive(Clone, Debug)]
enum Reached {
    /// All keys before this one.
    Before(Key),
    All,
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
    /// How many there are in all, with those done before.
    all_tasks: usize,
    /// The page asked for has come; its cells are being stored.
    paged: bool,
    recorders: BTreeMap<ServerId, Recorder>,
    /// First key of the present page.
    cursor: Key,
    /// Where the next page begins; `None`: this was the range's last.
    next: Option<Key>,
    /// Cells of the page that are not durable here yet.
    open: usize,
    deadline: Instant,
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
        Join::at(step, now)
    }

    fn at(step: Step, now: Instant) -> Join {
        let (progress, told) = (Progress::default(), String::new());
        let heard_of = Incarnation::NONE;
        Join { step, since: now, retry_at: now, next_number: 0, heard_of, progress, told }
    }

    /// For a server that has lost cells: from the very beginning.
    pub(in super::super) fn anew(now: Instant) -> Join {
        Join::at(Step::Asking(BTreeMap::new()), now)
    }

    /// Whether the incarnation is recorded, so that versions may be issued under it.
    pub(in super::super) fn is_recorded(&self) -> bool {
        match self.step {
            Step::Asking(_) | Step::Choosing | Step::Recording(_) => false,
            Step::Copying(_) | Step::Finishing => true,
        }
    }

    /// Which range is being copied, by its start, from whom, and from which key on the present page is: for the simulator.
    pub(in super::super) fn copying(&self) -> Option<(Key, ServerId, Key)> {
        let Step::Copying(copying) = &self.step else { return None };
        let (start, source) = copying.tasks.last()?;
        Some((start.clone(), *source, copying.cursor.clone()))
    }

    /// In words, for people: what it waits for, how far it is, and what to do.
    pub(in super::super) fn describe(
        &self,
        config: &Config,
        identity: &Identity,
        roster: &dyn Roster,
    ) -> String {
        match &self.step {
            Step::Asking(_) | Step::Choosing | Step::Recording(_) => {
                let wait = self.waits_for(config, identity, roster);
                let Progress { cells, .. } = self.progress;
                let so_far = if cells > 0 {
                    format!(" ({cells} cells are copied already, and stay so)")
                } else {
                    String::new()
                };
                format!("not voting: {wait}{so_far}")
            }
            Step::Copying(copying) => {
                let Progress { cells, trouble, .. } = &self.progress;
                let done = copying.all_tasks.saturating_sub(copying.tasks.len());
                let mut text = format!(
                    "not voting: being rebuilt from the other replicas, {cells} cells copied, {done} of {} copies done",
                    copying.all_tasks
                );
                if let Some((start, source)) = copying.tasks.last() {
                    let at = &copying.cursor;
                    text.push_str(&format!(
                        "; at '{at}' in the range at '{start}', from server {source}"
                    ));
                }
                if let Some(trouble) = trouble {
                    text.push_str(&format!("; last trouble: {trouble}"));
                }
                text
            }
            Step::Finishing => "about to vote".to_owned(),
        }
    }

    /// What the first range that is short of others waits for, and what to do. Without numbers that move, so that a log
    /// says it once.
    fn waits_for(&self, config: &Config, identity: &Identity, roster: &dyn Roster) -> String {
        let short = |satisfies: &dyn Fn(&ServerId) -> bool| {
            let ranges = config.topology.ranges_of(config.server);
            ranges.into_iter().find_map(|range| {
                let others = range.replicas.iter().filter(|server| **server != config.server);
                let (have, lack): (Vec<_>, Vec<_>) = others.partition(|server| satisfies(server));
                let needed = needed(range.replicas.len());
                (have.len() < needed).then_some((&range.start, have.len(), lack, needed))
            })
        };
        let heard = |server: &ServerId| match &self.step {
            Step::Asking(answers) => answers.contains_key(server),
            Step::Recording(recorders) => recorders.contains_key(server),
            Step::Choosing | Step::Copying(_) | Step::Finishing => true,
        };
        if let Some((start, have, lack, needed)) = short(&heard) {
            let is_away = |server: &&ServerId| !roster.reachable(**server);
            let away = named(lack.into_iter().filter(is_away));
            let state = if away.is_empty() {
                "all can be reached".to_owned()
            } else {
                format!("not reached: {away}")
            };
            return format!(
                "its range at '{start}' needs the word of {needed} other replicas on what this server held before, and \
                 {have} have given it ({state}); start the others, or if they are gone for good, start this server with \
                 --accept-loss"
            );
        }
        let votes = |server: &ServerId| match &self.step {
            Step::Recording(recorders) => recorders.get(server).is_some_and(|r| r.voting),
            Step::Asking(_) | Step::Choosing | Step::Copying(_) | Step::Finishing => true,
        };
        if identity.forgetful
            && let Some((start, have, lack, needed)) = short(&votes)
        {
            let votes =
                if have == 0 { "none votes".to_owned() } else { format!("only {have} votes") };
            let lack = named(lack.into_iter());
            return format!(
                "its range at '{start}' needs {needed} voting replicas to copy from, and {votes} (not voting: {lack}: \
                 new, or without their data too); bring back servers that still have their data, or if that is gone \
                 for good, start one of those that do not vote with --accept-loss, then the others follow"
            );
        }
        "asking the other replicas of its ranges what they remember of this server".to_owned()
    }

    /// One line in the log for each reason to wait, once it has lasted.
    fn tell(&mut self, turn: &mut Turn<'_>, identity: &Identity) {
        let waiting = matches!(self.step, Step::Asking(_) | Step::Recording(_));
        if !waiting || turn.now.instant - self.since < WORTH_TELLING {
            return;
        }
        let text = self.waits_for(turn.config, identity, turn.roster);
        if text != self.told {
            let line = format!("server {} does not vote yet: {text}", turn.config.server);
            turn.out.notice(Urgency::Warning, line);
            self.told = text;
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
                    self.on_late_page(turn);
                }
            }
            Step::Asking(_) | Step::Choosing | Step::Recording(_) | Step::Finishing => {}
        }
        if self.retry_at > turn.now.instant {
            return None;
        }
        self.tell(turn, identity);
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
                let me = turn.config.server;
                let known = reply.sender.known.iter().filter(|(server, _)| *server == me);
                let known = known.map(|(_, incarnation)| *incarnation).max();
                self.heard_of = self.heard_of.max(known.unwrap_or_default());
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
                if truncated && entries.is_empty() {
                    // Nothing, and more of it: not the end of the range. Asked for again at the deadline.
                    let text = format!("server {from} sent an empty page that is not the last");
                    self.progress.trouble = Some(text);
                    return None;
                }
                let known = copying.recorders.get(&from).map(|recorder| recorder.incarnation);
                if !reply.sender.voting || known != Some(reply.sender.incarnation) {
                    self.record_again(turn);
                    return None;
                }
                self.progress.late.remove(&from);
                copying.take(turn, entries, truncated);
            }
            (Step::Copying(copying), JoinStep::Store(number), PeerAnswer::Stored { .. })
                if copying.number == *number =>
            {
                copying.open = copying.open.saturating_sub(1);
                self.progress.cells += 1;
                copying.deadline = turn.now.instant + PATIENCE;
            }
            (Step::Copying(copying), JoinStep::Page(number), PeerAnswer::Refused(refusal))
                if copying.number == *number =>
            {
                // Asked for again at the deadline.
                self.progress.trouble = Some(format!("server {from} refused a page: {refusal:?}"));
                return None;
            }
            (Step::Copying(copying), JoinStep::Store(number), PeerAnswer::Refused(refusal))
                if copying.number == *number =>
            {
                let text = format!("this server's own disk refused a cell: {refusal:?}");
                self.progress.trouble = Some(text);
                return None;
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
                // This folder has told nobody of an incarnation before it had recorded it itself.
                let former = self.heard_of > identity.incarnation;
                let forgetful = identity.forgetful
                    || former
                    || remembered().any(|remembered| remembered.folder != identity.folder);
                self.progress = Progress::default();
                let latest = remembered().map(|remembered| remembered.incarnation).max();
                let latest = latest.max(Some(identity.incarnation)).max(Some(self.heard_of));
                let incarnation = latest.unwrap_or_default().next();
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
                let recorders = recorders.clone();
                let all = sources(turn, votes, &self.progress.late);
                let all_tasks = all.len();
                let undone = |(start, source): &(Key, ServerId)| {
                    !matches!(self.progress.of(start, *source, &recorders), Some(Reached::All))
                };
                let tasks = all.into_iter().filter(undone).collect();
                self.next_number += 1;
                let copying = Copying {
                    number: self.next_number,
                    tasks,
                    all_tasks,
                    paged: false,
                    recorders,
                    cursor: Key::bound(""),
                    next: None,
                    open: 0,
                    deadline: turn.now.instant + PATIENCE,
                };
                self.enter(turn, Step::Copying(copying));
                if let Step::Copying(copying) = &mut self.step
                    && copying.begin_range(turn, &self.progress)
                {
                    return None;
                }
                self.enter(turn, Step::Finishing);
                Some(Decision::Vote)
            }
            Step::Copying(copying) => {
                if copying.go_on(turn, &mut self.progress) {
                    return None;
                }
                self.enter(turn, Step::Finishing);
                Some(Decision::Vote)
            }
            Step::Choosing | Step::Finishing => None,
        }
    }

    /// A page has not come in time, or could not be stored in time.
    fn on_late_page(&mut self, turn: &mut Turn<'_>) {
        let Step::Copying(copying) = &self.step else { return };
        turn.out.count("rebuild_pages_late");
        let progress = &mut self.progress;
        progress.halvings = (progress.halvings + 1).min(MOST_HALVINGS);
        if let (false, Some((_, source))) = (copying.paged, copying.tasks.last()) {
            let late = progress.late.entry(*source).or_default();
            *late = late.saturating_add(1);
            progress.trouble = Some(format!("server {source} was late with a page"));
        }
        if turn.config.flaw == Some(Flaw::RebuildFromTheStart) {
            progress.reached.clear();
        }
        self.record_again(turn);
    }

    /// A source has gone or has had a loss of its own: the record again, then on from where each copy was.
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
    /// Asks for the next page of the task at the end of the list; false if there is none.
    fn begin_range(&mut self, turn: &mut Turn<'_>, progress: &Progress) -> bool {
        let Some((start, source)) = self.tasks.last() else { return false };
        self.cursor = match progress.of(start, *source, &self.recorders) {
            Some(Reached::Before(key)) => key.clone(),
            // Those that are done are no tasks.
            Some(Reached::All) | None => start.clone(),
        };
        self.ask(turn, progress);
        true
    }

    fn ask(&mut self, turn: &mut Turn<'_>, progress: &Progress) {
        let Some((start, source)) = self.tasks.last() else { return };
        let range = turn.config.topology.range_of(start);
        let request = PeerRequest::Page {
            from: self.cursor.clone(),
            to: range.end.clone(),
            epoch: range.epoch,
            max_entries: (turn.config.rebuild_page >> progress.halvings).max(1),
            max_bytes: (PAGE_BYTES >> progress.halvings).max(1),
            with_values: true,
        };
        turn.out.count("rebuild_pages");
        self.paged = false;
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
        self.paged = true;
        for PageEntry { key, version, content, .. } in entries {
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
    fn go_on(&mut self, turn: &mut Turn<'_>, progress: &mut Progress) -> bool {
        if self.open > 0 {
            return true;
        }
        progress.halvings = progress.halvings.saturating_sub(1);
        let next = self.next.take();
        let Some((start, source)) = self.tasks.last() else { return false };
        if let Some(recorder) = self.recorders.get(source) {
            let place = (start.clone(), *source, recorder.incarnation);
            let reached = next.clone().map_or(Reached::All, Reached::Before);
            progress.reached.insert(place, reached);
        }
        if let Some(next) = next {
            self.cursor = next;
            self.ask(turn, progress);
            return true;
        }
        self.tasks.pop();
        self.begin_range(turn, progress)
    }
}

impl Progress {
    /// How far a range has been copied from a source in the life in which it has recorded this one.
    fn of(
        &self,
        start: &Key,
        source: ServerId,
        recorders: &BTreeMap<ServerId, Recorder>,
    ) -> Option<&Reached> {
        let incarnation = recorders.get(&source)?.incarnation;
        self.reached.get(&(start.clone(), source, incarnation))
    }
}

/// Servers by number, for people.
fn named<'a>(servers: impl Iterator<Item = &'a ServerId>) -> String {
    servers.map(|server| format!("server {server}")).collect::<Vec<_>>().join(", ")
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

/// Which range to copy from whom: of each range, as many as are needed, those first that were not late of late.
fn sources(
    turn: &Turn<'_>,
    may: impl Fn(&ServerId) -> bool,
    late: &BTreeMap<ServerId, u32>,
) -> Vec<(Key, ServerId)> {
    let me = turn.config.server;
    let mut tasks = Vec::new();
    for range in turn.config.topology.ranges_of(me) {
        let others = range.replicas.iter().filter(|server| **server != me && may(server));
        let mut others: Vec<_> = others.copied().collect();
        others.sort_by_key(|server| late.get(server).copied().unwrap_or_default());
        let one = turn.config.flaw == Some(Flaw::CopyFromOne);
        others.truncate(if one { 1 } else { needed(range.replicas.len()) });
        tasks.extend(others.into_iter().map(|server| (range.start.clone(), server)));
    }
    tasks
}
