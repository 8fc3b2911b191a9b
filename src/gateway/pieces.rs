//! Answers that are encoded as they leave: what a slow reader costs is the values themselves, once each, however
//! often they are named and however long they become as JSON.

use std::collections::VecDeque;

use axum::body::{Body, Bytes};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::stream;

use crate::budget::Share;

/// An answer is handed to the socket in chunks of at least so many bytes.
const CHUNK: usize = 16 << 10;
/// Bytes of a value that are encoded at a time; divisible by three, as base64 goes by threes.
const STEP: usize = 3 << 10;

/// A part of an answer, and how it is written.
#[derive(Debug)]
enum Part {
    /// As it is.
    Plain(Bytes),
    /// Text, escaped as within a JSON string.
    Escaped(Bytes),
    /// In base64.
    Base64(Bytes),
    /// Eight digits 0 or 1 for each byte.
    Digits(Bytes),
}

/// An answer on its way out.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    parts: VecDeque<Part>,
    shares: Vec<Share>,
}

impl Pieces {
    /// Bytes as they are.
    pub(super) fn plain(&mut self, bytes: impl Into<Bytes>) {
        self.parts.push_back(Part::Plain(bytes.into()));
    }

    /// What stands within the quotation marks of a JSON string. The bytes are text.
    pub(super) fn escaped(&mut self, text: Bytes) {
        self.parts.push_back(Part::Escaped(text));
    }

    /// Bytes in base64.
    pub(super) fn base64(&mut self, bytes: Bytes) {
        self.parts.push_back(Part::Base64(bytes));
    }

    /// Bytes as binary digits.
    pub(super) fn digits(&mut self, bytes: Bytes) {
        self.parts.push_back(Part::Digits(bytes));
    }

    /// A member of a JSON object, `"name":"…"` or `"name_base64":"…"` where the bytes are no text.
    pub(super) fn member(&mut self, name: &str, bytes: Bytes) {
        let is_text = std::str::from_utf8(&bytes).is_ok();
        self.member_as(name, bytes, is_text);
    }

    /// The same of bytes of which it is known: a long value that is named often is looked at once.
    pub(super) fn member_as(&mut self, name: &str, bytes: Bytes, is_text: bool) {
        if is_text {
            self.plain(format!("\"{name}\":\""));
            self.escaped(bytes);
        } else {
            self.plain(format!("\"{name}_base64\":\""));
            self.base64(bytes);
        }
        self.plain(&b"\""[..]);
    }

    /// Holds a share until all has left.
    pub(super) fn hold(&mut self, share: Share) {
        self.shares.push(share);
    }

    /// The next chunk; `None` after the last.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::with_capacity(2 * CHUNK);
        while out.len() < CHUNK
            && let Some(part) = self.parts.front_mut()
        {
            if part.write(&mut out) {
                self.parts.pop_front();
            }
        }
        (!out.is_empty()).then(|| out.into())
    }

    /// The whole as the body of an answer.
    pub(super) fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(self, |mut pieces| async {
            let chunk = pieces.next()?;
            Some((Ok::<_, std::convert::Infallible>(chunk), pieces))
        }))
    }
}

impl Part {
    /// Writes a step of it. Whether that was the last.
    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        let is_text = matches!(self, Part::Escaped(_));
        let (Part::Plain(rest) | Part::Escaped(rest) | Part::Base64(rest) | Part::Digits(rest)) =
            self;
        let mut step = STEP.min(rest.len());
        if is_text && step < rest.len() {
            // A character is not cut in two; what is no text after all is taken as it comes.
            let whole =
                std::str::from_utf8(&rest[..step]).map_or_else(|e| e.valid_up_to(), str::len);
            step = if whole > 0 { whole } else { step };
        }
        let now = rest.split_to(step);
        let done = rest.is_empty();
        match self {
            Part::Plain(_) => out.extend_from_slice(&now),
            Part::Escaped(_) => {
                // Text by the caller's word; what is none would be shown as the replacement character.
                let text = String::from_utf8_lossy(&now);
                let quoted = serde_json::to_string(&*text).unwrap_or_else(|_| "\"\"".to_owned());
                out.extend_from_slice(&quoted.as_bytes()[1..quoted.len().max(2) - 1]);
            }
            Part::Base64(_) => out.extend_from_slice(BASE64_STANDARD.encode(&now).as_bytes()),
            Part::Digits(_) => {
                for byte in &now {
                    out.extend_from_slice(format!("{byte:08b}").as_bytes());
                }
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn whole(mut pieces: Pieces) -> Vec<u8> {
        std::iter::from_fn(|| pieces.next()).flatten().collect()
    }

    proptest! {
        #[test]
        fn a_member_is_what_json_makes_of_it(text in ".{0,40}", bytes in proptest::collection::vec(any::<u8>(), 0..40), times in 1usize..400) {
            for bytes in [text.repeat(times).into_bytes(), bytes.repeat(times)] {
                let mut pieces = Pieces::default();
                pieces.plain(&b"{"[..]);
                pieces.member("value", Bytes::from(bytes.clone()));
                pieces.plain(&b"}"[..]);
                let said: Value = serde_json::from_slice(&whole(pieces)).unwrap();
                let expected = match std::str::from_utf8(&bytes) {
                    Ok(text) => json!({"value": text}),
                    Err(_) => json!({"value_base64": BASE64_STANDARD.encode(&bytes)}),
                };
                prop_assert_eq!(said, expected);
            }
        }
    }

    #[test]
    fn a_chunk_is_short_however_long_the_value_becomes() {
        let mut pieces = Pieces::default();
        pieces.escaped(Bytes::from(vec![1; 1 << 20]));
        pieces.digits(Bytes::from(vec![255; 1 << 20]));
        let lengths: Vec<_> = std::iter::from_fn(|| pieces.next()).map(|c| c.len()).collect();
        assert_eq!(lengths.iter().sum::<usize>(), (6 + 8) << 20);
        assert!(lengths.iter().all(|length| *length <= CHUNK + 8 * STEP), "{lengths:?}");
    }
}
