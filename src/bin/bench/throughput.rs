//! `chord-bench throughput`.

use std::path::PathBuf;
use std::time::Duration;

use chord::bench::chart::{Chart, Group};
use chord::bench::check::Complaints;
use chord::bench::keys::Choice;
use chord::bench::load::{Load, Until};
use chord::bench::report::{Row, table, thousands};
use chord::bench::throughput::{Setting, measure};
use chord::model::Level;
use chord::ring::Partitioner;
use clap::Args;

use super::flags::{Ended, Own, judge, print_json, progress};

/// Flags that take lists are tried in all combinations, each on a cluster of its own.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  chord-bench throughput                                  half reads, half writes, at QUORUM
  chord-bench throughput --reads 0,100 --clients 1,64     four rows
  chord-bench throughput --servers 7 --replicas 1,3,5 --operations 200000
  chord-bench throughput --keys 10000,1000000 --choice zipfian --value-size 1024
  chord-bench throughput --at 127.0.0.1:9000,127.0.0.1:9001   a cluster that runs; its keys user000000000000… are overwritten

Exit codes: 0 all answers were right; 1 wrong answers; 2 it could not be measured.")]
pub(crate) struct Flags {
    /// Reads among all calls, in percent
    #[arg(long, value_delimiter = ',', default_value = "50", value_name = "PERCENT")]
    reads: Vec<f64>,
    /// Reads are scans of so many keys
    #[arg(long, value_name = "KEYS")]
    scan: Option<usize>,
    /// Clients, each with a connection of its own
    #[arg(long, value_delimiter = ',', default_value = "64")]
    clients: Vec<usize>,
    /// Calls that each client has in flight
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "CALLS")]
    pipeline: Vec<usize>,
    /// Bytes of a value, 16 at least
    #[arg(long, value_delimiter = ',', default_value = "100", value_name = "BYTES")]
    value_size: Vec<usize>,
    /// Keys
    #[arg(long, value_delimiter = ',', default_value = "10000")]
    keys: Vec<u64>,
    /// How keys are chosen: uniform, zipfian, latest or ascending
    #[arg(long, value_delimiter = ',', default_value = "uniform")]
    choice: Vec<Choice>,
    /// Level of reads and writes: one, quorum or all
    #[arg(long, value_delimiter = ',', default_value = "quorum")]
    level: Vec<Level>,
    /// Servers
    #[arg(long, value_delimiter = ',', default_value = "3", conflicts_with = "at")]
    servers: Vec<usize>,
    /// Copies of each key
    #[arg(long, value_delimiter = ',', default_value = "3", conflicts_with = "at")]
    replicas: Vec<usize>,
    /// byte-ordered or hashed
    #[arg(long, value_delimiter = ',', default_value = "byte-ordered", conflicts_with = "at")]
    partitioner: Vec<Partitioner>,
    /// Each call goes to a replica of its key
    #[arg(long)]
    routed: bool,
    /// A round ends after so many calls, instead of after some time
    #[arg(long, value_name = "CALLS")]
    operations: Option<u64>,
    /// Seconds of a round
    #[arg(long, default_value_t = 3.0, conflicts_with = "operations")]
    seconds: f64,
    /// Seconds before each round that do not count
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Rounds of each row
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Servers that run already, instead of a cluster of its own
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    at: Vec<String>,
    /// Processes of those servers, for what they cost
    #[arg(long, value_delimiter = ',', requires = "at")]
    pids: Vec<u32>,
    /// Seconds for all servers to be there
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    patience: f64,
    /// Of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A bar chart as SVG: calls a second of each row
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    own: Own,
}

/// One combination.
struct Case {
    setting: Setting,
    servers: usize,
    replicas: usize,
    partitioner: Partitioner,
}

pub(crate) async fn run(flags: Flags) -> Result<(), Ended> {
    let (progress, mut rows, mut wrong) = (progress(), Vec::new(), Complaints::default());
    for case in cases(&flags)? {
        let Case { setting, servers, replicas, partitioner } = case;
        let (row, complaints) = if flags.at.is_empty() {
            let sampled = Some(setting.load.keys);
            let cluster = flags.own.start(servers, replicas, partitioner, sampled, None)?;
            measure(&setting, cluster.addresses(), &cluster.pids(), &progress).await?
        } else {
            measure(&setting, &flags.at, &flags.pids, &progress).await?
        };
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

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn chart(flags: &Flags, rows: &[Row]) -> Chart {
    let list = |numbers: &[String]| numbers.join(", ");
    let texts = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>();
    let reads = flags.reads.iter().map(|percent| format!("{percent} %")).collect::<Vec<_>>();
    let what = match flags.operations {
        Some(count) => format!("{} calls", thousands(count as f64)),
        None => format!("{} s", flags.seconds),
    };
    let synced = flags.own.synced();
    let cluster = match flags.at.len() {
        0 => format!("{} servers, {synced}, ", list(&texts(&flags.servers))),
        count => format!("{count} servers that ran already, "),
    };
    let levels: Vec<_> = flags.level.iter().map(ToString::to_string).collect();
    Chart {
        title: "Calls a second".to_owned(),
        subtitle: format!(
            "{what} at {}, {} reads, {cluster}{} clients, values of {} B; median of {} rounds, from least to greatest",
            list(&levels),
            list(&reads),
            list(&texts(&flags.clients)),
            list(&texts(&flags.value_size)),
            flags.rounds,
        ),
        unit: "calls a second".to_owned(),
        digits: 0,
        series: vec!["chord".to_owned()],
        groups: rows
            .iter()
            .map(|row| Group { name: row.name.clone(), bars: vec![row.rate] })
            .collect(),
        line: None,
    }
}

fn cases(flags: &Flags) -> Result<Vec<Case>, Ended> {
    let mut cases = Vec::new();
    macro_rules! each {
        ($($name:ident in $list:expr;)* => $body:block) => { each!(@ [$($name in $list;)*] $body) };
        (@ [] $body:block) => { $body };
        (@ [$name:ident in $list:expr; $($rest:tt)*] $body:block) => {
            for $name in $list.iter().copied() { each!(@ [$($rest)*] $body) }
        };
    }
    each! {
        servers in flags.servers;
        replicas in flags.replicas;
        partitioner in flags.partitioner;
        keys in flags.keys;
        value_length in flags.value_size;
        choice in flags.choice;
        level in flags.level;
        reads in flags.reads;
        clients in flags.clients;
        pipeline in flags.pipeline;
        => {
            let mut name = Vec::new();
            let mut part = |many: bool, text: String| if many { name.push(text) };
            part(flags.servers.len() > 1, counted(servers, "server"));
            part(flags.replicas.len() > 1, counted(replicas, "replica"));
            part(flags.partitioner.len() > 1, partitioner.to_string());
            part(flags.keys.len() > 1, format!("{keys} keys"));
            part(flags.value_size.len() > 1, format!("{value_length} B"));
            part(flags.choice.len() > 1, choice.to_string());
            part(flags.level.len() > 1, level.to_string());
            part(flags.reads.len() > 1, format!("{reads} % reads"));
            part(flags.clients.len() > 1, counted(clients, "client"));
            part(flags.pipeline.len() > 1, format!("{pipeline} in flight"));
            if name.is_empty() {
                name.push("all".to_owned());
            }
            let load = Load {
                clients: clients.max(1),
                pipeline: pipeline.max(1),
                reads: reads / 100.0,
                scan: flags.scan,
                keys: keys.max(1),
                choice,
                value_length: value_length.max(chord::bench::keys::MIN_VALUE),
                may_break: false,
                seed: flags.seed,
            };
            let setting = Setting {
                name: name.join(", "),
                load,
                read_level: level,
                write_level: level,
                routed: flags.routed,
                warm_up: Duration::from_secs_f64(flags.warm_up.max(0.0)),
                until: match flags.operations {
                    Some(count) => Until::Operations(count),
                    None => Until::Elapsed(Duration::from_secs_f64(flags.seconds.max(0.1))),
                },
                rounds: flags.rounds.max(1),
                patience: Duration::from_secs_f64(flags.patience.max(0.0)),
            };
            cases.push(Case { setting, servers, replicas, partitioner });
        }
    }
    Ok(cases)
}
