//! The scrub: what rots in a sealed segment is found, and has left it before the next start could stumble over it.

use super::*;

impl Folder {
    /// Reads sealed segments through, from behind `after` on; what was read, piece by piece.
    fn scrub(&mut self, after: u32) -> Vec<Scrubbed> {
        let end = self.cells.active();
        let (mut done, mut pieces) = (after, Vec::new());
        while self.cells.scrub(done, end, &mut self.queue) {
            self.settle();
            let news = std::mem::take(&mut self.news);
            let piece = news.iter().find_map(|news| match news {
                News::Scrubbed(piece) => Some(*piece),
                _ => None,
            });
            let piece = piece.expect("what was ordered is told");
            assert!(!piece.is_done || piece.segment > done, "{piece:?} behind {done}");
            done = if piece.is_done { piece.segment } else { done };
            pieces.push(piece);
            assert!(pieces.len() < 1_000, "a pass without an end");
        }
        assert_eq!(self.cells.scrub_left(done, end), 0);
        pieces
    }
}

#[test]
fn every_flipped_bit_of_a_sealed_segment_is_found_and_costs_one_key_at_most() {
    let disk = filled(12);
    let full = Folder::open(disk.clone()).unwrap().contents();
    let sealed: Vec<_> = {
        let mut folder = Folder::open(disk.clone()).unwrap();
        let active = Log::Cells.segment_file(folder.cells.active());
        let files = folder.engine.disk_mut().files().into_iter();
        let is_sealed = |name: &str| name.starts_with("cells") && name.ends_with(".log");
        files.filter(|(name, _)| is_sealed(name) && *name < active).collect()
    };
    assert!(sealed.len() >= 2, "{sealed:?}");
    let (mut lost, mut whole) = (0, 0);
    for (name, length) in sealed {
        for bit in 0..length as usize * 8 {
            let mut folder = Folder::open(disk.clone()).unwrap();
            assert!(folder.engine.disk_mut().flip(&name, bit / 8, (bit % 8) as u8));
            let pieces = folder.scrub(0);
            let damaged: Vec<_> = pieces.iter().filter(|piece| piece.damaged).collect();
            assert_eq!(damaged.len(), 1, "{name} bit {bit}: {pieces:?}");
            assert_eq!(Log::Cells.segment_file(damaged[0].segment), name, "bit {bit}");
            let keys: Vec<_> = folder.cells.lost().map(|lost| lost.key).collect();
            assert!(keys.len() <= 1, "{name} bit {bit}: {keys:?}");
            let held = folder.contents();
            assert_eq!(held.len(), full.len() - keys.len(), "{name} bit {bit}");
            assert!(held.iter().all(|(key, cell)| full[key] == *cell), "{name} bit {bit}");
            assert!(folder.scrub(0).iter().all(|piece| !piece.damaged), "it is told once");
            // Healed, nothing is left of it that a start could take for a loss.
            for key in &keys {
                assert!(matches!(folder.put(key, &full[key]), Admission::Pending(_)));
            }
            folder.settle();
            assert!(!folder.cells.has_lost());
            assert!(!folder.engine.disk_mut().files().iter().any(|(file, _)| *file == name));
            let mut again = Folder::open(folder.engine.into_disk()).unwrap();
            assert!(again.damaged.is_empty() && !again.cells.has_lost(), "{name} bit {bit}");
            assert_eq!(again.contents(), full, "{name} bit {bit}");
            *(if keys.is_empty() { &mut whole } else { &mut lost }) += 1;
        }
    }
    assert!(lost > 1_000 && whole > 100, "{lost} with a loss, {whole} without");
}

/// While cells are written, overwritten and moved between its pieces, the scrub takes nothing for damage, and reads it all.
#[test]
fn sound_segments_are_read_through_and_none_is_taken_for_damaged() {
    let mut found = 0;
    for seed in 0..200 {
        let random = &mut Random(seed);
        let mut folder = Folder::open(filled(20)).unwrap();
        let (mut time, mut done, mut waits) = (100, 0, false);
        for _ in 0..200 {
            match random.below(4) {
                0 => {
                    time += 1;
                    folder.put(&key(random.below(30)), &cell(time, random.below(5) == 0));
                }
                1 if !waits => {
                    let end = folder.cells.active();
                    waits = folder.cells.scrub(done, end, &mut folder.queue);
                    done = if waits { done } else { 0 };
                }
                _ => folder.work(),
            }
            for news in std::mem::take(&mut folder.news) {
                if let News::Scrubbed(piece) = news {
                    assert!(!piece.damaged, "seed {seed}: {piece:?}");
                    done = if piece.is_done { piece.segment } else { done };
                    (found, waits) = (found + 1, false);
                }
            }
        }
    }
    assert!(found > 2_000, "{found} pieces");
}

#[test]
fn a_pass_reads_every_byte_and_goes_on_where_it_was() {
    let mut folder = Folder::open(filled(40)).unwrap();
    folder.settle();
    let end = folder.cells.active();
    let left = folder.cells.scrub_left(0, end);
    let pieces = folder.scrub(0);
    let read: u64 = pieces.iter().map(|piece| u64::from(piece.bytes)).sum();
    assert_eq!(read, left, "{pieces:?}");
    let (_, rest) = pieces.split_at(pieces.len() / 2);
    assert_eq!(folder.scrub(rest[0].segment - 1), rest);
    assert_eq!(folder.scrub(end), [], "nothing behind the end");
}
