//! A seeded world in which everything goes wrong, around the very same node, storage and wire.
//!
//! # What is real, what is pretended
//!
//! Real: the [`crate::node::Node`], the [`crate::storage::Engine`] and every byte it writes, the messages and every
//! byte of them. Pretended: time, the network, the medium ([`crate::storage::MemoryDisk`]), the clients. All chance
//! comes from one seed, so a run replays exactly: `chord-sim --seed N --trace`.
//!
//! # What goes wrong
//!
//! Messages are late, by a little or by seconds, overtake each other, get lost, come twice, also long after. Servers
//! are cut off from each other, in one direction or both, one by one or in halves. They crash, losing whatever was not
//! synced, in any part and torn in the middle, and come back; one at a time may come back with an empty disk, with a bit
//! of its log turned, or with an older copy of its folder. They stand still for seconds with messages in hand. Disks are
//! full for a while; a sync fails, and its server stops. Clocks differ by seconds and jump, one at a time by up to fifty
//! years. Coordinators die with calls
//! in hand.
//!
//! # What must hold
//!
//! Clusters have one to nine servers and one to five copies, in a ring or in groups, in the order of bytes or of hashes, and
//! may keep hardly any hint: `shape` draws that by the seed, and says which losses a shape covers. One run in a hundred is
//! twenty times as long.
//!
//! While faults go on, clients put, get, delete and scan a few keys and note what they were told. Then faults stop, and the
//! cluster must come to rest **by itself**, before anything is written or read: every server votes, every replica holds the
//! same, every hint is delivered and every mark gone, comparisons find nothing more, and nothing is mended twice. Then
//! everything is written and read once more, through every server. `invariants` has one property a file; `judge::oracle` decides whether each key has behaved as one copy. A run that did nothing proves nothing,
//! and fails.
//!
//! # Proof that it can fail
//!
//! [`crate::node::Flaw`] are rules left out on purpose; a test expects each to be caught within a number of seeds.
//!
//! # What is left out, as yet
//!
//! Connections, their bounds and their clients' tables.

mod history;
mod invariants;
mod network;
mod profile;
mod seed;
mod shape;
mod summary;
mod workload;
mod world;

pub use profile::{Activity, Fault, Profile};
pub(crate) use seed::Random;
pub use shape::{Fixed, Shape};
pub use summary::Summary;

pub use crate::node::Flaw;

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where all chance comes from.
    pub seed: u64,
    /// How much goes wrong.
    pub profile: Profile,
    /// What clients do.
    pub activity: Activity,
    /// What of the cluster's shape is not left to the seed.
    pub fixed: Fixed,
    /// Of all faults only this one.
    pub only: Option<Fault>,
    /// A rule left out on purpose.
    pub flaw: Option<Flaw>,
    /// Keep a line for everything that happens.
    pub trace: bool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the cluster looked like.
    pub shape: Shape,
    /// What was exercised.
    pub summary: Summary,
    /// What did not hold; empty if all did.
    pub violations: Vec<String>,
    /// Everything that happened, if it was asked for.
    pub trace: String,
    /// What clients did and were told, one operation a line of JSON, if a trace was asked for.
    pub history: String,
}

/// Runs one simulated cluster to its end.
pub fn run(options: Options) -> Report {
    world::World::new(options).run()
}

/// The command that replays a run.
pub fn replay(options: &Options) -> String {
    let flaw = options.flaw.map(|flaw| format!(" --flaw {}", flaw.name())).unwrap_or_default();
    let only = options.only.map(|fault| format!(" --only {}", fault.name())).unwrap_or_default();
    let activity = match options.activity {
        Activity::Any => String::new(),
        activity => format!(" --workload {}", activity.name()),
    };
    let (seed, profile, fixed) = (options.seed, options.profile.name(), options.fixed.flags());
    format!(
        "cargo run --release --bin chord-sim -- --seed {seed} --profile {profile}{activity}{fixed}{only}{flaw} --trace"
    )
}
