//! What a server does with its own cells, for whichever coordinator asks, itself included.
//!
//! - A cell is shown, and acknowledged, only after the sync that covers it: the [`Store`] makes it visible at its
//!   completion, and only then are those who wait for it answered.
//! - Whether a cell is newer than what is held is decided with cells in view that are appended but not synced;
//!   "I hold something newer" is said only once that newer thing is synced.
//! - A cell is never replaced by an older one.
//!
//! A key is *lost* while the record that is held of it cannot be read ([`Store::is_lost`]). The replica may have acknowledged
//! that record, so it never answers for that key with less: it refuses, reads and pages and older stores alike, until
//! something as new is durable. So it keeps all its promises, and unlike a server that forgot needs no new life for it.
//!
//! Beside its cells the replica keeps a digest of every range: how many keys it holds there, the XOR of a hash of each key
//! and version, and the XOR of a hash of each key, version and content, so that two replicas that hold the same can see it at a
//! glance. The second is told to peers of release 0.1, which know no other, and counts alone where some content is not known.

mod digest;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use self::digest::Digest;
use super::turn::{ReplyTo, Turn, in_hand};
use super::{Config, Flaw, Urgency};
use crate::model::{
    Cell, Checksum, Content, Instant, Key, PageEntry, PeerAnswer, PeerReply, PeerRequest, Pending,
    Read, Refusal, Sender, Stamp,
};
use crate::storage::{
    Admission, Command, Completion, Lost, News, Place, Scrubbed, Store, StoreStats, Ticket,
    Whereabouts,
};

/// Reads and pages that wait for room at a time; one beyond it is refused.
const MAX_WAITING: usize = 16 * 1024;

/// How long they may wait. A request says no deadline on the wire; who has asked has long given up by then, or asked another.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Cells of this server.
#[derive(Debug)]
pub(super) struct Replica {
    store: Store,
    /// Who waits for which append.
    appends: Pending<Waiters>,
    /// Bytes of the cells in them.
    storing: usize,
    /// What a load from disk is for, and how many bytes it takes.
    loads: BTreeMap<Ticket, (Load, usize)>,
    /// Bytes of all loads.
    loading: usize,
    /// Reads that meet too many of them, and until when they may wait.
    waiting: VecDeque<(Instant, Waiting)>,
    /// Pages that wait for loads.
    pages: BTreeMap<u64, Page>,
    next_page: u64,
    /// By position of the range in the topology.
    digests: Vec<Digest>,
    /// Empty between uses; kept for its memory.
    commands: Vec<Command>,
}

/// Nearly always there is but one.
#[derive(Debug)]
struct Waiters {
    /// Whose cell was appended.
    first: ReplyTo,
    /// Those whose cell was the same or older, and which it was.
    more: Vec<(ReplyTo, Stamp)>,
    /// Of the cell.
    bytes: usize,
}

#[derive(Debug)]
enum Load {
    Read(ReplyTo),
    /// This cell is to be put, once it is known what is held under its version.
    Put(ReplyTo, Cell),
    /// The entry at this position of that page.
    PageEntry(u64, usize),
}

/// A read that begins anew once there is room.
#[derive(Debug)]
enum Waiting {
    Read(ReplyTo, Key),
    Page(Reader, PageBounds),
}

/// An answer that is complete but for values on disk.
#[derive(Debug)]
struct Page {
    reader: Reader,
    entries: Vec<PageEntry>,
    truncated: bool,
    missing: usize,
}

/// Who reads a page.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reader {
    /// A server, this one included.
    Server(ReplyTo),
    /// Someone who inspects this server; the number is the caller's.
    Inspector(u64),
}

/// What `node.rs` should know.
#[derive(Debug)]
pub(super) enum Report {
    /// A page for an inspector is complete.
    Inspected { number: u64, entries: Vec<PageEntry>, truncated: bool },
    /// A record cannot be read: from now on nothing is said about its key.
    Lost(Lost),
    /// A key that was lost is held again.
    Healed { key: Key },
    /// A piece of a sealed segment was read through.
    Scrubbed(Scrubbed),
}

impl Replica {
    pub(super) fn new(store: Store, turn: &mut Turn<'_>) -> Replica {
        let mut digests = vec![Digest::default(); turn.config.topology.ranges().len()];
        for held in store.range(Bound::Unbounded, Bound::Unbounded) {
            if turn.config.flaw != Some(Flaw::ForgetSeen) {
                turn.clock.absorb(held.version().time);
            }
            let range = turn.config.topology.index_of(held.key());
            digests[range].add(held.key(), held.stamp());
        }
        Replica {
            store,
            appends: Pending::default(),
            storing: 0,
            loads: BTreeMap::new(),
            loading: 0,
            waiting: VecDeque::new(),
            pages: BTreeMap::new(),
            next_page: 0,
            digests,
            commands: Vec::new(),
        }
    }

    /// Appends, disk reads and pages that somebody waits for.
    pub(super) fn in_hand(&self) -> usize {
        self.appends.len() + self.loads.len() + self.pages.len() + self.waiting.len()
    }

    /// Highest durable position of the log.
    pub(super) fn position(&self) -> u64 {
        self.store.position()
    }

    pub(super) fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    /// Carries out a peer's request. Joins and pings are not the replica's.
    pub(super) fn on_request(
        &mut self,
        turn: &mut Turn<'_>,
        sender: &Sender,
        to: ReplyTo,
        request: PeerRequest,
    ) {
        let (key, epoch) = match &request {
            PeerRequest::Read(Read { key, epoch, .. })
            | PeerRequest::Store { key, epoch, .. }
            | PeerRequest::Page { from: key, epoch, .. }
            | PeerRequest::Digest { start: key, epoch } => (key, *epoch),
            PeerRequest::Clock { state } => {
                let known = *state == turn.config.topology.state();
                let clock = PeerAnswer::Clock { time: turn.clock.seen() };
                let wrong = PeerAnswer::Refused(Refusal::WrongEpoch);
                answer(turn, sender, to, if known { clock } else { wrong });
                return;
            }
            PeerRequest::Ping | PeerRequest::Join(_) => {
                let wall =
                    (turn.config.flaw != Some(Flaw::ClockStaysUnnamed)).then_some(turn.now.wall);
                answer(turn, sender, to, PeerAnswer::Pong { wall });
                return;
            }
        };
        let index = turn.config.topology.index_of(key.as_bytes());
        let range = &turn.config.topology.ranges()[index];
        let refusal = if !range.replicas.contains(&turn.config.server) {
            Some(Refusal::NotReplica)
        } else if range.epoch != epoch {
            Some(Refusal::WrongEpoch)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            answer(turn, sender, to, PeerAnswer::Refused(refusal));
            return;
        }
        match request {
            PeerRequest::Read(Read { key, with_value, .. }) => {
                self.read(turn, sender, to, &key, with_value);
            }
            PeerRequest::Store { key, cell, .. } => self.put(turn, sender, to, &key, &cell),
            PeerRequest::Page { from, to: end, max_entries, max_bytes, with_values, .. } => {
                let bounds = PageBounds { from, end, max_entries, max_bytes, with_values };
                let report = self.page(turn, sender, Reader::Server(to), bounds);
                debug_assert!(report.is_none(), "a server's page is answered, not reported");
            }
            PeerRequest::Digest { .. } => {
                let digest = &self.digests[index];
                let (count, hash) = (digest.count, digest.hash);
                let tells = turn.config.flaw != Some(Flaw::DigestVersionsOnly);
                let contents = digest.contents().filter(|_| tells);
                answer(turn, sender, to, PeerAnswer::Digest { count, hash, contents });
            }
            PeerRequest::Clock { .. } | PeerRequest::Ping | PeerRequest::Join(_) => {}
        }
    }

    /// What is held and cannot be read.
    pub(super) fn lost(&self) -> Vec<Lost> {
        self.store.lost().collect()
    }

    pub(super) fn has_segment(&self, segment: u32) -> bool {
        self.store.has_segment(segment)
    }

    /// The segment that is written to.
    pub(super) fn active(&self) -> u32 {
        self.store.active()
    }

    /// Bytes that a scrub still has to read behind the one segment and before the other.
    pub(super) fn scrub_left(&self, (after, end): (u32, u32)) -> u64 {
        self.store.scrub_left(after, end)
    }

    /// Has the next piece read of those segments; [`Report::Scrubbed`] follows. False: there is none.
    pub(super) fn scrub(&mut self, turn: &mut Turn<'_>, (after, end): (u32, u32)) -> bool {
        let ordered = self.store.scrub(after, end, &mut self.commands);
        turn.out.storage(self.commands.drain(..));
        ordered
    }

    /// A new life begins: this lost key may be forgotten.
    pub(super) fn forget_lost(&mut self, config: &Config, key: &Key) {
        if let Some(stamp) = self.store.forget_lost(key) {
            let digest = &mut self.digests[config.topology.index_of(key.as_bytes())];
            digest.remove(key.as_bytes(), stamp);
        }
    }

    /// Reads what this server holds, for an inspector. Lost keys are left out.
    pub(super) fn inspect(
        &mut self,
        turn: &mut Turn<'_>,
        number: u64,
        from: Key,
        limit: usize,
    ) -> Option<Report> {
        let (max_entries, max_bytes) = (limit, INSPECTED_BYTES);
        let bounds = PageBounds { from, end: None, max_entries, max_bytes, with_values: true };
        self.page(turn, &Sender::default(), Reader::Inspector(number), bounds)
    }

    /// A storage command of the cells' log was carried out.
    pub(super) fn on_completion(
        &mut self,
        turn: &mut Turn<'_>,
        sender: &dyn Fn(u64) -> Sender,
        completion: Completion,
    ) -> Vec<Report> {
        let news = self.store.complete(completion, &mut self.commands);
        turn.out.storage(self.commands.drain(..));
        let sender = sender(self.store.position());
        let Some(news) = news else { return Vec::new() };
        let mut reports = Vec::from_iter(self.on_news(turn, &sender, news));
        while self.loading < turn.config.max_loading
            && let Some((until, waiting)) = self.waiting.pop_front()
        {
            if until <= turn.now.instant {
                // Nobody waits for it any more.
                refuse_waiting(turn, &sender, waiting);
                continue;
            }
            match waiting {
                Waiting::Read(to, key) => self.read(turn, &sender, to, &key, true),
                Waiting::Page(reader, bounds) => {
                    reports.extend(self.page(turn, &sender, reader, bounds));
                }
            }
        }
        reports
    }

    fn on_news(&mut self, turn: &mut Turn<'_>, sender: &Sender, news: News) -> Option<Report> {
        match news {
            News::Published { ticket, key, put, before, now, healed } => {
                if before != now {
                    let digest = &mut self.digests[turn.config.topology.index_of(key.as_bytes())];
                    if !before.version.is_zero() {
                        digest.remove(key.as_bytes(), before);
                    }
                    digest.add(key.as_bytes(), now);
                }
                for (to, sent) in self.end_append(ticket) {
                    answer(turn, sender, to, stored(sent.unwrap_or(put), now));
                }
                healed.then_some(Report::Healed { key })
            }
            News::Rejected { ticket, .. } => {
                turn.out.count("stores_rejected");
                for (to, _) in self.end_append(ticket) {
                    answer(turn, sender, to, PeerAnswer::Refused(Refusal::Storage));
                }
                None
            }
            News::Scrubbed(scrubbed) => Some(Report::Scrubbed(scrubbed)),
            News::Loaded { ticket, key, cell, checksum, learnt } => {
                let stamp = Stamp { version: cell.version, checksum: Some(checksum) };
                if learnt {
                    self.learn(turn, &key, stamp);
                }
                self.loaded(turn, sender, ticket, &key, stamp, cell.content)
            }
            News::Learnt { key, now } => {
                self.learn(turn, &key, now);
                None
            }
            News::Damaged { ticket, lost } => {
                match ticket.and_then(|ticket| self.end_load(ticket)) {
                    Some(Load::Read(to) | Load::Put(to, _)) => {
                        answer(turn, sender, to, PeerAnswer::Refused(Refusal::Storage));
                    }
                    // The page can never be complete: whoever reads it gets none.
                    Some(Load::PageEntry(page, _)) => self.drop_page(turn, sender, page),
                    None => {}
                }
                lost.map(Report::Lost)
            }
        }
    }

    /// Who has waited for it, and which cell each had sent, if it was not the one appended.
    fn end_append(
        &mut self,
        ticket: Ticket,
    ) -> impl Iterator<Item = (ReplyTo, Option<Stamp>)> + use<> {
        let waiters = self.appends.remove(ticket.0);
        self.storing -= waiters.as_ref().map_or(0, |waiters| waiters.bytes);
        waiters.into_iter().flat_map(|Waiters { first, more, .. }| {
            let more = more.into_iter().map(|(to, sent)| (to, Some(sent)));
            [(first, None)].into_iter().chain(more)
        })
    }

    /// Of a held cell the content is known now.
    fn learn(&mut self, turn: &Turn<'_>, key: &Key, stamp: Stamp) {
        let digest = &mut self.digests[turn.config.topology.index_of(key.as_bytes())];
        digest.remove(key.as_bytes(), Stamp { checksum: None, ..stamp });
        digest.add(key.as_bytes(), stamp);
    }

    fn begin_load(&mut self, ticket: Ticket, load: Load, place: Place) {
        let bytes = place.length as usize;
        self.loading += bytes;
        self.loads.insert(ticket, (load, bytes));
    }

    fn end_load(&mut self, ticket: Ticket) -> Option<Load> {
        let (load, bytes) = self.loads.remove(&ticket)?;
        debug_assert!(self.loading >= bytes, "more was loaded than was ordered");
        self.loading -= bytes;
        Some(load)
    }

    fn read(
        &mut self,
        turn: &mut Turn<'_>,
        sender: &Sender,
        to: ReplyTo,
        key: &Key,
        with_value: bool,
    ) {
        if turn.config.flaw == Some(Flaw::ReadUnsynced)
            && let Some(Cell { version, content }) = self.store.pending(key).cloned()
        {
            let checksum = Some(Checksum::of(&content));
            let content = with_value.then_some(content);
            answer(turn, sender, to, PeerAnswer::Held { version, checksum, content });
            return;
        }
        if self.store.is_lost(key) {
            let answered = if turn.config.flaw == Some(Flaw::VoteForWhatWasLost) {
                shown(Stamp::default(), None)
            } else {
                PeerAnswer::Refused(Refusal::Storage)
            };
            answer(turn, sender, to, answered);
            return;
        }
        let found = match self.store.find(key) {
            None => shown(Stamp::default(), None),
            Some((stamp, _)) if !with_value => shown(stamp, None),
            Some((stamp, Whereabouts::Memory(content))) => shown(stamp, Some(content)),
            Some((_, Whereabouts::Disk(_))) if self.loading >= turn.config.max_loading => {
                self.put_off(turn, sender, Waiting::Read(to, key.clone()));
                return;
            }
            Some((_, Whereabouts::Disk(place))) => {
                if let Some(ticket) = self.store.load(key, &mut self.commands) {
                    self.begin_load(ticket, Load::Read(to), place);
                }
                turn.out.storage(self.commands.drain(..));
                return;
            }
        };
        answer(turn, sender, to, found);
    }

    fn put(&mut self, turn: &mut Turn<'_>, sender: &Sender, to: ReplyTo, key: &Key, cell: &Cell) {
        if key.as_bytes().is_empty() || !cell.version.is_issued() {
            // The decoder refuses it with a sentence; this is for whatever comes another way.
            answer(turn, sender, to, PeerAnswer::Refused(Refusal::Storage));
            return;
        }
        turn.clock.absorb(cell.version.time);
        if turn.config.flaw == Some(Flaw::AckOvertakenFromMemory)
            && let Some(newer) =
                self.store.pending(key).filter(|newer| newer.version > cell.version)
        {
            let current = newer.version;
            answer(turn, sender, to, PeerAnswer::Stored { current, other: None });
            return;
        }
        let bytes = in_hand(key, cell);
        if self.storing > 0 && self.storing + bytes > turn.config.max_storing {
            // The disk is slower than those who write. Whoever asked counts this replica as missed, and keeps a hint.
            turn.out.count("stores_overloaded");
            answer(turn, sender, to, PeerAnswer::Refused(Refusal::Overloaded));
            return;
        }
        let admission = self.store.put(key, cell, &mut self.commands);
        turn.out.storage(self.commands.drain(..));
        match admission {
            Admission::Held { current, other } => {
                answer(turn, sender, to, PeerAnswer::Stored { current, other });
            }
            Admission::Unread if self.loading >= turn.config.max_loading => {
                answer(turn, sender, to, PeerAnswer::Refused(Refusal::Overloaded));
            }
            Admission::Unread => {
                if let Some((_, Whereabouts::Disk(place))) = self.store.find(key)
                    && let Some(ticket) = self.store.load(key, &mut self.commands)
                {
                    self.begin_load(ticket, Load::Put(to, cell.clone()), place);
                }
                turn.out.storage(self.commands.drain(..));
            }
            Admission::Lost if turn.config.flaw == Some(Flaw::VoteForWhatWasLost) => {
                let current = cell.version;
                answer(turn, sender, to, PeerAnswer::Stored { current, other: None });
            }
            Admission::Lost => {
                answer(turn, sender, to, PeerAnswer::Refused(Refusal::Storage));
            }
            Admission::Pending(ticket) => {
                if turn.config.flaw == Some(Flaw::AckBeforeSync) {
                    let current = cell.version;
                    answer(turn, sender, to, PeerAnswer::Stored { current, other: None });
                    return;
                }
                match self.appends.get_mut(ticket.0) {
                    Some(waiters) => {
                        // Of an older version nobody asks which content it was.
                        let version = cell.version;
                        let newest = self.store.pending(key);
                        let is_another = newest.is_some_and(|newest| newest.version == version);
                        let checksum = is_another.then(|| Checksum::of(&cell.content));
                        waiters.more.push((to, Stamp { version, checksum }));
                    }
                    None => {
                        self.storing += bytes;
                        let waiters = Waiters { first: to, more: Vec::new(), bytes };
                        self.appends.insert(ticket.0, waiters);
                    }
                }
            }
        }
    }

    /// Has a read wait for others to be over.
    fn put_off(&mut self, turn: &mut Turn<'_>, sender: &Sender, waiting: Waiting) {
        turn.out.count("loads_put_off");
        if self.waiting.len() >= MAX_WAITING {
            refuse_waiting(turn, sender, waiting);
            return;
        }
        self.waiting.push_back((turn.now.instant + MAX_WAIT, waiting));
    }

    fn page(
        &mut self,
        turn: &mut Turn<'_>,
        sender: &Sender,
        reader: Reader,
        bounds: PageBounds,
    ) -> Option<Report> {
        let end = bounds.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut entries: Vec<PageEntry> = Vec::new();
        let mut on_disk = Vec::new();
        let (mut bytes, mut truncated) = (0, false);
        let passes_over_lost = matches!(reader, Reader::Inspector(_))
            || turn.config.flaw == Some(Flaw::VoteForWhatWasLost);
        for held in self.store.range(Bound::Included(&bounds.from), end) {
            if entries.len() >= bounds.max_entries || bytes >= bounds.max_bytes {
                truncated = true;
                break;
            }
            if self.store.has_lost() && self.store.is_lost(&held.to_key()) {
                match reader {
                    _ if passes_over_lost => continue,
                    // The page ends before it.
                    _ if !entries.is_empty() => {
                        truncated = true;
                        break;
                    }
                    Reader::Server(to) => {
                        answer(turn, sender, to, PeerAnswer::Refused(Refusal::Storage));
                        return None;
                    }
                    Reader::Inspector(_) => continue,
                }
            }
            bytes += held.key().len() + ENTRY_OVERHEAD;
            let mut content = None;
            if bounds.with_values {
                match held.whereabouts() {
                    Whereabouts::Memory(here) => {
                        bytes += here.len();
                        content = Some(here);
                    }
                    Whereabouts::Disk(place) => {
                        bytes += place.length as usize;
                        on_disk.push((entries.len(), place));
                    }
                }
            }
            let Stamp { version, checksum } = held.stamp();
            let tells = turn.config.flaw != Some(Flaw::DigestVersionsOnly);
            let checksum = checksum.filter(|_| tells);
            entries.push(PageEntry { key: held.to_key(), version, checksum, content });
        }
        if on_disk.is_empty() {
            return finish_page(turn, sender, reader, entries, truncated);
        }
        if self.loading >= turn.config.max_loading {
            self.put_off(turn, sender, Waiting::Page(reader, bounds));
            return None;
        }
        let number = self.next_page;
        self.next_page += 1;
        let mut missing = 0;
        for (position, place) in on_disk {
            // What was on disk a moment ago, in this same turn, still is.
            let Some(ticket) = self.store.load(&entries[position].key, &mut self.commands) else {
                continue;
            };
            self.begin_load(ticket, Load::PageEntry(number, position), place);
            missing += 1;
        }
        turn.out.storage(self.commands.drain(..));
        self.pages.insert(number, Page { reader, entries, truncated, missing });
        None
    }

    fn loaded(
        &mut self,
        turn: &mut Turn<'_>,
        sender: &Sender,
        ticket: Ticket,
        key: &Key,
        stamp: Stamp,
        content: Content,
    ) -> Option<Report> {
        match self.end_load(ticket)? {
            // Something newer was shown meanwhile: what a replica says never gets older.
            Load::Read(to) if stamp.is_below(&self.store.stamp(key)) => {
                self.read(turn, sender, to, key, true);
                None
            }
            Load::Read(to) => {
                answer(turn, sender, to, shown(stamp, Some(content)));
                None
            }
            Load::Put(to, cell) => {
                self.put(turn, sender, to, key, &cell);
                None
            }
            Load::PageEntry(number, position) => {
                let page = self.pages.get_mut(&number)?;
                let entry = &mut page.entries[position];
                (entry.version, entry.checksum) = (stamp.version, stamp.checksum);
                entry.content = Some(content);
                page.missing -= 1;
                if page.missing > 0 {
                    return None;
                }
                let Page { reader, entries, truncated, .. } = self.pages.remove(&number)?;
                finish_page(turn, sender, reader, entries, truncated)
            }
        }
    }

    fn drop_page(&mut self, turn: &mut Turn<'_>, sender: &Sender, number: u64) {
        let Some(page) = self.pages.remove(&number) else { return };
        match page.reader {
            Reader::Server(to) => {
                answer(turn, sender, to, PeerAnswer::Refused(Refusal::Storage));
            }
            Reader::Inspector(_) => {
                let text = "an inspection met a damaged record and was given up".to_owned();
                turn.out.notice(Urgency::Warning, text);
            }
        }
    }
}

/// Which part of the order a page shows, and how much of it.
#[derive(Debug)]
struct PageBounds {
    from: Key,
    end: Option<Key>,
    max_entries: usize,
    max_bytes: usize,
    with_values: bool,
}

/// What an entry of a page takes on the wire beside key and value, roughly.
const ENTRY_OVERHEAD: usize = 64;

/// Bytes of a page for an inspector.
const INSPECTED_BYTES: usize = 1 << 20;

fn finish_page(
    turn: &mut Turn<'_>,
    sender: &Sender,
    reader: Reader,
    entries: Vec<PageEntry>,
    truncated: bool,
) -> Option<Report> {
    match reader {
        Reader::Server(to) => {
            answer(turn, sender, to, PeerAnswer::Page { entries, truncated });
            None
        }
        Reader::Inspector(number) => Some(Report::Inspected { number, entries, truncated }),
    }
}

/// Of a read that will not be carried out.
fn refuse_waiting(turn: &mut Turn<'_>, sender: &Sender, waiting: Waiting) {
    match waiting {
        Waiting::Read(to, _) | Waiting::Page(Reader::Server(to), _) => {
            answer(turn, sender, to, PeerAnswer::Refused(Refusal::Overloaded));
        }
        Waiting::Page(Reader::Inspector(_), _) => {
            let text = "an inspection was given up: too many reads wait for the disk".to_owned();
            turn.out.notice(Urgency::Warning, text);
        }
    }
}

fn answer(turn: &mut Turn<'_>, sender: &Sender, to: ReplyTo, answer: PeerAnswer) {
    turn.out.reply(to, PeerReply { sender: sender.clone(), answer });
}

fn shown(stamp: Stamp, content: Option<Content>) -> PeerAnswer {
    PeerAnswer::Held { version: stamp.version, checksum: stamp.checksum, content }
}

/// What whoever sent one cell is told, now that this one is held.
fn stored(sent: Stamp, now: Stamp) -> PeerAnswer {
    debug_assert!(now.version >= sent.version, "what is held is older than what was stored");
    let differs = now.version == sent.version && !now.agrees_with(&sent);
    PeerAnswer::Stored { current: now.version, other: now.checksum.filter(|_| differs) }
}

/// What a deleted or unread entry of a page shows.
pub(super) fn cell_of(entry: PageEntry) -> (Key, Cell) {
    let content = entry.content.unwrap_or(Content::Tombstone);
    (entry.key, Cell { version: entry.version, content })
}
