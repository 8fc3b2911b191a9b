//! What went wrong, as RFC 9457 (*Problem Details for HTTP APIs*) has it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::client::Error;
use crate::client::show::reached_json;
use crate::model::Reached;
use crate::wire::FailureCode;

/// A problem. `outcome` says of a write what has become of it; the numbers are those of a consistency error.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) title: &'static str,
    #[serde(serialize_with = "as_number")]
    pub(super) status: StatusCode,
    pub(super) detail: String,
    #[serde(flatten)]
    pub(super) more: Box<More>,
}

/// What is known in some cases.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct More {
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    /// The same request with it in `Chord-Ticket` is safe.
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alive: Option<usize>,
    /// Of what is not found at AVAILABLE.
    #[serde(skip_serializing_if = "Option::is_none")]
    reached: Option<serde_json::Value>,
}

fn as_number<S: serde::Serializer>(status: &StatusCode, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_u16(status.as_u16())
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        name: &str,
        title: &'static str,
        detail: String,
    ) -> Problem {
        let kind = format!("urn:chord:problem:{name}");
        Problem { kind, title, status, detail, more: Box::default() }
    }

    /// The request makes no sense.
    pub(super) fn invalid(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "invalid-request", "Invalid request", detail.into())
    }

    pub(super) fn not_found(name: &str, detail: String) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, name, "Not found", detail)
    }

    pub(super) fn method(detail: String) -> Problem {
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no-such-method", "No such method", detail)
    }

    pub(super) fn too_long(detail: String) -> Problem {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-long", "Too long", detail)
    }

    pub(super) fn busy(detail: String) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Overloaded", detail)
    }

    /// Of a read.
    pub(super) fn of_read(error: &Error) -> Problem {
        let unavailable = |detail| {
            let title = "Not enough replicas alive";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", title, detail)
        };
        let detail = error.to_string();
        match error {
            Error::Refused(failure) => {
                let mut problem = match failure.code {
                    FailureCode::InvalidRequest => Problem::invalid(detail),
                    FailureCode::Overloaded => Problem::busy(detail),
                    FailureCode::Unavailable => unavailable(detail),
                    FailureCode::TimedOut if failure.not_stored => unavailable(detail),
                    FailureCode::TimedOut | FailureCode::Other(_) => Problem::silent(detail),
                };
                problem.more.level = failure.level.map(|level| level.name());
                problem.more.required = failure.required;
                problem.more.alive = failure.alive;
                problem
            }
            Error::Unanswered { .. } => Problem::silent(detail),
            Error::Unreachable { .. } => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unreachable",
                "No server can be reached",
                detail,
            ),
            Error::Unknown { ticket, .. } => {
                let mut problem = Problem::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "unknown",
                    "Outcome unknown",
                    format!("{detail}; it may or may not have been stored"),
                );
                problem.more.ticket = ticket.map(|ticket| ticket.to_string());
                problem
            }
        }
    }

    /// Of a write: also says what has become of it.
    pub(super) fn of_write(error: &Error) -> Problem {
        let outcome = if error.is_definite() { "not_stored" } else { "unknown" };
        Problem::of_read(error).with_outcome(outcome)
    }

    /// What a read at AVAILABLE has had that has found nothing.
    pub(super) fn with_reached(mut self, reached: Option<Reached>) -> Problem {
        self.more.reached = reached.map(|reached| reached_json(&reached));
        self
    }

    /// Nothing of it was stored.
    pub(super) fn not_stored(self) -> Problem {
        self.with_outcome("not_stored")
    }

    fn with_outcome(mut self, outcome: &'static str) -> Problem {
        self.more.outcome = Some(outcome);
        self
    }

    fn silent(detail: String) -> Problem {
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "no-answer", "No answer in time", detail)
    }

    pub(super) fn json(&self) -> serde_json::Value {
        // Strings and numbers: that cannot fail.
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.json().to_string();
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (self.status, [(header::CONTENT_TYPE, kind)], body).into_response();
        if self.kind.ends_with(":overloaded") {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
