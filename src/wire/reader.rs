//! A stream of bytes, cut into messages.
//!
//! Framed messages say how long they are. Unframed ones do not, so a scanner walks over their structure until it
//! ends. It is resumable: it keeps its place between calls, so a peer that sends a byte at a time costs no more than
//! one that sends all at once; and it allocates nothing but one small entry a level of nesting.
//!
//! A message is a slice of the buffer it was read into, and keeps that. A long one therefore gets a buffer of its own length,
//! if whoever reads asks for it ([`MessageReader::make_room`]), and is parted from what comes behind it: else the next few
//! bytes would keep its memory after it has gone, and it theirs. Nothing is reserved here on a claimed length unasked. What is cut off by
//! its frame alone is walked over when it is decoded.

use bytes::{Buf, Bytes, BytesMut};

use super::{Error, Format, Framing, MAX_FRAME_LENGTH, Protocol};

/// Structs, lists and maps within each other.
const MAX_DEPTH: usize = 32;
/// Elements of one list, set or map.
pub(super) const MAX_ELEMENTS: u64 = 65_536;

/// Messages longer than this are parted from the buffer they were read into.
const LONG: usize = 64 << 10;

/// Cuts a stream of bytes into messages.
#[derive(Debug)]
pub struct MessageReader {
    format: Format,
    scanner: Scanner,
}

impl MessageReader {
    /// For one connection, from its first byte on.
    pub fn new(format: Format) -> MessageReader {
        MessageReader { format, scanner: Scanner::new(format.protocol) }
    }

    /// How many bytes the message that `buffer` begins with may have at most, as far as can be told.
    pub fn expected(&self, buffer: &[u8]) -> usize {
        match (self.format.framing, buffer.first_chunk::<4>()) {
            (Framing::Framed, Some(length)) => {
                (u32::from_be_bytes(*length) as usize).min(MAX_FRAME_LENGTH)
            }
            (Framing::Framed | Framing::Unframed, _) => MAX_FRAME_LENGTH,
        }
    }

    /// Makes room in `buffer` for a read: for the rest of the message that it begins with, if that says that it is long; else,
    /// where less than an eighth of them are free, for `usual` bytes. What is left of a buffer is used up first: messages are
    /// slices of theirs, and a new one for each read would be as many lines of memory that no cache knows.
    ///
    /// Whoever is read from can make this reserve a frame's length by four bytes.
    pub fn make_room(&self, buffer: &mut BytesMut, usual: usize) {
        let is_framed = self.format.framing == Framing::Framed && buffer.len() >= 4;
        let whole = if is_framed { 4 + self.expected(buffer) } else { 0 };
        if whole > LONG {
            buffer.reserve(whole.saturating_sub(buffer.len()));
        } else {
            make_room(buffer, usual);
        }
    }

    /// The next whole message, without its frame length, taken off the front of `buffer`; `None`: more bytes are
    /// needed.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, Error> {
        match self.format.framing {
            Framing::Framed => {
                let Some(length) = buffer.first_chunk::<4>() else { return Ok(None) };
                let length = u32::from_be_bytes(*length) as usize;
                if length > MAX_FRAME_LENGTH {
                    return Err(Error::FrameTooLong { length: length as u64 });
                }
                if buffer.len() < 4 + length {
                    return Ok(None);
                }
                buffer.advance(4);
                Ok(Some(take(buffer, length)))
            }
            Framing::Unframed => match self.scanner.scan(buffer)? {
                Some(end) => {
                    self.scanner = Scanner::new(self.format.protocol);
                    Ok(Some(take(buffer, end)))
                }
                None => Ok(None),
            },
        }
    }
}

/// The same where it is not known yet how messages are cut.
pub fn make_room(buffer: &mut BytesMut, usual: usize) {
    if buffer.capacity() - buffer.len() < usual / 8 {
        buffer.reserve(usual);
    }
}

/// Takes a message of so many bytes off the front.
fn take(buffer: &mut BytesMut, length: usize) -> Bytes {
    let room = buffer.capacity();
    let message = buffer.split_to(length).freeze();
    if length <= LONG {
        return message;
    }
    *buffer = BytesMut::from(&buffer[..]);
    // One that might have been much longer, and has got the room for that.
    if room > 2 * length { Bytes::copy_from_slice(&message) } else { message }
}

/// Walks over a message that should be whole: before the generated code reads it, which does not check the wire types of
/// fields and would take a list's claimed length on trust.
pub(super) fn check_whole(protocol: Protocol, message: &[u8]) -> Result<(), Error> {
    match Scanner::new(protocol).scan(message)? {
        Some(end) if end == message.len() => Ok(()),
        Some(_) => Err(Error::Malformed { what: "bytes behind the end of a frame's message" }),
        None => Err(Error::Malformed { what: "a frame ends before its message" }),
    }
}

/// What is being walked over.
#[derive(Clone, Copy, Debug)]
enum Level {
    Struct,
    /// Elements still to come, of this type.
    List(u64, u8),
    /// Keys and values still to come, of these types; the next is a key if the number is even.
    Map(u64, u8, u8),
}

/// Walks over one message.
#[derive(Debug)]
struct Scanner {
    protocol: Protocol,
    /// Everything before it has been walked over.
    at: usize,
    /// Bytes of a string or number that are still to come.
    skip: usize,
    stack: Vec<Level>,
    begun: bool,
}

/// A step was taken, or needs bytes that are not there yet.
enum Step {
    Taken,
    NeedMore,
}

impl Scanner {
    fn new(protocol: Protocol) -> Scanner {
        Scanner { protocol, at: 0, skip: 0, stack: Vec::new(), begun: false }
    }

    /// Where the message ends; `None`: more bytes are needed. `bytes` begins at the message's first byte, each time.
    fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        loop {
            let available = (bytes.len() - self.at).min(self.skip);
            self.at += available;
            self.skip -= available;
            if self.at + self.skip > MAX_FRAME_LENGTH {
                return Err(Error::FrameTooLong { length: (self.at + self.skip) as u64 });
            }
            if self.skip > 0 {
                return Ok(None);
            }
            if self.begun && self.stack.is_empty() {
                return Ok(Some(self.at));
            }
            match self.step(&bytes[self.at..])? {
                Step::Taken => {}
                Step::NeedMore => return Ok(None),
            }
        }
    }

    fn step(&mut self, rest: &[u8]) -> Result<Step, Error> {
        if !self.begun {
            return self.begin(rest);
        }
        match self.stack.last_mut() {
            None => Ok(Step::Taken),
            Some(Level::Struct) => self.field(rest),
            Some(Level::List(0, _) | Level::Map(0, _, _)) => {
                self.stack.pop();
                Ok(Step::Taken)
            }
            Some(Level::List(left, kind)) => {
                let kind = *kind;
                let before = *left;
                *left -= 1;
                let depth = self.stack.len();
                let step = self.value(kind, rest, true)?;
                if matches!(step, Step::NeedMore) {
                    self.stack[depth - 1] = Level::List(before, kind);
                }
                Ok(step)
            }
            Some(Level::Map(left, key, value)) => {
                let (before, key, value) = (*left, *key, *value);
                let kind = if before % 2 == 0 { key } else { value };
                *left -= 1;
                let depth = self.stack.len();
                let step = self.value(kind, rest, true)?;
                if matches!(step, Step::NeedMore) {
                    self.stack[depth - 1] = Level::Map(before, key, value);
                }
                Ok(step)
            }
        }
    }

    /// The message's name, type and number.
    fn begin(&mut self, rest: &[u8]) -> Result<Step, Error> {
        let (header, name) = match self.protocol {
            Protocol::Binary => {
                let Some(head) = rest.first_chunk::<8>() else { return Ok(Step::NeedMore) };
                if head[..2] != [0x80, 0x01] {
                    return Err(Error::Malformed { what: "no strict binary message begins here" });
                }
                let name = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
                // The sequence number follows the name.
                (8, u64::from(name) + 4)
            }
            Protocol::Compact => {
                if rest.len() < 2 {
                    return Ok(Step::NeedMore);
                }
                if rest[0] != 0x82 || rest[1] & 0x1f != 1 {
                    return Err(Error::Malformed { what: "no compact message begins here" });
                }
                let Some((_, sequence)) = varint(&rest[2..])? else { return Ok(Step::NeedMore) };
                let Some((name, length)) = varint(&rest[2 + sequence..])? else {
                    return Ok(Step::NeedMore);
                };
                (2 + sequence + length, name)
            }
        };
        self.begun = true;
        self.at += header;
        self.skip_long(name)?;
        self.push(Level::Struct)
    }

    fn field(&mut self, rest: &[u8]) -> Result<Step, Error> {
        let Some(first) = rest.first() else { return Ok(Step::NeedMore) };
        if *first == 0 {
            self.at += 1;
            self.stack.pop();
            return Ok(Step::Taken);
        }
        let (kind, header) = match self.protocol {
            Protocol::Binary => (*first, 3),
            Protocol::Compact if first >> 4 != 0 => (first & 0x0f, 1),
            Protocol::Compact => match varint(&rest[1..])? {
                Some((_, length)) => (first & 0x0f, 1 + length),
                None => return Ok(Step::NeedMore),
            },
        };
        if rest.len() < header {
            return Ok(Step::NeedMore);
        }
        self.at += header;
        let step = self.value(kind, &rest[header..], false)?;
        if matches!(step, Step::NeedMore) {
            // The field is walked over as a whole or not at all.
            self.at -= header;
        }
        Ok(step)
    }

    /// A value of this wire type, or its beginning.
    fn value(&mut self, kind: u8, rest: &[u8], in_container: bool) -> Result<Step, Error> {
        match self.protocol {
            Protocol::Binary => self.binary_value(kind, rest),
            Protocol::Compact => self.compact_value(kind, rest, in_container),
        }
    }

    fn binary_value(&mut self, kind: u8, rest: &[u8]) -> Result<Step, Error> {
        let number = |from: usize| {
            let bytes = rest.get(from..from + 4)?;
            Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        match kind {
            2 | 3 => self.skip += 1,
            6 => self.skip += 2,
            8 => self.skip += 4,
            4 | 10 => self.skip += 8,
            16 => self.skip += 16,
            11 => {
                let Some(length) = number(0) else { return Ok(Step::NeedMore) };
                self.at += 4;
                self.skip_long(u64::from(length))?;
            }
            12 => return self.push(Level::Struct),
            13 => {
                let Some(elements) = number(2) else { return Ok(Step::NeedMore) };
                self.at += 6;
                let level = Level::Map(2 * elements_within(elements.into())?, rest[0], rest[1]);
                return self.push(level);
            }
            14 | 15 => {
                let Some(elements) = number(1) else { return Ok(Step::NeedMore) };
                self.at += 5;
                return self.push(Level::List(elements_within(elements.into())?, rest[0]));
            }
            _ => return Err(Error::Malformed { what: "a field of a type that there is not" }),
        }
        Ok(Step::Taken)
    }

    fn compact_value(&mut self, kind: u8, rest: &[u8], in_container: bool) -> Result<Step, Error> {
        match kind {
            // A field's type is its value; in a container it is a byte.
            1 | 2 => self.skip += usize::from(in_container),
            3 => self.skip += 1,
            4..=6 => {
                let Some((_, length)) = varint(rest)? else { return Ok(Step::NeedMore) };
                self.at += length;
            }
            7 => self.skip += 8,
            13 => self.skip += 16,
            8 => {
                let Some((bytes, length)) = varint(rest)? else { return Ok(Step::NeedMore) };
                self.at += length;
                self.skip_long(bytes)?;
            }
            9 | 10 => {
                let Some(first) = rest.first() else { return Ok(Step::NeedMore) };
                let (elements, header) = match first >> 4 {
                    15 => match varint(&rest[1..])? {
                        Some((elements, length)) => (elements, 1 + length),
                        None => return Ok(Step::NeedMore),
                    },
                    elements => (u64::from(elements), 1),
                };
                self.at += header;
                return self.push(Level::List(elements_within(elements)?, first & 0x0f));
            }
            11 => {
                let Some((elements, length)) = varint(rest)? else { return Ok(Step::NeedMore) };
                if elements == 0 {
                    self.at += length;
                    return Ok(Step::Taken);
                }
                let Some(kinds) = rest.get(length) else { return Ok(Step::NeedMore) };
                self.at += length + 1;
                let level = Level::Map(2 * elements_within(elements)?, kinds >> 4, kinds & 0x0f);
                return self.push(level);
            }
            12 => return self.push(Level::Struct),
            _ => return Err(Error::Malformed { what: "a field of a type that there is not" }),
        }
        Ok(Step::Taken)
    }

    fn push(&mut self, level: Level) -> Result<Step, Error> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(Error::TooDeep { most: MAX_DEPTH });
        }
        self.stack.push(level);
        Ok(Step::Taken)
    }

    fn skip_long(&mut self, length: u64) -> Result<(), Error> {
        if length > MAX_FRAME_LENGTH as u64 {
            return Err(Error::FrameTooLong { length });
        }
        self.skip += length as usize;
        Ok(())
    }
}

fn elements_within(elements: u64) -> Result<u64, Error> {
    if elements > MAX_ELEMENTS {
        return Err(Error::ContainerTooLong { elements, most: MAX_ELEMENTS });
    }
    Ok(elements)
}

/// A number of seven bits a byte, and how many bytes it takes.
fn varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, Error> {
    let mut number = 0u64;
    for (position, byte) in bytes.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * position).min(63);
        if byte & 0x80 == 0 {
            return Ok(Some((number, position + 1)));
        }
    }
    if bytes.len() >= 10 {
        return Err(Error::Malformed { what: "a number that does not end" });
    }
    Ok(None)
}
