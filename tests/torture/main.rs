//! The short form of `chord-torture`, and that it would notice. An hour of it, and what came of that: docs/testing.md.

#![allow(clippy::unwrap_used, reason = "a test falls where it goes wrong")]

use std::path::PathBuf;
use std::process::{Command, Output};

fn torture(args: &[&str]) -> Output {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("torture");
    Command::new(env!("CARGO_BIN_EXE_chord-torture"))
        .args(["--program", env!("CARGO_BIN_EXE_chord-server"), "--folder"])
        .arg(folder)
        .args(args)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Half a minute of runs, each with two kinds of faults, on whatever network and disks this machine permits.
#[test]
fn real_servers_keep_their_promises_under_faults() {
    let output = torture(&["--minutes", "0.6", "--seconds", "4"]);
    let said = text(&output);
    println!("{said}");
    assert!(output.status.success() && said.contains("no violation"), "{said}");
}

/// The same without hosts and mounts, as where nothing is permitted: proxies cut and delay.
#[test]
fn proxies_cut_and_delay_where_hosts_are_not_permitted() {
    let args = [
        "--minutes",
        "0.1",
        "--seconds",
        "4",
        "--proxies",
        "--faults",
        "cut,delay,reset,kill,loss",
    ];
    let output = torture(&args);
    let said = text(&output);
    println!("{said}");
    assert!(output.status.success(), "{said}");
    assert!(said.contains("proxies on"), "{said}");
    assert!(said.contains("SKIPPED loss"), "what cannot be is named: {said}");
}

/// Servers that acknowledge before they sync survive `kill -9`, and lose writes when the power goes out; and that is found.
#[test]
fn a_power_cut_betrays_servers_that_do_not_sync() {
    let args = ["--minutes", "0", "--seconds", "4", "--faults", "blackout", "--patience", "5"];
    let output = torture(&[&args[..], &["--server-flag=--sync=10s"]].concat());
    let said = text(&output);
    if said.contains("permits none of these") {
        eprintln!("SKIPPED: {said}");
        return;
    }
    println!("{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    let found = ["linearizable", "own writes", "lost"];
    assert!(found.iter().any(|name| said.contains(&format!("  {name}: key"))), "{said}");
    assert!(said.contains("again: chord-torture --seed 0"), "{said}");
    let kept = said.split("faults are in ").nth(1).unwrap().lines().next().unwrap();
    let history = format!("{kept}/history.jsonl");
    let judged = torture(&["--judge", &history]);
    assert_eq!(judged.status.code(), Some(1), "the kept history tells the same: {}", text(&judged));
    std::fs::remove_dir_all(kept).unwrap();
}

/// The simulator writes the same form, and is judged by the same judge.
#[test]
fn histories_of_the_simulator_are_judged_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.jsonl");
    let history = |args: &[&str]| {
        let sim = Command::new(env!("CARGO_BIN_EXE_chord-sim"))
            .args(args)
            .arg("--history")
            .arg(&path)
            .output()
            .unwrap();
        let judged = torture(&["--judge", path.to_str().unwrap()]);
        (sim.status.code(), judged.status.code(), text(&judged))
    };
    let (sim, judged, said) = history(&["--seed", "7", "--profile", "cuts"]);
    assert_eq!((sim, judged), (Some(0), Some(0)), "{said}");
    let (sim, judged, said) =
        history(&["--seed", "10", "--profile", "cuts", "--flaw", "small-read-quorum"]);
    assert_eq!((sim, judged), (Some(1), Some(1)), "{said}");
    assert!(said.contains("linearizable: key"), "{said}");
    std::fs::write(&path, "{\"client\": 1}\n").unwrap();
    let judged = torture(&["--judge", path.to_str().unwrap()]);
    assert_eq!(judged.status.code(), Some(2));
    assert!(text(&judged).contains("line 1"), "{}", text(&judged));
}
