//! Hinted handoff: cells for replicas that were away.
//!
//! The coordinator of a write keeps, for each replica it did not reach, a *hint*: the cell, under the target and
//! the key, newest version only, in a log of its own. Whenever the target can be reached, hints are sent to it in
//! key order, a window at a time, and each is forgotten once the target has acknowledged it or something newer.
//! How long the window is, `pace.rs` decides, so that clients come first.
//! Delivery is an ordinary store: order and repetition do no harm, and a cell that came in meanwhile is not lost,
//! for the erasure names the version it covers.
//!
//! # What it does not promise
//!
//! A hint never counts as an acknowledgement, and is not synced before the client is answered: a coordinator that
//! dies leaves none, and the comparison of ranges ([`super::repair`]) finds the difference. Hints are bounded for each
//! target, in number and in bytes of their records, so that one that is gone for good does not end hints for another;
//! a bound over all targets keeps the disk. Records that are dead count for neither. Hints that wait for this server's own disk
//! are bounded too, for they are memory. Past a bound a *mark* (target,
//! range), kept durably as well, takes their place, and that range is then compared
//! with the target when it is back: with a replica to which nothing is owed itself, if there is one. A mark goes with a
//! comparison that began after the last miss that it stands for. Nothing is dropped silently; of a range with one replica,
//! which cannot be compared with anyone, it is counted.

mod pace;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use super::turn::{Known, Origin, Turn, in_hand};
use super::{Flaw, Urgency};
use crate::model::{
    Cell, Content, DiskState, Instant, Key, PeerAnswer, PeerReply, PeerRequest, ServerId, Stamp,
    Version,
};
use crate::ring::Topology;
use crate::storage::{Admission, Completion, News, Store, StoreStats, Ticket, Whereabouts};
use pace::Pace;

/// Bytes of values under way to one target at once, if more than one hint is and as many as may be at most.
const WINDOW_BYTES: usize = 4 << 20;
/// After a target has not taken a hint, how long until the next try.
const BACK_OFF: Duration = Duration::from_millis(250);
/// A hint without an answer for so long is sent again.
const PATIENCE: Duration = Duration::from_secs(5);

/// First byte of a key in the hint log: what it is.
const HINT: u8 = 0;
const MARK: u8 = 1;

/// Hints and marks of this server.
#[derive(Debug)]
pub(super) struct Handoff {
    store: Store,
    targets: BTreeMap<ServerId, Target>,
    /// What a load from disk is for.
    loads: BTreeMap<Ticket, (ServerId, Key)>,
    /// Hints that wait for the disk, and what each takes in memory.
    appends: BTreeMap<Ticket, usize>,
    /// All of them.
    storing: usize,
    /// The version of the last mark: microseconds.
    last_mark: i64,
}

/// One server that hints wait for.
#[derive(Debug, Default)]
struct Target {
    /// Durable hints.
    hints: u64,
    /// Bytes of their records. What was delivered or replaced does not count: it goes with the next compaction.
    bytes: u64,
    /// Ranges, by start, to be compared once it is back.
    marks: BTreeMap<Key, Mark>,
    /// Places of the hints under way.
    flying: BTreeMap<Key, Flight>,
    /// How many may be.
    pace: Pace,
    /// Hints before this place have been sent in this round.
    cursor: Option<Key>,
    /// Not before.
    retry_at: Option<Instant>,
}

/// A hint under way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    /// Bytes of its value.
    bytes: usize,
    /// Which cell it is.
    stamp: Stamp,
    /// `None`: it is being loaded.
    sent_at: Option<Instant>,
}

/// Something that a range of a server has missed was not kept.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Under which it is durable.
    version: Version,
    /// When something was missed last: only a comparison that began later finds it.
    missed_at: Instant,
}

impl Target {
    /// A hint with a record of so many bytes is no longer kept.
    fn forget(&mut self, bytes: u64) {
        debug_assert!(self.hints > 0 && self.bytes >= bytes, "a hint is counted off once");
        self.hints = self.hints.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Handoff {
    pub(super) fn new(store: Store) -> Handoff {
        let mut targets: BTreeMap<ServerId, Target> = BTreeMap::new();
        for held in store.range(Bound::Unbounded, Bound::Unbounded) {
            match parse(&held.to_key()) {
                Some((HINT, target, _)) => {
                    let entry = targets.entry(target).or_default();
                    entry.hints += 1;
                    entry.bytes += u64::from(held.place().length);
                }
                Some((MARK, target, start)) => {
                    // Before this process, thus before any comparison that it runs.
                    let mark = Mark { version: held.version(), missed_at: Instant(0) };
                    targets.entry(target).or_default().marks.insert(start, mark);
                }
                Some(_) | None => {}
            }
        }
        Handoff {
            store,
            targets,
            loads: BTreeMap::new(),
            appends: BTreeMap::new(),
            storing: 0,
            last_mark: 0,
        }
    }

    /// Keeps a cell for a replica that has not acknowledged it.
    pub(super) fn add(&mut self, turn: &mut Turn<'_>, target: ServerId, place: &Key, cell: &Cell) {
        let key = hint_key(target, place);
        let in_all: u64 = self.targets.values().map(|entry| entry.bytes).sum();
        let entry = self.targets.entry(target).or_default();
        let full = entry.hints >= turn.config.max_hints as u64
            || entry.bytes >= turn.config.max_hint_bytes as u64
            || in_all >= turn.config.max_all_hint_bytes as u64;
        let bytes = in_hand(&key, cell);
        // The disk of this server is slower than what others miss: no more of it is kept in memory.
        let waits = self.storing > 0 && self.storing + bytes > turn.config.max_storing;
        if waits || full && self.store.version(&key).is_zero() {
            self.mark(turn, target, place);
            return;
        }
        turn.out.count("hints_kept");
        let mut commands = Vec::new();
        if let Admission::Pending(ticket) = self.store.put(&key, cell, &mut commands)
            && !self.appends.contains_key(&ticket)
        {
            self.appends.insert(ticket, bytes);
            self.storing += bytes;
        }
        turn.out.storage(commands);
    }

    /// An append is over.
    fn end_append(&mut self, ticket: Ticket) {
        let bytes = self.appends.remove(&ticket).unwrap_or_default();
        debug_assert!(self.storing >= bytes, "more hints were stored than were to be");
        self.storing -= bytes;
    }

    /// Notes durably that a range must be compared with the target.
    fn mark(&mut self, turn: &mut Turn<'_>, target: ServerId, place: &Key) {
        let range = turn.config.topology.range_of(place);
        if range.replicas.len() == 1 {
            // Nobody else keeps it, so there is nobody to be compared with. The write was answered as unknown.
            turn.out.count("hints_dropped");
            return;
        }
        let start = range.start.clone();
        let entry = self.targets.entry(target).or_default();
        if let Some(mark) = entry.marks.get_mut(&start) {
            mark.missed_at = turn.now.instant;
            return;
        }
        turn.out.count("hints_full");
        let text = format!(
            "the hints for server {target} are full; its range at '{start}' will be compared when \
             it is back"
        );
        turn.out.notice(Urgency::Warning, text);
        // Above that of every former mark, whatever the wall clock says: the erasure of one would take a later one along at the next start.
        self.last_mark = turn.now.wall.max(turn.clock.seen()).max(self.last_mark + 1);
        let version = Version { time: self.last_mark, ..Version::ZERO };
        entry.marks.insert(start.clone(), Mark { version, missed_at: turn.now.instant });
        let cell = Cell { version, content: Content::Tombstone };
        let mut commands = Vec::new();
        self.store.put(&mark_key(target, &start), &cell, &mut commands);
        turn.out.storage(commands);
    }

    /// Ranges to be compared with this target.
    pub(super) fn marks(&self, target: ServerId) -> BTreeSet<Key> {
        self.targets
            .get(&target)
            .map(|entry| entry.marks.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// Whether the server is still to get something of this range from here, by a hint or by a comparison.
    pub(super) fn owes(&self, target: ServerId, start: &Key) -> bool {
        let is_owed = |entry: &Target| entry.hints > 0 || entry.marks.contains_key(start);
        self.targets.get(&target).is_some_and(is_owed)
    }

    /// A range of the target was compared. What it missed after that had begun may not have been found.
    pub(super) fn unmark(
        &mut self,
        turn: &mut Turn<'_>,
        target: ServerId,
        start: &Key,
        began: Instant,
    ) {
        let Some(entry) = self.targets.get_mut(&target) else { return };
        let Some(mark) = entry.marks.get(start).copied() else { return };
        if mark.missed_at >= began && turn.config.flaw != Some(Flaw::DropNewMark) {
            return;
        }
        entry.marks.remove(start);
        let mut commands = Vec::new();
        self.store.erase(&mark_key(target, start), mark.version, &mut commands);
        turn.out.storage(commands);
    }

    /// All marks: of whom, from which start on, and when something was missed last.
    pub(super) fn all_marks(&self) -> impl Iterator<Item = (ServerId, &Key, Instant)> {
        self.targets.iter().flat_map(|(target, entry)| {
            entry.marks.iter().map(move |(start, mark)| (*target, start, mark.missed_at))
        })
    }

    /// Servers of which some range is to be compared.
    pub(super) fn marked(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.targets.iter().filter(|(_, entry)| !entry.marks.is_empty()).map(|(target, _)| *target)
    }

    /// Which replicas of a key have not acknowledged what this server wrote, and its version.
    pub(super) fn owed(&self, topology: &Topology, place: &Key, replicas: &[ServerId]) -> Known {
        let mut known = Known::default();
        for replica in replicas {
            let Some(target) = self.targets.get(replica) else { continue };
            if !target.marks.is_empty()
                && target.marks.contains_key(&topology.range_of(place).start)
            {
                known.behind.push(*replica);
                known.by_mark = true;
            }
            if target.hints == 0 && !self.store.has_pending() {
                continue;
            }
            let key = hint_key(*replica, place);
            let pending = self.store.pending(&key).map_or(Version::ZERO, |cell| cell.version);
            let version = self.store.version(&key).max(pending);
            if !version.is_zero() {
                known.version = known.version.max(version);
                known.behind.push(*replica);
            }
        }
        known
    }

    /// Durable hints for this target.
    pub(super) fn count(&self, target: ServerId) -> u64 {
        self.targets.get(&target).map_or(0, |entry| entry.hints)
    }

    pub(super) fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    /// Hints for this target from a place on: for an inspector.
    pub(super) fn inspect(
        &self,
        target: ServerId,
        from: &Key,
        limit: usize,
    ) -> (Vec<(Key, Cell)>, bool) {
        let from = hint_key(target, from);
        let mut entries = Vec::new();
        for held in self.store.range(Bound::Included(&from), Bound::Unbounded) {
            let Some((HINT, owner, place)) = parse(&held.to_key()) else { break };
            if owner != target {
                break;
            }
            if entries.len() == limit {
                return (entries, true);
            }
            let content = match held.whereabouts() {
                Whereabouts::Memory(content) => content,
                // Shown without its bytes: an inspection does not push live values out of memory.
                Whereabouts::Disk(_) => Content::Value(bytes::Bytes::new()),
            };
            entries.push((place, Cell { version: held.version(), content }));
        }
        (entries, false)
    }

    /// The target can be reached (again): begin at once, from the start.
    pub(super) fn on_link_up(&mut self, turn: &mut Turn<'_>, target: ServerId) {
        if let Some(entry) = self.targets.get_mut(&target) {
            entry.retry_at = None;
            entry.cursor = None;
            entry.flying.clear();
        }
        self.pump(turn, target);
    }

    /// The target has answered a hint.
    pub(super) fn on_reply(
        &mut self,
        turn: &mut Turn<'_>,
        target: ServerId,
        place: &Key,
        reply: &PeerReply,
    ) {
        let Some(entry) = self.targets.get_mut(&target) else { return };
        let flight = entry.flying.remove(place);
        let sent = flight.map(|flight| flight.stamp);
        match &reply.answer {
            PeerAnswer::Stored { current, .. } => {
                if let Some(sent_at) = flight.and_then(|flight| flight.sent_at) {
                    entry.pace.taken(turn.now.instant, turn.now.instant - sent_at);
                }
                let key = hint_key(target, place);
                // Meanwhile another content under the same version may have come in, which is still to be sent.
                let held = self.store.stamp(&key);
                let is_another = |stamp: Stamp| stamp.version == *current && Some(stamp) != sent;
                if is_another(held)
                    || self.store.pending(&key).map(Stamp::of).is_some_and(is_another)
                {
                    self.pump(turn, target);
                    return;
                }
                let held = held.version;
                if !held.is_zero() && held <= *current {
                    entry.forget(self.store.record_bytes(&key));
                    turn.out.count("hints_delivered");
                }
                let mut commands = Vec::new();
                self.store.erase(&key, *current, &mut commands);
                turn.out.storage(commands);
                self.pump(turn, target);
            }
            _ => {
                entry.pace.missed();
                self.back_off(turn, target);
            }
        }
    }

    /// The target will not answer a hint.
    pub(super) fn on_missed(&mut self, turn: &mut Turn<'_>, target: ServerId, place: &Key) {
        if let Some(entry) = self.targets.get_mut(&target) {
            entry.flying.remove(place);
            entry.pace.missed();
        }
        self.back_off(turn, target);
    }

    /// A storage command of the hints' log was carried out.
    pub(super) fn on_completion(&mut self, turn: &mut Turn<'_>, completion: Completion) {
        let mut commands = Vec::new();
        let key = self.store.key_of(&completion);
        let bytes_before = key.map_or(0, |key| self.store.record_bytes(key));
        let news = self.store.complete(completion, &mut commands);
        turn.out.storage(commands);
        match news {
            Some(News::Published { ticket, key, before, now, .. }) => {
                self.end_append(ticket);
                let Some((HINT, target, _)) = parse(&key) else { return };
                let bytes_now = self.store.record_bytes(&key);
                let entry = self.targets.entry(target).or_default();
                if before.version.is_zero() && !now.version.is_zero() {
                    entry.hints += 1;
                }
                debug_assert!(entry.bytes >= bytes_before, "bytes of hints are counted once");
                entry.bytes = (entry.bytes + bytes_now).saturating_sub(bytes_before);
                self.pump(turn, target);
            }
            Some(News::Rejected { ticket, key }) => {
                self.end_append(ticket);
                if let Some((HINT, target, place)) = parse(&key) {
                    // Nowhere to keep it. The mark may not be durable either; the comparison that runs all the
                    // time does not need it.
                    self.mark(turn, target, &place);
                }
            }
            Some(News::Loaded { ticket, key, cell, .. }) => {
                debug_assert!(parse(&key).is_some(), "only hints are loaded");
                if let Some((target, place)) = self.loads.remove(&ticket) {
                    let flight =
                        self.targets.get_mut(&target).and_then(|it| it.flying.get_mut(&place));
                    if let Some(flight) = flight {
                        flight.sent_at = Some(turn.now.instant);
                    }
                    send(turn, target, &place, cell);
                }
            }
            // What hints rot costs a comparison, so they are not scrubbed.
            Some(News::Scrubbed(_)) => {}
            Some(News::Damaged { ticket, lost }) => {
                turn.out.count("hints_damaged");
                let text = "a hint could not be read back; its range will be compared instead";
                turn.out.notice(Urgency::Warning, text.to_owned());
                // Compaction, which nobody waits for, may have found it.
                let found = lost.and_then(|lost| parse(&lost.key));
                let found = found.map(|(_, target, place)| (target, place));
                let waited_for = ticket.and_then(|ticket| self.loads.remove(&ticket));
                if let Some((target, place)) = waited_for.or(found) {
                    self.give_up(turn, target, &place);
                }
            }
            Some(News::Learnt { .. }) | None => {}
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.targets.values().filter_map(|entry| entry.retry_at).min()
    }

    pub(super) fn on_time(&mut self, turn: &mut Turn<'_>) {
        let due: Vec<_> = self
            .targets
            .iter()
            .filter(|(_, entry)| entry.retry_at.is_some_and(|at| at <= turn.now.instant))
            .map(|(target, _)| *target)
            .collect();
        for target in due {
            if let Some(entry) = self.targets.get_mut(&target) {
                entry.retry_at = None;
                entry.cursor = None;
                entry.flying.clear();
            }
            self.pump(turn, target);
        }
    }

    /// Puts a mark in the place of a hint that cannot be delivered.
    fn give_up(&mut self, turn: &mut Turn<'_>, target: ServerId, place: &Key) {
        self.mark(turn, target, place);
        let key = hint_key(target, place);
        let bytes = self.store.record_bytes(&key);
        let mut commands = Vec::new();
        let held = self.store.version(&key);
        self.store.erase(&key, held, &mut commands);
        turn.out.storage(commands);
        if let Some(entry) = self.targets.get_mut(&target) {
            entry.flying.remove(place);
            // Delivered meanwhile: already counted off.
            if bytes > 0 {
                entry.forget(bytes);
            }
        }
    }

    fn back_off(&mut self, turn: &mut Turn<'_>, target: ServerId) {
        if let Some(entry) = self.targets.get_mut(&target) {
            entry.retry_at = Some(turn.now.instant + BACK_OFF);
        }
    }

    /// Sends hints until the window is full. Ends a round at the last hint and begins the next when all are
    /// answered: hints that came in behind the cursor are in that one.
    fn pump(&mut self, turn: &mut Turn<'_>, target: ServerId) {
        let Some(entry) = self.targets.get_mut(&target) else { return };
        if entry.hints == 0 {
            (entry.cursor, entry.retry_at) = (None, None);
            return;
        }
        if !turn.roster.reachable(target) {
            entry.retry_at = None;
            return;
        }
        if turn.roster.disk(target) == DiskState::Hanging {
            // It would wait in memory there. Whatever is heard of that disk is heard before the next try.
            entry.retry_at = Some(turn.now.instant + BACK_OFF);
            return;
        }
        // Replaced by whatever comes first: an answer, or the end of patience.
        let waiting = entry.retry_at.is_some_and(|at| at > turn.now.instant);
        let backing_off = waiting && entry.flying.is_empty();
        if backing_off {
            return;
        }
        let window = entry.pace.window();
        let most_bytes = WINDOW_BYTES / pace::MOST * window;
        let mut bytes: usize = entry.flying.values().map(|flight| flight.bytes).sum();
        let mut to_load = Vec::new();
        loop {
            let from = match &entry.cursor {
                Some(cursor) => hint_key(target, cursor),
                None => hint_key(target, &Key::bound("")),
            };
            let bound = match &entry.cursor {
                Some(_) => Bound::Excluded(&from),
                None => Bound::Included(&from),
            };
            let room = window - entry.flying.len().min(window);
            let mut last = None;
            let mut sent = 0;
            let mut exhausted = true;
            for held in self.store.range(bound, Bound::Unbounded) {
                let key = held.to_key();
                let Some((HINT, owner, place)) = parse(&key) else { break };
                if owner != target {
                    break;
                }
                if sent >= room || bytes >= most_bytes {
                    exhausted = false;
                    break;
                }
                last = Some(place.clone());
                if entry.flying.contains_key(&place) {
                    continue;
                }
                let flight = match held.whereabouts() {
                    Whereabouts::Memory(content) => {
                        let (bytes, stamp) = (content.len(), held.stamp());
                        send(turn, target, &place, Cell { version: held.version(), content });
                        Flight { bytes, stamp, sent_at: Some(turn.now.instant) }
                    }
                    Whereabouts::Disk(at) => {
                        to_load.push(key);
                        let (bytes, stamp) = (at.length as usize, held.stamp());
                        Flight { bytes, stamp, sent_at: None }
                    }
                };
                bytes += flight.bytes;
                entry.flying.insert(place, flight);
                sent += 1;
            }
            if let Some(last) = last {
                entry.cursor = Some(last);
            }
            if exhausted && entry.flying.is_empty() && entry.cursor.is_some() {
                // The round is over; what is left came in behind the cursor.
                entry.cursor = None;
                continue;
            }
            break;
        }
        entry.retry_at = (!entry.flying.is_empty()).then(|| turn.now.instant + PATIENCE);
        let mut commands = Vec::new();
        if turn.config.flaw == Some(Flaw::DropHintEarly) {
            let sent: Vec<_> = entry.flying.keys().cloned().collect();
            for place in sent {
                let key = hint_key(target, &place);
                self.store.erase(&key, self.store.version(&key), &mut commands);
            }
            (entry.hints, entry.bytes) = (0, 0);
            entry.flying.clear();
        }
        for key in to_load {
            if let (Some(ticket), Some((_, _, place))) =
                (self.store.load(&key, &mut commands), parse(&key))
            {
                self.loads.insert(ticket, (target, place));
            }
        }
        turn.out.storage(commands);
    }
}

/// Sends a hint on its way.
fn send(turn: &mut Turn<'_>, target: ServerId, place: &Key, cell: Cell) {
    let epoch = turn.config.topology.range_of(place).epoch;
    let request = PeerRequest::Store { key: place.clone(), epoch, cell };
    let expires = turn.now.instant + PATIENCE;
    turn.out.ask(target, Origin::Handoff(place.clone()), request, expires);
}

fn hint_key(target: ServerId, place: &Key) -> Key {
    log_key(HINT, target, place)
}

fn mark_key(target: ServerId, start: &Key) -> Key {
    log_key(MARK, target, start)
}

/// What it is, for whom, then the place: hints for one target lie together, in key order.
fn log_key(kind: u8, target: ServerId, place: &Key) -> Key {
    let mut bytes = Vec::with_capacity(3 + place.as_bytes().len());
    bytes.push(kind);
    bytes.extend_from_slice(&target.0.to_be_bytes());
    bytes.extend_from_slice(place.as_bytes());
    Key::bound(bytes)
}

fn parse(key: &Key) -> Option<(u8, ServerId, Key)> {
    let bytes = key.to_bytes();
    let (kind, target) = match *bytes.get(..3)? {
        [kind, high, low] => (kind, ServerId(u16::from_be_bytes([high, low]))),
        _ => return None,
    };
    Some((kind, target, Key::bound(bytes.slice(3..))))
}
