//! Bad input at every door of a server: a clear error, and it goes on serving.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chord::model::{ClientRequest, ClientResponse, InspectSource, Key, Level, ServerId};

use crate::process::{Cluster, PATIENCE, Shape, run, text};

/// W11, and the frames: whatever arrives, the next client is served.
#[test]
fn garbage_on_the_port_is_refused_and_the_server_goes_on() {
    let cluster = Cluster::demo();
    let send = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(cluster.address(0)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    };
    let answer = text(&send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    send(b"\x16\x03\x01\x02\x00");
    send(&[0x7f; 4096]);
    send(b"\x00\xff\xff\xff\x80\x01\x00\x01");
    send(&[0x80, 0x01, 0x00, 0x01, 0x7f, 0xff, 0xff, 0xff]);
    // Half a frame, then nothing.
    send(b"\x00\x00\x00\x40\x80\x01");
    // A peer's call from nobody in particular.
    let mut frame = vec![0x80, 0x01, 0x00, 0x01, 0, 0, 0, 8];
    frame.extend_from_slice(b"peerPing");
    frame.extend_from_slice(&[0, 0, 0, 1, 0x0c, 0, 1, 0, 0]);
    let mut framed = (frame.len() as u32).to_be_bytes().to_vec();
    framed.extend_from_slice(&frame);
    let answer = text(&send(&framed));
    assert!(answer.contains("peerHello"), "a client may not call a peer's service: {answer:?}");
    cluster.put(0, "010", "v", Level::Quorum).unwrap();
}

/// W11: keys and values are validated at the server, not in the client.
#[test]
fn keys_and_values_are_validated_at_the_server() {
    let cluster = Cluster::demo();
    let script = [("put ", ""), ("get ", "")];
    for (word, rest) in script {
        let key = "k".repeat(64 * 1024 + 1);
        let output = cluster.client_with(&[], &format!("{word}{key} {rest}\nput ok 1\n"));
        assert!(text(&output.stdout).contains("SUCCESS"), "the session goes on");
        assert_ne!(output.status.code(), Some(0));
    }
    assert!(cluster.client(&["get", "ok"]).status.success());
    // The longest value that there may be, one byte more, and more than any frame.
    let longest = 15 << 20;
    let put = |length: usize| format!("put big{length} {}\n", "x".repeat(length));
    let script = [longest, longest + 1, 17 << 20].map(put).concat();
    let output = cluster.client_with(&["--timeout", "20"], &script);
    let stdout = text(&output.stdout);
    let begins: Vec<_> = stdout.lines().map(|line| &line[..line.len().min(10)]).collect();
    assert_eq!(begins, ["SUCCESS bi", "NOT STORED", "NOT STORED"]);
    assert_eq!(output.status.code(), Some(5));
    let value = cluster.client(&["--raw", "get", &format!("big{longest}")]);
    assert_eq!(value.stdout.len(), longest);
}

/// Starting wrongly: one clear line, a non-zero exit.
#[test]
fn a_server_that_cannot_start_says_why_in_one_line() {
    let cluster = Cluster::demo();
    let check = |mut command: Command, words: &[&str], code: i32| {
        command.env_remove("RUST_BACKTRACE");
        let output = run(command, "");
        let stderr = text(&output.stderr);
        for word in words {
            assert!(stderr.contains(word), "'{word}' is not in: {stderr}");
        }
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert_eq!(output.status.code(), Some(code), "{stderr}");
    };
    // The folder is locked.
    check(cluster.command(0), &["data-0", &cluster.pid(0).to_string()], 1);
    // The port is taken.
    let mut command = cluster.command(0);
    command.arg("--data").arg(cluster.folder.path().join("elsewhere"));
    let mut other = Command::new(command.get_program());
    other
        .arg("--cluster")
        .arg(cluster.folder.path().join("cluster.json"))
        .args(["--id", "0", "--data"])
        .arg(cluster.folder.path().join("elsewhere"));
    check(other, &[&cluster.address(0)], 1);
    // Flags and files.
    let program = env!("CARGO_BIN_EXE_chord-server");
    let with = |args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args);
        command
    };
    check(with(&["--frobnicate"]), &["--frobnicate"], 2);
    check(with(&["9000", "--sync", "soon"]), &["soon"], 2);
    check(with(&["8000"]), &["8000"], 2);
    check(
        with(&["--cluster", "/nowhere/cluster.json", "--id", "0"]),
        &["/nowhere/cluster.json"],
        2,
    );
    let broken = cluster.folder.path().join("broken.json");
    std::fs::write(&broken, "{\"name\": ").unwrap();
    check(with(&["--cluster", broken.to_str().unwrap(), "--id", "0"]), &["broken.json"], 2);
    std::fs::write(&broken, "{\"name\": \"x\", \"replicas\": 3, \"servers\": [], \"colour\": 1}")
        .unwrap();
    check(with(&["--cluster", broken.to_str().unwrap(), "--id", "0"]), &["colour"], 2);
}

/// Whoever asks a server for its hints for each server, itself among them, is not told that it does not exist.
#[test]
fn a_server_has_no_hints_for_itself() {
    let cluster = Cluster::shaped(Shape::of(2, 2));
    let inspect = |target: u16| {
        let source = InspectSource::HintsFor(ServerId(target));
        cluster.ask(0, ClientRequest::Inspect { source, from: Key::bound(""), limit: 10 })
    };
    for target in [0, 1] {
        match inspect(target) {
            Ok(ClientResponse::Inspected { entries, next: None }) => assert!(entries.is_empty()),
            other => panic!("hints for {target}: {other:?}"),
        }
    }
    let refused = inspect(2).unwrap_err();
    assert!(format!("{refused:?}").contains("there is no server 2"), "{refused:?}");
}

/// Whether SIGTERM no longer ends the process by itself; else it was not there yet.
fn takes_sigterm(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask >> (15 - 1) & 1 == 1)
}

/// Whoever starts a server may think better of it at once. What comes before `main` has taken the signal, some hundred
/// microseconds, is out of a program's reach; from then on SIGTERM ends it well at every moment, the first start and a later one.
#[test]
fn sigterm_at_any_moment_of_the_start_ends_well() {
    let cluster = Cluster::drawn(Shape::of(1, 1));
    let log = cluster.folder.path().join("0.log");
    for half_ms in (0..40).chain(0..40) {
        let stderr = std::fs::File::create(&log).unwrap();
        let mut command = cluster.command(0);
        let mut child = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        let until = Instant::now() + PATIENCE;
        while !takes_sigterm(child.id()) {
            assert!(Instant::now() < until, "it never takes SIGTERM");
            std::thread::yield_now();
        }
        // When it is asked to stop is what this is about.
        std::thread::sleep(Duration::from_micros(500 * half_ms));
        let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        assert!(killed.unwrap().success());
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > until => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    panic!("asked to stop after {half_ms} half ms it goes on; {}", cluster.log(0));
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        assert_eq!(status.code(), Some(0), "{half_ms} half ms, {status}; {}", cluster.log(0));
        // Half of all starts find an empty folder.
        if half_ms % 2 == 0 {
            let _ = std::fs::remove_dir_all(cluster.data(0));
        }
    }
}
