//! `server.sh` and `terminate_servers.sh`, as a newcomer runs them.

use std::path::Path;
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

/// What a script has said, on both of its outputs.
fn all(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

fn mode(path: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o7777
}

/// G2, G3: a lost disk is told, two lost disks of one range are told within seconds, with the command that helps.
#[test]
fn lost_disks_are_told_and_accepted_by_name() {
    let scripts = Scripts::new();
    let output = scripts.start(&[]);
    assert!(output.status.success(), "{}", all(&output));
    let http = format!("http://127.0.0.1:{}", scripts.port_base + 4);
    assert!(text(&output.stdout).contains(&http), "{}", all(&output));
    let ports: Vec<_> = (0..4).map(|i| (scripts.port_base + i).to_string()).collect();
    let lose = |server: usize| {
        let stopped = scripts.script("server.sh", &["stop", &ports[server]]);
        assert!(stopped.status.success(), "{}", all(&stopped));
        std::fs::remove_dir_all(scripts.data.path().join(server.to_string())).unwrap();
    };

    lose(2);
    let status = scripts.script("server.sh", &["status"]);
    assert_eq!(status.status.code(), Some(1), "{}", all(&status));
    // A leading zero is not octal.
    let one = scripts.script("server.sh", &[&format!("0{}", ports[2])]);
    assert!(one.status.success(), "{}", all(&one));
    assert!(all(&one).contains("server 2") && all(&one).contains("has no data"), "{}", all(&one));
    let status = scripts.script("server.sh", &["status"]);
    assert!(status.status.success(), "{}", all(&status));

    lose(2);
    lose(3);
    let both = scripts.script("server.sh", &[]);
    assert_eq!(both.status.code(), Some(1), "{}", all(&both));
    let help = format!("--accept-loss {}", ports[2]);
    assert!(all(&both).contains("its range at '064' needs 2 voting replicas"), "{}", all(&both));
    assert!(all(&both).contains(&help), "{}", all(&both));
    let accepted = scripts.script("server.sh", &["--accept-loss", &ports[2]]);
    assert!(accepted.status.success(), "{}", all(&accepted));
    assert_eq!(pids(&accepted).len(), 1, "{}", all(&accepted));
    let again = scripts.script("server.sh", &[]);
    assert!(again.status.success() && pids(&again).len() == 4, "{}", all(&again));
}

/// G4: what one copy has lost is accepted by name only, except on the very first start.
#[test]
fn a_single_copy_is_given_up_by_name_only() {
    let scripts = Scripts::with_room_for(1);
    let output = scripts.start(&["--nodes", "1", "--rep", "01"]);
    assert!(output.status.success(), "{}", all(&output));
    let port = scripts.port_base.to_string();
    scripts.stop(&[]);
    std::fs::remove_dir_all(scripts.data.path().join("0")).unwrap();
    let silent = scripts.script("server.sh", &[]);
    assert_eq!(silent.status.code(), Some(1), "{}", all(&silent));
    assert!(all(&silent).contains(&format!("--accept-loss {port}")), "{}", all(&silent));
    let named = scripts.script("server.sh", &["--accept-loss", &port]);
    assert!(named.status.success() && pids(&named).len() == 1, "{}", all(&named));
}

/// C9: who has ended is named at once, with its last line. Long logs move away.
#[test]
fn a_server_that_ends_is_named_with_its_last_line() {
    let scripts = Scripts::new();
    let taken = scripts.port_base + 4 + 1;
    let _holder = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
    let log = scripts.data.path().join("0.log");
    std::fs::File::create(&log).unwrap().set_len(11 << 20).unwrap();
    let output = scripts.start(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", all(&output));
    let said = all(&output);
    assert!(said.contains("server 1 (port") && said.contains("has ended: chord-server:"), "{said}");
    assert!(said.contains(&taken.to_string()) && !said.contains("not ready in time"), "{said}");
    assert!(log.metadata().unwrap().len() < 1 << 20);
    assert_eq!(log.with_extension("log.1").metadata().unwrap().len(), 11 << 20);
}

/// C1, E11: a folder that was there keeps its mode, what is no data root is left alone, numbers are decimal.
#[test]
fn folders_of_others_and_odd_numbers_are_left_alone() {
    let scripts = Scripts::with_room_for(1);
    let folder = scripts.data.path();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    std::fs::set_permissions(folder, open).unwrap();
    std::fs::create_dir(folder.join("0")).unwrap();
    std::fs::write(folder.join("0/lock"), "").unwrap();
    std::fs::write(folder.join("cluster.json"), "mine").unwrap();
    let refused = scripts.stop(&["--clean"]);
    assert_eq!(refused.status.code(), Some(2), "{}", all(&refused));
    assert_eq!(text(&refused.stderr).lines().count(), 1, "{}", all(&refused));
    assert!(folder.join("0/lock").exists() && !folder.join(".scripts.lock").exists());
    std::fs::remove_file(folder.join("cluster.json")).unwrap();
    std::fs::remove_dir_all(folder.join("0")).unwrap();

    for odd in [["--nodes", "0x8"], ["--nodes", "-1"], ["--nodes", "1 2"], ["--http-base", "a"]] {
        let refused = scripts.start(&odd);
        assert_eq!(refused.status.code(), Some(2), "{odd:?}: {}", all(&refused));
        assert_eq!(text(&refused.stderr).lines().count(), 1, "{odd:?}: {}", all(&refused));
    }
    let output = scripts.start(&["--nodes", "01"]);
    assert!(output.status.success(), "{}", all(&output));
    assert_eq!((mode(folder), mode(&folder.join("0"))), (0o1777, 0o700));
    std::fs::write(folder.join("notes"), "of somebody").unwrap();
    let cleaned = scripts.stop(&["--clean"]);
    assert!(cleaned.status.success(), "{}", all(&cleaned));
    let left: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["notes"]);
}
