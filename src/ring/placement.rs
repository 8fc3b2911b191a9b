//! Policies that compute a topology.

use std::fmt;
use std::str::FromStr;

use super::Topology;
use super::topology::TopologyError;
use crate::model::{Epoch, Key, ServerId};

/// Which servers keep the range of an owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// The owner and the next servers in ring order.
    #[default]
    Ring,
    /// The owner's group: the servers are cut into disjoint groups of as many as there are replicas, the last
    /// of which may be smaller.
    Groups,
}

/// Why no topology can be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// More replicas than servers, or none.
    #[error("{replicas} replicas cannot be placed on {servers} servers; choose 1 to {servers}")]
    Replicas {
        /// Asked for.
        replicas: usize,
        /// There are.
        servers: usize,
    },
    /// Not one start a server.
    #[error("there are {starts} range starts for {servers} servers; give each server one")]
    Starts {
        /// Given.
        starts: usize,
        /// There are.
        servers: usize,
    },
    /// The starts make no topology.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// No such policy.
    #[error("'{0}' is no placement; write ring or groups")]
    Unknown(String),
}

impl Placement {
    /// One range a server: server *i* owns what lies from `starts[i]` to the next start.
    pub fn topology(
        self,
        servers: &[ServerId],
        starts: &[Key],
        replicas: usize,
    ) -> Result<Topology, PlacementError> {
        let count = servers.len();
        if replicas == 0 || replicas > count {
            return Err(PlacementError::Replicas { replicas, servers: count });
        }
        if starts.len() != count {
            return Err(PlacementError::Starts { starts: starts.len(), servers: count });
        }
        let replicas_of = |owner: usize| -> Vec<ServerId> {
            match self {
                Placement::Ring => {
                    (0..replicas).map(|step| servers[(owner + step) % count]).collect()
                }
                Placement::Groups => {
                    let first = owner - owner % replicas;
                    let group = &servers[first..(first + replicas).min(count)];
                    let (before, from_owner) = group.split_at(owner - first);
                    from_owner.iter().chain(before).copied().collect()
                }
            }
        };
        let parts = starts.iter().cloned().enumerate().map(|(i, start)| (start, replicas_of(i)));
        Ok(Topology::new(parts.collect(), Epoch(1))?)
    }

    /// Starts that cut the order into equal parts: server *i* of *n* starts at ⌊i·65536/n⌋ as two big-endian
    /// bytes, the first at the empty key.
    pub fn even_starts(servers: usize) -> Vec<Key> {
        let start = |i: usize| match i {
            0 => Key::bound(""),
            _ => Key::bound(((i * 65_536 / servers) as u16).to_be_bytes().to_vec()),
        };
        (0..servers).map(start).collect()
    }

    /// The name in flags and cluster files.
    pub fn name(self) -> &'static str {
        match self {
            Placement::Ring => "ring",
            Placement::Groups => "groups",
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Placement {
    type Err = PlacementError;

    fn from_str(text: &str) -> Result<Placement, PlacementError> {
        [Placement::Ring, Placement::Groups]
            .into_iter()
            .find(|placement| placement.name() == text)
            .ok_or_else(|| PlacementError::Unknown(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(count: u16) -> Vec<ServerId> {
        (0..count).map(ServerId).collect()
    }

    fn numbers(replicas: &[ServerId]) -> Vec<u16> {
        replicas.iter().map(|server| server.0).collect()
    }

    /// S2: the demo cluster, with the keys of the original.
    #[test]
    fn the_demo_cluster_keeps_0_on_0_1_2_and_137_on_2_3_0() {
        let starts = ["", "064", "128", "192"].map(Key::bound);
        let topology = Placement::Ring.topology(&servers(4), &starts, 3).unwrap();
        assert_eq!(numbers(&topology.range_of(&Key::bound("0")).replicas), [0, 1, 2]);
        assert_eq!(numbers(&topology.range_of(&Key::bound("137")).replicas), [2, 3, 0]);
    }

    #[test]
    fn a_ring_gives_every_server_as_many_ranges_as_there_are_replicas() {
        for count in 1..=9 {
            for replicas in 1..=count {
                let starts = Placement::even_starts(count);
                let topology =
                    Placement::Ring.topology(&servers(count as u16), &starts, replicas).unwrap();
                for server in servers(count as u16) {
                    assert_eq!(topology.ranges_of(server).count(), replicas);
                }
            }
        }
    }

    #[test]
    fn groups_are_disjoint_and_an_owner_comes_first() {
        let starts = Placement::even_starts(5);
        let topology = Placement::Groups.topology(&servers(5), &starts, 2).unwrap();
        let sets: Vec<_> = topology.ranges().iter().map(|range| numbers(&range.replicas)).collect();
        assert_eq!(sets, [vec![0, 1], vec![1, 0], vec![2, 3], vec![3, 2], vec![4]]);
    }

    #[test]
    fn impossible_numbers_are_refused() {
        let starts = Placement::even_starts(3);
        assert!(Placement::Ring.topology(&servers(3), &starts, 4).is_err());
        assert!(Placement::Ring.topology(&servers(3), &starts, 0).is_err());
        assert!(Placement::Ring.topology(&servers(2), &starts, 1).is_err());
    }
}
