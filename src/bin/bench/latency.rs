//! `chord-bench latency`.

use std::path::PathBuf;
use std::time::Duration;

use chord::bench::chart::{Chart, Group};
use chord::bench::check::Complaints;
use chord::bench::load::Until;
use chord::bench::report::{Row, Spread, table, thousands};
use chord::bench::throughput::{Setting, measure};
use clap::Args;

use super::flags::{Ended, One, Own, judge, print_json, progress};

/// Calls come at a rate of their own, whatever the store does (a Poisson process); a latency counts from the moment at which its
/// call was due.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  chord-bench latency                                     half reads, half writes, at 1,000, 5,000 and 10,000 calls a second
  chord-bench latency --rate 2000 --level all --seconds 30
  chord-bench latency --chart latency.svg

A store that cannot keep up shows latencies of seconds: calls wait their turn.
Exit codes: 0 all answers were right; 1 wrong answers; 2 it could not be measured.")]
pub(crate) struct Flags {
    /// Calls a second
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,10000", value_name = "CALLS")]
    rate: Vec<f64>,
    /// Connections; a call that finds none free waits, and that counts
    #[arg(long, default_value_t = 256)]
    clients: usize,
    /// Seconds of a round
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Rounds of each rate
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A bar chart as SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
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
    for rate in &flags.rate {
        if *rate <= 0.0 {
            return Err(Ended::Failed(format!("--rate {rate} is no rate; give calls a second")));
        }
        let length = Duration::from_secs_f64(flags.seconds.max(0.1));
        let setting = Setting {
            name: format!("{} calls/s asked", thousands(*rate)),
            load: flags.one.load(flags.clients, None),
            read_level: flags.one.level,
            write_level: flags.one.level,
            routed: false,
            warm_up: Duration::from_secs(1),
            until: Until::Arrivals { rate: *rate, length },
            rounds: flags.rounds.max(1),
            patience: Duration::from_secs(60),
        };
        let cluster = flags.one.start(&flags.own)?;
        let (row, complaints) =
            measure(&setting, cluster.addresses(), &cluster.pids(), &progress()).await?;
        wrong.add(complaints);
        rows.push(row);
    }
    if let Some(file) = &flags.chart {
        chart(&flags, &rows).write(file)?;
    }
    if flags.json {
        print_json(&rows)?;
    } else {
        println!("{}", table(&rows));
    }
    judge(&rows, &wrong)
}

fn chart(flags: &Flags, rows: &[Row]) -> Chart {
    let group = |row: &Row| {
        let bar = |of: fn(&Row) -> u64, round: fn(&chord::bench::report::Round) -> u64| {
            let rounds = row.rounds.iter().map(|each| round(each) as f64 / 1e3);
            let Spread { min, max, .. } = Spread::of(rounds);
            Spread { median: of(row) as f64 / 1e3, min, max }
        };
        let bars = vec![
            bar(|row| row.latency.p50, |round| round.latency.p50),
            bar(|row| row.latency.p99, |round| round.latency.p99),
            bar(|row| row.latency.p999, |round| round.latency.p999),
        ];
        Group { name: row.name.clone(), bars }
    };
    Chart {
        title: "Latency of calls that come whatever happens".to_owned(),
        subtitle: format!("{}; median of {} rounds", flags.one.describe(&flags.own), flags.rounds,),
        unit: "milliseconds".to_owned(),
        digits: 2,
        series: ["p50", "p99", "p99.9"].map(str::to_owned).to_vec(),
        groups: rows.iter().map(group).collect(),
        line: None,
    }
}
