//! Many keys in one request, each with a result of its own.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::super::body::List;
use super::super::pieces::Pieces;
use super::super::problem::Problem;
use super::super::words::{self, Fields, MANNER, Manner};
use super::super::{Got, Shared, State, body};
use super::keys::{stored, unexpected};
use super::ranges::put_bytes;
use crate::budget::Share;
use crate::client::Error;
use crate::client::record::from_json_parts;
use crate::client::show::{reached_json, time};
use crate::model::{ClientResponse, Content, Key, PreparedPut, Reached, Version};

/// Longest body, in bytes.
const MAX_BODY: usize = 24 << 20;
/// Writes of one request in flight; their values are in its body.
const WRITES: usize = 64;
/// Reads of one request in flight: each may bring a value of 15 MiB.
const READS: usize = 8;
/// Bytes of values in one answer, beyond which the rest is not read.
const MAX_ANSWER: usize = 32 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Gets {
    keys: List<Box<RawValue>>,
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
    items: List<PutItem>,
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
) -> Result<(T, Manner, Share), Problem> {
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
    let parsed = body::parse(&body.bytes, "the body is not as expected")?;
    Ok((parsed, manner, body.into_share()))
}

/// 200 where all outcomes are good ones, 207 (*multi-status*) where one is not.
fn answer(results: Vec<Value>) -> Response {
    let all = results.iter().all(|result| result["outcome"] == "stored");
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

/// A key: text, or an object with the one or the other.
fn key_in(name: &RawValue) -> Result<Vec<u8>, Problem> {
    let bad = |error| Problem::invalid(format!("the body is not as expected: {error}"));
    if name.get().starts_with('"') {
        return serde_json::from_str(name.get()).map(String::into_bytes).map_err(bad);
    }
    let KeyObject { key, key_base64 } = serde_json::from_str(name.get()).map_err(bad)?;
    part("key", key, key_base64)
}

/// `POST /v1/batch/get`.
pub(super) async fn get(
    Extract(shared): State,
    uri: Uri,
    headers: HeaderMap,
    content: Body,
) -> Result<Response, Problem> {
    let (Gets { keys: List(names) }, manner, body) =
        asked(&shared, &uri, &headers, content).await?;
    let room = shared.shares.items(names.len()).await?;
    let keys = names.iter().map(|name| key_in(name)).collect::<Result<Vec<_>, Problem>>()?;
    drop(names);
    // A key that is there twice is read once.
    let mut found: BTreeMap<Vec<u8>, Result<Held, Problem>> = BTreeMap::new();
    let distinct: BTreeSet<Vec<u8>> = keys.iter().cloned().collect();
    let one = |bytes: Vec<u8>| {
        let shared = &shared;
        async move {
            let result = get_one(shared, bytes.clone(), manner).await;
            (bytes, result)
        }
    };
    let mut reads = futures_util::stream::iter(distinct.into_iter().map(one)).buffered(READS);
    let mut bytes = 0;
    while bytes <= MAX_ANSWER
        && let Some((key, result)) = reads.next().await
    {
        bytes +=
            result.as_ref().ok().and_then(|held| held.found.as_ref()).map_or(0, |(_, v)| v.len());
        found.insert(key, result);
    }
    drop(reads);
    let mut pieces = Pieces::default();
    pieces.hold(body);
    pieces.hold(room);
    let mut all = true;
    for (at, key) in keys.iter().enumerate() {
        pieces.plain(if at == 0 { "{\"results\":[" } else { "," });
        let failed = |problem: &Problem| with_problem(key, "failed", problem).to_string();
        match found.get(key.as_slice()) {
            Some(Ok(Held { found: Some((version, value)), is_text, reached })) => {
                pieces.plain(&b"{"[..]);
                pieces.member("key", Bytes::copy_from_slice(key));
                pieces.plain(&b",\"outcome\":\"found\","[..]);
                pieces.member_as("value", value.clone(), *is_text);
                let time = time(version.time);
                pieces.plain(format!(",\"version\":\"{version}\",\"time\":\"{time}\""));
                if let Some(reached) = reached {
                    pieces.plain(format!(",\"reached\":{}", reached_json(reached)));
                }
                pieces.plain("}");
            }
            Some(Ok(Held { found: None, reached, .. })) => {
                let mut object = result_of(key, "not_found");
                if let Some(reached) = reached {
                    object.insert("reached".to_owned(), reached_json(reached));
                }
                pieces.plain(Value::Object(object).to_string());
            }
            Some(Err(problem)) => {
                all = false;
                pieces.plain(failed(problem));
            }
            None => {
                all = false;
                let detail = format!(
                    "the answer has {MAX_ANSWER} bytes of values already; ask for it alone"
                );
                pieces.plain(failed(&Problem::too_long(detail)));
            }
        }
    }
    pieces.plain(if keys.is_empty() { "{\"results\":[]}" } else { "]}" });
    let status = if all { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    let kind = HeaderValue::from_static("application/json");
    Ok((status, [(header::CONTENT_TYPE, kind)], pieces.into_body()).into_response())
}

fn part(
    name: &'static str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Vec<u8>, Problem> {
    from_json_parts(name, text, base64).map_err(|error| Problem::invalid(error.to_string()))
}

/// A value, and whether it is text, which takes long to tell of a long one.
struct Held {
    found: Option<(Version, Bytes)>,
    is_text: bool,
    reached: Option<Reached>,
}

/// What there is of one key.
async fn get_one(shared: &Shared, bytes: Vec<u8>, manner: Manner) -> Result<Held, Problem> {
    let key = words::key(bytes)?;
    let Manner { level, timeout, .. } = manner;
    let Got { reached, found, .. } = shared.value(key, level, timeout).await?;
    let is_text = found.as_ref().is_some_and(|(_, value)| std::str::from_utf8(value).is_ok());
    Ok(Held { found, is_text, reached })
}

/// `POST /v1/batch/put`.
pub(super) async fn put(
    Extract(shared): State,
    uri: Uri,
    headers: HeaderMap,
    content: Body,
) -> Result<Response, Problem> {
    let asked = asked(&shared, &uri, &headers, content).await;
    let (Puts { items: List(items) }, manner, _body) = asked.map_err(Problem::not_stored)?;
    let _room = shared.shares.items(items.len()).await.map_err(Problem::not_stored)?;
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
    Ok(answer(results.collect().await))
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
