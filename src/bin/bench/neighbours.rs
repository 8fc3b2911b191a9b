//! `chord-bench neighbours`.

use std::process::Command;
use std::time::Duration;

use chord::bench::check::Complaints;
use chord::bench::cluster::Cluster;
use chord::bench::neighbours::{
    OVERLOAD, Overload, Plan, Row, VICTIM, all_away, one_in_trouble, overload, returning,
};
use chord::bench::report::{Round, millis, plain_table, thousands};
use chord::torture::{Injection, OwnDisk};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::flags::{Ended, One, Own, judge, print_json, progress};

/// What clients of the others notice while one server is slow, gone, or coming back; and whether the store recovers by itself from
/// having been away, and from being asked too much.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  chord-bench neighbours                                  every kind of trouble, about six minutes
  chord-bench neighbours --trouble paused,killed --rate 5000
  chord-bench neighbours --trouble coming-back --hints 1000000

Latencies count from the moment at which a call was due. 'disk hangs' needs root and a loop device, 'slow syncs' needs strace; what
the machine does not permit is left out by name.
Exit codes: 0 all answers were right; 1 wrong answers; 2 it could not be measured.")]
pub(crate) struct Flags {
    /// Kinds of trouble; without it, all of them
    #[arg(long, value_delimiter = ',', value_enum)]
    trouble: Vec<Trouble>,
    /// Calls a second
    #[arg(long, default_value_t = 2_000.0, value_name = "CALLS")]
    rate: f64,
    /// Connections; with 'overload', those that just keep the store busy
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Seconds of each part of a run: before, during, after
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Writes that the server that comes back has missed
    #[arg(long, default_value_t = 1_000_000)]
    hints: u64,
    /// Clients that keep trying while all servers are away
    #[arg(long, default_value_t = 256)]
    retrying: usize,
    /// Seconds for which all servers are away
    #[arg(long, default_value_t = 60.0)]
    away: f64,
    /// JSON instead of tables
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    own: Own,
}

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Trouble {
    /// Nothing: how noisy the machine is
    Nothing,
    /// SIGSTOP
    Paused,
    /// kill -9
    Killed,
    /// Every access to its disk hangs
    DiskHangs,
    /// Each of its syncs takes 150 ms
    SlowSyncs,
    /// It has missed many writes and gets them
    ComingBack,
    /// All servers are away while clients keep trying
    AllAway,
    /// Ten times as many clients as keep the store busy
    Overload,
}

#[derive(Debug, Default, Serialize)]
struct Found {
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overload: Option<Overload>,
    /// What the machine does not permit.
    left_out: Vec<String>,
}

/// Whether the run needs namespaces of its own: for a disk that hangs.
pub(crate) fn needs_namespaces(flags: &Flags) -> bool {
    flags.wanted().contains(&Trouble::DiskHangs)
}

impl Flags {
    fn wanted(&self) -> Vec<Trouble> {
        match self.trouble.is_empty() {
            true => Trouble::value_variants().to_vec(),
            false => self.trouble.clone(),
        }
    }

    fn plan(&self, clients: usize) -> Plan {
        Plan {
            load: self.one.load(clients, None),
            level: self.one.level,
            rate: self.rate,
            part: Duration::from_secs_f64(self.seconds.max(0.5)),
        }
    }
}

pub(crate) async fn run(flags: Flags) -> Result<(), Ended> {
    if flags.one.servers < 3 {
        let why = "two servers beside the one in trouble are a majority; give --servers 3 or more";
        return Err(Ended::Failed(why.to_owned()));
    }
    if flags.rate <= 0.0 {
        let rate = flags.rate;
        return Err(Ended::Failed(format!("--rate {rate} is no rate; give calls a second")));
    }
    let (mut found, mut wrong) = (Found::default(), Complaints::default());
    for trouble in flags.wanted() {
        if let Err(why) = measure(&flags, trouble, &mut found, &mut wrong).await? {
            let name = trouble.to_possible_value().map(|value| value.get_name().to_owned());
            found.left_out.push(format!("{}: {why}", name.unwrap_or_default()));
        }
    }
    if flags.json {
        print_json(&found)?;
    } else {
        print(&found);
    }
    judge(&[], &wrong)
}

/// `Ok(Err(why))`: the machine does not permit it.
async fn measure(
    flags: &Flags,
    trouble: Trouble,
    found: &mut Found,
    wrong: &mut Complaints,
) -> Result<Result<(), String>, Ended> {
    let plan = flags.plan(flags.clients);
    let progress = progress();
    let signal = |name: &'static str| {
        move |cluster: &mut Cluster| {
            let pid = cluster.pid(VICTIM).ok_or("it does not run")?.to_string();
            match Command::new("kill").args([name, &pid]).status() {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(format!("kill {name} ended with {status}")),
                Err(error) => Err(format!("kill: {error}")),
            }
        }
    };
    let (row, complaints) = match trouble {
        Trouble::Nothing => {
            let mut cluster = flags.one.start(&flags.own)?;
            let (begin, end) = (|_: &mut Cluster| Ok(()), |_: &mut Cluster, ()| Ok(()));
            one_in_trouble("nothing", &mut cluster, &plan, progress, begin, end).await?
        }
        Trouble::Paused => {
            let mut cluster = flags.one.start(&flags.own)?;
            let end = |cluster: &mut Cluster, ()| signal("-CONT")(cluster);
            one_in_trouble("paused", &mut cluster, &plan, progress, signal("-STOP"), end).await?
        }
        Trouble::Killed => {
            let mut cluster = flags.one.start(&flags.own)?;
            let begin = |cluster: &mut Cluster| {
                cluster.kill(VICTIM);
                Ok(())
            };
            let end = |cluster: &mut Cluster, ()| cluster.spawn(VICTIM).map(drop);
            one_in_trouble("killed", &mut cluster, &plan, progress, begin, end).await?
        }
        Trouble::DiskHangs => {
            let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
            // Declared before the cluster: unmounted after its end.
            let disk = match OwnDisk::create(folder.path(), "64M") {
                Ok(disk) => disk,
                Err(why) => return Ok(Err(why)),
            };
            let mut cluster = flags.one.start_with(&flags.own, Some(disk.data()))?;
            let begin = |_: &mut Cluster| disk.freeze();
            let end = |_: &mut Cluster, ()| disk.thaw();
            let ended =
                one_in_trouble("disk hangs", &mut cluster, &plan, progress, begin, end).await;
            if ended.is_err() {
                // A frozen disk would keep its server from ending.
                let _ = disk.thaw();
            }
            ended?
        }
        Trouble::SlowSyncs => {
            let mut cluster = flags.one.start(&flags.own)?;
            let pid = cluster.pid(VICTIM).ok_or_else(|| "it does not run".to_owned())?;
            const SLOW: &str = "delay_enter=150000";
            if let Err(why) = Injection::into_syncs(pid, SLOW) {
                return Ok(Err(why));
            }
            let begin = |_: &mut Cluster| Injection::into_syncs(pid, SLOW);
            let end = |_: &mut Cluster, injection| {
                drop(injection);
                Ok(())
            };
            one_in_trouble("150 ms a sync", &mut cluster, &plan, progress, begin, end).await?
        }
        Trouble::ComingBack => {
            let mut plan = plan;
            plan.load.keys = flags.hints.max(1);
            let mut cluster = flags.one.start(&flags.own)?;
            returning(&mut cluster, &plan, progress).await?
        }
        Trouble::AllAway => {
            let mut cluster = flags.one.start(&flags.own)?;
            let away = Duration::from_secs_f64(flags.away.max(0.1));
            let plan = flags.plan(flags.retrying);
            (all_away(&mut cluster, &plan, away, progress).await?, Complaints::default())
        }
        Trouble::Overload => {
            let cluster = flags.one.start(&flags.own)?;
            let (overload, complaints) = overload(&cluster, &plan, progress).await?;
            found.overload = Some(overload);
            wrong.add(complaints);
            return Ok(Ok(()));
        }
    };
    found.rows.push(row);
    wrong.add(complaints);
    Ok(Ok(()))
}

fn print(found: &Found) {
    if !found.rows.is_empty() {
        let mut table =
            plain_table(["", "", "calls", "failed", "p50 ms", "p99", "p99 to before", "max"]);
        for row in &found.rows {
            let before = row.before.latency.p99.max(1) as f64;
            let parts = [("before", &row.before), ("during", &row.during), ("after", &row.after)];
            for (part, round) in parts {
                let Round { operations, failed, latency, .. } = round;
                table.add_row([
                    if part == "before" { row.name.clone() } else { String::new() },
                    part.to_owned(),
                    thousands(*operations as f64),
                    failed.to_string(),
                    millis(latency.p50),
                    millis(latency.p99),
                    format!("{:.2}", latency.p99 as f64 / before),
                    millis(latency.max),
                ]);
            }
        }
        println!("{table}");
    }
    for row in &found.rows {
        if let Some(note) = &row.note {
            println!("{}: {note}", row.name);
        }
        let why = |round: &Round| round.why.clone();
        if let Some(why) = why(&row.during).or_else(|| why(&row.after)) {
            println!("{}: the first call that failed: {why}", row.name);
        }
    }
    if let Some(Overload { peak, goodput, refused, latency }) = &found.overload {
        println!(
            "overload: {} calls/s with the usual clients; {} answered within a second with {OVERLOAD} times as many \
             ({:.0} %), {refused} refused, p50 {} ms, p99 {} ms, max {} ms",
            thousands(*peak),
            thousands(*goodput),
            goodput / peak.max(1.0) * 100.0,
            millis(latency.p50),
            millis(latency.p99),
            millis(latency.max),
        );
    }
    for left_out in &found.left_out {
        println!("LEFT OUT {left_out}");
    }
}
