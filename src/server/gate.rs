//! Who may speak as a peer.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::{Hello, ServerId};
use crate::ring::{Partitioner, Topology};

/// What servers must agree on before they speak.
#[derive(Debug)]
pub(crate) struct Gate {
    own: ServerId,
    cluster: String,
    /// Of the ranges, as the node says it.
    ranges: u64,
    /// Of the ranges and the partitioner, as it goes over the wire: a server that places keys elsewhere must
    /// not be let in either.
    topology: u64,
    servers: BTreeSet<ServerId>,
    secret: Option<String>,
}

/// Why a hello is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("peers from other hosts need a shared secret; start all servers with --secret-file")]
    NotLoopback,
    #[error("the secret is missing or another one; give all servers the same --secret-file")]
    Secret,
    #[error("it belongs to another cluster ({theirs:?}); this is {ours:?}")]
    Cluster { theirs: String, ours: String },
    #[error("it was started with another cluster file: ranges, replicas or partitioner differ")]
    Topology,
    #[error("server {0} is not in this cluster")]
    Unknown(ServerId),
    #[error("it says that it is server {0}, which is this server; two servers have one id")]
    Myself(ServerId),
    #[error("it says that it is server {found}; server {expected} was expected at that address")]
    Other { expected: ServerId, found: ServerId },
}

/// Characters of a stranger's cluster name that are repeated in a log line.
const SHOWN_NAME: usize = 64;

impl Gate {
    pub(crate) fn new(
        own: ServerId,
        cluster: String,
        topology: &Topology,
        partitioner: Partitioner,
        servers: impl IntoIterator<Item = ServerId>,
        secret: Option<String>,
    ) -> Gate {
        let ranges = topology.fingerprint();
        let mut bytes = ranges.to_be_bytes().to_vec();
        bytes.extend_from_slice(partitioner.name().as_bytes());
        Gate {
            own,
            cluster,
            ranges,
            topology: xxhash_rust::xxh3::xxh3_64(&bytes),
            servers: servers.into_iter().collect(),
            secret,
        }
    }

    /// The node's words as they go over the wire: with the secret, and a fingerprint of the partitioner too.
    pub(crate) fn outward(&self, hello: Hello) -> Hello {
        Hello { topology: self.topology, secret: self.secret.clone(), ..hello }
    }

    /// The reverse, of a hello that was accepted.
    pub(crate) fn inward(&self, hello: Hello) -> Hello {
        Hello { topology: self.ranges, secret: None, ..hello }
    }

    /// Whether a server that has connected from `remote` is let in.
    pub(crate) fn admit(&self, hello: &Hello, remote: IpAddr) -> Result<(), Refusal> {
        if self.secret.is_none() && !remote.to_canonical().is_loopback() {
            return Err(Refusal::NotLoopback);
        }
        self.check(hello)
    }

    /// Whether the answer of the server that was connected to is what `expected` would say.
    pub(crate) fn recognise(&self, hello: &Hello, expected: ServerId) -> Result<(), Refusal> {
        self.check(hello)?;
        if hello.server != expected {
            return Err(Refusal::Other { expected, found: hello.server });
        }
        Ok(())
    }

    fn check(&self, hello: &Hello) -> Result<(), Refusal> {
        // The secret first: who does not know it learns nothing else.
        if let Some(secret) = &self.secret
            && !same_secret(secret, hello.secret.as_deref().unwrap_or_default())
        {
            return Err(Refusal::Secret);
        }
        if hello.cluster != self.cluster {
            let theirs = hello.cluster.chars().take(SHOWN_NAME).collect();
            return Err(Refusal::Cluster { theirs, ours: self.cluster.clone() });
        }
        if hello.topology != self.topology {
            return Err(Refusal::Topology);
        }
        if hello.server == self.own {
            return Err(Refusal::Myself(self.own));
        }
        if !self.servers.contains(&hello.server) {
            return Err(Refusal::Unknown(hello.server));
        }
        Ok(())
    }
}

/// Takes the same time wherever the first difference is, so that a secret cannot be guessed byte by byte.
fn same_secret(ours: &str, theirs: &str) -> bool {
    let (ours, theirs) = (ours.as_bytes(), theirs.as_bytes());
    let differing = ours.iter().zip(theirs).fold(0, |sum, (a, b)| sum | (a ^ b));
    ours.len() == theirs.len() && std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FolderId, Incarnation, Key};
    use crate::ring::Placement;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn gate(own: u16, partitioner: Partitioner, secret: Option<&str>) -> Gate {
        let servers = [0, 1, 2].map(ServerId);
        let starts = ["", "a", "b"].map(Key::bound);
        let topology = Placement::Ring.topology(&servers, &starts, 2).unwrap();
        let secret = secret.map(str::to_owned);
        Gate::new(ServerId(own), "c".into(), &topology, partitioner, servers, secret)
    }

    fn hello(server: u16) -> Hello {
        Hello {
            cluster: "c".into(),
            topology: 0,
            server: ServerId(server),
            incarnation: Incarnation(1),
            folder: FolderId(1),
            voting: true,
            position: 0,
            session: 0,
            remembers: None,
            secret: None,
        }
    }

    #[test]
    fn equals_are_let_in_and_every_difference_is_named() {
        let ours = gate(0, Partitioner::ByteOrdered, None);
        let theirs = |server| gate(server, Partitioner::ByteOrdered, None).outward(hello(server));
        assert_eq!(ours.admit(&theirs(1), HERE), Ok(()));
        assert_eq!(ours.admit(&theirs(1), ELSEWHERE), Err(Refusal::NotLoopback));
        assert_eq!(ours.admit(&theirs(0), HERE), Err(Refusal::Myself(ServerId(0))));
        assert_eq!(ours.admit(&theirs(9), HERE), Err(Refusal::Unknown(ServerId(9))));
        let hashed = gate(1, Partitioner::Hashed, None).outward(hello(1));
        assert_eq!(ours.admit(&hashed, HERE), Err(Refusal::Topology));
        let other = Hello { cluster: "x".repeat(1000), ..theirs(1) };
        let refusal = ours.admit(&other, HERE).unwrap_err().to_string();
        assert!(refusal.len() < 200, "{refusal}");
        let expected = Refusal::Other { expected: ServerId(2), found: ServerId(1) };
        assert_eq!(ours.recognise(&theirs(1), ServerId(2)), Err(expected));
    }

    #[test]
    fn a_secret_opens_to_other_hosts_and_must_be_equal() {
        let ours = gate(0, Partitioner::ByteOrdered, Some("rosebud"));
        for (secret, expected) in [
            (Some("rosebud"), Ok(())),
            (Some("rosebuD"), Err(Refusal::Secret)),
            (Some("rosebud2"), Err(Refusal::Secret)),
            (None, Err(Refusal::Secret)),
        ] {
            let theirs = gate(1, Partitioner::ByteOrdered, secret).outward(hello(1));
            assert_eq!(ours.admit(&theirs, ELSEWHERE), expected);
        }
    }
}
