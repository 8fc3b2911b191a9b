//! The end of a run: everything is asked once more, and judged.

use std::collections::{BTreeMap, BTreeSet};

use super::{CLIENT_PATIENCE, NOBODY, QUIET, SETTLING, World};
use crate::model::{
    Cell, ClientRequest, ClientResponse, InspectSource, Key, Level, ServerId, Status,
};
use crate::node::Node;
use crate::sim::Report;
use crate::sim::history::{Kind, Operation, Outcome, final_entry};
use crate::sim::invariants::{Evidence, check, check_settled};
use crate::sim::workload::value_of;
use crate::storage::{Command, Completion, Engine, Log, MemoryDisk, Ticket};

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
            self.replicas(key).iter().map(held).collect::<Vec<_>>()
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

    /// Who keeps the key.
    pub(super) fn replicas(&self, key: &Key) -> &[ServerId] {
        &self.topology.range_of(&self.shape.partitioner.place(key)).replicas
    }

    /// The cluster comes to rest by itself, before anyone writes or reads anything, and has lost nothing.
    pub(super) fn settle_alone(&mut self) {
        let settled = self.settle();
        if !self.broken.is_empty() {
            return;
        }
        if let Err(why) = settled {
            self.unsettled.push(format!("settled: not within {} s: {why}", SETTLING / 1_000_000));
            return;
        }
        self.summary.settled += 1;
        let mut violations = self.unsettled_now();
        if !violations.is_empty() {
            self.rest();
            violations = self.unsettled_now();
        }
        let when = "before anything was overwritten";
        self.unsettled.extend(violations.into_iter().map(|what| format!("{what} ({when})")));
    }

    /// What does not hold of a cluster that has come to rest.
    fn unsettled_now(&mut self) -> Vec<String> {
        let (contents, statuses) = (self.all_contents(), self.all_statuses());
        let in_hand = self.in_hand();
        check_settled(&self.evidence(&contents, &statuses, &in_hand))
    }

    /// Lets time pass until nothing is left to be mended, or for long enough; then what there was still to do.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        let until = self.now + SETTLING;
        let mut quiet_since = None;
        let mut why = String::new();
        while self.now < until && self.broken.is_empty() {
            match (self.look(), quiet_since) {
                (Ok(mended), Some((since, before))) if mended == before => {
                    if self.now - since >= QUIET {
                        return Ok(());
                    }
                }
                (Ok(mended), _) => {
                    why = "comparisons find differences, and all replicas are the same".to_owned();
                    quiet_since = Some((self.now, mended));
                }
                (Err(what), _) => {
                    why = what;
                    quiet_since = None;
                }
            }
            let pause = self.now + 500_000;
            while self.now < pause {
                self.turn();
            }
        }
        Err(why)
    }

    /// Everyone votes and sees everyone, no hint waits, no mark, replicas hold the same; else what of it is missing. How often
    /// comparisons have found a difference until now.
    fn look(&mut self) -> Result<u64, String> {
        let statuses = self.all_statuses();
        for (server, status) in &statuses {
            if !status.voting {
                return Err(format!("server {server} does not vote: {}", status.state));
            }
            let peers = &status.peers;
            if let Some(peer) = peers.iter().find(|peer| !peer.alive || !peer.voting) {
                return Err(format!("server {server} does not believe {} alive", peer.server));
            }
            if let Some(peer) = peers.iter().find(|peer| peer.hints > 0) {
                return Err(format!("server {server} keeps hints for {}", peer.server));
            }
            let waiting = status.scrub.as_ref().map_or(0, |scrub| scrub.waiting);
            if waiting > 0 {
                return Err(format!("server {server} cannot read {waiting} records"));
            }
            if let Some(file) = self.rotten(*server) {
                return Err(format!("server {server} keeps {file}, in which something has rotted"));
            }
            let marks = self.servers[server].node.as_ref().map(Node::marks).unwrap_or_default();
            if let Some((target, start, _)) = marks.first() {
                return Err(format!("server {server} keeps a mark for {target}, range '{start}'"));
            }
        }
        let mut contents = BTreeMap::new();
        for id in statuses.keys().copied() {
            // An inspection that meets a turned bit is given up, and the key is fetched from another replica.
            contents.insert(id, self.contents(id)?);
        }
        for key in self.workload.keys() {
            let held = |replica: &ServerId| {
                contents[replica].iter().find(|(held, _)| held == key).map(|(_, cell)| cell)
            };
            let cells: Vec<_> = self.replicas(key).iter().map(held).collect();
            if cells.iter().any(|cell| *cell != cells[0]) {
                return Err(format!(
                    "replicas {:?} of key {key} hold {cells:?}",
                    self.replicas(key)
                ));
            }
        }
        let differed = |status: &Status| status.counters.get("digests_differed").copied();
        Ok(statuses.values().filter_map(differed).sum())
    }

    /// A sealed segment of this server that is damaged, where servers look for such.
    fn rotten(&mut self, server: ServerId) -> Option<String> {
        if !self.scrubs {
            return None;
        }
        let server = self.servers.get_mut(&server)?;
        let (node, engine) = (server.node.as_ref()?, server.engine.as_mut()?);
        let files = engine.disk_mut().files().into_iter().map(|(name, _)| name);
        let number =
            |name: String| name.strip_prefix("cells/")?.strip_suffix(".log")?.parse::<u32>().ok();
        let mut segments: Vec<_> = files.filter_map(number).collect();
        segments.sort_unstable();
        // The last one is written to.
        segments.pop();
        segments
            .into_iter()
            .find(|segment| node.has_segment(*segment) && !is_sound(engine, *segment))
            .map(|segment| Log::Cells.segment_file(segment))
    }

    /// Now that all is well, a write must succeed.
    pub(super) fn write_everything(&mut self, ids: &[ServerId]) {
        for key in self.workload.keys().to_vec() {
            for id in ids {
                let mut written = self.write(&key, *id);
                if written.is_err() {
                    self.rest();
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

    /// Before something is tried once more that should succeed and did not: a message of long ago, come only now, may have said
    /// that a server does not vote, until its next sign of life; and a server that met a turned bit may be on its way back.
    fn rest(&mut self) {
        // It has had its verdict.
        let _ = self.settle();
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
                let mut answer = self.ask(*id, request.clone());
                if answer.is_err() {
                    self.rest();
                    answer = self.ask(*id, request);
                }
                let outcome = match answer {
                    Ok(ClientResponse::Get { cell, .. }) => {
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
        summary.tickets_reused = self.workload.reused;
        summary.tickets_refused = self.workload.reuses_refused;
        summary.scanned = self.workload.scanned;
        summary.scanned_at_one = self.workload.scanned_at_one;
        summary.other_shapes = u64::from(!self.shape.is_demo());
        summary.long_runs = u64::from(self.shape.long);
        summary.fallen_back = self.sides.fallen_back();
        summary.joins = self.lives;
        summary.virtual_ms = self.now / 1_000;
        for status in statuses.values() {
            // Of the last life of each server.
            let count = |name: &str| status.counters.get(name).copied().unwrap_or(0);
            summary.compactions += count("compactions");
            summary.loads_put_off += count("loads_put_off");
            summary.hints_kept += count("hints_kept");
            summary.let_go += count("operations_let_go");
            summary.overloaded += count("stores_overloaded");
            summary.hints_delivered += count("hints_delivered");
            summary.written_back += count("reads_written_back");
            summary.repaired += count("cells_repaired");
            summary.scrubbed += count("segments_damaged");
        }
        let mut violations = self.broken.clone();
        violations.append(&mut self.unsettled);
        violations.append(&mut self.unavailable);
        violations.append(&mut self.unnamed);
        if let Some((server, folder)) = self.older {
            if self.servers[&server].node.as_ref().is_some_and(|node| node.folder() == folder) {
                violations.push(format!(
                    "server {server} has not noticed that its folder is an older copy"
                ));
            } else {
                self.summary.old_copies_found += 1;
            }
        }
        let in_hand = self.in_hand();
        violations.extend(check(&self.evidence(&contents, &statuses, &in_hand)));
        let history = if self.options.trace { self.history(&contents) } else { String::new() };
        let (shape, summary) = (self.shape, self.summary);
        Report { shape, summary, violations, trace: self.trace, history }
    }

    fn in_hand(&self) -> BTreeMap<ServerId, usize> {
        let in_hand = |server: &super::Server| server.node.as_ref().map_or(0, Node::in_hand);
        self.servers.iter().map(|(id, server)| (*id, in_hand(server))).collect()
    }

    fn evidence<'a>(
        &'a self,
        contents: &'a BTreeMap<ServerId, Vec<(Key, Cell)>>,
        statuses: &'a BTreeMap<ServerId, Status>,
        in_hand: &'a BTreeMap<ServerId, usize>,
    ) -> Evidence<'a> {
        Evidence {
            operations: &self.workload.operations,
            out_of_order: &self.workload.out_of_order,
            disowned: &self.workload.disowned,
            doubled: &self.workload.doubled,
            topology: &self.topology,
            partitioner: self.shape.partitioner,
            contents,
            statuses,
            observer: &self.observer,
            sides: &self.sides,
            hints: &self.hints,
            in_hand,
            summary: &self.summary,
        }
    }
}

fn is_sound(engine: &mut Engine<MemoryDisk>, segment: u32) -> bool {
    let (log, ticket, strict, mut offset) = (Log::Cells, Ticket(0), true, 0);
    loop {
        let mut completions = Vec::new();
        engine
            .execute([Command::Survey { log, ticket, segment, offset, strict }], &mut completions);
        match completions.pop() {
            Some(Completion::Surveyed { result: Ok(_), next: Some(next), .. }) => offset = next,
            Some(Completion::Surveyed { result, .. }) => return result.is_ok(),
            _ => return false,
        }
    }
}
