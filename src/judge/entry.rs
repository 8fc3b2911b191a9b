//! One finished operation, and its line of JSON.

use serde::{Deserialize, Serialize};

/// What a client did and was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Who: one that does one thing at a time.
    pub client: String,
    /// What it did.
    pub op: Op,
    /// To which key.
    pub key: String,
    /// Of a put, what was to be stored, unique in the history; of a get that succeeded, what was found. `None`: nothing.
    pub value: Option<String>,
    /// When it began: nanoseconds of one monotonic clock.
    pub start: u64,
    /// When its answer came, or it was given up.
    pub end: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// ONE, QUORUM, ALL or AVAILABLE.
    pub level: String,
    /// Which server coordinated; of a final read, whose own copy was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u16>,
    /// Time of the version that was written or found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<i64>,
    /// It reads one replica's own copy, after all faults have stopped.
    #[serde(rename = "final", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_final: bool,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Stores a value.
    Put,
    /// Reads one.
    Get,
    /// Deletes it.
    Delete,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It succeeded.
    Ok,
    /// It has not taken effect, and never will.
    Fail,
    /// Of a write: it may take effect at any later time, or never. Of a read: no answer came.
    Unknown,
}

impl Entry {
    /// Its line, without a line feed.
    pub fn to_json(&self) -> String {
        // Text and numbers: there is nothing in it that cannot be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The entry of a line.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(line: &str) -> Result<Entry, serde_json::Error> {
        serde_json::from_str(line)
    }

    /// Who it was, for people.
    pub(super) fn who(&self) -> String {
        match (self.is_final, self.node) {
            (true, Some(node)) => format!("server {node}"),
            (_, _) => self.client.clone(),
        }
    }
}
