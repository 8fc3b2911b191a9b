//! Compaction: sealed segments of which much is dead are emptied, and removed.
//!
//! One segment at a time: the records in it that the keydir still points to are appended again like any other, and once
//! they are durable the file is removed. So compaction has no format and no recovery of its own, a crash at any point
//! leaves at worst two copies of a record, and reads and writes go on between its steps. A key's newest record is always
//! alive, a tombstone no less than a value.
//!
//! Segments of format 1, of release 0.1, are rewritten in the same way however much of them is alive, but without haste: the
//! next one once as many bytes have been taken in as it has, so that this takes no more of the disk than writes do.

use super::store::{Purpose, Segment};
use super::{Command, LoadError, Log, News, Place, Record, StorageFlaw, Store, Ticket};
use crate::model::Content;

/// One segment at a time is emptied, chunk by chunk.
#[derive(Debug, Default)]
pub(super) enum Compaction {
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

impl Store {
    /// Begins with the next segment that is worth it, if nothing is under way.
    pub(super) fn compact(&mut self, commands: &mut Vec<Command>) {
        if !matches!(self.compaction, Compaction::Idle) || !std::mem::take(&mut self.may_compact) {
            return;
        }
        let mut sealed = self.segments.range(..self.active).map(|(number, s)| (*number, *s));
        let is_renewed = |segment: Segment| segment.old && self.taken_in >= u64::from(segment.size);
        let found = match self.log {
            Log::Cells => {
                let worth = sealed.clone().find(|(_, segment)| self.is_worth(*segment));
                worth.or_else(|| sealed.find(|(_, segment)| is_renewed(*segment)))
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
        commands.push(Command::Survey { log: self.log, ticket, segment, offset });
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
            // Never again: taken for wholly alive until the next start, which will look at it closely.
            if let Some(segment) = self.segments.get_mut(&segment) {
                (segment.size, segment.old) = (segment.live, false);
            }
            self.compaction = Compaction::Idle;
            return Some(News::Damaged { ticket: None });
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
        } else if let Some(next) = next {
            self.survey(segment, next, commands);
        } else if self.segments.get(&segment).is_some_and(|segment| segment.live == 0) {
            self.compaction = Compaction::Removing;
            commands.push(Command::Remove { log: self.log, segment });
        } else {
            // A live record was not met: the keydir and the file differ. Leave the file alone.
            if let Some(segment) = self.segments.get_mut(&segment) {
                (segment.size, segment.old) = (segment.live, false);
            }
            self.compaction = Compaction::Idle;
            self.may_compact = true;
        }
    }

    /// An append has found space: go on where there was none.
    pub(super) fn resume(&mut self, commands: &mut Vec<Command>) {
        if let Compaction::Paused { segment, from } = self.compaction {
            self.survey(segment, from, commands);
        }
    }
}
