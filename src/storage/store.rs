//! The keydir and cached values of one log, on the protocol's thread.
//!
//! A cell becomes visible at its completion, not before; whether another is newer is decided with those in view that
//! are still on their way. Compaction empties one sealed segment at a time: the records in it that the keydir still
//! points to are appended again like any other, and once they are durable the file is removed. So compaction has no
//! format and no recovery of its own, a crash at any point leaves at worst two copies of a record, and reads and
//! writes go on between its steps. A key's newest record is always alive, a tombstone no less than a value.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use super::{AppendError, Command, Completion, LoadError, Log, Place, Record, StorageFlaw, Ticket};
use crate::model::{Cell, Content, Key, Version};

/// What a store does with a cell it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It, or something newer, is durable already.
    Held {
        /// What is held.
        current: Version,
    },
    /// It, or something newer, is on its way to the disk: [`News::Published`] with this ticket will tell.
    /// Several admissions may share a ticket.
    Pending(Ticket),
}

/// Where the content of a held cell is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// Here.
    Memory(Content),
    /// On disk: [`Store::load`] fetches it.
    Disk(Place),
}

/// What a completion means for the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The append of `ticket` is durable. What is held now is at least that.
    Published {
        /// Given at admission.
        ticket: Ticket,
        /// Of which key.
        key: Key,
        /// What was held before.
        before: Version,
        /// What is held now; the same as `before` if that was newer.
        now: Version,
    },
    /// The append of `ticket` failed and left nothing behind; what was held before still is.
    Rejected {
        /// Given at admission.
        ticket: Ticket,
        /// Of which key.
        key: Key,
    },
    /// A load has finished.
    Loaded {
        /// Given by [`Store::load`].
        ticket: Ticket,
        /// Of which key.
        key: Key,
        /// The cell as it was when the load began.
        cell: Cell,
    },
    /// A record that should be there is not readable: the store has lost cells.
    Damaged {
        /// Of the load, if it was one.
        ticket: Option<Ticket>,
    },
}

/// How a store is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Bytes of values in memory at most.
    pub memory: u64,
    /// A sealed segment is compacted once more than this share of it, in percent, is dead.
    pub dead_percent: u32,
    /// A deliberate fault, for the simulator alone.
    pub(crate) flaw: Option<StorageFlaw>,
}

/// One key as recovery found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredCell {
    /// The key.
    pub key: Key,
    /// The newest version recorded.
    pub version: Version,
    /// Whether that is a tombstone.
    pub tombstone: bool,
    /// Where its record lies.
    pub place: Place,
}

/// Figures of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Keys held, tombstones included.
    pub keys: u64,
    /// Tombstones among them.
    pub tombstones: u64,
    /// Bytes of all segments.
    pub log_bytes: u64,
    /// Bytes of values in memory.
    pub memory_bytes: u64,
    /// Segments compacted since start.
    pub compactions: u64,
}

/// What recovery found of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Newest cell of each key, in key order.
    pub cells: Vec<RecoveredCell>,
    /// Highest durable position.
    pub position: u64,
    /// The segment that will be written to.
    pub active: u32,
    /// Bytes of each sealed segment, by number.
    pub segments: Vec<(u32, u32)>,
}

/// The keydir and cached values of one log; it decides what is appended, what stays in memory and what is compacted.
#[derive(Debug)]
pub struct Store {
    log: Log,
    options: StoreOptions,
    keydir: BTreeMap<Key, Entry>,
    /// Appends under way.
    appends: BTreeMap<Ticket, Append>,
    /// Of several appends for a key, the newest cell's.
    newest: BTreeMap<Key, Ticket>,
    loads: BTreeMap<Ticket, (Key, Version)>,
    next_ticket: u64,
    segments: BTreeMap<u32, Segment>,
    /// The segment that is written to.
    active: u32,
    position: u64,
    tombstones: u64,
    memory: u64,
    /// Keys whose values are in memory, in the order in which they are considered for leaving it.
    cached: VecDeque<Key>,
    compaction: Compaction,
    /// Something has died, or a segment was sealed, since the last look for work.
    may_compact: bool,
    compactions: u64,
}

/// What is held of a key.
#[derive(Debug)]
struct Entry {
    version: Version,
    place: Place,
    /// `None`: on disk only.
    content: Option<Content>,
    /// Used since it was last considered for leaving memory.
    used: bool,
    /// It stands in the queue of those considered.
    queued: bool,
}

#[derive(Debug)]
struct Append {
    key: Key,
    purpose: Purpose,
}

#[derive(Debug)]
enum Purpose {
    /// A cell taken in.
    Admitted(Cell),
    /// A held cell on its way out of a segment that is being compacted.
    Moved { from: Place },
    /// An erasure.
    Erasure,
    /// A cell that was erased before it was durable.
    Cancelled,
}

#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    size: u32,
    live: u32,
}

/// One segment at a time is emptied, chunk by chunk.
#[derive(Debug, Default)]
enum Compaction {
    #[default]
    Idle,
    /// A chunk is being read.
    Surveying { segment: u32, ticket: Ticket },
    /// Its live records are on their way to the active segment.
    Moving { segment: u32, open: u32, next: Option<u32>, failed: bool, from: u32 },
    /// There was no space; goes on here after the next append that finds some.
    Paused { segment: u32, from: u32 },
    /// Its file is being removed.
    Removing,
}

/// What a value takes in memory beside its bytes, roughly.
const VALUE_OVERHEAD: u64 = 32;

impl Store {
    /// A store over what recovery found. Values come into memory as they are used.
    pub fn new(log: Log, options: StoreOptions, recovered: Recovered) -> Store {
        let Recovered { cells, position, active, segments } = recovered;
        let segment = |(number, size)| (number, Segment { size, live: 0 });
        let mut store = Store {
            log,
            options,
            keydir: BTreeMap::new(),
            appends: BTreeMap::new(),
            newest: BTreeMap::new(),
            loads: BTreeMap::new(),
            next_ticket: 0,
            segments: segments.into_iter().map(segment).collect(),
            active,
            position,
            tombstones: 0,
            memory: 0,
            cached: VecDeque::new(),
            compaction: Compaction::Idle,
            may_compact: true,
            compactions: 0,
        };
        for RecoveredCell { version, tombstone, place, .. } in &cells {
            debug_assert!(!version.is_zero());
            let segment = store.segments.entry(place.segment).or_default();
            segment.live += place.length;
            segment.size = segment.size.max(place.offset + place.length);
            store.tombstones += u64::from(*tombstone);
        }
        let entry = |cell: RecoveredCell| {
            let content = cell.tombstone.then_some(Content::Tombstone);
            let RecoveredCell { key, version, place, .. } = cell;
            (key, Entry { version, place, content, used: false, queued: false })
        };
        // In key order, so that the map is built in one go.
        store.keydir = cells.into_iter().map(entry).collect();
        store
    }

    /// The version that is held: durable and visible. [`Version::ZERO`] if there is none.
    pub fn version(&self, key: &Key) -> Version {
        self.keydir.get(key).map_or(Version::ZERO, |entry| entry.version)
    }

    /// The cell that is held. Counts as a use for the choice of what stays in memory.
    pub fn find(&mut self, key: &Key) -> Option<(Version, Whereabouts)> {
        let entry = self.keydir.get_mut(key)?;
        entry.used = true;
        Some((entry.version, entry.whereabouts()))
    }

    /// Takes in a cell. Only if it is newer than everything held or pending is anything appended.
    pub fn put(&mut self, key: &Key, cell: &Cell, commands: &mut Vec<Command>) -> Admission {
        let pending =
            self.newest.get(key).and_then(|ticket| Some((*ticket, self.appends.get(ticket)?)));
        if let Some((ticket, Append { purpose: Purpose::Admitted(newest), .. })) = pending {
            if !cell.supersedes(newest) {
                return Admission::Pending(ticket);
            }
        } else if let Some(entry) = self.keydir.get(key) {
            // Equal versions with different content are a fault elsewhere; the greater bytes win where both are in
            // view.
            let is_newer = cell.version > entry.version
                || cell.version == entry.version
                    && entry.content.as_ref().is_some_and(|content| cell.content > *content);
            if !is_newer {
                return Admission::Held { current: entry.version };
            }
        }
        let key = self.own_key(key);
        let content = match &cell.content {
            Content::Tombstone => Content::Tombstone,
            // Memory of its own: a slice would keep the whole frame it came in.
            Content::Value(value) => Content::Value(Bytes::copy_from_slice(value)),
        };
        let cell = Cell { version: cell.version, content };
        let record = Record::Put { key: key.clone(), cell: cell.clone() };
        let ticket = self.append(key.clone(), Purpose::Admitted(cell), record, commands);
        self.newest.insert(key, ticket);
        Admission::Pending(ticket)
    }

    /// The newest cell of a key that is appended and not durable yet: for deliberate faults alone.
    pub(crate) fn pending(&self, key: &Key) -> Option<&Cell> {
        match &self.appends.get(self.newest.get(key)?)?.purpose {
            Purpose::Admitted(cell) => Some(cell),
            Purpose::Moved { .. } | Purpose::Erasure | Purpose::Cancelled => None,
        }
    }

    /// Fetches the content of a cell that is held on disk; [`News::Loaded`] follows. `None` if there is nothing to
    /// fetch.
    pub fn load(&mut self, key: &Key, commands: &mut Vec<Command>) -> Option<Ticket> {
        let (key, entry) = self.keydir.get_key_value(key)?;
        if entry.content.is_some() {
            return None;
        }
        let (key, version, place) = (key.clone(), entry.version, entry.place);
        let ticket = self.allot();
        self.loads.insert(ticket, (key, version));
        commands.push(Command::Load { log: self.log, ticket, place });
        Some(ticket)
    }

    /// Hints: forgets what is held of `key` up to `up_to`, at once; the record follows behind.
    pub fn erase(&mut self, key: &Key, up_to: Version, commands: &mut Vec<Command>) {
        let mut found = false;
        if self.keydir.get(key).is_some_and(|entry| entry.version <= up_to) {
            self.forget(key);
            found = true;
        }
        if let Some(ticket) = self.newest.get(key).copied()
            && let Some(append) = self.appends.get_mut(&ticket)
            && let Purpose::Admitted(cell) = &append.purpose
            && cell.version <= up_to
        {
            append.purpose = Purpose::Cancelled;
            self.newest.remove(key);
            found = true;
        }
        if found {
            let key = key.detached();
            let record = Record::Erase { key: key.clone(), up_to };
            self.append(key, Purpose::Erasure, record, commands);
        }
    }

    /// Held cells in key order. Does not count as a use.
    pub fn range(
        &self,
        from: Bound<&Key>,
        to: Bound<&Key>,
    ) -> impl Iterator<Item = (&Key, Version, Whereabouts)> {
        // The map refuses bounds in the wrong order.
        let is_empty = match (from, to) {
            (Bound::Included(from), Bound::Excluded(to))
            | (Bound::Excluded(from), Bound::Excluded(to) | Bound::Included(to)) => from >= to,
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        };
        let range = (!is_empty).then(|| self.keydir.range::<Key, _>((from, to)));
        range.into_iter().flatten().map(|(key, entry)| (key, entry.version, entry.whereabouts()))
    }

    /// Takes in a completion of this store's log; may order more: compaction goes on in bounded steps.
    pub fn complete(
        &mut self,
        completion: Completion,
        commands: &mut Vec<Command>,
    ) -> Option<News> {
        let news = match completion {
            Completion::Appended { ticket, result, position, active, .. } => {
                self.position = self.position.max(position);
                self.may_compact |= active > self.active;
                self.active = self.active.max(active);
                self.appended(ticket, result, commands)
            }
            Completion::Loaded { ticket, result, .. } => self.loaded(ticket, result),
            Completion::Surveyed { ticket, result, next, .. } => {
                self.surveyed(ticket, result, next, commands)
            }
            Completion::Removed { segment, .. } => {
                self.segments.remove(&segment);
                self.compactions += 1;
                self.compaction = Compaction::Idle;
                self.may_compact = true;
                None
            }
            Completion::IdentitySaved { .. }
            | Completion::IdentityUnsaved { .. }
            | Completion::Broken { .. } => None,
        };
        self.compact(commands);
        news
    }

    /// Highest durable position of the log.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Figures, kept up to date all the time.
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            keys: self.keydir.len() as u64,
            tombstones: self.tombstones,
            log_bytes: self.segments.values().map(|segment| u64::from(segment.size)).sum(),
            memory_bytes: self.memory,
            compactions: self.compactions,
        }
    }

    fn allot(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// The key in the keydir's memory, or in memory of its own.
    fn own_key(&self, key: &Key) -> Key {
        self.keydir.get_key_value(key).map_or_else(|| key.detached(), |(key, _)| key.clone())
    }

    fn append(
        &mut self,
        key: Key,
        purpose: Purpose,
        record: Record,
        commands: &mut Vec<Command>,
    ) -> Ticket {
        let ticket = self.allot();
        self.appends.insert(ticket, Append { key, purpose });
        commands.push(Command::Append { log: self.log, ticket, record });
        ticket
    }

    fn appended(
        &mut self,
        ticket: Ticket,
        result: Result<Place, AppendError>,
        commands: &mut Vec<Command>,
    ) -> Option<News> {
        let Append { key, purpose } = self.appends.remove(&ticket)?;
        if let Ok(place) = result {
            let segment = self.segments.entry(place.segment).or_default();
            segment.size = segment.size.max(place.offset + place.length);
        }
        match purpose {
            Purpose::Admitted(cell) => {
                if self.newest.get(&key) == Some(&ticket) {
                    self.newest.remove(&key);
                }
                let Ok(place) = result else { return Some(News::Rejected { ticket, key }) };
                let before = self.version(&key);
                let now = self.publish(&key, cell, place);
                self.resume(commands);
                Some(News::Published { ticket, key, before, now })
            }
            Purpose::Moved { from } => {
                if let Ok(place) = result {
                    self.relocate(&key, from, place);
                }
                self.moved(result.is_ok(), commands);
                None
            }
            // An erasure that could not be written costs a delivery in vain after the next start.
            Purpose::Erasure | Purpose::Cancelled => None,
        }
    }

    /// A cell is durable: shows it, if nothing newer is shown.
    fn publish(&mut self, key: &Key, cell: Cell, place: Place) -> Version {
        let Cell { version, content } = cell;
        let size = memory_of(Some(&content));
        let tombstone = u64::from(content == Content::Tombstone);
        match self.keydir.get_mut(key) {
            Some(entry) if version < entry.version => return entry.version,
            Some(entry) => {
                bury(&mut self.segments, entry.place);
                self.may_compact = true;
                self.memory -= memory_of(entry.content.as_ref());
                self.tombstones -= u64::from(entry.content == Some(Content::Tombstone));
                *entry = Entry {
                    version,
                    place,
                    content: Some(content),
                    used: true,
                    queued: entry.queued,
                };
            }
            None => {
                let entry =
                    Entry { version, place, content: Some(content), used: true, queued: false };
                self.keydir.insert(key.clone(), entry);
            }
        }
        self.tombstones += tombstone;
        self.memory += size;
        self.segments.entry(place.segment).or_default().live += place.length;
        self.note_cached(key);
        version
    }

    fn forget(&mut self, key: &Key) {
        let Some(entry) = self.keydir.remove(key) else { return };
        bury(&mut self.segments, entry.place);
        self.may_compact = true;
        self.memory -= memory_of(entry.content.as_ref());
        self.tombstones -= u64::from(entry.content == Some(Content::Tombstone));
    }

    /// A held record is durable at another place, too.
    fn relocate(&mut self, key: &Key, from: Place, to: Place) {
        let Some(entry) = self.keydir.get_mut(key).filter(|entry| entry.place == from) else {
            return;
        };
        entry.place = to;
        bury(&mut self.segments, from);
        self.segments.entry(to.segment).or_default().live += to.length;
    }

    fn loaded(&mut self, ticket: Ticket, result: Result<Content, LoadError>) -> Option<News> {
        let (key, version) = self.loads.remove(&ticket)?;
        let Ok(content) = result else { return Some(News::Damaged { ticket: Some(ticket) }) };
        if let Some(entry) = self.keydir.get_mut(&key)
            && entry.version == version
            && entry.content.is_none()
        {
            entry.content = Some(content.clone());
            entry.used = true;
            self.memory += memory_of(Some(&content));
            self.note_cached(&key);
        }
        Some(News::Loaded { ticket, key, cell: Cell { version, content } })
    }

    /// A value of this key has come into memory.
    fn note_cached(&mut self, key: &Key) {
        if let Some(entry) = self.keydir.get_mut(key)
            && !entry.queued
            && memory_of(entry.content.as_ref()) > 0
        {
            entry.queued = true;
            self.cached.push_back(key.clone());
        }
        // Keys that were forgotten leave their place in the queue behind.
        if self.cached.len() > 2 * self.keydir.len() + 1024 {
            let keydir = &self.keydir;
            self.cached.retain(|key| keydir.get(key).is_some_and(|entry| entry.queued));
        }
        self.make_room();
    }

    /// Puts values out of memory until the rest is within the budget: first come, first go, but what was used since
    /// it was last considered gets a second chance (the CLOCK algorithm of Corbató, 1968).
    fn make_room(&mut self) {
        while self.memory > self.options.memory
            && let Some(key) = self.cached.pop_front()
        {
            let Some(entry) = self.keydir.get_mut(&key) else { continue };
            let size = memory_of(entry.content.as_ref());
            if size > 0 && std::mem::take(&mut entry.used) {
                self.cached.push_back(key);
                continue;
            }
            entry.queued = false;
            if size > 0 {
                entry.content = None;
                self.memory -= size;
            }
        }
    }

    // ── Compaction ──────────────────────────────────────────────────────────────────────────────────────

    /// Begins with the next segment that is worth it, if nothing is under way.
    fn compact(&mut self, commands: &mut Vec<Command>) {
        if !matches!(self.compaction, Compaction::Idle) || !std::mem::take(&mut self.may_compact) {
            return;
        }
        let mut sealed = self.segments.range(..self.active).map(|(number, s)| (*number, *s));
        let found = match self.log {
            Log::Cells => sealed.find(|(_, segment)| self.is_worth(*segment)),
            // An erasure must outlive what it erases in older segments, so hints are compacted from the oldest on;
            // in the oldest there is nothing older, and erasures are dropped.
            Log::Hints => {
                let all =
                    self.segments.range(..self.active).fold(Segment::default(), |all, (_, s)| {
                        Segment {
                            size: all.size.saturating_add(s.size),
                            live: all.live.saturating_add(s.live),
                        }
                    });
                sealed.next().filter(|(_, oldest)| oldest.live == 0 || self.is_worth(all))
            }
        };
        let Some((number, segment)) = found else { return };
        if segment.live == 0 {
            self.compaction = Compaction::Removing;
            commands.push(Command::Remove { log: self.log, segment: number });
        } else {
            self.survey(number, 0, commands);
        }
    }

    fn is_worth(&self, segment: Segment) -> bool {
        let dead = u64::from(segment.size - segment.live.min(segment.size));
        segment.live == 0
            || dead * 100 > u64::from(segment.size) * u64::from(self.options.dead_percent)
    }

    fn survey(&mut self, segment: u32, offset: u32, commands: &mut Vec<Command>) {
        let ticket = self.allot();
        self.compaction = Compaction::Surveying { segment, ticket };
        commands.push(Command::Survey { log: self.log, ticket, segment, offset });
    }

    fn surveyed(
        &mut self,
        ticket: Ticket,
        result: Result<Vec<(Place, Record)>, LoadError>,
        next: Option<u32>,
        commands: &mut Vec<Command>,
    ) -> Option<News> {
        let Compaction::Surveying { segment, ticket: expected } = self.compaction else {
            return None;
        };
        if ticket != expected {
            return None;
        }
        let Ok(records) = result else {
            // Never again: taken for wholly alive until the next start, which will look at it closely.
            if let Some(segment) = self.segments.get_mut(&segment) {
                segment.size = segment.live;
            }
            self.compaction = Compaction::Idle;
            return Some(News::Damaged { ticket: None });
        };
        let from = records.first().map_or(0, |(place, _)| place.offset);
        let mut open = 0;
        for (place, record) in records {
            // Erasures are dropped: see where hints are compacted.
            let Record::Put { key, cell } = &record else { continue };
            if self.options.flaw == Some(StorageFlaw::DropTombstones)
                && cell.content == Content::Tombstone
                && self.keydir.get(key).is_some_and(|entry| entry.place == place)
            {
                self.forget(key);
                continue;
            }
            if self.keydir.get(key).is_some_and(|entry| entry.place == place) {
                let key = self.own_key(key);
                self.append(key, Purpose::Moved { from: place }, record, commands);
                open += 1;
            }
        }
        self.compaction = Compaction::Moving { segment, open, next, failed: false, from };
        if open == 0 {
            self.chunk_done(commands);
        }
        None
    }

    /// One record of the chunk is durable elsewhere, or could not be written.
    fn moved(&mut self, well: bool, commands: &mut Vec<Command>) {
        if let Compaction::Moving { open, failed, .. } = &mut self.compaction {
            *open -= 1;
            *failed |= !well;
            if *open == 0 {
                self.chunk_done(commands);
            }
        }
    }

    fn chunk_done(&mut self, commands: &mut Vec<Command>) {
        let Compaction::Moving { segment, next, failed, from, .. } = self.compaction else {
            return;
        };
        if failed {
            self.compaction = Compaction::Paused { segment, from };
        } else if let Some(next) = next {
            self.survey(segment, next, commands);
        } else if self.segments.get(&segment).is_some_and(|segment| segment.live == 0) {
            self.compaction = Compaction::Removing;
            commands.push(Command::Remove { log: self.log, segment });
        } else {
            // A live record was not met: the keydir and the file differ. Leave the file alone.
            if let Some(segment) = self.segments.get_mut(&segment) {
                segment.size = segment.live;
            }
            self.compaction = Compaction::Idle;
            self.may_compact = true;
        }
    }

    /// An append has found space: go on where there was none.
    fn resume(&mut self, commands: &mut Vec<Command>) {
        if let Compaction::Paused { segment, from } = self.compaction {
            self.survey(segment, from, commands);
        }
    }
}

impl Entry {
    fn whereabouts(&self) -> Whereabouts {
        match &self.content {
            Some(content) => Whereabouts::Memory(content.clone()),
            None => Whereabouts::Disk(self.place),
        }
    }
}

/// A record is dead: something newer of its key is durable, or the same elsewhere.
fn bury(segments: &mut BTreeMap<u32, Segment>, place: Place) {
    if let Some(segment) = segments.get_mut(&place.segment) {
        segment.live -= place.length;
    }
}

/// What a content takes of the budget.
fn memory_of(content: Option<&Content>) -> u64 {
    match content {
        Some(Content::Value(value)) => value.len() as u64 + VALUE_OVERHEAD,
        Some(Content::Tombstone) | None => 0,
    }
}
