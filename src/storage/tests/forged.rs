//! Clients choose what is in a value, and recovery looks for records inside values, too: whatever they choose, and wherever a
//! write is torn, nothing is found that was never appended.

use super::*;

/// Values that hold records, with something before and behind them, so that a torn write cuts between.
fn hostile_values(log: &[u8]) -> Vec<Vec<u8>> {
    // More than a sector, so that the record's own head can be lost without what is inside its value.
    let padding = vec![b'p'; 1_200];
    let mut values = Vec::new();
    for sequence in [2, 3, 4, 1 << 40] {
        for salt in [None, Some(0x1234_5678), Some(0)] {
            let forgery = forgery(&Key::bound("forged"), sequence, salt);
            values.push([&padding[..], &forgery, &padding].concat());
        }
    }
    // A whole log, such as a backup of this very folder.
    values.push([&padding[..], log, &padding].concat());
    values
}

/// A put of such a value whose write is on its way when the power goes out: the medium at that moment.
fn stopped_in_the_middle(value: Vec<u8>, flaw: Option<StorageFlaw>) -> MemoryDisk {
    let mut folder = Folder::open_with(MemoryDisk::new(), flaw).unwrap();
    folder.put(&key(1), &cell(1, false));
    folder.settle();
    let cell = Cell { version: version(2), content: Content::Value(value.into()) };
    folder.put(&key(2), &cell);
    // Reserves and writes; the sync fails.
    folder.engine.disk_mut().cut_power_after(2);
    folder.work();
    assert!(folder.broken);
    folder.engine.into_disk()
}

/// How many images show something else than what was put, or take the crash for damage; and how many there are.
fn fooled(flaw: Option<StorageFlaw>) -> (u64, u64) {
    let log = {
        let disk = filled(5);
        let (name, _) = last_segment(&disk);
        disk.read(&name, 0, usize::MAX).unwrap()
    };
    let (mut wrong, mut images) = (0, 0);
    for value in hostile_values(&log) {
        let whole = Cell { version: version(2), content: Content::Value(value.clone().into()) };
        stopped_in_the_middle(value, flaw).survivors(|image| {
            images += 1;
            let mut folder = Folder::open_with(image, flaw).unwrap();
            let held = folder.contents();
            let is_true = held.iter().all(|(name, held)| match name {
                name if *name == key(1) => *held == cell(1, false),
                name if *name == key(2) => *held == whole,
                _ => false,
            });
            let is_sound = is_true && folder.damaged.is_empty() && folder.cells.position() <= 2;
            assert!(held.contains_key(&key(1)), "what was acknowledged is lost");
            wrong += u64::from(!is_sound);
        });
    }
    (wrong, images)
}

#[test]
fn a_value_that_holds_records_never_passes_for_them() {
    let (wrong, images) = fooled(None);
    assert_eq!(wrong, 0, "of {images}");
    assert!(images > 10_000, "{images}");
}

/// The test above can fail: with checksums that vouch for bytes alone it does.
#[test]
fn without_salts_it_would() {
    let (wrong, images) = fooled(Some(StorageFlaw::Unsalted));
    assert!(wrong > 20, "{wrong} of {images}");
}

/// In a segment of format 1 a client can have made up what is found behind a bad record. The harm is bounded: no time from
/// the far future, no position that the log cannot have got to.
#[test]
fn in_a_segment_of_release_0_1_the_harm_is_bounded() {
    for (time, sequence, is_believed) in
        [(i64::MAX, 1 << 40, false), (i64::MAX, 3, false), (5, 1 << 40, false), (5, 3, true)]
    {
        let mut folder = Folder::open(MemoryDisk::new()).unwrap();
        folder.put(&key(1), &cell(1, false));
        folder.settle();
        let mut disk = folder.engine.into_disk();
        let (name, _) = last_segment(&disk);
        disk.remove(&name).unwrap();
        let mut bytes = release::header_one(1, 1);
        bytes.extend(release::record_one(&key(1), version(1), b"kept", (1, 0)));
        let forged = release::record_one(&Key::bound("forged"), version(time), b"", (sequence, 2));
        let value = [&[b'p'; 60][..], &forged, &[b'p'; 60]].concat();
        let mut torn = release::record_one(&key(2), version(2), &value, (2, 1));
        // Its last bytes have not reached the medium.
        let cut = torn.len() - 10;
        torn[cut..].fill(0);
        bytes.extend(torn);
        disk.write(&name, 0, &bytes).unwrap();
        let mut folder = Folder::open(disk).unwrap();
        let held = folder.contents();
        assert_eq!(held.contains_key(&Key::bound("forged")), is_believed);
        assert!(held.contains_key(&key(1)) && !held.contains_key(&key(2)));
        assert!(folder.cells.position() < 10, "{}", folder.cells.position());
        assert!(held.values().all(|cell| cell.version.time < 10));
    }
}
