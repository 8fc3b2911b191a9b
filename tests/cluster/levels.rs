//! AVAILABLE and ONE, with real processes and `kill -9`.

use std::time::Duration;

use chord::client::{Client, Options, Routing, Safety};
use chord::model::{ClientRequest, ClientResponse, Content, Key, Level, PreparedPut};

use crate::process::{Cluster, Shape, text};

fn hashed(nodes: usize, replicas: usize) -> Cluster {
    Cluster::shaped(Shape { partitioner: "hashed", ..Shape::of(nodes, replicas) })
}

/// Puts each key in one process and gets it in another: the latest, of every key. How many answers had no majority.
fn put_and_get(cluster: &Cluster, keys: usize, round: &str) -> usize {
    let mut alone = 0;
    for i in 0..keys {
        let (key, value) = (format!("key{i}"), format!("value{i}.{round}"));
        for args in [vec!["--put", &key, "--val", &value], vec!["--get", &key]] {
            let output = cluster.client(&args);
            assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
            let said = text(&output.stdout);
            alone += usize::from(said.contains(" (available: 1 of "));
            if args[0] == "--get" {
                assert!(said.starts_with(&format!("{key}, {value}, server")), "{said}");
            }
        }
    }
    alone
}

/// F2: three servers, two copies, any one killed: `--put` and `--get` of every key work, and a get is the latest.
#[test]
fn the_demo_goes_on_with_the_latest_values_after_any_death() {
    let mut cluster = hashed(3, 2);
    put_and_get(&cluster, 20, "all");
    cluster.wait_equal();
    for victim in 0..3 {
        cluster.kill(victim);
        let alone = put_and_get(&cluster, 20, &format!("without{victim}"));
        assert!((1..=40).contains(&alone), "{alone} answers had no majority");
        // QUORUM cannot do that here, and AVAILABLE has a name everywhere.
        let command: String = (0..20).map(|i| format!("get key{i} available\n")).collect();
        let output = cluster.client_with(&["--json"], &command);
        assert!(output.status.success(), "{output:?}");
        assert!(
            text(&output.stdout).contains("\"reached\":{\"holding\":1,\"level\":\"AVAILABLE\"")
        );
        cluster.restart(victim);
        for server in 0..3 {
            cluster.wait_alive(server, &[0, 1, 2]);
        }
        cluster.wait_equal();
    }
    assert_eq!(put_and_get(&cluster, 5, "again"), 0);
}

/// F2: seven servers, three copies, any two killed.
#[test]
fn seven_servers_go_on_with_the_latest_values_after_any_two_deaths() {
    let mut cluster = hashed(7, 3);
    put_and_get(&cluster, 20, "all");
    cluster.wait_equal();
    for (one, other) in [(3, 4), (6, 0), (2, 5)] {
        cluster.kill(one);
        cluster.kill(other);
        put_and_get(&cluster, 20, &format!("without{one}{other}"));
        cluster.restart(one);
        cluster.restart(other);
        for server in 0..7 {
            cluster.wait_alive(server, &[0, 1, 2, 3, 4, 5, 6]);
        }
        cluster.wait_equal();
    }
}

/// A majority falls silent instead of dying: a call at AVAILABLE waits until that is known, and not for its whole time.
#[test]
fn a_silent_majority_is_noticed_within_the_call() {
    let cluster = Cluster::demo();
    cluster.put(1, "100", "before", Level::Quorum).unwrap();
    cluster.wait_equal();
    // The key's other replicas.
    cluster.signal(2, "STOP");
    cluster.signal(3, "STOP");
    cluster.put(1, "100", "alone", Level::Available).unwrap();
    assert_eq!(cluster.get(1, "100", Level::Available).unwrap().as_deref(), Some("alone"));
    cluster.signal(2, "CONT");
    cluster.signal(3, "CONT");
    cluster.wait_equal();
    assert_eq!(cluster.get(3, "100", Level::Quorum).unwrap().as_deref(), Some("alone"));
}

/// F3: what a coordinator has acknowledged, at whatever level, it reads at ONE, on the spot.
#[test]
fn a_coordinator_reads_at_one_what_it_acknowledged() {
    let cluster = hashed(4, 3);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut missing, mut old) = (0, 0);
    for server in 0..4 {
        let client = Client::new(Options {
            servers: vec![cluster.address(server)],
            timeout: Duration::from_secs(10),
            safety: Safety::OneCall,
            routing: Routing::Sticky,
        });
        let check = async |i: usize| {
            let key = Key::bound(format!("{server}-{i}"));
            let level = if i.is_multiple_of(2) { Level::Quorum } else { Level::One };
            let mut found = Vec::new();
            for round in 0..2 {
                let last = format!("value{i}.{round}");
                let content = Content::Value(last.clone().into());
                client.write(PreparedPut::new(key.clone(), content, level)).await.unwrap();
                let (key, level, timeout) = (key.clone(), Level::One, None);
                let read = ClientRequest::Get { key, level, timeout };
                let ClientResponse::Get { cell, .. } = client.read(read).await.unwrap().response
                else {
                    panic!("no answer to a get");
                };
                let value = cell.and_then(|cell| cell.content.value().cloned());
                found.push((value, last));
            }
            found
        };
        runtime.block_on(async {
            for batch in 0..16 {
                let calls = (0..16).map(|i| check(batch * 16 + i));
                for (value, wanted) in futures_util::future::join_all(calls).await.concat() {
                    match value {
                        None => missing += 1,
                        Some(value) => old += usize::from(value != wanted),
                    }
                }
            }
        });
    }
    assert_eq!((missing, old), (0, 0), "of 2,048");
}
