//! One log on the protocol's thread: what it holds, and what is on its way.
//!
//! A cell becomes visible at its completion, not before; whether another is newer is decided with those in view that
//! are still on their way. A cell on its way is a slice of the message it came in; the keydir makes its copy when the
//! cell is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::compaction::Compaction;
use super::keydir::{Held, Holding, Keydir, Put};
use super::scrub::Scrubbing;
use super::{
    AppendError, Command, Completion, LoadError, Log, Place, Record, Scrubbed, StorageFlaw, Ticket,
};
use crate::model::{Cell, Checksum, Content, Key, Pending, Stamp, Version};

/// Release 0.1 kept what had come first.
const KEEPS_THE_FIRST: Option<StorageFlaw> = Some(StorageFlaw::EqualVersionsKeepTheFirst);

/// What a store does with a cell it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It, or something newer, is durable already.
    Held {
        /// What is held.
        current: Version,
        /// It has the cell's version and this greater content.
        other: Option<Checksum>,
    },
    /// It, or something newer, is on its way to the disk: [`News::Published`] with this ticket will tell.
    /// Several admissions may share a ticket.
    Pending(Ticket),
    /// A newer cell of this key is held and cannot be read: nothing can be said until it is healed by one as new.
    Lost,
    /// A cell of the same version is held whose content has not been read since a key file of release 0.1 was: nothing can be
    /// said until [`Store::load`] has fetched it.
    Unread,
}

/// A held record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Of which key.
    pub key: Key,
    /// Of the cell that was held, and may have been acknowledged.
    pub version: Version,
    /// Of its content, if it is known.
    pub checksum: Option<Checksum>,
    /// Where its record stood.
    pub place: Place,
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
        /// What was appended.
        put: Stamp,
        /// What was held before.
        before: Stamp,
        /// What is held now; the same as `before` if that was newer.
        now: Stamp,
        /// What was held could not be read, and what is held now can.
        healed: bool,
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
        /// Of its content.
        checksum: Checksum,
        /// It was not known before, and the cell is still held.
        learnt: bool,
    },
    /// A cell is still held, and of its content the checksum was not known before.
    Learnt {
        /// Of which key.
        key: Key,
        /// Which cell it is.
        now: Stamp,
    },
    /// A record that should be there is not readable.
    Damaged {
        /// Of the load, if somebody ordered it.
        ticket: Option<Ticket>,
        /// What was found to be lost by that; `None` if it was known, or something else is held meanwhile.
        lost: Option<Lost>,
    },
    /// [`Store::scrub`] has read a piece.
    Scrubbed(Scrubbed),
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
    /// Syncs of segments since start, as far as completions have told.
    pub syncs: u64,
}

/// What recovery found of one log.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Newest record of each key.
    pub keydir: Keydir,
    /// Highest durable position.
    pub position: u64,
    /// The segment that will be written to.
    pub active: u32,
    /// Bytes of each sealed segment, by number.
    pub segments: Vec<(u32, u32)>,
    /// Those among them that are of format 1, of release 0.1: they are rewritten one after the other.
    pub old: BTreeSet<u32>,
    /// Cells of which a head alone was found in damaged segments, so that key and version are known; nothing as new is held.
    pub lost: Vec<(Key, Version)>,
    /// Records of sealed segments whose values alone are damaged; the keydir counts them.
    pub unreadable: Vec<Lost>,
}

/// One log on the protocol's thread; it decides what is appended, what stays in memory and what is compacted.
#[derive(Debug)]
pub struct Store {
    pub(super) log: Log,
    pub(super) options: StoreOptions,
    pub(super) keydir: Keydir,
    /// Appends under way.
    appends: Pending<Append>,
    /// Of several appends for a key, the newest cell's.
    newest: BTreeMap<Key, Ticket>,
    loads: BTreeMap<Ticket, Lost>,
    /// Cells: keys whose held record cannot be read, until something as new is durable.
    lost: BTreeSet<Key>,
    /// Cells: segments in which something is damaged, until all that can be read has left them.
    pub(super) rotten: BTreeSet<u32>,
    pub(super) scrubbing: Option<Scrubbing>,
    next_ticket: u64,
    pub(super) segments: BTreeMap<u32, Segment>,
    /// The segment that is written to.
    pub(super) active: u32,
    position: u64,
    pub(super) compaction: Compaction,
    /// Something has died, or a segment was sealed, since the last look for work.
    pub(super) may_compact: bool,
    /// Bytes of records taken in since a segment of format 1 was last rewritten.
    pub(super) taken_in: u64,
    compactions: u64,
    syncs: u64,
}

#[derive(Debug)]
struct Append {
    key: Key,
    purpose: Purpose,
}

#[derive(Debug)]
pub(super) enum Purpose {
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
pub(super) struct Segment {
    pub(super) size: u32,
    pub(super) live: u32,
    /// Of format 1.
    pub(super) old: bool,
}

impl Store {
    /// A store over what recovery found. Values come into memory as they are used.
    pub fn new(log: Log, options: StoreOptions, recovered: Recovered) -> Store {
        let Recovered { keydir, position, active, segments, old, unreadable, .. } = recovered;
        let is_held = |lost: &Lost| {
            let held = keydir.get(lost.key.as_bytes());
            held.is_some_and(|held| (held.version(), held.place()) == (lost.version, lost.place))
        };
        let lost: Vec<_> = unreadable.into_iter().filter(is_held).collect();
        let rotten = lost.iter().map(|lost| lost.place.segment).collect();
        let lost = lost.into_iter().map(|lost| lost.key).collect();
        let segment =
            |(number, size)| (number, Segment { size, live: 0, old: old.contains(&number) });
        let mut segments: BTreeMap<_, _> = segments.into_iter().map(segment).collect();
        for held in keydir.iter() {
            debug_assert!(!held.version().is_zero());
            let place = held.place();
            let segment = segments.entry(place.segment).or_default();
            segment.live += place.length;
            segment.size = segment.size.max(place.offset + place.length);
        }
        debug_assert!(segments.values().all(|segment| segment.live <= segment.size));
        Store {
            log,
            options,
            keydir,
            appends: Pending::default(),
            newest: BTreeMap::new(),
            loads: BTreeMap::new(),
            lost,
            rotten,
            scrubbing: None,
            next_ticket: 0,
            segments,
            active,
            position,
            compaction: Compaction::Idle,
            may_compact: true,
            taken_in: 0,
            compactions: 0,
            syncs: 0,
        }
    }

    /// The version that is held: durable and visible. [`Version::ZERO`] if there is none.
    pub fn version(&self, key: &Key) -> Version {
        self.keydir.get(key.as_bytes()).map_or(Version::ZERO, |held| held.version())
    }

    /// Which cell is held: durable and visible.
    pub fn stamp(&self, key: &Key) -> Stamp {
        self.keydir.get(key.as_bytes()).map_or_else(Stamp::default, |held| held.stamp())
    }

    /// Bytes of the held cell's record; 0 if there is none.
    pub fn record_bytes(&self, key: &Key) -> u64 {
        self.keydir.get(key.as_bytes()).map_or(0, |held| u64::from(held.place().length))
    }

    /// The key whose cell this completion may publish.
    pub fn key_of(&self, completion: &Completion) -> Option<&Key> {
        match completion {
            Completion::Appended { ticket, .. } => Some(&self.appends.get(ticket.0)?.key),
            _ => None,
        }
    }

    /// The cell that is held. Counts as a use for the choice of what stays in memory.
    pub fn find(&mut self, key: &Key) -> Option<(Stamp, Whereabouts)> {
        self.keydir.touch(key.as_bytes()).map(|held| (held.stamp(), held.whereabouts()))
    }

    /// Takes in a cell. Only if it is newer than everything held or pending is anything appended.
    ///
    /// # Panics
    /// The version is one that no write has: its record would be damage at the next start. Every door refuses it.
    pub fn put(&mut self, key: &Key, cell: &Cell, commands: &mut Vec<Command>) -> Admission {
        assert!(cell.version.is_issued(), "no write has version {}", cell.version);
        let pending =
            self.newest.get(key).and_then(|ticket| Some((*ticket, self.appends.get(ticket.0)?)));
        if let Some((ticket, Append { purpose: Purpose::Admitted(newest), .. })) = pending {
            if !cell.supersedes(newest) {
                return Admission::Pending(ticket);
            }
        } else if let Some(held) = self.keydir.get(key.as_bytes())
            && cell.version <= held.version()
        {
            let Stamp { version: current, checksum } = held.stamp();
            let is_lost = self.is_lost(key);
            if cell.version < current {
                let held = Admission::Held { current, other: None };
                return if is_lost { Admission::Lost } else { held };
            }
            // Another attempt of the same write; or another write under its ticket.
            let content = Checksum::of(&cell.content);
            match checksum {
                Some(held) if content < held && is_lost => return Admission::Lost,
                _ if is_lost => {}
                // A hint is an aid: the later one does.
                None if self.log == Log::Hints => {}
                None => return Admission::Unread,
                Some(held) if content > held && self.options.flaw != KEEPS_THE_FIRST => {}
                Some(held) => {
                    let other = (held != content).then_some(held);
                    return Admission::Held { current, other };
                }
            }
        }
        self.admit(key, cell, commands)
    }

    fn admit(&mut self, key: &Key, cell: &Cell, commands: &mut Vec<Command>) -> Admission {
        let record = Record::Put { key: key.clone(), cell: cell.clone() };
        let purpose = Purpose::Admitted(cell.clone());
        let ticket = self.append(key.clone(), purpose, record, commands);
        self.newest.insert(key.clone(), ticket);
        Admission::Pending(ticket)
    }

    /// What is held of this key cannot be read. Its version is known, and may have been acknowledged.
    pub fn is_lost(&self, key: &Key) -> bool {
        !self.lost.is_empty() && self.lost.contains(key)
    }

    /// Some key is lost: [`Store::is_lost`].
    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// All that is held and cannot be read, in key order.
    pub fn lost(&self) -> impl Iterator<Item = Lost> {
        self.lost.iter().filter_map(|key| {
            let held = self.keydir.get(key.as_bytes())?;
            let Stamp { version, checksum } = held.stamp();
            Some(Lost { key: key.clone(), version, checksum, place: held.place() })
        })
    }

    /// Forgets a lost key wholly. Only who starts a new life may do so. What was held, if it was lost.
    pub fn forget_lost(&mut self, key: &Key) -> Option<Stamp> {
        let stamp = self.is_lost(key).then(|| self.stamp(key))?;
        self.forget(key);
        Some(stamp)
    }

    /// Something is appended and not durable yet.
    pub(crate) fn has_pending(&self) -> bool {
        !self.newest.is_empty()
    }

    /// The newest cell of a key that is appended and not durable yet. Nobody may be told that it is held.
    pub(crate) fn pending(&self, key: &Key) -> Option<&Cell> {
        match &self.appends.get(self.newest.get(key)?.0)?.purpose {
            Purpose::Admitted(cell) => Some(cell),
            Purpose::Moved { .. } | Purpose::Erasure | Purpose::Cancelled => None,
        }
    }

    /// Fetches the content of a cell that is held on disk; [`News::Loaded`] follows. `None` if there is nothing to
    /// fetch.
    pub fn load(&mut self, key: &Key, commands: &mut Vec<Command>) -> Option<Ticket> {
        let held = self.keydir.get(key.as_bytes())?;
        let Whereabouts::Disk(place) = held.whereabouts() else { return None };
        let Stamp { version, checksum } = held.stamp();
        let ticket = self.allot();
        self.loads.insert(ticket, Lost { key: key.detached(), version, checksum, place });
        commands.push(Command::Load { log: self.log, ticket, place });
        Some(ticket)
    }

    /// Hints: forgets what is held of `key` up to `up_to`, at once; the record follows behind.
    pub fn erase(&mut self, key: &Key, up_to: Version, commands: &mut Vec<Command>) {
        let mut found = false;
        let held = self.keydir.get(key.as_bytes());
        if held.is_some_and(|held| held.version() <= up_to) {
            self.forget(key);
            found = true;
        }
        if let Some(ticket) = self.newest.get(key).copied()
            && let Some(append) = self.appends.get_mut(ticket.0)
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

    /// What is held, in key order. Does not count as a use.
    pub fn range<'a>(
        &'a self,
        from: Bound<&Key>,
        to: Bound<&'a Key>,
    ) -> impl Iterator<Item = Held<'a>> + use<'a> {
        self.keydir.range(from.map(Key::as_bytes), to.map(Key::as_bytes))
    }

    /// Takes in a completion of this store's log; may order more: compaction goes on in bounded steps.
    pub fn complete(
        &mut self,
        completion: Completion,
        commands: &mut Vec<Command>,
    ) -> Option<News> {
        let news = match completion {
            Completion::Appended { ticket, result, value_crc, position, active, syncs, .. } => {
                self.syncs = syncs;
                self.position = self.position.max(position);
                self.may_compact |= active > self.active;
                self.active = self.active.max(active);
                self.appended(ticket, result, value_crc, commands)
            }
            Completion::Loaded { ticket, result, .. } => self.loaded(ticket, result, commands),
            Completion::Surveyed { ticket, result, next, .. } => {
                let scrubbed = self.scrubbed(ticket, &result, next);
                scrubbed.or_else(|| self.surveyed(ticket, result, next, commands))
            }
            Completion::Removed { segment, .. } => {
                self.segments.remove(&segment);
                self.rotten.remove(&segment);
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
            tombstones: self.keydir.tombstones() as u64,
            log_bytes: self.segments.values().map(|segment| u64::from(segment.size)).sum(),
            memory_bytes: self.keydir.memory(),
            compactions: self.compactions,
            syncs: self.syncs,
        }
    }

    pub(super) fn allot(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    pub(super) fn append(
        &mut self,
        key: Key,
        purpose: Purpose,
        record: Record,
        commands: &mut Vec<Command>,
    ) -> Ticket {
        let ticket = self.allot();
        self.appends.insert(ticket.0, Append { key, purpose });
        commands.push(Command::Append { log: self.log, ticket, record });
        ticket
    }

    fn appended(
        &mut self,
        ticket: Ticket,
        result: Result<Place, AppendError>,
        value_crc: u32,
        commands: &mut Vec<Command>,
    ) -> Option<News> {
        let Append { key, purpose } = self.appends.remove(ticket.0)?;
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
                self.taken_in = self.taken_in.saturating_add(place.length.into());
                let checksum = match cell.content {
                    Content::Value(_) => Checksum::of_value(value_crc),
                    Content::Tombstone => Checksum::TOMBSTONE,
                };
                let put = Stamp { version: cell.version, checksum: Some(checksum) };
                let (before, now) = self.publish(&key, put, &cell.content, place);
                let healed = !self.lost.is_empty() && now == put && self.lost.remove(&key);
                self.resume(commands);
                Some(News::Published { ticket, key, put, before, now, healed })
            }
            Purpose::Moved { from } => {
                let mut learnt = false;
                if let Ok(place) = result {
                    self.relocate(&key, from, place);
                    let checksum = Checksum::of_value(value_crc);
                    learnt = self.keydir.learn(key.as_bytes(), place, checksum);
                }
                self.moved(result.is_ok(), commands);
                learnt.then(|| News::Learnt { now: self.stamp(&key), key })
            }
            // An erasure that could not be written costs a delivery in vain after the next start.
            Purpose::Erasure | Purpose::Cancelled => None,
        }
    }

    /// A cell is durable: shows it, if nothing newer is shown. What was shown before, and what is now.
    fn publish(
        &mut self,
        key: &Key,
        put: Stamp,
        content: &Content,
        place: Place,
    ) -> (Stamp, Stamp) {
        let holding = Holding::from(content);
        let before = match self.keydir.put(key.as_bytes(), put, place, holding) {
            Put::Overtaken { by } => return (by, by),
            Put::Instead { of, at } => {
                self.bury(at);
                self.may_compact = true;
                of
            }
            Put::First => Stamp::default(),
        };
        self.revive(place);
        self.keydir.make_room(self.options.memory);
        (before, put)
    }

    pub(super) fn forget(&mut self, key: &Key) {
        let Some((_, place)) = self.keydir.remove(key.as_bytes()) else { return };
        self.lost.remove(key);
        self.bury(place);
        self.may_compact = true;
    }

    /// A held record is durable at another place, too.
    fn relocate(&mut self, key: &Key, from: Place, to: Place) {
        if self.keydir.relocate(key.as_bytes(), from, to) {
            self.bury(from);
            self.revive(to);
        }
    }

    /// A record is alive: the newest of its key, at its last place.
    fn revive(&mut self, place: Place) {
        let segment = self.segments.entry(place.segment).or_default();
        segment.live += place.length;
        debug_assert!(segment.live <= segment.size, "more is alive than was written");
    }

    /// A record is dead: something newer of its key is durable, or the same elsewhere.
    fn bury(&mut self, place: Place) {
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            debug_assert!(segment.live >= place.length, "it was not alive: {place:?}");
            segment.live -= place.length;
        }
    }

    fn loaded(
        &mut self,
        ticket: Ticket,
        result: Result<Content, LoadError>,
        commands: &mut Vec<Command>,
    ) -> Option<News> {
        if self.is_salvaging(ticket) {
            return self.salvaged(result, commands);
        }
        let load = self.loads.remove(&ticket)?;
        let Ok(content) = result else {
            let lost = self.lose(load);
            if let Some(lost) = lost.as_ref().filter(|_| self.log == Log::Cells) {
                self.rotten.insert(lost.place.segment);
                self.may_compact = true;
            }
            return Some(News::Damaged { ticket: Some(ticket), lost });
        };
        let Lost { key, version, checksum, place } = load;
        let known = checksum.is_some();
        let checksum = checksum.unwrap_or_else(|| Checksum::of(&content));
        let learnt = !known && self.keydir.learn(key.as_bytes(), place, checksum);
        if let Content::Value(value) = &content
            && !self.is_lost(&key)
        {
            let stamp = Stamp { version, checksum: Some(checksum) };
            self.keydir.fill(key.as_bytes(), stamp, value);
            self.keydir.make_room(self.options.memory);
        }
        Some(News::Loaded { ticket, key, cell: Cell { version, content }, checksum, learnt })
    }

    /// This record could not be read: a loss, unless it was known, or the key's newest record is another by now.
    pub(super) fn lose(&mut self, lost: Lost) -> Option<Lost> {
        let held = self.keydir.get(lost.key.as_bytes())?;
        let is_held =
            held.version() == lost.version && held.whereabouts() == Whereabouts::Disk(lost.place);
        // A hint that cannot be read is given up: whoever keeps it erases it.
        let is_new = is_held && (self.log == Log::Hints || self.lost.insert(lost.key.clone()));
        is_new.then_some(lost)
    }
}
