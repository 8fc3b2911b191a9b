//! `server.sh` and `terminate_servers.sh`, as a newcomer runs them.

use std::process::{Command, Output};

use crate::process::{project, run, text};

pub(crate) struct Scripts {
    data: tempfile::TempDir,
    port_base: u16,
    nodes: u16,
}

impl Scripts {
    fn new() -> Scripts {
        Scripts::with_room_for(4)
    }

    /// With neighbouring free ports for so many servers, and as many for their HTTP doors.
    pub(crate) fn with_room_for(nodes: u16) -> Scripts {
        // Below those that the system gives away by itself; where the search begins differs from process to process.
        let first = 10_000 + (std::process::id() % 200) as u16 * 100;
        let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        let port_base = (0..200)
            .map(|step| 10_000 + (first - 10_000 + step * 100 + 17 * nodes) % 22_000)
            .find(|base| (0..2 * nodes).all(|i| is_free(base + i)))
            .unwrap();
        Scripts { data: tempfile::tempdir().unwrap(), port_base, nodes }
    }

    fn script(&self, name: &str, args: &[&str]) -> Output {
        let mut command = Command::new(project().join(name));
        let programs = std::path::Path::new(env!("CARGO_BIN_EXE_chord-server")).parent().unwrap();
        command.env("CHORD_BIN", programs).arg("--data").arg(self.data.path()).args(args);
        run(command, "")
    }

    pub(crate) fn start(&self, args: &[&str]) -> Output {
        let (base, http) = (self.port_base.to_string(), (self.port_base + self.nodes).to_string());
        self.script("server.sh", &[&["--port-base", &base, "--http-base", &http], args].concat())
    }

    pub(crate) fn stop(&self, args: &[&str]) -> Output {
        self.script("terminate_servers.sh", args)
    }

    pub(crate) fn client(&self, args: &[&str]) -> Output {
        self.client_with(args, "")
    }

    pub(crate) fn client_with(&self, args: &[&str], input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chord-client"));
        let servers: Vec<_> =
            (0..self.nodes).map(|i| format!("127.0.0.1:{}", self.port_base + i)).collect();
        if !args.contains(&"--server") {
            command.args(["--server", &servers.join(",")]);
        }
        command.args(args);
        run(command, input)
    }

    /// What a server's HTTP door says of the cluster.
    pub(crate) fn http(&self, server: u16) -> String {
        use std::io::{Read, Write};
        let port = self.port_base + self.nodes + server;
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream
            .write_all(b"GET /v1/topology HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        self.stop(&[]);
    }
}

pub(crate) fn pids(output: &Output) -> Vec<(u16, u32)> {
    let number = |word: &str| word.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    text(&output.stdout)
        .lines()
        .filter(|line| line.contains("pid") && line.contains("port"))
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let after = |name: &str| {
                let at = words.iter().position(|word| word.contains(name)).unwrap();
                number(words[at + 1])
            };
            (after("port") as u16, after("pid"))
        })
        .collect()
}

/// One that has ended may still stand in the table until somebody asks how.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// S1: four servers start with one script, one is restarted by its port alone, and exactly those are stopped.
#[test]
fn the_scripts_start_restart_and_stop_exactly_their_own_servers() {
    let scripts = Scripts::new();
    let output = scripts.start(&[]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let started = pids(&output);
    assert_eq!(started.len(), 4, "{}", text(&output.stdout));
    let put = scripts.client(&["put", "137", "v", "quorum"]);
    assert!(put.status.success(), "{}{}", text(&put.stdout), text(&put.stderr));

    // Twice is safe.
    let again = scripts.start(&[]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert!(started.iter().all(|(_, pid)| is_running(*pid)), "a second start killed someone");

    // One by its port.
    let port = (scripts.port_base + 2).to_string();
    let one = scripts.script("server.sh", &[&port]);
    assert!(one.status.success(), "{}{}", text(&one.stdout), text(&one.stderr));
    let restarted = pids(&one);
    assert_eq!(restarted.len(), 1);
    assert!(restarted[0].1 != started[2].1 && !is_running(started[2].1));
    crate::process::wait_until("all replicas answer again", || {
        let output = scripts.client(&["get", "137", "all"]);
        if output.status.success() { Ok(()) } else { Err(text(&output.stdout)) }
    });

    let output = scripts.script("terminate_servers.sh", &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for (_, pid) in started.iter().chain(&restarted) {
        assert!(!is_running(*pid), "{pid} still runs");
    }
    let again = scripts.script("terminate_servers.sh", &["--clean"]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    let left: Vec<_> =
        std::fs::read_dir(scripts.data.path()).map(Iterator::collect).unwrap_or_default();
    assert!(left.is_empty(), "--clean leaves {left:?}");
}
