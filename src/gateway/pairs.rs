//! The words of the REST proxy store: items of an encoding and data, many to a request.
//!
//! An item is `{"encoding": "string"|"binary", "data": "…"}`; binary data is text of 0s and 1s. Items and bytes are
//! turned into each other so that nothing is lost either way, whichever door it came through:
//!
//! | item | bytes |
//! |---|---|
//! | string | its text |
//! | binary, whole bytes that are no text | those bytes |
//! | any other binary | the byte FF, which no text has, and the digits themselves |
//!
//! So the pair of encoding and data is the key, and a string key `137` is the key `137` of every other door.
//!
//! Writes and reads are at QUORUM. A pair that makes no sense is listed among the failed ones; if none makes sense,
//! the request is refused.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::problem::Problem;
use super::{Route, Shared, State, body};
use crate::client::Scanner;
use crate::model::{ClientRequest, ClientResponse, Content, Key, Level, PreparedPut};

/// Longest body, in bytes.
const MAX_BODY: usize = 64 << 20;
/// Pairs of one request in flight.
const WINDOW: usize = 128;
/// Items of one request that are read at a time: each may bring a value of 15 MiB.
const READS: usize = 16;
/// Pairs asked of the cluster at once.
const PAGE: usize = 1_000;
/// Before binary digits that stand for themselves. No UTF-8 text has this byte.
const MARK: u8 = 0xff;

pub(super) fn routes() -> Vec<Route> {
    vec![
        ("/set", &["PUT"], put(set)),
        ("/fetch", &["GET", "HEAD", "POST"], post(fetch).get(fetch_all)),
        ("/query", &["POST"], post(query)),
    ]
}

/// The bytes of an item; `None`: it is none.
fn bytes_of(item: &Value) -> Option<Vec<u8>> {
    let object = item.as_object().filter(|object| object.len() == 2)?;
    let data = object.get("data")?.as_str()?;
    match object.get("encoding")?.as_str()? {
        "string" => Some(data.as_bytes().to_vec()),
        "binary" if data.bytes().all(|digit| matches!(digit, b'0' | b'1')) => {
            let packed = packed(data.as_bytes()).filter(|packed| digits_of(packed).is_none());
            let natural = packed.filter(|packed| std::str::from_utf8(packed).is_err());
            Some(natural.unwrap_or_else(|| [&[MARK], data.as_bytes()].concat()))
        }
        _ => None,
    }
}

/// Eight digits to a byte; `None`: they are not so many.
fn packed(digits: &[u8]) -> Option<Vec<u8>> {
    let byte = |eight: &[u8]| eight.iter().fold(0, |byte, digit| byte << 1 | (digit - b'0'));
    (digits.len().is_multiple_of(8)).then(|| digits.chunks(8).map(byte).collect())
}

/// The digits that stand for themselves behind the mark.
fn digits_of(bytes: &[u8]) -> Option<&[u8]> {
    let digits = bytes.strip_prefix(&[MARK])?;
    digits.iter().all(|digit| matches!(digit, b'0' | b'1')).then_some(digits)
}

/// The item of some bytes.
fn item_of(bytes: &[u8]) -> Value {
    let binary = |digits: String| json!({"encoding": "binary", "data": digits});
    match (std::str::from_utf8(bytes), digits_of(bytes)) {
        (Ok(text), _) => json!({"encoding": "string", "data": text}),
        (Err(_), Some(digits)) => binary(String::from_utf8_lossy(digits).into_owned()),
        (Err(_), None) => binary(bytes.iter().map(|byte| format!("{byte:08b}")).collect()),
    }
}

/// The key of an item.
fn key_of(item: &Value) -> Option<Key> {
    Key::new(bytes_of(item)?).ok()
}

/// The refusal of a whole request.
fn refused(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": true, "message": message}))).into_response()
}

fn of_problem(problem: &Problem) -> Response {
    refused(problem.status, &problem.detail)
}

/// The list that a body must be.
async fn list(
    shared: &Arc<Shared>,
    headers: &HeaderMap,
    content: Body,
) -> Result<Vec<Value>, Response> {
    let bad = |message: &str| refused(StatusCode::BAD_REQUEST, message);
    if body::media_type(headers).as_deref() != Some("application/json") {
        return Err(bad("the content type must be application/json"));
    }
    let body = body::read(shared, headers, content, MAX_BODY).await;
    let body = body.map_err(|problem| of_problem(&problem))?;
    match serde_json::from_slice(&body.bytes) {
        Ok(Value::Array(items)) if !items.is_empty() => Ok(items),
        Ok(Value::Array(_)) => Err(bad("the list is empty")),
        Ok(_) => Err(bad("the body must be a list")),
        Err(error) => Err(bad(&format!("the body is no JSON: {error}"))),
    }
}

/// All went well, or a part of it.
fn partly(all: bool) -> StatusCode {
    if all { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT }
}

const ITEM: &str = "an item is {\"encoding\": \"string\" or \"binary\", \"data\": \"…\"}, binary data are 0s and 1s, and a \
                    key has 1 byte to 64 KiB";

/// `PUT /set`.
async fn set(Extract(shared): State, headers: HeaderMap, content: Body) -> Response {
    let pairs = match list(&shared, &headers, content).await {
        Ok(pairs) => pairs,
        Err(response) => return response,
    };
    let shape = |pair: &Value| {
        pair.as_object().is_some_and(|pair| {
            pair.len() == 2 && pair.contains_key("key") && pair.contains_key("value")
        })
    };
    if !pairs.iter().all(shape) {
        return refused(
            StatusCode::BAD_REQUEST,
            "each entry must be {\"key\": item, \"value\": item}",
        );
    }
    let understood = |pair: &Value| Some((key_of(&pair["key"])?, bytes_of(&pair["value"])?));
    let writes: Vec<_> = pairs.iter().map(understood).collect();
    if writes.iter().all(Option::is_none) {
        return refused(StatusCode::BAD_REQUEST, ITEM);
    }
    // Of two pairs with one key the later one counts, as if they had been carried out in turn.
    let mut last = std::collections::BTreeMap::new();
    for (index, (key, _)) in writes.iter().enumerate().filter_map(|(i, w)| Some((i, w.as_ref()?))) {
        last.insert(key.clone(), index);
    }
    let stored: Vec<bool> = {
        let one = |(index, write): (usize, &Option<(Key, Vec<u8>)>)| {
            let (shared, write) = (&shared, write.clone());
            let counts = write.as_ref().is_some_and(|(key, _)| last.get(key) == Some(&index));
            async move {
                let (key, value) = write?;
                if !counts {
                    return Some(true);
                }
                let content = Content::Value(value.into());
                shared
                    .client
                    .write(PreparedPut::new(key, content, Level::Quorum))
                    .await
                    .ok()
                    .map(|_| true)
            }
        };
        stream::iter(writes.iter().enumerate().map(one))
            .buffered(WINDOW)
            .map(|done| done.unwrap_or(false))
            .collect()
            .await
    };
    // A pair that a later one replaced shares its fate.
    let fate = |(index, write): (usize, &Option<(Key, Vec<u8>)>)| {
        write
            .as_ref()
            .and_then(|(key, _)| last.get(key))
            .map_or(stored[index], |last| stored[*last])
    };
    let stored: Vec<bool> = writes.iter().enumerate().map(fate).collect();
    let failed: Vec<&Value> =
        pairs.iter().zip(&stored).filter(|(_, stored)| !**stored).map(|(p, _)| &p["key"]).collect();
    let answer = json!([{"keys_added": pairs.len() - failed.len(), "keys_failed": failed}]);
    (partly(failed.is_empty()), Json(answer)).into_response()
}

/// What of each item is there; `Err`: nobody could tell.
async fn values(shared: &Arc<Shared>, keys: Vec<Key>) -> Vec<Result<Option<Bytes>, ()>> {
    let one = |key: Key| async move {
        let request = ClientRequest::Get { key, level: Level::Quorum, timeout: None };
        match shared.client.read(request).await.map_err(|_| ())?.response {
            ClientResponse::Get { cell, .. } => {
                Ok(cell.and_then(|cell| cell.content.value().cloned()))
            }
            _ => Err(()),
        }
    };
    stream::iter(keys.into_iter().map(one)).buffered(READS).collect().await
}

/// The items of a request, and what is there of each.
async fn found(
    shared: &Arc<Shared>,
    headers: &HeaderMap,
    content: Body,
) -> Result<Vec<(Value, Result<Option<Bytes>, ()>)>, Response> {
    let items = list(shared, headers, content).await?;
    let keys: Option<Vec<Key>> = items.iter().map(key_of).collect();
    let Some(keys) = keys else { return Err(refused(StatusCode::BAD_REQUEST, ITEM)) };
    let values = values(shared, keys).await;
    if values.iter().all(Result::is_err) {
        let text = "none of the keys can be read now: too few servers answer";
        return Err(refused(StatusCode::SERVICE_UNAVAILABLE, text));
    }
    Ok(items.into_iter().zip(values).collect())
}

/// `POST /fetch`.
async fn fetch(Extract(shared): State, headers: HeaderMap, content: Body) -> Response {
    let found = match found(&shared, &headers, content).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let all = found.iter().all(|(_, value)| matches!(value, Ok(Some(_))));
    let pair = |(item, value): &(Value, Result<Option<Bytes>, ()>)| {
        let value = match value {
            Ok(Some(value)) => item_of(value),
            Ok(None) | Err(()) => json!({}),
        };
        json!({"key": item, "value": value})
    };
    (partly(all), Json(found.iter().map(pair).collect::<Vec<_>>())).into_response()
}

/// `POST /query`.
async fn query(Extract(shared): State, headers: HeaderMap, content: Body) -> Response {
    let found = match found(&shared, &headers, content).await {
        Ok(found) => found,
        Err(response) => return response,
    };
    let all = found.iter().all(|(_, value)| matches!(value, Ok(Some(_))));
    let pair = |(item, value): &(Value, Result<Option<Bytes>, ()>)| json!({"key": item, "value": matches!(value, Ok(Some(_)))});
    (partly(all), Json(found.iter().map(pair).collect::<Vec<_>>())).into_response()
}

/// `GET /fetch`: every pair of every server, streamed. If it cannot be finished, the connection breaks: a list that
/// ends as if it were whole would be a lie.
async fn fetch_all(Extract(shared): State) -> Response {
    let mut scanner = Scanner::unordered(shared.client.clone(), Key::bound(""), Level::Quorum);
    let first = match scanner.page(PAGE).await {
        Ok(first) => first.unwrap_or_default(),
        Err(error) => return of_problem(&Problem::of_read(&error)),
    };
    let chunks =
        stream::unfold((scanner, Some(first), true), |(mut scanner, first, begin)| async move {
            let page = match first {
                Some(first) => Ok(Some(first)),
                // The end was written with the last page.
                None => match scanner.next() {
                    None => return None,
                    Some(_) => scanner.page(PAGE).await,
                },
            };
            let mut out = Vec::new();
            let mut entries = match page {
                Ok(page) => page.unwrap_or_default(),
                Err(error) => {
                    let broken = std::io::Error::other(error.to_string());
                    return Some((Err(broken), (scanner, None, false)));
                }
            };
            if begin {
                out.push(b'[');
            }
            // Empty pages occur: separators belong before all entries but the first of all.
            let mut begin = begin;
            for entry in entries.drain(..) {
                if !begin {
                    out.extend(b",\n");
                }
                begin = false;
                let pair =
                    json!({"key": item_of(entry.key.as_bytes()), "value": item_of(&entry.value)});
                out.extend(pair.to_string().bytes());
            }
            if scanner.next().is_none() {
                out.extend(b"]\n");
            }
            Some((Ok(Bytes::from(out)), (scanner, None, begin)))
        });
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(chunks)).into_response()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What other doors have stored is shown, and found again by what was shown.
        #[test]
        fn bytes_come_back_from_their_item(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(bytes_of(&item_of(&bytes)), Some(bytes));
        }

        #[test]
        fn items_come_back_from_their_bytes(digits in "[01]{0,40}", text in ".{0,20}") {
            let binary = json!({"encoding": "binary", "data": digits});
            prop_assert_eq!(item_of(&bytes_of(&binary).unwrap()), binary.clone());
            let string = json!({"encoding": "string", "data": text});
            prop_assert_eq!(item_of(&bytes_of(&string).unwrap()), string.clone());
            prop_assert_ne!(bytes_of(&binary), bytes_of(&string));
        }
    }

    #[test]
    fn the_digits_that_look_like_marked_digits_are_marked_once_more() {
        // FF 30: packed, they would be read back as the digit 0.
        let binary = json!({"encoding": "binary", "data": "1111111100110000"});
        assert_eq!(item_of(&bytes_of(&binary).unwrap()), binary);
    }

    #[test]
    fn what_is_no_item_is_refused() {
        for item in [
            json!("a"),
            json!({"encoding": "string"}),
            json!({"encoding": "latin1", "data": "a"}),
            json!({"encoding": "binary", "data": "012"}),
            json!({"encoding": "string", "data": 7}),
            json!({"encoding": "string", "data": "a", "more": 1}),
        ] {
            assert_eq!(bytes_of(&item), None, "{item}");
        }
        assert_eq!(key_of(&json!({"encoding": "string", "data": ""})), None);
    }
}
