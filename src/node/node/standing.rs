//! This server's own standing: whether it votes, in which life, up to where its clock may go, and what its disk does.

use super::{Decision, Flaw, FolderId, Join, Node, OnSaved, RosterAt, Turn, Urgency, next_random};
use crate::node::clocks::News;
use crate::node::health::Change;

impl Node {
    /// Cells were lost: vote no more until they are back.
    pub(super) fn rebuild(&mut self, why: &str) {
        let text = format!(
            "server {} does not vote until it has been rebuilt from its peers: {why}",
            self.config.server
        );
        self.out.notice(Urgency::Error, text);
        self.random = next_random(self.random);
        let identity = &mut self.keeper.identity;
        identity.folder = FolderId(self.random);
        identity.voting = false;
        identity.forgetful = true;
        self.membership.set_self(identity.incarnation, false);
        self.join = Some(Join::anew(self.now.instant));
        self.keeper.save(OnSaved::Nothing, &mut self.out);
    }

    pub(super) fn decide(&mut self, decision: Option<Decision>) {
        match decision {
            Some(Decision::Choose { incarnation, forgetful }) => {
                let identity = &mut self.keeper.identity;
                identity.incarnation = incarnation;
                identity.forgetful |= forgetful;
                self.membership.set_self(incarnation, false);
                self.keeper.save(OnSaved::Joining, &mut self.out);
            }
            Some(Decision::Vote) => {
                let identity = &mut self.keeper.identity;
                identity.voting = true;
                identity.forgetful = false;
                self.keeper.save(OnSaved::Joining, &mut self.out);
            }
            None => {}
        }
    }

    pub(super) fn on_join_saved(&mut self) {
        let Some(join) = &mut self.join else { return };
        if join.is_finishing() {
            self.join = None;
            let identity = &self.keeper.identity;
            self.membership.set_self(identity.incarnation, true);
            let (server, incarnation) = (self.config.server, identity.incarnation);
            let text = format!("server {server} votes, in incarnation {incarnation}");
            self.out.notice(Urgency::Info, text);
            return;
        }
        let identity = &self.keeper.identity;
        let roster = RosterAt { membership: &self.membership, now: self.now.instant };
        let (now, config, clock, out) = (self.now, &self.config, &mut self.clock, &mut self.out);
        let turn = &mut Turn { now, config, roster: &roster, clock, life: None, out };
        let decision = join.on_saved(turn, identity);
        self.decide(decision);
    }

    /// Has a greater clock ceiling made durable in good time.
    pub(super) fn extend_ceiling(&mut self) {
        let saving = |then: &OnSaved| matches!(then, OnSaved::Ceiling(_));
        let Some(ceiling) = self.clock.wanted_ceiling(self.now.wall) else { return };
        let recorded = self.join.as_ref().is_none_or(Join::is_recorded);
        if recorded && !self.keeper.is_saving(saving) {
            self.keeper.identity.ceiling = self.keeper.identity.ceiling.max(ceiling);
            self.keeper.save(OnSaved::Ceiling(ceiling), &mut self.out);
        }
    }

    /// What a write has absorbed may have taken the clock beyond its ceiling.
    pub(super) fn extend_ceiling_for_waiting(&mut self) {
        if self.coordinator.awaits_clock() {
            self.extend_ceiling();
        }
    }

    /// Has what is new of this server's disk told to the operator and, with every answer from now on, to its peers.
    pub(super) fn look_at_disk(&mut self) {
        let Some(Change { from, to }) = self.health.look(self.now) else { return };
        let server = self.config.server;
        match to.0.describe(to.1) {
            Some(what) => {
                let text = format!(
                    "server {server}: {what}; others store without it until it is well again"
                );
                self.out.notice(Urgency::Error, text);
            }
            None => {
                let seconds = (to.1 - from.1) as f64 / 1e6;
                let text = format!("server {server}: its disk is well again, after {seconds:.1} s");
                self.out.notice(Urgency::Info, text);
            }
        }
        if self.config.flaw != Some(Flaw::DiskStaysUnnamed) {
            self.membership.set_disk(to.0);
        }
        if !to.0.takes_writes() {
            let roster = RosterAt { membership: &self.membership, now: self.now.instant };
            let (now, config, clock, out) =
                (self.now, &self.config, &mut self.clock, &mut self.out);
            let life = None;
            let turn = &mut Turn { now, config, roster: &roster, clock, life, out };
            self.coordinator.on_ill_disk(turn);
        }
    }

    /// Has what is new of anybody's clock told to the operator.
    pub(super) fn look_at_clocks(&mut self) {
        let server = self.config.server;
        for News { is_bad, text } in self.clocks.look(self.now) {
            let (urgency, advice) = match is_bad {
                true => (Urgency::Warning, ": times that people read are wrong, nothing else is"),
                false => (Urgency::Info, ""),
            };
            self.out.notice(urgency, format!("server {server}: {text}{advice}"));
        }
    }

    /// One that refuses is asked now and then whether it still does.
    pub(super) fn probe_disk(&mut self) {
        if self.health.wants_probe(self.now.instant) && !self.keeper.is_saving(|_| true) {
            self.keeper.save(OnSaved::Nothing, &mut self.out);
        }
    }
}
