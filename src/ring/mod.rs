//! Who keeps what.
//!
//! Keys lie on a line in byte order. The line is cut into [`Range`]s; each names its replicas in order of
//! preference, the first being its owner. A [`Topology`] is that list and nothing more: it is data, computed
//! once by a [`Placement`], and no other module may assume how its ranges came about, for they will split and
//! move under load.
//!
//! A [`Partitioner`] says where on the line a key lies. *Byte-ordered*, the key itself: neighbours stay
//! neighbours, which is what makes scans cheap, at the price that a popular stretch of keys is a popular
//! server. *Hashed*, eight bytes of hash before the key: spread evenly, in no order a user would know.
//! Everything behind the partitioner (store, hints, repair) sees places only.

mod partitioner;
mod placement;
mod topology;

pub use partitioner::{Partitioner, UnknownPartitioner};
pub use placement::{Placement, PlacementError};
pub use topology::{Range, Topology, TopologyError};
