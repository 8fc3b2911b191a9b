//! Deliberate faults of the log, for the simulator alone: see [`crate::node::Flaw`]. And what a hostile client stores.

use super::Record;
use super::record::{self, Seed, UNSALTED};
use crate::model::{Cell, Content, Incarnation, Key, ServerId, Version};

/// One rule left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StorageFlaw {
    /// Compaction drops tombstones.
    DropTombstones,
    /// Damage in the middle of a log is cut away as if a crash had torn it.
    CutDamage,
    /// A record's checksum vouches for its bytes alone, wherever they are. `tests/forged.rs` notices it, too.
    Unsalted,
    /// Of two contents under one version the one that came first stays.
    EqualVersionsKeepTheFirst,
}

/// The bytes of a record that nobody has appended, as anyone can make them who has read this code: of this key, with a time
/// far ahead, at this log position; with checksums as of a segment with this salt, or of none.
pub(crate) fn forgery(key: &Key, sequence: u64, salt: Option<u64>) -> Vec<u8> {
    let version =
        Version { time: i64::MAX / 2, server: ServerId(1), incarnation: Incarnation(1), step: 0 };
    let cell = Cell { version, content: Content::Value("forged".into()) };
    let (seed, record) =
        (Seed::new(salt.unwrap_or(UNSALTED), 1), Record::Put { key: key.clone(), cell });
    let mut out = Vec::new();
    record::encode(seed, 0, &record, (sequence, sequence.saturating_sub(1)), &mut out);
    out
}
