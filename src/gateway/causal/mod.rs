//! The words of the causal store: form fields in, JSON out, and a payload that holds on every server.
//!
//! # The promise
//!
//! A payload is what its client has seen: its own writes, and whatever it has read together with all that the
//! writers of that had seen. A read that brings a payload is never answered with less, on any server; a write that
//! brings one wins over all of it, whatever the clocks say. During a network cut both sides take reads and writes,
//! as far as that can be had together with the promise; what cannot is a 503 in words, never an old value.
//!
//! # How
//!
//! Everything is read and written at QUORUM as long as that can be had. What a majority holds, any later QUORUM read
//! finds, so it needs no care at all, and that is how it is almost always. Where a majority cannot be reached, ONE
//! takes its place, and what was written or read so is *weak* until a QUORUM read has found it. Payloads tell what is
//! weak, and versions carry a mark if their writer had seen something weak ([`Version::is_weak`]), so that it is not
//! forgotten on the way from one client to the next.
//!
//! A read at QUORUM then suffices unless it finds less than the payload has seen of the key itself, or the payload
//! knows of weak things above what was found. Then all replicas are asked, and if one of them is away, the answer is
//! that it cannot be told. A read at ONE suffices if what is found is not below anything the payload may mean.
//!
//! Weak marks are dropped after [`WEAK_FOR`]: hints and repair have long carried everything to everyone who is up.
//!
//! Versions of one key are ordered by time, then server: of concurrent writes the newest wins, everywhere.
//!
//! [`Version::is_weak`]: crate::model::Version::is_weak

mod partitions;
mod payload;
mod register;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use serde_json::{Map, Value, json};

use self::payload::Payload;
use super::problem::Problem;
use super::words::Fields;
use super::{Route, Shared, State, body};
use crate::model::{ClientRequest, ClientResponse, Content, Key, Version};

/// Longest key, in characters.
const MAX_KEY: usize = 250;
/// Longest value, in bytes.
const MAX_VALUE: usize = 1_500_000;
/// Longest form, in bytes: such a value with every byte percent-encoded, its key and a payload.
const MAX_BODY: usize = 3 * MAX_VALUE + (64 << 10);
/// For how long something weak is worried about.
const WEAK_FOR: Duration = Duration::from_secs(600);

pub(super) fn routes() -> Vec<Route> {
    vec![
        ("/kvs", &["GET", "HEAD", "PUT", "DELETE"], get(read).put(write).delete(delete)),
        ("/kvs/view_update", &["PUT"], put(partitions::view_update)),
        ("/kvs/get_partition_id", &["GET", "HEAD"], get(partitions::own)),
        ("/kvs/get_all_partition_ids", &["GET", "HEAD"], get(partitions::all)),
        ("/kvs/get_partition_members", &["GET", "HEAD"], get(partitions::members)),
        ("/kvs/get_number_of_keys", &["GET", "HEAD"], get(partitions::count)),
    ]
}

/// A success, with these fields.
fn success(status: StatusCode, fields: Value) -> Response {
    let mut object = Map::from_iter([("msg".to_owned(), json!("success"))]);
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    (status, Json(Value::Object(object))).into_response()
}

/// An error: a status and a sentence.
#[derive(Debug)]
struct Failure(StatusCode, String);

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure(problem.status, problem.detail)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Failure(status, error) = self;
        (status, Json(json!({"msg": "error", "error": error}))).into_response()
    }
}

fn missing() -> Failure {
    Failure(StatusCode::NOT_FOUND, "key does not exist".to_owned())
}

/// Key and payload of a request.
fn asked(fields: &Fields) -> Result<(Key, Payload), Failure> {
    let bad = |text: &str| Failure(StatusCode::BAD_REQUEST, text.to_owned());
    let key = fields.text("key")?.ok_or_else(|| bad("there is no key"))?;
    if !(1..=MAX_KEY).contains(&key.chars().count()) {
        return Err(bad(&format!("the key must have 1 to {MAX_KEY} characters")));
    }
    let mut payload = Payload::parse(fields.text("causal_payload")?.unwrap_or_default())?;
    payload.forget_weak_before(long_ago());
    Ok((Key::bound(key.to_owned()), payload))
}

/// Microseconds since 1970, as this machine's clock has them, minus [`WEAK_FOR`].
#[allow(clippy::disallowed_methods, reason = "how old a mark is; nothing is ordered by it")]
fn long_ago() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let since = since.unwrap_or_default().saturating_sub(WEAK_FOR);
    since.as_micros().min(i64::MAX as u128) as i64
}

/// `GET /kvs`.
async fn read(Extract(shared): State, uri: Uri) -> Result<Response, Failure> {
    let (key, mut payload) = asked(&Fields::of(&uri)?)?;
    let found = register::read(&shared, &key, &mut payload).await?;
    let (version, content) = found.ok_or_else(missing)?;
    let Content::Value(value) = content else { return Err(missing()) };
    let mut fields = json!({
        "partition_id": partitions::of(&shared, &key).await?,
        "causal_payload": payload.to_text(),
        "timestamp": version.time,
    });
    if let Some(fields) = fields.as_object_mut() {
        super::v1::put_bytes(fields, "value", &value);
    }
    Ok(success(StatusCode::OK, fields))
}

/// `PUT /kvs`.
async fn write(
    Extract(shared): State,
    headers: HeaderMap,
    content: Body,
) -> Result<Response, Failure> {
    let body = body::read(&shared, &headers, content, MAX_BODY).await?;
    let fields = Fields::parse(&body.bytes)?;
    let (key, mut payload) = asked(&fields)?;
    let bad = || Failure(StatusCode::BAD_REQUEST, "there is no value".to_owned());
    let value = fields.get("value").ok_or_else(bad)?.to_vec();
    if value.len() > MAX_VALUE {
        let text = format!("the value has {} bytes; at most {MAX_VALUE}", value.len());
        return Err(Failure(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    let partition = partitions::of(&shared, &key).await?;
    let existed = exists(&shared, &key, &payload).await;
    let version =
        register::write(&shared, &key, Content::Value(value.into()), &mut payload).await?;
    // If nobody can tell whether it is new, it is called so.
    let status = if existed == Some(true) { StatusCode::OK } else { StatusCode::CREATED };
    Ok(success(status, written(partition, version, &payload)))
}

/// `DELETE /kvs`: the fields in the URL, or in a form.
async fn delete(
    Extract(shared): State,
    uri: Uri,
    headers: HeaderMap,
    content: Body,
) -> Result<Response, Failure> {
    let mut fields = Fields::of(&uri)?;
    if fields.get("key").is_none() {
        let body = body::read(&shared, &headers, content, MAX_BODY).await?;
        fields = Fields::parse(&body.bytes)?;
    }
    let (key, mut payload) = asked(&fields)?;
    let partition = partitions::of(&shared, &key).await?;
    if exists(&shared, &key, &payload).await == Some(false) {
        return Err(missing());
    }
    let version = register::write(&shared, &key, Content::Tombstone, &mut payload).await?;
    Ok(success(StatusCode::OK, written(partition, version, &payload)))
}

/// What is said of a write. It cannot fail: a write that was stored must not be reported as an error.
fn written(partition: usize, version: Version, payload: &Payload) -> Value {
    json!({
        "partition_id": partition,
        "causal_payload": payload.to_text(),
        "timestamp": version.time,
    })
}

/// Whether the key has a value, as far as the client may see; `None`: nobody can tell now.
async fn exists(shared: &Arc<Shared>, key: &Key, payload: &Payload) -> Option<bool> {
    let found = register::read(shared, key, &mut payload.clone()).await.ok()?;
    Some(found.is_some_and(|(_, content)| content.value().is_some()))
}

/// The answer of one server about itself.
async fn own_status(shared: &Shared) -> Result<crate::model::Status, Failure> {
    let asked = shared.client.read_at(shared.settings.server, ClientRequest::Status).await;
    match asked.map_err(|error| Problem::of_read(&error))?.response {
        ClientResponse::Status(status) => Ok(*status),
        _ => Err(Failure(StatusCode::BAD_GATEWAY, "an unexpected answer".to_owned())),
    }
}
