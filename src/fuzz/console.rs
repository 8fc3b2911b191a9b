//! Lines that people and files send to the client's programs.

use crate::client::grammar::{parse, words};
use crate::client::record::{self, Format};

/// Any line is a command or told why not; words that are quoted byte by byte are the same words.
pub(super) fn console(data: &[u8]) {
    let line = String::from_utf8_lossy(data);
    let _ = parse(&line).map_err(|error| error.to_string());
    let Ok(found) = words(&line) else { return };
    let quote = |word: &Vec<u8>| {
        let bytes: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        format!("\"{bytes}\"")
    };
    let again: Vec<_> = found.iter().map(quote).collect();
    assert_eq!(words(&again.join(" ")).as_ref(), Ok(&found));
}

pub(super) fn console_seeds() -> Vec<Vec<u8>> {
    let lines: [&str; 9] = [
        "put 137 v quorum",
        "get \"a key\" one",
        "delete 'it''s'",
        "scan a b 7",
        "scan '' '' 10000",
        "put \\xff\\x00 \"\\n\\t\\\"\"",
        "# a note",
        "server 127.0.0.1:9001",
        "help put",
    ];
    lines.map(|line| line.as_bytes().to_vec()).to_vec()
}

/// Any line is a record or told why not; a record that is written is the same record. The first byte is the format.
pub(super) fn records(data: &[u8]) {
    let Some((format, line)) = data.split_first() else { return };
    let format = if format & 1 == 0 { Format::JsonLines } else { Format::Tsv };
    let Ok(Some((key, value))) = record::parse(format, line) else { return };
    for format in [Format::JsonLines, Format::Tsv] {
        let mut out = Vec::new();
        record::write(format, key.as_bytes(), &value, &mut out);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1, "a record is a line");
        let again = record::parse(format, &out[..out.len() - 1]);
        assert_eq!(again.ok(), Some(Some((key.clone(), value.clone()))), "{format:?}");
    }
}

pub(super) fn record_seeds() -> Vec<Vec<u8>> {
    let lines: [(u8, &str); 5] = [
        (0, "{\"key\": \"137\", \"value\": \"v\"}"),
        (0, "{\"key_base64\": \"/w==\", \"value\": \"\\u00fc\\n\"}"),
        (1, "137\tv"),
        (1, "\\xff\\t\t\\\\\\n"),
        (1, "k\t\r"),
    ];
    lines.map(|(format, line)| [&[format], line.as_bytes()].concat()).to_vec()
}
