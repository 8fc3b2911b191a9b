//! The storage thread's side: carries out commands on a [`Disk`].

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::disk::refusal;
use super::identity::IdentityError;
use super::keyfile::{KeyEntry, KeyFileWriter};
use super::record::{self, Parsed, RecordFormat, Seed, Written};
use super::recovery::{self, LogError, OpenedLog, Owner, Rules};
use super::segment::{self, HEADER, HEADER_ONE, Header, Salts};
use super::{
    AppendError, Command, Completion, Disk, Identity, LoadError, Log, Look, Opened, Place, Record,
    Recovered, StorageFlaw, Ticket,
};
use crate::model::{Content, FolderId, ServerId};

/// Bytes a survey reads at once, if the first record is not longer.
const SURVEY_BYTES: usize = 256 << 10;
/// The identity's file.
const IDENTITY: &str = "identity.json";
const IDENTITY_NEW: &str = "identity.json.new";

/// When an append counts as durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// After a sync: a power cut loses nothing acknowledged. Many appends share one.
    #[default]
    Always,
    /// After the write; a sync follows at this interval. A process crash loses nothing, a power cut up to that
    /// much. The identity is synced all the same.
    Interval(Duration),
}

/// How a folder is opened and kept.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The cluster's name: a folder of another one is refused.
    pub cluster: String,
    /// The server: a folder of another one is refused.
    pub server: ServerId,
    /// For a folder that has no identity yet, or has lost cells: random.
    pub fresh_folder: FolderId,
    /// For the salts of segments: random, and not to be known outside.
    pub salt_seed: u64,
    /// A segment is sealed once it is this long. At most 1 GiB.
    pub segment_bytes: u32,
    /// When an append counts as durable.
    pub sync: SyncPolicy,
    /// A deliberate fault, for the simulator alone.
    pub(crate) flaw: Option<StorageFlaw>,
}

impl EngineOptions {
    /// As servers have it: segments of 64 MiB, every append synced.
    pub fn new(
        cluster: String,
        server: ServerId,
        fresh_folder: FolderId,
        salt_seed: u64,
    ) -> EngineOptions {
        EngineOptions {
            cluster,
            server,
            fresh_folder,
            salt_seed,
            segment_bytes: 64 << 20,
            sync: SyncPolicy::Always,
            flaw: None,
        }
    }
}

/// Why a folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The medium gave an error.
    #[error("cannot open {file}: {error}")]
    Io {
        /// In the data folder.
        file: String,
        /// What the medium said.
        #[source]
        error: io::Error,
    },
    /// The folder belongs to another server or cluster.
    #[error(
        "the data folder belongs to server {found_server} of cluster '{found_cluster}', not to server {server} of \
         '{cluster}'; give each server a folder of its own"
    )]
    Foreign {
        /// Whose it is.
        found_server: ServerId,
        /// In which cluster.
        found_cluster: String,
        /// Who wanted to open it.
        server: ServerId,
        /// For which cluster.
        cluster: String,
    },
    /// A segment belongs to another server or cluster.
    #[error("{file} is the log of another server or cluster; move it out of this data folder")]
    ForeignLog {
        /// In the data folder.
        file: String,
    },
    /// The identity cannot be understood.
    #[error(
        "{IDENTITY} cannot be read ({source}); restore it, or move it away to have this server rebuilt from its peers"
    )]
    Identity {
        /// What is wrong with it.
        source: IdentityError,
    },
}

/// Bytes reserved ahead in a segment, at least and at most.
const RESERVE: (u64, u64) = (64 << 10, 8 << 20);
/// Bytes of zeros written out ahead, and the unit of the medium that they end at.
const BLANK: u64 = 64 << 10;
const PAGE: u64 = 4 << 10;

/// One log as it is written to.
#[derive(Debug)]
struct Writer {
    log: Log,
    owner: Owner,
    segment: u32,
    /// How the records of each segment are written, the active one among them.
    formats: BTreeMap<u32, RecordFormat>,
    /// Of the active segment.
    salt: u64,
    seed: Seed,
    /// Of those to come.
    salts: Salts,
    /// Bytes in the active segment.
    length: u32,
    /// Up to where its file has space, zeros behind the last record; or up to where there is no use in asking for more.
    reserved: u64,
    /// Up to where that space has been written to, if only with zeros; or up to where there is no use in doing so.
    blank: u64,
    /// Position of the next record.
    next: u64,
    /// Highest position that is synced.
    synced: u64,
    /// Something is written and not synced.
    dirty: bool,
    /// Since it was opened.
    syncs: u64,
    /// Of the active segment.
    keys: KeyFileWriter,
    /// Encoded records of this batch.
    buffer: Vec<u8>,
    batch: Vec<Appended>,
}

/// A record that was encoded and is not written yet.
#[derive(Debug)]
struct Appended {
    ticket: Ticket,
    place: Place,
    record: Record,
    value_crc: u32,
}

/// Carries out commands on a data folder. One thread owns it.
#[derive(Debug)]
pub struct Engine<D> {
    disk: D,
    options: EngineOptions,
    cells: Writer,
    hints: Writer,
    broken: bool,
}

/// The storage can no longer be trusted.
struct Broken {
    error: io::Error,
    file: String,
}

impl Broken {
    fn at(file: &str) -> impl FnOnce(io::Error) -> Broken + '_ {
        |error| Broken { error, file: file.to_owned() }
    }
}

impl<D: Disk> Engine<D> {
    /// Recovers a folder, or makes it. What it returns as held is durable.
    pub fn open(mut disk: D, options: EngineOptions) -> Result<(Engine<D>, Opened), OpenError> {
        let io = |file: &str| {
            let file = file.to_owned();
            move |error| OpenError::Io { file, error }
        };
        for log in [Log::Cells, Log::Hints] {
            disk.make_folder(log.folder()).map_err(io(log.folder()))?;
        }
        let known = read_identity(&disk, &options)?;
        let is_new = known.is_none();
        let mut identity = match known {
            Some(identity) => identity,
            None => {
                // A log without an identity: whatever it was, it is not a first start.
                let has_log = !disk.list(Log::Cells.folder()).map_err(io("cells"))?.is_empty();
                Identity {
                    cluster: options.cluster.clone(),
                    server: options.server,
                    folder: options.fresh_folder,
                    forgetful: has_log,
                    ..Identity::default()
                }
            }
        };
        let owner = Owner::new(&options.cluster, options.server);
        if is_new || !is_as_written_now(&disk, &identity) {
            // Before there is a segment that a former release cannot read.
            save_identity(&mut disk, &identity)
                .map_err(|broken| OpenError::Io { file: broken.file, error: broken.error })?;
        }
        let cuts = options.flaw == Some(StorageFlaw::CutDamage);
        let mut salts = Salts::new(options.salt_seed, options.flaw);
        let mut rules =
            || Rules { ceiling: identity.ceiling, salt: salts.next(), cuts_damage: cuts };
        let (for_cells, for_hints) = (rules(), rules());
        let cells = recovery::open(&mut disk, Log::Cells, owner, for_cells).map_err(open_error)?;
        let hints = recovery::open(&mut disk, Log::Hints, owner, for_hints).map_err(open_error)?;
        if !cells.damaged.is_empty() {
            // Noted before the files are set aside: a crash in between must not hide the loss.
            identity.folder = options.fresh_folder;
            identity.voting = false;
            identity.forgetful = true;
            save_identity(&mut disk, &identity)
                .map_err(|broken| OpenError::Io { file: broken.file, error: broken.error })?;
        }
        let damaged: Vec<_> = cells.damaged.iter().chain(&hints.damaged).cloned().collect();
        for file in &damaged {
            disk.rename(file, &format!("{file}.damaged")).map_err(io(file))?;
        }
        if !damaged.is_empty() {
            for log in [Log::Cells, Log::Hints] {
                disk.sync_folder(log.folder()).map_err(io(log.folder()))?;
            }
        }
        let mut drawn = || Salts::new(salts.next(), options.flaw);
        let (writer, cells) = Writer::new(Log::Cells, owner, cells, drawn());
        let (hints_writer, hints) = Writer::new(Log::Hints, owner, hints, drawn());
        let engine = Engine { disk, options, cells: writer, hints: hints_writer, broken: false };
        Ok((engine, Opened { identity, cells, hints, damaged }))
    }

    /// Carries out a batch: appends of a log share one write and one sync and are completed after it, in their
    /// order; everything else is carried out in its turn. After [`Completion::Broken`] nothing more is done, ever.
    pub fn execute(
        &mut self,
        commands: impl IntoIterator<Item = Command>,
        completions: &mut Vec<Completion>,
    ) {
        if self.broken {
            return;
        }
        let first = completions.len();
        if let Err(broken) = self.try_execute(commands, completions) {
            self.broken = true;
            // What was appended may be there or not: nobody is told either.
            completions.truncate(first);
            completions
                .push(Completion::Broken { error: Arc::new(broken.error), file: broken.file });
        }
    }

    /// Syncs what [`SyncPolicy::Interval`] has left unsynced; the driver calls it at that interval and at the end.
    pub fn sync(&mut self, completions: &mut Vec<Completion>) {
        if self.broken {
            return;
        }
        for writer in [&mut self.cells, &mut self.hints] {
            if let Err(broken) = writer.sync(&mut self.disk) {
                self.broken = true;
                let error = Arc::new(broken.error);
                completions.push(Completion::Broken { error, file: broken.file });
                return;
            }
        }
    }

    /// The medium, for the driver that made it.
    pub fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Ends this engine; the medium is left as it is.
    pub fn into_disk(self) -> D {
        self.disk
    }

    fn try_execute(
        &mut self,
        commands: impl IntoIterator<Item = Command>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), Broken> {
        let limit = self.options.segment_bytes;
        for command in commands {
            match command {
                Command::Append { log, ticket, record } => {
                    let sync = self.options.sync;
                    let (writer, disk) = self.writer(log);
                    if writer.is_full(limit) {
                        writer.flush(disk, limit, sync, completions)?;
                        writer.roll_over(disk)?;
                    }
                    writer.append(ticket, record);
                }
                Command::Load { log, ticket, place } => {
                    let format = self.format(log, place.segment);
                    let result = load(&self.disk, log, place, format);
                    completions.push(Completion::Loaded { log, ticket, result });
                }
                Command::Survey { log, ticket, segment, offset, strict } => {
                    let (result, next) = self.survey(log, segment, offset, strict);
                    completions.push(Completion::Surveyed { log, ticket, result, next });
                }
                Command::Remove { log, segment } => {
                    let (writer, disk) = self.writer(log);
                    // What was copied out of it must be durable, also where appends are not synced one by one.
                    writer.flush(disk, limit, SyncPolicy::Always, completions)?;
                    writer.sync(disk)?;
                    // A failure leaves a segment that is read, and removed, at the next start.
                    let _ = disk.remove(&log.segment_file(segment));
                    let _ = disk.remove(&log.key_file(segment));
                    writer.formats.remove(&segment);
                    completions.push(Completion::Removed { log, segment });
                }
                Command::SaveIdentity { ticket, identity } => {
                    self.save(ticket, &identity, completions)?;
                }
            }
        }
        let sync = self.options.sync;
        for log in [Log::Cells, Log::Hints] {
            let (writer, disk) = self.writer(log);
            writer.flush(disk, limit, sync, completions)?;
        }
        Ok(())
    }

    fn writer(&mut self, log: Log) -> (&mut Writer, &mut D) {
        let writer = match log {
            Log::Cells => &mut self.cells,
            Log::Hints => &mut self.hints,
        };
        (writer, &mut self.disk)
    }

    fn format(&self, log: Log, segment: u32) -> Option<RecordFormat> {
        let writer = match log {
            Log::Cells => &self.cells,
            Log::Hints => &self.hints,
        };
        writer.formats.get(&segment).copied()
    }

    fn save(
        &mut self,
        ticket: Ticket,
        identity: &Identity,
        completions: &mut Vec<Completion>,
    ) -> Result<(), Broken> {
        match save_identity(&mut self.disk, identity) {
            Ok(()) => completions.push(Completion::IdentitySaved { ticket }),
            Err(broken) => match refusal(&broken.error) {
                Some(error) => completions.push(Completion::IdentityUnsaved { ticket, error }),
                None => return Err(broken),
            },
        }
        Ok(())
    }

    /// The records from `offset` on, as many as are read at once.
    #[expect(clippy::type_complexity, reason = "the two halves of one completion")]
    fn survey(
        &self,
        log: Log,
        segment: u32,
        offset: u32,
        strict: bool,
    ) -> (Result<Vec<(Place, Record)>, LoadError>, Option<u32>) {
        let file = log.segment_file(segment);
        let Some(format) = self.format(log, segment) else {
            return (Err(LoadError::Damaged), None);
        };
        if strict && offset == 0 && segment::read_format(&self.disk, log, segment) != Some(format) {
            return (Err(LoadError::Damaged), None);
        }
        let first = if format == RecordFormat::One { HEADER_ONE } else { HEADER };
        let mut offset = (offset as usize).max(first);
        let mut want = SURVEY_BYTES;
        loop {
            let Ok(bytes) = self.disk.read(&file, offset as u64, want) else {
                return (Err(LoadError::Read), None);
            };
            let at_end = bytes.len() < want;
            let bytes = bytes::Bytes::from(bytes);
            let (mut at, mut records) = (0, Vec::new());
            loop {
                match format.parse(&bytes.slice(at..), (offset + at) as u32) {
                    Parsed::Record(written) => {
                        let (place_offset, length) = ((offset + at) as u32, written.length as u32);
                        let place = Place { segment, offset: place_offset, length };
                        records.push((place, written.record));
                        at += written.length;
                    }
                    // Its head says how long it is. Whoever still needs it will miss it.
                    Parsed::DamagedValue(head) if head.length <= bytes.len() - at => {
                        if strict {
                            return (Err(LoadError::Damaged), None);
                        }
                        at += head.length;
                    }
                    Parsed::End if at_end => return (Ok(records), None),
                    // Of the last one the rest may not have been read.
                    Parsed::End | Parsed::DamagedValue(_) | Parsed::Bad => break,
                }
            }
            if at > 0 {
                offset += at;
                return (Ok(records), Some(offset as u32));
            }
            if at_end {
                return (Err(LoadError::Damaged), None);
            }
            // One record is longer than what was read.
            want *= 4;
        }
    }
}

impl Writer {
    fn new(log: Log, owner: Owner, opened: OpenedLog, salts: Salts) -> (Writer, Recovered) {
        let OpenedLog { recovered, length, keys, formats, salt, .. } = opened;
        let writer = Writer {
            log,
            owner,
            segment: recovered.active,
            formats,
            salt,
            seed: Seed::new(salt, recovered.active),
            salts,
            length,
            reserved: u64::from(length),
            blank: u64::from(length),
            next: recovered.position + 1,
            synced: recovered.position,
            dirty: false,
            syncs: 0,
            keys,
            buffer: Vec::new(),
            batch: Vec::new(),
        };
        (writer, recovered)
    }

    fn is_full(&self, limit: u32) -> bool {
        let length = self.length as usize + self.buffer.len();
        length >= limit as usize && length > HEADER
    }

    fn append(&mut self, ticket: Ticket, record: Record) {
        let offset = self.length + self.buffer.len() as u32;
        let sequence = self.next + self.batch.len() as u64;
        debug_assert!(offset >= self.length, "a segment is longer than its numbers");
        debug_assert!(self.synced < self.next, "synced before it was written");
        let positions = (sequence, self.synced);
        let (length, value_crc) =
            record::encode(self.seed, offset, &record, positions, &mut self.buffer);
        let place = Place { segment: self.segment, offset, length };
        self.batch.push(Appended { ticket, place, record, value_crc });
    }

    /// Writes the batch, syncs it if that is the policy, and completes it.
    fn flush<D: Disk>(
        &mut self,
        disk: &mut D,
        limit: u32,
        sync: SyncPolicy,
        completions: &mut Vec<Completion>,
    ) -> Result<(), Broken> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let file = self.log.segment_file(self.segment);
        let length = self.buffer.len() as u32;
        self.reserve(disk, &file, limit);
        if sync == SyncPolicy::Always {
            self.blank();
        }
        let batch = std::mem::take(&mut self.batch);
        let written = disk.write(&file, u64::from(self.length), &self.buffer);
        let touched = self.buffer.len();
        self.buffer.clear();
        // A burst of large values must not keep its memory for ever.
        self.buffer.shrink_to(1 << 20);
        if let Err(error) = written {
            self.undo(disk, &file, touched)?;
            let why = refusal(&error).unwrap_or(AppendError::Write);
            let failed = batch.iter().map(|one| self.completion(one.ticket, Err(why), 0));
            completions.extend(failed);
            return Ok(());
        }
        self.length += length;
        self.next += batch.len() as u64;
        self.dirty = true;
        if sync == SyncPolicy::Always {
            self.sync(disk)?;
        }
        for Appended { ticket, place, record, value_crc } in batch {
            self.keys.push(&KeyEntry::of(&record, place, value_crc));
            completions.push(self.completion(ticket, Ok(place), value_crc));
        }
        Ok(())
    }

    /// Cuts away what a failed write of so many bytes has left behind the last record: what is refused must never come to light,
    /// not even after a power cut, for whoever wrote it may be told that it was not stored.
    fn undo<D: Disk>(&mut self, disk: &mut D, file: &str, touched: usize) -> Result<(), Broken> {
        let length = u64::from(self.length);
        (self.reserved, self.blank) = (length, length);
        let left = disk.read(file, length, touched);
        let is_clean = left.is_ok_and(|left| left.iter().all(|byte| *byte == 0));
        match disk.truncate(file, length) {
            // There is nothing to be cut but zeros, and a read-only medium lets nothing be cut.
            Err(error) if is_clean && refusal(&error).is_some() => return Ok(()),
            cut => cut.map_err(Broken::at(file))?,
        }
        if !is_clean {
            self.dirty = true;
            self.sync(disk)?;
        }
        Ok(())
    }

    /// Takes space ahead of the records, more the longer the segment already is: a sync then has no new length and no new
    /// blocks to make durable. Without space the write will tell.
    fn reserve<D: Disk>(&mut self, disk: &mut D, file: &str, limit: u32) {
        let needed = u64::from(self.length) + self.buffer.len() as u64;
        if needed <= self.reserved {
            return;
        }
        let ahead = u64::from(self.length).clamp(RESERVE.0, RESERVE.1);
        self.reserved = (needed + ahead).min(needed.max(u64::from(limit)));
        // Not tried again before that much is written.
        if disk.reserve(file, self.reserved).is_err() {
            self.blank = self.reserved;
        }
    }

    /// Lets zeros follow the records into space that was never written to: a file system notes where a file has been written,
    /// and makes that note durable with the first sync after it. So one sync in many pays for it instead of most; batches
    /// longer than that pay for it once anyway.
    fn blank(&mut self) {
        let needed = u64::from(self.length) + self.buffer.len() as u64;
        if needed <= self.blank {
            return;
        }
        self.blank = needed;
        if self.buffer.len() as u64 <= BLANK {
            let end = ((needed + BLANK) / PAGE * PAGE).min(self.reserved);
            let zeros = end.saturating_sub(needed);
            self.buffer.resize(self.buffer.len() + zeros as usize, 0);
            self.blank += zeros;
        }
    }

    fn completion(
        &self,
        ticket: Ticket,
        result: Result<Place, AppendError>,
        value_crc: u32,
    ) -> Completion {
        // Under an interval policy what is written counts, as far as this process can tell.
        let position = self.next - 1;
        let (active, syncs) = (self.segment, self.syncs);
        Completion::Appended { log: self.log, ticket, result, value_crc, position, active, syncs }
    }

    fn sync<D: Disk>(&mut self, disk: &mut D) -> Result<(), Broken> {
        if self.dirty {
            let file = self.log.segment_file(self.segment);
            disk.sync(&file).map_err(Broken::at(&file))?;
            self.dirty = false;
            self.syncs += 1;
            self.synced = self.next - 1;
        }
        Ok(())
    }

    /// Seals the active segment and begins another. Without space for one, the present one grows on.
    fn roll_over<D: Disk>(&mut self, disk: &mut D) -> Result<(), Broken> {
        self.sync(disk)?;
        let header = Header {
            cluster: self.owner.cluster,
            server: self.owner.server,
            segment: self.segment + 1,
            first: self.next,
            previous: self.segment,
            previous_length: self.length,
            salt: self.salts.next(),
            previous_salt: self.salt,
        };
        let name = self.log.segment_file(header.segment);
        let new = format!("{name}.new");
        if let Err(error) = disk.write(&new, 0, &header.encode()) {
            let _ = disk.remove(&new);
            let can_wait = refusal(&error).is_some() && self.length < u32::MAX / 2;
            return if can_wait { Ok(()) } else { Err(Broken { error, file: new }) };
        }
        disk.sync(&new).map_err(Broken::at(&new))?;
        disk.rename(&new, &name).map_err(Broken::at(&name))?;
        let folder = self.log.folder();
        disk.sync_folder(folder).map_err(Broken::at(folder))?;
        let keys = std::mem::take(&mut self.keys);
        let (segment, length, last) = (self.segment, self.length, self.next - 1);
        keys.write(disk, self.log, segment, length, last);
        // What was reserved in vain; one that cannot be cut now is when the log is opened.
        let _ = disk.truncate(&self.log.segment_file(segment), u64::from(length));
        (self.segment, self.length) = (header.segment, HEADER as u32);
        (self.salt, self.seed) = (header.salt, Seed::new(header.salt, header.segment));
        self.formats.insert(header.segment, header.format());
        self.reserved = HEADER as u64;
        self.blank = self.reserved;
        Ok(())
    }
}

/// The content of the cell recorded at `place`.
pub(super) fn load<D: Disk>(
    disk: &D,
    log: Log,
    place: Place,
    format: Option<RecordFormat>,
) -> Result<Content, LoadError> {
    let format = format.ok_or(LoadError::Damaged)?;
    let file = log.segment_file(place.segment);
    let bytes = disk
        .read(&file, u64::from(place.offset), place.length as usize)
        .map_err(|_| LoadError::Read)?;
    match format.parse(&bytes.into(), place.offset) {
        Parsed::Record(Written { record: Record::Put { cell, .. }, length, .. })
            if length == place.length as usize =>
        {
            Ok(cell.content)
        }
        Parsed::Record(_) | Parsed::DamagedValue(_) | Parsed::End | Parsed::Bad => {
            Err(LoadError::Damaged)
        }
    }
}

/// What opening would find; nothing is changed.
pub(super) fn look<D: Disk>(disk: &D) -> Result<Look, OpenError> {
    let identity = find_identity(disk)?;
    let mut remarks = Vec::new();
    let owner = identity.as_ref().map(|identity| Owner::new(&identity.cluster, identity.server));
    let mut look = |log: Log| {
        let (recovered, found) = recovery::look(disk, log, owner).map_err(open_error)?;
        remarks.extend(found);
        Ok(recovered)
    };
    let (cells, hints) = (look(Log::Cells)?, look(Log::Hints)?);
    Ok(Look { identity, cells, hints, remarks })
}

fn open_error(error: LogError) -> OpenError {
    match error {
        LogError::Io { file, error } => OpenError::Io { file, error },
        LogError::Foreign { file } => OpenError::ForeignLog { file },
    }
}

/// The identity of a folder, if it has one.
fn read_identity<D: Disk>(
    disk: &D,
    options: &EngineOptions,
) -> Result<Option<Identity>, OpenError> {
    let Some(identity) = find_identity(disk)? else { return Ok(None) };
    if (&identity.cluster, identity.server) != (&options.cluster, options.server) {
        return Err(OpenError::Foreign {
            found_server: identity.server,
            found_cluster: identity.cluster,
            server: options.server,
            cluster: options.cluster.clone(),
        });
    }
    Ok(Some(identity))
}

/// The identity of a folder, whosever it is.
pub(super) fn find_identity<D: Disk>(disk: &D) -> Result<Option<Identity>, OpenError> {
    let io = |error| OpenError::Io { file: IDENTITY.to_owned(), error };
    let length = match disk.length(IDENTITY) {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let bytes = disk.read(IDENTITY, 0, length as usize).map_err(io)?;
    Identity::parse(&bytes).map(Some).map_err(|source| OpenError::Identity { source })
}

/// Whether the identity's file is as this release writes it.
fn is_as_written_now<D: Disk>(disk: &D, identity: &Identity) -> bool {
    let bytes = identity.encode();
    disk.read(IDENTITY, 0, bytes.len() + 1).is_ok_and(|found| found == bytes)
}

fn save_identity<D: Disk>(disk: &mut D, identity: &Identity) -> Result<(), Broken> {
    let bytes = identity.encode();
    // Made anew, so that nothing of a longer one is left behind it.
    let _ = disk.remove(IDENTITY_NEW);
    let written = disk.write(IDENTITY_NEW, 0, &bytes).and_then(|()| disk.sync(IDENTITY_NEW));
    if let Err(error) = written {
        // The piece of it that found room is of no use to anyone.
        let _ = disk.remove(IDENTITY_NEW);
        return Err(Broken { error, file: IDENTITY_NEW.to_owned() });
    }
    disk.rename(IDENTITY_NEW, IDENTITY).map_err(Broken::at(IDENTITY))?;
    disk.sync_folder("").map_err(Broken::at(IDENTITY))
}
