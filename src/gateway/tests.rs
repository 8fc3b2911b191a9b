//! The door without a cluster behind it: what the document says is what there is.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt;

use super::*;

/// A door whose servers are all gone.
fn door() -> Router {
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let members = vec![Member { server: ServerId(0), address, http: None }];
    let listen = "127.0.0.1:0".to_owned();
    let (server, budget) = (ServerId(0), Budget::default());
    let settings = Settings { listen, server, members, max_connections: 1, budget };
    router(Shared::new(settings))
}

async fn send(method: &str, path: &str, body: &'static str) -> (StatusCode, Value) {
    let request =
        Request::builder().method(method).uri(path).header("content-type", "application/json");
    let response = door().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

fn document() -> Value {
    serde_json::from_str(v1::OPENAPI).unwrap()
}

/// Paths and methods of the document, the paths as the router writes them.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let document = document();
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .map(|(path, operations)| {
            let methods = operations.as_object().unwrap().keys().map(|name| name.to_uppercase());
            (path.replace("{key}", "{*key}"), methods.collect())
        })
        .collect()
}

#[test]
fn the_document_names_every_route_and_no_other() {
    let routes: BTreeMap<String, BTreeSet<String>> = routes()
        .into_iter()
        .map(|(path, methods, _)| {
            (path.to_owned(), methods.iter().map(|method| (*method).to_owned()).collect())
        })
        .collect();
    assert_eq!(documented(), routes);
}

#[tokio::test]
async fn every_route_takes_the_methods_it_names_and_refuses_the_others() {
    for (path, methods) in documented() {
        let path = path.replace("{*key}", "some%2Fkey");
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH"] {
            let (status, said) = send(method, &path, "").await;
            let refused = status == StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(refused, !methods.contains(method), "{method} {path}: {status} {said}");
            assert_ne!(said["type"], "urn:chord:problem:no-such-path", "{method} {path}");
        }
    }
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    assert_eq!(document["openapi"], "3.1.0");
}

#[tokio::test]
async fn without_servers_writes_are_not_stored_and_the_door_is_in_good_health() {
    let (status, said) = send("PUT", "/v1/keys/a", "v").await;
    assert_eq!((status.as_u16(), &said["outcome"]), (503, &Value::from("not_stored")), "{said}");
    assert_eq!(send("GET", "/v1/keys/a", "").await.0.as_u16(), 503);
    assert_eq!(send("GET", "/v1/keys", "").await.0.as_u16(), 503);
    assert_eq!(send("GET", "/ready", "").await.0.as_u16(), 503);
    assert_eq!(send("GET", "/health", "").await.0.as_u16(), 200);
    assert_eq!(send("GET", "/kvs?key=a", "").await.0.as_u16(), 503);
    let items = r#"[{"encoding":"string","data":"a"}]"#;
    assert_eq!(send("POST", "/fetch", items).await.0.as_u16(), 503);
    let (status, said) =
        send("POST", "/v1/batch/put", r#"{"items":[{"key":"a","value":"v"}]}"#).await;
    assert_eq!(
        (status.as_u16(), &said["results"][0]["outcome"]),
        (207, &Value::from("not_stored"))
    );
}
