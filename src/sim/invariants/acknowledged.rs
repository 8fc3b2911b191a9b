//! Nothing acknowledged is lost: at the end every replica holds, of each key, at least the newest version that a writer
//! at QUORUM or ALL was told of.

use std::collections::BTreeMap;

use super::super::history::{Kind, Outcome};
use super::super::workload::is_apart;
use super::Evidence;
use crate::model::{Key, Version};

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let mut newest: BTreeMap<&Key, Version> = BTreeMap::new();
    for operation in evidence.operations.iter().filter(|operation| !is_apart(&operation.key)) {
        if let (Kind::Write(_), Outcome::Done(version)) = (operation.kind, operation.outcome) {
            let slot = newest.entry(&operation.key).or_default();
            *slot = (*slot).max(version);
        }
    }
    let mut violations = Vec::new();
    for (key, version) in newest {
        for replica in evidence.replicas(key) {
            let cells = evidence.contents.get(replica).into_iter().flatten();
            let held = cells.filter(|(held, _)| held == key).map(|(_, cell)| cell.version).max();
            if held.unwrap_or_default() < version {
                violations.push(format!(
                    "{version} of key {key} was acknowledged, and server {replica} holds {held:?}"
                ));
            }
        }
    }
    violations
}
