//! Clients' calls: generated types to the model's and back.

use std::time::Duration;

use bytes::Bytes;
use chord_gen as wire;

use super::{CallError, Error, FailureCode, RemoteFailure};
use crate::model::{
    Cell, ClientRequest, ClientResponse, Content, DamagedRecord, Epoch, Failure, Incarnation,
    InspectSource, Invalid, Key, Level, MAX_VALUE_LENGTH, PeerStatus, PreparedPut, Reached,
    ScanEntry, ScrubStatus, ServerId, Status, TopologyView, Version, ViewRange, ViewServer,
};

/// Entries a client may ask for at once.
const MAX_LIMIT: usize = 10_000;
const DEFAULT_SCAN: usize = 100;
const DEFAULT_INSPECT: usize = 1_000;
/// Longest time-out a client may ask for, in milliseconds.
const MAX_TIMEOUT: u64 = 60_000;

pub(super) fn version_out(version: Version) -> wire::Version {
    wire::Version {
        time: version.time,
        server: version.server.0.into(),
        // Incarnations end at 2³¹ − 1, steps are counted from 0.
        incarnation: version.incarnation.0.min(i32::MAX as u32) as i32,
        step: version.step.min(i32::MAX as u32) as i32,
    }
}

pub(super) fn version_in(version: &wire::Version) -> Result<Version, Error> {
    Ok(Version {
        time: version.time,
        server: server_in(version.server)?,
        incarnation: incarnation_in(version.incarnation)?,
        step: u32::try_from(version.step)
            .map_err(|_| Error::Malformed { what: "a negative step" })?,
    })
}

pub(super) fn server_in(number: i32) -> Result<ServerId, Error> {
    u16::try_from(number)
        .map(ServerId)
        .map_err(|_| Error::Malformed { what: "a server number out of bounds" })
}

pub(super) fn incarnation_in(number: i32) -> Result<Incarnation, Error> {
    u32::try_from(number)
        .map(Incarnation)
        .map_err(|_| Error::Malformed { what: "a negative incarnation" })
}

pub(super) fn level_out(level: Level) -> wire::Level {
    match level {
        Level::One => wire::Level::ONE,
        Level::Quorum => wire::Level::QUORUM,
        Level::All => wire::Level::ALL,
        Level::Available => wire::Level::AVAILABLE,
    }
}

pub(super) fn level_in(level: Option<wire::Level>) -> Result<Level, Invalid> {
    match level {
        None | Some(wire::Level::QUORUM) => Ok(Level::Quorum),
        Some(wire::Level::ONE) => Ok(Level::One),
        Some(wire::Level::ALL) => Ok(Level::All),
        Some(wire::Level::AVAILABLE) => Ok(Level::Available),
        Some(wire::Level(number)) => Err(Invalid::Level { number }),
    }
}

fn reached_out(reached: Reached) -> wire::Reached {
    wire::Reached {
        level: level_out(reached.level),
        holding: reached.holding.min(i32::MAX as usize) as i32,
        replicas: reached.replicas.min(i32::MAX as usize) as i32,
    }
}

/// A level that is unknown here is an error, and so is a negative number: nothing could be said of such an answer.
fn reached_in(reached: Option<&wire::Reached>) -> Result<Option<Reached>, Error> {
    let Some(reached) = reached else { return Ok(None) };
    let count = |number: i32| {
        usize::try_from(number).map_err(|_| Error::Malformed { what: "a negative count" })
    };
    let level =
        level_in(Some(reached.level)).map_err(|_| Error::Malformed { what: "an unknown level" })?;
    let (holding, replicas) = (count(reached.holding)?, count(reached.replicas)?);
    Ok(Some(Reached { level, holding, replicas }))
}

pub(super) fn timeout_in(milliseconds: Option<i32>) -> Result<Option<Duration>, Invalid> {
    let refuse = |milliseconds: i32| Invalid::Timeout {
        milliseconds: milliseconds.into(),
        most: MAX_TIMEOUT,
    };
    match milliseconds {
        None => Ok(None),
        Some(number) => match u64::try_from(number) {
            Ok(number @ 1..=MAX_TIMEOUT) => Ok(Some(Duration::from_millis(number))),
            Ok(_) | Err(_) => Err(refuse(number)),
        },
    }
}

pub(super) fn timeout_out(timeout: Option<Duration>) -> Option<i32> {
    timeout.map(|timeout| timeout.as_millis().clamp(1, u128::from(MAX_TIMEOUT)) as i32)
}

fn limit_in(limit: Option<i32>, default: usize) -> Result<usize, Invalid> {
    match limit.map(usize::try_from) {
        None => Ok(default),
        Some(Ok(limit @ 1..=MAX_LIMIT)) => Ok(limit),
        Some(Ok(_) | Err(_)) => {
            Err(Invalid::Limit { limit: limit.unwrap_or(0).into(), most: MAX_LIMIT })
        }
    }
}

fn ticket_in(ticket: Option<wire::Version>) -> Result<Option<Version>, Invalid> {
    ticket.as_ref().map(version_in).transpose().map_err(|_| Invalid::Ticket)
}

fn after_in(after: Option<wire::Version>) -> Result<Option<Version>, Invalid> {
    after.as_ref().map(version_in).transpose().map_err(|_| Invalid::After)
}

fn bound_in(bytes: Option<Vec<u8>>) -> Result<Option<Key>, Invalid> {
    match bytes {
        None => Ok(None),
        Some(bytes) if bytes.is_empty() => Ok(Some(Key::bound(""))),
        Some(bytes) => Ok(Some(Key::new(bytes)?)),
    }
}

pub(super) fn put_in(request: wire::PutRequest) -> Result<ClientRequest, CallError> {
    let length = request.value.len();
    if length > MAX_VALUE_LENGTH {
        return Err(Invalid::ValueTooLong { length }.into());
    }
    Ok(ClientRequest::Put(PreparedPut {
        key: Key::new(request.key).map_err(Invalid::Key)?,
        content: Content::Value(request.value.into()),
        level: level_in(request.level)?,
        timeout: timeout_in(request.timeout_ms)?,
        ticket: ticket_in(request.ticket)?,
        after: after_in(request.after)?,
    }))
}

pub(super) fn remove_in(request: wire::DeleteRequest) -> Result<ClientRequest, CallError> {
    Ok(ClientRequest::Put(PreparedPut {
        key: Key::new(request.key).map_err(Invalid::Key)?,
        content: Content::Tombstone,
        level: level_in(request.level)?,
        timeout: timeout_in(request.timeout_ms)?,
        ticket: ticket_in(request.ticket)?,
        after: after_in(request.after)?,
    }))
}

pub(super) fn put_out(put: &PreparedPut, value: &Bytes) -> wire::PutRequest {
    wire::PutRequest {
        key: put.key.as_bytes().to_vec(),
        value: value.to_vec(),
        level: Some(level_out(put.level)),
        timeout_ms: timeout_out(put.timeout),
        ticket: put.ticket.map(version_out),
        after: put.after.map(version_out),
    }
}

pub(super) fn remove_out(put: &PreparedPut) -> wire::DeleteRequest {
    wire::DeleteRequest {
        key: put.key.as_bytes().to_vec(),
        level: Some(level_out(put.level)),
        timeout_ms: timeout_out(put.timeout),
        ticket: put.ticket.map(version_out),
        after: put.after.map(version_out),
    }
}

pub(super) fn prepare_in(request: wire::PrepareRequest) -> Result<ClientRequest, CallError> {
    Ok(ClientRequest::Prepare {
        key: Key::new(request.key).map_err(Invalid::Key)?,
        level: level_in(request.level)?,
        timeout: timeout_in(request.timeout_ms)?,
        after: after_in(request.after)?,
    })
}

pub(super) fn prepare_out(
    key: &Key,
    level: Level,
    timeout: Option<Duration>,
    after: Option<Version>,
) -> wire::PrepareRequest {
    wire::PrepareRequest {
        key: key.as_bytes().to_vec(),
        level: Some(level_out(level)),
        timeout_ms: timeout_out(timeout),
        after: after.map(version_out),
    }
}

pub(super) fn get_in(request: wire::GetRequest) -> Result<ClientRequest, CallError> {
    Ok(ClientRequest::Get {
        key: Key::new(request.key).map_err(Invalid::Key)?,
        level: level_in(request.level)?,
        timeout: timeout_in(request.timeout_ms)?,
    })
}

pub(super) fn get_out(key: &Key, level: Level, timeout: Option<Duration>) -> wire::GetRequest {
    wire::GetRequest {
        key: key.as_bytes().to_vec(),
        level: Some(level_out(level)),
        timeout_ms: timeout_out(timeout),
    }
}

pub(super) fn scan_in(request: wire::ScanRequest) -> Result<ClientRequest, CallError> {
    let any_order = request.any_order.unwrap_or(false);
    // A place may be longer than a key.
    let bound = |bytes: Option<Vec<u8>>| match any_order {
        true => Ok(bytes.map(Key::bound)),
        false => bound_in(bytes),
    };
    Ok(ClientRequest::Scan {
        from: bound(request.from_key)?.unwrap_or_else(|| Key::bound("")),
        to: bound(request.to_key)?,
        limit: limit_in(request.limit, DEFAULT_SCAN)?,
        level: level_in(request.level)?,
        timeout: timeout_in(request.timeout_ms)?,
        any_order,
    })
}

pub(super) fn scan_out(
    from: &Key,
    to: Option<&Key>,
    limit: usize,
    level: Level,
    timeout: Option<Duration>,
    any_order: bool,
) -> wire::ScanRequest {
    wire::ScanRequest {
        from_key: Some(from.as_bytes().to_vec()),
        to_key: to.map(|to| to.as_bytes().to_vec()),
        limit: Some(limit.min(i32::MAX as usize) as i32),
        level: Some(level_out(level)),
        timeout_ms: timeout_out(timeout),
        any_order: any_order.then_some(true),
    }
}

pub(super) fn inspect_in(request: wire::InspectRequest) -> Result<ClientRequest, CallError> {
    let source = match request.hints_for {
        None => InspectSource::Cells,
        Some(number) => match server_in(number) {
            Ok(server) => InspectSource::HintsFor(server),
            Err(_) => return Err(CallError::Application(format!("there is no server {number}"))),
        },
    };
    Ok(ClientRequest::Inspect {
        source,
        // A place, as an inspection answered it: longer than a key where keys are hashed.
        from: Key::bound(request.from_key.unwrap_or_default()),
        limit: limit_in(request.limit, DEFAULT_INSPECT)?,
    })
}

pub(super) fn inspect_out(source: InspectSource, from: &Key, limit: usize) -> wire::InspectRequest {
    wire::InspectRequest {
        from_key: Some(from.as_bytes().to_vec()),
        limit: Some(limit.min(i32::MAX as usize) as i32),
        hints_for: match source {
            InspectSource::Cells => None,
            InspectSource::HintsFor(server) => Some(server.0.into()),
        },
    }
}

// ── Answers ─────────────────────────────────────────────────────────────────────────────────────────────

pub(super) fn failure_out(failure: &Failure) -> wire::ChordError {
    let mut error = wire::ChordError {
        code: wire::ErrorCode::INVALID_REQUEST,
        message: failure.to_string(),
        level: None,
        required_replicas: None,
        received: None,
        alive: None,
        version: None,
        not_stored: None,
    };
    match failure {
        Failure::Invalid(_) => {}
        Failure::Unavailable { level, required, alive } => {
            error.code = wire::ErrorCode::UNAVAILABLE;
            error.level = Some(level_out(*level));
            error.required_replicas = Some(*required as i32);
            error.alive = Some(*alive as i32);
        }
        Failure::Joining { .. } => error.code = wire::ErrorCode::UNAVAILABLE,
        Failure::Overloaded { .. } | Failure::Disk { .. } => {
            error.code = wire::ErrorCode::OVERLOADED;
        }
        // A client of release 0.1 takes it for unknown, which is never wrong.
        Failure::Refused { level, required, version } => {
            error.code = wire::ErrorCode::TIMED_OUT;
            error.level = Some(level_out(*level));
            error.required_replicas = Some(*required as i32);
            error.received = Some(0);
            error.version = Some(version_out(*version));
            error.not_stored = Some(true);
        }
        Failure::TimedOut { level, required, received, version } => {
            error.code = wire::ErrorCode::TIMED_OUT;
            error.level = Some(level_out(*level));
            error.required_replicas = Some(*required as i32);
            error.received = Some(*received as i32);
            error.version = version.map(version_out);
        }
    }
    error
}

pub(super) fn failure_in(error: wire::ChordError) -> RemoteFailure {
    let count = |number: Option<i32>| number.and_then(|number| usize::try_from(number).ok());
    RemoteFailure {
        code: match error.code {
            wire::ErrorCode::INVALID_REQUEST => FailureCode::InvalidRequest,
            wire::ErrorCode::UNAVAILABLE => FailureCode::Unavailable,
            wire::ErrorCode::OVERLOADED => FailureCode::Overloaded,
            wire::ErrorCode::TIMED_OUT => FailureCode::TimedOut,
            wire::ErrorCode(number) => FailureCode::Other(number),
        },
        message: error.message,
        level: error.level.and_then(|level| level_in(Some(level)).ok()),
        required: count(error.required_replicas),
        received: count(error.received),
        alive: count(error.alive),
        version: error.version.as_ref().and_then(|version| version_in(version).ok()),
        not_stored: error.not_stored.unwrap_or_default(),
    }
}

pub(super) fn put_answer(
    version: Version,
    overtaken: bool,
    reached: Option<Reached>,
    server: ServerId,
) -> wire::PutResponse {
    wire::PutResponse {
        version: version_out(version),
        overtaken: overtaken.then_some(true),
        server: Some(server.0.into()),
        reached: reached.map(reached_out),
    }
}

pub(super) fn put_reply(answer: &wire::PutResponse) -> Result<ClientResponse, Error> {
    let overtaken = answer.overtaken.unwrap_or(false);
    let reached = reached_in(answer.reached.as_ref())?;
    Ok(ClientResponse::Put { version: version_in(&answer.version)?, overtaken, reached })
}

pub(super) fn get_answer(
    cell: Option<&Cell>,
    reached: Option<Reached>,
    server: ServerId,
) -> wire::GetResponse {
    let value = cell.and_then(|cell| cell.content.value());
    wire::GetResponse {
        found: value.is_some(),
        value: value.map(|value| value.to_vec()),
        version: cell.map(|cell| version_out(cell.version)),
        server: Some(server.0.into()),
        reached: reached.map(reached_out),
    }
}

pub(super) fn get_reply(answer: wire::GetResponse) -> Result<ClientResponse, Error> {
    let version = answer.version.as_ref().map(version_in).transpose()?;
    let content = match (answer.found, answer.value) {
        (true, Some(value)) => Content::Value(value.into()),
        (true, None) => {
            return Err(Error::Malformed { what: "a value that is found and not there" });
        }
        (false, _) => Content::Tombstone,
    };
    if version.is_none() && content != Content::Tombstone {
        return Err(Error::Malformed { what: "a value without a version" });
    }
    let reached = reached_in(answer.reached.as_ref())?;
    Ok(ClientResponse::Get { cell: version.map(|version| Cell { version, content }), reached })
}

pub(super) fn scan_answer(
    entries: &[ScanEntry],
    next: Option<&Key>,
    server: ServerId,
) -> wire::ScanResponse {
    let entry = |entry: &ScanEntry| wire::Entry {
        key: entry.key.as_bytes().to_vec(),
        value: entry.value.to_vec(),
        version: version_out(entry.version),
    };
    wire::ScanResponse {
        entries: entries.iter().map(entry).collect(),
        next_key: next.map(|next| next.as_bytes().to_vec()),
        server: Some(server.0.into()),
    }
}

pub(super) fn scan_reply(answer: wire::ScanResponse) -> Result<ClientResponse, Error> {
    let entry = |entry: wire::Entry| {
        let version = version_in(&entry.version)?;
        Ok(ScanEntry { key: Key::bound(entry.key), value: entry.value.into(), version })
    };
    let entries = answer.entries.into_iter().map(entry).collect::<Result<_, Error>>()?;
    Ok(ClientResponse::Scan { entries, next: answer.next_key.map(Key::bound) })
}

pub(super) fn inspect_answer(entries: &[(Key, Cell)], next: Option<&Key>) -> wire::InspectResponse {
    let entry = |(key, cell): &(Key, Cell)| wire::InspectEntry {
        key: key.as_bytes().to_vec(),
        value: cell.content.value().map(|value| value.to_vec()),
        version: version_out(cell.version),
    };
    wire::InspectResponse {
        entries: entries.iter().map(entry).collect(),
        next_key: next.map(|next| next.as_bytes().to_vec()),
    }
}

pub(super) fn inspect_reply(answer: wire::InspectResponse) -> Result<ClientResponse, Error> {
    let entry = |entry: wire::InspectEntry| {
        let content = entry.value.map_or(Content::Tombstone, |value| Content::Value(value.into()));
        let version = version_in(&entry.version)?;
        Ok((Key::bound(entry.key), Cell { version, content }))
    };
    let entries = answer.entries.into_iter().map(entry).collect::<Result<_, Error>>()?;
    Ok(ClientResponse::Inspected { entries, next: answer.next_key.map(Key::bound) })
}

pub(super) fn status_answer(status: &Status) -> wire::StatusResponse {
    let peer = |peer: &PeerStatus| wire::PeerStatus {
        server: peer.server.0.into(),
        address: peer.address.clone(),
        alive: peer.alive,
        voting: peer.voting,
        incarnation: version_out(Version { incarnation: peer.incarnation, ..Version::ZERO })
            .incarnation,
        hints: peer.hints as i64,
        disk: peer.disk.clone(),
        clock_offset_ms: peer.clock_offset_ms,
    };
    let own = Version { incarnation: status.incarnation, ..Version::ZERO };
    wire::StatusResponse {
        server: status.server.0.into(),
        incarnation: version_out(own).incarnation,
        voting: status.voting,
        state: status.state.clone(),
        peers: status.peers.iter().map(peer).collect(),
        keys: status.keys as i64,
        tombstones: status.tombstones as i64,
        log_bytes: status.log_bytes as i64,
        hint_log_bytes: status.hint_log_bytes as i64,
        memory_bytes: status.memory_bytes as i64,
        memory_budget: status.memory_budget as i64,
        counters: status.counters.iter().map(|(name, n)| (name.clone(), *n as i64)).collect(),
        disk: status.disk.clone(),
        scrub: status.scrub.as_ref().map(scrub_out),
        clock: status.clock.clone(),
    }
}

fn scrub_out(scrub: &ScrubStatus) -> wire::ScrubStatus {
    let record = |record: &DamagedRecord| wire::DamagedRecord {
        file: record.file.clone(),
        offset: record.offset as i64,
        key: record.key.to_vec(),
        found: record.found,
        healed: record.healed,
    };
    wire::ScrubStatus {
        rate: scrub.rate as i64,
        began: Some(scrub.began).filter(|began| *began != 0),
        ended: Some(scrub.ended).filter(|ended| *ended != 0),
        bytes_left: scrub.left as i64,
        waiting: scrub.waiting as i64,
        recent: scrub.recent.iter().map(record).collect(),
    }
}

fn scrub_in(scrub: wire::ScrubStatus) -> ScrubStatus {
    let record = |record: wire::DamagedRecord| DamagedRecord {
        file: record.file,
        offset: record.offset as u64,
        key: record.key.into(),
        found: record.found,
        healed: record.healed,
    };
    ScrubStatus {
        rate: scrub.rate as u64,
        began: scrub.began.unwrap_or(0),
        ended: scrub.ended.unwrap_or(0),
        left: scrub.bytes_left as u64,
        waiting: scrub.waiting as u64,
        recent: scrub.recent.into_iter().map(record).collect(),
    }
}

pub(super) fn status_reply(answer: wire::StatusResponse) -> Result<ClientResponse, Error> {
    let peer = |peer: wire::PeerStatus| {
        Ok(PeerStatus {
            server: server_in(peer.server)?,
            address: peer.address,
            alive: peer.alive,
            voting: peer.voting,
            incarnation: incarnation_in(peer.incarnation)?,
            hints: peer.hints as u64,
            disk: peer.disk,
            clock_offset_ms: peer.clock_offset_ms,
        })
    };
    Ok(ClientResponse::Status(Box::new(Status {
        server: server_in(answer.server)?,
        incarnation: incarnation_in(answer.incarnation)?,
        voting: answer.voting,
        state: answer.state,
        peers: answer.peers.into_iter().map(peer).collect::<Result<_, Error>>()?,
        keys: answer.keys as u64,
        tombstones: answer.tombstones as u64,
        log_bytes: answer.log_bytes as u64,
        hint_log_bytes: answer.hint_log_bytes as u64,
        memory_bytes: answer.memory_bytes as u64,
        memory_budget: answer.memory_budget as u64,
        counters: answer.counters.into_iter().map(|(name, n)| (name, n as u64)).collect(),
        disk: answer.disk,
        scrub: answer.scrub.map(scrub_in),
        clock: answer.clock,
    })))
}

pub(super) fn topology_answer(view: &TopologyView) -> wire::TopologyResponse {
    let server = |server: &ViewServer| wire::TopologyServer {
        server: server.server.0.into(),
        address: server.address.clone(),
    };
    let range = |range: &ViewRange| wire::TopologyRange {
        start: range.start.to_vec(),
        epoch: range.epoch.0 as i64,
        replicas: range.replicas.iter().map(|replica| replica.0.into()).collect(),
    };
    wire::TopologyResponse {
        cluster: view.cluster.clone(),
        servers: view.servers.iter().map(server).collect(),
        ranges: view.ranges.iter().map(range).collect(),
        partitioner: view.partitioner.clone(),
    }
}

pub(super) fn topology_reply(answer: wire::TopologyResponse) -> Result<ClientResponse, Error> {
    let server = |server: wire::TopologyServer| {
        Ok(ViewServer { server: server_in(server.server)?, address: server.address })
    };
    let range = |range: wire::TopologyRange| {
        Ok(ViewRange {
            start: range.start.into(),
            epoch: Epoch(range.epoch as u64),
            replicas: range.replicas.into_iter().map(server_in).collect::<Result<_, Error>>()?,
        })
    };
    Ok(ClientResponse::Topology(Box::new(TopologyView {
        cluster: answer.cluster,
        servers: answer.servers.into_iter().map(server).collect::<Result<_, Error>>()?,
        ranges: answer.ranges.into_iter().map(range).collect::<Result<_, Error>>()?,
        partitioner: answer.partitioner,
    })))
}
