//! The benchmark as its users run it, and that it would notice a store that is fast and wrong.

#![allow(clippy::unwrap_used, reason = "a test falls where it goes wrong")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use chord::model::{
    Cell, ClientRequest, ClientResponse, Content, Incarnation, Key, ServerId, Status, Version,
};
use chord::wire::{Answer, Call, Format, MessageReader, decode_call, encode_answer};

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chord-bench"))
        .args(args)
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// How a store in this test is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Not,
    /// Every hundredth write is acknowledged and forgotten.
    Loses,
    /// Reads give what was written first.
    Stale,
    /// Reads give another key's value.
    MixesUp,
}

/// A store that speaks Thrift and keeps values in memory, in its own way.
fn store(wrong: Wrong) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let cells: Arc<Mutex<BTreeMap<Key, Cell>>> = Arc::default();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let cells = Arc::clone(&cells);
            std::thread::spawn(move || serve(stream, &cells, wrong));
        }
    });
    address
}

fn serve(mut stream: TcpStream, cells: &Mutex<BTreeMap<Key, Cell>>, wrong: Wrong) {
    let (mut reader, mut input) = (MessageReader::new(Format::NATIVE), BytesMut::new());
    let mut chunk = [0; 8192];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        input.extend_from_slice(&chunk[..count]);
        let mut output = BytesMut::new();
        while let Some(message) = reader.next(&mut input).unwrap() {
            let request = decode_call(Format::NATIVE.protocol, message).unwrap();
            let Ok(Call::Client(call)) = request.call else { return };
            let result = Ok(answer(call, &mut cells.lock().unwrap(), wrong));
            let answer = Answer::Client { server: ServerId(0), result };
            let (method, sequence) = (request.method, request.sequence);
            encode_answer(Format::NATIVE, &method, sequence, &answer, &mut output).unwrap();
        }
        if stream.write_all(&output).is_err() {
            return;
        }
    }
}

fn answer(call: ClientRequest, cells: &mut BTreeMap<Key, Cell>, wrong: Wrong) -> ClientResponse {
    match call {
        ClientRequest::Put(put) => {
            let time = cells.get(&Key::bound("")).map_or(1, |cell| cell.version.time + 1);
            let version =
                Version { time, server: ServerId(0), incarnation: Incarnation(1), step: 0 };
            let cell = Cell { version, content: put.content };
            cells.insert(Key::bound(""), Cell { version, content: Content::Value(Bytes::new()) });
            let keeps = match wrong {
                Wrong::Loses => time % 100 != 0,
                Wrong::Stale => !cells.contains_key(&put.key),
                Wrong::Not | Wrong::MixesUp => true,
            };
            if keeps {
                cells.insert(put.key, cell);
            }
            ClientResponse::Put { version, overtaken: false, reached: None }
        }
        ClientRequest::Get { key, .. } => {
            let other = cells.range(key.successor()..).next().map(|(_, cell)| cell.clone());
            let cell = if wrong == Wrong::MixesUp { other } else { None };
            ClientResponse::Get { cell: cell.or_else(|| cells.get(&key).cloned()), reached: None }
        }
        _ => ClientResponse::Status(Box::new(Status { voting: true, ..Status::default() })),
    }
}

#[test]
fn a_fast_wrong_store_fails() {
    for (wrong, code, words) in [
        (Wrong::Not, 0, "ops/s"),
        (Wrong::Loses, 1, "wrong answers"),
        (Wrong::Stale, 1, "older than"),
        (Wrong::MixesUp, 1, "never written"),
    ] {
        let address = store(wrong);
        let output = bench(&[
            "throughput",
            "--at",
            &address,
            "--keys",
            "200",
            "--clients",
            "8",
            "--operations",
            "4000",
            "--rounds",
            "1",
            "--warm-up",
            "0",
        ]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{wrong:?}: {said}");
        assert!(said.contains(words), "{wrong:?}: {said}");
    }
}

#[test]
fn a_cluster_of_its_own_is_measured_and_goes_away() {
    let folder = tempfile::tempdir().unwrap();
    let chart = folder.path().join("chart.svg");
    let output = bench(&[
        "throughput",
        "--replicas",
        "1,3",
        "--keys",
        "300",
        "--clients",
        "4",
        "--operations",
        "2000",
        "--rounds",
        "2",
        "--warm-up",
        "0.1",
        "--json",
        "--program",
        env!("CARGO_BIN_EXE_chord-server"),
        "--folder",
        folder.path().to_str().unwrap(),
        "--chart",
        chart.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 2);
    for row in rows.as_array().unwrap() {
        assert!(row["rate"]["median"].as_f64().unwrap() > 1.0, "{row}");
        assert!(row["store_cpu"]["median"].as_f64().unwrap() > 0.1, "{row}");
        assert!(row["rounds"][1]["latency"]["p99"].as_u64().unwrap() > 0, "{row}");
        assert_eq!(row["rounds"][0]["operations"], 2000);
    }
    assert!(std::fs::read_to_string(chart).unwrap().contains("3 replicas"));
    let left: Vec<PathBuf> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left.len(), 1, "only the chart is left: {left:?}");
}

#[test]
fn keys_placed_by_hash_are_balanced_and_blind_ranges_are_shown_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(&[
        "balance",
        "--keys",
        "3000",
        "--servers",
        "3",
        "--json",
        "--program",
        env!("CARGO_BIN_EXE_chord-server"),
        "--folder",
        folder.path().to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let fullest = |index: usize| found[index]["fullest"].as_f64().unwrap();
    assert!(fullest(0) < 1.1 && fullest(1) < 1.01 && fullest(2) > 2.9, "{found}");
}

/// The JSON of a benchmark of a small cluster of its own.
fn figures(args: &[&str]) -> serde_json::Value {
    let folder = tempfile::tempdir().unwrap();
    let own = ["--json", "--program", env!("CARGO_BIN_EXE_chord-server"), "--folder"];
    let output = bench(&[args, &own, &[folder.path().to_str().unwrap()]].concat());
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{args:?} leaves something");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn calls_come_at_the_rate_that_was_asked_for() {
    let rows = figures(&[
        "latency",
        "--rate",
        "200,400",
        "--clients",
        "16",
        "--seconds",
        "1",
        "--rounds",
        "1",
        "--keys",
        "100",
    ]);
    for (row, rate) in rows.as_array().unwrap().iter().zip([200.0, 400.0]) {
        let found = row["rate"]["median"].as_f64().unwrap();
        assert!((rate * 0.7..rate * 1.3).contains(&found), "{row}");
        assert!(row["latency"]["p99"].as_u64().unwrap() > 0, "{row}");
        assert!(row["syncs_per_write"].as_f64().unwrap() > 0.1, "{row}");
    }
}

#[test]
fn a_killed_server_comes_back_with_all_its_keys() {
    let found = &figures(&["recovery", "--keys", "3000", "--rounds", "2"])[0];
    assert_eq!(found["keys"], 3000);
    assert!(found["data_bytes"].as_u64().unwrap() > 3000 * 116, "{found}");
    assert!(found["first_seconds"].as_f64().unwrap() > 0.0, "{found}");
    assert!(found["memory_per_key"].as_f64().unwrap() > 116.0, "{found}");
}

#[test]
fn clients_go_on_without_a_killed_server_and_it_gets_what_it_has_missed() {
    let outage = ["outage", "--clients", "6", "--seconds", "1", "--keys", "300"];
    let found = figures(&outage);
    let parts = found["parts"].as_array().unwrap();
    assert!(parts.len() >= 4, "{found}");
    for part in parts {
        assert!(part["rate"].as_f64().unwrap() > 10.0, "{part}");
    }
    assert!(parts[1]["failed"].as_u64().unwrap() > 0, "its clients notice: {found}");
    assert_eq!(parts[0]["failed"], 0);
    assert!(found["hints"].as_u64().unwrap() > 0, "{found}");
    let lost = figures(&[&outage[..], &["--lose-disk"]].concat());
    assert!(lost["whole_seconds"].as_f64().unwrap() > 0.0, "{lost}");
}

#[test]
fn clients_of_the_others_notice_little_of_one_bad_server() {
    let found = figures(&[
        "neighbours",
        "--trouble",
        "nothing,paused,killed,slow-syncs,coming-back,all-away,overload",
        "--rate",
        "200",
        "--clients",
        "8",
        "--seconds",
        "0.5",
        "--keys",
        "300",
        "--hints",
        "500",
        "--retrying",
        "8",
        "--away",
        "0.5",
    ]);
    let rows = found["rows"].as_array().unwrap();
    let left_out = found["left_out"].as_array().unwrap();
    assert_eq!(rows.len() + left_out.len(), 6, "{found}");
    for row in rows {
        for part in ["before", "after"] {
            assert!(row[part]["operations"].as_u64().unwrap() > 10, "{part} of {row}");
            assert!(row[part]["latency"]["max"].as_u64().unwrap() > 0, "{part} of {row}");
        }
    }
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap();
    assert_eq!(row("killed")["during"]["failed"], 0, "the others go on: {found}");
    assert!(row("coming back")["note"].as_str().unwrap().contains("hints waited"), "{found}");
    assert!(row("all away")["during"]["failed"].as_u64().unwrap() > 0, "{found}");
    assert!(found["overload"]["goodput"].as_f64().unwrap() > 10.0, "{found}");
}

#[test]
fn scans_are_counted() {
    let rows = figures(&[
        "scan",
        "--length",
        "10,50",
        "--clients",
        "4",
        "--seconds",
        "0.5",
        "--rounds",
        "1",
        "--keys",
        "300",
    ]);
    for row in rows.as_array().unwrap() {
        assert!(row["rate"]["median"].as_f64().unwrap() > 1.0, "{row}");
        assert_eq!(row["writes"]["max"], 0, "{row}");
    }
}

#[test]
fn what_cannot_be_measured_is_said() {
    let refuses = |args: &[&str], words: &str| {
        let output = bench(args);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    };
    refuses(&["throughput", "--program", "nowhere"], "there is no nowhere");
    refuses(&["throughput", "--choice", "random"], "uniform, zipfian, latest or ascending");
    refuses(&["throughput", "--servers", "1"], "3 replicas need as many servers");
    refuses(&["outage", "--servers", "1", "--replicas", "1"], "one server alone cannot be missed");
    refuses(&["latency", "--rate", "0"], "give calls a second");
    refuses(
        &["neighbours", "--trouble", "killed", "--servers", "2", "--replicas", "2"],
        "--servers 3",
    );
    // Nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let dead = ["throughput", "--at", &address, "--patience", "0.2"];
    refuses(&dead, &address);
}
