//! The medium: a data folder of the file system.
//!
//! Files are for their owner alone. Reads and writes name their offset, so no file position is shared. Handles
//! are kept open, since a name is looked up in the kernel for each open; a folder is synced by opening it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fs2::FileExt as _;

use crate::storage::Disk;

/// Files open at once at most. Small against the limit of descriptors that connections also live on, and large
/// against the segments in use at a time.
const MAX_OPEN_FILES: usize = 64;

/// A data folder.
#[derive(Debug)]
pub(crate) struct FsDisk {
    top: PathBuf,
    open: RefCell<Handles>,
}

/// Open files by name, each with the turn of its last use.
#[derive(Debug, Default)]
struct Handles {
    files: BTreeMap<String, (File, u64)>,
    turn: u64,
}

impl Handles {
    /// The open file of that name, after making room and opening it if need be.
    fn get(&mut self, top: &Path, name: &str, create: bool) -> io::Result<&File> {
        self.turn += 1;
        if !self.files.contains_key(name) {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(create)
                .truncate(false)
                .mode(0o600)
                .open(top.join(name))?;
            if self.files.len() >= MAX_OPEN_FILES {
                let oldest = self.files.iter().min_by_key(|(_, (_, turn))| *turn);
                if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                    // Closing syncs nothing and loses nothing: the next sync of that name opens it again, and
                    // the kernel reports an error of its writeback to whoever opens next.
                    self.files.remove(&oldest);
                }
            }
            self.files.insert(name.to_owned(), (file, 0));
        }
        match self.files.get_mut(name) {
            Some((file, turn)) => {
                *turn = self.turn;
                Ok(file)
            }
            // Put there above.
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl FsDisk {
    /// The folder at `top`, which is there (its lock has been taken).
    pub(crate) fn new(top: impl Into<PathBuf>) -> FsDisk {
        FsDisk { top: top.into(), open: RefCell::default() }
    }

    fn with<T>(
        &self,
        name: &str,
        create: bool,
        act: impl FnOnce(&File) -> io::Result<T>,
    ) -> io::Result<T> {
        act(self.open.borrow_mut().get(&self.top, name, create)?)
    }
}

impl Disk for FsDisk {
    fn make_folder(&mut self, folder: &str) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(self.top.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        // Also if it was there: who made it may have died before its sync.
        self.sync_folder("")
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.top.join(folder))? {
            let entry = entry?;
            // A name that is no text is none of ours.
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        self.with(name, false, |file| Ok(file.metadata()?.len()))
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.with(name, false, |file| {
            // A length that is not in the file is not reserved either.
            let there = file.metadata()?.len().saturating_sub(offset);
            let mut bytes = vec![0; length.min(usize::try_from(there).unwrap_or(usize::MAX))];
            let mut filled = 0;
            while filled < bytes.len() {
                match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            bytes.truncate(filled);
            Ok(bytes)
        })
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(name, true, |file| file.write_all_at(bytes, offset))
    }

    fn reserve(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.with(name, false, |file| file.allocate(length))
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.with(name, false, |file| file.set_len(length))
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        // Data and what is needed to find it, the length included; not the times.
        self.with(name, false, File::sync_data)
    }

    fn sync_folder(&mut self, folder: &str) -> io::Result<()> {
        File::open(self.top.join(folder))?.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let files = &mut self.open.get_mut().files;
        files.remove(from);
        files.remove(to);
        fs::rename(self.top.join(from), self.top.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.get_mut().files.remove(name);
        fs::remove_file(self.top.join(name))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_written_is_read_and_only_its_owner_may() {
        let top = tempfile::tempdir().unwrap();
        let mut disk = FsDisk::new(top.path());
        disk.make_folder("cells").unwrap();
        disk.make_folder("cells").unwrap();
        disk.write("cells/1.log", 0, b"abcdef").unwrap();
        disk.write("cells/1.log", 6, b"ghi").unwrap();
        disk.sync("cells/1.log").unwrap();
        disk.sync_folder("cells").unwrap();
        assert_eq!(disk.length("cells/1.log").unwrap(), 9);
        disk.reserve("cells/1.log", 12).unwrap();
        disk.reserve("cells/1.log", 5).unwrap();
        assert_eq!(disk.read("cells/1.log", 8, 9).unwrap(), b"i\0\0\0");
        disk.truncate("cells/1.log", 9).unwrap();
        assert_eq!(disk.read("cells/1.log", 4, 3).unwrap(), b"efg");
        assert_eq!(disk.read("cells/1.log", 7, usize::MAX).unwrap(), b"hi");
        assert_eq!(disk.read("cells/1.log", 100, 5).unwrap(), b"");
        assert_eq!(mode(&top.path().join("cells")), 0o700);
        assert_eq!(mode(&top.path().join("cells/1.log")), 0o600);
    }

    #[test]
    fn truncate_rename_and_remove_are_seen_through_kept_handles() {
        let top = tempfile::tempdir().unwrap();
        let mut disk = FsDisk::new(top.path());
        disk.write("new", 0, b"new content").unwrap();
        disk.write("old", 0, b"old").unwrap();
        disk.truncate("new", 3).unwrap();
        disk.rename("new", "old").unwrap();
        assert_eq!(disk.read("old", 0, 10).unwrap(), b"new");
        assert_eq!(disk.list("").unwrap(), ["old"]);
        disk.remove("old").unwrap();
        for result in [disk.length("old").map(drop), disk.truncate("old", 0), disk.sync("old")] {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn names_come_in_byte_order_without_folders() {
        let top = tempfile::tempdir().unwrap();
        let mut disk = FsDisk::new(top.path());
        disk.make_folder("b").unwrap();
        for name in ["c", "a", "B"] {
            disk.write(name, 0, b"").unwrap();
        }
        assert_eq!(disk.list("").unwrap(), ["B", "a", "c"]);
    }

    #[test]
    fn more_files_than_may_be_open_are_all_reachable() {
        let top = tempfile::tempdir().unwrap();
        let mut disk = FsDisk::new(top.path());
        let count = MAX_OPEN_FILES + 10;
        for i in 0..count {
            disk.write(&format!("{i:03}"), 0, i.to_string().as_bytes()).unwrap();
        }
        assert!(disk.open.borrow().files.len() <= MAX_OPEN_FILES);
        for i in 0..count {
            assert_eq!(disk.read(&format!("{i:03}"), 0, 9).unwrap(), i.to_string().as_bytes());
        }
    }
}
