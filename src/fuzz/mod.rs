//! Every door that takes bytes from outside, as a function of any bytes: what a fuzzer drives.
//!
//! A target takes bytes, does with them what the program would, and panics if something does not hold that must hold for
//! *any* bytes; most often that what was understood can be said again, and that nothing depends on how bytes arrive.
//! The same functions serve two drivers: `tests/fuzz` (corpora and seeded mutations, some seconds in every test run) and
//! `tests/libfuzzer` (guided by coverage, for as long as one likes; `scripts/fuzz.sh`).
//!
//! Checksums would keep a fuzzer out of whatever is behind them, so those of logs and key files are mended first for half
//! of the inputs: what a checksum vouches for must do no harm either.
//!
//! Left out: the HTTP door, whose parsers are hyper's and serde's (Schemathesis looks at it, in `tests/foreign`).

mod console;
mod folder;
mod thrift;

/// A door, by its name.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Takes any bytes; panics if something does not hold.
    pub run: fn(&[u8]),
    /// Inputs that get far, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All doors.
pub const TARGETS: [Target; 7] = [
    Target { name: "frames", run: thrift::frames, seeds: thrift::seeds },
    Target { name: "messages", run: thrift::messages, seeds: thrift::seeds },
    Target { name: "log", run: folder::log, seeds: folder::log_seeds },
    Target { name: "key_file", run: folder::key_file, seeds: folder::key_file_seeds },
    Target { name: "console", run: console::console, seeds: console::console_seeds },
    Target { name: "records", run: console::records, seeds: console::record_seeds },
    Target { name: "forged", run: folder::forged, seeds: folder::forged_seeds },
];

/// Drives one door.
///
/// # Panics
/// There is no door of that name, or something does not hold.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("there is no target {name}")).run)(data);
}
