//! The protocol of one server: events in, effects out.
//!
//! A [`Node`] is everything a server decides, and nothing that it does: no sockets, no files, no clock, no chance.
//! It is given what happened and when ([`Event`], [`crate::model::Now`]) and says what is to be done ([`Effect`]).
//! Two drivers run it: [`crate::server`] over sockets and disks, [`crate::sim`] over a seeded world in which
//! everything goes wrong. The same seed and the same events give the same effects, byte for byte.
//!
//! # The parts
//!
//! | part | what it does |
//! |---|---|
//! | [`node`](self::Node) | routes, owns the parts, carries news between them |
//! | `replica` | what this server does with its own cells |
//! | `coordinator` | what it does for clients: writes, reads, scans |
//! | `handoff` | cells kept for replicas that were away, and their delivery |
//! | `repair` | differences between replicas, found and mended without a read |
//! | `heal` | cells that are held here and cannot be read, fetched from other replicas |
//! | `scrub` | when sealed segments are read through to find such cells early |
//! | `membership` | who is alive, in which life; how a server with a new folder comes to vote |
//! | `rounds` | the first rounds of many writes as one question |
//! | `health` | what this server's own disk does |
//! | `clocks` | whose wall clock is wrong |
//! | `identity` | what the folder must remember, and who waits for it to be saved |
//!
//! The parts never import each other. A finished write reports whom it has not reached, and `node.rs` hands that to
//! the handoff; a peer's link comes up, and `node.rs` tells the handoff, the repair and the membership.
//!
//! # The life of a write
//!
//! A client's put comes in as [`Event::Call`]. The coordinator asks all replicas for the greatest version time they have
//! seen; this server itself, if it is one, is asked through the same door as the others, and one question serves all puts that
//! wait for it. A majority has answered: the clock takes a
//! tick, the cell goes out as [`Effect::Send`] and, here, as [`Effect::Storage`]. The append is synced, its
//! completion comes back as [`Event::Completed`], and only now the replica shows the cell and acknowledges it. A
//! second acknowledgement, from a peer, makes a majority: [`Effect::Answer`]. The third may come later, or never;
//! then a hint is kept.
//!
//! # Invariants
//!
//! 1. A replica acknowledges, and shows, only what is durable; that is this module's business, not the driver's.
//! 2. No two writes share a version: ticks are not issued twice, not above the durable ceiling, and not before the
//!    server's incarnation is recorded by its peers.
//! 3. An answer counts once, for its replica, in that replica's latest known life, and only if it votes.
//! 4. A call ends in success, a definite no with nothing stored, or *unknown*. Nothing is ever undone.
//! 5. Every wait has a deadline, every queue a bound, every retry an end.
//!
//! # What is left out
//!
//! One-round writes, compare-and-set, moving ranges, and forgetting tombstones; the messages carry the epochs and
//! incarnations that these will need.

mod clocks;
mod config;
mod coordinator;
mod effect;
mod event;
mod flaw;
mod handoff;
mod heal;
mod health;
mod identity;
mod membership;
#[expect(clippy::module_inception, reason = "the node itself, among its parts")]
mod node;
mod repair;
mod replica;
mod rounds;
mod scrub;
#[cfg(test)]
mod stories;
mod turn;

pub use config::Config;
pub use coordinator::Tally;
pub use effect::{Effect, Notice, Urgency};
pub use event::Event;
pub use flaw::Flaw;
pub use node::Node;
pub use turn::Roster;
