//! What clients notice of a server that is slow, gone, or coming back, while they talk to the others.
//!
//! A replicated store is as good as its behaviour beside one bad server: what is dead is soon known to be, what is merely
//! slow ("gray") is not. Calls come at a rate of their own, whatever the store does (a Poisson process), so that a moment in which nothing is answered
//! counts for every call that was due in it. The clients are connected to all servers but the one in trouble, and never leave
//! them: what is measured is the servers' own way around their neighbour.
//!
//! Two more cases are about everybody: all servers were away while clients kept trying, and more is asked than can be done.
//! A store that is well designed comes back from both by itself, at once; see Bronson et al., *Metastable Failures in
//! Distributed Systems* (2021).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::LocalSet;

use super::check::{Checker, Complaints};
use super::chord::{Chord, settled, status};
use super::cluster::Cluster;
use super::keys::key;
use super::load::{Driver, Load, Measured, Until, histogram};
use super::progress::Progress;
use super::report::{Latency, Round};
use crate::client::{Client, Options, Routing, Safety};
use crate::model::{ClientRequest, Content, Key, Level, PreparedPut, ServerId};

/// The server in trouble.
pub const VICTIM: usize = 0;

/// For a cluster to be complete.
const SETTLING: Duration = Duration::from_secs(60);

/// Before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// Between looks at what a server that is back still lacks.
const POLL: Duration = Duration::from_millis(50);

/// A server that is back must have everything in that time.
const RETURN: Duration = Duration::from_secs(600);

/// How long a client of [`all_away`] waits for an answer, and between two tries.
const TRY: Duration = Duration::from_secs(2);
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// An answer that took longer is of no use to whoever asked: it does not count as goodput.
const USEFUL: Duration = Duration::from_secs(1);

/// How much more is asked than can be done, in [`overload`].
pub const OVERLOAD: usize = 10;

/// What clients do, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Keys, values, connections.
    pub load: Load,
    /// Of reads and writes.
    pub level: Level,
    /// Calls a second, on average.
    pub rate: f64,
    /// Length of each part of a run.
    pub part: Duration,
}

/// One kind of trouble.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which.
    pub name: String,
    /// With nothing wrong.
    pub before: Round,
    /// From the moment at which it begins.
    pub during: Round,
    /// From the moment at which it is over.
    pub after: Round,
    /// What else is to be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// More is asked than can be done.
#[derive(Clone, Debug, Serialize)]
pub struct Overload {
    /// Calls a second that clients get done who just keep the store busy.
    pub peak: f64,
    /// The same with [`OVERLOAD`] times as many clients; answers that took longer than a second left out.
    pub goodput: f64,
    /// Calls of these that were refused.
    pub refused: u64,
    /// Latencies with that many clients.
    pub latency: Latency,
}

/// Clients of every server but the victim, and a store that holds all keys.
struct Bystanders {
    driver: Driver<Chord>,
    checker: Rc<RefCell<Checker>>,
}

impl Bystanders {
    async fn connect(cluster: &Cluster, plan: &Plan) -> Result<Bystanders, String> {
        let addresses = cluster.addresses();
        let others = addresses.iter().filter(|address| **address != addresses[VICTIM]);
        let (read_level, write_level) = (plan.level, plan.level);
        let addresses = others.cloned().collect();
        let target = Chord { addresses, read_level, write_level, table: None };
        let fresh = plan.level != Level::One;
        let checker = Checker::new(plan.load.keys, plan.load.value_length, fresh);
        let checker = Rc::new(RefCell::new(checker));
        let load = Load { may_break: true, ..plan.load.clone() };
        let driver = Driver::connect(Rc::new(target), load, Rc::clone(&checker)).await?;
        Ok(Bystanders { driver, checker })
    }

    async fn calls(&mut self, plan: &Plan, length: Duration) -> Result<Measured, String> {
        self.driver.run(Until::Arrivals { rate: plan.rate, length }, &[], |_| {}).await
    }

    fn complaints(&self) -> Complaints {
        self.checker.borrow().complaints().clone()
    }
}

/// One server gets into trouble by `begin` and out of it by `end`.
///
/// # Errors
/// The cluster cannot be driven, or the trouble cannot be made.
pub async fn one_in_trouble<T>(
    name: &str,
    cluster: &mut Cluster,
    plan: &Plan,
    progress: Progress,
    begin: impl FnOnce(&mut Cluster) -> Result<T, String>,
    end: impl FnOnce(&mut Cluster, T) -> Result<(), String>,
) -> Result<(Row, Complaints), String> {
    settled(cluster.addresses(), SETTLING).await?;
    let mut bystanders = Bystanders::connect(cluster, plan).await?;
    let bar = progress.timed(name, plan.part * 3 + WARM_UP);
    bystanders.driver.fill(|_| bar.tick()).await?;
    bystanders.calls(plan, WARM_UP).await?;
    let before = bystanders.calls(plan, plan.part).await?;
    let trouble = begin(cluster)?;
    let during = bystanders.calls(plan, plan.part).await?;
    end(cluster, trouble)?;
    let after = bystanders.calls(plan, plan.part).await?;
    let row = Row {
        name: name.to_owned(),
        before: Round::of(&before),
        during: Round::of(&during),
        after: Round::of(&after),
        note: None,
    };
    Ok((row, bystanders.complaints()))
}

/// One server comes back after all keys of the plan were written without it: as many hints wait for it.
///
/// # Errors
/// The cluster cannot be driven, or the server does not get what it has missed.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
pub async fn returning(
    cluster: &mut Cluster,
    plan: &Plan,
    progress: Progress,
) -> Result<(Row, Complaints), String> {
    settled(cluster.addresses(), SETTLING).await?;
    let mut bystanders = Bystanders::connect(cluster, plan).await?;
    let bar = progress.counted("coming back: writing without it", plan.load.keys);
    cluster.kill(VICTIM);
    bystanders.driver.fill(|done| bar.set_position(done)).await?;
    bystanders.calls(plan, WARM_UP).await?;
    let before = bystanders.calls(plan, plan.part).await?;
    let hints = hints_for_victim(cluster.addresses()).await;
    drop(bar);
    let bar = progress.timed("coming back: it gets what it has missed", RETURN);
    let began = Instant::now();
    let starting = cluster.spawn(VICTIM)?;
    let mut all: Option<Measured> = None;
    let mut is_ready = false;
    loop {
        let piece = bystanders.calls(plan, Duration::from_secs(1)).await?;
        bar.tick();
        match &mut all {
            None => all = Some(piece),
            Some(all) => merge(all, &piece),
        }
        is_ready = is_ready || starting.is_ready()?;
        if is_ready && hints_for_victim(cluster.addresses()).await == 0 {
            break;
        }
        if began.elapsed() > RETURN {
            return Err("the server that came back still lacks something".to_owned());
        }
    }
    let took = began.elapsed();
    let after = bystanders.calls(plan, plan.part).await?;
    let during = all.as_ref().map(Round::of).ok_or("nothing was measured")?;
    let row = Row {
        name: "coming back".to_owned(),
        before: Round::of(&before),
        during,
        after: Round::of(&after),
        note: Some(format!(
            "{hints} hints waited; all were delivered {:.1} s after its start",
            took.as_secs_f64()
        )),
    };
    Ok((row, bystanders.complaints()))
}

async fn hints_for_victim(addresses: &[String]) -> u64 {
    let mut hints = 0;
    for address in addresses.iter().filter(|address| **address != addresses[VICTIM]) {
        let Ok(status) = status(address).await else { continue };
        let victim = ServerId(VICTIM as u16);
        hints +=
            status.peers.iter().filter(|peer| peer.server == victim).map(|p| p.hints).sum::<u64>();
    }
    hints
}

fn merge(all: &mut Measured, piece: &Measured) {
    all.operations += piece.operations;
    all.failed += piece.failed;
    if all.why.is_none() {
        all.why.clone_from(&piece.why);
    }
    all.elapsed += piece.elapsed;
    // They have the same bounds.
    let _ = all.reads.add(&piece.reads);
    let _ = all.writes.add(&piece.writes);
    all.own_cpu += piece.own_cpu;
    all.other_cpu += piece.other_cpu;
}

/// What the clients of [`all_away`] have seen in one part of the run.
#[derive(Debug)]
struct Seen {
    latencies: Histogram<u64>,
    succeeded: u64,
    failed: u64,
    why: Option<String>,
    began: Instant,
}

impl Seen {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    fn new() -> Seen {
        let (latencies, began) = (histogram(), Instant::now());
        Seen { latencies, succeeded: 0, failed: 0, why: None, began }
    }

    /// A call that began then has ended now; with `why`, in vain.
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
    fn note(&mut self, began: Instant, why: Option<String>) {
        if why.is_some() {
            self.failed += 1;
            self.why = self.why.take().or(why);
            return;
        }
        let waited = Instant::now() - began.max(self.began);
        self.latencies.saturating_record((waited.as_micros() as u64).max(1));
        self.succeeded += 1;
    }

    fn round(&self) -> Round {
        let seconds = self.began.elapsed().as_secs_f64();
        Round {
            operations: self.succeeded,
            failed: self.failed,
            why: self.why.clone(),
            seconds,
            rate: self.succeeded as f64 / seconds,
            latency: Latency::of(&self.latencies),
            reads: Latency::default(),
            writes: Latency::default(),
            store_cpu: 0.0,
            own_cpu: 0.0,
            other: 0.0,
        }
    }
}

/// All servers are killed, stay away while clients of the library go on trying, and are started again. Latencies afterwards count
/// from the moment at which the last server was ready: what came before was nobody's fault.
///
/// # Errors
/// The servers do not come back.
pub async fn all_away(
    cluster: &mut Cluster,
    plan: &Plan,
    away: Duration,
    progress: Progress,
) -> Result<Row, String> {
    settled(cluster.addresses(), SETTLING).await?;
    let bar = progress.timed("all away", plan.part * 3 + away);
    let seen = Rc::new(RefCell::new(Seen::new()));
    let over = Rc::new(Cell::new(false));
    let local = LocalSet::new();
    let tasks: Vec<_> = (0..plan.load.clients)
        .map(|number| {
            let addresses = cluster.addresses();
            let first = number % addresses.len();
            let servers = [&addresses[first..], &addresses[..first]].concat();
            let client = Client::new(Options {
                servers,
                timeout: TRY,
                safety: Safety::OneCall,
                routing: Routing::Sticky,
            });
            let (plan, seen, over) = (plan.clone(), Rc::clone(&seen), Rc::clone(&over));
            local.spawn_local(keep_trying(number, client, plan, seen, over))
        })
        .collect();
    let row = local
        .run_until(async {
            let part = async |length: Duration| {
                *seen.borrow_mut() = Seen::new();
                tokio::time::sleep(length).await;
                bar.tick();
                seen.borrow().round()
            };
            tokio::time::sleep(WARM_UP).await;
            let before = part(plan.part).await;
            for id in 0..cluster.count() {
                cluster.kill(id);
            }
            let during = part(away).await;
            let starting: Vec<_> =
                (0..cluster.count()).map(|id| cluster.spawn(id)).collect::<Result<_, _>>()?;
            for starting in starting {
                while !starting.is_ready()? {
                    tokio::time::sleep(POLL).await;
                }
            }
            let after = part(plan.part).await;
            let name = "all away".to_owned();
            Ok::<_, String>(Row { name, before, during, after, note: None })
        })
        .await?;
    over.set(true);
    local.run_until(futures_util::future::join_all(tasks)).await;
    Ok(row)
}

/// One client that always wants something, and asks again when it does not get it.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
async fn keep_trying(
    number: usize,
    client: Client,
    plan: Plan,
    seen: Rc<RefCell<Seen>>,
    over: Rc<Cell<bool>>,
) {
    let mut turn = 0u64;
    while !over.get() {
        turn += 1;
        let name = key((number as u64).wrapping_mul(7919).wrapping_add(turn) % plan.load.keys);
        let key = Key::bound(bytes::Bytes::copy_from_slice(&name));
        let began = Instant::now();
        let result = if turn.is_multiple_of(2) {
            let (level, timeout) = (plan.level, Some(TRY));
            client.read(ClientRequest::Get { key, level, timeout }).await
        } else {
            let content = Content::Value(vec![b'v'; plan.load.value_length].into());
            client.write(PreparedPut::new(key, content, plan.level)).await
        };
        let failed = result.is_err();
        seen.borrow_mut().note(began, result.err().map(|error| error.to_string()));
        if failed {
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }
}

/// Ten times as many clients as keep the store busy: what they get done between them.
///
/// # Errors
/// The cluster cannot be driven.
pub async fn overload(
    cluster: &Cluster,
    plan: &Plan,
    progress: Progress,
) -> Result<(Overload, Complaints), String> {
    settled(cluster.addresses(), SETTLING).await?;
    let mut complaints = Complaints::default();
    let mut measured = Vec::new();
    for (times, seed) in [(1, 1), (OVERLOAD, 2)] {
        let bar = progress.timed(&format!("{times} times as many clients"), plan.part);
        let clients = plan.load.clients * times;
        let seed = plan.load.seed + seed;
        let load = Load { clients, seed, may_break: true, ..plan.load.clone() };
        let (read_level, write_level) = (plan.level, plan.level);
        let addresses = cluster.addresses().to_vec();
        let target = Chord { addresses, read_level, write_level, table: None };
        let checker = Checker::new(load.keys, load.value_length, plan.level != Level::One);
        let checker = Rc::new(RefCell::new(checker));
        let mut driver = Driver::connect(Rc::new(target), load, Rc::clone(&checker)).await?;
        driver.fill(|_| bar.tick()).await?;
        driver.run(Until::Elapsed(WARM_UP), &[], |_| {}).await?;
        measured.push(driver.run(Until::Elapsed(plan.part), &[], |_| bar.tick()).await?);
        complaints.add(checker.borrow().complaints().clone());
    }
    let (peak, flooded) = (Round::of(&measured[0]), &measured[1]);
    let useful = |histogram: &Histogram<u64>| histogram.count_between(0, USEFUL.as_micros() as u64);
    let goodput = (useful(&flooded.reads) + useful(&flooded.writes)) as f64;
    let found = Overload {
        peak: peak.rate,
        goodput: goodput / flooded.elapsed.as_secs_f64(),
        refused: flooded.failed,
        latency: Round::of(flooded).latency,
    };
    Ok((found, complaints))
}
