//! The story that a newcomer would try: write, look, kill, go on, restart, look again.

use chord::model::Level;
use chord::wire::FailureCode;

use crate::process::{Cluster, text, wait_until};

/// S2, S3, S4, S5, S11: the console session and the inspector.
#[test]
fn a_console_session_puts_keys_where_they_belong_and_the_inspector_shows_it() {
    let cluster = Cluster::demo();
    let session = "put 0 zero quorum\n\nput 137 v quorum\nget 137 quorum\nput 5 five one\nget 7\nput\n\
                   frobnicate 1\nget 137\nexit\n";
    let output = cluster.client_with(&[], session);
    let stdout = text(&output.stdout);
    let lines: Vec<_> = stdout.lines().collect();
    assert!(lines.iter().filter(|line| line.starts_with("SUCCESS")).count() == 5, "{stdout}");
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("SUCCESS") && line.contains("137") && line.contains('v'))
    );
    assert!(lines.iter().any(|line| line.starts_with("NOT FOUND")), "{stdout}");
    // S4: errors are printed, and the session went on to the last get.
    let stderr = text(&output.stderr);
    assert!(stderr.contains("frobnicate"), "{stderr}");
    assert!(lines.last().unwrap().starts_with("SUCCESS"), "{stdout}");

    wait_until("three replicas hold each key", || {
        let holders = (cluster.holders("0"), cluster.holders("137"));
        if holders == (vec![0, 1, 2], vec![0, 2, 3]) { Ok(()) } else { Err(format!("{holders:?}")) }
    });
    cluster.wait_equal();
    let output = cluster.inspector(&["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // S6: one version, the same on all replicas.
    let version =
        |server: usize| cluster.contents(server).into_iter().find(|(key, _, _)| key == "137");
    assert_eq!(version(0), version(2));
    assert_eq!(version(2), version(3));
}

/// S8, S10, W4: one replica dies, two die, ports are restarted.
#[test]
fn quorum_goes_on_with_one_replica_dead_and_is_refused_with_two() {
    let mut cluster = Cluster::demo();
    cluster.put(0, "137", "before", Level::Quorum).unwrap();

    cluster.kill(3);
    for server in [0, 1, 2] {
        cluster.wait_alive(server, &[0, 1, 2]);
    }
    cluster.put(1, "137", "one dead", Level::Quorum).unwrap();
    assert_eq!(cluster.get(1, "137", Level::Quorum).unwrap().as_deref(), Some("one dead"));
    wait_until("a hint is kept for 3", || match cluster.hints(1, 3) {
        0 => Err("no hint yet".to_owned()),
        _ => Ok(()),
    });

    cluster.kill(0);
    for server in [1, 2] {
        cluster.wait_alive(server, &[1, 2]);
    }
    let hints: Vec<_> =
        [1, 2].map(|server| cluster.hints(server, 0) + cluster.hints(server, 3)).to_vec();
    let failure = cluster.put(1, "137", "two dead", Level::Quorum).unwrap_err();
    assert_eq!(failure.code, FailureCode::Unavailable);
    assert_eq!((failure.required, failure.alive), (Some(2), Some(1)));
    let failure = cluster.get(1, "137", Level::Quorum).unwrap_err();
    assert_eq!(failure.code, FailureCode::Unavailable);
    // Nothing was stored and no hint was kept.
    assert_eq!(cluster.get(1, "137", Level::One).unwrap().as_deref(), Some("one dead"));
    let after: Vec<_> =
        [1, 2].map(|server| cluster.hints(server, 0) + cluster.hints(server, 3)).to_vec();
    assert_eq!(hints, after);
    // ONE goes on.
    cluster.put(1, "137", "at one", Level::One).unwrap();

    cluster.restart(0);
    cluster.restart(3);
    cluster.wait_equal();
    for server in 0..4 {
        cluster.wait_for(server, "has no hints left", |status| {
            status.peers.iter().all(|peer| peer.hints == 0)
        });
        assert_ne!(cluster.get(server, "137", Level::Quorum).unwrap().as_deref(), Some("two dead"));
    }
    assert_eq!(cluster.get(0, "137", Level::Quorum).unwrap().as_deref(), Some("at one"));
}

/// The console says stored, not stored, or unknown, by words and by exit codes.
#[test]
fn one_shot_commands_tell_their_outcome_by_exit_code() {
    let mut cluster = Cluster::demo();
    assert_eq!(cluster.client(&["put", "137", "v", "quorum"]).status.code(), Some(0));
    let output = cluster.client(&["get", "137", "quorum"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains('v'));
    assert_eq!(cluster.client(&["get", "138"]).status.code(), Some(1));
    assert_eq!(cluster.client(&["get"]).status.code(), Some(2));
    assert_eq!(
        cluster.client(&["put", "", "v"]).status.code(),
        Some(5),
        "S: an empty key is refused"
    );
    cluster.kill(2);
    cluster.kill(3);
    cluster.wait_alive(0, &[0, 1]);
    cluster.wait_alive(1, &[0, 1]);
    let output = cluster.client(&["put", "137", "w", "quorum"]);
    assert_eq!(output.status.code(), Some(3), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(cluster.client(&["put", "137", "w", "one"]).status.code(), Some(0));
    cluster.kill(0);
    cluster.kill(1);
    assert_eq!(cluster.client(&["get", "137"]).status.code(), Some(6));
}

/// W3, S9: a key never written is not found; too few replicas is an outage.
#[test]
fn not_found_and_outage_are_told_apart() {
    let mut cluster = Cluster::demo();
    assert_eq!(cluster.get(0, "200", Level::Quorum), Ok(None));
    assert_eq!(cluster.get(0, "200", Level::All), Ok(None));
    cluster.kill(0);
    cluster.wait_alive(1, &[1, 2, 3]);
    let failure = cluster.get(1, "200", Level::All).unwrap_err();
    assert_eq!(failure.code, FailureCode::Unavailable);
    assert_eq!(cluster.get(1, "200", Level::Quorum), Ok(None));
}

/// W1: every server coordinates for every other at once; none waits on another for ever.
#[test]
fn coordinators_that_call_each_other_do_not_wait_on_each_other() {
    let cluster = Cluster::demo();
    std::thread::scope(|scope| {
        for client in 0..8 {
            let cluster = &cluster;
            scope.spawn(move || {
                for i in 0..50 {
                    let key = format!("{:03}", (client * 37 + i * 5) % 256);
                    cluster.put(client % 4, &key, &format!("{client}-{i}"), Level::Quorum).unwrap();
                    assert!(cluster.get((client + 1) % 4, &key, Level::Quorum).unwrap().is_some());
                }
            });
        }
    });
    cluster.wait_equal();
}

/// W12: two coordinators write one key at the same time; all replicas agree on one of the values.
#[test]
fn two_coordinators_in_the_same_tick_leave_replicas_equal() {
    let cluster = Cluster::demo();
    for round in 0..20 {
        std::thread::scope(|scope| {
            for server in 0..4 {
                let cluster = &cluster;
                scope.spawn(move || {
                    cluster
                        .put(server, "100", &format!("{round}-{server}"), Level::Quorum)
                        .unwrap();
                });
            }
        });
        let values: Vec<_> =
            (0..4).map(|server| cluster.get(server, "100", Level::Quorum).unwrap()).collect();
        assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
    }
    cluster.wait_equal();
}
