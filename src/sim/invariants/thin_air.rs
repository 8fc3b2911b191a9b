//! Nothing is read, nor held at the end, that nobody wrote, at whatever level; and nothing whose write was refused for
//! certain.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Kind, Outcome, Value};
use super::super::workload::value_of;
use super::Evidence;
use crate::model::Key;

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let mut written: BTreeMap<&Key, BTreeSet<Value>> = BTreeMap::new();
    let mut refused: BTreeMap<&Key, BTreeSet<Value>> = BTreeMap::new();
    for operation in evidence.operations {
        let Kind::Write(value) = operation.kind else { continue };
        let values = match operation.outcome {
            Outcome::Refused => refused.entry(&operation.key).or_default(),
            Outcome::Done(_) | Outcome::Found(_) | Outcome::Unknown => {
                written.entry(&operation.key).or_default()
            }
        };
        values.insert(value);
    }
    let found = evidence.operations.iter().filter_map(|operation| match operation.outcome {
        Outcome::Found(value) => Some((&operation.key, value, "read")),
        Outcome::Done(_) | Outcome::Refused | Outcome::Unknown => None,
    });
    let held = evidence.contents.values().flatten();
    let held = held.map(|(key, cell)| (key, value_of(&cell.content), "held at the end"));
    let mut violations = BTreeSet::new();
    for (key, value, how) in found.chain(held).filter(|(_, value, _)| *value != 0) {
        if written.get(key).is_some_and(|values| values.contains(&value)) {
            continue;
        }
        let why = match refused.get(key).is_some_and(|values| values.contains(&value)) {
            true => "its write was refused",
            false => "nobody wrote it",
        };
        violations.insert(format!("value {value} of key {key} is {how}, but {why}"));
    }
    violations.into_iter().collect()
}
