//! Our own words: `/v1/…`.
//!
//! A key is the rest of the path, any bytes, percent-encoded; a value is the raw body. Level, deadline and ticket come
//! as parameters or headers. The ETag changes with version and value. What goes wrong is a problem (RFC 9457) that says of a write
//! whether it was stored.

mod about;
mod batch;
mod keys;
mod ranges;

use axum::routing::{get, post};

pub(super) use self::keys::unexpected;
pub(super) use self::ranges::put_bytes;
use super::Route;

/// What the document of the API says; a test holds it against the routes.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

pub(super) fn routes() -> Vec<Route> {
    let key = || get(keys::get).put(keys::put).delete(keys::delete);
    vec![
        ("/v1/keys", &["GET", "HEAD"], get(ranges::list)),
        // The empty key, which is refused in words.
        ("/v1/keys/", &["GET", "HEAD", "PUT", "DELETE"], key()),
        ("/v1/keys/{*key}", &["GET", "HEAD", "PUT", "DELETE"], key()),
        ("/v1/batch/get", &["POST"], post(batch::get)),
        ("/v1/batch/put", &["POST"], post(batch::put)),
        ("/v1/status", &["GET", "HEAD"], get(about::status)),
        ("/v1/topology", &["GET", "HEAD"], get(about::topology)),
        ("/health", &["GET", "HEAD"], get(about::health)),
        ("/livez", &["GET", "HEAD"], get(about::health)),
        ("/ready", &["GET", "HEAD"], get(about::ready)),
        ("/readyz", &["GET", "HEAD"], get(about::ready)),
        ("/openapi.json", &["GET", "HEAD"], get(about::openapi)),
    ]
}
