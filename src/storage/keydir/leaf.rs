//! Some entries in key order, and how one is found among them.

use std::cmp::Ordering;
use std::ops::Bound;

use super::entry::{Entry, State};

/// Entries of a leaf at most.
pub(super) const LEAF: usize = 64;
/// A leaf with fewer entries is joined with the next one if both then leave room for more.
pub(super) const SPARSE: usize = LEAF / 4;
/// By how many entries a leaf's capacity grows.
const STEP: usize = 8;
#[derive(Clone, Default)]
pub(super) struct Leaf {
    /// Bytes that all keys begin with.
    pub(super) shared: usize,
    /// Of each entry, in the same order.
    pub(super) heads: Vec<u64>,
    pub(super) entries: Vec<Entry>,
    /// Entries whose values are in memory.
    pub(super) cached: u32,
}

/// The first eight bytes, as a number of the same order; missing ones are zeros, so equal heads decide nothing.
pub(super) fn head(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut first = [0; 8];
            first[..bytes.len()].copy_from_slice(bytes);
            u64::from_be_bytes(first)
        }
    }
}

/// Bytes with which both begin.
fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

impl Leaf {
    /// Where the key stands.
    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        // Whether the key begins with the shared bytes is seen when the whole key is compared.
        let head = head(key.get(self.shared..)?);
        let first = self.heads.partition_point(|other| *other < head);
        let alike = self.heads[first..].iter().take_while(|other| **other == head).count();
        let alike = &self.entries[first..first + alike];
        alike.binary_search_by(|entry| entry.key().cmp(key)).ok().map(|at| first + at)
    }

    /// How many entries lie before this bound.
    pub(super) fn before(&self, bound: Bound<&[u8]>) -> usize {
        let (key, or_equal) = match bound {
            Bound::Unbounded => return 0,
            Bound::Included(key) => (key, false),
            Bound::Excluded(key) => (key, true),
        };
        let Some(first) = self.entries.first() else { return 0 };
        let length = key.len().min(self.shared);
        match first.key()[..length].cmp(&key[..length]) {
            Ordering::Less => return self.entries.len(),
            Ordering::Greater => return 0,
            // A prefix of what all share comes before them all.
            Ordering::Equal if length < self.shared => return 0,
            Ordering::Equal => {}
        }
        let head = head(&key[self.shared..]);
        let first = self.heads.partition_point(|other| *other < head);
        let alike = self.heads[first..].iter().take_while(|other| **other == head).count();
        let is_before = |entry: &Entry| entry.key() < key || or_equal && entry.key() == key;
        first + self.entries[first..first + alike].partition_point(is_before)
    }

    /// Inserts an entry, already counted in `cached`. A full leaf is divided: returns its second part, and that one's fence.
    pub(super) fn insert(
        &mut self,
        at: usize,
        key: &[u8],
        entry: Entry,
    ) -> Option<(Box<[u8]>, Leaf)> {
        if self.entries.len() < LEAF {
            self.place(at, key, entry);
            return None;
        }
        // Ascending keys leave full leaves behind.
        let middle = if at == LEAF { LEAF } else { LEAF / 2 };
        let mut next = Leaf { entries: self.entries.split_off(middle), ..Leaf::default() };
        if at < middle || at == middle && middle < LEAF {
            self.settle();
            next.settle();
            self.place(at, key, entry);
        } else {
            next.entries.insert(at - middle, entry);
            self.settle();
            next.settle();
        }
        let is_cached = |entry: &&Entry| entry.state == State::Cached;
        next.cached = next.entries.iter().filter(is_cached).count() as u32;
        self.cached -= next.cached;
        let (last, first) = (self.entries.last()?.key(), next.entries.first()?.key());
        let fence = first[..=common(last, first)].into();
        Some((fence, next))
    }

    fn place(&mut self, at: usize, key: &[u8], entry: Entry) {
        if self.entries.len() == self.entries.capacity() {
            let step = STEP.min(LEAF - self.entries.len());
            self.entries.reserve_exact(step);
            self.heads.reserve_exact(step);
        }
        let shared = self.entries.first().map_or(key.len(), |first| common(first.key(), key));
        let is_less_shared = shared < self.shared;
        if self.entries.is_empty() || is_less_shared {
            self.shared = shared;
        }
        self.heads.insert(at, head(&key[self.shared..]));
        self.entries.insert(at, entry);
        if is_less_shared {
            self.settle();
        }
    }

    /// Finds out anew what all keys share.
    pub(super) fn settle(&mut self) {
        let (Some(first), Some(last)) = (self.entries.first(), self.entries.last()) else {
            *self = Leaf::default();
            return;
        };
        self.shared = common(first.key(), last.key());
        self.heads.clear();
        let heads = self.entries.iter().map(|entry| head(&entry.key()[self.shared..]));
        self.heads.extend(heads);
        self.entries.shrink_to_fit();
        self.heads.shrink_to_fit();
    }
}
