//! Which server gets how many keys.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;

use super::check::Checker;
use super::chord::{Chord, settled, status};
use super::keys::Choice;
use super::load::{Driver, Load};
use super::progress::Progress;
use crate::model::Level;

/// For a cluster to be complete.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keys of each server after so many were put.
#[derive(Clone, Debug, Serialize)]
pub struct Balance {
    /// What was measured.
    pub name: String,
    /// By server.
    pub keys: Vec<u64>,
    /// The fullest server's keys over the mean.
    pub fullest: f64,
    /// The emptiest server's keys over the mean.
    pub emptiest: f64,
    /// How long the puts took.
    pub seconds: f64,
}

impl Balance {
    fn of(name: String, keys: Vec<u64>, seconds: f64) -> Balance {
        let mean = keys.iter().sum::<u64>() as f64 / keys.len().max(1) as f64;
        let share = |count: Option<&u64>| count.map_or(0.0, |count| *count as f64 / mean.max(1.0));
        let (fullest, emptiest) = (share(keys.iter().max()), share(keys.iter().min()));
        Balance { name, keys, fullest, emptiest, seconds }
    }

    /// Keys of a server if all had as many.
    pub fn mean(&self) -> f64 {
        self.keys.iter().sum::<u64>() as f64 / self.keys.len().max(1) as f64
    }
}

/// Puts every key once and asks the servers how many they have.
///
/// # Errors
/// The cluster cannot be driven.
pub async fn balance(
    name: &str,
    addresses: &[String],
    keys: u64,
    clients: usize,
    progress: Progress,
) -> Result<Balance, String> {
    settled(addresses, PATIENCE).await?;
    let level = Level::Quorum;
    let target =
        Chord { addresses: addresses.to_vec(), read_level: level, write_level: level, table: None };
    let load = Load {
        clients,
        pipeline: 1,
        reads: 0.0,
        scan: None,
        keys,
        choice: Choice::Ascending,
        value_length: 100,
        may_break: false,
        seed: 1,
    };
    let checker = Rc::new(RefCell::new(Checker::new(keys, load.value_length, true)));
    let mut driver = Driver::connect(Rc::new(target), load, checker).await?;
    let bar = progress.counted(name, keys);
    let measured = driver.fill(|done| bar.set_position(done)).await?;
    let mut held = Vec::new();
    for address in addresses {
        let status = status(address).await?;
        held.push(status.keys - status.tombstones);
    }
    Ok(Balance::of(name.to_owned(), held, measured.elapsed.as_secs_f64()))
}
