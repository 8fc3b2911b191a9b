//! The attacks that make a server keep something, repeated while its disk hangs: nothing that it takes in leaves its memory then.

use chord::torture::{OwnDisk, run_inside_with};

use super::*;

/// A disk that hangs until this is gone: a server that waits for it cannot even be killed.
struct Hang<'a>(&'a OwnDisk);

impl<'a> Hang<'a> {
    fn of(disk: &'a OwnDisk) -> Hang<'a> {
        disk.freeze().unwrap();
        Hang(disk)
    }
}

impl Drop for Hang<'_> {
    fn drop(&mut self) {
        self.0.thaw().unwrap();
    }
}

/// Puts from so many connections at once, as many as are taken within some seconds.
fn flood(address: SocketAddr, connections: usize, length: usize, lasting: Duration) {
    let value = "f".repeat(length);
    let threads: Vec<_> = (0..connections)
        .map(|connection| {
            let value = value.clone();
            std::thread::spawn(move || {
                let calls = (0..64).map(|number| {
                    put(&format!("flood{}", (connection * 64 + number) % 13), &value, Level::Quorum)
                });
                let calls = encoded(calls.take(if length > 1 << 20 { 2 } else { 64 }));
                let end = Instant::now() + lasting;
                let mut stream = connect(address);
                let mut taker = stream.try_clone().unwrap();
                // Its answers are taken, or it would stop by itself.
                let answers = std::thread::spawn(move || {
                    let mut piece = [0; 1 << 12];
                    while taker.read(&mut piece).is_ok_and(|count| count > 0) {}
                });
                while Instant::now() < end && stream.write_all(&calls).is_ok() {}
                let _ = stream.shutdown(std::net::Shutdown::Both);
                answers.join().unwrap();
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Found.md A3, A4, A6 and A12: memory is bounded whatever the disk does, and calls through others go on.
#[test]
fn hostile_clients_cost_little_also_while_a_disk_hangs() {
    let own = "hostile::hang::hostile_clients_cost_little_also_while_a_disk_hangs";
    if let Some(status) = run_inside_with(&["--exact", own, "--nocapture"]) {
        assert!(status.success(), "the run inside namespaces of its own: {status}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = match OwnDisk::create(folder.path(), "4G") {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("SKIPPED: no disk of its own can be made to hang here: {why}");
            return;
        }
    };
    let data = disk.data();
    let cluster = Cluster::shaped(Shape { http: true, first_data: Some(&data), ..Shape::of(3, 3) });
    for number in 0..8 {
        let value = "v".repeat(4 << 20);
        cluster.put(0, &format!("big{number}"), &value, Level::All).unwrap();
    }
    println!("{HEADING}");
    during(&cluster, "none", |_| {});
    let hang = Hang::of(&disk);
    cluster.wait_for(0, "says that its disk hangs", |status| {
        let _ = cluster.put(0, "asks", "of the disk", Level::One);
        status.disk.is_some()
    });
    during(&cluster, "its disk hangs, and nothing else", |_| {});
    during(&cluster, "the same, 40 connections that put 8 MiB again and again", |address| {
        flood(address, 40, 8 << 20, Duration::from_secs(6));
    });
    during(&cluster, "the same, 40 connections that put 20 KiB again and again", |address| {
        flood(address, 40, 20 << 10, Duration::from_secs(6));
    });
    during(&cluster, "the same, 40 connections that put 100 bytes again and again", |address| {
        flood(address, 40, 100, Duration::from_secs(6));
    });
    during(
        &cluster,
        "the same, 8 readers that ask for 400 values of 4 MiB and take none",
        |address| {
            let get = |number: usize| {
                let key = Key::new(format!("big{}", number % 8)).unwrap();
                ClientRequest::Get { key, level: Level::Quorum, timeout: None }
            };
            let held = hold(address, 8, &encoded((0..400).map(get)));
            std::thread::sleep(Duration::from_secs(4));
            drop(held);
        },
    );
    let endpoint = endpoint(&cluster, 0);
    during(&cluster, "the same, 16 HTTP clients that put 15 MiB", |_| {
        let body = "h".repeat(15 << 20);
        let threads: Vec<_> = (0..16)
            .map(|number| {
                let request = post("PUT", &format!("/v1/keys/flood{}", number % 7), &body);
                std::thread::spawn(move || http(endpoint, &request, PATIENCE))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
    during(&cluster, "the same, 100 HTTP readers of values of 4 MiB that take nothing", |_| {
        let held: Vec<_> = (0..100)
            .flat_map(|number| {
                hold(endpoint, 1, &post("GET", &format!("/v1/keys/big{}", number % 8), ""))
            })
            .collect();
        std::thread::sleep(Duration::from_secs(2));
        drop(held);
    });
    drop(hang);
    cluster.wait_for(0, "is well again", |status| status.disk.is_none());
    cluster.wait_equal();
    during(&cluster, "afterwards", |_| {});
    assert!(!cluster.log(0).contains("panicked"), "{}", cluster.log(0));
}
