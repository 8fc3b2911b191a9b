//! Opening a log on a medium that has no room for another segment. Reads must go on, and every promise must hold.
//!
//! First what is of no use is given back: zeros reserved behind the last record, a torn record above *H*, and what sealed
//! segments have behind their ends. If that is not enough, the last segment stays the active one: what is appended
//! once there is room goes behind its last record.
//!
//! Its records above *H* must be durable before anything is answered, and a sync alone proves nothing of them: after one that
//! failed, the kernel may hold their pages as clean. So the same bytes are written to where they stand, which makes their pages
//! dirty again and takes no room, and then they are synced. Should the power go out in the middle, each byte is the old one
//! or the same: what had been acknowledged was on the medium before, and stays. On a medium that writes every change to a
//! new place this may find no room either; then the log cannot be opened, for whatever is shown must be durable.
//!
//! A new segment is needed all the same where the last one is of format 1, which is not written any more, or where true records of
//! damaged segments must be kept.

use super::{
    Disk, Gathered, Header, KeyEntry, KeyFileWriter, Lacking, Log, LogError, RecordFormat, Tail, on,
};

/// Gives back what no record needs.
pub(super) fn make_room<D: Disk>(
    disk: &mut D,
    log: Log,
    tail: &Tail,
    gathered: &Gathered,
) -> Result<(), LogError> {
    // A segment is shorter than its file because of what the next one says: that one must not vanish.
    on(log.folder(), disk.sync_folder(log.folder()))?;
    gathered.cut_overlong(disk, log)?;
    if tail.number != 0 && tail.file_length > u64::from(tail.end) {
        let name = log.segment_file(tail.number);
        on(&name, disk.truncate(&name, u64::from(tail.end)))?;
        on(&name, disk.sync(&name))?;
    }
    Ok(())
}

/// Has the last segment stay the active one, after [`make_room`]. `None` if a new one is needed.
pub(super) fn go_on<D: Disk>(
    disk: &mut D,
    log: Log,
    tail: &Tail,
    gathered: &mut Gathered,
) -> Result<Option<(Header, u32, KeyFileWriter)>, LogError> {
    let Some(header) = tail.header else { return Ok(None) };
    let is_last = gathered.last + 1 == tail.first_unsynced;
    if header.format() == RecordFormat::One || !gathered.salvage.is_empty() || !is_last {
        return Ok(None);
    }
    let name = log.segment_file(tail.number);
    if !tail.unsynced.is_empty() {
        on(&name, disk.write(&name, u64::from(tail.cut), &tail.unsynced))?;
        on(&name, disk.sync(&name))?;
    }
    let Some(Lacking { mut keys, .. }) = gathered.lacking.take() else { return Ok(None) };
    for (place, written) in &tail.records {
        let entry = KeyEntry::of(&written.record, *place, written.value_crc);
        keys.push(&entry);
        gathered.note(&entry);
    }
    gathered.segments.push((tail.number, tail.end));
    Ok(Some((header, tail.end, keys)))
}
