//! How a call ends that has not succeeded, for a client.

use crate::model::Version;
use crate::wire::{FailureCode, RemoteFailure};

/// Why a call has not succeeded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A server says no, for certain: nothing was stored, and nothing will be.
    #[error("{0}")]
    Refused(RemoteFailure),
    /// Of a write: it may have taken effect, may do so later, or never.
    #[error("{why}")]
    Unknown {
        /// What happened.
        why: String,
        /// Sending the same write again under it is safe.
        ticket: Option<Version>,
    },
    /// Of a read: no answer.
    #[error("{why}")]
    Unanswered {
        /// What happened.
        why: String,
    },
    /// No server could be reached: nothing was sent.
    #[error(
        "no server can be reached: {tried}; start one with ./server.sh, or name one with --server"
    )]
    Unreachable {
        /// Addresses and what came of each.
        tried: String,
    },
}

impl Error {
    /// Is it certain that nothing was stored and nothing will be?
    pub fn is_definite(&self) -> bool {
        match self {
            Error::Refused(_) | Error::Unanswered { .. } | Error::Unreachable { .. } => true,
            Error::Unknown { .. } => false,
        }
    }

    /// May the same call be made again without the risk that it takes effect twice?
    pub fn may_retry(&self) -> bool {
        match self {
            Error::Refused(failure) => failure.may_retry(),
            Error::Unknown { .. } => false,
            Error::Unanswered { .. } | Error::Unreachable { .. } => true,
        }
    }

    /// What a program that ends with it exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Refused(failure) => match failure.code {
                FailureCode::Unavailable => 3,
                FailureCode::TimedOut if failure.not_stored => 3,
                FailureCode::InvalidRequest | FailureCode::Overloaded => 5,
                FailureCode::TimedOut | FailureCode::Other(_) => 4,
            },
            Error::Unknown { .. } | Error::Unanswered { .. } => 4,
            Error::Unreachable { .. } => 6,
        }
    }
}
