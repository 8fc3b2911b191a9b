//! Many keys in one request, each with a result of its own.

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::super::problem::Problem;
use super::super::words::{self, Fields, MANNER, Manner};
use super::super::{Shared, State, body};
use super::keys::{stored, unexpected};
use super::ranges::put_bytes;
use crate::client::Error;
use crate::client::record::from_json_parts;
use crate::client::show::{reached_json, time};
use crate::model::{ClientRequest, ClientResponse, Content, Key, PreparedPut};

/// Items of one request at most.
pub(super) const MAX_ITEMS: usize = 10_000;
/// Longest body, in bytes.
const MAX_BODY: usize = 24 << 20;
/// Writes of one request in flight; their values are in its body.
const WRITES: usize = 128;
/// Reads of one request in flight: each may bring a value of 15 MiB.
const READS: usize = 16;
/// Bytes of values in one answer, beyond which the rest is not read.
const MAX_ANSWER: usize = 64 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Gets {
    keys: Vec<Name>,
}

/// A key: text, or an object with the one or the other.
#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Object(KeyObject),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyObject {
    key: Option<String>,
    key_base64: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Puts {
    items: Vec<PutItem>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutItem {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    #[serde(default)]
    delete: bool,
}

/// The request's body, and how its calls are to be made.
async fn asked<T: DeserializeOwned>(
    shared: &std::sync::Arc<Shared>,
    uri: &Uri,
    headers: &HeaderMap,
    content: Body,
) -> Result<(T, Manner), Problem> {
    let fields = Fields::of(uri)?;
    fields.allow(&MANNER)?;
    let manner = Manner::of(&fields, headers)?;
    if manner.ticket.is_some() {
        return Err(Problem::invalid("a ticket belongs to one write; send it to /v1/keys"));
    }
    if body::media_type(headers).as_deref() != Some("application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "no-json",
            "Not JSON",
            "the body must be JSON: send Content-Type: application/json".to_owned(),
        ));
    }
    let body = body::read(shared, headers, content, MAX_BODY).await?;
    let parsed = serde_json::from_slice(&body.bytes)
        .map_err(|error| Problem::invalid(format!("the body is not as expected: {error}")))?;
    Ok((parsed, manner))
}

fn bounded(count: usize) -> Result<(), Problem> {
    if count <= MAX_ITEMS {
        return Ok(());
    }
    Err(Problem::too_long(format!("there are {count} items; send at most {MAX_ITEMS} at a time")))
}

/// 200 where all outcomes are good ones, 207 (*multi-status*) where one is not.
fn answer(results: Vec<Value>, good: &[&str]) -> Response {
    let is_good = |result: &Value| good.iter().any(|good| result["outcome"] == *good);
    let all = results.iter().all(is_good);
    let status = if all { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    (status, Json(json!({"results": results}))).into_response()
}

fn result_of(key: &[u8], outcome: &str) -> Map<String, Value> {
    let mut object = Map::new();
    put_bytes(&mut object, "key", key);
    object.insert("outcome".to_owned(), json!(outcome));
    object
}

fn with_problem(key: &[u8], outcome: &str, problem: &Problem) -> Value {
    let mut object = result_of(key, outcome);
    object.insert("problem".to_owned(), problem.json());
    Value::Object(object)
}

/// `POST /v1/batch/get`.
pub(super) async fn get(
    Extract(shared): State,
    uri: Uri,
    headers: HeaderMap,
    content: Body,
) -> Result<Response, Problem> {
    let (Gets { keys }, manner) = asked(&shared, &uri, &headers, content).await?;
    bounded(keys.len())?;
    let keys = keys.into_iter().map(|name| match name {
        Name::Text(text) => Ok(text.into_bytes()),
        Name::Object(KeyObject { key, key_base64 }) => part("key", key, key_base64),
    });
    let keys = keys.collect::<Result<Vec<_>, Problem>>()?;
    let one = |bytes: Vec<u8>| {
        let shared = &shared;
        async move { get_one(shared, bytes, manner).await }
    };
    let mut found = futures_util::stream::iter(keys.iter().cloned().map(one)).buffered(READS);
    let (mut results, mut bytes) = (Vec::with_capacity(keys.len()), 0);
    while let Some((result, length)) = found.next().await {
        results.push(result);
        bytes += length;
        if bytes > MAX_ANSWER {
            break;
        }
    }
    let detail =
        || format!("the answer has {MAX_ANSWER} bytes of values already; ask for it alone");
    for bytes in &keys[results.len()..] {
        results.push(with_problem(bytes, "failed", &Problem::too_long(detail())));
    }
    Ok(answer(results, &["found", "not_found"]))
}

fn part(
    name: &'static str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Vec<u8>, Problem> {
    from_json_parts(name, text, base64).map_err(|error| Problem::invalid(error.to_string()))
}

/// The result of one key, and the length of its value.
async fn get_one(shared: &Shared, bytes: Vec<u8>, manner: Manner) -> (Value, usize) {
    let failed = |problem: Problem| (with_problem(&bytes, "failed", &problem), 0);
    let key = match words::key(bytes.clone()) {
        Ok(key) => key,
        Err(problem) => return failed(problem),
    };
    let Manner { level, timeout, .. } = manner;
    let answered = match shared.client.read(ClientRequest::Get { key, level, timeout }).await {
        Ok(answered) => answered,
        Err(error) => return failed(Problem::of_read(&error)),
    };
    let ClientResponse::Get { cell, reached } = answered.response else {
        return failed(unexpected());
    };
    let result_of = |bytes: &[u8], outcome: &'static str| {
        let mut object = result_of(bytes, outcome);
        if let Some(reached) = &reached {
            object.insert("reached".to_owned(), reached_json(reached));
        }
        object
    };
    let Some((value, version)) =
        cell.and_then(|cell| Some((cell.content.value()?.clone(), cell.version)))
    else {
        return (Value::Object(result_of(&bytes, "not_found")), 0);
    };
    let mut object = result_of(&bytes, "found");
    put_bytes(&mut object, "value", &value);
    object.insert("version".to_owned(), json!(version.to_string()));
    object.insert("time".to_owned(), json!(time(version.time)));
    (Value::Object(object), value.len())
}

/// `POST /v1/batch/put`.
pub(super) async fn put(
    Extract(shared): State,
    uri: Uri,
    headers: HeaderMap,
    content: Body,
) -> Result<Response, Problem> {
    let asked = asked(&shared, &uri, &headers, content).await;
    let (Puts { items }, manner) = asked.map_err(Problem::not_stored)?;
    bounded(items.len()).map_err(Problem::not_stored)?;
    let items = items.into_iter().map(write_of).collect::<Result<Vec<_>, Problem>>();
    let items = items.map_err(Problem::not_stored)?;
    let mut keys = BTreeSet::new();
    if let Some((key, _)) = items.iter().find(|(key, _)| !keys.insert(key.clone())) {
        let key = crate::client::show::text(key);
        // They are carried out at the same time: nobody could say which one wins.
        return Err(Problem::invalid(format!("key '{key}' is there twice")).not_stored());
    }
    let one = |(key, content): (Vec<u8>, Content)| {
        let shared = &shared;
        async move { put_one(shared, key, content, manner).await }
    };
    let results = futures_util::stream::iter(items.into_iter().map(one)).buffered(WRITES);
    Ok(answer(results.collect().await, &["stored"]))
}

fn write_of(item: PutItem) -> Result<(Vec<u8>, Content), Problem> {
    let PutItem { key, key_base64, value, value_base64, delete } = item;
    let key = part("key", key, key_base64)?;
    if delete {
        if value.is_some() || value_base64.is_some() {
            return Err(Problem::invalid("an item has a value and is to be deleted; say one"));
        }
        return Ok((key, Content::Tombstone));
    }
    Ok((key, Content::Value(part("value", value, value_base64)?.into())))
}

async fn put_one(shared: &Shared, bytes: Vec<u8>, content: Content, manner: Manner) -> Value {
    let key: Key = match words::key(bytes.clone()) {
        Ok(key) => key,
        Err(problem) => return with_problem(&bytes, "not_stored", &problem),
    };
    let Manner { level, timeout, .. } = manner;
    let write = PreparedPut { key, content, level, timeout, ticket: None, after: None };
    match shared.client.write(write).await {
        Ok(answered) => match answered.response {
            ClientResponse::Put { version, overtaken, reached } => {
                let mut object = result_of(&bytes, "stored");
                let said = stored(version, overtaken, answered.server, reached);
                if let Value::Object(said) = said {
                    object.extend(said);
                }
                Value::Object(object)
            }
            _ => with_problem(&bytes, "unknown", &unexpected()),
        },
        Err(error @ Error::Unknown { .. }) => {
            with_problem(&bytes, "unknown", &Problem::of_write(&error))
        }
        Err(error) => with_problem(&bytes, "not_stored", &Problem::of_write(&error)),
    }
}
