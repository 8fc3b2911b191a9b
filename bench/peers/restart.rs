//! A server with a million keys beside Redis with as many: what a key costs in memory, and how long each takes to be back after
//! `kill -9`.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use chord::bench::check::Checker;
use chord::bench::chord::{Chord, settled};
use chord::bench::cluster::{Cluster, Shape};
use chord::bench::cost::memory_of;
use chord::bench::keys::Choice;
use chord::bench::load::{Driver, Load};
use chord::bench::report::{Spread, plain_table, thousands};
use chord::bench::target::Target;
use chord::model::Level;
use chord::ring::Partitioner;
use serde::Serialize;

use super::Flags;
use super::processes::Lone;

const KEYS: u64 = 1_000_000;
const VALUE_LENGTH: usize = 100;

/// Before memory is looked at: allocators give back late what they no longer use.
const CALM: Duration = Duration::from_secs(1);

/// One store of the comparison.
#[derive(Debug, Serialize)]
pub(crate) struct Restarts {
    name: String,
    memory_per_key: f64,
    /// Of each round.
    seconds: Vec<f64>,
}

async fn fill<T: Target + 'static>(target: T) -> Result<(), String> {
    let load = Load {
        clients: 64,
        pipeline: 1,
        reads: 0.0,
        scan: None,
        keys: KEYS,
        choice: Choice::Ascending,
        value_length: VALUE_LENGTH,
        may_break: false,
        seed: 1,
    };
    let checker = Rc::new(RefCell::new(Checker::new(KEYS, VALUE_LENGTH, false)));
    Driver::connect(Rc::new(target), load, checker).await?.fill(|_| {}).await?;
    tokio::time::sleep(CALM).await;
    Ok(())
}

/// Both in turns.
pub(crate) async fn restart(flags: &Flags) -> Result<[Restarts; 2], String> {
    let per_key = |before: u64, after: u64| after.saturating_sub(before) as f64 / KEYS as f64;
    let mut chord = Cluster::start(Shape {
        program: flags.program.clone(),
        folder: flags.folder.clone(),
        servers: 1,
        replicas: 1,
        partitioner: Partitioner::ByteOrdered,
        sampled: None,
        sync: "1s".to_owned(),
        flags: vec!["--memory=2GiB".to_owned()],
        first_data: None,
    })?;
    let memory = |chord: &Cluster| chord.pid(0).map_or(0, memory_of);
    let empty = memory(&chord);
    let addresses = chord.addresses().to_vec();
    settled(&addresses, Duration::from_secs(60)).await?;
    let level = Level::Quorum;
    fill(Chord { addresses, read_level: level, write_level: level, table: None }).await?;
    let memory_per_key = per_key(empty, memory(&chord));
    let mut ours = Restarts { name: "chord".to_owned(), memory_per_key, seconds: Vec::new() };

    let mut redis = Lone::redis(&flags.folder)?;
    redis.start().await?;
    let empty = redis.memory();
    fill(redis.target()).await?;
    let memory_per_key = per_key(empty, redis.memory());
    let mut theirs = Restarts { name: "redis".to_owned(), memory_per_key, seconds: Vec::new() };
    for _ in 0..flags.rounds {
        chord.kill(0);
        ours.seconds.push(chord.restart(0)?.as_secs_f64());
        redis.kill();
        theirs.seconds.push(redis.start().await?.as_secs_f64());
    }
    Ok([ours, theirs])
}

pub(crate) fn print([ours, theirs]: &[Restarts; 2]) {
    let mut table = plain_table(["", "B/key", "restart s", "least–most"]);
    for one in [ours, theirs] {
        let Spread { median, min, max } = Spread::of(one.seconds.iter().copied());
        table.add_row([
            one.name.clone(),
            format!("{:.0}", one.memory_per_key),
            format!("{median:.2}"),
            format!("{min:.2}–{max:.2}"),
        ]);
    }
    let keys = thousands(KEYS as f64);
    println!(
        "\nrestart: one server, {keys} keys of 16 bytes, values of {VALUE_LENGTH} bytes, kill -9\n{table}"
    );
    let pairs = ours.seconds.iter().zip(&theirs.seconds);
    let Spread { median, min, max } = Spread::of(pairs.map(|(ours, theirs)| ours / theirs));
    let memory = ours.memory_per_key / theirs.memory_per_key;
    println!(
        "  to redis                      memory × {memory:.2}   restart × {median:.2} ({min:.2}–{max:.2})"
    );
}
