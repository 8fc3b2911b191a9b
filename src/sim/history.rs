//! What clients did, and what they were told.

use crate::model::{Key, Level, ServerId, Version};

/// A value by its number; 0 is *nothing there*. Every put has a number of its own.
pub(super) type Value = u32;

/// One operation on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) client: usize,
    /// Who coordinated, or was asked last.
    pub(super) server: ServerId,
    pub(super) level: Level,
    pub(super) key: Key,
    pub(super) kind: Kind,
    /// Virtual microseconds.
    pub(super) start: u64,
    /// When it ended; of an unknown write, when it was given up.
    pub(super) end: u64,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What was read is in the outcome.
    Read,
    /// A delete writes 0.
    Write(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Of a write.
    Done(Version),
    /// Of a read.
    Found(Value),
    /// A definite no.
    Refused,
    /// Of a write: it may take effect at any later time, or never. Of a read: nothing is known.
    Unknown,
}

impl Operation {
    /// As a line of JSON: what outside checkers read. Times are nanoseconds of virtual time; `final`: it was made after
    /// all faults had stopped.
    pub(super) fn to_json(&self, is_final: bool) -> String {
        let text = |value: Value| (value != 0).then(|| format!("v{value}"));
        let (op, value) = match (self.kind, self.outcome) {
            (Kind::Write(0), _) => ("delete", None),
            (Kind::Write(value), _) => ("put", text(value)),
            (Kind::Read, Outcome::Found(value)) => ("get", text(value)),
            (Kind::Read, _) => ("get", None),
        };
        let (outcome, ts) = match self.outcome {
            Outcome::Done(version) => ("ok", Some(version.time)),
            Outcome::Found(_) => ("ok", None),
            Outcome::Refused => ("fail", None),
            Outcome::Unknown => ("unknown", None),
        };
        let client = if is_final { "end".to_owned() } else { format!("c{}", self.client) };
        let mut line = serde_json::json!({
            "client": client,
            "op": op,
            "key": self.key.to_string(),
            "value": value,
            "start": self.start * 1_000,
            "end": self.end * 1_000,
            "outcome": outcome,
            "level": self.level.name(),
            "node": self.server.0,
        });
        if let (Some(ts), Some(line)) = (ts, line.as_object_mut()) {
            line.insert("ts".to_owned(), ts.into());
        }
        if let (true, Some(line)) = (is_final, line.as_object_mut()) {
            line.insert("final".to_owned(), true.into());
        }
        line.to_string()
    }
}
