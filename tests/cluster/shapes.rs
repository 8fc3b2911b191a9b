//! Clusters of any shape: sizes, copies, partitioners, placements; all of them start, answer and stop.

use std::time::{Duration, Instant};

use crate::process::{Cluster, Shape, text};
use crate::scripts::Scripts;

/// What was put is read back through every server, and lies on as many servers as there are copies.
fn works(shape: Shape<'_>) {
    let mut cluster = Cluster::shaped(shape);
    let keys = ["a", "key1", "zz", "~", "137", "\u{e9}"];
    for key in keys {
        let put = cluster.client(&["put", key, "v"]);
        assert!(put.status.success(), "{shape:?} {put:?}");
    }
    for server in 0..shape.nodes {
        for key in keys {
            let found = cluster.get(server, key, chord::model::Level::Quorum).unwrap();
            assert_eq!(found.as_deref(), Some("v"), "{shape:?}");
        }
    }
    cluster.wait_equal();
    for key in keys {
        let holders = cluster.holders(key);
        if shape.placement == "groups" {
            // Those of one group: neighbours, all of them.
            let group = holders[0] / shape.replicas;
            let size = shape.replicas.min(shape.nodes - group * shape.replicas);
            assert_eq!(holders.len(), size, "{shape:?} {holders:?}");
            assert!(holders.iter().all(|holder| holder / shape.replicas == group));
        } else {
            assert_eq!(holders.len(), shape.replicas, "{shape:?} {holders:?}");
        }
    }
    for server in 0..shape.nodes {
        assert_eq!(cluster.terminate(server), Some(0));
    }
}

#[test]
fn one_to_seven_servers_with_one_to_seven_copies() {
    for (nodes, replicas) in [(1, 1), (2, 1), (2, 2), (3, 3), (5, 4), (7, 5), (7, 6), (7, 7)] {
        for partitioner in ["byte-ordered", "hashed"] {
            works(Shape { partitioner, ..Shape::of(nodes, replicas) });
        }
    }
}

#[test]
fn disjoint_groups_of_servers() {
    for (nodes, replicas) in [(4, 2), (6, 3), (7, 3)] {
        // Of seven, the last is alone: nobody can be asked what it may have lost.
        let flags: &[&str] = if nodes % replicas == 1 { &["--accept-loss"] } else { &[] };
        for partitioner in ["byte-ordered", "hashed"] {
            let placement = "groups";
            works(Shape { partitioner, placement, flags, ..Shape::of(nodes, replicas) });
        }
    }
}

/// A hundred servers on one machine, by the script. The figures are printed; docs/operations.md has some.
#[test]
fn a_hundred_servers_start_answer_and_stop() {
    const NODES: u16 = 100;
    let scripts = Scripts::with_room_for(NODES);
    let began = Instant::now();
    let started = scripts.start(&["--nodes", "100", "--rep", "3", "--partitioner", "hashed"]);
    let took = began.elapsed();
    assert!(started.status.success(), "{started:?}");
    let pids = crate::scripts::pids(&started);
    assert_eq!(pids.len(), usize::from(NODES));
    let resident = |pid: &u32| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let kilobytes: u64 = pids.iter().map(|(_, pid)| resident(pid)).sum();
    println!("100 servers: ready after {took:.1?}, {} kB of memory each", kilobytes / 100);
    assert!(kilobytes / 100 < 50_000, "a server takes {} kB", kilobytes / 100);
    let commands: String = (0..500).map(|i| format!("put key{i} v\n")).collect();
    let put = scripts.client_with(&["--quiet"], &commands);
    assert!(put.status.success(), "{put:?}");
    for (port, _) in pids.iter().step_by(33) {
        let found = scripts.client(&["--server", &format!("127.0.0.1:{port}"), "--get", "key7"]);
        assert!(text(&found.stdout).starts_with("key7, v, server"), "{found:?}");
    }
    let http = scripts.http(99);
    assert!(http.contains("\"partitioner\":\"hashed\""), "{http}");
    let began = Instant::now();
    assert!(scripts.stop(&[]).status.success());
    println!("100 servers: stopped after {:.1?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(60));
    for (_, pid) in pids {
        assert!(!crate::scripts::is_running(pid), "{pid} is still there");
    }
}
