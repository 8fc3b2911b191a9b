//! The client library, and the console's language on top of it.
//!
//! A [`Client`] knows some servers' addresses and keeps connections to those it has asked. It asks one and the same
//! until that dies ([`Routing::Sticky`], the console's way), or a replica of the key ([`Routing::Replica`]): then it
//! keeps the cluster's [`Table`] of servers and ranges, and asks for it again when a server does not answer, or is
//! another one than the table says. A table that is out of date costs a hop or a wait, never a wrong answer, for
//! every server takes every call. Many calls may be in flight. What may be sent again is decided here and nowhere else:
//!
//! - a **read** goes to the next server when a connection breaks or a server is silent;
//! - a **write** that was surely not sent goes to the next server;
//! - a write that may have been taken is sent again only under a *ticket*: its version, obtained by a first round of its
//!   own ([`Safety::Ticket`]) or told by the server that gave up. The same write, however often it arrives;
//! - without a ticket its outcome is reported as *unknown*. It is never sent again under a new version, for then it
//!   might take effect twice.
//!
//! [`grammar`] and [`show`] are the console without a terminal; [`batch`] runs commands from a pipe, many at a time;
//! a [`Scanner`] reads whole stores, and [`record`] is how they are written into files.
//!

pub mod batch;
#[expect(clippy::module_inception, reason = "the client itself, among its parts")]
mod client;
mod connection;
mod error;
pub mod grammar;
pub mod record;
mod scanner;
pub mod show;
mod table;
#[cfg(test)]
mod tests;

pub use client::{Answered, Client, Options, Routing, Safety};
use connection::{Broken, Connection};
pub use error::Error;
pub use scanner::Scanner;
pub use table::Table;
