//! A medium that takes no more, before, during and after a crash: the folder opens, everything acknowledged is there, what was
//! refused never comes to light, and it goes on by itself once there is room.

use std::collections::BTreeSet;

use super::*;

fn used(disk: &MemoryDisk) -> u64 {
    disk.files().iter().map(|(_, length)| length).sum()
}

/// Opened before: there is a segment of each log, and an identity. A first start needs room.
pub(super) fn has_both_logs(disk: &MemoryDisk) -> bool {
    let has = |start: &str, end: &str| {
        disk.files().iter().any(|(name, _)| name.starts_with(start) && name.ends_with(end))
    };
    has("cells/", ".log") && has("hints/", ".log") && has("identity.json", "json")
}

/// Killed, not cut off: the page cache stays.
fn killed(folder: Folder) -> MemoryDisk {
    folder.engine.into_disk()
}

/// Rounds of writes on a medium with hardly any room, cut by a power cut at any operation; the next start finds as little.
#[test]
fn crashes_on_a_full_disk_lose_nothing_acknowledged_and_bring_nothing_refused_to_light() {
    let (mut refusals, mut went_on) = (0, 0);
    for seed in 0..600 {
        let random = &mut Random(seed);
        let mut disk = killed(Folder::open(MemoryDisk::new()).unwrap());
        let mut sent: BTreeMap<Key, BTreeMap<Version, Cell>> = BTreeMap::new();
        let mut acknowledged: BTreeMap<Key, Version> = BTreeMap::new();
        let mut refused = BTreeSet::new();
        let mut time = 0;
        for _ in 0..6 {
            if random.below(4) == 0 {
                // A crash may also come while the folder is opened, however far that has got.
                disk.cut_power_after(random.below(12));
                let _ = Engine::open(&mut disk, options());
                disk.crash(|bound| random.below(bound));
            }
            let segments = segments(&disk);
            let mut folder = Folder::open(disk).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            went_on += u64::from(self::segments(folder.engine.disk_mut()) == segments);
            assert!(folder.damaged.is_empty(), "seed {seed}: {:?}", folder.damaged);
            let held = folder.contents();
            for (key, version) in &acknowledged {
                let found = held.get(key).map(|cell| cell.version);
                assert!(found >= Some(*version), "seed {seed}: {key} has {found:?}, not {version}");
            }
            for (key, cell) in &held {
                assert_eq!(sent.get(key).and_then(|cells| cells.get(&cell.version)), Some(cell));
                assert!(!refused.contains(&cell.version), "seed {seed}: {key} was refused");
                // What is shown is durable, now that it was opened.
                acknowledged.insert(key.clone(), cell.version);
            }
            let room = used(folder.engine.disk_mut()) + random.below(400);
            folder.engine.disk_mut().set_capacity((random.below(5) > 0).then_some(room));
            folder.engine.disk_mut().cut_power_after(random.below(90));
            let mut waiting: BTreeMap<Ticket, (Key, Version)> = BTreeMap::new();
            for _ in 0..20 {
                folder.engine.disk_mut().set_read_only(random.below(8) == 0);
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
                    match news {
                        News::Published { ticket, .. } => {
                            let Some((key, version)) = waiting.remove(&ticket) else { continue };
                            let newest = acknowledged.entry(key).or_default();
                            *newest = version.max(*newest);
                        }
                        News::Rejected { ticket, .. } => {
                            let Some((_, version)) = waiting.remove(&ticket) else { continue };
                            refusals += 1;
                            refused.insert(version);
                        }
                        News::Loaded { .. }
                        | News::Learnt { .. }
                        | News::Damaged { .. }
                        | News::Scrubbed(_) => {}
                    }
                }
                if folder.broken {
                    break;
                }
            }
            folder.engine.disk_mut().set_read_only(false);
            disk = folder.crash(random);
        }
    }
    println!("{refusals} refusals, {went_on} times went on in the last segment");
    assert!(refusals > 1_000 && went_on > 100, "{refusals} refusals, {went_on}");
}

/// Numbers of the cells' segments.
fn segments(disk: &MemoryDisk) -> Vec<String> {
    let names = disk.files().into_iter().map(|(name, _)| name);
    names.filter(|name| name.starts_with("cells/") && name.ends_with(".log")).collect()
}

#[test]
fn killed_on_a_full_disk_it_opens_refuses_and_goes_on_by_itself() {
    for short in [0, 20, 200] {
        let mut folder = Folder::open(filled(5)).unwrap();
        let before = folder.contents();
        let mut disk = killed(folder);
        let room = used(&disk).saturating_sub(short);
        disk.set_capacity(Some(room));
        let mut folder = Folder::open(disk).unwrap();
        assert_eq!(folder.contents(), before);
        for time in 100..110 {
            folder.put(&key(time), &cell(time as i64 + 40, false));
            folder.settle();
        }
        let is_rejected = |news: &News| matches!(news, News::Rejected { .. });
        assert!(!folder.broken && folder.news.iter().any(is_rejected));
        folder.engine.disk_mut().set_capacity(None);
        folder.news.clear();
        for time in 200..230 {
            folder.put(&key(time), &cell(time as i64, false));
            folder.settle();
        }
        assert_eq!(folder.news.len(), 30);
        assert!(!folder.news.iter().any(is_rejected));
        let all = folder.contents();
        let mut again = Folder::open(folder.crash(&mut Random(1))).unwrap();
        assert!(again.damaged.is_empty());
        assert_eq!(again.contents(), all);
    }
}

/// Rule 9 where there is no room: after a failed sync the page cache shows a record that is not on the medium, and a further
/// sync says that all is well. What opening shows must survive a power cut all the same.
#[test]
fn what_a_failed_sync_left_in_the_cache_is_durable_before_it_is_shown() {
    let mut folder = Folder::open(filled(5)).unwrap();
    folder.engine.disk_mut().fail_next_sync();
    let (key, cell) = (key(100), cell(100, false));
    folder.put(&key, &cell);
    folder.settle();
    assert!(folder.broken);
    let mut disk = killed(folder);
    disk.set_capacity(Some(0));
    let number = segments(&disk).len();
    let mut folder = Folder::open(disk).unwrap();
    assert_eq!(segments(folder.engine.disk_mut()).len(), number, "there was no room for another");
    assert_eq!(folder.contents().get(&key), Some(&cell));
    let mut disk = killed(folder);
    disk.crash(|_| 0);
    let mut again = Folder::open(disk).unwrap();
    assert_eq!(again.contents().get(&key), Some(&cell), "it was shown, and is gone");
}

/// A medium that has become read-only refuses, ends nothing, and is written to again by itself.
#[test]
fn a_read_only_disk_refuses_and_is_read() {
    let mut folder = Folder::open(filled(5)).unwrap();
    let before = folder.contents();
    folder.engine.disk_mut().set_read_only(true);
    for time in 100..120 {
        folder.put(&key(time), &cell(time as i64, false));
        folder.settle();
    }
    let mut completions = Vec::new();
    let identity = Box::default();
    folder
        .engine
        .execute([Command::SaveIdentity { ticket: Ticket(1), identity }], &mut completions);
    let error = AppendError::ReadOnly;
    assert!(
        matches!(completions[..], [Completion::IdentityUnsaved { error: e, .. }] if e == error)
    );
    assert!(!folder.broken);
    assert_eq!(folder.news.len(), 20);
    assert_eq!(folder.contents(), before);
    folder.engine.disk_mut().set_read_only(false);
    folder.news.clear();
    folder.put(&key(200), &cell(200, false));
    folder.settle();
    assert!(matches!(folder.news[..], [News::Published { .. }]));
}

/// A live record that finds no room to be moved to holds up its own segment, not those that are wholly dead.
#[test]
fn dead_segments_go_where_live_ones_cannot_be_emptied() {
    let mut folder = Folder::open(MemoryDisk::new()).unwrap();
    let mut time = 0;
    let mut put = |folder: &mut Folder, number: u64, content: Option<usize>| {
        time += 1;
        let value = |length| Content::Value("x".repeat(length).into());
        let content = content.map_or(Content::Tombstone, value);
        folder.put(&key(number), &Cell { version: version(time), content });
        folder.settle();
    };
    // A segment of a long record and a short one; one of three records; the beginning of one.
    for (number, length) in [(0, 230), (1, 120), (2, 60), (3, 60), (4, 60), (5, 60)] {
        put(&mut folder, number, Some(length));
    }
    let sealed = segments(folder.engine.disk_mut());
    let room = used(folder.engine.disk_mut());
    folder.engine.disk_mut().set_capacity(Some(room + 40));
    put(&mut folder, 1, None);
    assert_eq!(folder.cells.stats().compactions, 0, "there is no room to empty it");
    let rejected = |news: &News| matches!(news, News::Rejected { .. });
    for number in 2..5 {
        put(&mut folder, number, None);
    }
    assert!(!folder.news.iter().any(rejected), "{:?}", folder.news);
    let left = segments(folder.engine.disk_mut());
    assert!(!left.contains(&sealed[1]), "{sealed:?} {left:?}: wholly dead");
    assert!(!left.contains(&sealed[0]), "{sealed:?} {left:?}: there was room by then");
    assert_eq!(folder.contents().len(), 6);
}
