//! The vocabulary: values only, no behaviour that reaches outside.
//!
//! A [`Cell`] is what one key holds: a value or a tombstone, with the [`Version`] under which it was written.
//! Replicas may meet cells in any order, twice, or years late; they agree all the same, because there is one
//! rule, [`Cell::merge`]: keep the greater version, and of two contents under one version the one with the greater
//! [`Checksum`]. Everything else in this crate exists to decide *which*
//! versions are issued, *when* a cell may be shown, and *how many* replicas must hold it.
//!
//! What is left out: no module here knows that a network, a disk or a clock exists. Times come in as
//! [`Now`] and [`HybridClock`] is fed from outside.

mod cell;
mod disk;
mod id;
mod key;
mod level;
mod message;
mod pending;
mod stamp;
mod status;
mod time;
mod version;

pub use cell::{Cell, Content, MAX_VALUE_LENGTH};
pub use disk::DiskState;
pub use id::{CallId, Epoch, FolderId, Incarnation, RequestId, ServerId};
pub use key::{Key, KeyError, MAX_KEY_LENGTH, MAX_PLACE_LENGTH};
pub use level::{Level, Reached, UnknownLevel};
pub use message::{
    ClientRequest, ClientResponse, Failure, Hello, HelloRefusal, InspectSource, Invalid, Join,
    PageEntry, PeerAnswer, PeerReply, PeerRequest, PreparedPut, Proof, Read, Refusal, Remembered,
    ScanEntry, Sender,
};
pub use pending::Pending;
pub use stamp::{Checksum, Stamp};
pub use status::{
    DamagedRecord, PeerStatus, ScrubStatus, Status, TopologyView, ViewRange, ViewServer,
};
pub use time::{FAR_FUTURE, HybridClock, Instant, Now};
pub use version::{NoVersion, Version};
