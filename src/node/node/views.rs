//! What the node tells people and tools of itself.

use bytes::Bytes;

use super::{Node, RosterAt};
use crate::model::{
    DamagedRecord, DiskState, Key, PeerStatus, ScrubStatus, ServerId, Status, TopologyView,
    ViewRange, ViewServer,
};
use crate::node::heal::Finding;

/// Bytes of a key that are shown of a damaged record.
const SHOWN: usize = 256;

fn shortened(key: &Key) -> Bytes {
    let bytes = key.to_bytes();
    bytes.slice(..SHOWN.min(bytes.len()))
}

impl Node {
    /// What it believes of that server's disk.
    pub(crate) fn disk_of(&self, server: ServerId) -> DiskState {
        if server == self.config.server {
            return self.health.state().0;
        }
        self.membership.disk(server).0
    }

    /// The servers whose clocks it calls wrong.
    pub(crate) fn bad_clocks(&self) -> Vec<ServerId> {
        self.clocks.bad().collect()
    }

    pub(super) fn status(&self) -> Status {
        let (cells, hints) = (self.replica.stats(), self.handoff.stats());
        let roster = RosterAt { membership: &self.membership, now: self.now.instant };
        let peer = |server: ServerId| PeerStatus {
            server,
            address: self.config.addresses.get(&server).cloned().unwrap_or_default(),
            alive: roster.is_up(server),
            voting: self.membership.is_voting(server),
            incarnation: self.membership.incarnation(server),
            hints: self.handoff.count(server),
            disk: self.describe_peers_disk(server),
            clock_offset_ms: self.clocks.offset(server, self.now).map(|micros| micros / 1_000),
        };
        let counters = self.out.counters().iter();
        let mut counters: std::collections::BTreeMap<_, _> =
            counters.map(|(name, count)| ((*name).to_owned(), *count)).collect();
        counters.insert("compactions".to_owned(), cells.compactions + hints.compactions);
        counters.insert("syncs".to_owned(), cells.syncs + hints.syncs);
        Status {
            server: self.config.server,
            incarnation: self.keeper.identity.incarnation,
            voting: self.is_voting(),
            state: self
                .join
                .as_ref()
                .map(|join| join.describe(&self.config, &self.keeper.identity, &roster))
                .unwrap_or_default(),
            peers: self.membership.servers().map(peer).collect(),
            keys: cells.keys,
            tombstones: cells.tombstones,
            log_bytes: cells.log_bytes,
            hint_log_bytes: hints.log_bytes,
            memory_bytes: cells.memory_bytes,
            memory_budget: self.config.cells.memory,
            counters,
            disk: self.describe_disk(),
            scrub: Some(self.scrub_status()),
            clock: self.clocks.describe(),
        }
    }

    fn scrub_status(&self) -> ScrubStatus {
        let mark = self.scrub.mark();
        let finding = |finding: &Finding| DamagedRecord {
            file: finding.at.0.clone(),
            offset: finding.at.1.into(),
            key: shortened(&self.config.partitioner.key(&finding.key)),
            found: finding.found,
            healed: finding.healed,
        };
        ScrubStatus {
            rate: self.config.scrub_rate,
            began: mark.began,
            ended: mark.ended,
            left: self.replica.scrub_left((mark.done, mark.end)),
            waiting: self.heal.waiting(),
            recent: self.heal.recent().map(finding).collect(),
        }
    }

    pub(super) fn topology(&self) -> TopologyView {
        let addresses = self.config.addresses.iter();
        let range = |range: &crate::ring::Range| ViewRange {
            start: range.start.to_bytes(),
            epoch: range.epoch,
            replicas: range.replicas.clone(),
        };
        TopologyView {
            cluster: self.config.cluster.clone(),
            servers: addresses
                .map(|(server, address)| ViewServer { server: *server, address: address.clone() })
                .collect(),
            ranges: self.config.topology.ranges().iter().map(range).collect(),
            partitioner: self.config.partitioner.name().to_owned(),
        }
    }

    fn describe_disk(&self) -> Option<String> {
        let (state, since) = self.health.state();
        state.describe(since)
    }

    fn describe_peers_disk(&self, server: ServerId) -> Option<String> {
        let (state, since) = self.membership.disk(server);
        state.describe(since)
    }
}
