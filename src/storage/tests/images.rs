//! Every image that a power cut can leave of a small workload with roll-over, compaction, hints and erasures: stopped before
//! every single operation of the medium, with every write torn at every byte. Each is opened and compared with a model.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// What was sent, and what was acknowledged.
#[derive(Clone, Default)]
struct Model {
    sent: BTreeMap<Key, BTreeMap<Version, Cell>>,
    acknowledged: BTreeMap<Key, Version>,
    /// Hints that were acknowledged, and those of which an erasure was ordered.
    hints: BTreeSet<Key>,
    erased: BTreeSet<Key>,
}

/// Cells and hints, one batch each, until the power goes out or all is done.
fn work(folder: &mut Folder, model: &mut Model) {
    for time in 1..=26i64 {
        let (key, cell) = (key(time as u64 % 4), cell(time, time % 5 == 0));
        model.sent.entry(key.clone()).or_default().insert(cell.version, cell.clone());
        folder.put(&key, &cell);
        if time % 3 == 0 {
            folder.hints.put(&key, &cell, &mut folder.queue);
        }
        if time % 7 == 0 {
            model.erased.insert(key.clone());
            folder.hints.erase(&key, cell.version, &mut folder.queue);
        }
        // Each batch is settled before the next one, so that whatever is there then is acknowledged.
        folder.settle();
        if folder.broken {
            return;
        }
        model.acknowledged.insert(key.clone(), cell.version);
        if time % 3 == 0 {
            model.hints.insert(key);
        }
    }
}

/// The workload on an empty medium, whose power goes out before that operation; and whether it did.
fn stopped_before(operation: u64) -> (MemoryDisk, Model, bool) {
    let mut model = Model::default();
    let mut medium = MemoryDisk::new();
    medium.cut_power_after(operation);
    match Folder::open(medium.clone()) {
        Ok(mut folder) => {
            work(&mut folder, &mut model);
            let broken = folder.broken;
            (folder.engine.into_disk(), model, broken)
        }
        Err(_) => {
            // It goes out while the folder is opened: the same again, with the medium kept.
            let _ = Engine::open(&mut medium, options());
            (medium, model, true)
        }
    }
}

/// Opens an image and compares it with the model: nothing lost, nothing invented, nothing taken for damage.
fn check(image: MemoryDisk, model: &Model, at: u64) -> Folder {
    let mut folder = Folder::open(image).unwrap_or_else(|error| panic!("stop {at}: {error}"));
    assert_eq!(folder.damaged, Vec::<String>::new(), "stop {at}: torn is no damage");
    let held = folder.contents();
    for (key, version) in &model.acknowledged {
        let found = held.get(key).map(|cell| cell.version);
        assert!(found >= Some(*version), "stop {at}: {key} has {found:?}, not {version}");
    }
    for (key, cell) in &held {
        let sent = model.sent.get(key).and_then(|cells| cells.get(&cell.version));
        assert_eq!(sent, Some(cell), "stop {at}: {key}");
    }
    for key in model.hints.difference(&model.erased) {
        assert!(!folder.hints.version(key).is_zero(), "stop {at}: the hint for {key} is lost");
    }
    folder
}

/// S7, bug classes 28, 34, 35.
#[test]
fn every_image_that_a_power_cut_can_leave_opens_to_what_was_acknowledged() {
    let (mut stops, mut images, mut full_images, mut compacted) = (0u64, 0u64, 0u64, 0);
    for stop in 0.. {
        let (disk, model, went_out) = stopped_before(stop);
        compacted = compacted.max(disk.files().len());
        disk.survivors(|image| {
            images += 1;
            if images.is_multiple_of(5) && full::has_both_logs(&image) {
                full_images += 1;
                let mut image = image.clone();
                image.set_capacity(Some(0));
                check(image, &model, stop);
            }
            check(image, &model, stop);
        });
        stops += 1;
        if !went_out {
            break;
        }
    }
    println!("{stops} stops, {images} images, {full_images} of them also on a full medium");
    assert!(full_images > 5_000, "{full_images} on a full medium");
    assert!(stops > 150 && images > 50_000, "{stops} stops, {images} images");
    let (disk, _, _) = stopped_before(u64::MAX);
    let numbers = disk.files().into_iter().filter_map(|(name, _)| {
        name.strip_prefix("cells/")?.strip_suffix(".log")?.parse::<usize>().ok()
    });
    let numbers: Vec<_> = numbers.collect();
    let highest = numbers.iter().max().copied().unwrap_or(0);
    assert!(numbers.len() < highest, "something was compacted away: {numbers:?}");
}

/// Bug class 36: the power also goes out during recovery, before every operation of it, and of that every image is opened
/// again. From some of the images above.
#[test]
fn power_cuts_during_recovery_lose_nothing() {
    let (mut count, mut images) = (0u64, 0u64);
    for stop in (0..200).step_by(9) {
        let (disk, model, _) = stopped_before(stop);
        let mut chosen = Vec::new();
        disk.survivors(|image| {
            count += 1;
            if count.is_multiple_of(97) {
                chosen.push(image);
            }
        });
        for image in chosen {
            for operation in 0.. {
                let mut medium = image.clone();
                medium.cut_power_after(operation);
                let opened = Engine::open(&mut medium, options()).is_ok();
                let mut left = 0u64;
                medium.survivors(|image| {
                    left += 1;
                    // Each of the first, then some: most are prefixes of one write.
                    if left < 4 || left.is_multiple_of(31) {
                        images += 1;
                        check(image, &model, stop);
                    }
                });
                if opened {
                    break;
                }
            }
        }
    }
    println!("{images} images");
    assert!(images > 5_000, "{images} images");
}

/// Torn and damaged are told apart on every image: a bit that turns in what was synced before something that can still be
/// read is reported as damage, or nothing that was acknowledged is missing; in neither case is anything wrong shown.
#[test]
fn a_bit_that_turns_in_an_image_is_reported_or_harmless() {
    let random = &mut Random(11);
    let (mut reported, mut harmless) = (0, 0);
    for stop in 60..200 {
        let (disk, mut model, _) = stopped_before(stop);
        let mut images = Vec::new();
        let mut count = 0u64;
        disk.survivors(|image| {
            count += 1;
            if count.is_multiple_of(53) {
                images.push(image);
            }
        });
        for image in images {
            // What follows makes everything before it known to have been synced.
            let mut folder = check(image, &model, stop);
            for time in 100..102 {
                let cell = cell(time, false);
                folder.put(&key(90), &cell);
                model.sent.entry(key(90)).or_default().insert(cell.version, cell);
                folder.settle();
            }
            let before = folder.contents();
            let mut disk = folder.engine.into_disk();
            let (last, _) = last_segment(&disk);
            let newest = |disk: &MemoryDisk| {
                let found = look(disk).unwrap().cells.keydir;
                found.get(key(90).as_bytes()).map(|held| held.place().offset)
            };
            let end = newest(&disk).unwrap();
            let files: Vec<_> = disk
                .files()
                .into_iter()
                .filter(|(name, _)| name.starts_with("cells/") && name.ends_with(".log"))
                .collect();
            let (name, length) = &files[random.below(files.len() as u64) as usize];
            let reach = if *name == last { u64::from(end) } else { *length };
            for (file, _) in disk.files().iter().filter(|(file, _)| file.ends_with(".keys")) {
                disk.remove(file).unwrap();
            }
            assert!(disk.flip(name, random.below(reach) as usize, random.below(8) as u8));
            let mut folder = match Folder::open(disk) {
                Ok(folder) => folder,
                // A header that claims another owner.
                Err(OpenError::ForeignLog { .. }) => continue,
                Err(error) => panic!("stop {stop}: {error}"),
            };
            let held = folder.contents();
            assert!(held.iter().all(|(key, cell)| {
                let sent = model.sent.get(key).and_then(|cells| cells.get(&cell.version));
                before.get(key) == Some(cell) || sent == Some(cell)
            }));
            if folder.damaged.is_empty() && !folder.cells.has_lost() {
                assert_eq!(held, before, "stop {stop}: {name}: lost in silence");
                harmless += 1;
            } else {
                reported += 1;
            }
        }
    }
    println!("{reported} reported, {harmless} harmless");
    assert!(reported > 500, "{reported} reported, {harmless} harmless");
}
