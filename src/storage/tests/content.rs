//! Several contents under one version: whatever comes first, the greatest stays, in memory, on disk and after a restart.

use super::*;

/// Cells of one version with all kinds of contents, in ascending order.
fn ascending() -> Vec<Cell> {
    let long = "long ".repeat(30);
    let values = ["", "one", "two", "three", &long];
    let contents = values.map(|value| Content::Value(value.to_owned().into()));
    let cell = |content| Cell { version: version(7), content };
    let mut cells: Vec<_> = contents.into_iter().chain([Content::Tombstone]).map(cell).collect();
    cells.sort_by_key(Stamp::of);
    cells
}

#[test]
fn of_one_version_the_greatest_content_stays() {
    let cells = ascending();
    for (first, one) in cells.iter().enumerate() {
        for (second, other) in cells.iter().enumerate() {
            for settles in [true, false] {
                let mut folder = Folder::open(MemoryDisk::new()).unwrap();
                let Admission::Pending(ticket) = folder.put(&key(1), one) else { panic!() };
                if settles {
                    folder.settle();
                }
                let what = format!("{one:?}, then {other:?}, settled: {settles}");
                let greater = Stamp::of(one).checksum.filter(|_| second != first);
                match folder.put(&key(1), other) {
                    Admission::Pending(next) if second > first => {
                        assert_ne!(next, ticket, "{what}")
                    }
                    Admission::Pending(next) if !settles => assert_eq!(next, ticket, "{what}"),
                    Admission::Held { current, other } if settles && second <= first => {
                        assert_eq!((current, other), (version(7), greater), "{what}");
                    }
                    admission => panic!("{what}: {admission:?}"),
                }
                folder.settle();
                let stays = &cells[first.max(second)];
                assert_eq!(folder.contents()[&key(1)], *stays, "{what}");
                assert_eq!(folder.cells.stamp(&key(1)), Stamp::of(stays), "{what}");
                let keys_at_hand = folder.engine.into_disk();
                let mut without = keys_at_hand.clone();
                for (name, _) in keys_at_hand.files() {
                    if name.ends_with(".keys") {
                        without.remove(&name).unwrap();
                    }
                }
                for disk in [keys_at_hand, without] {
                    let mut again = Folder::open(disk).unwrap();
                    assert_eq!(again.contents()[&key(1)], *stays, "{what}, reopened");
                    assert_eq!(again.cells.stamp(&key(1)), Stamp::of(stays), "{what}, reopened");
                }
            }
        }
    }
}

/// A lesser content that compaction moves behind the greater one does not come back, and a value that was on its way from the
/// disk when the greater one came is not kept for it.
#[test]
fn what_was_greater_stays_so_whatever_moves_or_is_read() {
    let [.., less, greater] = &ascending()[..] else { panic!() };
    let mut folder = Folder::open(MemoryDisk::new()).unwrap();
    folder.put(&key(1), less);
    folder.settle();
    for time in 100..103 {
        folder.put(&key(time), &cell(time as i64, false));
        folder.settle();
    }
    // In its turn: the value is read, the greater one is shown, and its value leaves memory.
    let mut folder = Folder::open(folder.engine.into_disk()).unwrap();
    folder.cells.load(&key(1), &mut folder.queue).unwrap();
    let load = folder.queue.pop().unwrap();
    folder.put(&key(1), greater);
    folder.settle();
    folder.cells.options.memory = 0;
    folder.put(&key(2), &cell(200, false));
    folder.settle();
    folder.cells.options.memory = 1_000;
    folder.queue.push(load);
    folder.settle();
    assert_eq!(folder.contents()[&key(1)], *greater);
    for time in 300..360 {
        folder.put(&key(time % 4 + 10), &cell(time as i64, false));
        folder.settle();
    }
    assert!(folder.cells.stats().compactions > 0);
    assert_eq!(folder.contents()[&key(1)], *greater);
    let mut again = Folder::open(folder.engine.into_disk()).unwrap();
    assert_eq!(again.contents()[&key(1)], *greater);
}
