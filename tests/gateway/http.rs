//! A small HTTP client for tests, and the servers' HTTP door in its own words.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::{Cluster, PATIENCE, Shape, wait_until};

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &'_ &str| line.to_ascii_lowercase().starts_with(&format!("{name}:"));
        Some(self.head.lines().find(line)?.split_once(':')?.1.trim())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// One request on a connection of its own; the headers are lines, each ended.
pub(crate) fn request(port: u16, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length =
        if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The server may refuse a body without reading it.
    let _ = stream.write_all(body);
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    answer(&all)
}

fn answer(all: &[u8]) -> Answer {
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = all[end + 4..].to_vec();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    Answer { status, head, body }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n").expect("a whole answer");
        let length =
            usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + length]);
        rest = &rest[line + 4 + length..];
    }
}

pub(crate) fn get(port: u16, path: &str) -> Answer {
    request(port, "GET", path, "", b"")
}

pub(crate) const JSON: &str = "Content-Type: application/json\r\n";

fn demo() -> Cluster {
    Cluster::shaped(Shape { http: true, ..Shape::DEMO })
}

#[test]
fn a_key_is_put_read_and_deleted_through_any_server() {
    let cluster = demo();
    // Any bytes: a slash, a blank, a byte that is no text.
    let path = "/v1/keys/a%2Fb%20%ff";
    let value = [0u8, 1, 255, 13, 10];
    let put = request(cluster.http[0], "PUT", path, "", &value);
    assert_eq!(put.status, 200, "{put:?}");
    assert_eq!(put.json()["outcome"], "stored");
    let tag = put.header("etag").unwrap().to_owned();
    let version = put.json()["version"].as_str().unwrap().to_owned();
    assert!(tag.starts_with(&format!("\"{version}-")), "{tag} of {version}");
    for port in &cluster.http {
        let read = get(*port, path);
        assert_eq!((read.status, read.body.as_slice()), (200, &value[..]), "{read:?}");
        assert_eq!(read.header("etag"), Some(tag.as_str()));
        assert!(read.header("chord-time").is_some() && read.header("chord-server").is_some());
        let head = request(*port, "HEAD", path, "", b"");
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-length"), Some("5"));
        let seen = format!("If-None-Match: \"other\", {tag}\r\n");
        let unchanged = request(*port, "GET", path, &seen, b"");
        assert_eq!((unchanged.status, unchanged.body.len()), (304, 0), "{unchanged:?}");
    }
    // A ticket is for one value. Of two the one with the greater checksum is the newer, here "two"; the tag tells them apart.
    let ticket = "Chord-Ticket: ";
    let one = request(cluster.http[0], "PUT", "/v1/keys/t", "", b"one");
    let under = format!("{ticket}{}\r\n", one.json()["version"].as_str().unwrap());
    let two = request(cluster.http[1], "PUT", "/v1/keys/t", &under, b"two");
    assert_eq!((two.status, two.json()["version"].as_str()), (200, one.json()["version"].as_str()));
    let seen = format!("If-None-Match: {}\r\n", one.header("etag").unwrap());
    for port in &cluster.http {
        let read = request(*port, "GET", "/v1/keys/t", &seen, b"");
        assert_eq!(
            (read.status, &read.body[..]),
            (200, &b"two"[..]),
            "another value, the same tag"
        );
        assert_eq!(read.header("etag"), two.header("etag"));
    }
    let again = request(cluster.http[2], "PUT", "/v1/keys/t", &under, b"one");
    assert_eq!(again.status, 504, "a former attempt may have arrived, so it is not a definite no");
    let said = String::from_utf8_lossy(&again.body).into_owned();
    assert!(said.contains("already used for another value"), "{said}");
    // The same key through the other door.
    let held = cluster.client(&["--raw", "get", "a/b \u{fffd}"]);
    assert_eq!(held.status.code(), Some(1), "another key than the one with a raw byte");
    request(cluster.http[1], "PUT", "/v1/keys/plain", "", b"text");
    assert_eq!(cluster.client(&["--raw", "get", "plain"]).stdout, b"text");
    assert_eq!(request(cluster.http[2], "DELETE", path, "", b"").status, 200);
    let gone = get(cluster.http[3], path);
    assert_eq!(
        (gone.status, gone.json()["type"].as_str()),
        (404, Some("urn:chord:problem:no-such-key"))
    );
}

#[test]
fn bad_requests_are_problems_and_the_server_goes_on() {
    let cluster = demo();
    let port = cluster.http[0];
    let detail = |answer: &Answer| answer.json()["detail"].as_str().unwrap().to_owned();
    for (method, path, headers, body, status, expected) in [
        ("GET", "/v1/keys/", "", "", 400, "the key is empty"),
        ("GET", "/v1/keys/a%2", "", "", 400, "two hexadecimal digits"),
        ("GET", "/v1/keys/a?level=two", "", "", 400, "no level"),
        ("GET", "/v1/keys/a?levle=one", "", "", 400, "there is no parameter 'levle'"),
        ("GET", "/v1/keys/a", "Chord-Level: most\r\n", "", 400, "no level"),
        ("GET", "/v1/keys/a?timeout_ms=0", "", "", 400, "from 1 to 60000"),
        ("GET", "/v1/keys?limit=0", "", "", 400, "from 1 to"),
        ("GET", "/v1/keys?from=b&to=a", "", "", 400, "ends before it begins"),
        ("PUT", "/v1/keys/a", "If-Match: \"1\"\r\n", "v", 501, "conditional writes"),
        ("PUT", "/v1/keys/a", "Chord-Ticket: x\r\n", "v", 400, "no version"),
        ("PUT", "/v1/keys/a", "Chord-Ticket: 99999999999999999@1.1\r\n", "v", 504, "ticket"),
        ("POST", "/v1/batch/get", JSON, "{", 400, "not as expected"),
        ("POST", "/v1/batch/get", "", "{}", 415, "must be JSON"),
        (
            "POST",
            "/v1/batch/put",
            JSON,
            r#"{"items":[{"key":"a","value":"1"},{"key":"a","value":"2"}]}"#,
            400,
            "twice",
        ),
        (
            "POST",
            "/v1/batch/put",
            JSON,
            r#"{"items":[{"key":"a"}]}"#,
            400,
            "either value or value_base64",
        ),
        ("PATCH", "/health", "", "", 405, "does not take PATCH"),
        ("GET", "/nowhere", "", "", 404, "there is nothing at /nowhere"),
    ] {
        let answer = request(port, method, path, headers, body.as_bytes());
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert!(detail(&answer).contains(expected), "{method} {path}: {}", detail(&answer));
        assert_eq!(answer.json()["status"], status);
        if method == "PUT" || path.ends_with("put") {
            // Under a ticket a former attempt may have arrived, whatever the servers say of this one.
            let outcome = if status == 504 { "unknown" } else { "not_stored" };
            assert_eq!(answer.json()["outcome"], outcome);
        }
    }
    let long = request(port, "PUT", "/v1/keys/a", "", &vec![b'v'; (15 << 20) + 1]);
    assert_eq!((long.status, long.json()["outcome"].as_str()), (413, Some("not_stored")));
    assert_eq!(request(port, "PUT", "/v1/keys/a", "", &vec![b'v'; 15 << 20]).status, 200);
    assert_eq!(get(port, "/v1/keys/a").body.len(), 15 << 20);
    // Nothing of HTTP at all, and a head that never ends.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"\x80\x01\x00\x01garbage\r\n\r\n").unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(b"GET /health HTTP/1.1\r\nX: ");
    while stream.write_all(&[b'x'; 65536]).is_ok() {}
    drop(stream);
    assert_eq!(get(port, "/health").status, 200);
}

#[test]
fn ranges_are_ordered_streamed_and_go_on_where_they_stopped() {
    let cluster = demo();
    let port = cluster.http[1];
    let input: String = (0..2_500).map(|i| format!("put k{i:04} v{i}\n")).collect();
    assert!(cluster.client_with(&["--quiet"], &input).status.success());
    let all: Vec<String> = (0..2_500).map(|i| format!("k{i:04}")).collect();
    let keys = |answer: &Value| -> Vec<String> {
        let entries = answer["entries"].as_array().unwrap();
        entries.iter().map(|entry| entry["key"].as_str().unwrap().to_owned()).collect()
    };
    let whole = get(port, "/v1/keys?limit=10000").json();
    assert_eq!(keys(&whole), all);
    assert_eq!(whole.get("next"), None);
    // Page by page, by the link in the answer.
    let (mut path, mut found) = ("/v1/keys?from=k0100&to=k0200&limit=33".to_owned(), Vec::new());
    loop {
        let page = get(port, &path).json();
        assert!(page["entries"].as_array().unwrap().len() <= 33);
        found.extend(keys(&page));
        match page.get("next") {
            Some(next) => path = next.as_str().unwrap().to_owned(),
            None => break,
        }
    }
    assert_eq!(found, all[100..200]);
    let lines =
        request(port, "GET", "/v1/keys?limit=1500", "Accept: application/x-ndjson\r\n", b"");
    let lines: Vec<Value> = lines
        .body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!((lines.len(), lines[1499]["key"].as_str()), (1501, Some("k1499")));
    assert!(lines[1500]["next"].as_str().unwrap().starts_with("/v1/keys?from=k1500"));
}

#[test]
fn a_batch_has_a_result_for_each_item() {
    let cluster = demo();
    let port = cluster.http[2];
    let items = json!({"items": [
        {"key": "a", "value": "1"},
        {"key_base64": "/w==", "value_base64": "/gE="},
        {"key": "b", "delete": true},
        {"key": "", "value": "2"},
    ]});
    let put = request(port, "POST", "/v1/batch/put", JSON, items.to_string().as_bytes());
    let results = put.json()["results"].clone();
    let outcomes = |results: &Value| -> Vec<String> {
        let results = results.as_array().unwrap();
        results.iter().map(|result| result["outcome"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(put.status, 207);
    assert_eq!(outcomes(&results), ["stored", "stored", "stored", "not_stored"]);
    assert!(results[3]["problem"]["detail"].as_str().unwrap().contains("empty"));
    let keys = json!({"keys": ["a", {"key_base64": "/w=="}, "b", "c"]});
    let read = request(port, "POST", "/v1/batch/get", JSON, keys.to_string().as_bytes());
    let results = read.json()["results"].clone();
    assert_eq!(read.status, 200);
    assert_eq!(outcomes(&results), ["found", "found", "not_found", "not_found"]);
    assert_eq!((&results[0]["value"], &results[1]["value_base64"]), (&json!("1"), &json!("/gE=")));
}

#[test]
fn an_outage_is_told_as_stored_or_not_stored() {
    let mut cluster = demo();
    let port = cluster.http[0];
    assert_eq!(request(port, "PUT", "/v1/keys/137", "", b"v").status, 200);
    // "137" is kept by 2, 3 and 0.
    cluster.kill(2);
    cluster.wait_alive(0, &[0, 1, 3]);
    assert_eq!(request(port, "PUT", "/v1/keys/137", "", b"w").status, 200);
    cluster.kill(3);
    cluster.wait_alive(0, &[0, 1]);
    let refused = request(port, "PUT", "/v1/keys/137", "", b"x");
    assert_eq!(
        (refused.status, refused.json()["outcome"].as_str()),
        (503, Some("not_stored")),
        "{refused:?}"
    );
    assert_eq!(refused.json()["alive"], 1);
    assert_eq!(get(port, "/v1/keys/137").status, 503);
    assert_eq!(get(port, "/v1/keys/137?level=one").body, b"w");
    // A server whose peers are down is in good health, and ready.
    assert_eq!((get(port, "/health").status, get(port, "/ready").status), (200, 200));
    cluster.restart(3);
    wait_until("QUORUM is back", || match get(port, "/v1/keys/137").body.as_slice() {
        b"w" => Ok(()),
        other => Err(String::from_utf8_lossy(other).into_owned()),
    });
}

#[test]
fn a_silent_replica_holds_up_no_one_and_its_writes_are_stored_once() {
    let cluster = demo();
    let port = cluster.http[1];
    cluster.signal(2, "STOP");
    // Routed straight to the silent owner at first, then under the same ticket elsewhere.
    let put = request(port, "PUT", "/v1/keys/137", "", b"v");
    cluster.signal(2, "CONT");
    assert_eq!(put.status, 200, "{put:?}");
    cluster.wait_equal();
    let versions: std::collections::BTreeSet<String> = [0, 2, 3]
        .iter()
        .map(|server| {
            cluster.contents(*server).iter().find(|(key, _, _)| key == "137").unwrap().2.clone()
        })
        .collect();
    assert_eq!(versions.len(), 1);
}

#[test]
fn connections_are_bounded_and_idle_ones_do_not_stop_a_restart() {
    let mut cluster = Cluster::shaped(Shape {
        http: true,
        flags: &["--max-http-connections", "2"],
        ..Shape::DEMO
    });
    let port = cluster.http[0];
    let idle: Vec<_> = (0..2).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    // The third waits until one of them goes.
    let mut third = TcpStream::connect(("127.0.0.1", port)).unwrap();
    third.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    third.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(third.read(&mut [0; 1]).is_err(), "it is served beyond the bound");
    idle[0].shutdown(Shutdown::Both).unwrap();
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = Vec::new();
    third.read_to_end(&mut all).unwrap();
    assert_eq!(answer(&all).status, 200);
    assert_eq!(cluster.terminate(0), Some(0));
    cluster.restart(0);
    drop(idle);
    wait_until("the door is open again", || match get(port, "/ready").status {
        200 => Ok(()),
        other => Err(other.to_string()),
    });
}

#[test]
fn a_taken_http_port_is_one_clear_line() {
    let cluster = demo();
    let taken = cluster.http[1].to_string();
    let mut command = cluster.command(0);
    command.args(["--http", &taken]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("HTTP at 127.0.0.1:{taken}")) && said.contains("--http"),
        "{said}"
    );
}

/// Level available by name, and what an answer says that it has had.
#[test]
fn a_call_at_available_says_what_it_has_had() {
    let mut cluster = Cluster::shaped(Shape { http: true, ..Shape::of(3, 3) });
    let port = cluster.http[0];
    let path = "/v1/keys/k?level=available";
    let put = request(port, "PUT", path, "", b"v");
    assert_eq!(put.status, 200);
    let reached = put.json()["reached"].clone();
    assert_eq!((&reached["level"], &reached["replicas"]), (&json!("QUORUM"), &json!(3)));
    cluster.wait_equal();
    cluster.kill(1);
    cluster.kill(2);
    let put = request(port, "PUT", path, "", b"w");
    assert_eq!(
        (put.status, put.header("chord-reached")),
        (200, Some("available: 1 of 3 replicas"))
    );
    let get = request(port, "GET", path, "", b"");
    assert_eq!((get.status, get.body.as_slice()), (200, &b"w"[..]));
    assert_eq!(get.header("chord-reached"), Some("available: 1 of 3 replicas"));
    let missing = request(port, "GET", "/v1/keys/nobody?level=available", "", b"");
    assert_eq!((missing.status, &missing.json()["reached"]["holding"]), (404, &json!(1)));
    let body = br#"{"keys":["k"]}"#;
    let kind = "Content-Type: application/json\r\n";
    let batch = request(port, "POST", "/v1/batch/get?level=available", kind, body);
    assert_eq!(batch.json()["results"][0]["reached"]["level"], json!("AVAILABLE"));
    // Without a majority, quorum goes on to refuse; and there are no scans at this level.
    assert_eq!(request(port, "GET", "/v1/keys/k", "", b"").status, 503);
    let scan = request(port, "GET", "/v1/keys?level=available", "", b"");
    assert_eq!(scan.status, 400);
    assert!(scan.json()["detail"].as_str().unwrap().contains("not offered at level AVAILABLE"));
}
