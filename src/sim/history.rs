//! What clients did, and what they were told.

use crate::model::{Key, Level, ServerId, Version};

/// A value by its number; 0 is *nothing there*. Every put has a number of its own.
pub(super) type Value = u32;

/// One operation on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) client: usize,
    /// Who coordinated, or was asked last.
    pub(super) server: ServerId,
    pub(super) level: Level,
    pub(super) key: Key,
    pub(super) kind: Kind,
    /// Virtual microseconds.
    pub(super) start: u64,
    /// When it ended; of an unknown write, when it was given up.
    pub(super) end: u64,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What was read is in the outcome.
    Read,
    /// A delete writes 0.
    Write(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Of a write.
    Done(Version),
    /// Of a read.
    Found(Value),
    /// A definite no.
    Refused,
    /// Of a write: it may take effect at any later time, or never. Of a read: nothing is known.
    Unknown,
}
