//! What a cluster looks like: how many servers, how many copies, who keeps what; and how long it is used.
//!
//! Drawn from a stream of its own. The demo's shape, four servers in a ring with three copies in the order of bytes, comes up in
//! two of five; of the rest every number is as likely as another.
//!
//! # Which losses a shape covers
//!
//! Of *r* replicas *q* are a majority. A server may lose its cells, one at a time, where r − q of its fellows would not notice
//! and r − q + 1 of them can give it back what it held:
//!
//! | copies | majority | one disk lost, older, or turned | one server down |
//! |---|---|---|---|
//! | 1 | 1 | what was on it is gone, by contract: never done to it | its keys cannot be written, nor read |
//! | 2 | 2 | the other one holds all that was acknowledged | its keys cannot be written, nor read at QUORUM |
//! | 3 | 2 | two others, of whom one holds it at least | no one notices |
//! | 4 | 3 | two others, of whom one holds it at least | no one notices |
//! | 5 | 3 | three others, of whom one holds it at least | no one notices |
//!
//! The last of several groups may be smaller than the others, so what counts is the smallest range that a server keeps. All
//! other faults are covered in every shape: they lose nothing that was synced.

use std::fmt;

use super::Flaw;
use super::seed::Random;
use crate::model::{Key, ServerId};
use crate::ring::{Partitioner, Placement, Topology};

/// Servers and copies of a simulated cluster, at most.
const MOST: (u16, usize) = (9, 5);
/// Operations of an ordinary run are multiplied by this in a long one.
const LONG: usize = 20;

/// What a cluster looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// 1 to 9.
    pub servers: u16,
    /// 1 to 5, and not more than servers.
    pub copies: usize,
    /// Who keeps the range of an owner.
    pub placement: Placement,
    /// What the order of keys is.
    pub partitioner: Partitioner,
    /// Hints kept for one server; marks beyond.
    pub max_hints: usize,
    /// Memory for few cells that wait for a disk or for a replica.
    pub tight: bool,
    /// Many more operations than usual.
    pub long: bool,
}

/// Parts of a shape that are not left to the seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fixed {
    /// See [`Shape`].
    pub servers: Option<u16>,
    /// See [`Shape`].
    pub copies: Option<usize>,
    /// See [`Shape`].
    pub placement: Option<Placement>,
    /// See [`Shape`].
    pub partitioner: Option<Partitioner>,
    /// See [`Shape`].
    pub max_hints: Option<usize>,
    /// See [`Shape`].
    pub tight: Option<bool>,
    /// See [`Shape`].
    pub long: Option<bool>,
}

impl Fixed {
    /// The shape of the demo, with as many hints as anyone may want.
    pub fn demo() -> Fixed {
        Fixed {
            servers: Some(4),
            copies: Some(3),
            placement: Some(Placement::Ring),
            partitioner: Some(Partitioner::ByteOrdered),
            max_hints: Some(MANY_HINTS),
            tight: Some(false),
            long: Some(false),
        }
    }

    /// The shapes in which a flaw's situation is common: rules of the register need no other than the demo's.
    pub fn for_flaw(flaw: Flaw) -> Fixed {
        match flaw {
            Flaw::StrangersStaySilent | Flaw::DropNewMark | Flaw::ScanOneAsksNoOther => {
                Fixed::default()
            }
            Flaw::LetGoWithoutHint => Fixed { tight: Some(true), ..Fixed::default() },
            _ => Fixed::demo(),
        }
    }

    /// Why there is no such shape.
    pub fn check(&self) -> Result<(), String> {
        let (servers, copies) = MOST;
        if self.servers.is_some_and(|wanted| !(1..=servers).contains(&wanted)) {
            return Err(format!("a simulated cluster has 1 to {servers} servers"));
        }
        let most = copies.min(self.servers.map_or(copies, usize::from));
        if self.copies.is_some_and(|wanted| !(1..=most).contains(&wanted)) {
            return Err(format!("these servers keep 1 to {most} copies"));
        }
        Ok(())
    }

    /// As flags, for a replay.
    pub fn flags(&self) -> String {
        let flag = |name: &str, value: Option<String>| {
            value.map(|value| format!(" --{name} {value}")).unwrap_or_default()
        };
        [
            flag("servers", self.servers.map(|servers| servers.to_string())),
            flag("copies", self.copies.map(|copies| copies.to_string())),
            flag("placement", self.placement.map(|placement| placement.to_string())),
            flag("partitioner", self.partitioner.map(|partitioner| partitioner.to_string())),
            flag("max-hints", self.max_hints.map(|hints| hints.to_string())),
            flag("tight", self.tight.map(|tight| tight.to_string())),
            flag("long", self.long.map(|long| long.to_string())),
        ]
        .concat()
    }
}

const MANY_HINTS: usize = 1_000_000;

impl Shape {
    /// The shape of this seed. [`Fixed::check`] has been asked.
    pub(super) fn draw(seed: u64, fixed: Fixed) -> Shape {
        let mut random = Random::stream(seed, "shape");
        let is_demo = random.chance(400);
        let servers = random.between(fixed.copies.unwrap_or(1) as u64, MOST.0.into()) as u16;
        let servers = fixed.servers.unwrap_or(if is_demo { 4 } else { servers });
        let copies = random.between(1, MOST.1.min(servers.into()) as u64) as usize;
        let copies = fixed.copies.unwrap_or(if is_demo { 3.min(servers.into()) } else { copies });
        let placement = if random.chance(400) { Placement::Groups } else { Placement::Ring };
        let hashed = random.chance(400);
        let partitioner = if hashed { Partitioner::Hashed } else { Partitioner::ByteOrdered };
        let (placement, partitioner) = if is_demo {
            (Placement::Ring, Partitioner::ByteOrdered)
        } else {
            (placement, partitioner)
        };
        let few = random.below(3) as usize;
        let max_hints = if random.chance(300) { few } else { MANY_HINTS };
        let long = random.chance(10);
        let tight = random.chance(250);
        Shape {
            servers,
            copies: copies.min(servers.into()),
            placement: fixed.placement.unwrap_or(placement),
            partitioner: fixed.partitioner.unwrap_or(partitioner),
            max_hints: fixed.max_hints.unwrap_or(max_hints),
            tight: fixed.tight.unwrap_or(tight),
            long: fixed.long.unwrap_or(long),
        }
    }

    pub(super) fn ids(self) -> Vec<ServerId> {
        (0..self.servers).map(ServerId).collect()
    }

    pub(super) fn topology(self) -> Topology {
        let servers = usize::from(self.servers);
        let starts = match self.partitioner {
            Partitioner::ByteOrdered => LETTERS[..servers]
                .iter()
                .enumerate()
                .map(|(i, letter)| Key::bound(if i == 0 { "" } else { letter }))
                .collect(),
            Partitioner::Hashed => Placement::even_starts(servers),
        };
        // A start a server, ascending, and not more copies than servers: there is nothing to refuse.
        let topology = self.placement.topology(&self.ids(), &starts, self.copies);
        topology.unwrap_or_else(|error| unreachable!("{error}"))
    }

    /// With what keys begin: a letter a range, where bytes are in order.
    pub(super) fn letters(self) -> &'static [&'static str] {
        &LETTERS[..usize::from(self.servers).max(4)]
    }

    /// How many times as many operations as usual.
    pub(super) fn length(self) -> usize {
        if self.long { LONG } else { 1 }
    }

    /// Neither the demo's servers nor its copies or order.
    pub(super) fn is_demo(self) -> bool {
        let order = (self.placement, self.partitioner);
        (self.servers, self.copies) == (4, 3)
            && order == (Placement::Ring, Partitioner::ByteOrdered)
    }
}

/// Starts of ranges, and of keys.
const LETTERS: [&str; MOST.0 as usize] = ["0", "a", "b", "c", "d", "e", "f", "g", "h"];

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { servers, copies, placement, partitioner, max_hints, tight, long } = self;
        let tight = if *tight { ", little memory" } else { "" };
        let long = if *long { ", a long run" } else { "" };
        write!(
            f,
            "{servers} servers, {copies} copies, {placement}, {partitioner}, {max_hints} hints at most{tight}{long}"
        )
    }
}
