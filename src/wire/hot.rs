//! The calls that come by the thousand, written and read by hand: puts, gets, and what servers ask each other for them.
//!
//! The generated code makes a struct of owned vectors first and writes it field by field through a trait object; here the
//! bytes of the strict binary protocol are put down, and picked up, where they are. What is written is byte for byte what the
//! generated code writes. What is read is only what we, and every Thrift library that writes fields in the order of their
//! numbers, would write; on anything else, and on anything that must be refused, reading here gives up and the generated
//! code says what there is to say. Both are properties in `tests.rs`.
//!
//! Short keys and values are copied out of the message, both into one piece of memory: they would keep the whole buffer of the
//! connection alive. Long ones are slices of it, for then they are most of it.

use bytes::{BufMut, Bytes, BytesMut};

use super::client::{level_out, timeout_out, version_out};
use super::peer::{disk_in, disk_out, incarnation_out};
use super::{Answer, Call, Framing, MAX_FRAME_LENGTH, Method, Protocol, Reply, Request, Sequence};
use super::{Format, client};
use crate::model::{
    Cell, Checksum, ClientRequest, ClientResponse, Content, Epoch, Incarnation, Key, Level,
    MAX_PLACE_LENGTH, MAX_VALUE_LENGTH, PeerAnswer, PeerReply, PeerRequest, PreparedPut, Read,
    Sender, ServerId, Version,
};

// Thrift's numbers for types and kinds of messages.
const STOP: u8 = 0;
const BOOL: u8 = 2;
const I32: u8 = 8;
const I64: u8 = 10;
const BINARY: u8 = 11;
const STRUCT: u8 = 12;
const LIST: u8 = 15;
const CALL: u32 = 0x8001_0001;
const REPLY: u32 = 0x8001_0002;

/// Keys and values of this many bytes together are copied out of a message.
const SHORT: usize = 4096;

/// Room for all of a message but its keys and values.
const HEAD: usize = 256;

// ── Writing ─────────────────────────────────────────────────────────────────────────────────────────────

/// A message being written. Its length comes last.
struct Writer<'a> {
    out: &'a mut BytesMut,
    start: usize,
    prefix: usize,
}

impl Writer<'_> {
    /// Begins a message whose only field is a struct.
    fn begin<'a>(
        format: Format,
        out: &'a mut BytesMut,
        room: usize,
        kind: u32,
        name: &str,
        sequence: Sequence,
        field: i16,
    ) -> Writer<'a> {
        let start = out.len();
        out.reserve(HEAD + room);
        let prefix = match format.framing {
            Framing::Framed => 4,
            Framing::Unframed => 0,
        };
        out.put_bytes(0, prefix);
        out.put_u32(kind);
        let mut writer = Writer { out, start, prefix };
        writer.bytes(name.as_bytes());
        writer.out.put_i32(sequence.0);
        writer.field(STRUCT, field);
        writer
    }

    /// Ends it. False: it is too long, and nothing of it is left.
    fn end(self) -> bool {
        self.out.put_slice(&[STOP, STOP]);
        let length = self.out.len() - self.start - self.prefix;
        if length > MAX_FRAME_LENGTH {
            self.out.truncate(self.start);
            return false;
        }
        if self.prefix > 0 {
            let frame = (length as u32).to_be_bytes();
            self.out[self.start..self.start + 4].copy_from_slice(&frame);
        }
        true
    }

    fn field(&mut self, kind: u8, id: i16) {
        let [high, low] = id.to_be_bytes();
        self.out.put_slice(&[kind, high, low]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.out.put_u32(bytes.len() as u32);
        self.out.put_slice(bytes);
    }

    fn binary(&mut self, id: i16, bytes: &[u8]) {
        self.field(BINARY, id);
        self.bytes(bytes);
    }

    fn bool(&mut self, id: i16, value: bool) {
        self.field(BOOL, id);
        self.out.put_u8(value.into());
    }

    fn i32(&mut self, id: i16, value: i32) {
        self.field(I32, id);
        self.out.put_i32(value);
    }

    fn i64(&mut self, id: i16, value: i64) {
        self.field(I64, id);
        self.out.put_i64(value);
    }

    fn version(&mut self, id: i16, version: Version) {
        let version = version_out(version);
        self.field(STRUCT, id);
        self.i64(1, version.time);
        self.i32(2, version.server);
        self.i32(3, version.incarnation);
        self.i32(4, version.step);
        self.out.put_u8(STOP);
    }

    fn sender(&mut self, id: i16, sender: &Sender) {
        self.field(STRUCT, id);
        self.i32(1, incarnation_out(sender.incarnation));
        self.bool(2, sender.voting);
        self.i64(3, sender.position as i64);
        let count = sender.known.len() as u32;
        self.field(LIST, 4);
        self.out.put_u8(I32);
        self.out.put_u32(count);
        for (server, _) in sender.known.iter() {
            self.out.put_i32(server.0.into());
        }
        self.field(LIST, 5);
        self.out.put_u8(I32);
        self.out.put_u32(count);
        for (_, incarnation) in sender.known.iter() {
            self.out.put_i32(incarnation_out(*incarnation));
        }
        self.i64(6, sender.session as i64);
        if let Some(disk) = disk_out(sender.disk) {
            self.i32(8, disk);
        }
        self.out.put_u8(STOP);
    }
}

/// Appends a call, if it is one of those written here. `None`: it is not, and nothing was written.
pub(super) fn encode_call(
    format: Format,
    sequence: Sequence,
    call: &Call,
    out: &mut BytesMut,
) -> Option<Method> {
    if format.protocol != Protocol::Binary {
        return None;
    }
    let begin = |out, method: &Method, room| {
        Writer::begin(format, out, room, CALL, method.name(), sequence, 1)
    };
    let (method, ended) = match call {
        Call::Client(ClientRequest::Put(put)) => {
            let PreparedPut { key, content: Content::Value(value), .. } = put else { return None };
            let room = key.as_bytes().len() + value.len();
            let mut writer = begin(out, &Method::Put, room);
            writer.binary(1, key.as_bytes());
            writer.binary(2, value);
            writer.i32(3, level_out(put.level).0);
            if let Some(timeout) = timeout_out(put.timeout) {
                writer.i32(4, timeout);
            }
            for (id, version) in [(5, put.ticket), (6, put.after)] {
                if let Some(version) = version {
                    writer.version(id, version);
                }
            }
            (Method::Put, writer.end())
        }
        Call::Client(ClientRequest::Get { key, level, timeout }) => {
            let mut writer = begin(out, &Method::Get, key.as_bytes().len());
            writer.binary(1, key.as_bytes());
            writer.i32(2, level_out(*level).0);
            if let Some(timeout) = timeout_out(*timeout) {
                writer.i32(3, timeout);
            }
            (Method::Get, writer.end())
        }
        Call::Peer(PeerRequest::Read(Read { key, epoch, with_value })) => {
            let mut writer = begin(out, &Method::PeerRead, key.as_bytes().len());
            writer.binary(1, key.as_bytes());
            writer.i64(2, epoch.0 as i64);
            writer.bool(3, *with_value);
            (Method::PeerRead, writer.end())
        }
        Call::Peer(PeerRequest::Store { key, epoch, cell }) => {
            let room = key.as_bytes().len() + cell.content.len();
            let mut writer = begin(out, &Method::PeerStore, room);
            writer.binary(1, key.as_bytes());
            writer.i64(2, epoch.0 as i64);
            writer.version(3, cell.version);
            if let Content::Value(value) = &cell.content {
                writer.binary(4, value);
            }
            (Method::PeerStore, writer.end())
        }
        Call::Peer(PeerRequest::Clock { state }) => {
            let mut writer = begin(out, &Method::PeerClock, 0);
            writer.i64(1, *state as i64);
            (Method::PeerClock, writer.end())
        }
        _ => return None,
    };
    ended.then_some(method)
}

/// Appends an answer, if it is one of those written here. False: it is not, and nothing was written.
pub(super) fn encode_answer(
    format: Format,
    method: &Method,
    sequence: Sequence,
    answer: &Answer,
    out: &mut BytesMut,
) -> bool {
    if format.protocol != Protocol::Binary {
        return false;
    }
    let begin = |out, room| Writer::begin(format, out, room, REPLY, method.name(), sequence, 0);
    match (method, answer) {
        (
            Method::Put,
            Answer::Client {
                server,
                result: Ok(ClientResponse::Put { version, overtaken, reached: None }),
            },
        ) => {
            let mut writer = begin(out, 0);
            writer.version(1, *version);
            if *overtaken {
                writer.bool(2, true);
            }
            writer.i32(3, server.0.into());
            writer.end()
        }
        (
            Method::Get,
            Answer::Client { server, result: Ok(ClientResponse::Get { cell, reached: None }) },
        ) => {
            let value = cell.as_ref().and_then(|cell| cell.content.value());
            let mut writer = begin(out, value.map_or(0, Bytes::len));
            writer.bool(1, value.is_some());
            if let Some(value) = value {
                writer.binary(2, value);
            }
            if let Some(cell) = cell {
                writer.version(3, cell.version);
            }
            writer.i32(4, server.0.into());
            writer.end()
        }
        (Method::PeerRead, Answer::Peer(Ok(PeerReply { sender, answer }))) => {
            let PeerAnswer::Held { version, checksum, content } = answer else { return false };
            let room = content.as_ref().map_or(0, Content::len) + known_bytes(sender);
            let mut writer = begin(out, room);
            writer.sender(1, sender);
            writer.version(3, *version);
            match content {
                Some(Content::Value(value)) => writer.binary(4, value),
                Some(Content::Tombstone) => writer.bool(5, true),
                None => {}
            }
            if let Some(checksum) = checksum {
                writer.i64(6, checksum.number());
            }
            writer.end()
        }
        (Method::PeerStore, Answer::Peer(Ok(PeerReply { sender, answer }))) => {
            let PeerAnswer::Stored { current, other: None } = answer else { return false };
            let mut writer = begin(out, known_bytes(sender));
            writer.sender(1, sender);
            writer.version(3, *current);
            writer.end()
        }
        (Method::PeerClock, Answer::Peer(Ok(PeerReply { sender, answer }))) => {
            let PeerAnswer::Clock { time } = answer else { return false };
            let mut writer = begin(out, known_bytes(sender));
            writer.sender(1, sender);
            writer.i64(3, *time);
            writer.end()
        }
        _ => false,
    }
}

fn known_bytes(sender: &Sender) -> usize {
    8 * sender.known.len()
}

// ── Reading ─────────────────────────────────────────────────────────────────────────────────────────────

/// A message being read. Every step gives up, with `None`, where something else stands than was expected.
struct Reader<'a> {
    message: &'a Bytes,
    at: usize,
}

/// Bytes within a message.
type Span = std::ops::Range<usize>;

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = *self.message.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(bytes)
    }

    fn raw_i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn raw_bytes(&mut self) -> Option<Span> {
        let length = usize::try_from(self.raw_i32()?).ok()?;
        let span = self.at..self.at.checked_add(length)?;
        if span.end > self.message.len() {
            return None;
        }
        self.at = span.end;
        Some(span)
    }

    /// Whether this field comes next; it is taken if it does.
    fn is_field(&mut self, kind: u8, id: i16) -> bool {
        let [high, low] = id.to_be_bytes();
        let is_next = self.message.get(self.at..self.at + 3) == Some(&[kind, high, low][..]);
        if is_next {
            self.at += 3;
        }
        is_next
    }

    fn field(&mut self, kind: u8, id: i16) -> Option<()> {
        self.is_field(kind, id).then_some(())
    }

    fn stop(&mut self) -> Option<()> {
        (self.take()? == [STOP]).then_some(())
    }

    fn binary(&mut self, id: i16) -> Option<Span> {
        self.field(BINARY, id)?;
        self.raw_bytes()
    }

    fn i32(&mut self, id: i16) -> Option<i32> {
        self.field(I32, id)?;
        self.raw_i32()
    }

    fn i64(&mut self, id: i16) -> Option<i64> {
        self.field(I64, id)?;
        self.take().map(i64::from_be_bytes)
    }

    fn bool(&mut self, id: i16) -> Option<bool> {
        self.field(BOOL, id)?;
        match self.take()? {
            [0] => Some(false),
            [1] => Some(true),
            [_] => None,
        }
    }

    /// A flag that is left out if it is false.
    fn flag(&mut self, id: i16) -> Option<bool> {
        let at = self.at;
        if self.is_field(BOOL, id) {
            self.at = at;
            return self.bool(id);
        }
        Some(false)
    }

    /// A number that may be left out.
    fn optional_i32(&mut self, id: i16) -> Option<Option<i32>> {
        if self.is_field(I32, id) { self.raw_i32().map(Some) } else { Some(None) }
    }

    fn version(&mut self, id: i16) -> Option<Version> {
        self.field(STRUCT, id)?;
        let version = Version {
            time: self.i64(1)?,
            server: ServerId(u16::try_from(self.i32(2)?).ok()?),
            incarnation: Incarnation(u32::try_from(self.i32(3)?).ok()?),
            step: u32::try_from(self.i32(4)?).ok()?,
        };
        self.stop()?;
        Some(version)
    }

    fn sender(&mut self, id: i16) -> Option<Sender> {
        self.field(STRUCT, id)?;
        let incarnation = Incarnation(u32::try_from(self.i32(1)?).ok()?);
        let voting = self.bool(2)?;
        let position = self.i64(3)? as u64;
        let servers = self.list(4)?;
        let incarnations = self.list(5)?;
        if servers.len() != incarnations.len() {
            return None;
        }
        let number = |bytes: &[u8]| bytes.first_chunk().map(|four| i32::from_be_bytes(*four));
        let (servers, incarnations) = (self.message.get(servers)?, self.message.get(incarnations)?);
        let pair = |(server, incarnation): (&[u8], &[u8])| {
            let server = ServerId(u16::try_from(number(server)?).ok()?);
            Some((server, Incarnation(u32::try_from(number(incarnation)?).ok()?)))
        };
        let known =
            servers.chunks(4).zip(incarnations.chunks(4)).map(pair).collect::<Option<_>>()?;
        let session = self.i64(6)? as u64;
        let disk = disk_in(self.optional_i32(8)?);
        self.stop()?;
        Some(Sender { incarnation, voting, position, session, known, disk })
    }

    /// The bytes of a list of numbers.
    fn list(&mut self, id: i16) -> Option<Span> {
        self.field(LIST, id)?;
        (self.take()? == [I32]).then_some(())?;
        let count = usize::try_from(self.raw_i32()?).ok()?;
        let span = self.at..self.at.checked_add(count.checked_mul(4)?)?;
        if span.end > self.message.len() {
            return None;
        }
        self.at = span.end;
        Some(span)
    }

    /// The end of the call or reply, and of the message.
    fn end(&mut self) -> Option<()> {
        self.stop()?;
        self.stop()?;
        (self.at == self.message.len()).then_some(())
    }

    /// Bytes to be kept.
    fn keep(&self, span: Span) -> Bytes {
        if span.len() <= SHORT {
            Bytes::copy_from_slice(&self.message[span])
        } else {
            self.message.slice(span)
        }
    }

    /// Two spans to be kept, the one before the other.
    fn keep_both(&self, first: Span, second: Span) -> (Bytes, Bytes) {
        if second.end - first.start > SHORT {
            return (self.keep(first), self.keep(second));
        }
        let both = Bytes::copy_from_slice(&self.message[first.start..second.end]);
        (both.slice(..first.len()), both.slice(second.start - first.start..))
    }
}

fn level(number: Option<i32>) -> Option<Level> {
    client::level_in(number.map(chord_gen::Level)).ok()
}

fn timeout(milliseconds: Option<i32>) -> Option<Option<std::time::Duration>> {
    client::timeout_in(milliseconds).ok()
}

/// The head of a message of this kind: which method, which number.
fn head(reader: &mut Reader<'_>, kind: u32, field: i16) -> Option<(Method, Sequence)> {
    if reader.take()? != kind.to_be_bytes() {
        return None;
    }
    let name = reader.raw_bytes()?;
    let method = match &reader.message[name] {
        b"put" => Method::Put,
        b"get" => Method::Get,
        b"peerRead" => Method::PeerRead,
        b"peerStore" => Method::PeerStore,
        b"peerClock" => Method::PeerClock,
        _ => return None,
    };
    let sequence = Sequence(reader.raw_i32()?);
    reader.field(STRUCT, field)?;
    Some((method, sequence))
}

/// Understands a call, if it is one of those read here and nothing is wrong with it.
pub(super) fn decode_call(message: &Bytes) -> Option<Request> {
    let reader = &mut Reader { message, at: 0 };
    let (method, sequence) = head(reader, CALL, 1)?;
    let call = match method {
        Method::Put => {
            let (key, value) = (reader.binary(1)?, reader.binary(2)?);
            let level = level(reader.optional_i32(3)?)?;
            let timeout = timeout(reader.optional_i32(4)?)?;
            // With a ticket, or after something: rare enough.
            reader.end()?;
            if value.len() > MAX_VALUE_LENGTH {
                return None;
            }
            let (key, value) = reader.keep_both(key, value);
            let (key, content) = (Key::new(key).ok()?, Content::Value(value));
            let (ticket, after) = (None, None);
            let put = PreparedPut { key, content, level, timeout, ticket, after };
            Call::Client(ClientRequest::Put(put))
        }
        Method::Get => {
            let key = reader.binary(1)?;
            let level = level(reader.optional_i32(2)?)?;
            let timeout = timeout(reader.optional_i32(3)?)?;
            reader.end()?;
            let key = Key::new(reader.keep(key)).ok()?;
            Call::Client(ClientRequest::Get { key, level, timeout })
        }
        Method::PeerRead => {
            let key = reader.binary(1)?;
            let epoch = Epoch(reader.i64(2)? as u64);
            let with_value = reader.bool(3)?;
            reader.end()?;
            let key = place(reader.keep(key))?;
            Call::Peer(PeerRequest::Read(Read { key, epoch, with_value }))
        }
        Method::PeerStore => {
            let key = reader.binary(1)?;
            let epoch = Epoch(reader.i64(2)? as u64);
            let version = reader.version(3)?;
            let value = if reader.is_field(BINARY, 4) { Some(reader.raw_bytes()?) } else { None };
            reader.end()?;
            // Whatever is wrong is named by the other decoder.
            if key.is_empty()
                || !version.is_issued()
                || value.as_ref().is_some_and(|value| value.len() > MAX_VALUE_LENGTH)
            {
                return None;
            }
            let (key, content) = match value {
                Some(value) => {
                    let (key, value) = reader.keep_both(key, value);
                    (key, Content::Value(value))
                }
                None => (reader.keep(key), Content::Tombstone),
            };
            let cell = Cell { version, content };
            Call::Peer(PeerRequest::Store { key: place(key)?, epoch, cell })
        }
        Method::PeerClock => {
            let state = reader.i64(1)? as u64;
            reader.end()?;
            Call::Peer(PeerRequest::Clock { state })
        }
        _ => return None,
    };
    Some(Request { sequence, method, oneway: false, call: Ok(call) })
}

fn place(bytes: Bytes) -> Option<Key> {
    (bytes.len() <= MAX_PLACE_LENGTH).then(|| Key::bound(bytes))
}

/// Understands a reply, if it is one of those read here and nothing is wrong with it.
pub(super) fn decode_reply(message: &Bytes) -> Option<(Sequence, Reply)> {
    let reader = &mut Reader { message, at: 0 };
    let (method, sequence) = head(reader, REPLY, 0)?;
    let of_client = |server: Option<i32>, response| {
        let server = server.and_then(|number| u16::try_from(number).ok()).map(ServerId);
        Reply::Client { server, result: Ok(response) }
    };
    let reply = match method {
        Method::Put => {
            let version = reader.version(1)?;
            let overtaken = reader.flag(2)?;
            let server = reader.optional_i32(3)?;
            reader.end()?;
            of_client(server, ClientResponse::Put { version, overtaken, reached: None })
        }
        Method::Get => {
            let found = reader.bool(1)?;
            // Found without a value, or the reverse: not ours to judge.
            let value = if found { Some(reader.binary(2)?) } else { None };
            // The key was never written: rare, and the generated code knows it too.
            let version = reader.version(3)?;
            let server = reader.optional_i32(4)?;
            reader.end()?;
            let content =
                value.map_or(Content::Tombstone, |value| Content::Value(reader.keep(value)));
            of_client(
                server,
                ClientResponse::Get { cell: Some(Cell { version, content }), reached: None },
            )
        }
        Method::PeerRead => {
            let sender = reader.sender(1)?;
            let version = reader.version(3)?;
            let content = if reader.is_field(BINARY, 4) {
                let value = reader.raw_bytes()?;
                if value.len() > MAX_VALUE_LENGTH {
                    return None;
                }
                Some(Content::Value(reader.keep(value)))
            } else {
                reader.flag(5)?.then_some(Content::Tombstone)
            };
            let checksum = match reader.is_field(I64, 6) {
                true => Some(Checksum::from_number(i64::from_be_bytes(reader.take()?))?),
                false => None,
            };
            reader.end()?;
            let answer = PeerAnswer::Held { version, checksum, content };
            Reply::Peer(Ok(PeerReply { sender, answer }))
        }
        Method::PeerStore => {
            let sender = reader.sender(1)?;
            let current = reader.version(3)?;
            reader.end()?;
            // Another content is rare: the generated code knows it.
            let answer = PeerAnswer::Stored { current, other: None };
            Reply::Peer(Ok(PeerReply { sender, answer }))
        }
        Method::PeerClock => {
            let sender = reader.sender(1)?;
            let time = reader.i64(3)?;
            reader.end()?;
            if time < 0 {
                return None;
            }
            Reply::Peer(Ok(PeerReply { sender, answer: PeerAnswer::Clock { time } }))
        }
        _ => return None,
    };
    Some((sequence, reply))
}
