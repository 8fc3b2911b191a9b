//! What a replica says it holds of a key never gets older, also not across a crash; only a lost disk may forget.

use std::collections::BTreeMap;

use super::Evidence;
use crate::model::{Incarnation, Key, ServerId, Stamp};

/// Listens to every answer that a replica gives.
#[derive(Debug, Default)]
pub(in super::super) struct Observer {
    said: BTreeMap<(ServerId, Incarnation, Key), Stamp>,
    regressions: Vec<String>,
}

impl Observer {
    /// An older copy of the server's folder was put back: until it notices, it may say what it said before.
    pub(in super::super) fn forgive(&mut self, server: ServerId) {
        self.said.retain(|(said, _, _), _| *said != server);
    }

    /// A voting replica has said that it durably holds this.
    pub(in super::super) fn hear(
        &mut self,
        server: ServerId,
        incarnation: Incarnation,
        key: &Key,
        stamp: Stamp,
    ) {
        let said = self.said.entry((server, incarnation, key.clone())).or_default();
        if stamp.is_below(said) {
            self.regressions
                .push(format!("server {server} held {said:?} of key {key}, and then {stamp:?}"));
        }
        *said = (*said).max(stamp);
    }
}

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.observer.regressions.clone()
}
