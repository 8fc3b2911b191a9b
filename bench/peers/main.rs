//! Chord beside etcd, Redis and the floor: the same closed loop, in turns, in one run. `bench/peers.sh` installs what it needs
//! and calls it.
//!
//! Rounds go around: each contestant of a row has its turn, then the next round begins, so that whatever the machine does to
//! one it does to all. A ratio is taken within a round; what is printed is the median of the rounds, with the least and the
//! greatest.

mod etcd;
mod floor;
mod processes;
mod redis;
mod restart;

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use chord::bench::check::Checker;
use chord::bench::chord::{Chord, settled};
use chord::bench::cluster::{Cluster, Shape};
use chord::bench::keys::Choice;
use chord::bench::load::{Driver, Load, Measured, Until};
use chord::bench::report::{Round, Row, Spread, table};
use chord::bench::target::Target;
use chord::model::Level;
use chord::ring::Partitioner;
use clap::{Parser, Subcommand};
use futures_util::future::LocalBoxFuture;

use etcd::Etcd;
use processes::Processes;

/// Chord beside etcd, Redis and the floor.
#[derive(Parser, Debug)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// One server of the floor
    #[command(hide = true)]
    Floor(floor::Flags),
}

#[derive(clap::Args, Debug)]
struct Flags {
    /// Rows to run, of: put, put1, unsynced, get, one, report, report-unsynced, four, restart
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
    /// Rounds; each contestant has one turn in each
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a turn
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// chord-server's program
    #[arg(long, default_value = "target/release/chord-server", value_name = "FILE")]
    program: PathBuf,
    /// Where data lies
    #[arg(long, default_value = "target/bench", value_name = "FOLDER")]
    folder: PathBuf,
    /// JSON instead of tables
    #[arg(long)]
    json: bool,
    /// As cargo bench calls it
    #[arg(long, hide = true)]
    bench: bool,
}

const ROWS: [&str; 9] =
    ["put", "put1", "unsynced", "get", "one", "report", "report-unsynced", "four", RESTART];
/// Of another kind than the others.
const RESTART: &str = "restart";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    let result = match cli.command {
        Some(Command::Floor(flags)) => {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, floor::run(flags))
        }
        None => runtime.block_on(async {
            tokio::select! {
                ended = run(&cli.flags) => ended,
                _ = interrupted() => Err("interrupted".to_owned()),
            }
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("peers: {why}");
            ExitCode::FAILURE
        }
    }
}

/// By a signal: what was started must be ended.
async fn interrupted() {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let handler = move || {
        let _ = sender.send(());
    };
    if ctrlc::set_handler(handler).is_ok() {
        receiver.recv().await;
    } else {
        std::future::pending().await
    }
}

/// Drives one store.
trait Runner {
    fn run(&mut self, until: Until, pids: Vec<u32>)
    -> LocalBoxFuture<'_, Result<Measured, String>>;
}

impl<T: Target + 'static> Runner for Driver<T> {
    fn run(
        &mut self,
        until: Until,
        pids: Vec<u32>,
    ) -> LocalBoxFuture<'_, Result<Measured, String>> {
        Box::pin(async move { Driver::run(self, until, &pids, |_| {}).await })
    }
}

/// Whatever must live as long as a contestant.
enum Alive {
    Chord(Cluster),
    Others(Processes),
}

struct Contestant {
    name: String,
    runner: Box<dyn Runner>,
    checker: Rc<RefCell<Checker>>,
    alive: Alive,
    rounds: Vec<Round>,
}

impl Contestant {
    async fn new<T: Target + 'static>(
        name: &str,
        target: T,
        load: &Load,
        fresh: bool,
        alive: Alive,
    ) -> Result<Contestant, String> {
        let checker = Rc::new(RefCell::new(Checker::new(load.keys, load.value_length, fresh)));
        let target = Rc::new(target);
        // Many connections with few calls each, which every store takes.
        let filling = Load { clients: 64, seed: load.seed + 1, ..load.clone() };
        let mut filler = Driver::connect(Rc::clone(&target), filling, Rc::clone(&checker)).await?;
        filler.fill(|_| {}).await.map_err(|why| format!("{name}: {why}"))?;
        let driver = Driver::connect(target, load.clone(), Rc::clone(&checker)).await?;
        let runner: Box<dyn Runner> = Box::new(driver);
        Ok(Contestant { name: name.to_owned(), runner, checker, alive, rounds: Vec::new() })
    }

    fn pids(&self) -> Vec<u32> {
        match &self.alive {
            Alive::Chord(cluster) => cluster.pids(),
            Alive::Others(processes) => processes.pids(),
        }
    }
}

/// Starts contestants.
struct Stage<'a> {
    flags: &'a Flags,
    load: Load,
    contestants: Vec<Contestant>,
}

impl Stage<'_> {
    async fn chord(
        &mut self,
        name: &str,
        servers: usize,
        replicas: usize,
        sync: &str,
        level: Level,
    ) -> Result<(), String> {
        let cluster = Cluster::start(Shape {
            program: self.flags.program.clone(),
            folder: self.flags.folder.clone(),
            servers,
            replicas,
            partitioner: Partitioner::ByteOrdered,
            sampled: Some(self.load.keys),
            sync: sync.to_owned(),
            flags: Vec::new(),
            first_data: None,
        })?;
        let addresses = cluster.addresses().to_vec();
        settled(&addresses, Duration::from_secs(60)).await?;
        // At ONE the keys are filled at QUORUM all the same, or reads might find nothing yet.
        let target =
            Chord { addresses, read_level: level, write_level: Level::Quorum, table: None };
        let fresh = level != Level::One;
        self.add(Contestant::new(name, target, &self.load, fresh, Alive::Chord(cluster)).await?)
    }

    async fn etcd(&mut self, name: &str, local_reads: bool) -> Result<(), String> {
        let (processes, address) = Processes::etcd(&self.flags.folder).await?;
        let target = Etcd { address, local_reads };
        self.add(
            Contestant::new(name, target, &self.load, !local_reads, Alive::Others(processes))
                .await?,
        )
    }

    async fn redis(&mut self, name: &str, fsync: &str) -> Result<(), String> {
        let (processes, target) = Processes::redis(&self.flags.folder, fsync).await?;
        self.add(Contestant::new(name, target, &self.load, true, Alive::Others(processes)).await?)
    }

    async fn floor(
        &mut self,
        name: &str,
        servers: usize,
        replicas: usize,
        durable: bool,
    ) -> Result<(), String> {
        let (processes, target) =
            Processes::floor(&self.flags.folder, servers, replicas, durable).await?;
        // It compares nothing: a late store may replace a newer value.
        self.add(Contestant::new(name, target, &self.load, false, Alive::Others(processes)).await?)
    }

    fn add(&mut self, contestant: Contestant) -> Result<(), String> {
        self.contestants.push(contestant);
        Ok(())
    }
}

/// One row of the comparison.
#[derive(serde::Serialize)]
struct Outcome {
    row: String,
    contestants: Vec<Row>,
    /// Of the first contestant, Chord, to each other.
    ratios: Vec<Ratios>,
}

#[derive(serde::Serialize)]
struct Ratios {
    to: String,
    rate: Spread,
    p50: Spread,
    p99: Spread,
}

async fn run(flags: &Flags) -> Result<(), String> {
    if let Some(row) = flags.rows.iter().find(|row| !ROWS.contains(&row.as_str())) {
        return Err(format!("there is no row '{row}'; there are {}", ROWS.join(", ")));
    }
    if !flags.program.exists() {
        return Err(format!(
            "there is no {}; build it with cargo build --release",
            flags.program.display()
        ));
    }
    let wanted = |row: &&str| flags.rows.is_empty() || flags.rows.iter().any(|name| name == row);
    let mut outcomes = Vec::new();
    for row in ROWS.iter().filter(|row| wanted(row) && **row != RESTART) {
        for replicas in if row.starts_with("report") { vec![1, 3, 5] } else { vec![3] } {
            let outcome = compete(flags, row, replicas).await?;
            if !flags.json {
                print(&outcome);
            }
            outcomes.push(outcome);
        }
    }
    let restarts = if wanted(&RESTART) { Some(restart::restart(flags).await?) } else { None };
    if let Some(restarts) = restarts.as_ref().filter(|_| !flags.json) {
        restart::print(restarts);
    }
    if flags.json {
        let all = serde_json::json!({"rows": outcomes, "restart": restarts});
        let text = serde_json::to_string_pretty(&all).map_err(|error| error.to_string())?;
        println!("{text}");
    }
    Ok(())
}

async fn compete(flags: &Flags, row: &str, replicas: usize) -> Result<Outcome, String> {
    let reads = match row {
        "put" | "put1" | "unsynced" => 0.0,
        "get" | "one" => 1.0,
        _ => 0.5,
    };
    let load = Load {
        clients: if row == "put1" { 1 } else { 64 },
        pipeline: 1,
        reads,
        scan: None,
        keys: 10_000,
        choice: Choice::Uniform,
        value_length: 100,
        may_break: false,
        seed: 1,
    };
    let stage = &mut Stage { flags, load, contestants: Vec::new() };
    let mut until = Until::Elapsed(Duration::from_secs_f64(flags.seconds));
    let mut name = row.to_owned();
    match row {
        "put" | "put1" => {
            stage.chord("chord, synced", 3, 3, "always", Level::Quorum).await?;
            stage.etcd("etcd", false).await?;
            stage.redis("redis, always, WAIT 1", "always").await?;
            stage.floor("floor, synced", 3, 3, true).await?;
        }
        "unsynced" => {
            stage.chord("chord, sync 1s", 3, 3, "1s", Level::Quorum).await?;
            stage.redis("redis, everysec, WAIT 1", "everysec").await?;
            stage.floor("floor, not synced", 3, 3, false).await?;
        }
        "get" => {
            stage.chord("chord, QUORUM", 3, 3, "always", Level::Quorum).await?;
            stage.etcd("etcd, linearizable", false).await?;
            stage.floor("floor", 3, 3, false).await?;
        }
        "one" => {
            stage.chord("chord, ONE", 3, 3, "always", Level::One).await?;
            stage.redis("redis", "everysec").await?;
            stage.etcd("etcd, serializable", true).await?;
        }
        "report" | "report-unsynced" => {
            let durable = row == "report";
            name = format!("{row}: 200,000 calls, half reads, 7 servers, {replicas} replicas");
            until = Until::Operations(200_000);
            let sync = if durable { "always" } else { "1s" };
            stage.chord("chord", 7, replicas, sync, Level::Quorum).await?;
            stage.floor("floor", 7, replicas, durable).await?;
            if durable && replicas == 3 {
                stage.etcd("etcd, 3 members", false).await?;
            }
        }
        _ => {
            stage.chord("chord, 4 servers", 4, 3, "always", Level::Quorum).await?;
            stage.floor("floor, 4 servers", 4, 3, true).await?;
            stage.etcd("etcd, 3 members", false).await?;
        }
    }
    let contestants = &mut stage.contestants;
    for _ in 0..flags.rounds {
        for contestant in contestants.iter_mut() {
            contestant.runner.run(Until::Elapsed(Duration::from_millis(700)), Vec::new()).await?;
            let pids = contestant.pids();
            let measured = contestant.runner.run(until, pids).await?;
            if let Some(why) = &measured.why {
                return Err(format!(
                    "{}: {} calls have failed: {why}",
                    contestant.name, measured.failed
                ));
            }
            contestant.rounds.push(Round::of(&measured));
        }
    }
    for contestant in contestants.iter() {
        let checker = contestant.checker.borrow();
        let complaints = checker.complaints();
        if complaints.count > 0 {
            let first = complaints.first.join("; ");
            return Err(format!(
                "{}: {} wrong answers: {first}",
                contestant.name, complaints.count
            ));
        }
    }
    let ratio = |to: &Contestant, of: fn(&Round) -> f64| {
        let own = contestants[0].rounds.iter().map(of);
        Spread::of(own.zip(to.rounds.iter().map(of)).map(|(own, other)| own / other.max(1e-9)))
    };
    let ratios = contestants[1..].iter().map(|to| Ratios {
        to: to.name.clone(),
        rate: ratio(to, |round| round.rate),
        p50: ratio(to, |round| round.latency.p50 as f64),
        p99: ratio(to, |round| round.latency.p99 as f64),
    });
    let ratios = ratios.collect();
    let rows = contestants.iter().map(|one| Row::of(one.name.clone(), one.rounds.clone()));
    Ok(Outcome { row: name, contestants: rows.collect(), ratios })
}

fn print(outcome: &Outcome) {
    println!("\n{}\n{}", outcome.row, table(&outcome.contestants));
    for Ratios { to, rate, p50, p99 } in &outcome.ratios {
        let show =
            |spread: &Spread| format!("{:.2} ({:.2}–{:.2})", spread.median, spread.min, spread.max);
        println!("  to {to:26} rate × {}   p50 × {}   p99 × {}", show(rate), show(p50), show(p99));
    }
}
