//! The client library, and the console's language on top of it.
//!
//! A [`Client`] knows some servers' addresses and keeps one connection to one of them; when that one dies it moves to
//! the next. Many calls may be in flight on the connection. What may be sent again is decided here and nowhere else:
//!
//! - a **read** goes to the next server when the connection breaks;
//! - a **write** that was surely not sent goes to the next server;
//! - a write that may have been taken is sent again only under a *ticket*: its version, obtained by a first round of its
//!   own ([`Safety::Ticket`]) or told by the server that gave up. The same write, however often it arrives;
//! - without a ticket its outcome is reported as *unknown*. It is never sent again under a new version, for then it
//!   might take effect twice.
//!
//! [`grammar`] and [`show`] are the console without a terminal; [`batch`] runs commands from a pipe, many at a time.
//!
//! # What is left out
//!
//! Connections to several servers at once, and sending each call straight to a replica.

pub mod batch;
#[expect(clippy::module_inception, reason = "the client itself, among its parts")]
mod client;
mod connection;
mod error;
pub mod grammar;
pub mod show;
#[cfg(test)]
mod tests;

pub use client::{Answered, Client, Options, Safety};
pub use connection::{Broken, Connection, Pending};
pub use error::Error;
