//! A cluster of this machine, started for a benchmark and ended with it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::keys::key;
use crate::ring::Partitioner;

/// How long a server may take to say that it is ready: millions of keys are read back.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a cluster is like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The server's program.
    pub program: PathBuf,
    /// Where data lies; a folder of its own is made in it.
    pub folder: PathBuf,
    /// Servers.
    pub servers: usize,
    /// Copies of each key.
    pub replicas: usize,
    /// How keys are placed.
    pub partitioner: Partitioner,
    /// Byte-ordered ranges begin at keys that cut so many of the benchmark's keys into equal parts; without it, where all
    /// possible keys are cut into equal parts.
    pub sampled: Option<u64>,
    /// As `--sync` takes it.
    pub sync: String,
    /// Further flags of the servers.
    pub flags: Vec<String>,
    /// Where the first server has its data; without it, beside the others'.
    pub first_data: Option<PathBuf>,
}

/// The processes.
#[derive(Debug)]
pub struct Cluster {
    shape: Shape,
    addresses: Vec<String>,
    servers: Vec<Option<Child>>,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts all servers and waits until each is ready.
    ///
    /// # Errors
    /// One does not start; its log is quoted.
    pub fn start(shape: Shape) -> Result<Cluster, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", shape.folder.display());
        fs::create_dir_all(&shape.folder).map_err(failed)?;
        let folder = tempfile::Builder::new().prefix("chord-bench-").tempdir_in(&shape.folder);
        let folder = folder.map_err(failed)?;
        let addresses = free_addresses(shape.servers).map_err(failed)?;
        let entry = |(id, address): (usize, &String)| {
            let mut entry = serde_json::json!({"id": id, "address": address});
            if let (Partitioner::ByteOrdered, Some(keys)) = (shape.partitioner, shape.sampled) {
                let first = key(id as u64 * keys / shape.servers as u64);
                let start = if id == 0 { String::new() } else { first.escape_ascii().to_string() };
                entry["start"] = start.into();
            }
            entry
        };
        let file = serde_json::json!({
            "name": "bench",
            "replicas": shape.replicas,
            "partitioner": shape.partitioner.name(),
            "servers": addresses.iter().enumerate().map(entry).collect::<Vec<_>>(),
        });
        fs::write(folder.path().join("cluster.json"), file.to_string()).map_err(failed)?;
        let servers = addresses.iter().map(|_| None).collect();
        let mut cluster = Cluster { shape, addresses, servers, folder };
        let starting: Vec<_> =
            (0..cluster.count()).map(|id| cluster.spawn(id)).collect::<Result<_, _>>()?;
        starting.iter().try_for_each(Starting::wait)?;
        Ok(cluster)
    }

    /// Servers, running or not.
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// Host and port of each.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Of those that run.
    pub fn pids(&self) -> Vec<u32> {
        self.servers.iter().flatten().map(Child::id).collect()
    }

    /// Of one that runs.
    pub fn pid(&self, id: usize) -> Option<u32> {
        self.servers[id].as_ref().map(Child::id)
    }

    /// `kill -9`.
    pub fn kill(&mut self, id: usize) {
        if let Some(mut child) = self.servers[id].take() {
            // One that has died already is as dead.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts one again; how long it took until it was ready.
    ///
    /// # Errors
    /// It does not start.
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    pub fn restart(&mut self, id: usize) -> Result<Duration, String> {
        let began = Instant::now();
        self.spawn(id)?.wait()?;
        Ok(began.elapsed())
    }

    /// Takes away all data of one that does not run.
    ///
    /// # Errors
    /// The system refuses.
    pub fn lose_disk(&self, id: usize) -> Result<(), String> {
        let folder = self.data(id);
        fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))
    }

    /// Bytes of all files of a server.
    pub fn data_bytes(&self, id: usize) -> u64 {
        bytes_in(&self.data(id))
    }

    fn data(&self, id: usize) -> PathBuf {
        if let (0, Some(folder)) = (id, &self.shape.first_data) {
            return folder.clone();
        }
        self.folder.path().join(id.to_string())
    }

    fn log(&self, id: usize) -> PathBuf {
        self.folder.path().join(format!("{id}.log"))
    }

    /// Starts one, without waiting for it.
    ///
    /// # Errors
    /// There is no such program.
    pub fn spawn(&mut self, id: usize) -> Result<Starting, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.shape.program.display());
        let log = File::options().create(true).append(true).open(self.log(id)).map_err(failed)?;
        let mut command = Command::new(&self.shape.program);
        // The environment could name another cluster.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CHORD_") {
                command.env_remove(name);
            }
        }
        command
            .arg("--cluster")
            .arg(self.folder.path().join("cluster.json"))
            .args(["--id", &id.to_string(), "--sync", &self.shape.sync])
            .arg("--data")
            .arg(self.data(id))
            .args(&self.shape.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        if self.shape.replicas == 1 {
            // Nobody can be asked what it may have lost; it has nothing to lose yet.
            command.arg("--accept-loss");
        }
        let mut child = command.spawn().map_err(failed)?;
        let (sender, receiver) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut line = String::new();
                // Nothing read is told as nothing.
                let _ = BufReader::new(stdout).read_line(&mut line);
                let _ = sender.send(line);
            });
        }
        self.servers[id] = Some(child);
        Ok(Starting { id, line: receiver, log: self.log(id) })
    }
}

/// A server that has been started and may not be ready yet.
#[derive(Debug)]
pub struct Starting {
    id: usize,
    /// What it says first.
    line: mpsc::Receiver<String>,
    log: PathBuf,
}

impl Starting {
    /// Whether it is ready; once true it is not to be asked again.
    ///
    /// # Errors
    /// It has ended; its log is quoted.
    pub fn is_ready(&self) -> Result<bool, String> {
        match self.line.try_recv() {
            Ok(line) => self.judge(&line).map(|()| true),
            Err(mpsc::TryRecvError::Empty) => Ok(false),
            Err(mpsc::TryRecvError::Disconnected) => self.judge("").map(|()| true),
        }
    }

    fn wait(&self) -> Result<(), String> {
        self.judge(&self.line.recv_timeout(PATIENCE).unwrap_or_default())
    }

    fn judge(&self, line: &str) -> Result<(), String> {
        if line.contains("ready") {
            return Ok(());
        }
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or("its log is empty").to_owned();
        Err(format!("server {} did not start: {last}", self.id))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for id in 0..self.count() {
            self.kill(id);
        }
    }
}

/// Ports that are tried: below those that systems give to outgoing connections, one of which could take a port between the moment
/// at which it is chosen and that at which its server starts, or starts again.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// How many ports this process has looked at.
static TRIED: AtomicU32 = AtomicU32::new(0);

/// Addresses on loopback that nobody listens on, and that no other call of this process has given; another process begins
/// elsewhere.
///
/// # Errors
/// All ports are taken.
pub fn free_addresses(count: usize) -> std::io::Result<Vec<String>> {
    let ports = PORTS.end - PORTS.start;
    let first = std::process::id().wrapping_mul(7_919) % ports;
    let mut found = Vec::new();
    for _ in 0..ports {
        if found.len() == count {
            break;
        }
        let port = PORTS.start + (first + TRIED.fetch_add(1, Ordering::Relaxed)) % ports;
        let address = format!("127.0.0.1:{port}");
        if TcpListener::bind(&address).is_ok() {
            found.push(address);
        }
    }
    if found.len() == count { Ok(found) } else { Err(std::io::ErrorKind::AddrInUse.into()) }
}

/// Bytes of all files below a folder; files that come and go meanwhile count as they were seen.
fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(size).sum()
}
