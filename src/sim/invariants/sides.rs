//! What AVAILABLE and ONE promise on one side of whatever has happened: as long as the same replicas of a key live and are
//! reached, and the coordinators know it.
//!
//! - A get at AVAILABLE is never older than what was acknowledged or read there before, unless at ONE, which may show what nobody else
//!   has yet; nor, wherever it was, if both had QUORUM.
//! - What an answer at AVAILABLE says of itself is true: it has had a majority, or all that live.
//! - A get at ONE through a coordinator is never older than what that one has acknowledged before; and it does not say
//!   *not found* of what was acknowledged on its side, unless somebody has not answered until its deadline.

use std::collections::{BTreeMap, BTreeSet};

use super::Evidence;
use crate::model::{
    ClientRequest, ClientResponse, Failure, Key, Level, PreparedPut, Reached, ServerId, Version,
};

/// How things stand around a coordinator and a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Moment {
    /// How often anything has changed in who lives and who reaches whom.
    pub(in super::super) weather: u64,
    /// The replicas that live, vote, and are reached from there.
    pub(in super::super) side: BTreeSet<ServerId>,
    /// The coordinator believes just these alive.
    pub(in super::super) is_known: bool,
}

/// A call that was begun.
#[derive(Clone, Debug)]
struct Begun {
    key: Key,
    level: Level,
    is_write: bool,
    /// Who coordinates, in which life.
    coordinator: (ServerId, u64),
    start: u64,
    /// When it is late.
    limit: u64,
    before: Moment,
}

#[derive(Clone, Debug)]
struct Ended {
    call: Begun,
    end: u64,
    after: Moment,
    version: Version,
    reached: Option<Reached>,
}

/// Notes the calls of clients that concern one key.
#[derive(Debug, Default)]
pub(in super::super) struct Sides {
    begun: BTreeMap<u64, Begun>,
    ended: BTreeMap<Key, Vec<Ended>>,
    /// Of keys at AVAILABLE: answers that had less than QUORUM.
    pub(in super::super) fell_back: BTreeSet<Key>,
}

/// The key of a call that is noted.
pub(in super::super) fn key_of(request: &ClientRequest) -> Option<&Key> {
    match request {
        ClientRequest::Put(PreparedPut { key, .. }) | ClientRequest::Get { key, .. } => Some(key),
        _ => None,
    }
}

impl Sides {
    pub(in super::super) fn begin(
        &mut self,
        number: u64,
        request: &ClientRequest,
        coordinator: (ServerId, u64),
        start: u64,
        before: Moment,
    ) {
        let (key, level, timeout, is_write) = match request {
            ClientRequest::Put(PreparedPut { key, level, timeout, .. }) => {
                (key, *level, *timeout, true)
            }
            ClientRequest::Get { key, level, timeout } => (key, *level, *timeout, false),
            _ => return,
        };
        let limit = start + timeout.map_or(u64::MAX / 2, |timeout| timeout.as_micros() as u64);
        let key = key.clone();
        let begun = Begun { key, level, is_write, coordinator, start, limit, before };
        self.begun.insert(number, begun);
    }

    /// The key and the coordinator of a call that was begun.
    pub(in super::super) fn whose(&self, number: u64) -> Option<(&Key, ServerId)> {
        self.begun.get(&number).map(|begun| (&begun.key, begun.coordinator.0))
    }

    pub(in super::super) fn end(
        &mut self,
        number: u64,
        result: &Result<ClientResponse, Failure>,
        end: u64,
        after: Moment,
    ) {
        let Some(call) = self.begun.remove(&number) else { return };
        let (version, reached) = match result {
            Ok(ClientResponse::Put { version, reached, .. }) => (*version, *reached),
            Ok(ClientResponse::Get { cell, reached }) => {
                (cell.as_ref().map_or(Version::ZERO, |cell| cell.version), *reached)
            }
            _ => return,
        };
        if reached.is_some_and(|reached| reached.level == Level::Available) {
            self.fell_back.insert(call.key.clone());
        }
        let ended = Ended { call, end, after, version, reached };
        self.ended.entry(ended.call.key.clone()).or_default().push(ended);
    }

    /// Answers at AVAILABLE that had less than QUORUM.
    pub(in super::super) fn fallen_back(&self) -> u64 {
        let fell =
            |ended: &&Ended| ended.reached.is_some_and(|reached| reached.level == Level::Available);
        self.ended.values().flatten().filter(fell).count() as u64
    }
}

/// Nothing has changed from the beginning of the one to the end of the other, and both knew how things stood.
fn on_one_side(first: &Ended, second: &Ended) -> bool {
    let moments = [&first.call.before, &first.after, &second.call.before, &second.after];
    // Of two events of one microsecond either may have been the first.
    first.end < second.call.start
        && moments.iter().all(|moment| moment.is_known && *moment == moments[0])
}

fn is_read_at_one(ended: &Ended) -> bool {
    ended.call.level == Level::One && !ended.call.is_write
}

fn is_quorum(ended: &Ended) -> bool {
    ended.reached.is_some_and(|reached| reached.level == Level::Quorum)
}

pub(super) fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let mut violations = Vec::new();
    for (key, calls) in &evidence.sides.ended {
        for second in calls {
            violations.extend(flag(second).map(|why| format!("key {key}: {why}")));
            for first in calls {
                if let Some(why) = pair(first, second) {
                    violations.push(format!("key {key}: {why}: {first:?}, and then {second:?}"));
                }
            }
        }
    }
    violations
}

/// Whether what an answer says of itself is true.
fn flag(ended: &Ended) -> Option<String> {
    let Reached { holding, replicas, .. } = ended.reached?;
    let majority = Level::Quorum.required(replicas);
    let required = majority.min(ended.after.side.len());
    let is_steady = ended.after.is_known && ended.call.before == ended.after;
    (is_steady && holding < required || is_quorum(ended) && holding < majority)
        .then(|| format!("it was content with {holding} of {required}: {ended:?}"))
}

fn pair(first: &Ended, second: &Ended) -> Option<&'static str> {
    if second.call.is_write || first.end > second.call.start {
        return None;
    }
    let is_older = second.version < first.version;
    let is_late = second.end >= second.call.limit;
    match second.call.level {
        Level::Available if is_older && is_quorum(first) && is_quorum(second) => {
            Some("both had QUORUM, and the second is older")
        }
        Level::Available if is_older && !is_read_at_one(first) && on_one_side(first, second) => {
            Some("a get on one side is older than what was there")
        }
        Level::One if is_late || !first.call.is_write || !on_one_side(first, second) => None,
        Level::One if is_older && first.call.coordinator == second.call.coordinator => {
            Some("a coordinator has acknowledged more than it reads")
        }
        Level::One if second.version.is_zero() => {
            Some("not found, and a replica that lives holds it")
        }
        _ => None,
    }
}
