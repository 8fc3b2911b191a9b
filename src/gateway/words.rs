//! What requests say besides their bodies: keys in paths, parameters, levels.

use std::time::Duration;

use axum::http::{HeaderMap, Uri};

use super::problem::Problem;
use crate::model::{Key, Level, Version};

/// Milliseconds that a call may take at most.
const MAX_TIMEOUT: u64 = 60_000;

/// Bytes behind percent signs; anything else stands for itself.
fn decode(text: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        if *byte == b'%' {
            let digits = rest.as_slice().get(..2);
            if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                return Err(Problem::invalid("a '%' must be followed by two hexadecimal digits"));
            }
        }
    }
    Ok(percent_encoding::percent_decode(text).collect())
}

/// Percent-encodes whatever a path or parameter may not hold.
pub(super) fn encode(bytes: &[u8]) -> String {
    percent_encoding::percent_encode(bytes, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The key in a path, behind `prefix`: any bytes, percent-encoded.
pub(super) fn key_in_path(uri: &Uri, prefix: &str) -> Result<Key, Problem> {
    let encoded = uri.path().strip_prefix(prefix).unwrap_or_default();
    key(decode(encoded.as_bytes())?)
}

/// A key of the right length.
pub(super) fn key(bytes: Vec<u8>) -> Result<Key, Problem> {
    Key::new(bytes).map_err(|error| Problem::invalid(error.to_string()))
}

/// Parameters of a URL, or fields of a form: names and any bytes.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(String, Vec<u8>)>);

impl Fields {
    /// `name=value&…`, percent-encoded, a plus for a blank.
    pub(super) fn parse(text: &[u8]) -> Result<Fields, Problem> {
        let part = |text: &[u8]| -> Result<Vec<u8>, Problem> {
            let blanks: Vec<u8> =
                text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
            decode(&blanks)
        };
        let mut fields = Vec::new();
        for field in text.split(|byte| *byte == b'&').filter(|field| !field.is_empty()) {
            let equals = field.iter().position(|byte| *byte == b'=').unwrap_or(field.len());
            let name = String::from_utf8(part(&field[..equals])?)
                .map_err(|_| Problem::invalid("a parameter's name is no text"))?;
            fields.push((name, part(field.get(equals + 1..).unwrap_or_default())?));
        }
        Ok(Fields(fields))
    }

    pub(super) fn of(uri: &Uri) -> Result<Fields, Problem> {
        Fields::parse(uri.query().unwrap_or_default().as_bytes())
    }

    /// The last of that name.
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().rev().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_slice())
    }

    /// As text.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let text = |bytes| {
            std::str::from_utf8(bytes).map_err(|_| Problem::invalid(format!("'{name}' is no text")))
        };
        self.get(name).map(text).transpose()
    }

    /// As a number within bounds.
    pub(super) fn number(&self, name: &str, most: usize) -> Result<Option<usize>, Problem> {
        let number = |text: &str| {
            text.parse().ok().filter(|number| (1..=most).contains(number)).ok_or_else(|| {
                Problem::invalid(format!("'{name}' is '{text}'; write a number from 1 to {most}"))
            })
        };
        self.text(name)?.map(number).transpose()
    }

    /// A misspelt parameter would be a wish that nobody hears.
    pub(super) fn allow(&self, names: &[&str]) -> Result<(), Problem> {
        match self.0.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => Err(Problem::invalid(format!(
                "there is no parameter '{}'; there are {}",
                name.escape_debug(),
                names.join(", ")
            ))),
        }
    }
}

/// How a call is to be made: in parameters, or in headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manner {
    pub(super) level: Level,
    pub(super) timeout: Option<Duration>,
    pub(super) ticket: Option<Version>,
}

/// The parameters of [`Manner`].
pub(super) const MANNER: [&str; 2] = ["level", "timeout_ms"];

impl Manner {
    /// A parameter goes before a header.
    pub(super) fn of(fields: &Fields, headers: &HeaderMap) -> Result<Manner, Problem> {
        let header = |name: &'static str| -> Result<Option<&str>, Problem> {
            let text = headers.get(name).map(|value| value.to_str());
            text.transpose().map_err(|_| Problem::invalid(format!("header {name} is no text")))
        };
        let level = match fields.text("level")?.or(header("chord-level")?) {
            Some(text) => text
                .parse()
                .map_err(|error: crate::model::UnknownLevel| Problem::invalid(error.to_string()))?,
            None => Level::Quorum,
        };
        let milliseconds = |text: &str| {
            let number = text.parse().ok().filter(|number| (1..=MAX_TIMEOUT).contains(number));
            number.map(Duration::from_millis).ok_or_else(|| {
                Problem::invalid(format!(
                    "the time-out is '{text}'; write milliseconds, from 1 to {MAX_TIMEOUT}"
                ))
            })
        };
        let timeout = fields.text("timeout_ms")?.or(header("chord-timeout-ms")?);
        let ticket = header("chord-ticket")?.map(|text| {
            let bad = |error: crate::model::NoVersion| Problem::invalid(error.to_string());
            text.parse().map_err(bad)
        });
        Ok(Manner {
            level,
            timeout: timeout.map(milliseconds).transpose()?,
            ticket: ticket.transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_key_comes_back_from_a_path(bytes in proptest::collection::vec(any::<u8>(), 1..80)) {
            let uri: Uri = format!("/v1/keys/{}", encode(&bytes)).parse().unwrap();
            let key = key_in_path(&uri, "/v1/keys/").unwrap();
            prop_assert_eq!(key.as_bytes(), &bytes[..]);
            let uri: Uri = format!("/v1/keys?from={}&to=b+c", encode(&bytes)).parse().unwrap();
            let fields = Fields::of(&uri).unwrap();
            prop_assert_eq!(fields.get("from"), Some(&bytes[..]));
            prop_assert_eq!(fields.get("to"), Some(&b"b c"[..]));
        }

        #[test]
        fn no_text_is_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Fields::parse(&bytes);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let detail = |result: Result<Fields, Problem>| result.unwrap_err().detail;
        assert!(detail(Fields::parse(b"a=%2")).contains("two hexadecimal digits"));
        assert!(detail(Fields::parse(b"%ff=1")).contains("name is no text"));
        let fields = Fields::parse(b"limit=0&levle=one&timeout_ms=90000").unwrap();
        assert!(fields.number("limit", 9).unwrap_err().detail.contains("from 1 to 9"));
        let unknown = fields.allow(&["limit", "level"]).unwrap_err().detail;
        assert_eq!(unknown, "there is no parameter 'levle'; there are limit, level");
        let late = Manner::of(&fields, &HeaderMap::new()).unwrap_err().detail;
        assert!(late.contains("from 1 to 60000"), "{late}");
    }

    #[test]
    fn manners_come_from_parameters_and_headers() {
        let mut headers = HeaderMap::new();
        headers.insert("chord-level", "all".parse().unwrap());
        headers.insert("chord-timeout-ms", "250".parse().unwrap());
        headers.insert("chord-ticket", "7@1.2".parse().unwrap());
        let manner = Manner::of(&Fields::default(), &headers).unwrap();
        assert_eq!((manner.level, manner.timeout), (Level::All, Some(Duration::from_millis(250))));
        assert_eq!(manner.ticket.unwrap().to_string(), "7@1.2");
        let fields = Fields::parse(b"level=One").unwrap();
        assert_eq!(Manner::of(&fields, &headers).unwrap().level, Level::One);
    }
}
