//! The cluster's secret: how two servers show each other that they know it, and tell it nobody.
//!
//! The server that is connected to names a number that nobody has seen before, its *challenge*. The caller answers with a number of its own
//! and the HMAC-SHA256 (RFC 2104), under the secret, of both numbers, the cluster, and who calls whom; the other server then
//! shows the same of the other direction. So whoever listens, or answers at a peer's address, learns no secret and nothing that opens
//! another connection, and nothing that a server says can be sent back to it.
//!
//! What it does not do: what follows on the connection is neither encrypted nor signed, so whoever can change packets between two servers can
//! wait for them to introduce each other and speak then. And whoever has seen a proof can try secrets at leisure: it should be
//! long and random.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::model::{Proof, ServerId};

/// A number that is used once.
pub(crate) type Nonce = [u8; 32];

/// Shared by all servers of a cluster. Not shown by `{:?}`.
#[derive(Clone)]
pub(crate) struct Secret(String);

/// Two servers that introduce themselves on one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    pub(crate) caller: ServerId,
    pub(crate) answerer: ServerId,
    pub(crate) challenge: Nonce,
    /// The caller's number.
    pub(crate) nonce: Nonce,
}

/// Who shows that it knows the secret.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Caller,
    Answerer,
}

impl Secret {
    pub(crate) fn new(text: String) -> Secret {
        Secret(text)
    }

    /// For servers of release 0.1 alone, which show nothing and ask for it.
    pub(crate) fn in_clear(&self) -> String {
        self.0.clone()
    }

    /// Takes the same time wherever the first difference is, so that a secret cannot be guessed byte by byte.
    pub(crate) fn is(&self, theirs: &str) -> bool {
        let mac = |text: &str| self.keyed().chain_update(text.as_bytes());
        mac(theirs).verify(&mac(&self.0).finalize().into_bytes()).is_ok()
    }

    pub(crate) fn prove(&self, cluster: &str, exchange: &Exchange, side: Side) -> Proof {
        let mac = self.mac(cluster, exchange, side).finalize().into_bytes().into();
        let nonce = match side {
            Side::Caller => exchange.nonce,
            Side::Answerer => exchange.challenge,
        };
        Proof { nonce, mac }
    }

    pub(crate) fn is_proven(
        &self,
        cluster: &str,
        exchange: &Exchange,
        side: Side,
        proof: &Proof,
    ) -> bool {
        self.mac(cluster, exchange, side).verify(&proof.mac.into()).is_ok()
    }

    fn keyed(&self) -> Hmac<Sha256> {
        // HMAC takes keys of any length.
        #[expect(clippy::expect_used, reason = "HMAC refuses no key")]
        Hmac::new_from_slice(self.0.as_bytes()).expect("a key of any length")
    }

    fn mac(&self, cluster: &str, exchange: &Exchange, side: Side) -> Hmac<Sha256> {
        let label: &[u8] = match side {
            Side::Caller => b"chord peer, caller",
            Side::Answerer => b"chord peer, answerer",
        };
        let Exchange { caller, answerer, challenge, nonce } = exchange;
        let mut mac = self.keyed();
        // Each part with its length before it: no two exchanges have the same bytes.
        for part in [
            label,
            cluster.as_bytes(),
            &caller.0.to_be_bytes(),
            &answerer.0.to_be_bytes(),
            challenge,
            nonce,
        ] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Drawn by the operating system; `None`: it has none to give.
pub(crate) fn nonce() -> Option<Nonce> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).ok()?;
    Some(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> Exchange {
        Exchange { caller: ServerId(1), answerer: ServerId(2), challenge: [3; 32], nonce: [4; 32] }
    }

    #[test]
    fn a_proof_holds_for_its_exchange_side_cluster_and_secret_alone() {
        let secret = Secret::new("rosebud".to_owned());
        let proof = secret.prove("c", &exchange(), Side::Caller);
        let holds = |secret: &Secret, cluster, exchange: &Exchange, side| {
            secret.is_proven(cluster, exchange, side, &proof)
        };
        assert!(holds(&secret, "c", &exchange(), Side::Caller));
        assert!(!holds(&secret, "c", &exchange(), Side::Answerer), "sent back");
        assert!(!holds(&secret, "d", &exchange(), Side::Caller));
        assert!(!holds(&Secret::new("rosebuD".to_owned()), "c", &exchange(), Side::Caller));
        for other in [
            Exchange { challenge: [5; 32], ..exchange() },
            Exchange { nonce: [5; 32], ..exchange() },
            Exchange { caller: ServerId(3), ..exchange() },
            Exchange { answerer: ServerId(3), ..exchange() },
            Exchange { caller: ServerId(2), answerer: ServerId(1), ..exchange() },
        ] {
            assert!(!holds(&secret, "c", &other, Side::Caller), "{other:?}");
        }
    }

    /// HMAC-SHA256 of RFC 4231, test case 2: the library is the one that it should be.
    #[test]
    fn the_mac_is_the_standards() {
        let mac = Secret::new("Jefe".to_owned()).keyed();
        let mac = mac.chain_update(b"what do ya want for nothing?").finalize().into_bytes();
        let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn a_secret_is_not_shown_and_numbers_differ() {
        assert!(!format!("{:?}", Secret::new("rosebud".to_owned())).contains("rosebud"));
        assert!(nonce().unwrap() != nonce().unwrap());
        let secret = Secret::new("rosebud".to_owned());
        assert!(secret.is("rosebud") && !secret.is("rosebuD") && !secret.is("rosebud2"));
    }
}
