//! The end of a run: everything is asked once more, and judged.

use std::collections::{BTreeMap, BTreeSet};

use super::{CLIENT_PATIENCE, NOBODY, QUIET, SETTLING, World};
use crate::model::{
    Cell, ClientRequest, ClientResponse, InspectSource, Key, Level, ServerId, Status,
};
use crate::sim::Report;
use crate::sim::history::{Kind, Operation, Outcome, final_entry};
use crate::sim::invariants::{Evidence, check};
use crate::sim::workload::value_of;

impl World {
    /// Asks a server something and waits for the answer.
    fn ask(&mut self, server: ServerId, request: ClientRequest) -> Result<ClientResponse, String> {
        let call = self.call(NOBODY, server, request);
        let until = self.now + CLIENT_PATIENCE;
        while self.now < until && self.broken.is_empty() {
            if let Some(answer) = self.answers.remove(&call) {
                return answer.map_err(|failure| failure.to_string());
            }
            self.turn();
        }
        Err(self
            .broken
            .first()
            .map_or("no answer".to_owned(), |_| "something is broken".to_owned()))
    }

    /// What clients did, and then what every replica holds of every key, as lines of JSON.
    fn history(&self, contents: &BTreeMap<ServerId, Vec<(Key, Cell)>>) -> String {
        let entry = |operation: &Operation| operation.to_entry(operation.client == NOBODY);
        let operations = self.workload.operations.iter().map(entry);
        let keys: BTreeSet<&Key> = contents.values().flatten().map(|(key, _)| key).collect();
        let finals = keys.into_iter().flat_map(|key| {
            let held = |server: &ServerId| {
                let cells = contents.get(server).into_iter().flatten();
                let cell = cells.filter(|(held, _)| held == key).map(|(_, cell)| cell).next();
                final_entry(*server, key, cell, self.now)
            };
            self.topology.range_of(key).replicas.iter().map(held).collect::<Vec<_>>()
        });
        operations.chain(finals).map(|entry| entry.to_json() + "\n").collect()
    }

    fn contents(&mut self, server: ServerId) -> Result<Vec<(Key, Cell)>, String> {
        let (source, from) = (InspectSource::Cells, Key::bound(""));
        match self.ask(server, ClientRequest::Inspect { source, from, limit: 1_000 }) {
            Ok(ClientResponse::Inspected { entries, .. }) => Ok(entries),
            other => Err(format!("server {server} cannot be inspected: {other:?}")),
        }
    }

    fn status(&mut self, server: ServerId) -> Status {
        match self.ask(server, ClientRequest::Status) {
            Ok(ClientResponse::Status(status)) => *status,
            other => {
                self.broken.push(format!("server {server} has no status: {other:?}"));
                Status::default()
            }
        }
    }

    fn all_contents(&mut self) -> BTreeMap<ServerId, Vec<(Key, Cell)>> {
        let ids: Vec<_> = self.servers.keys().copied().collect();
        let mut all = BTreeMap::new();
        for id in ids {
            let contents = self.contents(id);
            all.insert(
                id,
                contents.unwrap_or_else(|why| {
                    self.broken.push(why);
                    Vec::new()
                }),
            );
        }
        all
    }

    fn all_statuses(&mut self) -> BTreeMap<ServerId, Status> {
        let ids: Vec<_> = self.servers.keys().copied().collect();
        ids.into_iter().map(|id| (id, self.status(id))).collect()
    }

    /// Lets time pass until nothing is left to be mended, or for long enough.
    pub(super) fn settle(&mut self) {
        let until = self.now + SETTLING;
        let mut quiet_since = None;
        while self.now < until && self.broken.is_empty() {
            match (self.has_settled(), quiet_since) {
                (true, Some(since)) if self.now - since >= QUIET => return,
                (true, None) => quiet_since = Some(self.now),
                (true, Some(_)) => {}
                (false, _) => quiet_since = None,
            }
            let pause = self.now + 500_000;
            while self.now < pause {
                self.turn();
            }
        }
    }

    /// Everyone votes and sees everyone, no hint waits, replicas hold the same.
    fn has_settled(&mut self) -> bool {
        let statuses = self.all_statuses();
        let quiet = statuses.values().all(|status| {
            status.voting
                && status.peers.iter().all(|peer| peer.alive && peer.voting && peer.hints == 0)
        });
        if !quiet {
            return false;
        }
        let ids: Vec<_> = self.servers.keys().copied().collect();
        let mut contents = BTreeMap::new();
        for id in ids {
            // An inspection that meets a turned bit is given up, and the server is rebuilt.
            let Ok(held) = self.contents(id) else { return false };
            contents.insert(id, held);
        }
        self.workload.keys().iter().all(|key| {
            let replicas = &self.topology.range_of(key).replicas;
            let held = |replica: &ServerId| {
                contents[replica].iter().find(|(held, _)| held == key).map(|(_, cell)| cell)
            };
            replicas.iter().all(|replica| held(replica) == held(&replicas[0]))
        })
    }

    /// Whether a server has noticed only now that its log was damaged, and is to be rebuilt. Writing at the end may lead to a
    /// record that nobody had read since a bit of it turned.
    fn is_being_mended(&mut self) -> bool {
        self.broken.is_empty() && self.all_statuses().values().any(|status| !status.voting)
    }

    /// Now that all is well, a write must succeed.
    pub(super) fn write_everything(&mut self, ids: &[ServerId]) {
        for key in self.workload.keys().to_vec() {
            for id in ids {
                let mut written = self.write(&key, *id);
                if written.is_err() && self.is_being_mended() {
                    self.settle();
                    written = self.write(&key, *id);
                }
                if let Err(why) = written
                    && self.broken.is_empty()
                {
                    self.broken.push(format!("{key} cannot be written at {id} at the end: {why}"));
                }
            }
        }
    }

    fn write(&mut self, key: &Key, server: ServerId) -> Result<(), String> {
        let start = self.now;
        let (value, request) = self.workload.last_put(key);
        let answer = self.ask(server, request);
        let (outcome, written) = match answer {
            Ok(ClientResponse::Put { version, .. }) => (Outcome::Done(version), Ok(())),
            other => (Outcome::Unknown, Err(format!("{other:?}"))),
        };
        let (client, level, kind) = (NOBODY, Level::Quorum, Kind::Write(value));
        let (key, end) = (key.clone(), self.now);
        let operation = Operation { client, server, level, key, kind, start, end, outcome };
        self.workload.operations.push(operation);
        written
    }

    /// Every key, through every server: what was acknowledged must be there.
    pub(super) fn read_everything(&mut self, ids: &[ServerId]) {
        for key in self.workload.keys().to_vec() {
            for id in ids {
                let start = self.now;
                let (level, timeout) = (Level::Quorum, None);
                let request = ClientRequest::Get { key: key.clone(), level, timeout };
                let outcome = match self.ask(*id, request) {
                    Ok(ClientResponse::Get { cell }) => {
                        Outcome::Found(cell.map_or(0, |cell| value_of(&cell.content)))
                    }
                    other => {
                        if self.broken.is_empty() {
                            let what =
                                format!("{key} cannot be read at {id} at the end: {other:?}");
                            self.broken.push(what);
                        }
                        Outcome::Unknown
                    }
                };
                let (key, end) = (key.clone(), self.now);
                let (client, server, level, kind) = (NOBODY, *id, Level::Quorum, Kind::Read);
                let operation = Operation { client, server, level, key, kind, start, end, outcome };
                self.workload.operations.push(operation);
            }
        }
    }

    pub(super) fn judge(mut self) -> Report {
        let contents = self.all_contents();
        let statuses = self.all_statuses();
        let summary = &mut self.summary;
        for operation in &self.workload.operations {
            match (operation.kind, operation.outcome) {
                (Kind::Write(_), Outcome::Done(_)) => summary.writes_ok += 1,
                (Kind::Write(_), Outcome::Refused) => summary.writes_refused += 1,
                (Kind::Write(_), _) => summary.writes_unknown += 1,
                (Kind::Read, Outcome::Found(_)) => summary.reads_ok += 1,
                (Kind::Read, _) => summary.reads_failed += 1,
            }
        }
        summary.judged = self.workload.operations.len() as u64;
        summary.retries = self.workload.retries;
        summary.scanned = self.workload.scanned;
        summary.joins = self.lives;
        summary.virtual_ms = self.now / 1_000;
        for status in statuses.values() {
            // Of the last life of each server.
            let count = |name: &str| status.counters.get(name).copied().unwrap_or(0);
            summary.compactions += count("compactions");
            summary.loads_put_off += count("loads_put_off");
            summary.hints_kept += count("hints_kept");
            summary.hints_delivered += count("hints_delivered");
            summary.written_back += count("reads_written_back");
            summary.repaired += count("cells_repaired");
        }
        let mut violations = self.broken.clone();
        if let Some((server, folder)) = self.older {
            if self.servers[&server].node.as_ref().is_some_and(|node| node.folder() == folder) {
                violations.push(format!(
                    "server {server} has not noticed that its folder is an older copy"
                ));
            } else {
                self.summary.old_copies_found += 1;
            }
        }
        let in_hand = |(id, server): (&ServerId, &super::Server)| {
            (*id, server.node.as_ref().map_or(0, crate::node::Node::in_hand))
        };
        let in_hand = self.servers.iter().map(in_hand).collect();
        let evidence = Evidence {
            operations: &self.workload.operations,
            out_of_order: &self.workload.out_of_order,
            topology: &self.topology,
            contents: &contents,
            statuses: &statuses,
            observer: &self.observer,
            hints: &self.hints,
            in_hand: &in_hand,
            summary: &self.summary,
        };
        violations.extend(check(&evidence));
        let history = if self.options.trace { self.history(&contents) } else { String::new() };
        Report { summary: self.summary, violations, trace: self.trace, history }
    }
}
