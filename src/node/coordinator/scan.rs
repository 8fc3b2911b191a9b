//! One ordered scan in flight.
//!
//! Range after range, page after page: a page is asked of the range's replicas, and of the answers of as many as
//! the level requires the newest cell of each key is taken. A key on which they differ is written back before it
//! is answered, as a get would do. An answer that was cut short says nothing of the keys behind its last one, so
//! a page is merged only up to the smallest last key of a cut answer.
//!
//! At ONE a page is asked of one replica, the one that a get would ask; of the next when that one cannot answer or its answer
//! does not count; and of all when it is slow.
//!
//! Each key is thus a get at the level, some time during the call; the scan as a whole is no snapshot.

use std::collections::BTreeMap;
use std::time::Duration;

use smallvec::SmallVec;

use super::super::Flaw;
use super::super::turn::{OperationId, Origin, Turn};
use super::read::preference;
use super::tally::Tally;
use super::{Place, bytes_of};
use crate::model::{
    CallId, Cell, Checksum, ClientResponse, Content, Failure, Instant, Key, Level, PageEntry,
    PeerAnswer, PeerReply, PeerRequest, ScanEntry, ServerId, Stamp, Version,
};

/// Keys asked of a replica at once, at most: tombstones may lie between live ones.
const PAGE_ENTRIES: usize = 512;
/// Bytes asked of a replica at once.
const PAGE_BYTES: usize = 1 << 20;
/// Bytes of keys and values answered in one call; a value longer than that comes alone.
const ANSWER_BYTES: usize = 4 << 20;
/// Pages one call goes through before it answers with what it has: a stretch of tombstones ends.
const PAGES: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Scan {
    /// `None` once it has been answered.
    call: Option<CallId>,
    level: Level,
    deadline: Instant,
    /// How long one replica that is asked alone has for a page, until the others are asked too.
    patience: Duration,
    /// When that is over; `None` once everyone has been asked.
    impatient_at: Option<Instant>,
    /// Replicas asked for the present page.
    asked: SmallVec<[ServerId; 8]>,
    /// End, exclusive.
    to: Option<Key>,
    limit: usize,
    entries: Vec<ScanEntry>,
    bytes: usize,
    /// Bytes of the present page, of all replicas that have answered.
    gathered: usize,
    pages: usize,
    /// Where the present page begins.
    cursor: Key,
    /// The range it lies in.
    place: Place,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Gathering(Tally<Page>),
    /// Keys of the page, newest cell each, some of which must first be held by a majority.
    WritingBack {
        cells: Vec<(Key, Cell)>,
        open: BTreeMap<Key, (Version, Tally<Version>)>,
        rest: Rest,
    },
}

#[derive(Clone, Debug)]
struct Page {
    entries: BTreeMap<Key, (Stamp, Content)>,
    /// Nothing is known of keys behind this one.
    known_to: Option<Key>,
}

/// What of a scan was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum ScanPart {
    /// The page with this number.
    Page(usize),
    /// That this key be held.
    Back(Key),
}

/// Where a merged page ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rest {
    /// At this key, exclusive; more of the range follows.
    From(Key),
    /// With the range.
    NextRange,
}

impl Scan {
    #[expect(clippy::too_many_arguments, reason = "one scan's parts, each of its own type")]
    pub(super) fn start(
        turn: &mut Turn<'_>,
        id: OperationId,
        call: CallId,
        from: Key,
        to: Option<Key>,
        limit: usize,
        level: Level,
        deadline: Instant,
        patience: Duration,
    ) -> Result<Scan, Failure> {
        let place = Place::of(turn.config, from.clone());
        let phase = Phase::Gathering(Tally::new(&place.replicas, 0));
        let mut scan = Scan {
            call: Some(call),
            level,
            deadline,
            patience,
            impatient_at: None,
            asked: SmallVec::new(),
            to,
            limit,
            entries: Vec::new(),
            bytes: 0,
            gathered: 0,
            pages: 0,
            cursor: from,
            place,
            phase,
        };
        scan.ask(turn, id)?;
        Ok(scan)
    }

    pub(super) fn on_reply(
        &mut self,
        turn: &mut Turn<'_>,
        id: OperationId,
        from: ServerId,
        part: &ScanPart,
        reply: &PeerReply,
    ) {
        match (&mut self.phase, &reply.answer) {
            // Of a former page.
            (_, PeerAnswer::Page { .. }) if *part != ScanPart::Page(self.pages) => return,
            (Phase::Gathering(tally), PeerAnswer::Page { entries, truncated }) => {
                match Page::new(entries, *truncated) {
                    Some(page) => {
                        self.gathered += bytes_of(entries);
                        tally.answer(from, &reply.sender, page);
                    }
                    None => tally.miss(from),
                }
            }
            (Phase::Gathering(tally), _) if *part == ScanPart::Page(self.pages) => tally.miss(from),
            (Phase::WritingBack { open, .. }, answer) => {
                let ScanPart::Back(key) = part else { return };
                let Some((version, tally)) = open.get_mut(key) else { return };
                match answer {
                    PeerAnswer::Stored { current, .. } if *current >= *version => {
                        tally.answer(from, &reply.sender, *current);
                    }
                    _ => tally.miss(from),
                }
            }
            (Phase::Gathering(_), _) => return,
        }
        self.advance(turn, id);
    }

    pub(super) fn on_missed(&mut self, turn: &mut Turn<'_>, id: OperationId, replica: ServerId) {
        match &mut self.phase {
            Phase::Gathering(tally) => tally.miss(replica),
            Phase::WritingBack { open, .. } => {
                open.values_mut().for_each(|(_, tally)| tally.miss(replica));
            }
        }
        self.advance(turn, id);
    }

    /// The next moment at which [`Scan::on_time`] has something to do.
    pub(super) fn next_deadline(&self) -> Instant {
        self.impatient_at.map_or(self.deadline, |at| at.min(self.deadline))
    }

    pub(super) fn on_time(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        if turn.now.instant >= self.deadline {
            self.on_deadline(turn);
        } else if self.impatient_at.is_some_and(|at| turn.now.instant >= at) {
            self.impatient_at = None;
            turn.out.count("scans_impatient");
            self.ask_more(turn, id, usize::MAX);
        }
    }

    fn on_deadline(&mut self, turn: &mut Turn<'_>) {
        let received = match &self.phase {
            Phase::Gathering(tally) => tally.received(turn.roster),
            Phase::WritingBack { open, .. } => {
                open.values().map(|(_, tally)| tally.received(turn.roster)).min().unwrap_or(0)
            }
        };
        let failure = self.timed_out(received);
        self.fail(turn, failure);
    }

    pub(super) fn is_over(&self) -> bool {
        self.call.is_none()
    }

    /// Asks for the page at the cursor.
    fn ask(&mut self, turn: &mut Turn<'_>, id: OperationId) -> Result<(), Failure> {
        self.pages += 1;
        self.gathered = 0;
        let required = self.level.required(self.place.replicas.len());
        let alive = self.place.alive(turn.roster);
        if alive < required {
            return Err(Failure::Unavailable { level: self.level, required, alive });
        }
        let mut tally = Tally::new(&self.place.replicas, required);
        for replica in &self.place.replicas {
            if !turn.roster.reachable(*replica) {
                tally.miss(*replica);
            }
        }
        self.phase = Phase::Gathering(tally);
        self.asked.clear();
        // ONE asks one; the others ask everyone and take the first answers.
        let is_one = self.level == Level::One;
        self.impatient_at = is_one.then(|| turn.now.instant + self.patience);
        self.ask_more(turn, id, if is_one { 1 } else { usize::MAX });
        if is_one && turn.config.flaw == Some(Flaw::ScanOneAsksNoOther) {
            self.forget_others();
        }
        Ok(())
    }

    /// Asks so many replicas more for the present page, in the order in which a get would ask them.
    fn ask_more(&mut self, turn: &mut Turn<'_>, id: OperationId, most: usize) {
        if !matches!(self.phase, Phase::Gathering(_)) {
            return;
        }
        let end = [self.place.end.as_ref(), self.to.as_ref()].into_iter().flatten().min().cloned();
        let may =
            |replica: &ServerId| turn.roster.reachable(*replica) && !self.asked.contains(replica);
        let mut others: SmallVec<[ServerId; 8]> =
            self.place.replicas.iter().copied().filter(may).collect();
        others.sort_by_key(|replica| preference(turn, *replica, false));
        if turn.config.flaw == Some(Flaw::ScanOneAsksNoOther) {
            others.sort_by_key(|replica| *replica != turn.config.server);
        }
        for replica in others.into_iter().take(most) {
            let request = PeerRequest::Page {
                from: self.cursor.clone(),
                to: end.clone(),
                epoch: self.place.epoch,
                max_entries: PAGE_ENTRIES.min(self.limit - self.entries.len() + 1),
                max_bytes: PAGE_BYTES,
                with_values: true,
            };
            let origin = Origin::ScanPage(id, self.pages);
            turn.out.ask(replica, origin, request, self.deadline);
            self.asked.push(replica);
        }
    }

    /// Asks one replica more; if none of those that are left can be reached, there is nothing to wait for.
    fn ask_next(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        let before = self.asked.len();
        self.ask_more(turn, id, 1);
        if self.asked.len() > before {
            return;
        }
        let Phase::Gathering(tally) = &self.phase else { return };
        let failure = self.timed_out(tally.received(turn.roster));
        self.fail(turn, failure);
    }

    /// For [`Flaw::ScanOneAsksNoOther`].
    fn forget_others(&mut self) {
        let Phase::Gathering(tally) = &mut self.phase else { return };
        for replica in self.place.replicas.iter().filter(|replica| !self.asked.contains(replica)) {
            tally.miss(*replica);
        }
        self.impatient_at = None;
    }

    fn advance(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        if self.call.is_none() {
            return;
        }
        if let Phase::Gathering(tally) = &self.phase {
            if !tally.is_met(turn.roster) {
                if tally.is_hopeless(turn.roster) {
                    let received = tally.received(turn.roster);
                    let failure = self.timed_out(received);
                    self.fail(turn, failure);
                } else if !tally.waiting().any(|replica| self.asked.contains(&replica)) {
                    // Whoever was asked will not answer, or does not count.
                    self.ask_next(turn, id);
                }
                return;
            }
            self.merge(turn, id);
        }
        let Phase::WritingBack { open, .. } = &mut self.phase else { return };
        open.retain(|_, (_, tally)| !tally.is_met(turn.roster));
        if let Some((_, tally)) = open.values().find(|(_, tally)| tally.is_hopeless(turn.roster)) {
            let received = tally.received(turn.roster);
            let failure = self.timed_out(received);
            self.fail(turn, failure);
            return;
        }
        if open.is_empty() {
            self.take(turn, id);
        }
    }

    /// Takes the newest cell of each key from the answers that count, and writes back where they differ.
    fn merge(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        let Phase::Gathering(tally) = &self.phase else { return };
        let pages: Vec<_> = tally.votes(turn.roster).collect();
        let known_to = pages.iter().filter_map(|(_, page)| page.known_to.as_ref()).min().cloned();
        let mut newest: BTreeMap<&Key, (Stamp, &Content)> = BTreeMap::new();
        for (key, (stamp, content)) in pages.iter().flat_map(|(_, page)| &page.entries) {
            if known_to.as_ref().is_some_and(|last| key > last) {
                continue;
            }
            let slot = newest.entry(key).or_insert((*stamp, content));
            if *stamp > slot.0 {
                *slot = (*stamp, content);
            }
        }
        let required = self.level.required(self.place.replicas.len());
        let mut cells = Vec::with_capacity(newest.len());
        let mut open = BTreeMap::new();
        for (key, (stamp, content)) in newest {
            let holds = |page: &&Page| {
                page.entries.get(key).is_some_and(|(held, _)| held.agrees_with(&stamp))
            };
            let version = stamp.version;
            let holders = pages.iter().map(|(_, page)| *page).filter(holds).count();
            let cell = Cell { version, content: content.clone() };
            if holders < required {
                open.insert(key.clone(), (version, Tally::new(&self.place.replicas, required)));
            }
            cells.push((key.clone(), cell));
        }
        for (key, cell) in &cells {
            let Some((_, tally)) = open.get_mut(key) else { continue };
            turn.out.count("reads_written_back");
            for replica in &self.place.replicas {
                if turn.roster.reachable(*replica) {
                    let (key, epoch) = (key.clone(), self.place.epoch);
                    let origin = Origin::ScanBack(id, key.clone());
                    let request = PeerRequest::Store { key, epoch, cell: cell.clone() };
                    turn.out.ask(*replica, origin, request, self.deadline);
                } else {
                    tally.miss(*replica);
                }
            }
        }
        let rest = known_to.map_or(Rest::NextRange, |last| Rest::From(last.successor()));
        self.phase = Phase::WritingBack { cells, open, rest };
    }

    /// The page's cells may be answered now.
    fn take(&mut self, turn: &mut Turn<'_>, id: OperationId) {
        let Phase::WritingBack { cells, rest, .. } = &mut self.phase else { return };
        let (cells, rest) = (std::mem::take(cells), rest.clone());
        for (key, cell) in cells {
            let Content::Value(value) = cell.content else { continue };
            let bytes = key.as_bytes().len() + value.len();
            let full = self.entries.len() >= self.limit
                || !self.entries.is_empty() && self.bytes + bytes > ANSWER_BYTES;
            if full {
                self.finish(turn, Some(key));
                return;
            }
            self.bytes += bytes;
            let key = turn.config.partitioner.key(&key);
            self.entries.push(ScanEntry { key, value, version: cell.version });
        }
        let next = match rest {
            Rest::From(key) => Some(key),
            Rest::NextRange => self.place.end.clone(),
        };
        let next = next.filter(|next| self.to.as_ref().is_none_or(|to| next < to));
        let Some(next) = next else {
            self.finish(turn, None);
            return;
        };
        if self.entries.len() >= self.limit || self.pages >= PAGES {
            self.finish(turn, Some(next));
            return;
        }
        self.cursor = next;
        self.place = Place::of(turn.config, self.cursor.clone());
        match self.ask(turn, id) {
            Ok(()) => self.advance(turn, id),
            Err(failure) => self.fail(turn, failure),
        }
    }

    fn finish(&mut self, turn: &mut Turn<'_>, next: Option<Key>) {
        let Some(call) = self.call.take() else { return };
        turn.out.count("scans_ok");
        let entries = std::mem::take(&mut self.entries);
        turn.out.answer(call, Ok(ClientResponse::Scan { entries, next }));
    }

    /// What was read before is worth more than the failure: the next call will meet it again.
    fn fail(&mut self, turn: &mut Turn<'_>, failure: Failure) {
        if !self.entries.is_empty() {
            self.finish(turn, Some(self.cursor.clone()));
            return;
        }
        let Some(call) = self.call.take() else { return };
        turn.out.count("scans_failed");
        turn.out.answer(call, Err(failure));
    }

    /// Bytes of values that it keeps.
    pub(super) fn bytes(&self) -> usize {
        if self.is_over() { 0 } else { self.bytes + self.gathered }
    }

    /// Too much has come for others: this page cannot be kept.
    pub(super) fn overload(&mut self, turn: &mut Turn<'_>) {
        let failure = Failure::Overloaded { server: turn.config.server };
        self.fail(turn, failure);
    }

    fn timed_out(&self, received: usize) -> Failure {
        let required = self.level.required(self.place.replicas.len());
        Failure::TimedOut { level: self.level, required, received, version: None }
    }
}

impl Page {
    /// `None` if an entry lacks its content, which must not be taken for a tombstone.
    fn new(entries: &[PageEntry], truncated: bool) -> Option<Page> {
        let known_to = if truncated { entries.last().map(|entry| entry.key.clone()) } else { None };
        let entry = |entry: &PageEntry| {
            let content = entry.content.clone()?;
            // Release 0.1 tells none.
            let checksum = entry.checksum.unwrap_or_else(|| Checksum::of(&content));
            let stamp = Stamp { version: entry.version, checksum: Some(checksum) };
            Some((entry.key.clone(), (stamp, content)))
        };
        let entries = entries.iter().map(entry).collect::<Option<_>>()?;
        Some(Page { entries, known_to })
    }
}
