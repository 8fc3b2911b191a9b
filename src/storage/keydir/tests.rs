//! Laws of the keydir.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::entry::BESIDE_KEY;
use super::sorted::FULL;
use super::*;
use crate::model::{Content, Incarnation, ServerId};
use crate::storage::Whereabouts;

impl Keydir {
    /// The invariants; and that nothing is counted wrongly.
    fn check(&self) {
        let (mut keys, mut memory, mut tombstones) = (0, 0, 0);
        self.branches.check();
        let leaves = || self.branches.items().iter().flat_map(|branch| branch.node.items());
        let fences: Vec<_> = leaves().map(|leaf| &leaf.fence[..]).collect();
        assert!(fences[0].is_empty(), "the first leaf is there");
        for branch in self.branches.items() {
            branch.node.check();
            assert!(branch.node.items().len() <= FULL);
            assert_eq!(branch.fence, branch.node.items()[0].fence);
        }
        for (number, Child { fence, node: leaf }) in leaves().enumerate() {
            leaf.entries.check();
            let entries = leaf.entries.items();
            assert!(entries.len() <= FULL);
            assert!(!entries.is_empty() || number == 0, "an empty leaf stays");
            let next = fences.get(number + 1);
            for entry in entries {
                assert!(**fence <= *entry.key() && next.is_none_or(|next| entry.key() < *next));
                memory += entry.memory();
                tombstones += usize::from(entry.state == State::Tombstone);
            }
            let cached = entries.iter().filter(|entry| entry.state == State::Cached).count();
            assert_eq!(leaf.cached as usize, cached);
            keys += entries.len();
        }
        assert_eq!((self.keys, self.memory, self.tombstones), (keys, memory, tombstones));
    }
}

fn version(time: i64) -> Version {
    Version { time, server: ServerId(3), incarnation: Incarnation(4), step: 5 }
}

fn stamp(key: &[u8], time: i64, length: Option<usize>) -> Stamp {
    let content =
        length.map_or(Content::Tombstone, |length| Content::Value(value(key, length).into()));
    Stamp { version: version(time), checksum: Some(Checksum::of(&content)) }
}

fn place(offset: u32) -> Place {
    Place { segment: 1, offset, length: 50 }
}

/// Keys that share beginnings, are beginnings of each other, and differ in zeros at the end.
fn keys() -> impl Strategy<Value = Vec<u8>> {
    let short = proptest::collection::vec(0..3_u8, 0..4);
    let long = (0..3_u8, 0..400_u16).prop_map(|(kind, number)| {
        let name = if kind == 0 { "a key with a long beginning/" } else { "b" };
        [name.as_bytes(), &number.to_be_bytes(), &vec![0; kind.into()]].concat()
    });
    prop_oneof![1 => short, 8 => long]
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>, i64, Option<usize>),
    Run(u16, u16),
    Remove(Vec<u8>),
    Drain(Vec<u8>, usize),
    Touch(Vec<u8>),
    Load(Vec<u8>),
    MakeRoom(u64),
    Range(Bound<Vec<u8>>, Bound<Vec<u8>>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bound = || {
        prop_oneof![
            1 => Just(Bound::Unbounded),
            3 => keys().prop_map(Bound::Included),
            3 => keys().prop_map(Bound::Excluded),
        ]
    };
    let length = prop_oneof![Just(0), Just(7), Just(BESIDE_KEY), Just(BESIDE_KEY + 1)];
    let step = prop_oneof![
        40 => (keys(), 1..9_i64, proptest::option::of(length))
            .prop_map(|(key, time, length)| Step::Put(key, time, length)),
        4 => (any::<u16>(), 0..200_u16).prop_map(|(from, count)| Step::Run(from % 2000, count)),
        6 => keys().prop_map(Step::Remove),
        2 => (keys(), 0..300_usize).prop_map(|(from, count)| Step::Drain(from, count)),
        4 => keys().prop_map(Step::Touch),
        4 => keys().prop_map(Step::Load),
        2 => (0..5_000_u64).prop_map(Step::MakeRoom),
        4 => (bound(), bound()).prop_map(|(from, to)| Step::Range(from, to)),
    ];
    proptest::collection::vec(step, 0..300)
}

/// What is held of a key, by the simplest means: version, place, and the value's length or a tombstone.
type Model = BTreeMap<Vec<u8>, (i64, u32, Option<usize>)>;

fn value(key: &[u8], length: usize) -> Vec<u8> {
    let last = key.last().copied().unwrap_or(7);
    vec![last ^ length as u8; length]
}

fn put(keydir: &mut Keydir, model: &mut Model, key: &[u8], time: i64, length: Option<usize>) {
    let offset = model.len() as u32 * 10 + time as u32;
    let value = length.map(|length| value(key, length));
    let holding = value.as_deref().map_or(Holding::Tombstone, Holding::Value);
    let now = stamp(key, time, length);
    let put = keydir.put(key, now, place(offset), holding);
    match model.get(key) {
        Some((there, _, held)) if stamp(key, *there, *held) > now => {
            assert_eq!(put, Put::Overtaken { by: stamp(key, *there, *held) });
            return;
        }
        Some((there, at, held)) => {
            assert_eq!(put, Put::Instead { of: stamp(key, *there, *held), at: place(*at) });
        }
        None => assert_eq!(put, Put::First),
    }
    model.insert(key.to_vec(), (time, offset, length));
}

fn remove(keydir: &mut Keydir, model: &mut Model, key: &[u8]) {
    let held = model.remove(key).map(|(time, offset, _)| (version(time), place(offset)));
    assert_eq!(keydir.remove(key), held);
}

proptest! {
    /// Against the standard library's map: whatever is put in, found, removed and put out of memory.
    #[test]
    fn it_holds_what_a_sorted_map_holds(steps in steps()) {
        let (mut keydir, mut model) = (Keydir::default(), Model::new());
        for step in steps {
            match step {
                Step::Put(key, time, length) => put(&mut keydir, &mut model, &key, time, length),
                Step::Run(from, count) => {
                    for number in from..from + count {
                        put(&mut keydir, &mut model, &number.to_be_bytes(), 1, Some(3));
                    }
                }
                Step::Remove(key) => remove(&mut keydir, &mut model, &key),
                Step::Drain(from, count) => {
                    let keys = model.range(from..).take(count);
                    for key in keys.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
                        remove(&mut keydir, &mut model, &key);
                    }
                }
                Step::Touch(key) => {
                    let found = keydir.touch(&key).map(|held| held.version());
                    prop_assert_eq!(found, model.get(&key).map(|(time, _, _)| version(*time)));
                }
                Step::Load(key) => {
                    if let Some((time, _, Some(length))) = model.get(&key) {
                        keydir.fill(&key, stamp(&key, *time, Some(*length)), &value(&key, *length).into());
                        // One that is not wanted any more.
                        keydir.fill(&key, stamp(&key, 77, Some(0)), &Bytes::new());
                        keydir.fill(&key, stamp(&key, *time, Some(9)), &Bytes::new());
                        let held = keydir.get(&key).map(|held| held.whereabouts());
                        let content = Content::Value(value(&key, *length).into());
                        prop_assert_eq!(held, Some(Whereabouts::Memory(content)));
                    }
                }
                Step::MakeRoom(budget) => {
                    keydir.make_room(budget);
                    prop_assert!(keydir.memory() <= budget);
                }
                Step::Range(from, to) => {
                    let slice = |bound: &Bound<Vec<u8>>| bound.clone();
                    let (from, to) = (slice(&from), slice(&to));
                    let is_before = |key: &Vec<u8>| match &from {
                        Bound::Included(from) => key < from,
                        Bound::Excluded(from) => key <= from,
                        Bound::Unbounded => false,
                    };
                    let is_behind = |key: &Vec<u8>| match &to {
                        Bound::Included(to) => key > to,
                        Bound::Excluded(to) => key >= to,
                        Bound::Unbounded => false,
                    };
                    let expected = model.keys().filter(|key| !is_before(key) && !is_behind(key));
                    let (from, to) = (from.as_ref().map(|key| &key[..]), to.as_ref().map(|key| &key[..]));
                    let found = keydir.range(from, to).map(|held| held.key().to_vec());
                    prop_assert_eq!(found.collect::<Vec<_>>(), expected.cloned().collect::<Vec<_>>());
                }
            }
            keydir.check();
        }
        for (key, (time, offset, length)) in &model {
            let held = keydir.get(key);
            prop_assert!(held.is_some());
            let Some(held) = held else { continue };
            prop_assert_eq!((held.version(), held.place()), (version(*time), place(*offset)));
            let content = match length {
                None => Content::Tombstone,
                Some(length) => Content::Value(value(key, *length).into()),
            };
            match held.whereabouts() {
                Whereabouts::Memory(found) => prop_assert_eq!(found, content),
                Whereabouts::Disk(at) => {
                    prop_assert!(length.is_some());
                    prop_assert_eq!(at, place(*offset));
                }
            }
        }
        prop_assert_eq!(keydir.len(), model.len());
    }
}

/// A value that is read again and again is hardly ever put out of memory.
#[test]
fn what_is_used_stays_in_memory() {
    let mut keydir = Keydir::default();
    let (often, mut loads) = (500_u32.to_be_bytes(), 0);
    let checksum = Some(Checksum::of_value(7));
    let one = Stamp { version: version(1), checksum };
    keydir.put(&often, one, place(500), Holding::Value(&[7; 68]));
    for number in 1_000..3_000_u32 {
        keydir.put(&number.to_be_bytes(), one, place(number), Holding::Value(&[7; 68]));
        keydir.make_room(10_000);
        let found = keydir.touch(&often).map(|held| held.whereabouts());
        if let Some(Whereabouts::Disk(_)) = found {
            keydir.fill(&often, one, &vec![7; 68].into());
            loads += 1;
        }
    }
    // A hundred values fit, so each of the others was put out twenty times over.
    assert!(loads < 3, "{loads} loads");
    let cached = |held: &Held<'_>| matches!(held.whereabouts(), Whereabouts::Memory(_));
    assert!((90..=100).contains(&keydir.iter().filter(cached).count()));
}

/// What a key costs beside its own bytes and its value's.
#[test]
fn an_entry_is_small() {
    assert_eq!(std::mem::size_of::<Entry>(), 56);
}
