//! What survives: kills, deletions of whole folders, silence, and everything at once.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use chord::model::{ClientResponse, DamagedRecord, Level};
use chord::wire::FailureCode;

use crate::hostile::memory;
use crate::process::{Cluster, Shape, text, wait_until};

/// S7, S10: what was acknowledged is there after every server was killed at once.
#[test]
fn everything_acknowledged_survives_kill_9_of_every_server() {
    let mut cluster = Cluster::demo();
    for i in 0..200 {
        cluster.put(i % 4, &format!("{i:03}"), &format!("value {i}"), Level::Quorum).unwrap();
    }
    for server in 0..4 {
        cluster.kill(server);
    }
    for server in 0..4 {
        cluster.restart(server);
    }
    cluster.wait_alive(0, &[0, 1, 2, 3]);
    for i in 0..200 {
        let value = cluster.get(0, &format!("{i:03}"), Level::Quorum).unwrap();
        assert_eq!(value, Some(format!("value {i}")));
    }
    cluster.wait_equal();
}

/// W2: a server answers nobody before its log is replayed: its port opens with its ready line, not before.
#[test]
fn no_request_is_served_from_a_half_replayed_log() {
    let mut cluster = Cluster::demo();
    let lines: String = (0..20_000).map(|i| format!("put k{i:05} {i}\n")).collect();
    let output = cluster.client_with(&["--quiet"], &lines);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    cluster.wait_equal();
    // "k…" lies in the last range: servers 3, 0, 1.
    cluster.kill(0);
    let held_before = cluster.status(1).keys;
    assert_eq!(held_before, 20_000);
    let address: std::net::SocketAddr = cluster.address(0).parse().unwrap();
    let mut child = cluster.command(0).stdout(std::process::Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    let first = loop {
        // The very first answer it ever gives.
        if let Ok(Ok(ClientResponse::Status(status))) =
            crate::process::ask(address, chord::model::ClientRequest::Status)
        {
            break status;
        }
        assert!(Instant::now() < until);
    };
    assert_eq!(first.keys, 20_000);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// W7: a server whose files were deleted says that it does not vote, and gets its keys back.
#[test]
fn a_server_whose_folder_was_deleted_is_rebuilt_before_it_votes() {
    let mut cluster = Cluster::demo();
    for i in 0..100 {
        cluster.put(0, &format!("{i:03}"), &format!("value {i}"), Level::Quorum).unwrap();
    }
    cluster.wait_equal();
    let before = cluster.contents(1);
    assert!(!before.is_empty());
    cluster.kill(1);
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.data(1)).unwrap();
    cluster.restart(1);
    // One of the two others of its ranges is away: it must wait, and say so.
    cluster.wait_for(1, "says that it does not vote", |status| {
        !status.voting && status.state.contains("not voting")
    });
    cluster.wait_alive(0, &[0, 3]);
    let failure = cluster.put(0, "010", "new", Level::Quorum).unwrap_err();
    assert_eq!(
        failure.code,
        FailureCode::Unavailable,
        "an empty server counted towards a majority"
    );
    cluster.restart(2);
    cluster.wait_for(1, "votes again, in a later life", |status| {
        status.voting && status.incarnation.0 == 2
    });
    assert_eq!(cluster.contents(1), before);
    cluster.wait_alive(0, &[0, 1, 2, 3]);
    cluster.put(0, "010", "new", Level::Quorum).unwrap();
    cluster.wait_equal();
}

/// S10, W9: hints outlive their holder, whichever of the two comes back first.
#[test]
fn hints_survive_their_holder_in_either_order_of_restart() {
    for holder_first in [true, false] {
        let mut cluster = Cluster::demo();
        cluster.kill(2);
        cluster.wait_alive(0, &[0, 1, 3]);
        // Server 3 is no replica of "010": the hint for 2 is all that it has of it.
        cluster.wait_alive(3, &[0, 1, 3]);
        cluster.put(3, "010", "for two", Level::Quorum).unwrap();
        wait_until("3 keeps the hint", || match cluster.hints(3, 2) {
            1 => Ok(()),
            count => Err(format!("{count} hints")),
        });
        cluster.kill(3);
        let (first, second) = if holder_first { (3, 2) } else { (2, 3) };
        cluster.restart(first);
        cluster.restart(second);
        cluster
            .wait_for(3, "has delivered", |status| status.peers.iter().all(|peer| peer.hints == 0));
        assert!(
            cluster.contents(2).iter().any(|(_, value, _)| value.as_deref() == Some("for two"))
        );
    }
}

/// W10: writes that come in while hints are delivered are not lost.
#[test]
fn puts_during_the_delivery_of_hints_are_not_lost() {
    let mut cluster = Cluster::demo();
    cluster.kill(2);
    cluster.wait_alive(0, &[0, 1, 3]);
    let lines: String = (0..3_000).map(|i| format!("put 1{i:04} old\n")).collect();
    assert_eq!(cluster.client_with(&["--quiet"], &lines).status.code(), Some(0));
    cluster.restart(2);
    let lines: String = (0..3_000).step_by(7).map(|i| format!("put 1{i:04} new\n")).collect();
    assert_eq!(cluster.client_with(&["--quiet"], &lines).status.code(), Some(0));
    cluster.wait_equal();
    for i in (0..3_000).step_by(21) {
        let value = cluster.get(1, &format!("1{i:04}"), Level::Quorum).unwrap();
        assert_eq!(value.as_deref(), Some("new"));
    }
}

/// W8: a server that fell silent, links up all the while, and comes back without a restart; nothing is lost, nobody
/// hangs, and replicas converge. W14: calls through the others are answered within their time-out meanwhile.
#[test]
fn a_silent_server_delays_nobody_for_long_and_converges_when_it_is_back() {
    let cluster = Cluster::demo();
    cluster.put(0, "010", "before", Level::Quorum).unwrap();
    cluster.signal(2, "STOP");
    let began = Instant::now();
    for i in 0..20 {
        cluster.put(0, "010", &format!("during {i}"), Level::Quorum).unwrap();
        assert!(cluster.get(1, "010", Level::Quorum).unwrap().is_some());
    }
    assert!(began.elapsed() < Duration::from_secs(10), "calls waited for a silent replica");
    cluster.wait_alive(0, &[0, 1, 3]);
    let failure = cluster.put(0, "010", "all", Level::All).unwrap_err();
    assert_eq!(failure.code, FailureCode::Unavailable);
    cluster.signal(2, "CONT");
    cluster.wait_equal();
    assert_eq!(cluster.get(2, "010", Level::Quorum).unwrap().as_deref(), Some("during 19"));
}

/// W14: a peer that accepts connections and never answers is not alive, and hangs no request.
#[test]
fn a_peer_that_accepts_and_never_answers_hangs_no_request() {
    let mut cluster = Cluster::demo();
    cluster.kill(2);
    let _mute = TcpListener::bind(cluster.address(2)).unwrap();
    cluster.wait_alive(0, &[0, 1, 3]);
    cluster.wait_alive(1, &[0, 1, 3]);
    let began = Instant::now();
    cluster.put(0, "010", "v", Level::Quorum).unwrap();
    assert_eq!(cluster.get(1, "010", Level::Quorum).unwrap().as_deref(), Some("v"));
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// W15: overwriting one key for ever keeps log and hints bounded.
#[test]
fn overwriting_one_key_for_ever_keeps_log_and_hints_bounded() {
    let mut cluster = Cluster::start(&["", "064", "128", "192"], &["--segment-size", "64KiB"]);
    cluster.kill(2);
    cluster.wait_alive(0, &[0, 1, 3]);
    let value = "x".repeat(1000);
    let lines: String = (0..5_000).map(|i| format!("put 010 {i}{value}\n")).collect();
    assert_eq!(cluster.client_with(&["--quiet"], &lines).status.code(), Some(0));
    // Five megabytes were written; a few segments remain.
    for server in [0, 1] {
        cluster.wait_for(server, "has a small log", |status| {
            status.log_bytes < 512 << 10 && status.hint_log_bytes < 512 << 10
        });
    }
    let hints: u64 = [0, 1, 3].iter().map(|server| cluster.hints(*server, 2)).sum();
    assert!(hints <= 3, "{hints} hints for one key");
    cluster.restart(2);
    cluster.wait_equal();
}

/// SIGTERM ends a server in order, with exit code 0.
#[test]
fn sigterm_stops_in_order_and_loses_nothing() {
    let mut cluster = Cluster::demo();
    cluster.put(0, "010", "v", Level::All).unwrap();
    assert_eq!(cluster.terminate(0), Some(0));
    cluster.restart(0);
    assert!(cluster.contents(0).iter().any(|(key, _, _)| key == "010"));
}

/// A byte of a sealed segment rots while its server is down. The server keeps its life and its vote; its scrub finds the record,
/// has it from another replica, empties the segment, and the inspector tells.
#[test]
fn a_rotten_record_is_found_by_the_scrub_and_healed() {
    let flags = ["--segment-size", "64KiB", "--scrub-rate"];
    let with = |rate| [flags.as_slice(), &[rate]].concat();
    let mut cluster = Cluster::start(&["", "064", "128"], &with("0"));
    let value = |i: usize| format!("value-{i:03}-{}", "x".repeat(1000));
    let lines: String = (0..200).map(|i| format!("put {i:03} {}\n", value(i))).collect();
    assert_eq!(cluster.client_with(&["--quiet"], &lines).status.code(), Some(0));
    cluster.wait_equal();
    let before = cluster.status(2);
    assert_eq!(cluster.terminate(2), Some(0));

    let segment = cluster.data(2).join("cells/0000000001.log");
    assert!(segment.with_extension("keys").exists(), "the start has no need to read the segment");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(6).position(|window| window == b"value-").unwrap();
    let key = String::from_utf8(bytes[at + 6..at + 9].to_vec()).unwrap();
    bytes[at + 500] ^= 4;
    std::fs::write(&segment, bytes).unwrap();
    let data = cluster.data(2).display().to_string();
    let at_rest = cluster.inspector(&["--folder", &data, "--verify", "--limit", "0"]);
    let told = text(&at_rest.stdout);
    assert_eq!(at_rest.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("damaged: the record of {key}")), "{told}");

    cluster.set_flags(&with("64MiB/s"));
    cluster.restart(2);
    cluster.wait_for(2, "has healed the record", |status| {
        let scrub = status.scrub.clone().unwrap();
        let healed = |record: &DamagedRecord| record.key == key && record.healed.is_some();
        scrub.ended > 0 && scrub.waiting == 0 && scrub.recent.iter().any(healed)
    });
    wait_until("the segment is gone", || match segment.exists() {
        true => Err("it is there".to_owned()),
        false => Ok(()),
    });
    let after = cluster.status(2);
    assert!(after.voting && after.incarnation == before.incarnation, "{}", after.state);
    assert_eq!(after.counters.get("segments_damaged"), Some(&1));
    cluster.wait_equal();
    let told = text(&cluster.inspector(&["--summary"]).stdout);
    let line = "cells/0000000001.log, byte ";
    assert!(told.contains(line) && told.contains(", healed "), "{told}");
    let number: usize = key.parse().unwrap();
    assert_eq!(cluster.get(2, &key, Level::One).unwrap(), Some(value(number)));
}

/// What a start takes in memory depends on what the log holds, and not on how long its last segment is: that is read in pieces.
#[test]
fn a_restart_takes_no_more_memory_than_the_same_data_did_before() {
    const RECORDS: usize = 150_000;
    let mut cluster = Cluster::shaped(Shape { partitioner: "hashed", ..Shape::of(1, 1) });
    let file = cluster.folder.path().join("records.tsv");
    let line = |number: usize| format!("key{number:08}\t{number:080}\n");
    std::fs::write(&file, (0..RECORDS).map(line).collect::<String>()).unwrap();
    let import = cluster.client(&["import", file.to_str().unwrap()]);
    assert!(import.status.success(), "{import:?}");
    let before = memory(cluster.pid(0), "VmHWM");
    cluster.kill(0);
    cluster.restart(0);
    cluster.wait_for(0, "holds all", |status| status.keys == RECORDS as u64);
    let after = memory(cluster.pid(0), "VmHWM");
    println!("{RECORDS} records: {before} MiB, after the restart {after} MiB");
    assert!(after <= before + 4, "{before} MiB before, {after} MiB after the restart");
}
