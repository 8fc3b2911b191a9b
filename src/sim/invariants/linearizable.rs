//! Each key behaves as one copy, in the eyes of its clients; nothing is read that nobody wrote; what was refused never
//! takes effect; what was acknowledged is not lost, since every key is read through every server at the end.

use std::collections::BTreeMap;

use super::super::history::{Kind, Operation, Outcome};
use super::super::workload::is_at_available;
use super::Evidence;
use crate::judge::oracle::{Call, Verdict, What, judge};
use crate::model::Key;

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let mut keys: BTreeMap<&Key, Vec<&Operation>> = BTreeMap::new();
    // At AVAILABLE a key is one copy as long as every answer had QUORUM.
    let is_judged = |operation: &&Operation| {
        let fell_back = evidence.sides.fell_back.contains(&operation.key);
        operation.is_promised() && !(is_at_available(&operation.key) && fell_back)
    };
    for operation in evidence.operations.iter().filter(is_judged) {
        keys.entry(&operation.key).or_default().push(operation);
    }
    let verdict = |(key, operations): (&Key, Vec<&Operation>)| match judge(&calls(&operations)) {
        Verdict::Linearizable => None,
        Verdict::Violation(why) => Some(format!("key {key}: {why}\n{}", show(&operations))),
        Verdict::Undecided => Some(format!("key {key}: the search was given up")),
    };
    keys.into_iter().filter_map(verdict).collect()
}

fn calls(operations: &[&Operation]) -> Vec<Call> {
    let call = |operation: &&Operation| {
        let what = match (operation.kind, operation.outcome) {
            (Kind::Read, Outcome::Found(value)) => What::Read(value),
            (Kind::Write(value), Outcome::Done(_)) => What::Wrote(value),
            (Kind::Write(value), Outcome::Unknown) => What::MayHaveWritten(value),
            (Kind::Write(value), Outcome::Refused) => What::Refused(value),
            (Kind::Read, _) | (Kind::Write(_), Outcome::Found(_)) => return None,
        };
        Some(Call { start: operation.start, end: operation.end, what })
    };
    operations.iter().filter_map(call).collect()
}

fn show(operations: &[&Operation]) -> String {
    let line = |operation: &&Operation| {
        let Operation { client, kind, start, end, outcome, .. } = operation;
        format!("    {start:>9} – {end:>9}  client {client}: {kind:?} → {outcome:?}")
    };
    operations.iter().map(line).collect::<Vec<_>>().join("\n")
}
