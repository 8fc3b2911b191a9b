//! The manager-and-nodes demo (requirements G1 to G5): its driver's words, real processes, `kill -9`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chord::client::{Client, Options, Routing, Safety};
use chord::model::{ClientRequest, ClientResponse, Content, Key, Level, PreparedPut};

use crate::process::{Cluster, Shape, text};

fn hashed(nodes: usize, replicas: usize) -> Cluster {
    Cluster::shaped(Shape { partitioner: "hashed", ..Shape::of(nodes, replicas) })
}

/// What the driver printed, and that it ended well.
fn said(cluster: &Cluster, args: &[&str]) -> String {
    let output = cluster.client(args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    text(&output.stdout)
}

/// G2: `OK, server1` and `key1, value1, server1`, with one name for one server, whichever address is given.
#[test]
fn the_driver_speaks_the_demos_words() {
    let cluster = hashed(5, 3);
    let stored = said(&cluster, &["--put", "key1", "--val", "value1"]);
    let server = stored.strip_prefix("OK, ").unwrap().trim().to_owned();
    assert!(server.starts_with("server") && server[6..].parse::<usize>().is_ok_and(|id| id < 5));
    for id in 0..5 {
        let address = cluster.address(id);
        let found = said(&cluster, &["--server", &address, "--get", "key1"]);
        assert_eq!(found, format!("key1, value1, {server}\n"));
    }
    // The one that is named holds it.
    assert!(cluster.holders("key1").contains(&server[6..].parse().unwrap()));
    let missing = cluster.client(&["--get", "nobody"]);
    assert_eq!((missing.status.code(), text(&missing.stdout)), (Some(1), String::new()));
    assert_eq!(said(&cluster, &["--del", "key1"]), format!("OK, {server}\n"));
    assert_eq!(cluster.client(&["--get", "key1"]).status.code(), Some(1));
    assert_eq!(cluster.client(&["--put", "key1"]).status.code(), Some(2), "no --val");
}

/// G3: hashed, the first keys anyone tries are not all in one place.
#[test]
fn keys_spread_over_the_servers_by_hash() {
    let cluster = hashed(5, 1);
    let mut places = BTreeSet::new();
    for key in ["key1", "key2", "key3"] {
        said(&cluster, &["--put", key, "--val", "v"]);
        let holders = cluster.holders(key);
        assert_eq!(holders.len(), 1);
        places.extend(holders);
    }
    assert!(places.len() > 1, "{places:?}");
}

/// Writes keys at ALL, twice, so that there is an old value to be found by mistake.
fn fill(cluster: &Cluster, keys: usize) {
    let commands: String = (0..2)
        .flat_map(|round| (0..keys).map(move |i| format!("put key{i} value{i}.{round} all\n")))
        .collect();
    let output = cluster.client_with(&["--quiet"], &commands);
    assert!(output.status.success(), "{output:?}");
}

fn all_readable(cluster: &Cluster, keys: usize) {
    let commands: String = (0..keys).map(|i| format!("get key{i} one\n")).collect();
    let output = cluster.client_with(&["--json"], &commands);
    assert!(output.status.success(), "{output:?}");
    for (i, line) in text(&output.stdout).lines().enumerate() {
        let found: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(found["value"], format!("value{i}.1"), "{found}");
    }
}

/// G4: three servers, two copies, any one killed: every key's latest value is readable at ONE.
#[test]
fn three_servers_with_two_copies_survive_the_death_of_any_one() {
    let mut cluster = hashed(3, 2);
    fill(&cluster, 100);
    for victim in 0..3 {
        cluster.kill(victim);
        all_readable(&cluster, 100);
        cluster.restart(victim);
        for server in 0..3 {
            cluster.wait_alive(server, &[0, 1, 2]);
        }
    }
}

/// G4: seven servers, three copies, any two killed.
#[test]
fn seven_servers_with_three_copies_survive_the_death_of_any_two() {
    let mut cluster = hashed(7, 3);
    fill(&cluster, 100);
    // Neighbours keep the same ranges: the hardest pairs; and one that is far apart.
    for (one, other) in [(0, 1), (3, 4), (6, 0), (2, 5)] {
        cluster.kill(one);
        cluster.kill(other);
        all_readable(&cluster, 100);
        cluster.restart(one);
        cluster.restart(other);
        for server in 0..7 {
            cluster.wait_alive(server, &[0, 1, 2, 3, 4, 5, 6]);
        }
    }
}

/// G5: a client whose table is out of date times out, asks again, and sends again, under the same version.
#[test]
fn a_client_with_an_old_table_asks_again_and_sends_again() {
    let cluster = hashed(4, 3);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::new(Options {
            servers: (0..4).map(|server| cluster.address(server)).collect(),
            timeout: Duration::from_secs(10),
            safety: Safety::Ticket,
            routing: Routing::Replica { prefer: None },
        });
        let key = Key::bound("key1");
        let write = |value: &'static str| {
            PreparedPut::new(key.clone(), Content::Value(value.into()), Level::Quorum)
        };
        let first = client.write(write("one")).await.unwrap();
        let owner = client.table().await.unwrap().replicas(&key)[0];
        assert_eq!(first.server, Some(owner), "straight to the owner");
        // The table still says that the owner is to be asked; it has stopped answering.
        cluster.signal(owner.0 as usize, "STOP");
        let began = Instant::now();
        let second = client.write(write("two")).await.unwrap();
        assert_ne!(second.server, Some(owner));
        assert!(began.elapsed() > Duration::from_secs(1), "it must have waited for the owner");
        // From now on the silent one is left alone.
        let began = Instant::now();
        client.write(write("three")).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        cluster.signal(owner.0 as usize, "CONT");
        let (level, timeout) = (Level::Quorum, None);
        let read = ClientRequest::Get { key: key.clone(), level, timeout };
        let ClientResponse::Get { cell: Some(cell), .. } =
            client.read(read).await.unwrap().response
        else {
            panic!("the key is gone");
        };
        assert_eq!(cell.content.value().map(|value| &value[..]), Some(&b"three"[..]));
    });
    cluster.wait_equal();
}
