//! Real servers for tests: started in folders and on ports of their own, ready when they say so, gone with the value.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use chord::model::{
    ClientRequest, ClientResponse, Content, InspectSource, Key, Level, PreparedPut, ServerId,
    Status,
};
use chord::wire::{
    self, Call, Format, MessageReader, RemoteFailure, Reply, Sequence, decode_reply, encode_call,
};

/// How long anything may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a cluster is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape<'a> {
    pub(crate) nodes: usize,
    pub(crate) replicas: usize,
    pub(crate) partitioner: &'a str,
    pub(crate) placement: &'a str,
    /// Range starts, if they are not to be even.
    pub(crate) starts: &'a [&'a str],
    /// With HTTP doors.
    pub(crate) http: bool,
    /// Further flags for each server.
    pub(crate) flags: &'a [&'a str],
    /// Where the first server keeps its data, if not beside the others.
    pub(crate) first_data: Option<&'a Path>,
}

impl Shape<'static> {
    /// Four servers, three replicas, the ranges of the demo.
    pub(crate) const DEMO: Shape<'static> =
        Shape { starts: &["", "064", "128", "192"], ..Shape::of(4, 3) };

    pub(crate) const fn of(nodes: usize, replicas: usize) -> Shape<'static> {
        let (partitioner, placement) = ("byte-ordered", "ring");
        Shape {
            nodes,
            replicas,
            partitioner,
            placement,
            starts: &[],
            http: false,
            flags: &[],
            first_data: None,
        }
    }
}

/// A few servers on loopback.
pub(crate) struct Cluster {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) ports: Vec<u16>,
    /// Ports of the HTTP doors, if there are any.
    pub(crate) http: Vec<u16>,
    servers: Vec<Option<Child>>,
    flags: Vec<String>,
    first_data: Option<PathBuf>,
    /// Of servers that start from now on.
    environment: Vec<(usize, String, String)>,
}

impl Cluster {
    /// Four servers with the ranges of the demo, all voting.
    pub(crate) fn demo() -> Cluster {
        Cluster::shaped(Shape::DEMO)
    }

    /// A server for each range start, three replicas, further flags for each; all voting.
    pub(crate) fn start(starts: &[&str], flags: &[&str]) -> Cluster {
        Cluster::shaped(Shape { starts, flags, ..Shape::of(starts.len(), 3) })
    }

    /// A cluster of that shape, all voting.
    pub(crate) fn shaped(shape: Shape<'_>) -> Cluster {
        let mut cluster = Cluster::drawn(shape);
        for server in 0..shape.nodes {
            cluster.restart(server);
        }
        for server in 0..shape.nodes {
            cluster.wait_for(server, "votes", |status| status.voting);
        }
        // Everyone sees everyone: what follows is a healthy cluster.
        for server in 0..shape.nodes {
            cluster.wait_for(server, "sees all peers", |status| {
                status.peers.iter().all(|peer| peer.alive && peer.voting)
            });
        }
        cluster
    }

    /// The cluster file is there, no server runs yet.
    pub(crate) fn drawn(shape: Shape<'_>) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let mut ports = free_ports(if shape.http { 2 * shape.nodes } else { shape.nodes });
        let http = ports.split_off(shape.nodes);
        let server = |id: usize| {
            let address = |port: u16| format!("127.0.0.1:{port}");
            let mut server = serde_json::json!({"id": id, "address": address(ports[id])});
            if let Some(start) = shape.starts.get(id) {
                server["start"] = (*start).into();
            }
            if let Some(port) = http.get(id) {
                server["http"] = address(*port).into();
            }
            server
        };
        let servers: Vec<_> = (0..shape.nodes).map(server).collect();
        let file = serde_json::json!({
            "name": "test",
            "replicas": shape.replicas,
            "partitioner": shape.partitioner,
            "placement": shape.placement,
            "servers": servers,
        });
        fs::write(folder.path().join("cluster.json"), file.to_string()).unwrap();
        // One copy cannot ask anyone what it may have lost.
        let alone = (shape.replicas == 1).then_some("--accept-loss");
        let flags = shape.flags.iter().copied().chain(alone).map(str::to_owned).collect();
        let servers = (0..shape.nodes).map(|_| None).collect();
        let first_data = shape.first_data.map(Path::to_owned);
        Cluster { folder, ports, http, servers, flags, first_data, environment: Vec::new() }
    }

    /// Servers that start from now on have these flags.
    pub(crate) fn set_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().copied().map(str::to_owned).collect();
    }

    /// That server has this in its environment when it is started next.
    pub(crate) fn set_environment(&mut self, server: usize, variables: &[(&str, &str)]) {
        self.environment.retain(|(of, ..)| *of != server);
        let owned = |(name, value): &(&str, &str)| (server, (*name).into(), (*value).into());
        self.environment.extend(variables.iter().map(owned));
    }

    pub(crate) fn data(&self, server: usize) -> PathBuf {
        match &self.first_data {
            Some(first) if server == 0 => first.clone(),
            _ => self.folder.path().join(format!("data-{server}")),
        }
    }

    pub(crate) fn address(&self, server: usize) -> String {
        format!("127.0.0.1:{}", self.ports[server])
    }

    /// Addresses of all, for `--server`.
    pub(crate) fn addresses(&self) -> String {
        (0..self.ports.len()).map(|server| self.address(server)).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn pid(&self, server: usize) -> u32 {
        self.servers[server].as_ref().unwrap().id()
    }

    /// The command that starts a server of this cluster.
    pub(crate) fn command(&self, server: usize) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chord-server"));
        command
            .arg("--cluster")
            .arg(self.folder.path().join("cluster.json"))
            .args(["--id", &server.to_string()])
            .arg("--data")
            .arg(self.data(server))
            .args(&self.flags)
            .stdin(Stdio::null());
        for (_, name, value) in self.environment.iter().filter(|(of, ..)| *of == server) {
            command.env(name, value);
        }
        command
    }

    /// Starts a server that is not running, and waits for its ready line.
    pub(crate) fn restart(&mut self, server: usize) {
        assert!(self.servers[server].is_none(), "server {server} is running");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("{server}.log")))
            .unwrap();
        let mut child = self.command(server).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        self.servers[server] = Some(child);
        let line = receiver.recv_timeout(PATIENCE).unwrap_or_default();
        assert!(line.contains("ready"), "server {server} said '{line}'; {}", self.log(server));
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, server: usize) {
        let mut child = self.servers[server].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and its exit code.
    pub(crate) fn terminate(&mut self, server: usize) -> Option<i32> {
        self.signal(server, "TERM");
        let mut child = self.servers[server].take().unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "server {server} does not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn signal(&self, server: usize, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.pid(server).to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub(crate) fn log(&self, server: usize) -> String {
        let path = self.folder.path().join(format!("{server}.log"));
        fs::read_to_string(path).unwrap_or_default()
    }

    /// Asks one server, and gives up loudly.
    pub(crate) fn ask(
        &self,
        server: usize,
        request: ClientRequest,
    ) -> Result<ClientResponse, RemoteFailure> {
        let address: SocketAddr = self.address(server).parse().unwrap();
        ask(address, request).unwrap_or_else(|error| {
            panic!("server {server} does not answer: {error}; {}", self.log(server));
        })
    }

    pub(crate) fn put(
        &self,
        server: usize,
        key: &str,
        value: &str,
        level: Level,
    ) -> Result<ClientResponse, RemoteFailure> {
        self.ask(server, put(key, value, level))
    }

    pub(crate) fn get(
        &self,
        server: usize,
        key: &str,
        level: Level,
    ) -> Result<Option<String>, RemoteFailure> {
        let key = Key::new(key.to_owned()).unwrap();
        match self.ask(server, ClientRequest::Get { key, level, timeout: None })? {
            ClientResponse::Get { cell, .. } => Ok(cell
                .and_then(|cell| cell.content.value().cloned())
                .map(|value| String::from_utf8(value.to_vec()).unwrap())),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn status(&self, server: usize) -> Status {
        match self.ask(server, ClientRequest::Status) {
            Ok(ClientResponse::Status(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// What a server holds of its own: key, value (or `None` for a tombstone), version as text.
    pub(crate) fn contents(&self, server: usize) -> Vec<(String, Option<String>, String)> {
        let mut contents = Vec::new();
        let mut from = Key::bound("");
        loop {
            let request =
                ClientRequest::Inspect { source: InspectSource::Cells, from, limit: 1000 };
            let Ok(ClientResponse::Inspected { entries, next }) = self.ask(server, request) else {
                panic!("server {server} cannot be inspected");
            };
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            contents.extend(entries.iter().map(|(key, cell)| {
                let value = match &cell.content {
                    Content::Tombstone => None,
                    Content::Value(value) => Some(text(value)),
                };
                (text(key.as_bytes()), value, cell.version.to_string())
            }));
            match next {
                Some(next) => from = next,
                None => return contents,
            }
        }
    }

    /// Which servers hold the key.
    pub(crate) fn holders(&self, key: &str) -> Vec<usize> {
        let holds = |server: &usize| self.contents(*server).iter().any(|(held, _, _)| held == key);
        (0..self.ports.len()).filter(holds).collect()
    }

    pub(crate) fn hints(&self, server: usize, target: usize) -> u64 {
        let status = self.status(server);
        status.peers.iter().find(|peer| peer.server == ServerId(target as u16)).unwrap().hints
    }

    /// Waits until a server's status satisfies the condition.
    pub(crate) fn wait_for(&self, server: usize, what: &str, condition: impl Fn(&Status) -> bool) {
        wait_until(&format!("server {server} {what}"), || {
            let address: SocketAddr = self.address(server).parse().unwrap();
            match ask(address, ClientRequest::Status) {
                Ok(Ok(ClientResponse::Status(status))) if condition(&status) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// Waits until a server believes that exactly these are alive.
    pub(crate) fn wait_alive(&self, server: usize, alive: &[usize]) {
        self.wait_for(server, &format!("sees {alive:?} alive"), |status| {
            let seen: Vec<_> = status
                .peers
                .iter()
                .filter(|peer| peer.alive && peer.voting)
                .map(|peer| peer.server.0 as usize)
                .collect();
            let expected: Vec<_> = alive.iter().copied().filter(|peer| *peer != server).collect();
            seen == expected
        });
    }

    /// Waits until the replicas of every key hold the same.
    pub(crate) fn wait_equal(&self) {
        wait_until("replicas are equal", || {
            let output = self.inspector(&["--json"]);
            match output.status.code() {
                Some(0) => Ok(()),
                _ => Err(String::from_utf8_lossy(&output.stdout).into_owned()),
            }
        });
    }

    pub(crate) fn client(&self, args: &[&str]) -> Output {
        self.client_with(args, "")
    }

    pub(crate) fn client_with(&self, args: &[&str], input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chord-client"));
        if !args.contains(&"--server") {
            command.args(["--server", &self.addresses()]);
        }
        command.args(args);
        run(command, input)
    }

    pub(crate) fn inspector(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chord-inspector"));
        command.args(["--server", &self.addresses()]).args(args);
        run(command, "")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.servers.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for server in 0..self.ports.len() {
                eprintln!("── log of server {server}\n{}", self.log(server));
            }
        }
    }
}

/// Ports that were free a moment ago; nothing else on this machine is told of them.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let addresses = chord::bench::cluster::free_addresses(count).unwrap();
    let port = |address: &String| address.rsplit(':').next().unwrap().parse().unwrap();
    addresses.iter().map(port).collect()
}

pub(crate) fn put(key: &str, value: &str, level: Level) -> ClientRequest {
    ClientRequest::Put(PreparedPut {
        key: Key::new(key.to_owned()).unwrap(),
        content: Content::Value(value.to_owned().into()),
        level,
        timeout: None,
        ticket: None,
        after: None,
    })
}

/// One call on a connection of its own.
pub(crate) fn ask(
    address: SocketAddr,
    request: ClientRequest,
) -> std::io::Result<Result<ClientResponse, RemoteFailure>> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut out = BytesMut::new();
    encode_call(Format::NATIVE, Sequence(1), &Call::Client(request), &mut out).unwrap();
    stream.write_all(&out)?;
    let mut reader = MessageReader::new(Format::NATIVE);
    let mut buffer = BytesMut::new();
    loop {
        if let Some(message) = reader.next(&mut buffer).unwrap() {
            return match decode_reply(wire::Protocol::Binary, message).unwrap() {
                (_, Reply::Client { result, .. }) => Ok(result),
                (_, other) => panic!("{other:?}"),
            };
        }
        let mut chunk = [0; 65536];
        match stream.read(&mut chunk)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => buffer.extend_from_slice(&chunk[..length]),
        }
    }
}

/// Runs a program with this input, and waits for it.
pub(crate) fn run(mut command: Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env("CHORD_HISTFILE", "")
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Asks again and again, with a deadline; the last answer tells why it never came true.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> Result<(), String>) {
    let until = Instant::now() + PATIENCE;
    loop {
        match condition() {
            Ok(()) => return,
            Err(why) => assert!(Instant::now() < until, "waited in vain until {what}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
