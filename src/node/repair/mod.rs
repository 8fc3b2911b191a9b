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
//! Under writes the digests of a large range differ nearly always, for what is on its way to one of the two, and all its
//! keys are gone through. So that clients hardly notice, one comparison runs at a time, one page at a time, and each page
//! is followed by a rest nine times as long as it took: on a busy cluster pages take long, and rests with them.
//!
//! What is left out: trees, which would find the few differing keys of a large range without going through all of
//! its keys.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::turn::{Origin, RepairStep, Turn};
use crate::model::{
    Cell, Content, Instant, Key, PageEntry, PeerAnswer, PeerReply, PeerRequest, Read, ServerId,
    Stamp, Version,
};

/// Keys of a page.
const PAGE_ENTRIES: usize = 512;
/// Bytes of a page; there are no values in it.
const PAGE_BYTES: usize = 256 << 10;
/// Cells on their way from the one to the other at once.
const WINDOW: usize = 8;
/// How much longer the rest after a page is than the page took, and how long at most.
const REST: (u32, Duration) = (9, Duration::from_millis(500));
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
    began: Instant,
    deadline: Instant,
    /// When the page was asked for.
    asked: Instant,
    /// Count, hash, and hash with contents, of each.
    digests: BTreeMap<ServerId, (u64, u64, Option<u64>)>,
    pages: BTreeMap<ServerId, (Vec<PageEntry>, bool)>,
    /// Keys of the page that differ, and who has the newer cell.
    todo: Vec<(Key, ServerId)>,
    /// Fetches and stores under way.
    open: usize,
    /// Where the next page begins, once this one is done.
    next: Option<Key>,
    /// When the rest after a page is over, if another one follows.
    rests_until: Option<Instant>,
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
        let session = self.session.as_ref();
        let session = session.map(|session| session.rests_until().unwrap_or(session.deadline));
        [session, Some(self.next_round)].into_iter().flatten().min()
    }

    pub(super) fn on_time(&mut self, turn: &mut Turn<'_>) {
        if let Some(session) = &mut self.session
            && session.rests_until().is_some_and(|until| until <= turn.now.instant)
        {
            session.deadline = turn.now.instant + PATIENCE;
            session.ask_next_page(turn);
        }
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
                began: turn.now.instant,
                deadline,
                asked: turn.now.instant,
                digests: BTreeMap::new(),
                pages: BTreeMap::new(),
                todo: Vec::new(),
                open: 0,
                next: None,
                rests_until: None,
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

    /// One of the two has answered. Returns the pair once its comparison has come to its end, and when that began.
    pub(super) fn on_reply(
        &mut self,
        turn: &mut Turn<'_>,
        from: ServerId,
        step: &RepairStep,
        reply: PeerReply,
    ) -> Option<(Pair, Instant)> {
        let session = self.session.as_mut().filter(|session| session.number == step.number())?;
        session.deadline = turn.now.instant + PATIENCE;
        let done = match (step, reply.answer) {
            (RepairStep::Digest(_), PeerAnswer::Digest { count, hash, contents }) => {
                session.digests.insert(from, (count, hash, contents));
                session.compare_digests(turn)
            }
            (RepairStep::Page(_), PeerAnswer::Page { entries, truncated }) => {
                session.pages.insert(from, (entries, truncated));
                session.compare_pages(turn)
            }
            (RepairStep::Fetch(_, key), PeerAnswer::Held { version, content, .. }) => {
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
        let compared = self.session.take().map(|session| (session.pair, session.began));
        self.begin(turn);
        compared
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
    /// If nothing is under way: when the next page is to be asked for.
    fn rests_until(&self) -> Option<Instant> {
        self.rests_until.filter(|_| self.open == 0)
    }

    /// Each of these returns whether the comparison has come to its end.
    fn compare_digests(&mut self, turn: &mut Turn<'_>) -> bool {
        let (Some(a), Some(b)) = (self.digests.get(&self.pair.a), self.digests.get(&self.pair.b))
        else {
            return false;
        };
        // Where one of the two cannot tell its contents, the versions have to do.
        let contents_agree = a.2.is_none() || b.2.is_none() || a.2 == b.2;
        if (a.0, a.1) == (b.0, b.1) && contents_agree {
            return true;
        }
        turn.out.count("digests_differed");
        self.next = Some(self.pair.start.clone());
        self.ask_next_page(turn);
        false
    }

    fn ask_next_page(&mut self, turn: &mut Turn<'_>) {
        self.rests_until = None;
        let Some(from) = self.next.take() else { return };
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
        self.asked = turn.now.instant;
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
        let is_known = |key: &Key| known_to.as_ref().is_none_or(|last| key <= last);
        let differing = differing(a, b).filter(|(key, ..)| is_known(key));
        let newer = |a: Stamp, b: Stamp| if a > b { self.pair.a } else { self.pair.b };
        self.todo = differing.map(|(key, a, b)| (key.clone(), newer(a, b))).collect();
        self.next = known_to.map(|last| last.successor());
        let rest = ((turn.now.instant - self.asked) * REST.0).min(REST.1);
        self.rests_until = self.next.is_some().then(|| turn.now.instant + rest);
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
        if self.rests_until.is_some_and(|until| until <= turn.now.instant) {
            self.ask_next_page(turn);
            return false;
        }
        self.next.is_none()
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

/// Keys whose cells are not the same in two pages, as far as is known, and which they are; a key that is missing has the least
/// version.
fn differing<'a>(
    a: &'a [PageEntry],
    b: &'a [PageEntry],
) -> impl Iterator<Item = (&'a Key, Stamp, Stamp)> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let merged = std::iter::from_fn(move || {
        let (left, right) = match (a.peek(), b.peek()) {
            (Some(left), Some(right)) => {
                let order = left.key.cmp(&right.key);
                (order.is_le().then(|| a.next()), order.is_ge().then(|| b.next()))
            }
            (_, _) => (Some(a.next()), Some(b.next())),
        };
        let (left, right) = (left.flatten(), right.flatten());
        let stamp = |entry: Option<&PageEntry>| entry.map(PageEntry::stamp).unwrap_or_default();
        let key = &left.or(right)?.key;
        Some((key, stamp(left), stamp(right)))
    });
    merged.filter(|(_, left, right)| !left.agrees_with(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_differ_in_what_only_one_has_and_in_other_versions() {
        let page = |cells: &[(&'static str, i64)]| {
            let entry = |(key, time): &(&'static str, i64)| PageEntry {
                key: Key::bound(*key),
                version: Version { time: *time, ..Version::ZERO },
                checksum: None,
                content: None,
            };
            cells.iter().map(entry).collect::<Vec<_>>()
        };
        let a = page(&[("a", 1), ("c", 3), ("d", 4), ("f", 6)]);
        let b = page(&[("b", 2), ("c", 3), ("d", 5), ("g", 7), ("h", 8)]);
        let found: Vec<_> = differing(&a, &b)
            .map(|(key, a, b)| (key.to_string(), a.version.time, b.version.time))
            .collect();
        let expected =
            [("a", 1, 0), ("b", 0, 2), ("d", 4, 5), ("f", 6, 0), ("g", 0, 7), ("h", 0, 8)];
        assert_eq!(found, expected.map(|(key, a, b)| (key.to_owned(), a, b)));
    }
}
