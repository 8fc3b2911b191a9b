//! Nothing is read, nor held at the end, that nobody wrote, at whatever level; nothing before its write has begun; and
//! nothing whose write was refused for certain.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Kind, Outcome, Value};
use super::super::workload::value_of;
use super::Evidence;
use crate::model::Key;

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    // Of each value of a key: when its write began.
    let mut written: BTreeMap<&Key, BTreeMap<Value, u64>> = BTreeMap::new();
    let mut refused: BTreeMap<&Key, BTreeSet<Value>> = BTreeMap::new();
    for operation in evidence.operations {
        let Kind::Write(value) = operation.kind else { continue };
        match operation.outcome {
            Outcome::Refused => {
                refused.entry(&operation.key).or_default().insert(value);
            }
            Outcome::Done(_) | Outcome::Found(_) | Outcome::Unknown => {
                written.entry(&operation.key).or_default().insert(value, operation.start);
            }
        }
    }
    let found = evidence.operations.iter().filter_map(|operation| match operation.outcome {
        Outcome::Found(value) => Some((&operation.key, value, operation.end, "read")),
        Outcome::Done(_) | Outcome::Refused | Outcome::Unknown => None,
    });
    let held = evidence.contents.values().flatten();
    let held = held.map(|(key, cell)| (key, value_of(&cell.content), u64::MAX, "held at the end"));
    let mut violations = BTreeSet::new();
    for (key, value, at, how) in found.chain(held).filter(|(_, value, ..)| *value != 0) {
        let began = written.get(key).and_then(|values| values.get(&value));
        let why = match began {
            Some(began) if *began <= at => continue,
            Some(_) => "it was not written yet",
            None if refused.get(key).is_some_and(|values| values.contains(&value)) => {
                "its write was refused"
            }
            None => "nobody wrote it",
        };
        violations.insert(format!("value {value} of key {key} is {how}, but {why}"));
    }
    violations.into_iter().collect()
}
