//! From a configuration to a running server, and to its end.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::clock::Clock;
use super::config::Config;
use super::connection::Shared;
use super::disk::FsDisk;
use super::error::Error;
use super::gate::Gate;
use super::listener::listen;
use super::lock::FolderLock;
use super::mail::{Input, MAX_INPUTS};
use super::peer::Links;
use super::runtime::{Runtime, Stopped};
use super::throttle::Throttle;
use super::{random, storage};
use crate::model::{FolderId, ServerId};
use crate::node::{self, Node};
use crate::storage::{Engine, EngineOptions, Opened, StoreOptions};

/// For calls in flight to end when the server is being stopped.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections that the kernel holds while none is being accepted.
const BACKLOG: u32 = 1024;

/// Descriptors that are not for connections: segments, peers, the runtime's own.
const RESERVED_DESCRIPTORS: usize = 256;

/// Lines that strangers can cause.
const STRANGERS: Duration = Duration::from_secs(10);

/// On everything that Linux runs on but MIPS.
const SIGXFSZ: i32 = 25;

/// The server answers from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Which server.
    pub server: ServerId,
    /// Where it listens.
    pub address: String,
    /// Keys that hold a value.
    pub keys: usize,
    /// Its data folder.
    pub data: PathBuf,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ready { server, address, keys, data } = self;
        write!(
            f,
            "chord-server {server} ready on {address}, {keys} keys, data in {}",
            data.display()
        )
    }
}

/// Runs a server on this thread until `stop` becomes true (or its sender is gone), or until it cannot go on.
/// `ready` is called once, when the log is replayed and connections are accepted.
pub fn run(
    config: Config,
    stop: watch::Receiver<bool>,
    ready: impl FnOnce(&Ready),
) -> Result<(), Error> {
    let system = |what| move |source| Error::System { what, source };
    let clock = Clock::start();
    // Held until the end of this function: until the storage thread has ended.
    let _lock = FolderLock::take(&config.data)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("an event queue"))?;
    runtime.block_on(survive_file_bound()).map_err(system("a signal handler"))?;
    let failed = |source| Error::Listen { address: config.listen.clone(), source };
    // The port is taken now and opened when the log is replayed: until then clients are refused by the system,
    // and never served from half a log.
    let socket = runtime.block_on(bind(&config.listen)).map_err(failed)?;
    let seed = random::seed().map_err(system("random numbers"))?;
    let fresh = FolderId(random::seed().map_err(system("random numbers"))?);
    let salts = random::seed().map_err(system("random numbers"))?;
    let options = EngineOptions {
        segment_bytes: config.segment_bytes,
        sync: config.sync,
        ..EngineOptions::new(config.cluster.name.clone(), config.server, fresh, salts)
    };
    let (engine, opened) = Engine::open(FsDisk::new(&config.data), options)
        .map_err(|source| Error::Open { folder: config.data.clone(), source })?;
    let told = Ready {
        server: config.server,
        address: config.listen.clone(),
        keys: opened.cells.keydir.len() - opened.cells.keydir.tombstones(),
        data: config.data.clone(),
    };
    let (completions, done) = mpsc::unbounded_channel();
    let (orders, thread) =
        storage::start(engine, config.sync, clock, completions).map_err(system("a thread"))?;
    runtime.block_on(async {
        let listener = socket.listen(BACKLOG).map_err(failed)?;
        let parts = Parts { config: &config, clock, seed, opened, orders, done };
        parts.serve(listener, stop, || ready(&told)).await
    })?;
    // All orders are in and their queue is closed: the thread carries them out, syncs, and ends.
    drop(runtime);
    thread.join().map_err(|_| Error::Bug { message: "the storage thread has panicked".into() })
}

/// Whoever writes beyond a bound on the length of files (`ulimit -f`) is ended by this signal, unless it is taken: then the
/// write fails, and the disk counts as full.
async fn survive_file_bound() -> io::Result<()> {
    signal(SignalKind::from_raw(SIGXFSZ)).map(drop)
}

/// Takes the first of the address's meanings that can be had.
async fn bind(address: &str) -> io::Result<TcpSocket> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in tokio::net::lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Or a restart would have to wait for connections of the former process to fade.
        socket.set_reuseaddr(true)?;
        match socket.bind(address) {
            Ok(()) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Descriptors this process may have, as far as the system tells.
fn descriptor_limit() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// As many connections as asked for, but never so many that the log could not open its files.
fn affordable(asked: usize, descriptors: Option<usize>) -> usize {
    let most = descriptors.map_or(asked, |limit| limit.saturating_sub(RESERVED_DESCRIPTORS));
    asked.min(most.max(1))
}

/// What is there before the tasks are.
struct Parts<'a> {
    config: &'a Config,
    clock: Clock,
    seed: u64,
    opened: Opened,
    orders: storage::Orders,
    done: mpsc::UnboundedReceiver<Vec<crate::storage::Completion>>,
}

impl Parts<'_> {
    async fn serve(
        self,
        listener: TcpListener,
        mut stop: watch::Receiver<bool>,
        ready: impl FnOnce(),
    ) -> Result<(), Error> {
        let Parts { config, clock, seed, opened, orders, done } = self;
        let (inputs, queue) = mpsc::channel(MAX_INPUTS);
        let gate = Arc::new(gate(config));
        let max_connections = affordable(config.max_connections, descriptor_limit());
        if max_connections < config.max_connections {
            log::warn!(
                "at most {max_connections} connections instead of {}: the limit of open files is low (ulimit -n)",
                config.max_connections
            );
        }
        let node = Node::new(node_config(config, seed), opened, clock.now(), seed);
        let links = Links {
            gate: Arc::clone(&gate),
            clock,
            inputs: inputs.downgrade(),
            addresses: config.cluster.servers.iter().cloned().collect(),
            links: BTreeMap::new(),
            seed,
        };
        let shared = Shared {
            server: config.server,
            gate,
            inputs: inputs.clone(),
            budget: config.budget.clone(),
            strangers: Throttle::new(clock, STRANGERS),
            refusals: Throttle::new(clock, STRANGERS),
        };
        let runtime = Runtime { node, clock, inputs: queue, completions: done, orders, links };
        let mut node_task = tokio::spawn(runtime.run());
        let (alive, mut all_ended) = mpsc::channel(1);
        tokio::spawn(listen(
            listener,
            Arc::new(shared),
            max_connections,
            stop.clone(),
            alive,
            Throttle::new(clock, STRANGERS),
        ));
        ready();
        tokio::select! {
            ended = &mut node_task => return Err(badly(ended)),
            // An error: nobody is left who could stop us, so we stop.
            _ = stop.wait_for(|stop| *stop) => {}
        }
        log::info!("stopping: calls in flight may finish");
        let finish = async {
            // If the node's task is gone, awaiting it says so below.
            let _ = inputs.send(Input::Finish).await;
            // The listener and all connections hold a sender that they drop as they end; nothing is ever sent.
            let _: Option<()> = all_ended.recv().await;
        };
        tokio::select! {
            ended = &mut node_task => return Err(badly(ended)),
            finished = tokio::time::timeout(FINISH_TIMEOUT, finish) => {
                if finished.is_err() {
                    log::warn!("some calls have not finished in time; their outcome is unknown to their clients");
                }
            }
        }
        let _ = inputs.send(Input::End).await;
        match node_task.await {
            Ok(Ok(())) => Ok(()),
            ended => Err(badly(ended)),
        }
    }
}

/// The node's task has ended though nobody asked it to.
fn badly(ended: Result<Result<(), Stopped>, tokio::task::JoinError>) -> Error {
    match ended {
        Ok(Err(Stopped { reason })) => Error::Stopped { reason },
        Ok(Ok(())) => Error::Bug { message: "the node's task has ended by itself".into() },
        Err(error) => Error::Bug { message: error.to_string() },
    }
}

fn gate(config: &Config) -> Gate {
    let cluster = &config.cluster;
    Gate::new(
        config.server,
        cluster.name.clone(),
        &cluster.topology,
        cluster.partitioner,
        cluster.servers.iter().map(|(server, _)| *server),
        config.secret.clone(),
        config.secret_in_clear,
    )
}

fn node_config(config: &Config, seed: u64) -> node::Config {
    let cluster = &config.cluster;
    let mut node = node::Config::new(config.server, cluster.name.clone(), cluster.topology.clone());
    node.partitioner = cluster.partitioner;
    node.addresses = cluster.servers.iter().cloned().collect();
    node.accept_loss = config.accept_loss;
    node.scrub_rate = config.scrub_rate;
    // Far from its end, however many requests this life sends.
    node.first_request = seed >> 1;
    node.cells = StoreOptions { memory: config.memory, ..node.cells };
    node
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::cluster::{Cluster, LocalCluster};
    use crate::storage::SyncPolicy;

    /// A server alone in its cluster, on a port that was free a moment ago.
    fn alone(data: PathBuf) -> Config {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let local = LocalCluster { servers: 1, port_base: port, ..LocalCluster::default() };
        Config {
            http: None,
            max_http_connections: 1,
            server: ServerId(0),
            cluster: Cluster::local(local).unwrap(),
            listen: format!("127.0.0.1:{port}"),
            data,
            sync: SyncPolicy::Always,
            memory: 1 << 20,
            segment_bytes: 1 << 20,
            scrub_rate: 4 << 20,
            accept_loss: true,
            secret: None,
            secret_in_clear: false,
            budget: crate::budget::Budget::default(),
            max_connections: 10,
        }
    }

    #[test]
    fn a_server_starts_says_so_once_and_ends_when_asked_to() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let config = alone(folder.path().join("0"));
            let address = config.listen.clone();
            let (stop, stopped) = watch::channel(false);
            let mut ready = 0;
            let ended = run(config, stopped, |told| {
                assert_eq!((told.server, told.keys), (ServerId(0), 0));
                std::net::TcpStream::connect(&address).unwrap();
                ready += 1;
                stop.send_replace(true);
            });
            ended.unwrap();
            assert_eq!(ready, 1);
        }
    }

    #[test]
    fn a_taken_port_and_a_taken_folder_are_errors_that_name_them() {
        let folder = tempfile::tempdir().unwrap();
        let config = alone(folder.path().join("0"));
        let _taken = std::net::TcpListener::bind(&config.listen).unwrap();
        let (_stop, stopped) = watch::channel(false);
        let error = run(config.clone(), stopped.clone(), |_| {}).unwrap_err().to_string();
        assert!(error.contains(&config.listen) && error.contains("port is taken"), "{error}");
        let _lock = FolderLock::take(&config.data).unwrap();
        let error = run(config, stopped, |_| {}).unwrap_err().to_string();
        assert!(error.contains("is in use by process"), "{error}");
    }

    #[test]
    fn connections_leave_descriptors_for_the_log() {
        assert_eq!(affordable(4096, None), 4096);
        assert_eq!(affordable(4096, Some(1024)), 768);
        assert_eq!(affordable(100, Some(1024)), 100);
        assert_eq!(affordable(100, Some(10)), 1);
        assert!(descriptor_limit().is_some());
    }
}
