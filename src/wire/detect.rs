//! What the first bytes of a connection say.

use std::fmt;

use super::{Format, Framing, Protocol};

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// More bytes are needed to tell; at most eight in all.
    NeedMore,
    /// Thrift that is served here.
    Thrift(Format),
    /// Anything else.
    Foreign(Foreign),
}

/// Something that is not served on this port. `Display` is a sentence for a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Foreign {
    /// An HTTP request.
    Http,
    /// A TLS handshake.
    Tls,
    /// Thrift's JSON protocol.
    Json,
    /// Thrift's header transport.
    THeader,
    /// Thrift's binary protocol without its version: not to be told apart from a framed message.
    OldBinary,
    /// None of these.
    Unknown,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Foreign::Http => "it speaks HTTP; this port speaks Thrift",
            Foreign::Tls => "it speaks TLS; this port does not",
            Foreign::Json => "it speaks Thrift's JSON protocol; use binary or compact",
            Foreign::THeader => "it speaks Thrift's header transport; use framed or unframed",
            Foreign::OldBinary => {
                "it speaks Thrift's old binary protocol without a version; write strictly"
            }
            Foreign::Unknown => "it does not speak Thrift",
        })
    }
}

/// Decides from the first bytes, once for a connection.
pub fn detect(first: &[u8]) -> Detection {
    let thrift = |framing, protocol| Detection::Thrift(Format { framing, protocol });
    match *first {
        [] => Detection::NeedMore,
        [0x80, 0x01, ..] => thrift(Framing::Unframed, Protocol::Binary),
        [0x80] => Detection::NeedMore,
        [0x82, ..] => thrift(Framing::Unframed, Protocol::Compact),
        [0x16, ..] => Detection::Foreign(Foreign::Tls),
        [b'[', ..] => Detection::Foreign(Foreign::Json),
        // No frame is longer than 16,384,000 bytes, so the first byte of a length is 0.
        [0, ..] => match first.get(4) {
            None => Detection::NeedMore,
            Some(0x80) => thrift(Framing::Framed, Protocol::Binary),
            Some(0x82) => thrift(Framing::Framed, Protocol::Compact),
            Some(b'[') => Detection::Foreign(Foreign::Json),
            Some(0x0f) => Detection::Foreign(Foreign::THeader),
            Some(_) => Detection::Foreign(Foreign::OldBinary),
        },
        // The verbs of HTTP, by their first letters.
        [b'G' | b'P' | b'H' | b'D' | b'O' | b'T' | b'C', ..] => Detection::Foreign(Foreign::Http),
        _ => Detection::Foreign(Foreign::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_beginning_is_told_apart() {
        let cases: &[(&[u8], Detection)] = &[
            (b"", Detection::NeedMore),
            (b"\x80", Detection::NeedMore),
            (b"\x00\x00\x01", Detection::NeedMore),
            (b"GET /", Detection::Foreign(Foreign::Http)),
            (b"\x16\x03\x01", Detection::Foreign(Foreign::Tls)),
            (b"[1,\"put\"", Detection::Foreign(Foreign::Json)),
            (b"\x00\x00\x00\x20\x0f\xff", Detection::Foreign(Foreign::THeader)),
            (b"\x00\x00\x00\x03put", Detection::Foreign(Foreign::OldBinary)),
            (b"\x7f", Detection::Foreign(Foreign::Unknown)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(detect(bytes), *expected, "{bytes:?}");
        }
        let thrift = |framing, protocol| Detection::Thrift(Format { framing, protocol });
        assert_eq!(detect(b"\x80\x01\x00\x01"), thrift(Framing::Unframed, Protocol::Binary));
        assert_eq!(detect(b"\x82\x21"), thrift(Framing::Unframed, Protocol::Compact));
        assert_eq!(detect(b"\x00\x00\x00\x20\x80\x01"), thrift(Framing::Framed, Protocol::Binary));
        assert_eq!(detect(b"\x00\x00\x00\x20\x82\x21"), thrift(Framing::Framed, Protocol::Compact));
    }
}
