//! Hostile and broken clients: what they may cost is bounded, and everyone else is served meanwhile.
//!
//! Each attack is made on one server of three while good clients put and get over Thrift and over HTTP, through the same server
//! and through another one. Printed for each: the most memory that the server took and that a peer took that only answers it (`VmHWM`), and the
//! good clients' worst case.

mod hang;
mod http;
mod thrift;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use chord::model::{ClientRequest, Key, Level, PreparedPut};
use chord::wire::{Call, FailureCode, Format, RemoteFailure, Sequence, encode_call};

use crate::process::{Cluster, Shape, ask, put};

/// A server at rest takes some 10 MiB. Beyond that: values in memory (`--memory`, 256 MiB unless a test says otherwise), and what is
/// in hand, which has a budget (`chord::budget`); and what the allocator keeps for a while.
const BOUND_MIB: u64 = 512;

/// The good client's calls all succeed, in less than this: a server that is asked for a gigabyte is busy with it for a while.
const PATIENCE: Duration = Duration::from_secs(8);

/// What the good clients have seen.
#[derive(Default)]
struct Good {
    stop: AtomicBool,
    /// Over Thrift.
    calls: AtomicU64,
    over_http: AtomicU64,
    /// How long, and which.
    slowest: Mutex<(Duration, String)>,
    failures: Mutex<Vec<String>>,
}

fn be_good(addresses: [SocketAddr; 2], good: &Good) {
    let mut number = 0;
    while !good.stop.load(Ordering::Relaxed) {
        number += 1;
        let address = addresses[number % 2];
        let key = format!("good{}", number % 10);
        let began = Instant::now();
        let request = match number % 4 {
            0 | 1 => match put(&key, "v", Level::Quorum) {
                ClientRequest::Put(put) => {
                    ClientRequest::Put(PreparedPut { timeout: Some(PATIENCE), ..put })
                }
                other => other,
            },
            _ => {
                let key = Key::new(key).unwrap();
                ClientRequest::Get { key, level: Level::Quorum, timeout: Some(PATIENCE) }
            }
        };
        let which = format!("{request:?} of server {}", number % 2);
        let mut answer = ask(address, request.clone());
        if answer.as_ref().is_ok_and(|answer| answer.as_ref().is_err_and(is_refusal)) {
            // A certain no for now: as the client library does, it asks another server.
            answer = ask(addresses[(number + 1) % 2], request);
        }
        match answer {
            Ok(Ok(_)) => {}
            other => good.failures.lock().unwrap().push(format!("{other:?}")),
        }
        good.calls.fetch_add(1, Ordering::Relaxed);
        let slowest = &mut *good.slowest.lock().unwrap();
        if began.elapsed() > slowest.0 {
            *slowest = (began.elapsed(), which);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_refusal(failure: &RemoteFailure) -> bool {
    matches!(failure.code, FailureCode::Unavailable | FailureCode::Overloaded)
}

/// Syncs a small file beside the servers' data again and again; the longest that took. The medium is shared with whatever the
/// machine has just built or tested: a put waits as long as a sync takes, whoever attacks.
fn watch_disk(folder: &Path, stop: &AtomicBool) -> Duration {
    let mut file = tempfile::tempfile_in(folder).unwrap();
    let mut slowest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        file.write_all(b"x").unwrap();
        file.sync_data().unwrap();
        slowest = slowest.max(began.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    slowest
}

pub(crate) fn memory(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    found.trim_start_matches(':').split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// Makes an attack on server 0 while the good clients work.
fn during(cluster: &Cluster, name: &str, attack: impl FnOnce(SocketAddr)) {
    let address = |server: usize| -> SocketAddr { cluster.address(server).parse().unwrap() };
    let pids = [cluster.pid(0), cluster.pid(1)];
    for pid in pids {
        // The peak is counted anew.
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    }
    let good = Arc::new(Good::default());
    let spawn = |work: Box<dyn FnOnce(&Good) + Send>| {
        let good = Arc::clone(&good);
        std::thread::spawn(move || work(&good))
    };
    let addresses = [address(0), address(1)];
    let worker = spawn(Box::new(move |good| be_good(addresses, good)));
    let endpoints = [endpoint(cluster, 0), endpoint(cluster, 1)];
    let over_http = spawn(Box::new(move |good| be_good_over_http(endpoints, good)));
    let disk = {
        let (good, folder) = (good.clone(), cluster.folder.path().to_owned());
        std::thread::spawn(move || watch_disk(&folder, &good.stop))
    };
    attack(address(0));
    // It is over; a hundred calls more, to see that it has left nothing behind.
    let calls = good.calls.load(Ordering::Relaxed) + 100;
    let until = Instant::now() + crate::process::PATIENCE;
    while good.calls.load(Ordering::Relaxed) < calls && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    good.stop.store(true, Ordering::Relaxed);
    worker.join().unwrap();
    over_http.join().unwrap();
    let slowest_sync = disk.join().unwrap();
    let [peak, peer_peak] = pids.map(|pid| memory(pid, "VmHWM"));
    let (slowest, which) = &*good.slowest.lock().unwrap();
    println!(
        "| {name} | {peak} MiB | {peer_peak} MiB | {} | {} | {:.0} ms | {:.0} ms |",
        good.calls.load(Ordering::Relaxed),
        good.over_http.load(Ordering::Relaxed),
        slowest.as_secs_f64() * 1e3,
        slowest_sync.as_secs_f64() * 1e3
    );
    if *slowest > Duration::from_secs(2) {
        println!("(the slowest: {which})");
    }
    let failures = good.failures.lock().unwrap();
    assert!(failures.is_empty(), "{name}: {failures:?}");
    // The last try of a call may begin when its patience is nearly over.
    assert!(
        *slowest < 2 * PATIENCE + slowest_sync,
        "{name}: the good client waited {slowest:?}, for {which}; the slowest sync took {slowest_sync:?}"
    );
    assert!(peak < BOUND_MIB, "{name}: {peak} MiB");
    assert!(peer_peak < BOUND_MIB, "{name}: {peer_peak} MiB of a peer");
}

const HEADING: &str = "| attack on one server | its memory at most | a peer's | calls of a good client | over HTTP | \
     the slowest | the slowest sync |\n|---|---|---|---|---|---|---|";

/// Where a server speaks HTTP.
fn endpoint(cluster: &Cluster, server: usize) -> SocketAddr {
    ([127, 0, 0, 1], cluster.http[server]).into()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    stream
}

/// Connections that say this, and nothing more.
fn hold(address: SocketAddr, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = connect(address);
        // The server may have stopped reading, or closed.
        let _ = stream.write_all(bytes);
        stream
    };
    (0..count).map(open).collect()
}

fn encoded(calls: impl Iterator<Item = ClientRequest>) -> BytesMut {
    let mut out = BytesMut::new();
    for (number, request) in calls.enumerate() {
        let sequence = Sequence(number as i32 + 1);
        encode_call(Format::NATIVE, sequence, &Call::Client(request), &mut out).unwrap();
    }
    out
}

/// How the server ends the connection; `None`: it does not, for as long as we wait.
fn ending(mut stream: &TcpStream, patience: Duration) -> Option<Vec<u8>> {
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => Some(answer),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Some(answer),
        Err(_) => None,
    }
}

/// A field of structs within each other, so deep.
fn deep(levels: usize) -> Vec<u8> {
    let mut message = vec![0x80, 0x01, 0x00, 0x01, 0, 0, 0, 3];
    message.extend_from_slice(b"get\0\0\0\x01");
    message.extend(std::iter::repeat_n([0x0c, 0, 1], levels).flatten());
    message
}

/// One request over HTTP, whole; the head of its answer, and how many bytes came in all.
fn http(door: SocketAddr, request: &[u8], patience: Duration) -> (String, usize) {
    let mut stream = connect(door);
    stream.set_read_timeout(Some(patience)).unwrap();
    // A refused body is not read to its end.
    let _ = stream.write_all(request);
    let (mut first, mut piece, mut all) = (Vec::new(), vec![0; 1 << 16], 0);
    while let Ok(count) = stream.read(&mut piece) {
        if count == 0 {
            break;
        }
        if first.len() < 256 {
            first.extend_from_slice(&piece[..count.min(256)]);
        }
        all += count;
    }
    (String::from_utf8_lossy(&first).lines().next().unwrap_or_default().to_owned(), all)
}

/// A request with a body, after which the server closes.
fn post(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Small writes and reads over HTTP, each through the one server or else through the other.
fn be_good_over_http(endpoints: [SocketAddr; 2], good: &Good) {
    let mut number = 0;
    while !good.stop.load(Ordering::Relaxed) {
        number += 1;
        let path = format!("/v1/keys/good-http{}", number % 10);
        let method = if number % 2 == 0 { "GET" } else { "PUT" };
        let request = post(method, &path, if number % 2 == 0 { "" } else { "value" });
        let began = Instant::now();
        let mut tries = (0..).map(|tried| endpoints[(number / 2 + tried) % 2]);
        let mut line = String::new();
        // What is refused for now, by its status, is asked of the other.
        while !line.contains(" 200 ") && !line.contains(" 404 ") && began.elapsed() < PATIENCE {
            line = http(tries.next().unwrap(), &request, PATIENCE).0;
        }
        if !line.contains(" 200 ") && !line.contains(" 404 ") {
            good.failures.lock().unwrap().push(format!("{method} {path} over HTTP: '{line}'"));
        }
        good.over_http.fetch_add(1, Ordering::Relaxed);
        let slowest = &mut *good.slowest.lock().unwrap();
        if began.elapsed() > slowest.0 {
            *slowest = (began.elapsed(), format!("{method} {path}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processor time that a server has taken, in ticks of a hundredth of a second.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let fields: Vec<_> = rest.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Bug class 60: nothing to do, and nobody to do it with.
#[test]
fn idle_servers_and_lonely_ones_take_little_of_the_processor() {
    let mut cluster = Cluster::shaped(Shape::of(3, 3));
    let spent = |cluster: &Cluster, what: &str| {
        let before = ticks(cluster.pid(0));
        // What is measured is time itself.
        std::thread::sleep(Duration::from_secs(2));
        let percent = (ticks(cluster.pid(0)) - before) / 2;
        println!("{what}: {percent} % of a core");
        assert!(percent < 20, "{what}: {percent} %");
    };
    spent(&cluster, "idle");
    cluster.kill(1);
    cluster.kill(2);
    cluster.wait_alive(0, &[0]);
    spent(&cluster, "alone");
}
