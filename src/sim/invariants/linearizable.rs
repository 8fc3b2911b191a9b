//! Each key behaves as one copy, in the eyes of its clients; nothing is read that nobody wrote; what was refused never
//! takes effect; what was acknowledged is not lost, since every key is read through every server at the end.

use std::collections::BTreeMap;

use super::super::history::Operation;
use super::super::oracle::{Verdict, judge};
use super::super::workload::is_at_one;
use super::Evidence;
use crate::model::Key;

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let mut keys: BTreeMap<&Key, Vec<&Operation>> = BTreeMap::new();
    for operation in evidence.operations.iter().filter(|operation| !is_at_one(&operation.key)) {
        keys.entry(&operation.key).or_default().push(operation);
    }
    let verdict = |(key, operations): (&Key, Vec<&Operation>)| match judge(&operations) {
        Verdict::Linearizable => None,
        Verdict::Violation(why) => Some(format!("key {key}: {why}\n{}", show(&operations))),
        Verdict::Undecided => Some(format!("key {key}: the search was given up")),
    };
    keys.into_iter().filter_map(verdict).collect()
}

fn show(operations: &[&Operation]) -> String {
    let line = |operation: &&Operation| {
        let Operation { client, kind, start, end, outcome, .. } = operation;
        format!("    {start:>9} – {end:>9}  client {client}: {kind:?} → {outcome:?}")
    };
    operations.iter().map(line).collect::<Vec<_>>().join("\n")
}
