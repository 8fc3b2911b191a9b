//! How many calls a second, and what each costs: one setting on one cluster, over several rounds.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::check::{Checker, Complaints};
use super::chord::{Chord, settled, status, table};
use super::load::{Driver, Load, Until};
use super::progress::Progress;
use super::report::{Round, Row};
use crate::model::Level;

/// Keys read back at the end, at most.
const READ_BACK: u64 = 100_000;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Setting {
    /// For the table.
    pub name: String,
    /// What clients do.
    pub load: Load,
    /// Of reads.
    pub read_level: Level,
    /// Of writes.
    pub write_level: Level,
    /// Each call goes to a replica of its key.
    pub routed: bool,
    /// Before each round, not counted.
    pub warm_up: Duration,
    /// Each round.
    pub until: Until,
    /// How many.
    pub rounds: usize,
    /// For the cluster to be complete.
    pub patience: Duration,
}

impl Setting {
    /// Reads and writes meet in a majority, so every answer must be fresh.
    fn is_fresh(&self) -> bool {
        self.read_level != Level::One && self.write_level != Level::One
    }
}

/// Fills the store, measures, and reads the keys back. `pids`: the servers' processes, if they are known.
///
/// # Errors
/// The store cannot be driven. What is wrong with its answers are the complaints.
pub async fn measure(
    setting: &Setting,
    addresses: &[String],
    pids: &[u32],
    progress: &Progress,
) -> Result<(Row, Complaints), String> {
    settled(addresses, setting.patience).await?;
    let table = if setting.routed { Some(table(&addresses[0]).await?) } else { None };
    let target = Rc::new(Chord {
        addresses: addresses.to_vec(),
        read_level: setting.read_level,
        write_level: setting.write_level,
        table,
    });
    let load = &setting.load;
    let checker = Checker::new(load.keys, load.value_length, setting.is_fresh());
    let checker = Rc::new(RefCell::new(checker));
    let mut driver = Driver::connect(Rc::clone(&target), load.clone(), Rc::clone(&checker)).await?;
    let bar = progress.counted(&format!("{}: filling", setting.name), load.keys);
    driver.fill(|done| bar.set_position(done)).await?;
    drop(bar);
    let (mut rounds, mut syncs, mut writes) = (Vec::new(), 0, 0);
    for number in 1..=setting.rounds {
        if !setting.warm_up.is_zero() {
            driver.run(Until::Elapsed(setting.warm_up), &[], |_| {}).await?;
        }
        let what = format!("{}: round {number} of {}", setting.name, setting.rounds);
        let bar = match setting.until {
            Until::Operations(count) => progress.counted(&what, count),
            Until::Elapsed(length) | Until::Arrivals { length, .. } => {
                progress.timed(&what, length)
            }
        };
        let before = syncs_of(addresses).await?;
        let measured = driver.run(setting.until, pids, |done| bar.set_position(done)).await?;
        syncs += syncs_of(addresses).await? - before;
        writes += measured.writes.len();
        rounds.push(Round::of(&measured));
    }
    // What was acknowledged must be there, also where the rounds did not look.
    let back = Load {
        reads: 1.0,
        scan: None,
        choice: super::keys::Choice::Ascending,
        seed: load.seed + 1,
        ..load.clone()
    };
    let mut reader = Driver::connect(target, back, Rc::clone(&checker)).await?;
    let bar =
        progress.counted(&format!("{}: reading back", setting.name), load.keys.min(READ_BACK));
    reader
        .run(Until::Operations(load.keys.min(READ_BACK)), &[], |done| bar.set_position(done))
        .await?;
    let complaints = checker.borrow().complaints().clone();
    let mut row = Row::of(setting.name.clone(), rounds);
    row.syncs_per_write = (writes > 0).then(|| syncs as f64 / writes as f64);
    Ok((row, complaints))
}

/// Syncs of all servers since their starts.
async fn syncs_of(addresses: &[String]) -> Result<u64, String> {
    let mut all = 0;
    for address in addresses {
        all += status(address).await?.counters.get("syncs").copied().unwrap_or(0);
    }
    Ok(all)
}
