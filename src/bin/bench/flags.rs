//! Flags that several benchmarks share, and how a benchmark ends.

use std::future::Future;
use std::io::IsTerminal;
use std::path::PathBuf;

use chord::bench::cluster::{Cluster, Shape};
use chord::bench::progress::Progress;
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
    ) -> Result<Cluster, Ended> {
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
        })?)
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
