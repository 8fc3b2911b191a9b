//! Real programs under torture: a cluster of servers, many clients, and meanwhile everything that this machine can be made
//! to do to them.
//!
//! The simulator runs the protocol through more histories than any real cluster can, but its disk, network and clock are
//! pretended, and the tasks around the protocol are not in it at all. Here nothing is pretended: processes are killed and
//! paused, networks cut, file systems filled, frozen and robbed of their power, clocks set. What it costs is
//! reproducibility: a seed names the same faults in the same order, and not the same history.
//!
//! A *run* is one cluster. Its seed chooses the number of servers, how they keep keys, and two kinds of faults, so that
//! over many runs every pair of kinds comes up. After some seconds everything is healed, the cluster must settle, and every
//! key is read at every replica. Then [`crate::judge`] decides over the history; besides, no server may have panicked,
//! ended for no reason, refused to stop or to start.
//!
//! | part | what it does |
//! |---|---|
//! | `machine` | finds out what is permitted here; namespaces of the run's own |
//! | `network` | hosts on a bridge, or proxies: cuts, loss, delay |
//! | `disk` | file systems: full, frozen, without power |
//! | `cluster` | the processes |
//! | `fault`, `nemesis` | what goes wrong, and when |
//! | `load` | clients, through [`crate::client`] |
//!
//! What the machine does not permit is left out by name, and counted: a run says what it could not do.
//!
//! Left out: faults between clients and servers (a paused or cut server is that, for its clients), and any promise of
//! latency.

mod cluster;
mod disk;
mod fault;
mod inject;
mod load;
mod machine;
mod nemesis;
mod network;

pub use disk::OwnDisk;
pub use fault::{FAULTS, Fault, UnknownFault};
pub use inject::Injection;
pub use machine::{run_inside, run_inside_with};

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::judge::{Entry, Judgement, Op, Outcome, judge};
use crate::model::{ClientRequest, ClientResponse, Key, Status};
use crate::sim::Random;

use cluster::{Cluster, Shape};
use disk::Medium;
use load::{Load, Recorder, Worker, contents, direct};
use machine::Machine;
use nemesis::Nemesis;
use network::{Hosts, Network, Proxies};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where servers, disks and histories of a run lie; those of a run that failed stay there.
    pub folder: PathBuf,
    /// The server's program.
    pub program: PathBuf,
    /// How long each run lasts, settling aside.
    pub length: Duration,
    /// How long a cluster may take to settle once everything is healed.
    pub patience: Duration,
    /// Clients at a time.
    pub clients: usize,
    /// Only these faults.
    pub faults: Vec<Fault>,
    /// How long each disk that hangs does so, and how much longer a run is in which any does; `None`: some seconds, by chance.
    pub hang: Option<Duration>,
    /// Proxies, even if hosts are permitted.
    pub proxies: bool,
    /// Further flags for every server.
    pub flags: Vec<String>,
    /// Where the histories of all runs are kept, those included that passed.
    pub histories: Option<PathBuf>,
}

/// What came of one run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The faults it was about, and what it was like.
    pub about: String,
    /// How often each happened.
    pub faults: BTreeMap<Fault, u64>,
    /// What the clients' history says, and everything else that must not be.
    pub judgement: Judgement,
    /// The most memory that a server has taken, in KiB.
    pub peak: u64,
    /// Where history and data are, if it failed.
    pub kept: Option<PathBuf>,
}

/// What can be done on this machine.
#[derive(Debug)]
pub struct Torture {
    options: Options,
    machine: Machine,
    /// Of a thread that drives it for as long as the program runs.
    runtime: tokio::runtime::Handle,
    pairs: Vec<(Fault, Fault)>,
}

impl Torture {
    /// Finds out what is permitted.
    ///
    /// # Errors
    /// Nothing that was asked for is.
    pub fn new(options: Options) -> Result<Torture, String> {
        let machine = Machine::explore();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime: {error}"))?;
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        let possible: Vec<Fault> = options
            .faults
            .iter()
            .copied()
            .filter(|fault| fault.lacks(&machine).is_none())
            .filter(|fault| !options.proxies || fault.fits_network(false))
            .collect();
        let mut pairs = Vec::new();
        for (index, first) in possible.iter().enumerate() {
            for second in &possible[index..] {
                // One of them needs hosts, and the other one proxies.
                if [true, false]
                    .iter()
                    .any(|hosts| first.fits_network(*hosts) && second.fits_network(*hosts))
                {
                    pairs.push((*first, *second));
                }
            }
        }
        if pairs.is_empty() {
            return Err("this machine permits none of these faults".to_owned());
        }
        Ok(Torture { options, machine, runtime: handle, pairs })
    }

    /// Faults that were asked for and cannot be, each with what the machine lacks for it.
    pub fn skipped(&self) -> Vec<(Fault, &'static str)> {
        let asked = self.options.faults.iter();
        let mut skipped: Vec<_> =
            asked.filter_map(|fault| Some((*fault, fault.lacks(&self.machine)?))).collect();
        if self.options.proxies && self.options.faults.contains(&Fault::Loss) {
            skipped.push((Fault::Loss, "a network that is not of proxies"));
        }
        skipped.dedup_by_key(|(fault, _)| *fault);
        skipped
    }

    /// How many pairs of faults there are: after so many runs from seed 0 on each has come up.
    pub fn pairs(&self) -> usize {
        self.pairs.len()
    }

    /// One run.
    pub fn run(&self, seed: u64) -> Report {
        let mut random = Random::stream(seed, "run");
        let (first, second) = self.pair(seed);
        let faults = if first == second { vec![first] } else { vec![first, second] };
        let hosts = self.machine.hosts
            && !self.options.proxies
            && faults.iter().all(|fault| fault.fits_network(true));
        let medium = self.medium(&faults, &mut random);
        let shape = Shape {
            servers: 4 + random.below(2) as usize,
            hashed: random.chance(300),
            medium,
            clocks: faults.contains(&Fault::Clock),
            flags: self.options.flags.clone(),
        };
        let names: Vec<_> = faults.iter().map(|fault| fault.name()).collect();
        let mut report = Report {
            about: format!(
                "{}; {} servers, {}, {} on {:?}",
                names.join(" and "),
                shape.servers,
                if shape.hashed { "hashed" } else { "byte-ordered" },
                if hosts { "hosts" } else { "proxies" },
                medium,
            )
            .to_lowercase(),
            ..Report::default()
        };
        let folder = match self.folder(seed) {
            Ok(folder) => folder,
            Err(error) => {
                report.judgement.violations.push(format!("harness: {error}"));
                return report;
            }
        };
        if let Err(error) = self.drive(seed, faults, shape, hosts, &folder, &mut report) {
            report.judgement.violations.push(format!("harness: {error}"));
        }
        if let Some(histories) = &self.options.histories
            && let Err(error) = keep_history(&folder, histories)
        {
            report.judgement.violations.push(format!("harness: {error}"));
        }
        if report.judgement.violations.is_empty() {
            // It lies in a folder of our own.
            let _ = fs::remove_dir_all(&folder);
        } else {
            report.kept = Some(folder);
        }
        report
    }

    /// A new folder for a run: what is kept of others of that seed, or under way, stays as it is.
    fn folder(&self, seed: u64) -> Result<PathBuf, String> {
        let top = &self.options.folder;
        let failed = |error: std::io::Error| format!("{}: {error}", top.display());
        fs::create_dir_all(top).map_err(failed)?;
        let names = std::iter::once(format!("seed-{seed}"));
        for name in names.chain((2..).map(|again| format!("seed-{seed}-{again}"))) {
            match fs::create_dir(top.join(&name)) {
                Ok(()) => return Ok(top.join(name)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err("no name is left".to_owned())
    }

    /// Consecutive seeds go through all pairs, in an order that mixes them.
    fn pair(&self, seed: u64) -> (Fault, Fault) {
        let count = self.pairs.len() as u64;
        // A step that has no divisor in common with the number reaches every one.
        let gcd = |mut a: u64, mut b: u64| {
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        let step = (count * 5 / 8..).find(|step| gcd(*step, count) == 1).unwrap_or(1);
        self.pairs[(seed % count * step % count) as usize]
    }

    fn medium(&self, faults: &[Fault], random: &mut Random) -> Medium {
        let media = [
            (self.machine.ext4, Medium::Ext4),
            (self.machine.tmpfs, Medium::Tmpfs),
            (true, Medium::Folder),
        ];
        let fits = |medium: Medium| faults.iter().all(|fault| fault.fits_medium(medium));
        let possible: Vec<_> =
            media.into_iter().filter(|(there, medium)| *there && fits(*medium)).collect();
        random.pick(&possible).map_or(Medium::Folder, |(_, medium)| *medium)
    }

    fn drive(
        &self,
        seed: u64,
        faults: Vec<Fault>,
        shape: Shape,
        hosts: bool,
        folder: &Path,
        report: &mut Report,
    ) -> Result<(), String> {
        let _within = self.runtime.enter();
        let network = match hosts {
            true => Network::Hosts(Hosts::create(shape.servers)?),
            false => Network::Proxies(Proxies::create(shape.servers, seed)?),
        };
        let hashed = shape.hashed;
        let mut cluster =
            Cluster::start(folder, &self.options.program, shape, network, &self.machine)?;
        self.settle(&cluster).map_err(|why| format!("the cluster never began: {why}"))?;
        let load = Arc::new(Load {
            recorder: Recorder::create(&folder.join("history.jsonl"))?,
            stop: AtomicBool::new(false),
            succeeded: AtomicU64::new(0),
            seed,
            scans: !hashed,
            addresses: cluster.addresses(),
        });
        let workers: Vec<_> = (0..self.options.clients)
            .map(|number| self.runtime.spawn(Worker::new(number, load.clone()).run()))
            .collect();
        let hang = self.options.hang.filter(|_| faults.contains(&Fault::Hang));
        let mut nemesis = Nemesis::new(seed, faults, hang);
        let length = self.options.length + hang.unwrap_or_default();
        let until = now() + length.as_nanos() as u64;
        let mut looked = now();
        while now() < until {
            nemesis.turn(&mut cluster);
            if now() - looked > 1_000_000_000 {
                looked = now();
                nemesis.see_to_the_rebuilt(&cluster);
            }
            pause(Duration::from_millis(20));
        }
        nemesis.end(&mut cluster);
        // Some more in peace: whoever is healed must serve.
        pause(Duration::from_millis(500));
        load.stop.store(true, Ordering::Relaxed);
        for worker in workers {
            if self.runtime.block_on(worker).is_err() {
                nemesis.violations.push("harness: a client panicked".to_owned());
            }
        }
        let settled = self.settle(&cluster);
        let finals = self.finals(&cluster, &load);
        for server in 0..cluster.count() {
            cluster.weigh(server);
        }
        let history = load.recorder.finish();
        // Little is asked of a run, for a blackout leaves little time; nothing at all would be a failure of its own kind.
        let mut judgement = judge(&history, self.options.length.as_secs() * 10);
        let violations = &mut judgement.violations;
        violations.append(&mut nemesis.violations);
        violations.extend(cluster.panics());
        violations.extend(settled.err().map(|why| format!("settled: {why}")));
        violations.extend(finals.err().map(|why| format!("final reads: {why}")));
        report.faults = nemesis.counts;
        report.peak = cluster.peak();
        report.judgement = judgement;
        if !report.judgement.violations.is_empty() {
            cluster.keep_data();
            let told = nemesis.log.join("\n") + "\n\n" + &report.judgement.violations.join("\n");
            let path = folder.join("faults.txt");
            fs::write(&path, told).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }

    /// Everyone votes, everyone believes so, no hint is left, and all replicas hold the same.
    fn settle(&self, cluster: &Cluster) -> Result<(), String> {
        let mut why = String::new();
        let settled = wait_until(self.options.patience, || match self.is_settled(cluster) {
            Ok(()) => true,
            Err(not_yet) => {
                why = not_yet;
                false
            }
        });
        if settled { Ok(()) } else { Err(why) }
    }

    fn is_settled(&self, cluster: &Cluster) -> Result<(), String> {
        for (id, address) in cluster.addresses().into_iter().enumerate() {
            let status = self.runtime.block_on(status(&address));
            let status = status.ok_or_else(|| format!("server {id} does not answer"))?;
            if !status.voting {
                return Err(format!("server {id} does not vote: {}", status.state));
            }
            for peer in &status.peers {
                if !(peer.alive && peer.voting && peer.hints == 0) {
                    return Err(format!("server {id} sees {peer:?}"));
                }
            }
        }
        let held = self.held(cluster)?;
        for (key, copies) in &held {
            let first = copies.first().map(|(_, copy)| copy);
            if let Some((server, other)) = copies.iter().find(|(_, copy)| Some(copy) != first) {
                return Err(format!("key {key}: {first:?}, but server {server} holds {other:?}"));
            }
        }
        Ok(())
    }

    /// Of every key that anybody holds: what each of its replicas holds.
    #[expect(clippy::type_complexity, reason = "named by the sentence above")]
    fn held(
        &self,
        cluster: &Cluster,
    ) -> Result<BTreeMap<String, Vec<(u16, Option<(Option<String>, i64)>)>>, String> {
        let mut servers = Vec::new();
        for (id, address) in cluster.addresses().into_iter().enumerate() {
            let held = self.runtime.block_on(contents(address));
            servers.push(held.map_err(|error| format!("server {id}: {error}"))?);
        }
        let table = direct(cluster.network.address(0));
        let table = self.runtime.block_on(table.table()).map_err(|error| error.to_string())?;
        let keys: std::collections::BTreeSet<_> =
            servers.iter().flat_map(|held| held.keys().cloned()).collect();
        let copies = |key: &String| {
            let replicas = table.replicas(&Key::bound(key.clone())).iter();
            let copy =
                |id: u16| servers.get(usize::from(id)).and_then(|held| held.get(key)).cloned();
            replicas.map(|server| (server.0, copy(server.0))).collect()
        };
        Ok(keys.iter().map(|key| (key.clone(), copies(key))).collect())
    }

    /// Reads every key at every replica.
    fn finals(&self, cluster: &Cluster, load: &Load) -> Result<(), String> {
        let start = now();
        for (key, copies) in self.held(cluster)? {
            for (server, copy) in copies {
                let (value, ts) = copy.map_or((None, None), |(value, ts)| (value, Some(ts)));
                load.recorder.record(Entry {
                    client: format!("node{server}"),
                    op: Op::Get,
                    key: key.clone(),
                    value,
                    start,
                    end: now(),
                    outcome: Outcome::Ok,
                    level: "ONE".to_owned(),
                    node: Some(server),
                    ts,
                    is_final: true,
                });
            }
        }
        Ok(())
    }
}

async fn status(address: &str) -> Option<Status> {
    match direct(address.to_owned()).read(ClientRequest::Status).await {
        Ok(crate::client::Answered { response: ClientResponse::Status(status), .. }) => {
            Some(*status)
        }
        _ => None,
    }
}

/// Does the server at this address answer, and vote? To be called outside of the runtime's own tasks.
fn is_whole(address: &str) -> bool {
    tokio::runtime::Handle::current().block_on(status(address)).is_some_and(|status| status.voting)
}

/// Nanoseconds since the program began.
#[expect(clippy::disallowed_methods, reason = "real servers are tortured in real time")]
fn now() -> u64 {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

#[expect(clippy::disallowed_methods, reason = "between two looks at real servers")]
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Looks again and again until the condition holds; false: it never did.
fn wait_until(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = now() + patience.as_nanos() as u64;
    loop {
        if condition() {
            return true;
        }
        if now() > until {
            return false;
        }
        pause(Duration::from_millis(30));
    }
}

/// Copies a run's history under the run's name, which no other run has had.
fn keep_history(run: &Path, histories: &Path) -> Result<(), String> {
    let name = run.file_name().unwrap_or_default().to_string_lossy();
    let failed = |error: std::io::Error| format!("{}: {error}", histories.display());
    fs::create_dir_all(histories).map_err(failed)?;
    let to = (1..)
        .map(|again| {
            histories.join(format!(
                "{name}{}.jsonl",
                if again == 1 { String::new() } else { format!("-{again}") }
            ))
        })
        .find(|path| !path.exists());
    let from = run.join("history.jsonl");
    to.map_or(Ok(()), |to| fs::copy(from, to).map(|_| ()).map_err(failed))
}
