//! Every door takes any bytes: corpora, and seeded mutations of them, for some seconds each. For as long as one likes, and
//! guided by coverage: `scripts/fuzz.sh`.

#![allow(clippy::unwrap_used, reason = "a test falls where it goes wrong")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chord::fuzz::{TARGETS, Target};

/// Mutants of each target.
const MUTANTS: u64 = 60_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

/// An input a line, in base64.
fn corpus(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/corpora/{}.txt", target.name))
}

/// The inputs that coverage has found, and the seeds.
fn inputs(target: &Target) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(corpus(target))
        .unwrap_or_else(|error| panic!("{}: {error}", corpus(target).display()));
    let kept = text.lines().map(|line| BASE64_STANDARD.decode(line).unwrap());
    kept.chain((target.seeds)()).collect()
}

/// Numbers at which lengths and counts turn.
const INTERESTING: [u32; 8] = [0, 1, 0x7f, 0x80, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

fn mutate(inputs: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = inputs[random.below(inputs.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let rest = bytes.len().saturating_sub(at);
        match random.below(8) {
            _ if bytes.is_empty() => bytes.push(random.below(256) as u8),
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.below(256) as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.below(256) as u8),
            4 => drop(bytes.drain(at..at + random.below(rest.min(16) + 1))),
            5 => {
                let number = INTERESTING[random.below(INTERESTING.len())].to_be_bytes();
                let length = rest.min(4);
                bytes[at..at + length].copy_from_slice(&number[..length]);
            }
            6 => {
                let piece = bytes[at..at + random.below(rest.min(64) + 1)].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {
                let other = &inputs[random.below(inputs.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.below(other.len())..]);
            }
        }
    }
    bytes
}

fn drive(target: &Target, bytes: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_err() {
        panic!("{}: these bytes: {bytes:?}", target.name);
    }
}

fn any_bytes(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let inputs = inputs(target);
    assert!(inputs.len() > 3, "{name}: hardly a corpus");
    for input in &inputs {
        drive(target, input);
        // Every place at which it may be cut.
        for end in (0..input.len()).take(200) {
            drive(target, &input[..end]);
        }
    }
    let mut random = Random(name.len() as u64);
    for _ in 0..MUTANTS {
        drive(target, &mutate(&inputs, &mut random));
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { any_bytes(stringify!($name)); })*

        #[test]
        fn every_target_is_driven() {
            let driven = [$(stringify!($name)),*];
            assert_eq!(TARGETS.map(|target| target.name), driven);
        }
    };
}

targets! { frames messages log key_file console records forged }

/// Where coverage-guided fuzzing begins if there is no corpus: `cargo test --test fuzz -- --ignored write_seeds`.
#[test]
#[ignore = "no check but a tool: it replaces the corpora by the seeds"]
fn write_seeds() {
    for target in &TARGETS {
        let line = |seed: &Vec<u8>| BASE64_STANDARD.encode(seed) + "\n";
        fs::write(corpus(target), (target.seeds)().iter().map(line).collect::<String>()).unwrap();
    }
}
