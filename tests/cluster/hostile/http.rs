//! Attacks on the HTTP port.

use super::*;

/// One short request must not take all memory, nor a few half ones keep others from writing.
#[test]
fn hostile_http_requests_cost_little_and_everyone_else_is_served() {
    let cluster = Cluster::shaped(Shape {
        flags: &["--max-connections", "600", "--memory", "64MiB"],
        http: true,
        ..Shape::of(3, 3)
    });
    let endpoint = endpoint(&cluster, 0);
    let value = "v".repeat(15 << 20);
    for number in 0..4 {
        cluster.put(0, &format!("big{number}"), &value, Level::All).unwrap();
    }
    println!("{HEADING}");
    let during = |name: &str, attack: &dyn Fn()| {
        super::during(&cluster, name, |_| attack());
        // The allocator gives back what nobody holds, in a while.
        let rest = [0, 1, 2].map(|server| memory(cluster.pid(server), "VmRSS"));
        println!("| {name}, afterwards | {rest:?} MiB | | | | | |");
        assert!(rest.iter().all(|rest| *rest < BOUND_MIB), "{name}: {rest:?}");
    };
    let item = r#"{"encoding":"string","data":"big0"}"#;
    let keys = format!("[{}]", vec![item; 300].join(","));
    during("HTTP: /fetch of 300 times one key of 15 MiB, 4 at a time, not taken", &|| {
        let held = hold(endpoint, 4, &post("POST", "/fetch", &keys));
        std::thread::sleep(Duration::from_secs(2));
        drop(held);
    });
    during("HTTP: /query of 300 times one key of 15 MiB", &|| {
        let (line, bytes) = http(endpoint, &post("POST", "/query", &keys), PATIENCE);
        assert!(line.contains(" 200 ") && bytes < 100_000, "{line}, {bytes} bytes");
    });
    during("HTTP: a batch of 10,000 times one key of 15 MiB, not taken", &|| {
        let keys = format!("{{\"keys\":[{}]}}", vec!["\"big0\""; 10_000].join(","));
        let held = hold(endpoint, 4, &post("POST", "/v1/batch/get", &keys));
        std::thread::sleep(Duration::from_secs(2));
        drop(held);
    });
    during("HTTP: 512 readers of values of 15 MiB that take nothing", &|| {
        let held: Vec<_> = (0..512)
            .flat_map(|number| {
                hold(endpoint, 1, &post("GET", &format!("/v1/keys/big{}", number % 4), ""))
            })
            .collect();
        std::thread::sleep(Duration::from_secs(2));
        drop(held);
    });
    during("HTTP: 8 half bodies of 32 MiB for /set, and silence", &|| {
        let head = "PUT /set HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                    Content-Length: 33554432\r\n\r\n[";
        let held = hold(endpoint, 8, head.as_bytes());
        let (line, _) = http(endpoint, head.as_bytes(), 2 * PATIENCE);
        assert!(line.contains(" 408 ") || line.contains(" 503 "), "silence is cut: '{line}'");
        drop(held);
    });
    during("HTTP: lists of 8 million empty items", &|| {
        let body = format!("[{}{{}}]", "{},".repeat(8 << 20));
        let (line, _) = http(endpoint, &post("PUT", "/set", &body), PATIENCE);
        assert!(line.contains(" 413 ") || line.contains(" 400 "), "{line}");
    });
}
