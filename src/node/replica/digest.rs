//! A range in two numbers: replicas that hold the same have the same.

use crate::model::{Stamp, Version};

/// Of the cells of one range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) count: u64,
    /// Of keys and versions.
    pub(super) hash: u64,
    /// Of keys, versions and contents, as far as those are known.
    contents: u64,
    /// Keys whose content is not known.
    unread: u64,
}

impl Digest {
    pub(super) fn add(&mut self, key: &[u8], stamp: Stamp) {
        self.count += 1;
        self.unread += u64::from(stamp.checksum.is_none());
        self.mix(key, stamp);
    }

    pub(super) fn remove(&mut self, key: &[u8], stamp: Stamp) {
        let unread = u64::from(stamp.checksum.is_none());
        debug_assert!(self.count > 0 && self.unread >= unread, "a key that was not counted");
        self.count -= 1;
        self.unread -= unread;
        self.mix(key, stamp);
    }

    /// The hash with contents, if all are known.
    pub(super) fn contents(&self) -> Option<u64> {
        (self.unread == 0).then_some(self.contents)
    }

    fn mix(&mut self, key: &[u8], stamp: Stamp) {
        let hash = hash(key, stamp.version);
        self.hash ^= hash;
        if let Some(checksum) = stamp.checksum {
            // So mixed that no two of them cancel each other out, as plain checksums of two keys might.
            let mixed = hash ^ (checksum.number() as u64).wrapping_mul(MIXER);
            self.contents ^= (mixed ^ (mixed >> 32)).wrapping_mul(MIXER);
        }
    }
}

/// Odd, and as good as random: the golden ratio in 64 bits.
const MIXER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Of a key and a version.
fn hash(key: &[u8], version: Version) -> u64 {
    let mut seed = [0; 20];
    seed[..8].copy_from_slice(&version.time.to_be_bytes());
    seed[8..10].copy_from_slice(&version.server.0.to_be_bytes());
    seed[10..14].copy_from_slice(&version.incarnation.0.to_be_bytes());
    seed[14..18].copy_from_slice(&version.step.to_be_bytes());
    xxhash_rust::xxh3::xxh3_64_with_seed(key, xxhash_rust::xxh3::xxh3_64(&seed))
}
