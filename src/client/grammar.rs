//! The console's language: a line to a command.
//!
//! Words are separated by blanks. In single quotes everything stands for itself; in double quotes, and outside of
//! quotes, a backslash begins an escape: `\n \t \r \0 \\ \" \' \xNN` and backslash-blank. A line that begins with `#`
//! is a comment.

use bytes::Bytes;

use crate::model::{Key, Level};

/// Entries of a scan that names no limit.
pub const DEFAULT_LIMIT: usize = 100;

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Store a value.
    Put {
        /// The key, as it is: the server judges it.
        key: Key,
        /// The value.
        value: Bytes,
        /// If it was named.
        level: Option<Level>,
    },
    /// Read a key.
    Get {
        /// The key.
        key: Key,
        /// If it was named.
        level: Option<Level>,
    },
    /// Delete a key.
    Delete {
        /// The key.
        key: Key,
        /// If it was named.
        level: Option<Level>,
    },
    /// Read keys in order.
    Scan {
        /// First key.
        from: Key,
        /// End, exclusive.
        to: Option<Key>,
        /// Entries at most.
        limit: usize,
    },
    /// How the server is.
    Status,
    /// Which server, or another one.
    Server(Option<String>),
    /// What there is.
    Help(Option<String>),
    /// End.
    Exit,
}

/// Why a line is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// A quote was begun and not ended: the line goes on.
    #[error("a quote is not closed")]
    Unclosed,
    /// A backslash and something that means nothing.
    #[error("'\\{0}' is no escape; there are \\n \\t \\r \\0 \\\\ \\\" \\' and \\xNN")]
    Escape(String),
    /// Not a word of this language.
    #[error("there is no command '{0}'; try help")]
    Unknown(String),
    /// Words are missing, or there are too many.
    #[error("usage: {0}")]
    Usage(&'static str),
    /// A level that there is not.
    #[error("{0}")]
    Level(#[from] crate::model::UnknownLevel),
    /// A limit that is none.
    #[error("'{0}' is no limit; write a number from 1 to 10000")]
    Limit(String),
}

/// All words, with how each is used and what it does.
pub const WORDS: [(&str, &str, &str); 8] = [
    ("put", "put KEY VALUE [one|quorum|all|available]", "stores a value"),
    ("get", "get KEY [one|quorum|all|available]", "reads a key"),
    ("delete", "delete KEY [one|quorum|all|available]", "deletes a key"),
    ("scan", "scan [FROM [TO]] [LIMIT]", "reads keys in order, from FROM on, up to but without TO"),
    ("status", "status", "how the server is"),
    ("server", "server [HOST:PORT]", "which server this is, or use another one"),
    ("help", "help [COMMAND]", "this"),
    ("exit", "exit", "ends the console, as does Ctrl-D"),
];

/// The words of a line.
///
/// # Errors
/// [`GrammarError::Unclosed`] and [`GrammarError::Escape`].
pub fn words(line: &str) -> Result<Vec<Vec<u8>>, GrammarError> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        let mut push = |bytes: &[u8]| word.get_or_insert_default().extend_from_slice(bytes);
        match (letter, quote) {
            ('\'', Some('\'')) | ('"', Some('"')) => quote = None,
            ('\\', None | Some('"')) => push(&escape(&mut letters)?),
            ('\'' | '"', None) => {
                quote = Some(letter);
                push(b"");
            }
            (blank, None) if blank.is_whitespace() => words.extend(word.take()),
            (letter, _) => push(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    if quote.is_some() {
        return Err(GrammarError::Unclosed);
    }
    words.extend(word);
    Ok(words)
}

fn escape(letters: &mut std::str::Chars<'_>) -> Result<Vec<u8>, GrammarError> {
    Ok(match letters.next() {
        Some('n') => b"\n".to_vec(),
        Some('t') => b"\t".to_vec(),
        Some('r') => b"\r".to_vec(),
        Some('0') => b"\0".to_vec(),
        Some(letter @ ('\\' | '"' | '\'' | ' ')) => vec![letter as u8],
        Some('x') => {
            let digits: String = letters.take(2).collect();
            let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 2);
            vec![byte.ok_or(GrammarError::Escape(format!("x{digits}")))?]
        }
        Some(letter) => return Err(GrammarError::Escape(letter.to_string())),
        None => return Err(GrammarError::Unclosed),
    })
}

/// The command of a line; `None` for a blank one and a comment.
///
/// # Errors
/// See [`GrammarError`].
pub fn parse(line: &str) -> Result<Option<Command>, GrammarError> {
    if line.trim_start().starts_with('#') {
        return Ok(None);
    }
    command(words(line)?)
}

/// The command of words that were told apart elsewhere, by a shell.
///
/// # Errors
/// See [`GrammarError`].
pub fn command(words: Vec<Vec<u8>>) -> Result<Option<Command>, GrammarError> {
    let mut words = words.into_iter();
    let Some(name) = words.next() else { return Ok(None) };
    let name = String::from_utf8_lossy(&name).to_lowercase();
    let rest: Vec<_> = words.collect();
    let usage = || {
        let found = WORDS.iter().find(|(word, _, _)| *word == name);
        GrammarError::Usage(found.map_or("help", |(_, usage, _)| *usage))
    };
    let key = |bytes: &Vec<u8>| Key::bound(bytes.clone());
    let level = |word: Option<&Vec<u8>>| -> Result<Option<Level>, GrammarError> {
        Ok(word.map(|word| String::from_utf8_lossy(word).parse()).transpose()?)
    };
    Ok(Some(match (name.as_str(), rest.len()) {
        ("put", 2 | 3) => Command::Put {
            key: key(&rest[0]),
            value: rest[1].clone().into(),
            level: level(rest.get(2))?,
        },
        ("get", 1 | 2) => Command::Get { key: key(&rest[0]), level: level(rest.get(1))? },
        ("delete", 1 | 2) => Command::Delete { key: key(&rest[0]), level: level(rest.get(1))? },
        ("scan", 0..=3) => scan(&rest)?,
        ("status", 0) => Command::Status,
        ("server", 0 | 1) => {
            Command::Server(rest.first().map(|word| String::from_utf8_lossy(word).into_owned()))
        }
        ("help", 0 | 1) => {
            Command::Help(rest.first().map(|word| String::from_utf8_lossy(word).into_owned()))
        }
        ("exit" | "quit", 0) => Command::Exit,
        ("put" | "get" | "delete" | "scan" | "status" | "server" | "help" | "exit", _) => {
            return Err(usage());
        }
        _ => return Err(GrammarError::Unknown(name)),
    }))
}

/// `scan FROM TO LIMIT`, where the limit is always the third word; an empty word leaves a bound open.
fn scan(rest: &[Vec<u8>]) -> Result<Command, GrammarError> {
    let bound = |position: usize| rest.get(position).filter(|word| !word.is_empty());
    let limit = match bound(2) {
        None => DEFAULT_LIMIT,
        Some(word) => {
            let text = String::from_utf8_lossy(word);
            let number = text.parse().ok().filter(|number| (1..=10_000).contains(number));
            number.ok_or_else(|| GrammarError::Limit(text.into_owned()))?
        }
    };
    let from = bound(0).map_or_else(|| Key::bound(""), |word| Key::bound(word.clone()));
    Ok(Command::Scan { from, to: bound(1).map(|word| Key::bound(word.clone())), limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        words(line).unwrap().into_iter().map(|word| String::from_utf8(word).unwrap()).collect()
    }

    #[test]
    fn words_are_told_apart_and_quotes_hold_blanks() {
        assert_eq!(texts("put 137 v quorum"), ["put", "137", "v", "quorum"]);
        assert_eq!(texts("  a\t b  "), ["a", "b"]);
        assert_eq!(texts(r#"put "a key" 'it''s \n' """#), ["put", "a key", r"its \n", ""]);
        assert_eq!(texts(r#""a\"b\\" c\ d"#), [r#"a"b\"#, "c d"]);
        assert_eq!(words(r"\xff\x00").unwrap(), [vec![0xff, 0]]);
        assert_eq!(words("\"open"), Err(GrammarError::Unclosed));
        assert_eq!(words(r"\q"), Err(GrammarError::Escape("q".to_owned())));
        assert_eq!(words(r"\x4"), Err(GrammarError::Escape("x4".to_owned())));
    }

    #[test]
    fn lines_are_commands() {
        let key = Key::bound("137");
        let put = Command::Put { key: key.clone(), value: "v".into(), level: Some(Level::Quorum) };
        assert_eq!(parse("put 137 v quorum"), Ok(Some(put)));
        let get = Command::Get { key: key.clone(), level: Some(Level::Available) };
        assert_eq!(parse("get 137 available"), Ok(Some(get)));
        let get = Command::Get { key, level: None };
        assert_eq!(parse("GET 137"), Ok(Some(get)));
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse("   # note"), Ok(None));
        assert_eq!(parse("exit"), Ok(Some(Command::Exit)));
        let (from, to) = (Key::bound("a"), Some(Key::bound("b")));
        assert_eq!(parse("scan a b 7"), Ok(Some(Command::Scan { from, to, limit: 7 })));
        let (from, to) = (Key::bound(""), None);
        assert_eq!(parse("scan '' '' 7"), Ok(Some(Command::Scan { from, to, limit: 7 })));
    }

    #[test]
    fn what_is_no_command_is_told_why() {
        assert!(
            matches!(parse("put 1"), Err(GrammarError::Usage(usage)) if usage.starts_with("put"))
        );
        assert!(matches!(parse("frobnicate"), Err(GrammarError::Unknown(_))));
        assert!(matches!(parse("get 1 two"), Err(GrammarError::Level(_))));
        assert!(matches!(parse("scan a b none"), Err(GrammarError::Limit(_))));
        assert!(matches!(parse("exit now"), Err(GrammarError::Usage(_))));
    }
}
