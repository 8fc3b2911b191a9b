//! Chord: a replicated, ordered key-value store.
//!
//! # The store in a page
//!
//! Every server is equal: any of them takes any call, and each keeps part of the data. Keys are byte strings on a
//! line; the line is cut into ranges; each range is kept by some of the servers, its *replicas*, three in the
//! demo. The server that a client happens to ask is the *coordinator* of the call: it asks the replicas, itself
//! perhaps among them, and answers once as many have answered as the *level* of the call requires: ONE, QUORUM (a
//! majority) or ALL.
//!
//! A replica holds per key a *cell*: a value, or a tombstone, under a *version*. Of two cells the greater version
//! wins, and of two contents that a client put under one version the one with the greater checksum, everywhere and always; that is the only rule by which replicas agree, so messages may come late, twice or
//! in any order. At QUORUM a write first asks a majority for the version they hold and takes a greater one; a read
//! makes sure that a majority holds what it answers. Two majorities share a replica, hence each key behaves as one
//! copy, whatever clocks, crashes and cuts do. A replica acknowledges nothing that is not on its disk.
//!
//! A replica that was away gets what it has missed in three ways: *hints* that coordinators kept for it, *read
//! repair* when a read meets its stale cell, and *repair*, a comparison of ranges that runs all the time. A server
//! that lost its disk does not vote until it has been rebuilt.
//!
//! # The layers
//!
//! ```text
//!   bin        flags, call, exit code                        every program in src/bin
//!   torture    real servers, and all that a machine can do to them; judged by `judge`, as is sim
//!   bench      one closed loop for any store, which looks at every answer; tables and charts
//!   fuzz       every door that takes bytes, as a function of any bytes
//!   gateway    HTTP, in three systems' words: each request becomes calls of the client
//!   client     the client library, the console's grammar, records in files
//!   server     tokio: sockets, links, the storage thread  ┐  two drivers
//!   sim        a seeded world where everything goes wrong ┘  of one node
//!   budget     the bytes in hand, whichever endpoint they came through
//!   ── pure from here on: no async, sockets, files, clock, ambient chance ──
//!   node       the protocol: events in, effects out
//!   wire       Thrift over bytes        ring   who keeps what
//!   storage    the log and its keydir   model  keys, cells, versions, messages
//!   judge      whether a history of what clients saw is one that a true store can have
//! ```
//!
//! Each module may import those below it and not those beside or above it; `tests/architecture` holds that table
//! against the sources.
//!
//! # Reading order
//!
//! [`model`] for the words; [`ring`] for who keeps what; [`node`] for the protocol, beginning with its essay;
//! [`storage`] for the disk; [`wire`] for the bytes; [`server`] for the threads and tasks; [`sim`] for how we know
//! that it works, with [`judge`], [`torture`] and [`fuzz`]; [`bench`](mod@bench) for how fast; [`client`] and [`gateway`] for those
//! outside.

pub mod bench;
pub mod budget;
pub mod client;
pub mod fuzz;
pub mod gateway;
pub mod judge;
pub mod model;
pub mod node;
pub mod ring;
pub mod server;
pub mod sim;
pub mod storage;
pub mod torture;
pub mod wire;
