//! Keys: byte strings in byte order.

use std::fmt;

use bytes::Bytes;

/// Longest key a client may use, in bytes.
pub const MAX_KEY_LENGTH: usize = 64 * 1024;

/// Longest *place* (see [`crate::ring::Partitioner`]): a key, with the hash that hashed partitioning puts
/// before it.
pub const MAX_PLACE_LENGTH: usize = MAX_KEY_LENGTH + 8;

/// A key. Within servers it is the key's place in the cluster's order; with byte-ordered partitioning the
/// two are the same. The order is that of the bytes, as unsigned numbers; a prefix comes first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

/// Why bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No bytes at all.
    #[error("the key is empty; it must have 1 to {MAX_KEY_LENGTH} bytes")]
    Empty,
    /// More than [`MAX_KEY_LENGTH`] bytes.
    #[error("the key has {length} bytes; it must have 1 to {MAX_KEY_LENGTH}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
}

impl Key {
    /// A client's key: 1 byte to 64 KiB.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Key, KeyError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(KeyError::Empty),
            length if length > MAX_KEY_LENGTH => Err(KeyError::TooLong { length }),
            _ => Ok(Key(bytes)),
        }
    }

    /// A bound of a range or a place computed by this crate: any bytes, also none.
    pub fn bound(bytes: impl Into<Bytes>) -> Key {
        Key(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, reference-counted.
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// The same key in memory of its own: it no longer keeps alive the frame it arrived in.
    pub fn detached(&self) -> Key {
        Key(Bytes::copy_from_slice(&self.0))
    }

    /// The least key greater than this one.
    pub fn successor(&self) -> Key {
        let mut bytes = Vec::with_capacity(self.0.len() + 1);
        bytes.extend_from_slice(&self.0);
        bytes.push(0);
        Key(bytes.into())
    }
}

/// As text, with other than printable ASCII escaped: for logs and traces.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_bounded_on_both_sides() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert!(Key::new(vec![0; MAX_KEY_LENGTH]).is_ok());
        let length = MAX_KEY_LENGTH + 1;
        assert_eq!(Key::new(vec![0; length]), Err(KeyError::TooLong { length }));
    }

    #[test]
    fn order_is_that_of_bytes_and_nothing_lies_between_a_key_and_its_successor() {
        let key = |bytes: &[u8]| Key::bound(bytes.to_vec());
        assert!(key(b"") < key(b"\0") && key(b"9") < key(b"9\0") && key(b"\x7f") < key(b"\x80"));
        let next = key(b"a").successor();
        assert!(key(b"a") < next && next <= key(b"a\0"));
    }
}
