//! Ranges and their replicas.

use crate::model::{Epoch, Key, ServerId};

/// A half-open interval of the order, `[start, end)`, and who keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// First place, inclusive.
    pub start: Key,
    /// Exclusive; `None`: to the end of the order.
    pub end: Option<Key>,
    /// Changes of the replica set so far.
    pub epoch: Epoch,
    /// In order of preference, none twice; the first is the owner.
    pub replicas: Vec<ServerId>,
}

impl Range {
    /// Whether `place` lies within.
    pub fn contains(&self, place: &Key) -> bool {
        *place >= self.start && self.end.as_ref().is_none_or(|end| place < end)
    }
}

/// All ranges, in order, without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    ranges: Vec<Range>,
    fingerprint: u64,
    state: u64,
}

/// Why ranges make no topology.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// There is none.
    #[error("a topology needs at least one range")]
    NoRange,
    /// Keys before the first range would have no place.
    #[error("the first range must start at the empty key")]
    FirstStart,
    /// Two starts are equal or out of order.
    #[error("range starts must ascend: '{later}' does not come after '{earlier}'")]
    Order {
        /// The start before.
        earlier: Key,
        /// The start that should be greater.
        later: Key,
    },
    /// A range without replicas, or with one server twice.
    #[error("the range at '{start}' must have at least one replica, and none twice")]
    Replicas {
        /// The range's start.
        start: Key,
    },
}

impl Topology {
    /// Ranges from their starts, in order, with their replicas. All epochs are `epoch`.
    pub fn new(parts: Vec<(Key, Vec<ServerId>)>, epoch: Epoch) -> Result<Topology, TopologyError> {
        match parts.first() {
            None => return Err(TopologyError::NoRange),
            Some((start, _)) if !start.as_bytes().is_empty() => {
                return Err(TopologyError::FirstStart);
            }
            Some(_) => {}
        }
        for pair in parts.windows(2) {
            if pair[0].0 >= pair[1].0 {
                let (earlier, later) = (pair[0].0.clone(), pair[1].0.clone());
                return Err(TopologyError::Order { earlier, later });
            }
        }
        let ends: Vec<_> =
            parts.iter().skip(1).map(|(start, _)| Some(start.clone())).chain([None]).collect();
        let mut ranges = Vec::with_capacity(parts.len());
        for ((start, replicas), end) in parts.into_iter().zip(ends) {
            let mut distinct = replicas.clone();
            distinct.sort();
            distinct.dedup();
            if distinct.is_empty() || distinct.len() != replicas.len() {
                return Err(TopologyError::Replicas { start });
            }
            ranges.push(Range { start, end, epoch, replicas });
        }
        let (fingerprint, state) = (fingerprint(&ranges, false), fingerprint(&ranges, true));
        Ok(Topology { ranges, fingerprint, state })
    }

    /// All ranges in order.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// The range in which `place` lies.
    pub fn range_of(&self, place: &Key) -> &Range {
        &self.ranges[self.index_of(place.as_bytes())]
    }

    /// The position in [`Topology::ranges`] of the range in which `place` lies.
    pub fn index_of(&self, place: &[u8]) -> usize {
        // The first range starts at the empty key, so at least one start is not greater.
        self.ranges.partition_point(|range| range.start.as_bytes() <= place) - 1
    }

    /// The ranges that `server` keeps.
    pub fn ranges_of(&self, server: ServerId) -> impl Iterator<Item = &Range> {
        self.ranges.iter().filter(move |range| range.replicas.contains(&server))
    }

    /// The other servers that keep a range together with `server`, ascending.
    pub fn neighbours(&self, server: ServerId) -> Vec<ServerId> {
        let mut peers: Vec<_> =
            self.ranges_of(server).flat_map(|range| range.replicas.iter().copied()).collect();
        peers.sort();
        peers.dedup();
        peers.retain(|peer| *peer != server);
        peers
    }

    /// The same for equal topologies, and hardly ever for different ones: servers compare it when they connect.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// As the fingerprint, of the ranges' epochs too: what a message says that concerns many ranges at once.
    pub fn state(&self) -> u64 {
        self.state
    }
}

fn fingerprint(ranges: &[Range], with_epochs: bool) -> u64 {
    let mut bytes = Vec::new();
    for range in ranges {
        let start = range.start.as_bytes();
        bytes.extend_from_slice(&(start.len() as u64).to_be_bytes());
        bytes.extend_from_slice(start);
        bytes.extend_from_slice(&(range.replicas.len() as u64).to_be_bytes());
        for replica in &range.replicas {
            bytes.extend_from_slice(&replica.0.to_be_bytes());
        }
        if with_epochs {
            bytes.extend_from_slice(&range.epoch.0.to_be_bytes());
        }
    }
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(starts: &[&'static str]) -> Result<Topology, TopologyError> {
        let part = |start: &&'static str| (Key::bound(*start), vec![ServerId(0)]);
        Topology::new(starts.iter().map(part).collect(), Epoch(1))
    }

    #[test]
    fn every_place_lies_in_exactly_one_range() {
        let topology = topology(&["", "064", "128"]).unwrap();
        for place in ["", "0", "063\u{7f}", "064", "127", "128", "zzz"] {
            let place = Key::bound(place);
            let holding: Vec<_> =
                topology.ranges().iter().filter(|range| range.contains(&place)).collect();
            assert_eq!(holding, [topology.range_of(&place)]);
        }
        let last = Key::bound(vec![0xff; 100]);
        assert_eq!(topology.range_of(&last).start, Key::bound("128"));
    }

    #[test]
    fn what_makes_no_topology_is_refused_by_name() {
        assert_eq!(topology(&[]), Err(TopologyError::NoRange));
        assert_eq!(topology(&["a"]), Err(TopologyError::FirstStart));
        assert!(matches!(topology(&["", "b", "b"]), Err(TopologyError::Order { .. })));
        let twice = vec![(Key::bound(""), vec![ServerId(1), ServerId(1)])];
        assert!(matches!(Topology::new(twice, Epoch(1)), Err(TopologyError::Replicas { .. })));
    }

    #[test]
    fn fingerprints_tell_topologies_apart() {
        assert_ne!(
            topology(&["", "a"]).unwrap().fingerprint(),
            topology(&["", "b"]).unwrap().fingerprint()
        );
        assert_eq!(
            topology(&["", "a"]).unwrap().fingerprint(),
            topology(&["", "a"]).unwrap().fingerprint()
        );
    }
}
