//! The real programs: started, killed, paused, restarted; each with a disk, a log and, if need be, a wall clock of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::disk::{Disk, Medium};
use super::machine::{Machine, tool};
use super::network::Network;
use super::wait_until;

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a server that was killed is waited for at once.
const DIES: Duration = Duration::from_secs(5);

/// Range starts of byte-ordered clusters, so that every server owns some of the keys that clients use.
const STARTS: [&str; 5] = ["", "k04", "m05", "m12", "o"];

/// What a cluster is like.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) servers: usize,
    pub(super) hashed: bool,
    pub(super) medium: Medium,
    /// Clocks can be set.
    pub(super) clocks: bool,
    /// Further flags of the servers.
    pub(super) flags: Vec<String>,
}

/// One server.
#[derive(Debug)]
struct Server {
    child: Option<Child>,
    /// Processes that were killed and have not ended yet: one that waits for a disk that hangs ends only with that.
    dying: Vec<Child>,
    disk: Disk,
    folder: PathBuf,
    /// The most memory that one of its processes has taken, in KiB.
    peak: u64,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Cluster {
    program: PathBuf,
    shape: Shape,
    faketime: Option<PathBuf>,
    servers: Vec<Server>,
    /// After the servers: disks are unmounted and processes ended first.
    pub(super) network: Network,
}

impl Cluster {
    /// Starts a cluster in this folder.
    pub(super) fn start(
        folder: &Path,
        program: &Path,
        shape: Shape,
        network: Network,
        machine: &Machine,
    ) -> Result<Cluster, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        let mut servers = Vec::new();
        fs::write(folder.join("secret"), "torture\n").map_err(failed)?;
        for id in 0..shape.servers {
            let own = folder.join(id.to_string());
            fs::create_dir_all(&own).map_err(failed)?;
            let entry = |other: usize| {
                let address = network.address_between(id, other);
                let mut entry = serde_json::json!({"id": other, "address": address});
                if !shape.hashed {
                    entry["start"] = STARTS[other].into();
                }
                entry
            };
            let file = serde_json::json!({
                "name": "torture",
                "replicas": 3,
                "partitioner": if shape.hashed { "hashed" } else { "byte-ordered" },
                "servers": (0..shape.servers).map(entry).collect::<Vec<_>>(),
            });
            fs::write(own.join("cluster.json"), file.to_string()).map_err(failed)?;
            fs::write(own.join("clock"), "+0s\n").map_err(failed)?;
            let disk = Disk::create(&own, shape.medium, super::disk::SIZE)?;
            servers.push(Server { child: None, dying: Vec::new(), disk, folder: own, peak: 0 });
        }
        let faketime = machine.faketime.clone().filter(|_| shape.clocks);
        let mut cluster =
            Cluster { program: program.to_owned(), shape, faketime, servers, network };
        for id in 0..cluster.servers.len() {
            cluster.spawn(id)?;
        }
        Ok(cluster)
    }

    pub(super) fn count(&self) -> usize {
        self.servers.len()
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        (0..self.count()).map(|server| self.network.address(server)).collect()
    }

    pub(super) fn disk(&mut self, id: usize) -> &mut Disk {
        &mut self.servers[id].disk
    }

    pub(super) fn is_running(&self, id: usize) -> bool {
        self.servers[id].child.is_some()
    }

    /// Starts a server that is not running, and waits for its word that it is ready.
    pub(super) fn spawn(&mut self, id: usize) -> Result<(), String> {
        let server = &mut self.servers[id];
        let ended = |child: &mut Child| matches!(child.try_wait(), Ok(Some(_)));
        if !wait_until(PATIENCE, || server.dying.iter_mut().all(ended)) {
            return Err(format!("server {id} was killed and does not end"));
        }
        server.dying.clear();
        let path = server.folder.join("server.log");
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log: File = log.map_err(|error| format!("{}: {error}", path.display()))?;
        let mut command = match self.network.prefix(id) {
            Some([program, host]) => {
                let mut command = Command::new(program);
                command.arg(host).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        if let Some(library) = &self.faketime {
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", server.folder.join("clock"))
                .env("FAKETIME_CACHE_DURATION", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        command
            .arg("--cluster")
            .arg(server.folder.join("cluster.json"))
            .args(["--id", &id.to_string()])
            .args(["--listen", &self.network.address(id)])
            .arg("--data")
            .arg(server.disk.data())
            .arg("--secret-file")
            .arg(server.folder.with_file_name("secret"))
            // Small, so that logs roll over and are compacted all the time.
            .args(["--segment-size", "64KiB", "--memory", "1MiB"])
            .args(&self.shape.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child =
            command.spawn().map_err(|error| format!("{}: {error}", self.program.display()))?;
        let (sender, receiver) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut line = String::new();
                // Nothing read is told as nothing.
                let _ = BufReader::new(stdout).read_line(&mut line);
                let _ = sender.send(line);
            });
        }
        server.child = Some(child);
        let line = receiver.recv_timeout(PATIENCE).unwrap_or_default();
        match line.contains("ready") {
            true => Ok(()),
            false => Err(format!("server {id} did not start; see {}", path.display())),
        }
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self, id: usize) {
        self.weigh(id);
        if let Some(mut child) = self.servers[id].child.take() {
            // One that has died already is as dead.
            let _ = child.kill();
            if !wait_until(DIES, || matches!(child.try_wait(), Ok(Some(_)))) {
                self.servers[id].dying.push(child);
            }
        }
    }

    /// SIGTERM, and its end, which must be in order.
    pub(super) fn terminate(&mut self, id: usize) -> Result<(), String> {
        self.weigh(id);
        self.signal(id, "TERM")?;
        let Some(mut child) = self.servers[id].child.take() else { return Ok(()) };
        let mut ended = None;
        wait_until(PATIENCE, || {
            ended = child.try_wait().ok().flatten();
            ended.is_some()
        });
        match ended {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("server {id} was asked to stop and ended with {status}")),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                Err(format!("server {id} does not stop when asked to"))
            }
        }
    }

    pub(super) fn signal(&self, id: usize, name: &str) -> Result<(), String> {
        match self.pid(id) {
            Some(pid) => tool("kill", &[&format!("-{name}"), &pid.to_string()]).map(drop),
            None => Ok(()),
        }
    }

    pub(super) fn pid(&self, id: usize) -> Option<u32> {
        self.servers[id].child.as_ref().map(Child::id)
    }

    /// After SIGSTOP: none of its threads runs any more, or will but for the end of a system call.
    pub(super) fn stands_still(&self, id: usize) -> bool {
        let Some(pid) = self.pid(id) else { return true };
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
        tasks.filter_map(Result::ok).all(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            // The state follows the name, which stands in parentheses and may hold anything.
            let state =
                stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
            matches!(state, None | Some('T' | 'D' | 'Z' | 'X'))
        })
    }

    /// Has it ended of itself? Then it counts as not running.
    pub(super) fn has_died(&mut self, id: usize) -> bool {
        let child = &mut self.servers[id].child;
        let died = child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))));
        if died {
            *child = None;
        }
        died
    }

    /// Sets a server's wall clock off by so many seconds; it notices within one.
    pub(super) fn set_clock(&self, id: usize, seconds: i64) -> Result<(), String> {
        let path = self.servers[id].folder.join("clock");
        fs::write(&path, format!("{seconds:+}s\n"))
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Takes note of how much memory a server has taken.
    pub(super) fn weigh(&mut self, id: usize) {
        let Some(pid) = self.pid(id) else { return };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.split_whitespace().next()?.parse().ok());
        self.servers[id].peak = self.servers[id].peak.max(peak.unwrap_or(0));
    }

    /// The most memory that a server has taken, in KiB.
    pub(super) fn peak(&self) -> u64 {
        self.servers.iter().map(|server| server.peak).max().unwrap_or(0)
    }

    /// Lines of the servers' logs that no server may ever write.
    pub(super) fn panics(&self) -> Vec<String> {
        let mut panics = Vec::new();
        for (id, server) in self.servers.iter().enumerate() {
            let log = fs::read_to_string(server.folder.join("server.log")).unwrap_or_default();
            let found = log.lines().filter(|line| line.contains("panicked at"));
            panics.extend(found.map(|line| format!("panic: server {id}: {line}")));
        }
        panics
    }

    /// Copies the data folders of a run that failed to where they stay.
    pub(super) fn keep_data(&self) {
        for server in &self.servers {
            server.disk.keep(&server.folder.join("data"));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for id in 0..self.count() {
            let _ = self.signal(id, "CONT");
            self.kill(id);
        }
    }
}
