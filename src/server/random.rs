//! Chance: seeds from the operating system, and a small generator for jitter.

use std::fs::File;
use std::io::{self, Read};

/// Eight unpredictable bytes. Asked for a few times at start only, so the device file will do and no crate is
/// needed.
pub(crate) fn seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// SplitMix64: spreads reconnecting servers in time. Nothing secret or important depends on it.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    /// A sequence of its own for each seed.
    pub(crate) fn new(seed: u64) -> Jitter {
        Jitter(seed)
    }

    /// Evenly in `0..=most`, near enough.
    pub(crate) fn up_to(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        mixed.checked_rem(most.saturating_add(1)).unwrap_or(mixed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_seeds_differ_and_jitter_stays_within_its_bound() {
        assert_ne!(seed().unwrap(), seed().unwrap());
        let mut jitter = Jitter::new(7);
        assert!((0..1000).all(|_| jitter.up_to(9) <= 9));
        jitter.up_to(u64::MAX);
        assert_eq!(jitter.up_to(0), 0);
    }
}
