//! Once faults have stopped, all replicas of a key hold the same cell, without anyone reading it, and no one else holds
//! it.

use std::collections::BTreeMap;

use super::Evidence;
use crate::model::{Cell, Key, ServerId};

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let mut keys: BTreeMap<&Key, BTreeMap<ServerId, &Cell>> = BTreeMap::new();
    for (server, cells) in evidence.contents {
        for (key, cell) in cells {
            keys.entry(key).or_default().insert(*server, cell);
        }
    }
    let mut violations = Vec::new();
    for (key, held) in keys {
        let replicas = evidence.replicas(key);
        let strangers: Vec<_> = held.keys().filter(|server| !replicas.contains(server)).collect();
        if !strangers.is_empty() {
            violations.push(format!("key {key} is held by {strangers:?}, who are no replicas"));
        }
        let cells: Vec<_> = replicas.iter().map(|replica| held.get(replica)).collect();
        if cells.iter().any(|cell| *cell != cells[0]) {
            violations.push(format!("replicas {replicas:?} of key {key} hold {cells:?}"));
        }
    }
    violations
}
