//! Clocks that are off by years, and who must know of it.

use super::World;
use super::faults::NEARLY_RIGHT;
use crate::model::ServerId;
use crate::sim::profile::Fault;

/// So long after faults have stopped everyone knows: all were asked twice, the verdict has held, and what was late has come.
const KNOWN_AFTER: u64 = 10_000_000;

impl World {
    fn has_bad_clocks(&self) -> bool {
        let mut weights = Fault::ALL.into_iter().zip(self.weights);
        weights.any(|(fault, weight)| fault == Fault::Years && weight > 0)
    }

    /// Faults stop: the bad clock stays as it is, the others are as near to each other as clocks are that are set by a network.
    pub(super) fn set_good_clocks_right(&mut self) {
        if !self.has_bad_clocks() {
            return;
        }
        for server in self.servers.values_mut() {
            if server.skew.abs() <= NEARLY_RIGHT {
                server.skew /= 10;
            }
        }
        self.known_at = self.now + KNOWN_AFTER;
    }

    /// Where most clocks are right, every server names the one that is not; nobody names any other.
    pub(super) fn look_at_clocks(&mut self, ids: &[ServerId]) {
        if !self.has_bad_clocks() {
            return;
        }
        while self.now < self.known_at && self.broken.is_empty() {
            self.turn();
        }
        let is_bad = |id: &&ServerId| self.servers[*id].skew.abs() > NEARLY_RIGHT;
        let mut bad: Vec<_> = ids.iter().filter(is_bad).copied().collect();
        if ids.len() < 3 {
            bad.clear();
        }
        for id in ids {
            let Some(node) = &self.servers[id].node else { continue };
            let named = node.bad_clocks();
            self.summary.clocks_named += named.len() as u64;
            if named != bad {
                self.unnamed.push(format!(
                    "named: at the end clocks of {bad:?} are off by years, and server {id} names {named:?}"
                ));
            }
        }
    }
}
