//! The original program's calls: generated types to ours and back.

use chord_gen as wire;

use super::{CallError, OriginalAnswer, OriginalCall, original};
use crate::model::Level;

/// What `status` says.
const SUCCESS: &str = "SUCCESS";
const FAIL: &str = "FAIL";

fn bad() -> CallError {
    CallError::Application(original::BAD_REQUEST.to_owned())
}

/// The number and the level, as the original wrote them and not otherwise.
fn request_in(request: &wire::ClientRequest) -> Option<(u8, Level, Option<String>)> {
    let level = match request.const_level.as_deref()? {
        "ONE" => Level::One,
        "QUORUM" => Level::Quorum,
        _ => return None,
    };
    let kv = request.kv.as_ref()?;
    let number = u8::try_from(kv.key?).ok()?;
    Some((number, level, kv.value.clone()))
}

pub(super) fn get_in(request: Option<wire::ClientRequest>) -> Result<OriginalCall, CallError> {
    let (number, level, _) = request.as_ref().and_then(request_in).ok_or_else(bad)?;
    Ok(OriginalCall::Get { number, level })
}

pub(super) fn put_in(request: Option<wire::ClientRequest>) -> Result<OriginalCall, CallError> {
    match request.as_ref().and_then(request_in) {
        Some((number, level, Some(value))) => {
            Ok(OriginalCall::Put { number, value: value.into(), level })
        }
        Some((_, _, None)) | None => Err(bad()),
    }
}

pub(super) fn request_out(number: u8, value: Option<&[u8]>, level: Level) -> wire::ClientRequest {
    let value = value.map(|value| String::from_utf8_lossy(value).into_owned());
    wire::ClientRequest {
        const_level: Some(level.name().to_owned()),
        kv: Some(wire::KV { key: Some(number.into()), value, time: None }),
    }
}

/// `None` for an answer that is no [`wire::ServerResponse`].
pub(super) fn response_out(answer: &OriginalAnswer) -> Option<wire::ServerResponse> {
    let (status, number, value, time) = match answer {
        OriginalAnswer::Held { number, value, time } => {
            (SUCCESS, *number, Some(String::from_utf8_lossy(value).into_owned()), Some(*time))
        }
        OriginalAnswer::NotFound { number } => (FAIL, *number, None, None),
        OriginalAnswer::Text(_) | OriginalAnswer::Number(_) => return None,
    };
    let kv = wire::KV { key: Some(number.into()), value, time };
    Some(wire::ServerResponse { status: Some(status.to_owned()), kv: Some(kv) })
}

pub(super) fn response_in(response: wire::ServerResponse) -> Option<OriginalAnswer> {
    let kv = response.kv?;
    let number = u8::try_from(kv.key?).ok()?;
    match (response.status?.as_str(), kv.value, kv.time) {
        (SUCCESS, Some(value), Some(time)) => {
            Some(OriginalAnswer::Held { number, value: value.into(), time })
        }
        (FAIL, _, _) => Some(OriginalAnswer::NotFound { number }),
        (_, _, _) => None,
    }
}
