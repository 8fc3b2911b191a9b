//! The words of the REST proxy store (requirements R1 to R5).

use serde_json::{Value, json};

use crate::http::{Answer, JSON, get, request};
use crate::process::{Cluster, Shape};

fn demo(partitioner: &str) -> Cluster {
    Cluster::shaped(Shape { http: true, partitioner, ..Shape::of(4, 3) })
}

fn string(data: &str) -> Value {
    json!({"encoding": "string", "data": data})
}

fn binary(data: &str) -> Value {
    json!({"encoding": "binary", "data": data})
}

fn send(port: u16, method: &str, path: &str, body: &Value) -> Answer {
    request(port, method, path, JSON, body.to_string().as_bytes())
}

/// R1, R3, R4: many pairs in a call, through any server; 206 where a part is missing.
#[test]
fn pairs_are_set_fetched_and_asked_for_through_any_server() {
    let mut cluster = demo("byte-ordered");
    let pairs = json!([
        {"key": string("137"), "value": string("v")},
        {"key": string("0101"), "value": binary("0101")},
        // The same data in the other encoding is another key.
        {"key": binary("0101"), "value": string("other")},
        {"key": binary(""), "value": binary("")},
    ]);
    let set = send(cluster.http[0], "PUT", "/set", &pairs);
    assert_eq!((set.status, set.json()), (200, json!([{"keys_added": 4, "keys_failed": []}])));
    let keys: Vec<&Value> = pairs.as_array().unwrap().iter().map(|pair| &pair["key"]).collect();
    for port in &cluster.http {
        let fetched = send(*port, "POST", "/fetch", &json!(keys));
        assert_eq!((fetched.status, fetched.json()), (200, pairs.clone()));
        let missing = send(*port, "POST", "/fetch", &json!([keys[0], string("nobody")]));
        let expected = json!([pairs[0], {"key": string("nobody"), "value": {}}]);
        assert_eq!((missing.status, missing.json()), (206, expected));
        let asked = send(*port, "POST", "/query", &json!([keys[2], string("nobody")]));
        let expected =
            json!([{"key": keys[2], "value": true}, {"key": string("nobody"), "value": false}]);
        assert_eq!((asked.status, asked.json()), (206, expected));
        assert_eq!(send(*port, "POST", "/query", &json!([keys[2]])).status, 200);
    }
    // A string key is the same key at every door.
    assert_eq!(get(cluster.http[1], "/v1/keys/137").body, b"v");
    // The later of two pairs with one key counts.
    let twice = json!([{"key": string("a"), "value": string("1")}, {"key": string("a"), "value": string("2")}]);
    assert_eq!(send(cluster.http[2], "PUT", "/set", &twice).json()[0]["keys_added"], 2);
    assert_eq!(get(cluster.http[3], "/v1/keys/a").body, b"2");
    // R4: no server is the one that must be there.
    cluster.kill(0);
    let fetched = send(cluster.http[3], "POST", "/fetch", &json!(keys));
    assert_eq!((fetched.status, fetched.json()), (200, pairs.clone()));
}

/// GET /fetch: every pair of every server, wherever they are kept.
#[test]
fn everything_is_fetched_from_ordered_and_hashed_clusters() {
    for partitioner in ["byte-ordered", "hashed"] {
        let cluster = demo(partitioner);
        assert_eq!(get(cluster.http[0], "/fetch").json(), json!([]));
        let pairs: Vec<Value> = (0..2_300)
            .map(|i| json!({"key": string(&format!("key{i}")), "value": string(&format!("value{i}"))}))
            .collect();
        assert_eq!(send(cluster.http[0], "PUT", "/set", &json!(pairs)).status, 200);
        let fetched = get(cluster.http[3], "/fetch");
        assert_eq!(fetched.status, 200);
        let mut fetched = fetched.json().as_array().unwrap().clone();
        let number = |pair: &Value| -> usize {
            pair["key"]["data"].as_str().unwrap().strip_prefix("key").unwrap().parse().unwrap()
        };
        fetched.sort_by_key(number);
        assert_eq!(fetched, pairs, "{partitioner}");
    }
}

/// R2: what makes no sense is refused in words, and the server goes on.
#[test]
fn what_makes_no_sense_is_refused_in_words() {
    let cluster = demo("byte-ordered");
    let port = cluster.http[0];
    for (method, path, headers, body) in [
        ("PUT", "/set", JSON, "{"),
        ("PUT", "/set", JSON, "{}"),
        ("PUT", "/set", JSON, "[]"),
        ("PUT", "/set", JSON, r#"[{"key": 7}]"#),
        (
            "PUT",
            "/set",
            "",
            r#"[{"key": {"encoding": "string", "data": "a"}, "value": {"encoding": "string", "data": "b"}}]"#,
        ),
        (
            "PUT",
            "/set",
            JSON,
            r#"[{"key": {"encoding": "latin1", "data": "a"}, "value": {"encoding": "string", "data": "b"}}]"#,
        ),
        (
            "PUT",
            "/set",
            JSON,
            r#"[{"key": {"encoding": "binary", "data": "2"}, "value": {"encoding": "string", "data": "b"}}]"#,
        ),
        (
            "PUT",
            "/set",
            JSON,
            r#"[{"key": {"encoding": "string", "data": ""}, "value": {"encoding": "string", "data": "b"}}]"#,
        ),
        ("POST", "/fetch", JSON, r#"["a"]"#),
        ("POST", "/fetch", JSON, r#"[{"encoding": "string"}]"#),
        ("POST", "/query", JSON, "null"),
        (
            "POST",
            "/query",
            "Content-Type: text/plain\r\n",
            r#"[{"encoding": "string", "data": "a"}]"#,
        ),
    ] {
        let answer = request(port, method, path, headers, body.as_bytes());
        assert_eq!(answer.status, 400, "{method} {path} {body}: {answer:?}");
        let said = answer.json();
        assert_eq!(said["error"], true);
        assert!(said["message"].as_str().is_some_and(|message| message.len() > 10), "{said}");
    }
    // One pair of two makes sense: that one is stored, the other one is named.
    let bad = json!({"encoding": "latin1", "data": "x"});
    let half =
        json!([{"key": string("a"), "value": string("1")}, {"key": bad, "value": string("2")}]);
    let set = send(port, "PUT", "/set", &half);
    assert_eq!((set.status, set.json()), (206, json!([{"keys_added": 1, "keys_failed": [bad]}])));
    assert_eq!(get(port, "/v1/keys/a").body, b"1");
}

#[test]
fn an_outage_fails_the_pairs_that_it_concerns() {
    let mut cluster = Cluster::shaped(Shape { http: true, ..Shape::DEMO });
    // "0" is kept by 0, 1, 2; "137" by 2, 3, 0.
    cluster.kill(2);
    cluster.kill(3);
    cluster.wait_alive(0, &[0, 1]);
    let pairs = json!([{"key": string("0"), "value": string("v")}, {"key": string("137"), "value": string("v")}]);
    let set = send(cluster.http[0], "PUT", "/set", &pairs);
    assert_eq!(
        (set.status, set.json()),
        (206, json!([{"keys_added": 1, "keys_failed": [string("137")]}]))
    );
    // Two pairs with one key share one fate.
    let twice = json!([{"key": string("137"), "value": string("v")}, {"key": string("137"), "value": string("w")}]);
    let set = send(cluster.http[0], "PUT", "/set", &twice);
    assert_eq!(
        set.json(),
        json!([{"keys_added": 0, "keys_failed": [string("137"), string("137")]}])
    );
    let fetched = send(cluster.http[0], "POST", "/fetch", &json!([string("0"), string("137")]));
    let expected = json!([pairs[0], {"key": string("137"), "value": {}}]);
    assert_eq!((fetched.status, fetched.json()), (206, expected));
    let none = send(cluster.http[0], "POST", "/fetch", &json!([string("137")]));
    assert_eq!((none.status, &none.json()["error"]), (503, &json!(true)));
}
