//! Opening a log: what is there, what of it counts, and a fresh segment to go on with.
//!
//! 1. Sealed segments are read by their key files, or scanned. Everything in them was synced, so anything wrong is
//!    damage.
//! 2. The last segment is scanned. Where a record is bad, the highest position *H* known to have been synced decides:
//!    every record names the position that was durable before it. At or below H: damage. Above: the batch was cut by
//!    a crash, nothing in it was acknowledged; the segment ends there.
//! 3. Records above H may have been acknowledged all the same, and be in the page cache only: after a failed sync the
//!    cache proves nothing. They are written once more, into a new segment, and synced, before anything is answered.
//!    Only then is the old segment cut at H. The new segment's header names where the old one ends, so a crash in
//!    between is harmless.
//! 4. A damaged segment's true records go into the new segment too; the file is set aside under another name, for a
//!    person to look at. The server must be rebuilt from its peers.
//!
//! 5. Where there is no room for a new segment, what is of no use is given back; if that is not enough, the last segment is
//!    made durable in place and written on: see `room.rs`.
//! 6. A record whose value alone is damaged does not make a segment so, in the last one if it stands at or below H: its head,
//!    with a checksum of its own, says which cell it is and where the next record stands. The keydir counts it, and the store
//!    knows that it is lost: that cell is fetched from another replica. So damage at every replica, in different places, costs
//!    nobody's vote.
//!
//! Whatever is written anew gets the checksums of its new place. What is searched for behind a bad record may lie in the value
//! of a client, who may have made it up: see `record.rs`. In segments of format 2 it is then never true. In those of format 1
//! the harm is bounded: at each offset positions can have got only so far; and what is newer than all that can be relied on,
//! by more than [`HybridClock::AHEAD`], is not believed, so that no clock is led astray. It may still make a torn tail look
//! damaged; the server is then rebuilt from its peers.

mod pieces;
mod reading;
mod room;

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use super::disk::refusal;

use super::keydir::{Holding, Keydir};
use super::keyfile::{EntryKind, KeyEntry, KeyFile, KeyFileWriter};
use super::record::{self, Headed, MAX_POSITION, RecordFormat, Seed, Written};
use super::segment::{HEADER, Header, segment_number};
use super::store::Lost;
use super::{Disk, Log, Place, Recovered};
use crate::model::{Checksum, HybridClock, Key, ServerId, Stamp, Version};
use pieces::Rest;
pub(crate) use reading::synced_for_certain;
use reading::{Tail, read_last, read_sealed};

/// Bytes read of a file at once: a segment of the usual length.
const CHUNK: u64 = 72 << 20;

/// A log that was opened.
pub(super) struct OpenedLog {
    pub(super) recovered: Recovered,
    /// The active segment: its length, and its key file in the making.
    pub(super) length: u32,
    pub(super) keys: KeyFileWriter,
    /// How the records of each segment are written.
    pub(super) formats: BTreeMap<u32, RecordFormat>,
    /// Of the active segment.
    pub(super) salt: u64,
    /// Files to be set aside once the loss of their cells has been noted.
    pub(super) damaged: Vec<String>,
}

/// Why a log cannot be opened.
#[derive(Debug)]
pub(super) enum LogError {
    Io {
        file: String,
        error: io::Error,
    },
    /// A segment of another cluster or server.
    Foreign {
        file: String,
    },
}

/// Whose log it should be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) cluster: u64,
    pub(super) server: ServerId,
}

impl Owner {
    pub(super) fn new(cluster: &str, server: ServerId) -> Owner {
        Owner { cluster: xxhash_rust::xxh3::xxh3_64(cluster.as_bytes()), server }
    }
}

/// What opening a log is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// No version time above this was issued here.
    pub(super) ceiling: i64,
    /// For the new segment.
    pub(super) salt: u64,
    /// A deliberate fault: see [`super::StorageFlaw::CutDamage`].
    pub(super) cuts_damage: bool,
}

/// One segment's file as it was found.
struct Found {
    number: u32,
    header: Option<Header>,
    length: u64,
}

/// What recovery gathers.
#[derive(Default)]
struct Gathered {
    keydir: Keydir,
    /// Up to which version cells of a key are no longer wanted.
    erased: BTreeMap<Key, Version>,
    /// True records of damaged segments.
    salvage: Vec<Written>,
    /// What looks like such records, and was searched for in segments of format 1.
    doubtful: Vec<Written>,
    /// Damaged values, whose keys and versions are known.
    lost: Vec<(Key, Version)>,
    /// Damaged values in segments that count all the same.
    unreadable: Vec<Lost>,
    /// The greatest version time of all records but the doubtful ones.
    newest: i64,
    damaged: Vec<u32>,
    segments: Vec<(u32, u32)>,
    /// Segments whose files go on behind the end they were sealed at: a crash came before they were cut there.
    overlong: Vec<(u32, u32)>,
    /// The key file that the segment read last lacks.
    lacking: Option<Lacking>,
    /// Highest position seen anywhere.
    last: u64,
    /// A deliberate fault: see [`super::StorageFlaw::CutDamage`].
    cuts_damage: bool,
}

/// A key file that is not there.
struct Lacking {
    keys: KeyFileWriter,
    segment: u32,
    length: u32,
    /// Position of the last record.
    last: u64,
    /// No value is damaged. Otherwise it is not written: without a key file the damage is found at once at the next start, too.
    is_sound: bool,
}

/// Opens a log for writing.
pub(super) fn open<D: Disk>(
    disk: &mut D,
    log: Log,
    owner: Owner,
    rules: Rules,
) -> Result<OpenedLog, LogError> {
    let names = on(log.folder(), disk.list(log.folder()))?;
    for name in names.iter().filter(|name| name.ends_with(".new")) {
        // A segment whose creation was cut short: nothing in it counts.
        let file = format!("{}/{name}", log.folder());
        on(&file, disk.remove(&file))?;
    }
    let found = find(disk, log, Some(owner), &names)?;
    let mut gathered = Gathered { cuts_damage: rules.cuts_damage, ..Gathered::default() };
    for (position, file) in found.iter().enumerate() {
        let next = found.get(position + 1).and_then(|next| next.header);
        if position + 1 < found.len() {
            read_sealed(disk, log, file, next, &mut gathered)?;
            gathered.write_lacking(disk, log);
        }
    }
    let tail = match found.last() {
        Some(last) => read_last(disk, log, last, &mut gathered)?,
        None => Tail::default(),
    };
    gathered.judge_doubtful(rules.ceiling);
    let beyond = names.iter().filter_map(|name| name.split('.').next()?.parse::<u32>().ok()).max();
    let active = beyond.unwrap_or(0) + 1;
    let position = gathered.last + (tail.records.len() + gathered.salvage.len()) as u64;
    let (header, length, keys) =
        begin_segment(disk, log, owner, (active, rules.salt), &tail, &mut gathered)?;
    let active = header.segment;
    if active != tail.number {
        gathered.cut_overlong(disk, log)?;
        retire_last(disk, log, &tail, &mut gathered)?;
    }
    remove_orphans(disk, log, &names, &gathered)?;
    gathered.write_lacking(disk, log);
    let damaged = gathered.damaged.iter().map(|number| log.segment_file(*number)).collect();
    let mut formats = gathered.formats(&found);
    formats.insert(active, header.format());
    let recovered = gathered.recovered(position, active, &formats);
    Ok(OpenedLog { recovered, length, keys, formats, salt: header.salt, damaged })
}

/// Reads a log without changing anything: for an inspector. Tells what it found wrong, in words.
pub(super) fn look<D: Disk>(
    disk: &D,
    log: Log,
    owner: Option<Owner>,
) -> Result<(Recovered, Vec<String>), LogError> {
    let names = match disk.list(log.folder()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        names => on(log.folder(), names)?,
    };
    let found = find(disk, log, owner, &names)?;
    let mut gathered = Gathered::default();
    let mut remarks = Vec::new();
    for (position, file) in found.iter().enumerate() {
        let next = found.get(position + 1).and_then(|next| next.header);
        if position + 1 < found.len() {
            read_sealed(disk, log, file, next, &mut gathered)?;
            gathered.lacking = None;
        } else {
            let tail = read_last(disk, log, file, &mut gathered)?;
            if tail.torn {
                remarks.push(format!(
                    "{}: torn at byte {} by a crash; opening will cut it there",
                    log.segment_file(file.number),
                    tail.end
                ));
            }
            for (place, written) in &tail.records {
                gathered.note(&KeyEntry::of(&written.record, *place, written.value_crc));
            }
            gathered.last =
                gathered.last.max(tail.records.last().map_or(0, |(_, written)| written.sequence));
            // Behind its last record there may be zeros that were reserved.
            let end = if tail.number == 0 { file.length as u32 } else { tail.end };
            gathered.segments.push((file.number, end));
        }
    }
    for number in &gathered.damaged {
        remarks.push(format!("{}: damaged below what had been synced", log.segment_file(*number)));
    }
    for Lost { place, .. } in &gathered.unreadable {
        let file = log.segment_file(place.segment);
        remarks
            .push(format!("{file}: the value of the record at byte {} is damaged", place.offset));
    }
    for name in names.iter().filter(|name| name.ends_with(".damaged")) {
        remarks.push(format!("{}/{name}: set aside as damaged by a former start", log.folder()));
    }
    let active = found.last().map_or(0, |file| file.number);
    let (position, formats) = (gathered.last, gathered.formats(&found));
    Ok((gathered.recovered(position, active, &formats), remarks))
}

fn on<T>(file: &str, result: io::Result<T>) -> Result<T, LogError> {
    result.map_err(|error| LogError::Io { file: file.to_owned(), error })
}

/// The file's bytes from `from` up to `end`, or to where it ends.
fn read_from<D: Disk>(disk: &D, file: &str, from: u64, end: u64) -> Result<Bytes, LogError> {
    let length = end.saturating_sub(from);
    let mut bytes = on(file, disk.read(file, from, length.min(CHUNK) as usize))?;
    while (bytes.len() as u64) < length {
        let (at, rest) = (from + bytes.len() as u64, length - bytes.len() as u64);
        let piece = on(file, disk.read(file, at, rest.min(CHUNK) as usize))?;
        if piece.is_empty() {
            break;
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.into())
}

fn find<D: Disk>(
    disk: &D,
    log: Log,
    owner: Option<Owner>,
    names: &[String],
) -> Result<Vec<Found>, LogError> {
    let mut found = Vec::new();
    for number in names.iter().filter_map(|name| segment_number(name, ".log")) {
        let file = log.segment_file(number);
        let length = on(&file, disk.length(&file))?;
        let bytes = on(&file, disk.read(&file, 0, HEADER))?;
        let header = Header::parse(&bytes).filter(|header| header.segment == number);
        if let (Some(header), Some(owner)) = (header, owner)
            && (header.cluster, header.server) != (owner.cluster, owner.server)
        {
            return Err(LogError::Foreign { file });
        }
        found.push(Found { number, header, length });
    }
    found.sort_by_key(|file| file.number);
    Ok(found)
}

impl Gathered {
    /// The values of these records are damaged, and their segment counts: the key and its version are held, and not readable.
    fn take_unreadable(&mut self, damaged: Vec<(Place, Headed)>) {
        for (place, Headed { key, version, value_crc, .. }) in damaged {
            self.newest = self.newest.max(version.time);
            let checksum = Some(Checksum::of_value(value_crc));
            self.keydir.put(key.as_bytes(), Stamp { version, checksum }, place, Holding::OnDisk);
            self.unreadable.push(Lost { key: key.detached(), version, checksum, place });
        }
    }

    fn cut_overlong<D: Disk>(&self, disk: &mut D, log: Log) -> Result<(), LogError> {
        for (number, length) in &self.overlong {
            let name = log.segment_file(*number);
            on(&name, disk.truncate(&name, u64::from(*length)))?;
            on(&name, disk.sync(&name))?;
        }
        Ok(())
    }

    fn write_lacking<D: Disk>(&mut self, disk: &mut D, log: Log) {
        if let Some(lacking) = self.lacking.take().filter(|lacking| lacking.is_sound) {
            let Lacking { keys, segment, length, last, .. } = lacking;
            keys.write(disk, log, segment, length, last);
        }
    }

    /// Of two records of one cell the later one counts: the former may lie in a segment about to be removed.
    fn note(&mut self, entry: &KeyEntry) {
        let KeyEntry { key, version, kind, place, .. } = entry;
        self.newest = self.newest.max(version.time);
        let holding = match kind {
            EntryKind::Value => Holding::OnDisk,
            EntryKind::Tombstone => Holding::Tombstone,
            EntryKind::Erase => {
                // In memory of its own: a slice would keep the whole file there.
                let up_to = self.erased.entry(key.detached()).or_insert(*version);
                *up_to = (*version).max(*up_to);
                return;
            }
        };
        self.keydir.put(key.as_bytes(), entry.stamp(), *place, holding);
    }

    /// The newest record of each key, less what was erased.
    fn wanted(mut self) -> Keydir {
        for (key, up_to) in self.erased {
            let held = self.keydir.get(key.as_bytes());
            if held.is_some_and(|held| held.version() <= up_to) {
                self.keydir.remove(key.as_bytes());
            }
        }
        self.keydir
    }

    /// The segment is damaged: its true records are to be written elsewhere. The rest is what was searched for.
    fn set_aside(
        &mut self,
        number: u32,
        records: Vec<(Place, Written)>,
        rest: Rest,
        is_doubtful: bool,
    ) {
        let searched = rest.records.len();
        let records = records.into_iter().chain(rest.records).map(|(_, written)| written);
        let mut records: Vec<_> = records.collect();
        let doubtful = if is_doubtful { searched } else { 0 };
        let doubtful = records.split_off(records.len() - doubtful);
        for written in records.into_iter().filter(|written| written.sequence <= MAX_POSITION) {
            self.last = self.last.max(written.sequence);
            self.newest = self.newest.max(written.record.version().time);
            self.salvage.push(written);
        }
        self.doubtful.extend(doubtful);
        self.lost
            .extend(rest.heads.into_iter().map(|(_, head)| (head.key.detached(), head.version)));
        self.damaged.push(number);
    }

    /// All segments have been read: believes what is not newer than what can be relied on.
    fn judge_doubtful(&mut self, ceiling: i64) {
        let ahead = HybridClock::AHEAD.as_micros() as i64;
        let latest = self.newest.max(ceiling).saturating_add(ahead);
        for written in std::mem::take(&mut self.doubtful) {
            if written.record.version().time <= latest {
                self.last = self.last.max(written.sequence);
                self.salvage.push(written);
            }
        }
    }

    /// How the records of each segment that counts are written.
    fn formats(&self, found: &[Found]) -> BTreeMap<u32, RecordFormat> {
        let headers = found.iter().filter(|file| !self.damaged.contains(&file.number));
        headers.filter_map(|file| Some((file.number, file.header?.format()))).collect()
    }

    fn recovered(
        mut self,
        position: u64,
        active: u32,
        formats: &BTreeMap<u32, RecordFormat>,
    ) -> Recovered {
        let segments = std::mem::take(&mut self.segments);
        let mut lost = std::mem::take(&mut self.lost);
        let unreadable = std::mem::take(&mut self.unreadable);
        let is_old = |(number, _): &&(u32, u32)| formats.get(number) == Some(&RecordFormat::One);
        let old = segments.iter().filter(is_old).map(|(number, _)| *number).collect();
        let keydir = self.wanted();
        lost.retain(|(key, version)| {
            keydir.get(key.as_bytes()).is_none_or(|held| held.version() < *version)
        });
        Recovered { keydir, position, active, segments, old, lost, unreadable }
    }
}

/// Writes the segment that will be appended to, whole and durable, under its name; where there is no room for one, has the last
/// one stay it.
fn begin_segment<D: Disk>(
    disk: &mut D,
    log: Log,
    owner: Owner,
    (active, salt): (u32, u64),
    tail: &Tail,
    gathered: &mut Gathered,
) -> Result<(Header, u32, KeyFileWriter), LogError> {
    let header = Header {
        cluster: owner.cluster,
        server: owner.server,
        segment: active,
        // What is copied from the last segment keeps its positions.
        first: gathered.last + 1,
        previous: tail.previous,
        previous_length: tail.previous_length,
        salt,
        previous_salt: tail.previous_salt,
    };
    let seed = Seed::new(salt, active);
    let mut bytes = header.encode();
    let mut keys = KeyFileWriter::new();
    let mut moved = Vec::new();
    let records = tail.records.iter().map(|(_, written)| written).chain(&gathered.salvage);
    for (sequence, written) in (header.first..).zip(records) {
        let offset = bytes.len() as u32;
        let positions = (sequence, header.first - 1);
        let (length, crc) = record::encode(seed, offset, &written.record, positions, &mut bytes);
        let place = Place { segment: active, offset, length };
        moved.push(KeyEntry::of(&written.record, place, crc));
    }
    if let Some(full) = create_segment(disk, log, active, &bytes)? {
        room::make_room(disk, log, tail, gathered)?;
        if create_segment(disk, log, active, &bytes)?.is_some() {
            return room::go_on(disk, log, tail, gathered)?.ok_or(full);
        }
    }
    for entry in moved {
        keys.push(&entry);
        gathered.note(&entry);
    }
    Ok((header, bytes.len() as u32, keys))
}

/// Makes a segment appear under its name only once these bytes of it are durable. What there was no room for, if so.
fn create_segment<D: Disk>(
    disk: &mut D,
    log: Log,
    segment: u32,
    bytes: &[u8],
) -> Result<Option<LogError>, LogError> {
    let name = log.segment_file(segment);
    let new = format!("{name}.new");
    // It is thrown away as a whole, so a failed sync of it leaves nothing in doubt.
    if let Err(error) = disk.write(&new, 0, bytes).and_then(|()| disk.sync(&new)) {
        let has_room = refusal(&error).is_none();
        let error = LogError::Io { file: new.clone(), error };
        if has_room {
            return Err(error);
        }
        return match disk.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => on(&new, Err(error)),
            _ => Ok(Some(error)),
        };
    }
    on(&name, disk.rename(&new, &name))?;
    on(log.folder(), disk.sync_folder(log.folder()))?;
    Ok(None)
}

/// The last segment is sealed now, without what was written anew.
fn retire_last<D: Disk>(
    disk: &mut D,
    log: Log,
    tail: &Tail,
    gathered: &mut Gathered,
) -> Result<(), LogError> {
    if tail.number == 0 {
        return Ok(());
    }
    let name = log.segment_file(tail.number);
    if tail.file_length > u64::from(tail.cut) {
        on(&name, disk.truncate(&name, u64::from(tail.cut)))?;
        on(&name, disk.sync(&name))?;
    }
    gathered.segments.push((tail.number, tail.cut));
    Ok(())
}

fn remove_orphans<D: Disk>(
    disk: &mut D,
    log: Log,
    names: &[String],
    gathered: &Gathered,
) -> Result<(), LogError> {
    for number in names.iter().filter_map(|name| segment_number(name, ".keys")) {
        if !gathered.segments.iter().any(|(segment, _)| *segment == number) {
            let file = log.key_file(number);
            on(&file, disk.remove(&file))?;
        }
    }
    Ok(())
}
