//! What must hold at the end of every run: one property a file.

mod acknowledged;
mod agreement;
mod bounds;
mod causal;
mod exercised;
mod hints;
mod issued;
mod linearizable;
mod never_older;
mod settled;
mod sides;
mod thin_air;
mod twice;

pub(super) use hints::Kept;
pub(super) use never_older::Observer;
pub(super) use sides::{Moment, Sides, key_of};

use std::collections::BTreeMap;

use super::history::Operation;
use super::summary::Summary;
use crate::model::{Cell, Key, ServerId, Status};
use crate::ring::{Partitioner, Topology};

/// What a run leaves to be judged.
pub(super) struct Evidence<'a> {
    pub(super) operations: &'a [Operation],
    /// Writes that did not follow what their writer had seen.
    pub(super) out_of_order: &'a [String],
    /// Writes refused as invalid.
    pub(super) disowned: &'a [String],
    /// Versions of two writes.
    pub(super) doubled: &'a [String],
    pub(super) topology: &'a Topology,
    pub(super) partitioner: Partitioner,
    /// What every server holds at the end.
    pub(super) contents: &'a BTreeMap<ServerId, Vec<(Key, Cell)>>,
    pub(super) statuses: &'a BTreeMap<ServerId, Status>,
    pub(super) observer: &'a Observer,
    pub(super) sides: &'a Sides,
    /// Hints that were durable.
    pub(super) hints: &'a [Kept],
    /// What each node has in hand at the end.
    pub(super) in_hand: &'a BTreeMap<ServerId, usize>,
    pub(super) summary: &'a Summary,
}

impl Evidence<'_> {
    /// Who keeps the key.
    fn replicas(&self, key: &Key) -> &[ServerId] {
        &self.topology.range_of(&self.partitioner.place(key)).replicas
    }
}

/// What must hold as soon as a cluster has settled by itself, before anyone has written or read anything.
pub(super) fn check_settled(evidence: &Evidence<'_>) -> Vec<String> {
    let properties: [(&'static str, Check); 6] = [
        ("acknowledged", acknowledged::check),
        ("thin air", thin_air::check),
        ("hints", hints::check),
        ("bounds", bounds::check),
        ("agreement", agreement::check),
        ("settled", settled::check),
    ];
    violations(&properties, evidence)
}

/// All violations, each with the name of its property.
pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let properties: [(&'static str, Check); 13] = [
        ("linearizable", linearizable::check),
        ("acknowledged", acknowledged::check),
        ("thin air", thin_air::check),
        ("twice", twice::check),
        ("hints", hints::check),
        ("bounds", bounds::check),
        ("causal", causal::check),
        ("agreement", agreement::check),
        ("never older", never_older::check),
        ("settled", settled::check),
        ("exercised", exercised::check),
        ("sides", sides::check),
        ("issued", issued::check),
    ];
    violations(&properties, evidence)
}

type Check = fn(&Evidence<'_>) -> Vec<String>;

fn violations(properties: &[(&'static str, Check)], evidence: &Evidence<'_>) -> Vec<String> {
    let mut violations = Vec::new();
    for (name, check) in properties {
        violations.extend(check(evidence).into_iter().map(|what| format!("{name}: {what}")));
    }
    violations
}
