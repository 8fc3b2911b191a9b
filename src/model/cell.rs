//! Cells and the one merge rule.

use bytes::Bytes;

use super::{Checksum, Version};

/// Longest value, in bytes: what fits a frame of 16,384,000 bytes beside the longest key.
pub const MAX_VALUE_LENGTH: usize = 15 * 1024 * 1024;

/// What a write put there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// The key was deleted.
    Tombstone,
    /// The key holds these bytes; there may be none.
    Value(Bytes),
}

impl Content {
    /// The value, unless this is a tombstone.
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            Content::Tombstone => None,
            Content::Value(value) => Some(value),
        }
    }

    /// Bytes of the value; 0 for a tombstone.
    pub fn len(&self) -> usize {
        self.value().map_or(0, Bytes::len)
    }

    /// Whether there are no bytes: a tombstone, or an empty value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What one key holds: content under a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The write that made it.
    pub version: Version,
    /// What it wrote.
    pub content: Content,
}

impl Cell {
    /// Whether this cell takes the place of `other`: the greater version does. Equal versions hold equal
    /// content, unless a client has put two under one ticket: then the greater [`Checksum`] wins, so that replicas still agree.
    pub fn supersedes(&self, other: &Cell) -> bool {
        self.version > other.version
            || self.version == other.version
                && Checksum::of(&self.content) > Checksum::of(&other.content)
    }

    /// The cell that two replicas agree on: the greater. Commutative, associative, idempotent.
    pub fn merge(self, other: Cell) -> Cell {
        if other.supersedes(&self) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Incarnation, ServerId};

    fn cells() -> impl Strategy<Value = Cell> {
        (1i64..4, 0u16..3, 0u32..2, proptest::option::of(proptest::collection::vec(0u8..3, 0..2)))
            .prop_map(|(time, server, incarnation, value)| Cell {
                version: Version {
                    time,
                    server: ServerId(server),
                    incarnation: Incarnation(incarnation),
                    step: 0,
                },
                content: value.map_or(Content::Tombstone, |value| Content::Value(value.into())),
            })
    }

    proptest! {
        #[test]
        fn merge_is_commutative_associative_and_idempotent(a in cells(), b in cells(), c in cells()) {
            prop_assert_eq!(a.clone().merge(b.clone()), b.clone().merge(a.clone()));
            prop_assert_eq!(
                a.clone().merge(b.clone()).merge(c.clone()),
                a.clone().merge(b.clone().merge(c.clone()))
            );
            prop_assert_eq!(a.clone().merge(a.clone()), a.clone());
            let merged = a.clone().merge(b.clone());
            prop_assert!(merged.version >= a.version && merged.version >= b.version);
        }
    }
}
