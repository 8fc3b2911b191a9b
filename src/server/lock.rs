//! The lock on a data folder: two servers never write one log.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fs2::FileExt;

/// The file that is locked, in the data folder. It stays behind; only the lock on it matters, and the operating
/// system takes that back when the process ends, however it ends.
const LOCK_FILE: &str = "lock";

/// Held for as long as the process uses the folder.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

/// Why a folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "data folder {} is in use by {}; stop that server first, or give this one another --data folder",
        folder.display(), holder.map_or("another process".into(), |pid| format!("process {pid}"))
    )]
    Held {
        /// The folder.
        folder: PathBuf,
        /// Who said that it holds the lock.
        holder: Option<u32>,
    },
    /// The folder or the file in it cannot be made or opened.
    #[error(
        "data folder {} cannot be used: {source}; check that it may be created and written",
        folder.display()
    )]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl FolderLock {
    /// Makes the folder if it is not there, for its owner alone, and locks it. Never waits.
    pub(crate) fn take(folder: &Path) -> Result<FolderLock, LockError> {
        let failed = |source| LockError::Folder { folder: folder.to_owned(), source };
        make(folder, &mut |changed| File::open(changed)?.sync_all()).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            // What is in it is the holder's number: not ours to cut before the lock is.
            .truncate(false)
            .mode(0o600)
            .open(folder.join(LOCK_FILE))
            .map_err(failed)?;
        if let Err(error) = FileExt::try_lock_exclusive(&file) {
            if error.kind() != fs2::lock_contended_error().kind() {
                return Err(failed(error));
            }
            let mut text = String::new();
            // Not readable as a number: then the message says "another process".
            let _ = (&file).take(32).read_to_string(&mut text);
            return Err(LockError::Held {
                folder: folder.to_owned(),
                holder: text.trim().parse().ok(),
            });
        }
        // For people only: whether it can be written decides nothing.
        let _ = file.set_len(0);
        let _ = file.rewind();
        let _ = writeln!(file, "{}", std::process::id());
        Ok(FolderLock { _file: file })
    }
}

/// Makes the folder, and those above it that are not there, for their owner alone. `sync` makes the entries of a folder durable:
/// it is called for each in which one was made, from the top down, so that what is synced inside can be found after a power cut.
fn make(folder: &Path, sync: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let above = folder.parent().map(|above| match above.as_os_str().is_empty() {
        true => Path::new("."),
        false => above,
    });
    if folder.is_dir() {
        // Who made it may have died before its sync. A folder above that is not ours to open was made by others.
        let _ = above.map(sync);
        return Ok(());
    }
    if let Some(above) = above {
        make(above, sync)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        other => other?,
    }
    above.map_or(Ok(()), sync)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_held_folder_is_refused_by_the_holders_number_and_is_free_again_afterwards() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("data/7");
        let held = FolderLock::take(&folder).unwrap();
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        match FolderLock::take(&folder) {
            Err(LockError::Held { holder, .. }) => assert_eq!(holder, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(held);
        FolderLock::take(&folder).unwrap();
    }

    #[test]
    fn every_folder_that_gets_an_entry_is_synced_from_the_top_down() {
        let top = tempfile::tempdir().unwrap();
        let top = top.path();
        let made = |folder: &str| {
            let mut synced = Vec::new();
            let mut sync = |changed: &Path| {
                synced.push(changed.strip_prefix(top).unwrap_or(Path::new("outside")).to_owned());
                Ok(())
            };
            make(&top.join(folder), &mut sync).unwrap();
            assert!(top.join(folder).is_dir());
            synced
        };
        // Of the folder that was there the one above is synced, too.
        assert_eq!(made("a/b/c"), ["outside", "", "a", "a/b"].map(PathBuf::from));
        assert_eq!(made("a/b/d"), ["a", "a/b"].map(PathBuf::from));
        assert_eq!(made("a/b/d"), ["a/b"].map(PathBuf::from));
        let refuse = &mut |_: &Path| Err(io::Error::other("no sync"));
        assert!(make(&top.join("e"), refuse).is_err(), "a new folder that may vanish");
        assert!(make(&top.join("a"), refuse).is_ok());
    }

    #[test]
    fn a_file_in_the_folders_place_is_an_error_that_names_it() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let error = FolderLock::take(&path).unwrap_err().to_string();
        assert!(error.contains("file") && error.contains("check that"), "{error}");
    }
}
