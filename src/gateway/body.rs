//! Bodies of requests, under bounds.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use super::problem::Problem;

/// For a body to come.
const TIME: Duration = Duration::from_secs(30);
/// For other bodies to make room.
const ROOM: Duration = Duration::from_secs(5);

/// A whole body, and its share of the byte budget.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

/// Reads a body of at most `most` bytes.
pub(super) async fn read(
    shared: &Arc<Shared>,
    headers: &HeaderMap,
    body: Body,
    most: usize,
) -> Result<Whole, Problem> {
    let too_long = || Problem::too_long(format!("the body is too long; at most {most} bytes"));
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let announced: Option<usize> = announced.and_then(|text| text.parse().ok());
    if announced.is_some_and(|length| length > most) {
        return Err(too_long());
    }
    // Shares are taken whole and before the body is read, so that two half bodies never wait for each other's.
    let share = announced.unwrap_or(most) as u32;
    let room = Arc::clone(&shared.bytes).acquire_many_owned(share);
    let busy = || Problem::busy("too many long requests at a time; nothing was stored".to_owned());
    let share = match tokio::time::timeout(ROOM, room).await {
        Ok(Ok(share)) => share,
        Ok(Err(_)) | Err(_) => return Err(busy()),
    };
    match tokio::time::timeout(TIME, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(Whole { bytes: body.to_bytes(), _share: share }),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(error)) => Err(Problem::invalid(format!("the body cannot be read: {error}"))),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow-body",
            "Slow body",
            format!("the body has not come within {} s", TIME.as_secs()),
        )),
    }
}

/// The media type, without its parameters, in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next()?.trim().to_ascii_lowercase())
}
