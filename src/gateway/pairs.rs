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

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::body::{List, Whole};
use super::pieces::Pieces;
use super::problem::Problem;
use super::{Route, Shared, State, body};
use crate::budget::Share;
use crate::client::Scanner;
use crate::model::{Content, Key, Level, PreparedPut, ScanEntry};

/// Longest body, in bytes.
const MAX_BODY: usize = 32 << 20;
/// Bytes of values in one answer, each key's counted once.
const MAX_ANSWER: usize = 32 << 20;
/// Pairs of one request in flight.
const WINDOW: usize = 64;
/// Items of one request that are read at a time: each may bring a value of 15 MiB.
const READS: usize = 8;
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

/// An item as it is sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    #[serde(borrow)]
    encoding: Cow<'a, str>,
    #[serde(borrow)]
    data: Cow<'a, str>,
}

/// A pair as it is sent: its items may make sense or not.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair<'a> {
    #[serde(borrow)]
    key: &'a RawValue,
    #[serde(borrow)]
    value: &'a RawValue,
}

/// The bytes of an item, which is JSON; `None`: it is none.
fn bytes_of(item: &str) -> Option<Vec<u8>> {
    let Item { encoding, data } = serde_json::from_str(item).ok()?;
    match &*encoding {
        "string" => Some(data.into_owned().into_bytes()),
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

/// How bytes are shown as an item; takes long to tell of long ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Text,
    /// Digits behind their mark.
    Marked,
    Binary,
}

impl Shown {
    fn of(bytes: &[u8]) -> Shown {
        if std::str::from_utf8(bytes).is_ok() {
            Shown::Text
        } else if digits_of(bytes).is_some() {
            Shown::Marked
        } else {
            Shown::Binary
        }
    }
}

/// Writes the item of some bytes.
fn put_item(pieces: &mut Pieces, bytes: &Bytes, shown: Shown) {
    let encoding = if shown == Shown::Text { "string" } else { "binary" };
    pieces.plain(format!("{{\"encoding\":\"{encoding}\",\"data\":\""));
    match shown {
        Shown::Text => pieces.escaped(bytes.clone()),
        Shown::Marked => pieces.plain(bytes.slice(1..)),
        Shown::Binary => pieces.digits(bytes.clone()),
    }
    pieces.plain(&b"\"}"[..]);
}

/// The key of an item.
fn key_of(item: &str) -> Option<Key> {
    Key::new(bytes_of(item)?).ok()
}

/// The refusal of a whole request.
fn refused(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": true, "message": message}))).into_response()
}

fn of_problem(problem: &Problem) -> Response {
    refused(problem.status, &problem.detail)
}

/// The body, which is to be a list.
async fn body_of(shared: &Shared, headers: &HeaderMap, content: Body) -> Result<Whole, Response> {
    if body::media_type(headers).as_deref() != Some("application/json") {
        return Err(refused(StatusCode::BAD_REQUEST, "the content type must be application/json"));
    }
    body::read(shared, headers, content, MAX_BODY).await.map_err(|problem| of_problem(&problem))
}

/// The list that a body is, and room for its items.
async fn list<'a>(
    shared: &Shared,
    body: &'a Whole,
) -> Result<(Vec<&'a RawValue>, Share), Response> {
    let List(items) = body::parse::<List<&RawValue>>(&body.bytes, "the body is no JSON list")
        .map_err(|problem| of_problem(&problem))?;
    if items.is_empty() {
        return Err(refused(StatusCode::BAD_REQUEST, "the list is empty"));
    }
    let room = shared.shares.items(items.len()).await.map_err(|problem| of_problem(&problem))?;
    Ok((items, room))
}

/// All went well, or a part of it.
fn partly(all: bool) -> StatusCode {
    if all { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT }
}

const ITEM: &str = "an item is {\"encoding\": \"string\" or \"binary\", \"data\": \"…\"}, binary data are 0s and 1s, and a \
                    key has 1 byte to 64 KiB";

/// `PUT /set`.
async fn set(
    Extract(shared): State,
    headers: HeaderMap,
    content: Body,
) -> Result<Response, Response> {
    let body = body_of(&shared, &headers, content).await?;
    let (items, _room) = list(&shared, &body).await?;
    let pairs: Result<Vec<Pair<'_>>, _> =
        items.iter().map(|item| serde_json::from_str(item.get())).collect();
    let text = "each entry must be {\"key\": item, \"value\": item}";
    let pairs = pairs.map_err(|_| refused(StatusCode::BAD_REQUEST, text))?;
    // Values are decoded anew as they are sent: all of them at once would be the body once more.
    let understood = |pair: &Pair<'_>| {
        let key = key_of(pair.key.get())?;
        bytes_of(pair.value.get()).map(|_| key)
    };
    let keys: Vec<Option<Key>> = pairs.iter().map(understood).collect();
    if keys.iter().all(Option::is_none) {
        return Err(refused(StatusCode::BAD_REQUEST, ITEM));
    }
    // Of two pairs with one key the later one counts, as if they had been carried out in turn.
    let last: BTreeMap<&Key, usize> =
        keys.iter().enumerate().filter_map(|(at, key)| Some((key.as_ref()?, at))).collect();
    let one = |(key, at): (Key, usize)| {
        let (client, value) = (&shared.client, pairs[at].value);
        async move {
            let content = Content::Value(bytes_of(value.get()).unwrap_or_default().into());
            let put = PreparedPut::new(key, content, Level::Quorum);
            (at, client.write(put).await.is_ok())
        }
    };
    let writes: Vec<(Key, usize)> = last.iter().map(|(key, at)| ((*key).clone(), *at)).collect();
    let stored: BTreeMap<usize, bool> =
        stream::iter(writes.into_iter().map(one)).buffer_unordered(WINDOW).collect().await;
    // A pair that a later one replaced shares its fate.
    let is_stored = |key: &Option<Key>| {
        let at = key.as_ref().and_then(|key| last.get(key));
        at.and_then(|at| stored.get(at)).is_some_and(|stored| *stored)
    };
    let failed: Vec<&RawValue> = pairs
        .iter()
        .zip(&keys)
        .filter(|(_, key)| !is_stored(key))
        .map(|(pair, _)| pair.key)
        .collect();
    let (added, status) = (pairs.len() - failed.len(), partly(failed.is_empty()));
    let failed: Vec<&str> = failed.iter().map(|key| key.get()).collect();
    let answer = format!("[{{\"keys_added\":{added},\"keys_failed\":[{}]}}]", failed.join(","));
    Ok((status, [(header::CONTENT_TYPE, JSON)], answer).into_response())
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What is there of a key; `Err`: nobody could tell.
type Found = Result<Option<(Bytes, Shown)>, ()>;

/// The keys of a request, one for each item; `None`: one of them is no item.
fn keys_of(items: &[&RawValue]) -> Option<Vec<Key>> {
    items.iter().map(|item| key_of(item.get())).collect()
}

/// What is there of each key, which is asked for once. `keep`: the values, else only whether there are any.
async fn found(
    shared: &Shared,
    keys: &[Key],
    keep: bool,
) -> Result<BTreeMap<Key, Found>, Response> {
    let distinct: BTreeSet<Key> = keys.iter().cloned().collect();
    let one = |key: Key| async move {
        let value = match shared.value(key.clone(), Level::Quorum, None).await {
            Ok(got) => Ok(got.found.map(|(_, value)| match keep {
                true => (value.clone(), Shown::of(&value)),
                false => (Bytes::new(), Shown::Text),
            })),
            Err(_) => Err(()),
        };
        (key, value)
    };
    let mut all = BTreeMap::new();
    let (mut bytes, mut reads) = (0, stream::iter(distinct.into_iter().map(one)).buffered(READS));
    while let Some((key, value)) = reads.next().await {
        bytes += value.as_ref().ok().and_then(Option::as_ref).map_or(0, |(value, _)| value.len());
        if bytes > MAX_ANSWER {
            let text = "the values are too long for one answer; ask for fewer keys at a time";
            return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        all.insert(key, value);
    }
    if all.values().all(Result::is_err) {
        let text = "none of the keys can be read now: too few servers answer";
        return Err(refused(StatusCode::SERVICE_UNAVAILABLE, text));
    }
    Ok(all)
}

/// Answers for each item with what `write` makes of what was found.
async fn look_up(
    shared: &Shared,
    headers: &HeaderMap,
    content: Body,
    keep: bool,
    write: fn(&mut Pieces, &Found),
) -> Result<Response, Response> {
    let body = body_of(shared, headers, content).await?;
    let (items, room) = list(shared, &body).await?;
    let keys = keys_of(&items).ok_or_else(|| refused(StatusCode::BAD_REQUEST, ITEM))?;
    let found = found(shared, &keys, keep).await?;
    let mut pieces = Pieces::default();
    pieces.hold(room);
    for (at, (item, key)) in items.iter().zip(&keys).enumerate() {
        let begin = if at == 0 { "[{\"key\":" } else { ",{\"key\":" };
        pieces.plain(format!("{begin}{},\"value\":", item.get()));
        write(&mut pieces, found.get(key).unwrap_or(&Err(())));
        pieces.plain(&b"}"[..]);
    }
    pieces.plain(&b"]"[..]);
    let all = found.values().all(|value| matches!(value, Ok(Some(_))));
    pieces.hold(body.into_share());
    Ok((partly(all), [(header::CONTENT_TYPE, JSON)], pieces.into_body()).into_response())
}

/// `POST /fetch`.
async fn fetch(
    Extract(shared): State,
    headers: HeaderMap,
    content: Body,
) -> Result<Response, Response> {
    let write = |pieces: &mut Pieces, found: &Found| match found {
        Ok(Some((value, shown))) => put_item(pieces, value, *shown),
        Ok(None) | Err(()) => pieces.plain(&b"{}"[..]),
    };
    look_up(&shared, &headers, content, true, write).await
}

/// `POST /query`.
async fn query(
    Extract(shared): State,
    headers: HeaderMap,
    content: Body,
) -> Result<Response, Response> {
    let write = |pieces: &mut Pieces, found: &Found| {
        let there: &'static [u8] = if matches!(found, Ok(Some(_))) { b"true" } else { b"false" };
        pieces.plain(there);
    };
    look_up(&shared, &headers, content, false, write).await
}

/// The pieces of `GET /fetch`.
struct Everything {
    scanner: Scanner,
    shared: Arc<Shared>,
    /// What is leaving now.
    pieces: Pieces,
    /// The end has been written.
    over: bool,
    any: bool,
}

impl Everything {
    /// Takes in a page.
    fn add(&mut self, entries: Vec<ScanEntry>, share: Share) {
        // A new one: its shares end with it.
        self.pieces = Pieces::default();
        self.pieces.hold(share);
        // Empty pages occur: separators belong before all entries but the first of all.
        for entry in entries {
            self.pieces.plain(if self.any { &b",\n{\"key\":"[..] } else { &b"[{\"key\":"[..] });
            self.any = true;
            let key = Bytes::copy_from_slice(entry.key.as_bytes());
            put_item(&mut self.pieces, &key, Shown::of(&key));
            self.pieces.plain(&b",\"value\":"[..]);
            put_item(&mut self.pieces, &entry.value, Shown::of(&entry.value));
            self.pieces.plain(&b"}"[..]);
        }
        if self.scanner.next().is_none() {
            self.over = true;
            self.pieces.plain(if self.any { &b"]\n"[..] } else { &b"[]\n"[..] });
        }
    }

    async fn page(&mut self) -> Result<(), Problem> {
        let share = self.shared.shares.page().await?;
        let page = self.scanner.page(PAGE).await.map_err(|error| Problem::of_read(&error))?;
        self.add(page.unwrap_or_default(), share);
        Ok(())
    }

    async fn chunk(&mut self) -> Option<std::io::Result<Bytes>> {
        loop {
            if let Some(chunk) = self.pieces.next() {
                return Some(Ok(chunk));
            }
            if self.over {
                return None;
            }
            if let Err(problem) = self.page().await {
                return Some(Err(std::io::Error::other(problem.detail)));
            }
        }
    }
}

/// `GET /fetch`: every pair of every server, streamed. If it cannot be finished, the connection breaks: a list that
/// ends as if it were whole would be a lie.
async fn fetch_all(Extract(shared): State) -> Response {
    let scanner = Scanner::unordered(shared.client.clone(), Key::bound(""), Level::Quorum);
    let pieces = Pieces::default();
    let mut all = Everything { scanner, shared, pieces, over: false, any: false };
    if let Err(problem) = all.page().await {
        return of_problem(&problem);
    }
    let chunks = stream::unfold(all, |mut all| async move { Some((all.chunk().await?, all)) });
    ([(header::CONTENT_TYPE, JSON)], Body::from_stream(chunks)).into_response()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use serde_json::Value;

    use super::*;

    fn bytes_of(item: &Value) -> Option<Vec<u8>> {
        super::bytes_of(&item.to_string())
    }

    fn item_of(bytes: &[u8]) -> Value {
        let mut pieces = Pieces::default();
        put_item(&mut pieces, &Bytes::copy_from_slice(bytes), Shown::of(bytes));
        let text: Vec<u8> = std::iter::from_fn(|| pieces.next()).flatten().collect();
        serde_json::from_slice(&text).unwrap()
    }

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
        assert_eq!(key_of(&json!({"encoding": "string", "data": ""}).to_string()), None);
    }
}
