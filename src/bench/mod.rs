//! How fast a store is, what it costs, and whether what it answers is true meanwhile.
//!
//! Three ideas. *One loop for every store*: [`load`] drives anything that implements [`target::Target`], so that Chord and its
//! peers are asked the same things in the same way by the same thread. *No figure without a check*: every value that is read is
//! known by its own bytes ([`keys`]), and no read may be older than what was acknowledged before it was sent ([`check`]); a store
//! that is fast and wrong has no figures. *Noise is shown, not hidden*: several rounds, with median and bounds, and what else
//! the machine was doing ([`report`], [`cost`]).
//!
//! | part | what it does |
//! |---|---|
//! | [`target`], [`chord`] | a store as the loop sees it, and Chord's own door |
//! | [`keys`], [`check`] | which key, which value, and whether an answer can be true |
//! | [`load`], `arrivals` | the loop, closed or open |
//! | [`cluster`], [`cost`] | processes of a run's own; what they take |
//! | [`throughput`], [`balance`], [`recovery`], [`outage`], [`neighbours`] | what is measured |
//! | [`report`], [`chart`], [`progress`] | tables, JSON, pictures, progress |
//!
//! Left out: more than one generator thread (a generator that takes more than one processor would take them from the servers
//! beside it), and other machines: all figures are of loopback.

mod arrivals;
pub mod balance;
pub mod chart;
pub mod check;
pub mod chord;
pub mod cluster;
pub mod cost;
pub mod keys;
pub mod load;
pub mod neighbours;
pub mod outage;
pub mod progress;
pub mod recovery;
pub mod report;
pub mod target;
pub mod throughput;
