//! The keydir: for each key of one log the version and the place of its newest record, and its value as far as that is in
//! memory; in key order, with few bytes beside the keys and values themselves.
//!
//! **Problem.** A server holds millions of keys, and each costs memory for as long as it lives; and each operation looks one
//! up on every replica, where the time goes into waiting for memory, once for each place that is touched.
//!
//! **Idea.** A B+ tree of two levels. *Leaves* hold up to 64 entries in key order; a map of the standard library finds the
//! leaf by its *fence*, a byte string not greater than any key in it and greater than all keys before it, as short as that
//! allows. Within a leaf the search goes over *heads*: the first eight bytes of each key behind those that all keys of the
//! leaf share, in an array of their own (prefix truncation and key heads as in Graefe, *Modern B-Tree Techniques*, 2011).
//! So a search touches the upper map, a few lines of heads, one entry and one key. Key and value lie in one allocation; long
//! values in one of their own, which readers share instead of copying.
//!
//! **Invariants.** A leaf's keys are ascending, begin with the same `shared` bytes, and lie between its fence and the next.
//! The leaf with the empty fence is always there. Leaves are full but for random inserts; capacity grows in small
//! steps, not by doubling.
//!
//! **Left out.** Nothing here is shared between threads: the keydir belongs to its store. What is not durable yet is the
//! store's; here a record counts from the moment at which it is put in.

mod entry;
mod leaf;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;

use bytes::Bytes;

use self::entry::{Block, Entry, State};
pub use self::entry::{Held, Holding};
use self::leaf::{LEAF, Leaf, SPARSE};
use super::Place;
use crate::model::Version;

/// The newest record of each key of one log, in key order.
#[derive(Clone)]
pub struct Keydir {
    /// By fence. Never empty.
    leaves: BTreeMap<Box<[u8]>, Leaf>,
    keys: usize,
    tombstones: usize,
    /// What the values in memory take of the budget, in bytes.
    memory: u64,
    /// Where the search for values to put out of memory goes on: a fence, and a position in its leaf.
    hand: (Box<[u8]>, usize),
}

/// What has become of a record that was put into the keydir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is the first of its key.
    First,
    /// It stands instead of another.
    Instead {
        /// The other's version.
        of: Version,
        /// Where the other lies.
        at: Place,
    },
    /// What was there is newer, and stays.
    Overtaken {
        /// Its version.
        by: Version,
    },
}

impl fmt::Debug for Keydir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Default for Keydir {
    fn default() -> Keydir {
        let leaves = BTreeMap::from([(Box::default(), Leaf::default())]);
        Keydir { leaves, keys: 0, tombstones: 0, memory: 0, hand: (Box::default(), 0) }
    }
}

impl Keydir {
    /// Keys held, tombstones included.
    pub fn len(&self) -> usize {
        self.keys
    }

    /// Whether no key is held.
    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// Tombstones held.
    pub fn tombstones(&self) -> usize {
        self.tombstones
    }

    /// What the values in memory take of the budget, in bytes.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// The newest record of a key.
    pub fn get(&self, key: &[u8]) -> Option<Held<'_>> {
        let leaf = self.leaf(key)?;
        leaf.find(key).map(|at| Held(&leaf.entries[at]))
    }

    /// The same, as a use: its value stays in memory longer.
    pub fn touch(&mut self, key: &[u8]) -> Option<Held<'_>> {
        let entry = self.entry(key)?;
        entry.used = true;
        Some(Held(entry))
    }

    /// All records, in key order.
    pub fn iter(&self) -> impl Iterator<Item = Held<'_>> {
        self.leaves.values().flat_map(|leaf| leaf.entries.iter()).map(Held)
    }

    /// Records in key order.
    pub fn range<'a>(
        &'a self,
        from: Bound<&[u8]>,
        to: Bound<&'a [u8]>,
    ) -> impl Iterator<Item = Held<'a>> + use<'a> {
        let key = match from {
            Bound::Included(from) | Bound::Excluded(from) => from,
            Bound::Unbounded => &[],
        };
        let (lower, before) = match self.leaves.range::<[u8], _>(up_to(key)).next_back() {
            Some((fence, leaf)) => (Bound::Included(&fence[..]), leaf.before(from)),
            None => (Bound::Unbounded, 0),
        };
        let leaves = self.leaves.range::<[u8], _>((lower, Bound::Unbounded));
        let entries = leaves.flat_map(|(_, leaf)| leaf.entries.iter()).skip(before);
        entries.map(Held).take_while(move |held| match to {
            Bound::Included(to) => held.key() <= to,
            Bound::Excluded(to) => held.key() < to,
            Bound::Unbounded => true,
        })
    }

    /// Takes in a record, unless a newer one of its key is there. Of two with one version the later one counts.
    pub fn put(&mut self, key: &[u8], version: Version, place: Place, holding: Holding<'_>) -> Put {
        // The leaf with the empty fence is always there.
        let Some((_, leaf)) = self.leaves.range_mut::<[u8], _>(up_to(key)).next_back() else {
            return Put::First;
        };
        let found = leaf.find(key);
        let mut put = Put::First;
        if let Some(at) = found {
            let (of, at) = (leaf.entries[at].version(), leaf.entries[at].place());
            if version < of {
                return Put::Overtaken { by: of };
            }
            put = Put::Instead { of, at };
        }
        let entry = Entry::new(key, version, place, holding);
        self.tombstones += usize::from(entry.state == State::Tombstone);
        self.memory += entry.memory();
        leaf.cached += u32::from(entry.state == State::Cached);
        if let Some(at) = found {
            let old = std::mem::replace(&mut leaf.entries[at], entry);
            self.tombstones -= usize::from(old.state == State::Tombstone);
            self.memory -= old.memory();
            leaf.cached -= u32::from(old.state == State::Cached);
        } else {
            self.keys += 1;
            let at = leaf.before(Bound::Included(key));
            if let Some((fence, next)) = leaf.insert(at, key, entry) {
                self.leaves.insert(fence, next);
            }
        }
        put
    }

    /// Forgets a key; tells what was held.
    pub fn remove(&mut self, key: &[u8]) -> Option<(Version, Place)> {
        let (fence, leaf) = self.leaves.range_mut::<[u8], _>(up_to(key)).next_back()?;
        let at = leaf.find(key)?;
        let entry = leaf.entries.remove(at);
        leaf.heads.remove(at);
        leaf.cached -= u32::from(entry.state == State::Cached);
        self.keys -= 1;
        self.tombstones -= usize::from(entry.state == State::Tombstone);
        self.memory -= entry.memory();
        if leaf.entries.len() < SPARSE {
            let fence = fence.clone();
            self.join(&fence);
        }
        Some((entry.version(), entry.place()))
    }

    /// The record of `key` at `from` is at `to` now; whether it was there.
    pub fn relocate(&mut self, key: &[u8], from: Place, to: Place) -> bool {
        let found = self.entry(key).filter(|entry| entry.place() == from);
        found.map(|entry| entry.set_place(to)).is_some()
    }

    /// The value of a record has been read from the disk: keeps it in memory, unless the record is another by now.
    pub fn fill(&mut self, key: &[u8], version: Version, value: &Bytes) {
        let Some((_, leaf)) = self.leaves.range_mut::<[u8], _>(up_to(key)).next_back() else {
            return;
        };
        let Some(at) = leaf.find(key) else { return };
        let entry = &mut leaf.entries[at];
        if entry.version() == version && entry.state == State::OnDisk {
            (entry.block, entry.state, entry.used) =
                (Block::new(key, value.clone()), State::Cached, true);
            leaf.cached += 1;
            self.memory += entry.memory();
        }
    }

    /// Puts values out of memory until the rest is within the budget: in a circle over all keys, but what was used since it
    /// was last considered gets a second chance (the CLOCK algorithm of Corbató, 1968).
    pub fn make_room(&mut self, budget: u64) {
        while self.memory > budget {
            let (fence, position) = std::mem::take(&mut self.hand);
            let from = (Bound::Included(&fence[..]), Bound::Unbounded);
            for (at, leaf) in self.leaves.range_mut::<[u8], _>(from) {
                if leaf.cached == 0 {
                    continue;
                }
                let skipped = if *at == fence { position } else { 0 };
                for (position, entry) in leaf.entries.iter_mut().enumerate().skip(skipped) {
                    if self.memory <= budget {
                        self.hand = (at.clone(), position);
                        return;
                    }
                    if entry.state == State::Cached && !std::mem::take(&mut entry.used) {
                        self.memory -= entry.memory();
                        entry.block = Block::new(entry.key(), Bytes::new());
                        entry.state = State::OnDisk;
                        leaf.cached -= 1;
                    }
                }
            }
        }
    }

    fn leaf(&self, key: &[u8]) -> Option<&Leaf> {
        self.leaves.range::<[u8], _>(up_to(key)).next_back().map(|(_, leaf)| leaf)
    }

    fn entry(&mut self, key: &[u8]) -> Option<&mut Entry> {
        let (_, leaf) = self.leaves.range_mut::<[u8], _>(up_to(key)).next_back()?;
        leaf.find(key).map(|at| &mut leaf.entries[at])
    }

    /// A leaf has become sparse: joins it with the next one if they fit well into one, or if it is empty.
    fn join(&mut self, fence: &[u8]) {
        let mut two = self.leaves.range_mut::<[u8], _>((Bound::Included(fence), Bound::Unbounded));
        let Some((_, left)) = two.next() else { return };
        let Some((next, right)) = two.next() else {
            if left.entries.is_empty() && !fence.is_empty() {
                self.leaves.remove(fence);
            }
            return;
        };
        if !left.entries.is_empty() && left.entries.len() + right.entries.len() > LEAF - SPARSE {
            return;
        }
        left.entries.append(&mut right.entries);
        left.cached += right.cached;
        left.settle();
        let next = next.clone();
        self.leaves.remove(&next);
    }
}

/// The leaf of a key is the last one within these fences.
fn up_to(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(key))
}
