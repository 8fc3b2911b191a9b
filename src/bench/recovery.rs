//! What keys cost a server in memory and on disk, and how long it takes to be back with them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;

use super::check::{Checker, Complaints};
use super::chord::{Chord, settled};
use super::cluster::Cluster;
use super::cost::memory_of;
use super::keys::{Choice, KEY_LENGTH};
use super::load::{Driver, Load, Until};
use super::progress::Progress;
use super::report::Spread;
use crate::model::Level;

/// For a server to vote.
const PATIENCE: Duration = Duration::from_secs(60);

/// Before memory is looked at: allocators give back late what they no longer use.
const CALM: Duration = Duration::from_secs(1);

/// Keys read back at the end, at most.
const READ_BACK: u64 = 100_000;

/// One server with so many keys.
#[derive(Clone, Debug, Serialize)]
pub struct Recovery {
    /// How many.
    pub keys: u64,
    /// Bytes of each value.
    pub value_length: usize,
    /// Puts a second while they were stored.
    pub stored_rate: f64,
    /// Bytes of all its files.
    pub data_bytes: u64,
    /// Resident memory of the server before any key, in bytes.
    pub empty_memory: u64,
    /// Resident memory with all keys, in bytes.
    pub memory: u64,
    /// Memory a key, in bytes.
    pub memory_per_key: f64,
    /// The same without the bytes of key and value.
    pub overhead_per_key: f64,
    /// Seconds from the start of a killed server to its being ready: the first time, with what it had written last still in an
    /// open segment.
    pub first_seconds: f64,
    /// The same, killed and started again and again.
    pub seconds: Spread,
    /// Resident memory after a restart, with no value in memory yet, in bytes.
    pub memory_after: u64,
}

/// Fills the one server of a cluster, kills it and starts it again, so many times; reads keys back at the end.
///
/// # Errors
/// The server cannot be driven, or does not come back.
pub async fn recovery(
    cluster: &mut Cluster,
    keys: u64,
    value_length: usize,
    rounds: usize,
    progress: Progress,
) -> Result<(Recovery, Complaints), String> {
    let addresses = cluster.addresses().to_vec();
    settled(&addresses, PATIENCE).await?;
    let memory = |cluster: &Cluster| cluster.pid(0).map_or(0, memory_of);
    let empty_memory = memory(cluster);
    let level = Level::Quorum;
    let target = Chord { addresses, read_level: level, write_level: level, table: None };
    let target = Rc::new(target);
    let load = Load {
        clients: 64,
        pipeline: 1,
        reads: 1.0,
        scan: None,
        keys,
        choice: Choice::Ascending,
        value_length,
        may_break: false,
        seed: 1,
    };
    let checker = Rc::new(RefCell::new(Checker::new(keys, value_length, true)));
    let mut driver = Driver::connect(Rc::clone(&target), load.clone(), Rc::clone(&checker)).await?;
    let bar = progress.counted("filling", keys);
    let filled = driver.fill(|done| bar.set_position(done)).await?;
    drop(driver);
    tokio::time::sleep(CALM).await;
    let full_memory = memory(cluster);
    let per_key = full_memory.saturating_sub(empty_memory) as f64 / keys as f64;
    let data_bytes = cluster.data_bytes(0);
    let mut seconds = Vec::new();
    let bar = progress.counted("killing and starting again", rounds as u64 + 1);
    for _ in 0..=rounds {
        cluster.kill(0);
        seconds.push(cluster.restart(0)?.as_secs_f64());
        bar.inc(1);
    }
    drop(bar);
    tokio::time::sleep(CALM).await;
    let memory_after = memory(cluster);
    settled(&target.addresses, PATIENCE).await?;
    let mut reader = Driver::connect(target, load, Rc::clone(&checker)).await?;
    let bar = progress.counted("reading back", keys.min(READ_BACK));
    let until = Until::Operations(keys.min(READ_BACK));
    let read = reader.run(until, &[], |done| bar.set_position(done)).await?;
    if let Some(why) = read.why {
        return Err(format!("{} reads have failed, the first with: {why}", read.failed));
    }
    let complaints = checker.borrow().complaints().clone();
    let found = Recovery {
        keys,
        value_length,
        stored_rate: keys as f64 / filled.elapsed.as_secs_f64(),
        data_bytes,
        empty_memory,
        memory: full_memory,
        memory_per_key: per_key,
        overhead_per_key: per_key - (KEY_LENGTH + value_length) as f64,
        first_seconds: seconds[0],
        seconds: Spread::of(seconds[1..].iter().copied()),
        memory_after,
    };
    Ok((found, complaints))
}
