//! Small numbers with a meaning of their own, so that none is taken for another.

use std::fmt;

/// A server of the cluster, for ever: a number is never given to a second machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u16);

/// One life of a server's data folder. A server that lost its disk comes back with a greater one, which its
/// peers have recorded before it may vote; answers of the former life are then discarded. 0: none yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// A folder that has not been given one yet.
    pub const NONE: Incarnation = Incarnation(0);

    /// The next greater one. Saturates at 2³¹ − 1, which the wire can carry.
    pub fn next(self) -> Incarnation {
        Incarnation((self.0 + 1).min(i32::MAX as u32))
    }
}

/// A random number given to a data folder when it is made: tells two folders of one server apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FolderId(pub u64);

/// Counts the changes of one range's replica set. Constant until ranges move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// A request between servers. Unique for its sender, also across restarts: the driver gives each process
/// life a starting number of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A client's call as the driver knows it: where the answer goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
