//! Some items in the order of their keys, and how one is found among them.

use std::cmp::Ordering;
use std::ops::Bound;

/// Items of a full node. Few in tests, so that there are many nodes.
pub(super) const FULL: usize = if cfg!(test) { 8 } else { 64 };
/// A node with fewer items is joined with the next one if both then leave room for more.
const SPARSE: usize = FULL / 4;
/// By how many items a node's capacity grows.
const STEP: usize = 8;
/// Heads in a line of the processor's cache.
const LINE: usize = 8;
/// More heads than this are halved first: only the root has so many.
const MANY: usize = 128;
/// How many bytes of what all keys share are at hand.
const AT_HAND: usize = 12;

/// What has a key.
pub(super) trait Keyed {
    /// How many items at the beginning come before every key that is looked for among them, so that their own keys do not
    /// matter: of fences the first, which is often short and would leave nothing to share.
    const LEAST: usize = 0;

    fn key(&self) -> &[u8];
}

/// Items in the order of their keys. Beside them, in an array of their own, lie the *heads* of the keys: their first eight bytes
/// behind those that all of them begin with.
#[derive(Clone, Debug)]
pub(super) struct Sorted<T> {
    /// Bytes that all keys begin with, but those that do not matter.
    shared: u32,
    /// The first of these bytes, so that no key need be fetched to compare them.
    start: [u8; AT_HAND],
    /// Of each item, in the same order; 0 where the key does not matter.
    heads: Vec<u64>,
    items: Vec<T>,
}

impl<T> Default for Sorted<T> {
    fn default() -> Sorted<T> {
        Sorted { shared: 0, start: [0; AT_HAND], heads: Vec::new(), items: Vec::new() }
    }
}

/// The first eight bytes, as a number of the same order; missing ones are zeros, so equal heads decide nothing.
fn head(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut first = [0; 8];
            first[..bytes.len()].copy_from_slice(bytes);
            u64::from_be_bytes(first)
        }
    }
}

/// How many of these ascending heads are less. The search touches one head of each line and then one line: more comparisons
/// than halving takes, but none of the first waits for another, and it is fetching the lines that takes time.
fn less(heads: &[u64], head: u64) -> usize {
    if heads.len() > MANY {
        return heads.partition_point(|other| *other < head);
    }
    let lines = heads.chunks_exact(LINE).filter(|line| line[LINE - 1] < head).count();
    let rest = heads[lines * LINE..].iter().take(LINE);
    lines * LINE + rest.filter(|other| **other < head).count()
}

/// Bytes with which both begin.
pub(super) fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

impl<T: Keyed> Sorted<T> {
    pub(super) fn items(&self) -> &[T] {
        &self.items
    }

    /// Their keys must stay what they are.
    pub(super) fn items_mut(&mut self) -> &mut [T] {
        &mut self.items
    }

    /// Whether the next insertion would divide it.
    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= FULL
    }

    /// Whether it should be joined with another.
    pub(super) fn is_sparse(&self) -> bool {
        self.items.len() < SPARSE
    }

    /// Whether both together leave room for more.
    pub(super) fn fits_with(&self, other: &Sorted<T>) -> bool {
        self.items.len() + other.items.len() <= FULL - SPARSE
    }

    /// Where the key stands.
    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        // Whether the key begins with the shared bytes is seen when the whole key is compared.
        let (first, alike) = self.alike(key.get(self.shared as usize..)?);
        alike.binary_search_by(|item| item.key().cmp(key)).ok().map(|at| first + at)
    }

    /// How many items lie before this bound.
    pub(super) fn before(&self, bound: Bound<&[u8]>) -> usize {
        let (key, or_equal) = match bound {
            Bound::Unbounded => return 0,
            Bound::Included(key) => (key, false),
            Bound::Excluded(key) => (key, true),
        };
        let Some(first) = self.items.get(T::LEAST) else { return self.items.len() };
        let shared = self.shared as usize;
        let length = key.len().min(shared);
        let start = match self.start.get(..length) {
            Some(start) => start,
            None => &first.key()[..length],
        };
        match start.cmp(&key[..length]) {
            Ordering::Less => return self.items.len(),
            Ordering::Greater => return T::LEAST,
            // What all keys begin with goes on behind this key's end: they come after it.
            Ordering::Equal if length < shared => return T::LEAST,
            Ordering::Equal => {}
        }
        let (first, alike) = self.alike(&key[shared..]);
        first + alike.partition_point(|item| item.key() < key || or_equal && item.key() == key)
    }

    /// The last item whose key is not greater; the first, if there is none such.
    pub(super) fn floor(&self, key: &[u8]) -> usize {
        self.before(Bound::Excluded(key)).saturating_sub(1)
    }

    /// The items with the head of this rest of a key, and how many come before them.
    fn alike(&self, rest: &[u8]) -> (usize, &[T]) {
        let head = head(rest);
        let least = T::LEAST.min(self.heads.len());
        let first = least + less(&self.heads[least..], head);
        let count = self.heads[first..].iter().take_while(|other| **other == head).count();
        (first, &self.items[first..first + count])
    }

    /// Puts an item where it belongs. A full node is divided first: returns its second part.
    pub(super) fn insert(&mut self, item: T) -> Option<Sorted<T>> {
        if !self.is_full() {
            self.add(item);
            return None;
        }
        // Ascending keys leave full nodes behind.
        let at = self.before(Bound::Included(item.key()));
        let is_last = at == self.items.len();
        let middle = if is_last { at } else { self.items.len() / 2 };
        let mut second = Sorted { items: self.items.split_off(middle), ..Sorted::default() };
        self.settle();
        second.settle();
        if is_last || at > middle {
            second.add(item);
        } else {
            self.add(item);
        }
        Some(second)
    }

    /// Puts an item where it belongs, however many there are.
    pub(super) fn add(&mut self, item: T) {
        if self.items.len() == self.items.capacity() {
            // Few are full: capacity grows in small steps, but not without end.
            let step = match self.items.len() {
                length @ 0..FULL => STEP.min(FULL - length),
                length => length / 4,
            };
            self.items.reserve_exact(step);
            self.heads.reserve_exact(step);
        }
        let at = self.before(Bound::Included(item.key()));
        let key = item.key();
        let others = self.items.get(T::LEAST);
        let shared = others.map_or(key.len(), |first| common(first.key(), key));
        let settles = shared < self.shared as usize || others.is_none() || at < T::LEAST;
        if !settles {
            self.heads.insert(at, head(&key[self.shared as usize..]));
        }
        self.items.insert(at, item);
        if settles {
            self.settle();
        }
    }

    pub(super) fn remove(&mut self, at: usize) -> T {
        self.heads.remove(at);
        let item = self.items.remove(at);
        if at < T::LEAST {
            self.settle();
        }
        item
    }

    /// Takes in what comes after it.
    pub(super) fn append(&mut self, mut next: Sorted<T>) {
        self.items.append(&mut next.items);
        self.settle();
    }

    /// Finds out anew what all keys share.
    fn settle(&mut self) {
        let (least, rest) = self.items.split_at(T::LEAST.min(self.items.len()));
        let shared = match (rest.first(), rest.last()) {
            (Some(first), Some(last)) => &first.key()[..common(first.key(), last.key())],
            (_, _) => &[],
        };
        self.shared = shared.len() as u32;
        self.start.iter_mut().zip(shared).for_each(|(to, from)| *to = *from);
        self.heads.clear();
        self.heads.extend(least.iter().map(|_| 0));
        self.heads.extend(rest.iter().map(|item| head(&item.key()[shared.len()..])));
        self.items.shrink_to_fit();
        self.heads.shrink_to_fit();
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        assert!(self.items.is_sorted_by(|one, other| one.key() < other.key()));
        assert_eq!(self.items.len(), self.heads.len());
        let first = self.items.get(T::LEAST).map_or(&[][..], |first| first.key());
        for (item, head) in self.items.iter().zip(&self.heads).skip(T::LEAST) {
            let shared = self.shared as usize;
            assert!(item.key().starts_with(&first[..shared]));
            let at_hand = shared.min(AT_HAND);
            assert_eq!(self.start[..at_hand], first[..at_hand]);
            assert_eq!(*head, self::head(&item.key()[shared..]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_by_lines_finds_what_halving_finds() {
        for count in 0..2 * MANY as u64 {
            // Each number twice, so that equal heads lie on both sides of a line's end.
            let heads: Vec<u64> = (0..count).map(|number| number / 2 * 3).collect();
            for head in 0..count * 2 {
                assert_eq!(less(&heads, head), heads.partition_point(|other| *other < head));
            }
        }
    }
}
