//! What clients notice when a server is killed and comes back, or comes back without its disk.
//!
//! The same clients work all the time; those of the server that dies connect to another one, and what they had asked it
//! counts as failed. Latencies of the first second after the kill stand apart: until then the others may wait for one that
//! they do not yet know to be gone.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::check::{Checker, Complaints};
use super::chord::{Chord, settled, status};
use super::cluster::Cluster;
use super::load::{Driver, Load, Measured, SLICE, Until};
use super::progress::Progress;
use super::report::Round;
use crate::model::{Level, ServerId};

/// For a cluster to be complete.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between looks at what a server that is back still lacks.
const LOOK: Duration = Duration::from_millis(25);

/// The server that is killed.
const VICTIM: usize = 0;

/// What is tried.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What clients do.
    pub load: Load,
    /// Of reads and writes.
    pub level: Level,
    /// Length of each part of the run; the part in which the server comes back goes on until it has everything.
    pub part: Duration,
    /// It comes back without its data.
    pub lose_disk: bool,
}

/// A part of the run.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// Which.
    pub name: String,
    /// What was measured.
    #[serde(flatten)]
    pub round: Round,
    /// The longest latency, in microseconds; in the part after the kill without its first second.
    pub slowest: u64,
    /// The longest latency of the first second after the kill, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slowest_at_first: Option<u64>,
}

/// The whole run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outage {
    /// In their order.
    pub parts: Vec<Part>,
    /// Seconds from the start of the server to its being ready.
    pub ready_seconds: f64,
    /// Seconds from its being ready to its having everything, as the others know.
    pub whole_seconds: f64,
    /// Hints that waited for it when it was started.
    pub hints: u64,
    /// Hints delivered a second once it was ready; 0 if none was left by then: they start to arrive before it says that it is.
    pub hint_rate: f64,
}

impl Part {
    fn of(name: &str, measured: &Measured, after_kill: bool) -> Part {
        let first = if after_kill { (1_000 / SLICE.as_millis()) as usize } else { 0 };
        let (at_first, later) = measured.timeline.split_at(first.min(measured.timeline.len()));
        let slowest = |slices: &[super::load::Slice]| {
            slices.iter().map(|slice| slice.slowest).max().unwrap_or(0)
        };
        Part {
            name: name.to_owned(),
            round: Round::of(measured),
            slowest: slowest(later).max(measured.late),
            slowest_at_first: after_kill.then(|| slowest(at_first)),
        }
    }
}

/// Hints that wait for the victim, and whether all others take it for whole.
async fn looked_at(addresses: &[String]) -> (u64, bool) {
    let (mut hints, mut is_whole) = (0, true);
    for address in addresses.iter().filter(|address| **address != addresses[VICTIM]) {
        let Ok(status) = status(address).await else { continue };
        let victim = ServerId(VICTIM as u16);
        for peer in status.peers.iter().filter(|peer| peer.server == victim) {
            hints += peer.hints;
            is_whole &= peer.alive && peer.voting;
        }
    }
    (hints, is_whole && hints == 0)
}

/// Kills one server under load, starts it again, and watches until it has everything.
///
/// # Errors
/// The cluster cannot be driven, or the server does not come back.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
pub async fn outage(
    cluster: &mut Cluster,
    plan: &Plan,
    progress: Progress,
) -> Result<(Outage, Complaints), String> {
    let Plan { load, level, part, lose_disk } = plan;
    let addresses = cluster.addresses().to_vec();
    settled(&addresses, PATIENCE).await?;
    let (read_level, write_level) = (*level, *level);
    let target = Chord { addresses: addresses.clone(), read_level, write_level, table: None };
    let fresh = *level != Level::One;
    let checker = Rc::new(RefCell::new(Checker::new(load.keys, load.value_length, fresh)));
    let load = Load { may_break: true, ..load.clone() };
    let mut driver = Driver::connect(Rc::new(target), load.clone(), Rc::clone(&checker)).await?;
    let bar = progress.counted("filling", load.keys);
    driver.fill(|done| bar.set_position(done)).await?;
    drop(bar);
    let mut found = Outage::default();
    driver.run(Until::Elapsed(Duration::from_secs(1)), &[], |_| {}).await?;
    let bar = progress.timed("all servers are there", *part);
    let measured = driver.run(Until::Elapsed(*part), &cluster.pids(), |_| bar.tick()).await?;
    found.parts.push(Part::of("all servers are there", &measured, false));

    let bar = progress.timed("one is gone", *part);
    cluster.kill(VICTIM);
    let until = Until::Elapsed(*part + Duration::from_secs(1));
    let measured = driver.run(until, &cluster.pids(), |_| bar.tick()).await?;
    found.parts.push(Part::of("one is gone", &measured, true));

    let bar = progress.timed("it comes back", *part);
    if *lose_disk {
        cluster.lose_disk(VICTIM)?;
    }
    found.hints = looked_at(&addresses).await.0;
    let began = Instant::now();
    let starting = cluster.spawn(VICTIM)?;
    let pids = cluster.pids();
    let (whole, hints_left) = (Cell::new(None), Cell::new(0));
    let watch = async {
        while !starting.is_ready()? {
            tokio::time::sleep(LOOK).await;
        }
        let ready = Instant::now();
        hints_left.set(looked_at(&addresses).await.0);
        while !looked_at(&addresses).await.1 {
            tokio::time::sleep(LOOK).await;
        }
        whole.set(Some((ready - began, ready.elapsed())));
        Ok::<_, String>(())
    };
    let work = async {
        let mut parts = Vec::new();
        while parts.is_empty() || whole.get().is_none() {
            parts.push(driver.run(Until::Elapsed(*part), &pids, |_| bar.tick()).await?);
        }
        Ok::<_, String>(parts)
    };
    let (parts, ()) = tokio::try_join!(work, watch)?;
    for measured in &parts {
        found.parts.push(Part::of("it comes back", measured, false));
    }
    if let Some((ready, lacking)) = whole.get() {
        found.ready_seconds = ready.as_secs_f64();
        found.whole_seconds = lacking.as_secs_f64();
        found.hint_rate = hints_left.get() as f64 / found.whole_seconds.max(1e-3);
    }
    let bar = progress.timed("all are there again", *part);
    let measured = driver.run(Until::Elapsed(*part), &cluster.pids(), |_| bar.tick()).await?;
    found.parts.push(Part::of("all are there again", &measured, false));
    let complaints = checker.borrow().complaints().clone();
    Ok((found, complaints))
}
