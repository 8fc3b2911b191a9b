//! What clients did, and what they were told.

use super::workload::{is_at_one, value_of};
use crate::judge::{Entry, Op, Outcome as Told};
use crate::model::{Cell, Key, Level, ServerId, Version};

pub(super) use crate::judge::oracle::Value;

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
    /// Whether the key behaves as one copy in its eyes: not if it, or whoever else writes the key, is content with one replica.
    pub(super) fn is_promised(&self) -> bool {
        !is_at_one(&self.key) && (self.level != Level::One || self.kind != Kind::Read)
    }

    /// As outside checkers read it. Times are nanoseconds of virtual time.
    pub(super) fn to_entry(&self, is_nobodys: bool) -> Entry {
        let (op, value) = match (self.kind, self.outcome) {
            (Kind::Write(0), _) => (Op::Delete, None),
            (Kind::Write(value), _) => (Op::Put, text(value)),
            (Kind::Read, Outcome::Found(value)) => (Op::Get, text(value)),
            (Kind::Read, _) => (Op::Get, None),
        };
        let (outcome, ts) = match self.outcome {
            Outcome::Done(version) => (Told::Ok, Some(version.time)),
            Outcome::Found(_) => (Told::Ok, None),
            Outcome::Refused => (Told::Fail, None),
            Outcome::Unknown => (Told::Unknown, None),
        };
        Entry {
            client: if is_nobodys { "end".to_owned() } else { format!("c{}", self.client) },
            op,
            key: self.key.to_string(),
            value,
            start: self.start * 1_000,
            end: self.end * 1_000,
            outcome,
            level: self.level.name().to_owned(),
            node: Some(self.server.0),
            ts,
            is_final: false,
        }
    }
}

fn text(value: Value) -> Option<String> {
    (value != 0).then(|| format!("v{value}"))
}

/// What one replica holds of a key at the end.
pub(super) fn final_entry(server: ServerId, key: &Key, cell: Option<&Cell>, now: u64) -> Entry {
    Entry {
        client: format!("node{server}"),
        op: Op::Get,
        key: key.to_string(),
        value: cell.and_then(|cell| text(value_of(&cell.content))),
        start: now * 1_000,
        end: now * 1_000,
        outcome: Told::Ok,
        level: Level::One.name().to_owned(),
        node: Some(server.0),
        ts: cell.map(|cell| cell.version.time),
        is_final: true,
    }
}
