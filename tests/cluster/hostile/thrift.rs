//! Attacks on the Thrift port.

use super::*;

/// Bug classes 55 to 57 and 61 to 63.
#[test]
fn hostile_clients_cost_little_and_everyone_else_is_served() {
    let cluster = Cluster::shaped(Shape {
        flags: &["--max-connections", "400"],
        http: true,
        ..Shape::of(3, 3)
    });
    println!("{HEADING}");
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
    let endpoint = endpoint(&cluster, 0);
    during(&cluster, "HTTP: 300 half heads, 100 half bodies, and silence", |_| {
        let held: Vec<_> = (0..400)
            .map(|number| {
                let mut stream = connect(endpoint);
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
        let held = hold(endpoint, 40, b"GET /v1/keys HTTP/1.1\r\nHost: x\r\n\r\n");
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
