//! The cluster file: who is in the cluster, and who keeps what. All servers must be started with the same.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::{Key, ServerId};
use crate::ring::{Partitioner, Placement, PlacementError, Topology, UnknownPartitioner};

/// Servers of one cluster at most. Every server knows all others; no larger one has been tried.
pub const MAX_SERVERS: usize = 1000;

/// Longest name of a cluster, in bytes.
const MAX_NAME: usize = 64;

/// A cluster that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its name: servers and folders of others are refused.
    pub name: String,
    /// Where keys lie.
    pub partitioner: Partitioner,
    /// The servers in ring order, with where they listen (host and port).
    pub servers: Vec<(ServerId, String)>,
    /// Where those of them that have an HTTP door have it.
    pub http: BTreeMap<ServerId, String>,
    /// Which server keeps what.
    pub topology: Topology,
}

/// The file as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterFile {
    name: String,
    replicas: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partitioner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    placement: Option<String>,
    servers: Vec<ServerEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerEntry {
    id: u16,
    address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http: Option<String>,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The file.
    #[error("cluster file {} cannot be read: {source}; check the path given with --cluster", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its text.
    #[error(
        "the cluster file is not as expected: {0}; it must be like \
         {{\"name\": \"demo\", \"replicas\": 3, \"servers\": [{{\"id\": 0, \"address\": \"127.0.0.1:9000\"}}, …]}}"
    )]
    Json(#[from] serde_json::Error),
    /// A file whose contents do not fit.
    #[error("{}: {source}", path.display())]
    In {
        /// Its path.
        path: PathBuf,
        /// What does not fit.
        source: Box<ClusterError>,
    },
    /// The name.
    #[error("the cluster's name has {length} bytes; choose one of 1 to {MAX_NAME}")]
    Name {
        /// Its length.
        length: usize,
    },
    /// The number of servers.
    #[error("there are {count} servers; a cluster has 1 to {MAX_SERVERS}")]
    Servers {
        /// How many.
        count: usize,
    },
    /// An id above what the wire carries.
    #[error("server {id} is one too many: ids are 0 to 32767")]
    Id {
        /// As it came.
        id: u16,
    },
    /// Two with one id.
    #[error("server {id} is there twice; give every server an id of its own")]
    SameId {
        /// Which.
        id: ServerId,
    },
    /// Two at one address.
    #[error("address {address} is there twice; give every server its own")]
    SameAddress {
        /// Which.
        address: String,
    },
    /// No host and port.
    #[error("'{address}' of server {id} is no address; write host:port, like 127.0.0.1:9000")]
    Address {
        /// Whose.
        id: ServerId,
        /// As it came.
        address: String,
    },
    /// Starts of some.
    #[error("only some servers have a range start; give every server one, or none for even ranges")]
    SomeStarts,
    /// No such partitioner.
    #[error(transparent)]
    Partitioner(#[from] UnknownPartitioner),
    /// No such placement, or one that cannot be.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// Ports above the last there is.
    #[error(
        "{servers} servers from port {base} on go beyond port 65535; choose a lower --port-base"
    )]
    Ports {
        /// How many.
        servers: usize,
        /// From where on.
        base: u16,
    },
}

/// A cluster on this machine, computed from a few numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalCluster {
    /// How many servers.
    pub servers: usize,
    /// Copies of each key; `None`: three, or as many as there are servers.
    pub replicas: Option<usize>,
    /// Where keys lie.
    pub partitioner: Partitioner,
    /// Who keeps the range of an owner.
    pub placement: Placement,
    /// The port of server 0; the others follow.
    pub port_base: u16,
}

impl Default for LocalCluster {
    /// The demo: four servers, three replicas, ports 9000 to 9003.
    fn default() -> LocalCluster {
        LocalCluster {
            servers: 4,
            replicas: None,
            partitioner: Partitioner::ByteOrdered,
            placement: Placement::Ring,
            port_base: 9000,
        }
    }
}

impl Cluster {
    /// Reads and checks a cluster file.
    pub fn read(path: &Path) -> Result<Cluster, ClusterError> {
        let failed = |source| ClusterError::Read { path: path.to_owned(), source };
        let inside = |source| ClusterError::In { path: path.to_owned(), source: Box::new(source) };
        Cluster::parse(&std::fs::read_to_string(path).map_err(failed)?).map_err(inside)
    }

    /// Checks the text of a cluster file.
    pub fn parse(text: &str) -> Result<Cluster, ClusterError> {
        let file: ClusterFile = serde_json::from_str(text)?;
        let partitioner =
            file.partitioner.as_deref().map_or(Ok(Partitioner::default()), str::parse)?;
        let placement = file.placement.as_deref().map_or(Ok(Placement::default()), str::parse)?;
        let given: Option<Vec<Key>> =
            file.servers.iter().map(|s| s.start.clone().map(Key::bound)).collect();
        let starts = match given {
            Some(starts) => starts,
            None if file.servers.iter().all(|server| server.start.is_none()) => {
                Placement::even_starts(file.servers.len())
            }
            None => return Err(ClusterError::SomeStarts),
        };
        let http = file.servers.iter().filter_map(|s| Some((ServerId(s.id), s.http.clone()?)));
        let http: BTreeMap<_, _> = http.collect();
        let servers = file.servers.into_iter().map(|server| (server.id, server.address)).collect();
        let cluster =
            Cluster::check(file.name, file.replicas, partitioner, placement, servers, &starts)?;
        cluster.with_http(http)
    }

    /// The same with HTTP doors.
    pub(crate) fn with_http(
        self,
        http: BTreeMap<ServerId, String>,
    ) -> Result<Cluster, ClusterError> {
        let mut addresses: BTreeSet<&String> =
            self.servers.iter().map(|(_, address)| address).collect();
        for (id, address) in &http {
            let address = address.clone();
            if port(&address).is_none() {
                return Err(ClusterError::Address { id: *id, address });
            }
        }
        if let Some(address) = http.values().find(|address| !addresses.insert(address)) {
            return Err(ClusterError::SameAddress { address: address.clone() });
        }
        Ok(Cluster { http, ..self })
    }

    /// A cluster on loopback. Four byte-ordered servers get the starts that cut three-digit decimal keys evenly.
    pub fn local(local: LocalCluster) -> Result<Cluster, ClusterError> {
        let LocalCluster { servers: count, replicas, partitioner, placement, port_base } = local;
        if count == 0 || count > MAX_SERVERS {
            return Err(ClusterError::Servers { count });
        }
        if usize::from(port_base) + count - 1 > usize::from(u16::MAX) {
            return Err(ClusterError::Ports { servers: count, base: port_base });
        }
        let servers =
            (0..count as u16).map(|id| (id, format!("127.0.0.1:{}", port_base + id))).collect();
        let starts = match (count, partitioner) {
            (4, Partitioner::ByteOrdered) => ["", "064", "128", "192"].map(Key::bound).to_vec(),
            _ => Placement::even_starts(count),
        };
        let replicas = replicas.unwrap_or(count.min(3));
        Cluster::check("demo".into(), replicas, partitioner, placement, servers, &starts)
    }

    pub(crate) fn check(
        name: String,
        replicas: usize,
        partitioner: Partitioner,
        placement: Placement,
        servers: Vec<(u16, String)>,
        starts: &[Key],
    ) -> Result<Cluster, ClusterError> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(ClusterError::Name { length: name.len() });
        }
        if servers.is_empty() || servers.len() > MAX_SERVERS {
            return Err(ClusterError::Servers { count: servers.len() });
        }
        let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for (id, address) in &servers {
            let (id, address) = (*id, address.clone());
            if id > i16::MAX as u16 {
                return Err(ClusterError::Id { id });
            }
            if port(&address).is_none() {
                return Err(ClusterError::Address { id: ServerId(id), address });
            }
            if !ids.insert(id) {
                return Err(ClusterError::SameId { id: ServerId(id) });
            }
            if addresses.replace(address.clone()).is_some() {
                return Err(ClusterError::SameAddress { address });
            }
        }
        let ids: Vec<_> = servers.iter().map(|(id, _)| ServerId(*id)).collect();
        let topology = placement.topology(&ids, starts, replicas)?;
        let servers = servers.into_iter().map(|(id, address)| (ServerId(id), address)).collect();
        Ok(Cluster { name, partitioner, servers, http: BTreeMap::new(), topology })
    }

    /// Where `server` listens.
    pub fn address(&self, server: ServerId) -> Option<&str> {
        self.servers.iter().find(|(id, _)| *id == server).map(|(_, address)| address.as_str())
    }

    /// The servers that listen on `port`; on one machine there is at most one.
    pub fn on_port(&self, wanted: u16) -> Vec<ServerId> {
        let on_port = self.servers.iter().filter(|(_, address)| port(address) == Some(wanted));
        on_port.map(|(id, _)| *id).collect()
    }
}

/// The port of `host:port`, unless that is none, or 0, which no other server could find.
pub(crate) fn port(address: &str) -> Option<u16> {
    let (host, port) = address.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let plausible = !host.is_empty() && (bracketed || !host.contains(':'));
    port.parse().ok().filter(|port| plausible && *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(servers: &str, rest: &str) -> Result<Cluster, ClusterError> {
        Cluster::parse(&format!(r#"{{"name": "c", "replicas": 1, "servers": [{servers}]{rest}}}"#))
    }

    #[test]
    fn a_file_like_the_demo_is_the_demo() {
        let text = r#"{"name": "demo", "replicas": 3, "partitioner": "byte-ordered", "placement": "ring",
            "servers": [{"id": 0, "address": "127.0.0.1:9000", "start": ""},
                        {"id": 1, "address": "127.0.0.1:9001", "start": "064"},
                        {"id": 2, "address": "127.0.0.1:9002", "start": "128"},
                        {"id": 3, "address": "127.0.0.1:9003", "start": "192"}]}"#;
        let demo = Cluster::local(LocalCluster::default()).unwrap();
        assert_eq!(Cluster::parse(text).unwrap(), demo);
        assert_eq!(demo.on_port(9002), [ServerId(2)]);
        assert_eq!(demo.address(ServerId(3)), Some("127.0.0.1:9003"));
    }

    #[test]
    fn starts_are_even_unless_given() {
        let two = r#"{"id": 0, "address": "a:1"}, {"id": 7, "address": "b:1"}"#;
        let cluster = file(two, "").unwrap();
        assert_eq!(cluster.topology.ranges()[1].start, Key::bound(vec![0x80, 0]));
        assert_eq!(cluster.on_port(1).len(), 2);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let one = r#"{"id": 0, "address": "a:1"}"#;
        for (servers, rest, expected) in [
            ("", "", "there are 0 servers"),
            (one, r#", "colour": 1"#, "unknown field `colour`"),
            (r#"{"id": 0, "address": "a"}"#, "", "write host:port"),
            (r#"{"id": 0, "address": "a:0"}"#, "", "write host:port"),
            (r#"{"id": 70000, "address": "a:1"}"#, "", "70000"),
            (r#"{"id": 40000, "address": "a:1"}"#, "", "0 to 32767"),
            (r#"{"id": 0, "address": "a:1"}, {"id": 0, "address": "a:2"}"#, "", "twice"),
            (r#"{"id": 0, "address": "a:1"}, {"id": 1, "address": "a:1"}"#, "", "twice"),
            (
                r#"{"id": 0, "address": "a:1", "start": ""}, {"id": 1, "address": "a:2"}"#,
                "",
                "only some servers",
            ),
            (r#"{"id": 0, "address": "a:1", "start": "x"}"#, "", "start at the empty key"),
            (one, r#", "placement": "square""#, "write ring or groups"),
            (one, r#", "partitioner": "square""#, "byte-ordered or hashed"),
        ] {
            let error = file(servers, rest).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} should say: {expected}");
        }
        let local = LocalCluster { servers: 2, port_base: 65535, ..LocalCluster::default() };
        assert!(matches!(Cluster::local(local), Err(ClusterError::Ports { .. })));
        let local = LocalCluster { replicas: Some(5), ..LocalCluster::default() };
        assert!(Cluster::local(local).is_err());
        assert!(Cluster::read(Path::new("/nowhere")).unwrap_err().to_string().contains("/nowhere"));
    }
}
