//! Keys and values as lines of a file.
//!
//! **JSON lines**: `{"key":"137","value":"v"}`; bytes that are no text stand in `key_base64` and `value_base64`
//! instead. Other members are ignored.
//!
//! **TSV**: the key, a tab, the value. A backslash begins an escape: `\t \n \r \\ \xNN`.
//!
//! Both carry any bytes and come back as they went. Blank lines are skipped.

use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::{Deserialize, Serialize};

use crate::model::Key;

/// How a record is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    #[default]
    JsonLines,
    /// Key and value with a tab between them.
    Tsv,
}

impl Format {
    /// By the end of a file's name.
    pub fn of_path(path: &std::path::Path) -> Option<Format> {
        path.extension()?.to_str()?.parse().ok()
    }

    /// The name, which is also how file names end.
    pub fn name(self) -> &'static str {
        match self {
            Format::JsonLines => "jsonl",
            Format::Tsv => "tsv",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = RecordError;

    fn from_str(text: &str) -> Result<Format, RecordError> {
        match text {
            "jsonl" | "ndjson" | "json" => Ok(Format::JsonLines),
            "tsv" => Ok(Format::Tsv),
            other => Err(RecordError::Format(other.to_owned())),
        }
    }
}

/// Why a line is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// No such format.
    #[error("'{0}' is no format; write jsonl or tsv")]
    Format(String),
    /// No JSON of that shape.
    #[error("not a record: {0}; it must be like {{\"key\": \"137\", \"value\": \"v\"}}")]
    Json(#[from] serde_json::Error),
    /// Neither or both forms of one part.
    #[error("give either {0} or {0}_base64")]
    Part(&'static str),
    /// Not base64.
    #[error("{part}_base64 is no base64: {source}")]
    Base64 {
        /// Of which part.
        part: &'static str,
        /// What is wrong.
        source: base64::DecodeError,
    },
    /// No tab.
    #[error("no tab: a line must be key, tab, value")]
    NoTab,
    /// Too many.
    #[error("a second tab: write \\t for one inside of a value")]
    SecondTab,
    /// A backslash and something that means nothing.
    #[error("'\\{0}' is no escape; there are \\t \\n \\r \\\\ and \\xNN")]
    Escape(String),
}

/// Bytes in JSON: as text where they are, else in base64 under another name.
#[derive(Serialize, Deserialize)]
struct Json {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// Text and base64 of some bytes: exactly one of them.
pub fn json_parts(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64_STANDARD.encode(bytes))),
    }
}

/// The bytes of [`json_parts`].
///
/// # Errors
/// [`RecordError::Part`] and [`RecordError::Base64`].
pub fn from_json_parts(
    part: &'static str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Vec<u8>, RecordError> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => {
            BASE64_STANDARD.decode(base64).map_err(|source| RecordError::Base64 { part, source })
        }
        (None, None) | (Some(_), Some(_)) => Err(RecordError::Part(part)),
    }
}

/// The record of a line, which ends before its line feed; `None` for a blank one. The key is judged by the server.
///
/// # Errors
/// See [`RecordError`].
pub fn parse(format: Format, line: &[u8]) -> Result<Option<(Key, Vec<u8>)>, RecordError> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let blank = line.iter().all(u8::is_ascii_whitespace);
    if blank && (format == Format::JsonLines || !line.contains(&b'\t')) {
        return Ok(None);
    }
    let (key, value) = match format {
        Format::JsonLines => {
            let Json { key, key_base64, value, value_base64 } = serde_json::from_slice(line)?;
            let key = from_json_parts("key", key, key_base64)?;
            (key, from_json_parts("value", value, value_base64)?)
        }
        Format::Tsv => {
            let tab = line.iter().position(|byte| *byte == b'\t').ok_or(RecordError::NoTab)?;
            let value = &line[tab + 1..];
            if value.contains(&b'\t') {
                return Err(RecordError::SecondTab);
            }
            (unescape(&line[..tab])?, unescape(value)?)
        }
    };
    Ok(Some((Key::bound(key), value)))
}

/// Appends a record with its line feed.
pub fn write(format: Format, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    match format {
        Format::JsonLines => {
            let ((key, key_base64), (value, value_base64)) = (json_parts(key), json_parts(value));
            let json = Json { key, key_base64, value, value_base64 };
            // Strings into memory cannot fail.
            out.extend(serde_json::to_vec(&json).unwrap_or_default());
        }
        Format::Tsv => {
            escape(key, out);
            out.push(b'\t');
            escape(value, out);
        }
    }
    out.push(b'\n');
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().bytes() {
            match letter {
                b'\t' => out.extend(b"\\t"),
                b'\n' => out.extend(b"\\n"),
                b'\r' => out.extend(b"\\r"),
                b'\\' => out.extend(b"\\\\"),
                letter => out.push(letter),
            }
        }
        for byte in chunk.invalid() {
            out.extend(format!("\\x{byte:02x}").bytes());
        }
    }
}

fn unescape(bytes: &[u8]) -> Result<Vec<u8>, RecordError> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let bad = |text: &[u8]| RecordError::Escape(String::from_utf8_lossy(text).into_owned());
        out.push(match rest.next() {
            Some(b't') => b'\t',
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digits: Vec<u8> = rest.by_ref().take(2).copied().collect();
                let text = std::str::from_utf8(&digits).ok().filter(|text| text.len() == 2);
                let byte = text.and_then(|text| u8::from_str_radix(text, 16).ok());
                byte.ok_or_else(|| bad(&[b"x", digits.as_slice()].concat()))?
            }
            Some(other) => return Err(bad(&[*other])),
            None => return Err(bad(b"")),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_come_back(
            key in proptest::collection::vec(any::<u8>(), 1..20),
            value in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            for format in [Format::JsonLines, Format::Tsv] {
                let mut line = Vec::new();
                write(format, &key, &value, &mut line);
                prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
                let line = line.strip_suffix(b"\n").unwrap();
                let (read_key, read_value) = parse(format, line).unwrap().unwrap();
                prop_assert_eq!(read_key.as_bytes(), &key[..]);
                prop_assert_eq!(read_value, &value[..]);
            }
        }

        #[test]
        fn no_line_is_a_panic(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(Format::JsonLines, &line);
            let _ = parse(Format::Tsv, &line);
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (format, line, expected) in [
            (Format::JsonLines, "{", "not a record"),
            (Format::JsonLines, r#"{"key": 7, "value": "v"}"#, "not a record: invalid type"),
            (Format::JsonLines, r#"{"key": "k"}"#, "give either value or value_base64"),
            (
                Format::JsonLines,
                r#"{"key": "k", "value_base64": "!"}"#,
                "value_base64 is no base64",
            ),
            (Format::Tsv, "k", "no tab"),
            (Format::Tsv, "k\tv\tw", "a second tab"),
            (Format::Tsv, "k\t\\q", "'\\q' is no escape"),
            (Format::Tsv, "k\t\\x1", "'\\x1' is no escape"),
        ] {
            let error = parse(format, line.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
        assert!(parse(Format::Tsv, b" ").unwrap().is_none());
        let (key, value) =
            parse(Format::JsonLines, br#"{"key":"a","value":"","time":1}"#).unwrap().unwrap();
        assert_eq!((key, value), (Key::bound("a"), Vec::new()));
    }
}
