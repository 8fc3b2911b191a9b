//! Why a server ends badly.

use std::io;
use std::path::PathBuf;

use super::lock::LockError;
use crate::storage::OpenError;

/// Why a server could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data folder is in use, or cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The address is in use, or not of this machine.
    #[error("cannot listen on {address}: {source}; {}", advice(source))]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The data folder cannot be opened.
    #[error("data folder {} cannot be opened: {source}", folder.display())]
    Open {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// The system gives no random numbers, threads or event queue.
    #[error("the system refuses {what}: {source}; look at its limits")]
    System {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The node has stopped: the storage can no longer be trusted.
    #[error(
        "stopped: {reason}; look at the disk, then start the server again: it recovers what is durable"
    )]
    Stopped {
        /// Its words.
        reason: String,
    },
    /// A task has panicked.
    #[error(
        "stopped by a bug: {message}; please report it with the log; the data is safe, start again"
    )]
    Bug {
        /// Of the panic.
        message: String,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is taken: stop what listens there, or use another",
        io::ErrorKind::AddrNotAvailable => "the address must be one of this machine",
        io::ErrorKind::PermissionDenied => "ports below 1024 need privileges: use a higher one",
        _ => "check the address",
    }
}
