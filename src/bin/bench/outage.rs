//! `chord-bench outage`.

use std::time::Duration;

use chord::bench::outage::{Outage, Plan, outage};
use chord::bench::report::{millis, plain_table, thousands};
use clap::Args;

use super::flags::{Ended, One, Own, judge, print_json, progress};

/// Kills one server under load with `kill -9`, and starts it again: what clients notice, and how fast it gets what it has missed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  chord-bench outage                                      half reads, half writes; one of three servers is killed
  chord-bench outage --keys 1000000 --lose-disk           it comes back with nothing and is rebuilt

Calls that were on their way to the killed server fail; their clients go on with another one.
Exit codes: 0 all answers were right; 1 wrong answers; 2 it could not be measured.")]
pub(crate) struct Flags {
    /// Clients, each with a connection and a call of its own
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Seconds of each part of the run
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The server comes back without its data
    #[arg(long)]
    lose_disk: bool,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    own: Own,
}

pub(crate) async fn run(flags: Flags) -> Result<(), Ended> {
    if flags.one.servers < 2 {
        let why = "one server alone cannot be missed; give --servers 2 or more";
        return Err(Ended::Failed(why.to_owned()));
    }
    let mut cluster = flags.one.start(&flags.own)?;
    let plan = Plan {
        load: flags.one.load(flags.clients, None),
        level: flags.one.level,
        part: Duration::from_secs_f64(flags.seconds.max(1.0)),
        lose_disk: flags.lose_disk,
    };
    let (found, wrong) = outage(&mut cluster, &plan, progress()).await?;
    if flags.json {
        print_json(&found)?;
    } else {
        print(&found, flags.lose_disk);
    }
    judge(&[], &wrong)
}

/// `lost`: it had to get more than hints.
fn print(found: &Outage, lost: bool) {
    let mut table = plain_table([
        "",
        "ops/s",
        "to before",
        "p50 ms",
        "p99",
        "to before",
        "slowest ms",
        "in the first second",
        "failed",
    ]);
    let healthy = found.parts.first();
    for part in &found.parts {
        let rate = healthy.map_or(1.0, |first| part.round.rate / first.round.rate.max(1.0));
        let p99 = |part: &chord::bench::outage::Part| part.round.latency.p99 as f64;
        let slower = healthy.map_or(1.0, |first| p99(part) / p99(first).max(1.0));
        table.add_row([
            part.name.clone(),
            thousands(part.round.rate),
            format!("{rate:.2}"),
            millis(part.round.latency.p50),
            millis(part.round.latency.p99),
            format!("{slower:.2}"),
            millis(part.slowest),
            part.slowest_at_first.map(millis).unwrap_or_default(),
            part.round.failed.to_string(),
        ]);
    }
    println!("{table}");
    let Outage { ready_seconds, whole_seconds, hints, hint_rate, .. } = found;
    println!(
        "{} hints waited; ready {ready_seconds:.2} s after its start; it had everything after another {whole_seconds:.2} s{}",
        thousands(*hints as f64),
        if *hint_rate > 0.0 && !lost {
            format!(" ({} hints a second)", thousands(*hint_rate))
        } else {
            String::new()
        },
    );
}
