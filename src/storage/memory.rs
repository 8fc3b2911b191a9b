//! A medium in memory that keeps what was synced apart from what was only written: for tests and the simulator.
//!
//! A crash keeps an arbitrary part of the unsynced writes, torn at sector bounds, in any combination, and a prefix
//! of the unsynced creations, renames and removals, as a journalling file system does.

use std::collections::BTreeMap;
use std::io;

use super::Disk;

/// What reaches the medium as a whole or not at all.
const SECTOR: usize = 512;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    files: BTreeMap<u64, File>,
    /// Names as programs see them.
    names: BTreeMap<String, u64>,
    /// Names as they are on the medium.
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since the folder was synced, oldest first.
    renames: Vec<NameChange>,
    next_file: u64,
    /// Bytes that fit, if there is a bound.
    capacity: Option<u64>,
    /// Nothing can be changed.
    read_only: bool,
    /// Changing operations until the power goes out, if it will.
    power_for: Option<u64>,
    operations: u64,
    syncs: u64,
    fresh_writes: u64,
    sync_fails: bool,
    /// A file that cannot be read.
    unreadable: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync, oldest first.
    writes: Vec<Write>,
    /// Up to where it was ever written to.
    touched: usize,
}

#[derive(Clone, Debug)]
enum Write {
    Bytes(usize, Vec<u8>),
    Truncate(usize),
}

/// What a power cut leaves of an unsynced write.
#[derive(Clone, Debug)]
enum Fate {
    Lost,
    Kept,
    /// Its first bytes.
    Prefix(usize),
    /// Some of its sectors.
    Sectors(Vec<bool>),
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(String, u64),
    Remove(String),
    Rename(String, String, u64),
}

impl Write {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Write::Bytes(offset, bytes) => write_at(to, *offset, bytes),
            Write::Truncate(length) => to.resize(*length, 0),
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Set(name, file) => {
                names.insert(name.clone(), *file);
            }
            NameChange::Remove(name) => {
                names.remove(name);
            }
            NameChange::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }
}

fn write_at(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[offset..end].copy_from_slice(bytes);
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, name.to_owned())
}

impl MemoryDisk {
    /// An empty medium without a bound.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// The power goes out, and comes back. `random(n)` gives a number below n; always 0 keeps nothing unsynced.
    pub fn crash(&mut self, mut random: impl FnMut(u64) -> u64) {
        let names = random(self.renames.len() as u64 + 1) as usize;
        self.survive(names, |_, _, write| match (write, random(4)) {
            (_, 0) => Fate::Lost,
            (Write::Bytes(_, bytes), 1) => {
                Fate::Sectors((0..bytes.len().div_ceil(SECTOR)).map(|_| random(2) == 1).collect())
            }
            (Write::Bytes(_, bytes), 2) => Fate::Prefix(random(bytes.len() as u64 + 1) as usize),
            (_, _) => Fate::Kept,
        });
    }

    /// The power goes out: this many of the unsynced changes of names are kept, and of each unsynced write what `fate`
    /// says of it, by its file and its number among the file's writes.
    fn survive(&mut self, names: usize, mut fate: impl FnMut(u64, usize, &Write) -> Fate) {
        for change in self.renames.drain(..).take(names) {
            change.apply(&mut self.durable_names);
        }
        self.names = self.durable_names.clone();
        let names = &self.names;
        self.files.retain(|file, _| names.values().any(|kept| kept == file));
        for (id, file) in &mut self.files {
            for (number, write) in std::mem::take(&mut file.writes).into_iter().enumerate() {
                match (fate(*id, number, &write), &write) {
                    (Fate::Lost, _) => {}
                    (Fate::Sectors(kept), Write::Bytes(offset, bytes)) => {
                        for (sector, piece) in bytes.chunks(SECTOR).enumerate() {
                            if kept.get(sector) == Some(&true) {
                                write_at(&mut file.durable, offset + sector * SECTOR, piece);
                            }
                        }
                    }
                    (Fate::Prefix(length), Write::Bytes(offset, bytes)) => {
                        write_at(&mut file.durable, *offset, &bytes[..length]);
                    }
                    (_, _) => write.apply(&mut file.durable),
                }
            }
            file.bytes = file.durable.clone();
        }
        self.power_for = None;
        self.sync_fails = false;
    }

    /// Every state that a power cut now could leave, of which at most one write is torn: each number of name changes, with
    /// all other unsynced writes lost, or all kept; of each write each prefix and each set of its sectors.
    #[cfg(test)]
    pub(super) fn survivors(&self, mut visit: impl FnMut(MemoryDisk)) {
        let writes = |(id, file): (&u64, &File)| {
            let numbered: Vec<_> = file.writes.iter().cloned().enumerate().collect();
            let id = *id;
            numbered.into_iter().map(move |(number, write)| (id, number, write))
        };
        let writes: Vec<_> = self.files.iter().flat_map(writes).collect();
        for names in 0..=self.renames.len() {
            for others in [Fate::Lost, Fate::Kept] {
                let mut leave = |torn: Option<(u64, usize)>, fate: &Fate| {
                    let mut disk = self.clone();
                    disk.survive(names, |id, number, _| match torn == Some((id, number)) {
                        true => fate.clone(),
                        false => others.clone(),
                    });
                    visit(disk);
                };
                leave(None, &others);
                for (id, number, write) in &writes {
                    let Write::Bytes(_, bytes) = write else { continue };
                    for length in 1..bytes.len() {
                        leave(Some((*id, *number)), &Fate::Prefix(length));
                    }
                    let sectors = bytes.len().div_ceil(SECTOR).min(6);
                    for kept in 1..(1u32 << sectors) - 1 {
                        let kept = (0..sectors).map(|sector| kept >> sector & 1 == 1).collect();
                        leave(Some((*id, *number)), &Fate::Sectors(kept));
                    }
                }
            }
        }
    }

    /// No more than this many bytes fit from now on.
    pub fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    /// There is a bound on the bytes that fit.
    pub fn is_bounded(&self) -> bool {
        self.capacity.is_some()
    }

    /// Nothing can be changed from now on, as on a file system that was mounted anew for reading alone.
    pub fn set_read_only(&mut self, read_only: bool) {
        self.read_only = read_only;
    }

    /// No byte of this file can be read from now on.
    pub fn make_unreadable(&mut self, name: Option<&str>) {
        self.unreadable = name.map(str::to_owned);
    }

    /// The next sync fails, and takes its unsynced bytes with it.
    pub fn fail_next_sync(&mut self) {
        self.sync_fails = true;
    }

    /// The next sync succeeds after all.
    pub fn stop_failing(&mut self) {
        self.sync_fails = false;
    }

    /// After this many more changing operations every one fails, until [`MemoryDisk::crash`].
    pub fn cut_power_after(&mut self, operations: u64) {
        self.power_for = Some(operations);
    }

    /// Changing operations so far.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        self.syncs
    }

    /// Writes that went beyond all before them in their file: what a file system takes note of.
    pub fn fresh_writes(&self) -> u64 {
        self.fresh_writes
    }

    /// Turns one bit of a file around, at rest. False if there is no such byte.
    pub fn flip(&mut self, name: &str, offset: usize, bit: u8) -> bool {
        let Some(file) = self.names.get(name).and_then(|file| self.files.get_mut(file)) else {
            return false;
        };
        for bytes in [&mut file.bytes, &mut file.durable] {
            match bytes.get_mut(offset) {
                Some(byte) => *byte ^= 1 << (bit & 7),
                None => return false,
            }
        }
        true
    }

    /// All files with their lengths.
    pub fn files(&self) -> Vec<(String, u64)> {
        let length = |file: &u64| self.files.get(file).map_or(0, |file| file.bytes.len() as u64);
        self.names.iter().map(|(name, file)| (name.clone(), length(file))).collect()
    }

    /// Bytes that still fit. What has no name any more takes none.
    fn room(&self) -> u64 {
        let Some(capacity) = self.capacity else { return u64::MAX };
        let files = self.names.values().filter_map(|file| self.files.get(file));
        capacity.saturating_sub(files.map(|file| file.bytes.len() as u64).sum())
    }

    fn change(&mut self) -> io::Result<()> {
        self.operate()?;
        match self.read_only {
            true => Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "read-only")),
            false => Ok(()),
        }
    }

    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        match &mut self.power_for {
            Some(0) => Err(io::Error::other("the power is out")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn file(&self, name: &str) -> io::Result<&File> {
        self.names.get(name).and_then(|file| self.files.get(file)).ok_or_else(|| missing(name))
    }

    fn file_mut(&mut self, name: &str) -> io::Result<&mut File> {
        let file = self.names.get(name).ok_or_else(|| missing(name))?;
        self.files.get_mut(file).ok_or_else(|| missing(name))
    }
}

impl Disk for MemoryDisk {
    fn make_folder(&mut self, _: &str) -> io::Result<()> {
        self.operate()
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let inside = |name: &String| match (folder, name.split_once('/')) {
            ("", None) => Some(name.clone()),
            (_, Some((parent, file))) if parent == folder => Some(file.to_owned()),
            (_, _) => None,
        };
        Ok(self.names.keys().filter_map(inside).collect())
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(self.file(name)?.bytes.len() as u64)
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let bytes = &self.file(name)?.bytes;
        if self.unreadable.as_deref() == Some(name) {
            return Err(io::Error::other("input/output error"));
        }
        let start = (offset as usize).min(bytes.len());
        let end = start.saturating_add(length).min(bytes.len());
        Ok(bytes[start..end].to_vec())
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change()?;
        if !self.names.contains_key(name) {
            self.next_file += 1;
            self.files.insert(self.next_file, File::default());
            self.names.insert(name.to_owned(), self.next_file);
            self.renames.push(NameChange::Set(name.to_owned(), self.next_file));
        }
        let room = self.room();
        let file = self.file_mut(name)?;
        let end = offset + bytes.len() as u64;
        let growth = end.saturating_sub(file.bytes.len() as u64);
        // A full medium takes the first part.
        let fitting = bytes.len() - growth.saturating_sub(room).min(bytes.len() as u64) as usize;
        let piece = bytes[..fitting].to_vec();
        write_at(&mut file.bytes, offset as usize, &piece);
        let end = offset as usize + fitting;
        let is_fresh = end > file.touched;
        file.touched = file.touched.max(end);
        file.writes.push(Write::Bytes(offset as usize, piece));
        self.fresh_writes += u64::from(is_fresh);
        if fitting < bytes.len() {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left"));
        }
        Ok(())
    }

    fn reserve(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.change()?;
        let room = self.room();
        let growth = length.saturating_sub(self.file(name)?.bytes.len() as u64);
        if growth > room {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left"));
        }
        let file = self.file_mut(name)?;
        if growth > 0 {
            file.bytes.resize(length as usize, 0);
            file.writes.push(Write::Truncate(length as usize));
        }
        Ok(())
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.change()?;
        let file = self.file_mut(name)?;
        file.bytes.resize(length as usize, 0);
        file.writes.push(Write::Truncate(length as usize));
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.operate()?;
        self.syncs += 1;
        if std::mem::take(&mut self.sync_fails) {
            // What the kernel may do: the pages are dropped, and the next sync would succeed.
            let file = self.file_mut(name)?;
            file.writes.clear();
            return Err(io::Error::other("input/output error"));
        }
        let file = self.file_mut(name)?;
        for write in std::mem::take(&mut file.writes) {
            write.apply(&mut file.durable);
        }
        Ok(())
    }

    fn sync_folder(&mut self, _: &str) -> io::Result<()> {
        self.operate()?;
        for change in std::mem::take(&mut self.renames) {
            change.apply(&mut self.durable_names);
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.change()?;
        let file = self.names.get(from).copied().ok_or_else(|| missing(from))?;
        let change = NameChange::Rename(from.to_owned(), to.to_owned(), file);
        change.apply(&mut self.names);
        self.renames.push(change);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.change()?;
        self.names.remove(name).ok_or_else(|| missing(name))?;
        self.renames.push(NameChange::Remove(name.to_owned()));
        Ok(())
    }
}
