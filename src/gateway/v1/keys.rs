//! One key.

use axum::Json;
use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::problem::Problem;
use super::super::words::{Fields, MANNER, Manner, key_in_path};
use super::super::{Got, State, body};
use crate::client::Answered;
use crate::client::show::{reached_json, time};
use crate::model::{
    Checksum, ClientResponse, Content, Key, MAX_VALUE_LENGTH, PreparedPut, Reached, ServerId,
    Version,
};

const PREFIX: &str = "/v1/keys/";

fn asked(uri: &Uri, headers: &HeaderMap) -> Result<(Key, Manner), Problem> {
    let fields = Fields::of(uri)?;
    fields.allow(&MANNER)?;
    Ok((key_in_path(uri, PREFIX)?, Manner::of(&fields, headers)?))
}

/// Version and content: a client may have put two contents under one version.
fn etag(version: Version, checksum: Checksum) -> String {
    format!("\"{version}-{:x}\"", checksum.number())
}

/// Version, time, coordinator, and what a call at AVAILABLE has had, for whoever wants to know.
fn stamp(
    response: &mut Response,
    (version, checksum): (Version, Checksum),
    server: Option<ServerId>,
    reached: Option<Reached>,
) {
    let mut set = |name: HeaderName, text: String| {
        // Numbers and punctuation: always a header's value.
        if let Ok(value) = HeaderValue::try_from(text) {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::ETAG, etag(version, checksum));
    set(HeaderName::from_static("chord-time"), time(version.time));
    if let Some(server) = server {
        set(HeaderName::from_static("chord-server"), server.to_string());
    }
    if let Some(reached) = reached {
        set(HeaderName::from_static("chord-reached"), reached.to_string());
    }
}

/// `GET` and `HEAD`.
pub(super) async fn get(
    Extract(shared): State,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (key, Manner { level, timeout, .. }) = asked(&uri, &headers)?;
    let Got { server, reached, found } = shared.value(key.clone(), level, timeout).await?;
    let missing = || {
        let missing = Problem::not_found("no-such-key", format!("there is no key '{key}'"));
        missing.with_reached(reached)
    };
    let (version, value) = found.ok_or_else(missing)?;
    let checksum = Checksum::of_value(crc32c::crc32c(&value));
    let seen = headers.get_all(header::IF_NONE_MATCH).iter();
    let seen = seen.filter_map(|value| value.to_str().ok());
    let mut response = if seen.into_iter().any(|tags| matches(tags, &etag(version, checksum))) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let kind = HeaderValue::from_static("application/octet-stream");
        ([(header::CONTENT_TYPE, kind)], Body::from(value)).into_response()
    };
    stamp(&mut response, (version, checksum), server, reached);
    Ok(response)
}

/// Whether a list of entity tags names this one; weak ones count, as RFC 9110 has it for reads.
fn matches(tags: &str, tag: &str) -> bool {
    tags.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}

/// `PUT`.
pub(super) async fn put(
    Extract(shared): State,
    uri: Uri,
    headers: HeaderMap,
    content: Body,
) -> Result<Response, Problem> {
    let (key, manner) = asked(&uri, &headers).map_err(Problem::not_stored)?;
    unconditional(&headers)?;
    let body = body::read(&shared, &headers, content, MAX_VALUE_LENGTH).await;
    let body = body.map_err(Problem::not_stored)?;
    write(&shared, key, Content::Value(body.bytes.clone()), manner).await
}

/// `DELETE`.
pub(super) async fn delete(
    Extract(shared): State,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (key, manner) = asked(&uri, &headers).map_err(Problem::not_stored)?;
    unconditional(&headers)?;
    write(&shared, key, Content::Tombstone, manner).await
}

/// A condition that nobody checks would be a lie.
fn unconditional(headers: &HeaderMap) -> Result<(), Problem> {
    let conditions = [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_UNMODIFIED_SINCE];
    match conditions.iter().find(|name| headers.contains_key(*name)) {
        None => Ok(()),
        Some(name) => Err(Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "no-conditions",
            "Not offered",
            format!("conditional writes are not offered yet; leave out {name}"),
        )
        .not_stored()),
    }
}

async fn write(
    shared: &super::super::Shared,
    key: Key,
    content: Content,
    manner: Manner,
) -> Result<Response, Problem> {
    let Manner { level, timeout, ticket } = manner;
    let checksum = Checksum::of(&content);
    let write = PreparedPut { key, content, level, timeout, ticket, after: None };
    let Answered { server, response } =
        shared.client.write(write).await.map_err(|error| Problem::of_write(&error))?;
    let ClientResponse::Put { version, overtaken, reached } = response else {
        return Err(unexpected());
    };
    let mut response = Json(stored(version, overtaken, server, reached)).into_response();
    stamp(&mut response, (version, checksum), server, reached);
    Ok(response)
}

/// What is said of a write that has succeeded.
pub(super) fn stored(
    version: Version,
    overtaken: bool,
    server: Option<ServerId>,
    reached: Option<Reached>,
) -> Value {
    let mut said = json!({
        "outcome": "stored",
        "version": version.to_string(),
        "time": time(version.time),
    });
    if let (Some(server), Some(said)) = (server, said.as_object_mut()) {
        said.insert("server".to_owned(), json!(server.0));
    }
    if let (true, Some(said)) = (overtaken, said.as_object_mut()) {
        said.insert("overtaken".to_owned(), json!(true));
    }
    if let (Some(reached), Some(said)) = (reached, said.as_object_mut()) {
        said.insert("reached".to_owned(), reached_json(&reached));
    }
    said
}

pub(in super::super) fn unexpected() -> Problem {
    let detail = "a server has answered something else than it was asked".to_owned();
    Problem::new(StatusCode::BAD_GATEWAY, "unexpected", "Unexpected answer", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_as_a_cache_does() {
        for (tags, expected) in [
            ("\"7@1.2\"", true),
            ("W/\"7@1.2\"", true),
            ("\"6@1.2\", \"7@1.2\"", true),
            ("*", true),
            ("\"7@1.3\"", false),
            ("7@1.2", false),
        ] {
            assert_eq!(matches(tags, "\"7@1.2\""), expected, "{tags}");
        }
    }
}
