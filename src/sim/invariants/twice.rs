//! A write takes effect once: who has read its value, and then another one, never reads it again, however often it was
//! sent under its ticket.

use std::collections::BTreeMap;

use super::super::history::{Operation, Outcome, Value};
use super::super::workload::is_apart;
use super::Evidence;
use crate::model::Key;

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let mut reads: BTreeMap<&Key, Vec<(&Operation, Value)>> = BTreeMap::new();
    let is_judged = |operation: &&Operation| operation.is_promised() && !is_apart(&operation.key);
    for operation in evidence.operations.iter().filter(is_judged) {
        if let Outcome::Found(value) = operation.outcome {
            reads.entry(&operation.key).or_default().push((operation, value));
        }
    }
    let mut violations = Vec::new();
    for (key, reads) in reads {
        // Of each value: the earliest end of a read that found it.
        let mut seen: BTreeMap<Value, u64> = BTreeMap::new();
        for (operation, value) in &reads {
            let end = seen.entry(*value).or_insert(operation.end);
            *end = (*end).min(operation.end);
        }
        // Of each value: the latest start.
        for (between, other) in &reads {
            let after = |(read, value): &&(&Operation, Value)| {
                read.start > between.end
                    && *value != *other
                    && *value != 0
                    && seen.get(value).is_some_and(|end| *end < between.start)
            };
            if let Some((_, value)) = reads.iter().find(after) {
                violations.push(format!(
                    "value {value} of key {key} was read, then {other}, then {value} again"
                ));
                break;
            }
        }
    }
    violations
}
