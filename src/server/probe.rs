//! Asks a server how it is, as scripts need it: one line, one exit code.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::BytesMut;

use crate::model::{ClientRequest, ClientResponse, Status};
use crate::wire::{self, Call, Format, MessageReader, Reply, Sequence, decode_reply, encode_call};

/// For connecting, and for each read of the answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The connection.
    #[error("no answer from {address}: {source}")]
    Io {
        /// Who was asked.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes.
    #[error("{address} does not answer as a Chord server does: {source}")]
    Wire {
        /// Who was asked.
        address: String,
        /// What is wrong with them.
        source: wire::Error,
    },
    /// Another answer.
    #[error("{address} answers something else than its status")]
    Other {
        /// Who was asked.
        address: String,
    },
}

/// The status of the server at `address` (host and port). Blocks for a few seconds at most.
pub fn probe(address: &str) -> Result<Status, ProbeError> {
    let failed = |source| ProbeError::Io { address: address.to_owned(), source };
    let garbled = |source| ProbeError::Wire { address: address.to_owned(), source };
    let target = address.to_socket_addrs().map_err(failed)?.next();
    let target = target.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let mut stream = TcpStream::connect_timeout(&target, TIMEOUT).map_err(failed)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
    let mut bytes = BytesMut::new();
    let call = Call::Client(ClientRequest::Status);
    encode_call(Format::NATIVE, Sequence(1), &call, &mut bytes).map_err(garbled)?;
    stream.write_all(&bytes).map_err(failed)?;
    let (mut reader, mut input, mut chunk) =
        (MessageReader::new(Format::NATIVE), BytesMut::new(), [0; 4096]);
    let message = loop {
        if let Some(message) = reader.next(&mut input).map_err(garbled)? {
            break message;
        }
        match stream.read(&mut chunk).map_err(failed)? {
            0 => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
            count => input.extend_from_slice(&chunk[..count]),
        }
    };
    match decode_reply(Format::NATIVE.protocol, message).map_err(garbled)? {
        (_, Reply::Client { result: Ok(ClientResponse::Status(status)), .. }) => Ok(*status),
        _ => Err(ProbeError::Other { address: address.to_owned() }),
    }
}
