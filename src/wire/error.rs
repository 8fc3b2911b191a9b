//! Why a connection, or a call, cannot go on.

use super::MAX_FRAME_LENGTH;

/// The connection cannot go on: what follows cannot be told apart any more, or cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A frame or message is longer than allowed.
    #[error("a message of {length} bytes is longer than the {MAX_FRAME_LENGTH} allowed")]
    FrameTooLong {
        /// As it claims, or as it has grown.
        length: u64,
    },
    /// Structs, lists and maps within each other.
    #[error("a message is nested deeper than the {most} levels allowed")]
    TooDeep {
        /// Levels allowed.
        most: usize,
    },
    /// A list, set or map with more elements than allowed.
    #[error("a list or map of {elements} elements is longer than the {most} allowed")]
    ContainerTooLong {
        /// As it claims.
        elements: u64,
        /// Elements allowed.
        most: u64,
    },
    /// Bytes that the protocol does not know.
    #[error("the message is malformed: {what}")]
    Malformed {
        /// What was wrong.
        what: &'static str,
    },
    /// The Thrift library could not read or write it.
    #[error("the message cannot be read: {0}")]
    Thrift(#[from] thrift::Error),
    /// A call where an answer should be, or an answer of another kind.
    #[error("an unexpected message '{name}'")]
    Unexpected {
        /// Its method.
        name: String,
    },
}
