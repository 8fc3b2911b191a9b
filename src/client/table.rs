//! What a client knows of a cluster: which servers there are, and which of them keep a key.

use std::collections::BTreeMap;

use crate::model::{ClientRequest, Key, ServerId, TopologyView};
use crate::ring::Partitioner;

/// A table of servers and ranges, as some server has told it. One that is out of date is never wrong, only slower:
/// every server takes every call.
#[derive(Clone, Debug)]
pub struct Table {
    view: TopologyView,
    /// `None`: one that this program does not know.
    partitioner: Option<Partitioner>,
    addresses: BTreeMap<ServerId, String>,
}

impl Table {
    /// From what a server has answered.
    pub fn new(view: TopologyView) -> Table {
        let address = |server: &crate::model::ViewServer| (server.server, server.address.clone());
        let addresses = view.servers.iter().map(address).collect();
        Table { partitioner: view.partitioner.parse().ok(), addresses, view }
    }

    /// As it was told.
    pub fn view(&self) -> &TopologyView {
        &self.view
    }

    /// Where keys lie.
    pub fn partitioner(&self) -> Option<Partitioner> {
        self.partitioner
    }

    /// Where a server listens.
    pub fn address(&self, server: ServerId) -> Option<&str> {
        self.addresses.get(&server).map(String::as_str)
    }

    /// All addresses, by the servers' ids.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.addresses.values().map(String::as_str)
    }

    /// The replicas of a key, the owner first; none if they cannot be told.
    pub fn replicas(&self, key: &Key) -> &[ServerId] {
        match self.partitioner {
            Some(partitioner) => self.replicas_at(&partitioner.place(key)),
            None => &[],
        }
    }

    /// The replicas that a request concerns first; none if it is for any server.
    pub fn concerned(&self, request: &ClientRequest) -> &[ServerId] {
        match request {
            ClientRequest::Put(put) => self.replicas(&put.key),
            ClientRequest::Prepare { key, .. } | ClientRequest::Get { key, .. } => {
                self.replicas(key)
            }
            ClientRequest::Scan { from, .. } => self.replicas_at(from),
            ClientRequest::Status | ClientRequest::Inspect { .. } | ClientRequest::Topology => &[],
        }
    }

    fn replicas_at(&self, place: &Key) -> &[ServerId] {
        let ranges = &self.view.ranges;
        let behind = ranges.partition_point(|range| *range.start <= *place.as_bytes());
        behind.checked_sub(1).map_or(&[], |index| &ranges[index].replicas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Epoch, ViewRange, ViewServer};

    fn table(partitioner: &str) -> Table {
        let server = |id: u16| ViewServer { server: ServerId(id), address: format!("h:{id}") };
        let range = |start: &'static [u8], replicas: [u16; 2]| ViewRange {
            start: start.into(),
            epoch: Epoch(1),
            replicas: replicas.map(ServerId).to_vec(),
        };
        Table::new(TopologyView {
            cluster: "c".to_owned(),
            servers: (0..3).map(server).collect(),
            ranges: vec![range(b"", [0, 1]), range(b"m", [1, 2]), range(b"\x80", [2, 0])],
            partitioner: partitioner.to_owned(),
        })
    }

    #[test]
    fn a_key_is_found_where_the_servers_keep_it() {
        let ordered = table("byte-ordered");
        assert_eq!(ordered.replicas(&Key::bound("a")), [ServerId(0), ServerId(1)]);
        assert_eq!(ordered.replicas(&Key::bound("m")), [ServerId(1), ServerId(2)]);
        assert_eq!(ordered.replicas(&Key::bound(vec![0xff])), [ServerId(2), ServerId(0)]);
        let hashed = table("hashed");
        let key = Key::bound("key1");
        let place = Partitioner::Hashed.place(&key);
        assert_eq!(hashed.replicas(&key), ordered.replicas(&place));
        assert!(table("by the moon").replicas(&key).is_empty());
        assert!(Table::new(TopologyView::default()).replicas(&key).is_empty());
    }
}
