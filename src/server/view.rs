//! A cluster from the environment of a causal store's node: `K`, `VIEW` and `ip_port`.
//!
//! `VIEW` lists where the nodes speak HTTP, which is all that their users know. Each speaks Thrift on the port
//! [`THRIFT_OFFSET`] above. The nodes make disjoint groups of `K` in the order of their addresses, so every node computes
//! the same cluster however its list is sorted; keys are placed by hash. A node that is alone in its group starts empty
//! if its folder is: the environment has no word for an operator's consent, and there is nobody who could know better.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::{Cluster, ClusterError, port};
use crate::model::ServerId;
use crate::ring::{Partitioner, Placement};

/// From a node's HTTP port to its Thrift port.
const THRIFT_OFFSET: u16 = 1000;

/// What the environment says.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) cluster: Cluster,
    pub(crate) server: ServerId,
    /// It is alone in its group: there is nobody to ask what it may have lost.
    pub(crate) alone: bool,
}

/// Why the environment makes no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// Without a view a node would wait to be added.
    #[error(
        "ip_port is {own}, but there is no VIEW: a node that waits to be added needs moving data, which comes with a \
         later version; start all nodes with the same VIEW"
    )]
    NoView {
        /// The node's address.
        own: String,
    },
    /// A view without this node.
    #[error("VIEW does not name this node, {own} (ip_port)")]
    NotInView {
        /// The node's address.
        own: String,
    },
    /// No address.
    #[error(
        "VIEW or ip_port has '{address}', which is no ip:port, or has no Thrift port {THRIFT_OFFSET} above it"
    )]
    Address {
        /// As given.
        address: String,
    },
    /// No number of replicas.
    #[error("K is '{text}'; write how many nodes keep each key, at least 1")]
    Replicas {
        /// As given.
        text: String,
    },
    /// It makes no cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// The cluster that the environment describes; `None`: it describes none.
pub(crate) fn from_environment() -> Result<Option<View>, ViewError> {
    let get = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    match get("ip_port") {
        None => Ok(None),
        Some(own) => of(&own, get("VIEW").as_deref(), get("K").as_deref()).map(Some),
    }
}

fn of(own: &str, view: Option<&str>, replicas: Option<&str>) -> Result<View, ViewError> {
    let own = own.trim().to_owned();
    let Some(view) = view else { return Err(ViewError::NoView { own }) };
    let mut nodes = BTreeSet::new();
    for address in view.split(',').map(str::trim).filter(|address| !address.is_empty()) {
        nodes.insert(address.to_owned());
    }
    let place = nodes.iter().position(|node| *node == own);
    let Some(place) = place else { return Err(ViewError::NotInView { own }) };
    let text = replicas.unwrap_or("1");
    let replicas = text.trim().parse().ok().filter(|replicas| *replicas > 0);
    let replicas: usize = replicas.ok_or_else(|| ViewError::Replicas { text: text.to_owned() })?;
    let (mut servers, mut http) = (Vec::new(), BTreeMap::new());
    for (id, address) in nodes.into_iter().enumerate() {
        let id = id as u16;
        servers.push((id, thrift_address(&address)?));
        http.insert(ServerId(id), address);
    }
    let starts = Placement::even_starts(servers.len());
    let replicas = replicas.min(servers.len());
    let (partitioner, placement) = (Partitioner::Hashed, Placement::Groups);
    let name = "view".to_owned();
    let cluster = Cluster::check(name, replicas, partitioner, placement, servers, &starts)?;
    let server = ServerId(place as u16);
    let alone = cluster.topology.neighbours(server).is_empty();
    Ok(View { cluster: cluster.with_http(http)?, server, alone })
}

fn thrift_address(address: &str) -> Result<String, ViewError> {
    let bad = || ViewError::Address { address: address.to_owned() };
    let thrift = port(address).and_then(|port| port.checked_add(THRIFT_OFFSET)).ok_or_else(bad)?;
    let (host, _) = address.rsplit_once(':').ok_or_else(bad)?;
    Ok(format!("{host}:{thrift}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_make_groups_of_k_whatever_the_order_of_the_view() {
        let one =
            of("127.0.0.1:8083", Some("127.0.0.1:8083,127.0.0.1:8081,127.0.0.1:8082"), Some("2"));
        let two =
            of("127.0.0.1:8081", Some("127.0.0.1:8081, 127.0.0.1:8082,127.0.0.1:8083"), Some("2"));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(one.cluster, two.cluster);
        assert_eq!((one.server, two.server), (ServerId(2), ServerId(0)));
        assert_eq!((one.alone, two.alone), (true, false));
        assert_eq!(one.cluster.address(ServerId(2)), Some("127.0.0.1:9083"));
        let sets: BTreeSet<BTreeSet<u16>> = one
            .cluster
            .topology
            .ranges()
            .iter()
            .map(|range| range.replicas.iter().map(|replica| replica.0).collect())
            .collect();
        assert_eq!(sets, BTreeSet::from([BTreeSet::from([0, 1]), BTreeSet::from([2])]));
    }

    #[test]
    fn what_is_wrong_with_the_environment_is_said() {
        let view = Some("127.0.0.1:8081");
        let text = |result: Result<View, ViewError>| result.unwrap_err().to_string();
        assert!(text(of("127.0.0.1:8081", None, None)).contains("there is no VIEW"));
        assert!(text(of("127.0.0.1:8082", view, None)).contains("does not name this node"));
        assert!(text(of("127.0.0.1:8081", view, Some("0"))).contains("K is '0'"));
        assert!(text(of("8081", Some("8081"), None)).contains("no ip:port"));
        assert!(text(of("h:65000", Some("h:65000"), None)).contains("no Thrift port"));
        // More copies than nodes: all of them keep everything.
        assert!(of("127.0.0.1:8081", view, Some("3")).is_ok());
    }
}
