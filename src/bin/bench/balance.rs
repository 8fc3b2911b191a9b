//! `chord-bench balance`.

use std::path::PathBuf;

use chord::bench::balance::{Balance, balance};
use chord::bench::chart::{Chart, Group};
use chord::bench::report::{Spread, plain_table, thousands};
use chord::ring::Partitioner;
use clap::Args;

use super::flags::{Ended, Own, print_json, progress};

/// Puts keys in a row and counts what each server holds: placed by hash; in byte order with ranges cut by a sample of the keys;
/// and in byte order with ranges cut blindly, as a cluster does that is told nothing.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  chord-bench balance                                        100,000 keys on 7 servers, one copy each
  chord-bench balance --replicas 3 --chart balance.svg       with a picture")]
pub(crate) struct Flags {
    /// Keys
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Servers
    #[arg(long, default_value_t = 7)]
    servers: usize,
    /// Copies of each key
    #[arg(long, default_value_t = 1)]
    replicas: usize,
    /// Clients that put them
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// A histogram as SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    own: Own,
}

pub(crate) async fn run(flags: Flags) -> Result<(), Ended> {
    let kinds = [
        ("hashed", Partitioner::Hashed, None),
        ("byte-ordered, ranges from a sample", Partitioner::ByteOrdered, Some(flags.keys)),
        ("byte-ordered, ranges cut blindly", Partitioner::ByteOrdered, None),
    ];
    let mut found = Vec::new();
    for (name, partitioner, sampled) in kinds {
        let cluster = flags.own.start(flags.servers, flags.replicas, partitioner, sampled, None)?;
        let addresses = cluster.addresses();
        found.push(balance(name, addresses, flags.keys, flags.clients, progress()).await?);
    }
    if let Some(file) = &flags.chart {
        chart(&flags, &found).write(file)?;
    }
    if flags.json {
        return print_json(&found);
    }
    let mut table =
        plain_table(["", "fullest/mean", "emptiest/mean", "seconds", "keys of each server"]);
    for Balance { name, keys, fullest, emptiest, seconds } in &found {
        let keys: Vec<_> = keys.iter().map(|count| thousands(*count as f64)).collect();
        table.add_row([
            name.clone(),
            format!("{fullest:.3}"),
            format!("{emptiest:.3}"),
            format!("{seconds:.1}"),
            keys.join("  "),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// The last, with ranges cut blindly, would make a chart of one bar; it is told in words.
fn chart(flags: &Flags, found: &[Balance]) -> Chart {
    let (blind, found) = match found.split_last() {
        Some((blind, rest)) => (blind.fullest / flags.servers as f64 * 100.0, rest),
        None => (0.0, found),
    };
    let exact = |count: u64| Spread { median: count as f64, min: count as f64, max: count as f64 };
    let group = |server: usize| Group {
        name: format!("server {server}"),
        bars: found.iter().map(|one| exact(one.keys.get(server).copied().unwrap_or(0))).collect(),
    };
    let even = found.first().map_or(0.0, Balance::mean);
    Chart {
        title: "Keys of each server".to_owned(),
        subtitle: format!(
            "{} keys in a row, {} servers, {}. In byte order with ranges cut blindly, {blind:.0} % of them lie on one server.",
            thousands(flags.keys as f64),
            flags.servers,
            if flags.replicas == 1 {
                "one copy".to_owned()
            } else {
                format!("{} copies", flags.replicas)
            },
        ),
        unit: "keys".to_owned(),
        digits: 0,
        series: found.iter().map(|one| one.name.clone()).collect(),
        groups: (0..flags.servers).map(group).collect(),
        line: Some((even, "even".to_owned())),
    }
}
