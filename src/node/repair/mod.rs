//! Comparison of replicas, without a read.
//!
//! A write that reached one replica, and whose coordinator died before it could keep a hint, leaves the others
//! behind for as long as nobody reads the key. So every pair of replicas of a range is compared now and then:
//! first their digests, which are equal nearly always; if they differ, page after page of keys with versions,
//! and for each key on which the two differ the newer cell is fetched from the one and stored at the other.
//!
//! Whoever runs a comparison need be neither of the two: both are asked through the ordinary door. The lower of
//! two servers compares a pair on schedule; a mark (see [`super::handoff`]) makes any server compare its target
//! with another replica.
//!
//! What is left out: trees, which would find the few differing keys of a large range without going through all of
//! its keys. One comparison runs at a time, one page at a time, so its cost is spread thin.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::turn::{Origin, RepairStep, Turn};
use crate::model::{
    Cell, Content, Instant, Key, PageEntry, PeerAnswer, PeerReply, PeerRequest, Read, ServerId,
    Version,
};

/// Keys of a page.
const PAGE_ENTRIES: usize = 512;
/// Bytes of a page; there are no values in it.
const PAGE_BYTES: usize = 256 << 10;
/// Cells on their way from the one to the other at once.
const WINDOW: usize = 8;
/// A step without an answer for so long ends the comparison; the next round begins anew.
const PATIENCE: Duration = Duration::from_secs(5);
/// Comparisons that wait at most: a bound for many servers with many ranges.
const MAX_QUEUE: usize = 10_000;

/// Two replicas of one range.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair {
    /// The range's start.
    pub(super) start: Key,
    pub(super) a: ServerId,
    pub(super) b: ServerId,
}

/// Comparisons of this server.
#[derive(Debug)]
pub(super) struct Repair {
    queue: VecDeque<Pair>,
    session: Option<Session>,
    /// When the scheduled pairs are queued again.
    next_round: Instant,
    next_number: u64,
}

#[derive(Debug)]
struct Session {
    number: u64,
    pair: Pair,
    deadline: Instant,
    /// First key of the page, or none while digests are compared.
    cursor: Option<Key>,
    digests: BTreeMap<ServerId, (u64, u64)>,
    pages: BTreeMap<ServerId, (Vec<PageEntry>, bool)>,
    /// Keys of the page that differ, and who has the newer cell.
    todo: Vec<(Key, ServerId)>,
    /// Fetches and stores under way.
    open: usize,
    /// Where the next page begins, once this one is done.
    next: Option<Key>,
}

impl Repair {
    pub(super) fn new(first_round: Instant) -> Repair {
        Repair { queue: VecDeque::new(), session: None, next_round: first_round, next_number: 0 }
    }

    /// Has a pair compared soon, if it is not waiting for that already.
    pub(super) fn request(&mut self, pair: Pair) {
        let running = self.session.as_ref().is_some_and(|session| session.pair == pair);
        if !running && !self.queue.contains(&pair) && self.queue.len() < MAX_QUEUE {
            self.queue.push_back(pair);
        }
    }

    /// The pairs this server compares on schedule with `peer`.
    fn pairs_with(turn: &Turn<'_>, peer: ServerId) -> Vec<Pair> {
        let me = turn.config.server;
        if me >= peer {
            return Vec::new();
        }
        let ranges = turn.config.topology.ranges_of(me);
        ranges
            .filter(|range| range.replicas.contains(&peer))
            .map(|range| Pair { start: range.start.clone(), a: me, b: peer })
            .collect()
    }

    /// A peer is back: compare what we share.
    pub(super) fn on_link_up(&mut self, turn: &mut Turn<'_>, peer: ServerId) {
        for pair in Self::pairs_with(turn, peer) {
            self.request(pair);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let session = self.session.as_ref().map(|session| session.deadline);
        [session, Some(self.next_round)].into_iter().flatten().min()
    }

    pub(super) fn on_time(&mut self, turn: &mut Turn<'_>) {
        if self.session.as_ref().is_some_and(|session| session.deadline <= turn.now.instant) {
            turn.out.count("comparisons_given_up");
            self.session = None;
        }
        if self.next_round <= turn.now.instant {
            self.next_round = turn.now.instant + turn.config.repair_interval;
            for peer in turn.config.topology.neighbours(turn.config.server) {
                if turn.roster.alive(peer) {
                    self.on_link_up(turn, peer);
                }
            }
        }
        self.begin(turn);
    }

    /// Begins the next comparison whose two servers are alive, if none is under way.
    fn begin(&mut self, turn: &mut Turn<'_>) {
        while self.session.is_none()
            && let Some(pair) = self.queue.pop_front()
        {
            if !turn.roster.alive(pair.a) || !turn.roster.alive(pair.b) {
                continue;
            }
            self.next_number += 1;
            let number = self.next_number;
            let deadline = turn.now.instant + PATIENCE;
            let epoch = turn.config.topology.range_of(&pair.start).epoch;
            for server in [pair.a, pair.b] {
                let request = PeerRequest::Digest { start: pair.start.clone(), epoch };
                let origin = Origin::Repair(RepairStep::Digest(number));
                turn.out.ask(server, origin, request, deadline);
            }
            self.session = Some(Session {
                number,
                pair,
                deadline,
                cursor: None,
                digests: BTreeMap::new(),
                pages: BTreeMap::new(),
                todo: Vec::new(),
                open: 0,
                next: None,
            });
        }
    }

    /// One of the two will not answer.
    pub(super) fn on_missed(&mut self, turn: &mut Turn<'_>, step: &RepairStep) {
        if self.session.as_ref().is_some_and(|session| session.number == step.number()) {
            turn.out.count("comparisons_given_up");
            self.session = None;
        }
        self.begin(turn);
    }

    /// One of the two has answered. Returns the pair once its comparison has come to its end.
    pub(super) fn on_reply(
        &mut self,
        turn: &mut Turn<'_>,
        from: ServerId,
        step: &RepairStep,
        reply: PeerReply,
    ) -> Option<Pair> {
        let session = self.session.as_mut().filter(|session| session.number == step.number())?;
        session.deadline = turn.now.instant + PATIENCE;
        let done = match (step, reply.answer) {
            (RepairStep::Digest(_), PeerAnswer::Digest { count, hash }) => {
                session.digests.insert(from, (count, hash));
                session.compare_digests(turn)
            }
            (RepairStep::Page(_), PeerAnswer::Page { entries, truncated }) => {
                session.pages.insert(from, (entries, truncated));
                session.compare_pages(turn)
            }
            (RepairStep::Fetch(_, key), PeerAnswer::Held { version, content }) => {
                session.fetched(turn, from, key, version, content)
            }
            (RepairStep::Store(_), PeerAnswer::Stored { .. }) => {
                session.open -= 1;
                turn.out.count("cells_repaired");
                session.go_on(turn)
            }
            (_, _) => {
                self.on_missed(turn, step);
                return None;
            }
        };
        if !done {
            return None;
        }
        turn.out.count("comparisons");
        let pair = self.session.take().map(|session| session.pair);
        self.begin(turn);
        pair
    }
}

impl RepairStep {
    fn number(&self) -> u64 {
        match self {
            RepairStep::Digest(number)
            | RepairStep::Page(number)
            | RepairStep::Fetch(number, _)
            | RepairStep::Store(number) => *number,
        }
    }
}

impl Session {
    /// Each of these returns whether the comparison has come to its end.
    fn compare_digests(&mut self, turn: &mut Turn<'_>) -> bool {
        let (Some(a), Some(b)) = (self.digests.get(&self.pair.a), self.digests.get(&self.pair.b))
        else {
            return false;
        };
        if a == b {
            return true;
        }
        turn.out.count("digests_differed");
        self.ask_pages(turn, self.pair.start.clone());
        false
    }

    fn ask_pages(&mut self, turn: &mut Turn<'_>, from: Key) {
        let range = turn.config.topology.range_of(&self.pair.start);
        for server in [self.pair.a, self.pair.b] {
            let request = PeerRequest::Page {
                from: from.clone(),
                to: range.end.clone(),
                epoch: range.epoch,
                max_entries: PAGE_ENTRIES,
                max_bytes: PAGE_BYTES,
                with_values: false,
            };
            let origin = Origin::Repair(RepairStep::Page(self.number));
            turn.out.ask(server, origin, request, self.deadline);
        }
        self.pages.clear();
        self.cursor = Some(from);
    }

    fn compare_pages(&mut self, turn: &mut Turn<'_>) -> bool {
        let (Some((a, a_cut)), Some((b, b_cut))) =
            (self.pages.get(&self.pair.a), self.pages.get(&self.pair.b))
        else {
            return false;
        };
        // Nothing is known of keys behind the last one of a page that was cut.
        let last = |entries: &[PageEntry], cut: bool| {
            if cut { entries.last().map(|entry| entry.key.clone()) } else { None }
        };
        let known_to = [last(a, *a_cut), last(b, *b_cut)].into_iter().flatten().min();
        let mut versions: BTreeMap<&Key, (Version, Version)> = BTreeMap::new();
        for entry in a {
            versions.entry(&entry.key).or_default().0 = entry.version;
        }
        for entry in b {
            versions.entry(&entry.key).or_default().1 = entry.version;
        }
        self.todo = versions
            .into_iter()
            .filter(|(key, (a, b))| a != b && known_to.as_ref().is_none_or(|last| *key <= last))
            .map(|(key, (a, b))| (key.clone(), if a > b { self.pair.a } else { self.pair.b }))
            .collect();
        self.next = known_to.map(|last| last.successor());
        self.go_on(turn)
    }

    fn go_on(&mut self, turn: &mut Turn<'_>) -> bool {
        while self.open < WINDOW
            && let Some((key, newer)) = self.todo.pop()
        {
            self.open += 1;
            let epoch = turn.config.topology.range_of(&key).epoch;
            let read = Read { key: key.clone(), epoch, with_value: true };
            let origin = Origin::Repair(RepairStep::Fetch(self.number, key));
            turn.out.ask(newer, origin, PeerRequest::Read(read), self.deadline);
        }
        if self.open > 0 {
            return false;
        }
        match self.next.take() {
            Some(next) => {
                self.ask_pages(turn, next);
                false
            }
            None => true,
        }
    }

    fn fetched(
        &mut self,
        turn: &mut Turn<'_>,
        from: ServerId,
        key: &Key,
        version: Version,
        content: Option<Content>,
    ) -> bool {
        let Some(content) = content else {
            self.open -= 1;
            return self.go_on(turn);
        };
        let older = if from == self.pair.a { self.pair.b } else { self.pair.a };
        let epoch = turn.config.topology.range_of(key).epoch;
        let cell = Cell { version, content };
        let request = PeerRequest::Store { key: key.clone(), epoch, cell };
        turn.out.ask(older, Origin::Repair(RepairStep::Store(self.number)), request, self.deadline);
        false
    }
}
