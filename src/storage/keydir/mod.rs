//! The keydir: for each key of one log the version and the place of its newest record, and its value as far as that is in
//! memory; in key order, with few bytes beside the keys and values themselves.
//!
//! **Problem.** A server holds millions of keys, and each costs memory for as long as it lives; and each operation looks one
//! up on every replica, where the time goes into waiting for memory, once for each place that is touched.
//!
//! **Idea.** A B+ tree of three levels: a root that grows as it must, *branches* of up to 64 leaves, *leaves* of up to 64
//! entries. Branches and leaves stand under a *fence*, a byte string not greater than any key in them and greater than all keys
//! before them, as short as that allows. At each level the search goes over *heads*: the first eight bytes of each key behind
//! those that all keys of the node share, in an array of their own (prefix truncation and key heads as in Graefe, *Modern B-Tree
//! Techniques*, 2011). So a search touches a few lines of heads at each level, one entry and one key. Key and value lie in
//! one allocation, which a value of the same length overwrites; long values in one of their own, which readers share.
//!
//! **Invariants.** A node's keys are ascending and lie between its fence and the next. A branch's fence is that of its first
//! leaf; that of the first leaf of all is empty, and this leaf alone may be without entries. Nodes are full but for random
//! inserts; capacity grows in small steps, not by doubling.
//!
//! **Left out.** Nothing here is shared between threads: the keydir belongs to its store. What is not durable yet is the
//! store's; here a record counts from the moment at which it is put in.

mod entry;
mod sorted;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Bound;

use bytes::Bytes;

use self::entry::{Entry, State};
pub use self::entry::{Held, Holding};
use self::sorted::{FULL, Keyed, Sorted, common};
use super::Place;
use crate::model::{Checksum, Stamp, Version};

/// The newest record of each key of one log, in key order.
#[derive(Clone)]
pub struct Keydir {
    /// Never empty.
    branches: Sorted<Child<Branch>>,
    keys: usize,
    tombstones: usize,
    /// What the values in memory take of the budget, in bytes.
    memory: u64,
    /// Where the search for values to put out of memory goes on: a fence, and a position in its leaf.
    hand: (Box<[u8]>, usize),
}

/// A node under its fence.
#[derive(Clone)]
struct Child<T> {
    fence: Box<[u8]>,
    node: T,
}

/// Never without a leaf.
type Branch = Sorted<Child<Leaf>>;

#[derive(Clone, Default)]
struct Leaf {
    entries: Sorted<Entry>,
    /// Entries whose values are in memory.
    cached: u32,
}

impl<T> Keyed for Child<T> {
    const LEAST: usize = 1;

    fn key(&self) -> &[u8] {
        &self.fence
    }
}

/// What has become of a record that was put into the keydir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is the first of its key.
    First,
    /// It stands instead of another.
    Instead {
        /// Which one.
        of: Stamp,
        /// Where the other lies.
        at: Place,
    },
    /// What was there is newer, and stays.
    Overtaken {
        /// Which one it is.
        by: Stamp,
    },
}

impl fmt::Debug for Keydir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Default for Keydir {
    fn default() -> Keydir {
        let (mut branch, mut branches) = (Branch::default(), Sorted::default());
        branch.add(Child { fence: Box::default(), node: Leaf::default() });
        branches.add(Child { fence: Box::default(), node: branch });
        Keydir { branches, keys: 0, tombstones: 0, memory: 0, hand: (Box::default(), 0) }
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
        let (branch, leaf) = self.path(key);
        let entries = &self.branches.items()[branch].node.items()[leaf].node.entries;
        entries.find(key).map(|at| Held(&entries.items()[at]))
    }

    /// The same, as a use: its value stays in memory longer.
    pub fn touch(&mut self, key: &[u8]) -> Option<Held<'_>> {
        let (leaf, at) = self.find(key)?;
        let entry = &mut leaf.entries.items_mut()[at];
        entry.used = true;
        Some(Held(entry))
    }

    /// All records, in key order.
    pub fn iter(&self) -> impl Iterator<Item = Held<'_>> {
        self.range(Bound::Unbounded, Bound::Unbounded)
    }

    /// Records in key order.
    pub fn range<'a>(
        &'a self,
        from: Bound<&[u8]>,
        to: Bound<&'a [u8]>,
    ) -> impl Iterator<Item = Held<'a>> + use<'a> {
        let (branch, leaf) = match from {
            Bound::Included(from) | Bound::Excluded(from) => self.path(from),
            Bound::Unbounded => (0, 0),
        };
        let branches = &self.branches.items()[branch..];
        let before = branches[0].node.items()[leaf].node.entries.before(from);
        let leaves = branches.iter().flat_map(|branch| branch.node.items()).skip(leaf);
        let entries = leaves.flat_map(|leaf| leaf.node.entries.items()).skip(before);
        entries.map(Held).take_while(move |held| match to {
            Bound::Included(to) => held.key() <= to,
            Bound::Excluded(to) => held.key() < to,
            Bound::Unbounded => true,
        })
    }

    /// Takes in a record, unless a newer one of its key is there. Of two of one cell the later one counts, as where it is not
    /// known whether they are of one.
    pub fn put(&mut self, key: &[u8], stamp: Stamp, place: Place, holding: Holding<'_>) -> Put {
        let (branch, at) = self.path(key);
        let leaf = &mut self.branches.items_mut()[branch].node.items_mut()[at].node;
        if let Some(at) = leaf.entries.find(key) {
            let entry = &mut leaf.entries.items_mut()[at];
            let (of, at) = (entry.stamp(), entry.place());
            if stamp.is_below(&of) {
                return Put::Overtaken { by: of };
            }
            debug_assert!(self.memory >= entry.memory(), "more than all takes memory");
            self.tombstones -= usize::from(entry.state == State::Tombstone);
            self.memory -= entry.memory();
            leaf.cached -= u32::from(entry.state == State::Cached);
            entry.replace(stamp, place, holding);
            self.tombstones += usize::from(entry.state == State::Tombstone);
            self.memory += entry.memory();
            leaf.cached += u32::from(entry.state == State::Cached);
            debug_assert!(self.tombstones <= self.keys && leaf.cached as usize <= FULL);
            return Put::Instead { of, at };
        }
        let entry = Entry::new(key, stamp, place, holding);
        self.keys += 1;
        self.tombstones += usize::from(entry.state == State::Tombstone);
        self.memory += entry.memory();
        leaf.cached += u32::from(entry.state == State::Cached);
        if let Some(second) = leaf.insert(entry) {
            let branch = &mut self.branches.items_mut()[branch].node;
            if let Some(second) = branch.insert(second) {
                let fence = second.items()[0].fence.clone();
                self.branches.add(Child { fence, node: second });
            }
        }
        Put::First
    }

    /// Forgets a key; tells what was held.
    pub fn remove(&mut self, key: &[u8]) -> Option<(Version, Place)> {
        let (branch, at) = self.path(key);
        let leaves = &mut self.branches.items_mut()[branch].node;
        let leaf = &mut leaves.items_mut()[at].node;
        let entry = leaf.entries.remove(leaf.entries.find(key)?);
        debug_assert!(self.keys > 0 && self.memory >= entry.memory(), "it was not counted");
        leaf.cached -= u32::from(entry.state == State::Cached);
        self.keys -= 1;
        self.tombstones -= usize::from(entry.state == State::Tombstone);
        self.memory -= entry.memory();
        if leaf.entries.is_sparse() {
            join_leaves(leaves, at);
            if leaves.is_sparse() {
                self.join_branches(branch);
            }
        }
        Some((entry.version(), entry.place()))
    }

    /// The record of `key` at `from` is at `to` now; whether it was there.
    pub fn relocate(&mut self, key: &[u8], from: Place, to: Place) -> bool {
        let Some((leaf, at)) = self.find(key) else { return false };
        let entry = &mut leaf.entries.items_mut()[at];
        let is_there = entry.place() == from;
        if is_there {
            entry.set_place(to);
        }
        is_there
    }

    /// The record of `key` at this place was read: what its content is. Whether that was news.
    pub fn learn(&mut self, key: &[u8], place: Place, checksum: Checksum) -> bool {
        let Some((leaf, at)) = self.find(key) else { return false };
        let entry = &mut leaf.entries.items_mut()[at];
        entry.place() == place && entry.learn(checksum)
    }

    /// The value of a record has been read from the disk: keeps it in memory, unless the record is another by now.
    pub fn fill(&mut self, key: &[u8], stamp: Stamp, value: &Bytes) {
        let Some((leaf, at)) = self.find(key) else { return };
        let entry = &mut leaf.entries.items_mut()[at];
        if entry.state == State::OnDisk && entry.stamp() == stamp {
            entry.fill(value.clone());
            leaf.cached += 1;
            self.memory += entry.memory();
        }
    }

    /// Puts values out of memory until the rest is within the budget: in a circle over all keys, but what was used since it
    /// was last considered gets a second chance (the CLOCK algorithm of Corbató, 1968).
    pub fn make_room(&mut self, budget: u64) {
        while self.memory > budget {
            let (fence, mut skipped) = std::mem::take(&mut self.hand);
            let (branch, mut first) = self.path(&fence);
            for branch in &mut self.branches.items_mut()[branch..] {
                for Child { fence, node: leaf } in &mut branch.node.items_mut()[first..] {
                    let entries = leaf.entries.items_mut().iter_mut().enumerate();
                    for (at, entry) in entries.skip(skipped) {
                        if leaf.cached == 0 {
                            break;
                        }
                        if self.memory <= budget {
                            self.hand = (fence.clone(), at);
                            return;
                        }
                        if entry.state == State::Cached && !std::mem::take(&mut entry.used) {
                            self.memory -= entry.memory();
                            entry.put_out();
                            leaf.cached -= 1;
                        }
                    }
                    skipped = 0;
                }
                first = 0;
            }
        }
    }

    /// The branch and the leaf in it where a key belongs.
    fn path(&self, key: &[u8]) -> (usize, usize) {
        let branch = self.branches.floor(key);
        (branch, self.branches.items()[branch].node.floor(key))
    }

    fn find(&mut self, key: &[u8]) -> Option<(&mut Leaf, usize)> {
        let (branch, leaf) = self.path(key);
        let leaf = &mut self.branches.items_mut()[branch].node.items_mut()[leaf].node;
        let at = leaf.entries.find(key)?;
        Some((leaf, at))
    }

    /// A branch has become sparse: joins it with the next one if they fit well into one, and takes one away whose only leaf is
    /// empty, unless it is the first.
    fn join_branches(&mut self, at: usize) {
        if let [one, next, ..] = &self.branches.items()[at..]
            && one.node.fits_with(&next.node)
        {
            let next = self.branches.remove(at + 1).node;
            self.branches.items_mut()[at].node.append(next);
            join_leaves(&mut self.branches.items_mut()[at].node, 0);
        } else if at > 0
            && let [only] = self.branches.items()[at].node.items()
            && only.node.entries.items().is_empty()
        {
            self.branches.remove(at);
        }
    }
}

/// A leaf has become sparse: joins it with the next one if they fit well into one, and takes it away if it is empty, unless it
/// is the only one of its branch.
fn join_leaves(branch: &mut Branch, at: usize) {
    let is_empty = |leaf: &Child<Leaf>| leaf.node.entries.items().is_empty();
    if let [one, next, ..] = &branch.items()[at..]
        && (is_empty(one) || one.node.entries.fits_with(&next.node.entries))
    {
        let next = branch.remove(at + 1).node;
        let one = &mut branch.items_mut()[at].node;
        one.entries.append(next.entries);
        one.cached += next.cached;
    } else if at > 0 && is_empty(&branch.items()[at]) {
        branch.remove(at);
    }
}

impl Leaf {
    /// Puts in an entry that is counted in `cached` already; the second part, if it had to be divided.
    fn insert(&mut self, entry: Entry) -> Option<Child<Leaf>> {
        let second = self.entries.insert(entry)?;
        let (last, first) = (self.entries.items().last()?.key(), second.items().first()?.key());
        let fence = first[..=common(last, first)].into();
        let is_cached = |entry: &&Entry| entry.state == State::Cached;
        let cached = second.items().iter().filter(is_cached).count() as u32;
        debug_assert!(self.cached >= cached, "more than all are in memory");
        self.cached -= cached;
        Some(Child { fence, node: Leaf { entries: second, cached } })
    }
}
