//! What waits for its answer, by numbers that were handed out in turn.
//!
//! **Problem.** Every call, request and append is put away when it is sent and taken out when it is answered, a few times an
//! operation. Numbers only ever grow, and most are answered nearly in their order: a search tree does much more than that needs.
//!
//! **Idea.** A queue with a place for each number from the oldest on; a number finds its place by subtraction. Where
//! one waits much longer than those around it, it moves to a tree, so that the queue stays about as long as there are things
//! that wait.
//!
//! **Invariants.** Numbers in the tree are less than those in the queue. The queue begins with something that waits, or is empty.

use std::collections::{BTreeMap, VecDeque};

/// A queue up to this long may be as empty as it likes.
const SHORT: usize = if cfg!(test) { 4 } else { 64 };

/// A map from ascending numbers to what waits under them.
#[derive(Clone, Debug)]
pub struct Pending<T> {
    /// The number of the first place in `recent`.
    first: u64,
    /// `None`: taken out, or never there.
    recent: VecDeque<Option<T>>,
    /// How many wait in `recent`.
    waiting: usize,
    /// Those that wait for long.
    old: BTreeMap<u64, T>,
}

impl<T> Default for Pending<T> {
    fn default() -> Pending<T> {
        Pending { first: 0, recent: VecDeque::new(), waiting: 0, old: BTreeMap::new() }
    }
}

impl<T> Pending<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting + self.old.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts something away under a number greater than all before it.
    pub fn insert(&mut self, number: u64, value: T) {
        let next = self.first + self.recent.len() as u64;
        debug_assert!(number >= next, "numbers ascend");
        let gap = number.saturating_sub(next);
        if self.recent.is_empty() || gap > SHORT as u64 {
            // So many empty places are not worth it.
            self.age(0);
            self.first = number;
        } else {
            self.recent.extend((0..gap).map(|_| None));
        }
        self.recent.push_back(Some(value));
        self.waiting += 1;
        if self.recent.len() > SHORT && self.recent.len() > 4 * self.waiting {
            self.age(2 * self.waiting);
        }
    }

    /// What waits under a number.
    pub fn get(&self, number: u64) -> Option<&T> {
        match number.checked_sub(self.first) {
            Some(place) => self.recent.get(usize::try_from(place).ok()?)?.as_ref(),
            None => self.old.get(&number),
        }
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        match number.checked_sub(self.first) {
            Some(place) => self.recent.get_mut(usize::try_from(place).ok()?)?.as_mut(),
            None => self.old.get_mut(&number),
        }
    }

    /// Takes out what waits under a number.
    pub fn remove(&mut self, number: u64) -> Option<T> {
        let Some(place) = number.checked_sub(self.first) else { return self.old.remove(&number) };
        let value = self.recent.get_mut(usize::try_from(place).ok()?)?.take()?;
        debug_assert!(self.waiting > 0, "what waits was not counted");
        self.waiting -= 1;
        self.trim();
        Some(value)
    }

    /// The least number under which something waits, and that.
    pub fn first(&self) -> Option<(u64, &T)> {
        self.iter().next()
    }

    /// All that waits, in the order of the numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let recent = (self.first..).zip(&self.recent);
        let recent = recent.filter_map(|(number, value)| Some((number, value.as_ref()?)));
        self.old.iter().map(|(number, value)| (*number, value)).chain(recent)
    }

    /// The same, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.old.values_mut().chain(self.recent.iter_mut().flatten())
    }

    /// Moves the oldest out of the queue until it has no more places than these.
    fn age(&mut self, places: usize) {
        while self.recent.len() > places
            && let Some(value) = self.recent.pop_front()
        {
            if let Some(value) = value {
                self.old.insert(self.first, value);
                self.waiting -= 1;
            }
            self.first += 1;
        }
        self.trim();
    }

    /// Takes empty places off the front.
    fn trim(&mut self) {
        while let Some(None) = self.recent.front() {
            self.recent.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is done next; what is taken out is told by its position among those that wait.
    #[derive(Clone, Debug)]
    enum Step {
        Insert { gap: u64 },
        Remove(usize),
        RemoveFirst,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop_oneof![9 => Just(0), 3 => 1..4u64, 1 => 5..1000u64]
                .prop_map(|gap| Step::Insert { gap }),
            2 => any::<usize>().prop_map(Step::Remove),
            3 => Just(Step::RemoveFirst),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_map_of_ascending_numbers(
            start in any::<u32>(),
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let (mut pending, mut model) = (Pending::default(), BTreeMap::new());
            let mut next = u64::from(start);
            for step in steps {
                let removed = match step {
                    Step::Insert { gap } => {
                        next += gap;
                        pending.insert(next, next);
                        model.insert(next, next);
                        next += 1;
                        let places = pending.recent.len();
                        prop_assert!(places <= (4 * pending.waiting).max(SHORT), "{places}");
                        None
                    }
                    Step::Remove(which) if !model.is_empty() => {
                        model.keys().nth(which % model.len()).copied()
                    }
                    Step::Remove(_) | Step::RemoveFirst => model.keys().next().copied(),
                };
                if let Some(number) = removed {
                    prop_assert_eq!(pending.remove(number), model.remove(&number));
                    prop_assert_eq!(pending.remove(number), None);
                }
                prop_assert_eq!(pending.len(), model.len());
                prop_assert_eq!(pending.is_empty(), model.is_empty());
                let all: Vec<_> = pending.iter().map(|(number, value)| (number, *value)).collect();
                let expected: Vec<_> = model.iter().map(|(number, value)| (*number, *value)).collect();
                prop_assert_eq!(all, expected);
                prop_assert_eq!(pending.first().map(|(number, _)| number), model.keys().next().copied());
                for number in [next.saturating_sub(9), next.saturating_sub(1), next, u64::from(start)] {
                    prop_assert_eq!(pending.get(number), model.get(&number));
                    prop_assert_eq!(pending.get_mut(number), model.get_mut(&number));
                }
            }
        }
    }

    #[test]
    fn one_that_waits_for_long_does_not_keep_the_places_of_all_after_it() {
        let mut pending = Pending::default();
        pending.insert(0, ());
        for number in 1..100_000 {
            pending.insert(number, ());
            pending.remove(number);
        }
        assert_eq!(pending.len(), 1);
        assert!(pending.recent.capacity() < 1000, "{}", pending.recent.capacity());
        assert_eq!(pending.remove(0), Some(()));
    }
}
