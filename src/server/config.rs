//! What one server is started with: flags, environment and cluster file, made into one checked value.

use std::io;
use std::path::PathBuf;

use clap::Args;

use super::cluster::{Cluster, ClusterError, LocalCluster, port};
use super::units;
use super::view::{self, ViewError};
use crate::budget::Budget;
use crate::model::ServerId;
use crate::ring::{Partitioner, Placement};
use crate::storage::SyncPolicy;

/// Segments shorter than this would be all heads and no records.
const MIN_SEGMENT: u64 = 64 << 10;

/// The most the storage engine takes.
const MAX_SEGMENT: u64 = 1 << 30;

/// Longest shared secret, in bytes.
const MAX_SECRET: usize = 1024;

/// The flags of `chord-server`. Each may come from the environment instead.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// The server's port; it says which server of the cluster this is
    #[arg(env = "CHORD_PORT")]
    pub port: Option<u16>,

    /// Cluster file (JSON): the servers, their addresses and ranges. Without it: a demo cluster on this machine
    #[arg(long, value_name = "FILE", env = "CHORD_CLUSTER")]
    pub cluster: Option<PathBuf>,

    /// The server's id in the cluster file, instead of its port
    #[arg(long, value_name = "N", env = "CHORD_ID", conflicts_with = "port")]
    pub id: Option<u16>,

    /// Address to listen on, if not the one in the cluster file
    #[arg(long, value_name = "HOST:PORT", env = "CHORD_LISTEN")]
    pub listen: Option<String>,

    /// Data folder [default: data/ and the id]
    #[arg(long, value_name = "FOLDER", env = "CHORD_DATA")]
    pub data: Option<PathBuf>,

    /// When a write counts as stored: 'always' after a sync; '100ms' after the write, synced that often
    #[arg(long, value_name = "POLICY", env = "CHORD_SYNC", default_value = "always",
        value_parser = units::sync_policy)]
    pub sync: SyncPolicy,

    /// Values kept in memory at most; the others stay on disk
    #[arg(long, value_name = "SIZE", env = "CHORD_MEMORY", default_value = "256MiB",
        value_parser = units::size)]
    pub memory: u64,

    /// Length at which a log segment is sealed
    #[arg(long, value_name = "SIZE", env = "CHORD_SEGMENT_SIZE", default_value = "64MiB",
        value_parser = units::size)]
    pub segment_size: u64,

    /// How fast sealed segments are read through once a day, to find what has rotted; 0: not at all
    #[arg(long, value_name = "RATE", env = "CHORD_SCRUB_RATE", default_value = "4MiB/s",
        value_parser = units::rate)]
    pub scrub_rate: u64,

    /// Vote although not enough peers can be asked for what this server may have lost. The only way to start with
    /// one replica; otherwise acknowledged writes may be lost
    #[arg(long, env = "CHORD_ACCEPT_LOSS")]
    pub accept_loss: bool,

    /// File with the secret that all servers of the cluster share; needed for peers on other hosts
    #[arg(long, value_name = "FILE", env = "CHORD_SECRET_FILE")]
    pub secret_file: Option<PathBuf>,

    /// Tell the secret to servers of release 0.1, which do not know another way: for the time of an upgrade
    #[arg(long, env = "CHORD_SECRET_IN_CLEAR", requires = "secret_file")]
    pub secret_in_clear: bool,

    /// Connections at most; more are closed at once
    #[arg(long, value_name = "N", env = "CHORD_MAX_CONNECTIONS", default_value_t = 4096)]
    pub max_connections: usize,

    /// HTTP door: a port or host:port; 'off': none, although the cluster file has one [default: the cluster file's]
    #[arg(long, value_name = "PORT", env = "CHORD_HTTP")]
    pub http: Option<String>,

    /// HTTP connections at most; more wait
    #[arg(long, value_name = "N", env = "CHORD_MAX_HTTP_CONNECTIONS", default_value_t = 512)]
    pub max_http_connections: usize,

    /// Without a cluster file: number of servers [default: 4]
    #[arg(long, value_name = "N", env = "CHORD_NODES", conflicts_with = "cluster")]
    pub nodes: Option<usize>,

    /// Without a cluster file: copies of each key [default: 3, or as many as there are servers]
    #[arg(long, value_name = "K", env = "CHORD_REPLICAS", conflicts_with = "cluster")]
    pub replicas: Option<usize>,

    /// Without a cluster file: byte-ordered or hashed [default: byte-ordered]
    #[arg(long, value_name = "P", env = "CHORD_PARTITIONER", conflicts_with = "cluster")]
    pub partitioner: Option<Partitioner>,

    /// Without a cluster file: ring or groups [default: ring]
    #[arg(long, value_name = "P", env = "CHORD_PLACEMENT", conflicts_with = "cluster")]
    pub placement: Option<Placement>,

    /// Without a cluster file: port of server 0 [default: 9000]
    #[arg(long, value_name = "PORT", env = "CHORD_PORT_BASE", conflicts_with = "cluster")]
    pub port_base: Option<u16>,
}

/// What a server needs to know to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which server this is.
    pub server: ServerId,
    /// All of them.
    pub cluster: Cluster,
    /// Where it listens: host and port.
    pub listen: String,
    /// Its data folder.
    pub data: PathBuf,
    /// When a write counts as stored.
    pub sync: SyncPolicy,
    /// Bytes of values in memory at most.
    pub memory: u64,
    /// Bytes at which a segment is sealed.
    pub segment_bytes: u32,
    /// Bytes a second; see [`crate::node::Config::scrub_rate`].
    pub scrub_rate: u64,
    /// See [`crate::node::Config::accept_loss`].
    pub accept_loss: bool,
    /// What peers must know.
    pub secret: Option<String>,
    /// It is told to servers of release 0.1.
    pub secret_in_clear: bool,
    /// Connections at most.
    pub max_connections: usize,
    /// Where its HTTP door is to be, if anywhere.
    pub http: Option<String>,
    /// HTTP connections at most.
    pub max_http_connections: usize,
    /// What the process may have in hand, over all its endpoints.
    pub budget: Budget,
}

/// Why the flags make no server.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Neither port nor id.
    #[error("which server is this? give its port, like 'chord-server 9000', or --id")]
    WhichServer,
    /// The port of none.
    #[error("no server of cluster {cluster:?} has port {port}; its addresses are {addresses}")]
    NoSuchPort {
        /// As given.
        port: u16,
        /// The cluster's name.
        cluster: String,
        /// Those there are.
        addresses: String,
    },
    /// The port of several.
    #[error("several servers have port {port}; say which one this is with --id")]
    SeveralOnPort {
        /// As given.
        port: u16,
    },
    /// The id of none.
    #[error("there is no server {id} in cluster {cluster:?}; give one of its ids with --id")]
    NoSuchId {
        /// As given.
        id: u16,
        /// The cluster's name.
        cluster: String,
    },
    /// `--listen`.
    #[error("--listen '{listen}' is no address; write host:port, like 0.0.0.0:9000")]
    Listen {
        /// As given.
        listen: String,
    },
    /// `--segment-size`.
    #[error("--segment-size is {size} bytes; choose 64KiB to 1GiB")]
    SegmentSize {
        /// As given.
        size: u64,
    },
    /// `--http`.
    #[error("--http '{http}' is no address; write a port, host:port, or off")]
    Http {
        /// As given.
        http: String,
    },
    /// `--max-connections` or `--max-http-connections`.
    #[error("--max-connections or --max-http-connections is 0; choose at least 1")]
    NoConnections,
    /// The environment of a causal store's node.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The secret cannot be read.
    #[error("secret file {} cannot be read: {source}; check the path and who may read it", path.display())]
    ReadSecret {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The secret is none.
    #[error("secret file {} must hold 1 to {MAX_SECRET} bytes of text on one line", path.display())]
    Secret {
        /// Which file.
        path: PathBuf,
    },
}

impl Flags {
    /// The configuration they ask for. Reads the cluster file and the secret; touches nothing else.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let view = match (self.port, self.id, &self.cluster) {
            (None, None, None) => view::from_environment()?,
            _ => None,
        };
        let cluster = match (&self.cluster, &view) {
            (Some(path), _) => Cluster::read(path)?,
            (None, Some(view)) => view.cluster.clone(),
            (None, None) => {
                let demo = LocalCluster::default();
                Cluster::local(LocalCluster {
                    servers: self.nodes.unwrap_or(demo.servers),
                    replicas: self.replicas,
                    partitioner: self.partitioner.unwrap_or_default(),
                    placement: self.placement.unwrap_or_default(),
                    port_base: self.port_base.unwrap_or(demo.port_base),
                })?
            }
        };
        let alone = view.as_ref().is_some_and(|view| view.alone);
        let server = match view {
            Some(view) => view.server,
            None => self.which(&cluster)?,
        };
        let listen = match (self.listen, cluster.address(server)) {
            (Some(listen), _) if port(&listen).is_none() => {
                return Err(ConfigError::Listen { listen });
            }
            (Some(listen), _) => listen,
            (None, Some(address)) => address.to_owned(),
            (None, None) => return Err(ConfigError::WhichServer),
        };
        let size = self.segment_size;
        if !(MIN_SEGMENT..=MAX_SEGMENT).contains(&size) {
            return Err(ConfigError::SegmentSize { size });
        }
        if self.max_connections == 0 || self.max_http_connections == 0 {
            return Err(ConfigError::NoConnections);
        }
        let http = match self.http {
            None => cluster.http.get(&server).cloned(),
            Some(text) if text == "off" => None,
            Some(text) => Some(http_address(text, &listen)?),
        };
        Ok(Config {
            server,
            http,
            max_http_connections: self.max_http_connections,
            cluster,
            listen,
            data: self.data.unwrap_or_else(|| PathBuf::from(format!("data/{server}"))),
            sync: self.sync,
            memory: self.memory,
            segment_bytes: size as u32,
            scrub_rate: self.scrub_rate,
            accept_loss: self.accept_loss || alone,
            secret: self.secret_file.map(read_secret).transpose()?,
            secret_in_clear: self.secret_in_clear,
            budget: Budget::default(),
            max_connections: self.max_connections,
        })
    }

    fn which(&self, cluster: &Cluster) -> Result<ServerId, ConfigError> {
        let name = || cluster.name.clone();
        match (self.id, self.port) {
            (Some(id), _) => match cluster.address(ServerId(id)) {
                Some(_) => Ok(ServerId(id)),
                None => Err(ConfigError::NoSuchId { id, cluster: name() }),
            },
            (None, Some(port)) => match cluster.on_port(port)[..] {
                [server] => Ok(server),
                [] => {
                    let shown = cluster.servers.iter().take(8).map(|(_, address)| address.as_str());
                    let mut addresses = shown.collect::<Vec<_>>().join(", ");
                    if cluster.servers.len() > 8 {
                        addresses.push_str(", …");
                    }
                    Err(ConfigError::NoSuchPort { port, cluster: name(), addresses })
                }
                _ => Err(ConfigError::SeveralOnPort { port }),
            },
            (None, None) => Err(ConfigError::WhichServer),
        }
    }
}

/// A port alone is one of the host that the server listens on.
fn http_address(text: String, listen: &str) -> Result<String, ConfigError> {
    let host = listen.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
    let address = match text.parse::<u16>() {
        Ok(_) => format!("{host}:{text}"),
        Err(_) => text.clone(),
    };
    match port(&address) {
        Some(_) => Ok(address),
        None => Err(ConfigError::Http { http: text }),
    }
}

fn read_secret(path: PathBuf) -> Result<String, ConfigError> {
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(ConfigError::ReadSecret { path, source }),
    };
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() || secret.len() > MAX_SECRET || secret.contains('\n') {
        return Err(ConfigError::Secret { path });
    }
    Ok(secret.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        flags: Flags,
    }

    fn resolve(arguments: &str) -> Result<Config, String> {
        let arguments = ["chord-server"].into_iter().chain(arguments.split_whitespace());
        let program = Program::try_parse_from(arguments).map_err(|error| error.to_string())?;
        program.flags.resolve().map_err(|error| error.to_string())
    }

    #[test]
    fn a_port_alone_is_a_server_of_the_demo() {
        let config = resolve("9002").unwrap();
        assert_eq!((config.server, config.listen.as_str()), (ServerId(2), "127.0.0.1:9002"));
        assert_eq!(config.data, PathBuf::from("data/2"));
        assert_eq!((config.sync, config.memory), (SyncPolicy::Always, 256 << 20));
        assert_eq!(config.scrub_rate, 4 << 20);
        assert_eq!(config.cluster.topology.ranges()[2].start.as_bytes(), b"128");
    }

    #[test]
    fn numbers_make_another_cluster_on_this_machine() {
        let config =
            resolve("--id 6 --nodes 7 --replicas 5 --partitioner hashed --port-base 20000");
        let config = config.unwrap();
        assert_eq!(config.listen, "127.0.0.1:20006");
        assert_eq!(config.cluster.topology.ranges()[0].replicas.len(), 5);
    }

    #[test]
    fn a_secret_is_the_line_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "rosebud\n").unwrap();
        assert_eq!(read_secret(path.clone()).unwrap(), "rosebud");
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(read_secret(path), Err(ConfigError::Secret { .. })));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        for (arguments, expected) in [
            ("", "give its port"),
            ("9004", "no server of cluster \"demo\" has port 9004"),
            ("0", "no server of cluster"),
            ("--id 4", "no server 4"),
            ("9000 --id 0", "cannot be used with"),
            ("9000 --cluster /nowhere/c.json", "/nowhere/c.json"),
            ("9000 --cluster c.json --nodes 3", "cannot be used with"),
            ("9000 --listen here", "write host:port"),
            ("9000 --memory 1MB", "like 256MiB"),
            ("9000 --scrub-rate 4MB", "like 4MiB/s"),
            ("9000 --sync never", "'always', or an interval"),
            ("9000 --segment-size 1KiB", "choose 64KiB to 1GiB"),
            ("9000 --max-connections 0", "at least 1"),
            ("9000 --nodes 2 --replicas 3", "3 replicas cannot be placed on 2 servers"),
            ("9000 --secret-file /nowhere/secret", "/nowhere/secret"),
            ("99999", "invalid value"),
        ] {
            let error = resolve(arguments).unwrap_err();
            assert!(error.contains(expected), "'{arguments}': {error} should say: {expected}");
        }
    }
}
