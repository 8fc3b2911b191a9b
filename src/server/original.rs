//! The original program's calls, as calls of today.

use bytes::Bytes;

use crate::model::{ClientRequest, ClientResponse, Content, Failure, PreparedPut, ServerId};
use crate::wire::original::{self, key};
use crate::wire::{Answer, OriginalAnswer, OriginalCall};

/// What a call of the original becomes.
#[derive(Debug)]
pub(crate) enum Translation {
    /// It can be answered at once.
    Answer(Answer),
    /// It is this request; the answer is translated by [`Question::answer`].
    Request(ClientRequest, Question),
}

/// What was asked, for the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// `clientGet`.
    Get { number: u8 },
    /// `clientPut`.
    Put { number: u8, value: Bytes },
    /// `getInfo`.
    Info,
}

/// Translates a call to `server`.
pub(crate) fn translate(call: OriginalCall, server: ServerId) -> Translation {
    match call {
        OriginalCall::Hello => {
            let text = format!("Hello from Chord server {server}");
            Translation::Answer(Answer::Original(Ok(OriginalAnswer::Text(text))))
        }
        OriginalCall::ServerId => {
            let number = OriginalAnswer::Number(i32::from(server.0));
            Translation::Answer(Answer::Original(Ok(number)))
        }
        OriginalCall::Info => Translation::Request(ClientRequest::Status, Question::Info),
        OriginalCall::Get { number, level } => Translation::Request(
            ClientRequest::Get { key: key(number), level, timeout: None },
            Question::Get { number },
        ),
        OriginalCall::Put { number, value, level } => {
            let content = Content::Value(value.clone());
            let put = PreparedPut {
                key: key(number),
                content,
                level,
                timeout: None,
                ticket: None,
                after: None,
            };
            Translation::Request(ClientRequest::Put(put), Question::Put { number, value })
        }
    }
}

impl Question {
    /// The answer in the original's words.
    pub(crate) fn answer(self, result: Result<ClientResponse, Failure>) -> Answer {
        Answer::Original(match result {
            Ok(response) => self.success(response),
            Err(failure) => Err(original::text(&failure).to_owned()),
        })
    }

    fn success(self, response: ClientResponse) -> Result<OriginalAnswer, String> {
        match (self, response) {
            (Question::Get { number }, ClientResponse::Get { cell, .. }) => Ok(match cell {
                Some(cell) => match cell.content {
                    Content::Value(value) => {
                        OriginalAnswer::Held { number, value, time: cell.version.time }
                    }
                    Content::Tombstone => OriginalAnswer::NotFound { number },
                },
                None => OriginalAnswer::NotFound { number },
            }),
            (Question::Put { number, value }, ClientResponse::Put { version, .. }) => {
                Ok(OriginalAnswer::Held { number, value, time: version.time })
            }
            (Question::Info, ClientResponse::Status(status)) => {
                let peers = status.peers.iter().map(|peer| {
                    serde_json::json!({
                        "server": peer.server.0, "address": peer.address, "alive": peer.alive,
                        "voting": peer.voting, "incarnation": peer.incarnation.0, "hints": peer.hints,
                    })
                });
                let peers = peers.collect::<Vec<_>>();
                let info = serde_json::json!({
                    "server": status.server.0, "incarnation": status.incarnation.0,
                    "voting": status.voting, "state": status.state, "keys": status.keys,
                    "tombstones": status.tombstones, "log_bytes": status.log_bytes,
                    "hint_log_bytes": status.hint_log_bytes, "memory_bytes": status.memory_bytes,
                    "memory_budget": status.memory_budget, "peers": peers,
                    "counters": status.counters,
                });
                Ok(OriginalAnswer::Text(info.to_string()))
            }
            // The node answers each call in kind; should it not, the client is told and nothing breaks.
            _ => Err("Internal error".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cell, Level, Version};

    #[test]
    fn a_get_of_a_number_reads_three_digits_and_answers_with_value_and_time() {
        let call = OriginalCall::Get { number: 7, level: Level::One };
        let Translation::Request(ClientRequest::Get { key, level, .. }, question) =
            translate(call, ServerId(2))
        else {
            panic!("a get becomes a get");
        };
        assert_eq!((key.as_bytes(), level), (&b"007"[..], Level::One));
        let version = Version { time: 5, ..Version::ZERO };
        let cell =
            |content| ClientResponse::Get { cell: Some(Cell { version, content }), reached: None };
        let found = question.clone().answer(Ok(cell(Content::Value("v".into()))));
        let expected = OriginalAnswer::Held { number: 7, value: "v".into(), time: 5 };
        assert_eq!(found, Answer::Original(Ok(expected)));
        let deleted = question.answer(Ok(cell(Content::Tombstone)));
        assert_eq!(deleted, Answer::Original(Ok(OriginalAnswer::NotFound { number: 7 })));
    }

    #[test]
    fn failures_have_the_originals_words() {
        let timed_out =
            Failure::TimedOut { level: Level::One, required: 1, received: 0, version: None };
        let put = Question::Put { number: 0, value: Bytes::new() };
        let expected = Answer::Original(Err("Timed out, outcome unknown".into()));
        assert_eq!(put.answer(Err(timed_out)), expected);
        let unavailable = Failure::Unavailable { level: Level::Quorum, required: 2, alive: 1 };
        let expected = Answer::Original(Err("Not enough replicas alive".into()));
        assert_eq!(Question::Get { number: 0 }.answer(Err(unavailable)), expected);
    }
}
