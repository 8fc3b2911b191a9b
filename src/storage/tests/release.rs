//! What release 0.1 has written opens, and is rewritten by and by.

use super::*;

const FILES: [(&str, &[u8]); 15] = {
    macro_rules! file {
        ($name:literal) => {
            ($name, include_bytes!(concat!("../../../tests/fixtures/folder-0.1/", $name)))
        };
    }
    [
        file!("identity.json"),
        file!("cells/0000000008.keys"),
        file!("cells/0000000008.log"),
        file!("cells/0000000010.keys"),
        file!("cells/0000000010.log"),
        file!("cells/0000000011.keys"),
        file!("cells/0000000011.log"),
        file!("cells/0000000012.keys"),
        file!("cells/0000000012.log"),
        file!("cells/0000000013.log"),
        file!("hints/0000000001.keys"),
        file!("hints/0000000001.log"),
        file!("hints/0000000002.keys"),
        file!("hints/0000000002.log"),
        file!("hints/0000000003.log"),
    ]
};

/// The header of a segment of format 1, the first of its log or not, with this first position.
pub(super) fn header_one(segment: u32, first: u64) -> Vec<u8> {
    let owner = super::super::recovery::Owner::new("test", ServerId(1));
    let mut out = b"CHRDLOG\x01".to_vec();
    out.extend(owner.cluster.to_be_bytes());
    out.extend(1_u16.to_be_bytes());
    out.extend(segment.to_be_bytes());
    out.extend(first.to_be_bytes());
    out.extend([0; 8]);
    out.extend(crc32c::crc32c(&out).to_be_bytes());
    out
}

/// A value's record in format 1, with its position and what was synced before it.
pub(super) fn record_one(
    key: &Key,
    version: Version,
    value: &[u8],
    (sequence, synced): (u64, u64),
) -> Vec<u8> {
    let mut body = vec![1];
    body.extend(sequence.to_be_bytes());
    body.extend(synced.to_be_bytes());
    super::super::record::write_version(version, &mut body);
    body.extend((key.as_bytes().len() as u32).to_be_bytes());
    body.extend(key.as_bytes());
    body.extend(value);
    let length = (body.len() as u32).to_be_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&length), &body).to_be_bytes();
    [&length[..], &crc, &body].concat()
}

/// The folder as it was left.
fn folder() -> MemoryDisk {
    let mut disk = MemoryDisk::new();
    for (name, bytes) in FILES {
        disk.write(name, 0, bytes).unwrap();
        disk.sync(name).unwrap();
    }
    disk.sync_folder("").unwrap();
    disk
}

/// What was put into it: forty cells of seventeen keys, then two more in one batch.
fn cells_put() -> BTreeMap<Key, Cell> {
    let one = |time| (key(time as u64 % 17), cell(time, time % 5 == 0));
    let more = [(key(20), cell(41, false)), (key(21), cell(42, false))];
    (1..=40).map(one).chain(more).collect()
}

/// Hints for every third cell; up to every seventh they were erased.
fn hints_left() -> BTreeMap<Key, Version> {
    let mut hints = BTreeMap::new();
    for time in 1..=40 {
        let key = key(time as u64 % 17);
        if time % 3 == 0 {
            hints.insert(key.clone(), version(time));
        }
        if time % 7 == 0 {
            hints.remove(&key);
        }
    }
    hints
}

fn hints(folder: &Folder) -> BTreeMap<Key, Version> {
    let hints = folder.hints.range(Bound::Unbounded, Bound::Unbounded);
    hints.map(|held| (held.to_key(), held.version())).collect()
}

/// The formats of all segments, by what their headers say.
fn formats(disk: &MemoryDisk) -> Vec<u8> {
    let segments = disk.files().into_iter().filter(|(name, _)| name.ends_with(".log"));
    segments.map(|(name, _)| disk.read(&name, 7, 1).unwrap()[0]).collect()
}

/// With its key files, without them, and with some of them.
#[test]
fn a_folder_of_release_0_1_opens_to_what_it_holds() {
    let keys: Vec<_> = FILES.iter().filter(|(name, _)| name.ends_with(".keys")).collect();
    for removed in 0..1u32 << keys.len() {
        let mut disk = folder();
        for (number, (name, _)) in keys.iter().enumerate() {
            if removed >> number & 1 == 1 {
                disk.remove(name).unwrap();
            }
        }
        let found = look(&disk).unwrap();
        assert_eq!(found.remarks, Vec::<String>::new());
        assert_eq!(found.cells.keydir.len(), cells_put().len());
        let mut folder = Folder::open(disk).unwrap();
        assert_eq!(folder.damaged, Vec::<String>::new());
        // Release 0.1 would take the new segments for damaged: it refuses this number.
        let identity = folder.engine.disk_mut().read("identity.json", 0, usize::MAX).unwrap();
        assert!(String::from_utf8(identity).unwrap().contains("\"format\": 2"));
        assert_eq!(folder.contents(), cells_put());
        assert_eq!(hints(&folder), hints_left());
        // And what is read back is what was put, through the engine too.
        for (key, cell) in cells_put() {
            if let Some(ticket) = folder.cells.load(&key, &mut folder.queue) {
                folder.settle();
                let is_it = |news: &News| match news {
                    News::Loaded { ticket: it, cell: found, checksum, .. } => {
                        (*it, found, *checksum) == (ticket, &cell, Checksum::of(&cell.content))
                    }
                    _ => false,
                };
                assert!(folder.news.iter().any(is_it), "{cell:?}");
            }
        }
    }
}

/// Its key files do not say what the contents are: that is learnt from the records, once, and nothing is decided before.
#[test]
fn contents_of_release_0_1_are_learnt_before_they_are_compared() {
    let mut folder = Folder::open(folder()).unwrap();
    let unread = |folder: &Folder| {
        let held = folder.cells.range(Bound::Unbounded, Bound::Unbounded);
        held.filter(|held| held.stamp().checksum.is_none()).map(|held| held.to_key()).collect()
    };
    let keys: Vec<Key> = unread(&folder);
    assert!(keys.len() > 5, "{}", keys.len());
    let (first, rest) = keys.split_first().unwrap();
    let old = cells_put()[first].clone();
    let other =
        |text: &'static str| Cell { version: old.version, content: Content::Value(text.into()) };
    for cell in [&old, &other("other")] {
        assert_eq!(folder.put(first, cell), Admission::Unread);
    }
    let newer = Cell { version: version(1_000), ..old.clone() };
    assert!(matches!(folder.put(&rest[0], &newer), Admission::Pending(_)), "needs no content");
    folder.cells.load(first, &mut folder.queue).unwrap();
    folder.settle();
    assert!(folder.news.iter().any(|news| matches!(news, News::Loaded { learnt: true, .. })));
    let current = old.version;
    assert_eq!(folder.put(first, &old), Admission::Held { current, other: None });
    assert!(!unread(&folder).contains(first));
    // The rest is learnt as the old segments are rewritten.
    let before = unread(&folder);
    folder.news.clear();
    for time in 100..300 {
        folder.put(&key(time as u64), &cell(time, false));
        folder.settle();
    }
    assert_eq!(unread(&folder), Vec::<Key>::new());
    let learnt = folder.news.iter().filter_map(|news| match news {
        News::Learnt { key, now } => {
            assert_eq!(*now, Stamp::of(&cells_put()[key]));
            Some(key.clone())
        }
        _ => None,
    });
    assert_eq!(learnt.collect::<std::collections::BTreeSet<_>>(), before.into_iter().collect());
}

/// Every bit of its segments: as in format 2, never a wrong value, and no loss in silence.
#[test]
fn a_flipped_bit_in_a_folder_of_release_0_1_is_noticed() {
    let full = cells_put();
    let mut reported = 0;
    for (name, bytes) in FILES {
        if !(name.starts_with("cells/") && name.ends_with(".log")) {
            continue;
        }
        for bit in (0..bytes.len() * 8).step_by(3) {
            let mut disk = folder();
            for (keys, _) in FILES.iter().filter(|(name, _)| name.ends_with(".keys")) {
                disk.remove(keys).unwrap();
            }
            assert!(disk.flip(name, bit / 8, (bit % 8) as u8));
            let Ok(mut folder) = Folder::open(disk) else { continue };
            let held = folder.contents();
            assert!(held.iter().all(|(key, cell)| {
                let time = cell.version.time;
                *cell == super::cell(time, time % 5 == 0 && time < 41) && full.contains_key(key)
            }));
            // Only what was never known to be synced may look torn.
            let acknowledged = full.iter().filter(|(_, cell)| cell.version.time <= 40);
            let is_whole = acknowledged.into_iter().all(|(key, cell)| held.get(key) == Some(cell));
            assert!(!folder.damaged.is_empty() || is_whole, "{name} bit {bit}");
            reported += u64::from(!folder.damaged.is_empty());
        }
    }
    assert!(reported > 100, "{reported}");
}

/// Segments of format 1 are rewritten one by one, no faster than writes come; nothing is lost on the way, whenever the power
/// goes out, and none is left at the end.
#[test]
fn a_folder_of_release_0_1_is_rewritten_without_haste() {
    let open = |disk| {
        // Nothing is compacted for what is dead in it, unless that is all.
        let mut folder = Folder::open(disk).unwrap();
        assert_eq!(folder.damaged, Vec::<String>::new());
        (folder.cells.options.dead_percent, folder.hints.options.dead_percent) = (100, 100);
        folder
    };
    let old = |folder: &mut Folder| {
        let formats = formats(folder.engine.disk_mut());
        formats.iter().filter(|format| **format == 1).count()
    };
    let mut folder = open(folder());
    assert_eq!(old(&mut folder), 8);
    let (mut all, mut hints_put) = (cells_put(), hints_left());
    let (mut rewritten, mut taken_in) = (0, 0);
    for time in 100..400 {
        // Of keys of their own, so that none of the old cells dies.
        let (key, cell) = (key(time as u64), cell(time, false));
        folder.put(&key, &cell);
        folder.hints.put(&key, &cell, &mut folder.queue);
        taken_in += cell.content.len() + 60;
        hints_put.insert(key.clone(), cell.version);
        all.insert(key, cell);
        let before = old(&mut folder);
        folder.settle();
        rewritten += before - old(&mut folder);
        // In each of the two logs.
        assert!(rewritten <= 2 * (1 + taken_in / 300), "{rewritten} after {taken_in} bytes");
        if time % 50 == 0 {
            folder = open(folder.crash(&mut Random(time as u64)));
        }
    }
    // A crash may have brought one back.
    assert_eq!(old(&mut folder), 0);
    assert!(rewritten >= 8, "{rewritten}");
    assert_eq!(folder.contents(), all);
    assert_eq!(hints(&folder), hints_put);
}
