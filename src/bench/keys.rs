//! Which key comes next, and what is stored under it.
//!
//! Keys have 16 bytes: `user` and twelve digits, so numbers in a row are keys in a row. A value says which key it belongs to and
//! which write it was, and every further byte follows from these two: whoever reads it sees whether it is whole, and whose it is.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

/// Bytes of a key.
pub const KEY_LENGTH: usize = 16;

/// Bytes of the shortest value.
pub const MIN_VALUE: usize = 16;

/// How unequal Zipf's choice is; the usual one of such benchmarks.
const EXPONENT: f64 = 0.99;

/// How clients choose keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Each as often as any other.
    Uniform,
    /// A few much more often than the others; which ones has nothing to do with their order.
    Zipfian,
    /// As zipfian, and the most frequent are those last written by [`Choice::Ascending`]; here: the highest numbers.
    Latest,
    /// One after the other, then from the beginning.
    Ascending,
}

impl Choice {
    const ALL: [Choice; 4] = [Choice::Uniform, Choice::Zipfian, Choice::Latest, Choice::Ascending];

    /// The name in flags.
    pub fn name(self) -> &'static str {
        match self {
            Choice::Uniform => "uniform",
            Choice::Zipfian => "zipfian",
            Choice::Latest => "latest",
            Choice::Ascending => "ascending",
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No such choice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no choice of keys; write uniform, zipfian, latest or ascending")]
pub struct UnknownChoice(String);

impl FromStr for Choice {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<Choice, UnknownChoice> {
        let found = Choice::ALL.into_iter().find(|choice| choice.name() == text);
        found.ok_or_else(|| UnknownChoice(text.to_owned()))
    }
}

/// Chooses keys' numbers, from 0 to `count` - 1.
#[derive(Debug)]
pub struct Chooser {
    choice: Choice,
    count: u64,
    zipf: Option<Zipf<f64>>,
    random: SmallRng,
    /// Of [`Choice::Ascending`]: the next. All clients share it.
    next: Rc<Cell<u64>>,
}

impl Chooser {
    /// The same seed chooses the same keys. `count` is at least 1.
    pub fn new(choice: Choice, count: u64, seed: u64, next: Rc<Cell<u64>>) -> Chooser {
        let count = count.max(1);
        let zipf = match choice {
            Choice::Zipfian | Choice::Latest => Zipf::new(count as f64, EXPONENT).ok(),
            Choice::Uniform | Choice::Ascending => None,
        };
        Chooser { choice, count, zipf, random: SmallRng::seed_from_u64(seed), next }
    }

    /// The next key's number.
    pub fn key(&mut self) -> u64 {
        let rank =
            self.zipf.map(|zipf| (zipf.sample(&mut self.random) as u64 - 1).min(self.count - 1));
        match (self.choice, rank) {
            (Choice::Zipfian, Some(rank)) => mix(rank) % self.count,
            (Choice::Latest, Some(rank)) => self.count - 1 - rank,
            (Choice::Ascending, _) => {
                let next = self.next.get();
                self.next.set(next + 1);
                next % self.count
            }
            (_, _) => self.random.random_range(0..self.count),
        }
    }

    /// True so often, from 0 to 1.
    pub fn chance(&mut self, share: f64) -> bool {
        self.random.random::<f64>() < share
    }
}

/// SplitMix64's step: a permutation of all numbers.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The key with this number.
pub fn key(number: u64) -> [u8; KEY_LENGTH] {
    let mut bytes = *b"user000000000000";
    let mut rest = number;
    for byte in bytes[4..].iter_mut().rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    bytes
}

/// The number of a key.
pub fn number(key: &[u8]) -> Option<u64> {
    std::str::from_utf8(key.strip_prefix(b"user")?).ok()?.parse().ok()
}

/// Makes `into` the value of that write of that key, of so many bytes, [`MIN_VALUE`] at least.
pub fn fill(into: &mut Vec<u8>, number: u64, write: u64, length: usize) {
    into.clear();
    into.extend_from_slice(&number.to_be_bytes());
    into.extend_from_slice(&write.to_be_bytes());
    let seed = mix(number ^ write.rotate_left(32));
    let mut at = 0u64;
    while into.len() < length {
        let bytes = seed.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes();
        let left = (length - into.len()).min(8);
        into.extend_from_slice(&bytes[..left]);
        at += 1;
    }
}

/// Which write of that key a value was, if it is whole and has this length.
pub fn write_of(value: &[u8], number: u64, length: usize, scratch: &mut Vec<u8>) -> Option<u64> {
    let (head, rest) = value.split_first_chunk::<8>()?;
    let write = u64::from_be_bytes(*rest.first_chunk::<8>()?);
    if u64::from_be_bytes(*head) != number || value.len() != length {
        return None;
    }
    fill(scratch, number, write, length);
    (scratch.as_slice() == value).then_some(write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_by_its_key_and_any_other_byte_is_seen() {
        let (mut value, mut scratch) = (Vec::new(), Vec::new());
        for length in [MIN_VALUE, 32, 100, 1021] {
            fill(&mut value, 7, 3, length);
            assert_eq!(write_of(&value, 7, length, &mut scratch), Some(3));
            assert_eq!(write_of(&value, 8, length, &mut scratch), None);
            for at in 0..length {
                let mut wrong = value.clone();
                wrong[at] ^= 1;
                // A changed number of the write changes what must follow, if anything does.
                let seen = write_of(&wrong, 7, length, &mut scratch) != Some(3);
                assert!(seen, "byte {at} of {length}");
            }
            assert_eq!(write_of(&value[..length - 1], 7, length, &mut scratch), None);
        }
    }

    #[test]
    fn keys_in_a_row_have_numbers_in_a_row() {
        assert!(key(9) < key(10) && key(99_999) < key(100_000));
        assert_eq!(&key(10_000_000), b"user000010000000");
        assert_eq!(number(&key(123_456)), Some(123_456));
        assert_eq!(number(b"user"), None);
    }

    #[test]
    fn choices_are_what_they_are_called() {
        let counts = |choice| {
            let mut chooser = Chooser::new(choice, 100, 1, Rc::default());
            let mut counts = vec![0u32; 100];
            (0..20_000).for_each(|_| counts[chooser.key() as usize] += 1);
            counts
        };
        assert!(counts(Choice::Uniform).iter().all(|count| (120..290).contains(count)));
        assert!(counts(Choice::Ascending).iter().all(|count| *count == 200));
        let latest = counts(Choice::Latest);
        assert!(latest[99] > 3000 && latest[99] > latest[98] && latest[98] > latest[50]);
        let zipfian = counts(Choice::Zipfian);
        assert!(
            zipfian.iter().max() > Some(&3000) && zipfian[0] < 3000,
            "the frequent are scattered"
        );
    }
}
