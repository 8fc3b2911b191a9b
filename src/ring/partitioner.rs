//! A key's place in the order.

use std::fmt;
use std::str::FromStr;

use crate::model::Key;

/// Bytes that hashing puts before a key.
const HASH_LENGTH: usize = 8;

/// Turns a client's key into its place in the cluster's order, and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partitioner {
    /// The key is its own place.
    #[default]
    ByteOrdered,
    /// Eight big-endian bytes of XXH3-64 of the key (seed 0), then the key.
    Hashed,
}

impl Partitioner {
    /// Where `key` lies.
    pub fn place(self, key: &Key) -> Key {
        match self {
            Partitioner::ByteOrdered => key.clone(),
            Partitioner::Hashed => {
                let mut place = Vec::with_capacity(HASH_LENGTH + key.as_bytes().len());
                place.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(key.as_bytes()).to_be_bytes());
                place.extend_from_slice(key.as_bytes());
                Key::bound(place)
            }
        }
    }

    /// The key that lies at `place`. Of a place this partitioner never made, what is left of it.
    pub fn key(self, place: &Key) -> Key {
        match self {
            Partitioner::ByteOrdered => place.clone(),
            Partitioner::Hashed => {
                let bytes = place.to_bytes();
                Key::bound(bytes.slice(HASH_LENGTH.min(bytes.len())..))
            }
        }
    }

    /// Whether neighbouring keys have neighbouring places, so that a scan makes sense.
    pub fn keeps_order(self) -> bool {
        match self {
            Partitioner::ByteOrdered => true,
            Partitioner::Hashed => false,
        }
    }

    /// The name in flags, cluster files and answers.
    pub fn name(self) -> &'static str {
        match self {
            Partitioner::ByteOrdered => "byte-ordered",
            Partitioner::Hashed => "hashed",
        }
    }
}

impl fmt::Display for Partitioner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is no partitioner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no partitioner; write byte-ordered or hashed")]
pub struct UnknownPartitioner(String);

impl FromStr for Partitioner {
    type Err = UnknownPartitioner;

    fn from_str(text: &str) -> Result<Partitioner, UnknownPartitioner> {
        [Partitioner::ByteOrdered, Partitioner::Hashed]
            .into_iter()
            .find(|partitioner| partitioner.name() == text)
            .ok_or_else(|| UnknownPartitioner(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_comes_back_from_its_place(bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
            let key = Key::new(bytes).unwrap();
            for partitioner in [Partitioner::ByteOrdered, Partitioner::Hashed] {
                prop_assert_eq!(&partitioner.key(&partitioner.place(&key)), &key);
            }
        }
    }

    #[test]
    fn the_hash_is_fixed_for_ever() {
        // Changing it would lose every key of every hashed cluster.
        let place = Partitioner::Hashed.place(&Key::new("key1").unwrap());
        assert_eq!(place.as_bytes()[..8], xxhash_rust::xxh3::xxh3_64(b"key1").to_be_bytes());
        assert_eq!(&place.as_bytes()[8..], b"key1");
    }
}
