//! One segment: what of it counts, and whether it is damaged.
//!
//! Records are taken into the keydir as they are read. Should the segment turn out to be damaged behind them, it is read once more for
//! all that is true in it, which then is written elsewhere: each of these records takes the place of the former one of the
//! same cell.

use std::collections::VecDeque;

use bytes::Bytes;

use super::pieces::{Item, Next, Pieces, Rest, search};
use super::{
    Disk, Found, Gathered, Headed, Header, KeyFile, KeyFileWriter, Lacking, Log, LogError, Place,
    RecordFormat, Written, find, on, read_from,
};

/// What was read of a segment, and counts.
#[derive(Default)]
struct Counted {
    keys: KeyFileWriter,
    count: u64,
    /// Records of which the heads alone are true.
    damaged: Vec<(Place, Headed)>,
}

impl Counted {
    fn take(&mut self, item: Item, gathered: &mut Gathered) {
        let entry = item.entry();
        self.keys.push(&entry);
        self.count += 1;
        match item {
            Item::Record(..) => gathered.note(&entry),
            Item::Damaged(place, head) => self.damaged.push((place, head.detached())),
        }
    }

    /// The segment ends at `length`, with the record of position `last`, and this is all of it.
    fn settle(self, gathered: &mut Gathered, segment: u32, length: u32, last: u64) {
        let Counted { keys, damaged, .. } = self;
        let is_sound = damaged.is_empty();
        gathered.last = gathered.last.max(last);
        gathered.lacking = Some(Lacking { keys, segment, length, last, is_sound });
        gathered.take_unreadable(damaged);
    }
}

/// Reads a segment that another one follows.
pub(super) fn read_sealed<D: Disk>(
    disk: &D,
    log: Log,
    file: &Found,
    next: Option<Header>,
    gathered: &mut Gathered,
) -> Result<(), LogError> {
    let name = log.segment_file(file.number);
    let next = next.filter(|next| next.previous == file.number);
    if let Some(next) = next
        && file.length > u64::from(next.previous_length)
    {
        gathered.overlong.push((file.number, next.previous_length));
    }
    let sealed_length = next.map_or(file.length, |next| u64::from(next.previous_length));
    if let Some(keys) = read_key_file(disk, log, file.number)
        && file.header.is_some()
        && u64::from(keys.length) == sealed_length
        && file.length >= sealed_length
    {
        gathered.last = gathered.last.max(keys.last);
        gathered.segments.push((file.number, keys.length));
        keys.entries.iter().for_each(|entry| gathered.note(entry));
        return Ok(());
    }
    let Some(header) = file.header else {
        // Only the segment behind it still says how its records are written, and how far their positions got.
        let format = next.and_then(|next| next.previous_format());
        let most = next.map_or(0, |next| next.first - 1);
        let bytes = read_from(disk, &name, 0, file.length)?;
        let rest = format.map(|format| search(format, file.number, (&bytes, 0), 1, |_| most));
        let (rest, is_doubtful) = (rest.unwrap_or_default(), format == Some(RecordFormat::One));
        gathered.set_aside(file.number, Vec::new(), rest, is_doubtful);
        return Ok(());
    };
    // A hint that cannot be read is worth a comparison, no more.
    let passes_over = log == Log::Cells && !gathered.cuts_damage;
    let row = || {
        let end = file.length.min(sealed_length);
        Pieces::new(disk, &name, header, end, passes_over)
    };
    let (mut pieces, mut counted) = (row(), Counted::default());
    let is_clean = loop {
        match pieces.next()? {
            Next::Item(item) => counted.take(item, gathered),
            Next::Clean => break true,
            Next::Bad => break false,
        }
    };
    // Zeros before the end it was sealed at would hide what stood there.
    let is_whole = is_clean && u64::from(pieces.offset()) == sealed_length;
    if is_whole || !is_clean && gathered.cuts_damage {
        let last = header.first + counted.count - 1;
        gathered.segments.push((file.number, pieces.offset()));
        counted.settle(gathered, file.number, pieces.offset(), last);
        if !is_whole {
            gathered.lacking = None;
        }
        return Ok(());
    }
    let (records, rest) = read_all_that_is_true(row())?;
    gathered.set_aside(file.number, records, rest, header.format() == RecordFormat::One);
    Ok(())
}

/// Of a segment that is to be set aside: the records in a row, and what else is true.
fn read_all_that_is_true<D: Disk>(
    mut pieces: Pieces<'_, D>,
) -> Result<(Vec<(Place, Written)>, Rest), LogError> {
    let (mut records, mut heads) = (Vec::new(), Vec::new());
    loop {
        match pieces.next()? {
            Next::Item(Item::Record(place, written)) => records.push((place, written)),
            Next::Item(Item::Damaged(place, head)) => heads.push((place, head)),
            Next::Clean => return Ok((records, Rest { heads, ..Rest::default() })),
            Next::Bad => {
                let mut rest = pieces.rest()?;
                rest.heads.extend(heads);
                return Ok((records, rest));
            }
        }
    }
}

/// What the last segment holds above the highest position known to have been synced, and where that begins.
#[derive(Default)]
pub(super) struct Tail {
    pub(super) number: u32,
    pub(super) header: Option<Header>,
    pub(super) cut: u32,
    pub(super) records: Vec<(Place, Written)>,
    /// The bytes of these records, and the position of the first of them.
    pub(super) unsynced: Bytes,
    pub(super) first_unsynced: u64,
    pub(super) torn: bool,
    /// Where its last record ends, and its file.
    pub(super) end: u32,
    pub(super) file_length: u64,
    /// The segment that the new one follows, and where that one ends: this one, or if it is set aside, the one before
    /// it.
    pub(super) previous: u32,
    pub(super) previous_length: u32,
    pub(super) previous_salt: u64,
}

/// Reads the segment that was written to.
pub(super) fn read_last<D: Disk>(
    disk: &D,
    log: Log,
    file: &Found,
    gathered: &mut Gathered,
) -> Result<Tail, LogError> {
    let Some(header) = file.header else {
        gathered.set_aside(file.number, Vec::new(), Rest::default(), false);
        return Ok(Tail::default());
    };
    gathered.last = gathered.last.max(header.first.saturating_sub(1));
    let name = log.segment_file(file.number);
    let passes_over = log == Log::Cells && !gathered.cuts_damage;
    let row = || Pieces::new(disk, &name, header, file.length, passes_over);
    let (mut pieces, mut counted) = (row(), Counted::default());
    // What is not known yet to have been synced.
    let mut above = VecDeque::new();
    let mut synced = header.first - 1;
    let mut torn = loop {
        match pieces.next()? {
            Next::Item(item) => {
                synced = synced.max(item.synced());
                above.push_back(item);
                count_synced(&mut above, synced, &mut counted, gathered);
            }
            Next::Clean => break None,
            Next::Bad => {
                let Rest { records, heads } = pieces.rest()?;
                let named = records.iter().map(|(_, written)| written.synced);
                let named = named.chain(heads.iter().map(|(_, head)| head.synced));
                synced = named.fold(synced, u64::max);
                break Some(pieces.sequence());
            }
        }
    };
    if torn.is_some_and(|sequence| sequence <= synced) {
        let (records, rest) = read_all_that_is_true(row())?;
        gathered.set_aside(file.number, records, rest, header.format() == RecordFormat::One);
        let Header { previous, previous_length, previous_salt, .. } = header;
        return Ok(Tail { previous, previous_length, previous_salt, ..Tail::default() });
    }
    count_synced(&mut above, synced, &mut counted, gathered);
    let (mut records, mut end) = (Vec::new(), pieces.offset());
    for item in above {
        match item {
            Item::Record(place, written) => records.push((place, written)),
            Item::Damaged(place, head) => {
                // Its batch was cut by a crash.
                (torn, end) = (Some(head.sequence), place.offset);
                break;
            }
        }
    }
    let cut = records.first().map_or(end, |(place, _)| place.offset);
    let last = header.first + counted.count - 1;
    counted.settle(gathered, file.number, cut, last);
    Ok(Tail {
        number: file.number,
        header: Some(header),
        cut,
        records,
        unsynced: read_from(disk, &name, cut.into(), end.into())?,
        first_unsynced: last + 1,
        torn: torn.is_some(),
        end,
        file_length: file.length,
        previous: file.number,
        previous_length: cut,
        previous_salt: header.salt,
    })
}

/// The last segment's file, and up to which byte later records in it say that it has been synced. What rots before that is
/// noticed: for the simulator.
pub(crate) fn synced_for_certain<D: Disk>(disk: &D, log: Log) -> Option<(String, u32)> {
    let names = disk.list(log.folder()).ok()?;
    let last = find(disk, log, None, &names).ok()?.pop()?;
    let (name, header) = (log.segment_file(last.number), last.header?);
    let mut pieces = Pieces::new(disk, &name, header, last.length, true);
    let (mut synced, mut ends) = (0, Vec::new());
    while let Ok(Next::Item(item)) = pieces.next() {
        synced = synced.max(item.synced());
        ends.push((item.sequence(), pieces.offset()));
    }
    let (_, end) = ends.into_iter().rfind(|(sequence, _)| *sequence <= synced)?;
    Some((name, end))
}

/// What stands at or below `synced` counts.
fn count_synced(
    above: &mut VecDeque<Item>,
    synced: u64,
    counted: &mut Counted,
    gathered: &mut Gathered,
) {
    let count = above.partition_point(|item| item.sequence() <= synced);
    above.drain(..count).for_each(|item| counted.take(item, gathered));
}

fn read_key_file<D: Disk>(disk: &D, log: Log, segment: u32) -> Option<KeyFile> {
    let name = log.key_file(segment);
    let length = on(&name, disk.length(&name)).ok()?;
    let bytes = read_from(disk, &name, 0, length).ok()?;
    KeyFile::parse(&bytes).filter(|keys| keys.segment == segment)
}
