//! What goes wrong at a moment, and whom it hits.
//!
//! Two replicas or more survive the loss of one disk at a time (`shape` has the table), so of wipes, turned bits and older
//! copies there is one victim until it votes again, and never one that keeps an only copy. A turned bit may be found late; from the first one on the victim of such losses stays the same.

use super::servers::{Flipped, Return, flip};
use super::{Coming, EPOCH, World};
use crate::model::ServerId;
use crate::node::Node;
use crate::sim::profile::Fault;

/// Microseconds.
const FIFTY_YEARS: i64 = 50 * 365 * 24 * 60 * 60 * 1_000_000;
/// Microseconds by which clocks differ where none is bad; more than any profile's `skew`.
pub(super) const NEARLY_RIGHT: i64 = 60_000_000;

impl World {
    pub(super) fn plan_fault(&mut self) {
        if self.numbers.fault_every > 0
            && !self.calm
            && self.weights.iter().any(|weight| *weight > 0)
        {
            let after = self.faults.below(2 * self.numbers.fault_every * 1_000);
            self.plan(after, Coming::Fault);
        }
    }

    pub(super) fn fault(&mut self) {
        // Let the cluster come to life first.
        if self.calm || self.now + 300_000 < self.comes_to_life() {
            return;
        }
        let ids: Vec<_> = self.servers.keys().copied().collect();
        let Some(id) = self.faults.pick(&ids).copied() else { return };
        let mut dice = self.faults.below(self.weights.iter().sum());
        let mut picked = Fault::Crash;
        for (fault, weight) in Fault::ALL.into_iter().zip(self.weights) {
            if dice < weight {
                picked = fault;
                break;
            }
            dice -= weight;
        }
        match picked {
            Fault::Crash => self.fault_crash(id, ids),
            Fault::Cut => self.fault_cut(&ids),
            Fault::Jump => self.fault_jump(id),
            Fault::Pause => self.fault_pause(id),
            Fault::Full => self.fault_full(id),
            Fault::Sync => self.fault_sync(id),
            Fault::Wipe => self.fault_wipe(id),
            Fault::Flip => self.fault_flip(id),
            Fault::Old => self.fault_old(id),
            Fault::Hang => self.fault_hang(id),
            Fault::Years => self.fault_years(id),
        }
    }

    fn fault_crash(&mut self, id: ServerId, ids: Vec<ServerId>) {
        if !self.may_crash(id) {
            return;
        }
        // Most of the time a server has nothing in hand, and nothing is torn.
        if self.faults.chance(500) {
            if let Some(server) = self.servers.get_mut(&id) {
                server.dies_at_work = true;
            }
            return;
        }
        self.crash(id, Return::Same);
        // Now and then everyone at once, as when the power fails.
        if self.faults.chance(60) {
            for id in ids {
                if self.may_crash(id) {
                    self.crash(id, Return::Same);
                }
            }
        }
    }

    /// The power goes out that was to go out in the middle of a batch.
    pub(super) fn die(&mut self, id: ServerId, life: u64) {
        if self.servers[&id].life == life && !self.calm && self.may_crash(id) {
            self.crash(id, Return::Same);
        }
    }

    /// Whoever must tell a server that its folder is an older copy stays until that is done: a position that was not
    /// saved yet would be forgotten, which is the limit of what can be noticed.
    fn may_crash(&mut self, id: ServerId) -> bool {
        if let Some((victim, folder)) = self.older
            && let Some(node) = self.servers[&victim].node.as_ref()
            && node.folder() != folder
        {
            self.older = None;
            self.summary.old_copies_found += 1;
        }
        self.older.is_none() || self.older.is_some_and(|(victim, _)| victim == id)
    }

    fn fault_cut(&mut self, ids: &[ServerId]) {
        if self.older.is_some() {
            return;
        }
        let shape = self.network.cut(ids);
        self.summary.cuts += 1;
        self.recut = self.now;
        self.weather += 1;
        self.note(|| shape);
        let after = self.faults.between(50_000, 3_000_000);
        self.plan(after, Coming::Heal);
    }

    fn fault_jump(&mut self, id: ServerId) {
        let most = self.numbers.skew as i64 * 1_000_000;
        let skew = self.faults.below(2 * most as u64 + 1) as i64 - most;
        self.summary.jumps += 1;
        self.note(|| format!("the clock of {id} jumps to {skew} µs off"));
        if let Some(server) = self.servers.get_mut(&id) {
            server.skew = skew;
        }
    }

    /// Of one server at a time, so that a majority of three clocks is right.
    fn fault_years(&mut self, id: ServerId) {
        for (_, server) in self.servers.iter_mut().filter(|(other, _)| **other != id) {
            if server.skew.abs() > NEARLY_RIGHT {
                server.skew = 0;
            }
        }
        let now = EPOCH + self.now as i64;
        let skew = match self.faults.below(8) {
            0 => 0,
            // As after a dead battery.
            1 => -now,
            _ => self.faults.below(2 * FIFTY_YEARS as u64 + 1) as i64 - FIFTY_YEARS,
        };
        self.summary.years += u64::from(skew != 0);
        self.note(|| format!("the clock of {id} is {skew} µs off"));
        if let Some(server) = self.servers.get_mut(&id) {
            server.skew = skew;
        }
    }

    fn fault_pause(&mut self, id: ServerId) {
        let until = self.now + self.faults.between(50_000, 4_000_000);
        if let Some(server) = self.servers.get_mut(&id).filter(|server| server.node.is_some()) {
            server.paused_until = until;
            self.summary.pauses += 1;
            self.weather += 1;
            self.note(|| format!("{id} stands still until {until}"));
        }
    }

    fn fault_full(&mut self, id: ServerId) {
        let room = self.faults.below(600);
        let after = self.faults.between(100_000, 3_000_000);
        let Some(server) = self.servers.get_mut(&id) else { return };
        let Some(engine) = &mut server.engine else { return };
        self.summary.full_disks += 1;
        if self.faults.chance(250) {
            engine.disk_mut().set_read_only(true);
            self.summary.read_only_disks += 1;
            self.note(|| format!("the disk of {id} is read-only"));
        } else {
            let used: u64 = engine.disk_mut().files().iter().map(|(_, length)| length).sum();
            engine.disk_mut().set_capacity(Some(used + room));
            self.note(|| format!("the disk of {id} takes {room} bytes more"));
        }
        self.plan(after, Coming::Room { server: id });
    }

    fn fault_sync(&mut self, id: ServerId) {
        if self.sync_failed.is_some() || !self.may_crash(id) {
            return;
        }
        let Some(server) = self.servers.get_mut(&id) else { return };
        let Some(engine) = &mut server.engine else { return };
        engine.disk_mut().fail_next_sync();
        self.sync_failed = Some(id);
        self.summary.failed_syncs += 1;
        self.note(|| format!("the next sync of {id} fails"));
    }

    /// Everybody votes, so that what the victim held counts, and nobody else may be missing something.
    fn may_lose(&self, id: ServerId) -> bool {
        let votes = |server: &super::Server| server.node.as_ref().is_some_and(Node::is_voting);
        self.older.is_none()
            && self.fewest_copies(id) > 1
            && self.flipped.iter().all(|victim| *victim == id)
            && self.servers.values().all(votes)
    }

    fn fault_wipe(&mut self, id: ServerId) {
        if self.may_lose(id) {
            self.crash(id, Return::Empty);
        }
    }

    fn fault_flip(&mut self, id: ServerId) {
        if !self.may_lose(id) {
            return;
        }
        self.flipped.insert(id);
        if !self.scrubs || self.disks.below(2) == 0 {
            self.crash(id, Return::Flipped);
            return;
        }
        // While it runs: then it has read its key files long ago.
        let disks = &mut self.disks;
        if let Some(engine) = self.servers.get_mut(&id).and_then(|server| server.engine.as_mut()) {
            let flipped = flip(engine.disk_mut(), |bound| disks.below(bound));
            self.summary.flips += u64::from(flipped != Flipped::Nothing);
            self.summary.flips_in_last += u64::from(flipped == Flipped::Last);
            self.note(|| format!("a bit of the log of {id} turns"));
        }
    }

    fn fault_old(&mut self, id: ServerId) {
        // Nor may one be about to stop that must tell of it.
        if !self.may_lose(id) || self.sync_failed.is_some() {
            return;
        }
        let Some(copy) = self.copies.get(&id) else { return };
        // All the others have been told of more than the copy has.
        let remembers = |server: &super::Server| {
            server.node.as_ref().and_then(|node| node.hello(id).remembers).is_some_and(
                |remembered| {
                    (remembered.folder, remembered.incarnation) == (copy.folder, copy.incarnation)
                        && remembered.position > copy.position
                },
            )
        };
        if self.servers.iter().all(|(other, server)| *other == id || remembers(server)) {
            let (disk, folder) = (copy.disk.clone(), copy.folder);
            self.network.heal();
            self.weather += 1;
            self.recut = self.now;
            self.older = Some((id, folder));
            self.crash(id, Return::Older(disk));
        }
    }

    pub(super) fn calm_down(&mut self, ids: &[ServerId]) {
        self.note(|| "faults stop".to_owned());
        self.set_good_clocks_right();
        self.calm = true;
        self.network.calm();
        self.sync_failed = None;
        for id in ids {
            if self.servers[id].node.is_none() {
                self.start(*id);
            }
            self.make_room(*id);
            self.stop_hanging(*id);
            if let Some(server) = self.servers.get_mut(id) {
                server.paused_until = 0;
            }
        }
    }

    /// The disk of a server takes bytes again.
    pub(super) fn make_room(&mut self, id: ServerId) {
        let calm = self.calm;
        let Some(server) = self.servers.get_mut(&id) else { return };
        let running = server.engine.as_mut().map(|engine| engine.disk_mut());
        if let Some(disk) = running.or(server.disk.as_mut()) {
            disk.set_capacity(None);
            disk.set_read_only(false);
            if calm {
                disk.stop_failing();
            }
        }
    }
}
