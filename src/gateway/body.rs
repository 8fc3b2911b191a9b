//! Bodies of requests, under bounds.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::BytesMut;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::{SeqAccess, Visitor};
use tokio::time::Instant;

use super::Shared;
use super::problem::Problem;
use crate::budget::{SHORT, Share};

/// For a body to come, as a whole.
const TIME: Duration = Duration::from_secs(30);
/// How often it is looked whether it comes at all.
const LOOK: Duration = Duration::from_secs(5);
/// Bytes that must come between two looks.
const LEAST: usize = 64 << 10;
/// Items of a list at most.
pub(super) const MAX_ITEMS: usize = 10_000;

/// A whole body, and its share of the byte budget.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    share: Share,
}

impl Whole {
    /// The share alone: parts of the body are still in hand.
    pub(super) fn into_share(self) -> Share {
        self.share
    }
}

/// Reads a body of at most `most` bytes.
pub(super) async fn read(
    shared: &Shared,
    headers: &HeaderMap,
    mut body: Body,
    most: usize,
) -> Result<Whole, Problem> {
    let too_long = || Problem::too_long(format!("the body is too long; at most {most} bytes"));
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let announced: Option<usize> = announced.and_then(|text| text.parse().ok());
    if announced.is_some_and(|length| length > most) {
        return Err(too_long());
    }
    // Shares are taken whole and before the body is read, so that two half bodies never wait for each other's. One of
    // unknown length counts as short until it is not.
    let mut share = shared.shares.body(announced.unwrap_or(SHORT.min(most))).await?;
    let mut bytes = BytesMut::with_capacity(announced.unwrap_or_default());
    let end = Instant::now() + TIME;
    let (mut look, mut moved) = (Instant::now() + LOOK, 0);
    loop {
        let frame = tokio::time::timeout_at(look.min(end), body.frame()).await;
        if Instant::now() >= look.min(end) {
            if moved < LEAST || Instant::now() >= end {
                return Err(slow());
            }
            (look, moved) = (Instant::now() + LOOK, 0);
        }
        let frame = match frame {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                return Err(Problem::invalid(format!("the body cannot be read: {error}")));
            }
            Ok(None) => break,
            Err(_) => continue,
        };
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(too_long());
        }
        if bytes.len() + data.len() > share.bytes() {
            share = shared.shares.body(most).await?;
        }
        moved += data.len();
        bytes.extend_from_slice(&data);
    }
    Ok(Whole { bytes: bytes.freeze(), share })
}

fn slow() -> Problem {
    let detail = format!(
        "the body comes too slowly: send at least {} KiB in {} s, and all of it within {} s",
        LEAST >> 10,
        LOOK.as_secs(),
        TIME.as_secs()
    );
    Problem::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "Slow body", detail)
}

/// A list of at most [`MAX_ITEMS`] items: each of two bytes becomes many more once it is parsed.
#[derive(Debug)]
pub(super) struct List<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<List<T>, D::Error> {
        struct Items<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = List<T>;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(out, "a list of at most {MAX_ITEMS} items")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<List<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    if list.len() == MAX_ITEMS {
                        return Err(serde::de::Error::custom(TOO_MANY));
                    }
                    list.push(item);
                }
                Ok(List(list))
            }
        }
        from.deserialize_seq(Items(std::marker::PhantomData))
    }
}

const TOO_MANY: &str = "there are too many items; send at most 10000 at a time";

/// A body as JSON.
pub(super) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], not: &str) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        if error.to_string().starts_with(TOO_MANY) {
            return Problem::too_long(TOO_MANY.to_owned());
        }
        Problem::invalid(format!("{not}: {error}"))
    })
}

/// The media type, without its parameters, in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next()?.trim().to_ascii_lowercase())
}
