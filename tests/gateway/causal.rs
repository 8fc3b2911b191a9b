//! The words of the causal store (requirements C1 to C7, without changes of the view).

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::http::{Answer, get, request};
use crate::process::{Cluster, Shape, free_ports, run, wait_until};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

fn cluster(nodes: usize, replicas: usize) -> Cluster {
    let (partitioner, placement) = ("hashed", "groups");
    Cluster::shaped(Shape { http: true, partitioner, placement, ..Shape::of(nodes, replicas) })
}

fn put(port: u16, key: &str, value: &str, payload: &str) -> Answer {
    let form = format!("key={key}&value={value}&causal_payload={payload}");
    request(port, "PUT", "/kvs", FORM, form.as_bytes())
}

fn read(port: u16, key: &str, payload: &str) -> Answer {
    get(port, &format!("/kvs?key={key}&causal_payload={payload}"))
}

fn payload(answer: &Answer) -> String {
    assert_eq!(answer.json()["msg"], "success", "{answer:?}");
    let payload = answer.json()["causal_payload"].as_str().unwrap().to_owned();
    // C2: safe in a URL as it is.
    assert!(payload.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.'), "{payload}");
    payload
}

fn value(answer: &Answer) -> String {
    answer.json()["value"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

/// C2, C4, C5, C6: any server, statuses, payloads that grow.
#[test]
fn keys_live_and_die_through_any_server() {
    let cluster = cluster(4, 2);
    let port = |i: usize| cluster.http[i % 4];
    let first = put(port(0), "foo", "bar+%26+more", "");
    assert_eq!(first.status, 201, "{first:?}");
    let timestamp = first.json()["timestamp"].as_i64().unwrap();
    assert!(timestamp > 1_700_000_000_000_000);
    let one = payload(&first);
    for i in 0..4 {
        let found = read(port(i), "foo", &one);
        assert_eq!((found.status, value(&found).as_str()), (200, "bar & more"));
        assert_eq!(found.json()["partition_id"], first.json()["partition_id"]);
        assert_eq!(found.json()["timestamp"], timestamp);
    }
    let second = put(port(1), "foo", "two", &one);
    assert_eq!(second.status, 200, "an update: {second:?}");
    let two = payload(&second);
    assert!(two > one, "a later write has a greater payload");
    for i in 0..4 {
        assert_eq!(value(&read(port(i), "foo", &two)), "two");
    }
    let gone = request(port(2), "DELETE", &format!("/kvs?key=foo&causal_payload={two}"), "", b"");
    assert_eq!(gone.status, 200, "{gone:?}");
    let three = payload(&gone);
    for i in 0..4 {
        let missing = read(port(i), "foo", &three);
        assert_eq!(
            (missing.status, missing.json()),
            (404, json!({"msg": "error", "error": "key does not exist"}))
        );
    }
    let again = request(port(3), "DELETE", "/kvs?key=foo&causal_payload=", "", b"");
    assert_eq!(again.status, 404);
    assert_eq!(put(port(0), "foo", "three", &three).status, 201, "new again");
}

/// C3: a write that follows a read wins over what was read, whatever the clocks say; here they differ by hours.
#[test]
fn a_write_that_follows_a_read_wins_whatever_the_clocks_say() {
    let cluster = cluster(3, 3);
    // A version from half a day ahead, as another server with a wild clock would have given it.
    let ahead = put(cluster.http[0], "k", "old", "");
    let time = ahead.json()["timestamp"].as_i64().unwrap() + 12 * 3600 * 1_000_000;
    let ticket = format!("Chord-Ticket: {time}@0.1\r\n");
    let wild = request(cluster.http[0], "PUT", "/v1/keys/k", &ticket, b"from the future");
    assert_eq!(wild.status, 200, "{wild:?}");
    let found = read(cluster.http[1], "k", "");
    assert_eq!(value(&found), "from the future");
    let written = put(cluster.http[2], "other", "x", &payload(&found));
    assert!(written.json()["timestamp"].as_i64().unwrap() > time, "it follows what was read");
    let written = put(cluster.http[2], "k", "after", &payload(&written));
    for port in &cluster.http {
        assert_eq!(value(&read(*port, "k", &payload(&written))), "after");
        assert_eq!(value(&read(*port, "k", "")), "after");
    }
}

/// C2, C6: in a cut both sides answer, never with less than a payload has seen; afterwards all agree.
#[test]
fn a_cut_is_survived_on_both_sides_and_no_payload_is_betrayed() {
    let mut cluster = cluster(3, 3);
    let before = payload(&put(cluster.http[0], "shared", "before", ""));
    // Servers 1 and 2 are gone for server 0, which goes on alone.
    cluster.kill(1);
    cluster.kill(2);
    cluster.wait_alive(0, &[0]);
    let alone = put(cluster.http[0], "x", "alone", &before);
    assert_eq!(alone.status, 201, "{alone:?}");
    let seen = payload(&alone);
    assert_eq!(value(&read(cluster.http[0], "x", &seen)), "alone");
    assert_eq!(value(&read(cluster.http[0], "shared", &seen)), "before");
    assert_eq!(value(&read(cluster.http[0], "shared", "")), "before");
    // A value that follows the lonely one, by a client that has read it.
    let follower = payload(&read(cluster.http[0], "x", ""));
    let chained = put(cluster.http[0], "y", "after+x", &follower);
    assert_eq!(chained.status, 201);
    // Now the other side is there, and server 0 is not.
    cluster.kill(0);
    cluster.restart(1);
    cluster.restart(2);
    cluster.wait_alive(1, &[1, 2]);
    // It has not seen as much, nor can it ask who has: no old answer, but a clear one.
    let refused = read(cluster.http[1], "x", &seen);
    assert_eq!(
        (refused.status, refused.json()["msg"].as_str()),
        (503, Some("error")),
        "{refused:?}"
    );
    // Whoever has seen nothing is answered, and so is who asks for what the payload knows exactly.
    assert_eq!(read(cluster.http[1], "x", "").status, 404);
    assert_eq!(value(&read(cluster.http[1], "shared", &before)), "before");
    let other_side = put(cluster.http[1], "shared", "other+side", &before);
    assert_eq!(other_side.status, 200, "{other_side:?}");
    // Healed: all is there on every server, at once for those who bring a payload.
    cluster.restart(0);
    cluster.wait_alive(1, &[0, 1, 2]);
    assert_eq!(value(&read(cluster.http[1], "x", &seen)), "alone");
    cluster.wait_alive(2, &[0, 1, 2]);
    let chained = payload(&chained);
    assert_eq!(value(&read(cluster.http[2], "y", &chained)), "after x");
    assert_eq!(value(&read(cluster.http[2], "x", &chained)), "alone");
    for port in &cluster.http {
        assert_eq!(value(&read(*port, "shared", "")), "other side");
    }
    cluster.wait_equal();
}

/// C2: what a value's writer had seen, its reader has seen, too, though the reader never heard of it.
#[test]
fn a_reader_has_seen_what_the_writer_had_seen() {
    let mut cluster = cluster(3, 3);
    assert_eq!(put(cluster.http[0], "x", "old", "").status, 201);
    cluster.kill(1);
    cluster.kill(2);
    cluster.wait_alive(0, &[0]);
    let x = payload(&put(cluster.http[0], "x", "new", ""));
    let y = put(cluster.http[0], "y", "follows", &x);
    assert_eq!(y.status, 201);
    cluster.restart(1);
    cluster.restart(2);
    for server in 0..3 {
        cluster.wait_alive(server, &[0, 1, 2]);
    }
    // A client that knows nothing reads y, finds its mark, and may not see x as it was.
    let read_y = read(cluster.http[2], "y", "");
    let reader = payload(&read_y);
    assert_eq!(value(&read(cluster.http[1], "x", &reader)), "new");
    cluster.wait_equal();
}

/// C4, C5: what makes no sense is refused in words.
#[test]
fn what_makes_no_sense_is_refused_in_words() {
    let cluster = cluster(2, 2);
    let port = cluster.http[0];
    let long = "k".repeat(251);
    let error = |answer: Answer, status: u16, expected: &str| {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.json()["msg"], "error");
        let said = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(said.contains(expected), "{said}");
    };
    error(put(port, "", "v", ""), 400, "1 to 250 characters");
    error(put(port, &long, "v", ""), 400, "1 to 250 characters");
    error(put(port, "k", "v", "junk"), 400, "causal_payload");
    error(read(port, "k", "1.c1.2"), 400, "causal_payload");
    error(read(port, &long, ""), 400, "1 to 250 characters");
    error(get(port, "/kvs"), 400, "there is no key");
    error(request(port, "PUT", "/kvs", FORM, b"key=k"), 400, "there is no value");
    error(request(port, "PUT", "/kvs", FORM, b"key=%zz&value=v"), 400, "hexadecimal");
    error(put(port, "k", &"v".repeat(1_500_001), ""), 413, "at most 1500000");
    error(get(port, "/kvs/get_partition_members?partition_id=x"), 400, "no number");
    error(get(port, "/kvs/get_partition_members?partition_id=7"), 404, "no partition 7");
    error(
        request(port, "PUT", "/kvs/view_update", FORM, b"type=add&ip_port=a:1"),
        501,
        "cannot be added",
    );
    assert_eq!(put(port, &"k".repeat(250), &"v".repeat(1_500_000), "").status, 201);
}

/// C4: a partition that nobody answers for is a 5xx with a text; the others go on.
#[test]
fn a_partition_out_of_reach_is_told() {
    let mut cluster = cluster(4, 2);
    let keys: Vec<String> = (0..20).map(|i| format!("key{i}")).collect();
    let ids: Vec<Value> = keys
        .iter()
        .map(|key| put(cluster.http[0], key, "v", "").json()["partition_id"].clone())
        .collect();
    assert!(ids.contains(&json!(0)) && ids.contains(&json!(1)), "{ids:?}");
    // Partition 1 is servers 2 and 3.
    cluster.kill(2);
    cluster.kill(3);
    cluster.wait_alive(0, &[0, 1]);
    for (key, id) in keys.iter().zip(&ids) {
        let found = read(cluster.http[1], key, "");
        let expected = if *id == json!(0) { 200 } else { 503 };
        assert_eq!(found.status, expected, "{key} of partition {id}: {found:?}");
        assert_eq!(put(cluster.http[0], key, "w", "").status, expected);
    }
}

/// C1, C7: nodes by `K`, `VIEW` and `ip_port` from the environment, in disjoint groups.
#[test]
fn nodes_start_from_their_environment_in_disjoint_groups() {
    let folder = tempfile::tempdir().unwrap();
    // Ports whose Thrift ports, a thousand above, are free as well.
    let free = |port: &u16| {
        *port < 64_000 && std::net::TcpListener::bind(("127.0.0.1", port + 1000)).is_ok()
    };
    let mut ports = Vec::new();
    while ports.len() < 5 {
        ports.extend(free_ports(1).into_iter().filter(free));
        ports.sort_unstable();
        ports.dedup();
    }
    let address = |port: &u16| format!("127.0.0.1:{port}");
    let view: Vec<String> = ports.iter().map(address).collect();
    let node = |port: &u16| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chord-server"));
        command.env("K", "2").env("VIEW", view.join(",")).env("ip_port", address(port));
        command.arg("--data").arg(folder.path().join(port.to_string()));
        command
    };
    struct Nodes(Vec<std::process::Child>);
    impl Drop for Nodes {
        fn drop(&mut self) {
            for child in &mut self.0 {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
    let quiet = |port: &u16| {
        node(port).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let nodes = Nodes(ports.iter().map(quiet).collect());
    let listens = |port: &u16| std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok();
    for port in &ports {
        wait_until("the node is ready", || {
            if !listens(port) {
                return Err("nobody listens".to_owned());
            }
            match get(*port, "/ready").status {
                200 => Ok(()),
                other => Err(other.to_string()),
            }
        });
    }
    let ask = |port: &u16, path: &str| get(*port, &format!("/kvs/{path}")).json();
    for port in &ports {
        assert_eq!(ask(port, "get_all_partition_ids")["partition_id_list"], json!([0, 1, 2]));
        let own = ask(port, "get_partition_id")["partition_id"].as_u64().unwrap();
        let members = ask(port, &format!("get_partition_members?partition_id={own}"));
        let members: Vec<&str> = members["partition_members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m.as_str().unwrap())
            .collect();
        assert!(members.contains(&address(port).as_str()), "{members:?}");
        assert_eq!(members.len(), if own == 2 { 1 } else { 2 });
    }
    // Each key is on its group, and the counts are those of the groups.
    let mut counts = [0; 3];
    for i in 0..60 {
        let put = put(ports[i % 5], &format!("key{i}"), "v", "");
        assert_eq!(put.status, 201, "{put:?}");
        counts[put.json()["partition_id"].as_u64().unwrap() as usize] += 1;
    }
    assert!(counts.iter().all(|count| *count > 5), "{counts:?}");
    for port in &ports {
        let own = ask(port, "get_partition_id")["partition_id"].as_u64().unwrap() as usize;
        wait_until("a group's counts are equal", || match ask(port, "get_number_of_keys")["count"]
            .as_u64()
        {
            Some(count) if count == counts[own] => Ok(()),
            other => Err(format!("{other:?} of {}", counts[own])),
        });
    }
    drop(nodes);
    // A node that waits to be added is told that this comes later.
    let mut lonely = node(&ports[0]);
    lonely.env_remove("VIEW");
    let output = run(lonely, "");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no VIEW"));
}
