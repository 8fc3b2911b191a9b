//! Fetches from other replicas what this server holds and cannot read.
//!
//! **Problem.** A bit of a sealed segment turns. The key and its version are known, the value is gone; all else is as it was.
//!
//! **Idea.** The replica says nothing about that key until it is healed, so what it acknowledged is never taken back, and it
//! stays in its life (see `replica.rs`). Meanwhile every other replica of the key is asked for its cell. One as new, from
//! whomever, is stored here like any other, and that heals; a lesser content of the same version does not. If all others hold something
//! older, by answers that count, the cell can be had from nobody: [`Verdict::Nowhere`] lets the server begin a new life, as one
//! that has lost its disk does.
//!
//! **Bounds.** At most [`HEALING`] keys are asked for at a time; each again after [`FIRST`], then after twice as long, up to
//! [`LONGEST`]; all at once when a link comes up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::Urgency;
use super::turn::{Origin, Turn};
use crate::model::{
    Cell, Checksum, Content, Instant, Key, Now, PeerAnswer, PeerReply, PeerRequest, Read, ServerId,
    Stamp, Version,
};

/// Keys that are asked for at a time.
const HEALING: usize = 16;
/// Between two lines of a kind.
const QUIET: Duration = Duration::from_secs(1);
/// Findings that are kept for people.
const RECENT: usize = 32;
/// Until a key is asked for again.
const FIRST: Duration = Duration::from_millis(100);
/// The same after many times in vain.
const LONGEST: Duration = Duration::from_secs(10);

/// What is wanted, and who has been asked.
#[derive(Debug, Default)]
pub(super) struct Heal {
    wanted: BTreeMap<Key, Wanted>,
    /// Those not asked for at present, by when they are to be.
    waiting: BTreeSet<(Instant, Key)>,
    /// Those asked for, and until when an answer is waited for.
    flying: BTreeMap<Key, Instant>,
    /// It was told that there is nobody to ask.
    told_alone: bool,
    /// What was found last and when, for people; the oldest first.
    recent: VecDeque<Finding>,
    /// Lines about what was found, and about what is healed.
    pub(super) lines: (Lines, Lines),
}

/// A disk that dies has many records that cannot be read: one line in [`QUIET`] is enough.
#[derive(Debug, Default)]
pub(super) struct Lines {
    last: Option<Instant>,
    left_out: u64,
}

impl Lines {
    /// What to put behind a line that may be written now: nothing, or how many were left out.
    pub(super) fn pass(&mut self, now: Instant) -> Option<String> {
        if self.last.is_some_and(|last| now - last < QUIET) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(match std::mem::take(&mut self.left_out) {
            0 => String::new(),
            count => format!(" ({count} more like this since the last such line)"),
        })
    }
}

/// A record that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Its key's place.
    pub(super) key: Key,
    /// The file, and the byte at which it stood there.
    pub(super) at: (String, u32),
    /// By the wall clock, in microseconds.
    pub(super) found: i64,
    pub(super) healed: Option<i64>,
}

#[derive(Debug)]
struct Wanted {
    stamp: Stamp,
    /// When it is to be asked for, again.
    at: Instant,
    wait: Duration,
    /// Asked, and without an answer.
    open: BTreeSet<ServerId>,
    /// They vote, and hold something older.
    older: BTreeSet<ServerId>,
}

/// What the answers come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every other replica holds something older.
    Nowhere,
}

impl Heal {
    /// What is held of `key` cannot be read `at` this byte of that file.
    pub(super) fn add(&mut self, now: Now, key: Key, stamp: Stamp, at: (String, u32)) {
        self.done(&key);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        let finding = Finding { key: key.detached(), at, found: now.wall, healed: None };
        self.recent.push_back(finding);
        let now = now.instant;
        let (open, older) = (BTreeSet::new(), BTreeSet::new());
        self.waiting.insert((now, key.clone()));
        self.wanted.insert(key, Wanted { stamp, at: now, wait: FIRST, open, older });
    }

    /// It can be read again.
    pub(super) fn healed(&mut self, now: Now, key: &Key) {
        self.done(key);
        let mut open = self.recent.iter_mut().rev().filter(|finding| finding.healed.is_none());
        if let Some(finding) = open.find(|finding| finding.key == *key) {
            finding.healed = Some(now.wall);
        }
    }

    /// Keys that are wanted.
    pub(super) fn waiting(&self) -> u64 {
        self.wanted.len() as u64
    }

    /// What was found last, the oldest first.
    pub(super) fn recent(&self) -> impl Iterator<Item = &Finding> {
        self.recent.iter()
    }

    /// It is healed, or wanted no more.
    pub(super) fn done(&mut self, key: &Key) {
        if let Some(wanted) = self.wanted.remove(key) {
            self.waiting.remove(&(wanted.at, key.clone()));
            self.flying.remove(key);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.waiting.first().map(|(at, _)| *at);
        let asked = self.flying.values().min().copied();
        let waiting = waiting.filter(|_| self.flying.len() < HEALING);
        waiting.into_iter().chain(asked).min()
    }

    pub(super) fn on_time(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let over: Vec<_> = self.flying.iter().filter(|(_, at)| **at <= now).collect();
        for key in over.into_iter().map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.land(&key);
        }
        while self.flying.len() < HEALING
            && self.waiting.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, key)) = self.waiting.pop_first()
        {
            self.ask(turn, key);
        }
        debug_assert!(self.next_deadline().is_none_or(|at| at > now), "a key is asked for again");
    }

    /// A server may be asked again: all is.
    pub(super) fn on_link_up(&mut self, now: Instant) {
        for (_, key) in std::mem::take(&mut self.waiting) {
            if let Some(wanted) = self.wanted.get_mut(&key) {
                (wanted.at, wanted.wait) = (now, FIRST);
                self.waiting.insert((now, key));
            }
        }
    }

    /// Asks every other replica that can be asked.
    fn ask(&mut self, turn: &mut Turn<'_>, key: Key) {
        let Some(wanted) = self.wanted.get_mut(&key) else { return };
        let me = turn.config.server;
        let range = turn.config.topology.range_of(&key);
        if range.replicas.len() == 1 && !std::mem::replace(&mut self.told_alone, true) {
            let text = "a key whose record is damaged has no other replica to fetch it from; it is refused until it is \
                        written anew";
            turn.out.notice(Urgency::Error, text.to_owned());
        }
        wanted.at = turn.now.instant + wanted.wait;
        wanted.wait = (wanted.wait * 2).min(LONGEST);
        wanted.older.clear();
        let others = range.replicas.iter().copied().filter(|replica| *replica != me);
        wanted.open = others.filter(|replica| turn.roster.reachable(*replica)).collect();
        for replica in &wanted.open {
            let read = Read { key: key.clone(), epoch: range.epoch, with_value: true };
            let expires = turn.now.instant + turn.config.timeout;
            turn.out.ask(*replica, Origin::Heal(key.clone()), PeerRequest::Read(read), expires);
        }
        if wanted.open.is_empty() {
            self.waiting.insert((wanted.at, key));
        } else {
            self.flying.insert(key, wanted.at);
        }
    }

    /// Nobody owes an answer for it any more, or not in time.
    fn land(&mut self, key: &Key) {
        if let Some(at) = self.flying.remove(key) {
            self.waiting.insert((at, key.clone()));
        }
    }

    pub(super) fn on_reply(
        &mut self,
        turn: &mut Turn<'_>,
        from: ServerId,
        key: &Key,
        reply: PeerReply,
    ) -> Option<Verdict> {
        let wanted = self.wanted.get_mut(key)?;
        wanted.open.remove(&from);
        let range = turn.config.topology.range_of(key);
        let counts =
            reply.sender.voting && reply.sender.incarnation == turn.roster.incarnation(from);
        match reply.answer {
            PeerAnswer::Held { version, content: Some(content), .. }
                if !stamp_of(version, &content).is_below(&wanted.stamp) =>
            {
                // It goes through the replica's ordinary door, and heals once it is durable. Until then it is in flight.
                let (key, epoch) = (key.clone(), range.epoch);
                let request = PeerRequest::Store { key, epoch, cell: Cell { version, content } };
                let expires = turn.now.instant + turn.config.timeout;
                turn.out.ask(turn.config.server, Origin::Nobody, request, expires);
                return None;
            }
            PeerAnswer::Held { version, .. } if counts && version <= wanted.stamp.version => {
                // Of the same version: a lesser content.
                wanted.older.insert(from);
            }
            _ => {}
        }
        let others = range.replicas.len() - 1;
        let nowhere = others > 0 && wanted.older.len() == others;
        if wanted.open.is_empty() {
            self.land(key);
        }
        nowhere.then_some(Verdict::Nowhere)
    }

    /// That server will not answer.
    pub(super) fn on_missed(&mut self, from: ServerId, key: &Key) {
        let Some(wanted) = self.wanted.get_mut(key) else { return };
        wanted.open.remove(&from);
        if wanted.open.is_empty() {
            self.land(key);
        }
    }
}

fn stamp_of(version: Version, content: &Content) -> Stamp {
    Stamp { version, checksum: Some(Checksum::of(content)) }
}
