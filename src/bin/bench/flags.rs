//! Flags that several benchmarks share, and how a benchmark ends.

use std::future::Future;
use std::io::IsTerminal;
use std::path::PathBuf;

use chord::bench::check::Complaints;
use chord::bench::cluster::{Cluster, Shape};
use chord::bench::keys::{Choice, MIN_VALUE};
use chord::bench::load::Load;
use chord::bench::progress::Progress;
use chord::bench::report::Row;
use chord::model::Level;
use chord::ring::Partitioner;
use clap::Args;

/// Why a benchmark has no figures to be proud of.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The store gave wrong answers.
    Wrong(String),
    /// It could not be measured.
    Failed(String),
    /// By a signal.
    Interrupted,
}

impl From<String> for Ended {
    fn from(why: String) -> Ended {
        Ended::Failed(why)
    }
}

/// A cluster of the benchmark's own.
#[derive(Args, Clone, Debug)]
pub(crate) struct Own {
    /// When a write counts as stored: 'always' after a sync; '100ms' after the write, synced that often
    #[arg(long, default_value = "always", value_name = "POLICY")]
    pub(crate) sync: String,
    /// Where data lies; a folder of its own is made there and removed at the end
    #[arg(long, default_value = "target/bench", value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
    /// The server's program; without this, the one beside this program
    #[arg(long, value_name = "FILE")]
    pub(crate) program: Option<PathBuf>,
    /// A flag for every server, like --server-flag=--memory=1GiB; may be given several times
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    pub(crate) server_flag: Vec<String>,
}

impl Own {
    /// Starts a cluster.
    pub(crate) fn start(
        &self,
        servers: usize,
        replicas: usize,
        partitioner: Partitioner,
        sampled: Option<u64>,
        first_data: Option<PathBuf>,
    ) -> Result<Cluster, Ended> {
        if replicas > servers {
            let why = format!("{replicas} replicas need as many servers; there are {servers}");
            return Err(Ended::Failed(why));
        }
        let beside = || Ok(std::env::current_exe()?.with_file_name("chord-server"));
        let program = self.program.clone().map_or_else(beside, Ok::<_, std::io::Error>);
        let program = program.map_err(|error| error.to_string())?;
        if !program.exists() {
            let name = program.display();
            return Err(Ended::Failed(format!(
                "there is no {name}; build it with cargo build --release"
            )));
        }
        Ok(Cluster::start(Shape {
            program,
            folder: self.folder.clone(),
            servers,
            replicas,
            partitioner,
            sampled,
            sync: self.sync.clone(),
            flags: self.server_flag.clone(),
            first_data,
        })?)
    }
}

impl Own {
    /// In words.
    pub(crate) fn synced(&self) -> String {
        match self.sync.as_str() {
            "always" => "every write synced".to_owned(),
            interval => format!("synced every {interval}"),
        }
    }
}

/// One kind of load on one kind of cluster.
#[derive(Args, Clone, Debug)]
pub(crate) struct One {
    /// Reads among all calls, in percent; without it half, or all if they are scans
    #[arg(long, value_name = "PERCENT")]
    reads: Option<f64>,
    /// Bytes of a value, 16 at least
    #[arg(long, default_value_t = 100, value_name = "BYTES")]
    pub(crate) value_size: usize,
    /// Keys
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// How keys are chosen: uniform, zipfian, latest or ascending
    #[arg(long, default_value_t = Choice::Uniform)]
    choice: Choice,
    /// Level of reads and writes: one, quorum or all
    #[arg(long, default_value_t = Level::Quorum)]
    pub(crate) level: Level,
    /// Servers
    #[arg(long, default_value_t = 3)]
    pub(crate) servers: usize,
    /// Copies of each key
    #[arg(long, default_value_t = 3)]
    replicas: usize,
    /// byte-ordered or hashed
    #[arg(long, default_value_t = Partitioner::ByteOrdered)]
    partitioner: Partitioner,
    /// Of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl One {
    /// What so many clients do, each with one call at a time.
    pub(crate) fn load(&self, clients: usize, scan: Option<usize>) -> Load {
        let reads = self.reads.unwrap_or(if scan.is_some() { 100.0 } else { 50.0 });
        Load {
            clients: clients.max(1),
            pipeline: 1,
            reads: reads / 100.0,
            scan,
            keys: self.keys.max(1),
            choice: self.choice,
            value_length: self.value_size.max(MIN_VALUE),
            may_break: false,
            seed: self.seed,
        }
    }

    /// Starts its cluster.
    pub(crate) fn start(&self, own: &Own) -> Result<Cluster, Ended> {
        self.start_with(own, None)
    }

    /// The same; the first server's data lies in this folder.
    pub(crate) fn start_with(
        &self,
        own: &Own,
        first_data: Option<PathBuf>,
    ) -> Result<Cluster, Ended> {
        let One { servers, replicas, partitioner, keys, .. } = self;
        own.start(*servers, *replicas, *partitioner, Some((*keys).max(1)), first_data)
    }

    /// In words.
    pub(crate) fn describe(&self, own: &Own) -> String {
        let reads = self.load(1, None).reads * 100.0;
        let One { value_size, level, servers, replicas, .. } = self;
        let synced = own.synced();
        format!(
            "{level}, {reads} % reads, {servers} servers, {replicas} copies, {synced}, values of {value_size} B"
        )
    }
}

/// Where bars are drawn.
pub(crate) fn progress() -> Progress {
    Progress { wanted: std::io::stderr().is_terminal() }
}

/// Runs a benchmark on one thread, until its end or a signal.
pub(crate) fn drive(benchmark: impl Future<Output = Result<(), Ended>>) -> Result<(), Ended> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let (stop, mut stopped) = tokio::sync::mpsc::unbounded_channel();
    let handler = move || {
        // Told once is enough.
        let _ = stop.send(());
    };
    ctrlc::set_handler(handler).map_err(|error| error.to_string())?;
    runtime.block_on(async {
        tokio::select! {
            ended = benchmark => ended,
            _ = stopped.recv() => Err(Ended::Interrupted),
        }
    })
}

/// The text of a value that serde writes, on standard output.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), Ended> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    println!("{text}");
    Ok(())
}

/// Wrong and failed answers spoil figures.
pub(crate) fn judge(rows: &[Row], wrong: &Complaints) -> Result<(), Ended> {
    if wrong.count > 0 {
        let (count, first) = (wrong.count, wrong.first.join("\n  "));
        return Err(Ended::Wrong(format!(
            "{count} wrong answers, so these figures are worth nothing:\n  {first}"
        )));
    }
    let failed: u64 = rows.iter().map(Row::failed).sum();
    let why = rows.iter().flat_map(|row| &row.rounds).find_map(|round| round.why.clone());
    match why {
        Some(why) => {
            Err(Ended::Failed(format!("{failed} calls have failed, the first with: {why}")))
        }
        None => Ok(()),
    }
}
