//! The scrub: sealed segments are read through, so that rot is found while other replicas are still sound.
//!
//! Whoever owns the store decides when: each [`Store::scrub`] orders one piece, of the length that compaction reads at once. All
//! of the segment is looked at, its header and what is dead in it included, and all that is alive in it must have been met at
//! its end. A segment that fails is emptied like one that is worth compacting, before all others; that also finds out which keys
//! are lost. A segment whose live records are all known to be lost is passed over: it stays until they are healed.

use std::collections::BTreeMap;

use super::store::Store;
use super::{Command, LoadError, News, Place, Record, Ticket};

/// What reading a piece has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrubbed {
    /// Of which segment.
    pub segment: u32,
    /// Bytes that were read, at least.
    pub bytes: u32,
    /// That was its last piece.
    pub is_done: bool,
    /// The segment is damaged; it is being emptied.
    pub damaged: bool,
}

/// The segment that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scrubbing {
    segment: u32,
    offset: u32,
    /// Bytes of live records that were met.
    met: u64,
    /// Of the piece that is ordered.
    ticket: Option<Ticket>,
}

impl Store {
    /// Has the next piece read of the sealed segments behind `after` and before `end`; [`News::Scrubbed`] follows. False: there
    /// is none, or one is ordered already.
    pub fn scrub(&mut self, after: u32, end: u32, commands: &mut Vec<Command>) -> bool {
        // Where nothing is written, nothing else would have what is dead since the start removed.
        self.compact(commands);
        let begun = self.scrubbing.filter(|begun| self.segments.contains_key(&begun.segment));
        let next = || {
            let segment = self.unscrubbed(after, end).next()?.0;
            Some(Scrubbing { segment, offset: 0, met: 0, ticket: None })
        };
        let Some(mut piece) = begun.or_else(next).filter(|piece| piece.ticket.is_none()) else {
            return false;
        };
        let ticket = self.allot();
        let Scrubbing { segment, offset, .. } = piece;
        commands.push(Command::Survey { log: self.log, ticket, segment, offset, strict: true });
        piece.ticket = Some(ticket);
        self.scrubbing = Some(piece);
        true
    }

    /// Bytes that are still to be read of the sealed segments behind `after` and before `end`.
    pub fn scrub_left(&self, after: u32, end: u32) -> u64 {
        let all: u64 = self.unscrubbed(after, end).map(|(_, size)| u64::from(size)).sum();
        all.saturating_sub(self.scrubbing.map_or(0, |begun| begun.offset.into()))
    }

    /// Whether it counts. A file of one that was removed may still be there, where the disk has refused to remove it.
    pub fn has_segment(&self, segment: u32) -> bool {
        self.segments.contains_key(&segment)
    }

    /// The segment that is written to: all below it are sealed.
    pub fn active(&self) -> u32 {
        self.active
    }

    fn unscrubbed(&self, after: u32, end: u32) -> impl Iterator<Item = (u32, u32)> {
        let end = end.min(self.active);
        let first = after.saturating_add(1).min(end);
        let mut lost: BTreeMap<u32, u64> = BTreeMap::new();
        for Place { segment, length, .. } in self.lost().map(|lost| lost.place) {
            *lost.entry(segment).or_default() += u64::from(length);
        }
        let lost_in = move |segment| lost.get(&segment).copied().unwrap_or(0);
        let segments = self.segments.range(first..end);
        let wanted =
            segments.filter(move |(number, segment)| u64::from(segment.live) > lost_in(**number));
        wanted.map(|(number, segment)| (*number, segment.size))
    }

    /// Bytes of the lost records of a segment.
    fn lost_in(&self, segment: u32) -> u64 {
        let lost = self.lost().filter(|lost| lost.place.segment == segment);
        lost.map(|lost| u64::from(lost.place.length)).sum()
    }

    /// A survey was made: of the scrub, if this is its ticket.
    pub(super) fn scrubbed(
        &mut self,
        ticket: Ticket,
        result: &Result<Vec<(Place, Record)>, LoadError>,
        next: Option<u32>,
    ) -> Option<News> {
        let piece = self.scrubbing.take_if(|piece| piece.ticket == Some(ticket))?;
        let Scrubbing { segment, offset, mut met, .. } = piece;
        let Some(size) = self.segments.get(&segment).map(|segment| segment.size) else {
            // Compaction was faster.
            let done = Scrubbed { segment, bytes: 0, is_done: true, damaged: false };
            return Some(News::Scrubbed(done));
        };
        let is_alive = |place: &Place, record: &Record| match record {
            Record::Put { key, .. } => {
                self.keydir.get(key.as_bytes()).is_some_and(|held| held.place() == *place)
            }
            Record::Erase { .. } => false,
        };
        for (place, record) in result.iter().flatten() {
            met += if is_alive(place, record) { u64::from(place.length) } else { 0 };
        }
        let next = next.filter(|_| result.is_ok());
        // What was met may have died since; nothing has come to life.
        let live = self.segments.get(&segment).map_or(0, |segment| u64::from(segment.live));
        let damaged = result.is_err() || next.is_none() && met + self.lost_in(segment) < live;
        if damaged {
            self.rotten.insert(segment);
            self.may_compact = true;
        } else if let Some(next) = next {
            debug_assert!(next > offset, "a piece is read again");
            self.scrubbing = Some(Scrubbing { segment, offset: next, met, ticket: None });
        }
        let bytes = next.unwrap_or(size).saturating_sub(offset);
        Some(News::Scrubbed(Scrubbed { segment, bytes, is_done: next.is_none(), damaged }))
    }
}
