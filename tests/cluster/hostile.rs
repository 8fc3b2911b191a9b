//! Hostile and broken clients: what they may cost is bounded, and everyone else is served meanwhile.
//!
//! Each attack is made on one server of three while a good client puts and gets through the same server and through another
//! one. Printed for each: the most memory that the server took and that a peer took that only answers it (`VmHWM`), and the good
//! client's worst case.

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

/// A server at rest takes some 10 MiB. Beyond that: values in memory (`--memory`, here its 256 MiB), half messages, messages
/// in hand and answers not taken, each of which has a budget (`server::budget`); and what the allocator keeps for a while.
const BOUND_MIB: u64 = 1_400;

/// What HTTP requests may make a server take, its values in memory included.
const HTTP_BOUND_MIB: u64 = 512;

/// The good client's calls all succeed, in less than this: a server that is asked for a gigabyte is busy with it for a while.
const PATIENCE: Duration = Duration::from_secs(8);

/// What the good client has seen.
#[derive(Default)]
struct Good {
    stop: AtomicBool,
    calls: AtomicU64,
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

/// Makes an attack on server 0 while the good client works.
fn during(cluster: &Cluster, name: &str, attack: impl FnOnce(SocketAddr)) {
    during_within(cluster, name, BOUND_MIB, attack);
}

/// The same, with a bound for the memory of both servers.
fn during_within(cluster: &Cluster, name: &str, bound: u64, attack: impl FnOnce(SocketAddr)) {
    let address = |server: usize| -> SocketAddr { cluster.address(server).parse().unwrap() };
    let pids = [cluster.pid(0), cluster.pid(1)];
    for pid in pids {
        // The peak is counted anew.
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    }
    let good = Arc::new(Good::default());
    let worker = {
        let (good, addresses) = (good.clone(), [address(0), address(1)]);
        std::thread::spawn(move || be_good(addresses, &good))
    };
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
    let slowest_sync = disk.join().unwrap();
    let [peak, peer_peak] = pids.map(|pid| memory(pid, "VmHWM"));
    let (slowest, which) = &*good.slowest.lock().unwrap();
    println!(
        "| {name} | {peak} MiB | {peer_peak} MiB | {} | {:.0} ms | {:.0} ms |",
        good.calls.load(Ordering::Relaxed),
        slowest.as_secs_f64() * 1e3,
        slowest_sync.as_secs_f64() * 1e3
    );
    let failures = good.failures.lock().unwrap();
    assert!(failures.is_empty(), "{name}: {failures:?}");
    assert!(
        *slowest < PATIENCE + slowest_sync,
        "{name}: the good client waited {slowest:?}, for {which}; the slowest sync took {slowest_sync:?}"
    );
    assert!(peak < bound, "{name}: {peak} MiB");
    assert!(peer_peak < bound, "{name}: {peer_peak} MiB of a peer");
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

/// Bug classes 55 to 57 and 61 to 63.
#[test]
fn hostile_clients_cost_little_and_everyone_else_is_served() {
    let cluster = Cluster::shaped(Shape {
        flags: &["--max-connections", "400"],
        http: true,
        ..Shape::of(3, 3)
    });
    println!(
        "| attack on one server | its memory at most | a peer's | calls of a good client | the slowest | the slowest sync |\n|---|---|---|---|---|---|"
    );
    during(&cluster, "none", |_| {});
    during(&cluster, "300 half frames, and silence", |address| {
        let held = hold(address, 300, b"\x00\x01\x00\x00\x80\x01\x00\x01\x00\x00");
        std::thread::sleep(Duration::from_secs(1));
        drop(held);
    });
    during(&cluster, "60 long messages (15 MiB each), all but their last byte", |address| {
        let half = vec![b'x'; 15 << 20];
        let mut head = 16_000_000u32.to_be_bytes().to_vec();
        head.extend_from_slice(
            b"\x80\x01\x00\x01\0\0\0\x03put\0\0\0\x01\x0c\0\x01\x0b\0\x02\x00\xf0\0\0",
        );
        let held: Vec<_> = (0..60)
            .map(|_| {
                let mut stream = connect(address);
                // The server takes as much as it has room for; then it stops reading.
                stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
                let _ = stream.write_all(&head).and_then(|()| stream.write_all(&half));
                stream
            })
            .collect();
        std::thread::sleep(Duration::from_millis(500));
        drop(held);
    });
    during(&cluster, "1,000 claims of 2 GiB, as frame, string, list", |address| {
        for number in 0..1000 {
            let mut stream = connect(address);
            let bytes: &[u8] = match number % 3 {
                0 => b"\x7f\xff\xff\xff\x80\x01\x00\x01",
                1 => b"\x80\x01\x00\x01\x7f\xff\xff\xff",
                _ => {
                    b"\x80\x01\x00\x01\0\0\0\x03get\0\0\0\x01\x0f\0\x01\x0c\x7f\xff\xff\xff\0\0\0\0"
                }
            };
            let _ = stream.write_all(bytes);
            if number % 100 < 3 {
                assert!(ending(&stream, Duration::from_secs(5)).is_some(), "claim {number}");
            }
        }
    });
    during(&cluster, "100 messages nested 100,000 deep", |address| {
        let message = deep(100_000);
        for _ in 0..100 {
            let mut stream = connect(address);
            let _ = stream.write_all(&message);
            assert!(
                ending(&stream, Duration::from_secs(5)).is_some(),
                "nesting ends the connection"
            );
        }
    });
    during(&cluster, "2,000 connections of noise", |address| {
        for number in 0..2_000u32 {
            let noise: Vec<u8> = (0..500)
                .map(|at: u32| (number.wrapping_mul(7919) ^ at.wrapping_mul(104_729)) as u8)
                .collect();
            let mut stream = connect(address);
            let _ = stream.write_all(&noise);
        }
    });
    during(&cluster, "5,000 connections at once, where 400 may be", |address| {
        // Those of the good client come and go; a place must be free for it now and then, so not all are taken.
        let held: Vec<_> = (0..380).map(|_| connect(address)).collect();
        for _ in 380..5_000 {
            drop(connect(address));
        }
        drop(held);
    });
    for number in 0..8 {
        let value = "v".repeat(4 << 20);
        cluster.put(0, &format!("big{number}"), &value, Level::All).unwrap();
    }
    during(&cluster, "8 readers that ask for 400 values of 4 MiB each and take none", |address| {
        let get = |number: usize| {
            let key = Key::new(format!("big{}", number % 8)).unwrap();
            ClientRequest::Get { key, level: Level::Quorum, timeout: None }
        };
        let calls = encoded((0..400).map(get));
        let held = hold(address, 8, &calls);
        std::thread::sleep(Duration::from_secs(4));
        drop(held);
    });
    during(&cluster, "12 clients that ask one-way for values of 4 MiB", |address| {
        let get = |number: usize| {
            let key = Key::new(format!("big{}", number % 8)).unwrap();
            ClientRequest::Get { key, level: Level::Quorum, timeout: Some(PATIENCE) }
        };
        // Behind the frame's length, the fourth byte is the kind of message.
        let mut call = encoded(std::iter::once(get(0)));
        call[7] = 4;
        let held = hold(address, 12, &call.repeat(16));
        std::thread::sleep(Duration::from_secs(2));
        let answer = ask(address, get(1)).unwrap();
        assert!(answer.is_ok(), "long answers have a share left: {answer:?}");
        drop(held);
    });
    during(
        &cluster,
        "4 scans on each of 8 connections, of everything, and no answer taken",
        |address| {
            let scan = |_| ClientRequest::Scan {
                from: Key::bound(""),
                to: None,
                limit: 10_000,
                level: Level::Quorum,
                timeout: None,
                any_order: false,
            };
            let calls = encoded((0..4).map(scan));
            let held = hold(address, 8, &calls);
            std::thread::sleep(Duration::from_secs(3));
            drop(held);
        },
    );
    let door: SocketAddr = ([127, 0, 0, 1], cluster.http[0]).into();
    during(&cluster, "HTTP: 300 half heads, 100 half bodies, and silence", |_| {
        let held: Vec<_> = (0..400)
            .map(|number| {
                let mut stream = connect(door);
                let half: &[u8] = match number % 4 {
                    0 => b"PUT /v1/keys/x HTTP/1.1\r\nHost: x\r\nContent-Length: 15000000\r\n\r\nhalf",
                    _ => b"GET /v1/keys/x HTTP/1.1\r\nHos",
                };
                let _ = stream.write_all(half);
                stream
            })
            .collect();
        std::thread::sleep(Duration::from_secs(1));
        drop(held);
    });
    during(&cluster, "HTTP: 40 readers of everything that take nothing", |_| {
        let held = hold(door, 40, b"GET /v1/keys HTTP/1.1\r\nHost: x\r\n\r\n");
        std::thread::sleep(Duration::from_secs(3));
        drop(held);
    });
    during(&cluster, "200 puts of 8 MiB at once on 40 connections", |address| {
        let value = "v".repeat(8 << 20);
        let flood: Vec<_> = (0..40)
            .map(|connection| {
                let call = put(&format!("flood{connection}"), &value, Level::Quorum);
                std::thread::spawn(move || {
                    let calls = encoded((0..5).map(|_| call.clone()));
                    let mut stream = connect(address);
                    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
                    let _ = stream.write_all(&calls);
                    let mut answer = [0; 64];
                    let _ = stream.read(&mut answer);
                })
            })
            .collect();
        for thread in flood {
            thread.join().unwrap();
        }
    });
    let log = cluster.log(0);
    for never in ["panicked", "good1", "big1", "flood", "vvvv"] {
        assert!(!log.contains(never), "neither panics nor keys nor values are in a log: {log}");
    }
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

/// Small writes and reads over HTTP go well meanwhile.
fn be_good_over_http(door: SocketAddr) {
    for number in 0..5 {
        let path = format!("/v1/keys/good-http{number}");
        for request in [post("PUT", &path, "value"), post("GET", &path, "")] {
            // A disk that is busy with long values may take longer over one try than a call may.
            let began = Instant::now();
            let mut line = String::new();
            while !line.contains(" 200 ") && began.elapsed() < PATIENCE {
                line = http(door, &request, PATIENCE).0;
            }
            assert!(line.contains(" 200 "), "request {number} over HTTP: '{line}'");
        }
    }
}

/// One short request must not take all memory, nor a few half ones keep others from writing.
#[test]
fn hostile_http_requests_cost_little_and_everyone_else_is_served() {
    let cluster = Cluster::shaped(Shape {
        flags: &["--max-connections", "600", "--memory", "64MiB"],
        http: true,
        ..Shape::of(3, 3)
    });
    let door: SocketAddr = ([127, 0, 0, 1], cluster.http[0]).into();
    let value = "v".repeat(15 << 20);
    for number in 0..4 {
        cluster.put(0, &format!("big{number}"), &value, Level::All).unwrap();
    }
    let during = |name: &str, attack: &dyn Fn()| {
        during_within(&cluster, name, HTTP_BOUND_MIB, |_| attack());
        // The allocator gives back what nobody holds, in a while.
        let rest = [0, 1, 2].map(|server| memory(cluster.pid(server), "VmRSS"));
        println!("| {name}, afterwards | {rest:?} MiB | | | | |");
        assert!(rest.iter().all(|rest| *rest < HTTP_BOUND_MIB), "{name}: {rest:?}");
    };
    let item = r#"{"encoding":"string","data":"big0"}"#;
    let keys = format!("[{}]", vec![item; 300].join(","));
    during("HTTP: /fetch of 300 times one key of 15 MiB, 4 at a time, not taken", &|| {
        let held = hold(door, 4, &post("POST", "/fetch", &keys));
        be_good_over_http(door);
        std::thread::sleep(Duration::from_secs(2));
        drop(held);
    });
    during("HTTP: /query of 300 times one key of 15 MiB", &|| {
        let (line, bytes) = http(door, &post("POST", "/query", &keys), PATIENCE);
        assert!(line.contains(" 200 ") && bytes < 100_000, "{line}, {bytes} bytes");
        be_good_over_http(door);
    });
    during("HTTP: a batch of 10,000 times one key of 15 MiB, not taken", &|| {
        let keys = format!("{{\"keys\":[{}]}}", vec!["\"big0\""; 10_000].join(","));
        let held = hold(door, 4, &post("POST", "/v1/batch/get", &keys));
        be_good_over_http(door);
        std::thread::sleep(Duration::from_secs(2));
        drop(held);
    });
    during("HTTP: 512 readers of values of 15 MiB that take nothing", &|| {
        let held: Vec<_> = (0..512)
            .flat_map(|number| {
                hold(door, 1, &post("GET", &format!("/v1/keys/big{}", number % 4), ""))
            })
            .collect();
        be_good_over_http(door);
        std::thread::sleep(Duration::from_secs(2));
        drop(held);
    });
    during("HTTP: 8 half bodies of 32 MiB for /set, and silence", &|| {
        let head = "PUT /set HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                    Content-Length: 33554432\r\n\r\n[";
        let held = hold(door, 8, head.as_bytes());
        be_good_over_http(door);
        let (line, _) = http(door, head.as_bytes(), 2 * PATIENCE);
        assert!(line.contains(" 408 ") || line.contains(" 503 "), "silence is cut: '{line}'");
        drop(held);
    });
    during("HTTP: lists of 8 million empty items", &|| {
        let body = format!("[{}{{}}]", "{},".repeat(8 << 20));
        let (line, _) = http(door, &post("PUT", "/set", &body), PATIENCE);
        assert!(line.contains(" 413 ") || line.contains(" 400 "), "{line}");
        be_good_over_http(door);
    });
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
