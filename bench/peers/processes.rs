//! Servers of all kinds, each with a folder and ports of its own, ended with the value that owns them.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chord::bench::cost::memory_of;
use chord::bench::target::{Answer, Call, Connection, Target};

use super::etcd;
use super::floor::Floor;
use super::redis::Redis;

/// For servers to come up and find each other.
const PATIENCE: Duration = Duration::from_secs(30);

/// Some processes.
#[derive(Debug)]
pub(crate) struct Processes {
    children: Vec<Child>,
    _folder: tempfile::TempDir,
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.end();
    }
}

impl Processes {
    fn end(&mut self) {
        for mut child in self.children.drain(..) {
            // One that has died already is as dead.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn new(folder: &Path, name: &str) -> Result<Processes, String> {
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let folder = tempfile::Builder::new().prefix(name).tempdir_in(folder);
        Ok(Processes { children: Vec::new(), _folder: folder.map_err(|error| error.to_string())? })
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }

    fn spawn(&mut self, mut command: Command, id: usize) -> Result<(), String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = File::create(self._folder.path().join(format!("{id}.log")));
        let log = log.map_err(|error| error.to_string())?;
        let out = log.try_clone().map_err(|error| error.to_string())?;
        command.stdin(Stdio::null()).stdout(out).stderr(log);
        self.children.push(command.spawn().map_err(|error| format!("{name}: {error}"))?);
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        self._folder.path().join(name).display().to_string()
    }

    /// Three members; the target is the leader.
    pub(crate) async fn etcd(folder: &Path) -> Result<(Processes, String), String> {
        let mut processes = Processes::new(folder, "etcd-")?;
        let (clients, peers) = (free(3)?, free(3)?);
        let all: Vec<_> =
            peers.iter().enumerate().map(|(id, peer)| format!("n{id}=http://{peer}")).collect();
        for id in 0..3 {
            let mut command = Command::new("etcd");
            let (client, peer) =
                (format!("http://{}", clients[id]), format!("http://{}", peers[id]));
            command
                .args(["--name", &format!("n{id}"), "--data-dir", &processes.path(&id.to_string())])
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"]);
            processes.spawn(command, id)?;
        }
        let began = now();
        loop {
            for address in &clients {
                if etcd::leads(address).await.unwrap_or(false) {
                    return Ok((processes, address.clone()));
                }
            }
            wait_since(began, "etcd has no leader").await?;
        }
    }

    /// A primary and two replicas.
    pub(crate) async fn redis(folder: &Path, fsync: &str) -> Result<(Processes, Redis), String> {
        let mut processes = Processes::new(folder, "redis-")?;
        let addresses = free(3)?;
        let port = |id: usize| addresses[id].rsplit(':').next().unwrap_or_default().to_owned();
        for id in 0..3 {
            let data = processes.path(&format!("data{id}"));
            std::fs::create_dir_all(&data).map_err(|error| error.to_string())?;
            let mut command = Command::new("redis-server");
            command
                .args(["--port", &port(id), "--bind", "127.0.0.1", "--dir", &data, "--save", ""])
                .args(["--appendonly", "yes", "--appendfsync", fsync]);
            if id > 0 {
                command.args(["--replicaof", "127.0.0.1", &port(0)]);
            }
            processes.spawn(command, id)?;
        }
        let redis = Redis { address: addresses[0].clone(), wait: 1 };
        // Both replicas follow.
        let both = Redis { wait: 2, ..redis.clone() };
        let began = now();
        loop {
            if let Ok(mut connection) = both.connect(0).await {
                connection.send(&Call::Put { key: b"first", value: b"value" })?;
                let patience = Duration::from_secs(5);
                if let Ok(Ok(Answer::Put(_))) =
                    tokio::time::timeout(patience, connection.receive()).await
                {
                    return Ok((processes, redis));
                }
            }
            wait_since(began, "redis and its replicas do not find each other").await?;
        }
    }

    /// So many servers of the floor.
    pub(crate) async fn floor(
        folder: &Path,
        servers: usize,
        replicas: usize,
        durable: bool,
    ) -> Result<(Processes, Floor), String> {
        let mut processes = Processes::new(folder, "floor-")?;
        let addresses = free(servers)?;
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        for id in 0..servers {
            let mut command = Command::new(&own);
            command
                .args(["floor", "--id", &id.to_string(), "--addresses", &addresses.join(",")])
                .args([
                    "--replicas",
                    &replicas.to_string(),
                    "--file",
                    &processes.path(&format!("log{id}")),
                ]);
            if durable {
                command.arg("--durable");
            }
            processes.spawn(command, id)?;
        }
        let floor = Floor { addresses: Arc::new(addresses) };
        let began = now();
        loop {
            let ready = |id: usize| {
                std::fs::read_to_string(processes.path(&format!("{id}.log")))
                    .is_ok_and(|log| log.contains("ready"))
            };
            if (0..servers).all(ready) {
                return Ok((processes, floor));
            }
            wait_since(began, "the floor does not come up").await?;
        }
    }
}

/// Addresses on loopback that nobody listens on, as far as the system knows.
fn free(count: usize) -> Result<Vec<String>, String> {
    chord::bench::cluster::free_addresses(count).map_err(|error| error.to_string())
}

#[expect(clippy::disallowed_methods, reason = "it gives up at some time")]
fn now() -> Instant {
    Instant::now()
}

async fn wait_since(began: Instant, why: &str) -> Result<(), String> {
    if began.elapsed() > PATIENCE {
        return Err(why.to_owned());
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(())
}

/// One Redis that is killed and started again.
#[derive(Debug)]
pub(crate) struct Lone {
    processes: Processes,
    address: String,
}

impl Lone {
    pub(crate) fn redis(folder: &Path) -> Result<Lone, String> {
        let address = free(1)?.remove(0);
        Ok(Lone { processes: Processes::new(folder, "redis-")?, address })
    }

    pub(crate) fn target(&self) -> Redis {
        Redis { address: self.address.clone(), wait: 0 }
    }

    pub(crate) fn memory(&self) -> u64 {
        self.processes.pids().first().map_or(0, |pid| memory_of(*pid))
    }

    pub(crate) fn kill(&mut self) {
        self.processes.end();
    }

    /// Starts it; how long until it answers with what it holds.
    pub(crate) async fn start(&mut self) -> Result<Duration, String> {
        let began = now();
        let mut command = Command::new("redis-server");
        let port = self.address.rsplit(':').next().unwrap_or_default();
        let data = self.processes.path("data");
        std::fs::create_dir_all(&data).map_err(|error| error.to_string())?;
        command.args(["--port", port, "--bind", "127.0.0.1", "--dir", &data, "--save", ""]).args([
            "--appendonly",
            "yes",
            "--appendfsync",
            "everysec",
        ]);
        self.processes.spawn(command, 0)?;
        loop {
            if let Ok(mut connection) = self.target().connect(0).await {
                connection.send(&Call::Get { key: b"any" })?;
                // While it loads it says so.
                if let Ok(Answer::Got(_)) = connection.receive().await {
                    return Ok(began.elapsed());
                }
            }
            if began.elapsed() > PATIENCE {
                return Err("redis does not come back".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
