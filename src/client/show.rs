//! Outcomes as text for people and as JSON for programs.

use serde_json::{Value as Json, json};

use super::grammar::Command;
use super::{Answered, Error};
use crate::model::{ClientResponse, DamagedRecord, Key, Reached, ScrubStatus, Version};

/// How the outcome of a command is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// For standard output: one line, or more, each ended.
    pub out: String,
    /// For standard error.
    pub note: String,
    /// What a program that does this alone exits with.
    pub exit: u8,
}

/// Bytes as text: printable as they are, others as escapes.
pub fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|letter| letter.is_control() || letter == '\\') => {
            text.to_owned()
        }
        Ok(_) | Err(_) => bytes.escape_ascii().to_string(),
    }
}

/// Bytes as JSON: a string, or an object with hexadecimal digits where they are no text.
pub fn json_text(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => {
            json!({"hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()})
        }
    }
}

/// Microseconds since 1970 as a date and time, UTC. Days to dates after Hinnant's *chrono-compatible date algorithms*.
pub fn time(micros: i64) -> String {
    let (days, rest) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (seconds, micros) = (rest / 1_000_000, rest % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// The outcome of a put, get, delete, scan or status.
pub fn outcome(command: &Command, result: &Result<Answered, Error>, as_json: bool) -> Shown {
    if as_json { in_json(command, result) } else { in_text(command, result) }
}

fn key_of(command: &Command) -> Option<&Key> {
    match command {
        Command::Put { key, .. } | Command::Get { key, .. } | Command::Delete { key, .. } => {
            Some(key)
        }
        Command::Scan { .. }
        | Command::Status
        | Command::Server(_)
        | Command::Help(_)
        | Command::Exit => None,
    }
}

fn in_text(command: &Command, result: &Result<Answered, Error>) -> Shown {
    let key = key_of(command).map(|key| text(key.as_bytes())).unwrap_or_default();
    let one = |out: String, exit: u8| Shown { out: out + "\n", note: String::new(), exit };
    let answered = match result {
        Ok(answered) => answered,
        Err(error) => {
            let is_write = matches!(command, Command::Put { .. } | Command::Delete { .. });
            let line = match error {
                Error::Unknown { why, ticket } => {
                    let ticket =
                        ticket.map(|ticket| format!("; ticket {ticket}")).unwrap_or_default();
                    format!("UNKNOWN {key}: {why}; it may or may not have been stored{ticket}")
                }
                error if is_write => format!("NOT STORED {key}: {error}"),
                error if key.is_empty() => format!("FAILED: {error}"),
                error => format!("FAILED {key}: {error}"),
            };
            return one(line, error.exit_code());
        }
    };
    let server = answered.server.map(|server| format!(", server {server}")).unwrap_or_default();
    let stamp =
        |version: Version| format!("time {}, version {version}{server}", time(version.time));
    let had = |reached: &Option<Reached>| {
        reached.as_ref().map_or(String::new(), |reached| format!("{reached}, "))
    };
    match (command, &answered.response) {
        (Command::Put { value, .. }, ClientResponse::Put { version, overtaken, reached }) => {
            let overtaken = if *overtaken { ", overtaken by a newer write" } else { "" };
            let (had, value, stamp) = (had(reached), text(value), stamp(*version));
            one(format!("SUCCESS {key} = {value} ({had}{stamp}{overtaken})"), 0)
        }
        (_, ClientResponse::Put { version, reached, .. }) => {
            one(format!("SUCCESS {key} deleted ({}{})", had(reached), stamp(*version)), 0)
        }
        (_, ClientResponse::Get { cell, reached }) => match cell {
            Some(cell) => {
                let stamp = format!("{}{}", had(reached), stamp(cell.version));
                match cell.content.value() {
                    Some(value) => one(format!("SUCCESS {key} = {} ({stamp})", text(value)), 0),
                    None => one(format!("NOT FOUND {key} (deleted; {stamp})"), 1),
                }
            }
            None => {
                let had = reached.map_or(String::new(), |reached| format!(" ({reached})"));
                one(format!("NOT FOUND {key}{had}"), 1)
            }
        },
        (_, ClientResponse::Scan { entries, next }) => {
            let line = |entry: &crate::model::ScanEntry| {
                format!("{} = {}\n", text(entry.key.as_bytes()), text(&entry.value))
            };
            let more = next
                .as_ref()
                .map_or(String::new(), |next| format!(", more from '{}'", text(next.as_bytes())));
            Shown {
                out: entries.iter().map(line).collect(),
                note: format!("{} keys{more}\n", entries.len()),
                exit: 0,
            }
        }
        (_, ClientResponse::Status(status)) => {
            let mut out = format!(
                "server {} incarnation {}: {}, {} keys ({} deleted), log {} bytes, hints log {} \
                 bytes, values in memory {} of {} bytes\n",
                status.server,
                status.incarnation,
                standing(status),
                status.keys,
                status.tombstones,
                status.log_bytes,
                status.hint_log_bytes,
                status.memory_bytes,
                status.memory_budget
            );
            if let Some(clock) = &status.clock {
                out += &format!("  {clock}\n");
            }
            for line in scrub_lines(status) {
                out += &format!("  {line}\n");
            }
            for peer in &status.peers {
                out += &format!(
                    "  sees server {} at {}: {}{}{}, {} hints wait for it\n",
                    peer.server,
                    peer.address,
                    if peer.alive { "up" } else { "down" },
                    if peer.voting { "" } else { ", not voting" },
                    peer.disk.as_ref().map_or(String::new(), |disk| format!(", {disk}")),
                    peer.hints
                );
            }
            Shown { out, note: String::new(), exit: 0 }
        }
        (_, other) => one(format!("{other:?}"), 0),
    }
}

fn in_json(command: &Command, result: &Result<Answered, Error>) -> Shown {
    let mut object = serde_json::Map::new();
    let mut set = |name: &str, value: Json| {
        object.insert(name.to_owned(), value);
    };
    set("version", json!(1));
    if let Some(key) = key_of(command) {
        set("key", json_text(key.as_bytes()));
    }
    let is_write = matches!(command, Command::Put { .. } | Command::Delete { .. });
    let (outcome, exit) = match result {
        Err(error) => {
            set("error", json!(error.to_string()));
            if let Error::Unknown { ticket: Some(ticket), .. } = error {
                set("ticket", json!(ticket.to_string()));
            }
            let outcome = match error {
                Error::Unknown { .. } => "unknown",
                _ if is_write => "not_stored",
                _ => "failed",
            };
            (outcome, error.exit_code())
        }
        Ok(answered) => {
            if let Some(server) = answered.server {
                set("server", json!(server.0));
            }
            let mut stamp = |version: Version| {
                set("time", json!(version.time));
                set("cell_version", json!(version.to_string()));
            };
            match &answered.response {
                ClientResponse::Put { version, overtaken, reached } => {
                    stamp(*version);
                    set_reached(&mut set, reached.as_ref());
                    if *overtaken {
                        set("overtaken", json!(true));
                    }
                    ("success", 0)
                }
                ClientResponse::Get { cell, reached } => {
                    if let Some(cell) = cell {
                        stamp(cell.version);
                    }
                    set_reached(&mut set, reached.as_ref());
                    match cell.as_ref().and_then(|cell| cell.content.value()) {
                        Some(value) => {
                            set("value", json_text(value));
                            ("success", 0)
                        }
                        None => ("not_found", 1),
                    }
                }
                ClientResponse::Scan { entries, next } => {
                    let entry = |entry: &crate::model::ScanEntry| {
                        json!({"key": json_text(entry.key.as_bytes()), "value": json_text(&entry.value),
                               "time": entry.version.time})
                    };
                    set("entries", Json::Array(entries.iter().map(entry).collect()));
                    if let Some(next) = next {
                        set("next", json_text(next.as_bytes()));
                    }
                    ("success", 0)
                }
                ClientResponse::Status(status) => {
                    set("status", status_json(status));
                    ("success", 0)
                }
                _ => ("success", 0),
            }
        }
    };
    set("outcome", json!(outcome));
    Shown { out: Json::Object(object).to_string() + "\n", note: String::new(), exit }
}

/// What a call at AVAILABLE has had, as JSON.
pub fn reached_json(reached: &Reached) -> Json {
    json!({"level": reached.level.name(), "holding": reached.holding, "replicas": reached.replicas})
}

fn set_reached(set: &mut dyn FnMut(&str, Json), reached: Option<&Reached>) {
    if let Some(reached) = reached {
        set("reached", reached_json(reached));
    }
}

/// Whether a server votes, and what its disk does that it should not.
pub fn standing(status: &crate::model::Status) -> String {
    let votes = if status.voting { "votes" } else { &status.state };
    match &status.disk {
        Some(disk) => format!("{votes}, {disk}"),
        None => votes.to_owned(),
    }
}

/// What the search for rot has found, and how far it is; nothing of a server that does not tell.
pub fn scrub_lines(status: &crate::model::Status) -> Vec<String> {
    let Some(scrub) = &status.scrub else { return Vec::new() };
    let last = match scrub.ended {
        0 => "not read through yet".to_owned(),
        ended => format!("last read through {}", time(ended)),
    };
    let now = match (scrub.rate, scrub.left) {
        (0, _) => ", scrub off".to_owned(),
        (_, 0) => String::new(),
        (rate, left) => format!(", {left} bytes left, about {} s", left.div_ceil(rate)),
    };
    let mut lines = vec![format!("sealed segments: {last}{now}")];
    if scrub.waiting > 0 {
        lines.push(format!(
            "{} damaged records are not healed: their keys are refused",
            scrub.waiting
        ));
    }
    for DamagedRecord { file, offset, key, found, healed } in &scrub.recent {
        let healed =
            healed.map_or("not healed yet".to_owned(), |at| format!("healed {}", time(at)));
        let (key, found) = (text(key), time(*found));
        lines.push(format!(
            "{file}, byte {offset}: the record of {key} is damaged, found {found}, {healed}"
        ));
    }
    lines
}

fn scrub_json(scrub: &ScrubStatus) -> Json {
    let record = |record: &DamagedRecord| {
        json!({"file": record.file, "offset": record.offset, "key": json_text(&record.key),
               "found": time(record.found), "healed": record.healed.map(time)})
    };
    let at = |micros: i64| (micros != 0).then(|| time(micros));
    json!({
        "rate": scrub.rate, "began": at(scrub.began), "ended": at(scrub.ended), "bytes_left": scrub.left,
        "waiting": scrub.waiting, "recent": scrub.recent.iter().map(record).collect::<Vec<_>>(),
    })
}

/// A status as JSON.
pub fn status_json(status: &crate::model::Status) -> Json {
    let peer = |peer: &crate::model::PeerStatus| {
        json!({"server": peer.server.0, "address": peer.address, "alive": peer.alive,
               "voting": peer.voting, "incarnation": peer.incarnation.0, "hints": peer.hints,
               "disk": peer.disk, "clock_offset_ms": peer.clock_offset_ms})
    };
    json!({
        "server": status.server.0, "incarnation": status.incarnation.0, "voting": status.voting,
        "state": status.state, "keys": status.keys, "tombstones": status.tombstones,
        "log_bytes": status.log_bytes, "hint_log_bytes": status.hint_log_bytes,
        "memory_bytes": status.memory_bytes, "memory_budget": status.memory_budget,
        "counters": status.counters, "disk": status.disk, "clock": status.clock,
        "scrub": status.scrub.as_ref().map(scrub_json),
        "peers": status.peers.iter().map(peer).collect::<Vec<_>>(),
    })
}

/// What `help` prints.
pub fn help(word: Option<&str>) -> String {
    use super::grammar::WORDS;
    let line = |(_, usage, what): &(&str, &str, &str)| format!("  {usage:42} {what}\n");
    match word {
        Some(word) => WORDS
            .iter()
            .find(|(name, _, _)| *name == word)
            .map_or_else(|| format!("there is no command '{word}'; try help\n"), line),
        None => {
            let words: String = WORDS.iter().map(line).collect();
            words
                + "Keys and values with blanks go in quotes; \\xNN stands for any byte. Without a level: quorum.\n"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cell, Content, Incarnation, Level, ServerId};

    fn version() -> Version {
        let (server, incarnation) = (ServerId(2), Incarnation(1));
        Version { time: 1_700_000_000_123_456, server, incarnation, step: 0 }
    }

    fn get(response: ClientResponse) -> Result<Answered, Error> {
        Ok(Answered { server: Some(ServerId(3)), response })
    }

    #[test]
    fn times_are_dates() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(time(1_700_000_000_123_456), "2023-11-14T22:13:20.123456Z");
        assert_eq!(time(951_782_400_000_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59.999999Z");
    }

    /// S5: these lines are what scripts read; they do not change.
    #[test]
    fn outcomes_have_their_words_and_exit_codes() {
        let command = Command::Get { key: Key::bound("137"), level: None };
        let cell = Cell { version: version(), content: Content::Value("v".into()) };
        let response = ClientResponse::Get { cell: Some(cell), reached: None };
        let shown = outcome(&command, &get(response), false);
        let expected = "SUCCESS 137 = v (time 2023-11-14T22:13:20.123456Z, version \
                        1700000000123456@2.1, server 3)\n";
        assert_eq!((shown.out.as_str(), shown.exit), (expected, 0));
        let response = ClientResponse::Get { cell: None, reached: None };
        let shown = outcome(&command, &get(response), false);
        assert_eq!((shown.out.as_str(), shown.exit), ("NOT FOUND 137\n", 1));
        let reached = Some(Reached { level: Level::Available, holding: 1, replicas: 3 });
        let shown = outcome(&command, &get(ClientResponse::Get { cell: None, reached }), false);
        assert_eq!(shown.out, "NOT FOUND 137 (available: 1 of 3 replicas)\n");
        let put = Command::Put {
            key: Key::bound("a b"),
            value: bytes::Bytes::from_static(b"\xff\n"),
            level: None,
        };
        let response = ClientResponse::Put { version: version(), overtaken: false, reached };
        let shown = outcome(&put, &get(response.clone()), false);
        assert!(shown.out.contains("(available: 1 of 3 replicas, time "), "{}", shown.out);
        let shown = outcome(&put, &get(response), true);
        let json: Json = serde_json::from_str(&shown.out).unwrap();
        assert_eq!(json["reached"], json!({"level": "AVAILABLE", "holding": 1, "replicas": 3}));
        let response = ClientResponse::Put { version: version(), overtaken: false, reached: None };
        let shown = outcome(&put, &get(response), false);
        assert!(shown.out.starts_with("SUCCESS a b = \\xff\\n ("), "{}", shown.out);
        let unknown = Error::Unknown { why: "timed out".to_owned(), ticket: Some(version()) };
        let shown = outcome(&put, &Err(unknown.clone()), false);
        assert!(shown.out.starts_with("UNKNOWN a b: timed out"), "{}", shown.out);
        assert_eq!(shown.exit, 4);
        let shown = outcome(&put, &Err(Error::Unreachable { tried: String::new() }), false);
        assert!(shown.out.starts_with("NOT STORED") && shown.exit == 6);
        let shown = outcome(&put, &Err(unknown), true);
        let json: Json = serde_json::from_str(&shown.out).unwrap();
        assert_eq!(json["outcome"], "unknown");
        assert_eq!(json["ticket"], "1700000000123456@2.1");
    }
}
