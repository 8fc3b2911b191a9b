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

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use super::keydir::{Holding, Keydir};
use super::keyfile::{EntryKind, KeyEntry, KeyFile, KeyFileWriter};
use super::record::{self, MAX_POSITION, Written};
use super::segment::{Ending, HEADER, Header, Scan, scan, segment_number};
use super::{Disk, Log, Place, Recovered};
use crate::model::{Key, ServerId, Version};

/// Bytes read of a file at once: a segment of the usual length.
const CHUNK: u64 = 72 << 20;

/// A log that was opened.
pub(super) struct OpenedLog {
    pub(super) recovered: Recovered,
    /// The new active segment: its length, and its key file in the making.
    pub(super) length: u32,
    pub(super) keys: KeyFileWriter,
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
    damaged: Vec<u32>,
    segments: Vec<(u32, u32)>,
    /// Segments whose files go on behind the end they were sealed at: a crash came before they were cut there.
    overlong: Vec<(u32, u32)>,
    /// The key file that the segment read last lacks: of which segment, how long, with which last position.
    lacking: Option<(KeyFileWriter, u32, u32, u64)>,
    /// Highest position seen anywhere.
    last: u64,
    /// A deliberate fault: see [`super::StorageFlaw::CutDamage`].
    cuts_damage: bool,
}

/// Opens a log for writing.
pub(super) fn open<D: Disk>(
    disk: &mut D,
    log: Log,
    owner: Owner,
    cuts_damage: bool,
) -> Result<OpenedLog, LogError> {
    let names = on(log.folder(), disk.list(log.folder()))?;
    for name in names.iter().filter(|name| name.ends_with(".new")) {
        // A segment whose creation was cut short: nothing in it counts.
        let file = format!("{}/{name}", log.folder());
        on(&file, disk.remove(&file))?;
    }
    let found = find(disk, log, Some(owner), &names)?;
    let mut gathered = Gathered { cuts_damage, ..Gathered::default() };
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
    let beyond = names.iter().filter_map(|name| name.split('.').next()?.parse::<u32>().ok()).max();
    let active = beyond.unwrap_or(0) + 1;
    let (length, keys) = begin_segment(disk, log, owner, active, &tail, &mut gathered)?;
    let last = gathered.last.max(tail.records.last().map_or(0, |(_, written)| written.sequence));
    let position = last + gathered.salvage.len() as u64;
    for (number, length) in &gathered.overlong {
        let name = log.segment_file(*number);
        on(&name, disk.truncate(&name, u64::from(*length)))?;
        on(&name, disk.sync(&name))?;
    }
    retire_last(disk, log, &tail, &mut gathered)?;
    remove_orphans(disk, log, &names, &gathered)?;
    gathered.write_lacking(disk, log);
    let damaged = gathered.damaged.iter().map(|number| log.segment_file(*number)).collect();
    let segments = std::mem::take(&mut gathered.segments);
    let recovered = Recovered { keydir: gathered.wanted(), position, active, segments };
    Ok(OpenedLog { recovered, length, keys, damaged })
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
                    tail.torn_at
                ));
            }
            gathered.take(&tail.records);
            gathered.last =
                gathered.last.max(tail.records.last().map_or(0, |(_, written)| written.sequence));
            // Behind its last record there may be zeros that were reserved.
            let end = if tail.number == 0 { file.length as u32 } else { tail.torn_at };
            gathered.segments.push((file.number, end));
        }
    }
    for number in &gathered.damaged {
        remarks.push(format!("{}: damaged below what had been synced", log.segment_file(*number)));
    }
    for name in names.iter().filter(|name| name.ends_with(".damaged")) {
        remarks.push(format!("{}/{name}: set aside as damaged by a former start", log.folder()));
    }
    let active = found.last().map_or(0, |file| file.number);
    let (position, segments) = (gathered.last, std::mem::take(&mut gathered.segments));
    Ok((Recovered { keydir: gathered.wanted(), position, active, segments }, remarks))
}

fn on<T>(file: &str, result: io::Result<T>) -> Result<T, LogError> {
    result.map_err(|error| LogError::Io { file: file.to_owned(), error })
}

fn read_all<D: Disk>(disk: &D, file: &str) -> Result<Bytes, LogError> {
    let length = on(file, disk.length(file))?;
    let mut bytes = on(file, disk.read(file, 0, length.min(CHUNK) as usize))?;
    while (bytes.len() as u64) < length {
        let rest = length - bytes.len() as u64;
        let piece = on(file, disk.read(file, bytes.len() as u64, rest.min(CHUNK) as usize))?;
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

/// Reads a segment that another one follows.
fn read_sealed<D: Disk>(
    disk: &D,
    log: Log,
    file: &Found,
    next: Option<Header>,
    gathered: &mut Gathered,
) -> Result<(), LogError> {
    let name = log.segment_file(file.number);
    if let Some(next) = next.filter(|next| next.previous == file.number)
        && file.length > u64::from(next.previous_length)
    {
        gathered.overlong.push((file.number, next.previous_length));
    }
    let sealed_length = next
        .filter(|next| next.previous == file.number)
        .map_or(file.length, |next| u64::from(next.previous_length));
    if let Some(keys) = read_key_file(disk, log, file.number)
        && file.header.is_some()
        && u64::from(keys.length) == sealed_length
        && file.length >= sealed_length
    {
        gathered.last = gathered.last.max(keys.last);
        gathered.segments.push((file.number, keys.length));
        keys.entries.iter().for_each(|entry| gathered.note(entry));
        return Ok(());
    }
    let bytes = read_all(disk, &name)?;
    let Some(header) = file.header else {
        gathered.set_aside(file.number, Vec::new(), &bytes, 0);
        return Ok(());
    };
    let whole = bytes.len() as u64 >= sealed_length;
    let bytes = bytes.slice(..bytes.len().min(sealed_length as usize));
    let Scan { records, end, ending } = scan(&header, &bytes);
    match ending {
        // Zeros before the end it was sealed at would hide what stood there.
        Ending::Clean if whole && end as usize == bytes.len() => {
            let last = header.first + records.len() as u64 - 1;
            gathered.last = gathered.last.max(last);
            gathered.segments.push((file.number, end));
            gathered.take(&records);
            gathered.lack_keys(&records, file.number, end, last);
        }
        Ending::Clean => gathered.set_aside(file.number, records, &bytes, bytes.len()),
        Ending::Bad { .. } if gathered.cuts_damage => {
            gathered.last = gathered.last.max(header.first + records.len() as u64 - 1);
            gathered.segments.push((file.number, end));
            gathered.take(&records);
        }
        Ending::Bad { rest, .. } => {
            let records = records.into_iter().chain(rest).collect();
            gathered.set_aside(file.number, records, &bytes, bytes.len());
        }
    }
    Ok(())
}

/// What the last segment holds above the highest position known to have been synced, and where that begins.
#[derive(Default)]
struct Tail {
    number: u32,
    cut: u32,
    /// The file goes on behind the cut.
    is_longer: bool,
    records: Vec<(Place, Written)>,
    bytes: Bytes,
    first: u64,
    torn: bool,
    torn_at: u32,
    /// The segment that the new one follows, and where that one ends: this one, or if it is set aside, the one before
    /// it.
    previous: u32,
    previous_length: u32,
}

fn read_last<D: Disk>(
    disk: &D,
    log: Log,
    file: &Found,
    gathered: &mut Gathered,
) -> Result<Tail, LogError> {
    let bytes = read_all(disk, &log.segment_file(file.number))?;
    let Some(header) = file.header else {
        gathered.set_aside(file.number, Vec::new(), &bytes, 0);
        return Ok(Tail::default());
    };
    gathered.last = gathered.last.max(header.first.saturating_sub(1));
    let Scan { records, end, ending } = scan(&header, &bytes);
    let (torn, rest) = match ending {
        Ending::Clean => (None, Vec::new()),
        Ending::Bad { sequence, rest } => (Some(sequence), rest),
    };
    let synced = records.iter().chain(&rest).map(|(_, written)| written.synced).max();
    let synced = synced.unwrap_or(0).max(header.first - 1);
    if torn.is_some_and(|sequence| sequence <= synced) {
        let records = records.into_iter().chain(rest).collect();
        gathered.set_aside(file.number, records, &bytes, bytes.len());
        let (previous, previous_length) = (header.previous, header.previous_length);
        return Ok(Tail { previous, previous_length, ..Tail::default() });
    }
    let split = records.partition_point(|(_, written)| written.sequence <= synced);
    let cut = records.get(split).map_or(end, |(place, _)| place.offset);
    gathered.take(&records[..split]);
    let last = header.first + split as u64 - 1;
    gathered.last = gathered.last.max(last);
    gathered.lack_keys(&records[..split], file.number, cut, last);
    Ok(Tail {
        number: file.number,
        cut,
        is_longer: bytes.len() as u64 > u64::from(cut),
        records: records[split..].to_vec(),
        bytes: bytes.slice(cut as usize..end as usize),
        first: last + 1,
        torn: torn.is_some(),
        torn_at: end,
        previous: file.number,
        previous_length: cut,
    })
}

impl Gathered {
    /// The records count where they are.
    fn take(&mut self, records: &[(Place, Written)]) {
        for (place, written) in records {
            self.note(&KeyEntry::of(&written.record, *place));
        }
    }

    /// These are all records of a sound segment without a key file.
    fn lack_keys(&mut self, records: &[(Place, Written)], segment: u32, length: u32, last: u64) {
        let mut keys = KeyFileWriter::new();
        for (place, written) in records {
            keys.push(&KeyEntry::of(&written.record, *place));
        }
        self.lacking = Some((keys, segment, length, last));
    }

    fn write_lacking<D: Disk>(&mut self, disk: &mut D, log: Log) {
        if let Some((keys, segment, length, last)) = self.lacking.take() {
            keys.write(disk, log, segment, length, last);
        }
    }

    /// Of two records of one cell the later one counts: the former may lie in a segment about to be removed.
    fn note(&mut self, KeyEntry { key, version, kind, place }: &KeyEntry) {
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
        self.keydir.put(key.as_bytes(), *version, *place, holding);
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

    /// The segment is damaged: its true records are to be written elsewhere. Of one without a header, all that can be
    /// found from `from` on.
    fn set_aside(
        &mut self,
        number: u32,
        records: Vec<(Place, Written)>,
        bytes: &Bytes,
        from: usize,
    ) {
        let (mut from, mut found) = (from, Vec::new());
        while let Some((offset, written)) = record::find_next(bytes, from, 0) {
            from = offset + written.length;
            found.push(written);
        }
        let records = records.into_iter().map(|(_, written)| written).chain(found);
        for written in records.filter(|written| written.sequence <= MAX_POSITION) {
            self.last = self.last.max(written.sequence);
            self.salvage.push(written);
        }
        self.damaged.push(number);
    }
}

fn read_key_file<D: Disk>(disk: &D, log: Log, segment: u32) -> Option<KeyFile> {
    let bytes = read_all(disk, &log.key_file(segment)).ok()?;
    KeyFile::parse(&bytes).filter(|keys| keys.segment == segment)
}

/// Writes the segment that will be appended to, whole and durable, under its name.
fn begin_segment<D: Disk>(
    disk: &mut D,
    log: Log,
    owner: Owner,
    active: u32,
    tail: &Tail,
    gathered: &mut Gathered,
) -> Result<(u32, KeyFileWriter), LogError> {
    let header = Header {
        cluster: owner.cluster,
        server: owner.server,
        segment: active,
        // What is copied keeps its positions.
        first: if tail.records.is_empty() { gathered.last + 1 } else { tail.first },
        previous: tail.previous,
        previous_length: tail.previous_length,
    };
    let mut bytes = header.encode();
    let mut keys = KeyFileWriter::new();
    let mut moved = Vec::new();
    for (place, written) in &tail.records {
        let offset = HEADER as u32 + place.offset - tail.cut;
        let place = Place { segment: active, offset, length: place.length };
        moved.push(KeyEntry::of(&written.record, place));
    }
    bytes.extend_from_slice(&tail.bytes);
    let positions = header.first + tail.records.len() as u64..;
    for (sequence, written) in positions.zip(&gathered.salvage) {
        let offset = bytes.len() as u32;
        let length = record::encode(&written.record, sequence, header.first - 1, &mut bytes) as u32;
        moved.push(KeyEntry::of(&written.record, Place { segment: active, offset, length }));
    }
    create_segment(disk, log, active, &bytes)?;
    for entry in moved {
        keys.push(&entry);
        gathered.note(&entry);
    }
    Ok((bytes.len() as u32, keys))
}

/// Makes a segment appear under its name only once these bytes of it are durable.
fn create_segment<D: Disk>(
    disk: &mut D,
    log: Log,
    segment: u32,
    bytes: &[u8],
) -> Result<(), LogError> {
    let name = log.segment_file(segment);
    let new = format!("{name}.new");
    on(&new, disk.write(&new, 0, bytes))?;
    on(&new, disk.sync(&new))?;
    on(&name, disk.rename(&new, &name))?;
    on(log.folder(), disk.sync_folder(log.folder()))
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
    if tail.is_longer {
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
