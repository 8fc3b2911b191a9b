//! A hint that was durable once is delivered: at the end its target holds what it was for, or something newer. Hints on a
//! disk that was lost are lost with it, and so is on its target's what was delivered: if it was never acknowledged, nobody else
//! need hold it.

use super::Evidence;
use crate::model::{Cell, Key, ServerId, Version};

/// A durable hint.
#[derive(Clone, Debug)]
pub(in super::super) struct Kept {
    pub(in super::super) holder: ServerId,
    pub(in super::super) target: ServerId,
    pub(in super::super) place: Key,
    pub(in super::super) version: Version,
    /// Its keeper has forgotten it, as its target has acknowledged it.
    pub(in super::super) delivered: bool,
}

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let is_missing = |hint: &&Kept| {
        let cells = evidence.contents.get(&hint.target).into_iter().flatten();
        let place = |key: &Key| evidence.partitioner.place(key);
        let holds =
            |(key, cell): &(Key, Cell)| place(key) == hint.place && cell.version >= hint.version;
        !cells.into_iter().any(holds)
    };
    let missing = evidence.hints.iter().filter(is_missing);
    missing.map(|hint| format!("never delivered: {hint:?}")).collect()
}
