//! Deliberate faults of the log, for the simulator alone: see [`crate::node::Flaw`].

/// One rule left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StorageFlaw {
    /// Compaction drops tombstones.
    DropTombstones,
    /// Damage in the middle of a log is cut away as if a crash had torn it.
    CutDamage,
    /// A record's checksum vouches for its bytes alone, wherever they are.
    Unsalted,
}
