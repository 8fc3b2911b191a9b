//! The storage as a whole, on a medium that keeps synced and written bytes apart: what was acknowledged is there, what was
//! not may be, and nothing else; torn and damaged are told apart.

mod content;
mod forged;
mod full;
mod images;
mod lost;
mod release;
mod scrub;

use std::collections::BTreeMap;
use std::ops::Bound;

use super::*;
use crate::model::{Cell, Checksum, Content, FolderId, Incarnation, Key, ServerId, Stamp, Version};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

fn options() -> EngineOptions {
    EngineOptions {
        cluster: "test".to_owned(),
        server: ServerId(1),
        fresh_folder: FolderId(7),
        salt_seed: 1,
        segment_bytes: 400,
        sync: SyncPolicy::Always,
        flaw: None,
    }
}

fn store_options() -> StoreOptions {
    StoreOptions { memory: 150, dead_percent: 40, flaw: None }
}

fn version(time: i64) -> Version {
    Version { time, server: ServerId(1), incarnation: Incarnation(1), step: 0 }
}

fn cell(time: i64, deleted: bool) -> Cell {
    let value = format!("{time}:{}", "x".repeat(time as usize % 50));
    let content = if deleted { Content::Tombstone } else { Content::Value(value.into()) };
    Cell { version: version(time), content }
}

fn key(number: u64) -> Key {
    Key::bound(format!("key{number}"))
}

/// Both sides of one folder.
struct Folder {
    engine: Engine<MemoryDisk>,
    cells: Store,
    hints: Store,
    damaged: Vec<String>,
    queue: Vec<Command>,
    broken: bool,
    news: Vec<News>,
}

impl Folder {
    fn open(disk: MemoryDisk) -> Result<Folder, OpenError> {
        Folder::open_with(disk, None)
    }

    fn open_with(disk: MemoryDisk, flaw: Option<StorageFlaw>) -> Result<Folder, OpenError> {
        let (engine, opened) = Engine::open(disk, EngineOptions { flaw, ..options() })?;
        Ok(Folder {
            engine,
            cells: Store::new(Log::Cells, store_options(), opened.cells),
            hints: Store::new(Log::Hints, store_options(), opened.hints),
            damaged: opened.damaged,
            queue: Vec::new(),
            broken: false,
            news: Vec::new(),
        })
    }

    fn put(&mut self, key: &Key, cell: &Cell) -> Admission {
        self.cells.put(key, cell, &mut self.queue)
    }

    /// Carries out what is queued, once; what that orders is queued.
    fn work(&mut self) {
        let mut completions = Vec::new();
        self.engine.execute(self.queue.drain(..), &mut completions);
        for completion in completions {
            match &completion {
                Completion::Broken { .. } => self.broken = true,
                Completion::Appended { log: Log::Hints, .. }
                | Completion::Loaded { log: Log::Hints, .. }
                | Completion::Surveyed { log: Log::Hints, .. }
                | Completion::Removed { log: Log::Hints, .. } => {
                    self.news.extend(self.hints.complete(completion, &mut self.queue));
                }
                _ => self.news.extend(self.cells.complete(completion, &mut self.queue)),
            }
        }
    }

    fn settle(&mut self) {
        while !self.queue.is_empty() && !self.broken {
            self.work();
        }
    }

    /// What is held and not lost, values from the disk included.
    fn contents(&mut self) -> BTreeMap<Key, Cell> {
        let held: Vec<_> = self
            .cells
            .range(Bound::Unbounded, Bound::Unbounded)
            .map(|held| (held.to_key(), held.version(), held.whereabouts()))
            .filter(|(key, ..)| !self.cells.is_lost(key))
            .collect();
        let disk = self.engine.disk_mut();
        let cell = |version, whereabouts| match whereabouts {
            Whereabouts::Memory(content) => Cell { version, content },
            Whereabouts::Disk(place) => {
                Cell { version, content: look_at(disk, Log::Cells, place).unwrap() }
            }
        };
        held.into_iter()
            .map(|(key, version, whereabouts)| (key, cell(version, whereabouts)))
            .collect()
    }

    fn crash(self, random: &mut Random) -> MemoryDisk {
        let mut disk = self.engine.into_disk();
        disk.crash(|bound| random.below(bound));
        disk
    }
}

/// S7: a random workload, cut by a crash at a random operation of the disk, again and again, with roll-over and
/// compaction all the time. What was acknowledged is there or has been overwritten by something newer that was sent;
/// nothing is there that was never sent; nothing is taken for damage.
#[test]
fn crashes_at_any_moment_lose_nothing_acknowledged_and_invent_nothing() {
    for seed in 0..1_000 {
        let random = &mut Random(seed);
        let mut disk = MemoryDisk::new();
        let mut sent: BTreeMap<Key, BTreeMap<Version, Cell>> = BTreeMap::new();
        let mut acknowledged: BTreeMap<Key, Version> = BTreeMap::new();
        let mut time = 0;
        for _ in 0..6 {
            // A crash may also come while the folder is opened.
            let mut folder = loop {
                if random.below(3) == 0 {
                    disk.cut_power_after(random.below(12));
                }
                let mut copy = disk.clone();
                match Folder::open(copy.clone()) {
                    Ok(folder) => break folder,
                    Err(_) => {
                        // What the attempt did to the medium before the power went out must do no harm.
                        let _ = Engine::open(&mut copy, options());
                        copy.crash(|bound| random.below(bound));
                        disk = copy;
                    }
                }
            };
            assert!(folder.damaged.is_empty(), "seed {seed}: {:?}", folder.damaged);
            let held = folder.contents();
            for (key, version) in &acknowledged {
                let found = held.get(key).map(|cell| cell.version);
                assert!(found >= Some(*version), "seed {seed}: {key} has {found:?}, not {version}");
            }
            for (key, cell) in &held {
                assert_eq!(sent.get(key).and_then(|cells| cells.get(&cell.version)), Some(cell));
                // What is shown is durable, now that it was opened.
                acknowledged.insert(key.clone(), cell.version);
            }
            folder.engine.disk_mut().cut_power_after(random.below(120));
            let mut waiting: BTreeMap<Ticket, (Key, Version)> = BTreeMap::new();
            while !folder.broken {
                for _ in 0..=random.below(4) {
                    time += 1;
                    let (key, cell) = (key(random.below(6)), cell(time, random.below(5) == 0));
                    sent.entry(key.clone()).or_default().insert(cell.version, cell.clone());
                    if let Admission::Pending(ticket) = folder.put(&key, &cell) {
                        waiting.insert(ticket, (key, cell.version));
                    }
                }
                folder.work();
                for news in std::mem::take(&mut folder.news) {
                    if let News::Published { ticket, .. } = news
                        && let Some((key, version)) = waiting.remove(&ticket)
                    {
                        let newest = acknowledged.entry(key).or_default();
                        *newest = version.max(*newest);
                    }
                }
            }
            disk = folder.crash(random);
        }
    }
}

impl Disk for &mut MemoryDisk {
    fn make_folder(&mut self, folder: &str) -> std::io::Result<()> {
        (**self).make_folder(folder)
    }
    fn list(&self, folder: &str) -> std::io::Result<Vec<String>> {
        (**self).list(folder)
    }
    fn length(&self, name: &str) -> std::io::Result<u64> {
        (**self).length(name)
    }
    fn read(&self, name: &str, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
        (**self).read(name, offset, length)
    }
    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        (**self).write(name, offset, bytes)
    }
    fn reserve(&mut self, name: &str, length: u64) -> std::io::Result<()> {
        (**self).reserve(name, length)
    }
    fn truncate(&mut self, name: &str, length: u64) -> std::io::Result<()> {
        (**self).truncate(name, length)
    }
    fn sync(&mut self, name: &str) -> std::io::Result<()> {
        (**self).sync(name)
    }
    fn sync_folder(&mut self, folder: &str) -> std::io::Result<()> {
        (**self).sync_folder(folder)
    }
    fn rename(&mut self, from: &str, to: &str) -> std::io::Result<()> {
        (**self).rename(from, to)
    }
    fn remove(&mut self, name: &str) -> std::io::Result<()> {
        (**self).remove(name)
    }
}

/// A folder with this many records, one batch each, all acknowledged, then closed without a crash.
fn filled(records: i64) -> MemoryDisk {
    let mut folder = Folder::open(MemoryDisk::new()).unwrap();
    for time in 1..=records {
        folder.put(&key(time as u64), &cell(time, time % 4 == 0));
        folder.settle();
    }
    folder.engine.into_disk()
}

#[test]
fn few_writes_go_where_nothing_was_ever_written() {
    let options = EngineOptions { segment_bytes: 1 << 20, ..options() };
    let (mut engine, opened) = Engine::open(MemoryDisk::new(), options).unwrap();
    let mut cells = Store::new(Log::Cells, store_options(), opened.cells);
    let before = engine.disk_mut().fresh_writes();
    for time in 1..=2_000 {
        let mut commands = Vec::new();
        cells.put(&key(time as u64), &cell(time, false), &mut commands);
        engine.execute(commands, &mut Vec::new());
    }
    let (syncs, fresh) = (engine.disk_mut().syncs(), engine.disk_mut().fresh_writes() - before);
    assert!(syncs >= 2_000 && fresh < 20, "{fresh} of {syncs}");
}

/// The active segment's name: the last one.
fn last_segment(disk: &MemoryDisk) -> (String, u64) {
    disk.files()
        .into_iter()
        .rfind(|(name, _)| name.starts_with("cells/") && name.ends_with(".log"))
        .unwrap()
}

/// Every truncation point of the last segment: whole records before it are there, and nothing else; a cut below what is
/// known to have been synced is damage.
#[test]
fn every_truncation_of_the_last_segment_is_torn_or_damage_and_never_a_wrong_cell() {
    let disk = filled(5);
    let full = Folder::open(disk.clone()).unwrap().contents();
    let (name, length) = last_segment(&disk);
    let mut fewer = 0;
    for cut in segment_header()..length {
        let mut cut_disk = disk.clone();
        cut_disk.truncate(&name, cut).unwrap();
        let mut folder = Folder::open(cut_disk).unwrap();
        let held = folder.contents();
        assert!(held.iter().all(|(key, cell)| full.get(key) == Some(cell)), "cut at {cut}");
        fewer += u64::from(held.len() < full.len());
        // Appending goes on, and survives.
        folder.put(&key(99), &cell(99, false));
        folder.settle();
        let mut again = Folder::open(folder.engine.into_disk()).unwrap();
        assert_eq!(again.contents().len(), held.len() + 1, "cut at {cut}");
    }
    assert!(fewer > 0);
}

fn segment_header() -> u64 {
    super::segment::HEADER as u64
}

/// Every flipped bit of every segment: never a wrong value; what was synced before something that is still readable is
/// either there or its loss is reported.
#[test]
fn every_flipped_bit_is_noticed_and_no_good_record_is_dropped_in_silence() {
    let disk = filled(9);
    let full = Folder::open(disk.clone()).unwrap().contents();
    let segments: Vec<_> = disk
        .files()
        .into_iter()
        .filter(|(name, _)| name.starts_with("cells/") && name.ends_with(".log"))
        .collect();
    assert!(segments.len() > 1, "there are sealed segments");
    let (last, _) = last_segment(&disk);
    let (mut reported, mut torn) = (0, 0);
    for (name, length) in segments {
        for bit in 0..length * 8 {
            let mut flipped = disk.clone();
            // Key files would hide the segment from recovery; then a load finds the damage.
            for (file, _) in disk.files().iter().filter(|(file, _)| file.ends_with(".keys")) {
                flipped.remove(file).unwrap();
            }
            assert!(flipped.flip(&name, (bit / 8) as usize, (bit % 8) as u8));
            let mut folder = match Folder::open(flipped) {
                Ok(folder) => folder,
                // A header that claims another owner.
                Err(OpenError::ForeignLog { .. }) => continue,
                Err(error) => panic!("{name} bit {bit}: {error}"),
            };
            let held = folder.contents();
            assert!(held.iter().all(|(key, cell)| full.get(key) == Some(cell)), "{name} bit {bit}");
            if folder.damaged.is_empty() && !folder.cells.has_lost() {
                // Only the last batch may look torn.
                assert!(held.len() >= full.len() - 1, "{name} bit {bit}: {} cells", held.len());
                assert!(held.len() == full.len() || name == last, "{name} bit {bit}");
                torn += u64::from(held.len() < full.len());
            } else {
                reported += 1;
            }
        }
    }
    assert!(reported > 100 && torn > 100, "{reported} reported, {torn} torn");
}

/// Bug class 39: a file that cannot be read ends the start, by name, and nothing is changed; a key file is only an aid.
#[test]
fn a_file_that_cannot_be_read_ends_the_start_and_harms_nothing() {
    let disk = filled(9);
    let full = Folder::open(disk.clone()).unwrap().contents();
    for (name, _) in disk.files() {
        let mut unreadable = disk.clone();
        unreadable.make_unreadable(Some(&name));
        let opened = Folder::open(unreadable.clone());
        if name.ends_with(".keys") {
            assert_eq!(opened.unwrap().contents(), full, "{name}");
            continue;
        }
        match opened.map(|_| ()) {
            Err(OpenError::Io { file, .. }) => assert_eq!(file, name),
            other => panic!("{name}: {other:?}"),
        }
        // It was a cable.
        let _ = Engine::open(&mut unreadable, options());
        unreadable.make_unreadable(None);
        let mut folder = Folder::open(unreadable).unwrap();
        assert!(folder.damaged.is_empty(), "{name}");
        assert_eq!(folder.contents(), full, "{name}");
    }
}

/// A damaged log is noted in the identity before the file is set aside, so that a crash in between does not hide it.
#[test]
fn damage_takes_the_vote_away_for_good() {
    let mut disk = filled(9);
    let mut folder = Folder::open(disk.clone()).unwrap();
    let identity = Identity {
        cluster: "test".to_owned(),
        server: ServerId(1),
        folder: FolderId(5),
        incarnation: Incarnation(1),
        voting: true,
        ..Identity::default()
    };
    folder.queue.push(Command::SaveIdentity { ticket: Ticket(1), identity: Box::new(identity) });
    folder.settle();
    disk = folder.engine.into_disk();
    let sealed = disk.files().into_iter().find(|(name, _)| name.ends_with(".log")).unwrap().0;
    disk.remove(&sealed.replace(".log", ".keys")).unwrap();
    assert!(disk.flip(&sealed, 60, 0));
    for operations in 0.. {
        let mut attempt = disk.clone();
        attempt.cut_power_after(operations);
        let first = Engine::open(&mut attempt, options()).map(|(_, opened)| opened.damaged);
        attempt.crash(|_| 0);
        let (_, opened) = Engine::open(attempt, options()).unwrap();
        assert!(
            !opened.identity.voting || !opened.damaged.is_empty(),
            "after {operations} operations"
        );
        if let Ok(damaged) = first {
            assert_eq!(damaged, [sealed]);
            break;
        }
    }
}

/// W15: overwriting one key for ever keeps the log bounded, values in memory too.
#[test]
fn overwriting_one_key_for_ever_keeps_the_log_bounded() {
    let mut folder = Folder::open(MemoryDisk::new()).unwrap();
    for time in 1..5_000 {
        folder.put(&key(1), &cell(time, false));
        folder.put(&key(2 + time as u64 % 3), &cell(time, time % 7 == 0));
        folder.settle();
        let stats = folder.cells.stats();
        assert!(stats.log_bytes < 3_000, "{stats:?}");
        assert!(stats.memory_bytes <= 150, "{stats:?}");
    }
    assert!(folder.cells.stats().compactions > 100);
    let before = folder.contents();
    let mut again = Folder::open(folder.engine.into_disk()).unwrap();
    assert_eq!(again.contents(), before);
}

/// A full disk: what does not fit is refused and leaves nothing behind; what was there stays; once there is room again,
/// it goes on.
#[test]
fn a_full_disk_refuses_and_forgets_nothing() {
    let mut folder = Folder::open(filled(5)).unwrap();
    let before = folder.contents();
    let used: u64 = folder.engine.disk_mut().files().iter().map(|(_, length)| length).sum();
    folder.engine.disk_mut().set_capacity(Some(used + 30));
    for time in 100..120 {
        folder.put(&key(time), &cell(time as i64, false));
        folder.settle();
    }
    assert!(!folder.broken);
    let rejected = folder.news.iter().filter(|news| matches!(news, News::Rejected { .. })).count();
    assert_eq!(rejected, 20);
    assert_eq!(folder.contents(), before);
    folder.engine.disk_mut().set_capacity(None);
    folder.put(&key(200), &cell(200, false));
    folder.settle();
    let mut again = Folder::open(folder.engine.into_disk()).unwrap();
    assert!(again.damaged.is_empty());
    assert_eq!(again.contents().len(), before.len() + 1);
}

/// After a failed sync nothing is acknowledged, ever; and a restart finds what had been.
#[test]
fn a_failed_sync_is_final() {
    let mut folder = Folder::open(filled(5)).unwrap();
    let before = folder.contents();
    folder.engine.disk_mut().fail_next_sync();
    folder.put(&key(100), &cell(100, false));
    folder.settle();
    assert!(folder.broken && folder.news.is_empty());
    folder.queue.clear();
    folder.put(&key(101), &cell(101, false));
    folder.work();
    assert!(folder.news.is_empty(), "it goes on after a failed sync");
    let mut again = Folder::open(folder.crash(&mut Random(1))).unwrap();
    let held = again.contents();
    assert!(before.iter().all(|(key, cell)| held.get(key) == Some(cell)));
}

/// Cells are not shown before they are durable; the comparison sees them all the same.
#[test]
fn a_cell_is_shown_after_its_sync_and_compared_before() {
    let mut folder = Folder::open(MemoryDisk::new()).unwrap();
    let Admission::Pending(newer) = folder.put(&key(1), &cell(5, false)) else { panic!() };
    assert!(folder.cells.version(&key(1)).is_zero());
    assert_eq!(
        folder.put(&key(1), &cell(3, false)),
        Admission::Pending(newer),
        "the newer is waited for"
    );
    assert_eq!(
        folder.put(&key(1), &cell(5, false)),
        Admission::Pending(newer),
        "the same is waited for"
    );
    folder.settle();
    assert_eq!(folder.cells.version(&key(1)), version(5));
    assert_eq!(
        folder.put(&key(1), &cell(4, false)),
        Admission::Held { current: version(5), other: None }
    );
}

/// Hints: an erasure forgets at once and for good, but not what is newer.
#[test]
fn what_was_erased_stays_erased_and_what_is_newer_stays() {
    let mut folder = Folder::open(MemoryDisk::new()).unwrap();
    for time in 1..=20 {
        folder.hints.put(&key(time), &cell(time as i64, false), &mut folder.queue);
        folder.settle();
    }
    for time in 1..=20 {
        // Every second one was overtaken by a newer hint before its delivery was acknowledged.
        if time % 2 == 0 {
            folder.hints.put(&key(time), &cell(time as i64 + 100, false), &mut folder.queue);
            folder.settle();
        }
        folder.hints.erase(&key(time), version(time as i64), &mut folder.queue);
        assert_eq!(folder.hints.version(&key(time)).is_zero(), time % 2 == 1);
    }
    folder.settle();
    let again = Folder::open(folder.engine.into_disk()).unwrap();
    assert_eq!(again.hints.stats().keys, 10);
}

#[test]
fn a_folder_of_another_server_or_cluster_is_refused_by_name() {
    let disk = filled(1);
    let other = EngineOptions { server: ServerId(2), ..options() };
    let error = Engine::open(disk.clone(), other).unwrap_err().to_string();
    assert!(error.contains("belongs to server 1"), "{error}");
    let other = EngineOptions { cluster: "other".to_owned(), ..options() };
    let error = Engine::open(disk, other).unwrap_err().to_string();
    assert!(error.contains("'test'"), "{error}");
}

/// Looking at a folder changes nothing, and finds what opening finds.
#[test]
fn looking_changes_nothing_and_sees_what_opening_sees() {
    let disk = filled(9);
    let before = disk.files();
    let found = look(&disk).unwrap();
    assert_eq!(disk.files(), before);
    assert!(found.remarks.is_empty(), "{:?}", found.remarks);
    let looked: Vec<_> =
        found.cells.keydir.iter().map(|held| (held.to_key(), held.version())).collect();
    let mut folder = Folder::open(disk).unwrap();
    let opened: Vec<_> =
        folder.contents().into_iter().map(|(key, cell)| (key, cell.version)).collect();
    assert_eq!(looked, opened);
}
