//! Disks that hang, and who must know of it.

use super::{Coming, World};
use crate::model::{DiskState, ServerId};
use crate::sim::profile::Numbers;

/// So long after a disk has taken up what it does not carry out, its server and its neighbours know, if all that they say to
/// each other is in time.
const KNOWN_AFTER: u64 = 2_000_000;

impl World {
    /// Now and then that of another hangs already.
    pub(super) fn fault_hang(&mut self, id: ServerId) {
        let others = self.servers.values().filter(|server| server.hangs_until > self.now).count();
        let until = self.now + self.faults.between(3_000_000, 20_000_000);
        if others > 0 && !self.faults.chance(200) {
            return;
        }
        let Some(server) = self.servers.get_mut(&id).filter(|server| server.node.is_some()) else {
            return;
        };
        // What it has taken up already waits for the later of the two.
        server.hangs_until = server.hangs_until.max(until);
        let until = server.hangs_until;
        self.summary.hung_disks += 1;
        self.note(|| format!("the disk of {id} hangs until {until}"));
        self.watch_hang(id);
    }

    /// What is being carried out waits, if the disk hangs.
    pub(super) fn hangs(&mut self, server: ServerId, life: u64) -> bool {
        let state = &self.servers[&server];
        let until = state.hangs_until;
        let waits = state.life == life && until > self.now;
        if waits {
            self.plan(until - self.now, Coming::Worked { server, life });
        }
        waits
    }

    /// Faults stop: what waits is carried out. That it was to be later, too, does no harm.
    pub(super) fn stop_hanging(&mut self, server: ServerId) {
        let Some(state) = self.servers.get_mut(&server) else { return };
        let (life, hung) = (state.life, state.hangs_until > self.now && state.working);
        state.hangs_until = 0;
        if hung {
            self.plan(1, Coming::Worked { server, life });
        }
    }

    /// Comes back to a disk that does not carry out what it has taken up.
    pub(super) fn watch_hang(&mut self, server: ServerId) {
        let state = &self.servers[&server];
        let (life, batch) = (state.life, state.batches);
        if state.working && state.hangs_until > self.now + KNOWN_AFTER {
            self.plan(KNOWN_AFTER, Coming::Named { server, life, batch });
        }
    }

    /// The server itself knows, and so does every neighbour to which it has had a link all the while.
    pub(super) fn is_named(&mut self, hanging: ServerId, life: u64, batch: u64) {
        let since = self.now - KNOWN_AFTER;
        let Numbers { lost, twice, late, .. } = self.numbers;
        let all_in_time = lost + twice + late == 0 && self.recut < since;
        let state = &self.servers[&hanging];
        let still = state.life == life && state.working && state.batches == batch;
        if !all_in_time || !still || state.hangs_until <= self.now {
            return;
        }
        for other in self.topology.neighbours(hanging).into_iter().chain([hanging]) {
            let Some(node) = &self.servers[&other].node else { continue };
            let ends = [(other, hanging), (hanging, other)];
            let linked = other == hanging
                || self.links.get(&(other, hanging)) == Some(&life)
                    && ends.iter().all(|ends| self.relinked.get(ends).is_none_or(|at| *at < since))
                    && !self.network.is_cut(other, hanging)
                    && !self.network.is_cut(hanging, other);
            if !linked {
                continue;
            }
            self.summary.hangs_named += 1;
            if node.disk_of(hanging) != DiskState::Hanging {
                self.unnamed.push(format!(
                    "named: at {} µs the disk of {hanging} has hung for {} s, and server {other} does not know it",
                    self.now,
                    KNOWN_AFTER / 1_000_000
                ));
            }
        }
    }
}
