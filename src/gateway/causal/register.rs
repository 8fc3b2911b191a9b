//! Reads and writes under a payload. See the module above for the rules and why they suffice.

use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::join_all;

use super::super::Shared;
use super::Failure;
use super::payload::Payload;
use crate::client::Error;
use crate::model::{
    Cell, ClientRequest, ClientResponse, Content, Key, Level, PreparedPut, ServerId, Version,
};

/// For a majority to answer, before ONE takes its place. A server is known to be silent after less.
const MAJORITY: Duration = Duration::from_millis(1_500);
/// For a single replica to answer.
const SINGLE: Duration = Duration::from_millis(1_000);

/// What a key holds, tombstones included; `None`: it was never written.
type Found = Option<(Version, Content)>;

fn unreachable(what: &str, error: &Error) -> Failure {
    Failure(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("the key's partition is unreachable: {what}: {error}"),
    )
}

/// The payload knows of more than can be found.
fn behind() -> Failure {
    Failure(
        StatusCode::SERVICE_UNAVAILABLE,
        "what the causal payload has seen cannot be found now: a replica is out of reach; try again".to_owned(),
    )
}

fn version_of(found: &Found) -> Version {
    found.as_ref().map_or(Version::ZERO, |(version, _)| *version)
}

fn get(key: &Key, level: Level, timeout: Duration) -> ClientRequest {
    ClientRequest::Get { key: key.clone(), level, timeout: Some(timeout) }
}

fn found_in(response: ClientResponse) -> Result<Found, Error> {
    match response {
        ClientResponse::Get { cell, .. } => {
            Ok(cell.map(|Cell { version, content }| (version, content)))
        }
        other => Err(Error::Unanswered { why: format!("an unexpected answer: {other:?}") }),
    }
}

/// Reads not less than the payload has seen, and adds to the payload what was read.
pub(super) async fn read(
    shared: &Shared,
    key: &Key,
    payload: &mut Payload,
) -> Result<Found, Failure> {
    let (found, held) = find(shared, key, payload).await?;
    let version = version_of(&found);
    if !version.is_zero() {
        payload.read(key, version, held);
    }
    Ok(found)
}

/// What is found, and whether a majority holds it.
async fn find(shared: &Shared, key: &Key, payload: &Payload) -> Result<(Found, bool), Failure> {
    let own = payload.of(key).map_or(Version::ZERO, |seen| seen.version);
    let level = |level| async move {
        let answered = shared.client.read(get(key, level, MAJORITY)).await?;
        found_in(answered.response)
    };
    match level(Level::Quorum).await {
        Ok(found) => {
            let version = version_of(&found);
            if version >= own && (payload.weak.is_zero() || version >= payload.weak) {
                return Ok((found, true));
            }
            // There may be more where a majority did not look.
            match level(Level::All).await {
                Ok(found) if version_of(&found) >= own => Ok((found, true)),
                Ok(_) | Err(_) => Err(behind()),
            }
        }
        Err(error @ Error::Refused(_)) if !error.may_retry() => {
            Err(Failure(StatusCode::BAD_REQUEST, error.to_string()))
        }
        Err(error) => {
            let found = newest(shared, key).await.ok_or_else(|| unreachable("read", &error))?;
            let version = version_of(&found);
            let needed = own.max(payload.floor).max(payload.weak);
            if version >= needed { Ok((found, false)) } else { Err(behind()) }
        }
    }
}

/// The newest that any replica within reach holds; `None`: there is none within reach.
async fn newest(shared: &Shared, key: &Key) -> Option<Found> {
    let table = shared.client.table().await.ok()?;
    let status = super::own_status(shared).await.ok()?;
    let near = |replica: &ServerId| {
        *replica == status.server
            || status.peers.iter().any(|peer| peer.server == *replica && peer.alive)
    };
    let one = |replica: ServerId| async move {
        let request = get(key, Level::One, SINGLE);
        let answered = shared.client.read_at(replica, request).await.ok()?;
        found_in(answered.response).ok()
    };
    let replicas = table.replicas(key).iter().copied().filter(near);
    let answers = join_all(replicas.map(one)).await;
    answers.into_iter().flatten().max_by_key(version_of)
}

/// Writes over all that the payload has seen, and adds the write to it.
pub(super) async fn write(
    shared: &Shared,
    key: &Key,
    content: Content,
    payload: &mut Payload,
) -> Result<Version, Failure> {
    let after = payload.after();
    let mut write = PreparedPut {
        after,
        timeout: Some(MAJORITY),
        ..PreparedPut::new(key.clone(), content, Level::Quorum)
    };
    let first = shared.client.write(write.clone()).await;
    let (answered, held) = match first {
        Ok(answered) => (answered, true),
        Err(error @ Error::Refused(_)) if !error.may_retry() => {
            return Err(Failure(StatusCode::BAD_REQUEST, error.to_string()));
        }
        Err(error) => {
            // The very same write if the first attempt may have arrived, else a new one.
            write.ticket = match &error {
                Error::Unknown { ticket: None, .. } => return Err(unknown(&error)),
                Error::Unknown { ticket, .. } => *ticket,
                _ => None,
            };
            write.level = Level::One;
            match shared.near.write(write).await {
                Ok(answered) => (answered, false),
                Err(error @ Error::Unknown { .. }) => return Err(unknown(&error)),
                Err(error) => return Err(unreachable("nothing was stored", &error)),
            }
        }
    };
    let ClientResponse::Put { version, .. } = answered.response else {
        return Err(Failure(StatusCode::BAD_GATEWAY, "an unexpected answer".to_owned()));
    };
    payload.wrote(key, version, held);
    Ok(version)
}

fn unknown(error: &Error) -> Failure {
    Failure(
        StatusCode::GATEWAY_TIMEOUT,
        format!("{error}; it may or may not have been stored: read the key to know"),
    )
}
