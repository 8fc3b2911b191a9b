//! The network: what becomes of a message.

use std::collections::BTreeSet;

use super::profile::Numbers;
use super::seed::Random;
use crate::model::ServerId;

/// Delays, losses, duplicates and cuts.
#[derive(Debug)]
pub(super) struct Network {
    random: Random,
    numbers: Numbers,
    /// From whom nothing reaches whom.
    cuts: BTreeSet<(ServerId, ServerId)>,
    faulty: bool,
}

impl Network {
    pub(super) fn new(seed: u64, numbers: Numbers) -> Network {
        let random = Random::stream(seed, "network");
        Network { random, numbers, cuts: BTreeSet::new(), faulty: true }
    }

    /// After how many microseconds each copy of a message arrives; none if it is lost. `late` of a thousand are late.
    pub(super) fn deliveries(&mut self, from: ServerId, to: ServerId, late: u64) -> Vec<u64> {
        let mut first = self.delay();
        if late > 0 && self.faulty && self.random.chance(late) {
            first += self.random.between(50_000, 800_000);
        }
        if !self.faulty {
            return vec![first];
        }
        if self.cuts.contains(&(from, to)) || self.random.chance(self.numbers.lost) {
            return Vec::new();
        }
        let mut deliveries = vec![first];
        if self.random.chance(self.numbers.twice) {
            // Soon after, or long after.
            let most = if self.random.chance(300) { 5_000_000 } else { 50_000 };
            deliveries.push(first + self.random.below(most));
        }
        deliveries
    }

    fn delay(&mut self) -> u64 {
        let usual = self.random.between(50, 2_000);
        if self.faulty && self.random.chance(self.numbers.late) {
            // A heavy tail: most of the late are a little late.
            return usual + (1 << self.random.between(10, 21));
        }
        usual
    }

    pub(super) fn is_cut(&self, from: ServerId, to: ServerId) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Cuts some of the servers off, in one of many shapes; says which.
    pub(super) fn cut(&mut self, servers: &[ServerId]) -> String {
        let picked = self.random.pick(servers).copied().unwrap_or_default();
        let other = self.random.pick(servers).copied().unwrap_or_default();
        match self.random.below(6) {
            0 => {
                self.separate(|server| server == picked, servers, true);
                format!("{picked} is cut off")
            }
            1 => {
                self.separate(|server| server == picked || server == other, servers, true);
                format!("{picked} and {other} are cut off")
            }
            2 => {
                // Two halves that one server joins: a bridge.
                let bridge = picked;
                let (left, right): (Vec<_>, Vec<_>) = servers
                    .iter()
                    .copied()
                    .filter(|server| *server != bridge)
                    .partition(|server| server.0 % 2 == other.0 % 2);
                for (a, b) in left.iter().flat_map(|a| right.iter().map(move |b| (*a, *b))) {
                    self.cuts.insert((a, b));
                    self.cuts.insert((b, a));
                }
                format!("{left:?} and {right:?} are joined by {bridge} alone")
            }
            3 => {
                // Requests arrive, answers are lost.
                self.separate(|server| server != picked, servers, false);
                format!("nothing reaches {picked}")
            }
            4 => {
                self.separate(|server| server == picked, servers, false);
                format!("nothing from {picked} reaches anyone")
            }
            _ => {
                self.cuts.insert((picked, other));
                self.cuts.insert((other, picked));
                format!("{picked} and {other} do not reach each other")
            }
        }
    }

    fn separate(
        &mut self,
        inside: impl Fn(ServerId) -> bool,
        servers: &[ServerId],
        both_ways: bool,
    ) {
        for from in servers {
            for to in servers {
                let leaves = inside(*from) && !inside(*to);
                let enters = !inside(*from) && inside(*to);
                if leaves || (both_ways && enters) {
                    self.cuts.insert((*from, *to));
                }
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.cuts.clear();
    }

    /// From now on everything arrives, soon and once.
    pub(super) fn calm(&mut self) {
        self.heal();
        self.faulty = false;
    }
}
