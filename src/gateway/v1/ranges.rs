//! Keys in order, streamed page by page: an answer of any length needs the memory of one page.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};

use super::super::pieces::Pieces;
use super::super::problem::Problem;
use super::super::words::{Fields, MANNER, Manner, encode};
use super::super::{Shared, State};
use crate::budget::Share;
use crate::client::Scanner;
use crate::client::record::json_parts;
use crate::client::show::time;
use crate::model::{Key, ScanEntry};

/// Entries that are answered where no limit is given.
const DEFAULT_LIMIT: usize = 100;
/// Entries that one request may ask for.
const MAX_LIMIT: usize = 10_000_000;
/// Entries asked of the cluster at once.
const PAGE: usize = 1_000;

const PARAMETERS: [&str; 6] = ["from", "to", "limit", "order", MANNER[0], MANNER[1]];

/// How the entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// One object: `entries`, and `next` if there is more.
    Object,
    /// One entry a line; a last line with `next` if there is more.
    Lines,
}

/// A stream of pages.
struct Listing {
    shared: Arc<Shared>,
    scanner: Scanner,
    /// The page that was fetched before the answer began, so that what is wrong with the whole has its own status.
    first: Option<(Vec<ScanEntry>, Share)>,
    /// What is leaving now.
    pieces: Pieces,
    form: Form,
    left: usize,
    written: usize,
    over: bool,
    /// The parameters of the next request, without `from`.
    same: String,
}

/// `GET /v1/keys`.
pub(super) async fn list(
    Extract(shared): State,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let fields = Fields::of(&uri)?;
    fields.allow(&PARAMETERS)?;
    let Manner { level, timeout, .. } = Manner::of(&fields, &headers)?;
    let limit = fields.number("limit", MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let bound = |name: &str| fields.get(name).map(|bytes| Key::bound(bytes.to_vec()));
    let (from, to) = (bound("from").unwrap_or_else(|| Key::bound("")), bound("to"));
    let scanner = match fields.text("order")? {
        None | Some("key") => Scanner::ordered(shared.client.clone(), from, to, level),
        Some("any") if to.is_none() => Scanner::unordered(shared.client.clone(), from, level),
        Some("any") => return Err(Problem::invalid("order=any goes to the end; leave out 'to'")),
        Some(other) => {
            return Err(Problem::invalid(format!("order is '{other}'; write key or any")));
        }
    };
    let mut scanner = scanner.with_timeout(timeout);
    let share = shared.shares.page().await?;
    let first = scanner.page(limit.min(PAGE)).await.map_err(|error| Problem::of_read(&error))?;
    let first = first.map(|first| (first, share));
    let lines = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let lines = lines.is_some_and(|accept| accept.contains("application/x-ndjson"));
    let (form, kind) = match lines {
        true => (Form::Lines, "application/x-ndjson"),
        false => (Form::Object, "application/json"),
    };
    let same = PARAMETERS[1..]
        .iter()
        .filter_map(|name| Some(format!("&{name}={}", encode(fields.get(name)?))));
    let same = same.collect();
    let (pieces, left) = (Pieces::default(), limit);
    let listing =
        Listing { shared, scanner, first, pieces, form, left, written: 0, over: false, same };
    let chunks = stream::unfold(listing, |mut listing| async {
        let chunk = listing.chunk().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), listing))
    });
    let kind = HeaderValue::from_static(kind);
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(chunks)).into_response())
}

impl Listing {
    /// The next piece of the answer; `None` after the last.
    async fn chunk(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.pieces.next() {
                return Some(chunk);
            }
            if self.over {
                return None;
            }
            self.page().await;
        }
    }

    /// Makes pieces of the next page.
    async fn page(&mut self) {
        // A new one: its share ends with it.
        self.pieces = Pieces::default();
        if self.form == Form::Object && self.written == 0 && self.first.is_some() {
            self.pieces.plain("{\"entries\":[");
        }
        let mut failed = None;
        match self.fetch().await {
            Ok(Some((entries, share))) => {
                self.pieces.hold(share);
                for entry in &entries {
                    self.entry(entry);
                }
                self.left = self.left.saturating_sub(entries.len());
            }
            Ok(None) => {}
            Err(problem) => failed = Some(problem),
        }
        if failed.is_some() || self.left == 0 || self.scanner.next().is_none() {
            self.over = true;
            let mut out = Vec::new();
            self.end(failed.as_ref(), &mut out);
            self.pieces.plain(out);
        }
    }

    async fn fetch(&mut self) -> Result<Option<(Vec<ScanEntry>, Share)>, Problem> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let share = self.shared.shares.page().await?;
        let page = self.scanner.page(self.left.min(PAGE)).await;
        let page = page.map_err(|error| Problem::of_read(&error))?;
        Ok(page.map(|page| (page, share)))
    }

    /// An entry: text where it is, else base64 under another name.
    fn entry(&mut self, entry: &ScanEntry) {
        let begin = if self.form == Form::Object && self.written > 0 { ",{" } else { "{" };
        self.pieces.plain(begin);
        self.pieces.member("key", Bytes::copy_from_slice(entry.key.as_bytes()));
        self.pieces.plain(",");
        self.pieces.member("value", entry.value.clone());
        let (version, time) = (entry.version, time(entry.version.time));
        let end = if self.form == Form::Lines { "}\n" } else { "}" };
        self.pieces.plain(format!(",\"version\":\"{version}\",\"time\":\"{time}\"{end}"));
        self.written += 1;
    }

    /// Where to go on, and why this is not all.
    fn end(&self, failed: Option<&Problem>, out: &mut Vec<u8>) {
        let next = self
            .scanner
            .next()
            .map(|next| json!(format!("/v1/keys?from={}{}", encode(next.as_bytes()), self.same)));
        let problem = failed.map(Problem::json);
        let said = [("next", next), ("problem", problem)];
        let said = said.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let said: serde_json::Map<String, Value> =
            said.map(|(name, value)| (name.to_owned(), value)).collect();
        match self.form {
            Form::Object => {
                out.push(b']');
                for (name, value) in said {
                    out.extend(format!(",\"{name}\":{value}").bytes());
                }
                out.extend(b"}\n");
            }
            Form::Lines if said.is_empty() => {}
            Form::Lines => out.extend(format!("{}\n", Value::Object(said)).bytes()),
        }
    }
}

/// Bytes under `name`, or in base64 under `name_base64`.
pub(in super::super) fn put_bytes(
    object: &mut serde_json::Map<String, Value>,
    name: &str,
    bytes: &[u8],
) {
    match json_parts(bytes) {
        (Some(text), _) => object.insert(name.to_owned(), json!(text)),
        (None, base64) => object.insert(format!("{name}_base64"), json!(base64)),
    };
}
