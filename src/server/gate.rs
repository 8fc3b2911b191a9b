//! Who may speak as a peer.
//!
//! Where the servers share a secret, a hello without a proof is answered with a challenge, and the second hello on that connection must
//! prove it; the answer proves it to the caller: see `secret.rs`. The secret itself is told only to servers of release 0.1, and by a
//! server that was started with `--secret-in-clear`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::secret::{Exchange, Nonce, Secret, Side, nonce};
use crate::model::{Hello, HelloRefusal, ServerId};
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
    secret: Option<Secret>,
    /// The secret is told to servers of release 0.1.
    in_clear: bool,
}

/// How a caller that was let in is to be answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answering {
    /// There is no secret.
    Openly,
    /// By a proof.
    Proof(Exchange),
    /// It is of release 0.1.
    InClear,
}

/// Why a hello is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The caller may prove that it knows the secret, with this challenge.
    #[error("the secret is missing; give all servers the same --secret-file")]
    Challenge(Nonce),
    #[error(
        "it tells the secret in clear, as release 0.1 does; upgrade it, or start this server with --secret-in-clear until all \
         are upgraded"
    )]
    InClear,
    #[error("the system gives no random numbers")]
    NoRandom,
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
        in_clear: bool,
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
            secret: secret.map(Secret::new),
            in_clear,
        }
    }

    /// The node's words as they go over the wire: with a fingerprint of the partitioner too.
    pub(crate) fn outward(&self, hello: Hello) -> Hello {
        Hello { topology: self.topology, secret: None, proof: None, ..hello }
    }

    /// The reverse, of a hello that was accepted.
    pub(crate) fn inward(&self, hello: Hello) -> Hello {
        Hello { topology: self.ranges, secret: None, proof: None, ..hello }
    }

    /// What to say, and what to expect, once `to` has not taken a hello as it was; `None`: it stays at that.
    pub(crate) fn insist(
        &self,
        hello: &Hello,
        to: ServerId,
        refusal: &HelloRefusal,
    ) -> Option<(Hello, Answering)> {
        let secret = self.secret.as_ref()?;
        match refusal.challenge {
            Some(challenge) => {
                let (caller, answerer) = (self.own, to);
                let exchange = Exchange { caller, answerer, challenge, nonce: nonce()? };
                let proof = Some(secret.prove(&self.cluster, &exchange, Side::Caller));
                Some((Hello { proof, ..hello.clone() }, Answering::Proof(exchange)))
            }
            None if self.in_clear => {
                let secret = Some(secret.in_clear());
                Some((Hello { secret, ..hello.clone() }, Answering::InClear))
            }
            None => None,
        }
    }

    /// Whether the servers share a secret.
    pub(crate) fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    /// Whether a server that has connected from `remote` is let in, and how it is answered. `challenge` is what this connection was
    /// challenged with, good for one hello.
    pub(crate) fn admit(
        &self,
        hello: &Hello,
        remote: IpAddr,
        challenge: &mut Option<Nonce>,
    ) -> Result<Answering, Refusal> {
        if self.secret.is_none() && !remote.to_canonical().is_loopback() {
            return Err(Refusal::NotLoopback);
        }
        // The secret first: who does not know it learns nothing else.
        let answering = match &self.secret {
            None => Answering::Openly,
            Some(secret) => match (&hello.proof, &hello.secret) {
                (Some(proof), _) => {
                    let challenge = challenge.take().ok_or(Refusal::Secret)?;
                    let (caller, answerer) = (hello.server, self.own);
                    let exchange = Exchange { caller, answerer, challenge, nonce: proof.nonce };
                    if !secret.is_proven(&self.cluster, &exchange, Side::Caller, proof) {
                        return Err(Refusal::Secret);
                    }
                    Answering::Proof(exchange)
                }
                (None, Some(theirs)) => {
                    if !self.in_clear {
                        return Err(Refusal::InClear);
                    }
                    if !secret.is(theirs) {
                        return Err(Refusal::Secret);
                    }
                    Answering::InClear
                }
                (None, None) => {
                    let fresh = nonce().ok_or(Refusal::NoRandom)?;
                    *challenge = Some(fresh);
                    return Err(Refusal::Challenge(fresh));
                }
            },
        };
        self.check(hello)?;
        Ok(answering)
    }

    /// The node's words to a caller that was let in.
    pub(crate) fn answer(&self, hello: Hello, answering: &Answering) -> Hello {
        let hello = self.outward(hello);
        match (answering, &self.secret) {
            (Answering::Proof(exchange), Some(secret)) => {
                let proof = Some(secret.prove(&self.cluster, exchange, Side::Answerer));
                Hello { proof, ..hello }
            }
            (Answering::InClear, Some(secret)) => {
                Hello { secret: Some(secret.in_clear()), ..hello }
            }
            (_, _) => hello,
        }
    }

    /// Whether the answer of the server that was connected to is what `expected` would say.
    pub(crate) fn recognise(
        &self,
        hello: &Hello,
        expected: ServerId,
        answering: &Answering,
    ) -> Result<(), Refusal> {
        if let Some(secret) = &self.secret {
            let is_known = match (answering, &hello.proof, &hello.secret) {
                (Answering::Proof(exchange), Some(proof), _) => {
                    secret.is_proven(&self.cluster, exchange, Side::Answerer, proof)
                }
                (Answering::InClear, _, Some(theirs)) => secret.is(theirs),
                (_, _, _) => false,
            };
            if !is_known {
                return Err(Refusal::Secret);
            }
        }
        self.check(hello)?;
        if hello.server != expected {
            return Err(Refusal::Other { expected, found: hello.server });
        }
        Ok(())
    }

    fn check(&self, hello: &Hello) -> Result<(), Refusal> {
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

impl Refusal {
    /// As it is told to the caller.
    pub(crate) fn outward(&self) -> HelloRefusal {
        let challenge = match self {
            Refusal::Challenge(challenge) => Some(*challenge),
            _ => None,
        };
        HelloRefusal { message: self.to_string(), challenge }
    }
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
        Gate::new(ServerId(own), "c".into(), &topology, partitioner, servers, secret, false)
    }

    /// How `caller` fares when it connects to `answerer` from elsewhere, at either side; and all that went over the wire.
    fn meet(caller: &Gate, answerer: &Gate) -> (Result<(), String>, String) {
        let mut challenge = None;
        let mut wire = String::new();
        let first = caller.outward(hello(caller.own.0));
        let (mut said, mut answering) = (first.clone(), Answering::Openly);
        for _ in 0..2 {
            wire += &format!("{said:?}");
            let refusal = match answerer.admit(&said, ELSEWHERE, &mut challenge) {
                Ok(how) => {
                    let answer = answerer.answer(hello(answerer.own.0), &how);
                    wire += &format!("{answer:?}");
                    let met = caller.recognise(&answer, answerer.own, &answering);
                    return (met.map_err(|refusal| format!("caller: {refusal}")), wire);
                }
                Err(refusal) => refusal,
            };
            wire += &format!("{:?}", refusal.outward());
            match caller.insist(&first, answerer.own, &refusal.outward()) {
                Some((next, expected)) => (said, answering) = (next, expected),
                None => return (Err(format!("answerer: {refusal}")), wire),
            }
        }
        (Err("answerer: refused twice".to_owned()), wire)
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
            proof: None,
        }
    }

    #[test]
    fn equals_are_let_in_and_every_difference_is_named() {
        let ours = gate(0, Partitioner::ByteOrdered, None);
        let admit = |hello: &Hello, from| ours.admit(hello, from, &mut None).map(|_| ());
        let theirs = |server| gate(server, Partitioner::ByteOrdered, None).outward(hello(server));
        assert_eq!(admit(&theirs(1), HERE), Ok(()));
        assert_eq!(admit(&theirs(1), ELSEWHERE), Err(Refusal::NotLoopback));
        assert_eq!(admit(&theirs(0), HERE), Err(Refusal::Myself(ServerId(0))));
        assert_eq!(admit(&theirs(9), HERE), Err(Refusal::Unknown(ServerId(9))));
        let hashed = gate(1, Partitioner::Hashed, None).outward(hello(1));
        assert_eq!(admit(&hashed, HERE), Err(Refusal::Topology));
        let other = Hello { cluster: "x".repeat(1000), ..theirs(1) };
        let refusal = admit(&other, HERE).unwrap_err().to_string();
        assert!(refusal.len() < 200, "{refusal}");
        let expected = Refusal::Other { expected: ServerId(2), found: ServerId(1) };
        let found = ours.recognise(&theirs(1), ServerId(2), &Answering::Openly);
        assert_eq!(found, Err(expected));
    }

    #[test]
    fn a_secret_opens_to_other_hosts_must_be_equal_and_is_not_told() {
        let gate = |own, secret| gate(own, Partitioner::ByteOrdered, secret);
        let secret = "rosebud";
        let (met, wire) = meet(&gate(1, Some(secret)), &gate(0, Some(secret)));
        assert_eq!(met, Ok(()));
        assert!(!wire.contains(secret) && wire.matches("Proof").count() == 2, "{wire}");
        for (caller, answerer) in [
            (Some("rosebuD"), Some(secret)),
            (Some("rosebud2"), Some(secret)),
            (None, Some(secret)),
        ] {
            let (met, wire) = meet(&gate(1, caller), &gate(0, answerer));
            let why = met.unwrap_err();
            assert!(why.starts_with("answerer: ") && why.contains("secret"), "{caller:?}: {why}");
            assert!(wire.matches("incarnation").count() < 3, "who knows no secret learns nothing");
        }
        // Whoever answers must know it, too.
        let caller = gate(1, Some(secret));
        let impostor = gate(0, None).outward(hello(0));
        let met = caller.recognise(&impostor, ServerId(0), &Answering::Openly);
        assert_eq!(met, Err(Refusal::Secret));
    }

    #[test]
    fn what_was_said_once_opens_nothing_again() {
        let (caller, answerer) = (
            gate(1, Partitioner::ByteOrdered, Some("rosebud")),
            gate(0, Partitioner::ByteOrdered, Some("rosebud")),
        );
        let first = caller.outward(hello(1));
        let mut challenge = None;
        let challenged = answerer.admit(&first, ELSEWHERE, &mut challenge).unwrap_err();
        let (proven, _) = caller.insist(&first, ServerId(0), &challenged.outward()).unwrap();
        let answering = answerer.admit(&proven, ELSEWHERE, &mut challenge).unwrap();
        let answer = answerer.answer(hello(0), &answering);
        // Again on the same connection, on another one, and on one with a challenge of its own.
        let mut other = None;
        let again = |challenge: &mut Option<Nonce>| {
            answerer.admit(&proven, ELSEWHERE, challenge).map(|_| ()).unwrap_err()
        };
        assert_eq!(again(&mut challenge), Refusal::Secret);
        assert_eq!(again(&mut other), Refusal::Secret);
        assert!(answerer.admit(&first, ELSEWHERE, &mut other).is_err() && other.is_some());
        assert_eq!(again(&mut other), Refusal::Secret);
        // The answerer's own words, sent back to it or to the caller.
        let reflected = Hello { proof: answer.proof, ..caller.outward(hello(1)) };
        assert!(answerer.admit(&first, ELSEWHERE, &mut challenge).is_err());
        assert!(answerer.admit(&reflected, ELSEWHERE, &mut challenge).is_err());
        let (_, expected) = caller.insist(&first, ServerId(0), &challenged.outward()).unwrap();
        assert_eq!(caller.recognise(&answer, ServerId(0), &expected), Err(Refusal::Secret));
    }

    #[test]
    fn servers_of_release_0_1_are_told_the_secret_only_where_that_is_allowed() {
        let bears =
            |in_clear| Gate { in_clear, ..gate(0, Partitioner::ByteOrdered, Some("rosebud")) };
        let old = Hello { secret: Some("rosebud".into()), ..bears(false).outward(hello(1)) };
        let refused = bears(false).admit(&old, ELSEWHERE, &mut None).map(|_| ());
        assert_eq!(refused, Err(Refusal::InClear));
        let answering = bears(true).admit(&old, ELSEWHERE, &mut None).unwrap();
        assert_eq!(bears(true).answer(hello(0), &answering).secret.as_deref(), Some("rosebud"));
        let wrong = Hello { secret: Some("rosebuD".into()), ..old };
        let refused = bears(true).admit(&wrong, ELSEWHERE, &mut None).map(|_| ());
        assert_eq!(refused, Err(Refusal::Secret));
        // The refusal of an old server has no challenge.
        let refusal = HelloRefusal { message: "the secret is missing".to_owned(), challenge: None };
        let first = bears(true).outward(hello(0));
        assert!(bears(false).insist(&first, ServerId(1), &refusal).is_none());
        let (second, expected) = bears(true).insist(&first, ServerId(1), &refusal).unwrap();
        assert_eq!(second.secret.as_deref(), Some("rosebud"));
        let answer = Hello { server: ServerId(1), ..second };
        assert_eq!(bears(true).recognise(&answer, ServerId(1), &expected), Ok(()));
    }
}
