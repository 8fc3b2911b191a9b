//! Servers' calls among themselves: generated types to the model's and back.

use chord_gen as wire;

use super::Error;
use super::client::{incarnation_in, server_in, version_in, version_out};
use crate::model::{
    Cell, Checksum, Content, DiskState, Epoch, FolderId, Hello, HelloRefusal, Incarnation, Join,
    Key, MAX_PLACE_LENGTH, MAX_VALUE_LENGTH, PageEntry, PeerAnswer, PeerReply, PeerRequest, Proof,
    Read, Refusal, Remembered, Sender, ServerId, Version,
};

pub(super) fn incarnation_out(incarnation: Incarnation) -> i32 {
    version_out(Version { incarnation, ..Version::ZERO }).incarnation
}

/// Recovery would call its record damage.
const NOT_ISSUED: Error = Error::Malformed { what: "a cell under a version that no write has" };

/// A place, or a bound of a range, which may be empty.
fn place_in(bytes: Vec<u8>) -> Result<Key, Error> {
    if bytes.len() > MAX_PLACE_LENGTH {
        return Err(Error::Malformed { what: "a key that is too long" });
    }
    Ok(Key::bound(bytes))
}

fn value_in(value: Vec<u8>) -> Result<Content, Error> {
    if value.len() > MAX_VALUE_LENGTH {
        return Err(Error::Malformed { what: "a value that is too long" });
    }
    Ok(Content::Value(value.into()))
}

pub(super) fn hello_out(hello: &Hello) -> wire::PeerHello {
    wire::PeerHello {
        cluster: hello.cluster.clone(),
        topology_hash: hello.topology as i64,
        server: hello.server.0.into(),
        incarnation: incarnation_out(hello.incarnation),
        folder: hello.folder.0 as i64,
        voting: hello.voting,
        position: hello.position as i64,
        remembered_incarnation: hello.remembers.map(|r| incarnation_out(r.incarnation)),
        remembered_folder: hello.remembers.map(|r| r.folder.0 as i64),
        remembered_position: hello.remembers.map(|r| r.position as i64),
        secret: hello.secret.clone(),
        nonce: hello.proof.map(|proof| proof.nonce.to_vec()),
        proof: hello.proof.map(|proof| proof.mac.to_vec()),
        session: Some(hello.session as i64),
        remembered_session: hello.remembers.map(|r| r.session as i64),
        remembered_before: hello.remembers.map(|r| r.before as i64),
    }
}

pub(super) fn hello_in(hello: wire::PeerHello) -> Result<Hello, Error> {
    let remembers =
        match (hello.remembered_incarnation, hello.remembered_folder, hello.remembered_position) {
            (Some(incarnation), Some(folder), Some(position)) => Some(Remembered {
                incarnation: incarnation_in(incarnation)?,
                folder: FolderId(folder as u64),
                replaced: false,
                position: position as u64,
                session: hello.remembered_session.unwrap_or(0) as u64,
                before: hello.remembered_before.unwrap_or(0) as u64,
            }),
            (_, _, _) => None,
        };
    Ok(Hello {
        cluster: hello.cluster,
        topology: hello.topology_hash as u64,
        server: server_in(hello.server)?,
        incarnation: incarnation_in(hello.incarnation)?,
        folder: FolderId(hello.folder as u64),
        voting: hello.voting,
        position: hello.position as u64,
        session: hello.session.unwrap_or(0) as u64,
        remembers,
        secret: hello.secret,
        proof: match (hello.nonce, hello.proof) {
            (Some(nonce), Some(mac)) => {
                Some(Proof { nonce: number_in(nonce)?, mac: number_in(mac)? })
            }
            (_, _) => None,
        },
    })
}

fn number_in(bytes: Vec<u8>) -> Result<[u8; 32], Error> {
    bytes.try_into().map_err(|_| Error::Malformed { what: "a proof that has not 32 bytes" })
}

pub(super) fn hello_refusal_out(refusal: &HelloRefusal) -> wire::PeerRefusal {
    let challenge = refusal.challenge.map(|challenge| challenge.to_vec());
    wire::PeerRefusal { message: refusal.message.clone(), challenge }
}

pub(super) fn hello_refusal_in(refusal: wire::PeerRefusal) -> Result<HelloRefusal, Error> {
    let challenge = refusal.challenge.map(number_in).transpose()?;
    Ok(HelloRefusal { message: refusal.message, challenge })
}

fn sender_out(sender: &Sender) -> wire::PeerSender {
    let known = &sender.known;
    wire::PeerSender {
        incarnation: incarnation_out(sender.incarnation),
        voting: sender.voting,
        position: sender.position as i64,
        known_servers: known.iter().map(|(server, _)| server.0.into()).collect(),
        known_incarnations: known.iter().map(|(_, known)| incarnation_out(*known)).collect(),
        session: Some(sender.session as i64),
        disk: disk_out(sender.disk).map(wire::DiskState),
    }
}

/// Nothing is said of a disk that does what it should.
pub(super) fn disk_out(disk: DiskState) -> Option<i32> {
    let state = match disk {
        DiskState::Healthy => return None,
        DiskState::Hanging => wire::DiskState::HANGING,
        DiskState::Full => wire::DiskState::FULL,
        DiskState::ReadOnly => wire::DiskState::READ_ONLY,
    };
    Some(state.0)
}

/// A state that is not known here is taken for one in which nothing can be written.
pub(super) fn disk_in(disk: Option<i32>) -> DiskState {
    match disk.map(wire::DiskState) {
        None | Some(wire::DiskState::HEALTHY) => DiskState::Healthy,
        Some(wire::DiskState::HANGING) => DiskState::Hanging,
        Some(wire::DiskState::FULL) => DiskState::Full,
        Some(_) => DiskState::ReadOnly,
    }
}

fn sender_in(sender: wire::PeerSender) -> Result<Sender, Error> {
    if sender.known_servers.len() != sender.known_incarnations.len() {
        return Err(Error::Malformed { what: "servers and incarnations that do not pair" });
    }
    let pairs = sender.known_servers.iter().zip(&sender.known_incarnations);
    let known = |(server, incarnation): (&i32, &i32)| -> Result<(ServerId, Incarnation), Error> {
        Ok((server_in(*server)?, incarnation_in(*incarnation)?))
    };
    Ok(Sender {
        incarnation: incarnation_in(sender.incarnation)?,
        voting: sender.voting,
        position: sender.position as u64,
        session: sender.session.unwrap_or(0) as u64,
        known: pairs.map(known).collect::<Result<_, Error>>()?,
        disk: disk_in(sender.disk.map(|disk| disk.0)),
    })
}

fn refusal_out(refusal: Refusal) -> wire::RefusalReason {
    match refusal {
        Refusal::NotReplica => wire::RefusalReason::NOT_REPLICA,
        Refusal::WrongEpoch => wire::RefusalReason::WRONG_EPOCH,
        Refusal::Storage => wire::RefusalReason::STORAGE,
        Refusal::Overloaded => wire::RefusalReason::OVERLOADED,
    }
}

/// A reason that is not known here is a refusal all the same.
fn refusal_in(reason: wire::RefusalReason) -> Refusal {
    match reason {
        wire::RefusalReason::NOT_REPLICA => Refusal::NotReplica,
        wire::RefusalReason::WRONG_EPOCH => Refusal::WrongEpoch,
        wire::RefusalReason::STORAGE => Refusal::Storage,
        _ => Refusal::Overloaded,
    }
}

// ── Requests ────────────────────────────────────────────────────────────────────────────────────────────

pub(super) fn read_out(read: &Read) -> wire::PeerRead {
    wire::PeerRead {
        key: read.key.as_bytes().to_vec(),
        epoch: read.epoch.0 as i64,
        with_value: read.with_value,
    }
}

pub(super) fn read_in(read: wire::PeerRead) -> Result<PeerRequest, Error> {
    let epoch = Epoch(read.epoch as u64);
    Ok(PeerRequest::Read(Read { key: place_in(read.key)?, epoch, with_value: read.with_value }))
}

pub(super) fn store_out(key: &Key, epoch: Epoch, cell: &Cell) -> wire::PeerStore {
    wire::PeerStore {
        key: key.as_bytes().to_vec(),
        epoch: epoch.0 as i64,
        version: version_out(cell.version),
        value: cell.content.value().map(|value| value.to_vec()),
    }
}

pub(super) fn store_in(store: wire::PeerStore) -> Result<PeerRequest, Error> {
    let content = store.value.map_or(Ok(Content::Tombstone), value_in)?;
    if store.key.is_empty() {
        return Err(Error::Malformed { what: "a store of the empty key" });
    }
    let version = version_in(&store.version)?;
    if !version.is_issued() {
        return Err(NOT_ISSUED);
    }
    Ok(PeerRequest::Store {
        key: place_in(store.key)?,
        epoch: Epoch(store.epoch as u64),
        cell: Cell { version, content },
    })
}

pub(super) fn page_out(
    from: &Key,
    to: Option<&Key>,
    epoch: Epoch,
    max_entries: usize,
    max_bytes: usize,
    with_values: bool,
) -> wire::PeerPage {
    wire::PeerPage {
        from_key: from.as_bytes().to_vec(),
        to_key: to.map(|to| to.as_bytes().to_vec()),
        epoch: epoch.0 as i64,
        max_entries: max_entries.min(i32::MAX as usize) as i32,
        max_bytes: max_bytes.min(i32::MAX as usize) as i32,
        with_values,
    }
}

pub(super) fn page_in(page: wire::PeerPage) -> Result<PeerRequest, Error> {
    let bound = |number: i32, most: usize| match usize::try_from(number) {
        Ok(number) if number > 0 => Ok(number.min(most)),
        Ok(_) | Err(_) => Err(Error::Malformed { what: "a page without room" }),
    };
    Ok(PeerRequest::Page {
        from: place_in(page.from_key)?,
        to: page.to_key.map(place_in).transpose()?,
        epoch: Epoch(page.epoch as u64),
        max_entries: bound(page.max_entries, 10_000)?,
        max_bytes: bound(page.max_bytes, 1 << 20)?,
        with_values: page.with_values,
    })
}

pub(super) fn digest_out(start: &Key, epoch: Epoch) -> wire::PeerDigest {
    wire::PeerDigest { range_start: start.as_bytes().to_vec(), epoch: epoch.0 as i64 }
}

pub(super) fn digest_in(digest: wire::PeerDigest) -> Result<PeerRequest, Error> {
    let epoch = Epoch(digest.epoch as u64);
    Ok(PeerRequest::Digest { start: place_in(digest.range_start)?, epoch })
}

pub(super) fn clock_out(state: u64) -> wire::PeerClock {
    wire::PeerClock { state: state as i64 }
}

pub(super) fn clock_in(clock: &wire::PeerClock) -> PeerRequest {
    PeerRequest::Clock { state: clock.state as u64 }
}

pub(super) fn join_out(join: &Join) -> wire::PeerJoin {
    wire::PeerJoin { incarnation: incarnation_out(join.incarnation), folder: join.folder.0 as i64 }
}

pub(super) fn join_in(join: wire::PeerJoin) -> Result<PeerRequest, Error> {
    let incarnation = incarnation_in(join.incarnation)?;
    Ok(PeerRequest::Join(Join { incarnation, folder: FolderId(join.folder as u64) }))
}

// ── Replies ─────────────────────────────────────────────────────────────────────────────────────────────

/// A reply in the generated form of its method. A refusal has the form of whatever was asked.
pub(super) enum Form {
    Pong(wire::PeerPong),
    Read(wire::PeerReadReply),
    Store(wire::PeerStoreReply),
    Page(wire::PeerPageReply),
    Digest(wire::PeerDigestReply),
    Join(wire::PeerJoinReply),
    Clock(wire::PeerClockReply),
}

/// Which form is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Ping,
    Read,
    Store,
    Page,
    Digest,
    Join,
    Clock,
}

/// The reply in the form of what was asked; `None` if it is the answer to something else.
pub(super) fn reply_out(asked: Asked, reply: &PeerReply) -> Option<Form> {
    let sender = sender_out(&reply.sender);
    let refused = match reply.answer {
        PeerAnswer::Refused(refusal) => Some(refusal_out(refusal)),
        _ => None,
    };
    Some(match (asked, &reply.answer) {
        (Asked::Ping, PeerAnswer::Pong { wall }) => {
            Form::Pong(wire::PeerPong { sender, wall: *wall })
        }
        (Asked::Ping, PeerAnswer::Refused(_)) => Form::Pong(wire::PeerPong { sender, wall: None }),
        (Asked::Read, PeerAnswer::Held { version, checksum, content }) => {
            Form::Read(wire::PeerReadReply {
                sender,
                refused,
                version: Some(version_out(*version)),
                value: content.as_ref().and_then(Content::value).map(|value| value.to_vec()),
                tombstone: (*content == Some(Content::Tombstone)).then_some(true),
                checksum: checksum.map(Checksum::number),
            })
        }
        (Asked::Read, PeerAnswer::Refused(_)) => {
            let (version, value, tombstone, checksum) = (None, None, None, None);
            Form::Read(wire::PeerReadReply { sender, refused, version, value, tombstone, checksum })
        }
        (Asked::Store, PeerAnswer::Stored { current, other }) => {
            let (current, other_checksum) =
                (Some(version_out(*current)), other.map(Checksum::number));
            Form::Store(wire::PeerStoreReply { sender, refused, current, other_checksum })
        }
        (Asked::Store, PeerAnswer::Refused(_)) => {
            let (current, other_checksum) = (None, None);
            Form::Store(wire::PeerStoreReply { sender, refused, current, other_checksum })
        }
        (Asked::Page, PeerAnswer::Page { entries, truncated }) => {
            let entry = |entry: &PageEntry| wire::PeerPageEntry {
                key: entry.key.as_bytes().to_vec(),
                version: version_out(entry.version),
                value: entry.content.as_ref().and_then(Content::value).map(|value| value.to_vec()),
                tombstone: (entry.content == Some(Content::Tombstone)).then_some(true),
                checksum: entry.checksum.map(Checksum::number),
            };
            let entries = entries.iter().map(entry).collect();
            Form::Page(wire::PeerPageReply { sender, refused, entries, truncated: *truncated })
        }
        (Asked::Page, PeerAnswer::Refused(_)) => {
            let (entries, truncated) = (Vec::new(), false);
            Form::Page(wire::PeerPageReply { sender, refused, entries, truncated })
        }
        (Asked::Digest, PeerAnswer::Digest { count, hash, contents }) => {
            let (count, hash) = (*count as i64, *hash as i64);
            let contents = contents.map(|contents| contents as i64);
            Form::Digest(wire::PeerDigestReply { sender, refused, count, hash, contents })
        }
        (Asked::Digest, PeerAnswer::Refused(_)) => Form::Digest(wire::PeerDigestReply {
            sender,
            refused,
            count: 0,
            hash: 0,
            contents: None,
        }),
        (Asked::Clock, PeerAnswer::Clock { time }) => {
            Form::Clock(wire::PeerClockReply { sender, refused, time: Some(*time) })
        }
        (Asked::Clock, PeerAnswer::Refused(_)) => {
            Form::Clock(wire::PeerClockReply { sender, refused, time: None })
        }
        (Asked::Join, PeerAnswer::Joined { recorded, remembered }) => {
            let remembered = remembered.unwrap_or_default();
            Form::Join(wire::PeerJoinReply {
                sender,
                recorded: *recorded,
                incarnation: incarnation_out(remembered.incarnation),
                folder: remembered.folder.0 as i64,
                replaced: remembered.replaced,
            })
        }
        (_, _) => return None,
    })
}

pub(super) fn reply_in(form: Form) -> Result<PeerReply, Error> {
    let (sender, refused, answer) = match form {
        Form::Pong(reply) => (reply.sender, None, PeerAnswer::Pong { wall: reply.wall }),
        Form::Read(reply) => {
            let content = content_in(reply.value, reply.tombstone)?;
            let version = reply.version.as_ref().map(version_in).transpose()?;
            if version.is_none() && reply.refused.is_none() {
                return Err(Error::Malformed { what: "an answer to a read without a version" });
            }
            let version = version.unwrap_or(Version::ZERO);
            let checksum = checksum_in(reply.checksum)?;
            (reply.sender, reply.refused, PeerAnswer::Held { version, checksum, content })
        }
        Form::Store(reply) => {
            let current = reply.current.as_ref().map(version_in).transpose()?;
            if current.is_none() && reply.refused.is_none() {
                return Err(Error::Malformed { what: "an answer to a store without a version" });
            }
            let current = current.unwrap_or(Version::ZERO);
            let other = checksum_in(reply.other_checksum)?;
            (reply.sender, reply.refused, PeerAnswer::Stored { current, other })
        }
        Form::Page(reply) => {
            let entry = |entry: wire::PeerPageEntry| {
                let content = content_in(entry.value, entry.tombstone)?;
                let version = version_in(&entry.version)?;
                if !version.is_issued() {
                    return Err(NOT_ISSUED);
                }
                if entry.key.is_empty() {
                    return Err(Error::Malformed { what: "a page with the empty key" });
                }
                let (key, checksum) = (place_in(entry.key)?, checksum_in(entry.checksum)?);
                Ok(PageEntry { key, version, checksum, content })
            };
            let entries = reply.entries.into_iter().map(entry).collect::<Result<_, Error>>()?;
            let answer = PeerAnswer::Page { entries, truncated: reply.truncated };
            (reply.sender, reply.refused, answer)
        }
        Form::Digest(reply) => {
            let (count, hash) = (reply.count as u64, reply.hash as u64);
            let contents = reply.contents.map(|contents| contents as u64);
            (reply.sender, reply.refused, PeerAnswer::Digest { count, hash, contents })
        }
        Form::Clock(reply) => {
            if reply.refused.is_none() && reply.time.is_none_or(|time| time < 0) {
                return Err(Error::Malformed { what: "a clock without a time" });
            }
            let time = reply.time.unwrap_or(0);
            (reply.sender, reply.refused, PeerAnswer::Clock { time })
        }
        Form::Join(reply) => {
            let remembered = Remembered {
                incarnation: incarnation_in(reply.incarnation)?,
                folder: FolderId(reply.folder as u64),
                replaced: reply.replaced,
                ..Remembered::default()
            };
            let known = remembered.incarnation != Incarnation::NONE;
            let remembered = known.then_some(remembered);
            (reply.sender, None, PeerAnswer::Joined { recorded: reply.recorded, remembered })
        }
    };
    let answer = refused.map_or(answer, |reason| PeerAnswer::Refused(refusal_in(reason)));
    Ok(PeerReply { sender: sender_in(sender)?, answer })
}

fn checksum_in(number: Option<i64>) -> Result<Option<Checksum>, Error> {
    let malformed = Error::Malformed { what: "a checksum that no content has" };
    number.map(|number| Checksum::from_number(number).ok_or(malformed)).transpose()
}

fn content_in(value: Option<Vec<u8>>, tombstone: Option<bool>) -> Result<Option<Content>, Error> {
    match (value, tombstone) {
        (Some(value), _) => value_in(value).map(Some),
        (None, Some(true)) => Ok(Some(Content::Tombstone)),
        (None, _) => Ok(None),
    }
}
