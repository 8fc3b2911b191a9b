//! Bytes of a connection.

use bytes::BytesMut;

use crate::model::{
    Cell, ClientRequest, Content, InspectSource, Key, Level, PeerRequest, PreparedPut, Read,
    ServerId, Version,
};
use crate::wire::{
    Call, Format, Framing, MessageReader, Protocol, Sequence, decode_call, decode_reply,
    encode_call,
};

/// The first byte says which format; the rest is what the peer sends.
fn split(data: &[u8]) -> Option<(Format, &[u8])> {
    let (first, rest) = data.split_first()?;
    Some((Format::ALL[usize::from(first % 4)], rest))
}

/// The messages of a connection whose bytes arrive in pieces of this size, and whether it could go on at the end.
fn read(format: Format, bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, bool) {
    let mut reader = MessageReader::new(format);
    let mut buffer = BytesMut::new();
    let mut messages = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match reader.next(&mut buffer) {
                Ok(Some(message)) => messages.push(message.to_vec()),
                Ok(None) => break,
                Err(_) => return (messages, false),
            }
        }
    }
    (messages, true)
}

/// A connection's bytes are cut into the same messages however they arrive.
pub(super) fn frames(data: &[u8]) {
    let Some((format, bytes)) = split(data) else { return };
    let whole = read(format, bytes, bytes.len());
    assert_eq!(read(format, bytes, 1), whole);
    assert_eq!(read(format, bytes, 7), whole);
}

/// What is understood of a message can be said again, in the other protocol too, and is understood as the same.
pub(super) fn messages(data: &[u8]) {
    let Some((format, bytes)) = split(data) else { return };
    let protocol = format.protocol;
    for message in read(format, bytes, bytes.len()).0 {
        let _ = decode_reply(protocol, message.clone().into());
        let Ok(request) = decode_call(protocol, message.into()) else { continue };
        let Ok(call) = &request.call else { continue };
        for protocol in [Protocol::Binary, Protocol::Compact] {
            let format = Format { framing: Framing::Unframed, protocol };
            let mut out = BytesMut::new();
            // Longer than a frame may be, in this protocol.
            let Ok(_) = encode_call(format, request.sequence, call, &mut out) else { continue };
            let again = decode_call(protocol, out.freeze());
            let again = again.unwrap_or_else(|error| panic!("{call:?}: {error}"));
            assert_eq!(again.call.as_ref(), Ok(call));
            assert_eq!(again.sequence, request.sequence);
        }
    }
}

/// A few calls of each kind, in every format.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let key = || Key::bound("137");
    let put = PreparedPut {
        key: key(),
        content: Content::Value("a value".into()),
        level: Level::Quorum,
        timeout: None,
        ticket: Some(Version::ZERO),
        after: None,
    };
    let cell = Cell { version: Version::ZERO, content: Content::Tombstone };
    let calls = [
        Call::Client(ClientRequest::Put(put.clone())),
        Call::Client(ClientRequest::Put(PreparedPut { content: Content::Tombstone, ..put })),
        Call::Client(ClientRequest::Get { key: key(), level: Level::One, timeout: None }),
        Call::Client(ClientRequest::Inspect {
            source: InspectSource::HintsFor(ServerId(2)),
            from: key(),
            limit: 9,
        }),
        Call::Client(ClientRequest::Status),
        Call::Session { answers_as_ready: true },
        Call::Peer(PeerRequest::Read(Read {
            key: key(),
            epoch: Default::default(),
            with_value: true,
        })),
        Call::Peer(PeerRequest::Store { key: key(), epoch: Default::default(), cell }),
    ];
    let mut seeds = Vec::new();
    for (number, format) in Format::ALL.into_iter().enumerate() {
        for call in &calls {
            let mut out = BytesMut::new();
            if encode_call(format, Sequence(7), call, &mut out).is_ok() {
                let mut seed = vec![number as u8];
                seed.extend_from_slice(&out);
                seeds.push(seed);
            }
        }
    }
    seeds
}
