//! Compaction: sealed segments of which much is dead are emptied, and removed.
//!
//! One segment at a time: the records in it that the keydir still points to are appended again like any other, and once
//! they are durable the file is removed. So compaction has no format and no recovery of its own, a crash at any point
//! leaves at worst two copies of a record, and reads and writes go on between its steps. A key's newest record is always
//! alive, a tombstone no less than a value.
//!
//! Where there is no room to move a record, the segment waits; wholly dead ones, which need none, are removed meanwhile, and make
//! some.
//!
//! Segments in which something was found damaged come first, however much of them is alive. Where a record is damaged, the others
//! are emptied out, one by one where they cannot be read in a row, and the segment stays until something as new has been
//! written in place of what cannot be read; then it is removed.
//!
//! Segments of format 1, of release 0.1, are rewritten in the same way however much of them is alive, but without haste: the
//! next one once as many bytes have been taken in as it has, so that this takes no more of the disk than writes do.

use super::store::Lost;
use super::store::{Purpose, Segment};
use super::{
    Command, LoadError, Log, News, Place, Record, StorageFlaw, Store, Ticket, Whereabouts,
};
use crate::model::{Cell, Content, Key, Stamp};

/// One segment at a time is emptied, chunk by chunk.
#[derive(Debug, Default)]
pub(super) enum Compaction {
    #[default]
    Idle,
    /// A chunk is being read.
    Surveying { segment: u32, ticket: Ticket },
    /// Its live records are on their way to the active segment.
    Moving { segment: u32, open: u32, next: Option<u32>, failed: bool, from: u32 },
    /// There was no space; goes on here after the next append that finds some, or anew after a dead segment was removed.
    Paused { segment: u32, from: u32 },
    /// It cannot be read in a row, or not all that is alive was met: its live records are fetched one by one.
    Salvaging { segment: u32, left: Vec<Key>, ticket: Ticket, now: Lost },
    /// Its file is being removed.
    Removing,
}

impl Store {
    /// Begins with the next segment that is worth it, if nothing is under way.
    pub(super) fn compact(&mut self, commands: &mut Vec<Command>) {
        let is_paused = matches!(self.compaction, Compaction::Paused { .. });
        let is_free = is_paused || matches!(self.compaction, Compaction::Idle);
        if !is_free || !std::mem::take(&mut self.may_compact) {
            return;
        }
        let mut sealed = self.segments.range(..self.active).map(|(number, s)| (*number, *s));
        let is_renewed = |segment: Segment| segment.old && self.taken_in >= u64::from(segment.size);
        let is_there = |number: &u32| Some((*number, *self.segments.get(number)?));
        let found = match self.log {
            Log::Cells if is_paused => sealed.find(|(_, segment)| segment.live == 0),
            Log::Cells => {
                // The segment that is written to waits until it is sealed, and keeps no other waiting.
                let rotten = self.rotten.range(..self.active).find_map(is_there);
                let worth = || sealed.clone().find(|(_, segment)| self.is_worth(*segment));
                let renewed = || sealed.clone().find(|(_, segment)| is_renewed(*segment));
                rotten.or_else(worth).or_else(renewed)
            }
            // An erasure must outlive what it erases in older segments, so hints are compacted from the oldest on;
            // in the oldest there is nothing older, and erasures are dropped.
            Log::Hints => {
                let all =
                    self.segments.range(..self.active).fold(Segment::default(), |all, (_, s)| {
                        Segment {
                            size: all.size.saturating_add(s.size),
                            live: all.live.saturating_add(s.live),
                            old: false,
                        }
                    });
                sealed.next().filter(|(_, oldest)| {
                    oldest.live == 0 || self.is_worth(all) || is_renewed(*oldest)
                })
            }
        };
        let Some((number, segment)) = found else { return };
        if is_paused && segment.live > 0 {
            return;
        }
        if segment.old {
            self.taken_in = 0;
        }
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
        let strict = false;
        commands.push(Command::Survey { log: self.log, ticket, segment, offset, strict });
    }

    pub(super) fn surveyed(
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
            self.salvage(segment, commands);
            return None;
        };
        let from = records.first().map_or(0, |(place, _)| place.offset);
        let mut open = 0;
        for (place, record) in records {
            // Erasures are dropped: see where hints are compacted.
            let Record::Put { key, cell } = &record else { continue };
            if self.keydir.get(key.as_bytes()).is_none_or(|held| held.place() != place) {
                continue;
            }
            if self.options.flaw == Some(StorageFlaw::DropTombstones)
                && cell.content == Content::Tombstone
            {
                self.forget(key);
                continue;
            }
            self.append(key.clone(), Purpose::Moved { from: place }, record, commands);
            open += 1;
        }
        self.compaction = Compaction::Moving { segment, open, next, failed: false, from };
        if open == 0 {
            self.chunk_done(commands);
        }
        None
    }

    /// One record of the chunk is durable elsewhere, or could not be written.
    pub(super) fn moved(&mut self, well: bool, commands: &mut Vec<Command>) {
        if let Compaction::Salvaging { segment, left, .. } = &mut self.compaction {
            let (segment, left) = (*segment, std::mem::take(left));
            if well {
                self.salvage_next(segment, left, commands);
            } else {
                // Begins anew once something has died.
                self.compaction = Compaction::Idle;
            }
            return;
        }
        if let Compaction::Moving { open, failed, .. } = &mut self.compaction {
            debug_assert!(*open > 0, "more was moved than was on its way");
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
            self.may_compact = true;
        } else if let Some(next) = next {
            self.survey(segment, next, commands);
        } else if self.segments.get(&segment).is_some_and(|segment| segment.live == 0) {
            self.compaction = Compaction::Removing;
            commands.push(Command::Remove { log: self.log, segment });
        } else {
            // A live record was not met.
            self.salvage(segment, commands);
        }
    }

    /// Goes through the live records of a damaged segment one by one. To find them it looks at all keys once: this is rare.
    fn salvage(&mut self, segment: u32, commands: &mut Vec<Command>) {
        let live = self.keydir.iter().filter(|held| held.place().segment == segment);
        let left = live.map(|held| held.to_key()).collect();
        self.salvage_next(segment, left, commands);
    }

    fn salvage_next(&mut self, segment: u32, mut left: Vec<Key>, commands: &mut Vec<Command>) {
        while let Some(key) = left.pop() {
            if self.is_lost(&key) {
                continue;
            }
            let held = self.keydir.get(key.as_bytes());
            let Some(held) = held.filter(|held| held.place().segment == segment) else { continue };
            let (Stamp { version, checksum }, place) = (held.stamp(), held.place());
            let now = Lost { key: key.clone(), version, checksum, place };
            let ticket = match held.whereabouts() {
                Whereabouts::Memory(content) => {
                    self.move_one(key, Cell { version, content }, place, commands)
                }
                Whereabouts::Disk(place) => {
                    let ticket = self.allot();
                    commands.push(Command::Load { log: self.log, ticket, place });
                    ticket
                }
            };
            self.compaction = Compaction::Salvaging { segment, left, ticket, now };
            return;
        }
        if self.segments.get(&segment).is_some_and(|segment| segment.live == 0) {
            self.compaction = Compaction::Removing;
            commands.push(Command::Remove { log: self.log, segment });
            return;
        }
        self.rotten.remove(&segment);
        // What is left cannot be read. It counts as wholly alive, so that it is not looked at again before healing has
        // buried what is left.
        if let Some(segment) = self.segments.get_mut(&segment) {
            (segment.size, segment.old) = (segment.live, false);
        }
        self.compaction = Compaction::Idle;
        self.may_compact = true;
    }

    fn move_one(
        &mut self,
        key: Key,
        cell: Cell,
        from: Place,
        commands: &mut Vec<Command>,
    ) -> Ticket {
        let record = Record::Put { key: key.clone(), cell };
        self.append(key, Purpose::Moved { from }, record, commands)
    }

    /// Whether this ticket is of the record that is fetched one by one.
    pub(super) fn is_salvaging(&self, load: Ticket) -> bool {
        matches!(&self.compaction, Compaction::Salvaging { ticket, .. } if *ticket == load)
    }

    /// A record of a damaged segment was fetched, or is damaged itself.
    pub(super) fn salvaged(
        &mut self,
        result: Result<Content, LoadError>,
        commands: &mut Vec<Command>,
    ) -> Option<News> {
        let Compaction::Salvaging { segment, left, now, .. } = &mut self.compaction else {
            return None;
        };
        let (segment, left, found) = (*segment, std::mem::take(left), now.clone());
        let Ok(content) = result else {
            let lost = self.lose(found);
            self.salvage_next(segment, left, commands);
            return lost.map(|lost| News::Damaged { ticket: None, lost: Some(lost) });
        };
        let Lost { key, version, place, .. } = found.clone();
        let ticket = self.move_one(key, Cell { version, content }, place, commands);
        self.compaction = Compaction::Salvaging { segment, left, ticket, now: found };
        None
    }

    /// An append has found space: go on where there was none.
    pub(super) fn resume(&mut self, commands: &mut Vec<Command>) {
        if let Compaction::Paused { segment, from } = self.compaction {
            self.survey(segment, from, commands);
        }
    }
}
