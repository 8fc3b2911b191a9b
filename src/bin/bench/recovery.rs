//! `chord-bench recovery`.

use chord::bench::check::Complaints;
use chord::bench::keys::MIN_VALUE;
use chord::bench::recovery::{Recovery, recovery};
use chord::bench::report::{plain_table, thousands};
use chord::ring::Partitioner;
use clap::Args;

use super::flags::{Ended, Own, judge, print_json, progress};

/// Fills one server, kills it with `kill -9`, and starts it again: how long until it is ready, and what keys cost in memory and on
/// disk.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  chord-bench recovery                                    a million keys with values of 100 bytes
  chord-bench recovery --keys 100000,1000000,4000000 --sync 1s --server-flag=--memory=2GiB

'first' is the start after the kill that came in the middle of a segment; the others find nothing new.
Exit codes: 0 all answers were right; 1 wrong answers; 2 it could not be measured.")]
pub(crate) struct Flags {
    /// Keys
    #[arg(long, value_delimiter = ',', default_value = "1000000")]
    keys: Vec<u64>,
    /// Bytes of a value, 16 at least
    #[arg(long, default_value_t = 100, value_name = "BYTES")]
    value_size: usize,
    /// Restarts after the first
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    own: Own,
}

pub(crate) async fn run(flags: Flags) -> Result<(), Ended> {
    let (mut found, mut wrong) = (Vec::new(), Complaints::default());
    for keys in &flags.keys {
        let mut cluster = flags.own.start(1, 1, Partitioner::ByteOrdered, None, None)?;
        let length = flags.value_size.max(MIN_VALUE);
        let (one, complaints) =
            recovery(&mut cluster, (*keys).max(1), length, flags.rounds.max(1), progress()).await?;
        wrong.add(complaints);
        found.push(one);
    }
    if flags.json {
        print_json(&found)?;
    } else {
        print(&found);
    }
    judge(&[], &wrong)
}

fn print(found: &[Recovery]) {
    let mut table = plain_table([
        "keys",
        "stored/s",
        "files MB",
        "first start s",
        "start s",
        "least–most",
        "memory MB",
        "B/key",
        "over key and value",
        "after a start MB",
    ]);
    let megabytes = |bytes: u64| thousands(bytes as f64 / 1e6);
    for one in found {
        table.add_row([
            thousands(one.keys as f64),
            thousands(one.stored_rate),
            megabytes(one.data_bytes),
            format!("{:.2}", one.first_seconds),
            format!("{:.2}", one.seconds.median),
            format!("{:.2}–{:.2}", one.seconds.min, one.seconds.max),
            megabytes(one.memory),
            format!("{:.0}", one.memory_per_key),
            format!("{:.0}", one.overhead_per_key),
            megabytes(one.memory_after),
        ]);
    }
    println!("{table}");
}
