//! How the server is, and what there is to ask.

use std::time::Duration;

use axum::Json;
use axum::extract::State as Extract;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::problem::Problem;
use super::super::{Shared, State};
use super::OPENAPI;
use super::keys::unexpected;
use super::ranges::put_bytes;
use crate::client::show::time;
use crate::model::{ClientRequest, ClientResponse, DamagedRecord, PeerStatus, ScrubStatus, Status};

/// For the server's own answer.
const OWN: Duration = Duration::from_secs(1);

async fn own_status(shared: &Shared) -> Result<Status, Problem> {
    let asked = shared.client.read_at(shared.settings.server, ClientRequest::Status);
    let late = || {
        let detail = "the server itself does not answer".to_owned();
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready", detail)
    };
    let answered = tokio::time::timeout(OWN, asked).await.map_err(|_| late())?;
    match answered.map_err(|error| Problem { detail: error.to_string(), ..late() })?.response {
        ClientResponse::Status(status) => Ok(*status),
        _ => Err(unexpected()),
    }
}

/// `GET /health`: the process is there. Never looks at the cluster: a server whose peers are down is in good health.
pub(super) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /ready`: the log is replayed, the server votes, and its disk takes writes. Peers that are down are no reason to send clients away.
pub(super) async fn ready(Extract(shared): State) -> Result<Json<Value>, Problem> {
    let status = own_status(&shared).await?;
    let detail = match &status.disk {
        _ if !status.voting => {
            format!("server {} does not vote yet: {}", status.server, status.state)
        }
        Some(disk) => format!("server {}: {disk}", status.server),
        None => return Ok(Json(json!({"status": "ready", "server": status.server.0}))),
    };
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready", detail))
}

/// `GET /v1/status`.
pub(super) async fn status(Extract(shared): State) -> Result<Json<Value>, Problem> {
    let status = own_status(&shared).await?;
    let peer = |peer: &PeerStatus| {
        json!({
            "server": peer.server.0,
            "address": peer.address,
            "alive": peer.alive,
            "voting": peer.voting,
            "hints": peer.hints,
            "disk": peer.disk,
            "clock_offset_ms": peer.clock_offset_ms,
        })
    };
    Ok(Json(json!({
        "server": status.server.0,
        "incarnation": status.incarnation.0,
        "voting": status.voting,
        "state": status.state,
        "keys": status.keys,
        "tombstones": status.tombstones,
        "log_bytes": status.log_bytes,
        "hint_log_bytes": status.hint_log_bytes,
        "memory_bytes": status.memory_bytes,
        "memory_budget": status.memory_budget,
        "counters": status.counters,
        "disk": status.disk,
        "clock": status.clock,
        "scrub": status.scrub.as_ref().map(scrub),
        "peers": status.peers.iter().map(peer).collect::<Vec<_>>(),
    })))
}

fn scrub(scrub: &ScrubStatus) -> Value {
    let record = |record: &DamagedRecord| {
        let mut object = serde_json::Map::new();
        put_bytes(&mut object, "key", &record.key);
        object.insert("file".to_owned(), json!(record.file));
        object.insert("offset".to_owned(), json!(record.offset));
        object.insert("found".to_owned(), json!(time(record.found)));
        object.insert("healed".to_owned(), json!(record.healed.map(time)));
        Value::Object(object)
    };
    let at = |micros: i64| (micros != 0).then(|| time(micros));
    json!({
        "rate": scrub.rate,
        "began": at(scrub.began),
        "ended": at(scrub.ended),
        "bytes_left": scrub.left,
        "waiting": scrub.waiting,
        "recent": scrub.recent.iter().map(record).collect::<Vec<_>>(),
    })
}

/// `GET /v1/topology`.
pub(super) async fn topology(Extract(shared): State) -> Result<Json<Value>, Problem> {
    let table = shared.client.table().await.map_err(|error| Problem::of_read(&error))?;
    let view = table.view();
    let http = |server| {
        let member = shared.settings.members.iter().find(|member| member.server == server);
        member.and_then(|member| member.http.clone())
    };
    let servers = view.servers.iter().map(
        |one| json!({"server": one.server.0, "address": one.address, "http": http(one.server)}),
    );
    let ranges = view.ranges.iter().map(|range| {
        let mut object = serde_json::Map::new();
        put_bytes(&mut object, "start", &range.start);
        object.insert("epoch".to_owned(), json!(range.epoch.0));
        let replicas: Vec<_> = range.replicas.iter().map(|replica| replica.0).collect();
        object.insert("replicas".to_owned(), json!(replicas));
        Value::Object(object)
    });
    Ok(Json(json!({
        "cluster": view.cluster,
        "partitioner": view.partitioner,
        "servers": servers.collect::<Vec<_>>(),
        "ranges": ranges.collect::<Vec<_>>(),
    })))
}

/// `GET /openapi.json`.
pub(super) async fn openapi() -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], OPENAPI).into_response()
}
