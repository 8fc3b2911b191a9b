//! Bytes of a data folder.

use std::collections::BTreeMap;
use std::ops::Bound;

use byteorder::{BigEndian, ByteOrder};

use crate::model::{Cell, Content, FolderId, Incarnation, Key, ServerId, Version};
use crate::storage::{
    Disk, Engine, EngineOptions, Log, MemoryDisk, Opened, Store, StoreOptions, SyncPolicy, forgery,
    look, look_at,
};

const SEGMENT: &str = "cells/0000000001.log";
const NEXT_SEGMENT: &str = "cells/0000000002.log";
const KEY_FILE: &str = "cells/0000000001.keys";

/// Lengths of the forms in docs/storage-format.md: headers of both formats, and what is before a record's first checksum.
const HEADER_ONE: usize = 42;
const HEADER: usize = 58;
const PREFIX: usize = 8;
/// Where in a record the length of its key stands; in format 2 the value's checksum follows, then the key.
const KEY_LENGTH: usize = 43;
/// Where in a header the segment's number and its salt stand.
const NUMBER: usize = 18;
const SALT: usize = 38;
/// The first byte of a header's first position.
const FIRST: usize = 22;

fn options() -> EngineOptions {
    EngineOptions {
        cluster: "fuzz".to_owned(),
        server: ServerId(1),
        fresh_folder: FolderId(7),
        salt_seed: 1,
        segment_bytes: 300,
        sync: SyncPolicy::Always,
        flaw: None,
    }
}

/// What a folder holds, as far as it can be read.
type Contents = BTreeMap<Key, (Version, bool)>;

fn contents(opened: &Opened) -> Contents {
    let cells = opened.cells.keydir.iter();
    cells.map(|held| (held.to_key(), (held.version(), held.is_tombstone()))).collect()
}

fn store(opened: &Opened) -> Store {
    let options = StoreOptions { memory: 1000, dead_percent: 40, flaw: None };
    Store::new(Log::Cells, options, opened.cells.clone())
}

/// Puts cells, and lets the engine work until nothing is left to do.
fn put(engine: &mut Engine<MemoryDisk>, store: &mut Store, cells: &[(Key, Cell)]) {
    let mut commands = Vec::new();
    for (key, cell) in cells {
        store.put(key, cell, &mut commands);
    }
    while !commands.is_empty() {
        let mut completions = Vec::new();
        engine.execute(commands.drain(..), &mut completions);
        for completion in completions {
            store.complete(completion, &mut commands);
        }
    }
}

fn cell(number: i64) -> (Key, Cell) {
    let version =
        Version { time: number, server: ServerId(1), incarnation: Incarnation(1), step: 0 };
    let content = match number % 5 {
        0 => Content::Tombstone,
        _ => Content::Value(format!("{number}:{}", "x".repeat(number as usize % 40)).into()),
    };
    (Key::bound(format!("k{}", number % 7)), Cell { version, content })
}

/// A folder after some work: two segments at least.
fn worked(cells: i64) -> MemoryDisk {
    let Ok((mut engine, opened)) = Engine::open(MemoryDisk::new(), options()) else {
        return MemoryDisk::new();
    };
    let mut store = store(&opened);
    for number in 1..=cells {
        put(&mut engine, &mut store, &[cell(number)]);
    }
    engine.into_disk()
}

fn read(disk: &MemoryDisk, name: &str) -> Vec<u8> {
    disk.read(name, 0, usize::MAX).unwrap_or_default()
}

/// Makes the checksums of a segment's header and records true, as far as the lengths lead.
fn mend_segment(bytes: &mut [u8]) {
    let is_old = bytes.get(7) == Some(&1);
    let length = if is_old { HEADER_ONE } else { HEADER };
    let Some(header) = bytes.get_mut(..length) else { return };
    // Just below the highest position that is believed, what was found once would be beyond it the next time.
    header[FIRST] = 0;
    let crc = crc32c::crc32c(&header[..length - 4]);
    BigEndian::write_u32(&mut header[length - 4..], crc);
    let salt = crc32c::crc32c(header.get(SALT..SALT + 8).unwrap_or_default());
    let segment = crc32c::crc32c_append(salt, &header[NUMBER..NUMBER + 4]);
    let mut offset = length;
    while bytes.len() > offset + PREFIX {
        let length = BigEndian::read_u32(&bytes[offset..]) as usize;
        let Some(record) = bytes[offset..].get_mut(..PREFIX + length) else { return };
        let (mut seed, mut covered) = (0, record.len());
        if !is_old {
            // A record whose key is longer than itself has no checksum of its own.
            let Some(key) = record.get(KEY_LENGTH..KEY_LENGTH + 4) else { return };
            covered = KEY_LENGTH + 8 + BigEndian::read_u32(key) as usize;
            let Some(value) = record.get(covered..) else { return };
            let crc = crc32c::crc32c(value);
            BigEndian::write_u32(&mut record[KEY_LENGTH + 4..], crc);
            seed = crc32c::crc32c_append(segment, &(offset as u32).to_be_bytes());
        }
        let crc = crc32c::crc32c_append(seed, &record[..4]);
        let crc = crc32c::crc32c_append(crc, &record[PREFIX..covered]);
        BigEndian::write_u32(&mut record[4..PREFIX], crc);
        offset += PREFIX + length;
    }
}

/// A folder whose last segment is any bytes is opened or refused, never the end of the program; what opening found, it
/// finds again the next time, and what is written then is there too. The first byte says whether checksums are mended,
/// and whether the bytes are the log's only segment or the last of two.
pub(super) fn log(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if mode & 1 == 1 {
        mend_segment(&mut bytes);
    }
    let mut disk = if mode & 2 == 2 { worked(4) } else { MemoryDisk::new() };
    let name = if mode & 2 == 2 { NEXT_SEGMENT } else { SEGMENT };
    if mode & 2 == 2 {
        for (name, _) in disk.files() {
            if name.as_str() > SEGMENT && name.starts_with("cells/") {
                let _ = disk.remove(&name);
            }
        }
    }
    let _ = disk.write(name, 0, &bytes);
    let _ = (disk.sync(name), disk.sync_folder("cells"));
    open_and_go_on(disk, true);
}

/// Opens a folder, checks that what was found is found again, and that what is written then is kept.
fn open_and_go_on(disk: MemoryDisk, loads: bool) {
    let _ = look(&disk);
    let Ok((engine, opened)) = Engine::open(disk, options()) else { return };
    let before = contents(&opened);
    let disk = engine.into_disk();
    if loads {
        // What opening knows to be damaged is, and nothing else.
        for held in opened.cells.keydir.iter().filter(|held| !held.is_tombstone()) {
            let loaded = look_at(&disk, Log::Cells, held.place());
            let is_lost = opened.cells.unreadable.iter().any(|lost| lost.place == held.place());
            assert_eq!(loaded.is_err(), is_lost, "{held:?}: {loaded:?}");
        }
    }
    let (mut engine, opened) = reopen(disk);
    assert_eq!(opened.damaged, Vec::<String>::new(), "damage is set aside once");
    assert_eq!(contents(&opened), before);
    let mut store = store(&opened);
    let key = Key::bound("written later");
    let version = Version { time: i64::MAX, step: 0, ..Version::ZERO };
    let cell = Cell { version, content: Content::Value("v".into()) };
    put(&mut engine, &mut store, &[(key.clone(), cell)]);
    let held = store.range(Bound::Unbounded, Bound::Unbounded).count();
    let mut disk = engine.into_disk();
    disk.crash(|_| 0);
    let (_, opened) = reopen(disk);
    let after = contents(&opened);
    assert_eq!(after.len(), held);
    assert!(after.contains_key(&key));
}

fn reopen(disk: MemoryDisk) -> (Engine<MemoryDisk>, Opened) {
    Engine::open(disk, options()).unwrap_or_else(|error| panic!("opened once, then: {error}"))
}

/// Segments of a log that has worked, whole and cut.
pub(super) fn log_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for cells in [1, 3, 9, 20] {
        let disk = worked(cells);
        for (name, _) in disk.files().into_iter().filter(|(name, _)| name.ends_with(".log")) {
            for mode in 0..4 {
                let mut seed = vec![mode];
                seed.extend(read(&disk, &name));
                seeds.push(seed);
            }
        }
    }
    seeds
}

/// A key file is an aid: with any bytes in it a folder opens, and to what it holds without one. The first byte says
/// whether the checksum is mended; of a key file that lies under a true checksum only that it does no harm is asked.
pub(super) fn key_file(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    let mends = mode & 1 == 1;
    if mends && bytes.len() > 4 {
        let covered = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..covered]);
        BigEndian::write_u32(&mut bytes[covered..], crc);
    }
    let mut disk = worked(12);
    let length = disk.length(KEY_FILE).unwrap_or(0);
    let is_true = bytes == read(&disk, KEY_FILE);
    let Ok((_, opened)) = Engine::open(disk.clone(), options()) else { return };
    let expected = contents(&opened);
    if length > 0 {
        let _ = disk.remove(KEY_FILE);
    }
    let _ = disk.write(KEY_FILE, 0, &bytes);
    let _ = (disk.sync(KEY_FILE), disk.sync_folder("cells"));
    let _ = look(&disk);
    let Ok((engine, opened)) = Engine::open(disk, options()) else {
        panic!("a key file stands in the way")
    };
    if !mends || is_true {
        assert_eq!(contents(&opened), expected);
    }
    // Its places may lie: reading them is an error or the truth.
    let disk = engine.into_disk();
    for held in opened.cells.keydir.iter() {
        let _ = look_at(&disk, Log::Cells, held.place());
    }
}

/// Key files of a log that has worked.
pub(super) fn key_file_seeds() -> Vec<Vec<u8>> {
    let disk = worked(12);
    let mut seeds = Vec::new();
    for (name, _) in disk.files().into_iter().filter(|(name, _)| name.ends_with(".keys")) {
        for mode in 0..2 {
            let mut seed = vec![mode];
            seed.extend(read(&disk, &name));
            seeds.push(seed);
        }
    }
    seeds
}

/// Whatever a client stores, and whatever a power cut leaves of its write: nothing is found that was never put, and torn is no
/// damage. The first bytes choose what is left, the rest is the value.
pub(super) fn forged(data: &[u8]) {
    let Some((chance, value)) = data.split_first_chunk() else { return };
    let Ok((mut engine, opened)) = Engine::open(MemoryDisk::new(), options()) else { return };
    let mut store = store(&opened);
    let acknowledged = cell(1);
    put(&mut engine, &mut store, std::slice::from_ref(&acknowledged));
    let torn = (Key::bound("torn"), Content::Value(value.to_vec().into()));
    let version = Version { time: 2, ..acknowledged.1.version };
    let mut commands = Vec::new();
    store.put(&torn.0, &Cell { version, content: torn.1.clone() }, &mut commands);
    // Space is taken, the record is written, and then no sync.
    engine.disk_mut().cut_power_after(2);
    engine.execute(commands, &mut Vec::new());
    let mut disk = engine.into_disk();
    let mut chance = u64::from(u32::from_be_bytes(*chance));
    disk.crash(|bound| {
        chance = chance.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (chance >> 33) % bound
    });
    let (engine, opened) = reopen(disk);
    assert_eq!(opened.damaged, Vec::<String>::new());
    assert!(opened.cells.position <= 2);
    let disk = engine.into_disk();
    let held = opened.cells.keydir.iter();
    let held: BTreeMap<_, _> =
        held.map(|held| (held.to_key(), look_at(&disk, Log::Cells, held.place()).ok())).collect();
    assert_eq!(held.get(&acknowledged.0), Some(&Some(acknowledged.1.content)));
    let torn_is_there = held.get(&torn.0).is_none_or(|content| *content == Some(torn.1));
    assert!(torn_is_there && held.keys().all(|key| *key == acknowledged.0 || *key == torn.0));
}

/// Values that hold records and logs, torn in some ways.
pub(super) fn forged_seeds() -> Vec<Vec<u8>> {
    let key = Key::bound("forged");
    let log = read(&worked(9), SEGMENT);
    let records = (2..9).map(|sequence| forgery(&key, sequence, (sequence > 6).then_some(1)));
    let values = [records.collect::<Vec<_>>().concat(), log];
    let seed = |(chance, value): (u32, &Vec<u8>)| {
        [&chance.to_be_bytes(), &[b'p'; 600][..], value, &[b'p'; 600]].concat()
    };
    let values = values.iter().flat_map(|value| (0..20).map(move |chance| (chance, value)));
    values.map(seed).collect()
}
