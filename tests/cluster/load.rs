//! Real input: a word list, through the console's standard input, at QUORUM with sync on, and back after `kill -9`.

use std::fmt::Write as _;
use std::time::Instant;

use crate::process::{Cluster, text};

const RECORDS: usize = 100_000;
const WORDS: &str = "/usr/share/dict/words";

/// The value that a word gets: something of the word, so that a mix-up shows.
fn value_of(number: usize, word: &str) -> String {
    format!("{number} {}", word.chars().rev().collect::<String>())
}

/// A word as the console reads it, whatever is in it.
fn quoted(word: &str) -> String {
    let mut out = String::from("\"");
    for letter in word.chars() {
        if matches!(letter, '"' | '\\') {
            out.push('\\');
        }
        out.push(letter);
    }
    out.push('"');
    out
}

#[test]
fn a_hundred_thousand_records_of_real_text_survive_kill_9_of_every_server() {
    let Ok(list) = std::fs::read_to_string(WORDS) else {
        eprintln!("SKIPPED: {WORDS} is not there; install Debian's package wamerican");
        return;
    };
    let words: Vec<_> = list.lines().filter(|word| !word.is_empty()).take(RECORDS).collect();
    assert!(words.len() == RECORDS, "the word list has {} words only", words.len());
    let mut cluster = Cluster::demo();
    let mut puts = String::new();
    for (number, word) in words.iter().enumerate() {
        let _ = writeln!(puts, "put {} {} quorum", quoted(word), quoted(&value_of(number, word)));
    }
    let began = Instant::now();
    let output = cluster.client_with(&["--quiet"], &puts);
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    println!(
        "stored {RECORDS} records in {seconds:.1} s, {:.0} a second",
        RECORDS as f64 / seconds
    );
    println!("{}", text(&output.stderr).trim_end());

    for server in 0..4 {
        cluster.kill(server);
    }
    for server in 0..4 {
        cluster.restart(server);
    }
    for server in 0..4 {
        cluster.wait_alive(server, &[0, 1, 2, 3]);
    }
    let gets: String = words.iter().map(|word| format!("get {} quorum\n", quoted(word))).collect();
    let began = Instant::now();
    let output = cluster.client_with(&["--json"], &gets);
    let seconds = began.elapsed().as_secs_f64();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    println!("read {RECORDS} records in {seconds:.1} s, {:.0} a second", RECORDS as f64 / seconds);
    let stdout = text(&output.stdout);
    let mut compared = 0;
    for (line, (number, word)) in stdout.lines().zip(words.iter().enumerate()) {
        let found: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(found["key"], **word);
        assert_eq!(found["value"], value_of(number, word));
        compared += 1;
    }
    assert_eq!(compared, RECORDS);
}
