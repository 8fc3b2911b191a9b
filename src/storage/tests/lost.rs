//! A value that rots in a sealed segment: its key is lost until something as new is written, and nothing else is touched.

use super::*;

/// A folder with one value in a sealed segment turned, its key file kept or not; its key, and the cell that was held.
fn rotten(keeps_key_file: bool) -> (MemoryDisk, Key, Cell) {
    let mut disk = filled(12);
    let mut folder = Folder::open(disk.clone()).unwrap();
    let (victim, old) = (key(2), cell(2, false));
    let (_, Whereabouts::Disk(place)) = folder.cells.find(&victim).unwrap() else { panic!() };
    assert_eq!(folder.contents()[&victim], old);
    let name = Log::Cells.segment_file(place.segment);
    assert!(disk.flip(&name, (place.offset + place.length - 1) as usize, 3));
    if !keeps_key_file {
        disk.remove(&Log::Cells.key_file(place.segment)).unwrap();
    }
    (disk, victim, old)
}

fn load(folder: &mut Folder, key: &Key) -> Vec<News> {
    folder.cells.load(key, &mut folder.queue).expect("it is on disk");
    folder.settle();
    std::mem::take(&mut folder.news)
}

#[test]
fn a_rotten_value_is_lost_and_healed_by_one_as_new() {
    for keeps_key_file in [true, false] {
        let (disk, victim, old) = rotten(keeps_key_file);
        let mut folder = Folder::open(disk).unwrap();
        assert!(folder.damaged.is_empty(), "the server keeps its log, and its vote");
        assert_eq!(folder.cells.is_lost(&victim), !keeps_key_file, "only a scan sees it at once");
        if keeps_key_file {
            let found = load(&mut folder, &victim);
            assert!(
                matches!(&found[..], [News::Damaged { ticket: Some(_), lost: Some(lost) }]
                if lost.key == victim && lost.version == old.version),
                "{found:?}"
            );
        }
        let again = load(&mut folder, &victim);
        assert!(matches!(&again[..], [News::Damaged { lost: None, .. }]), "told once: {again:?}");

        assert_eq!(folder.put(&victim, &cell(1, false)), Admission::Lost, "what is older");
        assert_eq!(folder.cells.version(&victim), old.version, "its version is known");
        assert!(matches!(folder.put(&victim, &old), Admission::Pending(_)), "what is as new");
        folder.settle();
        let healed = News::Published {
            ticket: Ticket(0),
            key: victim.clone(),
            put: Stamp::of(&old),
            before: Stamp::of(&old),
            now: Stamp::of(&old),
            healed: true,
        };
        let found: Vec<_> = std::mem::take(&mut folder.news)
            .into_iter()
            .map(|news| match news {
                News::Published { key, put, before, now, healed, .. } => {
                    News::Published { ticket: Ticket(0), key, put, before, now, healed }
                }
                other => other,
            })
            .collect();
        assert_eq!(found, [healed]);
        assert!(!folder.cells.is_lost(&victim) && !folder.cells.has_lost());
        let current = old.version;
        assert_eq!(folder.put(&victim, &old), Admission::Held { current, other: None });
        assert_eq!(folder.contents().len(), 12);

        let mut again = Folder::open(folder.engine.into_disk()).unwrap();
        assert!(again.damaged.is_empty() && !again.cells.has_lost());
        assert_eq!(again.contents()[&victim], old);
    }
}

/// Compaction that meets it empties the segment all the same, tells of it, and removes the file once it is healed.
#[test]
fn a_segment_with_a_rotten_value_is_emptied() {
    for bad_head in [false, true] {
        let (mut disk, victim, old) = rotten(true);
        let first = Log::Cells.segment_file(1);
        if bad_head {
            // Then the segment cannot be read in a row either.
            let mut folder = Folder::open(disk.clone()).unwrap();
            let (_, Whereabouts::Disk(place)) = folder.cells.find(&victim).unwrap() else {
                panic!()
            };
            assert_eq!(Log::Cells.segment_file(place.segment), first);
            assert!(disk.flip(&first, place.offset as usize + 10, 3));
        }
        let mut folder = Folder::open(disk).unwrap();
        let there = |folder: &mut Folder, name: &str| {
            folder.engine.disk_mut().files().iter().any(|(file, _)| file == name)
        };
        let in_first: Vec<_> = folder
            .cells
            .range(Bound::Unbounded, Bound::Unbounded)
            .filter(|held| held.place().segment == 1)
            .map(|held| held.to_key())
            .collect();
        assert!(in_first.len() > 3, "{in_first:?}");
        let others: Vec<_> = in_first.into_iter().filter(|key| *key != victim).collect();
        let (stays, overwritten) = others.split_last().unwrap();
        for (time, key) in (100..).zip(overwritten) {
            folder.put(key, &cell(time, false));
            folder.settle();
        }
        let lost = |news: &News| matches!(news, News::Damaged { ticket: None, lost: Some(_) });
        let told = folder.news.iter().filter(|news| lost(news)).count();
        assert_eq!(told, 1, "{:?}", folder.news);
        assert!(folder.cells.is_lost(&victim) && there(&mut folder, &first));
        let place =
            |folder: &Folder, key: &Key| folder.cells.keydir.get(key.as_bytes()).unwrap().place();
        assert_ne!(place(&folder, stays).segment, 1, "what is good has left");
        let compactions = folder.cells.stats().compactions;

        folder.put(&victim, &old);
        folder.settle();
        assert!(!there(&mut folder, &first), "the file is gone once nothing of it is wanted");
        assert!(folder.cells.stats().compactions > compactions);
        let mut again = Folder::open(folder.engine.into_disk()).unwrap();
        assert!(again.damaged.is_empty() && !again.cells.has_lost());
        assert_eq!(again.contents().len(), 12);
    }
}

/// In the segment that was written to: damage below what is known to have been synced costs that key, and nothing else, on a full
/// disk too; what stands above it could be a torn write, and is taken for one.
#[test]
fn a_rotten_value_in_the_last_segment_is_lost_alone() {
    let (disk, last) = (filled(15), last_segment(&filled(15)).0);
    let look = look(&disk).unwrap();
    let mut in_last: Vec<_> = look
        .cells
        .keydir
        .iter()
        .filter(|held| {
            Log::Cells.segment_file(held.place().segment) == last && !held.is_tombstone()
        })
        .map(|held| (held.place(), held.to_key(), held.version()))
        .collect();
    in_last.sort_by_key(|(place, ..)| *place);
    let (_, rest) = in_last.split_last().expect("the last one may be torn");
    assert!(!rest.is_empty(), "{in_last:?}");
    for (is_full, (place, victim, version)) in [false, true].into_iter().zip(rest.iter().cycle()) {
        let mut disk = disk.clone();
        assert!(disk.flip(&last, (place.offset + place.length - 1) as usize, 3));
        if is_full {
            disk.set_capacity(Some(disk.files().iter().map(|(_, length)| length).sum()));
        }
        let mut folder = Folder::open(disk).unwrap();
        assert!(folder.damaged.is_empty(), "the server keeps its log, and its vote");
        assert!(folder.cells.is_lost(victim));
        assert_eq!(folder.cells.version(victim), *version, "its version is known");
        folder.engine.disk_mut().set_capacity(None);
        let old = filled_cell(victim);
        assert!(matches!(folder.put(victim, &old), Admission::Pending(_)), "what is as new");
        folder.settle();
        assert!(!folder.cells.has_lost());
        let mut again = Folder::open(folder.engine.into_disk()).unwrap();
        assert!(again.damaged.is_empty() && !again.cells.has_lost());
        assert_eq!(again.contents().len(), 15);
        assert_eq!(again.contents()[victim], old);
    }
    let (place, victim, _) = in_last.last().unwrap();
    let mut disk = disk.clone();
    assert!(disk.flip(&last, (place.offset + place.length - 1) as usize, 3));
    let folder = Folder::open(disk).unwrap();
    assert!(folder.damaged.is_empty() && folder.cells.version(victim) == Version::ZERO);
}

fn filled_cell(victim: &Key) -> Cell {
    let time = (1..=15).find(|time| key(*time as u64) == *victim).expect("one of filled()");
    cell(time, time % 4 == 0)
}
