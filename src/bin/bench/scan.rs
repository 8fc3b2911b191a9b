//! `chord-bench scan`.

use std::time::Duration;

use chord::bench::check::Complaints;
use chord::bench::load::Until;
use chord::bench::report::{millis, plain_table, thousands};
use chord::bench::throughput::{Setting, measure};
use chord::model::Level;
use clap::Args;

use super::flags::{Ended, One, Own, judge, print_json, progress};

/// Keys in order: scans of several lengths, each from a key of its own.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  chord-bench scan                                        10, 100 and 1,000 keys at a time
  chord-bench scan --level one --keys 1000000 --reads 95  while others write

Exit codes: 0 all answers were right; 1 wrong answers; 2 it could not be measured.")]
pub(crate) struct Flags {
    /// Keys of a scan
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000", value_name = "KEYS")]
    length: Vec<usize>,
    /// Clients, each with a connection and a call of its own
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Seconds of a round
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds of each length
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    own: Own,
}

pub(crate) async fn run(flags: Flags) -> Result<(), Ended> {
    let (mut rows, mut wrong) = (Vec::new(), Complaints::default());
    for length in &flags.length {
        let length = (*length).max(1);
        let setting = Setting {
            name: format!("{} keys", thousands(length as f64)),
            load: flags.one.load(flags.clients, Some(length)),
            read_level: flags.one.level,
            // What is scanned must be there on every replica.
            write_level: if flags.one.level == Level::One { Level::All } else { flags.one.level },
            routed: false,
            warm_up: Duration::from_secs(1),
            until: Until::Elapsed(Duration::from_secs_f64(flags.seconds.max(0.1))),
            rounds: flags.rounds.max(1),
            patience: Duration::from_secs(60),
        };
        let cluster = flags.one.start(&flags.own)?;
        let (row, complaints) =
            measure(&setting, cluster.addresses(), &cluster.pids(), &progress()).await?;
        wrong.add(complaints);
        rows.push((length, row));
    }
    let (lengths, rows): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    if flags.json {
        print_json(&rows)?;
        return judge(&rows, &wrong);
    }
    let mut table = plain_table([
        "",
        "scans/s",
        "least–most",
        "keys/s",
        "MB/s",
        "p50 ms",
        "p99",
        "max",
        "servers µs/key",
    ]);
    for (length, row) in lengths.iter().zip(&rows) {
        // Scans that begin near the last key give fewer; few do.
        let scans = row.rate.median * flags.one.load(1, Some(*length)).reads;
        let keys = scans * *length as f64;
        table.add_row([
            row.name.clone(),
            thousands(scans),
            format!("{}–{}", thousands(row.rate.min), thousands(row.rate.max)),
            thousands(keys),
            format!("{:.1}", keys * flags.one.value_size as f64 / 1e6),
            millis(row.reads.p50),
            millis(row.reads.p99),
            millis(row.reads.max),
            format!("{:.2}", row.store_cpu.median * row.rate.median / keys.max(1.0)),
        ]);
    }
    println!("{table}");
    judge(&rows, &wrong)
}
